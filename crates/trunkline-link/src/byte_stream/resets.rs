//! A limit on streams that a peer asks for and resets before they are of use. No I/O, no clock.

use std::collections::HashMap;
use std::time::Instant;

use trunkline_route::NodeName;
use trunkline_stack::{Bucket, Rate};

/// Resets before use of one peer, unless [`crate::NativeLimits::resets`] says otherwise. A request costs the node a task and
/// maybe a connection to a backend, and its reset costs the peer nothing: a thousand clients that give up at once stay below
/// the burst, a peer that asks and resets in a loop is held to the rate.
pub(crate) const RESETS: Rate = Rate { burst: 2_000, per_second: 200 };
/// Peers accounted for at once; the one with the most allowance left is forgotten for a new one.
const PEERS: usize = 1_024;

/// Allowance of each peer for streams that are reset before use. Streams that are used, however many, cost nothing.
#[derive(Debug)]
pub(crate) struct Resets {
    rate: Rate,
    /// Peers that reset something of late.
    peers: HashMap<NodeName, Bucket>,
}

impl Resets {
    /// Returns the allowances of peers that have reset nothing yet.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, peers: HashMap::new() }
    }

    /// Returns true if no peer is accounted for, so that nobody needs to ask for the time.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Returns true if a peer may open a stream.
    pub(crate) fn may_open(&mut self, now: Instant, peer: &NodeName) -> bool {
        let rate = self.rate;
        let Some(bucket) = self.peers.get_mut(peer) else { return true };
        if bucket.is_rested(now, rate) {
            self.peers.remove(peer);
            return true;
        }
        bucket.has(now, rate)
    }

    /// Counts a stream that a peer reset before it was of use.
    pub(crate) fn reset(&mut self, now: Instant, peer: &NodeName) {
        let rate = self.rate;
        if self.peers.len() >= PEERS && !self.peers.contains_key(peer) {
            self.peers.retain(|_, bucket| !bucket.is_rested(now, rate));
            let most = self.peers.iter().max_by(|(_, a), (_, b)| a.tokens().total_cmp(&b.tokens()));
            let most = most.filter(|_| self.peers.len() >= PEERS).map(|(peer, _)| peer.clone());
            most.and_then(|peer| self.peers.remove(&peer));
        }
        self.peers.entry(peer.clone()).or_insert_with(|| Bucket::full(now, rate)).charge(now, rate);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_that_resets_in_a_loop_is_held_to_the_rate_and_others_are_not() {
        let (mut resets, mut now) = (Resets::new(RESETS), Instant::now());
        let [loud, calm]: [NodeName; 2] = ["loud@h", "calm@h"].map(|name| name.parse().unwrap());
        let mut opened = 0;
        // Ten thousand a second, for two seconds.
        for _ in 0..20_000 {
            now += Duration::from_micros(100);
            if resets.may_open(now, &loud) {
                resets.reset(now, &loud);
                opened += 1;
            }
            assert!(resets.may_open(now, &calm));
        }
        assert!((2_350..2_450).contains(&opened), "the burst and two seconds of the rate: {opened}");
        assert!(resets.may_open(now + Duration::from_secs(60), &loud) && resets.is_empty(), "who rests is forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_resets_most_is_not_forgotten() {
        let (mut resets, now) = (Resets::new(RESETS), Instant::now());
        let name = |n: usize| -> NodeName { format!("n{n}@h").parse().unwrap() };
        (0..3_000).for_each(|_| resets.reset(now, &name(0)));
        (1..5_000).for_each(|n| resets.reset(now, &name(n)));
        assert_eq!(resets.peers.len(), PEERS);
        assert!(!resets.may_open(now, &name(0)));
    }
}
