//! Tests of the documented claims and properties, and the simulator ([`sim`]).

pub mod attacker;
pub mod etcd;
pub mod memory_stack;
pub mod name_server;
#[cfg(doctest)]
pub mod readmes;
pub mod sim;
pub mod support;

/// The example of README.md, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
