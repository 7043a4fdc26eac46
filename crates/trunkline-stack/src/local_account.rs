//! Credit of the messages that a node sends itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use trunkline_route::NodeName;

use crate::LinkState;
use crate::mailbox::CreditSink;

/// Credit that a message takes besides its body, as over a native link.
pub(crate) const OVERHEAD: u64 = 64;

/// Credit of the node's own messages in one mailbox.
pub(crate) struct LocalAccount {
    name: NodeName,
    waiting: AtomicU64,
    /// A sender found no credit and waits.
    starved: AtomicBool,
    link: Weak<LinkState>,
}

impl LocalAccount {
    /// Returns the account of a mailbox; `link` is the link of the node to itself.
    pub(crate) fn new(link: &Arc<LinkState>) -> Self {
        Self {
            name: link.info().peer.clone(),
            waiting: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            link: Arc::downgrade(link),
        }
    }

    /// Reserves credit for a message that costs so much, or notes that a sender waits for it.
    pub(crate) fn take(&self, cost: u64, window: u64) -> bool {
        if self.reserve(cost, window) {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        self.reserve(cost, window)
    }

    /// Reserves credit, if there is some. A message larger than the window may go alone.
    fn reserve(&self, cost: u64, window: u64) -> bool {
        let fits = |waiting: u64| (waiting == 0 || waiting + cost <= window).then_some(waiting + cost);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }
}

impl CreditSink for LocalAccount {
    fn peer(&self) -> &NodeName {
        &self.name
    }

    fn taken(&self, _: u16, messages: u64, bytes: u64) {
        self.waiting.fetch_sub(bytes + OVERHEAD * messages, Ordering::SeqCst);
        // In one order with a sender, which sets the mark before it looks again: one of the two sees the other.
        if self.starved.swap(false, Ordering::SeqCst)
            && let Some(link) = self.link.upgrade()
        {
            link.notify_credit();
        }
    }
}
