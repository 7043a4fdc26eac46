//! The clock, the queue of events, and a history from a seed to its end.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use trunkline_dial::keep::Better;
use trunkline_dial::plan::OpId;
use trunkline_dial::sessions;
use trunkline_route::NodeName;

use super::faults::{Counts, Fault};
use super::invariants::{self, Violation};
use super::ledger::Ledger;
use super::links::Ending;
use super::net::{ConnId, DEAD_AFTER, Frame, MS, Micros, Net, Packet, SEC, Side};
use super::node::{Entry, Life, Node, Want};
use super::rng::Rng;
use super::script::{self, Action, RouteSpecs};

/// More events than any history of this length needs; beyond it something goes round in circles.
const MAX_EVENTS: usize = 200_000;
/// What every history suffers at least.
pub const MIN_FAULTS: u64 = 50;
/// How long a caller waits.
pub const BUDGET: Micros = 20 * SEC;
/// What a caller's answer may be late.
pub const TICK: Micros = 10 * MS;

/// What is run besides the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Compare every decision with the reference table.
    pub table: bool,
    /// An attempt that finds another attempt of its own flight ahead ends the whole lookup.
    pub loser_ends_lookup: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { table: true, loser_ends_lookup: false }
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection request reaches the listener.
    Arrive(ConnId),
    /// It was let in.
    Connected(ConnId),
    /// It was not.
    Refused(ConnId),
    /// A packet arrives.
    Deliver {
        /// Over this.
        conn: ConnId,
        /// At this end.
        to: Side,
        /// What.
        packet: Packet,
    },
    /// An end learns that its connection broke.
    Told(ConnId, Side),
    /// A timer of a life runs out.
    Timer(Life, Timer),
    /// The script goes on.
    Act(Action),
    /// A host that was down starts anew.
    Start(usize),
}

/// What a node set a timer for.
#[derive(Debug, Clone)]
pub enum Timer {
    /// The plan of a flight wants to be polled.
    Plan(NodeName, u64),
    /// The resolver's answer, for this dial of the flight.
    Resolved(NodeName, (u64, u32), OpId),
    /// The answer of DNS, for this dial of the flight.
    LookedUp(NodeName, (u64, u32), OpId, String),
    /// No connection in time.
    Tcp(ConnId),
    /// No handshake in time, at the end that dialled.
    Handshake(ConnId),
    /// No handshake in time, at the listener.
    Answer(ConnId),
    /// The link this caller speaks of is up or down by now.
    Settled(ConnId),
    /// It is neither, after so long.
    Unsettled(ConnId),
    /// The replaced link's peer did not hear of the new one in time.
    Unheard(ConnId),
    /// This link did not answer in time for the caller of this connection.
    Challenge(ConnId, ConnId),
    /// No first frame in time.
    Provisional(ConnId),
    /// The old link did not end in time.
    Hold(ConnId),
    /// The drain takes too long.
    Drain(ConnId),
    /// No adopted link in time, for this flight.
    Adopt(NodeName, u64),
    /// An inbound link makes the dial needless.
    Overtaken(NodeName, u64),
    /// A caller's budget is used up.
    Caller(usize),
    /// A flight without callers is dropped.
    Abort(NodeName, u64),
    /// A kept connection is dialled again.
    Redial(NodeName),
    /// The routes better than a connection's are probed.
    Probe(NodeName),
}

/// A machine with a name, on which lives of a node follow each other.
pub struct Host {
    /// The name of its node.
    pub name: NodeName,
    /// The how-many-eth life.
    pub life: u32,
    /// The node, if it is up.
    pub node: Option<Node>,
    /// What its table holds, by target.
    pub routes: BTreeMap<NodeName, RouteSpecs>,
}

/// What a connection is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A program that will send so many messages.
    Program(u64),
    /// It went down and is kept.
    Keep,
    /// It goes back to this route.
    GoBack(Better),
}

/// Somebody who wants a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose program.
    pub who: Life,
    /// To whom.
    pub peer: NodeName,
    /// What it demands of the link.
    pub want: Want,
    /// What for.
    pub purpose: Purpose,
    /// When it asked.
    pub began: Micros,
    /// The shipped caller.
    pub caller: sessions::Caller,
    /// When it got what.
    pub answer: Option<(Micros, Result<ConnId, String>)>,
}

/// What a history came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The numbers.
    pub counts: Counts,
    /// Events handled.
    pub events: usize,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// The trace, if one was asked for.
    pub trace: Vec<String>,
}

/// The whole world.
pub struct World {
    /// What is run.
    pub config: Config,
    /// The clock.
    pub now: Micros,
    /// Chance.
    pub rng: Rng,
    /// The network.
    pub net: Net,
    /// The machines.
    pub hosts: Vec<Host>,
    /// The books.
    pub ledger: Ledger,
    /// Every program that asked for a connection.
    pub callers: Vec<Caller>,
    /// The numbers.
    pub counts: Counts,
    /// No more faults.
    pub calm: bool,
    /// When that began.
    pub calmed: Micros,
    /// Nothing is done unasked any more, so that the world comes to rest.
    pub frozen: bool,
    /// When that began.
    pub froze: Micros,
    /// Two hosts have one name.
    pub twins: bool,
    /// The second addresses of hosts are this much slower.
    pub slow: Micros,
    calm_since: Micros,
    queue: BTreeMap<(Micros, u64), Event>,
    scheduled: u64,
    violation: Option<Violation>,
    trace: Option<Vec<String>>,
}

/// Runs the history of a seed.
pub fn run(seed: u64, config: Config, trace: bool) -> Outcome {
    let mut world = World::new(seed, config, trace);
    let events = world.history();
    Outcome { counts: world.counts, events, violation: world.violation, trace: world.trace.unwrap_or_default() }
}

/// The real instant of a virtual time.
#[expect(clippy::disallowed_methods, reason = "one base instant; every other is this one and virtual time")]
pub fn at(time: Micros) -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now) + Duration::from_micros(time)
}

/// The virtual time of an instant made by [`at`], rounded up.
pub fn micros(instant: Instant) -> Micros {
    instant.saturating_duration_since(at(0)).as_nanos().div_ceil(1000) as Micros
}

impl World {
    fn new(seed: u64, config: Config, trace: bool) -> Self {
        let mut world = Self {
            config,
            now: 0,
            rng: Rng::new(seed),
            net: Net::default(),
            hosts: Vec::new(),
            ledger: Ledger::default(),
            callers: Vec::new(),
            counts: Counts::default(),
            calm: false,
            calmed: 0,
            frozen: false,
            froze: 0,
            twins: false,
            slow: 0,
            calm_since: Micros::MAX,
            queue: BTreeMap::new(),
            scheduled: 0,
            violation: None,
            trace: trace.then(Vec::new),
        };
        script::prepare(&mut world);
        world
    }

    fn history(&mut self) -> usize {
        let mut events = self.drain(0);
        if self.violation.is_none() {
            self.at_rest();
            if !self.twins {
                self.check(invariants::invariant_k_kept_connections_are_up);
                self.check(invariants::invariant_l_nobody_stays_on_a_standby);
            }
            self.check(invariants::invariant_enough_befell);
            script::probe(self);
            events = self.drain(events);
        }
        if self.violation.is_none() {
            self.at_rest();
            if !self.twins {
                self.check(invariants::invariant_calm_dials_succeed);
            }
            script::last_words(self);
            events = self.drain(events);
            self.check(invariants::invariant_d_nothing_lost_in_silence);
            self.check(invariants::invariant_j_all_settled);
            self.count_losses();
        }
        events
    }

    fn count_losses(&mut self) {
        let lost: Vec<_> = self.ledger.messages.values().filter(|sent| sent.arrived == 0).cloned().collect();
        for sent in lost {
            let what = match (self.ledger.errors.contains(&(sent.from, sent.conn)), self.lives(sent.from)) {
                (_, false) => "messages lost with their sender",
                (true, true) if self.ledger.replaced.contains_key(&sent.conn) => {
                    "messages lost on a replaced link that broke"
                }
                (true, true) => "messages lost with an error",
                (false, true) if !self.lives(sent.to) => "messages lost with their receiver, link drained",
                (false, true) => "messages lost as a drained link broke",
            };
            self.say(|| format!("{what}: {sent:?}"));
            self.counts.note(what);
        }
    }

    fn drain(&mut self, mut events: usize) -> usize {
        while let Some(((time, _), event)) = self.queue.pop_first() {
            self.now = time;
            self.handle(event);
            events += 1;
            if events > MAX_EVENTS {
                self.violated("the world comes to rest", format!("{MAX_EVENTS} events"));
            }
            if self.violation.is_some() {
                break;
            }
        }
        events
    }

    /// When everything had come to rest after the last fault.
    pub fn calm_since(&self) -> Micros {
        self.calm_since
    }

    /// Everything has come to rest; what is asked from now on must succeed.
    pub fn begin_calm(&mut self) {
        // Later than anything that was answered, and after every partition.
        self.now += 20 * SEC;
        self.calm_since = self.now;
    }

    fn at_rest(&mut self) {
        self.check(invariants::invariant_a_both_ends_or_neither);
        self.check(invariants::invariant_d_nothing_lost_in_silence);
        self.check(invariants::invariant_e_every_caller_is_answered);
    }

    fn check(&mut self, invariant: fn(&Self) -> Result<(), Violation>) {
        let result = invariant(self);
        self.hold(result);
    }

    /// Notes what did not hold; the first one counts.
    pub fn hold(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.say(|| format!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    /// Notes that something did not hold.
    pub fn violated(&mut self, invariant: &'static str, detail: String) {
        self.hold(Err(Violation { invariant, detail }));
    }

    /// A line of the trace.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} ms  {}", self.now as f64 / 1000.0, line()));
        }
    }

    /// Something will happen after so long.
    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at_time(self.now + delay, event);
    }

    /// Something will happen then.
    pub fn at_time(&mut self, time: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time.max(self.now), self.scheduled), event);
    }

    /// A timer of the present life of a host.
    pub fn timer(&mut self, host: usize, delay: Micros, timer: Timer) {
        let who = self.life(host);
        self.after(delay, Event::Timer(who, timer));
    }

    /// The present life of a host.
    pub fn life(&self, host: usize) -> Life {
        Life { host, life: self.hosts[host].life }
    }

    /// Whether this life goes on.
    pub fn lives(&self, who: Life) -> bool {
        self.hosts[who.host].life == who.life && self.hosts[who.host].node.is_some()
    }

    /// The node of a host.
    pub fn node(&mut self, host: usize) -> &mut Node {
        self.hosts[host].node.as_mut().expect("events of the dead are dropped before")
    }

    /// What the node of a host knows of a peer.
    pub fn entry(&mut self, host: usize, peer: &NodeName) -> &mut Entry {
        self.node(host).entries.entry(peer.clone()).or_default()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(conn) => self.arrive(conn),
            Event::Connected(conn) => {
                let who = self.net.conn(conn).end(Side::Dialler).who;
                if self.lives(who) && self.net.hears(conn, Side::Dialler) {
                    self.connected(who.host, conn);
                }
            }
            Event::Refused(conn) => {
                let who = self.net.conn(conn).end(Side::Dialler).who;
                if self.lives(who) && self.net.conn(conn).end(Side::Dialler).open {
                    self.try_refused(who.host, conn);
                }
            }
            Event::Deliver { conn, to, packet } => {
                let who = self.net.conn(conn).end(to).who;
                if self.lives(who) && self.net.hears(conn, to) {
                    self.packet(who.host, conn, to, packet);
                }
            }
            Event::Told(conn, side) => {
                let who = self.net.conn(conn).end(side).who;
                if self.lives(who) && self.net.conn(conn).end(side).open {
                    self.say(|| format!("{who:?} learns that {conn} broke"));
                    self.ended(who.host, conn);
                }
            }
            Event::Timer(who, timer) => {
                if self.lives(who) {
                    self.timed(who.host, timer);
                }
            }
            Event::Act(action) => script::act(self, action),
            Event::Start(host) => {
                self.hosts[host].life += 1;
                let incarnation = self.rng.bytes();
                self.hosts[host].node = Some(Node { incarnation, next_flight: 1, ..Node::default() });
                self.say(|| format!("host {host} starts anew"));
            }
        }
    }

    fn timed(&mut self, host: usize, timer: Timer) {
        match timer {
            Timer::Plan(peer, flight) => self.poll_plan(host, &peer, flight),
            Timer::Resolved(peer, flight, op) => self.resolved(host, &peer, flight, op),
            Timer::LookedUp(peer, flight, op, name) => self.looked_up(host, &peer, flight, op, &name),
            Timer::Tcp(conn) => self.tcp_timeout(host, conn),
            Timer::Handshake(conn) => self.handshake_timeout(host, conn),
            Timer::Answer(conn) => self.answer_timeout(host, conn),
            Timer::Settled(conn) => self.settled(host, conn),
            Timer::Unsettled(conn) => self.unsettled(host, conn),
            Timer::Unheard(conn) => self.go_away(host, conn),
            Timer::Challenge(probed, conn) => self.challenged(host, probed, conn, false),
            Timer::Provisional(conn) => self.provisional_timeout(host, conn),
            Timer::Hold(conn) => self.release(host, conn),
            Timer::Drain(conn) => self.link_down(host, conn, Ending::Broken),
            Timer::Adopt(peer, flight) => self.look_again(host, &peer, flight),
            Timer::Overtaken(peer, flight) => self.overtaken(host, &peer, flight),
            Timer::Abort(peer, flight) => self.abort(host, &peer, flight),
            Timer::Caller(caller) => self.caller_timeout(caller),
            Timer::Redial(_) | Timer::Probe(_) if self.frozen => {}
            Timer::Redial(peer) => self.dial_again(host, &peer),
            Timer::Probe(peer) => self.begin_probes(host, &peer),
        }
    }

    fn packet(&mut self, host: usize, conn: ConnId, to: Side, packet: Packet) {
        if self.node(host).links.contains_key(&conn) {
            self.link_packet(host, conn, packet);
            return;
        }
        match (packet, to) {
            (Packet::Body(body), Side::Dialler) => self.body_to_dialler(host, conn, &body),
            (Packet::Body(body), Side::Listener) => self.body_to_listener(host, conn, &body),
            (Packet::End, _) => self.ended(host, conn),
            (Packet::Frame(_), _) => {}
        }
    }

    /// An end finds its connection at an end.
    fn ended(&mut self, host: usize, conn: ConnId) {
        if self.node(host).links.contains_key(&conn) {
            self.link_down(host, conn, Ending::Broken);
        } else if self.node(host).tries.contains_key(&conn) {
            self.try_lost(host, conn);
        } else {
            self.answer_over(host, conn);
        }
    }

    /// Sends over a connection from this host.
    pub fn send(&mut self, host: usize, conn: ConnId, packet: Packet) {
        let from = self.net.conn(conn).side_of(self.life(host));
        let to = from.other();
        let fault = match &packet {
            Packet::Body(body) if body.first() == Some(&4) => Some(Fault::FinishLost),
            Packet::Body(body) if body.first() == Some(&5) => Some(Fault::AcceptLost),
            Packet::Frame(Frame::Ping) => Some(Fault::FirstFrameLost),
            _ => None,
        };
        if let Some(time) = self.net.arrival(self.now, conn, to, &mut self.rng) {
            self.at_time(time, Event::Deliver { conn, to, packet });
        }
        if let Some(fault) = fault
            && !self.calm
            && self.rng.percent(4)
        {
            self.counts.fault(fault);
            let late = [self.rng.percent(50), self.rng.percent(50)];
            self.cut(conn, late);
        }
    }

    /// Closes this host's end, after what was sent.
    pub fn hang_up(&mut self, host: usize, conn: ConnId) {
        let side = self.net.conn(conn).side_of(self.life(host));
        if self.net.conn(conn).end(side).open {
            self.net.close(conn, side);
            if let Some(time) = self.net.arrival(self.now, conn, side.other(), &mut self.rng) {
                self.at_time(time, Event::Deliver { conn, to: side.other(), packet: Packet::End });
            }
        }
    }

    /// Breaks a connection; by side, whether its end learns late.
    pub fn cut(&mut self, conn: ConnId, late: [bool; 2]) {
        if self.net.cut(self.now, conn) {
            self.say(|| format!("connection {conn} breaks, late {late:?}"));
            for side in [Side::Dialler, Side::Listener] {
                let delay = if late[side as usize] { DEAD_AFTER } else { self.rng.between(MS, 5 * MS) };
                self.after(delay, Event::Told(conn, side));
            }
        }
    }

    /// Ends the life of a host; its peers learn at once or late. It starts anew so much later.
    pub fn restart(&mut self, host: usize, known: bool, delay: Micros) {
        if self.hosts[host].node.is_none() {
            return;
        }
        self.say(|| format!("host {host} dies, known {known}"));
        let who = self.life(host);
        for (conn, side) in self.net.open_of(who) {
            if known {
                self.hang_up(host, conn);
            } else {
                self.net.close(conn, side);
                if self.net.cut(self.now, conn) {
                    self.after(DEAD_AFTER, Event::Told(conn, side.other()));
                }
            }
        }
        self.hosts[host].node = None;
        for caller in self.callers.iter_mut().filter(|c| c.who == who && c.answer.is_none()) {
            caller.answer = Some((self.now, Err("its node died".into())));
        }
        self.after(delay, Event::Start(host));
    }
}
