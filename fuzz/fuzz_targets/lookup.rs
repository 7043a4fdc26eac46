//! A table answers as its patterns do one by one.
//!
//! The last line is a name and each other one a pattern, whose first byte, if
//! it is a digit, is its weight.

#![no_main]

use std::cmp::Reverse;
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use trunkline_matcher::{PatternTable, RoutePattern};

/// More do not find more, and each costs the time of a compilation.
const MAX_PATTERNS: usize = 16;

fuzz_target!(|text: &str| {
    let (lines, name) = text.rsplit_once('\n').unwrap_or(("", text));
    let table = PatternTable::new();
    let mut list = Vec::new();
    for line in lines.split('\n').take(MAX_PATTERNS) {
        let digit = line.bytes().next().filter(u8::is_ascii_digit);
        let weight = i64::from(digit.unwrap_or(b'0') - b'0');
        let Ok(pattern) = RoutePattern::new(&line[usize::from(digit.is_some())..]) else { continue };
        let value = list.len();
        let inserted = table.edit(|map| map.insert(pattern.clone(), weight, value));
        let taken = list.iter().any(|(_, _, other)| *other == pattern);
        assert_eq!(inserted.is_err(), taken, "{pattern}");
        if !taken {
            list.push((weight, value, pattern));
        }
    }
    check(&table, &list, name);
    let (removed, kept): (Vec<_>, Vec<_>) = list.into_iter().partition(|(_, value, _)| value % 3 == 1);
    let done = table.edit(|map| {
        for (.., pattern) in &removed {
            assert!(map.remove(pattern.as_str()).is_some(), "{pattern}");
        }
        Ok::<_, Infallible>(())
    });
    assert!(done.is_ok());
    check(&table, &kept, name);
});

fn check(table: &PatternTable<usize>, list: &[(i64, usize, RoutePattern)], name: &str) {
    let mut expected: Vec<_> = list.iter().filter(|(.., pattern)| pattern.is_match(name)).collect();
    expected.sort_by_key(|(weight, value, _)| (Reverse(*weight), *value));
    let expected: Vec<_> = expected.into_iter().map(|(_, value, _)| *value).collect();
    let snapshot = table.snapshot();
    let found: Vec<_> = snapshot.matches(name).map(|entry| *entry.value()).collect();
    assert_eq!(found, expected, "{list:?} on {name:?}");
}
