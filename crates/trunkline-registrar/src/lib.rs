//! The ports of discovery: what a resolver answers and what a registrar leases
