//! Log lines that peers can cause, limited for each peer and kind of line.

use std::time::Duration;

use trunkline_route::NodeName;

use crate::{LogLimit, now};

/// Lines of one kind that one peer can cause in a [`PERIOD`]: enough to see what happens, and no more however often it
/// does.
const LINES: u32 = 20;
/// Time in which [`LINES`] are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// Limit on log lines that peers can cause: of one peer and one kind, 20 lines in 10 seconds. The kind of a line is its
/// message. [`log_peer!`](crate::log_peer) writes under this limit.
///
/// ```
/// use trunkline_stack::PeerLog;
///
/// let log = PeerLog::default();
/// let peer = "a@h".parse()?;
/// for _ in 0..20 {
///     assert_eq!(log.allow(&peer, "a stream was refused"), Some(None));
/// }
/// assert_eq!(log.allow(&peer, "a stream was refused"), None);
/// assert_eq!(log.allow(&peer, "a call was refused"), Some(None));
/// # Ok::<(), trunkline_route::NameError>(())
/// ```
#[derive(Debug)]
pub struct PeerLog(LogLimit<(NodeName, &'static str)>);

impl Default for PeerLog {
    fn default() -> Self {
        Self(LogLimit::new(LINES, PERIOD))
    }
}

impl PeerLog {
    /// Returns `Some` if a line of this kind that this peer caused may be written. The inner value is the number of such
    /// lines that were left out since the last one; `None` when there were none, so that the field is not shown.
    pub fn allow(&self, peer: &NodeName, message: &'static str) -> Option<Option<u64>> {
        let suppressed = self.0.allow(now().into_std(), &(peer.clone(), message))?;
        Some((suppressed > 0).then_some(suppressed))
    }
}

/// Writes a log line that a peer caused, unless too many of its kind were written: `log_peer!(node, peer, WARN, "what",
/// field = value)`. The first argument is any value whose method `peer_log` returns a [`PeerLog`](crate::PeerLog); the
/// fields are those of [`tracing::event!`].
#[macro_export]
macro_rules! log_peer {
    ($node:expr, $peer:expr, $level:ident, $message:literal $(, $($fields:tt)+)?) => {
        if let Some(suppressed) = $node.peer_log().allow($peer, $message) {
            $crate::tracing::event!($crate::tracing::Level::$level, suppressed $(, $($fields)+)?, $message);
        }
    };
}
