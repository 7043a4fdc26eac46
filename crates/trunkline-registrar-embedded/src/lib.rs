//! The registrar that needs no other process: server and client over native links
