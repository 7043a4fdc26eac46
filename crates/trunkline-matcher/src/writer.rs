//! The side of a table that edits use.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::entry::{Entry, InsertError, Rank, Refusal};
use crate::grams::{self, Sketch};
use crate::group::{Group, Kind};
use crate::index::PatternIndex;
use crate::limits::TableLimits;
use crate::pattern::TablePattern;
use crate::store::{NONE, Slot, Store};
use crate::tables::{Tables, hash_text};

/// Writer of a table. The entries that it adds and removes belong to the next generation, which no look-up reads before
/// [`Writer::publish`]. The existing snapshots share all storage with it.
pub(crate) struct Writer<V> {
    store: Arc<Store<V>>,
    tables: Arc<Tables>,
    groups: Arc<Vec<Arc<Group>>>,
    /// Entries without text that are tested one by one: those for which there is no group, and those that wait for one.
    loose: Arc<Vec<u32>>,
    /// Loose entries that wait until there are enough of their kind for a group.
    waiting: BTreeMap<Kind, Vec<u32>>,
    /// Entries without text that the current edit added.
    fresh: Vec<u32>,
    /// Number of entries without text, and the number of those removed since the groups were last rebuilt.
    unfiled: usize,
    unfiled_dead: usize,
    sketch: Sketch,
    /// The published generation.
    generation: u64,
    /// Generations that still have snapshots, from the oldest on. May contain some whose snapshots are gone.
    alive: VecDeque<(u64, Weak<()>)>,
    /// The last slot in use.
    slots: u32,
    len: usize,
    /// Number of slots whose entries no future generation contains.
    dead: usize,
    sequence: u64,
    /// Entries for which no group could be built.
    unfit: BTreeSet<u32>,
    /// Bytes of the automata of all entries in the edit.
    engine_bytes: usize,
    limits: TableLimits,
    /// Changes of the current edit so far.
    changes: Vec<Change>,
}

enum Change {
    Added(u32),
    Removed(u32),
}

/// Number of dead slots below which a table is not rebuilt.
const DEAD: usize = 32;
/// Most slots of a table, with a margin since a pattern may take several.
const MOST_SLOTS: u32 = u32::MAX / 2 - 64;

impl<V> Writer<V> {
    pub(crate) fn new(limits: TableLimits) -> Self {
        Self {
            store: Arc::new(Store::new()),
            tables: Arc::default(),
            groups: Arc::default(),
            loose: Arc::default(),
            waiting: BTreeMap::new(),
            fresh: Vec::new(),
            unfiled: 0,
            unfiled_dead: 0,
            sketch: Sketch::new(),
            generation: 0,
            alive: VecDeque::new(),
            slots: 0,
            len: 0,
            dead: 0,
            sequence: 0,
            unfit: BTreeSet::new(),
            engine_bytes: 0,
            limits,
            changes: Vec::new(),
        }
    }

    fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn find(&self, text: &str) -> Option<(u32, &Slot<V>)> {
        self.tables.find(&self.store, text, self.next_generation())
    }

    pub(crate) fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.find(text).map(|(_, slot)| &slot.entry)
    }

    /// Returns the entries as they are in the edit, in the order of insertion.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        self.store.live(self.slots, self.next_generation()).map(|slot| &slot.entry)
    }

    pub(crate) fn insert(&mut self, pattern: TablePattern, weight: i64, value: V) -> Result<(), InsertError<V>> {
        let engine_bytes = self.engine_bytes + pattern.compiled().engine_bytes();
        let refusal = if self.find(pattern.as_str()).is_some() {
            Some(Refusal::Taken)
        } else if engine_bytes > self.limits.get_engine_bytes() {
            Some(Refusal::EngineBytes(self.limits.get_engine_bytes()))
        } else if self.slots > MOST_SLOTS {
            Some(Refusal::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return Err(InsertError { refusal, pattern, value });
        }
        let rank = Rank { weight: Reverse(weight), sequence: self.sequence };
        self.sequence += 1;
        let slot = self.file(Entry::new(pattern, rank, value), self.next_generation());
        self.count_in(slot);
        self.changes.push(Change::Added(slot));
        Ok(())
    }

    /// Adds an entry to the counts.
    fn count_in(&mut self, at: u32) {
        let Some(slot) = self.store.get(at) else { return };
        self.len += 1;
        self.unfiled += usize::from(!slot.is_filed);
        self.engine_bytes += slot.entry.pattern().compiled().engine_bytes();
    }

    /// Subtracts an entry from the counts.
    fn count_out(&mut self, at: u32) {
        let Some(slot) = self.store.get(at) else { return };
        self.len -= 1;
        self.unfiled -= usize::from(!slot.is_filed);
        self.engine_bytes -= slot.entry.pattern().compiled().engine_bytes();
    }

    pub(crate) fn remove(&mut self, text: &str) -> Option<Entry<V>> {
        let generation = self.next_generation();
        let (at, slot) = self.find(text)?;
        slot.remove(generation);
        let (entry, is_filed) = (slot.entry.clone(), slot.is_filed);
        self.count_out(at);
        self.dead += 1;
        self.unfiled_dead += usize::from(!is_filed);
        self.changes.push(Change::Removed(at));
        Some(entry)
    }

    /// Adds an entry to the tables that look-ups use, from a generation on.
    fn file(&mut self, entry: Entry<V>, generation: u64) -> u32 {
        let pattern = entry.pattern().clone();
        let first = self.slots + 1;
        self.sketch.make_room(first as usize);
        let oldest = self.oldest();
        let keys = grams::choose(&pattern.compiled().required(), &mut self.sketch);
        // Only a pattern with several ways takes more than one slot.
        for (nth, key) in keys.iter().map(Some).chain(keys.is_empty().then_some(None)).enumerate() {
            self.slots += 1;
            let at = self.slots;
            let signature = key.map(|key| key.signature.0);
            // The slot must be written before anything leads to it.
            let slot = self.store.set(at, Slot::new(entry.clone(), first, signature, generation));
            let tables = Tables::with_room(&mut self.tables, key.map(|key| key.size));
            // Entries that no snapshot has any more are skipped. Otherwise a pattern that is added and removed again
            // and again would lengthen its own chain each time.
            let store = &self.store;
            let gone = |at: u32| {
                let slot = if at == NONE { None } else { store.get(at) };
                slot.filter(|slot| store.get(slot.first).is_some_and(|first| first.is_gone_by(oldest)))
            };
            if let Some(key) = key {
                tables.grams(key.size).push(key.hash, at, |mut next| {
                    while let Some(gone) = gone(next) {
                        next = gone.next.load(Ordering::Relaxed);
                    }
                    slot.next.store(next, Ordering::Relaxed);
                });
            }
            if nth == 0 {
                tables.texts.push(hash_text(pattern.as_str()), at, |mut next| {
                    while let Some(gone) = gone(next) {
                        next = gone.next_text.load(Ordering::Relaxed);
                    }
                    slot.next_text.store(next, Ordering::Relaxed);
                });
            }
        }
        if keys.is_empty() {
            self.fresh.push(first);
        }
        first
    }

    /// Returns the oldest generation that a snapshot has. The published generation always has one.
    fn oldest(&mut self) -> u64 {
        while self.alive.front().is_some_and(|(_, token)| token.strong_count() == 0) {
            self.alive.pop_front();
        }
        self.alive.front().map_or(self.generation, |(generation, _)| *generation)
    }

    /// Undoes unpublished changes. If this rebuilt the table, returns a snapshot with the same entries that must
    /// replace the published one.
    pub(crate) fn roll_back(&mut self) -> Option<PatternIndex<V>> {
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            match change {
                Change::Added(at) => {
                    self.count_out(at);
                    self.dead += 1;
                    if let Some(slot) = self.store.get(at) {
                        slot.remove(0);
                    }
                }
                Change::Removed(at) => {
                    self.count_in(at);
                    self.dead -= 1;
                    if let Some(slot) = self.store.get(at) {
                        self.unfiled_dead -= usize::from(!slot.is_filed);
                        slot.keep();
                    }
                }
            }
        }
        self.fresh.clear();
        self.clear_away().then(|| {
            self.gather();
            self.index()
        })
    }

    /// Makes the edit the next generation, or returns `None` if it changed nothing.
    pub(crate) fn publish(&mut self) -> Option<PatternIndex<V>> {
        if std::mem::take(&mut self.changes).is_empty() {
            return None;
        }
        self.generation += 1;
        self.clear_away();
        self.gather();
        Some(self.index())
    }

    /// Rebuilds the table if most of it is dead. An empty table keeps nothing, since values may be secrets.
    fn clear_away(&mut self) -> bool {
        let is_due = self.dead > self.len + DEAD || self.len == 0 && self.dead > 0;
        if is_due {
            self.rebuild();
        }
        is_due
    }

    pub(crate) fn index(&mut self) -> PatternIndex<V> {
        let token = Arc::new(());
        self.alive.push_back((self.generation, Arc::downgrade(&token)));
        // A snapshot that is held for long hides generations behind it that are gone; they are removed here so that the
        // queue does not grow.
        if self.alive.len().is_power_of_two() {
            self.alive.retain(|(_, token)| token.strong_count() > 0);
        }
        PatternIndex::new(
            self.store.clone(),
            self.tables.clone(),
            self.groups.clone(),
            self.loose.clone(),
            self.generation,
            self.slots,
            self.len,
            self.limits.clone(),
            token,
        )
    }

    /// Rebuilds all tables without the dead entries. Old snapshots keep their own.
    fn rebuild(&mut self) {
        let (store, last) = (std::mem::replace(&mut self.store, Arc::new(Store::new())), self.slots);
        let generation = self.generation;
        (self.tables, self.groups, self.loose, self.waiting) = Default::default();
        self.unfit.clear();
        self.fresh.clear();
        (self.sketch, self.slots, self.dead, self.unfiled_dead) = (Sketch::new(), 0, 0, 0);
        for slot in store.live(last, generation) {
            self.file(slot.entry.clone(), generation);
        }
    }

    /// Builds groups of the new entries. Small groups are merged like digits of a binary number when one is added, so
    /// that there are few groups and each pattern is built into one only a few times. Without new entries nothing is
    /// done, unless many entries were removed.
    fn gather(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        let much_went = self.unfiled_dead > self.unfiled + DEAD || self.unfiled == 0 && self.unfiled_dead > 0;
        if fresh.is_empty() && !much_went {
            return;
        }
        let mut by_kind: BTreeMap<Kind, Vec<u32>> = BTreeMap::new();
        let mut groups = self.groups.to_vec();
        if much_went {
            self.unfiled_dead = 0;
            self.waiting.clear();
            let left = self.loose.iter().copied().filter(|&at| self.is_live(at)).collect::<Vec<_>>();
            self.loose = Arc::default();
            left.into_iter().for_each(|at| by_kind.entry(self.kind(at)).or_default().push(at));
            // A group is dissolved when at least half of it is dead.
            groups.retain(|group| {
                let left = self.live(group);
                let stays = left.len() * 2 > group.members().len();
                if !stays {
                    by_kind.entry(group.kind()).or_default().extend(left);
                }
                stays
            });
        }
        fresh.into_iter().for_each(|at| by_kind.entry(self.kind(at)).or_default().push(at));
        let (mut loosened, mut caught): (Vec<u32>, Vec<u32>) = Default::default();
        for (kind, mut members) in by_kind {
            let waiting = self.waiting.remove(&kind).unwrap_or_default();
            if kind == Kind::Alone {
                loosened.extend(members);
                continue;
            }
            if waiting.len() + members.len() < kind.fewest() {
                loosened.extend(&members);
                members.extend(waiting);
                self.waiting.insert(kind, members);
                continue;
            }
            caught.extend(&waiting);
            members.extend(waiting.into_iter().filter(|&at| self.is_live(at)));
            while let Some(last) = groups.iter().rposition(|group| group.kind() == kind)
                && groups[last].members().len() <= members.len().min(kind.most() / 2)
            {
                members.extend(self.live(&groups.remove(last)));
            }
            for members in members.chunks(kind.most()) {
                let patterns: Vec<_> =
                    members.iter().filter_map(|&at| Some((at, self.store.get(at)?.entry.pattern()))).collect();
                match Group::of(kind, &patterns, self.limits.get_lazy_dfa_bytes()) {
                    Some(group) => groups.push(Arc::new(group)),
                    None => {
                        self.unfit.extend(members);
                        loosened.extend(members);
                    }
                }
            }
        }
        self.groups = Arc::new(groups);
        if !loosened.is_empty() || !caught.is_empty() {
            let loose = Arc::make_mut(&mut self.loose);
            loose.retain(|at| !caught.contains(at));
            loose.extend(loosened);
        }
    }

    fn live(&self, group: &Group) -> Vec<u32> {
        group.members().iter().copied().filter(|&at| self.is_live(at)).collect()
    }

    fn kind(&self, at: u32) -> Kind {
        if self.unfit.contains(&at) {
            return Kind::Alone;
        }
        self.store.get(at).map_or(Kind::Alone, |slot| Kind::of(slot.entry.pattern()))
    }

    fn is_live(&self, at: u32) -> bool {
        self.store.get(at).is_some_and(|slot| slot.is_in(self.generation))
    }
}
