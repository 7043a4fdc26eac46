//! Answers of the operations API that no request takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trunkline::{AtomMapping, Candidate, NetworkRoute, PendingFailback, Source};
use trunkline_config::FlagsEntry;

/// A static route: `GET /v1/routes` gives all, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The weight.
    pub weight: i64,
    /// The fixed host; absent for the host in the name, or a resolver route.
    pub host: Option<String>,
    /// The fixed port.
    pub port: Option<u16>,
    /// The resolver that is asked for the address.
    pub resolver: Option<String>,
    /// True if certificates are verified; absent for the node's default.
    pub tls: Option<bool>,
    /// The TLS profile.
    pub tls_profile: Option<String>,
    /// TLS without verification.
    pub insecure_skip_verify: bool,
    /// The handshake version demanded.
    pub handshake: Option<String>,
    /// True if the route has a cookie of its own. The cookie itself is never shown.
    pub own_cookie: bool,
    /// The flags it switches on or off, and those it requires, as in the configuration; absent when it mentions none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagsEntry>,
    /// Names replaced on its connections: this node's, then the other's; absent when none is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atom_mapping: Option<BTreeMap<String, String>>,
    /// Log level of its connections; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Treatment of its connections when they go down; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<String>,
    /// Milliseconds for which it must have been healthy before connections go back to it; absent when they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback_ms: Option<u64>,
    /// Silence after which the peer is sent a ping, in milliseconds; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_ms: Option<u64>,
    /// Silence after which its connections are given up, in milliseconds; absent for the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_after_ms: Option<u64>,
    /// `never`, when the static routes are the whole answer for its names.
    pub fallback: Option<String>,
}

impl Route {
    /// A route as it stands in the table.
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

/// A proxy route: `GET /v1/proxy-routes` gives all, in order. `target_…` is for the connection to the final node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyRoute {
    /// The pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// The weight.
    pub weight: i64,
    /// The gateway.
    pub proxy: String,
    /// The only name it is for; absent when for all.
    pub to: Option<String>,
    /// The most gateways.
    pub max_hop: u8,
    /// `first`, `never` or `only`.
    pub direct: String,
    /// True if the gateway is shown a cookie of the route's own. The cookie itself is never shown.
    pub own_cookie: bool,
    /// True if the final node is shown a cookie of the route's own.
    pub own_target_cookie: bool,
    /// True if certificates are verified; absent for the node's default.
    pub target_tls: Option<bool>,
    /// The TLS profile.
    pub target_tls_profile: Option<String>,
    /// TLS without verification.
    pub target_insecure_skip_verify: bool,
    /// The handshake version demanded.
    pub target_handshake: Option<String>,
    /// The flags switched on or off, and those required; absent when none is mentioned.
    pub target_flags: Option<FlagsEntry>,
    /// Names replaced there: this node's, then the other's; absent when none is replaced.
    pub target_atom_mapping: Option<BTreeMap<String, String>>,
    /// Log level of its connections; absent for the node's.
    pub target_log_level: Option<String>,
}

impl ProxyRoute {
    /// A proxy route as it stands in the table.
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

/// A route that a connection is to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailbackTo {
    /// The pattern of the route.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Milliseconds for which the route must answer every probe.
    pub hold_ms: u64,
    /// Milliseconds for which it has; absent when it did not answer the last probe, or there was none yet.
    pub answered_ms: Option<u64>,
    /// Why the last probe failed; absent when it did not.
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
