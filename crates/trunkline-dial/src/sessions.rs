//! Choice of the link that stands for a name, decided without tasks, locks or a clock.
//!
//! A [`Peer`] is everything that a node knows of its links to one name: the live link, an accepted link that waits for its
//! first frame, the dial under way and its callers, and the links that gave way and still deliver. Its methods are what
//! happens; their results are what the caller of the method must do at once, and the effects
//! ([`Peer::take_effects`]) are what it must have done afterwards. [`Registry`](crate::Registry) runs one `Peer` per name
//! with tokio; the simulator of the workspace runs the same ones on a virtual clock.
//!
//! [`Routing`] says which routes serve a [`ConnectRequest`], and whether a live link satisfies it.
//!
//! Contract: after each call of a method of `Peer` that takes `&mut self`, take the effects and carry them out in order.

use std::time::Duration;

use trunkline_route::{Cookie, Incarnation, LinkId, NetworkRoute, NodeName};

use crate::NoRoute;
use crate::exec::Found;
use crate::pair::{FlightId, OnOffer, Retire};

mod caller;
mod flight;
mod keys;
mod peer;
mod routing;
#[cfg(test)]
mod tests;
pub(crate) mod waits;

pub use caller::Caller;
pub use flight::{FlightEvent, Step};
pub use keys::Keys;
pub use peer::Peer;
pub use routing::{ConnectRequest, LinkFacts, Routing};

/// Dials of one flight, should adopted links come to nothing again and again; flights of one caller, should their links not
/// be what it demands.
pub(crate) const MAX_DIALS: u32 = 3;

/// Longest time that a flight waits for a link that the peer's own dial is about to bring.
const ADOPT: Duration = Duration::from_secs(5);

/// A handle of a link. Clones share the link.
pub trait Handle: Clone {
    /// Returns the id of the link.
    fn id(&self) -> LinkId;

    /// Returns the incarnation of the peer at the other end.
    fn incarnation(&self) -> Incarnation;
}

/// The result of one dial: how it found the peer, or why it did not.
pub type Flown<H> = Result<Found<H>, NoRoute>;

/// The end of a flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<H> {
    /// The peer's own dial made the link, or an earlier one had.
    Adopted(H),
    /// The dial of the flight made the link.
    Dialled(H),
    /// No link was made.
    Failed(NoRoute),
}

/// Constraints of a dial. Callers share the outcome of a dial that may use whatever they may; by any other dial they can only
/// gain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// The only route that may be used, if one is given.
    pub route: Option<NetworkRoute>,
    /// Routes through other nodes are excluded.
    pub directly: bool,
    /// The cookie to prove, in place of those of the routes.
    pub cookie: Option<Cookie>,
    /// The timeout of the dial.
    pub timeout: Duration,
    /// The name whose dial waits for this one. Such a dial tries less: its failure is not the failure of a caller whose dial
    /// nobody waits for.
    pub awaited_by: Option<NodeName>,
}

impl Aim {
    /// Creates the aim of a dial over any route with this timeout.
    pub fn any(timeout: Duration) -> Self {
        Self { route: None, directly: false, cookie: None, timeout, awaited_by: None }
    }

    /// Returns true if a failure of this dial is one of a caller with the other aim too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // A dial that another dial awaits tries less.
        let tries_as_much = self.awaited_by.is_none() || other.awaited_by.is_some();
        (&self.route, self.directly, &self.cookie) == (&other.route, other.directly, &other.cookie)
            && self.timeout >= other.timeout
            && tries_as_much
    }
}

/// A piece of work that a method of [`Peer`] leaves to its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<H> {
    /// The flight may begin: give it [`FlightEvent::Begins`].
    Begin(FlightId),
    /// The flight has no callers any more: end its dial, then report [`Peer::flight_ended`].
    Cancel(FlightId),
    /// Links changed: wake whoever waits for that, and give flights that wait [`FlightEvent::Look`].
    Changed,
    /// A link is not to be used by anybody: close it.
    Discard(H),
    /// An inbound link makes the dial of the flight needless: drop the dial and report it as [`Found::Adopt`].
    Overtaken(FlightId),
    /// A handle that the peer's state held. Nothing is to be done but to drop it, outside of any lock.
    Release(H),
}

/// The answer to a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connect<H> {
    /// Wait for the end of this flight, which is under way.
    Join(FlightId),
    /// Make this flight, and wait for its end. It begins with [`Effect::Begin`].
    Start(FlightId),
    /// The live link satisfies the caller.
    Use(H),
}

/// The verdict on a proven remote node that dialled this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<H> {
    /// ACCEPT with this epoch, then [`Peer::stand`].
    Accept(u64),
    /// Wait until this link is settled ([`Peer::awaits_first_frame`]), then offer again.
    Await(LinkId),
    /// Probe this link, then offer again with the outcome.
    Challenge(H),
    /// CLOSE with the matching code.
    Refuse(OnOffer),
    /// The registry is full.
    Full,
}

/// A link that comes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up<H> {
    /// The link that gives way, if one does.
    pub replaced: Option<(H, Retire)>,
    /// The older links to the same incarnation of the peer that still deliver. Messages of the new link are held back until
    /// each of these delivered its last.
    pub elders: Vec<H>,
}
