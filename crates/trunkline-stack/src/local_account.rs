//! Credit of the messages that a node sends itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use trunkline_route::NodeName;

use crate::LinkState;
use crate::message::Sender;

/// Credit that a message takes besides its body, as over a native link.
const OVERHEAD: u64 = 64;
/// Credit in use after which a sender gives way to the reader, once.
const PIECE: u64 = 64 * 1024;

/// Credit of the node's own messages in one mailbox.
pub(crate) struct LocalAccount {
    /// Sender of the messages that name none.
    nobody: Arc<Sender>,
    waiting: AtomicU64,
    /// A sender found no credit and waits.
    starved: AtomicBool,
    link: Weak<LinkState>,
}

impl LocalAccount {
    /// Returns the account of a mailbox; `link` is the link of the node to itself.
    pub(crate) fn new(link: &Arc<LinkState>, nobody: &Arc<Sender>) -> Self {
        Self {
            nobody: nobody.clone(),
            waiting: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            link: Arc::downgrade(link),
        }
    }

    /// Reserves credit for a message of this length, or notes that a sender waits for it.
    pub(crate) fn take(&self, len: u64, window: u64) -> bool {
        let cost = len + OVERHEAD;
        if self.reserve(cost, window) {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        self.reserve(cost, window)
    }

    /// Reserves credit, if there is some. A message larger than the window may go alone. Senders that can wait give way to
    /// the reader after each [`PIECE`] that is not read yet: what waits is then still in the caches when it is read.
    fn reserve(&self, cost: u64, window: u64) -> bool {
        let fits = |waiting: u64| (waiting == 0 || waiting + cost <= window).then_some(waiting + cost);
        let Ok(before) = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits) else { return false };
        if before / PIECE != (before + cost) / PIECE
            && let Some(link) = self.link.upgrade()
        {
            link.give_way_once();
        }
        true
    }

    /// Returns the node itself.
    pub(crate) fn peer(&self) -> &NodeName {
        &self.nobody.node
    }

    /// Returns the sender of the messages that name none.
    pub(crate) fn nobody(&self) -> &Arc<Sender> {
        &self.nobody
    }

    /// Notes that so many messages with so many bytes were read, or will never be.
    pub(crate) fn taken(&self, messages: u64, bytes: u64) {
        self.waiting.fetch_sub(bytes + OVERHEAD * messages, Ordering::SeqCst);
        // In one order with a sender, which sets the mark before it looks again: one of the two sees the other.
        if self.starved.load(Ordering::SeqCst)
            && self.starved.swap(false, Ordering::SeqCst)
            && let Some(link) = self.link.upgrade()
        {
            link.notify_credit();
        }
    }
}
