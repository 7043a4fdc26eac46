use std::time::{Duration, Instant};

/// A time so far ahead that it never comes: it stands for one that the clock cannot hold.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Returns the time `by` after `from`; a time that the clock cannot hold is 30 years ahead. `Instant + Duration` panics
/// instead.
pub fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by.min(NEVER)).unwrap_or(from)
}
