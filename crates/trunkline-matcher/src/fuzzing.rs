//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::cmp::Reverse;

use crate::{AccessPattern, PatternIndex, PatternTable, RoutePattern, TablePattern};

/// A target: its name, its body, which panics when a property does not hold, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("lookup", lookup, lookup_seeds), ("syntax", syntax, syntax_seeds)];

/// Most patterns of one table. More patterns find no more faults, and each costs the time of a compilation.
const MAX_PATTERNS: usize = 16;

/// Checks that a table gives the same answers as its patterns tested one by one, in order, also after some were
/// removed. The last line is a name and each other line a pattern, whose first byte, if it is a digit, is its weight. A
/// pattern after `=` must match the whole name.
pub fn lookup(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (lines, name) = text.rsplit_once('\n').unwrap_or(("", text));
    let table = PatternTable::new();
    let mut list: Vec<(i64, usize, TablePattern)> = Vec::new();
    for line in lines.split('\n').take(MAX_PATTERNS) {
        let digit = line.bytes().next().filter(u8::is_ascii_digit);
        let weight = i64::from(digit.unwrap_or(b'0') - b'0');
        let text = &line[usize::from(digit.is_some())..];
        let pattern = match text.strip_prefix('=') {
            Some(text) => AccessPattern::new(text).map(TablePattern::from),
            None => RoutePattern::new(text).map(TablePattern::from),
        };
        let Ok(pattern) = pattern else { continue };
        let value = list.len();
        let inserted = table.insert(pattern.clone(), weight, value);
        let taken = list.iter().any(|(_, _, other)| other.as_str() == pattern.as_str());
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
}

fn check(snapshot: &PatternIndex<usize>, list: &[(i64, usize, TablePattern)], name: &str) {
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

/// Returns patterns of every class, with a name.
pub fn lookup_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "^db@\n5-worker-\\d+@\n1.*\n(?i)DB@example[.]com$\ndb@example.com",
        "a|b\n9[ab]c*\n\\p{L}+\n^(?:a|bc)@h$\nbc@h",
        "=db\n5=db\\d|cache\n=.*\n2db\ndb7",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Checks that any text is either a pattern or refused at a place inside it, and that every pattern answers any name.
/// The first line is the pattern, and the rest is a name.
pub fn syntax(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let whole = AccessPattern::new(pattern);
    match RoutePattern::new(pattern) {
        Ok(anywhere) => {
            assert_eq!(anywhere.as_str(), pattern);
            let found = anywhere.is_match(name);
            // One of the two alone may exceed a size limit.
            if let Ok(whole) = whole {
                assert!(found || !whole.is_match(name), "{pattern:?} matches all of {name:?} and is not found in it");
            }
        }
        Err(error) => {
            let span = error.span();
            assert!(span.start <= span.end && span.end <= pattern.len(), "{span:?} of {pattern:?}");
            assert!(pattern.is_char_boundary(span.start) && pattern.is_char_boundary(span.end), "{span:?}");
            assert_eq!(error.to_string().lines().count(), 1);
            assert_eq!(error.caret().lines().count(), 2);
        }
    }
}

/// Returns patterns with every construct of the syntax.
pub fn syntax_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "^(?:prod|test)-db-[0-9]{2,3}@.*$\nprod-db-12@h",
        "(?i)\\p{Greek}|[[:alpha:]\\d\\x{10FFFF}]+?\nb",
        "\\Qa.b\\E\\b(?P<n>x)(?s:.)\\pL\\W\na.b",
        "(?i)[^k]\\z\nK",
        "a{2}{3}",
        "[z-a]",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
