//! Which dial waits for which: one through a gateway waits for the dial of the gateway.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_route::NodeName;

/// The dials that wait, each with the name it waits for. Never a circle.
#[derive(Debug, Default)]
pub(super) struct Waits {
    edges: BTreeMap<u64, (NodeName, NodeName)>,
    next: u64,
}

impl Waits {
    /// Whether the dial of `name` waits for that of `waiter`, itself or through others, or is it.
    pub(super) fn would_close(&self, waiter: &NodeName, name: &NodeName) -> bool {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![name]);
        while let Some(at) = ahead.pop() {
            if at == waiter {
                return true;
            }
            if seen.insert(at) {
                ahead.extend(self.edges.values().filter(|(from, _)| from == at).map(|(_, to)| to));
            }
        }
        false
    }

    /// The dial of `waiter` waits for that of `name` from now on. Gives what to remove when it does not any more.
    pub(super) fn add(&mut self, waiter: &NodeName, name: &NodeName) -> u64 {
        self.next += 1;
        self.edges.insert(self.next, (waiter.clone(), name.clone()));
        self.next
    }

    pub(super) fn remove(&mut self, edge: u64) {
        self.edges.remove(&edge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_that_would_wait_for_itself_is_seen_whatever_lies_between() {
        let [a, b, c]: [NodeName; 3] = ["a@x", "b@x", "c@x"].map(|name| name.parse().unwrap());
        let mut waits = Waits::default();
        assert!(waits.would_close(&a, &a) && !waits.would_close(&a, &b));
        let first = waits.add(&a, &b);
        // While an attempt that was given up goes, the next one is there already.
        let (again, second) = (waits.add(&a, &b), waits.add(&b, &c));
        assert!(waits.would_close(&b, &a) && waits.would_close(&c, &a) && !waits.would_close(&a, &c));
        waits.remove(first);
        assert!(waits.would_close(&c, &a), "the other one still waits");
        waits.remove(again);
        assert!(!waits.would_close(&c, &a) && waits.would_close(&c, &b));
        waits.remove(second);
        assert!(waits.edges.is_empty());
    }
}
