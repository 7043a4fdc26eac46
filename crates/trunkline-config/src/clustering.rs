//! Section `clustering:`: the cluster that the node belongs to, with the key names of HarperDB.

use std::num::NonZeroU16;
use std::path::Path;

use trunkline_route::{Address, Host};

use crate::fields::{Fields, Reader};
use crate::node::ListenConfig;
use crate::secret::Surroundings;
use crate::tree::{Node, Value};

/// Port of a route that names none.
pub const CLUSTER_PORT: u16 = 9932;
/// Name of a cluster that the configuration does not name.
const DEFAULT_NAME: &str = "trunkline";
/// Longest name of a cluster, in bytes.
const MAX_NAME: usize = 64;

/// Part of a cluster that the node belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusteringConfig {
    /// Name of the cluster (`hubServer.cluster.name`), 1 to 64 bytes. Default: `trunkline`.
    pub name: String,
    /// List that the routes are in, which tells the role of the node.
    pub server: ClusterServer,
    /// Hosts and ports at which members are found, without repeats; may be empty.
    pub routes: Vec<Address>,
}

/// Lists of routes to members, with the names that HarperDB gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterServer {
    /// `clustering.hubServer.cluster.network.routes`: the node is connected to every member.
    Hub,
    /// `clustering.leafServer.network.routes`: the node is a leaf, which keeps one connection.
    Leaf,
}

impl ClusterServer {
    /// Returns the path of the list in the configuration.
    pub fn path(self) -> &'static str {
        match self {
            Self::Hub => "clustering.hubServer.cluster.network.routes",
            Self::Leaf => "clustering.leafServer.network.routes",
        }
    }

    /// Returns the name of the list in HarperDB's operation `set_configuration`.
    pub fn operation_key(self) -> String {
        self.path().replace('.', "_")
    }
}

/// Error returned when a route of a cluster cannot be used. Names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterRouteError {
    /// Neither an IP address nor a host name, nor a URL with one.
    #[error("{host:?} is no host; write an IP address, a host name, HOST:PORT or a URL")]
    Host {
        /// The text, cut to 80 characters.
        host: String,
    },
    /// The port is not one that can be dialled.
    #[error("must be a port number from 1 to 65535")]
    Port,
    /// The host names another port than the field `port`.
    #[error("the host names port {in_host}, and `port` is {port}; keep one of them")]
    TwoPorts {
        /// Port that the host names.
        in_host: u16,
        /// Port of the field.
        port: u16,
    },
}

/// Returns the address of a route of a cluster. The host is an IP address, a host name, `HOST:PORT`, or a URL, of which the
/// host and the port are taken. Without any port it is [`CLUSTER_PORT`].
///
/// ```
/// use trunkline_config::cluster_route;
///
/// assert_eq!(cluster_route("10.0.0.1", None)?.to_string(), "10.0.0.1:9932");
/// assert_eq!(cluster_route("wss://db.example.com:9933/x", None)?.to_string(), "db.example.com:9933");
/// assert_eq!(cluster_route("::1", Some(7))?.to_string(), "[::1]:7");
/// assert!(cluster_route("10.0.0.1:8", Some(7)).is_err());
/// assert!(cluster_route("10.0.0.1,10.0.0.2", None).is_err());
/// # Ok::<(), trunkline_config::ClusterRouteError>(())
/// ```
///
/// # Errors
/// [`ClusterRouteError`].
pub fn cluster_route(host: &str, port: Option<u16>) -> Result<Address, ClusterRouteError> {
    let refused = || ClusterRouteError::Host { host: host.chars().take(80).collect() };
    let authority = match host.split_once("://") {
        Some((_, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            authority.rsplit_once('@').map_or(authority, |(_, host)| host)
        }
        None => host,
    };
    // Two hosts in one text, or a pattern, would be looked up as a name.
    if authority.contains(['*', ',', ';', '?', '!', '"', '\'']) {
        return Err(refused());
    }
    let (host, in_host) = match (Host::new(authority), authority.rsplit_once(':')) {
        (Ok(host), _) => (host, None),
        (Err(_), Some((host, port))) => {
            let host = Host::new(host).map_err(|_| refused())?;
            (host, Some(port.parse::<NonZeroU16>().map_err(|_| ClusterRouteError::Port)?.get()))
        }
        (Err(_), None) => return Err(refused()),
    };
    if let (Some(in_host), Some(port)) = (in_host, port)
        && in_host != port
    {
        return Err(ClusterRouteError::TwoPorts { in_host, port });
    }
    let port = in_host.or(port).unwrap_or(CLUSTER_PORT);
    Ok(Address { host, port: NonZeroU16::new(port).ok_or(ClusterRouteError::Port)? })
}

/// Reads the section, and puts the listener of `network.port` into the listeners of the node. `is_listening` says that the
/// configuration names listeners.
pub(crate) fn clustering(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    is_listening: bool,
    listen: &mut Vec<ListenConfig>,
) -> Option<ClusteringConfig> {
    let section = fields.fields(reader, "clustering", &["enabled", "hubServer", "leafServer"])?;
    let is_enabled = section.bool(reader, "enabled").unwrap_or(true);
    let hub = section.fields(reader, "hubServer", &["cluster"]);
    let cluster = hub.and_then(|hub| hub.fields(reader, "cluster", &["name", "network"]));
    let mut config = ClusteringConfig { name: DEFAULT_NAME.into(), server: ClusterServer::Hub, routes: Vec::new() };
    if let Some(cluster) = &cluster {
        if let Some(name) = cluster.string(reader, "name") {
            if name.is_empty() || name.len() > MAX_NAME {
                reader.problem(&cluster.at("name"), cluster.path("name"), "the name of a cluster has 1 to 64 bytes");
            }
            config.name = name;
        }
        if let Some(network) = cluster.fields(reader, "network", &["port", "routes"]) {
            config.routes = routes(reader, &network);
            if is_enabled {
                listener(reader, &network, is_listening, listen);
            }
        }
    }
    let leaf = section.fields(reader, "leafServer", &["network"]);
    let network = leaf.and_then(|leaf| leaf.fields(reader, "network", &["routes"]));
    if let Some(network) = network.filter(|network| network.has("routes")) {
        if !config.routes.is_empty() {
            let message = "the node has routes of a hub too, and is either a hub or a leaf; keep one of the two lists";
            reader.problem(&network.at("routes"), network.path("routes"), message);
        }
        (config.server, config.routes) = (ClusterServer::Leaf, routes(reader, &network));
    }
    is_enabled.then_some(config)
}

fn listener(reader: &mut Reader<'_>, network: &Fields<'_>, is_listening: bool, listen: &mut Vec<ListenConfig>) {
    let Some(port) = network.int(reader, "port", 1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()) else {
        return;
    };
    if !is_listening {
        let host = Host::new("0.0.0.0").expect("an IP address is a host");
        *listen = vec![ListenConfig { host, port, advertise: None, tls: None, cookie: None, allow: None }];
    } else if listen.iter().all(|listen| listen.port != port) {
        let message = format!("node.listen has no listener on port {port}; add one, or remove this key");
        reader.problem(&network.at("port"), network.path("port"), message);
    }
}

fn routes(reader: &mut Reader<'_>, network: &Fields<'_>) -> Vec<Address> {
    let mut routes = Vec::new();
    let items = if network.has("routes") { network.list(reader, "routes").unwrap_or_default() } else { &[] };
    for (i, item) in items.iter().enumerate() {
        let path = format!("{}[{i}]", network.path("routes"));
        if let Some(route) = route(reader, item, &path)
            && !routes.contains(&route)
        {
            routes.push(route);
        }
    }
    routes
}

/// Returns the address of an item of the list of routes, if it is one.
pub(crate) fn route_of(item: &Node) -> Option<Address> {
    let around = Surroundings { base_dir: Path::new(""), environment: &[] };
    route(&mut Reader { problems: Vec::new(), warnings: Vec::new(), around }, item, "")
}

fn route(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<Address> {
    if let Value::Text(text) = &item.value {
        return match cluster_route(text, None) {
            Ok(route) => Some(route),
            Err(error) => {
                reader.problem(&item.at, path, error);
                None
            }
        };
    }
    let fields = Fields::open(reader, item, path, &["host", "hostname", "port"])?;
    let key = if fields.has("hostname") && !fields.has("host") { "hostname" } else { "host" };
    if fields.has("hostname") && fields.has("host") {
        reader.problem(
            &fields.at("hostname"),
            fields.path("hostname"),
            "both host and hostname are set; keep one of them",
        );
    }
    fields.needs(reader, key, "the route has no `host`; set it to the address of a member");
    let port = match fields.get("port").map(|node| &node.value) {
        None => None,
        Some(value) => {
            let number = match value {
                Value::Int(number) => u16::try_from(*number).ok(),
                Value::Text(text) => text.parse().ok(),
                _ => None,
            };
            let Some(port) = number.and_then(NonZeroU16::new) else {
                reader.problem(&fields.at("port"), fields.path("port"), ClusterRouteError::Port);
                return None;
            };
            Some(port.get())
        }
    };
    fields.parsed(reader, key, |host| cluster_route(host, port))
}
