//! Names of classes in `\p{…}`: those of Go's tables, which are the general categories, their long names, and the long
//! names of the scripts.

use std::collections::BTreeMap;

use regex_syntax::hir::ClassUnicode;

use super::{hir, unicode17};

/// Cache of the classes that one pattern has named, so that naming one a thousand times costs little more than once.
#[derive(Default)]
pub(super) struct Cache(BTreeMap<(String, bool), Option<ClassUnicode>>);

impl Cache {
    /// Returns the class of that name, folded if requested, or `None` if Go has no such name. Case, spaces, `-` and `_`
    /// in names are ignored.
    pub(super) fn get(&mut self, name: &str, folded: bool) -> Option<&ClassUnicode> {
        let name = canonical(name)?;
        let found = self.0.entry((name, folded));
        let class = found.or_insert_with_key(|(name, folded)| {
            let mut class = look_up(name)?;
            if *folded && !NEVER_FOLDED.contains(&name.as_str()) {
                hir::fold(&mut class);
            }
            Some(class)
        });
        class.as_ref()
    }
}

/// Categories that `(?i)` does not change. Go 1.27 folds a category by a table of the characters that folding adds to
/// it. These categories have no entry there, although U+0345 folds to a cased letter.
const NEVER_FOLDED: &[&str] = &["casedletter", "lc"];

fn canonical(name: &str) -> Option<String> {
    let mut canonical = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b' ' | b'-' | b'_' => {}
            b'A'..=b'Z' | b'a'..=b'z' => canonical.push(byte.to_ascii_lowercase().into()),
            _ => return None,
        }
    }
    Some(canonical)
}

fn look_up(name: &str) -> Option<ClassUnicode> {
    // Surrogates occur in no string.
    if matches!(name, "cs" | "surrogate") {
        return Some(ClassUnicode::empty());
    }
    if let Some(script) = SCRIPTS.iter().find(|&&script| same(script, name)) {
        let mut class = if unicode17::is_new_script(script) {
            ClassUnicode::empty()
        } else {
            hir::from_rust_syntax(&format!(r"\p{{Script={script}}}"))?
        };
        unicode17::amend_script(script, &mut class);
        return Some(class);
    }
    // `regex_syntax` drops a leading "is"; in Go, it makes another name.
    if name.is_empty() || name.starts_with("is") {
        return None;
    }
    let mut class = hir::from_rust_syntax(&format!(r"\p{{General_Category={name}}}"))?;
    unicode17::amend_category(&mut class);
    Some(class)
}

/// Returns true if the canonical form of `script` is `name`.
fn same(script: &str, name: &str) -> bool {
    let letters = script.bytes().filter(|&byte| byte != b'_');
    letters.map(|byte| byte.to_ascii_lowercase()).eq(name.bytes())
}

/// The scripts of Unicode 17.
#[rustfmt::skip]
const SCRIPTS: &[&str] = &[
    "Adlam", "Ahom", "Anatolian_Hieroglyphs", "Arabic", "Armenian", "Avestan", "Balinese",
    "Bamum", "Bassa_Vah", "Batak", "Bengali", "Beria_Erfe", "Bhaiksuki", "Bopomofo", "Brahmi",
    "Braille", "Buginese", "Buhid", "Canadian_Aboriginal", "Carian", "Caucasian_Albanian",
    "Chakma", "Cham", "Cherokee", "Chorasmian", "Common", "Coptic", "Cuneiform", "Cypriot",
    "Cypro_Minoan", "Cyrillic", "Deseret", "Devanagari", "Dives_Akuru", "Dogra", "Duployan",
    "Egyptian_Hieroglyphs", "Elbasan", "Elymaic", "Ethiopic", "Garay", "Georgian",
    "Glagolitic", "Gothic", "Grantha", "Greek", "Gujarati", "Gunjala_Gondi", "Gurmukhi",
    "Gurung_Khema", "Han", "Hangul", "Hanifi_Rohingya", "Hanunoo", "Hatran", "Hebrew",
    "Hiragana", "Imperial_Aramaic", "Inherited", "Inscriptional_Pahlavi",
    "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada", "Katakana", "Kawi", "Kayah_Li",
    "Kharoshthi", "Khitan_Small_Script", "Khmer", "Khojki", "Khudawadi", "Kirat_Rai", "Lao",
    "Latin", "Lepcha", "Limbu", "Linear_A", "Linear_B", "Lisu", "Lycian", "Lydian", "Mahajani",
    "Makasar", "Malayalam", "Mandaic", "Manichaean", "Marchen", "Masaram_Gondi", "Medefaidrin",
    "Meetei_Mayek", "Mende_Kikakui", "Meroitic_Cursive", "Meroitic_Hieroglyphs", "Miao",
    "Modi", "Mongolian", "Mro", "Multani", "Myanmar", "Nabataean", "Nag_Mundari",
    "Nandinagari", "New_Tai_Lue", "Newa", "Nko", "Nushu", "Nyiakeng_Puachue_Hmong", "Ogham",
    "Ol_Chiki", "Ol_Onal", "Old_Hungarian", "Old_Italic", "Old_North_Arabian", "Old_Permic",
    "Old_Persian", "Old_Sogdian", "Old_South_Arabian", "Old_Turkic", "Old_Uyghur", "Oriya",
    "Osage", "Osmanya", "Pahawh_Hmong", "Palmyrene", "Pau_Cin_Hau", "Phags_Pa", "Phoenician",
    "Psalter_Pahlavi", "Rejang", "Runic", "Samaritan", "Saurashtra", "Sharada", "Shavian",
    "Siddham", "Sidetic", "SignWriting", "Sinhala", "Sogdian", "Sora_Sompeng", "Soyombo",
    "Sundanese", "Sunuwar", "Syloti_Nagri", "Syriac", "Tagalog", "Tagbanwa", "Tai_Le",
    "Tai_Tham", "Tai_Viet", "Tai_Yo", "Takri", "Tamil", "Tangsa", "Tangut", "Telugu", "Thaana",
    "Thai", "Tibetan", "Tifinagh", "Tirhuta", "Todhri", "Tolong_Siki", "Toto", "Tulu_Tigalari",
    "Ugaritic", "Vai", "Vithkuqi", "Wancho", "Warang_Citi", "Yezidi", "Yi", "Zanabazar_Square",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_is_in_the_tables() {
        for script in SCRIPTS {
            let name = canonical(script).unwrap();
            assert!(look_up(&name).is_some(), "{script}");
        }
    }

    #[test]
    fn every_category_is_in_the_tables_by_its_short_and_long_name() {
        for name in [
            "Any",
            "ASCII",
            "Assigned",
            "C",
            "Cased_Letter",
            "Cc",
            "Cf",
            "Close_Punctuation",
            "Cn",
            "cntrl",
            "Co",
            "Combining_Mark",
            "Cs",
            "digit",
            "L",
            "LC",
            "Letter",
            "Ll",
            "Lm",
            "Lo",
            "Lowercase_Letter",
            "Lt",
            "Lu",
            "M",
            "Mc",
            "Me",
            "Mn",
            "N",
            "Nd",
            "Nl",
            "No",
            "P",
            "Pc",
            "Pd",
            "Pe",
            "Pf",
            "Pi",
            "Po",
            "Ps",
            "punct",
            "S",
            "Sc",
            "Sk",
            "Sm",
            "So",
            "Surrogate",
            "Unassigned",
            "Z",
            "Zl",
            "Zp",
            "Zs",
        ] {
            let name = canonical(name).unwrap();
            assert!(look_up(&name).is_some(), "{name}");
        }
    }
}
