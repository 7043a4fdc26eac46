//! The native link of trunkline, TLK/1: one connection between two proven nodes that carries messages and calls.
//!
//! - [`handshake`], [`frame`], [`mux`] and [`gate`] are state machines: no I/O, no clock, no async runtime. They
//!   can be driven by a simulator as well as by a socket.
//! - [`Native`] dials and answers over TCP with TLS 1.3 (rustls); [`Link`] is the live connection, moved by one
//!   small task; [`Directory`] and [`Mailbox`] are where messages arrive.
//!
//! Whether two nodes that both dial end up with one link is not decided here: the handshake stops where that
//! question arises ([`Dialed`], [`Offered`]) and whoever keeps the registry of links answers it.
//!
//! Every connection is encrypted. The cookie is proven by SPAKE2 bound to the TLS exporter; see the project's
//! `docs/WIRE.md` and `docs/SECURITY.md` for the bytes and the argument.

pub mod frame;
pub mod gate;
pub mod handshake;
mod io;
mod link;
mod mailbox;
pub mod mux;
mod native;
mod pake;
mod tls;

pub use io::{DownHook, FirstFrameHook, Hold, Hooks, KeepAlive};
pub use link::{CallError, Down, Link, LinkInfo, LinkStats, SendError};
pub use mailbox::{Directory, Mailbox, Message, RegisterError, Replier};
pub use native::{
    AnswerError, Claims, CredentialsFn, DialError, DialTimes, Dialed, Listener, Native, NativeLimits, Offered,
    Standing, random_16,
};
pub use pake::{Pake, Role, Spake2};
pub use tls::{ClientTls, Identity, ServerTls, TlsError, TlsProfile};
