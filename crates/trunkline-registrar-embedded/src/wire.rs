//! Wire format of requests and answers: a version byte, then postcard.

use serde::{Deserialize, Serialize};
use trunkline_matcher::{AccessPattern, Limits, PatternError};
use trunkline_registrar::{Change, Registration};
use trunkline_route::{Address, Endpoint, EndpointError, NameError, NodeName, Version, VersionError};

/// Mailbox that answers, on every registrar session.
pub(crate) const SERVICE: &str = "$registrar";
const VERSION: u8 = 1;
/// Maximum number of endpoints in an announcement or answer.
pub(crate) const MAX_ENDPOINTS: usize = 16;
/// Maximum number of gateways in an answer.
pub(crate) const MAX_GATEWAYS: usize = 256;
/// Maximum number of changes in one message.
pub(crate) const MAX_NEWS: usize = 512;
/// Bytes of changes after which a message ends. The last change may add about 40 KiB.
pub(crate) const MAX_NEWS_BYTES: usize = 16 << 10;
/// Maximum number of patterns that a gateway may announce.
const MAX_PATTERNS: usize = 64;
/// Limits of such a pattern. Node names are short, and the registrar stores and runs the patterns of all its nodes.
const PATTERN: Limits = Limits::new().pattern_bytes(512).repeat(64).nesting(16).nfa_bytes(32 << 10);

/// Request of a session. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Announces the session's node, and the patterns of the names it leads to, until the session ends.
    Register(Vec<WireEndpoint>, Vec<String>),
    /// Asks for the endpoints of a node.
    Resolve(String),
    /// Asks for the gateways that lead to a node.
    Gateways(String),
    /// Asks for all nodes and each change, which are sent to the mailbox [`SERVICE`] as lists of [`News`].
    Watch,
}

/// Answer of the registrar. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The node was announced.
    Registered,
    /// Another live node has the name, and listens here.
    Taken(Vec<WireEndpoint>),
    /// Endpoints of the node; empty for an unknown name.
    Endpoints(Vec<WireEndpoint>),
    /// The request is invalid.
    Refused(String),
    /// Names of gateways.
    Gateways(Vec<String>),
    /// The session is told from now on.
    Watching {
        /// Time for which the registrar serves, in milliseconds. Nodes of one that it replaced may still come back to it.
        age_ms: u64,
    },
}

/// Change that a watching session is told. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// The node is announced, with the patterns of the names it leads to.
    Announced(String, Vec<WireEndpoint>, Vec<String>),
    /// The node is not announced any more.
    Left(String),
    /// All nodes that are announced now were told.
    Current,
}

impl News {
    /// Returns what a session is told of a change.
    pub(crate) fn new(change: &Change) -> Option<Self> {
        match change {
            Change::Joined(node) | Change::Changed(node) => {
                let (endpoints, leads_to) = parts(node);
                Some(Self::Announced(node.name.to_string(), endpoints, leads_to))
            }
            Change::Left(name) => Some(Self::Left(name.to_string())),
            Change::Current => Some(Self::Current),
            // The table of a registrar is never lost.
            _ => None,
        }
    }

    /// Returns about how many bytes this takes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Announced(name, endpoints, patterns) => {
                name.len()
                    + endpoints.iter().map(|endpoint| endpoint.host.len() + 32).sum::<usize>()
                    + patterns.iter().map(String::len).sum::<usize>()
            }
            Self::Left(name) => name.len(),
            Self::Current => 1,
        }
    }
}

/// Returns the endpoints of an announcement, and the patterns of the names that its node leads to.
pub(crate) fn parts(node: &Registration) -> (Vec<WireEndpoint>, Vec<String>) {
    let leads_to = node.leads_to.iter().map(|pattern| pattern.as_str().to_owned()).collect();
    (node.endpoints.iter().map(Into::into).collect(), leads_to)
}

/// Returns the announcement of a node from its parts.
pub(crate) fn registration(
    name: NodeName,
    endpoints: &[WireEndpoint],
    leads_to: &[String],
) -> Result<Registration, MessageError> {
    Ok(Registration::new(name, self::endpoints(endpoints)?).leading_to(patterns(leads_to)?))
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireEndpoint {
    host: String,
    port: u16,
    tls: Option<bool>,
    version: Option<String>,
}

impl From<&Endpoint> for WireEndpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            host: endpoint.address.host.as_str().into(),
            port: endpoint.address.port.get(),
            tls: endpoint.tls,
            version: endpoint.version.as_ref().map(ToString::to_string),
        }
    }
}

/// Error returned when a message is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Handshake(#[from] VersionError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("{len} {what}, at most {most} are taken")]
    TooMany { len: usize, what: &'static str, most: usize },
    #[error("it cannot be read")]
    Unreadable(#[source] postcard::Error),
    #[error("it is of version {0}; this node speaks {VERSION}")]
    Version(u8),
}

impl TryFrom<&WireEndpoint> for Endpoint {
    type Error = MessageError;

    fn try_from(wire: &WireEndpoint) -> Result<Self, MessageError> {
        let address = Address::new(&wire.host, wire.port)?;
        let version = wire.version.as_deref().map(str::parse::<Version>).transpose()?;
        Ok(Self { address, tls: wire.tls, version })
    }
}

pub(crate) fn endpoints(wire: &[WireEndpoint]) -> Result<Vec<Endpoint>, MessageError> {
    if wire.len() > MAX_ENDPOINTS {
        return Err(MessageError::TooMany { len: wire.len(), what: "endpoints", most: MAX_ENDPOINTS });
    }
    wire.iter().map(Endpoint::try_from).collect()
}

pub(crate) fn patterns(wire: &[String]) -> Result<Vec<AccessPattern>, MessageError> {
    if wire.len() > MAX_PATTERNS {
        return Err(MessageError::TooMany { len: wire.len(), what: "patterns", most: MAX_PATTERNS });
    }
    wire.iter().map(|text| Ok(AccessPattern::with_limits(text, &PATTERN)?)).collect()
}

pub(crate) fn gateways(wire: &[String]) -> Result<Vec<NodeName>, MessageError> {
    wire.iter().take(MAX_GATEWAYS).map(|name| Ok(NodeName::new(name)?)).collect()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("these values have no part that cannot be encoded")
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MessageError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(MessageError::Unreadable),
        Some((version, _)) => Err(MessageError::Version(*version)),
        None => Err(MessageError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_as_documented() {
        let endpoint = WireEndpoint { host: "10.0.0.1".into(), port: 4370, tls: Some(true), version: None };
        let register = Request::Register(vec![endpoint], vec!["db@.*".into()]);
        let bytes = encode(&register);
        let expected =
            [&[1, 0, 1, 8], b"10.0.0.1".as_slice(), &[0x92, 0x22, 1, 1, 0, 1, 5], b"db@.*".as_slice()].concat();
        assert_eq!(bytes, expected);
        assert_eq!(decode::<Request>(&bytes), Ok(register));
        assert_eq!(encode(&Request::Gateways("a@b".into())), [&[1, 2, 3], b"a@b".as_slice()].concat());
        assert_eq!(encode(&Request::Resolve("a@b".into())), [&[1, 1, 3], b"a@b".as_slice()].concat());
        assert_eq!(encode(&Response::Taken(vec![])), [1, 1, 0]);
        assert_eq!(encode(&Response::Watching { age_ms: 300 }), [1, 5, 0xac, 2]);
        assert_eq!(encode(&vec![News::Left("a@b".into()), News::Current]), [1, 2, 1, 3, b'a', b'@', b'b', 2]);
    }

    #[test]
    fn other_versions_and_garbage_are_refused() {
        assert!(decode::<Request>(&[]).is_err());
        assert_eq!(decode::<Request>(&[2, 0]), Err(MessageError::Version(2)));
        assert!(decode::<Request>(&[1, 99]).is_err());
    }

    #[test]
    fn endpoints_of_port_zero_or_in_excess_are_refused() {
        let wire = WireEndpoint { host: "h".into(), port: 0, tls: None, version: None };
        assert!(endpoints(std::slice::from_ref(&wire)).is_err());
        let many = |len, what, most| MessageError::TooMany { len, what, most };
        assert_eq!(endpoints(&vec![WireEndpoint { port: 1, ..wire }; 17]), Err(many(17, "endpoints", 16)));
        assert_eq!(patterns(&vec!["a".into(); 65]).unwrap_err(), many(65, "patterns", 64));
        assert!(patterns(&["(a{64}){64}".into()]).is_err() && patterns(&["x".repeat(513)]).is_err());
        assert!(patterns(&["(".into()]).is_err() && gateways(&["nobody".into()]).is_err());
    }
}
