//! Listening TCP sockets, and loops that accept from a listening socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use crate::{LogLimit, now};

/// Connections the kernel may hold for a listener; 128 loses connects in a burst.
const BACKLOG: u32 = 1024;
/// Pauses after failures to accept: the first, doubled with each further failure up to the last. The failure is mostly a
/// want of file descriptors, which another try does not mend.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// Period in which one failure is logged.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// Binds a TCP socket and listens. Port 0 takes a free one. A socket for IPv6 takes IPv6 connections only, whatever the
/// system's default is, so that `0.0.0.0` and `::` can be listened at together.
///
/// # Errors
/// The operating system's, for an address in use among others.
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() {
            socket2::SockRef::from(&socket).set_only_v6(true)?;
        }
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Failures of a loop that accepts connections: at most one log line a second, and a pause that grows to half a second.
#[derive(Debug)]
pub struct AcceptFailures {
    log: LogLimit<()>,
    pause: Duration,
}

impl Default for AcceptFailures {
    fn default() -> Self {
        Self { log: LogLimit::new(1, LOG_PERIOD), pause: PAUSES.0 }
    }
}

impl AcceptFailures {
    /// Notes that a connection was accepted; the next pause is short again.
    pub fn accepted(&mut self) {
        self.pause = PAUSES.0;
    }

    /// Logs a failure at this place, unless another one was logged within the last second, and waits a moment: connections
    /// that end meanwhile may free what was missing.
    pub async fn failed(&mut self, place: &impl fmt::Display, error: &io::Error) {
        if let Some(suppressed) = self.log.allow(now().into_std(), &()) {
            tracing::warn!(%place, %error, suppressed, "a connection cannot be accepted; the next try follows");
        }
        tokio::time::sleep(self.pause).await;
        self.pause = PAUSES.1.min(self.pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_wildcard_addresses_can_be_listened_at_with_one_port() {
        let Ok(six) = listen_tcp("[::]:0".parse().unwrap()) else { return };
        let port = six.local_addr().unwrap().port();
        listen_tcp(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_without_descriptors_waits_longer_with_each_failure_until_it_accepts_again() {
        let mut failures = AcceptFailures::default();
        let began = now();
        for _ in 0..100 {
            failures.failed(&"here", &io::ErrorKind::Other.into()).await;
        }
        assert!(now() - began > 90 * PAUSES.1);
        failures.accepted();
        let began = now();
        failures.failed(&"here", &io::ErrorKind::Other.into()).await;
        assert!(now() - began <= 2 * PAUSES.0);
    }
}
