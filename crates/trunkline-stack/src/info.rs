use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use trunkline_route::{
    AtomMapping, Cookie, Incarnation, LinkId, LogLevel, NodeName, PeerFlags, ResolverId, Role, TlsMode, Version,
};

/// Address of the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAddress {
    /// A TCP address.
    Socket(SocketAddr),
    /// A pipe in the memory of this process.
    Memory,
    /// A Unix socket.
    Unix,
}

impl PeerAddress {
    /// Returns the socket address; `None` without one.
    pub fn socket(&self) -> Option<SocketAddr> {
        if let Self::Socket(address) = self { Some(*address) } else { None }
    }

    /// Returns the IP address; `None` without one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket().map(|address| address.ip())
    }

    /// Returns the IP address that limits per address count this peer for: its own, and the unspecified one (`::`) for all
    /// peers without.
    pub fn counted_ip(&self) -> IpAddr {
        self.ip().unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl PartialEq<SocketAddr> for PeerAddress {
    fn eq(&self, other: &SocketAddr) -> bool {
        matches!(self, Self::Socket(address) if address == other)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Memory => f.write_str("memory"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Facts about a link that its handshake established.
///
/// The node decides by some of them: by `id`, `epoch`, `incarnation` and `role` which link of a pair is kept, and by
/// `cookie`, `tls`, `via`, `route`, `resolver`, `role` and the protocol of `version` whether the link satisfies a route.
///
/// A stack fills them in at the initiator with `cookie` and `tls` of the attempt, and `route`, `resolver`, `log_level` and
/// `mapping` of its policy. At the responder `cookie` is the one that the caller proved, `tls` is
/// [`TlsMode::CookieOnly`], and the policy is that of [`Caller::accept`](crate::Caller::accept). `mapping` is `None` from
/// a stack that does not replace names.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// Proven name of the other end.
    pub peer: NodeName,
    /// Incarnation of the other end.
    pub incarnation: Incarnation,
    /// Identifier of the link, the same at both ends.
    pub id: LinkId,
    /// Sequence number of this link among all links between the two node instances, starting at 1.
    pub epoch: u64,
    /// Role of this end.
    pub role: Role,
    /// Handshake version: protocol and number, `TLK/1` for the native link.
    pub version: Version,
    /// Address of the other end; for a link through other nodes, the address of the first of them.
    pub address: PeerAddress,
    /// First node of the way, if the link goes through other nodes.
    pub via: Option<NodeName>,
    /// Check of the other end's certificate that this end made when it dialled.
    pub tls: TlsMode,
    /// True if the other end dialled and showed a certificate that an authority of the listener (`client_ca`) issued.
    pub caller_certified: bool,
    /// Cookie that both ends proved.
    pub cookie: Cookie,
    /// Flags that both ends agreed on.
    pub flags: PeerFlags,
    /// Level of the log lines about this link.
    pub log_level: LogLevel,
    /// Pattern of the route whose policy applies; `None` if no route matches the name.
    pub route: Option<Arc<str>>,
    /// Resolver that gave the address, if one was asked.
    pub resolver: Option<ResolverId>,
    /// Atom mapping of the link.
    pub mapping: Option<Arc<AtomMapping>>,
    /// Software of the other end, in its own words.
    pub software: String,
}

impl LinkInfo {
    /// Returns the facts about the link of a node to itself: version `LOCAL/1`, every flag agreed on, no mapping.
    pub fn local(name: NodeName, incarnation: impl Into<Incarnation>, cookie: Cookie) -> Self {
        let incarnation = incarnation.into();
        Self {
            peer: name,
            incarnation,
            id: LinkId::new(incarnation.to_bytes()),
            epoch: 1,
            role: Role::Initiator,
            version: Version::new("LOCAL", 1).expect("the protocol is five capital letters"),
            address: PeerAddress::Memory,
            via: None,
            tls: TlsMode::CookieOnly,
            caller_certified: false,
            cookie,
            flags: PeerFlags::ALL,
            log_level: LogLevel::Info,
            route: None,
            resolver: None,
            mapping: None,
            software: concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Returns true if lines of this level are written about the link.
    #[inline]
    pub fn logs(&self, level: LogLevel) -> bool {
        level <= self.log_level
    }

    /// Returns the route as log lines name it; `none` without one.
    pub fn route_name(&self) -> &str {
        self.route.as_deref().unwrap_or("none")
    }

    /// Returns what proved the other end besides the cookie, for people: `certificate` for a caller that showed one, else
    /// how this end checked the other's.
    pub fn proof(&self) -> String {
        if self.caller_certified { "certificate".into() } else { self.tls.to_string() }
    }

    /// Returns the first eight hexadecimal digits of the id, for people.
    pub fn short_id(&self) -> String {
        self.id.to_string()[..8].to_owned()
    }
}

impl fmt::Debug for LinkInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkInfo")
            .field("peer", &self.peer)
            .field("id", &self.short_id())
            .field("epoch", &self.epoch)
            .field("role", &self.role)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Counters of a link since it is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Messages, calls and answers sent.
    pub messages_out: u64,
    /// Messages, calls and answers received.
    pub messages_in: u64,
    /// Bytes written to the transport.
    pub bytes_out: u64,
    /// Bytes read from the transport.
    pub bytes_in: u64,
    /// Messages that named no registered mailbox and were dropped.
    pub undeliverable: u64,
    /// Last round trip in microseconds; 0 before the first.
    pub round_trip_us: u64,
    /// Microseconds since the last bytes of the peer arrived; 0 where the stack does not tell it.
    pub silent_us: u64,
    /// Streams that are open.
    pub streams: u64,
}
