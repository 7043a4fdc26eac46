//! Properties of any text and any pattern.

use proptest::prelude::*;
use regex_automata::meta;
use trunkline_matcher::{AccessPattern, Limits, PatternError, PatternErrorKind, RoutePattern};

use crate::random::SOUP;

/// Generates text that is likely to be almost a pattern.
fn near_patterns() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => prop::sample::select(SOUP).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Generates patterns that Go accepts, by construction.
fn go_patterns() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        4 => "[a-c@.-]",
        2 => prop::sample::select(ATOMS).prop_map(str::to_owned),
        1 => any::<char>().prop_map(|c| format!(r"\x{{{:x}}}", c as u32)),
        1 => any::<char>().prop_map(|c| format!(r"\Q{c}\E")),
    ];
    atom.prop_recursive(5, 40, 4, |inner| {
        let group = prop::sample::select(&["(", "(?:", "(?i:", "(?P<n>", "(?s-m:", "(?U)("][..]);
        let repeat = prop::sample::select(&["*", "+", "?", "*?", "{0}", "{3}", "{2,}", "{1,3}?", ""][..]);
        prop_oneof![
            (group, inner.clone(), repeat).prop_map(|(open, body, repeat)| format!("{open}{body}){repeat}")),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner, 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
        ]
    })
}

/// Generates patterns that mean the same in Go and in Rust.
fn shared_patterns() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        6 => "[ab]",
        2 => prop::sample::select(SHARED_ATOMS).prop_map(str::to_owned),
    ];
    atom.prop_recursive(4, 24, 4, |inner| {
        let group = prop::sample::select(&["(", "(?:", "(?i:", "(?s:", "(?m:", "(?U:"][..]);
        let repeat = prop::sample::select(&["*", "+", "?", "*?", "{2}", "{1,}", "{0,2}", "", ""][..]);
        prop_oneof![
            (group, inner.clone(), repeat).prop_map(|(open, body, repeat)| format!("{open}{body}){repeat}")),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner, 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
        ]
    })
}

fn check_error(text: &str, error: &PatternError) {
    let span = error.span();
    assert!(span.start <= span.end && span.end <= text.len(), "{span:?}");
    assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
    let caret = error.caret();
    let (line, under) = caret.split_once('\n').expect("two lines");
    assert_eq!(under.trim_start_matches(' '), "^");
    assert!(under.chars().count() <= line.chars().count() + 1);
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_is_refused_at_a_place_inside_it(text in any::<String>()) {
        if let Err(error) = RoutePattern::new(&text) {
            check_error(&text, &error);
        }
    }

    #[test]
    fn any_near_pattern_is_one_or_is_refused_at_a_place_inside_it(text in near_patterns()) {
        match RoutePattern::new(&text) {
            Ok(pattern) => prop_assert_eq!(pattern.as_str(), &text),
            Err(error) => check_error(&text, &error),
        }
    }

    #[test]
    fn tight_limits_refuse_at_a_place_inside_the_text(
        text in near_patterns(),
        bytes in 0_usize..40,
        small in 0_u32..4,
    ) {
        let limits = Limits::new().pattern_bytes(bytes).repeat(small).nesting(small).nfa_bytes(400);
        if let Err(error) = RoutePattern::with_limits(&text, &limits) {
            check_error(&text, &error);
        }
    }

    #[test]
    fn patterns_that_go_accepts_compile_or_exceed_a_limit(text in go_patterns()) {
        if let Err(error) = RoutePattern::new(&text) {
            let over_a_limit = matches!(error.kind(), PatternErrorKind::Limit { .. });
            prop_assert!(over_a_limit, "{}", error);
        }
    }

    #[test]
    fn patterns_common_to_go_and_rust_give_the_same_answers(
        text in shared_patterns(),
        names in prop::collection::vec("[abAB\n_]{0,6}", 8),
    ) {
        let pattern = RoutePattern::new(&text).unwrap();
        let access = AccessPattern::new(&text).unwrap();
        let peer = meta::Regex::new(&text).unwrap();
        let whole = meta::Regex::new(&format!(r"\A(?:{text})\z")).unwrap();
        for name in &names {
            prop_assert_eq!(pattern.is_match(name), peer.is_match(name), "{} on {:?}", text, name);
            prop_assert_eq!(access.is_match(name), whole.is_match(name), "{} on {:?}", text, name);
        }
    }

    #[test]
    fn a_quoted_text_is_found_wherever_it_is(
        text in any::<String>(),
        before in any::<String>(),
        after in any::<String>(),
    ) {
        prop_assume!(!text.contains(r"\E"));
        let pattern = RoutePattern::new(&format!(r"\Q{text}")).unwrap();
        let around = [&*before, &text, &after].concat();
        prop_assert!(pattern.is_match(&around));
        prop_assert_eq!(pattern.is_match(&before), before.contains(&text));
    }
}

const ATOMS: &[&str] = &[
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\b",
    r"\B",
    r"\A",
    r"\z",
    "^",
    "$",
    ".",
    "[a&&b]",
    "[[a]",
    "[]a]",
    "[^]a]",
    "[a-]",
    r"[\w-z]",
    r"[\d\s]",
    "[[:alpha:]]",
    "[^[:^punct:]]",
    r"\pL",
    r"\p{^Greek}",
    r"\P{Nd}",
    r"[\pL\P{Lu}]",
    r"\0",
    r"\07",
    r"\123",
    r"\<",
    r"\>",
    "a{,3}",
    "{",
    "a{01}",
    "(?i)",
    "(?m-s)",
    "(?)",
    r"\Q\E",
    r"\x41",
    r"\x{10ffff}",
    r"\_",
    "]",
    "}",
];

const SHARED_ATOMS: &[&str] = &[".", "^", "$", "[ab]", "[^a]", "[a-z]", r"\A", r"\z", r"\x61", "\\n", "(?i)", "(?m)"];

/// Returns a pattern nested so deep, with a choice at each level.
fn deep(levels: usize) -> String {
    let inner = (0..levels).fold("a".to_owned(), |inner, _| format!("(e|{inner}d)?"));
    format!("[x-z]{inner}[x-z]")
}

#[test]
fn deep_patterns_are_searched_in_long_names_on_a_small_stack() {
    let pattern = RoutePattern::new(&deep(400)).unwrap();
    let search = move || {
        for len in [10, 100, 255, 256, 1000, 4096, 65_536] {
            assert!(!pattern.is_match(&format!("x{}", "d".repeat(len))));
            assert!(pattern.is_match(&format!("{}xz", "d".repeat(len))), "{len}");
        }
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(search).unwrap().join().unwrap();
}

#[test]
fn long_names_are_searched_as_short_ones_are() {
    let pattern = RoutePattern::new(r"\pL{1,1000}-?\pL{1,1000}-?\pL{2,1000}\d").unwrap();
    for (len, name) in [(100, 'a'), (300, 'a'), (4096, 'a'), (5000, 'é')] {
        let name: String = std::iter::repeat_n(name, len).collect();
        assert!(!pattern.is_match(&name), "{len}");
        assert!(pattern.is_match(&format!("{name}7")), "{len}");
    }
}
