//! Sources of the values of an attempt, for people.

use std::fmt;

use crate::{Defaults, EndpointOverride, NetworkRoute, NodeName, Source, TlsMode};

/// Source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ValueFrom {
    /// The route says so.
    Route,
    /// The route puts it over whatever the resolver answers.
    Override,
    /// The resolver says, once it is asked.
    Answer,
    /// The host in the name.
    Name,
    /// The node's default.
    Node,
}

impl fmt::Display for ValueFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Route => "route",
            Self::Override => "override",
            Self::Answer => "answer",
            Self::Name => "name",
            Self::Node => "node",
        })
    }
}

/// One value of an attempt. It shows no secret.
///
/// ```
/// use trunkline_route::{Cookie, Defaults, NetworkRoute, ValueFrom};
///
/// let route = NetworkRoute::to_port(4370)?.build();
/// let values = route.values(&"db@10.0.0.5".parse()?, &Defaults::new(Cookie::new("a shared secret")?));
/// assert_eq!((values[0].what, values[0].value.as_str()), ("address", "10.0.0.5:4370"));
/// assert_eq!(values[0].from, ValueFrom::Name);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteValue {
    /// Name of the value in a configuration.
    pub what: &'static str,
    /// The value, for people.
    pub value: String,
    /// Source of the value.
    pub from: ValueFrom,
}

impl NetworkRoute {
    /// Returns the values of an attempt over this route and their sources, as far as they are known without asking a resolver.
    pub fn values(&self, target: &NodeName, defaults: &Defaults) -> Vec<RouteValue> {
        let none = EndpointOverride::default();
        let (address, over) = match self.source() {
            Source::Direct { host: Some(host), port } => {
                (value("address", crate::Address { host: host.clone(), port: *port }, ValueFrom::Route), &none)
            }
            Source::Direct { host: None, port } => {
                (value("address", format_args!("{}:{port}", target.host()), ValueFrom::Name), &none)
            }
            Source::Resolve { resolver, overrides } => (asked(resolver, overrides), overrides),
        };
        self.values_with(address, over, matches!(self.source(), Source::Resolve { .. }), defaults)
    }

    /// The same at an address found elsewhere by this resolver, after the static routes failed.
    pub fn values_at(&self, resolver: &crate::ResolverId, defaults: &Defaults) -> Vec<RouteValue> {
        let over = match self.source() {
            Source::Resolve { overrides, .. } => EndpointOverride { host: None, port: None, ..overrides.clone() },
            Source::Direct { .. } => EndpointOverride::default(),
        };
        self.values_with(asked(resolver, &EndpointOverride::default()), &over, true, defaults)
    }

    fn values_with(
        &self,
        address: RouteValue,
        over: &EndpointOverride,
        answered: bool,
        defaults: &Defaults,
    ) -> Vec<RouteValue> {
        let route_or_node = |own: bool| if own { ValueFrom::Route } else { ValueFrom::Node };
        let mode = |on: bool| match (on, self.insecure_skip_verify(), self.tls_profile()) {
            (false, ..) => TlsMode::CookieOnly,
            (true, true, profile) => TlsMode::DangerousSkipVerify(profile.cloned()),
            (true, false, profile) => TlsMode::Verify(profile.cloned()),
        };
        // An answer may ask for certificate checks where nobody else says anything.
        let tls = match (over.tls, self.own_tls(), defaults.tls, answered) {
            (Some(on), ..) => value("tls", mode(on), ValueFrom::Override),
            (None, Some(on), ..) => value("tls", mode(on), ValueFrom::Route),
            (None, None, false, true) => {
                value("tls", format_args!("{}, or {}", mode(false), mode(true)), ValueFrom::Answer)
            }
            (None, None, on, _) => value("tls", mode(on), ValueFrom::Node),
        };
        let handshake = match (&over.version, self.version()) {
            (Some(version), _) => value("handshake", version, ValueFrom::Override),
            (None, Some(version)) => value("handshake", version, ValueFrom::Route),
            (None, None) if answered => {
                value("handshake", format_args!("{}, or what it says", defaults.version), ValueFrom::Answer)
            }
            (None, None) => value("handshake", &defaults.version, ValueFrom::Node),
        };
        let (own, policy) = (self.cookie().is_some(), self.link_policy(defaults));
        let mut flags = policy.flags.offered.to_string();
        if !policy.flags.required.is_empty() {
            flags += &format!("; required: {}", policy.flags.required);
        }
        let reconnect = self.reconnect().unwrap_or(defaults.reconnect);
        let mut values = vec![
            address,
            tls,
            handshake,
            value("cookie", if own { "its own" } else { "the node's" }, route_or_node(own)),
            value("flags", flags, route_or_node(self.flags().mentioned().next().is_some())),
            value("log_level", policy.log_level, route_or_node(self.log_level().is_some())),
            value("reconnect", reconnect, route_or_node(self.reconnect().is_some())),
        ];
        values.extend(self.atom_mapping().map(|mapping| {
            let pairs: Vec<_> = mapping.iter().map(|(local, peer)| format!("{local} → {peer}")).collect();
            value("atom_mapping", pairs.join(", "), ValueFrom::Route)
        }));
        let times = [("keep_alive", self.keep_alive()), ("dead_after", self.dead_after())];
        let times = times.into_iter().filter_map(|(what, time)| Some((what, time?)));
        values.extend(times.map(|(what, time)| value(what, format_args!("{time:?}"), ValueFrom::Route)));
        values.extend(self.failback().map(|hold| value("failback", format_args!("{hold:?}"), ValueFrom::Route)));
        values
    }
}

fn value(what: &'static str, value: impl fmt::Display, from: ValueFrom) -> RouteValue {
    RouteValue { what, value: value.to_string(), from }
}

fn asked(resolver: &crate::ResolverId, over: &EndpointOverride) -> RouteValue {
    let (host, port) = (over.host.as_ref(), over.port);
    match (host, port) {
        (Some(host), Some(port)) => value("address", crate::Address { host: host.clone(), port }, ValueFrom::Override),
        (Some(host), None) => value("address", format_args!("{host} at the port {resolver} says"), ValueFrom::Answer),
        (None, Some(port)) => value("address", format_args!("where {resolver} says, port {port}"), ValueFrom::Answer),
        (None, None) => value("address", format_args!("where {resolver} says"), ValueFrom::Answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cookie, Endpoint, Flag, Host, LogLevel, Reconnect, ResolverId, Version};
    use proptest::prelude::*;
    use std::time::Duration;

    fn shown(values: &[RouteValue], what: &str) -> (String, ValueFrom) {
        let found = values.iter().find(|value| value.what == what).unwrap();
        (found.value.clone(), found.from)
    }

    proptest! {
        #[test]
        fn what_is_said_of_an_attempt_is_what_it_has(
            direct: bool, own_host: bool, tls: Option<bool>, over_tls: Option<bool>, node_tls: bool, skip: bool,
            version: Option<bool>, own_cookie: bool, flag: Option<bool>, level: Option<bool>,
        ) {
            let mut defaults = Defaults::new(Cookie::new("cookie-node").unwrap());
            defaults.tls = node_tls;
            let resolver = ResolverId::new("r").unwrap();
            macro_rules! with {
                ($builder:expr) => {{
                    let mut builder = $builder.insecure_skip_verify(skip);
                    if let Some(on) = tls { builder = builder.tls(on); }
                    if version == Some(true) { builder = builder.version(Version::native(7)); }
                    if own_cookie { builder = builder.cookie(Cookie::new("cookie-own").unwrap()); }
                    if let Some(on) = flag { builder = builder.flag(Flag::Priorities, on); }
                    if level == Some(true) { builder = builder.log_level(LogLevel::Trace); }
                    builder.build()
                }};
            }
            let route = if direct {
                let at = if own_host { NetworkRoute::direct("10.0.0.1", 1) } else { NetworkRoute::to_port(1) };
                with!(at.unwrap())
            } else {
                let over = EndpointOverride { host: Some(Host::new("h").unwrap()), port: Some(9.try_into().unwrap()), tls: over_tls, version: None };
                with!(NetworkRoute::resolved_by(resolver).overriding(over))
            };
            let name: NodeName = "db@example.com".parse().unwrap();
            // An answer that says nothing: what is left open then is the node's.
            let answer = Endpoint::at("10.9.9.9:999".parse().unwrap());
            let attempt = route.attempt(&name, Some(&answer), &defaults).unwrap();
            let values = route.values(&name, &defaults);
            prop_assert_eq!(shown(&values, "address").0, attempt.address.to_string());
            prop_assert!(shown(&values, "tls").0.starts_with(&attempt.tls.to_string()));
            prop_assert!(shown(&values, "handshake").0.starts_with(&attempt.version.to_string()));
            prop_assert_eq!(shown(&values, "cookie").1 == ValueFrom::Route, attempt.cookie != defaults.cookie);
            prop_assert_eq!(shown(&values, "flags").0, attempt.policy.flags.offered.to_string());
            prop_assert_eq!(shown(&values, "log_level").0, attempt.policy.log_level.to_string());
            let route_says = [("flags", flag.is_some()), ("log_level", level == Some(true)), ("handshake", version == Some(true))];
            for (what, says) in route_says {
                prop_assert_eq!(shown(&values, what).1 == ValueFrom::Route, says, "{}", what);
            }
        }
    }

    #[test]
    fn a_discovered_address_has_the_routes_demands_and_says_who_is_asked() {
        let route = NetworkRoute::direct("10.0.0.1", 1).unwrap().tls(true).reconnect(Reconnect::Keep);
        let route = route.failback(Duration::from_secs(30)).build();
        let defaults = Defaults::new(Cookie::new("cookie-node").unwrap());
        let values = route.values_at(&ResolverId::new("reg").unwrap(), &defaults);
        assert_eq!(shown(&values, "address"), ("where reg says".into(), ValueFrom::Answer));
        assert_eq!(shown(&values, "tls"), ("verify".into(), ValueFrom::Route));
        assert_eq!(shown(&values, "reconnect"), ("keep".into(), ValueFrom::Route));
        assert_eq!(shown(&values, "failback"), ("30s".into(), ValueFrom::Route));
    }
}
