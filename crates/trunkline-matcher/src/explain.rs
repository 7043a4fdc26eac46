//! Explanations of look-ups, and statistics of a table.

use std::sync::atomic::Ordering;

use crate::entry::Entry;
use crate::grams::Size;
use crate::group::Group;
use crate::index::PatternIndex;
use crate::matches::NameTooLong;
use crate::pattern_class::PatternClass;
use crate::store::NONE;

/// Entry that matches, with the method by which it was found.
#[derive(Debug)]
pub struct Explanation<'i, V> {
    /// The entry.
    pub entry: &'i Entry<V>,
    /// Method by which the pattern is searched for.
    pub class: PatternClass,
    /// Pieces of text that a name must contain, with letter case ignored: all pieces of at least one of these lists.
    /// Empty for [`PatternClass::Always`], [`PatternClass::Anchored`] and [`PatternClass::LiteralFree`].
    pub required: Vec<Vec<String>>,
}

/// Number of entries of each class in a table, and the memory that the table takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of entries of each class, in the order of [`PatternClass`].
    pub classes: [usize; 6],
    /// Number of tables of bits that a look-up may use.
    pub anchored_groups: usize,
    /// Number of automata that every look-up runs.
    pub automata: usize,
    /// Number of patterns that every look-up tests one by one.
    pub alone: usize,
    /// Number of pieces of text that entries are filed under.
    pub buckets: usize,
    /// Largest number of entries under one piece of text.
    pub largest_bucket: usize,
    /// Approximate heap bytes of the patterns, the tables that lead to them, and the groups, without the values and the
    /// overhead of the allocator.
    pub heap_bytes: usize,
    /// True if the table has more literal-free patterns than
    /// [`TableLimits::literal_free`](crate::TableLimits::literal_free).
    pub has_many_literal_free: bool,
}

impl Stats {
    /// Returns the number of entries of this class.
    pub fn count(&self, class: PatternClass) -> usize {
        self.classes[class as usize]
    }
}

impl<V> PatternIndex<V> {
    /// Returns the entries that [`PatternIndex::matches`] gives, each with the method by which it was found.
    ///
    /// # Errors
    /// [`NameTooLong`], see [`TableLimits::name_bytes`](crate::TableLimits::name_bytes).
    pub fn explain(&self, name: &str) -> Result<Vec<Explanation<'_, V>>, NameTooLong> {
        let text = |run: &[u8]| String::from_utf8_lossy(run).into_owned();
        let explained = self.matches(name)?.map(|entry| {
            let compiled = entry.pattern().compiled();
            let required = compiled.required().ways().map(|runs| runs.map(text).collect()).collect();
            Explanation { entry, class: compiled.class(), required }
        });
        Ok(explained.collect())
    }

    /// Counts the contents of the table. Visits all of it: O(n).
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { heap_bytes: self.tables.heap_bytes(), ..Stats::default() };
        for slot in self.store.live(self.slots, self.generation) {
            let compiled = slot.entry.pattern().compiled();
            stats.classes[compiled.class() as usize] += 1;
            stats.heap_bytes += slot.heap_bytes() + compiled.heap_bytes();
        }
        stats.alone = self.loose.iter().filter(|&&at| self.slot(at).is_in(self.generation)).count();
        for group in &*self.groups {
            stats.heap_bytes += group.heap_bytes();
            match &**group {
                Group::Anchored(_) => stats.anchored_groups += 1,
                Group::Automaton(_) => stats.automata += 1,
            }
        }
        for size in Size::ALL {
            for first in self.tables.grams(size).firsts() {
                let mut length = 0;
                let mut at = first;
                while at != NONE {
                    let slot = self.slot(at);
                    length += usize::from(self.slot(slot.first).is_in(self.generation));
                    at = slot.next.load(Ordering::Acquire);
                }
                stats.buckets += usize::from(length > 0);
                stats.largest_bucket = stats.largest_bucket.max(length);
            }
        }
        stats.has_many_literal_free = stats.count(PatternClass::LiteralFree) > self.limits.get_literal_free();
        stats
    }
}
