//! Comparison of a table with the simplest implementation: each pattern's automaton, untrimmed, one after another.

use std::cmp::Reverse;
use std::collections::HashSet;

use proptest::prelude::*;

use crate::engine::{Cache, Engine};
use crate::limits::Limits;
use crate::{AccessPattern, InsertError, PatternIndex, PatternTable, RoutePattern, TableLimits, TablePattern, syntax};

/// Parts that make patterns of every class: text, wildcards, classes, assertions, folding, repetitions.
const PARTS: &[&str] = &[
    "(?i:kubesk)",
    "eu(?:-x)+db",
    ".{3}",
    "[a-z]{2,5}",
    "prod",
    "-",
    "db",
    "@",
    ".",
    ".*",
    "eu",
    "west",
    "[0-9]",
    "[0-9]+",
    "[a-z]",
    "[a-z]+",
    "\\d*",
    "\\d{2}",
    "(eu|us)",
    "(?i)K",
    "(?i)s",
    "(?i:gateway)",
    "-?",
    "[^@]",
    "[^@]*",
    "\\b",
    "\\B",
    "^",
    "$",
    "(?m)^",
    "(?m)$",
    "x",
    "é",
    "(?s).",
    "(?s).*",
    ".+",
    ".?",
    "example",
    "\\.",
    "com",
    "(db|cache)?",
    "(a|bc)+",
    "\\pL",
    "\\PL",
    "(?:prod-)+",
    "a{3}",
    "(?:ab){2,3}",
    "\n",
    "[kK\u{212a}]",
    "",
    "|",
    "cluster-seventeen",
    "[a-c][d-f]-",
    "z{0}",
    "\\s",
    "1",
];

/// Parts of names, chosen so that patterns of the parts above are found in them now and then.
const NAMES: &[&str] = &[
    "\u{212a}ubeS\u{212a}",
    "kubesk",
    "eu-x-xdb",
    "prod",
    "-",
    "db",
    "@",
    ".",
    "eu",
    "us",
    "west",
    "0",
    "7",
    "42",
    "a",
    "b",
    "c",
    "bc",
    "x",
    "é",
    "\n",
    "\u{212a}",
    "K",
    "k",
    "\u{17f}",
    "S",
    "s",
    "gateway",
    "GateWay",
    "example",
    ".com",
    "PROD",
    "cache",
    "prod-prod-",
    "aaa",
    "abab",
    "cluster-seventeen",
    "ad-",
    " ",
    "z",
    "1",
    "日本",
];

fn text(parts: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(parts), 0..most).prop_map(|parts| parts.concat())
}

fn oracle(text: &str) -> Option<Engine> {
    let hir = syntax::parse(text, &Limits::new()).ok()?;
    Engine::of(&hir, usize::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1200))]

    #[test]
    fn a_table_finds_what_plain_automata_find(
        texts in prop::collection::vec(text(PARTS, 7), 1..60),
        names in prop::collection::vec(text(NAMES, 8), 30),
        long in text(NAMES, 120),
        // Sometimes there are enough removals for the table to be rebuilt.
        removed in prop_oneof![3 => Just(10), 1 => Just(120)]
            .prop_flat_map(|most| prop::collection::vec(any::<prop::sample::Index>(), 0..most)),
        at_once in any::<bool>(),
    ) {
        let table = PatternTable::new();
        let mut plain: Vec<(String, i64, usize, Engine)> = Vec::new();
        let parsed = |text: &String| Some((RoutePattern::new(text).ok()?, oracle(text)?));
        let add = |entries: &[(usize, &String)]| -> Vec<_> {
            table
                .edit(|edit| {
                    let mut added = Vec::new();
                    for &(value, text) in entries {
                        let (Some((pattern, engine)), weight) = (parsed(text), (value % 3) as i64) else { continue };
                        if edit.insert(pattern, weight, value).is_ok() {
                            added.push((text.clone(), weight, value, engine));
                        }
                    }
                    Ok::<_, InsertError<usize>>(added)
                })
                .unwrap()
        };
        let entries: Vec<_> = texts.iter().enumerate().collect();
        let mut reader = table.reader().cached(8);
        for part in entries.chunks(if at_once { entries.len() } else { 1 }) {
            plain.extend(add(part));
        }
        let (before, values_before) = (table.snapshot(), plain.iter().map(|(_, _, value, _)| *value).collect::<HashSet<_>>());
        let before_edit: Vec<_> = reader.matches(&names[0]).unwrap().map(|entry| *entry.value()).collect();
        let answers = |index: &PatternIndex<usize>| -> Vec<Vec<usize>> {
            let answer = |name: &String| index.matches(name).unwrap().map(|entry| *entry.value()).collect();
            names.iter().map(answer).collect()
        };
        let answers_before = answers(&before);
        for index in removed {
            if !plain.is_empty() {
                let (text, ..) = plain.remove(index.index(plain.len()));
                prop_assert!(table.remove(&text).is_some());
            }
        }
        let refused = table.edit(|edit| {
            for (value, text) in texts.iter().enumerate() {
                if let Ok(pattern) = RoutePattern::new(&format!("{text}[0-9]?")) {
                    let _ = edit.insert(pattern, 7, value);
                }
            }
            edit.clear();
            Err::<(), _>(())
        });
        prop_assert!(refused.is_err());
        let further = table.insert(RoutePattern::new("further|").unwrap(), 9, usize::MAX);
        prop_assert!(further.is_ok());
        plain.push(("further|".into(), 9, usize::MAX, oracle("further|").unwrap()));
        let filed = RoutePattern::new(&regex_syntax::escape(&names[0]));
        if let Ok(pattern) = filed
            && plain.iter().all(|(text, ..)| text != pattern.as_str())
        {
            plain.push((pattern.to_string(), 8, usize::MAX - 1, oracle(pattern.as_str()).unwrap()));
            prop_assert!(table.insert(pattern, 8, usize::MAX - 1).is_ok());
        }
        prop_assert_eq!(&before_edit, &answers_before[0]);
        prop_assert_eq!(answers(&before), answers_before);
        prop_assert_eq!(before.iter().map(|entry| *entry.value()).collect::<HashSet<_>>(), values_before);
        plain.sort_by_key(|(_, weight, value, _)| (Reverse(*weight), *value));
        let index = table.snapshot();
        let mut cache = Cache::default();
        let long: String = long.chars().take(80).collect();
        for name in names.iter().chain([&long]) {
            let found: Vec<_> = index.matches(name).unwrap().map(|entry| *entry.value()).collect();
            let naive: Vec<_> = plain.iter().filter(|(.., engine)| engine.is_match(name, &mut cache)).collect();
            prop_assert_eq!(
                found.clone(),
                naive.iter().map(|(_, _, value, _)| *value).collect::<Vec<_>>(),
                "{:?} in {:?}", name, plain.iter().map(|(text, _, value, _)| (value, text)).collect::<Vec<_>>(),
            );
            for _ in 0..2 {
                let again: Vec<_> = reader.matches(name).unwrap().map(|entry| *entry.value()).collect();
                prop_assert_eq!(&found, &again);
            }
        }
    }
}

#[test]
fn names_of_every_length_are_searched_alike() {
    let table = PatternTable::with_limits(TableLimits::new().name_bytes(usize::MAX));
    let texts = ["a(b|cd)+e$", "^x[b-d]{1,9000}e", "(?s)^.*cdbe$", "b[^x]+e", r"(\d|b)\b", "^[^e]*e$", "c.{40}e", "é"];
    for (value, text) in texts.iter().enumerate() {
        // Go's limit on counts is raised for a name this long.
        table.insert(RoutePattern::with_limits(text, &Limits::new().repeat(9000)).unwrap(), 0, value).unwrap();
    }
    let mut cache = Cache::default();
    let limits = Limits::new().repeat(9000);
    let engines: Vec<_> =
        texts.iter().map(|text| Engine::of(&syntax::parse(text, &limits).unwrap(), usize::MAX).unwrap()).collect();
    let index = table.snapshot();
    for times in [1, 2, 10, 20, 21, 40, 63, 64, 84, 85, 200, 1364, 1365, 1366, 2000] {
        for (start, end) in [("a", "e"), ("x", "e"), ("", "e\n"), ("é", "be")] {
            let name = format!("{start}{}{end}", "bcd".repeat(times));
            let found: Vec<_> = index.matches(&name).unwrap().map(|entry| *entry.value()).collect();
            let plain: Vec<_> = (0..texts.len()).filter(|&at| engines[at].is_match(&name, &mut cache)).collect();
            assert_eq!(found, plain, "{start} {times} {end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_table_finds_what_patterns_of_both_kinds_match_one_by_one(
        entries in prop::collection::vec((any::<bool>(), mask()), 1..60),
        names in prop::collection::vec(text(NAMES, 4), 30),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let table = PatternTable::new();
        let mut plain: Vec<(Alone, i64, usize)> = Vec::new();
        for (value, (whole, mask)) in entries.iter().enumerate() {
            let text = like(&names[value % names.len()], mask);
            let (pattern, weight) = (Alone::new(&text, *whole), (value % 3) as i64);
            let taken = plain.iter().any(|(other, ..)| other.pattern().as_str() == text);
            prop_assert_eq!(table.insert(pattern.pattern(), weight, value).is_err(), taken);
            if !taken {
                plain.push((pattern, weight, value));
            }
        }
        let before = (table.snapshot(), plain.clone());
        for index in removed {
            if !plain.is_empty() {
                let pattern = plain.remove(index.index(plain.len())).0.pattern();
                let entry = table.remove(pattern.as_str());
                prop_assert_eq!(entry.map(|entry| entry.pattern().is_whole()), Some(pattern.is_whole()));
            }
        }
        for (index, mut plain) in [before, (table.snapshot(), plain)] {
            plain.sort_by_key(|(_, weight, value)| (Reverse(*weight), *value));
            for name in &names {
                let found: Vec<_> = index.matches(name).unwrap().map(|entry| *entry.value()).collect();
                let matching = plain.iter().filter(|(pattern, ..)| pattern.is_match(name));
                let expected: Vec<_> = matching.map(|(.., value)| *value).collect();
                prop_assert_eq!(found, expected, "{:?} in {:?}", name, plain);
            }
        }
    }
}

/// A pattern of either kind, to be tested alone.
#[derive(Clone, Debug)]
enum Alone {
    Anywhere(RoutePattern),
    Whole(AccessPattern),
}

impl Alone {
    fn new(text: &str, whole: bool) -> Self {
        match whole {
            true => Self::Whole(AccessPattern::new(text).unwrap()),
            false => Self::Anywhere(RoutePattern::new(text).unwrap()),
        }
    }

    fn pattern(&self) -> TablePattern {
        match self {
            Self::Anywhere(pattern) => pattern.clone().into(),
            Self::Whole(pattern) => pattern.clone().into(),
        }
    }

    fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Anywhere(pattern) => pattern.is_match(name),
            Self::Whole(pattern) => pattern.is_match(name),
        }
    }
}

/// A choice for each character of a name, and one for the end.
fn mask() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..12u8, 12)
}

/// Returns a pattern that matches a name, or nearly.
fn like(name: &str, mask: &[u8]) -> String {
    let choices = mask.iter().cycle();
    let mut text: String = name
        .chars()
        .zip(choices)
        .map(|(c, choice)| match choice {
            0 => "(?s:.)".to_owned(),
            1 => "(?s:.*)".to_owned(),
            2 => format!("(?:{}|x)+", regex_syntax::escape(&c.to_string())),
            3 => format!("(?i:{})?", regex_syntax::escape(&c.to_string())),
            4 => "[^@]".to_owned(),
            _ => regex_syntax::escape(&c.to_string()),
        })
        .collect();
    text.push_str(["", "", ".*", "|db", "$", "[0-9]*"][usize::from(mask[0]) % 6]);
    text
}
