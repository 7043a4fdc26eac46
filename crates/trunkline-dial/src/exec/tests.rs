use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trunkline_route::{Address, Cookie, Defaults, NetworkRoute};

use super::*;
use crate::memory::Memory;
use crate::plan::Policy;
use crate::table::Candidate;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn name() -> NodeName {
    "db@h".parse().unwrap()
}

/// Behaviour of an address after a delay.
#[derive(Debug, Clone)]
enum Does {
    Up,
    Fail(AttemptError),
    Panic,
    Never,
    Other,
}

/// Counts what is open: each link and each attempt under way holds one.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct FakeLink {
    to: Destination,
    _open: Open,
}

#[derive(Default)]
struct Fake {
    does: HashMap<String, (Duration, Does)>,
    hosts: HashMap<String, Vec<&'static str>>,
    under_way: Arc<AtomicUsize>,
    links: Arc<AtomicUsize>,
    observed: Mutex<Vec<(String, Option<AttemptError>)>>,
    records: Mutex<Vec<Record>>,
}

impl Fake {
    fn at(mut self, address: &str, after: u64, does: Does) -> Self {
        self.does.insert(address.into(), (ms(after), does));
        self
    }

    fn host(mut self, host: &str, ips: &[&'static str]) -> Self {
        self.hosts.insert(host.into(), ips.to_vec());
        self
    }

    fn open(&self) -> (usize, usize) {
        (self.under_way.load(Ordering::SeqCst), self.links.load(Ordering::SeqCst))
    }

    fn observed(&self) -> Vec<(String, Option<AttemptError>)> {
        self.observed.lock().unwrap().clone()
    }
}

impl Ports for Fake {
    type Link = FakeLink;

    async fn resolve(&self, resolver: ResolverId, _: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        let _open = Open::new(&self.under_way);
        match resolver.as_str() {
            "broken" => panic!("a resolver with a bug"),
            "mute" => std::future::pending().await,
            other => Ok(vec![Endpoint::at(other.replace('_', ":").parse().unwrap())]),
        }
    }

    async fn lookup(&self, attempt: Attempt) -> Result<Vec<Destination>, AttemptError> {
        let _open = Open::new(&self.under_way);
        let Address { host, port } = &attempt.address;
        if host.as_str().ends_with(".mem") {
            return Ok(vec![Destination::Host(attempt.address)]);
        }
        let ips = self.hosts.get(host.as_str()).ok_or_else(|| AttemptError::Dns("no such host".into()))?;
        Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port.get()).into()).collect())
    }

    async fn connect(&self, _: Attempt, to: Destination) -> Result<(NodeName, FakeLink), AttemptError> {
        let _open = Open::new(&self.under_way);
        let (after, does) = self.does[&to.to_string()].clone();
        tokio::time::sleep(after).await;
        let link = FakeLink { to, _open: Open::new(&self.links) };
        match does {
            Does::Up => Ok((name(), link)),
            Does::Other => Ok(("other@h".parse().unwrap(), link)),
            Does::Fail(error) => Err(error),
            Does::Panic => panic!("an attempt with a bug"),
            Does::Never => {
                drop(link);
                std::future::pending().await
            }
        }
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        self.observed.lock().unwrap().push((attempt.address.to_string(), failure.cloned()));
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        assert_eq!(*target, name());
        self.records.lock().unwrap().push(record.clone());
    }
}

fn tcp() -> AttemptError {
    AttemptError::Tcp("refused".into())
}

fn routes(routes: Vec<NetworkRoute>) -> Lookup {
    let candidate = |route| Candidate { pattern: "p".into(), weight: 1, route };
    Lookup {
        target: name(),
        candidates: routes.into_iter().map(candidate).collect(),
        discovery: vec![],
        gateways: Vec::new(),
        proxies: Vec::new(),
        defaults: Defaults::new(Cookie::new("a cookie").unwrap()),
        policy: Policy::default(),
        memory: Memory::new(),
        given: false,
    }
}

fn to(addresses: &[&str]) -> Lookup {
    let route = |address: &&str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        NetworkRoute::direct(host, port.parse().unwrap()).unwrap().build()
    };
    routes(addresses.iter().map(route).collect())
}

async fn ran(fake: Fake, lookup: Lookup) -> (Arc<Fake>, Result<Found<FakeLink>, NoRoute>) {
    let fake = Arc::new(fake);
    let found = run(fake.clone(), lookup).await;
    settle().await;
    assert_eq!(fake.open().0, 0, "an attempt outlives the lookup");
    let records = fake.records.lock().unwrap().clone();
    if let Err(no_route) = &found {
        assert_eq!(no_route.attempts, records);
    }
    (fake, found)
}

/// Lets the runtime drop what was aborted.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

fn dialled(found: Result<Found<FakeLink>, NoRoute>) -> String {
    match found {
        Ok(Found::Link(link)) => link.to.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_that_connects_is_the_link() {
    let (fake, found) = ran(Fake::default().at("10.0.0.1:1", 5, Does::Up), to(&["10.0.0.1:1", "10.0.0.2:1"])).await;
    assert_eq!(fake.open(), (0, 1));
    assert_eq!(dialled(found), "10.0.0.1:1");
    assert_eq!(fake.open(), (0, 0), "dropping the link closes it");
    assert_eq!(fake.observed(), [("10.0.0.1:1".into(), None)]);
}

#[tokio::test(start_paused = true)]
async fn a_transport_may_take_the_host_itself() {
    let fake = Fake::default().at("db.mem:1", 5, Does::Fail(tcp())).at("web.mem:1", 5, Does::Up);
    let (fake, found) = ran(fake, to(&["db.mem:1", "web.mem:1"])).await;
    assert_eq!(dialled(found), "web.mem:1");
    assert_eq!(fake.observed(), [("db.mem:1".into(), Some(tcp())), ("web.mem:1".into(), None)]);
}

#[tokio::test(start_paused = true)]
async fn failures_are_observed_and_the_next_is_tried() {
    let fake = Fake::default().at("10.0.0.1:1", 5, Does::Fail(tcp())).at("10.0.0.2:1", 5, Does::Up);
    let (fake, found) = ran(fake, to(&["nowhere:1", "10.0.0.1:1", "10.0.0.2:1"])).await;
    assert_eq!(dialled(found), "10.0.0.2:1");
    let dns = AttemptError::Dns("no such host".into());
    let expected = [("nowhere:1".into(), Some(dns)), ("10.0.0.1:1".into(), Some(tcp())), ("10.0.0.2:1".into(), None)];
    assert_eq!(fake.observed(), expected);
    assert_eq!(fake.records.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_has_failed() {
    let broken = NetworkRoute::resolved_by(ResolverId::new("broken").unwrap()).build();
    let mut lookup = to(&["10.0.0.1:1", "10.0.0.2:1"]);
    lookup.candidates.insert(0, Candidate { pattern: "r".into(), weight: 9, route: broken });
    let began = now();
    let fake = Fake::default().at("10.0.0.1:1", 0, Does::Panic).at("10.0.0.2:1", 0, Does::Up);
    let (fake, found) = ran(fake, lookup).await;
    assert_eq!(dialled(found), "10.0.0.2:1");
    assert!(now() - began < ms(100), "nobody waited for the dead");
    let errors: Vec<_> = fake.records.lock().unwrap().iter().map(|r| r.error.clone()).collect();
    assert_eq!(errors, [AttemptError::Panicked, AttemptError::Panicked]);
}

#[tokio::test(start_paused = true)]
async fn p27_dropping_the_future_cancels_everything() {
    let fake = Fake::default().host("h", &["10.0.0.1", "10.0.0.2"]);
    let fake = Arc::new(fake.at("10.0.0.1:1", 0, Does::Never).at("10.0.0.2:1", 0, Does::Never));
    for route in ["h:1", "10.0.0.1:1"] {
        let lookup = to(&[route]);
        let dropped = tokio::time::timeout(ms(1000), run(fake.clone(), lookup)).await;
        assert!(dropped.is_err());
        settle().await;
        assert_eq!(fake.open(), (0, 0));
    }
    let asking = NetworkRoute::resolved_by(ResolverId::new("mute").unwrap()).build();
    assert!(tokio::time::timeout(ms(100), run(fake.clone(), routes(vec![asking]))).await.is_err());
    settle().await;
    assert_eq!(fake.open(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn p33_losers_of_a_stagger_leave_no_link_and_no_failure() {
    let fake = Fake::default().host("h", &["10.0.0.1", "10.0.0.2"]).at("10.0.0.1:1", 400, Does::Up);
    let (fake, found) = ran(fake.at("10.0.0.2:1", 50, Does::Up), to(&["h:1"])).await;
    assert_eq!(fake.open(), (0, 1));
    assert_eq!(dialled(found), "10.0.0.2:1");
    tokio::time::sleep(ms(1000)).await;
    assert_eq!(fake.open(), (0, 0));
    assert_eq!(fake.observed(), [("h:1".into(), None)]);
}

#[tokio::test(start_paused = true)]
async fn two_that_come_at_once_leave_one_link() {
    let fake = Fake::default().host("h", &["10.0.0.1", "10.0.0.2"]).at("10.0.0.1:1", 300, Does::Up);
    let (fake, found) = ran(fake.at("10.0.0.2:1", 50, Does::Up), to(&["h:1"])).await;
    assert_eq!(fake.open(), (0, 1));
    drop(found);
    assert_eq!(fake.open(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_loser_after_a_time_out_of_the_same_address_is_no_failure() {
    let fake = Fake::default().host("h", &["10.0.0.1", "10.0.0.2"]);
    let mut lookup = to(&["10.0.0.1:1", "10.0.0.3:1", "h:1"]);
    lookup.policy.candidate = ms(600);
    let fake = fake.at("10.0.0.1:1", 700, Does::Up).at("10.0.0.2:1", 10, Does::Up).at("10.0.0.3:1", 0, Does::Never);
    let (fake, found) = ran(fake, lookup).await;
    assert_eq!(dialled(found), "10.0.0.2:1");
    let late = Some(AttemptError::CandidateTimeout(ms(600)));
    assert_eq!(
        fake.observed(),
        [("10.0.0.1:1".into(), late.clone()), ("10.0.0.3:1".into(), late), ("h:1".into(), None)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_link_to_somebody_else_is_closed_at_once_and_is_a_failure() {
    let fake = Fake::default().at("10.0.0.1:1", 0, Does::Other).at("10.0.0.2:1", 500, Does::Up);
    let fake = Arc::new(fake);
    let run = tokio::spawn(run(fake.clone(), to(&["10.0.0.1:1", "10.0.0.2:1"])));
    tokio::time::sleep(ms(100)).await;
    assert_eq!(fake.open(), (1, 0));
    assert_eq!(dialled(run.await.unwrap()), "10.0.0.2:1");
    let wrong = AttemptError::WrongName { actual: "other@h".into() };
    assert_eq!(fake.observed(), [("10.0.0.1:1".into(), Some(wrong)), ("10.0.0.2:1".into(), None)]);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_attempt_ends_the_lookup() {
    let fake = Fake::default().at("10.0.0.1:1", 5, Does::Fail(AttemptError::Adopted));
    let (fake, found) = ran(fake, to(&["10.0.0.1:1", "10.0.0.2:1"])).await;
    assert!(matches!(found, Ok(Found::Adopt)));
    assert_eq!((fake.observed(), fake.records.lock().unwrap().len()), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_gave_way_to_its_sibling_does_not_kill_it() {
    let two = |first: Does| {
        let fake = Fake::default().host("h", &["10.0.0.1", "10.0.0.2"]).at("10.0.0.1:1", 400, first);
        fake.at("10.0.0.2:1", 50, Does::Fail(AttemptError::Adopted))
    };
    assert_eq!(dialled(ran(two(Does::Up), to(&["h:1"])).await.1), "10.0.0.1:1");
    let (_, found) = ran(two(Does::Fail(tcp())), to(&["h:1"])).await;
    assert!(matches!(found, Ok(Found::Adopt)), "{found:?}");
    let (_, found) = ran(two(Does::Fail(AttemptError::Adopted)), to(&["h:1"])).await;
    assert!(matches!(found, Ok(Found::Adopt)), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn p29_the_budget_ends_it() {
    let (began, mut lookup) = (now(), to(&["10.0.0.1:1"]));
    lookup.policy.total = ms(700);
    let (_, found) = ran(Fake::default().at("10.0.0.1:1", 0, Does::Never), lookup).await;
    assert_eq!(found.unwrap_err().reason, Reason::OutOfTime);
    assert_eq!(now() - began, ms(700));
}
