//! Analysis of which names a pattern can match at all, for a caller that knows which names are possible.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use regex_automata::dfa::{Automaton, dense};
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::engine::nfa;
use crate::error;
use crate::lint;
use crate::pattern::{AccessPattern, Compiled, RoutePattern};

/// A character that every match of a pattern contains although the caller said that it cannot occur. The pattern
/// matches no possible name.
///
/// ```
/// use trunkline_matcher::RoutePattern;
///
/// let pattern = RoutePattern::new("^db@example\n")?;
/// let needed = pattern.needs_other_than(|c| !c.is_control()).unwrap();
/// assert_eq!((needed.character(), needed.span()), ('\n', 11..12));
/// assert_eq!(needed.to_string(), "every match contains '\\n' (U+000A)");
/// # Ok::<(), trunkline_matcher::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    character: char,
    span: Range<usize>,
    text: Box<str>,
}

impl Needed {
    /// Returns the character; one of several when a class has only such characters.
    pub fn character(&self) -> char {
        self.character
    }

    /// Returns the byte offsets of the place in the pattern that requires the character, or of the whole pattern when
    /// no single place does.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns the pattern on one line, and a `^` under the place on the next, like
    /// [`PatternError::caret`](crate::PatternError::caret).
    pub fn caret(&self) -> String {
        error::caret(&self.text, self.span.start)
    }
}

impl fmt::Display for Needed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every match contains {:?} (U+{:04X})", self.character, u32::from(self.character))
    }
}

impl RoutePattern {
    /// Returns a character that every match contains although it is not `possible`, or `None` when a name of possible
    /// characters may match.
    pub fn needs_other_than(&self, possible: impl Fn(char) -> bool) -> Option<Needed> {
        needed(self.compiled(), self.as_str(), &possible)
    }
}

impl AccessPattern {
    /// Returns an impossible character like [`RoutePattern::needs_other_than`].
    pub fn needs_other_than(&self, possible: impl Fn(char) -> bool) -> Option<Needed> {
        needed(self.compiled(), self.as_str(), &possible)
    }

    /// Returns true if the pattern leaves open what follows `separator`. That is so if one text without `separator` can
    /// be followed by the separator and by *each* of the two texts of one of `kinds`, and the pattern matches both
    /// times; the two texts should be unlike. Returns false when the pattern is too large to tell.
    ///
    /// ```
    /// use trunkline_matcher::AccessPattern;
    ///
    /// let open = |text: &str| AccessPattern::new(text).unwrap().is_open_after('@', &[["one.example", "another.test"]]);
    /// assert!(open("db@.*") && open(".*"));
    /// assert!(!open(r"db@.*\.example"));
    /// ```
    pub fn is_open_after(&self, separator: char, kinds: &[[&str; 2]]) -> bool {
        let compiled = self.compiled();
        compiled.hir().and_then(|hir| Ends::of(&hir)).is_some_and(|automaton| automaton.are_matched(separator, kinds))
    }
}

/// Returns true if the text alone shows that the pattern contains nothing unusual, as for most patterns. The tree is
/// not needed then.
fn is_plain(text: &str, possible: &dyn Fn(char) -> bool) -> bool {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let plain = match c {
            '\\' => next.is_some_and(|n| n.is_ascii_punctuation() || matches!(n, 'd' | 'w' | 'D' | 'W' | 'S' | 'b')),
            '[' => !matches!(next, Some('^' | ':')),
            c => possible(c),
        };
        if !plain {
            return false;
        }
    }
    true
}

fn needed(compiled: &Compiled, text: &str, possible: &dyn Fn(char) -> bool) -> Option<Needed> {
    if is_plain(text, possible) {
        return None;
    }
    let character = impossible(&compiled.hir()?, possible)?;
    let needs_it = |part: &str| {
        let alone = RoutePattern::new(part).ok();
        alone.and_then(|alone| impossible(&alone.compiled().hir()?, possible)) == Some(character)
    };
    let places = lint::places(text);
    let span = places.into_iter().find(|(literal, span)| match literal {
        Some(c) => *c == character,
        None => needs_it(&text[span.clone()]),
    });
    Some(Needed { character, span: span.map_or(0..text.len(), |(_, span)| span), text: text.into() })
}

/// Returns a character that is not possible and that every match of the expression contains.
fn impossible(hir: &Hir, possible: &dyn Fn(char) -> bool) -> Option<char> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok()?.chars().find(|c| !possible(*c)),
        HirKind::Class(Class::Unicode(class)) => {
            let mut chars = class.iter().flat_map(|range| range.start()..=range.end());
            let first = chars.next()?;
            (!possible(first) && !chars.any(possible)).then_some(first)
        }
        HirKind::Class(Class::Bytes(class)) => {
            let mut chars = class.iter().flat_map(|range| range.start()..=range.end());
            let first = chars.next()?;
            (first.is_ascii() && !possible(first.into()) && !chars.any(|b| !b.is_ascii() || possible(b.into())))
                .then_some(first.into())
        }
        HirKind::Repetition(repetition) if repetition.min == 0 => None,
        HirKind::Repetition(repetition) => impossible(&repetition.sub, possible),
        HirKind::Capture(capture) => impossible(&capture.sub, possible),
        HirKind::Concat(parts) => parts.iter().find_map(|part| impossible(part, possible)),
        HirKind::Alternation(branches) => {
            let mut found = None;
            for branch in branches {
                found = Some(impossible(branch, possible)?);
            }
            found
        }
    }
}

/// Automaton that follows the ends from every state that a beginning leads to.
struct Ends(dense::DFA<Vec<u32>>);

impl Ends {
    /// Largest automaton. A pattern that needs more is too long for people to read, too.
    const MOST_BYTES: usize = 1 << 20;

    fn of(hir: &Hir) -> Option<Self> {
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(Self::MOST_BYTES))
            .determinize_size_limit(Some(4 * Self::MOST_BYTES));
        dense::Builder::new().configure(config).build_from_nfa(&nfa(&[hir], Self::MOST_BYTES)?).ok().map(Self)
    }

    fn are_matched(&self, separator: char, kinds: &[[&str; 2]]) -> bool {
        let dfa = &self.0;
        let Ok(start) = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)) else { return false };
        let after = |state: StateID, text: &str| text.bytes().fold(state, |state, byte| dfa.next_state(state, byte));
        let matched = |state: StateID, end: &&str| dfa.is_match_state(dfa.next_eoi_state(after(state, end)));
        let mut first = [0; 4];
        let (separator, first) = (separator.to_string(), separator.encode_utf8(&mut first).as_bytes()[0]);
        let (mut seen, mut waiting) = (BTreeSet::from([start]), vec![start]);
        while let Some(state) = waiting.pop() {
            let behind = after(state, &separator);
            if kinds.iter().any(|ends| ends.iter().all(|end| matched(behind, end))) {
                return true;
            }
            let next = (0..=u8::MAX).filter(|byte| *byte != first).map(|byte| dfa.next_state(state, byte));
            waiting.extend(next.filter(|next| !dfa.is_dead_state(*next) && seen.insert(*next)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn possible(c: char) -> bool {
        !c.is_whitespace() && !c.is_control()
    }

    #[test]
    fn a_pattern_that_needs_an_impossible_character_is_reported_with_its_place() {
        for (text, character, span) in [
            ("^db@\n", '\n', 4..5),
            ("db @", ' ', 2..3),
            (r"^db\s@", '\t', 3..5),
            (r"db\x00", '\0', 2..6),
            (r"\Qa b\E", ' ', 3..4),
            ("(a|b) ", ' ', 5..6),
            ("(a |b )", ' ', 2..3),
            ("x[ \t]+y", '\t', 1..5),
            ("é\u{a0}", '\u{a0}', 2..4),
            (r"( ?a\n)", '\n', 4..6),
            (r"a[[:space:]]", '\t', 1..12),
            (r"\t{2}", '\t', 0..2),
            ("(?i)a ", ' ', 5..6),
            ("(ab c|de f)", ' ', 3..4),
        ] {
            let expected = Needed { character, span, text: text.into() };
            assert_eq!(RoutePattern::new(text).unwrap().needs_other_than(possible), Some(expected.clone()), "{text:?}");
            assert_eq!(AccessPattern::new(text).unwrap().needs_other_than(possible), Some(expected), "{text:?}");
        }
        let shown = RoutePattern::new("^db@\n").unwrap().needs_other_than(possible).unwrap().caret();
        assert_eq!(shown, "^db@␊\n    ^");
    }

    #[test]
    fn a_pattern_that_some_possible_name_matches_is_not_reported() {
        for text in [
            "", ".", ".*", "a| ", "ab|c d", "c d|ab", " ?a", "( )*a", r"\s*a", r"\D", r"\W\S", "[^a]", r"[\sx]",
            "[ -~]", r"\.\+", "^$", r"\pL", r"[^\n]", "(?s).",
        ] {
            assert_eq!(RoutePattern::new(text).unwrap().needs_other_than(possible), None, "{text:?}");
            assert_eq!(AccessPattern::new(text).unwrap().needs_other_than(possible), None, "{text:?}");
        }
    }

    #[test]
    fn a_pattern_is_open_if_it_matches_unlike_texts_after_the_separator() {
        let kinds = [["a.example", "b.test"], ["10.0.0.1", "192.0.2.7"]];
        let open = |text: &str| AccessPattern::new(text).unwrap().is_open_after('@', &kinds);
        for text in [
            ".*",
            "db@.*",
            "db-[0-9]+@.+",
            "x@y|db@.*",
            "(?s).*",
            "[^@]+@[^@]+",
            "db@[a-z.]+",
            "db@[0-9.]+",
            "(?i)DB@.*",
            "é@.*",
        ] {
            assert!(open(text), "{text}");
        }
        for text in [
            "",
            "db",
            "db@",
            r"db@.*\.example",
            "db@a.example|db@10.0.0.1",
            "db@a.*",
            "db@10.*",
            "db@x.*@.*",
            "@",
            "a@a.example|b@b.test|c@10.0.0.1",
            "(db@a.example|x@.*z)",
        ] {
            assert!(!open(text), "{text}");
        }
        assert!(!open(&format!("({}){{50}}@.*", r"\pL".repeat(15))), "too large to tell");
    }

    fn patterns() -> impl Strategy<Value = String> {
        let leaf = prop::sample::select(vec![
            "a", "b", " ", "\n", "ab", r"\s", r"\x20", "[a ]", "[ \n]", "[^a]", ".", "^", "$", "",
        ]);
        leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
                prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
                (inner, prop::sample::select(vec!["?", "*", "+", "{2}"]))
                    .prop_map(|(part, often)| format!("(?:{part}){often}")),
            ]
        })
    }

    /// Returns every text of at most three of the possible characters.
    fn texts() -> Vec<String> {
        let mut texts = vec![String::new()];
        for len in 0..3 {
            let longest: Vec<String> = texts.iter().filter(|text| text.len() == len).cloned().collect();
            texts.extend(longest.iter().flat_map(|text| ["a", "b", "@"].map(|c| format!("{text}{c}"))));
        }
        texts
    }

    proptest! {
        #[test]
        fn a_pattern_that_needs_something_impossible_matches_nothing_possible(text in patterns()) {
            let (route, access) = (RoutePattern::new(&text).unwrap(), AccessPattern::new(&text).unwrap());
            if route.needs_other_than(possible).is_some() {
                prop_assert!(texts().iter().all(|name| !route.is_match(name)), "{text:?}");
            }
            if let Some(needed) = access.needs_other_than(possible) {
                prop_assert!(!possible(needed.character()) && needed.span().end <= text.len());
                prop_assert!(texts().iter().all(|name| !access.is_match(name)), "{text:?}");
            }
        }

        #[test]
        fn a_pattern_that_is_spelled_again_matches_the_same(text in patterns()) {
            let again = crate::spelled_again(&text);
            prop_assert_ne!(&again, &text);
            let (one, other) = (RoutePattern::new(&text).unwrap(), RoutePattern::new(&again).unwrap());
            prop_assert!(texts().iter().all(|name| one.is_match(name) == other.is_match(name)), "{text:?} {again:?}");
        }
    }
}
