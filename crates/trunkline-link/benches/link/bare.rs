//! The same over TLS alone: the same certificates and suites, no link.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::ends::{cpu, repeat, tell, told_to_stop};

/// Bytes that a call of 32 bytes takes on the wire.
const SIZE: usize = 32 + 17;

fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

pub(crate) async fn listen(case: &str) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["bench".into()]).unwrap().self_signed(&key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let before = cpu();
    let serve = async {
        loop {
            let tcp = listener.accept().await.unwrap().0;
            tcp.set_nodelay(true).unwrap();
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let mut bytes = [0; SIZE];
            while case == "call" && tls.read_exact(&mut bytes).await.is_ok() {
                tls.write_all(&bytes).await.unwrap();
                tls.flush().await.unwrap();
            }
        }
    };
    tokio::select! { () = serve => {}, () = told_to_stop() => {} }
    tell("cpu_s", (cpu() - before).as_secs_f64());
}

pub(crate) async fn dial(case: &str, address: SocketAddr) {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SignatureOnly(provider())))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async || {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        connector.connect(ServerName::try_from("bench").unwrap(), tcp).await.unwrap()
    };
    if case == "connect" {
        repeat("connects", 1000, async || {
            let mut tls = connect().await;
            // Until the listener, too, is done.
            let _ = tls.read(&mut [0]).await;
        })
        .await;
    } else {
        let mut tls = connect().await;
        let mut bytes = [7; SIZE];
        repeat("calls", 30_000, async || {
            tls.write_all(&bytes).await.unwrap();
            tls.flush().await.unwrap();
            tls.read_exact(&mut bytes).await.unwrap();
        })
        .await;
    }
}

#[derive(Debug)]
struct SignatureOnly(CryptoProvider);

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
        unreachable!("TLS 1.3 only")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
