use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline_route::{AnyOf, NameError, NodeName, Origin, ResolverId};
use trunkline_stack::{AttemptError, CallError, Cause, Chain, SendError};

use crate::AddError;

/// One attempt of a lookup, as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Route or discovery that the candidate came from.
    pub origin: Origin,
    /// Address that was dialled, `host:port`; empty if nothing was dialled.
    pub address: String,
    /// The socket address, once known.
    pub socket: Option<SocketAddr>,
    /// Beginning of the attempt, after the beginning of the lookup.
    pub began: Duration,
    /// Duration of the attempt.
    pub took: Duration,
    /// Cause of the failure.
    pub error: AttemptError,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if !self.address.is_empty() {
            write!(f, " at {}", self.address)?;
        }
        // Parts of it come from peers and from the operating system; none of them begins a line of its own.
        let error: String =
            Chain(&self.error).to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, ": {error} ({:.1} ms)", self.took.as_secs_f64() * 1e3)
    }
}

/// Reason why a lookup has no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Every candidate failed.
    AllFailed,
    /// The dial that waits for this one is one that this one would wait for.
    Loop,
    /// No static route matches and no resolver was to be asked.
    NoCandidate,
    /// The whole time was used up.
    OutOfTime,
    /// The dial itself failed unexpectedly; a bug.
    Panicked,
    /// An attempt failed in a way no other candidate can mend.
    Stopped,
    /// The limit on attempts of one lookup was reached; more candidates were left.
    TooMany,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllFailed => "every candidate failed",
            Self::Loop => "loop: it is to be reached through what is to be reached through it",
            Self::NoCandidate => "no static route matches and nobody else is to be asked; add a route or a registrar",
            Self::OutOfTime => "the time for the whole lookup is used up",
            Self::Panicked => "the dial failed unexpectedly; this is a bug",
            Self::TooMany => "as many attempts failed as one lookup may make",
            Self::Stopped => "the last failure would meet every other candidate too",
        })
    }
}

/// No way to a name: why, and every attempt made, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoute {
    /// Name that was to be reached.
    pub target: NodeName,
    /// Reason why the lookup ended.
    pub reason: Reason,
    /// Every attempt, in order, with its cause and duration.
    pub attempts: Vec<Record>,
}

impl NoRoute {
    /// Returns the attempt that tells most about why there is no connection: the one that got farthest, and the first of
    /// several that got equally far. `None` when nothing was tried.
    pub fn most_telling(&self) -> Option<&Record> {
        let attempts = self.attempts.iter().enumerate();
        attempts.max_by_key(|(nth, record)| (record.error.reached(), Reverse(*nth))).map(|(_, record)| record)
    }
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no route to {}: {}", self.target, self.reason)?;
        for (n, attempt) in self.attempts.iter().enumerate() {
            write!(f, "\n  {}. {attempt}", n + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for NoRoute {}

/// No node of a service could be used: the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoneServes {
    /// Service.
    pub any: AnyOf,
    /// Nodes that were tried, in order, and what happened.
    pub failed: Vec<(NodeName, Cause)>,
    /// Nodes that are drained (weight 0), and were not tried.
    pub drained: Vec<NodeName>,
    /// Resolvers that did not answer which nodes serve the service.
    pub unanswered: Vec<(ResolverId, Cause)>,
}

impl fmt::Display for NoneServes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { any, failed, drained, unanswered } = self;
        match (failed.is_empty(), drained.is_empty()) {
            (true, true) => write!(f, "no node that serves {any} is known")?,
            (true, false) => write!(f, "all nodes that serve {any} are drained (weight 0)")?,
            (false, _) => write!(f, "no node that serves {any} could be used")?,
        }
        let line = |error: &Cause| -> String {
            Chain(error).to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        let tried = failed.iter().map(|(node, error)| format!("{node}: {}", line(error)));
        let drained = drained.iter().map(|node| format!("{node}: it is drained"));
        let asked = unanswered.iter().map(|(id, error)| format!("the resolver {id}: {}", line(error)));
        for (n, reason) in tried.chain(drained).chain(asked).enumerate() {
            write!(f, "\n  {}. {reason}", n + 1)?;
        }
        if failed.is_empty() && self.drained.is_empty() && unanswered.is_empty() {
            f.write_str("; announce it with `node.announce`, or list its nodes under `service_nodes:`")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoneServes {}

/// Reason why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is no node name.
    #[error(transparent)]
    BadName(#[from] NameError),
    /// The connection went down, and its route says that it stays down until somebody connects again.
    #[error("the connection to {0} went down and its route has reconnect: never; connect to it to begin again")]
    Lapsed(NodeName),
    /// No way led there; every attempt is in it.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// No node that serves the service could be used; what happened at each of them is in it.
    #[error(transparent)]
    NoneServes(Box<NoneServes>),
    /// A route given with the call names something that the node does not have.
    #[error(transparent)]
    Route(#[from] AddError),
    /// The node is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl From<ConnectError> for SendError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Cause::new(error))
    }
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        Self::NotSent(error.into())
    }
}
