use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use trunkline_dial::ServiceNodes;
use trunkline_dial::plan::Policy;
use trunkline_link::{DialTimes, KeepAlive, NativeLimits, random_16};
use trunkline_matcher::AccessPattern;
use trunkline_proxy::{CircuitLimits, Proxied, Transit};
use trunkline_registrar::{Offer, Registrar, Resolver};
use trunkline_registrar_embedded::Grants;
use trunkline_route::{
    Address, Cookie, CookieError, Cookies, Fallback, Flag, Incarnation, LogLevel, NetworkRoute, NodeName, PeerFlags,
    ProxyRoute, Reconnect, ResolverId, TlsProfileId, Version,
};
use trunkline_stack::{Answering, Listening, Stack};
use trunkline_tls::{CHECK, ProfileSource, ServerSource};

use crate::error::{ListenError, StartError};
use crate::node::with;

/// One listening socket of a node.
#[derive(Debug, Clone)]
pub struct Listen {
    pub(crate) address: SocketAddr,
    pub(crate) advertise: Option<Address>,
    pub(crate) tls: ServerSource,
    pub(crate) cookie: Option<Cookies>,
    pub(crate) allow: Option<Vec<AccessPattern>>,
}

impl Listen {
    /// Listens there; port 0 takes a free one.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, advertise: None, tls: ServerSource::Ephemeral, cookie: None, allow: None }
    }

    /// Announces another address than the one bound: that of a port forwarding, say.
    pub fn advertise(mut self, address: Address) -> Self {
        self.advertise = Some(address);
        self
    }

    /// Shows a certificate, which callers with `tls: true` verify, and demands one of them if told so. An
    /// [`Identity`](crate::Identity) or a [`ServerProfile`](crate::ServerProfile) stays as it is,
    /// [`ServerFiles`](crate::ServerFiles) are followed. Default: a fresh self-signed one.
    pub fn tls(mut self, source: impl Into<ServerSource>) -> Self {
        self.tls = source.into();
        self
    }

    /// Demands this cookie of callers, or one of several, instead of the node's.
    pub fn cookie(mut self, cookie: impl Into<Cookies>) -> Self {
        self.cookie = Some(cookie.into());
        self
    }

    /// Lets in only callers whose whole name matches one of these. Default: every name.
    pub fn allow(mut self, names: Vec<AccessPattern>) -> Self {
        self.allow = Some(names);
        self
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::at(address)
    }
}

impl TryFrom<&str> for Listen {
    type Error = ListenError;

    fn try_from(address: &str) -> Result<Self, ListenError> {
        let listen = address.parse::<SocketAddr>().map(Self::at);
        listen.map_err(|cause| ListenError { address: address.chars().take(64).collect(), cause })
    }
}

/// Registrar of a node.
pub(crate) enum RegistrarChoice {
    Embedded { listen: SocketAddr, serve: bool },
    None,
    Own(ResolverId, Arc<dyn Registrar>),
}

/// Membership in a cluster.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) name: String,
    pub(crate) routes: Vec<Address>,
    pub(crate) is_leaf: bool,
}

/// Builds a [`Node`](crate::Node); see [`Node::builder`](crate::Node::builder).
#[must_use = "a builder does nothing until start()"]
pub struct NodeBuilder {
    pub(crate) name: NodeName,
    pub(crate) cookie: Option<Cookies>,
    pub(crate) listen: Vec<Listen>,
    pub(crate) routes: Vec<(String, NetworkRoute, i64)>,
    pub(crate) proxy_routes: Vec<(String, ProxyRoute, i64)>,
    pub(crate) transit: Transit,
    pub(crate) proxied: Proxied,
    pub(crate) circuits: CircuitLimits,
    /// `None`: the embedded one at its default address, unless resolvers for discovery are named.
    pub(crate) registrar: Option<RegistrarChoice>,
    /// Resolvers that are asked before the registrar, in order.
    pub(crate) discovery: Vec<ResolverId>,
    /// The first argument that cannot be used; [`NodeBuilder::start`] returns it.
    pub(crate) refused: Option<StartError>,
    pub(crate) resolvers: BTreeMap<ResolverId, Arc<dyn Resolver>>,
    pub(crate) registrars: Vec<(ResolverId, Address, Option<Cookie>)>,
    /// Services that the node serves with others, by name.
    pub(crate) offers: Vec<Offer>,
    pub(crate) service_nodes: ServiceNodes,
    pub(crate) grants: Grants,
    pub(crate) profiles: BTreeMap<TlsProfileId, ProfileSource>,
    pub(crate) certificate_check: Duration,
    pub(crate) peers: Vec<(AccessPattern, Cookies)>,
    pub(crate) policy: Policy,
    pub(crate) times: DialTimes,
    pub(crate) limits: NativeLimits,
    pub(crate) tls: bool,
    pub(crate) version: Version,
    pub(crate) flags: PeerFlags,
    pub(crate) log_level: LogLevel,
    pub(crate) reconnect: Reconnect,
    pub(crate) hidden: bool,
    pub(crate) incarnation: Incarnation,
    pub(crate) stacks: Vec<Arc<dyn Stack>>,
    pub(crate) listeners: Vec<Box<dyn Listening>>,
    pub(crate) answering: Option<Arc<dyn Answering>>,
    pub(crate) cluster: Option<Membership>,
    pub(crate) cluster_book: Option<PathBuf>,
}

impl NodeBuilder {
    pub(crate) fn new(name: NodeName) -> Self {
        Self {
            name,
            cookie: None,
            listen: Vec::new(),
            routes: Vec::new(),
            proxy_routes: Vec::new(),
            transit: Transit::default(),
            proxied: Proxied::default(),
            circuits: CircuitLimits::default(),
            registrar: None,
            discovery: Vec::new(),
            refused: None,
            resolvers: BTreeMap::new(),
            registrars: Vec::new(),
            offers: Vec::new(),
            service_nodes: ServiceNodes::new(),
            grants: Grants::default(),
            profiles: BTreeMap::new(),
            certificate_check: CHECK,
            peers: Vec::new(),
            policy: Policy::default(),
            times: DialTimes::default(),
            limits: NativeLimits::default(),
            tls: false,
            version: Version::native(1),
            flags: PeerFlags::ALL,
            log_level: LogLevel::default(),
            reconnect: Reconnect::default(),
            hidden: false,
            incarnation: random_16().into(),
            stacks: Vec::new(),
            listeners: Vec::new(),
            answering: None,
            cluster: None,
            cluster_book: None,
        }
    }

    /// Makes the node a member of the cluster of this name, 1 to 64 bytes. Routes are hosts and ports at which members are
    /// found, and may be empty: one route that ties a node to the cluster is enough, whoever has it. Every member is
    /// connected to every other one, and a connection that is lost is dialled again for ever. All members have the cookie
    /// of the node. A name that cannot be used is an error of [`NodeBuilder::start`].
    pub fn cluster(mut self, name: impl Into<String>, routes: impl IntoIterator<Item = Address>) -> Self {
        self.cluster = Some(Membership { name: name.into(), routes: routes.into_iter().collect(), is_leaf: false });
        self
    }

    /// Makes the node a leaf of the cluster of this name: it keeps one connection, to a node that a route leads to, and takes
    /// another one when that is lost. It reaches the other members, and they reach it, through the member at the other end.
    pub fn cluster_leaf(mut self, name: impl Into<String>, routes: impl IntoIterator<Item = Address>) -> Self {
        self.cluster = Some(Membership { name: name.into(), routes: routes.into_iter().collect(), is_leaf: true });
        self
    }

    /// Keeps the members of the cluster that this node was connected to in a file, and dials them when it is started again.
    /// Members without a connection for 7 days are forgotten. A leaf keeps none. Default: all are forgotten when the node ends.
    pub fn cluster_book(mut self, path: impl Into<PathBuf>) -> Self {
        self.cluster_book = Some(path.into());
        self
    }

    /// Sets the secret shared with the nodes that this one may talk to: a [`Cookie`], or its text. Required. While it is
    /// replaced there are two: the current one, which is proven to others, and the old one, which is accepted as well. A text
    /// that is not a cookie is an error of [`NodeBuilder::start`].
    pub fn cookie(mut self, cookie: impl TryInto<Cookies, Error: Into<CookieError>>) -> Self {
        match cookie.try_into() {
            Ok(cookies) => self.cookie = Some(cookies),
            Err(error) => self.refuse(StartError::Cookie(error.into())),
        }
        self
    }

    /// Adds a listener: a [`Listen`], a socket address, or the text of one (`127.0.0.1:4370`). Without any, the node only
    /// dials. A text that is not a socket address is an error of [`NodeBuilder::start`].
    pub fn listen(mut self, listen: impl TryInto<Listen, Error: Into<ListenError>>) -> Self {
        match listen.try_into() {
            Ok(listen) => self.listen.push(listen),
            Err(error) => self.refuse(StartError::ListenAddress(error.into())),
        }
        self
    }

    fn refuse(&mut self, error: StartError) {
        self.refused.get_or_insert(error);
    }

    /// Sets the registrar. A registrar that was named before is not replaced: [`NodeBuilder::start`] returns an error.
    fn choose(mut self, registrar: RegistrarChoice) -> Self {
        if matches!(self.registrar, Some(RegistrarChoice::Embedded { .. } | RegistrarChoice::Own(..))) {
            self.refuse(StartError::RegistrarConflict);
        }
        self.registrar = Some(registrar);
        self
    }

    /// Adds a static route.
    pub fn route(mut self, pattern: impl Into<String>, route: impl Into<NetworkRoute>, weight: i64) -> Self {
        self.routes.push((pattern.into(), route.into(), weight));
        self
    }

    /// Serves and asks the embedded registrar at this address. The default, at 127.0.0.1:4499. A node has one registrar:
    /// naming another one as well is an error of [`NodeBuilder::start`].
    pub fn embedded_registrar(self, listen: SocketAddr) -> Self {
        self.choose(RegistrarChoice::Embedded { listen, serve: true })
    }

    /// Asks the embedded registrar at this address but never serves it: for short-lived nodes.
    pub fn embedded_registrar_client(self, listen: SocketAddr) -> Self {
        self.choose(RegistrarChoice::Embedded { listen, serve: false })
    }

    /// Announces to and asks this registrar instead of the embedded one.
    pub fn registrar(self, id: ResolverId, registrar: Arc<dyn Registrar>) -> Self {
        self.choose(RegistrarChoice::Own(id, registrar))
    }

    /// Turns the default registrar off: the node announces itself nowhere and asks only the resolvers named by
    /// [`NodeBuilder::discovery`].
    pub fn no_registrar(self) -> Self {
        self.choose(RegistrarChoice::None)
    }

    /// Adds a resolver that is asked for names that no static route leads to. Resolvers are asked in the order added, and
    /// before the registrar. The first one turns the default registrar off; a registrar that was named stays.
    pub fn discovery(mut self, id: ResolverId) -> Self {
        if !self.discovery.contains(&id) {
            self.discovery.push(id);
        }
        self
    }

    /// Lets routes ask the embedded registrar at this address, by this id. It proves this cookie, or the node's.
    pub fn registrar_at(mut self, id: ResolverId, address: Address, cookie: Option<Cookie>) -> Self {
        self.registrars.push((id, address, cookie));
        self
    }

    /// Lets routes ask this resolver, by its id.
    pub fn resolver(mut self, id: ResolverId, resolver: Arc<dyn Resolver>) -> Self {
        self.resolvers.insert(id, resolver);
        self
    }

    /// Lets routes use this TLS profile, by its id. A [`TlsProfile`](crate::TlsProfile) stays as it is,
    /// [`ProfileFiles`](crate::ProfileFiles) are followed.
    pub fn tls_profile(mut self, id: TlsProfileId, profile: impl Into<ProfileSource>) -> Self {
        self.profiles.insert(id, profile.into());
        self
    }

    /// Sets the interval at which certificate files are looked at, 1 ms at least. A change is taken up when two looks in a row see
    /// the same. Default 5 s.
    pub fn certificate_check(mut self, every: Duration) -> Self {
        self.certificate_check = every.max(Duration::from_millis(1));
        self
    }

    /// Demands this cookie, or one of several, of callers whose whole name matches, and of nobody else. The first match
    /// holds.
    pub fn peer(mut self, names: AccessPattern, cookie: impl Into<Cookies>) -> Self {
        self.peers.push((names, cookie.into()));
        self
    }

    /// Adds a proxy route; see [`Node::add_proxy_route`](crate::Node::add_proxy_route).
    pub fn proxy_route(mut self, pattern: impl Into<String>, route: ProxyRoute, weight: i64) -> Self {
        self.proxy_routes.push((pattern.into(), route, weight));
        self
    }

    /// Sets the rules of what this node passes on between others. Default: nothing.
    pub fn transit(mut self, transit: Transit) -> Self {
        self.transit = transit;
        self
    }

    /// Sets who may come to this node through others, and with which flags. Default: who proves the cookie and may come by
    /// every listener. Such callers meet the TLS demands of the listener that demands most of its callers' certificates.
    pub fn proxied(mut self, proxied: Proxied) -> Self {
        self.proxied = proxied;
        self
    }

    /// Sets the limits of what this node passes on. Default: 1,024 connections, 64 of one neighbour, 10 new ones of it a second.
    pub fn circuit_limits(mut self, limits: CircuitLimits) -> Self {
        self.circuits = limits;
        self
    }

    /// Sets when a lookup goes on after the static routes. Default: also when all of them failed.
    pub fn fallback(mut self, fallback: Fallback) -> Self {
        self.policy.fallback = fallback;
        self
    }

    /// The times and bounds of a lookup.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The times of one dial.
    pub fn times(mut self, times: DialTimes) -> Self {
        self.times = times;
        self
    }

    /// Watches peers by these times where a route does not say otherwise: a ping after 5 s of silence, the end after 15 s by
    /// default. A part of [`NodeBuilder::limits`].
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.limits.keep_alive = keep_alive;
        self
    }

    /// The limits of links and of strangers.
    pub fn limits(mut self, limits: NativeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether routes that say nothing verify certificates. Default: no, the cookie proves the peer.
    pub fn tls(mut self, on: bool) -> Self {
        self.tls = on;
        self
    }

    /// The handshake version of routes that say nothing. Default: `TLK/1`.
    pub fn handshake(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Offers this flag over connections whose route does not mention it, or does not. Default: every flag is offered.
    pub fn flag(mut self, flag: Flag, on: bool) -> Self {
        self.flags = self.flags.with(flag, on);
        self
    }

    /// Says this much about connections whose route does not mention it: lines with the target
    /// [`CONNECTION_TARGET`](crate::CONNECTION_TARGET). Default: `info`.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = level;
        self
    }

    /// Sets what happens to a connection that goes down when its route does not say. Default: the next caller that needs it
    /// dials it.
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = policy;
        self
    }

    /// Sets what this node permits others and hands out to them while it serves as the embedded registrar. Default: any
    /// announcement, and no routes.
    pub fn registrar_grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self
    }

    /// Serves a service with other nodes: the target `@service` finds those that are announced. An offer of a service replaces
    /// the one before.
    pub fn offer(mut self, offer: Offer) -> Self {
        self.offers = with(self.offers, offer);
        self
    }

    /// Lists nodes that serve services by hand. For the target `@service` they come beside those that registrars know; of a
    /// node in both, this entry counts.
    pub fn service_nodes(mut self, nodes: ServiceNodes) -> Self {
        self.service_nodes = nodes;
        self
    }

    /// Asks the registrar but does not announce itself.
    pub fn hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }

    /// Returns the instance of the node that starts: all stacks of a node show their peers the same one.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Adds a network stack, which dials the attempts whose version names its protocol. The native stack, `TLK`, is always
    /// there; another one of its protocol dials in its place.
    pub fn stack(mut self, stack: Arc<dyn Stack>) -> Self {
        self.stacks.push(stack);
        self
    }

    /// Adds a listener of a stack that was added. [`NodeBuilder::listen`] adds those of the native stack.
    pub fn listener(mut self, listener: Box<dyn Listening>) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Has another stack than the native one answer the callers that come through other nodes and those of
    /// [`Node::answer`](crate::Node::answer). Which names it lets in is its own matter: no list of allowed names is asked.
    pub fn answering(mut self, answering: Arc<dyn Answering>) -> Self {
        self.answering = Some(answering);
        self
    }
}
