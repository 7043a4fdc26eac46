//! Failures of recent attempts. Pure: the time is an argument. A failure demotes a candidate within its stage; only a wrong
//! cookie excludes it, since every dial gives whoever answers one more guess at the cookie.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use trunkline_route::{Address, Attempt, Cookie, NodeName};

use crate::AttemptError;

/// Ways and names remembered; beyond it the stalest go.
const CAPACITY: usize = 1024;
/// Cookies and names held against one way: behind an address may be a gateway to any number of names.
const PER_WAY: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Any,
    Cookie(Cookie),
    Name(NodeName),
}

#[derive(Debug, Clone)]
struct Failure {
    scope: Scope,
    count: u32,
    until: Instant,
    error: AttemptError,
}

impl Failure {
    fn concerns(&self, attempt: &Attempt) -> bool {
        match &self.scope {
            Scope::Any => true,
            Scope::Cookie(cookie) => *cookie == attempt.cookie,
            Scope::Name(name) => *name == attempt.target,
        }
    }
}

/// Range of the time for which a failure is remembered: from `base`, doubling up to `cap`.
struct Term {
    base: Duration,
    cap: Duration,
}

/// A way on which attempts failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Way {
    At(Address),
    Through { gateway: NodeName, to: NodeName },
}

impl Way {
    fn of(attempt: &Attempt) -> Self {
        match &attempt.via {
            Some(gateway) => Self::Through { gateway: gateway.clone(), to: attempt.target.clone() },
            None => Self::At(attempt.address.clone()),
        }
    }
}

/// Remembered failures, by way and by name. Cloning gives the snapshot a plan works with.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    ways: HashMap<Way, Vec<Failure>>,
    names: HashMap<NodeName, Failure>,
}

impl Memory {
    /// Returns an empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes how an attempt failed.
    pub fn failed(&mut self, now: Instant, attempt: &Attempt, error: &AttemptError) {
        let ms = Duration::from_millis;
        let (scope, base, cap) = match error {
            AttemptError::Dns(_) | AttemptError::Tcp(_) | AttemptError::Relay(_) => (Scope::Any, ms(100), ms(30_000)),
            AttemptError::RelayRefused(_) => (Scope::Any, ms(10_000), ms(10_000)),
            // What cost so long is not paid again sooner than it cost.
            AttemptError::DnsTimeout(cost) | AttemptError::TcpTimeout(cost) | AttemptError::CandidateTimeout(cost) => {
                (Scope::Any, (*cost).clamp(ms(100), ms(30_000)), ms(30_000))
            }
            AttemptError::Tls(_) | AttemptError::TlsTimeout(_) => (Scope::Any, ms(5_000), ms(5_000)),
            AttemptError::Handshake(_) | AttemptError::HandshakeTimeout(_) | AttemptError::Rejected(_) => {
                (Scope::Any, ms(2_000), ms(2_000))
            }
            AttemptError::WrongCookie => (Scope::Cookie(attempt.cookie.clone()), ms(5_000), ms(60_000)),
            AttemptError::WrongName { .. } | AttemptError::NameInUse(_) => {
                (Scope::Name(attempt.target.clone()), ms(10_000), ms(10_000))
            }
            AttemptError::Version(_) | AttemptError::Flags(_) => return self.name_failed(now, &attempt.target, error),
            _ => return,
        };
        let (term, way) = (Term { base, cap }, Way::of(attempt));
        if self.ways.len() >= CAPACITY && !self.ways.contains_key(&way) {
            evict(&mut self.ways, |failures| failures.iter().map(|f| f.until).max());
        }
        let failures = self.ways.entry(way).or_default();
        // A long-forgotten failure does not lengthen the next one.
        failures.retain(|f| now.saturating_duration_since(f.until) < Duration::from_secs(60));
        match failures.iter_mut().find(|f| f.scope == scope) {
            Some(failure) => {
                failure.count += 1;
                failure.until = now + term.after(failure.count);
                failure.error = error.clone();
            }
            None => {
                if failures.len() >= PER_WAY
                    && let Some(stalest) = (0..failures.len()).min_by_key(|n| failures[*n].until)
                {
                    failures.swap_remove(stalest);
                }
                failures.push(Failure { scope, count: 1, until: now + term.after(1), error: error.clone() });
            }
        }
    }

    fn name_failed(&mut self, now: Instant, name: &NodeName, error: &AttemptError) {
        if self.names.len() >= CAPACITY && !self.names.contains_key(name) {
            evict(&mut self.names, |failure| Some(failure.until));
        }
        let until = now + Duration::from_secs(5);
        self.names.insert(name.clone(), Failure { scope: Scope::Any, count: 1, until, error: error.clone() });
    }

    /// An attempt succeeded: what was held against it is forgotten. What is held against other cookies and names at
    /// its address stays.
    pub fn succeeded(&mut self, attempt: &Attempt) {
        let way = Way::of(attempt);
        if let Some(failures) = self.ways.get_mut(&way) {
            failures.retain(|failure| !failure.concerns(attempt));
            if failures.is_empty() {
                self.ways.remove(&way);
            }
        }
        self.names.remove(&attempt.target);
    }

    /// Returns the failure that is remembered against an attempt at this time, and for how much longer.
    pub fn against(&self, now: Instant, attempt: &Attempt) -> Option<(Duration, &AttemptError)> {
        let of_way = self.ways.get(&Way::of(attempt)).into_iter().flatten().filter(|f| f.concerns(attempt));
        of_way
            .chain(self.names.get(&attempt.target))
            .filter(|f| f.until > now)
            .max_by_key(|f| f.until)
            .map(|f| (f.until - now, &f.error))
    }

    /// Returns for how much longer the cookie of an attempt is not to be shown on its way, because it was wrong there.
    pub fn refuses_cookie(&self, now: Instant, attempt: &Attempt) -> Option<Duration> {
        let of_way = self.ways.get(&Way::of(attempt))?;
        let refused = of_way.iter().find(|f| f.scope == Scope::Cookie(attempt.cookie.clone()) && f.until > now)?;
        Some(refused.until - now)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Term {
    fn after(&self, count: u32) -> Duration {
        self.base.saturating_mul(1 << (count - 1).min(20)).min(self.cap)
    }
}

fn evict<K: Clone + Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, until: impl Fn(&V) -> Option<Instant>) {
    let stalest = map.iter().min_by_key(|(_, value)| until(value)).map(|(key, _)| key.clone());
    if let Some(key) = stalest {
        map.remove(&key);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;
    use trunkline_route::{Defaults, NetworkRoute};

    fn attempt(port: u16, cookie: &str) -> Attempt {
        let cookie = Cookie::new(format!("cookie-{cookie}")).unwrap();
        let route = NetworkRoute::direct("127.0.0.1", port).unwrap().cookie(cookie.clone()).build();
        route.attempt(&"a@h".parse().unwrap(), None, &Defaults::new(cookie)).unwrap()
    }

    fn tcp() -> AttemptError {
        AttemptError::Tcp("refused".into())
    }

    #[test]
    fn a_refused_address_is_remembered_for_longer_each_time_up_to_half_a_minute() {
        let (now, mut memory, a) = (Instant::now(), Memory::new(), attempt(1, "x"));
        let mut terms = vec![];
        for _ in 0..11 {
            memory.failed(now, &a, &tcp());
            terms.push(memory.against(now, &a).unwrap().0.as_millis());
        }
        assert_eq!(terms[..4], [100, 200, 400, 800]);
        assert_eq!(terms[10], 30_000);
        assert_eq!(memory.against(now + Duration::from_secs(31), &a), None);
    }

    #[test]
    fn a_time_out_is_remembered_for_at_least_what_it_cost() {
        let (now, mut memory, a) = (Instant::now(), Memory::new(), attempt(1, "x"));
        let cost = Duration::from_secs(3);
        memory.failed(now, &a, &AttemptError::TcpTimeout(cost));
        assert_eq!(memory.against(now, &a).unwrap().0, cost);
        memory.failed(now, &a, &AttemptError::TcpTimeout(cost));
        assert_eq!(memory.against(now, &a).unwrap().0, 2 * cost);
    }

    #[test]
    fn a_wrong_cookie_is_held_against_that_cookie_only() {
        let (now, mut memory) = (Instant::now(), Memory::new());
        memory.failed(now, &attempt(1, "x"), &AttemptError::WrongCookie);
        assert!(memory.against(now, &attempt(1, "x")).is_some());
        assert!(memory.against(now, &attempt(1, "y")).is_none());
        assert!(memory.against(now, &attempt(2, "x")).is_none());
        assert_eq!(memory.refuses_cookie(now, &attempt(1, "x")), Some(Duration::from_secs(5)));
        assert_eq!(memory.refuses_cookie(now + Duration::from_secs(5), &attempt(1, "x")), None);
        assert_eq!(memory.refuses_cookie(now, &attempt(1, "y")), None);
        memory.failed(now, &attempt(2, "x"), &tcp());
        assert_eq!(memory.refuses_cookie(now, &attempt(2, "x")), None);
    }

    #[test]
    fn a_gateway_is_remembered_for_each_name_behind_it_and_not_for_its_address() {
        let (now, mut memory, direct) = (Instant::now(), Memory::new(), attempt(1, "x"));
        let through = |gateway: &str| Attempt { via: Some(gateway.parse().unwrap()), ..direct.clone() };
        let (one, other) = (through("one@dmz"), through("other@dmz"));
        memory.failed(now, &one, &AttemptError::Relay("unreachable".into()));
        assert_eq!(memory.against(now, &one).unwrap().0.as_millis(), 100);
        memory.failed(now, &one, &AttemptError::RelayRefused("denied".into()));
        assert_eq!(memory.against(now, &one).unwrap().0.as_millis(), 10_000);
        assert!(memory.against(now, &direct).is_none() && memory.against(now, &other).is_none());
        memory.succeeded(&one);
        assert!(memory.against(now, &one).is_none());
    }

    #[test]
    fn success_forgets() {
        let (now, mut memory, a) = (Instant::now(), Memory::new(), attempt(1, "x"));
        memory.failed(now, &a, &tcp());
        memory.failed(now, &a, &AttemptError::Version("none in common".into()));
        memory.succeeded(&a);
        assert!(memory.against(now, &a).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (now, mut memory) = (Instant::now(), Memory::new());
        for port in 1..5000 {
            memory.failed(now + Duration::from_millis(port.into()), &attempt(port, "x"), &tcp());
        }
        assert_eq!(memory.ways.len(), CAPACITY);
        assert!(memory.ways.contains_key(&Way::of(&attempt(4999, "x"))));
    }

    #[test]
    fn success_with_one_cookie_says_nothing_of_another() {
        let (now, mut memory) = (Instant::now(), Memory::new());
        memory.failed(now, &attempt(1, "x"), &AttemptError::WrongCookie);
        memory.succeeded(&attempt(1, "y"));
        assert!(memory.against(now, &attempt(1, "x")).is_some());
    }

    #[test]
    fn what_is_held_against_one_address_is_bounded() {
        let (now, mut memory) = (Instant::now(), Memory::new());
        for n in 0..1000 {
            memory.failed(now, &attempt(1, &n.to_string()), &AttemptError::WrongCookie);
        }
        assert_eq!(memory.ways[&Way::of(&attempt(1, "x"))].len(), PER_WAY);
    }
}
