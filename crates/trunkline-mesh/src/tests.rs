//! Clusters of shipped state machines over a network and a clock of their own.

#![expect(clippy::disallowed_methods, reason = "a virtual clock needs one instant to start from")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use trunkline_route::{Address, NodeName};

use super::*;
use crate::message::Message;

mod faults;
mod leaves;

const MS: Duration = Duration::from_millis(1);

fn name(node: usize) -> NodeName {
    format!("n{node}@lab").parse().unwrap()
}

fn number(name: &NodeName) -> usize {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

fn at(node: usize) -> Address {
    Address::new(format!("10.0.{}.{}", node / 256, node % 256), 9932).unwrap()
}

fn node_at(address: &Address) -> usize {
    let ip: Vec<usize> = address.host.as_str().split('.').map(|part| part.parse().unwrap()).collect();
    ip[2] * 256 + ip[3]
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A node looks at its timer.
    Timer(usize),
    Learn {
        by: usize,
        life: u32,
        route: Address,
    },
    Dial {
        by: usize,
        life: u32,
        to: usize,
    },
    Message {
        from: usize,
        to: usize,
        lives: (u32, u32),
        bytes: Vec<u8>,
    },
    /// The connection of a life that ended is noticed.
    Lost {
        by: usize,
        life: u32,
        of: usize,
        old: u32,
    },
}

struct Node {
    mesh: Mesh,
    routes: Vec<Address>,
    life: u32,
    is_alive: bool,
    /// Neighbours and the lives that they have.
    links: BTreeMap<usize, u32>,
}

struct World {
    start: Instant,
    now: Duration,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    next: u64,
    /// Pairs that cannot dial each other.
    apart: BTreeSet<(usize, usize)>,
    hidden: BTreeSet<usize>,
    leaves: BTreeSet<usize>,
    dials: usize,
    asked: usize,
    messages: usize,
    bytes: usize,
    seed: u64,
    /// Share of messages that are lost.
    loss: f64,
    rng: fastrand::Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            next: 0,
            apart: BTreeSet::new(),
            hidden: BTreeSet::new(),
            leaves: BTreeSet::new(),
            dials: 0,
            asked: 0,
            messages: 0,
            bytes: 0,
            seed,
            loss: 0.0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns a cluster whose nodes have one route, to the first one, and are connected to each other.
    #[track_caller]
    fn star(size: usize) -> Self {
        let mut world = Self::new(1);
        world.add(&[]);
        for _ in 1..size {
            world.add(&[0]);
        }
        world.until_full(Duration::from_secs(1));
        world
    }

    fn clock(&self) -> Instant {
        self.start + self.now
    }

    fn mesh(&self, node: usize, life: u32, cluster: &str) -> Mesh {
        let mut incarnation = [0; 16];
        incarnation[..8].copy_from_slice(&(node as u64).to_be_bytes());
        incarnation[8..12].copy_from_slice(&life.to_be_bytes());
        let settings = Settings {
            cluster: cluster.into(),
            name: name(node),
            incarnation: incarnation.into(),
            endpoints: vec![at(node)],
            is_hidden: self.hidden.contains(&node),
            is_leaf: self.leaves.contains(&node),
            seed: self.seed ^ (node as u64) << 20 ^ u64::from(life),
        };
        Mesh::new(settings, self.clock()).unwrap()
    }

    /// Adds a node with routes to others, which runs from now on.
    fn add(&mut self, routes: &[usize]) -> usize {
        self.add_to("lab", routes)
    }

    fn add_to(&mut self, cluster: &str, routes: &[usize]) -> usize {
        let node = self.nodes.len();
        let mesh = self.mesh(node, 0, cluster);
        let routes = routes.iter().map(|to| at(*to)).collect();
        self.nodes.push(Node { mesh, routes, life: 0, is_alive: true, links: BTreeMap::new() });
        self.begin(node);
        node
    }

    fn begin(&mut self, node: usize) {
        let (now, routes) = (self.clock(), self.nodes[node].routes.clone());
        self.nodes[node].mesh.set_routes(now, routes);
        self.drive(node);
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + delay, self.next, event)));
    }

    fn drive(&mut self, node: usize) {
        let now = self.clock();
        let life = self.nodes[node].life;
        while let Some(output) = self.nodes[node].mesh.poll(now) {
            match output {
                Output::Dial(to) | Output::DialDirectly(to) => {
                    self.dials += 1;
                    self.after(MS, Event::Dial { by: node, life, to: number(&to) });
                }
                Output::Learn(route) => {
                    self.asked += 1;
                    self.after(MS, Event::Learn { by: node, life, route });
                }
                Output::Send { to, message } => {
                    let to = number(&to);
                    if let Some(their) = self.nodes[node].links.get(&to) {
                        self.messages += 1;
                        self.bytes += message.len();
                        let lives = (life, *their);
                        if self.rng.f64() < self.loss {
                            continue;
                        }
                        self.after(MS, Event::Message { from: node, to, lives, bytes: message });
                    }
                }
            }
        }
        let next = self.nodes[node].mesh.next_time();
        // A look at all nodes takes long.
        if self.nodes.len() <= 20 && self.next.is_multiple_of(16) {
            self.nodes[node].mesh.check();
        }
        assert!(next > now, "node {node} has nothing to do and wants to be asked at once");
        self.after(next - now, Event::Timer(node));
    }

    fn can_dial(&self, a: usize, b: usize) -> bool {
        b < self.nodes.len() && self.nodes[b].is_alive && !self.apart.contains(&(a.min(b), a.max(b)))
    }

    fn up(&mut self, a: usize, b: usize) {
        let lives = (self.nodes[a].life, self.nodes[b].life);
        if self.nodes[a].links.get(&b) == Some(&lives.1) {
            return;
        }
        let now = self.clock();
        self.nodes[a].links.insert(b, lives.1);
        self.nodes[b].links.insert(a, lives.0);
        self.nodes[a].mesh.up(now, &name(b), Way::Direct);
        self.nodes[b].mesh.up(now, &name(a), Way::Direct);
        self.drive(b);
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock();
        match event {
            Event::Timer(node) => {
                if self.nodes[node].is_alive && self.nodes[node].mesh.next_time() <= now {
                    self.drive(node);
                }
            }
            Event::Learn { by, life, route } if self.is_life(by, life) => {
                let there = node_at(&route);
                let found = if there == by || self.can_dial(by, there) {
                    Ok(vec![(name(there), route.clone())])
                } else {
                    Err("refused".into())
                };
                self.nodes[by].mesh.learnt(now, &route, found);
                self.drive(by);
            }
            Event::Dial { by, life, to } if self.is_life(by, life) => {
                let result = if self.can_dial(by, to) { Ok(()) } else { Err("refused".into()) };
                if result.is_ok() {
                    self.up(by, to);
                }
                self.nodes[by].mesh.dialled(now, &name(to), result);
                self.drive(by);
            }
            Event::Message { from, to, lives, bytes } if self.is_life(to, lives.1) => {
                let is_cut = self.apart.contains(&(from.min(to), from.max(to)));
                if !is_cut && self.nodes[to].links.get(&from) == Some(&lives.0) {
                    let _ = self.nodes[to].mesh.message(now, &name(from), &bytes);
                    self.drive(to);
                }
            }
            Event::Lost { by, life, of, old } if self.is_life(by, life) => {
                if self.nodes[by].links.get(&of) == Some(&old) {
                    self.nodes[by].links.remove(&of);
                    self.nodes[by].mesh.down(now, &name(of), false);
                    self.drive(by);
                }
            }
            Event::Learn { .. } | Event::Dial { .. } | Event::Message { .. } | Event::Lost { .. } => {}
        }
    }

    fn is_life(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_alive && self.nodes[node].life == life
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
        let old = self.nodes[node].life;
        for neighbour in std::mem::take(&mut self.nodes[node].links).into_keys() {
            let life = self.nodes[neighbour].life;
            self.after(3 * MS, Event::Lost { by: neighbour, life, of: node, old });
        }
    }

    /// Starts a node again with its peer book.
    fn restart_with_book(&mut self, node: usize, away: Duration) {
        let known = self.nodes[node].mesh.known(self.clock());
        let known = known.into_iter().map(|known| Known { lost_for: known.lost_for + away, ..known });
        self.restart(node);
        let now = self.clock();
        self.nodes[node].mesh.remember(now, known);
        self.drive(node);
    }

    /// Starts a node again: it remembers nothing but its routes.
    fn restart(&mut self, node: usize) {
        let life = self.nodes[node].life + 1;
        let mesh = self.mesh(node, life, "lab");
        let node_state = &mut self.nodes[node];
        (node_state.mesh, node_state.life, node_state.is_alive) = (mesh, life, true);
        self.begin(node);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((due, ..))) = self.queue.peek().filter(|Reverse((due, ..))| *due <= end) {
            self.now = *due;
            let Some(Reverse((_, _, event))) = self.queue.pop() else { return };
            self.handle(event);
        }
        self.now = end;
    }

    /// Returns true if each living node but leaves is connected to each other one, and both know it as a member.
    fn is_full(&self) -> bool {
        self.missing(0).is_none()
    }

    /// Returns a living node, and another one that it does not know as a connected member. Looks at this node and those
    /// after it first.
    fn missing(&self, first: usize) -> Option<(usize, usize)> {
        let takes_part = |node: &usize| self.nodes[*node].is_alive && !self.leaves.contains(node);
        let alive: Vec<usize> = (0..self.nodes.len()).filter(takes_part).collect();
        let lacks = |a: usize| alive.iter().copied().find(|b| a != *b && !self.knows(a, *b)).map(|b| (a, b));
        let (before, after): (Vec<usize>, Vec<usize>) = alive.iter().partition(|node| **node < first);
        after.into_iter().chain(before).find_map(lacks)
    }

    fn knows(&self, a: usize, b: usize) -> bool {
        self.nodes[a].mesh.is_neighbour(&name(b))
    }

    /// Runs until the mesh is full and returns how long that took.
    #[track_caller]
    fn until_full(&mut self, limit: Duration) -> Duration {
        let began = self.now;
        let mut missing = self.missing(0);
        while let Some((a, b)) = missing {
            let taken = self.now - began;
            assert!(
                taken < limit,
                "seed {}, after {taken:?}: {:#?}",
                self.seed,
                self.nodes.iter().map(|n| n.mesh.neighbours()).collect::<Vec<_>>()
            );
            self.run_for(MS);
            // A look at all pairs is only worth it when the one that was missing is there.
            if self.knows(a, b) {
                missing = self.missing(a);
            }
        }
        self.now - began
    }
}

#[test]
fn one_node_with_all_the_routes_ties_the_others_together() {
    for size in [3, 4, 5, 20] {
        let mut world = World::new(1);
        for _ in 1..size {
            world.add(&[]);
        }
        world.add(&(0..size - 1).collect::<Vec<_>>());
        let took = world.until_full(Duration::from_secs(1));
        assert!(took < 30 * MS, "{size} nodes took {took:?}");
    }
}

#[test]
fn a_chain_that_starts_at_once_is_a_mesh_within_200_ms() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        // Each has a route to a node that does not run yet.
        for node in 0..5 {
            world.add(&[node + 1]);
        }
        world.add(&[]);
        let took = world.until_full(Duration::from_secs(1));
        assert!(took < 200 * MS, "{took:?}");
    }
}

#[test]
fn a_node_that_knows_one_ordinary_member_joins_the_whole() {
    let mut world = World::star(4);
    world.add(&[3]);
    let took = world.until_full(Duration::from_secs(1));
    assert!(took < 15 * MS, "{took:?}");
}

#[test]
fn the_double_fault_of_the_three_nodes_heals() {
    let mut world = World::new(1);
    for _ in 0..2 {
        world.add(&[]);
    }
    let holder = world.add(&[0, 1]);
    world.until_full(Duration::from_secs(1));
    world.kill(holder);
    world.run_for(Duration::from_secs(1));
    assert!(world.is_full(), "the others still talk");
    // The one that comes back has no route and knows nobody: the other one redials it.
    world.kill(0);
    world.run_for(Duration::from_secs(60));
    world.restart(0);
    let took = world.until_full(Duration::from_secs(31));
    assert!(took <= Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_node_that_comes_back_finds_the_others_by_its_book_when_the_seed_is_gone() {
    for (away, finds) in [(Duration::from_secs(3600), true), (FORGOTTEN_AFTER, false)] {
        let mut world = World::star(3);
        world.kill(0);
        world.kill(1);
        world.kill(2);
        world.run_for(Duration::from_secs(1));
        // The second one knows nobody any more, and the third one has its book and a route to a seed that is gone.
        world.restart(1);
        world.restart_with_book(2, away);
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.is_full(), finds, "away for {away:?}");
    }
}

#[test]
fn a_member_without_a_connection_for_seven_days_is_forgotten() {
    let mut world = World::star(2);
    world.nodes[0].mesh.takes_news();
    world.kill(1);
    world.run_for(FORGOTTEN_AFTER - Duration::from_secs(60));
    assert_eq!(world.nodes[0].mesh.known(world.clock()).len(), 1);
    assert!(!world.nodes[0].mesh.takes_news());
    world.run_for(Duration::from_secs(120));
    assert!(world.nodes[0].mesh.known(world.clock()).is_empty() && world.nodes[0].mesh.takes_news());
}

#[test]
fn a_member_of_another_cluster_is_no_member() {
    let mut world = World::new(1);
    world.add(&[]);
    world.add_to("other", &[0]);
    world.run_for(Duration::from_secs(5));
    for (node, other) in [(0, "other"), (1, "lab")] {
        let peers = world.nodes[node].mesh.peers(world.clock());
        assert!(world.nodes[node].mesh.neighbours().is_empty());
        assert_eq!((peers.len(), peers[0].other_cluster.as_deref(), peers[0].is_up), (1, Some(other), false));
    }
}

#[test]
fn a_hidden_node_is_connected_to_all_and_told_to_nobody() {
    let mut world = World::new(1);
    world.hidden.insert(3);
    for node in 0..3 {
        world.add(if node == 0 { &[] } else { &[0] });
    }
    world.add(&[1]);
    world.until_full(Duration::from_secs(1));
    // A fifth node that cannot be dialled by the hidden one never hears of it.
    world.apart.insert((3, 4));
    world.add(&[0]);
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.nodes[4].mesh.neighbours(), [name(0), name(1), name(2)]);
    assert!(world.nodes[4].mesh.peers(world.clock()).iter().all(|peer| peer.name != name(3)));
}

#[test]
fn a_route_to_the_node_itself_dials_nobody_and_is_asked_again_slowly() {
    let mut world = World::new(1);
    world.add(&[0]);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[0].mesh.routes(world.clock())[0].names, [name(0)]);
    assert_eq!(world.dials, 0);
    let next = world.nodes[0].mesh.routes(world.clock())[0].next_attempt.unwrap();
    assert!(next <= Duration::from_secs(30));
    assert!(world.asked < 15, "{}", world.asked);
}

#[test]
fn a_member_that_invents_a_million_names_fills_no_book_and_causes_a_bounded_number_of_dials() {
    let mut world = World::star(2);
    let dials = world.dials;
    for batch in 0..5_000 {
        let records = (0..200).map(|n| Record {
            name: name(1_000 + batch * 200 + n),
            incarnation: [9; 16].into(),
            endpoints: vec![at(60_000)],
            is_leaf: false,
        });
        let bytes = Message::Peers(records.collect()).encode();
        let now = world.clock();
        // Nothing is dialled meanwhile.
        world.now += 500 * MS;
        world.nodes[0].mesh.message(now, &name(1), &bytes).unwrap();
    }
    assert!(world.nodes[0].mesh.peers(world.clock()).len() <= MAX_UNPROVEN + 1);
    world.run_for(Duration::from_secs(3_000));
    assert!(world.dials - dials <= MAX_UNPROVEN * MAX_DIALS_UNPROVEN as usize, "{} dials", world.dials - dials);
    assert_eq!(world.nodes[0].mesh.peers(world.clock()).len(), 1, "all are given up");
    // They were told to nobody, and an honest member is let in.
    world.add(&[1]);
    world.until_full(Duration::from_secs(1));
    assert_eq!(world.nodes[2].mesh.peers(world.clock()).len(), 2);
}

#[test]
fn a_member_that_floods_is_read_200_times_at_once_and_then_20_times_a_second_for_1_kib_of_message_each() {
    let mut world = World::star(2);
    let flood = |world: &mut World, records: usize| {
        world.run_for(Duration::from_secs(10));
        let record =
            Record { name: name(60_000), incarnation: [9; 16].into(), endpoints: vec![at(60_000)], is_leaf: false };
        let bytes = Message::Peers(vec![record; records]).encode();
        let mut read = 0;
        for _ in 0..10_000 {
            let now = world.clock();
            let taken = world.nodes[0].mesh.message(now, &name(1), &bytes);
            assert!(matches!(taken, Ok(()) | Err(MessageError::TooOften)), "{taken:?}");
            read += usize::from(taken.is_ok());
            world.now += MS;
        }
        (bytes.len(), read)
    };
    let (bytes, read) = flood(&mut world, 1);
    assert!(bytes < 1024 && (398..=401).contains(&read), "{read} in 10 s");
    let (bytes, read) = flood(&mut world, 80);
    assert!((3 * 1024..4 * 1024).contains(&bytes) && (98..=101).contains(&read), "{read} of {bytes} bytes in 10 s");
    // Another member is read meanwhile.
    world.add(&[0]);
    world.until_full(Duration::from_secs(5));
}

#[test]
fn a_member_that_is_told_of_many_connects_to_all_at_once_since_only_dials_that_fail_are_bounded() {
    let mut world = World::star(2);
    let records = |from: usize| {
        let records = (from..from + 200).map(|n| Record {
            name: name(1_000 + n),
            incarnation: [9; 16].into(),
            endpoints: vec![at(60_000)],
            is_leaf: false,
        });
        Message::Peers(records.collect()).encode()
    };
    let now = world.clock();
    for batch in 0..4 {
        world.nodes[0].mesh.message(now, &name(1), &records(200 * batch)).unwrap();
    }
    let (mesh, later) = (&mut world.nodes[0].mesh, now + Duration::from_secs(1));
    let mut dials = 0;
    while let Some(output) = mesh.poll(later) {
        if let Output::Dial(to) = output {
            dials += 1;
            mesh.up(later, &to, Way::Direct);
            mesh.dialled(later, &to, Ok(()));
        }
    }
    assert_eq!(dials, 800);
}

#[test]
fn a_member_that_tells_new_names_all_the_time_holds_up_no_redial_of_a_lost_one() {
    let mut world = World::star(3);
    world.kill(2);
    let flood = |world: &mut World, batch: usize| {
        let records = (0..200).map(|n| Record {
            name: name(1_000 + batch * 200 + n),
            incarnation: [9; 16].into(),
            endpoints: vec![at(60_000)],
            is_leaf: false,
        });
        let (now, bytes) = (world.clock(), Message::Peers(records.collect()).encode());
        world.nodes[0].mesh.message(now, &name(1), &bytes).unwrap();
        world.drive(0);
    };
    let dials = world.dials;
    for batch in 0..120 {
        flood(&mut world, batch);
        world.run_for(500 * MS);
    }
    // At once 200, then 4 in a second for a minute; the lost one takes its share.
    let dials = world.dials - dials;
    assert!((400..200 + 4 * 60 + 40).contains(&dials), "{dials}");
    world.restart(2);
    let began = world.now;
    while !world.nodes[0].mesh.neighbours().contains(&name(2)) {
        assert!(world.now - began < Duration::from_secs(31));
        world.run_for(10 * MS);
    }
}

#[test]
fn connections_that_are_told_in_the_wrong_order_are_put_right() {
    let mut world = World::star(2);
    // The end of an older connection is told after the beginning of the one that is up.
    let now = world.clock();
    world.nodes[0].mesh.down(now, &name(1), false);
    world.drive(0);
    world.run_for(Duration::from_secs(2));
    assert!(world.dials < 20, "{} dials", world.dials);
    let connected = BTreeMap::from([(name(1), Way::Direct)]);
    for _ in 0..2 {
        let now = world.clock();
        world.nodes[0].mesh.reconcile(now, &connected);
        world.drive(0);
    }
    world.run_for(Duration::from_secs(1));
    assert!(world.is_full());
    // A look that sees no connection where one is known, twice.
    for _ in 0..2 {
        let now = world.clock();
        world.nodes[0].mesh.reconcile(now, &BTreeMap::new());
    }
    assert!(world.nodes[0].mesh.neighbours().is_empty());
}

#[test]
fn a_member_that_is_connected_through_others_is_dialled_directly_from_time_to_time() {
    let mut world = World::star(2);
    let dials = world.dials;
    let look = |world: &mut World, way: Way| {
        let now = world.clock();
        world.nodes[0].mesh.reconcile(now, &BTreeMap::from([(name(1), way)]));
        while let Some(output) = world.nodes[0].mesh.poll(now) {
            if let Output::DialDirectly(to) = output {
                world.dials += 1;
                world.nodes[0].mesh.dialled(now, &to, Err("refused".into()));
            }
        }
        world.now += 100 * MS;
    };
    for _ in 0..1_200 {
        look(&mut world, Way::ThroughOthers);
    }
    // In two minutes after 0.4 to 0.8 s, and after pauses that double up to 30 s.
    assert!((8..=13).contains(&(world.dials - dials)), "{} dials", world.dials - dials);
    // The dial that made the connection ends after it is up; the connection goes through others still.
    let now = world.clock();
    world.nodes[0].mesh.up(now, &name(1), Way::ThroughOthers);
    world.nodes[0].mesh.dialled(now, &name(1), Ok(()));
    let status = world.nodes[0].mesh.peer(now, &name(1)).unwrap();
    assert!(status.is_up || status.up_for.is_some());
    while world.nodes[0].mesh.poll(now).is_some() {}
    let began = world.now;
    while !matches!(world.nodes[0].mesh.poll(world.start + world.now), Some(Output::DialDirectly(_))) {
        assert!(world.now - began < Duration::from_secs(1), "the first direct dial comes within 800 ms");
        world.now += 10 * MS;
    }
    let now = world.clock();
    world.nodes[0].mesh.dialled(now, &name(1), Ok(()));
    let dials = world.dials;
    for _ in 0..1_200 {
        look(&mut world, Way::Direct);
    }
    assert_eq!(world.dials, dials, "it is connected directly");
}

#[test]
fn a_member_that_somebody_disconnected_is_not_dialled_again() {
    let mut world = World::star(2);
    let (now, dials) = (world.clock(), world.dials);
    for (node, other) in [(0, 1), (1, 0)] {
        world.nodes[node].links.clear();
        world.nodes[node].mesh.down(now, &name(other), true);
        world.nodes[node].mesh.set_routes(now, []);
        world.drive(node);
    }
    world.run_for(Duration::from_secs(120));
    assert_eq!(world.dials, dials);
}

#[test]
fn a_name_that_was_given_up_is_not_dialled_again_however_often_it_is_told() {
    let mut world = World::star(2);
    let before = world.dials;
    let record =
        Record { name: name(60_000), incarnation: [9; 16].into(), endpoints: vec![at(60_000)], is_leaf: false };
    let bytes = Message::Peers(vec![record]).encode();
    for _ in 0..500 {
        let now = world.clock();
        world.nodes[0].mesh.message(now, &name(1), &bytes).unwrap();
        world.drive(0);
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(world.dials - before, MAX_DIALS_UNPROVEN as usize);
    world.run_for(Duration::from_secs(700));
    assert_eq!(world.nodes[0].mesh.peers(world.clock()).len(), 1, "it is forgotten");
}

#[test]
fn members_that_told_of_another_one_are_the_gateways_to_it() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.add(&[]);
    }
    world.apart.insert((1, 2));
    world.add(&[0, 1, 2]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[1].mesh.neighbours(), [name(0), name(3)]);
    // The two that are connected to it said so; the last one that did comes first.
    let mut gateways = world.nodes[1].mesh.gateways(&name(2));
    gateways.sort();
    assert_eq!(gateways, [name(0), name(3)]);
    world.kill(3);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.nodes[1].mesh.gateways(&name(2)), [name(0)]);
    assert!(world.nodes[1].mesh.gateways(&name(7)).is_empty(), "nobody knows it");
}

#[test]
fn a_member_cannot_move_another_one_to_an_address_of_its_choice() {
    let mut world = World::star(3);
    let forged = Record { name: name(2), incarnation: [9; 16].into(), endpoints: vec![at(7)], is_leaf: false };
    let bytes = Message::Peers(vec![forged.clone()]).encode();
    let now = world.clock();
    world.nodes[0].mesh.message(now, &name(1), &bytes).unwrap();
    assert_eq!(world.nodes[0].mesh.addresses(&name(2)), [at(2)]);
    // Once it is gone, what it said of itself still comes first.
    world.kill(2);
    world.run_for(100 * MS);
    let now = world.clock();
    world.nodes[0].mesh.message(now, &name(1), &bytes).unwrap();
    assert_eq!(world.nodes[0].mesh.addresses(&name(2)), [at(2), at(7)]);
    // Nobody speaks for somebody else.
    let hello =
        Message::Hello { cluster: "lab".into(), own: forged, is_hidden: false, is_first: true, known: vec![] }.encode();
    assert_eq!(world.nodes[0].mesh.message(now, &name(1), &hello), Err(MessageError::NotItself(name(2))));
}

#[test]
fn a_member_that_is_forgotten_stays_so_at_all_although_one_that_was_away_tells_of_it() {
    let mut world = World::star(5);
    let now = world.clock();
    let connected = Err(ForgetError::Connected(name(4)));
    assert_eq!(world.nodes[0].mesh.forget(now, &name(4)), connected);
    assert_eq!(world.nodes[0].mesh.forget(now, &name(9)), Err(ForgetError::Unknown(name(9))));
    for gone in [3, 4] {
        world.kill(gone);
    }
    world.run_for(Duration::from_secs(1));
    let now = world.clock();
    world.nodes[0].mesh.forget(now, &name(4)).unwrap();
    world.drive(0);
    world.run_for(Duration::from_secs(1));
    let knows = |world: &World, node: usize| {
        world.nodes[node].mesh.peers(world.clock()).iter().any(|peer| peer.name == name(4))
    };
    assert_eq!([0, 1, 2].map(|node| knows(&world, node)), [false; 3]);
    // The one that was away has the member in its book, tells of it, and is told to forget it.
    world.restart_with_book(3, Duration::from_secs(60));
    world.until_full(Duration::from_secs(5));
    world.run_for(Duration::from_secs(60));
    assert_eq!([0, 1, 2, 3].map(|node| knows(&world, node)), [false; 4]);
    // It comes back as another instance, and is a member of all.
    world.restart(4);
    world.until_full(Duration::from_secs(5));
}

#[test]
fn only_a_member_has_another_one_forgotten_or_asks_for_the_view_of_a_node() {
    let mut world = World::star(3);
    world.kill(2);
    world.run_for(Duration::from_secs(1));
    let (now, stranger) = (world.clock(), name(7));
    let forget = |life: u8| {
        let mut incarnation = [0; 16];
        (incarnation[7], incarnation[11]) = (2, life);
        Message::Forget { name: name(2), incarnation: incarnation.into() }.encode()
    };
    let mesh = &mut world.nodes[0].mesh;
    assert_eq!(mesh.message(now, &stranger, &forget(0)), Err(MessageError::NoMember));
    // One that is connected, and the node itself are kept; one that is not known is not passed on.
    while mesh.poll(now).is_some() {}
    for kept in [1, 0, 9] {
        let forget = Message::Forget { name: name(kept), incarnation: [0; 16].into() }.encode();
        mesh.message(now, &name(1), &forget).unwrap();
    }
    assert_eq!((mesh.peers(now).len(), mesh.neighbours(), mesh.poll(now)), (2, vec![name(1)], None));
    mesh.message(now, &name(1), &forget(0)).unwrap();
    assert_eq!(mesh.peers(now).len(), 1);

    let ask = Message::Ask.encode();
    assert_eq!(mesh.answer(now, &stranger, &ask), Err(MessageError::NoMember));
    assert_eq!(mesh.answer(now, &name(1), &forget(0)), Err(MessageError::Unreadable));
    let view = View { connected: vec![name(1)], routes: Vec::new() };
    assert_eq!(mesh.answer(now, &name(1), &ask), Ok(Message::View(view).encode()));
    assert_eq!(mesh.message(now, &name(1), &ask), Err(MessageError::Unreadable));
    // Calls count among the messages that are read.
    let refused = (0..200).find_map(|_| mesh.answer(now, &name(1), &ask).err());
    assert_eq!(refused, Some(MessageError::TooOften));
}

/// The figures are in the description of clusters.
#[test]
fn a_node_forms_a_cluster_of_n_with_6_n_messages_and_10_n_squared_bytes() {
    for size in [8, 50, 100] {
        let mut world = World::new(3);
        world.add(&[]);
        for _ in 1..size {
            world.add(&[0]);
        }
        let took = world.until_full(Duration::from_secs(1));
        let (messages, bytes) = (world.messages / size, world.bytes / size);
        println!("{size} nodes: {took:?}, {messages} messages and {bytes} bytes for each node");
        assert!(messages <= 6 * size, "{messages} messages");
        assert!(bytes <= 10 * size * size + 200 * size, "{bytes} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any kills and restarts, in any order: when all run and everybody was in the cluster once, all are connected
    /// within the longest pause.
    #[test]
    fn any_sequence_of_kills_and_restarts_heals(
        seed in any::<u64>(),
        parents in prop::collection::vec(any::<prop::sample::Index>(), 7),
        faults in prop::collection::vec((0usize..8, 0u64..3_000), 0..20),
    ) {
        let mut world = World::new(seed);
        world.add(&[]);
        for (n, parent) in parents.iter().enumerate() {
            world.add(&[parent.index(n + 1)]);
        }
        world.until_full(Duration::from_secs(5));
        for (node, pause) in faults {
            // One node stays, as the memory of the cluster: there is no book on disk here.
            match world.nodes[node].is_alive {
                true if node != 0 => world.kill(node),
                true => {}
                false => world.restart(node),
            }
            world.run_for(Duration::from_millis(pause));
        }
        for node in 0..8 {
            if !world.nodes[node].is_alive {
                world.restart(node);
            }
        }
        world.until_full(Duration::from_secs(31));
    }
}
