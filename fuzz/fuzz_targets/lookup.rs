//! A table answers as its patterns do one by one.
//!
//! The last line is a name and each other one a pattern, whose first byte, if
//! it is a digit, is its weight.

#![no_main]

use std::cmp::Reverse;

use libfuzzer_sys::fuzz_target;
use trunkline_matcher::{PatternIndex, PatternTable, RoutePattern};

/// More do not find more, and each costs the time of a compilation.
const MAX_PATTERNS: usize = 16;

fuzz_target!(|text: &str| {
    let (lines, name) = text.rsplit_once('\n').unwrap_or(("", text));
    let table = PatternTable::new();
    let mut list: Vec<(i64, usize, RoutePattern)> = Vec::new();
    for line in lines.split('\n').take(MAX_PATTERNS) {
        let digit = line.bytes().next().filter(u8::is_ascii_digit);
        let weight = i64::from(digit.unwrap_or(b'0') - b'0');
        let Ok(pattern) = RoutePattern::new(&line[usize::from(digit.is_some())..]) else { continue };
        let value = list.len();
        let inserted = table.insert(pattern.clone(), weight, value);
        let taken = list.iter().any(|(_, _, other)| *other == pattern);
        assert_eq!(inserted.is_err(), taken, "{pattern}");
        if !taken {
            list.push((weight, value, pattern));
        }
    }
    check(&table.snapshot(), &list, name);
    let before = table.snapshot();
    let (removed, kept): (Vec<_>, Vec<_>) = list.iter().cloned().partition(|(_, value, _)| value % 3 == 1);
    for (.., pattern) in &removed {
        assert!(table.remove(pattern.as_str()).is_some(), "{pattern}");
    }
    check(&table.snapshot(), &kept, name);
    check(&before, &list, name);
});

fn check(snapshot: &PatternIndex<usize>, list: &[(i64, usize, RoutePattern)], name: &str) {
    let mut expected: Vec<_> = list.iter().filter(|(.., pattern)| pattern.is_match(name)).collect();
    expected.sort_by_key(|(weight, value, _)| (Reverse(*weight), *value));
    let expected: Vec<_> = expected.into_iter().map(|(_, value, _)| *value).collect();
    let Ok(found) = snapshot.matches(name) else {
        assert!(name.len() > 255);
        return;
    };
    let found: Vec<_> = found.map(|entry| *entry.value()).collect();
    assert_eq!(found, expected, "{list:?} on {name:?}");
}
