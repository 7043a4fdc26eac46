//! The order of attempts, told once more: each stage is a set of entries from which the least key goes first, and a
//! host is dialled by looking for whatever happens next.

use std::collections::VecDeque;

use super::world::{World, destinations};
use super::*;

/// Expected result of a lookup.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) dialled: Vec<String>,
    pub(super) began: Vec<Duration>,
    pub(super) asked: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) won: Option<String>,
    pub(super) reason: Option<Reason>,
    pub(super) took: Duration,
}

enum End {
    Won(Destination),
    Lost(Reason),
}

enum What {
    Ask(ResolverId),
    Dial(Attempt),
    Void(String),
}

/// Remembered failures after everything else, then by route or resolver, then by answer.
type Key = (bool, usize, usize);

struct Entry {
    key: Key,
    origin: Origin,
    /// The route of the table; none for discovery.
    route: Option<usize>,
    what: What,
}

struct Model<'a> {
    world: &'a World,
    lookup: &'a Lookup,
    now: Duration,
    questions: usize,
    cut: bool,
    /// Candidates whose host was not resolved in time.
    unresolved: Vec<Entry>,
    refused_cookies: Vec<(Address, Cookie)>,
    refused_versions: Vec<(usize, Version)>,
    out: Expected,
}

pub(super) fn expected(world: &World, lookup: &Lookup) -> Expected {
    let mut model = Model {
        world,
        lookup,
        now: Duration::ZERO,
        questions: 0,
        cut: false,
        unresolved: vec![],
        refused_cookies: vec![],
        refused_versions: vec![],
        out: Expected::default(),
    };
    match model.stages().and_then(|()| model.last_lookups()) {
        Ok(()) => {
            let tried = !model.out.records.is_empty() || !lookup.candidates.is_empty();
            let lost = if tried { Reason::AllFailed } else { Reason::NoCandidate };
            model.out.reason = Some(if model.cut { Reason::TooMany } else { lost });
        }
        Err(End::Won(to)) => model.out.won = Some(to.to_string()),
        Err(End::Lost(reason)) => model.out.reason = Some(reason),
    }
    model.out.took = model.now;
    model.out
}

impl Model<'_> {
    fn stages(&mut self) -> Result<(), End> {
        let Lookup { candidates, policy, given, .. } = self.lookup;
        let statics = candidates.iter().enumerate().map(|(n, candidate)| self.static_entry(n, candidate)).collect();
        self.stage(statics)?;
        let never = *given || candidates.iter().any(|c| c.route.fallback_never());
        let on = match policy.fallback {
            Fallback::Never => false,
            Fallback::OnMiss => candidates.is_empty(),
            Fallback::OnFailure => true,
        };
        if on && !never {
            let ask = |(n, id): (usize, &ResolverId)| Entry {
                key: (false, n, 0),
                origin: Origin::Discovered { resolver: id.clone() },
                route: None,
                what: What::Ask(id.clone()),
            };
            self.stage(self.lookup.discovery.iter().enumerate().map(ask).collect())?;
        }
        Ok(())
    }

    /// A host that was not resolved in time is looked up once more, after everything else.
    fn last_lookups(&mut self) -> Result<(), End> {
        for entry in std::mem::take(&mut self.unresolved) {
            let What::Dial(attempt) = &entry.what else { unreachable!("only a dial looks a host up") };
            if self.is_refused(&entry, attempt) {
                continue;
            }
            self.has_attempts_left()?;
            self.dial(&entry, attempt, true)?;
            self.in_time()?;
        }
        Ok(())
    }

    fn is_refused(&self, entry: &Entry, attempt: &Attempt) -> bool {
        self.refused_cookies.contains(&(attempt.address.clone(), attempt.cookie.clone()))
            || entry.route.is_some_and(|n| self.refused_versions.contains(&(n, attempt.version.clone())))
    }

    fn has_attempts_left(&self) -> Result<(), End> {
        let max = self.lookup.policy.max_attempts;
        if self.questions >= max || self.out.dialled.len() >= max { Err(End::Lost(Reason::TooMany)) } else { Ok(()) }
    }

    fn static_entry(&self, n: usize, candidate: &Candidate) -> Entry {
        let Lookup { target, defaults, given, .. } = self.lookup;
        let pattern = candidate.pattern.clone();
        let (origin, what) = match candidate.route.source() {
            Source::Resolve { resolver, .. } => {
                (Origin::StaticResolved { pattern, resolver: resolver.clone() }, What::Ask(resolver.clone()))
            }
            Source::Direct { port, .. } => match candidate.route.attempt(target, None, defaults) {
                Some(attempt) => (Origin::Static { pattern }, What::Dial(attempt)),
                None => (Origin::Static { pattern }, What::Void(format!("{}:{port}", target.host()))),
            },
        };
        let remembered = matches!(&what, What::Dial(attempt) if self.is_remembered(attempt));
        let origin = if *given { Origin::Given } else { origin };
        Entry { key: (remembered, n, 0), origin, route: Some(n), what }
    }

    fn is_remembered(&self, attempt: &Attempt) -> bool {
        self.lookup.memory.against(self.world.start + self.now, attempt).is_some()
    }

    fn in_time(&self) -> Result<(), End> {
        if self.now >= self.lookup.policy.total { Err(End::Lost(Reason::OutOfTime)) } else { Ok(()) }
    }

    fn stage(&mut self, mut open: Vec<Entry>) -> Result<(), End> {
        self.in_time()?;
        while let Some(at) = (0..open.len()).min_by_key(|n| open[*n].key) {
            let entry = open.remove(at);
            if let What::Dial(attempt) = &entry.what
                && self.is_refused(&entry, attempt)
            {
                continue;
            }
            if let What::Dial(attempt) = &entry.what
                && let Some(left) = self.lookup.memory.refuses_cookie(self.world.start + self.now, attempt)
            {
                let error = AttemptError::CookieRefused(left);
                self.record(&entry.origin, attempt.address.to_string(), None, self.now, error)?;
                continue;
            }
            self.has_attempts_left()?;
            match &entry.what {
                What::Void(address) => {
                    self.questions += 1;
                    let error = AttemptError::Dns(
                        format!("the name's host part {:?} is no host", self.lookup.target.host()).into(),
                    );
                    self.record(&entry.origin, address.clone(), None, self.now, error)?;
                }
                What::Ask(id) => open.extend(self.ask(&entry, id)?),
                What::Dial(attempt) => {
                    if self.dial(&entry, attempt, false)? {
                        self.unresolved.push(entry);
                    }
                }
            }
            self.in_time()?;
        }
        Ok(())
    }

    /// Waits for an answer, at most so long; none in time is the time it had.
    fn question<T: Clone>(
        &mut self,
        reply: Option<&world::Reply<T>>,
        limit: Duration,
    ) -> Result<Result<Vec<T>, AttemptError>, Duration> {
        self.questions += 1;
        let limit = limit.min(self.lookup.policy.total - self.now);
        match reply {
            // An answer in the last moment counts; no time at all is none.
            Some((Some(after), answer)) if *after <= limit && !limit.is_zero() => {
                self.now += *after;
                Ok(answer.clone())
            }
            _ => {
                self.now += limit;
                Err(limit)
            }
        }
    }

    fn ask(&mut self, entry: &Entry, id: &ResolverId) -> Result<Vec<Entry>, End> {
        let Lookup { target, candidates, defaults, policy, .. } = self.lookup;
        self.out.asked.push(id.to_string());
        let began = self.now;
        let answer = self.question(self.world.resolvers.get(id.as_str()), policy.resolve);
        let answer = answer.unwrap_or_else(|limit| Err(AttemptError::ResolveTimeout(limit)));
        let endpoints = match answer {
            Ok(endpoints) if endpoints.is_empty() => Err(AttemptError::ResolveEmpty),
            answer => answer,
        };
        let endpoints = match endpoints {
            Ok(endpoints) => endpoints,
            Err(error) => {
                self.record(&entry.origin, String::new(), None, began, error)?;
                return Ok(vec![]);
            }
        };
        let answered = |(n, endpoint): (usize, &Endpoint)| {
            let attempt = match (entry.route, candidates.first()) {
                (Some(own), _) => candidates[own].route.attempt(target, Some(endpoint), defaults).unwrap(),
                (None, Some(best)) => best.route.attempt_at(target, endpoint, defaults),
                (None, None) => by(id.as_str()).attempt(target, Some(endpoint), defaults).unwrap(),
            };
            let key = (self.is_remembered(&attempt), entry.key.1, n + 1);
            Entry { key, origin: entry.origin.clone(), route: entry.route, what: What::Dial(attempt) }
        };
        Ok(endpoints.iter().enumerate().take(policy.max_answers).map(answered).collect())
    }

    /// Says whether the host was not resolved in time and is worth another lookup.
    fn dial(&mut self, entry: &Entry, attempt: &Attempt, is_last: bool) -> Result<bool, End> {
        let policy = self.lookup.policy;
        let candidate_began = self.now;
        let found = match attempt.address.host.ip() {
            Some(ip) => vec![Some(ip)],
            None => {
                self.out.asked.push(format!("dns:{}", attempt.address.host));
                let reply = self.world.hosts.get(attempt.address.host.as_str());
                let limit = if is_last { policy.candidate } else { policy.dns.min(policy.candidate) };
                let answer = self.question(reply, limit);
                let again = answer.is_err() && !is_last && policy.dns < policy.candidate;
                let error = match answer.unwrap_or_else(|limit| Err(AttemptError::DnsTimeout(limit))) {
                    Ok(found) if found.is_empty() => Err(AttemptError::Dns("no address".into())),
                    answer => answer,
                };
                match error {
                    Ok(found) => found,
                    Err(error) => {
                        self.failed(entry, attempt, None, candidate_began, error)?;
                        return Ok(again);
                    }
                }
            }
        };
        let mut rest: VecDeque<_> =
            alternate(&destinations(&attempt.address, &found)).into_iter().take(policy.max_answers).collect();
        let mut live: Vec<(Option<Duration>, usize, Duration, Destination)> = vec![];
        let mut next = self.now;
        let end = (candidate_began + policy.candidate).min(policy.total);
        loop {
            if self.now >= end {
                let error = AttemptError::CandidateTimeout(end - candidate_began);
                if live.is_empty() && !rest.is_empty() {
                    self.failed(entry, attempt, None, candidate_began, error.clone())?;
                }
                for (_, _, began, to) in live {
                    self.failed(entry, attempt, to.socket(), began, error.clone())?;
                }
                return Ok(false);
            }
            while next <= self.now && !rest.is_empty() && self.out.dialled.len() < policy.max_attempts {
                let to = rest.pop_front().unwrap();
                let after = self.world.dials.get(&to).and_then(|dial| dial.after);
                let nth = self.out.dialled.len();
                self.out.dialled.push(to.to_string());
                live.push((after.map(|after| self.now + after), nth, self.now, to));
                self.out.began.push(self.now);
                next = self.now + policy.stagger;
            }
            if self.out.dialled.len() >= policy.max_attempts && !rest.is_empty() {
                rest.clear();
                self.cut = true;
            }
            if rest.is_empty() && live.is_empty() {
                return Ok(false);
            }
            let until = if rest.is_empty() { end } else { end.min(next) };
            let ending = live.iter().filter(|(ends, ..)| ends.is_some_and(|ends| ends <= until)).min();
            let Some((Some(ends), seq, began, to)) = ending.cloned() else {
                self.now = until;
                continue;
            };
            self.now = ends;
            live.retain(|(_, other, ..)| *other != seq);
            let outcome = match (self.world.dials[&to].outcome(attempt), self.world.others.get(&to)) {
                (Ok(()), Some(other)) => Err(AttemptError::WrongName { actual: other.to_string() }),
                (outcome, _) => outcome,
            };
            let Err(error) = outcome else { return Err(End::Won(to)) };
            next = self.now;
            if error.next() != Next::Candidate {
                rest.clear();
            }
            self.failed(entry, attempt, to.socket(), began, error)?;
        }
    }

    fn failed(
        &mut self,
        entry: &Entry,
        attempt: &Attempt,
        socket: Option<SocketAddr>,
        began: Duration,
        error: AttemptError,
    ) -> Result<(), End> {
        match (&error, entry.route) {
            (AttemptError::WrongCookie, _) => {
                self.refused_cookies.push((attempt.address.clone(), attempt.cookie.clone()));
            }
            (AttemptError::Version(_), Some(route)) => self.refused_versions.push((route, attempt.version.clone())),
            _ => {}
        }
        self.record(&entry.origin, attempt.address.to_string(), socket, began, error)
    }

    fn record(
        &mut self,
        origin: &Origin,
        address: String,
        socket: Option<SocketAddr>,
        began: Duration,
        error: AttemptError,
    ) -> Result<(), End> {
        let stop = matches!(error, AttemptError::Myself | AttemptError::Local(_));
        self.out.records.push(Record { origin: origin.clone(), address, socket, began, took: self.now - began, error });
        if stop { Err(End::Lost(Reason::Stopped)) } else { Ok(()) }
    }
}

/// RFC 8305 §4 with one address of the preferred family first.
fn alternate(found: &[Destination]) -> Vec<Destination> {
    let mut once: Vec<&Destination> = vec![];
    once.extend(found.iter().enumerate().filter(|(n, one)| !found[..*n].contains(one)).map(|(_, one)| one));
    let is_v6 = |one: &Destination| matches!(one, Destination::Socket(SocketAddr::V6(_)));
    let rank =
        |one: &Destination| once.iter().filter(|other| is_v6(other) == is_v6(one)).position(|other| *other == one);
    let mut ranked: Vec<_> = once.iter().map(|one| (rank(one), is_v6(one) != is_v6(once[0]), *one)).collect();
    ranked.sort();
    ranked.into_iter().map(|(_, _, one)| one.clone()).collect()
}
