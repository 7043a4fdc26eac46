//! Connections through other nodes: asked for, passed on, and taken.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use trunkline_dial::AttemptError;
use trunkline_link::{ByteStream, CredentialsFn, Incoming, Inside, OpenError, ServerTls, StreamCode, StreamKind};
use trunkline_proxy::{
    Carried, Circuit, CircuitLimits, Circuits, Full, Onwards, Proxied, ProxyOpen, Transit, Verdict, decide, onwards,
    relay,
};
use trunkline_route::{Attempt, NodeName, ProxyRoute, later};

use crate::ConnectError;
use crate::connection::Live;
use crate::inbound;
use crate::inner::{Demand, Inner, now};
use crate::trace;

/// How long the way from a gateway on may take to be found.
pub(crate) const ONWARDS: Duration = Duration::from_secs(8);

/// What a node is to others that want to go through it, or come to it through others.
pub(crate) struct Proxy {
    transit: RwLock<Transit>,
    proxied: Arc<RwLock<Proxied>>,
    circuits: Mutex<Circuits>,
    carried: Carried,
    inside: Inside,
}

impl Proxy {
    pub(crate) fn new(
        transit: Transit,
        proxied: Arc<RwLock<Proxied>>,
        limits: CircuitLimits,
        tls: ServerTls,
        credentials: Box<CredentialsFn>,
    ) -> Self {
        let inside = Inside::new(tls, credentials);
        let transit = RwLock::new(transit);
        Self { transit, proxied, circuits: Mutex::new(Circuits::new(limits)), carried: Carried::default(), inside }
    }

    pub(crate) fn set_transit(&self, transit: Transit, limits: CircuitLimits) {
        *self.transit.write().unwrap_or_else(PoisonError::into_inner) = transit;
        self.circuits().set_limits(limits);
    }

    pub(crate) fn set_proxied(&self, proxied: Proxied) {
        *self.proxied.write().unwrap_or_else(PoisonError::into_inner) = proxied;
    }

    /// Connections passed on now, and bytes of all so far.
    pub(crate) fn stats(&self) -> (usize, u64) {
        (self.circuits().open(), self.carried.bytes())
    }

    fn circuits(&self) -> std::sync::MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// A circuit that is given back however it ends.
pub(crate) struct Held {
    node: Arc<Inner>,
    circuit: Option<Circuit>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(circuit) = self.circuit.take() {
            self.node.proxy.circuits().ended(circuit);
        }
    }
}

/// A neighbour asks for a connection to this node or through it.
pub(crate) fn asked(node: &Arc<Inner>, incoming: Incoming) {
    let Ok(open) = ProxyOpen::decode(incoming.data()) else {
        return incoming.refuse(StreamCode::Unknown(255), "the request is malformed");
    };
    let verdict = decide(&node.name, incoming.peer(), open, &read(&node.proxy.transit), &read(&node.proxy.proxied));
    if incoming.kind() == StreamKind::Trace {
        let (verdict, held) = match &verdict {
            Verdict::Forward(_) => match hold(node, &incoming) {
                Ok(held) => (verdict, Some(held)),
                Err(full) => (Verdict::Refuse(StreamCode::Overloaded, full.to_string()), None),
            },
            _ => (verdict, None),
        };
        return node.spawn(trace::pass_on(node.clone(), incoming, verdict, held));
    }
    match verdict {
        Verdict::Refuse(code, text) => {
            tracing::info!(neighbour = %incoming.peer(), %code, text, "a connection was not passed on");
            incoming.refuse_for(node.name.as_str(), code, &text);
        }
        Verdict::Target(flags) => {
            let (of, gateway) = (node.clone(), incoming.peer().clone());
            node.spawn(async move {
                match of.proxy.inside.answer(&of.native, incoming.accept()).await {
                    Ok(offered) => inbound::decide(of, offered, flags).await,
                    Err(error) => tracing::info!(%gateway, %error, "who came through another node was not let in"),
                }
            });
        }
        Verdict::Forward(next) => match hold(node, &incoming) {
            Ok(held) => node.spawn(pass_on(held, incoming, next)),
            Err(full) => incoming.refuse_for(node.name.as_str(), StreamCode::Overloaded, &full.to_string()),
        },
    }
}

/// One more circuit of who asks.
fn hold(node: &Arc<Inner>, incoming: &Incoming) -> Result<Held, Full> {
    let circuit = node.proxy.circuits().begin(now(), incoming.peer())?;
    Ok(Held { node: node.clone(), circuit: Some(circuit) })
}

async fn pass_on(held: Held, incoming: Incoming, next: ProxyOpen) {
    let node = &held.node;
    let (from, to) = (incoming.peer().clone(), next.to.clone());
    let onwards = tokio::select! {
        onwards = node.onwards(&next, StreamKind::Proxied, ONWARDS.min(incoming.deadline())) => onwards,
        () = incoming.cancelled() => return tracing::debug!(%from, %to, "a connection is not wanted any more"),
    };
    match onwards {
        Ok(stream) => {
            tracing::info!(%from, %to, through = %stream.peer(), "passing a connection on");
            let idle = node.proxy.circuits().limits().idle;
            relay(incoming.accept(), stream, &node.proxy.carried, idle).await;
            tracing::info!(%from, %to, "a connection that was passed on has ended");
        }
        Err((hop, code, text)) => {
            tracing::info!(%from, %to, hop, %code, text, "a connection was not passed on");
            incoming.refuse_for(&hop, code, &text);
        }
    }
}

/// Who refused, why, and in which words.
pub(crate) type Refused = (String, StreamCode, String);

pub(crate) fn refused(hop: &NodeName, error: OpenError) -> Refused {
    match error {
        OpenError::Refused { hop, code, text } => (hop, code, text),
        OpenError::TimedOut(_) => (hop.to_string(), StreamCode::TimedOut, error.to_string()),
        error => (hop.to_string(), StreamCode::Unreachable, error.to_string()),
    }
}

/// Whether a link opened nothing because it was on its way out, so that another one may.
pub(crate) fn gave_way(peer: &NodeName, error: &OpenError) -> bool {
    match error {
        OpenError::Draining | OpenError::Down(_) => true,
        OpenError::Refused { hop, code, .. } => *code == StreamCode::GoingAway && hop == peer.as_str(),
        _ => false,
    }
}

/// Why no stream leads on from a neighbour.
pub(crate) enum NoHop {
    Connect(ConnectError),
    Open(OpenError),
}

impl Inner {
    /// Has a neighbour lead on.
    pub(crate) async fn hop(
        self: &Arc<Self>,
        neighbour: &NodeName,
        demand: Demand,
        kind: StreamKind,
        open: &ProxyOpen,
        within: Duration,
    ) -> Result<ByteStream, NoHop> {
        let until = later(now(), within);
        let left = || until.saturating_duration_since(now());
        loop {
            let demand = Demand { within: Some(left()), ..demand.clone() };
            let live = self.reach(neighbour.clone(), demand).await.map_err(NoHop::Connect)?;
            match live.link.open(kind, &open.encode(), left().min(ONWARDS)).await {
                Err(error) if gave_way(neighbour, &error) && !left().is_zero() => {}
                opened => return opened.map_err(NoHop::Open),
            }
        }
    }

    /// The next hop of a connection that is passed on. Never inside a link that goes through others itself: its bytes would be
    /// wrapped once more at every hop.
    pub(crate) async fn onwards(
        self: &Arc<Self>,
        next: &ProxyOpen,
        kind: StreamKind,
        within: Duration,
    ) -> Result<ByteStream, Refused> {
        let until = later(now(), within);
        let left = || until.saturating_duration_since(now());
        let routes: Vec<_> = self.routes.matching_proxies(&next.to).into_iter().map(|found| found.route).collect();
        let ways = onwards(next, &routes);
        let passed = routes.iter().any(|route| next.path.contains(route.gateway()));
        let text = format!("every gateway that {} has for {} is passed already", self.name, next.to);
        let mut last = (self.name.to_string(), StreamCode::Loop, text);
        for (nth, way) in ways.iter().enumerate() {
            // Those that are left are left enough time.
            let share = if nth + 1 < ways.len() { left() / 2 } else { left() };
            let (neighbour, cookie, open) = match way {
                Onwards::Target => (&next.to, None, next),
                Onwards::Gateway { name, cookie, open } => (name, cookie.clone(), open),
            };
            let demand = Demand { directly: true, cookie, ..Demand::default() };
            let failed = match self.hop(neighbour, demand, kind, open, share).await {
                Ok(stream) => return Ok(stream),
                Err(NoHop::Open(error)) => {
                    // What the final node refuses itself, it refuses by any way.
                    let is_final = matches!((way, &error), (Onwards::Target, OpenError::Refused { hop, .. }) if *hop == next.to.as_str());
                    let failed = refused(neighbour, error);
                    if is_final {
                        return Err(failed);
                    }
                    failed
                }
                Err(NoHop::Connect(error)) if passed => {
                    let text = format!(
                        "{}; every other gateway that it has for {} is passed already",
                        in_short(&error),
                        next.to
                    );
                    (self.name.to_string(), StreamCode::Loop, text)
                }
                Err(NoHop::Connect(error)) => (self.name.to_string(), StreamCode::Unreachable, in_short(&error)),
            };
            // Who could not be reached says less than who refused.
            if nth == 0 || failed.1 != StreamCode::Unreachable {
                last = failed;
            }
        }
        Err(last)
    }

    /// As [`Inner::connect`]; boxed, since a dial through a gateway connects to the gateway first.
    fn reach(
        self: &Arc<Self>,
        name: NodeName,
        demand: Demand,
    ) -> Pin<Box<dyn Future<Output = Result<Live, ConnectError>> + Send + '_>> {
        Box::pin(self.connect(name, demand))
    }

    /// Reaches the gateway of a route, has it lead on, and gives the stream that ends at the final node.
    pub(crate) async fn through(
        self: &Arc<Self>,
        route: &ProxyRoute,
        attempt: &Attempt,
    ) -> Result<ByteStream, AttemptError> {
        let gateway = route.gateway();
        if *gateway == self.name {
            return Err(AttemptError::Relay(format!("{gateway} is this node itself; it is no gateway to itself")));
        }
        let demand = Demand {
            awaited_by: Some(attempt.target.clone()),
            cookie: route.gateway_cookie().cloned(),
            ..Demand::default()
        };
        // Whoever offers more than that would only be told less.
        let flags = attempt.policy.flags.offered;
        let open = ProxyOpen { flags, ..ProxyOpen::new(attempt.target.clone(), route.most_hops().get()) };
        self.hop(gateway, demand, StreamKind::Proxied, &open, self.policy.total).await.map_err(|error| match error {
            NoHop::Connect(error) => AttemptError::Relay(format!("the gateway {gateway}: {}", in_short(&error))),
            NoHop::Open(error) => {
                let text = format!("through {gateway}: {error}");
                match error {
                    OpenError::Refused {
                        code: StreamCode::RelayDenied | StreamCode::Loop | StreamCode::HopLimit,
                        ..
                    } => AttemptError::RelayRefused(text),
                    _ => AttemptError::Relay(text),
                }
            }
        })
    }
}

/// On one line: attempts of attempts are for logs. That nobody knows an address says less than what became of those known.
pub(crate) fn in_short(error: &ConnectError) -> String {
    match error {
        ConnectError::NoRoute(no_route) => {
            let attempts = &no_route.attempts;
            let telling = attempts.iter().rev().find(|attempt| attempt.error != AttemptError::ResolveEmpty);
            match telling.or(attempts.last()) {
                Some(attempt) if attempts.len() == 1 => format!("no route to {}: {attempt}", no_route.target),
                Some(attempt) => format!("no route to {}, {} attempts: {attempt}", no_route.target, attempts.len()),
                None => format!("no route to {}: {}", no_route.target, no_route.reason),
            }
        }
        error => error.to_string(),
    }
}
