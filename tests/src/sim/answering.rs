//! The listening side: handshakes with callers, the verdict, and the challenge.

use std::collections::BTreeSet;

use trunkline_dial::pair::{OnOffer, Pair};
use trunkline_dial::sessions::Verdict;
use trunkline_route::{Claims, CloseCode, LinkId, NodeName};
use trunkline_wire::handshake::{Credential, Hello, Params, Responder, ResponderConfig};

use super::model::{self, Ruling, Shadow, Situation};
use super::net::{ConnId, Frame, MS, Packet, SEC, Side};
use super::node::{Answer, LinkEnd, LinkHandle, Proven};
use super::rng::Rng;
use super::world::{Event, Timer, World};
use super::{invariants, script};

const HANDSHAKE: u64 = 5 * SEC;
const CHALLENGE: u64 = SEC;
const PROVISIONAL: u64 = 5 * SEC;

impl World {
    pub(super) fn arrive(&mut self, conn: ConnId) {
        let who = self.net.conn(conn).end(Side::Listener).who;
        let dialler = self.net.conn(conn).end(Side::Dialler).who;
        if self.net.partition(self.now, who.host, dialler.host).is_some() {
            return;
        }
        let delay = self.rng.between(MS, 40 * MS);
        if !self.lives(who) || !self.net.hears(conn, Side::Listener) {
            self.after(delay, Event::Refused(conn));
            return;
        }
        let nonce = self.rng.bytes();
        let name = self.hosts[who.host].name.clone();
        let config = ResponderConfig::new(name, self.node(who.host).incarnation, nonce);
        let machine = Responder::new(config, script::exporter(conn));
        self.node(who.host).answers.insert(conn, Answer { machine, proven: None, awaiting: None, challenging: None });
        self.timer(who.host, HANDSHAKE, Timer::Answer(conn));
        // Delay of TCP's answer and of TLS.
        self.after(2 * delay, Event::Connected(conn));
    }

    pub(super) fn body_to_listener(&mut self, host: usize, conn: ConnId, body: &[u8]) {
        let Some(answer) = self.node(host).answers.get_mut(&conn) else { return };
        if body.first() == Some(&1) {
            let credentials = |_: &NodeName, _: &str| Credential::Cookie(script::cookie(true));
            match answer.machine.hello1(body, &credentials) {
                Ok(Hello::Answer(hello2)) => self.send(host, conn, Packet::Body(hello2)),
                Ok(Hello::Reject(reject, code)) => {
                    self.say(|| format!("host {host} rejects {conn}: {code}"));
                    self.send(host, conn, Packet::Body(reject));
                    self.answer_over(host, conn);
                }
                Err(error) => self.violated("honest bytes are understood", error.to_string()),
            }
            return;
        }
        match answer.machine.finish(body) {
            Ok(offer) if offer.params.abandon || offer.is_probe => {
                self.counts.note(if offer.is_probe { "probes answered" } else { "abandoned" });
                self.answer_over(host, conn);
            }
            Ok(offer) => {
                let claims = Claims {
                    known_epoch: offer.params.known_epoch,
                    last_link: offer.params.last_link,
                    have_link: offer.params.have_link,
                    replaces: offer.params.replaces,
                };
                answer.proven =
                    Some(Proven { from: offer.from, incarnation: offer.incarnation, link: offer.link_id, claims });
                self.decide(host, conn, None);
            }
            Err(error) => self.violated("honest bytes are understood", error.to_string()),
        }
    }

    fn decide(&mut self, host: usize, conn: ConnId, challenged: Option<(LinkId, bool)>) {
        let Some(proven) = self.node(host).answers.get(&conn).and_then(|answer| answer.proven.clone()) else { return };
        let Proven { from, incarnation, link, claims } = proven;
        let caller_is_greater = from > self.hosts[host].name;
        let finish_sent = self.node(host).tries.values().any(|t| t.peer == from && t.finish.is_some());
        let config = self.config;
        let entry = self.entry(host, &from);
        let before = entry.peer.pair().up();
        let situation = Situation {
            up: before,
            finish_sent,
            dialling: entry.peer.pair().dialling().is_some(),
            caller: incarnation,
            claims,
            caller_is_greater,
            challenged,
            known: entry.shadow.known(incarnation),
        };
        let (pair, shadow) = (entry.peer.pair().clone(), entry.shadow);
        let verdict = entry.peer.offer(link, incarnation, Some(claims), caller_is_greater, challenged);
        let after = entry.peer.pair().up();
        self.say(|| format!("host {host} offered {conn} by {from}: {verdict:?} {claims:?}"));
        self.hold(invariants::invariant_c_provisional_displaces_nothing(before, after));
        if config.table && !matches!(verdict, Verdict::Await(_)) {
            let (row, expected) = model::rule(&situation);
            *self.counts.rows.entry(row).or_default() += 1;
            self.hold(invariants::invariant_rules_match_the_table(row, expected, offered(&verdict), &situation));
            self.what_if(&pair, shadow, situation);
        }
        match verdict {
            Verdict::Await(unheard) => {
                self.counts.note("offers that wait for a first frame");
                if let Some(answer) = self.node(host).answers.get_mut(&conn) {
                    answer.awaiting = Some(unheard);
                }
                self.timer(host, PROVISIONAL, Timer::Unsettled(conn));
            }
            Verdict::Accept(epoch) => {
                if before.is_some_and(|up| up.incarnation != incarnation) {
                    let old = self.entry(host, &from).link();
                    let result = invariants::invariant_f_a_live_name_is_not_taken(self, old);
                    self.hold(result);
                }
                self.accept(host, conn, epoch);
            }
            Verdict::Challenge(LinkHandle { conn: old, id, .. }) => {
                self.counts.note("challenges");
                if !self.node(host).links[&old].hold.is_empty() {
                    // The link is held, so it reads nothing: its silence counts as an answer.
                    return self.decide(host, conn, Some((id, true)));
                }
                if let Some(answer) = self.node(host).answers.get_mut(&conn) {
                    answer.challenging = Some((old, id));
                }
                self.send(host, old, Packet::Frame(Frame::Probe(conn)));
                self.timer(host, CHALLENGE, Timer::Challenge(old, conn));
            }
            Verdict::Refuse(OnOffer::Duplicate) => self.refuse(host, conn, CloseCode::Duplicate),
            Verdict::Refuse(OnOffer::NameInUse) => {
                if !self.twins {
                    self.counts.note("name in use by a former life");
                } else {
                    self.counts.note("name in use");
                }
                self.refuse(host, conn, CloseCode::NameInUse);
            }
            Verdict::Refuse(_) => self.refuse(host, conn, CloseCode::LostTie),
            Verdict::Full => self.violated("a peer always has room", format!("for {from}")),
        }
    }

    /// Compares the rules with the table in the current state, for an offer that nobody made.
    fn what_if(&mut self, pair: &Pair, shadow: Shadow, mut situation: Situation) {
        // The random generator is separate, so that the history is the same with and without the table.
        let mut rng = Rng::new(self.now);
        let up = pair.up();
        let mut id = || match rng.below(3) {
            0 => None,
            1 => Some([9; 16].into()),
            _ => up.map(|up| up.id),
        };
        let (last_link, have_link, replaces, probed) = (id(), id(), id(), id());
        let epoch = up.map_or(1, |up| up.epoch);
        let known_epoch = rng.between(epoch.saturating_sub(2), epoch + 2);
        situation.claims = Claims { known_epoch, last_link, have_link, replaces };
        situation.challenged = probed.map(|probed| (probed, rng.percent(50)));
        situation.caller_is_greater = rng.percent(50);
        if let Some(up) = up.filter(|_| rng.percent(60)) {
            situation.caller = up.incarnation;
        }
        situation.known = shadow.known(situation.caller);
        let Situation { caller, claims, caller_is_greater, challenged, .. } = situation;
        let verdict = pair.clone().offer([8; 16].into(), caller, Some(claims), caller_is_greater, challenged);
        let (row, expected) = model::rule(&situation);
        *self.counts.rows.entry(row).or_default() += 1;
        self.hold(invariants::invariant_rules_match_the_table(row, expected, verdict, &situation));
    }

    fn refuse(&mut self, host: usize, conn: ConnId, code: CloseCode) {
        if let Some(mut answer) = self.node(host).answers.remove(&conn) {
            let body = answer.machine.close(code, "");
            self.send(host, conn, Packet::Body(body));
            self.hang_up(host, conn);
        }
    }

    fn accept(&mut self, host: usize, conn: ConnId, epoch: u64) {
        let Some(mut answer) = self.node(host).answers.remove(&conn) else { return };
        let Some(Proven { from, incarnation, link, .. }) = answer.proven.take() else { return };
        let entry = self.entry(host, &from);
        entry.shadow.saw(incarnation, epoch);
        entry.dialling = None;
        entry.peer.stand(LinkHandle { conn, id: link, incarnation });
        let Ok(body) = answer.machine.accept(&Params { epoch, ..Params::default() }) else { return };
        let end = LinkEnd {
            peer: from.clone(),
            id: link,
            epoch,
            grade: 0,
            came_by: None,
            since: self.now,
            provisional: true,
            heir: None,
            draining: false,
            peer_gone: false,
            meant: false,
            hold: BTreeSet::new(),
            held: Vec::new(),
        };
        self.node(host).links.insert(conn, end);
        self.send(host, conn, Packet::Body(body));
        self.report(host, conn);
        self.timer(host, PROVISIONAL, Timer::Provisional(conn));
        self.carry_out(host, &from);
    }

    /// Wakes the callers that may wait for a link that went up or down.
    pub(super) fn wake_callers(&mut self, host: usize) {
        let waiting = self.node(host).answers.iter().filter(|(_, answer)| answer.awaiting.is_some());
        for conn in waiting.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.timer(host, 0, Timer::Settled(conn));
        }
    }

    pub(super) fn settled(&mut self, host: usize, conn: ConnId) {
        if let Some(answer) = self.node(host).answers.get_mut(&conn)
            && answer.awaiting.take().is_some()
        {
            self.decide(host, conn, None);
        }
    }

    pub(super) fn unsettled(&mut self, host: usize, conn: ConnId) {
        if self.node(host).answers.get(&conn).is_some_and(|answer| answer.awaiting.is_some()) {
            self.refuse(host, conn, CloseCode::LostTie);
        }
    }

    /// Continues the handshake of a caller when the probed link answered its challenge or failed to.
    pub(super) fn challenged(&mut self, host: usize, probed: ConnId, conn: ConnId, answered: bool) {
        let Some(answer) = self.node(host).answers.get_mut(&conn) else { return };
        if let Some((_, id)) = answer.challenging.take_if(|(old, _)| *old == probed) {
            self.decide(host, conn, Some((id, answered)));
        }
    }

    pub(super) fn answer_timeout(&mut self, host: usize, conn: ConnId) {
        if self.node(host).answers.contains_key(&conn) {
            self.counts.note("callers timed out");
        }
        self.answer_over(host, conn);
    }

    pub(super) fn answer_over(&mut self, host: usize, conn: ConnId) {
        if self.node(host).answers.remove(&conn).is_some() {
            self.hang_up(host, conn);
        }
    }

    pub(super) fn provisional_timeout(&mut self, host: usize, conn: ConnId) {
        if self.node(host).links.get(&conn).is_some_and(|end| end.provisional) {
            self.counts.note("provisional links timed out");
            self.close_link(host, conn);
        }
    }
}

/// Converts a verdict to the form in which the rules of a pair give it.
fn offered(verdict: &Verdict<LinkHandle>) -> OnOffer {
    match verdict {
        Verdict::Accept(epoch) => OnOffer::Accept { epoch: *epoch, cancel: None, dropped: None },
        Verdict::Challenge(link) => OnOffer::Challenge(link.id),
        Verdict::Refuse(refused) => *refused,
        Verdict::Await(_) | Verdict::Full => OnOffer::LostTie,
    }
}

/// Returns true if a ruling and a verdict are the same.
pub fn agree(ruling: Ruling, verdict: OnOffer) -> bool {
    match (ruling, verdict) {
        (Ruling::Accept(expected), OnOffer::Accept { epoch, .. }) => expected == epoch,
        (Ruling::Challenge, OnOffer::Challenge(_))
        | (Ruling::Duplicate, OnOffer::Duplicate)
        | (Ruling::LostTie, OnOffer::LostTie)
        | (Ruling::NameInUse, OnOffer::NameInUse) => true,
        _ => false,
    }
}
