//! Caller of a name, from its first question to its link.

use trunkline_route::NodeName;

use super::{Aim, MAX_DIALS, Outcome};
use crate::{NoRoute, Reason};

/// A caller of a name: what it may use, and how many dials it has seen fail.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) aim: Aim,
    /// A failure of the flight it waits for is its own failure.
    pub(super) shares: bool,
    flights: u32,
}

impl Caller {
    /// Creates a caller that has not asked yet.
    pub fn new(aim: Aim) -> Self {
        Self { aim, shares: false, flights: 0 }
    }

    /// Returns the aim of the caller.
    pub fn aim(&self) -> &Aim {
        &self.aim
    }

    /// The flight that the caller waited for has ended, with `None` if it left no outcome. Returns the caller's answer, or
    /// `None` if it must ask again ([`Peer::connect`](super::Peer::connect)).
    ///
    /// A link that the caller's own kind of dial made is taken as it is: the dial was made under the caller's demands,
    /// whichever of the routes it went by. A link that came by another way must satisfy.
    pub fn ended<H>(
        &mut self,
        target: &NodeName,
        outcome: Option<Outcome<H>>,
        satisfies: impl Fn(&H) -> bool,
    ) -> Option<Result<H, NoRoute>> {
        // A dial with another aim is waited for, however often, and does not count.
        self.flights += u32::from(self.shares);
        match outcome {
            Some(Outcome::Dialled(link)) if self.shares || satisfies(&link) => Some(Ok(link)),
            Some(Outcome::Adopted(link)) if satisfies(&link) => Some(Ok(link)),
            Some(Outcome::Failed(no_route)) if self.shares => Some(Err(no_route)),
            _ if self.flights >= MAX_DIALS => {
                Some(Err(NoRoute { target: target.clone(), reason: Reason::AllFailed, attempts: Vec::new() }))
            }
            _ => None,
        }
    }
}
