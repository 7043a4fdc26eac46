//! Two nodes that dial each other, through random schedules: a failing one shrinks to a script of [`Act`]s.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use trunkline_route::{Claims, Incarnation, LinkId, NodeName};

use super::*;
use crate::Reason;
use crate::pair::LinkRef;

const INCARNATIONS: [Incarnation; 2] = [Incarnation::new([1; 16]), Incarnation::new([2; 16])];
/// Steps after which a script has come to rest, or never will.
const REST: usize = 2000;

/// Step of a script. Ends are 0 and 1; end 1 has the greater name.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A caller of this end asks.
    Ask(usize),
    /// A caller of this end asks for a link that is not the live one.
    AskForAnother(usize),
    /// The link that carries the oldest packet of this end breaks, and both ends learn it.
    Break(usize),
    /// The oldest packet to this end arrives.
    Deliver(usize),
    /// The oldest caller of this end goes away.
    Drop(usize),
    /// An attempt of this end reaches the other one and proves it.
    Prove(usize),
    /// The flight of this end ends that was cancelled.
    Reap(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link(LinkId, Incarnation);

impl Handle for Link {
    fn id(&self) -> LinkId {
        self.0
    }

    fn incarnation(&self) -> Incarnation {
        self.1
    }
}

#[derive(Debug, Clone, Copy)]
enum Packet {
    Accept { link: LinkId, flight: FlightId, epoch: u64 },
    Finish { link: LinkId, flight: FlightId, claims: Claims },
    FirstFrame(LinkId),
    Refused { link: LinkId, flight: FlightId },
}

/// The task of a flight.
#[derive(Debug, Default)]
struct Task {
    callers: Vec<(Caller, Option<LinkId>)>,
    dials: bool,
    replace: bool,
    cancelled: bool,
    /// A FINISH of this end is under way.
    finish: Option<LinkId>,
}

#[derive(Default)]
struct End {
    peer: Peer<Link>,
    tasks: BTreeMap<FlightId, Task>,
    inbox: VecDeque<Packet>,
    /// Links open at this end, provisional ones included.
    open: HashSet<LinkId>,
    /// Links that gave way to one that this end dialled, each with that one.
    heirs: HashMap<LinkId, LinkId>,
    answers: Vec<Result<Link, NoRoute>>,
    asked: usize,
}

struct Pairing {
    ends: [End; 2],
    now: Instant,
    next: u64,
}

fn name(end: usize) -> NodeName {
    ["a@h", "b@h"][end].parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "some moment to count from")]
fn start() -> Instant {
    Instant::now()
}

impl Pairing {
    fn new() -> Self {
        Self { ends: [End::default(), End::default()], now: start(), next: 1 }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Ask(at) => self.ask(at, None),
            Act::AskForAnother(at) => self.ask(at, self.ends[at].peer.link().map(|link| link.0)),
            Act::Break(at) => {
                let link = self.ends[at].inbox.front().map(|packet| match packet {
                    Packet::Accept { link, .. } | Packet::Finish { link, .. } | Packet::Refused { link, .. } => *link,
                    Packet::FirstFrame(link) => *link,
                });
                if let Some(link) = link {
                    self.close(link);
                }
            }
            Act::Deliver(at) => {
                if let Some(packet) = self.ends[at].inbox.pop_front() {
                    self.arrive(at, packet);
                }
            }
            Act::Drop(at) => {
                let end = &mut self.ends[at];
                if let Some((flight, task)) = end.tasks.iter_mut().find(|(_, task)| !task.callers.is_empty()) {
                    task.callers.remove(0);
                    end.asked -= 1;
                    end.peer.caller_dropped(*flight);
                    self.carry_out(at);
                }
            }
            Act::Prove(at) => self.prove(at),
            Act::Reap(at) => {
                let cancelled = self.ends[at].tasks.iter().find(|(_, task)| task.cancelled).map(|(flight, _)| *flight);
                if let Some(flight) = cancelled {
                    self.flight_ended(at, flight, None);
                }
            }
        }
    }

    fn ask(&mut self, at: usize, not: Option<LinkId>) {
        self.ends[at].asked += 1;
        self.ask_as(at, Caller::new(Aim::any(Duration::from_secs(15))), not);
    }

    fn ask_as(&mut self, at: usize, mut caller: Caller, not: Option<LinkId>) {
        let new = self.number();
        let end = &mut self.ends[at];
        match end.peer.connect(&mut caller, new, |link| Some(link.0) != not) {
            Connect::Use(link) => end.answers.push(Ok(link)),
            Connect::Join(flight) | Connect::Start(flight) => {
                end.tasks.entry(flight).or_default().callers.push((caller, not));
            }
        }
        self.carry_out(at);
    }

    fn carry_out(&mut self, at: usize) {
        for effect in self.ends[at].peer.take_effects() {
            match effect {
                Effect::Begin(flight) => {
                    assert_eq!(self.ends[at].tasks.len(), 1, "{flight} begins beside another flight");
                    self.step(at, flight, FlightEvent::Begins);
                }
                Effect::Cancel(flight) => {
                    self.ends[at].tasks.entry(flight).and_modify(|task| task.cancelled = true);
                }
                Effect::Changed => {
                    let waits = self.ends[at].peer.looks_out();
                    if let Some(flight) = waits.filter(|flight| !self.ends[at].tasks[flight].cancelled) {
                        self.step(at, flight, FlightEvent::Look);
                    }
                }
                Effect::Discard(link) => self.close(link.0),
                Effect::Overtaken(flight) => {
                    assert!(self.ends[at].peer.is_overtaken(flight));
                    self.lookup_ended(at, flight, Ok(Found::Adopt));
                }
                Effect::Release(_) => {}
            }
        }
    }

    fn step(&mut self, at: usize, flight: FlightId, event: FlightEvent<Link>) {
        let end = &mut self.ends[at];
        let step = end.peer.step(&name(1 - at), flight, self.now, event);
        let task = end.tasks.get_mut(&flight).expect("a flight that is moved on has a task");
        task.dials = false;
        match step {
            Step::Await(_) => {}
            Step::Dial { replace } => (task.dials, task.replace) = (true, replace),
            Step::End(outcome) => self.flight_ended(at, flight, Some(outcome)),
        }
        self.carry_out(at);
    }

    /// The lookup of a flight ended, and its attempts with it.
    fn lookup_ended(&mut self, at: usize, flight: FlightId, flown: Flown<Link>) {
        let Some(task) = self.ends[at].tasks.get_mut(&flight).filter(|task| task.dials) else { return };
        task.dials = false;
        let cancelled = task.cancelled;
        self.take_back(at, flight);
        if !cancelled {
            self.step(at, flight, FlightEvent::Dialled(flown));
        }
    }

    fn take_back(&mut self, at: usize, flight: FlightId) {
        let finish = self.ends[at].tasks.get_mut(&flight).and_then(|task| task.finish.take());
        if let Some(link) = finish {
            self.ends[at].peer.finish_ended(flight, link);
            if !self.ends[at].open.contains(&link) {
                self.close(link);
            }
        }
    }

    fn flight_ended(&mut self, at: usize, flight: FlightId, outcome: Option<Outcome<Link>>) {
        self.take_back(at, flight);
        self.ends[at].peer.flight_ended(flight);
        let task = self.ends[at].tasks.remove(&flight);
        for (mut caller, not) in task.into_iter().flat_map(|task| task.callers) {
            match caller.ended(&name(1 - at), outcome.clone(), |link: &Link| Some(link.0) != not) {
                Some(answer) => self.ends[at].answers.push(answer),
                None => self.ask_as(at, caller, not),
            }
        }
        self.carry_out(at);
    }

    fn prove(&mut self, at: usize) {
        let link = self.number();
        let id = LinkId::new(std::array::from_fn(|n| link.to_be_bytes().get(n).copied().unwrap_or(0)));
        let end = &mut self.ends[at];
        let Some((flight, task)) = end.tasks.iter_mut().find(|(_, task)| task.dials && task.finish.is_none()) else {
            return;
        };
        let flight = *flight;
        match end.peer.may_finish(flight, id, INCARNATIONS[1 - at], task.replace) {
            Some(claims) => {
                task.finish = Some(id);
                let out = end.tasks.values().filter(|task| task.finish.is_some()).count();
                assert_eq!(out, 1, "one FINISH is outstanding");
                self.ends[1 - at].inbox.push_back(Packet::Finish { link: id, flight, claims });
            }
            None => self.lookup_ended(at, flight, Ok(Found::Adopt)),
        }
    }

    fn arrive(&mut self, at: usize, packet: Packet) {
        match packet {
            Packet::Finish { link, flight, claims } => {
                let before = self.ends[at].peer.pair().up();
                let verdict = self.ends[at].peer.offer(link, INCARNATIONS[1 - at], Some(claims), at == 0, None);
                assert_eq!(self.ends[at].peer.pair().up(), before, "an offer displaces nothing");
                let answer = match verdict {
                    Verdict::Accept(epoch) => {
                        self.ends[at].open.insert(link);
                        self.ends[at].peer.stand(Link(link, INCARNATIONS[1 - at]));
                        Packet::Accept { link, flight, epoch }
                    }
                    // The link that the caller speaks of answers, or its first frame does not come in time.
                    Verdict::Await(_) | Verdict::Challenge(_) | Verdict::Refuse(_) => Packet::Refused { link, flight },
                    Verdict::Full => unreachable!("a peer is never full"),
                };
                self.ends[1 - at].inbox.push_back(answer);
                self.carry_out(at);
            }
            Packet::Accept { link, flight, epoch } => {
                let end = &mut self.ends[at];
                let awaited = end.tasks.get(&flight).is_some_and(|task| task.finish == Some(link));
                let link_ref = LinkRef { id: link, epoch, incarnation: INCARNATIONS[1 - at], dialled: true };
                let up = if awaited { end.peer.accepted(flight, link_ref) } else { None };
                let Some(Up { replaced, .. }) = up else {
                    self.close(link);
                    return self.lookup_ended(at, flight, Ok(Found::Adopt));
                };
                end.open.insert(link);
                assert!(end.peer.install(Link(link, INCARNATIONS[1 - at])), "nothing came in between");
                self.ends[1 - at].inbox.push_back(Packet::FirstFrame(link));
                match replaced {
                    Some((old, retire)) if retire.alive => _ = self.ends[at].heirs.insert(old.0, link),
                    Some((old, _)) => self.close(old.0),
                    None => {}
                }
                self.lookup_ended(at, flight, Ok(Found::Link(Link(link, INCARNATIONS[1 - at]))));
                self.carry_out(at);
            }
            Packet::Refused { flight, link } => {
                if self.ends[at].tasks.get(&flight).is_some_and(|task| task.finish == Some(link)) {
                    self.lookup_ended(at, flight, Ok(Found::Adopt));
                }
            }
            Packet::FirstFrame(link) if self.ends[at].open.contains(&link) => {
                let Some((_, Up { replaced, .. })) = self.ends[at].peer.confirmed(link) else {
                    self.close(link);
                    return self.carry_out(at);
                };
                if let Some((old, _)) = replaced {
                    // Drained or dead: it ends at both ends.
                    self.close(old.0);
                }
                self.carry_out(at);
            }
            Packet::FirstFrame(_) => {}
        }
    }

    /// Ends a link or an attempt at both ends.
    fn close(&mut self, link: LinkId) {
        for at in [0, 1] {
            let is_of = |packet: &Packet| match packet {
                Packet::Accept { link: of, .. } | Packet::Finish { link: of, .. } => *of == link,
                Packet::Refused { link: of, .. } | Packet::FirstFrame(of) => *of == link,
            };
            self.ends[at].inbox.retain(|packet| !is_of(packet));
            if self.ends[at].open.remove(&link) {
                self.ends[at].peer.down(link);
                self.ends[at].peer.elder_down(link);
                self.carry_out(at);
            }
            let dialled = self.ends[at].tasks.iter().find(|(_, task)| task.finish == Some(link)).map(|(id, _)| *id);
            if let Some(flight) = dialled {
                let failed = NoRoute { target: name(1 - at), reason: Reason::AllFailed, attempts: Vec::new() };
                self.lookup_ended(at, flight, Err(failed));
            }
            // The end that dialled retires the link that gave way when the new one is heard of, or goes down.
            let old = self.ends[at].heirs.iter().find(|(_, heir)| **heir == link).map(|(old, _)| *old);
            if let Some(old) = old {
                self.ends[at].heirs.remove(&old);
                self.close(old);
            }
        }
    }

    /// Lets everything that is under way come to its end.
    fn rest(&mut self) {
        for _ in 0..REST {
            let busy = self.ends.iter().any(|end| !end.tasks.is_empty() || !end.inbox.is_empty());
            if !busy {
                return;
            }
            for at in [0, 1] {
                for act in [Act::Reap(at), Act::Deliver(at), Act::Prove(at)] {
                    self.act(act);
                }
                // A provisional link that nobody confirms, and the wait for another dial's link, end by time.
                if self.ends.iter().all(|end| end.inbox.is_empty() && end.tasks.values().all(|task| !task.dials)) {
                    self.now += ADOPT;
                    if let Some(link) = self.ends[at].peer.provisional().copied() {
                        self.close(link.0);
                    }
                    if let Some(flight) = self.ends[at].peer.looks_out() {
                        self.step(at, flight, FlightEvent::Look);
                    }
                }
            }
        }
        panic!("the two nodes do not come to rest");
    }
}

fn act() -> impl Strategy<Value = Act> {
    let at = 0..2usize;
    prop_oneof![
        3 => at.clone().prop_map(Act::Ask),
        1 => at.clone().prop_map(Act::AskForAnother),
        1 => at.clone().prop_map(Act::Break),
        6 => at.clone().prop_map(Act::Deliver),
        1 => at.clone().prop_map(Act::Drop),
        4 => at.clone().prop_map(Act::Prove),
        2 => at.prop_map(Act::Reap),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn two_nodes_end_up_with_one_link_or_none_and_every_caller_is_answered(
        script in proptest::collection::vec(act(), 0..60),
    ) {
        let mut pairing = Pairing::new();
        for act in script {
            pairing.act(act);
        }
        pairing.rest();
        let [a, b] = &pairing.ends;
        let up = [a, b].map(|end| end.peer.pair().up().map(|up| up.id));
        prop_assert_eq!(up[0], up[1]);
        for end in [a, b] {
            prop_assert_eq!(end.peer.link().map(|link| link.0), up[0]);
            prop_assert!(end.peer.provisional().is_none() && end.peer.elders().is_empty() && end.peer.flight().is_none());
            prop_assert_eq!(end.open.iter().copied().collect::<Vec<_>>(), up[0].into_iter().collect::<Vec<_>>());
            prop_assert_eq!(end.answers.len(), end.asked);
        }
    }
}

/// Brings up a link that an incarnation of the peer dialled. Returns the links that it waits for.
fn dialled_by(peer: &mut Peer<Link>, id: u8, incarnation: Incarnation, replaces: bool) -> Vec<u8> {
    let link = LinkId::new([id; 16]);
    let replaces = peer.link().map(Handle::id).filter(|_| replaces);
    let claims = Claims { replaces, ..Claims::default() };
    // A link of another incarnation does not answer.
    let dead = peer.pair().up().map(|up| (up.id, false));
    let verdict = peer.offer(link, incarnation, Some(claims), true, dead);
    assert!(matches!(verdict, Verdict::Accept(_)), "{verdict:?}");
    peer.stand(Link(link, incarnation));
    waits(peer.confirmed(link).map(|(_, up)| up))
}

/// Brings up a link that this end dialled to an incarnation of the peer. Returns the links that it waits for.
fn dials(peer: &mut Peer<Link>, id: u8, incarnation: Incarnation, replace: bool) -> Vec<u8> {
    let (flight, link) = (u64::from(id), LinkId::new([id; 16]));
    let mut caller = Caller::new(Aim::any(Duration::from_secs(15)));
    assert_eq!(peer.connect(&mut caller, flight, |_| false), Connect::Start(flight));
    let begun = peer.step(&name(1), flight, start(), FlightEvent::Begins);
    assert!(matches!(begun, Step::Dial { .. }), "{begun:?}");
    assert!(peer.may_finish(flight, link, incarnation, replace).is_some());
    let up = peer.accepted(flight, LinkRef { id: link, epoch: flight, incarnation, dialled: true });
    assert!(peer.install(Link(link, incarnation)));
    peer.flight_ended(flight);
    waits(up)
}

fn waits(up: Option<Up<Link>>) -> Vec<u8> {
    let mut waits: Vec<_> = up.expect("the link is up").elders.iter().map(|elder| elder.0.to_bytes()[0]).collect();
    waits.sort_unstable();
    waits
}

#[test]
fn a_new_link_waits_for_older_ones_to_its_incarnation_only() {
    let [former, present] = INCARNATIONS;
    for up in [dialled_by, dials] {
        let mut peer = Peer::default();
        assert_eq!(up(&mut peer, 1, former, false), [] as [u8; 0]);
        assert_eq!(up(&mut peer, 2, former, true), [1]);
        assert_eq!(up(&mut peer, 3, former, true), [1, 2], "2 may itself wait for 1");
        // The peer starts anew. What its former incarnation sent may never come.
        assert_eq!(up(&mut peer, 4, present, false), [] as [u8; 0]);
        assert_eq!(up(&mut peer, 5, present, true), [4]);
        // A link that is drained for another reason, to either incarnation.
        peer.drains(Link(LinkId::new([6; 16]), former));
        peer.drains(Link(LinkId::new([7; 16]), present));
        assert_eq!(up(&mut peer, 8, present, true), [4, 5, 7]);
        assert!(peer.elder_down(LinkId::new([4; 16])) && peer.elder_down(LinkId::new([1; 16])));
        assert_eq!(up(&mut peer, 9, present, true), [5, 7, 8]);
    }
}
