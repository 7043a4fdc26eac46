//! Rules with one mistake each, to show that the invariants detect it.

use trunkline_dial::pair::{FlightId, LinkRef, MayFinish, OnAccept, OnOffer, Pair};
use trunkline_route::{Claims, Incarnation, LinkId};

use super::rules::Rules;

macro_rules! wrong {
    ($(#[$doc:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name(Pair);

        impl Rules for $name {
            fn pair(&self) -> &Pair {
                &self.0
            }
            fn pair_mut(&mut self) -> &mut Pair {
                &mut self.0
            }
            $($body)*
        }
    };
}

wrong! {
    /// Also accepts the lesser name's FINISH while its own is outstanding.
    BothWin {
        fn offer(
            &mut self,
            link: LinkId,
            caller: Incarnation,
            claims: Claims,
            _caller_is_greater: bool,
            challenged: Option<(LinkId, bool)>,
        ) -> OnOffer {
            self.0.offer(link, caller, claims, true, challenged)
        }
    }
}

wrong! {
    /// Refuses every crossing FINISH.
    BothLose {
        fn offer(
            &mut self,
            link: LinkId,
            caller: Incarnation,
            claims: Claims,
            _caller_is_greater: bool,
            challenged: Option<(LinkId, bool)>,
        ) -> OnOffer {
            self.0.offer(link, caller, claims, false, challenged)
        }
    }
}

wrong! {
    /// Goes up on any ACCEPT, whether or not the entry still waits for it.
    UpOnAnyAccept {
        fn accepted(&mut self, flight: FlightId, link: LinkRef) -> OnAccept {
            match self.0.accepted(flight, link) {
                OnAccept::Discard => {
                    if let Some(provisional) = self.0.provisional() {
                        self.0.down(provisional.id);
                    }
                    self.0.dial_begins(flight);
                    self.0.may_finish(flight, link.id, link.incarnation, true);
                    self.0.accepted(flight, link)
                }
                up @ OnAccept::Up(_) => up,
            }
        }
    }
}

wrong! {
    /// Treats an accepted link as live before its first frame.
    UpOnOffer {
        fn offer(
            &mut self,
            link: LinkId,
            caller: Incarnation,
            claims: Claims,
            caller_is_greater: bool,
            challenged: Option<(LinkId, bool)>,
        ) -> OnOffer {
            let verdict = self.0.offer(link, caller, claims, caller_is_greater, challenged);
            if matches!(verdict, OnOffer::Accept { .. }) {
                self.0.confirmed(link);
            }
            verdict
        }
    }
}

wrong! {
    /// Accepts another incarnation without probing the one that is connected.
    NoChallenge {
        fn offer(
            &mut self,
            link: LinkId,
            caller: Incarnation,
            claims: Claims,
            caller_is_greater: bool,
            challenged: Option<(LinkId, bool)>,
        ) -> OnOffer {
            let challenged = self.0.up().map(|up| (up.id, false)).or(challenged);
            self.0.offer(link, caller, claims, caller_is_greater, challenged)
        }
    }
}

wrong! {
    /// Sends as many FINISHes as there are attempts.
    ManyFinishes {
        fn may_finish(&mut self, flight: FlightId, link: LinkId, peer: Incarnation, replace: bool) -> MayFinish {
            if self.0.dialling() == Some(flight) {
                self.0.dial_begins(flight);
            }
            self.0.may_finish(flight, link, peer, replace)
        }
    }
}

wrong! {
    /// Gives every link the same epoch.
    OneEpoch {
        fn offer(
            &mut self,
            link: LinkId,
            caller: Incarnation,
            claims: Claims,
            caller_is_greater: bool,
            challenged: Option<(LinkId, bool)>,
        ) -> OnOffer {
            match self.0.offer(link, caller, claims, caller_is_greater, challenged) {
                OnOffer::Accept { cancel, dropped, .. } => OnOffer::Accept { epoch: 1, cancel, dropped },
                other => other,
            }
        }
    }
}

wrong! {
    /// Treats a link that is to be replaced as dead, and closes it with the messages in transit on it.
    ReplaceKills {
        fn accepted(&mut self, flight: FlightId, link: LinkRef) -> OnAccept {
            match self.0.accepted(flight, link) {
                OnAccept::Up(Some(mut retire)) => {
                    retire.alive = false;
                    OnAccept::Up(Some(retire))
                }
                other => other,
            }
        }
    }
}
