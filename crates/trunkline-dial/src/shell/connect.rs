//! Connections for callers: the live link of a name, or a dial.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_route::{NodeName, later};
use trunkline_stack::{BoxFuture, Link};

use super::ports::NodePorts;
use super::{SETTLE, Sessions, now};
use crate::connection::{Connection, Session};
use crate::exec::{self, Found};
use crate::sessions::ConnectRequest;
use crate::{ConnectError, NoRoute, Reason};

impl Sessions {
    /// Connects for somebody who asked for the connection, also one that is to stay down until somebody does.
    ///
    /// # Errors
    /// [`ConnectError`]; [`NoRoute`] has every attempt made.
    pub async fn connect(
        self: &Arc<Self>,
        name: NodeName,
        request: ConnectRequest,
    ) -> Result<Connection, ConnectError> {
        self.kept.forgive(&name);
        Ok(self.session(name, request).await?.connection())
    }

    /// Connects for somebody who only uses the connection: one that is to stay down is not dialled for that. `timeout` is
    /// for callers that wait less long than the policy. The future is small: only where no live connection is known to
    /// satisfy is it that of a connect, boxed.
    ///
    /// # Errors
    /// As [`Sessions::connect`], and [`ConnectError::Lapsed`].
    pub async fn in_use(
        self: &Arc<Self>,
        name: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<Connection, ConnectError> {
        if let Some(connection) = self.satisfying(name) {
            return Ok(connection);
        }
        if self.live(name).is_none() && self.kept.has_lapsed(name) {
            return Err(ConnectError::Lapsed(name.clone()));
        }
        let request = ConnectRequest { timeout, ..ConnectRequest::default() };
        Box::pin(self.connect(name.clone(), request)).await
    }

    /// The live connection to a name, if it is known to satisfy a caller without demands of its own. Nothing is looked up,
    /// and no lock is taken that callers of other names take too, but for those that share a part of the registry.
    pub(super) fn satisfying(&self, name: &NodeName) -> Option<Connection> {
        // A name with a live link has not lapsed: nothing is to be forgiven.
        if self.is_leaving() {
            return None;
        }
        if *name == self.name {
            return Some(self.own.connection());
        }
        let generation = self.routes.generation();
        self.registry.inspect(name, |live| live.satisfied_in(generation).then(|| live.connection())).flatten()
    }

    /// Returns the link that stands for a name, for a caller inside the dial of another name. Boxed, since a dial through a
    /// gateway connects to the gateway first.
    pub fn reach(
        self: &Arc<Self>,
        name: NodeName,
        request: ConnectRequest,
    ) -> BoxFuture<'_, Result<Link, ConnectError>> {
        Box::pin(async { Ok(self.session(name, request).await?.link) })
    }

    /// Returns the session that satisfies a request, dialling if need be. Boxed: a future that is not is compiled again, with
    /// the whole dial, in every crate that awaits it.
    pub(super) fn session(
        self: &Arc<Self>,
        name: NodeName,
        request: ConnectRequest,
    ) -> BoxFuture<'_, Result<Session, ConnectError>> {
        Box::pin(self.find_session(name, request))
    }

    async fn find_session(self: &Arc<Self>, name: NodeName, request: ConnectRequest) -> Result<Session, ConnectError> {
        if self.is_leaving() {
            return Err(ConnectError::ShuttingDown);
        }
        if name == self.name {
            return Ok(self.own.clone());
        }
        // One budget for all the dials of this call, should adopted links come to nothing.
        let total = request.timeout.unwrap_or(self.policy.total).min(self.policy.total);
        let deadline = later(now(), total);
        let dial = {
            // The flight must not keep the node alive; its callers do.
            let (node, name, request) = (Arc::downgrade(self), name.clone(), request.clone());
            let leaves = request.leaves();
            move |flight, replace| {
                let (node, name, request) = (node.clone(), name.clone(), request.clone());
                async move {
                    let Some(node) = node.upgrade() else { return Ok(Found::Adopt) };
                    let mut lookup = node.lookup(&name, &request);
                    lookup.policy.total = deadline.saturating_duration_since(now());
                    exec::run(Arc::new(NodePorts { node, flight, replace, leaves }), lookup).await
                }
            }
        };
        let satisfies = |live: &Session| self.satisfies(&name, &request, live);
        let aim = request.aim(total);
        let connect = self.registry.connect(&name, &aim, satisfies, dial);
        settled(&name, deadline, connect).await
    }
}

/// Awaits a connect of the registry until a moment after its deadline. A lookup ends by itself with every attempt on record;
/// this bounds the waits for links of other dials.
pub(super) async fn settled(
    name: &NodeName,
    deadline: Instant,
    connect: impl Future<Output = Result<Session, NoRoute>>,
) -> Result<Session, ConnectError> {
    match tokio::time::timeout_at(later(deadline, SETTLE).into(), connect).await {
        Ok(live) => Ok(live?),
        Err(_) => Err(NoRoute { target: name.clone(), reason: Reason::OutOfTime, attempts: Vec::new() }.into()),
    }
}
