//! Kinds of byte streams, and reasons why one is refused or ends early.

use std::io;
use std::time::Duration;

use trunkline_route::NodeName;

use crate::Down;

/// Purpose of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamKind {
    /// A service of the node; its name is what the stream is opened with.
    Service,
    /// A link to a node further on, by way of this one.
    Proxied,
    /// A stream whose meaning is up to the program.
    User,
    /// A trace of the way that a link to a node further on would take; the hops report on it.
    Trace,
    /// A kind this version does not know.
    Unknown(u8),
}

impl StreamKind {
    /// Returns the byte that stands for the kind in frames.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Service => 1,
            Self::Proxied => 2,
            Self::User => 3,
            Self::Trace => 4,
            Self::Unknown(byte) => byte,
        }
    }

    /// Returns the kind that a byte stands for.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Service,
            2 => Self::Proxied,
            3 => Self::User,
            4 => Self::Trace,
            byte => Self::Unknown(byte),
        }
    }
}

/// Reason why a stream is refused, or ends before both ends are done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum StreamCode {
    /// An end wants no more of it.
    #[error("cancelled")]
    Cancelled,
    /// No service of that name exists.
    #[error("no such service")]
    NoService,
    /// The service is not for this peer.
    #[error("not allowed")]
    NotAllowed,
    /// Too many streams, or too little of something else.
    #[error("overloaded")]
    Overloaded,
    /// The server behind the service, or the node that was asked for, could not be reached.
    #[error("unreachable")]
    Unreachable,
    /// The time was over.
    #[error("out of time")]
    TimedOut,
    /// The link opens nothing new.
    #[error("going away")]
    GoingAway,
    /// The other end of what the stream leads to broke off.
    #[error("broken off")]
    Broken,
    /// The gateway passes nothing on for this node, or not to that one.
    #[error("relay denied")]
    RelayDenied,
    /// The way leads in a circle.
    #[error("loop")]
    Loop,
    /// The way leads through more gateways than it may.
    #[error("hop limit")]
    HopLimit,
    /// A code this version does not know.
    #[error("code {0}")]
    Unknown(u8),
}

impl StreamCode {
    const KNOWN: [Self; 11] = [
        Self::Cancelled,
        Self::NoService,
        Self::NotAllowed,
        Self::Overloaded,
        Self::Unreachable,
        Self::TimedOut,
        Self::GoingAway,
        Self::Broken,
        Self::RelayDenied,
        Self::Loop,
        Self::HopLimit,
    ];

    /// Returns the byte that stands for the code in frames.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Unknown(byte) => byte,
            known => Self::KNOWN.iter().position(|code| *code == known).unwrap_or_default() as u8,
        }
    }

    /// Returns the code that a byte stands for.
    pub fn from_byte(byte: u8) -> Self {
        Self::KNOWN.get(usize::from(byte)).copied().unwrap_or(Self::Unknown(byte))
    }
}

/// End of a stream before both ends were done with it. As an [`io::Error`] it has the kind
/// [`io::ErrorKind::ConnectionReset`] or [`io::ErrorKind::ConnectionAborted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// An end of the stream reset it.
    Reset(StreamCode),
    /// The link went down.
    Down(Down),
}

impl From<StreamEnd> for io::Error {
    fn from(end: StreamEnd) -> Self {
        match end {
            StreamEnd::Reset(code) => Self::new(io::ErrorKind::ConnectionReset, code),
            StreamEnd::Down(down) => Self::new(io::ErrorKind::ConnectionAborted, down),
        }
    }
}

/// Reason why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A node refused it.
    #[error("{hop} refused: {code}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    Refused {
        /// Node that refused.
        hop: String,
        /// Reason.
        code: StreamCode,
        /// Explanation in its words; may be empty.
        text: String,
    },
    /// More than 16,384 bytes were to go out with the request.
    #[error("{len} bytes are to go out with the request for the stream; at most 16384 may")]
    TooMuchAtFirst {
        /// Bytes given.
        len: usize,
    },
    /// The purpose takes more than 1,024 bytes.
    #[error("what the stream is for takes {len} bytes; it may take 1024")]
    TooLong {
        /// Bytes given.
        len: usize,
    },
    /// This end has opened as many streams as it may.
    #[error("4096 streams are open on this link; close some, or wait")]
    TooMany,
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// One of the ends is going away; connect again to get another link.
    #[error("the link is draining and opens nothing new; connect again")]
    Draining,
    /// The link is down.
    #[error("the link is down: {0}")]
    Down(Down),
}

impl OpenError {
    /// Returns true if the link to this peer opened nothing because it was ending at either end, so that another link to the
    /// peer may open the stream.
    pub fn gave_way(&self, peer: &NodeName) -> bool {
        match self {
            Self::Draining | Self::Down(_) => true,
            Self::Refused { hop, code, .. } => *code == StreamCode::GoingAway && hop == peer.as_str(),
            _ => false,
        }
    }
}
