//! The operations themselves, without HTTP: the server calls them for others, the command line on a node of its own.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use trunkline::{CallError, ConnectError, Node, NodeName, RouteEdit, SendError};
use trunkline_config::{Config, Layers, RouteContext, RouteEntry, edit};

use crate::api::{
    AddRoute, Body, CallReply, Changed, Explanation, Failure, MessageRequest, Peer, PingRequest, Pong, RemoveRoute,
    Route, Status,
};

/// Whose move a failure is; becomes the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    Bad,
    /// It clashes with what is there.
    Conflict,
    /// There is no such thing.
    Missing,
    /// The network or the peer did not do its part.
    Unreachable,
    /// This node could not do its part.
    Internal,
}

/// A failed operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OpError {
    /// Whose move it is.
    pub kind: Kind,
    /// What the caller is told.
    pub failure: Failure,
}

impl OpError {
    fn new(kind: Kind, error: impl ToString) -> Self {
        Self { kind, failure: Failure::new(error) }
    }
}

impl From<ConnectError> for OpError {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::NoRoute(no_route) => Self { kind: Kind::Unreachable, failure: no_route.into() },
            ConnectError::ShuttingDown => Self::new(Kind::Unreachable, error),
            _ => Self::new(Kind::Bad, error),
        }
    }
}

impl From<SendError> for OpError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Connect(error) => error.into(),
            error => Self::new(Kind::Unreachable, error),
        }
    }
}

impl From<CallError> for OpError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connect(error) => error.into(),
            error => Self::new(Kind::Unreachable, error),
        }
    }
}

/// Where a node's configuration lives, so that changes can be written back and read again.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What was laid over it.
    pub layers: Layers,
}

/// A node and its operations.
#[derive(Debug)]
pub struct Operations {
    node: Node,
    source: Option<Source>,
    /// The patterns that came from the configuration file; a reload replaces exactly these. The lock also keeps
    /// changes to the table and the file in one order.
    from_file: Mutex<Vec<String>>,
    base_dir: PathBuf,
    profiles: Vec<trunkline::TlsProfileId>,
}

#[expect(clippy::disallowed_methods, reason = "operations report how long they took")]
fn now() -> Instant {
    Instant::now()
}

fn ms(since: Instant) -> f64 {
    (now() - since).as_secs_f64() * 1e3
}

fn name(text: &str) -> Result<NodeName, OpError> {
    NodeName::new(text).map_err(|e| OpError::new(Kind::Bad, e))
}

impl Operations {
    /// The operations of a node that was started from this configuration.
    pub fn new(node: Node, config: &Config, source: Option<Source>) -> Self {
        let from_file = config.routes.iter().map(|route| route.pattern.as_str().to_owned()).collect();
        let base_dir = source.as_ref().and_then(|s| s.path.parent()).map(PathBuf::from).unwrap_or_default();
        let profiles = config.tls_profiles.keys().cloned().collect();
        Self { node, source, from_file: Mutex::new(from_file), base_dir, profiles }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Gives the node back.
    pub fn into_node(self) -> Node {
        self.node
    }

    /// What the node says of itself.
    pub fn status(&self) -> Status {
        self.node.status().into()
    }

    /// Its live connections.
    pub fn nodes(&self) -> Vec<Peer> {
        self.node.nodes().into_iter().map(Peer::from).collect()
    }

    /// Its static routes, in order.
    pub fn routes(&self) -> Vec<Route> {
        self.node.routes().iter().map(|e| Route::new(e.pattern().as_str(), e.weight(), e.value())).collect()
    }

    /// Adds a route, and writes it to the file if asked; both or neither.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn add_route(&self, request: &AddRoute) -> Result<Changed, OpError> {
        let mut from_file = self.from_file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (pattern, weight, route) = self.read_entry(&request.route)?;
        self.node.add_route(&pattern, route, weight).map_err(|e| OpError::new(Kind::Conflict, e))?;
        if request.save
            && let Err(error) = self.save(|text| edit::add_route(text, &request.route))
        {
            let _ = self.node.remove_route(&pattern);
            return Err(error);
        }
        if request.save {
            from_file.push(pattern.clone());
        }
        let saved = if request.save { " and saved" } else { "; not saved, it goes when the node does" };
        Ok(Changed { message: format!("route {pattern:?} added with weight {weight}{saved}") })
    }

    fn read_entry(&self, entry: &RouteEntry) -> Result<(String, i64, trunkline::NetworkRoute), OpError> {
        let environment = self.source.as_ref().map(|s| s.layers.environment.as_slice()).unwrap_or_default();
        let resolvers = known_resolvers();
        let context =
            RouteContext { base_dir: &self.base_dir, environment, resolvers: &resolvers, profiles: &self.profiles };
        let read = entry.to_route(&context).map_err(|e| OpError::new(Kind::Bad, e))?;
        Ok((read.0.as_str().to_owned(), read.1, read.2))
    }

    /// Removes a route by its exact pattern, and takes it out of the file if asked; both or neither. Live
    /// connections stay up.
    ///
    /// # Errors
    /// [`OpError`]; nothing changed.
    pub fn remove_route(&self, request: &RemoveRoute) -> Result<Changed, OpError> {
        let mut from_file = self.from_file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pattern = &request.pattern;
        if self.node.routes().get(pattern).is_none() {
            let unknown = trunkline::RemoveError::Unknown(pattern.clone());
            return Err(OpError::new(Kind::Missing, unknown));
        }
        if request.save {
            self.save(|text| edit::remove_route(text, pattern))?;
            from_file.retain(|known| known != pattern);
        }
        self.node.remove_route(pattern).map_err(|e| OpError::new(Kind::Missing, e))?;
        let saved =
            if request.save { " and taken out of the file" } else { "; the file still has it if it came from there" };
        Ok(Changed { message: format!("route {pattern:?} removed{saved}") })
    }

    fn save(&self, change: impl FnOnce(&str) -> Result<String, trunkline_config::EditError>) -> Result<(), OpError> {
        let Some(source) = &self.source else {
            return Err(OpError::new(Kind::Bad, "this node was not started from a file, so nothing can be saved"));
        };
        let shown = source.path.display();
        let text = std::fs::read_to_string(&source.path)
            .map_err(|e| OpError::new(Kind::Internal, format!("{shown} cannot be read: {e}")))?;
        let text = change(&text).map_err(|e| OpError::new(Kind::Conflict, format!("{shown}: {e}")))?;
        edit::save_atomically(&source.path, &text).map_err(|e| OpError::new(Kind::Internal, e))
    }

    /// Reads the configuration file again and replaces the routes that came from it, all at once. Everything else
    /// in it needs a restart; what differs there is named.
    ///
    /// # Errors
    /// [`OpError`] when the file is wrong; nothing changed.
    pub fn reload(&self) -> Result<Changed, OpError> {
        let Some(source) = &self.source else {
            return Err(OpError::new(Kind::Bad, "this node was not started from a file"));
        };
        let mut from_file = self.from_file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let config = Config::load(&source.path, &source.layers).map_err(|e| OpError::new(Kind::Bad, e))?;
        let replaced = self.node.edit_routes(|table: &mut RouteEdit<'_>| {
            for pattern in from_file.iter() {
                // One that an operator removed meanwhile is gone already.
                let _ = table.remove(pattern);
            }
            for route in &config.routes {
                table.add(route.pattern.as_str(), route.route.clone(), route.weight)?;
            }
            Ok::<_, trunkline::AddError>(config.routes.len())
        });
        let count = replaced.map_err(|e| OpError::new(Kind::Conflict, e))?;
        *from_file = config.routes.iter().map(|route| route.pattern.as_str().to_owned()).collect();
        self.node.forget_failures();
        let renamed =
            if config.node.name == *self.node.name() { "" } else { "; node.name differs and needs a restart" };
        Ok(Changed { message: format!("{count} routes from {}{renamed}", source.path.display()) })
    }

    /// What a connect to the name would try.
    ///
    /// # Errors
    /// [`OpError`] for a text that is no name.
    pub fn explain(&self, text: &str) -> Result<Explanation, OpError> {
        Ok((&self.node.explain(&name(text)?)).into())
    }

    /// Connects and measures a round trip.
    ///
    /// # Errors
    /// [`OpError`] with every attempt.
    pub async fn ping(&self, request: &PingRequest) -> Result<Pong, OpError> {
        let (target, began) = (name(&request.name)?, now());
        let connection = self.node.connect(&target).await?;
        let connect_ms = ms(began);
        let (connection, round_trip) = match self.node.ping(&target, Duration::from_millis(request.timeout_ms)).await {
            Ok((connection, round_trip)) => (connection, round_trip),
            Err(error) => {
                drop(connection);
                return Err(error.into());
            }
        };
        let peer = (connection.info(), connection.stats()).into();
        Ok(Pong { peer, connect_ms, round_trip_ms: round_trip.as_secs_f64() * 1e3 })
    }

    /// Connects if need be and sends.
    ///
    /// # Errors
    /// [`OpError`]; nothing was sent.
    pub async fn send(&self, request: &MessageRequest) -> Result<Changed, OpError> {
        let body = request.body.bytes().map_err(|e| OpError::new(Kind::Bad, e))?;
        self.node.send(name(&request.name)?, &request.service, &body).await?;
        Ok(Changed { message: format!("{} bytes sent to {} at {}", body.len(), request.service, request.name) })
    }

    /// Connects if need be, calls and waits.
    ///
    /// # Errors
    /// [`OpError`].
    pub async fn call(&self, request: &MessageRequest) -> Result<CallReply, OpError> {
        let body = request.body.bytes().map_err(|e| OpError::new(Kind::Bad, e))?;
        let (target, began) = (name(&request.name)?, now());
        let deadline = Duration::from_millis(request.timeout_ms);
        let answer = self.node.call(&target, &request.service, &body, deadline).await?;
        Ok(CallReply { body: Body::new(&answer), took_ms: ms(began) })
    }

    /// Ends a connection in order.
    ///
    /// # Errors
    /// [`OpError`] when there is none.
    pub fn disconnect(&self, text: &str) -> Result<Changed, OpError> {
        let target = name(text)?;
        let Some(connection) = self.node.connection(&target) else {
            return Err(OpError::new(Kind::Missing, format!("there is no connection to {target}")));
        };
        connection.disconnect();
        Ok(Changed { message: format!("disconnecting from {target}") })
    }
}

fn known_resolvers() -> Vec<trunkline::ResolverId> {
    trunkline_config::KNOWN_RESOLVERS.iter().filter_map(|id| trunkline::ResolverId::new(id).ok()).collect()
}
