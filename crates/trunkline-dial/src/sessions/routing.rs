//! The demands of routes and callers, and the decision whether a link meets them.

use std::time::Duration;

use trunkline_route::{
    Cookie, Defaults, DirectUse, LinkId, LinkPolicy, NetworkRoute, NodeName, Reconnect, ResolverId, Role, TlsMode,
};

use super::{Aim, Keys};
use crate::memory::Memory;
use crate::plan::{Lookup, Policy, given};
use crate::{Candidate, ProxyCandidate, RouteTable, keep};

/// A request for a connection to a name. The default has no demands beside those of the routes.
#[derive(Debug, Clone, Default)]
pub struct ConnectRequest {
    /// The only route that may be used, given by the caller.
    pub given: Option<NetworkRoute>,
    /// The only static route that may be used.
    pub only: Option<Candidate>,
    /// A link that will not do.
    pub not: Option<LinkId>,
    /// Remembered failures are ignored.
    pub afresh: bool,
    /// Routes through other nodes are excluded.
    pub directly: bool,
    /// The cookie to prove, in place of those of the routes.
    pub cookie: Option<Cookie>,
    /// The name whose dial waits for this one. No gateways that discovery knows are asked for such a dial.
    pub awaited_by: Option<NodeName>,
    /// The timeout, if it is to be shorter than the policy's.
    pub timeout: Option<Duration>,
}

impl ConnectRequest {
    /// Returns true if any link that the routes of the name allow satisfies.
    pub fn is_of_routes_alone(&self) -> bool {
        let Self { given, only, not, directly, cookie, afresh: _, awaited_by: _, timeout: _ } = self;
        given.is_none() && only.is_none() && not.is_none() && !directly && cookie.is_none()
    }

    /// Returns true if the dial may lead away from the node that the live link leads to.
    pub fn leaves(&self) -> bool {
        self.only.is_some() || self.not.is_some()
    }

    /// Returns the aim of a dial for this request with this timeout.
    pub fn aim(&self, timeout: Duration) -> Aim {
        let route = self.given.clone().or(self.only.as_ref().map(|candidate| candidate.route.clone()));
        Aim {
            route,
            directly: self.directly,
            cookie: self.cookie.clone(),
            timeout,
            awaited_by: self.awaited_by.clone(),
        }
    }
}

/// The properties of a link that routes make demands on.
#[derive(Debug, Clone, Copy)]
pub struct LinkFacts<'l> {
    /// The id of the link.
    pub id: LinkId,
    /// The end of the link that this node is.
    pub role: Role,
    /// The cookie that both ends proved.
    pub cookie: &'l Cookie,
    /// The link goes through other nodes.
    pub is_relayed: bool,
    /// The pattern of the route whose policy the link has.
    pub route: Option<&'l str>,
    /// The resolver that gave the address the link was dialled at.
    pub resolver: Option<&'l ResolverId>,
    /// The way this end verified the peer, on this link or on one that it replaced.
    pub tls: &'l TlsMode,
}

/// The ways that a request leaves open.
struct Ways {
    /// The proxy routes.
    proxies: Vec<ProxyCandidate>,
    /// Direct ways are allowed.
    directly: bool,
    /// Gateways that discovery knows are allowed.
    discovered: bool,
}

/// The parts of a node that decide which routes and links serve a name.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'n> {
    /// The static routes.
    pub routes: &'n RouteTable,
    /// The resolvers that are asked where no route leads to a name.
    pub discovery: &'n [ResolverId],
    /// The values for what routes leave open.
    pub defaults: &'n Defaults,
    /// The policy of lookups.
    pub policy: &'n Policy,
    /// The cookies that count for a name.
    pub keys: &'n Keys,
}

impl Routing<'_> {
    fn candidates(&self, name: &NodeName, request: &ConnectRequest) -> Vec<Candidate> {
        match (&request.given, &request.only) {
            (Some(route), _) => given(route.clone()),
            (None, Some(candidate)) => vec![candidate.clone()],
            (None, None) => self.routes.matching(name),
        }
    }

    fn ways(&self, name: &NodeName, request: &ConnectRequest) -> Ways {
        let direct = Ways { proxies: Vec::new(), directly: true, discovered: false };
        if request.directly || request.given.is_some() || request.only.is_some() {
            return direct;
        }
        let proxies = self.routes.matching_proxies(name);
        match proxies.first().map(|best| best.route.direct_use()).unwrap_or_default() {
            DirectUse::Never => Ways { proxies, directly: false, discovered: true },
            DirectUse::Only => direct,
            DirectUse::First => Ways { proxies, directly: true, discovered: true },
        }
    }

    /// Returns the lookup for a request. It may use what `memory` holds, unless the request ignores that.
    pub fn lookup(&self, name: &NodeName, request: &ConnectRequest, memory: impl FnOnce() -> Memory) -> Lookup {
        let Ways { proxies, directly, discovered } = self.ways(name, request);
        let mut candidates = if directly { self.candidates(name, request) } else { Vec::new() };
        if let Some(cookie) = &request.cookie {
            for candidate in &mut candidates {
                candidate.route = candidate.route.clone().with_cookie(cookie.clone());
            }
        }
        let cookie = request.cookie.as_ref().unwrap_or_else(|| self.keys.of(name).current());
        let is_of_table = request.only.is_none() && directly;
        // Gateways that discovery knows are not looked for by way of others: each would ask for all of them again.
        let may_ask_for_gateways = discovered && request.awaited_by.is_none();
        Lookup {
            target: name.clone(),
            candidates,
            discovery: if is_of_table { self.discovery.to_vec() } else { Vec::new() },
            proxies,
            gateways: if may_ask_for_gateways { self.discovery.to_vec() } else { Vec::new() },
            defaults: Defaults { cookie: cookie.clone(), ..self.defaults.clone() },
            policy: *self.policy,
            memory: if request.afresh { Memory::new() } else { memory() },
            given: request.given.is_some(),
        }
    }

    /// Returns true if a link is what the routes of its name and the request demand. A link that this end dialled came by
    /// one of the routes, perhaps not the best; one that came in must meet the best.
    pub fn satisfies(&self, name: &NodeName, request: &ConnectRequest, link: LinkFacts<'_>) -> bool {
        if request.not == Some(link.id) {
            return false;
        }
        let is_initiator = link.role == Role::Initiator;
        if request.cookie.as_ref().is_some_and(|cookie| is_initiator && link.cookie != cookie) {
            return false;
        }
        let ways = self.ways(name, request);
        if link.is_relayed {
            self.relayed_satisfies(name, request, link, ways)
        } else {
            self.direct_satisfies(name, request, link, &ways)
        }
    }

    fn relayed_satisfies(&self, name: &NodeName, request: &ConnectRequest, link: LinkFacts<'_>, ways: Ways) -> bool {
        let Ways { proxies, directly, .. } = ways;
        let meets = |route: &NetworkRoute| self.meets(name, link, route.cookie(), &route.demands(self.defaults).1);
        if request.directly || request.given.is_some() || request.only.is_some() {
            return false;
        }
        // Through a gateway that discovery knew it came with the demands of the best route.
        let found = link.resolver.is_some() && proxies.is_empty();
        if link.role == Role::Initiator && !found {
            return proxies.iter().any(|proxy| meets(proxy.route.target_route()));
        }
        let best = if directly { self.candidates(name, request).into_iter().next() } else { None };
        match (best, proxies.first()) {
            (Some(best), _) => meets(&best.route) && (link.role == Role::Responder || !best.route.fallback_never()),
            (None, Some(best)) => meets(best.route.target_route()),
            // No route demands anything of it; unless none may lead through others, its proof was enough.
            (None, None) => self.routes.matching_proxies(name).is_empty(),
        }
    }

    fn direct_satisfies(&self, name: &NodeName, request: &ConnectRequest, link: LinkFacts<'_>, ways: &Ways) -> bool {
        if !ways.directly {
            return false;
        }
        let candidates = self.candidates(name, request);
        if request.only.as_ref().is_some_and(|only| !only.carries(link.route, link.resolver)) {
            return false;
        }
        if candidates.is_empty() {
            let tls = if self.defaults.tls { TlsMode::Verify(None) } else { TlsMode::CookieOnly };
            // No route demands anything of a peer that came in; the listener judged it.
            return link.role == Role::Responder || self.meets(name, link, None, &tls);
        }
        let considered = if link.role == Role::Initiator { candidates.len() } else { 1 };
        candidates.iter().take(considered).any(|candidate| {
            let (_, tls) = candidate.route.demands(self.defaults);
            self.meets(name, link, candidate.route.cookie(), &tls)
        })
    }

    fn meets(&self, name: &NodeName, link: LinkFacts<'_>, cookie: Option<&Cookie>, tls: &TlsMode) -> bool {
        // While a cookie is replaced, the old and the new one are as good as each other.
        let valid = |cookie: &Cookie| self.keys.of(name).iter().any(|valid| valid == cookie);
        let cookie = match cookie {
            Some(cookie) => link.cookie == cookie || (valid(cookie) && valid(link.cookie)),
            None => link.role == Role::Responder || valid(link.cookie),
        };
        let verified = match tls {
            TlsMode::Verify(_) => link.tls == tls,
            TlsMode::CookieOnly | TlsMode::DangerousSkipVerify(_) => true,
        };
        cookie && verified
    }

    /// Returns what becomes of a connection to this name when it goes down. The default is for names that the node can
    /// dial: it did (`was_dialled`), or has a route for them.
    pub fn reconnect(&self, name: &NodeName, was_dialled: bool) -> Reconnect {
        match self.routes.matching(name).first() {
            Some(best) => best.route.reconnect().unwrap_or(self.defaults.reconnect),
            None if was_dialled => self.defaults.reconnect,
            None => Reconnect::OnDemand,
        }
    }

    /// Returns the routes that a connection over this link is to go back to, best first; each is better than its own.
    pub fn better_routes(&self, name: &NodeName, link: LinkFacts<'_>) -> Vec<Candidate> {
        let Ways { directly, .. } = self.ways(name, &ConnectRequest::default());
        if link.role == Role::Responder || !directly {
            return Vec::new();
        }
        // Through another node it came by a proxy route, whose pattern may be one of a static route too.
        let route = link.route.filter(|_| !link.is_relayed);
        let races = self.policy.equal_weights.is_some();
        keep::better_routes(self.routes.matching(name), route, link.resolver, races)
    }

    /// Returns the policy of the name for a link whose peer dialled.
    pub fn link_policy(&self, name: &NodeName) -> LinkPolicy {
        match self.routes.matching(name).first() {
            Some(best) => LinkPolicy { route: Some(best.pattern.clone()), ..best.route.link_policy(self.defaults) },
            None => self.defaults.link_policy(),
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_route::{Cookies, ProxyRoute};

    use super::*;

    struct Node {
        routes: RouteTable,
        defaults: Defaults,
        policy: Policy,
        keys: Keys,
    }

    fn cookie(text: &str) -> Cookie {
        Cookie::new(format!("a shared secret: {text}")).unwrap()
    }

    fn name() -> NodeName {
        "db@h".parse().unwrap()
    }

    fn route() -> NetworkRoute {
        NetworkRoute::direct("127.0.0.1", 1).unwrap().build()
    }

    impl Node {
        fn new() -> Self {
            let keys = Keys::new(Vec::new(), Cookies::from(cookie("node")));
            let (routes, defaults) = (RouteTable::new(), Defaults::new(cookie("node")));
            Self { routes, defaults, policy: Policy::default(), keys }
        }

        fn satisfies(&self, request: &ConnectRequest, link: LinkFacts<'_>) -> bool {
            let Self { routes, defaults, policy, keys } = self;
            Routing { routes, discovery: &[], defaults, policy, keys }.satisfies(&name(), request, link)
        }
    }

    fn link(role: Role, cookie: &Cookie) -> LinkFacts<'_> {
        LinkFacts {
            id: LinkId::new([1; 16]),
            role,
            cookie,
            is_relayed: false,
            route: None,
            resolver: None,
            tls: &TlsMode::CookieOnly,
        }
    }

    #[test]
    fn a_link_that_came_in_must_meet_the_best_route_and_one_that_was_dialled_any() {
        let (node, other) = (Node::new(), cookie("other"));
        let any = ConnectRequest::default();
        node.routes.add("^db", route().with_cookie(other.clone()), 2).unwrap();
        node.routes.add("db", route().with_cookie(cookie("third")), 1).unwrap();
        let third = cookie("third");
        assert!(node.satisfies(&any, link(Role::Initiator, &third)));
        assert!(!node.satisfies(&any, link(Role::Responder, &third)));
        assert!(node.satisfies(&any, link(Role::Responder, &other)));
        assert!(!node.satisfies(&any, link(Role::Initiator, &cookie("fourth"))));
    }

    #[test]
    fn a_request_excludes_one_link_relayed_links_and_other_cookies() {
        let (node, own) = (Node::new(), cookie("node"));
        let up = link(Role::Initiator, &own);
        assert!(node.satisfies(&ConnectRequest::default(), up));
        assert!(!node.satisfies(&ConnectRequest { not: Some(up.id), ..ConnectRequest::default() }, up));
        assert!(!node.satisfies(&ConnectRequest { cookie: Some(cookie("other")), ..ConnectRequest::default() }, up));
        let directly = ConnectRequest { directly: true, ..ConnectRequest::default() };
        assert!(node.satisfies(&directly, up));
        assert!(!node.satisfies(&directly, LinkFacts { is_relayed: true, ..up }));
    }

    #[test]
    fn a_direct_link_does_not_satisfy_a_name_that_is_only_reached_through_others() {
        let (node, own) = (Node::new(), cookie("node"));
        let proxy = ProxyRoute::via("gate@h".parse().unwrap()).direct(DirectUse::Never);
        node.routes.add_proxy("^db", proxy, 1).unwrap();
        let up = link(Role::Initiator, &own);
        assert!(!node.satisfies(&ConnectRequest::default(), up));
        assert!(node.satisfies(&ConnectRequest::default(), LinkFacts { is_relayed: true, ..up }));
        assert!(node.satisfies(&ConnectRequest { directly: true, ..ConnectRequest::default() }, up));
    }
}
