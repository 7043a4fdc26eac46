//! Local sockets that lead to services of other nodes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use trunkline_route::{LocalPlace, NameError, Target};
use trunkline_stack::{
    AcceptFailures, BoxFuture, EARLY_DATA, First, LogLimit, SocketError, SocketFile, StreamCode, bind_unix, listen_tcp,
    log_peer,
};

use crate::services::{StreamOptions, open};
use crate::socket::{Door, Sent, Socket};
use crate::splice::splice;
use crate::traffic::{Traffic, TrafficStats};
use crate::{StreamHost, now};

/// Connections of one forward at once: as many as a link has streams. Further ones are reset, so that one forward cannot
/// take all file descriptors of the process.
const MAX_CONNECTIONS: usize = trunkline_stack::MAX_STREAMS;
/// Period in which one connection above that number is logged.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Reason why nothing is forwarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The text is no node name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The node is shutting down, or has shut down.
    #[error("this node is shutting down; it forwards nothing new")]
    ShuttingDown,
    /// The local socket cannot be bound.
    #[error("cannot listen at {place}; choose another place, or end what has this one")]
    Listen {
        /// Place of the socket.
        place: LocalPlace,
        /// Reason.
        #[source]
        cause: SocketError,
    },
}

/// Destination of the connections of a forward.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) peer: Target,
    pub(crate) service: String,
    pub(crate) options: StreamOptions,
    /// Time that a connection waits for its stream.
    pub(crate) open_timeout: Duration,
    /// Limit of the log lines about connections that no node serves.
    pub(crate) unserved: LogLimit<()>,
}

impl Destination {
    pub(crate) fn new(peer: Target, service: &str, options: StreamOptions, open_timeout: Duration) -> Self {
        Self { peer, service: service.to_owned(), options, open_timeout, unserved: LogLimit::new(1, LOG_PERIOD) }
    }
}

/// A local socket that leads to a service of another node, until the node shuts down; made by
/// [`Services::forward`](crate::Services::forward). Dropped, it is closed, and the connections over it end; a socket in the
/// file system is removed.
#[derive(Debug)]
pub struct Forward {
    place: LocalPlace,
    to: Arc<Destination>,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
    /// Dropped with the forward, not with its task: the process may end before the task does.
    _file: Option<SocketFile>,
}

impl Forward {
    /// Binds the place and begins to accept. Boxed: a future that is not is compiled again in every crate that awaits it.
    pub(crate) fn start<'a>(
        host: &'a Arc<dyn StreamHost>,
        runtime: &'a Handle,
        place: LocalPlace,
        to: Destination,
    ) -> BoxFuture<'a, Result<Self, ForwardError>> {
        Box::pin(Self::bind(host, runtime, place, to))
    }

    async fn bind(
        host: &Arc<dyn StreamHost>,
        runtime: &Handle,
        place: LocalPlace,
        to: Destination,
    ) -> Result<Self, ForwardError> {
        let listen = |cause| ForwardError::Listen { place: place.clone(), cause };
        let (door, place, file) = match &place {
            LocalPlace::Tcp(address) => {
                let listener = listen_tcp(*address).map_err(|error| listen(error.into()))?;
                let bound = listener.local_addr().map_err(|error| listen(error.into()))?;
                (Door::Tcp(listener), LocalPlace::Tcp(bound), None)
            }
            LocalPlace::Unix(path) => {
                let (listener, file) = bind_unix(path, false).await.map_err(listen)?;
                (Door::Unix(listener), place, Some(file))
            }
        };
        let (to, traffic) = (Arc::new(to), Arc::new(Traffic::default()));
        // The socket does not keep the node alive.
        let (weak, leaving) = (Arc::downgrade(host), host.shutting_down());
        let task = runtime.spawn(accept(weak, leaving, door, place.clone(), to.clone(), traffic.clone()));
        Ok(Self { place, to, traffic, task, _file: file })
    }

    /// Returns where it listens, with the port that was free if it was to listen at port 0.
    pub fn place(&self) -> &LocalPlace {
        &self.place
    }

    /// Returns the node whose service it leads to, or the service of which it chooses a node for each connection.
    pub fn peer(&self) -> &Target {
        &self.to.peer
    }

    /// Returns the service that it leads to.
    pub fn service(&self) -> &str {
        &self.to.service
    }

    /// Returns the options of its connections.
    pub fn options(&self) -> StreamOptions {
        self.to.options
    }

    /// Returns the counters of its connections.
    pub fn traffic(&self) -> TrafficStats {
        self.traffic.stats()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections until the node shuts down, and leads each to the destination.
async fn accept(
    host: Weak<dyn StreamHost>,
    mut leaving: watch::Receiver<bool>,
    door: Door,
    place: LocalPlace,
    to: Arc<Destination>,
    traffic: Arc<Traffic>,
) {
    let mut connections = JoinSet::new();
    let (mut failures, refused) = (AcceptFailures::default(), LogLimit::new(1, LOG_PERIOD));
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some(host) = host.upgrade() else { return };
        match accepted {
            Ok(socket) if connections.len() >= MAX_CONNECTIONS => {
                traffic.refuses();
                socket.abort().await;
                if let Some(suppressed) = refused.allow(now(), &()) {
                    tracing::warn!(%place, suppressed, "a connection was reset: {MAX_CONNECTIONS} are open already");
                }
            }
            Ok(socket) => {
                failures.accepted();
                connections.spawn(lead(host, socket, to.clone(), traffic.clone()));
            }
            Err(error) => failures.failed(&place, &error).await,
        }
    }
    // Those that are open end with their links.
    drop(door);
    while connections.join_next().await.is_some() {}
}

/// Opens the stream of a connection and passes the bytes on.
async fn lead(host: Arc<dyn StreamHost>, socket: Socket, to: Arc<Destination>, traffic: Arc<Traffic>) {
    let Destination { peer, service, options, open_timeout, unserved } = &*to;
    // Bytes that it has sent already need not wait for the answer.
    let (first, sent) = socket.sent_already(EARLY_DATA as usize);
    let is_all = matches!(sent, Sent::All);
    if let Sent::Broken(error) = &sent
        && first.is_empty()
    {
        return tracing::debug!(%peer, %error, "a connection to be forwarded broke off at once");
    }
    let stream = open(&host, peer, service, First { bytes: &first, is_all }, *open_timeout).await;
    // The bytes do not keep the node alive.
    let log = Arc::downgrade(&host);
    drop(host);
    match stream {
        Ok(stream) => {
            traffic.sends(first.len());
            drop(first);
            match sent {
                // The bytes that it had sent go out before the break does.
                Sent::Broken(_) => stream.reset_behind(StreamCode::Broken),
                Sent::Open | Sent::All => splice(socket, stream, is_all, &traffic, options.idle).await,
            }
        }
        Err(error) => {
            traffic.refuses();
            match (peer, log.upgrade()) {
                (Target::Node(peer), Some(host)) => {
                    log_peer!(host, peer, WARN, "a connection could not be forwarded", %peer, service, %error);
                }
                (Target::Any(any), _) => {
                    if let Some(suppressed) = unserved.allow(now(), &()) {
                        tracing::warn!(%any, service, %error, suppressed, "a connection could not be forwarded");
                    }
                }
                _ => {}
            }
            socket.abort().await;
        }
    }
}
