//! The membership of a node that runs.

mod join;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use trunkline_dial::sessions::ConnectRequest;
use trunkline_dial::{Chain, Sessions};
use trunkline_registrar::{BoxFuture, ResolveError, Resolver};
use trunkline_route::{Address, Cause, Endpoint, NodeName};
use trunkline_stack::{LinkInfo, Mailbox, Message as Received};

use crate::join::Tokens;
use crate::message::{Message, MessageError};
use crate::{
    ClusterNameError, ClusterRouteStatus, ForgetError, MemberStatus, Mesh, Output, Role, Settings, View, Way, book,
};

pub use join::{NotWelcome, TokenError};

/// Shortest time between two writes of the peer book, in which changes are gathered, and as much more for each member that
/// is known.
const GATHERED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1));
/// Time after which the peer book is written without a change, so that it says when members were heard last.
const WRITTEN_AGAIN: Duration = Duration::from_secs(3600);

/// Time after which messages that wait are tried again.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// Time between two looks at the connections that there are.
const LOOK: Duration = Duration::from_secs(5);

/// Mailbox at which members exchange whom they know.
pub const MESH_MAILBOX: &str = "$mesh";

#[expect(clippy::disallowed_methods, reason = "the driver is the shell that brings the time")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the peer book tells times of the calendar")]
fn today() -> SystemTime {
    SystemTime::now()
}

/// State of a cluster as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// Role of the member.
    pub role: Role,
    /// Other nodes that the member knows, by name.
    pub peers: Vec<MemberStatus>,
    /// Routes of the member, by address.
    pub routes: Vec<ClusterRouteStatus>,
}

/// Cluster as its members see it, each in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterNetwork {
    /// Members that answered, this node first, the others by name.
    pub nodes: Vec<NetworkMember>,
    /// Members that are known and did not answer, by name, each with the reason.
    pub silent: Vec<(NodeName, String)>,
}

/// Answer of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMember {
    /// Name of the member.
    pub name: NodeName,
    /// Time until the answer.
    pub took: Duration,
    /// Members that it is connected to, and its routes.
    pub view: View,
}

/// The membership of a node in a cluster. It is a resolver as well, which answers with the addresses of members.
///
/// [`Cluster::up`] and [`Cluster::down`] tell it of connections, and [`Cluster::run`] does the rest.
pub struct Cluster {
    mesh: Mutex<Mesh>,
    changed: Notify,
    book: Option<PathBuf>,
    /// Connections of the node, from the begin of [`Cluster::run`].
    sessions: OnceLock<Weak<Sessions>>,
    /// Tokens that this node issued.
    tokens: Mutex<Tokens>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.lock().cluster()).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Returns the membership of a node with these routes: hosts and ports at which members are found. `book` is a file for the
    /// members that the node was connected to: they are dialled by the next instance. It is read
    /// here; one that cannot be read costs the memory of members, and a warning.
    ///
    /// # Errors
    /// [`ClusterNameError`].
    pub fn new(settings: Settings, routes: Vec<Address>, book: Option<PathBuf>) -> Result<Arc<Self>, ClusterNameError> {
        let mut mesh = Mesh::new(settings, now())?;
        mesh.set_routes(now(), routes);
        if let Some(path) = &book {
            match book::read(path, mesh.cluster(), today()) {
                Ok(known) => mesh.remember(now(), known),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the peer book cannot be read; it is begun again");
                }
            }
        }
        let (changed, sessions) = (Notify::new(), OnceLock::new());
        let tokens = Mutex::new(join::read_tokens(book.as_deref()));
        Ok(Arc::new(Self { mesh: Mutex::new(mesh), changed, book, sessions, tokens }))
    }

    fn lock(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: impl FnOnce(&mut Mesh, Instant)) {
        what(&mut self.lock(), now());
        self.changed.notify_one();
    }

    /// Replaces the routes. Nobody is disconnected.
    pub fn set_routes(&self, routes: Vec<Address>) {
        self.tell(|mesh, now| mesh.set_routes(now, routes));
    }

    /// Notes that a link is up.
    pub fn up(&self, link: &LinkInfo) {
        self.tell(|mesh, now| mesh.up(now, &link.peer, way(link)));
    }

    /// Notes that the connection to a node is down. If somebody wanted it gone, the node is not dialled again by itself.
    pub fn down(&self, name: &NodeName, is_wanted: bool) {
        self.tell(|mesh, now| mesh.down(now, name, is_wanted));
    }

    /// Returns true if a node is connected and belongs to the cluster.
    pub fn is_neighbour(&self, name: &NodeName) -> bool {
        self.lock().is_neighbour(name)
    }

    /// Returns the role of this node.
    pub fn role(&self) -> Role {
        self.lock().role()
    }

    /// Returns true for a leaf that is not connected here, and that a neighbour leads to, as it says.
    pub fn is_led_to(&self, name: &NodeName) -> bool {
        self.lock().is_led_to(name)
    }

    /// Returns the neighbours that may lead to a member which cannot be dialled, in the order to try.
    pub fn gateways_to(&self, name: &NodeName) -> Vec<NodeName> {
        self.lock().gateways(name)
    }

    /// Returns the name of the cluster.
    pub fn name(&self) -> String {
        self.lock().cluster().to_owned()
    }

    /// Returns what this node knows of another one.
    pub fn member(&self, name: &NodeName) -> Option<MemberStatus> {
        self.lock().peer(now(), name)
    }

    /// Returns the state of the cluster as this node sees it.
    pub fn status(&self) -> ClusterStatus {
        let mesh = self.lock();
        let (peers, routes) = (mesh.peers(now()), mesh.routes(now()));
        ClusterStatus { cluster: mesh.cluster().to_owned(), role: mesh.role(), peers, routes }
    }

    /// Forgets a member that is gone for good, and tells the others: nobody dials it any more. It is a member again when it
    /// connects to one.
    ///
    /// # Errors
    /// [`ForgetError`]; nothing changed.
    pub fn forget(&self, name: &NodeName) -> Result<(), ForgetError> {
        let forgotten = self.lock().forget(now(), name);
        self.changed.notify_one();
        forgotten
    }

    /// Asks every member whom it is connected to and which routes it has. Returns when all that are connected answered, at
    /// the latest after the timeout.
    pub async fn network(&self, timeout: Duration) -> ClusterNetwork {
        let (name, view, members) = {
            let mesh = self.lock();
            let members = mesh.peers(now()).into_iter().filter(|member| member.other_cluster.is_none());
            (mesh.name().clone(), mesh.view(), members.collect::<Vec<_>>())
        };
        let mut network =
            ClusterNetwork { nodes: vec![NetworkMember { name, took: Duration::ZERO, view }], silent: Vec::new() };
        let sessions = self.sessions.get().and_then(Weak::upgrade);
        let (question, mut asking) = (Message::Ask.encode(), JoinSet::new());
        for member in members {
            let connection = sessions.as_ref().filter(|_| member.is_up).and_then(|all| all.connection(&member.name));
            let Some(connection) = connection else {
                let reason = match (member.role, member.told_by, member.last_error) {
                    (Role::Leaf, Some(by), _) => format!("not asked: a leaf, which is connected to {by} only"),
                    (.., Some((error, _))) => format!("not connected: {error}"),
                    _ => "not connected".into(),
                };
                network.silent.push((member.name, reason));
                continue;
            };
            let (question, began) = (question.clone(), now());
            asking.spawn(async move {
                let answer = connection.call(MESH_MAILBOX, "", &question, timeout).await;
                let view =
                    answer.map_err(|error| Chain(&error).to_string()).and_then(|bytes| match Message::decode(&bytes) {
                        Ok(Message::View(view)) => Ok(view),
                        Ok(_) => Err("the answer is of another kind".into()),
                        Err(error) => Err(error.to_string()),
                    });
                (member.name, now() - began, view)
            });
        }
        while let Some(joined) = asking.join_next().await {
            match joined {
                Ok((name, took, Ok(view))) => network.nodes.push(NetworkMember { name, took, view }),
                Ok((name, _, Err(error))) => network.silent.push((name, error)),
                Err(_) => {}
            }
        }
        network.nodes[1..].sort_by(|a, b| a.name.cmp(&b.name));
        network.silent.sort();
        network
    }

    /// Exchanges, dials and asks until the node is gone. `mailbox` is the one of the name [`MESH_MAILBOX`]; connections are
    /// those of `sessions`, whose discovery has to contain this resolver.
    pub async fn run(self: Arc<Self>, sessions: Weak<Sessions>, mut mailbox: Mailbox) {
        let _ = self.sessions.set(sessions.clone());
        self.admit_guests();
        let mut guests = sessions.upgrade().and_then(|sessions| sessions.guest_mailboxes().register(MESH_MAILBOX).ok());
        let mut tasks = JoinSet::new();
        let (mut has_news, mut written, mut looked) = (false, now(), now());
        let mut waiting = Waiting::default();
        loop {
            waiting.take(&mut mailbox, |message| self.take(message));
            has_news |= self.lock().takes_news();
            let due = written + if has_news { gathered(self.lock().size()) } else { WRITTEN_AGAIN };
            if self.book.is_some() && now() >= due {
                (has_news, written) = (false, now());
                self.write_book().await;
            }
            let next = {
                let Some(sessions) = sessions.upgrade() else { return };
                if now() >= looked + LOOK {
                    looked = now();
                    self.reconcile(&sessions);
                }
                self.carry_out(&sessions, &mut tasks);
                self.lock().next_time().min(looked + LOOK)
            };
            let next = if self.book.is_some() { next.min(due) } else { next };
            let next = if waiting.is_empty() { next } else { next.min(now() + READ_AGAIN) };
            tokio::select! {
                message = mailbox.recv() => {
                    let Some(message) = message else { return };
                    if let Some(later) = self.take(message) {
                        waiting.add(later, &mut mailbox);
                    }
                }
                message = next_of_guests(&mut guests) => self.take_guest(message),
                () = self.changed.notified() => {}
                Some(_) = tasks.join_next() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Takes a message, or answers a call. Returns the message if it is to be read later.
    fn take(self: &Arc<Self>, message: Received) -> Option<Received> {
        let from = message.node().clone();
        let refused = |error: MessageError| {
            tracing::debug!(peer = %from, %error, "a message of the peer exchange is refused");
        };
        if message.is_call() {
            let answer = self.lock().answer(now(), &from, message.body());
            if answer == Err(MessageError::TooOften) && self.is_neighbour(&from) {
                return Some(message);
            }
            answer.map_or_else(refused, |answer| message.reply(answer));
            return None;
        }
        let other = |mesh: &Mesh| mesh.other_cluster(&from).map(str::to_owned);
        let (taken, before, after) = {
            let mut mesh = self.lock();
            let before = other(&mesh);
            (mesh.message(now(), &from, message.body()), before, other(&mesh))
        };
        if let Some(cluster) = after.filter(|after| before.as_ref() != Some(after)) {
            tracing::warn!(peer = %from, cluster, "a node of another cluster is connected; it is no member");
        }
        // One that is no member waits for nothing.
        if taken == Err(MessageError::TooOften) && self.is_neighbour(&from) {
            return Some(message);
        }
        taken.unwrap_or_else(refused);
        None
    }

    /// Answers the call of a guest.
    fn take_guest(self: &Arc<Self>, message: Received) {
        if let Ok(Message::Join(name)) = Message::decode(message.body()) {
            let (cluster, guest) = (self.clone(), message.node().clone());
            // A token is used in the file first.
            tokio::task::spawn_blocking(move || message.reply(cluster.answer_guest(&guest, &name).encode()));
        }
    }

    async fn write_book(&self) {
        let Some(path) = self.book.clone() else { return };
        let (cluster, known) = {
            let mesh = self.lock();
            (mesh.cluster().to_owned(), mesh.known(now()))
        };
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || book::write(&path, &cluster, &known, today())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(path = shown, %error, "the peer book cannot be written; the members are forgotten at the next start");
        }
    }

    fn carry_out(self: &Arc<Self>, sessions: &Arc<Sessions>, tasks: &mut JoinSet<()>) {
        loop {
            // The lock is not held while a message is sent or a task begins.
            let Some(output) = self.lock().poll(now()) else { return };
            match output {
                Output::Send { to, message } => {
                    // Without credit it is lost: the next exchange makes up for it, and nobody else waits.
                    let sent =
                        sessions.connection(&to).map(|connection| connection.try_send(MESH_MAILBOX, "", &message));
                    if let Some(Err(error)) = sent {
                        tracing::debug!(peer = %to, %error, "a message of the peer exchange is not sent");
                    }
                }
                Output::Dial(name) => self.dial(name, ConnectRequest::default(), sessions, tasks),
                Output::DialDirectly(name) => {
                    let directly = ConnectRequest { directly: true, ..ConnectRequest::default() };
                    self.dial(name, directly, sessions, tasks);
                }
                Output::Learn(route) => {
                    let report = Report::new(self, Output::Learn(route.clone()));
                    let sessions = Arc::downgrade(sessions);
                    tasks.spawn(async move {
                        let Some(sessions) = sessions.upgrade() else { return };
                        let found = match sessions.learn(&route).await {
                            Ok(learnt) if learnt.found.is_empty() => Err(learnt.failed.first().map_or_else(
                                || "the host has no address".into(),
                                |(to, error)| format!("{to}: {}", Chain(error)).into(),
                            )),
                            Ok(learnt) => Ok(learnt.found),
                            Err(error) => Err(Cause::new(error)),
                        };
                        report.tell(|mesh, now| {
                            let before = mesh.route_error(&route).map(str::to_owned);
                            mesh.learnt(now, &route, found);
                            // Each cause once: the route is asked for ever.
                            match (before.as_deref(), mesh.route_error(&route)) {
                                (before, Some(error)) if before != Some(error) => {
                                    tracing::warn!(%route, error, "no member is found by a route of the cluster");
                                }
                                (Some(_), None) => tracing::info!(%route, "a route of the cluster works again"),
                                _ => {}
                            }
                        });
                    });
                }
            }
        }
    }

    fn dial(
        self: &Arc<Self>,
        name: NodeName,
        request: ConnectRequest,
        sessions: &Arc<Sessions>,
        tasks: &mut JoinSet<()>,
    ) {
        let report = Report::new(self, Output::Dial(name.clone()));
        let sessions = Arc::downgrade(sessions);
        tasks.spawn(async move {
            let Some(sessions) = sessions.upgrade() else { return };
            let connected = sessions.connect(name.clone(), request).await;
            let result = connected.map(drop).map_err(Cause::new);
            report.tell(|mesh, now| mesh.dialled(now, &name, result));
        });
    }

    /// Compares what is known with the connections that there are.
    fn reconcile(&self, sessions: &Sessions) {
        let connected = sessions.nodes().into_iter().filter(|(info, _)| sessions.keys().is_of_node(&info.cookie));
        let connected = connected.map(|(info, _)| (info.peer.clone(), way(&info))).collect();
        self.tell(|mesh, now| mesh.reconcile(now, &connected));
    }
}

/// The next message of each neighbour that sends more than is read of it. Those behind it stay in the mailbox, so that the
/// neighbour gets no credit for them.
#[derive(Default)]
struct Waiting(BTreeMap<NodeName, Received>);

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, message: Received, mailbox: &mut Mailbox) {
        mailbox.hold(message.node());
        self.0.insert(message.node().clone(), message);
    }

    /// Takes those that may be read by now.
    fn take(&mut self, mailbox: &mut Mailbox, take: impl Fn(Received) -> Option<Received>) {
        for (from, message) in std::mem::take(&mut self.0) {
            match take(message) {
                Some(later) => drop(self.0.insert(from, later)),
                None => mailbox.resume(&from),
            }
        }
    }
}

/// Returns the next message of a guest; never without a mailbox for them.
async fn next_of_guests(mailbox: &mut Option<Mailbox>) -> Received {
    if let Some(message) = match mailbox {
        Some(mailbox) => mailbox.recv().await,
        None => None,
    } {
        return message;
    }
    std::future::pending().await
}

fn gathered(members: usize) -> Duration {
    GATHERED.0 + GATHERED.1 * u32::try_from(members).unwrap_or(u32::MAX)
}

fn way(link: &LinkInfo) -> Way {
    if link.via.is_some() { Way::ThroughOthers } else { Way::Direct }
}

/// Report of a task about what it was told to do. Dropped without one, the task panicked or was stopped: that is a failure.
struct Report {
    cluster: Arc<Cluster>,
    what: Option<Output>,
}

impl Report {
    fn new(cluster: &Arc<Cluster>, what: Output) -> Self {
        Self { cluster: cluster.clone(), what: Some(what) }
    }

    fn tell(mut self, outcome: impl FnOnce(&mut Mesh, Instant)) {
        self.what = None;
        self.cluster.tell(outcome);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let failed = || Cause::from("it ended unexpectedly; this is a bug");
        match self.what.take() {
            Some(Output::Dial(name)) => self.cluster.tell(|mesh, now| mesh.dialled(now, &name, Err(failed()))),
            Some(Output::Learn(route)) => self.cluster.tell(|mesh, now| mesh.learnt(now, &route, Err(failed()))),
            Some(Output::DialDirectly(_) | Output::Send { .. }) | None => {}
        }
    }
}

impl Resolver for Cluster {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        let found = self.lock().addresses(name).into_iter().map(Endpoint::at).collect();
        Box::pin(async move { Ok(found) })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        let found = self.gateways_to(name);
        Box::pin(async move { Ok(found) })
    }
}
