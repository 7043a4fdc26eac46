//! The native stack of trunkline, TLK/1: encrypted links between two proven nodes, over TCP or another transport.
//!
//! # Modules
//! The protocol is in `trunkline-wire` as state machines, TLS in `trunkline-tls`, and the handles that programs use
//! ([`Link`], [`Mailboxes`], [`ByteStream`]) in `trunkline-stack`. In this crate [`Native`] dials and [`Listener`]
//! answers over TCP with TLS 1.3 (rustls), and one small task moves the bytes of each link. [`Native::dial_over`] and
//! [`Inside::answer`] do so over any [`Transport`]: a stream through other nodes, a Unix socket, a pipe in memory.
//!
//! [`NativeStack`] is all of this as a [`Stack`](trunkline_stack::Stack), by the traits that every network stack has; so
//! a node uses it.
//!
//! # From a socket to a link
//! [`Native::dial`] runs the handshake up to the peer's proof and returns a [`Dialed`]; [`Listener::serve`] runs it up to
//! the caller's proof and returns an [`Offered`]. Both stop there because two nodes that dial each other must end up with
//! one link: the registry of links decides, by [`Dialed::finish`] and [`Offered::accept`]. Either returns a
//! [`Standing`], and [`Standing::start`] the [`Link`] and the future that moves its bytes. `examples/two_nodes.rs`
//! shows all steps.
//!
//! # Guarantees of a link
//! - Every connection is encrypted. The cookie is proven by SPAKE2 bound to the TLS exporter: an eavesdropper, a
//!   listener or a machine in the middle learns nothing that permits guessing off-line.
//! - Messages of one pair of names arrive in the order sent, or the link goes down and says why ([`Down`]).
//! - A mailbox that is not read stops its own senders and no others. Without credit [`Link::send`] waits, and
//!   [`Link::try_send`] returns `SendError::Full`.
//! - A byte stream ([`Link::open`]) has its own credit, so a stream that is not read stops nothing else; streams and
//!   messages take turns.
//! - A call ends with an answer or a `CallError` that says whether the peer may have seen it.
//! - [`Link::go_away`] loses nothing; [`Link::close`] does not wait. A transport that ends without a close is a lost
//!   connection, never a normal end.
//!
//! # Features
//! `tls-ring` (default) or `tls-aws-lc` chooses the cryptography of TLS; without either everything compiles and
//! every TLS configuration is refused by `TlsError::NoProvider`.

mod account;
mod admission;
mod byte_stream;
mod carrier;
mod farewell;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake_io;
mod link;
mod listener;
mod native;
mod polled;
mod receiver;
mod shell;
mod stack;
mod task;

pub use byte_stream::{ALL_WINDOWS, FIRST_WINDOW, MAX_WINDOW, SMALL_WINDOW};
pub use listener::{AnswerError, CredentialsFn, Inside, Listener, Offered};
pub use native::{DialError, DialTimes, Dialed, Native, NativeLimits, REGISTRAR_WINDOW, Standing, random_16};
pub use stack::NativeStack;
pub use trunkline_stack::{
    ByteStream, Down, DownHook, FirstFrameHook, Hold, Hooks, HostNames, Link, LinkInfo, Mailboxes, PeerAddress, Rate,
    Transport,
};

pub use task::KeepAlive;
