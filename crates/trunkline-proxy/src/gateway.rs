//! The gateway of a node: connections through other nodes are asked for, passed on, and taken.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use trunkline_dial::sessions::ConnectRequest;
use trunkline_dial::{ConnectError, Connection, Gateways, NoRoute, Reason, Record, SentAway, Sessions};
use trunkline_route::{Attempt, Cause, DirectUse, NodeName, ProxyRoute, later};
use trunkline_stack::{
    Answering, AttemptError, BoxFuture, ByteStream, Chain, Incoming, OpenError, StreamCode, StreamKind, Transport,
    log_peer,
};

use crate::walk;
use crate::{
    Carried, Circuit, CircuitLimits, Circuits, Membership, Onwards, Proxied, ProxyOpen, Refusal, Transit, Verdict,
};
use crate::{decide, onwards, relay};

/// Longest time in which the way from a gateway on is found.
pub(crate) const ONWARDS: Duration = Duration::from_secs(8);

#[expect(clippy::disallowed_methods, reason = "the gateway of a node is a shell that brings the time")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Error returned when a caller on a transport gets no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The caller did not prove who it is.
    #[error("the caller did not prove who it is")]
    Unproven(#[source] Cause),
    /// The caller has proven who it is, and was refused.
    #[error(transparent)]
    SentAway(#[from] SentAway),
}

/// The gateway of a node: what it is to others that want to go through it, and how it goes through others itself.
///
/// Give it every [`Incoming`] of the kinds [`StreamKind::Proxied`] and [`StreamKind::Trace`] ([`Gateway::take`]), and set it
/// as the [`Gateways`] of the sessions.
pub struct Gateway {
    pub(crate) sessions: Arc<Sessions>,
    transit: RwLock<Transit>,
    proxied: Arc<RwLock<Proxied>>,
    circuits: Mutex<Circuits>,
    carried: Carried,
    answering: Arc<dyn Answering>,
    members: OnceLock<Box<dyn Members>>,
}

/// Ways on that a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ways {
    /// A connection to the target itself, and all gateways.
    All,
    /// Members of the cluster that lead to the target.
    ThroughMembers,
}

/// Members of the cluster of a node.
pub trait Members: Send + Sync {
    /// Returns true for a member that the node is connected to. At a leaf, false for all: it passes nothing on.
    fn is_member(&self, name: &NodeName) -> bool;

    /// Returns true for a leaf that other members lead to, as they say. The node passes on to it through these only.
    fn leads_to(&self, name: &NodeName) -> bool;

    /// Returns the members that may lead to another one, in the order to try.
    fn gateways(&self, name: &NodeName) -> Vec<NodeName>;
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("node", self.name()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Creates the gateway of the node with these sessions. `proxied` is shared with whoever judges callers before they are
    /// proven; `answering` has callers that came through others prove who they are.
    pub fn new(
        sessions: Arc<Sessions>,
        transit: Transit,
        proxied: Arc<RwLock<Proxied>>,
        limits: CircuitLimits,
        answering: Arc<dyn Answering>,
    ) -> Arc<Self> {
        let (transit, circuits) = (RwLock::new(transit), Mutex::new(Circuits::new(limits)));
        Arc::new(Self {
            sessions,
            transit,
            proxied,
            circuits,
            carried: Carried::default(),
            answering,
            members: OnceLock::new(),
        })
    }

    /// Replaces the rules about what is passed on, and the limits. Connections that are passed on already stay.
    pub fn set_transit(&self, transit: Transit, limits: CircuitLimits) {
        *self.transit.write().unwrap_or_else(PoisonError::into_inner) = transit;
        self.circuits().set_limits(limits);
    }

    /// Passes on what members of a cluster ask for other members, without a rule. A second call does nothing.
    pub fn set_members(&self, members: Box<dyn Members>) {
        let _ = self.members.set(members);
    }

    fn membership(&self, neighbour: &NodeName, to: &NodeName) -> Membership {
        match self.members.get().filter(|members| members.is_member(neighbour)) {
            Some(members) if members.is_member(to) => Membership::Both,
            Some(_) => Membership::Neighbour,
            None => Membership::Neither,
        }
    }

    fn leads_to(&self, to: &NodeName) -> bool {
        self.members.get().is_some_and(|members| members.leads_to(to))
    }

    /// Replaces the rules about who may come to this node through others. Connections that are up stay.
    pub fn set_proxied(&self, proxied: Proxied) {
        *self.proxied.write().unwrap_or_else(PoisonError::into_inner) = proxied;
    }

    /// Returns the number of connections that are passed on now, and the bytes of all so far.
    pub fn stats(&self) -> (usize, u64) {
        (self.circuits().open(), self.carried.bytes())
    }

    fn circuits(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &NodeName {
        self.sessions.name()
    }
}

/// A circuit that is given back however it ends.
pub(crate) struct Held {
    gateway: Arc<Gateway>,
    circuit: Option<Circuit>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(circuit) = self.circuit.take() {
            self.gateway.circuits().ended(circuit);
        }
    }
}

impl Gateway {
    /// Handles the request of a neighbour for a connection to this node or through it, or for a look at the way.
    pub fn take(self: &Arc<Self>, incoming: Incoming) {
        let Ok(open) = ProxyOpen::decode(incoming.data()) else {
            return incoming.refuse(StreamCode::Unknown(255), "the request is malformed");
        };
        let to = open.to.clone();
        let (verdict, ways) = {
            let transit = self.transit.read().unwrap_or_else(PoisonError::into_inner);
            let proxied = self.proxied.read().unwrap_or_else(PoisonError::into_inner);
            let decide = |open, membership| decide(self.name(), incoming.peer(), open, &transit, &proxied, membership);
            let membership = self.membership(incoming.peer(), &to);
            // That the target is a leaf is the word of others: it opens the way through those that said so, and no other.
            match decide(open.clone(), membership) {
                Verdict::Refuse(_) if membership == Membership::Neighbour && self.leads_to(&to) => {
                    (decide(open, Membership::Both), Ways::ThroughMembers)
                }
                verdict => (verdict, Ways::All),
            }
        };
        if incoming.kind() == StreamKind::Trace {
            let (verdict, held) = match &verdict {
                Verdict::Forward(_) => match self.hold(&incoming) {
                    Ok(held) => (verdict, Some(held)),
                    Err(refusal) => (Verdict::Refuse(refusal), None),
                },
                _ => (verdict, None),
            };
            return self.sessions.spawn(walk::pass_on(self.clone(), incoming, to, (verdict, ways), held));
        }
        match verdict {
            Verdict::Refuse(refusal) => refuse(&self.sessions, incoming, &to, &[refusal]),
            Verdict::Target(flags) => {
                let (own, gateway) = (self.clone(), incoming.peer().clone());
                self.sessions.spawn(async move {
                    match own.answering.answer(Transport::relayed(incoming.accept())).await {
                        // The reason of a refusal is in the log of the sessions.
                        Ok(caller) => drop(own.sessions.accept(caller, flags).await),
                        Err(error) => {
                            let error = Chain(&*error);
                            log_peer!(own.sessions, &gateway, INFO, "who came through another node was not let in", %gateway, %error);
                        }
                    }
                });
            }
            Verdict::Forward(next) => match self.hold(&incoming) {
                Ok(held) => self.sessions.spawn(pass_on(held, incoming, next, ways)),
                Err(refusal) => refuse(&self.sessions, incoming, &to, &[refusal]),
            },
        }
    }

    /// Answers a caller at the other end of a transport that the program brings, and returns its connection once that is up.
    /// The caller meets the same demands as one that comes through other nodes, and may have the flags of such a one.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub async fn answer(&self, over: Transport) -> Result<Connection, AnswerError> {
        let caller = self.answering.answer(over).await.map_err(|error| AnswerError::Unproven(error.into()))?;
        let flags = self.proxied.read().unwrap_or_else(PoisonError::into_inner).flags;
        Ok(self.sessions.accept(caller, flags).await?)
    }

    /// Reserves a circuit for the neighbour that asks.
    fn hold(self: &Arc<Self>, incoming: &Incoming) -> Result<Held, Refusal> {
        let address = incoming.link_info().address.counted_ip();
        let circuit = self.circuits().begin(now(), incoming.peer(), address);
        let circuit = circuit.map_err(|full| Refusal::new(self.name(), StreamCode::Overloaded, full.to_string()))?;
        Ok(Held { gateway: self.clone(), circuit: Some(circuit) })
    }
}

/// Refuses a connection: the neighbour is told the first of the refusals without its cause, and the log has all of them.
fn refuse(node: &Sessions, incoming: Incoming, to: &NodeName, refusals: &[Refusal]) {
    log_refused(node, incoming.peer(), to, refusals);
    if let Some(refusal) = refusals.first() {
        incoming.refuse_for(refusal.hop.as_str(), refusal.code, refusal.told());
    }
}

/// Logs why a connection, or a trace, is not passed on.
pub(crate) fn log_refused(node: &Sessions, from: &NodeName, to: &NodeName, refusals: &[Refusal]) {
    let Some(Refusal { hop, code, .. }) = refusals.first() else { return };
    let cause = refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    log_peer!(node, from, INFO, "a connection was not passed on", %from, %to, %hop, %code, cause);
}

async fn pass_on(held: Held, incoming: Incoming, next: ProxyOpen, ways: Ways) {
    let gateway = &held.gateway;
    let node = &gateway.sessions;
    let (from, to) = (incoming.peer().clone(), next.to.clone());
    let onwards = tokio::select! {
        onwards = gateway.onwards(&next, ways, StreamKind::Proxied, ONWARDS.min(incoming.timeout())) => onwards,
        () = incoming.cancelled() => return tracing::debug!(%from, %to, "a connection is not wanted any more"),
    };
    match onwards {
        Ok(stream) => {
            log_peer!(node, &from, INFO, "passing a connection on", %from, %to, through = %stream.peer());
            let idle = gateway.circuits().limits().idle;
            relay(incoming.accept(), stream, &gateway.carried, idle).await;
            log_peer!(node, &from, INFO, "a connection that was passed on has ended", %from, %to);
        }
        Err(refusals) => refuse(node, incoming, &to, &refusals),
    }
}

/// Returns why a neighbour of the node `own` does not lead on.
pub(crate) fn refused(own: &NodeName, neighbour: &NodeName, error: OpenError) -> Refusal {
    match error {
        OpenError::Refused { hop, code, text } => Refusal::heard(neighbour, &hop, code, &text),
        OpenError::TimedOut(_) => Refusal::new(own, StreamCode::TimedOut, error.to_string()).next(neighbour),
        error => Refusal::new(own, StreamCode::Unreachable, error.to_string()).next(neighbour),
    }
}

/// Returns why a neighbour of the node `own` is not reached. Without a next node, no way to it is known.
fn unreached(own: &NodeName, neighbour: &NodeName, error: &ConnectError) -> Refusal {
    let refusal = Refusal::new(own, StreamCode::Unreachable, in_short(error));
    if is_unknown(error) { refusal } else { refusal.next(neighbour) }
}

/// Returns whether a name was not reached because nothing knows an address for it.
fn is_unknown(error: &ConnectError) -> bool {
    let ConnectError::NoRoute(NoRoute { reason, attempts, .. }) = error else { return false };
    let nothing = |attempts: &[Record]| attempts.iter().all(|attempt| attempt.error == AttemptError::ResolveEmpty);
    matches!(reason, Reason::NoCandidate | Reason::AllFailed) && nothing(attempts)
}

/// Reason why no stream leads on from a neighbour.
pub(crate) enum NoHop {
    Connect(ConnectError),
    Open(OpenError),
}

impl Gateway {
    /// Has a neighbour lead on.
    pub(crate) async fn hop(
        &self,
        neighbour: &NodeName,
        demand: ConnectRequest,
        kind: StreamKind,
        open: &ProxyOpen,
        timeout: Duration,
    ) -> Result<ByteStream, NoHop> {
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        loop {
            let demand = ConnectRequest { timeout: Some(left()), ..demand.clone() };
            let link = self.sessions.reach(neighbour.clone(), demand).await.map_err(NoHop::Connect)?;
            match link.open(kind, &open.encode(), left().min(ONWARDS)).await {
                Err(error) if error.gave_way(neighbour) && !left().is_zero() => {}
                opened => return opened.map_err(NoHop::Open),
            }
        }
    }

    /// Opens a stream to the next hop of a connection that is passed on. Never inside a link that goes through others itself:
    /// its bytes would be wrapped once more at every hop.
    ///
    /// # Errors
    /// Returns one refusal for each way that failed, and at least one, the most telling first.
    pub(crate) async fn onwards(
        &self,
        next: &ProxyOpen,
        ways: Ways,
        kind: StreamKind,
        timeout: Duration,
    ) -> Result<ByteStream, Vec<Refusal>> {
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        let own = || self.sessions.routes().matching_proxies(&next.to).into_iter().map(|found| found.route);
        let members = self.members.get().filter(|members| members.is_member(&next.to) || members.leads_to(&next.to));
        let through = members.into_iter().flat_map(|members| members.gateways(&next.to)).map(ProxyRoute::via);
        let routes: Vec<ProxyRoute> = match ways {
            Ways::All => own().chain(through).collect(),
            Ways::ThroughMembers => through.map(|route| route.direct(DirectUse::Never)).collect(),
        };
        let ways = onwards(next, &routes);
        let mut refusals = Vec::new();
        if ways.is_empty() || routes.iter().any(|route| next.path.contains(route.gateway())) {
            let cause = format!("every other gateway that {} has for {} is passed already", self.name(), next.to);
            refusals.push(Refusal::new(self.name(), StreamCode::Loop, cause));
        }
        for (nth, way) in ways.iter().enumerate() {
            // Those that are left are left enough time.
            let share = if nth + 1 < ways.len() { left() / 2 } else { left() };
            let (neighbour, cookie, open) = match way {
                Onwards::Target => (&next.to, None, next),
                Onwards::Gateway { name, cookie, open } => (name, cookie.clone(), open),
            };
            let demand = ConnectRequest { directly: true, cookie, ..ConnectRequest::default() };
            match self.hop(neighbour, demand, kind, open, share).await {
                Ok(stream) => return Ok(stream),
                Err(NoHop::Open(error)) => {
                    // What the final node refuses itself, it refuses by any way.
                    let is_final = matches!((way, &error), (Onwards::Target, OpenError::Refused { hop, .. }) if *hop == next.to.as_str());
                    let refusal = refused(self.name(), neighbour, error);
                    if is_final {
                        return Err(vec![refusal]);
                    }
                    refusals.push(refusal);
                }
                Err(NoHop::Connect(error)) => refusals.push(unreached(self.name(), neighbour, &error)),
            }
        }
        Refusal::sort(self.name(), &mut refusals);
        Err(refusals)
    }
}

/// Returns a refusal for people: the causes that another node keeps to itself are in that node's log.
pub(crate) fn in_words(own: &NodeName, refusal: &Refusal) -> String {
    if refusal.hop == *own {
        refusal.to_string()
    } else {
        format!("{refusal}; the log of {} has the cause", refusal.hop)
    }
}

/// Returns an error on one line, with the most telling attempt: attempts of attempts are for logs.
pub(crate) fn in_short(error: &ConnectError) -> String {
    match error {
        ConnectError::NoRoute(no_route) => {
            let NoRoute { target, reason, attempts } = no_route;
            match no_route.most_telling() {
                Some(attempt) if attempts.len() == 1 => format!("no route to {target}: {attempt}"),
                Some(attempt) => format!("no route to {target}, {} attempts: {attempt}", attempts.len()),
                None => format!("no route to {target}: {reason}"),
            }
        }
        error => Chain(error).to_string(),
    }
}

impl Gateways for Gateway {
    fn through<'a>(
        &'a self,
        route: &'a ProxyRoute,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<ByteStream, AttemptError>> {
        Box::pin(async move {
            let gateway = route.gateway();
            if *gateway == *self.name() {
                return Err(AttemptError::Relay(
                    format!("{gateway} is this node itself; it is no gateway to itself").into(),
                ));
            }
            let demand = ConnectRequest {
                awaited_by: Some(attempt.target.clone()),
                cookie: route.gateway_cookie().cloned(),
                ..ConnectRequest::default()
            };
            // Whoever offers more than that would only be told less.
            let flags = attempt.policy.flags.offered;
            let open = ProxyOpen { flags, ..ProxyOpen::new(attempt.target.clone(), route.most_hops().get()) };
            self.hop(gateway, demand, StreamKind::Proxied, &open, self.sessions.policy().total).await.map_err(|error| {
                match error {
                    NoHop::Connect(error) => {
                        AttemptError::Relay(format!("the gateway {gateway}: {}", in_short(&error)).into())
                    }
                    NoHop::Open(error) => {
                        let refusal = refused(self.name(), gateway, error);
                        let text = in_words(self.name(), &refusal);
                        match refusal.code {
                            StreamCode::RelayDenied | StreamCode::Loop | StreamCode::HopLimit => {
                                AttemptError::RelayRefused(text)
                            }
                            _ => AttemptError::Relay(text.into()),
                        }
                    }
                }
            })
        })
    }
}
