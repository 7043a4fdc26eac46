//! Matching of many patterns at once that require no text except one byte with classes of bytes around it.
//!
//! `[a-z]\d+@` is found only where an `@` has a digit before it. Such patterns are grouped by the byte that they are
//! anchored at. A group holds a table of bits: for each position around the anchor and each class of bytes, the members
//! that allow such a byte there. For each occurrence of the anchor in the name, a look-up takes the conjunction of the
//! rows of all positions, and then tests the remaining members one by one. (This is Shift-And over byte classes,
//! Baeza-Yates and Gonnet 1992, transposed: one step handles all patterns at one position, instead of all positions of
//! one pattern.)

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Number of positions considered on each side of the anchor.
const REACH: usize = 8;
const PLACES: usize = 2 * REACH + 1;

/// Set of bytes that one position allows; `outside` allows a position before the start or after the end of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bytes: [u64; 4],
    outside: bool,
}

impl Place {
    const ANY: Self = Self { bytes: [u64::MAX; 4], outside: true };
    const EDGE: Self = Self { bytes: [0; 4], outside: true };

    fn of(byte: u8) -> Self {
        let mut place = Self { bytes: [0; 4], outside: false };
        place.add(byte);
        place
    }

    fn add(&mut self, byte: u8) {
        self.bytes[usize::from(byte) / 64] |= 1 << (byte % 64);
    }

    fn has(&self, byte: u8) -> bool {
        self.bytes[usize::from(byte) / 64] >> (byte % 64) & 1 == 1
    }

    fn len(&self) -> u32 {
        self.bytes.iter().map(|word| word.count_ones()).sum()
    }

    fn only(&self) -> Option<u8> {
        (self.len() == 1).then(|| (0..=u8::MAX).find(|&byte| self.has(byte)))?
    }
}

/// The positions around a byte that every match contains. The anchor is in the middle.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    anchor: u8,
    places: [Place; PLACES],
    /// True if the positions describe the whole pattern: where they fit, the pattern matches.
    exact: bool,
}

impl Window {
    /// Returns the most selective window, or `None` if no single byte is part of every match.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        let mut items = Vec::new();
        flatten(hir, &mut items);
        let at = |index: usize| match items.get(index) {
            Some(Item::Once(place)) => place.only().map(|byte| Self::around(byte, &items, index)),
            _ => None,
        };
        (0..items.len()).filter_map(at).max_by(|a, b| a.strictness().total_cmp(&b.strictness()))
    }

    pub(crate) fn anchor(&self) -> u8 {
        self.anchor
    }

    fn around(anchor: u8, items: &[Item], index: usize) -> Self {
        let mut places = [Place::ANY; PLACES];
        places[REACH] = Place::of(anchor);
        let inner = items.strip_prefix(&[Item::Start]).unwrap_or(items);
        let inner = inner.strip_suffix(&[Item::End]).unwrap_or(inner);
        let all_once = inner.iter().all(|item| matches!(item, Item::Once(_)));
        let exact = all_once && index <= REACH && items.len() - index <= REACH;
        let mut side = |edge: Item, items: &mut dyn Iterator<Item = &Item>, at: &mut dyn Iterator<Item = usize>| {
            for item in items.filter(|item| !matches!(item, Item::Between)) {
                let Some(at) = at.next() else { break };
                match item {
                    Item::Once(place) | Item::More(place) => places[at] = *place,
                    item if *item == edge => places[at] = Place::EDGE,
                    _ => break,
                }
                if !matches!(item, Item::Once(_)) {
                    break;
                }
            }
        };
        side(Item::End, &mut items[index + 1..].iter(), &mut (REACH + 1..PLACES));
        side(Item::Start, &mut items[..index].iter().rev(), &mut (0..REACH).rev());
        Self { anchor, places, exact }
    }

    /// Returns the bits of information that the positions exclude, less a penalty for an anchor that is frequent in
    /// names.
    fn strictness(&self) -> f64 {
        let often = if self.anchor.is_ascii_alphanumeric() || b"-.".contains(&self.anchor) { 1.5 } else { 0.0 };
        let bits = |place: &Place| if *place == Place::ANY { 0.0 } else { 6.0 - f64::from(place.len().max(1)).log2() };
        self.places.iter().map(bits).sum::<f64>() - often
    }
}

/// Element of a pattern that is flattened to a sequence of positions.
#[derive(PartialEq)]
enum Item {
    /// Exactly one byte.
    Once(Place),
    /// One or more bytes, in unknown number, of which the first and the last are such a byte.
    More(Place),
    /// An unknown number of unknown bytes.
    Unknown,
    /// An assertion that consumes no byte.
    Between,
    /// The start of the name.
    Start,
    /// The end of the name.
    End,
}

fn flatten(hir: &Hir, items: &mut Vec<Item>) {
    // This is enough for every useful window.
    if items.len() > 4 * PLACES {
        return items.push(Item::Unknown);
    }
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => items.extend(literal.0.iter().map(|&byte| Item::Once(Place::of(byte)))),
        HirKind::Class(_) => items.push(byte_class(hir).map_or(Item::Unknown, Item::Once)),
        HirKind::Look(Look::Start) => items.push(Item::Start),
        HirKind::Look(Look::End) => items.push(Item::End),
        // An assertion consumes no byte, but restricts the match further, so that a window over it is never exact.
        HirKind::Look(_) => items.push(Item::Between),
        HirKind::Capture(capture) => flatten(&capture.sub, items),
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, items)),
        HirKind::Alternation(_) => items.push(Item::Unknown),
        HirKind::Repetition(repetition) => {
            let exact = repetition.max == Some(repetition.min);
            match byte_class(&repetition.sub) {
                _ if repetition.min == 0 => items.push(Item::Unknown),
                Some(place) if !exact => items.push(Item::More(place)),
                _ if exact && repetition.min as usize <= PLACES => {
                    (0..repetition.min).for_each(|_| flatten(&repetition.sub, items));
                }
                _ => items.push(Item::Unknown),
            }
        }
    }
}

/// Returns the class as a set of bytes, or `None` if one of its characters is not a single byte.
fn byte_class(hir: &Hir) -> Option<Place> {
    match hir.kind() {
        HirKind::Literal(literal) if literal.0.len() == 1 => Some(Place::of(literal.0[0])),
        HirKind::Class(Class::Unicode(class)) if class.is_ascii() => {
            let mut place = Place { bytes: [0; 4], outside: false };
            for range in class.ranges() {
                (range.start() as u8..=range.end() as u8).for_each(|byte| place.add(byte));
            }
            Some(place)
        }
        _ => None,
    }
}

/// Patterns with the same anchor.
pub(crate) struct Anchored {
    anchor: u8,
    members: Box<[u32]>,
    /// Class of each byte: bytes that no member distinguishes share a class. One more class, the last, stands for
    /// positions outside the name.
    classes: Box<[u8; 256]>,
    class_count: usize,
    /// Positions that some member restricts, as offsets from the anchor.
    offsets: Box<[isize]>,
    /// For each offset and each class, one row of `words` words, with a bit for each member that allows the class
    /// there.
    rows: Box<[u64]>,
    words: usize,
    /// Bit set of the members whose windows are exact.
    exact: Box<[u64]>,
}

impl Anchored {
    /// Most members of one group. The time to build a group grows with their number, and so does each look-up, by some
    /// nanoseconds for each 64 members.
    pub(crate) const MEMBERS: usize = 4096;

    pub(crate) fn of(anchor: u8, members: &[(u32, &Window)]) -> Self {
        let wanted = |at: &usize| *at != REACH && members.iter().any(|(_, window)| window.places[*at] != Place::ANY);
        let mut places: Vec<usize> = (0..PLACES).filter(wanted).collect();
        // Most members restrict the positions nearest to the anchor, so these exclude the most members first.
        places.sort_by_key(|at| at.abs_diff(REACH));
        let (classes, class_count) = Self::classes(members, &places);
        let words = members.len().div_ceil(64);
        // One byte of each class but the last.
        let mut samples = vec![0; class_count - 1];
        (0..=u8::MAX).for_each(|byte| samples[usize::from(classes[usize::from(byte)])] = byte);
        let mut rows = vec![0; places.len() * class_count * words];
        for (nth, &at) in places.iter().enumerate() {
            for class in 0..class_count {
                let row = &mut rows[(nth * class_count + class) * words..][..words];
                for (member, (_, window)) in members.iter().enumerate() {
                    let place = &window.places[at];
                    let bears = samples.get(class).map_or(place.outside, |&byte| place.has(byte));
                    row[member / 64] |= u64::from(bears) << (member % 64);
                }
            }
        }
        let mut exact = vec![0; words];
        for (member, (_, window)) in members.iter().enumerate() {
            exact[member / 64] |= u64::from(window.exact) << (member % 64);
        }
        let offsets = places.into_iter().map(|at| at as isize - REACH as isize).collect();
        let members = members.iter().map(|&(at, _)| at).collect();
        let exact = exact.into();
        Self { anchor, members, classes, class_count, offsets, rows: rows.into(), words, exact }
    }

    fn classes(members: &[(u32, &Window)], places: &[usize]) -> (Box<[u8; 256]>, usize) {
        let mut classes = Box::new([0; 256]);
        let mut count = 1_usize;
        let all = |(_, window): &(u32, &Window)| places.iter().map(|&at| window.places[at].bytes).collect::<Vec<_>>();
        let distinct: BTreeSet<[u64; 4]> = members.iter().flat_map(all).collect();
        // Splits every class by every set of bytes.
        for bytes in distinct {
            let has = |byte: u8| bytes[usize::from(byte) / 64] >> (byte % 64) & 1 == 1;
            let (mut inside, mut outside, mut split) = ([false; 256], [false; 256], [None; 256]);
            for byte in 0..=u8::MAX {
                let class = usize::from(classes[usize::from(byte)]);
                *(if has(byte) { &mut inside[class] } else { &mut outside[class] }) = true;
            }
            for byte in (0..=u8::MAX).filter(|&byte| has(byte)) {
                let class = usize::from(classes[usize::from(byte)]);
                if inside[class] && outside[class] {
                    classes[usize::from(byte)] = *split[class].get_or_insert_with(|| {
                        count += 1;
                        (count - 1) as u8
                    });
                }
            }
        }
        (classes, count + 1)
    }

    pub(crate) fn anchor(&self) -> u8 {
        self.anchor
    }

    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        4 * self.members.len() + 256 + 8 * (self.offsets.len() + self.rows.len())
    }

    /// Calls `each` with each member that may match in `name`, and with true if it certainly does. A member may be
    /// reported more than once.
    pub(crate) fn search(&self, name: &[u8], row: &mut Vec<u64>, mut each: impl FnMut(u32, bool)) {
        for (at, _) in name.iter().enumerate().filter(|(_, byte)| **byte == self.anchor) {
            row.clear();
            row.resize(self.words, u64::MAX);
            for (nth, offset) in self.offsets.iter().enumerate() {
                let byte = at.checked_add_signed(*offset).and_then(|at| name.get(at));
                let class = byte.map_or(self.class_count - 1, |&byte| self.classes[usize::from(byte)].into());
                let bear = &self.rows[(nth * self.class_count + class) * self.words..][..self.words];
                let mut left = 0;
                for (word, bear) in row.iter_mut().zip(bear) {
                    *word &= bear;
                    left |= *word;
                }
                if left == 0 {
                    break;
                }
            }
            for (index, word) in row.iter().enumerate() {
                let mut bits = *word;
                while bits != 0 {
                    let bit = bits.trailing_zeros();
                    if let Some(&member) = self.members.get(index * 64 + bit as usize) {
                        each(member, self.exact[index] >> bit & 1 == 1);
                    }
                    bits &= bits - 1;
                }
            }
        }
    }
}
