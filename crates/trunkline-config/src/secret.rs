//! Secrets, read from files that only their owner can read or from environment variables.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use trunkline_route::{Cause, Cookie, CookieError};
use zeroize::Zeroizing;

use crate::error::{BoxError, ReadError};
use crate::layers::given;

/// Maximum number of bytes read from a secret file; a cookie has at most 4096 bytes.
const MAX_SECRET_BYTES: u64 = 8192;

/// Maximum number of bytes read from a PEM file; the root store of a platform has about 250 KiB.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// Minimum length of a token made of hexadecimal digits only: 128 bits.
const MIN_HEX_TOKEN_LEN: usize = 32;
/// Minimum length of any other token: 128 bits in base64.
const MIN_TOKEN_LEN: usize = 22;

/// Token that a client of a TCP admin interface must show. `Debug` is redacted; the memory is zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Cookie);

/// Estimated strength, in bits, up to which a token of sufficient length counts as repetitive.
const REPETITIVE_BITS: u32 = 64;

impl AdminToken {
    /// Checks that the text carries 128 bits: at least 32 hexadecimal or 22 other printable characters, with enough
    /// different ones among them.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, TokenError> {
        let is_hex = bytes.iter().all(u8::is_ascii_hexdigit);
        if bytes.len() < if is_hex { MIN_HEX_TOKEN_LEN } else { MIN_TOKEN_LEN } {
            return Err(TokenError::TooShort { len: bytes.len() });
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Characters);
        }
        match Cookie::new(bytes) {
            Ok(cookie) if cookie.estimated_bits() <= REPETITIVE_BITS => Err(TokenError::Repetitive),
            Ok(cookie) => Ok(Self(cookie)),
            Err(_) => Err(TokenError::TooLong),
        }
    }

    /// Returns true if `shown` is this token. Two texts of equal length are compared in constant time.
    pub fn matches(&self, shown: &[u8]) -> bool {
        Cookie::new(shown).is_ok_and(|shown| shown == self.0)
    }

    /// Returns the token itself, printable ASCII, for a client that must show it.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

/// Error returned when a text is not a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token has characters that are not printable ASCII; make one with `openssl rand -hex 16`")]
    Characters,
    #[error("the token is too weak: it repeats itself; make one with `openssl rand -hex 16`")]
    Repetitive,
    #[error("the token is longer than 4096 characters; make one with `openssl rand -hex 16`")]
    TooLong,
    #[error(
        "the token is too weak: it has {len} characters, and 128 bits need 32 hexadecimal or 22 base64 ones; make one \
         with `openssl rand -hex 16`"
    )]
    TooShort { len: usize },
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Base directory and environment for the files and variables that the configuration names.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) base_dir: &'a Path,
    pub(crate) environment: &'a [(OsString, OsString)],
}

/// Error returned when a secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{field} cannot be used")]
pub(crate) struct SecretError {
    /// Key at fault.
    pub(crate) field: String,
    #[source]
    pub(crate) cause: Cause,
}

impl SecretError {
    pub(crate) fn new(field: impl Into<String>, cause: impl Into<BoxError>) -> Self {
        Self { field: field.into(), cause: cause.into().into() }
    }
}

/// Error returned when a cookie in a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
struct CookieFileError {
    path: PathBuf,
    source: CookieError,
}

/// Error returned when an environment variable holds no secret. A name that is not plain may be a secret itself and is not
/// shown.
#[derive(Debug, thiserror::Error)]
enum VariableError {
    #[error(
        "the environment variable{shown} is not UTF-8 text; make the secret with `openssl rand -hex 24`, or name a file \
         instead"
    )]
    NotText { shown: String },
    #[error(
        "the environment variable{shown} is not set or empty; set it, or name a file instead (this key contains the name \
         of a variable, not the secret)"
    )]
    Unset { shown: String },
}

impl Surroundings<'_> {
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// Reads the secret named by at most one of `<kind>_file` and `<kind>_env`; trailing newlines are removed.
    pub(crate) fn secret(
        &self,
        kind: &str,
        file: Option<&str>,
        env: Option<&str>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, SecretError> {
        let mut bytes = match (file, env) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let message = format!("both {kind}_file and {kind}_env are set; keep one of them");
                return Err(SecretError::new(format!("{kind}_env"), message));
            }
            (Some(file), None) => {
                read_secret(&self.path(file)).map_err(|error| SecretError::new(format!("{kind}_file"), error))?
            }
            (None, Some(env)) => self.variable(env).map_err(|error| SecretError::new(format!("{kind}_env"), error))?,
        };
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        Ok(Some(bytes))
    }

    /// Reads the cookie named by at most one of `cookie_file` and `cookie_env`.
    pub(crate) fn cookie(&self, file: Option<&str>, env: Option<&str>) -> Result<Option<Cookie>, SecretError> {
        let Some(bytes) = self.secret("cookie", file, env)? else { return Ok(None) };
        Cookie::new(bytes.as_slice()).map(Some).map_err(|source| match file {
            Some(file) => SecretError::new("cookie_file", CookieFileError { path: self.path(file), source }),
            None => SecretError::new("cookie_env", source),
        })
    }

    fn variable(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, VariableError> {
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let shown = if name.chars().all(plain) && !name.is_empty() { format!(" `{name}`") } else { String::new() };
        let found = given(self.environment).find(|(known, _)| *known == name);
        match found.map(|(_, value)| value.to_str()) {
            Some(Some(value)) => Ok(Zeroizing::new(value.as_bytes().to_vec())),
            Some(None) => Err(VariableError::NotText { shown }),
            None => Err(VariableError::Unset { shown }),
        }
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let file = open(path)?;
    if let Some(error) = open_to_others(&file, path) {
        return Err(error);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 1));
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Unreadable { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Checks that a PEM file is readable and has a section of this kind. Returns a warning if a key is readable by others.
pub(crate) fn check_pem(path: &Path, section: &str) -> Result<Option<ReadError>, ReadError> {
    let file = open(path)?;
    let warning = open_to_others(&file, path);
    let mut text = Zeroizing::new(Vec::new());
    let read = file.take(MAX_PEM_BYTES).read_to_end(&mut text);
    read.map_err(|source| ReadError::Unreadable { path: path.to_owned(), source })?;
    // A byte order mark or the end of another section may precede the marker.
    let has = text.split(|b| *b == b'\n').any(|line| {
        let line = Zeroizing::new(String::from_utf8_lossy(line).into_owned());
        line.contains("-----BEGIN ") && line.contains(&format!("{section}-----"))
    });
    if !has {
        return Err(ReadError::NoSection { path: path.to_owned(), section: section.to_owned() });
    }
    Ok(warning.filter(|_| section == "PRIVATE KEY"))
}

pub(crate) fn open(path: &Path) -> Result<fs::File, ReadError> {
    let failed = |source: std::io::Error| match (source.kind(), path.to_owned()) {
        (std::io::ErrorKind::NotFound, path) => ReadError::Missing { path },
        (std::io::ErrorKind::PermissionDenied, path) => ReadError::Denied { path },
        (_, path) => ReadError::Unreadable { path, source },
    };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ReadError::NotAFile { path: path.to_owned() });
    }
    fs::File::open(path).map_err(failed)
}

/// Access rights of a secret file, as far as this process is concerned.
#[cfg(unix)]
struct Access {
    mode: u32,
    /// True if the file belongs to the user of this process, on a file system where its mode can be changed.
    can_change: bool,
    /// True if the file's group is one of this process's groups.
    in_group: bool,
}

#[cfg(unix)]
impl Access {
    fn of(file: &fs::File) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;

        let found = file.metadata()?;
        let owns = found.uid() == rustix::process::geteuid().as_raw();
        let is_fixed = rustix::fs::fstatvfs(file)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        let mut groups = rustix::process::getgroups()?;
        groups.push(rustix::process::getegid());
        let in_group = groups.iter().any(|group| group.as_raw() == found.gid());
        Ok(Self { mode: found.mode() & 0o777, can_change: owns && !is_fixed, in_group })
    }

    /// Returns true if the file may hold a secret: only its owner has access to it. Where this process cannot arrange
    /// that, members of one of its own groups may read it too, but nobody else. Kubernetes gives a secret in this form
    /// to a container that does not run as root (`fsGroup`, mode 0440).
    fn is_private(&self) -> bool {
        self.mode & 0o077 == 0 || self.mode & 0o037 == 0 && self.in_group && !self.can_change
    }
}

/// Returns the reason why others can read the file and the remedy open to this user; `None` if the file is private.
#[cfg(unix)]
fn open_to_others(file: &fs::File, path: &Path) -> Option<ReadError> {
    let access = match Access::of(file) {
        Ok(access) => access,
        Err(source) => return Some(ReadError::Unexamined { path: path.to_owned(), source }),
    };
    let (mode, remedy) = match access {
        access if access.is_private() => return None,
        Access { mode, can_change: true, .. } => (mode, format!("run `chmod 600 {}`", path.display())),
        Access { mode, .. } => {
            let remedy = "this user cannot change that: ask its owner to set mode 0400 and this user as owner, or mode 0440 and a \
                          group of this user (Kubernetes: `defaultMode: 0440` and `fsGroup`)";
            (mode, remedy.to_owned())
        }
    };
    Some(ReadError::OpenToOthers { path: path.to_owned(), mode, remedy })
}

#[cfg(not(unix))]
fn open_to_others(_: &fs::File, _: &Path) -> Option<ReadError> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::Access;

    #[test]
    fn a_secret_is_for_its_owner_or_for_a_group_where_nothing_else_is_possible() {
        let is_private = |mode, can_change, in_group| Access { mode, can_change, in_group }.is_private();
        for mode in [0o400, 0o600, 0o700] {
            assert!(is_private(mode, true, false) && is_private(mode, false, false), "{mode:o}");
        }
        for mode in [0o440, 0o640] {
            assert!(is_private(mode, false, true), "{mode:o}");
            assert!(!is_private(mode, true, true), "{mode:o}: `chmod 600` is possible");
            assert!(!is_private(mode, false, false), "{mode:o}: of another group");
        }
        for mode in [0o444, 0o460, 0o644, 0o441, 0o450, 0o404] {
            assert!(!is_private(mode, false, true), "{mode:o}");
        }
    }
}
