//! Uses of a service that several nodes serve: of those, one is chosen, and the next one when it fails.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use trunkline_registrar::{ResolveError, Serving};
use trunkline_route::{AnyOf, Cause, NodeName, ResolverId, ServiceName, later};

use super::{Sessions, now};
use crate::pool::Pool;
use crate::{CallError, ConnectError, Connection, NoneServes, SendError};

/// Time that a connect to one of several nodes has at least, unless less is left in all.
const SHORTEST: Duration = Duration::from_millis(200);

/// Nodes that serve each service, as they are listed by hand.
pub type ServiceNodes = BTreeMap<ServiceName, Vec<Serving>>;

/// Use of a service at a node, counted until it is dropped.
#[derive(Debug)]
pub struct InUse {
    node: Weak<Sessions>,
    service: ServiceName,
    peer: NodeName,
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(node) = self.node.upgrade() {
            node.pool().closed(&self.service, &self.peer);
        }
    }
}

/// Nodes of a service in the order to try, and the failures so far.
pub struct Choice {
    node: Arc<Sessions>,
    any: AnyOf,
    left: std::vec::IntoIter<NodeName>,
    none: NoneServes,
}

impl Choice {
    /// Returns the next node to try, and the use of it; `None` also if no time is left to try one.
    pub fn next_node(&mut self, left: Duration) -> Option<(NodeName, InUse)> {
        if left.is_zero() {
            return None;
        }
        let peer = self.left.next()?;
        self.node.pool().opened(&self.any.service, &peer);
        let in_use = InUse { node: Arc::downgrade(&self.node), service: self.any.service.clone(), peer: peer.clone() };
        Some((peer, in_use))
    }

    /// Returns the part of the time that is left for the node that was returned last: the nodes after it have the same.
    pub fn share(&self, left: Duration) -> Duration {
        let after = u32::try_from(self.left.len()).unwrap_or(u32::MAX).saturating_add(1);
        (left / after).max(SHORTEST).min(left)
    }

    /// Notes that a node failed, so that it comes last for a time.
    pub fn failed(&mut self, peer: &NodeName, error: impl Into<Cause>) {
        self.node.pool().failed(&self.any.service, peer, now());
        self.none.failed.push((peer.clone(), error.into()));
    }

    /// Notes that a node did what was asked.
    pub fn succeeded(&self, peer: &NodeName) {
        self.node.pool().succeeded(&self.any.service, peer);
    }

    /// Returns the error that no node did what was asked.
    pub fn none(self) -> ConnectError {
        ConnectError::NoneServes(Box::new(self.none))
    }
}

impl Sessions {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the nodes of services that are listed by hand.
    pub fn set_service_nodes(&self, nodes: ServiceNodes) {
        *self.service_nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// Returns the nodes of services that are listed by hand.
    pub fn service_nodes(&self) -> ServiceNodes {
        self.service_nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the nodes that serve a service, as the next use would try them with drained ones (weight 0) at the end, each
    /// with the number of uses by this node; and the resolvers that did not answer. The nodes are those listed by hand, and
    /// those that the resolvers of discovery name within this time.
    pub async fn serving(&self, any: &AnyOf, within: Duration) -> (Vec<(Serving, usize)>, Vec<(ResolverId, Cause)>) {
        let (mut found, unanswered) = self.found(any, within).await;
        let (pool, now) = (self.pool(), now());
        found.sort_by_key(|serving| (serving.weight == 0, pool.rank(&any.service, serving, now)));
        let counted = found.into_iter().map(|serving| {
            let open = pool.open(&any.service, &serving.node);
            (serving, open)
        });
        (counted.collect(), unanswered)
    }

    /// Returns the nodes of [`Sessions::serving`] in any order.
    async fn found(&self, any: &AnyOf, within: Duration) -> (Vec<Serving>, Vec<(ResolverId, Cause)>) {
        let within = within.min(self.policy.resolve);
        let asked = self.discovery.iter().filter_map(|id| Some((id, self.resolvers.get(id)?)));
        let asked = asked.map(|(id, resolver)| async move {
            let late = |_| Err(ResolveError::Unreachable(format!("no answer within {within:?}").into()));
            (id, tokio::time::timeout(within, resolver.serving(&any.service)).await.unwrap_or_else(late))
        });
        let answers = join_all(asked).await;
        let mut found = {
            let listed = self.service_nodes.read().unwrap_or_else(PoisonError::into_inner);
            listed.get(&any.service).cloned().unwrap_or_default()
        };
        let mut unanswered = Vec::new();
        for (id, answer) in answers {
            match answer {
                Ok(serving) => {
                    for new in serving {
                        match found.iter_mut().find(|known| known.node == new.node) {
                            // A node that drained itself is not used, whoever lists it.
                            Some(known) if new.weight == 0 => known.weight = 0,
                            Some(_) => {}
                            None => found.push(new),
                        }
                    }
                }
                Err(error) => unanswered.push((id.clone(), Cause::new(error))),
            }
        }
        if let Some(tag) = &any.tag {
            found.retain(|serving| serving.tags.iter().any(|has| **has == **tag));
        }
        (found, unanswered)
    }

    /// Returns the nodes of a service in the order to try. Resolvers have half of the time.
    ///
    /// # Errors
    /// [`ConnectError::NoneServes`] if there is none that is not drained.
    pub async fn choose(self: &Arc<Self>, any: &AnyOf, within: Duration) -> Result<Choice, ConnectError> {
        let (serving, unanswered) = self.found(any, within / 2).await;
        let drained = serving.iter().filter(|serving| serving.weight == 0).map(|serving| serving.node.clone());
        let none = NoneServes { any: any.clone(), drained: drained.collect(), unanswered, failed: Vec::new() };
        let order = self.pool().order(&any.service, serving, now(), &mut fastrand::Rng::new());
        let is_empty = order.is_empty();
        let choice = Choice { node: self.clone(), any: any.clone(), left: order.into_iter(), none };
        if is_empty { Err(choice.none()) } else { Ok(choice) }
    }

    /// Connects to a node that serves a service. The connection stays with that node.
    ///
    /// # Errors
    /// [`ConnectError::NoneServes`] has what happened at each of them.
    pub async fn connect_any(
        self: &Arc<Self>,
        any: &AnyOf,
        timeout: Option<Duration>,
    ) -> Result<Connection, ConnectError> {
        let until = later(now(), timeout.unwrap_or(self.policy.total));
        let left = || until.saturating_duration_since(now());
        let mut choice = self.choose(any, left()).await?;
        while let Some((peer, _in_use)) = choice.next_node(left()) {
            let share = choice.share(left());
            match self.in_use(&peer, Some(share)).await {
                Ok(connection) => {
                    choice.succeeded(&peer);
                    return Ok(connection);
                }
                Err(ConnectError::ShuttingDown) => return Err(ConnectError::ShuttingDown),
                Err(error) => choice.failed(&peer, Cause::new(error)),
            }
        }
        Err(choice.none())
    }

    /// Sends a message to a node that serves a service, and returns its name.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send_any(self: &Arc<Self>, any: &AnyOf, mailbox: &str, body: &[u8]) -> Result<NodeName, SendError> {
        let until = later(now(), self.policy.total);
        let left = || until.saturating_duration_since(now());
        let mut choice = self.choose(any, left()).await?;
        while let Some((peer, _in_use)) = choice.next_node(left()) {
            let share = choice.share(left());
            let sent = match self.in_use(&peer, Some(share)).await {
                Ok(connection) => connection.send(mailbox, "", body).await,
                Err(error) => Err(error.into()),
            };
            match sent {
                Ok(()) => {
                    choice.succeeded(&peer);
                    return Ok(peer);
                }
                Err(error) if is_of_the_message(&error) => return Err(error),
                Err(error) => choice.failed(&peer, Cause::new(error)),
            }
        }
        Err(choice.none().into())
    }

    /// Calls a mailbox of a node that serves a service, waits for the answer, at most `timeout` in all, and returns it with
    /// the name of the node. The next node is called if the call was not sent, or there is no such mailbox; a call that a
    /// node may have seen is not repeated.
    ///
    /// # Errors
    /// [`CallError`] says whether a node may have seen the call.
    pub async fn call_any(
        self: &Arc<Self>,
        any: &AnyOf,
        mailbox: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<(NodeName, Bytes), CallError> {
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        let mut choice = self.choose(any, left()).await?;
        while let Some((peer, _in_use)) = choice.next_node(left()) {
            let called = match self.in_use(&peer, Some(choice.share(left()))).await {
                Ok(connection) => connection.call(mailbox, "", body, left()).await,
                Err(error) => Err(error.into()),
            };
            match called {
                Ok(answer) => {
                    choice.succeeded(&peer);
                    return Ok((peer, answer));
                }
                Err(CallError::NotSent(error)) if is_of_the_message(&error) => return Err(error.into()),
                Err(error @ (CallError::NotSent(_) | CallError::NoMailbox)) => choice.failed(&peer, Cause::new(error)),
                Err(error @ CallError::LinkDown(_)) => {
                    choice.failed(&peer, Cause::new(error.clone()));
                    return Err(error);
                }
                Err(CallError::TimedOut(_)) => {
                    choice.failed(&peer, Cause::new(CallError::TimedOut(timeout)));
                    return Err(CallError::TimedOut(timeout));
                }
                Err(error) => return Err(error),
            }
        }
        Err(choice.none().into())
    }
}

/// Returns true if another node would not take the message either.
fn is_of_the_message(error: &SendError) -> bool {
    match error {
        SendError::Connect(cause) => matches!(cause.downcast_ref(), Some(ConnectError::ShuttingDown)),
        error => matches!(error, SendError::BadTerm(_) | SendError::BadName | SendError::TooLarge { .. }),
    }
}
