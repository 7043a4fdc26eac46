//! Deterministic simulation of a world of nodes: the shipped state machines of handshake, dial and sessions, driven by a
//! virtual clock over a network that breaks.
//!
//! - [`world`]: the clock, the queue of events, and a history from a seed to its end.
//! - [`script`]: the actions of programs in a history, and the faults; [`faults`] names and counts these.
//! - [`net`]: connections; [`node`]: the state of one incarnation of a node.
//! - [`dialling`], [`answering`], [`links`], [`recovering`]: the shells around the state machines, in production the tasks of
//!   the registry and the node. Which link stands for a name is decided by [`trunkline_dial::sessions::Peer`] here as there.
//! - [`model`]: the reference models; [`ledger`]: the ledger of messages; [`invariants`]: the checked invariants.
//!
//! `trunkline_dial::mutants` makes a deliberate mistake in the shipped rules, to show that the invariants detect it.

pub mod answering;
pub mod dialling;
pub mod faults;
pub mod hops;
pub mod invariants;
pub mod ledger;
pub mod links;
pub mod model;
pub mod net;
pub mod node;
mod pake;
pub mod recovering;
pub mod rng;
pub mod script;
pub mod world;

pub use faults::{Counts, Fault};
pub use invariants::Violation;
pub use world::{Config, Outcome, World, run};
