//! Established links: the first frame, messages, the drain of a replaced link, and the end.

use trunkline_dial::pair::{LinkRef, Retire};
use trunkline_dial::sessions::Up;
use trunkline_route::NodeName;
use trunkline_wire::important::{Arrival, Outcome};

use super::invariants;
use super::ledger::Kept;
use super::net::{ConnId, Frame, Packet, SEC, Side};
use super::node::{Account, Life, LinkHandle, Want};
use super::world::{Purpose, Timer, World};

const DRAIN: u64 = 10 * SEC;
const UNHEARD: u64 = 5 * SEC;

/// Reason for which a link goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both ends announced that nothing more comes.
    Clean,
    /// Any other reason.
    Broken,
}

impl World {
    pub(super) fn link_packet(&mut self, host: usize, conn: ConnId, packet: Packet) {
        let Some(end) = self.node(host).links.get_mut(&conn) else { return };
        if !end.hold.is_empty() {
            match packet {
                // A node always answers probes.
                Packet::Frame(Frame::Probe(of)) => self.send(host, conn, Packet::Frame(Frame::Alive(of))),
                packet => end.held.push(packet),
            }
            return;
        }
        let provisional = end.provisional;
        match packet {
            Packet::Frame(frame) => {
                if provisional && !self.confirm(host, conn) {
                    return;
                }
                self.frame(host, conn, frame);
            }
            Packet::End => self.link_down(host, conn, Ending::Broken),
            Packet::Body(_) => {}
        }
    }

    /// Handles the first frame of an accepted link.
    fn confirm(&mut self, host: usize, conn: ConnId) -> bool {
        let Some(end) = self.node(host).links.get_mut(&conn) else { return false };
        end.provisional = false;
        let (id, peer) = (end.id, end.peer.clone());
        let entry = self.entry(host, &peer);
        let Some((_, Up { replaced, elders })) = entry.peer.confirmed(id) else {
            self.say(|| format!("host {host}: {conn} is out of date"));
            self.carry_out(host, &peer);
            self.close_link(host, conn);
            return false;
        };
        let up = entry.peer.pair().up();
        self.say(|| format!("host {host}: {conn} to {peer} confirmed, {replaced:?}"));
        if let Some(up) = up {
            self.went_up(host, conn, up);
        }
        self.hold_for(host, conn, &elders);
        if let Some((old, retire)) = replaced {
            self.retire(host, conn, old.conn, retire, true);
        }
        self.carry_out(host, &peer);
        true
    }

    /// Records a link that has come up.
    pub(super) fn went_up(&mut self, host: usize, conn: ConnId, up: LinkRef) {
        let own = self.node(host).incarnation;
        let result = invariants::invariant_g_epochs_increase(&mut self.ledger, own, &up);
        self.hold(result);
        self.counts.note("links up");
        self.keep_up(host, conn);
    }

    /// Replaces a link by a new one. The listening end ends the old link at once. The dialling end waits until the peer
    /// has heard from the new link, since the peer would otherwise see its only link drain.
    pub(super) fn retire(&mut self, host: usize, new: ConnId, old: ConnId, retire: Retire, at_once: bool) {
        if !retire.alive {
            self.close_link(host, old);
            return;
        }
        self.counts.note("links replaced");
        if let Some(end) = self.node(host).links.get_mut(&old) {
            end.heir = Some(new);
        }
        if at_once {
            self.go_away(host, old);
        } else {
            self.timer(host, UNHEARD, Timer::Unheard(old));
        }
    }

    /// Makes the new link wait for the remaining messages of older links.
    pub(super) fn hold_for(&mut self, host: usize, new: ConnId, elders: &[LinkHandle]) {
        let links = &self.node(host).links;
        let delivers = |conn: &ConnId| links.get(conn).is_some_and(|end| !end.peer_gone);
        let elders: Vec<_> = elders.iter().map(|elder| elder.conn).filter(delivers).collect();
        if elders.is_empty() {
            return;
        }
        if let Some(end) = self.node(host).links.get_mut(&new) {
            end.hold.extend(elders);
            self.timer(host, DRAIN, Timer::Hold(new));
        }
    }

    fn frame(&mut self, host: usize, conn: ConnId, frame: Frame) {
        match frame {
            Frame::Ping => {}
            Frame::Probe(of) => self.send(host, conn, Packet::Frame(Frame::Alive(of))),
            Frame::Alive(of) => self.challenged(host, conn, of, true),
            Frame::Data(number) => {
                let to = self.life(host);
                let from = self.peer_life(host, conn);
                let (before, times) = self.ledger.arrived(from, to, number);
                self.say(|| format!("host {host} takes message {number} over {conn}"));
                self.hold(invariants::invariant_d_once_and_in_order(from, to, number, before, times));
                self.counts.note("messages delivered");
            }
            Frame::Important(seq, number) => self.important(host, conn, seq, number),
            Frame::Outcomes(is_report, outcomes) => self.outcomes(host, conn, is_report, &outcomes),
            Frame::Release(floor) => self.account(host, conn).incoming.released(floor),
            Frame::GoAway { meant } => {
                let Some(end) = self.node(host).links.get_mut(&conn) else { return };
                end.peer_gone = true;
                end.meant |= meant;
                self.go_away(host, conn);
                self.release_holders(host, conn);
                if self.node(host).links.contains_key(&conn) {
                    self.link_down(host, conn, Ending::Clean);
                }
            }
        }
    }

    fn account(&mut self, host: usize, conn: ConnId) -> &mut Account {
        let peer = self.peer_life(host, conn);
        self.node(host).accounts.entry(peer).or_default()
    }

    /// Begins a link with a report of the known outcomes of the peer's important messages.
    pub(super) fn report(&mut self, host: usize, conn: ConnId) {
        let outcomes = self.account(host, conn).incoming.outcomes();
        self.send(host, conn, Packet::Frame(Frame::Outcomes(true, outcomes)));
    }

    fn important(&mut self, host: usize, conn: ConnId, seq: u64, number: u64) {
        let (from, to) = (self.peer_life(host, conn), self.life(host));
        let arrived = self.account(host, conn).incoming.arrived(seq);
        self.say(|| format!("host {host}: important {number} as {seq} over {conn}: {arrived:?}"));
        let outcome = match arrived {
            Ok(Arrival::New) => {
                self.account(host, conn).incoming.record(seq, Outcome::Taken);
                let kept = self.ledger.important.entry((from, to, number)).or_default();
                kept.arrived += 1;
                self.counts.note("important messages delivered");
                Outcome::Taken
            }
            Ok(Arrival::Known(outcome)) => {
                self.counts.note("important messages that came again");
                outcome
            }
            Ok(Arrival::Settled) => return,
            Err(_) => return self.hold(invariants::invariant_j_never(number)),
        };
        let kept = self.ledger.important[&(from, to, number)];
        self.hold(invariants::invariant_j_once(from, to, number, kept));
        self.send(host, conn, Packet::Frame(Frame::Outcomes(false, vec![(seq, outcome)])));
    }

    fn outcomes(&mut self, host: usize, conn: ConnId, is_report: bool, outcomes: &[(u64, Outcome)]) {
        let Some(epoch) = self.node(host).links.get(&conn).map(|end| end.epoch) else { return };
        let (own, peer) = (self.life(host), self.peer_life(host, conn));
        let outgoing = &mut self.account(host, conn).outgoing;
        let told: Vec<u64> = match is_report {
            true => outgoing.reported(epoch, outcomes).into_iter().map(|(number, _)| number).collect(),
            false => outcomes.iter().filter_map(|(seq, _)| outgoing.settled(*seq)).collect(),
        };
        let mut frames = Vec::new();
        if outgoing.is_present(epoch) {
            frames.extend(outgoing.to_release().map(Frame::Release));
            while let Some((seq, number)) = outgoing.next_unsent(epoch) {
                frames.push(Frame::Important(seq, *number));
                outgoing.resent(seq);
            }
        }
        for number in told {
            let kept = self.ledger.important.entry((own, peer, number)).or_default();
            kept.told = true;
            let kept = *kept;
            self.hold(invariants::invariant_j_once(own, peer, number, kept));
            self.counts.note("important messages confirmed");
        }
        for frame in frames {
            if matches!(frame, Frame::Important(..)) {
                self.counts.note("important messages sent again");
            }
            self.send(host, conn, Packet::Frame(frame));
        }
    }

    fn send_important(&mut self, host: usize, conn: ConnId, number: u64) {
        let Some(end) = self.node(host).links.get(&conn).filter(|end| !end.draining) else { return };
        let epoch = end.epoch;
        let (own, peer) = (self.life(host), self.peer_life(host, conn));
        let outgoing = &mut self.account(host, conn).outgoing;
        let Some(seq) = outgoing.may_send(epoch) else { return };
        let release = outgoing.to_release();
        outgoing.sent(number);
        self.ledger.important.insert((own, peer, number), Kept::default());
        self.counts.note("important messages sent");
        for frame in release.map(Frame::Release).into_iter().chain([Frame::Important(seq, number)]) {
            self.send(host, conn, Packet::Frame(frame));
        }
    }

    pub(super) fn peer_life(&self, host: usize, conn: ConnId) -> Life {
        let conn = self.net.conn(conn);
        conn.end(conn.side_of(self.life(host)).other()).who
    }

    /// Stops accepting new messages. The link ends when the peer does the same.
    pub(super) fn go_away(&mut self, host: usize, conn: ConnId) {
        let Some(end) = self.node(host).links.get_mut(&conn) else { return };
        if std::mem::replace(&mut end.draining, true) {
            return;
        }
        let meant = end.meant;
        self.send(host, conn, Packet::Frame(Frame::GoAway { meant }));
        self.timer(host, DRAIN, Timer::Drain(conn));
    }

    /// Closes a link at once.
    pub(super) fn close_link(&mut self, host: usize, conn: ConnId) {
        self.link_down(host, conn, Ending::Broken);
    }

    /// Ends a connection for a program, after draining it.
    pub(super) fn disconnect(&mut self, host: usize, conn: ConnId) {
        if let Some(end) = self.node(host).links.get_mut(&conn) {
            end.meant |= !end.draining;
            self.go_away(host, conn);
        }
    }

    /// Continues with the held messages once the old link is drained, or once that takes too long.
    pub(super) fn release(&mut self, host: usize, conn: ConnId) {
        let Some(end) = self.node(host).links.get_mut(&conn) else { return };
        if end.hold.is_empty() {
            return;
        }
        end.hold.clear();
        for packet in std::mem::take(&mut end.held) {
            self.link_packet(host, conn, packet);
        }
    }

    fn release_holders(&mut self, host: usize, old: ConnId) {
        let waiting: Vec<_> =
            self.node(host).links.iter().filter(|(_, end)| end.hold.contains(&old)).map(|(conn, _)| *conn).collect();
        for conn in waiting {
            let Some(end) = self.node(host).links.get_mut(&conn) else { continue };
            if end.hold.len() > 1 {
                end.hold.remove(&old);
            } else {
                self.release(host, conn);
            }
        }
    }

    /// Handles the end of a link at this end.
    pub(super) fn link_down(&mut self, host: usize, conn: ConnId, ending: Ending) {
        let Some(end) = self.node(host).links.remove(&conn) else { return };
        self.say(|| format!("host {host}: link {conn} to {} is down, {ending:?}", end.peer));
        self.hang_up(host, conn);
        if ending != Ending::Clean {
            let who = self.life(host);
            self.ledger.broke(who, conn);
        }
        let entry = self.entry(host, &end.peer);
        let was_live = entry.peer.down(end.id);
        entry.peer.elder_down(end.id);
        let probing: Vec<_> = self
            .node(host)
            .answers
            .iter()
            .filter_map(|(caller, answer)| answer.challenging.filter(|(probed, _)| *probed == conn).map(|_| *caller))
            .collect();
        self.release_holders(host, conn);
        for caller in probing {
            self.challenged(host, conn, caller, false);
        }
        let orphans = self.node(host).links.iter().filter(|(_, end)| end.heir == Some(conn));
        for orphan in orphans.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.go_away(host, orphan);
        }
        if was_live {
            self.keep_down(host, &end.peer, end.meant);
        }
        self.carry_out(host, &end.peer);
    }

    /// Sends messages for a program: over the existing link, or over one that is dialled for them, unless the
    /// connection is to stay down.
    pub(super) fn send_messages(&mut self, host: usize, peer: &NodeName, count: u64) {
        if self.hosts[host].node.is_none() || *peer == self.hosts[host].name {
            return;
        }
        if self.entry(host, peer).link().is_none() {
            if self.node(host).keeper.has_lapsed(peer) {
                self.counts.note("sends to a lapsed name");
            } else {
                self.connect(host, peer, Want::default(), Purpose::Program(count));
            }
            return;
        }
        for _ in 0..count {
            self.send_message(host, peer);
        }
    }

    /// Sends a message over the existing link. The program sees an error directly.
    pub(super) fn send_message(&mut self, host: usize, peer: &NodeName) {
        let entry = self.entry(host, peer);
        let Some(conn) = entry.link() else { return };
        entry.sent += 1;
        let number = entry.sent;
        let open = self.node(host).links.get(&conn).is_some_and(|end| !end.draining);
        if !open {
            self.counts.note("messages refused");
            return;
        }
        let (from, to) = (self.life(host), self.peer_life(host, conn));
        self.ledger.sent(from, to, number, conn);
        self.say(|| format!("host {host} sends message {number} over {conn}"));
        self.counts.note("messages sent");
        self.send(host, conn, Packet::Frame(Frame::Data(number)));
        self.send_important(host, conn, number);
    }

    /// Returns true if a link answers: both ends listen to it, and no fault lies or recently lay between them.
    pub fn is_healthy(&self, conn: ConnId) -> bool {
        let c = self.net.conn(conn);
        let (a, b) = (c.end(Side::Dialler), c.end(Side::Listener));
        let calm = self.net.last_partition(a.who.host, b.who.host).is_none_or(|end| end + 3 * SEC < self.now);
        let stands = |life: Life| {
            let node = self.hosts[life.host].node.as_ref();
            node.is_some_and(|node| node.links.contains_key(&conn))
        };
        c.cut.is_none() && a.open && b.open && calm && stands(a.who) && stands(b.who)
    }
}
