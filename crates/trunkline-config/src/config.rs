use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trunkline_matcher::{AccessPattern, RoutePattern};
use trunkline_route::{Cookies, Host, NetworkRoute, ResolverId, ServiceName, TlsProfileId};

use crate::clustering::{self, ClusteringConfig};
use crate::error::{ConfigError, Problem};
use crate::fields::{Fields, Reader, declared, lint_message, twice};
use crate::layers::{self, Layers};
use crate::node::{self, CertificateFiles, NodeConfig, RegistrarConfig};
use crate::offers::{self, ServiceNodeConfig};
use crate::proxy::{self, ProxiedConfig, ProxyRouteConfig, TransitConfig};
use crate::registrar::{self, ResolverConfig};
use crate::route::{RouteContext, read_entry};
use crate::secret::Surroundings;
use crate::services::{self, ForwardConfig, ServiceConfig};
use crate::spawn::{self, ApplicationConfig, SpawnConfig};
use crate::tree::{self, Node, Origin, Value};
use crate::warn;

/// The largest configuration file: a hundred thousand routes of 150 bytes fit.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Complete, validated configuration: every value in it can be used without another check.
///
/// Cookies and tokens are loaded from their files. TLS files are named by path; they were readable when the
/// configuration was loaded. `Debug` shows no secret.
///
/// ```
/// use trunkline_config::{Config, Layers};
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("app.yaml");
/// std::fs::write(&file, "node: { name: app@127.0.0.1, cookie_env: APP_COOKIE }")?;
/// let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
/// let config = Config::load(&file, &Layers { environment, set: Vec::new() })?;
/// assert_eq!(config.node.name.host(), "127.0.0.1");
/// assert!(config.warnings().is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Settings of the node itself.
    pub node: NodeConfig,
    /// Resolvers that routes refer to, besides the node's own registrar.
    pub registrars: BTreeMap<ResolverId, ResolverConfig>,
    /// Roots, certificates and server names that routes refer to.
    pub tls_profiles: BTreeMap<TlsProfileId, TlsProfileConfig>,
    /// Demands on nodes that dial this one, in the order of the file.
    pub peers: Vec<PeerConfig>,
    /// The static routes, in the order of the file.
    pub routes: Vec<RouteConfig>,
    /// Programs that peers may start on this node, by name.
    pub spawn: BTreeMap<String, SpawnConfig>,
    /// Routes through gateways, in the order of the file.
    pub proxy_routes: Vec<ProxyRouteConfig>,
    /// Rules and limits for connections that this node forwards between other nodes.
    pub transit: TransitConfig,
    /// Restrictions on peers that reach this node through gateways.
    pub proxied: ProxiedConfig,
    /// Byte-stream services that peers may open, by name.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Local sockets whose connections are forwarded to services of other nodes.
    pub forwards: Vec<ForwardConfig>,
    /// Nodes that serve what the target `@service` stands for, listed by hand.
    pub service_nodes: BTreeMap<ServiceName, Vec<ServiceNodeConfig>>,
    /// Sets of programs that are started and stopped together, by name.
    pub applications: BTreeMap<String, ApplicationConfig>,
    /// Cluster that the node belongs to; `None` without the section, or with `enabled: false`.
    pub clustering: Option<ClusteringConfig>,
    warnings: Vec<String>,
}

/// TLS profile. Its PEM files were readable when the configuration was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsProfileConfig {
    /// Trusted root certificates; `None` means those of the platform.
    pub roots: Option<PathBuf>,
    /// Certificate shown to the peer.
    pub certificate: Option<CertificateFiles>,
    /// Name that the peer's certificate must be valid for; `None` means the dialled host.
    pub server_name: Option<Host>,
    /// True if the peer's certificate must carry the name of the dialled node.
    pub cert_name_required: bool,
}

/// Demands on dialling nodes whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Pattern that must match the whole node name.
    pub pattern: AccessPattern,
    /// Cookies of which such a node must prove one.
    pub cookie: Cookies,
}

/// Static route with its pattern and weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Pattern of node names; matches anywhere in a name unless it is anchored.
    pub pattern: RoutePattern,
    /// Weight of the route; higher weights are tried first.
    pub weight: i64,
    /// Description of how matching nodes are reached.
    pub route: NetworkRoute,
}

impl Config {
    /// Reads the file, applies the environment and the command line, and validates the result.
    ///
    /// # Errors
    /// [`ConfigError`] holds every problem that can be found in one pass.
    pub fn load(path: &Path, layers: &Layers) -> Result<Self, ConfigError> {
        let text = read_file(path).map_err(|error| ConfigError::unreadable(path, error))?;
        let base = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::parse(&text, base, &path.display().to_string(), layers)
    }

    /// Parses a text like [`Config::load`]. `base_dir` is the directory of relative paths, and `name` stands for the
    /// file in messages. Only the files that the configuration names are read.
    ///
    /// # Errors
    /// [`ConfigError`] holds every problem that can be found in one pass.
    pub fn parse(text: &str, base_dir: &Path, name: &str, layers: &Layers) -> Result<Self, ConfigError> {
        let origin = Origin::file(name);
        let mut root = tree::parse(text, &origin)
            .map_err(|malformed| ConfigError::new(vec![Problem::of(name, malformed.line, "", malformed)]))?;
        if !matches!(root.value, Value::Null | Value::Map(_)) {
            let message = format!("expected a mapping that begins with `node:`, found {}", root.kind());
            return Err(ConfigError::new(vec![Problem::at(&root.at, "", message)]));
        }
        let around = Surroundings { base_dir, environment: &layers.environment };
        let mut reader = Reader { problems: Vec::new(), warnings: Vec::new(), around };
        layers::apply(&mut root, layers, &mut reader.problems);
        if root.is_null() {
            let message = "the file is empty; it needs at least `node:` with `name:` and `cookie_file:`";
            reader.problems.push(Problem::of(name, None, "", message));
            return Err(ConfigError::new(reader.problems));
        }
        let config = read(&mut reader, &root);
        match config {
            Some(config) if reader.problems.is_empty() => {
                reader.warnings.extend(warn::warnings(&config));
                Ok(Self { warnings: reader.warnings, ..config })
            }
            _ => Err(ConfigError::new(reader.problems)),
        }
    }

    /// Returns the ids that `resolver` of a route may name.
    pub fn resolvers(&self) -> Vec<ResolverId> {
        resolvers(self.node.registrar == RegistrarConfig::Embedded, self.registrars.keys().cloned())
    }

    /// Returns warnings about settings that are allowed but risky. They are about weak cookies, keys readable by
    /// others, gateways that could impersonate the nodes behind them, listeners open to every network, services that
    /// lead to the node's own admin interface, shells offered to every peer, unverified certificates, transit rules
    /// with an open host part, and a data directory that others can write to. No warning shows a secret.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("the file is larger than 16 MiB; split it or remove routes"));
    }
    Ok(text)
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Config> {
    let known = [
        "node",
        "registrars",
        "tls_profiles",
        "peers",
        "routes",
        "spawn",
        "applications",
        "services",
        "forwards",
        "service_nodes",
        "proxy_routes",
        "transit",
        "proxied",
        "clustering",
    ];
    let fields = Fields::open(reader, root, "", &known)?;
    let (tls_profiles, profiles) =
        declared(reader, &fields, "tls_profiles", "profiles", |text| TlsProfileId::new(text), tls_profile);
    let (registrars, known) = {
        let with_name = tls_profiles.iter().filter(|(_, profile)| profile.cert_name_required);
        let with_name: Vec<_> = with_name.map(|(id, _)| id).collect();
        let profiles = registrar::Profiles { ids: &profiles, with_name: &with_name };
        let read = |reader: &mut Reader<'_>, node: &Node, path: &str| registrar::read(reader, node, path, profiles);
        declared(reader, &fields, "registrars", "registrars", |text| ResolverId::new(text), read)
    };
    let node = match fields.get("node") {
        Some(section) => node::read(reader, section, &known),
        None => {
            let message = "the section is missing; add it with at least `name:` and `cookie_file:`";
            reader.problem(&fields.at, "node", message);
            None
        }
    };
    let peers = peers(reader, &fields);
    // A missing node section is already reported; do not report the routes for it as well.
    let own = node.as_ref().is_none_or(|node| node.registrar == RegistrarConfig::Embedded);
    let tls = node.as_ref().is_none_or(|node| node.tls);
    let resolvers = resolvers(own, known);
    let routes = routes(reader, &fields, &profiles, &resolvers, tls);
    let Surroundings { base_dir, environment } = reader.around;
    let context = RouteContext { base_dir, environment, resolvers: &resolvers, profiles: &profiles, tls };
    let proxy_routes = proxy::proxy_routes(reader, &fields, &context);
    let (transit, proxied) = (proxy::transit(reader, &fields), proxy::proxied(reader, &fields));
    let (spawn, applications) = spawn::read(reader, &fields);
    let (services, forwards) = (services::services(reader, &fields), services::forwards(reader, &fields));
    let service_nodes = offers::service_nodes(reader, &fields);
    let (mut node, warnings) = (node?, Vec::new());
    let is_listening =
        fields.get("node").is_some_and(|section| section.get("listen").is_some_and(|listen| !listen.is_null()));
    let clustering = clustering::clustering(reader, &fields, is_listening, &mut node.listen);
    proxy::outlasts_pings(reader, &fields, &transit, node.keep_alive);
    Some(Config {
        node,
        registrars,
        tls_profiles,
        peers,
        routes,
        spawn,
        applications,
        services,
        forwards,
        service_nodes,
        proxy_routes,
        transit,
        proxied,
        clustering,
        warnings,
    })
}

/// Returns the ids that `resolver` of a route may name.
fn resolvers(embedded: bool, declared: impl IntoIterator<Item = ResolverId>) -> Vec<ResolverId> {
    let own = if embedded { ResolverId::new(node::EMBEDDED).ok() } else { None };
    own.into_iter().chain(declared).collect()
}

fn tls_profile(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<TlsProfileConfig> {
    if node.is_null() {
        return Some(TlsProfileConfig::default());
    }
    let fields = Fields::open(reader, node, path, &["roots", "certificate", "key", "server_name", "cert_name"])?;
    Some(TlsProfileConfig {
        roots: reader.pem(&fields, "roots", "CERTIFICATE"),
        certificate: node::certificate(reader, &fields),
        server_name: fields.parsed(reader, "server_name", str::parse::<Host>),
        cert_name_required: node::cert_name(reader, &fields),
    })
}

fn peers(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<PeerConfig> {
    let mut peers = Vec::new();
    let mut seen = BTreeMap::new();
    let items = fields.list(reader, "peers");
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("peers[{i}]");
        let Some(fields) =
            Fields::open(reader, item, &path, &["match", "cookie_file", "cookie_env", "cookie_label", "also_accept"])
        else {
            continue;
        };
        let pattern = match fields.get("match") {
            Some(node) => node::access_pattern(reader, node, &fields.path("match")),
            None => {
                reader.problem(
                    &fields.at,
                    fields.path("match"),
                    "the peer has no `match`; add a pattern of node names",
                );
                None
            }
        };
        let needed = "a peer needs a cookie; set `cookie_file: FILE` (mode 0600) or `cookie_env: NAME`";
        let cookie = node::cookies(reader, &fields, Some(needed));
        if let Some(pattern) = &pattern {
            twice(reader, &mut seen, pattern.as_str(), &fields.at("match"), &path);
        }
        if let (Some(pattern), Some(cookie)) = (pattern, cookie) {
            peers.push(PeerConfig { pattern, cookie });
        }
    }
    peers
}

fn routes(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    profiles: &[TlsProfileId],
    resolvers: &[ResolverId],
    tls: bool,
) -> Vec<RouteConfig> {
    let mut routes = Vec::new();
    let mut seen = BTreeMap::new();
    let mut lints = Vec::new();
    let items = fields.list(reader, "routes");
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("routes[{i}]");
        let Some((entry, fields)) = read_entry(reader, item, &path) else { continue };
        twice(reader, &mut seen, &entry.pattern, &fields.at("match"), &path);
        let Surroundings { base_dir, environment } = reader.around;
        let context = RouteContext { base_dir, environment, resolvers, profiles, tls };
        match entry.to_route(&context) {
            Ok((pattern, weight, route)) => {
                if let Some(cookie) = route.cookie() {
                    let key = if entry.cookie_file.is_some() { "cookie_file" } else { "cookie_env" };
                    node::warn_if_weak(reader, &fields.path(key), cookie);
                }
                let told = pattern.lints().into_iter().map(|lint| {
                    Problem::at(&fields.at("match"), fields.path("match"), lint_message(&lint)).to_string()
                });
                lints.extend(told);
                routes.push(RouteConfig { pattern, weight, route });
            }
            Err(error) => {
                for problem in error.problems() {
                    let (outer, inner) = problem.field.split_once('.').unwrap_or((&problem.field, ""));
                    let nested = fields.get(outer).and_then(|node| node.get(inner)).map(|node| node.at.clone());
                    let at = nested.unwrap_or_else(|| fields.at(outer));
                    reader.problem(&at, fields.path(&problem.field), problem.cause.clone());
                }
            }
        }
    }
    let more = lints.len().saturating_sub(MOST_LINTS);
    lints.truncate(MOST_LINTS);
    reader.warnings.append(&mut lints);
    if more > 0 {
        reader.warnings.push(format!("routes: {more} more warnings about patterns"));
    }
    routes
}

/// Maximum number of pattern warnings shown; a large table often repeats the same one.
const MOST_LINTS: usize = 20;
