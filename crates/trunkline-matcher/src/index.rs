//! Snapshots of a table, and the look-up.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::Entry;
use crate::fold::{self, Subject};
use crate::grams::{PADDING, Signature, Size, hashes};
use crate::group::Group;
use crate::limits::TableLimits;
use crate::matches::{Matches, NameTooLong, Scratch};
use crate::store::{NONE, Slot, Store};
use crate::tables::Tables;

/// An immutable snapshot of a table.
///
/// ```
/// use trunkline_matcher::{PatternTable, RoutePattern};
///
/// let table = PatternTable::new();
/// for (pattern, weight) in [("prod-.*", 10), ("test-.*", 10), ("@example.com$", 50)] {
///     table.insert(RoutePattern::new(pattern)?, weight, ())?;
/// }
/// let index = table.snapshot();
/// let found: Vec<_> = index
///     .matches("prod-db@example.com")?
///     .map(|entry| entry.pattern().as_str())
///     .collect();
/// assert_eq!(found, ["@example.com$", "prod-.*"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PatternIndex<V> {
    /// Identity of the snapshot, unique among the snapshots of all tables.
    version: u64,
    pub(crate) store: Arc<Store<V>>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) groups: Arc<Vec<Arc<Group>>>,
    /// Entries that are tested one by one.
    pub(crate) loose: Arc<Vec<u32>>,
    pub(crate) generation: u64,
    pub(crate) slots: u32,
    len: usize,
    pub(crate) limits: TableLimits,
    /// Token that tells the writer that the generation still has a snapshot.
    _token: Arc<()>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<V> PatternIndex<V> {
    #[expect(clippy::too_many_arguments, reason = "the fields, from the one who has them")]
    pub(crate) fn new(
        store: Arc<Store<V>>,
        tables: Arc<Tables>,
        groups: Arc<Vec<Arc<Group>>>,
        loose: Arc<Vec<u32>>,
        generation: u64,
        slots: u32,
        len: usize,
        limits: TableLimits,
        token: Arc<()>,
    ) -> Self {
        static VERSION: AtomicU64 = AtomicU64::new(1);
        let version = VERSION.fetch_add(1, Ordering::Relaxed);
        Self { version, store, tables, groups, loose, generation, slots, len, limits, _token: token }
    }

    /// Returns the entries whose pattern matches `name`, by descending weight, and equal weights by insertion: a
    /// [`RoutePattern`](crate::RoutePattern) anywhere in it, an [`AccessPattern`](crate::AccessPattern) all of it.
    ///
    /// For many look-ups use [`PatternTable::reader`](crate::PatternTable::reader) or [`PatternIndex::matches_with`]:
    /// this method uses scratch memory of the thread, and allocates its answer.
    ///
    /// # Errors
    /// [`NameTooLong`], see [`TableLimits::name_bytes`].
    pub fn matches(&self, name: &str) -> Result<Matches<'_, V>, NameTooLong> {
        SCRATCH.with_borrow_mut(|scratch| {
            let (found, truncated) = self.answer(name, scratch)?;
            Ok(Matches::new(self, Cow::Owned(found.to_vec()), truncated))
        })
    }

    /// Returns the same entries as [`PatternIndex::matches`], using the caller's scratch memory.
    ///
    /// # Errors
    /// [`NameTooLong`], see [`TableLimits::name_bytes`].
    pub fn matches_with<'s>(&'s self, name: &str, scratch: &'s mut Scratch) -> Result<Matches<'s, V>, NameTooLong> {
        let (found, truncated) = self.answer(name, scratch)?;
        Ok(Matches::new(self, Cow::Borrowed(found), truncated))
    }

    /// Returns the slots of the entries that are found, in order, and whether the answer was truncated.
    fn answer<'s>(&self, name: &str, scratch: &'s mut Scratch) -> Result<(&'s [u32], bool), NameTooLong> {
        NameTooLong::check(name, &self.limits)?;
        let place = scratch.place(name);
        if let Some(place) = place
            && scratch.knows(place, self.version, name)
        {
            return Ok(scratch.recall(place));
        }
        self.look_up(name, scratch);
        if let Some(place) = place {
            scratch.remember(place, self.version, name);
        }
        Ok((&scratch.found, scratch.truncated))
    }

    /// Stores the slots of the entries that are found in `scratch.found`, in order.
    fn look_up(&self, name: &str, scratch: &mut Scratch) {
        let subject = Subject::new(name);
        scratch.begin();
        self.find_filed(&subject, scratch);
        for &at in &*self.loose {
            self.ask(at, &subject, scratch);
        }
        let mut automata = 0;
        for group in &*self.groups {
            match &**group {
                Group::Anchored(group) => {
                    let (candidates, certain) = (&mut scratch.candidates, &mut scratch.certain);
                    group.search(name.as_bytes(), &mut scratch.row, |at, is_certain| {
                        if is_certain { certain.push(at) } else { candidates.push(at) }
                    });
                }
                Group::Automaton(automaton) => {
                    let (memory, found) = scratch.memory(automata, automaton);
                    let found_in = |at| found.extend(self.live(at).map(|_| at));
                    if !automaton.search(name.as_bytes(), memory, found_in) {
                        group.members().iter().for_each(|&at| self.ask(at, &subject, scratch));
                    }
                    automata += 1;
                }
            }
        }
        self.ask_candidates(&subject, scratch);
        scratch.put_in_order(self.limits.get_results(), |at| self.slot(at).entry.rank());
    }

    /// Collects the entries filed under a gram of the name as candidates.
    fn find_filed(&self, subject: &Subject<'_>, scratch: &mut Scratch) {
        let mut folded = std::mem::take(&mut scratch.folded);
        let mut hits = std::mem::take(&mut scratch.hits);
        folded.clear();
        fold::fold_into(&mut folded, subject.name);
        let len = folded.len();
        folded.extend_from_slice(&[0; PADDING]);
        let mut signature = Signature::default();
        hits.resize(len, 0);
        for size in Size::LOOKED_UP {
            let grams = self.tables.grams(size);
            if grams.is_empty() && size != Size::Four {
                continue;
            }
            // There is no branch for each gram, since nearly none of them is filed.
            let mut count = 0;
            hashes(&folded, len, size, |hash| {
                if size == Size::Four {
                    signature.add_four(hash);
                }
                hits[count] = hash;
                count += usize::from(grams.may_have(hash));
            });
            for &hash in once(&mut hits[..count]) {
                let mut at = grams.find(hash);
                while at != NONE {
                    let slot = self.slot(at);
                    // The first slot of an entry with many ways says whether the entry is still in the table.
                    if slot.signature & !signature.0 == 0 && (slot.first != at || slot.is_in(self.generation)) {
                        scratch.candidates.push(slot.first);
                    }
                    at = slot.next.load(Ordering::Acquire);
                }
            }
        }
        (scratch.folded, scratch.hits) = (folded, hits);
    }

    /// Tests every candidate once: a name can lead to the same one at many positions.
    fn ask_candidates(&self, subject: &Subject<'_>, scratch: &mut Scratch) {
        let mut candidates = std::mem::take(&mut scratch.candidates);
        for &at in once(&mut candidates) {
            self.ask(at, subject, scratch);
        }
        candidates.clear();
        scratch.candidates = candidates;
        scratch.found.extend(once(&mut scratch.certain).iter().filter(|at| self.live(**at).is_some()));
        scratch.certain.clear();
    }

    /// Tests one entry.
    fn ask(&self, at: u32, subject: &Subject<'_>, scratch: &mut Scratch) {
        if let Some(slot) = self.live(at)
            && slot.entry.pattern().compiled().found_in(subject, &mut scratch.engine)
        {
            scratch.found.push(at);
        }
    }

    fn live(&self, at: u32) -> Option<&Slot<V>> {
        let slot = self.slot(at);
        slot.is_in(self.generation).then_some(slot)
    }

    pub(crate) fn slot(&self, at: u32) -> &Slot<V> {
        self.store.get(at).expect("what leads to a slot was written after it")
    }

    /// Returns the entry whose pattern has exactly this text.
    pub fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.tables.find(&self.store, text, self.generation).map(|(_, slot)| &slot.entry)
    }

    /// Returns all entries, by descending weight, and equal weights by insertion. Sorts them first: O(n log n).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry<V>> {
        in_order(self.store.live(self.slots, self.generation).map(|slot| &slot.entry))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Removes duplicates, in no particular order. Few items are the rule, and one is the most frequent case.
fn once<T: Ord + Copy>(items: &mut [T]) -> &[T] {
    if items.len() < 2 {
        return items;
    }
    items.sort_unstable();
    let mut kept = 1;
    for at in 1..items.len() {
        if items[at] != items[kept - 1] {
            items[kept] = items[at];
            kept += 1;
        }
    }
    &items[..kept]
}

pub(crate) fn in_order<'e, V: 'e>(
    entries: impl Iterator<Item = &'e Entry<V>>,
) -> impl ExactSizeIterator<Item = &'e Entry<V>> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by_key(|entry| entry.rank());
    entries.into_iter()
}

/// Prints the number of entries, not the entries: a table may have a million.
impl<V> fmt::Debug for PatternIndex<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatternIndex").field("len", &self.len).finish_non_exhaustive()
    }
}
