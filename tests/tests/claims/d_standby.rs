//! Connections that go down, and connections over a standby.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use trunkline::{AttemptError, ConnectError, Connection, Event, Events, Node, Reconnect};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn d_a_connection_that_is_kept_is_dialled_again_until_the_peer_is_back() {
    let address = own_address();
    let db = start(dialer(DB).listen(address)).await;
    let silent = Door::silent().await;
    let app = dialer("app@127.0.0.1").route("^silent@", route_at(silent.address), 1);
    let app = start(app.route("^db@", route_at(address).reconnect(Reconnect::Keep), 1)).await;
    let mut events = app.events();
    soon(app.connect(DB)).await.unwrap();
    up(&mut events, DB).await;
    crash(db).await;
    down(&mut events, DB).await;
    // The peer is dialled while it is down, and connected once it is up.
    soon(async { while !matches!(events.next().await, Some(Event::AttemptFailed { .. })) {} }).await;
    let db = start(dialer(DB).listen(address)).await;
    up(&mut events, DB).await;

    // A connection that was ended on purpose stays ended, whichever end ended it.
    for node in [&app, &db] {
        soon(app.connect(DB)).await.unwrap();
        until(|| db.connection(app.name()).is_some()).await;
        let peer = if node.name() == app.name() { DB } else { "app@127.0.0.1" };
        node.connection(peer).unwrap().disconnect();
        down(&mut events, DB).await;
        until(|| db.connection(app.name()).is_none()).await;
        // The wait is longer than the first pause can be.
        soon(app.connect_within("silent@h", Duration::from_millis(300))).await.unwrap_err();
        assert!(app.connection(DB).is_none(), "it was dialled again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_lost_connection_without_reconnect_fails_the_sends_that_only_use_it() {
    let address = own_address();
    let db = start(dialer(DB).listen(address)).await;
    let _mailbox = db.register("in").unwrap();
    let app = start(dialer("app@127.0.0.1").reconnect(Reconnect::Never).route("^db@", route_at(address), 1)).await;
    let mut events = app.events();
    soon(app.send(DB, "in", b"the first is dialled for")).await.unwrap();
    crash(db).await;
    down(&mut events, DB).await;
    let db = start(dialer(DB).listen(address)).await;
    let lapsed = soon(app.send(DB, "in", b"x")).await;
    assert_eq!(lapsed, Err(ConnectError::Lapsed(name(DB)).into()));
    assert!(db.nodes().is_empty());
    soon(app.dial_now(DB)).await.unwrap();
    soon(app.send(DB, "in", b"x")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn d_dial_now_ignores_remembered_failures_and_connect_within_gives_up_in_time() {
    let (db, silent) = (start(listener(DB)).await, Door::silent().await);
    let address = own_address();
    let app = dialer("app@127.0.0.1").route("^db@", route_at(address), 2).route("db", route_to(&db), 1);
    let app = start(app.route("^silent@", route_at(silent.address), 1)).await;
    soon(app.connect(DB)).await.unwrap().disconnect();
    until(|| app.connection(DB).is_none()).await;
    let primary = start(dialer(DB).listen(address)).await;
    assert!(app.explain(DB).unwrap().steps[1].remembered.is_some(), "the better route comes last, remembered");
    let connection = soon(app.dial_now(DB)).await.unwrap();
    assert_eq!(connection.info().address, self::address(&primary));

    let within = Duration::from_millis(50);
    let error = no_route(soon(app.connect_within("silent@h", within)).await);
    assert_eq!(error.reason, trunkline::Reason::OutOfTime);
    assert!(error.attempts.iter().all(|attempt| attempt.took < Duration::from_secs(2)), "{error}");
}

/// Waits until a connection has gone back to a better route, and returns the route's pattern.
async fn went_back(events: &mut Events) -> String {
    soon(async {
        loop {
            if let Event::FailedBack { pattern, .. } = events.next().await.expect("the node lives") {
                return pattern.to_string();
            }
        }
    })
    .await
}

/// Sends numbered messages until the connection fails. Each message takes a permit, which the receiver returns, so that
/// a slow machine does not queue a hundred thousand of them before anything else.
fn keep_sending(connection: Connection, permits: Arc<Semaphore>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let mut sent = 0u64;
        while connection.send("in", "", &sent.to_be_bytes()).await.is_ok() {
            sent += 1;
            permits.acquire().await.unwrap().forget();
        }
        sent
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_primary_that_recovered_takes_over_after_the_hold_time_and_no_message_is_lost_or_reordered() {
    // One node is behind two doors: the primary's door is closed at first.
    let primary = own_address();
    let db = start(listener(DB)).await;
    let mut inbox = db.register("in").unwrap();
    let hold = Duration::from_millis(200);
    let app = dialer("app@127.0.0.1").route("^db@", route_at(primary).failback(hold), 2).route("db", route_to(&db), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().route.as_deref(), Some("db"));
    let permits = Arc::new(Semaphore::new(1_000));
    let sending = keep_sending(connection.clone(), permits.clone());
    let received = tokio::spawn(async move {
        let mut next = 0u64;
        while let Some(message) = inbox.recv().await {
            assert_eq!(message.body()[..], next.to_be_bytes(), "in order, each once");
            next += 1;
            permits.add_permits(1);
        }
        next
    });

    let door = Door::at(primary, address(&db)).await;
    assert_eq!(went_back(&mut events).await, "^db@");
    assert_eq!(connection.info().address, primary, "the connection is the same, over another link");
    assert!(door.accepted() >= 4, "it was probed for the whole hold time: {}", door.accepted());
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().id, connection.info().id);
    until(|| connection.stats().messages_out > 100).await;
    soon(app.shut_down(PATIENCE)).await;
    let sent = soon(sending).await.unwrap();
    db.shut_down(PATIENCE).await;
    assert_eq!(soon(received).await.unwrap(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn d_an_open_socket_does_not_count_as_healthy_and_without_failback_a_connection_stays() {
    // The listener at the primary's address is a different node.
    let impostor = start(listener("other@127.0.0.1")).await;
    let door = Door::to(address(&impostor)).await;
    let db = start(listener(DB)).await;
    let hold = Duration::from_millis(40);
    let app =
        dialer("app@127.0.0.1").route("^db@", route_at(door.address).failback(hold), 2).route("db", route_to(&db), 1);
    let app = start(app).await;
    let stays =
        start(dialer("stays@127.0.0.1").route("^db@", route_at(nobody()), 2).route("db", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let other = soon(stays.connect(DB)).await.unwrap();
    // This is twice the number of probes that a healthy route needs.
    until(|| door.accepted() >= 10).await;
    let steps = app.explain(DB).unwrap().steps;
    let remembered = |error: &AttemptError| matches!(error, AttemptError::WrongName { .. });
    assert!(steps.iter().any(|step| step.remembered.as_ref().is_some_and(|(_, error)| remembered(error))));
    assert_eq!(connection.info().address, address(&db));
    assert_eq!(other.info().address, address(&db));
    assert!(impostor.nodes().is_empty());
}

/// Starts two doors to one node, and a node that prefers the first.
async fn behind_two_doors(db: &Node) -> (Door, Door, Node) {
    let (first, second) = (Door::to(address(db)).await, Door::to(address(db)).await);
    let app =
        dialer("app@127.0.0.1").route("^db@", route_at(first.address), 2).route("db", route_at(second.address), 1);
    let app = start(app).await;
    (first, second, app)
}

#[tokio::test(flavor = "multi_thread")]
async fn d_draining_a_route_moves_its_connections_to_the_next_and_loses_nothing() {
    let db = start(listener(DB)).await;
    let mut inbox = db.register("in").unwrap();
    let (first, second, app) = behind_two_doors(&db).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, first.address);
    for n in 0..100u64 {
        soon(connection.send("in", "", &n.to_be_bytes())).await.unwrap();
    }
    let drained = soon(app.drain_route("^db@")).await.unwrap();
    assert_eq!((drained.moved, drained.kept), (vec![name(DB)], vec![]));
    assert_eq!(connection.info().address, second.address);
    for n in 100..200u64 {
        soon(connection.send("in", "", &n.to_be_bytes())).await.unwrap();
    }
    for n in 0..200u64 {
        assert_eq!(soon(inbox.recv()).await.unwrap().body()[..], n.to_be_bytes());
    }
    first.opens(0).await;
    assert!(app.drain_route("^db@").await.is_err(), "it is gone");

    // Without another way the connection is not changed.
    let drained = soon(app.drain_route("db")).await.unwrap();
    assert!(drained.moved.is_empty());
    assert!(matches!(&drained.kept[..], [(kept, ConnectError::NoRoute(_))] if *kept == name(DB)), "{drained:?}");
    soon(connection.send("in", "", b"still")).await.unwrap();
    assert_eq!(text(&mut inbox).await, "still");
}

#[tokio::test(flavor = "multi_thread")]
async fn d_routes_of_equal_weight_race_when_configured_and_the_loser_leaves_no_link_and_no_failure() {
    let (db, hole) = (start(listener(DB)).await, BlackHole::new().await);
    // The connection completes TLS, and then nothing more passes.
    let slow = Door::to(address(&db)).await;
    slow.freeze_after(2);
    let pause = Duration::from_millis(50);
    let policy = trunkline::Policy { equal_weights: Some(pause), ..trunkline::Policy::default() };
    let app = dialer("app@127.0.0.1")
        .policy(policy)
        .route("^db@", route_at(hole.address), 1)
        .route("^(db)@", route_at(slow.address), 1)
        .route("db", route_to(&db), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    assert!(up(&mut events, DB).await.is_empty(), "what lost is no failure");
    assert!(app.explain(DB).unwrap().steps.iter().all(|step| step.remembered.is_none()));
    slow.thaw();
    slow.opens(0).await;
    until(|| db.nodes().len() == 1).await;
    assert_eq!(db.connection(app.name()).unwrap().info().id, connection.info().id);
}
