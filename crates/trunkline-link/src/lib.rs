//! The native link of trunkline, TLK/1: one connection between two proven nodes that carries messages and calls.
//!
//! # What is where
//! The protocol is in `trunkline-wire` as state machines, TLS in `trunkline-tls`. Here [`Native`] dials and [`Listener`]
//! answers over TCP with TLS 1.3 (rustls); [`Link`] is the live connection, moved by one small task; [`Directory`] and
//! [`Mailbox`] are where messages arrive.
//!
//! # From a socket to a link
//! [`Native::dial`] goes as far as the peer's proof and gives a [`Dialed`]; [`Listener::serve`] goes as far as
//! the caller's and gives an [`Offered`]. Both stop where the question arises whether this link is wanted, since
//! two nodes that dial each other must end up with one: whoever keeps the registry of links answers by
//! [`Dialed::finish`] and [`Offered::accept`]. Either gives a [`Standing`], and [`Standing::start`] the [`Link`]
//! and the future that moves it. `examples/two_nodes.rs` shows the whole way.
//!
//! # What a link promises
//! - Every connection is encrypted. The cookie is proven by SPAKE2 bound to the TLS exporter: nobody who listens,
//!   answers or stands in between learns anything that lets him guess offline. `docs/WIRE.md` has the bytes,
//!   `docs/SECURITY.md` the argument.
//! - Messages of one pair of names arrive in the order sent, or the link goes down and says why ([`Down`]).
//! - A mailbox that nobody reads stops its own senders and nobody else. Without credit [`Link::send`] waits and
//!   [`Link::try_send`] says [`SendError::Full`].
//! - A stream of bytes ([`Link::open`]) has credit of its own, so that one nobody reads stops nothing else; all streams and
//!   the messages take turns.
//! - A call ends with an answer or a [`CallError`] that says whether the service may have seen it.
//! - [`Link::go_away`] loses nothing; [`Link::close`] does not wait. A stream that ends without a close is a lost
//!   connection, never a normal end.
//!
//! # Features
//! `tls-ring` (default) or `tls-aws-lc` chooses the cryptography of TLS; without either everything compiles and
//! every TLS configuration is refused by `TlsError::NoProvider`.

mod accept;
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
mod names;
mod native;
mod receiver;
mod task;

pub use accept::{AcceptFailures, listen_tcp};
pub use byte_stream::{ALL_WINDOWS, FIRST_WINDOW, MAX_WINDOW, SMALL_WINDOW};
pub use listener::{AnswerError, CredentialsFn, Inside, Listener, Offered};
pub use names::{Names, STAGGER, first_of};
pub use native::{DialError, DialTimes, Dialed, Native, NativeLimits, REGISTRAR_WINDOW, Standing, random_16};
pub use task::{DownHook, FirstFrameHook, Hold, Hooks, KeepAlive};
