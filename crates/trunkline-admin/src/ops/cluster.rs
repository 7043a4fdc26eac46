//! Operations about the cluster of the node, with the fields and answers of HarperDB.

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use trunkline::{Address, ClusterRole, ForgetError, TokenError};
use trunkline_config::{ClusterRouteError, ClusterServer, ClusteringConfig, Config, cluster_route, edit};

use super::{Kind, OpError, Operations, name, not_edited, started_from};
use crate::api::{
    Changed, Cluster, ClusterNetwork, ClusterRoute, ClusterRoutes, IssuedToken, NetworkRequest, NewToken,
    RoutesDeleted, RoutesRequest, RoutesSet, TokenRequest,
};

/// Default of the time to wait for the answers of members.
const ANSWERS: u64 = 2000;
/// Longest time to wait for them, in milliseconds.
const MAX_ANSWERS: u64 = 60_000;
/// Routes that a node can have, as far as operations set them.
const MAX_ROUTES: usize = 1000;
/// Problems of one request that its answer tells.
const TOLD: usize = 10;

impl Operations {
    /// Returns the cluster as the node sees it.
    pub fn cluster(&self) -> Cluster {
        let status = self.node.cluster().map(|cluster| cluster.status());
        Cluster::new(self.node.name(), status, |name| {
            let connection = self.node.connection(name.clone())?;
            Some((connection.info(), connection.stats()))
        })
    }

    /// Returns the routes of the cluster.
    pub fn cluster_routes(&self) -> ClusterRoutes {
        let routes = self.running_routes().iter().map(ClusterRoute::from).collect();
        match self.server() {
            ClusterServer::Hub => ClusterRoutes { hub: routes, leaf: Vec::new() },
            ClusterServer::Leaf => ClusterRoutes { hub: Vec::new(), leaf: routes },
        }
    }

    /// Returns the list that the routes of the node are in.
    fn server(&self) -> ClusterServer {
        match self.node.cluster().map(|cluster| cluster.role()) {
            Some(ClusterRole::Leaf) => ClusterServer::Leaf,
            _ => ClusterServer::Hub,
        }
    }

    fn running_routes(&self) -> Vec<Address> {
        let routes = self.node.cluster().map(|cluster| cluster.status().routes).unwrap_or_default();
        routes.into_iter().map(|route| route.address).collect()
    }

    /// Adds routes of the cluster at once, and writes them to the file. Reads and writes files.
    ///
    /// # Errors
    /// [`OpError`] if a route cannot be used, if the node belongs to no cluster, if the command line or the environment sets
    /// the routes, or if the file cannot be written; nothing changed.
    pub fn set_cluster_routes(&self, request: &RoutesRequest) -> Result<RoutesSet, OpError> {
        let asked = request_routes(request, self.server())?;
        let (mut set, mut skipped) = (Vec::new(), Vec::new());
        let mut warnings = self.change_cluster_routes(|routes| {
            for route in asked {
                if routes.contains(&route) {
                    skipped.push((&route).into());
                } else {
                    routes.push(route.clone());
                    set.push(route);
                }
            }
        })?;
        warnings.retain(|warning| set.iter().any(|route| warning.contains(&format!(": {} ", route.host))));
        warnings
            .extend(set.iter().filter(|route| self.is_own(route)).map(|route| format!("{route} is this node itself")));
        let set = set.iter().map(ClusterRoute::from).collect();
        Ok(RoutesSet { message: self.changed("cluster routes successfully set"), set, skipped, warnings })
    }

    /// Removes routes of the cluster at once, also from the file; nobody is disconnected. Reads and writes files.
    ///
    /// # Errors
    /// As [`Operations::set_cluster_routes`].
    pub fn delete_cluster_routes(&self, request: &RoutesRequest) -> Result<RoutesDeleted, OpError> {
        let asked = request_routes(request, self.server())?;
        let (mut deleted, mut skipped) = (Vec::new(), Vec::new());
        self.change_cluster_routes(|routes| {
            for route in asked {
                let list = if routes.contains(&route) { &mut deleted } else { &mut skipped };
                list.push((&route).into());
                routes.retain(|known| *known != route);
            }
        })?;
        Ok(RoutesDeleted { message: self.changed("cluster routes successfully deleted"), deleted, skipped })
    }

    /// Replaces the routes of the cluster at once, also in the file. The only key is
    /// `clustering_hubServer_cluster_network_routes`, at a leaf `clustering_leafServer_network_routes`, in capitals or not.
    /// Reads and writes files.
    ///
    /// # Errors
    /// As [`Operations::set_cluster_routes`], and for any other key.
    pub fn set_configuration(&self, keys: &Map<String, Value>) -> Result<Changed, OpError> {
        let can_be_set = self.server().operation_key();
        if let Some(key) = keys.keys().find(|key| !key.eq_ignore_ascii_case(&can_be_set)) {
            let key: String = key.chars().take(80).collect();
            return Err(bad(format!("'{key}' is not allowed; the key that can be set is '{can_be_set}'")));
        }
        let Some((key, value)) = keys.iter().next() else { return Err(bad(format!("'{can_be_set}' is required"))) };
        let routes = read_routes(Some(value), key, 0)?;
        let warnings = self.change_cluster_routes(|known| *known = routes)?;
        Ok(Changed { warnings, ..Changed::new(self.changed("Configuration successfully set")) })
    }

    /// Applies a change of the routes to the file, and then to the node. Returns the warnings about routes.
    fn change_cluster_routes(&self, change: impl FnOnce(&mut Vec<Address>)) -> Result<Vec<String>, OpError> {
        let (cluster, server) = (self.member()?, self.server());
        // Changes have one order.
        let mut from_file = self.lock();
        let Some(source) = &self.source else {
            let mut routes = self.running_routes();
            change(&mut routes);
            cluster.set_routes(routes);
            return Ok(Vec::new());
        };
        if let Some(layer) = source.layers.over(server.path()) {
            let error = format!("the routes are set by {layer}, which counts more than the file; change them there");
            return Err(OpError::new(Kind::Conflict, error));
        }
        let config = self.save(server.path(), |text, source| {
            let config = started_from(source, text)?;
            let Some((_, in_file)) = self.own_cluster(&config) else {
                let error = format!(
                    "{}: not saved, nothing changed: the file does not make this node a {} of the cluster {} any more; \
                     restart the node, or change the file back",
                    source.path.display(),
                    if server == ClusterServer::Leaf { "leaf" } else { "member" },
                    cluster.name()
                );
                return Err(OpError::new(Kind::Conflict, error));
            };
            let mut routes = in_file.routes.clone();
            change(&mut routes);
            if routes.len() > MAX_ROUTES {
                return Err(bad(format!("{} routes are too many; at most {MAX_ROUTES} can be set", routes.len())));
            }
            edit::set_cluster_routes(text, server, &routes).map_err(|error| not_edited(source, &error))
        })?;
        let warnings = config.warnings().iter().filter(|warning| warning.starts_with(server.path())).cloned().collect();
        from_file.cluster_routes = config.clustering.map(|cluster| cluster.routes).unwrap_or_default();
        cluster.set_routes(from_file.cluster_routes.clone());
        Ok(warnings)
    }

    /// Returns the cluster of the node, and what a configuration says of it; `None` if it makes the node a member of none, or
    /// of another one, or gives it another role.
    pub(super) fn own_cluster<'c>(
        &self,
        config: &'c Config,
    ) -> Option<(&Arc<trunkline::Cluster>, &'c ClusteringConfig)> {
        let (cluster, new) = (self.node.cluster()?, config.clustering.as_ref()?);
        (cluster.name() == new.name && self.server() == new.server).then_some((cluster, new))
    }

    /// Returns the file with the routes of the cluster; `None` if the node belongs to no cluster, or has no file.
    pub(crate) fn watched(&self) -> Option<&Path> {
        self.node.cluster()?;
        Some(&self.source.as_ref()?.path)
    }

    /// Takes up the routes of the cluster from the file, if they are others than those that it had last. Returns their
    /// number then. Reads the file.
    ///
    /// # Errors
    /// [`OpError`] if the file cannot be read or is invalid; nothing changed.
    pub(crate) fn take_up_cluster_routes(&self) -> Result<Option<usize>, OpError> {
        let Some(source) = &self.source else { return Ok(None) };
        let mut from_file = self.lock();
        let config = Config::load(&source.path, &source.layers).map_err(|error| OpError::new(Kind::Bad, error))?;
        let Some((cluster, new)) = self.own_cluster(&config) else { return Ok(None) };
        if from_file.cluster_routes == new.routes {
            return Ok(None);
        }
        cluster.set_routes(new.routes.clone());
        from_file.cluster_routes = new.routes.clone();
        Ok(Some(from_file.cluster_routes.len()))
    }

    /// Returns the message about a change, which is lost when a node without a file stops.
    fn changed(&self, message: &str) -> String {
        match &self.source {
            Some(_) => message.into(),
            None => format!("{message}; not saved, because this node was not started from a file"),
        }
    }

    /// Returns true if the node listens at the address of a route.
    fn is_own(&self, route: &Address) -> bool {
        let Some(at) = route.socket() else { return false };
        let listens = |own: &std::net::SocketAddr| {
            own.port() == at.port() && (own.ip() == at.ip() || own.ip().is_unspecified() && at.ip().is_loopback())
        };
        self.node.listening().iter().any(listens)
    }

    /// Asks every member for its view of the cluster.
    ///
    /// # Errors
    /// [`OpError`] if a field of the request cannot be used.
    pub async fn cluster_network(&self, request: &NetworkRequest) -> Result<ClusterNetwork, OpError> {
        let is_true = |value: &Option<Value>, field: &str| match value {
            None => Ok(false),
            Some(Value::Bool(is_true)) => Ok(*is_true),
            Some(_) => Err(bad(format!("'{field}' must be a boolean"))),
        };
        let (without_nodes, without_routes) =
            (is_true(&request.connected_nodes, "connected_nodes")?, is_true(&request.routes, "routes")?);
        let timeout = request.timeout.as_ref().map_or(Some(ANSWERS), Value::as_u64);
        let timeout = timeout.filter(|timeout| (1..=MAX_ANSWERS).contains(timeout));
        let timeout = timeout.ok_or_else(|| bad(format!("'timeout' must be a number from 1 to {MAX_ANSWERS}")))?;
        let network = match self.node.cluster() {
            Some(cluster) => cluster.network(Duration::from_millis(timeout)).await,
            None => trunkline::ClusterNetwork::default(),
        };
        Ok(ClusterNetwork::new(network, without_nodes, without_routes))
    }

    /// Forgets a member of the cluster that is gone for good, here and at the other members.
    ///
    /// # Errors
    /// [`OpError`] if the member is not known, or is connected; nothing changed.
    pub fn forget(&self, text: &str) -> Result<Changed, OpError> {
        let name = name(text)?;
        let forgotten = match self.node.cluster() {
            Some(cluster) => cluster.forget(&name),
            None => Err(ForgetError::Unknown(name.clone())),
        };
        forgotten.map_err(|error| {
            let kind = if matches!(error, ForgetError::Unknown(_)) { Kind::Missing } else { Kind::Conflict };
            OpError::new(kind, error)
        })?;
        Ok(Changed::new(format!(
            "{name} is forgotten, and the connected members are told; it is a member again when it connects"
        )))
    }
}

/// Longest validity of a token, in seconds.
const MAX_VALID: u64 = trunkline::MAX_VALIDITY.as_secs();

impl Operations {
    fn member(&self) -> Result<&Arc<trunkline::Cluster>, OpError> {
        self.node.cluster().ok_or_else(|| {
            let error = "this node belongs to no cluster; add `clustering:` to its configuration, and restart it";
            OpError::new(Kind::Conflict, error)
        })
    }

    /// Issues a token by which one machine may join the cluster. Writes a file.
    ///
    /// # Errors
    /// [`OpError`]; nothing was issued.
    pub fn issue_token(&self, request: &TokenRequest) -> Result<NewToken, OpError> {
        if !(1..=MAX_VALID).contains(&request.valid_s) {
            let error = format!("valid_s: {} is not a number from 1 to {MAX_VALID}", request.valid_s);
            return Err(OpError::new(Kind::Bad, error));
        }
        let token = self.member()?.issue_token(Duration::from_secs(request.valid_s)).map_err(token_error)?;
        Ok((&token).into())
    }

    /// Returns the tokens that the node issued, without their secrets; a node that belongs to no cluster has none.
    pub fn tokens(&self) -> Vec<IssuedToken> {
        let tokens = self.node.cluster().map(|cluster| cluster.tokens()).unwrap_or_default();
        tokens.into_iter().map(IssuedToken::from).collect()
    }

    /// Revokes a token. Writes a file.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn revoke_token(&self, id: &str) -> Result<Changed, OpError> {
        self.member()?.revoke_token(id).map_err(token_error)?;
        Ok(Changed::new(format!("the token {id} is revoked")))
    }
}

fn token_error(error: TokenError) -> OpError {
    let kind = match error {
        TokenError::Unknown(_) => Kind::Missing,
        TokenError::NoAddress | TokenError::Leaf | TokenError::TooMany | TokenError::Used(_) => Kind::Conflict,
        _ => Kind::Internal,
    };
    OpError::new(kind, error)
}

fn bad(error: impl Into<String>) -> OpError {
    OpError::new(Kind::Bad, error.into())
}

/// Reads the routes of a request, at least one, for the list that the node has.
fn request_routes(request: &RoutesRequest, server: ClusterServer) -> Result<Vec<Address>, OpError> {
    let (own, role) = match server {
        ClusterServer::Hub => ("hub", "it is connected to every member"),
        ClusterServer::Leaf => ("leaf", "it keeps one connection"),
    };
    match request.server.as_ref() {
        None => {}
        Some(Value::String(server)) if server == own => {}
        Some(Value::String(server)) if ["hub", "leaf"].contains(&&**server) => {
            return Err(bad(format!("'server' must be {own} at this node: {role}")));
        }
        Some(_) => return Err(bad("'server' must be hub or leaf")),
    }
    read_routes(request.routes.as_ref(), "routes", 1)
}

/// Reads a list of routes. The error tells every item that cannot be used.
fn read_routes(value: Option<&Value>, field: &str, at_least: usize) -> Result<Vec<Address>, OpError> {
    let items = match value {
        None | Some(Value::Null) => return Err(bad(format!("'{field}' is required"))),
        Some(Value::Array(items)) if items.len() < at_least => {
            return Err(bad(format!("'{field}' must contain at least {at_least} item")));
        }
        Some(Value::Array(items)) if items.len() > MAX_ROUTES => {
            return Err(bad(format!("'{field}' must contain at most {MAX_ROUTES} items")));
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(bad(format!("'{field}' must be an array"))),
    };
    let (mut routes, mut problems) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        match read_route(item, &format!("{field}[{index}]")) {
            Ok(route) => routes.push(route),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if problems.is_empty() {
        return Ok(routes);
    }
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(bad(format!("{}{more}", problems.join("; "))))
}

/// Problem of one item of a list of routes: the field, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("'{0}'{1}")]
struct ItemProblem(String, String);

fn read_route(item: &Value, at: &str) -> Result<Address, ItemProblem> {
    let wrong = |key: &str, what: String| ItemProblem(format!("{at}{key}"), what);
    let fields = match item {
        Value::String(text) => return cluster_route(text, None).map_err(|error| wrong("", format!(": {error}"))),
        Value::Object(fields) => fields,
        _ => return Err(wrong("", " must be an object with a host and a port".into())),
    };
    if let Some(unknown) = fields.keys().find(|key| !["host", "hostname", "port"].contains(&key.as_str())) {
        let unknown: String = unknown.chars().take(80).collect();
        return Err(wrong(&format!(".{unknown}"), " is not allowed".into()));
    }
    let (key, host) = match (fields.get("host"), fields.get("hostname")) {
        (Some(_), Some(_)) => return Err(wrong(".hostname", " is not allowed beside 'host'".into())),
        (None, Some(host)) => (".hostname", host),
        (Some(host), None) => (".host", host),
        (None, None) => return Err(wrong(".host", " is required".into())),
    };
    let Value::String(host) = host else { return Err(wrong(key, " must be a string".into())) };
    let port = match fields.get("port") {
        None => None,
        Some(value) => {
            let number = match value {
                Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
                Value::String(text) => text.parse().ok(),
                _ => None,
            };
            let port = number.and_then(NonZeroU16::new);
            Some(port.ok_or_else(|| wrong(".port", format!(" {}", ClusterRouteError::Port)))?.get())
        }
    };
    cluster_route(host, port).map_err(|error| wrong(key, format!(": {error}")))
}
