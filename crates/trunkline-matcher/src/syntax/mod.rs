//! Parser of Go's `regexp` syntax, into `regex_syntax`'s HIR.
//!
//! The parser is one loop over the text with a stack of open groups, so that depth takes heap and not stack. Only what
//! decides *whether there is a match* is kept: capture names and greediness are checked and dropped.

mod class;
mod escape;
mod hir;
mod unicode;
mod unicode17;

use std::ops::Range;

use regex_syntax::hir::{Dot, Hir, Look, Repetition};

use crate::error::{Fault, PatternErrorKind};
use crate::limits::{LimitKind, Limits};

/// Parses `text`, or returns the place at which it is not a pattern.
pub(crate) fn parse(text: &str, limits: &Limits) -> Result<Hir, Fault> {
    if text.len() > limits.get_pattern_bytes() {
        let at = text.floor_char_boundary(limits.get_pattern_bytes());
        return Err(Fault::limit(LimitKind::PatternBytes, limits, at..at));
    }
    Ok(between_characters(Parser::new(text, limits).run()?))
}

/// Requires that a match ends between characters. The engines search bytes, and `\B` is also true between the bytes of
/// one character. An engine could take such a position for a match and miss a true one. Only an empty match can end
/// inside a character.
fn between_characters(hir: Hir) -> Hir {
    let properties = hir.properties();
    if properties.minimum_len() != Some(0) || !properties.look_set().contains(Look::WordAsciiNegate) {
        return hir;
    }
    // Inside a character, neither of the two is true.
    let everywhere_else = vec![Hir::look(Look::WordUnicode), Hir::look(Look::WordUnicodeNegate)];
    Hir::concat(vec![hir, Hir::alternation(everywhere_else)])
}

/// Returns a bound of the depth: no tree that [`parse`] builds from `text` is deeper than a small multiple of it.
pub(crate) fn depth_bound(text: &str) -> usize {
    // A level needs a group, or a repetition of a repetition; the latter needs `(?i)` or `\Q\E` in between.
    let bytes = text.as_bytes();
    let groups = bytes.iter().filter(|&&byte| byte == b'(').count();
    let quotes = bytes.windows(2).filter(|pair| *pair == br"\Q").count();
    1 + groups + quotes
}

struct Parser<'p> {
    text: &'p str,
    at: usize,
    limits: &'p Limits,
    flags: Flags,
    /// Open groups, never empty: the first is the pattern itself.
    frames: Vec<Frame>,
    /// True if the last thing read is a repetition.
    after_repeat: bool,
    named: unicode::Cache,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// Flag `i`.
    fold: bool,
    /// Flag `m`.
    lines: bool,
    /// Flag `s`.
    dot_all: bool,
}

/// A group that is still open.
struct Frame {
    opened_by: Range<usize>,
    /// Flags to restore when the group is closed.
    outer_flags: Flags,
    branches: Vec<Hir>,
    items: Vec<Item>,
    /// Shape of the branches that are complete.
    shape: Shape,
}

struct Item {
    hir: Hir,
    shape: Shape,
}

/// Measures that the limits restrict.
#[derive(Clone, Copy)]
struct Shape {
    levels: u32,
    /// Highest product of nested counts.
    product: u32,
}

impl Shape {
    const ATOM: Self = Self { levels: 1, product: 1 };

    fn join(self, other: Self) -> Self {
        Self { levels: self.levels.max(other.levels), product: self.product.max(other.product) }
    }
}

impl Frame {
    fn new(opened_by: Range<usize>, outer_flags: Flags) -> Self {
        Self { opened_by, outer_flags, branches: Vec::new(), items: Vec::new(), shape: Shape::ATOM }
    }

    fn end_branch(&mut self) {
        let mut subs = Vec::with_capacity(self.items.len());
        for item in self.items.drain(..) {
            self.shape = self.shape.join(item.shape);
            subs.push(item.hir);
        }
        self.branches.push(Hir::concat(subs));
    }

    fn finish(mut self) -> Item {
        self.end_branch();
        Item { hir: Hir::alternation(self.branches), shape: self.shape }
    }
}

impl<'p> Parser<'p> {
    fn new(text: &'p str, limits: &'p Limits) -> Self {
        Self {
            text,
            at: 0,
            limits,
            flags: Flags::default(),
            frames: vec![Frame::new(0..0, Flags::default())],
            after_repeat: false,
            named: unicode::Cache::default(),
        }
    }

    fn run(mut self) -> Result<Hir, Fault> {
        while let Some(c) = self.peek() {
            let after_repeat = std::mem::take(&mut self.after_repeat);
            match c {
                '(' => self.open_group()?,
                ')' => self.close_group()?,
                '|' => {
                    self.bump();
                    self.frame().end_branch();
                }
                '*' => self.repeat_symbol(0, None, after_repeat)?,
                '+' => self.repeat_symbol(1, None, after_repeat)?,
                '?' => self.repeat_symbol(0, Some(1), after_repeat)?,
                '{' => self.repeat_counted(after_repeat)?,
                '[' => {
                    let class = self.bracket_class()?;
                    self.push(class);
                }
                '\\' => self.escaped()?,
                '^' | '$' | '.' => {
                    self.bump();
                    let hir = self.symbol(c);
                    self.push(hir);
                }
                c => {
                    self.bump();
                    self.push_char(c);
                }
            }
        }
        self.end()
    }

    fn end(mut self) -> Result<Hir, Fault> {
        match (self.frames.pop(), self.frames.is_empty()) {
            (Some(frame), true) => Ok(frame.finish().hir),
            (Some(frame), false) => Err(Fault { kind: PatternErrorKind::UnclosedGroup, span: frame.opened_by }),
            (None, _) => Ok(Hir::empty()),
        }
    }

    fn symbol(&self, c: char) -> Hir {
        match (c, self.flags) {
            ('^', Flags { lines: true, .. }) => Hir::look(Look::StartLF),
            ('^', _) => Hir::look(Look::Start),
            ('$', Flags { lines: true, .. }) => Hir::look(Look::EndLF),
            ('$', _) => Hir::look(Look::End),
            (_, Flags { dot_all: true, .. }) => Hir::dot(Dot::AnyChar),
            _ => Hir::dot(Dot::AnyCharExceptLF),
        }
    }

    fn open_group(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let outer = self.flags;
        let rest = self.rest();
        if let Some(name) =
            rest.strip_prefix("(?P<").or_else(|| rest.strip_prefix("(?<")).filter(|name| !name.is_empty())
        {
            self.group_name(start, name)?;
        } else if rest.starts_with("(?") {
            self.at += 2;
            if !self.group_flags(start)? {
                return Ok(());
            }
        } else {
            self.bump();
        }
        self.check_levels(self.frames.len() as u32 + 1, start)?;
        self.frames.push(Frame::new(start..self.at, outer));
        Ok(())
    }

    /// Reads a name up to its `>`, and drops it.
    fn group_name(&mut self, start: usize, name: &str) -> Result<(), Fault> {
        let after_prefix = self.text.len() - name.len();
        let end = name.find('>');
        self.at = end.map_or(self.text.len(), |end| after_prefix + end + 1);
        let valid = end.map(|end| &name[..end]).is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        });
        if valid { Ok(()) } else { Err(self.fault(PatternErrorKind::BadGroupName, start)) }
    }

    /// Reads flags up to their `:` or `)`, and returns whether a group is opened.
    fn group_flags(&mut self, start: usize) -> Result<bool, Fault> {
        let mut flags = self.flags;
        let mut set = true;
        let mut awaits_flag = false;
        loop {
            match self.bump() {
                Some('i') => flags.fold = set,
                Some('m') => flags.lines = set,
                Some('s') => flags.dot_all = set,
                Some('U') => {}
                Some('-') if set => {
                    set = false;
                    awaits_flag = true;
                    continue;
                }
                Some(end @ (':' | ')')) if !awaits_flag => {
                    self.flags = flags;
                    return Ok(end == ':');
                }
                _ => return Err(self.fault(PatternErrorKind::BadFlags, start)),
            }
            awaits_flag = false;
        }
    }

    fn close_group(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.bump();
        if self.frames.len() == 1 {
            return Err(self.fault(PatternErrorKind::UnopenedGroup, start));
        }
        if let Some(frame) = self.frames.pop() {
            self.flags = frame.outer_flags;
            let opened_at = frame.opened_by.start;
            let mut item = frame.finish();
            item.shape.levels += 1;
            self.check_levels(item.shape.levels, opened_at)?;
            self.frame().items.push(item);
        }
        Ok(())
    }

    fn repeat_symbol(&mut self, min: u32, max: Option<u32>, after_repeat: bool) -> Result<(), Fault> {
        let start = self.at;
        self.bump();
        self.repeat(start, min, max, after_repeat).map(drop)
    }

    fn repeat_counted(&mut self, after_repeat: bool) -> Result<(), Fault> {
        let start = self.at;
        let Some(counts) = Counts::read(self.rest()) else {
            self.bump();
            self.push_char('{');
            return Ok(());
        };
        self.at += counts.len;
        let highest = counts.max.unwrap_or(counts.min).max(counts.min);
        if highest > self.limits.get_repeat() {
            return Err(Fault::limit(LimitKind::Repeat, self.limits, start..self.at));
        }
        if counts.max.is_some_and(|max| max < counts.min) {
            return Err(self.fault(PatternErrorKind::BadRepeat, start));
        }
        let shape = self.repeat(start, counts.min, counts.max, after_repeat)?;
        let factor = counts.max.unwrap_or(counts.min);
        // An expression that is repeated zero times contributes nothing.
        shape.product = match (factor, counts.max) {
            (0, Some(_)) => 1,
            (0, None) => shape.product,
            _ => shape.product.saturating_mul(factor),
        };
        if highest >= 2 && shape.product > self.limits.get_repeat() {
            return Err(Fault::limit(LimitKind::Repeat, self.limits, start..self.at));
        }
        Ok(())
    }

    /// Repeats the last item; `self.at` is after the operator.
    fn repeat(&mut self, start: usize, min: u32, max: Option<u32>, after_repeat: bool) -> Result<&mut Shape, Fault> {
        self.eat('?');
        if after_repeat {
            return Err(self.fault(PatternErrorKind::NestedRepeat, start));
        }
        let Some(item) = self.frame().items.pop() else {
            return Err(self.fault(PatternErrorKind::NothingToRepeat, start));
        };
        self.check_levels(item.shape.levels + 1, start)?;
        self.after_repeat = true;
        let hir = Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(item.hir) });
        let shape = Shape { levels: item.shape.levels + 1, ..item.shape };
        let items = &mut self.frame().items;
        items.push(Item { hir, shape });
        let last = items.len() - 1;
        Ok(&mut items[last].shape)
    }

    fn check_levels(&self, levels: u32, start: usize) -> Result<(), Fault> {
        if levels > self.limits.get_nesting() {
            return Err(Fault::limit(LimitKind::Nesting, self.limits, start..self.at.max(start)));
        }
        Ok(())
    }

    fn push(&mut self, hir: Hir) {
        let shape = Shape::ATOM;
        self.frame().items.push(Item { hir, shape });
    }

    fn push_char(&mut self, c: char) {
        let hir =
            if self.flags.fold { hir::folded_char(c) } else { Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()) };
        self.push(hir);
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the frame of the pattern itself is popped only at the end")
    }

    fn rest(&self) -> &'p str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.bump();
        }
        found
    }

    fn fault(&self, kind: PatternErrorKind, start: usize) -> Fault {
        Fault { kind, span: start..self.at }
    }
}

/// Counts of `{n}`, `{n,}` or `{n,m}`.
struct Counts {
    min: u32,
    max: Option<u32>,
    len: usize,
}

impl Counts {
    /// Reads counts, or returns `None` where the `{` is literal.
    fn read(text: &str) -> Option<Self> {
        let (min, rest) = count(text.strip_prefix('{')?)?;
        let (max, rest) = match rest.strip_prefix(',') {
            None => (Some(min), rest),
            Some(rest) if rest.starts_with('}') => (None, rest),
            Some(rest) => count(rest).map(|(max, rest)| (Some(max), rest))?,
        };
        let rest = rest.strip_prefix('}')?;
        let len = text.len() - rest.len();
        Some(Self { min, max, len })
    }
}

/// Reads a decimal number without leading zeros, and returns it with the text after it.
fn count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() || number.len() > 1 && number.starts_with('0') {
        return None;
    }
    Some((number.parse().unwrap_or(u32::MAX), rest))
}

#[cfg(test)]
mod tests;
