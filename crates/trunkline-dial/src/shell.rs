//! The connections of one node: asked for, accepted, kept. The shell that runs the pure parts of this crate with tokio, over
//! whatever stacks it was given.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use trunkline_registrar::Resolver;
use trunkline_route::{
    Attempt, CloseCode, Cookie, Defaults, Incarnation, NodeName, Origin, ProxyRoute, ResolverId, Role,
};
use trunkline_stack::{
    AttemptError, BoxFuture, ByteStream, Down, DownHook, Hold, HostNames, Link, LinkInfo, LinkStats, LocalLimits,
    LocalLink, Mailboxes, PeerLog, Stack, log_connection,
};

use crate::connection::{Connection, Session};
use crate::memory::Memory;
use crate::pair::Retire;
use crate::plan::{Lookup, Plan, Policy, Preview};
use crate::pool::Pool;
use crate::sessions::{ConnectRequest, Keys, Routing};
use crate::{ConnectError, Record, Registry, RouteTable};

mod accept;
mod any;
mod connect;
mod important;
mod kept;
mod learn;
mod messages;
mod over;
mod ports;
mod redial;
mod tasks;

pub use accept::SentAway;
pub use any::{Choice, InUse, ServiceNodes};
pub use important::{ImportantError, WhyUnknown};
pub use kept::PendingFailback;
pub use learn::Learnt;
pub use messages::PING_MAILBOX;

use kept::Kept;
use tasks::Tasks;

/// Time that a connect may take beyond its budget to settle whose dial stands.
const SETTLE: Duration = Duration::from_secs(1);
/// Time for the last words of links when a node shuts down; a peer that does not take them is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "the node is the shell that brings the time")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The settings of [`Sessions`].
pub struct SessionsConfig {
    /// The name of the node.
    pub name: NodeName,
    /// The instance of the node: another one after each start.
    pub incarnation: Incarnation,
    /// The stacks that the node dials by, each for its protocol; of two for one protocol the last is used.
    pub stacks: Vec<Arc<dyn Stack>>,
    /// The limits of what the node sends itself.
    pub local: LocalLimits,
    /// The static routes.
    pub routes: RouteTable,
    /// The resolvers that routes and discovery may name.
    pub resolvers: BTreeMap<ResolverId, Arc<dyn Resolver>>,
    /// The resolvers that are asked where no route leads to a name, in order. Each must be among `resolvers`; others fail.
    pub discovery: Vec<ResolverId>,
    /// The nodes of services that are listed by hand.
    pub service_nodes: ServiceNodes,
    /// The cookies that count for a name.
    pub keys: Arc<Keys>,
    /// The values for what routes leave open.
    pub defaults: Defaults,
    /// The policy of lookups.
    pub policy: Policy,
    /// The addresses that the node listens at: a dial that leads back to one of them is recognised.
    pub own_addresses: Vec<SocketAddr>,
}

impl SessionsConfig {
    /// Returns the settings of a node with this cookie and no stack, resolver or route.
    pub fn new(name: NodeName, incarnation: impl Into<Incarnation>, cookie: Cookie) -> Self {
        Self {
            name,
            incarnation: incarnation.into(),
            stacks: Vec::new(),
            local: LocalLimits::default(),
            routes: RouteTable::new(),
            resolvers: BTreeMap::new(),
            discovery: Vec::new(),
            service_nodes: ServiceNodes::new(),
            keys: Arc::new(Keys::new(Vec::new(), cookie.clone().into())),
            defaults: Defaults::new(cookie),
            policy: Policy::default(),
            own_addresses: Vec::new(),
        }
    }
}

impl fmt::Debug for SessionsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionsConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// An event of the connections of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// An attempt of a lookup failed.
    AttemptFailed {
        /// Name that was to be reached.
        target: NodeName,
        /// The attempt.
        record: Record,
    },
    /// A connection went down.
    Down {
        /// Name of the peer.
        peer: NodeName,
        /// The reason.
        reason: Down,
    },
    /// A link that another one replaced broke before it was drained: messages sent on it may be lost.
    DrainBroken {
        /// Name of the peer.
        peer: NodeName,
        /// The reason.
        reason: Down,
    },
    /// A connection over a standby went back to a better route, over a new link that is up.
    FailedBack {
        /// Name of the peer.
        peer: NodeName,
        /// The pattern of the route.
        pattern: Arc<str>,
    },
    /// A connection is up.
    Up(LinkInfo),
}

/// The ways through other nodes, as a lookup needs them.
pub trait Gateways: Send + Sync + 'static {
    /// Reaches the gateway of a route, has it lead on, and returns the stream that ends at the target of the attempt.
    ///
    /// # Errors
    /// [`AttemptError::Relay`] and [`AttemptError::RelayRefused`].
    fn through<'a>(
        &'a self,
        route: &'a ProxyRoute,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<ByteStream, AttemptError>>;
}

/// The result of the drain of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Peers whose connections run over another route now.
    pub moved: Vec<NodeName>,
    /// Peers without another way, each with the reason; their connections are as they were.
    pub kept: Vec<(NodeName, ConnectError)>,
}

/// The counts of links when a node shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutDownReport {
    /// Connections that finished what was queued and under way.
    pub drained: usize,
    /// Connections that were cut when the grace was over.
    pub cut: usize,
}

/// Preview of a connect to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The name.
    pub target: NodeName,
    /// The live connection, if one is up.
    pub live: Option<LinkInfo>,
    /// True if the live connection would be used as it is.
    pub live_satisfies: bool,
    /// The candidates that would be tried, in order.
    pub steps: Vec<Preview>,
    /// True if the lookup ends with the static routes: no resolver is asked after `steps` failed.
    pub static_only: bool,
}

/// The connections of one node: at most one per name, whoever dialled.
///
/// A stack brings the protocol ([`Stack`]); everything about which link stands for a name is here. Tasks, links and the node
/// itself end by [`Sessions::abort`], or orderly by [`Sessions::shut_down`]; one of the two must be called, and then
/// [`Sessions::close`].
pub struct Sessions {
    name: NodeName,
    stacks: BTreeMap<String, Arc<dyn Stack>>,
    host_names: HostNames,
    mailboxes: Arc<Mailboxes>,
    /// Mailboxes that messages of guests arrive in, instead of those of all other peers.
    guest_mailboxes: Arc<Mailboxes>,
    registry: Arc<Registry<Session>>,
    /// Link of the node to itself, and its place as a connection.
    local: Arc<LocalLink>,
    own: Session,
    resolvers: BTreeMap<ResolverId, Arc<dyn Resolver>>,
    discovery: Vec<ResolverId>,
    routes: RouteTable,
    kept: Kept,
    keys: Arc<Keys>,
    defaults: Defaults,
    policy: Policy,
    memory: Mutex<Memory>,
    /// Uses of services that several nodes serve.
    pool: Mutex<Pool>,
    service_nodes: RwLock<ServiceNodes>,
    peer_log: PeerLog,
    tasks: Tasks,
    is_leaving: AtomicBool,
    /// The end of those who wait for the node to leave.
    leaving: watch::Sender<bool>,
    own_addresses: Vec<SocketAddr>,
    /// Number of the next dial over a transport that was given.
    dials_over: AtomicU64,
    gateways: OnceLock<Weak<dyn Gateways>>,
    on_event: Box<dyn Fn(SessionEvent) + Send + Sync>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns what a new link's messages wait for: that each of these older links delivered its last.
fn hold_for(elders: Vec<Session>) -> Option<Hold> {
    if elders.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        for elder in elders {
            elder.link.inbound_done().await;
        }
    }))
}

impl Sessions {
    /// Creates the connections of a node; none is up. Events are told in their order, by a call that must not wait. Call it
    /// within a tokio runtime: the tasks of the node run there.
    pub fn new(config: SessionsConfig, on_event: impl Fn(SessionEvent) + Send + Sync + 'static) -> Arc<Self> {
        let mailboxes = Arc::new(Mailboxes::default());
        let info = LinkInfo::local(config.name.clone(), config.incarnation, config.defaults.cookie.clone());
        let local = LocalLink::start(info, mailboxes.clone(), config.local);
        Arc::new(Self {
            registry: Registry::new(config.name.clone()),
            name: config.name,
            stacks: config.stacks.into_iter().map(|stack| (stack.protocol().to_owned(), stack)).collect(),
            host_names: HostNames::of_the_system(),
            mailboxes,
            guest_mailboxes: Arc::default(),
            own: Session::new(local.link()),
            local,
            resolvers: config.resolvers,
            discovery: config.discovery,
            pool: Mutex::default(),
            service_nodes: RwLock::new(config.service_nodes),
            routes: config.routes,
            kept: Kept::default(),
            keys: config.keys,
            defaults: config.defaults,
            policy: config.policy,
            memory: Mutex::default(),
            peer_log: PeerLog::default(),
            tasks: Tasks::new(),
            is_leaving: AtomicBool::new(false),
            leaving: watch::Sender::new(false),
            own_addresses: config.own_addresses,
            dials_over: AtomicU64::new(0),
            gateways: OnceLock::new(),
            on_event: Box::new(on_event),
        })
    }

    /// Sets what leads through other nodes; without it no proxy route leads anywhere. Only the first call has an effect.
    pub fn set_gateways(&self, gateways: Weak<dyn Gateways>) {
        let _ = self.gateways.set(gateways);
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Returns the mailboxes that messages of guests arrive in ([`Keys::set_guests`]): they reach no other ones.
    pub fn guest_mailboxes(&self) -> &Arc<Mailboxes> {
        &self.guest_mailboxes
    }

    /// Returns the mailboxes that messages of all peers but guests arrive in.
    pub fn mailboxes(&self) -> &Arc<Mailboxes> {
        &self.mailboxes
    }

    /// Returns the resolvers that routes and discovery may name.
    pub fn resolvers(&self) -> &BTreeMap<ResolverId, Arc<dyn Resolver>> {
        &self.resolvers
    }

    /// Returns the resolvers that are asked where no route leads to a name, in order.
    pub fn discovery(&self) -> &[ResolverId] {
        &self.discovery
    }

    /// Returns the cookies by which peers come in.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the static routes. After an edit call [`Sessions::routes_changed`].
    pub fn routes(&self) -> &RouteTable {
        &self.routes
    }

    /// Returns the policy of lookups.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the lookups of host names.
    pub fn host_names(&self) -> &HostNames {
        &self.host_names
    }

    /// Returns the limit on log lines that peers can cause.
    pub fn peer_log(&self) -> &PeerLog {
        &self.peer_log
    }

    /// Returns the runtime in which the tasks of the node run.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.tasks.runtime()
    }

    /// Runs a task that ends with the node at the latest.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Forgets what failed of late: the next lookup tries in the plain order.
    pub fn forget_failures(&self) {
        self.memory().clear();
    }

    /// Returns true once the node leaves.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    /// Returns a signal that turns true when the node leaves.
    pub fn leaving(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    /// Says that the node leaves: nothing new begins from here on.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
        self.leaving.send_replace(true);
    }

    /// Leaves, and ends every task and link at once. Then call [`Sessions::close`].
    pub fn abort(&self) {
        self.leave();
        self.tasks.abort();
    }

    /// Leaves, lets both ends of every connection finish what is queued and the calls under way, and cuts what has not
    /// finished within `grace`. Then call [`Sessions::close`].
    pub async fn shut_down(&self, grace: Duration) -> ShutDownReport {
        self.leave();
        let mut links: Vec<Link> = self.registry.links().into_iter().map(|(_, live)| live.link).collect();
        let elders = self.registry.elders().into_iter().map(|elder| elder.link);
        links.extend(elders.filter(|elder| elder.down().is_none()));
        for link in &links {
            link.go_away(CloseCode::GoingAway);
        }
        let all = async {
            for link in &links {
                link.closed().await;
            }
        };
        let _ = tokio::time::timeout(grace, all).await;
        let unfinished = links.iter().filter(|link| link.down().is_none());
        let cut = unfinished.inspect(|link| link.close(CloseCode::GoingAway)).count();
        ShutDownReport { drained: links.len() - cut, cut }
    }

    /// Closes the mailboxes and the link of the node to itself.
    pub fn close(&self) {
        self.mailboxes.close();
        self.local.shut_down();
    }

    /// Waits a moment for the last words of links that were closed; the last step of an orderly end.
    pub async fn last_words(&self) {
        let _ = tokio::time::timeout(LAST_WORDS, self.tasks.ended()).await;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, event: SessionEvent) {
        (self.on_event)(event);
    }

    /// Returns true if a socket address is one that this node listens at.
    fn listens_at(&self, address: SocketAddr) -> bool {
        let same =
            |own: &SocketAddr| own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified());
        self.own_addresses.iter().any(same)
    }

    /// A link that gave way has ended: what it lost is told.
    fn elder_down(&self, info: &LinkInfo, reason: &Down) {
        if !self.registry.elder_down(&info.peer, info.id) {
            return;
        }
        log_connection!(info, Info, "down", %reason);
        if !reason.is_normal() {
            log_connection!(info, Warn, "a replaced link broke before it was drained; messages on it may be lost", %reason);
            self.emit(SessionEvent::DrainBroken { peer: info.peer.clone(), reason: reason.clone() });
        }
    }

    /// Keeps a link that was left for one to another node among the elders, until it goes down.
    fn drains(&self, left: &Session) {
        let info = left.link.info();
        self.registry.drains(&info.peer, left.clone());
        if left.link.down().is_some() {
            // Its end was told before it was among the elders.
            self.registry.elder_down(&info.peer, info.id);
        }
    }

    /// A link is up. One whose place it takes although that one was dead at the peer went down before.
    fn up(self: &Arc<Self>, info: &LinkInfo, old: Option<&(Session, Retire)>) {
        if let Some((old, _)) = old.filter(|(_, retire)| !retire.alive) {
            let (peer, reason) = (old.link.info().peer.clone(), Down::ClosedHere(CloseCode::Superseded));
            log_connection!(old.link.info(), Info, "down", %reason);
            self.emit(SessionEvent::Down { peer, reason });
            if old.link.is_left_by_peer() {
                // It finishes what it has; this node waits for that when it shuts down itself.
                self.drains(old);
            }
        }
        let via = info.via.as_ref().map_or("direct", NodeName::as_str);
        let replaces = old.map_or_else(|| "none".into(), |(old, _)| old.link.info().short_id());
        log_connection!(
            info, Info, "up", address = %info.address, via, role = ?info.role, tls = info.proof(), flags = %info.flags, replaces
        );
        self.keep_up(info);
        self.emit(SessionEvent::Up(info.clone()));
    }

    fn on_down(self: &Arc<Self>, info: LinkInfo) -> DownHook {
        let node = Arc::downgrade(self);
        Box::new(move |reason, going| {
            let Some(node) = node.upgrade() else { return };
            let peer = &info.peer;
            if node.registry.down(peer, info.id) {
                log_connection!(&info, Info, "down", %reason);
                // Whoever sees the event finds it done.
                node.keep_after(&info, reason, going);
                node.emit(SessionEvent::Down { peer: peer.clone(), reason: reason.clone() });
            }
            node.elder_down(&info, reason);
        })
    }

    /// Returns the view of the node that decides about routes.
    fn routing(&self) -> Routing<'_> {
        let Self { routes, discovery, defaults, policy, keys, .. } = self;
        Routing { routes, discovery, defaults, policy, keys }
    }

    fn lookup(&self, name: &NodeName, request: &ConnectRequest) -> Lookup {
        self.routing().lookup(name, request, || self.memory().clone())
    }

    /// Returns true if a live link is what the routes of its name and the caller demand. The answer for a caller without
    /// demands of its own holds as long as the generation of the routes.
    fn satisfies(&self, name: &NodeName, request: &ConnectRequest, live: &Session) -> bool {
        let judge = || live.link.is_open() && self.routing().satisfies(name, request, live.facts());
        if !request.is_of_routes_alone() {
            return judge();
        }
        let generation = self.routes.generation();
        if live.satisfied_in(generation) {
            return true;
        }
        let satisfies = judge();
        if satisfies {
            live.set_satisfied_in(generation);
        }
        satisfies
    }

    /// Takes notice of an edit of the routes: connections may have better ones to go back to.
    pub fn routes_changed(self: &Arc<Self>) {
        for (_, live) in self.registry.links() {
            self.watch_for_better(live.link.info());
        }
    }

    /// Returns every live connection, sorted by name.
    pub fn nodes(&self) -> Vec<(LinkInfo, LinkStats)> {
        let links = self.registry.links();
        links.into_iter().map(|(_, live)| (live.link.info().clone(), live.link.stats())).collect()
    }

    /// Returns the routes that the live connection to a peer is to go back to, best first, and why it has not yet. Empty
    /// without a connection.
    pub fn pending_failbacks(&self, peer: &NodeName) -> Vec<PendingFailback> {
        let live = self.registry.get(peer);
        live.map(|live| self.pending_failbacks_of(live.link.info())).unwrap_or_default()
    }

    /// Moves connections away from a route that is not in the table any more: those that this node dialled by a route with
    /// this pattern, through gateways (`proxied`) or directly.
    pub async fn vacate(self: &Arc<Self>, pattern: &str, proxied: bool) -> Drained {
        let mut drained = Drained::default();
        for (name, live) in self.registry.links() {
            let info = live.link.info();
            let is_by_it = info.route.as_deref() == Some(pattern) && info.via.is_some() == proxied;
            if info.role != Role::Initiator || !is_by_it {
                continue;
            }
            let request = ConnectRequest { not: Some(info.id), ..ConnectRequest::default() };
            match self.session(name.clone(), request).await {
                Ok(_) => drained.moved.push(name),
                Err(error) => drained.kept.push((name, error)),
            }
        }
        drained
    }

    /// Returns what a connect to this name would try, in order, asking nobody.
    pub fn explain(&self, name: &NodeName) -> Explanation {
        if *name == self.name {
            return Explanation {
                target: name.clone(),
                live_satisfies: true,
                live: Some(self.own.link.info().clone()),
                steps: Vec::new(),
                static_only: false,
            };
        }
        let live = self.registry.get(name);
        let request = ConnectRequest::default();
        let plan = Plan::new(self.lookup(name, &request), now());
        let steps = plan.preview(now());
        let static_only =
            !steps.iter().any(|s| matches!(s.origin, Origin::Discovered { .. } | Origin::DiscoveredProxy { .. }));
        Explanation {
            target: name.clone(),
            live_satisfies: live.as_ref().is_some_and(|live| self.satisfies(name, &request, live)),
            live: live.map(|live| live.link.info().clone()),
            steps,
            static_only,
        }
    }

    /// Returns the live connection to a name, whoever dialled it; to the node's own name, the one without a socket.
    pub fn connection(&self, name: &NodeName) -> Option<Connection> {
        self.live(name).map(|live| live.connection())
    }

    fn live(&self, name: &NodeName) -> Option<Session> {
        if *name == self.name { Some(self.own.clone()) } else { self.registry.get(name) }
    }
}
