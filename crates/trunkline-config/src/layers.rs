//! Layers of the configuration: the command line overrides the environment, which overrides the file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

use crate::error::{Problem, nearest};
use crate::tree::{self, At, Key, Layer, Node, Origin, Value};

/// Layers above the file: the environment, and above it the command line.
///
/// A variable `TRUNKLINE_` + the upper-cased path with `_` between its parts sets one key: `TRUNKLINE_NODE_NAME` sets
/// `node.name`, `TRUNKLINE_NODE_TIMEOUTS_DNS_MS` sets `node.timeouts.dns_ms`, `TRUNKLINE_ROUTES` replaces the whole
/// list. `key.path=value` does the same from the command line. Values are YAML (or JSON) text; `null`, or an empty
/// value on the command line, restores the default. Relative paths are relative to the directory of the configuration
/// file, in every layer.
///
/// A variable that is empty or contains only white space counts as unset, so a template that leaves a value out does
/// not remove a section such as `peers` or `proxied`. A configuration variable that is not UTF-8 is an error.
///
/// Setting one of two keys that exclude each other (for example `cookie_file` and `cookie_env`) removes the other one
/// if a lower layer set it.
///
/// Unknown variables whose name begins with `TRUNKLINE_` are refused, so that a misspelt one does not go unnoticed.
/// Exceptions are [`RESERVED_VARIABLES`], variables that a `cookie_env` or `token_env` names, and those that Kubernetes
/// creates for a service called `trunkline` or `trunkline-…` ([`is_service_variable`]). Variables without that prefix
/// are read only if a `cookie_env` or `token_env` names them.
///
/// `Debug` shows the names of variables and keys, never their values.
///
/// ```
/// use trunkline_config::{Config, Layers};
///
/// let environment = vec![
///     ("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into()),
///     ("TRUNKLINE_NODE_NAME".into(), "from-the-environment@host".into()),
///     ("TRUNKLINE_NODE_HIDDEN".into(), "true".into()),
/// ];
/// let set = vec!["node.name=from-the-command-line@host".into()];
/// let text = "node: { name: from-the-file@host, cookie_env: APP_COOKIE }";
/// let config = Config::parse(text, ".".as_ref(), "app.yaml", &Layers { environment, set })?;
/// assert_eq!(config.node.name.name(), "from-the-command-line");
/// assert!(config.node.hidden);
/// # Ok::<(), trunkline_config::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Layers {
    /// Environment, as returned by `std::env::vars_os()`.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings `key.path=value` from the command line; later ones win. HarperDB's name of a key of clustering is also
    /// taken, in capitals or not; errors then call it a flag, `--NAME`.
    pub set: Vec<String>,
}

/// Variables that begin with `TRUNKLINE_` but are not part of the configuration. They name the admin interface to ask,
/// the configuration file, the log filter and the token shown to the admin interface; the others tell a program that
/// was started for a peer its pid, the peer and the offer.
pub const RESERVED_VARIABLES: [&str; 7] = [
    "TRUNKLINE_ADMIN",
    "TRUNKLINE_CONFIG",
    "TRUNKLINE_LOG",
    "TRUNKLINE_ADMIN_TOKEN",
    "TRUNKLINE_PID",
    "TRUNKLINE_PEER",
    "TRUNKLINE_OFFER",
];

/// Returns true for a variable that Kubernetes creates in each container for a service called `trunkline` or
/// `trunkline-…`: `TRUNKLINE_SERVICE_HOST`, `TRUNKLINE_SERVICE_PORT[_NAME]`, `TRUNKLINE_PORT` and
/// `TRUNKLINE_PORT_80_TCP[_PROTO|_PORT|_ADDR]`. A name that ends in `_PORT` counts only if its value is an address such
/// as `tcp://10.0.0.1:80`, which no configuration key accepts.
pub fn is_service_variable(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name.strip_prefix("TRUNKLINE") else { return false };
    let protocol = |text: &str| matches!(text, "TCP" | "UDP" | "SCTP");
    // Matches `80_TCP` and `80_TCP_ADDR`.
    let numbered = |text: &str| {
        let (port, rest) = text.split_once('_').unwrap_or_default();
        let (kind, part) = rest.split_once('_').unwrap_or((rest, "ADDR"));
        port.parse::<u16>().is_ok() && protocol(kind) && matches!(part, "PROTO" | "PORT" | "ADDR")
    };
    let address = || {
        let value = value.to_string_lossy();
        value.split_once("://").is_some_and(|(kind, _)| protocol(&kind.to_ascii_uppercase()))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT") && address()
        || rest.match_indices("_PORT_").any(|(at, port)| numbered(&rest[at + port.len()..]))
}

impl Layers {
    /// Returns layers that change nothing in the file.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns layers with these `key.path=value` settings, and nothing of the environment.
    pub fn of(set: Vec<String>) -> Self {
        Self { environment: Vec::new(), set }
    }

    /// Returns layers with the environment of this process and these `key.path=value` settings.
    pub fn from_process(set: Vec<String>) -> Self {
        Self { environment: std::env::vars_os().collect(), set }
    }

    /// Returns the variable or `--set` that replaces the value at a path of keys, or a section around it; `None` if the
    /// value of the file applies.
    pub fn over(&self, path: &str) -> Option<String> {
        let covers =
            |known: &str| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let set = self.set.iter().rev().filter_map(|set| set.split_once('='));
        let set = set.map(|(path, _)| Flag::new(path)).find(|flag| covers(flag.path));
        let varied = given(&self.environment).filter_map(|(name, _)| name.to_str()).find(|name| {
            let own = PATHS.iter().find(|path| variable(path) == *name).copied();
            own.or_else(|| harper_key(name)).is_some_and(covers)
        });
        let varied = varied.map(|name| format!("the environment variable {name}"));
        set.map(|flag| flag.with_value("…")).or(varied)
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&OsString> = self.environment.iter().map(|(name, _)| name).collect();
        let set: Vec<&str> = self.set.iter().map(|s| s.split('=').next().unwrap_or("")).collect();
        f.debug_struct("Layers").field("environment", &names).field("set", &set).finish()
    }
}

/// Keys that a layer may set; a shorter path comes before the paths inside it.
const PATHS: &[&str] = &[
    "clustering",
    "clustering.enabled",
    "clustering.hubServer",
    "clustering.hubServer.cluster",
    "clustering.hubServer.cluster.name",
    "clustering.hubServer.cluster.network",
    "clustering.hubServer.cluster.network.port",
    "clustering.hubServer.cluster.network.routes",
    "clustering.leafServer",
    "clustering.leafServer.network",
    "clustering.leafServer.network.routes",
    "node",
    "node.admin",
    "node.admin.listen",
    "node.admin.socket",
    "node.admin.token_env",
    "node.admin.token_file",
    "node.also_accept",
    "node.announce",
    "node.cookie_env",
    "node.cookie_file",
    "node.cookie_label",
    "node.data_dir",
    "node.dead_after_ms",
    "node.fallback",
    "node.flags",
    "node.handshake",
    "node.hidden",
    "node.keep_alive_ms",
    "node.listen",
    "node.log_level",
    "node.name",
    "node.race_equal_weights_ms",
    "node.reconnect",
    "node.registrar",
    "node.registrar_listen",
    "node.registrar_listen.host",
    "node.registrar_listen.port",
    "node.registrar_routes",
    "node.registrar_rules",
    "node.registrar_serve",
    "node.timeouts",
    "node.timeouts.candidate_ms",
    "node.timeouts.dns_ms",
    "node.timeouts.handshake_ms",
    "node.timeouts.resolve_ms",
    "node.timeouts.tcp_ms",
    "node.timeouts.tls_ms",
    "node.timeouts.total_ms",
    "node.tls",
    "peers",
    "proxied",
    "proxy_routes",
    "spawn",
    "applications",
    "forwards",
    "registrars",
    "routes",
    "service_nodes",
    "services",
    "tls_profiles",
    "transit",
];

/// Keys of one mapping that exclude each other: setting the first removes the others if a lower layer set them.
const DISPLACES: &[(&str, &[&str])] = &[
    ("node.cookie_file", &["cookie_env"]),
    ("node.cookie_env", &["cookie_file"]),
    ("node.admin.token_file", &["token_env"]),
    ("node.admin.token_env", &["token_file"]),
    ("node.admin.socket", &["listen", "token_file", "token_env"]),
    ("node.admin.listen", &["socket"]),
];

/// Setting of the command line: `--set PATH=VALUE`, or a flag of its own under HarperDB's name.
struct Flag<'a> {
    /// Path of keys.
    path: &'a str,
    /// HarperDB's name, as it was written.
    harper: Option<&'a str>,
}

impl<'a> Flag<'a> {
    fn new(written: &'a str) -> Self {
        match harper_key(written) {
            Some(path) => Self { path, harper: Some(written) },
            None => Self { path: written, harper: None },
        }
    }

    fn label(&self) -> String {
        self.harper.map_or_else(|| format!("--set {}", self.path), |name| format!("--{name}"))
    }

    fn with_value(&self, value: &str) -> String {
        match self.harper {
            Some(name) => format!("--{name} {value}"),
            None => format!("--set {}={value}", self.path),
        }
    }
}

/// Applies the environment and then the command line to the tree of the file.
pub(crate) fn apply(root: &mut Node, layers: &Layers, problems: &mut Vec<Problem>) {
    let mut unknown = Vec::new();
    let mut known = BTreeMap::new();
    for (name, value) in given(&layers.environment) {
        let name = name.to_string_lossy();
        if let Some(path) = harper_key(&name) {
            known.entry(variable(path)).or_insert((name.into_owned(), value));
            continue;
        }
        let is_harper = |server: &str| name.to_ascii_uppercase().starts_with(server);
        let is_own = name.starts_with("TRUNKLINE_")
            || ["CLUSTERING_HUBSERVER_", "CLUSTERING_LEAFSERVER_"].into_iter().any(is_harper);
        if !is_own || is_service_variable(&name, value) {
            continue;
        }
        if PATHS.iter().any(|path| variable(path) == name) {
            known.insert(name.to_string(), (name.into_owned(), value));
        } else if !RESERVED_VARIABLES.contains(&&*name) {
            unknown.push(name.into_owned());
        }
    }
    for path in PATHS {
        let Some((name, value)) = known.get(&variable(path)) else { continue };
        let label = format!("environment variable {name}");
        match value.to_str() {
            Some(value) => set(root, path, value, Layer::Environment, &label, problems),
            None => problems.push(Problem::of(label, None, "", NOT_UTF_8)),
        }
    }
    for text in &layers.set {
        let (path, value) = text.split_once('=').unwrap_or((text, ""));
        let flag = Flag::new(path);
        // HarperDB's flags have lists and names, never nothing.
        if !text.contains('=') || flag.harper.is_some() && value.trim().is_empty() {
            let message = format!("no value; write `{}`", flag.with_value("VALUE"));
            problems.push(Problem::of(flag.label(), None, "", message));
        } else if PATHS.contains(&flag.path) {
            set(root, flag.path, value, Layer::CommandLine, &flag.label(), problems);
        } else {
            let message = format!("unknown key; {}", nearest(path, PATHS));
            problems.push(Problem::of(flag.label(), None, "", message));
        }
    }
    if !unknown.is_empty() {
        let named = named_variables(root);
        let known: Vec<String> = PATHS.iter().map(|path| variable(path)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for name in unknown.iter().filter(|name| !named.contains(&name.as_str())) {
            let message =
                format!("not a variable of trunkline; unset it or correct its name: {}", nearest(name, &known));
            problems.push(Problem::of(format!("environment variable {name}"), None, "", message));
        }
    }
}

/// Message about a variable that is not text.
pub(crate) const NOT_UTF_8: &str = "the value is not UTF-8 text; set it again, or unset it";

/// Returns the variables that count as set: those that contain more than white space.
pub(crate) fn given(environment: &[(OsString, OsString)]) -> impl Iterator<Item = (&OsString, &OsString)> {
    let holds_something = |value: &OsString| value.to_str().is_none_or(|text| !text.trim().is_empty());
    environment.iter().filter(move |(_, value)| holds_something(value)).map(|(name, value)| (name, value))
}

/// Returns the name that HarperDB gives to the variable of a key of clustering: `CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES`.
fn harper_variable(path: &str) -> Option<String> {
    path.starts_with("clustering.").then(|| path.to_ascii_uppercase().replace('.', "_"))
}

/// Returns the key of clustering that HarperDB gives this name to on its command line, in capitals or not.
pub fn harper_key(name: &str) -> Option<&'static str> {
    let is_named = |path: &&&str| harper_variable(path).is_some_and(|known| known.eq_ignore_ascii_case(name));
    PATHS.iter().find(is_named).copied()
}

fn variable(path: &str) -> String {
    format!("TRUNKLINE_{}", path.to_ascii_uppercase().replace('.', "_"))
}

fn set(root: &mut Node, path: &str, value: &str, layer: Layer, label: &str, problems: &mut Vec<Problem>) {
    let origin = Origin { layer, label: label.into() };
    let value = match tree::parse(value, &origin) {
        Ok(value) => value,
        Err(malformed) => {
            let hint = if value.contains(['[', '{']) { "" } else { "; put the value in quotes" };
            let message = format!("the value is {}{hint}", malformed.message);
            problems.push(Problem::of(label, malformed.line, "", message));
            return;
        }
    };
    let at = At { origin, line: 0, column: 0, start: 0, end: 0, alias: false };
    let mut here = root;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if here.is_null() || matches!((&here.value, part), (Value::Text(_), "socket" | "listen")) {
            *here = Node { value: Value::Map(Vec::new()), at: here.at.clone() };
        }
        let kind = here.kind();
        let Value::Map(entries) = &mut here.value else {
            let message = format!("the key cannot be set because its parent is {kind}, not a mapping");
            problems.push(Problem::of(label, None, "", message));
            return;
        };
        if parts.peek().is_none() && !value.is_null() {
            let displaced = DISPLACES.iter().find(|(p, _)| *p == path).map_or(&[][..], |(_, keys)| keys);
            entries.retain(|(k, _)| !displaced.contains(&k.text.as_str()) || k.at.origin.layer >= layer);
        }
        let i = entries.iter().position(|(k, _)| k.text == part).unwrap_or_else(|| {
            entries.push((Key { text: part.to_owned(), at: at.clone() }, Node::null(at.clone())));
            entries.len() - 1
        });
        if parts.peek().is_none() {
            entries[i] = (Key { text: part.to_owned(), at: at.clone() }, value);
            return;
        }
        here = &mut entries[i].1;
    }
}

/// Returns the variables that the configuration itself names.
fn named_variables(node: &Node) -> Vec<&str> {
    match &node.value {
        Value::List(items) => items.iter().flat_map(named_variables).collect(),
        Value::Map(entries) => entries
            .iter()
            .flat_map(|(key, value)| match &value.value {
                Value::Text(name) if matches!(key.text.as_str(), "cookie_env" | "token_env") => vec![name.as_str()],
                _ => named_variables(value),
            })
            .collect(),
        _ => Vec::new(),
    }
}
