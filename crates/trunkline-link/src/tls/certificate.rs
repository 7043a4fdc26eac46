//! Certificates and keys from PEM texts, and whether they can be used today.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;

use super::TlsError;

/// A certificate chain and its key. `Debug` does not show the key.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain and a key (PKCS#8, PKCS#1 or SEC1) from PEM texts. Whether they fit and are valid today is
    /// checked when they are put to use.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either is missing.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem { what: "private key" })?;
        Ok(Self { chain: certificates(certificate)?, key })
    }

    /// When the first certificate of the chain expires; `None` when none does before the year 10000, or without a
    /// provider of cryptography.
    pub fn expires(&self) -> Option<SystemTime> {
        const FAR: u64 = 253_402_300_799;
        let (provider, far) = (super::provider().ok()?, UnixTime::since_unix_epoch(Duration::from_secs(FAR)));
        let ends = self.chain.iter().filter_map(|certificate| expiry(certificate, &provider, far));
        ends.min().map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(end.as_secs()))
    }

    /// Whether the key belongs to the certificate, and the certificate to this day.
    pub(super) fn check(&self, provider: &CryptoProvider, now: UnixTime) -> Result<(), TlsError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
            other => TlsError::Certificate(other.to_string()),
        })?;
        self.chain.iter().try_for_each(|certificate| in_its_time(certificate, provider, now))
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(TlsError::Pem { what: "certificate" }),
    }
}

/// Whether a certificate is valid now. A path is looked for that cannot be found, which webpki refuses only after it
/// has looked at the times.
pub(super) fn in_its_time(
    certificate: &CertificateDer<'_>,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<(), TlsError> {
    match fault_at(certificate, provider, now)? {
        Some(webpki::Error::CertExpired { not_after, .. }) => Err(TlsError::Expired { on: day(not_after) }),
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            Err(TlsError::NotYetValid { from: day(not_before), today: day(now) })
        }
        _ => Ok(()),
    }
}

/// What webpki has against a certificate at a time.
fn fault_at(
    certificate: &CertificateDer<'_>,
    provider: &CryptoProvider,
    time: UnixTime,
) -> Result<Option<webpki::Error>, TlsError> {
    let broken = |error: webpki::Error| TlsError::Certificate(error.to_string());
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(broken)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::server_auth();
    Ok(certificate.verify_for_usage(algorithms, &[], &[], time, usage, None, None).err())
}

fn expiry(certificate: &CertificateDer<'_>, provider: &CryptoProvider, far: UnixTime) -> Option<UnixTime> {
    match fault_at(certificate, provider, far) {
        Ok(Some(webpki::Error::CertExpired { not_after, .. })) => Some(not_after),
        _ => None,
    }
}

/// Returns the words for a peer's certificate that was refused: for one that is out of its time with the day, and with what
/// this machine's clock says, since the clock may be what is wrong.
pub(crate) fn told(error: &rustls::Error) -> String {
    use rustls::CertificateError::{ExpiredContext, NotValidYetContext};

    match error {
        rustls::Error::InvalidCertificate(NotValidYetContext { time, not_before }) => format!(
            "the peer's certificate is not valid before {}, and this machine's clock says {}; set the clock, or wait",
            day(*not_before),
            day(*time)
        ),
        rustls::Error::InvalidCertificate(ExpiredContext { time, not_after }) => format!(
            "the peer's certificate expired on {}, and this machine's clock says {}; give the peer a newer one, or set the \
             clock",
            day(*not_after),
            day(*time)
        ),
        error => error.to_string(),
    }
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| "a far day".into(), |t| t.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
