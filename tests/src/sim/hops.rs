//! Connections through gateways in random topologies, on a virtual clock: the decisions and the state of every hop.
//! Nodes die, next hops are black holes, and callers give up. [`decide`], [`onwards`] and [`Circuits`] are those of the
//! gateway; only the transport between them is simulated.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use trunkline_matcher::AccessPattern;
use trunkline_proxy::{
    Circuit, CircuitLimits, Circuits, Membership, Onwards, Proxied, ProxyOpen, Transit, TransitRule, Verdict, decide,
    onwards,
};
use trunkline_route::{DirectUse, NodeName, ProxyRoute};
use trunkline_stack::StreamCode;

use super::rng::Rng;

/// Longest time for finding a next hop.
const ONWARDS: Duration = Duration::from_secs(8);
/// Time after which a node that does not answer is given up.
const SILENCE: Duration = Duration::from_secs(3);
/// Longest transit time of a request to a neighbour.
const TRANSFER: Duration = Duration::from_millis(20);
const ROOTS: usize = 12;

/// Deliberate mistake of a gateway, to show that the invariants detect it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A further hop is not counted.
    FreeHops,
    /// The gateway omits itself from the list of passed hops.
    HiddenHops,
    /// A circuit is not released when its next hop is refused.
    KeptCircuit,
    /// A cancelled request continues to search for a next hop.
    DeafToCancel,
    /// The transit rules are ignored.
    NoRules,
}

impl Mistake {
    /// All mistakes.
    pub const ALL: [Self; 5] = [Self::FreeHops, Self::HiddenHops, Self::KeptCircuit, Self::DeafToCancel, Self::NoRules];
}

/// Counts of events over many worlds. Each event must occur.
pub type Seen = BTreeMap<&'static str, u64>;

struct Node {
    name: NodeName,
    is_alive: bool,
    transit: Transit,
    /// Proxy routes by target.
    routes: BTreeMap<usize, Vec<ProxyRoute>>,
    circuits: Circuits,
}

/// Request from one node to another.
struct Ask {
    parent: Option<usize>,
    from: usize,
    at: usize,
    open: ProxyOpen,
    /// The gateways that the request really passed.
    passed: Vec<usize>,
    began: Instant,
    circuit: Option<Circuit>,
    ways: VecDeque<Onwards>,
    /// True if the next hop that is tried is the target itself.
    to_target: bool,
    state: State,
    child: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Looking,
    Up,
    Over,
}

#[derive(Debug)]
enum Event {
    Begin,
    Arrive(usize),
    /// The current next hop of this request turned out to be a dead end.
    DeadEnd(usize),
    OutOfTime(usize),
    GivenUp(usize),
    Dies(usize),
}

/// One simulated world.
struct World {
    rng: Rng,
    now: Instant,
    nodes: Vec<Node>,
    /// Result of a dial by pair of nodes; `None` is a black hole.
    reach: BTreeMap<(usize, usize), Option<bool>>,
    asks: Vec<Ask>,
    queue: BTreeMap<(Instant, u64), Event>,
    next: u64,
    budget: Vec<u8>,
    mistake: Option<Mistake>,
    seen: Seen,
}

/// Runs the world of this seed to its end.
///
/// # Errors
/// The invariant that does not hold.
pub fn run(seed: u64, start: Instant, mistake: Option<Mistake>) -> Result<Seen, String> {
    let mut world = World::new(seed, start, mistake);
    for _ in 0..ROOTS {
        let after = Duration::from_millis(world.rng.below(2_000));
        world.at(after, Event::Begin);
    }
    if world.rng.percent(40) {
        let (node, after) = (world.rng.index(world.nodes.len()), Duration::from_millis(world.rng.below(4_000)));
        world.at(after, Event::Dies(node));
    }
    while let Some(((now, _), event)) = world.queue.pop_first() {
        world.now = now;
        world.happens(event)?;
        world.check()?;
    }
    // All remaining connections are closed.
    for ask in 0..world.asks.len() {
        if world.asks[ask].parent.is_none() {
            if world.asks[ask].state == State::Looking {
                return Err(format!("the request {ask} never ended"));
            }
            world.end(ask);
        }
    }
    match world.nodes.iter().find(|node| node.circuits.open() > 0) {
        Some(node) => Err(format!("{} is left with {} circuits", node.name, node.circuits.open())),
        None => Ok(world.seen),
    }
}

impl World {
    fn new(seed: u64, now: Instant, mistake: Option<Mistake>) -> Self {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.index(5);
        let name = |n: usize| -> NodeName { format!("n{n}@sim").parse().expect("a name") };
        let pattern = |rng: &mut Rng| {
            let text =
                if rng.percent(85) { ".*".to_owned() } else { format!("n[{}{}]@sim", rng.below(6), rng.below(6)) };
            AccessPattern::new(&text).expect("a pattern")
        };
        // In half of the worlds every node permits all transit, and routes are long.
        let is_open = rng.percent(50);
        let everything = || AccessPattern::new(".*").expect("a pattern");
        let mut nodes = Vec::new();
        for at in 0..count {
            let rules = rng.index(4);
            let rules = (0..rules).map(|_| TransitRule::new(pattern(&mut rng), pattern(&mut rng))).collect();
            let gateways = if rng.percent(80) { vec![pattern(&mut rng)] } else { Vec::new() };
            let mut routes: BTreeMap<usize, Vec<ProxyRoute>> = BTreeMap::new();
            for _ in 0..rng.index(if is_open { 40 } else { 16 }) {
                let (to, gateway) = (rng.index(count), rng.index(count));
                let direct = [DirectUse::First, DirectUse::First, DirectUse::First, DirectUse::Never, DirectUse::Only];
                let direct = direct[rng.index(5)];
                let most = NonZeroU8::new(1 + rng.below(6) as u8).expect("not 0");
                if to != gateway && to != at {
                    routes.entry(to).or_default().push(ProxyRoute::via(name(gateway)).max_hop(most).direct(direct));
                }
            }
            let mut transit = Transit { rules, gateways };
            if is_open {
                transit.rules.insert(0, TransitRule::new(everything(), everything()));
                transit.gateways.push(everything());
            }
            let limits =
                CircuitLimits { total: 1 + rng.index(12), per_peer: 1 + rng.index(8), ..CircuitLimits::default() };
            nodes.push(Node { name: name(at), is_alive: true, transit, routes, circuits: Circuits::new(limits) });
        }
        let mut reach = BTreeMap::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let way = [Some(true), Some(true), Some(false), Some(false), Some(false), None][rng.index(6)];
                reach.insert((from, to), way);
            }
        }
        let (asks, queue, budget, seen) = (Vec::new(), BTreeMap::new(), Vec::new(), Seen::new());
        Self { rng, now, nodes, reach, asks, queue, next: 0, budget, mistake, seen }
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((self.now + after, self.next), event);
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn index(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|node| node.name == *name).expect("a node of this world")
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Begin => self.begin(),
            Event::Arrive(ask) => return self.arrive(ask),
            Event::DeadEnd(ask) if self.asks[ask].state == State::Looking => return self.try_next(ask),
            Event::OutOfTime(ask) if self.asks[ask].state == State::Looking => {
                self.saw("out of time");
                self.answer(ask, Some(StreamCode::TimedOut))?;
            }
            Event::GivenUp(ask) if self.asks[ask].state != State::Over => {
                self.saw("given up");
                self.end(ask);
            }
            Event::Dies(node) => return self.dies(node),
            _ => {}
        }
        Ok(())
    }

    /// Starts a request of a node to a gateway for another node.
    fn begin(&mut self) {
        let count = self.nodes.len();
        let (from, at, to) = (self.rng.index(count), self.rng.index(count), self.rng.index(count));
        let most = 1 + self.rng.below(6) as u8;
        if from == at || from == to || !self.nodes[from].is_alive {
            return;
        }
        let open = ProxyOpen::new(self.nodes[to].name.clone(), most);
        let root = self.ask(None, from, at, open);
        self.budget.resize(self.asks.len(), 0);
        self.budget[root] = most;
        self.at(ONWARDS, Event::OutOfTime(root));
        if self.rng.percent(20) {
            let after = Duration::from_millis(self.rng.below(9_000));
            self.at(after, Event::GivenUp(root));
        }
    }

    fn ask(&mut self, parent: Option<usize>, from: usize, at: usize, open: ProxyOpen) -> usize {
        let passed = parent.map_or_else(Vec::new, |parent| {
            let parent = &self.asks[parent];
            parent.passed.iter().copied().chain([parent.at]).collect()
        });
        let (began, ways) = (self.now, VecDeque::new());
        let (circuit, child, to_target, state) = (None, None, false, State::Looking);
        self.asks.push(Ask { parent, from, at, open, passed, began, circuit, ways, to_target, state, child });
        let ask = self.asks.len() - 1;
        let after = Duration::from_micros(1 + self.rng.below(TRANSFER.as_micros() as u64));
        self.at(after, Event::Arrive(ask));
        ask
    }

    fn arrive(&mut self, ask: usize) -> Result<(), String> {
        let Ask { from, at, state, .. } = self.asks[ask];
        if state != State::Looking {
            return Ok(());
        }
        if !self.nodes[at].is_alive {
            return self.answer(ask, Some(StreamCode::Broken));
        }
        let (neighbour, open) = (self.nodes[from].name.clone(), self.asks[ask].open.clone());
        let everybody = || AccessPattern::new(".*").expect("a pattern");
        let open_door =
            Transit { rules: vec![TransitRule::new(everybody(), everybody())], gateways: vec![everybody()] };
        let Node { name, transit, routes, .. } = &self.nodes[at];
        let transit = if self.makes(Mistake::NoRules) { &open_door } else { transit };
        match decide(name, &neighbour, open, transit, &Proxied::default(), Membership::Neither) {
            Verdict::Target(_) => self.answer(ask, None),
            Verdict::Refuse(refusal) => self.answer(ask, Some(refusal.code)),
            Verdict::Forward(mut next) => {
                if self.makes(Mistake::FreeHops) {
                    next.max_hop += 1;
                }
                if self.makes(Mistake::HiddenHops) {
                    next.path.clear();
                }
                let to = self.index(&next.to);
                let ways = onwards(&next, routes.get(&to).into_iter().flatten());
                self.forwarded(ask, to)?;
                let address = [10, 0, 0, self.index(&neighbour) as u8].into();
                match self.nodes[at].circuits.begin(self.now, &neighbour, address) {
                    Err(_) => self.answer(ask, Some(StreamCode::Overloaded)),
                    Ok(circuit) => {
                        let asked = &mut self.asks[ask];
                        (asked.circuit, asked.ways, asked.open) = (Some(circuit), ways.into(), next);
                        if asked.ways.is_empty() {
                            return self.answer(ask, Some(StreamCode::Loop));
                        }
                        self.at(ONWARDS, Event::OutOfTime(ask));
                        self.try_next(ask)
                    }
                }
            }
        }
    }

    /// Checks P17 and P18: which node may forward a request.
    fn forwarded(&self, ask: usize, to: usize) -> Result<(), String> {
        let Ask { from, at, passed, .. } = &self.asks[ask];
        let [from_name, to_name] = [*from, to].map(|node| self.nodes[node].name.as_str());
        let Transit { rules, gateways } = &self.nodes[*at].transit;
        let allowed = rules.iter().any(|rule| rule.from.is_match(from_name) && rule.to.is_match(to_name));
        let trusted = passed.is_empty() || gateways.iter().any(|gateway| gateway.is_match(from_name));
        if !allowed || !trusted {
            return Err(format!("P17: {} passes on what no rule allows", self.nodes[*at].name));
        }
        let mut ways = passed.clone();
        ways.push(*at);
        let visited: BTreeSet<_> = ways.iter().collect();
        if visited.len() < ways.len() {
            return Err(format!("P18: a request visits a node twice: {ways:?}"));
        }
        let root = self.root(ask);
        if ways.len() > usize::from(self.budget[root]) {
            return Err(format!("P18: {} gateways, and {} may be", ways.len(), self.budget[root]));
        }
        Ok(())
    }

    fn root(&self, mut ask: usize) -> usize {
        while let Some(parent) = self.asks[ask].parent {
            ask = parent;
        }
        ask
    }

    /// Tries the next hop.
    fn try_next(&mut self, ask: usize) -> Result<(), String> {
        let (at, left) = {
            let asked = &self.asks[ask];
            (asked.at, ONWARDS.saturating_sub(self.now - asked.began))
        };
        self.asks[ask].child = None;
        let way = self.asks[ask].ways.pop_front();
        let Some(way) = way.filter(|_| !left.is_zero()) else {
            return self.answer(ask, Some(StreamCode::Unreachable));
        };
        let (neighbour, open) = match way {
            Onwards::Target => {
                self.asks[ask].to_target = true;
                let open = self.asks[ask].open.clone();
                (self.index(&open.to), open)
            }
            Onwards::Gateway { name, open, .. } => {
                self.asks[ask].to_target = false;
                (self.index(&name), open)
            }
        };
        let alive = self.nodes[neighbour].is_alive;
        match self.reach.get(&(at, neighbour)).copied().unwrap_or(Some(false)) {
            Some(true) if alive => {
                let child = self.ask(Some(ask), at, neighbour, open);
                self.budget.resize(self.asks.len(), 0);
                self.asks[ask].child = Some(child);
            }
            Some(_) => {
                self.saw("refused");
                self.at(Duration::from_millis(1), Event::DeadEnd(ask));
            }
            None => {
                self.saw("a black hole");
                self.at(SILENCE.min(left), Event::DeadEnd(ask));
            }
        }
        Ok(())
    }

    /// Answers a request: it succeeds, or it is refused with a reason.
    fn answer(&mut self, ask: usize, refused: Option<StreamCode>) -> Result<(), String> {
        let parent = self.asks[ask].parent;
        let wanted = parent
            .is_none_or(|parent| self.asks[parent].state == State::Looking && self.asks[parent].child == Some(ask));
        let Some(code) = refused else {
            self.asks[ask].state = State::Up;
            match (parent, wanted) {
                (_, false) => self.end(ask),
                (Some(parent), true) => return self.answer(parent, None),
                (None, true) => {
                    let mut gateways = 0;
                    let mut at = Some(ask);
                    while let Some(ask) = at {
                        gateways += u64::from(self.asks[ask].circuit.is_some());
                        at = self.asks[ask].child;
                    }
                    self.saw(match gateways {
                        0 => "it was the neighbour itself",
                        1 => "through one gateway",
                        2 => "through two gateways",
                        _ => "through more gateways",
                    });
                }
            }
            return Ok(());
        };
        self.saw(match code {
            StreamCode::RelayDenied => "relay denied",
            StreamCode::Loop => "loop",
            StreamCode::HopLimit => "hop limit",
            StreamCode::Overloaded => "overloaded",
            StreamCode::Unreachable => "unreachable",
            StreamCode::TimedOut => "timed out",
            _ => "broken",
        });
        if self.makes(Mistake::KeptCircuit) && self.asks[ask].circuit.take().is_some() {
            self.asks[ask].state = State::Over;
        }
        self.end(ask);
        match parent {
            Some(parent) if wanted && self.asks[parent].to_target && code != StreamCode::Broken => {
                self.answer(parent, Some(code))
            }
            Some(parent) if wanted => self.try_next(parent),
            _ => Ok(()),
        }
    }

    /// Ends a request and everything after it on its path.
    fn end(&mut self, ask: usize) {
        let asked = &mut self.asks[ask];
        asked.state = State::Over;
        let (at, child) = (asked.at, asked.child.take());
        if let Some(circuit) = asked.circuit.take() {
            self.nodes[at].circuits.ended(circuit);
        }
        if let Some(child) = child.filter(|_| !self.makes(Mistake::DeafToCancel)) {
            self.end(child);
        }
    }

    fn dies(&mut self, node: usize) -> Result<(), String> {
        self.saw("a node died");
        self.nodes[node].is_alive = false;
        for ask in 0..self.asks.len() {
            let Ask { from, at, state, parent, .. } = self.asks[ask];
            if state == State::Over || (from != node && at != node) {
                continue;
            }
            match (state, at == node) {
                // A request that this node had not answered is refused to its sender; an established circuit breaks in
                // both directions.
                (State::Looking, true) => self.answer(ask, Some(StreamCode::Broken))?,
                (State::Up, _) if parent.is_some() || at == node => {
                    let root = self.root(ask);
                    self.end(root);
                }
                _ => self.end(ask),
            }
        }
        Ok(())
    }

    /// Checks the invariants that hold at any time.
    fn check(&self) -> Result<(), String> {
        for (n, node) in self.nodes.iter().enumerate() {
            let held = self.asks.iter().filter(|ask| ask.at == n && ask.circuit.is_some()).count();
            if held != node.circuits.open() {
                return Err(format!("{} counts {} circuits and holds {held}", node.name, node.circuits.open()));
            }
        }
        let late = |ask: &&Ask| ask.state == State::Looking && self.now > ask.began + ONWARDS + TRANSFER;
        match self.asks.iter().find(late) {
            Some(ask) => Err(format!("a request to {} is still open after {:?}", ask.open.to, self.now - ask.began)),
            None => Ok(()),
        }
    }
}
