use std::time::Duration;

use bytes::Bytes;
use trunkline_route::{Cause, CloseCode, Flag};
use trunkline_term::TermError;

/// Reason why a link went down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// This end closed the link.
    #[error("closed here: {0}")]
    ClosedHere(CloseCode),
    /// The peer closed the link and gave a reason.
    #[error("closed by the peer: {code}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    ClosedByPeer {
        /// Reason.
        code: CloseCode,
        /// Explanation in the peer's words; may be empty.
        text: String,
    },
    /// The transport ended without a CLOSE.
    #[error("connection_lost: {0}")]
    ConnectionLost(String),
    /// The peer broke a rule of the protocol.
    #[error("protocol_error: {0}")]
    ProtocolError(&'static str),
    /// The peer was silent for the time after which a peer counts as dead.
    #[error("timeout: nothing came from the peer for {0:?}")]
    Silent(Duration),
}

impl Down {
    /// Returns true if this is a planned end rather than a failure.
    pub fn is_normal(&self) -> bool {
        let planned = |code: &CloseCode| !matches!(code, CloseCode::ProtocolError | CloseCode::Timeout);
        match self {
            Self::ClosedHere(code) | Self::ClosedByPeer { code, .. } => planned(code),
            _ => false,
        }
    }
}

/// Reason why a message was not taken. Nothing of the message was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The term cannot be written.
    #[error("the term cannot be sent")]
    BadTerm(#[from] TermError),
    /// No connection to the name could be made. The cause is the error of whoever connects, such as the `ConnectError` of
    /// `trunkline-dial`.
    #[error("there is no connection")]
    Connect(#[source] Cause),
    /// The name is empty or longer than 255 bytes.
    #[error("a mailbox name has 1 to 255 bytes")]
    BadName,
    /// One of the ends is going away; connect again to get another link.
    #[error("the link is draining and takes nothing new; connect again")]
    Draining,
    /// The link is down.
    #[error("the link is down: {0}")]
    Down(Down),
    /// Credit is missing (only from the variants that do not wait).
    #[error("the peer has not read what was sent before; wait and try again")]
    Full,
    /// The message is larger than the peer's limit.
    #[error("the message has {len} bytes; the peer takes at most {limit}")]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// More than 16,384 different names were used over one link.
    #[error("over 16384 different mailbox names were used on this link")]
    TooManyNames,
    /// The two ends did not agree on a flag that this takes.
    #[error("{0} is not agreed on with this peer; switch the flag on at both ends, in the route and at the node")]
    Unsupported(Flag),
}

/// Reason why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The owner of the mailbox dropped the call unanswered.
    #[error("the mailbox's owner dropped the call without an answer")]
    Dropped,
    /// The answer is a term that cannot be read.
    #[error("the answer cannot be read: {0}")]
    BadTerm(TermError),
    /// The answer is these bytes where a term was asked for.
    #[error("the answer has {} bytes that are not marked as a term; call without one", .0.len())]
    PlainAnswer(Bytes),
    /// The owner of the mailbox refused.
    #[error("the call was refused: {0}")]
    Failed(String),
    /// The link went down before the answer; the peer may or may not have seen the call.
    #[error("the link went down before the answer: {0}")]
    LinkDown(Down),
    /// The node has no such mailbox.
    #[error("the node has no mailbox of that name")]
    NoMailbox,
    /// The call was not sent.
    #[error("the call was not sent")]
    NotSent(#[from] SendError),
    /// The timeout passed; the peer may or may not have seen the call.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}
