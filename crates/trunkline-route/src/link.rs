//! Identities of node instances and links, and the reasons for closing a link.

use std::fmt;

/// 128 random bits drawn when a node starts: the identity of one instance of a node. Compared for equality, never ordered.
pub type Incarnation = [u8; 16];

/// Identifier of a link: 16 bytes that both ends derive, the same at both and different for every link.
pub type LinkId = [u8; 16];

/// End of a link, by who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The end that dialled.
    Initiator,
    /// The end that was dialled.
    Responder,
}

impl Role {
    /// Returns the role of the other end.
    pub fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// Statements of a dialling end about the links that it has or had with the peer. `docs/WIRE.md` of the repository, "One
/// link per pair", describes their use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claims {
    /// Newest epoch seen between the two node instances; 0 for none.
    pub known_epoch: u64,
    /// Link of that epoch. Only the two ends of a link know its id, so it proves that the caller is the same instance; an
    /// incarnation alone proves nothing, since it is public.
    pub last_link: Option<LinkId>,
    /// Live link that this end holds.
    pub have_link: Option<LinkId>,
    /// Live link that the new one is to replace.
    pub replaces: Option<LinkId>,
}

/// Reason for closing a link, given by an end that has proven itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// No specific reason, or a code that this version does not know.
    Unspecified = 0,
    /// Normal end.
    Normal = 1,
    /// The two nodes already share a link.
    Duplicate = 2,
    /// Both nodes dialled; the other attempt stands.
    LostTie = 3,
    /// A newer link took the place of this one.
    Superseded = 4,
    /// Another live node has this name.
    NameInUse = 5,
    /// A frame broke the rules of the protocol.
    ProtocolError = 6,
    /// The node is shutting down.
    GoingAway = 7,
    /// No bytes came from the peer for too long.
    Timeout = 8,
    /// The table of links is full.
    TooManyLinks = 9,
    /// Closed on request of an operator or the program.
    Disconnected = 10,
    /// One end requires a flag that the other does not offer.
    Flags = 11,
}

impl CloseCode {
    const ALL: [(Self, &str); 12] = [
        (Self::Unspecified, "unspecified"),
        (Self::Normal, "normal"),
        (Self::Duplicate, "duplicate"),
        (Self::LostTie, "lost_tie"),
        (Self::Superseded, "superseded"),
        (Self::NameInUse, "name_in_use"),
        (Self::ProtocolError, "protocol_error"),
        (Self::GoingAway, "going_away"),
        (Self::Timeout, "timeout"),
        (Self::TooManyLinks, "too_many_links"),
        (Self::Disconnected, "disconnected"),
        (Self::Flags, "flags_refused"),
    ];

    /// Returns the byte that stands for the code in TLK/1.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// Returns the code of a byte; [`CloseCode::Unspecified`] for an unknown one.
    pub fn from_byte(byte: u8) -> Self {
        Self::ALL.get(usize::from(byte)).map_or(Self::Unspecified, |(code, _)| *code)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[usize::from(self.to_byte())].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_survives_its_byte() {
        for (byte, (code, _)) in (0..).zip(CloseCode::ALL) {
            assert_eq!((code.to_byte(), CloseCode::from_byte(byte)), (byte, code));
        }
        assert_eq!(CloseCode::from_byte(12), CloseCode::Unspecified);
    }
}
