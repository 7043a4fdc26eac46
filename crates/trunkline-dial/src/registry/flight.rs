//! The task of one flight, and what it leaves behind however it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use trunkline_route::NodeName;

use super::{Registry, SessionLink, Signals};
use crate::exec::Found;
use crate::pair::FlightId;
use crate::sessions::{FlightEvent, Flown, Outcome, Step};
use crate::{NoRoute, Reason};

/// Tidies up after a flight, however it ends, and then tells its callers: whoever finds no flight any more starts
/// one, and nobody joins one that is over.
pub(super) struct Landing<L: SessionLink> {
    registry: Arc<Registry<L>>,
    name: NodeName,
    flight: FlightId,
    signals: Arc<Signals>,
    outcome: Option<Outcome<L>>,
    result: watch::Sender<Option<Outcome<L>>>,
}

impl<L: SessionLink> Landing<L> {
    pub(super) fn new(
        registry: Arc<Registry<L>>,
        name: NodeName,
        flight: FlightId,
        result: watch::Sender<Option<Outcome<L>>>,
        signals: Arc<Signals>,
    ) -> Self {
        Self { registry, name, flight, signals, outcome: None, result }
    }
}

impl<L: SessionLink> Drop for Landing<L> {
    fn drop(&mut self) {
        let task = self.registry.with(&self.name, |entry| {
            entry.peer.flight_ended(self.flight);
            entry.task.take_if(|task| task.flight == self.flight)
        });
        // Nobody listens to a flight that was cancelled; one that has callers and no outcome panicked.
        let panicked = || {
            let (target, reason) = (self.name.clone(), Reason::Panicked);
            Outcome::Failed(NoRoute { target, reason, attempts: Vec::new() })
        };
        let outcome = self.outcome.take().unwrap_or_else(panicked);
        self.result.send_replace(Some(outcome));
        drop(task);
    }
}

#[expect(clippy::disallowed_methods, reason = "the task of a flight is the shell that brings the time")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The task of a flight.
pub(super) async fn fly<L, F, D>(mut landing: Landing<L>, dial: D)
where
    L: SessionLink,
    F: Future<Output = Flown<L>> + Send + 'static,
    D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
{
    let signals = landing.signals.clone();
    landing.outcome = tokio::select! {
        biased;
        () = signals.cancel.notified() => None,
        outcome = dials(&landing, &dial) => outcome,
    };
}

async fn dials<L, F, D>(landing: &Landing<L>, dial: &D) -> Option<Outcome<L>>
where
    L: SessionLink,
    F: Future<Output = Flown<L>> + Send + 'static,
    D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
{
    let Landing { registry, name, flight, signals, .. } = landing;
    signals.begin.notified().await;
    let overtaken = || async {
        loop {
            signals.overtaken.notified().await;
            if registry.with(name, |entry| entry.peer.is_overtaken(*flight)) != Some(false) {
                return;
            }
        }
    };
    let mut event = FlightEvent::Begins;
    loop {
        let changed = registry.changed(name)?;
        let notified = changed.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        event = match registry.with(name, |entry| entry.peer.step(name, *flight, now(), event))? {
            Step::Await(until) => {
                let _ = tokio::time::timeout_at(until.into(), notified).await;
                FlightEvent::Look
            }
            Step::Dial { replace } => tokio::select! {
                biased;
                () = overtaken() => FlightEvent::Dialled(Ok(Found::Adopt)),
                flown = dial(*flight, replace) => FlightEvent::Dialled(flown),
            },
            Step::End(outcome) => return Some(outcome),
        };
    }
}
