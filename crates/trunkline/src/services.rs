//! Stream services and forwards of a node: the methods of [`Node`] for what `trunkline-forward` does.

use std::sync::Arc;
use std::time::Duration;

use trunkline_forward::{Forward, ForwardError, ServiceError, ServiceStatus, StreamError, StreamOptions, Streams};
use trunkline_matcher::AccessPattern;
use trunkline_route::{IntoTarget, LocalPlace, SocketPlace};
use trunkline_stack::{ByteStream, First, StreamKind};

use crate::Node;
use crate::inner::Inner;

/// Handles the streams that peers want of a node. The links do not keep the node alive.
pub(crate) fn receive(node: &Arc<Inner>) {
    let weak = Arc::downgrade(node);
    node.sessions.mailboxes().accept_streams(Some(Arc::new(move |incoming| {
        let Some(node) = weak.upgrade() else { return };
        match incoming.kind() {
            StreamKind::Proxied | StreamKind::Trace => node.gateway.take(incoming),
            _ => node.services.dispatch(incoming),
        }
    })));
}

impl Node {
    /// Serves streams of this name: each is connected to the place. `allow` must match the whole name of the peer; an empty
    /// list allows no peer.
    ///
    /// # Errors
    /// [`ServiceError`]; nothing changed.
    pub fn serve(&self, service: &str, place: SocketPlace, allow: Vec<AccessPattern>) -> Result<(), ServiceError> {
        self.inner().services.serve(service, place, allow)
    }

    /// Serves streams as [`Node::serve`] does, with these options for every connection.
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
        self.inner().services.serve_with(service, place, allow, options)
    }

    /// Serves streams of this name by this program.
    ///
    /// # Errors
    /// As [`Node::serve`].
    pub fn accept(&self, service: &str, allow: Vec<AccessPattern>) -> Result<Streams, ServiceError> {
        self.inner().services.accept(service, allow)
    }

    /// Withdraws a stream service; streams that are open stay. Returns true if there was one of that name.
    pub fn withdraw(&self, service: &str) -> bool {
        self.inner().services.withdraw(service)
    }

    /// Returns the stream services, by name.
    pub fn services(&self) -> Vec<ServiceStatus> {
        self.inner().services.list()
    }

    /// Connects if need be and opens a stream to a service of the peer, within the `timeout` (connecting included). Of a
    /// target `@service` a node is chosen as [`Node::call`] does; [`ByteStream::peer`] tells it.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open(
        &self,
        target: impl IntoTarget,
        service: &str,
        timeout: Duration,
    ) -> Result<ByteStream, StreamError> {
        self.inner().services.open(target, service, timeout).await
    }

    /// Opens a stream as [`Node::open`] does, with bytes that go out with the request for it; see
    /// [`Services::open_with`](trunkline_forward::Services::open_with).
    ///
    /// # Errors
    /// [`StreamError`]. When the connection broke or the time was over, the service may have seen the first bytes.
    pub async fn open_with(
        &self,
        target: impl IntoTarget,
        service: &str,
        first: First<'_>,
        timeout: Duration,
    ) -> Result<ByteStream, StreamError> {
        self.inner().services.open_with(target, service, first, timeout).await
    }

    /// Listens at a place of this machine and leads each connection to a service of the peer; see
    /// [`Services::forward`](trunkline_forward::Services::forward).
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn forward(
        &self,
        place: LocalPlace,
        peer: impl IntoTarget,
        service: &str,
    ) -> Result<Forward, ForwardError> {
        self.inner().services.forward(place, peer, service).await
    }

    /// Forwards connections as [`Node::forward`] does, with these options for each of them.
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
        self.inner().services.forward_with(place, peer, service, options).await
    }
}
