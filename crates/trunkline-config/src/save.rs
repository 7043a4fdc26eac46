use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::SaveError;

/// Replaces the content of a file by this text, atomically.
///
/// The text goes into a new file beside the old one with the same owner, group and mode, which is flushed to the disk
/// and renamed over the old file. A symbolic link is followed and kept. A hard link to the old file is broken.
///
/// # Errors
/// [`SaveError`] if the file is read-only, even for the superuser, if its owner or group cannot be kept, or if the
/// system fails. In each case the old content is unchanged and the new file is removed.
pub fn save_atomically(path: &Path, text: &str) -> Result<(), SaveError> {
    save(path, text).map_err(|source| SaveError { path: path.to_owned(), source })
}

fn save(path: &Path, text: &str) -> io::Result<()> {
    let (target, old) = match fs::canonicalize(path) {
        Ok(target) => {
            let old = fs::metadata(&target)?;
            let read_only = |error: &dyn std::fmt::Display| {
                let message =
                    format!("the file is read-only ({error}); make it writable for this user, or change it by hand");
                io::Error::new(io::ErrorKind::PermissionDenied, message)
            };
            if old.permissions().readonly() {
                return Err(read_only(&"its mode gives no one write permission"));
            }
            // Opening the file for appending writes nothing; it only tests whether writing is permitted.
            OpenOptions::new().append(true).open(&target).map_err(|error| read_only(&error))?;
            (target, Some(old))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {
            (path.to_owned(), None)
        }
        Err(error) => return Err(error),
    };
    let directory = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let (temporary, mut file) = create_beside(&directory, &target)?;
    let written = (|| {
        if let Some(old) = &old {
            keep_owner(&file, old)?;
            file.set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    if written.is_err() {
        // The error of the write is more useful than one of the removal.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(&directory)?.sync_all()
}

/// Gives the file the owner and group of the old one. Must precede the mode, because a change of owner clears bits of
/// it.
#[cfg(unix)]
fn keep_owner(file: &File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};

    let new = file.metadata()?;
    let differs = |old: u32, new: u32| (old != new).then_some(old);
    let (owner, group) = (differs(old.uid(), new.uid()), differs(old.gid(), new.gid()));
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    fchown(file, owner, group).map_err(|error| {
        let (owner, group) = (old.uid(), old.gid());
        let message = format!(
            "its owner {owner} and group {group} cannot be kept ({error}); save as that user, or change it by hand"
        );
        io::Error::new(error.kind(), message)
    })
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

fn create_beside(directory: &Path, target: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = target.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let temporary = directory.join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
