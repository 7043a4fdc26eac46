//! The state of members and routes, for people.

use std::time::{Duration, Instant};

use trunkline_route::{Address, NodeName};

use super::peer::Peer;
use super::{Mesh, Route, is_connected};

/// Part that a member takes in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The member is connected to every other one, and is told to others.
    Full,
    /// The member connects to every other one itself, and is told to nobody.
    Hidden,
    /// The member keeps one connection; it reaches the others, and they reach it, through the member at the other end.
    Leaf,
}

impl Role {
    /// Returns the name of the role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Hidden => "hidden",
            Self::Leaf => "leaf",
        }
    }

    fn new(is_leaf: bool, is_hidden: bool) -> Self {
        match (is_leaf, is_hidden) {
            (true, _) => Self::Leaf,
            (false, true) => Self::Hidden,
            (false, false) => Self::Full,
        }
    }
}

/// State of a member, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Name of the member.
    pub name: NodeName,
    /// True if a connection to it is up and it said that it belongs to the cluster.
    pub is_up: bool,
    /// Role of the member, as far as it is known.
    pub role: Role,
    /// Addresses at which it listens.
    pub endpoints: Vec<Address>,
    /// Member that told of it last; `None` if nobody did.
    pub told_by: Option<NodeName>,
    /// Name of the cluster that it belongs to, if that is another one.
    pub other_cluster: Option<String>,
    /// Time since the present connection came up.
    pub up_for: Option<Duration>,
    /// Time without a connection; `None` if this node was never connected to it.
    pub lost_for: Option<Duration>,
    /// Dials that failed since the last connection.
    pub failures: u32,
    /// Error of the last dial that failed, and the time since then.
    pub last_error: Option<(String, Duration)>,
    /// Time until the next dial.
    pub next_dial: Option<Duration>,
}

/// State of a route, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRouteStatus {
    /// Host and port.
    pub address: Address,
    /// Names of the nodes that were found there.
    pub names: Vec<NodeName>,
    /// Error of the last attempt to find any; `None` while a node that was found there is connected.
    pub last_error: Option<String>,
    /// Time until the next attempt.
    pub next_attempt: Option<Duration>,
}

impl Mesh {
    /// Returns what is known of the others, by name.
    pub fn peers(&self, now: Instant) -> Vec<MemberStatus> {
        self.peers.iter().map(|(name, peer)| self.status(now, name, peer)).collect()
    }

    /// Returns what is known of one other node.
    pub fn peer(&self, now: Instant, name: &NodeName) -> Option<MemberStatus> {
        self.peers.get_key_value(name).map(|(name, peer)| self.status(now, name, peer))
    }

    /// Returns the role of this node.
    pub fn role(&self) -> Role {
        Role::new(self.settings.is_leaf, self.settings.is_hidden)
    }

    fn status(&self, now: Instant, name: &NodeName, peer: &Peer) -> MemberStatus {
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_dialled = !peer.is_up && !peer.is_leaf() && !self.is_settled();
        let until = |due: Instant| due.saturating_duration_since(now);
        MemberStatus {
            name: name.clone(),
            is_up: peer.is_member,
            role: Role::new(peer.is_leaf(), peer.is_hidden),
            endpoints: self.addresses(name),
            told_by: peer.tellers.first().cloned(),
            other_cluster: peer.other_cluster.clone(),
            up_for: peer.up_since.map(since),
            lost_for: peer.heard.filter(|_| !peer.is_up).map(|(at, before)| since(at) + before),
            failures: if peer.is_up { 0 } else { peer.retry.failures() },
            last_error: peer.last_error.as_ref().map(|(error, at)| (error.clone(), since(*at))),
            next_dial: peer.retry.due().filter(|_| is_dialled).map(until),
        }
    }

    /// Returns what is known of the routes, in the order in which they were set.
    pub fn routes(&self, now: Instant) -> Vec<ClusterRouteStatus> {
        let status = |(address, route): &(Address, Route)| {
            let is_connected = is_connected(&self.peers, route);
            let next = route.retry.due().filter(|_| !is_connected && !self.is_settled());
            ClusterRouteStatus {
                address: address.clone(),
                names: route.names.iter().cloned().collect(),
                last_error: route.last_error.clone().filter(|_| !is_connected),
                next_attempt: next.map(|due| due.saturating_duration_since(now)),
            }
        };
        self.routes.iter().map(status).collect()
    }
}
