//! The network: connections that carry whole messages in order, break, half-break, and stall.

use std::collections::BTreeMap;

use trunkline_wire::important::Outcome;

use super::node::Life;
use super::rng::Rng;

/// Virtual time in microseconds.
pub type Micros = u64;
/// A millisecond.
pub const MS: Micros = 1_000;
/// A second.
pub const SEC: Micros = 1_000_000;
/// Time after which an end that was not notified learns that a connection is dead.
pub const DEAD_AFTER: Micros = 15 * SEC;

/// Number of a connection.
pub type ConnId = usize;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The end that dialled.
    Dialler,
    /// The end that was dialled.
    Listener,
}

impl Side {
    /// Returns the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// Frame of an established link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Sent first by the initiator, to say that it is up.
    Ping,
    /// Request to show that the peer is alive, answered by `Alive`.
    Probe(ConnId),
    /// Answer to a probe, with the connection that waits for it.
    Alive(ConnId),
    /// A numbered message.
    Data(u64),
    /// An important message: its number for the peer, and ours.
    Important(u64, u64),
    /// Outcomes of important messages. If the flag is true, this is a report of all that are kept.
    Outcomes(bool, Vec<(u64, Outcome)>),
    /// Every important message below this number is settled.
    Release(u64),
    /// Announcement that no new message follows.
    GoAway {
        /// True if a program requested the end.
        meant: bool,
    },
}

/// One message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Message of the handshake, as bytes.
    Body(Vec<u8>),
    /// Frame of the link.
    Frame(Frame),
    /// End of the stream. Every link ends with it, in order.
    End,
}

/// One end of a connection.
#[derive(Debug, Clone)]
pub struct End {
    /// Incarnation that owns the end.
    pub who: Life,
    /// True if the owner still listens to it.
    pub open: bool,
    /// Arrival time of the last packet.
    last: Micros,
}

/// Path to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The destination.
    pub host: usize,
    /// True for the second address of the host.
    pub slow: bool,
}

/// Effect of a path that is down on a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The dial is refused.
    Refuses,
    /// The dial gets no response.
    Silent,
}

/// Connection between two incarnations.
#[derive(Debug, Clone)]
pub struct Conn {
    ends: [End; 2],
    /// Time at which it broke.
    pub cut: Option<Micros>,
    /// Path that it takes.
    pub path: Option<Path>,
    slow: Micros,
}

impl Conn {
    /// Returns the end of this side.
    pub fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// Returns the side of this incarnation.
    pub fn side_of(&self, who: Life) -> Side {
        if self.ends[0].who == who { Side::Dialler } else { Side::Listener }
    }
}

/// All connections, and the partitions between hosts.
#[derive(Debug, Default)]
pub struct Net {
    conns: Vec<Conn>,
    /// End of each partition, by pair of hosts, lesser first.
    partitions: BTreeMap<(usize, usize), Micros>,
    /// Paths that are down, each with the time at which it comes back.
    outages: BTreeMap<Path, (Micros, Outage)>,
}

impl Net {
    /// Returns a connection.
    pub fn conn(&self, conn: ConnId) -> &Conn {
        &self.conns[conn]
    }

    /// Returns the number of connections so far.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Returns true if there has been no connection.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Opens a connection. `slow` is added to every delay.
    pub fn open(&mut self, dialler: Life, listener: Life, path: Option<Path>, slow: Micros) -> ConnId {
        let end = |who| End { who, open: true, last: 0 };
        self.conns.push(Conn { ends: [end(dialler), end(listener)], cut: None, path, slow });
        self.conns.len() - 1
    }

    /// Returns the arrival time at this side of a packet that leaves now, or `None` if it never arrives. Keeps the
    /// order.
    pub fn arrival(&mut self, now: Micros, conn: ConnId, to: Side, rng: &mut Rng) -> Option<Micros> {
        let stalled = self.partition(now, self.conns[conn].ends[0].who.host, self.conns[conn].ends[1].who.host);
        let conn = &mut self.conns[conn];
        if conn.cut.is_some() {
            return None;
        }
        let leaves = stalled.unwrap_or(now);
        let end = conn.end(to);
        let at = (leaves + conn.slow + rng.between(MS, 40 * MS)).max(end.last + 1);
        conn.end_mut(to).last = at;
        Some(at)
    }

    /// Closes this end: its owner no longer listens to it.
    pub fn close(&mut self, conn: ConnId, side: Side) {
        self.conns[conn].end_mut(side).open = false;
    }

    /// Returns true if this side reads what arrives now.
    pub fn hears(&self, conn: ConnId, side: Side) -> bool {
        self.conns[conn].cut.is_none() && self.conns[conn].end(side).open
    }

    /// Breaks a connection. Returns true if it was unbroken.
    pub fn cut(&mut self, now: Micros, conn: ConnId) -> bool {
        let whole = self.conns[conn].cut.is_none();
        self.conns[conn].cut.get_or_insert(now);
        whole
    }

    /// Blocks all packets between two hosts until the given time.
    pub fn part(&mut self, a: usize, b: usize, until: Micros) {
        self.partitions.insert((a.min(b), a.max(b)), until);
    }

    /// Returns the end of the current partition between two hosts.
    pub fn partition(&self, now: Micros, a: usize, b: usize) -> Option<Micros> {
        self.partitions.get(&(a.min(b), a.max(b))).copied().filter(|until| *until > now)
    }

    /// Returns the time at which the last partition between two hosts ended or ends.
    pub fn last_partition(&self, a: usize, b: usize) -> Option<Micros> {
        self.partitions.get(&(a.min(b), a.max(b))).copied()
    }

    /// Takes a path down until the given time.
    pub fn take_down(&mut self, path: Path, until: Micros, outage: Outage) {
        self.outages.insert(path, (until, outage));
    }

    /// Returns the outage of a path, if it is down.
    pub fn outage(&self, now: Micros, path: Path) -> Option<Outage> {
        self.outages.get(&path).filter(|(until, _)| *until > now).map(|(_, outage)| *outage)
    }

    /// Returns the unbroken connections over this path.
    pub fn by_path(&self, path: Path) -> Vec<ConnId> {
        (0..self.conns.len())
            .filter(|conn| self.conns[*conn].path == Some(path) && self.conns[*conn].cut.is_none())
            .collect()
    }

    /// Returns the connections with an open end of this incarnation.
    pub fn open_of(&self, who: Life) -> Vec<(ConnId, Side)> {
        let ends = self.conns.iter().enumerate().flat_map(|(id, conn)| {
            [Side::Dialler, Side::Listener].map(|side| (id, side, conn.end(side).who, conn.end(side).open))
        });
        ends.filter(|(_, _, owner, open)| *owner == who && *open).map(|(id, side, _, _)| (id, side)).collect()
    }
}
