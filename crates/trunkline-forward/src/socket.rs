//! Local sockets: TCP and Unix, connected and listening.

use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use trunkline_route::SocketPlace;
use trunkline_stack::{HostNames, LAST_BYTES, first_of};

use crate::splice::with_scratch;

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
pub(crate) async fn connect(names: &HostNames, place: &SocketPlace) -> io::Result<Socket> {
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
pub(crate) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
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
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// State of a client that has sent something.
#[derive(Debug)]
pub(crate) enum Sent {
    /// More bytes may come.
    Open,
    /// No more bytes come.
    All,
    /// The connection broke off behind these bytes. The socket reports this once: a later read looks like a good end.
    Broken(io::Error),
}

impl Socket {
    /// Returns the bytes that the other end has sent already, at most `most`, and how it goes on.
    pub(crate) fn sent_already(&self, most: usize) -> (Vec<u8>, Sent) {
        let socket = match self {
            Self::Tcp(tcp) => SockRef::from(tcp),
            Self::Unix(unix) => SockRef::from(unix),
        };
        with_scratch(|scratch| {
            let (mut len, most) = (0, most.min(scratch.len()));
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
    pub(crate) async fn abort(self) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_kernel_watches_both_ends_of_every_tcp_connection() {
        let door = Door::Tcp(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let Door::Tcp(listener) = &door else { unreachable!("it was made just now") };
        let place = format!("{}", listener.local_addr().unwrap()).parse().unwrap();
        let names = HostNames::of_the_system();
        let (client, accepted) = tokio::join!(connect(&names, &place), door.accept());
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
