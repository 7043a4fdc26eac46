//! Processes in the small: pids, links and monitors across nodes.
//!
//! [`Ties`] is one node's book of its processes: who is linked to whom and who watches whom. It does no I/O and knows no
//! clock and no async runtime. A runtime tells it what happens (one began, one ended, a peer asks or says something, a peer
//! is gone) and carries out the [`Effect`]s it answers. With the feature `runtime`, `runtime::Processes` is such a runtime:
//! tasks of tokio with mailboxes. [`Request`] and [`Notice`] are what nodes tell each other, as terms, whose shapes are part of
//! [TLK/1](https://github.com/trunkline/trunkline/blob/main/docs/WIRE.md).
//!
//! - A **link** is mutual: when one of the two ends, for whatever reason, the other is told, once.
//! - A **monitor** is one-sided: who watches is told when the process ends, at once if there is none, once.
//! - When the connection to a node goes down, its processes count as gone ([`Exit::NodeDown`]), whether they are or not.
//!
//! ```
//! use trunkline_process::{Effect, Exit, Ties};
//!
//! let mut ties = Ties::new("app@lab".parse()?, 7);
//! let worker = ties.begin();
//! let (watch, _) = ties.watch(&worker);
//! let told = ties.end(worker.number, &Exit::Failed("out of disk".into()));
//! assert_eq!(told, [Effect::Down { watch, exit: Exit::Failed("out of disk".into()) }]);
//! # Ok::<(), trunkline_route::NameError>(())
//! ```

mod exit;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod pid;
#[cfg(feature = "runtime")]
pub mod runtime;
mod ties;
mod wire;

pub use exit::Exit;
pub use pid::{BadPid, Pid};
pub use ties::{Effect, MAX_TIES, NoProcess, PEER_TIES, Ties, TooManyTies};
pub use wire::{BadMessage, Notice, Refusal, Request, Unwilling, answer, answered};
