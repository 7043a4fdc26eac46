//! The meaning of patterns in Go, case by case.

use trunkline_matcher::{PatternTable, RoutePattern};

const CORPUS: &str = include_str!("../data/patterns.txt");

#[derive(Debug)]
struct Case {
    line: usize,
    pattern: &'static str,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    Found { name: String, found: bool },
    Refused { kind: &'static str, span: &'static str },
}

#[test]
fn every_pattern_means_what_it_means_in_go() {
    let cases = cases();
    assert!(cases.len() > 400, "only {} cases were read", cases.len());
    let wrong: Vec<_> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_table_of_all_of_them_finds_what_each_one_finds() {
    let map = PatternTable::new();
    let mut list = Vec::new();
    let mut names = Vec::new();
    for case in cases() {
        let Expected::Found { name, .. } = case.expected else {
            continue;
        };
        names.push(name);
        let weight = case.pattern.len() as i64 % 7;
        let pattern = RoutePattern::new(case.pattern).unwrap();
        // A pattern has a case for each of its names.
        if map.insert(pattern, weight, case.line).is_ok() {
            let alone = RoutePattern::new(case.pattern).unwrap();
            list.push((weight, case.line, alone));
        }
    }
    list.sort_by_key(|&(weight, line, _)| (-weight, line));
    let index = map.snapshot();
    for name in &names {
        let found: Vec<_> = index.matches(name).unwrap().map(|entry| *entry.value()).collect();
        let each = list.iter().filter(|(.., alone)| alone.is_match(name));
        let each: Vec<_> = each.map(|&(_, line, _)| line).collect();
        assert_eq!(found, each, "{name:?}");
    }
}

fn check(case: &Case) -> Result<(), String> {
    let Case { line, pattern, expected } = case;
    let answer = RoutePattern::new(pattern);
    match (expected, &answer) {
        (Expected::Found { name, found }, Ok(compiled)) => {
            if compiled.is_match(name) != *found {
                return Err(format!("line {line}: `{pattern}` on {name:?} should be {found}"));
            }
        }
        (Expected::Refused { kind, span }, Err(error)) => {
            let found_kind = format!("{:?}", error.kind());
            let found_kind = found_kind.split(' ').next().unwrap_or_default();
            let found_span = format!("{:?}", error.span());
            if (found_kind, found_span.as_str()) != (*kind, *span) {
                return Err(format!("line {line}: `{pattern}` gave {found_kind} {found_span}, not {kind} {span}"));
            }
        }
        (_, Ok(_)) => return Err(format!("line {line}: `{pattern}` should be refused")),
        (_, Err(error)) => return Err(format!("line {line}: {error}")),
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let mut pattern = "";
    let mut cases = Vec::new();
    for (at, text) in CORPUS.lines().enumerate() {
        let line = at + 1;
        let (sign, rest) = text.split_at(text.len().min(2));
        match sign {
            "= " | "=" => pattern = rest,
            "+ " | "- " => cases.extend(names(rest).into_iter().map(|name| Case {
                line,
                pattern,
                expected: Expected::Found { name, found: sign == "+ " },
            })),
            "! " => {
                let (kind, span) = rest.split_once(' ').expect("a reason and a place");
                cases.push(Case { line, pattern, expected: Expected::Refused { kind, span } });
            }
            "" | "# " | "#" => {}
            _ => panic!("line {line} of the corpus is not understood: {text}"),
        }
    }
    cases
}

fn names(mut text: &str) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(body) = text.trim_start().strip_prefix('"') {
        let (name, rest) = unquote(body);
        names.push(name);
        text = rest;
    }
    assert!(text.trim().is_empty(), "not a list of names: {text}");
    names
}

fn unquote(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().expect("a closing quote") {
            '"' => return (name, chars.as_str()),
            '\\' => name.push(match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('\\') => '\\',
                Some('u') => {
                    let code = chars.as_str().strip_prefix('{').expect("a brace");
                    let (code, rest) = code.split_once('}').expect("a closing brace");
                    chars = rest.chars();
                    let code = u32::from_str_radix(code, 16).expect("hexadecimal digits");
                    char::from_u32(code).expect("a character")
                }
                other => panic!("unknown escape {other:?}"),
            }),
            c => name.push(c),
        }
    }
}
