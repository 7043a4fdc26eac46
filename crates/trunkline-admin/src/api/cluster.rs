//! The cluster, in the words of HarperDB's operations.

use serde::{Deserialize, Serialize};
use trunkline::{Address, ClusterRouteStatus, ClusterStatus, MemberStatus, NodeName};

/// Operation of `POST /`, by its field `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterOperation {
    /// Answered with a [`Cluster`].
    ClusterStatus,
    /// Answered with [`ClusterRoutes`].
    ClusterGetRoutes,
}

/// Route of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRoute {
    /// Host at which a member is found.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl From<&Address> for ClusterRoute {
    fn from(address: &Address) -> Self {
        Self { host: address.host.as_str().to_owned(), port: address.port.get() }
    }
}

/// Routes of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRoutes {
    /// Routes of `clustering.hubServer.cluster.network.routes`.
    pub hub: Vec<ClusterRoute>,
    /// Routes of leaf nodes; always empty.
    pub leaf: Vec<ClusterRoute>,
}

/// Cluster as one member sees it; `GET /v1/cluster` and the operation `cluster_status` answer with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Name of the node that answers.
    pub node_name: String,
    /// True if the node belongs to a cluster.
    pub is_enabled: bool,
    /// Name of the cluster; absent if the node belongs to none.
    pub cluster: Option<String>,
    /// The other members that the node knows, by name.
    pub connections: Vec<ClusterConnection>,
    /// Routes of the node.
    pub routes: Vec<FoundRoute>,
}

/// Member of a cluster as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConnection {
    /// Name of the member.
    pub node_name: String,
    /// `open` if a connection is up, `closed` if not, `other_cluster` if the node belongs to another cluster.
    pub status: String,
    /// Addresses at which the member listens, `host:port`.
    pub addresses: Vec<String>,
    /// Gateway next to this node; absent for a direct connection.
    pub via: Option<String>,
    /// Member that told of it; absent if it spoke for itself.
    pub told_by: Option<String>,
    /// Name of the other cluster.
    pub cluster: Option<String>,
    /// Dials that failed since the last connection.
    pub failures: u32,
    /// Error of the last dial; absent while a connection is up.
    pub last_error: Option<String>,
    /// Time until the next dial in milliseconds; absent while a connection is up.
    pub next_dial_ms: Option<u64>,
}

/// Route of a cluster, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRoute {
    /// Host and port.
    #[serde(flatten)]
    pub route: ClusterRoute,
    /// Names of the nodes that were found there; the node itself is one of them if the route leads to it.
    pub nodes: Vec<String>,
    /// Error of the last attempt to find any.
    pub last_error: Option<String>,
    /// Time until the next attempt in milliseconds; absent while a node that was found is connected.
    pub next_attempt_ms: Option<u64>,
}

impl Cluster {
    /// Returns the cluster as a node sees it. `via` returns the gateway of the connection to a member.
    pub(crate) fn new(
        node_name: &NodeName,
        status: Option<ClusterStatus>,
        via: impl Fn(&NodeName) -> Option<NodeName>,
    ) -> Self {
        let node_name = node_name.to_string();
        let Some(ClusterStatus { cluster, peers, routes }) = status else {
            return Self { node_name, ..Self::default() };
        };
        let connection = |member: MemberStatus| ClusterConnection {
            status: match (member.is_up, &member.other_cluster) {
                (true, _) => "open",
                (false, Some(_)) => "other_cluster",
                (false, None) => "closed",
            }
            .into(),
            addresses: member.endpoints.iter().map(ToString::to_string).collect(),
            via: via(&member.name).map(|name| name.to_string()),
            told_by: member.told_by.map(|name| name.to_string()),
            cluster: member.other_cluster,
            failures: member.failures,
            last_error: member.last_error,
            next_dial_ms: member.next_dial.map(|time| time.as_millis() as u64),
            node_name: member.name.to_string(),
        };
        let route = |route: ClusterRouteStatus| FoundRoute {
            route: (&route.address).into(),
            nodes: route.names.iter().map(ToString::to_string).collect(),
            last_error: route.last_error,
            next_attempt_ms: route.next_attempt.map(|time| time.as_millis() as u64),
        };
        Self {
            node_name,
            is_enabled: true,
            cluster: Some(cluster),
            connections: peers.into_iter().map(connection).collect(),
            routes: routes.into_iter().map(route).collect(),
        }
    }
}
