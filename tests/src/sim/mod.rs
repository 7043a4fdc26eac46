//! A deterministic world of nodes: the shipped state machines of handshake, dial and sessions, moved by a virtual clock over
//! a network that breaks.
//!
//! - [`world`]: the clock, the queue of events, a history from a seed to its end.
//! - [`script`]: what the programs of a history do and what befalls them; [`faults`] names and counts it.
//! - [`net`]: connections; [`node`]: what a life of a node holds.
//! - [`dialling`], [`answering`], [`links`], [`recovering`]: the shells around the state machines, in production the tasks of
//!   the registry and the node. Which link stands for a name is decided by [`trunkline_dial::sessions::Peer`] here as there.
//! - [`model`]: the reference models; [`ledger`]: the books; [`invariants`]: what must hold.
//!
//! `trunkline_dial::mutants` makes a deliberate mistake in the shipped rules, to show that the invariants see it.

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
