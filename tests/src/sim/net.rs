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
/// When an end that was not told learns that a connection is dead.
pub const DEAD_AFTER: Micros = 15 * SEC;

/// Names one connection.
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
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// What goes over a link that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The initiator is up.
    Ping,
    /// Do you live? Answered by `Alive`.
    Probe(ConnId),
    /// The answer, with the connection that waits for it.
    Alive(ConnId),
    /// A numbered message.
    Data(u64),
    /// An important message: its number for the peer, and ours.
    Important(u64, u64),
    /// Outcomes of important messages; as a report, all that are kept.
    Outcomes(bool, Vec<(u64, Outcome)>),
    /// Every important message below this number is settled.
    Release(u64),
    /// Nothing new comes after this.
    GoAway {
        /// A program wants it so.
        meant: bool,
    },
}

/// One message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Of the handshake, as bytes.
    Body(Vec<u8>),
    /// Of the link.
    Frame(Frame),
    /// The end of the stream; every link ends with it, in order.
    End,
}

/// One end.
#[derive(Debug, Clone)]
pub struct End {
    /// Whose it is.
    pub who: Life,
    /// Whether its owner still listens to it.
    pub open: bool,
    /// When the last packet arrives here.
    last: Micros,
}

/// A way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Where to.
    pub host: usize,
    /// By its second address.
    pub slow: bool,
}

/// What a dial by a path that is down meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// It is refused.
    Refuses,
    /// Nothing comes back.
    Silent,
}

/// A connection between two lives.
#[derive(Debug, Clone)]
pub struct Conn {
    ends: [End; 2],
    /// When it broke.
    pub cut: Option<Micros>,
    /// The way it takes.
    pub path: Option<Path>,
    slow: Micros,
}

impl Conn {
    /// The end of this side.
    pub fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// The side of this life.
    pub fn side_of(&self, who: Life) -> Side {
        if self.ends[0].who == who { Side::Dialler } else { Side::Listener }
    }
}

/// All connections, and the partitions between hosts.
#[derive(Debug, Default)]
pub struct Net {
    conns: Vec<Conn>,
    /// By pair of hosts, lesser first: until when nothing passes.
    partitions: BTreeMap<(usize, usize), Micros>,
    /// Paths that are down, and until when.
    outages: BTreeMap<Path, (Micros, Outage)>,
}

impl Net {
    /// A connection.
    pub fn conn(&self, conn: ConnId) -> &Conn {
        &self.conns[conn]
    }

    /// How many there have been.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there has been none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// A new one. `slow` is added to every delay.
    pub fn open(&mut self, dialler: Life, listener: Life, path: Option<Path>, slow: Micros) -> ConnId {
        let end = |who| End { who, open: true, last: 0 };
        self.conns.push(Conn { ends: [end(dialler), end(listener)], cut: None, path, slow });
        self.conns.len() - 1
    }

    /// When a packet that leaves now arrives at this side; `None` when it never does. Keeps the order.
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

    /// This end is not listened to any more.
    pub fn close(&mut self, conn: ConnId, side: Side) {
        self.conns[conn].end_mut(side).open = false;
    }

    /// Whether what arrives now is read by this side.
    pub fn hears(&self, conn: ConnId, side: Side) -> bool {
        self.conns[conn].cut.is_none() && self.conns[conn].end(side).open
    }

    /// Breaks it. Says whether it was whole.
    pub fn cut(&mut self, now: Micros, conn: ConnId) -> bool {
        let whole = self.conns[conn].cut.is_none();
        self.conns[conn].cut.get_or_insert(now);
        whole
    }

    /// Nothing passes between two hosts until then.
    pub fn part(&mut self, a: usize, b: usize, until: Micros) {
        self.partitions.insert((a.min(b), a.max(b)), until);
    }

    /// Until when nothing passes between two hosts.
    pub fn partition(&self, now: Micros, a: usize, b: usize) -> Option<Micros> {
        self.partitions.get(&(a.min(b), a.max(b))).copied().filter(|until| *until > now)
    }

    /// When the last partition between two hosts ended or ends.
    pub fn last_partition(&self, a: usize, b: usize) -> Option<Micros> {
        self.partitions.get(&(a.min(b), a.max(b))).copied()
    }

    /// A path is down until then.
    pub fn take_down(&mut self, path: Path, until: Micros, outage: Outage) {
        self.outages.insert(path, (until, outage));
    }

    /// Whether and how a path is down.
    pub fn outage(&self, now: Micros, path: Path) -> Option<Outage> {
        self.outages.get(&path).filter(|(until, _)| *until > now).map(|(_, outage)| *outage)
    }

    /// Whole connections that take this path.
    pub fn by_path(&self, path: Path) -> Vec<ConnId> {
        (0..self.conns.len())
            .filter(|conn| self.conns[*conn].path == Some(path) && self.conns[*conn].cut.is_none())
            .collect()
    }

    /// Connections with an open end of this life.
    pub fn open_of(&self, who: Life) -> Vec<(ConnId, Side)> {
        let ends = self.conns.iter().enumerate().flat_map(|(id, conn)| {
            [Side::Dialler, Side::Listener].map(|side| (id, side, conn.end(side).who, conn.end(side).open))
        });
        ends.filter(|(_, _, owner, open)| *owner == who && *open).map(|(id, side, _, _)| (id, side)).collect()
    }
}
