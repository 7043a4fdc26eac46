//! The dialling side: what a lookup's steps mean with the native link.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use trunkline_dial::exec::Ports;
use trunkline_dial::pair::{FlightId, LinkRef};
use trunkline_dial::plan::FoundGateway;
use trunkline_dial::sessions::{ConnectRequest, Up};
use trunkline_dial::{AttemptError, Record, SessionLink};
use trunkline_link::{DialError, Dialed, Hooks};
use trunkline_registrar::Resolver;
use trunkline_route::{Attempt, Chain, CloseCode, Endpoint, Host, NodeName, ProxyRoute, RejectCode, ResolverId};
use trunkline_stack::Link;
use trunkline_tls::{ClientTls, TlsError};
use trunkline_wire::handshake::{HandshakeError, Mode};

use crate::connection::Session;
use crate::events::Event;
use crate::inner::{Inner, hold_for, now};
use crate::peer_log::log_peer;

/// How long a replaced link waits for the peer to hear from the new one.
const UNHEARD: Duration = Duration::from_secs(5);

/// One flight's view of the node.
pub(crate) struct NodePorts {
    pub(crate) node: Arc<Inner>,
    pub(crate) flight: FlightId,
    /// A live link is up that does not satisfy the route.
    pub(crate) replace: bool,
    /// The connection is to leave where it is, and the other node of its name with it, if the route leads to another one.
    pub(crate) leaves: bool,
}

impl Ports for NodePorts {
    type Link = Session;

    async fn resolve(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        resolve(&self.node, &resolver, &target).await
    }

    async fn lookup(&self, host: Host) -> Result<Vec<IpAddr>, AttemptError> {
        lookup(&self.node, &host).await
    }

    async fn gateways(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<FoundGateway>, AttemptError> {
        let node = &self.node;
        let asked = asked(node, &resolver)?;
        let found = asked.gateways(&target).await.map_err(|error| AttemptError::Resolve(Chain(&error).to_string()))?;
        let found = found.into_iter().filter(|name| *name != node.name).map(|name| {
            let live = node.registry.get(&name);
            let is_live = live.is_some_and(|live| node.satisfies(&name, &ConnectRequest::default(), &live));
            FoundGateway { name, is_live }
        });
        Ok(found.collect())
    }

    async fn connect(&self, attempt: Attempt, socket: SocketAddr) -> Result<(NodeName, Session), AttemptError> {
        let node = &self.node;
        let tls = client_tls(node, &attempt)?;
        let socket = zoned(node, &attempt.address.host, socket).await;
        let dialed = node.native.dial(socket, &attempt, Mode::Node, &tls, node.times).await;
        self.go_for_it(dialed.map_err(|error| attempt_error(error, node.listens_at(socket)))?).await
    }

    async fn relay(&self, route: ProxyRoute, attempt: Attempt) -> Result<(NodeName, Session), AttemptError> {
        let node = &self.node;
        let tls = client_tls(node, &attempt)?;
        let stream = node.through(&route, &attempt).await?;
        let dialed = node.native.dial_through(stream, &attempt, &tls, node.times).await;
        self.go_for_it(dialed.map_err(|error| attempt_error(error, false))?).await
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        observe(&self.node, attempt, failure);
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        if matches!(record.error, AttemptError::Tls(_) | AttemptError::WrongCookie) {
            log_peer!(self.node, target, WARN, "attempt failed", %target, %record);
        } else {
            tracing::debug!(%target, %record, "attempt failed");
        }
        self.node.emit(Event::AttemptFailed { target: target.clone(), record: record.clone() });
    }
}

impl NodePorts {
    /// The peer is proven: has the link come up, if it may.
    async fn go_for_it(&self, dialed: Dialed) -> Result<(NodeName, Session), AttemptError> {
        let node = &self.node;
        let verified = dialed.verified().clone();
        let namesake = node.registry.get(&verified.name);
        if let Some(live) = namesake.filter(|live| live.link.info().incarnation != verified.incarnation)
            && !self.leaves
            && live.keeps_name().await
        {
            return Err(AttemptError::NameInUse("this node is connected to it".into()));
        }
        let ticket =
            node.registry.may_finish(&verified.name, self.flight, verified.link_id, verified.incarnation, self.replace);
        let Some(ticket) = ticket else {
            return Err(AttemptError::Adopted);
        };
        let standing = dialed.finish(ticket.claims()).await.map_err(|error| attempt_error(error, false))?;
        // From here to the end nothing is awaited: the link is up, or it never was.
        let info = standing.info().clone();
        let link = LinkRef { id: info.id, epoch: info.epoch, incarnation: info.incarnation, dialled: true };
        let Some(Up { replaced: old, elders }) = node.registry.accepted(&info.peer, self.flight, link) else {
            return Err(AttemptError::Adopted);
        };
        let survivor = old.as_ref().filter(|(_, retire)| retire.alive).map(|(live, _)| live);
        let left = old.as_ref().filter(|(_, retire)| self.leaves && !retire.alive).map(|(live, _)| live);
        let hooks = Hooks { hold: hold_for(elders), on_down: Some(node.on_down(info.clone())), on_first_frame: None };
        let (link, driver) = standing.start(node.mailboxes.clone(), hooks);
        // The responder's end is provisional until it hears from us.
        link.ping();
        let live = Session::new(link);
        live.take_place(survivor.or(left));
        if !node.registry.install(&info.peer, live.clone()) {
            // An inbound link came up in between: who holds the connection is to use that one.
            if let Some(current) = node.registry.get(&info.peer) {
                live.slot().switch(current.link);
            }
            return Err(AttemptError::Adopted);
        }
        node.up(&info, old.as_ref());
        node.spawn(driver);
        if let Some(left) = left {
            node.drains(left);
            left.retire(true);
        } else if let Some((old, retire)) = old {
            match retire.alive {
                true => node.spawn(retire_after(old, live.link.clone())),
                false => old.retire(false),
            }
        }
        Ok((info.peer, live))
    }
}

/// A lookup that only sees whether its candidate answers.
pub(crate) struct Probe {
    pub(crate) node: Arc<Inner>,
}

impl Ports for Probe {
    type Link = ();

    async fn resolve(&self, resolver: ResolverId, target: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        resolve(&self.node, &resolver, &target).await
    }

    async fn lookup(&self, host: Host) -> Result<Vec<IpAddr>, AttemptError> {
        lookup(&self.node, &host).await
    }

    async fn connect(&self, attempt: Attempt, socket: SocketAddr) -> Result<(NodeName, ()), AttemptError> {
        let node = &self.node;
        let tls = client_tls(node, &attempt)?;
        let socket = zoned(node, &attempt.address.host, socket).await;
        let proven = node.native.probe(socket, &attempt, &tls, node.times).await;
        Ok((proven.map_err(|error| attempt_error(error, node.listens_at(socket)))?, ()))
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        observe(&self.node, attempt, failure);
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        tracing::debug!(%target, %record, "a probe failed");
    }
}

fn asked<'n>(node: &'n Inner, resolver: &ResolverId) -> Result<&'n Arc<dyn Resolver>, AttemptError> {
    let found = node.resolvers.get(resolver);
    found.ok_or_else(|| AttemptError::Resolve(format!("there is no resolver {resolver}")))
}

async fn resolve(node: &Inner, resolver: &ResolverId, target: &NodeName) -> Result<Vec<Endpoint>, AttemptError> {
    let asked = asked(node, resolver)?;
    asked.resolve(target).await.map_err(|error| AttemptError::Resolve(Chain(&error).to_string()))
}

async fn lookup(node: &Inner, host: &Host) -> Result<Vec<IpAddr>, AttemptError> {
    let found = node.native.names().lookup(host.as_str()).await;
    found.map_err(|error| AttemptError::Dns(format!("{host}: {error}")))
}

/// Returns the socket with the interface that the host's address belongs to: a plan knows addresses only, and an IPv6
/// address of one link (`fe80::…`) leads nowhere without.
async fn zoned(node: &Inner, host: &Host, socket: SocketAddr) -> SocketAddr {
    let IpAddr::V6(ip) = socket.ip() else { return socket };
    if !ip.is_unicast_link_local() {
        return socket;
    }
    let found = node.native.names().addresses(host.as_str(), socket.port()).await;
    found.into_iter().flatten().find(|found| found.ip() == socket.ip()).unwrap_or(socket)
}

fn client_tls(node: &Inner, attempt: &Attempt) -> Result<ClientTls, AttemptError> {
    let tls = node.client_tls(attempt.tls.profile(), &attempt.tls);
    tls.map_err(|e: TlsError| AttemptError::Local(Chain(&e).to_string()))
}

fn observe(node: &Inner, attempt: &Attempt, failure: Option<&AttemptError>) {
    let mut memory = node.memory();
    match failure {
        Some(error) => memory.failed(now(), attempt, error),
        None => memory.succeeded(attempt),
    }
}

/// Ends a replaced link once the peer has: it does so when it heard from the new one. Before, it would see its only
/// link drain.
async fn retire_after(old: Session, new: Link) {
    tokio::select! {
        () = old.link.inbound_done() => {}
        _ = new.closed() => {}
        () = tokio::time::sleep(UNHEARD) => {}
    }
    old.retire(true);
}

/// What the listener says before it is proven is advice: it leads to the next candidate and to nothing else. That the
/// address is this node's own is believed only of one it listens at.
fn attempt_error(error: DialError, own_address: bool) -> AttemptError {
    match error {
        DialError::Handshake(HandshakeError::Closed { code, text }) => match code {
            CloseCode::Duplicate | CloseCode::LostTie => AttemptError::Adopted,
            CloseCode::Flags => AttemptError::Flags(format!("the peer refused: {text}")),
            CloseCode::NameInUse => AttemptError::NameInUse("the peer still talks to it".into()),
            code => AttemptError::Rejected(HandshakeError::Closed { code, text }.to_string()),
        },
        DialError::Handshake(HandshakeError::Rejected { code: RejectCode::Myself, .. }) if own_address => {
            AttemptError::Myself
        }
        DialError::Handshake(error @ (HandshakeError::Rejected { .. } | HandshakeError::Version { .. })) => {
            AttemptError::Rejected(error.to_string())
        }
        DialError::Handshake(HandshakeError::WrongCookie) => AttemptError::WrongCookie,
        DialError::Handshake(HandshakeError::WrongName { actual, .. }) => AttemptError::WrongName { actual },
        DialError::Flags(error) => AttemptError::Flags(error.to_string()),
        error @ DialError::UnknownVersion(..) => AttemptError::Version(error.to_string()),
        DialError::Handshake(error) => AttemptError::Handshake(error.to_string()),
        DialError::HandshakeEnded => AttemptError::Handshake("the peer closed in the middle".into()),
        DialError::HandshakeTimeout(after) => AttemptError::HandshakeTimeout(after),
        DialError::Tcp(error) if is_local(&error) => AttemptError::Local(error.to_string()),
        DialError::Tcp(error) => AttemptError::Tcp(error.to_string()),
        DialError::TcpTimeout(after) => AttemptError::TcpTimeout(after),
        DialError::TlsTimeout(after) => AttemptError::TlsTimeout(after),
        // The name may be of this address alone.
        DialError::TlsConfig(error @ TlsError::ServerName(_)) => AttemptError::Tls(Chain(&error).to_string()),
        DialError::TlsConfig(error) => AttemptError::Local(Chain(&error).to_string()),
        error => AttemptError::Tls(error.to_string()),
    }
}

/// Out of file descriptors, of this process (24) or the machine (23): no other candidate would fare better.
fn is_local(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unproven_listener_says_leads_to_the_next_candidate() {
        for code in [RejectCode::Myself, RejectCode::Version, RejectCode::Throttled, RejectCode::Refused] {
            let rejected = HandshakeError::Rejected { code, retry_after_ms: 0, text: String::new() };
            let error = attempt_error(DialError::Handshake(rejected), false);
            assert!(matches!(error, AttemptError::Rejected(_)), "{error:?}");
        }
        let version = HandshakeError::Version { offered: "TLK/1".into() };
        let error = attempt_error(DialError::Handshake(version), false);
        assert_eq!(error.next(), trunkline_dial::Next::Candidate);
    }

    #[test]
    fn that_an_address_is_our_own_is_believed_only_of_our_own() {
        let rejected = HandshakeError::Rejected { code: RejectCode::Myself, retry_after_ms: 0, text: String::new() };
        assert_eq!(attempt_error(DialError::Handshake(rejected), true), AttemptError::Myself);
    }
}
