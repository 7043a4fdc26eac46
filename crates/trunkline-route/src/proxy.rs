//! Routes that go through another node.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use crate::{Attempt, Cookie, Defaults, NetworkRoute, NodeName, UnknownWord};

/// Gateways a route may go through where it does not say.
pub const DEFAULT_MAX_HOP: NonZeroU8 = NonZeroU8::new(8).expect("8 is not 0");

/// Use of direct ways to the names that a proxy route matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DirectUse {
    /// Direct ways come first.
    #[default]
    First,
    /// Only by way of others; a live direct connection will not do.
    Never,
    /// Only directly: no proxy route is tried.
    Only,
}

impl DirectUse {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::First, Self::Never, Self::Only];
}

impl fmt::Display for DirectUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Never => "never",
            Self::Only => "only",
        })
    }
}

impl FromStr for DirectUse {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|direct| direct.to_string() == text);
        found.ok_or_else(|| UnknownWord::new(text, "a use of direct routes", "first, never or only"))
    }
}

/// A way to a node through a gateway, which sees only ciphertext.
///
/// ```
/// use trunkline_route::{DirectUse, NodeName, ProxyRoute};
///
/// let gateway: NodeName = "gateway@dmz".parse()?;
/// let route = ProxyRoute::via(gateway.clone()).direct(DirectUse::Never);
/// assert!(route.leads_to(&"db@internal".parse()?));
/// assert!(!route.leads_to(&gateway));
/// # Ok::<(), trunkline_route::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRoute {
    gateway: NodeName,
    to: Option<NodeName>,
    max_hop: NonZeroU8,
    direct: DirectUse,
    cookie: Option<Cookie>,
    target: NetworkRoute,
}

impl ProxyRoute {
    /// Through this gateway, with what the node has for everything else.
    pub fn via(gateway: NodeName) -> Self {
        Self {
            gateway,
            to: None,
            max_hop: DEFAULT_MAX_HOP,
            direct: DirectUse::First,
            cookie: None,
            target: NetworkRoute::to_port(1).expect("1 is a port").build(),
        }
    }

    /// Only for this name.
    #[must_use]
    pub fn to(mut self, name: NodeName) -> Self {
        self.to = Some(name);
        self
    }

    /// Through at most so many gateways, this one included. Default 8.
    #[must_use]
    pub fn max_hop(mut self, most: NonZeroU8) -> Self {
        self.max_hop = most;
        self
    }

    /// Sets the use of direct ways. Default: first.
    #[must_use]
    pub fn direct(mut self, direct: DirectUse) -> Self {
        self.direct = direct;
        self
    }

    /// Sets the cookie that proves this node to the gateway. Default: that of the routes to it.
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.cookie = Some(cookie);
        self
    }

    /// Sets the route to the final node: cookie, certificates, flags, mapping, log level. Its address is not
    /// used. Default: what the node has.
    #[must_use]
    pub fn target(mut self, route: impl Into<NetworkRoute>) -> Self {
        self.target = route.into();
        self
    }

    /// The gateway.
    pub fn gateway(&self) -> &NodeName {
        &self.gateway
    }

    /// The one name it is for, if it is for one.
    pub fn only_to(&self) -> Option<&NodeName> {
        self.to.as_ref()
    }

    /// The gateways it may go through.
    pub fn most_hops(&self) -> NonZeroU8 {
        self.max_hop
    }

    /// Returns the use of direct ways.
    pub fn direct_use(&self) -> DirectUse {
        self.direct
    }

    /// Returns the cookie that proves this node to the gateway, if the route names one.
    pub fn gateway_cookie(&self) -> Option<&Cookie> {
        self.cookie.as_ref()
    }

    /// Returns the route to the final node.
    pub fn target_route(&self) -> &NetworkRoute {
        &self.target
    }

    /// Returns true if the route can lead to this name.
    pub fn leads_to(&self, name: &NodeName) -> bool {
        self.to.as_ref().is_none_or(|to| to == name) && *name != self.gateway
    }

    /// Returns the attempt to prove the final node. Its address says how the node would be named; nobody dials it.
    /// `None` when the name's host part is no host.
    pub fn attempt(&self, name: &NodeName, defaults: &Defaults) -> Option<Attempt> {
        let attempt = self.target.attempt(name, None, defaults)?;
        Some(Attempt { via: Some(self.gateway.clone()), ..attempt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_leads_to_the_name_it_says_and_never_to_its_own_gateway() {
        let [gateway, db, web]: [NodeName; 3] = ["gw@dmz", "db@lab", "web@lab"].map(|name| name.parse().unwrap());
        let any = ProxyRoute::via(gateway.clone());
        assert!(any.leads_to(&db) && any.leads_to(&web) && !any.leads_to(&gateway));
        let one = any.to(db.clone());
        assert!(one.leads_to(&db) && !one.leads_to(&web));
        for direct in DirectUse::ALL {
            assert_eq!(direct.to_string().parse::<DirectUse>(), Ok(direct));
        }
        assert_eq!("last".parse::<DirectUse>().unwrap_err().given(), "last");
    }
}
