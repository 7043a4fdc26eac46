//! PEM texts, block by block, each with its line. No error shows what is in a block.

use rustls::pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

/// Blocks by the text between `BEGIN` and the dashes, and what people call them. Other texts are never shown: in a damaged
/// file anything may stand there.
const KINDS: &[(&str, &str)] = &[
    ("CERTIFICATE", "a certificate"),
    ("CERTIFICATE REQUEST", "a certificate request"),
    ("DH PARAMETERS", "Diffie-Hellman parameters"),
    ("EC PARAMETERS", "curve parameters"),
    ("EC PRIVATE KEY", "a private key"),
    ("ENCRYPTED PRIVATE KEY", "an encrypted private key"),
    ("NEW CERTIFICATE REQUEST", "a certificate request"),
    ("OPENSSH PRIVATE KEY", "a private key in the format of OpenSSH"),
    ("PKCS7", "a PKCS#7 bundle"),
    ("PRIVATE KEY", "a private key"),
    ("PUBLIC KEY", "a public key"),
    ("RSA PRIVATE KEY", "a private key"),
    ("TRUSTED CERTIFICATE", "a certificate in a format of OpenSSL's own"),
    ("X509 CRL", "a revocation list"),
];

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Error returned when a PEM text holds no usable block of a kind. No text shows what is in a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// The first line of a block is not complete.
    #[error("the first line of a block is broken off in line {line}; copy the file again")]
    BrokenOff {
        /// Line, from 1.
        line: usize,
    },
    /// The text is binary, perhaps DER.
    #[error(
        "it is not text; if it is {format} in DER, the binary form, write it as PEM with `openssl {command} -inform DER \
         -in OLD -out NEW`"
    )]
    Der {
        /// Content of the file, if it is DER.
        format: &'static str,
        /// Command of OpenSSL that converts it.
        command: &'static str,
    },
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The key is encrypted.
    #[error(
        "the key in line {line} is encrypted, and a node asks for no passphrase; write it anew with `openssl pkey -in OLD \
         -out NEW`, readable for its owner only"
    )]
    Encrypted {
        /// Line, from 1.
        line: usize,
    },
    /// The content of a block is not base64.
    #[error("what is in {kind}, which begins in line {line}, is no base64; copy the file again")]
    NoBase64 {
        /// Kind of the block.
        kind: &'static str,
        /// Line, from 1.
        line: usize,
    },
    /// The text has no block.
    #[error("no line begins with `-----BEGIN `")]
    NoBlock,
    /// The text is not UTF-8.
    #[error("it is not text")]
    NotText,
    /// The text has only blocks of other kinds.
    #[error("there is only {found}")]
    OnlyOthers {
        /// Kinds and lines of the blocks.
        found: String,
    },
    /// A block has no end.
    #[error("{kind} begins in line {line} and does not end; copy the file again")]
    Unended {
        /// Kind of the block.
        kind: &'static str,
        /// Line, from 1.
        line: usize,
    },
    /// The private key is of no kind that is known.
    #[error("it is of no known kind")]
    UnknownKey,
    /// The text is UTF-16.
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
}

/// Kind of block looked for in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Certificates,
    Key,
}

impl Wanted {
    fn is(self, kind: SectionKind) -> bool {
        match kind {
            SectionKind::Certificate => self == Self::Certificates,
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => self == Self::Key,
            _ => false,
        }
    }
}

/// A block that was looked for: what is in it, and the line, from 1, it begins in.
pub(crate) struct Block {
    pub(crate) kind: SectionKind,
    pub(crate) der: Zeroizing<Vec<u8>>,
    pub(crate) line: usize,
}

/// The blocks of the wanted kind, in the order of the text; at least one.
///
/// Blocks that share a line (`-----END CERTIFICATE----------BEGIN CERTIFICATE-----`, as when files without a line feed at
/// the end are joined) and a byte order mark are understood. Other kinds are passed over, and so is what stands between
/// blocks.
///
/// # Errors
/// [`PemError`] names the fault, its line, and the remedy.
pub(crate) fn blocks(text: &[u8], wanted: Wanted) -> Result<Vec<Block>, PemError> {
    let text = utf8(text, wanted)?;
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let line = 1 + text[..text.len() - rest.len() + at].matches('\n').count();
        let from = &rest[at + BEGIN.len()..];
        let Some((label, body)) = from.split_once(DASHES).filter(|(label, _)| !label.contains(['\n', '\r'])) else {
            return Err(PemError::BrokenOff { line });
        };
        let known = KINDS.iter().find(|(known, _)| *known == label);
        let kind = known.map_or("a block of an unknown kind", |(_, called)| called);
        let end = format!("{END}{label}{DASHES}");
        // Another block that begins before the end is the one that ends there.
        let Some(inside) = body.find(&end).map(|end| &body[..end]).filter(|inside| !inside.contains(BEGIN)) else {
            return Err(PemError::Unended { kind, line });
        };
        rest = &body[inside.len() + end.len()..];
        let encrypted =
            label == "ENCRYPTED PRIVATE KEY" || (inside.contains("Proc-Type:") && inside.contains("ENCRYPTED"));
        if encrypted && wanted == Wanted::Key {
            return Err(PemError::Encrypted { line });
        }
        let section = SectionKind::try_from(label.as_bytes()).ok().filter(|section| wanted.is(*section));
        let Some(section) = section else {
            others.push(format!("{kind} (line {line})"));
            continue;
        };
        let whole = Zeroizing::new(format!("{BEGIN}{label}{DASHES}\n{}\n{end}\n", inside.trim()));
        match <(SectionKind, Vec<u8>)>::from_pem_slice(whole.as_bytes()) {
            Ok((_, der)) if !der.is_empty() => found.push(Block { kind: section, der: Zeroizing::new(der), line }),
            _ => return Err(PemError::NoBase64 { kind, line }),
        }
    }
    if found.is_empty() { Err(missing(text, &others)) } else { Ok(found) }
}

/// The text without a byte order mark.
fn utf8(bytes: &[u8], wanted: Wanted) -> Result<&str, PemError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(PemError::Utf16);
    }
    // The first byte of every such file in DER, the binary form.
    if bytes.first() == Some(&0x30) && !bytes.is_ascii() {
        let (command, format) = match wanted {
            Wanted::Certificates => ("x509", "a certificate"),
            Wanted::Key => ("pkey", "a key"),
        };
        return Err(PemError::Der { format, command });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PemError::NotText)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn missing(text: &str, others: &[String]) -> PemError {
    /// More are not named.
    const MOST: usize = 4;
    if !others.is_empty() {
        let more = if others.len() > MOST { ", …" } else { "" };
        return PemError::OnlyOthers { found: format!("{}{more}", others[..others.len().min(MOST)].join(", ")) };
    }
    match text.trim().is_empty() {
        true => PemError::Empty,
        false => PemError::NoBlock,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three bytes in base64.
    const BODY: &str = "AQID";

    fn block(label: &str) -> String {
        format!("-----BEGIN {label}-----\n{BODY}\n-----END {label}-----")
    }

    #[track_caller]
    fn found(text: &str, wanted: Wanted, lines: &[usize]) {
        let blocks = blocks(text.as_bytes(), wanted).unwrap();
        assert!(blocks.iter().all(|block| *block.der == [1, 2, 3]));
        assert_eq!(blocks.iter().map(|block| block.line).collect::<Vec<_>>(), lines);
    }

    #[track_caller]
    fn refused(text: &[u8], wanted: Wanted, says: &[&str]) {
        let error = blocks(text, wanted).err().expect("it is refused").to_string();
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("AQID") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn blocks_are_found_with_their_lines_however_they_are_joined() {
        let (certificate, key) = (block("CERTIFICATE"), block("PRIVATE KEY"));
        found(&format!("{certificate}\n{certificate}\n"), Wanted::Certificates, &[1, 4]);
        found(&format!("{certificate}{certificate}"), Wanted::Certificates, &[1, 3]);
        found(&format!("\u{feff}subject=CN = h\n\n{certificate}"), Wanted::Certificates, &[3]);
        found(&format!("{key}\r\n{certificate}").replace('\n', "\r\n"), Wanted::Certificates, &[4]);
        found(&format!("{certificate}\n{}\n{key}", block("EC PARAMETERS")), Wanted::Key, &[7]);
        for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            found(&block(label), Wanted::Key, &[1]);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_line_and_the_remedy() {
        let certificate = block("CERTIFICATE");
        let cut = &certificate[..certificate.len() - 10];
        refused(format!("\n\n{cut}").as_bytes(), Wanted::Certificates, &["line 3", "does not end", "copy"]);
        refused(format!("{cut}\n{certificate}").as_bytes(), Wanted::Certificates, &["line 1", "does not end"]);
        refused(b"-----BEGIN CERTIFICATE\nAQID\n", Wanted::Certificates, &["line 1", "broken off"]);
        let damaged = certificate.replace(BODY, "AQID hunter2!");
        refused(damaged.as_bytes(), Wanted::Certificates, &["a certificate", "line 1", "no base64"]);
        let empty = certificate.replace(BODY, "");
        refused(empty.as_bytes(), Wanted::Certificates, &["no base64"]);
        let other = format!("{}\n{}", block("PUBLIC KEY"), block("hunter2"));
        refused(other.as_bytes(), Wanted::Key, &["only a public key (line 1), a block of an unknown kind (line 4)"]);
        refused(block("CERTIFICATE REQUEST").as_bytes(), Wanted::Certificates, &["a certificate request"]);
        refused(b"", Wanted::Key, &["it is empty"]);
        refused(b"hunter2", Wanted::Key, &["-----BEGIN"]);
        refused(&[0x30, 0x82, 0x01, 0xff], Wanted::Key, &["openssl pkey -inform DER"]);
        refused(&[0x30, 0x82, 0x01, 0xff], Wanted::Certificates, &["openssl x509 -inform DER"]);
        refused(&[0xff, 0xfe, b'-', 0], Wanted::Certificates, &["UTF-16", "UTF-8"]);
        refused(&[0x80, 0x81], Wanted::Certificates, &["not text"]);
    }

    #[test]
    fn encrypted_keys_are_called_that_in_both_spellings() {
        let old = format!(
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X,Y\n\n{BODY}\n-----END RSA PRIVATE KEY-----"
        );
        for text in [block("ENCRYPTED PRIVATE KEY"), old] {
            refused(text.as_bytes(), Wanted::Key, &["line 1", "encrypted", "openssl pkey"]);
        }
        found(&format!("{}\n{}", block("ENCRYPTED PRIVATE KEY"), block("CERTIFICATE")), Wanted::Certificates, &[4]);
    }
}
