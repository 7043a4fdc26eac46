//! The bytes of a socket and a stream, passed on both ways.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trunkline_stack::{ByteStream, FlowError, LAST_BYTES, Outflow, Quiet, StreamCode};

use crate::socket::Socket;
use crate::traffic::{Open, Traffic};

/// Bytes read from a socket at a time. The buffer is shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls a function with the buffer of this thread.
pub(crate) fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(READ, 0);
        read(scratch)
    })
}

/// Cause of the end: the side that broke off, or a silence that was too long.
#[derive(Debug, Clone, Copy)]
enum Failed {
    Socket,
    Stream,
    Idle,
}

/// Copies bytes between a socket and a stream until both directions ended, each by itself, or one of the two broke off. The
/// bytes that had arrived from the one that broke off are written to the other one, which is then reset behind them; that
/// takes at most [`LAST_BYTES`] in which none of them moves. When no byte moved for the time `idle`, both are reset.
///
/// `ended` says that the socket has ended already and that the stream was told so.
pub(crate) async fn splice(
    mut socket: Socket,
    mut stream: ByteStream,
    ended: bool,
    traffic: &Traffic,
    idle: Option<Duration>,
) {
    let _open = Open::new(traffic);
    let (mut there, mut back) = (There { ended, done: ended, ..There::default() }, Outflow::default());
    let (mut quiet, mut broken) = (Quiet::new(idle), None);
    let ended = std::future::poll_fn(|cx| {
        loop {
            // Also while what came before waits for the socket.
            if broken.is_none() && stream.poll_broken(cx).is_ready() {
                broken = Some(Failed::Stream);
                quiet.tighten(LAST_BYTES);
            }
            if quiet.poll(cx).is_ready() {
                return Poll::Ready(Some(broken.unwrap_or(Failed::Idle)));
            }
            let sent = |bytes| {
                traffic.sends(bytes);
                quiet.moved();
            };
            let received = |bytes| {
                traffic.receives(bytes);
                quiet.moved();
            };
            let failed = match broken {
                None => {
                    let one = there.poll(cx, &mut socket, &mut stream, sent);
                    let other = back.poll(cx, &mut stream, &mut socket, received).map_err(|error| match error {
                        FlowError::Source(_) => Failed::Stream,
                        FlowError::Sink(_) => Failed::Socket,
                    });
                    match (one, other) {
                        (Poll::Ready(Err(failed)), _) | (_, Poll::Ready(Err(failed))) => failed,
                        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(None),
                        _ => return Poll::Pending,
                    }
                }
                // Up to the end or the error that comes behind what had arrived.
                Some(Failed::Socket) => return there.poll(cx, &mut socket, &mut stream, sent).map(|_| broken),
                Some(_) => return back.poll(cx, &mut stream, &mut socket, received).map(|_| broken),
            };
            if matches!(failed, Failed::Socket) {
                there.is_cut = true;
            }
            broken = Some(failed);
            quiet.tighten(LAST_BYTES);
        }
    });
    match ended.await {
        None => {}
        Some(Failed::Socket) => stream.reset_behind(StreamCode::Broken),
        Some(Failed::Stream) => {
            // The peer need not wait for the socket.
            drop(stream);
            socket.abort().await;
        }
        Some(Failed::Idle) => {
            stream.reset(StreamCode::TimedOut);
            socket.abort().await;
        }
    }
}

/// Direction from the socket into the stream.
#[derive(Default)]
struct There {
    /// Bytes that were read and not taken yet.
    rest: Bytes,
    ended: bool,
    done: bool,
    /// The socket broke off: its end is no good end, and the stream does not learn of one.
    is_cut: bool,
}

impl There {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        stream: &mut ByteStream,
        sent: impl Fn(usize),
    ) -> Poll<Result<(), Failed>> {
        while !self.done {
            if !self.rest.is_empty() {
                let taken = ready!(Pin::new(&mut *stream).poll_write(cx, &self.rest)).map_err(|_| Failed::Stream)?;
                sent(taken);
                self.rest.advance(taken);
                continue;
            }
            if self.ended {
                if !self.is_cut {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx)).map_err(|_| Failed::Stream)?;
                }
                self.done = true;
                continue;
            }
            self.rest = Bytes::new();
            ready!(with_scratch(|scratch| self.read(cx, scratch, socket, stream, &sent)))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what the stream takes at once; only the rest is kept.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        socket: &mut Socket,
        stream: &mut ByteStream,
        sent: &impl Fn(usize),
    ) -> Poll<Result<(), Failed>> {
        let mut read = ReadBuf::new(scratch);
        if ready!(Pin::new(socket).poll_read(cx, &mut read)).is_err() {
            (self.ended, self.is_cut) = (true, true);
            return Poll::Ready(Err(Failed::Socket));
        }
        let mut bytes = read.filled();
        self.ended = bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(taken)) => {
                    sent(taken);
                    bytes = &bytes[taken..];
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failed::Stream)),
                Poll::Pending => {
                    self.rest = Bytes::copy_from_slice(bytes);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
