use std::collections::BTreeMap;

use proptest::prelude::*;
use trunkline_term::{Atom, Limits, Term};

use super::*;
use crate::{BadMessage, Notice, Refusal, Request, Unwilling, answer, answered};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Three nodes whose messages arrive at once, beside a model of what everybody must be told.
struct World {
    nodes: Vec<Ties>,
    pids: Vec<Pid>,
    links: BTreeSet<(usize, usize)>,
    watches: BTreeMap<(usize, u64), usize>,
    dead: BTreeSet<usize>,
}

/// The shares of a process add up to what it has of other nodes, and none is left of who has nothing.
fn shares_add_up(ties: &Ties) {
    for tied in ties.live.values() {
        let mut expected = BTreeMap::<_, usize>::new();
        let there = tied.watchers.iter().filter_map(|watcher| match watcher {
            Watcher::There(node, _) => Some(node),
            Watcher::Here(_) => None,
        });
        for node in tied.links.iter().map(|pid| &pid.node).chain(there) {
            *expected.entry(node.clone()).or_default() += 1;
        }
        assert_eq!(tied.shares, expected);
    }
}

#[test]
fn a_peer_has_a_share_of_the_ties_of_a_process_and_leaves_the_rest_to_others() {
    let (mut ties, [greedy, other]) = (Ties::new(name("own@h"), 7), ["greedy@h", "other@h"].map(name));
    let own = ties.begin().number;
    let pid = |number| Pid { node: greedy.clone(), number, creation: 1 };
    for n in 0..PEER_TIES as u64 / 2 {
        assert_eq!(ties.room(own, &greedy), Ok(()));
        ties.watched_by(greedy.clone(), n, own).unwrap();
        ties.link(own, &pid(n)).unwrap();
        // Once more is none more.
        ties.link(own, &pid(n)).unwrap();
    }
    assert_eq!((ties.count(own), ties.room(own, &greedy)), (PEER_TIES, Err(TooManyTies::OfPeer)));
    assert_eq!(ties.room(own, &other), Ok(()));
    ties.unwatched_by(&greedy, 0, own);
    assert_eq!(ties.room(own, &greedy), Ok(()), "what is given back can be taken again");
    ties.watched_by(greedy.clone(), 0, own).unwrap();
    ties.node_down(&greedy, "cut");
    assert_eq!((ties.count(own), ties.room(own, &greedy)), (0, Ok(())));
    for n in 0..MAX_TIES as u64 {
        ties.watched_by(name(&format!("n{}@h", n % 8)), n, own).unwrap();
    }
    assert_eq!(ties.room(own, &other), Err(TooManyTies::OfProcess));
    shares_add_up(&ties);
}

#[derive(Debug, Clone)]
enum Op {
    Begin(usize),
    Link(prop::sample::Index, prop::sample::Index),
    Unlink(prop::sample::Index, prop::sample::Index),
    Watch(usize, prop::sample::Index),
    End(prop::sample::Index),
    NodeDown(usize, usize),
}

impl World {
    fn at(&self, pid: &Pid) -> usize {
        self.nodes.iter().position(|node| node.node == pid.node).unwrap()
    }

    /// Carries effects out, over the network too, and gives who was told of whom here.
    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Vec<Effect> {
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::ExitThere { to, from, exit } => {
                    let from = self.nodes[node].pid(from);
                    let there = self.at(&to);
                    told.extend(self.nodes[there].exit_there(from, to.number, exit));
                }
                Effect::DownThere { node: there, watch, exit } => {
                    let own = self.nodes[node].node.clone();
                    let there = self.nodes.iter().position(|node| node.node == there).unwrap();
                    told.extend(self.nodes[there].down_there(&own, watch, exit));
                }
                here => told.push(here),
            }
        }
        told
    }

    fn step(&mut self, op: &Op) {
        let pair = |a: usize, b: usize| (a.min(b), a.max(b));
        match op {
            Op::Begin(node) => {
                let pid = self.nodes[*node].begin();
                self.pids.push(pid);
            }
            _ if self.pids.is_empty() => {}
            Op::Link(a, b) => {
                let (a, b) = (a.index(self.pids.len()), b.index(self.pids.len()));
                let (from, to) = (self.pids[a].clone(), self.pids[b].clone());
                let (here, there) = (self.at(&from), self.at(&to));
                let mut linked = self.nodes[here].link(from.number, &to);
                if linked.is_ok() && here != there {
                    linked = self.nodes[there].own(to.number, 7).and_then(|own| self.nodes[there].link(own, &from));
                    if linked.is_err() {
                        assert!(self.nodes[here].unlink(from.number, &to));
                    }
                }
                let live = !self.dead.contains(&a) && !self.dead.contains(&b);
                assert_eq!(linked.is_ok(), live || a == b);
                if live && a != b {
                    self.links.insert(pair(a, b));
                }
            }
            Op::Unlink(a, b) => {
                let (a, b) = (a.index(self.pids.len()), b.index(self.pids.len()));
                let (from, to) = (self.pids[a].clone(), self.pids[b].clone());
                let (here, there) = (self.at(&from), self.at(&to));
                let was = self.nodes[here].unlink(from.number, &to);
                if here != there {
                    assert_eq!(self.nodes[there].unlink(to.number, &from), was);
                }
                assert_eq!(was, self.links.remove(&pair(a, b)));
            }
            Op::Watch(here, of) => {
                let of = of.index(self.pids.len());
                let target = self.pids[of].clone();
                let there = self.at(&target);
                let own = self.nodes[*here].node.clone();
                let (watch, mut down) = self.nodes[*here].watch(&target);
                if *here != there && self.nodes[there].watched_by(own, watch, target.number).is_err() {
                    down = self.nodes[*here].down_there(&target.node, watch, Exit::NoProcess);
                }
                let expected = self.dead.contains(&of).then_some(Effect::Down { watch, exit: Exit::NoProcess });
                assert_eq!(down, expected);
                if down.is_none() {
                    self.watches.insert((*here, watch), of);
                }
            }
            Op::End(of) => {
                let of = of.index(self.pids.len());
                let (pid, exit) = (self.pids[of].clone(), Exit::Failed("x".into()));
                let here = self.at(&pid);
                let effects = self.nodes[here].end(pid.number, &exit);
                let told = self.carry_out(here, effects);
                let linked: BTreeSet<_> =
                    self.links.iter().filter(|(a, b)| *a == of || *b == of).map(|(a, b)| a ^ b ^ of).collect();
                let watched: BTreeSet<_> =
                    self.watches.iter().filter(|(_, target)| **target == of).map(|((_, watch), _)| *watch).collect();
                assert_eq!(told.len(), linked.len() + self.watches.values().filter(|target| **target == of).count());
                for effect in told {
                    match effect {
                        Effect::Exit { to, from, .. } => {
                            assert!(from == pid && linked.iter().any(|other| self.pids[*other].number == to));
                        }
                        Effect::Down { watch, .. } => assert!(watched.contains(&watch)),
                        other => panic!("{other:?}"),
                    }
                }
                self.links.retain(|(a, b)| *a != of && *b != of);
                self.watches.retain(|_, target| *target != of);
                self.dead.insert(of);
            }
            Op::NodeDown(a, b) if a != b => {
                for (here, there) in [(*a, *b), (*b, *a)] {
                    let peer = self.nodes[there].node.clone();
                    let told = self.nodes[here].node_down(&peer, "cut");
                    let pids = &self.pids;
                    let of = |index: usize| self.nodes.iter().position(|node| node.node == pids[index].node).unwrap();
                    let crossing = |(x, y): &&(usize, usize)| {
                        let ends = (of(*x), of(*y));
                        ends == (here, there) || ends == (there, here)
                    };
                    let links = self.links.iter().filter(crossing).count();
                    let watches = self.watches.iter().filter(|((node, _), of_)| *node == here && of(**of_) == there);
                    assert_eq!(told.len(), links + watches.count());
                    let down = Exit::NodeDown("cut".into());
                    assert!(told.iter().all(|effect| matches!(effect,
                        Effect::Exit { exit, .. } | Effect::Down { exit, .. } if *exit == down)));
                }
                let nodes: Vec<_> = self.pids.iter().map(|pid| self.at(pid)).collect();
                let cut = |x: usize, y: usize| (x, y) == (*a, *b) || (x, y) == (*b, *a);
                self.links.retain(|(x, y)| !cut(nodes[*x], nodes[*y]));
                self.watches.retain(|(node, _), of| !cut(*node, nodes[*of]));
            }
            Op::NodeDown(..) => {}
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..3usize).prop_map(Op::Begin),
        4 => (any(), any()).prop_map(|(a, b)| Op::Link(a, b)),
        1 => (any(), any()).prop_map(|(a, b)| Op::Unlink(a, b)),
        3 => (0..3usize, any()).prop_map(|(node, of)| Op::Watch(node, of)),
        2 => any().prop_map(Op::End),
        1 => (0..3usize, 0..3usize).prop_map(|(a, b)| Op::NodeDown(a, b)),
    ]
}

proptest! {
    #[test]
    fn whoever_is_tied_to_what_ended_is_told_once_and_nobody_else(ops in prop::collection::vec(op(), 0..80)) {
        let nodes = ["a@h", "b@h", "c@h"].map(|node| Ties::new(name(node), 7)).into();
        let (pids, links, watches, dead) = Default::default();
        let mut world = World { nodes, pids, links, watches, dead };
        for op in &ops {
            world.step(op);
            world.nodes.iter().for_each(shares_add_up);
        }
        for (of, pid) in world.pids.iter().enumerate() {
            let node = &world.nodes[world.at(pid)];
            prop_assert_eq!(node.own(pid.number, 7).is_ok(), !world.dead.contains(&of));
            prop_assert!(node.own(pid.number, 8).is_err(), "a pid of another life");
        }
    }

    #[test]
    fn reading_terms_of_any_kind_ends(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(term) = Term::decode(&bytes, &Limits::default()) {
            let _ = (Request::try_from(&term), Notice::try_from(&term), answered(&term), Pid::try_from(&term));
        }
    }
}

#[test]
fn what_is_no_longer_watched_is_not_told_of() {
    let mut ties = Ties::new(name("a@h"), 7);
    let (one, peer) = (ties.begin(), name("b@h"));
    let (watch, _) = ties.watch(&one);
    assert_eq!((ties.unwatch(watch), ties.unwatch(watch)), (Some(one.clone()), None));
    ties.watched_by(peer.clone(), 3, one.number).unwrap();
    ties.unwatched_by(&peer, 3, one.number);
    ties.watched_by(peer.clone(), 4, one.number).unwrap();
    assert_eq!((ties.count(one.number), ties.node_down(&peer, "cut").len(), ties.count(one.number)), (1, 0, 0));
    assert_eq!(ties.end(one.number, &Exit::Normal), []);
    assert_eq!(ties.end(one.number, &Exit::Normal), [], "it ended before");

    // What begins watched is known by its pid when it began.
    let (early, _) = ties.watch(&Pid { node: name("b@h"), number: 0, creation: 0 });
    let began = Pid { node: name("b@h"), number: 4, creation: 1 };
    ties.retarget(early, began.clone());
    assert_eq!(ties.unwatch(early), Some(began));
    ties.retarget(early, one.clone());
    assert_eq!(ties.unwatch(early), None);

    // One of a former life is none.
    let mut ties = Ties::new(name("a@h"), 7);
    let (own, former) = (ties.begin(), Pid { node: name("a@h"), number: 1, creation: 6 });
    assert!(matches!(ties.watch(&former), (_, Some(Effect::Down { exit: Exit::NoProcess, .. }))));
    assert_eq!((ties.link(own.number, &former), ties.count(own.number)), (Err(NoProcess), 0));

    // A peer speaks only for itself.
    let other = Pid { node: peer, number: 1, creation: 1 };
    let (watch, _) = ties.watch(&other);
    assert_eq!(ties.down_there(&name("c@h"), watch, Exit::Normal), None);
    assert!(ties.down_there(&other.node, watch, Exit::Normal).is_some());
}

#[test]
fn what_is_said_of_processes_is_read_as_it_was_meant() {
    let atom = |text: &str| Atom::new(text).unwrap();
    for request in [
        Request::Spawn(atom("worker"), Term::tuple([1.into(), "x".into()]), None),
        Request::Spawn(atom("worker"), 0.into(), Some(u64::MAX)),
        Request::StartApplication(atom("shop")),
        Request::Link((u64::MAX, u32::MAX), (1, 0)),
        Request::Monitor(5, (1 << 40, 9)),
    ] {
        assert_eq!(Request::try_from(&Term::from(&request)), Ok(request));
    }
    let exits = [
        Exit::Normal,
        Exit::Killed,
        Exit::Panicked,
        Exit::NoProcess,
        Exit::Failed("why".into()),
        Exit::NodeDown("because".into()),
        Exit::Unwatched("not agreed".into()),
    ];
    for exit in exits {
        for notice in [Notice::Exit((1, 2), (3, 4), exit.clone()), Notice::Down(7, exit)] {
            assert_eq!(Notice::try_from(&Term::from(&notice)), Ok(notice));
        }
    }
    for notice in [Notice::Unlink((1, 2), (3, 4)), Notice::Demonitor(1, (2, 3))] {
        assert_eq!(Notice::try_from(&Term::from(&notice)), Ok(notice));
    }
    let pid = Pid { node: name("a@h"), number: 1 << 33 | 5, creation: 0xbad_cafe };
    assert_eq!(answered(&answer(&Ok(Some(pid.clone())))), Ok(Ok(Some((pid.number, pid.creation)))));
    assert_eq!(answered(&answer(&Ok(None))), Ok(Ok(None)));
    for refusal in [Refusal::NotAllowed, Refusal::Unknown, Refusal::NoProcess, Refusal::Failed, Refusal::Overloaded] {
        let unwilling = Unwilling { refusal, text: "no".into() };
        assert_eq!(answered(&answer(&Err(unwilling.clone()))), Ok(Err(unwilling)));
    }
    assert_eq!(Request::try_from(&Term::atom("spawn").unwrap()), Err(BadMessage));
    assert_eq!(Pid::try_from(&Term::from(&pid)), Ok(pid.clone()));
    assert_eq!(pid.to_string(), "a@h#8589934597.0badcafe");
    assert_eq!(pid.to_string().parse(), Ok(pid));
    for bad in ["", "a@h", "a@h#1", "a@h#1.0", "a@h#+1.0badcafe", "a@h#1.+badcafe", "#1.0badcafe", "a@h#x.0badcafe"] {
        assert!(bad.parse::<Pid>().is_err(), "{bad}");
    }
}
