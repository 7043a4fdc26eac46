//! Index from pieces of text to the entries that require them.
//!
//! A *gram* is a window of 3, 4, 8 or 16 folded bytes. Every entry that requires some text is filed under one gram of
//! it. A look-up computes the grams at all positions of the name and checks which of them are filed. A Bloom filter
//! answers nearly all of these checks from the processor's cache.

#[cfg(matcher_model)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(matcher_model))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shape::Required;
use crate::store::NONE;

/// Number of zero bytes after a folded text, so that a window can be loaded at its last byte.
pub(crate) const PADDING: usize = 8;

/// Multipliers for hashing, odd and with set bits all over: the golden ratio, and two of PCG's multipliers.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_SHORT: u64 = 0x5851_f42d_4c95_7f2d;
const MIX_LONG: u64 = 0xda94_2042_e4dd_58b5;

/// Length of a window. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Eight,
    Sixteen,
    Four,
    Three,
}

impl Size {
    pub(crate) const ALL: [Self; 4] = [Self::Eight, Self::Sixteen, Self::Four, Self::Three];
    /// Sizes in the order in which a look-up uses them: four-byte grams first, since they also make the signature.
    pub(crate) const LOOKED_UP: [Self; 4] = [Self::Four, Self::Eight, Self::Sixteen, Self::Three];
}

/// Returns the eight bytes from each position at which a window of `N` bytes of the text begins.
#[inline]
fn loads<const N: usize>(text: &[u8], len: usize) -> impl Iterator<Item = u64> {
    let windows = text.get(..(len + 8).saturating_sub(N)).unwrap_or_default().windows(8);
    windows.map(|window| window.try_into().map_or(0, u64::from_le_bytes))
}

/// Calls `each` with the hash of every window of the first `len` bytes of a text, which is followed by its padding.
#[inline]
pub(crate) fn hashes(text: &[u8], len: usize, size: Size, each: impl FnMut(u64)) {
    match size {
        Size::Three => loads::<3>(text, len).map(|load| (load & 0xff_ffff).wrapping_mul(MIX_SHORT)).for_each(each),
        Size::Four => loads::<4>(text, len).map(|load| u64::from(load as u32).wrapping_mul(MIX)).for_each(each),
        Size::Eight => loads::<8>(text, len).map(|load| load.wrapping_mul(MIX)).for_each(each),
        Size::Sixteen => {
            let halves = loads::<16>(text, len).zip(loads::<8>(text, len).skip(8));
            let mix = |(low, high): (u64, u64)| {
                (low.wrapping_mul(MIX).rotate_left(29) ^ high.wrapping_mul(MIX_SHORT)).wrapping_mul(MIX_LONG)
            };
            halves.map(mix).for_each(each);
        }
    }
}

/// Set of the grams of four bytes in a text, by six bits of their hashes. A text whose signature has a bit that the
/// name's lacks is not in the name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signature(pub(crate) u64);

impl Signature {
    pub(crate) fn add(&mut self, text: &[u8], len: usize) {
        hashes(text, len, Size::Four, |hash| self.add_four(hash));
    }

    /// Adds one gram of four bytes.
    #[inline]
    pub(crate) fn add_four(&mut self, hash: u64) {
        self.0 |= 1 << (hash >> 58);
    }
}

/// Hash table from a gram to the first slot of its chain. One thread writes while any number read.
pub(crate) struct GramTable {
    bloom: Box<[AtomicU64]>,
    bloom_shift: u32,
    cells: Box<[Cell]>,
    used: AtomicU32,
}

/// Cell of the table. It is free while `first` is none, and never becomes free again.
#[derive(Default)]
struct Cell {
    hash: AtomicU64,
    first: AtomicU32,
}

impl GramTable {
    /// Returns the bits of the filter for each cell: as many as fit into the nearest cache.
    const fn bloom_bits(cells: usize) -> usize {
        if cells <= 1 << 13 { 32 } else { 8 }
    }

    const LEAST: usize = 64;

    pub(crate) fn new() -> Self {
        Self::with_cells(Self::LEAST)
    }

    fn with_cells(cells: usize) -> Self {
        let bits = cells * Self::bloom_bits(cells);
        Self {
            bloom: (0..bits / 64).map(|_| AtomicU64::new(0)).collect(),
            bloom_shift: 64 - bits.ilog2(),
            cells: (0..cells).map(|_| Cell::default()).collect(),
            used: AtomicU32::new(0),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        8 * self.bloom.len() + size_of_val(&*self.cells)
    }

    /// Returns the first slot of every chain.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = u32> {
        self.cells.iter().map(|cell| cell.first.load(Ordering::Acquire)).filter(|&first| first != NONE)
    }

    /// Returns a copy with twice the room if this table is half full, so that probe sequences stay short.
    pub(crate) fn grown(&self) -> Option<Self> {
        if self.used.load(Ordering::Relaxed) as usize * 2 < self.cells.len() {
            return None;
        }
        let grown = Self::with_cells(self.cells.len() * 2);
        for cell in &self.cells {
            let first = cell.first.load(Ordering::Relaxed);
            if first != NONE {
                grown.push(cell.hash.load(Ordering::Relaxed), first, |_| {});
            }
        }
        Some(grown)
    }

    /// Returns false only if the hash is certainly not in the table.
    #[inline]
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        let bit = hash >> self.bloom_shift;
        let word = self.bloom.get((bit >> 6) as usize).map_or(0, |word| word.load(Ordering::Relaxed));
        word >> (bit & 63) & 1 == 1
    }

    /// Returns the first slot of the hash's chain.
    pub(crate) fn find(&self, hash: u64) -> u32 {
        self.seek(hash).1
    }

    /// Returns the cell of a hash, or the free one where it belongs, and its first slot.
    fn seek(&self, hash: u64) -> (&Cell, u32) {
        // The filter uses the high bits of a hash.
        let mut at = ((hash ^ hash >> 32).wrapping_mul(MIX_LONG) >> 20) as usize;
        loop {
            let cell = &self.cells[at & (self.cells.len() - 1)];
            let first = cell.first.load(Ordering::Acquire);
            if first == NONE || cell.hash.load(Ordering::Relaxed) == hash {
                return (cell, first);
            }
            at += 1;
        }
    }

    /// Puts a slot in front of the others of its hash. `link` receives the next slot before any reader can see this
    /// one.
    pub(crate) fn push(&self, hash: u64, slot: u32, link: impl FnOnce(u32)) {
        let (cell, next) = self.seek(hash);
        link(next);
        if next == NONE {
            self.used.fetch_add(1, Ordering::Relaxed);
            let bit = hash >> self.bloom_shift;
            self.bloom[(bit >> 6) as usize].fetch_or(1 << (bit & 63), Ordering::Relaxed);
            cell.hash.store(hash, Ordering::Relaxed);
        }
        cell.first.store(slot, Ordering::Release);
    }
}

/// Approximate count of each gram in the patterns of a table. A gram that is rare in patterns is likely to be rare in
/// names. A count is never too low, unless it is saturated.
pub(crate) struct Sketch(Vec<u8>);

impl Sketch {
    /// Number of cells for each entry. A pattern has some dozens of grams, most of which other patterns have too.
    const CELLS: usize = 16;
    /// Number of cells of a table whose slots are likely to be in the processor's cache.
    const NEAR: usize = Self::CELLS << 14;

    pub(crate) fn new() -> Self {
        Self(vec![0; 1024])
    }

    pub(crate) fn make_room(&mut self, entries: usize) {
        while self.0.len() < entries * Self::CELLS {
            // The index of a cell is the high bits of the hash, so that each cell becomes two neighbours.
            self.0 = self.0.iter().flat_map(|&count| [count, count]).collect();
        }
    }

    /// Returns the number of entries under one gram up to which a gram of another size is not worth while. Each size in
    /// use costs a look-up a pass over the name, and each entry an access to its slot, which in a large table is not
    /// cached.
    fn rare(&self) -> u8 {
        if self.0.len() <= Self::NEAR { 32 } else { 4 }
    }

    fn cell(&mut self, hash: u64) -> &mut u8 {
        let at = hash >> (64 - self.0.len().ilog2());
        &mut self.0[at as usize]
    }

    /// Counts one more, and returns the count before.
    fn add(&mut self, hash: u64) -> u8 {
        let cell = self.cell(hash);
        let before = *cell;
        *cell = before.saturating_add(1);
        before
    }
}

/// Key that an entry is filed under: one gram for each way in which it can match.
pub(crate) struct Key {
    pub(crate) size: Size,
    pub(crate) hash: u64,
    pub(crate) signature: Signature,
}

/// Chooses the keys of a pattern, the rarest gram of each way, and counts its grams.
pub(crate) fn choose(required: &Required, sketch: &mut Sketch) -> Vec<Key> {
    let rare = sketch.rare();
    let mut padded = Vec::new();
    let mut key = |runs: &mut dyn Iterator<Item = &[u8]>| {
        let mut signature = Signature::default();
        let mut best: [Option<(u8, u64)>; 4] = [None; 4];
        for run in runs {
            padded.clear();
            padded.extend_from_slice(run);
            padded.extend_from_slice(&[0; PADDING]);
            signature.add(&padded, run.len());
            for (size, best) in Size::ALL.into_iter().zip(&mut best) {
                hashes(&padded, run.len(), size, |hash| {
                    let count = sketch.add(hash);
                    if best.is_none_or(|(least, _)| count < least) {
                        *best = Some((count, hash));
                    }
                });
            }
        }
        let (size, hash) = rarest(best, rare);
        Key { size, hash, signature }
    };
    required.ways().map(|mut runs| key(&mut runs)).collect()
}

/// Returns the first size that is rare enough, or else one that is at most half as frequent. Longer grams are rarer in
/// names than their count in the patterns suggests.
fn rarest(best: [Option<(u8, u64)>; 4], rare: u8) -> (Size, u64) {
    let mut chosen: Option<(Size, u8, u64)> = None;
    for (size, best) in Size::ALL.into_iter().zip(best) {
        let Some((count, hash)) = best else { continue };
        if chosen.is_none_or(|(_, least, _)| least > rare && count < least / 2) {
            chosen = Some((size, count, hash));
        }
    }
    // Every way has a run of at least three bytes.
    chosen.map_or((Size::Three, 0), |(size, _, hash)| (size, hash))
}

/// Exploration of every interleaving of one writer and one reader under the memory model: `cargo xtask model`.
#[cfg(all(test, matcher_model))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Stand-in for the slots of a store: each is written before the table leads to it.
    struct Slots {
        text: [AtomicU64; 4],
        next: [AtomicU32; 4],
    }

    impl Slots {
        fn write(&self, table: &GramTable, hash: u64, slot: u32) {
            self.text[slot as usize].store(hash, Ordering::Relaxed);
            table.push(hash, slot, |next| self.next[slot as usize].store(next, Ordering::Relaxed));
        }

        /// Returns the chain of a hash, newest first.
        fn read(&self, table: &GramTable, hash: u64) -> Vec<u32> {
            let (mut at, mut chain) = (table.find(hash), Vec::new());
            while at != NONE {
                assert_eq!(self.text[at as usize].load(Ordering::Relaxed), hash, "a slot is read before it is written");
                chain.push(at);
                at = self.next[at as usize].load(Ordering::Acquire);
            }
            chain
        }
    }

    #[test]
    fn a_reader_finds_all_that_was_there_before_and_never_half_a_slot() {
        loom::model(|| {
            let slots = Slots { text: Default::default(), next: Default::default() };
            let shared = Arc::new((GramTable::with_cells(4), slots));
            // Two hashes that map to the same cell, and two slots under one of them.
            let cell = |hash: u64| std::ptr::from_ref(shared.0.seek(hash).0);
            let first = 1;
            let second = (2..).find(|&hash| cell(hash) == cell(first)).unwrap();
            shared.1.write(&shared.0, first, 1);
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.write(&shared.0, second, 2);
                    shared.1.write(&shared.0, first, 3);
                })
            };
            let (table, slots) = &*shared;
            assert!(table.may_have(first));
            let chain = slots.read(table, first);
            assert!(chain == [1] || chain == [3, 1], "{chain:?}");
            let other = slots.read(table, second);
            assert!(other.is_empty() || other == [2], "{other:?}");
            // Writes become visible in order.
            assert!(chain == [1] || slots.read(table, second) == [2]);
            writer.join().unwrap();
            assert_eq!((slots.read(table, first), slots.read(table, second)), (vec![3, 1], vec![2]));
            assert!(table.may_have(second));
        });
    }
}
