//! The dialling side: the steps of a lookup, carried out by the stacks of the node.

use std::sync::Arc;
use std::time::Duration;

use trunkline_registrar::Resolver;
use trunkline_route::{Attempt, CloseCode, Destination, Endpoint, NodeName, ProxyRoute, ResolverId};
use trunkline_stack::{AttemptError, Cause, Hooks, Link, Pairing, Proven, Stack, Transport, log_peer};

use super::{SessionEvent, Sessions, hold_for, now};
use crate::connection::Session;
use crate::exec::Ports;
use crate::pair::{FlightId, LinkRef};
use crate::plan::FoundGateway;
use crate::sessions::{ConnectRequest, Up};
use crate::{Record, SessionLink};

/// Longest time that a replaced link waits for the peer to hear from the new one.
const UNHEARD: Duration = Duration::from_secs(5);

/// Node as one flight of a dial sees it.
pub(super) struct NodePorts {
    pub(super) node: Arc<Sessions>,
    pub(super) flight: FlightId,
    /// A live link is up that does not satisfy the route.
    pub(super) replace: bool,
    /// The connection is to leave where it is, and the other node of its name with it, if the route leads to another one.
    pub(super) leaves: bool,
}

impl Ports for NodePorts {
    type Link = Session;

    async fn resolve(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        resolve(&self.node, &resolver, &target).await
    }

    async fn lookup(&self, attempt: Attempt) -> Result<Vec<Destination>, AttemptError> {
        lookup(&self.node, attempt).await
    }

    async fn gateways(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<FoundGateway>, AttemptError> {
        let node = &self.node;
        let asked = asked(node, &resolver)?;
        let found = asked.gateways(&target).await.map_err(|error| AttemptError::Resolve(Cause::new(error)))?;
        let found = found.into_iter().filter(|name| *name != node.name).map(|name| {
            let live = node.registry.get(&name);
            let is_live = live.is_some_and(|live| node.satisfies(&name, &ConnectRequest::default(), &live));
            FoundGateway { name, is_live }
        });
        Ok(found.collect())
    }

    async fn connect(&self, attempt: Attempt, to: Destination) -> Result<(NodeName, Session), AttemptError> {
        let (stack, over) = opened(&self.node, &attempt, &to).await?;
        let proven = stack.dial(over, &attempt).await.map_err(|error| of_this_node(&self.node, &to, error))?;
        self.establish(proven, &attempt, stack.pairing()).await
    }

    async fn relay(&self, route: ProxyRoute, attempt: Attempt) -> Result<(NodeName, Session), AttemptError> {
        stack(&self.node, &attempt)?;
        let Some(gateways) = self.node.gateways.get().and_then(std::sync::Weak::upgrade) else {
            return Err(AttemptError::Relay("this node goes through no gateways".into()));
        };
        let stream = gateways.through(&route, &attempt).await?;
        Ok((attempt.target.clone(), self.dial_over(Transport::relayed(stream), &attempt).await?))
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        observe(&self.node, attempt, failure);
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        if matches!(record.error, AttemptError::Tls(_) | AttemptError::WrongCookie) {
            log_peer!(self.node, target, WARN, "attempt failed", %target, %record);
        } else {
            tracing::debug!(%target, %record, "attempt failed");
        }
        self.node.emit(SessionEvent::AttemptFailed { target: target.clone(), record: record.clone() });
    }
}

impl NodePorts {
    /// Dials over a transport that is there already.
    pub(super) async fn dial_over(&self, over: Transport, attempt: &Attempt) -> Result<Session, AttemptError> {
        let stack = stack(&self.node, attempt)?;
        let proven = stack.dial(over, attempt).await.map_err(not_myself)?;
        Ok(self.establish(proven, attempt, stack.pairing()).await?.1)
    }

    /// Brings up the link to a proven peer, if it may come up.
    async fn establish(
        &self,
        proven: Box<dyn Proven>,
        attempt: &Attempt,
        pairing: Pairing,
    ) -> Result<(NodeName, Session), AttemptError> {
        let node = &self.node;
        let peer = proven.peer().clone();
        if peer.name != attempt.target {
            return Err(AttemptError::WrongName { actual: peer.name.to_string() });
        }
        if let Some(live) = node.registry.get(&peer.name) {
            let is_same = live.link.info().incarnation == peer.incarnation;
            if !is_same && !self.leaves && live.keeps_name().await {
                return Err(AttemptError::NameInUse("this node is connected to it".into()));
            }
            if is_same && self.replace && pairing == Pairing::Names {
                // The peer cannot be told which link the new one replaces: it takes one when it has none.
                if live.link.stats().streams > 0 {
                    let why = "streams are open on the connection, and the protocol cannot replace a link";
                    return Err(AttemptError::NameInUse(why.into()));
                }
                live.link.go_away(CloseCode::Superseded);
                if tokio::time::timeout(UNHEARD, live.link.closed()).await.is_err() {
                    live.link.close(CloseCode::Superseded);
                }
            }
        }
        let ticket = node.registry.may_finish(&peer.name, self.flight, peer.link, peer.incarnation, self.replace);
        let Some(ticket) = ticket else {
            return Err(AttemptError::Adopted);
        };
        let standing = proven.finish(ticket.claims()).await.map_err(not_myself)?;
        // From here to the end nothing is awaited: the link is up, or it never was.
        let info = standing.info().clone();
        let link = LinkRef { id: info.id, epoch: info.epoch, incarnation: info.incarnation, dialled: true };
        let Some(Up { replaced: old, elders }) = node.registry.accepted(&info.peer, self.flight, link) else {
            return Err(AttemptError::Adopted);
        };
        let survivor = old.as_ref().filter(|(_, retire)| retire.alive).map(|(live, _)| live);
        let left = old.as_ref().filter(|(_, retire)| self.leaves && !retire.alive).map(|(live, _)| live);
        let hooks = Hooks { hold: hold_for(elders), on_down: Some(node.on_down(info.clone())), on_first_frame: None };
        let (link, driver) = standing.start(node.mailboxes.clone(), hooks);
        // The responder's end is provisional until it hears from us.
        link.ping();
        let live = Session::new(link);
        live.take_place(survivor.or(left));
        if !node.registry.install(&info.peer, live.clone()) {
            // An inbound link came up in between: who holds the connection is to use that one.
            if let Some(current) = node.registry.get(&info.peer) {
                live.slot().switch(current.link);
            }
            return Err(AttemptError::Adopted);
        }
        node.up(&info, old.as_ref());
        node.spawn(driver);
        if let Some(left) = left {
            node.drains(left);
            left.retire(true);
        } else if let Some((old, retire)) = old {
            match retire.alive {
                true => node.spawn(retire_after(old, live.link.clone())),
                false => old.retire(false),
            }
        }
        Ok((info.peer, live))
    }
}

/// A lookup that only sees whether its candidate answers.
pub(super) struct Probe {
    pub(super) node: Arc<Sessions>,
}

impl Ports for Probe {
    type Link = ();

    async fn resolve(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        resolve(&self.node, &resolver, &target).await
    }

    async fn lookup(&self, attempt: Attempt) -> Result<Vec<Destination>, AttemptError> {
        lookup(&self.node, attempt).await
    }

    async fn connect(&self, attempt: Attempt, to: Destination) -> Result<(NodeName, ()), AttemptError> {
        let (stack, over) = opened(&self.node, &attempt, &to).await?;
        let name = stack.probe(over, &attempt).await.map_err(|error| of_this_node(&self.node, &to, error))?;
        Ok((name, ()))
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        observe(&self.node, attempt, failure);
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        tracing::debug!(%target, %record, "a probe failed");
    }
}

fn asked<'n>(node: &'n Sessions, resolver: &ResolverId) -> Result<&'n Arc<dyn Resolver>, AttemptError> {
    let found = node.resolvers.get(resolver);
    found.ok_or_else(|| AttemptError::Resolve(format!("there is no resolver {resolver}").into()))
}

async fn resolve(node: &Sessions, resolver: &ResolverId, target: &NodeName) -> Result<Vec<Endpoint>, AttemptError> {
    let asked = asked(node, resolver)?;
    asked.resolve(target).await.map_err(|error| AttemptError::Resolve(Cause::new(error)))
}

pub(super) async fn lookup(node: &Sessions, attempt: Attempt) -> Result<Vec<Destination>, AttemptError> {
    if stack(node, &attempt)?.takes_hosts(&attempt) {
        return Ok(vec![Destination::Host(attempt.address)]);
    }
    let found = node.host_names.lookup(attempt.address.host.as_str(), attempt.address.port.get()).await;
    Ok(found.map_err(|error| AttemptError::Dns(error.into()))?.into_iter().map(Destination::from).collect())
}

/// Returns the stack that speaks the version of an attempt, which it has checked.
fn stack<'n>(node: &'n Sessions, attempt: &Attempt) -> Result<&'n Arc<dyn Stack>, AttemptError> {
    let found = node.stacks.get(attempt.version.protocol());
    let found = found.ok_or_else(|| {
        let known = node.stacks.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        AttemptError::Version(format!(
            "this node has no implementation of {}; remove the version from the route or give one of {known}",
            attempt.version
        ))
    })?;
    found.check(attempt)?;
    Ok(found)
}

/// Opens a transport to a destination, with the stack that speaks the version of the attempt.
pub(super) async fn opened<'n>(
    node: &'n Sessions,
    attempt: &Attempt,
    to: &Destination,
) -> Result<(&'n Arc<dyn Stack>, Transport), AttemptError> {
    let stack = stack(node, attempt)?;
    Ok((stack, stack.connect(to.clone()).await?))
}

/// Returns the error as it is if the dial led to an address of this node: that it is this node's own is believed only then.
pub(super) fn of_this_node(node: &Sessions, to: &Destination, error: AttemptError) -> AttemptError {
    if to.socket().is_some_and(|socket| node.listens_at(socket)) { error } else { not_myself(error) }
}

/// Returns the error of a peer that claims, unproven, to be this node: it leads to the next candidate and to nothing else.
fn not_myself(error: AttemptError) -> AttemptError {
    match error {
        AttemptError::Myself => AttemptError::Rejected("the listener says that it is this node itself".into()),
        error => error,
    }
}

fn observe(node: &Sessions, attempt: &Attempt, failure: Option<&AttemptError>) {
    let mut memory = node.memory();
    match failure {
        Some(error) => memory.failed(now(), attempt, error),
        None => memory.succeeded(attempt),
    }
}

/// Ends a replaced link once the peer has: it does so when it heard from the new one. Before, it would see its only
/// link drain.
async fn retire_after(old: Session, new: Link) {
    tokio::select! {
        () = old.link.inbound_done() => {}
        _ = new.closed() => {}
        () = tokio::time::sleep(UNHEARD) => {}
    }
    old.retire(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Next;

    #[test]
    fn an_unproven_listener_that_claims_to_be_this_node_leads_to_the_next_candidate() {
        let error = not_myself(AttemptError::Myself);
        assert!(matches!(error, AttemptError::Rejected(_)), "{error:?}");
        assert_eq!(error.next(), Next::Candidate);
        assert_eq!(not_myself(AttemptError::WrongCookie), AttemptError::WrongCookie);
    }
}
