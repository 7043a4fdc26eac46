//! Who may hold a place before it has proven anything, and who has guessed too often. No I/O, no clock.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use trunkline_route::NodeName;

/// The bounds of what strangers can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections before authentication, in all. Default 512.
    pub slots: usize,
    /// Places that a prefix keeps which authenticated within the hour. Default 32.
    pub allowance: usize,
    /// Failed proofs per prefix before each further one costs a wait. Default 5.
    pub free_failures: u32,
    /// The longest such wait; it starts at one second and doubles. Default 60 s.
    pub longest_wait: Duration,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { slots: 512, allowance: 32, free_failures: 5, longest_wait: Duration::from_secs(60) }
    }
}

/// How long a success speaks for a prefix.
const TRUST: Duration = Duration::from_secs(3600);
/// How long a failure is remembered after the last one.
const GRUDGE: Duration = Duration::from_secs(3600);
/// Prefixes and callers remembered; the oldest go first.
const MEMORY: usize = 4096;

/// A place taken by one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u64);

/// The network a stranger comes from: IPv4 /24, IPv6 /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix([u8; 8]);

impl Prefix {
    /// The prefix of an address.
    pub fn of(ip: IpAddr) -> Self {
        let mut out = [0; 8];
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                out[0] = 4;
                out[1..4].copy_from_slice(&ip.octets()[..3]);
            }
            IpAddr::V6(ip) => {
                out[0] = 6;
                out[1..].copy_from_slice(&ip.octets()[..7]);
            }
        }
        Self(out)
    }
}

#[derive(Debug)]
struct Slot {
    prefix: Prefix,
    heard: Instant,
}

/// A proof under way, counted as failed; hand it to [`Gate::proved`] when it was valid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a proof that is not handed back stays a failure"]
pub struct Proof {
    prefix: Prefix,
    name: NodeName,
    /// It was counted against the caller by itself.
    known: bool,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    until: Option<Instant>,
    last: Option<Instant>,
}

/// Places before authentication, and failed proofs.
#[derive(Debug)]
pub struct Gate {
    limits: GateLimits,
    next: u64,
    slots: BTreeMap<SlotId, Slot>,
    trusted: HashMap<Prefix, Instant>,
    known: HashMap<(Prefix, NodeName), Instant>,
    failures: HashMap<(Prefix, Option<NodeName>), Failures>,
}

impl Gate {
    /// An empty gate.
    pub fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            next: 0,
            slots: BTreeMap::new(),
            trusted: HashMap::new(),
            known: HashMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Takes a place. When all are taken, the longest-silent connection of the fullest prefix must go (the
    /// second value): prefixes that authenticated within the hour are only drawn on beyond their allowance.
    pub fn admit(&mut self, now: Instant, ip: IpAddr) -> (SlotId, Option<SlotId>) {
        let evicted = (self.slots.len() >= self.limits.slots).then(|| self.victim(now)).flatten();
        if let Some(id) = evicted {
            self.slots.remove(&id);
        }
        let id = SlotId(self.next);
        self.next += 1;
        self.slots.insert(id, Slot { prefix: Prefix::of(ip), heard: now });
        (id, evicted)
    }

    fn victim(&self, now: Instant) -> Option<SlotId> {
        let mut fullness = BTreeMap::<Prefix, usize>::new();
        for slot in self.slots.values() {
            *fullness.entry(slot.prefix).or_default() += 1;
        }
        let weight = |prefix: &Prefix, held: usize| {
            let allowed = if self.is_trusted(now, *prefix) { self.limits.allowance } else { 0 };
            (held.saturating_sub(allowed), held)
        };
        let fullest = fullness.iter().max_by_key(|(prefix, held)| weight(prefix, **held))?.0;
        self.slots.iter().filter(|(_, s)| s.prefix == *fullest).min_by_key(|(_, s)| s.heard).map(|(id, _)| *id)
    }

    fn is_trusted(&self, now: Instant, prefix: Prefix) -> bool {
        self.trusted.get(&prefix).is_some_and(|&at| now.saturating_duration_since(at) < TRUST)
    }

    /// A connection said something that moved its handshake on. Bytes that do not complete a message are no
    /// progress: a peer that trickles counts as silent.
    pub fn progressed(&mut self, now: Instant, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.heard = now;
        }
    }

    /// Gives the place back. Says whether it was still held: `false` means that it went to somebody else.
    pub fn release(&mut self, id: SlotId) -> bool {
        self.slots.remove(&id).is_some()
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.slots.len()
    }

    /// Failures count against the prefix, except that a caller which authenticated from there within the hour
    /// is counted by itself: a stranger's guesses do not lock out the neighbours.
    fn failure_key(&self, now: Instant, ip: IpAddr, name: &NodeName) -> (Prefix, Option<NodeName>) {
        let prefix = Prefix::of(ip);
        let known = self.known.get(&(prefix, name.clone()));
        let known = known.is_some_and(|&at| now.saturating_duration_since(at) < TRUST);
        (prefix, known.then(|| name.clone()))
    }

    /// How long this caller must wait before it may try again; `None` when it need not.
    pub fn must_wait(&self, now: Instant, ip: IpAddr, name: &NodeName) -> Option<Duration> {
        let until = self.failures.get(&self.failure_key(now, ip, name))?.until?;
        (until > now).then(|| until - now)
    }

    /// A proof begins: it counts as failed until [`Gate::proved`] takes it back. Failures are forgotten when none
    /// came for an hour.
    pub fn proof_begins(&mut self, now: Instant, ip: IpAddr, name: &NodeName) -> Proof {
        let key = self.failure_key(now, ip, name);
        let proof = Proof { prefix: key.0, name: name.clone(), known: key.1.is_some() };
        let limits = self.limits;
        if self.failures.len() >= MEMORY && !self.failures.contains_key(&key) {
            let oldest = self.failures.iter().min_by_key(|(_, f)| f.last).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.failures.remove(&key));
        }
        let failures = self.failures.entry(key).or_default();
        if failures.last.is_some_and(|last| now.saturating_duration_since(last) > GRUDGE) {
            *failures = Failures::default();
        }
        failures.last = Some(now);
        failures.count = failures.count.saturating_add(1);
        if let Some(beyond) = failures.count.checked_sub(limits.free_failures + 1) {
            let wait = Duration::from_secs(1 << beyond.min(16)).min(limits.longest_wait);
            failures.until = Some(now + wait);
        }
        proof
    }

    /// The proof was valid: what its beginning counted is taken back, and nothing else, so that guesses are not
    /// forgotten because a neighbour holds the cookie.
    pub fn proved(&mut self, now: Instant, proof: Proof) {
        let Proof { prefix, name, known } = proof;
        let key = (prefix, known.then(|| name.clone()));
        if let Some(failures) = self.failures.get_mut(&key) {
            failures.count = failures.count.saturating_sub(1);
            if failures.count <= self.limits.free_failures {
                failures.until = None;
            }
            if failures.count == 0 {
                self.failures.remove(&key);
            }
        }
        remember(&mut self.trusted, prefix, now);
        remember(&mut self.known, (prefix, name), now);
    }
}

fn remember<K: Clone + Eq + std::hash::Hash>(map: &mut HashMap<K, Instant>, key: K, now: Instant) {
    if map.len() >= MEMORY && !map.contains_key(&key) {
        let oldest = map.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone());
        oldest.and_then(|key| map.remove(&key));
    }
    map.insert(key, now);
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prove(gate: &mut Gate, now: Instant, ip: IpAddr, name: &NodeName) {
        let proof = gate.proof_begins(now, ip, name);
        gate.proved(now, proof);
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_full_gate_sends_away_the_longest_silent_of_the_fullest_prefix() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits { slots: 4, ..GateLimits::default() });
        let lone = gate.admit(now, ip("10.0.1.1")).0;
        let crowd: Vec<_> = (0..3).map(|n| gate.admit(now + secs(n), ip(&format!("10.0.2.{n}"))).0).collect();
        gate.progressed(now + secs(9), crowd[0]);
        assert_eq!(gate.admit(now + secs(10), ip("10.0.3.1")).1, Some(crowd[1]));
        assert_eq!(gate.taken(), 4);
        assert_ne!(gate.admit(now + secs(11), ip("10.0.3.2")).1, Some(lone));
    }

    #[test]
    fn a_prefix_that_authenticated_keeps_an_allowance() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits { slots: 4, allowance: 3, ..GateLimits::default() });
        prove(&mut gate, now, ip("10.0.1.1"), &"a@h".parse().unwrap());
        for n in 0..3 {
            gate.admit(now, ip(&format!("10.0.1.{n}")));
        }
        let stranger = gate.admit(now, ip("10.0.2.1")).0;
        assert_eq!(gate.admit(now, ip("10.0.2.2")).1, Some(stranger));
        assert_eq!(gate.slots.len(), 4);
    }

    #[test]
    fn the_sixth_failure_costs_a_second_and_the_wait_doubles_up_to_a_minute() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let (from, name) = (ip("10.0.1.1"), "a@h".parse().unwrap());
        let mut waits = vec![];
        for _ in 0..14 {
            let _ = gate.proof_begins(now, from, &name);
            waits.push(gate.must_wait(now, from, &name).map_or(0, |w| w.as_secs()));
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(gate.must_wait(now, ip("10.0.2.1"), &name), None);
        // Forgotten an hour after the last one.
        let _ = gate.proof_begins(now + secs(3700), from, &name);
        assert_eq!(gate.must_wait(now + secs(3700), from, &name), None);
    }

    #[test]
    fn a_valid_proof_takes_back_itself_and_no_guess_of_a_neighbour() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let (from, friend, stranger) = (ip("10.0.1.1"), "friend@h".parse().unwrap(), "x@h".parse().unwrap());
        for _ in 0..5 {
            let _ = gate.proof_begins(now, from, &stranger);
            prove(&mut gate, now, from, &friend);
        }
        assert_eq!(gate.must_wait(now, from, &stranger), None);
        let _ = gate.proof_begins(now, from, &stranger);
        prove(&mut gate, now, from, &friend);
        assert!(gate.must_wait(now, from, &stranger).is_some());
        assert_eq!(gate.must_wait(now, from, &friend), None);
    }

    #[test]
    fn a_valid_sixth_proof_costs_no_wait() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let (from, name) = (ip("10.0.1.1"), "a@h".parse().unwrap());
        for _ in 0..5 {
            let _ = gate.proof_begins(now, from, &name);
        }
        prove(&mut gate, now, from, &name);
        assert_eq!(gate.must_wait(now, from, &"b@h".parse().unwrap()), None);
    }

    #[test]
    fn valid_proofs_are_never_slowed_down_also_when_several_are_under_way() {
        let now = Instant::now();
        let names: [NodeName; 3] = ["a@h", "b@h", "c@h"].map(|name| name.parse().unwrap());
        for (most, distinct) in [(1, 1), (2, 1), (3, 1), (3, 3)] {
            let mut gate = Gate::new(GateLimits::default());
            let (from, mut under_way) = (ip("10.0.1.1"), VecDeque::new());
            for n in 0..1000 {
                let (now, name) = (now + secs(n as u64 * 10), &names[n % distinct]);
                assert_eq!(gate.must_wait(now, from, name), None, "{n} of {most}");
                under_way.push_back(gate.proof_begins(now, from, name));
                if under_way.len() == most {
                    // In order and out of it.
                    let proof = if n % 2 == 0 { under_way.pop_front() } else { under_way.pop_back() };
                    gate.proved(now, proof.unwrap());
                }
            }
            for proof in under_way {
                gate.proved(now, proof);
            }
            assert!(gate.failures.is_empty(), "nothing is left behind");
        }
    }

    #[test]
    fn guesses_of_a_stranger_do_not_lock_out_a_known_neighbour() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let (from, friend, stranger) = (ip("10.0.1.1"), "friend@h".parse().unwrap(), "x@h".parse().unwrap());
        prove(&mut gate, now, from, &friend);
        for _ in 0..20 {
            let _ = gate.proof_begins(now, from, &stranger);
        }
        assert!(gate.must_wait(now, from, &stranger).is_some());
        assert_eq!(gate.must_wait(now, from, &friend), None);
    }

    #[test]
    fn p6_memory_is_bounded_whatever_the_input() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for n in 0..20_000u32 {
            let from = IpAddr::from(n.to_be_bytes().map(|b| b.wrapping_mul(7)));
            let name: NodeName = format!("n{n}@h").parse().unwrap();
            gate.admit(now, from);
            let proof = gate.proof_begins(now, from, &name);
            if n % 3 == 0 {
                gate.proved(now, proof);
            }
        }
        assert!(gate.slots.len() <= 512 && gate.failures.len() <= MEMORY);
        assert!(gate.trusted.len() <= MEMORY && gate.known.len() <= MEMORY);
    }
}
