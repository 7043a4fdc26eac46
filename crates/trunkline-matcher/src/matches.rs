//! Answers of look-ups, and the memory that look-ups use.

use std::borrow::Cow;
use std::hash::BuildHasher;

use rustc_hash::FxBuildHasher;

use crate::engine;
use crate::entry::{Entry, Rank};
use crate::group::{Automaton, Memory};
use crate::index::PatternIndex;
use crate::limits::TableLimits;

/// Error returned for a name that is longer than the table's limit; see
/// [`TableLimits::name_bytes`](crate::TableLimits::name_bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name has {len} bytes, and the limit `name_bytes` of the table is {limit}")]
pub struct NameTooLong {
    /// Length of the name, in bytes.
    pub len: usize,
    /// The limit, in bytes.
    pub limit: usize,
}

impl NameTooLong {
    pub(crate) fn check(name: &str, limits: &TableLimits) -> Result<(), Self> {
        let (len, limit) = (name.len(), limits.get_name_bytes());
        if len > limit { Err(Self { len, limit }) } else { Ok(()) }
    }
}

/// Iterator over the entries whose pattern matches, by descending weight, and equal weights by insertion.
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

    /// Returns true if more entries matched than [`TableLimits::results`](crate::TableLimits::results) allows. Only the
    /// first ones are returned then.
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

/// Memory that look-ups reuse. It serves one thread at a time.
///
/// The same memory serves any number of tables, with values of any type.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) folded: Vec<u8>,
    pub(crate) hits: Vec<u64>,
    pub(crate) row: Vec<u64>,
    pub(crate) candidates: Vec<u32>,
    /// Candidates that certainly match and need not be tested.
    pub(crate) certain: Vec<u32>,
    pub(crate) engine: engine::Cache,
    pub(crate) found: Vec<u32>,
    pub(crate) truncated: bool,
    ranked: Vec<(Rank, u32)>,
    memories: Vec<Memory>,
    recent: Box<[Recent]>,
}

/// Place in the cache of answers.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    hash: u64,
}

/// Answer of one snapshot for one name.
#[derive(Clone, Debug, Default)]
struct Recent {
    version: u64,
    hash: u64,
    name: String,
    /// The first slots that were found. For most look-ups these are all of them.
    few: [u32; Recent::FEW],
    count: usize,
    /// All slots that were found, if they are more than [`Recent::FEW`].
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
    /// Most memories that one reader keeps for groups of other tables, or for groups that were removed.
    const SPARE_MEMORIES: usize = 16;

    /// Most places of the cache. A larger cache would be slower than a look-up, since its places are not in the
    /// processor's cache.
    const MOST_CACHED: usize = 1 << 20;

    /// Returns memory without a cache of answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns memory with a cache of answers for about the given number of names, from one to 1,048,576. Each takes
    /// some 100 bytes plus the name, and the memory is allocated at once. Answers are kept for one snapshot: an edit of
    /// the table discards all of them.
    #[must_use]
    pub fn cached(mut self, names: usize) -> Self {
        self.recent = vec![Recent::default(); names.clamp(1, Self::MOST_CACHED).next_power_of_two()].into();
        self
    }

    pub(crate) fn begin(&mut self) {
        self.found.clear();
        self.truncated = false;
    }

    /// Returns the place in the cache for the answer to a name, or `None` without a cache.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        let mask = self.recent.len().checked_sub(1)?;
        let hash = FxBuildHasher.hash_one(name);
        Some(Place { at: hash as usize & mask, hash })
    }

    /// Returns true if the answer of the given snapshot to the name is in the cache.
    pub(crate) fn knows(&self, place: Place, version: u64, name: &str) -> bool {
        let recent = &self.recent[place.at];
        recent.hash == place.hash && recent.version == version && recent.name == name
    }

    /// Returns the answer in the cache, and whether it was truncated.
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

    /// Returns the memory of the `nth` group, and the list of the entries that it finds.
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

    /// Sorts the slots that were found, and keeps the first `most`.
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
