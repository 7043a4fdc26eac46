//! TLK/1, the protocol of native links, as state machines.
//!
//! Nothing here does I/O, reads a clock or needs an async runtime: bytes go in, effects come out, and time is an argument.
//! A socket drives the machines as well as a simulator does. `trunkline-link` is the driver over TCP and TLS.
//!
//! - [`handshake`]: two proven ends out of one encrypted connection; [`pake`] is the key exchange that proves the cookie.
//! - [`frame`]: frames out of a stream of bytes.
//! - [`mux`]: messages, calls and streams of bytes on one link, with credit on both sides.
//! - [`important`]: delivery whose outcome the sender learns, across links.
//! - [`gate`]: places before authentication, and the pace of cookie proofs.
//!
//! ```
//! use trunkline_wire::frame::{self, Decoder, Flow};
//!
//! let mut bytes = Vec::new();
//! frame::put(&mut bytes, frame::PING, 0, &[7; 16]);
//! let mut pings = 0;
//! let fed = Decoder::default().feed(&bytes, |header, payload| {
//!     pings += usize::from(header.kind == frame::PING && payload == [7; 16]);
//!     Ok(Flow::Continue(()))
//! });
//! assert!(fed.is_ok() && pings == 1);
//! ```

pub mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod handshake;
pub mod important;
pub mod mux;
pub mod pake;
