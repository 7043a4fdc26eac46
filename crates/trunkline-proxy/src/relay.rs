//! The bytes of a circuit.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;
use trunkline_link::{ByteStream, StreamCode};

/// Bytes that were passed on so far, both ways together.
#[derive(Debug, Default)]
pub struct Carried(AtomicU64);

impl Carried {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Passes bytes on between two streams until both directions ended, each by itself, or one of the two broke off, which the
/// other learns.
///
/// Nothing is read that the other side does not take: what waits in between is at most the windows of the two streams and one
/// piece each way. Pieces go as they came, without being copied on the way in.
pub async fn relay(mut one: ByteStream, mut other: ByteStream, carried: &Carried) {
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let ended = std::future::poll_fn(|cx| {
        // Also while what came before waits for the other side.
        if let Poll::Ready(error) = one.poll_broken(cx) {
            return Poll::Ready(Err(Broken::One(code(&error))));
        }
        if let Poll::Ready(error) = other.poll_broken(cx) {
            return Poll::Ready(Err(Broken::Other(code(&error))));
        }
        let first = there.poll(cx, &mut one, &mut other, carried).map_err(Broken::from_there)?;
        let second = back.poll(cx, &mut other, &mut one, carried).map_err(Broken::from_back)?;
        if first.is_ready() && second.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    match ended.await {
        Ok(()) => {}
        Err(Broken::One(code)) => other.reset(code),
        Err(Broken::Other(code)) => one.reset(code),
    }
}

/// Which of the two broke off, and what the remaining one is told.
enum Broken {
    One(StreamCode),
    Other(StreamCode),
}

/// Which end of a direction failed.
enum Failed {
    Source(io::Error),
    Sink(io::Error),
}

fn code(error: &io::Error) -> StreamCode {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamCode>()).copied();
    told.unwrap_or(StreamCode::Broken)
}

impl Broken {
    fn from_there(failed: Failed) -> Self {
        match failed {
            Failed::Source(error) => Self::One(code(&error)),
            Failed::Sink(error) => Self::Other(code(&error)),
        }
    }

    fn from_back(failed: Failed) -> Self {
        match failed {
            Failed::Source(error) => Self::Other(code(&error)),
            Failed::Sink(error) => Self::One(code(&error)),
        }
    }
}

#[derive(Default)]
struct Direction {
    chunk: Bytes,
    ended: bool,
    done: bool,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ByteStream,
        to: &mut ByteStream,
        carried: &Carried,
    ) -> Poll<Result<(), Failed>> {
        while !self.done {
            if !self.chunk.is_empty() {
                let taken = ready!(Pin::new(&mut *to).poll_write(cx, &self.chunk)).map_err(Failed::Sink)?;
                carried.0.fetch_add(taken as u64, Ordering::Relaxed);
                self.chunk.advance(taken);
            } else if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Failed::Sink)?;
                self.done = true;
            } else {
                match ready!(from.poll_chunk(cx, usize::MAX)).map_err(Failed::Source)? {
                    Some(chunk) => self.chunk = chunk,
                    None => (self.chunk, self.ended) = (Bytes::new(), true),
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
