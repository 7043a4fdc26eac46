//! Sections `services:` and `forwards:`: byte streams offered to peers, and opened to peers.

use std::collections::BTreeMap;
use std::time::Duration;

use trunkline_matcher::AccessPattern;
use trunkline_route::{LocalPlace, SocketPlace, Target};

use crate::error::BoxError;
use crate::fields::{Fields, Reader, declared};
use crate::spawn::{allow, id};
use crate::tree::Node;

/// Byte-stream service that peers may open; each stream is connected to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Address or Unix socket that each stream is connected to; a relative path is relative to the configuration file.
    pub connect: SocketPlace,
    /// Patterns of the peers that may open it, each matching the whole name.
    pub allow: Vec<AccessPattern>,
    /// Time without a byte in either direction after which a stream is reset (`idle_ms`), 1 s to 24 h. Default: no
    /// limit.
    pub idle: Option<Duration>,
}

/// Local listening socket whose connections are forwarded to a service of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardConfig {
    /// Address or Unix socket to listen at; a relative path is relative to the configuration file.
    pub listen: LocalPlace,
    /// Node that offers the service, or `@service` for any node that serves that.
    pub name: Target,
    /// Name of the service.
    pub service: String,
    /// Time without a byte in either direction after which a connection is reset (`idle_ms`), 1 s to 24 h. Default: no
    /// limit.
    pub idle: Option<Duration>,
}

fn idle(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Duration> {
    let ms = fields.int(reader, "idle_ms", 1_000, 86_400_000).and_then(|ms| u64::try_from(ms).ok());
    ms.map(Duration::from_millis)
}

pub(crate) fn services(reader: &mut Reader<'_>, fields: &Fields<'_>) -> BTreeMap<String, ServiceConfig> {
    declared(reader, fields, "services", "services", id, service).0
}

fn service(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ServiceConfig> {
    let fields = Fields::open(reader, node, path, &["connect", "allow", "idle_ms"])?;
    let (allow, idle) = (allow(reader, &fields), idle(reader, &fields));
    let remedy = "the service has no `connect`; set it to HOST:PORT or unix:PATH of its server";
    let connect = parsed::<SocketPlace>(reader, &fields, "connect", remedy)?;
    Some(ServiceConfig { connect: connect.within(reader.around.base_dir), allow: allow?, idle })
}

pub(crate) fn forwards(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<ForwardConfig> {
    let mut forwards: Vec<ForwardConfig> = Vec::new();
    let items = fields.list(reader, "forwards");
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("forwards[{i}]");
        let Some(fields) = Fields::open(reader, item, &path, &["listen", "name", "service", "idle_ms"]) else {
            continue;
        };
        let idle = idle(reader, &fields);
        let remedy = "the forward has no `listen`; set it to IP:PORT or unix:PATH of this machine";
        let listen = parsed::<LocalPlace>(reader, &fields, "listen", remedy);
        let name =
            parsed::<Target>(reader, &fields, "name", "the forward has no `name`; set it to the node it leads to");
        let service =
            parsed::<String>(reader, &fields, "service", "the forward has no `service`; name a service of that node");
        if service.as_ref().is_some_and(|service| service.is_empty() || service.len() > 255) {
            reader.problem(&fields.at("service"), fields.path("service"), "a service name must have 1 to 255 bytes");
        }
        let (Some(listen), Some(name), Some(service)) = (listen, name, service) else { continue };
        let listen = listen.within(reader.around.base_dir);
        let any_port = matches!(listen, LocalPlace::Tcp(address) if address.port() == 0);
        if !any_port && forwards.iter().any(|other| other.listen == listen) {
            reader.problem(
                &fields.at("listen"),
                fields.path("listen"),
                format!("{listen} is used by two forwards; change one of them"),
            );
        }
        forwards.push(ForwardConfig { listen, name, service, idle });
    }
    forwards
}

fn parsed<T: std::str::FromStr<Err: Into<BoxError>>>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    key: &str,
    remedy: &str,
) -> Option<T> {
    fields.needs(reader, key, remedy);
    fields.parsed(reader, key, str::parse)
}
