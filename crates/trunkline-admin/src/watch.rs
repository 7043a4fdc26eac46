//! Watch of the configuration file, so that routes of the cluster which are edited by hand apply at once.

use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use crate::ops::Operations;

/// Time between two looks at the file. A change is read when it did not change again until the next look.
const LOOK: Duration = Duration::from_millis(500);

/// Task that watches the file of a node, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches the file from which a member of a cluster was started; returns `None` for any other node.
pub(crate) fn watch(operations: &Arc<Operations>) -> Option<Watch> {
    let path = operations.watched()?.to_owned();
    let operations = Arc::downgrade(operations);
    let task = async move {
        // A change since the node read the file is taken up as well.
        let (mut seen, mut is_read, mut told) = (None, true, None);
        loop {
            tokio::time::sleep(LOOK).await;
            let stamp = stamp(path.clone()).await;
            if stamp != seen {
                (seen, is_read, told) = (stamp, false, None);
                continue;
            }
            if is_read {
                continue;
            }
            let Some(operations) = operations.upgrade() else { return };
            match operations.blocking(Operations::take_up_cluster_routes).await {
                Ok(None) => is_read = true,
                Ok(Some(routes)) => {
                    is_read = true;
                    tracing::info!(path = %path.display(), routes, "the routes of the cluster are taken up from the file");
                }
                // It is read again: a file that it names may be missing for a moment. Each error is told once.
                Err(error) if told.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "the file changed and is not taken up; the routes of the cluster stay");
                    told = Some(error);
                }
            }
        }
    };
    Some(Watch(tokio::spawn(task)))
}

/// Length of a file, time of its last change, and its identity.
type Stamp = (u64, Option<SystemTime>, Identity);
/// Device and number of a file, and the time at which that changed, in seconds and nanoseconds.
type Identity = (u64, u64, i64, i64);

/// Returns what tells of a change of a file; `None` if there is none. Symbolic links are followed, so that one which is
/// replaced is a change as well.
async fn stamp(path: PathBuf) -> Option<Stamp> {
    let metadata = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await.ok()?.ok()?;
    Some((metadata.len(), metadata.modified().ok(), identity(&metadata)))
}

/// Returns the device and the number of a file, and the time of the last change of what the system keeps of it.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;

    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {
    (0, 0, 0, 0)
}
