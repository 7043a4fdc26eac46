//! One lookup as a pure state machine: which route, which address, when to give up.
//!
//! The driving contract: after every [`Plan::handle`], call [`Plan::poll`] until it says [`Step::Wait`] or
//! [`Step::Done`]. Every `Connect`, `Resolve` and `Lookup` is answered by exactly one event unless a
//! [`Step::Cancel`] for it came first; answers to cancelled operations are ignored. `Done(Ok(op))` means: keep
//! the link of that operation, close every other.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_route::{
    Attempt, Defaults, Endpoint, Fallback, Host, NetworkRoute, NodeName, Origin, ResolverId, Source,
};

use crate::memory::Memory;
use crate::table::Candidate;
use crate::{AttemptError, Next, NoRoute, Reason, Record};

/// Names one operation of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

/// The times and bounds of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When the lookup goes on after the static routes. Default: also when all failed.
    pub fallback: Fallback,
    /// For one answer of a resolver. Default 2 s.
    pub resolve: Duration,
    /// For one DNS look-up. Default 2 s.
    pub dns: Duration,
    /// For one candidate with all its addresses of one host. Default 8 s.
    pub candidate: Duration,
    /// For the whole lookup. Default 15 s.
    pub total: Duration,
    /// Between two addresses of one host (RFC 8305). Default 250 ms.
    pub stagger: Duration,
    /// Attempts in all; a table that matches a name a thousand times must not dial a thousand times. Default 64.
    pub max_attempts: usize,
    /// Answers taken from one resolve, and addresses from one DNS look-up. Default 16.
    pub max_answers: usize,
}

impl Default for Policy {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            fallback: Fallback::OnFailure,
            resolve: secs(2),
            dns: secs(2),
            candidate: secs(8),
            total: secs(15),
            stagger: Duration::from_millis(250),
            max_attempts: 64,
            max_answers: 16,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask a resolver.
    Resolve {
        /// The operation to answer.
        op: OpId,
        /// Who is asked.
        resolver: ResolverId,
        /// For whom.
        target: NodeName,
    },
    /// Look a host name up.
    Lookup {
        /// The operation to answer.
        op: OpId,
        /// The name.
        host: Host,
    },
    /// Dial.
    Connect {
        /// The operation to answer.
        op: OpId,
        /// Under these demands.
        attempt: Box<Attempt>,
        /// There.
        socket: SocketAddr,
        /// Because of this.
        origin: Origin,
    },
    /// Drop an operation; whatever it leads to is closed.
    Cancel {
        /// Which.
        op: OpId,
    },
    /// Nothing to do until an event comes, or this time; then poll again.
    Wait {
        /// The time.
        until: Instant,
    },
    /// The end: keep this operation's link, or there is none.
    Done(Result<OpId, NoRoute>),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A resolver answered.
    Resolved {
        /// Which operation.
        op: OpId,
        /// Its endpoints in the order to try.
        answer: Result<Vec<Endpoint>, AttemptError>,
    },
    /// DNS answered.
    LookedUp {
        /// Which operation.
        op: OpId,
        /// The addresses in the order to try.
        answer: Result<Vec<IpAddr>, AttemptError>,
    },
    /// A dial led to a proven peer, and its link stands.
    Established {
        /// Which operation.
        op: OpId,
        /// Who it is.
        peer: NodeName,
    },
    /// A dial failed.
    Failed {
        /// Which operation.
        op: OpId,
        /// Why.
        error: AttemptError,
    },
}

/// Everything a lookup is decided from.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Who is to be reached.
    pub target: NodeName,
    /// The static routes that match, best first.
    pub candidates: Vec<Candidate>,
    /// Whom to ask afterwards.
    pub discovery: Vec<ResolverId>,
    /// What holds where nothing else is said.
    pub defaults: Defaults,
    /// Times and bounds.
    pub policy: Policy,
    /// What failed of late.
    pub memory: Memory,
    /// The candidates are one route given with the call; nothing else is asked.
    pub given: bool,
}

/// One line of [`Plan::preview`]: what would be tried, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Why.
    pub origin: Origin,
    /// The route's weight; `None` for discovery.
    pub weight: Option<i64>,
    /// `host:port`, or `None` when a resolver is asked first.
    pub address: Option<String>,
    /// The demands, as far as they are known without asking.
    pub attempt: Option<Attempt>,
    /// What is remembered against it, and for how long.
    pub remembered: Option<(Duration, AttemptError)>,
}

#[derive(Debug, Clone)]
enum Item {
    Dial { origin: Origin, attempt: Box<Attempt>, route: usize },
    Ask { origin: Origin, resolver: ResolverId, route: usize },
}

/// Discovery is no route of the table.
const NO_ROUTE: usize = usize::MAX;

#[derive(Debug)]
struct Dialing {
    op: OpId,
    socket: SocketAddr,
    began: Instant,
}

#[derive(Debug)]
enum Work {
    Resolving {
        op: OpId,
        origin: Origin,
        resolver: ResolverId,
        route: usize,
        began: Instant,
    },
    LookingUp {
        op: OpId,
        origin: Origin,
        attempt: Box<Attempt>,
        route: usize,
        began: Instant,
    },
    Dialing {
        origin: Origin,
        attempt: Box<Attempt>,
        route: usize,
        began: Instant,
        live: Vec<Dialing>,
        rest: VecDeque<IpAddr>,
        next: Instant,
    },
}

/// A lookup under way.
#[derive(Debug)]
pub struct Plan {
    lookup: Lookup,
    began: Instant,
    queue: VecDeque<Item>,
    discovery_left: bool,
    work: Option<Work>,
    steps: VecDeque<Step>,
    records: Vec<Record>,
    attempts: usize,
    next_op: u32,
    /// Routes of which no other address is tried (the authenticated peer refused the version).
    dropped_routes: Vec<usize>,
    refused_cookies: Vec<(trunkline_route::Address, trunkline_route::Cookie)>,
    done: Option<Result<OpId, NoRoute>>,
}

impl Plan {
    /// A lookup that begins now.
    pub fn new(lookup: Lookup, now: Instant) -> Self {
        let fallback = if lookup.given || lookup.candidates.iter().any(|c| c.route.fallback_never()) {
            Fallback::Never
        } else {
            lookup.policy.fallback
        };
        let discovery_left = match fallback {
            Fallback::Never => false,
            Fallback::OnMiss => lookup.candidates.is_empty(),
            Fallback::OnFailure => true,
        } && !lookup.discovery.is_empty();
        let mut plan = Self {
            began: now,
            queue: VecDeque::new(),
            discovery_left,
            work: None,
            steps: VecDeque::new(),
            records: Vec::new(),
            attempts: 0,
            next_op: 0,
            dropped_routes: Vec::new(),
            refused_cookies: Vec::new(),
            done: None,
            lookup,
        };
        plan.queue = plan.static_items(now);
        plan
    }

    fn static_items(&self, now: Instant) -> VecDeque<Item> {
        let Lookup { target, defaults, given, .. } = &self.lookup;
        let items = self.lookup.candidates.iter().enumerate().filter_map(|(route, candidate)| {
            let pattern = candidate.pattern.clone();
            match candidate.route.source() {
                Source::Direct { .. } => {
                    let attempt = Box::new(candidate.route.attempt(target, None, defaults)?);
                    let origin = if *given { Origin::Given } else { Origin::Static { pattern } };
                    Some(Item::Dial { origin, attempt, route })
                }
                Source::Resolve { resolver, .. } => {
                    let resolver = resolver.clone();
                    Some(Item::Ask {
                        origin: Origin::StaticResolved { pattern, resolver: resolver.clone() },
                        resolver,
                        route,
                    })
                }
            }
        });
        self.demote(now, items.collect())
    }

    /// Stable: what is remembered as failing comes last within its stage.
    fn demote(&self, now: Instant, items: Vec<Item>) -> VecDeque<Item> {
        let failing = |item: &Item| match item {
            Item::Dial { attempt, .. } => self.lookup.memory.against(now, attempt).is_some(),
            Item::Ask { .. } => false,
        };
        let (last, first): (Vec<_>, Vec<_>) = items.into_iter().partition(failing);
        first.into_iter().chain(last).collect()
    }

    fn discovery_items(&self) -> VecDeque<Item> {
        let ask = |resolver: &ResolverId| Item::Ask {
            origin: Origin::Discovered { resolver: resolver.clone() },
            resolver: resolver.clone(),
            route: NO_ROUTE,
        };
        self.lookup.discovery.iter().map(ask).collect()
    }

    /// What would be tried, in order, asking nobody.
    pub fn preview(&self, now: Instant) -> Vec<Preview> {
        let mut items: Vec<_> = self.queue.iter().cloned().collect();
        if self.discovery_left {
            items.extend(self.discovery_items());
        }
        let line = |item: Item| match item {
            Item::Dial { origin, attempt, route } => Preview {
                origin,
                weight: self.lookup.candidates.get(route).map(|c| c.weight),
                address: Some(attempt.address.to_string()),
                remembered: self.lookup.memory.against(now, &attempt).map(|(for_, error)| (for_, error.clone())),
                attempt: Some(*attempt),
            },
            Item::Ask { origin, route, .. } => {
                let weight = self.lookup.candidates.get(route).map(|c| c.weight);
                Preview { origin, weight, address: None, attempt: None, remembered: None }
            }
        };
        items.into_iter().map(line).collect()
    }

    /// Every attempt so far, in the order they ended.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Instant, event: Event) {
        if self.done.is_some() {
            return;
        }
        match event {
            Event::Resolved { op, answer } => self.resolved(now, op, answer),
            Event::LookedUp { op, answer } => self.looked_up(now, op, answer),
            Event::Established { op, peer } => self.established(now, op, peer),
            Event::Failed { op, error } => self.failed(now, op, error),
        }
    }

    fn resolved(&mut self, now: Instant, op: OpId, answer: Result<Vec<Endpoint>, AttemptError>) {
        if !matches!(&self.work, Some(Work::Resolving { op: live, .. }) if *live == op) {
            return;
        }
        let Some(Work::Resolving { origin, resolver, route, began, .. }) = self.work.take() else { return };
        let answer =
            answer.and_then(|found| if found.is_empty() { Err(AttemptError::ResolveEmpty) } else { Ok(found) });
        let endpoints = match answer {
            Ok(endpoints) => endpoints,
            Err(error) => return self.record(now, origin, String::new(), None, began, error),
        };
        let items = endpoints.iter().take(self.lookup.policy.max_answers);
        let items = items.filter_map(|endpoint| {
            let attempt = Box::new(self.attempt_for(route, &resolver, endpoint)?);
            Some(Item::Dial { origin: origin.clone(), attempt, route })
        });
        let items = self.demote(now, items.collect());
        for item in items.into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    /// The merge for an answer: its route's, or for discovery the demands of the best matching route.
    fn attempt_for(&self, route: usize, resolver: &ResolverId, endpoint: &Endpoint) -> Option<Attempt> {
        let Lookup { target, candidates, defaults, .. } = &self.lookup;
        match (candidates.get(route), candidates.first()) {
            (Some(own), _) => own.route.attempt(target, Some(endpoint), defaults),
            (None, Some(best)) => Some(best.route.attempt_at(target, endpoint, defaults)),
            (None, None) => {
                NetworkRoute::resolved_by(resolver.clone()).build().attempt(target, Some(endpoint), defaults)
            }
        }
    }

    fn looked_up(&mut self, now: Instant, op: OpId, answer: Result<Vec<IpAddr>, AttemptError>) {
        if !matches!(&self.work, Some(Work::LookingUp { op: live, .. }) if *live == op) {
            return;
        }
        let Some(Work::LookingUp { origin, attempt, route, began, .. }) = self.work.take() else { return };
        let answer =
            answer.and_then(|ips| if ips.is_empty() { Err(AttemptError::Dns("no address".into())) } else { Ok(ips) });
        match answer {
            Ok(ips) => self.dial(now, origin, attempt, route, interleave(ips, self.lookup.policy.max_answers), began),
            Err(error) => self.attempt_failed(now, origin, &attempt, route, None, began, error),
        }
    }

    fn dial(
        &mut self,
        now: Instant,
        origin: Origin,
        attempt: Box<Attempt>,
        route: usize,
        ips: VecDeque<IpAddr>,
        began: Instant,
    ) {
        self.work = Some(Work::Dialing { origin, attempt, route, began, live: Vec::new(), rest: ips, next: now });
    }

    fn established(&mut self, now: Instant, op: OpId, peer: NodeName) {
        let Some(Work::Dialing { live, .. }) = &self.work else { return };
        if !live.iter().any(|d| d.op == op) {
            return;
        }
        if peer != self.lookup.target {
            return self.failed(now, op, AttemptError::WrongName { actual: peer.to_string() });
        }
        self.cancel_all(Some(op));
        self.finish(Ok(op));
    }

    fn failed(&mut self, now: Instant, op: OpId, error: AttemptError) {
        let Some(Work::Dialing { origin, attempt, route, live, rest, next, .. }) = &mut self.work else { return };
        let Some(at) = live.iter().position(|d| d.op == op) else { return };
        let dialing = live.remove(at);
        // The next address of the host need not wait for its turn any more.
        *next = now;
        if error.next() != Next::Candidate {
            rest.clear();
        }
        let (origin, attempt, route) = (origin.clone(), attempt.clone(), *route);
        let over = live.is_empty() && rest.is_empty();
        if over {
            self.work = None;
        }
        self.attempt_failed(now, origin, &attempt, route, Some(dialing.socket), dialing.began, error);
    }

    #[expect(clippy::too_many_arguments, reason = "a record has that many sides; each caller has a different half")]
    fn attempt_failed(
        &mut self,
        now: Instant,
        origin: Origin,
        attempt: &Attempt,
        route: usize,
        socket: Option<SocketAddr>,
        began: Instant,
        error: AttemptError,
    ) {
        if error == AttemptError::WrongCookie {
            self.refused_cookies.push((attempt.address.clone(), attempt.cookie.clone()));
        }
        if error.next() == Next::Route && route != NO_ROUTE {
            self.dropped_routes.push(route);
        }
        let stop = error.next() == Next::Stop;
        self.record(now, origin, attempt.address.to_string(), socket, began, error);
        if stop {
            self.cancel_all(None);
            self.finish_failed(Reason::Stopped);
        }
    }

    fn record(
        &mut self,
        now: Instant,
        origin: Origin,
        address: String,
        socket: Option<SocketAddr>,
        began: Instant,
        error: AttemptError,
    ) {
        let took = now.saturating_duration_since(began);
        let began = began.saturating_duration_since(self.began);
        self.records.push(Record { origin, address, socket, began, took, error });
    }

    fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn finish(&mut self, result: Result<OpId, NoRoute>) {
        self.work = None;
        self.queue.clear();
        self.discovery_left = false;
        self.done = Some(result);
    }

    fn finish_failed(&mut self, reason: Reason) {
        let attempts = self.records.clone();
        self.finish(Err(NoRoute { target: self.lookup.target.clone(), reason, attempts }));
    }

    /// Cancels what is under way but `keep`, without recording it.
    fn cancel_all(&mut self, keep: Option<OpId>) {
        let ops = match &self.work {
            Some(Work::Resolving { op, .. } | Work::LookingUp { op, .. }) => vec![*op],
            Some(Work::Dialing { live, .. }) => live.iter().map(|d| d.op).collect(),
            None => vec![],
        };
        self.steps.extend(ops.into_iter().filter(|op| Some(*op) != keep).map(|op| Step::Cancel { op }));
    }

    /// Ends what is under way for want of time: cancelled and recorded.
    fn time_out_work(&mut self, now: Instant) {
        self.cancel_all(None);
        let policy = self.lookup.policy;
        match self.work.take() {
            Some(Work::Resolving { origin, began, .. }) => {
                let error = AttemptError::ResolveTimeout(policy.resolve);
                self.record(now, origin, String::new(), None, began, error);
            }
            Some(Work::LookingUp { origin, attempt, route, began, .. }) => {
                self.attempt_failed(now, origin, &attempt, route, None, began, AttemptError::DnsTimeout(policy.dns));
            }
            Some(Work::Dialing { origin, attempt, route, live, .. }) => {
                for dialing in live {
                    let (error, socket) = (AttemptError::CandidateTimeout(policy.candidate), Some(dialing.socket));
                    self.attempt_failed(now, origin.clone(), &attempt, route, socket, dialing.began, error);
                }
            }
            None => {}
        }
    }

    fn work_deadline(&self) -> Option<Instant> {
        let policy = &self.lookup.policy;
        match self.work.as_ref()? {
            Work::Resolving { began, .. } => Some(*began + policy.resolve),
            Work::LookingUp { began, .. } => Some(*began + policy.dns.min(policy.candidate)),
            Work::Dialing { began, .. } => Some(*began + policy.candidate),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Instant) -> Step {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            if let Some(done) = &self.done {
                return Step::Done(done.clone());
            }
            let total = self.began + self.lookup.policy.total;
            if now >= total {
                self.time_out_work(now);
                if self.done.is_none() {
                    self.finish_failed(Reason::OutOfTime);
                }
                continue;
            }
            if self.work_deadline().is_some_and(|deadline| now >= deadline) {
                self.time_out_work(now);
                continue;
            }
            if self.start_address(now) {
                continue;
            }
            if self.work.is_none() {
                if !self.start_item(now) {
                    let tried = !self.records.is_empty() || !self.lookup.candidates.is_empty();
                    self.finish_failed(if tried { Reason::AllFailed } else { Reason::NoCandidate });
                }
                continue;
            }
            let next = match &self.work {
                Some(Work::Dialing { rest, next, .. }) if !rest.is_empty() => Some(*next),
                _ => None,
            };
            let until = [Some(total), self.work_deadline(), next].into_iter().flatten().min().unwrap_or(total);
            return Step::Wait { until };
        }
    }

    /// Dials the next address of the host under way when it is its turn.
    fn start_address(&mut self, now: Instant) -> bool {
        let stagger = self.lookup.policy.stagger;
        let may = self.attempts < self.lookup.policy.max_attempts;
        let op = OpId(self.next_op + 1);
        let Some(Work::Dialing { origin, attempt, live, rest, next, .. }) = &mut self.work else { return false };
        if !may {
            rest.clear();
        }
        if *next > now {
            return false;
        }
        let Some(ip) = rest.pop_front() else {
            if live.is_empty() {
                self.work = None;
                return true;
            }
            return false;
        };
        let socket = SocketAddr::new(ip, attempt.address.port.get());
        *next = now + stagger;
        live.push(Dialing { op, socket, began: now });
        let step = Step::Connect { op, attempt: attempt.clone(), socket, origin: origin.clone() };
        self.next_op += 1;
        self.attempts += 1;
        self.steps.push_back(step);
        true
    }

    /// Begins the next candidate; false when there is none left.
    fn start_item(&mut self, now: Instant) -> bool {
        loop {
            if self.attempts >= self.lookup.policy.max_attempts {
                return false;
            }
            let Some(item) = self.queue.pop_front() else {
                if !std::mem::take(&mut self.discovery_left) {
                    return false;
                }
                self.queue = self.discovery_items();
                continue;
            };
            match item {
                Item::Ask { origin, resolver, route } => {
                    let op = self.op();
                    let target = self.lookup.target.clone();
                    self.steps.push_back(Step::Resolve { op, resolver: resolver.clone(), target });
                    self.work = Some(Work::Resolving { op, origin, resolver, route, began: now });
                }
                Item::Dial { route, .. } if self.dropped_routes.contains(&route) => continue,
                Item::Dial { attempt, .. }
                    if self.refused_cookies.iter().any(|(a, c)| *a == attempt.address && *c == attempt.cookie) =>
                {
                    continue;
                }
                Item::Dial { origin, attempt, route } => match attempt.address.host.ip() {
                    Some(ip) => self.dial(now, origin, attempt, route, VecDeque::from([ip]), now),
                    None => {
                        let op = self.op();
                        self.steps.push_back(Step::Lookup { op, host: attempt.address.host.clone() });
                        self.work = Some(Work::LookingUp { op, origin, attempt, route, began: now });
                    }
                },
            }
            return true;
        }
    }
}

/// Alternates the families, the first answer's first (RFC 8305 §4), without repeats.
fn interleave(ips: Vec<IpAddr>, max: usize) -> VecDeque<IpAddr> {
    let first_is_v6 = ips.first().is_some_and(IpAddr::is_ipv6);
    let (mut a, mut b): (VecDeque<_>, VecDeque<_>) = ips.into_iter().partition(|ip| ip.is_ipv6() == first_is_v6);
    let mut out = VecDeque::new();
    while let Some(ip) = a.pop_front() {
        if !out.contains(&ip) {
            out.push_back(ip);
        }
        if !b.is_empty() {
            std::mem::swap(&mut a, &mut b);
        } else if a.is_empty() {
            break;
        }
    }
    out.truncate(max);
    out
}

/// The pattern shown for a route given with a call.
pub fn given(route: NetworkRoute) -> Vec<Candidate> {
    vec![Candidate { pattern: Arc::from(""), weight: 0, route }]
}
