//! The bytes of a circuit.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use trunkline_stack::{ByteStream, FlowError, LAST_BYTES, Outflow, Quiet, StreamCode};

/// Bytes that were passed on so far, both ways together.
#[derive(Debug, Default)]
pub struct Carried(AtomicU64);

impl Carried {
    /// Returns the number of bytes.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Copies bytes between two streams until both directions ended, each by itself, or one of the two broke off. What had
/// arrived from the one that broke off is written to the other one, which then learns the code of the break behind it; that
/// takes at most [`LAST_BYTES`] in which none of it moves.
///
/// Nothing is read that the other side does not take: what waits in between is at most the windows of the two streams and one
/// piece each way. Pieces go as they came, without being copied on the way in. When nothing moved for so long as `idle`, both
/// are reset as out of time.
pub async fn relay(mut one: ByteStream, mut other: ByteStream, carried: &Carried, idle: Duration) {
    let (mut there, mut back) = (Outflow::default(), Outflow::default());
    let (mut quiet, mut broken) = (Quiet::new(Some(idle)), None);
    let ended = std::future::poll_fn(|cx| {
        loop {
            // Also while what came before waits for the other side.
            if broken.is_none() {
                broken = match (one.poll_broken(cx), other.poll_broken(cx)) {
                    (Poll::Ready(error), _) => Some(Broken::One(code(&error))),
                    (_, Poll::Ready(error)) => Some(Broken::Other(code(&error))),
                    _ => None,
                };
                if broken.is_some() {
                    quiet.tighten(LAST_BYTES);
                }
            }
            if quiet.poll(cx).is_ready() {
                return Poll::Ready(Some(broken.unwrap_or(Broken::Both(StreamCode::TimedOut))));
            }
            let moved = |bytes: usize| {
                carried.0.fetch_add(bytes as u64, Ordering::Relaxed);
                quiet.moved();
            };
            let failed = match broken {
                None => {
                    let first = there.poll(cx, &mut one, &mut other, moved).map_err(Broken::from_there);
                    let second = back.poll(cx, &mut other, &mut one, moved).map_err(Broken::from_back);
                    match (first, second) {
                        (Poll::Ready(Err(failed)), _) | (_, Poll::Ready(Err(failed))) => failed,
                        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(None),
                        _ => return Poll::Pending,
                    }
                }
                // Up to the end or the error that comes behind what had arrived.
                Some(Broken::One(_)) => return there.poll(cx, &mut one, &mut other, moved).map(|_| broken),
                Some(_) => return back.poll(cx, &mut other, &mut one, moved).map(|_| broken),
            };
            broken = Some(failed);
            quiet.tighten(LAST_BYTES);
        }
    });
    match ended.await {
        None => {}
        Some(Broken::One(code)) => other.reset_behind(code),
        Some(Broken::Other(code)) => one.reset_behind(code),
        Some(Broken::Both(code)) => {
            one.reset(code);
            other.reset(code);
        }
    }
}

/// End that broke off, and the code that the remaining one is told; or the code that both are told.
#[derive(Debug, Clone, Copy)]
enum Broken {
    One(StreamCode),
    Other(StreamCode),
    Both(StreamCode),
}

fn code(error: &io::Error) -> StreamCode {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamCode>()).copied();
    told.unwrap_or(StreamCode::Broken)
}

impl Broken {
    fn from_there(failed: FlowError) -> Self {
        match failed {
            FlowError::Source(error) => Self::One(code(&error)),
            FlowError::Sink(error) => Self::Other(code(&error)),
        }
    }

    fn from_back(failed: FlowError) -> Self {
        match failed {
            FlowError::Source(error) => Self::Other(code(&error)),
            FlowError::Sink(error) => Self::One(code(&error)),
        }
    }
}
