//! The operations API of a trunkline node: JSON over HTTP, on a Unix socket (mode 0600) by default, on TCP with a
//! bearer token on request.
//!
//! [`Operations`] are the operations without HTTP, [`AdminServer`] serves them, [`AdminClient`] asks for them, and
//! [`api`] has the types both ends share. Paths, requests and answers are listed in the project's `docs/ADMIN.md`.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub mod api;
mod client;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ops;
mod places;
mod server;

pub use client::{AdminClient, ClientError, Hold};
pub use ops::{AttachedForward, Kind, OpError, Operations, Source, proxied, transit};
pub use server::{AdminAddress, AdminError, AdminListener, AdminServer};

/// When the other end of a TCP connection that vanished is noticed: idle time, pause between probes, probes without an
/// answer.
const VANISHED: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Makes the system end this connection when its other end has vanished.
fn keep_alive(tcp: &TcpStream) {
    let (idle, pause, probes) = VANISHED;
    let alive = TcpKeepalive::new().with_time(idle).with_interval(pause).with_retries(probes);
    // Without it a place is taken until the process ends, which is no reason to serve nobody.
    let _ = SockRef::from(tcp).set_tcp_keepalive(&alive);
}
