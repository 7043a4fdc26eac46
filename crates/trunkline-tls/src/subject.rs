//! The subject of a certificate, for people.

use rustls::pki_types::CertificateDer;

/// Attributes of a name that are shown, by the bytes of their identifiers, in the order of preference.
const SHOWN: &[(&[u8], &str)] = &[(COMMON_NAME, "CN"), (&[0x55, 4, 10], "O"), (&[0x55, 4, 11], "OU")];

/// The identifier of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The most characters of a value that are shown.
const MOST: usize = 64;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;

/// The common name, else the first name of an organisation or a host in the certificate.
pub(crate) fn subject(certificate: &CertificateDer<'_>) -> String {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return "unreadable".into() };
    let attributes = attributes(certificate.subject());
    let shown = SHOWN.iter().find_map(|(identifier, called)| {
        let (_, value) = attributes.iter().find(|(found, _)| found == identifier)?;
        Some(format!("{called}={value}"))
    });
    shown
        .or_else(|| certificate.valid_dns_names().next().map(|host| format!("for {}", printable(host))))
        .unwrap_or_else(|| "without a subject".into())
}

/// The common name.
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    attributes(certificate.subject()).into_iter().find_map(|(found, value)| (found == COMMON_NAME).then_some(value))
}

/// The attributes of a name: what is inside its outermost sequence. What cannot be read is left out.
fn attributes(mut name: &[u8]) -> Vec<(&[u8], String)> {
    let mut found = Vec::new();
    while let Some((SET, mut set)) = take(&mut name) {
        while let Some((SEQUENCE, mut pair)) = take(&mut set) {
            let (Some((OBJECT_IDENTIFIER, identifier)), Some((tag, value))) = (take(&mut pair), take(&mut pair)) else {
                continue;
            };
            found.push((identifier, text(tag, value)));
        }
    }
    found
}

/// The next value in DER: its tag and what is in it.
fn take<'d>(bytes: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (&[tag, short], mut rest) = bytes.split_first_chunk()?;
    let mut len = usize::from(short);
    if short & 0x80 != 0 {
        let digits;
        (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
    }
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some((tag, value))
}

fn text(tag: u8, value: &[u8]) -> String {
    if tag == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return printable(&String::from_utf16_lossy(&units));
    }
    printable(&String::from_utf8_lossy(value))
}

fn printable(text: &str) -> String {
    text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_in_each_kind_of_string() {
        // O=Ab (printable), CN=ä (UTF-8), CN=ä (BMP)
        let organisation: &[u8] = &[0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 10, 0x13, 2, b'A', b'b'];
        let utf8: &[u8] = &[0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x0c, 2, 0xc3, 0xa4];
        let bmp: &[u8] = &[0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x1e, 2, 0, 0xe4];
        let read = |name: &[u8]| attributes(name).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(read(&[organisation, utf8, bmp].concat()), ["Ab", "ä", "ä"]);
        assert_eq!(read(&[organisation, &utf8[..9]].concat()), ["Ab"]);
    }

    proptest! {
        #[test]
        fn reading_a_name_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = attributes(&bytes);
        }
    }
}
