//! Whom a command asks: a running node, or a short-lived one.

use std::path::{Path, PathBuf};

use trunkline_admin::{AdminClient, Operations};
use trunkline_config::Layers;

use crate::args::{Admin, At};
use crate::boot;
use crate::output::Failed;

pub(crate) enum Target {
    Running(AdminClient),
    ShortLived(Operations),
}

impl Target {
    pub(crate) async fn find(at: At) -> Result<Self, Failed> {
        let Some(path) = at.config else { return Ok(Self::Running(client(at.admin)?)) };
        let config = boot::load(&path, &Layers::from_process(at.set))?;
        let node = boot::short_lived(&config).await?;
        Ok(Self::ShortLived(Operations::new(node, &config, None)))
    }
}

/// The running node that was named, or the only one in this directory.
pub(crate) fn client(at: Admin) -> Result<AdminClient, Failed> {
    let Some(address) = at.admin else { return Ok(AdminClient::Socket(only_socket(Path::new("."))?)) };
    let is_tcp =
        !address.contains('/') && address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !is_tcp {
        return Ok(AdminClient::Socket(address.into()));
    }
    let token = std::env::var("TRUNKLINE_ADMIN_TOKEN").map_err(|_| {
        Failed::usage(format!("the node at {address} wants a token: put it into the variable TRUNKLINE_ADMIN_TOKEN"))
    })?;
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
        [] => {
            Err(Failed::usage("which node? Give a running one by --admin SOCKET, or a configuration by --config FILE"))
        }
        several => {
            let shown: Vec<_> = several.iter().map(|socket| socket.display().to_string()).collect();
            Err(Failed::usage(format!("which node? Choose one by --admin: {}", shown.join(", "))))
        }
    }
}
