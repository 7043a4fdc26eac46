//! The seam between a node and its network stacks: links, mailboxes and byte streams as programs see them.
//!
//! A *stack* is one protocol between nodes; `trunkline-link` is the native one. This crate names no protocol. It holds
//! what every stack shares and what programs touch:
//!
//! - [`Link`], the handle of a live link, over [`StackLink`], which a stack implements; [`LinkState`] is the part that
//!   is the same for every stack: calls under way, the end of the link, senders that wait for credit.
//! - [`Mailboxes`] and [`Mailbox`], where messages arrive. A stack delivers by [`Mailboxes::find`] and [`Queue::push`],
//!   and learns by [`CreditSink`] what was read, and by [`ReplyTo`] what a call was answered.
//! - [`ByteStream`] and [`Incoming`], over [`StreamIo`] and [`StreamOffer`].
//! - [`LocalLink`], the link of a node to itself: delivery without a socket, by the same handles and under the same
//!   limits.
//! - [`Stack`], how a node dials by a protocol, over a [`Transport`]; [`Listening`] and [`Answering`], how it is dialled.
//!   [`HostNames`] looks host names up.
//! - [`AttemptError`], why an attempt to reach a node failed.
//! - [`Rate`], [`Bucket`], [`LogLimit`] and [`PeerLog`], limits on what a peer can cause.
//! - [`Outflow`] and [`Quiet`], for programs that pass the bytes of streams on; [`HostNames`], [`first_of`] and
//!   [`listen_tcp`], for stacks over IP.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use trunkline_route::Cookie;
//! use trunkline_stack::{LinkInfo, LocalLink, LocalLimits, Mailboxes};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let mailboxes = Arc::new(Mailboxes::default());
//! let mut echo = mailboxes.register("echo")?;
//! let info = LinkInfo::local("a@h".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
//! let own = LocalLink::start(info, mailboxes.clone(), LocalLimits::default());
//! let link = own.link();
//! tokio::spawn(async move {
//!     while let Some(message) = echo.recv().await {
//!         let body = message.body().clone();
//!         message.reply(body);
//!     }
//! });
//! let answer = link.call("echo", "", b"hello", Duration::from_secs(1)).await?;
//! assert_eq!(answer, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Implementing a stack
//! A stack implements these traits; [`examples/own-stack`][own] has all but those for streams and gateways.
//!
//! | trait | implemented for |
//! | --- | --- |
//! | [`Stack`] | the protocol of one node: opens transports and dials |
//! | [`Proven`] | a peer that was dialled and has proven who it is |
//! | [`Listening`] | a socket at which callers arrive |
//! | [`Caller`] | a peer that dialled and has proven who it is |
//! | [`Established`] | a link that both ends agreed on |
//! | [`StackLink`] | a link that is up; its [`LinkState`] does what is the same for every stack |
//! | [`CreditSink`] | what is told that a program has read messages |
//! | [`ReplyTo`] | what takes the answers to calls of the peer |
//! | [`StreamIo`], [`StreamOffer`] | an end of a stream, and a stream that the peer asks for; if the protocol has streams |
//! | [`Answering`] | callers on streams through other nodes, and on transports of the program's own; for a gateway |
//!
//! The calls in the life of a link, at the end that dials and at the end that answers:
//!
//! ```text
//! transport   Stack::connect                       Listening::serve accepts
//! proof       Stack::dial                          serve hands a Caller to OnCaller
//! verdict     Proven::finish(claims) ────────────► Caller::claims, agree
//!             its result           ◄────────────── Caller::accept(epoch, policy) or refuse(code)
//! start       Established::start(hold, on_down)    Established::start(on_first_frame, on_down)
//! up          StackLink::ping ───────────────────► Hooks::on_first_frame, before the frame is taken
//! going       StackLink::go_away ────────────────► LinkState::set_going, then set_inbound_done
//! down        LinkState::set_down, Hooks::on_down  LinkState::set_down, Hooks::on_down
//! ```
//!
//! Until the first frame comes, the link is provisional at the end that answers: it replaces no other one, and the node
//! closes it after 5 seconds.
//!
//! [own]: https://github.com/trunkline/trunkline/tree/main/examples/own-stack

#[macro_use]
mod log;

mod accept;
mod attempt;
mod codes;
mod error;
mod flow;
mod host_names;
mod info;
mod link;
mod local;
mod local_account;
mod log_limit;
mod mailbox;
mod memory;
mod message;
mod packed;
mod peer_log;
mod quiet;
mod rate;
mod reply;
mod stack;
mod stream;
mod term;
mod transport;
mod turns;
#[cfg(unix)]
mod unix_socket;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use accept::{AcceptFailures, listen_tcp};
pub use attempt::{AttemptError, Next, TlsFault};
pub use codes::{OpenError, StreamCode, StreamEnd, StreamKind};
pub use error::{CallError, Down, SendError};
pub use flow::{FlowError, Outflow};
pub use host_names::{HostNames, STAGGER, first_of};
pub use info::{LinkInfo, LinkStats, PeerAddress};
pub use link::{KeepsSent, Link, LinkState, Sent, StackLink};
pub use local::{LocalLimits, LocalLink};
pub use log::CONNECTION_TARGET;
pub use log_limit::LogLimit;
pub use mailbox::{Batch, CreditSink, Mailbox, Mailboxes, Queue, RegisterError};
pub use memory::MemoryPipe;
pub use message::{Message, Replier, ReplyTo, Sender};
pub use peer_log::PeerLog;
pub use quiet::{LAST_BYTES, Quiet};
pub use rate::{Bucket, Rate};
pub use reply::Reply;
pub use stack::{
    AnswerFailure, Answering, Caller, DownHook, Established, FirstFrameHook, Hold, Hooks, Listening, OnCaller, Pairing,
    PeerIdentity, Proven, Stack, connect_tcp,
};
pub use stream::{
    Acceptor, ByteStream, EARLY_DATA, First, Incoming, MAX_OPEN_DATA, MAX_STREAMS, StreamIo, StreamOffer, poll_fill,
};
pub use transport::{Duplex, Transport, TransportKind};
pub use trunkline_route::{Cause, Chain, LogLevel};
#[cfg(unix)]
pub use unix_socket::{SocketError, SocketFile, bind_unix};

#[doc(hidden)]
pub use tracing;

/// A future on the heap, as a method of a trait object returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[expect(clippy::disallowed_methods, reason = "the shells take the time from here")]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No critical section of this crate can be left half-way by a panic that callers could notice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
