use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::{ClientTls, LabAuthority, ServerProfile, ServerTls, TlsProfile};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Noon of 2026-01-10 in UTC.
const TODAY: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_768_046_400));

/// A certificate that is valid from so many days before today to so many after it, and the means to sign others.
struct Signed {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
}

impl Signed {
    fn new(name: &str, days: (i64, i64), by: Option<&Self>) -> Self {
        let key = crate::lab::new_key().unwrap();
        let mut params = CertificateParams::new(vec!["db".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let today = time::OffsetDateTime::from_unix_timestamp(TODAY.as_secs() as i64).unwrap();
        (params.not_before, params.not_after) =
            (today + time::Duration::days(days.0), today + time::Duration::days(days.1));
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        let (pem, text) = (certificate.unwrap().pem(), key.serialize_pem());
        Self { issuer: Issuer::new(params, key), pem, key: text }
    }
}

const GOOD: (i64, i64) = (-10, 10);
const OVER: (i64, i64) = (-20, -9);
const LATER: (i64, i64) = (1, 20);

/// Returns the numbers of the certificates of a chain that are shown.
fn shown(chain: &[&Signed]) -> Result<Vec<usize>, TlsError> {
    let text: String = chain.iter().map(|signed| signed.pem.as_str()).collect();
    let identity = Identity::from_pem(text.as_bytes(), chain[0].key.as_bytes()).unwrap();
    let provider = provider().unwrap();
    identity.check(&provider, TODAY)?;
    Ok(identity.in_use(&provider, TODAY).unwrap().iter().map(|placed| placed.number).collect())
}

#[track_caller]
fn refused(chain: &[&Signed], says: &[&str]) {
    let error = shown(chain).unwrap_err();
    let error = Chain(&error).to_string();
    assert!(says.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn what_a_chain_does_not_need_is_left_out_when_its_time_is_over() {
    let root = Signed::new("root", GOOD, None);
    let middle = Signed::new("middle", GOOD, Some(&root));
    let own = Signed::new("own", GOOD, Some(&middle));
    assert_eq!(shown(&[&own, &middle, &root]).unwrap(), [1, 2, 3]);
    for days in [OVER, LATER] {
        // A root at the end, a stranger, and an old cross-signature of a root.
        let old_root = Signed::new("root", days, None);
        assert_eq!(shown(&[&own, &middle, &old_root]).unwrap(), [1, 2]);
        let stranger = Signed::new("stranger", days, None);
        assert_eq!(shown(&[&own, &stranger, &middle]).unwrap(), [1, 3]);
        let crossed = Signed::new("root", days, Some(&stranger));
        assert_eq!(shown(&[&own, &middle, &crossed, &stranger]).unwrap(), [1, 2]);
        // The certificate of an issuer that was renewed, before and behind the new one.
        let old_middle = Signed::new("middle", days, Some(&root));
        assert_eq!(shown(&[&own, &old_middle, &middle, &root]).unwrap(), [1, 3, 4]);
        let direct = Signed::new("direct", GOOD, Some(&old_root));
        assert_eq!(shown(&[&direct, &old_root]).unwrap(), [1]);
    }
}

#[test]
fn what_a_chain_needs_is_refused_with_its_place_and_subject_when_its_time_is_over() {
    let root = Signed::new("root", GOOD, None);
    let middle = Signed::new("middle", OVER, Some(&root));
    let own = Signed::new("own", GOOD, Some(&middle));
    let line = own.pem.lines().count() + 1;
    let place = format!("certificate 2 (line {line}, CN=middle) expired on 2026-01-01");
    refused(&[&own, &middle], &[&place]);
    refused(&[&own, &middle, &root], &[&place]);
    let (later, inner) = (Signed::new("later", LATER, Some(&root)), Signed::new("inner", GOOD, Some(&middle)));
    let below = Signed::new("below", GOOD, Some(&later));
    refused(&[&below, &later], &["certificate 2 (line", "CN=later) is not valid before 2026-01-11"]);
    let deep = Signed::new("deep", GOOD, Some(&inner));
    refused(&[&deep, &inner, &middle, &root], &["certificate 3 (line", "CN=middle) expired on"]);
    let old = Signed::new("old", OVER, Some(&root));
    refused(&[&old, &root], &["certificate 1 (line 1, CN=old) expired on"]);
}

#[test]
fn a_chain_expires_with_the_first_certificate_that_it_needs() {
    let root = Signed::new("root", (-10, 4), None);
    let middle = Signed::new("middle", (-10, 30_000), Some(&root));
    let own = Signed::new("own", (-10, 20_000), Some(&middle));
    let text = [own.pem.as_str(), &middle.pem, &root.pem].concat();
    let identity = Identity::from_pem(text.as_bytes(), own.key.as_bytes()).unwrap();
    let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(TODAY.as_secs()) + 20_000 * DAY;
    assert_eq!(identity.expires(), Some(expected));
    let middle = Signed::new("middle", (-10, 10_000), Some(&root));
    let own = Signed::new("own", (-10, 20_000), Some(&middle));
    let text = [own.pem.as_str(), &middle.pem, &root.pem].concat();
    let identity = Identity::from_pem(text.as_bytes(), own.key.as_bytes()).unwrap();
    assert_eq!(identity.expires(), Some(expected - 10_000 * DAY));
}

#[test]
fn faults_name_the_place_in_the_text() {
    let root = Signed::new("root", GOOD, None);
    let broken = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    let text = format!("{}{broken}", root.pem);
    let place = format!("certificate 2 (line {}, unreadable)", root.pem.lines().count() + 1);
    let profile = TlsProfile::default().roots_pem(text.as_bytes()).unwrap();
    let error = ClientTls::new(&profile).unwrap_err();
    let error = Chain(&error).to_string();
    assert!(error.contains(&place), "{error}");
    let identity = Identity::from_pem(text.as_bytes(), root.key.as_bytes()).unwrap();
    let error = ServerTls::new(&ServerProfile::new(identity)).unwrap_err();
    let error = Chain(&error).to_string();
    assert!(error.contains("certificate 1 (line 1, CN=root) expired") || error.contains(&place), "{error}");
}

#[test]
fn authorities_have_names_of_their_own_and_their_certificates_lead_back_to_them() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(TODAY.as_secs());
    let (one, two) = (LabAuthority::new(now, 20_000).unwrap(), LabAuthority::new(now, 20_000).unwrap());
    let read = |text: &str| certificates(text.as_bytes()).unwrap().remove(0);
    let name = |text: &str| crate::subject::common_name(&read(text).der).unwrap();
    assert_ne!(name(one.certificate()), name(two.certificate()));
    // One that is read back goes on under its name.
    let again = LabAuthority::from_pem(one.certificate(), &one.key()).unwrap();
    for authority in [&one, &again] {
        let issued = authority.issue(&"db@h".parse().unwrap(), &["h".parse().unwrap()], now, 30).unwrap();
        let (own, issued) = (read(one.certificate()).der, read(&issued.certificate).der);
        // The octets of the identifiers: 2.5.29.14 in the authority, 2.5.29.35 in what it issued.
        let subject = after(&own, &[0x55, 0x1d, 0x0e, 4, 22, 4, 20]);
        let issuer = after(&issued, &[0x55, 0x1d, 0x23, 4, 24, 0x30, 22, 0x80, 20]);
        assert_eq!(subject, issuer);
        assert_ne!(after(&issued, &[0x55, 0x1d, 0x0e, 4, 22, 4, 20]), issuer);
    }
}

/// The 20 bytes behind these.
fn after<'d>(der: &'d [u8], pattern: &[u8]) -> &'d [u8] {
    let at = der.windows(pattern.len()).position(|window| window == pattern).expect("the extension is there");
    &der[at + pattern.len()..][..20]
}

#[test]
fn a_certificate_out_of_its_time_is_told_with_what_the_clock_says() {
    let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
    let told = |error| told(&rustls::Error::InvalidCertificate(error));
    let early = rustls::CertificateError::NotValidYetContext { time: at(0), not_before: at(20_454) };
    assert_eq!(
        told(early),
        "the peer's certificate is not valid before 2026-01-01, and this machine's clock says 1970-01-01; set the clock, \
         or wait"
    );
    let late = rustls::CertificateError::ExpiredContext { time: at(20_454), not_after: at(20_089) };
    assert!(
        told(late)
            .starts_with("the peer's certificate expired on 2025-01-01, and this machine's clock says 2026-01-01")
    );
    assert_eq!(told(rustls::CertificateError::UnknownIssuer), "invalid peer certificate: UnknownIssuer");
}
