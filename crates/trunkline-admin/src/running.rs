//! Node that runs from a configuration.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use trunkline::{LogLevel, Node, ShutDownReport};
use trunkline_config::Config;
use trunkline_stack::BoxFuture;

use crate::api::{Changed, ForwardRequest};
use crate::ops::{OpError, Operations, Source};
use crate::programs;
use crate::server::{AdminAddress, AdminListener, AdminServer};
use crate::start::{self, RunError};
use crate::watch::{self, Watch};

/// Settings of a start that are not in the configuration.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// File of the configuration, which [`Running::reload`] reads and requests with `save` change. Relative paths in
    /// requests start from its directory. Default: none, so that nothing can be saved.
    pub source: Option<Source>,
    /// Log level of connections for which neither the node nor a route has one. Default: [`LogLevel::default`].
    pub connection_log_level: LogLevel,
    /// Counter of lost log lines that the status shows. Default: a counter that stays 0.
    pub lost_log_lines: Arc<AtomicU64>,
}

/// Node that was started from a configuration, with its operations API, programs, services and forwards.
///
/// Dropping it ends the API and the forwards at once, and the node if no other handle of it exists; see
/// [`Running::shut_down`] for a graceful end.
#[derive(Debug)]
pub struct Running {
    operations: Arc<Operations>,
    admin: Option<AdminServer>,
    _watch: Option<Watch>,
}

/// Starts the node that a configuration describes: listeners, registrar, routes, programs, applications, services,
/// forwards and the operations API. Returns when the node can be reached.
///
/// ```
/// use std::time::Duration;
/// use trunkline_admin::{RunOptions, start};
/// use trunkline_config::{Config, Layers};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
/// let layers = Layers { environment, set: Vec::new() };
/// let text = "node: { name: app@127.0.0.1, cookie_env: APP_COOKIE, registrar: none, admin: none }";
/// let config = Config::parse(text, ".".as_ref(), "app.yaml", &layers)?;
///
/// let running = start(&config, RunOptions::default()).await?;
/// assert_eq!(running.node().name().as_str(), "app@127.0.0.1");
///
/// let text = format!("{text}\nroutes: [{{ match: '^db@', host: 10.0.0.5, port: 4370 }}]");
/// let changed = running.apply(&Config::parse(&text, ".".as_ref(), "app.yaml", &layers)?)?;
/// assert_eq!(changed.message, "reloaded 1 routes from the configuration");
/// running.shut_down(Duration::from_secs(5)).await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`RunError`] names the key at fault; nothing runs.
pub fn start(config: &Config, options: RunOptions) -> BoxFuture<'_, Result<Running, RunError>> {
    // Boxed: a future that is not is compiled again in every crate that awaits it.
    Box::pin(run(config, options))
}

async fn run(config: &Config, options: RunOptions) -> Result<Running, RunError> {
    let RunOptions { source, connection_log_level, lost_log_lines } = options;
    // Bound before the node starts, so that a node whose address is taken never appears to others.
    let listener = AdminListener::bind(&config.node.admin).await.map_err(RunError::Admin)?;
    let node = start::builder(config, connection_log_level)
        .await?
        .start()
        .await
        .map_err(|error| RunError::start(error, config))?;
    programs::offer(&node, config)?;
    let operations = Arc::new(Operations::new(node, config, source).with_lost_log_lines(lost_log_lines));
    let watch = watch::watch(&operations);
    let mut running = Running { operations, admin: None, _watch: watch };
    for (index, forward) in config.forwards.iter().enumerate() {
        let (listen, name) = (forward.listen.to_string(), forward.name.to_string());
        let idle_ms = forward.idle.map(|idle| idle.as_millis() as u64);
        let service = forward.service.clone();
        let request = ForwardRequest { listen, name, service, attached: false, idle_ms };
        let forwarded = running.operations.forward(&request).await;
        forwarded.map_err(|source| RunError::Forward { index, source })?;
    }
    running.admin = listener.map(|listener| listener.serve(running.operations.clone()));
    Ok(running)
}

/// Starts a hidden node with the routes and cookies of a configuration, for a single task beside the configured node:
/// it has a random name on the same host, no listeners, programs, services or forwards, and no operations API.
///
/// # Errors
/// [`RunError`] names the key at fault; nothing runs.
pub fn start_client(config: &Config, options: RunOptions) -> BoxFuture<'_, Result<Running, RunError>> {
    Box::pin(run_client(config, options))
}

async fn run_client(config: &Config, options: RunOptions) -> Result<Running, RunError> {
    let RunOptions { source, connection_log_level, lost_log_lines } = options;
    let builder = start::client_builder(config, connection_log_level).await?;
    let node = builder.start().await.map_err(|error| RunError::start(error, config))?;
    let operations = Arc::new(Operations::new(node, config, source).with_lost_log_lines(lost_log_lines));
    Ok(Running { operations, admin: None, _watch: None })
}

impl Running {
    /// Returns the node.
    pub fn node(&self) -> &Node {
        self.operations.node()
    }

    /// Returns the operations of the node.
    pub fn operations(&self) -> &Arc<Operations> {
        &self.operations
    }

    /// Returns the address of the operations API; `None` if it is disabled.
    pub fn admin(&self) -> Option<&AdminAddress> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Reads the file of the configuration again and applies it; see [`Operations::reload`].
    ///
    /// # Errors
    /// [`OpError`] if the node was not started from a file, or the file cannot be applied; nothing changed.
    pub async fn reload(&self) -> Result<Changed, OpError> {
        self.operations.blocking(Operations::reload).await
    }

    /// Applies a changed configuration; see [`Operations::apply`]. Reads the certificate files again.
    ///
    /// # Errors
    /// [`OpError`] if the configuration cannot be applied; nothing changed.
    pub fn apply(&self, config: &Config) -> Result<Changed, OpError> {
        self.operations.apply(config)
    }

    /// Stops the node like [`Node::shut_down`], and then the forwards. The operations API accepts no further requests,
    /// but answers those in progress; see [`AdminServer::while_leaving`].
    pub async fn shut_down(mut self, grace: Duration) -> ShutDownReport {
        let operations = self.operations.clone();
        let down = async {
            let report = operations.node().clone().shut_down(grace).await;
            // Attached forwards end together with their requests.
            operations.end_forwards();
            report
        };
        match self.admin.take() {
            Some(admin) => admin.while_leaving(down).await,
            None => down.await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.operations.end_forwards();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use trunkline::Chain;
    use trunkline_config::Layers;

    use super::*;
    use crate::ops::Kind;

    fn config(directory: &Path, node: &str, rest: &str) -> Config {
        let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
        let text = format!("node: {{ name: app@127.0.0.1, cookie_env: APP_COOKIE, registrar: none, {node} }}\n{rest}");
        Config::parse(&text, directory, "app.yaml", &Layers { environment, set: Vec::new() }).unwrap()
    }

    #[tokio::test]
    async fn a_started_node_offers_and_forwards_what_its_configuration_says() {
        let directory = tempfile::tempdir().unwrap();
        let rest = "spawn: { hello: { command: [/bin/echo], allow: ['db@.*'] } }\n\
                    services: { web: { connect: '127.0.0.1:80', allow: ['db@.*'] } }\n\
                    forwards: [{ listen: 'unix:forward.sock', name: db@127.0.0.1, service: web }]\n";
        let config = config(directory.path(), "listen: [{ host: 127.0.0.1, port: 0 }]", rest);
        let running = start(&config, RunOptions::default()).await.unwrap();
        let socket = directory.path().join("app.data/admin.sock");
        assert_eq!(running.admin(), Some(&AdminAddress::Socket(socket.clone())));
        assert!(socket.exists());
        let status = running.operations().status();
        assert_eq!(status.listening.len(), 1);
        assert_eq!(status.services.iter().map(|service| &*service.name).collect::<Vec<_>>(), ["web"]);
        assert_eq!(status.forwards.len(), 1);
        assert!(directory.path().join("forward.sock").exists());
        let report = running.shut_down(Duration::from_secs(5)).await;
        assert_eq!((report.drained, report.cut), (0, 0));
        assert!(!socket.exists());
        assert!(!directory.path().join("forward.sock").exists());
    }

    #[tokio::test]
    async fn an_error_of_a_start_names_the_key_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let listen = config(directory.path(), &format!("listen: [{{ host: 127.0.0.1, port: {port} }}]"), "");
        let error = start(&listen, RunOptions::default()).await.unwrap_err();
        assert!(matches!(error, RunError::Start(_)), "{error:?}");
        let shown = Chain(&error).to_string();
        assert!(
            shown.starts_with(&format!("node.listen cannot be used: cannot listen at 127.0.0.1:{port}")),
            "{shown}"
        );
        assert!(!directory.path().join("app.data").exists());

        let forwards = format!("forwards: [{{ listen: '127.0.0.1:{port}', name: db@127.0.0.1, service: web }}]");
        let error = start(&config(directory.path(), "", &forwards), RunOptions::default()).await.unwrap_err();
        let shown = Chain(&error).to_string();
        assert!(shown.starts_with("forwards[0] cannot be used: cannot listen at"), "{shown}");
        assert!(!directory.path().join("app.data").exists());
    }

    #[tokio::test]
    async fn a_changed_configuration_replaces_its_own_routes_only() {
        let directory = tempfile::tempdir().unwrap();
        let routes = |pattern: &str| {
            let rest = format!("routes: [{{ match: '{pattern}', host: 10.0.0.5, port: 4370 }}]");
            config(directory.path(), "admin: none", &rest)
        };
        let running = start(&routes("^db@"), RunOptions::default()).await.unwrap();
        assert_eq!(running.admin(), None);
        let route = trunkline::NetworkRoute::direct("10.0.0.6", 4370).unwrap();
        running.node().add_route("^mine@", route, 100).unwrap();
        let patterns = || running.operations().routes().into_iter().map(|route| route.pattern).collect::<Vec<_>>();

        let changed = running.apply(&routes("^shop@")).unwrap();
        assert_eq!(changed.message, "reloaded 1 routes from the configuration");
        assert_eq!(patterns(), ["^mine@", "^shop@"]);

        let refused = running.apply(&routes("^mine@")).unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
        assert!(refused.failure.error.contains("was also added at run time"), "{refused}");
        assert_eq!(patterns(), ["^mine@", "^shop@"]);
        assert_eq!(running.reload().await.unwrap_err().kind, Kind::Bad, "there is no file");
    }

    #[tokio::test]
    async fn a_client_has_a_name_of_its_own_and_no_listeners() {
        let directory = tempfile::tempdir().unwrap();
        let rest = "services: { web: { connect: '127.0.0.1:80', allow: ['db@.*'] } }\n\
                    routes: [{ match: '^db@', host: 10.0.0.5, port: 4370 }]";
        let config = config(directory.path(), "listen: [{ host: 127.0.0.1, port: 0 }]", rest);
        let client = start_client(&config, RunOptions::default()).await.unwrap();
        let name = client.node().name();
        assert!(name.as_str().starts_with("cli-") && name.host() == "127.0.0.1", "{name}");
        assert_eq!((client.node().listening().len(), client.admin()), (0, None));
        assert_eq!(client.operations().status().services, []);
        assert_eq!(client.operations().routes().len(), 1);
        assert!(!directory.path().join("app.data").exists());
    }
}
