//! Limits and rules of gateways: how much they carry, for how long and for which nodes, and how stalled or closed
//! connections end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::registrar::{BoxFuture, ResolveError, Resolver};
use trunkline::{
    AccessPattern, CircuitLimits, DirectUse, Endpoint, KeepAlive, NativeLimits, Node, NodeName, OpenError, StreamCode,
    StreamError,
};
use trunkline_tests::support::*;

use super::e_proxy::{APP, DB, GATE, all, app, gate, relayed, transit, via};

/// Resolver without endpoints and with the same gateways for every name. It counts its questions.
#[derive(Debug)]
struct KnowsGateways(Vec<NodeName>, AtomicUsize);

impl Resolver for KnowsGateways {
    fn resolve<'a>(&'a self, _: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(Vec::new()) })
    }

    fn gateways<'a>(&'a self, _: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// Starts two nodes without listeners that dial the same gateways, each with a route to the other through them.
async fn both_behind(gates: &[&Node]) -> [Node; 2] {
    let node = |own: &'static str, other: &'static str| {
        let node = gates.iter().enumerate().fold(dialer(own), |node, (n, gate)| {
            let route = via(gate.name().as_str());
            let node = node.route(format!("^{}$", gate.name()), route_to(gate), 1);
            node.proxy_route(format!("^{other}$|{n}"), route, 9 - n as i64)
        });
        start(node)
    };
    let both = [node("one@behind", "other@behind").await, node("other@behind", "one@behind").await];
    for (node, gate) in both.iter().flat_map(|node| gates.iter().map(move |gate| (node, gate))) {
        soon(node.connect(gate.name().as_str())).await.unwrap();
        until(|| gate.connection(node.name()).is_some()).await;
    }
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_gateway_carries_no_more_circuits_than_its_limit() {
    let db = start(listener(DB)).await;
    let limits = CircuitLimits { total: 1, ..CircuitLimits::default() };
    let gate = listener(GATE).transit(all()).circuit_limits(limits).route("^db@", route_to(&db), 1);
    let gate = start(gate).await;
    let app =
        |called: &str| start(dialer(called).route("^gate@", route_to(&gate), 1).proxy_route("^db@", via(GATE), 1));
    let (one, two) = (app("app1@127.0.0.1").await, app("app2@127.0.0.1").await);
    soon(one.connect(DB)).await.unwrap();
    let said = relayed(&no_route(soon(two.connect(DB)).await));
    assert!(said[0].contains("gate@127.0.0.1 refused: overloaded"), "{said:?}");
    soon(one.shut_down(PATIENCE)).await;
    until(|| gate.status().circuits == 0).await;
    soon(two.dial_now(DB)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_member_that_changes_its_name_gets_no_more_circuits_than_its_address_may_have() {
    let db = start(listener(DB)).await;
    let limits = CircuitLimits { per_peer: 1, per_address: 3, ..CircuitLimits::default() };
    let gate = listener(GATE).transit(all()).circuit_limits(limits).route("^db@", route_to(&db), 1);
    let gate = start(gate).await;
    let mut members = Vec::new();
    for n in 0..6 {
        let member = dialer(&format!("member{n}@127.0.0.1")).route("^gate@", route_to(&gate), 1);
        let member = start(member.proxy_route("^db@", via(GATE), 1)).await;
        match soon(member.connect(DB)).await {
            Ok(_) => assert!(n < 3, "{n} names have a connection each"),
            Err(error) => {
                let said = relayed(&no_route::<()>(Err(error)));
                assert!(n >= 3 && said[0].contains("gate@127.0.0.1 refused: overloaded"), "{n}: {said:?}");
            }
        }
        members.push(member);
    }
    assert_eq!(gate.status().circuits, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn e_an_idle_circuit_is_ended_by_the_gateway_and_both_ends_learn_of_it() {
    let db = start(listener(DB)).await;
    // The limit is less than the pause between two pings of the link inside.
    let limits = CircuitLimits { idle: Duration::from_millis(300), ..CircuitLimits::default() };
    let gate = listener(GATE).transit(all()).circuit_limits(limits).route("^db@", route_to(&db), 1);
    let gate = start(gate).await;
    let app = start(app(&[(&gate, 1)])).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let _inbox = db.register("in").unwrap();
    soon(app.send(DB, "in", b"something")).await.unwrap();
    until(|| db.connection(app.name()).is_some()).await;
    let there = db.connection(app.name()).unwrap();
    let (here, there) = tokio::join!(soon(connection.closed()), soon(there.closed()));
    assert!(!here.is_normal() && !there.is_normal(), "{here} / {there}");
    until(|| gate.status().circuits == 0).await;
    soon(app.connect(DB)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_gateway_announces_its_targets_and_a_node_without_a_route_finds_them() {
    let registrar = own_address();
    let at_home = |node: &str| {
        dialer(&format!("{node}@{}", registrar.ip()))
            .listen(SocketAddr::new(registrar.ip(), 0))
            .embedded_registrar(registrar)
    };
    let db = start(listener(DB)).await;
    let rules = transit(&[(".*", "db@.*")], &[]);
    let gate = start(at_home("gate").transit(rules).route("^db@", route_to(&db), 1)).await;
    let app = start(at_home("app")).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().via.as_ref(), Some(gate.name()));
    assert_eq!(connection.info().resolver.as_ref().map(|id| id.as_str()), Some("embedded"));
    let failed = no_route(soon(app.connect("web@internal.local")).await);
    assert!(relayed(&failed).is_empty(), "it does not lead there, and is not asked: {failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_gateway_can_be_ended_although_a_link_goes_through_it() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    let app = start(app(&[(&gate, 1)])).await;
    let inner = soon(app.connect(DB)).await.unwrap();
    let outer = app.connection(gate.name()).unwrap();
    outer.disconnect();
    soon(outer.closed()).await;
    soon(inner.closed()).await;
    until(|| gate.status().circuits == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_forwards_by_its_own_routes() {
    let db = start(listener(DB)).await;
    let inner = gate("inner@127.0.0.1", &db).await;
    let never = via(inner.name().as_str()).direct(DirectUse::Never);
    let outer = listener("outer@127.0.0.1").transit(all()).route("^db@", route_to(&db), 1);
    let outer = outer.route("^inner@", route_to(&inner), 1).proxy_route("^db@", never, 1);
    let outer = start(outer).await;
    let app = start(app(&[(&outer, 1)])).await;
    soon(app.connect(DB)).await.unwrap();
    assert_eq!((outer.status().circuits, inner.status().circuits), (1, 1), "it went both");
}

#[tokio::test(flavor = "multi_thread")]
async fn p20_data_queued_in_a_gateway_for_a_stalled_target_is_bounded_and_not_lost() {
    const STREAMS: usize = 24;
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let gate = listener(GATE).transit(all()).route("^db@", route_at(door.address), 1);
    let gate = start(gate).await;
    let app = start(app(&[(&gate, 1)])).await;
    let mut streams = db.accept("sink", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    let counted = tokio::spawn(async move {
        let mut counting = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = streams.next().await.unwrap().accept();
            counting
                .push(tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap() }));
        }
        let mut all = 0;
        for count in counting {
            all += count.await.unwrap();
        }
        all
    });
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(soon(app.open(DB, "sink", PATIENCE)).await.unwrap());
    }
    door.freeze();
    let before = gate.status().carried;
    // Each task writes until a write makes no progress for a while.
    let writing = open.into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let (piece, mut wrote) = (vec![7; 64 * 1024], 0);
            while wrote < 16 << 20 {
                let write = tokio::time::timeout(Duration::from_millis(700), stream.write(&piece)).await;
                let Ok(taken) = write else { break };
                wrote += taken.unwrap() as u64;
            }
            (stream, wrote)
        })
    });
    let writing: Vec<_> = writing.collect();
    let mut stalled = Vec::new();
    for stream in writing {
        stalled.push(soon(stream).await.unwrap());
    }
    let wrote: u64 = stalled.iter().map(|(_, wrote)| wrote).sum();
    let waits = gate.status().carried - before;
    // The bound is the window of the circuit, which did not grow, and the bytes in the other direction.
    assert!(waits <= 2 * u64::from(trunkline_link::FIRST_WINDOW), "{waits} bytes of {wrote} wait behind the gateway");
    door.thaw();
    for (stream, _) in &mut stalled {
        soon(stream.shutdown()).await.unwrap();
    }
    assert_eq!(soon(counted).await.unwrap(), wrote);
    until(|| gate.status().carried >= wrote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_a_stalled_circuit_ends_when_one_of_its_ends_disconnects() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    // This timeout is longer than the test, so that silence is not taken for an end.
    let long = Duration::from_secs(600);
    let keep_alive = KeepAlive { idle: long, dead: long, ..KeepAlive::default() };
    let limits = NativeLimits { keep_alive, ..NativeLimits::default() };
    let gate = listener(GATE).limits(limits).transit(all()).route("^db@", route_at(door.address), 1);
    let gate = start(gate).await;
    let app = start(app(&[(&gate, 1)])).await;
    let mut streams = db.accept("sink", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    // Together their windows exceed that of the circuit.
    let mut open = Vec::new();
    for _ in 0..8 {
        let taken = async { streams.next().await.map(trunkline::Incoming::accept) };
        let (stream, there) = tokio::join!(soon(app.open(DB, "sink", PATIENCE)), soon(taken));
        open.push((stream.unwrap(), there));
    }
    door.freeze();
    for (stream, _) in &mut open {
        let stuck = tokio::time::timeout(Duration::from_millis(300), async {
            while stream.write(&[7; 64 * 1024]).await.is_ok() {}
        });
        assert!(stuck.await.is_err(), "nobody takes anything, and the stream is open");
    }
    // Streams through the same gateway to another node are not affected, before and after.
    let web = start(listener("web@internal.local")).await;
    gate.add_route("^web@", route_to(&web), 1).unwrap();
    let other = dialer("other@127.0.0.1").route("^gate@", route_to(&gate), 1).proxy_route("^web@", via(GATE), 1);
    let other = start(other).await;
    let untouched = soon(other.connect(web.name().as_str())).await.unwrap();
    assert_eq!(gate.status().circuits, 2);
    crash(app).await;
    until(|| gate.status().circuits == 1).await;
    let (still, _) = soon(other.ping(web.name().as_str(), PATIENCE)).await.unwrap();
    assert_eq!(still.info().id, untouched.info().id);
    door.thaw();
    until(|| db.connection(APP).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_neighbour_that_floods_a_gateway_with_requests_is_limited_and_others_are_not() {
    let db = start(listener(DB)).await;
    let limits = CircuitLimits { burst: 20, opens_per_second: 1, ..CircuitLimits::default() };
    let gate = listener(GATE).transit(all()).circuit_limits(limits).route("^db@", route_to(&db), 1);
    let gate = start(gate).await;
    let greedy = start(app(&[(&gate, 1)])).await;
    let mut refused = 0;
    for n in 0..60 {
        greedy.remove_proxy_route("^db@|1").ok();
        greedy.add_proxy_route("^db@|1", via(GATE), 1).unwrap();
        match soon(greedy.dial_now(DB)).await {
            Ok(connection) => {
                connection.disconnect();
                soon(connection.closed()).await;
            }
            Err(error) => {
                let said = relayed(&no_route::<()>(Err(error)));
                assert!(said[0].contains("gate@127.0.0.1 refused: overloaded"), "{n}: {said:?}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 30, "{refused} of 60 were held back");
    let other = dialer("other@127.0.0.1").route("^gate@", route_to(&gate), 1).proxy_route("^db@", via(GATE), 1);
    let other = start(other).await;
    soon(other.connect(DB)).await.unwrap();
    until(|| gate.status().circuits == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_a_request_during_the_drain_of_the_link_to_the_gateway_uses_another_link() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    let door = Door::to(address(&gate)).await;
    let app = dialer(APP).route("^gate@", route_at(door.address), 1).proxy_route("^db@", via(GATE), 1);
    let app = start(app).await;
    let outer = soon(app.connect(GATE)).await.unwrap();
    until(|| gate.connection(app.name()).is_some()).await;
    // The gateway closes the link while the request is on its way to it: neither end knows of the other's action.
    door.freeze();
    let before = outer.stats().bytes_out;
    gate.connection(app.name()).unwrap().disconnect();
    let asking = tokio::spawn({
        let app = app.clone();
        async move { app.connect(DB).await }
    });
    until(|| outer.stats().bytes_out > before).await;
    door.thaw();
    let connection = soon(asking).await.unwrap().unwrap();
    assert_eq!(connection.info().via.as_ref(), Some(gate.name()));
    assert_eq!(door.accepted(), 2, "over another link");
}

#[tokio::test(flavor = "multi_thread")]
async fn p34_unreachable_gateways_are_not_looked_for_through_each_other() {
    let gates = (1..=7).map(|n| name(&format!("gate{n}@dmz"))).collect();
    let known = Arc::new(KnowsGateways(gates, AtomicUsize::new(0)));
    let id = resolver_id("known");
    let app = start(dialer(APP).resolver(id.clone(), known.clone()).discovery(id)).await;
    let failed = no_route(soon(app.connect(DB)).await);
    assert_eq!(relayed(&failed).len(), 7, "{failed}");
    // The resolver is asked twice for the name, and once for each of the gateways.
    assert_eq!(known.1.load(Ordering::SeqCst), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_gateway_whose_link_to_the_target_stalls_uses_its_other_route() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let second = gate("second@127.0.0.1", &db).await;
    let first = listener("first@127.0.0.1").transit(all()).route("^db@", route_at(door.address), 1);
    let first = first.route("^second@", route_to(&second), 1).proxy_route("^db@", via("second@127.0.0.1"), 1);
    let first = start(first).await;
    soon(first.connect(DB)).await.unwrap();
    door.freeze();
    let app = start(app(&[(&first, 1)])).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().via.as_ref(), Some(first.name()));
    assert_eq!((first.status().circuits, second.status().circuits), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_two_nodes_that_dial_each_other_through_a_gateway_at_once_come_to_one_connection() {
    let gate =
        start(listener(GATE).transit(all()).circuit_limits(CircuitLimits { burst: 500, ..CircuitLimits::default() }))
            .await;
    let [one, other] = both_behind(&[&gate]).await;
    for _ in 0..20 {
        let (there, back) = tokio::join!(soon(one.connect("other@behind")), soon(other.connect("one@behind")));
        let (there, back) = (there.unwrap(), back.unwrap());
        until(|| {
            let ends = [one.connection(other.name()), other.connection(one.name())];
            ends.iter().flatten().count() == 2
                && ends[0].as_ref().unwrap().info().id == ends[1].as_ref().unwrap().info().id
        })
        .await;
        let mut inbox = other.register("in").unwrap();
        soon(there.send("in", "", b"one")).await.unwrap();
        assert_eq!(text(&mut inbox).await, "one");
        let mut inbox = one.register("in").unwrap();
        soon(back.send("in", "", b"other")).await.unwrap();
        assert_eq!(text(&mut inbox).await, "other");
        until(|| gate.status().circuits == 1).await;
        one.connection(other.name()).unwrap().disconnect();
        until(|| one.connection(other.name()).is_none() && other.connection(one.name()).is_none()).await;
        until(|| gate.status().circuits == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e_draining_a_proxy_route_frees_its_gateway_and_loses_nothing() {
    let (first, second) =
        (start(listener("first@dmz").transit(all())).await, start(listener("second@dmz").transit(all())).await);
    let [one, other] = both_behind(&[&first, &second]).await;
    let mut inbox = other.register("in").unwrap();
    let mut streams = other.accept("echo", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    let serving = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(streams.next().await.unwrap().accept());
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    assert_eq!(soon(one.connect("other@behind")).await.unwrap().info().via.as_ref(), Some(first.name()));
    let mut stream = soon(one.open("other@behind", "echo", PATIENCE)).await.unwrap();
    for n in 0..100 {
        soon(one.send("other@behind", "in", n.to_string().as_bytes())).await.unwrap();
    }
    // A route with the same pattern in the other table is independent.
    one.add_route("^other@behind$|0", route_at(nobody()), 1).unwrap();
    assert!(soon(one.drain_route("^other@behind$|0")).await.unwrap().moved.is_empty());
    let drained = soon(one.drain_proxy_route("^other@behind$|0")).await.unwrap();
    assert_eq!((drained.moved, drained.kept.len()), (vec![name("other@behind")], 0));
    assert_eq!(one.connection(other.name()).unwrap().info().via.as_ref(), Some(second.name()));
    soon(one.send("other@behind", "in", b"100")).await.unwrap();
    for n in 0..=100 {
        assert_eq!(text(&mut inbox).await, n.to_string());
    }
    // The stream ends on the link on which it began. After that, nothing passes through the first gateway.
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "still here");
    soon(serving).await.unwrap();
    drop(stream);
    until(|| first.status().circuits == 0 && second.status().circuits == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e_a_missing_or_refusing_service_is_reported_by_the_node_that_should_have_it() {
    let db = start(listener(DB)).await;
    let gate = gate(GATE, &db).await;
    let app = start(app(&[(&gate, 1)])).await;
    let nowhere = nobody();
    db.serve("gone", nowhere.to_string().parse().unwrap(), vec![AccessPattern::new(".*").unwrap()]).unwrap();
    db.serve("private", nowhere.to_string().parse().unwrap(), vec![]).unwrap();
    for (service, code) in
        [("none", StreamCode::NoService), ("gone", StreamCode::Unreachable), ("private", StreamCode::NotAllowed)]
    {
        let refused = soon(app.open(DB, service, PATIENCE)).await.unwrap_err();
        let StreamError::Open(OpenError::Refused { hop, code: said, .. }) = &refused else { panic!("{refused}") };
        assert_eq!((hop.as_str(), *said), (DB, code), "{refused}");
    }
    assert_eq!(gate.status().circuits, 1, "the connection is as good as before");
}
