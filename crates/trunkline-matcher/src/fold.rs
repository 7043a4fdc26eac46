//! Case folding of names and literals, so that one key serves both.

/// Properties of a name that a look-up determines before it tests any pattern.
pub(crate) struct Subject<'n> {
    pub(crate) name: &'n str,
    /// True if every character is one byte.
    pub(crate) ascii: bool,
    /// True if a character needs special treatment by a dot or a folded letter: a line feed, U+017F or U+212A.
    pub(crate) odd: bool,
}

impl<'n> Subject<'n> {
    pub(crate) fn new(name: &'n str) -> Self {
        let ascii = name.is_ascii();
        // Names are short, so comparing all of one is quicker than stopping early.
        let feed = name.bytes().fold(false, |found, byte| found | (byte == b'\n'));
        let odd = feed || (!ascii && name.contains([LONG_S, KELVIN]));
        Self { name, ascii, odd }
    }
}

const LONG_S: char = '\u{17f}';
const KELVIN: char = '\u{212a}';

/// Appends `text` folded: all characters that `(?i)` of Go treats as the same ASCII letter become the same byte.
pub(crate) fn fold_into(folded: &mut Vec<u8>, text: &str) {
    if text.is_ascii() {
        let start = folded.len();
        folded.extend_from_slice(text.as_bytes());
        folded[start..].make_ascii_lowercase();
        return;
    }
    for c in text.chars() {
        match c {
            LONG_S => folded.push(b's'),
            KELVIN => folded.push(b'k'),
            c => folded.extend_from_slice(c.to_ascii_lowercase().encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Returns the upper-case ASCII letter that `(?i)` treats as equal to a character beyond ASCII.
pub(crate) fn stands_for(c: char) -> Option<u8> {
    match c {
        LONG_S => Some(b'S'),
        KELVIN => Some(b'K'),
        _ => None,
    }
}

/// Returns the byte that every member of a class folds to, if there is one.
pub(crate) fn common_fold(chars: impl Iterator<Item = (char, char)>) -> Option<u8> {
    let mut common = None;
    for (low, high) in chars {
        if low != high {
            return None;
        }
        let byte = match low {
            LONG_S => b's',
            KELVIN => b'k',
            c if c.is_ascii() => c.to_ascii_lowercase() as u8,
            _ => return None,
        };
        if *common.get_or_insert(byte) != byte {
            return None;
        }
    }
    common
}
