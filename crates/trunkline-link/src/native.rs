//! A node's stack, and dialling over TCP: the tokio shell around the initiator.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use trunkline_route::{
    Attempt, Claims, CloseCode, Cookie, Disagreement, Incarnation, LinkPolicy, NodeName, RejectCode, Role, TlsMode,
    Version,
};
use trunkline_stack::{
    AttemptError, Cause, Hooks, HostNames, Link, LinkInfo, Mailboxes, PeerAddress, Rate, TlsFault, Transport,
    connect_tcp,
};
use trunkline_tls::{ClientTls, TlsError};
use trunkline_wire::gate::{GateLimits, GateStats};
use trunkline_wire::handshake::{HandshakeError, Initiator, InitiatorConfig, Mode, Params, VERSIONS, Verified};
use trunkline_wire::mux::Window;

use crate::account::Accounts;
use crate::admission::Admission;
use crate::byte_stream::{RESETS, ResetGuard, Streams};
use crate::carrier::Carrier;
use crate::farewell::{Courtesy, Farewells};
use crate::handshake_io::{Pipe, PipeError, prepare};
use crate::link::Shared;
use crate::shell::{later, now};
use crate::task::{KeepAlive, Task};

/// The most bytes taken from a listener before the link stands; certificates chains come this way.
const MAX_FROM_LISTENER: usize = 64 * 1024;

const NOT_TRUNKLINE: &str = "the peer speaks TLS, but not trunkline";

/// The largest message this end ever sends, whatever the peer announces.
const HARD_MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Limits and times of the native stack. The defaults are stated in
/// [the protocol description](https://github.com/trunkline/trunkline/blob/main/docs/WIRE.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeLimits {
    /// Credit of each end. Default: 8 MiB each for a link's class, a mailbox and a message.
    pub window: Window,
    /// Keep-alive and drain.
    pub keep_alive: KeepAlive,
    /// Places and failures before authentication.
    pub gate: GateLimits,
    /// From accept to up, absolute. Default 5 s.
    pub answer: Duration,
    /// Number of streams that a peer may ask for and reset before they are accepted, or before it has sent anything on them; beyond
    /// that its requests are refused as overloaded. Streams that are of use do not count. Default 2,000 at once, 200 per
    /// second.
    pub resets: Rate,
}

/// Window of each end of a session with a registrar. The largest request has 16 endpoints and 64 patterns,
/// the largest answer 256 names: both stay below 72 KiB. Whoever may ask where nodes are is not to make a registrar hold
/// megabytes.
pub const REGISTRAR_WINDOW: Window = Window { link: 256 * 1024, mailbox: 256 * 1024, max_message: 128 * 1024 };

impl NativeLimits {
    /// Returns these limits as they hold for links of a mode: sessions with a registrar have a window of at most
    /// [`REGISTRAR_WINDOW`].
    #[must_use]
    pub fn for_mode(mut self, mode: Mode) -> Self {
        if mode == Mode::Registrar {
            let Window { link, mailbox, max_message } = REGISTRAR_WINDOW;
            self.window = Window {
                link: self.window.link.min(link),
                mailbox: self.window.mailbox.min(mailbox),
                max_message: self.window.max_message.min(max_message),
            };
        }
        self
    }

    /// Returns the parameters that announce these limits to a peer.
    pub(crate) fn params(&self, software: &str) -> Params {
        let clamp = |n: u64| n.min(u32::MAX.into()) as u32;
        Params {
            max_message: clamp(self.window.max_message as u64),
            max_frame: trunkline_wire::frame::MAX_FRAME as u32,
            dead_after_ms: dead_after_ms(self.keep_alive),
            link_credit: clamp(self.window.link),
            mailbox_credit: clamp(self.window.mailbox),
            software: software.to_owned(),
            ..Params::default()
        }
    }
}

impl Default for NativeLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            window: Window { link: 8 * MIB as u64, mailbox: 8 * MIB as u64, max_message: 8 * MIB },
            keep_alive: KeepAlive::default(),
            gate: GateLimits::default(),
            answer: Duration::from_secs(5),
            resets: RESETS,
        }
    }
}

/// State of the native stack that the links of one node share.
pub(crate) struct Peers {
    accounts: Accounts,
    resets: Arc<ResetGuard>,
}

impl Peers {
    pub(crate) fn new(resets: Rate) -> Arc<Self> {
        Arc::new(Self { accounts: Accounts::default(), resets: Arc::new(ResetGuard::new(resets)) })
    }

    /// Returns the shared state of a new link with these windows.
    pub(crate) fn link(&self, info: LinkInfo, peer: Window, own: Window) -> Shared {
        let account = self.accounts.of(&info);
        let streams = Streams::new(info.role, self.resets.clone());
        Shared::new(info, peer, own, account, streams)
    }
}

/// The native stack of one node: its identity, its incarnation, its limits.
pub struct Native {
    pub(crate) name: NodeName,
    pub(crate) incarnation: Incarnation,
    pub(crate) limits: NativeLimits,
    /// Bounds the handshakes whose cryptography runs at once, so that a flood cannot starve live links.
    pub(crate) permits: Semaphore,
    /// Places and proofs of all listeners of the node.
    pub(crate) admission: Arc<Admission>,
    pub(crate) software: String,
    pub(crate) farewells: Farewells,
    pub(crate) peers: Arc<Peers>,
    names: HostNames,
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

/// Reason why a dial failed, by the stage it reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// One end demands a flag that the other does not offer.
    #[error(transparent)]
    Flags(#[from] Disagreement),
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
    #[error(transparent)]
    Connect(AttemptError),
    /// TLS, certificates included.
    #[error("TLS")]
    Tls(#[source] TlsFault),
    /// The transport broke during TLS.
    #[error("TLS")]
    TlsIo(#[source] io::Error),
    /// The TLS configuration of this end cannot be used.
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
    /// Returns the stack of a node that starts now, as an instance of its own.
    pub fn new(name: NodeName, limits: NativeLimits) -> Arc<Self> {
        Self::of_instance(name, random_16().into(), limits)
    }

    /// Returns the stack of this instance of a node. All stacks of a node are of one instance.
    pub fn of_instance(name: NodeName, incarnation: Incarnation, limits: NativeLimits) -> Arc<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            name,
            incarnation,
            limits,
            permits: Semaphore::new(2 * workers),
            admission: Admission::new(limits.gate),
            software: concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
            farewells: Farewells::default(),
            peers: Peers::new(limits.resets),
            names: HostNames::of_the_system(),
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

    /// Returns the counters of what happened before authentication, over all listeners of the node.
    pub fn gate_stats(&self) -> GateStats {
        self.admission.stats()
    }

    /// The times by which links of this node watch their peers when no policy says otherwise.
    pub fn keep_alive(&self) -> KeepAlive {
        self.limits.keep_alive
    }

    /// The lookups of host names of this node.
    pub fn names(&self) -> &HostNames {
        &self.names
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
        versions(attempt)?;
        let transport = connect_tcp(address.into(), times.tcp).await.map_err(DialError::Connect)?;
        self.dial_over(transport, attempt, mode, tls, times).await
    }

    /// Dials over a transport that leads to the peer, such as a Unix socket, or a stream through another node; see
    /// [`Native::dial`]. The proof is that of the peer; a node in between sees only encrypted bytes. Through a gateway the
    /// mode is [`Mode::Inner`], whatever is given.
    ///
    /// # Errors
    /// As [`Native::dial`]; the transport is closed.
    pub async fn dial_over(
        &self,
        transport: Transport,
        attempt: &Attempt,
        mode: Mode,
        tls: &ClientTls,
        times: DialTimes,
    ) -> Result<Dialed, DialError> {
        let to = (mode != Mode::Registrar).then(|| attempt.target.clone());
        self.greet(transport, attempt, (mode, to), tls, times).await
    }

    /// Has the peer at the other end of a transport prove that it holds the cookie of the attempt, and returns its name. The
    /// target of the attempt is not used, nor is the demand for a certificate with the name of the peer.
    ///
    /// # Errors
    /// As [`Native::dial`]; the transport is closed.
    pub async fn learn_over(
        &self,
        transport: Transport,
        attempt: &Attempt,
        tls: &ClientTls,
        times: DialTimes,
    ) -> Result<NodeName, DialError> {
        Ok(self.greet(transport, attempt, (Mode::Probe, None), tls, times).await?.verified.name.clone())
    }

    /// Goes as far as the proof of the peer; `None` is a name that is to be learnt.
    async fn greet(
        &self,
        transport: Transport,
        attempt: &Attempt,
        (mode, to): (Mode, Option<NodeName>),
        tls: &ClientTls,
        times: DialTimes,
    ) -> Result<Dialed, DialError> {
        let versions = versions(attempt)?;
        let (address, via) = (transport.address().clone(), transport.via().cloned());
        let mode = if via.is_some() { Mode::Inner } else { mode };
        let carrier = Carrier::from(transport.into_kind());
        if let Carrier::Tcp(tcp) = &carrier {
            prepare(tcp, self.limits.keep_alive.dead);
        }
        let connection = tls.connection(&attempt.tls, &attempt.address.host)?;
        let mut pipe = Pipe::new(carrier, connection.into(), MAX_FROM_LISTENER);
        tokio::time::timeout(times.tls, pipe.handshake(None))
            .await
            .map_err(|_| DialError::TlsTimeout(times.tls))?
            .map_err(tls_error)?;
        if !pipe.speaks_tlk() {
            return Err(tls_failed(NOT_TRUNKLINE));
        }
        let is_named = to.is_some() || mode == Mode::Registrar;
        if is_named && tls.requires_cert_name(&attempt.tls) && !pipe.peer_is_named(&attempt.target) {
            return Err(DialError::Tls(TlsFault::new(format!(
                "the peer's certificate does not carry its name; issue it with the URI trunkline:{}, or remove \
                 `cert_name: required` from the TLS profile",
                attempt.target
            ))));
        }
        let exporter = pipe.exporter().map_err(tls_error)?;
        let mut config =
            InitiatorConfig::new(self.name.clone(), to, attempt.cookie.clone(), self.incarnation, random_16());
        (config.mode, config.versions) = (mode, versions);
        config.label = attempt.cookie.label().to_owned();
        let limits = self.limits.for_mode(mode);
        let deadline = later(now(), times.handshake);
        let (machine, hello1) = <Initiator>::new(config, exporter);
        let mut courtesy = Courtesy::new(pipe, machine, self.farewells.clone());
        let whole = async {
            let half = courtesy.half();
            half.pipe.send(&hello1).await.map_err(ended)?;
            let hello2 = half.pipe.message().await.map_err(ended)?;
            let verified = half.machine.hello2(&hello2)?;
            half.verified = true;
            Ok::<_, DialError>(verified)
        };
        let outcome = tokio::time::timeout_at(deadline, whole).await;
        let verified = match outcome.unwrap_or(Err(DialError::HandshakeTimeout(times.handshake))) {
            Ok(verified) => verified,
            Err(error) => {
                courtesy.close();
                return Err(error);
            }
        };
        Ok(Dialed {
            courtesy,
            verified,
            peers: self.peers.clone(),
            address,
            via,
            tls: attempt.tls.clone(),
            cookie: attempt.cookie.clone(),
            policy: attempt.policy.clone(),
            params: limits.params(&self.software),
            limits,
            deadline,
            times,
        })
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) fn versions(attempt: &Attempt) -> Result<Vec<u16>, DialError> {
    let wanted = &attempt.version;
    if wanted.protocol() == "TLK" && VERSIONS.contains(&wanted.number()) {
        return Ok(VERSIONS.iter().copied().filter(|v| *v <= wanted.number()).collect());
    }
    let known = VERSIONS.iter().map(|v| format!("TLK/{v}")).collect::<Vec<_>>().join(", ");
    Err(DialError::UnknownVersion(wanted.to_string(), known))
}

fn tls_failed(text: impl Into<String>) -> DialError {
    DialError::Tls(TlsFault::new(text))
}

/// Returns the error of a handshake that broke off inside TLS. The listener judges the certificate of a caller after the
/// caller is done with TLS.
fn ended(error: PipeError) -> DialError {
    let PipeError::Tls(rustls::Error::AlertReceived(alert)) = error else { return DialError::HandshakeEnded };
    let fault = match alert {
        AlertDescription::CertificateRequired => TlsFault::new(
            "the listener demands a certificate; name one in a TLS profile, and the profile in the route, with `tls: true`",
        ),
        alert => TlsFault::new(format!("the listener refused this node's certificate: {alert:?}")),
    };
    DialError::Tls(fault.with_alert(alert.into()))
}

fn tls_error(error: PipeError) -> DialError {
    match error {
        PipeError::Ended => tls_failed("the peer closed; does it listen for trunkline there?"),
        PipeError::Io(error) => DialError::TlsIo(error),
        PipeError::Tls(rustls::Error::InvalidMessage(_)) => tls_failed("the peer does not speak TLS"),
        PipeError::Tls(rustls::Error::AlertReceived(alert)) => {
            let fault = match alert {
                AlertDescription::NoApplicationProtocol => TlsFault::new(NOT_TRUNKLINE),
                alert => TlsFault::new(trunkline_tls::told(&rustls::Error::AlertReceived(alert))),
            };
            DialError::Tls(fault.with_alert(alert.into()))
        }
        PipeError::Tls(error) => tls_failed(trunkline_tls::told(&error)),
        PipeError::TooMuch => tls_failed("the peer sent too much before it was proven"),
    }
}

/// The words of a listener that is not proven are advice: they lead to the next candidate and to nothing else.
impl From<DialError> for AttemptError {
    fn from(error: DialError) -> Self {
        let closed = |code, text: String| HandshakeError::Closed { code, text }.to_string();
        match error {
            DialError::Handshake(HandshakeError::Closed { code, text }) => match code {
                CloseCode::Duplicate | CloseCode::LostTie => Self::Adopted,
                CloseCode::Flags => Self::Flags(format!("the peer refused: {text}")),
                CloseCode::NameInUse => Self::NameInUse("the peer still talks to it".into()),
                code => Self::Rejected(closed(code, text)),
            },
            DialError::Handshake(HandshakeError::Rejected { code: RejectCode::Myself, .. }) => Self::Myself,
            DialError::Handshake(error @ (HandshakeError::Rejected { .. } | HandshakeError::Version { .. })) => {
                Self::Rejected(error.to_string())
            }
            DialError::Handshake(HandshakeError::WrongCookie) => Self::WrongCookie,
            DialError::Handshake(HandshakeError::WrongName { actual, .. }) => Self::WrongName { actual },
            DialError::Handshake(error) => Self::Handshake(Cause::new(error)),
            DialError::Connect(error) => error,
            DialError::Flags(error) => Self::Flags(error.to_string()),
            error @ DialError::UnknownVersion(..) => Self::Version(error.to_string()),
            DialError::HandshakeEnded => Self::Handshake("the peer closed in the middle".into()),
            DialError::HandshakeTimeout(after) => Self::HandshakeTimeout(after),
            DialError::Tls(fault) => Self::Tls(Cause::new(fault)),
            DialError::TlsIo(error) => Self::Tls(error.into()),
            DialError::TlsTimeout(after) => Self::TlsTimeout(after),
            // The name may be of this address alone.
            DialError::TlsConfig(error @ TlsError::ServerName(_)) => Self::Tls(Cause::new(error)),
            DialError::TlsConfig(error) => Self::Local(Cause::new(error)),
        }
    }
}

/// The peer is proven and waits for FINISH.
///
/// Dropped, it still proves this end, in the background and for at most a second: the attempt then does not count as
/// a guess at the listener.
pub struct Dialed {
    courtesy: Courtesy,
    peers: Arc<Peers>,
    verified: Verified,
    address: PeerAddress,
    via: Option<NodeName>,
    tls: TlsMode,
    cookie: Cookie,
    policy: LinkPolicy,
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

impl Dialed {
    /// Returns the proven identity of the peer.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Goes for the link.
    ///
    /// # Errors
    /// [`DialError::Handshake`] with `Closed` when the peer decided otherwise.
    pub async fn finish(mut self, claims: Claims) -> Result<Standing, DialError> {
        self.limits.keep_alive = self.limits.keep_alive.under(&self.policy);
        let params = Params {
            dead_after_ms: dead_after_ms(self.limits.keep_alive),
            known_epoch: claims.known_epoch,
            last_link: claims.last_link,
            have_link: claims.have_link,
            replaces: claims.replaces,
            flags: self.policy.flags,
            ..self.params.clone()
        };
        let whole = async {
            let half = self.courtesy.half();
            let finish = half.machine.finish(&params)?;
            half.pipe.send(&finish).await.map_err(|_| DialError::HandshakeEnded)?;
            let answer = half.pipe.message().await.map_err(|_| DialError::HandshakeEnded)?;
            Ok::<_, DialError>(half.machine.accept(&answer)?)
        };
        let accepted = tokio::time::timeout_at(self.deadline, whole)
            .await
            .map_err(|_| DialError::HandshakeTimeout(self.times.handshake))??;
        let flags = self.policy.flags.agree(accepted.params.flags)?;
        let info = LinkInfo {
            peer: self.verified.name,
            incarnation: self.verified.incarnation,
            id: self.verified.link_id,
            epoch: accepted.params.epoch,
            role: Role::Initiator,
            version: Version::native(self.verified.version),
            address: self.address,
            via: self.via,
            tls: self.tls,
            caller_certified: false,
            cookie: self.cookie,
            flags,
            log_level: self.policy.log_level,
            route: self.policy.route,
            resolver: self.policy.resolver,
            mapping: self.policy.mapping,
            software: accepted.params.software.clone(),
        };
        Ok(Standing {
            pipe: self.courtesy.into_pipe(),
            peers: self.peers,
            info,
            peer: accepted.params,
            limits: self.limits,
        })
    }
}

/// A link both ends agreed on, whose task does not run yet. Dropping it closes the socket.
pub struct Standing {
    pub(crate) pipe: Pipe,
    pub(crate) peers: Arc<Peers>,
    pub(crate) info: LinkInfo,
    pub(crate) peer: Params,
    pub(crate) limits: NativeLimits,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Standing {
    /// Returns the facts that the handshake established.
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// The link, and the future that moves its bytes; spawn it. The link lives as long as that future.
    pub fn start(self, mailboxes: Arc<Mailboxes>, hooks: Hooks) -> (Link, impl Future<Output = ()> + Send + 'static) {
        let peer = Window {
            link: self.peer.link_credit.into(),
            mailbox: self.peer.mailbox_credit.into(),
            max_message: (self.peer.max_message as usize).min(HARD_MAX_MESSAGE),
        };
        let keep_alive = self.limits.keep_alive.towards(Duration::from_millis(self.peer.dead_after_ms.into()));
        if let Carrier::Tcp(tcp) = &self.pipe.stream.carrier {
            prepare(tcp, keep_alive.dead);
        }
        let shared = Arc::new(self.peers.link(self.info, peer, self.limits.window));
        let task = Task::new(self.pipe.stream, &self.pipe.plain, shared.clone(), mailboxes, keep_alive, hooks);
        (Link::new(shared), Box::new(task).run())
    }
}

/// The time after which this end gives a link up, as it is announced.
pub(crate) fn dead_after_ms(keep_alive: KeepAlive) -> u32 {
    keep_alive.dead.as_millis().min(u32::MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{MIN_DEAD_AFTER, MIN_IDLE};

    #[test]
    fn no_announcement_of_a_peer_makes_a_storm_of_pings() {
        let own = KeepAlive::default();
        let idle = |own: KeepAlive, announced: u64| own.towards(Duration::from_millis(announced)).idle;
        for announced in 0..=1000 {
            assert_eq!(idle(own, announced), MIN_DEAD_AFTER / 3);
        }
        assert_eq!(idle(own, 6_000), Duration::from_secs(2));
        assert_eq!(idle(own, u32::MAX.into()), own.idle);
        assert_eq!(idle(KeepAlive { idle: Duration::ZERO, ..own }, 15_000), MIN_IDLE);
        // This end gives up sooner than the peer: it pings in time all the same.
        assert_eq!(idle(KeepAlive { dead: Duration::from_secs(3), ..own }, 15_000), Duration::from_secs(1));
    }
}
