//! Interface at which deliberately wrong rules replace the real ones.

use trunkline_dial::pair::{FlightId, LinkRef, MayFinish, OnAccept, OnOffer, Pair, Retire};
use trunkline_route::{Claims, Incarnation, LinkId};

/// Rules of one link per pair, as a node uses them. The methods are those of [`Pair`].
pub trait Rules: Default {
    /// Returns the real rules inside.
    fn pair(&self) -> &Pair;
    /// Returns the real rules inside.
    fn pair_mut(&mut self) -> &mut Pair;

    /// Returns the live link.
    fn up(&self) -> Option<LinkRef> {
        self.pair().up()
    }
    /// Returns the accepted link that waits for its first frame.
    fn provisional(&self) -> Option<LinkRef> {
        self.pair().provisional()
    }
    /// See [`Pair::dial_begins`].
    fn dial_begins(&mut self, flight: FlightId) {
        self.pair_mut().dial_begins(flight);
    }
    /// See [`Pair::dial_ends`].
    fn dial_ends(&mut self, flight: FlightId) {
        self.pair_mut().dial_ends(flight);
    }
    /// See [`Pair::may_finish`].
    fn may_finish(&mut self, flight: FlightId, link: LinkId, peer: Incarnation, replace: bool) -> MayFinish {
        self.pair_mut().may_finish(flight, link, peer, replace)
    }
    /// See [`Pair::finish_failed`].
    fn finish_failed(&mut self, flight: FlightId, link: LinkId) {
        self.pair_mut().finish_failed(flight, link);
    }
    /// See [`Pair::accepted`].
    fn accepted(&mut self, flight: FlightId, link: LinkRef) -> OnAccept {
        self.pair_mut().accepted(flight, link)
    }
    /// See [`Pair::offer`].
    fn offer(
        &mut self,
        link: LinkId,
        caller: Incarnation,
        claims: Claims,
        caller_is_greater: bool,
        challenged: Option<(LinkId, bool)>,
    ) -> OnOffer {
        self.pair_mut().offer(link, caller, claims, caller_is_greater, challenged)
    }
    /// See [`Pair::confirmed`].
    fn confirmed(&mut self, link: LinkId) -> Option<Option<Retire>> {
        self.pair_mut().confirmed(link)
    }
    /// See [`Pair::down`].
    fn down(&mut self, link: LinkId) {
        self.pair_mut().down(link);
    }
}

impl Rules for Pair {
    fn pair(&self) -> &Pair {
        self
    }
    fn pair_mut(&mut self) -> &mut Pair {
        self
    }
}
