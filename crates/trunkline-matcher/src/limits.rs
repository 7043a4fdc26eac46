//! The sizes a pattern may have.

use std::fmt;

/// The sizes a pattern may have before it is refused.
///
/// Patterns are operator input, and a few bytes can ask for a great deal of
/// memory: `(\pL\pN?){1000}` is fifteen bytes and 20 MB of automaton. Every limit is
/// always set; a limit can be moved, not removed. A pattern over a limit is
/// refused while it is read or compiled, not after.
///
/// ```
/// use trunkline_matcher::{Limits, RoutePattern};
///
/// let strict = Limits::new().pattern_bytes(64).repeat(10);
/// assert!(RoutePattern::with_limits("a{10}", &strict).is_ok());
/// assert!(RoutePattern::with_limits("a{11}", &strict).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pattern_bytes: usize,
    repeat: u32,
    nesting: u32,
    nfa_bytes: usize,
}

/// Which of the [`Limits`] a pattern went over.
///
/// Its `Display` is the name of the setter in [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitKind {
    /// [`Limits::nesting`].
    Nesting,
    /// [`Limits::nfa_bytes`].
    NfaBytes,
    /// [`Limits::pattern_bytes`].
    PatternBytes,
    /// [`Limits::repeat`].
    Repeat,
}

impl Limits {
    /// The default limits: 4096 bytes of pattern, 1000 repeats, 1000 levels,
    /// 1 MiB of automaton.
    pub const fn new() -> Self {
        Self { pattern_bytes: 4096, repeat: 1000, nesting: 1000, nfa_bytes: 1 << 20 }
    }

    /// The longest pattern text, in bytes. Default 4096: about sixteen times
    /// the longest name a cluster uses.
    pub const fn pattern_bytes(mut self, bytes: usize) -> Self {
        self.pattern_bytes = bytes;
        self
    }

    /// The highest count in `{n}`, `{n,}` and `{n,m}`, and the highest product
    /// of counts inside one another. Default 1000, which is Go's own limit;
    /// above it, patterns are accepted that Go refuses.
    pub const fn repeat(mut self, count: u32) -> Self {
        self.repeat = count;
        self
    }

    /// The number of levels a pattern may have. The innermost character is one
    /// level, and each group and each repetition around it is another. Default
    /// 1000, so that 999 groups may stand inside one another, as in Go.
    ///
    /// Deep patterns are compiled on a thread of their own, whose stack grows
    /// with the depth; values above 10,000 count as 10,000.
    pub const fn nesting(mut self, levels: u32) -> Self {
        self.nesting = if levels > MAX_NESTING { MAX_NESTING } else { levels };
        self
    }

    /// The heap that the compiled form of one pattern may take, in bytes,
    /// approximately. Default 1 MiB, which is also what bounds the time of a
    /// search: its worst case grows with that size times the length of the name.
    /// `(\pL\pN?){1000}`, which Go accepts, needs more.
    pub const fn nfa_bytes(mut self, bytes: usize) -> Self {
        self.nfa_bytes = bytes;
        self
    }

    /// The value set by [`Limits::pattern_bytes`].
    pub const fn get_pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// The value set by [`Limits::repeat`].
    pub const fn get_repeat(&self) -> u32 {
        self.repeat
    }

    /// The value set by [`Limits::nesting`].
    pub const fn get_nesting(&self) -> u32 {
        self.nesting
    }

    /// The value set by [`Limits::nfa_bytes`].
    pub const fn get_nfa_bytes(&self) -> usize {
        self.nfa_bytes
    }

    pub(crate) const fn value_of(&self, kind: LimitKind) -> usize {
        match kind {
            LimitKind::Nesting => self.nesting as usize,
            LimitKind::NfaBytes => self.nfa_bytes,
            LimitKind::PatternBytes => self.pattern_bytes,
            LimitKind::Repeat => self.repeat as usize,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// The sizes a table and its look-ups may have.
///
/// ```
/// use trunkline_matcher::{PatternTable, TableLimits};
///
/// let table: PatternTable<()> = PatternTable::with_limits(TableLimits::new().name_bytes(64));
/// assert!(table.snapshot().matches(&"x".repeat(64)).is_ok());
/// assert!(table.snapshot().matches(&"x".repeat(65)).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableLimits {
    engine_bytes: usize,
    lazy_dfa_bytes: usize,
    literal_free: usize,
    name_bytes: usize,
    results: usize,
}

impl TableLimits {
    /// The defaults: 1 GiB of automata, 1 MiB of cache for each lazy one, a
    /// warning above 200 literal-free patterns, names of 255 bytes, 1024
    /// results.
    pub const fn new() -> Self {
        Self { engine_bytes: 1 << 30, lazy_dfa_bytes: 1 << 20, literal_free: 200, name_bytes: 255, results: 1024 }
    }

    /// The bytes that the automata of all patterns may take together,
    /// approximately. An entry that would go over it is refused. Default
    /// 1 GiB; text with wildcards takes some ten bytes, other patterns a few
    /// hundred as a rule. The lazy automata that several share are not counted.
    pub const fn engine_bytes(mut self, bytes: usize) -> Self {
        self.engine_bytes = bytes;
        self
    }

    /// The bytes that each reader may keep for each group of literal-free
    /// patterns. Default 1 MiB. When that is full too often, the patterns of
    /// the group are asked one by one for the name at hand.
    pub const fn lazy_dfa_bytes(mut self, bytes: usize) -> Self {
        self.lazy_dfa_bytes = bytes;
        self
    }

    /// The number of literal-free patterns above which
    /// [`Stats::has_many_literal_free`](crate::Stats::has_many_literal_free)
    /// says so. Default 200. Each look-up runs all of them.
    pub const fn literal_free(mut self, patterns: usize) -> Self {
        self.literal_free = patterns;
        self
    }

    /// The longest name that is looked up, in bytes. Default 255, as long as an
    /// Erlang atom. Time grows with the length of the name.
    pub const fn name_bytes(mut self, bytes: usize) -> Self {
        self.name_bytes = bytes;
        self
    }

    /// The most entries a look-up gives; of more, the first in order. Default
    /// 1024.
    pub const fn results(mut self, entries: usize) -> Self {
        self.results = entries;
        self
    }

    /// The value set by [`TableLimits::engine_bytes`].
    pub const fn get_engine_bytes(&self) -> usize {
        self.engine_bytes
    }

    /// The value set by [`TableLimits::lazy_dfa_bytes`].
    pub const fn get_lazy_dfa_bytes(&self) -> usize {
        self.lazy_dfa_bytes
    }

    /// The value set by [`TableLimits::literal_free`].
    pub const fn get_literal_free(&self) -> usize {
        self.literal_free
    }

    /// The value set by [`TableLimits::name_bytes`].
    pub const fn get_name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// The value set by [`TableLimits::results`].
    pub const fn get_results(&self) -> usize {
        self.results
    }
}

impl Default for TableLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitKind::Nesting => "nesting",
            LimitKind::NfaBytes => "nfa_bytes",
            LimitKind::PatternBytes => "pattern_bytes",
            LimitKind::Repeat => "repeat",
        })
    }
}

impl LimitKind {
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            LimitKind::Nesting => "levels of groups and repetitions inside one another",
            LimitKind::NfaBytes => "bytes of compiled automaton",
            LimitKind::PatternBytes => "bytes of pattern text",
            LimitKind::Repeat => "repeats, counts inside one another multiplied",
        }
    }
}

/// Bounds the stack that compiling asks for.
const MAX_NESTING: u32 = 10_000;
