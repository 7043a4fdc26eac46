use std::collections::{BTreeSet, HashSet};

use crate::error::PatternErrorKind;
use crate::limits::{LimitKind, Limits};
use crate::{AccessPattern, RoutePattern};

fn limit_of(text: &str) -> Option<LimitKind> {
    match RoutePattern::new(text).err()?.kind() {
        PatternErrorKind::Limit { limit, .. } => Some(*limit),
        other => panic!("{text}: {other}"),
    }
}

/// Claim B1.
#[test]
fn a_route_pattern_is_searched_anywhere_and_a_dot_is_any_character() {
    let pattern = RoutePattern::new("prod-db@example.com").unwrap();
    assert!(pattern.is_match("prod-db@example.com"));
    assert!(pattern.is_match("eu-prod-db@example.com.au"));
    assert!(pattern.is_match("prod-db@example-com"));
    assert!(!pattern.is_match("prod-db@example"));
}

/// Claim B2.
#[test]
fn anchors_bind_a_pattern_to_both_ends_of_the_name() {
    let pattern = RoutePattern::new("^prod-db@example.com$").unwrap();
    assert!(pattern.is_match("prod-db@example.com"));
    assert!(!pattern.is_match("eu-prod-db@example.com"));
    assert!(!pattern.is_match("prod-db@example.com.au"));
    assert!(!pattern.is_match("prod-db@example.com\n"));
}

/// Claim B6.
#[test]
fn a_pattern_that_does_not_compile_shows_where() {
    let error = RoutePattern::new("^prod-(db@[a-z+$").unwrap_err();
    assert_eq!(*error.kind(), PatternErrorKind::UnclosedClass);
    assert_eq!(error.caret(), "^prod-(db@[a-z+$\n          ^");
}

#[test]
fn an_access_pattern_must_match_the_whole_name() {
    let pattern = AccessPattern::new("a|ab|(?m)c$").unwrap();
    for (name, expected) in [
        ("a", true),
        ("ab", true),
        ("c", true),
        ("b", false),
        ("abc", false),
        ("xa", false),
        ("c\nd", false),
        ("a\n", false),
        ("", false),
    ] {
        assert_eq!(pattern.is_match(name), expected, "{name:?}");
    }
}

#[test]
fn an_access_pattern_has_the_same_syntax_and_limits() {
    assert_eq!(AccessPattern::new("a**").unwrap_err(), RoutePattern::new("a**").unwrap_err());
    let limits = Limits::new().pattern_bytes(1);
    assert!(AccessPattern::with_limits("ab", &limits).is_err());
}

#[test]
fn the_identity_of_a_pattern_is_its_text() {
    let [a, same, other] = ["^a$", "^a$", "^(a)$"].map(|text| RoutePattern::new(text).unwrap());
    assert_eq!(a, same);
    assert_ne!(a, other);
    assert_eq!(HashSet::from([a.clone(), same.clone(), other.clone()]).len(), 2);
    let ordered = BTreeSet::from([a.clone(), same, other.clone()]);
    assert_eq!(Vec::from_iter(&ordered), [&other, &a]);
    assert!(HashSet::from([a.clone()]).contains("^a$"));
    assert_eq!(a.to_string(), "^a$");
    assert_eq!(format!("{a:?}"), r#"RoutePattern("^a$")"#);
    assert_eq!("^a$".parse(), Ok(a));
}

#[test]
fn size_bombs_are_refused_by_a_limit() {
    for (text, expected) in [
        ("(a{1000}){1000}", Some(LimitKind::Repeat)),
        (r"\pL{1000}", None),
        (r"(?i)\w{500}", None),
        ("[a-z]{1000}", None),
        ("(?:a?){500}a{500}", None),
        ("(a{10}){100}", None),
        (r"(\pL\pN\pS){900}", Some(LimitKind::NfaBytes)),
    ] {
        assert_eq!(limit_of(text), expected, "{text}");
    }
    let bomb = r"\pL".repeat(1300);
    assert_eq!(limit_of(&bomb), Some(LimitKind::NfaBytes));
    let bomb = format!("(?i){}", r"[B-\x{1e942}]".repeat(300));
    assert_eq!(limit_of(&bomb), None);
}

#[test]
fn the_memory_of_a_pattern_can_be_raised_for_all_that_go_accepts() {
    let limits = Limits::new().nfa_bytes(48 << 20);
    assert!(RoutePattern::with_limits(r"(\pL\pN){1000}", &limits).is_ok());
}

#[test]
fn a_refused_memory_limit_is_named_with_its_value() {
    let limits = Limits::new().nfa_bytes(1000);
    let error = RoutePattern::with_limits("(ab?){999}c", &limits).unwrap_err();
    assert!(error.to_string().contains("`nfa_bytes` of 1000"), "{error}");
    assert_eq!(error.span(), 0..11);
}

#[test]
fn deep_patterns_need_no_deep_stack() {
    let wrap = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("^{}{inner}{}$", open.repeat(levels), close.repeat(levels))
    };
    for text in [
        wrap("(", "a", ")", 999),
        wrap("(?:", "a", ")", 999),
        wrap("(", "a", ")*", 499),
        wrap("(?i:", "a", "|)", 600),
        wrap("(b|", "a", ".)*", 499),
        wrap("(?:.|", "a", "bc)+", 400),
        wrap("(.", "a", ")", 999),
        format!("a*{}", r"(?i)*".repeat(700)),
    ] {
        let limits = Limits::new().pattern_bytes(8192);
        let pattern = RoutePattern::with_limits(&text, &limits);
        assert!(pattern.is_ok(), "{}", pattern.unwrap_err());
        drop(pattern.map(|pattern| pattern.is_match("a")));
    }
    assert_eq!(limit_of(&wrap("(", "a", ")", 1000)), Some(LimitKind::Nesting));
}

#[test]
fn the_deepest_setting_holds_too() {
    let limits = Limits::new().pattern_bytes(100_000).nesting(u32::MAX).nfa_bytes(64 << 20);
    assert_eq!(limits.get_nesting(), 10_000);
    let text = format!("{}a{}", "(b|".repeat(4_900), ".)*".repeat(4_900));
    assert!(RoutePattern::with_limits(&text, &limits).is_ok());
}
