//! How much a gateway carries.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use trunkline_route::NodeName;

/// What a gateway carries at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Circuits at a time. Default 1,024.
    pub total: usize,
    /// Circuits of one neighbour at a time. Default 64.
    pub per_peer: usize,
    /// New ones that one neighbour may ask for in a second, in the long run. Default 10.
    pub opens_per_second: u32,
    /// And at once, after a pause. Default 50.
    pub burst: u32,
    /// How long nothing may come through one, either way, before it is ended. Default 600 s. Links ping every few seconds:
    /// what is idle for so long has lost an end.
    pub idle: Duration,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self { total: 1_024, per_peer: 64, opens_per_second: 10, burst: 50, idle: Duration::from_secs(600) }
    }
}

/// Why no further circuit is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The gateway carries as many as it may.
    #[error("the gateway carries {0} connections, as many as it may")]
    Total(usize),
    /// The neighbour has as many as it may.
    #[error("{0} connections of this node are carried, as many as may be")]
    PerPeer(usize),
    /// The neighbour asks too often.
    #[error("this node asks for more than {0} connections a second")]
    TooFast(u32),
}

#[derive(Debug)]
struct Peer {
    open: usize,
    /// Opens it may ask for at once, as of then.
    tokens: f64,
    at: Instant,
}

/// The circuits a gateway carries.
#[derive(Debug)]
pub struct Circuits {
    limits: CircuitLimits,
    open: usize,
    peers: HashMap<NodeName, Peer>,
}

/// One of them; give it back with [`Circuits::ended`].
#[derive(Debug)]
#[must_use = "a circuit counts until it is given back"]
pub struct Circuit(NodeName);

impl Circuits {
    /// None yet.
    pub fn new(limits: CircuitLimits) -> Self {
        Self { limits, open: 0, peers: HashMap::new() }
    }

    /// What is carried at most.
    pub fn limits(&self) -> CircuitLimits {
        self.limits
    }

    /// Carries so much at most from now on; what is carried already stays.
    pub fn set_limits(&mut self, limits: CircuitLimits) {
        self.limits = limits;
    }

    /// A neighbour asks for one more.
    ///
    /// # Errors
    /// [`Full`]; it counts as having been asked for all the same.
    pub fn begin(&mut self, now: Instant, neighbour: &NodeName) -> Result<Circuit, Full> {
        let CircuitLimits { total, per_peer, opens_per_second, burst, idle: _ } = self.limits;
        // Who has nothing open and a full allowance is as good as unknown.
        let rested = Duration::from_secs_f64(f64::from(burst) / f64::from(opens_per_second.max(1)));
        self.peers.retain(|_, peer| peer.open > 0 || now.saturating_duration_since(peer.at) < rested);
        let fresh = || Peer { open: 0, tokens: burst.into(), at: now };
        let peer = self.peers.entry(neighbour.clone()).or_insert_with(fresh);
        let earned = now.saturating_duration_since(peer.at).as_secs_f64() * f64::from(opens_per_second);
        (peer.tokens, peer.at) = ((peer.tokens + earned).min(burst.into()), now);
        if peer.tokens < 1.0 {
            return Err(Full::TooFast(opens_per_second));
        }
        peer.tokens -= 1.0;
        if peer.open >= per_peer {
            return Err(Full::PerPeer(peer.open));
        }
        if self.open >= total {
            return Err(Full::Total(self.open));
        }
        peer.open += 1;
        self.open += 1;
        Ok(Circuit(neighbour.clone()))
    }

    /// One is over.
    pub fn ended(&mut self, circuit: Circuit) {
        if let Some(peer) = self.peers.get_mut(&circuit.0) {
            peer.open -= 1;
            self.open -= 1;
        }
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn circuits_are_bounded_in_all_per_neighbour_and_in_time() {
        let limits =
            CircuitLimits { total: 5, per_peer: 3, opens_per_second: 10, burst: 4, ..CircuitLimits::default() };
        let (mut circuits, mut now) = (Circuits::new(limits), start());
        let [a, b]: [NodeName; 2] = ["a@x", "b@x"].map(|name| name.parse().unwrap());
        let mut mine: Vec<_> = (0..3).map(|_| circuits.begin(now, &a).unwrap()).collect();
        assert_eq!(circuits.begin(now, &a).unwrap_err(), Full::PerPeer(3));
        assert_eq!(circuits.begin(now, &a).unwrap_err(), Full::TooFast(10));
        now += Duration::from_millis(100);
        circuits.ended(mine.pop().unwrap());
        mine.push(circuits.begin(now, &a).unwrap());
        assert_eq!(circuits.begin(now, &a).unwrap_err(), Full::TooFast(10), "a tenth of a second earns one");
        let theirs: Vec<_> = (0..2).map(|_| circuits.begin(now, &b).unwrap()).collect();
        assert_eq!(circuits.begin(now, &b).unwrap_err(), Full::Total(5));
        for circuit in mine.into_iter().chain(theirs) {
            circuits.ended(circuit);
        }
        assert_eq!(circuits.open(), 0);
        now += Duration::from_secs(60);
        drop(circuits.begin(now, &b).unwrap());
        assert_eq!(circuits.peers.len(), 1, "who rests is forgotten");
    }
}
