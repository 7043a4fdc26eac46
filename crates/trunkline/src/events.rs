use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;
use trunkline_dial::{Record, SessionEvent};
use trunkline_route::NodeName;
use trunkline_stack::{Down, LinkInfo};
use trunkline_tls::CertificateError;

/// Events kept for a reader that is behind; beyond it the oldest are lost to it, and it is told how many.
pub(crate) const CAPACITY: usize = 1024;

/// Event on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An attempt of a lookup failed.
    AttemptFailed {
        /// Name that was to be reached.
        target: NodeName,
        /// Record of the attempt.
        record: Record,
    },
    /// The certificate in use expires within [`EXPIRES_SOON`](crate::EXPIRES_SOON), or has expired, which is told once each. Put
    /// a newer one into its files.
    CertificateExpires {
        /// Owner of the certificate: `profile ID` or `listener ADDRESS`.
        what: String,
        /// Time of expiry.
        expires: SystemTime,
    },
    /// Certificate files changed and cannot be used; those before still are.
    CertificatesKept {
        /// Owner of the certificate: `profile ID` or `listener ADDRESS`.
        what: String,
        /// Reason.
        error: CertificateError,
    },
    /// Certificate files changed and are in use, for connections from now on.
    CertificatesReloaded {
        /// Owner of the certificate: `profile ID` or `listener ADDRESS`.
        what: String,
    },
    /// A connection went down.
    Down {
        /// Name of the peer.
        peer: NodeName,
        /// Reason.
        reason: Down,
    },
    /// A link that another one replaced broke before it was drained: messages sent on it may be lost.
    DrainBroken {
        /// Name of the peer.
        peer: NodeName,
        /// Reason.
        reason: Down,
    },
    /// A connection over a standby went back to a better route, over a new link that is up.
    FailedBack {
        /// Name of the peer.
        peer: NodeName,
        /// The pattern of the route.
        pattern: Arc<str>,
    },
    /// This reader was too slow: so many events are lost to it.
    Missed(u64),
    /// A connection is up.
    Up(LinkInfo),
}

impl From<SessionEvent> for Event {
    fn from(event: SessionEvent) -> Self {
        match event {
            SessionEvent::AttemptFailed { target, record } => Self::AttemptFailed { target, record },
            SessionEvent::Down { peer, reason } => Self::Down { peer, reason },
            SessionEvent::DrainBroken { peer, reason } => Self::DrainBroken { peer, reason },
            SessionEvent::FailedBack { peer, pattern } => Self::FailedBack { peer, pattern },
            SessionEvent::Up(info) => Self::Up(info),
        }
    }
}

/// The events of a node from the moment of [`Node::events`](crate::Node::events) on.
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the node is gone.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(lost)) => Some(Event::Missed(lost)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
