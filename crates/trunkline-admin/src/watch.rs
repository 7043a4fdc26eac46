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
        let (mut seen, mut is_read) = (None, true);
        loop {
            tokio::time::sleep(LOOK).await;
            let stamp = stamp(path.clone()).await;
            if stamp != seen {
                (seen, is_read) = (stamp, false);
                continue;
            }
            if std::mem::replace(&mut is_read, true) {
                continue;
            }
            let Some(operations) = operations.upgrade() else { return };
            match operations.blocking(Operations::take_up_cluster_routes).await {
                Ok(None) => {}
                Ok(Some(routes)) => {
                    tracing::info!(path = %path.display(), routes, "the routes of the cluster are taken up from the file");
                }
                Err(error) => {
                    tracing::warn!(%error, "the file changed and is not taken up; the routes of the cluster stay")
                }
            }
        }
    };
    Some(Watch(tokio::spawn(task)))
}

/// Length of a file, time of its last change, and its identity.
type Stamp = (u64, Option<SystemTime>, (u64, u64));

/// Returns what tells of a change of a file; `None` if there is none. Symbolic links are followed, so that one which is
/// replaced is a change as well.
async fn stamp(path: PathBuf) -> Option<Stamp> {
    let metadata = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await.ok()?.ok()?;
    Some((metadata.len(), metadata.modified().ok(), identity(&metadata)))
}

/// Returns the device and the number of a file.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;

    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}
