//! Reach any node by its name: static routes by pattern and weight, discovery, failover, one proven connection
