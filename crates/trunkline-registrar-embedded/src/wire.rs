//! Wire format of requests and answers: a version byte, then postcard.

use serde::{Deserialize, Serialize};
use trunkline_matcher::{AccessPattern, Limits, PatternError};
use trunkline_registrar::{Change, GivenRoute, Offer, OfferError, Registration, Serving, check_offers};
use trunkline_route::{
    Address, Endpoint, EndpointError, NameError, NodeName, ServiceName, ServiceNameError, Version, VersionError,
};

/// Mailbox that answers, on every registrar session.
pub(crate) const SERVICE: &str = "$registrar";
const VERSION: u8 = 1;
/// Maximum number of endpoints in an announcement or answer.
pub(crate) const MAX_ENDPOINTS: usize = 16;
/// Maximum number of gateways in an answer.
pub(crate) const MAX_GATEWAYS: usize = 256;
/// Maximum number of changes in one message.
pub(crate) const MAX_NEWS: usize = 512;
/// Bytes of changes after which a message ends. The last change may add about 48 KiB.
pub(crate) const MAX_NEWS_BYTES: usize = 16 << 10;
/// Maximum number of nodes that serve a service in an answer.
pub(crate) const MAX_SERVING: usize = 256;
/// Maximum number of static routes that a registrar hands out. With patterns of 512 bytes they fit into a message.
pub const MAX_ROUTES: usize = 128;
/// Bytes that the nodes in an answer may take.
const MAX_SERVING_BYTES: usize = 64 << 10;
/// Maximum number of patterns that a gateway may announce.
const MAX_PATTERNS: usize = 64;
/// Limits of such a pattern. Node names are short, and the registrar stores and runs the patterns of all its nodes.
const PATTERN: Limits = Limits::new().pattern_bytes(512).repeat(64).nesting(16).nfa_bytes(32 << 10);

/// Request of a session. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Announces the session's node until the session ends, or replaces its announcement.
    Register(WireNode),
    /// Asks for the endpoints of a node.
    Resolve(String),
    /// Asks for the gateways that lead to a node.
    Gateways(String),
    /// Asks for all nodes and each change, which are sent to the mailbox [`SERVICE`] as lists of [`News`].
    Watch,
    /// Asks for the nodes that serve a service.
    Serving(String),
    /// Asks for the static routes that the registrar hands out.
    Routes,
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
    /// Nodes that serve a service, each with its name.
    Serving(Vec<(String, WireOffer)>),
    /// Static routes, each with its pattern and address.
    Routes(Vec<(String, WireEndpoint)>),
}

/// Change that a watching session is told. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// The node of this name is announced.
    Announced(String, WireNode),
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
                Some(Self::Announced(node.name.to_string(), WireNode::from(&**node)))
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
            Self::Announced(name, WireNode { endpoints, leads_to, offers }) => {
                name.len()
                    + endpoints.iter().map(|endpoint| endpoint.host.len() + 32).sum::<usize>()
                    + leads_to.iter().map(String::len).sum::<usize>()
                    + offers.iter().map(WireOffer::len).sum::<usize>()
            }
            Self::Left(name) => name.len(),
            Self::Current => 1,
        }
    }
}

/// Announcement of a node without its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireNode {
    pub(crate) endpoints: Vec<WireEndpoint>,
    /// Patterns of the names that it leads to.
    leads_to: Vec<String>,
    offers: Vec<WireOffer>,
}

impl From<&Registration> for WireNode {
    fn from(node: &Registration) -> Self {
        Self {
            endpoints: node.endpoints.iter().map(Into::into).collect(),
            leads_to: node.leads_to.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            offers: node.offers.iter().map(Into::into).collect(),
        }
    }
}

impl WireNode {
    /// Returns the announcement of the node of this name.
    pub(crate) fn registration(&self, name: NodeName) -> Result<Registration, MessageError> {
        let offers: Vec<Offer> = self.offers.iter().map(Offer::try_from).collect::<Result<_, _>>()?;
        check_offers(&offers)?;
        let registration = Registration::new(name, endpoints(&self.endpoints)?);
        Ok(registration.leading_to(patterns(&self.leads_to)?).offering(offers))
    }
}

/// Service of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireOffer {
    service: String,
    weight: u16,
    tags: Vec<String>,
}

impl WireOffer {
    fn len(&self) -> usize {
        self.service.len() + 3 + self.tags.iter().map(|tag| tag.len() + 1).sum::<usize>()
    }
}

impl From<&Offer> for WireOffer {
    fn from(offer: &Offer) -> Self {
        Self { service: offer.service.to_string(), weight: offer.weight, tags: offer.tags.clone() }
    }
}

impl TryFrom<&WireOffer> for Offer {
    type Error = MessageError;

    fn try_from(wire: &WireOffer) -> Result<Self, MessageError> {
        Ok(Self { service: wire.service.parse()?, weight: wire.weight, tags: wire.tags.clone() })
    }
}

/// Returns the nodes that serve a service, as an answer holds them: of too many, the ones with the highest weights.
pub(crate) fn wire_serving(service: &ServiceName, mut serving: Vec<Serving>) -> Vec<(String, WireOffer)> {
    serving.sort_by_key(|serving| std::cmp::Reverse(serving.weight));
    serving.truncate(MAX_SERVING);
    let wire = |serving: Serving| {
        let offer = WireOffer { service: service.to_string(), weight: serving.weight, tags: serving.tags };
        (serving.node.to_string(), offer)
    };
    let mut left = MAX_SERVING_BYTES;
    let fits = |(name, offer): &(String, WireOffer)| {
        let len = name.len() + offer.len() + 2;
        left.checked_sub(len).inspect(|rest| left = *rest).is_some()
    };
    serving.into_iter().map(wire).take_while(fits).collect()
}

pub(crate) fn serving(wire: &[(String, WireOffer)]) -> Result<Vec<Serving>, MessageError> {
    let serving = |(name, offer): &(String, WireOffer)| {
        let Offer { weight, tags, .. } = Offer::try_from(offer)?;
        Ok(Serving { node: NodeName::new(name)?, weight, tags })
    };
    wire.iter().take(MAX_SERVING).map(serving).collect()
}

/// Returns the routes of an answer.
pub(crate) fn routes(wire: &[(String, WireEndpoint)]) -> Result<Vec<GivenRoute>, MessageError> {
    if wire.len() > MAX_ROUTES {
        return Err(MessageError::TooMany { len: wire.len(), what: "routes", most: MAX_ROUTES });
    }
    let route = |(pattern, endpoint): &(String, WireEndpoint)| {
        Ok(GivenRoute { pattern: pattern.clone(), endpoint: Endpoint::try_from(endpoint)? })
    };
    wire.iter().map(route).collect()
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
    Offer(#[from] OfferError),
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error(transparent)]
    Service(#[from] ServiceNameError),
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
        let offer = WireOffer { service: "pg".into(), weight: 100, tags: vec!["eu".into()] };
        let (endpoints, leads_to) = (vec![endpoint], vec!["db@.*".into()]);
        let register = Request::Register(WireNode { endpoints, leads_to, offers: vec![offer.clone()] });
        let bytes = encode(&register);
        let offered = [&[2], b"pg".as_slice(), &[100, 1, 2], b"eu"].concat();
        let expected =
            [&[1, 0, 1, 8], b"10.0.0.1".as_slice(), &[0x92, 0x22, 1, 1, 0, 1, 5], b"db@.*".as_slice(), &[1], &offered];
        let expected = expected.concat();
        assert_eq!(encode(&Request::Serving("pg".into())), [&[1, 4, 2], b"pg".as_slice()].concat());
        let endpoint = WireEndpoint { host: "h".into(), port: 1, tls: None, version: None };
        let routes = Response::Routes(vec![("^a@".into(), endpoint)]);
        assert_eq!(encode(&routes), [&[1, 7, 1, 3], b"^a@".as_slice(), &[1, b'h', 1, 0, 0]].concat());
        let serving = Response::Serving(vec![("a@b".into(), offer)]);
        assert_eq!(encode(&serving), [&[1, 6, 1, 3], b"a@b".as_slice(), &offered].concat());
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
        let offer =
            |tags: usize, len: usize| WireOffer { service: "s".into(), weight: 1, tags: vec!["t".repeat(len); tags] };
        let node =
            |offers| WireNode { endpoints: vec![], leads_to: vec![], offers }.registration("a@h".parse().unwrap());
        assert_eq!(node(vec![offer(0, 0); 65]).unwrap_err(), MessageError::Offer(OfferError::TooMany(65)));
        assert_eq!(node(vec![offer(16, 128); 4]).unwrap_err(), MessageError::Offer(OfferError::TooLong(8272)));
        let serving = |tags| Serving { node: "a@h".parse().unwrap(), weight: 1, tags };
        let answer = wire_serving(&"s".parse().unwrap(), vec![serving(vec!["t".repeat(128); 16]); 256]);
        assert!(encode(&Response::Serving(answer.clone())).len() < 65 << 10 && answer.len() > 30);
        assert!(patterns(&["(".into()]).is_err() && gateways(&["nobody".into()]).is_err());
    }
}
