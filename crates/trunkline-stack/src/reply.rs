//! The answer to a call.

use bytes::Bytes;

/// Answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Bytes of the answer.
    pub body: Bytes,
    /// True if the body is a term in Erlang's external format.
    pub is_term: bool,
}
