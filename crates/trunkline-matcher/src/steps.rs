//! Patterns that are more than globs, run on sets of positions.
//!
//! A search answers only whether there is a match. Every step of a pattern therefore takes the set of all positions at
//! which the part before it can end, and returns the set of positions at which it can end itself. Nothing needs
//! backtracking, and the set for a name of a few dozen bytes is one machine word.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// A pattern as a tree of steps.
#[derive(Debug)]
pub(crate) enum Step {
    Text(Box<[u8]>),
    Class(Box<Chars>),
    Look(Look),
    Repeat { step: Box<Step>, min: u32, max: u32 },
    All(Box<[Step]>),
    Any(Box<[Step]>),
}

/// A class of characters: a bit for each ASCII character, the others as sorted ranges.
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

    /// Returns the positions of the members in a name of ASCII.
    fn places<W: Words>(&self, name: &str) -> Positions<W> {
        let mut places = Positions::none(name);
        for (word, bytes) in places.words_mut().zip(name.as_bytes().chunks(64)) {
            for (at, byte) in bytes.iter().enumerate() {
                *word |= u64::from(self.has_ascii(*byte)) << at;
            }
        }
        places
    }

    /// Returns the end of a member that begins at `at`, or, with `BACK`, the beginning of one that ends there.
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

/// A set of positions in a name, one bit each.
#[derive(Clone)]
struct Positions<W>(W);

/// Storage for such a set: a few words in place for usual names, any number of words for longer ones.
trait Words: Clone + AsRef<[u64]> + AsMut<[u64]> {
    /// Returns an empty set for a name of so many bytes.
    fn none(len: usize) -> Self;
}

impl<const N: usize> Words for [u64; N] {
    fn none(_: usize) -> Self {
        [0; N]
    }
}

impl Words for Vec<u64> {
    fn none(len: usize) -> Self {
        vec![0; len / 64 + 1]
    }
}

impl<W: Words> Positions<W> {
    #[inline]
    fn none(name: &str) -> Self {
        Self(W::none(name.len()))
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        self.0.as_ref().iter().copied()
    }

    fn words_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.0.as_mut().iter_mut()
    }

    /// Returns true if there are so many positions that processing the whole name at once is faster.
    fn are_many(&self) -> bool {
        self.words().map(u64::count_ones).sum::<u32>() > 6
    }

    fn is_empty(&self) -> bool {
        self.words().all(|word| word == 0)
    }

    #[inline]
    fn add(&mut self, at: usize) {
        if let Some(word) = self.0.as_mut().get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, at: usize) -> bool {
        self.0.as_ref().get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Intersects the set with `others`, and moves each position one byte further.
    fn step_through(mut self, others: &Self) -> Self {
        let mut carry = 0;
        for (own, others) in self.words_mut().zip(others.words()) {
            let word = *own & others;
            *own = word << 1 | carry;
            carry = word >> 63;
        }
        self
    }

    /// Adds the other positions, and returns those that were new.
    fn absorb(&mut self, mut others: Self) -> Self {
        for (new, own) in others.words_mut().zip(self.words_mut()) {
            *new &= !*own;
            *own |= *new;
        }
        others
    }

    #[inline]
    fn each(&self, mut visit: impl FnMut(usize)) {
        for (index, word) in self.words().enumerate() {
            let mut bits = word;
            while bits != 0 {
                visit(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

impl Step {
    /// Most steps of a pattern. A pattern with more is left to an automaton.
    const MOST: u64 = 2000;
    /// Deepest nesting of a pattern. A deeper one is left to an automaton: a run recurses, on the stack of the thread
    /// that does the look-up. Without optimisation, a level takes about a kilobyte.
    const DEEPEST: usize = 128;

    /// Converts a pattern, or returns `None` if it would take too many steps or nest too deep.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        read(hir, Self::DEEPEST).filter(|step| step.cost() <= Self::MOST)
    }

    pub(crate) fn is_match(&self, name: &str) -> bool {
        match name.len() {
            0..64 => self.found::<[u64; 1]>(name),
            64..256 => self.found::<[u64; 4]>(name),
            _ => self.found::<Vec<u64>>(name),
        }
    }

    fn found<W: Words>(&self, name: &str) -> bool {
        let mut starts = Positions::<W>::none(name);
        match self {
            Self::All(steps) if matches!(steps.first(), Some(Self::Look(Look::Start))) => starts.add(0),
            Self::All(steps) if let Some(found) = found_around_text::<W>(steps, name) => return found,
            _ => (0..=name.len()).filter(|&at| name.is_char_boundary(at)).for_each(|at| starts.add(at)),
        }
        !self.run::<W, false>(name, starts).is_empty()
    }

    /// Returns the positions after this step for those before it, or, with `BACK`, the other way round.
    fn run<W: Words, const BACK: bool>(&self, name: &str, from: Positions<W>) -> Positions<W> {
        let mut to = Positions::none(name);
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
                    to = steps[if BACK { steps.len() - 1 - nth } else { nth }].run::<W, BACK>(name, to);
                }
            }
            Self::Any(branches) => {
                for branch in branches {
                    to.absorb(branch.run::<W, BACK>(name, from.clone()));
                }
            }
            Self::Repeat { step, min, max } if !BACK && let Some(chars) = step.many_times(name, &from, *min, *max) => {
                let places = chars.places(name);
                to = from;
                for _ in 0..*min {
                    to = to.step_through(&places);
                }
                let mut new = to.clone();
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
                    to = step.run::<W, BACK>(name, to);
                }
                if let (Self::Class(chars), u32::MAX) = (&**step, *max) {
                    let first = to.clone();
                    first.each(|mut at| {
                        while let Some(next) = chars.pass::<BACK>(name, at).filter(|next| !to.has(*next)) {
                            to.add(next);
                            at = next;
                        }
                    });
                } else {
                    let mut new = to.clone();
                    for _ in *min..*max {
                        new = to.absorb(step.run::<W, BACK>(name, new));
                        if new.is_empty() {
                            break;
                        }
                    }
                }
            }
        }
        to
    }

    /// Returns the class if this step is one and is repeated so often that moving all positions at once is faster.
    fn many_times<W: Words>(&self, name: &str, from: &Positions<W>, min: u32, max: u32) -> Option<&Chars> {
        let many = min > 1 || max != u32::MAX || from.are_many();
        match self {
            Self::Class(chars) if many && name.is_ascii() => Some(chars),
            _ => None,
        }
    }

    /// Returns the most steps that a run may take, not counting the positions of a step one by one.
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

/// Searches for the longest text among the steps first, and continues from there in both directions. Returns `None` if
/// no step is a text, or if the text occurs so often in the name that moving all positions together is faster.
fn found_around_text<W: Words>(steps: &[Step], name: &str) -> Option<bool> {
    const OFTEN: usize = 4;
    let texts = steps.iter().enumerate().filter_map(|(nth, step)| match step {
        Step::Text(text) => Some((nth, text)),
        _ => None,
    });
    let (nth, text) = texts.max_by_key(|(_, text)| text.len())?;
    let mut places = Positions::<W>::none(name);
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
            let mut to = Positions::<W>::none(name);
            to.add(from);
            for nth in 0..steps.len() {
                let step = &steps[if back { steps.len() - 1 - nth } else { nth }];
                to = if back { step.run::<W, true>(name, to) } else { step.run::<W, false>(name, to) };
            }
            !to.is_empty()
        };
        found = found || run(&steps[nth + 1..], at + text.len(), false) && run(&steps[..nth], at, true);
    });
    Some(found)
}

/// Converts an expression, or returns `None` if it is nested deeper than that many levels.
fn read(hir: &Hir, levels: usize) -> Option<Step> {
    let within = |hir: &Hir| read(hir, levels.checked_sub(1)?);
    let each = |hirs: &[Hir]| hirs.iter().map(within).collect::<Option<Vec<_>>>().map(Vec::into_boxed_slice);
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
        HirKind::Capture(capture) => within(&capture.sub)?,
        HirKind::Concat(hirs) => Step::All(each(hirs)?),
        HirKind::Alternation(hirs) => Step::Any(each(hirs)?),
        HirKind::Repetition(repetition) => Step::Repeat {
            step: Box::new(within(&repetition.sub)?),
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
        // The parser emits these two only as a pair, which is true at any position between characters.
        Look::WordUnicode | Look::WordUnicodeNegate => true,
        // Go's syntax has no other assertions.
        _ => false,
    }
}
