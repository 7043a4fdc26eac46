//! A virtual network and clock that drives a plan, and holds it to its contract at every step.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Behaviour of a socket: `after` is `None` for one that never answers.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) after: Option<Duration>,
    pub(super) result: Result<(), AttemptError>,
    /// Any other is refused.
    pub(super) cookie: Option<Cookie>,
}

impl Dial {
    pub(super) fn outcome(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        match &self.cookie {
            Some(cookie) if *cookie != attempt.cookie => Err(AttemptError::WrongCookie),
            _ => self.result.clone(),
        }
    }
}

pub(super) type Reply<T> = (Option<Duration>, Result<Vec<T>, AttemptError>);

/// Returns the destination that a text stands for: a socket address, or a host and its port.
pub(super) fn to(text: &str) -> Destination {
    text.parse::<SocketAddr>().map_or_else(|_| Destination::Host(text.parse().unwrap()), Destination::from)
}

/// Returns the destinations of an address whose host was looked up; `None` stands for the host itself.
pub(super) fn destinations(address: &Address, found: &[Option<IpAddr>]) -> Vec<Destination> {
    let to = |ip: &Option<IpAddr>| match ip {
        Some(ip) => SocketAddr::new(*ip, address.port.get()).into(),
        None => Destination::Host(address.clone()),
    };
    found.iter().map(to).collect()
}

/// Returns the destination that stands for a gateway: `gw3@dmz` is 192.0.2.3:1.
fn through(gateway: &NodeName) -> Destination {
    let number: String = gateway.as_str().chars().filter(char::is_ascii_digit).collect();
    to(&format!("192.0.2.{number}:1"))
}

/// Destinations that answer; all others never do.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) start: Instant,
    pub(super) target: NodeName,
    pub(super) resolvers: BTreeMap<String, Reply<Endpoint>>,
    /// Addresses of hosts; `None` is the host itself.
    pub(super) hosts: BTreeMap<String, Reply<Option<IpAddr>>>,
    pub(super) dials: BTreeMap<Destination, Dial>,
    /// Destinations at which another node answers.
    pub(super) others: BTreeMap<Destination, NodeName>,
    /// Gateways that resolvers know.
    pub(super) gateways: BTreeMap<String, Vec<FoundGateway>>,
}

/// Record of a lookup.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) result: Result<OpId, NoRoute>,
    pub(super) records: Vec<Record>,
    /// `r` and `dns:h`, in order.
    pub(super) asked: Vec<String>,
    pub(super) dialled: Vec<String>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) began: Vec<Duration>,
    pub(super) winner: Option<String>,
    pub(super) cancelled: usize,
    pub(super) took: Duration,
    /// Every step and event with its time: a failing case as a script.
    script: Vec<(Duration, Line)>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "they are printed")]
enum Line {
    Did(Step),
    Came(Event),
}

impl Ran {
    pub(super) fn won(&self) -> Option<&str> {
        self.winner.as_deref()
    }

    pub(super) fn script(&self) -> String {
        self.script.iter().map(|(at, line)| format!("{at:?} {line:?}\n")).collect()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            target: name(),
            resolvers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            dials: BTreeMap::new(),
            others: BTreeMap::new(),
            gateways: BTreeMap::new(),
        }
    }

    pub(super) fn dial(&mut self, text: &str, dial: Dial) {
        self.dials.insert(to(text), dial);
    }

    fn with(mut self, socket: &str, after: Option<u64>, result: Result<(), AttemptError>) -> Self {
        self.dial(socket, Dial { after: after.map(ms), result, cookie: None });
        self
    }

    pub(super) fn up(self, socket: &str, after: u64) -> Self {
        self.with(socket, Some(after), Ok(()))
    }

    pub(super) fn down(self, socket: &str, after: u64) -> Self {
        self.with(socket, Some(after), Err(tcp()))
    }

    pub(super) fn refuses(self, socket: &str, after: u64, error: AttemptError) -> Self {
        self.with(socket, Some(after), Err(error))
    }

    pub(super) fn never(self, socket: &str) -> Self {
        self.with(socket, None, Ok(()))
    }

    pub(super) fn answers(mut self, id: &str, after: u64, endpoints: &[&str]) -> Self {
        let endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
        self.resolvers.insert(id.into(), (Some(ms(after)), Ok(endpoints)));
        self
    }

    pub(super) fn leads(mut self, id: &str, gateways: &[(&str, bool)]) -> Self {
        let found = |(name, is_live): &(&str, bool)| FoundGateway { name: name.parse().unwrap(), is_live: *is_live };
        self.gateways.insert(id.into(), gateways.iter().map(found).collect());
        self
    }

    pub(super) fn fails(mut self, id: &str, after: u64, error: AttemptError) -> Self {
        self.resolvers.insert(id.into(), (Some(ms(after)), Err(error)));
        self
    }

    pub(super) fn dns(mut self, host: &str, after: u64, ips: &[&str]) -> Self {
        let ips = ips.iter().map(|text| Some(text.parse().unwrap())).collect();
        self.hosts.insert(host.into(), (Some(ms(after)), Ok(ips)));
        self
    }

    /// A host that the transport takes by its name.
    pub(super) fn takes(mut self, host: &str, after: u64) -> Self {
        self.hosts.insert(host.into(), (Some(ms(after)), Ok(vec![None])));
        self
    }

    /// Runs a lookup. Answers to cancelled operations still arrive, to be ignored.
    pub(super) fn run(&self, lookup: Lookup) -> Ran {
        let mut plan = Plan::new(lookup, self.start);
        let mut ran = Ran {
            result: Ok(OpId(0)),
            records: vec![],
            asked: vec![],
            dialled: vec![],
            attempts: vec![],
            began: vec![],
            winner: None,
            cancelled: 0,
            took: Duration::ZERO,
            script: vec![],
        };
        let mut now = Duration::ZERO;
        let mut coming: BTreeMap<(Duration, bool, OpId), Event> = BTreeMap::new();
        let mut open: BTreeMap<OpId, Option<Destination>> = BTreeMap::new();
        let mut known = BTreeSet::new();
        let mut established = None;
        for _ in 0..100_000 {
            let step = plan.poll(self.start + now);
            ran.script.push((now, Line::Did(step.clone())));
            let mut expect = |op: OpId, after: Option<Duration>, event: Event| {
                assert!(known.insert(op), "{op:?} twice");
                if let Some(after) = after {
                    coming.insert((now + after, false, op), event);
                }
            };
            match step {
                Step::Resolve { op, resolver, target } => {
                    assert_eq!(target, self.target);
                    ran.asked.push(resolver.to_string());
                    let (after, answer) = self.resolvers.get(resolver.as_str()).cloned().unwrap_or((None, Ok(vec![])));
                    expect(op, after, Event::Resolved { op, answer });
                    open.insert(op, None);
                }
                Step::Gateways { op, resolver, .. } => {
                    ran.asked.push(format!("gateways:{resolver}"));
                    let answer = self.gateways.get(resolver.as_str()).cloned().unwrap_or_default();
                    expect(op, Some(ms(1)), Event::Gateways { op, answer: Ok(answer) });
                    open.insert(op, None);
                }
                Step::Lookup { op, attempt } => {
                    let host = &attempt.address.host;
                    assert_eq!(host.ip(), None);
                    ran.asked.push(format!("dns:{host}"));
                    let (after, answer) = self.hosts.get(host.as_str()).cloned().unwrap_or((None, Ok(vec![])));
                    let answer = answer.map(|found| destinations(&attempt.address, &found));
                    expect(op, after, Event::LookedUp { op, answer });
                    open.insert(op, None);
                }
                Step::Connect { op, attempt, to, .. } => {
                    let dial = self.dials.get(&to).cloned();
                    let dial = dial.unwrap_or(Dial { after: None, result: Ok(()), cookie: None });
                    let event = match dial.outcome(&attempt) {
                        Ok(()) => {
                            let peer = self.others.get(&to).unwrap_or(&self.target).clone();
                            Event::Established { op, peer }
                        }
                        Err(error) => Event::Failed { op, error },
                    };
                    expect(op, dial.after, event);
                    ran.dialled.push(to.to_string());
                    open.insert(op, Some(to));
                    ran.began.push(now);
                    ran.attempts.push(*attempt);
                }
                Step::Relay { op, route, attempt, .. } => {
                    let to = through(route.gateway());
                    let dial = self.dials.get(&to).cloned();
                    let dial = dial.unwrap_or(Dial { after: None, result: Ok(()), cookie: None });
                    let event = match dial.outcome(&attempt) {
                        Ok(()) => Event::Established { op, peer: self.target.clone() },
                        Err(error) => Event::Failed { op, error },
                    };
                    expect(op, dial.after, event);
                    open.insert(op, Some(to));
                    ran.dialled.push(route.gateway().to_string());
                    ran.began.push(now);
                    ran.attempts.push(*attempt);
                }
                Step::Cancel { op } => {
                    assert!(open.remove(&op).is_some(), "{op:?} is not under way: {}", ran.script());
                    ran.cancelled += 1;
                    // Of what comes at one time, answers that are awaited come first.
                    if let Some(key) = coming.keys().find(|key| key.2 == op).copied() {
                        let event = coming.remove(&key).unwrap();
                        coming.insert((key.0, true, op), event);
                    }
                }
                Step::Wait { until } => {
                    let until = until - self.start;
                    assert!(until > now, "a wait for the past: {}", ran.script());
                    assert!(!open.is_empty(), "a wait for nothing: {}", ran.script());
                    match coming.first_key_value() {
                        Some(((at, ..), _)) if *at <= until => {
                            let ((at, _, op), event) = coming.pop_first().unwrap();
                            now = at;
                            ran.script.push((now, Line::Came(event.clone())));
                            if let Some(Some(to)) = open.remove(&op)
                                && matches!(event, Event::Established { .. })
                            {
                                established = Some((op, to));
                            }
                            plan.handle(self.start + now, event);
                        }
                        _ => now = until,
                    }
                }
                Step::Done(result) => {
                    assert!(open.is_empty(), "{open:?} neither answered nor cancelled: {}", ran.script());
                    if let Ok(op) = result {
                        let (won, to) = established.expect("something was established");
                        assert_eq!(op, won);
                        ran.winner = Some(to.to_string());
                    }
                    assert_eq!(plan.poll(self.start + now), Step::Done(result.clone()), "the end is the end");
                    if let Err(no_route) = &result {
                        assert_eq!(no_route.attempts, plan.records());
                    }
                    ran.result = result;
                    ran.records = plan.records().to_vec();
                    ran.took = now;
                    return ran;
                }
            }
        }
        panic!("no end: {}", ran.script())
    }
}
