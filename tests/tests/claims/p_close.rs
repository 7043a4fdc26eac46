use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trunkline::{ConnectError, NativeLimits, ShutDownReport};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
const APP: &str = "app@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn p7_a_handshake_ends_by_its_deadline_whether_the_caller_is_silent_or_trickles() {
    let answer = Duration::from_millis(400);
    let limits = NativeLimits { answer, ..NativeLimits::default() };
    let db = start(listener(DB).limits(limits)).await;
    let mut silent = TcpStream::connect(address(&db)).await.unwrap();
    let (mut reading, mut writing) = TcpStream::connect(address(&db)).await.unwrap().into_split();
    let trickle = tokio::spawn(async move {
        let record = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        for byte in record.into_iter().chain(std::iter::repeat(0)) {
            if writing.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut rest = Vec::new();
    let _ = soon(silent.read_to_end(&mut rest)).await;
    let _ = soon(reading.read_to_end(&mut rest)).await;
    soon(trickle).await.unwrap();
    let port = address(&db).port();
    drop((silent, reading));
    until(|| sockets_with(port) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p16_after_a_close_every_task_socket_and_entry_is_gone() {
    let (ends_db, ends_app) = (Discovery::new(), Discovery::new());
    let db = start(listener(DB).resolver(resolver_id("kept"), ends_db.clone())).await;
    let app = dialer(APP).resolver(resolver_id("kept"), ends_app.clone()).route("^db@", route_to(&db), 1);
    let app = start(app).await;
    let port = address(&db).port();
    for round in 0..20 {
        let connection = soon(app.connect(DB)).await.unwrap();
        until(|| db.nodes().len() == 1).await;
        if round % 2 == 0 { connection.clone() } else { db.connection(APP).unwrap() }.disconnect();
        assert!(soon(connection.closed()).await.is_normal());
        until(|| app.nodes().is_empty() && db.nodes().is_empty() && sockets_with(port) == 1).await;
        assert!(app.connection(DB).is_none() && db.connection(APP).is_none());
    }
    drop((app, db));
    until(|| sockets_with(port) == 0).await;
    until(|| Arc::strong_count(&ends_db) == 1 && Arc::strong_count(&ends_app) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_node_leaves_no_task_and_no_socket_and_its_port_can_be_bound_at_once() {
    let witness = Discovery::new();
    let db = start(listener(DB).resolver(resolver_id("kept"), witness.clone())).await;
    let silent = Door::silent().await;
    let mut mailbox = db.register("in").unwrap();
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let stranger = TcpStream::connect(address(&db)).await.unwrap();
    db.add_route("@", route_at(silent.address), 1).unwrap();
    let dialling = {
        let db = db.clone();
        tokio::spawn(async move { db.connect("elsewhere@127.0.0.1").await.map(drop) })
    };
    silent.opens(1).await;
    until(|| db.nodes().len() == 1).await;
    let address = address(&db);
    dialling.abort();
    let _ = soon(dialling).await;
    drop(db);
    soon(connection.closed()).await;
    silent.opens(0).await;
    assert!(soon(mailbox.recv()).await.is_none());
    until(|| Arc::strong_count(&witness) == 1).await;
    drop((stranger, connection));
    until(|| std::net::TcpListener::bind(address).is_ok()).await;
    until(|| sockets_with(address.port()) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_can_be_bound_at_once_after_a_shut_down() {
    let db = start(listener(DB)).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    soon(app.connect(DB)).await.unwrap();
    until(|| db.nodes().len() == 1).await;
    let address = address(&db);
    soon(db.shut_down(PATIENCE)).await;
    let again = start(dialer(DB).listen(address)).await;
    until(|| app.nodes().is_empty()).await;
    soon(app.connect(DB)).await.unwrap();
    assert_eq!(again.listening(), [address]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shut_down_lets_calls_under_way_and_queued_messages_finish_and_counts_them() {
    let db = start(listener(DB)).await;
    let (mut slow, mut inbox) = (db.register("slow").unwrap(), db.register("in").unwrap());
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let call = {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call("slow", "", b"", PATIENCE).await })
    };
    let under_way = soon(slow.recv()).await.unwrap();
    for n in 0..1000 {
        soon(connection.send("in", "", n.to_string().as_bytes())).await.unwrap();
    }
    let clone = app.clone();
    let report = tokio::spawn(app.shut_down(PATIENCE));
    until(|| !connection.is_up()).await;
    assert_eq!(soon(clone.connect("other@127.0.0.1")).await.map(drop), Err(ConnectError::ShuttingDown));
    assert!(!report.is_finished(), "the call is under way");
    under_way.reply("done");
    assert_eq!(soon(call).await.unwrap().unwrap(), "done");
    assert_eq!(soon(report).await.unwrap(), ShutDownReport { drained: 1, cut: 0 });
    for n in 0..1000 {
        assert_eq!(text(&mut inbox).await, n.to_string());
    }
    until(|| db.nodes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_still_arrives_when_the_answering_node_shuts_down() {
    let db = start(listener(DB)).await;
    let mut slow = db.register("slow").unwrap();
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let call = {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call("slow", "", b"", PATIENCE).await })
    };
    let under_way = soon(slow.recv()).await.unwrap();
    let report = tokio::spawn(db.shut_down(PATIENCE));
    until(|| !connection.is_up()).await;
    under_way.reply("done");
    assert_eq!(soon(call).await.unwrap().unwrap(), "done");
    assert_eq!(soon(report).await.unwrap(), ShutDownReport { drained: 1, cut: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_not_finished_when_the_grace_is_over_is_cut() {
    let db = start(listener(DB)).await;
    let mut never = db.register("never").unwrap();
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let call = {
        let connection = connection.clone();
        tokio::spawn(async move { connection.call("never", "", b"", PATIENCE).await })
    };
    let _unanswered = soon(never.recv()).await.unwrap();
    let report = soon(app.shut_down(Duration::from_millis(100))).await;
    assert_eq!(report, ShutDownReport { drained: 0, cut: 1 });
    assert!(matches!(soon(call).await.unwrap(), Err(trunkline::CallError::LinkDown(_))));
    until(|| db.nodes().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_nothing_bound() {
    let taken = TcpListener::bind(loopback()).await.unwrap();
    let free = own_address();
    let failing = dialer(DB).listen(free).listen(taken.local_addr().unwrap());
    assert!(soon(failing.start()).await.is_err());
    std::net::TcpListener::bind(free).unwrap();
    let registrar = own_address();
    let _held = start(dialer(APP).listen(loopback()).embedded_registrar(registrar)).await;
    let refused = dialer(DB).cookie(cookie("others")).listen(free).embedded_registrar(registrar);
    assert!(soon(refused.start()).await.is_err());
    until(|| std::net::TcpListener::bind(free).is_ok()).await;
}
