//! Ledger of a history: messages sent and received, and the ends that learnt that a link went down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trunkline_route::{LinkId, NodeName};

use super::net::{ConnId, Micros};
use super::node::Life;

/// Message in transit or delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Sender.
    pub from: Life,
    /// Receiver, by host: the incarnation at the other end of the link.
    pub to: Life,
    /// Number of the message within (`from`, name of the peer).
    pub number: u64,
    /// Connection over which it was sent.
    pub conn: ConnId,
    /// Number of times it arrived.
    pub arrived: u32,
}

/// An important message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Number of times it arrived.
    pub arrived: u32,
    /// True if its sender was told that it arrived.
    pub told: bool,
}

/// The ledger of a history.
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
    /// Connections of links that were replaced while they worked, each with its successor.
    pub replaced: BTreeMap<ConnId, ConnId>,
    /// Names to which an incarnation keeps connections, because they were up and nobody ended them on purpose.
    pub kept: BTreeSet<(Life, NodeName)>,
    /// Names whose connection was ended on purpose, or expired, and that no program has asked for since.
    pub ended: BTreeSet<(Life, NodeName)>,
    /// For each better route, by its pattern: the time since which every probe of it was answered while the connection
    /// was on a standby.
    pub healthy: BTreeMap<(Life, NodeName, Arc<str>), Micros>,
    /// Newest epoch that is up, by the end's incarnation and its peer's.
    pub epochs: BTreeMap<([u8; 16], [u8; 16]), u64>,
    /// Link of each epoch of a pair of incarnations, the one with the lesser bits first.
    pub links: BTreeMap<([u8; 16], [u8; 16], u64), LinkId>,
}

impl Ledger {
    /// Records a message that was sent.
    pub fn sent(&mut self, from: Life, to: Life, number: u64, conn: ConnId) {
        self.messages.insert((from, to, number), Sent { from, to, number, conn, arrived: 0 });
    }

    /// Records a message that arrived. Returns the number delivered before it, and how often it has arrived by now.
    pub fn arrived(&mut self, from: Life, to: Life, number: u64) -> (u64, u32) {
        let times = self.messages.get_mut(&(from, to, number)).map_or(0, |sent| {
            sent.arrived += 1;
            sent.arrived
        });
        (self.last.insert((from, to), number).unwrap_or(0), times)
    }

    /// Records that an end learnt that its link broke off.
    pub fn broke(&mut self, who: Life, conn: ConnId) {
        self.errors.insert((who, conn));
    }
}
