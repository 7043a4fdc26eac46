//! The way to a node, hop by hop, over the operations API.

use serde::{Deserialize, Serialize};
use trunkline::{Trace, TraceEnd, TracedWay};

use super::Attempt;

/// `POST /v1/trace`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The name.
    pub name: String,
    /// Timeout, connecting included, in milliseconds. Default 30,000.
    #[serde(default = "half_a_minute")]
    pub timeout_ms: u64,
}

fn half_a_minute() -> u64 {
    30_000
}

/// The answer to a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    /// True if a way leads there.
    pub reached: bool,
    /// The way that does; else all those through gateways, and where each ends.
    pub ways: Vec<Way>,
    /// The reason why the lookup ended without a connection; not there when a way leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The other attempts that failed, when none does: those through gateways are among the ways.
    pub failed: Vec<Attempt>,
}

/// A way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// The nodes on it, in order.
    pub hops: Vec<WayHop>,
    /// Where and why it ends, when that is before the name.
    pub stopped: Option<WayEnd>,
}

/// A node on a way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayHop {
    /// The node's name.
    pub name: String,
    /// Round trip from the node before.
    pub round_trip_ms: f64,
}

/// Why a way ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayEnd {
    /// The node at which the way ends.
    pub hop: String,
    /// Why.
    pub reason: String,
    /// The cause in words.
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
