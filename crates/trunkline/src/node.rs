use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use trunkline_dial::sessions::ConnectRequest;
use trunkline_dial::{
    AddError, CallError, Candidate, ConnectError, Connection, Drained, Explanation, ImportantError, NoRoute,
    PendingFailback, Reason, RemoveError, RouteEdit, SendError, ServiceNodes, Sessions, ShutDownReport,
};
use trunkline_matcher::PatternIndex;
use trunkline_mesh::Cluster;
use trunkline_process::Pid;
use trunkline_proxy::{AnswerError, CircuitLimits, Proxied, Trace, Transit};
use trunkline_registrar::{Offer, OfferError, Resolver, Serving, check_offers};
use trunkline_route::{
    AnyOf, Cause, IntoName, IntoTarget, NameError, NetworkRoute, NodeName, ProxyRoute, ResolverId, ServiceName, Target,
};
use trunkline_stack::{LinkInfo, LinkStats, Mailbox, RegisterError, Transport};
use trunkline_tls::Reloaded;
use trunkline_wire::gate::GateStats;

use crate::answer::Answer;
use crate::error::AnnounceError;
use crate::events::Events;
use crate::inner::{Handle, Inner};

/// A node: it has a name, reaches other nodes by theirs, and is reached by its own.
///
/// Clones share it. When the last is dropped every task and socket of the node goes as soon as the runtime gets to it;
/// to let peers finish, and to find the addresses free afterwards, call [`Node::shut_down`].
#[derive(Clone)]
pub struct Node {
    pub(crate) handle: Arc<Handle>,
}

/// Status of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Name of the node.
    pub name: NodeName,
    /// Addresses that it listens at.
    pub listening: Vec<SocketAddr>,
    /// Names of the mailboxes, sorted.
    pub mailboxes: Vec<String>,
    /// Live processes, in the order they began.
    pub processes: Vec<Pid>,
    /// Names of the processes that peers may begin here.
    pub spawns: Vec<String>,
    /// Applications, and the processes of those that run.
    pub applications: Vec<(String, Vec<Pid>)>,
    /// Live connections.
    pub connections: usize,
    /// Static routes.
    pub routes: usize,
    /// `Some(true)` when the registrar holds the announcement, `None` without a registrar or when hidden.
    pub registered: Option<bool>,
    /// True if this node serves as the embedded registrar of its host.
    pub serves_registrar: bool,
    /// Questions this node's embedded registrar answered.
    pub registrar_queries: u64,
    /// Connections it passes on between others now.
    pub circuits: usize,
    /// Bytes it has passed on so far.
    pub carried: u64,
    /// Callers before authentication, of all listeners together.
    pub strangers: GateStats,
}

impl Node {
    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    fn sessions(&self) -> &Arc<Sessions> {
        &self.handle.inner.sessions
    }

    /// Returns the name of the node.
    pub fn name(&self) -> &NodeName {
        self.sessions().name()
    }

    /// Returns the addresses that it listens at, in the order given to the builder, with the ports that were free.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.handle.listening
    }

    /// Returns the resolvers that routes and discovery may name, with the node's registrar and its cluster among them. A
    /// program may ask them itself: which nodes there are, and what changes.
    ///
    /// ```
    /// use trunkline::registrar::Change;
    /// use trunkline::{Node, ResolverId};
    ///
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    /// # let registrar = std::net::TcpListener::bind(listen)?.local_addr()?;
    /// let node = Node::builder("db@127.0.0.1")?.cookie("a cookie of some length").listen(listen);
    /// # let node = node.embedded_registrar(registrar);
    /// let node = node.start().await?;
    /// let registrar = &node.resolvers()[&ResolverId::new("embedded")?];
    /// assert_eq!(registrar.nodes().await?[0].name, *node.name());
    /// let mut watch = registrar.watch().ok_or("it tells no changes")?;
    /// assert!(matches!(watch.next().await, Change::Joined(joined) if joined.name == *node.name()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolvers(&self) -> &BTreeMap<ResolverId, Arc<dyn Resolver>> {
        self.inner().sessions.resolvers()
    }

    /// Returns the resolvers that are asked where no route leads to a name, in order. The last one is the node's registrar,
    /// if it has one.
    pub fn discovery(&self) -> &[ResolverId] {
        self.inner().sessions.discovery()
    }

    /// Returns the membership of the node in its cluster; `None` without [`NodeBuilder::cluster`](crate::NodeBuilder::cluster).
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.inner().cluster.as_ref()
    }

    /// Adds a static route. Higher weights are tried earlier; equal ones in the order added.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add_route(&self, pattern: &str, route: impl Into<NetworkRoute>, weight: i64) -> Result<(), AddError> {
        let route = route.into();
        let may_be_better = route.failback().is_some();
        self.sessions().routes().add(pattern, route, weight)?;
        if may_be_better {
            self.sessions().routes_changed();
        }
        Ok(())
    }

    /// Removes the route with exactly this pattern. A live connection stays up; the next attempt does not see the
    /// route any more.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_route(&self, pattern: &str) -> Result<(), RemoveError> {
        self.sessions().routes().remove(pattern)
    }

    /// Adds a proxy route: what is tried when no direct way leads to a name. The table is one of its own.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add_proxy_route(&self, pattern: &str, route: ProxyRoute, weight: i64) -> Result<(), AddError> {
        self.sessions().routes().add_proxy(pattern, route, weight)
    }

    /// Removes the proxy route with exactly this pattern. Live connections stay up.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_proxy_route(&self, pattern: &str) -> Result<(), RemoveError> {
        self.sessions().routes().remove_proxy(pattern)
    }

    /// Edits the proxy routes as [`Node::edit_routes`] does the static ones.
    ///
    /// # Errors
    /// The closure's.
    pub fn edit_proxy_routes<T, E>(
        &self,
        change: impl FnOnce(&mut RouteEdit<'_, ProxyRoute>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.sessions().routes().edit_proxies(change)
    }

    /// Passes this on between others from now on, and so much; what goes through this node already stays. The registrar
    /// is told the names to which this node leads now.
    pub fn set_transit(&self, transit: Transit, limits: CircuitLimits) {
        let leads_to = transit.rules.iter().map(|rule| rule.to.clone()).collect();
        self.inner().gateway.set_transit(transit, limits);
        self.handle.announce_later(|own| own.leads_to = leads_to);
    }

    /// Serves a service with other nodes, as the target `@service` finds them, or changes how: with a weight of 0, no new use
    /// comes. Waits until the registrar knows, or is found to be lost. What the service does is up to the mailboxes and
    /// streams of the node.
    ///
    /// # Errors
    /// [`AnnounceError`]; what is announced stays as it was.
    pub async fn offer(&self, offer: Offer) -> Result<Told, AnnounceError> {
        check_offers(&with(self.offers(), offer.clone()))?;
        Ok(self.handle.announce(|own| own.offers = with(std::mem::take(&mut own.offers), offer)).await?)
    }

    /// Serves a service no more. Returns `None` if the node did not.
    ///
    /// # Errors
    /// [`AnnounceError`]; what is announced stays as it was.
    pub async fn withdraw_offer(&self, service: &ServiceName) -> Result<Option<Told>, AnnounceError> {
        let mut was_there = false;
        let announced = self.handle.announce(|own| {
            let before = own.offers.len();
            own.offers.retain(|known| known.service != *service);
            was_there = own.offers.len() < before;
        });
        if was_there { Ok(Some(announced.await?)) } else { Ok(None) }
    }

    /// Replaces all services that the node serves with others. The registrar is told in the background; a refusal is logged.
    ///
    /// # Errors
    /// [`OfferError`]; what is announced stays as it was.
    pub fn set_offers(&self, offers: Vec<Offer>) -> Result<(), OfferError> {
        let offers = offers.into_iter().fold(Vec::new(), with);
        check_offers(&offers)?;
        self.handle.announce_later(|own| own.offers = offers);
        Ok(())
    }

    /// Returns the services that the node serves with others, by name.
    pub fn offers(&self) -> Vec<Offer> {
        self.handle.own().offers.clone()
    }

    /// Lets these come through others from now on; who is here already stays.
    pub fn set_proxied(&self, proxied: Proxied) {
        self.inner().gateway.set_proxied(proxied);
    }

    /// The proxy routes as they stand, in order.
    pub fn proxy_routes(&self) -> Arc<PatternIndex<ProxyRoute>> {
        self.sessions().routes().proxies()
    }

    /// Takes a route out of use without cutting what runs over it: it is removed, and every connection over it moves to
    /// the best other way there is, keeping the order of its messages. Where there is none the connection stays.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub async fn drain_route(&self, pattern: &str) -> Result<Drained, RemoveError> {
        self.remove_route(pattern)?;
        Ok(self.vacate_route(pattern).await)
    }

    /// The second half of [`Node::drain_route`], for a route that was removed already: moves the connections that were
    /// dialled over it.
    pub async fn vacate_route(&self, pattern: &str) -> Drained {
        self.sessions().vacate(pattern, false).await
    }

    /// Drains a proxy route as [`Node::drain_route`] does a static one: what goes through its gateway by it moves to another way. Streams that are
    /// open stay on the connection that gave way until they end.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub async fn drain_proxy_route(&self, pattern: &str) -> Result<Drained, RemoveError> {
        self.remove_proxy_route(pattern)?;
        Ok(self.vacate_proxy_route(pattern).await)
    }

    /// The second half of [`Node::drain_proxy_route`], for one that was removed already.
    pub async fn vacate_proxy_route(&self, pattern: &str) -> Drained {
        self.sessions().vacate(pattern, true).await
    }

    /// Makes many changes to the static routes at once, or none when the closure fails.
    ///
    /// # Errors
    /// The closure's.
    pub fn edit_routes<T, E>(&self, change: impl FnOnce(&mut RouteEdit<'_>) -> Result<T, E>) -> Result<T, E> {
        let changed = self.sessions().routes().edit(change)?;
        self.sessions().routes_changed();
        Ok(changed)
    }

    /// The static routes as they stand, in order.
    pub fn routes(&self) -> Arc<PatternIndex<NetworkRoute>> {
        self.sessions().routes().snapshot()
    }

    /// The static routes that match a name, best first. Opens nothing and asks nobody.
    ///
    /// # Errors
    /// [`NoRoute`] when none matches.
    pub fn route(&self, name: &NodeName) -> Result<Vec<Candidate>, NoRoute> {
        let found = self.sessions().routes().matching(name);
        if found.is_empty() {
            return Err(NoRoute { target: name.clone(), reason: Reason::NoCandidate, attempts: Vec::new() });
        }
        Ok(found)
    }

    /// Returns what a connect to this name would try, in order, asking nobody.
    ///
    /// # Errors
    /// [`NameError`] when a text is no name.
    pub fn explain(&self, name: impl IntoName) -> Result<Explanation, NameError> {
        Ok(self.sessions().explain(&name.into_name()?))
    }

    /// The connection to a name: the live one if it satisfies the name's best route, else a new one. Concurrent
    /// calls share one dial. Dropping the future takes this caller out; the last one cancels the dial. Of a target
    /// `@service`, one of its nodes is chosen, and the connection stays with that node.
    ///
    /// # Errors
    /// [`ConnectError`], `NoRoute` with every attempt made, and `NoneServes` with what happened at each node.
    pub async fn connect(&self, target: impl IntoTarget) -> Result<Connection, ConnectError> {
        match target.into_target()? {
            Target::Node(name) => self.sessions().connect(name, ConnectRequest::default()).await,
            Target::Any(any) => self.sessions().connect_any(&any, None).await,
        }
    }

    /// Returns the nodes that serve a service, as the next use would try them: those listed by
    /// [`NodeBuilder::service_nodes`](crate::NodeBuilder::service_nodes) and those that the registrars know. Drained ones come
    /// last.
    pub async fn serving(&self, any: &AnyOf) -> Serves {
        let sessions = self.sessions();
        let (nodes, unanswered) = sessions.serving(any, sessions.policy().resolve).await;
        Serves { nodes, unanswered }
    }

    /// Returns the nodes of services that are listed by hand.
    pub fn service_nodes(&self) -> ServiceNodes {
        self.sessions().service_nodes()
    }

    /// Replaces the nodes of services that are listed by hand; see
    /// [`NodeBuilder::service_nodes`](crate::NodeBuilder::service_nodes).
    pub fn set_service_nodes(&self, nodes: ServiceNodes) {
        self.sessions().set_service_nodes(nodes);
    }

    /// Connects as [`Node::connect`] does, as if nothing had failed of late: for a person who just repaired something.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn dial_now(&self, name: impl IntoName) -> Result<Connection, ConnectError> {
        let request = ConnectRequest { afresh: true, ..ConnectRequest::default() };
        self.sessions().connect(name.into_name()?, request).await
    }

    /// Connects as [`Node::connect`] does, in a shorter time than a lookup may take.
    ///
    /// # Errors
    /// As [`Node::connect`].
    pub async fn connect_within(&self, target: impl IntoTarget, timeout: Duration) -> Result<Connection, ConnectError> {
        let request = ConnectRequest { timeout: Some(timeout), ..ConnectRequest::default() };
        match target.into_target()? {
            Target::Node(name) => self.sessions().connect(name, request).await,
            Target::Any(any) => self.sessions().connect_any(&any, Some(timeout)).await,
        }
    }

    /// Connects as [`Node::connect`] does, over this route and no other.
    ///
    /// # Errors
    /// As [`Node::connect`], and [`AddError`] when the route names something the node does not have.
    pub async fn connect_with(
        &self,
        name: impl IntoName,
        route: impl Into<NetworkRoute>,
    ) -> Result<Connection, ConnectError> {
        let route = route.into();
        self.sessions().routes().check(&route)?;
        let request = ConnectRequest { given: Some(route), ..ConnectRequest::default() };
        self.sessions().connect(name.into_name()?, request).await
    }

    /// Connects over a transport that leads to the peer: a Unix socket, a pipe, the stream of another program. One end must
    /// call this, and the other one [`Node::answer`]. The best route of the name, or the node's defaults without one, say what
    /// the connection must prove and offer. A live connection to the name gives way to the new one; when that breaks, the usual
    /// routes are dialled. For the node's own name the transport is dropped, and the result is the connection to itself.
    ///
    /// # Errors
    /// [`ConnectError`], `NoRoute` with the one attempt.
    pub async fn connect_over(
        &self,
        name: impl IntoName,
        over: Transport,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        self.sessions().connect_over(name.into_name()?, over, timeout).await
    }

    /// Answers a caller at the other end of a transport, and returns its connection once that is up. The caller meets the same
    /// demands as one that comes through other nodes, and may have the flags of such a one.
    ///
    /// # Errors
    /// [`AnswerError`] when the caller did not prove who it is, or was sent away.
    pub async fn answer(&self, over: Transport) -> Result<Connection, AnswerError> {
        self.inner().gateway.answer(over).await
    }

    /// Returns the live connection to a name, whoever dialled it; to the node's own name, the one without a socket.
    /// `None` for a text that is no name, too.
    pub fn connection(&self, name: impl IntoName) -> Option<Connection> {
        self.sessions().connection(&name.into_name().ok()?)
    }

    /// Every live connection, sorted by name.
    pub fn nodes(&self) -> Vec<(LinkInfo, LinkStats)> {
        self.sessions().nodes()
    }

    /// The routes that the live connection to a peer is to go back to, best first, and why it has not yet. Empty without a
    /// connection.
    pub fn pending_failbacks(&self, peer: &NodeName) -> Vec<PendingFailback> {
        self.sessions().pending_failbacks(peer)
    }

    /// Makes a mailbox that peers reach by this name. Names that begin with `$` are the node's own.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken or not 1 to 255 bytes, or when the node has shut down.
    pub fn register(&self, mailbox: &str) -> Result<Mailbox, RegisterError> {
        if mailbox.starts_with('$') {
            return Err(RegisterError::Taken { name: mailbox.into() });
        }
        self.sessions().mailboxes().register(mailbox)
    }

    /// Connects if need be and sends a message; see [`Connection::send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send(&self, target: impl IntoTarget, mailbox: &str, body: impl AsRef<[u8]>) -> Result<(), SendError> {
        match target.into_target().map_err(ConnectError::from)? {
            Target::Node(name) => self.sessions().send(&name, mailbox, body.as_ref()).await,
            Target::Any(any) => self.sessions().send_any(&any, mailbox, body.as_ref()).await.map(drop),
        }
    }

    /// Connects if need be, calls a mailbox and waits for its answer, at most `timeout` in all. Of a target `@service` one
    /// node is chosen: by weight, and of equal ones that with the fewest open calls and streams of this node. The next one is
    /// called if the call was not sent, or there is no such mailbox. The answer tells the node.
    ///
    /// # Errors
    /// [`CallError`] says whether the peer may have seen the call.
    pub async fn call(
        &self,
        target: impl IntoTarget,
        mailbox: &str,
        body: impl AsRef<[u8]>,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let (node, body) = match target.into_target().map_err(ConnectError::from)? {
            Target::Node(name) => {
                let body = self.sessions().call(&name, mailbox, body.as_ref(), timeout).await?;
                (name, body)
            }
            Target::Any(any) => self.sessions().call_any(&any, mailbox, body.as_ref(), timeout).await?,
        };
        Ok(Answer { node, body })
    }

    /// Connects if need be and measures one round trip to the peer's node.
    ///
    /// # Errors
    /// [`CallError`]; an answer of any kind is a success.
    pub async fn ping(&self, target: impl IntoTarget, timeout: Duration) -> Result<(Connection, Duration), CallError> {
        let any = match target.into_target().map_err(ConnectError::from)? {
            Target::Node(name) => return self.sessions().ping(name, timeout).await,
            Target::Any(any) => any,
        };
        let pinged = async {
            let connection = self.sessions().connect_any(&any, Some(timeout)).await?;
            self.sessions().ping(connection.info().peer.clone(), timeout).await
        };
        tokio::time::timeout(timeout, pinged).await.unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    /// Connects if need be and sends a message whose outcome is told: `Ok` means that it is in the mailbox, exactly once.
    /// Connections that break are dialled again and the message repeated, until the timeout and as long as the peer's node
    /// lives. At most 1,024 are under way to one peer; others wait. Among those of a pair of names the order is kept in which
    /// they were first sent. Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// [`ImportantError`] says whether it may be there. [`SendError::Unsupported`](crate::SendError::Unsupported)
    /// when the two ends did not agree on the flag `important_delivery`.
    pub async fn send_important(
        &self,
        name: impl IntoName,
        mailbox: &str,
        body: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<(), ImportantError> {
        let name = name.into_name().map_err(|error| SendError::from(ConnectError::from(error)))?;
        self.sessions().send_important(&name, mailbox, body.into(), timeout).await
    }

    /// Looks which way leads to a name: connects as [`Node::connect`] does, and then asks every hop of the way that was
    /// found for the next one and the time between the two. Without a way, those through gateways are looked at all the same,
    /// to see where they end. Gateways treat it as a connection: what they would not pass on, they do not show.
    ///
    /// # Errors
    /// [`ConnectError`] when nothing can be tried at all; that no way leads there is no error.
    pub async fn trace(&self, name: impl IntoName, timeout: Duration) -> Result<Trace, ConnectError> {
        self.inner().gateway.trace(name.into_name()?, timeout).await
    }

    /// Looks at the certificate files now, and gives what changed. Connections that are up stay up. Reads files.
    pub fn reload_certificates(&self) -> Vec<Reloaded> {
        self.inner().look_at_certificates(true)
    }

    /// Returns the events of this node from now on.
    pub fn events(&self) -> Events {
        Events(self.inner().events.subscribe())
    }

    /// Forgets what failed of late: the next lookup tries in the plain order.
    pub fn forget_failures(&self) {
        self.sessions().forget_failures();
    }

    /// Returns the status of the node.
    pub fn status(&self) -> NodeStatus {
        let (inner, embedded) = (self.inner(), &self.handle.embedded);
        let mailboxes = inner.sessions.mailboxes().names();
        NodeStatus {
            name: self.name().clone(),
            listening: self.handle.listening.clone(),
            mailboxes: mailboxes.iter().filter(|name| !name.starts_with('$')).map(ToString::to_string).collect(),
            processes: self.processes(),
            spawns: self.spawns(),
            applications: self.applications(),
            connections: inner.sessions.nodes().len(),
            circuits: inner.gateway.stats().0,
            carried: inner.gateway.stats().1,
            strangers: inner.native.gate_stats(),
            routes: inner.sessions.routes().snapshot().len(),
            registered: self.handle.lease().as_ref().filter(|_| !self.handle.is_hidden).map(|lease| lease.is_held()),
            serves_registrar: embedded.as_ref().is_some_and(|e| e.serves()),
            registrar_queries: embedded.as_ref().map_or(0, |e| e.queries()),
        }
    }

    /// Leaves: the announcement is taken back, nobody new is let in, both ends of every connection finish what is
    /// queued and the calls under way; what has not finished within `grace` is cut.
    pub async fn shut_down(self, grace: Duration) -> ShutDownReport {
        let inner = self.inner();
        inner.sessions.leave();
        let lease = self.handle.end_lease();
        let withdrawn = async {
            if let Some(lease) = lease {
                lease.withdraw().await;
            }
        };
        let mut listeners = std::mem::take(&mut *self.handle.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        // Waited for, so that the addresses are free when this returns.
        listeners.shutdown().await;
        let ((), report) = tokio::join!(withdrawn, inner.sessions.shut_down(grace));
        inner.processes.stop_all();
        inner.sessions.close();
        inner.services.withdraw_all();
        inner.sessions.last_words().await;
        report
    }
}

/// Outcome of a change of what a node announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// The registrar knows.
    Now,
    /// The registrar is lost, and is told once it is back. Until then it says what it knew.
    Later,
    /// No registrar is told: the node has none, or is hidden.
    Nobody,
}

/// Returns the offers with this one in place of the one of the same service, by service.
pub(crate) fn with(mut offers: Vec<Offer>, offer: Offer) -> Vec<Offer> {
    offers.retain(|known| known.service != offer.service);
    offers.push(offer);
    offers.sort_by(|a, b| a.service.cmp(&b.service));
    offers
}

/// Nodes that serve a service; see [`Node::serving`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serves {
    /// Nodes in the order to try, those that are drained at the end, each with the number of calls and streams of this node that are open there.
    pub nodes: Vec<(Serving, usize)>,
    /// Resolvers that did not answer, and the reasons.
    pub unanswered: Vec<(ResolverId, Cause)>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", self.name()).field("listening", &self.listening()).finish_non_exhaustive()
    }
}
