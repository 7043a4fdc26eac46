//! Size limits of patterns and tables.

use std::fmt;

/// Size limits of a pattern. A pattern over a limit is refused.
///
/// Patterns are operator input, and a few bytes can ask for a great deal of memory: `(\pL\pN?){1000}` is fifteen bytes
/// and 20 MB of automaton. Every limit is always set: it can be changed, but not removed. A pattern over a limit is
/// refused while it is read or compiled, not afterwards.
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

/// Limit of [`Limits`] that a pattern exceeded.
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
    /// Returns the default limits: 4096 bytes of pattern, 1000 repeats, 1000 levels, 1 MiB of automaton.
    pub const fn new() -> Self {
        Self { pattern_bytes: 4096, repeat: 1000, nesting: 1000, nfa_bytes: 1 << 20 }
    }

    /// Sets the length of the longest pattern text, in bytes. Default 4096: about sixteen times the longest name in a
    /// cluster.
    pub const fn pattern_bytes(mut self, bytes: usize) -> Self {
        self.pattern_bytes = bytes;
        self
    }

    /// Sets the highest count in `{n}`, `{n,}` and `{n,m}`, and the highest product of nested counts. Default 1000,
    /// which is Go's own limit; with a higher value, patterns are accepted that Go refuses.
    pub const fn repeat(mut self, count: u32) -> Self {
        self.repeat = count;
        self
    }

    /// Sets the number of levels that a pattern may have. The innermost character is one level, and each group and each
    /// repetition around it is another. Default 1000, so that 999 groups may be nested, as in Go.
    ///
    /// Deep patterns are compiled on a thread of their own, whose stack grows with the depth; values above 10,000 count
    /// as 10,000.
    pub const fn nesting(mut self, levels: u32) -> Self {
        self.nesting = if levels > MAX_NESTING { MAX_NESTING } else { levels };
        self
    }

    /// Sets the approximate heap size, in bytes, of the compiled form of one pattern. Default 1 MiB. The limit also
    /// bounds the time of a search: its worst case grows with that size times the length of the name.
    /// `(\pL\pN?){1000}`, which Go accepts, needs more.
    pub const fn nfa_bytes(mut self, bytes: usize) -> Self {
        self.nfa_bytes = bytes;
        self
    }

    /// Returns the value set by [`Limits::pattern_bytes`].
    pub const fn get_pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Returns the value set by [`Limits::repeat`].
    pub const fn get_repeat(&self) -> u32 {
        self.repeat
    }

    /// Returns the value set by [`Limits::nesting`].
    pub const fn get_nesting(&self) -> u32 {
        self.nesting
    }

    /// Returns the value set by [`Limits::nfa_bytes`].
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

/// Size limits of a table and its look-ups.
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
    /// Returns the default limits: 1 GiB of automata, 1 MiB of cache for each lazy automaton, a warning above 200
    /// literal-free patterns, names of 255 bytes, 1024 results.
    pub const fn new() -> Self {
        Self { engine_bytes: 1 << 30, lazy_dfa_bytes: 1 << 20, literal_free: 200, name_bytes: 255, results: 1024 }
    }

    /// Sets the approximate number of bytes that the automata of all patterns may take together. An entry that would
    /// exceed it is refused. Default 1 GiB. Text with wildcards takes some ten bytes, other patterns usually a few
    /// hundred. The lazy automata that several patterns share are not counted.
    pub const fn engine_bytes(mut self, bytes: usize) -> Self {
        self.engine_bytes = bytes;
        self
    }

    /// Sets the number of bytes that each reader may keep for each group of literal-free patterns. Default 1 MiB. When
    /// this memory fills up too often, the patterns of the group are tested one by one for the current name.
    pub const fn lazy_dfa_bytes(mut self, bytes: usize) -> Self {
        self.lazy_dfa_bytes = bytes;
        self
    }

    /// Sets the number of literal-free patterns above which
    /// [`Stats::has_many_literal_free`](crate::Stats::has_many_literal_free) is true. Default 200. Each look-up runs
    /// all of these patterns.
    pub const fn literal_free(mut self, patterns: usize) -> Self {
        self.literal_free = patterns;
        self
    }

    /// Sets the length of the longest name that is looked up, in bytes. Default 255, the limit of an Erlang atom. The
    /// time of a look-up grows with the length of the name.
    pub const fn name_bytes(mut self, bytes: usize) -> Self {
        self.name_bytes = bytes;
        self
    }

    /// Sets the most entries that a look-up returns. If more match, it returns the first in order. Default 1024.
    pub const fn results(mut self, entries: usize) -> Self {
        self.results = entries;
        self
    }

    /// Returns the value set by [`TableLimits::engine_bytes`].
    pub const fn get_engine_bytes(&self) -> usize {
        self.engine_bytes
    }

    /// Returns the value set by [`TableLimits::lazy_dfa_bytes`].
    pub const fn get_lazy_dfa_bytes(&self) -> usize {
        self.lazy_dfa_bytes
    }

    /// Returns the value set by [`TableLimits::literal_free`].
    pub const fn get_literal_free(&self) -> usize {
        self.literal_free
    }

    /// Returns the value set by [`TableLimits::name_bytes`].
    pub const fn get_name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// Returns the value set by [`TableLimits::results`].
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

/// Highest nesting that can be set. It bounds the stack that compiling needs.
const MAX_NESTING: u32 = 10_000;
