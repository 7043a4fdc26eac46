//! One hop: what is asked of it, and what it does.

use trunkline_link::StreamCode;
use trunkline_matcher::AccessPattern;
use trunkline_route::NodeName;

/// Gateways a connection may go through at most, whatever is asked.
pub const MAX_PATH: usize = 16;

/// What a node asks of the next one: a connection to a third.
///
/// As bytes: max_hop u8, count u8, then the target and the path, each a length u8 and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOpen {
    /// Who is to be reached.
    pub to: NodeName,
    /// Through how many more gateways, that of whom it is asked included.
    pub max_hop: u8,
    /// The gateways behind it, in order. The first hop is asked with none.
    pub path: Vec<NodeName>,
}

/// Bytes that are no [`ProxyOpen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request for a connection further on is malformed")]
pub struct MalformedOpen;

impl ProxyOpen {
    /// What is asked of the first gateway.
    pub fn new(to: NodeName, max_hop: u8) -> Self {
        Self { to, max_hop, path: Vec::new() }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.max_hop, self.path.len() as u8];
        for name in std::iter::once(&self.to).chain(&self.path) {
            out.push(name.as_str().len() as u8);
            out.extend_from_slice(name.as_str().as_bytes());
        }
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MalformedOpen`], also for a path over [`MAX_PATH`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedOpen> {
        let (&[max_hop, count], mut rest) = bytes.split_first_chunk().ok_or(MalformedOpen)?;
        if usize::from(count) > MAX_PATH {
            return Err(MalformedOpen);
        }
        let mut names = Vec::new();
        for _ in 0..=count {
            let (&len, after) = rest.split_first().ok_or(MalformedOpen)?;
            let (name, after) = after.split_at_checked(len.into()).ok_or(MalformedOpen)?;
            let name = std::str::from_utf8(name).map_err(|_| MalformedOpen)?;
            names.push(NodeName::new(name).map_err(|_| MalformedOpen)?);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(MalformedOpen);
        }
        let to = names.remove(0);
        Ok(Self { to, max_hop, path: names })
    }
}

/// Who may go through to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitRule {
    /// The neighbour that asks, by its proven name.
    pub from: AccessPattern,
    /// The node it asks for.
    pub to: AccessPattern,
}

/// What a gateway passes on. The default passes nothing on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transit {
    /// One of them must allow it.
    pub rules: Vec<TransitRule>,
    /// Neighbours that are gateways themselves: only they may ask for somebody further behind.
    pub gateways: Vec<AccessPattern>,
}

impl Transit {
    /// Whether anything is passed on at all.
    pub fn is_enabled(&self) -> bool {
        !self.rules.is_empty()
    }
}

/// What a hop does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is who was asked for.
    Target,
    /// It passes on: this goes to the next.
    Forward(ProxyOpen),
    /// It does not.
    Refuse(StreamCode, String),
}

/// What the node of the name `own` does when a neighbour asks it for a connection. In this order: a loop, the target, the
/// rules, the number of hops.
pub fn decide(own: &NodeName, neighbour: &NodeName, open: ProxyOpen, transit: &Transit) -> Verdict {
    let trail = |open: &ProxyOpen| open.path.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" > ");
    if open.path.contains(own) {
        return Verdict::Refuse(StreamCode::Loop, format!("it went through {own} already: {}", trail(&open)));
    }
    if open.to == *own {
        return Verdict::Target;
    }
    let allows = |rule: &TransitRule| rule.from.is_match(neighbour.as_str()) && rule.to.is_match(open.to.as_str());
    if !transit.rules.iter().any(allows) {
        let text = match transit.is_enabled() {
            true => format!("no rule under `transit:` lets {neighbour} through to {}", open.to),
            false => "this node passes nothing on; it needs rules under `transit:`".into(),
        };
        return Verdict::Refuse(StreamCode::RelayDenied, text);
    }
    if !open.path.is_empty() && !transit.gateways.iter().any(|gateway| gateway.is_match(neighbour.as_str())) {
        let text = format!("{neighbour} is none of the gateways under `transit:` and asks for somebody else");
        return Verdict::Refuse(StreamCode::RelayDenied, text);
    }
    if open.max_hop == 0 || open.path.len() >= MAX_PATH {
        let text = format!("the limit of gateways is reached after {}", open.path.len());
        return Verdict::Refuse(StreamCode::HopLimit, text);
    }
    let mut next = open;
    next.max_hop -= 1;
    next.path.push(own.clone());
    Verdict::Forward(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn all() -> AccessPattern {
        AccessPattern::new(".*").unwrap()
    }

    fn open_door() -> Transit {
        Transit { rules: vec![TransitRule { from: all(), to: all() }], gateways: vec![all()] }
    }

    fn refused(verdict: Verdict) -> (StreamCode, String) {
        match verdict {
            Verdict::Refuse(code, text) => (code, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn p17_nothing_is_passed_on_that_no_rule_allows() {
        let (gateway, app) = (name("gw@dmz"), name("app@lab"));
        let ask = |to: &str, transit: &Transit| decide(&gateway, &app, ProxyOpen::new(name(to), 8), transit);
        let (code, text) = refused(ask("db@in", &Transit::default()));
        assert_eq!((code, text.contains("needs rules")), (StreamCode::RelayDenied, true));
        let rule = |from: &str, to: &str| TransitRule {
            from: AccessPattern::new(from).unwrap(),
            to: AccessPattern::new(to).unwrap(),
        };
        let transit = Transit { rules: vec![rule("other@.*", ".*"), rule("app@.*", "db@.*")], gateways: vec![] };
        assert!(matches!(ask("db@in", &transit), Verdict::Forward(_)));
        let (code, text) = refused(ask("web@in", &transit));
        assert_eq!(code, StreamCode::RelayDenied);
        assert!(text.contains("app@lab through to web@in"), "{text}");
        assert_eq!(ask("gw@dmz", &Transit::default()), Verdict::Target, "itself it may be without a rule");
        // Only gateways may ask for others.
        let behind = ProxyOpen { path: vec![name("first@dmz")], ..ProxyOpen::new(name("db@in"), 3) };
        let (code, _) = refused(decide(&gateway, &app, behind.clone(), &transit));
        assert_eq!(code, StreamCode::RelayDenied);
        let trusted = Transit { gateways: vec![AccessPattern::new("app@lab").unwrap()], ..transit };
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
        assert_eq!(decide(&name("db@in"), &gateway, next, &Transit::default()), Verdict::Target);
    }

    fn names() -> impl Strategy<Value = NodeName> {
        prop::sample::select(vec!["a@x", "b@x", "c@x", "d@x", "e@x", "f@x"]).prop_map(name)
    }

    proptest! {
        #[test]
        fn p9_what_is_asked_reads_as_it_was_written(to in names(), max_hop in any::<u8>(), path in prop::collection::vec(names(), 0..=MAX_PATH)) {
            let open = ProxyOpen { to, max_hop, path };
            prop_assert_eq!(ProxyOpen::decode(&open.encode()), Ok(open));
        }

        #[test]
        fn reading_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(open) = ProxyOpen::decode(&bytes) {
                prop_assert_eq!(open.encode(), bytes);
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
                    Verdict::Target => {
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
