use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The least number of bytes a cookie may have.
///
/// Eight printable characters are the least that makes on-line guessing against the paced proofs of a listener (ten a
/// second at most, one a minute per caller) pointless; the handshake leaves no off-line guessing.
pub const MIN_COOKIE_LEN: usize = 8;

/// Estimated strength, in bits, from which a cookie is strong.
///
/// Guessing such a cookie on-line is hopeless at any rate that a listener can answer: some thousand proofs a second for a
/// year are 37 bits. Proofs of a weaker one are paced after failures, and it deserves a warning. 128 random bits in any
/// usual alphabet are estimated above this bound; the estimate is cautious.
pub const STRONG_COOKIE_BITS: u32 = 96;

/// The longest label, in bytes: a date and a word.
const MAX_LABEL_LEN: usize = 64;

/// The longest cookie, in bytes. A bound, not a recommendation.
const MAX_COOKIE_LEN: usize = 4096;

/// A secret shared by nodes that may talk to each other.
///
/// It never prints: `Debug` is redacted and there is no `Display` and no serialisation. Comparison takes the
/// same time wherever two cookies of one length differ. Cloning shares the bytes; they are zeroed when the
/// last clone is dropped.
///
/// A label, which is no secret, travels with it: while a cookie is being replaced, it tells a listener which of the
/// two a caller is about to prove.
///
/// ```
/// use trunkline_route::Cookie;
///
/// let cookie = Cookie::new("f3b0c44298fc1c149afbf4c8996fb924")?;
/// assert!(!cookie.is_weak());
/// assert_eq!(format!("{cookie:?}"), "Cookie(redacted)");
/// # Ok::<(), trunkline_route::CookieError>(())
/// ```
#[derive(Clone)]
pub struct Cookie {
    secret: Arc<Zeroizing<Vec<u8>>>,
    label: Option<Arc<str>>,
}

impl Cookie {
    /// Makes a cookie from its bytes, 8 to 4096 of them.
    ///
    /// # Errors
    /// [`CookieError`] when it is too short or too long; the error holds lengths, never the bytes.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, CookieError> {
        let bytes = secret.as_ref();
        match bytes.len() {
            len if len < MIN_COOKIE_LEN => Err(CookieError::TooShort { len }),
            len if len > MAX_COOKIE_LEN => Err(CookieError::TooLong { len }),
            _ => Ok(Self { secret: Arc::new(Zeroizing::new(bytes.to_vec())), label: None }),
        }
    }

    /// The same cookie under a label of at most 64 bytes; an empty one is none.
    ///
    /// # Errors
    /// [`CookieError::BadLabel`] when it is longer, or has characters that do not print.
    pub fn labelled(self, label: &str) -> Result<Self, CookieError> {
        if label.len() > MAX_LABEL_LEN || label.chars().any(char::is_control) {
            return Err(CookieError::BadLabel);
        }
        Ok(Self { label: (!label.is_empty()).then(|| label.into()), ..self })
    }

    /// Returns the label of the cookie; empty without one.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or_default()
    }

    /// The secret itself, for the one place that proves it.
    pub fn expose(&self) -> &[u8] {
        &self.secret
    }

    /// A cautious estimate of the strength in bits: length times the size of the alphabets used, and no more
    /// than the number of distinct bytes supports.
    pub fn estimated_bits(&self) -> u32 {
        let bytes = self.expose();
        let mut alphabet = 0u32;
        let mut count = |present: bool, size: u32| alphabet += if present { size } else { 0 };
        count(bytes.iter().any(u8::is_ascii_lowercase), 26);
        count(bytes.iter().any(u8::is_ascii_uppercase), 26);
        count(bytes.iter().any(u8::is_ascii_digit), 10);
        count(bytes.iter().any(|b| !b.is_ascii_alphanumeric()), 33);
        let distinct = bytes.iter().collect::<std::collections::BTreeSet<_>>().len() as u32;
        let per_byte = f64::from(alphabet.min(distinct.saturating_mul(2)).max(1)).log2();
        (per_byte * bytes.len() as f64) as u32
    }

    /// Returns `true` if the estimate is below [`STRONG_COOKIE_BITS`].
    pub fn is_weak(&self) -> bool {
        self.estimated_bits() < STRONG_COOKIE_BITS
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(redacted)")
    }
}

impl PartialEq for Cookie {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Cookie {}

/// The cookie of a node, a listener or a peer, and those that are valid besides: the old one, while it is replaced.
///
/// ```
/// use trunkline_route::{Cookie, Cookies};
///
/// let old = Cookie::new("the old secret")?;
/// let new = Cookie::new("the new secret")?.labelled("2026-11")?;
/// let cookies = Cookies::new(new.clone()).also(old.clone());
/// assert_eq!(cookies.labelled("2026-11"), &new);
/// assert_eq!(cookies.labelled(""), &old);
/// # Ok::<(), trunkline_route::CookieError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookies {
    current: Cookie,
    also: Vec<Cookie>,
}

impl Cookies {
    /// One cookie.
    pub fn new(current: Cookie) -> Self {
        Self { current, also: Vec::new() }
    }

    /// Takes this one from callers too. Callers say by its label which one they prove, so labels must differ.
    #[must_use]
    pub fn also(mut self, cookie: Cookie) -> Self {
        self.also.push(cookie);
        self
    }

    /// The one that is proven to others.
    pub fn current(&self) -> &Cookie {
        &self.current
    }

    /// Returns the cookie that a caller with this label must prove: the cookie of that label, else the current one.
    pub fn labelled(&self, label: &str) -> &Cookie {
        let found = self.iter().find(|cookie| cookie.label() == label);
        found.unwrap_or(&self.current)
    }

    /// All of them, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &Cookie> {
        std::iter::once(&self.current).chain(&self.also)
    }
}

impl TryFrom<&str> for Cookies {
    type Error = CookieError;

    fn try_from(text: &str) -> Result<Self, CookieError> {
        Cookie::new(text).map(Self::from)
    }
}

impl From<Infallible> for CookieError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Cookie> for Cookies {
    fn from(cookie: Cookie) -> Self {
        Self::new(cookie)
    }
}

/// Error returned when bytes are not a valid cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CookieError {
    /// The label is longer than 64 bytes or contains control characters.
    #[error("a cookie's label has at most 64 bytes and no control characters")]
    BadLabel,
    /// Fewer than [`MIN_COOKIE_LEN`] bytes.
    #[error("the cookie has {len} bytes; at least 8 are needed: make one with `openssl rand -hex 24`")]
    TooShort {
        /// Number of bytes.
        len: usize,
    },
    /// More than 4096 bytes.
    #[error("the cookie has {len} bytes; at most 4096 are taken")]
    TooLong {
        /// Number of bytes.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_never_prints_its_secret() {
        let cookie = Cookie::new("canary-secret").unwrap();
        assert_eq!(format!("{cookie:?}"), "Cookie(redacted)");
    }

    #[test]
    fn seven_bytes_are_refused_and_eight_are_taken() {
        assert_eq!(Cookie::new("1234567"), Err(CookieError::TooShort { len: 7 }));
        assert!(Cookie::new("12345678").is_ok());
    }

    #[test]
    fn strength_grows_with_length_and_variety() {
        assert!(Cookie::new("aaaaaaaaaaaaaaaa").unwrap().is_weak());
        assert!(Cookie::new("password1").unwrap().is_weak());
        assert!(Cookie::new("correcthorsebattery").unwrap().is_weak());
        assert!(!Cookie::new("f3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c").unwrap().is_weak());
        assert!(!Cookie::new("Zk3JrBq9UoYwMNpc4SgAhQ").unwrap().is_weak(), "128 bits in base 64");
    }

    #[test]
    fn a_label_picks_among_valid_cookies_and_is_no_part_of_the_secret() {
        let cookie = |text: &str, label: &str| Cookie::new(text).unwrap().labelled(label).unwrap();
        let cookies = Cookies::new(cookie("new-secret", "2026-11")).also(cookie("old-secret", ""));
        assert_eq!(cookies.labelled("2026-11"), &cookie("new-secret", ""));
        assert_eq!(cookies.labelled(""), &cookie("old-secret", ""));
        assert_eq!(cookies.labelled("unknown"), cookies.current());
        let secret = Cookie::new("some-secret").unwrap();
        assert_eq!(secret.clone().labelled(&"x".repeat(65)), Err(CookieError::BadLabel));
        assert_eq!(secret.labelled("a\nb"), Err(CookieError::BadLabel));
    }

    #[test]
    fn equal_secrets_are_equal_cookies() {
        assert_eq!(Cookie::new("same-secret").unwrap(), Cookie::new("same-secret").unwrap());
        assert_ne!(Cookie::new("same-secret").unwrap(), Cookie::new("other-secret").unwrap());
    }
}
