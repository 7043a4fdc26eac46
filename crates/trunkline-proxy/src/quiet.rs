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
#[derive(Debug, Default)]
pub struct Quiet {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    moved: AtomicBool,
}

impl Quiet {
    /// Begins to count; `None` is no limit.
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

    /// Ready when nothing moved for the time of the limit.
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
