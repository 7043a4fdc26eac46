//! Stream services of a node, and streams to those of others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use trunkline_dial::ConnectError;
use trunkline_matcher::AccessPattern;
use trunkline_route::{Cause, IntoTarget, LocalPlace, NodeName, SocketPlace, Target as To, later};
use trunkline_stack::{ByteStream, First, Incoming, OpenError, StreamCode, StreamKind, log_peer};

use crate::forward::{Destination, Forward, ForwardError};
use crate::socket::connect;
use crate::splice::splice;
use crate::traffic::{Traffic, TrafficStats};
use crate::{StreamHost, now};

/// Longest time that a connection to the place of a service may take, if the peer waits that long.
const CONNECT: Duration = Duration::from_secs(5);
/// A peer that was heard within this time gets the first bytes along with a request for a stream. To one that is silent for
/// longer the request alone goes out, so that it can move to another way if the link turns out to be broken.
const HEARD: Duration = Duration::from_secs(1);
/// Streams of a [`Streams`] that may wait to be taken.
const WAITING: usize = 256;
/// Longest name of a service, in bytes.
const MAX_NAME: usize = 255;

/// Reason why a service is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The name does not have 1 to 255 bytes.
    #[error("a service name has 1 to 255 bytes, this one has {len}")]
    BadName {
        /// Bytes of the name.
        len: usize,
    },
    /// The node is shutting down, or has shut down.
    #[error("this node is shutting down; it offers nothing new")]
    ShuttingDown,
    /// A service of that name is offered.
    #[error("a stream service named {0:?} is offered already; withdraw it first, or choose another name")]
    Taken(String),
}

/// Reason why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// No connection to the node.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream was refused, or not answered in time.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Options of the connections of a service or a forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A connection over which no byte moved in either direction for so long is reset at both ends; the end comes after one
    /// to two times this time. `None`, the default: no limit; of TCP connections the kernel still notices within two minutes
    /// that the other end's host vanished.
    pub idle: Option<Duration>,
}

/// State of a stream service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Name of the service.
    pub name: String,
    /// Socket that its streams lead to; `None` if this program takes them.
    pub place: Option<SocketPlace>,
    /// Options of its connections.
    pub options: StreamOptions,
    /// Counters of its streams.
    pub traffic: TrafficStats,
}

/// The streams that peers open to a service of this program. Dropped, it takes no more.
#[derive(Debug)]
pub struct Streams(mpsc::Receiver<Incoming>);

impl Streams {
    /// Returns the next stream whose peer still waits: accept it, or refuse it with a reason. `None` when the service was
    /// withdrawn or the node has shut down.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            let incoming = self.0.recv().await?;
            if !incoming.is_cancelled() {
                return Some(incoming);
            }
        }
    }
}

/// Destination of the streams of a service.
enum Target {
    Place(SocketPlace),
    Program(mpsc::Sender<Incoming>),
}

struct Service {
    allow: Vec<AccessPattern>,
    target: Target,
    options: StreamOptions,
    traffic: Traffic,
}

/// The stream services of one node, and its way to those of others.
///
/// ```
/// use std::sync::{Arc, Weak};
/// use std::time::Duration;
///
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use trunkline_dial::{Sessions, SessionsConfig};
/// use trunkline_forward::{Services, StreamHost};
/// use trunkline_matcher::AccessPattern;
/// use trunkline_route::Cookie;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// // A node without stacks reaches itself only.
/// let config = SessionsConfig::new("a@h".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
/// let node = Sessions::new(config, |_| {});
/// let services = Arc::new(Services::new(Arc::downgrade(&node) as Weak<dyn StreamHost>, Duration::from_secs(30)));
/// let of_the_node = services.clone();
/// node.mailboxes().accept_streams(Some(Arc::new(move |incoming| of_the_node.dispatch(incoming))));
///
/// let mut echo = services.accept("echo", vec![AccessPattern::new("a@h")?])?;
/// tokio::spawn(async move {
///     while let Some(incoming) = echo.next().await {
///         let (mut reader, mut writer) = tokio::io::split(incoming.accept());
///         tokio::io::copy(&mut reader, &mut writer).await.unwrap();
///         writer.shutdown().await.unwrap();
///     }
/// });
/// let mut stream = services.open("a@h", "echo", Duration::from_secs(5)).await?;
/// stream.write_all(b"hello").await?;
/// stream.shutdown().await?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Services {
    host: Weak<dyn StreamHost>,
    runtime: Handle,
    open_timeout: Duration,
    offered: RwLock<BTreeMap<String, Arc<Service>>>,
}

impl Services {
    /// Returns the services of a node that offers none yet. The caller passes streams that peers want to
    /// [`Services::dispatch`]. Forwards run on the current runtime. A connection to a forward waits `open_timeout` for its
    /// stream, which is to be long enough to notice that a link is dead and to find another way.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(host: Weak<dyn StreamHost>, open_timeout: Duration) -> Self {
        Self { host, runtime: Handle::current(), open_timeout, offered: RwLock::default() }
    }

    /// Serves streams of this name: each is connected to the place. `allow` must match the whole name of the peer; an
    /// empty list allows no peer.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing changed.
    pub fn serve(&self, service: &str, place: SocketPlace, allow: Vec<AccessPattern>) -> Result<(), ServiceError> {
        self.serve_with(service, place, allow, StreamOptions::default())
    }

    /// Serves streams as [`Services::serve`] does, with these options for every connection.
    ///
    /// # Errors
    /// As [`Services::serve`].
    pub fn serve_with(
        &self,
        service: &str,
        place: SocketPlace,
        allow: Vec<AccessPattern>,
        options: StreamOptions,
    ) -> Result<(), ServiceError> {
        self.offer(service, Target::Place(place), allow, options)
    }

    /// Serves streams of this name by this program. At most 256 streams wait to be taken; further ones are refused as
    /// [`StreamCode::Overloaded`].
    ///
    /// # Errors
    /// As [`Services::serve`].
    pub fn accept(&self, service: &str, allow: Vec<AccessPattern>) -> Result<Streams, ServiceError> {
        let (sender, streams) = mpsc::channel(WAITING);
        self.offer(service, Target::Program(sender), allow, StreamOptions::default())?;
        Ok(Streams(streams))
    }

    fn offer(
        &self,
        name: &str,
        target: Target,
        allow: Vec<AccessPattern>,
        options: StreamOptions,
    ) -> Result<(), ServiceError> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(ServiceError::BadName { len: name.len() });
        }
        let mut offered = self.write();
        // Under the lock: a node that shuts down withdraws everything afterwards.
        self.host().ok_or(ServiceError::ShuttingDown)?;
        match offered.entry(name.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(Arc::new(Service { allow, target, options, traffic: Traffic::default() }));
                Ok(())
            }
            Entry::Occupied(_) => Err(ServiceError::Taken(name.to_owned())),
        }
    }

    /// Withdraws a service; streams that are open stay. Returns true if there was one of that name.
    pub fn withdraw(&self, service: &str) -> bool {
        self.write().remove(service).is_some()
    }

    /// Withdraws all services; streams that are open stay. A node calls it when it has shut down.
    pub fn withdraw_all(&self) {
        self.write().clear();
    }

    /// Returns the state of every service, by name.
    pub fn list(&self) -> Vec<ServiceStatus> {
        let status = |(name, service): (&String, &Arc<Service>)| ServiceStatus {
            name: name.clone(),
            place: match &service.target {
                Target::Place(place) => Some(place.clone()),
                Target::Program(_) => None,
            },
            options: service.options,
            traffic: service.traffic.stats(),
        };
        self.read().iter().map(status).collect()
    }

    /// Connects a stream that a peer wants with its service, or refuses it. Does not wait.
    pub fn dispatch(&self, incoming: Incoming) {
        let Some(host) = self.host.upgrade() else { return };
        if incoming.kind() != StreamKind::Service {
            return incoming.refuse(StreamCode::NoService, "streams of this kind lead nowhere here");
        }
        let name = std::str::from_utf8(incoming.data()).unwrap_or_default();
        let name = incoming.mapping().and_then(|mapping| mapping.from_peer(name)).map_or(name, |here| here).to_owned();
        let Some(service) = self.read().get(&name).cloned() else {
            let text = format!("there is no stream service {name:?}; `services:` or Node::serve makes one");
            return incoming.refuse(StreamCode::NoService, &text);
        };
        if !service.allow.iter().any(|pattern| pattern.is_match(incoming.peer().as_str())) {
            let peer = incoming.peer();
            log_peer!(host, peer, WARN, "a stream was refused: the service does not allow this node", %peer, service = name);
            service.traffic.refuses();
            return incoming.refuse(StreamCode::NotAllowed, "the service does not allow this node");
        }
        match &service.target {
            Target::Place(_) => host.spawn(Box::pin(serve(self.host.clone(), service, name, incoming))),
            Target::Program(streams) => {
                let Err(error) = streams.try_send(incoming) else { return };
                service.traffic.refuses();
                match error {
                    mpsc::error::TrySendError::Full(incoming) => {
                        incoming.refuse(StreamCode::Overloaded, "too many streams wait to be taken");
                    }
                    mpsc::error::TrySendError::Closed(incoming) => {
                        incoming.refuse(StreamCode::NoService, "the program takes no more streams");
                    }
                }
            }
        }
    }

    /// Connects if need be and opens a stream to a service of the peer, within the `timeout` (connecting included). Of a
    /// target `@service` one node is chosen, and the next one if it refuses or is not reached; [`ByteStream::peer`] tells it.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(
        &self,
        peer: impl IntoTarget,
        service: &str,
        timeout: Duration,
    ) -> Result<ByteStream, StreamError> {
        self.open_with(peer, service, First::default(), timeout).await
    }

    /// Opens a stream; see [`Services::open`]. The first bytes go out with the request for the stream, and so arrive a round
    /// trip sooner. Over a link on which nothing came for a second they go out once the stream is open: if the link turns out
    /// to be broken, the request moves to another link. Bytes that went out are sent over another link again if the first
    /// link was ending and refused them, and never when the service may have read them.
    ///
    /// # Errors
    /// [`StreamError`]. When the link broke or the time was over, the service may have seen the first bytes.
    pub async fn open_with(
        &self,
        peer: impl IntoTarget,
        service: &str,
        first: First<'_>,
        timeout: Duration,
    ) -> Result<ByteStream, StreamError> {
        let peer = peer.into_target().map_err(ConnectError::from)?;
        let host = self.host.upgrade().ok_or(ConnectError::ShuttingDown)?;
        open(&host, &peer, service, first, timeout).await
    }

    /// Listens at a place of this machine and leads each connection to a service of the peer: one stream each, over the one
    /// connection to the peer, which is made when the first stream is needed. Of a target `@service` a node is chosen for each
    /// connection, which stays with it. A connection whose stream is refused is reset,
    /// and so is one beyond the 4,096 that a forward has at once.
    ///
    /// A Unix socket that a dead process left behind is replaced; one where a process answers is not.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(
        &self,
        place: LocalPlace,
        peer: impl IntoTarget,
        service: &str,
    ) -> Result<Forward, ForwardError> {
        self.forward_with(place, peer, service, StreamOptions::default()).await
    }

    /// Forwards connections as [`Services::forward`] does, with these options for each of them.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward_with(
        &self,
        place: LocalPlace,
        peer: impl IntoTarget,
        service: &str,
        options: StreamOptions,
    ) -> Result<Forward, ForwardError> {
        let peer = peer.into_target()?;
        let host = self.host().ok_or(ForwardError::ShuttingDown)?;
        let to = Destination::new(peer, service, options, self.open_timeout);
        Forward::start(&host, &self.runtime, place, to).await
    }

    /// Returns the node, unless it is shutting down.
    fn host(&self) -> Option<Arc<dyn StreamHost>> {
        self.host.upgrade().filter(|host| !*host.shutting_down().borrow())
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Arc<Service>>> {
        self.offered.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Arc<Service>>> {
        self.offered.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read().keys()).finish()
    }
}

/// Connects a stream to the place of its service and passes the bytes on.
async fn serve(host: Weak<dyn StreamHost>, service: Arc<Service>, name: String, incoming: Incoming) {
    let Target::Place(place) = &service.target else { return };
    let timeout = CONNECT.min(incoming.timeout());
    let Some(node) = host.upgrade() else { return };
    let connected = tokio::select! {
        connected = tokio::time::timeout(timeout, connect(node.host_names(), place)) => connected,
        () = incoming.cancelled() => return,
    };
    let (code, told, why) = match connected {
        Ok(Ok(socket)) => {
            // The bytes do not keep the node alive.
            drop(node);
            return splice(socket, incoming.accept(), false, &service.traffic, service.options.idle).await;
        }
        Ok(Err(error)) => (StreamCode::Unreachable, error.kind().to_string(), error.to_string()),
        Err(_) => (StreamCode::TimedOut, String::new(), format!("no connection within {timeout:?}")),
    };
    service.traffic.refuses();
    let peer = incoming.peer();
    log_peer!(node, peer, WARN, "what serves a stream cannot be reached", %peer, service = name, %place, why);
    // The peer is told the kind of error alone: its text may name addresses and paths.
    incoming.refuse(code, &told);
}

/// Opens a stream to a node, or to one of several; see [`Services::open_with`].
pub(crate) async fn open(
    host: &Arc<dyn StreamHost>,
    target: &To,
    service: &str,
    first: First<'_>,
    timeout: Duration,
) -> Result<ByteStream, StreamError> {
    let any = match target {
        To::Node(peer) => return open_at(host, peer, service, first, timeout).await,
        To::Any(any) => any,
    };
    let until = later(now(), timeout);
    let left = || until.saturating_duration_since(now());
    let mut choice = host.clone().choose(any.clone(), left()).await?;
    while let Some((peer, in_use)) = choice.next_node(left()) {
        match open_at(host, &peer, service, first, choice.share(left())).await {
            Ok(stream) => {
                choice.succeeded(&peer);
                return Ok(stream.holding(in_use));
            }
            Err(error) => {
                // The service may have read the first bytes, which are not sent to another node.
                let is_seen = matches!(error, StreamError::Open(OpenError::Down(_) | OpenError::TimedOut(_)));
                choice.failed(&peer, Cause::new(error.clone()));
                let is_of_the_request = matches!(
                    error,
                    StreamError::Connect(ConnectError::ShuttingDown)
                        | StreamError::Open(OpenError::TooMuchAtFirst { .. } | OpenError::TooLong { .. })
                );
                if is_of_the_request || is_seen && first != First::default() {
                    return Err(error);
                }
            }
        }
    }
    Err(choice.none().into())
}

/// Opens a stream to a node, over another link if the first one was ending.
async fn open_at(
    host: &Arc<dyn StreamHost>,
    peer: &NodeName,
    service: &str,
    first: First<'_>,
    timeout: Duration,
) -> Result<ByteStream, StreamError> {
    let until = later(now(), timeout);
    let left = || until.saturating_duration_since(now());
    loop {
        let link = host.clone().link(peer.clone(), left()).await?;
        let early = if link.heard_within(HEARD) { first } else { First::default() };
        match link.open_service(service, early, left()).await {
            // The first bytes are not sent twice, unless they were refused unread.
            Err(error)
                if error.gave_way(peer)
                    && !left().is_zero()
                    && (early == First::default() || !matches!(error, OpenError::Down(_))) => {}
            Ok(stream) if early != first => {
                let written = tokio::time::timeout(left(), write_first(stream, first)).await;
                return written.map_err(|_| OpenError::TimedOut(timeout).into());
            }
            result => return Ok(result?),
        }
    }
}

/// Writes the bytes that did not go out with the request. The user of the stream learns of a break when it reads or writes.
async fn write_first(mut stream: ByteStream, first: First<'_>) -> ByteStream {
    if stream.write_all(first.bytes).await.is_ok() && first.is_all {
        let _ = stream.shutdown().await;
    }
    stream
}

#[cfg(test)]
mod tests;
