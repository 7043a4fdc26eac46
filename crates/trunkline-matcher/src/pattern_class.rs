//! Classes of patterns by the cost of a look-up.

use std::fmt;

/// Method by which the table finds out whether an entry's pattern matches a name, from the cheapest to the most
/// expensive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PatternClass {
    /// The pattern matches every name, so it is not searched for.
    Always,
    /// Text. A look-up tests the pattern only for names with a rare piece of that text, by comparing the text.
    Literal,
    /// Text with wildcards (`.`, `.*`, classes of a character). It is tested like [`PatternClass::Literal`].
    Glob,
    /// An expression that requires some text. A look-up runs the pattern only for names with that text.
    Filed,
    /// An expression without text, but with a byte that every match has. All patterns with the same byte are tested
    /// together, in a table of bits.
    Anchored,
    /// An expression with neither. Every look-up runs it, in an automaton that several patterns share or on its own.
    LiteralFree,
}

impl PatternClass {
    /// All classes, in order.
    pub const ALL: [Self; 6] =
        [Self::Always, Self::Literal, Self::Glob, Self::Filed, Self::Anchored, Self::LiteralFree];
}

impl fmt::Display for PatternClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Always => "always",
            Self::Literal => "literal",
            Self::Glob => "glob",
            Self::Filed => "filed",
            Self::Anchored => "anchored",
            Self::LiteralFree => "literal-free",
        })
    }
}
