//! The way to a node, hop by hop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trunkline_dial::sessions::ConnectRequest;
use trunkline_dial::{ConnectError, PING_MAILBOX, Reason, Record};
use trunkline_route::{NodeName, Origin, ProxyRoute, later};
use trunkline_stack::{BoxFuture, ByteStream, Chain, Incoming, Link, StreamCode, StreamKind};

use crate::gateway::{Gateway, Held, NoHop, ONWARDS, Ways, in_short, log_refused, now, refused};
use crate::{MAX_REPORTS, ProxyOpen, Refusal, Report, Verdict};

/// Longest time of a look at a way through this node.
const TRACE: Duration = Duration::from_secs(30);

/// The ways to a node, as they were found to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Name of the node that was looked for.
    pub target: NodeName,
    /// The way that leads there; else all those through gateways, and where each ends.
    pub ways: Vec<TracedWay>,
    /// The reason why the lookup ended without a connection; `None` when a way leads there.
    pub reason: Option<Reason>,
    /// The other attempts that failed, when none led there: those through gateways are among the ways.
    pub failed: Vec<Record>,
}

impl Trace {
    /// Returns true if a way leads there.
    pub fn is_reached(&self) -> bool {
        self.ways.iter().any(|way| way.end == TraceEnd::Reached)
    }
}

/// One way. What gateways say of what is behind them is as true as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedWay {
    /// The nodes on it, in order; the last is where it leads to or ends.
    pub hops: Vec<TracedHop>,
    /// End of the way.
    pub end: TraceEnd,
}

/// One node on a way.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedHop {
    /// Name of the node.
    pub name: NodeName,
    /// Round trip from the node before.
    pub round_trip: Duration,
}

/// End of a way.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceEnd {
    /// At the node that was looked for.
    Reached,
    /// Before it.
    Stopped {
        /// Node that does not lead on.
        hop: String,
        /// Reason.
        code: StreamCode,
        /// The cause in words, as far as this node knows it; of another node that stopped, at most which node it could not reach. May be
        /// empty.
        text: String,
    },
}

/// Answers a neighbour that looks at the way through this node, or to it. It goes by the rules of a connection, and counts as
/// one for as long as it may take.
pub(crate) async fn pass_on(
    node: Arc<Gateway>,
    incoming: Incoming,
    to: NodeName,
    verdict: (Verdict, Ways),
    held: Option<Held>,
) {
    let timeout = incoming.timeout().min(TRACE);
    let from = incoming.peer().clone();
    let mut back = incoming.accept();
    // Who reads nothing, or says nothing from behind, is not waited for.
    let _ = tokio::time::timeout(timeout, report(node, &mut back, (&from, &to), verdict, timeout)).await;
    drop(held);
}

async fn report(
    node: Arc<Gateway>,
    back: &mut ByteStream,
    (from, to): (&NodeName, &NodeName),
    (verdict, ways): (Verdict, Ways),
    timeout: Duration,
) {
    let own = node.name().clone();
    let end = match verdict {
        Verdict::Target(_) => Some(Ok(Report::Reached(own))),
        Verdict::Refuse(refusal) => Some(Err(vec![refusal])),
        Verdict::Forward(next) => match node.onwards(&next, ways, StreamKind::Trace, ONWARDS.min(timeout)).await {
            Err(refusals) => Some(Err(refusals)),
            Ok(mut onwards) => {
                let next = onwards.peer().clone();
                match node.sessions.connection(&next) {
                    Some(live) => {
                        let report =
                            Report::Onwards { hop: own, next, round_trip: round_trip(&live.link(), timeout).await };
                        if back.write_all(&report.encode()).await.is_ok() {
                            let _ = tell(&mut onwards, back).await;
                        }
                        None
                    }
                    None => {
                        let refusal = Refusal::new(&own, StreamCode::Unreachable, "the connection is down");
                        Some(Err(vec![refusal.next(&next)]))
                    }
                }
            }
        },
    };
    let end = end.map(|end| {
        end.or_else(|refusals| {
            log_refused(&node.sessions, from, to, &refusals);
            refusals.into_iter().next().map(Report::Stopped).ok_or(())
        })
    });
    if let Some(Ok(end)) = end {
        let _ = back.write_all(&end.encode()).await;
    }
    let _ = back.shutdown().await;
}

/// Tells what comes from behind, as long as it is what a trace may say.
async fn tell(from: &mut ByteStream, to: &mut ByteStream) -> std::io::Result<()> {
    for _ in 0..MAX_REPORTS {
        let Some(report) = Report::read(from).await? else { break };
        to.write_all(&report.encode()).await?;
    }
    Ok(())
}

/// Measures one round trip over a link.
async fn round_trip(link: &Link, timeout: Duration) -> Duration {
    let began = now();
    // A peer answers in any case, be it that there is no such service.
    let _ = link.call(PING_MAILBOX, "", &[], timeout.min(ONWARDS)).await;
    now() - began
}

impl Gateway {
    /// Looks which way leads to a name: connects as [`Sessions::connect`](trunkline_dial::Sessions::connect) does, and then asks every hop of the way that was
    /// found for the next one and the time between the two. Without a way, those through gateways are looked at all the same,
    /// to see where they end. Gateways treat it as a connection: what they would not pass on, they do not show.
    ///
    /// # Errors
    /// [`ConnectError`] when nothing can be tried at all; that no way leads there is no error.
    pub fn trace(self: &Arc<Self>, target: NodeName, timeout: Duration) -> BoxFuture<'_, Result<Trace, ConnectError>> {
        // Boxed: a future that is not is compiled again in every crate that awaits it.
        Box::pin(self.walk(target, timeout))
    }

    async fn walk(self: &Arc<Self>, target: NodeName, timeout: Duration) -> Result<Trace, ConnectError> {
        let node = self;
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        // Should there be no way, half of the time is for those that there might be.
        let demand = ConnectRequest { timeout: Some(timeout / 2), ..ConnectRequest::default() };
        match node.sessions.reach(target.clone(), demand).await {
            Ok(link) => {
                let info = link.info();
                let way = match &info.via {
                    None => {
                        let hop = TracedHop { name: target.clone(), round_trip: round_trip(&link, left()).await };
                        TracedWay { hops: vec![hop], end: TraceEnd::Reached }
                    }
                    Some(gateway) => node.trace_through(&node.route_through(&target, gateway), &target, left()).await,
                };
                Ok(Trace { target, ways: vec![way], reason: None, failed: Vec::new() })
            }
            Err(ConnectError::NoRoute(no_route)) => {
                let (mut ways, mut seen) = (Vec::new(), BTreeSet::new());
                for record in &no_route.attempts {
                    let Some(gateway) = gateway_of(&record.origin) else { continue };
                    if !seen.insert(gateway) {
                        continue;
                    }
                    let mut way = node.trace_through(&node.route_through(&target, gateway), &target, left()).await;
                    if way.end == TraceEnd::Reached {
                        // The way is there; the node at its end refuses.
                        way.end = TraceEnd::Stopped {
                            hop: target.to_string(),
                            code: StreamCode::NotAllowed,
                            text: Chain(&record.error).to_string(),
                        };
                    }
                    ways.push(way);
                }
                let is_way = |record: &Record| gateway_of(&record.origin).is_some();
                let failed = no_route.attempts.iter().filter(|record| !is_way(record)).cloned().collect();
                Ok(Trace { target, ways, reason: Some(no_route.reason), failed })
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the gateway of an attempt that went through one.
fn gateway_of(origin: &Origin) -> Option<&NodeName> {
    match origin {
        Origin::Proxied { gateway, .. } => Some(gateway),
        Origin::DiscoveredProxy { gateway, .. } => gateway.as_ref(),
        _ => None,
    }
}

impl Gateway {
    /// The proxy route that leads to a name through this gateway, or what is as good as one.
    fn route_through(&self, name: &NodeName, gateway: &NodeName) -> ProxyRoute {
        let found =
            self.sessions.routes().matching_proxies(name).into_iter().find(|found| found.route.gateway() == gateway);
        found.map_or_else(|| ProxyRoute::via(gateway.clone()), |found| found.route)
    }

    /// Returns the end of a way at a refusal.
    fn stopped(&self, refusal: Refusal) -> TraceEnd {
        let Refusal { hop, code, next, cause } = refusal;
        let text = match next {
            Some(next) if hop != *self.name() => format!("it cannot reach {next}; its log has the cause"),
            _ if hop != *self.name() => "its log has the cause".into(),
            _ => cause,
        };
        TraceEnd::Stopped { hop: hop.to_string(), code, text }
    }

    async fn trace_through(self: &Arc<Self>, route: &ProxyRoute, target: &NodeName, timeout: Duration) -> TracedWay {
        let gateway = route.gateway();
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        let mut hops = Vec::new();
        let stopped = |hop: &NodeName, code, text: String| TraceEnd::Stopped { hop: hop.to_string(), code, text };
        let demand = ConnectRequest { cookie: route.gateway_cookie().cloned(), ..ConnectRequest::default() };
        let open = ProxyOpen::new(target.clone(), route.most_hops().get());
        let mut reports = match self.hop(gateway, demand, StreamKind::Trace, &open, left()).await {
            Ok(reports) => reports,
            Err(NoHop::Connect(error)) => {
                let text = format!("the gateway {gateway}: {}", in_short(&error));
                return TracedWay { hops, end: stopped(self.name(), StreamCode::Unreachable, text) };
            }
            Err(NoHop::Open(error)) => {
                return TracedWay { hops, end: self.stopped(refused(self.name(), gateway, error)) };
            }
        };
        if let Some(live) = self.sessions.connection(gateway) {
            hops.push(TracedHop { name: gateway.clone(), round_trip: round_trip(&live.link(), left()).await });
        }
        for _ in 0..MAX_REPORTS {
            let end = match tokio::time::timeout(left(), Report::read(&mut reports)).await {
                Ok(Ok(Some(Report::Onwards { next, round_trip, .. }))) => {
                    hops.push(TracedHop { name: next, round_trip });
                    continue;
                }
                Ok(Ok(Some(Report::Reached(_)))) => TraceEnd::Reached,
                Ok(Ok(Some(Report::Stopped(refusal)))) => self.stopped(refusal),
                Ok(Ok(None)) => stopped(gateway, StreamCode::Broken, "it said nothing more".into()),
                Ok(Err(error)) => stopped(gateway, StreamCode::Broken, error.to_string()),
                Err(_) => stopped(gateway, StreamCode::TimedOut, format!("nothing more within {timeout:?}")),
            };
            return TracedWay { hops, end };
        }
        TracedWay { hops, end: stopped(gateway, StreamCode::Loop, "it says more than a way can have".into()) }
    }
}
