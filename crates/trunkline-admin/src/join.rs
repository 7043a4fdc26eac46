//! Joining a cluster with a token: a machine shows it, and writes the configuration of a member.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use trunkline::{
    CallError, ClusterWelcome, ConnectError, JoinToken, MESH_MAILBOX, NameError, NetworkRoute, Node, NodeName,
    NotWelcome, StartError,
};
use trunkline_config::{ClusterServer, Config, ConfigError, EditError, Layers, edit};

/// Settings of a machine that joins.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Name that the node shall have. Others dial its host.
    pub name: NodeName,
    /// Port at which the node shall listen, on every IPv4 interface.
    pub port: u16,
    /// Configuration file to write. The cookie of the cluster goes into a file beside it with the extension `cookie`.
    pub config: PathBuf,
    /// Time for the answer of the issuer, once it is reached.
    pub timeout: Duration,
}

/// Files of a machine that joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Name of the cluster.
    pub cluster: String,
    /// Configuration file.
    pub config: PathBuf,
    /// File with the cookie of the cluster, which only its owner may read.
    pub cookie: PathBuf,
}

/// Error returned when a machine does not join. No file was written, unless the error says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A file exists.
    #[error("{0} exists; name another configuration file with --config, or remove it")]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{path} cannot be written", path = .0.display())]
    File(PathBuf, #[source] io::Error),
    /// The node could not listen at its port.
    #[error("port {0} cannot be listened at; choose another one with --port")]
    Port(u16, #[source] io::Error),
    /// A file cannot be written although that was tried before. The token is used.
    #[error("{path} cannot be written, and the token is used", path = .0.display())]
    Lost(PathBuf, #[source] io::Error),
    /// The name of the guest cannot be used.
    #[error("the token cannot be shown")]
    Name(#[source] NameError),
    /// The short-lived node that shows the token cannot start.
    #[error("the token cannot be shown")]
    Start(#[source] StartError),
    /// The issuer of the token was not reached, or does not know it: a wrong cookie is one that the token does not prove.
    #[error("{issuer} takes no token at any address of it; a wrong cookie means that it does not know this one")]
    Unreached {
        /// Name of the issuer.
        issuer: NodeName,
        /// Error at the last address.
        source: ConnectError,
    },
    /// The token has no address.
    #[error("the token has no address; make another one with `trunkline cluster token`")]
    NoAddress,
    /// The issuer did not answer.
    #[error("{issuer} did not answer, and may have taken the token; make another one with `trunkline cluster token`")]
    Silent {
        /// Name of the issuer.
        issuer: NodeName,
        /// Reason.
        source: CallError,
    },
    /// The issuer refused the token.
    #[error("{issuer} refused the token")]
    Refused {
        /// Name of the issuer.
        issuer: NodeName,
        /// Reason.
        source: NotWelcome,
    },
    /// The configuration of the new member cannot be written as YAML. The token is used.
    #[error("the configuration of the new member cannot be written; the token is used")]
    Text(#[source] EditError),
    /// The configuration of the new member cannot be used. The token is used.
    #[error("the configuration of the new member cannot be used; the token is used")]
    Config(#[source] ConfigError),
}

/// Shows a token to its issuer, and writes the configuration of the new member. The files appear as a whole, after the
/// issuer took the token; at any error before that there is none.
///
/// # Errors
/// [`JoinError`].
pub async fn join(token: &JoinToken, options: &JoinOptions) -> Result<Joined, JoinError> {
    let (config, cookie) = (options.config.clone(), options.config.with_extension("cookie"));
    // Whatever can be known to fail fails before the token is used.
    let port = options.port;
    drop(std::net::TcpListener::bind(("0.0.0.0", port)).map_err(|error| JoinError::Port(port, error))?);
    let drafts = (Draft::new(&config, 0o644)?, Draft::new(&cookie, 0o600)?);
    let welcome = show(token, options).await?;
    let text = text(&welcome, options, &cookie).map_err(JoinError::Text)?;
    drafts.1.write(welcome.cookie.expose())?;
    let parsed = Config::parse(&text, directory(&config), &config.display().to_string(), &Layers::none());
    let written = parsed.map_err(JoinError::Config).and_then(|_| drafts.0.write(text.as_bytes()));
    if written.is_err() {
        let _ = std::fs::remove_file(&cookie);
    }
    written.map(|()| Joined { cluster: welcome.cluster, config, cookie })
}

/// Asks the issuer of a token to let a node in, over a connection of a short-lived node.
async fn show(token: &JoinToken, options: &JoinOptions) -> Result<ClusterWelcome, JoinError> {
    let builder = Node::builder(token.guest()).map_err(JoinError::Name)?;
    let node = builder.cookie(token.cookie()).no_registrar().hidden(true).start().await.map_err(JoinError::Start)?;
    let (issuer, mut connected) = (&token.issuer, Err(JoinError::NoAddress));
    for address in &token.addresses {
        let Ok(route) = NetworkRoute::direct(address.host.as_str(), address.port.get()) else { continue };
        let reached = node.connect_with(issuer, route).await;
        connected = reached.map_err(|source| JoinError::Unreached { issuer: issuer.clone(), source });
        if connected.is_ok() {
            break;
        }
    }
    let connection = connected?;
    let request = ClusterWelcome::request(&options.name);
    let answer = connection.call(MESH_MAILBOX, "", &request, options.timeout).await;
    node.shut_down(Duration::from_secs(1)).await;
    let answer = answer.map_err(|source| JoinError::Silent { issuer: issuer.clone(), source })?;
    ClusterWelcome::read(&answer).map_err(|source| JoinError::Refused { issuer: issuer.clone(), source })
}

/// Returns the configuration of the new member.
fn text(welcome: &ClusterWelcome, options: &JoinOptions, cookie: &Path) -> Result<String, EditError> {
    // JSON text in quotes is YAML text as well.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let file = cookie.file_name().unwrap_or_default().to_string_lossy();
    let label = match welcome.cookie.label() {
        "" => String::new(),
        label => format!("  cookie_label: {}\n", quoted(label)),
    };
    let text = format!(
        "# A member of a cluster, written by `trunkline join`.\n\
         node:\n  name: {}\n  cookie_file: {}\n{label}  registrar: none\n\
         clustering:\n  hubServer:\n    cluster:\n      name: {}\n      network:\n        port: {}\n",
        quoted(options.name.as_str()),
        quoted(&file),
        quoted(&welcome.cluster),
        options.port,
    );
    edit::set_cluster_routes(&text, ClusterServer::Hub, &welcome.routes)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// File that is not there yet. Dropped without being written, it leaves nothing.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
}

impl Draft {
    fn new(path: &Path, mode: u32) -> Result<Self, JoinError> {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(JoinError::Exists(path.to_owned()));
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = directory(path).join(name);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        let refused = |error| JoinError::File(path.to_owned(), error);
        let draft = Self { path: path.to_owned(), file: options.open(&temporary).map_err(refused)?, temporary };
        // Whether the file system has hard links, which make the file appear at the end.
        let probe = draft.temporary.with_extension("probe");
        let linked = std::fs::hard_link(&draft.temporary, &probe).and_then(|()| std::fs::remove_file(&probe));
        linked.map(|()| draft).map_err(refused)
    }

    fn write(mut self, content: &[u8]) -> Result<(), JoinError> {
        let written = self.file.write_all(content).and_then(|()| self.file.sync_all());
        // A hard link, unlike a rename, replaces no file that came meanwhile.
        let written = written.and_then(|()| std::fs::hard_link(&self.temporary, &self.path));
        written.map_err(|error| JoinError::Lost(self.path.clone(), error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary);
    }
}
