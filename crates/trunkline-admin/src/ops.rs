//! Operations of the API without HTTP. The server calls them for clients, and the command line for a node of its own.

mod cluster;
mod registrar;
mod reload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use trunkline::{
    Address, ApplicationError, CallError, Chain, ConnectError, Drained, Exit, Forward, ImportantError, LinkInfo,
    LinkStats, LocalPlace, NameError, Node, NodeName, Offer, PlaceError, RemoveError, RouteEdit, SendError,
    ServiceStatus, SpawnError, StreamOptions, Target, Term,
};
use trunkline_config::{Config, EditError, Layers, RouteContext, RouteEntry, edit};
use trunkline_matcher::{RoutePattern, quoted};

pub(crate) use reload::{offers, proxied, service_nodes, transit};

use crate::api::{
    AddProxyRoute, AddRoute, ApplicationRequest, Body, CallReply, Changed, EndForward, Explanation, FailbackTo,
    Failure, ForwardRequest, Forwarding, MemberWays, MessageRequest, Peer, PingRequest, Pong, ProxyRoute, RemoveRoute,
    Route, SpawnRequest, Spawned, Status, StreamService, TraceRequest, Traced,
};

/// Category of a failure; determines the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is invalid.
    Bad,
    /// The request conflicts with the current state.
    Conflict,
    /// The named thing does not exist.
    Missing,
    /// The network or the peer failed.
    Unreachable,
    /// This node failed.
    Internal,
}

/// Error of a failed operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", failure.error)]
pub struct OpError {
    /// Category of the failure.
    pub kind: Kind,
    /// Explanation for the caller.
    pub failure: Failure,
}

impl OpError {
    fn new(kind: Kind, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, failure: Failure::new(error) }
    }
}

impl From<ConnectError> for OpError {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::NoRoute(no_route) => Self { kind: Kind::Unreachable, failure: no_route.into() },
            ConnectError::ShuttingDown | ConnectError::Lapsed(_) | ConnectError::NoneServes(_) => {
                Self::new(Kind::Unreachable, error)
            }
            _ => Self::new(Kind::Bad, error),
        }
    }
}

impl From<SendError> for OpError {
    fn from(error: SendError) -> Self {
        match &error {
            SendError::Connect(cause) if let Some(error) = cause.downcast_ref::<ConnectError>() => error.clone().into(),
            SendError::BadName | SendError::TooLarge { .. } => Self::new(Kind::Bad, error),
            _ => Self::new(Kind::Unreachable, error),
        }
    }
}

impl From<CallError> for OpError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(error) => error.into(),
            error => Self::new(Kind::Unreachable, error),
        }
    }
}

/// Location of a node's configuration, for saving changes and reloading.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path of the file.
    pub path: PathBuf,
    /// Layers applied to the file.
    pub layers: Layers,
}

/// Describes the result of removing a route and moving its connections.
fn moved(removed: &Changed, drained: Drained) -> Changed {
    let moved = drained.moved.len();
    let kept =
        drained.kept.iter().map(|(name, error)| format!("; the connection to {name} was not moved: {}", Chain(error)));
    let kept: String = kept.collect();
    Changed::new(format!("{}; {moved} connections moved{kept}", removed.message))
}

/// Parts of the tables that come from the configuration file: the patterns of both, and the routes of the cluster.
#[derive(Debug)]
struct FromFile {
    routes: Vec<String>,
    proxy_routes: Vec<String>,
    cluster_routes: Vec<Address>,
    announced: Vec<Offer>,
}

impl FromFile {
    fn of(config: &Config) -> Self {
        Self {
            routes: config.routes.iter().map(|route| route.pattern.as_str().to_owned()).collect(),
            proxy_routes: config.proxy_routes.iter().map(|route| route.pattern.as_str().to_owned()).collect(),
            cluster_routes: config.clustering.as_ref().map(|cluster| cluster.routes.clone()).unwrap_or_default(),
            announced: offers(config),
        }
    }
}

/// Forgets that a pattern is in the file. Returns how the message about its removal ends.
fn gone(from_file: &mut Vec<String>, pattern: &str, saved: bool) -> &'static str {
    let before = from_file.len();
    from_file.retain(|known| known != pattern);
    match (saved, from_file.len() < before) {
        (true, _) => " and deleted from the file",
        (false, true) => "; it is still in the file, so a reload or restart adds it again",
        (false, false) => "",
    }
}

/// Node together with its operations.
#[derive(Debug)]
pub struct Operations {
    node: Node,
    source: Option<Source>,
    /// Patterns in the tables that come from the configuration file; a reload replaces exactly these. Holding the lock
    /// also gives changes to tables and file the same order.
    from_file: Mutex<FromFile>,
    base_dir: PathBuf,
    started: Config,
    /// Forwards by the local address they listen at.
    forwards: Mutex<BTreeMap<LocalPlace, Begun>>,
    lost_log_lines: Arc<AtomicU64>,
    attached: Arc<Semaphore>,
}

/// Maximum number of attached forwards. Each occupies a request slot of the API as long as it lasts; the limit leaves
/// slots for other requests.
const MAX_ATTACHED: usize = 128;

/// Forward, with a channel that reports its end.
#[derive(Debug)]
struct Begun {
    forward: Forward,
    /// Sender that is dropped together with the forward.
    _ends: oneshot::Sender<()>,
}

/// Forward that ends when this is dropped. See [`Operations::forward_attached`].
#[derive(Debug)]
pub struct AttachedForward {
    operations: Arc<Operations>,
    place: LocalPlace,
    told: Forwarding,
    ended: oneshot::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl AttachedForward {
    /// Returns the description of the forward.
    pub fn forwarding(&self) -> &Forwarding {
        &self.told
    }

    /// Resolves when another request or the end of the node ended the forward.
    pub async fn ended(&mut self) {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await;
    }

    /// Polls for the same event as [`AttachedForward::ended`].
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The receiver panics if it is polled after it resolved.
        if self.ended.is_terminated() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.ended).poll(cx).map(drop)
    }
}

impl Drop for AttachedForward {
    fn drop(&mut self) {
        // After the end of this forward, another one may listen at the same address.
        if !self.ended.is_terminated() && matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            self.operations.forwards().remove(&self.place);
        }
    }
}

/// Longest timeout accepted, a day.
const MAX_WAIT_MS: u64 = 86_400_000;

/// Idle limits accepted for a forward, in milliseconds.
const IDLE_LIMITS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;

fn idle_limit(ms: u64) -> Result<Duration, OpError> {
    if IDLE_LIMITS.contains(&ms) {
        return Ok(Duration::from_millis(ms));
    }
    let (low, high) = (IDLE_LIMITS.start(), IDLE_LIMITS.end());
    Err(OpError::new(Kind::Bad, format!("idle_ms: {ms} is not a number from {low} to {high}")))
}

fn checked_timeout(timeout_ms: u64) -> Result<Duration, OpError> {
    if (1..=MAX_WAIT_MS).contains(&timeout_ms) {
        return Ok(Duration::from_millis(timeout_ms));
    }
    let error = format!("timeout_ms: {timeout_ms} is not a number from 1 to {MAX_WAIT_MS}");
    Err(OpError::new(Kind::Bad, error))
}

#[expect(clippy::disallowed_methods, reason = "operations report how long they took")]
fn now() -> Instant {
    Instant::now()
}

fn ms(since: Instant) -> f64 {
    (now() - since).as_secs_f64() * 1e3
}

fn name(text: &str) -> Result<NodeName, OpError> {
    NodeName::new(text).map_err(|e| OpError::new(Kind::Bad, e))
}

/// Returns the node, or the service of which any node will do.
fn target(text: &str) -> Result<Target, OpError> {
    text.parse().map_err(|e: NameError| OpError::new(Kind::Bad, e))
}

/// Checks a name before connecting, since a request with an invalid one would fail anyway.
fn checked(what: &str, text: &str) -> Result<(), OpError> {
    match text.len() {
        1..=255 => Ok(()),
        len => {
            Err(OpError::new(Kind::Bad, format!("the name of a {what} must have 1 to 255 bytes; this one has {len}")))
        }
    }
}

fn application_error(error: ApplicationError) -> OpError {
    let kind = match error {
        ApplicationError::Name(_) => Kind::Bad,
        ApplicationError::Running(_) | ApplicationError::NotRunning(_) => Kind::Conflict,
        ApplicationError::Unknown(_) => Kind::Missing,
        ApplicationError::Process { .. } => Kind::Internal,
        _ => Kind::Unreachable,
    };
    OpError::new(kind, error)
}

fn no_mailbox(name: &str, mailbox: &str) -> OpError {
    let error = format!("{name} has no mailbox {mailbox:?}; `trunkline status` on that node lists its mailboxes");
    OpError::new(Kind::Unreachable, error)
}

fn bytes(body: &Body) -> Result<Vec<u8>, OpError> {
    body.bytes().map_err(|e| OpError::new(Kind::Bad, e))
}

impl Operations {
    /// Creates the operations of a node that was started from this configuration.
    pub fn new(node: Node, config: &Config, source: Option<Source>) -> Self {
        let from_file = FromFile::of(config);
        let base_dir = source.as_ref().and_then(|s| s.path.parent()).map(PathBuf::from).unwrap_or_default();
        let started = config.clone();
        let (from_file, forwards, lost_log_lines) = (Mutex::new(from_file), Mutex::default(), Arc::default());
        let attached = Arc::new(Semaphore::new(MAX_ATTACHED));
        Self { node, source, from_file, base_dir, started, forwards, lost_log_lines, attached }
    }

    /// Sets the counter of lost log lines that the status shows. Default: a counter that stays 0.
    #[must_use]
    pub fn with_lost_log_lines(self, lost: Arc<AtomicU64>) -> Self {
        Self { lost_log_lines: lost, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, FromFile> {
        self.from_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Returns the status of the node.
    pub fn status(&self) -> Status {
        let patterns = (&self.node.routes().stats()).into();
        let service = |service: ServiceStatus| StreamService {
            name: service.name,
            place: service.place.map(|place| place.to_string()),
            idle_limit_ms: service.options.idle.map(|idle| idle.as_millis() as u64),
            numbers: service.traffic.into(),
        };
        let services = self.node.services().into_iter().map(service).collect();
        let forwards = self.forwards().values().map(|begun| (&begun.forward).into()).collect();
        let lost_log_lines = self.lost_log_lines.load(Ordering::Relaxed);
        Status { patterns, services, forwards, lost_log_lines, ..self.node.status().into() }
    }

    /// Returns the live connections.
    pub fn nodes(&self) -> Vec<Peer> {
        let peer = |(info, stats): (LinkInfo, LinkStats)| {
            let failback = self.failback(&info.peer);
            Peer { failback, ..(info, stats).into() }
        };
        self.node.nodes().into_iter().map(peer).collect()
    }

    fn failback(&self, peer: &NodeName) -> Vec<FailbackTo> {
        self.node.pending_failbacks(peer).into_iter().map(FailbackTo::from).collect()
    }

    /// Returns the static routes, in order.
    pub fn routes(&self) -> Vec<Route> {
        self.node.routes().iter().map(|e| Route::new(e.pattern().as_str(), e.weight(), e.value())).collect()
    }

    /// Adds a route, and writes it to the file if requested; a failure changes neither. Reads and writes files.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn add_route(&self, request: &AddRoute) -> Result<Changed, OpError> {
        let mut from_file = self.lock();
        let (pattern, weight, route) = self.read_entry(&request.route)?;
        let warnings = pattern.lints().iter().map(trunkline_config::lint_message).collect();
        let pattern = pattern.as_str().to_owned();
        self.node.edit_routes(|table: &mut RouteEdit<'_>| {
            table.add(&pattern, route, weight).map_err(|e| OpError::new(Kind::Conflict, e))?;
            if request.save { self.edit("routes", |text| edit::add_route(text, &request.route)) } else { Ok(()) }
        })?;
        from_file.routes.retain(|known| *known != pattern);
        let saved = if request.save { " and saved" } else { "; not saved, so it is lost when the node stops" };
        let message = format!("route {} added with weight {weight}{saved}", quoted(&pattern));
        if request.save {
            from_file.routes.push(pattern);
        }
        Ok(Changed { warnings, ..Changed::new(message) })
    }

    fn read_entry(&self, entry: &RouteEntry) -> Result<(RoutePattern, i64, trunkline::NetworkRoute), OpError> {
        self.with_context(|context| entry.to_route(context)).map_err(|e| OpError::new(Kind::Bad, e))
    }

    fn with_context<T>(&self, read: impl FnOnce(&RouteContext<'_>) -> T) -> T {
        let environment = self.source.as_ref().map(|s| s.layers.environment.as_slice()).unwrap_or_default();
        let resolvers = self.started.resolvers();
        let profiles: Vec<_> = self.started.tls_profiles.keys().cloned().collect();
        let context = RouteContext {
            base_dir: &self.base_dir,
            environment,
            resolvers: &resolvers,
            profiles: &profiles,
            tls: self.started.node.tls,
        };
        read(&context)
    }

    /// Returns the proxy routes, in order.
    pub fn proxy_routes(&self) -> Vec<ProxyRoute> {
        let routes = self.node.proxy_routes();
        routes.iter().map(|e| ProxyRoute::new(e.pattern().as_str(), e.weight(), e.value())).collect()
    }

    /// Adds a proxy route, and writes it to the file if requested; a failure changes neither. Reads and writes files.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn add_proxy_route(&self, request: &AddProxyRoute) -> Result<Changed, OpError> {
        let AddProxyRoute { route: entry, save } = request;
        let mut from_file = self.lock();
        let read = self.with_context(|context| entry.to_route(context));
        let (pattern, weight, route) = read.map_err(|e| OpError::new(Kind::Bad, e))?;
        let warnings = pattern.lints().iter().map(trunkline_config::lint_message).collect();
        let pattern = pattern.as_str().to_owned();
        self.node.edit_proxy_routes(|table| {
            table.add(&pattern, route, weight).map_err(|e| OpError::new(Kind::Conflict, e))?;
            if *save { self.edit("proxy_routes", |text| edit::add_proxy_route(text, entry)) } else { Ok(()) }
        })?;
        from_file.proxy_routes.retain(|known| *known != pattern);
        let saved = if *save { " and saved" } else { "; not saved, so it is lost when the node stops" };
        let (quoted, proxy) = (quoted(&pattern), &entry.proxy);
        let message = format!("proxy route {quoted} through {proxy} added with weight {weight}{saved}");
        if *save {
            from_file.proxy_routes.push(pattern);
        }
        Ok(Changed { warnings, ..Changed::new(message) })
    }

    /// Removes a proxy route by its exact pattern, also from the file if requested; a failure changes neither. Live
    /// connections stay up. Reads and writes files.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn remove_proxy_route(&self, request: &RemoveRoute) -> Result<Changed, OpError> {
        let RemoveRoute { pattern, save } = request;
        let mut from_file = self.lock();
        self.node.edit_proxy_routes(|table| {
            table.remove(pattern).map_err(|e: RemoveError| OpError::new(Kind::Missing, e))?;
            if *save { self.edit("proxy_routes", |text| edit::remove_proxy_route(text, pattern)) } else { Ok(()) }
        })?;
        let saved = gone(&mut from_file.proxy_routes, pattern, *save);
        Ok(Changed::new(format!("proxy route {} removed{saved}", quoted(pattern))))
    }

    /// Removes a route by its exact pattern, also from the file if requested; a failure changes neither. Live
    /// connections stay up. Reads and writes files.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn remove_route(&self, request: &RemoveRoute) -> Result<Changed, OpError> {
        let mut from_file = self.lock();
        let pattern = &request.pattern;
        self.node.edit_routes(|table: &mut RouteEdit<'_>| {
            table.remove(pattern).map_err(|e: RemoveError| OpError::new(Kind::Missing, e))?;
            if request.save { self.edit("routes", |text| edit::remove_route(text, pattern)) } else { Ok(()) }
        })?;
        let saved = gone(&mut from_file.routes, pattern, request.save);
        Ok(Changed::new(format!("route {} removed{saved}", quoted(pattern))))
    }

    /// Removes a route like [`Operations::remove_route`] and moves its connections to the best other route. Connections
    /// without another route stay up.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub async fn drain_route(self: &Arc<Self>, request: RemoveRoute) -> Result<Changed, OpError> {
        let pattern = request.pattern.clone();
        let removed = self.blocking(move |this| this.remove_route(&request)).await?;
        Ok(moved(&removed, self.node.vacate_route(&pattern).await))
    }

    /// Removes a proxy route and moves its connections, like [`Operations::drain_route`].
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub async fn drain_proxy_route(self: &Arc<Self>, request: RemoveRoute) -> Result<Changed, OpError> {
        let pattern = request.pattern.clone();
        let removed = self.blocking(move |this| this.remove_proxy_route(&request)).await?;
        Ok(moved(&removed, self.node.vacate_proxy_route(&pattern).await))
    }

    /// Runs an operation that reads or writes files on a thread for blocking work.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Self) -> Result<T, OpError> + Send + 'static,
    ) -> Result<T, OpError> {
        let this = self.clone();
        let ran = tokio::task::spawn_blocking(move || run(&this)).await;
        ran.map_err(|_| OpError::new(Kind::Internal, "the operation failed unexpectedly; this is a bug"))?
    }

    /// Changes the text of the file, whose list under this path of keys the change concerns. Returns the configuration that
    /// the file then has.
    fn save(
        &self,
        path: &str,
        change: impl FnOnce(&str, &Source) -> Result<String, OpError>,
    ) -> Result<Config, OpError> {
        let Some(source) = &self.source else {
            return Err(OpError::new(
                Kind::Bad,
                "this node was not started from a file, so the change cannot be saved; leave `save` out",
            ));
        };
        let shown = source.path.display();
        if let Some(layer) = source.layers.over(path) {
            let error = format!(
                "{shown}: not saved, because {layer} replaces `{path}:` of the file; change it there, or leave `save` out"
            );
            return Err(OpError::new(Kind::Conflict, error));
        }
        let before = std::fs::read_to_string(&source.path)
            .map_err(|e| OpError::new(Kind::Internal, format!("{shown} cannot be read: {e}; nothing changed")))?;
        let text = change(&before, source)?;
        let config = started_from(source, &text)?;
        if text != before {
            edit::save_atomically(&source.path, &text)
                .map_err(|e| OpError::new(Kind::Internal, format!("{}; nothing changed", Chain(&e))))?;
        }
        Ok(config)
    }

    /// Edits the text of the file, whose list under this key the edit concerns.
    fn edit(&self, key: &str, edit: impl FnOnce(&str) -> Result<String, EditError>) -> Result<(), OpError> {
        self.save(key, |text, source| edit(text).map_err(|error| not_edited(source, &error))).map(drop)
    }

    /// Explains which attempts a connect to the name would make, or which nodes `@service` stands for, in the order in which
    /// they would be tried.
    ///
    /// # Errors
    /// [`OpError`] if the text is neither a node name nor a service.
    pub async fn explain(&self, text: &str) -> Result<Explanation, OpError> {
        let name = match target(text)? {
            Target::Node(name) => name,
            Target::Any(any) => return Ok(self.explain_service(&any).await),
        };
        let mut explanation = Explanation::from(&self.node.explain(&name).map_err(ConnectError::from)?);
        explanation.failback = self.failback(&name);
        explanation.stale = self.stale_registrars(&explanation.steps);
        explanation.member = self.node.cluster().and_then(|cluster| MemberWays::of(cluster, &name));
        let routes = self.node.routes();
        // A node name never exceeds the length limit of the table.
        for found in routes.explain(name.as_str()).into_iter().flatten() {
            let pattern = found.entry.pattern().as_str();
            for step in explanation.steps.iter_mut().filter(|step| step.pattern.as_deref() == Some(pattern)) {
                step.class = Some(found.class.to_string());
            }
        }
        Ok(explanation)
    }

    /// Traces the path to a name, hop by hop.
    ///
    /// # Errors
    /// [`OpError`]; the absence of a path is not an error.
    pub async fn trace(&self, request: &TraceRequest) -> Result<Traced, OpError> {
        let (target, timeout) = (name(&request.name)?, checked_timeout(request.timeout_ms)?);
        Ok((&self.node.trace(&target, timeout).await?).into())
    }

    /// Connects and measures a round trip.
    ///
    /// # Errors
    /// [`OpError`] with every attempt.
    pub async fn ping(&self, request: &PingRequest) -> Result<Pong, OpError> {
        let (target, timeout) = (target(&request.name)?, checked_timeout(request.timeout_ms)?);
        let began = now();
        // The connection is held during the ping, so that both use the same link.
        let connection = match (request.now, target) {
            (true, Target::Node(name)) => self.node.dial_now(name).await?,
            (true, Target::Any(_)) => {
                return Err(OpError::new(Kind::Bad, "`now` is for one node; name it, or ping without it"));
            }
            (false, target) => self.node.connect(target).await?,
        };
        let connect_ms = ms(began);
        let (connection, round_trip) = self.node.ping(&connection.info().peer, timeout).await?;
        let peer = (connection.info(), connection.stats()).into();
        Ok(Pong { peer, connect_ms, round_trip_ms: round_trip.as_secs_f64() * 1e3 })
    }

    /// Sends a message, connecting if necessary.
    ///
    /// # Errors
    /// [`OpError`]; nothing was sent.
    pub async fn send(&self, request: &MessageRequest) -> Result<Changed, OpError> {
        let (target, timeout, body) =
            (target(&request.name)?, checked_timeout(request.timeout_ms)?, bytes(&request.body)?);
        checked("mailbox", &request.mailbox)?;
        if request.important {
            let Target::Node(target) = target else {
                return Err(OpError::new(Kind::Bad, "`important` is for one node; name it, or send without it"));
            };
            self.node.send_important(target, &request.mailbox, body.clone(), timeout).await.map_err(|error| {
                let (name, mailbox) = (&request.name, &request.mailbox);
                match error {
                    ImportantError::NoMailbox => no_mailbox(name, mailbox),
                    ImportantError::NotSent(error) => error.into(),
                    error => OpError::new(Kind::Unreachable, format!("{mailbox} at {name}: {}", Chain(&error))),
                }
            })?;
            let (bytes, mailbox, name) = (body.len(), &request.mailbox, &request.name);
            return Ok(Changed::new(format!("{bytes} bytes are in the mailbox {mailbox} at {name}")));
        }
        let sent = tokio::time::timeout(timeout, self.node.send(target, &request.mailbox, &body)).await;
        let late = |_| {
            let error = format!(
                "nothing was sent within {timeout:?}: {} was not reached, or its mailbox {:?} is full of earlier \
                 messages; try again, or use a longer timeout",
                request.name, request.mailbox
            );
            OpError::new(Kind::Unreachable, error)
        };
        sent.map_err(late)??;
        Ok(Changed::new(format!("{} bytes sent to {} at {}", body.len(), request.mailbox, request.name)))
    }

    /// Calls a mailbox and waits for the answer, connecting if necessary.
    ///
    /// # Errors
    /// [`OpError`]; after a timeout the mailbox may have received the call.
    pub async fn call(&self, request: &MessageRequest) -> Result<CallReply, OpError> {
        let (target, timeout, body) =
            (target(&request.name)?, checked_timeout(request.timeout_ms)?, bytes(&request.body)?);
        checked("mailbox", &request.mailbox)?;
        if request.important {
            return Err(OpError::new(
                Kind::Bad,
                "`important` is for messages only; a call is always answered or fails",
            ));
        }
        let began = now();
        let answer = self.node.call(&target, &request.mailbox, &body, timeout).await.map_err(|error| {
            let (name, mailbox) = (&request.name, &request.mailbox);
            match error {
                CallError::NoMailbox => no_mailbox(name, mailbox),
                CallError::TimedOut(_) => OpError::new(
                    Kind::Unreachable,
                    format!(
                        "{name} did not answer within {timeout:?}, connecting included; {mailbox:?} may have received \
                         the call"
                    ),
                ),
                error => error.into(),
            }
        })?;
        Ok(CallReply { body: Body::new(&answer), node: answer.node.to_string(), took_ms: ms(began) })
    }

    /// Starts a process on a peer, connecting if necessary.
    ///
    /// # Errors
    /// [`OpError`].
    pub async fn spawn(&self, request: &SpawnRequest) -> Result<Spawned, OpError> {
        let (target, timeout) = (name(&request.name)?, checked_timeout(request.timeout_ms)?);
        let input = Term::from(request.input.as_str());
        let failed = |error: SpawnError| {
            let kind = match error {
                SpawnError::Mailbox(_) => Kind::Bad,
                _ => Kind::Unreachable,
            };
            OpError::new(kind, format!("{} at {}: {}", request.program, request.name, Chain(&error)))
        };
        if !request.until_end {
            let pid = self.node.spawn_on(target, &request.program, &input, timeout).await.map_err(failed)?;
            return Ok(Spawned { pid: pid.to_string(), exit: None, ended_well: false });
        }
        let monitor = self.node.spawn_monitor(target, &request.program, &input, timeout).await.map_err(failed)?;
        let pid = monitor.pid().to_string();
        let exit = monitor.down().await;
        Ok(Spawned { pid, exit: Some(exit.to_string()), ended_well: exit == Exit::Normal })
    }

    /// Starts an application of a peer, connecting if necessary, or one of this node.
    ///
    /// # Errors
    /// [`OpError`].
    pub async fn start_application(&self, request: &ApplicationRequest) -> Result<Changed, OpError> {
        let (target, timeout) = (name(&request.name)?, checked_timeout(request.timeout_ms)?);
        let application = &request.application;
        let started = match target == *self.node.name() {
            true => self.node.start_application(application),
            false => self.node.start_application_on(target, application, timeout).await,
        };
        started.map_err(application_error)?;
        Ok(Changed::new(format!("{application} is running at {}", request.name)))
    }

    /// Stops an application of this node.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn stop_application(&self, name: &str) -> Result<Changed, OpError> {
        self.node.stop_application(name).map_err(application_error)?;
        Ok(Changed::new(format!("{name} is being stopped")))
    }

    fn forwards(&self) -> MutexGuard<'_, BTreeMap<LocalPlace, Begun>> {
        self.forwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens at a local address and forwards its connections to a service of a node. Connects only when the first
    /// connection arrives.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub async fn forward(&self, request: &ForwardRequest) -> Result<Forwarding, OpError> {
        let (told, ..) = self.begin_forward(request).await?;
        Ok(told)
    }

    /// Starts a forward like [`Operations::forward`] that ends when the returned value is dropped. At most 128 such
    /// forwards last at a time.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub async fn forward_attached(self: &Arc<Self>, request: &ForwardRequest) -> Result<AttachedForward, OpError> {
        let permit = self.attached.clone().try_acquire_owned().map_err(|_| {
            let error = format!(
                "{MAX_ATTACHED} attached forwards are running, which is the maximum; start this one with --background"
            );
            OpError::new(Kind::Conflict, error)
        })?;
        let (told, place, ended) = self.begin_forward(request).await?;
        Ok(AttachedForward { operations: self.clone(), place, told, ended, _permit: permit })
    }

    async fn begin_forward(
        &self,
        request: &ForwardRequest,
    ) -> Result<(Forwarding, LocalPlace, oneshot::Receiver<()>), OpError> {
        let target = target(&request.name)?;
        checked("service", &request.service)?;
        let listen: LocalPlace = request
            .listen
            .parse()
            .map_err(|e: PlaceError| OpError::new(Kind::Bad, format!("listen: {}", Chain(&e))))?;
        let idle = request.idle_ms.map(idle_limit).transpose()?;
        let options = StreamOptions { idle };
        let forward = self.node.forward_with(listen.within(&self.base_dir), target, &request.service, options).await;
        let forward = forward.map_err(|error| OpError::new(Kind::Conflict, error))?;
        let (told, place) = (Forwarding::from(&forward), forward.place().clone());
        let (ends, ended) = oneshot::channel();
        self.forwards().insert(place.clone(), Begun { forward, _ends: ends });
        Ok((told, place, ended))
    }

    /// Ends a forward started by [`Operations::forward`], and its connections.
    ///
    /// # Errors
    /// [`OpError`] if no forward listens at that address.
    pub fn end_forward(&self, request: &EndForward) -> Result<Changed, OpError> {
        let listen: LocalPlace = request
            .listen
            .parse()
            .map_err(|e: PlaceError| OpError::new(Kind::Bad, format!("listen: {}", Chain(&e))))?;
        let listen = listen.within(&self.base_dir);
        let Some(Begun { forward: ended, .. }) = self.forwards().remove(&listen) else {
            let error = format!("no forward listens at {listen}; `trunkline status` lists the forwards");
            return Err(OpError::new(Kind::Missing, error));
        };
        Ok(Changed::new(format!("{listen} is no longer forwarded to {} at {}", ended.service(), ended.peer())))
    }

    /// Ends all forwards started by [`Operations::forward`], and their connections.
    pub fn end_forwards(&self) {
        self.forwards().clear();
    }

    /// Closes a connection gracefully.
    ///
    /// # Errors
    /// [`OpError`] if the peer is not connected.
    pub fn disconnect(&self, text: &str) -> Result<Changed, OpError> {
        let target = name(text)?;
        let Some(connection) = self.node.connection(&target) else {
            let error = format!("no connection to {target}; `trunkline nodes` lists the connections");
            return Err(OpError::new(Kind::Missing, error));
        };
        connection.disconnect();
        Ok(Changed::new(format!("disconnecting from {target}")))
    }
}

fn not_edited(source: &Source, error: &EditError) -> OpError {
    OpError::new(Kind::Conflict, format!("{}: {}", source.path.display(), Chain(error)))
}

/// Returns the configuration of a text of the file. A node has to be able to start from the text about to be saved, since
/// the file may have been emptied or broken after this node started.
fn started_from(source: &Source, text: &str) -> Result<Config, OpError> {
    let shown = source.path.display().to_string();
    let directory = source.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Config::parse(text, directory, &shown, &source.layers).map_err(|error| {
        let (first, more) = error.problems().split_first().expect("an error has a problem at least");
        let more = if more.is_empty() { String::new() } else { format!(" ({} more: `trunkline check`)", more.len()) };
        let error =
            format!("{shown}: not saved, nothing changed: a node could not start from this file: {first}{more}");
        OpError::new(Kind::Conflict, error)
    })
}
