//! Local sockets that lead to services of other nodes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use trunkline_link::{AcceptFailures, listen_tcp};
use trunkline_route::{LocalPlace, NodeName};
use trunkline_stack::{EARLY_DATA, First, LogLimit, StreamCode};

use super::StreamOptions;
use super::splice::{Door, Sent, Socket, Traffic, TrafficStats, splice};
use crate::inner::{Inner, now};
use crate::local::{SocketError, SocketFile, bind_unix};
use crate::peer_log::log_peer;
use crate::{IntoName, NameError, Node};

/// Connections of one forward at once: as many as a link has streams. Further ones are reset, so that one forward cannot
/// take all file descriptors of the node.
const MAX_CONNECTIONS: usize = trunkline_stack::MAX_STREAMS;
/// Period in which one connection above that number is logged.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Why nothing is forwarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The text is no node name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The node is shutting down, or has shut down.
    #[error("this node is shutting down; it forwards nothing new")]
    ShuttingDown,
    /// The local socket cannot be had.
    #[error("cannot listen at {place}; choose another place, or end what has this one")]
    Listen {
        /// Where.
        place: LocalPlace,
        /// Why.
        #[source]
        cause: SocketError,
    },
}

/// A local socket that leads to a service of another node, until the node shuts down. Dropped, it is closed, and the connections over it end;
/// a socket in the file system is removed.
#[derive(Debug)]
pub struct Forward {
    place: LocalPlace,
    peer: NodeName,
    service: Arc<str>,
    options: StreamOptions,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
    /// Dropped with the forward, whenever the task learns of it: the process may end before.
    _file: Option<SocketFile>,
}

impl Forward {
    /// Where it listens.
    pub fn place(&self) -> &LocalPlace {
        &self.place
    }

    /// Whose service it leads to.
    pub fn peer(&self) -> &NodeName {
        &self.peer
    }

    /// Which service it leads to.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Options of its connections.
    pub fn options(&self) -> StreamOptions {
        self.options
    }

    /// Numbers.
    pub fn traffic(&self) -> TrafficStats {
        self.traffic.stats()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    /// Listens at a place of this machine and leads each connection to a service of the peer: a stream each, over the one
    /// connection to it, which is made when the first one comes. A connection whose stream is refused is reset, and so is
    /// one beyond the 4,096 that a forward has at once.
    ///
    /// A Unix socket that a dead process left behind is replaced; one where a process answers is not.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(
        &self,
        place: LocalPlace,
        peer: impl IntoName,
        service: &str,
    ) -> Result<Forward, ForwardError> {
        self.forward_with(place, peer, service, StreamOptions::default()).await
    }

    /// Does what [`Node::forward`] does, with these options for every connection.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward_with(
        &self,
        place: LocalPlace,
        peer: impl IntoName,
        service: &str,
        options: StreamOptions,
    ) -> Result<Forward, ForwardError> {
        let peer = peer.into_name()?;
        if self.inner().is_shutting_down() {
            return Err(ForwardError::ShuttingDown);
        }
        let listen = |cause| ForwardError::Listen { place: place.clone(), cause };
        let (door, bound, file) = match &place {
            LocalPlace::Tcp(address) => {
                let listener = listen_tcp(*address).map_err(|error| listen(error.into()))?;
                let bound = listener.local_addr().map_err(|error| listen(error.into()))?;
                (Door::Tcp(listener), LocalPlace::Tcp(bound), None)
            }
            LocalPlace::Unix(path) => {
                let (listener, file) = bind_unix(path, false).await.map_err(listen)?;
                (Door::Unix(listener), place.clone(), Some(file))
            }
        };
        let (service, traffic): (Arc<str>, _) = (service.into(), Arc::new(Traffic::default()));
        let node = Arc::downgrade(self.inner());
        let (to, counted, leaving) = (peer.clone(), traffic.clone(), self.inner().leaving.subscribe());
        let leading =
            Leading { leaving, place: bound.clone(), peer: to, service: service.clone(), options, traffic: counted };
        let task = self.inner().runtime.spawn(accept(node, door, leading));
        Ok(Forward { place: bound, peer, service, options, traffic, task, _file: file })
    }
}

/// Where connections come from and where they lead.
struct Leading {
    /// Turns true when the node leaves: nothing new is accepted.
    leaving: watch::Receiver<bool>,
    place: LocalPlace,
    peer: NodeName,
    service: Arc<str>,
    options: StreamOptions,
    traffic: Arc<Traffic>,
}

async fn accept(node: Weak<Inner>, door: Door, leading: Leading) {
    let Leading { mut leaving, place, peer, service, options, traffic } = leading;
    let mut connections = JoinSet::new();
    let (mut failures, refused) = (AcceptFailures::default(), LogLimit::new(1, LOG_PERIOD));
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        while connections.try_join_next().is_some() {}
        let Some(node) = node.upgrade() else { return };
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
                connections.spawn(lead(node, socket, peer.clone(), service.clone(), options, traffic.clone()));
            }
            Err(error) => failures.failed(&place, &error).await,
        }
    }
    // Those that are open end with their links.
    drop(door);
    while connections.join_next().await.is_some() {}
}

async fn lead(
    node: Arc<Inner>,
    socket: Socket,
    peer: NodeName,
    service: Arc<str>,
    options: StreamOptions,
    traffic: Arc<Traffic>,
) {
    // What it has sent already need not wait for the answer.
    let (first, sent) = socket.sent_already(EARLY_DATA as usize);
    let is_all = matches!(sent, Sent::All);
    if let Sent::Broken(error) = &sent
        && first.is_empty()
    {
        return tracing::debug!(%peer, %error, "a connection to be forwarded broke off at once");
    }
    // Long enough to find out that a connection is dead and to find another way.
    let within = node.native.keep_alive().dead.saturating_add(node.policy.total);
    let stream = node.open(peer.clone(), &service, First { bytes: &first, is_all }, within).await;
    // The bytes do not keep the node alive.
    let log = Arc::downgrade(&node);
    drop(node);
    match stream {
        Ok(stream) => {
            traffic.sends(first.len());
            drop(first);
            match sent {
                // What it had sent goes out before the break does.
                Sent::Broken(_) => stream.reset_behind(StreamCode::Broken),
                Sent::Open | Sent::All => splice(socket, stream, is_all, &traffic, options.idle).await,
            }
        }
        Err(error) => {
            traffic.refuses();
            if let Some(node) = log.upgrade() {
                log_peer!(node, &peer, WARN, "a connection could not be forwarded", %peer, service = &*service, %error);
            }
            socket.abort().await;
        }
    }
}
