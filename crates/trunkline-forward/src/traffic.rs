//! Counters of the streams of one service or forward.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::now;

/// Counters of the streams of one service or forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Streams that are open now.
    pub open: u64,
    /// Streams opened so far, the open ones included.
    pub all: u64,
    /// Streams that were refused, or could not be opened.
    pub refused: u64,
    /// Bytes that came from peers.
    pub received: u64,
    /// Bytes that went to peers.
    pub sent: u64,
    /// Time for which no bytes moved; `None` before the first.
    pub idle: Option<Duration>,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    open: AtomicU64,
    all: AtomicU64,
    refused: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    /// Time at which bytes moved last, by [`clock`]; 0: never.
    moved: AtomicU64,
}

impl Traffic {
    pub(crate) fn stats(&self) -> TrafficStats {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let moved = get(&self.moved);
        TrafficStats {
            open: get(&self.open),
            all: get(&self.all),
            refused: get(&self.refused),
            received: get(&self.received),
            sent: get(&self.sent),
            idle: (moved > 0).then(|| Duration::from_micros(clock().saturating_sub(moved))),
        }
    }

    /// Counts a stream that was refused, or could not be opened.
    pub(crate) fn refuses(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that go to the peer.
    pub(crate) fn sends(&self, bytes: usize) {
        self.moves(&self.sent, bytes);
    }

    /// Counts bytes that came from the peer.
    pub(crate) fn receives(&self, bytes: usize) {
        self.moves(&self.received, bytes);
    }

    fn moves(&self, direction: &AtomicU64, bytes: usize) {
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.store(clock(), Ordering::Relaxed);
    }
}

/// Counts a stream for as long as it is open.
pub(crate) struct Open<'a>(&'a Traffic);

impl<'a> Open<'a> {
    pub(crate) fn new(traffic: &'a Traffic) -> Self {
        traffic.open.fetch_add(1, Ordering::Relaxed);
        traffic.all.fetch_add(1, Ordering::Relaxed);
        Self(traffic)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the microseconds since the first call in this process, plus one.
fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(now);
    now().saturating_duration_since(start).as_micros() as u64 + 1
}
