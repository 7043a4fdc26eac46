use std::cmp::Reverse;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline_route::{NameError, NodeName, Origin};
use trunkline_stack::{CallError as LinkCallError, SendError as LinkSendError};

use crate::AddError;

/// Reason why one attempt failed, by the stage it reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// The peer and this node came together by another dial; its link is adopted.
    #[error("another link to the same peer came first")]
    Adopted,
    /// The whole candidate took too long, or longer than the lookup had left; the time is what it was given.
    #[error(
        "not up within {0:?}, all the time it had; `candidate_ms` under `node.timeouts` bounds one candidate, `total_ms` all"
    )]
    CandidateTimeout(Duration),
    /// The cookie was wrong there a short time ago, and each dial gives whoever answers one more guess at it: the same cookie
    /// is not shown to the same address for this much longer. Nothing was dialled.
    #[error(
        "the cookies differed at the last attempt; not dialled again for {0:.1?}; give both ends the same cookie for this \
         route, then dial now to try at once"
    )]
    CookieRefused(Duration),
    /// The host name does not resolve.
    #[error("DNS: {0}")]
    Dns(String),
    /// The host name did not resolve in time.
    #[error("DNS: no answer within {0:?}; `dns_ms` under `node.timeouts` sets this time")]
    DnsTimeout(Duration),
    /// This node failed: its configuration, its descriptors.
    #[error("{0}")]
    Local(String),
    /// The bytes inside TLS were not a handshake of ours.
    #[error("handshake: {0}")]
    Handshake(String),
    /// The peer did not answer inside TLS.
    #[error("handshake: no answer within {0:?}; `handshake_ms` under `node.timeouts` sets this time")]
    HandshakeTimeout(Duration),
    /// The name led back to this node.
    #[error("the address is this node's own")]
    Myself,
    /// Another live node has this node's name there, or ours is in use.
    #[error("the name is in use by another live node: {0}")]
    NameInUse(String),
    /// The attempt panicked; a bug.
    #[error("the attempt failed unexpectedly; this is a bug")]
    Panicked,
    /// The gateway, or one behind it, could not be reached or could not lead on.
    #[error("{0}")]
    Relay(String),
    /// The gateway, or one behind it, does not lead on: no rule allows it, the way is a loop, or has too many gateways.
    #[error("{0}")]
    RelayRefused(String),
    /// The listener refused without proof.
    #[error("{0}")]
    Rejected(String),
    /// The resolver failed.
    #[error("resolver: {0}")]
    Resolve(String),
    /// The resolver knows no address.
    #[error("resolver: no address for this name")]
    ResolveEmpty,
    /// The resolver did not answer in time.
    #[error("resolver: no answer within {0:?}; `resolve_ms` under `node.timeouts` sets this time")]
    ResolveTimeout(Duration),
    /// Refused, unreachable, reset.
    #[error("TCP: {0}")]
    Tcp(String),
    /// No connection in time.
    #[error("TCP: no connection within {0:?}; `tcp_ms` under `node.timeouts` sets this time")]
    TcpTimeout(Duration),
    /// TLS, certificates included.
    #[error("{0}")]
    Tls(String),
    /// No TLS in time.
    #[error("TLS: no answer within {0:?}; `tls_ms` under `node.timeouts` sets this time")]
    TlsTimeout(Duration),
    /// One end demands a flag that the other does not offer.
    #[error("{0}")]
    Flags(String),
    /// The version demanded is not spoken here or there.
    #[error("{0}")]
    Version(String),
    /// The peer does not hold the cookie this route asks for.
    #[error("the cookies differ; give both ends the same cookie for this route")]
    WrongCookie,
    /// Another node answered.
    #[error("another node answered: {actual}")]
    WrongName {
        /// Name of the node that answered.
        actual: String,
    },
}

/// Consequence of a failed attempt for the lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next address or candidate.
    Candidate,
    /// Another route; not another address of this one.
    Route,
    /// The lookup ends.
    Stop,
}

impl AttemptError {
    /// The stage in which it happened: `resolve`, `dns`, `tcp`, `tls`, `handshake`, `name`, `version`,
    /// `flags`, `relay`, `local`.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Resolve(_) | Self::ResolveEmpty | Self::ResolveTimeout(_) => "resolve",
            Self::Dns(_) | Self::DnsTimeout(_) => "dns",
            Self::Tcp(_) | Self::TcpTimeout(_) => "tcp",
            Self::Tls(_) | Self::TlsTimeout(_) => "tls",
            Self::WrongName { .. } | Self::NameInUse(_) | Self::Myself => "name",
            Self::Version(_) => "version",
            Self::Flags(_) => "flags",
            Self::Local(_) | Self::Panicked => "local",
            Self::Relay(_) | Self::RelayRefused(_) => "relay",
            Self::Handshake(_)
            | Self::HandshakeTimeout(_)
            | Self::Rejected(_)
            | Self::WrongCookie
            | Self::CookieRefused(_)
            | Self::Adopted
            | Self::CandidateTimeout(_) => "handshake",
        }
    }

    /// Returns how far the attempt got: the farther, the more its failure tells about the cause.
    fn reached(&self) -> u8 {
        match self {
            Self::Adopted | Self::ResolveEmpty => 0,
            Self::Resolve(_) | Self::ResolveTimeout(_) => 1,
            Self::Dns(_) | Self::DnsTimeout(_) => 2,
            Self::CandidateTimeout(_) | Self::Relay(_) | Self::Tcp(_) | Self::TcpTimeout(_) => 3,
            Self::Tls(_) | Self::TlsTimeout(_) => 4,
            Self::Handshake(_) | Self::HandshakeTimeout(_) | Self::Rejected(_) => 5,
            Self::CookieRefused(_)
            | Self::Flags(_)
            | Self::Local(_)
            | Self::Myself
            | Self::NameInUse(_)
            | Self::Panicked
            | Self::RelayRefused(_)
            | Self::Version(_)
            | Self::WrongCookie
            | Self::WrongName { .. } => 6,
        }
    }

    /// Returns the next step of the lookup.
    pub fn next(&self) -> Next {
        match self {
            Self::Myself | Self::Local(_) => Next::Stop,
            Self::Version(_) | Self::Flags(_) => Next::Route,
            _ => Next::Candidate,
        }
    }
}

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
        let error: String = self.error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
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
    /// A route given with the call names something that the node does not have.
    #[error(transparent)]
    Route(#[from] AddError),
    /// The node is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

/// Reason why a message to a name was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection to the node.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The link did not take it.
    #[error(transparent)]
    Link(#[from] LinkSendError),
}

/// Reason why a call to a name has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The call did not succeed over the link.
    #[error(transparent)]
    Call(#[from] LinkCallError),
    /// No connection to the node.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}
