//! Patterns that require no text but a byte, and classes of bytes around it: many asked at once, bit by bit.
//!
//! `[a-z]\d+@` is found only where there is an `@` with a digit before it. For each byte that patterns are anchored
//! at there is a table: for each place around the byte and each byte there, which patterns bear it. A look-up takes
//! the conjunction of the rows of the places, for each such byte of the name; what is left is asked one by one.
//! (Shift-And over byte classes, Baeza-Yates and Gonnet 1992, turned by a right angle: one step for all patterns at
//! a place instead of one for each place.)

use std::collections::BTreeSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Places looked at on each side of the anchor.
const REACH: usize = 8;
const PLACES: usize = 2 * REACH + 1;

/// What may be at one place: bytes, or the end of the name.
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

/// The places around one byte that every match has. The anchor is in the middle.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    anchor: u8,
    places: [Place; PLACES],
    /// The places are all there is: where they fit, the pattern is found.
    exact: bool,
}

impl Window {
    /// The window that excludes most. `None`: no byte stands for itself in every match.
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

    /// Bits of choice that the places leave out, less what a byte costs that names have often.
    fn strictness(&self) -> f64 {
        let often = if self.anchor.is_ascii_alphanumeric() || b"-.".contains(&self.anchor) { 1.5 } else { 0.0 };
        let bits = |place: &Place| if *place == Place::ANY { 0.0 } else { 6.0 - f64::from(place.len().max(1)).log2() };
        self.places.iter().map(bits).sum::<f64>() - often
    }
}

/// What a pattern asks for, one place after another.
#[derive(PartialEq)]
enum Item {
    /// One byte.
    Once(Place),
    /// Such a byte at both ends, and who knows how many in between.
    More(Place),
    /// Nothing is known of how many bytes.
    Unknown,
    /// No byte at all, but a condition.
    Between,
    /// The start of the name.
    Start,
    /// Its end.
    End,
}

fn flatten(hir: &Hir, items: &mut Vec<Item>) {
    // Enough for every window that is any good.
    if items.len() > 4 * PLACES {
        return items.push(Item::Unknown);
    }
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => items.extend(literal.0.iter().map(|&byte| Item::Once(Place::of(byte)))),
        HirKind::Class(_) => items.push(byte_class(hir).map_or(Item::Unknown, Item::Once)),
        HirKind::Look(Look::Start) => items.push(Item::Start),
        HirKind::Look(Look::End) => items.push(Item::End),
        // It takes no place, and asks for more than bytes: what it is between is not all there is.
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

/// The class as bytes, when each of its characters is one.
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
    /// Bytes that no member tells apart are of one class. The last class is outside of the name.
    classes: Box<[u8; 256]>,
    class_count: usize,
    /// The places where some member wants something, as offsets from the anchor.
    offsets: Box<[isize]>,
    /// For each offset, for each class, the members that bear it: a bit each, `words` words.
    rows: Box<[u64]>,
    words: usize,
    /// The members whose windows are exact.
    exact: Box<[u64]>,
}

impl Anchored {
    /// Building takes time in proportion to the members, and every look-up too, if only some nanoseconds for 64.
    pub(crate) const MEMBERS: usize = 4096;

    pub(crate) fn of(anchor: u8, members: &[(u32, &Window)]) -> Self {
        let wanted = |at: &usize| *at != REACH && members.iter().any(|(_, window)| window.places[*at] != Place::ANY);
        let mut places: Vec<usize> = (0..PLACES).filter(wanted).collect();
        // The nearest are wanted by most, so they decide soonest.
        places.sort_by_key(|at| at.abs_diff(REACH));
        let (classes, class_count) = Self::classes(members, &places);
        let words = members.len().div_ceil(64);
        // A byte of each class but the last.
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
        // Splits every class by every set of bytes, as far as that divides it.
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

    /// Calls `each` with the members that may be found in `name`, some of them more than once, and whether they
    /// certainly are.
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
