//! Flight to a name: the dials made for all callers of a name at the time, and the waits for links of other dials in between.

use std::time::Instant;

use trunkline_route::{LinkId, NodeName};

use super::{ADOPT, Aim, Flown, Handle, MAX_DIALS, Outcome, Peer};
use crate::exec::Found;
use crate::pair::FlightId;
use crate::{NoRoute, Reason};

/// An event in the course of a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlightEvent<H> {
    /// The flight may begin.
    Begins,
    /// The dial of the flight ended.
    Dialled(Flown<H>),
    /// Links changed, or the time of [`Step::Await`] has come.
    Look,
}

/// The next thing that a flight does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<H> {
    /// Wait until links change, but not longer than this moment, then give [`FlightEvent::Look`].
    Await(Instant),
    /// Dial, and report how that ended with [`FlightEvent::Dialled`].
    Dial {
        /// The link is to replace a live one that does not satisfy.
        replace: bool,
    },
    /// Report [`Peer::flight_ended`], then give the outcome to the callers.
    End(Outcome<H>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) id: FlightId,
    pub(super) aim: Aim,
    pub(super) callers: usize,
    /// The live link that was not good enough when the flight was made.
    pub(super) unsatisfying: Option<LinkId>,
    pub(super) stage: Stage,
    dials: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// A flight that lost its callers has not ended yet; two dials of a name do not overlap.
    Queued,
    /// The flight was told to begin, or dials.
    Dialling,
    /// The flight waits for the link that another dial of the two nodes brings.
    Adopting {
        /// The end of the wait.
        until: Instant,
        /// A link was here already, if only a provisional one: when there is none any more, nothing is waited for.
        came: bool,
        /// The failure of the dial before, which is the outcome if no link comes.
        failed: Option<NoRoute>,
    },
}

impl Flight {
    pub(super) fn new(id: FlightId, aim: Aim, unsatisfying: Option<LinkId>) -> Self {
        Self { id, aim, callers: 1, unsatisfying, stage: Stage::Queued, dials: 0 }
    }
}

fn failed<H>(target: &NodeName, reason: Reason) -> Step<H> {
    Step::End(Outcome::Failed(NoRoute { target: target.clone(), reason, attempts: Vec::new() }))
}

impl<H: Handle> Peer<H> {
    /// Moves a flight on. `target` is the name of the peer.
    pub fn step(&mut self, target: &NodeName, flight: FlightId, now: Instant, event: FlightEvent<H>) -> Step<H> {
        let step = match event {
            FlightEvent::Begins => None,
            FlightEvent::Dialled(Ok(Found::Link(link))) => return Step::End(Outcome::Dialled(link)),
            FlightEvent::Dialled(Ok(Found::Adopt)) => self.adopt(flight, now, None),
            // The peer came while the last attempt failed.
            FlightEvent::Dialled(Err(no_route)) if self.expects_another(flight) => {
                self.adopt(flight, now, Some(no_route))
            }
            FlightEvent::Dialled(Err(no_route)) => return Step::End(Outcome::Failed(no_route)),
            FlightEvent::Look => self.look(flight, now),
        };
        step.unwrap_or_else(|| self.dial(target, flight, now))
    }

    /// Returns true if an inbound link took the place of the flight's dial.
    pub fn is_overtaken(&self, flight: FlightId) -> bool {
        self.pair.dialling() != Some(flight)
    }

    fn current(&mut self, flight: FlightId) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|current| current.id == flight)
    }

    /// The live link, unless it is the one that did not satisfy when the flight was made.
    fn other_link(&self, flight: FlightId) -> Option<&H> {
        let unsatisfying = self.flight.as_ref().filter(|current| current.id == flight)?.unsatisfying;
        self.link.as_ref().filter(|link| Some(link.id()) != unsatisfying)
    }

    /// Returns true if there is a link to adopt, or one about to come up.
    fn expects_another(&self, flight: FlightId) -> bool {
        self.other_link(flight).is_some() || self.pair.provisional().is_some()
    }

    fn dial(&mut self, target: &NodeName, flight: FlightId, now: Instant) -> Step<H> {
        loop {
            let Some(current) = self.current(flight) else {
                // It lost its callers, and another flight has its place.
                return failed(target, Reason::OutOfTime);
            };
            if current.dials == MAX_DIALS {
                return failed(target, Reason::OutOfTime);
            }
            current.dials += 1;
            current.stage = Stage::Dialling;
            let replace = current.unsatisfying.is_some();
            self.settle();
            if !self.expects_another(flight) {
                self.pair.dial_begins(flight);
                return Step::Dial { replace };
            }
            if let Some(step) = self.adopt(flight, now, None) {
                return step;
            }
        }
    }

    /// The dial is over; another one of the two nodes brings the link. `None`: it came to nothing already.
    fn adopt(&mut self, flight: FlightId, now: Instant, failed: Option<NoRoute>) -> Option<Step<H>> {
        // An inbound link that overtook the dial took its place: it stands, or it is up, or it is down already.
        let came = self.is_overtaken(flight);
        self.pair.dial_ends(flight);
        self.current(flight)?.stage = Stage::Adopting { until: now + ADOPT, came, failed };
        self.look(flight, now)
    }

    /// Looks for the link to adopt. `None`: it did not come, and the next dial is due.
    fn look(&mut self, flight: FlightId, now: Instant) -> Option<Step<H>> {
        let provisional = self.pair.provisional().is_some();
        if let Some(link) = self.other_link(flight) {
            return Some(Step::End(Outcome::Adopted(link.clone())));
        }
        let current = self.current(flight)?;
        let Stage::Adopting { until, came, failed } = &mut current.stage else { return None };
        if now >= *until || (*came && !provisional) {
            return failed.take().map(|no_route| Step::End(Outcome::Failed(no_route)));
        }
        *came |= provisional;
        Some(Step::Await(*until))
    }
}
