//! Important delivery: a message of it is in the receiver's mailbox exactly once when its sender is told so, also when
//! links break and come back, for one life of each end.
//!
//! [`Outgoing`] and [`Incoming`] are the two ends without I/O or clock. The sender numbers its messages and keeps each
//! until its outcome is known; the receiver keeps each outcome until the sender says that it knows it. A new link begins
//! with a report of the outcomes kept: what is not in it is sent again, and what had arrived after all is recognised by
//! its number. [The frames](https://github.com/trunkline/trunkline/blob/main/docs/WIRE.md#frames) are those of TLK/1.

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::ProtocolError;

/// Messages to one life of a peer whose outcome is not known yet; one more waits.
///
/// It bounds what a receiver keeps (9 bytes each), and what a sender has to repeat. With 64, one round trip of waiting
/// for every 64 messages would be what the rate is made of.
pub const MAX_IN_FLIGHT: u64 = 1024;

pub use trunkline_route::Outcome;

/// Returns the byte of an outcome in a frame.
pub(crate) fn outcome_to_byte(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Taken => 0,
        Outcome::NoMailbox => 1,
    }
}

/// Returns the outcome that a byte of a frame stands for.
pub(crate) fn outcome_from_byte(byte: u8) -> Result<Outcome, ProtocolError> {
    match byte {
        0 => Ok(Outcome::Taken),
        1 => Ok(Outcome::NoMailbox),
        _ => Err(ProtocolError("an unknown outcome")),
    }
}

/// Kind of an arriving message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// To be delivered, and its outcome recorded.
    New,
    /// The message arrived before; its sender wants to know this outcome.
    Known(Outcome),
    /// The message arrived before, and its sender knows the outcome.
    Settled,
}

/// The receiving end, for one life of a peer.
///
/// ```
/// use trunkline_wire::important::{Arrival, Incoming, Outcome};
///
/// let mut incoming = Incoming::default();
/// assert_eq!(incoming.arrived(0)?, Arrival::New);
/// incoming.record(0, Outcome::Taken);
/// // A repetition over another link is not delivered again.
/// assert_eq!(incoming.arrived(0)?, Arrival::Known(Outcome::Taken));
/// incoming.released(1);
/// assert_eq!(incoming.arrived(0)?, Arrival::Settled);
/// # Ok::<(), trunkline_wire::frame::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct Incoming {
    floor: u64,
    outcomes: BTreeMap<u64, Outcome>,
}

impl Incoming {
    /// A message arrived.
    ///
    /// # Errors
    /// [`ProtocolError`] when the peer has more in flight than it may.
    pub fn arrived(&self, seq: u64) -> Result<Arrival, ProtocolError> {
        if seq < self.floor {
            return Ok(Arrival::Settled);
        }
        if seq - self.floor >= MAX_IN_FLIGHT {
            return Err(ProtocolError("too many important messages are in flight"));
        }
        Ok(self.outcomes.get(&seq).map_or(Arrival::New, |outcome| Arrival::Known(*outcome)))
    }

    /// Keeps the outcome of a message that was new.
    pub fn record(&mut self, seq: u64, outcome: Outcome) {
        self.outcomes.insert(seq, outcome);
    }

    /// The sender knows every outcome below this number, or wants to know none.
    pub fn released(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.outcomes = self.outcomes.split_off(&floor);
        }
    }

    /// Returns the outcomes that are kept, by number.
    pub fn outcomes(&self) -> Vec<(u64, Outcome)> {
        self.outcomes.iter().map(|(seq, outcome)| (*seq, *outcome)).collect()
    }
}

/// The sending end, for one life of a peer. `P` is what it takes to send a message again and to tell its sender.
///
/// ```
/// use trunkline_wire::important::{Outcome, Outgoing};
///
/// let mut outgoing = Outgoing::default();
/// outgoing.reported(1, &[]);
/// assert_eq!(outgoing.may_send(1), Some(0));
/// outgoing.sent("a message");
/// // The link breaks before the outcome arrives. The report of the next one settles the message.
/// let settled = outgoing.reported(2, &[(0, Outcome::Taken)]);
/// assert_eq!(settled, [("a message", Outcome::Taken)]);
/// assert_eq!(outgoing.next_unsent(2), None);
/// ```
#[derive(Debug)]
pub struct Outgoing<P> {
    next: u64,
    /// `None`: nobody waits for it any more.
    in_flight: BTreeMap<u64, Option<P>>,
    /// Numbers of those messages that the present link has not taken yet.
    unsent: BTreeSet<u64>,
    /// The epoch of the newest link whose report came.
    link: Option<u64>,
    /// The floor that this link was told.
    told: u64,
    /// The peer's life is over.
    forsaken: bool,
}

impl<P> Default for Outgoing<P> {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl<P> Outgoing<P> {
    /// One whose first message has this number. Who forgets what it sent to a life of a peer, and sends to it again, must
    /// start above every number it used.
    pub fn starting_at(next: u64) -> Self {
        let (in_flight, unsent) = (BTreeMap::new(), BTreeSet::new());
        Self { next, in_flight, unsent, link: None, told: 0, forsaken: false }
    }

    /// The floor, if the present link was not told it yet. It must go out before a message that counts on it.
    pub fn to_release(&mut self) -> Option<u64> {
        let floor = self.floor();
        (self.told != floor).then(|| {
            self.told = floor;
            floor
        })
    }

    /// Returns the number below which every message is settled.
    pub fn floor(&self) -> u64 {
        self.in_flight.first_key_value().map_or(self.next, |(seq, _)| *seq)
    }

    /// The number of a new message on the link of this epoch, if it may go now: the peer has reported, what must go
    /// again has gone, and not too many are in flight. Once it is queued, call [`Outgoing::sent`].
    pub fn may_send(&self, link: u64) -> Option<u64> {
        let free = self.next - self.floor() < MAX_IN_FLIGHT;
        let may = self.link == Some(link) && self.unsent.is_empty() && free && !self.forsaken;
        may.then_some(self.next)
    }

    /// The message that [`Outgoing::may_send`] numbered is queued.
    pub fn sent(&mut self, parcel: P) {
        self.in_flight.insert(self.next, Some(parcel));
        self.next += 1;
    }

    /// An outcome arrived: what waited for it.
    pub fn settled(&mut self, seq: u64) -> Option<P> {
        self.unsent.remove(&seq);
        self.in_flight.remove(&seq).flatten()
    }

    /// Marks a message that no caller waits for any more: it is not sent again.
    pub fn abandoned(&mut self, seq: u64) {
        if let Some(parcel) = self.in_flight.get_mut(&seq) {
            *parcel = None;
        }
        if self.unsent.remove(&seq) {
            self.in_flight.remove(&seq);
        }
    }

    /// The report that a link begins with: gives what it settles. Everything else in flight is to go again, in order
    /// ([`Outgoing::next_unsent`]). A report of an older link says nothing.
    pub fn reported(&mut self, link: u64, outcomes: &[(u64, Outcome)]) -> Vec<(P, Outcome)> {
        if self.link.is_some_and(|newest| link <= newest) {
            return Vec::new();
        }
        (self.link, self.told) = (Some(link), 0);
        let settled = outcomes.iter().filter_map(|(seq, outcome)| Some((self.settled(*seq)?, *outcome))).collect();
        self.in_flight.retain(|_, parcel| parcel.is_some());
        self.unsent = self.in_flight.keys().copied().collect();
        settled
    }

    /// Returns the next message that the link of this epoch is to take, of those in flight before it.
    pub fn next_unsent(&self, link: u64) -> Option<(u64, &P)> {
        let seq = *self.unsent.first().filter(|_| self.link == Some(link))?;
        Some((seq, self.in_flight.get(&seq)?.as_ref()?))
    }

    /// Marks `seq` as queued on the current link.
    pub fn resent(&mut self, seq: u64) {
        self.unsent.remove(&seq);
    }

    /// Returns true if this is the newest link whose report came.
    pub fn is_present(&self, link: u64) -> bool {
        self.link == Some(link)
    }

    /// Returns true if a message is to be sent again.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Ends with the peer's life: nobody will know.
    pub fn forsake(&mut self) {
        self.in_flight.clear();
        self.unsent.clear();
        self.forsaken = true;
    }

    /// Returns true if no message is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }
}

#[cfg(test)]
mod tests;
