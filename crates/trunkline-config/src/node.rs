//! Section `node:` of the configuration.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use trunkline_matcher::AccessPattern;
use trunkline_route::{
    Address, Cookie, Cookies, EndpointError, Fallback, Flag, Host, LogLevel, NodeName, PeerFlags, Reconnect,
    ResolverId, ServiceName, Version,
};

use crate::error::Problem;
use crate::fields::{Fields, Reader, lint_message, no_name_message, pattern_message};
use crate::grants::{self, RegistrarRouteConfig, RegistrarRuleConfig};
use crate::offers::{self, AnnounceConfig};
use crate::secret::{AdminToken, SecretError};
use crate::tree::{Node, Value};

/// Section `node:` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name of this node.
    pub name: NodeName,
    /// Directory of the node's files. Default: `<name part>.data` beside the configuration file.
    pub data_dir: PathBuf,
    /// Cookies of the node; listeners, peers and routes may have their own.
    pub cookie: Cookies,
    /// Listeners for peers. Default: one on 127.0.0.1 with any free port. Empty: none.
    pub listen: Vec<ListenConfig>,
    /// Registrar that announces this node's addresses and finds those of others. Default:
    /// [`RegistrarConfig::Embedded`].
    pub registrar: RegistrarConfig,
    /// Address at which the embedded registrar serves, or at which another process on this host already serves it.
    /// Default: 127.0.0.1:4499.
    pub registrar_listen: Address,
    /// Condition under which discovery follows the static routes. Default: [`Fallback::OnFailure`].
    pub fallback: Fallback,
    /// True if routes without a `tls` setting verify certificates. Default: `false`.
    pub tls: bool,
    /// Handshake version of routes that name none. Default: `TLK/1`.
    pub handshake: Version,
    /// Flags offered on connections whose route does not mention them (`flags`). Default: all.
    pub flags: PeerFlags,
    /// Log level of connections whose route has none (`log_level`). Default: the level of the whole log.
    pub log_level: Option<LogLevel>,
    /// Reconnect policy of connections whose route has none. Default: [`Reconnect::OnDemand`].
    pub reconnect: Reconnect,
    /// Delay after which the next static route of equal weight is tried in parallel with the current attempt
    /// (`race_equal_weights_ms`). Default: the next route waits until the current attempt fails.
    pub race_equal_weights: Option<Duration>,
    /// Silence on a connection after which the peer is sent a ping (`keep_alive_ms`), 100 ms to one hour; routes may
    /// override it. Default: 5 s.
    pub keep_alive: Duration,
    /// Silence after which a connection is considered dead (`dead_after_ms`), 1 s to one hour and more than
    /// `keep_alive_ms`; routes may override it. Default: 15 s.
    pub dead_after: Duration,
    /// True if the node is not announced to the registrar. Default: `false`.
    pub hidden: bool,
    /// True if this node may serve as the embedded registrar when no other one does. Default: true.
    pub registrar_serve: bool,
    /// Rules about who may announce what, while this node serves as the embedded registrar. Empty: anything.
    pub registrar_rules: Vec<RegistrarRuleConfig>,
    /// Static routes that this node hands out while it serves as the embedded registrar.
    pub registrar_routes: Vec<RegistrarRouteConfig>,
    /// Services that this node serves with others, as the target `@service` finds them.
    pub announce: BTreeMap<ServiceName, AnnounceConfig>,
    /// Timeouts of the steps of a lookup.
    pub timeouts: Timeouts,
    /// Location of the admin interface. Default: the socket `admin.sock` in [`NodeConfig::data_dir`].
    pub admin: AdminConfig,
}

/// Listener for peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// Interface to bind. For a host name, the node listens at each of its addresses that this machine has; `::` means
    /// IPv6 only.
    pub host: Host,
    /// TCP port; 0 means any free port.
    pub port: u16,
    /// Address announced to the registrar instead of the bound one.
    pub advertise: Option<Advertise>,
    /// Certificate shown to callers and demanded of them; `None` uses an ephemeral self-signed certificate.
    pub tls: Option<ListenTls>,
    /// Cookies accepted here instead of the node's.
    pub cookie: Option<Cookies>,
    /// Patterns of the names admitted, each matching the whole name; `None` admits every name, an empty list none.
    pub allow: Option<Vec<AccessPattern>>,
}

/// Address announced to the registrar instead of a bound one. At least one field is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertise {
    /// Host announced instead of the bound one.
    pub host: Option<Host>,
    /// Port announced instead of the bound one.
    pub port: Option<NonZeroU16>,
}

/// TLS settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// Certificate and key shown to callers.
    pub identity: CertificateFiles,
    /// PEM file of the authorities whose certificates callers must show; `None` means that callers are not asked for
    /// one.
    pub client_ca: Option<PathBuf>,
    /// True if callers without a certificate are admitted as well. Default: `false`.
    pub client_optional: bool,
    /// True if the caller's certificate must carry the name that the caller claims. Default: `false`.
    pub cert_name_required: bool,
}

/// Certificate chain and its key, both PEM files that were readable when the configuration was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Path of the certificate chain.
    pub certificate: PathBuf,
    /// Path of the private key.
    pub key: PathBuf,
}

/// Choice of the registrar.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrarConfig {
    /// An entry of `registrars` is asked for addresses; this node is not announced.
    Asked(ResolverId),
    /// The embedded registrar, which needs no other process.
    Embedded,
    /// No registrar: the node uses static routes only, and others need a static route to it.
    None,
}

impl std::fmt::Display for RegistrarConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked(id) => id.fmt(f),
            Self::Embedded => f.write_str(EMBEDDED),
            Self::None => f.write_str(NONE),
        }
    }
}

/// Timeouts of the steps of a lookup, each 1 ms to one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout of one resolver's answer (`resolve_ms`). Default: 2 s.
    pub resolve: Duration,
    /// Timeout of resolving a host name (`dns_ms`). Default: 2 s.
    pub dns: Duration,
    /// Timeout of opening a TCP connection (`tcp_ms`). Default: 3 s.
    pub tcp: Duration,
    /// Timeout of the TLS handshake (`tls_ms`). Default: 3 s.
    pub tls: Duration,
    /// Timeout of proving the cookie and the name (`handshake_ms`). Default: 5 s.
    pub handshake: Duration,
    /// Timeout of all steps of one candidate (`candidate_ms`). Default: 8 s.
    pub candidate: Duration,
    /// Timeout of the whole lookup (`total_ms`). Default: 15 s.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            resolve: ms(2000),
            dns: ms(2000),
            tcp: ms(3000),
            tls: ms(3000),
            handshake: ms(5000),
            candidate: ms(8000),
            total: ms(15000),
        }
    }
}

/// Location of the admin interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminConfig {
    /// The admin interface is disabled.
    None,
    /// Unix socket at this path; every user who may open the file may operate the node.
    Socket(PathBuf),
    /// TCP listener; every client that shows the token may operate the node.
    Tcp {
        /// Address to listen at.
        listen: Address,
        /// Token that a client must show.
        token: AdminToken,
    },
}

/// Values of `node.registrar` that are not ids.
pub(crate) const EMBEDDED: &str = "embedded";
pub(crate) const NONE: &str = "none";

const KEYS: [&str; 25] = [
    "name",
    "data_dir",
    "cookie_file",
    "cookie_env",
    "cookie_label",
    "also_accept",
    "listen",
    "registrar",
    "registrar_listen",
    "registrar_routes",
    "registrar_rules",
    "registrar_serve",
    "fallback",
    "tls",
    "handshake",
    "flags",
    "log_level",
    "reconnect",
    "race_equal_weights_ms",
    "keep_alive_ms",
    "dead_after_ms",
    "hidden",
    "announce",
    "timeouts",
    "admin",
];

const NODE_COOKIE: &str = "the node has no cookie; set `cookie_file: FILE` (mode 0600, made with \
                           `openssl rand -hex 24`) or `cookie_env: NAME`";

/// Default address of the embedded registrar.
pub(crate) const REGISTRAR_LISTEN: (&str, u16) = ("127.0.0.1", 4499);

/// Longest timeout accepted; a larger value is most likely a typing error.
const MAX_TIMEOUT_MS: i64 = 3_600_000;

/// Reads the section. Returns `None` only after reporting a problem.
pub(crate) fn read(reader: &mut Reader<'_>, node: &Node, registrars: &[ResolverId]) -> Option<NodeConfig> {
    let fields = Fields::open(reader, node, "node", &KEYS)?;
    let name = if fields.has("name") {
        fields.parsed(reader, "name", |text| NodeName::new(text))
    } else {
        reader.problem(&fields.at, "node.name", "the node has no name; write `name: app@127.0.0.1`");
        None
    };
    let cookie = cookies(reader, &fields, Some(NODE_COOKIE));
    let data_dir = match fields.string(reader, "data_dir") {
        Some(text) => Some(text),
        None => name.as_ref().map(|name| format!("{}.data", file_name(name.name()))),
    };
    let data_dir = data_dir.map(|text| reader.around.path(&text));
    let listen = listeners(reader, &fields);
    let registrar = match fields.has("registrar") {
        false => Some(RegistrarConfig::Embedded),
        true => fields.parsed(reader, "registrar", |text| match text {
            EMBEDDED => Ok(RegistrarConfig::Embedded),
            NONE => Ok(RegistrarConfig::None),
            other => match registrars.iter().find(|id| id.as_str() == other) {
                Some(id) => Ok(RegistrarConfig::Asked(id.clone())),
                None => {
                    let known = [EMBEDDED, NONE].into_iter().chain(registrars.iter().map(ResolverId::as_str));
                    let known = known.collect::<Vec<_>>().join(", ");
                    Err(format!("unknown registrar `{}`; known: {known}", clip(other)))
                }
            },
        }),
    };
    let registrar_listen = registrar_address(reader, &fields);
    let fallback = match fields.has("fallback") {
        false => Some(Fallback::default()),
        true => fields.parsed(reader, "fallback", str::parse::<Fallback>),
    };
    let tls = fields.bool(reader, "tls").unwrap_or(false);
    let handshake = match fields.has("handshake") {
        false => Some(Version::native(1)),
        true => fields.parsed(reader, "handshake", str::parse::<Version>),
    };
    let flags = flags(reader, &fields);
    let log_level = log_level(reader, &fields);
    let reconnect = match fields.has("reconnect") {
        false => Some(Reconnect::default()),
        true => fields.parsed(reader, "reconnect", str::parse::<Reconnect>),
    };
    let race = fields.int(reader, "race_equal_weights_ms", 1, MAX_TIMEOUT_MS).and_then(|ms| u64::try_from(ms).ok());
    let (keep_alive, dead_after) = keep_alive(reader, &fields);
    let hidden = fields.bool(reader, "hidden").unwrap_or(false);
    let announce = offers::announce(reader, &fields);
    let registrar_serve = fields.bool(reader, "registrar_serve").unwrap_or(true);
    let (registrar_rules, registrar_routes) = (grants::rules(reader, &fields), grants::routes(reader, &fields));
    let timeouts = timeouts(reader, &fields);
    let admin = admin(reader, &fields, data_dir.as_ref());
    Some(NodeConfig {
        name: name?,
        data_dir: data_dir?,
        cookie: cookie?,
        listen: listen?,
        registrar: registrar?,
        registrar_listen: registrar_listen?,
        fallback: fallback?,
        tls,
        handshake: handshake?,
        flags: flags?,
        log_level,
        reconnect: reconnect?,
        race_equal_weights: race.map(Duration::from_millis),
        keep_alive,
        dead_after,
        hidden,
        registrar_serve,
        registrar_rules,
        registrar_routes,
        announce,
        timeouts: timeouts?,
        admin: admin?,
    })
}

/// Reads the cookie of a mapping with `cookie_file` and `cookie_env`; `required` is the message if both are missing.
pub(crate) fn cookie(reader: &mut Reader<'_>, fields: &Fields<'_>, required: Option<&str>) -> Option<Cookie> {
    let before = reader.problems.len();
    let file = fields.string(reader, "cookie_file");
    let env = fields.string(reader, "cookie_env");
    if reader.problems.len() > before {
        return None;
    }
    match reader.around.cookie(file.as_deref(), env.as_deref()) {
        Ok(Some(cookie)) => {
            warn_if_weak(reader, &fields.path(if file.is_some() { "cookie_file" } else { "cookie_env" }), &cookie);
            match fields.has("cookie_label") {
                true => fields.parsed(reader, "cookie_label", |label| cookie.labelled(label)),
                false => Some(cookie),
            }
        }
        Ok(None) => {
            if fields.has("cookie_label") {
                let message = "the label has no cookie; add `cookie_file: FILE`, or remove it";
                reader.problem(&fields.at("cookie_label"), fields.path("cookie_label"), message);
            }
            if let Some(message) = required {
                reader.problem(&fields.at, fields.path("cookie_file"), message);
            }
            None
        }
        Err(SecretError { field, cause }) => {
            reader.problem(&fields.at(&field), fields.path(&field), cause);
            None
        }
    }
}

/// Reads the cookie of a mapping and those under `also_accept`, each with a label of its own.
pub(crate) fn cookies(reader: &mut Reader<'_>, fields: &Fields<'_>, required: Option<&str>) -> Option<Cookies> {
    let current = cookie(reader, fields, required);
    let items = if fields.has("also_accept") { fields.list(reader, "also_accept")? } else { &[] };
    if let Some(first) = items.first().filter(|_| !fields.has("cookie_file") && !fields.has("cookie_env")) {
        let message = "`also_accept` needs a main cookie in the same section; add `cookie_file: FILE`";
        reader.problem(&first.at, fields.path("also_accept"), message);
    }
    let mut cookies = current.map(Cookies::new);
    for (i, item) in items.iter().enumerate() {
        let path = fields.path(&format!("also_accept[{i}]"));
        let Some(inner) = Fields::open(reader, item, &path, &["cookie_file", "cookie_env", "cookie_label"]) else {
            continue;
        };
        let needed = "the entry has no cookie; set `cookie_file: FILE` (mode 0600) or `cookie_env: NAME`";
        let Some(also) = cookie(reader, &inner, Some(needed)) else { continue };
        cookies = cookies.map(|cookies| {
            if cookies.iter().any(|known| known.label() == also.label()) {
                let message =
                    format!("two cookies have the label {:?}; give each a different `cookie_label`", also.label());
                reader.problem(&inner.at, inner.path("cookie_label"), message);
            }
            cookies.also(also)
        });
    }
    cookies
}

pub(crate) fn warn_if_weak(reader: &mut Reader<'_>, key: &str, cookie: &Cookie) {
    if cookie.is_weak() {
        let bits = cookie.estimated_bits();
        reader.warnings.push(format!(
            "{key}: the cookie is weak (about {bits} bits), so failed proofs slow down later ones: while somebody guesses, \
             callers wait up to 2 s, and up to a minute if the guesses use their own address and name; a cookie from \
             `openssl rand -hex 24` is never slowed down"
        ));
    }
}

fn listeners(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<ListenConfig>> {
    if !fields.has("listen") {
        let host = Host::new("127.0.0.1").ok()?;
        return Some(vec![ListenConfig { host, port: 0, advertise: None, tls: None, cookie: None, allow: None }]);
    }
    let items = fields.list(reader, "listen")?;
    let read: Vec<Option<ListenConfig>> =
        items.iter().enumerate().map(|(i, item)| listener(reader, item, &format!("node.listen[{i}]"))).collect();
    read.into_iter().collect()
}

fn listener(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ListenConfig> {
    let known =
        ["host", "port", "advertise", "tls", "cookie_file", "cookie_env", "cookie_label", "also_accept", "allow"];
    let fields = Fields::open(reader, node, path, &known)?;
    let host = match fields.has("host") {
        true => fields.parsed(reader, "host", str::parse::<Host>),
        false => Host::new("127.0.0.1").ok(),
    };
    let port = match fields.has("port") {
        true => fields.int(reader, "port", 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()),
        false => Some(0),
    };
    let mut advertise = None;
    if fields.has("advertise")
        && let Some(inner) = fields.fields(reader, "advertise", &["host", "port"])
    {
        let host = inner.parsed(reader, "host", str::parse::<Host>);
        let port = dialled_port(reader, &inner);
        if !inner.has("host") && !inner.has("port") {
            reader.problem(
                &inner.at,
                fields.path("advertise"),
                "the section is empty; set `host`, `port` or both, or remove it",
            );
        }
        advertise = Some(Advertise { host, port });
    }
    let mut tls = None;
    if fields.has("tls")
        && let Some(inner) =
            fields.fields(reader, "tls", &["certificate", "key", "client_ca", "client_certificate", "cert_name"])
    {
        tls = listen_tls(reader, &inner);
        if !inner.has("certificate") && !inner.has("key") {
            reader.problem(
                &inner.at,
                fields.path("tls"),
                "the section has no certificate; set `certificate` and `key`, or remove it",
            );
        }
    }
    let cookie = cookies(reader, &fields, None);
    let allow = patterns(reader, &fields, "allow");
    Some(ListenConfig { host: host?, port: port?, advertise, tls, cookie, allow })
}

fn listen_tls(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ListenTls> {
    let identity = certificate(reader, fields);
    let client_ca = reader.pem(fields, "client_ca", "CERTIFICATE");
    let optional = fields.parsed(reader, "client_certificate", |text| match text {
        "required" => Ok(false),
        "optional" => Ok(true),
        other => Err(format!("unknown value {:?}; write required or optional", clip(other))),
    });
    if fields.has("client_certificate") && !fields.has("client_ca") {
        let message = "the authorities of client certificates are not set; add `client_ca: FILE`, or remove this key";
        reader.problem(&fields.at("client_certificate"), fields.path("client_certificate"), message);
    }
    let cert_name_required = cert_name(reader, fields);
    if cert_name_required && (!fields.has("client_ca") || optional == Some(true)) {
        let message = "checking the name requires a client certificate; add `client_ca: FILE` and leave \
                       `client_certificate` out, or remove this key";
        reader.problem(&fields.at("cert_name"), fields.path("cert_name"), message);
    }
    let client_optional = optional.unwrap_or(false);
    Some(ListenTls { identity: identity?, client_ca, client_optional, cert_name_required })
}

/// Reads `cert_name: required`; returns false if the key is absent.
pub(crate) fn cert_name(reader: &mut Reader<'_>, fields: &Fields<'_>) -> bool {
    let required = fields.parsed(reader, "cert_name", |text| match text {
        "required" => Ok(()),
        other => Err(format!("unknown value {:?}; write `required`, or remove the key", clip(other))),
    });
    required.is_some()
}

/// Reads a port to dial, which cannot be 0.
pub(crate) fn dialled_port(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<NonZeroU16> {
    fields.int(reader, "port", 1, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new)
}

/// Reads a certificate and its key; each requires the other.
pub(crate) fn certificate(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<CertificateFiles> {
    for (has, lacks) in [("certificate", "key"), ("key", "certificate")] {
        if fields.has(has) && !fields.has(lacks) {
            let message = format!("the {has} has no {lacks}; add `{lacks}: FILE`");
            reader.problem(&fields.at(has), fields.path(has), message);
        }
    }
    let certificate = reader.pem(fields, "certificate", "CERTIFICATE");
    let key = reader.pem(fields, "key", "PRIVATE KEY");
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

/// Reads a list of patterns that match whole names; `None` if the key is absent.
pub(crate) fn patterns(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str) -> Option<Vec<AccessPattern>> {
    let items = fields.list(reader, key)?;
    let read = items.iter().enumerate();
    Some(read.filter_map(|(i, item)| access_pattern(reader, item, &format!("{}[{i}]", fields.path(key)))).collect())
}

/// Reads a pattern that matches whole names.
pub(crate) fn access_pattern(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<AccessPattern> {
    let Value::Text(text) = &node.value else {
        reader.problem(&node.at, path, format!("expected a pattern, found {}; put it in quotes", node.kind()));
        return None;
    };
    match AccessPattern::new(text) {
        Ok(pattern) => {
            if let Some(needed) = pattern.needs_other_than(NodeName::can_contain) {
                reader.problem(&node.at, path, no_name_message(&needed, text));
                return None;
            }
            let told =
                pattern.lints().into_iter().map(|lint| Problem::at(&node.at, path, lint_message(&lint)).to_string());
            reader.warnings.extend(told);
            Some(pattern)
        }
        Err(error) => {
            reader.problem(&node.at, path, pattern_message(&error));
            None
        }
    }
}

fn registrar_address(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Address> {
    let default = Address::new(REGISTRAR_LISTEN.0, REGISTRAR_LISTEN.1).ok()?;
    if !fields.has("registrar_listen") {
        return Some(default);
    }
    let inner = fields.fields(reader, "registrar_listen", &["host", "port"])?;
    let host = match inner.has("host") {
        true => inner.parsed(reader, "host", str::parse::<Host>),
        false => Some(default.host),
    };
    let port = match inner.has("port") {
        true => dialled_port(reader, &inner),
        false => Some(default.port),
    };
    Some(Address { host: host?, port: port? })
}

/// Reads the flags under `flags`; flags that are not switched off stay on.
pub(crate) fn flags(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<PeerFlags> {
    if !fields.has("flags") {
        return Some(PeerFlags::ALL);
    }
    let known: Vec<&str> = Flag::ALL.iter().map(|flag| flag.as_str()).collect();
    let inner = fields.fields(reader, "flags", &known)?;
    let set = |set: PeerFlags, flag: &Flag| match inner.bool(reader, flag.as_str()) {
        Some(on) => set.with(*flag, on),
        None => set,
    };
    Some(Flag::ALL.iter().fold(PeerFlags::ALL, set))
}

fn log_level(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<LogLevel> {
    let read = fields.level(reader, "log_level")?.parse::<LogLevel>();
    read.map_err(|error| reader.problem(&fields.at("log_level"), fields.path("log_level"), error)).ok()
}

/// Shortest silence before a ping, in milliseconds; shorter values would make the pings a load of their own.
pub(crate) const MIN_KEEP_ALIVE_MS: u64 = 100;
/// Shortest silence after which a connection is considered dead, in milliseconds; no peer answers reliably in less.
pub(crate) const MIN_DEAD_AFTER_MS: u64 = 1_000;
/// Longest value of both, one hour; a larger value is most likely a typing error.
pub(crate) const MAX_SILENCE_MS: u64 = 3_600_000;

/// Error returned when a connection would be considered dead before it sends a ping.
#[derive(Debug, thiserror::Error)]
#[error(
    "a connection that is considered dead after {dead_after_ms} ms of silence needs earlier pings: set `keep_alive_ms` below \
     `dead_after_ms`, usually to a third of it (it is {keep_alive_ms})"
)]
pub(crate) struct SilenceError {
    keep_alive_ms: u64,
    dead_after_ms: u64,
}

/// Returns an error unless `keep_alive_ms` is shorter than `dead_after_ms`.
pub(crate) fn silences(keep_alive_ms: u64, dead_after_ms: u64) -> Result<(), SilenceError> {
    if keep_alive_ms < dead_after_ms { Ok(()) } else { Err(SilenceError { keep_alive_ms, dead_after_ms }) }
}

fn keep_alive(reader: &mut Reader<'_>, fields: &Fields<'_>) -> (Duration, Duration) {
    let mut ms = |key: &str, low: u64, default: u64| {
        let given = fields.int(reader, key, low as i64, MAX_SILENCE_MS as i64);
        given.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(default)
    };
    let keep_alive = ms("keep_alive_ms", MIN_KEEP_ALIVE_MS, 5_000);
    let dead_after = ms("dead_after_ms", MIN_DEAD_AFTER_MS, 15_000);
    if let Err(problem) = silences(keep_alive, dead_after) {
        let key = if fields.has("dead_after_ms") { "dead_after_ms" } else { "keep_alive_ms" };
        reader.problem(&fields.at(key), fields.path(key), problem);
    }
    (Duration::from_millis(keep_alive), Duration::from_millis(dead_after))
}

fn timeouts(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Timeouts> {
    let mut timeouts = Timeouts::default();
    if !fields.has("timeouts") {
        return Some(timeouts);
    }
    let mut places = [
        ("resolve_ms", &mut timeouts.resolve),
        ("dns_ms", &mut timeouts.dns),
        ("tcp_ms", &mut timeouts.tcp),
        ("tls_ms", &mut timeouts.tls),
        ("handshake_ms", &mut timeouts.handshake),
        ("candidate_ms", &mut timeouts.candidate),
        ("total_ms", &mut timeouts.total),
    ];
    let inner = fields.fields(reader, "timeouts", &places.each_ref().map(|(key, _)| *key))?;
    for (key, place) in &mut places {
        if let Some(ms) = inner.int(reader, key, 1, MAX_TIMEOUT_MS).and_then(|ms| u64::try_from(ms).ok()) {
            **place = Duration::from_millis(ms);
        }
    }
    Some(timeouts)
}

fn admin(reader: &mut Reader<'_>, fields: &Fields<'_>, data_dir: Option<&PathBuf>) -> Option<AdminConfig> {
    let default = data_dir.map(|dir| AdminConfig::Socket(dir.join("admin.sock")));
    let Some(node) = fields.get("admin") else { return default };
    if let Value::Text(text) = &node.value {
        if text == "none" {
            return Some(AdminConfig::None);
        }
        let message =
            format!("unknown admin interface {:?}; write none, {{ socket: default }} or {{ listen: … }}", clip(text));
        reader.problem(&node.at, "node.admin", message);
        return None;
    }
    let inner = fields.fields(reader, "admin", &["socket", "listen", "token_file", "token_env"])?;
    let both = inner.has("socket") && inner.has("listen");
    if both {
        reader.problem(&inner.at("listen"), inner.path("listen"), "both socket and listen are set; keep one of them");
        return None;
    }
    if !inner.has("listen") {
        for key in ["token_file", "token_env"] {
            if inner.has(key) {
                reader.problem(
                    &inner.at(key),
                    inner.path(key),
                    "only a TCP listener uses a token; remove this key or set `listen`",
                );
            }
        }
        return match inner.has("socket") {
            true => match inner.text(reader, "socket")?.0 {
                "default" => default,
                path => Some(AdminConfig::Socket(reader.around.path(path))),
            },
            false => default,
        };
    }
    let listen = inner.parsed(reader, "listen", |text| text.parse::<Address>().map_err(AdminListenError));
    let token = token(reader, &inner);
    Some(AdminConfig::Tcp { listen: listen?, token: token? })
}

/// Error returned when `admin.listen` is not an address.
#[derive(Debug, thiserror::Error)]
#[error("this is not an address; write HOST:PORT, for example 127.0.0.1:4490")]
struct AdminListenError(#[source] EndpointError);

fn token(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<AdminToken> {
    let before = reader.problems.len();
    let file = fields.string(reader, "token_file");
    let env = fields.string(reader, "token_env");
    if reader.problems.len() > before {
        return None;
    }
    let field = if file.is_some() { "token_file" } else { "token_env" };
    let outcome = match reader.around.secret("token", file.as_deref(), env.as_deref()) {
        Ok(Some(bytes)) => AdminToken::new(&bytes).map_err(|error| SecretError::new(field, error)),
        Ok(None) => Err(SecretError::new(
            "listen",
            "the TCP admin listener has no token; make one with `openssl rand -hex 16 > admin.token && chmod 600 \
             admin.token` and set `token_file: admin.token`, or use `admin: { socket: default }`",
        )),
        Err(error) => Err(error),
    };
    outcome.map_err(|SecretError { field, cause }| reader.problem(&fields.at(&field), fields.path(&field), cause)).ok()
}

/// Returns a node name's name part with characters replaced that a file name should not contain.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    name.chars().map(plain).collect()
}

pub(crate) fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
