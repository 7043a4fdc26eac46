//! The state of one name: its links, its flight, and the callers that wait.

use std::mem;

use trunkline_route::{Claims, Incarnation, LinkId};

use super::flight::{Flight, Stage};
use super::{Caller, Connect, Effect, Handle, Up, Verdict};
use crate::mutants::mutated;
use crate::pair::{FlightId, LinkRef, MayFinish, OnAccept, OnOffer, Pair, Retire};

/// The links of a node to one name, and the flight and the callers that want one.
#[derive(Debug, Clone)]
pub struct Peer<H> {
    pub(super) pair: Pair,
    /// The live link.
    pub(super) link: Option<H>,
    /// The accepted link that waits for its first frame.
    provisional: Option<H>,
    accepting: Option<Accepting>,
    pub(super) flight: Option<Flight>,
    /// Flights that lost their callers, were replaced by another one, and have not ended yet.
    ending: Vec<FlightId>,
    /// Links that gave way to another and still deliver.
    elders: Vec<H>,
    effects: Vec<Effect<H>>,
}

/// A link for which ACCEPT arrived and that is not installed yet.
#[derive(Debug, Clone, Copy)]
struct Accepting {
    link: LinkId,
    before: Option<LinkRef>,
    /// The attempt ended: the link will not be installed.
    abandoned: bool,
}

impl<H> Default for Peer<H> {
    fn default() -> Self {
        Self {
            pair: Pair::default(),
            link: None,
            provisional: None,
            accepting: None,
            flight: None,
            ending: Vec::new(),
            elders: Vec::new(),
            effects: Vec::new(),
        }
    }
}

impl<H: Handle> Peer<H> {
    /// Returns what the methods called before left to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect<H>> {
        mem::take(&mut self.effects)
    }

    /// Returns the live link.
    pub fn link(&self) -> Option<&H> {
        self.link.as_ref()
    }

    /// Returns the accepted link that waits for its first frame.
    pub fn provisional(&self) -> Option<&H> {
        self.provisional.as_ref()
    }

    /// Returns the links that gave way to another and still deliver.
    pub fn elders(&self) -> &[H] {
        &self.elders
    }

    /// Returns the rules of one link per pair of nodes, as far as they have come.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Returns the flight under way, if it has callers, with their number.
    pub fn flight(&self) -> Option<(FlightId, usize)> {
        self.flight.as_ref().map(|flight| (flight.id, flight.callers)).filter(|(_, callers)| *callers > 0)
    }

    /// Returns the flight that waits for links to change, and is to be given [`FlightEvent::Look`](super::FlightEvent::Look)
    /// when they do.
    pub fn looks_out(&self) -> Option<FlightId> {
        self.flight.as_ref().filter(|flight| matches!(flight.stage, Stage::Adopting { .. })).map(|flight| flight.id)
    }

    /// Returns true if no link, no dial and no caller is here; the epochs of former links may be.
    pub fn is_idle(&self) -> bool {
        self.pair.is_idle()
            && self.flight.is_none()
            && self.link.is_none()
            && self.provisional.is_none()
            && self.elders.is_empty()
    }

    /// Returns true if nothing would be lost by forgetting this peer.
    pub fn is_blank(&self) -> bool {
        self.is_idle() && self.pair.is_blank()
    }

    /// A caller asks for a link. `flight` names the flight to make, if one is needed.
    pub fn connect(&mut self, caller: &mut Caller, flight: FlightId, satisfies: impl Fn(&H) -> bool) -> Connect<H> {
        self.settle();
        if let Some(link) = self.link.as_ref().filter(|link| satisfies(link)) {
            return Connect::Use(link.clone());
        }
        if let Some(live) = self.flight.as_mut().filter(|live| live.callers > 0) {
            live.callers += 1;
            caller.shares = live.aim.covers(&caller.aim);
            return Connect::Join(live.id);
        }
        caller.shares = true;
        let new = Flight::new(flight, caller.aim.clone(), self.link.as_ref().map(Handle::id));
        self.ending.extend(self.flight.replace(new).map(|left| left.id));
        self.begin();
        Connect::Start(flight)
    }

    /// A caller of this flight went away. The last one takes the flight with it.
    pub fn caller_dropped(&mut self, flight: FlightId) {
        if let Some(live) = self.flight.as_mut().filter(|live| live.id == flight && live.callers > 0) {
            live.callers -= 1;
            if live.callers == 0 {
                self.effects.push(Effect::Cancel(flight));
            }
        }
    }

    /// A flight ended, however it did: none of its dials goes on.
    pub fn flight_ended(&mut self, flight: FlightId) {
        self.pair.dial_ends(flight);
        self.ending.retain(|ending| *ending != flight);
        self.flight.take_if(|live| live.id == flight);
        self.begin();
    }

    /// Lets the flight begin if no other one goes on.
    fn begin(&mut self) {
        if (self.ending.is_empty() || mutated!(DialsOverlap))
            && let Some(flight) = self.flight.as_mut().filter(|flight| flight.stage == Stage::Queued)
        {
            flight.stage = Stage::Dialling;
            self.effects.push(Effect::Begin(flight.id));
        }
    }

    /// The remote end of an attempt of this flight is proven. Returns the claims to send with FINISH, or `None` if the
    /// attempt must be abandoned because another link is there or about to come up. `replace` says that the live link does
    /// not satisfy.
    pub fn may_finish(&mut self, flight: FlightId, link: LinkId, peer: Incarnation, replace: bool) -> Option<Claims> {
        self.settle();
        match self.pair.may_finish(flight, link, peer, replace) {
            MayFinish::Finish(claims) => Some(claims),
            MayFinish::Adopt => None,
        }
    }

    /// An attempt that was allowed to send FINISH ended, with a link or without.
    pub fn finish_ended(&mut self, flight: FlightId, link: LinkId) {
        self.pair.finish_failed(flight, link);
        if let Some(accepting) = self.accepting.as_mut().filter(|accepting| accepting.link == link) {
            accepting.abandoned = true;
        }
    }

    /// ACCEPT arrived. `None`: the link is out of date, close it. Otherwise start it and call [`Peer::install`].
    pub fn accepted(&mut self, flight: FlightId, link: LinkRef) -> Option<Up<H>> {
        let before = self.pair.up();
        let OnAccept::Up(retire) = self.pair.accepted(flight, link) else { return None };
        self.accepting = Some(Accepting { link: link.id, before, abandoned: false });
        let old = self.link.as_ref();
        let replaced = retire.and_then(|retire| Some((old.filter(|old| old.id() == retire.id)?.clone(), retire)));
        let elders = self.hold_for_elders(link.incarnation, replaced.as_ref());
        Some(Up { replaced, elders })
    }

    /// Puts the link that was just accepted in its place. Returns false, and discards the link, if it is out of date.
    pub fn install(&mut self, link: H) -> bool {
        if self.pair.up().is_none_or(|up| up.id != link.id()) {
            self.effects.push(Effect::Discard(link));
            return false;
        }
        self.accepting = None;
        self.effects.extend(self.link.replace(link).map(Effect::Release));
        self.effects.push(Effect::Changed);
        true
    }

    /// A proven remote node that dialled this one wants a link. `claims` is `None` from a stack whose handshake carries none;
    /// `caller_is_greater` compares the names bytewise;
    /// `challenged` is the outcome of [`Verdict::Challenge`].
    pub fn offer(
        &mut self,
        link: LinkId,
        caller: Incarnation,
        claims: Option<Claims>,
        caller_is_greater: bool,
        challenged: Option<(LinkId, bool)>,
    ) -> Verdict<H> {
        self.settle();
        if let Some(unheard) = self.pair.awaits_first_frame(claims) {
            return Verdict::Await(unheard);
        }
        match self.pair.offer(link, caller, claims, caller_is_greater, challenged) {
            OnOffer::Accept { epoch, cancel, dropped } => {
                let dropped = dropped.and_then(|_| self.provisional.take());
                self.effects.extend(dropped.map(Effect::Discard));
                let own = self.flight.as_ref().map(|flight| flight.id).filter(|own| Some(*own) == cancel);
                self.effects.extend(own.map(Effect::Overtaken));
                Verdict::Accept(epoch)
            }
            OnOffer::Challenge(up) => match &self.link {
                Some(link) if link.id() == up => Verdict::Challenge(link.clone()),
                // Up, but not installed yet: it was just heard from.
                _ => Verdict::Refuse(OnOffer::NameInUse),
            },
            refuse => Verdict::Refuse(refuse),
        }
    }

    /// Returns true while this accepted link waits for its first frame.
    pub fn awaits_first_frame(&self, link: LinkId) -> bool {
        self.pair.provisional().is_some_and(|provisional| provisional.id == link)
    }

    /// ACCEPT is sent: the link stands until its first frame, or until it goes down. A link that is out of date is
    /// discarded.
    pub fn stand(&mut self, link: H) {
        if self.awaits_first_frame(link.id()) {
            self.effects.extend(self.provisional.replace(link).map(Effect::Release));
        } else {
            self.effects.push(Effect::Discard(link));
        }
    }

    /// The first frame of a standing link came. `None`: it is out of date, close it. Otherwise the link is live: returns
    /// it with what it replaces.
    pub fn confirmed(&mut self, link: LinkId) -> Option<(H, Up<H>)> {
        let Some(new) = self.provisional.take_if(|held| held.id() == link) else {
            // It does not stand yet, or not any more.
            if self.awaits_first_frame(link) {
                self.pair.down(link);
            }
            return None;
        };
        let Some(retire) = self.pair.confirmed(link) else {
            self.effects.push(Effect::Release(new));
            return None;
        };
        self.accepting = None;
        let replaced = self.link.replace(new.clone()).zip(retire);
        let elders = self.hold_for_elders(new.incarnation(), replaced.as_ref());
        self.effects.push(Effect::Changed);
        Some((new, Up { replaced, elders }))
    }

    /// A link went down. Returns true if it was the live one. If it was an elder, call [`Peer::elder_down`] too.
    pub fn down(&mut self, link: LinkId) -> bool {
        if let Some(accepting) = self.accepting.take_if(|accepting| accepting.link == link) {
            self.revert(accepting);
        }
        self.pair.down(link);
        let live = self.link.take_if(|held| held.id() == link);
        let was_live = live.is_some();
        let provisional = self.provisional.take_if(|held| held.id() == link);
        self.effects.extend(live.into_iter().chain(provisional).map(Effect::Release));
        self.effects.push(Effect::Changed);
        was_live
    }

    /// A link that gave way is drained, without a new link that waits for it.
    pub fn drains(&mut self, link: H) {
        if self.elders.iter().all(|elder| elder.id() != link.id()) {
            self.elders.push(link);
        }
    }

    /// A link went down. Returns true if it had given way and still delivered.
    pub fn elder_down(&mut self, link: LinkId) -> bool {
        let at = self.elders.iter().position(|elder| elder.id() == link);
        self.effects.extend(at.map(|at| Effect::Release(self.elders.remove(at))));
        at.is_some()
    }

    /// Returns the links that a new link to this incarnation waits for: every older one to it that still delivers, not only
    /// the one it replaces, which may itself be held back for another. Links to other incarnations do not count: their
    /// messages are in no order with those of the new link, and a half-dead one would hold it back until it is lost.
    fn hold_for_elders(&mut self, peer: Incarnation, replaced: Option<&(H, Retire)>) -> Vec<H> {
        let survivor = replaced.filter(|(_, retire)| retire.alive).map(|(link, _)| link.clone());
        if mutated!(HoldForReplacedOnly) {
            return survivor.into_iter().collect();
        }
        survivor.into_iter().for_each(|link| self.drains(link));
        let holds = |elder: &&H| elder.incarnation() == peer || mutated!(HoldForEveryIncarnation);
        self.elders.iter().filter(holds).cloned().collect()
    }

    /// Takes back an accepted link that was abandoned before it was installed.
    pub(super) fn settle(&mut self) {
        if let Some(accepting) = self.accepting.take_if(|accepting| accepting.abandoned) {
            self.revert(accepting);
        }
    }

    fn revert(&mut self, accepting: Accepting) {
        let held = self.link.as_ref().map(Handle::id);
        self.pair.revert(accepting.link, accepting.before.filter(|before| Some(before.id) == held));
    }
}
