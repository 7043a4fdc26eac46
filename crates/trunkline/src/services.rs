//! Streams of bytes: services a node has for its peers, and ways to those of others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use trunkline_dial::sessions::ConnectRequest;
use trunkline_matcher::AccessPattern;
use trunkline_route::{NodeName, SocketPlace, later};
use trunkline_stack::{ByteStream, First, Incoming, Mailboxes, OpenError, StreamCode, StreamKind};

use crate::inner::{Inner, now};
use crate::peer_log::log_peer;
use crate::{ConnectError, Connection, IntoName, Node, proxy};

mod forward;
mod splice;

pub use forward::{Forward, ForwardError};
pub use splice::TrafficStats;

use splice::{Traffic, connect, splice};

/// How long a connection to what serves may take, if the peer waits so long.
const CONNECT: Duration = Duration::from_secs(5);
/// A peer that was heard within this time takes what is sent along with a request for a stream. From one that is silent for
/// longer the request alone goes out, so that it can move to another way if the connection turns out to be broken.
const HEARD: Duration = Duration::from_secs(1);
/// Streams of a [`Streams`] that may wait to be taken.
const WAITING: usize = 256;

/// Why a service is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Not 1 to 255 bytes.
    #[error("a service name has 1 to 255 bytes, this one has {len}")]
    BadName {
        /// How many bytes it has.
        len: usize,
    },
    /// The node is shutting down, or has shut down.
    #[error("this node is shutting down; it offers nothing new")]
    ShuttingDown,
    /// There is one of that name.
    #[error("a stream service named {0:?} is offered already; withdraw it first, or choose another name")]
    Taken(String),
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It was refused, or not answered in time.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What becomes of the streams of a service.
enum Target {
    Place(SocketPlace),
    Program(mpsc::Sender<Incoming>),
}

/// Options of the connections of a service or a forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A connection over which no byte moved in either direction for so long is reset at both ends; the end comes after one
    /// to two times this time. `None`, the default: no limit; of TCP connections the kernel still notices within two minutes
    /// that the other end's host vanished.
    pub idle: Option<Duration>,
}

struct Service {
    allow: Vec<AccessPattern>,
    target: Target,
    options: StreamOptions,
    traffic: Traffic,
}

/// The stream services of a node.
#[derive(Default)]
pub(crate) struct Services(RwLock<BTreeMap<String, Arc<Service>>>);

impl Services {
    fn offer(&self, node: &Inner, name: &str, service: Service) -> Result<(), ServiceError> {
        if name.is_empty() || name.len() > 255 {
            return Err(ServiceError::BadName { len: name.len() });
        }
        let mut services = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: what is there when the node has left is taken away.
        if node.is_shutting_down() {
            return Err(ServiceError::ShuttingDown);
        }
        match services.entry(name.to_owned()) {
            Entry::Vacant(free) => drop(free.insert(Arc::new(service))),
            Entry::Occupied(_) => return Err(ServiceError::Taken(name.to_owned())),
        }
        Ok(())
    }

    /// Takes all of them away; streams that are open stay.
    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn get(&self, name: &str) -> Option<Arc<Service>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// A stream service, as a node says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where its streams go; `None` to this program.
    pub place: Option<SocketPlace>,
    /// Options of its connections.
    pub options: StreamOptions,
    /// Numbers.
    pub traffic: TrafficStats,
}

/// The streams that peers open to a service of this program. Dropped, it takes no more.
#[derive(Debug)]
pub struct Streams(mpsc::Receiver<Incoming>);

impl Streams {
    /// The next one that is still wanted: accept it, or say why not. `None` when the service was withdrawn or the node has
    /// shut down.
    pub async fn next(&mut self) -> Option<Incoming> {
        loop {
            let incoming = self.0.recv().await?;
            if !incoming.is_cancelled() {
                return Some(incoming);
            }
        }
    }
}

/// Sees to the streams that peers want of a node.
pub(crate) fn receive(node: &Arc<Inner>, mailboxes: &Mailboxes) {
    // The links must not keep the node alive.
    let node: Weak<Inner> = Arc::downgrade(node);
    mailboxes.accept_streams(Some(Arc::new(move |incoming| {
        if let Some(node) = node.upgrade() {
            dispatch(&node, incoming);
        }
    })));
}

fn dispatch(node: &Arc<Inner>, incoming: Incoming) {
    if matches!(incoming.kind(), StreamKind::Proxied | StreamKind::Trace) {
        return proxy::asked(node, incoming);
    }
    if incoming.kind() != StreamKind::Service {
        return incoming.refuse(StreamCode::NoService, "streams of this kind lead nowhere here");
    }
    let name = std::str::from_utf8(incoming.data()).unwrap_or_default();
    let name = incoming.mapping().and_then(|mapping| mapping.from_peer(name)).map_or(name, |here| here).to_owned();
    let Some(service) = node.services.get(&name) else {
        let text = format!("there is no stream service {name:?}; `services:` or Node::serve makes one");
        return incoming.refuse(StreamCode::NoService, &text);
    };
    if !service.allow.iter().any(|pattern| pattern.is_match(incoming.peer().as_str())) {
        let peer = incoming.peer();
        log_peer!(node, peer, WARN, "a stream was refused: the service does not allow this node", %peer, service = name);
        service.traffic.refuses();
        return incoming.refuse(StreamCode::NotAllowed, "the service does not allow this node");
    }
    match &service.target {
        Target::Place(_) => node.spawn(serve(Arc::downgrade(node), service, name, incoming)),
        Target::Program(streams) => {
            if let Err(error) = streams.try_send(incoming) {
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
}

async fn serve(node: Weak<Inner>, service: Arc<Service>, name: String, incoming: Incoming) {
    let Target::Place(place) = &service.target else { return };
    let Some(native) = node.upgrade().map(|node| node.native.clone()) else { return };
    let within = CONNECT.min(incoming.deadline());
    let connected = tokio::select! {
        connected = tokio::time::timeout(within, connect(native.names(), place)) => connected,
        () = incoming.cancelled() => return,
    };
    let refused = match connected {
        Ok(Ok(socket)) => {
            return splice(socket, incoming.accept(), false, &service.traffic, service.options.idle).await;
        }
        Ok(Err(error)) => (StreamCode::Unreachable, error.kind().to_string(), error.to_string()),
        Err(_) => (StreamCode::TimedOut, String::new(), format!("no connection within {within:?}")),
    };
    let (code, told, why) = refused;
    service.traffic.refuses();
    if let Some(node) = node.upgrade() {
        let peer = incoming.peer();
        log_peer!(node, peer, WARN, "what serves a stream cannot be reached", %peer, service = name, %place, why);
    }
    // The peer is told the kind of error alone: its text may name addresses and paths.
    incoming.refuse(code, &told);
}

impl Node {
    /// Serves streams of this name: each is connected to the place. `allow` must match the whole name of the peer;
    /// nobody is allowed by an empty list.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing changed.
    pub fn serve(&self, service: &str, place: SocketPlace, allow: Vec<AccessPattern>) -> Result<(), ServiceError> {
        self.serve_with(service, place, allow, StreamOptions::default())
    }

    /// Does what [`Node::serve`] does, with these options for every connection.
    ///
    /// # Errors
    /// As [`Node::serve`].
    pub fn serve_with(
        &self,
        service: &str,
        place: SocketPlace,
        allow: Vec<AccessPattern>,
        options: StreamOptions,
    ) -> Result<(), ServiceError> {
        let target = Target::Place(place);
        self.inner().services.offer(
            self.inner(),
            service,
            Service { allow, target, options, traffic: Traffic::default() },
        )
    }

    /// Serves streams of this name by this program.
    ///
    /// # Errors
    /// As [`Node::serve`].
    pub fn accept(&self, service: &str, allow: Vec<AccessPattern>) -> Result<Streams, ServiceError> {
        let (sender, streams) = mpsc::channel(WAITING);
        let target = Target::Program(sender);
        let options = StreamOptions::default();
        self.inner().services.offer(
            self.inner(),
            service,
            Service { allow, target, options, traffic: Traffic::default() },
        )?;
        Ok(Streams(streams))
    }

    /// Offers a stream service no more; streams that are open stay. Says whether there was one.
    pub fn withdraw(&self, service: &str) -> bool {
        self.inner().services.0.write().unwrap_or_else(PoisonError::into_inner).remove(service).is_some()
    }

    /// The stream services, by name.
    pub fn services(&self) -> Vec<ServiceStatus> {
        let services = self.inner().services.0.read().unwrap_or_else(PoisonError::into_inner);
        let status = |(name, service): (&String, &Arc<Service>)| ServiceStatus {
            name: name.clone(),
            place: match &service.target {
                Target::Place(place) => Some(place.clone()),
                Target::Program(_) => None,
            },
            options: service.options,
            traffic: service.traffic.stats(),
        };
        services.iter().map(status).collect()
    }

    /// Connects if need be and opens a stream to a service of the peer, within the `deadline` (connecting included).
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(
        &self,
        name: impl IntoName,
        service: &str,
        deadline: Duration,
    ) -> Result<ByteStream, StreamError> {
        self.open_with(name, service, First::default(), deadline).await
    }

    /// As [`Node::open`]; what is to be written first goes out with the request for the stream, and so comes a round trip
    /// sooner. Over a connection on which nothing came for a second it goes out once the stream is open: if the connection
    /// turns out to be broken, the request moves to another way. What went out goes over another connection again if the one
    /// is on its way out and refused it, and never when somebody may have read it.
    ///
    /// # Errors
    /// [`StreamError`]. When the connection broke or the time was over, the service may have seen what was sent.
    pub async fn open_with(
        &self,
        name: impl IntoName,
        service: &str,
        first: First<'_>,
        deadline: Duration,
    ) -> Result<ByteStream, StreamError> {
        let name = name.into_name().map_err(ConnectError::from)?;
        self.inner().open(name, service, first, deadline).await
    }
}

impl Inner {
    async fn open(
        self: &Arc<Self>,
        name: NodeName,
        service: &str,
        first: First<'_>,
        deadline: Duration,
    ) -> Result<ByteStream, StreamError> {
        let until = later(now(), deadline);
        let left = || until.saturating_duration_since(now());
        loop {
            let demand = ConnectRequest { within: Some(left()), ..ConnectRequest::default() };
            let connection = self.in_use(&name, demand).await?;
            let early = if connection.link().heard_within(HEARD) { first } else { First::default() };
            match connection.open_with(service, early, left()).await {
                // It gave way, or went down under our hands, and opened nothing.
                // What was sent along is not sent twice, unless it was refused unread.
                Err(error)
                    if proxy::gave_way(&name, &error)
                        && !left().is_zero()
                        && (early == First::default() || !matches!(error, OpenError::Down(_))) => {}
                Ok(stream) if early != first => {
                    let written = tokio::time::timeout(left(), write_first(stream, first)).await;
                    return written.map_err(|_| OpenError::TimedOut(deadline).into());
                }
                result => return Ok(result?),
            }
        }
    }
}

/// Writes what did not go out with the request. A break is told to whoever uses the stream.
async fn write_first(mut stream: ByteStream, first: First<'_>) -> ByteStream {
    if stream.write_all(first.bytes).await.is_ok() && first.is_all {
        let _ = stream.shutdown().await;
    }
    stream
}

impl Connection {
    /// Opens a stream to a service of the peer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, service: &str, deadline: Duration) -> Result<ByteStream, OpenError> {
        self.open_with(service, First::default(), deadline).await
    }

    /// As [`Connection::open`]; what is to be written first goes out with the request for the stream.
    ///
    /// # Errors
    /// [`OpenError`]. When the connection broke or the time was over, the service may have seen what was sent.
    pub async fn open_with(
        &self,
        service: &str,
        first: First<'_>,
        deadline: Duration,
    ) -> Result<ByteStream, OpenError> {
        let link = self.link();
        let there = link.info().mapping.as_ref().and_then(|mapping| mapping.to_peer(service)).cloned();
        let name = there.as_deref().unwrap_or(service).as_bytes();
        link.open_with(StreamKind::Service, name, first, deadline).await
    }
}
