//! The YAML configuration of a trunkline node: schema, layering, validation, and edits that keep comments.
//!
//! * [`Config::load`] reads a file, applies the environment and the command line ([`Layers`]) and validates
//!   everything. The result is typed: a [`Config`] needs no further checks.
//! * [`ConfigError`] holds all problems found in one pass. Each names the file, the line, the key, what is wrong and
//!   what to do about it; none shows a secret.
//! * [`RouteEntry`] is an item of `routes:`. The loader and the admin interface validate it with the same code,
//!   [`RouteEntry::to_route`].
//! * [`edit`] adds and removes routes in the text of a file without touching the rest.
//! * [`example()`] is a commented sample that also serves as the reference of all keys.
//!
//! This crate opens no socket, reads no clock, and reads the process environment only in [`Layers::from_process`].
//! Loading a configuration reads the files that it names and examines the owner and mode of `node.data_dir`.
//!
//! ```
//! use trunkline_config::{Config, Layers};
//!
//! let text = "
//! node:
//!   name: app@127.0.0.1
//!   cookie_env: APP_COOKIE
//! routes:
//!   - { match: '^prod-db@', host: 10.0.1.50, port: 4370, tls: true }
//! ";
//! let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
//! let layers = Layers { environment, set: vec!["node.fallback=never".into()] };
//! let config = Config::parse(text, ".".as_ref(), "app.yaml", &layers)?;
//! assert_eq!(config.node.name.as_str(), "app@127.0.0.1");
//! assert_eq!(config.routes[0].weight, 100);
//!
//! let error = Config::parse("node: { nmae: app@h }", ".".as_ref(), "app.yaml", &Layers::none()).unwrap_err();
//! assert!(error.to_string().starts_with("app.yaml:1:9: node.nmae: unknown key; did you mean `name`?"));
//! # Ok::<(), trunkline_config::ConfigError>(())
//! ```

mod clustering;
mod config;
pub mod edit;
mod error;
mod fields;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod layers;
mod node;
mod offers;
mod proxy;
mod proxy_entry;
mod registrar;
mod route;
mod save;
mod secret;
mod services;
mod spawn;
mod tree;
mod warn;

pub use clustering::{CLUSTER_PORT, ClusterRouteError, ClusterServer, ClusteringConfig, cluster_route};
pub use config::{Config, PeerConfig, RouteConfig, TlsProfileConfig};
pub use error::{ConfigError, EditError, FieldProblem, Problem, ReadError, RouteError, SaveError};
pub use fields::lint_message;
pub use grants::{RegistrarRouteConfig, RegistrarRuleConfig};
pub use layers::{Layers, RESERVED_VARIABLES, harper_key, is_service_variable};
pub use node::{
    AdminConfig, Advertise, CertificateFiles, ListenConfig, ListenTls, NodeConfig, RegistrarConfig, Timeouts,
};
pub use offers::{AnnounceConfig, ServiceNodeConfig};
pub use proxy::{ProxiedConfig, ProxyRouteConfig, TransitConfig, TransitRuleConfig};
pub use proxy_entry::ProxyEntry;
pub use registrar::{DnsConfig, EtcdConfig, ResolverConfig};
pub use route::{FlagsEntry, OverrideEntry, RouteContext, RouteEntry};
pub use secret::AdminToken;
pub use services::{ForwardConfig, ServiceConfig};
pub use spawn::{ApplicationConfig, EnvEntry, ProgramConfig, SpawnConfig};

/// Returns a commented sample configuration. It loads once the file `secrets/cookie` beside it exists.
pub fn example() -> &'static str {
    include_str!("example.yaml")
}
