//! Two nodes, their connections and every order in which what they say may arrive.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Say {
    /// The initiator learns that the responder is who it should be.
    Proven,
    Finish(Claims),
    Accept(u64),
    Close,
    FirstFrame,
    /// The connection is gone.
    Down,
}

#[derive(Debug)]
struct Connection {
    id: LinkId,
    initiator: usize,
    flight: FlightId,
    replace: bool,
    /// Messages that each end has not received yet, in order.
    coming: [VecDeque<Say>; 2],
    /// Ends that know the connection to be gone.
    gone: [bool; 2],
    finish_out: bool,
}

/// The second has the greater name.
#[derive(Debug, Default)]
struct Two {
    pairs: [Pair; 2],
    connections: Vec<Connection>,
    flights: FlightId,
}

fn life(node: usize) -> Incarnation {
    Incarnation::new([node as u8 + 1; 16])
}

impl Two {
    fn dial(&mut self, node: usize, replace: bool) {
        let pair = &mut self.pairs[node];
        if pair.dialling().is_some() || (pair.up().is_some() && !replace) {
            return;
        }
        self.flights += 1;
        let flight = self.flights;
        pair.dial_begins(flight);
        // Two addresses of one host: whichever is proven first goes for the link.
        for n in 0..2 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(flight * 2 + n).to_be_bytes());
            let mut coming = [VecDeque::new(), VecDeque::new()];
            coming[node].push_back(Say::Proven);
            let (gone, finish_out) = ([false; 2], false);
            let id = LinkId::new(id);
            self.connections.push(Connection { id, initiator: node, flight, replace, coming, gone, finish_out });
        }
    }

    fn at(&self, id: LinkId) -> usize {
        self.connections.iter().position(|c| c.id == id).expect("a connection that was made")
    }

    /// One end closes; the other is yet to hear of it.
    fn close(&mut self, node: usize, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.gone[node] {
            connection.gone[node] = true;
            connection.coming[node].clear();
            if !connection.gone[1 - node] {
                connection.coming[1 - node].push_back(Say::Down);
            }
            self.ended(node, at);
        }
    }

    /// Loses the messages under way on a link.
    fn lose(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        for node in 0..2 {
            connection.coming[node].clear();
            if !connection.gone[node] {
                connection.coming[node].push_back(Say::Down);
            }
        }
    }

    fn ended(&mut self, node: usize, at: usize) {
        let Connection { id, initiator, flight, .. } = self.connections[at];
        self.pairs[node].down(id);
        if initiator == node {
            self.connections[at].finish_out = false;
            self.pairs[node].finish_failed(flight, id);
            // A dial ends when no attempt of it is left.
            if self.connections.iter().all(|c| c.flight != flight || c.gone[node]) {
                self.pairs[node].dial_ends(flight);
            }
        }
    }

    fn cancel(&mut self, node: usize, flight: FlightId, but: Option<LinkId>) {
        for at in 0..self.connections.len() {
            if self.connections[at].flight == flight && Some(self.connections[at].id) != but {
                self.close(node, at);
            }
        }
    }

    fn say(&mut self, at: usize, to: usize, what: Say) {
        if !self.connections[at].gone[to] {
            self.connections[at].coming[to].push_back(what);
        }
    }

    /// The verdict on a caller. A live link that is challenged answers if the other end holds it too.
    fn offered(&mut self, node: usize, id: LinkId, claims: Claims) -> OnOffer {
        let peer = 1 - node;
        let verdict = self.pairs[node].offer(id, life(peer), Some(claims), peer == 1, None);
        let OnOffer::Challenge(live) = verdict else { return verdict };
        let answers = self.pairs[peer].up().is_some_and(|up| up.id == live);
        self.pairs[node].offer(id, life(peer), Some(claims), peer == 1, Some((live, answers)))
    }

    fn hear(&mut self, node: usize, at: usize) {
        let Some(what) = self.connections[at].coming[node].pop_front() else { return };
        let Connection { id, flight, replace, .. } = self.connections[at];
        let peer = 1 - node;
        match what {
            Say::Proven => match self.pairs[node].may_finish(flight, id, life(peer), replace) {
                MayFinish::Finish(claims) => {
                    self.connections[at].finish_out = true;
                    self.say(at, peer, Say::Finish(claims));
                }
                MayFinish::Adopt => self.close(node, at),
            },
            Say::Finish(claims) => match self.offered(node, id, claims) {
                OnOffer::Accept { epoch, cancel, dropped } => {
                    self.say(at, peer, Say::Accept(epoch));
                    if let Some(flight) = cancel {
                        self.cancel(node, flight, None);
                    }
                    if let Some(dropped) = dropped {
                        self.close(node, self.at(dropped));
                    }
                }
                OnOffer::Challenge(_) => panic!("it was challenged already"),
                OnOffer::Duplicate | OnOffer::LostTie | OnOffer::NameInUse => self.say(at, peer, Say::Close),
            },
            Say::Accept(epoch) => {
                self.connections[at].finish_out = false;
                let link = LinkRef { id, epoch, incarnation: life(peer), dialled: true };
                match self.pairs[node].accepted(flight, link) {
                    OnAccept::Up(retire) => {
                        self.say(at, peer, Say::FirstFrame);
                        self.cancel(node, flight, Some(id));
                        if let Some(retire) = retire {
                            self.close(node, self.at(retire.id));
                        }
                    }
                    OnAccept::Discard => self.close(node, at),
                }
            }
            Say::FirstFrame => match self.pairs[node].confirmed(id) {
                Some(Some(retire)) => self.close(node, self.at(retire.id)),
                Some(None) => {}
                None => self.close(node, at),
            },
            Say::Close => self.close(node, at),
            Say::Down => {
                self.connections[at].gone[node] = true;
                self.connections[at].coming[node].clear();
                self.ended(node, at);
            }
        }
    }

    fn pending(&self) -> Vec<(usize, usize)> {
        let all = (0..self.connections.len()).flat_map(|at| [(0, at), (1, at)]);
        all.filter(|(node, at)| !self.connections[*at].coming[*node].is_empty()).collect()
    }

    fn outstanding(&self, node: usize) -> usize {
        self.connections.iter().filter(|c| c.initiator == node && c.finish_out && !c.gone[node]).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p15_at_rest_both_ends_hold_the_same_link_or_none(
        script in vec((0u8..16, any::<prop::sample::Index>()), 1..120),
    ) {
        let mut two = Two::default();
        let mut said = vec![];
        let drain = std::iter::repeat_n(16, 5000).zip(script.iter().cycle().map(|(_, index)| index));
        for (action, index) in script.iter().map(|(action, index)| (*action, index)).chain(drain) {
            let pending = two.pending();
            match action {
                0..=1 => two.dial(usize::from(action), false),
                2..=3 => two.dial(usize::from(action - 2), true),
                4 if !two.connections.is_empty() => two.lose(index.index(two.connections.len())),
                _ if !pending.is_empty() => {
                    let (node, at) = pending[index.index(pending.len())];
                    said.push((node, at, two.connections[at].coming[node][0]));
                    two.hear(node, at);
                }
                16 => break,
                _ => {}
            }
            for node in 0..2 {
                prop_assert!(two.outstanding(node) <= 1, "{:?}", said);
            }
        }
        prop_assert!(two.pending().is_empty());
        let [a, b] = &two.pairs;
        prop_assert_eq!(a.up().map(|up| (up.id, up.epoch)), b.up().map(|up| (up.id, up.epoch)), "{:?}", said);
        prop_assert!(a.provisional().is_none() && b.provisional().is_none(), "{:?}", said);
        prop_assert!(a.dialling().is_none() && b.dialling().is_none(), "{:?}", said);
    }
}
