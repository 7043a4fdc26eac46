//! Tests of the binary with real processes on loopback, one behaviour per test.

mod admin_tcp;
mod bad_input;
mod certs;
mod cluster;
mod demo;
mod forward;
mod gateway;
mod host_names;
mod lifecycle;
mod logs;
mod netns;
mod peer;
mod printing;
mod programs;
mod real;
mod registrar;
mod routes;
mod short_lived;
mod soak;
mod variables;
mod world;
