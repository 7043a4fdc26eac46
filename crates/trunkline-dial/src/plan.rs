//! One lookup as a pure state machine: which route, which address, when to give up.
//!
//! The driving contract: after every [`Plan::handle`], call [`Plan::poll`] until it says [`Step::Wait`] or
//! [`Step::Done`]. Every `Connect`, `Resolve` and `Lookup` is answered by exactly one event unless a
//! [`Step::Cancel`] for it came first; answers to cancelled operations are ignored. `Done(Ok(op))` means: keep
//! the link of that operation, close every other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_route::{
    Address, Attempt, Cookie, Destination, Endpoint, Fallback, NetworkRoute, NodeName, Origin, ProxyRoute, ResolverId,
    RouteValue, Source, Version, interleave, later,
};

use crate::table::Candidate;
use crate::{AttemptError, Next, NoRoute, Reason, Record};

mod step;
mod through;

pub use step::{Event, FoundGateway, Lookup, OpId, Policy, Preview, Step};

/// One candidate: what is tried, because of what.
#[derive(Debug, Clone)]
struct Try {
    origin: Origin,
    attempt: Box<Attempt>,
    route: usize,
}

#[derive(Debug, Clone)]
enum Item {
    Dial(Try),
    Ask {
        origin: Origin,
        resolver: ResolverId,
        route: usize,
    },
    /// A resolver is asked about gateways.
    AskGateways {
        origin: Origin,
        resolver: ResolverId,
    },
    /// A way through a gateway.
    Relay(Hop),
    /// A route that gives no address for this name; it fails when its turn comes.
    Void {
        origin: Origin,
        address: String,
        error: AttemptError,
        route: usize,
    },
}

/// One way through a gateway.
#[derive(Debug, Clone)]
struct Hop {
    origin: Origin,
    proxy: Box<ProxyRoute>,
    attempt: Box<Attempt>,
}

impl Work {
    fn route(&self) -> usize {
        match self {
            Self::Resolving { route, .. } => *route,
            Self::LookingUp { what, .. } | Self::Dialing { what, .. } => what.route,
            Self::AskingGateways { .. } | Self::Relaying { .. } => NO_ROUTE,
        }
    }

    /// Returns true if the answer to this operation belongs to this stage.
    fn has(&self, wanted: OpId) -> bool {
        match self {
            Self::Resolving { op, .. }
            | Self::LookingUp { op, .. }
            | Self::AskingGateways { op, .. }
            | Self::Relaying { op, .. } => *op == wanted,
            Self::Dialing { live, .. } => live.iter().any(|dialing| dialing.op == wanted),
        }
    }
}

impl Item {
    fn route(&self) -> usize {
        match self {
            Self::Dial(Try { route, .. }) | Self::Ask { route, .. } | Self::Void { route, .. } => *route,
            Self::AskGateways { .. } | Self::Relay(_) => NO_ROUTE,
        }
    }
}

/// Discovery is no route of the table, and proxy routes have one of their own.
const NO_ROUTE: usize = usize::MAX;

#[derive(Debug)]
struct Dialing {
    op: OpId,
    to: Destination,
    began: Instant,
}

#[derive(Debug)]
enum Work {
    Resolving { op: OpId, origin: Origin, resolver: ResolverId, route: usize, began: Instant },
    LookingUp { op: OpId, what: Try, began: Instant, is_last: bool },
    Dialing { what: Try, began: Instant, live: Vec<Dialing>, rest: VecDeque<Destination>, next: Instant },
    AskingGateways { op: OpId, origin: Origin, resolver: ResolverId, began: Instant },
    Relaying { op: OpId, hop: Hop, began: Instant },
}

/// A lookup under way.
#[derive(Debug)]
pub struct Plan {
    lookup: Lookup,
    began: Instant,
    queue: VecDeque<Item>,
    /// Candidates that are remembered as failing: the end of the stage, in the order of the routes.
    late: VecDeque<Item>,
    /// Candidates whose host name was not resolved in time: looked up once more when nothing else is left.
    unresolved: VecDeque<Try>,
    discovery_left: bool,
    proxies_left: bool,
    gateways_left: bool,
    /// One candidate, or several of one weight that race.
    works: Vec<Work>,
    /// Beginning of the last candidate, and its route.
    last: Option<(Instant, usize)>,
    steps: VecDeque<Step>,
    records: Vec<Record>,
    /// For each record the attempt it is about, if it came to one.
    attempts: Vec<Option<Attempt>>,
    dials: usize,
    questions: usize,
    /// A bound, not the end of the candidates, stopped the search.
    cut: bool,
    next_op: u32,
    /// Routes and versions of which no other address is tried: the authenticated peer refused.
    refused_versions: Vec<(usize, Version)>,
    refused_cookies: Vec<(Address, Cookie)>,
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
        let proxies_left = fallback != Fallback::Never && !lookup.proxies.is_empty();
        let gateways_left = fallback != Fallback::Never && !lookup.gateways.is_empty();
        let mut plan = Self {
            began: now,
            queue: VecDeque::new(),
            late: VecDeque::new(),
            unresolved: VecDeque::new(),
            discovery_left,
            proxies_left,
            gateways_left,
            works: Vec::new(),
            last: None,
            steps: VecDeque::new(),
            records: Vec::new(),
            attempts: Vec::new(),
            dials: 0,
            questions: 0,
            cut: false,
            next_op: 0,
            refused_versions: Vec::new(),
            refused_cookies: Vec::new(),
            done: None,
            lookup,
        };
        let items = plan.static_items();
        plan.put_first(now, items);
        plan
    }

    fn static_items(&self) -> Vec<Item> {
        let item = |(route, candidate): (usize, &Candidate)| self.static_item(route, candidate);
        self.lookup.candidates.iter().enumerate().map(item).collect()
    }

    fn static_item(&self, route: usize, candidate: &Candidate) -> Item {
        let Lookup { target, defaults, given, .. } = &self.lookup;
        let pattern = candidate.pattern.clone();
        match candidate.route.source() {
            Source::Direct { host, port } => {
                let origin = if *given { Origin::Given } else { Origin::Static { pattern } };
                match candidate.route.attempt(target, None, defaults).map(|attempt| by(candidate, attempt)) {
                    Some(attempt) => Item::Dial(Try { origin, attempt: Box::new(attempt), route }),
                    None => {
                        let host = host.as_ref().map_or(target.host(), |host| host.as_str());
                        let error = AttemptError::Dns(format!("the name's host part {host:?} is no host").into());
                        Item::Void { origin, address: format!("{host}:{port}"), error, route }
                    }
                }
            }
            Source::Resolve { resolver, .. } => {
                let resolver = resolver.clone();
                let origin =
                    if *given { Origin::Given } else { Origin::StaticResolved { pattern, resolver: resolver.clone() } };
                Item::Ask { origin, resolver, route }
            }
        }
    }

    /// Puts items in front of the queue, in their order; what is remembered as failing goes to the end of the stage.
    fn put_first(&mut self, now: Instant, items: Vec<Item>) {
        let (last, first): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| self.is_failing(now, item));
        for item in first.into_iter().rev() {
            self.queue.push_front(item);
        }
        for item in last {
            let at = self.late.partition_point(|other| other.route() <= item.route());
            self.late.insert(at, item);
        }
    }

    /// Returns true if a failure is remembered against it.
    fn is_failing(&self, now: Instant, item: &Item) -> bool {
        let attempt = match item {
            Item::Dial(what) => &what.attempt,
            Item::Relay(hop) => &hop.attempt,
            Item::Ask { .. } | Item::AskGateways { .. } | Item::Void { .. } => return false,
        };
        self.lookup.memory.against(now, attempt).is_some()
    }

    fn discovery_items(&self) -> Vec<Item> {
        let ask = |resolver: &ResolverId| Item::Ask {
            origin: Origin::Discovered { resolver: resolver.clone() },
            resolver: resolver.clone(),
            route: NO_ROUTE,
        };
        self.lookup.discovery.iter().map(ask).collect()
    }

    /// Returns the steps that would be tried, in order, without asking a resolver.
    pub fn preview(&self, now: Instant) -> Vec<Preview> {
        let mut items: Vec<_> = self.queue.iter().chain(&self.late).cloned().collect();
        if self.discovery_left {
            items.extend(self.discovery_items());
        }
        if self.proxies_left {
            let (failing, fine): (Vec<_>, Vec<_>) =
                self.proxy_items().into_iter().partition(|item| self.is_failing(now, item));
            items.extend(fine.into_iter().chain(failing));
        }
        if self.gateways_left {
            items.extend(self.gateway_items());
        }
        let line = |item: Item| {
            let of_proxy = |hop: &Hop| {
                let Lookup { proxies, .. } = &self.lookup;
                proxies.iter().find(|proxy| Some(&proxy.pattern) == hop.attempt.policy.route.as_ref())
            };
            let weight = match &item {
                Item::Relay(hop) => of_proxy(hop).map(|proxy| proxy.weight),
                item => self.lookup.candidates.get(item.route()).map(|c| c.weight),
            };
            let values = self.values(&item);
            let (address, attempt, origin) = match item {
                Item::Dial(Try { origin, attempt, .. }) => (Some(attempt.address.to_string()), Some(*attempt), origin),
                Item::Ask { origin, .. } | Item::AskGateways { origin, .. } => (None, None, origin),
                Item::Relay(Hop { origin, proxy, attempt }) => {
                    (Some(proxy.gateway().to_string()), Some(*attempt), origin)
                }
                Item::Void { origin, address, .. } => (Some(address), None, origin),
            };
            let remembered = attempt.as_ref().and_then(|attempt| {
                let memory = &self.lookup.memory;
                let refused = memory.refuses_cookie(now, attempt).map(|left| (left, AttemptError::CookieRefused(left)));
                refused.or_else(|| memory.against(now, attempt).map(|(left, error)| (left, error.clone())))
            });
            Preview { origin, weight, address, attempt, remembered, values }
        };
        items.into_iter().map(line).collect()
    }

    /// Returns the facts about a candidate that are known without asking, and their source.
    fn values(&self, item: &Item) -> Vec<RouteValue> {
        let Lookup { target, candidates, defaults, .. } = &self.lookup;
        match (candidates.get(item.route()), item) {
            (Some(own), _) => own.route.values(target, defaults),
            (None, Item::Ask { resolver, .. }) => match candidates.first() {
                Some(best) => best.route.values_at(resolver, defaults),
                None => NetworkRoute::resolved_by(resolver.clone()).build().values(target, defaults),
            },
            // Of the final node; nobody dials its address.
            (None, Item::Relay(hop)) => {
                let mut values = hop.proxy.target_route().values(target, defaults);
                values.retain(|value| value.what != "address");
                values
            }
            (None, _) => Vec::new(),
        }
    }

    /// Every attempt so far, in the order they ended.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The attempt a record is about; `None` when it did not come to one.
    pub(crate) fn attempt_of(&self, record: usize) -> Option<&Attempt> {
        self.attempts.get(record)?.as_ref()
    }

    /// The operation whose link is to be kept, once there is one.
    pub(crate) fn winner(&self) -> Option<OpId> {
        self.done.as_ref()?.as_ref().ok().copied()
    }

    /// Takes an event.
    ///
    /// [`AttemptError::Adopted`] is no failure: the operation ends without a record, and whether to wait for the
    /// other link or to go on is the driver's to say.
    pub fn handle(&mut self, now: Instant, event: Event) {
        if self.done.is_some() {
            return;
        }
        match event {
            Event::Resolved { op, answer } => self.resolved(now, op, answer),
            Event::LookedUp { op, answer } => self.looked_up(now, op, answer),
            Event::Gateways { op, answer } => self.gateways_found(now, op, answer),
            Event::Established { op, peer } => self.established(now, op, peer),
            Event::Failed { op, error } => match self.works.iter().find(|work| work.has(op)) {
                Some(Work::Resolving { .. }) => self.resolved(now, op, Err(error)),
                Some(Work::LookingUp { .. }) => self.looked_up(now, op, Err(error)),
                Some(Work::Dialing { .. }) => self.failed(now, op, error),
                Some(Work::AskingGateways { .. }) => self.gateways_found(now, op, Err(error)),
                Some(Work::Relaying { .. }) => self.relay_failed(now, op, error),
                None => {}
            },
        }
    }

    fn resolved(&mut self, now: Instant, op: OpId, answer: Result<Vec<Endpoint>, AttemptError>) {
        let is_it = |work: &mut Work| matches!(work, Work::Resolving { .. }) && work.has(op);
        let Some(Work::Resolving { origin, resolver, route, began, .. }) = self.end_work(is_it) else { return };
        let answer =
            answer.and_then(|found| if found.is_empty() { Err(AttemptError::ResolveEmpty) } else { Ok(found) });
        let endpoints = match answer {
            Ok(endpoints) => endpoints,
            Err(error) => return self.question_failed(now, origin, began, error),
        };
        let items = endpoints.iter().take(self.lookup.policy.max_answers);
        let items = items.filter_map(|endpoint| {
            let attempt = Box::new(self.attempt_for(route, &resolver, endpoint)?);
            Some(Item::Dial(Try { origin: origin.clone(), attempt, route }))
        });
        let items = items.collect();
        self.put_first(now, items);
    }

    /// The merge for an answer: its route's, or for discovery the demands of the best matching route.
    fn attempt_for(&self, route: usize, resolver: &ResolverId, endpoint: &Endpoint) -> Option<Attempt> {
        let Lookup { target, candidates, defaults, .. } = &self.lookup;
        let mut attempt = match (candidates.get(route), candidates.first()) {
            (Some(own), _) => by(own, own.route.attempt(target, Some(endpoint), defaults)?),
            (None, Some(best)) => by(best, best.route.attempt_at(target, endpoint, defaults)),
            (None, None) => {
                NetworkRoute::resolved_by(resolver.clone()).build().attempt(target, Some(endpoint), defaults)?
            }
        };
        attempt.policy.resolver = Some(resolver.clone());
        Some(attempt)
    }

    fn looked_up(&mut self, now: Instant, op: OpId, answer: Result<Vec<Destination>, AttemptError>) {
        let is_it = |work: &mut Work| matches!(work, Work::LookingUp { .. }) && work.has(op);
        let Some(Work::LookingUp { what, began, .. }) = self.end_work(is_it) else { return };
        match answer.map(|found| interleave(found, self.lookup.policy.max_answers)) {
            Ok(rest) if rest.is_empty() => {
                self.attempt_failed(now, &what, None, began, AttemptError::Dns("no address".into()));
            }
            Ok(rest) => self.dial(now, what, rest, began),
            Err(error) => self.attempt_failed(now, &what, None, began, error),
        }
    }

    fn dial(&mut self, now: Instant, what: Try, rest: VecDeque<Destination>, began: Instant) {
        self.works.push(Work::Dialing { what, began, live: Vec::new(), rest, next: now });
    }

    /// Takes out the work that this is true of. The next candidate of its weight need not wait for its turn any more.
    fn end_work(&mut self, is_it: impl FnMut(&mut Work) -> bool) -> Option<Work> {
        let ended = self.works.extract_if(.., is_it).next();
        if let (Some(_), Some((last, _))) = (&ended, &mut self.last) {
            *last = self.began;
        }
        ended
    }

    fn established(&mut self, now: Instant, op: OpId, peer: NodeName) {
        let makes_a_link = |work: &Work| matches!(work, Work::Dialing { .. } | Work::Relaying { .. });
        if !self.works.iter().any(|work| makes_a_link(work) && work.has(op)) {
            return;
        }
        if peer != self.lookup.target {
            return self.handle(now, Event::Failed { op, error: AttemptError::WrongName { actual: peer.to_string() } });
        }
        self.cancel_all(Some(op));
        self.finish(Ok(op));
    }

    fn failed(&mut self, now: Instant, op: OpId, error: AttemptError) {
        let Some(Work::Dialing { what, live, rest, next, .. }) = self.works.iter_mut().find(|work| work.has(op)) else {
            return;
        };
        let Some(at) = live.iter().position(|d| d.op == op) else { return };
        let dialing = live.remove(at);
        let adopted = error == AttemptError::Adopted;
        // The next address of the host need not wait for its turn any more; with another attempt about to win it may.
        if !adopted || live.is_empty() {
            *next = now;
        }
        if error.next() != Next::Candidate {
            rest.clear();
        }
        let what = what.clone();
        let last = self.last;
        self.end_work(|work| matches!(work, Work::Dialing { live, rest, .. } if live.is_empty() && rest.is_empty()));
        if adopted {
            self.last = last;
        } else {
            self.attempt_failed(now, &what, dialing.to.socket(), dialing.began, error);
        }
    }

    fn attempt_failed(
        &mut self,
        now: Instant,
        what: &Try,
        socket: Option<SocketAddr>,
        began: Instant,
        error: AttemptError,
    ) {
        let attempt = &*what.attempt;
        if error == AttemptError::WrongCookie {
            self.refused_cookies.push((attempt.address.clone(), attempt.cookie.clone()));
        }
        if error.next() == Next::Route && what.route != NO_ROUTE {
            self.refused_versions.push((what.route, attempt.version.clone()));
        }
        let address = attempt.address.to_string();
        self.record(now, what.origin.clone(), address, socket, began, error, Some(attempt.clone()));
    }

    fn question_failed(&mut self, now: Instant, origin: Origin, began: Instant, error: AttemptError) {
        self.record(now, origin, String::new(), None, began, error, None);
    }

    #[expect(clippy::too_many_arguments, reason = "a record has that many sides; each caller has a different half")]
    fn record(
        &mut self,
        now: Instant,
        origin: Origin,
        address: String,
        socket: Option<SocketAddr>,
        began: Instant,
        error: AttemptError,
        attempt: Option<Attempt>,
    ) {
        let took = now.saturating_duration_since(began);
        let began = began.saturating_duration_since(self.began);
        let stop = error.next() == Next::Stop;
        self.records.push(Record { origin, address, socket, began, took, error });
        self.attempts.push(attempt);
        if stop {
            self.cancel_all(None);
            self.finish_failed(Reason::Stopped);
        }
    }

    fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn finish(&mut self, result: Result<OpId, NoRoute>) {
        self.works.clear();
        self.queue.clear();
        self.late.clear();
        self.unresolved.clear();
        self.discovery_left = false;
        (self.proxies_left, self.gateways_left) = (false, false);
        self.done = Some(result);
    }

    fn finish_failed(&mut self, reason: Reason) {
        let attempts = self.records.clone();
        self.finish(Err(NoRoute { target: self.lookup.target.clone(), reason, attempts }));
    }

    /// Cancels what is under way but `keep`, without recording it.
    fn cancel_all(&mut self, keep: Option<OpId>) {
        for work in &self.works {
            self.steps.extend(cancels(work).filter(|step| !matches!(step, Step::Cancel { op } if Some(*op) == keep)));
        }
    }

    /// Ends what has had its time, or everything when the lookup has: cancelled and recorded.
    fn time_out(&mut self, now: Instant, everything: bool) {
        let deadlines: Vec<_> = self.works.iter().map(|work| self.deadline(work)).collect();
        let mut deadlines = deadlines.into_iter();
        let over = |_: &mut Work| deadlines.next().is_some_and(|deadline| everything || now >= deadline);
        let over: Vec<_> = self.works.extract_if(.., over).collect();
        if let (false, Some((last, _))) = (over.is_empty(), &mut self.last) {
            *last = self.began;
        }
        for work in over {
            self.steps.extend(cancels(&work));
            match work {
                Work::Resolving { origin, began, .. } | Work::AskingGateways { origin, began, .. } => {
                    let error = AttemptError::ResolveTimeout(self.limit(began, self.lookup.policy.resolve));
                    self.question_failed(now, origin, began, error);
                }
                Work::LookingUp { what, began, is_last, .. } => {
                    let error = AttemptError::DnsTimeout(self.limit(began, self.dns_limit(is_last)));
                    self.attempt_failed(now, &what, None, began, error);
                    if !is_last && self.dns_limit(false) < self.dns_limit(true) {
                        self.unresolved.push_back(what);
                    }
                }
                Work::Relaying { hop, began, .. } => {
                    let error = AttemptError::CandidateTimeout(self.limit(began, self.lookup.policy.candidate));
                    self.hop_failed(now, hop, began, error);
                }
                Work::Dialing { what, began, live, rest, .. } => {
                    let error = AttemptError::CandidateTimeout(self.limit(began, self.lookup.policy.candidate));
                    if live.is_empty() && !rest.is_empty() {
                        self.attempt_failed(now, &what, None, began, error.clone());
                    }
                    for dialing in live {
                        self.attempt_failed(now, &what, dialing.to.socket(), dialing.began, error.clone());
                    }
                }
            }
        }
    }

    /// The time of a lookup of a host name; the last one of a candidate has all the time of the candidate.
    fn dns_limit(&self, is_last: bool) -> Duration {
        let Policy { dns, candidate, .. } = self.lookup.policy;
        if is_last { candidate } else { dns.min(candidate) }
    }

    /// The time that an operation begun then has: its own, and no more than the lookup's.
    fn limit(&self, began: Instant, own: Duration) -> Duration {
        own.min(self.stage_end().saturating_duration_since(began))
    }

    fn end(&self) -> Instant {
        later(self.began, self.lookup.policy.total)
    }

    /// Returns the end of the time for the present stage: direct ways leave half of the time to the gateways of routes, if there are any.
    fn stage_end(&self) -> Instant {
        if self.proxies_left { later(self.began, self.lookup.policy.total / 2) } else { self.end() }
    }

    fn deadline(&self, work: &Work) -> Instant {
        match work {
            Work::Resolving { began, .. } | Work::AskingGateways { began, .. } => {
                later(*began, self.lookup.policy.resolve)
            }
            Work::LookingUp { began, is_last, .. } => later(*began, self.dns_limit(*is_last)),
            Work::Dialing { began, .. } | Work::Relaying { began, .. } => later(*began, self.lookup.policy.candidate),
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
            if now >= self.end() {
                self.time_out(now, true);
                self.finish_failed(Reason::OutOfTime);
                continue;
            }
            if now >= self.stage_end() {
                self.time_out(now, true);
                self.queue.clear();
                self.late.clear();
                self.discovery_left = false;
                self.next_stage(now);
                continue;
            }
            if self.works.iter().any(|work| now >= self.deadline(work)) {
                self.time_out(now, false);
                continue;
            }
            if self.start_address(now) {
                continue;
            }
            let next_of_equals = self.next_of_equals();
            if self.works.is_empty() || next_of_equals.is_some_and(|(_, at)| now >= at) {
                if !self.start_item(now) && self.works.is_empty() {
                    let Lookup { candidates, proxies, .. } = &self.lookup;
                    let tried = !self.records.is_empty() || !candidates.is_empty() || !proxies.is_empty();
                    self.finish_failed(match tried {
                        _ if self.cut => Reason::TooMany,
                        true => Reason::AllFailed,
                        false => Reason::NoCandidate,
                    });
                }
                continue;
            }
            let next_address = self.works.iter().filter_map(|work| match work {
                Work::Dialing { rest, next, .. } if !rest.is_empty() => Some(*next),
                _ => None,
            });
            let deadlines = self.works.iter().map(|work| self.deadline(work));
            let until = deadlines
                .chain(next_address)
                .chain(next_of_equals.map(|(_, at)| at))
                .fold(self.stage_end(), Instant::min);
            return Step::Wait { until };
        }
    }

    /// Returns the candidate to begin beside those under way, and its time: the next of the weight of the last whose route is
    /// not among them. The answers to one route are tried in their order.
    fn next_of_equals(&self) -> Option<(usize, Instant)> {
        let (began, last) = self.last?;
        let pause = self.lookup.policy.equal_weights?;
        let weight = |route: usize| Some(self.lookup.candidates.get(route)?.weight);
        let equals = self.queue.iter().map(Item::route).take_while(|&route| weight(route) == weight(last));
        let idle = |route: usize| self.works.iter().all(|work| work.route() != route);
        let next = equals.enumerate().find(|&(_, route)| idle(route) && weight(route).is_some())?.0;
        let allowed = self.dials.max(self.questions) < self.lookup.policy.max_attempts;
        allowed.then_some((next, later(began, pause)))
    }

    /// Dials the next address of a host under way when it is its turn.
    fn start_address(&mut self, now: Instant) -> bool {
        (0..self.works.len()).any(|nth| self.start_address_of(nth, now))
    }

    fn start_address_of(&mut self, nth: usize, now: Instant) -> bool {
        let Policy { stagger, max_attempts, .. } = self.lookup.policy;
        let op = OpId(self.next_op + 1);
        let Some(Work::Dialing { what, live, rest, next, .. }) = self.works.get_mut(nth) else { return false };
        if self.dials >= max_attempts && !rest.is_empty() {
            rest.clear();
            self.cut = true;
        }
        if rest.is_empty() {
            let over = live.is_empty();
            if over {
                self.works.remove(nth);
            }
            return over;
        }
        if *next > now {
            return false;
        }
        let Some(to) = rest.pop_front() else { return false };
        *next = later(now, stagger);
        live.push(Dialing { op, to: to.clone(), began: now });
        let step = Step::Connect { op, attempt: what.attempt.clone(), to, origin: what.origin.clone() };
        self.next_op += 1;
        self.dials += 1;
        self.steps.push_back(step);
        true
    }

    /// The next candidate of this stage or the first of the following one.
    fn next_item(&mut self, now: Instant) -> Option<Item> {
        loop {
            let item = self.queue.pop_front().or_else(|| self.late.pop_front());
            if item.is_some() || !self.next_stage(now) {
                return item;
            }
        }
    }

    /// Puts the candidates of the next stage into the queue; false when there is none left.
    fn next_stage(&mut self, now: Instant) -> bool {
        let items = if std::mem::take(&mut self.discovery_left) {
            self.discovery_items()
        } else if std::mem::take(&mut self.proxies_left) {
            self.proxy_items()
        } else if std::mem::take(&mut self.gateways_left) {
            self.gateway_items()
        } else {
            return false;
        };
        self.put_first(now, items);
        true
    }

    /// Begins the next candidate; false when there is none left.
    fn start_item(&mut self, now: Instant) -> bool {
        let races = !self.works.is_empty();
        loop {
            let item = match races {
                true => self.next_of_equals().and_then(|(nth, _)| self.queue.remove(nth)),
                false => self.next_item(now),
            };
            let Some(item) = item else { return !races && self.look_up_again(now) };
            if let Item::Dial(what) = &item
                && self.is_refused(what)
            {
                continue;
            }
            if self.skip_wrong_cookie(now, &item) {
                continue;
            }
            self.last = Some((now, item.route()));
            let max = self.lookup.policy.max_attempts;
            if self.dials >= max || self.questions >= max {
                self.cut = true;
                return false;
            }
            match item {
                Item::Ask { origin, resolver, route } => {
                    let op = self.op();
                    self.questions += 1;
                    let target = self.lookup.target.clone();
                    self.steps.push_back(Step::Resolve { op, resolver: resolver.clone(), target });
                    self.works.push(Work::Resolving { op, origin, resolver, route, began: now });
                }
                Item::AskGateways { origin, resolver } => {
                    let op = self.op();
                    self.questions += 1;
                    let target = self.lookup.target.clone();
                    self.steps.push_back(Step::Gateways { op, resolver: resolver.clone(), target });
                    self.works.push(Work::AskingGateways { op, origin, resolver, began: now });
                }
                Item::Dial(what) => match what.attempt.address.socket() {
                    Some(socket) => self.dial(now, what, VecDeque::from([socket.into()]), now),
                    None => self.look_up(now, what, false),
                },
                Item::Relay(hop) => {
                    let op = self.op();
                    self.dials += 1;
                    let (route, attempt, origin) = (hop.proxy.clone(), hop.attempt.clone(), hop.origin.clone());
                    self.steps.push_back(Step::Relay { op, route, attempt, origin });
                    self.works.push(Work::Relaying { op, hop, began: now });
                }
                Item::Void { origin, address, error, .. } => {
                    self.questions += 1;
                    self.record(now, origin, address, None, now, error, None);
                }
            }
            return true;
        }
    }

    /// Records a candidate whose cookie was wrong a short time ago, without dialling it; false for any other one.
    fn skip_wrong_cookie(&mut self, now: Instant, item: &Item) -> bool {
        let (origin, address, attempt) = match item {
            Item::Dial(what) => (&what.origin, what.attempt.address.to_string(), &what.attempt),
            Item::Relay(hop) => (&hop.origin, hop.proxy.gateway().to_string(), &hop.attempt),
            Item::Ask { .. } | Item::AskGateways { .. } | Item::Void { .. } => return false,
        };
        let Some(left) = self.lookup.memory.refuses_cookie(now, attempt) else { return false };
        let error = AttemptError::CookieRefused(left);
        self.record(now, origin.clone(), address, None, now, error, Some((**attempt).clone()));
        true
    }

    /// Looks up once more a host name that was not resolved in time, when nothing else is left to try: the driver's lookup of
    /// it may have gone on meanwhile. False when there is none left.
    fn look_up_again(&mut self, now: Instant) -> bool {
        while let Some(what) = self.unresolved.pop_front() {
            if self.is_refused(&what) {
                continue;
            }
            let max = self.lookup.policy.max_attempts;
            if self.dials >= max || self.questions >= max {
                self.cut = true;
                return false;
            }
            self.last = Some((now, what.route));
            self.look_up(now, what, true);
            return true;
        }
        false
    }

    fn look_up(&mut self, now: Instant, what: Try, is_last: bool) {
        let op = self.op();
        self.questions += 1;
        self.steps.push_back(Step::Lookup { op, attempt: what.attempt.clone() });
        self.works.push(Work::LookingUp { op, what, began: now, is_last });
    }

    /// Returns true if this lookup has already learnt that the candidate cannot succeed.
    fn is_refused(&self, what: &Try) -> bool {
        let Attempt { address, cookie, version, .. } = &*what.attempt;
        self.refused_versions.iter().any(|(route, refused)| *route == what.route && refused == version)
            || self.refused_cookies.iter().any(|(at, refused)| at == address && refused == cookie)
    }
}

/// Returns the steps that cancel the operations of a work.
fn cancels(work: &Work) -> impl Iterator<Item = Step> {
    let ops = match work {
        Work::Resolving { op, .. }
        | Work::LookingUp { op, .. }
        | Work::AskingGateways { op, .. }
        | Work::Relaying { op, .. } => vec![*op],
        Work::Dialing { live, .. } => live.iter().map(|d| d.op).collect(),
    };
    ops.into_iter().map(|op| Step::Cancel { op })
}

/// The attempt says whose policy it has.
fn by(candidate: &Candidate, mut attempt: Attempt) -> Attempt {
    attempt.policy.route = Some(candidate.pattern.clone());
    attempt
}

/// The pattern shown for a route given with a call.
pub fn given(route: NetworkRoute) -> Vec<Candidate> {
    vec![Candidate { pattern: Arc::from("given"), weight: 0, route }]
}

#[cfg(test)]
mod tests;
