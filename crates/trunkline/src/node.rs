use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use trunkline_dial::plan::{Plan, Preview};
use trunkline_dial::sessions::{ConnectRequest, Keys};
use trunkline_dial::{AddError, Candidate, NoRoute, Reason, Registry, RemoveError, RouteEdit, RouteTable};
use trunkline_forward::Services;
use trunkline_link::{Listener, Native};
use trunkline_matcher::{AccessPattern, PatternIndex};
use trunkline_process::Pid;
use trunkline_proxy::{CircuitLimits, Proxied, Transit};
use trunkline_registrar::{Lease, Registrar, Registration};
use trunkline_registrar_embedded::{Embedded, RegistrarAt};
use trunkline_route::{
    Address, CloseCode, Defaults, Endpoint, IntoName, NameError, NetworkRoute, NodeName, Origin, PeerFlags, ProxyRoute,
    ResolverId, Role, Version, later,
};
use trunkline_stack::{
    CallError as LinkCallError, Link, LinkInfo, LinkStats, LocalLimits, LocalLink, Mailbox, Mailboxes, PeerLog,
    RegisterError, SendError as LinkSendError,
};
use trunkline_tls::{Certificates, ClientTls, Reloaded, ServerTls, TlsProfile};
use trunkline_wire::gate::GateStats;
use trunkline_wire::handshake::Mode;

use crate::builder::{Listen, NodeBuilder, RegistrarChoice};
use crate::connection::Session;
use crate::events::{CAPACITY, Events};
use crate::inbound::{credentials, decide, listener_credentials, registrar_credentials};
use crate::inner::{Inner, now};
use crate::kept::{Kept, PendingFailback};
use crate::processes::{self, Processes};
use crate::proxy::{Proxy, read};
use crate::services;
use crate::{CallError, ConnectError, Connection, PING_SERVICE, SendError, StartError};

/// The id of the embedded registrar in routes.
const EMBEDDED: &str = "embedded";

/// The last handle of a node ends everything that runs for it.
pub(crate) struct Handle {
    pub(crate) inner: Arc<Inner>,
    listeners: Mutex<JoinSet<()>>,
    listening: Vec<SocketAddr>,
    lease: Mutex<Option<Box<dyn Lease>>>,
    embedded: Option<Arc<Embedded>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.leave();
        self.inner.is_dropped.store(true, Ordering::Release);
        self.inner.links.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.inner.processes.stop_all();
        self.inner.mailboxes.close();
        self.inner.local.shut_down();
    }
}

/// A node: it has a name, reaches other nodes by theirs, and is reached by its own.
///
/// Clones share it. When the last is dropped every task and socket of the node goes as soon as the runtime gets to it;
/// to let peers finish, and to find the addresses free afterwards, call [`Node::shut_down`].
#[derive(Clone)]
pub struct Node {
    pub(crate) handle: Arc<Handle>,
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
    /// Live processes, in the order they began.
    pub processes: Vec<Pid>,
    /// What peers may begin here, by name.
    pub spawns: Vec<String>,
    /// Its applications, and the processes of those that run.
    pub applications: Vec<(String, Vec<Pid>)>,
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
    /// Connections it passes on between others now.
    pub circuits: usize,
    /// Bytes it has passed on so far.
    pub carried: u64,
    /// Callers before authentication, of all listeners together.
    pub strangers: GateStats,
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
        if let Some(error) = builder.refused {
            return Err(error);
        }
        let cookies = builder.cookie.ok_or(StartError::NoCookie)?;
        let cookie = cookies.current().clone();
        let keys = Arc::new(Keys::new(builder.peers, cookies));
        let native = Native::new(builder.name.clone(), builder.limits);
        let certificates = Certificates::default();
        let unusable = |what: &str| {
            let what = what.to_owned();
            move |cause| StartError::Tls { what, cause }
        };
        let (mut sockets, mut inside) = (Vec::new(), None::<ServerTls>);
        for listen in &builder.listen {
            let what = format!("listener {}", listen.address);
            let tls = certificates.server(what.clone(), &listen.tls).map_err(unusable(&what))?;
            // Who comes through others meets the listener that demands most; of equals, the first.
            if inside.as_ref().is_none_or(|strictest| strictest.client_auth() < tls.client_auth()) {
                inside = Some(tls.clone());
            }
            sockets.push(bind(&builder.name, listen, tls, keys.clone())?);
        }
        let inside = match inside {
            Some(tls) => tls,
            None => ServerTls::ephemeral().map_err(|cause| unusable("default")(cause.into()))?,
        };
        let proxied = Arc::new(RwLock::new(builder.proxied));
        let (may_come, listeners) = (proxied.clone(), allowed_by_listeners(&builder.listen));
        let leads_to = builder.transit.rules.iter().map(|rule| rule.to.clone()).collect();
        let proxy = Proxy::new(
            builder.transit,
            proxied,
            builder.circuits,
            inside,
            credentials(&builder.name, move |from| read(&may_come).allows(from, &listeners), None, keys.clone()),
        );
        let mut profiles = BTreeMap::new();
        for (id, profile) in &builder.profiles {
            let what = format!("profile {id}");
            profiles.insert(id.clone(), certificates.client(what.clone(), profile).map_err(unusable(&what))?);
        }
        let no_profile = ClientTls::new(&TlsProfile::default().no_roots());
        let no_profile = no_profile.map_err(|cause| unusable("default")(cause.into()))?;

        let choice = builder.registrar.unwrap_or_else(|| match builder.discovery.is_empty() {
            true => RegistrarChoice::Embedded { listen: crate::default_registrar(), serve: true },
            false => RegistrarChoice::None,
        });
        let embedded = match &choice {
            RegistrarChoice::Embedded { listen, serve: true } => {
                let started =
                    Embedded::start(native.clone(), *listen, cookie.clone(), registrar_credentials(keys.clone()));
                Some(started.map_err(|cause| StartError::RegistrarListen { address: *listen, cause })?)
            }
            RegistrarChoice::Embedded { listen, serve: false } => {
                Some(Embedded::client(native.clone(), *listen, cookie.clone()))
            }
            _ => None,
        };
        let embedded = embedded.map(Arc::new);
        let mut discovery = builder.discovery;
        let registrar: Option<(ResolverId, Arc<dyn Registrar>)> = match choice {
            RegistrarChoice::Embedded { .. } => ResolverId::new(EMBEDDED).ok().zip(embedded.clone().map(|e| e as _)),
            RegistrarChoice::Own(id, registrar) => Some((id, registrar)),
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
        routes.edit_proxies(|table| {
            for (pattern, route, weight) in builder.proxy_routes {
                table.add(&pattern, route, weight).map_err(|cause| StartError::Route { pattern, cause })?;
            }
            Ok::<_, StartError>(())
        })?;

        let mailboxes = Arc::new(Mailboxes::default());
        let window = builder.limits.window;
        let local = LocalLink::start(
            LinkInfo::local(builder.name.clone(), native.incarnation(), cookie.clone()),
            mailboxes.clone(),
            LocalLimits { mailbox: window.mailbox, max_message: window.max_message },
        );
        let inner = Arc::new_cyclic(|own: &Weak<Inner>| Inner {
            name: builder.name.clone(),
            native: native.clone(),
            mailboxes,
            own: Session::new(local.link()),
            local,
            registry: Registry::new(builder.name.clone()),
            resolvers,
            discovery,
            routes,
            kept: Kept::default(),
            services: Services::new(own.clone()),
            proxy,
            processes: Processes::new(builder.name.clone(), &native),
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
            peer_log: PeerLog::default(),
            links: Mutex::default(),
            shutting_down: AtomicBool::new(false),
            leaving: watch::Sender::new(false),
            runtime: tokio::runtime::Handle::current(),
            is_dropped: AtomicBool::new(false),
            own_addresses: sockets.iter().map(|(_, address)| *address).collect(),
        });
        services::receive(&inner);
        let (mut listeners, mut listening, mut endpoints) = (JoinSet::new(), Vec::new(), Vec::new());
        for (listen, (socket, address)) in builder.listen.iter().zip(sockets) {
            listening.push(address);
            // Several listeners may be announced as one address.
            endpoints
                .extend(announced(listen, address, &builder.name).filter(|endpoint| !endpoints.contains(endpoint)));
            let node = Arc::downgrade(&inner);
            listeners.spawn(socket.serve(native.clone(), move |offered| {
                let node = node.upgrade();
                async move {
                    if let Some(node) = node {
                        decide(node, offered, PeerFlags::ALL).await;
                    }
                }
            }));
        }
        if !inner.certificates.is_empty() {
            listeners.spawn(follow_certificates(Arc::downgrade(&inner), builder.certificate_check));
        }
        let handle = Handle { inner, listeners: Mutex::new(listeners), listening, lease: Mutex::default(), embedded };
        let node = Self { handle: Arc::new(handle) };
        let serving = processes::serve(Arc::downgrade(&node.handle), node.inner());
        node.inner().spawn(serving.expect("nobody else has a service of that name"));
        if let Some((_, registrar)) = registrar.filter(|_| !builder.hidden && !endpoints.is_empty()) {
            let lease = registrar.register(Registration::new(builder.name, endpoints).leading_to(leads_to)).await?;
            *node.lease() = Some(lease);
        }
        Ok(node)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
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
        let route = route.into();
        let may_be_better = route.failback().is_some();
        self.inner().routes.add(pattern, route, weight)?;
        if may_be_better {
            self.inner().routes_changed();
        }
        Ok(())
    }

    /// Removes the route with exactly this pattern. A live connection stays up; the next attempt does not see the
    /// route any more.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_route(&self, pattern: &str) -> Result<(), RemoveError> {
        self.inner().routes.remove(pattern)
    }

    /// Adds a proxy route: what is tried when no direct way leads to a name. The table is one of its own.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add_proxy_route(&self, pattern: &str, route: ProxyRoute, weight: i64) -> Result<(), AddError> {
        self.inner().routes.add_proxy(pattern, route, weight)
    }

    /// Removes the proxy route with exactly this pattern. Live connections stay up.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_proxy_route(&self, pattern: &str) -> Result<(), RemoveError> {
        self.inner().routes.remove_proxy(pattern)
    }

    /// As [`Node::edit_routes`], the proxy routes.
    ///
    /// # Errors
    /// The closure's.
    pub fn edit_proxy_routes<T, E>(
        &self,
        change: impl FnOnce(&mut RouteEdit<'_, ProxyRoute>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner().routes.edit_proxies(change)
    }

    /// Passes this on between others from now on, and so much; what goes through this node already stays. What was announced
    /// to the registrar at the start stays announced.
    pub fn set_transit(&self, transit: Transit, limits: CircuitLimits) {
        self.inner().proxy.set_transit(transit, limits);
    }

    /// Lets these come through others from now on; who is here already stays.
    pub fn set_proxied(&self, proxied: Proxied) {
        self.inner().proxy.set_proxied(proxied);
    }

    /// The proxy routes as they stand, in order.
    pub fn proxy_routes(&self) -> Arc<PatternIndex<ProxyRoute>> {
        self.inner().routes.proxies()
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
        self.vacate(pattern, false).await
    }

    /// As [`Node::drain_route`], a proxy route: what goes through its gateway by it moves to another way. Streams that are
    /// open stay on the connection that gave way until they end.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub async fn drain_proxy_route(&self, pattern: &str) -> Result<Drained, RemoveError> {
        self.remove_proxy_route(pattern)?;
        Ok(self.vacate_proxy_route(pattern).await)
    }

    /// The second half of [`Node::drain_proxy_route`], for one that was removed already.
    pub async fn vacate_proxy_route(&self, pattern: &str) -> Drained {
        self.vacate(pattern, true).await
    }

    /// Both tables may have the same pattern.
    async fn vacate(&self, pattern: &str, proxied: bool) -> Drained {
        let inner = self.inner();
        let mut drained = Drained::default();
        for (name, live) in inner.registry.links() {
            let info = live.link.info();
            let is_by_it = info.route.as_deref() == Some(pattern) && info.via.is_some() == proxied;
            if info.role != Role::Initiator || !is_by_it {
                continue;
            }
            let demand = ConnectRequest { not: Some(info.id), ..ConnectRequest::default() };
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
        let changed = self.inner().routes.edit(change)?;
        self.inner().routes_changed();
        Ok(changed)
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
        if *name == inner.name {
            return Explanation {
                target: name.clone(),
                live_satisfies: true,
                live: Some(inner.own.link.info().clone()),
                steps: Vec::new(),
                static_only: false,
            };
        }
        let live = inner.registry.get(name);
        let demand = ConnectRequest::default();
        let plan = Plan::new(inner.lookup(name, &demand), now());
        let steps = plan.preview(now());
        let static_only =
            !steps.iter().any(|s| matches!(s.origin, Origin::Discovered { .. } | Origin::DiscoveredProxy { .. }));
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
        self.connect_by(name.into_name()?, ConnectRequest::default()).await
    }

    /// As [`Node::connect`], as if nothing had failed of late: what a person does who just mended something.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn dial_now(&self, name: impl IntoName) -> Result<Connection, ConnectError> {
        self.connect_by(name.into_name()?, ConnectRequest { afresh: true, ..ConnectRequest::default() }).await
    }

    /// As [`Node::connect`], in a shorter time than a lookup may take.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn connect_within(&self, name: impl IntoName, time: Duration) -> Result<Connection, ConnectError> {
        self.connect_by(name.into_name()?, ConnectRequest { within: Some(time), ..ConnectRequest::default() }).await
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
        self.connect_by(name.into_name()?, ConnectRequest { given: Some(route), ..ConnectRequest::default() }).await
    }

    async fn connect_by(&self, name: NodeName, demand: ConnectRequest) -> Result<Connection, ConnectError> {
        self.inner().connect_by(name, demand).await
    }

    /// The connection that `send` and `call` use: one that is to stay down is not dialled for them.
    pub(crate) async fn in_use(&self, name: &NodeName) -> Result<Connection, ConnectError> {
        self.inner().in_use(name, ConnectRequest::default()).await
    }

    /// Returns the live connection to a name, whoever dialled it; to the node's own name, the one without a socket.
    pub fn connection(&self, name: &NodeName) -> Option<Connection> {
        self.inner().connected(name).map(|live| Connection { slot: live.slot() })
    }

    /// Every live connection, sorted by name.
    pub fn nodes(&self) -> Vec<(LinkInfo, LinkStats)> {
        let links = self.inner().registry.links();
        links.into_iter().map(|(_, live)| (live.link.info().clone(), live.link.stats())).collect()
    }

    /// The routes that the live connection to a peer is to go back to, best first, and why it has not yet. Empty without a
    /// connection.
    pub fn pending_failbacks(&self, peer: &NodeName) -> Vec<PendingFailback> {
        let live = self.inner().registry.get(peer);
        live.map(|live| self.inner().pending_failbacks(live.link.info())).unwrap_or_default()
    }

    /// Makes a mailbox that peers reach by this name. Names that begin with `$` are the node's own.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken or not 1 to 255 bytes, or when the node has shut down.
    pub fn register(&self, service: &str) -> Result<Mailbox, RegisterError> {
        if service.starts_with('$') {
            return Err(RegisterError::Taken { name: service.into() });
        }
        self.inner().mailboxes.register(service)
    }

    /// Connects if need be and sends a message; see [`Connection::send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send(&self, name: impl IntoName, service: &str, body: &[u8]) -> Result<(), SendError> {
        let name = name.into_name().map_err(ConnectError::from)?;
        let connection = self.in_use(&name).await?;
        match connection.send(service, "", body).await {
            // It went down under our hands and took nothing: once more, over a new one.
            Err(LinkSendError::Down(_) | LinkSendError::Draining) => {
                Ok(self.in_use(&name).await?.send(service, "", body).await?)
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
        let until = later(now(), deadline);
        let left = || until.saturating_duration_since(now());
        let whole = async {
            let connection = self.in_use(&name).await?;
            match connection.call(service, "", body, left()).await {
                Err(LinkCallError::NotSent(LinkSendError::Down(_) | LinkSendError::Draining)) => {
                    let connection = self.in_use(&name).await?;
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
            services: inner
                .mailboxes
                .names()
                .iter()
                .filter(|name| !name.starts_with('$'))
                .map(ToString::to_string)
                .collect(),
            processes: self.processes(),
            spawns: self.spawns(),
            applications: self.applications(),
            connections: inner.registry.links().len(),
            circuits: inner.proxy.stats().0,
            carried: inner.proxy.stats().1,
            strangers: inner.native.gate_stats(),
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
        inner.leave();
        *self.lease() = None;
        let mut listeners = std::mem::take(&mut *self.handle.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        // Waited for, so that the addresses are free when this returns.
        listeners.shutdown().await;
        let mut links: Vec<Link> = inner.registry.links().into_iter().map(|(_, live)| live.link).collect();
        let elders = inner.registry.elders().into_iter().map(|elder| elder.link);
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
        inner.processes.stop_all();
        inner.mailboxes.close();
        inner.local.shut_down();
        inner.services.withdraw_all();
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
    keys: Arc<Keys>,
) -> Result<(Listener, SocketAddr), StartError> {
    let address = listen.address;
    let credentials = listener_credentials(name, listen, keys);
    let socket = Listener::bind(address, Mode::Node, tls, credentials);
    let socket = socket.map_err(|cause| StartError::Listen { address, cause })?;
    let bound = socket.local_addr().map_err(|cause| StartError::Listen { address, cause })?;
    Ok((socket, bound))
}

/// The names that each listener with a list allows.
fn allowed_by_listeners(listen: &[Listen]) -> Vec<Vec<AccessPattern>> {
    listen.iter().filter_map(|listen| listen.allow.clone()).collect()
}

/// What a listener is announced as: its address, or the host of the node's name when it listens everywhere.
fn announced(listen: &Listen, bound: SocketAddr, name: &NodeName) -> Option<Endpoint> {
    let address = match &listen.advertise {
        Some(address) => address.clone(),
        None if bound.ip().is_unspecified() => Address::new(name.host(), bound.port()).ok()?,
        None => bound.to_string().parse().ok()?,
    };
    // Whether a certificate is checked is the caller's business: its route says so.
    Some(Endpoint { address, tls: None, version: Some(Version::native(1)) })
}
