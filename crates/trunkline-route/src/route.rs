use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Address, AtomMapping, Cookie, Endpoint, EndpointError, EndpointOverride, Flag, FlagPolicy, Host, LinkPolicy,
    LogLevel, NodeName, PeerFlags, Reconnect, ResolverId, TlsProfileId, UnknownWord, Version,
};

/// The weight of a route that names none. Higher is tried earlier.
pub const DEFAULT_WEIGHT: i64 = 100;

/// Source of the address of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A fixed place. A host of `None` is the part of the dialled name after the `@`.
    Direct {
        /// The host, or `None` for the name's own.
        host: Option<Host>,
        /// The port.
        port: NonZeroU16,
    },
    /// Ask this resolver; each answer becomes one attempt, with the overrides put over it.
    Resolve {
        /// Resolver that is asked.
        resolver: ResolverId,
        /// Fields that are put over each answer.
        overrides: EndpointOverride,
    },
}

/// Condition for going on with a lookup after the static routes. The default is [`Fallback::OnFailure`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Never: the static routes are the whole answer.
    Never,
    /// Only for names that no static route matches.
    OnMiss,
    /// Also when every matching static route failed.
    #[default]
    OnFailure,
}

impl FromStr for Fallback {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "never" => Ok(Self::Never),
            "on_miss" => Ok(Self::OnMiss),
            "on_failure" => Ok(Self::OnFailure),
            other => Err(UnknownWord::new(other, "a fallback", "never, on_miss or on_failure")),
        }
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::OnMiss => "on_miss",
            Self::OnFailure => "on_failure",
        })
    }
}

/// Treatment of the peer's certificate. The bytes are encrypted in every mode and the cookie is always proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsMode {
    /// `tls: false`: any certificate; the cookie alone proves the peer.
    CookieOnly,
    /// `tls: true`: the certificate must verify under the profile (`None`: the platform's roots).
    Verify(Option<TlsProfileId>),
    /// `tls: true` with `insecure_skip_verify`: the profile's own certificate is shown, the peer's is not verified.
    DangerousSkipVerify(Option<TlsProfileId>),
}

impl TlsMode {
    /// The profile named, if any.
    pub fn profile(&self) -> Option<&TlsProfileId> {
        match self {
            Self::CookieOnly => None,
            Self::Verify(profile) | Self::DangerousSkipVerify(profile) => profile.as_ref(),
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CookieOnly => f.write_str("cookie"),
            Self::Verify(None) => f.write_str("verify"),
            Self::Verify(Some(profile)) => write!(f, "verify({profile})"),
            Self::DangerousSkipVerify(_) => f.write_str("skip-verify"),
        }
    }
}

/// Settings of an attempt where neither the route nor the answer says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The node's cookie.
    pub cookie: Cookie,
    /// True if certificates are verified. Default `false`.
    pub tls: bool,
    /// The handshake version. Default: `TLK/1`.
    pub version: Version,
    /// The flags offered. Default: all.
    pub flags: PeerFlags,
    /// Amount of log lines about a connection. Default: [`LogLevel::Info`].
    pub log_level: LogLevel,
    /// Treatment of a connection that went down. Default: [`Reconnect::OnDemand`].
    pub reconnect: Reconnect,
}

impl Defaults {
    /// Defaults with this cookie, no certificate checks, `TLK/1`, every flag and the level `info`.
    pub fn new(cookie: Cookie) -> Self {
        let (version, flags, log_level) = (Version::native(1), PeerFlags::ALL, LogLevel::default());
        Self { cookie, tls: false, version, flags, log_level, reconnect: Reconnect::default() }
    }

    /// Returns the policy of a connection to a name that no route matches.
    pub fn link_policy(&self) -> LinkPolicy {
        LinkPolicy { flags: self.flags.into(), log_level: self.log_level, ..LinkPolicy::default() }
    }
}

/// Way to reach the names that match a pattern.
///
/// Made by [`NetworkRoute::direct`], [`NetworkRoute::to_port`] or [`NetworkRoute::resolved_by`]. The weight is
/// not part of it: it belongs to the place in the table.
///
/// ```
/// use trunkline_route::{EndpointOverride, Host, NetworkRoute, Reconnect, ResolverId};
///
/// let direct = NetworkRoute::direct("10.0.1.50", 4370)?.tls(true).reconnect(Reconnect::Keep).build();
/// assert_eq!((direct.tls(), direct.reconnect()), (Some(true), Some(Reconnect::Keep)));
///
/// let host = Some(Host::new("gateway.example.com")?);
/// let resolved = NetworkRoute::resolved_by(ResolverId::new("production")?)
///     .overriding(EndpointOverride { host, ..EndpointOverride::default() })
///     .build();
/// assert_ne!(direct, resolved);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRoute {
    source: Source,
    policy: RoutePolicy,
}

/// Demands of a route, whatever address it is reached at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct RoutePolicy {
    tls: Option<bool>,
    tls_profile: Option<TlsProfileId>,
    insecure_skip_verify: bool,
    version: Option<Version>,
    cookie: Option<Cookie>,
    fallback_never: bool,
    flags: FlagPolicy,
    log_level: Option<LogLevel>,
    reconnect: Option<Reconnect>,
    failback: Option<Duration>,
    keep_alive: Option<Duration>,
    dead_after: Option<Duration>,
    mapping: Option<Arc<AtomMapping>>,
}

impl NetworkRoute {
    /// A route to a fixed host and port.
    ///
    /// # Errors
    /// [`EndpointError`] when the host is malformed or the port is 0.
    pub fn direct(host: impl AsRef<str>, port: u16) -> Result<NetworkRouteBuilder<Direct>, EndpointError> {
        let address = Address::new(host, port)?;
        Ok(NetworkRouteBuilder::new(Source::Direct { host: Some(address.host), port: address.port }))
    }

    /// A route to a fixed port of the host that each dialled name carries after its `@`.
    ///
    /// # Errors
    /// [`EndpointError::Port`] when the port is 0.
    pub fn to_port(port: u16) -> Result<NetworkRouteBuilder<Direct>, EndpointError> {
        let port = NonZeroU16::new(port).ok_or(EndpointError::Port)?;
        Ok(NetworkRouteBuilder::new(Source::Direct { host: None, port }))
    }

    /// The same route with this cookie.
    #[must_use]
    pub fn with_cookie(mut self, cookie: Cookie) -> Self {
        self.policy.cookie = Some(cookie);
        self
    }

    /// A route whose addresses come from a resolver.
    pub fn resolved_by(resolver: ResolverId) -> NetworkRouteBuilder<Resolved> {
        NetworkRouteBuilder::new(Source::Resolve { resolver, overrides: EndpointOverride::default() })
    }

    /// Returns the source of the address.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The cookie that replaces the node's, if the route has one.
    pub fn cookie(&self) -> Option<&Cookie> {
        self.policy.cookie.as_ref()
    }

    /// Returns `Some` if the route forces certificate checks on or off; `None` leaves it to the answer and the node.
    pub fn tls(&self) -> Option<bool> {
        match &self.source {
            Source::Resolve { overrides, .. } => overrides.tls.or(self.policy.tls),
            Source::Direct { .. } => self.policy.tls,
        }
    }

    /// Returns the setting of the route itself, without its overrides.
    pub(crate) fn own_tls(&self) -> Option<bool> {
        self.policy.tls
    }

    /// The TLS profile it names.
    pub fn tls_profile(&self) -> Option<&TlsProfileId> {
        self.policy.tls_profile.as_ref()
    }

    /// Returns true if the peer's certificate is not verified although TLS is on.
    pub fn insecure_skip_verify(&self) -> bool {
        self.policy.insecure_skip_verify
    }

    /// The handshake version it demands.
    pub fn version(&self) -> Option<&Version> {
        self.policy.version.as_ref()
    }

    /// Returns the statements of the route about flags.
    pub fn flags(&self) -> FlagPolicy {
        self.policy.flags
    }

    /// Returns the log level of its connections; `None` leaves it to the node.
    pub fn log_level(&self) -> Option<LogLevel> {
        self.policy.log_level
    }

    /// Returns the treatment of its connections when they go down; `None` leaves it to the node.
    pub fn reconnect(&self) -> Option<Reconnect> {
        self.policy.reconnect
    }

    /// For how long the route must have answered every probe before a connection that runs over a worse one goes
    /// back to it; `None`: it never does.
    pub fn failback(&self) -> Option<Duration> {
        self.policy.failback
    }

    /// Silence on its connections after which the peer is sent a ping; `None` leaves it to the node.
    pub fn keep_alive(&self) -> Option<Duration> {
        self.policy.keep_alive
    }

    /// Silence after which its connections are given up; `None` leaves it to the node.
    pub fn dead_after(&self) -> Option<Duration> {
        self.policy.dead_after
    }

    /// Returns the names that are replaced on its connections.
    pub fn atom_mapping(&self) -> Option<&AtomMapping> {
        self.policy.mapping.as_deref()
    }

    /// Returns the policy of its connections, whoever dials. The caller adds the pattern.
    pub fn link_policy(&self, defaults: &Defaults) -> LinkPolicy {
        self.policy.link_policy(defaults)
    }

    /// Returns true if a lookup of its names ends with the static routes.
    pub fn fallback_never(&self) -> bool {
        self.policy.fallback_never
    }

    /// The one merge: this route's own fields over a resolver's answer over the node's defaults.
    ///
    /// A direct route needs no answer and ignores one. A resolver route without an answer gives `None`, as does
    /// a direct route without a host when the name's host part is none.
    ///
    /// ```
    /// use trunkline_route::{Address, Cookie, Defaults, Endpoint, NetworkRoute, ResolverId, TlsMode};
    ///
    /// let route = NetworkRoute::resolved_by(ResolverId::new("production")?).tls(true).build();
    /// let defaults = Defaults::new(Cookie::new("a shared secret")?);
    /// let name = "db@example.com".parse()?;
    /// assert_eq!(route.attempt(&name, None, &defaults), None);
    ///
    /// let answer = Endpoint::at(Address::new("10.1.2.3", 4370)?);
    /// let attempt = route.attempt(&name, Some(&answer), &defaults).expect("there is an answer");
    /// assert_eq!((attempt.address, attempt.tls), (answer.address, TlsMode::Verify(None)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attempt(&self, target: &NodeName, answer: Option<&Endpoint>, defaults: &Defaults) -> Option<Attempt> {
        let none = EndpointOverride::default();
        let (endpoint, overrides) = match &self.source {
            Source::Direct { host, port } => {
                let host = match host {
                    Some(host) => host.clone(),
                    None => Host::new(target.host()).ok()?,
                };
                (Endpoint::at(Address { host, port: *port }), &none)
            }
            Source::Resolve { overrides, .. } => (answer?.clone(), overrides),
        };
        Some(self.policy.merge(target, endpoint, overrides, defaults))
    }

    /// The attempt at an address found elsewhere (discovery after this route failed): only the address and what
    /// the listener is known to speak come from the answer, every demand stays this route's.
    pub fn attempt_at(&self, target: &NodeName, answer: &Endpoint, defaults: &Defaults) -> Attempt {
        let overrides = match &self.source {
            Source::Resolve { overrides, .. } => {
                EndpointOverride { host: None, port: None, tls: overrides.tls, version: overrides.version.clone() }
            }
            Source::Direct { .. } => EndpointOverride::default(),
        };
        self.policy.merge(target, answer.clone(), &overrides, defaults)
    }

    /// Returns the demands of this route on a link, whatever its address: the cookie and the treatment of certificates.
    pub fn demands(&self, defaults: &Defaults) -> (Cookie, TlsMode) {
        let tls = self.tls().unwrap_or(defaults.tls);
        (self.policy.cookie.clone().unwrap_or_else(|| defaults.cookie.clone()), self.policy.tls_mode(tls))
    }
}

impl RoutePolicy {
    fn tls_mode(&self, tls: bool) -> TlsMode {
        match (tls, self.insecure_skip_verify) {
            (false, _) => TlsMode::CookieOnly,
            (true, false) => TlsMode::Verify(self.tls_profile.clone()),
            (true, true) => TlsMode::DangerousSkipVerify(self.tls_profile.clone()),
        }
    }

    fn merge(&self, target: &NodeName, answer: Endpoint, over: &EndpointOverride, defaults: &Defaults) -> Attempt {
        // An answer may ask for more than the node does, never for less: anybody with the cookie can announce.
        let tls = over.tls.or(self.tls).unwrap_or(defaults.tls || answer.tls == Some(true));
        Attempt {
            target: target.clone(),
            via: None,
            address: Address {
                host: over.host.clone().unwrap_or(answer.address.host),
                port: over.port.unwrap_or(answer.address.port),
            },
            tls: self.tls_mode(tls),
            version: over
                .version
                .clone()
                .or_else(|| self.version.clone())
                .or(answer.version)
                .unwrap_or_else(|| defaults.version.clone()),
            cookie: self.cookie.clone().unwrap_or_else(|| defaults.cookie.clone()),
            policy: self.link_policy(defaults),
        }
    }

    fn link_policy(&self, defaults: &Defaults) -> LinkPolicy {
        LinkPolicy {
            flags: self.flags.terms(defaults.flags),
            log_level: self.log_level.unwrap_or(defaults.log_level),
            mapping: self.mapping.clone(),
            keep_alive: self.keep_alive,
            dead_after: self.dead_after,
            ..LinkPolicy::default()
        }
    }
}

/// Marks the builder of a route with a fixed address.
#[derive(Debug, Clone, Copy)]
pub struct Direct(());

/// Marks the builder of a route that asks a resolver; only such a route has overrides.
#[derive(Debug, Clone, Copy)]
pub struct Resolved(());

/// Builds a [`NetworkRoute`]; see [`NetworkRoute::direct`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build()"]
pub struct NetworkRouteBuilder<S> {
    route: NetworkRoute,
    source: PhantomData<S>,
}

impl<S> NetworkRouteBuilder<S> {
    fn new(source: Source) -> Self {
        Self { route: NetworkRoute { source, policy: RoutePolicy::default() }, source: PhantomData }
    }

    /// Verify the peer's certificate (`true`), or let the cookie alone prove it (`false`). Default: the node's.
    pub fn tls(mut self, on: bool) -> Self {
        self.route.policy.tls = Some(on);
        self
    }

    /// Use this TLS profile's roots, certificate and server name.
    pub fn tls_profile(mut self, profile: TlsProfileId) -> Self {
        self.route.policy.tls_profile = Some(profile);
        self
    }

    /// With TLS on, do not verify the peer's certificate. The cookie is still proven.
    pub fn insecure_skip_verify(mut self, skip: bool) -> Self {
        self.route.policy.insecure_skip_verify = skip;
        self
    }

    /// Prove and demand this cookie instead of the node's.
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.route.policy.cookie = Some(cookie);
        self
    }

    /// Demand this handshake version instead of the node's.
    pub fn version(mut self, version: Version) -> Self {
        self.route.policy.version = Some(version);
        self
    }

    /// Offer this flag over the connection, or do not. Default: as the node does.
    pub fn flag(mut self, flag: Flag, on: bool) -> Self {
        self.route.policy.flags = self.route.policy.flags.set(flag, on);
        self
    }

    /// Offer this flag, and have no connection to a peer that does not.
    pub fn require(mut self, flag: Flag) -> Self {
        self.route.policy.flags = self.route.policy.flags.require(flag);
        self
    }

    /// Sets the treatment of its connections when they go down. Default: as the node has it.
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.route.policy.reconnect = Some(policy);
        self
    }

    /// Take a connection that runs over a worse route back, once this one has answered every probe for so long; at
    /// least 100 ms, for each hold time takes four handshakes. Default: a connection stays where it is until it goes down.
    pub fn failback(mut self, hold: Duration) -> Self {
        self.route.policy.failback = Some(hold.max(Duration::from_millis(100)));
        self
    }

    /// Sends the peer a ping after this silence, 100 ms at least; at most a third of the time after which either end gives the
    /// connection up. Default: as the node has it.
    pub fn keep_alive(mut self, silence: Duration) -> Self {
        self.route.policy.keep_alive = Some(silence.max(Duration::from_millis(100)));
        self
    }

    /// Gives its connections up after this silence, 1 s at least. Default: as the node has it.
    pub fn dead_after(mut self, silence: Duration) -> Self {
        self.route.policy.dead_after = Some(silence.max(Duration::from_secs(1)));
        self
    }

    /// Call names something else on its connections: those of services and senders, and atoms in terms, at any depth.
    pub fn atom_mapping(mut self, mapping: AtomMapping) -> Self {
        self.route.policy.mapping = (!mapping.is_empty()).then(|| Arc::new(mapping));
        self
    }

    /// Say this much about its connections. Default: as much as about the node's others.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.route.policy.log_level = Some(level);
        self
    }

    /// Make the static routes the whole answer for the names this route matches.
    pub fn fallback_never(mut self) -> Self {
        self.route.policy.fallback_never = true;
        self
    }

    /// The route.
    pub fn build(self) -> NetworkRoute {
        self.route
    }
}

impl NetworkRouteBuilder<Resolved> {
    /// Put these fields over every answer.
    pub fn overriding(mut self, over: EndpointOverride) -> Self {
        if let Source::Resolve { overrides, .. } = &mut self.route.source {
            *overrides = over;
        }
        self
    }
}

impl<S> From<NetworkRouteBuilder<S>> for NetworkRoute {
    fn from(builder: NetworkRouteBuilder<S>) -> Self {
        builder.build()
    }
}

/// One concrete try: whom to reach, where, and under which demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The name the peer must prove.
    pub target: NodeName,
    /// Address to dial. Through a gateway, nobody dials it; it says how the target would be named.
    pub address: Address,
    /// The gateway it goes through.
    pub via: Option<NodeName>,
    /// Treatment of the peer's certificate.
    pub tls: TlsMode,
    /// The handshake version to speak.
    pub version: Version,
    /// The cookie both ends must hold.
    pub cookie: Cookie,
    /// Policy of the connection.
    pub policy: LinkPolicy,
}

/// Origin of an attempt: carried by every record of a lookup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A static route, by its pattern.
    Static {
        /// The pattern's text.
        pattern: Arc<str>,
    },
    /// An answer to a static route that asks a resolver.
    StaticResolved {
        /// The pattern's text.
        pattern: Arc<str>,
        /// Resolver that answered.
        resolver: ResolverId,
    },
    /// Discovery.
    Discovered {
        /// Resolver that answered.
        resolver: ResolverId,
    },
    /// A proxy route, through a gateway.
    Proxied {
        /// The pattern's text.
        pattern: Arc<str>,
        /// The gateway.
        gateway: NodeName,
    },
    /// A gateway that discovery knows.
    DiscoveredProxy {
        /// Resolver that answered.
        resolver: ResolverId,
        /// The gateway; `None` while it is not known.
        gateway: Option<NodeName>,
    },
    /// A route given with the call.
    Given,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static { pattern } => write!(f, "route {pattern}"),
            Self::StaticResolved { pattern, resolver } => write!(f, "route {pattern} by {resolver}"),
            Self::Discovered { resolver } => write!(f, "discovery by {resolver}"),
            Self::Proxied { pattern, gateway } => write!(f, "proxy route {pattern} through {gateway}"),
            Self::DiscoveredProxy { resolver, gateway: None } => write!(f, "gateways known to {resolver}"),
            Self::DiscoveredProxy { resolver, gateway: Some(gateway) } => {
                write!(f, "discovery by {resolver} through {gateway}")
            }
            Self::Given => f.write_str("the given route"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cookie(text: &str) -> Cookie {
        Cookie::new(format!("cookie-{text}")).unwrap()
    }

    fn defaults() -> Defaults {
        Defaults::new(cookie("node"))
    }

    fn name() -> NodeName {
        "prod-db@example.com".parse().unwrap()
    }

    fn answer(tls: Option<bool>) -> Endpoint {
        Endpoint { address: Address::new("10.9.9.9", 999).unwrap(), tls, version: None }
    }

    #[test]
    fn a_direct_route_is_used_as_given() {
        let attempt =
            NetworkRoute::direct("10.0.1.50", 4370).unwrap().tls(true).build().attempt(&name(), None, &defaults());
        let attempt = attempt.unwrap();
        assert_eq!(attempt.address.to_string(), "10.0.1.50:4370");
        assert_eq!(attempt.tls, TlsMode::Verify(None));
        assert_eq!(attempt.cookie, cookie("node"));
        assert_eq!(attempt.version, Version::native(1));
    }

    #[test]
    fn a_route_without_a_host_dials_the_host_of_the_name() {
        let attempt = NetworkRoute::to_port(4370).unwrap().build().attempt(&name(), None, &defaults()).unwrap();
        assert_eq!(attempt.address.to_string(), "example.com:4370");
    }

    #[test]
    fn overrides_replace_the_answer_field_by_field() {
        let over = EndpointOverride {
            host: Some(Host::new("gateway.example.com").unwrap()),
            tls: Some(true),
            ..EndpointOverride::default()
        };
        let route = NetworkRoute::resolved_by(ResolverId::new("production").unwrap())
            .overriding(over)
            .cookie(cookie("route"))
            .build();
        let attempt = route.attempt(&name(), Some(&answer(Some(false))), &defaults()).unwrap();
        assert_eq!(attempt.address.to_string(), "gateway.example.com:999");
        assert_eq!(attempt.tls, TlsMode::Verify(None));
        assert_eq!(attempt.cookie, cookie("route"));
        assert!(route.attempt(&name(), None, &defaults()).is_none());
    }

    #[test]
    fn a_discovered_address_keeps_the_demands_of_the_route() {
        let route = NetworkRoute::direct("10.0.1.50", 4370).unwrap().tls(true).cookie(cookie("route")).build();
        let attempt = route.attempt_at(&name(), &answer(Some(false)), &defaults());
        assert_eq!(attempt.address.to_string(), "10.9.9.9:999");
        assert_eq!(attempt.tls, TlsMode::Verify(None));
        assert_eq!(attempt.cookie, cookie("route"));
    }

    proptest! {
        #[test]
        fn p37_tls_required_by_a_route_is_never_turned_off(answered in any::<Option<bool>>(), node in any::<bool>()) {
            let over = EndpointOverride { tls: Some(true), ..EndpointOverride::default() };
            let id = ResolverId::new("r").unwrap();
            let mut defaults = defaults();
            defaults.tls = node;
            for route in [
                NetworkRoute::resolved_by(id.clone()).overriding(over).build(),
                NetworkRoute::resolved_by(id).tls(true).build(),
            ] {
                let attempt = route.attempt(&name(), Some(&answer(answered)), &defaults).unwrap();
                prop_assert_eq!(attempt.tls, TlsMode::Verify(None));
                prop_assert_eq!(route.attempt_at(&name(), &answer(answered), &defaults).tls, TlsMode::Verify(None));
            }
        }

        #[test]
        fn an_answer_never_turns_off_what_the_node_demands(answered in any::<Option<bool>>()) {
            let mut defaults = defaults();
            defaults.tls = true;
            let route = NetworkRoute::resolved_by(ResolverId::new("r").unwrap()).build();
            let attempt = route.attempt(&name(), Some(&answer(answered)), &defaults).unwrap();
            prop_assert_eq!(attempt.tls, TlsMode::Verify(None));
        }
    }
}
