//! Identities of node instances and links, and the reasons for closing a link.

use std::fmt;

/// Defines identifiers of 16 bytes, which are compared and never ordered.
macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash)]
            pub struct $name([u8; 16]);

            impl $name {
                /// Returns the identifier with these bytes.
                pub const fn new(bytes: [u8; 16]) -> Self {
                    Self(bytes)
                }

                /// Returns the bytes.
                pub const fn to_bytes(self) -> [u8; 16] {
                    self.0
                }
            }

            impl From<[u8; 16]> for $name {
                fn from(bytes: [u8; 16]) -> Self {
                    Self(bytes)
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
                }
            }

            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(self, f)
                }
            }
        )*
    };
}

identifiers! {
    /// Identity of one instance of a node: 128 random bits drawn when the node starts.
    ///
    /// ```
    /// use trunkline_route::Incarnation;
    ///
    /// let incarnation = Incarnation::new([0xab; 16]);
    /// assert_eq!(incarnation.to_string(), "abababababababababababababababab");
    /// assert_eq!(Incarnation::from(incarnation.to_bytes()), incarnation);
    /// ```
    Incarnation;
    /// Identifier of a link: 16 bytes that both ends derive, the same at both and different for every link.
    LinkId;
}

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

/// Statements of a dialling end about the links that it has or had with the peer. The rules of
/// [one link per pair](https://github.com/trunkline/trunkline/blob/main/docs/ROUTING.md#one-link-per-pair) use
/// them.
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

/// Defines reasons with a byte in TLK/1 and a word for people. A byte that is not known reads as the first reason, the most
/// general one.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $byte:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the byte that stands for the reason in TLK/1.
            pub fn to_byte(self) -> u8 {
                match self { $(Self::$variant => $byte,)* }
            }

            /// Returns the reason of a byte; the first, most general one for an unknown byte.
            pub fn from_byte(byte: u8) -> Self {
                match byte { $($byte => Self::$variant,)* _ => [$(Self::$variant),*][0] }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

reasons! {
    /// Reason for closing a link, given by an end that has proven itself.
    CloseCode {
        /// No specific reason, or a code that this version does not know.
        Unspecified = 0, "unspecified";
        /// Normal end.
        Normal = 1, "normal";
        /// The two nodes already share a link.
        Duplicate = 2, "duplicate";
        /// Both nodes dialled; the other attempt stands.
        LostTie = 3, "lost_tie";
        /// A newer link took the place of this one.
        Superseded = 4, "superseded";
        /// Another live node has this name.
        NameInUse = 5, "name_in_use";
        /// A frame broke the rules of the protocol.
        ProtocolError = 6, "protocol_error";
        /// The node is shutting down.
        GoingAway = 7, "going_away";
        /// No bytes came from the peer for too long.
        Timeout = 8, "timeout";
        /// The table of links is full.
        TooManyLinks = 9, "too_many_links";
        /// Closed on request of an operator or the program.
        Disconnected = 10, "disconnected";
        /// A flag that an end requires is not offered by the other.
        Flags = 11, "flags_refused";
    }
}

reasons! {
    /// Reason of a listener for refusing a caller before anybody is proven. It is advice only.
    RejectCode {
        /// No specific reason, or a code that this version does not know.
        Refused = 1, "refused";
        /// No version in common.
        Version = 2, "no common version";
        /// The dialled name is not that of the listener's node.
        WrongName = 3, "another node lives here";
        /// The caller's name is not allowed at this listener.
        NotAllowed = 4, "the name is not allowed here";
        /// Too many attempts from there failed recently.
        Throttled = 5, "too many failed attempts";
        /// The mode is not served at this listener.
        Mode = 6, "not served here";
        /// The node dialled itself.
        Myself = 7, "the node dialled itself";
        /// No room for another caller.
        Busy = 8, "busy";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_survives_its_byte() {
        assert_eq!(CloseCode::ALL.len(), 12);
        for (byte, &code) in (0..).zip(CloseCode::ALL) {
            assert_eq!((code.to_byte(), CloseCode::from_byte(byte)), (byte, code));
        }
        assert_eq!(CloseCode::from_byte(12), CloseCode::Unspecified);
    }

    #[test]
    fn every_reject_code_survives_its_byte() {
        assert_eq!(RejectCode::ALL.len(), 8);
        for (byte, &code) in (1..).zip(RejectCode::ALL) {
            assert_eq!((code.to_byte(), RejectCode::from_byte(byte)), (byte, code));
        }
        assert_eq!((RejectCode::from_byte(0), RejectCode::from_byte(9)), (RejectCode::Refused, RejectCode::Refused));
    }
}
