//! The node that processes run on.

use std::any::Any;
use std::sync::Arc;

use trunkline_dial::{ConnectError, Connection, Sessions};
use trunkline_route::NodeName;
use trunkline_stack::{BoxFuture, PeerLog};

/// Node that [`Processes`](super::Processes) run on. [`Sessions`] are such a node; a program with a node type of its own implements it for
/// that type, so that [`Process::host`](super::Process::host) leads to it.
pub trait ProcessHost: Any + Send + Sync {
    /// Returns the connection to a peer, connecting if there is none.
    fn connect(self: Arc<Self>, peer: NodeName) -> BoxFuture<'static, Result<Connection, ConnectError>>;

    /// Returns the live connection to a peer, if there is one.
    fn connection(&self, peer: &NodeName) -> Option<Connection>;

    /// Runs a task that ends with the node at the latest.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Returns the limit on log lines that peers can cause.
    fn peer_log(&self) -> &PeerLog;
}

impl ProcessHost for Sessions {
    fn connect(self: Arc<Self>, peer: NodeName) -> BoxFuture<'static, Result<Connection, ConnectError>> {
        Box::pin(async move { self.in_use(&peer, None).await })
    }

    fn connection(&self, peer: &NodeName) -> Option<Connection> {
        self.connection(peer)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawn(task);
    }

    fn peer_log(&self) -> &PeerLog {
        self.peer_log()
    }
}
