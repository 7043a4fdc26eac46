//! Storage for entries that one thread adds while any number read, without locks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::entry::Entry;

/// Index that stands for no slot: indexes into a [`Store`] begin at one.
pub(crate) const NONE: u32 = 0;

/// One entry under one of its keys.
pub(crate) struct Slot<V> {
    pub(crate) entry: Entry<V>,
    /// Signature of the pieces of text that a name must contain; see [`crate::grams::Signature`].
    pub(crate) signature: u64,
    /// First generation that contains the entry.
    added: u64,
    /// First generation that no longer contains the entry.
    removed: AtomicU64,
    /// Next slot with the same key.
    pub(crate) next: AtomicU32,
    /// Next slot whose text has the same hash.
    pub(crate) next_text: AtomicU32,
    /// First slot of the entry. For an entry with many keys, that slot says which generations contain it.
    pub(crate) first: u32,
    /// True if the entry is filed under a piece of text.
    pub(crate) is_filed: bool,
}

impl<V> Slot<V> {
    pub(crate) fn new(entry: Entry<V>, first: u32, signature: Option<u64>, added: u64) -> Self {
        let (is_filed, signature) = (signature.is_some(), signature.unwrap_or_default());
        Self {
            is_filed,
            entry,
            signature,
            added,
            removed: AtomicU64::new(u64::MAX),
            next: AtomicU32::new(NONE),
            next_text: AtomicU32::new(NONE),
            first,
        }
    }

    pub(crate) fn is_in(&self, generation: u64) -> bool {
        // A removal by a later generation may be seen or not; both values are outside this one.
        self.added <= generation && generation < self.removed.load(Ordering::Relaxed)
    }

    /// Returns true if neither this generation nor a later one contains the entry.
    pub(crate) fn is_gone_by(&self, generation: u64) -> bool {
        self.removed.load(Ordering::Relaxed) <= generation
    }

    /// Removes the entry, from this generation on.
    pub(crate) fn remove(&self, generation: u64) {
        self.removed.store(generation, Ordering::Relaxed);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<OnceLock<Self>>() + self.entry.heap_bytes()
    }

    pub(crate) fn keep(&self) {
        self.removed.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Slots in chunks of doubling size, so that no slot ever moves.
pub(crate) struct Store<V> {
    chunks: [OnceLock<Chunk<V>>; CHUNKS],
}

type Chunk<V> = Box<[OnceLock<Slot<V>>]>;

const FIRST_CHUNK_BITS: u32 = 5;
/// Number of chunks, enough for 2³¹ slots.
const CHUNKS: usize = 27;

/// Returns the chunk and the place in it. The first two chunks have the same size.
fn locate(at: u32) -> (usize, usize) {
    let index = at - 1;
    let chunk = (index >> FIRST_CHUNK_BITS).checked_ilog2().map_or(0, |bits| bits as usize + 1);
    let start = if chunk == 0 { 0 } else { 1 << (FIRST_CHUNK_BITS as usize + chunk - 1) };
    (chunk, index as usize - start)
}

fn chunk_len(chunk: usize) -> usize {
    1 << (FIRST_CHUNK_BITS as usize + chunk.saturating_sub(1))
}

impl<V> Store<V> {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Slot<V>> {
        let (chunk, offset) = locate(at);
        self.chunks[chunk].get()?.get(offset)?.get()
    }

    /// Fills a place that was never filled.
    pub(crate) fn set(&self, at: u32, slot: Slot<V>) -> &Slot<V> {
        let (chunk, offset) = locate(at);
        let chunk = self.chunks[chunk].get_or_init(|| (0..chunk_len(chunk)).map(|_| OnceLock::new()).collect());
        chunk[offset].get_or_init(|| slot)
    }

    /// Returns the first slots of the entries of a generation, up to the slot `last`, in the order of insertion.
    pub(crate) fn live(&self, last: u32, generation: u64) -> impl Iterator<Item = &Slot<V>> {
        let slots = (1..=last).filter_map(|at| Some((at, self.get(at)?)));
        slots.filter(move |(at, slot)| slot.first == *at && slot.is_in(generation)).map(|(_, slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_fill_the_chunks_without_gap_or_overlap() {
        let mut expected = (0, 0);
        for at in 1..5000 {
            assert_eq!(locate(at), expected, "{at}");
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (chunk, offset) = locate(u32::MAX >> 1);
        assert!(chunk < CHUNKS && offset < chunk_len(chunk));
    }
}
