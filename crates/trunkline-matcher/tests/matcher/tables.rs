//! Comparison of tables with simple models, and tests under threads.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use trunkline_matcher::{Entry, InsertError, PatternTable, RoutePattern};

#[derive(Clone, Debug)]
enum Step {
    Insert {
        pattern: usize,
        weight: i64,
    },
    Remove {
        pattern: usize,
    },
    /// Edit that is undone.
    Abandon {
        pattern: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pattern = 0..PATTERNS.len();
    prop::collection::vec(
        prop_oneof![
            3 => (pattern.clone(), -1_i64..3)
                .prop_map(|(pattern, weight)| Step::Insert { pattern, weight }),
            1 => pattern.clone().prop_map(|pattern| Step::Remove { pattern }),
            1 => pattern.prop_map(|pattern| Step::Abandon { pattern }),
        ],
        0..60,
    )
}

/// Model of a table: a plain list in the order of insertion.
#[derive(Clone, Debug, Default)]
struct Model(Vec<(&'static str, i64, usize)>);

impl Model {
    fn insert(&mut self, text: &'static str, weight: i64, value: usize) -> bool {
        let free = self.0.iter().all(|&(taken, ..)| taken != text);
        if free {
            self.0.push((text, weight, value));
        }
        free
    }

    fn remove(&mut self, text: &str) -> Option<usize> {
        let at = self.0.iter().position(|&(other, ..)| other == text)?;
        Some(self.0.remove(at).2)
    }

    fn ordered(&self) -> Vec<(&'static str, i64, usize)> {
        let mut ordered = self.0.clone();
        // The sort is stable: equal weights stay in the order of insertion.
        ordered.sort_by_key(|&(_, weight, _)| std::cmp::Reverse(weight));
        ordered
    }

    /// Compiles each pattern again and tests it.
    fn matches(&self, name: &str) -> Vec<usize> {
        let found = self.ordered().into_iter();
        found.filter(|(text, ..)| RoutePattern::new(text).unwrap().is_match(name)).map(|(.., value)| value).collect()
    }
}

fn pattern(text: &str) -> RoutePattern {
    RoutePattern::new(text).unwrap()
}

proptest! {
    #[test]
    fn a_table_after_any_edits_equals_the_list_of_remaining_entries(
        steps in steps(),
        name in "(prod|test)?-?(db|cache)?[0-9]?@(eu|us)?(\\.example\\.com)?",
    ) {
        let table = PatternTable::new();
        let mut model = Model::default();
        for (value, step) in steps.into_iter().enumerate() {
            let before = table.snapshot();
            let unchanged = model.clone();
            match step {
                Step::Insert { pattern: at, weight } => {
                    let text = PATTERNS[at];
                    let inserted = table.edit(|map| map.insert(pattern(text), weight, value));
                    prop_assert_eq!(inserted.is_ok(), model.insert(text, weight, value));
                    if let Err(taken) = inserted {
                        prop_assert_eq!(taken.into_value(), value);
                    }
                }
                Step::Remove { pattern: at } => {
                    let removed = table.edit(|map| Ok::<_, ()>(map.remove(PATTERNS[at]))).unwrap();
                    let removed = removed.map(|entry| *entry.value());
                    prop_assert_eq!(removed, model.remove(PATTERNS[at]));
                }
                Step::Abandon { pattern: at } => {
                    let abandoned: Result<(), ()> = table.edit(|map| {
                        map.remove(PATTERNS[at]);
                        let _ = map.insert(pattern("an unwanted one"), 9, value);
                        Err(())
                    });
                    prop_assert!(abandoned.is_err());
                }
            }
            let left = |entry: &Entry<usize>| (entry.pattern().to_string(), entry.weight(), *entry.value());
            let expected = |model: &Model| -> Vec<_> {
                let ordered = model.ordered().into_iter();
                ordered.map(|(text, weight, value)| (text.to_owned(), weight, value)).collect()
            };
            prop_assert_eq!(before.iter().map(left).collect::<Vec<_>>(), expected(&unchanged));
            let index = table.snapshot();
            prop_assert_eq!(index.len(), model.0.len());
            prop_assert_eq!(index.is_empty(), model.0.is_empty());
            prop_assert_eq!(index.iter().map(left).collect::<Vec<_>>(), expected(&model));
        }
        let index = table.snapshot();
        let found: Vec<_> = index.matches(&name).unwrap().map(|entry| *entry.value()).collect();
        prop_assert_eq!(found, model.matches(&name));
    }

    #[test]
    fn a_table_finds_what_its_patterns_find_one_by_one(
        chosen in prop::collection::vec((0..PATTERNS.len(), -2_i64..3), 0..20),
        names in prop::collection::vec(any::<String>(), 4),
        near in prop::collection::vec("[prodtesbch0-9@.-]{0,12}", 4),
    ) {
        let map = PatternTable::new();
        let mut model = Model::default();
        for (value, (at, weight)) in chosen.into_iter().enumerate() {
            let inserted = map.insert(pattern(PATTERNS[at]), weight, value).is_ok();
            prop_assert_eq!(inserted, model.insert(PATTERNS[at], weight, value));
        }
        let index = map.snapshot();
        for name in names.iter().chain(&near) {
            let found: Vec<_> = index.matches(name).unwrap().map(|entry| *entry.value()).collect();
            prop_assert_eq!(found, model.matches(name), "{:?}", name);
        }
    }

    #[test]
    fn equal_weights_keep_the_order_of_insertion(
        texts in Just(PATTERNS.to_vec()).prop_shuffle(),
        weight in any::<i64>(),
    ) {
        let map = PatternTable::new();
        for &text in &texts {
            map.insert(pattern(text), weight, ()).unwrap();
        }
        let index = map.snapshot();
        let order: Vec<_> = index.iter().map(|entry| entry.pattern().as_str()).collect();
        prop_assert_eq!(order, texts);
    }
}

/// Checks that a reader sees all of an edit or none: each edit replaces every value by the number of the edit, so a
/// reader that saw half of one would see two numbers.
#[test]
fn readers_see_whole_edits_only_and_in_their_order() {
    const EDITS: u32 = 300;
    const READERS: usize = 3;
    let table = PatternTable::new();
    let patterns: Vec<_> = PATTERNS.iter().map(|text| pattern(text)).collect();
    let replace = |number: u32| {
        let replaced = table.edit(|map| {
            for pattern in &patterns {
                map.remove(pattern.as_str());
                map.insert(pattern.clone(), 0, number)?;
            }
            Ok::<_, InsertError<u32>>(())
        });
        replaced.unwrap();
    };
    replace(0);
    let done = AtomicBool::new(false);
    let start = Barrier::new(READERS + 1);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                start.wait();
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let index = table.snapshot();
                    assert_eq!(index.len(), patterns.len());
                    let numbers: BTreeSet<_> = index.iter().map(|entry| *entry.value()).collect();
                    assert_eq!(numbers.len(), 1, "{numbers:?}");
                    let number = numbers.into_iter().next().unwrap_or_default();
                    assert!(last <= number, "{last} came before {number}");
                    assert!(index.matches("prod-db1@eu.example.com").unwrap().count() > 3);
                    last = number;
                }
            });
        }
        start.wait();
        (1..=EDITS).for_each(replace);
        done.store(true, Ordering::Release);
    });
    let index = table.snapshot();
    assert!(index.iter().all(|entry| *entry.value() == EDITS));
}

#[test]
fn edits_from_many_threads_are_all_kept() {
    let table = PatternTable::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let table = &table;
            scope.spawn(move || {
                for number in 0..25 {
                    let text = format!("^{thread}-{number}$");
                    table.edit(|map| map.insert(pattern(&text), 0, ())).unwrap();
                }
            });
        }
    });
    let index = table.snapshot();
    assert_eq!(index.len(), 100);
    let sequences: BTreeSet<_> = index.iter().map(|entry| entry.sequence()).collect();
    assert_eq!(sequences.len(), 100);
}

const PATTERNS: &[&str] = &[
    "",
    "^",
    "prod",
    "prod-.*",
    "^prod-db",
    "test",
    "^test-cache[0-9]@",
    "@eu",
    "@us$",
    r".*@eu\.example\.com$",
    "(?i)DB",
    "(?i)^PROD-",
    r"\d@",
    "[0-9]+",
    "^[^@]*@$",
    "db|cache",
    r"\bdb\d\b",
    "é",
    r"\pL",
    "a{,3}",
    ".",
    r"^\PL*$",
    "prod-db1@eu.example.com",
    "$",
];
