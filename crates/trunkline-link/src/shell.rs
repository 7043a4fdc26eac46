//! The clock and the locks of this crate.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the shells take the time from here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the time `by` after another one, however long that is.
pub(crate) fn later(from: Instant, by: Duration) -> Instant {
    trunkline_route::later(from.into_std(), by).into()
}

/// Returns the microseconds of a clock that only this process reads, never 0.
pub(crate) fn clock_us() -> u64 {
    us_of(now())
}

/// Returns a time of the clock of [`clock_us`].
pub(crate) fn us_of(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| at);
    at.saturating_duration_since(start).as_micros() as u64 + 1
}

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No critical section of this crate can be left half-way by a panic that callers could notice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
