//! Patterns that are more than globs, run on sets of positions.
//!
//! A search asks one question: is there a match. So every step of a pattern takes the set of all positions that
//! what is before it can end at, and gives the set that it can end at itself. There is nothing to back out of, and
//! a name of a few dozen bytes is one machine word.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// A pattern as steps.
#[derive(Debug)]
pub(crate) enum Step {
    Text(Box<[u8]>),
    Class(Box<Chars>),
    Look(Look),
    Repeat { step: Box<Step>, min: u32, max: u32 },
    All(Box<[Step]>),
    Any(Box<[Step]>),
}

/// A class: ASCII bit by bit, the rest as sorted ranges.
#[derive(Debug)]
pub(crate) struct Chars {
    ascii: [u64; 2],
    beyond: Box<[(char, char)]>,
}

impl Chars {
    #[inline]
    fn has_ascii(&self, byte: u8) -> bool {
        self.ascii[usize::from(byte >> 6 & 1)] >> (byte & 63) & 1 == 1
    }

    /// Where the members are in a name of ASCII.
    fn places<const N: usize>(&self, name: &str) -> Positions<N> {
        let mut places = Positions::NONE;
        for (word, bytes) in places.0.iter_mut().zip(name.as_bytes().chunks(64)) {
            for (at, byte) in bytes.iter().enumerate() {
                *word |= u64::from(self.has_ascii(*byte)) << at;
            }
        }
        places
    }

    /// Where a member that begins at `at` ends, or, with `BACK`, where one that ends there begins.
    #[inline]
    fn pass<const BACK: bool>(&self, name: &str, at: usize) -> Option<usize> {
        let byte = *name.as_bytes().get(if BACK { at.checked_sub(1)? } else { at })?;
        if byte.is_ascii() {
            return self.has_ascii(byte).then_some(if BACK { at - 1 } else { at + 1 });
        }
        let c = if BACK { name.get(..at)?.chars().next_back()? } else { name.get(at..)?.chars().next()? };
        let nearest = self.beyond.partition_point(|&(_, high)| high < c);
        let is_member = self.beyond.get(nearest).is_some_and(|(low, _)| *low <= c);
        is_member.then_some(if BACK { at - c.len_utf8() } else { at + c.len_utf8() })
    }
}

/// Positions in a name of fewer than `64 * N` bytes.
#[derive(Clone, Copy, PartialEq)]
struct Positions<const N: usize>([u64; N]);

impl<const N: usize> Positions<N> {
    const NONE: Self = Self([0; N]);

    /// So many that it pays to look at the whole name at once.
    fn are_many(&self) -> bool {
        self.0.iter().map(|word| word.count_ones()).sum::<u32>() > 6
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    #[inline]
    fn add(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Those that are also in `others`, each one byte on.
    fn step_through(&self, others: &Self) -> Self {
        let mut next = Self::NONE;
        let mut carry = 0;
        for ((next, own), others) in next.0.iter_mut().zip(self.0).zip(others.0) {
            let word = own & others;
            *next = word << 1 | carry;
            carry = word >> 63;
        }
        next
    }

    /// Adds the others, and gives those that were not there.
    fn absorb(&mut self, others: Self) -> Self {
        let mut new = others;
        for (new, own) in new.0.iter_mut().zip(&mut self.0) {
            *new &= !*own;
            *own |= *new;
        }
        new
    }

    #[inline]
    fn each(&self, mut visit: impl FnMut(usize)) {
        for (index, &word) in self.0.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                visit(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

impl Step {
    /// A pattern that would take more steps than this is left to an automaton.
    const MOST: u64 = 2000;
    /// Longer names are left to an automaton.
    pub(crate) const LONGEST_NAME: usize = 64 * 64 - 1;

    /// `None` when it would take too many steps.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        read(hir).filter(|step| step.cost() <= Self::MOST)
    }

    /// `None` when the name is too long.
    pub(crate) fn is_match(&self, name: &str) -> Option<bool> {
        match name.len() {
            0..64 => Some(self.found::<1>(name)),
            64..256 => Some(self.found::<4>(name)),
            256..=Self::LONGEST_NAME => Some(self.found::<64>(name)),
            _ => None,
        }
    }

    fn found<const N: usize>(&self, name: &str) -> bool {
        let mut starts = Positions::<N>::NONE;
        match self {
            Self::All(steps) if matches!(steps.first(), Some(Self::Look(Look::Start))) => starts.add(0),
            Self::All(steps) if let Some(found) = found_around_text::<N>(steps, name) => return found,
            _ => (0..=name.len()).filter(|&at| name.is_char_boundary(at)).for_each(|at| starts.add(at)),
        }
        !self.run::<N, false>(name, starts).is_empty()
    }

    /// From positions before this step to those after it, or, with `BACK`, the other way round.
    fn run<const N: usize, const BACK: bool>(&self, name: &str, from: Positions<N>) -> Positions<N> {
        let mut to = Positions::NONE;
        match self {
            Self::Text(text) => from.each(|at| {
                let (before, after) = name.as_bytes().split_at(at);
                if BACK {
                    if before.ends_with(text) {
                        to.add(at - text.len());
                    }
                // Most positions fail at the first byte.
                } else if after.first() == text.first() && after.starts_with(text) {
                    to.add(at + text.len());
                }
            }),
            Self::Class(chars) if !BACK && from.are_many() && name.is_ascii() => {
                to = from.step_through(&chars.places(name))
            }
            Self::Class(chars) => from.each(|at| {
                if let Some(next) = chars.pass::<BACK>(name, at) {
                    to.add(next);
                }
            }),
            Self::Look(look) => from.each(|at| {
                if is_at(*look, name, at) {
                    to.add(at);
                }
            }),
            Self::All(steps) => {
                to = from;
                for nth in 0..steps.len() {
                    if to.is_empty() {
                        break;
                    }
                    to = steps[if BACK { steps.len() - 1 - nth } else { nth }].run::<N, BACK>(name, to);
                }
            }
            Self::Any(branches) => {
                for branch in branches {
                    to.absorb(branch.run::<N, BACK>(name, from));
                }
            }
            Self::Repeat { step, min, max } if !BACK && let Some(chars) = step.many_times(name, &from, *min, *max) => {
                let places = chars.places(name);
                to = from;
                for _ in 0..*min {
                    to = to.step_through(&places);
                }
                let mut new = to;
                for _ in *min..*max {
                    new = to.absorb(new.step_through(&places));
                    if new.is_empty() {
                        break;
                    }
                }
            }
            Self::Repeat { step, min, max } => {
                to = from;
                for _ in 0..*min {
                    to = step.run::<N, BACK>(name, to);
                }
                if let (Self::Class(chars), u32::MAX) = (&**step, *max) {
                    let first = to;
                    first.each(|mut at| {
                        while let Some(next) = chars.pass::<BACK>(name, at).filter(|next| !to.has(*next)) {
                            to.add(next);
                            at = next;
                        }
                    });
                } else {
                    let mut new = to;
                    for _ in *min..*max {
                        new = to.absorb(step.run::<N, BACK>(name, new));
                        if new.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
        to
    }

    /// A class that is repeated so that all positions had better go on at once.
    fn many_times<const N: usize>(&self, name: &str, from: &Positions<N>, min: u32, max: u32) -> Option<&Chars> {
        let many = min > 1 || max != u32::MAX || from.are_many();
        match self {
            Self::Class(chars) if many && name.is_ascii() => Some(chars),
            _ => None,
        }
    }

    /// How many steps a run may take at worst, a position at a time left out of account.
    fn cost(&self) -> u64 {
        match self {
            Self::Text(_) | Self::Class(_) | Self::Look(_) => 1,
            Self::All(steps) | Self::Any(steps) => steps.iter().map(Self::cost).fold(1, u64::saturating_add),
            Self::Repeat { step, min, max } => {
                let rounds = match (&**step, *max) {
                    (Self::Class(_), u32::MAX) => u64::from(*min) + 1,
                    (_, max) => u64::from(max).min(u64::from(*min) + 256),
                };
                step.cost().saturating_mul(rounds)
            }
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Class(chars) => size_of::<Chars>() + size_of_val(&*chars.beyond),
            Self::Look(_) => 0,
            Self::Repeat { step, .. } => size_of::<Self>() + step.heap_bytes(),
            Self::All(steps) | Self::Any(steps) => {
                size_of_val(&**steps) + steps.iter().map(Self::heap_bytes).sum::<usize>()
            }
        }
    }
}

/// Looks for the longest text among the steps first, and from there in both directions. `None`: there is none, or it
/// is in the name so often that all positions had better go on together.
fn found_around_text<const N: usize>(steps: &[Step], name: &str) -> Option<bool> {
    const OFTEN: usize = 4;
    let texts = steps.iter().enumerate().filter_map(|(nth, step)| match step {
        Step::Text(text) => Some((nth, text)),
        _ => None,
    });
    let (nth, text) = texts.max_by_key(|(_, text)| text.len())?;
    let mut places = Positions::<N>::NONE;
    let mut count = 0;
    for at in memchr::memchr_iter(*text.first()?, name.as_bytes()) {
        if name.as_bytes()[at..].starts_with(text) {
            places.add(at);
            count += 1;
        }
    }
    if count > OFTEN {
        return None;
    }
    let mut found = false;
    places.each(|at| {
        let run = |steps: &[Step], from: usize, back: bool| {
            let mut to = Positions::<N>::NONE;
            to.add(from);
            for nth in 0..steps.len() {
                let step = &steps[if back { steps.len() - 1 - nth } else { nth }];
                to = if back { step.run::<N, true>(name, to) } else { step.run::<N, false>(name, to) };
            }
            !to.is_empty()
        };
        found = found || run(&steps[nth + 1..], at + text.len(), false) && run(&steps[..nth], at, true);
    });
    Some(found)
}

fn read(hir: &Hir) -> Option<Step> {
    let each = |hirs: &[Hir]| hirs.iter().map(read).collect::<Option<Vec<_>>>().map(Vec::into_boxed_slice);
    Some(match hir.kind() {
        HirKind::Empty => Step::All(Box::default()),
        HirKind::Literal(literal) => Step::Text(literal.0.clone()),
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = || class.ranges().iter().map(|range| (range.start(), range.end()));
            let mut ascii = [0; 2];
            for (low, high) in ranges() {
                (low..=high.min('\x7f')).for_each(|c| ascii[c as usize / 64] |= 1 << (c as u32 % 64));
            }
            let beyond = ranges().filter(|(_, high)| !high.is_ascii()).map(|(low, high)| (low.max('\u{80}'), high));
            Step::Class(Box::new(Chars { ascii, beyond: beyond.collect() }))
        }
        HirKind::Class(Class::Bytes(_)) => return None,
        HirKind::Look(look) => Step::Look(*look),
        HirKind::Capture(capture) => read(&capture.sub)?,
        HirKind::Concat(hirs) => Step::All(each(hirs)?),
        HirKind::Alternation(hirs) => Step::Any(each(hirs)?),
        HirKind::Repetition(repetition) => Step::Repeat {
            step: Box::new(read(&repetition.sub)?),
            min: repetition.min,
            max: repetition.max.unwrap_or(u32::MAX),
        },
    })
}

fn is_at(look: Look, name: &str, at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| name.as_bytes().get(before));
    let after = name.as_bytes().get(at);
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    match look {
        Look::Start => before.is_none(),
        Look::End => after.is_none(),
        Look::StartLF => before.is_none_or(|byte| *byte == b'\n'),
        Look::EndLF => after.is_none_or(|byte| *byte == b'\n'),
        Look::WordAscii => is_word(before) != is_word(after),
        Look::WordAsciiNegate => is_word(before) == is_word(after),
        // The syntax puts the two side by side, for any place between characters: there are no others here.
        Look::WordUnicode | Look::WordUnicodeNegate => true,
        // Go's syntax has no others.
        _ => false,
    }
}
