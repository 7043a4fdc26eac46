//! Transports of a link (a socket, or a stream of another link) with TLS on top.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use trunkline_stack::{ByteStream, TransportKind};

use crate::polled::Polled;

/// Bytes read from the socket at once, into a buffer of the thread: an idle link owns none.
pub(crate) const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Transport of the bytes of a link.
pub(crate) enum Carrier {
    Tcp(TcpStream),
    /// A stream of another link: this one runs inside it.
    Stream(ByteStream),
    Other(Polled),
}

impl From<TransportKind> for Carrier {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::Tcp(tcp) => Self::Tcp(tcp),
            TransportKind::Stream(stream) => Self::Stream(stream),
            TransportKind::Other(other) => Self::Other(Polled::new(other)),
        }
    }
}

impl Carrier {
    /// Waits until a read is worth a try.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
            Self::Stream(stream) => {
                stream.readable().await;
                Ok(())
            }
            Self::Other(other) => {
                other.readable().await;
                Ok(())
            }
        }
    }

    /// Waits until a write is worth a try.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.writable().await,
            Self::Stream(stream) => {
                stream.writable().await;
                Ok(())
            }
            Self::Other(other) => {
                other.writable().await;
                Ok(())
            }
        }
    }

    /// Reads what is there. While bytes `flow`, more is expected at once; else nothing, once less came than there was room for.
    fn try_read(&mut self, bytes: &mut [u8], flow: bool) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) if flow => tcp.try_read(bytes),
            // The socket's own `try_read` would have to fail once more before it is known that nothing is left. Without the
            // task's budget: used up, it would look as if nothing were there, while `readable` says that something is.
            Self::Tcp(tcp) => {
                let mut read = ReadBuf::new(bytes);
                let once = pin!(unconstrained(poll_fn(|cx| Pin::new(&mut *tcp).poll_read(cx, &mut read))));
                match once.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(result) => result.map(|()| read.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            Self::Stream(stream) => stream.try_read(bytes),
            Self::Other(other) => other.try_read(bytes),
        }
    }

    /// Says that nothing more is written.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown().await,
            Self::Stream(stream) => stream.shutdown().await,
            Self::Other(other) => other.shutdown().await,
        }
    }
}

/// A carrier and its TLS, without buffers of our own.
pub(crate) struct Stream {
    pub(crate) carrier: Carrier,
    pub(crate) tls: rustls::Connection,
    /// The last read brought more than a few messages.
    flow: bool,
}

/// More than TLS takes at once into the buffer it always has.
const PIECE: usize = 4097;

/// Source without bytes.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

struct Writer<'a>(&'a Carrier);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Carrier::Tcp(tcp) => tcp.try_write(bytes),
            Carrier::Stream(stream) => stream.try_write(bytes),
            Carrier::Other(other) => other.try_write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0 {
            Carrier::Tcp(tcp) => tcp.try_write_vectored(slices),
            _ => self.write(slices.iter().find(|slice| !slice.is_empty()).map_or(&[], |slice| slice)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    pub(crate) fn new(carrier: Carrier, tls: rustls::Connection) -> Self {
        Self { carrier, tls, flow: false }
    }

    /// Writes what TLS has ready. `Ok(true)`: all of it; `Ok(false)`: the socket is full.
    pub(crate) fn write_ready(&mut self) -> io::Result<(bool, usize)> {
        let mut written = 0;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Writer(&self.carrier)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((false, written)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((true, written))
    }

    /// Reads once and hands the plain text to `take` chunk by chunk. `Ok(None)`: nothing to read now;
    /// `Ok(Some(0))`: the stream ended.
    pub(crate) fn read_ready<E: From<io::Error> + From<rustls::Error>>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<usize>, E> {
        SCRATCH.with_borrow_mut(|scratch| {
            let n = match self.carrier.try_read(&mut scratch[..limit.min(READ)], self.flow) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.flow = false;
                    return Ok(None);
                }
                Err(e) => return Err(e.into()),
            };
            self.flow = n >= PIECE;
            let mut rest = &scratch[..n];
            while !rest.is_empty() {
                let used = self.tls.read_tls(&mut rest as &mut dyn Read)?;
                self.tls.process_new_packets()?;
                self.drain(&mut take)?;
                if used == 0 {
                    return Ok(Some(0));
                }
            }
            if (PIECE..READ).contains(&n) {
                // The burst is over: TLS lets its buffer for whole records go when it is about to read.
                let _ = self.tls.read_tls(&mut Nothing);
            }
            Ok(Some(n))
        })
    }

    /// Hands over the plain text TLS holds.
    pub(crate) fn drain<E: From<io::Error>>(&mut self, take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut reader = self.tls.reader();
        loop {
            let len = match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(chunk) => {
                    take(chunk)?;
                    chunk.len()
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            reader.consume(len);
        }
    }

    /// Reads to the end and keeps nothing.
    pub(crate) async fn discard(&mut self) -> io::Result<()> {
        loop {
            self.carrier.readable().await?;
            match SCRATCH.with_borrow_mut(|scratch| self.carrier.try_read(scratch, true)) {
                Ok(0) => return Ok(()),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_there_is_read_however_often_a_task_has_read_already() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut here = Carrier::Tcp(listener.accept().await.unwrap().0);
        there.write_all(&[7; 4_096]).await.unwrap();
        here.readable().await.unwrap();
        // A task may do 128 things before it gives way; all of these are done in one go.
        for n in 0..4_096 {
            let mut byte = [0];
            assert_eq!(here.try_read(&mut byte, false).unwrap(), 1, "the byte of the number {n}");
        }
        assert_eq!(here.try_read(&mut [0], false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
