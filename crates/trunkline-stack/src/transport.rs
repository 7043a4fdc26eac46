//! Ways for the bytes of a link.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use trunkline_route::NodeName;

use crate::{ByteStream, PeerAddress};

/// A pair of byte directions: whatever is read and written asynchronously, such as a Unix socket or a pipe in memory.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> Duplex for T {}

/// A way for the bytes of one link, before the handshake of a stack: a TCP connection, a stream of another link, or any
/// other [`Duplex`]. It carries bytes in order and both ways, and proves nothing.
///
/// A stack reads and writes it as it is, or takes the kinds that it has a faster way for by [`Transport::into_kind`].
///
/// ```
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use trunkline_stack::{PeerAddress, Transport};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (ours, mut theirs) = tokio::io::duplex(64);
/// let mut transport = Transport::new(ours, PeerAddress::Memory);
/// theirs.write_all(b"hello").await?;
/// let mut hello = [0; 5];
/// transport.read_exact(&mut hello).await?;
/// assert_eq!(&hello, b"hello");
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
pub struct Transport {
    kind: TransportKind,
    address: PeerAddress,
    via: Option<NodeName>,
}

/// The kinds of a [`Transport`].
pub enum TransportKind {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A stream of another link.
    Stream(ByteStream),
    /// Another pair of byte directions.
    Other(Box<dyn Duplex>),
}

impl Transport {
    /// Returns the transport over a TCP connection to this address.
    pub fn tcp(tcp: TcpStream, address: SocketAddr) -> Self {
        Self { kind: TransportKind::Tcp(tcp), address: address.into(), via: None }
    }

    /// Returns the transport inside a stream whose other end is the peer itself, or a program that passes the bytes on. The
    /// address is that of the stream's peer.
    pub fn stream(stream: ByteStream) -> Self {
        Self { address: stream.link_info().address.clone(), kind: TransportKind::Stream(stream), via: None }
    }

    /// Returns the transport inside a stream that a gateway leads on: the link over it goes through the stream's peer. Both
    /// ends must take it so, since the handshake says that it is relayed.
    pub fn relayed(stream: ByteStream) -> Self {
        let via = Some(stream.peer().clone());
        Self { via, ..Self::stream(stream) }
    }

    /// Returns the transport over a Unix socket.
    #[cfg(unix)]
    pub fn unix(socket: tokio::net::UnixStream) -> Self {
        Self::new(socket, PeerAddress::Unix)
    }

    /// Returns the transport over any pair of byte directions to this address. Limits per address count it as
    /// [`PeerAddress::counted_ip`] says.
    pub fn new(io: impl Duplex, address: PeerAddress) -> Self {
        Self { kind: TransportKind::Other(Box::new(io)), address, via: None }
    }

    /// Returns the address of the other end; inside a stream, that of the stream's peer.
    pub fn address(&self) -> &PeerAddress {
        &self.address
    }

    /// Returns the first node of the way, if a gateway leads on.
    pub fn via(&self) -> Option<&NodeName> {
        self.via.as_ref()
    }

    /// Returns what carries the bytes.
    pub fn into_kind(self) -> TransportKind {
        self.kind
    }

    fn io(&mut self) -> Pin<&mut dyn Duplex> {
        match &mut self.kind {
            TransportKind::Tcp(tcp) => Pin::new(tcp),
            TransportKind::Stream(stream) => Pin::new(stream),
            TransportKind::Other(other) => Pin::new(&mut **other),
        }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("address", &self.address).field("via", &self.via).finish_non_exhaustive()
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.io().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
