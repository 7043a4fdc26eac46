//! Recovery that a node starts by itself: connections that were ended, routes that change, and a primary and a standby
//! that are two nodes.

use std::time::Duration;

use trunkline::{Event, KeepAlive, NativeLimits, NetworkRoute, Node, Reconnect};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
/// A time longer than the first pauses can be.
const A_WHILE: Duration = Duration::from_millis(500);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits for a time in which the node could do something that it must not.
async fn a_while(node: &Node, silent: &Door) {
    let route = route_at(silent.address).build();
    let waits = tokio::time::timeout(A_WHILE, node.connect_with("silent@h", route));
    assert!(waits.await.is_err(), "nobody answers there");
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_connection_ended_on_purpose_stays_down_although_its_drain_runs_out_of_time() {
    let (db, silent) = (start(listener(DB)).await, Door::silent().await);
    let mut slow = db.register("slow").unwrap();
    let keep_alive = KeepAlive { drain: ms(300), ..KeepAlive::default() };
    let limits = NativeLimits { keep_alive, ..NativeLimits::default() };
    let app = dialer("app@127.0.0.1").limits(limits).route("^db@", route_to(&db).reconnect(Reconnect::Keep), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    let caller = connection.clone();
    let call = tokio::spawn(async move { caller.call("slow", "", b"", PATIENCE).await });
    let _never_answered = soon(slow.recv()).await.unwrap();
    connection.disconnect();
    down(&mut events, DB).await;
    soon(call).await.unwrap().unwrap_err();
    a_while(&app, &silent).await;
    assert!(app.connection(DB).is_none(), "it was dialled again");
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_probe_in_progress_does_not_restore_a_connection_that_was_ended() {
    let (primary, silent) = (own_address(), Door::silent().await);
    let db = start(listener(DB)).await;
    let hold = ms(200);
    let route = route_at(primary).failback(hold).reconnect(Reconnect::Never);
    let app = start(dialer("app@127.0.0.1").route("^db@", route, 2).route("db", route_to(&db), 1)).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    let door = Door::at(primary, address(&db)).await;
    until(|| door.accepted() >= 3).await;
    // The deciding probe hangs for longer than the hold time.
    door.freeze();
    let before = door.accepted();
    until(|| door.accepted() > before).await;
    a_while(&app, &silent).await;
    connection.disconnect();
    down(&mut events, DB).await;
    door.thaw();
    a_while(&app, &silent).await;
    assert!(app.connection(DB).is_none(), "it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn d_peers_that_disconnected_are_not_dialled_without_a_route() {
    let (discovery, silent) = (Discovery::new(), Door::silent().await);
    let db = start(asking(DB, &discovery).listen(loopback()).reconnect(Reconnect::Keep)).await;
    for n in 0..5 {
        let app = start(dialer(&format!("cli-{n}@127.0.0.1")).route("^db@", route_to(&db), 1)).await;
        soon(app.connect(DB)).await.unwrap();
        until(|| db.connection(app.name()).is_some()).await;
        soon(app.shut_down(PATIENCE)).await;
    }
    until(|| db.nodes().is_empty()).await;
    a_while(&db, &silent).await;
    assert_eq!(discovery.asked(), [], "who has no route is not looked for");
}

/// Waits until a connection has gone back to this route.
#[track_caller]
fn goes_back(app: &Node, pattern: &str) -> impl Future<Output = ()> {
    until(move || app.connection(DB).is_some_and(|c| c.info().route.as_deref() == Some(pattern)))
}

#[tokio::test(flavor = "multi_thread")]
async fn d_a_connection_goes_back_to_a_better_route_that_is_added_or_changed() {
    let primary = own_address();
    let db = start(listener(DB)).await;
    let app = start(dialer("app@127.0.0.1").route("db", route_to(&db), 1)).await;
    soon(app.connect(DB)).await.unwrap();
    let door = Door::at(primary, address(&db)).await;
    app.add_route("^db@", route_at(primary).failback(ms(200)), 2).unwrap();
    goes_back(&app, "^db@").await;
    soon(app.drain_route("^db@")).await.unwrap();
    goes_back(&app, "db").await;
    // A hold time of an hour is replaced by a short one.
    app.add_route("^db@", route_at(primary).failback(Duration::from_secs(3600)), 2).unwrap();
    app.edit_routes(|routes| {
        routes.remove("^db@").unwrap();
        routes.add("^db@", route_at(primary).failback(ms(200)), 2)
    })
    .unwrap();
    goes_back(&app, "^db@").await;
    assert!(door.accepted() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d_primary_and_standby_may_be_two_nodes_of_one_name() {
    let address = own_address();
    let mut limits = NativeLimits::default();
    (limits.window.link, limits.window.mailbox) = (64 << 20, 64 << 20);
    let standby = start(listener(DB).limits(limits)).await;
    let mut at_standby = standby.register("in").unwrap();
    let door = Door::to(self::address(&standby)).await;
    let app = dialer("app@127.0.0.1").route("^db@", route_at(address).failback(ms(200)), 2);
    let app = start(app.route("db", route_at(door.address), 1)).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    let before = connection.info().incarnation;
    // More data than the sockets hold is in transit when the connection moves.
    door.freeze();
    let body = |n: u64| [&n.to_be_bytes()[..], &[0; 400_000]].concat();
    for n in 0..100 {
        soon(connection.send("in", "", &body(n))).await.unwrap();
    }
    let primary = start(dialer(DB).listen(address)).await;
    let mut at_primary = primary.register("in").unwrap();
    soon(async { while !matches!(events.next().await, Some(Event::FailedBack { .. })) {} }).await;
    assert_ne!(connection.info().incarnation, before, "it is another node");
    assert_eq!(connection.info().address, address);
    // No message sent over the standby is lost, and the standby is abandoned.
    door.thaw();
    for n in 0..100 {
        assert!(soon(at_standby.recv()).await.unwrap().body()[..] == body(n), "message {n}");
    }
    until(|| standby.nodes().is_empty()).await;
    soon(connection.send("in", "", b"now here")).await.unwrap();
    assert_eq!(text(&mut at_primary).await, "now here");

    // The same happens on request.
    let drained = soon(app.drain_route("^db@")).await.unwrap();
    assert_eq!((drained.moved, drained.kept.len()), (vec![name(DB)], 0));
    soon(connection.send("in", "", b"there again")).await.unwrap();
    assert_eq!(text(&mut at_standby).await, "there again");
    until(|| primary.nodes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_host_that_no_certificate_can_name_leads_to_the_next_route() {
    let db = start(listener(DB)).await;
    let id = profile_id("p");
    let odd = NetworkRoute::direct("127.1", address(&db).port()).unwrap().tls(true).tls_profile(id.clone());
    let app = dialer("app@127.0.0.1").tls_profile(id, trusting(&authority())).route("^db@", odd, 2);
    let app = start(app.route("db", route_to(&db), 1)).await;
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().route.as_deref(), Some("db"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p26_a_caller_with_more_time_does_not_fail_with_one_that_had_less() {
    let (db, silent) = (start(listener(DB)).await, Door::silent().await);
    let app = dialer("app@127.0.0.1").times(short_times()).route("^db@", route_at(silent.address), 2);
    let app = start(app.route("db", route_to(&db), 1)).await;
    let hurried = app.clone();
    let hurried = tokio::spawn(async move { hurried.connect_within(DB, ms(100)).await });
    until(|| silent.accepted() > 0).await;
    soon(app.connect(DB)).await.unwrap();
    no_route(soon(hurried).await.unwrap());
}
