use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use num_bigint::BigInt;

use crate::TermError;

/// The longest atom, in bytes: what every version of the format can carry.
const MAX_ATOM_LEN: usize = 255;

/// A name that stands for itself. A clone is one reference count.
///
/// ```
/// use trunkline_term::Atom;
///
/// assert_eq!(Atom::new("ok")?.as_str(), "ok");
/// assert!(Atom::new("a".repeat(256)).is_err());
/// # Ok::<(), trunkline_term::TermError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Atom(Arc<str>);

impl Atom {
    /// Takes at most 255 bytes.
    ///
    /// # Errors
    /// [`TermError::Atom`] when it is longer.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TermError> {
        let text = text.as_ref();
        if text.len() > MAX_ATOM_LEN {
            return Err(TermError::Atom { len: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_debug())
    }
}

/// A finite floating-point number. The two zeros are equal, as keys of a map too.
///
/// ```
/// use trunkline_term::Float;
///
/// assert_eq!(Float::new(1.5).map(Float::get), Some(1.5));
/// assert_eq!(Float::new(f64::NAN), None);
/// ```
#[derive(Clone, Copy)]
pub struct Float(f64);

impl Float {
    /// `None` for infinities and what is no number: the format cannot carry them.
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl Hash for Float {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 + 0.0).to_bits().hash(state);
    }
}

impl fmt::Debug for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    /// The node's name.
    pub node: Atom,
    /// Number of the process.
    pub id: u32,
    /// More of the id.
    pub serial: u32,
    /// Instance of the node.
    pub creation: u32,
}

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The node's name.
    pub node: Atom,
    /// Number of the port.
    pub id: u64,
    /// Instance of the node.
    pub creation: u32,
}

/// A reference made by a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The node's name.
    pub node: Atom,
    /// Number of the reference, one to five words.
    pub id: Vec<u32>,
    /// Instance of the node.
    pub creation: u32,
}

/// A structured value.
///
/// ```
/// use trunkline_term::Term;
///
/// let term = Term::map([(Term::atom("job")?, Term::from("index")), (Term::atom("priority")?, Term::from(7))]);
/// let Term::Map(entries) = &term else { unreachable!() };
/// assert_eq!(entries[&Term::atom("job")?].as_text(), Some("index"));
/// # Ok::<(), trunkline_term::TermError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// A name that stands for itself.
    Atom(Atom),
    /// An integer of 64 bits.
    Integer(i64),
    /// One that does not fit in 64 bits.
    BigInteger(BigInt),
    /// A finite number.
    Float(Float),
    /// Bytes; text too, in UTF-8.
    Binary(Vec<u8>),
    /// Bytes of which only the first so many bits of the last one count, 1 to 7.
    BitString(Vec<u8>, u8),
    /// A list.
    List(Vec<Term>),
    /// A list that ends in something else than the empty list; it has at least one element before that.
    ImproperList(Vec<Term>, Box<Term>),
    /// A tuple.
    Tuple(Vec<Term>),
    /// A map.
    Map(BTreeMap<Term, Term>),
    /// A process.
    Pid(Pid),
    /// A port.
    Port(Port),
    /// A reference.
    Reference(Reference),
}

impl Term {
    /// An atom.
    ///
    /// # Errors
    /// [`TermError::Atom`] when it is longer than 255 bytes.
    pub fn atom(text: impl AsRef<str>) -> Result<Self, TermError> {
        Atom::new(text).map(Self::Atom)
    }

    /// A tuple of these.
    pub fn tuple(elements: impl IntoIterator<Item = Self>) -> Self {
        Self::Tuple(elements.into_iter().collect())
    }

    /// A list of these.
    pub fn list(elements: impl IntoIterator<Item = Self>) -> Self {
        Self::List(elements.into_iter().collect())
    }

    /// A map of these; of equal keys the last counts.
    pub fn map(entries: impl IntoIterator<Item = (Self, Self)>) -> Self {
        Self::Map(entries.into_iter().collect())
    }

    /// The text, if it is a binary of UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Binary(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Puts another atom in the place of each for which `replace` gives one: in lists, tuples, keys and values of
    /// maps, and as the names of nodes, at any depth. Of keys that become equal the last, in the order of the old ones,
    /// counts.
    ///
    /// Recurses as deep as the term, which [`Limits::depth`](crate::Limits::depth) bounds for what was decoded.
    ///
    /// ```
    /// use trunkline_term::{Atom, Term};
    ///
    /// let other = Atom::new("proc_mgr")?;
    /// let term = Term::tuple([Term::atom("process_manager")?, Term::from(7)]);
    /// let renamed = term.replace_atoms(&mut |atom| (atom.as_str() == "process_manager").then(|| other.clone()));
    /// assert_eq!(renamed, Term::tuple([Term::Atom(other), Term::from(7)]));
    /// # Ok::<(), trunkline_term::TermError>(())
    /// ```
    #[must_use]
    pub fn replace_atoms(self, replace: &mut dyn FnMut(&Atom) -> Option<Atom>) -> Self {
        fn all(terms: Vec<Term>, replace: &mut dyn FnMut(&Atom) -> Option<Atom>) -> Vec<Term> {
            terms.into_iter().map(|term| term.replace_atoms(replace)).collect()
        }
        let mut one = |atom: Atom| replace(&atom).unwrap_or(atom);
        match self {
            Self::Atom(atom) => Self::Atom(one(atom)),
            Self::Pid(pid) => Self::Pid(Pid { node: one(pid.node), ..pid }),
            Self::Port(port) => Self::Port(Port { node: one(port.node), ..port }),
            Self::Reference(reference) => Self::Reference(Reference { node: one(reference.node), ..reference }),
            Self::List(terms) => Self::List(all(terms, replace)),
            Self::Tuple(terms) => Self::Tuple(all(terms, replace)),
            Self::ImproperList(terms, last) => {
                Self::ImproperList(all(terms, replace), Box::new(last.replace_atoms(replace)))
            }
            Self::Map(entries) => {
                let entry = |(key, value): (Self, Self)| (key.replace_atoms(replace), value.replace_atoms(replace));
                Self::Map(entries.into_iter().map(entry).collect())
            }
            plain @ (Self::Integer(_)
            | Self::BigInteger(_)
            | Self::Float(_)
            | Self::Binary(_)
            | Self::BitString(..)) => plain,
        }
    }
}

impl From<Atom> for Term {
    fn from(atom: Atom) -> Self {
        Self::Atom(atom)
    }
}

impl From<i64> for Term {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<&str> for Term {
    fn from(text: &str) -> Self {
        Self::Binary(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Term {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}
