//! The properties of a lookup, over random tables, answers, networks and memories.

use proptest::collection::{btree_map, vec};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::model::expected;
use super::world::{Dial, World, destinations, ms, to};
use super::*;

#[derive(Debug, Clone)]
struct Case {
    world: World,
    lookup: Lookup,
}

fn delay() -> impl Strategy<Value = Option<Duration>> {
    weighted(0.9, prop_oneof![Just(0u64), 1u64..40, Just(250), 200u64..320, Just(1000), Just(3000)].prop_map(ms))
}

fn error() -> impl Strategy<Value = AttemptError> {
    select(vec![
        tcp(),
        AttemptError::Tls("expired".into()),
        AttemptError::Handshake("nonsense".into()),
        AttemptError::Rejected("busy".into()),
        AttemptError::WrongCookie,
        AttemptError::NameInUse("there".into()),
        AttemptError::Panicked,
        AttemptError::Version("none in common".into()),
        AttemptError::Version("none in common".into()),
        AttemptError::Local("no descriptors".into()),
        AttemptError::Myself,
    ])
}

const IPS: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fe80::1", "fe80::2", "fe80::3"];
/// The transport may take the first two by name.
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

fn destination() -> impl Strategy<Value = Destination> {
    let place = prop_oneof![6 => select(&IPS), 1 => select(&HOSTS[..2])];
    (place, 1u16..3).prop_map(|(host, port)| to(&Address::new(host, port).unwrap().to_string()))
}

fn place() -> impl Strategy<Value = (&'static str, u16)> {
    (prop_oneof![3 => select(&IPS), 2 => select(&HOSTS)], 1u16..3)
}

fn answer() -> impl Strategy<Value = Endpoint> {
    (place(), weighted(0.2, 1u16..3)).prop_map(|((host, port), version)| Endpoint {
        version: version.map(Version::native),
        ..Endpoint::at(Address::new(host, port).unwrap())
    })
}

fn route() -> impl Strategy<Value = NetworkRoute> {
    let cookie = || weighted(0.4, select(vec!["x", "y"]));
    let direct = (place(), cookie(), prop::bool::weighted(0.03)).prop_map(|((host, port), text, never)| {
        let mut route = NetworkRoute::direct(host, port).unwrap();
        if let Some(text) = text {
            route = route.cookie(super::cookie(text));
        }
        if never { route.fallback_never().build() } else { route.build() }
    });
    let asking = (select(vec!["r1", "r2", "r3"]), cookie(), weighted(0.2, 1u16..3)).prop_map(|(id, text, port)| {
        let over = EndpointOverride { port: port.and_then(NonZeroU16::new), ..EndpointOverride::default() };
        let route = NetworkRoute::resolved_by(resolver(id)).overriding(over);
        text.map(|text| route.clone().cookie(super::cookie(text))).unwrap_or(route).build()
    });
    prop_oneof![6 => direct, 3 => asking, 1 => Just(NetworkRoute::to_port(1).unwrap().build())]
}

fn reply<T: std::fmt::Debug + Clone>(
    one: impl Strategy<Value = T>,
    failure: AttemptError,
) -> impl Strategy<Value = world::Reply<T>> {
    (delay(), weighted(0.85, vec(one, 0..5))).prop_map(move |(after, answer)| (after, answer.ok_or(failure.clone())))
}

fn network() -> impl Strategy<Value = World> {
    let dial = (delay(), weighted(0.75, error()), weighted(0.2, Just(cookie("x"))))
        .prop_map(|(after, error, cookie)| Dial { after, result: error.map_or(Ok(()), Err), cookie });
    let ids = select(vec!["r1".to_owned(), "r2".to_owned()]);
    let hosts = select(vec!["h1".to_owned(), "h2".to_owned()]);
    let ip = weighted(0.9, select(&IPS).prop_map(|ip| ip.parse().unwrap()));
    (
        btree_map(ids, reply(answer(), AttemptError::Resolve("broken".into())), 0..3),
        btree_map(hosts, reply(ip, AttemptError::Dns("no such host".into())), 0..3),
        btree_map(destination(), dial, 0..13),
        btree_map(destination(), Just("other@h".parse().unwrap()), 0..2),
    )
        .prop_map(|(resolvers, hosts, dials, others)| World {
            target: "db@a/b".parse().unwrap(),
            resolvers,
            hosts,
            dials,
            others,
            ..World::new()
        })
}

fn policy() -> impl Strategy<Value = Policy> {
    (
        select(vec![Fallback::Never, Fallback::OnMiss, Fallback::OnFailure, Fallback::OnFailure]),
        select(vec![0, 250, 2000]).prop_map(ms),
        select(vec![0, 250, 2000]).prop_map(ms),
        select(vec![0, 250, 300, 1000, 8000]).prop_map(ms),
        select(vec![0, 250, 1000, 15_000, 15_000, 1_000_000]).prop_map(ms),
        select(vec![0, 50, 250]).prop_map(ms),
        prop_oneof![0usize..8, Just(64)],
        prop_oneof![1usize..4, Just(16)],
        select(vec![None, Some(0), Some(50), Some(250)]),
    )
        .prop_map(|(fallback, resolve, dns, candidate, total, stagger, max_attempts, max_answers, equal)| Policy {
            equal_weights: equal.map(ms),
            fallback,
            resolve,
            dns,
            candidate,
            total,
            stagger,
            max_attempts,
            max_answers,
        })
}

fn case() -> impl Strategy<Value = Case> {
    let remembered = vec((place(), weighted(0.5, select(vec!["node", "x"]))), 0..5);
    let discovery = vec(select(vec!["r1", "r2", "r3"]), 0..3);
    (network(), policy(), vec(route(), 0..6), discovery, remembered, prop::bool::weighted(0.1)).prop_map(
        |(world, policy, routes, discovery, remembered, given)| {
            let mut lookup = Lookup { target: world.target.clone(), policy, given, ..lookup(routes, &discovery) };
            // Two and two of one weight.
            for (n, candidate) in lookup.candidates.iter_mut().enumerate() {
                candidate.weight = 100 - n as i64 / 2;
            }
            for ((host, port), text) in remembered {
                let attempt = with_cookie(host, port, text.unwrap_or("y"));
                let attempt = attempt.attempt(&world.target, None, &lookup.defaults).unwrap();
                let error = if text.is_some() { AttemptError::WrongCookie } else { AttemptError::Tls("bad".into()) };
                lookup.memory.failed(world.start, &attempt, &error);
            }
            Case { world, lookup }
        },
    )
}

/// Returns the case with candidates tried one after the other.
fn serial(mut case: Case) -> Case {
    case.lookup.policy.equal_weights = None;
    case
}

/// Removes every input that decides the outcome besides the addresses that answer.
fn calm(mut case: Case) -> Case {
    case.lookup.policy = Policy {
        fallback: case.lookup.policy.fallback,
        resolve: ms(10_000),
        dns: ms(10_000),
        candidate: ms(100_000),
        total: ms(100_000_000),
        max_attempts: 1000,
        equal_weights: case.lookup.policy.equal_weights,
        ..Policy::default()
    };
    for dial in case.world.dials.values_mut() {
        dial.cookie = None;
        dial.result = dial.result.clone().map_err(|error| if error.next() == Next::Candidate { error } else { tcp() });
    }
    case
}

/// Returns true if any candidate leads to the target, in whatever order.
fn some_candidate_works(Case { world, lookup }: &Case) -> bool {
    let up = |to: &Destination| {
        let dial = world.dials.get(to);
        dial.is_some_and(|dial| dial.after.is_some() && dial.result.is_ok()) && !world.others.contains_key(to)
    };
    let any_up = |address: &Address, found: &[Option<IpAddr>]| destinations(address, found).iter().any(up);
    let reached = |attempt: Attempt| match attempt.address.host.ip() {
        _ if lookup.memory.refuses_cookie(world.start, &attempt).is_some() => false,
        Some(ip) => any_up(&attempt.address, &[Some(ip)]),
        None => match world.hosts.get(attempt.address.host.as_str()) {
            Some((Some(_), Ok(found))) => any_up(&attempt.address, found),
            _ => false,
        },
    };
    let answers = |id: &ResolverId| match world.resolvers.get(id.as_str()) {
        Some((Some(_), Ok(endpoints))) => endpoints.clone(),
        _ => vec![],
    };
    let Lookup { target, defaults, candidates, discovery, policy, given, .. } = lookup;
    let by_table = candidates.iter().any(|c| match c.route.source() {
        Source::Direct { .. } => c.route.attempt(target, None, defaults).is_some_and(reached),
        Source::Resolve { resolver, .. } => {
            answers(resolver).iter().any(|e| c.route.attempt(target, Some(e), defaults).is_some_and(reached))
        }
    });
    let asked = match policy.fallback {
        _ if *given || candidates.iter().any(|c| c.route.fallback_never()) => false,
        Fallback::Never => false,
        Fallback::OnMiss => candidates.is_empty(),
        Fallback::OnFailure => true,
    };
    let discovered = discovery.iter().flat_map(answers);
    let mut attempts = discovered.map(|e| by("r").attempt(target, Some(&e), defaults).unwrap());
    by_table || (asked && attempts.any(reached))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p25_the_order_of_attempts_equals_the_model(Case { world, lookup } in case().prop_map(serial)) {
        let expected = expected(&world, &lookup);
        let ran = world.run(lookup);
        prop_assert_eq!(&ran.dialled, &expected.dialled, "{}", ran.script());
        prop_assert_eq!(&ran.began, &expected.began, "{}", ran.script());
        prop_assert_eq!(&ran.asked, &expected.asked, "{}", ran.script());
        prop_assert_eq!(&ran.records, &expected.records, "{}", ran.script());
        prop_assert_eq!(ran.won().map(String::from), expected.won, "{}", ran.script());
        prop_assert_eq!(ran.result.as_ref().err().map(|e| e.reason), expected.reason, "{}", ran.script());
        prop_assert_eq!(ran.took, expected.took, "{}", ran.script());
    }

    #[test]
    fn p28_it_succeeds_when_some_candidate_works_and_only_then(case in case().prop_map(calm)) {
        let works = some_candidate_works(&case);
        // A wrong cookie that is held against a candidate may be forgotten while the lookup runs.
        let mut forgotten = case.clone();
        forgotten.lookup.memory.clear();
        let may_work = some_candidate_works(&forgotten);
        let ran = case.world.run(case.lookup);
        prop_assert!(!works || ran.result.is_ok(), "{}", ran.script());
        prop_assert!(may_work || ran.result.is_err(), "{}", ran.script());
    }

    #[test]
    fn p29_p30_bounds_hold_and_only_a_stop_stops(Case { world, lookup } in case()) {
        let policy = lookup.policy;
        let ran = world.run(lookup);
        prop_assert!(ran.took <= policy.total, "{}", ran.script());
        prop_assert!(ran.dialled.len() <= policy.max_attempts && ran.asked.len() <= policy.max_attempts, "{}", ran.script());
        let stops = ran.records.iter().position(|record| record.error.next() == Next::Stop);
        if let Some(at) = stops {
            prop_assert_eq!(at, ran.records.len() - 1, "{}", ran.script());
        }
        let stopped = matches!(&ran.result, Err(NoRoute { reason: Reason::Stopped, .. }));
        prop_assert_eq!(stopped, stops.is_some(), "{}", ran.script());
    }

    #[test]
    fn p33_every_dial_is_recorded_or_won_or_lost_to_the_winner(Case { world, lookup } in case()) {
        let ran = world.run(lookup);
        let recorded = ran.records.iter().filter(|record| record.socket.is_some()).count();
        let stopped = matches!(&ran.result, Err(NoRoute { reason: Reason::Stopped, .. }));
        // Records tell sockets; a host has none.
        let has_socket = |text: &str| text.parse::<SocketAddr>().is_ok();
        let unrecorded = ran.dialled.iter().filter(|dialled| has_socket(dialled)).count() - recorded;
        let losers = if ran.won().is_some_and(has_socket) { unrecorded - 1 } else { unrecorded };
        prop_assert!(losers == 0 || ran.won().is_some() || stopped, "{}", ran.script());
        prop_assert!(losers <= ran.cancelled, "{}", ran.script());
    }

    #[test]
    fn the_preview_is_what_is_tried_when_everything_fails(Case { world, mut lookup } in case().prop_map(calm).prop_map(serial)) {
        let mut world = world;
        lookup.candidates.retain(|c| matches!(c.route.source(), Source::Direct { host: Some(host), .. } if host.ip().is_some()));
        world.dials.clear();
        for n in IPS {
            for port in 1..3 {
                world.dials.insert(SocketAddr::new(n.parse().unwrap(), port).into(), Dial { after: Some(ms(1)), result: Err(tcp()), cookie: None });
            }
        }
        lookup.discovery.clear();
        let preview = Plan::new(lookup.clone(), world.start).preview(world.start);
        let is_dialled = |line: &Preview| !matches!(line.remembered, Some((_, AttemptError::CookieRefused(_))));
        let preview: Vec<_> = preview.into_iter().filter(is_dialled).map(|line| line.address.unwrap()).collect();
        let ran = world.run(lookup);
        prop_assert_eq!(preview, ran.dialled);
    }
}
