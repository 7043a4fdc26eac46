//! One flight: the task that dials for all callers of a name, and what it leaves behind however it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use trunkline_route::NodeName;

use super::{Flown, Held, MAX_DIALS, Registry};
use crate::exec::Found;
use crate::pair::{FlightId, LinkId};
use crate::{NoRoute, Reason};

/// How long callers wait for a link that the peer's own dial is about to bring.
const ADOPT: Duration = Duration::from_secs(5);

/// How a flight ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome<L> {
    /// The peer's own dial made the link, or an earlier one had.
    Adopted(L),
    /// Its dial made the link.
    Dialled(L),
    /// No link.
    Failed(NoRoute),
}

/// What a flight starts with.
pub(super) struct TakeOff<L: Held> {
    pub(super) landing: Landing<L>,
    /// The flight that its callers left; two dials do not overlap.
    pub(super) previous: Option<watch::Receiver<Option<Outcome<L>>>>,
    /// Ends with the last caller.
    pub(super) gone: oneshot::Receiver<std::convert::Infallible>,
    /// The live link that was not good enough.
    pub(super) unsatisfying: Option<LinkId>,
}

/// Tidies up after a flight, however it ends, and then tells its callers: whoever finds no flight any more starts
/// one, and nobody joins one that is over.
pub(super) struct Landing<L: Held> {
    registry: Arc<Registry<L>>,
    name: NodeName,
    flight: FlightId,
    outcome: Option<Outcome<L>>,
    result: watch::Sender<Option<Outcome<L>>>,
}

impl<L: Held> Landing<L> {
    pub(super) fn new(
        registry: Arc<Registry<L>>,
        name: NodeName,
        flight: FlightId,
        result: watch::Sender<Option<Outcome<L>>>,
    ) -> Self {
        Self { registry, name, flight, outcome: None, result }
    }
}

impl<L: Held> Drop for Landing<L> {
    fn drop(&mut self) {
        let flight = self.registry.tidy(&self.name, |entry| {
            entry.pair.dial_ends(self.flight);
            entry.flight.take_if(|flight| flight.id == self.flight)
        });
        // Nobody listens to a flight that was cancelled; one that has callers and no outcome panicked.
        let panicked = || {
            let (target, reason) = (self.name.clone(), Reason::Panicked);
            Outcome::Failed(NoRoute { target, reason, attempts: Vec::new() })
        };
        let outcome = self.outcome.take().unwrap_or_else(panicked);
        self.result.send_replace(Some(outcome));
        drop(flight);
    }
}

/// The flight's task.
pub(super) async fn fly<L, F, D>(take_off: TakeOff<L>, dial: D)
where
    L: Held,
    F: Future<Output = Flown<L>> + Send + 'static,
    D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
{
    let TakeOff { mut landing, previous, gone, unsatisfying } = take_off;
    if let Some(mut previous) = previous {
        let _ = previous.wait_for(Option::is_some).await;
    }
    let outcome = tokio::select! {
        biased;
        _ = gone => None,
        outcome = dials(&landing, unsatisfying, &dial) => Some(outcome),
    };
    landing.outcome = outcome;
}

async fn dials<L, F, D>(landing: &Landing<L>, unsatisfying: Option<LinkId>, dial: &D) -> Outcome<L>
where
    L: Held,
    F: Future<Output = Flown<L>> + Send + 'static,
    D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
{
    let Landing { registry, name, flight, .. } = landing;
    let mut failed = None;
    for _ in 0..MAX_DIALS {
        let flown = match registry.dial_begins(name, *flight, unsatisfying) {
            None => Ok(Found::Adopt),
            Some(overtaken) => tokio::select! {
                biased;
                () = overtaken.notified() => Ok(Found::Adopt),
                flown = dial(*flight, unsatisfying.is_some()) => flown,
            },
        };
        match flown {
            Ok(Found::Link(link)) => return Outcome::Dialled(link),
            Ok(Found::Adopt) => {}
            // The peer came while the last attempt failed.
            Err(no_route) if registry.is_expected(name, unsatisfying) => failed = Some(no_route),
            Err(no_route) => return Outcome::Failed(no_route),
        }
        // An inbound link that overtook the dial took its place: it stands, or it is up, or it is gone already.
        let overtaken = registry.with(name, |entry| {
            let overtaken = entry.pair.dialling() != Some(*flight);
            entry.pair.dial_ends(*flight);
            overtaken
        });
        match (adopt(registry, name, unsatisfying, overtaken.unwrap_or(true)).await, failed.take()) {
            (Some(link), _) => return Outcome::Adopted(link),
            (None, Some(no_route)) => return Outcome::Failed(no_route),
            (None, None) => {}
        }
    }
    Outcome::Failed(NoRoute { target: name.clone(), reason: Reason::OutOfTime, attempts: Vec::new() })
}

impl<L: Held> Registry<L> {
    /// A dial of the flight begins, and what is told when the peer comes first; `None` when it already did.
    fn dial_begins(&self, name: &NodeName, flight: FlightId, unsatisfying: Option<LinkId>) -> Option<Arc<Notify>> {
        self.with(name, |entry| {
            entry.settle();
            if entry.other_link(unsatisfying).is_some() || entry.pair.provisional().is_some() {
                return None;
            }
            entry.pair.dial_begins(flight);
            let overtaken = Arc::new(Notify::new());
            if let Some(own) = entry.flight.as_mut().filter(|own| own.id == flight) {
                own.overtaken = overtaken.clone();
            }
            Some(overtaken)
        })?
    }

    /// Whether there is a link to adopt, or one about to come up.
    fn is_expected(&self, name: &NodeName, unsatisfying: Option<LinkId>) -> bool {
        let expected =
            self.with(name, |entry| entry.other_link(unsatisfying).is_some() || entry.pair.provisional().is_some());
        expected.unwrap_or_default()
    }
}

/// Waits for the link that another dial of the two brings; `None` when it does not come. `came` says that it was
/// here already, if only to stand: when it is not any more, nothing is waited for.
async fn adopt<L: Held>(
    registry: &Registry<L>,
    name: &NodeName,
    unsatisfying: Option<LinkId>,
    mut came: bool,
) -> Option<L> {
    let wait = async {
        loop {
            let changed = registry.with(name, |entry| entry.changed.clone())?;
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let (link, provisional) = registry
                .with(name, |entry| (entry.other_link(unsatisfying).cloned(), entry.pair.provisional().is_some()))?;
            if link.is_some() || (came && !provisional) {
                return link;
            }
            came |= provisional;
            notified.await;
        }
    };
    tokio::time::timeout(ADOPT, wait).await.ok().flatten()
}
