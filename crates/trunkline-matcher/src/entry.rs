//! Entries of a table, and the error returned when an entry is refused.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::pattern::TablePattern;

/// One pattern with its weight and value. It is shared: a clone is cheap and outlives the table it came from.
pub struct Entry<V>(Arc<Parts<V>>);

struct Parts<V> {
    pattern: TablePattern,
    rank: Rank,
    value: V,
}

/// Position of an entry in the order of answers: by descending weight, and equal weights by insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) weight: Reverse<i64>,
    pub(crate) sequence: u64,
}

impl<V> Entry<V> {
    pub(crate) fn new(pattern: TablePattern, rank: Rank, value: V) -> Self {
        Self(Arc::new(Parts { pattern, rank, value }))
    }

    pub(crate) fn rank(&self) -> Rank {
        self.0.rank
    }

    /// Returns the heap bytes of the entry, without those that the value owns.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Parts<V>>() + 2 * size_of::<usize>()
    }

    /// Returns the pattern.
    pub fn pattern(&self) -> &TablePattern {
        &self.0.pattern
    }

    /// Returns the weight. Entries with a higher weight come first.
    pub fn weight(&self) -> i64 {
        self.0.rank.weight.0
    }

    /// Returns the value.
    pub fn value(&self) -> &V {
        &self.0.value
    }

    /// Returns a number that is higher for every later insertion into the same table.
    pub fn sequence(&self) -> u64 {
        self.0.rank.sequence
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: fmt::Debug> fmt::Debug for Entry<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("pattern", &self.pattern().as_str())
            .field("weight", &self.weight())
            .field("sequence", &self.sequence())
            .field("value", self.value())
            .finish()
    }
}

/// Error returned when an entry was not added. The table was not changed.
///
/// Carries the refused value back.
#[derive(thiserror::Error)]
#[error("the pattern {} {refusal}", crate::error::quoted(.pattern.as_str()))]
pub struct InsertError<V> {
    pub(crate) refusal: Refusal,
    pub(crate) pattern: TablePattern,
    pub(crate) value: V,
}

/// Reason of an [`InsertError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An entry with exactly this pattern is already in the table.
    #[error("is already in the table; remove its entry first, or use another pattern")]
    Taken,
    /// With this pattern, the automata of the table would take more bytes than
    /// [`TableLimits::engine_bytes`](crate::TableLimits::engine_bytes), which is the number given here.
    #[error("would exceed the table's limit `engine_bytes` of {0}; remove other patterns, or raise the limit")]
    EngineBytes(usize),
    /// The table holds some two billion entries.
    #[error("was not added: the table is full")]
    Full,
}

impl<V> InsertError<V> {
    /// Returns the reason.
    pub fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// Returns the pattern that was refused.
    pub fn pattern(&self) -> &TablePattern {
        &self.pattern
    }

    /// Returns the value that was refused.
    pub fn into_value(self) -> V {
        self.value
    }
}

impl<V> fmt::Debug for InsertError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refusal, pattern, .. } = self;
        f.debug_struct("InsertError").field("refusal", refusal).field("pattern", pattern).finish_non_exhaustive()
    }
}
