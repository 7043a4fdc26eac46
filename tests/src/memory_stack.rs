//! A second network stack, `MEM`: links within this process, for tests of whatever must not depend on the native stack.
//!
//! A [`Network`] stands for what connects the nodes: its addresses lead to listeners in memory, and so do its host names, which
//! end in `.memory` and are known to no other resolver. The transport of a link
//! carries eight bytes for each frame, and the frame itself is kept in the network under that number. So a link runs over any
//! transport, also over one through a gateway, and no format of bytes is needed.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use trunkline_dial::sessions::Keys;
use trunkline_route::{
    Address, Attempt, Claims, CloseCode, Cookie, Destination, Disagreement, Flag, FlagTerms, How, Incarnation, LinkId,
    LinkPolicy, NodeName, PeerFlags, Role, TlsMode, Version,
};
use trunkline_stack::{
    AnswerFailure, Answering, AttemptError, BoxFuture, CallError, Caller, Established, Hooks, Link, LinkInfo,
    Listening, Mailboxes, OnCaller, OpenError, Pairing, PeerAddress, PeerIdentity, Proven, Reply, Stack, Transport,
};

mod link;

use link::{Driver, MemoryLink, Offer};

/// Bytes that wait in a transport of the network.
const PIPE: usize = 64 * 1024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the version of the stack, `MEM/1`.
pub fn version() -> Version {
    Version::new("MEM", 1).expect("the protocol is three capital letters")
}

/// A frame of a link, or of the handshake before it.
pub(crate) enum Frame {
    Hello {
        from: NodeName,
        incarnation: Incarnation,
        to: NodeName,
        cookie: Cookie,
        link: LinkId,
    },
    Welcome {
        name: NodeName,
        incarnation: Incarnation,
    },
    Rejected(AttemptError),
    Finish {
        claims: Option<Claims>,
        flags: FlagTerms,
    },
    Accepted {
        epoch: u64,
        flags: FlagTerms,
    },
    Closed(CloseCode, String),
    Message {
        to: String,
        from: String,
        body: bytes::Bytes,
        how: How,
    },
    Call {
        id: u32,
        to: String,
        from: String,
        body: bytes::Bytes,
        how: How,
        timeout_ms: u32,
    },
    Answer {
        id: u32,
        answer: Result<Reply, CallError>,
    },
    /// Messages of a mailbox were read.
    Taken {
        to: String,
        bytes: u64,
    },
    Open(Offer),
    Opened {
        id: u64,
        answer: Result<(), OpenError>,
    },
    GoAway(CloseCode),
    Ping,
    Pong,
}

/// The listeners of a process, by address and by host, and the frames that are under way.
#[derive(Default)]
pub struct Network {
    listeners: Mutex<HashMap<Destination, mpsc::UnboundedSender<Transport>>>,
    frames: Mutex<HashMap<u64, Frame>>,
    next: AtomicU64,
    ports: AtomicU64,
}

impl Network {
    /// Returns a network without listeners.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets a host of the network lead to the listener at an address.
    pub fn add_host(&self, host: Address, listener: SocketAddr) {
        let mut listeners = lock(&self.listeners);
        let listener = listeners.get(&listener.into()).expect("a listener of the network").clone();
        listeners.insert(Destination::Host(host), listener);
    }

    fn put(&self, frame: Frame) -> [u8; 8] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.frames).insert(number, frame);
        number.to_be_bytes()
    }

    fn take(&self, number: [u8; 8]) -> io::Result<Frame> {
        let frame = lock(&self.frames).remove(&u64::from_be_bytes(number));
        frame.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "there is no frame of this number"))
    }

    async fn send(&self, transport: &mut Transport, frame: Frame) -> io::Result<()> {
        transport.write_all(&self.put(frame)).await
    }

    async fn receive(&self, transport: &mut Transport) -> io::Result<Frame> {
        let mut number = [0; 8];
        transport.read_exact(&mut number).await?;
        self.take(number)
    }
}

/// The stack of one node of a [`Network`].
pub struct MemoryStack {
    network: Arc<Network>,
    name: NodeName,
    incarnation: Incarnation,
    keys: Arc<Keys>,
    pairing: Pairing,
}

impl MemoryStack {
    /// Returns the stack of an instance of a node. Callers must show the cookie.
    pub fn new(
        network: &Arc<Network>,
        (name, incarnation): (NodeName, Incarnation),
        cookie: Cookie,
        pairing: Pairing,
    ) -> Arc<Self> {
        let keys = Arc::new(Keys::new(Vec::new(), cookie.into()));
        Arc::new(Self { network: network.clone(), name, incarnation, keys, pairing })
    }

    /// Returns a listener at a free address of the network.
    pub fn listen(self: &Arc<Self>) -> Box<dyn Listening> {
        let port = self.network.ports.fetch_add(1, Ordering::Relaxed) as u16 + 1;
        let address = SocketAddr::from((Ipv4Addr::new(127, 200, 0, 1), port));
        let (sender, arriving) = mpsc::unbounded_channel();
        lock(&self.network.listeners).insert(address.into(), sender);
        Box::new(MemoryListener { stack: self.clone(), address, arriving })
    }

    /// Returns this stack as the answering side for transports of the program's own.
    pub fn answering(self: &Arc<Self>) -> Arc<dyn Answering> {
        Arc::new(Answers(self.clone()))
    }

    async fn answer(self: Arc<Self>, mut over: Transport) -> Result<Box<dyn Caller>, AnswerFailure> {
        let network = &self.network;
        let Frame::Hello { from, incarnation, to, cookie, link } = network.receive(&mut over).await? else {
            return Err("the caller does not begin with HELLO".into());
        };
        let rejection = if from == self.name {
            Some(AttemptError::Myself)
        } else if to != self.name {
            Some(AttemptError::WrongName { actual: self.name.to_string() })
        } else if self.keys.of(&from).iter().all(|own| *own != cookie) {
            Some(AttemptError::WrongCookie)
        } else {
            None
        };
        if let Some(rejection) = rejection {
            let text = rejection.to_string();
            network.send(&mut over, Frame::Rejected(rejection)).await?;
            return Err(text.into());
        }
        let welcome = Frame::Welcome { name: self.name.clone(), incarnation: self.incarnation };
        network.send(&mut over, welcome).await?;
        let Frame::Finish { claims, flags } = network.receive(&mut over).await? else {
            return Err("the caller gave up".into());
        };
        let peer = PeerIdentity { name: from, incarnation, link };
        Ok(Box::new(MemoryCaller { network: self.network.clone(), over, peer, claims, flags, cookie }))
    }
}

impl Stack for MemoryStack {
    fn protocol(&self) -> &str {
        "MEM"
    }

    fn pairing(&self) -> Pairing {
        self.pairing
    }

    fn takes_hosts(&self, attempt: &Attempt) -> bool {
        attempt.address.host.as_str().ends_with(".memory")
    }

    fn connect(&self, to: Destination) -> BoxFuture<'_, Result<Transport, AttemptError>> {
        Box::pin(async move {
            let refused = || AttemptError::Tcp(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            let (ours, theirs) = tokio::io::duplex(PIPE);
            let listeners = lock(&self.network.listeners);
            let listener = listeners.get(&to).ok_or_else(refused)?;
            listener.send(Transport::new(theirs, PeerAddress::Memory)).map_err(|_| refused())?;
            Ok(Transport::new(ours, to.socket().map_or(PeerAddress::Memory, PeerAddress::from)))
        })
    }

    fn dial<'a>(
        &'a self,
        mut over: Transport,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<Box<dyn Proven>, AttemptError>> {
        Box::pin(async move {
            let link = trunkline::random_16().into();
            let hello = Frame::Hello {
                from: self.name.clone(),
                incarnation: self.incarnation,
                to: attempt.target.clone(),
                cookie: attempt.cookie.clone(),
                link,
            };
            self.network.send(&mut over, hello).await.map_err(broken)?;
            match self.network.receive(&mut over).await.map_err(broken)? {
                Frame::Welcome { name, incarnation } => Ok(Box::new(MemoryProven {
                    network: self.network.clone(),
                    over,
                    peer: PeerIdentity { name, incarnation, link },
                    attempt: attempt.clone(),
                    pairing: self.pairing,
                }) as Box<dyn Proven>),
                Frame::Rejected(error) => Err(error),
                _ => Err(AttemptError::Handshake("the answer is no WELCOME".into())),
            }
        })
    }
}

fn broken(error: io::Error) -> AttemptError {
    AttemptError::Handshake(error.into())
}

struct MemoryProven {
    network: Arc<Network>,
    over: Transport,
    peer: PeerIdentity,
    attempt: Attempt,
    pairing: Pairing,
}

impl Proven for MemoryProven {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn finish(mut self: Box<Self>, claims: Claims) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move {
            let told = (self.pairing == Pairing::Claims).then_some(claims);
            let own = offered(self.attempt.policy.flags);
            let finish = Frame::Finish { claims: told, flags: own };
            self.network.send(&mut self.over, finish).await.map_err(broken)?;
            let (epoch, flags) = match self.network.receive(&mut self.over).await.map_err(broken)? {
                Frame::Accepted { epoch, flags } => (epoch, flags),
                Frame::Closed(CloseCode::Duplicate | CloseCode::LostTie, _) => return Err(AttemptError::Adopted),
                Frame::Closed(CloseCode::NameInUse, text) => return Err(AttemptError::NameInUse(text)),
                Frame::Closed(CloseCode::Flags, text) => return Err(AttemptError::Flags(text)),
                Frame::Closed(code, text) => return Err(AttemptError::Rejected(format!("{code}: {text}"))),
                _ => return Err(AttemptError::Handshake("the answer is no ACCEPT".into())),
            };
            let flags = own.agree(flags).map_err(|error| AttemptError::Flags(error.to_string()))?;
            let epoch = epoch.max(claims.known_epoch + 1);
            let (cookie, policy) = (self.attempt.cookie, self.attempt.policy);
            let info = info(self.peer, &self.over, epoch, Role::Initiator, flags, cookie, policy);
            Ok(Box::new(MemoryEstablished { network: self.network, over: self.over, info }) as Box<dyn Established>)
        })
    }
}

/// Returns the terms without what the stack cannot do: a message whose outcome is known across links.
fn offered(terms: FlagTerms) -> FlagTerms {
    FlagTerms { offered: terms.offered.with(Flag::ImportantDelivery, false), ..terms }
}

fn info(
    peer: PeerIdentity,
    over: &Transport,
    epoch: u64,
    role: Role,
    flags: PeerFlags,
    cookie: Cookie,
    policy: LinkPolicy,
) -> LinkInfo {
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
        flags,
        log_level: policy.log_level,
        route: policy.route,
        resolver: policy.resolver,
        mapping: policy.mapping,
        software: "memory".into(),
    }
}

struct MemoryCaller {
    network: Arc<Network>,
    over: Transport,
    peer: PeerIdentity,
    claims: Option<Claims>,
    flags: FlagTerms,
    cookie: Cookie,
}

impl Caller for MemoryCaller {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn claims(&self) -> Option<Claims> {
        self.claims
    }

    fn agree(&self, terms: FlagTerms) -> Result<PeerFlags, Disagreement> {
        offered(terms).agree(self.flags)
    }

    fn accept(
        mut self: Box<Self>,
        epoch: u64,
        policy: LinkPolicy,
    ) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move {
            let own = offered(policy.flags);
            let flags = own.agree(self.flags).map_err(|error| AttemptError::Flags(error.to_string()))?;
            self.network.send(&mut self.over, Frame::Accepted { epoch, flags: own }).await.map_err(broken)?;
            let info = info(self.peer, &self.over, epoch, Role::Responder, flags, self.cookie, policy);
            Ok(Box::new(MemoryEstablished { network: self.network, over: self.over, info }) as Box<dyn Established>)
        })
    }

    fn refuse(mut self: Box<Self>, code: CloseCode, text: String) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = self.network.send(&mut self.over, Frame::Closed(code, text)).await;
        })
    }
}

struct MemoryEstablished {
    network: Arc<Network>,
    over: Transport,
    info: LinkInfo,
}

impl Established for MemoryEstablished {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn start(self: Box<Self>, mailboxes: Arc<Mailboxes>, hooks: Hooks) -> (Link, BoxFuture<'static, ()>) {
        let (sender, frames) = mpsc::unbounded_channel();
        let link = MemoryLink::new(self.info, sender);
        let driver = Driver::new(self.network, link.clone(), mailboxes, hooks);
        (Link::new(link), Box::pin(driver.run(self.over, frames)))
    }
}

struct MemoryListener {
    stack: Arc<MemoryStack>,
    address: SocketAddr,
    arriving: mpsc::UnboundedReceiver<Transport>,
}

impl Listening for MemoryListener {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn version(&self) -> Version {
        version()
    }

    fn serve(mut self: Box<Self>, on_caller: OnCaller) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Some(over) = self.arriving.recv().await {
                while tasks.try_join_next().is_some() {}
                let (stack, on_caller) = (self.stack.clone(), on_caller.clone());
                tasks.spawn(async move {
                    if let Ok(caller) = stack.answer(over).await {
                        on_caller(caller).await;
                    }
                });
            }
        })
    }
}

struct Answers(Arc<MemoryStack>);

impl Answering for Answers {
    fn answer(&self, over: Transport) -> BoxFuture<'_, Result<Box<dyn Caller>, AnswerFailure>> {
        Box::pin(self.0.clone().answer(over))
    }
}
