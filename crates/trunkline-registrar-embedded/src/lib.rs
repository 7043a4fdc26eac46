//! Embedded registrar, which needs no other process.
//!
//! The first node on a host binds the registrar's port and answers; every later node keeps a session with it. When the
//! first node stops, the sessions of the others end, and one of them binds the port in its place. A lookup goes to the
//! registrar on the host of the name: the local one for names with this node's host part, otherwise the one at the host
//! in the name, on the same port.
//!
//! Sessions are native links in handshake mode 3: encrypted, and proven by the node's cookie. They carry CALLs to
//! `$registrar` whose bodies are a version byte (1) and postcard, as
//! [the description of TLK/1](https://github.com/trunkline/trunkline/blob/main/docs/WIRE.md) says.

mod at;
mod client;
mod feed;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod server;
mod wire;
mod wrong_cookies;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use trunkline_link::{CredentialsFn, Native};
use trunkline_registrar::{
    BoxFuture, Feed, GivenRoute, Lease, Pause, RegisterError, Registrar, Registration, ResolveError, Resolver, Serving,
    Watch,
};
use trunkline_route::{Cause, Chain, Cookie, Endpoint, NodeName, ServiceName};
use trunkline_stack::first_of;

pub use at::RegistrarAt;
use client::{Session, Trouble, failed_at, most_telling};
use feed::{Source, Told, Warm};
pub use server::Grants;
use server::Table;
pub use wire::MAX_ROUTES;
use wrong_cookies::WrongCookies;

/// Default address of the embedded registrar.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:4499";
/// Time that the registrars of other hosts have to list their nodes.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// Maximum number of sessions with registrars of other hosts.
const MAX_REMOTE: usize = 32;

/// Embedded registrar of one node: server if the port was free, otherwise client of the node that has it.
pub struct Embedded {
    core: Arc<Core>,
}

struct Core {
    native: Arc<Native>,
    listen: SocketAddr,
    /// Credentials that sessions must prove, if this node may serve.
    serve: Option<Arc<CredentialsFn>>,
    cookie: Cookie,
    role: Mutex<Role>,
    local: Mutex<Option<Arc<Session>>>,
    /// Lock held while the local session is opened.
    opening: tokio::sync::Mutex<()>,
    remote: Mutex<HashMap<SocketAddr, RemoteSession>>,
    wrong: Mutex<WrongCookies>,
    table: Arc<Table>,
    feed: Arc<Feed>,
}

/// Session with a registrar of another host. The lock is held while it is opened, so that concurrent lookups share it,
/// and a registrar with another cookie gets only one guess for all of them.
type RemoteSession = Arc<tokio::sync::Mutex<Option<Arc<Session>>>>;

enum Role {
    Client,
    Server(AbortHandle),
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Role::Server(task) = &*self.role() {
            task.abort();
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl Embedded {
    /// Serves at `listen`, or becomes a client if another node serves there. This node's own sessions prove `cookie`;
    /// `credentials` returns what sessions with this node must prove while it serves.
    ///
    /// # Errors
    /// Errors of the operating system, except that the port is in use.
    pub fn start(
        native: Arc<Native>,
        listen: SocketAddr,
        cookie: Cookie,
        credentials: Box<CredentialsFn>,
    ) -> io::Result<Self> {
        Self::start_with(native, listen, cookie, credentials, Grants::default())
    }

    /// Starts as [`Embedded::start`] does; `grants` has what this node permits and hands out while it serves.
    ///
    /// # Errors
    /// As [`Embedded::start`].
    pub fn start_with(
        native: Arc<Native>,
        listen: SocketAddr,
        cookie: Cookie,
        credentials: Box<CredentialsFn>,
        grants: Grants,
    ) -> io::Result<Self> {
        let this = Self::new(native, listen, cookie, Some(Arc::from(credentials)), grants);
        this.core.try_serve()?;
        Ok(this)
    }

    /// Creates a client that only asks the registrar at `listen`, for short-lived nodes whose end must not affect
    /// others.
    pub fn client(native: Arc<Native>, listen: SocketAddr, cookie: Cookie) -> Self {
        Self::new(native, listen, cookie, None, Grants::default())
    }

    fn new(
        native: Arc<Native>,
        listen: SocketAddr,
        cookie: Cookie,
        serve: Option<Arc<CredentialsFn>>,
        mut grants: Grants,
    ) -> Self {
        grants.routes.truncate(MAX_ROUTES);
        let core = Arc::new(Core {
            native,
            listen,
            serve,
            cookie,
            role: Mutex::new(Role::Client),
            local: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            remote: Mutex::default(),
            wrong: Mutex::default(),
            table: Arc::new(Table::new(grants)),
            feed: Arc::default(),
        });
        Self { core }
    }

    /// Returns true if this node is the one that answers.
    pub fn serves(&self) -> bool {
        self.core.serves()
    }

    /// Returns the number of lookups answered by this node's server so far.
    pub fn queries(&self) -> u64 {
        self.core.table.queries.load(Ordering::Relaxed)
    }

    /// Returns the names announced at this node's server, sorted; empty if another node serves.
    pub fn names(&self) -> Vec<NodeName> {
        self.core.table.names()
    }
}

impl Source for Core {
    fn told(&self) -> BoxFuture<'_, Result<Told, Trouble>> {
        Box::pin(async move {
            let here = || Told::Here { watch: self.table.watch(), age: self.table.age() };
            if self.serves() {
                return Ok(here());
            }
            match Session::watch(&self.native, self.listen, &self.cookie, &self.wrong).await {
                Ok((session, mailbox, age)) => Ok(Told::There { session, mailbox, age }),
                // The serving node is gone, and this one may take over.
                Err(Trouble::Unreachable(_)) if matches!(self.try_serve(), Ok(true)) => Ok(here()),
                Err(trouble) => Err(trouble),
            }
        })
    }

    fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("listen", &self.listen).field("serves", &self.serves()).finish()
    }
}

impl Core {
    fn role(&self) -> MutexGuard<'_, Role> {
        self.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serves(&self) -> bool {
        matches!(&*self.role(), Role::Server(_))
    }

    /// Binds the port if it is free.
    fn try_serve(&self) -> io::Result<bool> {
        let Some(credentials) = &self.serve else { return Ok(false) };
        let mut role = self.role();
        if matches!(&*role, Role::Server(_)) {
            return Ok(true);
        }
        match server::bind(self.listen, credentials.clone()) {
            Ok(listener) => {
                let task = tokio::spawn(server::serve(listener, self.native.clone(), self.table.clone()));
                *role = Role::Server(task.abort_handle());
                self.table.begin();
                tracing::info!(listen = %self.listen, "serving as the registrar of this host");
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the session with the local registrar, and opens it if necessary.
    async fn local_session(&self) -> Result<Arc<Session>, Trouble> {
        let _opening = self.opening.lock().await;
        if let Some(session) = self.local().as_ref().filter(|session| session.is_open()) {
            return Ok(session.clone());
        }
        let session = Arc::new(Session::open(&self.native, self.listen, &self.cookie, &self.wrong).await?);
        *self.local() = Some(session.clone());
        Ok(session)
    }

    async fn remote_session(&self, host: &str) -> Result<Arc<Session>, Trouble> {
        let unknown = |cause| Trouble::Unreachable(failed_at(host, cause));
        let addresses = self.native.names().addresses(host, self.listen.port()).await;
        let addresses = addresses.map_err(|e| unknown(Cause::from(e)))?;
        let opened = first_of(addresses, |address| self.session_at(address)).await;
        opened.map_err(|troubles| most_telling(troubles).unwrap_or_else(|| unknown("it has no address".into())))
    }

    async fn session_at(&self, address: SocketAddr) -> Result<Arc<Session>, Trouble> {
        let slot = {
            let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
            if remote.len() >= MAX_REMOTE && !remote.contains_key(&address) {
                remote.clear();
            }
            remote.entry(address).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_open()) {
            return Ok(session.clone());
        }
        let session = Session::open(&self.native, address, &self.cookie, &self.wrong).await?;
        Ok(slot.insert(Arc::new(session)).clone())
    }

    async fn resolve(&self, name: &NodeName) -> Result<Vec<Endpoint>, ResolveError> {
        if name.host() != self.native.name().host() {
            return self.remote_session(name.host()).await?.resolve(name).await;
        }
        if self.serves() {
            return Ok(self.table.resolve(name));
        }
        match self.local_session().await {
            Ok(session) => session.resolve(name).await,
            // The serving node is gone: this node takes over if possible, and then knows what is announced from now on.
            Err(Trouble::Unreachable(cause)) => match self.try_serve() {
                Ok(true) => Ok(self.table.resolve(name)),
                _ => Err(ResolveError::Unreachable(cause)),
            },
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Returns the nodes of the registrar on this host, by name, and of those on other hosts with a session that answer in
    /// time.
    async fn nodes(self: &Arc<Self>) -> Result<Vec<Registration>, ResolveError> {
        let mut asked = JoinSet::new();
        for address in self.remotes() {
            let core = self.clone();
            asked.spawn(async move {
                let answer = async {
                    let (session, mailbox, age) =
                        Session::watch(&core.native, address, &core.cookie, &core.wrong).await?;
                    feed::nodes(Told::There { session, mailbox, age }).await
                };
                let late = |_| Err(Trouble::Unreachable(failed_at(address, "it did not answer in time")));
                (address, tokio::time::timeout(ELSEWHERE, answer).await.unwrap_or_else(late))
            });
        }
        let mut nodes = feed::nodes(self.told().await?).await?;
        while let Some(Ok((address, answer))) = asked.join_next().await {
            match answer {
                Ok(theirs) => {
                    for (name, node) in theirs {
                        nodes.entry(name).or_insert(node);
                    }
                }
                Err(trouble) => {
                    let error = ResolveError::from(trouble);
                    tracing::debug!(%address, error = %Chain(&error), "the nodes of a registrar cannot be listed");
                }
            }
        }
        Ok(nodes.into_values().collect())
    }

    /// Returns the addresses of registrars on other hosts with a session.
    fn remotes(&self) -> Vec<SocketAddr> {
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose session is being opened at this moment is not known to answer.
        let is_open = |slot: &RemoteSession| {
            slot.try_lock().is_ok_and(|slot| slot.as_ref().is_some_and(|session| session.is_open()))
        };
        remote.iter().filter(|(_, slot)| is_open(slot)).map(|(address, _)| *address).collect()
    }

    /// Asks the registrar on this host for the nodes that serve a service.
    async fn serving(&self, service: &ServiceName) -> Result<Vec<Serving>, ResolveError> {
        if self.serves() {
            return Ok(self.table.serving(service));
        }
        match self.local_session().await {
            Ok(session) => session.serving(service).await,
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Asks the registrar on this host for gateways, because the one on the host of the name is behind them.
    async fn gateways(&self, name: &NodeName) -> Result<Vec<NodeName>, ResolveError> {
        if self.serves() {
            return Ok(self.table.gateways(name));
        }
        match self.local_session().await {
            Ok(session) => session.gateways(name).await,
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Announces once, unless the node is hidden, and returns the routes that the registrar hands out; the future of
    /// [`Announced::ended`] resolves when that ends.
    async fn announce(
        self: &Arc<Self>,
        registration: Option<&Registration>,
    ) -> Result<(Announced, Vec<GivenRoute>), RegisterError> {
        let serves = self.try_serve().map_err(|e| RegisterError::Unreachable(failed_at(self.listen, e)))?;
        if serves {
            let own = match registration {
                Some(node) => Some((node.name.clone(), self.table.announce_own(node.clone()).await?)),
                None => None,
            };
            return Ok((Announced::Own { core: self.clone(), own }, self.table.grants.routes.clone()));
        }
        let session = self.local_session().await?;
        if let Some(registration) = registration {
            session.register(registration).await?;
        }
        let routes = session.routes().await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "the registrar hands out no routes");
            Vec::new()
        });
        Ok((Announced::Session(session), routes))
    }
}

/// Active announcement of this node.
enum Announced {
    Own { core: Arc<Core>, own: Option<(NodeName, u64)> },
    Session(Arc<Session>),
}

impl Announced {
    async fn ended(&self) {
        match self {
            Self::Own { .. } => std::future::pending().await,
            Self::Session(session) => session.closed().await,
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Self::Own { core, own: Some((name, serial)) } = self {
            core.table.withdraw(name, *serial);
        }
    }
}

struct Kept {
    task: AbortHandle,
    held: Arc<AtomicBool>,
    core: Arc<Core>,
    update: mpsc::UnboundedSender<Update>,
    routes: watch::Receiver<Vec<GivenRoute>>,
}

impl Lease for Kept {
    fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    fn routes(&self) -> Option<watch::Receiver<Vec<GivenRoute>>> {
        Some(self.routes.clone())
    }

    fn update(&self, registration: Registration) -> BoxFuture<'static, Result<(), RegisterError>> {
        let (told, answer) = oneshot::channel();
        let sent = self.update.send(Update { registration, told });
        Box::pin(async move {
            let ended = || RegisterError::Unreachable("the lease ended".into());
            sent.map_err(|_| ended())?;
            answer.await.unwrap_or_else(|_| Err(ended()))
        })
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("held", &self.is_held()).finish_non_exhaustive()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
        // The session announces this node and nothing else; without the lease it must end.
        *self.core.local() = None;
    }
}

impl Embedded {
    async fn kept(&self, registration: Option<Registration>) -> Result<Box<dyn Lease>, RegisterError> {
        let core = self.core.clone();
        let held = Arc::new(AtomicBool::new(false));
        let (first, answer) = oneshot::channel();
        let ((update, updates), (given, routes)) = (mpsc::unbounded_channel(), watch::channel(Vec::new()));
        let task = tokio::spawn(keep(core.clone(), registration, updates, held.clone(), given, first)).abort_handle();
        let lease: Box<dyn Lease> = Box::new(Kept { task, held, core, update, routes });
        match answer.await {
            Ok(Ok(())) => Ok(lease),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(RegisterError::Unreachable("the registration was cancelled".into())),
        }
    }
}

impl Registrar for Embedded {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(self.kept(Some(registration)))
    }

    fn join(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(self.kept(None))
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::new(Ask { core: Arc::downgrade(&self.core), listen: self.core.listen, warm: Warm::default() })
    }
}

/// Keeps an announcement up forever, as it is wanted, or only the session of a hidden node. The first outcome is reported; an
/// error of it is final for an announcement, while a hidden node goes on trying.
async fn keep(
    core: Arc<Core>,
    mut wanted: Option<Registration>,
    mut updates: mpsc::UnboundedReceiver<Update>,
    held: Arc<AtomicBool>,
    given: watch::Sender<Vec<GivenRoute>>,
    first: oneshot::Sender<Result<(), RegisterError>>,
) {
    let (mut first, mut pause, mut told) = (Some(first), Pause::default(), None);
    loop {
        match core.announce(wanted.as_ref()).await {
            Ok((mut announced, routes)) => {
                given.send_replace(routes);
                held.store(true, Ordering::Relaxed);
                (pause, told) = (Pause::default(), None);
                if let Some(first) = first.take() {
                    let _ = first.send(Ok(()));
                }
                loop {
                    let update = tokio::select! {
                        () = announced.ended() => break,
                        // The sender is in the lease, whose end aborts this.
                        Some(update) = updates.recv() => update,
                    };
                    let outcome = match core.announce(Some(&update.registration)).await {
                        Ok((new, _)) => {
                            // The announcement that it replaced is not withdrawn before.
                            announced = new;
                            wanted = Some(update.registration);
                            Ok(())
                        }
                        Err(error) => {
                            if error.is_unreachable() {
                                wanted = Some(update.registration);
                            }
                            Err(error)
                        }
                    };
                    let _ = update.told.send(outcome);
                }
                held.store(false, Ordering::Relaxed);
                given.send_replace(Vec::new());
            }
            Err(error) => match first.take() {
                Some(first) if wanted.is_some() => {
                    let _ = first.send(Err(error));
                    return;
                }
                Some(first) => drop(first.send(Ok(()))),
                None if told.as_ref() != Some(&error) => {
                    let name = wanted.as_ref().map_or(core.native.name(), |registration| &registration.name);
                    if error.is_unreachable() {
                        tracing::info!(%name, error = %Chain(&error), "not registered at the moment; this node tries again");
                    } else {
                        tracing::warn!(%name, error = %Chain(&error), "not registered any more; this node tries again");
                    }
                    told = Some(error);
                }
                None => {}
            },
        }
        let mut paused = pin!(pause.wait());
        loop {
            tokio::select! {
                () = &mut paused => break,
                Some(Update { registration, told }) = updates.recv() => {
                    wanted = Some(registration);
                    let _ = told.send(Err(RegisterError::Unreachable("the registrar is lost at the moment".into())));
                }
            }
        }
    }
}

/// Change of an announcement, and who waits for its outcome.
struct Update {
    registration: Registration,
    told: oneshot::Sender<Result<(), RegisterError>>,
}

/// Resolver of a node. It does not keep the registrar alive.
struct Ask {
    core: Weak<Core>,
    listen: SocketAddr,
    warm: Warm,
}

impl Ask {
    /// Returns the mirror to look at first, unless this node has the nodes anyway.
    fn warm(&self, core: &Core) -> Option<&Warm> {
        (!core.serves()).then_some(&self.warm)
    }

    fn core(&self) -> Result<Arc<Core>, ResolveError> {
        self.core.upgrade().ok_or_else(|| ResolveError::Unreachable("its node is shut down".into()))
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedResolver").field("listen", &self.listen).finish()
    }
}

impl Resolver for Ask {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move {
            let core = self.core()?;
            let is_here = name.host() == core.native.name().host();
            match is_here.then(|| self.warm(&core)?.resolve(&core, name)).flatten() {
                Some(found) => Ok(found),
                None => core.resolve(name).await,
            }
        })
    }

    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(async move {
            let core = self.core()?;
            match self.warm(&core).and_then(|warm| warm.serving(&core, service)) {
                Some(found) => Ok(found),
                None => core.serving(service).await,
            }
        })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { self.core()?.gateways(name).await })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async move { self.core()?.nodes().await })
    }

    fn watch(&self) -> Option<Watch> {
        self.core().ok().map(|core| feed::watch(&core))
    }
}
