use std::collections::BTreeMap;
use std::sync::Arc;

/// The longest name that a link carries, in bytes.
const MAX_LEN: usize = 255;

/// Names that are called something else on one connection: replaced in what is sent, restored in what is received.
///
/// It is injective: no two names become one, so what was replaced can be told apart again. A local name that is not
/// replaced but equals what another one becomes goes out as it is, and comes back as that other one;
/// [`AtomMapping::is_ambiguous`] tells.
///
/// ```
/// use trunkline_route::AtomMapping;
///
/// let mapping = AtomMapping::new([("process_manager", "proc_mgr")])?;
/// assert_eq!(mapping.to_peer("process_manager").map(|name| &**name), Some("proc_mgr"));
/// assert_eq!(mapping.from_peer("proc_mgr").map(|name| &**name), Some("process_manager"));
/// # Ok::<(), trunkline_route::MappingError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AtomMapping {
    there: BTreeMap<Arc<str>, Arc<str>>,
    back: BTreeMap<Arc<str>, Arc<str>>,
}

/// Error returned when pairs are not a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// A name is empty or too long.
    #[error("a mapped name has 1 to 255 bytes, {name:?} has {len}")]
    Len {
        /// The name, cut to 80 characters.
        name: String,
        /// Number of bytes.
        len: usize,
    },
    /// Two names would become one.
    #[error("{one:?} and {other:?} would both become {target:?}, and could not be told apart; give each its own")]
    NotInjective {
        /// One of them.
        one: String,
        /// The other.
        other: String,
        /// Name that they would become.
        target: String,
    },
    /// One name is to become two.
    #[error("{name:?} is mapped twice; keep one of the two")]
    Twice {
        /// The name.
        name: String,
    },
}

impl AtomMapping {
    /// Each first name is called by the second one on the connection.
    ///
    /// # Errors
    /// [`MappingError`] when two would become one, one two, or a name is empty or longer than 255 bytes.
    pub fn new<A: AsRef<str>, B: AsRef<str>>(pairs: impl IntoIterator<Item = (A, B)>) -> Result<Self, MappingError> {
        let mut mapping = Self::default();
        for (local, peer) in pairs {
            let (local, peer): (Arc<str>, Arc<str>) = (name(local.as_ref())?, name(peer.as_ref())?);
            if let Some(one) = mapping.back.insert(peer.clone(), local.clone()).filter(|one| *one != local) {
                let (other, target) = (local.to_string(), peer.to_string());
                return Err(MappingError::NotInjective { one: one.to_string(), other, target });
            }
            if mapping.there.insert(local.clone(), peer.clone()).is_some_and(|before| before != peer) {
                return Err(MappingError::Twice { name: local.to_string() });
            }
        }
        Ok(mapping)
    }

    /// Returns the name by which the peer is told of a local name, if it is replaced.
    pub fn to_peer(&self, local: &str) -> Option<&Arc<str>> {
        self.there.get(local)
    }

    /// Returns the local name for a name of the peer, if it is restored.
    pub fn from_peer(&self, peer: &str) -> Option<&Arc<str>> {
        self.back.get(peer)
    }

    /// Returns true if a local name goes out unchanged and would come back as another one.
    pub fn is_ambiguous(&self, local: &str) -> bool {
        self.back.contains_key(local) && !self.there.contains_key(local)
    }

    /// The other local name that is called the same there, if there is one: of the two, one is ambiguous.
    pub fn same_to_peer(&self, local: &str) -> Option<&str> {
        match self.there.get(local) {
            Some(peer) => self.is_ambiguous(peer).then_some(&**peer),
            None => self.back.get(local).map(|other| &**other),
        }
    }

    /// The pairs, in the order of the local names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.there.iter().map(|(local, peer)| (&**local, &**peer))
    }

    /// Returns true if no name is replaced.
    pub fn is_empty(&self) -> bool {
        self.there.is_empty()
    }
}

fn name(text: &str) -> Result<Arc<str>, MappingError> {
    match text.len() {
        1..=MAX_LEN => Ok(text.into()),
        len => Err(MappingError::Len { name: text.chars().take(80).collect(), len }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn p38_a_mapping_is_injective_or_refused(pairs in prop::collection::vec(("[a-d]", "[a-f]"), 0..6)) {
            let mut wanted = BTreeMap::new();
            let is_function = pairs.iter().all(|(a, b)| wanted.insert(a.clone(), b.clone()).is_none_or(|c| c == *b));
            let targets: std::collections::BTreeSet<_> = wanted.values().collect();
            match AtomMapping::new(pairs.clone()) {
                Ok(mapping) => {
                    prop_assert!(is_function && targets.len() == wanted.len());
                    for (local, peer) in &wanted {
                        prop_assert_eq!(&**mapping.to_peer(local).unwrap(), peer);
                        prop_assert_eq!(&**mapping.from_peer(peer).unwrap(), local);
                    }
                }
                Err(_) => prop_assert!(!is_function || targets.len() < wanted.len()),
            }
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_named() {
        let error = AtomMapping::new([("a", "x"), ("b", "x")]).unwrap_err().to_string();
        assert!(error.contains("\"a\" and \"b\" would both become \"x\""), "{error}");
        assert_eq!(AtomMapping::new([("a", "x"), ("a", "y")]), Err(MappingError::Twice { name: "a".into() }));
        assert!(matches!(AtomMapping::new([("", "x")]), Err(MappingError::Len { len: 0, .. })));
        let swap = AtomMapping::new([("a", "b"), ("b", "a")]).unwrap();
        assert!(!swap.is_ambiguous("a") && !swap.is_ambiguous("b"));
        assert!(AtomMapping::new([("a", "b")]).unwrap().is_ambiguous("b"));
    }
}
