//! Failures of attempts to reach a node, by stage and with their causes.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use trunkline_route::Cause;

/// A failure of TLS in words, with the alert that caused it if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFault {
    text: String,
    alert: Option<u8>,
}

impl TlsFault {
    /// Returns the fault in these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), alert: None }
    }

    /// Returns the fault with the number of the alert that the peer sent (RFC 8446, section 6).
    #[must_use]
    pub fn with_alert(self, alert: u8) -> Self {
        Self { alert: Some(alert), ..self }
    }

    /// Returns the number of the alert that the peer sent, if it sent one.
    pub fn alert(&self) -> Option<u8> {
        self.alert
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for TlsFault {}

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
    #[error("DNS")]
    Dns(#[source] Cause),
    /// The host name did not resolve in time.
    #[error("DNS: no answer within {0:?}; `dns_ms` under `node.timeouts` sets this time")]
    DnsTimeout(Duration),
    /// This node failed: its configuration, its descriptors.
    #[error(transparent)]
    Local(Cause),
    /// The bytes inside TLS were not a handshake of ours.
    #[error("handshake")]
    Handshake(#[source] Cause),
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
    #[error(transparent)]
    Relay(Cause),
    /// The gateway, or one behind it, does not lead on: no rule allows it, the way is a loop, or has too many gateways.
    #[error("{0}")]
    RelayRefused(String),
    /// The listener refused without proof.
    #[error("{0}")]
    Rejected(String),
    /// The resolver failed.
    #[error("resolver")]
    Resolve(#[source] Cause),
    /// The resolver knows no address.
    #[error("resolver: no address for this name")]
    ResolveEmpty,
    /// The resolver did not answer in time.
    #[error("resolver: no answer within {0:?}; `resolve_ms` under `node.timeouts` sets this time")]
    ResolveTimeout(Duration),
    /// Refused, unreachable, reset.
    #[error("TCP")]
    Tcp(#[source] Cause),
    /// No connection in time.
    #[error("TCP: no connection within {0:?}; `tcp_ms` under `node.timeouts` sets this time")]
    TcpTimeout(Duration),
    /// TLS, certificates included.
    #[error("TLS")]
    Tls(#[source] Cause),
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
    /// Returns the kind of the system's error, if the system reported one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Tcp(cause)
            | Self::Tls(cause)
            | Self::Dns(cause)
            | Self::Local(cause)
            | Self::Handshake(cause)
            | Self::Relay(cause)
            | Self::Resolve(cause) => cause.io_kind(),
            _ => None,
        }
    }

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

    /// Returns the number of the TLS alert that the peer sent (RFC 8446, section 6), if that is the cause.
    pub fn tls_alert(&self) -> Option<u8> {
        if let Self::Tls(cause) = self { cause.downcast_ref::<TlsFault>()?.alert() } else { None }
    }

    /// Returns how far the attempt got, from 0 to 6: the farther, the more its failure tells about the cause.
    pub fn reached(&self) -> u8 {
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
