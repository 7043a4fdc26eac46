//! Members of a cluster find one another: each tells its neighbours whom it knows, dials everybody that it hears of, and
//! redials for ever whom it has lost. One route that ties a node to the cluster is enough.
//!
//! [`Mesh`] is the state machine of one member, without I/O and with the time as an argument. Its driver hands it what
//! happens (connections that come up and go down, messages of neighbours, dials that ended) and carries out each
//! [`Output`]. With the feature `runtime`, `Cluster` is that driver for a node of `trunkline-dial`.
//!
//! ```
//! use std::time::Instant;
//!
//! use trunkline_mesh::{Mesh, Output, Settings};
//!
//! let now = Instant::now();
//! let mut mesh = Mesh::new(
//!     Settings {
//!         cluster: "lab".into(),
//!         name: "a@10.0.0.1".parse()?,
//!         incarnation: [1; 16].into(),
//!         endpoints: vec!["10.0.0.1:9932".parse()?],
//!         is_hidden: false,
//!         is_leaf: false,
//!         seed: 7,
//!     },
//!     now,
//! )?;
//! mesh.set_routes(now, ["10.0.0.2:9932".parse()?]);
//! assert_eq!(mesh.poll(now), Some(Output::Learn("10.0.0.2:9932".parse()?)));
//!
//! // The driver asks there, and finds a node.
//! let (b, route) = ("b@10.0.0.2".parse()?, "10.0.0.2:9932".parse()?);
//! mesh.learnt(now, &route, Ok(vec![(b, route.clone())]));
//! assert_eq!(mesh.poll(now), Some(Output::Dial("b@10.0.0.2".parse()?)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a member believes
//!
//! A member speaks for itself over a connection that proved its name; that is kept. What others say of it is a place to
//! dial, and no more: the dial has it prove who it is. A member tells others only of members that it was itself connected
//! to, so that no name spreads that does not exist. It keeps at most [`MAX_PEERS`] members, [`MAX_UNPROVEN`] of which it
//! only heard of, and it gives those up after [`MAX_DIALS_UNPROVEN`] dials.
//!
//! A member may be a leaf ([`Settings::is_leaf`]): it keeps one connection, to a node that its routes lead to, and the node
//! there passes on what it and the others ask of each other.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "runtime")]
mod book;
mod budget;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "runtime")]
mod join;
mod mesh;
mod message;
mod retry;
#[cfg(feature = "runtime")]
mod runtime;
#[cfg(test)]
mod tests;

#[cfg(feature = "runtime")]
pub use join::{JoinRefusal, JoinToken, JoinTokenError, MAX_TOKENS, MAX_VALIDITY, TokenStatus};
pub use mesh::{
    ClusterNameError, ClusterRouteStatus, FORGOTTEN_AFTER, ForgetError, Known, MAX_DIALS_UNPROVEN, MAX_PEERS,
    MAX_UNPROVEN, MemberStatus, Mesh, Output, Role, Settings, Way,
};
pub use message::{MessageError, Record, View, Welcome};
#[cfg(feature = "runtime")]
pub use runtime::{Cluster, ClusterNetwork, ClusterStatus, MESH_MAILBOX, NetworkMember, NotWelcome, TokenError};
