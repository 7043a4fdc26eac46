//! Claims, properties and the simulator.
