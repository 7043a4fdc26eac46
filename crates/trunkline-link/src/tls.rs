//! TLS 1.3 configurations: who shows which certificate, and who checks it.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use trunkline_route::{Host, TlsMode};

/// The protocol both ends name (ALPN); a listener of anything else is recognised by it.
pub(crate) const ALPN: &[u8] = b"tlk/1";
/// The server name sent when nobody checks it: it says nothing about the node.
const NO_NAME: &str = "trunkline.invalid";

/// Why a TLS configuration cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate or key cannot be used.
    #[error("the certificate or key cannot be used: {0}")]
    Certificate(String),
    /// Neither `tls-ring` nor `tls-aws-lc` is compiled in.
    #[error("no TLS provider is compiled in; enable the feature tls-ring or tls-aws-lc")]
    NoProvider,
    /// The PEM text holds nothing of the kind.
    #[error("no {what} found in the PEM text")]
    Pem {
        /// What was looked for.
        what: &'static str,
    },
    /// The roots are empty or unusable.
    #[error("the roots cannot be used: {0}")]
    Roots(String),
    /// The server name is no DNS name or address.
    #[error("{0:?} is no server name")]
    ServerName(String),
}

/// A certificate chain and its key. `Debug` does not show the key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain and a key (PKCS#8, PKCS#1 or SEC1) from PEM texts.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either is missing.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem { what: "private key" })?;
        Ok(Self { chain: certificates(certificate)?, key })
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

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(TlsError::Pem { what: "certificate" }),
    }
}

/// What a route with `tls: true` checks and shows. The default checks the platform's roots and shows nothing.
#[derive(Debug, Clone, Default)]
pub struct TlsProfile {
    roots: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
    server_name: Option<String>,
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
}

/// A profile made ready for dialling.
#[derive(Debug, Clone)]
pub struct ClientTls {
    verify: Arc<ClientConfig>,
    skip: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Makes a profile ready.
    ///
    /// # Errors
    /// [`TlsError`] for roots, a key or a server name that cannot be used.
    pub fn new(profile: &TlsProfile) -> Result<Self, TlsError> {
        let provider = provider()?;
        let mut roots = RootCertStore::empty();
        match &profile.roots {
            Some(given) => {
                for root in given {
                    roots.add(root.clone()).map_err(|e| TlsError::Roots(e.to_string()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let config = |skip: bool| {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(|e| TlsError::Certificate(e.to_string()))?;
            let builder = if skip {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(SignatureOnly {
                    algorithms: provider.signature_verification_algorithms,
                }))
            } else {
                builder.with_root_certificates(roots.clone())
            };
            let mut config = match &profile.identity {
                Some(identity) => builder
                    .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                    .map_err(|e| TlsError::Certificate(e.to_string()))?,
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![ALPN.to_vec()];
            // A resumed session would hide that the peer's certificate changed.
            config.resumption = Resumption::disabled();
            Ok::<_, TlsError>(Arc::new(config))
        };
        let server_name = profile.server_name.as_deref().map(server_name).transpose()?;
        Ok(Self { verify: config(false)?, skip: config(true)?, server_name })
    }

    /// The configuration and server name of one dial.
    pub(crate) fn connection(&self, mode: &TlsMode, host: &Host) -> Result<rustls::ClientConnection, TlsError> {
        let (config, name) = match mode {
            TlsMode::CookieOnly => (&self.skip, server_name(NO_NAME)?),
            TlsMode::DangerousSkipVerify(_) => (&self.skip, self.name_or(host)?),
            TlsMode::Verify(_) => (&self.verify, self.name_or(host)?),
        };
        rustls::ClientConnection::new(config.clone(), name).map_err(|e| TlsError::Certificate(e.to_string()))
    }

    fn name_or(&self, host: &Host) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| server_name(host.as_str()), Ok)
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError::ServerName(text.to_owned()))
}

/// What a listener shows.
#[derive(Debug, Clone)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

impl ServerTls {
    /// Shows this certificate.
    ///
    /// # Errors
    /// [`TlsError::Certificate`] when chain and key do not fit.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider()?)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| TlsError::Certificate(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    /// Shows a fresh self-signed Ed25519 certificate that nobody is meant to check.
    ///
    /// # Errors
    /// [`TlsError::NoProvider`] without a provider.
    pub fn ephemeral() -> Result<Self, TlsError> {
        Self::new(&ephemeral_identity()?)
    }
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
fn ephemeral_identity() -> Result<Identity, TlsError> {
    let broken = |e: rcgen::Error| TlsError::Certificate(e.to_string());
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(broken)?;
    let params = rcgen::CertificateParams::new(vec![NO_NAME.to_owned()]).map_err(broken)?;
    let certificate = params.self_signed(&key).map_err(broken)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok(Identity { chain: vec![certificate.der().clone()], key })
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
fn ephemeral_identity() -> Result<Identity, TlsError> {
    Err(TlsError::NoProvider)
}

/// The provider compiled in (ring, else aws-lc), AES-128-GCM first: 9 % cheaper than AES-256 and no weaker here.
fn provider() -> Result<Arc<CryptoProvider>, TlsError> {
    #[cfg(feature = "tls-ring")]
    let found = Some(rustls::crypto::ring::default_provider());
    #[cfg(all(feature = "tls-aws-lc", not(feature = "tls-ring")))]
    let found = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc")))]
    let found: Option<CryptoProvider> = None;
    let mut provider = found.ok_or(TlsError::NoProvider)?;
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Ok(Arc::new(provider))
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
