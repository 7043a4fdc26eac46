//! Patterns that are text with wildcards, compared where they lie.
//!
//! A glob is segments of a fixed number of characters with `.*` between them. Nine patterns in ten are one, and
//! comparing it takes a fraction of what any automaton takes.

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};

use crate::fold::{self, Subject};

/// A glob, and whether its ends are bound to those of the name.
#[derive(Debug)]
pub(crate) struct Glob {
    at_start: bool,
    at_end: bool,
    /// The pattern's bytes, then for each of them which bits of the name's count.
    bytes: Box<[u8]>,
    /// Where each segment ends; segments are never empty.
    ends: Box<[u16]>,
    sets: Box<[Set]>,
}

/// What may stand at a place whose mask is zero, if that is not just any character.
#[derive(Debug)]
struct Set {
    at: u16,
    ascii: u128,
    /// Every character that is not ASCII, or none.
    beyond: bool,
}

/// Every bit counts; or all but the one that tells the case of a letter; or none.
const EXACT: u8 = 0xff;
const FOLDED: u8 = !0x20;
const WILD: u8 = 0;

impl Glob {
    /// `None` when the pattern is more than a glob.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        let mut reader = Reader::default();
        reader.read(hir)?;
        reader.finish()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len() + 2 * self.ends.len() + size_of_val(&*self.sets)
    }

    /// Nothing but text, whole: a dot would be a wildcard.
    pub(crate) fn is_literal(&self) -> bool {
        self.ends.len() <= 1 && self.masks().iter().all(|&mask| mask == EXACT)
    }

    /// The subject must not be odd.
    pub(crate) fn is_match(&self, subject: &Subject<'_>) -> bool {
        debug_assert!(!subject.odd);
        let name = subject.name.as_bytes();
        if subject.ascii {
            self.found(|segment, at| self.fits(segment, name, at), name.len())
        } else {
            self.found(|segment, at| self.fits_text(segment, subject.name, at), name.len())
        }
    }

    fn masks(&self) -> &[u8] {
        &self.bytes[self.bytes.len() / 2..]
    }

    fn segment(&self, index: usize) -> (usize, usize) {
        let start = if index == 0 { 0 } else { self.ends[index - 1].into() };
        (start, self.ends[index].into())
    }

    /// Places the segments from the left, each as early as it fits, the last at the end if it is bound there.
    /// `fits` says where a segment that fits at a place ends.
    fn found(&self, fits: impl Fn(usize, usize) -> Option<usize>, len: usize) -> bool {
        let count = self.ends.len();
        let mut at = 0;
        for index in 0..count {
            let bound_here = index == 0 && self.at_start;
            let last = index + 1 == count;
            let (start, end) = self.segment(index);
            let shortest = end - start;
            loop {
                // Not fewer bytes than characters.
                if at + shortest > len {
                    return false;
                }
                match fits(index, at) {
                    Some(end) if !(last && self.at_end) || end == len => {
                        at = end;
                        break;
                    }
                    _ if bound_here => return false,
                    _ => at += 1,
                }
            }
        }
        true
    }

    /// Whether a segment is at `at` of a name of ASCII without line feeds.
    #[inline]
    fn fits(&self, segment: usize, name: &[u8], at: usize) -> Option<usize> {
        let (start, end) = self.segment(segment);
        let there = name.get(at..at + (end - start))?;
        let (bytes, masks) = (&self.bytes[start..end], &self.masks()[start..end]);
        if (there[0] ^ bytes[0]) & masks[0] != 0 {
            return None;
        }
        let mut differs = 0;
        for ((here, byte), mask) in there.iter().zip(bytes).zip(masks) {
            differs |= (here ^ byte) & mask;
        }
        let in_sets = || {
            let sets = self.sets.iter().filter(|set| (start..end).contains(&set.at.into()));
            sets.into_iter().all(|set| set.ascii >> there[usize::from(set.at) - start] & 1 == 1)
        };
        (differs == 0 && in_sets()).then_some(at + (end - start))
    }

    /// The same for any name that is not odd: a wildcard stands for a character, not a byte.
    fn fits_text(&self, segment: usize, name: &str, mut at: usize) -> Option<usize> {
        let (start, end) = self.segment(segment);
        for index in start..end {
            let mask = self.masks()[index];
            if mask == WILD {
                let c = name.get(at..)?.chars().next()?;
                let set = self.sets.iter().find(|set| usize::from(set.at) == index);
                if set.is_some_and(|set| if c.is_ascii() { set.ascii >> c as u32 & 1 == 0 } else { !set.beyond }) {
                    return None;
                }
                at += c.len_utf8();
            } else {
                if (name.as_bytes().get(at)? ^ self.bytes[index]) & mask != 0 {
                    return None;
                }
                at += 1;
            }
        }
        Some(at)
    }
}

#[derive(Default)]
struct Reader {
    at_start: bool,
    at_end: bool,
    bytes: Vec<u8>,
    masks: Vec<u8>,
    ends: Vec<u16>,
    sets: Vec<Set>,
}

impl Reader {
    /// Longer ones are left to an automaton, and those with more sets.
    const LONGEST: usize = 1 << 12;
    const SETS: usize = 16;

    fn read(&mut self, hir: &Hir) -> Option<()> {
        if self.bytes.len() > Self::LONGEST {
            return None;
        }
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Look(Look::Start) if self.is_new() => self.at_start = true,
            // Whatever comes after it but itself makes this no glob.
            HirKind::Look(Look::End) => self.at_end = true,
            _ if self.at_end => return None,
            HirKind::Literal(literal) => literal.0.iter().for_each(|&byte| self.push(byte, EXACT)),
            HirKind::Class(Class::Unicode(class)) => self.class(class)?,
            HirKind::Capture(capture) => self.read(&capture.sub)?,
            HirKind::Concat(items) => items.iter().try_for_each(|item| self.read(item))?,
            HirKind::Repetition(repetition) => {
                for _ in 0..repetition.min {
                    self.read(&repetition.sub)?;
                }
                if repetition.max != Some(repetition.min) {
                    let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else { return None };
                    // The subject has no line feed, so a dot is any character.
                    if repetition.max.is_some() || *class != any_but_line_feed() && *class != any() {
                        return None;
                    }
                    self.gap();
                }
            }
            HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) | HirKind::Alternation(_) => return None,
        }
        Some(())
    }

    fn is_new(&self) -> bool {
        self.bytes.is_empty() && self.ends.is_empty() && !self.at_end
    }

    fn push(&mut self, byte: u8, mask: u8) {
        self.bytes.push(byte);
        self.masks.push(mask);
    }

    fn gap(&mut self) {
        let (start, end) = (self.ends.last().copied().unwrap_or(0), self.bytes.len() as u16);
        if start != end {
            self.ends.push(end);
        } else if self.ends.is_empty() {
            // `^.*x` is `x`.
            self.at_start = false;
        }
    }

    fn class(&mut self, class: &ClassUnicode) -> Option<()> {
        let ranges = || class.ranges().iter().map(|range| (range.start(), range.end()));
        if let Some(byte) = fold::common_fold(ranges()) {
            // One letter in both cases, or one alone with the odd ones, which the subject does not have.
            let both = ranges().filter(|(c, _)| c.is_ascii()).count() == 2;
            if both {
                self.push(byte, FOLDED);
                return Some(());
            }
        }
        let mut ascii: u128 = 0;
        let mut beyond = false;
        for (low, high) in ranges() {
            for c in low..=high.min('\x7f') {
                ascii |= 1 << c as u32;
            }
            // All characters beyond ASCII, which are one range then, or none.
            if !high.is_ascii() {
                beyond = low <= '\u{80}' && high == char::MAX;
                if !beyond {
                    return None;
                }
            }
        }
        if !beyond || ascii | (1 << b'\n') != u128::MAX {
            if self.sets.len() == Self::SETS {
                return None;
            }
            self.sets.push(Set { at: self.bytes.len() as u16, ascii, beyond });
        }
        self.push(0, WILD);
        Some(())
    }

    fn finish(mut self) -> Option<Glob> {
        let (start, end) = (self.ends.last().copied().unwrap_or(0), self.bytes.len());
        if end > Self::LONGEST {
            return None;
        }
        if usize::from(start) != end {
            self.ends.push(end as u16);
        } else if end > 0 {
            // `x.*$` is `x`.
            self.at_end = false;
        } else if self.at_start && self.at_end {
            // Only the empty name.
            return None;
        }
        let (at_start, at_end, sets) = (self.at_start, self.at_end, self.sets.into());
        self.bytes.append(&mut self.masks);
        Some(Glob { at_start, at_end, bytes: self.bytes.into(), ends: self.ends.into(), sets })
    }
}

fn any_but_line_feed() -> ClassUnicode {
    let mut class = ClassUnicode::new([regex_syntax::hir::ClassUnicodeRange::new('\n', '\n')]);
    class.negate();
    class
}

fn any() -> ClassUnicode {
    let mut class = ClassUnicode::empty();
    class.negate();
    class
}
