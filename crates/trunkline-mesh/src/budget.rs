//! Bound on how often something may be done: so often at once, and then at a steady rate.

use std::time::{Duration, Instant};

/// Things that may be done now, and the rate at which more may be.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: f64,
    at: Instant,
    at_once: f64,
    per_second: f64,
}

impl Budget {
    pub(crate) fn new(at_once: f64, per_second: f64, now: Instant) -> Self {
        Self { left: at_once, at: now, at_once, per_second }
    }

    /// Returns true if one more may be done now.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        self.left(now) >= 1.0
    }

    fn left(&self, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        (self.left + refilled).min(self.at_once)
    }

    /// Takes so many, if they may be done now. Returns true if they were taken. More than are ever allowed at once count as
    /// that many.
    pub(crate) fn take(&mut self, now: Instant, count: u32) -> bool {
        let (left, count) = (self.left(now), f64::from(count).min(self.at_once));
        let allowed = left >= count;
        (self.left, self.at) = (if allowed { left - count } else { left }, now);
        allowed
    }

    /// Takes one back: it does not count.
    pub(crate) fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(self.at_once);
    }

    /// Returns the time at which one more may be done; `None` if that was so when the last one was taken.
    pub(crate) fn refilled(&self) -> Option<Instant> {
        let missing = 1.0 - self.left;
        // A little more, so that the time is not the one before by rounding.
        (missing > 0.0).then(|| self.at + Duration::from_secs_f64(missing / self.per_second) + Duration::from_millis(1))
    }
}
