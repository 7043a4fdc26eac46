//! Shape of a pattern: the part that decides a search, and the text that every match contains.

use regex_syntax::hir::{Class, Hir, HirKind, Repetition};

use crate::fold;

/// Removes from both ends what a search may leave out: `.*x+y?` is found wherever `x` is.
pub(crate) fn trim(hir: Hir) -> Hir {
    let hir = trim_side(hir, Side::Start);
    trim_side(hir, Side::End)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Start,
    End,
}

fn trim_side(hir: Hir, side: Side) -> Hir {
    // Assertions bind the match to its surroundings, so an expression with one stays whole.
    if !hir.properties().look_set().is_empty() && !matches!(hir.kind(), HirKind::Concat(_) | HirKind::Alternation(_)) {
        return hir;
    }
    match hir.into_kind() {
        HirKind::Repetition(repetition) => trim_repetition(repetition, side),
        HirKind::Concat(mut items) => {
            while let Some(outer) = match side {
                Side::Start => (!items.is_empty()).then(|| items.remove(0)),
                Side::End => items.pop(),
            } {
                let trimmed = trim_side(outer, side);
                if !matches!(trimmed.kind(), HirKind::Empty) {
                    items.insert(if side == Side::Start { 0 } else { items.len() }, trimmed);
                    break;
                }
            }
            Hir::concat(items)
        }
        HirKind::Alternation(branches) => {
            Hir::alternation(branches.into_iter().map(|branch| trim_side(branch, side)).collect())
        }
        HirKind::Capture(capture) => trim_side(*capture.sub, side),
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(look),
    }
}

fn trim_repetition(repetition: Repetition, side: Side) -> Hir {
    match repetition.min {
        0 => Hir::empty(),
        1 => trim_side(*repetition.sub, side),
        min => Hir::repetition(Repetition { max: Some(min), ..repetition }),
    }
}

/// Text, folded, that a name must contain for a pattern to be found in it: all the runs of at least one of the ways.
///
/// The text is stored as bytes: runs end in `RUN`, ways in `WAY`; neither byte occurs in UTF-8.
#[derive(Clone, Debug, Default)]
pub(crate) struct Required(Box<[u8]>);

const RUN: u8 = 0xff;
const WAY: u8 = 0xfe;

impl Required {
    /// Length of the shortest run. Shorter ones select too little to be worth a look-up.
    pub(crate) const SHORTEST: usize = 3;
    /// Most ways. A pattern with more is treated as if it required nothing.
    const WAYS: usize = 8;
    /// Length at which a run is cut, since repetitions of literals can be long.
    const LONGEST: usize = 64;

    pub(crate) fn of(hir: &Hir) -> Self {
        let mut ways = Vec::new();
        if !ways_of(hir, &mut ways) {
            return Self::default();
        }
        Self::from_ways(ways)
    }

    /// Returns the requirement that all of these runs are contained.
    pub(crate) fn all(runs: Vec<Vec<u8>>) -> Self {
        if long_enough(&runs) { Self::from_ways(vec![runs]) } else { Self::default() }
    }

    fn from_ways(ways: Vec<Runs>) -> Self {
        let mut bytes = Vec::new();
        for runs in ways {
            for run in runs {
                bytes.extend_from_slice(&run);
                bytes.push(RUN);
            }
            bytes.push(WAY);
        }
        Self(bytes.into())
    }

    /// Returns the ways, each with those of its runs that are long enough. Without any way, nothing is required.
    pub(crate) fn ways(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        self.0.split(|&byte| byte == WAY).filter(|way| !way.is_empty()).map(|way| {
            let runs = way.split(|&byte| byte == RUN);
            runs.filter(|run| run.len() >= Self::SHORTEST)
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

type Runs = Vec<Vec<u8>>;

fn long_enough(runs: &Runs) -> bool {
    runs.iter().any(|run| run.len() >= Required::SHORTEST)
}

/// Collects the ways. Returns false when a way requires too little, or when there are too many.
fn ways_of(hir: &Hir, ways: &mut Vec<Runs>) -> bool {
    let mut reader = Reader::default();
    reader.read(hir);
    reader.cut();
    if long_enough(&reader.runs) {
        ways.push(reader.runs);
        return ways.len() <= Required::WAYS;
    }
    let branches = match hir.kind() {
        HirKind::Alternation(branches) => Some(branches),
        HirKind::Concat(items) => items.iter().find_map(|item| match item.kind() {
            HirKind::Alternation(branches) => Some(branches),
            _ => None,
        }),
        _ => None,
    };
    branches.is_some_and(|branches| branches.iter().all(|branch| ways_of(branch, ways)))
}

/// Collector of the runs that every match contains.
#[derive(Default)]
struct Reader {
    runs: Runs,
    run: Vec<u8>,
}

impl Reader {
    fn cut(&mut self) {
        if !self.run.is_empty() {
            self.runs.push(std::mem::take(&mut self.run));
        }
    }

    fn read(&mut self, hir: &Hir) {
        match hir.kind() {
            // The texts before and after an assertion are adjacent.
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => fold::fold_into(&mut self.run, text),
                Err(_) => self.cut(),
            },
            HirKind::Class(Class::Unicode(class)) => {
                match fold::common_fold(class.ranges().iter().map(|range| (range.start(), range.end()))) {
                    Some(byte) => self.run.push(byte),
                    None => self.cut(),
                }
            }
            HirKind::Class(Class::Bytes(_)) | HirKind::Alternation(_) => self.cut(),
            HirKind::Capture(capture) => self.read(&capture.sub),
            HirKind::Concat(items) => items.iter().for_each(|item| self.read(item)),
            HirKind::Repetition(repetition) => self.repeat(repetition),
        }
        if self.run.len() > Required::LONGEST {
            self.cut();
        }
    }

    fn repeat(&mut self, repetition: &Repetition) {
        if repetition.min == 0 {
            return self.cut();
        }
        let runs = self.runs.len();
        let times = if repetition.max == Some(repetition.min) { repetition.min } else { 1 };
        for _ in 0..times.min(Required::LONGEST as u32) {
            self.read(&repetition.sub);
        }
        // If the round has no cut inside, one run spans it. Otherwise the text before joins only the first round, and
        // the text after only the last.
        let whole = self.runs.len() == runs;
        if whole && repetition.max != Some(repetition.min) || u64::from(times) > Required::LONGEST as u64 {
            self.cut();
        }
    }
}
