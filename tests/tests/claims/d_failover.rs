use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{DialTimes, Listen, NetworkRoute, Record, ServerProfile};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

/// Returns the only failure of a lookup that tries this route first and then one that works.
async fn failure_before_the_next_route(first: impl Into<NetworkRoute>) -> Record {
    let db = start(listener(DB)).await;
    let app = dialer("app@127.0.0.1").route("^db@", first, 20).route("db", route_to(&db), 10).times(short_times());
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    let mut failed = up(&mut events, DB).await;
    assert_eq!(failed.len(), 1, "{failed:?}");
    failed.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_refused_leads_to_the_next_route() {
    let failure = failure_before_the_next_route(route_at(nobody())).await;
    assert_eq!(failure.error.stage(), "tcp", "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_unreachable_leads_to_the_next_route() {
    // The kernel refuses to connect to the broadcast address; nothing is sent.
    let failure = failure_before_the_next_route(route_at(SocketAddr::from(([255; 4], 4370)))).await;
    assert_eq!(failure.error.stage(), "tcp", "{failure}");
    assert!(failure.error.io_kind().is_some_and(|kind| kind == std::io::ErrorKind::NetworkUnreachable), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_unresolvable_leads_to_the_next_route() {
    let route = NetworkRoute::direct("does-not-exist.invalid", 4370).unwrap();
    let failure = failure_before_the_next_route(route).await;
    assert_eq!(failure.error.stage(), "dns", "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_wrong_cookie_leads_to_the_next_route() {
    let other = start(listener(DB).cookie(cookie("others"))).await;
    let failure = failure_before_the_next_route(route_to(&other)).await;
    assert_eq!(failure.error, trunkline::AttemptError::WrongCookie);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_bad_certificate_leads_to_the_next_route() {
    let (other, db) = (start(listener(DB)).await, start(listener(DB)).await);
    let (id, roots) = (profile_id("ours"), trusting(&authority()));
    let strict = route_to(&other).tls(true).tls_profile(id.clone());
    let app = dialer("app@127.0.0.1").tls_profile(id, roots).route("^db@", strict, 2).route("db", route_to(&db), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    assert_eq!(up(&mut events, DB).await[0].error.stage(), "tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_silent_peer_leads_to_the_next_route() {
    let silent = Door::silent().await;
    let failure = failure_before_the_next_route(route_at(silent.address)).await;
    assert_eq!(failure.error, trunkline::AttemptError::TlsTimeout(short_times().tls));
    silent.opens(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_peer_that_falls_silent_in_the_handshake_leads_to_the_next_route() {
    let other = start(listener(DB)).await;
    let door = Door::to(address(&other)).await;
    door.freeze_after(2);
    let failure = failure_before_the_next_route(route_at(door.address)).await;
    assert_eq!(failure.error, trunkline::AttemptError::HandshakeTimeout(short_times().handshake));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_candidate_that_takes_too_long_in_all_leads_to_the_next_route() {
    let (db, hole) = (start(listener(DB)).await, BlackHole::new().await);
    let policy = trunkline::Policy { candidate: Duration::from_millis(300), ..trunkline::Policy::default() };
    let app = dialer("app@127.0.0.1").policy(policy).route("^db@", route_at(hole.address), 2);
    let app = start(app.route("db", route_to(&db), 1)).await;
    let mut events = app.events();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().address, address(&db));
    let failed = up(&mut events, DB).await;
    assert_eq!(failed[0].error, trunkline::AttemptError::CandidateTimeout(policy.candidate));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_certificate_for_another_host_leads_to_the_next_route() {
    let (ours, db) = (authority(), start(listener(DB)).await);
    let other = start(certified(&ours, DB)).await;
    let elsewhere = trusting(&ours).server_name("elsewhere.example");
    let id = profile_id("ours");
    let strict = route_to(&other).tls(true).tls_profile(id.clone());
    let app = dialer("app@127.0.0.1").tls_profile(id, elsewhere).route("^db@", strict, 2);
    let app = start(app.route("db", route_to(&db), 1)).await;
    let mut events = app.events();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().address, address(&db));
    let failed = up(&mut events, DB).await;
    assert_eq!(failed[0].error.stage(), "tls", "{}", failed[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_another_name_leads_to_the_next_route() {
    let other = start(listener("other@127.0.0.1")).await;
    let failure = failure_before_the_next_route(route_to(&other)).await;
    assert_eq!(failure.error.stage(), "name", "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_something_that_is_no_node_leads_to_the_next_route() {
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let failure = failure_before_the_next_route(route_at(address)).await;
    assert!(failure.to_string().contains(": TLS: the peer does not speak TLS ("), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_refused_client_certificate_leads_to_the_next_route() {
    let (ours, theirs) = (authority(), authority());
    let demands = ServerProfile::new(identity(&ours, DB)).client_roots_pem(ours.certificate().as_bytes()).unwrap();
    let strict = start(dialer(DB).listen(Listen::at(loopback()).tls(demands))).await;
    let db = start(listener(DB)).await;
    let mut told = Vec::new();
    for profile in [trusting(&ours), trusting(&ours).identity(identity(&theirs, "app@127.0.0.1"))] {
        let id = profile_id("ours");
        let refused = route_to(&strict).tls(true).tls_profile(id.clone());
        let app = dialer("app@127.0.0.1").tls_profile(id, profile);
        let app = start(app.route("^db@", refused, 2).route("db", route_to(&db), 1)).await;
        let mut events = app.events();
        let connection = soon(app.connect(DB)).await.unwrap();
        assert_eq!(connection.info().address, address(&db));
        let failed = up(&mut events, DB).await;
        assert_eq!(failed[0].error.stage(), "tls", "{}", failed[0]);
        told.push(failed[0].to_string());
        soon(app.shut_down(PATIENCE)).await;
    }
    assert!(told[0].contains("demands a certificate"), "{told:?}");
    assert!(told[1].contains("refused this node's certificate"), "{told:?}");
    assert!(strict.nodes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_the_heaviest_that_works_is_used_and_no_other_connection_is_left_open() {
    let db = start(listener(DB)).await;
    let elsewhere = start(listener(DB).cookie(cookie("others"))).await;
    let (wrong, used, spare) =
        (Door::to(address(&elsewhere)).await, Door::to(address(&db)).await, Door::to(address(&db)).await);
    let app = dialer("app@127.0.0.1")
        .route("d", route_at(spare.address), 10)
        .route("^db@", route_at(nobody()), 40)
        .route("db", route_at(used.address), 20)
        .route("db@", route_at(wrong.address), 30);
    let app = start(app).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, used.address);
    assert_eq!((wrong.accepted(), used.accepted(), spare.accepted()), (1, 1, 0));
    wrong.opens(0).await;
    assert_eq!(used.open(), 1);
    assert!(elsewhere.nodes().is_empty());
    until(|| db.nodes().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_black_hole_costs_one_bounded_connect_and_the_next_lookup_tries_the_other_route_first() {
    let (db, web) = (start(listener(DB)).await, start(listener("web@127.0.0.1")).await);
    let hole = BlackHole::new().await;
    let times = DialTimes { tcp: Duration::from_secs(1), ..DialTimes::default() };
    let app = dialer("app@127.0.0.1")
        .times(times)
        .route("@", route_at(hole.address), 20)
        .route("^db@", route_to(&db), 10)
        .route("^web@", route_to(&web), 10);
    let app = start(app).await;
    let mut events = app.events();
    let (first, second) = tokio::join!(soon(app.connect(DB)), async {
        let Some(trunkline::Event::AttemptFailed { record, .. }) = soon(events.next()).await else {
            panic!("the black hole comes first");
        };
        assert_eq!(record.error, trunkline::AttemptError::TcpTimeout(times.tcp));
        assert!(record.took >= times.tcp && record.took < 3 * times.tcp, "{record}");
        assert!(app.explain("web@127.0.0.1").unwrap().steps[1].remembered.is_some(), "it comes last, remembered");
        let connect = tokio::time::timeout(times.tcp / 2, app.connect("web@127.0.0.1"));
        connect.await.expect("the black hole does not come first any more")
    });
    assert_eq!(first.unwrap().info().address, address(&db));
    assert_eq!(second.unwrap().info().address, address(&web));
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_the_default_bound_is_three_seconds() {
    assert_eq!(DialTimes::default().tcp, Duration::from_secs(3));
}
