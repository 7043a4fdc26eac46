//! Comparison with Go of the meaning of patterns, case by case: the files in `tests/data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

use regex_automata::meta;
use toml_edit::{DocumentMut, Table, Value};
use trunkline_matcher::{PatternErrorKind, PatternTable, RoutePattern, TableLimits};

#[derive(Debug)]
struct Case {
    file: String,
    group: String,
    pattern: String,
    /// Names, each with whether Go finds the pattern in it.
    names: Vec<(String, bool)>,
    /// True if Go refuses the pattern.
    refused: bool,
    /// Reason and place of the refusal by this crate.
    fault: Option<(String, Range<usize>)>,
    /// True if this crate accepts the pattern although Go refuses it for its size.
    accepted: bool,
}

#[test]
fn every_pattern_means_what_it_means_in_go() {
    let cases = cases();
    let wrong: Vec<_> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_table_of_all_of_them_finds_what_each_one_finds() {
    let map = PatternTable::with_limits(TableLimits::new().name_bytes(usize::MAX));
    let mut list = Vec::new();
    let mut names = BTreeSet::new();
    for (at, case) in cases().into_iter().filter(|case| case.fault.is_none()).enumerate() {
        let weight = case.pattern.len() as i64 % 7;
        let pattern = RoutePattern::new(&case.pattern).unwrap();
        map.insert(pattern.clone(), weight, at).unwrap();
        list.push((weight, at, pattern));
        names.extend(case.names.into_iter().map(|(name, _)| name));
    }
    list.sort_by_key(|&(weight, at, _)| (-weight, at));
    let index = map.snapshot();
    for name in &names {
        let found: Vec<_> = index.matches(name).unwrap().map(|entry| *entry.value()).collect();
        let each = list.iter().filter(|(.., alone)| alone.is_match(name));
        let each: Vec<_> = each.map(|&(_, at, _)| at).collect();
        assert_eq!(found, each, "{name:?}");
    }
}

/// Checks that each group of the file of differences contains a difference between Go's syntax and Rust's own.
#[test]
fn each_group_of_differences_shows_one_and_the_last_shows_none() {
    let mut differs: BTreeMap<String, bool> = BTreeMap::new();
    for case in cases().into_iter().filter(|case| case.file == "differences") {
        let in_rust = meta::Regex::new(&case.pattern);
        let different = match &in_rust {
            Ok(rust) => case.refused || case.names.iter().any(|(name, found)| rust.is_match(name) != *found),
            Err(_) => !case.refused,
        };
        if case.group == "the-same-in-both" {
            assert!(!different, "{}", place(&case));
        }
        *differs.entry(case.group).or_default() |= different;
    }
    assert_eq!(differs.len(), 22, "{differs:?}");
    let same: Vec<_> = differs.iter().filter(|(_, differs)| !**differs).map(|(group, _)| group.as_str()).collect();
    assert_eq!(same, ["the-same-in-both"]);
}

#[test]
fn there_are_cases_of_every_kind() {
    let cases = cases();
    assert!(cases.len() > 1000, "only {} cases were read", cases.len());
    let patterns: BTreeSet<_> = cases.iter().map(|case| &case.pattern).collect();
    assert_eq!(patterns.len(), cases.len(), "a pattern has more than one case");
    let reasons: BTreeSet<_> = cases.iter().filter_map(|case| Some(case.fault.as_ref()?.0.as_str())).collect();
    let expected = [
        "BadEscape",
        "BadFlags",
        "BadGroupName",
        "BadRange",
        "BadRepeat",
        "NestedRepeat",
        "NothingToRepeat",
        "TrailingBackslash",
        "UnclosedClass",
        "UnclosedGroup",
        "UnknownClass",
        "UnopenedGroup",
        "nesting",
        "nfa_bytes",
        "pattern_bytes",
        "repeat",
    ];
    assert_eq!(reasons, BTreeSet::from(expected));
}

fn check(case: &Case) -> Result<(), String> {
    let place = place(case);
    if case.names.is_empty() && !case.refused {
        return Err(format!("{place}: there is no answer from Go: cargo xtask corpus"));
    }
    match (RoutePattern::new(&case.pattern), &case.fault) {
        (Ok(compiled), None) => {
            if case.refused != case.accepted {
                return Err(format!("{place}: should be refused"));
            }
            let wrong = case.names.iter().find(|(name, found)| compiled.is_match(name) != *found);
            wrong.map_or(Ok(()), |(name, found)| Err(format!("{place}: on {name:?} should be {found}")))
        }
        (Err(error), Some(fault)) => {
            let found = (reason(error.kind()), error.span());
            if found == *fault { Ok(()) } else { Err(format!("{place}: gave {found:?} and not {fault:?}")) }
        }
        (Ok(_), Some(_)) => Err(format!("{place}: should be refused")),
        (Err(error), None) => Err(format!("{place}: {error}")),
    }
}

/// Returns the name of a reason in the files.
fn reason(kind: &PatternErrorKind) -> String {
    match kind {
        PatternErrorKind::Limit { limit, .. } => limit.to_string(),
        kind => format!("{kind:?}"),
    }
}

fn place(case: &Case) -> String {
    let pattern: String = case.pattern.chars().take(60).collect();
    format!("{}.toml: {}: `{pattern}`", case.file, case.group)
}

fn cases() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let document: DocumentMut = fs::read_to_string(&path).unwrap().parse().unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap();
        for (group, item) in document.iter() {
            let tables = item.as_array_of_tables().unwrap();
            cases.extend(tables.iter().map(|table| case(file, group, table)));
        }
    }
    cases
}

fn case(file: &str, group: &str, table: &Table) -> Case {
    let string = |key: &str| table.get(key).map(|item| item.as_str().expect(key).to_owned());
    let span = || {
        let span = table["span"].as_array().expect("a span");
        let at = |at: usize| span.get(at).and_then(Value::as_integer).expect("an offset") as usize;
        at(0)..at(1)
    };
    let mut names = Vec::new();
    for (key, found) in [("found", true), ("missed", false)] {
        let list = table.get(key).and_then(|item| item.as_array());
        names.extend(list.into_iter().flatten().map(|name| (text(name), found)));
    }
    Case {
        file: file.to_owned(),
        group: group.to_owned(),
        pattern: text(table["pattern"].as_value().expect("a pattern")),
        names,
        refused: string("refused").is_some(),
        fault: string("kind").or_else(|| string("limit")).map(|reason| (reason, span())),
        accepted: table.get("accepted").is_some(),
    }
}

/// Reads a text, or a list of pieces: texts, and texts with a count.
fn text(value: &Value) -> String {
    let Some(pieces) = value.as_array() else {
        return value.as_str().expect("a text").to_owned();
    };
    let piece = |piece: &Value| match piece.as_array() {
        None => piece.as_str().expect("a text").to_owned(),
        Some(pair) => {
            let count = pair.get(1).and_then(Value::as_integer).expect("a count");
            pair.get(0).and_then(Value::as_str).expect("a text").repeat(count as usize)
        }
    };
    pieces.iter().map(piece).collect()
}
