/// Error returned when a term cannot be encoded or decoded. Nothing was sent or built of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermError {
    /// An atom is too long.
    #[error("an atom has at most 255 bytes, this one has {len}")]
    Atom {
        /// Number of bytes.
        len: usize,
    },
    /// The bytes end too early, or a count in them cannot be right.
    #[error("the bytes are no whole term")]
    Cut,
    /// The term is nested too deep.
    #[error("the term is nested deeper than {limit} levels")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// A value that cannot be, such as text that is no UTF-8 in an atom.
    #[error("the term cannot be used: {0}")]
    Invalid(String),
    /// The first byte stands for no known kind of term.
    #[error("no term begins with the byte {tag}")]
    Tag {
        /// The byte.
        tag: u8,
    },
    /// The term consists of too many terms.
    #[error("the term consists of more than {limit} terms")]
    Terms {
        /// The limit.
        limit: usize,
    },
    /// Bytes follow the term.
    #[error("{bytes} bytes follow the term")]
    Trailing {
        /// Number of those bytes.
        bytes: usize,
    },
    /// A value of Rust has no such term, or a term no such value.
    #[error("{0}")]
    Type(String),
    /// The term contains a kind of value that is not accepted.
    #[error("{what} is not taken in a term")]
    Unsupported {
        /// Name of that kind.
        what: &'static str,
    },
    /// The version byte is not 131.
    #[error("the bytes are no term of version 131 of the external format")]
    Version,
}
