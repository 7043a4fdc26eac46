//! The operations API of a trunkline node: JSON over HTTP, on a Unix socket (mode 0600) by default, on TCP with a
//! bearer token on request.
//!
//! [`Operations`] are the operations without HTTP, [`AdminServer`] serves them, [`AdminClient`] asks for them, and
//! [`api`] has the types both ends share. Paths, requests and answers are listed in the project's `docs/ADMIN.md`.

pub mod api;
mod client;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod ops;
mod server;

pub use client::{AdminClient, ClientError};
pub use ops::{Kind, OpError, Operations, Source, proxied, transit};
pub use server::{AdminAddress, AdminError, AdminListener, AdminServer};
