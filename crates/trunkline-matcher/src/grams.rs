//! From pieces of text to the entries that require them.
//!
//! A *gram* is a window of 3, 4, 8 or 16 folded bytes. Every entry that requires some text is filed under one gram of
//! it; a look-up takes the grams of the name, all positions of it, and asks which of them are filed. A Bloom filter
//! answers nearly all of that from the cache.

#[cfg(matcher_model)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(matcher_model))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::shape::Required;
use crate::store::NONE;

/// Zero bytes that must follow a folded text, so that a window can be loaded at its last byte.
pub(crate) const PADDING: usize = 8;

/// Odd, with bits all over: the golden ratio, and two of PCG's multipliers.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const MIX_SHORT: u64 = 0x5851_f42d_4c95_7f2d;
const MIX_LONG: u64 = 0xda94_2042_e4dd_58b5;

/// The lengths of windows, as they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Eight,
    Sixteen,
    Four,
    Three,
}

impl Size {
    pub(crate) const ALL: [Self; 4] = [Self::Eight, Self::Sixteen, Self::Four, Self::Three];
    /// The four-byte grams first: they also make the signature.
    pub(crate) const LOOKED_UP: [Self; 4] = [Self::Four, Self::Eight, Self::Sixteen, Self::Three];
}

/// The eight bytes from each place on where a window of `N` bytes of the text begins.
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

/// Which grams of four bytes a text has, six bits of hash each: what is not in the name's is not in the name.
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

/// Hash to the first slot of a chain. One thread writes, any number read.
pub(crate) struct GramTable {
    bloom: Box<[AtomicU64]>,
    bloom_shift: u32,
    cells: Box<[Cell]>,
    used: AtomicU32,
}

/// Free while `first` is none; never freed again.
#[derive(Default)]
struct Cell {
    hash: AtomicU64,
    first: AtomicU32,
}

impl GramTable {
    /// Bits of filter for each cell: as many as the nearest cache bears.
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

    /// The first slot of every chain.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = u32> {
        self.cells.iter().map(|cell| cell.first.load(Ordering::Acquire)).filter(|&first| first != NONE)
    }

    /// A copy with room for one more, if this one is half full: then no look-up walks far.
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

    /// May be `true` of a hash that is not here; never `false` of one that is.
    #[inline]
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        let bit = hash >> self.bloom_shift;
        let word = self.bloom.get((bit >> 6) as usize).map_or(0, |word| word.load(Ordering::Relaxed));
        word >> (bit & 63) & 1 == 1
    }

    /// The first slot of the hash's chain.
    pub(crate) fn find(&self, hash: u64) -> u32 {
        self.seek(hash).1
    }

    /// The cell of a hash, or the free one where it would be, and the first slot.
    fn seek(&self, hash: u64) -> (&Cell, u32) {
        // The filter takes the high bits of a hash.
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

    /// Puts a slot before the others of its hash; `link` is told which one comes next, before anyone can see it.
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

/// How often each gram stands in the patterns of a table, roughly: what is rare there is likely to be rare in names.
/// Never too low, but for what saturates.
pub(crate) struct Sketch(Vec<u8>);

impl Sketch {
    /// Cells for each entry: a pattern has some dozens of grams, most of them not its own.
    const CELLS: usize = 16;
    /// Cells of a table whose slots are likely to be cached.
    const NEAR: usize = Self::CELLS << 14;

    pub(crate) fn new() -> Self {
        Self(vec![0; 1024])
    }

    pub(crate) fn make_room(&mut self, entries: usize) {
        while self.0.len() < entries * Self::CELLS {
            // A cell is the high bits of the hash, so each becomes two neighbours.
            self.0 = self.0.iter().flat_map(|&count| [count, count]).collect();
        }
    }

    /// How many entries under one gram are not worth a gram of another size: each size in use costs a look-up a
    /// pass over the name, and each entry a look at its slot, which in a large table is far from the processor.
    fn rare(&self) -> u8 {
        if self.0.len() <= Self::NEAR { 32 } else { 4 }
    }

    fn cell(&mut self, hash: u64) -> &mut u8 {
        let at = hash >> (64 - self.0.len().ilog2());
        &mut self.0[at as usize]
    }

    /// Counts one more, and says how many there were before.
    fn add(&mut self, hash: u64) -> u8 {
        let cell = self.cell(hash);
        let before = *cell;
        *cell = before.saturating_add(1);
        before
    }
}

/// Where an entry is filed: one gram for each way it can match.
pub(crate) struct Key {
    pub(crate) size: Size,
    pub(crate) hash: u64,
    pub(crate) signature: Signature,
}

/// Chooses the keys of a pattern: the rarest gram of each way, and counts its grams.
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

/// The first size that is rare enough, or else a rarer one; longer grams are rarer in names than their count in the
/// patterns tells.
fn rarest(best: [Option<(u8, u64)>; 4], rare: u8) -> (Size, u64) {
    let mut chosen: Option<(Size, u8, u64)> = None;
    for (size, best) in Size::ALL.into_iter().zip(best) {
        let Some((count, hash)) = best else { continue };
        if chosen.is_none_or(|(_, least, _)| least > rare && count < least / 2) {
            chosen = Some((size, count, hash));
        }
    }
    // Every way has a run of three bytes at least.
    chosen.map_or((Size::Three, 0), |(size, _, hash)| (size, hash))
}

/// Every interleaving of one who writes and one who reads, under the memory model: `cargo xtask model`.
#[cfg(all(test, matcher_model))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// What a slot is to the table: something written before the table leads to it.
    struct Slots {
        text: [AtomicU64; 4],
        next: [AtomicU32; 4],
    }

    impl Slots {
        fn write(&self, table: &GramTable, hash: u64, slot: u32) {
            self.text[slot as usize].store(hash, Ordering::Relaxed);
            table.push(hash, slot, |next| self.next[slot as usize].store(next, Ordering::Relaxed));
        }

        /// The chain of a hash, newest first.
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
            // Two hashes that want the same cell, and two slots under one of them.
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
            // Writes come in order.
            assert!(chain == [1] || slots.read(table, second) == [2]);
            writer.join().unwrap();
            assert_eq!((slots.read(table, first), slots.read(table, second)), (vec![3, 1], vec![2]));
            assert!(table.may_have(second));
        });
    }
}
