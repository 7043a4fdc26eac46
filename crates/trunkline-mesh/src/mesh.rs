//! The membership of one node as a state machine: what it sends, whom it dials, and when.

mod agenda;
mod peer;
mod peers;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use trunkline_route::{Address, Cause, Chain, Incarnation, NodeName};

use crate::budget::Budget;
use crate::message::{MAX_CLUSTER, MAX_ENDPOINTS, MAX_KNOWN, MAX_RECORDS, Message, MessageError, Record, View};
use crate::retry::Retry;

use peer::{Peer, SOONEST, UNKNOWN};
use peers::Peers;

pub use peer::Way;
pub use status::{ClusterRouteStatus, MemberStatus, Role};

/// Members that one node knows at most.
pub const MAX_PEERS: usize = 4096;
/// Members that one node only heard of and was never connected to, at most; they count among [`MAX_PEERS`].
pub const MAX_UNPROVEN: usize = 1024;
/// Dials after which a member that this node was never connected to is given up.
pub const MAX_DIALS_UNPROVEN: u32 = 12;
/// Dials of members that this node was never connected to which may fail at once after a pause; then [`UNPROVEN_PER_SECOND`].
const UNPROVEN_AT_ONCE: f64 = 200.0;
/// Dials of such members that may fail in a second.
const UNPROVEN_PER_SECOND: f64 = 4.0;
/// Time of a connection after which the next loss begins with the first pause again.
const STEADY: Duration = Duration::from_secs(10);
/// Neighbours that are kept as those who told of one member.
const MAX_TELLERS: usize = 4;
/// Neighbours that are returned as gateways to a member.
const MAX_GATEWAYS: usize = 8;
/// Time for which a member that was given up is remembered, so that nobody else's words begin its dials again.
const GIVEN_UP_FOR: Duration = Duration::from_secs(600);
/// Neighbours that are told of a new member at once. The others hear of it by their own connections to it, or by a later
/// exchange.
const TOLD: usize = 4;
/// Time between two exchanges with a neighbour drawn at random, when nothing is new; each is up to a half longer. After
/// news the first comes after [`SOONEST`], and each further pause is twice the last one.
const EXCHANGE: Duration = Duration::from_secs(20);

/// Members that are remembered as forgotten, so that nobody else's words bring them back.
const MAX_FORGOTTEN: usize = 1024;

/// Time without a connection after which a member is forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Settings of a member.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the cluster, 1 to 64 bytes. Nodes of another cluster are not members, whatever they say.
    pub cluster: String,
    /// Name of this node.
    pub name: NodeName,
    /// Instance of this node.
    pub incarnation: Incarnation,
    /// Addresses at which this node listens, in the order to try; at most 8 are told to others.
    pub endpoints: Vec<Address>,
    /// The node is not told to others, and connects to the members itself.
    pub is_hidden: bool,
    /// The node is a leaf: it keeps one connection, to a node that its routes lead to, and takes another one when that is
    /// lost. It dials nobody else, passes nothing on, and its addresses are not told.
    pub is_leaf: bool,
    /// Seed of the random pauses and choices.
    pub seed: u64,
}

/// Error returned when settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a cluster has 1 to 64 bytes, this one has {len}")]
pub struct ClusterNameError {
    /// Bytes of the name.
    pub len: usize,
}

/// Error returned when a member cannot be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// No member has this name.
    #[error("{0} is not known in the cluster; `trunkline cluster status` lists the members")]
    Unknown(NodeName),
    /// The member is connected.
    #[error("{0} is connected; stop it first, or disconnect it by `trunkline disconnect`")]
    Connected(NodeName),
    /// The member is a leaf of another one.
    #[error("{name} is a leaf of {hub}, as that says; stop it, and have it forgotten there")]
    Leaf {
        /// Name of the leaf.
        name: NodeName,
        /// Member that leads to it.
        hub: NodeName,
    },
}

/// Instruction to the driver of a [`Mesh`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to a member, if no connection is up, and call [`Mesh::dialled`]. [`Mesh::addresses`] has where.
    Dial(NodeName),
    /// Connect directly to a member that is connected through others, and call [`Mesh::dialled`].
    DialDirectly(NodeName),
    /// Ask every address of a route for the name of the node there, and call [`Mesh::learnt`].
    Learn(Address),
    /// Send a message over the connection to a neighbour.
    Send {
        /// Name of the neighbour.
        to: NodeName,
        /// Bytes of the message.
        message: Vec<u8>,
    },
}

/// Member that an operator declared gone.
#[derive(Debug, Clone)]
struct Forgotten {
    /// Instances that were known.
    instances: Vec<Incarnation>,
    at: Instant,
}

impl Forgotten {
    /// Returns true if this may be an instance that is gone.
    fn is_of(&self, instance: Incarnation) -> bool {
        instance == UNKNOWN.into() || self.instances.iter().any(|gone| *gone == instance || *gone == UNKNOWN.into())
    }
}

/// Facts that a node knows about one of its routes.
#[derive(Debug, Clone, Default)]
struct Route {
    names: BTreeSet<NodeName>,
    retry: Retry,
    is_asked: bool,
    last_error: Option<String>,
}

/// Member that a node was connected to, as it is kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Record that the member stated itself last.
    pub record: Record,
    /// Time without a connection to it.
    pub lost_for: Duration,
}

/// Membership of one node. After each call, [`Mesh::poll`] until it returns `None`, and call [`Mesh::poll`] again at
/// [`Mesh::next_time`].
#[derive(Debug)]
pub struct Mesh {
    settings: Settings,
    rng: fastrand::Rng,
    peers: Peers,
    /// In the order in which they were set.
    routes: Vec<(Address, Route)>,
    outputs: VecDeque<Output>,
    next_exchange: Instant,
    /// Exchanges since the last news.
    calm: u32,
    has_news: bool,
    /// Dials of members that this node was never connected to which may begin: those under way, and those that failed.
    unproven: Budget,
    /// Members that an operator declared gone.
    forgotten: BTreeMap<NodeName, Forgotten>,
}

impl Mesh {
    /// Returns the membership of a node that knows nobody yet.
    ///
    /// # Errors
    /// [`ClusterNameError`].
    pub fn new(mut settings: Settings, now: Instant) -> Result<Self, ClusterNameError> {
        let len = settings.cluster.len();
        if len == 0 || len > MAX_CLUSTER {
            return Err(ClusterNameError { len });
        }
        settings.endpoints.truncate(if settings.is_leaf { 0 } else { MAX_ENDPOINTS });
        let rng = fastrand::Rng::with_seed(settings.seed);
        let (peers, routes, outputs, forgotten) = (Peers::default(), Vec::new(), VecDeque::new(), BTreeMap::new());
        let (next_exchange, unproven) = (now + SOONEST, Budget::new(UNPROVEN_AT_ONCE, UNPROVEN_PER_SECOND, now));
        Ok(Self { settings, rng, peers, routes, outputs, next_exchange, calm: 0, has_news: false, unproven, forgotten })
    }

    /// Replaces the routes: hosts and ports at which members are found. A route that stays keeps its state; one that goes
    /// disconnects nobody.
    pub fn set_routes(&mut self, now: Instant, routes: impl IntoIterator<Item = Address>) {
        let mut old = std::mem::take(&mut self.routes);
        for address in routes {
            if self.route(&address).is_none() {
                let known = old.iter().position(|(known, _)| *known == address).map(|at| old.swap_remove(at).1);
                let state = known.unwrap_or_else(|| Route { retry: Retry::at(now), ..Route::default() });
                self.routes.push((address, state));
            }
        }
    }

    fn route(&self, address: &Address) -> Option<&Route> {
        self.routes.iter().find(|(known, _)| known == address).map(|(_, route)| route)
    }

    /// Takes members that an earlier instance of this node was connected to, and dials them. Those without a connection for
    /// [`FORGOTTEN_AFTER`] are left out.
    pub fn remember(&mut self, now: Instant, known: impl IntoIterator<Item = Known>) {
        for Known { record, lost_for } in known {
            if record.name != self.settings.name && lost_for < FORGOTTEN_AFTER && self.peers.len() < MAX_PEERS {
                let peer = self.peers.entry(&record.name);
                peer.stated.get_or_insert(record.into());
                peer.heard = Some((now, lost_for));
                peer.retry.is_due_at(now);
            }
        }
    }

    /// Returns the members that this node was connected to, to be given to [`Mesh::remember`] of a later instance. Hidden ones
    /// and leaves are left out: they come by themselves.
    pub fn known(&self, now: Instant) -> Vec<Known> {
        let members =
            self.peers.values().filter(|peer| !peer.is_hidden && !peer.is_leaf() && peer.other_cluster.is_none());
        members
            .filter_map(|peer| Some(Known { record: peer.stated.as_deref()?.clone(), lost_for: peer.lost_for(now) }))
            .collect()
    }

    /// Returns the pause until the next exchange.
    fn pause(&mut self) -> Duration {
        let pause = SOONEST.saturating_mul(1 << self.calm.min(16)).min(EXCHANGE);
        pause.mul_f64(1.0 + self.rng.f64() / 2.0)
    }

    /// Notes that something is new: it may be new to others too, or what told them of it was lost.
    fn disturb(&mut self, now: Instant) {
        if self.calm > 0 {
            self.calm = 0;
            self.next_exchange = self.next_exchange.min(now + self.pause());
        }
    }

    /// Returns true if [`Mesh::known`] has other members, or other addresses of them, than at the last call.
    pub fn takes_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Notes the nodes that were found at the addresses of a route, each with its address, or why there is none.
    pub fn learnt(&mut self, now: Instant, route: &Address, found: Result<Vec<(NodeName, Address)>, Cause>) {
        let Some((_, state)) = self.routes.iter_mut().find(|(known, _)| known == route) else { return };
        state.is_asked = false;
        match found {
            Ok(found) => {
                state.last_error = None;
                state.names = found.iter().map(|(name, _)| name.clone()).collect();
                state.retry.failed(now, &mut self.rng);
                for (name, address) in found {
                    if name != self.settings.name && (self.peers.contains_key(&name) || self.room(false) > 0) {
                        let peer = self.peers.entry(&name);
                        if !peer.stated.as_ref().is_some_and(|stated| stated.endpoints.contains(&address)) {
                            let (incarnation, endpoints) = (UNKNOWN.into(), vec![address]);
                            peer.told = Some(Record { name, incarnation, endpoints, is_leaf: false }.into());
                        }
                        // A pause after a failure is not cut short.
                        if peer.retry.due().is_none() {
                            peer.retry.is_due_at(now);
                        }
                    }
                }
            }
            Err(error) => {
                state.retry.failed(now, &mut self.rng);
                state.last_error = Some(Chain(&error).to_string());
            }
        }
    }

    /// Notes that a connection to a node is up, whoever dialled.
    pub fn up(&mut self, now: Instant, name: &NodeName, way: Way) {
        if *name == self.settings.name {
            return;
        }
        let peer = self.peers.entry(name);
        if peer.is_dialled && !peer.is_up && peer.stated.is_none() {
            self.unproven.give_back();
        }
        (peer.is_up, peer.is_member, peer.other_cluster) = (true, false, None);
        (peer.given_up, peer.straight, peer.is_led_to) = (None, None, false);
        peer.straighten(way, now, &mut self.rng);
        (peer.up_since, peer.greetings, peer.is_doubtful, peer.answered_at) = (Some(now), 1, false, None);
        peer.retry.pause();
        self.forgotten.remove(name);
        self.send_hello(now, name.clone());
    }

    /// Notes that the connection to a node is down. If somebody wanted it gone, the node is not dialled again by itself.
    pub fn down(&mut self, now: Instant, name: &NodeName, is_wanted: bool) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        (peer.is_up, peer.is_member, peer.straight) = (false, false, None);
        peer.heard = Some((now, Duration::ZERO));
        let was_steady = peer.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= STEADY);
        if peer.other_cluster.is_some() || !peer.is_kept() {
            self.peers.remove(name);
        } else if is_wanted {
            peer.retry = Retry::default();
        } else {
            // One that comes up and goes down all the time is dialled less and less often.
            if was_steady {
                peer.retry = Retry::default();
            }
            peer.retry.failed(now, &mut self.rng);
        }
        // Nor does it lead to a leaf any more.
        for (_, leaf) in self.peers.select_mut(|peer| peer.is_leaf() && peer.tellers.contains(name)) {
            leaf.tellers.retain(|teller| teller != name);
        }
    }

    /// Compares what is known here with the nodes that are connected, and corrects what differed at the last look as well: a
    /// connection that goes down while another one comes up may be told in the wrong order.
    pub fn reconcile(&mut self, now: Instant, connected: &BTreeMap<NodeName, Way>) {
        let unknown = connected.keys().filter(|name| !self.peers.contains_key(name)).cloned().collect::<Vec<_>>();
        let mut differing = Vec::new();
        for (name, peer) in self.peers.select_mut(|_| true) {
            let differs = peer.is_up != connected.contains_key(name);
            if std::mem::replace(&mut peer.is_doubtful, differs) && differs {
                differing.push(name.clone());
            }
            peer.straighten(connected.get(name).copied().unwrap_or(Way::Direct), now, &mut self.rng);
        }
        for name in unknown.into_iter().chain(differing) {
            match connected.get(&name) {
                Some(way) => self.up(now, &name, *way),
                None => self.down(now, &name, false),
            }
        }
    }

    /// Notes that a dial ended. A success is told by [`Mesh::up`] as well.
    pub fn dialled(&mut self, now: Instant, name: &NodeName, result: Result<(), Cause>) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.is_dialled = false;
        if peer.is_up {
            // Whether the connection is a direct one now is told by `up` and `reconcile`.
            if let Some(straight) = peer.straight.as_mut().filter(|straight| straight.is_due(now)) {
                straight.failed(now, &mut self.rng);
            }
            return;
        }
        // A connection that nothing is known of here comes to light by the next look.
        peer.retry.failed(now, &mut self.rng);
        let Err(error) = result else { return };
        peer.last_error = Some((Chain(&error).to_string(), now));
        if peer.stated.is_some() && peer.lost_for(now) >= FORGOTTEN_AFTER {
            self.has_news = true;
            self.peers.remove(name);
        } else if peer.stated.is_none() && peer.retry.failures() >= MAX_DIALS_UNPROVEN {
            (peer.given_up, peer.retry) = (Some(now), Retry::default());
        }
    }

    /// Forgets a member that is gone for good, and tells the neighbours, who forget it as well unless they are connected to
    /// it. It is a member again when it connects to one, or when another instance of it is told of.
    ///
    /// # Errors
    /// [`ForgetError`]; nothing changed.
    pub fn forget(&mut self, now: Instant, name: &NodeName) -> Result<(), ForgetError> {
        match self.peers.get(name) {
            None => Err(ForgetError::Unknown(name.clone())),
            Some(peer) if peer.is_up => Err(ForgetError::Connected(name.clone())),
            Some(Peer { tellers, .. }) if self.is_led_to(name) => {
                Err(ForgetError::Leaf { name: name.clone(), hub: tellers[0].clone() })
            }
            Some(peer) => {
                let instance = peer.instances().next().unwrap_or(UNKNOWN.into());
                self.forget_instance(now, name, instance);
                Ok(())
            }
        }
    }

    /// Forgets a member of which this instance is gone, if it is known and not connected, and tells the neighbours. They do
    /// the same, so that each member is told by each other one once.
    fn forget_instance(&mut self, now: Instant, name: &NodeName, instance: Incarnation) {
        let Some(peer) = self.peers.get(name).filter(|peer| !peer.is_up) else { return };
        let mut instances: Vec<Incarnation> = peer.instances().chain([instance]).collect();
        instances.dedup();
        self.peers.remove(name);
        self.has_news = true;
        if self.forgotten.len() >= MAX_FORGOTTEN {
            let oldest = self.forgotten.iter().min_by_key(|(_, gone)| gone.at).map(|(name, _)| name.clone());
            oldest.map(|name| self.forgotten.remove(&name));
        }
        self.forgotten.insert(name.clone(), Forgotten { instances, at: now });
        let message = Message::Forget { name: name.clone(), incarnation: instance }.encode();
        for to in self.neighbours() {
            self.outputs.push_back(Output::Send { to, message: message.clone() });
        }
    }

    /// Takes a message of a neighbour.
    ///
    /// # Errors
    /// [`MessageError`]; nothing of the message was used. After [`MessageError::TooOften`] it may be given again.
    pub fn message(&mut self, now: Instant, from: &NodeName, bytes: &[u8]) -> Result<(), MessageError> {
        let peer = self.peers.get_mut(from).filter(|peer| peer.is_up).ok_or(MessageError::NoMember)?;
        if !peer.may_be_read(now, bytes) {
            return Err(MessageError::TooOften);
        }
        match Message::decode(bytes)? {
            Message::Hello { cluster, own, is_hidden, is_first, known } => {
                if own.name != *from {
                    return Err(MessageError::NotItself(own.name));
                }
                self.hello(now, from, cluster, own, is_hidden, &known)?;
                // Only this end may have seen the connection come up, or the other one lost what it was told.
                let is_heard = self.peers.get(from).and_then(|peer| peer.greeted_at);
                if is_first && is_heard.is_none_or(|at| now.saturating_duration_since(at) >= SOONEST) {
                    self.send_hello(now, from.clone());
                }
                Ok(())
            }
            Message::Peers(records) => self.told(now, from, records),
            Message::Forget { name, incarnation } => {
                if !self.is_neighbour(from) {
                    return Err(MessageError::NoMember);
                }
                self.forget_instance(now, &name, incarnation);
                Ok(())
            }
            Message::Ask | Message::View(_) | Message::Join(_) | Message::Welcome(_) | Message::Refused(_) => {
                Err(MessageError::Unreadable)
            }
            Message::OtherCluster(cluster) => {
                if let Some(peer) = self.peers.get_mut(from) {
                    (peer.is_member, peer.other_cluster) = (false, Some(cluster));
                }
                Ok(())
            }
        }
    }

    /// Answers a call of a neighbour: with the part of the cluster that this node sees.
    ///
    /// # Errors
    /// [`MessageError`] if the call cannot be read, or the caller is no member. After [`MessageError::TooOften`] it may be
    /// given again.
    pub fn answer(&mut self, now: Instant, from: &NodeName, bytes: &[u8]) -> Result<Vec<u8>, MessageError> {
        let peer = self.peers.get_mut(from).filter(|peer| peer.is_up).ok_or(MessageError::NoMember)?;
        if !peer.may_be_read(now, bytes) {
            return Err(MessageError::TooOften);
        }
        match Message::decode(bytes)? {
            Message::Ask if self.is_neighbour(from) => Ok(Message::View(self.view()).encode()),
            Message::Ask => Err(MessageError::NoMember),
            _ => Err(MessageError::Unreadable),
        }
    }

    /// Returns the part of the cluster that this node sees.
    pub fn view(&self) -> View {
        View { connected: self.neighbours(), routes: self.routes.iter().map(|(address, _)| address.clone()).collect() }
    }

    fn hello(
        &mut self,
        now: Instant,
        from: &NodeName,
        cluster: String,
        own: Record,
        is_hidden: bool,
        known: &[u32],
    ) -> Result<(), MessageError> {
        let is_full = !self.peers.get(from).is_some_and(Peer::is_kept) && !self.makes_room();
        let Some(peer) = self.peers.get_mut(from).filter(|peer| peer.is_up && !is_full) else {
            return Err(MessageError::NoMember);
        };
        if cluster != self.settings.cluster {
            (peer.is_member, peer.other_cluster) = (false, Some(cluster));
            let message = Message::OtherCluster(self.settings.cluster.clone()).encode();
            self.outputs.push_back(Output::Send { to: from.clone(), message });
            return Ok(());
        }
        (peer.is_member, peer.is_hidden, peer.other_cluster) = (true, is_hidden, None);
        if self.settings.is_leaf && !peer.is_direct() {
            // A leaf keeps only members that it may dial again.
            return Ok(());
        }
        // Only the member that a leaf keeps a connection to leads to it.
        let is_told = !is_hidden && (!own.is_leaf || peer.is_direct());
        // That a leaf has a new connection is news too.
        let is_led_to = own.is_leaf && peer.is_direct();
        let is_new_way = is_led_to && !std::mem::replace(&mut peer.is_led_to, is_led_to);
        let is_news = is_told && (is_new_way || peer.stated.as_deref() != Some(&own));
        self.has_news |= is_news;
        let is_other = peer.stated.as_deref() != Some(&own);
        (peer.told, peer.stated) = (None, Some(own.clone().into()));
        if peer.answered_at.is_some_and(|at| now.saturating_duration_since(at) < SOONEST) {
            return Ok(());
        }
        peer.answered_at = Some(now);
        if is_other {
            self.disturb(now);
        }
        if self.settings.is_leaf {
            return Ok(());
        }
        if !own.is_leaf {
            self.send_missing(from, known);
        }
        if is_news {
            self.spread(from, own);
        }
        Ok(())
    }

    /// Sends the records of members that a neighbour does not know.
    fn send_missing(&mut self, to: &NodeName, known: &[u32]) {
        let missing = self.peers.waiting().missing(known).into_iter().filter(|name| name != to);
        let missing = missing.filter_map(|name| self.peers.get(&name)?.stated.as_deref().cloned()).collect();
        self.send_records(to, missing);
    }

    /// Tells a neighbour, if it is no leaf, of the leaves that are connected here: what told it of them at once may have been
    /// lost.
    fn send_leaves(&mut self, to: &NodeName) {
        if self.peers.get(to).is_some_and(Peer::is_leaf) {
            return;
        }
        let leaves = self.peers.values().filter(|peer| peer.is_leaf() && peer.is_direct() && !peer.is_hidden);
        let leaves = leaves.filter_map(|peer| peer.stated.as_deref().cloned()).collect();
        self.send_records(to, leaves);
    }

    fn send_records(&mut self, to: &NodeName, records: Vec<Record>) {
        for records in records.chunks(MAX_RECORDS) {
            let message = Message::Peers(records.to_vec()).encode();
            self.outputs.push_back(Output::Send { to: to.clone(), message });
        }
    }

    /// Tells some neighbours of a member that spoke for itself, and all of them of a leaf: nobody else has a connection to it.
    fn spread(&mut self, of: &NodeName, record: Record) {
        let neighbours = self.peers.waiting().neighbours();
        let count = if record.is_leaf { neighbours.len() } else { TOLD };
        let neighbours = neighbours.filter(|name| *name != of);
        let message = Message::Peers(vec![record]).encode();
        for to in self.rng.choose_multiple(neighbours, count) {
            self.outputs.push_back(Output::Send { to: to.clone(), message: message.clone() });
        }
    }

    /// Takes what a neighbour says of others. It is where to dial, and no more: the dial has them prove who they are.
    fn told(&mut self, now: Instant, from: &NodeName, records: Vec<Record>) -> Result<(), MessageError> {
        if !self.is_neighbour(from) {
            return Err(MessageError::NoMember);
        }
        if self.settings.is_leaf {
            return Ok(());
        }
        let mut rooms = [None, None];
        for mut record in records {
            if record.name == self.settings.name {
                continue;
            }
            if record.is_leaf {
                // A leaf is not dialled.
                record.endpoints.clear();
            }
            match self.forgotten.get(&record.name) {
                // The one that tells of it was not connected when it was forgotten. Of a leaf tells only one that is.
                Some(gone) if gone.is_of(record.incarnation) && !record.is_leaf => {
                    let message = Message::Forget { name: record.name, incarnation: record.incarnation }.encode();
                    self.outputs.push_back(Output::Send { to: from.clone(), message });
                    continue;
                }
                Some(_) => drop(self.forgotten.remove(&record.name)),
                None => {}
            }
            if !self.peers.contains_key(&record.name) {
                let room = rooms[usize::from(record.is_leaf)].get_or_insert_with(|| self.room(record.is_leaf));
                match room.checked_sub(1) {
                    Some(left) => *room = left,
                    // The leaf that was told of least recently goes.
                    None if record.is_leaf && self.drops_a_leaf() => {}
                    None => continue,
                }
            }
            let peer = self.peers.entry(&record.name);
            peer.tellers.retain(|teller| teller != from);
            peer.tellers.insert(0, from.clone());
            peer.tellers.truncate(MAX_TELLERS);
            peer.told_at = Some(now);
            if peer.is_up || peer.stated.as_deref() == Some(&record) || peer.told.as_deref() == Some(&record) {
                continue;
            }
            // Of two that hear of each other at once, one waits for the other's dial.
            let waits = if self.settings.name < record.name { Duration::ZERO } else { Duration::from_millis(100) };
            let soonest = peer.dialled_at.map_or(now, |at| at + SOONEST);
            peer.given_up = None;
            peer.retry.is_due_at(soonest.max(now + waits));
            peer.told = Some(record.into());
            self.disturb(now);
        }
        Ok(())
    }

    /// Returns how many nodes may be added that are not connected: leaves, or others.
    fn room(&mut self, is_leaf: bool) -> usize {
        let waiting = self.peers.waiting();
        let (unproven, kept) = (waiting.unproven(is_leaf), waiting.kept());
        MAX_UNPROVEN.saturating_sub(unproven).min(MAX_PEERS.saturating_sub(kept))
    }

    /// Returns true if a member that spoke for itself may be added. Of those that are not connected, the one goes that was
    /// heard least recently.
    fn makes_room(&mut self) -> bool {
        if self.peers.waiting().kept() < MAX_PEERS {
            return true;
        }
        let lost = self.peers.iter().filter(|(_, peer)| !peer.is_up && peer.is_kept());
        let oldest = lost.min_by_key(|(_, peer)| peer.heard.map(|(at, before)| at.checked_sub(before).unwrap_or(at)));
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.peers.remove(&name).is_some())
    }

    fn send_hello(&mut self, now: Instant, to: NodeName) {
        let mut is_first = false;
        if let Some(peer) = self.peers.get_mut(&to) {
            (peer.greeted_at, is_first) = (Some(now), !peer.is_member);
        }
        let Settings { cluster, name, incarnation, endpoints, is_hidden, is_leaf, .. } = &self.settings;
        let (name, incarnation, endpoints) = (name.clone(), *incarnation, endpoints.clone());
        let own = Record { name, incarnation, endpoints, is_leaf: *is_leaf };
        // A leaf is told of nobody. Other leaves are told of each time, so that the latest word says which member leads to them.
        let known = self.peers.waiting().fingerprints().filter(|_| !is_leaf).take(MAX_KNOWN).collect();
        let message = Message::Hello { cluster: cluster.clone(), own, is_hidden: *is_hidden, is_first, known }.encode();
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Returns the next instruction, if there is one at this time.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if now >= self.next_exchange {
            self.calm = self.calm.saturating_add(1);
            self.next_exchange = now + self.pause();
            let is_over = |at: Instant| now.saturating_duration_since(at) >= GIVEN_UP_FOR;
            self.peers.retain(|peer| peer.is_up || !peer.given_up.is_some_and(is_over));
            self.drop_leaves(now);
            self.forgotten.retain(|_, gone| now.saturating_duration_since(gone.at) < FORGOTTEN_AFTER);
            let neighbours = self.neighbours();
            if let Some(to) = self.rng.choice(neighbours) {
                self.send_hello(now, to.clone());
                self.send_leaves(&to);
            }
            return self.poll(now);
        }
        let may_unproven = self.unproven.allows(now);
        let agenda = self.agenda();
        let (greeting, dial) = (agenda.greeting(now), agenda.dial(now, may_unproven));
        // The first hello of either end may have been lost.
        if let Some(to) = greeting
            && let Some(peer) = self.peers.get_mut(&to)
        {
            peer.greetings = peer.greetings.saturating_add(1);
            self.send_hello(now, to);
            return self.poll(now);
        }
        if let Some(name) = dial
            && let Some(peer) = self.peers.get_mut(&name)
        {
            (peer.is_dialled, peer.dialled_at) = (true, Some(now));
            if peer.is_up {
                return Some(Output::DialDirectly(name));
            }
            if peer.stated.is_none() {
                self.unproven.take(now, 1);
            }
            return Some(Output::Dial(name));
        }
        if !self.may_ask() {
            return None;
        }
        let (address, route) = self
            .routes
            .iter_mut()
            .find(|(_, route)| !route.is_asked && route.retry.is_due(now) && !is_connected(&self.peers, route))?;
        route.is_asked = true;
        Some(Output::Learn(address.clone()))
    }

    /// Drops the leaves that no neighbour leads to, and those of which nothing was heard for [`FORGOTTEN_AFTER`].
    fn drop_leaves(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= FORGOTTEN_AFTER;
        let is_led_to = |peer: &Peer| !peer.tellers.is_empty() && !peer.told_at.is_none_or(is_old);
        let is_lost = |peer: &Peer| peer.heard.is_some() && peer.lost_for(now) < FORGOTTEN_AFTER;
        self.peers.retain(|peer| !peer.is_leaf() || peer.is_up || is_led_to(peer) || is_lost(peer));
    }

    /// Drops the leaf that others told of least recently, of those that are not connected. Returns true if there was one.
    fn drops_a_leaf(&mut self) -> bool {
        let leaves = self.peers.iter().filter(|(_, peer)| peer.is_leaf() && !peer.is_up && peer.stated.is_none());
        let oldest = leaves.min_by_key(|(_, peer)| peer.told_at).map(|(name, _)| name.clone());
        oldest.is_some_and(|name| self.peers.remove(&name).is_some())
    }

    /// Returns the addresses of a member, in the order to try: its own words first.
    pub fn addresses(&self, name: &NodeName) -> Vec<Address> {
        let Some(peer) = self.peers.get(name) else { return Vec::new() };
        let mut addresses: Vec<Address> = Vec::new();
        for address in [&peer.stated, &peer.told].into_iter().flatten().flat_map(|record| &record.endpoints) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Returns the error of the last attempt to find a member by a route.
    pub fn route_error(&self, route: &Address) -> Option<&str> {
        self.route(route)?.last_error.as_deref()
    }

    /// Returns the name of the other cluster that a node belongs to.
    pub fn other_cluster(&self, name: &NodeName) -> Option<&str> {
        self.peers.get(name)?.other_cluster.as_deref()
    }

    /// Returns true if a node is connected, be it a member or not, or this node was connected to it as a member.
    pub fn is_known(&self, name: &NodeName) -> bool {
        self.peers.get(name).is_some_and(|peer| peer.is_up || peer.stated.is_some())
    }

    /// Returns true if a node is connected and belongs to the cluster.
    pub fn is_neighbour(&self, name: &NodeName) -> bool {
        self.peers.get(name).is_some_and(|peer| peer.is_member)
    }

    /// Returns true for a leaf that is not connected here, and that a neighbour leads to, as it says.
    pub fn is_led_to(&self, name: &NodeName) -> bool {
        self.peers.get(name).is_some_and(|peer| !peer.is_up && peer.is_leaf() && !peer.tellers.is_empty())
    }

    /// Returns the neighbours that may lead to a member which cannot be dialled: those that told of it, else some drawn at
    /// random. Empty for a node that is not known; for a leaf, those that it is connected to lead to everybody.
    pub fn gateways(&mut self, name: &NodeName) -> Vec<NodeName> {
        if self.settings.is_leaf {
            let leads = |peer: &Peer| peer.is_direct() && peer.is_member && !peer.is_leaf();
            let leading = self.peers.iter().filter(|(other, peer)| *other != name && leads(peer));
            return leading.map(|(other, _)| other.clone()).collect();
        }
        let Some(peer) = self.peers.get(name) else { return Vec::new() };
        let tellers: Vec<NodeName> = peer.tellers.iter().filter(|teller| self.is_neighbour(teller)).cloned().collect();
        if !tellers.is_empty() {
            return tellers;
        }
        let may_lead = |other: &NodeName| other != name && !self.peers.get(other).is_some_and(Peer::is_leaf);
        let others: Vec<NodeName> = self.neighbours().into_iter().filter(may_lead).collect();
        self.rng.choose_multiple(others, MAX_GATEWAYS)
    }

    /// Returns the names of the neighbours that belong to the cluster.
    pub fn neighbours(&self) -> Vec<NodeName> {
        let neighbours = self.peers.iter().filter(|(_, peer)| peer.is_member);
        neighbours.map(|(name, _)| name.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn check(&mut self) {
        self.peers.check();
    }

    /// Returns how many other nodes are known.
    pub fn size(&self) -> usize {
        self.peers.len()
    }

    /// Returns the name of this node.
    pub fn name(&self) -> &NodeName {
        &self.settings.name
    }

    /// Returns the addresses at which this node listens.
    pub fn own_addresses(&self) -> &[Address] {
        &self.settings.endpoints
    }

    /// Returns the name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.settings.cluster
    }
}

/// Returns true if a route has done its work: a node that was found there is connected. One that leads to this node itself
/// is asked again, as others may listen there later.
fn is_connected(peers: &Peers, route: &Route) -> bool {
    route.names.iter().any(|name| peers.get(name).is_some_and(|peer| peer.is_up))
}
