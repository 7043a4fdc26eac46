use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use trunkline_dial::exec::{self, Found};
use trunkline_dial::memory::Memory;
use trunkline_dial::pair::{LinkId, Retire};
use trunkline_dial::plan::{Lookup, Plan, Policy, Preview, given};
use trunkline_dial::{AddError, Candidate, NoRoute, Reason, Registry, RemoveError, RouteEdit, RouteTable};
use trunkline_link::handshake::{CloseCode, Mode};
use trunkline_link::log_connection;
use trunkline_link::{
    CallError as LinkCallError, ClientTls, DialTimes, Directory, Down, DownHook, Hold, Link, LinkInfo, LinkStats,
    Listener, Mailbox, Native, RegisterError, Role, SendError as LinkSendError, ServerTls, TlsError, TlsProfile,
};
use trunkline_matcher::PatternIndex;
use trunkline_registrar::{Lease, Registrar, Registration, Resolver};
use trunkline_registrar_embedded::{Embedded, RegistrarAt};
use trunkline_route::{
    Address, Cookie, Defaults, Endpoint, LinkPolicy, NameError, NetworkRoute, NodeName, Reconnect, ResolverId, TlsMode,
    TlsProfileId, Version,
};

use crate::builder::{Listen, NodeBuilder, RegistrarChoice};
use crate::certificates::{Certificates, Reloaded};
use crate::connection::Live;
use crate::events::{CAPACITY, Event, Events};
use crate::inbound::{Keys, credentials, decide, registrar_credentials};
use crate::kept::Kept;
use crate::ports::NodePorts;
use crate::{CallError, ConnectError, Connection, PING_SERVICE, SendError, StartError};

/// The id of the embedded registrar in routes.
const EMBEDDED: &str = "embedded";

/// What a connect may take beyond its budget to settle whose dial stands.
const SETTLE: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "the node is the shell that brings the time")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a caller wants of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    /// Over this route and no other.
    pub(crate) given: Option<NetworkRoute>,
    /// Over this one of the static routes and no other.
    pub(crate) only: Option<Candidate>,
    /// By another link than this one.
    pub(crate) not: Option<LinkId>,
    /// As if nothing had failed of late.
    pub(crate) afresh: bool,
    /// At most so long, and no longer than a lookup may take anyway.
    pub(crate) within: Option<Duration>,
}

/// What the node's tasks share. It holds no task that holds it, but through [`Handle`], which ends them all.
pub(crate) struct Inner {
    name: NodeName,
    pub(crate) native: Arc<Native>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) registry: Arc<Registry<Live>>,
    pub(crate) resolvers: BTreeMap<ResolverId, Arc<dyn Resolver>>,
    discovery: Vec<ResolverId>,
    routes: RouteTable,
    pub(crate) kept: Kept,
    keys: Arc<Keys>,
    defaults: Defaults,
    policy: Policy,
    pub(crate) times: DialTimes,
    memory: Mutex<Memory>,
    profiles: BTreeMap<TlsProfileId, ClientTls>,
    certificates: Certificates,
    no_profile: ClientTls,
    platform: std::sync::OnceLock<ClientTls>,
    events: broadcast::Sender<Event>,
    links: Mutex<JoinSet<()>>,
    /// Links that gave way to another and still deliver.
    draining: Mutex<BTreeMap<NodeName, Vec<Link>>>,
    shutting_down: AtomicBool,
    /// Nothing may be spawned any more.
    is_dropped: AtomicBool,
    own_addresses: Vec<SocketAddr>,
}

impl Inner {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Whether a socket address is one this node listens at.
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        let same =
            |own: &SocketAddr| own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified());
        self.own_addresses.iter().any(same)
    }

    /// Runs the task of a link; it ends with the node.
    pub(crate) fn spawn(&self, driver: impl Future<Output = ()> + Send + 'static) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_dropped.load(Ordering::Acquire) {
            return;
        }
        while links.try_join_next().is_some() {}
        links.spawn(driver);
    }

    /// Holds a new link's messages back until every older link to the peer delivered its last: not only the one it
    /// replaces, which may itself have been held for another.
    pub(crate) fn hold_for_elders(&self, peer: &NodeName, replaced: Option<&Live>) -> Option<Hold> {
        let mut draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        let elders = draining.entry(peer.clone()).or_default();
        elders.retain(|elder| elder.down().is_none());
        elders.extend(replaced.map(|old| old.link.clone()).filter(|old| old.down().is_none()));
        let elders = elders.clone();
        if elders.is_empty() {
            draining.remove(peer);
            return None;
        }
        Some(Box::pin(async move {
            for elder in elders {
                elder.inbound_done().await;
            }
        }))
    }

    /// A link that gave way has ended: nobody is to wait for it, and what it lost is told.
    fn elder_down(&self, info: &LinkInfo, reason: &Down) {
        let (peer, link) = (&info.peer, info.id);
        let mut draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(elders) = draining.get_mut(peer) else { return };
        let before = elders.len();
        elders.retain(|elder| elder.info().id != link);
        let was_elder = elders.len() < before;
        if elders.is_empty() {
            draining.remove(peer);
        }
        drop(draining);
        if was_elder && !reason.is_normal() {
            log_connection!(info, Warn, "a replaced link broke before it was drained; messages on it may be lost", %reason);
            self.emit(Event::DrainBroken { peer: peer.clone(), reason: reason.clone() });
        }
    }

    /// A link is up. One whose place it takes although that one was dead at the peer went down before.
    pub(crate) fn up(self: &Arc<Self>, info: &LinkInfo, old: Option<&(Live, Retire)>) {
        if let Some((old, _)) = old.filter(|(_, retire)| !retire.alive) {
            let (peer, reason) = (old.link.info().peer.clone(), Down::ClosedHere(CloseCode::Superseded));
            log_connection!(old.link.info(), Info, "down", %reason);
            self.emit(Event::Down { peer, reason });
        }
        log_connection!(info, Info, "up", address = %info.address, role = ?info.role, tls = %info.tls, flags = %info.flags);
        self.emit(Event::Up(info.clone()));
        self.kept.up(self, info);
    }

    pub(crate) fn on_down(self: &Arc<Self>, info: LinkInfo) -> DownHook {
        let node = Arc::downgrade(self);
        Box::new(move |reason| {
            let Some(node) = node.upgrade() else { return };
            let peer = &info.peer;
            if node.registry.down(peer, info.id) {
                log_connection!(&info, Info, "down", %reason);
                node.emit(Event::Down { peer: peer.clone(), reason: reason.clone() });
                node.kept.down(&node, peer, reason);
            }
            node.elder_down(&info, reason);
        })
    }

    /// The TLS side of a dial. Without a profile only `tls: true` needs the platform's roots; they are read once.
    pub(crate) fn client_tls(&self, profile: Option<&TlsProfileId>, mode: &TlsMode) -> Result<ClientTls, TlsError> {
        match (profile.and_then(|id| self.profiles.get(id)), mode) {
            (Some(tls), _) => Ok(tls.clone()),
            (None, TlsMode::Verify(_)) => {
                if let Some(tls) = self.platform.get() {
                    return Ok(tls.clone());
                }
                let tls = ClientTls::new(&TlsProfile::default())?;
                Ok(self.platform.get_or_init(|| tls).clone())
            }
            (None, _) => Ok(self.no_profile.clone()),
        }
    }

    fn look_at_certificates(&self, at_once: bool) -> Vec<Reloaded> {
        let done = self.certificates.look(at_once);
        for Reloaded { what, error } in done.iter().cloned() {
            match error {
                None => {
                    tracing::info!(what, "certificates reloaded");
                    self.emit(Event::CertificatesReloaded { what });
                }
                Some(error) => {
                    tracing::warn!(what, %error, "changed certificates cannot be used; those before are kept");
                    self.emit(Event::CertificatesKept { what, error });
                }
            }
        }
        done
    }

    pub(crate) fn candidates(&self, name: &NodeName, demand: &Demand) -> Vec<Candidate> {
        match (&demand.given, &demand.only) {
            (Some(route), _) => given(route.clone()),
            (None, Some(candidate)) => vec![candidate.clone()],
            (None, None) => self.routes.matching(name),
        }
    }

    pub(crate) fn lookup(&self, name: &NodeName, demand: &Demand) -> Lookup {
        Lookup {
            target: name.clone(),
            candidates: self.candidates(name, demand),
            discovery: if demand.only.is_some() { Vec::new() } else { self.discovery.clone() },
            defaults: Defaults { cookie: self.keys.of(name).current().clone(), ..self.defaults.clone() },
            policy: self.policy,
            memory: if demand.afresh { Memory::new() } else { self.memory().clone() },
            given: demand.given.is_some(),
        }
    }

    /// Policy belongs to the name: whether a live link is what its routes demand. A link this end dialled came by
    /// one of them, perhaps not the best; one that came in must meet the best.
    pub(crate) fn satisfies(&self, name: &NodeName, demand: &Demand, live: &Live) -> bool {
        let info = live.link.info();
        if !live.link.is_open() || demand.not == Some(info.id) {
            return false;
        }
        let candidates = self.candidates(name, demand);
        if let Some(only) = &demand.only
            && !only.carries(info.route.as_deref(), info.resolver.as_ref())
        {
            return false;
        }
        if candidates.is_empty() {
            let tls = if self.defaults.tls { TlsMode::Verify(None) } else { TlsMode::CookieOnly };
            // No route demands anything of a peer that came in; the listener judged it.
            return info.role == Role::Responder || self.meets(name, live, None, &tls);
        }
        let considered = if info.role == Role::Initiator { candidates.len() } else { 1 };
        candidates.iter().take(considered).any(|candidate| {
            let (_, tls) = candidate.route.demands(&self.defaults);
            self.meets(name, live, candidate.route.cookie(), &tls)
        })
    }

    /// What becomes of a connection to this name when it goes down.
    pub(crate) fn reconnect(&self, name: &NodeName) -> Reconnect {
        let best = self.routes.matching(name).into_iter().next();
        best.and_then(|best| best.route.reconnect()).unwrap_or(self.defaults.reconnect)
    }

    /// The routes that a connection over this link is to go back to, best first; each is better than its own.
    pub(crate) fn better_routes(&self, info: &LinkInfo) -> Vec<Candidate> {
        let mut candidates = self.routes.matching(&info.peer);
        let own = candidates.iter().position(|route| route.carries(info.route.as_deref(), info.resolver.as_ref()));
        candidates.truncate(own.unwrap_or(candidates.len()));
        candidates.retain(|candidate| candidate.route.failback().is_some());
        if info.role == Role::Initiator { candidates } else { Vec::new() }
    }

    /// Policy belongs to the name: what holds for a link whose peer dialled.
    pub(crate) fn link_policy(&self, name: &NodeName) -> LinkPolicy {
        match self.routes.matching(name).first() {
            Some(best) => LinkPolicy { route: Some(best.pattern.clone()), ..best.route.link_policy(&self.defaults) },
            None => self.defaults.link_policy(),
        }
    }

    fn meets(&self, name: &NodeName, live: &Live, cookie: Option<&Cookie>, tls: &TlsMode) -> bool {
        let info = live.link.info();
        // While a cookie is replaced, the old and the new one are as good as each other.
        let valid = |cookie: &Cookie| self.keys.of(name).iter().any(|valid| valid == cookie);
        let cookie = match cookie {
            Some(cookie) => info.cookie == *cookie || (valid(cookie) && valid(&info.cookie)),
            None => info.role == Role::Responder || valid(&info.cookie),
        };
        let verified = match tls {
            TlsMode::Verify(_) => live.tls() == *tls,
            TlsMode::CookieOnly | TlsMode::DangerousSkipVerify(_) => true,
        };
        cookie && verified
    }
}

impl Inner {
    pub(crate) async fn connect(self: &Arc<Self>, name: NodeName, demand: Demand) -> Result<Live, ConnectError> {
        if name == self.name {
            return Err(ConnectError::Myself(name));
        }
        if self.is_shutting_down() {
            return Err(ConnectError::ShuttingDown);
        }
        // One budget for all the dials of this call, should adopted links come to nothing.
        let total = demand.within.unwrap_or(self.policy.total).min(self.policy.total);
        let deadline = now() + total;
        let dial = {
            // The flight must not keep the node alive; its callers do.
            let (node, name, demand) = (Arc::downgrade(self), name.clone(), demand.clone());
            move |flight, replace| {
                let (node, name, demand) = (node.clone(), name.clone(), demand.clone());
                async move {
                    let Some(node) = node.upgrade() else { return Ok(Found::Adopt) };
                    let mut lookup = node.lookup(&name, &demand);
                    lookup.policy.total = deadline.saturating_duration_since(now());
                    exec::run(Arc::new(NodePorts { node, flight, replace }), lookup).await
                }
            }
        };
        let satisfies = |live: &Live| self.satisfies(&name, &demand, live);
        let route = demand.given.as_ref().or(demand.only.as_ref().map(|candidate| &candidate.route));
        let connect = self.registry.connect(&name, route, satisfies, dial);
        // The lookup ends by itself with every attempt on record; this bounds the waits for links of other dials.
        match tokio::time::timeout_at((deadline + SETTLE).into(), connect).await {
            Ok(live) => Ok(live?),
            Err(_) => Err(NoRoute { target: name.clone(), reason: Reason::OutOfTime, attempts: Vec::new() }.into()),
        }
    }
}

/// What can be taken for a node's name: a text to be checked, or a name.
pub trait IntoName {
    /// The name.
    ///
    /// # Errors
    /// [`NameError`] when a text is none.
    fn into_name(self) -> Result<NodeName, NameError>;
}

impl<T: TryInto<NodeName, Error: Into<NameError>>> IntoName for T {
    fn into_name(self) -> Result<NodeName, NameError> {
        self.try_into().map_err(Into::into)
    }
}

/// The last handle of a node ends everything that runs for it.
struct Handle {
    inner: Arc<Inner>,
    listeners: Mutex<JoinSet<()>>,
    listening: Vec<SocketAddr>,
    lease: Mutex<Option<Box<dyn Lease>>>,
    embedded: Option<Arc<Embedded>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.shutting_down.store(true, Ordering::Release);
        self.inner.is_dropped.store(true, Ordering::Release);
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.inner.directory.close();
    }
}

/// A node: it has a name, reaches other nodes by theirs, and is reached by its own.
///
/// Clones share it. When the last is dropped every task and socket of the node goes at once; to let peers finish,
/// call [`Node::shut_down`] first.
#[derive(Clone)]
pub struct Node {
    handle: Arc<Handle>,
}

/// What became of the connections over a route that was drained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// They run over another route now.
    pub moved: Vec<NodeName>,
    /// There was no other way, and why; they are as they were.
    pub kept: Vec<(NodeName, ConnectError)>,
}

/// How a node went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutDownReport {
    /// Connections that finished what was queued and under way.
    pub drained: usize,
    /// Connections that were cut when the grace was over.
    pub cut: usize,
}

/// What [`Node::explain`] says about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The name.
    pub target: NodeName,
    /// The live connection, when one is up.
    pub live: Option<LinkInfo>,
    /// Whether the live connection would be used as it is.
    pub live_satisfies: bool,
    /// What would be tried, in order.
    pub steps: Vec<Preview>,
    /// Whom a connect would end with if all of `steps` failed: nobody else is asked.
    pub static_only: bool,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// Registered services, sorted.
    pub services: Vec<String>,
    /// Live connections.
    pub connections: usize,
    /// Static routes.
    pub routes: usize,
    /// `Some(true)` when the registrar holds the announcement, `None` without a registrar or when hidden.
    pub registered: Option<bool>,
    /// Whether this node serves as the embedded registrar of its host.
    pub serves_registrar: bool,
    /// Questions this node's embedded registrar answered.
    pub registrar_queries: u64,
}

impl Node {
    /// Begins a node of this name, `name@host`.
    ///
    /// # Errors
    /// [`NameError`] when the text is no node name.
    pub fn builder(name: impl IntoName) -> Result<NodeBuilder, NameError> {
        Ok(NodeBuilder::new(name.into_name()?))
    }

    pub(crate) async fn start(builder: NodeBuilder) -> Result<Self, StartError> {
        let cookies = builder.cookie.ok_or(StartError::NoCookie)?;
        let cookie = cookies.current().clone();
        let keys = Arc::new(Keys::new(builder.peers, cookies));
        let native = Native::new(builder.name.clone(), builder.limits);
        let certificates = Certificates::default();
        let unusable = |what: &str| {
            let what = what.to_owned();
            move |cause| StartError::Tls { what, cause }
        };
        let mut sockets = Vec::new();
        for listen in &builder.listen {
            let what = format!("listener {}", listen.address);
            let tls = certificates.server(what.clone(), &listen.tls).map_err(unusable(&what))?;
            sockets.push(bind(&builder.name, listen, tls, &builder.limits, keys.clone())?);
        }
        let mut profiles = BTreeMap::new();
        for (id, profile) in &builder.profiles {
            let what = format!("profile {id}");
            profiles.insert(id.clone(), certificates.client(what.clone(), profile).map_err(unusable(&what))?);
        }
        let no_profile = ClientTls::new(&TlsProfile::default().no_roots());
        let no_profile = no_profile.map_err(|cause| unusable("default")(cause.into()))?;

        let embedded = match &builder.registrar {
            RegistrarChoice::Embedded { listen, serve: true } => {
                let started = Embedded::start(
                    native.clone(),
                    *listen,
                    cookie.clone(),
                    builder.limits,
                    registrar_credentials(keys.clone()),
                );
                Some(started.map_err(|cause| StartError::RegistrarListen { address: *listen, cause })?)
            }
            RegistrarChoice::Embedded { listen, serve: false } => {
                Some(Embedded::client(native.clone(), *listen, cookie.clone(), builder.limits))
            }
            _ => None,
        };
        let embedded = embedded.map(Arc::new);
        let mut discovery = Vec::new();
        let registrar: Option<(ResolverId, Arc<dyn Registrar>)> = match builder.registrar {
            RegistrarChoice::Embedded { .. } => ResolverId::new(EMBEDDED).ok().zip(embedded.clone().map(|e| e as _)),
            RegistrarChoice::Own(id, registrar) => Some((id, registrar)),
            RegistrarChoice::Ask(id) => {
                discovery.push(id);
                None
            }
            RegistrarChoice::None => None,
        };
        let mut resolvers = builder.resolvers;
        for (id, address, own) in builder.registrars {
            let cookie = own.unwrap_or_else(|| cookie.clone());
            resolvers.insert(id, Arc::new(RegistrarAt::new(native.clone(), address, cookie)));
        }
        if let Some(id) = discovery.iter().find(|id| !resolvers.contains_key(id)) {
            return Err(StartError::UnknownResolver(id.clone()));
        }
        if let Some((id, registrar)) = &registrar {
            resolvers.insert(id.clone(), registrar.resolver());
            discovery.push(id.clone());
        }
        let routes = RouteTable::new();
        routes.set_known(resolvers.keys().cloned(), profiles.keys().cloned());
        routes.edit(|table| {
            for (pattern, route, weight) in builder.routes {
                table
                    .add(&pattern, route, weight)
                    .map_err(|cause| StartError::Route { pattern: pattern.clone(), cause })?;
            }
            Ok::<_, StartError>(())
        })?;

        let inner = Arc::new(Inner {
            name: builder.name.clone(),
            native: native.clone(),
            directory: Arc::default(),
            registry: Registry::new(builder.name.clone()),
            resolvers,
            discovery,
            routes,
            kept: Kept::default(),
            keys,
            defaults: Defaults {
                cookie,
                tls: builder.tls,
                version: builder.version,
                flags: builder.flags,
                log_level: builder.log_level,
                reconnect: builder.reconnect,
            },
            policy: builder.policy,
            times: builder.times,
            memory: Mutex::default(),
            profiles,
            certificates,
            no_profile,
            platform: std::sync::OnceLock::new(),
            events: broadcast::Sender::new(CAPACITY),
            links: Mutex::default(),
            draining: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            own_addresses: sockets.iter().map(|(_, address)| *address).collect(),
        });
        let (mut listeners, mut listening, mut endpoints) = (JoinSet::new(), Vec::new(), Vec::new());
        for (listen, (socket, address)) in builder.listen.iter().zip(sockets) {
            listening.push(address);
            endpoints.extend(announced(listen, address, &builder.name));
            let node = Arc::downgrade(&inner);
            listeners.spawn(socket.serve(native.clone(), move |offered| {
                let node = node.upgrade();
                async move {
                    if let Some(node) = node {
                        decide(node, offered).await;
                    }
                }
            }));
        }
        if !inner.certificates.is_empty() {
            listeners.spawn(follow_certificates(Arc::downgrade(&inner), builder.certificate_check));
        }
        let handle = Handle { inner, listeners: Mutex::new(listeners), listening, lease: Mutex::default(), embedded };
        let node = Self { handle: Arc::new(handle) };
        if let Some((_, registrar)) = registrar.filter(|_| !builder.hidden && !endpoints.is_empty()) {
            let lease = registrar.register(Registration { name: builder.name, endpoints }).await?;
            *node.lease() = Some(lease);
        }
        Ok(node)
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    fn lease(&self) -> MutexGuard<'_, Option<Box<dyn Lease>>> {
        self.handle.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's name.
    pub fn name(&self) -> &NodeName {
        &self.inner().name
    }

    /// Where it listens, in the order given to the builder, with the ports that were free.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.handle.listening
    }

    /// Adds a static route. Higher weights are tried earlier; equal ones in the order added.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add_route(&self, pattern: &str, route: impl Into<NetworkRoute>, weight: i64) -> Result<(), AddError> {
        self.inner().routes.add(pattern, route, weight)
    }

    /// Removes the route with exactly this pattern. A live connection stays up; the next attempt does not see the
    /// route any more.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_route(&self, pattern: &str) -> Result<(), RemoveError> {
        self.inner().routes.remove(pattern)
    }

    /// Takes a route out of use without cutting what runs over it: it is removed, and every connection over it moves to
    /// the best other way there is, keeping the order of its messages. Where there is none the connection stays.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub async fn drain_route(&self, pattern: &str) -> Result<Drained, RemoveError> {
        self.remove_route(pattern)?;
        Ok(self.vacate_route(pattern).await)
    }

    /// The second half of [`Node::drain_route`], for a route that was removed already: moves the connections that were
    /// dialled over it.
    pub async fn vacate_route(&self, pattern: &str) -> Drained {
        let inner = self.inner();
        let mut drained = Drained::default();
        for (name, live) in inner.registry.links() {
            let info = live.link.info();
            if info.role != Role::Initiator || info.route.as_deref() != Some(pattern) {
                continue;
            }
            let demand = Demand { not: Some(info.id), ..Demand::default() };
            match inner.connect(name.clone(), demand).await {
                Ok(_) => drained.moved.push(name),
                Err(error) => drained.kept.push((name, error)),
            }
        }
        drained
    }

    /// Makes many changes to the static routes at once, or none when the closure fails.
    ///
    /// # Errors
    /// The closure's.
    pub fn edit_routes<T, E>(&self, change: impl FnOnce(&mut RouteEdit<'_>) -> Result<T, E>) -> Result<T, E> {
        self.inner().routes.edit(change)
    }

    /// The static routes as they stand, in order.
    pub fn routes(&self) -> Arc<PatternIndex<NetworkRoute>> {
        self.inner().routes.snapshot()
    }

    /// The static routes that match a name, best first. Opens nothing and asks nobody.
    ///
    /// # Errors
    /// [`NoRoute`] when none matches.
    pub fn route(&self, name: &NodeName) -> Result<Vec<Candidate>, NoRoute> {
        let found = self.inner().routes.matching(name);
        if found.is_empty() {
            return Err(NoRoute { target: name.clone(), reason: Reason::NoCandidate, attempts: Vec::new() });
        }
        Ok(found)
    }

    /// What a connect to this name would try, in order, asking nobody.
    pub fn explain(&self, name: &NodeName) -> Explanation {
        let inner = self.inner();
        let live = inner.registry.get(name);
        let demand = Demand::default();
        let plan = Plan::new(inner.lookup(name, &demand), now());
        let steps = plan.preview(now());
        let static_only = !steps.iter().any(|s| matches!(s.origin, trunkline_route::Origin::Discovered { .. }));
        Explanation {
            target: name.clone(),
            live_satisfies: live.as_ref().is_some_and(|live| inner.satisfies(name, &demand, live)),
            live: live.map(|live| live.link.info().clone()),
            steps,
            static_only,
        }
    }

    /// The connection to a name: the live one if it satisfies the name's best route, else a new one. Concurrent
    /// calls share one dial. Dropping the future takes this caller out; the last one cancels the dial.
    ///
    /// # Errors
    /// [`ConnectError`], `NoRoute` with every attempt made.
    pub async fn connect(&self, name: impl IntoName) -> Result<Connection, ConnectError> {
        self.connect_by(name.into_name()?, Demand::default()).await
    }

    /// As [`Node::connect`], as if nothing had failed of late: what a person does who just mended something.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn dial_now(&self, name: impl IntoName) -> Result<Connection, ConnectError> {
        self.connect_by(name.into_name()?, Demand { afresh: true, ..Demand::default() }).await
    }

    /// As [`Node::connect`], in a shorter time than a lookup may take.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn connect_within(&self, name: impl IntoName, time: Duration) -> Result<Connection, ConnectError> {
        self.connect_by(name.into_name()?, Demand { within: Some(time), ..Demand::default() }).await
    }

    /// As [`Node::connect`], over this route and no other.
    ///
    /// # Errors
    /// As [`Node::connect`], and [`AddError`] when the route names something the node does not have.
    pub async fn connect_with(
        &self,
        name: impl IntoName,
        route: impl Into<NetworkRoute>,
    ) -> Result<Connection, ConnectError> {
        let route = route.into();
        self.inner().routes.check(&route)?;
        self.connect_by(name.into_name()?, Demand { given: Some(route), ..Demand::default() }).await
    }

    async fn connect_by(&self, name: NodeName, demand: Demand) -> Result<Connection, ConnectError> {
        self.inner().kept.forgive(&name);
        let live = self.inner().connect(name, demand).await?;
        Ok(Connection { slot: live.slot() })
    }

    /// The connection that `send` and `call` use: one that is to stay down is not dialled for them.
    async fn in_use(&self, name: NodeName) -> Result<Connection, ConnectError> {
        if self.inner().kept.has_lapsed(&name) {
            return Err(ConnectError::Lapsed(name));
        }
        self.connect_by(name, Demand::default()).await
    }

    /// The live connection to a name, whoever dialled it.
    pub fn connection(&self, name: &NodeName) -> Option<Connection> {
        self.inner().registry.get(name).map(|live| Connection { slot: live.slot() })
    }

    /// Every live connection, sorted by name.
    pub fn nodes(&self) -> Vec<(LinkInfo, LinkStats)> {
        let links = self.inner().registry.links();
        links.into_iter().map(|(_, live)| (live.link.info().clone(), live.link.stats())).collect()
    }

    /// Makes a mailbox that peers reach by this name. Names that begin with `$` are the node's own.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken or not 1 to 255 bytes.
    pub fn register(&self, service: &str) -> Result<Mailbox, RegisterError> {
        if service.starts_with('$') {
            return Err(RegisterError::Taken { name: service.into() });
        }
        self.inner().directory.register(service)
    }

    /// Connects if need be and sends a message; see [`Connection::send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send(&self, name: impl IntoName, service: &str, body: &[u8]) -> Result<(), SendError> {
        let name = name.into_name().map_err(ConnectError::from)?;
        let connection = self.in_use(name.clone()).await?;
        match connection.send(service, "", body).await {
            // It went down under our hands and took nothing: once more, over a new one.
            Err(LinkSendError::Down(_) | LinkSendError::Draining) => {
                Ok(self.in_use(name).await?.send(service, "", body).await?)
            }
            result => Ok(result?),
        }
    }

    /// Connects if need be, calls a service and waits for its answer, at most `deadline` in all.
    ///
    /// # Errors
    /// [`CallError`] says whether the service may have seen the call.
    pub async fn call(
        &self,
        name: impl IntoName,
        service: &str,
        body: &[u8],
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let name = name.into_name().map_err(ConnectError::from)?;
        let until = now() + deadline;
        let left = || until.saturating_duration_since(now());
        let whole = async {
            let connection = self.in_use(name.clone()).await?;
            match connection.call(service, "", body, left()).await {
                Err(LinkCallError::NotSent(LinkSendError::Down(_) | LinkSendError::Draining)) => {
                    let connection = self.in_use(name.clone()).await?;
                    Ok(connection.call(service, "", body, left()).await?)
                }
                result => Ok(result?),
            }
        };
        tokio::time::timeout(deadline, whole).await.unwrap_or(Err(LinkCallError::TimedOut(deadline).into()))
    }

    /// Connects if need be and measures one round trip to the peer's node.
    ///
    /// # Errors
    /// [`CallError`]; an answer of any kind is a success.
    pub async fn ping(&self, name: impl IntoName, deadline: Duration) -> Result<(Connection, Duration), CallError> {
        let connection = self.connect(name).await?;
        let began = now();
        match connection.call(PING_SERVICE, "", &[], deadline).await {
            Ok(_) | Err(LinkCallError::NoService) => Ok((connection, now() - began)),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at the certificate files now, and gives what changed. Connections that are up stay up. Reads files.
    pub fn reload_certificates(&self) -> Vec<Reloaded> {
        self.inner().look_at_certificates(true)
    }

    /// What happens on this node from now on.
    pub fn events(&self) -> Events {
        Events(self.inner().events.subscribe())
    }

    /// Forgets what failed of late: the next lookup tries in the plain order.
    pub fn forget_failures(&self) {
        self.inner().memory().clear();
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let (inner, embedded) = (self.inner(), &self.handle.embedded);
        NodeStatus {
            name: inner.name.clone(),
            listening: self.handle.listening.clone(),
            services: inner.directory.names().iter().map(ToString::to_string).collect(),
            connections: inner.registry.links().len(),
            routes: inner.routes.snapshot().len(),
            registered: self.lease().as_ref().map(|lease| lease.is_held()),
            serves_registrar: embedded.as_ref().is_some_and(|e| e.serves()),
            registrar_queries: embedded.as_ref().map_or(0, |e| e.queries()),
        }
    }

    /// Leaves: the announcement is taken back, nobody new is let in, both ends of every connection finish what is
    /// queued and the calls under way; what has not finished within `grace` is cut.
    pub async fn shut_down(self, grace: Duration) -> ShutDownReport {
        let inner = self.inner();
        inner.shutting_down.store(true, Ordering::Release);
        *self.lease() = None;
        let mut listeners = std::mem::take(&mut *self.handle.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        // Waited for, so that the addresses are free when this returns.
        listeners.shutdown().await;
        let mut links: Vec<Link> = inner.registry.links().into_iter().map(|(_, live)| live.link).collect();
        {
            let draining = inner.draining.lock().unwrap_or_else(PoisonError::into_inner);
            links.extend(draining.values().flatten().filter(|elder| elder.down().is_none()).cloned());
        }
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
        inner.directory.close();
        let mut tasks = std::mem::take(&mut *inner.links.lock().unwrap_or_else(PoisonError::into_inner));
        // The last words are on their way; a peer that does not take them is not waited for.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), async { while tasks.join_next().await.is_some() {} }).await;
        ShutDownReport { drained: links.len() - cut, cut }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", self.name()).field("listening", &self.listening()).finish_non_exhaustive()
    }
}

/// Takes up certificates whose files change, for as long as the node lives.
async fn follow_certificates(node: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(node) = node.upgrade() else { return };
        // It reads files; a panic in it is a bug that must not end the following.
        let _ = tokio::task::spawn_blocking(move || node.look_at_certificates(false)).await;
    }
}

fn bind(
    name: &NodeName,
    listen: &Listen,
    tls: ServerTls,
    limits: &trunkline_link::NativeLimits,
    keys: Arc<Keys>,
) -> Result<(Listener, SocketAddr), StartError> {
    let address = listen.address;
    let credentials = credentials(name, listen, keys);
    let socket = Listener::bind(address, Mode::Node, tls, limits.gate, credentials);
    let socket = socket.map_err(|cause| StartError::Listen { address, cause })?;
    let bound = socket.local_addr().map_err(|cause| StartError::Listen { address, cause })?;
    Ok((socket, bound))
}

/// What a listener is announced as: its address, or the host of the node's name when it listens everywhere.
fn announced(listen: &Listen, bound: SocketAddr, name: &NodeName) -> Option<Endpoint> {
    let address = match &listen.advertise {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() => Address::new(name.host(), bound.port()).ok()?,
        None => Address::new(bound.ip().to_string(), bound.port()).ok()?,
    };
    // Whether a certificate is checked is the caller's business: its route says so.
    Some(Endpoint { address, tls: None, version: Some(Version::native(1)) })
}
