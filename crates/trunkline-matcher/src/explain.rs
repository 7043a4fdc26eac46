//! How a table looks names up, for people.

use std::fmt;
use std::sync::atomic::Ordering;

use crate::entry::Entry;
use crate::grams::Size;
use crate::group::Group;
use crate::index::PatternIndex;
use crate::matches::NameTooLong;
use crate::store::NONE;
use crate::writer;

/// How the table finds out whether an entry's pattern is in a name, from
/// the cheapest to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PatternClass {
    /// The pattern is found in every name: it is not even looked for.
    Always,
    /// Text: a look-up asks it only of names with a rare piece of that text,
    /// and compares it.
    Literal,
    /// Text with wildcards (`.`, `.*`, classes of a character): the same.
    Glob,
    /// More than that, but with text in it: asked only of names with that text,
    /// and then run.
    Filed,
    /// Without text, but with a byte that every match has: asked in a table of
    /// bits, together with the others of that byte.
    Anchored,
    /// Without either: one of the automata that every look-up runs, or on its
    /// own.
    LiteralFree,
}

/// An entry that matches, and how that was found out.
#[derive(Debug)]
pub struct Explanation<'i, V> {
    /// The entry.
    pub entry: &'i Entry<V>,
    /// How it is looked for.
    pub class: PatternClass,
    /// Pieces of text that a name must contain, letters without their case: all
    /// those of at least one of these lists. None for the last two classes and
    /// the first.
    pub required: Vec<Vec<String>>,
}

/// How many entries of which class a table has, and what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Of each class, how many entries there are; the order is that of
    /// [`PatternClass`].
    pub classes: [usize; 6],
    /// The tables of bits that a look-up may ask.
    pub anchored_groups: usize,
    /// The automata that every look-up runs.
    pub automata: usize,
    /// Patterns that every look-up asks one by one.
    pub alone: usize,
    /// Under how many pieces of text the entries are filed.
    pub buckets: usize,
    /// The most entries under one piece of text.
    pub largest_bucket: usize,
    /// Heap bytes of the patterns, of what leads to them, and of the groups,
    /// approximately: without the values, and what the allocator adds.
    pub heap_bytes: usize,
    /// Above [`TableLimits::literal_free`](crate::TableLimits::literal_free).
    pub has_many_literal_free: bool,
}

impl Stats {
    /// How many entries of this class there are.
    pub fn count(&self, class: PatternClass) -> usize {
        self.classes[class as usize]
    }
}

impl PatternClass {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Always, Self::Literal, Self::Glob, Self::Filed, Self::Anchored, Self::LiteralFree];
}

impl fmt::Display for PatternClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Always => "always",
            Self::Literal => "literal",
            Self::Glob => "glob",
            Self::Filed => "filed",
            Self::Anchored => "anchored",
            Self::LiteralFree => "literal-free",
        })
    }
}

impl<V> PatternIndex<V> {
    /// What [`PatternIndex::matches`] gives, and how each was found.
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

    /// Counts what is in the table. Walks over all of it: O(n).
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { heap_bytes: self.tables.heap_bytes(), ..Stats::default() };
        for slot in writer::slots(&self.store, self.slots, self.generation) {
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
