//! Tables from pieces of text, and from whole texts, to slots.

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHasher;

use crate::grams::{GramTable, Size};
use crate::store::{NONE, Slot, Store};

/// Tables that lead to the slots of a store. A table grows by replacement: a snapshot keeps the tables that it came
/// with, which have all its entries.
#[derive(Clone)]
pub(crate) struct Tables {
    grams: [Arc<GramTable>; Size::ALL.len()],
    pub(crate) texts: Arc<GramTable>,
}

impl Default for Tables {
    fn default() -> Self {
        Self { grams: std::array::from_fn(|_| Arc::new(GramTable::new())), texts: Arc::new(GramTable::new()) }
    }
}

impl Tables {
    pub(crate) fn grams(&self, size: Size) -> &GramTable {
        &self.grams[size as usize]
    }

    /// Makes room for one more text, and for one more gram of the given size.
    pub(crate) fn with_room(tables: &mut Arc<Self>, size: Option<Size>) -> &Self {
        if let Some(grown) = tables.texts.grown() {
            Arc::make_mut(tables).texts = Arc::new(grown);
        }
        if let Some(size) = size
            && let Some(grown) = tables.grams(size).grown()
        {
            Arc::make_mut(tables).grams[size as usize] = Arc::new(grown);
        }
        tables
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.texts.heap_bytes() + self.grams.iter().map(|grams| grams.heap_bytes()).sum::<usize>()
    }

    /// Returns the slot of a pattern's text in a generation.
    pub(crate) fn find<'s, V>(&self, store: &'s Store<V>, text: &str, generation: u64) -> Option<(u32, &'s Slot<V>)> {
        let mut at = self.texts.find(hash_text(text));
        while at != NONE {
            let slot = store.get(at)?;
            if slot.entry.pattern().as_str() == text && slot.is_in(generation) {
                return Some((at, slot));
            }
            at = slot.next_text.load(Ordering::Acquire);
        }
        None
    }
}

pub(crate) fn hash_text(text: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}
