//! Certificates and keys from PEM texts, and whether they can be used today.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use rustls::sign::CertifiedKey;
use trunkline_route::{Cause, Chain};

use super::error::TlsError;
use super::pem::{PemError, Wanted, blocks};
use super::provider::provider;
use super::subject::subject;

/// A certificate and its place in the text it came from.
#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) der: CertificateDer<'static>,
    /// Number of the certificate in the text, from 1.
    number: usize,
    /// The line it begins in, from 1; `None` for one that was made here.
    line: Option<usize>,
}

/// Fault of a certificate of a text.
#[derive(Debug, thiserror::Error)]
#[error("{placed}")]
struct Fault<E: std::error::Error + 'static> {
    placed: String,
    source: E,
}

impl Placed {
    /// Returns the cause of an error about this certificate.
    pub(crate) fn fault(&self, source: impl std::error::Error + Send + Sync + 'static) -> Cause {
        Cause::new(Fault { placed: self.to_string(), source })
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
impl Placed {
    /// Creates a certificate that is in no text.
    pub(crate) fn made(der: CertificateDer<'static>) -> Self {
        Self { der, number: 1, line: None }
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} (", self.number)?;
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "{})", subject(&self.der))
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate chain and its key. `Debug` does not show the key.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use trunkline_tls::{Identity, LabAuthority};
///
/// let now = SystemTime::now();
/// let issued = LabAuthority::new(now, 365)?.issue(&"db@10.0.0.5".parse()?, &[], now, 90)?;
/// let identity = Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes())?;
/// let left = identity.expires().ok_or("no expiry")?.duration_since(now)?;
/// assert!(left > Duration::from_secs(89 * 24 * 3600));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Identity {
    pub(crate) chain: Vec<Placed>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain, the end's own certificate first, and a key (PKCS#8, PKCS#1 or SEC1) from PEM texts. Whether they fit and
    /// are valid today is checked when they are put to use.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either is missing or cannot be read.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { key: private_key(key)?, chain: certificates(certificate)? })
    }

    /// Returns the time from which the chain cannot be used, unless it is replaced; `None` when that is not before the
    /// year 10000, or without a provider of cryptography. A certificate that is not needed does not count.
    pub fn expires(&self) -> Option<SystemTime> {
        const FAR: u64 = 253_402_300_799;
        let (provider, far) = (provider().ok()?, UnixTime::since_unix_epoch(Duration::from_secs(FAR)));
        let mut ends: Vec<u64> =
            self.chain.iter().filter_map(|placed| expiry(placed, &provider, far)).map(|end| end.as_secs()).collect();
        ends.sort_unstable();
        // One whose end was before today ended something already, if anything.
        let ends_it = |end: &u64| {
            let after = UnixTime::since_unix_epoch(Duration::from_secs(end + 1));
            matches!(self.in_use(&provider, after), Err(TlsError::Expired { .. }))
        };
        ends.into_iter().find(ends_it).map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(end))
    }

    /// Returns the certificates of the chain that are not shown to peers now, since their time is over or has not come, each with its place and
    /// its reason. They are not needed; what is needed and cannot be used is an error when the chain is put to use.
    pub fn left_out(&self) -> Vec<String> {
        let Ok(provider) = provider() else { return Vec::new() };
        let now = UnixTime::now();
        self.chain
            .iter()
            .filter_map(|placed| in_its_time(placed, &provider, now).err())
            .map(|e| Chain(&e).to_string())
            .collect()
    }

    /// The chain as it is shown at this time.
    ///
    /// # Errors
    /// [`TlsError`] when the key does not belong to the certificate, or a certificate that is needed is not in its time.
    pub(crate) fn check(
        &self,
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all = self.chain.iter().map(|placed| placed.der.clone()).collect();
        CertifiedKey::from_der(all, self.key.clone_key(), provider).map_err(|error| {
            match (error, self.chain.first()) {
                (rustls::Error::InconsistentKeys(_), _) => TlsError::KeyMismatch,
                (other, Some(own)) => TlsError::Certificate(own.fault(other)),
                (other, None) => TlsError::Certificate(Cause::new(other)),
            }
        })?;
        let shown = self.in_use(provider, now)?;
        Ok(shown.into_iter().map(|placed| placed.der.clone()).collect())
    }

    /// Returns the certificates of the chain that are in their time. The end's own must be, and so must every other one that the chain falls
    /// apart without; an expired root, or the old cross-signature of one, is of no use to anybody and does no harm.
    fn in_use(&self, provider: &CryptoProvider, now: UnixTime) -> Result<Vec<&Placed>, TlsError> {
        let (mut shown, mut out) = (Vec::new(), Vec::new());
        for (index, placed) in self.chain.iter().enumerate() {
            match in_its_time(placed, provider, now) {
                Ok(()) => shown.push(placed),
                Err(error @ (TlsError::Expired { .. } | TlsError::NotYetValid { .. })) if index > 0 => {
                    out.push((placed, error));
                }
                Err(error) => return Err(error),
            }
        }
        let all = reached(&self.chain.iter().collect::<Vec<_>>());
        let now = reached(&shown);
        let falls_apart = shown.iter().any(|placed| all.contains(&placed.number) && !now.contains(&placed.number));
        let is_issuer = |placed: &Placed| {
            let own = self.chain.first().and_then(names);
            own.zip(names(placed)).is_some_and(|(own, other)| own.1 == other.0 && other.0 != other.1)
        };
        // Whoever issued the end's own certificate is needed, but for a root, which peers have themselves.
        let has_issuer = shown.iter().any(|placed| is_issuer(placed));
        let needed = out
            .into_iter()
            .find(|(placed, _)| all.contains(&placed.number) && (falls_apart || (!has_issuer && is_issuer(placed))));
        needed.map_or(Ok(shown), |(_, error)| Err(error))
    }
}

/// The numbers of those that lead on from the first, issuer by issuer.
fn reached(chain: &[&Placed]) -> Vec<usize> {
    let mut reached: Vec<usize> = chain.first().map(|own| own.number).into_iter().collect();
    let mut issuers: Vec<Vec<u8>> = chain.first().and_then(|own| names(own)).map(|own| own.1).into_iter().collect();
    while let Some(issuer) = issuers.pop() {
        for placed in chain {
            if let Some((subject, next)) = names(placed)
                && subject == issuer
                && !reached.contains(&placed.number)
            {
                reached.push(placed.number);
                issuers.push(next);
            }
        }
    }
    reached
}

/// The subject and the issuer of a certificate.
fn names(placed: &Placed) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = webpki::EndEntityCert::try_from(&placed.der).ok()?;
    Some((certificate.subject().to_vec(), certificate.issuer().to_vec()))
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

pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Placed>, TlsError> {
    let blocks = blocks(pem, Wanted::Certificates).map_err(|source| TlsError::Pem { what: "certificate", source })?;
    let placed = |(index, mut block): (usize, super::pem::Block)| Placed {
        der: CertificateDer::from(std::mem::take(&mut *block.der)),
        number: index + 1,
        line: Some(block.line),
    };
    Ok(blocks.into_iter().enumerate().map(placed).collect())
}

/// The first key of the text.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |source| TlsError::Pem { what: "private key", source };
    let first = blocks(pem, Wanted::Key).map_err(unreadable)?.into_iter().next();
    let key = first.and_then(|mut block| PrivateKeyDer::from_pem(block.kind, std::mem::take(&mut *block.der)));
    key.ok_or_else(|| unreadable(PemError::UnknownKey))
}

/// Checks that a certificate is valid now. A path is looked for that cannot be found, which webpki refuses only after it
/// has looked at the times.
pub(crate) fn in_its_time(placed: &Placed, provider: &CryptoProvider, now: UnixTime) -> Result<(), TlsError> {
    match fault_at(placed, provider, now)? {
        Some(webpki::Error::CertExpired { not_after, .. }) => {
            Err(TlsError::Expired { which: placed.to_string(), on: day(not_after) })
        }
        Some(webpki::Error::CertNotValidYet { not_before, .. }) => {
            Err(TlsError::NotYetValid { which: placed.to_string(), from: day(not_before), today: day(now) })
        }
        _ => Ok(()),
    }
}

/// Returns the objection of webpki to a certificate at a time.
fn fault_at(placed: &Placed, provider: &CryptoProvider, time: UnixTime) -> Result<Option<webpki::Error>, TlsError> {
    let broken = |error: webpki::Error| TlsError::Certificate(placed.fault(error));
    let certificate = webpki::EndEntityCert::try_from(&placed.der).map_err(broken)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::server_auth();
    Ok(certificate.verify_for_usage(algorithms, &[], &[], time, usage, None, None).err())
}

/// Returns true for a certificate that may sign others: one webpki refuses at the end of a path for that reason.
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub(crate) fn is_authority(placed: &Placed, provider: &CryptoProvider) -> bool {
    matches!(fault_at(placed, provider, UnixTime::now()), Ok(Some(webpki::Error::CaUsedAsEndEntity)))
}

fn expiry(placed: &Placed, provider: &CryptoProvider, far: UnixTime) -> Option<UnixTime> {
    match fault_at(placed, provider, far) {
        Ok(Some(webpki::Error::CertExpired { not_after, .. })) => Some(not_after),
        _ => None,
    }
}

/// Returns the words for a peer's certificate that was refused: for one that is out of its time with the day, and with what
/// this machine's clock says, since the clock may be what is wrong.
pub fn told(error: &rustls::Error) -> String {
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

pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn day(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| "a far day".into(), |t| t.date().to_string())
}

#[cfg(all(test, any(feature = "tls-ring", feature = "tls-aws-lc")))]
mod tests;
