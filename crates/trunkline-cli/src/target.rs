//! Node that a command works with: a running one, or a short-lived one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_admin::{AdminClient, OpError, Operations, Running, start_client};
use trunkline_config::{Config, Layers};

use crate::args::{Admin, At};
use crate::output::Failed;
use crate::serve;
use crate::variables;

pub(crate) enum Target {
    Running(AdminClient),
    ShortLived(Box<Running>),
}

impl Target {
    pub(crate) async fn find(at: At) -> Result<Self, Failed> {
        let Some(path) = at.config else { return Ok(Self::Running(client(at.admin)?)) };
        let config = load(&path, &Layers::from_process(at.set))?;
        let running = start_client(&config, serve::run_options(None)).await;
        let running = running.map_err(|error| Failed::usage(error).about(path.display()))?;
        Ok(Self::ShortLived(Box::new(running)))
    }
}

/// Reads a configuration and logs its warnings.
pub(crate) fn load(path: &Path, layers: &Layers) -> Result<Config, Failed> {
    let config = Config::load(path, layers).map_err(Failed::usage)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// Runs an operation once, on whichever node it is: a running one by a request to this path, a short-lived one by
/// `here`, after which it stops gracefully. A running node that is silent for as long as `timeout` counts as hung; see
/// [`AdminClient::post_with_timeout`].
pub(crate) async fn ask<A: DeserializeOwned>(
    at: At,
    path: &str,
    request: &impl Serialize,
    timeout: Duration,
    here: impl AsyncFnOnce(&Operations) -> Result<A, OpError>,
) -> Result<A, Failed> {
    match Target::find(at).await? {
        Target::Running(client) => Ok(client.post_with_timeout(path, request, timeout).await?),
        Target::ShortLived(running) => {
            let answer = here(running.operations()).await;
            leave(running).await;
            Ok(answer?)
        }
    }
}

/// Timeout for a short-lived node to stop.
const LEAVING: Duration = Duration::from_secs(5);

/// Ends the forwards of a node and stops it gracefully, so that the peer receives what was sent and logs no lost connection. Returns true if that
/// succeeded in time.
pub(crate) async fn leave(running: Box<Running>) -> bool {
    running.operations().end_forwards();
    running.shut_down(LEAVING).await.cut == 0
}

/// Returns the running node that was named, or the only one in this directory.
pub(crate) fn client(at: Admin) -> Result<AdminClient, Failed> {
    let named = || variables::value("TRUNKLINE_ADMIN");
    let Some(address) = at.admin.or_else(named) else { return Ok(AdminClient::Socket(only_socket(Path::new("."))?)) };
    let is_tcp =
        !address.contains('/') && address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !is_tcp {
        return Ok(AdminClient::Socket(address.into()));
    }
    let token = variables::value("TRUNKLINE_ADMIN_TOKEN").unwrap_or_default().trim().to_owned();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failed::usage(format!(
            "the node at {address} needs a token of printable ASCII: set the variable TRUNKLINE_ADMIN_TOKEN, for \
             example with TRUNKLINE_ADMIN_TOKEN=$(cat FILE)"
        )));
    }
    Ok(AdminClient::Tcp { address, token })
}

fn only_socket(directory: &Path) -> Result<PathBuf, Failed> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut sockets: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "data"))
        .map(|path| path.join("admin.sock"))
        .filter(|socket| socket.exists())
        .collect();
    sockets.sort();
    match sockets.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failed::usage(
            "no node was selected and no *.data/admin.sock found here; name a running node with --admin SOCKET, or use --config FILE if the command has it",
        )),
        several => {
            let shown: Vec<_> = several.iter().map(|socket| socket.display().to_string()).collect();
            Err(Failed::usage(format!(
                "this directory has several nodes; select one with --admin: {}",
                shown.join(", ")
            )))
        }
    }
}
