//! The dialling side: callers join flights, flights run plans, attempts run handshakes. Mirrors the registry, the
//! executor and the node's ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use trunkline_dial::memory::Memory;
use trunkline_dial::pair::{LinkRef, MayFinish, OnAccept};
use trunkline_dial::plan::{Event as PlanEvent, Lookup, OpId, Plan, Policy, Step};
use trunkline_dial::{AttemptError, Reason};
use trunkline_route::{Attempt, CloseCode, NodeName, ResolverId, TlsMode};
use trunkline_wire::handshake::{HandshakeError, Initiator, InitiatorConfig, Mode, Params};

use super::faults::Fault;
use super::invariants;
use super::model::{MemoryModel, Move, OrderModel, Planned};
use super::net::{ConnId, Frame, MS, Outage, Packet, SEC};
use super::node::{Flight, LinkEnd, Looking, Stage, Try, Want};
use super::rules::Rules;
use super::script::{self, Place};
use super::world::{BUDGET, Caller, Event, Purpose, Timer, World, at, micros};

const TCP: u64 = 3 * SEC;
const HANDSHAKE: u64 = 5 * SEC;
const ADOPT: u64 = 5 * SEC;
const MAX_DIALS: u32 = 3;

type Flown = Result<ConnId, Reason>;

impl<R: Rules> World<R> {
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
        self.callers.push(Caller { who, peer: peer.clone(), want, purpose, began: self.now, loops: 0, answer: None });
        self.timer(host, BUDGET, Timer::Caller(caller));
        self.join(caller);
    }

    fn satisfies(&mut self, host: usize, conn: ConnId, want: &Want) -> bool {
        self.node(host).links.get(&conn).is_some_and(|end| end.satisfies(want))
    }

    fn join(&mut self, id: usize) {
        let Caller { who, peer, want, loops, .. } = self.callers[id].clone();
        let host = who.host;
        if loops >= MAX_DIALS {
            return self.answer(id, Err("dials came to nothing".into()));
        }
        self.callers[id].loops += 1;
        let link = self.entry(host, &peer).link;
        if let Some(link) = link.filter(|link| self.satisfies(host, *link, &want)) {
            return self.answer(id, Ok(link));
        }
        if link.is_some() && want.only.is_none() && !self.calm {
            self.counts.fault(Fault::Replace);
        }
        let unsatisfying = link.map(|link| self.node(host).links[&link].id);
        let node = self.node(host);
        let flight_id = node.next_flight;
        let entry = node.entries.entry(peer.clone()).or_default();
        if let Some(flight) = &mut entry.flight {
            flight.callers.insert(id);
            self.counts.note("callers that joined");
            return;
        }
        node.next_flight += 1;
        entry.rules.dial_begins(flight_id);
        entry.dialling = Some(flight_id);
        let stage = Stage::Looking(self.look(host, &peer, &want));
        let flight = Flight { id: flight_id, want, callers: BTreeSet::from([id]), unsatisfying, dials: 1, stage };
        self.entry(host, &peer).flight = Some(flight);
        self.poll_plan(host, &peer, flight_id);
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
        let Some(flight) = &mut entry.flight else { return };
        if flight.callers.remove(&id) && flight.callers.is_empty() {
            let flight = flight.id;
            entry.flight = None;
            for dial in self.node(who.host).tries.values_mut().filter(|t| t.peer == peer && t.flight == flight) {
                dial.doomed = true;
            }
            // The task of the flight ends when it is scheduled next; a new flight may begin before.
            let delay = self.rng.below(20 * MS);
            self.timer(who.host, delay, Timer::Abort(peer, flight));
        }
    }

    pub(super) fn caller_timeout(&mut self, id: usize) {
        if self.callers[id].answer.is_none() {
            self.caller_gone(id);
            self.answer(id, Err("out of time".into()));
        }
    }

    pub(super) fn abort(&mut self, host: usize, peer: &NodeName, flight: u64) {
        self.land(host, peer, flight);
    }

    /// Ends a flight without notifying its callers, and returns it.
    fn land(&mut self, host: usize, peer: &NodeName, flight: u64) -> Option<Flight> {
        self.drop_tries(host, peer, flight);
        let entry = self.entry(host, peer);
        entry.rules.dial_ends(flight);
        entry.dialling.take_if(|live| *live == flight);
        entry.flight.take_if(|live| live.id == flight)
    }

    fn flown(&mut self, host: usize, peer: &NodeName, flight: u64, flown: Flown) {
        if self.is_probe(host, peer, flight) {
            self.drop_tries(host, peer, flight);
            return self.probed(host, peer, flown.is_ok());
        }
        let Some(flight) = self.land(host, peer, flight) else { return };
        for id in flight.callers {
            let want = self.callers[id].want.clone();
            match flown {
                Ok(conn) if self.satisfies(host, conn, &want) => self.answer(id, Ok(conn)),
                Err(reason) if flight.want == want => self.answer(id, Err(reason.to_string())),
                _ => self.join(id),
            }
        }
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
        let flight = self.entry(host, peer).flight.as_mut().filter(|live| live.id == flight)?;
        match &mut flight.stage {
            Stage::Looking(looking) => Some(looking),
            Stage::Adopting { .. } => None,
        }
    }

    pub(super) fn poll_plan(&mut self, host: usize, peer: &NodeName, flight: u64) {
        loop {
            let now = self.now;
            let dial = (flight, self.dials(host, peer, flight));
            let Some(looking) = self.looking(host, peer, flight) else { return };
            let step = looking.plan.poll(at(now));
            let seen = match &step {
                Step::Resolve { .. } => Some(Move::Resolve),
                Step::Lookup { host, .. } => Some(Move::Lookup(format!("{host}:{}", script::PORT))),
                Step::Connect { socket, .. } => Some(Move::Connect(socket.to_string())),
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
                Step::Lookup { op, host: name } => {
                    let delay = self.rng.between(MS, 30 * MS);
                    self.timer(host, delay, Timer::LookedUp(peer.clone(), dial, op, name.to_string()));
                }
                Step::Connect { op, attempt, socket, .. } => self.try_out(host, peer, flight, op, *attempt, socket),
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
                    if let Some(conn) = op_conn {
                        self.flown(host, peer, flight, Ok(conn));
                    }
                    return;
                }
                Step::Done(Err(no_route)) => {
                    if done_early {
                        self.violated("the order of attempts equals the model's", "gave up early".into());
                    }
                    self.flown(host, peer, flight, Err(no_route.reason));
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
        let Some(grade) = self.entry(host, peer).flight.as_ref().map(|flight| flight.want.grade) else { return };
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
        let live = self.entry(host, peer).flight.as_ref().filter(|live| live.id == flight);
        live.map_or(0, |live| live.dials)
    }

    fn is_dial(&mut self, host: usize, peer: &NodeName, (flight, dial): (u64, u32)) -> bool {
        self.looking(host, peer, flight).is_some() && self.dials(host, peer, flight) == dial
    }

    pub(super) fn looked_up(&mut self, host: usize, peer: &NodeName, dial: (u64, u32), op: OpId, name: &str) {
        let flight = dial.0;
        if !self.is_dial(host, peer, dial) {
            return;
        }
        let ips = script::dns(name);
        let now = at(self.now);
        let Some(looking) = self.looking(host, peer, flight) else { return };
        looking.order.looked_up(ips.iter().map(|ip| SocketAddr::new(*ip, script::PORT).to_string()).collect());
        looking.plan.handle(now, PlanEvent::LookedUp { op, answer: Ok(ips) });
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
            doomed: false,
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
                let replace =
                    entry.flight.as_ref().is_some_and(|live| live.id == flight && live.unsatisfying.is_some());
                let may = entry.rules.may_finish(flight, verified.link_id, verified.incarnation, replace);
                self.say(|| format!("host {host}: {conn} to {peer} is proven, {may:?}"));
                self.go_for_it(host, conn, may);
            }
            Err(error) => self.try_failed(host, conn, attempt_error(error)),
        }
    }

    fn go_for_it(&mut self, host: usize, conn: ConnId, may: MayFinish) {
        let Some(dial) = self.node(host).tries.get_mut(&conn) else { return };
        let (Some(machine), Some(verified)) = (&mut dial.machine, &dial.verified) else { return };
        match may {
            MayFinish::Finish(claims) => {
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
            MayFinish::Adopt => {
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
        let on = entry.rules.accepted(flight, link);
        let result = invariants::invariant_i_up_only_under_its_own_flight(current, flight, on);
        self.hold(result);
        if on == OnAccept::Discard {
            self.entry(host, &peer).dialling = current;
        }
        self.say(|| format!("host {host}: {conn} to {peer} accepted, epoch {epoch}: {on:?}"));
        let OnAccept::Up(retire) = on else {
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
        let old = entry.link.replace(conn);
        if retire.is_some_and(|retire| !retire.alive) && old.is_some_and(|old| self.is_healthy(old)) {
            self.counts.note("a live name displaced by the end that dials");
        }
        self.went_up(host, conn, link);
        self.send(host, conn, Packet::Frame(Frame::Ping));
        self.report(host, conn);
        if let Some(old) = old.filter(|_| replaces) {
            self.ledger.replaced.insert(old, conn);
        }
        if let Some((old, retire)) = old.zip(retire) {
            self.retire(host, conn, old, retire, false);
        }
        self.hold_for_elders(host, conn);
        let now = at(self.now);
        if let Some(looking) = self.looking(host, &peer, flight) {
            looking.plan.handle(now, PlanEvent::Established { op, peer: peer.clone() });
        }
        self.poll_plan(host, &peer, flight);
        self.changed(host, &peer);
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
            self.entry(host, &dial.peer).rules.finish_failed(dial.flight, link);
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
            return self.adopt(host, &peer, flight);
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

    /// Waits for the link by which the peer has come, or is about to come.
    fn adopt(&mut self, host: usize, peer: &NodeName, flight: u64) {
        self.drop_tries(host, peer, flight);
        let entry = self.entry(host, peer);
        entry.rules.dial_ends(flight);
        entry.dialling.take_if(|live| *live == flight);
        let Some(live) = entry.flight.as_mut().filter(|live| live.id == flight) else { return };
        live.stage = Stage::Adopting { expected: false };
        let dial = live.dials;
        self.counts.note("adoptions awaited");
        self.timer(host, ADOPT, Timer::Adopt(peer.clone(), flight, dial));
        self.changed(host, peer);
    }

    pub(super) fn overtaken(&mut self, host: usize, peer: &NodeName, flight: u64) {
        if self.looking(host, peer, flight).is_some() {
            self.counts.note("dials overtaken");
            self.adopt(host, peer, flight);
        }
    }

    pub(super) fn adopt_timeout(&mut self, host: usize, peer: &NodeName, flight: u64, dial: u32) {
        let live = self.entry(host, peer).flight.as_ref();
        let waits = live.is_some_and(|live| {
            live.id == flight && live.dials == dial && matches!(live.stage, Stage::Adopting { .. })
        });
        if waits {
            self.counts.note("adoptions in vain");
            self.redial(host, peer, flight);
        }
    }

    fn redial(&mut self, host: usize, peer: &NodeName, flight: u64) {
        let entry = self.entry(host, peer);
        let Some(live) = entry.flight.as_mut() else { return };
        if live.dials >= MAX_DIALS {
            return self.flown(host, peer, flight, Err(Reason::OutOfTime));
        }
        live.dials += 1;
        let want = live.want.clone();
        entry.rules.dial_begins(flight);
        entry.dialling = Some(flight);
        let stage = Stage::Looking(self.look(host, peer, &want));
        if let Some(live) = &mut self.entry(host, peer).flight {
            live.stage = stage;
        }
        self.poll_plan(host, peer, flight);
    }

    /// Continues a flight that waits for a link after the links to its peer changed.
    pub(super) fn changed(&mut self, host: usize, peer: &NodeName) {
        self.wake_callers(host);
        let node = self.node(host);
        let Some(entry) = node.entries.get_mut(peer) else { return };
        let provisional = entry.rules.provisional().is_some();
        let link = entry.link;
        let Some(flight) = &mut entry.flight else { return };
        let Stage::Adopting { expected } = &mut flight.stage else { return };
        let id = flight.id;
        let link = link.filter(|conn| node.links.get(conn).map(|end| end.id) != flight.unsatisfying);
        if let Some(conn) = link {
            self.flown(host, peer, id, Ok(conn));
        } else if *expected && !provisional {
            self.redial(host, peer, id);
        } else {
            *expected |= provisional;
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
        other => AttemptError::Handshake(other.to_string()),
    }
}
