//! Path to a node, hop by hop, over the operations API.

use serde::{Deserialize, Serialize};
use trunkline::{Trace, TraceEnd, TracedWay};

use super::Attempt;

/// Request body of `POST /v1/trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Name of the node.
    pub name: String,
    /// Timeout including connecting, in milliseconds. Default 30,000.
    #[serde(default = "half_a_minute")]
    pub timeout_ms: u64,
}

fn half_a_minute() -> u64 {
    30_000
}

/// Answer to a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// True if a path leads to the node.
    pub reached: bool,
    /// The path to the node; if there is none, all paths through gateways and where each ends.
    pub ways: Vec<Way>,
    /// Reason why the lookup ended without a connection; absent if a path leads to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failed attempts that went through no gateway, if no path leads to the node.
    pub failed: Vec<Attempt>,
}

/// Path towards a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Nodes on the path, in order.
    pub hops: Vec<WayHop>,
    /// Place and cause of the end, if the path does not reach the node.
    pub stopped: Option<WayEnd>,
}

/// Node on a path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayHop {
    /// Name of the node.
    pub name: String,
    /// Round-trip time from the previous node, in milliseconds.
    pub round_trip_ms: f64,
}

/// End of a path that does not reach the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayEnd {
    /// Node at which the path ends.
    pub hop: String,
    /// Code of the cause.
    pub reason: String,
    /// Description of the cause.
    pub text: String,
}

impl From<&Trace> for Traced {
    fn from(trace: &Trace) -> Self {
        let way = |way: &TracedWay| Way {
            hops: way
                .hops
                .iter()
                .map(|hop| WayHop { name: hop.name.to_string(), round_trip_ms: hop.round_trip.as_secs_f64() * 1e3 })
                .collect(),
            stopped: match &way.end {
                TraceEnd::Reached => None,
                TraceEnd::Stopped { hop, code, text } => {
                    Some(WayEnd { hop: hop.clone(), reason: code.to_string(), text: text.clone() })
                }
            },
        };
        Self {
            reached: trace.is_reached(),
            ways: trace.ways.iter().map(way).collect(),
            reason: trace.reason.map(|reason| reason.to_string()),
            failed: trace.failed.iter().map(Attempt::from).collect(),
        }
    }
}
