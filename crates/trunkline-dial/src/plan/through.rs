//! The last stages of a lookup: ways through gateways, those of the routes and those that discovery knows.

use std::time::Instant;

use trunkline_route::{Address, Attempt, Endpoint, NodeName, Origin, ProxyRoute, ResolverId};

use super::{FoundGateway, Hop, Item, Lookup, NO_ROUTE, OpId, Plan, Work, by};
use crate::AttemptError;
use crate::table::ProxyCandidate;

impl Plan {
    pub(super) fn proxy_items(&self) -> Vec<Item> {
        let Lookup { target, proxies, defaults, .. } = &self.lookup;
        let item = |candidate: &ProxyCandidate| {
            let (pattern, proxy) = (candidate.pattern.clone(), &candidate.route);
            let origin = Origin::Proxied { pattern: pattern.clone(), gateway: proxy.gateway().clone() };
            match proxy.attempt(target, defaults) {
                Some(mut attempt) => {
                    attempt.policy.route = Some(pattern);
                    Item::Relay(Hop { origin, proxy: Box::new(proxy.clone()), attempt: Box::new(attempt) })
                }
                None => self.no_host(origin),
            }
        };
        proxies.iter().map(item).collect()
    }

    fn no_host(&self, origin: Origin) -> Item {
        let error =
            AttemptError::Dns(format!("the name's host part {:?} is no host", self.lookup.target.host()).into());
        Item::Void { origin, address: String::new(), error, route: NO_ROUTE }
    }

    /// Resolvers that are asked about gateways.
    pub(super) fn gateway_items(&self) -> Vec<Item> {
        let ask = |resolver: &ResolverId| Item::AskGateways {
            origin: Origin::DiscoveredProxy { resolver: resolver.clone(), gateway: None },
            resolver: resolver.clone(),
        };
        self.lookup.gateways.iter().map(ask).collect()
    }

    pub(super) fn gateways_found(&mut self, now: Instant, op: OpId, answer: Result<Vec<FoundGateway>, AttemptError>) {
        let is_it = |work: &mut Work| matches!(work, Work::AskingGateways { .. }) && work.has(op);
        let Some(Work::AskingGateways { origin, resolver, began, .. }) = self.end_work(is_it) else { return };
        let mut found = match answer {
            Ok(found) => found,
            Err(error) => return self.question_failed(now, origin, began, error),
        };
        let tried = |name: &NodeName| self.lookup.proxies.iter().any(|proxy| proxy.route.gateway() == name);
        found.retain(|gateway| gateway.name != self.lookup.target && !tried(&gateway.name));
        found.sort_by_key(|gateway| !gateway.is_live);
        found.truncate(self.lookup.policy.max_answers);
        let items = found.into_iter().map(|gateway| self.found_item(&resolver, gateway.name)).collect();
        self.put_first(now, items);
    }

    /// A way through a gateway that was found, with the demands of the best route for the name.
    fn found_item(&self, resolver: &ResolverId, gateway: NodeName) -> Item {
        let Lookup { target, proxies, candidates, defaults, .. } = &self.lookup;
        let origin = Origin::DiscoveredProxy { resolver: resolver.clone(), gateway: Some(gateway.clone()) };
        let proxy = ProxyRoute::via(gateway.clone());
        let attempt = match (proxies.first(), candidates.first()) {
            (Some(best), _) => best.route.attempt(target, defaults),
            (None, Some(best)) => Address::new(target.host(), 1)
                .ok()
                .map(|address| by(best, best.route.attempt_at(target, &Endpoint::at(address), defaults))),
            (None, None) => proxy.attempt(target, defaults),
        };
        let Some(attempt) = attempt else { return self.no_host(origin) };
        let mut attempt = Attempt { via: Some(gateway), ..attempt };
        attempt.policy.resolver = Some(resolver.clone());
        Item::Relay(Hop { origin, proxy: Box::new(proxy), attempt: Box::new(attempt) })
    }

    pub(super) fn relay_failed(&mut self, now: Instant, op: OpId, error: AttemptError) {
        let is_it = |work: &mut Work| matches!(work, Work::Relaying { .. }) && work.has(op);
        let Some(Work::Relaying { hop, began, .. }) = self.end_work(is_it) else { return };
        if error != AttemptError::Adopted {
            self.hop_failed(now, hop, began, error);
        }
    }

    pub(super) fn hop_failed(&mut self, now: Instant, hop: Hop, began: Instant, error: AttemptError) {
        self.record(now, hop.origin, String::new(), None, began, error, Some(*hop.attempt));
    }
}
