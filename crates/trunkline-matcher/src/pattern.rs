//! Patterns and their compiled form.

use std::borrow::{Borrow, Cow};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use regex_syntax::hir::{Hir, Look};

use crate::anchor::Window;
use crate::engine::{Cache, Engine};
use crate::error::{Fault, PatternError};
use crate::fold::Subject;
use crate::glob::Glob;
use crate::limits::{LimitKind, Limits};
use crate::pattern_class::PatternClass;
use crate::shape::{self, Required};
use crate::steps::Step;
use crate::syntax;

/// A regular expression in the syntax of Go's `regexp` that is *searched* anywhere in a name.
///
/// The identity of a pattern is its text: `^a$` and `^(a)$` are two patterns. A clone costs one reference count.
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
/// Meant for patterns that allow something: a rule without `^` and `$` then allows too little instead of too much.
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

/// A pattern of a table: a [`RoutePattern`], which is searched, or an [`AccessPattern`], which must match the whole name.
///
/// ```
/// use trunkline_matcher::{AccessPattern, PatternTable, RoutePattern};
///
/// let table = PatternTable::new();
/// table.insert(RoutePattern::new("db[0-9]+")?, 1, "a route")?;
/// table.insert(AccessPattern::new("db[0-9]|cache")?, 2, "a rule")?;
/// let found = |name| table.snapshot().matches(name).unwrap().map(|entry| *entry.value()).collect::<Vec<_>>();
/// assert_eq!(found("db7"), ["a rule", "a route"]);
/// assert_eq!(found("my-db7"), ["a route"], "the rule must match the whole name");
/// assert!(table.snapshot().get("db[0-9]|cache").unwrap().pattern().is_whole());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TablePattern(Arc<Compiled>);

pub(crate) struct Compiled {
    text: Box<str>,
    anchoring: Anchoring,
    /// True if every match has at least one character.
    consumes: bool,
    program: Program,
    /// Text that the pattern requires. Not used for a glob, which computes it on request.
    required: Required,
    /// Window around the anchor, only for a pattern that requires no text.
    window: Option<Box<Window>>,
}

/// Method by which a pattern is searched for, cheapest first.
enum Program {
    /// No search: the pattern matches every name.
    Always,
    Glob(Glob),
    Steps(Step),
    Engine(Engine),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchoring {
    Anywhere,
    Whole,
}

impl RoutePattern {
    /// Compiles `text` under the default [`Limits`].
    ///
    /// # Errors
    /// [`PatternError`] with the place in the text, if `text` is not in the syntax or exceeds a limit.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::with_limits(text, &Limits::default())
    }

    /// Compiles `text` under `limits`.
    ///
    /// # Errors
    /// [`PatternError`] with the place in the text, if `text` is not in the syntax or exceeds a limit.
    pub fn with_limits(text: &str, limits: &Limits) -> Result<Self, PatternError> {
        Compiled::new(text, limits, Anchoring::Anywhere).map(Self)
    }

    /// Returns true if the pattern is found anywhere in `name`.
    ///
    /// The time is proportional to the length of `name` times, at worst, the size of the compiled pattern. No case
    /// takes exponential time.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.0
    }
}

impl AccessPattern {
    /// Compiles `text` under the default [`Limits`].
    ///
    /// # Errors
    /// [`PatternError`] with the place in the text, if `text` is not in the syntax or exceeds a limit.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Self::with_limits(text, &Limits::default())
    }

    /// Compiles `text` under `limits`.
    ///
    /// # Errors
    /// [`PatternError`] with the place in the text, if `text` is not in the syntax or exceeds a limit.
    pub fn with_limits(text: &str, limits: &Limits) -> Result<Self, PatternError> {
        Compiled::new(text, limits, Anchoring::Whole).map(Self)
    }

    /// Returns true if the pattern matches `name` from its start to its end.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.0
    }
}

impl TablePattern {
    /// Returns the text from which the pattern was compiled.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns true for an [`AccessPattern`].
    pub fn is_whole(&self) -> bool {
        self.0.anchoring == Anchoring::Whole
    }

    /// Returns true if the pattern matches `name`, as the pattern that it was made from does.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.0
    }
}

impl From<RoutePattern> for TablePattern {
    fn from(pattern: RoutePattern) -> Self {
        Self(pattern.0)
    }
}

impl From<AccessPattern> for TablePattern {
    fn from(pattern: AccessPattern) -> Self {
        Self(pattern.0)
    }
}

/// Prints the name of the type that the pattern was made from.
impl fmt::Debug for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_whole() { "AccessPattern" } else { "RoutePattern" };
        f.debug_tuple(name).field(&self.as_str()).finish()
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

impl Compiled {
    fn new(text: &str, limits: &Limits, anchoring: Anchoring) -> Result<Arc<Self>, PatternError> {
        let built = with_stack_for(text, limits, || {
            let hir = parse(text, limits, anchoring)?;
            let mut compiled = Self {
                text: text.into(),
                anchoring,
                consumes: hir.properties().minimum_len() > Some(0),
                program: Program::of(&hir, text, limits)?,
                required: Required::default(),
                window: None,
            };
            if !matches!(compiled.program, Program::Glob(_)) {
                compiled.required = Required::of(&hir);
            }
            if compiled.required().is_empty() {
                compiled.window = Window::of(&hir).map(Box::new);
            }
            Ok(compiled)
        });
        built.map(Arc::new).map_err(|fault| fault.into_error(text))
    }

    fn is_match(&self, name: &str) -> bool {
        CACHE.with_borrow_mut(|cache| self.found_in(&Subject::new(name), cache))
    }

    /// Returns true if the pattern is found in the subject.
    pub(crate) fn found_in(&self, subject: &Subject<'_>, cache: &mut Cache) -> bool {
        match &self.program {
            Program::Always => true,
            Program::Glob(glob) => glob.is_match(subject),
            Program::Steps(steps) => steps.is_match(subject.name),
            Program::Engine(engine) => engine.is_match(subject.name, cache),
        }
    }

    /// Parses the pattern again, as it is searched for.
    pub(crate) fn hir(&self) -> Option<Hir> {
        // The pattern was within the limits when it was compiled.
        let limits = Limits::new().pattern_bytes(usize::MAX).repeat(u32::MAX).nesting(u32::MAX);
        with_stack_for(&self.text, &limits, || parse(&self.text, &limits, self.anchoring)).ok()
    }

    /// Returns true if the pattern may share an automaton with others. Excluded are patterns that can match the empty
    /// string between two bytes of a character, and patterns so large that they are better tested alone.
    pub(crate) fn can_join(&self) -> bool {
        self.consumes && self.engine_bytes() <= JOINABLE_BYTES && syntax::depth_bound(&self.text) <= SHALLOW
    }

    pub(crate) fn class(&self) -> PatternClass {
        match &self.program {
            Program::Always => PatternClass::Always,
            _ if self.window.is_some() => PatternClass::Anchored,
            _ if self.required().is_empty() => PatternClass::LiteralFree,
            Program::Glob(glob) if glob.is_literal() => PatternClass::Literal,
            Program::Glob(_) => PatternClass::Glob,
            Program::Steps(_) | Program::Engine(_) => PatternClass::Filed,
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let window = self.window.as_deref().map_or(0, size_of_val);
        size_of::<Self>() + self.text.len() + self.engine_bytes() + self.required.heap_bytes() + window
    }

    pub(crate) fn window(&self) -> Option<&Window> {
        self.window.as_deref()
    }

    pub(crate) fn engine_bytes(&self) -> usize {
        match &self.program {
            Program::Engine(engine) => engine.heap_bytes(),
            Program::Steps(steps) => steps.heap_bytes(),
            Program::Glob(glob) => glob.heap_bytes(),
            Program::Always => 0,
        }
    }

    pub(crate) fn required(&self) -> Cow<'_, Required> {
        match &self.program {
            Program::Glob(glob) => Cow::Owned(Required::all(glob.texts())),
            _ => Cow::Borrowed(&self.required),
        }
    }
}

impl Program {
    fn of(hir: &Hir, text: &str, limits: &Limits) -> Result<Self, Fault> {
        let properties = hir.properties();
        if properties.minimum_len() == Some(0) && properties.look_set().is_empty() {
            return Ok(Self::Always);
        }
        if let Some(glob) = Glob::of(hir) {
            return Ok(Self::Glob(glob));
        }
        if let Some(steps) = Step::of(hir).filter(|steps| steps.heap_bytes() <= limits.get_nfa_bytes()) {
            return Ok(Self::Steps(steps));
        }
        // Compiling a parsed pattern can fail only because of its size.
        let fault = || Fault::limit(LimitKind::NfaBytes, limits, 0..text.len());
        Engine::of(hir, limits.get_nfa_bytes()).map(Self::Engine).ok_or_else(fault)
    }
}

fn parse(text: &str, limits: &Limits, anchoring: Anchoring) -> Result<Hir, Fault> {
    let hir = syntax::parse(text, limits)?;
    Ok(match anchoring {
        Anchoring::Anywhere => shape::trim(hir),
        Anchoring::Whole => Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]),
    })
}

/// Runs `work`, which recurses as deep as the pattern, on a stack that is deep enough.
fn with_stack_for<T: Send>(
    text: &str,
    limits: &Limits,
    work: impl FnOnce() -> Result<T, Fault> + Send,
) -> Result<T, Fault> {
    let depth = if text.len() > limits.get_pattern_bytes() { 0 } else { syntax::depth_bound(text) };
    if depth <= SHALLOW {
        return work();
    }
    let levels = depth.min(limits.get_nesting() as usize);
    on_a_stack_for(levels, work).unwrap_or_else(|| Err(Fault::limit(LimitKind::Nesting, limits, 0..text.len())))
}

/// Runs `work` on a thread with a stack for that many levels. Returns `None` if the system cannot start a thread.
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
            /// Returns the text from which the pattern was compiled.
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

/// Largest pattern that may share an automaton, in bytes. An automaton for 64 of this size takes some hundred
/// kilobytes.
const JOINABLE_BYTES: usize = 4 << 10;

/// Largest depth that is compiled on the caller's stack.
const SHALLOW: usize = 16;

const BASE_STACK_BYTES: usize = 1 << 20;

/// Stack reserved for each level. The compiler recurses over the tree, up to three nodes for a level. In builds without
/// optimisation, a level was measured to take between 16 and 24 KiB.
const STACK_BYTES_PER_LEVEL: usize = 48 << 10;

#[cfg(test)]
mod tests;
