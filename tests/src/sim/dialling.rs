//! The dialling side: the tasks of callers and flights around the shipped sessions, the executor, the node's ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use trunkline_dial::exec::Found;
use trunkline_dial::memory::Memory;
use trunkline_dial::pair::{LinkRef, OnAccept};
use trunkline_dial::plan::{Event as PlanEvent, Lookup, OpId, Plan, Policy, Step};
use trunkline_dial::sessions::{self, Aim, Connect, Effect, FlightEvent, Outcome, Step as FlightStep, Up};
use trunkline_dial::{AttemptError, NoRoute, Reason};
use trunkline_route::{Attempt, Claims, CloseCode, Destination, NodeName, ResolverId, TlsMode};
use trunkline_wire::handshake::{HandshakeError, Initiator, InitiatorConfig, Mode, Params};

use super::faults::Fault;
use super::invariants;
use super::model::{MemoryModel, Move, OrderModel, Planned};
use super::net::{ConnId, Frame, MS, Outage, Packet, SEC};
use super::node::{LinkEnd, LinkHandle, Looking, Task, Try, Want};
use super::script::{self, Place};
use super::world::{BUDGET, Caller, Event, Purpose, Timer, World, at, micros};

const TCP: u64 = 3 * SEC;
const HANDSHAKE: u64 = 5 * SEC;

type Flown = Result<Found<LinkHandle>, NoRoute>;

impl World {
    /// Starts a caller that wants a connection.
    pub(super) fn connect(&mut self, host: usize, peer: &NodeName, want: Want, purpose: Purpose) {
        if self.hosts[host].node.is_none() {
            return;
        }
        let who = self.life(host);
        let caller = self.callers.len();
        if matches!(purpose, Purpose::Program(_)) {
            self.node(host).keeper.forgive(peer);
            self.ledger.ended.remove(&(who, peer.clone()));
        }
        let result = invariants::invariant_n_what_ended_stays_down(&self.ledger, who, peer, &purpose);
        self.hold(result);
        self.say(|| format!("host {host}: caller {caller} wants {peer}, grade {}, for {purpose:?}", want.grade));
        // A node has one set of demands for a name; here callers differ in them, and `directly` stands for the difference.
        let route = want.only.as_ref().map(|only| only.route.clone());
        let aim = Aim { route, directly: want.grade > 0, ..Aim::any(Duration::from_micros(BUDGET)) };
        let asks = sessions::Caller::new(aim);
        self.callers.push(Caller {
            who,
            peer: peer.clone(),
            want,
            purpose,
            began: self.now,
            caller: asks,
            answer: None,
        });
        self.timer(host, BUDGET, Timer::Caller(caller));
        self.join(caller);
    }

    fn join(&mut self, id: usize) {
        let Caller { who, peer, want, caller: mut asks, .. } = self.callers[id].clone();
        let host = who.host;
        let has_link = self.entry(host, &peer).link().is_some();
        let node = self.node(host);
        let new = node.next_flight;
        node.next_flight += 1;
        let entry = node.entries.entry(peer.clone()).or_default();
        let links = &node.links;
        let satisfies = |link: &LinkHandle| links.get(&link.conn).is_some_and(|end| end.satisfies(&want));
        let answer = entry.peer.connect(&mut asks, new, satisfies);
        let waits = entry.tasks.values().any(|task| task.callers.is_empty());
        self.callers[id].caller = asks;
        match answer {
            Connect::Use(link) => self.answer(id, Ok(link.conn)),
            Connect::Join(flight) => {
                let tasks = &mut self.entry(host, &peer).tasks;
                tasks.get_mut(&flight).into_iter().for_each(|task| _ = task.callers.insert(id));
                self.counts.note("callers that joined");
            }
            Connect::Start(flight) => {
                if waits {
                    self.counts.note("flights that wait for one that ends");
                }
                if has_link && want.only.is_none() && !self.calm {
                    self.counts.fault(Fault::Replace);
                }
                let task = Task { want, callers: BTreeSet::from([id]), dials: 0, looking: None, replace: false };
                self.entry(host, &peer).tasks.insert(flight, task);
            }
        }
        self.carry_out(host, &peer);
    }

    /// Carries out the pending actions of the sessions of a peer.
    pub(super) fn carry_out(&mut self, host: usize, peer: &NodeName) {
        for effect in self.entry(host, peer).peer.take_effects() {
            match effect {
                Effect::Begin(flight) => {
                    let tasks = self.entry(host, peer).tasks.keys().copied();
                    let result = invariants::invariant_o_dials_do_not_overlap(flight, tasks);
                    self.hold(result);
                    self.fly(host, peer, flight, FlightEvent::Begins);
                }
                Effect::Cancel(flight) => {
                    // The task ends when it is scheduled next; its attempts continue until then.
                    self.entry(host, peer).tasks.entry(flight).and_modify(|task| task.looking = None);
                    let delay = self.rng.below(20 * MS);
                    self.timer(host, delay, Timer::Abort(peer.clone(), flight));
                }
                Effect::Overtaken(flight) => {
                    // The task is scheduled after some delay.
                    let delay = self.rng.below(20 * MS);
                    self.timer(host, delay, Timer::Overtaken(peer.clone(), flight));
                }
                Effect::Changed => {
                    self.wake_callers(host);
                    if let Some(flight) = self.entry(host, peer).peer.looks_out() {
                        self.look_again(host, peer, flight);
                    }
                }
                Effect::Discard(link) => {
                    self.counts.note("links discarded");
                    self.close_link(host, link.conn);
                }
                Effect::Release(_) => {}
            }
        }
    }

    /// Continues a flight.
    fn fly(&mut self, host: usize, peer: &NodeName, flight: u64, event: FlightEvent<LinkHandle>) {
        let now = at(self.now);
        let entry = self.entry(host, peer);
        let Some(task) = entry.tasks.get_mut(&flight) else { return };
        task.looking = None;
        let was_adopting = entry.peer.looks_out() == Some(flight);
        let step = entry.peer.step(peer, flight, now, event);
        entry.dialling.take_if(|live| *live == flight);
        match step {
            FlightStep::Await(until) => {
                if !was_adopting {
                    self.counts.note("adoptions awaited");
                    self.at_time(micros(until), Event::Timer(self.life(host), Timer::Adopt(peer.clone(), flight)));
                }
            }
            FlightStep::Dial { replace } => {
                entry.dialling = Some(flight);
                let Some(task) = self.entry(host, peer).tasks.get_mut(&flight) else { return };
                (task.dials, task.replace) = (task.dials + 1, replace);
                let want = task.want.clone();
                let looking = self.look(host, peer, &want);
                self.entry(host, peer).tasks.entry(flight).and_modify(|task| task.looking = Some(looking));
                self.poll_plan(host, peer, flight);
            }
            FlightStep::End(outcome) => self.flight_ended(host, peer, flight, Some(outcome)),
        }
        self.carry_out(host, peer);
    }

    fn flight_ended(&mut self, host: usize, peer: &NodeName, flight: u64, outcome: Option<Outcome<LinkHandle>>) {
        self.drop_tries(host, peer, flight);
        let entry = self.entry(host, peer);
        entry.peer.flight_ended(flight);
        entry.dialling.take_if(|live| *live == flight);
        let task = entry.tasks.remove(&flight);
        for id in task.into_iter().flat_map(|task| task.callers) {
            let Caller { want, caller: mut asks, .. } = self.callers[id].clone();
            let links = &self.node(host).links;
            let satisfies = |link: &LinkHandle| links.get(&link.conn).is_some_and(|end| end.satisfies(&want));
            let answer = asks.ended(peer, outcome.clone(), satisfies);
            self.callers[id].caller = asks;
            match answer {
                Some(answer) => {
                    self.answer(id, answer.map(|link| link.conn).map_err(|no_route| no_route.reason.to_string()));
                }
                None => self.join(id),
            }
        }
        self.carry_out(host, peer);
    }

    fn answer(&mut self, id: usize, answer: Result<ConnId, String>) {
        let now = self.now;
        if self.callers[id].answer.is_some() {
            return;
        }
        self.say(|| format!("caller {id} gets {answer:?}"));
        let ok = answer.is_ok();
        self.callers[id].answer = Some((now, answer));
        let Caller { who, peer, purpose, .. } = self.callers[id].clone();
        match purpose {
            Purpose::Program(_) if !ok => {}
            Purpose::Program(count) => (0..count).for_each(|_| self.send_message(who.host, &peer)),
            Purpose::Keep => self.dialled_again(who.host, &peer),
            Purpose::GoBack(better) => self.went_back(who.host, &peer, &better, ok),
        }
    }

    /// Removes a caller. When the last one leaves, its flight ends.
    pub(super) fn caller_gone(&mut self, id: usize) {
        let Caller { who, peer, .. } = self.callers[id].clone();
        let entry = self.entry(who.host, &peer);
        let Some((flight, task)) = entry.tasks.iter_mut().find(|(_, task)| task.callers.contains(&id)) else { return };
        task.callers.remove(&id);
        entry.peer.caller_dropped(*flight);
        self.carry_out(who.host, &peer);
    }

    pub(super) fn caller_timeout(&mut self, id: usize) {
        if self.callers[id].answer.is_none() {
            self.caller_gone(id);
            self.answer(id, Err("out of time".into()));
        }
    }

    pub(super) fn abort(&mut self, host: usize, peer: &NodeName, flight: u64) {
        self.flight_ended(host, peer, flight, None);
    }

    /// Handles the end of a lookup.
    fn flown(&mut self, host: usize, peer: &NodeName, flight: u64, flown: Flown) {
        self.drop_tries(host, peer, flight);
        if self.is_probe(host, peer, flight) {
            return self.probed(host, peer, flown.is_ok());
        }
        self.fly(host, peer, flight, FlightEvent::Dialled(flown));
    }

    /// Begins a lookup.
    pub(super) fn look(&mut self, host: usize, peer: &NodeName, want: &Want) -> Box<Looking> {
        let candidates = match &want.only {
            Some(only) => vec![only.clone()],
            None => self.hosts[host].routes.get(peer).map(|specs| specs.candidates(want.grade)).unwrap_or_default(),
        };
        let defaults = script::defaults(want.grade);
        let now = at(self.now);
        let memory = if want.afresh { Memory::new() } else { self.node(host).memory.clone() };
        let remembered = if want.afresh { MemoryModel::default() } else { self.node(host).remembered.clone() };
        let mut plans = Vec::new();
        for candidate in &candidates {
            let Some(attempt) = candidate.route.attempt(peer, None, &defaults) else { continue };
            let held = self.remembers(&memory, &remembered, &attempt);
            plans.push(planned(&attempt, candidate.weight, held));
        }
        let order = match want.only {
            Some(_) => OrderModel::only(plans, remembered.clone()),
            None => OrderModel::new(plans, remembered.clone()),
        };
        let discovery = if want.only.is_some() { vec![] } else { vec![ResolverId::new("sim").expect("a legal id")] };
        let lookup = Lookup {
            target: peer.clone(),
            candidates: script::ranked(candidates),
            discovery,
            proxies: Vec::new(),
            gateways: Vec::new(),
            defaults,
            policy: Policy::default(),
            memory: memory.clone(),
            given: false,
        };
        let (plan, conns, attempts) = (Plan::new(lookup, now), BTreeMap::new(), BTreeMap::new());
        Box::new(Looking { plan, conns, attempts, order, memory, remembered })
    }

    /// Returns true if a failure of an attempt is remembered, and checks that the model agrees.
    fn remembers(&mut self, memory: &Memory, model: &MemoryModel, attempt: &Attempt) -> bool {
        let held = memory.against(at(self.now), attempt).is_some();
        let result = invariants::invariant_memory_matches_the_model(held, model.holds(self.now, attempt), attempt);
        self.hold(result);
        if held {
            self.counts.note("candidates demoted");
        }
        held
    }

    fn failed(&mut self, host: usize, attempt: &Attempt, error: &AttemptError) {
        let now = self.now;
        let node = self.node(host);
        node.memory.failed(at(now), attempt, error);
        node.remembered.failed(now, attempt, error);
    }

    fn succeeded(&mut self, host: usize, attempt: &Attempt) {
        let node = self.node(host);
        node.memory.succeeded(attempt);
        node.remembered.succeeded(attempt);
    }

    fn is_probe(&mut self, host: usize, peer: &NodeName, flight: u64) -> bool {
        let probes = self.node(host).probes.get(peer);
        probes.and_then(|probes| probes.flight.as_ref()).is_some_and(|(probe, _)| *probe == flight)
    }

    fn looking(&mut self, host: usize, peer: &NodeName, flight: u64) -> Option<&mut Looking> {
        if self.is_probe(host, peer, flight) {
            let (_, looking) = self.node(host).probes.get_mut(peer)?.flight.as_mut()?;
            return Some(looking);
        }
        self.entry(host, peer).tasks.get_mut(&flight)?.looking.as_deref_mut()
    }

    pub(super) fn poll_plan(&mut self, host: usize, peer: &NodeName, flight: u64) {
        loop {
            let now = self.now;
            let dial = (flight, self.dials(host, peer, flight));
            let Some(looking) = self.looking(host, peer, flight) else { return };
            let step = looking.plan.poll(at(now));
            let seen = match &step {
                Step::Resolve { .. } => Some(Move::Resolve),
                Step::Lookup { attempt, .. } => Some(Move::Lookup(attempt.address.to_string())),
                Step::Connect { to, .. } => Some(Move::Connect(to.to_string())),
                _ => None,
            };
            let done_early = matches!(&step, Step::Done(Err(none)) if none.reason == Reason::AllFailed)
                && !looking.order.exhausted(now);
            let op_conn = match &step {
                Step::Cancel { op } | Step::Done(Ok(op)) => looking.conns.get(op).copied(),
                _ => None,
            };
            if let Some(seen) = seen {
                let result = looking.order.saw(now, &seen);
                self.hold(invariants::invariant_order_matches_the_model(&seen, result));
            }
            match step {
                Step::Resolve { op, .. } => {
                    let delay = self.rng.between(MS, 30 * MS);
                    self.timer(host, delay, Timer::Resolved(peer.clone(), dial, op));
                }
                Step::Lookup { op, attempt } => {
                    let delay = self.rng.between(MS, 30 * MS);
                    let name = attempt.address.host.to_string();
                    self.timer(host, delay, Timer::LookedUp(peer.clone(), dial, op, name));
                }
                Step::Connect { op, attempt, to, .. } => match to.socket() {
                    Some(socket) => self.try_out(host, peer, flight, op, *attempt, socket),
                    None => self.violated("hosts are looked up", format!("{to} is dialled by name")),
                },
                Step::Gateways { .. } | Step::Relay { .. } => {
                    self.violated("no gateway is asked for", "nobody has a proxy route".into())
                }
                Step::Cancel { .. } => {
                    if let Some(conn) = op_conn {
                        self.end_try(host, conn);
                    }
                }
                Step::Wait { until } => {
                    let until = micros(until);
                    let who = self.life(host);
                    self.at_time(until, Event::Timer(who, Timer::Plan(peer.clone(), flight)));
                    return;
                }
                Step::Done(Ok(_)) => {
                    let conn = op_conn.unwrap_or_default();
                    let link = self.entry(host, peer).peer.link().copied().filter(|link| link.conn == conn);
                    // A probe makes no link.
                    let link = link.unwrap_or(LinkHandle { conn, id: [0; 16].into(), incarnation: [0; 16].into() });
                    self.flown(host, peer, flight, Ok(Found::Link(link)));
                    return;
                }
                Step::Done(Err(no_route)) => {
                    if done_early {
                        self.violated("the order of attempts equals the model's", "gave up early".into());
                    }
                    self.flown(host, peer, flight, Err(no_route));
                    return;
                }
            }
        }
    }

    pub(super) fn resolved(&mut self, host: usize, peer: &NodeName, dial: (u64, u32), op: OpId) {
        let flight = dial.0;
        if !self.is_dial(host, peer, dial) {
            return;
        }
        let endpoints = script::resolve(self, peer);
        let now = at(self.now);
        let Some(grade) = self.entry(host, peer).tasks.get(&flight).map(|task| task.want.grade) else { return };
        let best = self.hosts[host].routes.get(peer).and_then(|specs| specs.ranked(grade).into_iter().next());
        let Some(looking) = self.looking(host, peer, flight) else { return };
        let (memory, remembered) = (looking.memory.clone(), looking.remembered.clone());
        let mut answers = Vec::new();
        for endpoint in &endpoints {
            let attempt = match &best {
                Some(best) => best.route.attempt_at(peer, endpoint, &script::defaults(grade)),
                None => script::bare_attempt(peer, endpoint, grade),
            };
            let held = self.remembers(&memory, &remembered, &attempt);
            answers.push(planned(&attempt, 0, held));
        }
        let Some(looking) = self.looking(host, peer, flight) else { return };
        looking.order.resolved(answers);
        looking.plan.handle(now, PlanEvent::Resolved { op, answer: Ok(endpoints) });
        self.poll_plan(host, peer, flight);
    }

    /// Returns the sequence number of the current lookup of this flight; a probe has only one lookup.
    fn dials(&mut self, host: usize, peer: &NodeName, flight: u64) -> u32 {
        self.entry(host, peer).tasks.get(&flight).map_or(0, |task| task.dials)
    }

    fn is_dial(&mut self, host: usize, peer: &NodeName, (flight, dial): (u64, u32)) -> bool {
        self.looking(host, peer, flight).is_some() && self.dials(host, peer, flight) == dial
    }

    pub(super) fn looked_up(&mut self, host: usize, peer: &NodeName, dial: (u64, u32), op: OpId, name: &str) {
        let flight = dial.0;
        if !self.is_dial(host, peer, dial) {
            return;
        }
        let sockets: Vec<_> = script::dns(name).into_iter().map(|ip| SocketAddr::new(ip, script::PORT)).collect();
        let now = at(self.now);
        let Some(looking) = self.looking(host, peer, flight) else { return };
        looking.order.looked_up(sockets.iter().map(ToString::to_string).collect());
        let answer = Ok(sockets.into_iter().map(Destination::from).collect());
        looking.plan.handle(now, PlanEvent::LookedUp { op, answer });
        self.poll_plan(host, peer, flight);
    }

    fn try_out(&mut self, host: usize, peer: &NodeName, flight: u64, op: OpId, attempt: Attempt, socket: SocketAddr) {
        let who = self.life(host);
        let mut place = script::place(socket.ip());
        let (target, path, slow) = match place {
            Place::Host(path) if path.host < self.hosts.len() => {
                (self.life(path.host), Some(path), u64::from(path.slow) * self.slow)
            }
            _ => (who, None, 0),
        };
        match path.and_then(|path| self.net.outage(self.now, path)) {
            Some(Outage::Refuses) => place = Place::Closed,
            Some(Outage::Silent) => place = Place::Silent,
            None => {}
        }
        let conn = self.net.open(who, target, path, slow);
        self.say(|| format!("host {host} dials {peer} at {socket} as {conn}"));
        if let Some(looking) = self.looking(host, peer, flight) {
            looking.conns.insert(op, conn);
            looking.attempts.insert(op, attempt.clone());
        }
        let fault = match place {
            Place::Closed => Some(Fault::PortClosed),
            Place::Silent => Some(Fault::SilentAddress),
            Place::Host(path) => path.slow.then_some(Fault::TwoPaths),
        };
        if let Some(fault) = fault.filter(|_| !self.calm) {
            self.counts.fault(fault);
        }
        let delay = self.rng.between(MS, 40 * MS) + slow;
        match place {
            Place::Host(_) => self.after(delay, Event::Arrive(conn)),
            Place::Closed => self.after(delay, Event::Refused(conn)),
            Place::Silent => {}
        }
        self.timer(host, TCP, Timer::Tcp(conn));
        let dial = Try {
            peer: peer.clone(),
            flight,
            op,
            attempt,
            machine: None,
            verified: None,
            finish: None,
            replaces: false,
            is_probe: self.is_probe(host, peer, flight),
        };
        self.node(host).tries.insert(conn, dial);
    }

    pub(super) fn connected(&mut self, host: usize, conn: ConnId) {
        let from = self.hosts[host].name.clone();
        let nonce = self.rng.bytes();
        let incarnation = self.node(host).incarnation;
        let Some(dial) = self.node(host).tries.get_mut(&conn) else { return };
        let cookie = dial.attempt.cookie.clone();
        let mut config = InitiatorConfig::new(from, Some(dial.peer.clone()), cookie, incarnation, nonce);
        if dial.is_probe {
            config.mode = Mode::Probe;
        }
        let (machine, hello1) = Initiator::new(config, script::exporter(conn));
        dial.machine = Some(machine);
        self.send(host, conn, Packet::Body(hello1));
        self.timer(host, HANDSHAKE, Timer::Handshake(conn));
    }

    pub(super) fn body_to_dialler(&mut self, host: usize, conn: ConnId, body: &[u8]) {
        let Some(dial) = self.node(host).tries.get_mut(&conn) else { return };
        let Some(machine) = &mut dial.machine else { return };
        if dial.finish.is_some() {
            match machine.accept(body) {
                Ok(accepted) => self.accepted(host, conn, accepted.params.epoch),
                Err(error) => self.try_failed(host, conn, attempt_error(error)),
            }
            return;
        }
        match machine.hello2(body) {
            Ok(verified) => {
                let (peer, flight) = (dial.peer.clone(), dial.flight);
                if dial.is_probe {
                    return self.answered_probe(host, conn);
                }
                dial.verified = Some(verified.clone());
                let entry = self.entry(host, &peer);
                let replace = entry.tasks.get(&flight).is_some_and(|task| task.replace);
                let claims = entry.peer.may_finish(flight, verified.link_id, verified.incarnation, replace);
                self.say(|| format!("host {host}: {conn} to {peer} is proven, {claims:?}"));
                self.establish(host, conn, claims);
            }
            Err(error) => self.try_failed(host, conn, attempt_error(error)),
        }
    }

    fn establish(&mut self, host: usize, conn: ConnId, claims: Option<Claims>) {
        let Some(dial) = self.node(host).tries.get_mut(&conn) else { return };
        let (Some(machine), Some(verified)) = (&mut dial.machine, &dial.verified) else { return };
        match claims {
            Some(claims) => {
                dial.finish = Some(verified.link_id);
                dial.replaces = claims.replaces.is_some();
                let params = Params {
                    known_epoch: claims.known_epoch,
                    last_link: claims.last_link,
                    have_link: claims.have_link,
                    replaces: claims.replaces,
                    ..Params::default()
                };
                let finish = machine.finish(&params);
                let peer = dial.peer.clone();
                let tries = &self.node(host).tries;
                let result = invariants::invariant_b_one_finish_outstanding(tries, &peer);
                self.hold(result);
                match finish {
                    Ok(finish) => self.send(host, conn, Packet::Body(finish)),
                    Err(error) => self.violated("honest bytes are understood", error.to_string()),
                }
            }
            None => {
                if let Ok(body) = machine.abandon() {
                    self.send(host, conn, Packet::Body(body));
                }
                self.try_failed(host, conn, AttemptError::Adopted);
            }
        }
    }

    fn accepted(&mut self, host: usize, conn: ConnId, epoch: u64) {
        let Some(dial) = self.node(host).tries.get(&conn) else { return };
        let Some(verified) = dial.verified.clone() else { return };
        let (peer, flight, op, attempt) = (dial.peer.clone(), dial.flight, dial.op, dial.attempt.clone());
        let replaces = dial.replaces;
        let link = LinkRef { id: verified.link_id, epoch, incarnation: verified.incarnation, dialled: true };
        let entry = self.entry(host, &peer);
        let current = std::mem::take(&mut entry.dialling);
        let up = entry.peer.accepted(flight, link);
        let on = if up.is_some() { OnAccept::Up(None) } else { OnAccept::Discard };
        self.hold(invariants::invariant_i_up_only_under_its_own_flight(current, flight, on));
        self.say(|| format!("host {host}: {conn} to {peer} accepted, epoch {epoch}: {up:?}"));
        let Some(Up { replaced, elders }) = up else {
            self.entry(host, &peer).dialling = current;
            self.counts.note("ACCEPTs discarded");
            return self.try_failed(host, conn, AttemptError::Adopted);
        };
        self.node(host).tries.remove(&conn);
        let end = LinkEnd {
            peer: peer.clone(),
            id: link.id,
            epoch,
            grade: u8::from(attempt.tls != TlsMode::CookieOnly),
            came_by: Some((attempt.policy.route.clone(), attempt.policy.resolver.clone())),
            since: self.now,
            provisional: false,
            heir: None,
            draining: false,
            peer_gone: false,
            meant: false,
            hold: BTreeSet::new(),
            held: Vec::new(),
        };
        self.node(host).links.insert(conn, end);
        self.succeeded(host, &attempt);
        let entry = self.entry(host, &peer);
        entry.shadow.saw(link.incarnation, epoch);
        entry.peer.install(LinkHandle { conn, id: link.id, incarnation: link.incarnation });
        entry.peer.finish_ended(flight, link.id);
        if replaced.is_some_and(|(old, retire)| !retire.alive && self.is_healthy(old.conn)) {
            self.counts.note("a live name displaced by the end that dials");
        }
        self.went_up(host, conn, link);
        self.send(host, conn, Packet::Frame(Frame::Ping));
        self.report(host, conn);
        self.hold_for(host, conn, &elders);
        if let Some((old, retire)) = replaced {
            if replaces {
                self.ledger.replaced.insert(old.conn, conn);
            }
            self.retire(host, conn, old.conn, retire, false);
        }
        let now = at(self.now);
        if let Some(looking) = self.looking(host, &peer, flight) {
            looking.plan.handle(now, PlanEvent::Established { op, peer: peer.clone() });
        }
        self.poll_plan(host, &peer, flight);
        self.carry_out(host, &peer);
    }

    /// Ends a probe whose peer has proven its identity.
    fn answered_probe(&mut self, host: usize, conn: ConnId) {
        let Some(dial) = self.node(host).tries.get_mut(&conn) else { return };
        if let Some(Ok(body)) = dial.machine.as_mut().map(Initiator::abandon) {
            self.send(host, conn, Packet::Body(body));
        }
        let Some(Try { peer, flight, op, attempt, .. }) = self.end_try(host, conn) else { return };
        self.succeeded(host, &attempt);
        let now = at(self.now);
        if let Some(looking) = self.looking(host, &peer, flight) {
            looking.plan.handle(now, PlanEvent::Established { op, peer: peer.clone() });
        }
        self.poll_plan(host, &peer, flight);
    }

    /// Drops an attempt with its connection and withdraws its FINISH.
    fn end_try(&mut self, host: usize, conn: ConnId) -> Option<Try> {
        let dial = self.node(host).tries.remove(&conn)?;
        self.hang_up(host, conn);
        if let Some(link) = dial.finish {
            self.entry(host, &dial.peer).peer.finish_ended(dial.flight, link);
        }
        Some(dial)
    }

    fn drop_tries(&mut self, host: usize, peer: &NodeName, flight: u64) {
        let tries = &self.node(host).tries;
        let mine = tries.iter().filter(|(_, dial)| dial.peer == *peer && dial.flight == flight);
        for conn in mine.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.end_try(host, conn);
        }
    }

    fn try_failed(&mut self, host: usize, conn: ConnId, error: AttemptError) {
        let Some(Try { peer, flight, op, attempt, .. }) = self.end_try(host, conn) else { return };
        self.say(|| format!("host {host}: {conn} to {peer} failed: {error}"));
        match error {
            AttemptError::WrongCookie => self.counts.fault(Fault::WrongCookie),
            AttemptError::WrongName { .. } => self.counts.fault(Fault::WrongName),
            _ => {}
        }
        let ahead = |dial: &Try| dial.peer == peer && dial.flight == flight && dial.finish.is_some();
        let own_ahead = self.node(host).tries.values().any(ahead);
        if error == AttemptError::Adopted && (self.config.loser_ends_lookup || !own_ahead) {
            return self.flown(host, &peer, flight, Ok(Found::Adopt));
        }
        let now = at(self.now);
        if error != AttemptError::Adopted {
            self.failed(host, &attempt, &error);
        }
        let Some(looking) = self.looking(host, &peer, flight) else { return };
        if error == AttemptError::WrongCookie {
            looking.order.refused(&attempt.address.to_string(), attempt.cookie.expose());
        }
        looking.plan.handle(now, PlanEvent::Failed { op, error });
        self.poll_plan(host, &peer, flight);
    }

    pub(super) fn try_refused(&mut self, host: usize, conn: ConnId) {
        self.try_failed(host, conn, AttemptError::Tcp("refused".into()));
    }

    pub(super) fn try_lost(&mut self, host: usize, conn: ConnId) {
        self.try_failed(host, conn, AttemptError::Handshake("the peer closed in the middle".into()));
    }

    pub(super) fn tcp_timeout(&mut self, host: usize, conn: ConnId) {
        if self.node(host).tries.get(&conn).is_some_and(|dial| dial.machine.is_none()) {
            self.try_failed(host, conn, AttemptError::TcpTimeout(std::time::Duration::from_micros(TCP)));
        }
    }

    pub(super) fn handshake_timeout(&mut self, host: usize, conn: ConnId) {
        self.try_failed(host, conn, AttemptError::HandshakeTimeout(std::time::Duration::from_micros(HANDSHAKE)));
    }

    /// Tells the flight's task that an inbound link may have made its dial unnecessary.
    pub(super) fn overtaken(&mut self, host: usize, peer: &NodeName, flight: u64) {
        if self.looking(host, peer, flight).is_some() && self.entry(host, peer).peer.is_overtaken(flight) {
            self.counts.note("dials overtaken");
            self.flown(host, peer, flight, Ok(Found::Adopt));
        }
    }

    /// Checks whether the link of another dial, for which a flight waits, has come up.
    pub(super) fn look_again(&mut self, host: usize, peer: &NodeName, flight: u64) {
        let entry = self.entry(host, peer);
        let is_cancelled = entry.tasks.get(&flight).is_none_or(|task| task.callers.is_empty());
        if entry.peer.looks_out() == Some(flight) && !is_cancelled {
            self.fly(host, peer, flight, FlightEvent::Look);
        }
    }
}

fn planned(attempt: &Attempt, weight: i64, remembered: bool) -> Planned {
    let cookie = attempt.cookie.expose().to_vec();
    Planned { weight, address: attempt.address.to_string(), cookie, remembered }
}

fn attempt_error(error: HandshakeError) -> AttemptError {
    match error {
        HandshakeError::Closed { code: CloseCode::Duplicate | CloseCode::LostTie, .. } => AttemptError::Adopted,
        HandshakeError::Closed { code: CloseCode::NameInUse, .. } => AttemptError::NameInUse(String::new()),
        error @ (HandshakeError::Rejected { .. } | HandshakeError::Version { .. }) => {
            AttemptError::Rejected(error.to_string())
        }
        HandshakeError::WrongCookie => AttemptError::WrongCookie,
        HandshakeError::WrongName { actual, .. } => AttemptError::WrongName { actual },
        other => AttemptError::Handshake(other.to_string().into()),
    }
}
