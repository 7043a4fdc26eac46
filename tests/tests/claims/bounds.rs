//! Times without a limit, calls from outside the runtime, and nodes that have shut down.

use std::time::Duration;

use tokio::net::TcpStream;
use trunkline::{
    CallError, DialTimes, First, ForwardError, KeepAlive, LocalPlace, NativeLimits, Policy, RegisterError, SendError,
    ServiceError, SocketPlace, SpawnError, Term,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_possible_time_is_a_valid_limit() {
    let ever = Duration::MAX;
    let keep_alive = KeepAlive { idle: ever, dead: ever, drain: ever };
    let limits = NativeLimits { keep_alive, answer: ever, ..NativeLimits::default() };
    let times = DialTimes { tcp: ever, tls: ever, handshake: ever };
    let policy = Policy { resolve: ever, dns: ever, candidate: ever, total: ever, stagger: ever, ..Policy::default() };
    let node = |node: trunkline::NodeBuilder| node.limits(limits).times(times).policy(policy).certificate_check(ever);
    let db = start(node(listener(DB))).await;
    let route = route_to(&db).failback(ever).keep_alive(ever).dead_after(ever);
    let app = start(node(dialer("app@127.0.0.1").route("^db@", route, 1))).await;
    answers(&db, "who");
    let _inbox = db.register("inbox").unwrap();
    let mut streams = db.accept("sink", vec![trunkline::AccessPattern::new(".*").unwrap()]).unwrap();
    db.enable_spawn("nothing", vec![trunkline::AccessPattern::new(".*").unwrap()], |_, _| async {}).unwrap();
    assert_eq!(soon(app.call(DB, "who", b"", ever)).await.unwrap(), DB);
    soon(app.ping(DB, ever)).await.unwrap();
    soon(app.connect_within(DB, ever)).await.unwrap();
    soon(app.send_important(DB, "inbox", &b"x"[..], ever)).await.unwrap();
    soon(app.trace(DB, ever)).await.unwrap();
    let accept = async { soon(streams.next()).await.unwrap().accept() };
    let (opened, _theirs) = tokio::join!(soon(app.open_with(DB, "sink", First::default(), ever)), accept);
    drop(opened.unwrap());
    soon(app.spawn_on(DB, "nothing", &Term::from(""), ever)).await.unwrap();
    let report = soon(app.shut_down(ever)).await;
    assert_eq!(report.cut, 0);
}

#[test]
fn a_process_can_be_spawned_and_a_monitor_dropped_outside_the_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (db, app, monitor) = runtime.block_on(async {
        let db = start(listener(DB)).await;
        let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
        let pid = db.spawn(|mut process| async move { while process.recv().await.is_some() {} }).unwrap();
        let monitor = soon(app.monitor(&pid)).await;
        (db, app, monitor)
    });
    let (told, hears) = std::sync::mpsc::channel();
    app.spawn(move |process| async move { told.send(process.pid().clone()).unwrap() }).unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap().node, *app.name());
    drop(monitor);
    app.add_route("^other@", route_at(nobody()), 1).unwrap();
    app.remove_route("^other@").unwrap();
    drop((db, app));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_streams_of_a_node_that_has_shut_down_end() {
    let db = start(listener(DB)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    let mut mailbox = app.register("before").unwrap();
    let mut streams = app.accept("before", Vec::new()).unwrap();
    let place = || LocalPlace::Tcp(loopback());
    let forward = app.forward(place(), DB, "any").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    let app = {
        let left = app.clone();
        soon(app.shut_down(PATIENCE)).await;
        left
    };
    assert!(soon(mailbox.recv()).await.is_none());
    assert!(soon(streams.next()).await.is_none());
    until(|| std::net::TcpStream::connect(at).is_err()).await;
    assert!(TcpStream::connect(at).await.is_err(), "the forward of before does not listen any more");

    assert!(matches!(app.register("after"), Err(RegisterError::Closed)));
    assert!(matches!(app.accept("after", Vec::new()), Err(ServiceError::ShuttingDown)));
    let served: SocketPlace = "127.0.0.1:1".parse().unwrap();
    assert_eq!(app.serve("after", served, Vec::new()), Err(ServiceError::ShuttingDown));
    assert!(matches!(app.forward(place(), DB, "any").await, Err(ForwardError::ShuttingDown)));
    assert!(matches!(app.spawn(|_| async {}), Err(SpawnError::ShuttingDown)));
    assert!(matches!(soon(app.call(DB, "who", b"", PATIENCE)).await, Err(CallError::NotSent(SendError::Connect(_)))));
}
