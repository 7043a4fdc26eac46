//! Causes of errors, and errors printed with their causes.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Cause of a failure, as the library or system below reported it. Clones share it; two are equal if they have the same
/// text with all sources.
///
/// Programs can get the original error, for example the [`io::ErrorKind`] of a refused connection:
///
/// ```
/// use std::io;
/// use trunkline_route::Cause;
///
/// let cause = Cause::from(io::Error::from(io::ErrorKind::ConnectionRefused));
/// assert_eq!(cause.io_kind(), Some(io::ErrorKind::ConnectionRefused));
/// assert_eq!(cause.to_string(), "connection refused");
/// ```
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// Creates a cause from an error.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }

    /// Returns the error if it is of this type.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }

    /// Returns the kind of the first I/O error among the cause and its sources.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        sources(&*self.0).find_map(|error| match error.downcast_ref::<Self>() {
            Some(inner) => inner.io_kind(),
            None => error.downcast_ref::<io::Error>().map(io::Error::kind),
        })
    }
}

/// The cause itself if the box holds one, and otherwise the error.
impl From<Box<dyn Error + Send + Sync>> for Cause {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(cause) => *cause,
            Err(error) => Self(error.into()),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self(Box::<dyn Error + Send + Sync>::from(text).into())
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Chain(self).to_string() == Chain(other).to_string()
    }
}

impl Eq for Cause {}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Error printed with all its sources, from the outermost error to its first cause.
///
/// An error says what failed and then, after `; `, what to do about it. The causes follow what failed, and the advice
/// of all errors follows the first cause:
///
/// ```
/// use trunkline_route::Chain;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("cannot listen at 127.0.0.1:80; choose another port")]
/// struct ListenError(#[source] std::io::Error);
///
/// let error = ListenError(std::io::Error::other("permission denied"));
/// assert_eq!(Chain(&error).to_string(), "cannot listen at 127.0.0.1:80: permission denied; choose another port");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Chain<'e>(pub &'e (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut advice = Vec::new();
        for (depth, error) in sources(self.0).enumerate() {
            let separator = if depth == 0 { "" } else { ": " };
            let text = error.to_string();
            match text.split_once("; ").filter(|_| error.source().is_some()) {
                Some((failed, remedy)) => {
                    write!(f, "{separator}{failed}")?;
                    advice.push(remedy.to_owned());
                }
                None => write!(f, "{separator}{text}")?,
            }
        }
        advice.iter().rev().try_for_each(|remedy| write!(f, "; {remedy}"))
    }
}

/// Returns an error and its sources, outermost first.
fn sources<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (text, rest) = texts.split_first().unwrap();
        Layer { text, source: (!rest.is_empty()).then(|| Box::new(layers(rest))) }
    }

    #[test]
    fn causes_follow_what_failed_and_advice_comes_last() {
        for (texts, shown) in [
            (&["one"][..], "one"),
            (&["one; do this"], "one; do this"),
            (&["one", "two", "three"], "one: two: three"),
            (&["one; a", "two", "three; c; d"], "one: two: three; c; d; a"),
            (&["one; a", "two; b", "three"], "one: two: three; b; a"),
        ] {
            assert_eq!(Chain(&layers(texts)).to_string(), shown);
        }
    }

    #[test]
    fn a_cause_keeps_the_error_and_compares_by_text() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Cause);
        let cause = |text: &str| Cause::new(Outer(io::Error::new(io::ErrorKind::TimedOut, text.to_owned()).into()));
        assert_eq!(cause("a"), cause("a"));
        assert_ne!(cause("a"), cause("b"));
        assert_eq!(cause("a").io_kind(), Some(io::ErrorKind::TimedOut));
        assert!(cause("a").downcast_ref::<Outer>().is_some());
        assert_eq!(Cause::from("a text").io_kind(), None);
        let boxed: Box<dyn Error + Send + Sync> = cause("a").into();
        assert!(Cause::from(boxed).downcast_ref::<Outer>().is_some(), "a cause of a cause is the cause");
    }
}
