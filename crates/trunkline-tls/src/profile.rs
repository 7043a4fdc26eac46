//! TLS 1.3 configurations: who shows which certificate, and who checks it.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::{
    Resumption,
    danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use trunkline_route::{Cause, Host, NodeName, TlsMode};

use crate::certificate::{Identity, Placed, certificates, in_its_time, unix_time};
use crate::error::TlsError;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
use crate::lab;
use crate::provider::provider;

/// The protocol both ends name (ALPN); a listener of anything else is recognised by it.
pub const ALPN: &[u8] = b"tlk/1";
/// The server name sent when nobody checks it: it says nothing about the node.
const NO_NAME: &str = "trunkline.invalid";

/// Certificates that a route with `tls: true` checks and shows. The default checks the platform's roots and shows nothing.
///
/// ```
/// use std::time::SystemTime;
/// use trunkline_route::{Host, TlsMode};
/// use trunkline_tls::{ClientTls, LabAuthority, TlsProfile};
///
/// let authority = LabAuthority::new(SystemTime::now(), 365)?;
/// let profile = TlsProfile::default().roots_pem(authority.certificate().as_bytes())?.cert_name_required(true);
/// let tls = ClientTls::new(&profile)?;
/// let _connection = tls.connection(&TlsMode::Verify(None), &Host::new("db.example.com")?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TlsProfile {
    roots: Option<Vec<Placed>>,
    identity: Option<Identity>,
    server_name: Option<String>,
    cert_name_required: bool,
}

impl TlsProfile {
    /// Trust the certificates of this PEM text instead of the platform's roots.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is none.
    pub fn roots_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        self.roots = Some(certificates(pem)?);
        Ok(self)
    }

    /// Trust no certificate at all, and do not read the platform's roots: enough where only the cookie counts.
    pub fn no_roots(mut self) -> Self {
        self.roots = Some(Vec::new());
        self
    }

    /// Show this certificate to listeners that ask for one.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Expect this name in the peer's certificate instead of the host dialled.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Demands that the peer's certificate carries the name of the node dialled, as the URI `trunkline:<name>` among its
    /// subject alternative names. Default: no.
    pub fn cert_name_required(mut self, required: bool) -> Self {
        self.cert_name_required = required;
        self
    }
}

/// A profile made ready for dialling. Clones share it, and what [`ClientTls::replace`] puts into it.
///
/// ```
/// use trunkline_tls::{ClientTls, TlsProfile};
///
/// let tls = ClientTls::new(&TlsProfile::default().no_roots())?;
/// let shared = tls.clone();
/// tls.replace(&TlsProfile::default().no_roots().server_name("db.example.com"))?;
/// // Dials of `shared` use the new profile as well.
/// # drop(shared);
/// # Ok::<(), trunkline_tls::TlsError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<ArcSwap<Ready>>);

#[derive(Debug)]
struct Ready {
    verify: Arc<ClientConfig>,
    skip: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    cert_name_required: bool,
}

impl ClientTls {
    /// Makes a profile ready.
    ///
    /// # Errors
    /// [`TlsError`] for roots, a certificate, a key or a server name that cannot be used now.
    pub fn new(profile: &TlsProfile) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Ready::new(profile)?))))
    }

    /// Uses this profile from the next dial on; connections that are up stay up.
    ///
    /// # Errors
    /// As [`ClientTls::new`]; the profile in use stays in use.
    pub fn replace(&self, profile: &TlsProfile) -> Result<(), TlsError> {
        self.0.store(Arc::new(Ready::new(profile)?));
        Ok(())
    }

    /// The configuration and server name of one dial.
    pub fn connection(&self, mode: &TlsMode, host: &Host) -> Result<rustls::ClientConnection, TlsError> {
        self.0.load().connection(mode, host)
    }

    /// Returns `true` if a verified certificate must carry the name of the node dialled.
    pub fn requires_cert_name(&self, mode: &TlsMode) -> bool {
        matches!(mode, TlsMode::Verify(_)) && self.0.load().cert_name_required
    }
}

/// A store of those of the certificates that have not expired.
fn roots(given: &[Placed], provider: &CryptoProvider, now: UnixTime) -> Result<RootCertStore, TlsError> {
    let (mut store, mut expired) = (RootCertStore::empty(), None);
    for root in given {
        match in_its_time(root, provider, now) {
            Ok(()) => store.add(root.der.clone()).map_err(|e| TlsError::Roots(root.fault(e)))?,
            Err(error) => expired = Some(error),
        }
    }
    match expired {
        Some(error) if store.is_empty() => Err(TlsError::Roots(Cause::new(error))),
        _ => Ok(store),
    }
}

impl Ready {
    fn new(profile: &TlsProfile) -> Result<Self, TlsError> {
        let provider = provider()?;
        let roots = match &profile.roots {
            Some(given) => roots(given, &provider, UnixTime::now())?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let shown = profile.identity.as_ref().map(|identity| {
            let chain = identity.check(&provider, UnixTime::now())?;
            Ok::<_, TlsError>((chain, &identity.key))
        });
        let shown = shown.transpose()?;
        let config = |skip: bool| {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| TlsError::Certificate(Cause::new(e)))?;
            let builder = if skip {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(SignatureOnly {
                    algorithms: provider.signature_verification_algorithms,
                }))
            } else {
                builder.with_root_certificates(roots.clone())
            };
            let mut config = match &shown {
                Some((chain, key)) => builder
                    .with_client_auth_cert(chain.clone(), key.clone_key())
                    .map_err(|e| TlsError::Certificate(Cause::new(e)))?,
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![ALPN.to_vec()];
            // A resumed session would hide that the peer's certificate changed.
            config.resumption = Resumption::disabled();
            Ok::<_, TlsError>(Arc::new(config))
        };
        let server_name = profile.server_name.as_deref().map(server_name).transpose()?;
        let cert_name_required = profile.cert_name_required;
        Ok(Self { verify: config(false)?, skip: config(true)?, server_name, cert_name_required })
    }

    fn connection(&self, mode: &TlsMode, host: &Host) -> Result<rustls::ClientConnection, TlsError> {
        let (config, name) = match mode {
            TlsMode::CookieOnly => (&self.skip, server_name(NO_NAME)?),
            TlsMode::DangerousSkipVerify(_) => (&self.skip, self.name_or(host)?),
            TlsMode::Verify(_) => (&self.verify, self.name_or(host)?),
        };
        rustls::ClientConnection::new(config.clone(), name).map_err(|e| TlsError::Certificate(Cause::new(e)))
    }

    fn name_or(&self, host: &Host) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| server_name(host.without_zone()), Ok)
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::ServerName(text.to_owned()))
}

/// Certificate that a listener shows, and its demands on the certificates of callers: none by default.
///
/// ```
/// use std::time::SystemTime;
/// use trunkline_tls::{ClientAuth, Identity, LabAuthority, ServerProfile, ServerTls};
///
/// let now = SystemTime::now();
/// let authority = LabAuthority::new(now, 365)?;
/// let issued = authority.issue(&"db@10.0.0.5".parse()?, &[], now, 90)?;
/// let identity = Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes())?;
/// let profile = ServerProfile::new(identity).client_roots_pem(authority.certificate().as_bytes())?;
/// assert_eq!(ServerTls::new(&profile)?.client_auth(), ClientAuth::Required);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerProfile {
    identity: Identity,
    client_roots: Option<Vec<Placed>>,
    client_optional: bool,
    cert_name_required: bool,
}

/// Demand of a listener on its callers' certificates, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// A certificate that is shown must be valid.
    Optional,
    /// A valid one must be shown.
    Required,
    /// A valid one that carries the caller's name must be shown.
    Named,
}

/// Returns `true` if a certificate carries the name of a node, as the URI `trunkline:<name>` among its subject alternative
/// names.
pub fn names_node(certificate: &CertificateDer<'_>, node: &NodeName) -> bool {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
    let is_it = |uri: &str| uri.strip_prefix("trunkline:") == Some(node.as_str());
    certificate.valid_uri_names().any(is_it)
}

impl ServerProfile {
    /// Shows this certificate and asks callers for none.
    pub fn new(identity: Identity) -> Self {
        Self { identity, client_roots: None, client_optional: false, cert_name_required: false }
    }

    /// Demands of every caller a certificate that one of these authorities signed (mutual TLS).
    ///
    /// # Errors
    /// [`TlsError::Pem`] when there is none in the text.
    pub fn client_roots_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        self.client_roots = Some(certificates(pem)?);
        Ok(self)
    }

    /// Lets callers in that show no certificate; one that is shown is still verified.
    pub fn client_certificate_optional(mut self, optional: bool) -> Self {
        self.client_optional = optional;
        self
    }

    /// Demands that the caller's certificate carries the name it claims, as the URI `trunkline:<name>` among its subject
    /// alternative names, so that holding the cookie and some certificate is not enough to take a name. It implies a
    /// certificate of every caller, and has no effect without [`ServerProfile::client_roots_pem`]. Default: no.
    pub fn cert_name_required(mut self, required: bool) -> Self {
        self.cert_name_required = required;
        self
    }

    fn client_auth(&self) -> ClientAuth {
        match (&self.client_roots, self.cert_name_required, self.client_optional) {
            (None, ..) => ClientAuth::None,
            (Some(_), true, _) => ClientAuth::Named,
            (Some(_), false, true) => ClientAuth::Optional,
            (Some(_), false, false) => ClientAuth::Required,
        }
    }

    fn config(&self, now: UnixTime) -> Result<ServerConfig, TlsError> {
        let broken = |e: rustls::Error| TlsError::Certificate(Cause::new(e));
        let provider = provider()?;
        let chain = self.identity.check(&provider, now)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(broken)?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(given) => {
                let roots = Arc::new(roots(given, &provider, now)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let is_optional = self.client_auth() == ClientAuth::Optional;
                let verifier = if is_optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| TlsError::Roots(Cause::new(e)))?)
            }
        };
        let mut config = builder.with_single_cert(chain, self.identity.key.clone_key()).map_err(broken)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl From<Identity> for ServerProfile {
    fn from(identity: Identity) -> Self {
        Self::new(identity)
    }
}

/// The TLS side of a listener. Clones share it, and what [`ServerTls::replace`] puts into it.
///
/// ```
/// use trunkline_tls::{ClientAuth, ServerTls};
///
/// let tls = ServerTls::ephemeral()?;
/// assert_eq!(tls.client_auth(), ClientAuth::None);
/// let _connection = tls.connection()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ArcSwap<ServerConfig>>,
    client_auth: ClientAuth,
}

impl ServerTls {
    /// Makes a profile ready.
    ///
    /// # Errors
    /// [`TlsError`] for a certificate, key or roots that cannot be used now.
    pub fn new(profile: &ServerProfile) -> Result<Self, TlsError> {
        Self::ready(profile, UnixTime::now())
    }

    /// Makes a profile ready as [`ServerTls::new`] does, judged at another time.
    ///
    /// # Errors
    /// As [`ServerTls::new`].
    pub fn as_of(profile: &ServerProfile, time: SystemTime) -> Result<Self, TlsError> {
        Self::ready(profile, unix_time(time))
    }

    fn ready(profile: &ServerProfile, now: UnixTime) -> Result<Self, TlsError> {
        let config = Arc::new(ArcSwap::from_pointee(profile.config(now)?));
        Ok(Self { config, client_auth: profile.client_auth() })
    }

    /// Shows a fresh self-signed Ed25519 certificate that nobody is meant to check.
    ///
    /// # Errors
    /// [`TlsError::NoProvider`] without a provider.
    pub fn ephemeral() -> Result<Self, TlsError> {
        Self::new(&ephemeral_identity()?.into())
    }

    /// Uses this profile from the next caller on; connections that are up stay up.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; the profile in use stays in use.
    pub fn replace(&self, profile: &ServerProfile) -> Result<(), TlsError> {
        self.config.store(Arc::new(profile.config(UnixTime::now())?));
        Ok(())
    }

    /// Begins the TLS side of one caller's connection.
    ///
    /// # Errors
    /// As [`rustls::ServerConnection::new`].
    pub fn connection(&self) -> Result<rustls::ServerConnection, rustls::Error> {
        rustls::ServerConnection::new(self.config.load_full())
    }

    /// Returns what is demanded of callers' certificates.
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn ephemeral_identity() -> Result<Identity, TlsError> {
    let key = lab::new_key()?;
    let mut params = rcgen::CertificateParams::new(vec![NO_NAME.to_owned()]).map_err(lab::broken)?;
    // Nobody checks it, and the listener must be able to show it whatever this machine's clock says: one without a battery
    // says 1970 until the network has set it.
    params.not_before = time::OffsetDateTime::UNIX_EPOCH;
    let certificate = params.self_signed(&key).map_err(lab::broken)?;
    Ok(Identity { chain: vec![Placed::made(certificate.der().clone())], key: key.into() })
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
fn ephemeral_identity() -> Result<Identity, TlsError> {
    Err(TlsError::NoProvider)
}

/// Takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct SignatureOnly {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignatureOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is never negotiated".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(all(test, any(feature = "tls-ring", feature = "tls-aws-lc")))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_listener_without_a_certificate_starts_whatever_the_clock_says() {
        let year = Duration::from_secs(365 * 86_400);
        for years in [0, 1, 55, 1_000] {
            let identity = ephemeral_identity().unwrap();
            let ready = ServerTls::as_of(&identity.into(), SystemTime::UNIX_EPOCH + year * years);
            assert!(ready.is_ok(), "{} years after 1970: {ready:?}", years);
        }
    }
}
