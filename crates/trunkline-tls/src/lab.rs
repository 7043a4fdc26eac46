//! A certificate authority for a lab: enough to try `tls: true` on, no replacement for one that keeps its key apart.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use trunkline_route::{Cause, Host, NodeName};
use zeroize::Zeroizing;

use super::certificate::{Identity, certificates, is_authority, unix_time};
use super::error::TlsError;
use super::provider::provider;
use super::subject::common_name;

/// The name of such an authority, which the beginning of its key identifier completes: authorities that are trusted together
/// must not have one name, or a verifier takes one for the other.
const AUTHORITY: &str = "trunkline lab authority";
/// Bytes of the key identifier in the name: 32 bits, enough to tell the authorities of a lab apart.
const IN_NAME: usize = 4;
/// Machines whose clocks are a little behind take a new certificate too.
const SLACK: Duration = Duration::from_secs(3600);

/// A certificate and its key as PEM texts. `Debug` does not show the key.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Key of the certificate (PKCS#8, Ed25519): a secret.
    pub key: Zeroizing<String>,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// An authority that issues node certificates for a lab; `trunkline certs` on the command line.
///
/// ```
/// use std::time::SystemTime;
/// use trunkline_tls::LabAuthority;
///
/// let now = SystemTime::now();
/// let authority = LabAuthority::new(now, 365)?;
/// let issued = authority.issue(&"db@10.0.0.5".parse()?, &["10.0.0.5".parse()?], now, 90)?;
/// assert!(issued.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
///
/// // The authority continues from its stored certificate and key.
/// let again = LabAuthority::from_pem(authority.certificate(), &authority.key())?;
/// assert_eq!(again.certificate(), authority.certificate());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LabAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl LabAuthority {
    /// Makes a new one, valid from `now` for so many days, 1 to 36,500. Its name is its own: several can be trusted together.
    ///
    /// # Errors
    /// [`TlsError`] when the provider makes no key, or the days are out of range.
    pub fn new(now: SystemTime, days: u16) -> Result<Self, TlsError> {
        let key = new_key()?;
        let id = CertificateParams::default().key_identifier(&key);
        let id: String = id.iter().take(IN_NAME).map(|byte| format!("{byte:02x}")).collect();
        let mut params = authority_params(&format!("{AUTHORITY} {id}"));
        (params.not_before, params.not_after) = validity(now, days)?;
        let certificate = params.self_signed(&key).map_err(broken)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Takes up one that [`LabAuthority::new`] made, from the PEM texts of its certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`] when one of them is missing, they do not fit, or the authority was made by something else.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, TlsError> {
        let (identity, provider) = (Identity::from_pem(certificate.as_bytes(), key.as_bytes())?, provider()?);
        identity.check(&provider, UnixTime::now())?;
        let Some(own) = identity.chain.first().filter(|own| is_authority(own, &provider)) else {
            return Err(TlsError::Certificate(Cause::new(LabError::NoAuthority)));
        };
        // It signs under the name it has, which in earlier versions was the same for all.
        let name = common_name(&own.der).unwrap_or_else(|| AUTHORITY.to_owned());
        let key = KeyPair::from_pem(key).map_err(broken)?;
        Ok(Self { issuer: Issuer::new(authority_params(&name), key), certificate: certificate.to_owned() })
    }

    /// Returns the certificate of the authority as PEM: the `roots` of nodes that are to trust it.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the key of the authority as PEM: a secret.
    pub fn key(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Issues a certificate for a node that is dialled at these hosts, to listeners and callers alike. It carries
    /// the node's name as the URI `trunkline:<name>` as well.
    ///
    /// # Errors
    /// [`TlsError`] when a host cannot stand in a certificate, the days are not 1 to 36,500, or the authority's own
    /// certificate does not lead to what it issued.
    pub fn issue(&self, node: &NodeName, hosts: &[Host], now: SystemTime, days: u16) -> Result<Issued, TlsError> {
        let hosts: Vec<String> = hosts.iter().map(|host| host.as_str().to_owned()).collect();
        let key = new_key()?;
        let mut params = CertificateParams::new(hosts).map_err(broken)?;
        params.subject_alt_names.push(SanType::URI(uri(node).as_str().try_into().map_err(broken)?));
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = validity(now, days)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(broken)?;
        self.check(certificate.der(), now)?;
        Ok(Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Checks that a verifier that trusts this authority trusts a certificate.
    fn check(&self, issued: &CertificateDer<'_>, now: SystemTime) -> Result<(), TlsError> {
        let wrong = |e: webpki::Error| TlsError::Certificate(Cause::new(LabError::Distrusted(e)));
        let own = certificates(self.certificate.as_bytes())?;
        let anchors = own.iter().take(1).map(|own| webpki::anchor_from_trusted_cert(&own.der));
        let anchors = anchors.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let algorithms = provider()?.signature_verification_algorithms.all;
        let issued = webpki::EndEntityCert::try_from(issued).map_err(wrong)?;
        let usage = webpki::KeyUsage::server_auth();
        issued.verify_for_usage(algorithms, &anchors, &[], unix_time(now), usage, None, None).map_err(wrong)?;
        Ok(())
    }
}

impl fmt::Debug for LabAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabAuthority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Reason why an authority cannot issue.
#[derive(Debug, thiserror::Error)]
enum LabError {
    #[error("{0} days are out of range; take 1 to 36500")]
    Days(u16),
    #[error("what this authority issues would not be trusted by its own certificate")]
    Distrusted(#[source] webpki::Error),
    #[error("it is of no authority; what is issued with it would not be trusted")]
    NoAuthority,
}

/// Returns the URI by which a certificate names a node.
fn uri(node: &NodeName) -> String {
    format!("trunkline:{node}")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn validity(now: SystemTime, days: u16) -> Result<(time::OffsetDateTime, time::OffsetDateTime), TlsError> {
    if !(1..=36_500).contains(&days) {
        return Err(TlsError::Certificate(Cause::new(LabError::Days(days))));
    }
    let end = now + Duration::from_secs(u64::from(days) * 24 * 3600);
    Ok(((now - SLACK).into(), end.into()))
}

pub(crate) fn new_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(broken)
}

pub(crate) fn broken(error: rcgen::Error) -> TlsError {
    TlsError::Certificate(Cause::new(error))
}
