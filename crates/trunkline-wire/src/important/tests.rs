use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Frame that crosses a link, in either direction.
#[derive(Debug, Clone)]
enum Frame {
    Message(u64, usize),
    Outcomes(Vec<(u64, Outcome)>),
    Report(Vec<(u64, Outcome)>),
    Release(u64),
}

/// A link: what is on its way to the receiver, and back. A cut one may still bring what was on its way.
#[derive(Debug, Default)]
struct Wire {
    epoch: u64,
    there: VecDeque<Frame>,
    back: VecDeque<Frame>,
}

/// A sender, a receiver, and every link there ever was.
#[derive(Default)]
struct World {
    outgoing: Outgoing<usize>,
    incoming: Incoming,
    /// The last one is in use.
    wires: Vec<Wire>,
    sent: usize,
    mailbox: Vec<usize>,
    is_registered: bool,
    told: BTreeMap<usize, Outcome>,
    seqs: BTreeMap<usize, u64>,
    abandoned: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Op {
    Send,
    There,
    Back,
    Again,
    /// The frames that were on their way over the link before this one come late.
    Late,
    Cut,
    Abandon(prop::sample::Index),
    Register(bool),
}

impl World {
    fn connect(&mut self) {
        let epoch = self.wires.len() as u64 + 1;
        let back = VecDeque::from([Frame::Report(self.incoming.outcomes())]);
        self.wires.push(Wire { epoch, back, ..Wire::default() });
    }

    fn send(&mut self) {
        let Some(wire) = self.wires.last_mut() else { return };
        let Some(seq) = self.outgoing.may_send(wire.epoch) else { return };
        wire.there.extend(self.outgoing.to_release().map(Frame::Release));
        wire.there.push_back(Frame::Message(seq, self.sent));
        self.outgoing.sent(self.sent);
        self.seqs.insert(self.sent, seq);
        self.sent += 1;
    }

    /// The receiver reads one frame of a link.
    fn there(&mut self, wire: usize) {
        let Some(wire) = self.wires.get_mut(wire) else { return };
        match wire.there.pop_front() {
            Some(Frame::Message(seq, message)) => {
                let outcome = match self.incoming.arrived(seq).unwrap() {
                    Arrival::Settled => return,
                    Arrival::Known(outcome) => outcome,
                    Arrival::New => {
                        let outcome = if self.is_registered { Outcome::Taken } else { Outcome::NoMailbox };
                        self.incoming.record(seq, outcome);
                        if outcome == Outcome::Taken {
                            self.mailbox.push(message);
                        }
                        outcome
                    }
                };
                wire.back.push_back(Frame::Outcomes(vec![(seq, outcome)]));
            }
            Some(Frame::Release(floor)) => self.incoming.released(floor),
            _ => {}
        }
        assert!(self.incoming.outcomes().len() as u64 <= MAX_IN_FLIGHT);
    }

    /// The sender reads one frame of the link in use.
    fn back(&mut self) {
        let Some(wire) = self.wires.last_mut() else { return };
        match wire.back.pop_front() {
            Some(Frame::Report(outcomes)) => {
                for (message, outcome) in self.outgoing.reported(wire.epoch, &outcomes) {
                    assert_eq!(self.told.insert(message, outcome), None, "told twice");
                }
                wire.there.extend(self.outgoing.to_release().map(Frame::Release));
            }
            Some(Frame::Outcomes(outcomes)) => {
                for (seq, outcome) in outcomes {
                    if let Some(message) = self.outgoing.settled(seq) {
                        assert_eq!(self.told.insert(message, outcome), None, "told twice");
                    }
                }
                wire.there.extend(self.outgoing.to_release().map(Frame::Release));
            }
            _ => {}
        }
    }

    /// Gives credit for one of the messages that are sent again.
    fn again(&mut self) {
        let Some(wire) = self.wires.last_mut() else { return };
        wire.there.extend(self.outgoing.to_release().map(Frame::Release));
        if let Some((seq, message)) = self.outgoing.next_unsent(wire.epoch) {
            wire.there.push_back(Frame::Message(seq, *message));
            self.outgoing.resent(seq);
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Send => self.send(),
            Op::There => self.there(self.wires.len() - 1),
            Op::Late => self.there(self.wires.len().wrapping_sub(2)),
            Op::Back => self.back(),
            Op::Again => self.again(),
            Op::Cut => self.connect(),
            Op::Abandon(of) if self.sent > 0 => {
                let message = of.index(self.sent);
                if !self.told.contains_key(&message) && self.abandoned.insert(message) {
                    self.outgoing.abandoned(self.seqs[&message]);
                }
            }
            Op::Abandon(_) => {}
            Op::Register(is) => self.is_registered = *is,
        }
        for (at, message) in self.mailbox.iter().enumerate() {
            assert!(!self.mailbox[..at].contains(message), "{message} is there twice");
        }
        for (message, outcome) in &self.told {
            assert_eq!(self.mailbox.contains(message), *outcome == Outcome::Taken, "{message}");
        }
    }

    fn is_quiet(&self) -> bool {
        let empty = self.wires.last().is_none_or(|wire| wire.there.is_empty() && wire.back.is_empty());
        empty && !self.outgoing.has_unsent()
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Send),
        6 => Just(Op::There),
        6 => Just(Op::Back),
        3 => Just(Op::Again),
        1 => Just(Op::Cut),
        1 => any::<prop::sample::Index>().prop_map(Op::Abandon),
        1 => any::<bool>().prop_map(Op::Register),
    ]
}

fn late() -> impl Strategy<Value = Op> {
    prop_oneof![8 => op(), 1 => Just(Op::Late)]
}

fn run(ops: &[Op]) -> World {
    let mut world = World { is_registered: true, ..World::default() };
    world.connect();
    for op in ops {
        world.step(op);
    }
    // The link in use holds from here on.
    while !world.is_quiet() {
        world.step(&Op::There);
        world.step(&Op::Back);
        world.step(&Op::Again);
    }
    for message in 0..world.sent {
        assert!(world.told.contains_key(&message) || world.abandoned.contains(&message), "{message} is never settled");
    }
    assert!(world.outgoing.is_idle());
    world
}

proptest! {
    #[test]
    fn p14_told_means_once_in_the_mailbox_and_in_order(ops in prop::collection::vec(op(), 0..200)) {
        let world = run(&ops);
        prop_assert!(world.mailbox.is_sorted());
        prop_assert!(world.incoming.outcomes().is_empty(), "what is settled is forgotten");
    }

    #[test]
    fn p14_what_a_dead_link_brings_late_is_not_delivered_twice(ops in prop::collection::vec(late(), 0..200)) {
        run(&ops);
    }
}

#[test]
fn what_was_given_up_is_released_before_a_message_that_counts_on_it() {
    let mut outgoing = Outgoing::starting_at(1 << 40);
    outgoing.reported(1, &[]);
    assert_eq!((outgoing.to_release(), outgoing.to_release()), (Some(1 << 40), None));
    for n in 0..MAX_IN_FLIGHT {
        assert_eq!(outgoing.may_send(1), Some((1 << 40) + n));
        outgoing.sent(n);
    }
    assert_eq!(outgoing.may_send(1), None);
    outgoing.reported(2, &[]);
    assert_eq!(outgoing.to_release(), Some(1 << 40));
    // Nobody waits for the first any more, which the new link never took.
    outgoing.abandoned(1 << 40);
    while let Some((seq, _)) = outgoing.next_unsent(2) {
        outgoing.resent(seq);
    }
    assert_eq!(outgoing.may_send(2), Some((1 << 40) + MAX_IN_FLIGHT));
    assert_eq!(outgoing.to_release(), Some((1 << 40) + 1));

    outgoing.forsake();
    assert!(outgoing.is_idle() && outgoing.may_send(2).is_none());
}

#[test]
fn what_an_older_link_reports_is_old() {
    let mut outgoing = Outgoing::default();
    assert!(outgoing.reported(2, &[]).is_empty());
    assert_eq!(outgoing.may_send(2), Some(0));
    outgoing.sent("a");
    assert!(outgoing.reported(1, &[]).is_empty() && !outgoing.has_unsent());
    assert_eq!((outgoing.may_send(1), outgoing.may_send(2)), (None, Some(1)));
    assert!(outgoing.reported(3, &[]).is_empty());
    assert_eq!((outgoing.next_unsent(2), outgoing.next_unsent(3)), (None, Some((0, &"a"))));
    assert_eq!(outgoing.may_send(3), None, "what was first goes first");
}

#[test]
fn no_more_than_the_limit_is_in_flight_and_who_exceeds_it_is_found() {
    let mut world = World { is_registered: true, ..World::default() };
    world.connect();
    assert_eq!(world.outgoing.may_send(1), None, "the peer has not reported yet");
    world.back();
    for _ in 0..MAX_IN_FLIGHT + 10 {
        world.send();
    }
    assert_eq!(world.sent as u64, MAX_IN_FLIGHT);
    assert!(world.incoming.arrived(MAX_IN_FLIGHT).is_err());
    assert_eq!(world.incoming.arrived(MAX_IN_FLIGHT - 1), Ok(Arrival::New));
    world.there(0);
    world.there(0);
    world.back();
    assert_eq!(world.outgoing.may_send(1), Some(MAX_IN_FLIGHT));
}
