//! The operations API of a trunkline node: JSON over HTTP on a Unix socket or TCP, and its client
