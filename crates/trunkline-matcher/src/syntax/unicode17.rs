//! Additions of Unicode 17 to the tables of `regex-syntax`, which are those of Unicode 16. Taken from the tables of Go
//! 1.27. To be removed when `regex-syntax` has them; a test then fails.

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// Updates the class of a general category to Unicode 17.
///
/// Categories are combined into larger ones. Which of those a class is, is determined from its members.
pub(super) fn amend_category(class: &mut ClassUnicode) {
    let (members, others): (Vec<_>, Vec<_>) = CHANGED.iter().partition(|(.., like, _)| contains(class, *like));
    class.union(&ranges(&members));
    class.difference(&ranges(&others));
}

/// Updates the class of a script to Unicode 17. The class is empty if the script is new.
pub(super) fn amend_script(script: &str, class: &mut ClassUnicode) {
    let members: Vec<_> = CHANGED.iter().filter(|(.., other)| *other == script).collect();
    class.union(&ranges(&members));
}

/// Adds every character that is equal to a member of `class` except for case.
pub(super) fn fold(class: &mut ClassUnicode) {
    let mut folded = Vec::new();
    for &(capital, small, len) in PAIRS {
        for (from, to) in [(capital, small), (small, capital)] {
            for range in class.ranges() {
                let start = u32::from(range.start()).max(from);
                let end = u32::from(range.end()).min(from + len - 1);
                if start <= end
                    && let Some(start) = char::from_u32(start - from + to)
                    && let Some(end) = char::from_u32(end - from + to)
                {
                    folded.push(ClassUnicodeRange::new(start, end));
                }
            }
        }
    }
    class.union(&ClassUnicode::new(folded));
}

/// Returns true if all characters of the script are in [`CHANGED`].
pub(super) fn is_new_script(script: &str) -> bool {
    NEW_SCRIPTS.contains(&script)
}

fn ranges(rows: &[&Change]) -> ClassUnicode {
    ClassUnicode::new(rows.iter().map(|&&(start, end, ..)| ClassUnicodeRange::new(start, end)))
}

fn contains(class: &ClassUnicode, c: char) -> bool {
    class.ranges().iter().any(|range| range.start() <= c && c <= range.end())
}

/// Range of characters that are new or have another category, with an old character of the same category, and the
/// script if the range is new to it.
type Change = (char, char, char, &'static str);

const NEW_SCRIPTS: &[&str] = &["Beria_Erfe", "Sidetic", "Tai_Yo", "Tolong_Siki"];

/// Pairs of letters: the first capital letter, its small letter, and the number of pairs that follow.
const PAIRS: &[(u32, u32, u32)] =
    &[(0xa7ce, 0xa7cf, 1), (0xa7d2, 0xa7d3, 1), (0xa7d4, 0xa7d5, 1), (0x16ea0, 0x16ebb, 25)];

// One character of each category, none of ASCII, which is a class of its own.
const LL: char = 'ß';
const LM: char = 'ʰ';
const LO: char = 'ª';
const LU: char = 'À';
const MC: char = '\u{903}';
const MN: char = '\u{300}';
const ND: char = '٠';
const NL: char = 'ᛮ';
const PO: char = '¡';
const SC: char = '¢';
const SM: char = '¬';
const SO: char = '¦';

/// The changes. All ranges except the first are new.
#[rustfmt::skip]
const CHANGED: &[Change] = &[
    ('\u{295}', '\u{295}', LO, ""),
    ('\u{88f}', '\u{88f}', LO, "Arabic"),
    ('\u{c5c}', '\u{c5c}', LO, "Telugu"),
    ('\u{cdc}', '\u{cdc}', LO, "Kannada"),
    ('\u{1acf}', '\u{1add}', MN, "Inherited"),
    ('\u{1ae0}', '\u{1aeb}', MN, "Inherited"),
    ('\u{20c1}', '\u{20c1}', SC, "Common"),
    ('\u{2b96}', '\u{2b96}', SO, "Common"),
    ('\u{a7ce}', '\u{a7ce}', LU, "Latin"),
    ('\u{a7cf}', '\u{a7cf}', LL, "Latin"),
    ('\u{a7d2}', '\u{a7d2}', LU, "Latin"),
    ('\u{a7d4}', '\u{a7d4}', LU, "Latin"),
    ('\u{a7f1}', '\u{a7f1}', LM, "Latin"),
    ('\u{fbc3}', '\u{fbd2}', SO, "Arabic"),
    ('\u{fd90}', '\u{fd91}', SO, "Arabic"),
    ('\u{fdc8}', '\u{fdce}', SO, "Arabic"),
    ('\u{10940}', '\u{10959}', LO, "Sidetic"),
    ('\u{10ec5}', '\u{10ec5}', LM, "Arabic"),
    ('\u{10ec6}', '\u{10ec7}', LO, "Arabic"),
    ('\u{10ed0}', '\u{10ed0}', PO, "Arabic"),
    ('\u{10ed1}', '\u{10ed8}', SO, "Arabic"),
    ('\u{10efa}', '\u{10efb}', MN, "Arabic"),
    ('\u{11b60}', '\u{11b60}', MN, "Sharada"),
    ('\u{11b61}', '\u{11b61}', MC, "Sharada"),
    ('\u{11b62}', '\u{11b64}', MN, "Sharada"),
    ('\u{11b65}', '\u{11b65}', MC, "Sharada"),
    ('\u{11b66}', '\u{11b66}', MN, "Sharada"),
    ('\u{11b67}', '\u{11b67}', MC, "Sharada"),
    ('\u{11db0}', '\u{11dd8}', LO, "Tolong_Siki"),
    ('\u{11dd9}', '\u{11dd9}', LM, "Tolong_Siki"),
    ('\u{11dda}', '\u{11ddb}', LO, "Tolong_Siki"),
    ('\u{11de0}', '\u{11de9}', ND, "Tolong_Siki"),
    ('\u{16ea0}', '\u{16eb8}', LU, "Beria_Erfe"),
    ('\u{16ebb}', '\u{16ed3}', LL, "Beria_Erfe"),
    ('\u{16ff2}', '\u{16ff3}', LM, "Han"),
    ('\u{16ff4}', '\u{16ff6}', NL, "Han"),
    ('\u{187f8}', '\u{187ff}', LO, "Tangut"),
    ('\u{18d09}', '\u{18d1e}', LO, "Tangut"),
    ('\u{18d80}', '\u{18df2}', LO, "Tangut"),
    ('\u{1ccfa}', '\u{1ccfc}', SO, "Common"),
    ('\u{1ceba}', '\u{1ced0}', SO, "Common"),
    ('\u{1cee0}', '\u{1ceef}', SO, "Common"),
    ('\u{1cef0}', '\u{1cef0}', SM, "Common"),
    ('\u{1e6c0}', '\u{1e6de}', LO, "Tai_Yo"),
    ('\u{1e6e0}', '\u{1e6e2}', LO, "Tai_Yo"),
    ('\u{1e6e3}', '\u{1e6e3}', MN, "Tai_Yo"),
    ('\u{1e6e4}', '\u{1e6e5}', LO, "Tai_Yo"),
    ('\u{1e6e6}', '\u{1e6e6}', MN, "Tai_Yo"),
    ('\u{1e6e7}', '\u{1e6ed}', LO, "Tai_Yo"),
    ('\u{1e6ee}', '\u{1e6ef}', MN, "Tai_Yo"),
    ('\u{1e6f0}', '\u{1e6f4}', LO, "Tai_Yo"),
    ('\u{1e6f5}', '\u{1e6f5}', MN, "Tai_Yo"),
    ('\u{1e6fe}', '\u{1e6fe}', LO, "Tai_Yo"),
    ('\u{1e6ff}', '\u{1e6ff}', LM, "Tai_Yo"),
    ('\u{1f6d8}', '\u{1f6d8}', SO, "Common"),
    ('\u{1f777}', '\u{1f77a}', SO, "Common"),
    ('\u{1f8d0}', '\u{1f8d8}', SM, "Common"),
    ('\u{1fa54}', '\u{1fa57}', SO, "Common"),
    ('\u{1fa8a}', '\u{1fa8a}', SO, "Common"),
    ('\u{1fa8e}', '\u{1fa8e}', SO, "Common"),
    ('\u{1fac8}', '\u{1fac8}', SO, "Common"),
    ('\u{1facd}', '\u{1facd}', SO, "Common"),
    ('\u{1faea}', '\u{1faea}', SO, "Common"),
    ('\u{1faef}', '\u{1faef}', SO, "Common"),
    ('\u{1fbfa}', '\u{1fbfa}', SO, "Common"),
    ('\u{2b73a}', '\u{2b73f}', LO, "Han"),
    ('\u{2cea2}', '\u{2cead}', LO, "Han"),
    ('\u{323b0}', '\u{33479}', LO, "Han"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::hir::from_rust_syntax;

    #[test]
    fn the_tables_of_regex_syntax_are_older() {
        for &(start, ..) in &CHANGED[1..] {
            let assigned = from_rust_syntax(r"\p{Assigned}").unwrap();
            assert!(!contains(&assigned, start), "{start:?} is known: this file can go");
        }
    }

    #[test]
    fn folding_goes_both_ways_and_stays_inside_the_pairs() {
        for (c, folded) in [
            ('\u{a7d2}', "\u{a7d2}\u{a7d3}"),
            ('\u{a7d5}', "\u{a7d4}\u{a7d5}"),
            ('\u{16ea0}', "\u{16ea0}\u{16ebb}"),
            ('\u{16ed3}', "\u{16eb8}\u{16ed3}"),
            ('\u{16eb9}', "\u{16eb9}"),
            ('a', "a"),
        ] {
            let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
            fold(&mut class);
            assert_eq!(class, ClassUnicode::new(folded.chars().map(|c| ClassUnicodeRange::new(c, c))));
        }
    }
}
