//! The state of one life of a node.

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

/// One life of the node of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Where.
    pub host: usize,
    /// The how-many-eth.
    pub life: u32,
}

/// A node. All of it is lost in a restart.
#[derive(Default)]
pub struct Node {
    /// What it knows of each peer.
    pub entries: BTreeMap<NodeName, Entry>,
    /// Its own attempts under way.
    pub tries: BTreeMap<ConnId, Try>,
    /// Callers in the handshake.
    pub answers: BTreeMap<ConnId, Answer>,
    /// Links that stand at this end: provisional, up, and draining ones.
    pub links: BTreeMap<ConnId, LinkEnd>,
    /// Important messages, by the peer's life.
    pub accounts: BTreeMap<Life, Account>,
    /// What failed of late.
    pub memory: Memory,
    /// The same, as the reference model sees it.
    pub remembered: MemoryModel,
    /// What it does for its connections unasked.
    pub keeper: Keeper,
    /// Probes of better routes under way, by peer.
    pub probes: BTreeMap<NodeName, Probes>,
    /// Its life's bits.
    pub incarnation: Incarnation,
    /// The next flight's name.
    pub next_flight: FlightId,
}

/// Important messages to and from one life of a peer.
#[derive(Default)]
pub struct Account {
    /// What came.
    pub incoming: Incoming,
    /// What went, by our number.
    pub outgoing: Outgoing<u64>,
}

/// A link, as the sessions of a node hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHandle {
    /// The connection that carries it.
    pub conn: ConnId,
    /// The id of the link.
    pub id: LinkId,
}

impl Handle for LinkHandle {
    fn id(&self) -> LinkId {
        self.id
    }
}

/// The state of one peer at a node.
#[derive(Default)]
pub struct Entry {
    /// The shipped state machine.
    pub peer: Peer<LinkHandle>,
    /// The tasks of flights.
    pub tasks: BTreeMap<FlightId, Task>,
    /// What the reference model remembers.
    pub shadow: Shadow,
    /// The dial under way, as the reference model sees it.
    pub dialling: Option<FlightId>,
    /// Numbers of messages sent to the peer.
    pub sent: u64,
}

impl Entry {
    /// The connection of the live link.
    pub fn link(&self) -> Option<ConnId> {
        self.peer.link().map(|link| link.conn)
    }
}

/// What is wanted of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// The demands it must satisfy.
    pub grade: u8,
    /// Over this route and no other.
    pub only: Option<Candidate>,
    /// As if nothing had failed of late.
    pub afresh: bool,
}

/// The better routes of a peer that are probed one after the other.
pub struct Probes {
    /// The link over the standby.
    pub of: Option<ConnId>,
    /// The one that is probed, or dialled.
    pub now: Candidate,
    /// The others.
    pub left: Vec<Candidate>,
    /// The probe under way, if one is.
    pub flight: Option<(FlightId, Box<Looking>)>,
}

/// The task of a flight.
pub struct Task {
    /// The demands on the links of its dials.
    pub want: Want,
    /// The callers that wait for its end.
    pub callers: BTreeSet<usize>,
    /// Lookups so far.
    pub dials: u32,
    /// The lookup under way, if one is.
    pub looking: Option<Box<Looking>>,
    /// The links of the lookup are to replace one that does not satisfy.
    pub replace: bool,
}

/// A lookup under way.
pub struct Looking {
    /// The real plan.
    pub plan: Plan,
    /// The connection of each operation.
    pub conns: BTreeMap<OpId, ConnId>,
    /// The attempt of each operation.
    pub attempts: BTreeMap<OpId, Attempt>,
    /// What the reference model expects.
    pub order: OrderModel,
    /// What was remembered when it began; a lookup does not learn from its own failures.
    pub memory: Memory,
    /// The same, as the reference model sees it.
    pub remembered: MemoryModel,
}

/// An attempt under way.
pub struct Try {
    /// The peer dialled.
    pub peer: NodeName,
    /// For this flight.
    pub flight: FlightId,
    /// The plan's name for it.
    pub op: OpId,
    /// Under these demands.
    pub attempt: Attempt,
    /// The real handshake; `None` before the connection stands.
    pub machine: Option<Initiator<FakePake>>,
    /// The proven peer.
    pub verified: Option<Verified>,
    /// FINISH is out, for this link.
    pub finish: Option<LinkId>,
    /// It said that it replaces a link.
    pub replaces: bool,
    /// It only wants to know whether the peer answers.
    pub is_probe: bool,
}

/// A caller in the handshake.
pub struct Answer {
    /// The real handshake.
    pub machine: Responder<FakePake>,
    /// Who, once proven.
    pub proven: Option<Proven>,
    /// The accepted link it speaks of and that was not heard from yet.
    pub awaiting: Option<LinkId>,
    /// The link that is being probed for it.
    pub challenging: Option<(ConnId, LinkId)>,
}

/// A proven caller.
#[derive(Debug, Clone)]
pub struct Proven {
    /// Its name.
    pub from: NodeName,
    /// Its life.
    pub incarnation: Incarnation,
    /// The link that would stand.
    pub link: LinkId,
    /// What it told.
    pub claims: Claims,
}

/// One end of a link that stands.
#[derive(Debug, Clone)]
pub struct LinkEnd {
    /// The peer's name.
    pub peer: NodeName,
    /// The link.
    pub id: LinkId,
    /// The how-many-eth of the two lives it is.
    pub epoch: u64,
    /// The demands it satisfies.
    pub grade: u8,
    /// How this end dialled it: the pattern of the route, and who gave the address.
    pub came_by: Option<(Option<Arc<str>>, Option<ResolverId>)>,
    /// Since when it stands.
    pub since: Micros,
    /// It was accepted here and waits for its first frame.
    pub provisional: bool,
    /// The link that took its place: later ones wait for what this one still has to give.
    pub heir: Option<ConnId>,
    /// GOAWAY was sent.
    pub draining: bool,
    /// GOAWAY came.
    pub peer_gone: bool,
    /// A program of one of the ends wants it gone.
    pub meant: bool,
    /// Nothing is taken before everything of these links was.
    pub hold: BTreeSet<ConnId>,
    /// What came meanwhile.
    pub held: Vec<Packet>,
}

impl LinkEnd {
    /// Whether it is what is wanted.
    pub fn satisfies(&self, want: &Want) -> bool {
        let by = |only: &Candidate| {
            self.came_by.as_ref().is_some_and(|(route, resolver)| only.carries(route.as_deref(), resolver.as_ref()))
        };
        !self.draining && self.grade >= want.grade && want.only.as_ref().is_none_or(by)
    }
}
