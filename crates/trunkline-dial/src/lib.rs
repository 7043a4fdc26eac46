//! From a name to a link: static tables, the dial plan with failover, and the registry of one link per name.
//!
//! - [`RouteTable`]: patterns, weights, routes; edited as a whole, read as snapshots.
//! - [`plan::Plan`]: one lookup as a pure state machine (`handle` / `poll` / `preview`), time as an argument.
//! - [`memory::Memory`]: what failed of late; demotes within a stage, never excludes.
//! - [`keep`]: when a connection that went down is dialled again, and when one goes back to the better route.
//! - [`pair::Pair`]: the rules by which two nodes that both dial end up with one link.
//! - [`exec::run`] drives a plan with tokio; [`Registry`] joins callers and keeps the links.
//!
//! The crate names no transport and no TLS: whatever dials comes in through [`exec::Ports`]. Bring your own and
//! use the rest; `examples/own_transport.rs` does so over plain TCP.

mod error;
pub mod exec;
pub mod keep;
pub mod memory;
pub mod pair;
pub mod plan;
mod registry;
mod table;

pub use error::{AttemptError, Next, NoRoute, Reason, Record};
pub use registry::{Aim, Flown, Held, Registry, Ticket, Verdict};
pub use table::{AddError, Candidate, ProxyCandidate, RemoveError, RouteEdit, RouteTable, TableRoute};
