//! Names of processes.

use std::fmt;
use std::str::FromStr;

use trunkline_route::NodeName;
use trunkline_term::{Atom, Term};

/// One process of one life of a node; never used again.
///
/// As text `app@lab#17.0badcafe`: the node, the number, and the node's life in eight hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    /// Node of the process.
    pub node: NodeName,
    /// Number of the process on its node, counted from 1.
    pub number: u64,
    /// Instance of the node.
    pub creation: u32,
}

impl Pid {
    /// The name of its mailbox at its node.
    pub fn mailbox(&self) -> String {
        format!("${}.{:08x}", self.number, self.creation)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{:08x}", self.node, self.number, self.creation)
    }
}

/// A text or a term that is no pid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no pid; one looks like app@lab#17.0badcafe")]
pub struct BadPid {
    /// The text, cut to 80 characters.
    pub given: String,
}

fn bad(given: impl fmt::Display) -> BadPid {
    BadPid { given: given.to_string().chars().take(80).collect() }
}

impl FromStr for Pid {
    type Err = BadPid;
    fn from_str(text: &str) -> Result<Self, BadPid> {
        let parse = || {
            let (node, rest) = text.rsplit_once('#')?;
            let (number, creation) = rest.split_once('.')?;
            let digits = number.bytes().all(|b| b.is_ascii_digit()) && creation.len() == 8;
            let hexadecimal = creation.bytes().all(|b| b.is_ascii_hexdigit());
            let creation = u32::from_str_radix(creation, 16).ok().filter(|_| digits && hexadecimal)?;
            Some(Self { node: node.parse().ok()?, number: number.parse().ok()?, creation })
        };
        parse().ok_or_else(|| bad(text))
    }
}

/// The layout of Erlang: the number is the id and, above 32 bits, the serial. The name of the node is an atom, to be mapped like
/// any other.
impl From<&Pid> for Term {
    fn from(pid: &Pid) -> Self {
        // A node name has at most 255 bytes, as an atom has at most 255 characters.
        let node = Atom::new(pid.node.as_str()).expect("a node name is an atom");
        let (serial, id) = ((pid.number >> 32) as u32, pid.number as u32);
        Self::Pid(trunkline_term::Pid { node, id, serial, creation: pid.creation })
    }
}

impl TryFrom<&Term> for Pid {
    type Error = BadPid;
    fn try_from(term: &Term) -> Result<Self, BadPid> {
        let Term::Pid(pid) = term else { return Err(bad(format!("{term:?}"))) };
        let node = pid.node.as_str().parse().map_err(|_| bad(pid.node.as_str()))?;
        Ok(Self { node, number: u64::from(pid.serial) << 32 | u64::from(pid.id), creation: pid.creation })
    }
}
