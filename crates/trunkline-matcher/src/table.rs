//! The table that threads share, its edits, and its readers.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Cache};

use crate::entry::{Entry, InsertError};
use crate::index::{PatternIndex, in_order};
use crate::limits::TableLimits;
use crate::matches::{Matches, NameTooLong, Scratch};
use crate::pattern::TablePattern;
use crate::writer::Writer;

/// A table that many threads read while one edits it.
///
/// An entry's pattern is a [`RoutePattern`](crate::RoutePattern), found anywhere in a name, or an
/// [`AccessPattern`](crate::AccessPattern), which must match the whole name. The identity of an entry is the text of its
/// pattern: a table holds a text once, as either of the two.
///
/// Readers never block, not even while an edit runs. An edit is a transaction: readers see all of its changes or none.
/// An edit touches only the entries that it changes, however large the table is. Now and then an edit also grows a hash
/// table, or rebuilds the table without the removed entries.
///
/// A removed entry is dropped at such a rebuild, once the last snapshot that contains it is gone. A reader holds the
/// snapshot of its last look-up.
///
/// ```
/// use trunkline_matcher::{PatternTable, RoutePattern};
///
/// let table = PatternTable::new();
/// let pattern = RoutePattern::new("prod-.*")?;
/// table.insert(pattern.clone(), 10, "gateway")?;
///
/// let before = table.snapshot();
/// let refused = table.edit(|edit| {
///     edit.remove("prod-.*");
///     edit.insert(pattern.clone(), 20, "first")?;
///     edit.insert(pattern.clone(), 20, "second")
/// });
/// assert!(refused.is_err());
/// assert_eq!(table.snapshot().get("prod-.*").unwrap().weight(), 10);
///
/// table.remove("prod-.*");
/// assert!(table.snapshot().is_empty());
/// assert_eq!(before.len(), 1, "a snapshot does not change");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternTable<V> {
    current: ArcSwap<PatternIndex<V>>,
    writer: Mutex<Writer<V>>,
}

/// A table during an edit; see [`PatternTable::edit`].
pub struct TableEdit<'t, V> {
    writer: &'t mut Writer<V>,
}

/// Reader for one thread: looks names up in the table as it is at each look-up, with scratch memory of its own.
///
/// ```
/// use trunkline_matcher::{PatternTable, RoutePattern};
///
/// let table = PatternTable::new();
/// let mut reader = table.reader().cached(4096);
/// table.insert(RoutePattern::new("^prod-")?, 10, "gateway")?;
/// let found: Vec<_> = reader.matches("prod-db@eu")?.map(|entry| *entry.value()).collect();
/// assert_eq!(found, ["gateway"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternReader<'t, V> {
    current: Cache<&'t ArcSwap<PatternIndex<V>>, Arc<PatternIndex<V>>>,
    scratch: Scratch,
}

impl<V> PatternTable<V> {
    /// Returns an empty table with the default limits.
    pub fn new() -> Self {
        Self::with_limits(TableLimits::new())
    }

    /// Returns an empty table with the given limits.
    pub fn with_limits(limits: TableLimits) -> Self {
        let mut writer = Writer::new(limits);
        Self { current: ArcSwap::from_pointee(writer.index()), writer: Mutex::new(writer) }
    }

    /// Returns the current table. Never blocks.
    pub fn snapshot(&self) -> Arc<PatternIndex<V>> {
        self.current.load_full()
    }

    /// Returns a reader that follows the table, for the hot path.
    pub fn reader(&self) -> PatternReader<'_, V> {
        PatternReader { current: Cache::new(&self.current), scratch: Scratch::new() }
    }

    /// Runs `change` on the table and, if it returns `Ok`, publishes the changes as one new snapshot. If it returns
    /// `Err` or panics, the table stays unchanged.
    ///
    /// Edits run one after another. Do not call `edit` on the same table inside `change`: the call would deadlock.
    ///
    /// # Errors
    /// The error that `change` returned.
    pub fn edit<T, E>(&self, change: impl FnOnce(&mut TableEdit<'_, V>) -> Result<T, E>) -> Result<T, E> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut editing = Editing { writer: Some(writer), current: &self.current };
        let answer = change(&mut TableEdit { writer: editing.writer() })?;
        if let Some(index) = editing.writer().publish() {
            editing.replace(index);
        }
        Ok(answer)
    }

    /// Adds an entry after all others of the same weight, as an edit of its own.
    ///
    /// # Errors
    /// [`InsertError`]; nothing changed.
    pub fn insert(&self, pattern: impl Into<TablePattern>, weight: i64, value: V) -> Result<(), InsertError<V>> {
        self.edit(|edit| edit.insert(pattern, weight, value))
    }

    /// Removes the entry whose pattern has exactly this text, as an edit of its own.
    pub fn remove(&self, text: &str) -> Option<Entry<V>> {
        self.edit(|edit| edit.remove(text).ok_or(())).ok()
    }
}

/// Guard of an edit. It undoes unpublished changes, also when the edit panics.
struct Editing<'t, V> {
    /// The lock on the writer, until the edit is over.
    writer: Option<MutexGuard<'t, Writer<V>>>,
    current: &'t ArcSwap<PatternIndex<V>>,
}

impl<V> Editing<'_, V> {
    fn writer(&mut self) -> &mut Writer<V> {
        self.writer.as_deref_mut().expect("the edit is not over")
    }

    /// Ends the edit with this snapshot. The old snapshot, and with it the removed values, is dropped after the lock is
    /// released, since the destructor of a value may do anything, including another edit.
    fn replace(&mut self, index: PatternIndex<V>) {
        let old = self.current.swap(Arc::new(index));
        self.writer = None;
        drop(old);
    }
}

impl<V> Drop for Editing<'_, V> {
    fn drop(&mut self) {
        if let Some(index) = self.writer.as_deref_mut().and_then(Writer::roll_back) {
            self.replace(index);
        }
    }
}

impl<V> TableEdit<'_, V> {
    /// Returns the same edit, for a type of the caller's that wraps it by value.
    pub fn reborrow(&mut self) -> TableEdit<'_, V> {
        TableEdit { writer: self.writer }
    }

    /// Adds an entry after all others of the same weight.
    ///
    /// If the text of the pattern is already in the table, nothing changes, whatever the weight, and whether the name is
    /// searched or matched whole.
    ///
    /// # Errors
    /// [`InsertError`], with the value; the table under edit is unchanged.
    pub fn insert(&mut self, pattern: impl Into<TablePattern>, weight: i64, value: V) -> Result<(), InsertError<V>> {
        self.writer.insert(pattern.into(), weight, value)
    }

    /// Removes the entry whose pattern has exactly this text. The text is compared, not matched.
    pub fn remove(&mut self, text: &str) -> Option<Entry<V>> {
        self.writer.remove(text)
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        let texts: Vec<_> = self.writer.entries().map(|entry| entry.pattern().clone()).collect();
        for pattern in texts {
            self.writer.remove(pattern.as_str());
        }
    }

    /// Returns the entry whose pattern has exactly this text.
    pub fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.writer.get(text)
    }

    /// Returns all entries, by descending weight, and equal weights by insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<V>> {
        in_order(self.writer.entries())
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V> PatternReader<'_, V> {
    /// Adds a cache of the answers to about the given number of names; see [`Scratch::cached`].
    #[must_use]
    pub fn cached(mut self, names: usize) -> Self {
        self.scratch = self.scratch.cached(names);
        self
    }

    /// Returns the entries whose pattern matches `name`, by descending weight, and equal weights by insertion; see
    /// [`PatternIndex::matches`].
    ///
    /// # Errors
    /// [`NameTooLong`], see [`TableLimits::name_bytes`].
    pub fn matches(&mut self, name: &str) -> Result<Matches<'_, V>, NameTooLong> {
        self.current.load().matches_with(name, &mut self.scratch)
    }
}

impl<V> Default for PatternTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints the number of entries, not the entries: a table may have a million.
impl<V> fmt::Debug for PatternTable<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatternTable").field("len", &self.snapshot().len()).finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for TableEdit<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableEdit").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for PatternReader<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatternReader").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
