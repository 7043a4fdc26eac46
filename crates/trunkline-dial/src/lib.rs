//! From a name to a link: static tables, the dial plan with failover, and the registry of one link per name.
//!
//! - [`RouteTable`]: patterns, weights, routes; edited as a whole, read as snapshots.
//! - [`plan::Plan`]: one lookup as a pure state machine (`handle` / `poll` / `preview`), time as an argument.
//! - [`memory::Memory`]: what failed of late; demotes within a stage, never excludes.
//! - [`keep`]: when a connection that went down is dialled again, and when one goes back to the better route.
//! - [`pair::Pair`]: the rules by which two nodes that both dial end up with one link.
//! - [`sessions::Peer`]: which link stands for a name, and which callers and dials wait for one. Pure.
//! - [`exec::run`] drives a plan with tokio; [`Registry`] runs the peers and the tasks of their flights.
//! - [`Sessions`]: all of this for one node, over the [`Stack`](trunkline_stack::Stack)s that it is given: connects,
//!   accepts, dials again and shuts down.
//!
//! The crate names no transport and no TLS. Whatever dials comes in as a stack of [`Sessions`], or below it through
//! [`exec::Ports`]: `examples/own_transport.rs` uses the plan and the registry so, over plain TCP.

mod connection;
mod error;
pub mod exec;
pub mod keep;
pub mod memory;
#[cfg(all(feature = "mutants", debug_assertions))]
#[doc(hidden)]
pub mod mutants;
#[cfg(not(all(feature = "mutants", debug_assertions)))]
mod mutants;
pub mod pair;
pub mod plan;
mod pool;
mod registry;
pub mod sessions;
mod shell;
mod table;

pub use connection::Connection;
pub use error::{ConnectError, NoRoute, NoneServes, Reason, Record};
pub use registry::{Registry, SessionLink, Ticket};
pub use sessions::{Aim, Flown, Verdict};
pub use shell::{
    Choice, Drained, Explanation, Gateways, ImportantError, InUse, Learnt, PING_MAILBOX, PendingFailback, SentAway,
    ServiceNodes, SessionEvent, Sessions, SessionsConfig, ShutDownReport, WhyUnknown,
};
pub use table::{AddError, Candidate, ProxyCandidate, RemoveError, RouteEdit, RouteTable, TableRoute};
pub use trunkline_stack::{AttemptError, CallError, Cause, Chain, Next, SendError};
