use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use crate::{NodeName, Version};

/// The longest host name, in bytes (RFC 1035 §2.3.4).
pub const MAX_HOST_LEN: usize = 253;

/// The longest zone of an IPv6 address, in bytes: an interface has at most 15 on Linux, and longer names elsewhere.
const MAX_ZONE_LEN: usize = 64;

/// A host: an IPv4 or IPv6 address, or a name to be looked up.
///
/// ```
/// use trunkline_route::Host;
///
/// assert!(Host::new("example.com")?.ip().is_none());
/// assert_eq!(Host::new("[::1]")?.as_str(), "::1");
/// # Ok::<(), trunkline_route::EndpointError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// Takes an address (IPv6 with or without brackets, on request with a zone: `fe80::1%eth0`) or a name of at most 253
    /// bytes. A zone is an interface of this machine, by name or number; it is looked up when the address is used.
    ///
    /// # Errors
    /// [`EndpointError::Host`] names the text.
    pub fn new(text: impl AsRef<str>) -> Result<Self, EndpointError> {
        let text = text.as_ref();
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(ip.to_string().into()));
        }
        let legal = |c: char| NodeName::can_contain(c) && !matches!(c, '/' | '@' | ':' | '[' | ']' | '%');
        if let Some((ip, zone)) = bare.split_once('%')
            && let Ok(ip) = ip.parse::<Ipv6Addr>()
            && (1..=MAX_ZONE_LEN).contains(&zone.len())
            && zone.chars().all(legal)
        {
            return Ok(Self(format!("{ip}%{zone}").into()));
        }
        if bare.is_empty() || bare.len() > MAX_HOST_LEN || bare != text || !bare.chars().all(legal) {
            return Err(EndpointError::Host { host: text.chars().take(80).collect() });
        }
        Ok(Self(bare.into()))
    }

    /// The host without brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is one and needs no lookup. An address with a zone needs one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// The host without the zone of an IPv6 address: what a certificate may be for.
    pub fn without_zone(&self) -> &str {
        self.zoned().map_or(self.as_str(), |(ip, _)| ip)
    }

    /// The address and its zone, when it has one.
    fn zoned(&self) -> Option<(&str, &str)> {
        self.0.split_once('%')
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::new(text)
    }
}

/// A host and a port, as dialled. Prints IPv6 literals in brackets.
///
/// ```
/// use trunkline_route::Address;
///
/// let address: Address = "[::1]:4370".parse()?;
/// assert_eq!((address.host.as_str(), address.port.get()), ("::1", 4370));
/// assert_eq!(address.to_string(), "[::1]:4370");
/// # Ok::<(), trunkline_route::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The TCP port, 1 to 65535.
    pub port: NonZeroU16,
}

impl Address {
    /// An address from its parts.
    ///
    /// # Errors
    /// [`EndpointError`] when the host is malformed or the port 0.
    pub fn new(host: impl AsRef<str>, port: u16) -> Result<Self, EndpointError> {
        Ok(Self { host: Host::new(host)?, port: NonZeroU16::new(port).ok_or(EndpointError::Port)? })
    }

    /// Returns the socket address, when the host is an IP address and needs no lookup.
    pub fn socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.ip()?, self.port.get()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            ip if ip.contains(':') => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for Address {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Port)?;
        Self::new(host, port.parse().map_err(|_| EndpointError::Port)?)
    }
}

/// Destination of one dial: a socket address, or a host that the transport takes by name.
///
/// ```
/// use std::net::SocketAddr;
/// use trunkline_route::{Address, Destination};
///
/// let socket: SocketAddr = "[::1]:4370".parse()?;
/// assert_eq!(Destination::from(socket).socket(), Some(socket));
/// let host = Destination::Host(Address::new("db.example.com", 4370)?);
/// assert_eq!((host.to_string(), host.socket()), ("db.example.com:4370".to_owned(), None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// An address of the host and its port. An IPv6 address of one link (`fe80::…`) has its interface.
    Socket(SocketAddr),
    /// The host itself and its port: whatever opens the transport finds its address, or passes the name on.
    Host(Address),
}

impl Destination {
    /// Returns the socket address; `None` for a host.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(socket) => Some(*socket),
            Self::Host(_) => None,
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(socket: SocketAddr) -> Self {
        Self::Socket(socket)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Host(address) => address.fmt(f),
        }
    }
}

/// Address to dial and what is known of the listener: an answer of a resolver, or the target of a direct route.
///
/// ```
/// use trunkline_route::{Address, Endpoint};
///
/// let endpoint = Endpoint { tls: Some(true), ..Endpoint::at(Address::new("10.0.1.50", 4370)?) };
/// assert_eq!(endpoint.version, None);
/// # Ok::<(), trunkline_route::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address to dial.
    pub address: Address,
    /// True if the listener proves a certificate; `None` when unknown.
    pub tls: Option<bool>,
    /// The handshake version it wants; `None` when unknown.
    pub version: Option<Version>,
}

impl Endpoint {
    /// An endpoint of which only the address is known.
    pub fn at(address: Address) -> Self {
        Self { address, tls: None, version: None }
    }
}

/// Fields that a resolver route puts over each answer. `None` leaves the answer's value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointOverride {
    /// Dial this host instead.
    pub host: Option<Host>,
    /// Dial this port instead.
    pub port: Option<NonZeroU16>,
    /// Force certificate checks on or off.
    pub tls: Option<bool>,
    /// Ask for this handshake version.
    pub version: Option<Version>,
}

/// Error returned when a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Neither an IP address nor a well-formed host name.
    #[error("{host:?} is no host; write an IPv4 or IPv6 address or a host name of at most 253 bytes")]
    Host {
        /// The text, cut to 80 characters.
        host: String,
    },
    /// Port 0, none, or not a number up to 65535.
    #[error("a port to dial is a number from 1 to 65535")]
    Port,
}

/// Returns the destinations that stand for one host in the order in which they are to be dialled: the families in turn, that
/// of the first one first (RFC 8305 §4), without repeats and at most `max`.
pub fn interleave(found: Vec<Destination>, max: usize) -> VecDeque<Destination> {
    let is_v6 = |one: &Destination| one.socket().is_some_and(|socket| socket.is_ipv6());
    let first_is_v6 = found.first().is_some_and(is_v6);
    let mut seen = BTreeSet::new();
    let found = found.into_iter().filter(|one| seen.insert(one.clone()));
    let (mut a, mut b): (VecDeque<_>, VecDeque<_>) = found.partition(|one| is_v6(one) == first_is_v6);
    let mut out = VecDeque::new();
    while out.len() < max
        && let Some(one) = a.pop_front()
    {
        out.push_back(one);
        if !b.is_empty() {
            std::mem::swap(&mut a, &mut b);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_literals_are_read_and_printed_in_brackets() {
        assert_eq!(Address::new("::1", 4370).unwrap().to_string(), "[::1]:4370");
        assert_eq!("[::1]:4370".parse::<Address>().unwrap().host.as_str(), "::1");
        assert_eq!("10.0.1.50:4370".parse::<Address>().unwrap().to_string(), "10.0.1.50:4370");
    }

    #[test]
    fn an_ipv6_address_may_have_a_zone() {
        for text in ["fe80::1%eth0", "[fe80::1%eth0]", "FE80:0::1%eth0"] {
            let host = Host::new(text).unwrap();
            assert_eq!((host.as_str(), host.without_zone(), host.ip()), ("fe80::1%eth0", "fe80::1", None));
        }
        let address: Address = "[fe80::1%2]:4370".parse().unwrap();
        assert_eq!(address.to_string(), "[fe80::1%2]:4370");
        assert_eq!(Host::new("db.example.com").unwrap().without_zone(), "db.example.com");
    }

    #[test]
    fn port_zero_cannot_be_dialled() {
        assert_eq!(Address::new("127.0.0.1", 0), Err(EndpointError::Port));
    }

    #[test]
    fn malformed_hosts_are_named() {
        for bad in [
            "",
            "a b",
            "http://x",
            "a@b",
            "[x]",
            "x:y",
            "d\u{200b}b",
            "db%eth0",
            "10.0.0.1%1",
            "fe80::1%",
            "fe80::1%a%b",
        ] {
            assert!(Host::new(bad).is_err(), "{bad:?}");
        }
        assert!(Host::new("3.735.184.8").is_ok(), "well-formed as a name");
    }
}
