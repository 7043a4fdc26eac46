//! What was sent, what arrived, and which ends learnt that a link went down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trunkline_route::{Incarnation, NodeName};

use super::net::{ConnId, Micros};
use super::node::Life;

/// A message under way or delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Who sent it.
    pub from: Life,
    /// To whom, by host: the life at the other end of the link.
    pub to: Life,
    /// Its number within (`from`, name of the peer).
    pub number: u64,
    /// Over this connection.
    pub conn: ConnId,
    /// How often it arrived.
    pub arrived: u32,
}

/// An important message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// How often it arrived.
    pub arrived: u32,
    /// Whether its sender was told that it had.
    pub told: bool,
}

/// The books of a history.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every message sent, by sender, receiver and number.
    pub messages: BTreeMap<(Life, Life, u64), Sent>,
    /// Every important message sent, by sender, receiver and number.
    pub important: BTreeMap<(Life, Life, u64), Kept>,
    /// The last number delivered, by sender and receiver.
    pub last: BTreeMap<(Life, Life), u64>,
    /// Ends that learnt that their link broke off.
    pub errors: BTreeSet<(Life, ConnId)>,
    /// Connections of links that gave way while they worked, and the one that took their place.
    pub replaced: BTreeMap<ConnId, ConnId>,
    /// Names a life keeps connections to, because they were up and nobody ended them on purpose.
    pub kept: BTreeSet<(Life, NodeName)>,
    /// Names whose connection was ended on purpose, or lapsed, and that no program asked for since.
    pub ended: BTreeSet<(Life, NodeName)>,
    /// Since when every probe of a better route was answered, by its pattern, while the connection was on a standby.
    pub healthy: BTreeMap<(Life, NodeName, Arc<str>), Micros>,
    /// The newest epoch up, by the end's life and its peer's.
    pub epochs: BTreeMap<(Incarnation, Incarnation), u64>,
    /// Which link had which epoch of a pair of lives, lesser bits first.
    pub links: BTreeMap<(Incarnation, Incarnation, u64), [u8; 16]>,
}

impl Ledger {
    /// A message left.
    pub fn sent(&mut self, from: Life, to: Life, number: u64, conn: ConnId) {
        self.messages.insert((from, to, number), Sent { from, to, number, conn, arrived: 0 });
    }

    /// A message arrived. Gives the number delivered before it and how often it arrived by now.
    pub fn arrived(&mut self, from: Life, to: Life, number: u64) -> (u64, u32) {
        let times = self.messages.get_mut(&(from, to, number)).map_or(0, |sent| {
            sent.arrived += 1;
            sent.arrived
        });
        (self.last.insert((from, to), number).unwrap_or(0), times)
    }

    /// An end learnt that its link broke off.
    pub fn broke(&mut self, who: Life, conn: ConnId) {
        self.errors.insert((who, conn));
    }
}
