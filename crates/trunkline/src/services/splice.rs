//! The bytes of a socket and a stream, passed on both ways.

use std::cell::RefCell;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trunkline_link::{Names, first_of};
use trunkline_proxy::{FlowError, LAST_BYTES, Outflow, Quiet};
use trunkline_route::SocketPlace;
use trunkline_stack::{ByteStream, StreamCode};

use crate::inner::now;

/// What is read from a socket at a time. It is shared by all connections of a thread, so that an idle one holds none.
const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Silence on a TCP connection of a service or a forward before the kernel asks whether the other end is still there.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Questions without an answer after which the connection is over: a host that vanished is noticed within two minutes.
const KEEP_ALIVE_RETRIES: u32 = 4;

/// Sets what every TCP connection of a service or a forward needs. There is no `TCP_USER_TIMEOUT`: it would also end a
/// connection whose reader only pauses. Sent bytes that are never acknowledged end it by the kernel's own limit.
fn prepare(tcp: &TcpStream) {
    // Each is an improvement that the connection does without where the platform refuses it.
    let _ = tcp.set_nodelay(true);
    let keep_alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE_TIME)
        .with_interval(KEEP_ALIVE_INTERVAL)
        .with_retries(KEEP_ALIVE_RETRIES);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keep_alive);
}

/// Connects to a place: of a host with several addresses to the first one that answers.
pub(super) async fn connect(names: &Names, place: &SocketPlace) -> io::Result<Socket> {
    match place {
        SocketPlace::Tcp(address) => {
            let addresses = names.addresses(address.host.as_str(), address.port.get()).await?;
            let first = first_of(addresses, TcpStream::connect).await;
            let tcp = first.map_err(|mut failed| failed.pop().unwrap_or(io::ErrorKind::NotFound.into()))?;
            prepare(&tcp);
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
                prepare(&tcp);
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

/// State of a client that has sent something.
#[derive(Debug)]
pub(super) enum Sent {
    /// More may come.
    Open,
    /// That is all.
    All,
    /// The connection broke off behind it. The socket tells this once: what is read afterwards looks like a good end.
    Broken(io::Error),
}

impl Socket {
    /// Returns what the other end has sent already, up to `most` bytes, and how it goes on.
    pub(super) fn sent_already(&self, most: usize) -> (Vec<u8>, Sent) {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Unix(unix) => SockRef::from(unix),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let (mut len, most) = (0, most.min(READ));
            let mut sent = Sent::Open;
            while len < most {
                match (&*socket).read(&mut scratch[len..most]) {
                    Ok(0) => sent = Sent::All,
                    Ok(read) => {
                        len += read;
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => sent = Sent::Broken(error),
                }
                break;
            }
            (scratch[..len].to_vec(), sent)
        })
    }

    /// Closes the connection so that the other end sees more than an end of data, once the kernel has sent what it was
    /// given; that takes at most [`LAST_BYTES`].
    pub(super) async fn abort(self) {
        if let Self::Tcp(tcp) = self {
            #[cfg(target_os = "linux")]
            let _ = tokio::time::timeout(LAST_BYTES, all_sent(&tcp)).await;
            let _ = tcp.set_zero_linger();
        }
    }
}

/// Waits until the kernel has sent everything that was written: a reset discards the rest.
#[cfg(target_os = "linux")]
async fn all_sent(tcp: &TcpStream) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // From here on the socket counts as writable only while no written byte waits to be sent.
    SockRef::from(tcp).set_tcp_notsent_lowat(1)?;
    let is_sent = || {
        let mut now = [PollFd::new(tcp, PollFlags::OUT)];
        match poll(&mut now, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    };
    tcp.async_io(Interest::WRITABLE, is_sent).await
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

/// Cause of the end: the side that broke off, or a silence that was too long.
#[derive(Debug, Clone, Copy)]
enum Failed {
    Socket,
    Stream,
    Idle,
}

/// Copies bytes between a socket and a stream until both directions ended, each by itself, or one of the two broke off. What
/// had arrived from the one that broke off is written to the other one, which is then reset behind it; that takes at most
/// [`LAST_BYTES`] in which none of it moves. When nothing moved for so long as `idle`, both are reset.
///
/// The socket may have `ended` already, and the stream been told.
pub(super) async fn splice(
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
                traffic.moves(&traffic.received, bytes);
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

/// From the socket into the stream.
#[derive(Default)]
struct There {
    /// What was read and not taken yet.
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
            ready!(SCRATCH.with_borrow_mut(|scratch| self.read(cx, scratch, socket, stream, &sent)))?;
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
        sent: &impl Fn(usize),
    ) -> Poll<Result<(), Failed>> {
        scratch.resize(READ, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_kernel_watches_both_ends_of_every_tcp_connection() {
        let door = Door::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let Door::Tcp(listener) = &door else { unreachable!("it was made just now") };
        let place = format!("{}", listener.local_addr().unwrap()).parse().unwrap();
        let native = trunkline_link::Native::new("a@h".parse().unwrap(), trunkline_link::NativeLimits::default());
        let (client, accepted) = tokio::join!(connect(native.names(), &place), door.accept());
        for socket in [client.unwrap(), accepted.unwrap()] {
            let Socket::Tcp(tcp) = socket else { panic!("it is no TCP socket") };
            let socket = SockRef::from(&tcp);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE_TIME);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEP_ALIVE_INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEP_ALIVE_RETRIES);
        }
    }

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
            let (sent, goes_on) = Socket::Tcp(tcp).sent_already(100);
            assert_eq!(sent, bytes);
            match goes_on {
                Sent::Open => assert_eq!(how, "stays"),
                Sent::All => assert_eq!(how, "ends"),
                Sent::Broken(error) => assert_eq!((error.kind(), how), (io::ErrorKind::ConnectionReset, "breaks")),
            }
            drop(there);
        }
    }
}
