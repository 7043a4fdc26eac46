//! The handshake of TLK/1 as two state machines that do no I/O and read no clock.
//!
//! ```text
//! I → R  HELLO1   versions, mode, incarnation, nonce, from, to, cookie label, share
//! R → I  HELLO2   version, incarnation, nonce, name, share, MAC      (or REJECT)
//! I → R  FINISH   parameters, MAC
//! R → I  ACCEPT   parameters, MAC                                    (or CLOSE)
//! ```
//! The shell moves whole messages (`u16` length, then the body, at most [`MAX_BODY`] bytes, inside TLS) and
//! puts the two questions the machines cannot answer, *may this attempt finish?* and *is this link accepted?*,
//! to whoever keeps the registry of live links.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod initiator;
mod keys;
mod params;
mod responder;
#[cfg(test)]
mod tests;
mod wire;

pub use initiator::{Accepted, Initiator, InitiatorConfig, Verified};
pub use keys::EXPORTER_LABEL;
pub use params::Params;
pub use responder::{Credential, Credentials, Hello, Offer, Responder, ResponderConfig};
pub use wire::Mode;
pub use wire::claim;

use trunkline_route::{CloseCode, NodeName, RejectCode};

/// The most bytes a handshake message may have, its two length bytes not counted.
///
/// The largest honest HELLO1 (two names and a label of 255 bytes, 16 versions) stays below 900.
pub const MAX_BODY: usize = 1024;

/// The versions of the native link this crate speaks, in descending order.
pub const VERSIONS: &[u16] = &[1];

/// 32 bytes of key material that only the two ends of one TLS connection can compute.
pub type Exporter = [u8; 32];

/// Error returned when a handshake ended without a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// After both ends proved themselves the peer closed.
    #[error("the peer closed after the handshake: {code}{}", suffix(text))]
    Closed {
        /// Reason of the peer.
        code: CloseCode,
        /// Words of the peer.
        text: String,
    },
    /// The bytes are no message of this handshake, or come out of order.
    #[error("the peer does not speak TLK/1: {0}")]
    Malformed(&'static str),
    /// Unauthenticated advice from the listener.
    #[error("the listener refused: {code}{}", suffix(text))]
    Rejected {
        /// Reason of the listener.
        code: RejectCode,
        /// Time after which to come back, in milliseconds, already capped.
        retry_after_ms: u16,
        /// Words of the listener.
        text: String,
    },
    /// No version in common with what was demanded.
    #[error("the peer speaks none of the handshake versions offered ({offered})")]
    Version {
        /// Versions that were offered.
        offered: String,
    },
    /// The other end does not hold the same cookie, or somebody sits in between.
    #[error("the cookies differ: the peer could not prove ours; give both ends the same cookie for this route")]
    WrongCookie,
    /// Another node answered.
    #[error("the peer is {actual}, not {expected}")]
    WrongName {
        /// Name that was dialled.
        expected: NodeName,
        /// Name of the node that answered.
        actual: String,
    },
}

fn suffix(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}
