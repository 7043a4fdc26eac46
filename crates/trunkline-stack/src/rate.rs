//! Limits on how often something may happen. No I/O, no clock.

use std::time::{Duration, Instant};

/// A limit on how often something may happen: a number at once after a pause, and a number per second in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Number at once, after a pause.
    pub burst: u32,
    /// Number per second, in the long run.
    pub per_second: u32,
}

impl Rate {
    /// Returns the time after which a bucket that was used up is full again.
    pub fn rest(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.burst) / f64::from(self.per_second.max(1)))
    }
}

/// The allowance of one party under a [`Rate`]: a token bucket.
///
/// ```
/// use std::time::{Duration, Instant};
/// use trunkline_stack::{Bucket, Rate};
///
/// let (rate, now) = (Rate { burst: 2, per_second: 10 }, Instant::now());
/// let mut bucket = Bucket::full(now, rate);
/// assert!(bucket.take(now, rate) && bucket.take(now, rate) && !bucket.take(now, rate));
/// assert!(bucket.take(now + Duration::from_millis(100), rate));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Returns a bucket with the whole burst.
    pub fn full(now: Instant, rate: Rate) -> Self {
        Self { tokens: rate.burst.into(), at: now }
    }

    /// Returns the tokens that were left when it was used last; negative for a debt.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    /// Returns true if something may happen now. Takes nothing.
    pub fn has(&mut self, now: Instant, rate: Rate) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.tokens = (self.tokens + earned).min(rate.burst.into());
        self.at = self.at.max(now);
        self.tokens >= 1.0
    }

    /// Takes a token if there is one, and returns whether there was.
    pub fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let has = self.has(now, rate);
        if has {
            self.tokens -= 1.0;
        }
        has
    }

    /// Takes a token for what has happened already. The debt is at most another burst.
    pub fn charge(&mut self, now: Instant, rate: Rate) {
        self.has(now, rate);
        self.tokens = (self.tokens - 1.0).max(-f64::from(rate.burst));
    }

    /// Returns true if the bucket is full by now.
    pub fn is_rested(&self, now: Instant, rate: Rate) -> bool {
        let missing = f64::from(rate.burst) - self.tokens;
        now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second) >= missing
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_it_earns_and_pays_its_debt_first() {
        let (rate, now) = (Rate { burst: 10, per_second: 5 }, Instant::now());
        let mut bucket = Bucket::full(now, rate);
        assert_eq!((0..100).filter(|_| bucket.take(now, rate)).count(), 10);
        assert!(!bucket.is_rested(now, rate));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later, rate)).count(), 5);
        (0..1000).for_each(|_| bucket.charge(later, rate));
        assert!(!bucket.has(later + rate.rest(), rate), "the debt is one burst at most, and paid first");
        assert!(bucket.has(later + rate.rest() + Duration::from_millis(200), rate));
        assert!(!bucket.is_rested(later + rate.rest(), rate) && bucket.is_rested(later + 2 * rate.rest(), rate));
        // A clock that stands still, or an instant of before, earns nothing.
        assert!(!Bucket { tokens: 0.0, at: later }.has(now, rate));
    }
}
