//! Silent peers: the time after which one is given up, and the streams that are requested in the meantime.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trunkline::{AccessPattern, Down, First, KeepAlive, LocalPlace, SocketPlace};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_given_up_after_the_time_of_the_node_or_of_the_route() {
    let db = start(listener(DB)).await;
    let second = Duration::from_secs(1);
    let short = KeepAlive { idle: second / 5, dead: second, ..KeepAlive::default() };
    for (of_node, of_route, expected) in [(short, None, second), (KeepAlive::default(), Some(2 * second), 2 * second)] {
        let door = Door::to(address(&db)).await;
        let route = route_at(door.address);
        let route = of_route.map_or(route.clone(), |time| route.dead_after(time));
        let app = start(dialer("app@127.0.0.1").keep_alive(of_node).route("^db@", route, 1)).await;
        let mut events = app.events();
        soon(app.connect(DB)).await.unwrap();
        door.freeze();
        assert_eq!(down(&mut events, DB).await, Down::Silent(expected));
        drop(app);
        until(|| db.nodes().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_opened_during_the_silence_move_to_the_next_route() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let app = dialer("app@127.0.0.1")
        .route("^db@", route_at(door.address).dead_after(Duration::from_secs(4)), 2)
        .route("db", route_to(&db), 1)
        .times(short_times());
    let app = start(app).await;
    let server = TcpListener::bind(loopback()).await.unwrap();
    let place: SocketPlace = server.local_addr().unwrap().to_string().parse().unwrap();
    db.serve("echo", place, vec![AccessPattern::new(".*").unwrap()]).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await.unwrap();
                socket.write_all(&all).await.unwrap();
            });
        }
    });
    let forward = app.forward(LocalPlace::Tcp(loopback()), DB, "echo").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    soon(app.connect(DB)).await.unwrap();
    door.freeze();
    // The stream is requested at once, before the peer has sent anything.
    let mut quiet = TcpStream::connect(at).await.unwrap();
    // The stream is requested once the peer has been silent for longer than a live one would be.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut talks = TcpStream::connect(at).await.unwrap();
    talks.write_all(b"said at once").await.unwrap();
    talks.shutdown().await.unwrap();
    let stream = soon(app.open_with(DB, "echo", First { bytes: b"by a program", is_all: true }, PATIENCE));
    let reads = |mut socket: TcpStream| async move {
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await.map(|_| answer)
    };
    assert_eq!(reads(talks).await.unwrap(), "said at once");
    let mut answer = String::new();
    soon(stream.await.unwrap().read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "by a program");
    quiet.write_all(b"said later").await.unwrap();
    quiet.shutdown().await.unwrap();
    assert_eq!(reads(quiet).await.unwrap(), "said later");
    assert_eq!((forward.traffic().all, forward.traffic().refused), (2, 0));
}
