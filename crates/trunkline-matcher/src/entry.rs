//! What is in a table.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use crate::pattern::RoutePattern;

/// One pattern with its weight and value; shared, so a clone is cheap and
/// outlives the table it came from.
pub struct Entry<V>(Arc<Parts<V>>);

struct Parts<V> {
    pattern: RoutePattern,
    rank: Rank,
    value: V,
}

/// The order of entries: by descending weight, and equal weights by insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) weight: Reverse<i64>,
    pub(crate) sequence: u64,
}

impl<V> Entry<V> {
    pub(crate) fn new(pattern: RoutePattern, rank: Rank, value: V) -> Self {
        Self(Arc::new(Parts { pattern, rank, value }))
    }

    pub(crate) fn rank(&self) -> Rank {
        self.0.rank
    }

    /// Without the value's own.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Parts<V>>() + 2 * size_of::<usize>()
    }

    /// The pattern.
    pub fn pattern(&self) -> &RoutePattern {
        &self.0.pattern
    }

    /// The weight; higher ones come first.
    pub fn weight(&self) -> i64 {
        self.0.rank.weight.0
    }

    /// The value.
    pub fn value(&self) -> &V {
        &self.0.value
    }

    /// A number that is higher for every later insertion into the same table.
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

/// An entry was not added; the table was not changed.
///
/// Carries the refused value back.
#[derive(thiserror::Error)]
#[error("the pattern {} {refusal}", crate::error::quoted(.pattern.as_str()))]
pub struct InsertError<V> {
    pub(crate) refusal: Refusal,
    pub(crate) pattern: RoutePattern,
    pub(crate) value: V,
}

/// The reason of an [`InsertError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An entry with exactly this pattern is in the table.
    #[error("is taken; remove its entry first, or use another pattern")]
    Taken,
    /// With this one, the automata of the table would take more bytes than
    /// [`TableLimits::engine_bytes`](crate::TableLimits::engine_bytes), which is the number here.
    #[error("would take the table over its limit `engine_bytes` of {0}; remove others, or raise the limit")]
    EngineBytes(usize),
    /// There are some two billion entries.
    #[error("has no place: the table is full")]
    Full,
}

impl<V> InsertError<V> {
    /// Why it was refused.
    pub fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// The pattern that was refused.
    pub fn pattern(&self) -> &RoutePattern {
        &self.pattern
    }

    /// The value that was refused.
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
