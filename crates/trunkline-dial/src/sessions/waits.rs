//! Dials that wait for other dials: one through a gateway waits for the dial of the gateway.

use std::collections::{BTreeSet, HashMap};

use trunkline_route::NodeName;

/// The dials that wait, each with the name it waits for. The graph has no circle.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// Of each, by number: one that gives up and one that begins may overlap.
    edges: HashMap<NodeName, Vec<(u64, NodeName)>>,
    next: u64,
}

impl Waits {
    /// Returns true if the dial of `name` waits for that of `waiter`, directly or through others, or is the same.
    pub(crate) fn would_close(&self, waiter: &NodeName, name: &NodeName) -> bool {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![name]);
        while let Some(at) = ahead.pop() {
            if at == waiter {
                return true;
            }
            if seen.insert(at) {
                ahead.extend(self.edges.get(at).into_iter().flatten().map(|(_, to)| to));
            }
        }
        false
    }

    /// The dial of `waiter` waits for that of `name` from now on. Gives what to remove when it does not any more.
    pub(crate) fn add(&mut self, waiter: &NodeName, name: &NodeName) -> u64 {
        self.next += 1;
        self.edges.entry(waiter.clone()).or_default().push((self.next, name.clone()));
        self.next
    }

    pub(crate) fn remove(&mut self, waiter: &NodeName, edge: u64) {
        if let Some(edges) = self.edges.get_mut(waiter) {
            edges.retain(|(number, _)| *number != edge);
            if edges.is_empty() {
                self.edges.remove(waiter);
            }
        }
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
        waits.remove(&a, first);
        assert!(waits.would_close(&c, &a), "the other one still waits");
        waits.remove(&a, again);
        assert!(!waits.would_close(&c, &a) && waits.would_close(&c, &b));
        waits.remove(&b, second);
        assert!(waits.edges.is_empty());
    }
}
