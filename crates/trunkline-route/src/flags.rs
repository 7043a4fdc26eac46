use std::fmt;
use std::str::FromStr;

macro_rules! flags {
    ($($(#[$doc:meta])* $variant:ident = $bit:literal, $text:literal;)*) => {
        /// One thing that a connection can do besides plain messages and calls, and that either end may switch off.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Flag { $($(#[$doc])* $variant,)* }

        impl Flag {
            /// Every flag.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name in a configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Returns the number of the bit on the wire, from 0.
            const fn bit(self) -> u32 {
                match self { $(Self::$variant => $bit,)* }
            }
        }
    };
}

flags! {
    /// A message may go ahead of others.
    Priorities = 0, "priorities";
    /// A message may be longer than one frame; without it the largest has about 16 KB.
    Fragmentation = 1, "fragmentation";
    /// A message may be sent so that its sender learns whether it is in the mailbox, across reconnects.
    ImportantDelivery = 2, "important_delivery";
    /// A peer may begin processes at this node that it offers.
    RemoteSpawn = 3, "remote_spawn";
    /// A peer may start applications of this node that it offers.
    RemoteApplicationStart = 4, "remote_application_start";
    /// A process of one end may be linked to one of the other.
    Link = 5, "link";
    /// A process of one end may watch one of the other.
    Monitor = 6, "monitor";
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a flag; known: {}", PeerFlags::ALL)]
pub struct UnknownFlag {
    /// The text, cut to 80 characters.
    pub given: String,
}

impl FromStr for Flag {
    type Err = UnknownFlag;
    fn from_str(text: &str) -> Result<Self, UnknownFlag> {
        let found = Self::ALL.iter().find(|flag| flag.as_str() == text);
        found.copied().ok_or_else(|| UnknownFlag { given: text.chars().take(80).collect() })
    }
}

/// A set of [`Flag`]s.
///
/// ```
/// use trunkline_route::{Flag, PeerFlags};
///
/// let flags = PeerFlags::ALL.with(Flag::RemoteSpawn, false);
/// assert!(flags.has(Flag::Link) && !flags.has(Flag::RemoteSpawn));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PeerFlags(u32);

impl PeerFlags {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// All of them: what a node offers unless told otherwise.
    pub const ALL: Self = {
        let (mut bits, mut i) = (0, 0);
        while i < Flag::ALL.len() {
            bits |= 1 << Flag::ALL[i].bit();
            i += 1;
        }
        Self(bits)
    };

    /// Returns true if the flag is in the set.
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & (1 << flag.bit()) != 0
    }

    /// With the flag in it, or out of it.
    #[must_use]
    pub const fn with(self, flag: Flag, on: bool) -> Self {
        let bit = 1 << flag.bit();
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }

    /// Returns the flags that are in both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the flags that are in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns true if the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags in it.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.iter().copied().filter(move |flag| self.has(*flag))
    }

    /// Returns the set as on the wire: a bit for each flag.
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From the wire; bits that mean nothing here are dropped.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }
}

impl FromIterator<Flag> for PeerFlags {
    fn from_iter<I: IntoIterator<Item = Flag>>(flags: I) -> Self {
        flags.into_iter().fold(Self::NONE, |set, flag| set.with(flag, true))
    }
}

impl fmt::Display for PeerFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Flag::as_str).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

impl fmt::Debug for PeerFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerFlags({self})")
    }
}

/// Statements of a route about flags; a flag that it does not mention is as the node has it.
///
/// ```
/// use trunkline_route::{Flag, FlagPolicy, PeerFlags};
///
/// let terms = FlagPolicy::default().require(Flag::Monitor).terms(PeerFlags::NONE);
/// assert!(terms.agree(PeerFlags::NONE.into()).is_err());
/// assert!(terms.agree(PeerFlags::ALL.into())?.has(Flag::Monitor));
/// # Ok::<(), trunkline_route::Disagreement>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlagPolicy {
    on: PeerFlags,
    off: PeerFlags,
    required: PeerFlags,
}

impl FlagPolicy {
    /// Offers the flag, or does not.
    #[must_use]
    pub fn set(mut self, flag: Flag, on: bool) -> Self {
        (self.on, self.off) = (self.on.with(flag, on), self.off.with(flag, !on));
        self.required = self.required.without(self.off);
        self
    }

    /// Offers the flag and demands that the peer does.
    #[must_use]
    pub fn require(mut self, flag: Flag) -> Self {
        self = self.set(flag, true);
        self.required = self.required.with(flag, true);
        self
    }

    /// Merges these statements with a node's own flags.
    pub fn terms(self, node: PeerFlags) -> FlagTerms {
        FlagTerms { offered: PeerFlags(node.0 | self.on.0).without(self.off), required: self.required }
    }

    /// The flags it switches on or off, each with how.
    pub fn mentioned(self) -> impl Iterator<Item = (Flag, bool)> {
        Flag::ALL.iter().filter_map(move |flag| {
            let mentioned = self.on.has(*flag) || self.off.has(*flag);
            mentioned.then(|| (*flag, self.on.has(*flag)))
        })
    }

    /// Returns the flags that the peer must offer.
    pub fn required(self) -> PeerFlags {
        self.required
    }
}

/// Flags that one end of a connection offers, and those that it requires of the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlagTerms {
    /// Offered.
    pub offered: PeerFlags,
    /// The peer must offer these, or there is no connection.
    pub required: PeerFlags,
}

impl From<PeerFlags> for FlagTerms {
    /// Offers these and demands nothing.
    fn from(offered: PeerFlags) -> Self {
        Self { offered, required: PeerFlags::NONE }
    }
}

impl FlagTerms {
    /// Returns the flags that both ends offer. Both ends compute the same.
    ///
    /// # Errors
    /// [`Disagreement`] when one demands what the other does not offer.
    pub fn agree(self, peer: Self) -> Result<PeerFlags, Disagreement> {
        let (lacks, requires) = (self.required.without(peer.offered), peer.required.without(self.offered));
        match (lacks.is_empty(), requires.is_empty()) {
            (false, _) => Err(Disagreement::PeerLacks(lacks)),
            (true, false) => Err(Disagreement::PeerRequires(requires)),
            (true, true) => Ok(self.offered.and(peer.offered)),
        }
    }
}

/// Error returned when the flags of two ends do not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// The peer does not offer what this end demands.
    #[error("the peer does not offer what is required of it: {0}")]
    PeerLacks(PeerFlags),
    /// The peer demands what this end does not offer.
    #[error("the peer requires what is not offered to it: {0}")]
    PeerRequires(PeerFlags),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets() -> impl Strategy<Value = PeerFlags> {
        any::<u32>().prop_map(PeerFlags::from_bits)
    }

    #[test]
    fn flags_are_read_as_they_are_written() {
        for flag in Flag::ALL {
            assert_eq!(flag.as_str().parse(), Ok(*flag));
        }
        let error = "prioritys".parse::<Flag>().unwrap_err().to_string();
        assert!(error.contains("prioritys") && error.contains("priorities, fragmentation"), "{error}");
        assert_eq!(PeerFlags::NONE.to_string(), "none");
    }

    #[test]
    fn a_route_overrides_the_node_flag_by_flag() {
        let policy = FlagPolicy::default().set(Flag::Priorities, false);
        let terms = policy.terms(PeerFlags::ALL);
        assert!(!terms.offered.has(Flag::Priorities) && terms.offered.has(Flag::Fragmentation));
        let required = FlagPolicy::default().require(Flag::Priorities);
        assert!(required.terms(PeerFlags::NONE).offered.has(Flag::Priorities), "what is demanded is offered");
        assert_eq!(required.set(Flag::Priorities, false).required(), PeerFlags::NONE, "the last word holds");
    }

    proptest! {
        #[test]
        fn both_ends_come_to_the_same(a in sets(), b in sets(), needs_a in sets(), needs_b in sets()) {
            let (a, b) = (FlagTerms { offered: a, required: needs_a }, FlagTerms { offered: b, required: needs_b });
            match (a.agree(b), b.agree(a)) {
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!(one, other);
                    prop_assert_eq!(one, a.offered.and(b.offered));
                    prop_assert!(needs_a.without(b.offered).is_empty() && needs_b.without(a.offered).is_empty());
                }
                (Err(_), Err(_)) => {
                    prop_assert!(!needs_a.without(b.offered).is_empty() || !needs_b.without(a.offered).is_empty());
                }
                (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
            }
        }
    }
}
