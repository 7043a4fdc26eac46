use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::grams::Size;
use crate::store::NONE;
use crate::{InsertError, PatternClass, PatternIndex, PatternTable, Refusal, RoutePattern};

fn pattern(text: &str) -> RoutePattern {
    RoutePattern::new(text).unwrap()
}

fn add(table: &PatternTable<u32>, text: &str) -> Result<(), InsertError<u32>> {
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
        Ok::<_, InsertError<u32>>(map.len())
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
    let value = |index: &PatternIndex<u32>| -> *const u32 { index.get("a").expect("it was added").value() };
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
    let found: Vec<_> = index.matches("n4711@h").unwrap().map(|entry| *entry.value()).collect();
    assert_eq!(found, [4711]);
}

#[test]
fn everything_shared_may_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<RoutePattern>();
    check::<crate::AccessPattern>();
    check::<crate::PatternError>();
    check::<PatternIndex<u32>>();
    check::<PatternTable<u32>>();
}

fn table(entries: &[(&str, i64)]) -> PatternTable<usize> {
    let table = PatternTable::new();
    for (number, &(text, weight)) in entries.iter().enumerate() {
        table.insert(pattern(text), weight, number).unwrap();
    }
    table
}

fn found(table: &PatternTable<usize>, name: &str) -> Vec<String> {
    let index = table.snapshot();
    let names = index.iter().filter(|entry| entry.pattern().is_match(name));
    let found: Vec<_> = names.map(|entry| entry.pattern().to_string()).collect();
    let indexed: Vec<_> = index.matches(name).unwrap().map(|entry| entry.pattern().to_string()).collect();
    assert_eq!(found, indexed);
    found
}

/// Claim B3.
#[test]
fn the_worked_example_holds() {
    let table =
        table(&[("database@prod", 100), ("prod-.*", 50), (".*@example.com", 30), ("^prod-db[0-9]+@example.com$", 200)]);
    assert_eq!(found(&table, "prod-db2@example.com"), ["^prod-db[0-9]+@example.com$", "prod-.*", ".*@example.com"]);
}

/// Claim B4.
#[test]
fn matches_come_by_descending_weight_and_equal_weights_by_insertion() {
    let table = table(&[("a", 5), ("b", -1), ("ab", 5), ("abc", i64::MAX), ("^", 5), ("$", i64::MIN)]);
    assert_eq!(found(&table, "abc"), ["abc", "a", "ab", "^", "b", "$"]);
}

/// Claim B5.
#[test]
fn a_taken_pattern_gives_the_value_back_and_changes_nothing() {
    let table = table(&[("a", 1), ("b", 1)]);
    let taken = table.insert(pattern("a"), 99, 7).unwrap_err();
    assert_eq!(taken.pattern().as_str(), "a");
    assert_eq!(taken.refusal(), Refusal::Taken);
    assert_eq!(
        taken.to_string(),
        "the pattern `a` is already in the table; remove its entry first, or use another pattern"
    );
    assert_eq!(taken.into_value(), 7);
    let index = table.snapshot();
    let entry = index.get("a").unwrap();
    assert_eq!((entry.weight(), *entry.value()), (1, 0));
    assert_eq!(found(&table, "ab"), ["a", "b"]);
    assert_eq!(table.snapshot().len(), 2);
}

/// Claim B7.
#[test]
fn two_patterns_for_the_same_name_both_stand() {
    let table = table(&[("^prod-db@example.com$", 1), ("prod-db@example.com", 2)]);
    assert_eq!(found(&table, "prod-db@example.com"), ["prod-db@example.com", "^prod-db@example.com$"]);
}

/// Claim B8.
#[test]
fn a_name_without_a_match_finds_nothing() {
    assert!(found(&table(&[("a", 1)]), "b").is_empty());
    assert!(found(&table(&[]), "b").is_empty());
}

/// Claim B9.
#[test]
fn removal_takes_the_exact_text_and_never_a_match() {
    let table = table(&[("prod-.*", 1), ("prod-db", 1)]);
    assert!(table.remove("prod-").is_none());
    assert!(table.remove("prod-db2").is_none());
    let removed = table.remove("prod-.*").unwrap();
    assert_eq!((removed.weight(), *removed.value()), (1, 0));
    assert!(table.remove("prod-.*").is_none());
    assert_eq!(found(&table, "prod-db"), ["prod-db"]);
}

#[test]
fn what_was_removed_may_be_added_again_and_comes_last() {
    let table = table(&[("a", 1), ("b", 1)]);
    let removed = table.remove("a").unwrap();
    table.insert(removed.pattern().clone(), 1, 2).unwrap();
    assert_eq!(found(&table, "ab"), ["b", "a"]);
    assert!(table.snapshot().get("a").unwrap().sequence() > removed.sequence());
}

#[test]
fn values_need_not_be_clone() {
    struct Unclonable;
    let table = PatternTable::new();
    table.insert(pattern("a"), 0, Unclonable).unwrap();
    let before = table.snapshot();
    table.remove("a");
    assert!(table.snapshot().is_empty());
    assert_eq!(before.iter().len(), 1);
}

/// A value that is counted as long as it exists anywhere.
type Counted = std::sync::Arc<()>;

#[test]
fn edits_that_fail_leave_nothing_behind_however_many_they_are() {
    let (table, value) = (PatternTable::new(), Counted::default());
    table.insert(pattern("taken"), 0, value.clone()).unwrap();
    for nth in 0..2000 {
        let failed = table.edit(|edit| {
            edit.insert(pattern(&format!("^node{nth}@host$")), 0, value.clone())?;
            edit.insert(pattern(&format!("[0-9]{nth}?[a-f]$")), 0, value.clone())?;
            edit.insert(pattern("taken"), 0, value.clone())
        });
        assert!(failed.is_err());
    }
    assert!(Counted::strong_count(&value) < 100, "{} are held", Counted::strong_count(&value));
    assert_eq!(table.snapshot().matches("taken").unwrap().count(), 1);
    assert_eq!(table.snapshot().stats().count(PatternClass::LiteralFree), 0);
}

#[test]
fn a_pattern_that_comes_and_goes_is_found_as_fast_as_ever() {
    let table = PatternTable::new();
    for nth in 0..1000 {
        table.insert(pattern(&format!("^other{nth}@host$")), 0, ()).unwrap();
    }
    for _ in 0..900 {
        table.insert(pattern("^flapping@host$"), 0, ()).unwrap();
        table.remove("^flapping@host$").unwrap();
    }
    // A look-up walks the slots behind one gram, of which the index counts only the live ones.
    let index = table.snapshot();
    let chains = Size::ALL.iter().flat_map(|size| index.tables.grams(*size).firsts());
    let walk = |mut at| {
        let mut length = 0;
        while at != NONE {
            length += 1;
            at = index.slot(at).next.load(Ordering::Acquire);
        }
        length
    };
    assert!(chains.map(walk).max().unwrap() < 40, "a chain grew with every time it came");
}

#[test]
fn a_snapshot_that_is_held_sees_what_went_and_came_again_since() {
    let table = PatternTable::new();
    // There are enough other entries that the table is not rebuilt.
    (0..100).for_each(|nth| table.insert(pattern(&format!("^other{nth}@")), 0, 0).unwrap());
    table.insert(pattern("^a@h$"), 0, 1).unwrap();
    let held = table.snapshot();
    for value in 2..50 {
        table.remove("^a@h$").unwrap();
        table.insert(pattern("^a@h$"), 0, value).unwrap();
    }
    let value = |index: &PatternIndex<i32>| *index.matches("a@h").unwrap().next().unwrap().value();
    assert_eq!((value(&held), value(&table.snapshot())), (1, 49));
    assert_eq!(*held.get("^a@h$").unwrap().value(), 1);
}

/// A value that edits its table when it is dropped.
struct Meddler(std::sync::Weak<PatternTable<Self>>);

impl Drop for Meddler {
    fn drop(&mut self) {
        if let Some(table) = self.0.upgrade() {
            table.remove("nobody");
        }
    }
}

#[test]
fn a_value_may_edit_the_table_when_it_is_dropped() {
    let table = std::sync::Arc::new(PatternTable::new());
    for nth in 0..100 {
        let value = Meddler(std::sync::Arc::downgrade(&table));
        table.insert(pattern(&format!("^node{nth}@")), 0, value).map_err(|_| ()).unwrap();
    }
    let cleared = table.edit(|edit| {
        edit.clear();
        Ok::<_, ()>(())
    });
    assert!(cleared.is_ok() && table.snapshot().is_empty());
}

#[test]
fn statistics_of_a_snapshot_do_not_change_and_count_what_lives() {
    let table = PatternTable::new();
    table.insert(pattern("prod-web.*y"), 0, 0).unwrap();
    let held = table.snapshot();
    let before = held.stats();
    for (nth, text) in ["prod-db.*x", "other-thing", "[0-9][a-f]$", "[0-9]?[g-h]$"].into_iter().enumerate() {
        table.insert(pattern(text), 0, nth as i32).unwrap();
    }
    assert_eq!(held.stats(), before);
    for text in ["prod-db.*x", "other-thing", "[0-9][a-f]$", "[0-9]?[g-h]$"] {
        table.remove(text).unwrap();
    }
    let after = table.snapshot().stats();
    assert_eq!(
        (after.buckets, after.largest_bucket, after.alone),
        (before.buckets, before.largest_bucket, before.alone)
    );
}

#[test]
fn groups_whose_members_went_are_searched_no_more() {
    let table = PatternTable::new();
    for nth in 0..2000 {
        table.insert(pattern(&format!("^node{nth}@host$")), 0, ()).unwrap();
    }
    let free = |nth: usize| format!("[0-9]{{{}}}[a-f]{{{}}}$", 1 + nth % 20, 1 + nth / 20);
    (0..300).for_each(|nth| table.insert(pattern(&free(nth)), 0, ()).unwrap());
    let full = table.snapshot().stats();
    assert!(full.automata + full.anchored_groups > 0);
    (0..300).for_each(|nth| drop(table.remove(&free(nth)).unwrap()));
    let empty = table.snapshot().stats();
    assert_eq!((empty.automata, empty.anchored_groups, empty.alone), (0, 0, 0));
}
