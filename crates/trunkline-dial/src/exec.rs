//! Drives a [`Plan`] with tokio: the one place of a lookup that awaits and reads the clock.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{AbortHandle, Id, JoinSet};
use trunkline_route::{Attempt, Endpoint, Host, NodeName, ResolverId};

use crate::plan::{Event, Lookup, OpId, Plan, Step};
use crate::{AttemptError, NoRoute, Record};

/// What a lookup needs done. Every future may be dropped at any time and must then undo what it began.
pub trait Ports: Send + Sync + 'static {
    /// What a successful dial gives. Dropping one closes it.
    type Link: Send + 'static;

    /// Asks a resolver.
    fn resolve(
        &self,
        resolver: ResolverId,
        target: NodeName,
    ) -> impl Future<Output = Result<Vec<Endpoint>, AttemptError>> + Send;

    /// Looks a host name up.
    fn lookup(&self, host: Host) -> impl Future<Output = Result<Vec<IpAddr>, AttemptError>> + Send;

    /// Dials one address and gives the proven peer's name and its link.
    fn connect(
        &self,
        attempt: Attempt,
        socket: SocketAddr,
    ) -> impl Future<Output = Result<(NodeName, Self::Link), AttemptError>> + Send;

    /// A dial ended: with `None` it succeeded. For memory, events and logs.
    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>);

    /// A record was added to the lookup.
    fn recorded(&self, target: &NodeName, record: &Record);
}

/// How a lookup ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<L> {
    /// By this link.
    Link(L),
    /// The peer came by another link, or is about to: wait for that one.
    Adopt,
}

enum Outcome<L> {
    Resolved(Result<Vec<Endpoint>, AttemptError>),
    LookedUp(Result<Vec<IpAddr>, AttemptError>),
    Connected(Result<(NodeName, L), AttemptError>),
}

#[expect(clippy::disallowed_methods, reason = "the executor is the shell that brings the time")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Runs one lookup to its end. Dropping the future cancels every attempt at once.
///
/// # Errors
/// [`NoRoute`] with every attempt made.
pub async fn run<P: Ports>(ports: Arc<P>, lookup: Lookup) -> Result<Found<P::Link>, NoRoute> {
    let target = lookup.target.clone();
    let mut plan = Plan::new(lookup, now());
    let mut tasks: JoinSet<Outcome<P::Link>> = JoinSet::new();
    let mut ops: HashMap<Id, (OpId, AbortHandle)> = HashMap::new();
    let mut attempts: HashMap<OpId, Attempt> = HashMap::new();
    let mut links: HashMap<OpId, P::Link> = HashMap::new();
    let mut recorded = 0;
    loop {
        let step = plan.poll(now());
        for record in &plan.records()[recorded..] {
            ports.recorded(&target, record);
        }
        recorded = plan.records().len();
        let ports = ports.clone();
        match step {
            Step::Resolve { op, resolver, target } => {
                let handle = tasks.spawn(async move { Outcome::Resolved(ports.resolve(resolver, target).await) });
                ops.insert(handle.id(), (op, handle));
            }
            Step::Lookup { op, host } => {
                let handle = tasks.spawn(async move { Outcome::LookedUp(ports.lookup(host).await) });
                ops.insert(handle.id(), (op, handle));
            }
            Step::Connect { op, attempt, socket, .. } => {
                attempts.insert(op, (*attempt).clone());
                let handle = tasks.spawn(async move { Outcome::Connected(ports.connect(*attempt, socket).await) });
                ops.insert(handle.id(), (op, handle));
            }
            Step::Cancel { op } => {
                ops.retain(|_, (live, handle)| {
                    if *live == op {
                        handle.abort();
                    }
                    *live != op
                });
                links.remove(&op);
                if let Some(attempt) = attempts.remove(&op) {
                    // A loser of a stagger is no failure; one that ran out of time is.
                    if let Some(record) = plan.records().iter().rev().find(|r| r.address == attempt.address.to_string())
                        && matches!(record.error, AttemptError::CandidateTimeout(_))
                    {
                        ports.observe(&attempt, Some(&record.error));
                    }
                }
            }
            Step::Wait { until } => {
                let sleep = tokio::time::sleep_until(until.into());
                tokio::select! {
                    biased;
                    Some(ended) = tasks.join_next_with_id() => {
                        let (id, outcome) = match ended {
                            Ok((id, outcome)) => (id, Some(outcome)),
                            Err(error) => (error.id(), None),
                        };
                        // An operation that was cancelled is not in the map any more.
                        let Some((op, _)) = ops.remove(&id) else { continue };
                        if let Some(Outcome::Connected(Err(AttemptError::Adopted))) = outcome {
                            return Ok(Found::Adopt);
                        }
                        let event = event(op, outcome, &mut links);
                        match &event {
                            Event::Failed { op, error } => {
                                if let Some(attempt) = attempts.remove(op) {
                                    ports.observe(&attempt, Some(error));
                                }
                            }
                            Event::Established { op, .. } => {
                                if let Some(attempt) = attempts.remove(op) {
                                    ports.observe(&attempt, None);
                                }
                            }
                            Event::Resolved { .. } | Event::LookedUp { .. } => {}
                        }
                        plan.handle(now(), event);
                    }
                    () = sleep => {}
                }
            }
            Step::Done(Ok(op)) => {
                if let Some(link) = links.remove(&op) {
                    return Ok(Found::Link(link));
                }
            }
            Step::Done(Err(no_route)) => return Err(no_route),
        }
    }
}

fn event<L>(op: OpId, outcome: Option<Outcome<L>>, links: &mut HashMap<OpId, L>) -> Event {
    match outcome {
        Some(Outcome::Resolved(answer)) => Event::Resolved { op, answer },
        Some(Outcome::LookedUp(answer)) => Event::LookedUp { op, answer },
        Some(Outcome::Connected(Ok((peer, link)))) => {
            links.insert(op, link);
            Event::Established { op, peer }
        }
        Some(Outcome::Connected(Err(error))) => Event::Failed { op, error },
        None => Event::Failed { op, error: AttemptError::Panicked },
    }
}
