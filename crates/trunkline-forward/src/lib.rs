//! Byte-stream services of a node, and local sockets that lead to services of other nodes.
//!
//! - [`Services`] is what one node offers: names, the peers that may use them, and where their streams go: a TCP or Unix
//!   socket, or this program ([`Streams`]). It also opens streams to services of other nodes.
//! - [`Forward`] is a local socket. Each connection to it becomes a stream to a service of another node.
//!
//! The crate knows a node only as a [`StreamHost`]: it gives links, runs tasks and says when it shuts down. The sessions of
//! `trunkline-dial` are such a node. Bytes that arrived before one side broke off are delivered before the break is; what
//! waits in between is bounded.
//!
//! `examples/to_itself.rs` forwards a local port to a service of the node itself.

mod forward;
mod services;
mod socket;
mod splice;
mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use trunkline_dial::{Choice, ConnectError, NoneServes, Sessions};
use trunkline_route::{AnyOf, NodeName};
use trunkline_stack::{BoxFuture, HostNames, Link, PeerLog};

pub use forward::{Forward, ForwardError};
pub use services::{ServiceError, ServiceStatus, Services, StreamError, StreamOptions, Streams};
pub use traffic::TrafficStats;

/// Node that [`Services`] belong to. [`Sessions`] are such a node.
pub trait StreamHost: Send + Sync + 'static {
    /// Returns a link to a peer, connecting within the `timeout` if there is none. A later call may return another link.
    fn link(self: Arc<Self>, peer: NodeName, timeout: Duration) -> BoxFuture<'static, Result<Link, ConnectError>>;

    /// Returns the nodes that serve a service, in the order to try, within this time. The default implementation knows none.
    fn choose(self: Arc<Self>, any: AnyOf, _: Duration) -> BoxFuture<'static, Result<Choice, ConnectError>> {
        let none = NoneServes { any, failed: Vec::new(), drained: Vec::new(), unanswered: Vec::new() };
        Box::pin(async { Err(ConnectError::NoneServes(Box::new(none))) })
    }

    /// Returns a signal that turns true when the node begins to shut down. Nothing new is offered or accepted afterwards.
    fn shutting_down(&self) -> watch::Receiver<bool>;

    /// Runs a task that ends with the node at the latest.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Returns the look-ups of host names of the node.
    fn host_names(&self) -> &HostNames;

    /// Returns the limit on log lines that peers can cause.
    fn peer_log(&self) -> &PeerLog;
}

impl StreamHost for Sessions {
    fn link(self: Arc<Self>, peer: NodeName, timeout: Duration) -> BoxFuture<'static, Result<Link, ConnectError>> {
        Box::pin(async move { Ok(Link::clone(&*self.in_use(&peer, Some(timeout)).await?.link())) })
    }

    fn choose(self: Arc<Self>, any: AnyOf, within: Duration) -> BoxFuture<'static, Result<Choice, ConnectError>> {
        Box::pin(async move { Sessions::choose(&self, &any, within).await })
    }

    fn shutting_down(&self) -> watch::Receiver<bool> {
        self.leaving()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.spawn(task);
    }

    fn host_names(&self) -> &HostNames {
        self.host_names()
    }

    fn peer_log(&self) -> &PeerLog {
        self.peer_log()
    }
}

#[expect(clippy::disallowed_methods, reason = "this crate moves the bytes of sockets, and brings the time for that")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
