//! Tried reads and writes over whatever is only polled.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::ReadBuf;
use tokio::sync::Notify;
use trunkline_stack::Duplex;

use crate::shell::lock;

/// Any pair of byte directions, with the operations of a socket: try, and wait until a try is worth it.
pub(crate) struct Polled {
    io: Mutex<Box<dyn Duplex>>,
    reads: Arc<Direction>,
    writes: Arc<Direction>,
    /// The transport keeps bytes back that were written, until it is flushed.
    is_unflushed: AtomicBool,
}

/// Direction of a transport. The last try either brought something, or left the waker of the direction behind.
#[derive(Default)]
struct Direction {
    /// True if the last try had no result, and the waker was not called since.
    is_idle: AtomicBool,
    woken: Notify,
}

impl Wake for Direction {
    fn wake(self: Arc<Self>) {
        self.is_idle.store(false, Ordering::Release);
        self.woken.notify_waiters();
    }
}

impl Direction {
    async fn ready(&self) {
        loop {
            let woken = self.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if !self.is_idle.load(Ordering::Acquire) {
                return;
            }
            woken.await;
        }
    }

    fn attempt<T>(self: &Arc<Self>, poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>) -> io::Result<T> {
        // Before the try: a call of the waker within it must not be lost.
        self.is_idle.store(true, Ordering::Release);
        match poll(&mut Context::from_waker(&Waker::from(self.clone()))) {
            Poll::Ready(result) => {
                self.is_idle.store(false, Ordering::Release);
                result
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Polled {
    pub(crate) fn new(io: Box<dyn Duplex>) -> Self {
        Self { io: Mutex::new(io), reads: Arc::default(), writes: Arc::default(), is_unflushed: AtomicBool::new(false) }
    }

    /// Waits until a read is worth a try. What the transport keeps back is written meanwhile: whoever waits to read has
    /// written what it had.
    pub(crate) async fn readable(&self) {
        let flushing = async {
            while self.is_unflushed.load(Ordering::Acquire) {
                self.writes.ready().await;
                self.flush();
            }
            std::future::pending().await
        };
        tokio::select! {
            () = self.reads.ready() => {}
            () = flushing => {}
        }
    }

    /// Flushes as far as that goes now. An error is met again by the next write or read.
    fn flush(&self) {
        let mut io = lock(&self.io);
        let flushed = self.writes.attempt(|cx| Pin::new(&mut **io).poll_flush(cx));
        let waits = flushed.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        self.is_unflushed.store(waits, Ordering::Release);
    }

    /// Waits until a write is worth a try.
    pub(crate) async fn writable(&self) {
        self.writes.ready().await;
    }

    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut io = lock(&self.io);
        let mut read = ReadBuf::new(bytes);
        self.reads.attempt(|cx| Pin::new(&mut **io).poll_read(cx, &mut read))?;
        Ok(read.filled().len())
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writes.attempt(|cx| Pin::new(&mut **lock(&self.io)).poll_write(cx, bytes))?;
        self.flush();
        Ok(written)
    }

    /// Says that nothing more is written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut **lock(&self.io)).poll_shutdown(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_a_full_pipe_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let ours = Polled::new(Box::new(ours));
        let mut byte = [0];
        assert_eq!(ours.try_read(&mut byte).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_, ()) = tokio::join!(theirs.write_all(b"x"), ours.readable());
        assert_eq!((ours.try_read(&mut byte).unwrap(), &byte), (1, b"x"));

        assert_eq!(ours.try_write(b"abcdef").unwrap(), 4);
        assert_eq!(ours.try_write(b"ef").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut read = [0; 4];
        let (_, ()) = tokio::join!(theirs.read_exact(&mut read), ours.writable());
        assert_eq!((&read, ours.try_write(b"ef").unwrap()), (b"abcd", 2));

        ours.shutdown().await.unwrap();
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"ef");
        drop(theirs);
        ours.readable().await;
        assert_eq!(ours.try_read(&mut byte).unwrap(), 0);
    }

    #[tokio::test]
    async fn what_a_transport_keeps_back_is_written_while_the_answer_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let ours = Polled::new(Box::new(tokio::io::BufWriter::new(ours)));
        assert_eq!(ours.try_write(b"abcdefgh").unwrap(), 8, "more than the pipe takes at once");
        let echo = async {
            let mut read = [0; 8];
            theirs.read_exact(&mut read).await.unwrap();
            theirs.write_all(&read[..1]).await.unwrap();
            read
        };
        let answer = async {
            let mut byte = [0];
            while ours.try_read(&mut byte).is_err() {
                ours.readable().await;
            }
            byte
        };
        assert_eq!(tokio::join!(echo, answer), (*b"abcdefgh", *b"a"));
    }

    #[tokio::test]
    async fn a_task_that_has_used_up_its_budget_reads_on_in_its_next_turn() {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        let ours = Polled::new(Box::new(ours));
        theirs.write_all(&[7; 4_096]).await.unwrap();
        for _ in 0..4_096 {
            let mut byte = [0];
            while ours.try_read(&mut byte).is_err() {
                ours.readable().await;
            }
        }
    }
}
