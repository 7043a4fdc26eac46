//! The section `registrars`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use trunkline_matcher::AccessPattern;
use trunkline_route::{Address, Cookie, Host, HostTemplate};

use crate::fields::{Fields, Reader, join};
use crate::node;
use crate::tree::{Node, Value};

/// Id of the resolver that answers with the members of the cluster.
const CLUSTER: &str = "cluster";
/// Port of a node that DNS has no SRV record of.
const NODE_PORT: NonZeroU16 = NonZeroU16::new(4370).unwrap();
/// Port of name servers.
const DNS_PORT: u16 = 53;
/// Name of the SRV records of a node.
const SRV: &str = "_trunkline._tcp.{host}";

/// Entry of `registrars`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolverConfig {
    /// Embedded registrar served by another node.
    Embedded {
        /// Address of that registrar.
        address: Address,
        /// Cookie shown to that registrar; `None` means the node's cookie.
        cookie: Option<Cookie>,
    },
    /// YAML file of names; the file was readable when the configuration was loaded.
    File(PathBuf),
    /// DNS.
    Dns(DnsConfig),
}

/// Registrar of kind `dns`: nodes are found by SRV, A and AAAA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers; those of the system if there are none.
    pub servers: Vec<SocketAddr>,
    /// Name of the SRV records of a node; `None` to ask for addresses only. Default: `_trunkline._tcp.{host}`.
    pub srv: Option<HostTemplate>,
    /// Port of nodes without SRV records. Default: 4370.
    pub port: NonZeroU16,
    /// Other ports by the name of the node; the first pattern that matches the whole name counts.
    pub ports: Vec<(AccessPattern, NonZeroU16)>,
    /// Name of TXT records with the names of the gateways that lead to a node. Default: `None`.
    pub gateways: Option<HostTemplate>,
}

const EMBEDDED: &[&str] = &["host", "port", "cookie_file", "cookie_env", "cookie_label"];
const FILE: &[&str] = &["path"];
const DNS: &[&str] = &["servers", "srv", "port", "ports", "gateways"];

pub(crate) fn read(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ResolverConfig> {
    if [node::EMBEDDED, node::NONE, CLUSTER].iter().any(|word| path == format!("registrars.{word}")) {
        reader.problem(&node.at, path, "the name is reserved; choose another one");
        return None;
    }
    let known: Vec<&str> = ["kind"].iter().chain(EMBEDDED).chain(FILE).chain(DNS).copied().collect();
    let fields = Fields::open(reader, node, path, &known)?;
    let Some((kind, at)) = fields.text(reader, "kind") else {
        if !fields.has("kind") {
            let message = "the registrar has no `kind`; write `kind: embedded`, `kind: file` or `kind: dns`";
            reader.problem(&fields.at, fields.path("kind"), message);
        }
        return None;
    };
    let own = match kind {
        "embedded" => EMBEDDED,
        "file" => FILE,
        "dns" => DNS,
        other => {
            let message = format!("{:?} is not a kind of registrar; known: embedded, file, dns", node::clip(other));
            reader.problem(&at, fields.path("kind"), message);
            return None;
        }
    };
    for key in known.iter().filter(|key| **key != "kind" && !own.contains(key) && fields.has(key)) {
        let message = format!("a registrar of kind {kind} does not take this key; remove it");
        reader.problem(&fields.at(key), fields.path(key), message);
    }
    let needs = |reader: &mut Reader<'_>, key: &str| {
        if !fields.has(key) {
            reader.problem(&fields.at, fields.path(key), format!("a registrar of kind {kind} needs a `{key}`"));
        }
    };
    match kind {
        "file" => {
            needs(reader, "path");
            fields.file(reader, "path").map(ResolverConfig::File)
        }
        "dns" => dns(reader, &fields).map(ResolverConfig::Dns),
        _ => {
            needs(reader, "host");
            let host = fields.parsed(reader, "host", str::parse::<Host>);
            let port = if fields.has("port") {
                node::dialled_port(reader, &fields)
            } else {
                NonZeroU16::new(node::REGISTRAR_LISTEN.1)
            };
            let cookie = node::cookie(reader, &fields, None);
            Some(ResolverConfig::Embedded { address: Address { host: host?, port: port? }, cookie })
        }
    }
}

fn dns(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<DnsConfig> {
    let mut servers = Vec::new();
    if fields.has("servers") {
        for (nth, item) in fields.list(reader, "servers").unwrap_or_default().iter().enumerate() {
            servers.extend(server(reader, item, &format!("{}[{nth}]", fields.path("servers"))));
        }
    }
    let srv = match fields.text(reader, "srv") {
        Some((node::NONE, _)) => None,
        Some(_) => Some(fields.parsed(reader, "srv", str::parse::<HostTemplate>)?),
        None => SRV.parse().ok(),
    };
    let gateways = match fields.text(reader, "gateways") {
        Some((node::NONE, _)) | None => None,
        Some(_) => Some(fields.parsed(reader, "gateways", str::parse::<HostTemplate>)?),
    };
    let port = if fields.has("port") { node::dialled_port(reader, fields)? } else { NODE_PORT };
    let mut ports = Vec::new();
    if fields.has("ports") {
        for (nth, item) in fields.list(reader, "ports").unwrap_or_default().iter().enumerate() {
            ports.extend(port_rule(reader, item, &format!("{}[{nth}]", fields.path("ports"))));
        }
    }
    Some(DnsConfig { servers, srv, port, ports, gateways })
}

fn server(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<SocketAddr> {
    let text = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
    let server = text.parse::<SocketAddr>().ok();
    let server = server.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT)));
    let server = server.filter(|server| server.port() != 0);
    if server.is_none() {
        reader.problem(
            &item.at,
            path,
            "a name server is an IP address, or an address and a port; write, for example, 10.96.0.10:53",
        );
    }
    server
}

fn port_rule(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<(AccessPattern, NonZeroU16)> {
    let fields = Fields::open(reader, item, path, &["match", "port"])?;
    for key in ["match", "port"].iter().filter(|key| !fields.has(key)) {
        reader.problem(&fields.at, join(path, key), "is missing; write { match: PATTERN, port: NUMBER }");
    }
    let pattern = node::access_pattern(reader, fields.get("match")?, &fields.path("match"));
    Some((pattern?, node::dialled_port(reader, &fields)?))
}
