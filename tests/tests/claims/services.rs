//! Streams between nodes: services behind addresses and in programs, and local sockets that lead to them.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use trunkline::{
    AccessPattern, Address, First, LocalPlace, Node, OpenError, ServiceError, SocketPlace, StreamCode, StreamError,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

fn anybody() -> Vec<AccessPattern> {
    vec![AccessPattern::new(".*").unwrap()]
}

fn place(address: SocketAddr) -> SocketPlace {
    SocketPlace::Tcp(Address::new(address.ip().to_string(), address.port()).unwrap())
}

/// Starts a server that reads everything and then returns it in reverse order.
async fn backwards() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await.unwrap();
                all.reverse();
                socket.write_all(&all).await.unwrap();
            });
        }
    });
    address
}

async fn nodes() -> (Node, Node) {
    let db = start(listener(DB)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    (db, app)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 253) as u8).collect()
}

async fn asks(mut socket: impl AsyncReadExt + AsyncWriteExt + Unpin, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    soon(async {
        socket.write_all(question).await?;
        // Only one direction is closed: the answer is still to come.
        socket.shutdown().await?;
        socket.read_to_end(&mut answer).await
    })
    .await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_a_peer_is_reached_by_a_stream_or_by_a_local_socket() {
    let (db, app) = nodes().await;
    db.serve("backwards", place(backwards().await), anybody()).unwrap();
    let forward = app.forward(LocalPlace::Tcp(loopback()), DB, "backwards").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    assert!(app.nodes().is_empty(), "the first connection is what it connects for");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let by_path = app.forward(LocalPlace::Unix(path.clone()), DB, "backwards").await.unwrap();
    for len in [0, 1, 100_000, 3_000_000] {
        let question = bytes(len);
        let expected: Vec<u8> = question.iter().rev().copied().collect();
        let stream = soon(app.open(DB, "backwards", PATIENCE)).await.unwrap();
        assert!(asks(stream, &question).await.unwrap() == expected);
        assert!(asks(TcpStream::connect(at).await.unwrap(), &question).await.unwrap() == expected);
        assert!(asks(tokio::net::UnixStream::connect(&path).await.unwrap(), &question).await.unwrap() == expected);
    }
    assert_eq!(app.nodes().len(), 1, "all of them over one link");
    until(|| app.nodes()[0].1.streams == 0 && db.nodes()[0].1.streams == 0).await;
    let (served, forwarded) = (db.services().remove(0), forward.traffic());
    assert_eq!((served.traffic.open, served.traffic.all, served.traffic.refused), (0, 12, 0));
    assert_eq!((served.traffic.received, served.traffic.sent), (3 * 3_100_001, 3 * 3_100_001));
    assert_eq!((forwarded.all, forwarded.sent, forwarded.received), (4, 3_100_001, 3_100_001));
    assert!(forwarded.idle.is_some());

    drop((forward, by_path));
    until(|| std::net::TcpStream::connect(at).is_err() && !path.exists()).await;
    assert!(db.withdraw("backwards") && !db.withdraw("backwards"));
    assert!(soon(app.open(DB, "backwards", PATIENCE)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_names_the_refusing_node_and_the_reason() {
    let (db, app) = nodes().await;
    let nowhere = dialer("far@127.0.0.1").route("db", route_at(nobody()), 1);
    let nowhere = start(nowhere).await;
    let of = |names: &str| vec![AccessPattern::new(names).unwrap()];
    db.serve("others", place(backwards().await), of("other@.*|app")).unwrap();
    db.serve("nobody", place(nobody()), anybody()).unwrap();
    db.serve("closed", place(backwards().await), Vec::new()).unwrap();
    let _untaken = db.accept("full", anybody()).unwrap();
    for (service, code, says) in [
        ("absent", StreamCode::NoService, "there is no stream service \"absent\""),
        ("others", StreamCode::NotAllowed, "does not allow this node"),
        ("closed", StreamCode::NotAllowed, "does not allow this node"),
        ("nobody", StreamCode::Unreachable, "refused"),
    ] {
        match soon(app.open(DB, service, PATIENCE)).await {
            Err(StreamError::Open(OpenError::Refused { hop, code: told, text })) => {
                assert_eq!((hop.as_str(), told), (DB, code));
                assert!(text.contains(says), "{text}");
                assert!(!text.contains(&nobody().ip().to_string()[..8]), "where it is, is nobody's business: {text}");
            }
            other => panic!("{service}: {other:?}"),
        }
    }
    let late = soon(app.open(DB, "full", std::time::Duration::from_millis(100))).await;
    assert!(matches!(late, Err(StreamError::Open(OpenError::TimedOut(_)))), "{late:?}");
    assert!(matches!(soon(nowhere.open(DB, "x", PATIENCE)).await, Err(StreamError::Connect(_))));
    assert_eq!(db.serve("others", place(nobody()), anybody()), Err(ServiceError::Taken("others".into())));
    assert_eq!(db.serve("", place(nobody()), anybody()), Err(ServiceError::BadName { len: 0 }));
    assert!(app.connection(DB).unwrap().is_up(), "what is refused costs no connection");

    // A client of a local socket sees a reset, not an end.
    let forward = app.forward(LocalPlace::Tcp(loopback()), DB, "others").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    // The reset may come as soon as the connection is established.
    let error = async { asks(TcpStream::connect(at).await?, b"x").await }.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    until(|| forward.traffic().refused == 1).await;
    assert!(app.forward(LocalPlace::Tcp(at), DB, "others").await.unwrap_err().to_string().contains("cannot listen"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_takes_streams_itself_under_the_name_the_connection_gives_them() {
    let db = start(listener(DB)).await;
    let mapping = trunkline::AtomMapping::new([("store", "warehouse")]).unwrap();
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db).atom_mapping(mapping), 1)).await;
    let mut streams = db.accept("warehouse", anybody()).unwrap();
    let taken = tokio::spawn(async move {
        let incoming = streams.next().await.unwrap();
        assert_eq!((incoming.peer().as_str(), incoming.data().as_ref()), ("app@127.0.0.1", &b"warehouse"[..]));
        let mut stream = incoming.accept();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream.write_all(all.to_uppercase().as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let stream = soon(app.open(DB, "store", PATIENCE)).await.unwrap();
    assert_eq!(asks(stream, b"shelf").await.unwrap(), b"SHELF");
    soon(taken).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_on_one_side_is_reset_on_the_other() {
    let (db, app) = nodes().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("served");
    let (tcp, unix) = (TcpListener::bind(loopback()).await.unwrap(), UnixListener::bind(&path).unwrap());
    db.serve("tcp", place(tcp.local_addr().unwrap()), anybody()).unwrap();
    db.serve("unix", SocketPlace::Unix(path), anybody()).unwrap();

    // The server resets the connection.
    let (mut ours, served) = tokio::join!(async { app.open(DB, "tcp", PATIENCE).await.unwrap() }, tcp.accept());
    let served = served.unwrap().0;
    served.set_zero_linger().unwrap();
    drop(served);
    let error = soon(ours.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::ConnectionReset, "broken off".into()));

    // The client resets the connection, through a forwarder.
    let forward = app.forward(LocalPlace::Tcp(loopback()), DB, "tcp").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    let (client, served) = tokio::join!(TcpStream::connect(at), tcp.accept());
    let (client, mut served) = (client.unwrap(), served.unwrap().0);
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(soon(served.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    // The link breaks.
    let (ours, served) = tokio::join!(async { app.open(DB, "unix", PATIENCE).await.unwrap() }, unix.accept());
    let mut served = served.unwrap().0;
    let (client, by_tcp) = tokio::join!(TcpStream::connect(at), tcp.accept());
    let (mut client, mut by_tcp) = (client.unwrap(), by_tcp.unwrap().0);
    crash(db).await;
    let mut ours = ours;
    // A node that is dropped in its process may still send that its end of the stream is gone.
    let kind = soon(ours.read(&mut [0; 8])).await.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset), "{kind}");
    assert_eq!(soon(client.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let _ = soon(by_tcp.read(&mut [0; 8])).await;
    assert!(matches!(soon(served.read(&mut [0; 8])).await, Ok(0) | Err(_)));
    until(|| forward.traffic().open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_short_connections_and_a_stopped_one_share_one_link() {
    let (db, app) = nodes().await;
    let (address, stopped) = (backwards().await, TcpListener::bind(loopback()).await.unwrap());
    db.serve("backwards", place(address), anybody()).unwrap();
    db.serve("stopped", place(stopped.local_addr().unwrap()), anybody()).unwrap();
    let (opened, served) = tokio::join!(app.open(DB, "stopped", PATIENCE), stopped.accept());
    let (mut writer, _unread) = (opened.unwrap(), served.unwrap());
    tokio::spawn(async move { while writer.write_all(&[0; 60_000]).await.is_ok() {} });
    let forward = app.forward(LocalPlace::Tcp(loopback()), DB, "backwards").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    let mut all = tokio::task::JoinSet::new();
    for n in 0..1000usize {
        if n >= 50 {
            soon(all.join_next()).await.unwrap().unwrap();
        }
        all.spawn(async move {
            let question = bytes(n);
            let expected: Vec<u8> = question.iter().rev().copied().collect();
            assert_eq!(asks(TcpStream::connect(at).await.unwrap(), &question).await.unwrap(), expected);
        });
    }
    while let Some(done) = soon(all.join_next()).await {
        done.unwrap();
    }
    assert_eq!((app.nodes().len(), forward.traffic().all), (1, 1000));
    until(|| app.nodes()[0].1.streams == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_off_is_noticed_although_the_server_reads_nothing_more() {
    let (db, app) = nodes().await;
    let server = TcpListener::bind(loopback()).await.unwrap();
    db.serve("stuck", place(server.local_addr().unwrap()), anybody()).unwrap();
    let mut stream = soon(app.open(DB, "stuck", PATIENCE)).await.unwrap();
    let (socket, _) = soon(server.accept()).await.unwrap();
    // The writes continue until everything on the path is full: sockets, windows, and queues.
    let piece = vec![0; 1 << 20];
    while tokio::time::timeout(std::time::Duration::from_millis(300), stream.write(&piece)).await.is_ok() {}
    assert_eq!(db.services()[0].traffic.open, 1);
    drop(stream);
    soon(socket.ready(tokio::io::Interest::ERROR)).await.unwrap();
    until(|| db.services()[0].traffic.open == 0 && db.nodes()[0].1.streams == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_sent_with_a_request_is_not_sent_again_if_it_may_have_been_read() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_at(door.address), 1)).await;
    let mut streams = db.accept("orders", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    let order = |text: &'static str| {
        let app = app.clone();
        tokio::spawn(async move {
            app.open_with(DB, "orders", First { bytes: text.as_bytes(), is_all: true }, PATIENCE).await.map(drop)
        })
    };
    let first = order("pay 100 euros");
    // The request has arrived, and its answer never comes.
    let taken = soon(streams.next()).await.unwrap();
    door.cut();
    let broken = soon(first).await.unwrap();
    assert!(matches!(broken, Err(StreamError::Open(OpenError::Down(_)))), "{broken:?}");
    drop(taken);
    let second = order("pay 7 euros");
    let mut text = String::new();
    let mut stream = soon(streams.next()).await.unwrap().accept();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "pay 7 euros");
    soon(second).await.unwrap().unwrap();
}
