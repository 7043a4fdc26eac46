//! Classes of characters as values: made, folded and negated.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind};

use super::unicode17;

/// Number of members below which cutting a class costs more than it saves.
const SMALL_CLASS: usize = 256;

/// Class of every character that folds to another, and a few that do not.
static CASED: LazyLock<ClassUnicode> = LazyLock::new(|| {
    from_rust_syntax(r"\p{Changes_When_Casemapped}").expect("the tables of regex-syntax have this property")
});

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
pub(super) fn negate(class: &mut ClassUnicode) {
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
