//! The order in which a node dials and greets others, and the times of it.

use std::time::Instant;

use trunkline_route::NodeName;

use super::peer::{Kind, Peer};
use super::{Mesh, is_connected};

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

fn add<'m>(earliest: &mut Option<(Instant, &'m NodeName)>, due: Option<Instant>, name: &'m NodeName) {
    if let Some(due) = due
        && earliest.is_none_or(|(other, _)| due < other)
    {
        *earliest = Some((due, name));
    }
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
    /// Looks at all members once.
    pub(super) fn agenda(&self) -> Agenda<'_> {
        let (mut under_way, mut dials, mut greeting) = ([0; 3], [None; 3], None);
        let is_found = |name: &NodeName| self.routes.iter().any(|(_, route)| route.names.contains(name));
        // A leaf dials those only that its routes lead to, in the order of their times.
        let is_dialled = |name: &NodeName| !self.settings.is_leaf || is_found(name);
        for (name, peer) in &self.peers {
            let kind = if self.settings.is_leaf && !peer.is_up { Kind::Lost } else { peer.kind() } as usize;
            under_way[kind] += usize::from(peer.is_dialled);
            add(&mut dials[kind], peer.next_dial().filter(|_| is_dialled(name)), name);
            add(&mut greeting, peer.next_greeting(), name);
        }
        let all: usize = under_way.iter().sum();
        for (kind, earliest) in [Kind::Lost, Kind::Unproven, Kind::Relayed].into_iter().zip(&mut dials) {
            let of_others = kind != Kind::Lost && under_way[kind as usize] >= MAX_DIALS_OF_OTHERS;
            // A leaf takes one connection after the other, and leaves those through others as they are.
            let of_leaf = self.settings.is_leaf && (all > 0 || kind == Kind::Relayed || self.is_settled());
            if all >= MAX_DIALS || of_others || of_leaf {
                *earliest = None;
            }
        }
        Agenda { dials, greeting }
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
    pub fn next(&self) -> Instant {
        let Agenda { dials: [lost, unproven, relayed], greeting } = self.agenda();
        let unproven = unproven.map(|(due, name)| (self.unproven.refilled().map_or(due, |at| due.max(at)), name));
        let members = [lost, unproven, relayed, greeting].into_iter().flatten().map(|(due, _)| due);
        let may_ask = self.may_ask();
        let waits = |route: &&super::Route| may_ask && !route.is_asked && !is_connected(&self.peers, route);
        let routes = self.routes.iter().map(|(_, route)| route).filter(waits);
        let routes = routes.filter_map(|route| route.retry.due());
        members.chain(routes).fold(self.next_exchange, Instant::min)
    }
}
