//! Timing of dials after a connection went down. Pure: the time and the randomness are arguments.

use std::time::{Duration, Instant};

mod keeper;

pub use keeper::{Better, Keeper, better_routes};

/// Pauses between dials of a connection that is kept up: full jitter over a bound that doubles.
///
/// Full jitter, a wait drawn evenly from zero to the bound, spreads nodes that lost their peer at the same moment
/// better than any smaller jitter ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    /// The bound of the first wait.
    pub const BASE: Duration = Duration::from_millis(100);
    /// The bound never grows beyond this.
    pub const CAP: Duration = Duration::from_secs(30);
    /// A connection that was up for so long starts over.
    pub const RESET: Duration = Duration::from_secs(60);

    /// Returns the state without failures.
    pub fn new() -> Self {
        Self { failures: 0, up_since: None }
    }

    /// The connection is up.
    pub fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// Notes that the connection went down or a dial failed, and returns the pause before the next dial. `random` is drawn evenly from 0 to 1.
    pub fn next(&mut self, now: Instant, random: f64) -> Duration {
        if self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= Self::RESET) {
            self.failures = 0;
        }
        let bound = Self::BASE.saturating_mul(1 << self.failures.min(16)).min(Self::CAP);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides when a connection over a standby route goes back to a better one: not when that one answers, but when it
/// has answered every probe for a hold time, and later each time it did not last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failback {
    hold: Duration,
    /// Every probe since then was answered.
    healthy_since: Option<Instant>,
    /// Time of the last move back to the better route.
    moved: Option<Instant>,
    /// Number of moves back that did not last.
    flaps: u32,
    /// Cause of the last probe's failure, if it failed.
    failure: Option<String>,
}

impl Failback {
    /// Probes in a hold time.
    const PROBES: u32 = 4;
    /// The hold time is doubled no more often than this.
    const MOST_DOUBLINGS: u32 = 6;
    /// A connection that stayed on the better route for so many hold times has not flapped.
    const STAYED: u32 = 10;

    /// With this hold time, at least 1 ms.
    pub fn new(hold: Duration) -> Self {
        let hold = hold.max(Duration::from_millis(1));
        Self { hold, healthy_since: None, moved: None, flaps: 0, failure: None }
    }

    /// For how long every probe must be answered before the connection goes back.
    pub fn hold(&self) -> Duration {
        self.hold.saturating_mul(1 << self.flaps.min(Self::MOST_DOUBLINGS))
    }

    /// Returns the pause before the next probe.
    pub fn pause(&self) -> Duration {
        self.hold / Self::PROBES
    }

    /// For how long every probe was answered; `None` if the last one was not, or there was none yet.
    pub fn answered_for(&self, now: Instant) -> Option<Duration> {
        self.healthy_since.map(|since| now.saturating_duration_since(since))
    }

    /// Cause of the last probe's failure; `None` if it did not fail.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Notes why a probe failed; [`Failback::probed`] is told that it did.
    pub fn failed(&mut self, cause: String) {
        self.failure = Some(cause);
    }

    /// The connection is on a standby again although it went back before.
    pub fn fell_back(&mut self, now: Instant) {
        if let Some(moved) = self.moved.take() {
            let stayed = now.saturating_duration_since(moved) >= self.hold.saturating_mul(Self::STAYED);
            self.flaps = if stayed { 0 } else { self.flaps.saturating_add(1) };
        }
        self.healthy_since = None;
    }

    /// The better route was probed. Says whether the connection is to go back to it now.
    pub fn probed(&mut self, now: Instant, healthy: bool) -> bool {
        if !healthy {
            self.healthy_since = None;
            return false;
        }
        self.failure = None;
        let since = *self.healthy_since.get_or_insert(now);
        now.saturating_duration_since(since) >= self.hold()
    }

    /// The connection went back.
    pub fn moved(&mut self, now: Instant) {
        self.moved = Some(now);
        self.settled();
    }

    /// The connection is not on a standby any more, however that came.
    pub fn settled(&mut self) {
        self.healthy_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    const HOLD: Duration = Duration::from_secs(30);

    proptest! {
        #[test]
        fn p31_a_wait_is_within_the_bound_that_doubles_up_to_the_cap(draws in prop::collection::vec(0.0f64..=1.0, 1..40)) {
            let (mut backoff, now) = (Backoff::new(), start());
            for (n, random) in draws.into_iter().enumerate() {
                let bound = Backoff::BASE.saturating_mul(1 << n.min(20)).min(Backoff::CAP);
                let wait = backoff.next(now, random);
                prop_assert!(wait <= bound, "{:?} after {} failures", wait, n);
                prop_assert_eq!(wait, bound.mul_f64(random));
            }
        }

        #[test]
        fn a_connection_goes_back_only_after_the_hold_time_of_probes_all_answered(
            probes in prop::collection::vec((0u64..20, prop::bool::weighted(0.9)), 1..80)
        ) {
            let (mut failback, mut now, mut since) = (Failback::new(HOLD), start(), None);
            for (wait, healthy) in probes {
                now += Duration::from_secs(wait);
                since = if healthy { since.or(Some(now)) } else { None };
                let due = since.is_some_and(|since| now - since >= HOLD);
                prop_assert_eq!(failback.probed(now, healthy), due);
            }
        }
    }

    #[test]
    fn a_connection_that_was_up_for_a_minute_starts_over() {
        let (mut backoff, now) = (Backoff::new(), start());
        for _ in 0..10 {
            backoff.next(now, 1.0);
        }
        backoff.up(now);
        assert_eq!(backoff.next(now + Duration::from_secs(59), 1.0), Backoff::CAP, "a short success is none");
        backoff.up(now);
        assert_eq!(backoff.next(now + Backoff::RESET, 1.0), Backoff::BASE);
    }

    #[test]
    fn a_route_that_does_not_last_is_gone_back_to_later_each_time() {
        let (mut failback, mut now) = (Failback::new(HOLD), start());
        for doublings in [0, 1, 2, 3, 4, 5, 6, 6] {
            assert_eq!(failback.hold(), HOLD * (1 << doublings));
            failback.moved(now);
            now += HOLD;
            failback.fell_back(now);
        }
        failback.moved(now);
        failback.fell_back(now + HOLD * 10);
        assert_eq!(failback.hold(), HOLD, "it stayed this time");
    }
}
