//! Warnings about settings that are allowed but risky.

use std::fs;
use std::path::{Component, Path, PathBuf};

use trunkline_matcher::{AccessPattern, quoted};
use trunkline_route::{Host, LocalPlace, NodeName, SocketPlace};

use crate::config::Config;
use crate::node::{AdminConfig, RegistrarConfig};
use crate::proxy::ProxyRouteConfig;

/// Maximum number of warnings of one kind; a large table often repeats the same one.
const MOST_ALIKE: usize = 20;

/// Returns the warnings about the configuration as a whole.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = trusted_gateways(config);
    warnings.extend(wildcards(config));
    warnings.extend(ways_to_the_admin_interface(config));
    warnings.extend(offered_shells(config));
    warnings.extend(unverified(config));
    warnings.extend(open_transit(config));
    warnings.extend(almost_addresses(config));
    warnings.extend(data_dir(config));
    warnings
}

/// Returns warnings about gateways that could impersonate the nodes behind them, because both are proven by the same
/// cookie and no certificate is checked.
fn trusted_gateways(config: &Config) -> Vec<String> {
    let of_peer = |name: &NodeName| {
        let entry = config.peers.iter().find(|peer| peer.pattern.is_match(name.as_str()));
        entry.map_or(&config.node.cookie, |peer| &peer.cookie).current()
    };
    let mut told: Vec<(&NodeName, String)> = Vec::new();
    for (i, ProxyRouteConfig { route, .. }) in config.proxy_routes.iter().enumerate() {
        let (gateway, target) = (route.gateway(), route.target_route());
        let of_route = config
            .routes
            .iter()
            .filter(|route| route.pattern.is_match(gateway.as_str()))
            .max_by_key(|route| route.weight)
            .and_then(|route| route.route.cookie());
        let to_gateway = route.gateway_cookie().or(of_route).unwrap_or_else(|| of_peer(gateway));
        let to_target =
            target.cookie().unwrap_or_else(|| route.only_to().map_or(config.node.cookie.current(), of_peer));
        let same = to_gateway == to_target && !target.tls().unwrap_or(config.node.tls);
        if same && !told.iter().any(|(known, _)| *known == gateway) {
            let text = format!(
                "proxy_routes[{i}]: {gateway} holds the cookie that proves the target node, and no certificate is checked: it \
                 could impersonate that node; give `target` a `cookie_file` of its own, or `tls: true`"
            );
            told.push((gateway, text));
        }
    }
    told.into_iter().map(|(_, text)| text).collect()
}

/// Returns warnings about routes of the cluster whose host looks like an IPv4 address and is none: such a name does not
/// resolve.
fn almost_addresses(config: &Config) -> Vec<String> {
    let Some(cluster) = &config.clustering else { return Vec::new() };
    let is_almost =
        |host: &&Host| host.ip().is_none() && host.as_str().bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let path = cluster.server.path();
    let tell = |host: &Host| format!("{path}: {host} is not an IPv4 address, and is looked up as a name; correct it");
    cluster.routes.iter().map(|route| &route.host).filter(is_almost).map(tell).collect()
}

/// Returns true for an address at which every network of this machine can connect. The system reads `0` as `0.0.0.0`.
fn is_wildcard(host: &Host) -> bool {
    match host.ip() {
        Some(ip) => ip.to_canonical().is_unspecified(),
        None => host.as_str().starts_with('0') && host.as_str().chars().all(|c| matches!(c, '0' | '.' | 'x')),
    }
}

fn wildcards(config: &Config) -> Vec<String> {
    let node = &config.node;
    let mut told = Vec::new();
    let mut tell = |key: &str, address: &dyn std::fmt::Display, what: &str| {
        told.push(format!("{key}: {address} is open to every network of this machine: {what}"));
    };
    if let AdminConfig::Tcp { listen, .. } = &node.admin
        && is_wildcard(&listen.host)
    {
        let what = "everyone who has the token can operate the node, and the token is sent unencrypted; listen at 127.0.0.1, \
                    or use `admin: { socket: default }`";
        tell("node.admin.listen", listen, what);
    }
    if node.registrar == RegistrarConfig::Embedded && is_wildcard(&node.registrar_listen.host) {
        let what = "everyone who proves the cookie can announce names there; listen at 127.0.0.1, or at the address of one network";
        tell("node.registrar_listen", &node.registrar_listen, what);
    }
    for (i, forward) in config.forwards.iter().enumerate() {
        if let LocalPlace::Tcp(address) = &forward.listen
            && address.ip().to_canonical().is_unspecified()
        {
            let what = format!(
                "everyone who connects reaches {} at {} as this node, without authentication; listen at 127.0.0.1 or a Unix socket",
                forward.service, forward.name
            );
            tell(&format!("forwards[{i}].listen"), address, &what);
        }
    }
    told
}

fn ways_to_the_admin_interface(config: &Config) -> Vec<String> {
    let node = &config.node;
    let is_local = |host: &Host| {
        let name = host.as_str();
        is_wildcard(host)
            || host.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
            || name.eq_ignore_ascii_case("localhost")
            || name == node.name.host()
    };
    let leads_there = |place: &SocketPlace| match (place, &node.admin) {
        (SocketPlace::Unix(path), AdminConfig::Socket(socket)) => same_file(path, socket),
        (SocketPlace::Tcp(address), AdminConfig::Tcp { listen, .. }) => {
            address.port == listen.port
                && (address.host == listen.host || is_local(&address.host) && is_local(&listen.host))
        }
        _ => false,
    };
    let leading = config.services.iter().filter(|(_, service)| leads_there(&service.connect));
    let told = leading.map(|(name, service)| {
        format!(
            "services.{name}.connect: {} is this node's own operations interface: a peer that may open the service can \
             operate the node; connect it to another address",
            service.connect
        )
    });
    told.collect()
}

/// Returns true if two paths name the same file, as far as their directories exist.
fn same_file(one: &Path, other: &Path) -> bool {
    let plain = |path: &Path| {
        let found = path.canonicalize().ok();
        found
            .or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
            .unwrap_or_else(|| lexical(path))
    };
    plain(one) == plain(other)
}

/// Returns the path without `.` and `..`, without looking at the file system.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            part => plain.push(part),
        }
    }
    plain
}

/// Names that have nothing in common; a pattern that matches all of them matches every name.
const STRANGERS: [&str; 4] = ["a@host", "Q7-x.y@10.1.2.3", "probe@one.example", "z_9@other.test"];

fn lets_everybody_in(allow: &[AccessPattern]) -> Option<&AccessPattern> {
    allow.iter().find(|pattern| STRANGERS.iter().all(|name| pattern.is_match(name)))
}

/// Programs that execute the input they are given.
const INTERPRETERS: [&str; 21] = [
    "ash", "bash", "bun", "csh", "dash", "deno", "fish", "irb", "ksh", "lua", "mksh", "node", "nodejs", "perl", "php",
    "pwsh", "python", "ruby", "sh", "tclsh", "zsh",
];

/// Programs that execute the program named by their arguments.
const WRAPPERS: [&str; 9] = ["busybox", "doas", "env", "nice", "nohup", "setsid", "stdbuf", "sudo", "timeout"];

/// Returns the shell or interpreter that a command starts, also behind `env` and similar wrappers.
fn interpreter(command: &[String]) -> Option<&str> {
    for word in command {
        let name = Path::new(word).file_name()?.to_str()?;
        // Removes a version, so that `python3.13` becomes `python`.
        let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'));
        if INTERPRETERS.contains(&plain) {
            return Some(word);
        }
        let is_argument = word.starts_with('-') || word.contains('=') || word.starts_with(|c: char| c.is_ascii_digit());
        if !WRAPPERS.contains(&name) && !is_argument {
            return None;
        }
    }
    None
}

fn offered_shells(config: &Config) -> Vec<String> {
    let tell = |key: String, command: &[String], allow: &[AccessPattern]| {
        let (program, pattern) = (interpreter(command)?, lets_everybody_in(allow)?);
        Some(format!(
            "{key}: {program} is a shell or an interpreter, and {} lets every peer start it with arbitrary input; \
             name the peers in `allow`, or offer the one program that is intended",
            quoted(pattern.as_str())
        ))
    };
    let programs = config
        .spawn
        .iter()
        .filter_map(|(name, spawn)| tell(format!("spawn.{name}"), &spawn.program.command, &spawn.allow));
    let applications = config.applications.iter().flat_map(|(name, application)| {
        application.processes.iter().filter_map(move |(mailbox, program)| {
            tell(format!("applications.{name}.processes: {mailbox}"), &program.command, &application.allow)
        })
    });
    programs.chain(applications).collect()
}

fn unverified(config: &Config) -> Vec<String> {
    let tell = |key: String, pattern: &str| {
        format!(
            "{key}: insecure_skip_verify accepts any certificate for {}: only the cookie proves the peer; set up roots in a \
             `tls_profile` instead",
            quoted(pattern)
        )
    };
    let routes = config.routes.iter().enumerate().filter(|(_, route)| route.route.insecure_skip_verify());
    let proxies = config.proxy_routes.iter().enumerate();
    let proxies = proxies.filter(|(_, proxy)| proxy.route.target_route().insecure_skip_verify());
    let told = routes
        .map(|(i, route)| tell(format!("routes[{i}]"), route.pattern.as_str()))
        .chain(proxies.map(|(i, proxy)| tell(format!("proxy_routes[{i}].target"), proxy.pattern.as_str())));
    capped("insecure_skip_verify", told.collect())
}

/// Two hosts of each of three kinds; a rule that matches both hosts of a kind does not restrict the host.
const HOSTS: [[&str; 2]; 3] = [["probe", "otherhost"], ["probe.example", "other.test"], ["10.1.2.3", "192.0.2.77"]];

fn open_transit(config: &Config) -> Vec<String> {
    let rules = config.transit.rules.iter().enumerate();
    let open = rules.filter(|(_, rule)| rule.to.is_open_after('@', &HOSTS));
    let told = open.map(|(i, rule)| {
        format!(
            "transit.rules[{i}].to: {} does not restrict the host: neighbours that the rule admits can make this node \
             look up and dial any host; name the hosts, as in `db@10[.]0[.]1[.]50` or `db-.*@.*[.]example[.]com`",
            quoted(rule.to.as_str())
        )
    });
    capped("transit.rules", told.collect())
}

fn capped(what: &str, mut told: Vec<String>) -> Vec<String> {
    let more = told.len().saturating_sub(MOST_ALIKE);
    told.truncate(MOST_ALIKE);
    if more > 0 {
        told.push(format!("{what}: {more} more warnings of this kind"));
    }
    told
}

/// Returns a warning if other users can write to the data directory; they could replace the node's socket by their own.
#[cfg(unix)]
fn data_dir(config: &Config) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;

    let dir = &config.node.data_dir;
    let (shown, mut told) = (dir.display(), Vec::new());
    let Ok(found) = fs::metadata(dir) else { return told };
    let (mode, own) = (found.mode() & 0o7777, rustix::process::geteuid().as_raw());
    if mode & 0o022 != 0 {
        told.push(format!(
            "node.data_dir: other users can write to {shown} (mode {mode:04o}) and replace the node's socket and files; \
             run `chmod 700 {shown}`"
        ));
    }
    if found.uid() != own {
        told.push(format!(
            "node.data_dir: {shown} belongs to user {}, and this process runs as user {own}: its owner can replace \
             the node's socket and files; run the node as its owner, or give the directory to the node's user",
            found.uid()
        ));
    }
    told
}

#[cfg(not(unix))]
fn data_dir(_: &Config) -> Vec<String> {
    Vec::new()
}
