//! Body of the fuzz target of this crate. `fuzz/README.md` lists it; `tests/tests/claims/parsers.rs` runs it.

use trunkline_route::Chain;

use crate::{Identity, TlsProfile};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("pem", pem, pem_seeds)];

/// Certificates and keys as PEM: any bytes are some or refused, and a refusal shows nothing of what is in them.
pub fn pem(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let outcomes = [
        Identity::from_pem(bytes, bytes).map(drop),
        TlsProfile::default().roots_pem(bytes).map(drop),
        Identity::from_pem(bytes, SAMPLE_KEY.as_bytes()).map(drop),
    ];
    for error in outcomes.into_iter().filter_map(Result::err) {
        let error = Chain(&error).to_string();
        assert!(error.len() <= 1000, "{error}");
        let secrets = text.lines().map(str::trim).filter(|line| line.len() >= 16 && !line.starts_with("-----"));
        for secret in
            secrets.filter(|line| line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)))
        {
            assert!(!error.contains(secret), "{error}");
        }
    }
}

/// An Ed25519 key that nobody uses.
const SAMPLE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                          -----END PRIVATE KEY-----\n";
/// A certificate of that key.
const SAMPLE_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBLjCB4aADAgECAhR/8IBHoBOxYkobGehZhZLMNMOr0zAFBgMrZXAwDDEKMAgG\n\
A1UEAwwBaDAgFw0yNjExMjgyMjMyMzZaGA8yMTI2MTEwNDIyMzIzNlowDDEKMAgG\n\
A1UEAwwBaDAqMAUGAytlcAMhABm/RAlphM3+hUG6wWfcO5bIUIaqMLa2ywxcOK1w\n\
MWbho1MwUTAdBgNVHQ4EFgQUoozB+G5ZYNPgOudcliyXqNRIKTwwHwYDVR0jBBgw\n\
FoAUoozB+G5ZYNPgOudcliyXqNRIKTwwDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXAD\n\
QQDYl/2FLCQ49mUmRcKosGVQtDhIz2mEbh5mht9v5IBLv3nHnuBYQq/SsD0Gfq25\n\
sPLJ+J5L7sxmBs/UL7O2QsgP\n\
-----END CERTIFICATE-----\n\
";

/// A certificate, a key, both, two that are glued together, and other things that stand in such files.
pub fn pem_seeds() -> Vec<Vec<u8>> {
    let (certificate, key) = (SAMPLE_CERTIFICATE, SAMPLE_KEY);
    let glued = format!("{}{certificate}", certificate.trim_end());
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let marked = format!("\u{feff}subject=CN = h\r\n{}", certificate.replace('\n', "\r\n"));
    [certificate, key, &format!("{key}{certificate}"), &glued, &encrypted, &marked]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
