//! A limit on the time in which no bytes move.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Longest time that bytes which arrived before one side broke off may wait for the other side while it takes none of them. Each
/// byte taken starts the time again.
pub const LAST_BYTES: Duration = Duration::from_secs(5);

/// A limit on the time in which no bytes move. Without a limit it costs no timer.
///
/// The clock is not read for every piece: when the timer strikes, it starts again if anything moved meanwhile, so that the
/// end comes after one to two times the limit.
///
/// ```
/// use std::future::poll_fn;
/// use std::time::Duration;
///
/// use trunkline_stack::Quiet;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut quiet = Quiet::new(Some(Duration::from_millis(20)));
/// quiet.moved();
/// poll_fn(|cx| quiet.poll(cx)).await;
/// # });
/// ```
#[derive(Debug, Default)]
pub struct Quiet {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    moved: AtomicBool,
}

impl Quiet {
    /// Begins to count; `None` is no limit. With a limit it is to be called within a tokio runtime.
    pub fn new(limit: Option<Duration>) -> Self {
        Self {
            limit: limit.unwrap_or(Duration::MAX),
            timer: limit.map(|limit| Box::pin(sleep(limit))),
            ..Self::default()
        }
    }

    /// Notes that bytes moved.
    pub fn moved(&self) {
        self.moved.store(true, Ordering::Relaxed);
    }

    /// Lowers the limit to this one, counted from now.
    pub fn tighten(&mut self, limit: Duration) {
        self.limit = self.limit.min(limit);
        self.moved.store(false, Ordering::Relaxed);
        self.timer = Some(Box::pin(sleep(self.limit)));
    }

    /// Returns `Ready` when no bytes moved for the time of the limit.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        while timer.as_mut().poll(cx).is_ready() {
            if !self.moved.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            timer.set(sleep(self.limit));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::now;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_after_one_to_two_times_the_limit_without_bytes() {
        let (mut quiet, began) = (Quiet::new(Some(LIMIT)), now());
        tokio::time::sleep(LIMIT / 2).await;
        quiet.moved();
        poll_fn(|cx| quiet.poll(cx)).await;
        assert_eq!(now() - began, 2 * LIMIT);
        let (mut quiet, began) = (Quiet::new(Some(LIMIT)), now());
        poll_fn(|cx| quiet.poll(cx)).await;
        assert_eq!(now() - began, LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_can_be_lowered_but_not_raised_and_counts_from_then() {
        for (limit, expected) in [(None, LIMIT), (Some(LIMIT / 2), LIMIT / 2), (Some(2 * LIMIT), LIMIT)] {
            let mut quiet = Quiet::new(limit);
            quiet.moved();
            quiet.tighten(LIMIT);
            let began = now();
            poll_fn(|cx| quiet.poll(cx)).await;
            assert_eq!(now() - began, expected);
        }
        let mut endless = Quiet::new(None);
        let ended = tokio::time::timeout(100 * LIMIT, poll_fn(|cx| endless.poll(cx))).await;
        assert!(ended.is_err());
    }
}
