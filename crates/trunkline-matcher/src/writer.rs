//! The table as it is edited.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHasher;

use crate::entry::{Entry, InsertError, Rank, Refusal};
use crate::grams::{self, Sketch};
use crate::group::{Group, Kind};
use crate::index::{PatternIndex, Tables};
use crate::limits::TableLimits;
use crate::pattern::RoutePattern;
use crate::store::{NONE, Slot, Store};

/// The one who edits a table. What it adds and removes belongs to the next generation, which nobody reads before
/// [`Writer::publish`]; the snapshots out there share everything with it.
pub(crate) struct Writer<V> {
    store: Arc<Store<V>>,
    tables: Arc<Tables>,
    groups: Arc<Vec<Arc<Group>>>,
    loose: Arc<Vec<u32>>,
    sketch: Sketch,
    /// The generation that is published.
    generation: u64,
    /// The last slot in use.
    slots: u32,
    len: usize,
    /// Slots whose entries are in no generation to come.
    dead: usize,
    sequence: u64,
    /// Entries of which no group could be made.
    unfit: BTreeSet<u32>,
    /// Of the entries in the edit.
    engine_bytes: usize,
    limits: TableLimits,
    undo: Undo,
}

/// What brings the published generation back.
#[derive(Default)]
struct Undo {
    changes: Vec<Change>,
    groups: Option<Arc<Vec<Arc<Group>>>>,
    loose: Option<Arc<Vec<u32>>>,
}

enum Change {
    Added(u32),
    Removed(u32),
}

/// Fewer slots are not worth rebuilding a table for.
const DEAD: usize = 32;
/// A pattern may take several of them.
const MOST_SLOTS: u32 = u32::MAX / 2 - 64;

impl<V> Writer<V> {
    pub(crate) fn new(limits: TableLimits) -> Self {
        Self {
            store: Arc::new(Store::new()),
            tables: Arc::default(),
            groups: Arc::default(),
            loose: Arc::default(),
            sketch: Sketch::new(),
            generation: 0,
            slots: 0,
            len: 0,
            dead: 0,
            sequence: 0,
            unfit: BTreeSet::new(),
            engine_bytes: 0,
            limits,
            undo: Undo::default(),
        }
    }

    fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn find(&self, text: &str) -> Option<(u32, &Slot<V>)> {
        find(&self.store, &self.tables, text, self.next_generation())
    }

    pub(crate) fn get(&self, text: &str) -> Option<&Entry<V>> {
        self.find(text).map(|(_, slot)| &slot.entry)
    }

    /// The entries as they stand in the edit, in the order of insertion.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        slots(&self.store, self.slots, self.next_generation()).map(|slot| &slot.entry)
    }

    pub(crate) fn insert(&mut self, pattern: RoutePattern, weight: i64, value: V) -> Result<(), InsertError<V>> {
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
        self.added(slot);
        self.undo.changes.push(Change::Added(slot));
        Ok(())
    }

    /// Counts a slot in or out.
    fn added(&mut self, at: u32) {
        self.len += 1;
        self.engine_bytes += self.engine_bytes_of(at);
    }

    fn removed(&mut self, at: u32) {
        self.len -= 1;
        self.dead += 1;
        self.engine_bytes -= self.engine_bytes_of(at);
    }

    fn engine_bytes_of(&self, at: u32) -> usize {
        self.store.get(at).map_or(0, |slot| slot.entry.pattern().compiled().engine_bytes())
    }

    pub(crate) fn remove(&mut self, text: &str) -> Option<Entry<V>> {
        let generation = self.next_generation();
        let (at, slot) = self.find(text)?;
        slot.remove(generation);
        let entry = slot.entry.clone();
        self.removed(at);
        self.undo.changes.push(Change::Removed(at));
        Some(entry)
    }

    /// Puts an entry where look-ups find it, from a generation on.
    fn file(&mut self, entry: Entry<V>, generation: u64) -> u32 {
        let pattern = entry.pattern().clone();
        let first = self.slots + 1;
        self.sketch.make_room(first as usize);
        let keys = grams::choose(&pattern.compiled().required(), &mut self.sketch);
        // More than one slot only for a pattern of many ways.
        for (nth, key) in keys.iter().map(Some).chain(keys.is_empty().then_some(None)).enumerate() {
            self.slots += 1;
            let at = self.slots;
            let signature = key.map_or(0, |key| key.signature.0);
            // There before anything leads to it.
            let slot = self.store.set(at, Slot::new(entry.clone(), first, signature, generation));
            let tables = Tables::with_room(&mut self.tables, key.map(|key| key.size));
            if let Some(key) = key {
                tables.grams(key.size).push(key.hash, at, |next| slot.next.store(next, Ordering::Relaxed));
            }
            if nth == 0 {
                tables
                    .texts
                    .push(hash_text(pattern.as_str()), at, |next| slot.next_text.store(next, Ordering::Relaxed));
            }
        }
        if keys.is_empty() {
            self.keep_lists();
            Arc::make_mut(&mut self.loose).push(first);
        }
        first
    }

    fn keep_lists(&mut self) {
        self.undo.groups.get_or_insert_with(|| self.groups.clone());
        self.undo.loose.get_or_insert_with(|| self.loose.clone());
    }

    /// Takes back what was not published.
    pub(crate) fn roll_back(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        for change in undo.changes.into_iter().rev() {
            match change {
                Change::Added(at) => {
                    self.removed(at);
                    if let Some(slot) = self.store.get(at) {
                        slot.remove(0);
                    }
                }
                Change::Removed(at) => {
                    self.added(at);
                    self.dead -= 1;
                    if let Some(slot) = self.store.get(at) {
                        slot.keep();
                    }
                }
            }
        }
        if let (Some(groups), Some(loose)) = (undo.groups, undo.loose) {
            (self.groups, self.loose) = (groups, loose);
        }
    }

    /// Makes the edit the next generation. `None`: it changed nothing.
    pub(crate) fn publish(&mut self) -> Option<PatternIndex<V>> {
        if std::mem::take(&mut self.undo).changes.is_empty() {
            return None;
        }
        self.generation += 1;
        // An empty table keeps nothing: values may be secrets.
        if self.dead > self.len + DEAD || self.len == 0 && self.dead > 0 {
            self.rebuild();
        }
        self.gather();
        Some(self.index())
    }

    pub(crate) fn index(&self) -> PatternIndex<V> {
        PatternIndex::new(
            self.store.clone(),
            self.tables.clone(),
            self.groups.clone(),
            self.loose.clone(),
            self.generation,
            self.slots,
            self.len,
            self.limits.clone(),
        )
    }

    /// Everything anew, without what is dead; the old snapshots keep what they have.
    fn rebuild(&mut self) {
        let (store, last) = (std::mem::replace(&mut self.store, Arc::new(Store::new())), self.slots);
        let generation = self.generation;
        (self.tables, self.groups, self.loose) = Default::default();
        self.unfit.clear();
        (self.sketch, self.slots, self.dead) = (Sketch::new(), 0, 0);
        for slot in slots(&store, last, generation) {
            self.file(slot.entry.clone(), generation);
        }
        self.undo = Undo::default();
    }

    /// Makes groups of what is loose: as one adds to a binary number, so that there are few groups, and each
    /// pattern is built into one a few times at most.
    fn gather(&mut self) {
        let mut loose: BTreeMap<Kind, Vec<u32>> = BTreeMap::new();
        for &at in self.loose.iter().filter(|&&at| self.is_live(at)) {
            loose.entry(self.kind(at)).or_default().push(at);
        }
        let few = loose.extract_if(.., |kind, members| members.len() < kind.fewest());
        let mut rest: Vec<u32> = few.flat_map(|(_, members)| members).collect();
        if loose.is_empty() {
            if rest.len() < self.loose.len() {
                self.loose = Arc::new(rest);
            }
            return;
        }
        let live =
            |group: &Group| -> Vec<u32> { group.members().iter().copied().filter(|&at| self.is_live(at)).collect() };
        let mut groups = self.groups.to_vec();
        // What is dead in a group is left behind when it is half of it.
        groups.retain(|group| {
            let left = live(group);
            let stays = left.len() * 2 > group.members().len();
            if !stays {
                loose.entry(group.kind()).or_default().extend(left);
            }
            stays
        });
        let mut unfit: Vec<u32> = Vec::new();
        for (kind, mut fresh) in loose {
            while let Some(last) = groups.iter().rposition(|group| group.kind() == kind)
                && groups[last].members().len() <= fresh.len().min(kind.most() / 2)
            {
                fresh.extend(live(&groups.remove(last)));
            }
            for members in fresh.chunks(kind.most()) {
                let patterns: Vec<_> =
                    members.iter().filter_map(|&at| Some((at, self.store.get(at)?.entry.pattern()))).collect();
                match Group::of(kind, &patterns, self.limits.get_lazy_dfa_bytes()) {
                    Some(group) => groups.push(Arc::new(group)),
                    None => {
                        unfit.extend(members);
                        rest.extend(members);
                    }
                }
            }
        }
        self.unfit.extend(unfit);
        (self.groups, self.loose) = (Arc::new(groups), Arc::new(rest));
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

pub(crate) fn hash_text(text: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// The slot of a pattern's text in a generation.
pub(crate) fn find<'s, V>(
    store: &'s Store<V>,
    tables: &Tables,
    text: &str,
    generation: u64,
) -> Option<(u32, &'s Slot<V>)> {
    let mut at = tables.texts.find(hash_text(text));
    while at != NONE {
        let slot = store.get(at)?;
        if slot.entry.pattern().as_str() == text && slot.is_in(generation) {
            return Some((at, slot));
        }
        at = slot.next_text.load(Ordering::Acquire);
    }
    None
}

/// The first slots of the entries of a generation, in the order of insertion.
pub(crate) fn slots<V>(store: &Store<V>, last: u32, generation: u64) -> impl Iterator<Item = &Slot<V>> {
    let slots = (1..=last).filter_map(|at| Some((at, store.get(at)?)));
    slots.filter(move |(at, slot)| slot.first == *at && slot.is_in(generation)).map(|(_, slot)| slot)
}
