//! Unix sockets: one function binds every one that this program makes.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// Longest path that Linux has room for, in bytes, without the zero at the end.
const LONGEST_PATH: usize = 107;
/// Tries to lock a directory in which another process binds, and the pause between them: a second in all.
const TURNS: (u32, Duration) = (50, Duration::from_millis(20));

/// Reason why a Unix socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The path is longer than the system allows.
    #[error("the path has {len} bytes, and that of a socket at most {LONGEST_PATH}")]
    TooLong {
        /// Bytes of the path.
        len: usize,
    },
    /// A process answers at the path.
    #[error("a running process answers there")]
    Answered,
    /// The path leads to a file of another kind, which is never replaced.
    #[error("a file that is no socket stands there")]
    NotASocket,
    /// The path leads to a socket that this user may not connect to.
    #[error("another user's socket stands there")]
    OtherUser,
    /// The operating system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// File of a bound Unix socket. It is removed when this is dropped, unless another process put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
    /// The directory, if it was made for this socket.
    made: Option<PathBuf>,
}

impl SocketFile {
    fn id(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && Self::id(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.made {
            // Only if nothing else is in it.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Binds a Unix socket. One left behind by a dead process is replaced; one where a process answers is not, nor is a file
/// that is no socket. A process that answers sees a connection that ends at once.
///
/// With `private`, only this user can connect (mode 0600), and directories that are missing are made (mode 0700).
///
/// # Errors
/// [`SocketError`]; nothing was changed.
pub async fn bind_unix(path: &Path, private: bool) -> Result<(UnixListener, SocketFile), SocketError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let len = path.as_os_str().len();
    if len > LONGEST_PATH {
        return Err(SocketError::TooLong { len });
    }
    // Made before anything can fail, so that whatever fails takes it away again.
    let mut file = SocketFile { path: path.to_owned(), id: None, made: None };
    if private && !directory.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        file.made = Some(directory.to_owned());
    }
    let _turn = turn(directory).await;
    remove_stale(path).await?;
    let listener = if private { bind_private(path)? } else { UnixListener::bind(path)? };
    file.id = SocketFile::id(path);
    Ok((listener, file))
}

/// Removes a socket that a dead process left behind.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match UnixStream::connect(path).await.map_err(|error| error.kind()) {
        Err(io::ErrorKind::NotFound) => Ok(()),
        Err(io::ErrorKind::ConnectionRefused) => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(SocketError::NotASocket);
            }
            Ok(std::fs::remove_file(path)?)
        }
        Err(io::ErrorKind::PermissionDenied) => Err(SocketError::OtherUser),
        // A process too busy to take the connection is alive too.
        Ok(_) | Err(io::ErrorKind::WouldBlock) => Err(SocketError::Answered),
        Err(other) => Err(SocketError::Io(other.into())),
    }
}

/// Binds under a name nobody knows yet, so that nobody connects before the mode is set. It is no longer than the usual
/// name: what the system allows is short.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let staging = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&staging);
    let listener = UnixListener::bind(&staging)?;
    let private = std::fs::Permissions::from_mode(0o600);
    let placed = std::fs::set_permissions(&staging, private).and_then(|()| std::fs::rename(&staging, path));
    match placed {
        Ok(()) => Ok(listener),
        Err(error) => {
            let _ = std::fs::remove_file(&staging);
            Err(error)
        }
    }
}

/// Waits a moment for other processes that bind in this directory. Where it cannot be locked, nobody waits.
async fn turn(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    for _ in 0..TURNS.0 {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(TURNS.1).await,
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}
