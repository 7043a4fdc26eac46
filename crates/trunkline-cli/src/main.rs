//! The trunkline binary: run a node, reach others by name, look at routes
fn main() {}
