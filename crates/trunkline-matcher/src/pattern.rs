//! One pattern and its compiled form.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::hir::{Hir, Look};

use crate::error::{Fault, PatternError};
use crate::limits::{LimitKind, Limits};
use crate::syntax;

/// A regular expression in the syntax of Go's `regexp`, *searched* anywhere in
/// a name.
///
/// Its identity is its text: `^a$` and `^(a)$` are two patterns. A clone is one
/// reference count.
///
/// ```
/// use trunkline_matcher::RoutePattern;
///
/// let pattern = RoutePattern::new("prod-db@example.com")?;
/// assert!(pattern.is_match("prod-db@example.com"));
/// assert!(pattern.is_match("eu-prod-db@example.com.au"), "it is searched");
/// assert!(pattern.is_match("prod-db@example_com"), "a dot is any character");
///
/// let exact = RoutePattern::new(r"^prod-db@example\.com$")?;
/// assert!(!exact.is_match("eu-prod-db@example.com.au"));
/// # Ok::<(), trunkline_matcher::PatternError>(())
/// ```
#[derive(Clone)]
pub struct RoutePattern(Arc<Compiled>);

/// A regular expression in the syntax of Go's `regexp` that must match the
/// *whole* name.
///
/// For patterns that allow something: a rule that forgets `^` and `$` then
/// allows too little instead of too much.
///
/// ```
/// use trunkline_matcher::AccessPattern;
///
/// let allowed = AccessPattern::new("db[0-9]+|cache")?;
/// assert!(allowed.is_match("db7"));
/// assert!(!allowed.is_match("my-db7"));
/// assert!(!allowed.is_match("cache-admin"));
/// # Ok::<(), trunkline_matcher::PatternError>(())
/// ```
#[derive(Clone)]
pub struct AccessPattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    regex: meta::Regex,
}

#[derive(Clone, Copy)]
enum Anchoring {
    Anywhere,
    Whole,
}

impl RoutePattern {
    /// Compiles `text` under the default [`Limits`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::with_limits(text, &Limits::default())
    }

    /// Compiles `text` under `limits`.
    pub fn with_limits(text: &str, limits: &Limits) -> Result<Self, PatternError> {
        Compiled::new(text, limits, Anchoring::Anywhere).map(Self)
    }

    /// Whether the pattern is found anywhere in `name`.
    ///
    /// Takes time proportional to the length of `name` times, at worst, the
    /// size of the compiled pattern; there are no exponential cases.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.regex.is_match(name)
    }
}

impl AccessPattern {
    /// Compiles `text` under the default [`Limits`].
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::with_limits(text, &Limits::default())
    }

    /// Compiles `text` under `limits`.
    pub fn with_limits(text: &str, limits: &Limits) -> Result<Self, PatternError> {
        Compiled::new(text, limits, Anchoring::Whole).map(Self)
    }

    /// Whether the pattern matches `name` from its start to its end.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.regex.is_match(name)
    }
}

impl Compiled {
    fn new(text: &str, limits: &Limits, anchoring: Anchoring) -> Result<Arc<Self>, PatternError> {
        let build = || compile(text, limits, anchoring);
        let depth = if text.len() > limits.get_pattern_bytes() { 0 } else { syntax::depth_bound(text) };
        let built = if depth <= SHALLOW {
            build()
        } else {
            let levels = depth.min(limits.get_nesting() as usize);
            on_a_stack_for(levels, build)
                .unwrap_or_else(|| Err(Fault::limit(LimitKind::Nesting, limits, 0..text.len())))
        };
        match built {
            Ok(regex) => Ok(Arc::new(Self { text: text.into(), regex })),
            Err(fault) => Err(fault.into_error(text)),
        }
    }
}

fn compile(text: &str, limits: &Limits, anchoring: Anchoring) -> Result<meta::Regex, Fault> {
    let mut hir = syntax::parse(text, limits)?;
    if let Anchoring::Whole = anchoring {
        hir = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    }
    let config = meta::Config::new()
        .which_captures(WhichCaptures::None)
        .onepass(false)
        .nfa_size_limit(Some(limits.get_nfa_bytes()))
        .hybrid_cache_capacity(LAZY_DFA_BYTES);
    meta::Builder::new()
        .configure(config)
        .build_from_hir(&hir)
        // Size is all that can be wrong with what was parsed.
        .map_err(|_| Fault::limit(LimitKind::NfaBytes, limits, 0..text.len()))
}

/// Runs `work` on a thread with a stack for that many levels. `None` if the
/// system has no thread to give.
fn on_a_stack_for<T: Send>(levels: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new()
            .name("pattern-compiler".into())
            .stack_size(BASE_STACK_BYTES + levels * STACK_BYTES_PER_LEVEL)
            .spawn_scoped(scope, work)
            .ok()?;
        match worker.join() {
            Ok(done) => Some(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

macro_rules! identity_is_the_text {
    ($($name:ident)*) => {$(
        impl $name {
            /// The text it was compiled from.
            pub fn as_str(&self) -> &str {
                &self.0.text
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_str()).finish()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Eq for $name {}

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl FromStr for $name {
            type Err = PatternError;

            fn from_str(text: &str) -> Result<Self, PatternError> {
                Self::new(text)
            }
        }
    )*};
}

identity_is_the_text! { RoutePattern AccessPattern }

/// The lazy automaton's cache, per pattern and thread that searches. Filled as
/// needed; the engine starts it over when it is full.
const LAZY_DFA_BYTES: usize = 256 << 10;

/// Patterns with no more groups than this are compiled on the caller's stack.
const SHALLOW: usize = 16;

const BASE_STACK_BYTES: usize = 1 << 20;

/// The compiler recurses over the tree, up to three nodes for a level. With
/// nothing optimised, a level was seen to take between 16 and 24 KiB.
const STACK_BYTES_PER_LEVEL: usize = 48 << 10;

#[cfg(test)]
mod tests;
