//! Room on the disk for a run of `test`.

use std::path::Path;
use std::{fs, io};

use crate::Outcome;

/// Bytes that must be free before each step of `test`. The largest step, the tests, writes about 3 GiB when nothing is built
/// yet; a disk that runs full in between breaks builds in ways that name something else.
const NEEDED: u64 = 4 << 30;

/// Checks that the disk of the build output, in the directory `target`, has room for another step.
pub(crate) fn check(target: &Path) -> Outcome {
    let existing = target.ancestors().find(|path| path.exists()).unwrap_or(target);
    let room = rustix::fs::statvfs(existing).map_err(|error| format!("{}: {error}", existing.display()))?;
    judge(target, room.f_bavail.saturating_mul(room.f_frsize))
}

/// Refuses to go on with fewer than [`NEEDED`] bytes free.
fn judge(target: &Path, free: u64) -> Outcome {
    if free >= NEEDED {
        return Ok(());
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    Err(format!(
        "the disk of {} is nearly full: {:.1} GiB are free and {:.1} GiB are needed; `cargo clean` frees what was built, or \
         set CARGO_TARGET_DIR to a directory on another disk",
        target.display(),
        gib(free),
        gib(NEEDED)
    )
    .into())
}

/// Removes a directory of the build output that no later step uses.
pub(crate) fn free(directory: &Path) -> Outcome {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{} cannot be removed: {error}", directory.display()).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_refused_with_both_figures_and_a_remedy() {
        assert!(judge(Path::new("/build"), NEEDED).is_ok());
        let error = judge(Path::new("/build"), NEEDED - (1 << 30)).unwrap_err().to_string();
        for part in ["/build is nearly full", "3.0 GiB are free", "4.0 GiB are needed", "CARGO_TARGET_DIR"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
