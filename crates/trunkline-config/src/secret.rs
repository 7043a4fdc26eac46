//! Secrets come from files that only their owner can read, or from the environment.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use trunkline_route::Cookie;
use zeroize::Zeroizing;

/// The most that is read from a secret file: a cookie has at most 4096 bytes.
const MAX_SECRET_BYTES: u64 = 8192;

/// The most that is read from a PEM file: the platform's whole root store has about 250 KiB.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// The least characters of a token of hexadecimal digits only: 128 bits.
const MIN_HEX_TOKEN_LEN: usize = 32;
/// The least characters of any other token: 128 bits in base64.
const MIN_TOKEN_LEN: usize = 22;

/// The token that a client of a TCP admin interface must show. `Debug` is redacted; zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Cookie);

impl AdminToken {
    /// Checks that the text carries 128 bits: at least 32 hexadecimal or 22 other printable characters, and not few
    /// different ones.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, String> {
        const REMEDY: &str = "make one with `openssl rand -hex 16`";
        let is_hex = bytes.iter().all(u8::is_ascii_hexdigit);
        if bytes.len() < if is_hex { MIN_HEX_TOKEN_LEN } else { MIN_TOKEN_LEN } {
            let len = bytes.len();
            return Err(format!(
                "the token has {len} characters and is too weak; 128 bits need 32 hexadecimal or 22 base64 ones: {REMEDY}"
            ));
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(format!("the token has characters that are not printable ASCII: {REMEDY}"));
        }
        match Cookie::new(bytes) {
            Ok(cookie) if cookie.is_weak() => Err(format!("the token is too weak, it repeats itself: {REMEDY}")),
            Ok(cookie) => Ok(Self(cookie)),
            Err(_) => Err(format!("the token is longer than 4096 characters: {REMEDY}")),
        }
    }

    /// Whether this is the token; takes the same time wherever two texts of one length differ.
    pub fn matches(&self, shown: &[u8]) -> bool {
        Cookie::new(shown).is_ok_and(|shown| shown == self.0)
    }

    /// The token itself, printable ASCII, for a client that must show it.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Where files and variables that the configuration names are found.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) base_dir: &'a Path,
    pub(crate) environment: &'a [(String, String)],
}

/// The field at fault and what is wrong with it.
pub(crate) type SecretError = (String, String);

impl Surroundings<'_> {
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.base_dir.join(text)
    }

    /// The secret named by at most one of `<kind>_file` and `<kind>_env`; trailing newlines are cut off.
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
                return Err((format!("{kind}_env"), message));
            }
            (Some(file), None) => read_secret(&self.path(file)).map_err(|message| (format!("{kind}_file"), message))?,
            (None, Some(env)) => self.variable(env).map_err(|message| (format!("{kind}_env"), message))?,
        };
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        Ok(Some(bytes))
    }

    /// The cookie named by at most one of `cookie_file` and `cookie_env`.
    pub(crate) fn cookie(&self, file: Option<&str>, env: Option<&str>) -> Result<Option<Cookie>, SecretError> {
        let Some(bytes) = self.secret("cookie", file, env)? else { return Ok(None) };
        let (field, what) = match file {
            Some(file) => ("cookie_file", format!("{}: ", self.path(file).display())),
            None => ("cookie_env", String::new()),
        };
        Cookie::new(bytes.as_slice()).map(Some).map_err(|error| (field.to_owned(), format!("{what}{error}")))
    }

    fn variable(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let shown = if name.chars().all(plain) && !name.is_empty() { format!(" `{name}`") } else { String::new() };
        match self.environment.iter().find(|(n, _)| n == name) {
            Some((_, value)) if value.is_empty() => {
                Err(format!("the environment variable{shown} is empty; give it the secret"))
            }
            Some((_, value)) => Ok(Zeroizing::new(value.clone().into_bytes())),
            None => Err(format!(
                "the environment variable{shown} is not set; set it, or name a file instead (this key takes the \
                 name of a variable, not the secret)"
            )),
        }
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = path.display();
    let file = open(path)?;
    if readable_by_others(&file) {
        return Err(format!("{shown} can be read by others; run `chmod 600 {shown}`"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES as usize + 1));
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{shown} cannot be read: {error}"))?;
    Ok(bytes)
}

/// Checks that a PEM file is readable and has a section of this kind. Gives a warning when a key is open to others.
pub(crate) fn check_pem(path: &Path, section: &str) -> Result<Option<String>, String> {
    let shown = path.display();
    let file = open(path)?;
    let open_to_others = readable_by_others(&file);
    let mut text = Zeroizing::new(Vec::new());
    file.take(MAX_PEM_BYTES).read_to_end(&mut text).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    // A byte order mark may stand before it, and the end of another section.
    let has = text.split(|b| *b == b'\n').any(|line| {
        let line = Zeroizing::new(String::from_utf8_lossy(line).into_owned());
        line.contains("-----BEGIN ") && line.contains(&format!("{section}-----"))
    });
    if !has {
        return Err(format!("{shown} has no `-----BEGIN … {section}-----` section; it must be a PEM file"));
    }
    Ok((section == "PRIVATE KEY" && open_to_others)
        .then(|| format!("{shown} can be read by others; run `chmod 600 {shown}`")))
}

pub(crate) fn open(path: &Path) -> Result<fs::File, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{shown} does not exist; create it or correct the path"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{shown} cannot be read by this user; give it to the user the node runs as")
        }
        _ => format!("{shown} cannot be read: {error}"),
    };
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{shown} is no regular file; name one"));
    }
    fs::File::open(path).map_err(failed)
}

#[cfg(unix)]
fn readable_by_others(file: &fs::File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().map_or(true, |meta| meta.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn readable_by_others(_: &fs::File) -> bool {
    false
}
