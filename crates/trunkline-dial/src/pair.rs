//! One link per pair of nodes: the rules both ends follow when both dial, links die half, or nodes restart. Pure.
//!
//! One [`Pair`] is what a node knows of its links to one peer. The initiator asks it before FINISH
//! ([`Pair::may_finish`]) and on ACCEPT ([`Pair::accepted`]); the responder asks it once per caller
//! ([`Pair::offer`]) and tells it of the first frame ([`Pair::confirmed`]). The table of rules is in
//! [the description of routing](https://github.com/trunkline/trunkline/blob/main/docs/ROUTING.md), "One link per pair".

pub use trunkline_route::{Claims, Incarnation, LinkId};

use crate::mutants::mutated;

/// Names one dial of a node to one peer.
pub type FlightId = u64;

/// A link as the rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRef {
    /// Identifier of the link.
    pub id: LinkId,
    /// The how-many-eth of this pair of lives.
    pub epoch: u64,
    /// The other end's life.
    pub incarnation: Incarnation,
    /// True if this end dialled the link.
    pub dialled: bool,
}

/// Verdict on an attempt whose peer is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayFinish {
    /// Send FINISH with these claims.
    Finish(Claims),
    /// Another link to the same incarnation is up or about to come up: abandon the attempt and wait for that link.
    Adopt,
}

/// Verdict on an attempt whose ACCEPT arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAccept {
    /// The link is up; the link named, if any, is retired.
    Up(Option<Retire>),
    /// The entry is not waiting for it any more: close it.
    Discard,
}

/// A link that gives way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retire {
    /// Identifier of the link.
    pub id: LinkId,
    /// True if the link still works and is drained, in order; false if it is dead at the peer and closed.
    pub alive: bool,
}

/// The responder's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOffer {
    /// ACCEPT, provisional until the first frame. `cancel` names a dial of our own that is to be cancelled,
    /// `dropped` an older provisional link that is to be closed.
    Accept {
        /// The link's epoch.
        epoch: u64,
        /// Dial of this end, if one is under way.
        cancel: Option<FlightId>,
        /// A provisional link that never came up.
        dropped: Option<LinkId>,
    },
    /// Probe this live link first: another life claims the name, or a caller that does not prove to be the same one. Then
    /// offer again.
    Challenge(LinkId),
    /// CLOSE duplicate.
    Duplicate,
    /// CLOSE lost_tie.
    LostTie,
    /// CLOSE name_in_use.
    NameInUse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Provisional {
    link: LinkRef,
    retires: Option<Retire>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dial {
    flight: FlightId,
    finish: Option<(LinkId, Option<Retire>)>,
}

/// State of the links of one node to one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    up: Option<LinkRef>,
    provisional: Option<Provisional>,
    dial: Option<Dial>,
    /// The newest epoch seen between the two lives, and its link.
    seen: Option<(Incarnation, u64, LinkId)>,
}

impl Pair {
    /// The live link.
    pub fn up(&self) -> Option<LinkRef> {
        self.up
    }

    /// The link that was accepted and waits for its first frame.
    pub fn provisional(&self) -> Option<LinkRef> {
        self.provisional.map(|p| p.link)
    }

    /// The dial under way.
    pub fn dialling(&self) -> Option<FlightId> {
        self.dial.map(|d| d.flight)
    }

    /// Returns true if no link is up and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.up.is_none() && self.provisional.is_none() && self.dial.is_none()
    }

    fn known_epoch(&self, incarnation: Incarnation) -> u64 {
        self.seen.filter(|(seen, ..)| *seen == incarnation).map_or(0, |(_, epoch, _)| epoch)
    }

    fn last_link(&self, incarnation: Incarnation) -> Option<LinkId> {
        self.seen.filter(|(seen, ..)| *seen == incarnation).map(|(.., link)| link)
    }

    fn see(&mut self, incarnation: Incarnation, epoch: u64, link: LinkId) {
        if epoch >= self.known_epoch(incarnation) {
            self.seen = Some((incarnation, epoch, link));
        }
    }

    /// A dial begins.
    pub fn dial_begins(&mut self, flight: FlightId) {
        self.dial = Some(Dial { flight, finish: None });
    }

    /// A dial ended without a link, or was cancelled.
    pub fn dial_ends(&mut self, flight: FlightId) {
        if self.dialling() == Some(flight) {
            self.dial = None;
        }
    }

    /// An attempt of this flight has a proven peer. `replace` says that the live link does not satisfy what the
    /// caller demands. At most one FINISH is outstanding per peer.
    pub fn may_finish(&mut self, flight: FlightId, link: LinkId, peer: Incarnation, replace: bool) -> MayFinish {
        let (known_epoch, last_link) = (self.known_epoch(peer), self.last_link(peer));
        if mutated!(ManyFinishes) && self.dialling() == Some(flight) {
            self.dial_begins(flight);
        }
        let Some(dial) = self.dial.as_mut().filter(|d| d.flight == flight && d.finish.is_none()) else {
            return MayFinish::Adopt;
        };
        if self.provisional.is_some() {
            return MayFinish::Adopt;
        }
        let (replaces, retire) = match self.up {
            Some(up) if up.incarnation == peer && !replace => return MayFinish::Adopt,
            Some(up) if up.incarnation == peer => (Some(up.id), Some(Retire { id: up.id, alive: true })),
            // The peer lives anew; what is up here leads to its former life.
            Some(up) => (None, Some(Retire { id: up.id, alive: false })),
            None => (None, None),
        };
        dial.finish = Some((link, retire));
        MayFinish::Finish(Claims { known_epoch, last_link, have_link: None, replaces })
    }

    /// The FINISH of this link led to nothing.
    pub fn finish_failed(&mut self, flight: FlightId, link: LinkId) {
        if let Some(dial) = self.dial.as_mut().filter(|d| d.flight == flight)
            && dial.finish.is_some_and(|(id, _)| id == link)
        {
            dial.finish = None;
        }
    }

    /// ACCEPT arrived. Up only if the entry still waits for this very attempt.
    pub fn accepted(&mut self, flight: FlightId, link: LinkRef) -> OnAccept {
        let finish = self.dial.filter(|d| d.flight == flight).and_then(|d| d.finish);
        let finish = finish.filter(|(id, _)| *id == link.id);
        let forced = mutated!(UpOnAnyAccept).then(|| (link.id, self.up.map(|up| Retire { id: up.id, alive: true })));
        let Some((_, mut retire)) = finish.or(forced) else {
            return OnAccept::Discard;
        };
        if mutated!(UpOnAnyAccept) {
            self.provisional = None;
        }
        self.dial = None;
        self.see(link.incarnation, link.epoch, link.id);
        retire = retire.filter(|retire| self.up.is_some_and(|up| up.id == retire.id));
        if mutated!(ReplaceKills) {
            retire = retire.map(|retire| Retire { alive: false, ..retire });
        }
        self.up = Some(link);
        OnAccept::Up(retire)
    }

    /// The link that [`Pair::accepted`] brought up was given up before anybody used it: what was up before stands
    /// again, if it still does. The responder's end is provisional and dies by itself.
    pub(crate) fn revert(&mut self, link: LinkId, before: Option<LinkRef>) {
        if self.up.is_some_and(|up| up.id == link) {
            self.up = before;
        }
    }

    /// Returns true if nothing would be lost by forgetting this pair.
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// The caller speaks of a link that this end accepted and has not heard on yet. Its first frame is on its way,
    /// with messages behind it: offer only when it came, or the link went down.
    pub fn awaits_first_frame(&self, claims: Option<Claims>) -> Option<LinkId> {
        let (id, claims) = (self.provisional?.link.id, claims?);
        (claims.replaces == Some(id) || claims.have_link == Some(id)).then_some(id)
    }

    /// A proven caller wants a link. `claims` is `None` from a stack whose handshake carries none. `caller_is_greater`
    /// compares the names bytewise; `challenged` is the outcome of a [`OnOffer::Challenge`]: which link was probed, and
    /// whether it answered.
    pub fn offer(
        &mut self,
        link: LinkId,
        caller: Incarnation,
        claims: Option<Claims>,
        caller_is_greater: bool,
        challenged: Option<(LinkId, bool)>,
    ) -> OnOffer {
        let mut retires = None;
        let knows_links = claims.is_some();
        let claims = claims.unwrap_or_default();
        let caller_is_greater = match caller_is_greater {
            _ if mutated!(BothLose) => false,
            _ if mutated!(BothWin) => true,
            is_greater => is_greater,
        };
        let challenged = self.up.filter(|_| mutated!(NoChallenge)).map(|up| (up.id, false)).or(challenged);
        match self.up {
            Some(up) if up.incarnation == caller && claims.replaces == Some(up.id) => {
                retires = Some(Retire { id: up.id, alive: true });
            }
            Some(up) if up.incarnation == caller && claims.have_link == Some(up.id) => return OnOffer::Duplicate,
            Some(up) if up.incarnation == caller && knows_links && up.dialled && claims.known_epoch < up.epoch => {
                return OnOffer::LostTie;
            }
            // Dead at the peer.
            Some(up) if up.incarnation == caller && claims.last_link == Some(up.id) => {
                retires = Some(Retire { id: up.id, alive: false });
            }
            // Another life, or somebody who shows the incarnation, which HELLO2 tells everybody, and no link of it, or cannot
            // say which links it knows.
            Some(up) => match challenged {
                Some((probed, answered)) if probed == up.id => {
                    if answered {
                        return OnOffer::NameInUse;
                    }
                    retires = Some(Retire { id: up.id, alive: false });
                }
                _ => return OnOffer::Challenge(up.id),
            },
            None => {}
        }
        // Both have a FINISH under way: the greater name's attempt stands.
        if self.dial.is_some_and(|d| d.finish.is_some()) && !caller_is_greater {
            return OnOffer::LostTie;
        }
        let epoch = self.known_epoch(caller).max(claims.known_epoch).saturating_add(1);
        self.see(caller, epoch, link);
        let dropped = self.provisional.take().map(|p| p.link.id);
        let link = LinkRef { id: link, epoch, incarnation: caller, dialled: false };
        self.provisional = Some(Provisional { link, retires });
        if mutated!(UpOnOffer) {
            self.confirmed(link.id);
        }
        let epoch = if mutated!(OneEpoch) { 1 } else { epoch };
        OnOffer::Accept { epoch, cancel: self.dial.take().map(|d| d.flight), dropped }
    }

    /// The first frame of an accepted link came: it is up. `None` when it is not awaited any more: close it.
    pub fn confirmed(&mut self, link: LinkId) -> Option<Option<Retire>> {
        let provisional = self.provisional.filter(|p| p.link.id == link)?;
        self.provisional = None;
        let retire = self.up.map(|up| {
            let planned = provisional.retires.filter(|retire| retire.id == up.id);
            planned.unwrap_or(Retire { id: up.id, alive: false })
        });
        self.up = Some(provisional.link);
        Some(retire)
    }

    /// A link went down, whatever it was.
    pub fn down(&mut self, link: LinkId) {
        self.up = self.up.filter(|up| up.id != link);
        self.provisional = self.provisional.filter(|p| p.link.id != link);
    }
}

#[cfg(test)]
mod tests;
