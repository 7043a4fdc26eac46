//! State of the re-dials and failbacks of a node; the tasks around it are in `redial`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_route::NodeName;

use crate::keep::Keeper;

/// A route that a connection over a worse one is to go back to, and why it has not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingFailback {
    /// The pattern of the route.
    pub pattern: Arc<str>,
    /// For how long the route must answer every probe.
    pub hold: Duration,
    /// For how long it has; `None` if it did not answer the last probe, or there was none yet.
    pub answered_for: Option<Duration>,
    /// Reason why the last probe failed, if it did.
    pub failure: Option<String>,
}

/// Re-dials and failbacks of a node.
#[derive(Default)]
pub(super) struct Kept {
    keeper: Mutex<Keeper>,
    /// Some name may have lapsed; while none has, no lock is taken to find that out.
    some_lapsed: AtomicBool,
    /// The table was edited: probes may be due sooner.
    pub(super) changed: Arc<Notify>,
}

impl Kept {
    pub(super) fn lock(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_lapsed(&self, name: &NodeName) -> bool {
        self.some_lapsed() && self.lock().has_lapsed(name)
    }

    pub(super) fn forgive(&self, name: &NodeName) {
        if self.some_lapsed() {
            let mut keeper = self.lock();
            keeper.forgive(name);
            self.note_lapsed(&keeper);
        }
    }

    /// Returns false only if no name has lapsed.
    fn some_lapsed(&self) -> bool {
        self.some_lapsed.load(Ordering::Acquire)
    }

    /// Called under the lock, so that the flag follows the changes in their order.
    pub(super) fn note_lapsed(&self, keeper: &Keeper) {
        self.some_lapsed.store(keeper.some_lapsed(), Ordering::Release);
    }
}
