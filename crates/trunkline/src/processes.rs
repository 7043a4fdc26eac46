//! Processes of a node: the methods of [`Node`] for what `trunkline-process` does.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline_dial::{CallError, ConnectError, Connection, SendError};
use trunkline_matcher::AccessPattern;
use trunkline_process::runtime::{
    Application, ApplicationError, Monitor, Process, ProcessHost, Processes, SpawnError, SpawnLimits,
};
use trunkline_process::{Exit, NoProcess, Pid};
use trunkline_route::{Chain, IntoName, NodeName};
use trunkline_stack::{BoxFuture, PeerLog, RegisterError};
use trunkline_term::Term;

use crate::Node;
use crate::inner::Handle;

impl ProcessHost for Handle {
    fn connect(self: Arc<Self>, peer: NodeName) -> BoxFuture<'static, Result<Connection, ConnectError>> {
        Box::pin(async move { self.inner.sessions.in_use(&peer, None).await })
    }

    fn connection(&self, peer: &NodeName) -> Option<Connection> {
        self.inner.sessions.connection(peer)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.sessions.spawn(task);
    }

    fn peer_log(&self) -> &PeerLog {
        self.inner.sessions.peer_log()
    }
}

/// The node of a process.
///
/// ```
/// use trunkline::{Node, ProcessExt};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let node = Node::builder("app@lab")?.cookie("a cookie of some length").no_registrar().start().await?;
/// let (tell, told) = tokio::sync::oneshot::channel();
/// node.spawn(|process| async move {
///     let name = process.node().map(|node| node.name().clone());
///     tell.send(name).unwrap();
/// })?;
/// assert_eq!(told.await?.as_ref(), Some(node.name()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub trait ProcessExt {
    /// Returns the node that the process runs on; `None` when that is being dropped. A process that keeps it keeps the node
    /// from being dropped.
    fn node(&self) -> Option<Node>;
}

impl ProcessExt for Process {
    fn node(&self) -> Option<Node> {
        let host: Arc<dyn Any + Send + Sync> = self.host()?;
        host.downcast::<Handle>().ok().map(|handle| Node { handle })
    }
}

impl Node {
    fn of_processes(&self) -> &Arc<Processes> {
        &self.inner().processes
    }

    /// Begins a process: a task with a pid and a mailbox, on the runtime that the node was started on. Its result says how it
    /// ended: `()`, a `Result<(), _>`, or an [`Exit`]. It ends with the node at the latest.
    ///
    /// # Errors
    /// [`SpawnError::ShuttingDown`].
    pub fn spawn<F, R>(&self, run: F) -> Result<Pid, SpawnError>
    where
        F: FnOnce(Process) -> R,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        self.of_processes().spawn(run)
    }

    /// Stops a process of this node where it waits next.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn stop(&self, pid: &Pid) -> Result<(), NoProcess> {
        self.of_processes().stop(pid)
    }

    /// Returns the processes of this node, in the order they began.
    pub fn processes(&self) -> Vec<Pid> {
        self.of_processes().live()
    }

    /// Returns how many links and watchers a process of this node has.
    ///
    /// # Errors
    /// [`NoProcess`]: there is none, or not on this node.
    pub fn ties(&self, pid: &Pid) -> Result<usize, NoProcess> {
        self.of_processes().ties(pid)
    }

    /// Lets peers begin processes here; see [`Processes::enable_spawn`].
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken, or no atom of 1 to 255 bytes.
    pub fn enable_spawn<F, R>(&self, name: &str, allow: Vec<AccessPattern>, factory: F) -> Result<(), RegisterError>
    where
        F: Fn(Process, Term) -> R + Send + Sync + 'static,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        self.of_processes().enable_spawn(name, allow, factory)
    }

    /// Lets peers begin processes here as [`Node::enable_spawn`] does, within these limits.
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
        self.of_processes().enable_spawn_with(name, allow, limits, factory)
    }

    /// Withdraws what [`Node::enable_spawn`] offers; processes that run go on. Returns true if it was offered.
    pub fn disable_spawn(&self, name: &str) -> bool {
        self.of_processes().disable_spawn(name)
    }

    /// Returns the names of the processes that peers may begin here.
    pub fn spawns(&self) -> Vec<String> {
        self.of_processes().spawns()
    }

    /// Connects if need be and begins a process at a peer that offers it by [`Node::enable_spawn`].
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
        self.of_processes().spawn_on(peer, name, arguments, timeout).await
    }

    /// Begins a process as [`Node::spawn_on`] does, and watches it from its beginning on; see
    /// [`Processes::spawn_monitor`].
    ///
    /// # Errors
    /// As [`Node::spawn_on`].
    pub async fn spawn_monitor(
        &self,
        peer: impl IntoName,
        name: &str,
        arguments: &Term,
        timeout: Duration,
    ) -> Result<Monitor, SpawnError> {
        self.of_processes().spawn_monitor(peer, name, arguments, timeout).await
    }

    /// Watches a process, of this node or another; see [`Processes::monitor`].
    pub async fn monitor(&self, pid: &Pid) -> Monitor {
        self.of_processes().monitor(pid).await
    }

    /// Connects if need be and waits until the connection to a node is down; a move to another link is no end. A node that
    /// cannot be reached is down at once.
    pub async fn monitor_node(&self, name: impl IntoName) -> Exit {
        let connected = match name.into_name() {
            Ok(name) => self.connect(name).await,
            Err(error) => Err(error.into()),
        };
        match connected {
            Ok(connection) => Exit::NodeDown(connection.closed().await.to_string()),
            Err(error) => Exit::NodeDown(Chain(&error).to_string()),
        }
    }

    /// Connects if need be and sends a message to a process, of this node or another; see [`Connection::send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent. A process that does not live is no error. A link carries at most 16,384 names, of
    /// mailboxes and of processes: with more of them than that, send to a mailbox whose owner passes messages on.
    pub async fn send_to(&self, pid: &Pid, body: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.send(&pid.node, &pid.mailbox(), body).await
    }

    /// Connects if need be, calls a process, of this node or another, and waits for its answer, at most `timeout` in all.
    ///
    /// # Errors
    /// [`CallError`]; `NoMailbox` when the process is gone.
    pub async fn call_to(&self, pid: &Pid, body: impl AsRef<[u8]>, timeout: Duration) -> Result<Bytes, CallError> {
        self.call(&pid.node, &pid.mailbox(), body, timeout).await.map(Bytes::from)
    }

    /// Makes an application known, which some peers may start; see [`Processes::enable_application`].
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken, or no atom of 1 to 255 bytes.
    pub fn enable_application(
        &self,
        name: &str,
        allow: Vec<AccessPattern>,
        application: Application,
    ) -> Result<(), RegisterError> {
        self.of_processes().enable_application(name, allow, application)
    }

    /// Returns the applications of this node, and the processes of those that run.
    pub fn applications(&self) -> Vec<(String, Vec<Pid>)> {
        self.of_processes().applications()
    }

    /// Starts an application: all of its processes, or none.
    ///
    /// # Errors
    /// [`ApplicationError`]; it does not run because of this call.
    pub fn start_application(&self, name: &str) -> Result<(), ApplicationError> {
        self.of_processes().start_application(name)
    }

    /// Stops an application where each of its processes waits next.
    ///
    /// # Errors
    /// [`ApplicationError::Unknown`], [`ApplicationError::NotRunning`].
    pub fn stop_application(&self, name: &str) -> Result<(), ApplicationError> {
        self.of_processes().stop_application(name)
    }

    /// Connects if need be and starts an application of a peer that offers it by [`Node::enable_application`].
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn start_application_on(
        &self,
        peer: impl IntoName,
        name: &str,
        timeout: Duration,
    ) -> Result<(), ApplicationError> {
        self.of_processes().start_application_on(peer, name, timeout).await
    }
}
