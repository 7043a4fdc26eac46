//! Errors for refused patterns: the reason, and the place in the text.

use std::ops::Range;

use crate::limits::{LimitKind, Limits};

/// Error returned when a pattern was refused. Nothing was built from it.
///
/// `Display` is one paragraph that names the place and the reason.
/// [`PatternError::caret`] shows the place:
///
/// ```
/// use trunkline_matcher::RoutePattern;
///
/// let error = RoutePattern::new(r"^prod-(db|cache@").unwrap_err();
/// assert_eq!(error.span(), 6..7);
/// assert_eq!(error.caret(), "^prod-(db|cache@\n      ^");
/// assert_eq!(
///     error.to_string(),
///     "pattern `^prod-(db|cache@` is refused at byte 6: this group is not closed by a `)`",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{}` is refused at byte {}: {kind}", window(.text, .span.start).0, .span.start)]
pub struct PatternError {
    kind: PatternErrorKind,
    text: Box<str>,
    span: Range<usize>,
}

/// Reason of a [`PatternError`].
///
/// For every kind except [`PatternErrorKind::Limit`], Go refuses the pattern as well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternErrorKind {
    /// A backslash is followed by something that has no meaning after it.
    #[error(
        "this escape sequence is not part of the syntax; write `\\z` for the end of the text, and `\\x{{41}}` for a \
         character by its number; back-references are not supported"
    )]
    BadEscape,
    /// `(?` is followed by something that is not a flag, such as look-around.
    #[error(
        "`(?` may be followed by a name (`P<name>`), or by the flags `i`, `m`, `s`, `U` \
         followed by `:` or `)`; look-around and other extensions are not part of the syntax"
    )]
    BadFlags,
    /// A group name is empty, not closed by `>`, or has characters other than ASCII letters, digits and `_`.
    #[error(
        "a group name is one or more of `A-Z`, `a-z`, `0-9` and `_`, closed by `>`; look-behind (`(?<=`, `(?<!`) is not \
         part of the syntax"
    )]
    BadGroupName,
    /// The range in a class ends before it starts, as in `[z-a]`.
    #[error("this range ends before it starts")]
    BadRange,
    /// The second count of `{n,m}` is smaller than the first.
    #[error("the second count of this repetition is below the first; put the smaller one first")]
    BadRepeat,
    /// The pattern exceeds one of the [`Limits`].
    #[error("it exceeds the limit `{limit}` of {value} ({})", .limit.meaning())]
    Limit {
        /// The limit that was exceeded.
        limit: LimitKind,
        /// The value of that limit.
        value: usize,
    },
    /// A repetition is applied to a repetition, as in `a**`.
    #[error("a repetition may not be applied to a repetition; put the first in a group, as in `(?:a*)*`")]
    NestedRepeat,
    /// A repetition has nothing before it.
    #[error(
        "this repetition has nothing before it to repeat; write `.*` for any characters, or put a `\\` before the \
         character if the character itself is meant"
    )]
    NothingToRepeat,
    /// The pattern ends in a backslash.
    #[error("a pattern may not end in a lone backslash")]
    TrailingBackslash,
    /// A `[` is not closed.
    #[error("this class is not closed by a `]`")]
    UnclosedClass,
    /// A `(` is not closed.
    #[error("this group is not closed by a `)`")]
    UnclosedGroup,
    /// A class has a name that is unknown to Go.
    #[error(
        "this class is unknown; valid names are Unicode's general categories and scripts in `\\p{{…}}`, and POSIX's in `[[:…:]]`"
    )]
    UnknownClass,
    /// A `)` has no open group to close.
    #[error("this `)` closes no group; write `\\)` if the character itself is meant")]
    UnopenedGroup,
}

/// Reason and place of an error, without the text of the pattern.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: PatternErrorKind,
    pub(crate) span: Range<usize>,
}

impl Fault {
    pub(crate) fn limit(limit: LimitKind, limits: &Limits, span: Range<usize>) -> Self {
        let value = limits.value_of(limit);
        Self { kind: PatternErrorKind::Limit { limit, value }, span }
    }

    /// Joins the fault with the pattern's text. Keeps at most [`KEPT_BYTES`] beyond the span, so that the error for a
    /// huge text does not hold all of it.
    pub(crate) fn into_error(self, text: &str) -> PatternError {
        let kept = text.floor_char_boundary(self.span.end.saturating_add(KEPT_BYTES));
        PatternError { kind: self.kind, text: text[..kept].into(), span: self.span }
    }
}

impl PatternError {
    /// Returns the reason.
    pub fn kind(&self) -> &PatternErrorKind {
        &self.kind
    }

    /// Returns the byte offsets of the offending place in the pattern, on character boundaries. The range is empty
    /// where something is missing at the end.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns the pattern on one line, and a `^` under the start of [`PatternError::span`] on the next.
    ///
    /// The two lines are aligned by characters. A control character is shown as one visible character, and a long
    /// pattern is cut to the part around the place, with `…` where it was cut.
    pub fn caret(&self) -> String {
        caret(&self.text, self.span.start)
    }
}

/// Returns the text on one line, and a `^` under position `at` on the next.
pub(crate) fn caret(text: &str, at: usize) -> String {
    let (line, column) = window(text, at);
    format!("{line}\n{:column$}^", "")
}

/// Returns a pattern as quoted in a message: in backticks and as written, so that it can be copied. Control characters
/// are shown as one visible character each, and a long pattern is cut.
pub fn quoted(text: &str) -> String {
    format!("`{}`", window(text, text.floor_char_boundary(WINDOW_CHARS)).0)
}

/// Returns a different pattern that matches the same names. A pattern's identity is its text, so a table takes both.
/// The first piece of plain text is put into a group: `^shop@` becomes `^(?:shop)@`.
///
/// ```
/// use trunkline_matcher::spelled_again;
///
/// assert_eq!(spelled_again("^shop@"), "^(?:shop)@");
/// assert_eq!(spelled_again("^(?:shop)@"), "(?:)^(?:shop)@");
/// ```
pub fn spelled_again(text: &str) -> String {
    let start = usize::from(text.starts_with('^'));
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let end = text[start..].find(|c| !plain(c)).map_or(text.len(), |end| start + end);
    // A repetition after the group would apply to the whole group instead of its last character.
    let repeats = text[end..].starts_with(['*', '+', '?', '{']);
    match start < end && !repeats {
        true => format!("{}(?:{}){}", &text[..start], &text[start..end], &text[end..]),
        false => format!("(?:){text}"),
    }
}

/// Returns the part of `text` around `at` on one line, and the column of `at` in it.
fn window(text: &str, at: usize) -> (String, usize) {
    let (before, after) = text.split_at(at);
    let mut line = String::new();
    let skipped = before.chars().count().saturating_sub(WINDOW_CHARS);
    if skipped > 0 {
        line.push('…');
    }
    line.extend(before.chars().skip(skipped).map(visible));
    let column = line.chars().count();
    let mut rest = after.chars();
    line.extend(rest.by_ref().take(WINDOW_CHARS).map(visible));
    if rest.next().is_some() {
        line.push('…');
    }
    (line, column)
}

/// Returns a visible character instead of one that would break the line or be invisible.
fn visible(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        '\u{2028}' | '\u{2029}' => char::REPLACEMENT_CHARACTER,
        // Characters that change the direction of the text after them.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Number of characters shown on each side of the place. Both sides together fit on a terminal line.
const WINDOW_CHARS: usize = 60;

/// Number of bytes kept on each side: enough for [`WINDOW_CHARS`] of the widest characters, and one more to tell that
/// the text goes on.
const KEPT_BYTES: usize = 4 * (WINDOW_CHARS + 2);

#[cfg(test)]
mod tests {
    use crate::{PatternError, RoutePattern};

    fn refuse(text: &str) -> PatternError {
        RoutePattern::new(text).unwrap_err()
    }

    #[test]
    fn the_caret_counts_characters_and_not_bytes() {
        let error = refuse("éé(");
        assert_eq!(error.span(), 4..5);
        assert_eq!(error.caret(), "éé(\n  ^");
    }

    #[test]
    fn control_characters_stay_on_the_line() {
        assert_eq!(refuse("a\n\t\u{7f}*)").caret(), "a␊␉␡*)\n     ^");
    }

    #[test]
    fn a_long_pattern_is_cut_around_the_place() {
        let error = refuse(&format!("{}**{}", "x".repeat(1000), "y".repeat(1000)));
        let caret = error.caret();
        let (line, under) = caret.split_once('\n').unwrap();
        assert!(line.starts_with('…') && line.ends_with('…'), "{line}");
        assert_eq!(line.chars().nth(under.chars().count() - 1), Some('*'));
        assert!(line.chars().count() < 130);
        assert!(error.to_string().contains("at byte 1001"), "{error}");
    }

    #[test]
    fn a_refused_huge_text_is_not_kept() {
        let error = refuse(&"é".repeat(1 << 20));
        assert!(error.text.len() < 8192);
        assert_eq!(error.span(), 4096..4096);
    }

    #[test]
    fn a_limit_is_named_with_its_value() {
        let message = refuse("a{1001}").to_string();
        assert!(message.contains("`repeat` of 1000"), "{message}");
    }
}
