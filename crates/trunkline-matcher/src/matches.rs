//! Answers, and what a look-up needs besides the table.

use std::borrow::Cow;
use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use crate::engine;
use crate::entry::{Entry, Rank};
use crate::group::{Automaton, Memory};
use crate::index::PatternIndex;
use crate::limits::TableLimits;

/// The name is longer than the table looks up; see
/// [`TableLimits::name_bytes`](crate::TableLimits::name_bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name has {len} bytes, and the limit `name_bytes` of the table is {limit}")]
pub struct NameTooLong {
    /// The bytes of the name.
    pub len: usize,
    /// The limit.
    pub limit: usize,
}

impl NameTooLong {
    pub(crate) fn check(name: &str, limits: &TableLimits) -> Result<(), Self> {
        let (len, limit) = (name.len(), limits.get_name_bytes());
        if len > limit { Err(Self { len, limit }) } else { Ok(()) }
    }
}

/// The entries whose pattern was found, by descending weight, and equal
/// weights by insertion.
#[derive(Debug)]
pub struct Matches<'a, V> {
    index: &'a PatternIndex<V>,
    found: Cow<'a, [u32]>,
    next: usize,
    truncated: bool,
}

impl<'a, V> Matches<'a, V> {
    pub(crate) fn new(index: &'a PatternIndex<V>, found: Cow<'a, [u32]>, truncated: bool) -> Self {
        Self { index, found, next: 0, truncated }
    }

    /// Whether there were more than
    /// [`TableLimits::results`](crate::TableLimits::results), of which only the
    /// first are here.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

impl<'a, V> Iterator for Matches<'a, V> {
    type Item = &'a Entry<V>;

    fn next(&mut self) -> Option<&'a Entry<V>> {
        let at = *self.found.get(self.next)?;
        self.next += 1;
        Some(&self.index.slot(at).entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.found.len() - self.next;
        (left, Some(left))
    }
}

impl<V> ExactSizeIterator for Matches<'_, V> {}

/// Memory that look-ups use again and again, of one thread at a time.
///
/// It serves any number of tables, of whatever values.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) folded: Vec<u8>,
    pub(crate) hits: Vec<u64>,
    pub(crate) row: Vec<u64>,
    pub(crate) candidates: Vec<u32>,
    /// Candidates that need not be asked.
    pub(crate) certain: Vec<u32>,
    pub(crate) engine: engine::Cache,
    pub(crate) found: Vec<u32>,
    pub(crate) truncated: bool,
    ranked: Vec<(Rank, u32)>,
    memories: Vec<Memory>,
    recent: Box<[Recent]>,
}

/// A place in the cache of answers.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    hash: u64,
}

/// The answer to a name, by one snapshot.
#[derive(Clone, Debug, Default)]
struct Recent {
    version: u64,
    hash: u64,
    name: String,
    /// The first of what was found, where most look-ups find all of it.
    few: [u32; Recent::FEW],
    count: usize,
    /// All of it, if it is more than a few.
    many: Vec<u32>,
    truncated: bool,
}

impl Recent {
    const FEW: usize = 4;

    fn found(&self) -> &[u32] {
        self.few.get(..self.count).unwrap_or(&self.many)
    }
}

impl Scratch {
    /// What one reader may keep for groups that are in the table no more, or in other tables.
    const SPARE_MEMORIES: usize = 16;

    /// More would be slower than a look-up: its places are nowhere near the processor.
    const MOST_CACHED: usize = 1 << 20;

    /// Memory for look-ups that are answered anew each time.
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory that also keeps the answers to about so many names, from one to
    /// 1,048,576, at some 100 bytes each and the name, which are taken at once. An edit of the table forgets all of
    /// them: they are kept for one snapshot.
    #[must_use]
    pub fn cached(mut self, names: usize) -> Self {
        self.recent = vec![Recent::default(); names.clamp(1, Self::MOST_CACHED).next_power_of_two()].into();
        self
    }

    pub(crate) fn begin(&mut self) {
        self.found.clear();
        self.truncated = false;
    }

    /// Where in the cache the answer to a name is, or would be. `None` without a cache.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        let mask = self.recent.len().checked_sub(1)?;
        let hash = FxBuildHasher.hash_one(name);
        Some(Place { at: hash as usize & mask, hash })
    }

    /// Whether the answer of a snapshot to a name is in the cache.
    pub(crate) fn knows(&self, place: Place, version: u64, name: &str) -> bool {
        let recent = &self.recent[place.at];
        recent.hash == place.hash && recent.version == version && recent.name == name
    }

    /// The answer in the cache, and whether it was truncated.
    pub(crate) fn recall(&self, place: Place) -> (&[u32], bool) {
        let recent = &self.recent[place.at];
        (recent.found(), recent.truncated)
    }

    pub(crate) fn remember(&mut self, place: Place, version: u64, name: &str) {
        let recent = &mut self.recent[place.at];
        (recent.version, recent.hash, recent.truncated) = (version, place.hash, self.truncated);
        recent.name.clear();
        recent.name.push_str(name);
        recent.count = self.found.len();
        match recent.few.get_mut(..recent.count) {
            Some(few) => few.copy_from_slice(&self.found),
            None => recent.many.clone_from(&self.found),
        }
    }

    /// The memory of the `nth` group, and where to note what it finds.
    pub(crate) fn memory(&mut self, nth: usize, group: &Automaton) -> (&mut Memory, &mut Vec<u32>) {
        if self.memories.get(nth).is_none_or(|memory| !group.owns(memory)) {
            let elsewhere = self.memories.iter().position(|memory| group.owns(memory)).unwrap_or_else(|| {
                self.memories.truncate(nth + Self::SPARE_MEMORIES);
                self.memories.push(group.memory());
                self.memories.len() - 1
            });
            self.memories.swap(nth, elsewhere);
        }
        (&mut self.memories[nth], &mut self.found)
    }

    /// Sorts what was found, and keeps the first `most`.
    pub(crate) fn put_in_order(&mut self, most: usize, rank: impl Fn(u32) -> Rank) {
        if self.found.len() > 1 {
            self.ranked.clear();
            self.ranked.extend(self.found.iter().map(|&at| (rank(at), at)));
            self.ranked.sort_unstable();
            self.found.clear();
            self.found.extend(self.ranked.iter().map(|&(_, at)| at));
        }
        self.truncated = self.found.len() > most;
        self.found.truncate(most);
    }
}
