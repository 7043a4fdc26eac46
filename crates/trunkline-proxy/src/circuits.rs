//! Limits on the connections that a gateway passes on.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use trunkline_route::NodeName;
use trunkline_stack::{Bucket, Rate};

/// Factor by which all neighbours at one address may ask for circuits more often than one neighbour: a host with that many nodes
/// is not slowed down, and a member that takes one name after the other is.
pub const ADDRESS_RATES: u32 = 4;

/// Limits on the connections that a gateway passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitLimits {
    /// Circuits at a time. Default 1,024.
    pub total: usize,
    /// Circuits of one neighbour at a time. Default 64.
    pub per_peer: usize,
    /// Circuits at a time of all neighbours together that connect from one address, whatever their names: an IPv4 address or
    /// the first 64 bits of an IPv6 address. A neighbour whose link goes through others counts at the address of the first of
    /// them. At least `per_peer`. Default 256.
    pub per_address: usize,
    /// New circuits that one neighbour may ask for per second, in the long run. Default 10. All neighbours at one address may
    /// ask for [`ADDRESS_RATES`] times as many.
    pub opens_per_second: u32,
    /// New circuits that one neighbour may ask for at once, after a pause. Default 50. All neighbours at one address may ask
    /// for [`ADDRESS_RATES`] times as many.
    pub burst: u32,
    /// Longest silence of a circuit, in both directions, before it is ended. Default 600 s. Links ping every few
    /// seconds: one that is idle for so long has lost an end.
    pub idle: Duration,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self {
            total: 1_024,
            per_peer: 64,
            per_address: 256,
            opens_per_second: 10,
            burst: 50,
            idle: Duration::from_secs(600),
        }
    }
}

/// Error returned when no further circuit is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The gateway carries as many as it may.
    #[error("the gateway carries {0} connections, as many as it may (`transit.circuits`)")]
    Total(usize),
    /// The neighbour has as many as it may.
    #[error("{0} connections of this node are carried, as many as may be (`transit.per_peer`)")]
    PerPeer(usize),
    /// The neighbours at one address have as many as they may.
    #[error("{0} connections of nodes at this address are carried, as many as may be (`transit.per_address`)")]
    PerAddress(usize),
    /// The neighbour asks too often.
    #[error("this node asks for more than {0} connections a second (`transit.opens_per_second`)")]
    TooFast(u32),
    /// The neighbours at one address ask too often.
    #[error("nodes at this address ask for more than {0} connections a second (`transit.opens_per_second`)")]
    AddressTooFast(u32),
}

/// Account of one neighbour, or of all at one address.
#[derive(Debug)]
struct Share {
    open: usize,
    opens: Bucket,
}

/// The shares of neighbours, or of addresses.
#[derive(Debug)]
struct Shares<K>(HashMap<K, Share>);

impl<K: Eq + Hash> Shares<K> {
    fn of(&mut self, now: Instant, key: K, rate: Rate) -> &mut Share {
        // Whoever has nothing open and a full allowance is as good as unknown.
        self.0.retain(|_, share| share.open > 0 || !share.opens.is_rested(now, rate));
        self.0.entry(key).or_insert_with(|| Share { open: 0, opens: Bucket::full(now, rate) })
    }

    fn ended(&mut self, key: &K) {
        if let Some(share) = self.0.get_mut(key) {
            share.open = share.open.saturating_sub(1);
        }
    }
}

/// The circuits a gateway carries.
#[derive(Debug)]
pub struct Circuits {
    limits: CircuitLimits,
    open: usize,
    peers: Shares<NodeName>,
    addresses: Shares<IpAddr>,
}

/// A circuit that is carried; give it back with [`Circuits::ended`].
#[derive(Debug)]
#[must_use = "a circuit counts until it is given back"]
pub struct Circuit {
    peer: NodeName,
    address: IpAddr,
}

/// Returns what counts as one address: an IPv4 address, or the network of an IPv6 address, which one host has as a whole.
fn account_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

impl Circuits {
    /// None yet.
    pub fn new(limits: CircuitLimits) -> Self {
        Self { limits, open: 0, peers: Shares(HashMap::new()), addresses: Shares(HashMap::new()) }
    }

    /// Returns the limits in use.
    pub fn limits(&self) -> CircuitLimits {
        self.limits
    }

    /// Carries so much at most from now on; what is carried already stays.
    pub fn set_limits(&mut self, limits: CircuitLimits) {
        self.limits = limits;
    }

    /// Reserves a circuit for a neighbour, whose link comes from this address.
    ///
    /// # Errors
    /// [`Full`]; it counts as having been asked for all the same. What a neighbour asks for beyond its own rate does not
    /// count for the others at its address.
    pub fn begin(&mut self, now: Instant, neighbour: &NodeName, address: IpAddr) -> Result<Circuit, Full> {
        let CircuitLimits { total, per_peer, per_address, opens_per_second, burst, idle: _ } = self.limits;
        let rate = Rate { burst, per_second: opens_per_second };
        let peer = self.peers.of(now, neighbour.clone(), rate);
        if !peer.opens.take(now, rate) {
            return Err(Full::TooFast(rate.per_second));
        }
        let rate = Rate {
            burst: burst.saturating_mul(ADDRESS_RATES),
            per_second: opens_per_second.saturating_mul(ADDRESS_RATES),
        };
        let address = account_of(address);
        let at_address = self.addresses.of(now, address, rate);
        if !at_address.opens.take(now, rate) {
            return Err(Full::AddressTooFast(rate.per_second));
        }
        if peer.open >= per_peer {
            return Err(Full::PerPeer(peer.open));
        }
        if at_address.open >= per_address.max(per_peer) {
            return Err(Full::PerAddress(at_address.open));
        }
        if self.open >= total {
            return Err(Full::Total(self.open));
        }
        peer.open += 1;
        at_address.open += 1;
        self.open += 1;
        Ok(Circuit { peer: neighbour.clone(), address })
    }

    /// One is over.
    pub fn ended(&mut self, circuit: Circuit) {
        self.peers.ended(&circuit.peer);
        self.addresses.ended(&circuit.address);
        self.open = self.open.saturating_sub(1);
    }

    /// Returns the number of open circuits.
    pub fn open(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

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
        let mut mine: Vec<_> = (0..3).map(|_| circuits.begin(now, &a, HOST).unwrap()).collect();
        assert_eq!(circuits.begin(now, &a, HOST).unwrap_err(), Full::PerPeer(3));
        assert_eq!(circuits.begin(now, &a, HOST).unwrap_err(), Full::TooFast(10));
        now += Duration::from_millis(100);
        circuits.ended(mine.pop().unwrap());
        mine.push(circuits.begin(now, &a, HOST).unwrap());
        assert_eq!(circuits.begin(now, &a, HOST).unwrap_err(), Full::TooFast(10), "a tenth of a second earns one");
        let theirs: Vec<_> = (0..2).map(|_| circuits.begin(now, &b, HOST).unwrap()).collect();
        assert_eq!(circuits.begin(now, &b, HOST).unwrap_err(), Full::Total(5));
        for circuit in mine.into_iter().chain(theirs) {
            circuits.ended(circuit);
        }
        assert_eq!(circuits.open(), 0);
        now += Duration::from_secs(60);
        drop(circuits.begin(now, &b, HOST).unwrap());
        assert_eq!((circuits.peers.0.len(), circuits.addresses.0.len()), (1, 1), "who rests is forgotten");
    }

    #[test]
    fn a_member_with_many_names_has_the_share_of_its_address() {
        let limits =
            CircuitLimits { per_peer: 2, per_address: 6, opens_per_second: 2, burst: 5, ..CircuitLimits::default() };
        let (mut circuits, now) = (Circuits::new(limits), start());
        let name = |n: u32| -> NodeName { format!("n{n}@x").parse().unwrap() };
        let [here, there]: [IpAddr; 2] = ["2001:db8:0:7::1", "2001:db8:0:8::1"].map(|ip| ip.parse().unwrap());
        let next_door: IpAddr = "2001:db8:0:7:ffff::9".parse().unwrap();
        let mine: Vec<_> = (0..3).flat_map(|n| [n, n]).map(|n| circuits.begin(now, &name(n), here).unwrap()).collect();
        assert_eq!(circuits.begin(now, &name(0), here).unwrap_err(), Full::PerPeer(2));
        assert_eq!(circuits.begin(now, &name(3), next_door).unwrap_err(), Full::PerAddress(6), "the same host");
        let theirs = circuits.begin(now, &name(3), there).unwrap();
        // So is the rate: 20 at once, of which 8 are gone, however many names ask.
        let more = (100..200).map(|n| circuits.begin(now, &name(n), here).unwrap_err()).collect::<Vec<_>>();
        let slow = |full: &&Full| **full == Full::AddressTooFast(8);
        assert_eq!((more.iter().filter(slow).count(), more.len()), (88, 100));
        // What one asks for beyond its own rate is not taken from the others there.
        let later = now + Duration::from_secs(10);
        for _ in 0..50 {
            let _ = circuits.begin(later, &name(0), here);
        }
        assert_eq!(circuits.begin(later, &name(4), here).unwrap_err(), Full::PerAddress(6));
        mine.into_iter().chain([theirs]).for_each(|circuit| circuits.ended(circuit));
        drop(circuits.begin(later, &name(4), here).unwrap());
        // An operator who gives one neighbour more means it.
        circuits.set_limits(CircuitLimits { per_peer: 1_000, ..limits });
        assert!(circuits.begin(later, &name(5), "::ffff:10.0.0.1".parse().unwrap()).is_ok());
        assert!(circuits.addresses.0.contains_key(&IpAddr::from([10, 0, 0, 1])));
    }
}
