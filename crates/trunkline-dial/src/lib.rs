//! Static tables, the pure dial plan with failover, its executor, and the registry of one link per name
