//! Choice among the nodes that serve a service, without I/O: who comes first, and who failed a short time ago.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use trunkline_registrar::Serving;
use trunkline_route::{NodeName, ServiceName};

/// Time for which a node that failed comes after those that did not.
const SPARED: Duration = Duration::from_secs(5);
/// Most nodes whose failure is remembered.
const MAX_FAILED: usize = 1024;

/// Uses of services by this node, and failures of those who serve them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Calls and streams that are open, by service and node.
    open: HashMap<(ServiceName, NodeName), usize>,
    /// End of the time for which a node comes last among those of a service.
    failed: HashMap<(ServiceName, NodeName), Instant>,
}

impl Pool {
    /// Returns the nodes in the order to try: those that did not fail of late first, then by weight, then those with the
    /// fewest open uses, then at random. Nodes of weight 0 are left out, and of a node that is named twice the first counts.
    pub(crate) fn order(
        &self,
        service: &ServiceName,
        nodes: Vec<Serving>,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Vec<NodeName> {
        let mut known = std::collections::HashSet::new();
        let first = nodes.into_iter().filter(|serving| known.insert(serving.node.clone()));
        let mut keyed: Vec<_> = first
            .filter(|serving| serving.weight > 0)
            .map(|serving| ((self.rank(service, &serving, now), random.u32(..)), serving.node))
            .collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed.into_iter().map(|(_, node)| node).collect()
    }

    /// Returns the place of a node among those of a service, the least of which is tried first.
    pub(crate) fn rank(&self, service: &ServiceName, serving: &Serving, now: Instant) -> (bool, Reverse<u16>, usize) {
        let key = (service.clone(), serving.node.clone());
        let is_spared = self.failed.get(&key).is_some_and(|until| *until > now);
        (is_spared, Reverse(serving.weight), self.open.get(&key).copied().unwrap_or_default())
    }

    /// Notes that a use begins.
    pub(crate) fn opened(&mut self, service: &ServiceName, node: &NodeName) {
        *self.open.entry((service.clone(), node.clone())).or_default() += 1;
    }

    /// Notes that a use ended.
    pub(crate) fn closed(&mut self, service: &ServiceName, node: &NodeName) {
        let key = (service.clone(), node.clone());
        if let Some(open) = self.open.get_mut(&key) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&key);
            }
        }
    }

    /// Returns the number of uses of a service that are open at a node.
    pub(crate) fn open(&self, service: &ServiceName, node: &NodeName) -> usize {
        self.open.get(&(service.clone(), node.clone())).copied().unwrap_or_default()
    }

    pub(crate) fn failed(&mut self, service: &ServiceName, node: &NodeName, now: Instant) {
        self.failed.retain(|_, until| *until > now);
        let key = (service.clone(), node.clone());
        if self.failed.len() < MAX_FAILED || self.failed.contains_key(&key) {
            self.failed.insert(key, now + SPARED);
        }
    }

    pub(crate) fn succeeded(&mut self, service: &ServiceName, node: &NodeName) {
        self.failed.remove(&(service.clone(), node.clone()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(node: u8) -> NodeName {
        format!("n{node}@lab").parse().unwrap()
    }

    fn serving(node: u8, weight: u16) -> Serving {
        Serving { node: name(node), weight, tags: Vec::new() }
    }

    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_order_is_by_weight_then_by_open_uses_and_nodes_that_failed_of_late_come_last() {
        let (mut pool, now, service) = (Pool::default(), start(), "pg".parse().unwrap());
        let all = || vec![serving(1, 100), serving(2, 100), serving(3, 200), serving(4, 0), serving(3, 1)];
        let mut random = fastrand::Rng::with_seed(1);
        let mut order = |pool: &Pool, now| pool.order(&service, all(), now, &mut random);
        pool.opened(&service, &name(1));
        assert_eq!(order(&pool, now), [name(3), name(2), name(1)]);
        for _ in 0..2 {
            pool.opened(&service, &name(2));
        }
        assert_eq!(order(&pool, now), [name(3), name(1), name(2)]);
        pool.failed(&service, &name(3), now);
        pool.failed(&"other".parse().unwrap(), &name(1), now);
        assert_eq!(order(&pool, now), [name(1), name(2), name(3)]);
        assert_eq!(order(&pool, now + SPARED), [name(3), name(1), name(2)]);
        pool.succeeded(&service, &name(3));
        assert_eq!(order(&pool, now)[0], name(3));
        for _ in 0..2 {
            pool.closed(&service, &name(2));
        }
        pool.closed(&service, &name(1));
        assert!(pool.open.is_empty() && pool.open(&service, &name(1)) == 0);
        // Without another difference, both come first sometimes.
        let firsts: std::collections::HashSet<_> = (0..50).map(|_| order(&pool, now)[1].clone()).collect();
        assert_eq!(firsts.len(), 2);
    }

    proptest! {
        #[test]
        fn every_node_that_is_not_drained_is_tried_once(
            nodes in prop::collection::vec((0_u8..8, 0_u16..3), 0..16),
            failed in prop::collection::vec(0_u8..8, 0..4),
            seed in any::<u64>(),
        ) {
            let (mut pool, now, service) = (Pool::default(), start(), "pg".parse().unwrap());
            failed.iter().for_each(|node| pool.failed(&service, &name(*node), now));
            let all = nodes.iter().map(|(node, weight)| serving(*node, *weight)).collect();
            let mut order = pool.order(&service, all, now, &mut fastrand::Rng::with_seed(seed));
            order.sort();
            let mut first = std::collections::BTreeMap::new();
            nodes.iter().for_each(|(node, weight)| { first.entry(name(*node)).or_insert(*weight); });
            let expected: Vec<_> = first.into_iter().filter(|(_, weight)| *weight > 0).map(|(node, _)| node).collect();
            prop_assert_eq!(order, expected);
        }
    }
}
