//! Bytes of a stream on their way to a writer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::ByteStream;

/// End of an [`Outflow`] that failed.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The stream the bytes come from.
    #[error("the stream that is read failed")]
    Source(#[source] io::Error),
    /// The end that the bytes are written to.
    #[error("the stream that is written to failed")]
    Sink(#[source] io::Error),
}

/// Bytes of a stream on their way to a writer, up to the end of both. At most one piece waits in between.
///
/// ```no_run
/// use std::future::poll_fn;
///
/// use trunkline_stack::{ByteStream, FlowError, Outflow};
///
/// /// Writes what the stream brings to a file, and returns how many bytes that were.
/// async fn save(mut stream: ByteStream, mut file: impl tokio::io::AsyncWrite + Unpin) -> Result<usize, FlowError> {
///     let (mut outflow, written) = (Outflow::default(), std::cell::Cell::new(0));
///     let count = |bytes| written.set(written.get() + bytes);
///     poll_fn(|cx| outflow.poll(cx, &mut stream, &mut file, count)).await?;
///     Ok(written.get())
/// }
/// ```
#[derive(Debug, Default)]
pub struct Outflow {
    chunk: Bytes,
    ended: bool,
    done: bool,
}

impl Outflow {
    /// Moves on what goes at once, and ends the sink when the stream ends. `moved` is told how many bytes were taken.
    ///
    /// # Errors
    /// [`FlowError`]: which of the two failed, and how.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ByteStream,
        to: &mut (impl AsyncWrite + Unpin),
        moved: impl Fn(usize),
    ) -> Poll<Result<(), FlowError>> {
        while !self.done {
            if !self.chunk.is_empty() {
                let taken = ready!(Pin::new(&mut *to).poll_write(cx, &self.chunk)).map_err(FlowError::Sink)?;
                moved(taken);
                self.chunk.advance(taken);
            } else if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(FlowError::Sink)?;
                self.done = true;
            } else {
                match ready!(from.poll_chunk(cx, usize::MAX)).map_err(FlowError::Source)? {
                    Some(chunk) => self.chunk = chunk,
                    None => (self.chunk, self.ended) = (Bytes::new(), true),
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use trunkline_route::Cookie;

    use super::*;
    use crate::{LinkInfo, LocalLimits, LocalLink, Mailboxes, StreamCode, StreamKind};

    /// Both ends of a stream of a node to itself.
    async fn pair() -> (Arc<LocalLink>, ByteStream, ByteStream) {
        let mailboxes = Arc::new(Mailboxes::default());
        let info = LinkInfo::local("a@h".parse().unwrap(), [7; 16], Cookie::new("a cookie of some length").unwrap());
        let own = LocalLink::start(info, mailboxes.clone(), LocalLimits::default());
        let taken = Arc::new(Mutex::new(None));
        let take = taken.clone();
        mailboxes.accept_streams(Some(Arc::new(move |incoming| *take.lock().unwrap() = Some(incoming.accept()))));
        let here = own.link().open(StreamKind::User, b"", Duration::from_secs(5)).await.unwrap();
        let there = taken.lock().unwrap().take().unwrap();
        (own, here, there)
    }

    #[tokio::test]
    async fn everything_up_to_the_end_arrives_and_is_counted() {
        let (_own, mut here, mut there) = pair().await;
        here.write_all(&[1; 1_000]).await.unwrap();
        here.write_all(&[2; 1_000]).await.unwrap();
        here.shutdown().await.unwrap();
        let (mut outflow, mut sink, moved) = (Outflow::default(), Vec::new(), Cell::new(0));
        poll_fn(|cx| outflow.poll(cx, &mut there, &mut sink, |bytes| moved.set(moved.get() + bytes))).await.unwrap();
        assert_eq!((sink.len(), &sink[998..1002], moved.get()), (2_000, &[1, 1, 2, 2][..], 2_000));
    }

    #[tokio::test]
    async fn bytes_from_before_a_break_arrive_before_the_error_that_names_its_side() {
        let (_own, mut here, mut there) = pair().await;
        here.write_all(b"half").await.unwrap();
        here.reset_behind(StreamCode::Broken);
        let (mut outflow, mut sink) = (Outflow::default(), Vec::new());
        let broken = poll_fn(|cx| outflow.poll(cx, &mut there, &mut sink, |_| {})).await.unwrap_err();
        assert!(matches!(broken, FlowError::Source(_)) && sink == b"half", "{broken}");

        let (_own, mut here, mut there) = pair().await;
        here.write_all(b"lost").await.unwrap();
        let (mut closed, other) = tokio::io::duplex(1);
        drop(other);
        let broken = poll_fn(|cx| Outflow::default().poll(cx, &mut there, &mut closed, |_| {})).await.unwrap_err();
        assert!(matches!(broken, FlowError::Sink(_)), "{broken}");
    }
}
