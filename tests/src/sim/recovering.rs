//! Recovery that nodes do by themselves: kept connections are dialled again, and those over a standby go back. Mirrors
//! the node's tasks around the keeper.

use trunkline_dial::Candidate;
use trunkline_dial::keep::{Better, better_routes};
use trunkline_route::{NodeName, Reconnect, ResolverId, Source};

use super::invariants;
use super::net::{ConnId, Micros};
use super::node::{Probes, Want};
use super::script::{self, Place};
use super::world::{Purpose, Timer, World, at};

impl World {
    /// Returns a number from 0 to 1.
    fn random(&mut self) -> f64 {
        self.rng.below(1_000_001) as f64 / 1e6
    }

    fn reconnect(&self, host: usize, peer: &NodeName) -> Reconnect {
        self.hosts[host].routes.get(peer).map_or_else(Reconnect::default, |specs| specs.reconnect)
    }

    /// Returns the routes to which a connection that this end dialled is to go back.
    pub fn better_routes(
        &self,
        host: usize,
        peer: &NodeName,
        route: Option<&str>,
        resolver: Option<&ResolverId>,
    ) -> Vec<Candidate> {
        let candidates = self.hosts[host].routes.get(peer).map(|specs| specs.ranked(0)).unwrap_or_default();
        better_routes(candidates, route, resolver, false)
    }

    fn better_now(&mut self, host: usize, peer: &NodeName) -> Vec<Candidate> {
        let Some(conn) = self.entry(host, peer).link() else { return Vec::new() };
        let came_by = self.node(host).links.get(&conn).and_then(|end| end.came_by.clone());
        came_by.map(|(route, by)| self.better_routes(host, peer, route.as_deref(), by.as_ref())).unwrap_or_default()
    }

    /// Returns true if a dial over this route reaches the peer when there are no faults.
    pub fn works(&self, peer: &NodeName, candidate: &Candidate) -> bool {
        let Source::Direct { host: Some(host), .. } = candidate.route.source() else { return false };
        let host = host.to_string();
        let leads_to = match host.parse() {
            Ok(ip) => vec![script::place(ip)],
            Err(_) => script::dns(&host).into_iter().map(script::place).collect(),
        };
        let there = |place: &Place| matches!(place, Place::Host(path) if self.hosts[path.host].name == *peer);
        leads_to.iter().any(there) && candidate.route.cookie() == Some(&script::cookie(true))
    }

    /// Handles a link that came up.
    pub(super) fn keep_up(&mut self, host: usize, conn: ConnId) {
        let who = self.life(host);
        let Some(end) = self.node(host).links.get(&conn) else { return };
        let peer = end.peer.clone();
        self.ledger.ended.remove(&(who, peer.clone()));
        let better: Vec<_> = self.better_now(host, &peer).iter().map(Better::of).collect();
        self.ledger.kept.insert((who, peer.clone()));
        self.ledger.healthy.retain(|(life, name, _), _| *life != who || *name != peer);
        let now = at(self.now);
        if self.node(host).keeper.up(now, &peer, &better) {
            self.counts.note("standbys");
            self.probe_later(host, &peer);
        }
    }

    /// Handles a connection that went down.
    pub(super) fn keep_down(&mut self, host: usize, peer: &NodeName, meant: bool) {
        let (who, reconnect) = (self.life(host), self.reconnect(host, peer));
        if meant {
            self.ledger.kept.remove(&(who, peer.clone()));
        }
        if meant || reconnect == Reconnect::Never {
            self.ledger.ended.insert((who, peer.clone()));
        }
        if self.node(host).keeper.down(peer, reconnect, meant) {
            self.redial_later(host, peer);
        }
    }

    fn redial_later(&mut self, host: usize, peer: &NodeName) {
        let (now, random) = (at(self.now), self.random());
        let pause = self.node(host).keeper.pause(now, peer, random);
        self.timer(host, pause.as_micros() as Micros, Timer::Redial(peer.clone()));
    }

    /// Dials again when the pause before a dial is over.
    pub(super) fn dial_again(&mut self, host: usize, peer: &NodeName) {
        let wanted = self.reconnect(host, peer) == Reconnect::Keep;
        if self.node(host).keeper.goes_on(peer, wanted, || true) {
            self.counts.note("kept connections dialled again");
            self.connect(host, peer, Want::default(), Purpose::Keep);
        }
    }

    /// Handles the result of the dial of a kept connection.
    pub(super) fn dialled_again(&mut self, host: usize, peer: &NodeName) {
        let is_down = self.entry(host, peer).link().is_none();
        if self.node(host).keeper.goes_on(peer, true, || is_down) {
            self.redial_later(host, peer);
        }
    }

    fn probe_later(&mut self, host: usize, peer: &NodeName) {
        let random = self.random();
        let pause = self.node(host).keeper.probe_pause(peer, random);
        self.timer(host, pause.as_micros() as Micros, Timer::Probe(peer.clone()));
    }

    /// Begins a round of probes when the pause before it is over.
    pub(super) fn begin_probes(&mut self, host: usize, peer: &NodeName) {
        let better = self.better_now(host, peer);
        let keys: Vec<_> = better.iter().map(Better::of).collect();
        self.node(host).keeper.watch(peer, &keys);
        self.probe_next(host, peer, better);
    }

    fn probe_next(&mut self, host: usize, peer: &NodeName, mut left: Vec<Candidate>) {
        let of = match self.node(host).probes.get(peer) {
            Some(round) => round.of,
            None => self.entry(host, peer).link(),
        };
        if left.is_empty() {
            return self.probes_done(host, peer);
        }
        let now = left.remove(0);
        let want = Want { grade: 0, only: Some(now.clone()), afresh: true };
        let looking = self.look(host, peer, &want);
        let node = self.node(host);
        let flight = node.next_flight;
        node.next_flight += 1;
        node.probes.insert(peer.clone(), Probes { of, now, left, flight: Some((flight, looking)) });
        self.poll_plan(host, peer, flight);
    }

    fn probes_done(&mut self, host: usize, peer: &NodeName) {
        self.node(host).probes.remove(peer);
        let has_better = !self.better_now(host, peer).is_empty();
        if has_better || self.node(host).keeper.goes_on_probing(peer, || has_better) {
            self.probe_later(host, peer);
        }
    }

    /// Handles the result of a probe of a better route.
    pub(super) fn probed(&mut self, host: usize, peer: &NodeName, healthy: bool) {
        let Some(probes) = self.node(host).probes.get_mut(peer) else { return };
        probes.flight = None;
        let (candidate, left, of) = (probes.now.clone(), probes.left.clone(), probes.of);
        let better = Better::of(&candidate);
        let now = at(self.now);
        self.counts.note(if healthy { "probes that succeeded" } else { "probes that failed" });
        let key = (self.life(host), peer.clone(), candidate.pattern.clone());
        let is_due = self.node(host).keeper.probed(now, peer, &better, healthy);
        let link = self.entry(host, peer).link();
        let is_open = link.is_some_and(|conn| self.node(host).links.get(&conn).is_some_and(|end| !end.draining));
        if healthy {
            let now = self.now;
            self.ledger.healthy.entry(key.clone()).or_insert(now);
        } else {
            self.ledger.healthy.remove(&key);
        }
        if !is_due {
            return self.probe_next(host, peer, left);
        }
        if !is_open || link != of {
            return self.probes_done(host, peer);
        }
        let hold = candidate.route.failback().unwrap_or_default().as_micros() as Micros;
        let since = self.ledger.healthy.get(&key).copied();
        self.hold(invariants::invariant_m_only_to_what_held(since, self.now, hold, &key));
        self.counts.note("moves to the better route");
        self.say(|| format!("host {host} goes back to {} for {peer}", candidate.pattern));
        let want = Want { grade: 0, only: Some(candidate), afresh: true };
        self.connect(host, peer, want, Purpose::GoBack(better));
    }

    /// Handles the result of the dial of the better route.
    pub(super) fn went_back(&mut self, host: usize, peer: &NodeName, better: &Better, ok: bool) {
        let Some(probes) = self.node(host).probes.get(peer) else { return };
        let (candidate, left) = (probes.now.clone(), probes.left.clone());
        let now = at(self.now);
        if ok {
            self.counts.note("connections back on the better route");
            self.node(host).keeper.moved(now, peer, better);
            return self.probes_done(host, peer);
        }
        self.node(host).keeper.probed(now, peer, better, false);
        let key = (self.life(host), peer.clone(), candidate.pattern);
        self.ledger.healthy.remove(&key);
        self.probe_next(host, peer, left);
    }
}
