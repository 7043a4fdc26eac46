//! A socket while strangers talk: whole messages, counted bytes.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use trunkline_route::NodeName;
use trunkline_tls::{ALPN, names_node};
use trunkline_wire::handshake::{EXPORTER_LABEL, MAX_BODY};

use crate::carrier::{Carrier, Stream};

/// Bytes the kernel takes before it sent them. What it took can no longer be overtaken: with its usual megabytes, control
/// frames would wait behind them.
#[cfg(target_os = "linux")]
const NOT_SENT: u32 = 128 * 1024;

/// Sets what every socket of a link wants.
pub(crate) fn prepare(tcp: &TcpStream, dead: Duration) {
    // Each is an improvement the link does without where the platform refuses it.
    let _ = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(tcp);
        let _ = socket.set_tcp_user_timeout(Some(dead));
        let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = dead;
}

/// A socket during the handshake: whole messages in and out.
pub(crate) struct Pipe {
    pub(crate) stream: Stream,
    pub(crate) plain: Vec<u8>,
    read: usize,
    limit: usize,
}

#[derive(Debug)]
pub(crate) enum PipeError {
    Ended,
    Io(io::Error),
    Tls(rustls::Error),
    TooMuch,
}

impl From<io::Error> for PipeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for PipeError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl Pipe {
    pub(crate) fn new(carrier: Carrier, tls: rustls::Connection, limit: usize) -> Self {
        Self { stream: Stream::new(carrier, tls), plain: Vec::new(), read: 0, limit }
    }

    async fn flush(&mut self) -> Result<(), PipeError> {
        while !self.stream.write_ready()?.0 {
            self.stream.carrier.writable().await?;
        }
        Ok(())
    }

    /// Reads once; the cryptography it leads to runs under a permit.
    async fn read(&mut self, permits: Option<&Semaphore>) -> Result<(), PipeError> {
        loop {
            self.stream.carrier.readable().await?;
            let _permit = match permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            let room = (self.limit - self.read).max(1);
            let plain = &mut self.plain;
            let taken = self.stream.read_ready::<PipeError>(room, |chunk| {
                plain.extend_from_slice(chunk);
                Ok(())
            });
            match taken {
                Ok(None) => {}
                Ok(Some(0)) => return Err(PipeError::Ended),
                Ok(Some(n)) => {
                    self.read += n;
                    if self.read > self.limit {
                        return Err(PipeError::TooMuch);
                    }
                    return Ok(());
                }
                Err(error) => {
                    // The alert that says why goes out if it can.
                    let _ = self.stream.write_ready();
                    return Err(error);
                }
            }
        }
    }

    pub(crate) async fn handshake(&mut self, permits: Option<&Semaphore>) -> Result<(), PipeError> {
        self.flush().await?;
        while self.stream.tls.is_handshaking() {
            self.read(permits).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Returns true if the peer named the protocol of trunkline, as every node does.
    pub(crate) fn speaks_tlk(&self) -> bool {
        self.stream.tls.alpn_protocol() == Some(ALPN)
    }

    /// Returns `true` if the peer showed a certificate that carries the name of this node.
    pub(crate) fn peer_is_named(&self, node: &NodeName) -> bool {
        let shown = self.stream.tls.peer_certificates().and_then(|chain| chain.first());
        shown.is_some_and(|certificate| names_node(certificate, node))
    }

    /// Returns true if the peer showed a certificate. A listener that does not ask for one never sees any.
    pub(crate) fn peer_has_certificate(&self) -> bool {
        self.stream.tls.peer_certificates().is_some()
    }

    pub(crate) fn exporter(&self) -> Result<[u8; 32], PipeError> {
        Ok(self.stream.tls.export_keying_material([0; 32], EXPORTER_LABEL, None)?)
    }

    pub(crate) async fn send(&mut self, body: &[u8]) -> Result<(), PipeError> {
        debug_assert!(body.len() <= MAX_BODY);
        let framed = [&(body.len() as u16).to_be_bytes(), body].concat();
        io::Write::write_all(&mut self.stream.tls.writer(), &framed)?;
        self.flush().await
    }

    /// The next message. Its length is checked before its body is awaited.
    pub(crate) async fn message(&mut self) -> Result<Vec<u8>, PipeError> {
        loop {
            if let Some((len, rest)) = self.plain.split_first_chunk::<2>() {
                let len = usize::from(u16::from_be_bytes(*len));
                if len > MAX_BODY {
                    return Err(PipeError::TooMuch);
                }
                if rest.len() >= len {
                    let body = rest[..len].to_vec();
                    self.plain.drain(..2 + len);
                    return Ok(body);
                }
            }
            self.read(None).await?;
        }
    }

    /// Closes so that what was sent last is not cut off by a reset.
    pub(crate) async fn end(&mut self) {
        self.stream.tls.send_close_notify();
        let _ = self.flush().await;
        let _ = self.stream.carrier.shutdown().await;
        while self.read(None).await.is_ok() {
            self.plain.clear();
        }
    }
}
