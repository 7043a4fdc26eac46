use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_matcher::{PatternError, RoutePattern};
use trunkline_route::{
    AtomMapping, Cookie, DEFAULT_WEIGHT, EndpointOverride, Flag, FlagPolicy, Host, LogLevel, NetworkRoute,
    NetworkRouteBuilder, NodeName, Reconnect, ResolverId, TlsProfileId, Version,
};

use crate::error::{BoxError, FieldProblem, RouteError};
use crate::fields::{Fields, Reader, join, no_name_message, pattern_message};
use crate::node::{MAX_SILENCE_MS, MIN_DEAD_AFTER_MS, MIN_KEEP_ALIVE_MS, silences};
use crate::secret::Surroundings;
use crate::tree::{Node, Value};

/// Item of `routes:`, as written in the file and as given to the admin interface (JSON has the same keys).
///
/// Fields that are `None` are omitted in the serialized form. No field is checked until [`RouteEntry::to_route`].
///
/// ```
/// use trunkline_config::{RouteContext, RouteEntry};
///
/// let entry = RouteEntry { host: Some("10.0.1.50".into()), port: Some(4370), ..RouteEntry::new("^db@") };
/// let (resolvers, profiles) = ([], []);
/// let context = RouteContext {
///     base_dir: ".".as_ref(),
///     environment: &[],
///     resolvers: &resolvers,
///     profiles: &profiles,
///     tls: false,
/// };
/// let (pattern, weight, route) = entry.to_route(&context)?;
/// assert_eq!((pattern.as_str(), weight, route.tls()), ("^db@", 100, None));
///
/// let error = RouteEntry::new("^db@(").to_route(&context).unwrap_err();
/// assert!(error.problems().iter().any(|problem| problem.field == "match"));
/// # Ok::<(), trunkline_config::RouteError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// Pattern of node names; matches anywhere in a name unless it is anchored.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Weight of the route; higher weights are tried first. Default: [`DEFAULT_WEIGHT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Host to dial. Default: the part of the dialled name after the `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// TCP port, 1 to 65535. A route has either a port or a resolver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// True if the peer's certificate is verified. Default: the node's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Id of a TLS profile under `tls_profiles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_profile: Option<String>,
    /// True if the peer's certificate is not verified although `tls` is on. Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// Handshake version, for example `TLK/1`. Default: the node's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<String>,
    /// File with this route's cookie. Default: the node's cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_file: Option<String>,
    /// Environment variable with this route's cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_env: Option<String>,
    /// Label that tells the peer which of two valid cookies this is, while one replaces the other. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_label: Option<String>,
    /// Flags offered over the connection and flags required of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<FlagsEntry>,
    /// Names that differ between the two ends of its connections: from this node's name to the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atom_mapping: Option<BTreeMap<String, String>>,
    /// Log level of its connections: `off`, `error`, `warn`, `info`, `debug` or `trace`. Default: the node's level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// Reconnect policy of its connections: `never`, `on_demand` or `keep`. Default: the node's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<String>,
    /// Time in milliseconds for which this route must answer every probe before a connection over a worse route returns
    /// to it. Default: connections do not return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failback_ms: Option<u64>,
    /// Silence on its connections after which the peer is sent a ping, 100 to 3,600,000 ms. Default: the node's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_ms: Option<u64>,
    /// Silence after which its connections are considered dead, 1,000 to 3,600,000 ms and more than `keep_alive_ms`.
    /// Default: the node's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_after_ms: Option<u64>,
    /// `never` if no discovery follows for names this route matches; no other value is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Id of the resolver to ask for addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Values that replace those of the resolver's answers.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overrides: Option<OverrideEntry>,
}

/// Values with which a [`RouteEntry`] replaces those of a resolver's answers, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverrideEntry {
    /// Host to dial instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port to dial instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Certificate verification, forced on or off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Handshake version to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<String>,
}

/// Flag settings of a [`RouteEntry`]; a flag that is not mentioned keeps the node's setting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsEntry {
    /// Flags that the peer must offer; otherwise the connection is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// Flags switched on or off, by name.
    #[serde(flatten)]
    pub set: BTreeMap<String, bool>,
}

impl FlagsEntry {
    /// Returns the entry that expresses a policy; `None` if the policy mentions no flag.
    pub fn of(policy: FlagPolicy) -> Option<Self> {
        let required = policy.required();
        let set = policy.mentioned().filter(|(flag, _)| !required.has(*flag));
        let this = Self {
            require: required.iter().map(|flag| flag.to_string()).collect(),
            set: set.map(|(flag, on)| (flag.to_string(), on)).collect(),
        };
        (this != Self::default()).then_some(this)
    }

    fn policy(&self, check: &mut Check) -> FlagPolicy {
        let mut policy = FlagPolicy::default();
        for (name, on) in &self.set {
            if let Some(flag) = check.parsed(&format!("flags.{name}"), Some(name), str::parse::<Flag>) {
                policy = policy.set(flag, *on);
            }
        }
        for name in &self.require {
            let Some(flag) = check.parsed("flags.require", Some(name), str::parse::<Flag>) else { continue };
            if self.set.get(name) == Some(&false) {
                check.fail("flags.require", format!("{name} is both required and switched off; remove one of the two"));
            }
            policy = policy.require(flag);
        }
        policy
    }
}

/// Surroundings against which a [`RouteEntry`] is validated.
#[derive(Clone, Copy)]
pub struct RouteContext<'a> {
    /// Directory of relative paths.
    pub base_dir: &'a Path,
    /// Environment in which `cookie_env` is looked up, as returned by `std::env::vars_os()`.
    pub environment: &'a [(OsString, OsString)],
    /// Ids of the known resolvers; see [`Config::resolvers`](crate::Config::resolvers).
    pub resolvers: &'a [ResolverId],
    /// Ids of the known TLS profiles.
    pub profiles: &'a [TlsProfileId],
    /// True if the node verifies certificates where a route does not set `tls`.
    pub tls: bool,
}

impl fmt::Debug for RouteContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteContext")
            .field("base_dir", &self.base_dir)
            .field("resolvers", &self.resolvers)
            .field("profiles", &self.profiles)
            .finish_non_exhaustive()
    }
}

/// Problems found in the fields of an entry.
struct Check(Vec<FieldProblem>);

impl Check {
    fn fail(&mut self, field: &str, cause: impl Into<BoxError>) {
        self.0.push(FieldProblem::new(field, cause));
    }

    fn parsed<T, E: Into<BoxError>>(
        &mut self,
        field: &str,
        text: Option<&str>,
        parse: fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.parsed_with(field, parse(text?))
    }

    fn parsed_with<T, E: Into<BoxError>>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.fail(field, error)).ok()
    }

    fn port(&mut self, field: &str, port: Option<u16>) -> Option<NonZeroU16> {
        let checked = NonZeroU16::new(port?);
        if checked.is_none() {
            self.fail(field, "port 0 cannot be dialled; write a number from 1 to 65535");
        }
        checked
    }
}

/// Settings common to both kinds of route.
struct Demands {
    tls: Option<bool>,
    tls_profile: Option<TlsProfileId>,
    insecure_skip_verify: bool,
    version: Option<Version>,
    cookie: Option<Cookie>,
    fallback_never: bool,
    flags: FlagPolicy,
    log_level: Option<LogLevel>,
    mapping: Option<AtomMapping>,
    reconnect: Option<Reconnect>,
    failback: Option<Duration>,
    keep_alive: Option<Duration>,
    dead_after: Option<Duration>,
}

impl Demands {
    fn put<S>(self, mut builder: NetworkRouteBuilder<S>) -> NetworkRoute {
        builder = builder.insecure_skip_verify(self.insecure_skip_verify);
        if let Some(on) = self.tls {
            builder = builder.tls(on);
        }
        if let Some(profile) = self.tls_profile {
            builder = builder.tls_profile(profile);
        }
        if let Some(version) = self.version {
            builder = builder.version(version);
        }
        if let Some(cookie) = self.cookie {
            builder = builder.cookie(cookie);
        }
        for (flag, on) in self.flags.mentioned() {
            builder = if self.flags.required().has(flag) { builder.require(flag) } else { builder.flag(flag, on) };
        }
        if let Some(level) = self.log_level {
            builder = builder.log_level(level);
        }
        if let Some(mapping) = self.mapping {
            builder = builder.atom_mapping(mapping);
        }
        if let Some(policy) = self.reconnect {
            builder = builder.reconnect(policy);
        }
        if let Some(hold) = self.failback {
            builder = builder.failback(hold);
        }
        if let Some(silence) = self.keep_alive {
            builder = builder.keep_alive(silence);
        }
        if let Some(silence) = self.dead_after {
            builder = builder.dead_after(silence);
        }
        if self.fallback_never {
            builder = builder.fallback_never();
        }
        builder.build()
    }
}

impl RouteEntry {
    /// Creates a route that has only a pattern; it still needs a port or a resolver.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), ..Self::default() }
    }

    /// Validates the entry and returns the pattern, weight and route for the route table. Reads the cookie file if one
    /// is named.
    ///
    /// # Errors
    /// [`RouteError`] holds every problem found, by field.
    pub fn to_route(&self, context: &RouteContext<'_>) -> Result<(RoutePattern, i64, NetworkRoute), RouteError> {
        let mut check = Check(Vec::new());
        let pattern = route_pattern(&self.pattern).map_err(|error| check.fail("match", error)).ok();
        let demands = self.demands(context, &mut check);
        let route = match &self.resolver {
            Some(resolver) => self.resolved(resolver, context, &mut check).map(|builder| demands.put(builder)),
            None => self.direct(&mut check).map(|builder| demands.put(builder)),
        };
        match (pattern, route) {
            (Some(pattern), Some(route)) if check.0.is_empty() => {
                Ok((pattern, self.weight.unwrap_or(DEFAULT_WEIGHT), route))
            }
            _ => Err(RouteError::new(check.0)),
        }
    }

    fn demands(&self, context: &RouteContext<'_>, check: &mut Check) -> Demands {
        let tls_profile = check.parsed("tls_profile", self.tls_profile.as_deref(), |t| TlsProfileId::new(t));
        if let Some(id) = tls_profile.as_ref().filter(|id| !context.profiles.contains(id)) {
            let known: Vec<&str> = context.profiles.iter().map(TlsProfileId::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            check.fail(
                "tls_profile",
                format!("unknown TLS profile `{id}`; known: {known}; add it under `tls_profiles:`"),
            );
        }
        // With a resolver, an answer may demand certificates; a fixed address does not.
        if self.resolver.is_none() && !self.tls.unwrap_or(context.tls) {
            let idle = [
                ("tls_profile", self.tls_profile.is_some()),
                ("insecure_skip_verify", self.insecure_skip_verify == Some(true)),
            ];
            for (key, _) in idle.into_iter().filter(|(_, given)| *given) {
                check.fail(key, "this key is about certificates, which the route does not verify; add `tls: true`, or remove the key");
            }
        }
        let around = Surroundings { base_dir: context.base_dir, environment: context.environment };
        let cookie = around.cookie(self.cookie_file.as_deref(), self.cookie_env.as_deref()).unwrap_or_else(|error| {
            check.fail(&error.field, error.cause);
            None
        });
        let cookie = match (&self.cookie_label, cookie) {
            (Some(label), Some(cookie)) => check.parsed_with("cookie_label", cookie.labelled(label)),
            (Some(_), None) if self.cookie_file.is_none() && self.cookie_env.is_none() => {
                check.fail("cookie_label", "the label has no cookie; add `cookie_file: FILE`, or remove it");
                None
            }
            (_, cookie) => cookie,
        };
        if let Some(other) = self.fallback.as_deref().filter(|text| *text != "never") {
            let message = format!(
                "{other:?} is not allowed in a route; write never, or remove the key to use the node's fallback"
            );
            check.fail("fallback", message);
        }
        let [keep_alive, dead_after] = self.silences(check);
        Demands {
            keep_alive,
            dead_after,
            tls: self.tls,
            tls_profile,
            insecure_skip_verify: self.insecure_skip_verify.unwrap_or(false),
            version: check.parsed("handshake", self.handshake.as_deref(), str::parse::<Version>),
            cookie,
            fallback_never: self.fallback.is_some(),
            reconnect: check.parsed("reconnect", self.reconnect.as_deref(), str::parse::<Reconnect>),
            failback: self.failback(check),
            log_level: check.parsed("log_level", self.log_level.as_deref(), str::parse::<LogLevel>),
            flags: self.flags.as_ref().map(|flags| flags.policy(check)).unwrap_or_default(),
            mapping: self.atom_mapping.as_ref().and_then(|m| check.parsed_with("atom_mapping", AtomMapping::new(m))),
        }
    }

    fn silences(&self, check: &mut Check) -> [Option<Duration>; 2] {
        let given = [
            ("keep_alive_ms", self.keep_alive_ms, MIN_KEEP_ALIVE_MS),
            ("dead_after_ms", self.dead_after_ms, MIN_DEAD_AFTER_MS),
        ];
        for (key, ms, low) in given {
            if let Some(ms) = ms.filter(|ms| !(low..=MAX_SILENCE_MS).contains(ms)) {
                check.fail(key, format!("{ms} is not a number from {low} to {MAX_SILENCE_MS}"));
            }
        }
        if let (Some(keep_alive), Some(dead_after)) = (self.keep_alive_ms, self.dead_after_ms)
            && let Err(problem) = silences(keep_alive, dead_after)
        {
            check.fail("dead_after_ms", problem);
        }
        given.map(|(_, ms, _)| ms.map(Duration::from_millis))
    }

    fn failback(&self, check: &mut Check) -> Option<Duration> {
        let ms = self.failback_ms?;
        if !(MIN_FAILBACK_MS..=MAX_FAILBACK_MS).contains(&ms) {
            check.fail("failback_ms", format!("{ms} is not a number from {MIN_FAILBACK_MS} to {MAX_FAILBACK_MS}"));
        }
        Some(Duration::from_millis(ms))
    }

    fn direct(&self, check: &mut Check) -> Option<NetworkRouteBuilder<trunkline_route::Direct>> {
        if self.overrides.is_some() {
            check.fail(
                "override",
                "only a route with a `resolver` can have an override; set these fields in the route itself",
            );
        }
        let host = check.parsed("host", self.host.as_deref(), str::parse::<Host>);
        let Some(given) = self.port else {
            check.fail("port", "the route has no address; add a `port` to dial, or a `resolver` to ask");
            return None;
        };
        let port = check.port("port", Some(given))?.get();
        let builder = match (&self.host, host) {
            (Some(_), None) => return None,
            (_, Some(host)) => NetworkRoute::direct(host.as_str(), port),
            (None, None) => NetworkRoute::to_port(port),
        };
        builder.map_err(|error| check.fail("host", error)).ok()
    }

    fn resolved(
        &self,
        resolver: &str,
        context: &RouteContext<'_>,
        check: &mut Check,
    ) -> Option<NetworkRouteBuilder<trunkline_route::Resolved>> {
        for (field, given) in [("host", self.host.is_some()), ("port", self.port.is_some())] {
            if given {
                let message = format!(
                    "the resolver supplies the {field}; write `override: {{ {field}: … }}` to replace it in every answer"
                );
                check.fail(field, message);
            }
        }
        let overrides = self.overrides.as_ref().map(|over| EndpointOverride {
            host: check.parsed("override.host", over.host.as_deref(), str::parse::<Host>),
            port: check.port("override.port", over.port),
            tls: over.tls,
            version: check.parsed("override.handshake", over.handshake.as_deref(), str::parse::<Version>),
        });
        let known = || context.resolvers.iter().map(ResolverId::as_str).collect::<Vec<_>>();
        match context.resolvers.iter().find(|id| id.as_str() == resolver) {
            Some(id) => Some(NetworkRoute::resolved_by(id.clone()).overriding(overrides.unwrap_or_default())),
            None => {
                let shown: String = resolver.chars().take(80).collect();
                let remedy = match known().join(", ") {
                    none if none.is_empty() => {
                        "no resolver is configured; set `node.registrar: embedded`, or add one under `registrars:`"
                            .into()
                    }
                    known if resolver == "embedded" => {
                        format!("set `node.registrar: embedded` to have it; known: {known}")
                    }
                    known => format!("known: {known}"),
                };
                check.fail("resolver", format!("unknown resolver `{shown}`; {remedy}"));
                None
            }
        }
    }
}

/// Error returned when a text is not the pattern of a route.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoutePatternError {
    #[error("the pattern is empty and would match every name; write `.*` if that is intended")]
    Empty,
    #[error("{message}")]
    NoName { message: String },
    #[error("{}", pattern_message(.0))]
    Syntax(PatternError),
}

/// Parses a route pattern. Refuses an empty one, which would match every name, and one that no name can match.
pub(crate) fn route_pattern(text: &str) -> Result<RoutePattern, RoutePatternError> {
    if text.is_empty() {
        return Err(RoutePatternError::Empty);
    }
    let pattern = RoutePattern::new(text).map_err(RoutePatternError::Syntax)?;
    match pattern.needs_other_than(NodeName::can_contain) {
        Some(needed) => Err(RoutePatternError::NoName { message: no_name_message(&needed, text) }),
        None => Ok(pattern),
    }
}

/// Shortest hold time; each period takes four handshakes.
const MIN_FAILBACK_MS: u64 = 100;
/// Longest hold time, a day; a larger value is most likely a typing error.
const MAX_FAILBACK_MS: u64 = 86_400_000;

const KEYS: [&str; 21] = [
    "match",
    "weight",
    "host",
    "port",
    "tls",
    "tls_profile",
    "insecure_skip_verify",
    "handshake",
    "cookie_file",
    "cookie_env",
    "cookie_label",
    "flags",
    "atom_mapping",
    "log_level",
    "reconnect",
    "failback_ms",
    "keep_alive_ms",
    "dead_after_ms",
    "fallback",
    "resolver",
    "override",
];

/// Reads an item of `routes:`. Returns `None` only after reporting a problem.
pub(crate) fn read_entry<'t>(reader: &mut Reader<'_>, node: &'t Node, path: &str) -> Option<(RouteEntry, Fields<'t>)> {
    let before = reader.problems.len();
    let fields = Fields::open(reader, node, path, &KEYS)?;
    if !fields.has("match") {
        reader.problem(&fields.at, fields.path("match"), "the route has no `match`; add a pattern of node names");
    }
    let entry = entry_of(reader, &fields);
    let well_typed = reader.problems.len() == before;
    well_typed.then_some((entry, fields))
}

/// Reads the fields of a route and reports each value of a wrong type.
pub(crate) fn entry_of(reader: &mut Reader<'_>, fields: &Fields<'_>) -> RouteEntry {
    RouteEntry {
        pattern: fields.string(reader, "match").unwrap_or_default(),
        weight: fields.int(reader, "weight", i64::MIN, i64::MAX),
        host: fields.string(reader, "host"),
        port: port(reader, fields, "port"),
        tls: fields.bool(reader, "tls"),
        tls_profile: fields.string(reader, "tls_profile"),
        insecure_skip_verify: fields.bool(reader, "insecure_skip_verify"),
        handshake: fields.string(reader, "handshake"),
        cookie_file: fields.string(reader, "cookie_file"),
        cookie_env: fields.string(reader, "cookie_env"),
        cookie_label: fields.string(reader, "cookie_label"),
        flags: flags(reader, fields),
        atom_mapping: atom_mapping(reader, fields),
        log_level: fields.level(reader, "log_level"),
        reconnect: fields.string(reader, "reconnect"),
        failback_ms: fields.int(reader, "failback_ms", 0, i64::MAX).and_then(|ms| u64::try_from(ms).ok()),
        keep_alive_ms: fields.int(reader, "keep_alive_ms", 0, i64::MAX).and_then(|ms| u64::try_from(ms).ok()),
        dead_after_ms: fields.int(reader, "dead_after_ms", 0, i64::MAX).and_then(|ms| u64::try_from(ms).ok()),
        fallback: fields.string(reader, "fallback"),
        resolver: fields.string(reader, "resolver"),
        overrides: match fields.has("override") {
            true => {
                fields.fields(reader, "override", &["host", "port", "tls", "handshake"]).map(|over| OverrideEntry {
                    host: over.string(reader, "host"),
                    port: port(reader, &over, "port"),
                    tls: over.bool(reader, "tls"),
                    handshake: over.string(reader, "handshake"),
                })
            }
            false => None,
        },
    }
}

/// Reads the flags under `flags` with their settings, and those under `require`. The names under `require` are checked
/// in [`RouteEntry::to_route`].
fn flags(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<FlagsEntry> {
    if !fields.has("flags") {
        return None;
    }
    let known: Vec<&str> = Flag::ALL.iter().map(|flag| flag.as_str()).chain(["require"]).collect();
    let inner = fields.fields(reader, "flags", &known)?;
    let set = Flag::ALL.iter().filter_map(|flag| Some((flag.as_str().to_owned(), inner.bool(reader, flag.as_str())?)));
    let set = set.collect();
    let items = if inner.has("require") { inner.list(reader, "require").unwrap_or_default() } else { &[] };
    let mut require = Vec::new();
    for item in items {
        match &item.value {
            Value::Text(text) => require.push(text.clone()),
            _ => reader.problem(
                &item.at,
                inner.path("require"),
                format!("expected a flag's name, found {}", item.kind()),
            ),
        }
    }
    Some(FlagsEntry { require, set })
}

/// Reads the names under `atom_mapping`. [`RouteEntry::to_route`] checks whether they form a valid mapping.
fn atom_mapping(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Map(entries) = &fields.get("atom_mapping")?.value else {
        return fields.wrong(reader, "atom_mapping", "a mapping of this node's names to the other's");
    };
    let mut names = BTreeMap::new();
    for (key, node) in entries {
        match &node.value {
            Value::Text(name) => _ = names.insert(key.text.clone(), name.clone()),
            _ => {
                let message = format!("expected a name, found {}; put it in quotes", node.kind());
                reader.problem(&node.at, join(&fields.path("atom_mapping"), &key.text), message);
            }
        }
    }
    Some(names)
}

/// Reads a port, including 0, which [`RouteEntry::to_route`] refuses with a better message.
fn port(reader: &mut Reader<'_>, fields: &Fields<'_>, key: &str) -> Option<u16> {
    fields.int(reader, key, 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok())
}
