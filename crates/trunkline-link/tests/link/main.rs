//! The native link over real sockets.

mod dialing;
mod ending;
mod flood;
mod inner;
mod messages;
mod streams;
#[cfg(unix)]
mod transports;
mod world;
