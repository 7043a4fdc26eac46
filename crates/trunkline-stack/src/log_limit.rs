//! Limits on log lines that a peer can cause. No I/O, no clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock;

/// Keys remembered at once; the one whose window began first is dropped for a new one.
const KEYS: usize = 1024;
/// Lines of all keys together in one period, as a multiple of the lines of one key: a peer that changes its key with every
/// line is held to this.
const ALL_KEYS: u32 = 16;

/// A limit on log lines per key, so that a peer cannot fill the log.
///
/// At most `lines` lines of one key, and at most 16 times as many of all keys together, are written in one `period`.
/// Lines above the limit are counted; the next line of the key that is written carries their number.
///
/// ```
/// use std::time::{Duration, Instant};
/// use trunkline_stack::LogLimit;
///
/// let limit = LogLimit::new(1, Duration::from_secs(10));
/// let now = Instant::now();
/// assert_eq!(limit.allow(now, &"10.0.0.1"), Some(0));
/// assert_eq!(limit.allow(now, &"10.0.0.1"), None);
/// assert_eq!(limit.allow(now, &"10.0.0.2"), Some(0));
/// assert_eq!(limit.allow(now + Duration::from_secs(10), &"10.0.0.1"), Some(1));
/// ```
#[derive(Debug)]
pub struct LogLimit<K> {
    lines: u32,
    period: Duration,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    keys: HashMap<K, Window>,
    all: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, lines: 0, suppressed: 0 }
    }

    /// Begins a new window when the period is over; the count of suppressed lines is kept.
    fn roll(&mut self, now: Instant, period: Duration) {
        if now.saturating_duration_since(self.began) >= period {
            *self = Self { began: now, lines: 0, ..*self };
        }
    }
}

impl<K: Clone + Eq + Hash> LogLimit<K> {
    /// Creates a limit of `lines` lines per key in each `period`.
    pub fn new(lines: u32, period: Duration) -> Self {
        Self { lines, period, state: Mutex::new(State { keys: HashMap::new(), all: None }) }
    }

    /// Returns `Some` if a line of this key may be written now, with the number of its lines that were suppressed since
    /// the last one written, and `None` if the line is to be suppressed.
    pub fn allow(&self, now: Instant, key: &K) -> Option<u64> {
        let mut state = lock(&self.state);
        let State { keys, all } = &mut *state;
        if keys.len() >= KEYS && !keys.contains_key(key) {
            let oldest = keys.iter().min_by_key(|(_, window)| window.began).map(|(key, _)| key.clone());
            oldest.and_then(|key| keys.remove(&key));
        }
        let all = all.get_or_insert_with(|| Window::new(now));
        let own = keys.entry(key.clone()).or_insert_with(|| Window::new(now));
        all.roll(now, self.period);
        own.roll(now, self.period);
        if own.lines >= self.lines || all.lines >= self.lines.saturating_mul(ALL_KEYS) {
            own.suppressed += 1;
            return None;
        }
        own.lines += 1;
        all.lines += 1;
        Some(std::mem::take(&mut own.suppressed))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_changes_with_every_line_is_held_to_the_limit_of_all() {
        let limit = LogLimit::new(2, Duration::from_secs(1));
        let now = Instant::now();
        let written = (0..50_000).filter(|n| limit.allow(now, n).is_some()).count();
        assert_eq!(written, 32);
        assert!(lock(&limit.state).keys.len() <= KEYS);
        assert!(limit.allow(now + Duration::from_secs(1), &50_000).is_some());
    }
}
