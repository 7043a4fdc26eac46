//! The section `registrars`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use trunkline_matcher::AccessPattern;
use trunkline_route::{Address, Cookie, Host, HostTemplate, TlsProfileId};
use zeroize::Zeroizing;

use crate::fields::{Fields, Reader, join};
use crate::node;
use crate::secret::SecretError;
use crate::tree::{Node, Value};

/// Id of the resolver that answers with the members of the cluster.
const CLUSTER: &str = "cluster";
/// Port of a node that DNS has no SRV record of.
const NODE_PORT: NonZeroU16 = NonZeroU16::new(4370).unwrap();
/// Port of name servers.
const DNS_PORT: u16 = 53;
/// Port at which etcd serves its clients.
const ETCD_PORT: u16 = 2379;
/// Prefix of the keys in etcd.
const ETCD_PREFIX: &str = "/trunkline";
/// Name of the SRV records of a node.
const SRV: &str = "_trunkline._tcp.{host}";

/// Entry of `registrars`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolverConfig {
    /// Embedded registrar served by another node.
    Embedded {
        /// Address of that registrar.
        address: Address,
        /// Cookie shown to that registrar; `None` means the node's cookie.
        cookie: Option<Cookie>,
    },
    /// YAML file of names; the file was readable when the configuration was loaded.
    File(PathBuf),
    /// DNS.
    Dns(DnsConfig),
    /// etcd.
    Etcd(EtcdConfig),
}

/// Registrar of kind `dns`: nodes are found by SRV, A and AAAA records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Name servers; those of the system if there are none.
    pub servers: Vec<SocketAddr>,
    /// Name of the SRV records of a node; `None` to ask for addresses only. Default: `_trunkline._tcp.{host}`.
    pub srv: Option<HostTemplate>,
    /// Port of nodes without SRV records. Default: 4370.
    pub port: NonZeroU16,
    /// Other ports by the name of the node; the first pattern that matches the whole name counts.
    pub ports: Vec<(AccessPattern, NonZeroU16)>,
    /// Name of TXT records with the names of the gateways that lead to a node. Default: `None`.
    pub gateways: Option<HostTemplate>,
    /// Name of TXT records with the nodes that serve a service. Default: `None`.
    pub services: Option<HostTemplate>,
}

/// Registrar of kind `etcd`: nodes announce themselves there, and are found there. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Addresses of members, of which one is used until it fails; at least one.
    pub endpoints: Vec<Address>,
    /// Prefix of the keys, without a slash at its end. Default: `/trunkline`.
    pub prefix: String,
    /// User, and the password.
    pub user: Option<(String, Zeroizing<String>)>,
    /// True if connections to etcd are by TLS.
    pub tls: bool,
    /// TLS profile for these connections; `None` means the certificates that the platform trusts.
    pub tls_profile: Option<TlsProfileId>,
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("tls", &self.tls)
            .field("tls_profile", &self.tls_profile)
            .finish()
    }
}

/// TLS profiles that were declared.
#[derive(Clone, Copy)]
pub(crate) struct Profiles<'a> {
    pub(crate) ids: &'a [TlsProfileId],
    /// Profiles that demand the name of a node in the certificate.
    pub(crate) with_name: &'a [&'a TlsProfileId],
}

const EMBEDDED: &[&str] = &["host", "port", "cookie_file", "cookie_env", "cookie_label"];
const FILE: &[&str] = &["path"];
const DNS: &[&str] = &["servers", "srv", "port", "ports", "gateways", "services"];
const ETCD: &[&str] = &["endpoints", "prefix", "user", "password_file", "password_env", "tls", "tls_profile"];
/// Kinds, and the keys of each.
const KINDS: &[(&str, &[&str])] = &[("embedded", EMBEDDED), ("file", FILE), ("dns", DNS), ("etcd", ETCD)];

pub(crate) fn read(reader: &mut Reader<'_>, node: &Node, path: &str, profiles: Profiles<'_>) -> Option<ResolverConfig> {
    if [node::EMBEDDED, node::NONE, CLUSTER].iter().any(|word| path == format!("registrars.{word}")) {
        reader.problem(&node.at, path, "the name is reserved; choose another one");
        return None;
    }
    let known: Vec<&str> = ["kind"].iter().chain(KINDS.iter().flat_map(|(_, keys)| *keys)).copied().collect();
    let fields = Fields::open(reader, node, path, &known)?;
    let Some((kind, at)) = fields.text(reader, "kind") else {
        if !fields.has("kind") {
            let kinds: Vec<String> = KINDS.iter().map(|(kind, _)| format!("`kind: {kind}`")).collect();
            let message = format!("the registrar has no `kind`; write one of {}", kinds.join(", "));
            reader.problem(&fields.at, fields.path("kind"), message);
        }
        return None;
    };
    let Some((_, own)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        let message = format!("{:?} is not a kind of registrar; known: {}", node::clip(kind), kinds.join(", "));
        reader.problem(&at, fields.path("kind"), message);
        return None;
    };
    for key in known.iter().filter(|key| **key != "kind" && !own.contains(key) && fields.has(key)) {
        let message = format!("a registrar of kind {kind} does not take this key; remove it");
        reader.problem(&fields.at(key), fields.path(key), message);
    }
    let needs = |reader: &mut Reader<'_>, key: &str| {
        if !fields.has(key) {
            reader.problem(&fields.at, fields.path(key), format!("a registrar of kind {kind} needs a `{key}`"));
        }
    };
    match kind {
        "file" => {
            needs(reader, "path");
            fields.file(reader, "path").map(ResolverConfig::File)
        }
        "dns" => dns(reader, &fields).map(ResolverConfig::Dns),
        "etcd" => {
            needs(reader, "endpoints");
            etcd(reader, &fields, profiles).map(ResolverConfig::Etcd)
        }
        _ => {
            needs(reader, "host");
            let host = fields.parsed(reader, "host", str::parse::<Host>);
            let port = if fields.has("port") {
                node::dialled_port(reader, &fields)
            } else {
                NonZeroU16::new(node::REGISTRAR_LISTEN.1)
            };
            let cookie = node::cookie(reader, &fields, None);
            Some(ResolverConfig::Embedded { address: Address { host: host?, port: port? }, cookie })
        }
    }
}

fn dns(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<DnsConfig> {
    let mut servers = Vec::new();
    if fields.has("servers") {
        for (nth, item) in fields.list(reader, "servers").unwrap_or_default().iter().enumerate() {
            servers.extend(server(reader, item, &format!("{}[{nth}]", fields.path("servers"))));
        }
    }
    let srv = match fields.text(reader, "srv") {
        Some((node::NONE, _)) => None,
        Some(_) => Some(fields.parsed(reader, "srv", str::parse::<HostTemplate>)?),
        None => SRV.parse().ok(),
    };
    let gateways = match fields.text(reader, "gateways") {
        Some((node::NONE, _)) | None => None,
        Some(_) => Some(fields.parsed(reader, "gateways", str::parse::<HostTemplate>)?),
    };
    let services = match fields.text(reader, "services") {
        Some((node::NONE, _)) | None => None,
        Some((text, at)) => {
            if !text.contains("{name}") || text.contains("{host}") {
                let message = "the name of these records has {name} for the service, and no {host}; write, for example, \
                               _{name}.shop.example.com";
                reader.problem(&at, fields.path("services"), message);
                return None;
            }
            Some(fields.parsed(reader, "services", str::parse::<HostTemplate>)?)
        }
    };
    let port = if fields.has("port") { node::dialled_port(reader, fields)? } else { NODE_PORT };
    let mut ports = Vec::new();
    if fields.has("ports") {
        for (nth, item) in fields.list(reader, "ports").unwrap_or_default().iter().enumerate() {
            ports.extend(port_rule(reader, item, &format!("{}[{nth}]", fields.path("ports"))));
        }
    }
    Some(DnsConfig { servers, srv, port, ports, gateways, services })
}

fn etcd(reader: &mut Reader<'_>, fields: &Fields<'_>, profiles: Profiles<'_>) -> Option<EtcdConfig> {
    let (mut endpoints, mut is_secure) = (Vec::new(), None);
    let items = if fields.has("endpoints") { fields.list(reader, "endpoints")? } else { &[] };
    if fields.has("endpoints") && items.is_empty() {
        reader.problem(
            &fields.at("endpoints"),
            fields.path("endpoints"),
            "names no endpoint; add one, such as 10.0.0.5:2379",
        );
    }
    for (nth, item) in items.iter().enumerate() {
        let path = format!("{}[{nth}]", fields.path("endpoints"));
        let text = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
        let (secure, place) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(place), _) => (Some(true), place),
            (None, Some(place)) => (Some(false), place),
            (None, None) => (None, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let address = place.parse().ok().or_else(|| Address::new(place, ETCD_PORT).ok());
        let Some(address) = address else {
            let message =
                "an endpoint is a host, or a host and a port, maybe after https://; write, for example, 10.0.0.5:2379";
            reader.problem(&item.at, path, message);
            continue;
        };
        endpoints.push(address);
        if secure.is_some() && is_secure.is_some() && secure != is_secure {
            let message = "some endpoints begin with https:// and some with http://; leave that away, and set `tls`";
            reader.problem(&item.at, path, message);
        }
        is_secure = is_secure.or(secure);
    }
    let prefix = match fields.text(reader, "prefix") {
        None => ETCD_PREFIX,
        Some((text, at)) => {
            let prefix = text.trim_end_matches('/');
            if !prefix.starts_with('/') || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message = "a prefix begins with a slash and has no spaces; write, for example, /trunkline/lab";
                reader.problem(&at, fields.path("prefix"), message);
            }
            prefix
        }
    };
    let user = user(reader, fields);
    let tls_profile = fields.parsed(reader, "tls_profile", |text| TlsProfileId::new(text));
    if let Some(id) = &tls_profile {
        let (at, key) = (fields.at("tls_profile"), fields.path("tls_profile"));
        if !profiles.ids.contains(id) {
            reader.problem(&at, key, format!("unknown TLS profile `{id}`; add it under `tls_profiles:`"));
        } else if profiles.with_name.contains(&id) {
            let message =
                "the profile demands the name of a node in the certificate, which etcd does not have; use another";
            reader.problem(&at, key, message);
        }
    }
    let said = fields.bool(reader, "tls");
    if said == Some(false) && (tls_profile.is_some() || is_secure == Some(true)) {
        reader.problem(
            &fields.at("tls"),
            fields.path("tls"),
            "the endpoints or `tls_profile` ask for TLS; remove this key",
        );
    }
    if is_secure == Some(false) && (said == Some(true) || tls_profile.is_some()) {
        reader.problem(
            &fields.at("endpoints"),
            fields.path("endpoints"),
            "http:// is without TLS; leave it away, or write https://",
        );
    }
    let tls = said.or(is_secure).unwrap_or(tls_profile.is_some());
    let prefix = prefix.to_owned();
    Some(EtcdConfig { endpoints, prefix, user: user?, tls, tls_profile }).filter(|config| !config.endpoints.is_empty())
}

/// Reads the user of etcd and its password; `Some(None)` without a user.
fn user(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Option<(String, Zeroizing<String>)>> {
    let user = fields.string(reader, "user").filter(|user| !user.is_empty());
    let (file, env) = (fields.string(reader, "password_file"), fields.string(reader, "password_env"));
    let password = match reader.around.secret("password", file.as_deref(), env.as_deref()) {
        Ok(password) => password,
        Err(SecretError { field, cause }) => {
            reader.problem(&fields.at(&field), fields.path(&field), cause);
            return None;
        }
    };
    let key = if file.is_some() { "password_file" } else { "password_env" };
    match (user, password) {
        (None, None) => Some(None),
        (Some(user), Some(password)) => match std::str::from_utf8(&password) {
            Ok(text) => Some(Some((user, Zeroizing::new(text.to_owned())))),
            Err(_) => {
                reader.problem(&fields.at(key), fields.path(key), "the password is not UTF-8 text");
                None
            }
        },
        (Some(_), None) => {
            let message = "the user has no password; add `password_file: FILE` (mode 0600) or `password_env: NAME`";
            reader.problem(&fields.at("user"), fields.path("user"), message);
            None
        }
        (None, Some(_)) => {
            reader.problem(
                &fields.at(key),
                fields.path(key),
                "the password has no user; add `user: NAME`, or remove it",
            );
            None
        }
    }
}

fn server(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<SocketAddr> {
    let text = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
    let server = text.parse::<SocketAddr>().ok();
    let server = server.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT)));
    let server = server.filter(|server| server.port() != 0);
    if server.is_none() {
        reader.problem(
            &item.at,
            path,
            "a name server is an IP address, or an address and a port; write, for example, 10.96.0.10:53",
        );
    }
    server
}

fn port_rule(reader: &mut Reader<'_>, item: &Node, path: &str) -> Option<(AccessPattern, NonZeroU16)> {
    let fields = Fields::open(reader, item, path, &["match", "port"])?;
    for key in ["match", "port"].iter().filter(|key| !fields.has(key)) {
        reader.problem(&fields.at, join(path, key), "is missing; write { match: PATTERN, port: NUMBER }");
    }
    let pattern = node::access_pattern(reader, fields.get("match")?, &fields.path("match"));
    Some((pattern?, node::dialled_port(reader, &fields)?))
}
