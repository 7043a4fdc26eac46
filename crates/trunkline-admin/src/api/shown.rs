//! Types that occur only in answers of the operations API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trunkline::{AtomMapping, Candidate, NetworkRoute, PendingFailback, Source};
use trunkline_config::FlagsEntry;

/// Static route; `GET /v1/routes` answers with all of them, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Pattern of node names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Weight of the route.
    pub weight: i64,
    /// Fixed host; absent for a resolver route, or if the host in the name is dialled.
    pub host: Option<String>,
    /// Fixed port.
    pub port: Option<u16>,
    /// Resolver that is asked for the address.
    pub resolver: Option<String>,
    /// True if certificates are verified; absent for the node's default.
    pub tls: Option<bool>,
    /// Id of the TLS profile.
    pub tls_profile: Option<String>,
    /// True if TLS is used without verifying certificates.
    pub insecure_skip_verify: bool,
    /// Handshake version to use.
    pub handshake: Option<String>,
    /// True if the route has a cookie of its own. The cookie itself is never shown.
    pub own_cookie: bool,
    /// Flags switched on, off or required by the route, as in the configuration; absent if it mentions none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagsEntry>,
    /// Names replaced on its connections, from this node's name to the peer's; absent if none is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atom_mapping: Option<BTreeMap<String, String>>,
    /// Log level of its connections; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Reconnect policy of its connections; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<String>,
    /// Time in milliseconds for which it must answer every probe before connections return to it; absent if they do
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback_ms: Option<u64>,
    /// Silence after which the peer is sent a ping, in milliseconds; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_ms: Option<u64>,
    /// Silence after which its connections are considered dead, in milliseconds; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_after_ms: Option<u64>,
    /// `never` if no discovery follows for the names it matches; otherwise absent.
    pub fallback: Option<String>,
}

impl Route {
    /// Describes a route of the table.
    pub fn new(pattern: &str, weight: i64, route: &NetworkRoute) -> Self {
        let (host, port, resolver) = match route.source() {
            Source::Direct { host, port } => (host.clone(), Some(*port), None),
            Source::Resolve { resolver, overrides } => (overrides.host.clone(), overrides.port, Some(resolver)),
        };
        Self {
            pattern: pattern.into(),
            weight,
            host: host.map(|host| host.to_string()),
            port: port.map(u16::from),
            resolver: resolver.map(ToString::to_string),
            tls: route.tls(),
            tls_profile: route.tls_profile().map(ToString::to_string),
            insecure_skip_verify: route.insecure_skip_verify(),
            handshake: route.version().map(ToString::to_string),
            own_cookie: route.cookie().is_some(),
            flags: FlagsEntry::of(route.flags()),
            atom_mapping: route.atom_mapping().map(pairs),
            log_level: route.log_level().map(|level| level.to_string()),
            reconnect: route.reconnect().map(|policy| policy.to_string()),
            failback_ms: route.failback().map(|hold| hold.as_millis() as u64),
            keep_alive_ms: route.keep_alive().map(|silence| silence.as_millis() as u64),
            dead_after_ms: route.dead_after().map(|silence| silence.as_millis() as u64),
            fallback: route.fallback_never().then(|| "never".into()),
        }
    }
}

fn pairs(mapping: &AtomMapping) -> BTreeMap<String, String> {
    mapping.iter().map(|(local, peer)| (local.to_owned(), peer.to_owned())).collect()
}

impl From<&Candidate> for Route {
    fn from(candidate: &Candidate) -> Self {
        Self::new(&candidate.pattern, candidate.weight, &candidate.route)
    }
}

/// Proxy route; `GET /v1/proxy-routes` answers with all of them, in order. Fields `target_…` are about the connection
/// to the target node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRoute {
    /// Pattern of node names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Weight of the route.
    pub weight: i64,
    /// Name of the gateway.
    pub proxy: String,
    /// Name of the only node that the route is for; absent if it is for all that match.
    pub to: Option<String>,
    /// Maximum number of gateways on the way.
    pub max_hop: u8,
    /// Use of direct routes to the target: `first`, `never` or `only`.
    pub direct: String,
    /// True if the route has its own cookie for the gateway. The cookie itself is never shown.
    pub own_cookie: bool,
    /// True if the route has its own cookie for the target node.
    pub own_target_cookie: bool,
    /// True if certificates are verified; absent for the node's default.
    pub target_tls: Option<bool>,
    /// Id of the TLS profile.
    pub target_tls_profile: Option<String>,
    /// True if TLS is used without verifying certificates.
    pub target_insecure_skip_verify: bool,
    /// Handshake version to use.
    pub target_handshake: Option<String>,
    /// Flags switched on, off or required; absent if none is mentioned.
    pub target_flags: Option<FlagsEntry>,
    /// Names replaced there, from this node's name to the peer's; absent if none is replaced.
    pub target_atom_mapping: Option<BTreeMap<String, String>>,
    /// Log level of its connections; absent for the node's.
    pub target_log_level: Option<String>,
}

impl ProxyRoute {
    /// Describes a proxy route of the table.
    pub fn new(pattern: &str, weight: i64, route: &trunkline::ProxyRoute) -> Self {
        let target = route.target_route();
        Self {
            pattern: pattern.into(),
            weight,
            proxy: route.gateway().to_string(),
            to: route.only_to().map(ToString::to_string),
            max_hop: route.most_hops().get(),
            direct: route.direct_use().to_string(),
            own_cookie: route.gateway_cookie().is_some(),
            own_target_cookie: target.cookie().is_some(),
            target_tls: target.tls(),
            target_tls_profile: target.tls_profile().map(ToString::to_string),
            target_insecure_skip_verify: target.insecure_skip_verify(),
            target_handshake: target.version().map(ToString::to_string),
            target_flags: FlagsEntry::of(target.flags()),
            target_atom_mapping: target.atom_mapping().map(pairs),
            target_log_level: target.log_level().map(|level| level.to_string()),
        }
    }
}

/// Better route to which a connection shall return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackTo {
    /// Pattern of the route.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Time for which the route must answer every probe, in milliseconds.
    pub hold_ms: u64,
    /// Time for which it has answered every probe, in milliseconds; absent before the first probe or after a failed
    /// one.
    pub answered_ms: Option<u64>,
    /// Cause of the last probe's failure; absent if it succeeded.
    pub error: Option<String>,
}

impl From<PendingFailback> for FailbackTo {
    fn from(pending: PendingFailback) -> Self {
        Self {
            pattern: pending.pattern.to_string(),
            hold_ms: pending.hold.as_millis() as u64,
            answered_ms: pending.answered_for.map(|time| time.as_millis() as u64),
            error: pending.failure,
        }
    }
}
