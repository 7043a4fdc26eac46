//! Keys and values in etcd.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};
use trunkline_matcher::{AccessPattern, RoutePattern};
use trunkline_registrar::{DEFAULT_OFFER_WEIGHT, GivenRoute, Offer, Registration};
use trunkline_route::{Address, Endpoint, Host, NodeName, ServiceName, printable};

/// Longest value that is read, in bytes.
pub(crate) const MAX_VALUE: usize = 64 << 10;

/// Keys under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    root: String,
    nodes: String,
    challenges: String,
    routes: String,
}

/// Meaning of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Announcement of a node.
    Node(NodeName),
    /// Question to the holder of a name whether it is alive.
    Challenge(NodeName),
    /// Static route that is handed out, by its id.
    Route(String),
}

impl Keys {
    /// Returns the keys under a prefix, with or without a slash at its end.
    pub(crate) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        let below = |part: &str| format!("{prefix}/{part}");
        Self { root: below(""), nodes: below("nodes/"), challenges: below("challenges/"), routes: below("routes/") }
    }

    /// Returns the prefix of all keys.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn nodes(&self) -> &str {
        &self.nodes
    }

    pub(crate) fn routes(&self) -> &str {
        &self.routes
    }

    pub(crate) fn node(&self, name: &NodeName) -> String {
        format!("{}{name}", self.nodes)
    }

    pub(crate) fn challenge(&self, name: &NodeName) -> String {
        format!("{}{name}", self.challenges)
    }

    /// Returns the meaning of a key; `None` if it has none.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?;
        let name = |text: &str| NodeName::new(text).ok();
        if let Some(text) = key.strip_prefix(&self.nodes) {
            return name(text).map(Key::Node);
        }
        match key.strip_prefix(&self.routes) {
            Some(id) => Some(Key::Route(id.to_owned())).filter(|_| !id.is_empty()),
            None => key.strip_prefix(&self.challenges).and_then(name).map(Key::Challenge),
        }
    }
}

/// Value of a node's key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Value {
    endpoints: Vec<At>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    leads_to: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    offers: Vec<Offered>,
    /// Random number of the process that wrote the value, in hexadecimal digits; none in one written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    host: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handshake: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offered {
    service: String,
    #[serde(default = "default_weight")]
    weight: u16,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

fn default_weight() -> u16 {
    DEFAULT_OFFER_WEIGHT
}

/// Announcement, with the process that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) registration: Registration,
    pub(crate) holder: Option<String>,
}

/// Error returned when a value cannot be read. Texts are printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("it is longer than 64 KiB")]
    TooLong,
    #[error("it is not JSON of the form {FORM}: {0}")]
    Json(String),
    #[error("endpoints[{0}] has no host or no port from 1 to 65535")]
    Endpoint(usize),
    #[error("endpoints[{0}].handshake is no version, such as TLK/1")]
    Handshake(usize),
    #[error("leads_to[{0}] is no pattern")]
    Pattern(usize),
    #[error("offers[{0}] has a service or a tag with spaces, `@` or `#`")]
    Offer(usize),
}

/// Value of the key of a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteValue {
    r#match: String,
    host: String,
    port: u16,
    tls: Option<bool>,
    handshake: Option<String>,
}

/// Error returned when the value of a route cannot be read. Texts are printable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("it is longer than 64 KiB")]
    TooLong,
    #[error("it is not JSON of the form {ROUTE}: {0}")]
    Json(String),
    #[error("it has no host or no port from 1 to 65535, or its handshake is no version")]
    Endpoint,
    #[error("`match` is no pattern")]
    Pattern,
}

/// Form of the value of a route, for errors.
const ROUTE: &str = r#"{"match": "^db@", "host": "10.0.0.5", "port": 4370}"#;

pub(crate) fn decode_route(value: &[u8]) -> Result<GivenRoute, RouteError> {
    if value.len() > MAX_VALUE {
        return Err(RouteError::TooLong);
    }
    let malformed = |error: serde_json::Error| RouteError::Json(printable(&error.to_string()));
    let RouteValue { r#match, host, port, tls, handshake } = serde_json::from_slice(value).map_err(malformed)?;
    RoutePattern::new(&r#match).map_err(|_| RouteError::Pattern)?;
    let address = Address::new(host, port).map_err(|_| RouteError::Endpoint)?;
    let version = handshake.map(|text| text.parse()).transpose().map_err(|_| RouteError::Endpoint)?;
    Ok(GivenRoute { pattern: r#match, endpoint: Endpoint { address, tls, version } })
}

/// Form of a value, for errors.
const FORM: &str = r#"{"endpoints": [{"host": "10.0.0.5", "port": 4370}]}"#;

pub(crate) fn encode(registration: &Registration, holder: &str) -> Vec<u8> {
    let at = |endpoint: &Endpoint| At {
        host: endpoint.address.host.to_string(),
        port: endpoint.address.port.get(),
        tls: endpoint.tls,
        handshake: endpoint.version.as_ref().map(ToString::to_string),
    };
    let offered =
        |offer: &Offer| Offered { service: offer.service.to_string(), weight: offer.weight, tags: offer.tags.clone() };
    let value = Value {
        endpoints: registration.endpoints.iter().map(at).collect(),
        leads_to: registration.leads_to.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
        offers: registration.offers.iter().map(offered).collect(),
        holder: Some(holder.to_owned()),
    };
    serde_json::to_vec(&value).unwrap_or_default()
}

pub(crate) fn decode(name: NodeName, value: &[u8]) -> Result<Entry, ValueError> {
    if value.len() > MAX_VALUE {
        return Err(ValueError::TooLong);
    }
    let malformed = |error: serde_json::Error| ValueError::Json(printable(&error.to_string()));
    let Value { endpoints, leads_to, offers, holder } = serde_json::from_slice(value).map_err(malformed)?;
    let endpoint = |(nth, at): (usize, At)| {
        let host = Host::new(at.host).map_err(|_| ValueError::Endpoint(nth))?;
        let port = NonZeroU16::new(at.port).ok_or(ValueError::Endpoint(nth))?;
        let version = at.handshake.map(|text| text.parse()).transpose().map_err(|_| ValueError::Handshake(nth))?;
        Ok(Endpoint { address: Address { host, port }, tls: at.tls, version })
    };
    let endpoints = endpoints.into_iter().enumerate().map(endpoint).collect::<Result<_, _>>()?;
    let pattern = |(nth, text): (usize, String)| AccessPattern::new(&text).map_err(|_| ValueError::Pattern(nth));
    let leads_to = leads_to.into_iter().enumerate().map(pattern).collect::<Result<_, _>>()?;
    let offer = |(nth, offered): (usize, Offered)| {
        let service = ServiceName::new(offered.service).map_err(|_| ValueError::Offer(nth))?;
        // A tag has the form of a service.
        let is_right = offered.tags.iter().all(|tag| ServiceName::new(tag).is_ok());
        is_right.then_some(Offer { service, weight: offered.weight, tags: offered.tags }).ok_or(ValueError::Offer(nth))
    };
    let offers = offers.into_iter().enumerate().map(offer).collect::<Result<_, _>>()?;
    let registration = Registration::new(name, endpoints).leading_to(leads_to).offering(offers);
    Ok(Entry { registration, holder })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trunkline_route::Version;

    use super::*;

    fn name() -> NodeName {
        "db@example.com".parse().unwrap()
    }

    #[test]
    fn keys_stand_under_the_prefix_and_are_read_back() {
        for keys in [Keys::new("/trunkline"), Keys::new("/trunkline/")] {
            assert_eq!(keys.node(&name()), "/trunkline/nodes/db@example.com");
            assert_eq!(keys.read(keys.node(&name()).as_bytes()), Some(Key::Node(name())));
            assert_eq!(keys.read(keys.challenge(&name()).as_bytes()), Some(Key::Challenge(name())));
            for other in ["/trunkline/nodes/", "/trunkline/nodes/no name@h", "/other/nodes/a@h", "/trunkline/nodes"] {
                assert_eq!(keys.read(other.as_bytes()), None, "{other}");
            }
            assert_eq!(keys.read(b"/trunkline/nodes/\xff@h"), None);
        }
    }

    #[test]
    fn a_value_has_the_documented_form() {
        let endpoint = Endpoint {
            address: Address::new("10.0.0.5", 4370).unwrap(),
            tls: Some(true),
            version: Some(Version::native(1)),
        };
        let node = Registration::new(name(), vec![endpoint, Endpoint::at(Address::new("fd00::1", 1).unwrap())]);
        let node = node.leading_to(vec![AccessPattern::new("inside-.*@.*").unwrap()]);
        let offer = Offer { weight: 0, tags: vec!["eu".into()], ..Offer::new("pg".parse().unwrap()) };
        let node = node.offering(vec![offer]);
        let value = encode(&node, "c0ffee");
        assert_eq!(
            String::from_utf8(value.clone()).unwrap(),
            r#"{"endpoints":[{"host":"10.0.0.5","port":4370,"tls":true,"handshake":"TLK/1"},{"host":"fd00::1","port":1}],"leads_to":["inside-.*@.*"],"offers":[{"service":"pg","weight":0,"tags":["eu"]}],"holder":"c0ffee"}"#
        );
        assert_eq!(decode(name(), &value), Ok(Entry { registration: node, holder: Some("c0ffee".into()) }));
        let by_hand = decode(name(), br#"{"endpoints": [{"host": "a", "port": 7}], "offers": [{"service": "pg"}]}"#);
        let by_hand = by_hand.unwrap();
        assert_eq!(by_hand.holder, None);
        assert_eq!(by_hand.registration.offers, [Offer::new("pg".parse().unwrap())]);
        assert_eq!(by_hand.registration.endpoints, [Endpoint::at(Address::new("a", 7).unwrap())]);
    }

    #[test]
    fn a_value_that_cannot_be_read_says_where() {
        let of = |value: &str| decode(name(), value.as_bytes()).unwrap_err();
        assert_eq!(of(""), ValueError::Json("EOF while parsing a value at line 1 column 0".into()));
        let unknown = of("{\"endpoints\": [],\n\"endpoint\": 1}").to_string();
        assert!(unknown.contains("unknown field `endpoint`") && unknown.contains("line 2 column 10"), "{unknown}");
        assert_eq!(of(r#"{"endpoints": [{"host": "a", "port": 0}]}"#), ValueError::Endpoint(0));
        assert_eq!(of(r#"{"endpoints": [{"host": "a b", "port": 1}]}"#), ValueError::Endpoint(0));
        assert_eq!(of(r#"{"endpoints": [{"host": "a", "port": 1, "handshake": "?"}]}"#), ValueError::Handshake(0));
        assert_eq!(of(r#"{"endpoints": [], "leads_to": ["a", "("]}"#), ValueError::Pattern(1));
        assert_eq!(of(r#"{"endpoints": [], "offers": [{"service": "a@b"}]}"#), ValueError::Offer(0));
        assert_eq!(of(&" ".repeat(MAX_VALUE + 1)), ValueError::TooLong);
    }

    #[test]
    fn the_value_of_a_route_has_a_pattern_and_an_address() {
        let route = decode_route(br#"{"match": "^db@", "host": "10.0.0.5", "port": 4370, "tls": true}"#).unwrap();
        assert_eq!((route.pattern.as_str(), route.endpoint.tls), ("^db@", Some(true)));
        assert_eq!(route.endpoint.address.to_string(), "10.0.0.5:4370");
        let of = |value: &str| decode_route(value.as_bytes()).unwrap_err();
        assert_eq!(of(r#"{"match": "(", "host": "h", "port": 1}"#), RouteError::Pattern);
        assert_eq!(of(r#"{"match": "a", "host": "h", "port": 0}"#), RouteError::Endpoint);
        assert!(matches!(of("{}"), RouteError::Json(_)));
        assert_eq!(Keys::new("/t").read(b"/t/routes/one"), Some(Key::Route("one".into())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(name(), &value);
            let _ = Keys::new("/t").read(&value);
        }
    }
}
