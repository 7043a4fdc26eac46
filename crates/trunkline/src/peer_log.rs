//! Log lines that peers can cause, limited for each peer and kind of line.

use std::time::Duration;

use trunkline_route::NodeName;
use trunkline_stack::LogLimit;

use crate::inner::now;

/// Lines of one kind that one peer can cause in a [`PERIOD`]: enough to see what happens, and no more however often it does.
const LINES: u32 = 20;
/// The time that [`LINES`] are counted in.
const PERIOD: Duration = Duration::from_secs(10);

/// The limit on log lines that peers can cause. A kind is the message of the line.
#[derive(Debug)]
pub(crate) struct PeerLog(LogLimit<(NodeName, &'static str)>);

impl Default for PeerLog {
    fn default() -> Self {
        Self(LogLimit::new(LINES, PERIOD))
    }
}

impl PeerLog {
    /// Returns `Some` if a line of this kind that this peer caused is to be written. The inner value is the number of such
    /// lines that were left out since the last one; `None` when there were none, so that the field is not shown.
    pub(crate) fn allow(&self, peer: &NodeName, message: &'static str) -> Option<Option<u64>> {
        let suppressed = self.0.allow(now(), &(peer.clone(), message))?;
        Some((suppressed > 0).then_some(suppressed))
    }
}

/// Writes a log line that a peer caused, unless too many of its kind were written: the node ([`crate::inner::Inner`]), the
/// peer, the level (`WARN`), the message, then fields as in [`tracing::event!`].
macro_rules! log_peer {
    ($node:expr, $peer:expr, $level:ident, $message:literal $(, $($fields:tt)+)?) => {
        if let Some(suppressed) = $node.peer_log.allow($peer, $message) {
            tracing::event!(tracing::Level::$level, suppressed $(, $($fields)+)?, $message);
        }
    };
}

pub(crate) use log_peer;
