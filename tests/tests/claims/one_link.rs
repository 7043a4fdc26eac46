use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use trunkline::{AccessPattern, AttemptError, Connection, DirectUse, Mailbox, Node, ProxyRoute};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
const APP: &str = "app@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn p26_twenty_concurrent_connects_make_one_connection() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let app = start(dialer(APP).route("^db@", route_at(door.address), 1)).await;
    for _ in 0..5 {
        let mut callers = JoinSet::new();
        for _ in 0..20 {
            let app = app.clone();
            callers.spawn(async move { app.connect(DB).await });
        }
        let connections: Vec<_> = soon(callers.join_all()).await.into_iter().map(Result::unwrap).collect();
        assert!(connections.windows(2).all(|w| w[0].info().id == w[1].info().id));
        assert_eq!((door.open(), app.nodes().len()), (1, 1));
        until(|| db.nodes().len() == 1).await;
        connections[0].disconnect();
        soon(connections[0].closed()).await;
        door.opens(0).await;
        until(|| db.nodes().is_empty()).await;
    }
    assert_eq!(door.accepted(), 5);
    let port = door.address.port();
    until(|| sockets_with(port) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p26_all_callers_get_the_one_failure() {
    let silent = Door::silent().await;
    let app = start(dialer(APP).route("^db@", route_at(silent.address), 1).times(short_times())).await;
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let app = app.clone();
        callers.spawn(async move { no_route(app.connect(DB).await) });
    }
    let failures = soon(callers.join_all()).await;
    assert!(failures.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(silent.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn p27_dropping_one_caller_affects_no_other_and_dropping_all_closes_all() {
    let db = start(listener(DB)).await;
    let silent = Door::silent().await;
    let app = dialer(APP).route("^db@", route_at(silent.address), 2).route("db", route_to(&db), 1);
    let app = start(app.times(short_times())).await;
    let staying = {
        let app = app.clone();
        tokio::spawn(async move { app.connect(DB).await })
    };
    silent.opens(1).await;
    let mut leaving = Box::pin(app.connect(DB));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut leaving).await.is_err());
    drop(leaving);
    assert_eq!(soon(staying).await.unwrap().unwrap().info().address, address(&db));
    assert_eq!(silent.accepted(), 1);

    let quiet = Door::silent().await;
    let app = start(dialer("other@127.0.0.1").route("^db@", route_at(quiet.address), 1)).await;
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.connect(DB).await.is_ok() })
        })
        .collect();
    quiet.opens(1).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    quiet.opens(0).await;
    assert_eq!(quiet.accepted(), 1);
}

/// Makes both nodes dial at once, and returns each end's connection.
async fn crossing(a: &Node, b: &Node) -> (Connection, Connection) {
    let barrier = tokio::sync::Barrier::new(2);
    let dial = async |from: &Node, to: &Node| {
        barrier.wait().await;
        from.connect(to.name().clone()).await
    };
    let (ab, ba) = soon(async { tokio::join!(dial(a, b), dial(b, a)) }).await;
    (ab.unwrap(), ba.unwrap())
}

/// Returns true if a message arrived. If it did not, the sender was notified, or its connection is down.
async fn arrives(by: &Connection, at: &mut Mailbox, body: &str) -> bool {
    if by.send("in", "", body.as_bytes()).await.is_err() {
        return false;
    }
    loop {
        let message = tokio::select! {
            biased;
            message = at.recv() => message.expect("the node lives"),
            _ = by.closed() => return false,
        };
        if message.body() == body.as_bytes() {
            return true;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_a_thousand_crossing_dials_end_with_one_link_and_lose_no_message_without_an_error() {
    let (a, b) = (start(listener("a@127.0.0.1")).await, start(listener("b@127.0.0.1")).await);
    let (to_a, to_b) = (Door::to(address(&a)).await, Door::to(address(&b)).await);
    a.add_route("^b@", route_at(to_b.address), 1).unwrap();
    b.add_route("^a@", route_at(to_a.address), 1).unwrap();
    let (mut at_a, mut at_b) = (a.register("in").unwrap(), b.register("in").unwrap());
    let mut errors = 0;
    for round in 0..1000 {
        let (ab, ba) = crossing(&a, &b).await;
        let body = round.to_string();
        let whole = async { tokio::join!(arrives(&ab, &mut at_b, &body), arrives(&ba, &mut at_a, &body)) };
        if soon(whole).await == (true, true) {
            assert_eq!((a.nodes().len(), b.nodes().len()), (1, 1), "round {round}");
            assert_eq!(ab.info().id, ba.info().id, "round {round}");
            assert_eq!(a.nodes()[0].0.id, b.nodes()[0].0.id, "round {round}");
        } else {
            errors += 1;
        }
        (if round % 2 == 0 { &ab } else { &ba }).disconnect();
        let over = || {
            [&a, &b].iter().flat_map(|node| node.nodes()).count() == 0 || {
                [a.connection(b.name()), b.connection(a.name())].iter().flatten().for_each(Connection::disconnect);
                false
            }
        };
        until(over).await;
        soon(async { tokio::join!(ab.closed(), ba.closed()) }).await;
    }
    assert!(errors <= 10, "{errors} rounds ended with an error");
    let dials = to_a.accepted() + to_b.accepted();
    assert!(dials > 1500, "most dials were to cross, there were {dials}");
    let ports = [to_a.address.port(), to_b.address.port(), address(&a).port(), address(&b).port()];
    until(|| ports.iter().all(|port| sockets_with(*port) == 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_replaced_link_are_delivered_before_those_of_its_successor_in_both_directions() {
    let mut db = dialer(DB);
    for of in ["all", "the other route"] {
        db = db.listen(trunkline::Listen::at(loopback()).cookie(cookie(of)));
    }
    let db = start(db).await;
    let (door, other) = (Door::to(db.listening()[0]).await, Door::to(db.listening()[1]).await);
    let app = start(dialer(APP).route("^db@", route_at(door.address), 1)).await;
    let (mut at_db, mut at_app) = (db.register("in").unwrap(), app.register("in").unwrap());
    let old = soon(app.connect(DB)).await.unwrap();
    until(|| db.nodes().len() == 1).await;
    let back = db.connection(APP).unwrap();
    let body = |n: u32| format!("{n:0>100}");
    let send = async |by: [&Connection; 2], numbers: std::ops::Range<u32>| {
        for n in numbers {
            for connection in by {
                soon(connection.send("in", "", body(n).as_bytes())).await.unwrap();
            }
        }
    };
    send([&old, &back], 0..200).await;
    door.freeze();
    send([&old, &back], 200..400).await;
    let route = route_at(other.address).cookie(cookie("the other route"));
    let new = soon(app.connect_with(DB, route)).await.unwrap();
    until(|| back.info().id == new.info().id).await;
    send([&old, &back], 400..600).await;
    send([&new, &db.connection(APP).unwrap()], 600..800).await;
    // The data of the new link arrives before the remaining data of the old one.
    until(|| other.carried() > 2 * 400 * 100).await;
    door.thaw();
    for n in 0..800 {
        assert_eq!(text(&mut at_db).await, body(n));
        assert_eq!(text(&mut at_app).await, body(n));
    }
    soon(door.opens(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_with_another_cookie_replaces_the_link_and_keeps_the_order_of_messages() {
    let mut db = dialer(DB);
    for of in ["all", "the other route"] {
        db = db.listen(trunkline::Listen::at(loopback()).cookie(cookie(of)));
    }
    let db = start(db).await;
    let mut mailbox = db.register("in").unwrap();
    let other = db.listening()[1];
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let before = connection.info();
    const BEFORE: u32 = 2000;
    for n in 0..BEFORE {
        soon(connection.send("in", "", n.to_string().as_bytes())).await.unwrap();
    }
    let sender = {
        let connection = connection.clone();
        tokio::spawn(async move {
            for n in BEFORE..2 * BEFORE {
                connection.send("in", "", n.to_string().as_bytes()).await.unwrap();
                if n % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    let route = route_at(other).cookie(cookie("the other route"));
    let replaced = soon(app.connect_with(DB, route)).await.unwrap();
    soon(sender).await.unwrap();
    for n in 2 * BEFORE..3 * BEFORE {
        soon(replaced.send("in", "", n.to_string().as_bytes())).await.unwrap();
    }
    assert_ne!(replaced.info().id, before.id);
    assert_eq!(replaced.info().cookie, cookie("the other route"));
    assert_eq!(connection.info().id, replaced.info().id, "the old handle follows");
    for n in 0..3 * BEFORE {
        assert_eq!(text(&mut mailbox).await, n.to_string());
    }
    until(|| db.nodes().len() == 1 && db.nodes()[0].0.id == replaced.info().id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_live_nodes_with_one_name_the_second_is_refused() {
    let db = start(listener(DB)).await;
    let (first, second) = (start(listener(APP)).await, start(listener(APP)).await);
    let route = || route_to(&db);
    let connection = soon(first.connect_with(DB, route())).await.unwrap();
    let error = no_route(soon(second.connect_with(DB, route())).await);
    assert!(matches!(error.attempts[0].error, AttemptError::NameInUse(_)), "{error}");
    assert!(connection.is_up());
    assert_eq!(db.nodes()[0].0.id, connection.info().id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_has_the_name_at_once_while_the_one_before_it_finishes_its_streams() {
    let db = start(listener(DB)).await;
    let mut streams = db.accept("work", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    let first = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let opening = first.open(DB, "work", Duration::from_secs(10));
    let accepting = async { streams.next().await.unwrap().accept() };
    let (there, mut here) = tokio::join!(soon(opening), soon(accepting));
    let mut there = there.unwrap();
    let leaving = tokio::spawn(async move { first.shut_down(Duration::from_secs(60)).await });
    until(|| !db.connection(APP).unwrap().is_up()).await;
    let mut events = db.events();

    let second = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let new = soon(second.connect(DB)).await.unwrap().info();
    down(&mut events, APP).await;
    up(&mut events, APP).await;
    assert_eq!(db.nodes()[0].0.id, new.id);
    // Streams that are open on the former link continue to their end.
    there.write_all(b"still there").await.unwrap();
    there.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(here.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"still there");
    here.shutdown().await.unwrap();
    assert_eq!(soon(leaving).await.unwrap().cut, 0);
    assert_eq!(db.nodes()[0].0.id, new.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarted_is_let_in_while_the_old_link_still_looks_alive() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let first = start(dialer(APP).route("^db@", route_at(door.address), 1)).await;
    let old = soon(first.connect(DB)).await.unwrap().info();
    until(|| db.nodes().len() == 1).await;
    door.freeze();
    drop(first);
    assert!(db.connection(APP).unwrap().is_up(), "its end was not heard of");
    let mut events = db.events();
    let second = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let new = soon(second.connect(DB)).await.unwrap();
    down(&mut events, APP).await;
    up(&mut events, APP).await;
    assert_ne!(new.info().id, old.id);
    let seen = db.nodes();
    assert_eq!((seen.len(), seen[0].0.id), (1, new.info().id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p15_messages_keep_their_order_although_a_link_is_replaced_before_it_is_known_to_be_up() {
    // The accepting end stops right after the first link was replaced, before it reads the data that followed.
    let lines = crate::c_log::lines();
    let go_on = lines.stop_at(["\"elder@127.0.0.1\"", "\"message\":\"up\""]);
    let db = start(listener(DB)).await;
    let mut inbox = db.register("in").unwrap();
    let door = Door::to(address(&db)).await;
    let app = dialer("elder@127.0.0.1").route("^db@", route_at(door.address), 2).route("db", route_to(&db), 1);
    let app = start(app).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    for n in 0..100u64 {
        soon(connection.send("in", "", &n.to_be_bytes())).await.unwrap();
    }
    let ups = || lines.about("elder@127.0.0.1").iter().filter(|line| line["fields"]["message"] == "up").count();
    until(|| ups() == 1).await;
    let drained = soon(app.drain_route("^db@")).await.unwrap();
    assert_eq!(drained.moved, [name(DB)]);
    for n in 100..200u64 {
        soon(connection.send("in", "", &n.to_be_bytes())).await.unwrap();
    }
    until(|| ups() == 2).await;
    drop(go_on);
    for n in 0..200u64 {
        assert_eq!(soon(inbox.recv()).await.unwrap().body()[..], n.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_by_name_after_an_edit_of_the_routes_does_not_use_a_link_that_they_do_not_allow() {
    let db = start(listener(DB)).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let mut mailbox = db.register("inbox").unwrap();
    for _ in 0..2 {
        soon(app.send(DB, "inbox", b"allowed")).await.unwrap();
        assert_eq!(text(&mut mailbox).await, "allowed");
    }
    app.remove_route("^db@").unwrap();
    app.add_route("^db@", route_to(&db).tls(true), 1).unwrap();
    soon(app.send(DB, "inbox", b"not over that link")).await.unwrap_err();
    app.remove_route("^db@").unwrap();
    app.add_route("^db@", route_to(&db), 1).unwrap();
    soon(app.send(DB, "inbox", b"allowed again")).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "allowed again");

    app.add_proxy_route("^db@", ProxyRoute::via("gate@127.0.0.1".parse().unwrap()).direct(DirectUse::Never), 1)
        .unwrap();
    soon(app.send(DB, "inbox", b"not directly")).await.unwrap_err();
}
