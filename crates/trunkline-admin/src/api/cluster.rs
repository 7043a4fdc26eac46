//! The cluster, in the words of HarperDB's operations.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trunkline::{
    Address, ClusterRouteStatus, ClusterStatus, JoinToken, LinkInfo, LinkStats, MemberStatus, NetworkMember, NodeName,
    TokenStatus,
};

/// Operation of `POST /`, by its field `operation`. The fields are those of HarperDB; a value of another type, or a route
/// that cannot be used, is answered with the status 400 and the name of the field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClusterOperation {
    /// Answered with a [`Cluster`].
    ClusterStatus,
    /// Answered with [`ClusterRoutes`].
    ClusterGetRoutes,
    /// Adds routes; answered with [`RoutesSet`].
    ClusterSetRoutes(RoutesRequest),
    /// Removes routes; answered with [`RoutesDeleted`].
    ClusterDeleteRoutes(RoutesRequest),
    /// Asks every member for its view; answered with a [`ClusterNetwork`].
    ClusterNetwork(NetworkRequest),
    /// Replaces the routes by the value of `clustering_hubServer_cluster_network_routes`, at a leaf
    /// `clustering_leafServer_network_routes`; no other key can be set. Answered with a message.
    SetConfiguration(Map<String, Value>),
    /// Forgets a member that is gone for good; answered with a message. Not an operation of HarperDB.
    ClusterForget {
        /// Name of the member.
        node_name: String,
    },
}

/// Fields of the operations that change routes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutesRequest {
    /// List that is meant: `leaf` at a leaf, else `hub`. Default: the list of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Value>,
    /// List of routes: `{ host, port }`, or one of the other forms that the configuration takes.
    #[serde(default)]
    pub routes: Option<Value>,
}

/// Fields of the operation `cluster_network`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// Time to wait for answers in milliseconds. Default 2000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Value>,
    /// True to leave `connected_nodes` out of the answer. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_nodes: Option<Value>,
    /// True to leave `routes` out of the answer. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Value>,
}

/// Answer to `cluster_set_routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesSet {
    /// Description of what was done.
    pub message: String,
    /// Routes that were added, in the order of the request.
    pub set: Vec<ClusterRoute>,
    /// Routes that were there already, or twice in the request.
    pub skipped: Vec<ClusterRoute>,
    /// Warnings about routes that were added; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Answer to `cluster_delete_routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesDeleted {
    /// Description of what was done.
    pub message: String,
    /// Routes that were removed, in the order of the request.
    pub deleted: Vec<ClusterRoute>,
    /// Routes that were not there.
    pub skipped: Vec<ClusterRoute>,
}

/// Answer to `cluster_network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNetwork {
    /// Members that answered, the asked node first.
    pub nodes: Vec<NetworkNode>,
    /// Members that are known and did not answer.
    pub silent: Vec<SilentNode>,
}

/// Member that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNode {
    /// Name of the member.
    pub name: String,
    /// Time until its answer in milliseconds.
    pub response_time: u64,
    /// Members that it is connected to; left out on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_nodes: Option<Vec<String>>,
    /// Routes of the member; left out on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<ClusterRoute>>,
}

/// Member that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentNode {
    /// Name of the member.
    pub name: String,
    /// Reason.
    pub error: String,
}

impl ClusterNetwork {
    /// Describes a network. Each part of the members' views is left out on request.
    pub(crate) fn new(network: trunkline::ClusterNetwork, without_nodes: bool, without_routes: bool) -> Self {
        let node = |node: NetworkMember| {
            let connected = node.view.connected.iter().map(ToString::to_string).collect();
            let routes = node.view.routes.iter().map(ClusterRoute::from).collect();
            NetworkNode {
                name: node.name.to_string(),
                response_time: node.took.as_millis() as u64,
                connected_nodes: (!without_nodes).then_some(connected),
                routes: (!without_routes).then_some(routes),
            }
        };
        let silent = network.silent.into_iter().map(|(name, error)| SilentNode { name: name.to_string(), error });
        Self { nodes: network.nodes.into_iter().map(node).collect(), silent: silent.collect() }
    }
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
    /// Routes of `clustering.leafServer.network.routes`. One of the two lists is empty.
    pub leaf: Vec<ClusterRoute>,
}

/// Cluster as one member sees it; `GET /v1/cluster` and the operation `cluster_status` answer with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Name of the node that answers.
    pub node_name: String,
    /// True if the node belongs to a cluster.
    pub is_enabled: bool,
    /// Name of the cluster; absent if the node belongs to none.
    pub cluster: Option<String>,
    /// Role of the node, as [`ClusterConnection::role`]; absent if it belongs to no cluster.
    pub role: Option<String>,
    /// The other members that the node knows, by name.
    pub connections: Vec<ClusterConnection>,
    /// Routes of the node.
    pub routes: Vec<FoundRoute>,
}

/// Member of a cluster as another one sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterConnection {
    /// Name of the member.
    pub node_name: String,
    /// `open` if a connection is up, `closed` if not, `other_cluster` if the node belongs to another cluster.
    pub status: String,
    /// `full` if the member is connected to every other one, `hidden` if it is so and told to nobody, `leaf` if it keeps one
    /// connection.
    pub role: String,
    /// Ports at which the member listens, by use: `clustering` is that of the first address.
    pub ports: BTreeMap<String, u16>,
    /// Addresses at which the member listens, `host:port`.
    pub addresses: Vec<String>,
    /// Last round trip in milliseconds; absent without a connection, and before the first one was measured.
    pub latency_ms: Option<f64>,
    /// Age of the connection, as `1d 2h 3m 4s`; absent without a connection.
    pub uptime: Option<String>,
    /// Time in milliseconds since the member was heard: since its last bytes, or since the connection was lost.
    pub last_heard_ms: Option<u64>,
    /// Gateway next to this node; absent for a direct connection.
    pub via: Option<String>,
    /// Member that told of it last; absent if nobody did.
    pub told_by: Option<String>,
    /// Name of the other cluster.
    pub cluster: Option<String>,
    /// Dials that failed since the last connection.
    pub failures: u32,
    /// Error of the last dial that failed.
    pub last_error: Option<String>,
    /// Time in milliseconds since that dial failed.
    pub last_error_ms: Option<u64>,
    /// Time until the next dial in milliseconds; absent while a connection is up.
    pub next_dial_ms: Option<u64>,
}

/// Ways to a member of the cluster that the node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberWays {
    /// Addresses at which the member listens, `host:port`.
    pub addresses: Vec<String>,
    /// Member that told of it last; absent if nobody did.
    pub told_by: Option<String>,
    /// Members that are asked to pass on when the member cannot be dialled, in the order to try.
    pub gateways: Vec<String>,
}

impl MemberWays {
    /// Returns the ways to a node, if the cluster knows it.
    pub(crate) fn of(cluster: &trunkline::Cluster, name: &NodeName) -> Option<Self> {
        let member = cluster.member(name)?;
        Some(Self {
            addresses: member.endpoints.iter().map(ToString::to_string).collect(),
            told_by: member.told_by.map(|name| name.to_string()),
            gateways: cluster.gateways_to(name).iter().map(ToString::to_string).collect(),
        })
    }
}

/// Route of a cluster, and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRoute {
    /// Host and port.
    #[serde(flatten)]
    pub route: ClusterRoute,
    /// Names of the nodes that were found there; the node itself is one of them if the route leads to it.
    pub nodes: Vec<String>,
    /// Error of the last attempt to find any; absent while a node that was found is connected.
    pub last_error: Option<String>,
    /// Time until the next attempt in milliseconds; absent while a node that was found is connected.
    pub next_attempt_ms: Option<u64>,
}

/// Request body of `POST /v1/cluster/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Time for which the token is valid, in seconds, 1 to 2,592,000 (30 days). Default 3600.
    #[serde(default = "an_hour")]
    pub valid_s: u64,
}

fn an_hour() -> u64 {
    3600
}

/// Answer to `POST /v1/cluster/tokens`. The token is a secret: whoever has it can join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Token, one word.
    pub token: String,
    /// Id of the token, which is no secret.
    pub id: String,
    /// End of the validity, in seconds since 1970.
    pub expires: u64,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl From<&JoinToken> for NewToken {
    fn from(token: &JoinToken) -> Self {
        Self { token: token.expose(), id: token.id(), expires: seconds(token.expires) }
    }
}

/// Token that a node issued; `GET /v1/cluster/tokens` answers with all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// Id of the token.
    pub id: String,
    /// End of the validity, in seconds since 1970.
    pub expires: u64,
    /// Reason why it would be refused; absent if it can be used.
    pub refusal: Option<String>,
}

impl From<TokenStatus> for IssuedToken {
    fn from(status: TokenStatus) -> Self {
        let refusal = status.refusal.map(|refusal| refusal.to_string());
        Self { id: status.id, expires: seconds(status.expires), refusal }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Request body of `POST /v1/cluster/tokens/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    /// Id of the token.
    pub id: String,
}

impl Cluster {
    /// Returns the cluster as a node sees it. `link` returns the facts about the connection to a member.
    pub(crate) fn new(
        node_name: &NodeName,
        status: Option<ClusterStatus>,
        link: impl Fn(&NodeName) -> Option<(LinkInfo, LinkStats)>,
    ) -> Self {
        let node_name = node_name.to_string();
        let Some(ClusterStatus { cluster, role, peers, routes }) = status else {
            return Self { node_name, ..Self::default() };
        };
        let ms = |time: Duration| time.as_millis() as u64;
        let connection = |member: MemberStatus| {
            let (info, stats) = link(&member.name).unzip();
            let port = member.endpoints.first().map(|address| ("clustering".to_owned(), address.port.get()));
            let (last_error, failed_for) = member.last_error.unzip();
            ClusterConnection {
                status: match (member.is_up, &member.other_cluster) {
                    (true, _) => "open",
                    (false, Some(_)) => "other_cluster",
                    (false, None) => "closed",
                }
                .into(),
                role: member.role.as_str().into(),
                ports: port.into_iter().collect(),
                addresses: member.endpoints.iter().map(ToString::to_string).collect(),
                latency_ms: stats.filter(|stats| stats.round_trip_us > 0).map(|stats| stats.round_trip_us as f64 / 1e3),
                uptime: member.up_for.map(uptime),
                last_heard_ms: stats.map(|stats| stats.silent_us / 1000).or(member.lost_for.map(ms)),
                via: info.and_then(|info| info.via).map(|name| name.to_string()),
                told_by: member.told_by.map(|name| name.to_string()),
                cluster: member.other_cluster,
                failures: member.failures,
                last_error,
                last_error_ms: failed_for.map(ms),
                next_dial_ms: member.next_dial.map(ms),
                node_name: member.name.to_string(),
            }
        };
        let route = |route: ClusterRouteStatus| FoundRoute {
            route: (&route.address).into(),
            nodes: route.names.iter().map(ToString::to_string).collect(),
            last_error: route.last_error,
            next_attempt_ms: route.next_attempt.map(ms),
        };
        Self {
            node_name,
            is_enabled: true,
            cluster: Some(cluster),
            role: Some(role.as_str().into()),
            connections: peers.into_iter().map(connection).collect(),
            routes: routes.into_iter().map(route).collect(),
        }
    }
}

/// Writes a time as HarperDB does: `1d 2h 3m 4s`, from the first part that is not zero.
fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let shown = parts.iter().skip_while(|(count, unit)| *count == 0 && *unit != 's');
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptime_begins_with_its_first_part_that_is_not_zero() {
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3_661, "1h 1m 1s"), (2_596_688, "30d 1h 18m 8s")]
        {
            assert_eq!(uptime(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn operations_are_read_by_their_names() {
        let read = |text: &str| serde_json::from_str::<ClusterOperation>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{ "operation": "cluster_status" }"#), Ok(ClusterOperation::ClusterStatus));
        let set = read(r#"{ "clustering_x": 1, "operation": "set_configuration" }"#).unwrap();
        let ClusterOperation::SetConfiguration(keys) = set else { panic!("{set:?}") };
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["clustering_x"]);
        let error = read(r#"{ "operation": "cluster_sett_routes" }"#).unwrap_err();
        assert!(
            error.starts_with("unknown variant `cluster_sett_routes`, expected one of `cluster_status`"),
            "{error}"
        );
    }
}
