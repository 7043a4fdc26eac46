//! The order in which a node dials and greets others, and the times of it.

use std::time::Instant;

use trunkline_route::NodeName;

use super::peer::{Kind, Peer};
use super::{Mesh, Route, is_connected};

/// Dials under way at a time, and as many routes that are asked.
const MAX_DIALS: usize = 32;
/// Dials under way at a time to members that this node was never connected to, and as many to members that are connected
/// through others; they count among [`MAX_DIALS`].
const MAX_DIALS_OF_OTHERS: usize = 8;

/// The earliest of the members that wait, by what they wait for.
pub(super) struct Agenda<'m> {
    /// The earliest to dial of each [`Kind`]; `None` also for a kind of which no more may be dialled now.
    dials: [Option<(Instant, &'m NodeName)>; 3],
    greeting: Option<(Instant, &'m NodeName)>,
}

impl Agenda<'_> {
    /// Returns the node to greet now.
    pub(super) fn greeting(&self, now: Instant) -> Option<NodeName> {
        self.greeting.filter(|(due, _)| *due <= now).map(|(_, name)| name.clone())
    }

    /// Returns the member to dial now. Those that this node was connected to come first, and among equals the one that waits
    /// longest. `may_unproven` says that one may be dialled which this node was never connected to.
    pub(super) fn dial(&self, now: Instant, may_unproven: bool) -> Option<NodeName> {
        let [lost, unproven, relayed] = self.dials;
        let due = [lost, unproven.filter(|_| may_unproven), relayed].into_iter().flatten();
        due.filter(|(due, _)| *due <= now).map(|(_, name)| name.clone()).next()
    }
}

impl Mesh {
    /// Returns what is to be done next.
    pub(super) fn agenda(&mut self) -> Agenda<'_> {
        let (is_leaf, is_settled) = (self.settings.is_leaf, self.is_settled());
        let waiting = self.peers.waiting();
        let all = waiting.all_under_way();
        // A leaf takes one connection after the other.
        let may_dial = if is_leaf { all == 0 && !is_settled } else { all < MAX_DIALS };
        let is_found = |name: &NodeName| self.routes.iter().any(|(_, route)| route.names.contains(name));
        let earliest = |kind: Kind| {
            let may_more = kind == Kind::Lost || waiting.under_way(kind) < MAX_DIALS_OF_OTHERS;
            if !may_dial || !may_more {
                return None;
            }
            // A leaf dials those only that its routes lead to.
            waiting.dials(kind).find(|(_, name)| !is_leaf || is_found(name))
        };
        let dials = [Kind::Lost, Kind::Unproven, Kind::Relayed].map(earliest);
        Agenda { dials, greeting: waiting.greeting() }
    }

    /// Returns true if another route may be asked now.
    pub(super) fn may_ask(&self) -> bool {
        let asked = self.routes.iter().filter(|(_, route)| route.is_asked).count();
        asked < MAX_DIALS && !self.is_settled()
    }

    /// Returns true for a leaf that needs no other connection: it has one to a member, or to a node that may still say that it
    /// is one.
    pub(super) fn is_settled(&self) -> bool {
        let may_be_one = |peer: &Peer| peer.is_member || peer.dialled_at.is_some() && peer.may_say_hello();
        let is_hub = |peer: &Peer| peer.is_direct() && !peer.is_leaf() && may_be_one(peer);
        self.settings.is_leaf && self.peers.values().any(is_hub)
    }

    /// Returns the time of the next instruction.
    pub fn next_time(&mut self) -> Instant {
        let (exchange, refilled) = (self.next_exchange, self.unproven.refilled());
        let Agenda { dials: [lost, unproven, relayed], greeting } = self.agenda();
        let unproven = unproven.map(|(due, name)| (refilled.map_or(due, |at| due.max(at)), name));
        let members = [lost, unproven, relayed, greeting].into_iter().flatten().map(|(due, _)| due);
        let next = members.fold(exchange, Instant::min);
        if !self.may_ask() {
            return next;
        }
        let waits = |route: &&Route| !route.is_asked && !is_connected(&self.peers, route);
        let routes = self.routes.iter().map(|(_, route)| route).filter(waits);
        routes.filter_map(|route| route.retry.due()).fold(next, Instant::min)
    }
}
