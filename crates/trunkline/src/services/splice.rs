//! The bytes of a socket and a stream, passed on both ways.

use std::cell::RefCell;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trunkline_link::{ByteStream, StreamCode};
use trunkline_proxy::{FlowError, Outflow};
use trunkline_route::SocketPlace;

use crate::inner::now;

/// What is read from a socket at a time. It is shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Connects to a place.
pub(super) async fn connect(place: &SocketPlace) -> io::Result<Socket> {
    match place {
        SocketPlace::Tcp(address) => {
            let tcp = TcpStream::connect((address.host.as_str(), address.port.get())).await?;
            let _ = tcp.set_nodelay(true);
            Ok(Socket::Tcp(tcp))
        }
        SocketPlace::Unix(path) => Ok(Socket::Unix(UnixStream::connect(path).await?)),
    }
}

/// A listening socket.
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, _) = listener.accept().await?;
                let _ = tcp.set_nodelay(true);
                Ok(Socket::Tcp(tcp))
            }
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// A connected socket.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// What the other end has sent already, up to so much, and whether that is all it will send.
    ///
    /// # Errors
    /// The socket's; it is told once, and what is read afterwards looks like a good end.
    pub(super) fn sent_already(&self, most: usize) -> io::Result<(Vec<u8>, bool)> {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Unix(unix) => SockRef::from(unix),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let (mut sent, most) = (0, most.min(READ));
            while sent < most {
                match (&*socket).read(&mut scratch[sent..most]) {
                    Ok(0) => return Ok((scratch[..sent].to_vec(), true)),
                    Ok(read) => sent += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            Ok((scratch[..sent].to_vec(), false))
        })
    }

    /// Closes it so that the other end sees more than an end of data.
    pub(super) fn abort(self) {
        if let Self::Tcp(tcp) = self {
            let _ = tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => pin!(tcp).poll_read(cx, buf),
            Self::Unix(unix) => pin!(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => pin!(tcp).poll_write(cx, buf),
            Self::Unix(unix) => pin!(unix).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => pin!(tcp).poll_shutdown(cx),
            Self::Unix(unix) => pin!(unix).poll_shutdown(cx),
        }
    }
}

/// Numbers of the streams of one service or forwarder.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    open: AtomicU64,
    all: AtomicU64,
    refused: AtomicU64,
    /// Bytes from the link, and to it.
    received: AtomicU64,
    sent: AtomicU64,
    /// When bytes moved last, in microseconds since the node's clock began; 0: never.
    moved: AtomicU64,
}

/// Numbers of the streams of a service or a forwarder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Open now.
    pub open: u64,
    /// Opened since there are numbers, the open ones included.
    pub all: u64,
    /// Refused, or not to be had.
    pub refused: u64,
    /// Bytes that came from peers.
    pub received: u64,
    /// Bytes that went to peers.
    pub sent: u64,
    /// For how long no bytes moved; `None` before the first.
    pub idle: Option<Duration>,
}

fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let start = *START.get_or_init(now);
    now().saturating_duration_since(start).as_micros() as u64 + 1
}

impl Traffic {
    pub(super) fn stats(&self) -> TrafficStats {
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

    /// A stream was refused, or not to be had.
    pub(super) fn refuses(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes go to the peer.
    pub(super) fn sends(&self, bytes: usize) {
        self.moves(&self.sent, bytes);
    }

    fn moves(&self, direction: &AtomicU64, bytes: usize) {
        direction.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moved.store(clock(), Ordering::Relaxed);
    }
}

/// Counts a stream for as long as it is open.
struct Open<'a>(&'a Traffic);

impl<'a> Open<'a> {
    fn new(traffic: &'a Traffic) -> Self {
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

enum Failed {
    Socket,
    Stream,
}

/// Passes bytes on until both directions ended, each by itself, or one of the two broke off, which the other learns. The
/// socket may have `ended` already, and the stream been told.
pub(super) async fn splice(mut socket: Socket, mut stream: ByteStream, ended: bool, traffic: &Traffic) {
    let _open = Open::new(traffic);
    let (mut there, mut back) = (There { ended, done: ended, ..There::default() }, Outflow::default());
    let ended = std::future::poll_fn(|cx| {
        // Also while what came before waits for the socket.
        if stream.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failed::Stream));
        }
        let one = there.poll(cx, &mut socket, &mut stream, traffic)?;
        let other = back.poll(cx, &mut stream, &mut socket, |bytes| traffic.moves(&traffic.received, bytes));
        let other = other.map_err(|error| match error {
            FlowError::Source(_) => Failed::Stream,
            FlowError::Sink(_) => Failed::Socket,
        })?;
        if one.is_ready() && other.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    match ended.await {
        Ok(()) => {}
        Err(Failed::Socket) => stream.reset(StreamCode::Broken),
        Err(Failed::Stream) => socket.abort(),
    }
}

/// From the socket into the stream.
#[derive(Default)]
struct There {
    /// What was read and not taken yet.
    rest: Bytes,
    ended: bool,
    done: bool,
}

impl There {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut Socket,
        stream: &mut ByteStream,
        traffic: &Traffic,
    ) -> Poll<Result<(), Failed>> {
        while !self.done {
            if !self.rest.is_empty() {
                let taken = ready!(Pin::new(&mut *stream).poll_write(cx, &self.rest)).map_err(|_| Failed::Stream)?;
                traffic.sends(taken);
                self.rest.advance(taken);
                continue;
            }
            if self.ended {
                ready!(Pin::new(&mut *stream).poll_shutdown(cx)).map_err(|_| Failed::Stream)?;
                self.done = true;
                continue;
            }
            self.rest = Bytes::new();
            ready!(SCRATCH.with_borrow_mut(|scratch| self.read(cx, scratch, socket, stream, traffic)))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what the stream takes at once; only the rest is kept.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Vec<u8>,
        socket: &mut Socket,
        stream: &mut ByteStream,
        traffic: &Traffic,
    ) -> Poll<Result<(), Failed>> {
        scratch.resize(READ, 0);
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(socket).poll_read(cx, &mut read)).map_err(|_| Failed::Socket)?;
        let mut bytes = read.filled();
        self.ended = bytes.is_empty();
        while !bytes.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(taken)) => {
                    traffic.sends(taken);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_was_sent_already_is_told_with_its_end_or_with_how_it_broke_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (bytes, how) in [(&b""[..], "stays"), (b"half", "stays"), (b"all", "ends"), (b"half", "breaks")] {
            let mut there = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            there.write_all(bytes).await.unwrap();
            match how {
                "ends" => there.shutdown().await.unwrap(),
                "breaks" => there.set_zero_linger().unwrap(),
                _ => {}
            }
            let there = (how != "breaks").then_some(there);
            let (tcp, _) = listener.accept().await.unwrap();
            if !bytes.is_empty() {
                tcp.readable().await.unwrap();
            }
            let sent = Socket::Tcp(tcp).sent_already(100);
            match sent {
                Ok((sent, is_all)) => assert_eq!((&sent[..], is_all, how != "breaks"), (bytes, how == "ends", true)),
                Err(error) => assert_eq!((error.kind(), how), (io::ErrorKind::ConnectionReset, "breaks")),
            }
            drop(there);
        }
    }
}
