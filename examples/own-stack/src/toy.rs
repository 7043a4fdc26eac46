//! The handshake of `TOY`: the caller says `HELLO from incarnation to link`, the listener `WELCOME incarnation`, the caller
//! `FINISH`, the listener `UP epoch` or `CLOSE code text`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trunkline::stack::{
    AcceptFailures, BoxFuture, Caller, Established, Hooks, Listening, Mailboxes, OnCaller, Pairing, PeerIdentity,
    Proven, Stack, Transport, connect_tcp,
};
use trunkline::{
    Attempt, AttemptError, CloseCode, Cookie, Destination, Disagreement, FlagTerms, Incarnation, LinkId, LinkInfo,
    LinkPolicy, NodeName, PeerFlags, Role, TlsMode, Version, random_16,
};

use crate::link::ToyLink;

/// Longest time of each half of a handshake at the listener: up to FINISH, and to the verdict.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Most callers at a time that have not come as far as FINISH.
const PLACES: usize = 64;

/// Returns the version that routes and endpoints name: `TOY/1`.
pub fn version() -> Version {
    Version::new("TOY", 1).expect("the protocol is three capital letters")
}

/// Reads an identifier as it is displayed.
fn identifier<T: From<[u8; 16]>>(hex: &str) -> io::Result<T> {
    let number = u128::from_str_radix(hex, 16).map_err(io::Error::other)?;
    Ok(number.to_be_bytes().into())
}

/// Reads one line of words, of at most 1,024 bytes.
pub async fn words(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<String>> {
    let mut line = String::new();
    let mut limited = BufReader::with_capacity(1, tokio::io::AsyncReadExt::take(from, 1024));
    if limited.read_line(&mut line).await? == 0 || !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// The stack of one node.
pub struct Toy {
    name: NodeName,
    incarnation: Incarnation,
}

impl Toy {
    /// Returns the stack of a node that starts.
    pub fn new(name: NodeName) -> Arc<Self> {
        Arc::new(Self { name, incarnation: random_16().into() })
    }

    /// Listens at an address.
    pub async fn listen(self: &Arc<Self>, address: SocketAddr) -> io::Result<Box<dyn Listening>> {
        Ok(Box::new(ToyListener { toy: self.clone(), socket: TcpListener::bind(address).await? }))
    }

    async fn answer(&self, mut over: Transport) -> io::Result<Box<dyn Caller>> {
        let hello = words(&mut over).await?;
        let [word, from, incarnation, to, link] = &hello[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        if word != "HELLO" || *to != self.name.to_string() {
            over.write_all(b"CLOSE another node lives here\n").await?;
            return Err(io::Error::other("the caller wants another node"));
        }
        let name = from.parse().map_err(io::Error::other)?;
        let peer = PeerIdentity { name, incarnation: identifier(incarnation)?, link: identifier(link)? };
        over.write_all(format!("WELCOME {}\n", self.incarnation).as_bytes()).await?;
        match words(&mut over).await?.first().map(String::as_str) {
            Some("FINISH") => Ok(Box::new(ToyCaller { over, peer })),
            _ => Err(io::Error::other("the caller gave up")),
        }
    }
}

impl Stack for Toy {
    fn protocol(&self) -> &str {
        "TOY"
    }

    fn pairing(&self) -> Pairing {
        Pairing::Names
    }

    fn connect(&self, to: Destination) -> BoxFuture<'_, Result<Transport, AttemptError>> {
        Box::pin(connect_tcp(to, Duration::from_secs(3)))
    }

    fn dial<'a>(
        &'a self,
        mut over: Transport,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<Box<dyn Proven>, AttemptError>> {
        Box::pin(async move {
            demands(attempt)?;
            let failed = |error: io::Error| AttemptError::Handshake(error.into());
            let link = LinkId::new(random_16());
            let hello = format!("HELLO {} {} {} {}\n", self.name, self.incarnation, attempt.target, link);
            over.write_all(hello.as_bytes()).await.map_err(failed)?;
            let answer = words(&mut over).await.map_err(failed)?;
            match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["WELCOME", incarnation] => {
                    let incarnation = identifier(incarnation).map_err(failed)?;
                    let peer = PeerIdentity { name: attempt.target.clone(), incarnation, link };
                    Ok(Box::new(ToyProven { over, peer, attempt: attempt.clone() }) as Box<dyn Proven>)
                }
                _ => Err(AttemptError::Rejected(answer.join(" "))),
            }
        })
    }
}

/// Refuses an attempt that demands what `TOY` does not have. The node relies on this.
fn demands(attempt: &Attempt) -> Result<(), AttemptError> {
    if attempt.version != version() {
        return Err(AttemptError::Version(format!("{} is spoken, and not {}", version(), attempt.version)));
    }
    if attempt.tls != TlsMode::CookieOnly {
        return Err(AttemptError::Tls("TOY checks no certificates; switch `tls` off in the route".into()));
    }
    let flags = attempt.policy.flags.agree(PeerFlags::NONE.into());
    flags.map(drop).map_err(|disagreement| AttemptError::Flags(disagreement.to_string()))
}

struct ToyProven {
    over: Transport,
    peer: PeerIdentity,
    attempt: Attempt,
}

impl Proven for ToyProven {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn finish(
        mut self: Box<Self>,
        claims: trunkline::Claims,
    ) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move {
            let failed = |error: io::Error| AttemptError::Handshake(error.into());
            self.over.write_all(b"FINISH\n").await.map_err(failed)?;
            let answer = words(&mut self.over).await.map_err(failed)?;
            let there = match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["UP", epoch] => epoch.parse().map_err(|_| AttemptError::Handshake("the epoch is no number".into()))?,
                ["CLOSE", "lost_tie" | "duplicate", ..] => return Err(AttemptError::Adopted),
                ["CLOSE", "name_in_use", ..] => {
                    return Err(AttemptError::NameInUse("the peer still talks to it".into()));
                }
                ["CLOSE", "flags_refused", ..] => return Err(AttemptError::Flags(answer[2..].join(" "))),
                _ => return Err(AttemptError::Rejected(answer.join(" "))),
            };
            let epoch = claims.known_epoch.saturating_add(1).max(there);
            let info = info(self.peer, &self.over, epoch, Role::Initiator, self.attempt.cookie, self.attempt.policy);
            Ok(Box::new(Up { over: self.over, info }) as Box<dyn Established>)
        })
    }
}

struct ToyCaller {
    over: Transport,
    peer: PeerIdentity,
}

impl Caller for ToyCaller {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn claims(&self) -> Option<trunkline::Claims> {
        None
    }

    fn agree(&self, terms: FlagTerms) -> Result<PeerFlags, Disagreement> {
        terms.agree(PeerFlags::NONE.into())
    }

    fn accept(
        mut self: Box<Self>,
        epoch: u64,
        policy: LinkPolicy,
    ) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move {
            let up = format!("UP {epoch}\n");
            let written = tokio::time::timeout(HANDSHAKE, self.over.write_all(up.as_bytes())).await;
            written
                .map_err(|_| AttemptError::HandshakeTimeout(HANDSHAKE))?
                .map_err(|error| AttemptError::Handshake(error.into()))?;
            let cookie = Cookie::new("a cookie that TOY does not use").expect("it is long enough");
            let info = info(self.peer, &self.over, epoch, Role::Responder, cookie, policy);
            Ok(Box::new(Up { over: self.over, info }) as Box<dyn Established>)
        })
    }

    fn refuse(mut self: Box<Self>, code: CloseCode, text: String) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let line = format!("CLOSE {code} {}\n", text.replace('\n', " "));
            let _ = tokio::time::timeout(HANDSHAKE, self.over.write_all(line.as_bytes())).await;
        })
    }
}

fn info(peer: PeerIdentity, over: &Transport, epoch: u64, role: Role, cookie: Cookie, policy: LinkPolicy) -> LinkInfo {
    LinkInfo {
        peer: peer.name,
        incarnation: peer.incarnation,
        id: peer.link,
        epoch,
        role,
        version: version(),
        address: over.address().clone(),
        via: over.via().cloned(),
        tls: TlsMode::CookieOnly,
        caller_certified: false,
        cookie,
        flags: PeerFlags::NONE,
        log_level: policy.log_level,
        route: policy.route,
        resolver: policy.resolver,
        mapping: policy.mapping,
        software: "toy".into(),
    }
}

struct Up {
    over: Transport,
    info: LinkInfo,
}

impl Established for Up {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn start(
        self: Box<Self>,
        mailboxes: Arc<Mailboxes>,
        hooks: Hooks,
    ) -> (trunkline::stack::Link, BoxFuture<'static, ()>) {
        ToyLink::start(self.over, self.info, mailboxes, hooks)
    }
}

struct ToyListener {
    toy: Arc<Toy>,
    socket: TcpListener,
}

impl Listening for ToyListener {
    fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn version(&self) -> Version {
        version()
    }

    fn serve(self: Box<Self>, on_caller: OnCaller) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (mut tasks, mut failures) = (JoinSet::new(), AcceptFailures::default());
            let places = Arc::new(Semaphore::new(PLACES));
            loop {
                let (tcp, address) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        failures.failed(&"the listener of TOY", &error).await;
                        continue;
                    }
                };
                failures.accepted();
                while tasks.try_join_next().is_some() {}
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (toy, on_caller) = (self.toy.clone(), on_caller.clone());
                tasks.spawn(async move {
                    let answer = toy.answer(Transport::tcp(tcp, address));
                    let answered = tokio::time::timeout(HANDSHAKE, answer).await;
                    drop(place);
                    if let Ok(Ok(caller)) = answered {
                        on_caller(caller).await;
                    }
                });
            }
        })
    }
}
