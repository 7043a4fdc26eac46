use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::{PatternTable, RoutePattern, Taken};

fn pattern(text: &str) -> RoutePattern {
    RoutePattern::new(text).unwrap()
}

fn add(table: &PatternTable<u32>, text: &str) -> Result<(), Taken<u32>> {
    table.edit(|map| map.insert(pattern(text), 0, 0))
}

fn texts(table: &PatternTable<u32>) -> Vec<String> {
    let texts = |entry: &crate::Entry<u32>| entry.pattern().to_string();
    table.snapshot().iter().map(texts).collect()
}

#[test]
fn an_edit_is_published_as_one_snapshot() {
    let table = PatternTable::new();
    let before = table.snapshot();
    let answer = table.edit(|map| {
        map.insert(pattern("a"), 0, 1)?;
        map.insert(pattern("b"), 0, 2)?;
        assert!(table.snapshot().is_empty(), "not published yet");
        Ok::<_, Taken<u32>>(map.len())
    });
    assert_eq!(answer.unwrap(), 2);
    assert!(before.is_empty());
    assert_eq!(texts(&table), ["a", "b"]);
}

#[test]
fn an_edit_that_fails_changes_nothing() {
    let table = PatternTable::new();
    add(&table, "a").unwrap();
    let before = table.snapshot();
    let refused = table.edit(|map| {
        map.remove("a");
        map.insert(pattern("b"), 0, 1)?;
        map.insert(pattern("b"), 0, 2)
    });
    assert_eq!(refused.unwrap_err().into_value(), 2);
    assert!(Arc::ptr_eq(&before, &table.snapshot()));
}

#[test]
fn an_edit_that_panics_changes_nothing_and_the_next_one_works() {
    let table = PatternTable::new();
    add(&table, "a").unwrap();
    let before = table.snapshot();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        table.edit::<(), ()>(|map| {
            map.remove("a");
            panic!("in the closure");
        })
    }));
    assert!(panicked.is_err());
    assert!(Arc::ptr_eq(&before, &table.snapshot()));
    add(&table, "b").unwrap();
    assert_eq!(texts(&table), ["a", "b"]);
}

#[test]
fn an_edit_shares_the_entries_it_does_not_touch() {
    let table = PatternTable::new();
    add(&table, "a").unwrap();
    let before = table.snapshot();
    add(&table, "b").unwrap();
    let after = table.snapshot();
    let value = |index: &crate::PatternIndex<u32>| -> *const u32 { index.get("a").expect("it was added").value() };
    assert_eq!(value(&before), value(&after));
}

#[test]
fn ten_thousand_patterns_go_into_one_edit() {
    let table = PatternTable::new();
    table.edit(|map| (0..10_000).try_for_each(|n| map.insert(pattern(&format!("^n{n}@h$")), n % 3, n))).unwrap();
    let index = table.snapshot();
    assert_eq!(index.len(), 10_000);
    let ranks: Vec<_> = index.iter().map(|entry| (-entry.weight(), entry.sequence())).collect();
    assert!(ranks.is_sorted());
    let found: Vec<_> = index.matches("n4711@h").map(|entry| *entry.value()).collect();
    assert_eq!(found, [4711]);
}

#[test]
fn everything_shared_may_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<RoutePattern>();
    check::<crate::AccessPattern>();
    check::<crate::PatternError>();
    check::<crate::PatternMap<u32>>();
    check::<crate::PatternIndex<u32>>();
    check::<PatternTable<u32>>();
}
