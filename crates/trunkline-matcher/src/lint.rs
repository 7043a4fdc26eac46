//! Warnings about patterns that probably do not mean what their author wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use crate::error;
use crate::pattern::{AccessPattern, RoutePattern};

/// Warning about a pattern that is valid, but probably does not mean what its author wanted.
///
/// `Display` is one line with the problem and the suggested replacement.
///
/// ```
/// use trunkline_matcher::{LintKind, RoutePattern};
///
/// let pattern = RoutePattern::new("^prod-*")?;
/// let lint = &pattern.lints()[0];
/// assert_eq!(lint.kind(), LintKind::Glob);
/// assert_eq!(lint.suggestion(), "^prod-.*");
/// assert_eq!(lint.caret(), "^prod-*\n      ^");
/// # Ok::<(), trunkline_matcher::PatternError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    kind: LintKind,
    span: Range<usize>,
    text: Box<str>,
    suggestion: Box<str>,
}

/// Subject of a [`Lint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintKind {
    /// A dot in what looks like a host name, where it stands for any character: `db@eu.example.com`.
    Dot,
    /// A `*` as in file names: `prod-*` is `prod` and any number of `-`.
    Glob,
    /// A whole node name without `^` and `$`, so that it is also found in longer names: `db@example`.
    Unanchored,
}

impl Lint {
    /// Returns the subject of the warning.
    pub fn kind(&self) -> LintKind {
        self.kind
    }

    /// Returns the byte offsets of the place in the pattern.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns a pattern that says what was probably meant, with the changes of all lints of the pattern. Only the
    /// author can tell whether it is right.
    pub fn suggestion(&self) -> &str {
        &self.suggestion
    }

    /// Returns the pattern on one line, and a `^` under the place on the next, like
    /// [`PatternError::caret`](crate::PatternError::caret).
    pub fn caret(&self) -> String {
        error::caret(&self.text, self.span.start)
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            LintKind::Dot => "this dot is any character",
            LintKind::Glob => "this is any number of the character before it, also none",
            LintKind::Unanchored => "this is found inside longer names too",
        };
        write!(f, "{what}; if that is not meant, write `{}`", self.suggestion)
    }
}

impl RoutePattern {
    /// Returns warnings about parts of the pattern that probably do not mean what its author wanted: at most one of
    /// each kind, in the order of [`LintKind`]. Lints never change what the pattern matches.
    pub fn lints(&self) -> Vec<Lint> {
        let (text, tokens) = (self.as_str(), tokens(self.as_str()));
        lints(
            text,
            [
                (LintKind::Dot, dots(&tokens)),
                (LintKind::Glob, globs(&tokens)),
                (LintKind::Unanchored, unanchored(text, &tokens)),
            ],
        )
    }
}

impl AccessPattern {
    /// Returns warnings like [`RoutePattern::lints`], but never [`LintKind::Unanchored`], since the pattern matches
    /// whole names.
    pub fn lints(&self) -> Vec<Lint> {
        let tokens = tokens(self.as_str());
        lints(self.as_str(), [(LintKind::Dot, dots(&tokens)), (LintKind::Glob, globs(&tokens))])
    }
}

fn lints(text: &str, found: impl IntoIterator<Item = (LintKind, Option<Found>)>) -> Vec<Lint> {
    let found: Vec<_> = found.into_iter().filter_map(|(kind, found)| Some((kind, found?))).collect();
    let edits: BTreeMap<usize, &str> = found.iter().flat_map(|(_, found)| found.edits.iter().copied()).collect();
    let mut suggestion = text.to_owned();
    for (at, insert) in edits.into_iter().rev() {
        suggestion.insert_str(at, insert);
    }
    let lint =
        |(kind, Found { span, .. })| Lint { kind, span, text: text.into(), suggestion: suggestion.as_str().into() };
    found.into_iter().map(lint).collect()
}

/// First place of a lint, and the insertions that would fix it.
struct Found {
    span: Range<usize>,
    edits: Vec<(usize, &'static str)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    /// A character that stands for itself.
    Char(char),
    Dot,
    Star,
    /// Another repetition.
    Repeat,
    /// `[…]`.
    Class,
    /// `(`.
    Open,
    /// `)`.
    Close,
    /// `^`, `$` and everything else.
    Other,
}

type Tokens = Vec<(Token, Range<usize>)>;

/// Splits a valid pattern into tokens, as far as the lints need it.
fn tokens(text: &str) -> Tokens {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, len) = match c {
            '\\' if rest.starts_with(r"\Q") => {
                let quoted = rest[2..].split(r"\E").next().unwrap_or_default();
                for (offset, c) in quoted.char_indices() {
                    let start = at + 2 + offset;
                    tokens.push((Token::Char(c), start..start + c.len_utf8()));
                }
                at = (at + 2 + quoted.len() + 2).min(text.len());
                continue;
            }
            '\\' => match rest[1..].chars().next() {
                Some(next) if next.is_ascii_punctuation() => (Token::Char(next), 2),
                next => (Token::Other, 1 + next.map_or(0, char::len_utf8)),
            },
            '[' => (Token::Class, class_len(rest)),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '.' => (Token::Dot, 1),
            '*' => (Token::Star, 1),
            '+' | '?' | '{' => (Token::Repeat, 1),
            '^' | '$' | '|' => (Token::Other, 1),
            c => (Token::Char(c), c.len_utf8()),
        };
        tokens.push((token, at..at + len));
        at += len;
    }
    tokens
}

/// Returns the parts of a valid pattern that may stand for a character, with the character where it is written as it is.
pub(crate) fn places(text: &str) -> Vec<(Option<char>, Range<usize>)> {
    let place = |(token, span): (Token, Range<usize>)| match token {
        Token::Char(c) => Some((Some(c), span)),
        Token::Class => Some((None, span)),
        Token::Other if text[span.clone()].starts_with('\\') => Some((None, escape(text, span))),
        _ => None,
    };
    tokens(text).into_iter().filter_map(place).collect()
}

/// Returns the whole range of an escape: `\x0a` and `\x{a}` are more than their first two characters.
fn escape(text: &str, span: Range<usize>) -> Range<usize> {
    let rest = &text[span.end..];
    let more = match text[span.clone()].chars().nth(1) {
        Some('x' | 'p' | 'P') if rest.starts_with('{') => rest.find('}').map_or(0, |end| end + 1),
        Some('p' | 'P') => rest.chars().next().map_or(0, char::len_utf8),
        Some('x') => rest.bytes().take(2).take_while(u8::is_ascii_hexdigit).count(),
        Some('0'..='7') => rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count(),
        _ => 0,
    };
    span.start..span.end + more
}

/// Returns the length of `[…]`. A `]` that comes first is a member.
fn class_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    chars.next_if(|(_, c)| *c == '^');
    chars.next_if(|(_, c)| *c == ']');
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' if text[at..].starts_with("[:") => {
                let end = text[at + 2..].find(":]").map_or(at, |end| at + 2 + end + 1);
                while chars.next_if(|(next, _)| *next <= end).is_some() {}
            }
            ']' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(token: Option<&(Token, Range<usize>)>) -> bool {
    matches!(token, Some((Token::Char(c), _)) if c.is_alphanumeric() || *c == '-')
}

/// Returns true if a part of a host may end at this token.
fn ends_part(token: Option<&(Token, Range<usize>)>) -> bool {
    is_word(token) || matches!(token, Some((Token::Close | Token::Class | Token::Star | Token::Repeat, _)))
}

/// Returns true if a part of a host may begin at this token.
fn begins_part(token: Option<&(Token, Range<usize>)>) -> bool {
    is_word(token) || matches!(token, Some((Token::Open | Token::Class, _)))
}

/// Finds the dots of a host: between its parts, after the `@`.
fn dots(tokens: &Tokens) -> Option<Found> {
    let host = tokens.iter().position(|(token, _)| *token == Token::Char('@'))?;
    let is_host_dot = |at: &usize| {
        tokens[*at].0 == Token::Dot && ends_part(tokens.get(at.wrapping_sub(1))) && begins_part(tokens.get(at + 1))
    };
    let places: Vec<_> = (host..tokens.len()).filter(is_host_dot).map(|at| tokens[at].1.clone()).collect();
    let span = places.first()?.clone();
    Some(Found { span, edits: places.into_iter().map(|place| (place.start, "\\")).collect() })
}

/// Finds stars applied to a character: after punctuation wherever text continues or ends, after other characters only
/// at the end of the name or host, since `b*` may well be intended elsewhere.
fn globs(tokens: &Tokens) -> Option<Found> {
    let is_glob = |at: &usize| {
        let Some((Token::Char(before), _)) = at.checked_sub(1).and_then(|before| tokens.get(before)) else {
            return false;
        };
        let ends = matches!(tokens.get(at + 1), None | Some((Token::Char('@'), _)));
        let goes_on = matches!(tokens.get(at + 1), Some((Token::Char(_), _)));
        tokens[*at].0 == Token::Star && (ends || goes_on && !before.is_alphanumeric())
    };
    let places: Vec<_> = (0..tokens.len()).filter(is_glob).map(|at| tokens[at].1.clone()).collect();
    let span = places.first()?.clone();
    Some(Found { span, edits: places.into_iter().map(|place| (place.start, ".")).collect() })
}

/// Finds a pattern that is nothing but a whole node name.
fn unanchored(text: &str, tokens: &Tokens) -> Option<Found> {
    let plain = tokens.iter().all(|(token, _)| matches!(token, Token::Char(_) | Token::Dot));
    let at = tokens.iter().position(|(token, _)| *token == Token::Char('@'))?;
    if !plain || !is_word(at.checked_sub(1).and_then(|at| tokens.get(at))) || !is_word(tokens.get(at + 1)) {
        return None;
    }
    let dots = dots(tokens).map(|found| found.edits).unwrap_or_default();
    let edits = [(0, "^")].into_iter().chain(dots).chain([(text.len(), "$")]).collect();
    Some(Found { span: 0..text.len(), edits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lints(text: &str) -> Vec<(LintKind, usize, String)> {
        let lints = RoutePattern::new(text).unwrap().lints();
        lints.iter().map(|lint| (lint.kind(), lint.span().start, lint.suggestion().to_owned())).collect()
    }

    #[test]
    fn a_lint_has_a_place_and_a_suggestion() {
        use LintKind::{Dot, Glob, Unanchored};
        for (text, expected) in [
            ("^db@eu.example.com$", vec![(Dot, 6, r"^db@eu\.example\.com$")]),
            (".*@eu.example.com", vec![(Dot, 5, r".*@eu\.example\.com")]),
            ("prod-*", vec![(Glob, 5, "prod-.*")]),
            ("^prod-*-db@", vec![(Glob, 6, "^prod-.*-db@")]),
            ("^prod*@eu$", vec![(Glob, 5, "^prod.*@eu$")]),
            ("db@eu", vec![(Unanchored, 0, "^db@eu$")]),
            (r"\Qdb@eu.x\E", vec![(Unanchored, 0, r"^\Qdb@eu.x\E$")]),
            ("db@a.b", vec![(Dot, 4, r"^db@a\.b$"), (Unanchored, 0, r"^db@a\.b$")]),
            ("prod-*@a.b", vec![(Dot, 8, r"prod-.*@a\.b"), (Glob, 5, r"prod-.*@a\.b")]),
            ("^p@(eu|us).example.com$", vec![(Dot, 10, r"^p@(eu|us)\.example\.com$")]),
            ("^p@[a-z]+.(a|b).x$", vec![(Dot, 9, r"^p@[a-z]+\.(a|b)\.x$")]),
            ("@.*.example.com$", vec![(Dot, 3, r"@.*\.example\.com$")]),
            ("[[:]-*", vec![(Glob, 5, "[[:]-.*")]),
            (r"\.*", vec![(Glob, 2, r"\..*")]),
            ("é-*", vec![(Glob, 3, "é-.*")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(kind, at, text)| (kind, at, text.to_owned())).collect();
            assert_eq!(lints(text), expected, "{text}");
            for (_, _, suggestion) in expected {
                assert!(RoutePattern::new(&suggestion).is_ok(), "{suggestion}");
            }
        }
    }

    #[test]
    fn an_access_pattern_is_never_reported_as_unanchored() {
        let lints = |text: &str| AccessPattern::new(text).unwrap().lints();
        let suggestions = |text| lints(text).iter().map(|lint| lint.suggestion().to_owned()).collect::<Vec<_>>();
        assert_eq!(suggestions("billing@partner.com"), [r"billing@partner\.com"]);
        assert_eq!(suggestions("ops-*"), ["ops-.*"]);
        assert!(suggestions("db@eu").is_empty());
    }

    #[test]
    fn plausible_patterns_have_no_lints() {
        for text in [
            "",
            "^",
            "db",
            "prod-.*",
            r"^db@eu\.example\.com$",
            "^db@eu$",
            "^db@",
            "@eu$",
            "[.]",
            "[-*]@a",
            "a.b",
            "x*y",
            "^[a-z-]*@",
            "(prod-)*",
            "[]*-]*",
            "[[:alpha:]*]",
            r"db-\*",
            "a.?b@",
            "^svc@eu.+x$",
            "@",
            "a|b@c",
            r"^db@[^.]*\.example\.com$",
            "(?i)gateway",
            "-{2}",
            "a.*b",
        ] {
            assert_eq!(lints(text), [], "{text}");
        }
    }
}
