//! What the tasks and handles of a node share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use trunkline_dial::exec::{self, Found};
use trunkline_dial::memory::Memory;
use trunkline_dial::pair::Retire;
use trunkline_dial::plan::{Lookup, Policy};
use trunkline_dial::sessions::{ConnectRequest, Keys, Routing};
use trunkline_dial::{NoRoute, Reason, Registry, RouteTable};
use trunkline_link::{DialTimes, DownHook, Hold, Native};
use trunkline_registrar::Resolver;
use trunkline_route::{Chain, CloseCode, Defaults, NodeName, ResolverId, TlsMode, TlsProfileId, later};
use trunkline_stack::{Down, LinkInfo, LocalLink, Mailboxes, log_connection};
use trunkline_tls::{Certificates, ClientTls, Expiring, Reloaded, TlsError, TlsProfile};

use crate::connection::Session;
use crate::events::Event;
use crate::kept::Kept;
use crate::peer_log::PeerLog;
use crate::ports::NodePorts;
use crate::processes::Processes;
use crate::proxy::Proxy;
use crate::services::Services;
use crate::{ConnectError, Connection};

/// What a connect may take beyond its budget to settle whose dial stands.
const SETTLE: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "the node is the shell that brings the time")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "certificates are for a time of the calendar")]
fn today() -> SystemTime {
    SystemTime::now()
}

/// Returns what a new link's messages wait for: that each of these older links delivered its last.
pub(crate) fn hold_for(elders: Vec<Session>) -> Option<Hold> {
    if elders.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        for elder in elders {
            elder.link.inbound_done().await;
        }
    }))
}

/// What the node's tasks share. It holds no task that holds it, but through [`Handle`], which ends them all.
pub(crate) struct Inner {
    pub(crate) name: NodeName,
    pub(crate) native: Arc<Native>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) registry: Arc<Registry<Session>>,
    /// Link of the node to itself, and its place as a connection.
    pub(crate) local: Arc<LocalLink>,
    pub(crate) own: Session,
    pub(crate) resolvers: BTreeMap<ResolverId, Arc<dyn Resolver>>,
    pub(crate) discovery: Vec<ResolverId>,
    pub(crate) routes: RouteTable,
    pub(crate) kept: Kept,
    pub(crate) services: Services,
    pub(crate) proxy: Proxy,
    pub(crate) processes: Arc<Processes>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) defaults: Defaults,
    pub(crate) policy: Policy,
    pub(crate) times: DialTimes,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) profiles: BTreeMap<TlsProfileId, ClientTls>,
    pub(crate) certificates: Certificates,
    pub(crate) no_profile: ClientTls,
    pub(crate) platform: std::sync::OnceLock<ClientTls>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) peer_log: PeerLog,
    pub(crate) links: Mutex<JoinSet<()>>,
    pub(crate) shutting_down: AtomicBool,
    /// The end of those who wait for the node to leave.
    pub(crate) leaving: watch::Sender<bool>,
    /// Where the tasks of the node run, whoever begins them.
    pub(crate) runtime: tokio::runtime::Handle,
    /// Nothing may be spawned any more.
    pub(crate) is_dropped: AtomicBool,
    pub(crate) own_addresses: Vec<SocketAddr>,
}

impl Inner {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Says that the node leaves; nothing new begins from here on.
    pub(crate) fn leave(&self) {
        self.shutting_down.store(true, Ordering::Release);
        self.leaving.send_replace(true);
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
        links.spawn_on(driver, &self.runtime);
    }

    /// A link that gave way has ended: what it lost is told.
    pub(crate) fn elder_down(&self, info: &LinkInfo, reason: &Down) {
        if !self.registry.elder_down(&info.peer, info.id) {
            return;
        }
        log_connection!(info, Info, "down", %reason);
        if !reason.is_normal() {
            log_connection!(info, Warn, "a replaced link broke before it was drained; messages on it may be lost", %reason);
            self.emit(Event::DrainBroken { peer: info.peer.clone(), reason: reason.clone() });
        }
    }

    /// A link that was left for one to another node is drained, until it goes down.
    pub(crate) fn drains(&self, left: &Session) {
        let info = left.link.info();
        self.registry.drains(&info.peer, left.clone());
        if left.link.down().is_some() {
            // Its end was told before it was among the elders.
            self.registry.elder_down(&info.peer, info.id);
        }
    }

    /// A link is up. One whose place it takes although that one was dead at the peer went down before.
    pub(crate) fn up(self: &Arc<Self>, info: &LinkInfo, old: Option<&(Session, Retire)>) {
        if let Some((old, _)) = old.filter(|(_, retire)| !retire.alive) {
            let (peer, reason) = (old.link.info().peer.clone(), Down::ClosedHere(CloseCode::Superseded));
            log_connection!(old.link.info(), Info, "down", %reason);
            self.processes.node_down(self, &peer, &reason);
            self.emit(Event::Down { peer: peer.clone(), reason });
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
        self.kept.up(self, info);
        self.emit(Event::Up(info.clone()));
    }

    pub(crate) fn on_down(self: &Arc<Self>, info: LinkInfo) -> DownHook {
        let node = Arc::downgrade(self);
        Box::new(move |reason, going| {
            let Some(node) = node.upgrade() else { return };
            let peer = &info.peer;
            if node.registry.down(peer, info.id) {
                log_connection!(&info, Info, "down", %reason);
                // Whoever sees the event finds it done.
                node.kept.down(&node, &info, reason, going);
                node.processes.node_down(&node, peer, reason);
                node.emit(Event::Down { peer: peer.clone(), reason: reason.clone() });
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

    pub(crate) fn look_at_certificates(&self, at_once: bool) -> Vec<Reloaded> {
        let done = self.certificates.look(at_once);
        for Reloaded { what, error } in done.iter().cloned() {
            match error {
                None => {
                    tracing::info!(what, "certificates reloaded");
                    self.emit(Event::CertificatesReloaded { what });
                }
                Some(error) => {
                    tracing::warn!(what, error = %Chain(&error), "changed certificates cannot be used; those before are kept");
                    self.emit(Event::CertificatesKept { what, error });
                }
            }
        }
        let today = today();
        for Expiring { what, expires, is_over } in self.certificates.expiring(today) {
            let days = expires.duration_since(today).unwrap_or_default().as_secs() / 86_400;
            match is_over {
                false => tracing::warn!(what, days, "the certificate expires soon; put a newer one into its files"),
                true => tracing::error!(what, "the certificate has expired; put a newer one into its files"),
            }
            self.emit(Event::CertificateExpires { what, expires });
        }
        done
    }

    /// The view of the node that decides about routes.
    pub(crate) fn routing(&self) -> Routing<'_> {
        let Self { routes, discovery, defaults, policy, keys, .. } = self;
        Routing { routes, discovery, defaults, policy, keys }
    }

    pub(crate) fn lookup(&self, name: &NodeName, demand: &ConnectRequest) -> Lookup {
        self.routing().lookup(name, demand, || self.memory().clone())
    }

    /// Returns true if a live link is what the routes of its name and the caller demand. The answer for a caller without
    /// demands of its own holds as long as the generation of the routes.
    pub(crate) fn satisfies(&self, name: &NodeName, demand: &ConnectRequest, live: &Session) -> bool {
        let judge = || live.link.is_open() && self.routing().satisfies(name, demand, live.facts());
        if !demand.is_of_routes_alone() {
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

    /// The table of routes was edited: connections may have better ones to go back to.
    pub(crate) fn routes_changed(self: &Arc<Self>) {
        for (_, live) in self.registry.links() {
            self.kept.watch(self, live.link.info());
        }
    }
}

impl Inner {
    /// Returns the live link to a name; to the node itself there is always one.
    pub(crate) fn connected(&self, name: &NodeName) -> Option<Session> {
        if *name == self.name { Some(self.own.clone()) } else { self.registry.get(name) }
    }

    /// A connection for somebody who asked for it.
    pub(crate) async fn connect_by(
        self: &Arc<Self>,
        name: NodeName,
        demand: ConnectRequest,
    ) -> Result<Connection, ConnectError> {
        self.kept.forgive(&name);
        let live = self.connect(name, demand).await?;
        Ok(Connection { slot: live.slot() })
    }

    /// The connection for somebody who only uses it: one that is to stay down is not dialled for that.
    pub(crate) async fn in_use(
        self: &Arc<Self>,
        name: &NodeName,
        demand: ConnectRequest,
    ) -> Result<Connection, ConnectError> {
        if demand.is_of_routes_alone()
            && let Some(connection) = self.satisfying(name)
        {
            return Ok(connection);
        }
        if self.connected(name).is_none() && self.kept.has_lapsed(name) {
            return Err(ConnectError::Lapsed(name.clone()));
        }
        self.connect_by(name.clone(), demand).await
    }

    /// The live connection to a name, if it is known to satisfy a caller without demands of its own. Nothing is looked up,
    /// and no lock is taken that callers of other names take too, but for those that share a part of the registry.
    fn satisfying(&self, name: &NodeName) -> Option<Connection> {
        // A name with a live link has not lapsed: nothing is to be forgiven.
        if self.is_shutting_down() {
            return None;
        }
        if *name == self.name {
            return Some(Connection { slot: self.own.slot() });
        }
        let generation = self.routes.generation();
        let slot = self.registry.inspect(name, |live| live.satisfied_in(generation).then(|| live.slot()));
        slot.flatten().map(|slot| Connection { slot })
    }

    pub(crate) async fn connect(
        self: &Arc<Self>,
        name: NodeName,
        demand: ConnectRequest,
    ) -> Result<Session, ConnectError> {
        if self.is_shutting_down() {
            return Err(ConnectError::ShuttingDown);
        }
        if name == self.name {
            return Ok(self.own.clone());
        }
        // One budget for all the dials of this call, should adopted links come to nothing.
        let total = demand.within.unwrap_or(self.policy.total).min(self.policy.total);
        let deadline = later(now(), total);
        let dial = {
            // The flight must not keep the node alive; its callers do.
            let (node, name, demand) = (Arc::downgrade(self), name.clone(), demand.clone());
            let leaves = demand.leaves();
            move |flight, replace| {
                let (node, name, demand) = (node.clone(), name.clone(), demand.clone());
                async move {
                    let Some(node) = node.upgrade() else { return Ok(Found::Adopt) };
                    let mut lookup = node.lookup(&name, &demand);
                    lookup.policy.total = deadline.saturating_duration_since(now());
                    exec::run(Arc::new(NodePorts { node, flight, replace, leaves }), lookup).await
                }
            }
        };
        let satisfies = |live: &Session| self.satisfies(&name, &demand, live);
        let aim = demand.aim(total);
        let connect = self.registry.connect(&name, &aim, satisfies, dial);
        // The lookup ends by itself with every attempt on record; this bounds the waits for links of other dials.
        match tokio::time::timeout_at(later(deadline, SETTLE).into(), connect).await {
            Ok(live) => Ok(live?),
            Err(_) => Err(NoRoute { target: name.clone(), reason: Reason::OutOfTime, attempts: Vec::new() }.into()),
        }
    }
}
