//! Memory of registrars that hold another cookie. No I/O, no clock.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time for which a wrong cookie is not shown again to the same address; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_secs(5);
/// Maximum of that time; limits whoever answers there to 1,440 guesses a day.
const LONGEST: Duration = Duration::from_secs(60);
/// Time after which a wrong cookie is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Maximum number of addresses remembered; the stalest is dropped first.
const MOST: usize = 256;

/// Addresses at which this node's cookie was wrong. Each session gives whoever answers one guess at the cookie, so the
/// next one is opened only after a delay.
#[derive(Debug, Default)]
pub(crate) struct WrongCookies(HashMap<SocketAddr, (u32, Instant)>);

impl WrongCookies {
    /// Returns the remaining time during which no session may be opened with this address.
    pub(crate) fn refuses(&self, now: Instant, address: SocketAddr) -> Option<Duration> {
        let (_, until) = self.0.get(&address)?;
        (*until > now).then(|| *until - now)
    }

    /// Notes that the cookie was wrong at this address.
    pub(crate) fn wrong(&mut self, now: Instant, address: SocketAddr) {
        self.0.retain(|_, (_, until)| now.saturating_duration_since(*until) < FORGOTTEN);
        if self.0.len() >= MOST && !self.0.contains_key(&address) {
            let stalest = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(address, _)| *address);
            stalest.and_then(|address| self.0.remove(&address));
        }
        let (count, until) = self.0.entry(address).or_insert((0, now));
        *until = now + FIRST.saturating_mul(1 << (*count).min(8)).min(LONGEST);
        *count += 1;
    }

    /// Notes that the cookie was right at this address.
    pub(crate) fn right(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests need one instant to start from")]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_cookie_is_not_shown_again_for_five_seconds_doubling_to_a_minute() {
        let (mut now, mut wrong) = (Instant::now(), WrongCookies::default());
        let there = "127.0.0.1:4499".parse().unwrap();
        let mut pauses = vec![];
        for _ in 0..6 {
            wrong.wrong(now, there);
            let left = wrong.refuses(now, there).unwrap();
            pauses.push(left.as_secs());
            now += left;
            assert_eq!(wrong.refuses(now, there), None);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60]);
        wrong.right(there);
        wrong.wrong(now, there);
        assert_eq!(wrong.refuses(now, there), Some(FIRST));
        for n in 0..2000u16 {
            wrong.wrong(now, SocketAddr::from(([127, 0, 0, 2], n)));
        }
        assert!(wrong.0.len() <= MOST);
    }
}
