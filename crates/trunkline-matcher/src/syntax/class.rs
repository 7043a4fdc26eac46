//! Parser for classes: `[…]`, `\d`, `\pL`, `[:alpha:]`.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

use super::{Parser, unicode17};
use crate::error::{Fault, PatternErrorKind};

type Ranges = &'static [(char, char)];

impl Parser<'_> {
    /// Reads `[…]`; brackets, `&&`, `--` and `~~` inside have no meaning of
    /// their own.
    pub(super) fn bracket_class(&mut self) -> Result<Hir, Fault> {
        let start = self.at;
        self.bump();
        let negated = self.eat('^');
        let mut chars = Vec::new();
        // Named classes are already folded; folding them again would be expensive.
        let mut named = Vec::new();
        let mut first = true;
        while first || !self.eat(']') {
            first = false;
            if let Some(class) = self.posix_class()? {
                named.extend_from_slice(class.ranges());
            } else if let Some(class) = self.escaped_class()? {
                named.extend_from_slice(class.ranges());
            } else {
                chars.extend(self.class_range(start)?);
            }
        }
        let mut class = ClassUnicode::new(chars);
        if self.flags.fold {
            fold(&mut class);
        }
        class.union(&ClassUnicode::new(named));
        if negated {
            negate(&mut class);
        }
        Ok(to_hir(class))
    }

    /// Reads one member or a range of them. Returns `None` if the range consists of surrogates only: these occur in no
    /// string and are left out.
    fn class_range(&mut self, class_start: usize) -> Result<Option<ClassUnicodeRange>, Fault> {
        let start = self.at;
        let low = self.class_char(class_start)?;
        let mut high = low;
        let rest = self.rest();
        if rest.len() >= 2 && rest.starts_with('-') && !rest.starts_with("-]") {
            self.bump();
            high = self.class_char(class_start)?;
            if high < low {
                return Err(self.fault(PatternErrorKind::BadRange, start));
            }
        }
        let low = char::from_u32(low).unwrap_or('\u{e000}');
        let high = char::from_u32(high).unwrap_or('\u{d7ff}');
        Ok((low <= high).then(|| ClassUnicodeRange::new(low, high)))
    }

    fn class_char(&mut self, class_start: usize) -> Result<u32, Fault> {
        match self.peek() {
            Some('\\') => self.escaped_char(),
            Some(c) => {
                self.bump();
                Ok(c.into())
            }
            None => Err(Fault { kind: PatternErrorKind::UnclosedClass, span: class_start..class_start + 1 }),
        }
    }

    /// Reads `[:name:]` or `[:^name:]`, if one starts here.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>, Fault> {
        let Some(body) = self.rest().strip_prefix("[:") else {
            return Ok(None);
        };
        let Some((name, _)) = body.split_once(":]") else {
            return Ok(None);
        };
        let start = self.at;
        self.at += name.len() + 4;
        let (name, negated) = match name.strip_prefix('^') {
            Some(name) => (name, true),
            None => (name, false),
        };
        match posix(name) {
            Some(ranges) => Ok(Some(self.ascii_class(ranges, negated))),
            None => Err(self.fault(PatternErrorKind::UnknownClass, start)),
        }
    }

    /// Reads `\d` and similar, `\pN` or `\p{Name}`, if one starts here.
    pub(super) fn escaped_class(&mut self) -> Result<Option<ClassUnicode>, Fault> {
        let mut chars = self.rest().chars();
        if chars.next() != Some('\\') {
            return Ok(None);
        }
        let (ranges, negated) = match chars.next() {
            Some('d') => (DIGIT, false),
            Some('D') => (DIGIT, true),
            Some('s') => (PERL_SPACE, false),
            Some('S') => (PERL_SPACE, true),
            Some('w') => (WORD, false),
            Some('W') => (WORD, true),
            Some(c @ ('p' | 'P')) => return self.unicode_class(c == 'P').map(Some),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(self.ascii_class(ranges, negated)))
    }

    fn unicode_class(&mut self, mut negated: bool) -> Result<ClassUnicode, Fault> {
        let start = self.at;
        self.at += 2;
        let name = if self.eat('{') {
            let Some((name, _)) = self.rest().split_once('}') else {
                return Err(self.fault(PatternErrorKind::UnknownClass, start));
            };
            self.at += name.len() + 1;
            name
        } else {
            let rest = self.rest();
            self.bump();
            &rest[..rest.len() - self.rest().len()]
        };
        let name = match name.strip_prefix('^') {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        let mut class = match self.named.get(name, self.flags.fold) {
            Some(class) => class.clone(),
            None => return Err(self.fault(PatternErrorKind::UnknownClass, start)),
        };
        if negated {
            negate(&mut class);
        }
        Ok(class)
    }

    /// Returns an ASCII class. Folding comes before negation: `(?i)\W` leaves out the Kelvin sign, which folds to `k`.
    fn ascii_class(&self, ranges: Ranges, negated: bool) -> ClassUnicode {
        let mut class = ClassUnicode::new(ranges.iter().map(|&(low, high)| ClassUnicodeRange::new(low, high)));
        if self.flags.fold {
            fold(&mut class);
        }
        if negated {
            negate(&mut class);
        }
        class
    }
}

pub(super) fn to_hir(class: ClassUnicode) -> Hir {
    Hir::class(Class::Unicode(class))
}

pub(super) fn folded_char(c: char) -> Hir {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    fold(&mut class);
    to_hir(class)
}

/// Negates a class. `ClassUnicode::negate` is not used: where one range ends just before the surrogates and the next
/// starts just after them, it treats the two ends as a gap.
fn negate(class: &mut ClassUnicode) {
    let mut gaps = Vec::new();
    let mut next = Some('\0');
    for range in class.ranges() {
        if let (Some(first), Some(last)) = (next, ('\0'..range.start()).next_back())
            && first <= last
        {
            gaps.push(ClassUnicodeRange::new(first, last));
        }
        next = (range.end()..=char::MAX).nth(1);
    }
    gaps.extend(next.map(|first| ClassUnicodeRange::new(first, char::MAX)));
    *class = ClassUnicode::new(gaps);
}

/// Adds every character that is equal to a member except for case.
///
/// Folding visits every code point of a class. A large class is therefore first cut to the characters that have case at
/// all.
pub(super) fn fold(class: &mut ClassUnicode) {
    let size: usize = class.ranges().iter().map(ClassUnicodeRange::len).sum();
    unicode17::fold(class);
    if size <= SMALL_CLASS {
        class.case_fold_simple();
        return;
    }
    let mut cased = CASED.clone();
    cased.intersect(class);
    cased.case_fold_simple();
    class.union(&cased);
}

/// Reads one class by the syntax of `regex_syntax`.
pub(super) fn from_rust_syntax(text: &str) -> Option<ClassUnicode> {
    let hir = regex_syntax::parse(text).ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        // `regex_syntax` makes a literal of a class with one character.
        HirKind::Literal(literal) => {
            let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(ClassUnicode::new([ClassUnicodeRange::new(c, c)]))
        }
        _ => None,
    }
}

fn posix(name: &str) -> Option<Ranges> {
    Some(match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => DIGIT,
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => WORD,
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return None,
    })
}

const DIGIT: Ranges = &[('0', '9')];
const WORD: Ranges = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
/// The class `\s`: without U+000B, unlike POSIX's `space`.
const PERL_SPACE: Ranges = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];

/// Number of members below which cutting a class costs more than it saves.
const SMALL_CLASS: usize = 256;

/// Class of every character that folds to another, and a few that do not.
static CASED: LazyLock<ClassUnicode> = LazyLock::new(|| {
    from_rust_syntax(r"\p{Changes_When_Casemapped}").expect("the tables of regex-syntax have this property")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_that_folds_is_known_to_have_case() {
        for c in '\0'..='\u{1ffff}' {
            let mut folded = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            folded.case_fold_simple();
            if folded.ranges().len() > 1 || folded.ranges()[0].len() > 1 {
                let mut cased = CASED.clone();
                cased.intersect(&folded);
                assert_eq!(cased, folded, "{c:?}");
            }
        }
    }

    #[test]
    fn folding_a_large_class_is_folding_each_member() {
        for (low, high) in [('B', '\u{10ffff}'), ('\0', 'k'), ('\u{100}', '\u{600}')] {
            let mut quick = ClassUnicode::new([ClassUnicodeRange::new(low, high)]);
            let mut plain = quick.clone();
            fold(&mut quick);
            plain.case_fold_simple();
            unicode17::fold(&mut plain);
            assert_eq!(quick, plain);
        }
    }
}
