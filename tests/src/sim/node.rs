//! State of one incarnation of a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trunkline_dial::Candidate;
use trunkline_dial::keep::Keeper;
use trunkline_dial::memory::Memory;
use trunkline_dial::pair::FlightId;
use trunkline_dial::plan::{OpId, Plan};
use trunkline_dial::sessions::{Handle, Peer};
use trunkline_route::{Attempt, Claims, Incarnation, LinkId, NodeName, ResolverId};
use trunkline_wire::handshake::{Initiator, Responder, Verified};
use trunkline_wire::important::{Incoming, Outgoing};

use super::model::{MemoryModel, OrderModel, Shadow};
use super::net::{ConnId, Micros, Packet};
use super::pake::FakePake;

/// One incarnation of the node of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// The host.
    pub host: usize,
    /// Sequence number of the incarnation on this host.
    pub life: u32,
}

/// A node. All of its state is lost in a restart.
pub struct Node {
    /// State of each peer.
    pub entries: BTreeMap<NodeName, Entry>,
    /// Outgoing attempts in progress.
    pub tries: BTreeMap<ConnId, Try>,
    /// Callers in the handshake.
    pub answers: BTreeMap<ConnId, Answer>,
    /// Links that are established at this end: provisional, up, and draining ones.
    pub links: BTreeMap<ConnId, LinkEnd>,
    /// Important messages, by the peer's incarnation.
    pub accounts: BTreeMap<Life, Account>,
    /// Memory of recent failures.
    pub memory: Memory,
    /// The same failures in the reference model.
    pub remembered: MemoryModel,
    /// Tasks that the node does for its connections by itself.
    pub keeper: Keeper,
    /// Probes of better routes in progress, by peer.
    pub probes: BTreeMap<NodeName, Probes>,
    /// Bits of the incarnation.
    pub incarnation: Incarnation,
    /// Id of the next flight.
    pub next_flight: FlightId,
}

impl Node {
    /// Creates a node that has just started.
    pub fn new(incarnation: Incarnation) -> Self {
        Self {
            entries: Default::default(),
            tries: Default::default(),
            answers: Default::default(),
            links: Default::default(),
            accounts: Default::default(),
            memory: Default::default(),
            remembered: Default::default(),
            keeper: Default::default(),
            probes: Default::default(),
            incarnation,
            next_flight: 1,
        }
    }
}

/// Important messages to and from one incarnation of a peer.
#[derive(Default)]
pub struct Account {
    /// Received messages.
    pub incoming: Incoming,
    /// Sent messages, by our number.
    pub outgoing: Outgoing<u64>,
}

/// Link as the sessions of a node hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHandle {
    /// Connection that carries the link.
    pub conn: ConnId,
    /// Id of the link.
    pub id: LinkId,
    /// Incarnation of the peer.
    pub incarnation: Incarnation,
}

impl Handle for LinkHandle {
    fn id(&self) -> LinkId {
        self.id
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

/// State of one peer at a node.
#[derive(Default)]
pub struct Entry {
    /// The shipped state machine.
    pub peer: Peer<LinkHandle>,
    /// The tasks of flights.
    pub tasks: BTreeMap<FlightId, Task>,
    /// Memory of the reference model.
    pub shadow: Shadow,
    /// The dial in progress, in the reference model.
    pub dialling: Option<FlightId>,
    /// Number of messages sent to the peer.
    pub sent: u64,
}

impl Entry {
    /// The connection of the live link.
    pub fn link(&self) -> Option<ConnId> {
        self.peer.link().map(|link| link.conn)
    }
}

/// Requirements for a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// Demands that it must satisfy.
    pub grade: u8,
    /// The only route that may be used, if set.
    pub only: Option<Candidate>,
    /// True to ignore remembered failures.
    pub afresh: bool,
}

/// Better routes of a peer that are probed one after the other.
pub struct Probes {
    /// The link over the standby.
    pub of: Option<ConnId>,
    /// The route that is being probed or dialled.
    pub now: Candidate,
    /// The routes that are left.
    pub left: Vec<Candidate>,
    /// The probe in progress.
    pub flight: Option<(FlightId, Box<Looking>)>,
}

/// The task of a flight.
pub struct Task {
    /// Requirements for the link that its dials make.
    pub want: Want,
    /// The callers that wait for its end.
    pub callers: BTreeSet<usize>,
    /// Number of lookups so far.
    pub dials: u32,
    /// The lookup in progress.
    pub looking: Option<Box<Looking>>,
    /// True if the links of the lookup replace one that does not satisfy the requirements.
    pub replace: bool,
}

/// Lookup in progress.
pub struct Looking {
    /// The real plan.
    pub plan: Plan,
    /// The connection of each operation.
    pub conns: BTreeMap<OpId, ConnId>,
    /// The attempt of each operation.
    pub attempts: BTreeMap<OpId, Attempt>,
    /// Expectation of the reference model.
    pub order: OrderModel,
    /// Failures remembered when the lookup began; a lookup does not learn from its own failures.
    pub memory: Memory,
    /// The same failures in the reference model.
    pub remembered: MemoryModel,
}

/// Attempt in progress.
pub struct Try {
    /// The peer that is dialled.
    pub peer: NodeName,
    /// The flight that it belongs to.
    pub flight: FlightId,
    /// Operation of the attempt in the plan.
    pub op: OpId,
    /// The attempt of the plan, with its demands.
    pub attempt: Attempt,
    /// The real handshake; `None` before the connection is open.
    pub machine: Option<Initiator<FakePake>>,
    /// The proven peer.
    pub verified: Option<Verified>,
    /// The link for which FINISH was sent.
    pub finish: Option<LinkId>,
    /// True if it announced that it replaces a link.
    pub replaces: bool,
    /// True if it only checks whether the peer answers.
    pub is_probe: bool,
}

/// Caller in the handshake.
pub struct Answer {
    /// The real handshake.
    pub machine: Responder<FakePake>,
    /// Identity of the caller, once proven.
    pub proven: Option<Proven>,
    /// The accepted link that the caller claims and from which nothing has arrived yet.
    pub awaiting: Option<LinkId>,
    /// The link that is being probed for it.
    pub challenging: Option<(ConnId, LinkId)>,
}

/// A proven caller.
#[derive(Debug, Clone)]
pub struct Proven {
    /// Name of the caller.
    pub from: NodeName,
    /// Incarnation of the caller.
    pub incarnation: Incarnation,
    /// The link that would be established.
    pub link: LinkId,
    /// Claims of the caller.
    pub claims: Claims,
}

/// One end of an established link.
#[derive(Debug, Clone)]
pub struct LinkEnd {
    /// Name of the peer.
    pub peer: NodeName,
    /// Id of the link.
    pub id: LinkId,
    /// Sequence number of the link among all links of the two incarnations.
    pub epoch: u64,
    /// Demands that it satisfies.
    pub grade: u8,
    /// Origin of a link that this end dialled: the pattern of the route, and the resolver that gave the address.
    pub came_by: Option<(Option<Arc<str>>, Option<ResolverId>)>,
    /// Time at which it was established.
    pub since: Micros,
    /// True if it was accepted here and waits for its first frame.
    pub provisional: bool,
    /// Successor of the link. Later links wait for the remaining messages of this one.
    pub heir: Option<ConnId>,
    /// True if GOAWAY was sent.
    pub draining: bool,
    /// True if GOAWAY was received.
    pub peer_gone: bool,
    /// True if a program of one of the ends ended it on purpose.
    pub meant: bool,
    /// Older links that must be drained before this one delivers anything.
    pub hold: BTreeSet<ConnId>,
    /// Packets that arrived in the meantime.
    pub held: Vec<Packet>,
}

impl LinkEnd {
    /// Returns true if the link meets the requirements.
    pub fn satisfies(&self, want: &Want) -> bool {
        let by = |only: &Candidate| {
            self.came_by.as_ref().is_some_and(|(route, resolver)| only.carries(route.as_deref(), resolver.as_ref()))
        };
        !self.draining && self.grade >= want.grade && want.only.as_ref().is_none_or(by)
    }
}
