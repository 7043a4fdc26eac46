//! The table as it is edited.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::index::PatternIndex;
use crate::pattern::RoutePattern;

/// The edit side of a table: patterns, each with a weight and a value.
///
/// No two entries have the same pattern text. Entries are ordered by
/// descending weight, and equal weights by insertion.
///
/// Inserting, removing and getting take O(log n). A clone takes O(n) and
/// shares the entries, so `V` need not be `Clone`.
///
/// ```
/// use trunkline_matcher::{PatternMap, RoutePattern};
///
/// let mut map = PatternMap::new();
/// map.insert(RoutePattern::new("prod-.*")?, 10, "gateway")?;
/// map.insert(RoutePattern::new("prod-db")?, 50, "direct")?;
///
/// let taken = map.insert(RoutePattern::new("prod-db")?, 99, "other").unwrap_err();
/// assert_eq!(taken.into_value(), "other");
///
/// let values: Vec<_> = map.iter().map(|entry| *entry.value()).collect();
/// assert_eq!(values, ["direct", "gateway"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternMap<V> {
    ordered: BTreeMap<Rank, Entry<V>>,
    by_text: BTreeMap<RoutePattern, Rank>,
    next_sequence: u64,
}

/// One pattern with its weight and value; shared, so a clone is cheap and
/// outlives the table it came from.
pub struct Entry<V>(Arc<EntryParts<V>>);

/// The pattern is in the map already; the map was not changed.
///
/// Carries the refused value back.
#[derive(thiserror::Error)]
#[error("the pattern `{pattern}` is taken")]
pub struct Taken<V> {
    pattern: RoutePattern,
    value: V,
}

struct EntryParts<V> {
    pattern: RoutePattern,
    rank: Rank,
    value: V,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    weight: Reverse<i64>,
    sequence: u64,
}

impl<V> PatternMap<V> {
    /// A map without entries.
    pub const fn new() -> Self {
        Self { ordered: BTreeMap::new(), by_text: BTreeMap::new(), next_sequence: 0 }
    }

    /// Adds an entry behind all others of the same weight.
    ///
    /// If the text of the pattern is in the map already, nothing changes,
    /// whatever the weight, and the value comes back in the error.
    pub fn insert(&mut self, pattern: RoutePattern, weight: i64, value: V) -> Result<(), Taken<V>> {
        if self.by_text.contains_key(&pattern) {
            return Err(Taken { pattern, value });
        }
        let rank = Rank { weight: Reverse(weight), sequence: self.next_sequence };
        self.next_sequence += 1;
        self.by_text.insert(pattern.clone(), rank);
        let parts = EntryParts { pattern, rank, value };
        self.ordered.insert(rank, Entry(Arc::new(parts)));
        Ok(())
    }

    /// Takes out the entry whose pattern has exactly this text. The text is
    /// not matched against anything.
    pub fn remove(&mut self, text: &str) -> Option<Entry<V>> {
        let rank = self.by_text.remove(text)?;
        self.ordered.remove(&rank)
    }

    /// The entry whose pattern has exactly this text.
    pub fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.ordered.get(self.by_text.get(text)?)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.ordered.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// All entries, by descending weight, and equal weights by insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<V>> {
        self.ordered.values()
    }

    /// An immutable snapshot of the map as it is now. O(n).
    pub fn index(&self) -> PatternIndex<V> {
        PatternIndex::from(self.clone())
    }
}

impl<V> Entry<V> {
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

    /// A number that is higher for every later insertion into the same map.
    pub fn sequence(&self) -> u64 {
        self.0.rank.sequence
    }
}

impl<V> Taken<V> {
    /// The pattern that is in the map already.
    pub fn pattern(&self) -> &RoutePattern {
        &self.pattern
    }

    /// The value that was refused.
    pub fn into_value(self) -> V {
        self.value
    }
}

impl<V> Clone for PatternMap<V> {
    fn clone(&self) -> Self {
        Self { ordered: self.ordered.clone(), by_text: self.by_text.clone(), next_sequence: self.next_sequence }
    }
}

impl<V> Default for PatternMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for PatternMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
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

impl<V> fmt::Debug for Taken<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
