//! One hop: what is asked of it, and what it does.

use trunkline_matcher::AccessPattern;
use trunkline_route::{Cookie, DirectUse, NodeName, PeerFlags, ProxyRoute};
use trunkline_stack::{MAX_OPEN_DATA, StreamCode};

use crate::names;
use crate::refusal::Refusal;

/// Gateways a connection may go through at most, whatever is asked.
pub const MAX_PATH: usize = 16;

/// Request of a node to the next one for a connection to a third.
///
/// As bytes: max_hop u8, flags u32, count u8, then the target and the path, each a length u8 and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOpen {
    /// Node to be reached.
    pub to: NodeName,
    /// Through how many more gateways, that of whom it is asked included.
    pub max_hop: u8,
    /// Flags that the two ends may agree on at most; every hop on the way may take some out, and the target keeps to the rest.
    pub flags: PeerFlags,
    /// The gateways behind it, in order. The first hop is asked with none.
    pub path: Vec<NodeName>,
}

/// Bytes that are no [`ProxyOpen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request for a connection further on is malformed")]
pub struct MalformedOpen;

impl ProxyOpen {
    /// Creates the request to the first gateway.
    pub fn new(to: NodeName, max_hop: u8) -> Self {
        Self { to, max_hop, flags: PeerFlags::ALL, path: Vec::new() }
    }

    /// Returns the request as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.max_hop];
        out.extend_from_slice(&self.flags.to_bits().to_be_bytes());
        out.push(self.path.len() as u8);
        for name in std::iter::once(&self.to).chain(&self.path) {
            names::put(&mut out, name.as_str());
        }
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MalformedOpen`], also for a path over [`MAX_PATH`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedOpen> {
        let (&[max_hop, a, b, c, d, count], mut rest) = bytes.split_first_chunk().ok_or(MalformedOpen)?;
        let flags = PeerFlags::from_bits(u32::from_be_bytes([a, b, c, d]));
        if usize::from(count) > MAX_PATH {
            return Err(MalformedOpen);
        }
        let mut path = Vec::new();
        for _ in 0..=count {
            let name = names::take(&mut rest).ok_or(MalformedOpen)?;
            path.push(NodeName::new(name).map_err(|_| MalformedOpen)?);
        }
        if !rest.is_empty() {
            return Err(MalformedOpen);
        }
        let to = path.remove(0);
        Ok(Self { to, max_hop, flags, path })
    }
}

/// Rule that lets callers go through to targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitRule {
    /// The neighbour that asks, by its proven name.
    pub from: AccessPattern,
    /// The node it asks for.
    pub to: AccessPattern,
    /// Flags that the two ends may agree on over a connection that this rule allows. The target is told, and keeps to them.
    pub flags: PeerFlags,
}

impl TransitRule {
    /// Lets these through to those, with every flag.
    pub fn new(from: AccessPattern, to: AccessPattern) -> Self {
        Self { from, to, flags: PeerFlags::ALL }
    }

    /// With these flags at most.
    #[must_use]
    pub fn only(mut self, flags: PeerFlags) -> Self {
        self.flags = flags;
        self
    }
}

/// Rules for what a gateway passes on. The default passes nothing on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transit {
    /// One of them must allow it; the first that does says with which flags.
    pub rules: Vec<TransitRule>,
    /// Neighbours that are gateways themselves: only they may ask for somebody further behind.
    pub gateways: Vec<AccessPattern>,
}

impl Transit {
    /// Returns true if anything is passed on at all.
    pub fn is_enabled(&self) -> bool {
        !self.rules.is_empty()
    }
}

/// The rules for nodes that come to this one through others. The default lets in who proves the cookie and may come by every
/// listener of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// Patterns, one of which must match the whole name of the caller; `None` leaves it to the listeners, an empty list lets nobody in.
    pub allow: Option<Vec<AccessPattern>>,
    /// Patterns, one of which must match the whole name of the gateway that the caller comes through; `None` stands for every gateway.
    pub gateways: Option<Vec<AccessPattern>>,
    /// Flags that may be agreed on with such a caller.
    pub flags: PeerFlags,
}

impl Default for Proxied {
    fn default() -> Self {
        Self { allow: None, gateways: None, flags: PeerFlags::ALL }
    }
}

impl Proxied {
    /// Returns `true` if this node may come through others. Without a list of its own, each of the lists of names that the
    /// node's listeners have must match: nobody comes in through a gateway who could not come in by every listener.
    pub fn allows(&self, name: &NodeName, listeners: &[Vec<AccessPattern>]) -> bool {
        match &self.allow {
            Some(own) => matches_one(Some(own), name),
            None => listeners.iter().all(|allowed| matches_one(Some(allowed), name)),
        }
    }
}

fn matches_one(patterns: Option<&[AccessPattern]>, name: &NodeName) -> bool {
    patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.is_match(name.as_str())))
}

/// Decision of a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node is the target; these flags may be agreed on at most.
    Target(PeerFlags),
    /// The node passes the request on, as this one for the next hop.
    Forward(ProxyOpen),
    /// The node refuses.
    Refuse(Refusal),
}

/// Membership in the cluster of a gateway, of a neighbour that asks it for a connection and of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// The neighbour is no member.
    Neither,
    /// The neighbour is a member, and the target is none that is connected.
    Neighbour,
    /// Both are members that are connected.
    Both,
}

/// Returns the decision of the node `own` when a neighbour asks it for a connection. Checked in this order: a loop, the
/// target, the rules, the number of hops. Between members of the node's cluster the request needs no rule.
pub fn decide(
    own: &NodeName,
    neighbour: &NodeName,
    open: ProxyOpen,
    transit: &Transit,
    proxied: &Proxied,
    membership: Membership,
) -> Verdict {
    let refuse = |code, cause: String| Verdict::Refuse(Refusal::new(own, code, cause));
    let trail = |open: &ProxyOpen| open.path.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" > ");
    if open.path.contains(own) {
        return refuse(StreamCode::Loop, format!("it went through {own} already: {}", trail(&open)));
    }
    if open.to == *own {
        if !matches_one(proxied.gateways.as_deref(), neighbour) {
            let text = format!("nothing under `proxied:` lets anybody come through {neighbour}");
            return refuse(StreamCode::RelayDenied, text);
        }
        return Verdict::Target(open.flags.and(proxied.flags));
    }
    let allows = |rule: &TransitRule| rule.from.is_match(neighbour.as_str()) && rule.to.is_match(open.to.as_str());
    let is_among_members = membership == Membership::Both;
    let of_members = is_among_members.then_some(PeerFlags::ALL);
    let Some(flags) = transit.rules.iter().find(|rule| allows(rule)).map(|rule| rule.flags).or(of_members) else {
        let text = match transit.is_enabled() {
            _ if membership == Membership::Neighbour => {
                format!("{} is no member of the cluster that is connected to {own}", open.to)
            }
            true => format!("no rule under `transit:` lets {neighbour} through to {}", open.to),
            false => "this node passes nothing on; it needs rules under `transit:`".into(),
        };
        return refuse(StreamCode::RelayDenied, text);
    };
    if !open.path.is_empty()
        && !is_among_members
        && !transit.gateways.iter().any(|gateway| gateway.is_match(neighbour.as_str()))
    {
        let text = format!("{neighbour} is none of the gateways under `transit:` and asks for somebody else");
        return refuse(StreamCode::RelayDenied, text);
    }
    if open.max_hop == 0 || open.path.len() >= MAX_PATH {
        let text = format!("the limit of gateways is reached after {}", open.path.len());
        return refuse(StreamCode::HopLimit, text);
    }
    let flags = open.flags.and(flags);
    let mut next = ProxyOpen { max_hop: open.max_hop - 1, flags, ..open };
    next.path.push(own.clone());
    if next.encode().len() > MAX_OPEN_DATA {
        let text = format!("the names of the {} gateways on the way are too long for one request", next.path.len());
        return refuse(StreamCode::HopLimit, text);
    }
    Verdict::Forward(next)
}

/// One way on from a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Onwards {
    /// To the final node, directly.
    Target,
    /// To another gateway, by a proxy route of this one.
    Gateway {
        /// Name of the gateway.
        name: NodeName,
        /// Cookie that proves this node to the gateway, if the route names one.
        cookie: Option<Cookie>,
        /// Request to the gateway.
        open: ProxyOpen,
    },
}

/// The ways on of a gateway that forwards `next`, in the order to try: to the final node, unless `direct: never` forbids it, then by
/// its own proxy routes for that node (`routes`, best first), through as many gateways as they allow. Never back to where it
/// came through: an empty list is a loop.
pub fn onwards<'r>(next: &ProxyOpen, routes: impl IntoIterator<Item = &'r ProxyRoute>) -> Vec<Onwards> {
    let mut routes = routes.into_iter().peekable();
    let direct = routes.peek().map(|best| best.direct_use()).unwrap_or_default();
    let mut ways = if direct == DirectUse::Never { Vec::new() } else { vec![Onwards::Target] };
    if direct != DirectUse::Only {
        let fresh = routes.filter(|route| !next.path.contains(route.gateway()));
        ways.extend(fresh.map(|route| Onwards::Gateway {
            name: route.gateway().clone(),
            cookie: route.gateway_cookie().cloned(),
            open: ProxyOpen { max_hop: next.max_hop.min(route.most_hops().get()), ..next.clone() },
        }));
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use trunkline_route::Flag;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn pattern(text: &str) -> AccessPattern {
        AccessPattern::new(text).unwrap()
    }

    fn all() -> AccessPattern {
        pattern(".*")
    }

    /// Returns the decision of a node that accepts everybody who comes through others.
    fn decide(own: &NodeName, neighbour: &NodeName, open: ProxyOpen, transit: &Transit) -> Verdict {
        super::decide(own, neighbour, open, transit, &Proxied::default(), Membership::Neither)
    }

    fn open_door() -> Transit {
        Transit { rules: vec![TransitRule::new(all(), all())], gateways: vec![all()] }
    }

    fn refused(verdict: Verdict) -> (StreamCode, String) {
        match verdict {
            Verdict::Refuse(refusal) => (refusal.code, refusal.cause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn p17_nothing_is_passed_on_that_no_rule_allows() {
        let (gateway, app) = (name("gw@dmz"), name("app@lab"));
        let ask = |to: &str, transit: &Transit| decide(&gateway, &app, ProxyOpen::new(name(to), 8), transit);
        let (code, text) = refused(ask("db@in", &Transit::default()));
        assert_eq!((code, text.contains("needs rules")), (StreamCode::RelayDenied, true));
        let rule = |from: &str, to: &str| TransitRule::new(pattern(from), pattern(to));
        let transit = Transit { rules: vec![rule("other@.*", ".*"), rule("app@.*", "db@.*")], gateways: vec![] };
        assert!(matches!(ask("db@in", &transit), Verdict::Forward(_)));
        let (code, text) = refused(ask("web@in", &transit));
        assert_eq!(code, StreamCode::RelayDenied);
        assert!(text.contains("app@lab through to web@in"), "{text}");
        assert_eq!(
            ask("gw@dmz", &Transit::default()),
            Verdict::Target(PeerFlags::ALL),
            "itself it may be without a rule"
        );
        // Members of one cluster need no rule, also through other members.
        for path in [&[][..], &["first@dmz"]] {
            let path = path.iter().map(|of| name(of)).collect();
            let open = ProxyOpen { path, ..ProxyOpen::new(name("db@in"), 8) };
            let verdict =
                super::decide(&gateway, &app, open, &Transit::default(), &Proxied::default(), Membership::Both);
            assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
        }
        // A member hears that the target is not connected, and not of rules that nobody needs.
        let open = ProxyOpen::new(name("db@in"), 8);
        let none = Transit::default();
        let (code, text) =
            refused(super::decide(&gateway, &app, open, &none, &Proxied::default(), Membership::Neighbour));
        assert_eq!(code, StreamCode::RelayDenied);
        assert!(text.contains("db@in is no member of the cluster that is connected to"), "{text}");
        // Only gateways may ask for others.
        let behind = ProxyOpen { path: vec![name("first@dmz")], ..ProxyOpen::new(name("db@in"), 3) };
        let (code, _) = refused(decide(&gateway, &app, behind.clone(), &transit));
        assert_eq!(code, StreamCode::RelayDenied);
        let trusted = Transit { gateways: vec![pattern("app@lab")], ..transit };
        assert!(matches!(decide(&gateway, &app, behind, &trusted), Verdict::Forward(_)));
    }

    #[test]
    fn e5_each_hop_takes_one_and_loops_are_told() {
        let (gateway, app) = (name("gw@dmz"), name("app@lab"));
        let Verdict::Forward(next) = decide(&gateway, &app, ProxyOpen::new(name("db@in"), 1), &open_door()) else {
            panic!("it passes on");
        };
        assert_eq!((next.max_hop, &next.path), (0, &vec![gateway.clone()]));
        let (code, text) = refused(decide(&name("gw2@dmz"), &gateway, next.clone(), &open_door()));
        assert_eq!((code, text.as_str()), (StreamCode::HopLimit, "the limit of gateways is reached after 1"));
        let (code, text) = refused(decide(&gateway, &app, next.clone(), &open_door()));
        assert_eq!(code, StreamCode::Loop);
        assert!(text.contains("gw@dmz"), "{text}");
        assert_eq!(decide(&name("db@in"), &gateway, next, &Transit::default()), Verdict::Target(PeerFlags::ALL));
    }

    #[test]
    fn e6_every_hop_may_narrow_the_flags_and_the_target_says_who_may_come_and_how() {
        let (gateway, app, db) = (name("gw@dmz"), name("app@lab"), name("db@in"));
        let without = |flag| PeerFlags::ALL.with(flag, false);
        let narrow = TransitRule::new(pattern("app@.*"), all()).only(without(Flag::RemoteSpawn));
        let transit = Transit { rules: vec![narrow, TransitRule::new(all(), all())], gateways: vec![] };
        let open = ProxyOpen { flags: without(Flag::Link), ..ProxyOpen::new(db.clone(), 8) };
        let Verdict::Forward(next) = decide(&gateway, &app, open, &transit) else { panic!("it passes on") };
        assert_eq!(next.flags, without(Flag::Link).with(Flag::RemoteSpawn, false), "the first rule that allows it");
        let own =
            Proxied { flags: without(Flag::Monitor), gateways: Some(vec![pattern("gw@dmz")]), ..Proxied::default() };
        let come = |through: &NodeName| {
            super::decide(&db, through, next.clone(), &Transit::default(), &own, Membership::Neither)
        };
        assert_eq!(come(&gateway), Verdict::Target(next.flags.with(Flag::Monitor, false)));
        let (code, text) = refused(come(&name("other@dmz")));
        assert_eq!((code, text.contains("other@dmz")), (StreamCode::RelayDenied, true));
        let guests = vec![AccessPattern::new("guest@.*").unwrap()];
        assert!(own.allows(&app, &[]) && !own.allows(&app, std::slice::from_ref(&guests)));
        let nobody = Proxied { allow: Some(vec![]), ..own.clone() };
        let everybody = Proxied { allow: Some(vec![AccessPattern::new(".*").unwrap()]), ..own };
        assert!(!nobody.allows(&app, &[]) && everybody.allows(&app, &[guests]));
    }

    #[test]
    fn a_gateway_leads_on_directly_first_and_never_back_to_where_it_came_through() {
        let next = ProxyOpen { path: vec![name("a@x"), name("b@x")], ..ProxyOpen::new(name("db@in"), 5) };
        let via = |gateway: &str| ProxyRoute::via(name(gateway));
        let two = std::num::NonZeroU8::new(2).unwrap();
        let routes = [via("c@x").max_hop(two), via("a@x"), via("d@x")];
        let asked = |gateway: &str, max_hop| Onwards::Gateway {
            name: name(gateway),
            cookie: None,
            open: ProxyOpen { max_hop, ..next.clone() },
        };
        assert_eq!(onwards(&next, &routes), [Onwards::Target, asked("c@x", 2), asked("d@x", 5)]);
        assert_eq!(onwards(&next, []), [Onwards::Target]);
        let [first, ..] = routes.clone();
        assert_eq!(onwards(&next, &[first.clone().direct(DirectUse::Never), via("d@x")])[0], asked("c@x", 2));
        assert_eq!(onwards(&next, &[first.direct(DirectUse::Only), via("d@x")]), [Onwards::Target]);
        assert_eq!(onwards(&next, &[via("b@x").direct(DirectUse::Never)]), [], "a loop");
    }

    #[test]
    fn names_that_do_not_fit_one_request_are_a_limit_of_hops() {
        let long = |n: usize| name(&format!("gateway-{n:0>200}@dmz"));
        let (mut open, mut passed) = (ProxyOpen::new(name("db@in"), 16), 0);
        let text = loop {
            match decide(&long(passed + 1), &long(passed), open, &open_door()) {
                Verdict::Forward(next) => (open, passed) = (next, passed + 1),
                refusal => break refused(refusal),
            }
        };
        assert_eq!((text.0, passed), (StreamCode::HopLimit, 4));
        assert!(text.1.contains("5 gateways on the way are too long"), "{}", text.1);
    }

    fn names() -> impl Strategy<Value = NodeName> {
        prop::sample::select(vec!["a@x", "b@x", "c@x", "d@x", "e@x", "f@x"]).prop_map(name)
    }

    proptest! {
        #[test]
        fn p9_what_is_asked_reads_as_it_was_written(to in names(), max_hop in any::<u8>(), flags in any::<u32>(), path in prop::collection::vec(names(), 0..=MAX_PATH)) {
            let open = ProxyOpen { to, max_hop, flags: PeerFlags::from_bits(flags), path };
            prop_assert_eq!(ProxyOpen::decode(&open.encode()), Ok(open));
        }

        #[test]
        fn reading_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(open) = ProxyOpen::decode(&bytes) {
                prop_assert_eq!(ProxyOpen::decode(&open.encode()), Ok(open));
            }
        }

        #[test]
        fn p18_in_any_topology_a_request_ends_within_its_budget_and_visits_nobody_twice(
            edges in prop::collection::vec((names(), names(), names()), 0..40), from in names(), to in names(), max_hop in 0u8..10
        ) {
            // At each node the way to a name is whatever the topology says; it may well go round in circles.
            let next_of = |at: &NodeName, to: &NodeName| {
                edges.iter().find(|(here, target, _)| here == at && target == to).map(|(_, _, next)| next.clone())
            };
            let (mut at, mut open, mut visited) = (from.clone(), ProxyOpen::new(to.clone(), max_hop), Vec::new());
            for _ in 0..50 {
                let Some(next) = next_of(&at, &to) else { return Ok(()) };
                match decide(&next, &at, open, &open_door()) {
                    Verdict::Target(_) => {
                        prop_assert_eq!(next, to);
                        prop_assert!(visited.len() <= usize::from(max_hop));
                        return Ok(());
                    }
                    Verdict::Refuse(..) => return Ok(()),
                    Verdict::Forward(onwards) => {
                        prop_assert!(!visited.contains(&next), "{:?} again after {:?}", next, visited);
                        visited.push(next.clone());
                        prop_assert!(visited.len() <= usize::from(max_hop));
                        (at, open) = (next, onwards);
                    }
                }
            }
            prop_assert!(false, "it never ended");
        }
    }
}
