//! Connections through gateways.

use std::num::NonZeroU8;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::registrar::Fixed;
use trunkline::{
    AccessPattern, Application, AttemptError, Cookie, DirectUse, Exit, Flag, Mailbox, NetworkRoute, NoRoute, Node,
    NodeBuilder, PeerFlags, Process, Proxied, ProxyRoute, Term, TlsMode, TraceEnd, TracedWay, Transit, TransitRule,
};
use trunkline_tests::support::*;

pub(super) const APP: &str = "app@127.0.0.1";
pub(super) const DB: &str = "db@internal.local";
pub(super) const GATE: &str = "gate@127.0.0.1";

/// Returns transit rules with these patterns of sources and targets.
pub(super) fn transit(rules: &[(&str, &str)], gateways: &[&str]) -> Transit {
    let pattern = |text: &&str| AccessPattern::new(text).unwrap();
    Transit {
        rules: rules.iter().map(|(from, to)| TransitRule::new(pattern(from), pattern(to))).collect(),
        gateways: gateways.iter().map(pattern).collect(),
    }
}

pub(super) fn all() -> Transit {
    transit(&[(".*", ".*")], &[".*"])
}

pub(super) fn via(gateway: &str) -> ProxyRoute {
    ProxyRoute::via(name(gateway))
}

/// Starts a gateway that reaches this node and forwards to it.
pub(super) async fn gate(called: &str, behind: &Node) -> Node {
    start(listener(called).transit(all()).route(format!("^{}$", behind.name()), route_to(behind), 1)).await
}

pub(super) fn app(gates: &[(&Node, i64)]) -> NodeBuilder {
    gates.iter().fold(dialer(APP), |app, (gate, weight)| {
        let pattern = format!("^{}$", gate.name());
        app.route(pattern, route_to(gate), 1).proxy_route(format!("^db@|{weight}"), via(gate.name().as_str()), *weight)
    })
}

pub(super) fn relayed(no_route: &NoRoute) -> Vec<String> {
    let relays = no_route.attempts.iter().filter(|record| record.error.stage() == "relay");
    relays.map(|record| trunkline::Chain(&record.error).to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_e2_messages_calls_and_streams_go_both_ways_through_a_gateway() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    let app = start(app(&[(&gate, 1)])).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let info = connection.info();
    assert_eq!((info.peer.as_str(), info.via.as_ref().map(|gate| gate.as_str())), (DB, Some(GATE)));
    until(|| db.connection(app.name()).is_some()).await;
    assert_eq!(db.connection(app.name()).unwrap().info().id, info.id);
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().id, info.id, "there is one already");
    assert_eq!(gate.status().circuits, 1);
    for (from, to) in [(&app, &db), (&db, &app)] {
        let mut echo = to.register("echo").unwrap();
        let service = tokio::spawn(async move {
            while let Some(message) = echo.recv().await {
                let body = message.body().clone();
                message.reply(body);
            }
        });
        let body: Vec<u8> = (0..2_000_000).map(|n: usize| (n * 7 + n / 251) as u8).collect();
        let peer = to.name().as_str();
        assert!(soon(from.call(peer, "echo", &body, PATIENCE)).await.unwrap() == body);
        soon(from.send(peer, "echo", b"a message")).await.unwrap();
        let mut streams = to.accept("back", vec![AccessPattern::new(".*").unwrap()]).unwrap();
        let back = tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(streams.next().await.unwrap().accept());
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let (mut read, mut write) = tokio::io::split(soon(from.open(peer, "back", PATIENCE)).await.unwrap());
        let sent = body.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        soon(read.read_to_end(&mut all)).await.unwrap();
        assert!(all == body);
        soon(writing).await.unwrap();
        soon(back).await.unwrap();
        service.abort();
    }
    assert_eq!((app.nodes().len(), gate.nodes().len(), gate.status().circuits), (2, 2, 1));
    assert!(gate.status().carried > 8_000_000);
    connection.disconnect();
    soon(connection.closed()).await;
    until(|| gate.status().circuits == 0 && db.connection(app.name()).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_e9_gateways_fail_over_by_weight_and_one_that_dies_ends_its_circuits() {
    let db = start(listener(DB)).await;
    let (first, second) = (gate("first@127.0.0.1", &db).await, gate("second@127.0.0.1", &db).await);
    let app = start(app(&[(&second, 1), (&first, 2)])).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().via, Some(name("first@127.0.0.1")));
    until(|| db.connection(app.name()).is_some()).await;
    let there = db.connection(app.name()).unwrap();
    crash(first).await;
    let (here, behind) = tokio::join!(soon(connection.closed()), soon(there.closed()));
    assert!(!here.is_normal() && !behind.is_normal(), "{here} / {behind}");
    down(&mut events, DB).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().via, Some(name("second@127.0.0.1")));
    // A connection attempt that was superseded may not have ended yet.
    until(|| second.status().circuits == 1).await;

    // When either end dies, the other end is notified at once, not after the timeout of a silent peer.
    until(|| db.connection(app.name()).is_some()).await;
    let there = db.connection(app.name()).unwrap();
    drop(app);
    let told = tokio::time::timeout(std::time::Duration::from_secs(5), there.closed()).await;
    assert!(!told.expect("well before the peer counts as dead").is_normal());
    until(|| second.status().circuits == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_e10_chains_work_up_to_the_limit_of_hops_and_loops_end() {
    let db = start(listener(DB)).await;
    let inner = gate("inner@127.0.0.1", &db).await;
    let middle = listener("middle@127.0.0.1").transit(all()).route("^inner@", route_to(&inner), 1);
    let middle = start(middle.proxy_route("^db@", via("inner@127.0.0.1"), 1)).await;
    let outer = listener("outer@127.0.0.1").transit(all()).route("^middle@", route_to(&middle), 1);
    let outer = start(outer.proxy_route("^db@", via("middle@127.0.0.1"), 1)).await;
    let app = start(dialer(APP).route("^outer@", route_to(&outer), 1)).await;
    for (hops, arrives) in [(1, false), (2, false), (3, true), (8, true)] {
        app.add_proxy_route("^db@", via("outer@127.0.0.1").max_hop(NonZeroU8::new(hops).unwrap()), 1).unwrap();
        let connected = soon(app.connect(DB)).await;
        assert_eq!(connected.is_ok(), arrives, "{hops}");
        match connected {
            Ok(connection) => {
                assert_eq!(soon(app.ping(DB, PATIENCE)).await.map(drop), Ok(()));
                connection.disconnect();
                soon(connection.closed()).await;
            }
            Err(error) => {
                let said = relayed(&no_route::<()>(Err(error)));
                // The gateway that would exceed the limit of hops reports it.
                let hop = if hops == 1 { "middle@127.0.0.1" } else { "inner@127.0.0.1" };
                assert!(said[0].starts_with(&format!("{hop} refused: hop limit")), "{said:?}");
            }
        }
        app.remove_proxy_route("^db@").unwrap();
    }
    let all = [&outer, &middle, &inner];
    until(|| all.iter().all(|gate| gate.status().circuits == 0)).await;

    // No gateway has a route, and each forwards to the next.
    let lost = "^(lost)@";
    inner.add_route("^outer@", route_to(&outer), 1).unwrap();
    for (node, next) in [(&outer, "middle@127.0.0.1"), (&middle, "inner@127.0.0.1"), (&inner, "outer@127.0.0.1")] {
        node.add_proxy_route(lost, via(next), 1).unwrap();
    }
    app.add_proxy_route(lost, via("outer@127.0.0.1"), 1).unwrap();
    let said = relayed(&no_route(soon(app.connect("lost@internal.local")).await));
    assert!(said[0].starts_with("inner@127.0.0.1 refused: loop"), "{said:?}");
    until(|| all.iter().all(|gate| gate.status().circuits == 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_gateway_forwards_only_what_its_rules_allow() {
    let (db, web) = (start(listener(DB)).await, start(listener("web@internal.local")).await);
    let open = |transit| {
        let gate = listener(GATE).route("^db@", route_to(&db), 1).route("^web@", route_to(&web), 1);
        start(gate.transit(transit))
    };
    for (transit, to_db) in [
        (Transit::default(), false),
        (transit(&[("other@.*", "db@.*")], &[]), false),
        (transit(&[("app@.*", "db@.*")], &[]), true),
    ] {
        let gate = open(transit).await;
        let app = dialer(APP).route("^gate@", route_to(&gate), 1).proxy_route("internal", via(GATE), 1);
        let app = start(app).await;
        assert_eq!(soon(app.connect(DB)).await.is_ok(), to_db);
        let said = relayed(&no_route(soon(app.connect("web@internal.local")).await));
        assert_eq!(said, ["gate@127.0.0.1 refused: relay denied; the log of gate@127.0.0.1 has the cause"]);
        assert!(web.nodes().is_empty());
        soon(app.shut_down(PATIENCE)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_e8_the_gateway_holds_its_own_cookie_and_not_that_of_the_final_node() {
    let inner = cookie("app and db");
    // The database accepts the application by one cookie and the gateway by another.
    let db = listener(DB).cookie(cookie("db and gate")).peer(AccessPattern::new("app@.*").unwrap(), inner.clone());
    let db = start(db).await;
    let gate = listener(GATE).cookie(cookie("app and gate")).transit(all());
    let gate = start(gate.route("^db@", route_to(&db).cookie(cookie("db and gate")), 1)).await;
    let with = |target: Cookie, gateway: Cookie| {
        let target = NetworkRoute::to_port(1).unwrap().cookie(target);
        let route = via(GATE).cookie(gateway).target(target.build());
        start(dialer(APP).route("^gate@", route_to(&gate), 1).proxy_route("^db@", route, 1))
    };
    let app = with(inner.clone(), cookie("app and gate")).await;
    soon(app.ping(DB, PATIENCE)).await.unwrap();
    assert_eq!(app.connection(GATE).unwrap().info().cookie, cookie("app and gate"));
    assert_eq!(app.connection(DB).unwrap().info().cookie, inner);
    soon(app.shut_down(PATIENCE)).await;
    // The cookies that the gateway knows are not accepted by the node behind it.
    for known in ["db and gate", "app and gate"] {
        let app = with(cookie(known), cookie("app and gate")).await;
        let error = no_route(soon(app.connect(DB)).await);
        assert_eq!(error.attempts.last().unwrap().error, AttemptError::WrongCookie);
        soon(app.shut_down(PATIENCE)).await;
    }
    let app = with(inner, cookie("db and gate")).await;
    let said = relayed(&no_route(soon(app.connect(DB)).await));
    assert!(said[0].contains("the gateway gate@127.0.0.1") && said[0].contains("cookies differ"), "{said:?}");
    until(|| gate.status().circuits == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_e11_e12_direct_ways_come_first_unless_the_proxy_route_says_otherwise() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    let with = |route: ProxyRoute, direct: bool| {
        let app = dialer(APP).route("^gate@", route_to(&gate), 1).proxy_route("^db@", route, 1);
        let to = if direct { route_to(&db) } else { route_at(nobody()) };
        start(app.route("^db@", to, 1))
    };
    let through = async |route, direct| {
        let app = with(route, direct).await;
        let connected = soon(app.connect(DB)).await;
        let via = connected.as_ref().map(|connection| connection.info().via.clone()).map_err(|error| error.to_string());
        soon(app.shut_down(PATIENCE)).await;
        via
    };
    let by_gate = Some(name(GATE));
    assert_eq!(through(via(GATE), true).await, Ok(None), "directly, as long as that works");
    assert_eq!(through(via(GATE), false).await, Ok(by_gate.clone()));
    assert_eq!(through(via(GATE).direct(DirectUse::Never), true).await, Ok(by_gate.clone()));
    assert_eq!(through(via(GATE).direct(DirectUse::Only), true).await, Ok(None));
    through(via(GATE).direct(DirectUse::Only), false).await.unwrap_err();
    assert_eq!(through(via(GATE).to(name(DB)), false).await, Ok(by_gate.clone()));
    through(via(GATE).to(name("db@elsewhere")), false).await.unwrap_err();

    // A live direct connection is not accepted either.
    let app = start(dialer(APP).route("^gate@", route_to(&gate), 1).route("^db@", route_to(&db), 1)).await;
    let mut inbox = db.register("in").unwrap();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().via, None);
    soon(app.send(DB, "in", b"directly")).await.unwrap();
    app.add_proxy_route("^db@", via(GATE).direct(DirectUse::Never), 1).unwrap();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().via, by_gate);
    soon(app.send(DB, "in", b"through the gateway")).await.unwrap();
    assert_eq!((text(&mut inbox).await.as_str(), text(&mut inbox).await.as_str()), ("directly", "through the gateway"));
    until(|| db.nodes().iter().filter(|(info, _)| info.peer.as_str() == APP).count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_gateways_that_are_only_reachable_through_each_other_end_in_a_refusal() {
    let app = dialer(APP).proxy_route("^db@", via("one@dmz"), 1).proxy_route("^one@", via("two@dmz"), 1);
    let app = start(app.proxy_route("^two@", via("one@dmz"), 1)).await;
    let said = relayed(&no_route(soon(app.connect_within(DB, std::time::Duration::from_secs(3))).await));
    assert!(said[0].contains("no route to one@dmz: loop"), "{said:?}");
    let own = start(dialer(APP).proxy_route("^db@", via(APP), 1)).await;
    let said = relayed(&no_route(soon(own.connect(DB)).await));
    assert!(said[0].contains("no gateway to itself"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dials_that_would_wait_for_each_other_end_at_once() {
    let app = dialer(APP).proxy_route("^db@", via("gate@dmz"), 1).proxy_route("^gate@", via(DB), 1);
    let app = start(app.proxy_route("^(db|gate)@", via("third@dmz"), 0).route("^third@", route_at(nobody()), 1)).await;
    let (one, other) = tokio::join!(soon(app.connect(DB)), soon(app.connect("gate@dmz")));
    let said = [one, other].map(|failed| {
        let no_route = no_route(failed);
        assert_eq!(no_route.reason, trunkline::Reason::AllFailed, "{no_route}");
        relayed(&no_route).join("; ")
    });
    assert!(said.iter().any(|said| said.contains("loop")), "{said:?}");
    assert!(said.iter().all(|said| said.contains("third@dmz")), "{said:?}");
}

const PROXY_FLAGS: [Flag; 5] =
    [Flag::Link, Flag::Monitor, Flag::RemoteSpawn, Flag::RemoteApplicationStart, Flag::ImportantDelivery];

/// Process that runs until it is stopped.
async fn patient(mut process: Process) {
    while process.recv().await.is_some() {}
}

fn offers(node: &Node) -> Mailbox {
    let all = || vec![AccessPattern::new(".*").unwrap()];
    node.enable_spawn("worker", all(), |process, _| patient(process)).unwrap();
    let shop = Application::new().process("till", 0.into(), |process, _| patient(process));
    node.enable_application("shop", all(), shop).unwrap();
    node.register("inbox").unwrap()
}

/// Tries each of the five operations from one node to another, and returns the text of each refusal.
async fn refusals(from: &Node, to: &Node) -> Vec<Option<String>> {
    let (peer, theirs) = (to.name().as_str(), to.spawn(patient).unwrap());
    let (linked, is_linked) = tokio::sync::oneshot::channel();
    let other = theirs.clone();
    from.spawn(move |mut process: Process| async move {
        let _ = linked.send(process.link(&other).await);
        while process.recv().await.is_some() {}
    })
    .unwrap();
    let link = soon(is_linked).await.unwrap().err().map(|error| error.to_string());
    let monitor = soon(from.monitor(&theirs)).await;
    let _ = to.stop(&theirs);
    let monitor = match soon(monitor.down()).await {
        Exit::Killed => None,
        exit => Some(exit.to_string()),
    };
    let spawn = soon(from.spawn_on(peer, "worker", &Term::from(0), PATIENCE)).await.err();
    let start = soon(from.start_application_on(peer, "shop", PATIENCE)).await.err();
    let _ = to.stop_application("shop");
    let important = soon(from.send_important(peer, "inbox", "do not lose it", PATIENCE)).await.err();
    let spawn = spawn.map(|error| error.to_string());
    vec![link, monitor, spawn, start.map(|error| error.to_string()), important.map(|error| error.to_string())]
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_each_flag_is_switched_off_by_either_end_or_the_gateway_and_then_neither_end_does_it() {
    let without = |flag| PeerFlags::ALL.with(flag, false);
    let all = || AccessPattern::new(".*").unwrap();
    for (flag, by) in PROXY_FLAGS.into_iter().flat_map(|flag| ["app", "gate", "db"].map(|by| (flag, by))) {
        let flags = |party: &str| if party == by { without(flag) } else { PeerFlags::ALL };
        let db = start(listener(DB).proxied(Proxied { flags: flags("db"), ..Proxied::default() })).await;
        let rule = TransitRule::new(all(), all()).only(flags("gate"));
        let gate = listener(GATE).transit(Transit { rules: vec![rule], gateways: vec![] });
        let gate = start(gate.route("^db@", route_to(&db), 1)).await;
        let target = NetworkRoute::to_port(1).unwrap().flag(flag, flags("app").has(flag)).build();
        let app = dialer(APP).route("^gate@", route_to(&gate), 1);
        let app = start(app.proxy_route("^db@", via(GATE).target(target), 1)).await;
        let _inboxes = [offers(&app), offers(&db)];
        let connection = soon(app.connect(DB)).await.unwrap();
        until(|| db.connection(app.name()).is_some()).await;
        let back = db.connection(app.name()).unwrap();
        assert_eq!([connection.info().flags, back.info().flags], [without(flag); 2], "{flag} by {by}");
        for (from, to) in [(&app, &db), (&db, &app)] {
            for (other, refused) in PROXY_FLAGS.into_iter().zip(refusals(from, to).await) {
                match refused {
                    Some(text) => {
                        assert!(other == flag && text.contains(flag.as_str()), "{other}, {flag} by {by}: {text}")
                    }
                    None => assert_ne!(other, flag, "by {by}, from {}", from.name()),
                }
            }
        }
        // A connection without a gateway in between has all flags.
        let direct = start(dialer("direct@127.0.0.1").route("^db@", route_to(&db), 1)).await;
        assert_eq!(soon(direct.connect(DB)).await.unwrap().info().flags, PeerFlags::ALL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_a_flag_that_the_target_requires_and_a_gateway_removes_is_reported() {
    let required = route_at(nobody()).require(Flag::Monitor);
    let db = start(listener(DB).route("^app@", required, 1)).await;
    let all = || AccessPattern::new(".*").unwrap();
    let rule = TransitRule::new(all(), all()).only(PeerFlags::ALL.with(Flag::Monitor, false));
    let gate = listener(GATE).transit(Transit { rules: vec![rule], gateways: vec![] });
    let gate = start(gate.route("^db@", route_to(&db), 1)).await;
    let app = start(app(&[(&gate, 1)])).await;
    let failed = no_route(soon(app.connect(DB)).await);
    let error = &failed.attempts.last().unwrap().error;
    assert!(
        matches!(error, AttemptError::Flags(text) if text.contains("monitor") && text.contains("the way here")),
        "{error}"
    );
    until(|| gate.status().circuits == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_node_restricts_the_peers_and_the_gateways_of_proxied_connections() {
    let pattern = |text: &str| Some(vec![AccessPattern::new(text).unwrap()]);
    for (proxied, says) in [
        (Proxied { allow: pattern("(app|other)@.*"), gateways: pattern("gate@.*"), ..Proxied::default() }, None),
        (Proxied { allow: pattern("other@.*"), ..Proxied::default() }, Some("not allowed")),
        (Proxied { allow: Some(vec![]), ..Proxied::default() }, Some("not allowed")),
        (
            Proxied { gateways: pattern("other@.*"), ..Proxied::default() },
            Some("db@internal.local refused: relay denied"),
        ),
    ] {
        let db = start(listener(DB).proxied(proxied)).await;
        let gate = gate(GATE, &db).await;
        let app = start(app(&[(&gate, 1)])).await;
        let came = soon(app.connect(DB)).await;
        match says {
            None => assert_eq!(came.unwrap().info().via, Some(name(GATE))),
            Some(says) => {
                let refused = no_route(came).attempts.last().unwrap().error.to_string();
                assert!(refused.contains(says), "{refused}");
            }
        }
        // A direct connection is still accepted.
        let direct = start(dialer("app@elsewhere").route("^db@", route_to(&db), 1)).await;
        soon(direct.connect(DB)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_gateway_that_the_registrar_knows_is_used_and_one_with_a_connection_first() {
    let db = start(listener(DB)).await;
    let known = std::sync::Arc::new(Fixed::new());
    let (near, far) = (gate("near@127.0.0.1", &db).await, gate("far@127.0.0.1", &db).await);
    known.set_gateways(name(DB), vec![far.name().clone(), near.name().clone()]);
    let app = || {
        let app = dialer(APP).route("^near@", route_to(&near), 1).route("^far@", route_to(&far), 1);
        let id = resolver_id("known");
        app.resolver(id.clone(), known.clone()).discovery(id)
    };
    // The resolver's order applies while there is no connection to any of the gateways.
    let one = start(app()).await;
    let connection = soon(one.connect(DB)).await.unwrap();
    assert_eq!(connection.info().via.as_ref(), Some(far.name()));
    assert_eq!(soon(one.connect(DB)).await.unwrap().info().id, connection.info().id, "it will do the next time too");
    soon(one.shut_down(PATIENCE)).await;
    // A gateway with a connection comes first.
    let two = start(app()).await;
    soon(two.connect(near.name().as_str())).await.unwrap();
    assert_eq!(soon(two.connect(DB)).await.unwrap().info().via.as_ref(), Some(near.name()));
    assert!(!two.nodes().iter().any(|(info, _)| info.peer == *far.name()), "the other one was not dialled");
    soon(two.shut_down(PATIENCE)).await;
    // That does not apply to a gateway whose connection was proven by a cookie other than the one its route now
    // requires.
    let three = start(app()).await;
    soon(three.connect(near.name().as_str())).await.unwrap();
    three.remove_route("^near@").unwrap();
    three.add_route("^near@", route_to(&near).cookie(cookie("another")), 1).unwrap();
    let mut events = three.events();
    assert_eq!(soon(three.connect(DB)).await.unwrap().info().via.as_ref(), Some(far.name()));
    let failed = up(&mut events, DB).await;
    assert!(failed.iter().all(|record| record.error.stage() != "relay"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbound_link_through_a_gateway_must_satisfy_the_best_route_to_its_peer() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    // The gateway may connect with the common cookie; a dial by the route requires another one.
    let other = Cookie::new("another cookie for the way there").unwrap();
    let app = start(listener(APP).route("^db@", route_to(&db).cookie(other), 1)).await;
    gate.add_route("^app@", route_to(&app), 1).unwrap();
    db.add_route("^gate@", route_to(&gate), 1).unwrap();
    db.add_proxy_route("^app@", via(GATE), 1).unwrap();
    let from_there = soon(db.connect(APP)).await.unwrap();
    assert_eq!(from_there.info().via, Some(name(GATE)));
    until(|| app.connection(db.name()).is_some()).await;
    let refused = soon(app.connect(DB)).await.unwrap_err();
    assert!(refused.to_string().contains("cookie"), "{refused}");
    // Without a requirement of the route, the inbound connection is sufficient.
    app.remove_route("^db@").unwrap();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().via, Some(name(GATE)));
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_trace_shows_every_hop_or_the_place_where_the_path_ends() {
    let db = start(listener(DB)).await;
    let inner = gate("inner@127.0.0.1", &db).await;
    let outer = listener("outer@127.0.0.1").transit(transit(&[("app@.*", "db@.*")], &[]));
    let outer = outer.route("^inner@", route_to(&inner), 1);
    let outer =
        start(outer.proxy_route("internal", via("inner@127.0.0.1").max_hop(NonZeroU8::new(2).unwrap()), 1)).await;
    let app = dialer(APP).route("^outer@", route_to(&outer), 1).route("^inner@", route_to(&inner), 1);
    let app = start(app.proxy_route("internal", via("outer@127.0.0.1"), 1)).await;
    let names = |way: &TracedWay| way.hops.iter().map(|hop| hop.name.to_string()).collect::<Vec<_>>();
    let trace = soon(app.trace(DB, PATIENCE)).await.unwrap();
    assert!(trace.is_reached() && trace.failed.is_empty());
    assert_eq!(names(&trace.ways[0]), ["outer@127.0.0.1", "inner@127.0.0.1", DB]);
    assert!(trace.ways[0].hops.iter().all(|hop| !hop.round_trip.is_zero()));
    // A direct connection is one hop.
    let trace = soon(app.trace(inner.name().as_str(), PATIENCE)).await.unwrap();
    assert_eq!((names(&trace.ways[0]), &trace.ways[0].end), (vec!["inner@127.0.0.1".to_owned()], &TraceEnd::Reached));
    // The trace ends at a gateway without a rule, at one without a route, or before the gateway.
    let ends = async |app: &Node, to: &str| {
        let trace = soon(app.trace(to, PATIENCE)).await.unwrap();
        let end = |way: &TracedWay| match &way.end {
            TraceEnd::Stopped { hop, code, text } => (names(way).len(), format!("{hop}: {code}: {text}")),
            TraceEnd::Reached => panic!("{way:?}"),
        };
        assert!(!trace.is_reached() && trace.failed.is_empty(), "what was tried is among the ways: {trace:?}");
        end(&trace.ways[0])
    };
    let (hops, text) = ends(&app, "web@internal.local").await;
    assert_eq!((hops, text.as_str()), (1, "outer@127.0.0.1: relay denied: its log has the cause"));
    let (hops, text) = ends(&app, "db@other.internal").await;
    assert!(hops == 2 && text.contains("inner@127.0.0.1: unreachable"), "{hops} {text}");
    // The route exists, and the node at its end requires another cookie.
    let other = NetworkRoute::to_port(1).unwrap().cookie(cookie("another")).build();
    app.remove_proxy_route("internal").unwrap();
    app.add_proxy_route("internal", via("outer@127.0.0.1").target(other), 1).unwrap();
    let (hops, text) = ends(&app, DB).await;
    assert!(hops == 3 && text.contains("db@internal.local: not allowed") && text.contains("cookies differ"), "{text}");
    soon(outer.shut_down(PATIENCE)).await;
    let (hops, text) = ends(&app, DB).await;
    assert!(hops == 0 && text.contains("app@127.0.0.1") && text.contains("the gateway outer@127.0.0.1"), "{text}");
    until(|| inner.status().circuits == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_e8_a_gateway_is_not_accepted_as_the_final_node_where_its_certificate_is_demanded() {
    let named = "db@127.0.0.1";
    let (ours, others) = (authority(), authority());
    let lab = profile_id("lab");
    for (db, arrives) in [
        (certified(&ours, named), true),
        // The node holds the cookie, as the gateway does, and no certificate, or one of an authority that is not
        // trusted here.
        (listener(named), false),
        (certified(&others, named), false),
    ] {
        let db = start(db).await;
        let gate = gate(GATE, &db).await;
        let target = NetworkRoute::to_port(1).unwrap().tls(true).tls_profile(lab.clone()).build();
        let app = dialer(APP).tls_profile(lab.clone(), trusting(&ours)).route("^gate@", route_to(&gate), 1);
        let route = via(GATE).target(target).direct(DirectUse::Never);
        let app = start(app.proxy_route("^db@", route, 1)).await;
        match soon(app.connect(named)).await {
            Ok(connection) => assert!(arrives && matches!(connection.info().tls, TlsMode::Verify(_))),
            Err(error) => {
                let failed = no_route::<()>(Err(error));
                let error = &failed.attempts.last().unwrap().error;
                assert!(!arrives && matches!(error, AttemptError::Tls(_)), "{error}");
            }
        }
    }
}
