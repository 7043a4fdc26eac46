//! Patterns that are text with wildcards, compared in place without an automaton.
//!
//! A glob consists of segments of a fixed number of characters with `.*` between them. Nine patterns in ten are globs,
//! and comparing one takes a fraction of the time of any automaton.

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};

use crate::fold::{self, Subject};

/// A glob, and whether it is bound to the start and the end of the name.
#[derive(Debug)]
pub(crate) struct Glob {
    at_start: bool,
    at_end: bool,
    /// The pattern's bytes, followed by one mask for each: the bits of the name's byte that are compared.
    bytes: Box<[u8]>,
    /// End of each segment, with a bit for the kind of gap after it. Segments are never empty.
    ends: Box<[u16]>,
    sets: Box<[Set]>,
}

/// Characters allowed at a position whose mask is zero, if not every character is.
#[derive(Debug)]
struct Set {
    at: u16,
    ascii: u128,
    /// True if every character beyond ASCII is allowed, false if none is.
    beyond: bool,
}

/// Masks. `EXACT` compares every bit. `FOLDED` compares all bits except the case of a letter; an upper-case letter then
/// also stands for the characters beyond ASCII that `(?i)` treats as equal to it. `WILD` compares none, and the
/// pattern's byte says whether a line feed is allowed.
const EXACT: u8 = 0xff;
const FOLDED: u8 = !0x20;
const WILD: u8 = 0;
const NO_LINE_FEED: u8 = b'\n';

/// Flag in the end of a segment: the gap after it may contain line feeds.
const ANY_GAP: u16 = 1 << 15;

impl Glob {
    /// Converts a pattern, or returns `None` if it is more than a glob.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        let mut reader = Reader::default();
        reader.read(hir)?;
        reader.finish()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len() + 2 * self.ends.len() + size_of_val(&*self.sets)
    }

    /// Returns the texts between the wildcards, folded.
    pub(crate) fn texts(&self) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        for segment in 0..self.ends.len() {
            let (start, end) = self.segment(segment);
            let mut at = start;
            for places in self.masks()[start..end].split(|&mask| mask == WILD) {
                let bytes = &self.bytes[at..at + places.len()];
                at += places.len() + 1;
                let mut folded = Vec::new();
                if let Ok(text) = std::str::from_utf8(bytes) {
                    fold::fold_into(&mut folded, text);
                }
                texts.push(folded);
            }
        }
        texts
    }

    /// Returns true if the pattern is plain text without a wildcard, not even a dot.
    pub(crate) fn is_literal(&self) -> bool {
        self.ends.len() <= 1 && self.masks().iter().all(|&mask| mask == EXACT)
    }

    pub(crate) fn is_match(&self, subject: &Subject<'_>) -> bool {
        let name = subject.name.as_bytes();
        if subject.odd {
            self.found_in_lines(subject.name)
        } else if subject.ascii {
            self.found(
                |segment, at| self.fits(segment, name, at),
                |segment, at| self.seek(segment, name, at),
                name.len(),
            )
        } else {
            self.found(|segment, at| self.fits_text(segment, subject.name, at), |_, at| Some(at), name.len())
        }
    }

    fn masks(&self) -> &[u8] {
        &self.bytes[self.bytes.len() / 2..]
    }

    fn segment(&self, index: usize) -> (usize, usize) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] & !ANY_GAP };
        (start.into(), (self.ends[index] & !ANY_GAP).into())
    }

    /// Searches like [`Glob::found`] where a gap may not contain a line feed. The earliest position of a segment is
    /// then not always the right one, so all positions are kept.
    fn found_in_lines(&self, name: &str) -> bool {
        let mut here: Vec<bool> = (0..=name.len()).map(|at| at == 0 || !self.at_start).collect();
        for (segment, end) in self.ends.iter().enumerate() {
            let mut next = vec![false; name.len() + 1];
            let ends = (0..=name.len()).filter(|at| here[*at]).filter_map(|at| self.fits_text(segment, name, at));
            ends.for_each(|end| next[end] = true);
            if segment + 1 < self.ends.len() {
                for (at, byte) in name.bytes().enumerate() {
                    next[at + 1] |= next[at] && (byte != b'\n' || end & ANY_GAP != 0);
                }
            }
            here = next;
        }
        if self.at_end { here[name.len()] } else { here.contains(&true) }
    }

    /// Places the segments from the left, each as early as it fits, and the last at the end if the glob is bound there.
    /// `fits` returns the end of a segment that fits at a position; `seek` returns the next position, not before a
    /// given one, at which a segment may start.
    #[inline]
    fn found(
        &self,
        fits: impl Fn(usize, usize) -> Option<usize>,
        seek: impl Fn(usize, usize) -> Option<usize>,
        len: usize,
    ) -> bool {
        let count = self.ends.len();
        let mut at = 0;
        for index in 0..count {
            let bound_here = index == 0 && self.at_start;
            let last = index + 1 == count;
            let (start, end) = self.segment(index);
            let shortest = end - start;
            loop {
                if !bound_here {
                    match seek(index, at) {
                        Some(next) => at = next,
                        None => return false,
                    }
                }
                // A character takes at least one byte.
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

    /// Returns the next position in a name of ASCII at which a segment may start: an occurrence of its first byte, or
    /// the end.
    #[inline]
    fn seek(&self, segment: usize, name: &[u8], at: usize) -> Option<usize> {
        let (start, end) = self.segment(segment);
        if self.at_end && segment + 1 == self.ends.len() {
            return Some(at.max(name.len().saturating_sub(end - start)));
        }
        if self.masks()[start] != EXACT {
            return Some(at);
        }
        let first = self.bytes[start];
        memchr::memchr(first, name.get(at..)?).map(|skip| at + skip)
    }

    /// Returns the end of a segment that is at `at` in a name of ASCII without line feeds.
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

    /// Returns the end of a segment that is at `at` of any name: a wildcard stands for a character, not a byte.
    fn fits_text(&self, segment: usize, name: &str, mut at: usize) -> Option<usize> {
        let (start, end) = self.segment(segment);
        for index in start..end {
            let mask = self.masks()[index];
            let (byte, next) = (self.bytes[index], name.get(at..).and_then(|rest| rest.chars().next()));
            if mask == WILD {
                let c = next?;
                let set = self.sets.iter().find(|set| usize::from(set.at) == index);
                let fits = match set {
                    Some(set) if c.is_ascii() => set.ascii >> c as u32 & 1 == 1,
                    Some(set) => set.beyond,
                    None => c != '\n' || byte != NO_LINE_FEED,
                };
                if !fits {
                    return None;
                }
                at += c.len_utf8();
            } else if let Some(c) = next.filter(|&c| mask == FOLDED && fold::stands_for(c) == Some(byte)) {
                at += c.len_utf8();
            } else {
                if (name.as_bytes().get(at)? ^ byte) & mask != 0 {
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
    /// Most bytes and most sets of a glob. Longer patterns, and those with more sets, are left to an automaton.
    const LONGEST: usize = 1 << 12;
    const SETS: usize = 16;

    fn read(&mut self, hir: &Hir) -> Option<()> {
        if self.bytes.len() > Self::LONGEST {
            return None;
        }
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Look(Look::Start) if self.is_new() => self.at_start = true,
            // After the end, only another end keeps this a glob.
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
                    if repetition.max.is_some() {
                        return None;
                    }
                    self.gap(wildcard(class)?)?;
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

    fn gap(&mut self, may_feed: bool) -> Option<()> {
        let (start, end) = (self.start(), self.bytes.len() as u16);
        if start != end {
            self.ends.push(if may_feed { end | ANY_GAP } else { end });
        } else if !may_feed {
            // `^.*x` is more than `x`: the match must be in the first line.
            return None;
        } else if let Some(gap) = self.ends.last_mut() {
            *gap |= ANY_GAP;
        } else {
            self.at_start = false;
        }
        Some(())
    }

    /// Returns the start of the current segment.
    fn start(&self) -> u16 {
        self.ends.last().map_or(0, |end| end & !ANY_GAP)
    }

    fn class(&mut self, class: &ClassUnicode) -> Option<()> {
        let ranges = || class.ranges().iter().map(|range| (range.start(), range.end()));
        if let Some(byte) = fold::common_fold(ranges()) {
            let both = ranges().filter(|(c, _)| c.is_ascii()).count() == 2;
            let wide = ranges().any(|(c, _)| !c.is_ascii());
            if both {
                self.push(if wide { byte.to_ascii_uppercase() } else { byte }, FOLDED);
                return Some(());
            }
        }
        let mut ascii: u128 = 0;
        let mut beyond = false;
        for (low, high) in ranges() {
            for c in low..=high.min('\x7f') {
                ascii |= 1 << c as u32;
            }
            // The characters beyond ASCII must be all, which are one range, or none.
            if !high.is_ascii() {
                beyond = low <= '\u{80}' && high == char::MAX;
                if !beyond {
                    return None;
                }
            }
        }
        let may_feed = wildcard(class);
        if may_feed.is_none() {
            if self.sets.len() == Self::SETS {
                return None;
            }
            self.sets.push(Set { at: self.bytes.len() as u16, ascii, beyond });
        }
        self.push(if may_feed == Some(false) { NO_LINE_FEED } else { 0 }, WILD);
        Some(())
    }

    fn finish(mut self) -> Option<Glob> {
        let end = self.bytes.len();
        if end > Self::LONGEST {
            return None;
        }
        if usize::from(self.start()) != end {
            self.ends.push(end as u16);
        } else if let Some(last) = self.ends.last() {
            // `x.*$` is the same as `x`, except for a line feed after it.
            if self.at_end && last & ANY_GAP == 0 {
                return None;
            }
            self.at_end = false;
        } else if self.at_start && self.at_end {
            // Only the empty name matches.
            return None;
        }
        let (at_start, at_end, sets) = (self.at_start, self.at_end, self.sets.into());
        self.bytes.append(&mut self.masks);
        Some(Glob { at_start, at_end, bytes: self.bytes.into(), ends: self.ends.into(), sets })
    }
}

/// Returns true for a dot that matches line feeds, false for one that does not, and `None` if the class is not a dot.
fn wildcard(class: &ClassUnicode) -> Option<bool> {
    match class.ranges() {
        [all] => (all.start() == '\0' && all.end() == char::MAX).then_some(true),
        [low, high] => (low.start() == '\0' && low.end() == '\t' && high.start() == '\x0b' && high.end() == char::MAX)
            .then_some(false),
        _ => None,
    }
}
