//! `node.registrar_rules` and `node.registrar_routes`: what a node that serves as the registrar permits and hands out.

use trunkline_matcher::{AccessPattern, RoutePattern};
use trunkline_route::{Address, Endpoint, Host, ServiceName, Version};

use crate::fields::{Fields, Reader};
use crate::node;
use crate::tree::Node;

/// Permission to announce. An entry of `node.registrar_rules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrarRuleConfig {
    /// Names that may be announced; the pattern matches the whole name.
    pub names: AccessPattern,
    /// Label of the cookie that must be proven (`cookie`); `None` for any.
    pub cookie: Option<String>,
    /// Patterns that may be announced as the names to which a gateway leads. Default: none.
    pub gateways: Vec<String>,
    /// Services that may be announced; `None`, the default, for any.
    pub services: Option<Vec<String>>,
}

/// Static route that is handed out. An entry of `node.registrar_routes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrarRouteConfig {
    /// Pattern of names; matches anywhere in a name unless it is anchored.
    pub pattern: RoutePattern,
    /// Address, and maybe `tls` and `handshake`.
    pub endpoint: Endpoint,
}

/// Reads a list of mappings.
fn entries<T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    key: &str,
    read: impl Fn(&mut Reader<'_>, &Node, &str) -> Option<T>,
) -> Vec<T> {
    let items = if fields.has(key) { fields.list(reader, key).unwrap_or_default() } else { &[] };
    let mut found = Vec::new();
    for (nth, item) in items.iter().enumerate() {
        found.extend(read(reader, item, &format!("{}[{nth}]", fields.path(key))));
    }
    found
}

pub(crate) fn rules(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<RegistrarRuleConfig> {
    entries(reader, fields, "registrar_rules", rule)
}

fn rule(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<RegistrarRuleConfig> {
    let fields = Fields::open(reader, item, path, &["names", "cookie", "gateways", "services"])?;
    fields.needs(reader, "names", "the rule has no `names`; add a pattern of the names that may be announced");
    let names = fields.get("names").and_then(|names| node::access_pattern(reader, names, &fields.path("names")));
    let cookie = fields.string(reader, "cookie");
    let pattern = |text: &str| AccessPattern::new(text).ok().map(|pattern| pattern.as_str().to_owned());
    let gateways = fields.texts(reader, "gateways", "expected a pattern as a gateway announces it", pattern);
    let service = |text: &str| ServiceName::new(text).ok().map(|service| service.to_string());
    let services = fields.texts(reader, "services", "expected the name of a service", service);
    Some(RegistrarRuleConfig { names: names?, cookie, gateways: gateways.unwrap_or_default(), services })
}

pub(crate) fn routes(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<RegistrarRouteConfig> {
    let routes = entries(reader, fields, "registrar_routes", route);
    for (nth, route) in routes.iter().enumerate() {
        if routes[..nth].iter().any(|other| other.pattern.as_str() == route.pattern.as_str()) {
            let message = format!("the pattern {} occurs twice; remove one of them", route.pattern.as_str());
            reader.problem(&fields.at("registrar_routes"), fields.path("registrar_routes"), message);
        }
    }
    routes
}

fn route(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<RegistrarRouteConfig> {
    let fields = Fields::open(reader, item, path, &["match", "host", "port", "tls", "handshake"])?;
    for key in ["match", "host", "port"] {
        fields.needs(reader, key, "is missing; write { match: PATTERN, host: HOST, port: NUMBER }");
    }
    let pattern = fields.parsed(reader, "match", RoutePattern::new);
    let host = fields.parsed(reader, "host", str::parse::<Host>);
    let port = if fields.has("port") { node::dialled_port(reader, &fields) } else { None };
    let tls = fields.bool(reader, "tls");
    let handshake = fields.parsed(reader, "handshake", str::parse::<Version>);
    let endpoint = Endpoint { address: Address { host: host?, port: port? }, tls, version: handshake };
    Some(RegistrarRouteConfig { pattern: pattern?, endpoint })
}
