//! Tests of the public interface of the crate.

mod corpus;
mod patterns;
mod random;
mod tables;
