//! Parser for classes: `[…]`, `\d`, `\pL`, `[:alpha:]`.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange, Hir};

use super::Parser;
use super::hir::{fold, negate, to_hir};
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
