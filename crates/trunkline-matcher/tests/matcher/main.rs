//! The crate as its users see it.

mod corpus;
mod patterns;
mod random;
mod tables;
