//! Helpers for tests: nodes on loopback, listeners that misbehave, and waiting with a limit.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use trunkline::registrar::{BoxFuture, Lease, RegisterError, Registrar, Registration, ResolveError, Resolver};
use trunkline::{
    ConnectError, Cookie, DialTimes, Endpoint, Event, Events, Host, Identity, Issued, LabAuthority, Listen, Mailbox,
    NetworkRoute, NoRoute, Node, NodeBuilder, NodeName, Record, ResolverId, TlsProfile, TlsProfileId,
};
use trunkline_route::{Address, Direct, NetworkRouteBuilder};

/// Longest time that an expected event may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event that must happen. If it does not happen in time, the test fails and shows the place.
#[track_caller]
pub fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, what).await {
            Ok(value) => value,
            Err(_) => panic!("it did not happen within {PATIENCE:?}: {at}"),
        }
    }
}

/// Waits for a condition of which there is no notification, such as the kernel's or another node's tables.
#[track_caller]
pub fn until(mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    soon(async move {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

/// Returns a free port on loopback.
pub fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn count() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a loopback address that no other test uses.
pub fn own_host() -> Ipv4Addr {
    let [high, low] = count().to_be_bytes();
    Ipv4Addr::new(127, 100, high, low)
}

/// Returns an address of a loopback host of its own, with a port that was free.
pub fn own_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind((own_host(), 0)).expect("loopback has free ports");
    socket.local_addr().expect("it is bound")
}

/// Drops a node as a crash would, and waits until its addresses can be bound again.
pub async fn crash(node: Node) {
    let addresses = node.listening().to_vec();
    drop(node);
    until(|| addresses.iter().all(|address| std::net::TcpListener::bind(address).is_ok())).await;
}

/// Returns an address without a listener, a different one each time.
pub fn nobody() -> SocketAddr {
    SocketAddr::from((own_host(), 1))
}

/// Returns a cookie derived from this text.
pub fn cookie(of: &str) -> Cookie {
    Cookie::new(format!("the cookie of {of}")).expect("it is long enough")
}

/// Parses a node name.
pub fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a node name")
}

/// Parses a resolver's id.
pub fn resolver_id(text: &str) -> ResolverId {
    ResolverId::new(text).expect("a resolver id")
}

/// Returns a node that only dials and has no registrar, with the cookie of "all".
pub fn dialer(text: &str) -> NodeBuilder {
    Node::builder(text).expect("a node name").cookie(cookie("all")).no_registrar()
}

/// Returns a [`dialer`] with a listener on loopback.
pub fn listener(text: &str) -> NodeBuilder {
    dialer(text).listen(loopback())
}

/// Starts a node.
pub async fn start(builder: NodeBuilder) -> Node {
    soon(builder.start()).await.expect("the node starts")
}

/// Returns the first address that a node listens on.
pub fn address(node: &Node) -> SocketAddr {
    node.listening()[0]
}

/// Returns a route to a socket address.
pub fn route_at(address: SocketAddr) -> NetworkRouteBuilder<Direct> {
    NetworkRoute::direct(address.ip().to_string(), address.port()).expect("a socket address can be dialled")
}

/// Returns a route to a node's first listener.
pub fn route_to(node: &Node) -> NetworkRouteBuilder<Direct> {
    route_at(address(node))
}

/// Returns a resolver's answer for a socket address.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::at(Address::new(address.ip().to_string(), address.port()).expect("a socket address can be dialled"))
}

/// Returns short timeouts, so that a silent peer costs little time.
pub fn short_times() -> DialTimes {
    let ms = Duration::from_millis;
    DialTimes { tcp: ms(300), tls: ms(300), handshake: ms(3000) }
}

/// Returns the attempts of a connect that must fail without a route.
#[track_caller]
pub fn no_route<T>(result: Result<T, ConnectError>) -> NoRoute {
    match result {
        Err(ConnectError::NoRoute(no_route)) => no_route,
        Err(error) => panic!("not NoRoute: {error}"),
        Ok(_) => panic!("it connected"),
    }
}

/// Returns the addresses that were dialled, attempt by attempt.
pub fn addresses(attempts: &[Record]) -> Vec<String> {
    attempts.iter().map(|record| record.address.clone()).collect()
}

/// Creates a certificate authority for a test.
pub fn authority() -> LabAuthority {
    LabAuthority::new(today(), 30).expect("a provider is compiled in")
}

/// Returns the current calendar time.
#[expect(clippy::disallowed_methods, reason = "certificates are checked against the clock")]
pub fn today() -> SystemTime {
    SystemTime::now()
}

/// Returns a certificate for 127.0.0.1, issued to this node the given number of days ago and valid for thirty days.
pub fn issued(authority: &LabAuthority, node: &str, days_ago: u64) -> Issued {
    issued_at(authority, node, today() - Duration::from_secs(days_ago * 24 * 3600))
}

/// Returns a certificate like [`issued`], issued the given time from now.
pub fn issued_in(authority: &LabAuthority, node: &str, time: Duration) -> Issued {
    issued_at(authority, node, today() + time)
}

fn issued_at(authority: &LabAuthority, node: &str, from: SystemTime) -> Issued {
    let host = Host::new("127.0.0.1").expect("it is a host");
    authority.issue(&name(node), &[host], from, 30).expect("the authority is good")
}

/// Returns the identity of a certificate like [`issued`], issued today.
pub fn identity(authority: &LabAuthority, node: &str) -> Identity {
    let issued = issued(authority, node, 0);
    Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes()).expect("it is a certificate")
}

/// Returns a node whose listener shows a certificate of this authority.
pub fn certified(authority: &LabAuthority, text: &str) -> NodeBuilder {
    dialer(text).listen(Listen::at(loopback()).tls(identity(authority, text)))
}

/// Parses a profile's id.
pub fn profile_id(text: &str) -> TlsProfileId {
    TlsProfileId::new(text).expect("a profile id")
}

/// Returns a profile that trusts only this authority.
pub fn trusting(authority: &LabAuthority) -> TlsProfile {
    TlsProfile::default().roots_pem(authority.certificate().as_bytes()).expect("it is a certificate")
}

/// Waits until the connection to a name is up, and returns the attempts that failed before.
pub async fn up(events: &mut Events, peer: &str) -> Vec<Record> {
    let mut failed = Vec::new();
    soon(async {
        loop {
            match events.next().await.expect("the node lives") {
                Event::Up(info) if info.peer.as_str() == peer => return,
                Event::AttemptFailed { record, .. } => failed.push(record),
                _ => {}
            }
        }
    })
    .await;
    failed
}

/// Waits until the connection to a name is down.
pub async fn down(events: &mut Events, peer: &str) -> trunkline::Down {
    soon(async {
        loop {
            match events.next().await.expect("the node lives") {
                Event::Down { peer: gone, reason } if gone.as_str() == peer => return reason,
                _ => {}
            }
        }
    })
    .await
}

/// Returns the text of the next message.
pub async fn text(mailbox: &mut Mailbox) -> String {
    let message = soon(mailbox.recv()).await.expect("the mailbox is open");
    String::from_utf8_lossy(message.body()).into_owned()
}

/// Answers every call to this service with the name of the node.
pub fn answers(node: &Node, service: &str) {
    let mut mailbox = node.register(service).expect("the service is free");
    let name = node.name().to_string();
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            message.reply(name.clone());
        }
    });
}

/// Registrar with a table in memory that records every question.
#[derive(Debug, Default)]
pub struct Discovery {
    table: Mutex<HashMap<NodeName, Vec<Endpoint>>>,
    asked: Mutex<Vec<NodeName>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Discovery {
    /// Returns a registrar without names.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns a registrar with one name, at these addresses in this order.
    pub fn of(text: &str, addresses: &[SocketAddr]) -> Arc<Self> {
        let this = Self::new();
        this.set(text, addresses);
        this
    }

    /// Sets the addresses of a name.
    pub fn set(&self, text: &str, addresses: &[SocketAddr]) {
        self.set_endpoints(text, addresses.iter().copied().map(endpoint).collect());
    }

    /// Sets the endpoints of a name.
    pub fn set_endpoints(&self, text: &str, endpoints: Vec<Endpoint>) {
        lock(&self.table).insert(name(text), endpoints);
    }

    /// Returns every question so far.
    pub fn asked(&self) -> Vec<NodeName> {
        lock(&self.asked).clone()
    }
}

impl Resolver for Discovery {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        lock(&self.asked).push(name.clone());
        let found = lock(&self.table).get(name).cloned().unwrap_or_default();
        Box::pin(async move { Ok(found) })
    }
}

/// [`Discovery`] as a node's registrar.
#[derive(Debug)]
pub struct AsRegistrar(pub Arc<Discovery>);

#[derive(Debug)]
struct NoLease;

impl Lease for NoLease {
    fn is_held(&self) -> bool {
        true
    }
}

impl Registrar for AsRegistrar {
    fn register(&self, _: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(async { Ok(Box::new(NoLease) as Box<dyn Lease>) })
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        self.0.clone()
    }
}

/// Returns a dialer whose registrar is this discovery.
pub fn asking(text: &str, discovery: &Arc<Discovery>) -> NodeBuilder {
    dialer(text).registrar(resolver_id("counted"), Arc::new(AsRegistrar(discovery.clone())))
}

/// Listener that is not a node: it counts its callers, and either says nothing or forwards the bytes.
pub struct Door {
    /// Address that it listens on.
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    carried: Arc<Carried>,
    open: watch::Receiver<usize>,
    cuts: watch::Sender<()>,
    task: AbortHandle,
}

/// Bytes that a door has forwarded, and whether it still forwards.
struct Carried {
    bytes: AtomicUsize,
    /// Number of pieces until it freezes.
    left: AtomicUsize,
    frozen: watch::Sender<bool>,
}

impl Door {
    /// Accepts connections and says nothing.
    pub async fn silent() -> Self {
        Self::make(loopback(), None).await
    }

    /// Forwards the bytes of every connection to this address, and back.
    pub async fn to(inside: SocketAddr) -> Self {
        Self::make(loopback(), Some(inside)).await
    }

    /// Forwards like [`Door::to`], and listens on this address.
    pub async fn at(address: SocketAddr, inside: SocketAddr) -> Self {
        Self::make(address, Some(inside)).await
    }

    async fn make(address: SocketAddr, inside: Option<SocketAddr>) -> Self {
        let socket = TcpListener::bind(address).await.expect("the address is free");
        let address = socket.local_addr().expect("it is bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, open) = watch::channel(0);
        let (bytes, left) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
        let carried = Arc::new(Carried { bytes, left, frozen: watch::Sender::new(false) });
        let (count, counter, shared, cuts) =
            (Arc::new(count), accepted.clone(), carried.clone(), watch::Sender::new(()));
        let cut = cuts.clone();
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((outside, _)) = socket.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                count.send_modify(|open| *open += 1);
                let (count, shared, mut cut) = (count.clone(), shared.clone(), cut.subscribe());
                passing.spawn(async move {
                    tokio::select! {
                        () = pass(outside, inside, &shared) => {}
                        _ = cut.changed() => {}
                    }
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, accepted, carried, open, cuts, task: task.abort_handle() }
    }

    /// Returns the number of connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes forwarded so far, in both directions together.
    pub fn carried(&self) -> usize {
        self.carried.bytes.load(Ordering::SeqCst)
    }

    /// Returns the number of connections that are open now.
    pub fn open(&self) -> usize {
        *self.open.borrow()
    }

    /// Waits until the given number of connections is open.
    #[track_caller]
    pub fn opens(&self, wanted: usize) -> impl Future<Output = ()> {
        let mut open = self.open.clone();
        soon(async move {
            open.wait_for(|open| *open == wanted).await.expect("the door stands");
        })
    }

    /// Ends every connection through it. Bytes in transit are lost.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Stops forwarding everything, including the end of a connection.
    pub fn freeze(&self) {
        self.carried.frozen.send_replace(true);
    }

    /// Freezes like [`Door::freeze`] after the given number of pieces, counted in both directions together. A piece is
    /// the result of one read; the second piece of a dial completes TLS for the dialling end.
    pub fn freeze_after(&self, pieces: usize) {
        self.carried.left.store(pieces, Ordering::SeqCst);
    }

    /// Forwards everything that was held back.
    pub fn thaw(&self) {
        self.carried.frozen.send_replace(false);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(outside: TcpStream, inside: Option<SocketAddr>, carried: &Carried) {
    let (mut from_outside, to_outside) = outside.into_split();
    let Some(inside) = inside else {
        let _ = tokio::io::copy(&mut from_outside, &mut tokio::io::sink()).await;
        return;
    };
    let Ok(inside) = TcpStream::connect(inside).await else { return };
    let (from_inside, to_inside) = inside.into_split();
    tokio::join!(carry(from_outside, to_inside, carried), carry(from_inside, to_outside, carried));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: &Carried) {
    let mut frozen = carried.frozen.subscribe();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if frozen.wait_for(|frozen| !frozen).await.is_err() || read == 0 || to.write_all(&bytes[..read]).await.is_err()
        {
            return;
        }
        carried.bytes.fetch_add(read, Ordering::SeqCst);
        if carried.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            carried.frozen.send_replace(true);
        }
    }
}

/// Address where connects hang: a listener that accepts nobody and whose queue is full.
pub struct BlackHole {
    /// The address.
    pub address: SocketAddr,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    /// Creates a black hole.
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(loopback()).expect("loopback has free ports");
        let listener = socket.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        let mut waiting = Vec::new();
        let patience = Duration::from_millis(150);
        while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            waiting.push(connected.expect("it listens"));
        }
        Self { address, _listener: listener, _waiting: waiting }
    }
}

/// Returns the number of open sockets of this machine that have this port at either end.
pub fn sockets_with(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let lines = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    let open = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, _, _, _, _, _, _, inode, ..] = fields[..] else { return false };
        (local.ends_with(&port) || remote.ends_with(&port)) && inode != "0" && inode != "inode"
    };
    lines.map(|table| table.lines().filter(|line| open(line)).count()).sum()
}
