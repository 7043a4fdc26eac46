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

/// Most events of a history. A history with more has an endless loop.
const MAX_EVENTS: usize = 200_000;
/// Least number of faults in every history.
pub const MIN_FAULTS: u64 = 50;
/// Longest time that a caller waits.
pub const BUDGET: Micros = 20 * SEC;
/// Longest delay of a caller's answer after its budget.
pub const TICK: Micros = 10 * MS;

/// Settings of a run besides the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Compares every decision with the reference table.
    pub table: bool,
    /// Mistake: an attempt that finds another attempt of its own flight ahead ends the whole lookup.
    pub loser_ends_lookup: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { table: true, loser_ends_lookup: false }
    }
}

/// Event that happens at a given time.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection request reaches the listener.
    Arrive(ConnId),
    /// A connection request was accepted.
    Connected(ConnId),
    /// A connection request was refused.
    Refused(ConnId),
    /// A packet arrives.
    Deliver {
        /// The connection.
        conn: ConnId,
        /// The receiving end.
        to: Side,
        /// The packet.
        packet: Packet,
    },
    /// An end learns that its connection broke.
    Told(ConnId, Side),
    /// A timer of an incarnation expires.
    Timer(Life, Timer),
    /// The script continues.
    Act(Action),
    /// A host that was down starts again.
    Start(usize),
}

/// Purpose of a timer.
#[derive(Debug, Clone)]
pub enum Timer {
    /// The plan of a flight is due to be polled.
    Plan(NodeName, u64),
    /// The resolver's answer arrives, for this dial of the flight.
    Resolved(NodeName, (u64, u32), OpId),
    /// The answer of DNS arrives, for this dial of the flight.
    LookedUp(NodeName, (u64, u32), OpId, String),
    /// Timeout of the TCP connect.
    Tcp(ConnId),
    /// Timeout of the handshake at the dialling end.
    Handshake(ConnId),
    /// Timeout of the handshake at the listener.
    Answer(ConnId),
    /// The link that this caller claims is up or down by now.
    Settled(ConnId),
    /// Timeout of the link that this caller claims.
    Unsettled(ConnId),
    /// Timeout for the replaced link's peer to hear of the new link.
    Unheard(ConnId),
    /// Timeout of the probe of this link, for the caller of this connection.
    Challenge(ConnId, ConnId),
    /// Timeout of the first frame.
    Provisional(ConnId),
    /// Timeout of the end of the old link.
    Hold(ConnId),
    /// Timeout of the drain.
    Drain(ConnId),
    /// Timeout of an adopted link, for this flight.
    Adopt(NodeName, u64),
    /// An inbound link makes the dial unnecessary.
    Overtaken(NodeName, u64),
    /// A caller's budget is used up.
    Caller(usize),
    /// A flight without callers is dropped.
    Abort(NodeName, u64),
    /// A kept connection is dialled again.
    Redial(NodeName),
    /// The routes better than that of a connection are probed.
    Probe(NodeName),
}

/// Machine with a name, on which incarnations of a node follow each other.
pub struct Host {
    /// Name of its node.
    pub name: NodeName,
    /// Sequence number of the incarnation.
    pub life: u32,
    /// The node, if it is up.
    pub node: Option<Node>,
    /// Static routes of its table, by target.
    pub routes: BTreeMap<NodeName, RouteSpecs>,
}

/// Purpose of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A program that will send this number of messages.
    Program(u64),
    /// The connection went down and is kept.
    Keep,
    /// The connection goes back to this route.
    GoBack(Better),
}

/// Caller that requests a connection.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Incarnation of the program.
    pub who: Life,
    /// Peer.
    pub peer: NodeName,
    /// Requirements for the link.
    pub want: Want,
    /// Purpose of the connection.
    pub purpose: Purpose,
    /// Time of the request.
    pub began: Micros,
    /// The shipped caller.
    pub caller: sessions::Caller,
    /// Time and content of the answer.
    pub answer: Option<(Micros, Result<ConnId, String>)>,
}

/// Result of a history.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Counts of faults and events.
    pub counts: Counts,
    /// Number of events handled.
    pub events: usize,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The trace, if it was requested.
    pub trace: Vec<String>,
}

/// The whole simulated world.
pub struct World {
    /// Settings of the run.
    pub config: Config,
    /// The clock.
    pub now: Micros,
    /// Random generator.
    pub rng: Rng,
    /// The network.
    pub net: Net,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The ledger of messages.
    pub ledger: Ledger,
    /// Every caller that requested a connection.
    pub callers: Vec<Caller>,
    /// Counts of faults and events.
    pub counts: Counts,
    /// True if no more faults occur.
    pub calm: bool,
    /// Time at which the faults ended.
    pub calmed: Micros,
    /// True if nodes do nothing by themselves any more, so that the world comes to rest.
    pub frozen: bool,
    /// Time at which that began.
    pub froze: Micros,
    /// True if two hosts have the same name.
    pub twins: bool,
    /// Additional delay of the second addresses of hosts.
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

/// Returns the real instant of a virtual time.
#[expect(clippy::disallowed_methods, reason = "one base instant; every other is this one and virtual time")]
pub fn at(time: Micros) -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now) + Duration::from_micros(time)
}

/// Returns the virtual time of an instant made by [`at`], rounded up.
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

    /// Returns the time at which everything was at rest after the last fault.
    pub fn calm_since(&self) -> Micros {
        self.calm_since
    }

    /// Begins the calm phase: everything is at rest, and every request from now on must succeed.
    pub fn begin_calm(&mut self) {
        // This is later than any answer, and after every partition.
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

    /// Records a violation. Only the first one counts.
    pub fn hold(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.say(|| format!("VIOLATION {violation}"));
            self.violation.get_or_insert(violation);
        }
    }

    /// Records a violation with its details.
    pub fn violated(&mut self, invariant: &'static str, detail: String) {
        self.hold(Err(Violation { invariant, detail }));
    }

    /// Writes a line of the trace.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} ms  {}", self.now as f64 / 1000.0, line()));
        }
    }

    /// Schedules an event after a delay.
    pub fn after(&mut self, delay: Micros, event: Event) {
        self.at_time(self.now + delay, event);
    }

    /// Schedules an event at a time.
    pub fn at_time(&mut self, time: Micros, event: Event) {
        self.scheduled += 1;
        self.queue.insert((time.max(self.now), self.scheduled), event);
    }

    /// Sets a timer of the current incarnation of a host.
    pub fn timer(&mut self, host: usize, delay: Micros, timer: Timer) {
        let who = self.life(host);
        self.after(delay, Event::Timer(who, timer));
    }

    /// Returns the current incarnation of a host.
    pub fn life(&self, host: usize) -> Life {
        Life { host, life: self.hosts[host].life }
    }

    /// Returns true if this incarnation still runs.
    pub fn lives(&self, who: Life) -> bool {
        self.hosts[who.host].life == who.life && self.hosts[who.host].node.is_some()
    }

    /// Returns the node of a host.
    pub fn node(&mut self, host: usize) -> &mut Node {
        self.hosts[host].node.as_mut().expect("events of the dead are dropped before")
    }

    /// Returns the state of a peer at the node of a host.
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
                let incarnation = trunkline_route::Incarnation::new(self.rng.bytes());
                self.hosts[host].node = Some(Node::new(incarnation));
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

    /// Handles the end of a connection at one of its ends.
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

    /// Closes this host's end, after the data that was sent.
    pub fn hang_up(&mut self, host: usize, conn: ConnId) {
        let side = self.net.conn(conn).side_of(self.life(host));
        if self.net.conn(conn).end(side).open {
            self.net.close(conn, side);
            if let Some(time) = self.net.arrival(self.now, conn, side.other(), &mut self.rng) {
                self.at_time(time, Event::Deliver { conn, to: side.other(), packet: Packet::End });
            }
        }
    }

    /// Breaks a connection. `late` says for each side whether its end learns of it late.
    pub fn cut(&mut self, conn: ConnId, late: [bool; 2]) {
        if self.net.cut(self.now, conn) {
            self.say(|| format!("connection {conn} breaks, late {late:?}"));
            for side in [Side::Dialler, Side::Listener] {
                let delay = if late[side as usize] { DEAD_AFTER } else { self.rng.between(MS, 5 * MS) };
                self.after(delay, Event::Told(conn, side));
            }
        }
    }

    /// Ends the incarnation of a host. Its peers learn of it at once or late. The host starts again after `delay`.
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
