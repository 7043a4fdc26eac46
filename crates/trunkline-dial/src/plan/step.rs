//! What goes into a plan and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use trunkline_route::{
    Attempt, Defaults, Endpoint, Fallback, Host, NodeName, Origin, ProxyRoute, ResolverId, RouteValue,
};

use super::FoundGateway;
use crate::memory::Memory;
use crate::table::{Candidate, ProxyCandidate};
use crate::{AttemptError, NoRoute};

/// Names one operation of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// The times and bounds of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When the lookup goes on after the static routes. Default: also when all failed.
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

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask a resolver.
    Resolve {
        /// The operation to answer.
        op: OpId,
        /// Who is asked.
        resolver: ResolverId,
        /// For whom.
        target: NodeName,
    },
    /// Ask a resolver which gateways lead to the target.
    Gateways {
        /// The operation to answer.
        op: OpId,
        /// Who is asked.
        resolver: ResolverId,
        /// For whom.
        target: NodeName,
    },
    /// Look a host name up.
    Lookup {
        /// The operation to answer.
        op: OpId,
        /// The name.
        host: Host,
    },
    /// Dial.
    Connect {
        /// The operation to answer.
        op: OpId,
        /// Under these demands.
        attempt: Box<Attempt>,
        /// There.
        socket: SocketAddr,
        /// Because of this.
        origin: Origin,
    },
    /// Reach a gateway and have it lead on.
    Relay {
        /// The operation to answer, as a dial is.
        op: OpId,
        /// Which way.
        route: Box<ProxyRoute>,
        /// Under these demands on the final node.
        attempt: Box<Attempt>,
        /// Because of this.
        origin: Origin,
    },
    /// Drop an operation; whatever it leads to is closed.
    Cancel {
        /// Which.
        op: OpId,
    },
    /// Nothing to do until an event comes, or this time; then poll again.
    Wait {
        /// The time.
        until: Instant,
    },
    /// The end: keep this operation's link, or there is none.
    Done(Result<OpId, NoRoute>),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A resolver answered.
    Resolved {
        /// Which operation.
        op: OpId,
        /// Its endpoints in the order to try.
        answer: Result<Vec<Endpoint>, AttemptError>,
    },
    /// A resolver said which gateways it knows.
    Gateways {
        /// Which operation.
        op: OpId,
        /// They, in its order.
        answer: Result<Vec<FoundGateway>, AttemptError>,
    },
    /// DNS answered.
    LookedUp {
        /// Which operation.
        op: OpId,
        /// The addresses in the order to try.
        answer: Result<Vec<IpAddr>, AttemptError>,
    },
    /// A dial led to a proven peer, and its link stands.
    Established {
        /// Which operation.
        op: OpId,
        /// Who it is.
        peer: NodeName,
    },
    /// A dial failed.
    Failed {
        /// Which operation.
        op: OpId,
        /// Why.
        error: AttemptError,
    },
}

/// Everything a lookup is decided from.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Who is to be reached.
    pub target: NodeName,
    /// The static routes that match, best first.
    pub candidates: Vec<Candidate>,
    /// Whom to ask afterwards.
    pub discovery: Vec<ResolverId>,
    /// The proxy routes that match, best first: what is tried when every direct attempt failed.
    pub proxies: Vec<ProxyCandidate>,
    /// Whom to ask about gateways when those led nowhere.
    pub gateways: Vec<ResolverId>,
    /// What holds where nothing else is said.
    pub defaults: Defaults,
    /// Times and bounds.
    pub policy: Policy,
    /// What failed of late.
    pub memory: Memory,
    /// The candidates are one route given with the call; nothing else is asked.
    pub given: bool,
}

/// One line of [`Plan::preview`](super::Plan::preview): what would be tried, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Why.
    pub origin: Origin,
    /// The weight of the route or proxy route; `None` for discovery.
    pub weight: Option<i64>,
    /// `host:port`, or `None` when a resolver is asked first. One without an attempt fails at once: the route gives
    /// no host for this name.
    pub address: Option<String>,
    /// The demands, as far as they are known without asking.
    pub attempt: Option<Attempt>,
    /// What is remembered against it, and for how long.
    pub remembered: Option<(Duration, AttemptError)>,
    /// Each value the attempt would have, and where it comes from.
    pub values: Vec<RouteValue>,
}
