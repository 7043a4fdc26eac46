//! Tests of the documented claims, at least one for each, over real sockets between separate nodes. `cargo test claims`
//! reads as the table of claims.

mod a_order;
mod b_table;
mod bounds;
mod c_certificates;
mod c_flags;
mod c_important;
mod c_log;
mod c_mapping;
mod c_processes;
mod c_resolver;
mod c_route;
mod canary;
mod d_failover;
mod d_recovery;
mod d_silence;
mod d_standby;
mod e_gateway;
mod e_proxy;
mod e_refusal;
mod examples;
mod f_dns;
mod f_registrar;
mod g_cluster;
mod g_cookies;
mod h_attacker;
mod last_bytes;
mod local_delivery;
mod one_link;
mod own_stack;
mod p_close;
mod parsers;
mod public_names;
mod services;
mod strangers;
mod trust;
