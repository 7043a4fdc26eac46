//! Wire format of requests and answers: a version byte, then postcard.

use serde::{Deserialize, Serialize};
use trunkline_matcher::{AccessPattern, Limits};
use trunkline_route::{Address, Endpoint, NodeName, Version};

/// Mailbox that answers, on every registrar session.
pub(crate) const SERVICE: &str = "$registrar";
const VERSION: u8 = 1;
/// Maximum number of endpoints in an announcement or answer.
pub(crate) const MAX_ENDPOINTS: usize = 16;
/// Maximum number of gateways in an answer.
pub(crate) const MAX_GATEWAYS: usize = 256;
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
}

/// Answer of the registrar. The order of variants is part of the wire format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The node was announced.
    Registered,
    /// Another live node has the name.
    Taken,
    /// Endpoints of the node; empty for an unknown name.
    Endpoints(Vec<WireEndpoint>),
    /// The request is invalid.
    Refused(String),
    /// Names of gateways.
    Gateways(Vec<String>),
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

impl TryFrom<&WireEndpoint> for Endpoint {
    type Error = String;

    fn try_from(wire: &WireEndpoint) -> Result<Self, String> {
        let address = Address::new(&wire.host, wire.port).map_err(|e| e.to_string())?;
        let version = wire.version.as_deref().map(str::parse::<Version>).transpose().map_err(|e| e.to_string())?;
        Ok(Self { address, tls: wire.tls, version })
    }
}

pub(crate) fn endpoints(wire: &[WireEndpoint]) -> Result<Vec<Endpoint>, String> {
    if wire.len() > MAX_ENDPOINTS {
        return Err(format!("{} endpoints, at most {MAX_ENDPOINTS} are taken", wire.len()));
    }
    wire.iter().map(Endpoint::try_from).collect()
}

pub(crate) fn patterns(wire: &[String]) -> Result<Vec<AccessPattern>, String> {
    if wire.len() > MAX_PATTERNS {
        return Err(format!("{} patterns, at most {MAX_PATTERNS} are taken", wire.len()));
    }
    wire.iter().map(|text| AccessPattern::with_limits(text, &PATTERN).map_err(|e| e.to_string())).collect()
}

pub(crate) fn gateways(wire: &[String]) -> Result<Vec<NodeName>, String> {
    wire.iter().take(MAX_GATEWAYS).map(|name| NodeName::new(name).map_err(|e| e.to_string())).collect()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("these values have no part that cannot be encoded")
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| format!("it cannot be read: {e}")),
        Some((version, _)) => Err(format!("it is of version {version}; this node speaks {VERSION}")),
        None => Err("it is empty".into()),
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
        assert_eq!(encode(&Response::Taken), [1, 1]);
    }

    #[test]
    fn other_versions_and_garbage_are_refused() {
        assert!(decode::<Request>(&[]).is_err());
        assert!(decode::<Request>(&[2, 0]).unwrap_err().contains("version 2"));
        assert!(decode::<Request>(&[1, 99]).is_err());
    }

    #[test]
    fn endpoints_of_port_zero_or_in_excess_are_refused() {
        let wire = WireEndpoint { host: "h".into(), port: 0, tls: None, version: None };
        assert!(endpoints(std::slice::from_ref(&wire)).is_err());
        assert!(endpoints(&vec![WireEndpoint { port: 1, ..wire }; 17]).unwrap_err().contains("17"));
        assert!(patterns(&vec!["a".into(); 65]).unwrap_err().contains("65"));
        assert!(patterns(&["(a{64}){64}".into()]).is_err() && patterns(&["x".repeat(513)]).is_err());
        assert!(patterns(&["(".into()]).is_err() && gateways(&["nobody".into()]).is_err());
    }
}
