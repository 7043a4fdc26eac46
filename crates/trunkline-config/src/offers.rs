//! `node.announce` and `service_nodes`: services that several nodes serve.

use std::collections::BTreeMap;

use trunkline_route::{NodeName, ServiceName};

use crate::fields::{Fields, Reader, join};
use crate::tree::{Node, Value};

/// Weight of a node that has none.
const WEIGHT: u16 = 100;

/// Service that the node serves with others. An entry of `node.announce`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceConfig {
    /// Weight: nodes with a higher one are used first, and one with 0 is not used. Default: 100.
    pub weight: u16,
    /// Tags by which some of the nodes can be asked for.
    pub tags: Vec<String>,
}

/// Node that serves a service, listed by hand. An entry of `service_nodes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceNodeConfig {
    /// Name of the node.
    pub node: NodeName,
    /// Weight and tags.
    pub offer: AnnounceConfig,
}

/// Reads a mapping from services to something.
fn by_service<T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    key: &str,
    expected: &str,
    read: impl Fn(&mut Reader<'_>, &Node, &str) -> Option<T>,
) -> BTreeMap<ServiceName, T> {
    let mut found = BTreeMap::new();
    match fields.get(key).map(|node| &node.value) {
        None => {}
        Some(Value::Map(entries)) => {
            for (service, node) in entries {
                let path = join(&fields.path(key), &service.text.chars().take(64).collect::<String>());
                match ServiceName::new(&service.text) {
                    Ok(service) => found.extend(read(reader, node, &path).map(|read| (service, read))),
                    Err(error) => reader.problem(&service.at, path, error),
                }
            }
        }
        Some(_) => {
            fields.wrong::<()>(reader, key, expected);
        }
    }
    found
}

fn weight(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<u16> {
    match fields.has("weight") {
        true => fields.int(reader, "weight", 0, u16::MAX.into()).and_then(|weight| u16::try_from(weight).ok()),
        false => Some(WEIGHT),
    }
}

fn offer(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<AnnounceConfig> {
    let weight = weight(reader, fields);
    let tag = |text: &str| ServiceName::new(text).ok().map(|tag| tag.to_string());
    let expected = "a tag is a text of 1 to 128 bytes without spaces, `@` and `#`";
    let tags = fields.texts(reader, "tags", expected, tag).unwrap_or_default();
    Some(AnnounceConfig { weight: weight?, tags })
}

/// Reads `node.announce`: a weight for each service, or a mapping with `weight` and `tags`.
pub(crate) fn announce(reader: &mut Reader<'_>, fields: &Fields<'_>) -> BTreeMap<ServiceName, AnnounceConfig> {
    by_service(reader, fields, "announce", "a mapping from services to weights", |reader, node, path| {
        match &node.value {
            Value::Int(weight) => match u16::try_from(*weight) {
                Ok(weight) => Some(AnnounceConfig { weight, tags: Vec::new() }),
                Err(_) => {
                    reader.problem(&node.at, path, "a weight is from 0 to 65535");
                    None
                }
            },
            Value::Map(_) => {
                let fields = Fields::open(reader, node, path, &["weight", "tags"])?;
                offer(reader, &fields)
            }
            _ => {
                reader.problem(&node.at, path, "expected a weight, or a mapping with `weight` and `tags`");
                None
            }
        }
    })
}

/// Reads `service_nodes`: a list for each service, of names of nodes or of mappings with `node`, `weight` and `tags`.
pub(crate) fn service_nodes(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
) -> BTreeMap<ServiceName, Vec<ServiceNodeConfig>> {
    by_service(reader, fields, "service_nodes", "a mapping from services to lists of nodes", |reader, node, path| {
        let Value::List(items) = &node.value else {
            reader.problem(&node.at, path, "expected a list of nodes; write [db1@example.com, db2@example.com]");
            return None;
        };
        let mut nodes: Vec<ServiceNodeConfig> = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            let path = format!("{path}[{nth}]");
            let Some(listed) = service_node(reader, item, &path) else { continue };
            if nodes.iter().any(|known| known.node == listed.node) {
                reader.problem(&item.at, path, format!("{} is listed twice; remove one of them", listed.node));
            }
            nodes.push(listed);
        }
        Some(nodes)
    })
}

fn service_node(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<ServiceNodeConfig> {
    if let Value::Text(text) = &item.value {
        return match NodeName::new(text) {
            Ok(node) => Some(ServiceNodeConfig { node, offer: AnnounceConfig { weight: WEIGHT, tags: Vec::new() } }),
            Err(error) => {
                reader.problem(&item.at, path, error);
                None
            }
        };
    }
    let fields = Fields::open(reader, item, path, &["node", "weight", "tags"])?;
    fields.needs(reader, "node", "the entry has no `node`; write { node: NAME, weight: NUMBER }");
    let node = fields.parsed(reader, "node", |text| NodeName::new(text));
    let offer = offer(reader, &fields);
    Some(ServiceNodeConfig { node: node?, offer: offer? })
}
