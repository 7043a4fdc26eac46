//! Messages of the peer exchange: a version byte, then postcard (<https://postcard.jamesmunns.com/wire-format>).

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use trunkline_route::{Address, Cookie, Incarnation, NodeName};
use zeroize::Zeroizing;

/// Version of the format.
const VERSION: u8 = 1;
/// Addresses of one member.
pub(crate) const MAX_ENDPOINTS: usize = 8;
/// Records of one message.
pub(crate) const MAX_RECORDS: usize = 200;
/// Fingerprints of one message.
pub(crate) const MAX_KNOWN: usize = 8192;
/// Names, and routes, of one answer to a call. With the longest of both, an answer has [`MAX_BYTES`].
const MAX_VIEW: usize = 1000;
/// Bytes of a message.
pub(crate) const MAX_BYTES: usize = 512 * 1024;
/// Longest name of a cluster, in bytes.
pub(crate) const MAX_CLUSTER: usize = 64;

/// Begin of FNV-1a in 32 bits.
pub(crate) const FNV: u32 = 0x811c_9dc5;

/// Returns FNV-1a in 32 bits (<http://www.isthe.com/chongo/tech/comp/fnv>) of what was hashed and these bytes.
pub(crate) fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A hash of text that is written into it.
struct Fingerprint(u32);

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = fnv(self.0, bytes);
    }
}

impl fmt::Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

/// Statement of one member about another one, or about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name of the member.
    pub name: NodeName,
    /// Instance of the member.
    pub incarnation: Incarnation,
    /// Addresses at which it listens, in the order to try; at most 8.
    pub endpoints: Vec<Address>,
    /// The member is a leaf: it keeps one connection itself, and others reach it through the member at the other end.
    pub is_leaf: bool,
}

impl Record {
    /// Returns a number by which two members see whether they know the same record: FNV-1a of its text in 32 bits.
    pub(crate) fn fingerprint(&self) -> u32 {
        let mut hash = Fingerprint(FNV);
        hash.add(self.name.as_str().as_bytes());
        hash.add(&self.incarnation.to_bytes());
        hash.add(&[self.is_leaf.into()]);
        for endpoint in &self.endpoints {
            let _ = write!(hash, "{endpoint}\0");
        }
        hash.0
    }
}

/// Message of a member to a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// The first message over a connection, and repeated from time to time.
    Hello {
        cluster: String,
        own: Record,
        /// The sender is not to be told to others.
        is_hidden: bool,
        /// The sender has not heard a hello over this connection.
        is_first: bool,
        /// Fingerprints of the records that the sender knows.
        known: Vec<u32>,
    },
    /// Members that the sender has been connected to.
    Peers(Vec<Record>),
    /// The sender belongs to another cluster.
    OtherCluster(String),
    /// An operator declared this instance of a member gone.
    Forget { name: NodeName, incarnation: Incarnation },
    /// A call: the receiver shall say whom it is connected to, and which routes it has. Answered by [`Message::View`].
    Ask,
    /// Answer to [`Message::Ask`].
    View(View),
    /// A call of a guest: a node of this name wants to join. Answered by [`Message::Welcome`] or [`Message::Refused`].
    Join(NodeName),
    /// Answer to [`Message::Join`]: the token is used now.
    Welcome(Welcome),
    /// Answer to [`Message::Join`]: the reason why not.
    Refused(String),
}

/// Part of a cluster that a machine is given when its token is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Name of the cluster.
    pub cluster: String,
    /// Cookie of the cluster, with its label.
    pub cookie: Cookie,
    /// Addresses of members, those of the issuer first.
    pub routes: Vec<Address>,
}

/// Part of the cluster that one member sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Members that it is connected to.
    pub connected: Vec<NodeName>,
    /// Routes of the member.
    pub routes: Vec<Address>,
}

#[derive(Serialize, Deserialize)]
struct WireRecord {
    name: String,
    incarnation: [u8; 16],
    endpoints: Vec<(String, u16)>,
    is_leaf: bool,
}

/// The order of variants is part of the format.
#[derive(Serialize, Deserialize)]
enum WireMessage {
    Hello { cluster: String, own: WireRecord, is_hidden: bool, is_first: bool, known: Vec<u32> },
    Peers(Vec<WireRecord>),
    OtherCluster(String),
    Forget { name: String, incarnation: [u8; 16] },
    Ask,
    View { connected: Vec<String>, routes: Vec<(String, u16)> },
    Join(String),
    Welcome { cluster: String, cookie: Zeroizing<Vec<u8>>, label: String, routes: Vec<(String, u16)> },
    Refused(String),
}

/// Error returned for a message that cannot be read. Nothing of it was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The sender is not a member: its first message did not come, or it belongs to another cluster.
    #[error("the sender has not said that it belongs to the cluster")]
    NoMember,
    /// The sender has sent more messages than are read from one neighbour.
    #[error("the sender sends more than 20 messages a second")]
    TooOften,
    /// The sender speaks for itself under another name than the one it proved.
    #[error("the sender calls itself {0}, which is not the name that it proved")]
    NotItself(NodeName),
    /// More entries than are taken.
    #[error("{len} {what}, at most {limit} are taken")]
    TooMany {
        /// Number of the entries.
        len: usize,
        /// Kind of the entries.
        what: &'static str,
        /// Limit.
        limit: usize,
    },
    /// The bytes are no message of this format, or one that is not expected here.
    #[error("the message cannot be read")]
    Unreadable,
    /// Another version of the format.
    #[error("version {0} of the peer exchange is not known; this node speaks version 1")]
    Version(u8),
}

fn bounded(len: usize, limit: usize, what: &'static str) -> Result<(), MessageError> {
    if len > limit { Err(MessageError::TooMany { len, what, limit }) } else { Ok(()) }
}

fn name(text: &str) -> Result<NodeName, MessageError> {
    NodeName::new(text).map_err(|_| MessageError::Unreadable)
}

fn address((host, port): (String, u16)) -> Result<Address, MessageError> {
    Address::new(host, port).map_err(|_| MessageError::Unreadable)
}

fn written(address: &Address) -> (String, u16) {
    (address.host.as_str().to_owned(), address.port.get())
}

impl From<&Record> for WireRecord {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.as_str().to_owned(),
            incarnation: record.incarnation.to_bytes(),
            endpoints: record.endpoints.iter().take(MAX_ENDPOINTS).map(written).collect(),
            is_leaf: record.is_leaf,
        }
    }
}

impl TryFrom<WireRecord> for Record {
    type Error = MessageError;

    fn try_from(wire: WireRecord) -> Result<Self, MessageError> {
        bounded(wire.endpoints.len(), MAX_ENDPOINTS, "addresses of one member")?;
        Ok(Self {
            name: name(&wire.name)?,
            incarnation: wire.incarnation.into(),
            endpoints: wire.endpoints.into_iter().map(address).collect::<Result<_, _>>()?,
            is_leaf: wire.is_leaf,
        })
    }
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let wire = match self {
            Self::Hello { cluster, own, is_hidden, is_first, known } => WireMessage::Hello {
                cluster: cluster.clone(),
                own: own.into(),
                is_hidden: *is_hidden,
                is_first: *is_first,
                known: known.iter().copied().take(MAX_KNOWN).collect(),
            },
            Self::Peers(records) => WireMessage::Peers(records.iter().map(WireRecord::from).collect()),
            Self::OtherCluster(cluster) => WireMessage::OtherCluster(cluster.clone()),
            Self::Forget { name, incarnation } => {
                WireMessage::Forget { name: name.as_str().to_owned(), incarnation: incarnation.to_bytes() }
            }
            Self::Ask => WireMessage::Ask,
            Self::View(View { connected, routes }) => WireMessage::View {
                connected: connected.iter().take(MAX_VIEW).map(|name| name.as_str().to_owned()).collect(),
                routes: routes.iter().take(MAX_VIEW).map(written).collect(),
            },
            Self::Join(name) => WireMessage::Join(name.as_str().to_owned()),
            Self::Welcome(Welcome { cluster, cookie, routes }) => WireMessage::Welcome {
                cluster: cluster.clone(),
                cookie: Zeroizing::new(cookie.expose().to_vec()),
                label: cookie.label().to_owned(),
                routes: routes.iter().take(MAX_VIEW).map(written).collect(),
            },
            Self::Refused(reason) => WireMessage::Refused(reason.clone()),
        };
        postcard::to_extend(&wire, vec![VERSION]).expect("a vector takes whatever is written")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        bounded(bytes.len(), MAX_BYTES, "bytes")?;
        let (&version, body) = bytes.split_first().ok_or(MessageError::Unreadable)?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        Ok(match postcard::from_bytes(body).map_err(|_| MessageError::Unreadable)? {
            WireMessage::Hello { cluster, own, is_hidden, is_first, known } => {
                bounded(cluster.len(), MAX_CLUSTER, "bytes of a cluster's name")?;
                bounded(known.len(), MAX_KNOWN, "fingerprints")?;
                Self::Hello { cluster, own: own.try_into()?, is_hidden, is_first, known }
            }
            WireMessage::Peers(records) => {
                bounded(records.len(), MAX_RECORDS, "members in one message")?;
                Self::Peers(records.into_iter().map(Record::try_from).collect::<Result<_, _>>()?)
            }
            WireMessage::OtherCluster(cluster) => {
                bounded(cluster.len(), MAX_CLUSTER, "bytes of a cluster's name")?;
                Self::OtherCluster(cluster)
            }
            WireMessage::Forget { name: of, incarnation } => {
                Self::Forget { name: name(&of)?, incarnation: incarnation.into() }
            }
            WireMessage::Ask => Self::Ask,
            WireMessage::View { connected, routes } => {
                bounded(connected.len().max(routes.len()), MAX_VIEW, "names or routes")?;
                let connected = connected.iter().map(|text| name(text)).collect::<Result<_, _>>()?;
                Self::View(View { connected, routes: routes.into_iter().map(address).collect::<Result<_, _>>()? })
            }
            WireMessage::Join(of) => Self::Join(name(&of)?),
            WireMessage::Welcome { cluster, cookie, label, routes } => {
                bounded(cluster.len(), MAX_CLUSTER, "bytes of a cluster's name")?;
                bounded(routes.len(), MAX_VIEW, "names or routes")?;
                let cookie = Cookie::new(&*cookie).and_then(|cookie| cookie.labelled(&label));
                let cookie = cookie.map_err(|_| MessageError::Unreadable)?;
                let routes = routes.into_iter().map(address).collect::<Result<_, _>>()?;
                Self::Welcome(Welcome { cluster, cookie, routes })
            }
            WireMessage::Refused(reason) => Self::Refused(reason),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(endpoints: usize) -> Record {
        let at = |n| Address::new(format!("10.0.0.{n}"), 9932).unwrap();
        Record {
            name: "a@h".parse().unwrap(),
            incarnation: [7; 16].into(),
            endpoints: (0..endpoints).map(at).collect(),
            is_leaf: false,
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let hello = Message::Hello {
            cluster: "c".into(),
            own: record(2),
            is_hidden: true,
            is_first: true,
            known: vec![1, u32::MAX],
        };
        let forget = Message::Forget { name: "a@h".parse().unwrap(), incarnation: [7; 16].into() };
        let view = View { connected: vec!["b@h".parse().unwrap()], routes: record(2).endpoints };
        let cookie = Cookie::new("a shared secret").unwrap().labelled("new").unwrap();
        let welcome = Welcome { cluster: "c".into(), cookie, routes: record(2).endpoints };
        let others = [
            Message::OtherCluster("d".into()),
            forget,
            Message::Ask,
            Message::View(view),
            Message::Join("b@h".parse().unwrap()),
            Message::Welcome(welcome),
            Message::Refused("no".into()),
        ];
        for message in [hello, Message::Peers(vec![record(0), record(8)])].into_iter().chain(others) {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn messages_over_the_limits_are_refused_as_a_whole() {
        let many = Message::Peers(vec![record(1); MAX_RECORDS + 1]).encode();
        let error = MessageError::TooMany { len: 201, what: "members in one message", limit: 200 };
        assert_eq!(Message::decode(&many), Err(error));
        let longest: NodeName = format!("{}@h", "a".repeat(253)).parse().unwrap();
        let route = Address::new("h".repeat(63) + &format!(".{}", "h".repeat(63)).repeat(2), 65_535).unwrap();
        let view = View { connected: vec![longest; 1001], routes: vec![route; 1001] };
        let bytes = Message::View(view).encode();
        assert!(bytes.len() <= MAX_BYTES, "{}", bytes.len());
        assert!(matches!(Message::decode(&bytes), Ok(Message::View(view)) if view.connected.len() == 1000));
        assert_eq!(Message::decode(&[2, 0]), Err(MessageError::Version(2)));
        assert_eq!(Message::decode(&[]), Err(MessageError::Unreadable));
        // A port of 0 cannot be dialled.
        let mut wire = WireRecord::from(&record(1));
        wire.endpoints[0].1 = 0;
        let bytes = postcard::to_extend(&WireMessage::Peers(vec![wire]), vec![VERSION]).unwrap();
        assert_eq!(Message::decode(&bytes), Err(MessageError::Unreadable));
    }

    #[test]
    fn a_fingerprint_tells_records_apart() {
        let other = Record { incarnation: [8; 16].into(), ..record(1) };
        assert_eq!(record(1).fingerprint(), record(1).fingerprint());
        assert_ne!(record(1).fingerprint(), record(2).fingerprint());
        assert_ne!(record(1).fingerprint(), other.fingerprint());
        assert_ne!(record(1).fingerprint(), Record { is_leaf: true, ..record(1) }.fingerprint());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
