//! Dialling and answering over TCP: the tokio shell around the handshake machines.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use trunkline_route::{Attempt, Cookie, NodeName, TlsMode};

use crate::gate::{Gate, GateLimits, SlotId};
use crate::handshake::{
    CloseCode, Credential, EXPORTER_LABEL, HandshakeError, Hello, Incarnation, Initiator, InitiatorConfig, LinkId,
    MAX_BODY, Mode, Offer, Params, Responder, ResponderConfig, VERSIONS, Verified,
};
use crate::io::{Hooks, KeepAlive, Stream, Task, now};
use crate::link::{Link, LinkInfo, Shared};
use crate::mailbox::{Directory, lock};
use crate::mux::Window;
use crate::pake::Role;
use crate::tls::{ClientTls, ServerTls, TlsError};

/// The most bytes a stranger may send before it is authenticated, TLS included.
///
/// An honest initiator without a client certificate sends under 2 KiB.
const MAX_UNAUTHENTICATED: usize = 8 * 1024;
/// The most bytes taken from a listener before the link stands; certificates chains come this way.
const MAX_FROM_LISTENER: usize = 64 * 1024;
/// Connections the kernel may hold for the listener; 128 loses connects in a burst.
const BACKLOG: u32 = 1024;

/// The limits and times of the native stack. The defaults are those of `docs/WIRE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeLimits {
    /// What each end may have outstanding. Default: 8 MiB each for a link's class, a mailbox and a message.
    pub window: Window,
    /// Keep-alive and drain.
    pub keep_alive: KeepAlive,
    /// Places and failures before authentication.
    pub gate: GateLimits,
    /// From accept to up, absolute. Default 5 s.
    pub answer: Duration,
}

impl Default for NativeLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            window: Window { link: 8 * MIB as u64, mailbox: 8 * MIB as u64, max_message: 8 * MIB },
            keep_alive: KeepAlive::default(),
            gate: GateLimits::default(),
            answer: Duration::from_secs(5),
        }
    }
}

/// The native stack of one node: its identity, its life, its limits.
pub struct Native {
    name: NodeName,
    incarnation: Incarnation,
    limits: NativeLimits,
    /// Bounds the handshakes whose cryptography runs at once, so that a flood cannot starve live links.
    permits: Semaphore,
    software: String,
}

/// The times of one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialTimes {
    /// TCP connect. Default 3 s.
    pub tcp: Duration,
    /// TLS. Default 3 s.
    pub tls: Duration,
    /// The handshake inside TLS. Default 5 s.
    pub handshake: Duration,
}

impl Default for DialTimes {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { tcp: secs(3), tls: secs(3), handshake: secs(5) }
    }
}

/// Why a dial failed, by the stage it reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The handshake inside TLS.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The stream ended or broke in the handshake; a listener that cannot prove our cookie's twin does this.
    #[error("the peer closed during the handshake")]
    HandshakeEnded,
    /// No answer in time.
    #[error("no answer in the handshake within {0:?}")]
    HandshakeTimeout(Duration),
    /// The connect itself.
    #[error("TCP: {0}")]
    Tcp(#[source] io::Error),
    /// No answer in time.
    #[error("no TCP connection within {0:?}")]
    TcpTimeout(Duration),
    /// TLS, certificates included.
    #[error("TLS: {0}")]
    Tls(String),
    /// Our own TLS configuration.
    #[error(transparent)]
    TlsConfig(#[from] TlsError),
    /// No answer in time.
    #[error("no TLS connection within {0:?}")]
    TlsTimeout(Duration),
    /// This node speaks no such version.
    #[error("this node has no implementation of {0}; remove the version from the route or give one of {1}")]
    UnknownVersion(String, String),
}

/// 16 bytes from the operating system.
pub fn random_16() -> [u8; 16] {
    let mut bytes = [0; 16];
    getrandom::getrandom(&mut bytes).expect("the operating system has randomness once it has booted");
    bytes
}

impl Native {
    /// The stack of a node that begins its life now.
    pub fn new(name: NodeName, limits: NativeLimits) -> Arc<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            name,
            incarnation: random_16(),
            limits,
            permits: Semaphore::new(2 * workers),
            software: concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// This node's name.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// This node's life.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn params(&self) -> Params {
        let clamp = |n: u64| n.min(u32::MAX.into()) as u32;
        Params {
            max_message: clamp(self.limits.window.max_message as u64),
            max_frame: crate::frame::MAX_FRAME as u32,
            dead_after_ms: clamp(self.limits.keep_alive.dead.as_millis() as u64),
            link_credit: clamp(self.limits.window.link),
            mailbox_credit: clamp(self.limits.window.mailbox),
            software: self.software.clone(),
            ..Params::default()
        }
    }

    /// Dials one address and goes as far as the peer's proof. Nothing is decided yet: finish or abandon.
    ///
    /// # Errors
    /// [`DialError`] by stage; the socket is closed.
    pub async fn dial(
        &self,
        address: SocketAddr,
        attempt: &Attempt,
        mode: Mode,
        tls: &ClientTls,
        times: DialTimes,
    ) -> Result<Dialed, DialError> {
        let versions = versions(attempt)?;
        let socket =
            if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.map_err(DialError::Tcp)?;
        let tcp = tokio::time::timeout(times.tcp, socket.connect(address))
            .await
            .map_err(|_| DialError::TcpTimeout(times.tcp))?
            .map_err(DialError::Tcp)?;
        prepare(&tcp, self.limits.keep_alive.dead);
        let connection = tls.connection(&attempt.tls, &attempt.address.host)?;
        let mut pipe = Pipe::new(tcp, connection.into(), MAX_FROM_LISTENER);
        tokio::time::timeout(times.tls, pipe.handshake(None))
            .await
            .map_err(|_| DialError::TlsTimeout(times.tls))?
            .map_err(tls_error)?;
        let exporter = pipe.exporter().map_err(tls_error)?;
        let mut config = InitiatorConfig::new(
            self.name.clone(),
            (mode == Mode::Node).then(|| attempt.target.clone()),
            attempt.cookie.clone(),
            self.incarnation,
            random_16(),
        );
        (config.mode, config.versions) = (mode, versions);
        let deadline = now() + times.handshake;
        let whole = async {
            let (mut machine, hello1) = <Initiator>::new(config, exporter);
            pipe.send(&hello1).await.map_err(|_| DialError::HandshakeEnded)?;
            let hello2 = pipe.message().await.map_err(|_| DialError::HandshakeEnded)?;
            let verified = machine.hello2(&hello2)?;
            Ok::<_, DialError>((machine, verified))
        };
        let (machine, verified) = tokio::time::timeout_at(deadline, whole)
            .await
            .map_err(|_| DialError::HandshakeTimeout(times.handshake))??;
        Ok(Dialed {
            pipe,
            machine,
            verified,
            address,
            tls: attempt.tls.clone(),
            cookie: attempt.cookie.clone(),
            params: self.params(),
            limits: self.limits,
            deadline,
            times,
        })
    }

    async fn answer(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        listener: &Listener,
        slot: SlotId,
    ) -> Result<Offered, AnswerError> {
        prepare(&tcp, self.limits.keep_alive.dead);
        let connection = rustls::ServerConnection::new(listener.tls.0.clone()).map_err(|_| AnswerError::Tls)?;
        let mut pipe = Pipe::new(tcp, connection.into(), MAX_UNAUTHENTICATED);
        pipe.handshake(Some(&self.permits)).await.map_err(|_| AnswerError::Tls)?;
        lock(&listener.gate).progressed(now().into_std(), slot);
        let exporter = pipe.exporter().map_err(|_| AnswerError::Tls)?;
        let mut config = ResponderConfig::new(self.name.clone(), self.incarnation, random_16());
        config.mode = listener.mode;
        let mut machine = <Responder>::new(config, exporter);
        let hello1 = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let hello = {
            let _permit = self.permits.acquire().await;
            machine.hello1(&hello1, &|from: &NodeName, label: &str| {
                let mut gate = lock(&listener.gate);
                let now = now().into_std();
                if let Some(wait) = gate.must_wait(now, address.ip(), from) {
                    return Credential::Throttled(wait.as_millis().min(u16::MAX.into()) as u16);
                }
                let credential = (listener.credentials)(from, label);
                if matches!(credential, Credential::Cookie(_)) {
                    gate.proof_begins(now, address.ip(), from);
                }
                credential
            })
        };
        match hello.map_err(AnswerError::Handshake)? {
            Hello::Answer(hello2) => pipe.send(&hello2).await.map_err(|_| AnswerError::Ended)?,
            Hello::Reject(reject, code) => {
                let _ = pipe.send(&reject).await;
                pipe.end().await;
                return Err(AnswerError::Rejected(code));
            }
        }
        let finish = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let offer = machine.finish(&finish).map_err(AnswerError::Handshake)?;
        lock(&listener.gate).proved(now().into_std(), address.ip(), &offer.from);
        if offer.params.abandon {
            return Err(AnswerError::Abandoned);
        }
        Ok(Offered {
            pipe,
            machine,
            offer,
            address,
            params: self.params(),
            limits: self.limits,
            deadline: now() + self.limits.answer,
        })
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("name", &self.name).finish_non_exhaustive()
    }
}

fn versions(attempt: &Attempt) -> Result<Vec<u16>, DialError> {
    let wanted = &attempt.version;
    if wanted.protocol() == "TLK" && VERSIONS.contains(&wanted.number()) {
        return Ok(VERSIONS.iter().copied().filter(|v| *v <= wanted.number()).collect());
    }
    let known = VERSIONS.iter().map(|v| format!("TLK/{v}")).collect::<Vec<_>>().join(", ");
    Err(DialError::UnknownVersion(wanted.to_string(), known))
}

fn prepare(tcp: &TcpStream, dead: Duration) {
    // Each is an improvement the link does without where the platform refuses it.
    let _ = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(dead));
    #[cfg(not(target_os = "linux"))]
    let _ = dead;
}

fn tls_error(error: PipeError) -> DialError {
    match error {
        PipeError::Ended => DialError::Tls("the peer closed; does it listen for trunkline there?".into()),
        PipeError::Io(e) => DialError::Tls(e.to_string()),
        PipeError::Tls(rustls::Error::InvalidMessage(_)) => DialError::Tls("the peer does not speak TLS".into()),
        PipeError::Tls(e) => DialError::Tls(e.to_string()),
        PipeError::TooMuch => DialError::Tls("the peer sent too much before it was proven".into()),
    }
}

/// A socket during the handshake: whole messages in and out.
struct Pipe {
    stream: Stream,
    plain: Vec<u8>,
    read: usize,
    limit: usize,
}

#[derive(Debug)]
enum PipeError {
    Ended,
    Io(io::Error),
    Tls(rustls::Error),
    TooMuch,
}

impl From<io::Error> for PipeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for PipeError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl Pipe {
    fn new(tcp: TcpStream, tls: rustls::Connection, limit: usize) -> Self {
        Self { stream: Stream { tcp, tls }, plain: Vec::new(), read: 0, limit }
    }

    async fn flush(&mut self) -> Result<(), PipeError> {
        while !self.stream.write_ready()?.0 {
            self.stream.tcp.writable().await?;
        }
        Ok(())
    }

    /// Reads once; the cryptography it leads to runs under a permit.
    async fn read(&mut self, permits: Option<&Semaphore>) -> Result<(), PipeError> {
        loop {
            self.stream.tcp.readable().await?;
            let _permit = match permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let room = (self.limit - self.read).max(1);
            let plain = &mut self.plain;
            let taken = self.stream.read_ready::<PipeError>(room, |chunk| {
                plain.extend_from_slice(chunk);
                Ok(())
            });
            match taken {
                Ok(None) => {}
                Ok(Some(0)) => return Err(PipeError::Ended),
                Ok(Some(n)) => {
                    self.read += n;
                    if self.read > self.limit {
                        return Err(PipeError::TooMuch);
                    }
                    return Ok(());
                }
                Err(error) => {
                    // The alert that says why goes out if it can.
                    let _ = self.stream.write_ready();
                    return Err(error);
                }
            }
        }
    }

    async fn handshake(&mut self, permits: Option<&Semaphore>) -> Result<(), PipeError> {
        self.flush().await?;
        while self.stream.tls.is_handshaking() {
            self.read(permits).await?;
            self.flush().await?;
        }
        Ok(())
    }

    fn exporter(&self) -> Result<[u8; 32], PipeError> {
        Ok(self.stream.tls.export_keying_material([0; 32], EXPORTER_LABEL, None)?)
    }

    async fn send(&mut self, body: &[u8]) -> Result<(), PipeError> {
        debug_assert!(body.len() <= MAX_BODY);
        let framed = [&(body.len() as u16).to_be_bytes(), body].concat();
        io::Write::write_all(&mut self.stream.tls.writer(), &framed)?;
        self.flush().await
    }

    /// The next message. Its length is checked before its body is awaited.
    async fn message(&mut self) -> Result<Vec<u8>, PipeError> {
        loop {
            if let Some((len, rest)) = self.plain.split_first_chunk::<2>() {
                let len = usize::from(u16::from_be_bytes(*len));
                if len > MAX_BODY {
                    return Err(PipeError::TooMuch);
                }
                if rest.len() >= len {
                    let body = rest[..len].to_vec();
                    self.plain.drain(..2 + len);
                    return Ok(body);
                }
            }
            self.read(None).await?;
        }
    }

    /// Closes so that what was sent last is not cut off by a reset.
    async fn end(&mut self) {
        self.stream.tls.send_close_notify();
        let _ = self.flush().await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.stream.tcp).await;
        while self.read(None).await.is_ok() {
            self.plain.clear();
        }
    }
}

/// The peer is proven and waits for FINISH.
pub struct Dialed {
    pipe: Pipe,
    machine: Initiator,
    verified: Verified,
    address: SocketAddr,
    tls: TlsMode,
    cookie: Cookie,
    params: Params,
    limits: NativeLimits,
    deadline: Instant,
    times: DialTimes,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("verified", &self.verified).finish_non_exhaustive()
    }
}

/// What an attempt tells of the links its end has or had; see `docs/WIRE.md`, "One link per pair".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    /// The newest epoch seen between these two lives.
    pub known_epoch: u64,
    /// The live link this end holds.
    pub have_link: Option<LinkId>,
    /// The live link to be replaced.
    pub replaces: Option<LinkId>,
}

impl Dialed {
    /// Who answered.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Goes for the link.
    ///
    /// # Errors
    /// [`DialError::Handshake`] with `Closed` when the peer decided otherwise.
    pub async fn finish(mut self, claims: Claims) -> Result<Standing, DialError> {
        let params = Params {
            known_epoch: claims.known_epoch,
            have_link: claims.have_link,
            replaces: claims.replaces,
            ..self.params.clone()
        };
        let whole = async {
            let finish = self.machine.finish(&params)?;
            self.pipe.send(&finish).await.map_err(|_| DialError::HandshakeEnded)?;
            let answer = self.pipe.message().await.map_err(|_| DialError::HandshakeEnded)?;
            Ok::<_, DialError>(self.machine.accept(&answer)?)
        };
        let accepted = tokio::time::timeout_at(self.deadline, whole)
            .await
            .map_err(|_| DialError::HandshakeTimeout(self.times.handshake))??;
        let info = LinkInfo {
            peer: self.verified.name,
            incarnation: self.verified.incarnation,
            id: self.verified.link_id,
            epoch: accepted.params.epoch,
            role: Role::Initiator,
            version: self.verified.version,
            address: self.address,
            tls: self.tls,
            cookie: self.cookie,
            software: accepted.params.software.clone(),
        };
        Ok(Standing { pipe: self.pipe, info, peer: accepted.params, limits: self.limits })
    }

    /// Proves this end and wants no link, so that the attempt does not count as a guess at the listener.
    pub async fn abandon(mut self) {
        if let Ok(body) = self.machine.abandon() {
            let _ = tokio::time::timeout_at(self.deadline, self.pipe.send(&body)).await;
        }
    }
}

/// A caller that proved itself and waits for a verdict.
pub struct Offered {
    pipe: Pipe,
    machine: Responder,
    offer: Offer,
    address: SocketAddr,
    params: Params,
    limits: NativeLimits,
    deadline: Instant,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("from", &self.offer.from).finish_non_exhaustive()
    }
}

impl Offered {
    /// Who wants what.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Lets the link stand.
    ///
    /// # Errors
    /// [`DialError::HandshakeEnded`] when the caller is gone.
    pub async fn accept(mut self, epoch: u64) -> Result<Standing, DialError> {
        let body = self.machine.accept(&Params { epoch, ..self.params.clone() })?;
        tokio::time::timeout_at(self.deadline, self.pipe.send(&body))
            .await
            .map_err(|_| DialError::HandshakeTimeout(self.limits.answer))?
            .map_err(|_| DialError::HandshakeEnded)?;
        let info = LinkInfo {
            peer: self.offer.from,
            incarnation: self.offer.incarnation,
            id: self.offer.link_id,
            epoch,
            role: Role::Responder,
            version: self.offer.version,
            address: self.address,
            tls: TlsMode::CookieOnly,
            cookie: self.offer.cookie,
            software: self.offer.params.software.clone(),
        };
        Ok(Standing { pipe: self.pipe, info, peer: self.offer.params, limits: self.limits })
    }

    /// Sends the caller away with a reason.
    pub async fn close(mut self, code: CloseCode) {
        let body = self.machine.close(code, "");
        let last = async {
            let _ = self.pipe.send(&body).await;
            self.pipe.end().await;
        };
        let _ = tokio::time::timeout_at(self.deadline, last).await;
    }
}

/// A link both ends agreed on, whose task does not run yet. Dropping it closes the socket.
pub struct Standing {
    pipe: Pipe,
    info: LinkInfo,
    peer: Params,
    limits: NativeLimits,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Standing {
    /// What the handshake established.
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// The link, and the future that moves its bytes; spawn it. The link lives as long as that future.
    pub fn start(self, directory: Arc<Directory>, hooks: Hooks) -> (Link, impl Future<Output = ()> + Send + 'static) {
        let peer = Window {
            link: self.peer.link_credit.into(),
            mailbox: self.peer.mailbox_credit.into(),
            max_message: self.peer.max_message as usize,
        };
        let keep_alive = KeepAlive {
            idle: self.limits.keep_alive.idle.min(Duration::from_millis(u64::from(self.peer.dead_after_ms) / 3)),
            ..self.limits.keep_alive
        };
        let shared = Arc::new(Shared::new(self.info, peer, self.limits.window));
        let task = Task::new(self.pipe.stream, self.pipe.plain, shared.clone(), directory, keep_alive, hooks);
        (Link { shared }, task.run())
    }
}

/// Why a caller got no further. For logs; nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It lost a race at its own end, and said so.
    #[error("the caller abandoned the attempt")]
    Abandoned,
    /// It went away.
    #[error("the caller went away")]
    Ended,
    /// What it sent.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// We sent it away.
    #[error("rejected: {0}")]
    Rejected(crate::handshake::RejectCode),
    /// It took too long.
    #[error("not up within the deadline")]
    Timeout,
    /// No TLS, or too much of it.
    #[error("no TLS connection")]
    Tls,
}

/// Chooses what a caller must prove.
pub type CredentialsFn = dyn Fn(&NodeName, &str) -> Credential + Send + Sync;

/// One listening socket.
pub struct Listener {
    socket: TcpListener,
    mode: Mode,
    tls: ServerTls,
    credentials: Box<CredentialsFn>,
    gate: Arc<Mutex<Gate>>,
}

impl Listener {
    /// Binds. Port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, for an address in use among others.
    pub fn bind(
        address: SocketAddr,
        mode: Mode,
        tls: ServerTls,
        gate: GateLimits,
        credentials: Box<CredentialsFn>,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let gate = Arc::new(Mutex::new(Gate::new(gate)));
        Ok(Self { socket: socket.listen(BACKLOG)?, mode, tls, credentials, gate })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts for ever and hands every proven caller to `decide`. Never awaits a peer itself; every handshake is
    /// a task of its own, and all of them end when this future is dropped.
    pub async fn serve<F, D>(self, native: Arc<Native>, decide: F)
    where
        F: Fn(Offered) -> D + Send + Sync + 'static,
        D: Future<Output = ()> + Send + 'static,
    {
        let (listener, decide) = (Arc::new(self), Arc::new(decide));
        let mut tasks = JoinSet::new();
        let mut handles = std::collections::HashMap::<SlotId, AbortHandle>::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => {
                    if let Ok(slot) = ended {
                        handles.remove(&slot);
                    }
                }
                accepted = listener.socket.accept() => {
                    let (tcp, address) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            // Out of descriptors or the like: what is under way may free some.
                            tracing::warn!(%error, "accept failed");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    let (slot, evicted) = lock(&listener.gate).admit(now().into_std(), address.ip());
                    if let Some(handle) = evicted.and_then(|slot| handles.remove(&slot)) {
                        handle.abort();
                    }
                    let task = handshake(native.clone(), listener.clone(), tcp, address, slot, decide.clone());
                    handles.insert(slot, tasks.spawn(task));
                }
            }
        }
    }
}

async fn handshake<F, D>(
    native: Arc<Native>,
    listener: Arc<Listener>,
    tcp: TcpStream,
    address: SocketAddr,
    slot: SlotId,
    decide: Arc<F>,
) -> SlotId
where
    F: Fn(Offered) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let place = Place { gate: listener.gate.clone(), slot };
    let answer = Box::pin(native.answer(tcp, address, &listener, slot));
    let answered = tokio::time::timeout(native.limits.answer, answer).await;
    drop(place);
    match answered.unwrap_or(Err(AnswerError::Timeout)) {
        Ok(offered) => decide(offered).await,
        Err(error) => log_refused(address.ip(), &error),
    }
    slot
}

fn log_refused(ip: IpAddr, error: &AnswerError) {
    match error {
        AnswerError::Handshake(HandshakeError::WrongCookie) => {
            tracing::warn!(from = %ip, "a caller does not hold the cookie");
        }
        error => tracing::debug!(from = %ip, %error, "no link"),
    }
}

/// A place before authentication, given back however the task ends.
struct Place {
    gate: Arc<Mutex<Gate>>,
    slot: SlotId,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.gate).release(self.slot);
    }
}
