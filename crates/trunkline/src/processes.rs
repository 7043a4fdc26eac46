//! Processes of a node: tasks with a pid and a mailbox, tied to others here and there by links and monitors. Who is tied
//! to whom is in [`trunkline_process::Ties`]; here are the tasks, and what nodes ask and tell each other.

mod application;
mod remote;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use trunkline_matcher::AccessPattern;
use trunkline_process::{Effect, Exit, MAX_TIES, NoProcess, Notice, Pid, Refusal, Request, Ties, Unwilling};
use trunkline_route::{Incarnation, NodeName};
use trunkline_stack::{Down, LogLimit, Mailbox, Message, RegisterError};
use trunkline_term::{Atom, Term};

use crate::inner::{Handle, Inner};
use crate::{CallError, Node};

pub use application::{Application, ApplicationError};
pub(crate) use remote::serve;

/// How long a peer may take to answer what is asked about its processes without a deadline of the caller's.
const PATIENCE: Duration = Duration::from_secs(20);

type Running = Pin<Box<dyn Future<Output = Exit> + Send>>;
type Factory = Arc<dyn Fn(Process, Term) -> Running + Send + Sync>;

/// Why a process did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The peer was not reached, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The peer could not do it, in its own words.
    #[error("the peer could not begin a process: {0}")]
    Failed(String),
    /// The connection, or the peer's node, does not allow it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// As many processes of the offer run at the peer as may at once; in the peer's words.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The name of its service cannot be had.
    #[error(transparent)]
    Service(#[from] RegisterError),
    /// This node is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// The peer offers no processes of that name.
    #[error("the peer offers no processes named {0:?}")]
    Unknown(String),
}

/// Why two processes are not linked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TieError {
    /// The other's node was not reached, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// One of the two is none.
    #[error(transparent)]
    NoProcess(#[from] NoProcess),
    /// The other's node does not want to, in its own words.
    #[error("the peer refused: {0}")]
    Refused(String),
}

/// What comes to a process.
#[derive(Debug)]
pub enum Signal {
    /// A message or a call.
    Message(Message),
    /// A process it was linked to ended.
    Exit {
        /// Which.
        from: Pid,
        /// Why.
        exit: Exit,
    },
}

/// A process, as its own code holds it.
pub struct Process {
    pid: Pid,
    mailbox: Mailbox,
    exits: mpsc::Receiver<(Pid, Exit)>,
    node: Weak<Handle>,
    peer: Option<NodeName>,
}

impl Process {
    /// Its name in the network.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The peer that asked for it by [`Node::spawn_on`] or [`Node::start_application_on`]; `None` for a process that its own
    /// node began.
    pub fn peer(&self) -> Option<&NodeName> {
        self.peer.as_ref()
    }

    /// The node it runs on; `None` when that is being dropped. A process that keeps it keeps the node from being dropped.
    pub fn node(&self) -> Option<Node> {
        self.node.upgrade().map(|handle| Node { handle })
    }

    /// What comes next: messages first. `None` once the node shuts down. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            message = self.mailbox.recv() => message.map(Signal::Message),
            Some((from, exit)) = self.exits.recv() => Some(Signal::Exit { from, exit }),
        }
    }

    /// Ties it to another process, of this node or another: when one of the two ends the other is told by
    /// [`Signal::Exit`], once. Connects if need be.
    ///
    /// # Errors
    /// [`TieError`]; they are not linked.
    pub async fn link(&self, other: &Pid) -> Result<(), TieError> {
        let Some(node) = self.node() else { return Err(NoProcess.into()) };
        node.link_processes(self.pid.number, other).await
    }

    /// Unties it from another process; does nothing when they are not linked.
    pub fn unlink(&self, other: &Pid) {
        if let Some(node) = self.node() {
            node.inner().processes.unlink(node.inner(), self.pid.number, other);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.pid)
    }
}

/// Waits for a process to be gone. Dropped, it does not any more.
pub struct Monitor {
    pid: Pid,
    watch: u64,
    exit: oneshot::Receiver<Exit>,
    node: Weak<Inner>,
}

impl Monitor {
    /// Which process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Waits until it is gone: it ended, there was none, or the connection to its node went down. To be asked once.
    pub async fn down(mut self) -> Exit {
        (&mut self.exit).await.unwrap_or(Exit::Killed)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.processes.unwatch(&node, self.watch);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({})", self.pid)
    }
}

/// A process that runs.
struct Live {
    exits: mpsc::Sender<(Pid, Exit)>,
    /// Known a moment after it began.
    abort: Option<AbortHandle>,
    origin: Origin,
}

/// Origin of a process.
pub(crate) enum Origin {
    /// Begun by this node's own program.
    Own,
    /// Begun by a peer, from an offer.
    Spawn { peer: NodeName, offer: String },
    /// As a part of an application, which a peer may have started.
    Application { peer: Option<NodeName>, name: String, service: String },
}

impl Origin {
    fn application(&self) -> Option<&str> {
        match self {
            Self::Application { name, .. } => Some(name),
            Self::Own | Self::Spawn { .. } => None,
        }
    }

    fn service(&self) -> Option<&str> {
        match self {
            Self::Application { service, .. } => Some(service),
            Self::Own | Self::Spawn { .. } => None,
        }
    }

    fn peer(&self) -> Option<&NodeName> {
        match self {
            Self::Spawn { peer, .. } => Some(peer),
            Self::Application { peer, .. } => peer.as_ref(),
            Self::Own => None,
        }
    }
}

/// Limits on the processes that peers begin by one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpawnLimits {
    /// Processes of this name that run at once; one more is refused as [`SpawnError::Overloaded`]. `None`, the default: no
    /// limit.
    pub max: Option<usize>,
}

/// An offer that peers may begin processes of, by one name.
struct Spawnable {
    offer: Offer<Factory>,
    limits: SpawnLimits,
}

/// What a peer may begin here.
struct Offer<T> {
    what: T,
    allow: Vec<AccessPattern>,
}

impl<T> Offer<T> {
    fn allows(&self, peer: &NodeName) -> bool {
        self.allow.iter().any(|pattern| pattern.is_match(peer.as_str()))
    }
}

struct State {
    ties: Ties,
    live: HashMap<u64, Live>,
    watches: HashMap<u64, oneshot::Sender<Exit>>,
    factories: BTreeMap<String, Spawnable>,
    applications: BTreeMap<String, application::Offered>,
    stopped: bool,
    /// Limit of the lines about what peers had begun.
    lines: LogLimit<NodeName>,
}

/// Lines about processes and applications that one peer had begun, in one period.
const PEER_LINES: (u32, Duration) = (10, Duration::from_secs(1));
impl State {
    /// Refuses a process of an offer of which as many run as may.
    fn room_for(&self, origin: &Origin) -> Result<(), SpawnError> {
        let Origin::Spawn { offer, .. } = origin else { return Ok(()) };
        let Some(max) = self.factories.get(offer).and_then(|spawnable| spawnable.limits.max) else { return Ok(()) };
        let is_of_it = |live: &&Live| matches!(&live.origin, Origin::Spawn { offer: other, .. } if other == offer);
        if self.live.values().filter(is_of_it).count() < max {
            return Ok(());
        }
        Err(SpawnError::Overloaded(format!("{max} processes named {offer:?} run already, as many as may at once")))
    }
}

/// The processes of a node.
pub(crate) struct Processes(Mutex<State>);

/// Tells the others when a process ended, however it did.
struct Ending {
    node: Weak<Inner>,
    number: u64,
    exit: Exit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let exit = if std::thread::panicking() { &Exit::Panicked } else { &self.exit };
        if let Some(node) = self.node.upgrade() {
            node.processes.ended(&node, self.number, exit);
        }
    }
}

impl Processes {
    pub(crate) fn new(node: NodeName, incarnation: Incarnation) -> Arc<Self> {
        let [a, b, c, d, ..] = incarnation;
        Arc::new(Self(Mutex::new(State {
            ties: Ties::new(node, u32::from_be_bytes([a, b, c, d])),
            live: HashMap::new(),
            watches: HashMap::new(),
            factories: BTreeMap::new(),
            applications: BTreeMap::new(),
            stopped: false,
            lines: LogLimit::new(PEER_LINES.0, PEER_LINES.1),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a process. The mailbox of a part of an application has the name of its service as well.
    fn begin(
        &self,
        handle: Weak<Handle>,
        node: &Arc<Inner>,
        origin: Origin,
        watcher: Option<(NodeName, u64)>,
        run: impl FnOnce(Process) -> Running,
    ) -> Result<Pid, SpawnError> {
        let (process, pid) = {
            let mut state = self.lock();
            if state.stopped {
                return Err(SpawnError::ShuttingDown);
            }
            state.room_for(&origin)?;
            let pid = state.ties.begin();
            let mailbox = node.sessions.mailboxes().register(&pid.mailbox()).and_then(|mut mailbox| {
                origin.service().map_or(Ok(()), |service| mailbox.also(service))?;
                Ok(mailbox)
            });
            let mailbox = match mailbox {
                Ok(mailbox) => mailbox,
                Err(error) => {
                    state.ties.end(pid.number, &Exit::Killed);
                    return Err(error.into());
                }
            };
            if let Some((peer, watch)) = watcher {
                state.ties.watched_by(peer, watch, pid.number).expect("it began just now");
            }
            let (sender, exits) = mpsc::channel(MAX_TIES);
            if let Some(offered) = origin.application().and_then(|name| state.applications.get_mut(name)) {
                offered.running.push(pid.clone());
            }
            let peer = origin.peer().cloned();
            state.live.insert(pid.number, Live { exits: sender, abort: None, origin });
            (Process { pid: pid.clone(), mailbox, exits, node: handle, peer }, pid)
        };
        let ending = Ending { node: Arc::downgrade(node), number: pid.number, exit: Exit::Killed };
        // What a factory does before its first await may depend on what a peer gave it.
        let running = catch_unwind(AssertUnwindSafe(|| run(process)));
        let running = running.unwrap_or_else(|_| Box::pin(async { Exit::Panicked }));
        // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
        let task = node.sessions.runtime().spawn(async move {
            // Dropped after what runs, whether that ends, panics or is stopped.
            let mut ending = ending;
            ending.exit = running.await;
        });
        let mut state = self.lock();
        let stopped = state.stopped;
        match state.live.get_mut(&pid.number) {
            Some(live) if !stopped => live.abort = Some(task.abort_handle()),
            _ => task.abort(),
        }
        Ok(pid)
    }

    fn ended(&self, node: &Arc<Inner>, number: u64, exit: &Exit) {
        let mut state = self.lock();
        let effects = state.ties.end(number, exit);
        let stop = match state.live.remove(&number).map(|live| live.origin) {
            Some(Origin::Application { name, .. }) => application::ended(&mut state, &name, number, exit),
            _ => Vec::new(),
        };
        drop(state);
        stop.iter().for_each(AbortHandle::abort);
        self.carry_out(node, effects);
    }

    fn carry_out(&self, node: &Arc<Inner>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Exit { to, from, exit } => {
                    if let Some(live) = self.lock().live.get(&to) {
                        // Of a process that never listens, no more are kept than it may have links.
                        let _ = live.exits.try_send((from, exit));
                    }
                }
                Effect::Down { watch, exit } => {
                    let waiting = self.lock().watches.remove(&watch);
                    let _ = waiting.map(|waiting| waiting.send(exit));
                }
                Effect::ExitThere { to, from, exit } => {
                    let (own, other) = ((from, self.creation()), (to.number, to.creation));
                    remote::tell(node, &to.node, &Notice::Exit(own, other, exit));
                }
                Effect::DownThere { node: there, watch, exit } => {
                    remote::tell(node, &there, &Notice::Down(watch, exit));
                }
            }
        }
    }

    fn creation(&self) -> u32 {
        self.lock().ties.creation()
    }

    /// The connection to a peer is down.
    pub(crate) fn node_down(&self, node: &Arc<Inner>, peer: &NodeName, reason: &Down) {
        let effects = self.lock().ties.node_down(peer, &reason.to_string());
        self.carry_out(node, effects);
    }

    fn unlink(&self, node: &Arc<Inner>, number: u64, other: &Pid) {
        let mut state = self.lock();
        let told = state.ties.unlink(number, other) && !state.ties.is_own(other);
        drop(state);
        if told {
            let notice = Notice::Unlink((number, self.creation()), (other.number, other.creation));
            remote::tell(node, &other.node, &notice);
        }
    }

    fn unwatch(&self, node: &Arc<Inner>, watch: u64) {
        let mut state = self.lock();
        state.watches.remove(&watch);
        let target = state.ties.unwatch(watch).filter(|target| !state.ties.is_own(target));
        drop(state);
        if let Some(target) = target {
            remote::tell(node, &target.node, &Notice::Demonitor(watch, (target.number, target.creation)));
        }
    }

    /// Ends every process; none begins any more.
    pub(crate) fn stop_all(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let stop: Vec<_> = state.live.values().filter_map(|live| live.abort.clone()).collect();
        drop(state);
        stop.iter().for_each(AbortHandle::abort);
    }

    /// The pids of those that live, in the order they began.
    pub(crate) fn live(&self) -> Vec<Pid> {
        self.lock().ties.live()
    }
}

fn word(text: &str) -> Result<Atom, RegisterError> {
    match text.len() {
        1..=255 => Atom::new(text).map_err(|_| RegisterError::BadName { len: text.len() }),
        len => Err(RegisterError::BadName { len }),
    }
}

impl Node {
    /// Begins a process: a task with a pid and a mailbox, on the runtime that the node was started on. What it returns says how it ended: `()`, a `Result<(), _>`, or
    /// an [`Exit`]. It ends with the node at the latest.
    ///
    /// # Errors
    /// [`SpawnError::ShuttingDown`].
    pub fn spawn<F, R>(&self, run: F) -> Result<Pid, SpawnError>
    where
        F: FnOnce(Process) -> R,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        let node = self.inner();
        node.processes.begin(Arc::downgrade(&self.handle), node, Origin::Own, None, |process| {
            let running = run(process);
            Box::pin(async move { running.await.into() })
        })
    }

    /// Stops a process of this node where it waits next.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn stop(&self, pid: &Pid) -> Result<(), NoProcess> {
        let state = self.inner().processes.lock();
        let live = state.live.get(&pid.number).filter(|_| state.ties.is_own(pid)).ok_or(NoProcess)?;
        let abort = live.abort.clone();
        drop(state);
        abort.as_ref().map(AbortHandle::abort).ok_or(NoProcess)
    }

    /// The processes of this node, in the order they began.
    pub fn processes(&self) -> Vec<Pid> {
        self.inner().processes.live()
    }

    /// How many links and watchers a process of this node has.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn ties(&self, pid: &Pid) -> Result<usize, NoProcess> {
        let state = self.inner().processes.lock();
        if !state.ties.is_own(pid) {
            return Err(NoProcess);
        }
        Ok(state.ties.count(state.ties.own(pid.number, pid.creation)?))
    }

    /// Lets peers whose whole name matches one of these begin processes here, by [`Node::spawn_on`], over connections
    /// that agreed on the flag `remote_spawn`. The factory gets the peer's arguments.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken, or no atom of 1 to 255 bytes.
    pub fn enable_spawn<F, R>(&self, name: &str, allow: Vec<AccessPattern>, factory: F) -> Result<(), RegisterError>
    where
        F: Fn(Process, Term) -> R + Send + Sync + 'static,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        self.enable_spawn_with(name, allow, SpawnLimits::default(), factory)
    }

    /// Does what [`Node::enable_spawn`] does, within these limits.
    ///
    /// # Errors
    /// As [`Node::enable_spawn`].
    pub fn enable_spawn_with<F, R>(
        &self,
        name: &str,
        allow: Vec<AccessPattern>,
        limits: SpawnLimits,
        factory: F,
    ) -> Result<(), RegisterError>
    where
        F: Fn(Process, Term) -> R + Send + Sync + 'static,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        word(name)?;
        let mut state = self.inner().processes.lock();
        if state.factories.contains_key(name) {
            return Err(RegisterError::Taken { name: name.into() });
        }
        let offer = Offer { what: boxed(factory), allow };
        state.factories.insert(name.into(), Spawnable { offer, limits });
        Ok(())
    }

    /// Takes that back; processes that run go on. Says whether it was there.
    pub fn disable_spawn(&self, name: &str) -> bool {
        self.inner().processes.lock().factories.remove(name).is_some()
    }

    /// What peers may begin here, by name.
    pub fn spawns(&self) -> Vec<String> {
        self.inner().processes.lock().factories.keys().cloned().collect()
    }

    /// Connects if need be and begins a process at a peer that offers it by [`Node::enable_spawn`].
    ///
    /// # Errors
    /// [`SpawnError`]. After [`SpawnError::Call`] the process may have begun.
    pub async fn spawn_on(
        &self,
        peer: impl crate::IntoName,
        name: &str,
        arguments: &Term,
        deadline: Duration,
    ) -> Result<Pid, SpawnError> {
        let peer = peer.into_name().map_err(|error| CallError::from(crate::ConnectError::from(error)))?;
        self.spawn_there(peer, Request::Spawn(word(name)?, arguments.clone(), None), name, deadline).await
    }

    /// As [`Node::spawn_on`], and watches the process from its beginning on: however soon it ends, [`Monitor::down`] tells
    /// how.
    ///
    /// # Errors
    /// As [`Node::spawn_on`].
    pub async fn spawn_monitor(
        &self,
        peer: impl crate::IntoName,
        name: &str,
        arguments: &Term,
        deadline: Duration,
    ) -> Result<Monitor, SpawnError> {
        let peer = peer.into_name().map_err(|error| CallError::from(crate::ConnectError::from(error)))?;
        let name_word = word(name)?;
        // Who it is, the answer says; it may be overtaken by the news of its end.
        let mut monitor = self.watch_unborn(peer.clone());
        let request = Request::Spawn(name_word, arguments.clone(), Some(monitor.watch));
        monitor.pid = self.spawn_there(peer, request, name, deadline).await?;
        self.inner().processes.lock().ties.retarget(monitor.watch, monitor.pid.clone());
        Ok(monitor)
    }

    async fn spawn_there(
        &self,
        peer: NodeName,
        request: Request,
        name: &str,
        deadline: Duration,
    ) -> Result<Pid, SpawnError> {
        match self.ask(&peer, &request, deadline).await? {
            Ok(Some((number, creation))) => Ok(Pid { node: peer, number, creation }),
            Ok(None) => Err(SpawnError::Failed("it did not say which".into())),
            Err(unwilling) => Err(remote::spawn_error(name, unwilling)),
        }
    }

    fn watch_unborn(&self, peer: NodeName) -> Monitor {
        let pid = Pid { node: peer.clone(), number: 0, creation: 0 };
        self.begin_watch(pid, |ties| (ties.watch_unborn(peer), None)).0
    }

    fn watch(&self, pid: &Pid) -> (Monitor, Option<Effect>) {
        self.begin_watch(pid.clone(), |ties| ties.watch(pid))
    }

    fn begin_watch(
        &self,
        pid: Pid,
        begin: impl FnOnce(&mut Ties) -> (u64, Option<Effect>),
    ) -> (Monitor, Option<Effect>) {
        let (sender, exit) = oneshot::channel();
        let mut state = self.inner().processes.lock();
        let (watch, down) = begin(&mut state.ties);
        state.watches.insert(watch, sender);
        (Monitor { pid, watch, exit, node: Arc::downgrade(self.inner()) }, down)
    }

    /// Watches a process, of this node or another, without being tied to it. Connects if need be; a node that cannot be
    /// reached counts as down, and one with which the flag `monitor` is not agreed on ends it as [`Exit::Unwatched`].
    pub async fn monitor(&self, pid: &Pid) -> Monitor {
        let node = self.inner();
        // Before anybody is asked: the answer may be overtaken by what it watches for.
        let (monitor, down) = self.watch(pid);
        let (watch, own) = (monitor.watch, pid.node == *node.sessions.name());
        let mut effects = Vec::from_iter(down);
        if !own {
            let request = Request::Monitor(watch, (pid.number, pid.creation));
            let exit = match self.ask(&pid.node, &request, PATIENCE).await {
                Ok(Ok(_)) => None,
                Ok(Err(Unwilling { refusal: Refusal::NoProcess, .. })) => Some(Exit::NoProcess),
                Ok(Err(unwilling)) => Some(Exit::Unwatched(unwilling.text)),
                Err(error) => Some(Exit::NodeDown(error.to_string())),
            };
            effects.extend(exit.and_then(|exit| node.processes.lock().ties.down_there(&pid.node, watch, exit)));
        }
        node.processes.carry_out(node, effects);
        monitor
    }

    /// Connects if need be and waits until the connection to a node is down; a move to another link is no end. A node
    /// that cannot be reached is down at once.
    pub async fn monitor_node(&self, name: impl crate::IntoName) -> Exit {
        match self.connect(name).await {
            Ok(connection) => Exit::NodeDown(connection.closed().await.to_string()),
            Err(error) => Exit::NodeDown(error.to_string()),
        }
    }

    async fn link_processes(&self, number: u64, other: &Pid) -> Result<(), TieError> {
        let node = self.inner();
        let creation = {
            let mut state = node.processes.lock();
            state.ties.link(number, other)?;
            if state.ties.is_own(other) {
                return Ok(());
            }
            state.ties.creation()
        };
        let request = Request::Link((number, creation), (other.number, other.creation));
        let error = match self.ask(&other.node, &request, PATIENCE).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(unwilling)) => remote::tie_error(unwilling),
            Err(error) => error.into(),
        };
        // Also there, should the request have arrived and its answer not.
        node.processes.unlink(node, number, other);
        Err(error)
    }

    /// Connects if need be and sends a message to a process, of this node or another; see [`Connection::send`](crate::Connection::send).
    ///
    /// # Errors
    /// [`SendError`](crate::SendError); nothing was sent. Nobody says whether the process lives. A link carries at most
    /// 16,384 names, of services and of processes: with more of them than that, call a service that passes on.
    pub async fn send_to(&self, pid: &Pid, body: &[u8]) -> Result<(), crate::SendError> {
        self.send(&pid.node, &pid.mailbox(), body).await
    }

    /// Connects if need be, calls a process, of this node or another, and waits for its answer, at most `deadline` in all.
    ///
    /// # Errors
    /// [`CallError`]; `NoService` when the process is gone.
    pub async fn call_to(&self, pid: &Pid, body: &[u8], deadline: Duration) -> Result<bytes::Bytes, CallError> {
        self.call(&pid.node, &pid.mailbox(), body, deadline).await
    }
}

fn boxed<F, R>(factory: F) -> Factory
where
    F: Fn(Process, Term) -> R + Send + Sync + 'static,
    R: Future<Output: Into<Exit>> + Send + 'static,
{
    Arc::new(move |process, arguments| {
        let running = factory(process, arguments);
        Box::pin(async move { running.await.into() })
    })
}
