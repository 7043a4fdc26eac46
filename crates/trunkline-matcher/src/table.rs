//! The table as it is shared.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::index::PatternIndex;
use crate::map::PatternMap;

/// A table that many threads read while one edits it.
///
/// Readers take snapshots and never block, not even while an edit runs. An
/// edit is a transaction: readers see all of it or none.
///
/// An edit takes O(n) for n entries, plus what its closure does; put many
/// changes into one edit. Whoever drops the last reference to an old snapshot
/// pays O(n) for it.
///
/// ```
/// use std::convert::Infallible;
///
/// use trunkline_matcher::{PatternTable, RoutePattern};
///
/// let table = PatternTable::new();
/// let pattern = RoutePattern::new("prod-.*")?;
/// table.edit(|map| map.insert(pattern.clone(), 10, "gateway"))?;
///
/// let before = table.snapshot();
/// let refused = table.edit(|map| {
///     map.remove("prod-.*");
///     map.insert(pattern.clone(), 20, "first")?;
///     map.insert(pattern.clone(), 20, "second")
/// });
/// assert!(refused.is_err());
/// assert_eq!(table.snapshot().get("prod-.*").unwrap().weight(), 10);
///
/// table.edit(|map| Ok::<_, Infallible>(map.remove("prod-.*")))?;
/// assert!(table.snapshot().is_empty());
/// assert_eq!(before.len(), 1, "a snapshot does not change");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternTable<V> {
    current: ArcSwap<PatternIndex<V>>,
    /// Held by the one edit that runs. Guards no data: an edit that panics
    /// leaves `current` as it was, so poison means nothing.
    editing: Mutex<()>,
}

impl<V> PatternTable<V> {
    /// A table without entries.
    pub fn new() -> Self {
        Self::from(PatternMap::new())
    }

    /// The table as it is now. Never blocks.
    pub fn snapshot(&self) -> Arc<PatternIndex<V>> {
        self.current.load_full()
    }

    /// Runs `change` on a copy of the table, and publishes the copy as one new
    /// snapshot if the answer is `Ok`. If it is `Err`, or if `change` panics,
    /// the table stays as it was.
    ///
    /// Edits run one after another. Do not call `edit` on the same table
    /// inside `change`: it would wait for itself.
    pub fn edit<T, E>(&self, change: impl FnOnce(&mut PatternMap<V>) -> Result<T, E>) -> Result<T, E> {
        let _one_at_a_time = self.editing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut map = self.current.load().to_map();
        let answer = change(&mut map)?;
        self.current.store(Arc::new(map.into()));
        Ok(answer)
    }
}

impl<V> From<PatternMap<V>> for PatternTable<V> {
    fn from(map: PatternMap<V>) -> Self {
        Self { current: ArcSwap::from_pointee(map.into()), editing: Mutex::new(()) }
    }
}

impl<V> Default for PatternTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: fmt::Debug> fmt::Debug for PatternTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

#[cfg(test)]
mod tests;
