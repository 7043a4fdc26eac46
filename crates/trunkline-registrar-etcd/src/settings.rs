//! Settings of a registrar in etcd.

use std::fmt;
use std::path::PathBuf;

use trunkline_route::{Address, Host};
use zeroize::Zeroizing;

/// Prefix of the keys, unless another one is set.
pub const DEFAULT_PREFIX: &str = "/trunkline";

/// Settings of a registrar in etcd, [`Etcd`](crate::Etcd).
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Addresses of members, of which one is used until it fails; then the next one.
    pub endpoints: Vec<Address>,
    /// Prefix of the keys. Default: [`DEFAULT_PREFIX`].
    pub prefix: String,
    /// User, where etcd wants one. Default: `None`.
    pub user: Option<EtcdUser>,
    /// TLS to all members; `None`, the default, to speak in clear.
    pub tls: Option<EtcdTls>,
}

impl EtcdSettings {
    /// Returns the settings for etcd at these addresses, with the default of everything else.
    pub fn at(endpoints: Vec<Address>) -> Self {
        Self { endpoints, prefix: DEFAULT_PREFIX.to_owned(), user: None, tls: None }
    }
}

/// User of etcd and its password, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// Name of the user.
    pub name: String,
    /// Password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// TLS to members of etcd. The files are PEM, and are read for each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Trusted root certificates; `None` means those of the platform.
    pub roots: Option<PathBuf>,
    /// Certificate that is shown to etcd, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name for which the certificate of a member must be; `None` means its host.
    pub server_name: Option<Host>,
}
