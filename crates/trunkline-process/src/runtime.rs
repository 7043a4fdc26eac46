//! Processes of a node: tasks with a pid and a mailbox, tied to others here and there by links and monitors. The ties are in
//! [`Ties`]; here are the tasks, and the requests and notices between nodes.

mod application;
mod error;
mod host;
mod remote;
mod state;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use trunkline_dial::{CallError, ConnectError};
use trunkline_matcher::AccessPattern;
use trunkline_route::{Chain, Incarnation, IntoName, NodeName};
use trunkline_stack::{Down, Mailbox, Mailboxes, Message, RegisterError};
use trunkline_term::{Atom, Term};

use crate::{Effect, Exit, MAX_TIES, NoProcess, Notice, Pid, Refusal, Request, Ties, Unwilling};

use state::{Live, Offer, Origin, Running, Spawnable, State, boxed};

pub use application::Application;
pub use error::{ApplicationError, SpawnError, TieError};
pub use host::ProcessHost;

/// Time that a peer may take to answer a request about its processes for which the caller gave no timeout.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Limits on the processes that peers begin by one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpawnLimits {
    /// Processes of this name that run at once; one more is refused as [`SpawnError::Overloaded`]. `None`, the default: no
    /// limit.
    pub max: Option<usize>,
}

/// The processes of one node.
///
/// ```
/// use std::sync::{Arc, Weak};
///
/// use trunkline_dial::{Sessions, SessionsConfig};
/// use trunkline_process::runtime::{ProcessHost, Processes, Signal};
/// use trunkline_process::Exit;
/// use trunkline_route::Cookie;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let config = SessionsConfig::new("app@lab".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
/// let node = Sessions::new(config, |_| {});
/// let processes = Processes::new(node.name().clone(), [7; 16].into(), node.mailboxes().clone());
/// let serving = processes.serve(Arc::downgrade(&node) as Weak<dyn ProcessHost>)?;
/// node.spawn(serving);
///
/// let worker = processes.spawn(|mut process| async move {
///     match process.recv().await {
///         Some(Signal::Message(message)) => Err(format!("{} bytes were too many", message.body().len())),
///         _ => Ok(()),
///     }
/// })?;
/// let monitor = processes.monitor(&worker).await;
/// node.send(&worker.node, &worker.mailbox(), b"hello").await?;
/// assert_eq!(monitor.down().await, Exit::Failed("5 bytes were too many".into()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Processes {
    own: Weak<Self>,
    name: NodeName,
    mailboxes: Arc<Mailboxes>,
    host: OnceLock<Weak<dyn ProcessHost>>,
    runtime: Handle,
    state: Mutex<State>,
}

/// Tells the others when a process ended, however it did.
struct Ending {
    processes: Weak<Processes>,
    number: u64,
    exit: Exit,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let exit = if std::thread::panicking() { &Exit::Panicked } else { &self.exit };
        if let Some(processes) = self.processes.upgrade() {
            processes.ended(self.number, exit);
        }
    }
}

impl Processes {
    /// Returns the processes of a node, none of which runs yet. Pids contain the first four bytes of the incarnation. The
    /// processes run in the current runtime, and receive by these mailboxes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(name: NodeName, incarnation: Incarnation, mailboxes: Arc<Mailboxes>) -> Arc<Self> {
        let [a, b, c, d, ..] = incarnation.to_bytes();
        Arc::new_cyclic(|own| Self {
            own: own.clone(),
            mailboxes,
            host: OnceLock::new(),
            runtime: Handle::current(),
            state: Mutex::new(State::new(Ties::new(name.clone(), u32::from_be_bytes([a, b, c, d])))),
            name,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the node; `None` when it is being dropped, and before [`Processes::serve`].
    fn host(&self) -> Option<Arc<dyn ProcessHost>> {
        self.host.get()?.upgrade()
    }

    /// Begins a process. The mailbox of a part of an application has the name of its service as well.
    fn begin(
        &self,
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
            let mailbox = self.mailboxes.register(&pid.mailbox()).and_then(|mut mailbox| {
                origin.mailbox().map_or(Ok(()), |name| mailbox.also(name))?;
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
            (Process { pid: pid.clone(), mailbox, exits, processes: self.own.clone(), peer }, pid)
        };
        let ending = Ending { processes: self.own.clone(), number: pid.number, exit: Exit::Killed };
        // What a factory does before its first await may depend on what a peer gave it.
        let running = catch_unwind(AssertUnwindSafe(|| run(process)));
        let running = running.unwrap_or_else(|_| Box::pin(async { Exit::Panicked }));
        // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
        let task = self.runtime.spawn(async move {
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

    fn ended(&self, number: u64, exit: &Exit) {
        let (effects, stop) = self.lock().ended(number, exit);
        stop.iter().for_each(AbortHandle::abort);
        self.carry_out(effects);
    }

    fn carry_out(&self, effects: impl IntoIterator<Item = Effect>) {
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
                    self.tell(&to.node, &Notice::Exit(own, other, exit));
                }
                Effect::DownThere { node: there, watch, exit } => {
                    self.tell(&there, &Notice::Down(watch, exit));
                }
            }
        }
    }

    fn creation(&self) -> u32 {
        self.lock().ties.creation()
    }

    /// Ends the ties to the processes of a peer. A node calls it whenever the connection to a peer went down.
    pub fn node_down(&self, peer: &NodeName, reason: &Down) {
        let effects = self.lock().ties.node_down(peer, &reason.to_string());
        self.carry_out(effects);
    }

    /// Ends every process where it waits next; none begins any more. A node calls it when it shuts down.
    pub fn stop_all(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let stop: Vec<_> = state.live.values().filter_map(|live| live.abort.clone()).collect();
        drop(state);
        stop.iter().for_each(AbortHandle::abort);
    }

    /// Begins a process: a task with a pid and a mailbox. Its result says how it ended: `()`, a `Result<(), _>`, or an
    /// [`Exit`]. It ends with the node at the latest.
    ///
    /// # Errors
    /// [`SpawnError::ShuttingDown`].
    pub fn spawn<F, R>(&self, run: F) -> Result<Pid, SpawnError>
    where
        F: FnOnce(Process) -> R,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        self.begin(Origin::Own, None, |process| {
            let running = run(process);
            Box::pin(async move { running.await.into() })
        })
    }

    /// Stops a process of this node where it waits next.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn stop(&self, pid: &Pid) -> Result<(), NoProcess> {
        let state = self.lock();
        let live = state.live.get(&pid.number).filter(|_| state.ties.is_own(pid)).ok_or(NoProcess)?;
        let abort = live.abort.clone();
        drop(state);
        abort.as_ref().map(AbortHandle::abort).ok_or(NoProcess)
    }

    /// Returns the processes of this node, in the order they began.
    pub fn live(&self) -> Vec<Pid> {
        self.lock().ties.live()
    }

    /// Returns how many links and watchers a process of this node has.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn ties(&self, pid: &Pid) -> Result<usize, NoProcess> {
        let state = self.lock();
        if !state.ties.is_own(pid) {
            return Err(NoProcess);
        }
        Ok(state.ties.count(state.ties.own(pid.number, pid.creation)?))
    }

    /// Lets peers whose whole name matches one of these begin processes here, by [`Processes::spawn_on`], over connections
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

    /// Lets peers begin processes here as [`Processes::enable_spawn`] does, within these limits.
    ///
    /// # Errors
    /// As [`Processes::enable_spawn`].
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
        let mut state = self.lock();
        if state.factories.contains_key(name) {
            return Err(RegisterError::Taken { name: name.into() });
        }
        let offer = Offer { what: boxed(factory), allow };
        state.factories.insert(name.into(), Spawnable { offer, limits });
        Ok(())
    }

    /// Withdraws what [`Processes::enable_spawn`] offers; processes that run go on. Returns true if it was offered.
    pub fn disable_spawn(&self, name: &str) -> bool {
        self.lock().factories.remove(name).is_some()
    }

    /// Returns the names of the processes that peers may begin here.
    pub fn spawns(&self) -> Vec<String> {
        self.lock().factories.keys().cloned().collect()
    }

    /// Connects if need be and begins a process at a peer that offers it by [`Processes::enable_spawn`].
    ///
    /// # Errors
    /// [`SpawnError`]. After [`SpawnError::Call`] the process may have begun.
    pub async fn spawn_on(
        &self,
        peer: impl IntoName,
        name: &str,
        arguments: &Term,
        timeout: Duration,
    ) -> Result<Pid, SpawnError> {
        let peer = named(peer)?;
        self.spawn_there(peer, Request::Spawn(word(name)?, arguments.clone(), None), name, timeout).await
    }

    /// Begins a process at a peer as [`Processes::spawn_on`] does, and watches it from its beginning on: however soon it
    /// ends, [`Monitor::down`] tells how.
    ///
    /// # Errors
    /// As [`Processes::spawn_on`].
    pub async fn spawn_monitor(
        &self,
        peer: impl IntoName,
        name: &str,
        arguments: &Term,
        timeout: Duration,
    ) -> Result<Monitor, SpawnError> {
        let peer = named(peer)?;
        let name_word = word(name)?;
        // The answer has the pid; news of the end may overtake the answer.
        let mut monitor = self.watch_unborn(peer.clone());
        let request = Request::Spawn(name_word, arguments.clone(), Some(monitor.watch));
        monitor.pid = self.spawn_there(peer, request, name, timeout).await?;
        self.lock().ties.retarget(monitor.watch, monitor.pid.clone());
        Ok(monitor)
    }

    async fn spawn_there(
        &self,
        peer: NodeName,
        request: Request,
        name: &str,
        timeout: Duration,
    ) -> Result<Pid, SpawnError> {
        match self.ask(&peer, &request, timeout).await? {
            Ok(Some((number, creation))) => Ok(Pid { node: peer, number, creation }),
            Ok(None) => Err(SpawnError::Failed("it did not say which".into())),
            Err(unwilling) => Err(SpawnError::refused(name, unwilling)),
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
        let mut state = self.lock();
        let (watch, down) = begin(&mut state.ties);
        state.watches.insert(watch, sender);
        (Monitor { pid, watch, exit, processes: self.own.clone() }, down)
    }

    fn unwatch(&self, watch: u64) {
        let mut state = self.lock();
        state.watches.remove(&watch);
        let target = state.ties.unwatch(watch).filter(|target| !state.ties.is_own(target));
        drop(state);
        if let Some(target) = target {
            self.tell(&target.node, &Notice::Demonitor(watch, (target.number, target.creation)));
        }
    }

    /// Watches a process, of this node or another, without being tied to it. Connects if need be; a node that cannot be
    /// reached counts as down, and one with which the flag `monitor` is not agreed on ends it as [`Exit::Unwatched`].
    pub async fn monitor(&self, pid: &Pid) -> Monitor {
        // Before the peer is asked: its answer may be overtaken by the end of the process.
        let (monitor, mut effect) = self.watch(pid);
        if pid.node != self.name {
            let request = Request::Monitor(monitor.watch, (pid.number, pid.creation));
            let exit = match self.ask(&pid.node, &request, TIMEOUT).await {
                Ok(Ok(_)) => None,
                Ok(Err(Unwilling { refusal: Refusal::NoProcess, .. })) => Some(Exit::NoProcess),
                Ok(Err(unwilling)) => Some(Exit::Unwatched(unwilling.text)),
                Err(error) => Some(Exit::NodeDown(Chain(&error).to_string())),
            };
            effect = exit.and_then(|exit| self.lock().ties.down_there(&pid.node, monitor.watch, exit));
        }
        self.carry_out(effect);
        monitor
    }

    async fn link(&self, number: u64, other: &Pid) -> Result<(), TieError> {
        let creation = {
            let mut state = self.lock();
            state.ties.link(number, other)?;
            if state.ties.is_own(other) {
                return Ok(());
            }
            state.ties.creation()
        };
        let request = Request::Link((number, creation), (other.number, other.creation));
        let error = match self.ask(&other.node, &request, TIMEOUT).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(unwilling)) => unwilling.into(),
            Err(error) => error.into(),
        };
        // Also there, should the request have arrived and its answer not.
        self.unlink(number, other);
        Err(error)
    }

    fn unlink(&self, number: u64, other: &Pid) {
        let mut state = self.lock();
        let told = state.ties.unlink(number, other) && !state.ties.is_own(other);
        drop(state);
        if told {
            let notice = Notice::Unlink((number, self.creation()), (other.number, other.creation));
            self.tell(&other.node, &notice);
        }
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.live()).finish()
    }
}

/// Input of a process.
#[derive(Debug)]
pub enum Signal {
    /// A message or a call.
    Message(Message),
    /// A process it was linked to ended.
    Exit {
        /// The process that ended.
        from: Pid,
        /// Reason.
        exit: Exit,
    },
}

/// A process, as its own code holds it.
pub struct Process {
    pid: Pid,
    mailbox: Mailbox,
    exits: mpsc::Receiver<(Pid, Exit)>,
    /// A process does not keep its node alive.
    processes: Weak<Processes>,
    peer: Option<NodeName>,
}

impl Process {
    /// Returns its name in the network.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Returns the peer that asked for it by [`Processes::spawn_on`] or [`Processes::start_application_on`]; `None` for a
    /// process that its own node began.
    pub fn peer(&self) -> Option<&NodeName> {
        self.peer.as_ref()
    }

    /// Returns the node it runs on; `None` when that is being dropped. A process that keeps it keeps the node from being
    /// dropped.
    pub fn host(&self) -> Option<Arc<dyn ProcessHost>> {
        self.processes.upgrade()?.host()
    }

    /// Waits for the next signal: messages first. `None` once the node shuts down. Dropping the future loses nothing.
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
        self.processes.upgrade().ok_or(NoProcess)?.link(self.pid.number, other).await
    }

    /// Unties it from another process; does nothing when they are not linked.
    pub fn unlink(&self, other: &Pid) {
        if let Some(processes) = self.processes.upgrade() {
            processes.unlink(self.pid.number, other);
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
    processes: Weak<Processes>,
}

impl Monitor {
    /// Returns the process that is watched.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Waits until it is gone: it ended, there was none, or the connection to its node went down.
    pub async fn down(mut self) -> Exit {
        (&mut self.exit).await.unwrap_or(Exit::Killed)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(processes) = self.processes.upgrade() {
            processes.unwatch(self.watch);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({})", self.pid)
    }
}

fn named(peer: impl IntoName) -> Result<NodeName, CallError> {
    peer.into_name().map_err(|error| ConnectError::from(error).into())
}

fn word(text: &str) -> Result<Atom, RegisterError> {
    match text.len() {
        1..=255 => Atom::new(text).map_err(|_| RegisterError::BadName { len: text.len() }),
        len => Err(RegisterError::BadName { len }),
    }
}

#[cfg(test)]
mod tests;
