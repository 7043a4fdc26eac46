//! Looks through encoded terms before anything is built of them.

use crate::TermError;

/// Limits of terms, for encoding and decoding.
///
/// ```
/// use trunkline_term::{Limits, Term, TermError};
///
/// let bytes = Term::list([Term::list([Term::from(1)])]).encode(&Limits::default())?;
/// let flat = Limits::new().depth(2);
/// assert_eq!(Term::decode(&bytes, &flat), Err(TermError::Depth { limit: 2 }));
/// # Ok::<(), trunkline_term::TermError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    depth: usize,
    terms: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl Limits {
    /// 64 levels, 262,144 terms.
    pub const fn new() -> Self {
        Self { depth: 64, terms: 1 << 18 }
    }

    /// Sets the depth to which terms may be nested; a term that holds no other has depth 1. Default 64: what is built
    /// recurses so deep, on the stack of whoever reads it.
    #[must_use]
    pub const fn depth(mut self, levels: usize) -> Self {
        self.depth = levels;
        self
    }

    /// Of how many terms one may consist, itself included. Default 262,144: a byte or two on the wire become some
    /// sixty in memory.
    #[must_use]
    pub const fn terms(mut self, terms: usize) -> Self {
        self.terms = terms;
        self
    }

    pub(crate) fn get_depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn get_terms(&self) -> usize {
        self.terms
    }
}

/// The tag of a list of bytes.
const STRING: u8 = 107;

/// Checks that the bytes are one whole term within the limits, of kinds that are taken. Allocates one word a level.
pub(crate) fn check(bytes: &[u8], limits: &Limits) -> Result<(), TermError> {
    let mut scan = Scan { rest: bytes, terms: 0 };
    if scan.u8()? != 131 {
        return Err(TermError::Version);
    }
    // How many terms each open level still lacks.
    let mut open = vec![1u64];
    while let Some(lacking) = open.last_mut() {
        if *lacking == 0 {
            open.pop();
            continue;
        }
        *lacking -= 1;
        if open.len() > limits.get_depth() {
            return Err(TermError::Depth { limit: limits.get_depth() });
        }
        let (is_string, before) = (scan.rest.first() == Some(&STRING), scan.terms);
        let inside = scan.term()?;
        // What is in a string is one level deeper, though it is passed over at once.
        if is_string && scan.terms - before > 1 && open.len() == limits.get_depth() {
            return Err(TermError::Depth { limit: limits.get_depth() });
        }
        if scan.terms > limits.get_terms() {
            return Err(TermError::Terms { limit: limits.get_terms() });
        }
        // Every term takes a byte at least: a count beyond that is a lie.
        if inside > scan.rest.len() as u64 {
            return Err(TermError::Cut);
        }
        if inside > 0 {
            open.push(inside);
        }
    }
    if scan.rest.is_empty() { Ok(()) } else { Err(TermError::Trailing { bytes: scan.rest.len() }) }
}

struct Scan<'b> {
    rest: &'b [u8],
    terms: usize,
}

impl Scan<'_> {
    fn take(&mut self, len: u64) -> Result<&[u8], TermError> {
        let len = usize::try_from(len).map_err(|_| TermError::Cut)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(TermError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, TermError> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u64, TermError> {
        Ok(self.take(2)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn u32(&mut self) -> Result<u64, TermError> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Passes over one term, but not what is inside it: gives how many terms that is.
    fn term(&mut self) -> Result<u64, TermError> {
        self.terms += 1;
        let tag = self.u8()?;
        let skip = match tag {
            70 => 8,
            97 => 1,
            98 => 4,
            99 => 31,
            106 => 0,
            100 | 118 => self.u16()?,
            115 | 119 => self.u8()?.into(),
            // A string is a list of its bytes.
            STRING => {
                let len = self.u16()?;
                self.terms += len as usize;
                len
            }
            109 => self.u32()?,
            77 => {
                let len = self.u32()?;
                if !(1..=8).contains(&self.u8()?) || len == 0 {
                    return Err(TermError::Cut);
                }
                len
            }
            110 => u64::from(self.u8()?) + 1,
            111 => self.u32()? + 1,
            104 => return Ok(self.u8()?.into()),
            105 => return self.u32(),
            108 => return Ok(self.u32()? + 1),
            116 => return Ok(self.u32()? * 2),
            103 => return self.with_node(9),
            88 => return self.with_node(12),
            102 => return self.with_node(5),
            89 => return self.with_node(8),
            120 => return self.with_node(12),
            101 => return self.with_node(5),
            114 => {
                let words = self.words()?;
                return self.with_node(1 + 4 * words);
            }
            90 => {
                let words = self.words()?;
                return self.with_node(4 + 4 * words);
            }
            112 | 113 | 117 => return Err(TermError::Unsupported { what: "a function" }),
            80 => return Err(TermError::Unsupported { what: "a compressed term" }),
            tag => return Err(TermError::Tag { tag }),
        };
        self.take(skip)?;
        Ok(0)
    }

    fn words(&mut self) -> Result<u64, TermError> {
        let words = self.u16()?;
        if (1..=5).contains(&words) { Ok(words) } else { Err(TermError::Cut) }
    }

    /// An atom for the node, and so many bytes.
    fn with_node(&mut self, rest: u64) -> Result<u64, TermError> {
        let len = match self.u8()? {
            100 | 118 => self.u16()?,
            115 | 119 => self.u8()?.into(),
            tag => return Err(TermError::Tag { tag }),
        };
        self.take(len + rest)?;
        Ok(0)
    }
}
