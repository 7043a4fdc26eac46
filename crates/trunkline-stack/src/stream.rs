//! Byte streams as programs hold them, and what a stack implements behind them.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trunkline_route::{AtomMapping, NodeName};

use crate::{LinkInfo, OpenError, StreamCode, StreamKind};

/// Longest purpose of a stream, in bytes.
pub const MAX_OPEN_DATA: usize = 1024;
/// Most bytes that may go out with the request for a stream.
pub const EARLY_DATA: u32 = 16 * 1024;
/// Most streams that each end of a link may have opened at once.
pub const MAX_STREAMS: usize = 4096;

/// Callback for each stream that a peer wants; the stream is refused when the given [`Incoming`] is dropped. It runs in
/// the link's task and must not wait.
pub type Acceptor = dyn Fn(Incoming) + Send + Sync;

/// Bytes that go out with the request for a stream, before the peer has accepted it. When the request is refused, nobody
/// has read them; when the link goes down or the time is over before there is an answer, that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct First<'a> {
    /// At most [`EARLY_DATA`] bytes.
    pub bytes: &'a [u8],
    /// True if that is all that will be written.
    pub is_all: bool,
}

impl First<'_> {
    /// Checks the limits of a request for a stream with this purpose.
    ///
    /// # Errors
    /// [`OpenError::TooLong`], [`OpenError::TooMuchAtFirst`].
    pub(crate) fn check(&self, data: &[u8]) -> Result<(), OpenError> {
        if data.len() > MAX_OPEN_DATA {
            return Err(OpenError::TooLong { len: data.len() });
        }
        if self.bytes.len() > EARLY_DATA as usize {
            return Err(OpenError::TooMuchAtFirst { len: self.bytes.len() });
        }
        Ok(())
    }
}

/// One end of a stream, as a stack implements it. Programs hold it as a [`ByteStream`], which calls
/// [`StreamIo::end`] when it is dropped; a second call does nothing.
pub trait StreamIo: Send + Sync + 'static {
    /// Returns the facts about the link that the stream runs on.
    fn link_info(&self) -> &LinkInfo;

    /// Takes the next bytes as they arrived, at most `most` of them; `None` at the end.
    fn poll_chunk(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>>;

    /// Copies what arrived into a buffer; nothing is copied at the end.
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Returns `Ready` when a read has something to report. Registers one reader at a time.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Returns `Ready` when the stream breaks off before the other end had written all it would.
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Returns `Ready` when a write has room or reports an error. Registers one writer at a time.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Writes as many of these bytes as there is room for.
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ends this direction behind what was written; the other one stays open.
    ///
    /// # Errors
    /// The end of the stream, if it broke.
    fn finish(&self) -> io::Result<()>;

    /// Ends both directions and tells the peer why: behind everything that was written, or at once, discarding what was
    /// not sent yet.
    fn end(&self, code: StreamCode, behind: bool);
}

/// Fills a buffer with what arrived, for [`StreamIo::poll_read`]. `next` copies from the next piece, and returns `None` at
/// the end.
pub fn poll_fill(
    buf: &mut ReadBuf<'_>,
    mut next: impl FnMut(&mut ReadBuf<'_>) -> Poll<io::Result<Option<()>>>,
) -> Poll<io::Result<()>> {
    let mut first = true;
    loop {
        match next(buf) {
            Poll::Ready(Ok(Some(()))) if buf.remaining() > 0 => first = false,
            // What was copied already comes first.
            Poll::Pending | Poll::Ready(Err(_)) if !first => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => return Poll::Ready(result.map(drop)),
        }
    }
}

/// A stream of bytes to a peer and back, on a link that carries other things too.
///
/// What is written is flushed by itself. [`AsyncWrite::poll_shutdown`] ends this direction and leaves the other one
/// open. Dropped before both ends are done with it, it is reset as [`StreamCode::Cancelled`] behind what was written, as
/// [`ByteStream::reset_behind`] does.
pub struct ByteStream {
    io: Box<dyn StreamIo>,
    /// Kept as long as the stream.
    held: Option<Box<dyn Any + Send + Sync>>,
}

impl ByteStream {
    /// Returns the stream of which a stack has made this end.
    pub fn new(io: impl StreamIo) -> Self {
        Self { io: Box::new(io), held: None }
    }

    /// Keeps a value as long as the stream, such as one that counts it. A value that was kept before is dropped.
    #[must_use]
    pub fn holding(mut self, held: impl Any + Send + Sync) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// Returns the node at the other end of the link.
    pub fn peer(&self) -> &NodeName {
        &self.link_info().peer
    }

    /// Returns the facts about the link that the stream runs on.
    pub fn link_info(&self) -> &LinkInfo {
        self.io.link_info()
    }

    /// Waits for the next bytes as they arrived, without copying them: at most `most`, which is at least 1; `None` at
    /// the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] when the other end reset the stream, [`io::ErrorKind::ConnectionAborted`] when
    /// the link went down, both after what had arrived before.
    pub async fn read_chunk(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, most)).await
    }

    /// Returns `Ready` when the stream breaks off: the other end reset it, or the link went down, before the other end had
    /// written all it would. What had arrived can still be read. One task at a time can wait for that.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.io.poll_broken(cx)
    }

    /// Takes the next bytes; see [`ByteStream::read_chunk`].
    ///
    /// # Errors
    /// As [`ByteStream::read_chunk`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.io.poll_chunk(cx, most)
    }

    /// Waits until [`ByteStream::try_read`] is worth a try.
    pub async fn readable(&self) {
        std::future::poll_fn(|cx| self.io.poll_readable(cx)).await;
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there, else as [`ByteStream::read_chunk`].
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(bytes);
        match self.io.poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buf) {
            Poll::Ready(result) => result.map(|()| buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until [`ByteStream::try_write`] is worth a try.
    pub async fn writable(&self) {
        std::future::poll_fn(|cx| self.io.poll_writable(cx)).await;
    }

    /// Writes what goes at once.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing does, else as [`ByteStream::read_chunk`].
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.io.poll_write(&mut Context::from_waker(std::task::Waker::noop()), bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ends the stream at once in both directions and tells the peer why. What was written and not sent yet is discarded.
    pub fn reset(self, code: StreamCode) {
        self.io.end(code, false);
    }

    /// Ends the stream in both directions and tells the peer why, behind everything that was written: the peer reads all
    /// of it before it sees the error.
    pub fn reset_behind(self, code: StreamCode) {
        self.io.end(code, true);
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        self.io.end(StreamCode::Cancelled, true);
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").field("peer", self.peer()).finish_non_exhaustive()
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 { Poll::Ready(Ok(())) } else { self.io.poll_read(cx, buf) }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.io.finish())
    }
}

/// A stream that a peer wants, as a stack implements it. Programs hold it as an [`Incoming`].
pub trait StreamOffer: Send + Sync + 'static {
    /// Returns the facts about the link that the request came over.
    fn link_info(&self) -> &LinkInfo;

    /// Returns `Ready` when the peer wants the stream no more, or the link is down.
    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Opens the stream. If the peer wants it no more, it is broken from the beginning.
    fn accept(self: Box<Self>) -> ByteStream;

    /// Refuses the stream. `hop` is the node further on that refused; empty for this one.
    fn refuse(self: Box<Self>, hop: &str, code: StreamCode, text: &str);
}

/// A stream that a peer wants. Dropped, it is refused as cancelled.
pub struct Incoming {
    offer: Option<Box<dyn StreamOffer>>,
    kind: StreamKind,
    data: Bytes,
    timeout: Duration,
}

impl Incoming {
    /// Returns the offer of a stack: a stream of this kind and purpose, for whose answer the peer waits so long.
    pub fn new(offer: impl StreamOffer, kind: StreamKind, data: Bytes, timeout: Duration) -> Self {
        Self { offer: Some(Box::new(offer)), kind, data, timeout }
    }

    fn offer(&self) -> &dyn StreamOffer {
        &**self.offer.as_ref().expect("only what consumes it takes it")
    }

    /// Returns the peer that wants it.
    pub fn peer(&self) -> &NodeName {
        &self.link_info().peer
    }

    /// Returns the atom mapping of its link.
    pub fn mapping(&self) -> Option<&Arc<AtomMapping>> {
        self.link_info().mapping.as_ref()
    }

    /// Returns its kind.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Returns its purpose, at most [`MAX_OPEN_DATA`] bytes; of a service, the name.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Returns how long the peer waits for the answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the facts about the link that the request came over.
    pub fn link_info(&self) -> &LinkInfo {
        self.offer().link_info()
    }

    /// Resolves when the peer wants the stream no more, or its link is down.
    pub async fn cancelled(&self) {
        std::future::poll_fn(|cx| self.offer().poll_cancelled(cx)).await;
    }

    /// Returns true if the peer wants the stream no more.
    pub fn is_cancelled(&self) -> bool {
        self.offer().poll_cancelled(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    /// Opens it. If the peer wants it no more, it is broken from the beginning.
    pub fn accept(mut self) -> ByteStream {
        self.offer.take().expect("nothing took it before").accept()
    }

    /// Refuses it with a reason.
    pub fn refuse(self, code: StreamCode, text: &str) {
        self.refuse_for("", code, text);
    }

    /// Refuses it with the reason of a node further on.
    pub fn refuse_for(mut self, hop: &str, code: StreamCode, text: &str) {
        if let Some(offer) = self.offer.take() {
            offer.refuse(hop, code, text);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(offer) = self.offer.take() {
            offer.refuse("", StreamCode::Cancelled, "");
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("kind", &self.kind()).field("data", &self.data).finish_non_exhaustive()
    }
}
