//! Inputs and outputs of a plan.

use std::time::{Duration, Instant};

use trunkline_route::{
    Attempt, Defaults, Destination, Endpoint, Fallback, NodeName, Origin, ProxyRoute, ResolverId, RouteValue,
};

use crate::memory::Memory;
use crate::table::{Candidate, ProxyCandidate};
use crate::{AttemptError, NoRoute};

/// Names one operation of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// The times and bounds of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Condition for going on after the static routes. Default: also when all failed.
    pub fallback: Fallback,
    /// For one answer of a resolver. Default 2 s.
    pub resolve: Duration,
    /// For one DNS look-up. Default 2 s.
    pub dns: Duration,
    /// For one candidate with all its addresses of one host. Default 8 s.
    pub candidate: Duration,
    /// For the whole lookup. Default 15 s.
    pub total: Duration,
    /// Between two addresses of one host (RFC 8305). Default 250 ms.
    pub stagger: Duration,
    /// Between two static routes of one weight, which then race; `None`, the default: the next begins when the one
    /// before has failed, as routes of different weights always do.
    pub equal_weights: Option<Duration>,
    /// Dials in all, and questions to resolvers and DNS in all; a table that matches a name a thousand times must
    /// not dial a thousand times. Default 64.
    pub max_attempts: usize,
    /// Answers taken from one resolve, and addresses from one DNS look-up. Default 16.
    pub max_answers: usize,
}

impl Default for Policy {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            fallback: Fallback::OnFailure,
            resolve: secs(2),
            dns: secs(2),
            candidate: secs(8),
            total: secs(15),
            stagger: Duration::from_millis(250),
            equal_weights: None,
            max_attempts: 64,
            max_answers: 16,
        }
    }
}

/// Instruction to the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask a resolver.
    Resolve {
        /// The operation to answer.
        op: OpId,
        /// Resolver to ask.
        resolver: ResolverId,
        /// For whom.
        target: NodeName,
    },
    /// Ask a resolver which gateways lead to the target.
    Gateways {
        /// The operation to answer.
        op: OpId,
        /// Resolver to ask.
        resolver: ResolverId,
        /// For whom.
        target: NodeName,
    },
    /// Find the destinations of an attempt whose host is a name.
    Lookup {
        /// The operation to answer.
        op: OpId,
        /// Attempt whose host is looked up.
        attempt: Box<Attempt>,
    },
    /// Dial.
    Connect {
        /// The operation to answer.
        op: OpId,
        /// Under these demands.
        attempt: Box<Attempt>,
        /// Destination to dial.
        to: Destination,
        /// Because of this.
        origin: Origin,
    },
    /// Reach a gateway and have it lead on.
    Relay {
        /// The operation to answer, as a dial is.
        op: OpId,
        /// Route to dial through.
        route: Box<ProxyRoute>,
        /// Under these demands on the final node.
        attempt: Box<Attempt>,
        /// Because of this.
        origin: Origin,
    },
    /// Drop an operation; whatever it leads to is closed.
    Cancel {
        /// Operation to cancel.
        op: OpId,
    },
    /// Wait for an event, or until this time; then poll again.
    Wait {
        /// The time.
        until: Instant,
    },
    /// The end: keep this operation's link, or there is none.
    Done(Result<OpId, NoRoute>),
}

/// Result of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A resolver answered.
    Resolved {
        /// Operation that ended.
        op: OpId,
        /// Endpoints in the order to try.
        answer: Result<Vec<Endpoint>, AttemptError>,
    },
    /// A resolver said which gateways it knows.
    Gateways {
        /// Operation that ended.
        op: OpId,
        /// Gateways in the resolver's order.
        answer: Result<Vec<FoundGateway>, AttemptError>,
    },
    /// A host was looked up.
    LookedUp {
        /// Operation that ended.
        op: OpId,
        /// The addresses in the resolver's order, or the host itself if the transport takes it.
        answer: Result<Vec<Destination>, AttemptError>,
    },
    /// A dial led to a proven peer, and its link stands.
    Established {
        /// Operation that ended.
        op: OpId,
        /// Proven name of the peer.
        peer: NodeName,
    },
    /// A dial failed.
    Failed {
        /// Operation that ended.
        op: OpId,
        /// Cause of the failure.
        error: AttemptError,
    },
}

/// A gateway that discovery knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundGateway {
    /// Name of the gateway.
    pub name: NodeName,
    /// True if a satisfying connection to it is up already. Such gateways go first.
    pub is_live: bool,
}

/// Inputs that decide a lookup.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Name to reach.
    pub target: NodeName,
    /// The static routes that match, best first.
    pub candidates: Vec<Candidate>,
    /// Resolvers to ask after the static routes.
    pub discovery: Vec<ResolverId>,
    /// The proxy routes that match, best first: what is tried when every direct attempt failed.
    pub proxies: Vec<ProxyCandidate>,
    /// Resolvers to ask about gateways when those led nowhere.
    pub gateways: Vec<ResolverId>,
    /// Values that apply where a route says nothing else.
    pub defaults: Defaults,
    /// Times and bounds.
    pub policy: Policy,
    /// Failures that are remembered.
    pub memory: Memory,
    /// The candidates are one route given with the call; nothing else is asked.
    pub given: bool,
}

/// One line of [`Plan::preview`](super::Plan::preview): what would be tried, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Cause of the end.
    pub origin: Origin,
    /// The weight of the route or proxy route; `None` for discovery.
    pub weight: Option<i64>,
    /// `host:port`, or `None` when a resolver is asked first. One without an attempt fails at once: the route gives
    /// no host for this name.
    pub address: Option<String>,
    /// The demands, as far as they are known without asking.
    pub attempt: Option<Attempt>,
    /// Failure that is remembered against the candidate, and for how long.
    pub remembered: Option<(Duration, AttemptError)>,
    /// Each value the attempt would have, and where it comes from.
    pub values: Vec<RouteValue>,
}
