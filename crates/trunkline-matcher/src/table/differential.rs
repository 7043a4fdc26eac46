//! A table beside the plainest thing there is: each pattern's automaton, untrimmed, one after another.

use std::cmp::Reverse;

use proptest::prelude::*;

use crate::engine::{Cache, Engine};
use crate::limits::Limits;
use crate::{InsertError, PatternTable, RoutePattern, syntax};

/// Parts that make patterns of every class: text, wildcards, classes, looks, what folds, what repeats.
const PARTS: &[&str] = &[
    "prod", "-", "db", "@", ".", ".*", "eu", "west", "[0-9]", "[0-9]+", "[a-z]", "[a-z]+", "\\d*", "\\d{2}", "(eu|us)",
    "(?i)K", "(?i)s", "(?i:gateway)", "-?", "[^@]", "[^@]*", "\\b", "\\B", "^", "$", "(?m)^", "(?m)$", "x", "é", "(?s).",
    "(?s).*", ".+", ".?", "example", "\\.", "com", "(db|cache)?", "(a|bc)+", "\\pL", "\\PL", "(?:prod-)+", "a{3}",
    "(?:ab){2,3}", "\n", "[kK\u{212a}]", "", "|", "cluster-seventeen", "[a-c][d-f]-", "z{0}", "\\s", "1",
];

/// Parts of names, so chosen that patterns of the above are found in them now and then.
const NAMES: &[&str] = &[
    "prod", "-", "db", "@", ".", "eu", "us", "west", "0", "7", "42", "a", "b", "c", "bc", "x", "é", "\n", "\u{212a}", "K",
    "k", "\u{17f}", "S", "s", "gateway", "GateWay", "example", ".com", "PROD", "cache", "prod-prod-", "aaa", "abab",
    "cluster-seventeen", "ad-", " ", "z", "1", "日本",
];

fn text(parts: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(parts), 0..most).prop_map(|parts| parts.concat())
}

fn oracle(text: &str) -> Option<Engine> {
    let hir = syntax::parse(text, &Limits::new()).ok()?;
    Engine::of(&hir, usize::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_table_finds_what_plain_automata_find(
        texts in prop::collection::vec(text(PARTS, 7), 1..60),
        names in prop::collection::vec(text(NAMES, 8), 30),
        long in text(NAMES, 120),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
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
        for part in entries.chunks(if at_once { entries.len() } else { 1 }) {
            plain.extend(add(part));
        }
        for index in removed {
            if !plain.is_empty() {
                let (text, ..) = plain.remove(index.index(plain.len()));
                prop_assert!(table.remove(&text).is_some());
            }
        }
        plain.sort_by_key(|(_, weight, value, _)| (Reverse(*weight), *value));
        let index = table.snapshot();
        let mut reader = table.reader().cached(8);
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
