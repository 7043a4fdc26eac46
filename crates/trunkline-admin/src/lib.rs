//! Node from a configuration, and its operations API: JSON over HTTP, on a Unix socket (mode 0600) by default, on TCP
//! with a bearer token on request.
//!
//! * [`start()`] starts the node that a [`Config`](trunkline_config::Config) describes. The returned [`Running`] applies
//!   changed configurations and stops the node. `trunkline node` adds only a command line, signals and a log.
//! * [`Operations`] holds the operations without HTTP, [`AdminServer`] serves them, [`AdminClient`] calls them, and
//!   [`api`] has the types shared by both ends.
//!
//! [A page of the repository](https://github.com/trunkline/trunkline/blob/main/docs/ADMIN.md) lists paths, requests
//! and answers.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

pub mod api;
mod client;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod join;
mod ops;
mod places;
mod programs;
mod running;
mod server;
mod start;
mod watch;

pub use client::{AdminClient, ClientError, Hold, Lines};
pub use join::{JoinError, JoinOptions, Joined, join};
pub use ops::{AttachedForward, Kind, OpError, Operations, Source};
pub use running::{RunOptions, Running, start, start_client};
pub use server::{AdminAddress, AdminError, AdminListener, AdminServer};
pub use start::{FileError, RunError, check_files, file_descriptors};

/// TCP keep-alive settings that detect a vanished peer: idle time, pause between probes, and number of probes without
/// an answer.
const VANISHED: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Enables TCP keep-alive, so that the system ends a connection whose other end has vanished.
fn keep_alive(tcp: &TcpStream) {
    let (idle, pause, probes) = VANISHED;
    let alive = TcpKeepalive::new().with_time(idle).with_interval(pause).with_retries(probes);
    // A failure only means that a vanished client keeps its slot; the connection itself can be served.
    let _ = SockRef::from(tcp).set_tcp_keepalive(&alive);
}
