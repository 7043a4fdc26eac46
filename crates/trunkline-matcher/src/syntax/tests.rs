use super::parse;
use crate::error::{Fault, PatternErrorKind};
use crate::limits::{LimitKind, Limits};

fn refusal(text: &str, limits: &Limits) -> Option<(LimitKind, usize)> {
    match parse(text, limits) {
        Ok(_) => None,
        Err(Fault { kind: PatternErrorKind::Limit { limit, value }, .. }) => Some((limit, value)),
        Err(fault) => panic!("{text}: {fault:?}"),
    }
}

#[test]
fn the_length_of_a_pattern_is_limited_in_bytes() {
    let limits = Limits::new().pattern_bytes(4);
    assert_eq!(refusal("éé", &limits), None);
    assert_eq!(refusal("ééé", &limits), Some((LimitKind::PatternBytes, 4)));
}

#[test]
fn a_length_limit_inside_a_character_is_shown_before_it() {
    let fault = parse("aéé", &Limits::new().pattern_bytes(2)).unwrap_err();
    assert_eq!(fault.span, 1..1);
}

#[test]
fn counts_are_limited_as_a_product() {
    let limits = Limits::new().repeat(12);
    for (text, expected) in [
        ("a{12}", None),
        ("a{13}", Some(12)),
        ("(a{3}){4}", None),
        ("(a{3}b{5}){3}", Some(12)),
        ("(a{3,}){4,}", None),
        ("((a{3})*){5}", Some(12)),
        ("a{12}b{12}", None),
    ] {
        let expected = expected.map(|value| (LimitKind::Repeat, value));
        assert_eq!(refusal(text, &limits), expected, "{text}");
    }
}

#[test]
fn levels_are_groups_and_repetitions_and_the_innermost_character() {
    let limits = Limits::new().nesting(3);
    for (text, accepted) in [
        ("((a))", true),
        ("(((a)))", false),
        ("(a*)", true),
        ("(a*)*", false),
        ("((a)*)", false),
        ("a*(?i)*", true),
        ("a*(?i)*(?i)*", false),
        ("(a)(b)((c))|(d)", true),
        ("(()", true),
    ] {
        let refused = match parse(text, &limits) {
            Err(Fault { kind: PatternErrorKind::Limit { limit, value }, .. }) => {
                assert_eq!((limit, value), (LimitKind::Nesting, 3));
                true
            }
            _ => false,
        };
        assert_eq!(refused, !accepted, "{text}");
    }
}

#[test]
fn the_first_group_that_is_too_deep_is_shown() {
    let text = format!("{}a", "(".repeat(2000));
    let fault = parse(&text, &Limits::new()).unwrap_err();
    assert_eq!(fault.span, 999..1000);
}
