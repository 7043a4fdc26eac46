//! Attacker for tests: a raw TLK/1 caller and a raw listener that can send any message at any point.
//!
//! TLS, the message framing and the frames are implemented here from `docs/WIRE.md`. Only the key exchange and the MACs
//! come from the handshake machines of `trunkline-link`, since wrong ones would merely be refused.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::TLS13,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use trunkline::{Cookie, NodeName};
use trunkline_route::Incarnation;
use trunkline_wire::handshake::{
    Accepted, Credential, EXPORTER_LABEL, HandshakeError, Hello, Initiator, InitiatorConfig, Mode, Params, Responder,
    ResponderConfig, Verified,
};

use crate::support::{authority, issued, soon};

/// Accepts every certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Identity that an attacker claims.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Claimed name.
    pub from: NodeName,
    /// Node that is called; `None` in a session with a registrar.
    pub to: Option<NodeName>,
    /// Cookie held or guessed.
    pub cookie: Cookie,
    /// Claimed incarnation.
    pub incarnation: Incarnation,
    /// Mode that is requested.
    pub mode: Mode,
}

/// Connection over which an attacker sends arbitrary messages.
pub struct Raw {
    stream: TlsStream<TcpStream>,
}

impl Raw {
    /// Connects and completes TLS, from a given loopback address if there is one.
    pub async fn connect(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = source {
            socket.bind(source)?;
        }
        let tcp = socket.connect(to).await?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"tlk/1".to_vec()];
        let name = ServerName::try_from("trunkline.invalid").map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Ok(Self { stream: stream.into() })
    }

    fn exporter(&self) -> [u8; 32] {
        let connection = match &self.stream {
            TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None),
            TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None),
        };
        connection.expect("the TLS handshake is complete")
    }

    /// Sends one handshake message.
    pub async fn say(&mut self, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&(body.len() as u16).to_be_bytes()).await?;
        self.stream.write_all(body).await?;
        self.stream.flush().await
    }

    /// Reads one handshake message.
    pub async fn hear(&mut self) -> io::Result<Vec<u8>> {
        let mut body = vec![0; self.stream.read_u16().await?.into()];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Sends one frame.
    pub async fn frame(&mut self, kind: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.push(kind);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// Reads one frame: its type, id and payload.
    pub async fn next_frame(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).await?;
        let [a, b, c, kind, id @ ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok((kind, u32::from_be_bytes(id), payload))
    }

    /// Completes the handshake up to HELLO2.
    ///
    /// # Errors
    /// The handshake error, or `None` when the listener closed.
    pub async fn hello(&mut self, claim: Claim) -> Result<(Initiator, Verified), Option<HandshakeError>> {
        let Claim { from, to, cookie, incarnation, mode } = claim;
        let mut config = InitiatorConfig::new(from, to, cookie, incarnation, [7; 16]);
        config.mode = mode;
        let (mut machine, hello1) = Initiator::new(config, self.exporter());
        self.say(&hello1).await.map_err(|_| None)?;
        let hello2 = self.hear().await.map_err(|_| None)?;
        let verified = machine.hello2(&hello2)?;
        Ok((machine, verified))
    }

    /// Sends FINISH with these parameters and reads the verdict.
    ///
    /// # Errors
    /// The same as for [`Raw::hello`].
    pub async fn finish(
        &mut self,
        machine: &mut Initiator,
        params: &Params,
    ) -> Result<Accepted, Option<HandshakeError>> {
        let finish = machine.finish(params)?;
        self.say(&finish).await.map_err(|_| None)?;
        let verdict = self.hear().await.map_err(|_| None)?;
        Ok(machine.accept(&verdict)?)
    }

    /// Completes the handshake with the parameters of a caller that has no link yet.
    ///
    /// # Errors
    /// The same as for [`Raw::hello`].
    pub async fn link(to: SocketAddr, claim: Claim, params: &Params) -> Result<Self, Option<HandshakeError>> {
        let mut raw = Self::connect(None, to).await.map_err(|_| None)?;
        let (mut machine, _) = raw.hello(claim).await?;
        raw.finish(&mut machine, params).await?;
        Ok(raw)
    }
}

/// Listener that guesses at the cookie of each caller: each HELLO1 that it answers is one guess.
pub struct Guesser {
    /// Address that it listens on.
    pub address: SocketAddr,
    guesses: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Guesser {
    /// Listens under a name, or as a registrar, and always guesses the same cookie.
    pub async fn listen(name: NodeName, mode: Mode, guess: Cookie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let issued = issued(&authority(), name.as_str(), 0);
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("it was just issued");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("it was just issued");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3 is known")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key fits");
        config.alpn_protocols = vec![b"tlk/1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let guesses = Arc::new(AtomicUsize::new(0));
        let counted = guesses.clone();
        let task = tokio::spawn(async move {
            let mut answers = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, counted, name, guess) = (acceptor.clone(), counted.clone(), name.clone(), guess.clone());
                answers.spawn(async move {
                    let stream = acceptor.accept(tcp).await.ok()?;
                    let mut raw = Raw { stream: stream.into() };
                    let mut config = ResponderConfig::new(name, [9; 16], [8; 16]);
                    config.mode = mode;
                    let mut machine = <Responder>::new(config, raw.exporter());
                    let hello1 = raw.hear().await.ok()?;
                    let credential = move |_: &NodeName, _: &str| Credential::Cookie(guess.clone());
                    let Ok(Hello::Answer(hello2)) = machine.hello1(&hello1, &credential) else { return None };
                    counted.fetch_add(1, Ordering::SeqCst);
                    raw.say(&hello2).await.ok()?;
                    // The caller's next message shows whether the guess was right.
                    raw.hear().await.ok()
                });
            }
        });
        Self { address, guesses, task: task.abort_handle() }
    }

    /// Returns the number of guesses so far.
    pub fn guesses(&self) -> usize {
        self.guesses.load(Ordering::SeqCst)
    }
}

impl Drop for Guesser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the incarnation of a node. HELLO2 tells it to every holder of the cookie.
pub async fn incarnation_of(address: SocketAddr, claim: Claim) -> Incarnation {
    let mut raw = soon(Raw::connect(None, address)).await.expect("it listens");
    let (_, verified) = soon(raw.hello(claim)).await.expect("the cookie is right");
    verified.incarnation
}
