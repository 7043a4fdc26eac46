//! The facts that a node knows about one other node.

use std::ops::Deref;
use std::time::{Duration, Instant};

use trunkline_route::{Incarnation, NodeName};

use crate::budget::Budget;
use crate::message::Record;
use crate::retry::Retry;

/// Shortest time between two dials of a name that others tell new addresses of, and between two answers to a neighbour that
/// says hello again.
pub(super) const SOONEST: Duration = Duration::from_secs(1);
/// Times that a neighbour which does not say hello, and which nobody told of, is greeted.
const GREETINGS: u8 = 5;
/// Messages of one neighbour that are read in a second; a longer message counts as one for each begun [`BYTES`]. Those beyond
/// wait.
const MESSAGES_PER_SECOND: f64 = 20.0;
/// Messages of one neighbour that are read at once after a pause; then [`MESSAGES_PER_SECOND`].
const MESSAGES_AT_ONCE: f64 = 200.0;

/// Way of a connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The connection goes to the node itself.
    Direct,
    /// The connection goes through other nodes. Such a member is dialled directly from time to time.
    ThroughOthers,
}

/// Record, and the fingerprint of it.
#[derive(Debug, Clone)]
pub(super) struct Marked {
    record: Record,
    pub(super) fingerprint: u32,
}

impl From<Record> for Marked {
    fn from(record: Record) -> Self {
        Self { fingerprint: record.fingerprint(), record }
    }
}

impl Deref for Marked {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// Bytes of a message that counts as one.
const BYTES: usize = 1024;

/// Facts that a node knows about another one.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// Record that the node stated itself, over a connection.
    pub(super) stated: Option<Marked>,
    /// Record that another member told last.
    pub(super) told: Option<Marked>,
    /// Time at which a neighbour told of it last.
    pub(super) told_at: Option<Instant>,
    /// A leaf said over the present connection, which is a direct one, that it is a member.
    pub(super) is_led_to: bool,
    /// Neighbours that told of it, the last one first; at most 4.
    pub(super) tellers: Vec<NodeName>,
    pub(super) is_up: bool,
    pub(super) is_hidden: bool,
    /// The node said over the present connection that it belongs to the cluster. False without a connection.
    pub(super) is_member: bool,
    pub(super) other_cluster: Option<String>,
    pub(super) retry: Retry,
    pub(super) is_dialled: bool,
    /// Dials of a member that is connected through others, so that the connection becomes a direct one; `None` for any other
    /// member.
    pub(super) straight: Option<Retry>,
    /// Error of the last dial that failed, and its time.
    pub(super) last_error: Option<(String, Instant)>,
    /// Time of the last connection, as far as it is known: so long before the moment.
    pub(super) heard: Option<(Instant, Duration)>,
    /// Time at which the present connection came up.
    pub(super) up_since: Option<Instant>,
    /// Time of the last dial.
    pub(super) dialled_at: Option<Instant>,
    /// Messages that may be read; `None` before the first one.
    pub(super) reads: Option<Budget>,
    /// Time of the last answer to a hello.
    pub(super) answered_at: Option<Instant>,
    /// Time of the last hello to it.
    pub(super) greeted_at: Option<Instant>,
    /// Times that it was greeted over the present connection.
    pub(super) greetings: u8,
    /// Time at which it was given up.
    pub(super) given_up: Option<Instant>,
    /// The last look at the connections differed from what is known here.
    pub(super) is_doubtful: bool,
}

/// Members by the order in which they are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The node was connected to it, and lost it.
    Lost,
    /// The node only heard of it.
    Unproven,
    /// The member is connected through others.
    Relayed,
}

impl Peer {
    pub(super) fn kind(&self) -> Kind {
        match (self.is_up, &self.stated) {
            (true, _) => Kind::Relayed,
            (false, Some(_)) => Kind::Lost,
            (false, None) => Kind::Unproven,
        }
    }

    /// Returns the time without a connection.
    pub(super) fn lost_for(&self, now: Instant) -> Duration {
        match self.heard {
            _ if self.is_up => Duration::ZERO,
            Some((at, before)) => now.saturating_duration_since(at) + before,
            None => Duration::ZERO,
        }
    }

    /// Returns true if a message may be read now, and counts it.
    pub(super) fn may_be_read(&mut self, now: Instant, message: &[u8]) -> bool {
        let reads = self.reads.get_or_insert_with(|| Budget::new(MESSAGES_AT_ONCE, MESSAGES_PER_SECOND, now));
        reads.take(now, u32::try_from(message.len().div_ceil(BYTES)).unwrap_or(u32::MAX).max(1))
    }

    /// Returns the instances of the node that are known, at most two.
    pub(super) fn instances(&self) -> impl Iterator<Item = Incarnation> {
        let records = self.stated.iter().chain(&self.told);
        records.map(|record| record.incarnation).filter(|instance| *instance != UNKNOWN.into())
    }

    /// Returns true if the node is known for something else than a connection that is up now.
    pub(super) fn is_kept(&self) -> bool {
        self.stated.is_some() || self.told.is_some()
    }

    /// Returns the time of the next dial, unless one is under way. A leaf dials by itself.
    pub(super) fn next_dial(&self) -> Option<Instant> {
        match (self.is_dialled, self.is_up) {
            (true, _) => None,
            _ if self.is_leaf() => None,
            // One that does not listen cannot be dialled.
            (false, true) if self.record().is_none_or(|record| record.endpoints.is_empty()) => None,
            (false, true) => self.straight.as_ref()?.due(),
            (false, false) => self.retry.due(),
        }
    }

    /// Returns true if the node has not said hello, and may do so.
    pub(super) fn may_say_hello(&self) -> bool {
        !self.is_member && self.other_cluster.is_none() && self.greetings < GREETINGS
    }

    /// Returns the time of the next hello to a node that has not said one: after 1, 2, 4 and 8 s, and then, if it is known as a
    /// member, every 8 s.
    pub(super) fn next_greeting(&self) -> Option<Instant> {
        let goes_on = self.may_say_hello() || self.is_kept();
        let is_unheard = self.is_up && !self.is_member && self.other_cluster.is_none() && goes_on;
        let pause = SOONEST * 2_u32.pow(self.greetings.clamp(1, GREETINGS - 1).into()) / 2;
        Some(self.greeted_at? + pause).filter(|_| is_unheard)
    }

    /// Begins the direct dials of a member that is connected through others, and ends those of any other one.
    pub(super) fn straighten(&mut self, way: Way, now: Instant, rng: &mut fastrand::Rng) {
        match way {
            Way::Direct => self.straight = None,
            Way::ThroughOthers => {
                self.straight.get_or_insert_with(|| {
                    let mut straight = Retry::unhurried();
                    straight.failed(now, rng);
                    straight
                });
            }
        }
    }

    /// Returns true if the connection goes to the node itself.
    pub(super) fn is_direct(&self) -> bool {
        self.is_up && self.straight.is_none()
    }

    /// Returns true for a leaf, as far as it is known. That a node is one is its own word first; that a later instance is
    /// none, others may say.
    pub(super) fn is_leaf(&self) -> bool {
        let is_other = |told: &Marked| Some(told.incarnation) != self.stated.as_ref().map(|stated| stated.incarnation);
        let is_none_now = self.told.as_ref().is_some_and(|told| !told.is_leaf && is_other(told));
        !is_none_now && self.record().is_some_and(|record| record.is_leaf)
    }

    pub(super) fn record(&self) -> Option<&Marked> {
        self.stated.as_ref().or(self.told.as_ref())
    }
}

/// Instance of a node that nobody stated: of one that was only found at an address.
pub(super) const UNKNOWN: [u8; 16] = [0; 16];
