//! Pauses between attempts that are made for ever.

use std::time::{Duration, Instant};

/// Bound of the first pause; each further one doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// Longest bound.
const LONGEST: Duration = Duration::from_secs(30);

/// Time of the next attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Retry {
    due: Option<Instant>,
    failures: u32,
}

impl Retry {
    /// Returns an attempt that is due at this time.
    pub(crate) fn at(due: Instant) -> Self {
        Self { due: Some(due), failures: 0 }
    }

    /// Returns no attempt, whose first pause is 0.4 to 0.8 s.
    pub(crate) fn unhurried() -> Self {
        Self { due: None, failures: 3 }
    }

    /// Makes no attempt due. The next pause goes on where the last one was.
    pub(crate) fn pause(&mut self) {
        self.due = None;
    }

    /// Makes the attempt due at this time, if it is not before.
    pub(crate) fn is_due_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// Notes a failure: the next attempt comes after a pause.
    pub(crate) fn failed(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        self.due = Some(now + pause(bound, rng));
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

/// Returns a pause between half of the bound and the bound: nodes that lost one peer at one time do not come back at once.
fn pause(bound: Duration, rng: &mut fastrand::Rng) -> Duration {
    bound.mul_f64(0.5 + rng.f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a virtual clock needs one instant to start from")]
    fn pauses_double_up_to_30_s_and_are_never_less_than_half() {
        let (now, mut rng, mut retry) = (Instant::now(), fastrand::Rng::with_seed(7), Retry::default());
        let mut bound = FIRST;
        for _ in 0..20 {
            retry.failed(now, &mut rng);
            let pause = retry.due().unwrap() - now;
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} of {bound:?}");
            bound = (2 * bound).min(LONGEST);
        }
        assert_eq!(retry.failures(), 20);
        retry.is_due_at(now);
        assert!(retry.is_due(now));
    }
}
