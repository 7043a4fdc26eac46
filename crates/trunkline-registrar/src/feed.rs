//! Mirror that is fed while somebody watches it.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::task::AbortHandle;

use crate::{Mirror, Watch};

/// Mirror of one registrar for any number of readers, fed by one task while there is a reader.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_registrar::{Change, Feed, Registration};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let feed = Arc::new(Feed::default());
/// let db = Registration::new("db@example.com".parse()?, Vec::new());
/// let all = [db.clone()];
/// let mut watch = feed.watch(|mirror| async move {
///     mirror.replace(all);
///     // Here the changes would follow.
///     std::future::pending().await
/// });
/// assert_eq!(watch.next().await, Change::Joined(Arc::new(db)));
/// assert_eq!(watch.next().await, Change::Current);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Feed(Mutex<Fed>);

#[derive(Default)]
struct Fed {
    mirror: Weak<Mirror>,
    task: Option<AbortHandle>,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Fed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a reader of the mirror. The first one starts the task `feed`, on the Tokio runtime of the caller, with a mirror
    /// that is not known yet; the task ends after the last reader, or with the feed. `feed` goes on for ever: should it end,
    /// the readers are told that the registrar is lost, and the next reader starts another one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, unless there is a reader.
    pub fn watch<F>(self: &Arc<Self>, feed: impl FnOnce(Arc<Mirror>) -> F) -> Watch
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut fed = self.lock();
        if let Some(mirror) = fed.mirror.upgrade() {
            return mirror.watch();
        }
        let mirror = Arc::new(Mirror::unknown());
        let watch = mirror.watch();
        fed.mirror = Arc::downgrade(&mirror);
        let task = run(Arc::downgrade(self), mirror.clone(), feed(mirror));
        fed.task = Some(tokio::spawn(task).abort_handle());
        watch
    }
}

/// End of a task, however it ends.
struct End {
    feed: Weak<Feed>,
    mirror: Arc<Mirror>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Nobody tells the readers anything any more.
        self.mirror.lost();
        if let Some(feed) = self.feed.upgrade() {
            let mut fed = feed.lock();
            if fed.mirror.ptr_eq(&Arc::downgrade(&self.mirror)) {
                *fed = Fed::default();
            }
        }
    }
}

async fn run(own: Weak<Feed>, mirror: Arc<Mirror>, feed: impl Future<Output = ()>) {
    let end = End { feed: own, mirror };
    let (own, mirror) = (&end.feed, &end.mirror);
    let mut feed = pin!(feed);
    loop {
        tokio::select! {
            () = &mut feed => return,
            () = mirror.unwatched() => {}
        }
        let Some(own) = own.upgrade() else { return };
        let mut fed = own.lock();
        // A reader may have come in this moment.
        if !mirror.is_watched() {
            *fed = Fed::default();
            return;
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let fed = self.lock();
        fed.task.iter().for_each(AbortHandle::abort);
        if let Some(mirror) = fed.mirror.upgrade() {
            mirror.lost();
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("is_watched", &(self.lock().mirror.strong_count() > 0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::{Change, Registration};

    /// Waits for the end of a task.
    async fn notified(end: &Notify) {
        tokio::time::timeout(std::time::Duration::from_secs(10), end.notified()).await.expect("the task ends");
    }

    #[tokio::test]
    async fn one_task_feeds_all_readers_and_ends_after_the_last_one() {
        let (feed, started, ended) =
            (Arc::new(Feed::default()), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        /// Tells of its end.
        struct End(Arc<Notify>);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let watch = || {
            let (started, end) = (started.clone(), End(ended.clone()));
            feed.watch(|mirror| async move {
                let _end = end;
                started.fetch_add(1, Ordering::Relaxed);
                mirror.replace([Registration::new("db@lab".parse().unwrap(), Vec::new())]);
                std::future::pending().await
            })
        };
        for times in 1..3 {
            let mut readers = [watch(), watch()];
            // A task that was not needed is dropped at once.
            notified(&ended).await;
            for reader in &mut readers {
                assert!(matches!(reader.next().await, Change::Joined(_)));
                assert_eq!(reader.next().await, Change::Current);
            }
            assert_eq!(started.load(Ordering::Relaxed), times);
            drop(readers);
            notified(&ended).await;
        }
        let mut reader = watch();
        assert!(matches!(reader.next().await, Change::Joined(_)));
        assert_eq!(reader.next().await, Change::Current);
        drop(feed);
        assert_eq!(reader.next().await, Change::Lost);
        notified(&ended).await;
    }

    async fn next(watch: &mut Watch) -> Change {
        tokio::time::timeout(std::time::Duration::from_secs(10), watch.next()).await.expect("a change is told")
    }

    #[tokio::test]
    async fn a_feed_that_ends_is_lost_to_its_readers_and_starts_again_for_the_next_one() {
        let feed = Arc::new(Feed::default());
        let mut first = feed.watch(|mirror| async move { mirror.replace([]) });
        assert_eq!(next(&mut first).await, Change::Lost);
        let mut second = feed.watch(|mirror| async move {
            mirror.replace([]);
            std::future::pending().await
        });
        assert_eq!(next(&mut second).await, Change::Current);
    }
}
