//! Passing connections on to nodes further on.
//!
//! - [`ProxyOpen`]: what one node asks of the next, as bytes of an OPEN.
//! - [`Transit`]: what a gateway passes on: nothing, unless a rule allows it. [`Proxied`]: who may come to a node so.
//! - [`decide`]: this node is the target, or the next hop follows, or why not. Pure.
//! - [`onwards`]: which ways on a gateway tries, in order. Pure.
//! - [`Refusal`]: why a connection is not passed on, and what of it a neighbour is told. Pure.
//! - [`Circuits`]: how many a gateway carries at a time, and how fast new ones may come. Pure; time is an argument.
//! - [`Report`]: what a hop says of the way, when somebody only looks at it.
//! - [`relay`]: the bytes, as they come, as far as the one who takes them does.
//! - [`Gateway`] does all of this for a node, over its [`Sessions`](trunkline_dial::Sessions), and looks at ways
//!   ([`Gateway::trace`]).
//!
//! `examples/hops.rs` walks a chain of gateways.

mod circuits;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod hop;
mod names;
mod refusal;
mod relay;
mod trace;
mod walk;

pub use circuits::{ADDRESS_RATES, Circuit, CircuitLimits, Circuits, Full};
pub use gateway::{AnswerError, Gateway, Members};
pub use hop::{
    MAX_PATH, MalformedOpen, Membership, Onwards, Proxied, ProxyOpen, Transit, TransitRule, Verdict, decide, onwards,
};
pub use refusal::Refusal;
pub use relay::{Carried, relay};
pub use trace::{MAX_REPORTS, Report};
pub use walk::{Trace, TraceEnd, TracedHop, TracedWay};
