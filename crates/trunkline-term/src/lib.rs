//! Structured payloads: Erlang's external term format as a value of our own.
//!
//! A [`Term`] is a plain tree that can be compared, ordered and hashed. [`Term::encode`] and [`Term::decode`] are its
//! bytes in Erlang's external term format (version 131; "External Term Format" in the ERTS user's guide), by the
//! `eetf` crate. What comes from a peer is looked through before that crate sees it: [`Limits`] bound its depth and
//! its size, and nothing is allocated that the bytes do not pay for. [`Term::replace_atoms`] changes atoms at any
//! depth, names of nodes in pids and references included.
//!
//! Taken: atoms, integers of any size, finite floats, binaries and bit strings, lists (also improper ones and
//! strings), tuples, maps, pids, ports and references. Not taken: functions, and compressed terms, whose size nobody
//! knows before it is too late.
//!
//! [`to_term`] and [`from_term`] turn whatever `serde` knows into terms and back.
//!
//! ```
//! use trunkline_term::{Limits, Term};
//!
//! let term = Term::tuple([Term::atom("ok")?, Term::from(42), Term::from("hello")]);
//! let bytes = term.encode(&Limits::default())?;
//! assert_eq!(bytes[..2], [131, 104]);
//! assert_eq!(Term::decode(&bytes, &Limits::default())?, term);
//! # Ok::<(), trunkline_term::TermError>(())
//! ```

mod bridge;
mod codec;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod scan;
mod term;

pub use bridge::{from_term, to_term};
pub use error::TermError;
pub use num_bigint::BigInt;
pub use scan::Limits;
pub use term::{Atom, Float, Pid, Port, Reference, Term};
