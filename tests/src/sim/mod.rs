//! A deterministic world of nodes: the real state machines of handshake, dial and one link per pair, moved by a
//! virtual clock over a network that breaks.
//!
//! - [`world`]: the clock, the queue of events, a history from a seed to its end.
//! - [`script`]: what the programs of a history do and what befalls them; [`faults`] names and counts it.
//! - [`net`]: connections; [`node`]: what a life of a node holds.
//! - [`dialling`], [`answering`], [`links`], [`recovering`]: the glue that the registry and the node are in production.
//! - [`model`]: the reference models; [`ledger`]: the books; [`invariants`]: what must hold.
//! - [`rules`] and [`wrong`]: rules with a mistake, to show that the invariants bite.

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
pub mod rules;
pub mod script;
pub mod world;
pub mod wrong;

pub use faults::{Counts, Fault};
pub use invariants::Violation;
pub use world::{Config, Outcome, World, run};
