//! The table of this crate as the benchmark uses it.

use std::convert::Infallible;

use trunkline_matcher::{PatternReader, PatternTable, RoutePattern};

use crate::workload::Pattern;

pub(crate) type Table = PatternTable<u32>;

pub(crate) fn build(patterns: &[Pattern]) -> Table {
    let table = Table::new();
    let filled = table.edit(|edit| {
        for (value, pattern) in (0..).zip(patterns) {
            let compiled = RoutePattern::new(&pattern.text).expect("own pattern");
            assert!(edit.insert(compiled, pattern.weight, value).is_ok(), "patterns are distinct");
        }
        Ok::<_, Infallible>(())
    });
    let Ok(()) = filled;
    table
}

/// Compiles and inserts one pattern, as an edit of its own.
pub(crate) fn insert(table: &Table, pattern: &Pattern, value: u32) {
    let compiled = RoutePattern::new(&pattern.text).expect("own pattern");
    assert!(table.insert(compiled, pattern.weight, value).is_ok(), "patterns are distinct");
}

/// Removes one pattern, as an edit of its own.
pub(crate) fn remove(table: &Table, text: &str) {
    assert!(table.remove(text).is_some(), "it was inserted");
}

/// State of a thread that looks names up.
pub(crate) struct Reader<'a>(PatternReader<'a, u32>);

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'a Table) -> Self {
        Self(table.reader())
    }

    /// Returns a reader with a cache of results, if the table has one.
    pub(crate) fn cached(table: &'a Table) -> Option<Self> {
        Some(Self(table.reader().cached(CACHED_NAMES)))
    }

    pub(crate) fn ask(&mut self, name: &str, found: &mut Vec<u32>) {
        let entries = self.0.matches(name).expect("names are short");
        found.extend(entries.map(|entry| *entry.value()));
    }
}

/// Number of names in the cache: four times the hot names.
const CACHED_NAMES: usize = 4_096;
