//! Places before authentication, and the pace of cookie proofs. No I/O, no clock.
//!
//! A proof that fails is a guess at the cookie. A cookie made as documented (128 random bits and more) needs no protection
//! against guesses: all that a processor can answer in a year are some 37 bits. Proofs of a strong cookie are never delayed,
//! whatever failed before. Proofs of a weak
//! cookie are paced on three levels: by caller (address and claimed name), by lane (a network, or the gateway that callers
//! come through), and over all lanes. A caller that must wait queues, at most [`QUEUE_TIMEOUT`]; callers that had no turn yet go
//! first, and a proof that succeeds makes room for the next one at once, so that only failures cost time.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use trunkline_route::NodeName;

/// Bounds on what callers can hold and try before they are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections before authentication, of all listeners of a node together. Default 512.
    pub slots: usize,
    /// Places that a network keeps after an authentication from it within the hour. Default 32.
    pub allowance: usize,
    /// Failed proofs of a weak cookie, per caller and per lane, before further ones are paced. Default 5.
    pub free_failures: u32,
    /// Longest pause between two proofs of one caller; it starts at one second and doubles. Default 60 s.
    pub longest_wait: Duration,
}

impl Default for GateLimits {
    fn default() -> Self {
        Self { slots: 512, allowance: 32, free_failures: 5, longest_wait: Duration::from_secs(60) }
    }
}

/// Longest time that a caller queues for its turn to prove a weak cookie before it is refused as throttled.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed proof of a weak cookie in a lane that has used up its free failures.
const LANE_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failed proof of a weak cookie in any lane, once all lanes have used up their free failures: ten guesses a
/// second at most, whatever number of networks they come from.
const OVERALL_PAUSE: Duration = Duration::from_millis(100);
/// Failed proofs of weak cookies over all lanes before [`OVERALL_PAUSE`] applies.
const OVERALL_FREE: u32 = 64;
/// Time for which a success speaks for a network.
const TRUST: Duration = Duration::from_secs(3600);
/// Time for which failures are remembered after the last one.
const GRUDGE: Duration = Duration::from_secs(3600);
/// Callers, lanes and networks remembered; the oldest go first.
const MEMORY: usize = 4096;

/// Identifier of a place taken by one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u64);

/// Identifier of a caller in the queue for a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The network an address belongs to: IPv4 /24, IPv6 /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix([u8; 8]);

impl Prefix {
    /// Returns the network of an address.
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

/// Origin of a caller and the name it claims. The name is not proven.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Address of the connection: of the caller, or of the last gateway before this node.
    pub ip: IpAddr,
    /// Last gateway before this node, for a caller that comes through one.
    pub via: Option<NodeName>,
    /// Claimed name.
    pub name: NodeName,
}

impl Caller {
    fn lane(&self) -> Lane {
        match &self.via {
            Some(gateway) => Lane::Through(gateway.clone()),
            // Everybody on this host has the same network: one program must not slow all others down.
            None if self.ip.to_canonical().is_loopback() => Lane::Loopback(self.name.clone()),
            None => Lane::Network(Prefix::of(self.ip)),
        }
    }
}

/// Group of callers whose failures are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Network(Prefix),
    Loopback(NodeName),
    Through(NodeName),
}

#[derive(Debug)]
struct Slot {
    prefix: Prefix,
    heard: Instant,
}

/// A proof under way, counted as failed until it is handed to [`Gate::proved`] or [`Gate::void`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a proof that is not handed back stays a failure"]
pub struct Proof {
    caller: Caller,
    /// Serial number of its turn, for a weak cookie.
    turn: Option<u64>,
}

impl Proof {
    /// Returns the caller that is to prove itself.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// Answer to a caller that asks for a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The proof may begin now.
    Now(Proof),
    /// The caller waits in the queue; ask again with [`Gate::turn`] at this time or when the gate changed.
    Wait(Ticket, Option<Instant>),
    /// The caller cannot have a turn within [`QUEUE_TIMEOUT`]; it may come back after this time.
    Refused(Duration),
}

/// Failures of one caller or lane, and when its next proof may begin.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
    until: Option<Instant>,
    /// Serial number of the last turn; 0 before the first.
    turn: u64,
}

impl Failures {
    fn forget_if_old(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > GRUDGE) {
            *self = Self::default();
        }
    }

    fn begin(&mut self, now: Instant, turn: u64) {
        self.last = Some(now);
        self.count = self.count.saturating_add(1);
        self.turn = turn;
    }

    /// Takes one failure back; the next proof need not wait for it. A pause that a later one began stays.
    fn take_back(&mut self, turn: u64) {
        self.count = self.count.saturating_sub(1);
        if self.turn == turn {
            self.until = None;
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

/// Counters of what happened before authentication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateStats {
    /// Places taken now.
    pub taken: usize,
    /// Connections that lost their place to another one.
    pub evicted: u64,
    /// Proofs that failed or were not finished: mostly callers with another cookie.
    pub failed_proofs: u64,
    /// Callers refused because too many proofs of a weak cookie failed before.
    pub throttled: u64,
}

/// Places before authentication and the pace of proofs, of one node.
///
/// ```
/// use std::time::{Duration, Instant};
/// use trunkline_wire::gate::{Caller, Gate, GateLimits, Turn};
///
/// let mut gate = Gate::new(GateLimits::default());
/// let mut now = Instant::now();
/// let caller = Caller { ip: "203.0.113.7".parse()?, via: None, name: "guest@lab".parse()? };
/// // The first failures are free; further proofs of a weak cookie have to wait.
/// for _ in 0..6 {
///     let Turn::Now(proof) = gate.ask(now, caller.clone(), true) else { panic!("too early") };
///     gate.failed(proof);
/// }
/// let Turn::Wait(ticket, Some(at)) = gate.ask(now, caller, true) else { panic!("no pause") };
/// assert!(at > now);
/// now += Duration::from_secs(1);
/// assert!(matches!(gate.turn(now, ticket), Turn::Now(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gate {
    limits: GateLimits,
    next: u64,
    slots: BTreeMap<SlotId, Slot>,
    trusted: HashMap<Prefix, Instant>,
    callers: HashMap<Caller, Failures>,
    lanes: HashMap<Lane, Failures>,
    overall: Failures,
    queue: BTreeMap<Ticket, Caller>,
    stats: GateStats,
}

impl Gate {
    /// Creates an empty gate.
    pub fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            next: 0,
            slots: BTreeMap::new(),
            trusted: HashMap::new(),
            callers: HashMap::new(),
            lanes: HashMap::new(),
            overall: Failures::default(),
            queue: BTreeMap::new(),
            stats: GateStats::default(),
        }
    }

    /// Returns the counters.
    pub fn stats(&self) -> GateStats {
        GateStats { taken: self.slots.len(), ..self.stats }
    }

    fn serial(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes a place. When all are taken, the longest-silent connection of the fullest network must go (the
    /// second value): networks that authenticated within the hour are only drawn on beyond their allowance.
    pub fn admit(&mut self, now: Instant, ip: IpAddr) -> (SlotId, Option<SlotId>) {
        let evicted = (self.slots.len() >= self.limits.slots).then(|| self.victim(now)).flatten();
        if let Some(id) = evicted {
            self.slots.remove(&id);
            self.stats.evicted += 1;
        }
        let id = SlotId(self.serial());
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

    /// Notes that a connection completed a message of its handshake. Bytes that do not complete one are no progress: a
    /// peer that trickles counts as silent.
    pub fn progressed(&mut self, now: Instant, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.heard = now;
        }
    }

    /// Gives a place back. Returns `false` if another connection had taken it.
    pub fn release(&mut self, id: SlotId) -> bool {
        self.slots.remove(&id).is_some()
    }

    /// Asks for the proof of a caller. `is_weak` tells whether the cookie to be proven is weak; any other one is proven
    /// at once.
    pub fn ask(&mut self, now: Instant, caller: Caller, is_weak: bool) -> Turn {
        if !is_weak {
            return Turn::Now(Proof { caller, turn: None });
        }
        let wait = self.callers.get(&caller).and_then(|own| own.until?.checked_duration_since(now));
        if let Some(wait) = wait.filter(|wait| *wait > QUEUE_TIMEOUT) {
            self.stats.throttled += 1;
            return Turn::Refused(wait);
        }
        let ticket = Ticket(self.serial());
        self.queue.insert(ticket, caller);
        self.turn(now, ticket)
    }

    /// Asks again for the turn of a caller in the queue. A ticket that is not in the queue is refused.
    pub fn turn(&mut self, now: Instant, ticket: Ticket) -> Turn {
        let Some(caller) = self.queue.get(&ticket) else { return Turn::Refused(QUEUE_TIMEOUT) };
        let lane = caller.lane();
        let own = self.callers.get(caller).and_then(|own| own.until);
        let of_lane = self.lanes.get(&lane).and_then(|lane| lane.until);
        let at = [own, of_lane, self.overall.until].into_iter().flatten().max().filter(|at| *at > now);
        if at.is_some() || self.first_of(now, &lane) != Some(ticket) {
            return Turn::Wait(ticket, at);
        }
        let caller = self.queue.remove(&ticket).expect("it was there above");
        Turn::Now(self.begin(now, caller, lane))
    }

    /// The ticket in a lane whose turn it is: of callers that may go, the one whose last turn is longest ago.
    fn first_of(&self, now: Instant, lane: &Lane) -> Option<Ticket> {
        let waiting = self.queue.iter().filter(|(_, caller)| caller.lane() == *lane);
        let ready = waiting.filter_map(|(ticket, caller)| {
            let own = self.callers.get(caller);
            own.is_none_or(|own| own.is_free(now)).then(|| (own.map_or(0, |own| own.turn), *ticket))
        });
        ready.min().map(|(_, ticket)| ticket)
    }

    fn begin(&mut self, now: Instant, caller: Caller, lane: Lane) -> Proof {
        let (turn, limits) = (self.serial(), self.limits);
        make_room(&mut self.callers, &caller, |failures| failures.last);
        let own = self.callers.entry(caller.clone()).or_default();
        own.forget_if_old(now);
        own.begin(now, turn);
        if let Some(beyond) = own.count.checked_sub(limits.free_failures.saturating_add(1)) {
            own.until = Some(now + Duration::from_secs(1 << beyond.min(16)).min(limits.longest_wait));
        }
        make_room(&mut self.lanes, &lane, |failures| failures.last);
        let of_lane = self.lanes.entry(lane).or_default();
        for (failures, free, pause) in
            [(of_lane, limits.free_failures, LANE_PAUSE), (&mut self.overall, OVERALL_FREE, OVERALL_PAUSE)]
        {
            failures.forget_if_old(now);
            failures.begin(now, turn);
            failures.until = (failures.count > free).then(|| now + pause);
        }
        Proof { caller, turn: Some(turn) }
    }

    /// Removes a caller from the queue. `throttled` tells that it was refused, and did not leave by itself.
    pub fn leave(&mut self, ticket: Ticket, throttled: bool) {
        if self.queue.remove(&ticket).is_some() && throttled {
            self.stats.throttled += 1;
        }
    }

    /// Takes a valid proof: what its beginning counted is taken back, and nothing else, so that guesses are not
    /// forgotten because a neighbour holds the cookie.
    pub fn proved(&mut self, now: Instant, proof: Proof) {
        let prefix = Prefix::of(proof.caller.ip);
        make_room(&mut self.trusted, &prefix, |at| Some(*at));
        self.trusted.insert(prefix, now);
        self.void(proof);
    }

    /// Takes back a proof that was not asked for in the end: no HELLO2 was sent, so nothing could be guessed.
    pub fn void(&mut self, proof: Proof) {
        let Some(turn) = proof.turn else { return };
        take_back(&mut self.callers, &proof.caller, turn);
        take_back(&mut self.lanes, &proof.caller.lane(), turn);
        self.overall.take_back(turn);
    }

    /// Counts a proof that failed or was not finished, and returns its caller.
    pub fn failed(&mut self, proof: Proof) -> Caller {
        self.stats.failed_proofs += 1;
        proof.caller
    }
}

fn take_back<K: Eq + Hash>(map: &mut HashMap<K, Failures>, key: &K, turn: u64) {
    if let Some(failures) = map.get_mut(key) {
        failures.take_back(turn);
        if failures.count == 0 {
            map.remove(key);
        }
    }
}

/// Removes the oldest entry of a full map that has no entry of this key.
fn make_room<K: Clone + Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K, age: impl Fn(&V) -> Option<Instant>) {
    if map.len() >= MEMORY && !map.contains_key(key) {
        let oldest = map.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| key.clone());
        oldest.and_then(|key| map.remove(&key));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn caller(ip: &str, name: &str) -> Caller {
        Caller { ip: self::ip(ip), via: None, name: name.parse().unwrap() }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Makes one guess at a weak cookie; returns the refusal if there is one.
    fn guess(gate: &mut Gate, now: Instant, caller: Caller) -> Result<(), Duration> {
        match gate.ask(now, caller, true) {
            Turn::Now(proof) => {
                gate.failed(proof);
                Ok(())
            }
            Turn::Wait(ticket, at) => {
                gate.leave(ticket, true);
                Err(at.map_or(Duration::ZERO, |at| at - now))
            }
            Turn::Refused(wait) => Err(wait),
        }
    }

    /// Lets callers with the right weak cookie ask at `now`; returns when each one got its turn.
    fn turns(gate: &mut Gate, mut now: Instant, callers: Vec<Caller>) -> Vec<Option<Duration>> {
        let (began, mut tickets) = (now, Vec::new());
        let mut out = vec![None; callers.len()];
        for (n, caller) in callers.into_iter().enumerate() {
            match gate.ask(now, caller, true) {
                Turn::Now(proof) => {
                    gate.proved(now, proof);
                    out[n] = Some(Duration::ZERO);
                }
                Turn::Wait(ticket, _) => tickets.push((n, ticket)),
                Turn::Refused(_) => {}
            }
        }
        while now < began + QUEUE_TIMEOUT && !tickets.is_empty() {
            tickets.retain(|(n, ticket)| match gate.turn(now, *ticket) {
                Turn::Now(proof) => {
                    gate.proved(now, proof);
                    out[*n] = Some(now - began);
                    false
                }
                Turn::Wait(..) => true,
                Turn::Refused(_) => false,
            });
            now += Duration::from_millis(10);
        }
        out
    }

    #[test]
    fn a_full_gate_sends_away_the_longest_silent_of_the_fullest_prefix() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits { slots: 4, ..GateLimits::default() });
        let lone = gate.admit(now, ip("10.0.1.1")).0;
        let crowd: Vec<_> = (0..3).map(|n| gate.admit(now + secs(n), ip(&format!("10.0.2.{n}"))).0).collect();
        gate.progressed(now + secs(9), crowd[0]);
        assert_eq!(gate.admit(now + secs(10), ip("10.0.3.1")).1, Some(crowd[1]));
        assert_eq!(gate.stats().taken, 4);
        assert_ne!(gate.admit(now + secs(11), ip("10.0.3.2")).1, Some(lone));
        assert_eq!(gate.stats().evicted, 2);
    }

    #[test]
    fn a_prefix_that_authenticated_keeps_an_allowance() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits { slots: 4, allowance: 3, ..GateLimits::default() });
        let Turn::Now(proof) = gate.ask(now, caller("10.0.1.1", "a@h"), false) else { panic!("strong") };
        gate.proved(now, proof);
        for n in 0..3 {
            gate.admit(now, ip(&format!("10.0.1.{n}")));
        }
        let stranger = gate.admit(now, ip("10.0.2.1")).0;
        assert_eq!(gate.admit(now, ip("10.0.2.2")).1, Some(stranger));
        assert_eq!(gate.slots.len(), 4);
    }

    #[test]
    fn proofs_of_a_strong_cookie_are_never_delayed_whatever_failed_before() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for n in 0..10_000 {
            let Turn::Now(proof) = gate.ask(now, caller("10.0.1.1", "a@h"), false) else { panic!("delayed at {n}") };
            gate.failed(proof);
        }
        assert_eq!(gate.stats().failed_proofs, 10_000);
        assert_eq!(gate.stats().throttled, 0);
    }

    #[test]
    fn the_sixth_failure_of_a_caller_costs_a_second_and_the_pause_doubles_up_to_a_minute() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let (mut at, mut pauses) = (now, vec![]);
        for _ in 0..13 {
            while guess(&mut gate, at, caller("10.0.1.1", "a@h")).is_err() {
                at += secs(1);
            }
            pauses.push((at - now).as_secs());
        }
        assert_eq!(pauses, [0, 0, 0, 0, 0, 0, 1, 3, 7, 15, 31, 63, 123]);
        // Forgotten an hour after the last one.
        let later = at + secs(3700);
        for _ in 0..5 {
            assert_eq!(guess(&mut gate, later, caller("10.0.1.1", "a@h")), Ok(()));
        }
    }

    #[test]
    fn callers_that_change_their_name_make_one_guess_a_second_per_network() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let mut guesses = 0;
        for tenth in 0..600u64 {
            let at = now + Duration::from_millis(100 * tenth);
            for n in 0..10 {
                let name = format!("n{tenth}-{n}@h");
                guesses += u32::from(guess(&mut gate, at, caller(&format!("10.0.1.{n}"), &name)).is_ok());
            }
        }
        assert!((60..=66).contains(&guesses), "{guesses} in a minute");
    }

    #[test]
    fn callers_from_many_networks_make_ten_guesses_a_second_in_all() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let mut guesses = 0;
        for n in 0..60_000u32 {
            let from = IpAddr::from((0x0a00_0000 + (n << 8)).to_be_bytes());
            let at = now + Duration::from_millis(u64::from(n));
            let caller = Caller { ip: from, via: None, name: format!("n{n}@h").parse().unwrap() };
            guesses += u32::from(guess(&mut gate, at, caller).is_ok());
        }
        assert!((600..=665).contains(&guesses), "{guesses} in a minute");
    }

    #[test]
    fn thirty_fresh_callers_get_in_within_two_seconds_beside_a_neighbour_that_guesses() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for half in 0..40 {
            let _ = guess(&mut gate, now + Duration::from_millis(500 * half), caller("10.0.1.1", "old@h"));
        }
        let fresh = (0..30).map(|n| caller(&format!("10.0.1.{}", n + 2), &format!("n{n}@h"))).collect();
        let turns = turns(&mut gate, now + secs(20), fresh);
        assert!(turns.iter().all(Option::is_some), "{turns:?}");
    }

    #[test]
    fn programs_on_one_host_and_callers_behind_a_gateway_do_not_slow_others_down() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        let through = |name| Caller { via: Some("gw@h".parse().unwrap()), ..caller("10.0.1.1", name) };
        for _ in 0..10 {
            let _ = guess(&mut gate, now, caller("127.0.0.1", "old@h"));
            let _ = guess(&mut gate, now, through("old@h"));
        }
        assert!(guess(&mut gate, now, caller("127.0.0.1", "old@h")).is_err());
        let others = vec![caller("127.0.0.1", "new@h"), caller("10.0.1.1", "new@h")];
        assert_eq!(turns(&mut gate, now, others), [Some(Duration::ZERO); 2]);
    }

    #[test]
    fn valid_proofs_of_a_weak_cookie_are_not_slowed_down_and_leave_nothing_behind() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for n in 0..1000u64 {
            let callers = (0..=n % 4).map(|k| caller("10.0.1.1", &format!("n{k}@h"))).collect();
            let turns = turns(&mut gate, now + secs(n * 10), callers);
            assert!(turns.iter().all(|turn| *turn == Some(Duration::ZERO)), "{turns:?}");
        }
        assert!(gate.callers.is_empty() && gate.lanes.is_empty() && gate.queue.is_empty());
    }

    #[test]
    fn a_valid_proof_takes_back_itself_and_no_guess_of_a_neighbour() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for _ in 0..6 {
            let _ = guess(&mut gate, now, caller("10.0.1.1", "x@h"));
        }
        assert_eq!(turns(&mut gate, now, vec![caller("10.0.1.2", "friend@h")]), [Some(secs(1))]);
        assert_eq!(guess(&mut gate, now + secs(1), caller("10.0.1.1", "x@h")), Ok(()));
        assert!(guess(&mut gate, now + secs(1), caller("10.0.1.1", "x@h")).is_err());
    }

    #[test]
    fn a_valid_proof_that_takes_its_time_ends_no_pause_of_a_guess_that_came_after_it() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for n in 0..5 {
            let _ = guess(&mut gate, now, caller("10.0.1.1", &format!("n{n}@h")));
        }
        let Turn::Now(slow) = gate.ask(now, caller("10.0.1.2", "friend@h"), true) else { panic!("its turn") };
        assert_eq!(guess(&mut gate, now + secs(1), caller("10.0.1.1", "x@h")), Ok(()));
        gate.proved(now + secs(1), slow);
        assert_eq!(guess(&mut gate, now + secs(1), caller("10.0.1.1", "y@h")), Err(secs(1)));
    }

    #[test]
    fn p6_memory_is_bounded_whatever_the_input() {
        let now = Instant::now();
        let mut gate = Gate::new(GateLimits::default());
        for n in 0..20_000u32 {
            let from = IpAddr::from(n.to_be_bytes().map(|b| b.wrapping_mul(7)));
            gate.admit(now, from);
            let caller = Caller { ip: from, via: None, name: format!("n{n}@h").parse().unwrap() };
            match gate.ask(now + secs(n.into()), caller, n % 2 == 0) {
                Turn::Now(proof) if n % 3 == 0 => gate.proved(now, proof),
                Turn::Now(proof) => drop(gate.failed(proof)),
                Turn::Wait(ticket, _) => gate.leave(ticket, true),
                Turn::Refused(_) => {}
            }
        }
        assert!(gate.slots.len() <= 512 && gate.callers.len() <= MEMORY && gate.lanes.len() <= MEMORY);
        assert!(gate.trusted.len() <= MEMORY && gate.queue.is_empty());
    }
}
