//! The tasks of a node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use trunkline_stack::BoxFuture;

/// The tasks that run for a node, and end with it at the latest.
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
    /// The runtime of the tasks, whoever begins them.
    runtime: Handle,
    /// True when no task may begin any more.
    is_over: AtomicBool,
}

impl Tasks {
    /// Returns an empty set, whose tasks run in the present runtime.
    pub(super) fn new() -> Self {
        Self { running: Mutex::default(), runtime: Handle::current(), is_over: AtomicBool::new(false) }
    }

    fn running(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running();
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        while running.try_join_next().is_some() {}
        // Boxed, so that the runtime's code around a task is compiled once and not for each kind of task.
        let task: BoxFuture<'static, ()> = Box::pin(task);
        running.spawn_on(task, &self.runtime);
    }

    /// Ends all tasks, and lets none begin.
    pub(super) fn abort(&self) {
        self.is_over.store(true, Ordering::Release);
        self.running().abort_all();
    }

    /// Waits until all tasks have ended.
    pub(super) async fn ended(&self) {
        let mut running = std::mem::take(&mut *self.running());
        while running.join_next().await.is_some() {}
    }
}
