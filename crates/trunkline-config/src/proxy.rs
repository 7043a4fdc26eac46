//! Sections `proxy_routes:`, `transit:` and `proxied:`: routes through gateways, and rules for acting as one.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::time::Duration;

use trunkline_matcher::{AccessPattern, RoutePattern};
use trunkline_route::{DEFAULT_WEIGHT, DirectUse, NodeName, PeerFlags, ProxyRoute};

use crate::fields::{Fields, Reader, twice};
use crate::node::{self, access_pattern, flags, patterns};
use crate::route::{RouteContext, RouteEntry, entry_of, route_pattern};
use crate::tree::{At, Node};

/// Proxy route with its pattern and weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRouteConfig {
    /// Pattern of node names.
    pub pattern: RoutePattern,
    /// Weight of the route; higher weights are tried first.
    pub weight: i64,
    /// Description of how matching nodes are reached.
    pub route: ProxyRoute,
}

/// Rules and limits for connections forwarded between other nodes; the default forwards nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitConfig {
    /// Patterns of neighbours that are gateways themselves, each matching the whole name.
    pub gateways: Vec<AccessPattern>,
    /// Rules that allow transit.
    pub rules: Vec<TransitRuleConfig>,
    /// Maximum number of circuits at a time.
    pub circuits: usize,
    /// Maximum number of circuits of one neighbour at a time.
    pub per_peer: usize,
    /// Maximum number of circuits at a time of all neighbours at one address.
    pub per_address: usize,
    /// Maximum average rate of new circuits per second of one neighbour.
    pub opens_per_second: u32,
    /// Number of new circuits that one neighbour may open at once after a pause.
    pub burst: u32,
    /// Time without traffic after which a circuit is closed (`idle_ms`), 15 s to a day. Default: 10 minutes.
    pub idle: Duration,
}

/// Entry of `transit.rules`: allows circuits from one set of neighbours to one set of targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitRuleConfig {
    /// Pattern of neighbours that may open circuits, matching the whole name.
    pub from: AccessPattern,
    /// Pattern of target nodes, matching the whole name.
    pub to: AccessPattern,
    /// Flags that the two ends may agree on (`flags`). Default: all.
    pub flags: PeerFlags,
}

/// Restrictions on peers that reach this node through gateways; the default admits every peer that proves the cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxiedConfig {
    /// Patterns of the names admitted, each matching the whole name; `None` admits every name, an empty list none.
    pub allow: Option<Vec<AccessPattern>>,
    /// Patterns of the gateways accepted, each matching the whole name; `None` accepts every gateway, an empty list
    /// none.
    pub gateways: Option<Vec<AccessPattern>>,
    /// Flags that may be agreed on with such peers (`flags`). Default: all.
    pub flags: PeerFlags,
}

impl Default for ProxiedConfig {
    fn default() -> Self {
        Self { allow: None, gateways: None, flags: PeerFlags::ALL }
    }
}

impl Default for TransitConfig {
    fn default() -> Self {
        Self {
            gateways: Vec::new(),
            rules: Vec::new(),
            circuits: 1_024,
            per_peer: 64,
            per_address: 256,
            opens_per_second: 10,
            burst: 50,
            idle: Duration::from_secs(600),
        }
    }
}

/// Keys that a proxy route may set for the connection to the target node.
const TARGET: [&str; 10] = [
    "tls",
    "tls_profile",
    "insecure_skip_verify",
    "handshake",
    "cookie_file",
    "cookie_env",
    "cookie_label",
    "flags",
    "atom_mapping",
    "log_level",
];

pub(crate) fn proxy_routes(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    context: &RouteContext<'_>,
) -> Vec<ProxyRouteConfig> {
    let (mut routes, mut seen) = (Vec::new(), BTreeMap::new());
    let items = fields.list(reader, "proxy_routes");
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("proxy_routes[{i}]");
        if let Some(route) = proxy_route(reader, item, &path, context, &mut seen) {
            routes.push(route);
        }
    }
    routes
}

fn proxy_route(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    context: &RouteContext<'_>,
    seen: &mut BTreeMap<String, (String, At)>,
) -> Option<ProxyRouteConfig> {
    let keys =
        ["match", "weight", "proxy", "to", "max_hop", "direct", "cookie_file", "cookie_env", "cookie_label", "target"];
    let fields = Fields::open(reader, node, path, &keys)?;
    fields.needs(reader, "match", "the proxy route has no `match`; add a pattern of node names");
    fields.needs(reader, "proxy", "the proxy route has no `proxy`; set it to the gateway's name");
    let pattern = fields.parsed(reader, "match", route_pattern);
    if let Some(pattern) = &pattern {
        twice(reader, seen, pattern.as_str(), &fields.at("match"), path);
    }
    let gateway = fields.parsed(reader, "proxy", str::parse::<NodeName>);
    let to = fields.parsed(reader, "to", str::parse::<NodeName>);
    let max_hop = fields.int(reader, "max_hop", 1, 16);
    let direct = fields.parsed(reader, "direct", str::parse::<DirectUse>);
    let cookie = node::cookie(reader, &fields, None);
    let target = if fields.has("target") { target(reader, &fields, context)? } else { None };
    let mut route = ProxyRoute::via(gateway?).direct(direct.unwrap_or_default());
    if let Some(name) = to {
        route = route.to(name);
    }
    if let Some(most) = max_hop.and_then(|most| u8::try_from(most).ok()).and_then(NonZeroU8::new) {
        route = route.max_hop(most);
    }
    if let Some(cookie) = cookie {
        route = route.cookie(cookie);
    }
    if let Some(target) = target {
        route = route.target(target);
    }
    let weight = fields.int(reader, "weight", i64::MIN, i64::MAX).unwrap_or(DEFAULT_WEIGHT);
    Some(ProxyRouteConfig { pattern: pattern?, weight, route })
}

/// Reads the demands on the target node, which are those of a route without an address.
fn target(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    context: &RouteContext<'_>,
) -> Option<Option<trunkline_route::NetworkRoute>> {
    let fields = fields.fields(reader, "target", &TARGET)?;
    let before = reader.problems.len();
    let entry = RouteEntry { pattern: "target".into(), port: Some(1), ..entry_of(reader, &fields) };
    if reader.problems.len() > before {
        return None;
    }
    match entry.to_route(context) {
        Ok((_, _, route)) => {
            if let Some(cookie) = route.cookie() {
                let key = if entry.cookie_file.is_some() { "cookie_file" } else { "cookie_env" };
                node::warn_if_weak(reader, &fields.path(key), cookie);
            }
            Some(Some(route))
        }
        Err(error) => {
            for problem in error.problems() {
                let key = problem.field.split('.').next().unwrap_or_default();
                reader.problem(&fields.at(key), fields.path(&problem.field), problem.cause.clone());
            }
            None
        }
    }
}

pub(crate) fn transit(reader: &mut Reader<'_>, fields: &Fields<'_>) -> TransitConfig {
    let mut transit = TransitConfig::default();
    if !fields.has("transit") {
        return transit;
    }
    let keys = ["gateways", "rules", "circuits", "per_peer", "per_address", "opens_per_second", "burst", "idle_ms"];
    let Some(fields) = fields.fields(reader, "transit", &keys) else { return transit };
    transit.gateways = patterns(reader, &fields, "gateways").unwrap_or_default();
    let rules = fields.list(reader, "rules");
    for (i, item) in rules.unwrap_or_default().iter().enumerate() {
        let path = format!("transit.rules[{i}]");
        let Some(fields) = Fields::open(reader, item, &path, &["from", "to", "flags"]) else { continue };
        let flags = flags(reader, &fields);
        let mut pattern = |key: &str| match fields.get(key) {
            Some(node) => access_pattern(reader, node, &fields.path(key)),
            None => {
                let message = "a rule needs `from` (who may go through) and `to` (which nodes they reach): patterns of whole names";
                reader.problem(&fields.at, fields.path(key), message);
                None
            }
        };
        if let (Some(from), Some(to), Some(flags)) = (pattern("from"), pattern("to"), flags) {
            transit.rules.push(TransitRuleConfig { from, to, flags });
        }
    }
    let mut number = |key: &str, most: i64| fields.int(reader, key, 1, most).and_then(|n| u32::try_from(n).ok());
    const MOST: i64 = 65_536;
    if let Some(circuits) = number("circuits", MOST) {
        transit.circuits = circuits as usize;
    }
    if let Some(per_peer) = number("per_peer", MOST) {
        transit.per_peer = per_peer as usize;
    }
    if let Some(per_address) = number("per_address", MOST) {
        transit.per_address = per_address as usize;
    }
    transit.opens_per_second = number("opens_per_second", MOST).unwrap_or(transit.opens_per_second);
    transit.burst = number("burst", MOST).unwrap_or(transit.burst);
    if let Some(ms) = idle(reader, &fields) {
        transit.idle = Duration::from_millis(ms);
    }
    transit
}

/// Smallest accepted `transit.idle_ms`. An idle connection sends a ping every 5 s, and its ends give up after 15 s of
/// silence. A gateway with a shorter limit would end healthy connections.
const MIN_IDLE_MS: i64 = 15_000;
/// Largest accepted `transit.idle_ms`: a day.
const MAX_IDLE_MS: i64 = 86_400_000;

fn idle(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<u64> {
    let ms = fields.int(reader, "idle_ms", 0, MAX_IDLE_MS)?;
    if ms < MIN_IDLE_MS {
        let message = format!(
            "{ms} ms would end healthy connections: an idle one sends a ping every 5 s, and its ends give up after 15 s \
             of silence; write a number from {MIN_IDLE_MS} to {MAX_IDLE_MS}"
        );
        reader.problem(&fields.at("idle_ms"), fields.path("idle_ms"), message);
        return None;
    }
    u64::try_from(ms).ok()
}

/// Reports a `transit.idle_ms` that does not exceed the silence after which this node's own connections send a ping.
pub(crate) fn outlasts_pings(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    transit: &TransitConfig,
    keep_alive: Duration,
) {
    if transit.idle <= keep_alive {
        let (idle, ping) = (transit.idle.as_millis(), keep_alive.as_millis());
        let message = format!(
            "{idle} ms is not longer than `node.keep_alive_ms` ({ping}): an idle connection would end before it sends a \
             ping; write more than {ping}, or lower `node.keep_alive_ms`"
        );
        reader.problem(&fields.at("transit"), "transit.idle_ms", message);
    }
}

pub(crate) fn proxied(reader: &mut Reader<'_>, fields: &Fields<'_>) -> ProxiedConfig {
    if !fields.has("proxied") {
        return ProxiedConfig::default();
    }
    let Some(fields) = fields.fields(reader, "proxied", &["allow", "gateways", "flags"]) else {
        return ProxiedConfig::default();
    };
    ProxiedConfig {
        allow: patterns(reader, &fields, "allow"),
        gateways: patterns(reader, &fields, "gateways"),
        flags: flags(reader, &fields).unwrap_or_default(),
    }
}
