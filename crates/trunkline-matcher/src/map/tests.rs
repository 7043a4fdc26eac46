use crate::{PatternMap, RoutePattern};

fn pattern(text: &str) -> RoutePattern {
    RoutePattern::new(text).unwrap()
}

fn map(entries: &[(&str, i64)]) -> PatternMap<usize> {
    let mut map = PatternMap::new();
    for (number, &(text, weight)) in entries.iter().enumerate() {
        map.insert(pattern(text), weight, number).unwrap();
    }
    map
}

fn found<'m>(map: &'m PatternMap<usize>, name: &str) -> Vec<&'m str> {
    let names = map.iter().filter(|entry| entry.pattern().is_match(name));
    let found: Vec<_> = names.map(|entry| entry.pattern().as_str()).collect();
    let index = map.index();
    let indexed: Vec<_> = index.matches(name).map(|entry| entry.pattern().as_str()).collect();
    assert_eq!(found, indexed);
    found
}

/// Claim B3.
#[test]
fn the_worked_example_holds() {
    let map =
        map(&[("database@prod", 100), ("prod-.*", 50), (".*@example.com", 30), ("^prod-db[0-9]+@example.com$", 200)]);
    assert_eq!(found(&map, "prod-db2@example.com"), ["^prod-db[0-9]+@example.com$", "prod-.*", ".*@example.com"]);
}

/// Claim B4.
#[test]
fn matches_come_by_descending_weight_and_equal_weights_by_insertion() {
    let map = map(&[("a", 5), ("b", -1), ("ab", 5), ("abc", i64::MAX), ("^", 5), ("$", i64::MIN)]);
    assert_eq!(found(&map, "abc"), ["abc", "a", "ab", "^", "b", "$"]);
}

/// Claim B5.
#[test]
fn a_taken_pattern_gives_the_value_back_and_changes_nothing() {
    let mut map = map(&[("a", 1), ("b", 1)]);
    let taken = map.insert(pattern("a"), 99, 7).unwrap_err();
    assert_eq!(taken.pattern().as_str(), "a");
    assert_eq!(taken.to_string(), "the pattern `a` is taken");
    assert_eq!(taken.into_value(), 7);
    let entry = map.get("a").unwrap();
    assert_eq!((entry.weight(), *entry.value()), (1, 0));
    assert_eq!(found(&map, "ab"), ["a", "b"]);
    assert_eq!(map.len(), 2);
}

/// Claim B7.
#[test]
fn two_patterns_for_the_same_name_both_stand() {
    let map = map(&[("^prod-db@example.com$", 1), ("prod-db@example.com", 2)]);
    assert_eq!(found(&map, "prod-db@example.com"), ["prod-db@example.com", "^prod-db@example.com$"]);
}

/// Claim B8.
#[test]
fn a_name_without_a_match_finds_nothing() {
    assert!(found(&map(&[("a", 1)]), "b").is_empty());
    assert!(found(&map(&[]), "b").is_empty());
}

/// Claim B9.
#[test]
fn removal_takes_the_exact_text_and_never_a_match() {
    let mut map = map(&[("prod-.*", 1), ("prod-db", 1)]);
    assert!(map.remove("prod-").is_none());
    assert!(map.remove("prod-db2").is_none());
    let removed = map.remove("prod-.*").unwrap();
    assert_eq!((removed.weight(), *removed.value()), (1, 0));
    assert!(map.remove("prod-.*").is_none());
    assert_eq!(found(&map, "prod-db"), ["prod-db"]);
}

#[test]
fn what_was_removed_may_be_added_again_and_comes_last() {
    let mut map = map(&[("a", 1), ("b", 1)]);
    let removed = map.remove("a").unwrap();
    map.insert(removed.pattern().clone(), 1, 2).unwrap();
    assert_eq!(found(&map, "ab"), ["b", "a"]);
    assert!(map.get("a").unwrap().sequence() > removed.sequence());
}

#[test]
fn values_need_not_be_clone() {
    struct Unclonable;
    let mut map = PatternMap::new();
    map.insert(pattern("a"), 0, Unclonable).unwrap();
    let copy = map.clone();
    map.remove("a");
    assert!(map.is_empty());
    assert_eq!(copy.iter().len(), 1);
}
