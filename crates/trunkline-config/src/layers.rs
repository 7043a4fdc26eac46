//! File < environment < command line.

use std::fmt;

use crate::error::{Problem, nearest};
use crate::tree::{self, At, Key, Layer, Node, Origin, Value};

/// What is laid over the file: the environment, and above it the command line.
///
/// A variable `TRUNKLINE_` + the upper-cased path with `_` between its parts sets one key: `TRUNKLINE_NODE_NAME`
/// sets `node.name`, `TRUNKLINE_NODE_TIMEOUTS_DNS_MS` sets `node.timeouts.dns_ms`, `TRUNKLINE_ROUTES` replaces the
/// whole list. `key.path=value` does the same from the command line. Values are YAML (or JSON) text; an empty one
/// goes back to the default. Relative paths are relative to the configuration file's directory, whatever the layer.
///
/// Setting one of two keys that exclude each other (`cookie_file` and `cookie_env`, for example) displaces the
/// other when a lower layer set it.
///
/// Other variables whose name begins with `TRUNKLINE_` are refused, so that a misspelt one does not go unnoticed;
/// [`RESERVED_VARIABLES`] and variables that a `cookie_env` or `token_env` names are left alone. Variables with any
/// other beginning are only looked at when `cookie_env` or `token_env` names them.
///
/// `Debug` shows names, never values.
#[derive(Clone, Default)]
pub struct Layers {
    /// The environment, as `std::env::vars()` gives it.
    pub environment: Vec<(String, String)>,
    /// `key.path=value` from the command line; a later one wins.
    pub set: Vec<String>,
}

/// Variables that begin with `TRUNKLINE_` and are not part of the configuration: the file's path, the log filter,
/// and the token a client shows to the admin interface.
pub const RESERVED_VARIABLES: [&str; 4] =
    ["TRUNKLINE_ADMIN", "TRUNKLINE_CONFIG", "TRUNKLINE_LOG", "TRUNKLINE_ADMIN_TOKEN"];

impl Layers {
    /// Nothing laid over the file.
    pub fn none() -> Self {
        Self::default()
    }

    /// The environment of this process (variables that are not UTF-8 are left out) and these `key.path=value`.
    pub fn from_process(set: Vec<String>) -> Self {
        let text = |s: std::ffi::OsString| s.into_string().ok();
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?))).collect();
        Self { environment, set }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.environment.iter().map(|(name, _)| name.as_str()).collect();
        let set: Vec<&str> = self.set.iter().map(|s| s.split('=').next().unwrap_or("")).collect();
        f.debug_struct("Layers").field("environment", &names).field("set", &set).finish()
    }
}

/// Every key that a layer may set; a shorter path comes before the ones inside it.
const PATHS: &[&str] = &[
    "node",
    "node.admin",
    "node.admin.listen",
    "node.admin.socket",
    "node.admin.token_env",
    "node.admin.token_file",
    "node.also_accept",
    "node.cookie_env",
    "node.cookie_file",
    "node.cookie_label",
    "node.data_dir",
    "node.fallback",
    "node.flags",
    "node.handshake",
    "node.hidden",
    "node.listen",
    "node.log_level",
    "node.name",
    "node.race_equal_weights_ms",
    "node.reconnect",
    "node.registrar",
    "node.registrar_listen",
    "node.registrar_listen.host",
    "node.registrar_listen.port",
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
    "services",
    "tls_profiles",
    "transit",
];

/// Keys of one mapping that exclude each other: setting the first displaces the others from lower layers.
const DISPLACES: &[(&str, &[&str])] = &[
    ("node.cookie_file", &["cookie_env"]),
    ("node.cookie_env", &["cookie_file"]),
    ("node.admin.token_file", &["token_env"]),
    ("node.admin.token_env", &["token_file"]),
    ("node.admin.socket", &["listen", "token_file", "token_env"]),
    ("node.admin.listen", &["socket"]),
];

/// Lays the environment and then the command line over the tree of the file.
pub(crate) fn apply(root: &mut Node, layers: &Layers, problems: &mut Vec<Problem>) {
    let mut unknown = Vec::new();
    for (name, _) in &layers.environment {
        if name.starts_with("TRUNKLINE_")
            && !RESERVED_VARIABLES.contains(&name.as_str())
            && !PATHS.iter().any(|path| variable(path) == *name)
        {
            unknown.push(name.as_str());
        }
    }
    for path in PATHS {
        let name = variable(path);
        if let Some((_, value)) = layers.environment.iter().find(|(n, _)| *n == name) {
            let label = format!("environment variable {name}");
            set(root, path, value, Layer::Environment, &label, problems);
        }
    }
    for text in &layers.set {
        let (path, value) = text.split_once('=').unwrap_or((text, ""));
        let label = format!("--set {path}");
        if !text.contains('=') {
            problems.push(Problem::of("--set", None, "", format!("`{path}` has no value; write --set {path}=VALUE")));
        } else if PATHS.contains(&path) {
            set(root, path, value, Layer::CommandLine, &label, problems);
        } else {
            let message = format!("unknown key; {}", nearest(path, PATHS));
            problems.push(Problem::of(label, None, "", message));
        }
    }
    if !unknown.is_empty() {
        let named = named_variables(root);
        let known: Vec<String> = PATHS.iter().map(|path| variable(path)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for name in unknown.into_iter().filter(|name| !named.contains(name)) {
            let message = format!("not a variable of trunkline; {} Else unset it", nearest(name, &known));
            problems.push(Problem::of(format!("environment variable {name}"), None, "", message));
        }
    }
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
            let message = format!("cannot be set: what holds it is {kind}, not a mapping");
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

/// The variables that the configuration itself names.
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
