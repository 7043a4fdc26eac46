#![expect(clippy::disallowed_methods, reason = "a virtual clock needs one instant to start from")]

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::*;
use crate::memory::Memory;
use crate::table::ProxyCandidate;
use trunkline_route::{Defaults, EndpointOverride};

mod model;
mod properties;
mod world;

use world::{Dial, Ran, World, ms, to};

fn name() -> NodeName {
    "db@example.com".parse().unwrap()
}

fn cookie(text: &str) -> Cookie {
    Cookie::new(format!("cookie-{text}")).unwrap()
}

fn endpoint(address: &str) -> Endpoint {
    Endpoint::at(address.parse().unwrap())
}

fn direct(host: &str, port: u16) -> NetworkRoute {
    NetworkRoute::direct(host, port).unwrap().build()
}

fn with_cookie(host: &str, port: u16, text: &str) -> NetworkRoute {
    NetworkRoute::direct(host, port).unwrap().cookie(cookie(text)).build()
}

fn resolver(id: &str) -> ResolverId {
    ResolverId::new(id).unwrap()
}

fn by(id: &str) -> NetworkRoute {
    NetworkRoute::resolved_by(resolver(id)).build()
}

fn tcp() -> AttemptError {
    AttemptError::Tcp("refused".into())
}

fn lookup(routes: impl IntoIterator<Item = NetworkRoute>, discovery: &[&str]) -> Lookup {
    let candidate = |(n, route)| Candidate { pattern: format!("p{n}").into(), weight: 100 - n as i64, route };
    Lookup {
        target: name(),
        candidates: routes.into_iter().enumerate().map(candidate).collect(),
        discovery: discovery.iter().map(|id| resolver(id)).collect(),
        proxies: Vec::new(),
        gateways: Vec::new(),
        defaults: Defaults::new(cookie("node")),
        policy: Policy::default(),
        memory: Memory::new(),
        given: false,
    }
}

fn reason(ran: &Ran) -> Reason {
    ran.result.as_ref().expect_err("no link").reason
}

fn errors(ran: &Ran) -> Vec<AttemptError> {
    ran.records.iter().map(|r| r.error.clone()).collect()
}

#[test]
fn a1_a_static_route_that_connects_asks_nobody() {
    let ran = World::new().up("10.0.0.1:1", 5).run(lookup([direct("10.0.0.1", 1)], &["reg"]));
    assert_eq!(ran.asked, Vec::<String>::new());
    assert_eq!(ran.won(), Some("10.0.0.1:1"));
}

#[test]
fn a3_a8_discovery_follows_under_the_best_routes_demands() {
    let world = World::new().down("10.0.0.1:1", 5).answers("reg", 1, &["10.0.0.2:1", "10.0.0.3:1"]);
    let ran = world.down("10.0.0.2:1", 5).up("10.0.0.3:1", 5).run(lookup([with_cookie("10.0.0.1", 1, "x")], &["reg"]));
    assert_eq!(ran.dialled, ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]);
    assert!(ran.attempts.iter().all(|attempt| attempt.cookie == cookie("x")));
}

#[test]
fn a7_one_route_that_says_never_ends_the_lookup_after_all_static_routes() {
    let never = NetworkRoute::direct("10.0.0.2", 1).unwrap().fallback_never().build();
    let world = World::new().down("10.0.0.1:1", 1).down("10.0.0.2:1", 1).answers("reg", 1, &["10.0.0.3:1"]);
    let ran = world.up("10.0.0.3:1", 1).run(lookup([direct("10.0.0.1", 1), never], &["reg"]));
    assert_eq!((ran.dialled.len(), ran.asked.len(), reason(&ran)), (2, 0, Reason::AllFailed));
}

#[test]
fn fallback_on_miss_asks_only_for_names_without_a_route() {
    let world = World::new().down("10.0.0.1:1", 1).answers("reg", 1, &["10.0.0.3:1"]).up("10.0.0.3:1", 1);
    let on_miss = |mut lookup: Lookup| {
        lookup.policy.fallback = Fallback::OnMiss;
        lookup
    };
    assert_eq!(world.run(on_miss(lookup([], &["reg"]))).won(), Some("10.0.0.3:1"));
    assert_eq!(world.run(on_miss(lookup([direct("10.0.0.1", 1)], &["reg"]))).asked.len(), 0);
}

#[test]
fn nothing_to_try_is_told_from_everything_failed() {
    let ran = World::new().run(lookup([], &[]));
    assert_eq!((reason(&ran), ran.records.len()), (Reason::NoCandidate, 0));
    let ran = World::new().answers("reg", 1, &[]).run(lookup([], &["reg"]));
    assert_eq!((reason(&ran), errors(&ran)), (Reason::AllFailed, vec![AttemptError::ResolveEmpty]));
}

#[test]
fn a_resolver_route_becomes_its_answers_in_its_place() {
    let world = World::new().answers("r", 1, &["10.0.0.2:1", "10.0.0.3:1"]).down("10.0.0.1:1", 1).up("10.0.0.4:1", 1);
    let ran = world
        .down("10.0.0.2:1", 1)
        .down("10.0.0.3:1", 1)
        .run(lookup([direct("10.0.0.1", 1), by("r"), direct("10.0.0.4", 1)], &[]));
    assert_eq!(ran.dialled, ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"]);
    assert_eq!(ran.records[1].origin, Origin::StaticResolved { pattern: "p1".into(), resolver: resolver("r") });
}

#[test]
fn empty_answers_and_resolver_errors_are_attempts_that_failed() {
    let broken = AttemptError::Resolve("cannot be reached".into());
    let world = World::new().answers("empty", 3, &[]).fails("broken", 4, broken.clone()).up("10.0.0.1:1", 1);
    let ran = world.run(lookup([by("empty"), by("broken"), direct("10.0.0.1", 1)], &[]));
    assert_eq!(errors(&ran), [AttemptError::ResolveEmpty, broken]);
    assert_eq!(ran.records.iter().map(|r| r.took).collect::<Vec<_>>(), [ms(3), ms(4)]);
    assert_eq!(ran.won(), Some("10.0.0.1:1"));
}

#[test]
fn a_question_that_fails_as_a_whole_counts_at_once() {
    let mut plan = Plan::new(lookup([by("r"), direct("h", 1)], &[]), Instant::now());
    let now = plan.began;
    for stage in ["local", "local"] {
        let (Step::Resolve { op, .. } | Step::Lookup { op, .. }) = plan.poll(now) else { panic!("{plan:?}") };
        assert!(matches!(plan.poll(now), Step::Wait { .. }));
        plan.handle(now, Event::Failed { op, error: AttemptError::Panicked });
        assert_eq!(plan.records().last().unwrap().error.stage(), stage);
    }
    assert!(matches!(plan.poll(now), Step::Done(Err(NoRoute { reason: Reason::AllFailed, .. }))));
}

#[test]
fn a_refused_cookie_is_not_shown_to_the_same_address_again() {
    let mut world = World::new();
    world.dial("10.0.0.1:1", Dial { after: Some(ms(1)), result: Ok(()), cookie: Some(cookie("y")) });
    let routes = [
        with_cookie("10.0.0.1", 1, "x"),
        with_cookie("10.0.0.1", 1, "x"),
        with_cookie("10.0.0.1", 1, "z"),
        with_cookie("10.0.0.1", 1, "y"),
    ];
    let ran = world.run(lookup(routes, &[]));
    assert_eq!(errors(&ran), [AttemptError::WrongCookie, AttemptError::WrongCookie]);
    assert_eq!((ran.dialled.len(), ran.won()), (3, Some("10.0.0.1:1")));
}

#[test]
fn a_refused_version_ends_its_route_but_no_other() {
    let version = AttemptError::Version("none in common".into());
    let world = World::new().answers("r", 1, &["10.0.0.1:1", "10.0.0.2:1"]).refuses("10.0.0.1:1", 1, version.clone());
    let ran = world.up("10.0.0.2:1", 1).up("10.0.0.3:1", 1).run(lookup([by("r"), direct("10.0.0.3", 1)], &[]));
    assert_eq!(
        (ran.dialled.as_slice(), errors(&ran)),
        (["10.0.0.1:1", "10.0.0.3:1"].map(String::from).as_slice(), vec![version.clone()])
    );

    let world =
        World::new().dns("h", 1, &["10.0.0.1", "10.0.0.2"]).refuses("10.0.0.1:1", 1, version).up("10.0.0.3:1", 1);
    let ran = world.up("10.0.0.2:1", 1).run(lookup([direct("h", 1), direct("10.0.0.3", 1)], &[]));
    assert_eq!(ran.won(), Some("10.0.0.3:1"));
}

#[test]
fn an_answer_with_another_version_is_no_repeat_of_the_refused_one() {
    let (mut old, mut new) = (endpoint("10.0.0.2:1"), endpoint("10.0.0.1:1"));
    (old.version, new.version) = (Some(Version::native(1)), Some(Version::native(9)));
    let mut world = World::new().refuses("10.0.0.1:1", 1, AttemptError::Version("no TLK/9 here".into()));
    world.resolvers.insert("r".into(), (Some(ms(1)), Ok(vec![new, old])));
    assert_eq!(world.up("10.0.0.2:1", 1).run(lookup([by("r")], &[])).won(), Some("10.0.0.2:1"));
}

#[test]
fn p30_a_stop_ends_the_lookup_and_everything_under_way() {
    let world = World::new().dns("h", 1, &["10.0.0.1", "10.0.0.2"]).refuses("10.0.0.1:1", 300, AttemptError::Myself);
    let ran = world.up("10.0.0.2:1", 900).up("10.0.0.3:1", 1).run(lookup([direct("h", 1), direct("10.0.0.3", 1)], &[]));
    assert_eq!((reason(&ran), errors(&ran)), (Reason::Stopped, vec![AttemptError::Myself]));
    assert_eq!(ran.cancelled, 1);
}

#[test]
fn p33_the_loser_of_a_stagger_is_cancelled_and_leaves_no_record() {
    let world = World::new().dns("h", 10, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]).never("10.0.0.1:1");
    let ran = world.up("10.0.0.2:1", 30).up("10.0.0.3:1", 1).run(lookup([direct("h", 1)], &[]));
    assert_eq!((ran.won(), ran.took), (Some("10.0.0.2:1"), ms(10 + 250 + 30)));
    assert_eq!((ran.cancelled, ran.records.len()), (1, 0));
}

#[test]
fn a_host_name_that_is_not_resolved_in_time_is_looked_up_once_more_after_everything_else() {
    // The driver's lookup goes on meanwhile; here each one takes five seconds.
    let world = World::new().dns("h", 5000, &["10.0.0.1"]).up("10.0.0.1:1", 7).down("10.0.0.2:1", 100);
    let ran = world.run(lookup([direct("h", 1), direct("10.0.0.2", 1)], &[]));
    assert_eq!((ran.won(), ran.took), (Some("10.0.0.1:1"), ms(2000 + 100 + 5000 + 7)));
    assert_eq!(ran.asked, ["dns:h", "dns:h"]);
    assert_eq!(errors(&ran), [AttemptError::DnsTimeout(ms(2000)), tcp()]);
    // Nothing else is held up by it.
    let world = World::new().up("10.0.0.2:1", 100);
    let ran = world.run(lookup([direct("unknown", 1), direct("10.0.0.2", 1)], &[]));
    assert_eq!((ran.won(), ran.took), (Some("10.0.0.2:1"), ms(2100)));
    // Not when the first one had all the time there is for a candidate.
    let mut long = lookup([direct("unknown", 1)], &[]);
    long.policy.dns = long.policy.candidate;
    let ran = World::new().run(long);
    assert_eq!((reason(&ran), ran.asked.len(), ran.took), (Reason::AllFailed, 1, ms(8000)));
}

#[test]
fn the_next_address_of_a_host_does_not_wait_once_one_failed() {
    let world = World::new().dns("h", 0, &["10.0.0.1", "10.0.0.2"]).down("10.0.0.1:1", 7).up("10.0.0.2:1", 7);
    assert_eq!(world.run(lookup([direct("h", 1)], &[])).took, ms(14));
}

#[test]
fn a_host_that_the_transport_takes_is_dialled_by_its_name() {
    let world = World::new().takes("h.mem", 3).dns("g", 1, &["10.0.0.1"]).down("10.0.0.1:1", 1);
    let ran = world.clone().up("h.mem:1", 4).run(lookup([direct("g", 1), direct("h.mem", 1)], &[]));
    assert_eq!((ran.won(), ran.took), (Some("h.mem:1"), ms(9)));
    let ran = world.refuses("h.mem:1", 4, tcp()).run(lookup([direct("h.mem", 1), direct("g", 1)], &[]));
    assert_eq!(ran.dialled, ["h.mem:1", "10.0.0.1:1"]);
    let at: Vec<_> = ran.records.iter().map(|record| (record.address.as_str(), record.socket)).collect();
    assert_eq!(at, [("h.mem:1", None), ("g:1", Some("10.0.0.1:1".parse().unwrap()))]);
}

#[test]
fn families_alternate_from_the_first_answers_on() {
    let list = |ips: &[&str]| {
        ips.iter().map(|ip| to(&format!("{}", SocketAddr::new(ip.parse().unwrap(), 1)))).collect::<Vec<_>>()
    };
    let check = |given: &[&str], expected: &[&str]| assert_eq!(interleave(list(given), 16), list(expected));
    check(&["::1", "::2", "::3", "10.0.0.1"], &["::1", "10.0.0.1", "::2", "::3"]);
    check(&["10.0.0.1", "::1", "::2", "10.0.0.2"], &["10.0.0.1", "::1", "10.0.0.2", "::2"]);
    check(&["::1", "::1", "::2", "10.0.0.1", "10.0.0.2"], &["::1", "10.0.0.1", "::2", "10.0.0.2"]);
    check(&[], &[]);
    assert_eq!(interleave(list(&["::1", "::2", "10.0.0.1"]), 2), list(&["::1", "10.0.0.1"]));
}

#[test]
fn each_time_out_is_recorded_with_its_stage_and_the_time_it_had() {
    let world = World::new().never("10.0.0.1:1").dns("h", 0, &["10.0.0.1"]);
    let stage = |ran: &Ran| ran.records.iter().map(|r| (r.error.stage(), r.error.clone(), r.took)).collect::<Vec<_>>();
    let (dns, resolve, candidate) = (ms(2000), ms(2000), ms(8000));

    let ran = world.run(lookup([by("mute"), direct("unknown", 1), direct("10.0.0.1", 1)], &[]));
    assert_eq!(reason(&ran), Reason::OutOfTime);
    assert_eq!(
        stage(&ran),
        [
            ("resolve", AttemptError::ResolveTimeout(resolve), resolve),
            ("dns", AttemptError::DnsTimeout(dns), dns),
            ("handshake", AttemptError::CandidateTimeout(candidate), candidate),
            // The host name once more, with what was left of the lookup.
            ("dns", AttemptError::DnsTimeout(ms(3000)), ms(3000)),
        ]
    );

    for (route, expected) in [
        (by("mute"), AttemptError::ResolveTimeout(ms(700))),
        (direct("unknown", 1), AttemptError::DnsTimeout(ms(700))),
        (direct("10.0.0.1", 1), AttemptError::CandidateTimeout(ms(700))),
        (direct("h", 1), AttemptError::CandidateTimeout(ms(700))),
    ] {
        let mut lookup = lookup([route], &[]);
        lookup.policy.total = ms(700);
        let ran = world.run(lookup);
        assert_eq!((reason(&ran), errors(&ran), ran.took), (Reason::OutOfTime, vec![expected], ms(700)));
    }
}

#[test]
fn bounds_of_any_size_do_no_harm() {
    let mut lookup = lookup([direct("10.0.0.1", 1), by("r")], &["r"]);
    lookup.policy = Policy { total: Duration::MAX, candidate: Duration::MAX, stagger: Duration::MAX, ..lookup.policy };
    let ran =
        World::new().down("10.0.0.1:1", 1).answers("r", 1, &["10.0.0.2:1"]).up("10.0.0.2:1", 1).run(lookup.clone());
    assert_eq!(ran.won(), Some("10.0.0.2:1"));
    lookup.policy.total = Duration::ZERO;
    assert_eq!(reason(&World::new().run(lookup)), Reason::OutOfTime);
}

#[test]
fn attempts_and_questions_are_bounded() {
    let mut dials = lookup((0..100).map(|_| direct("10.0.0.1", 1)), &["r"]);
    dials.policy.max_attempts = 5;
    let world = World::new().down("10.0.0.1:1", 1).answers("r", 1, &[]);
    let ran = world.run(dials.clone());
    assert_eq!((ran.dialled.len(), ran.asked.len(), reason(&ran)), (5, 0, Reason::TooMany));

    dials.candidates.iter_mut().for_each(|c| c.route = by("r"));
    let ran = world.run(dials.clone());
    assert_eq!((ran.asked.len(), reason(&ran)), (5, Reason::TooMany));

    dials.candidates.truncate(5);
    dials.discovery.clear();
    assert_eq!(reason(&world.run(dials)), Reason::AllFailed, "the bound met nobody");
}

#[test]
fn answers_are_bounded() {
    let many: Vec<_> = (1..=9).map(|n| format!("10.0.0.{n}:1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut world = World::new().answers("r", 1, &many);
    for socket in &many {
        world = world.down(socket, 1);
    }
    let mut lookup = lookup([by("r")], &[]);
    lookup.policy.max_answers = 3;
    assert_eq!(world.run(lookup).dialled, many[..3]);
}

#[test]
fn p32_remembered_failures_come_last_in_their_stage() {
    let world = World::new().answers("r", 1, &["10.0.0.2:1", "10.0.0.3:1", "10.0.0.6:1"]);
    let world = world.answers("reg", 1, &["10.0.0.5:1"]);
    let world = (1..=7).fold(world, |world, n| world.down(&format!("10.0.0.{n}:1"), 1));
    let routes = [direct("10.0.0.1", 1), by("r"), direct("10.0.0.4", 1), direct("10.0.0.7", 1)];
    let mut lookup = lookup(routes, &["reg"]);
    for bad in ["10.0.0.1", "10.0.0.2", "10.0.0.6", "10.0.0.4"] {
        let attempt = direct(bad, 1).attempt(&name(), None, &lookup.defaults).unwrap();
        lookup.memory.failed(world.start, &attempt, &AttemptError::Tls("expired".into()));
    }
    let ran = world.run(lookup);
    let order = [3, 7, 1, 2, 6, 4, 5].map(|n| format!("10.0.0.{n}:1"));
    assert_eq!(ran.dialled, order, "by weight among those that failed, too");
}

#[test]
fn a_route_that_gives_no_host_for_the_name_fails_in_its_place() {
    let mut lookup = lookup([NetworkRoute::to_port(7).unwrap().build(), direct("10.0.0.1", 1)], &[]);
    lookup.target = "db@a/b".parse().unwrap();
    let mut world = World::new().down("10.0.0.1:1", 1);
    world.target = lookup.target.clone();
    let preview = Plan::new(lookup.clone(), world.start).preview(world.start);
    assert_eq!((preview[0].address.as_deref(), &preview[0].attempt), (Some("a/b:7"), &None));
    let ran = world.run(lookup);
    assert_eq!(ran.records[0].error.stage(), "dns");
    assert_eq!(ran.records[0].to_string(), "route p0 at a/b:7: DNS: the name's host part \"a/b\" is no host (0.0 ms)");
    assert_eq!(ran.records.len(), 2);
}

#[test]
fn a_given_route_is_the_whole_answer() {
    let world = World::new().answers("r", 1, &["10.0.0.1:1"]).down("10.0.0.1:1", 1);
    let given = Lookup { candidates: given(by("r")), given: true, ..lookup([], &["reg"]) };
    let ran = world.run(given);
    assert_eq!((ran.asked.len(), ran.records.len()), (1, 1));
    assert_eq!(ran.records[0].origin, Origin::Given);
}

#[test]
fn another_peer_is_a_failed_attempt() {
    let mut world = World::new().up("10.0.0.1:1", 1).up("10.0.0.2:1", 1);
    world.others.insert(to("10.0.0.1:1"), "other@h".parse().unwrap());
    let ran = world.run(lookup([direct("10.0.0.1", 1), direct("10.0.0.2", 1)], &[]));
    assert_eq!(errors(&ran), [AttemptError::WrongName { actual: "other@h".into() }]);
    assert_eq!(ran.won(), Some("10.0.0.2:1"));
}

#[test]
fn an_attempt_that_gave_way_leaves_no_record() {
    let world = World::new().dns("h", 0, &["10.0.0.1", "10.0.0.2"]).up("10.0.0.1:1", 500);
    let ran = world.refuses("10.0.0.2:1", 10, AttemptError::Adopted).run(lookup([direct("h", 1)], &[]));
    assert_eq!((ran.won(), ran.records.len(), ran.took), (Some("10.0.0.1:1"), 0, ms(500)));
}

#[test]
fn no_route_prints_one_line_for_each_attempt() {
    let hostile = AttemptError::Rejected("go away\n  9. route x: fake\r\u{1b}[2J".into());
    let world = World::new().down("10.0.0.1:1", 2).refuses("10.0.0.2:1", 1, hostile).answers("reg", 3, &[]);
    let ran = world.run(lookup([direct("10.0.0.1", 1), direct("10.0.0.2", 1)], &["reg"]));
    let text = ran.result.unwrap_err().to_string();
    let expected = "no route to db@example.com: every candidate failed\n  \
        1. route p0 at 10.0.0.1:1: TCP: refused (2.0 ms)\n  \
        2. route p1 at 10.0.0.2:1: go away   9. route x: fake  [2J (1.0 ms)\n  \
        3. discovery by reg: resolver: no address for this name (3.0 ms)";
    assert_eq!(text, expected);
}

#[test]
fn overrides_hold_for_every_answer() {
    let over = EndpointOverride { port: NonZeroU16::new(9), tls: Some(true), ..EndpointOverride::default() };
    let route = NetworkRoute::resolved_by(resolver("r")).overriding(over).build();
    let world = World::new().answers("r", 1, &["10.0.0.1:1", "10.0.0.2:1"]).down("10.0.0.1:9", 1).up("10.0.0.2:9", 1);
    let ran = world.run(lookup([route], &[]));
    assert_eq!(ran.dialled, ["10.0.0.1:9", "10.0.0.2:9"]);
    assert!(ran.attempts.iter().all(|a| a.tls == trunkline_route::TlsMode::Verify(None)));
}

/// Candidates of these weights, which race when they are equal.
fn racing(weights: &[i64], routes: impl IntoIterator<Item = NetworkRoute>) -> Lookup {
    let mut lookup = lookup(routes, &[]);
    lookup.policy.equal_weights = Some(ms(250));
    for (candidate, weight) in lookup.candidates.iter_mut().zip(weights) {
        candidate.weight = *weight;
    }
    lookup
}

#[test]
fn routes_of_one_weight_race_when_asked_to_and_the_losers_leave_nothing() {
    let world = World::new().never("10.0.0.1:1").up("10.0.0.2:1", 5).up("10.0.0.3:1", 5);
    let routes = || [direct("10.0.0.1", 1), direct("10.0.0.2", 1), direct("10.0.0.3", 1)];
    let ran = world.run(racing(&[7, 7, 7], routes()));
    assert_eq!((ran.won(), ran.took, ran.cancelled), (Some("10.0.0.2:1"), ms(255), 1));
    assert_eq!((ran.dialled.len(), ran.records.len()), (2, 0), "what lost is no failure");
    // Off, or of another weight, the next waits for the end of the one before.
    let mut off = racing(&[7, 7, 7], routes());
    off.policy.equal_weights = None;
    for lookup in [off, racing(&[7, 6, 6], routes())] {
        assert_eq!(world.run(lookup).took, ms(8005));
    }
}

#[test]
fn in_a_race_a_failure_lets_the_next_begin_at_once() {
    let world = World::new().down("10.0.0.1:1", 3).never("10.0.0.2:1").down("10.0.0.3:1", 10).up("10.0.0.4:1", 5);
    let routes = [1, 2, 3, 4].map(|n| direct(&format!("10.0.0.{n}"), 1));
    let ran = world.run(racing(&[7; 4], routes));
    assert_eq!(ran.began, [ms(0), ms(3), ms(253), ms(263)]);
    assert_eq!((ran.won(), ran.took), (Some("10.0.0.4:1"), ms(268)));
}

#[test]
fn names_and_resolvers_race_too_and_the_answers_to_one_route_keep_their_order() {
    let world = World::new()
        .answers("slow", 1000, &["10.0.0.9:1"])
        .dns("h", 300, &["10.0.0.1"])
        .answers("fast", 1, &["10.0.0.2:1", "10.0.0.3:1"])
        .never("10.0.0.2:1")
        .up("10.0.0.3:1", 1)
        .up("10.0.0.1:1", 5);
    let ran = world.run(racing(&[7; 3], [by("fast"), direct("h", 1), by("slow")]));
    assert_eq!(ran.asked, ["fast", "dns:h", "slow"]);
    assert_eq!(ran.won(), Some("10.0.0.1:1"));
    assert!(!ran.dialled.contains(&"10.0.0.3:1".to_owned()), "{:?}", ran.dialled);
}

/// With these gateways, best first.
fn through(gateways: &[&str], mut lookup: Lookup) -> Lookup {
    let candidate = |(n, gateway): (usize, &&str)| ProxyCandidate {
        pattern: format!("g{n}").into(),
        weight: 100 - n as i64,
        route: ProxyRoute::via(gateway.parse().unwrap()).target(with_cookie("10.9.9.9", 1, "target")),
    };
    lookup.proxies = gateways.iter().enumerate().map(candidate).collect();
    lookup
}

#[test]
fn a4_e3_gateways_follow_by_weight_when_every_direct_attempt_failed() {
    let world = World::new().down("10.0.0.1:1", 1).answers("reg", 1, &["10.0.0.2:1"]).down("10.0.0.2:1", 1);
    let denied = AttemptError::Relay("gw1@dmz refused: relay denied".into());
    let world = world.refuses("192.0.2.1:1", 5, denied.clone()).up("192.0.2.2:1", 5).up("192.0.2.3:1", 1);
    let gateways = ["gw1@dmz", "gw2@dmz", "gw3@dmz"];
    let ran = world.run(through(&gateways, lookup([direct("10.0.0.1", 1)], &["reg"])));
    assert_eq!(ran.dialled, ["10.0.0.1:1", "10.0.0.2:1", "gw1@dmz", "gw2@dmz"]);
    assert_eq!(ran.won(), Some("192.0.2.2:1"));
    let last = ran.attempts.last().unwrap();
    assert_eq!((&last.cookie, last.policy.route.as_deref()), (&cookie("target"), Some("g1")));
    assert_eq!(ran.records[2].error, denied);
    assert_eq!(ran.records[2].origin, Origin::Proxied { pattern: "g0".into(), gateway: "gw1@dmz".parse().unwrap() });

    // None is asked while a direct way works, nor when the static routes are the whole answer.
    let ran = World::new().up("10.0.0.1:1", 1).run(through(&gateways, lookup([direct("10.0.0.1", 1)], &["reg"])));
    assert_eq!(ran.dialled, ["10.0.0.1:1"]);
    let never = NetworkRoute::direct("10.0.0.1", 1).unwrap().fallback_never().build();
    let ran = World::new().down("10.0.0.1:1", 1).run(through(&gateways, lookup([never], &["reg"])));
    assert_eq!((ran.dialled.len(), reason(&ran)), (1, Reason::AllFailed));
    // Alone they are a way too; one that says nothing has a candidate's time.
    let world = World::new().never("192.0.2.1:1").up("192.0.2.2:1", 5);
    let ran = world.run(through(&gateways, lookup([], &[])));
    assert_eq!(ran.won(), Some("192.0.2.2:1"));
    assert_eq!(errors(&ran), [AttemptError::CandidateTimeout(Policy::default().candidate)]);
    assert_eq!(ran.cancelled, 1);
    let mut short = through(&gateways, lookup([], &[]));
    short.policy.total = ms(100);
    let ran = World::new().never("192.0.2.1:1").run(short);
    assert_eq!((reason(&ran), ran.took), (Reason::OutOfTime, ms(100)));
}

#[test]
fn a6_gateways_that_discovery_knows_come_last_and_those_with_a_connection_first() {
    let world = World::new()
        .answers("reg", 1, &["10.0.0.2:1"])
        .down("10.0.0.2:1", 1)
        .down("10.0.0.1:1", 1)
        .refuses("192.0.2.1:1", 1, AttemptError::Relay("no".into()))
        .leads("reg", &[("gw1@dmz", false), ("gw2@dmz", false), ("gw3@dmz", true)])
        .refuses("192.0.2.3:1", 1, AttemptError::Relay("no".into()))
        .up("192.0.2.2:1", 1);
    let mut asks = through(&["gw1@dmz"], lookup([direct("10.0.0.1", 1)], &["reg"]));
    asks.gateways = vec![resolver("reg")];
    let ran = world.run(asks.clone());
    assert_eq!(ran.dialled, ["10.0.0.1:1", "10.0.0.2:1", "gw1@dmz", "gw3@dmz", "gw2@dmz"], "gw1 was tried already");
    assert_eq!(ran.won(), Some("192.0.2.2:1"));
    let last = ran.attempts.last().unwrap();
    assert_eq!(last.cookie, cookie("target"), "the demands of the best route go along");
    assert_eq!((last.via.as_ref().unwrap().as_str(), last.policy.resolver.clone()), ("gw2@dmz", Some(resolver("reg"))));
    // Of more than are taken, those with a connection are.
    let names: Vec<_> = (5..30).map(|n| format!("gw{n}@dmz")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), name == "gw29@dmz")).collect();
    let ran = world.clone().leads("reg", &many).up("192.0.2.29:1", 1).run(asks.clone());
    assert_eq!(ran.won(), Some("192.0.2.29:1"));
    // Those of the best static route, where no proxy route matches.
    asks.proxies.clear();
    asks.candidates[0].route = with_cookie("10.0.0.1", 1, "static");
    let ran = world.run(asks.clone());
    assert_eq!(ran.attempts.last().unwrap().cookie, cookie("static"));
    // A name whose static routes are the whole answer has no such way.
    asks.candidates[0].route = NetworkRoute::direct("10.0.0.1", 1).unwrap().fallback_never().build();
    assert_eq!(world.run(asks).dialled, ["10.0.0.1:1"]);
}

#[test]
fn direct_ways_that_say_nothing_leave_half_of_the_time_to_gateways() {
    let silent: Vec<_> = (1..=5).map(|n| format!("10.0.0.{n}")).collect();
    let world = silent.iter().fold(World::new(), |world, host| world.never(&format!("{host}:1"))).up("192.0.2.1:1", 5);
    let routes = || silent.iter().map(|host| direct(host, 1));
    let ran = world.run(through(&["gw1@dmz"], lookup(routes(), &["reg"])));
    let half = Policy::default().total / 2;
    assert_eq!((ran.won(), ran.took), (Some("192.0.2.1:1"), half + ms(5)));
    assert_eq!(errors(&ran), [AttemptError::CandidateTimeout(half)]);
    let ran = world.run(lookup(routes(), &[]));
    assert_eq!(
        (reason(&ran), ran.took),
        (Reason::OutOfTime, Policy::default().total),
        "without gateways they have it all"
    );
}

#[test]
fn a_gateway_that_failed_of_late_comes_after_the_others() {
    let mut lookup = through(&["gw1@dmz", "gw2@dmz"], lookup([], &[]));
    let failed = lookup.proxies[0].route.attempt(&lookup.target, &lookup.defaults).unwrap();
    lookup.memory.failed(Instant::now(), &failed, &AttemptError::RelayRefused("denied".into()));
    let foreseen = Plan::new(lookup.clone(), Instant::now()).preview(Instant::now());
    let addresses: Vec<_> = foreseen.iter().filter_map(|line| line.address.as_deref()).collect();
    assert_eq!(addresses, ["gw2@dmz", "gw1@dmz"]);
    assert!(foreseen[1].remembered.is_some());
    let ran = World::new().up("192.0.2.2:1", 1).up("192.0.2.1:1", 1).run(lookup);
    assert_eq!(ran.dialled, ["gw2@dmz"]);
}

#[test]
fn gateways_are_foreseen_behind_everything_else() {
    let plan = Plan::new(through(&["gw1@dmz"], lookup([direct("10.0.0.1", 1)], &["reg"])), Instant::now());
    let lines = plan.preview(Instant::now());
    let origins: Vec<_> = lines.iter().map(|line| line.origin.to_string()).collect();
    assert_eq!(origins, ["route p0", "discovery by reg", "proxy route g0 through gw1@dmz"]);
    assert_eq!(lines[2].address.as_deref(), Some("gw1@dmz"));
    assert_eq!(lines[2].attempt.as_ref().unwrap().cookie, cookie("target"));
}
