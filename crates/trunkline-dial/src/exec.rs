//! Drives a [`Plan`] with tokio: the one place of a lookup that awaits and reads the clock.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{AbortHandle, Id, JoinSet};
use trunkline_route::{Attempt, Destination, Endpoint, NodeName, ProxyRoute, ResolverId};
use trunkline_stack::BoxFuture;

use crate::plan::{Event, FoundGateway, Lookup, OpId, Plan, Step};
use crate::{AttemptError, NoRoute, Reason, Record};

/// Operations that a lookup needs. Every future may be dropped at any time and must then undo what it began.
pub trait Ports: Send + Sync + 'static {
    /// Link that a successful dial returns. Dropping one closes it.
    type Link: Send + 'static;

    /// Asks a resolver.
    fn resolve(
        &self,
        resolver: ResolverId,
        target: NodeName,
    ) -> impl Future<Output = Result<Vec<Endpoint>, AttemptError>> + Send;

    /// Asks a resolver which gateways lead to a name. Only lookups that name somebody to ask do; a transport without gateways
    /// need not have it.
    fn gateways(
        &self,
        _: ResolverId,
        _: NodeName,
    ) -> impl Future<Output = Result<Vec<FoundGateway>, AttemptError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Finds the destinations of an attempt whose host is a name: the addresses of the host, in the resolver's order, each
    /// with the port of the attempt. A transport that takes hosts by name answers with the host itself, as
    /// [`Destination::Host`].
    fn lookup(&self, attempt: Attempt) -> impl Future<Output = Result<Vec<Destination>, AttemptError>> + Send;

    /// Dials one destination and gives the proven peer's name and its link. The destination is an address, or a host if
    /// [`Ports::lookup`] gave one.
    fn connect(
        &self,
        attempt: Attempt,
        to: Destination,
    ) -> impl Future<Output = Result<(NodeName, Self::Link), AttemptError>> + Send;

    /// Reaches the gateway of the route, has it lead on, and gives the proven final node's name and its link. Only lookups
    /// with proxy routes ask for it; a transport without gateways need not have it.
    fn relay(
        &self,
        route: ProxyRoute,
        _: Attempt,
    ) -> impl Future<Output = Result<(NodeName, Self::Link), AttemptError>> + Send {
        let error = format!("{} cannot be gone through: this transport has no gateways", route.gateway());
        async { Err(AttemptError::Relay(error.into())) }
    }

    /// An attempt ended: with `None` it succeeded. A loser of a stagger is not told of. For memory.
    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>);

    /// A record was added to the lookup. For events and logs.
    fn recorded(&self, target: &NodeName, record: &Record);
}

/// Successful end of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<L> {
    /// By this link.
    Link(L),
    /// The peer came by another link, or is about to: wait for that one.
    Adopt,
}

enum Outcome<L> {
    Resolved(Result<Vec<Endpoint>, AttemptError>),
    LookedUp(Result<Vec<Destination>, AttemptError>),
    Gateways(Result<Vec<FoundGateway>, AttemptError>),
    Connected(Result<(NodeName, L), AttemptError>),
}

#[expect(clippy::disallowed_methods, reason = "the executor is the shell that brings the time")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The operations under way. Dropping it aborts them all.
struct Flying<L> {
    tasks: JoinSet<Outcome<L>>,
    ops: HashMap<Id, (OpId, AbortHandle)>,
    /// Attempts of the dials under way.
    dials: HashMap<OpId, Attempt>,
}

impl<L: Send + 'static> Flying<L> {
    fn start(&mut self, op: OpId, task: impl Future<Output = Outcome<L>> + Send + 'static) {
        // Boxed, so that the runtime's code around a task is compiled once and not for each kind of operation.
        let task: BoxFuture<'static, Outcome<L>> = Box::pin(task);
        let handle = self.tasks.spawn(task);
        self.ops.insert(handle.id(), (op, handle));
    }

    fn cancel(&mut self, op: OpId) {
        self.ops.retain(|_, (live, handle)| {
            if *live == op {
                handle.abort();
            }
            *live != op
        });
        self.dials.remove(&op);
    }

    /// The next operation that ends, `None` for one that panicked. Never, when there is none.
    async fn ended(&mut self) -> (OpId, Option<Outcome<L>>) {
        loop {
            let (id, outcome) = match self.tasks.join_next_with_id().await {
                Some(Ok((id, outcome))) => (id, Some(outcome)),
                Some(Err(error)) => (error.id(), None),
                None => std::future::pending().await,
            };
            // An operation that was cancelled is not in the map any more; its link, if it still made one, goes here.
            if let Some((op, _)) = self.ops.remove(&id) {
                return (op, outcome);
            }
        }
    }
}

/// Runs one lookup to its end. Dropping the future cancels every attempt at once.
///
/// An attempt that ends as [`AttemptError::Adopted`] ends the lookup as [`Found::Adopt`], unless another attempt is
/// under way beside it: that one may be what it gave way to, and is let to its end first.
///
/// # Errors
/// [`NoRoute`] with every attempt made.
pub async fn run<P: Ports>(ports: Arc<P>, lookup: Lookup) -> Result<Found<P::Link>, NoRoute> {
    let target = lookup.target.clone();
    let mut plan = Plan::new(lookup, now());
    let mut flying = Flying { tasks: JoinSet::new(), ops: HashMap::new(), dials: HashMap::new() };
    let mut won = None;
    let mut adopted = false;
    let mut recorded = 0;
    loop {
        let step = plan.poll(now());
        for (n, record) in plan.records().iter().enumerate().skip(recorded) {
            if let Some(attempt) = plan.attempt_of(n) {
                ports.observe(attempt, Some(&record.error));
            }
            ports.recorded(&target, record);
        }
        recorded = plan.records().len();
        let ports = ports.clone();
        match step {
            Step::Resolve { op, resolver, target } => {
                flying.start(op, async move { Outcome::Resolved(ports.resolve(resolver, target).await) });
            }
            Step::Gateways { op, resolver, target } => {
                flying.start(op, async move { Outcome::Gateways(ports.gateways(resolver, target).await) });
            }
            Step::Lookup { op, attempt } => {
                flying.start(op, async move { Outcome::LookedUp(ports.lookup(*attempt).await) });
            }
            Step::Connect { op, attempt, to, .. } => {
                flying.dials.insert(op, (*attempt).clone());
                flying.start(op, async move { Outcome::Connected(ports.connect(*attempt, to).await) });
            }
            Step::Relay { op, route, attempt, .. } => {
                flying.dials.insert(op, (*attempt).clone());
                flying.start(op, async move { Outcome::Connected(ports.relay(*route, *attempt).await) });
            }
            Step::Cancel { op } => flying.cancel(op),
            Step::Wait { until } => {
                let (op, outcome) = tokio::select! {
                    biased;
                    ended = flying.ended() => ended,
                    () = tokio::time::sleep_until(until.into()) => continue,
                };
                let dial = flying.dials.remove(&op);
                let mut link = None;
                let event = match outcome {
                    Some(Outcome::Resolved(answer)) => Event::Resolved { op, answer },
                    Some(Outcome::LookedUp(answer)) => Event::LookedUp { op, answer },
                    Some(Outcome::Gateways(answer)) => Event::Gateways { op, answer },
                    Some(Outcome::Connected(Ok((peer, made)))) => {
                        link = Some(made);
                        Event::Established { op, peer }
                    }
                    Some(Outcome::Connected(Err(AttemptError::Adopted))) if flying.dials.is_empty() => {
                        return Ok(Found::Adopt);
                    }
                    Some(Outcome::Connected(Err(error))) => {
                        adopted |= error == AttemptError::Adopted;
                        Event::Failed { op, error }
                    }
                    None => Event::Failed { op, error: AttemptError::Panicked },
                };
                plan.handle(now(), event);
                // A link to somebody else is not kept a moment longer.
                won = link.filter(|_| plan.winner() == Some(op)).zip(dial);
            }
            Step::Done(Ok(_)) => {
                let Some((link, attempt)) = won else { unreachable!("a plan is won by the link just made") };
                ports.observe(&attempt, None);
                return Ok(Found::Link(link));
            }
            Step::Done(Err(no_route)) if adopted && no_route.reason != Reason::OutOfTime => return Ok(Found::Adopt),
            Step::Done(Err(no_route)) => return Err(no_route),
        }
    }
}

#[cfg(test)]
mod tests;
