//! The table of this crate as the benchmark uses it.

use std::convert::Infallible;

use trunkline_matcher::{PatternTable, RoutePattern};

use crate::workload::Pattern;

pub(crate) type Table = PatternTable<u32>;

pub(crate) fn build(patterns: &[Pattern]) -> Table {
    let table = Table::new();
    let filled = table.edit(|map| {
        for (value, pattern) in (0..).zip(patterns) {
            let compiled = RoutePattern::new(&pattern.text).expect("own pattern");
            assert!(map.insert(compiled, pattern.weight, value).is_ok(), "patterns are distinct");
        }
        Ok::<_, Infallible>(())
    });
    let Ok(()) = filled;
    table
}

/// One pattern, compiled and inserted as an edit of its own.
pub(crate) fn insert(table: &Table, pattern: &Pattern, value: u32) {
    let compiled = RoutePattern::new(&pattern.text).expect("own pattern");
    assert!(table.edit(|map| map.insert(compiled, pattern.weight, value)).is_ok(), "patterns are distinct");
}

/// One pattern, removed as an edit of its own.
pub(crate) fn remove(table: &Table, text: &str) {
    let Ok(removed) = table.edit(|map| Ok::<_, Infallible>(map.remove(text)));
    assert!(removed.is_some(), "it was inserted");
}

/// What a thread that looks names up holds.
pub(crate) struct Reader<'a>(&'a Table);

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'a Table) -> Self {
        Self(table)
    }

    /// With a cache of results, if the table has one.
    pub(crate) fn cached(_table: &'a Table) -> Option<Self> {
        None
    }

    pub(crate) fn ask(&mut self, name: &str, found: &mut Vec<u32>) {
        found.extend(self.0.snapshot().matches(name).map(|entry| *entry.value()));
    }
}
