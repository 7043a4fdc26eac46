//! The table as it is read.

use std::fmt;

use crate::map::{Entry, PatternMap};

/// An immutable snapshot of a table.
///
/// ```
/// use trunkline_matcher::{PatternMap, RoutePattern};
///
/// let mut map = PatternMap::new();
/// for (pattern, weight) in [("prod-.*", 10), ("test-.*", 10), ("@example.com$", 50)] {
///     map.insert(RoutePattern::new(pattern)?, weight, ())?;
/// }
/// let index = map.index();
/// let found: Vec<_> = index
///     .matches("prod-db@example.com")
///     .map(|entry| entry.pattern().as_str())
///     .collect();
/// assert_eq!(found, ["@example.com$", "prod-.*"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternIndex<V> {
    map: PatternMap<V>,
}

impl<V> PatternIndex<V> {
    /// The entries whose pattern is found in `name`, by descending weight, and
    /// equal weights by insertion.
    ///
    /// Lazy: each step runs the patterns up to the next match. All of them
    /// together run every pattern once.
    pub fn matches(&self, name: &str) -> impl Iterator<Item = &Entry<V>> {
        self.map.iter().filter(move |entry| entry.pattern().is_match(name))
    }

    /// The entry whose pattern has exactly this text.
    pub fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.map.get(text)
    }

    /// All entries, by descending weight, and equal weights by insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<V>> {
        self.map.iter()
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// An edit side that starts from this snapshot. O(n).
    pub fn to_map(&self) -> PatternMap<V> {
        self.map.clone()
    }
}

impl<V> From<PatternMap<V>> for PatternIndex<V> {
    fn from(map: PatternMap<V>) -> Self {
        Self { map }
    }
}

impl<V> Default for PatternIndex<V> {
    fn default() -> Self {
        Self::from(PatternMap::new())
    }
}

impl<V: fmt::Debug> fmt::Debug for PatternIndex<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}
