//! Last bytes before a break: the data that one side sent before it broke off reaches the other side before the error
//! does.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trunkline::{
    AccessPattern, Address, ByteStream, First, LocalPlace, Node, SocketPlace, StreamCode, StreamOptions, Streams,
};
use trunkline_proxy::{Carried, relay};
use trunkline_tests::support::*;

use super::e_proxy::{all, via};

const APP: &str = "app@127.0.0.1";
const DB: &str = "db@127.0.0.1";
const GATE: &str = "gate@127.0.0.1";
/// Size of an answer: more than one frame, and less than a receiver takes at once, since the server's kernel discards
/// unsent data.
const ANSWER: usize = 20_000;
const CLIENTS: usize = 100;

fn anybody() -> Vec<AccessPattern> {
    vec![AccessPattern::new(".*").unwrap()]
}

fn place(address: SocketAddr) -> SocketPlace {
    SocketPlace::Tcp(Address::new(address.ip().to_string(), address.port()).unwrap())
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 253) as u8).collect()
}

/// Starts a server that answers after the first byte of a question and closes with the rest unread, which resets the
/// connection.
async fn hasty() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                socket.read_u8().await.unwrap();
                socket.write_all(&bytes(ANSWER)).await.unwrap();
                socket.set_zero_linger().unwrap();
            });
        }
    });
    address
}

async fn nodes() -> (Node, Node) {
    let db = start(listener(DB)).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    (db, app)
}

async fn forwarded(app: &Node, service: &str, options: StreamOptions) -> (trunkline::Forward, SocketAddr) {
    let forward = app.forward_with(LocalPlace::Tcp(loopback()), DB, service, options).await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    (forward, at)
}

/// Sends a question, and returns all data that can be read and how it ended.
async fn asks(at: SocketAddr) -> (Vec<u8>, Option<ErrorKind>) {
    let mut socket = TcpStream::connect(at).await.unwrap();
    // The server does not read the whole question, so the write may fail.
    let _ = socket.write_all(&bytes(100_000)).await;
    let mut answer = Vec::new();
    let ended = soon(socket.read_to_end(&mut answer)).await;
    (answer, ended.err().map(|error| error.kind()))
}

async fn all_get_the_answer(at: SocketAddr) {
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(asks(at));
    }
    let mut whole = 0;
    while let Some(asked) = soon(clients.join_next()).await {
        let (answer, error) = asked.unwrap();
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "a break is no good end");
        whole += usize::from(answer == bytes(ANSWER));
    }
    assert_eq!(whole, CLIENTS, "clients that got the whole answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_server_that_resets_is_delivered_before_the_reset() {
    let (db, app) = nodes().await;
    db.serve("hasty", place(hasty().await), anybody()).unwrap();
    let (_forward, at) = forwarded(&app, "hasty", StreamOptions::default()).await;
    all_get_the_answer(at).await;
    // A program opens the stream itself.
    for _ in 0..20 {
        let mut stream = soon(app.open(DB, "hasty", PATIENCE)).await.unwrap();
        let _ = soon(stream.write_all(&bytes(100_000))).await;
        let mut answer = Vec::new();
        let error = soon(stream.read_to_end(&mut answer)).await.unwrap_err();
        assert_eq!((answer.len(), error.to_string()), (ANSWER, "broken off".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_server_that_resets_is_delivered_through_a_gateway() {
    let db = start(listener(DB)).await;
    let gate = start(listener(GATE).transit(all()).route("^db@", route_to(&db), 1)).await;
    let app = dialer(APP).route("^gate@", route_to(&gate), 1).proxy_route("^db@", via(GATE), 1);
    let app = start(app).await;
    db.serve("hasty", place(hasty().await), anybody()).unwrap();
    let (_forward, at) = forwarded(&app, "hasty", StreamOptions::default()).await;
    all_get_the_answer(at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_a_client_sent_before_its_reset_reaches_the_server() {
    let (db, app) = nodes().await;
    let server = TcpListener::bind(loopback()).await.unwrap();
    db.serve("reads", place(server.local_addr().unwrap()), anybody()).unwrap();
    let (_forward, at) = forwarded(&app, "reads", StreamOptions::default()).await;
    for n in 0..50 {
        let mut client = TcpStream::connect(at).await.unwrap();
        let (mut served, at_once) = if n % 2 == 0 {
            (soon(server.accept()).await.unwrap().0, false)
        } else {
            client.write_all(&bytes(ANSWER)).await.unwrap();
            client.set_zero_linger().unwrap();
            (soon(server.accept()).await.unwrap().0, true)
        };
        if !at_once {
            client.write_all(&bytes(ANSWER)).await.unwrap();
            client.set_zero_linger().unwrap();
        }
        drop(client);
        let mut read = Vec::new();
        let error = soon(served.read_to_end(&mut read)).await.unwrap_err();
        assert_eq!((read.len(), error.kind()), (ANSWER, ErrorKind::ConnectionReset), "connection {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_everything_before_the_reset() {
    let (db, app) = nodes().await;
    let mut streams = db.accept("much", anybody()).unwrap();
    let (_forward, at) = forwarded(&app, "much", StreamOptions::default()).await;
    // The data exceeds the sockets on the way, so that much of it waits in the node when the break comes.
    let much = bytes(12_000_000);
    let written = much.clone();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut client = soon(socket.connect(at)).await.unwrap();
    let mut stream = soon(streams.next()).await.unwrap().accept();
    let writing = tokio::spawn(async move {
        stream.write_all(&written).await.unwrap();
        stream.reset_behind(StreamCode::Broken);
    });
    let mut read = vec![0; much.len()];
    soon(client.read_exact(&mut read)).await.unwrap();
    assert!(read == much);
    assert_eq!(soon(client.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    soon(writing).await.unwrap();
}

/// Connects a pair of streams through a program's own relay: streams to `in` are forwarded to the service `out` of the
/// node.
async fn pair_through_a_relay(app: &Node, gate: &Node, incoming: &mut Streams, end: &mut Streams) -> [ByteStream; 2] {
    let open = async { soon(app.open(GATE, "in", PATIENCE)).await.unwrap() };
    let pass = async {
        let one = soon(incoming.next()).await.unwrap().accept();
        let other = soon(gate.open_with(DB, "out", First::default(), PATIENCE)).await.unwrap();
        tokio::spawn(async move { relay(one, other, &Carried::default(), PATIENCE).await });
    };
    let take = async { soon(end.next()).await.unwrap().accept() };
    let (ours, (), theirs) = tokio::join!(open, pass, take);
    [ours, theirs]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_delivers_data_from_before_a_break_in_both_directions() {
    let db = start(listener(DB)).await;
    let gate = start(listener(GATE).route("^db@", route_to(&db), 1)).await;
    let app = start(dialer(APP).route("^gate@", route_to(&gate), 1)).await;
    let (mut incoming, mut end) = (gate.accept("in", anybody()).unwrap(), db.accept("out", anybody()).unwrap());
    for direction in [0, 1] {
        let mut pair = pair_through_a_relay(&app, &gate, &mut incoming, &mut end).await;
        pair.rotate_left(direction);
        let [mut writer, mut reader] = pair;
        // The data fills the two windows and the relay; most of it waits there when the break comes.
        let mut written = 0;
        let piece = bytes(16_000);
        while let Ok(write) = tokio::time::timeout(Duration::from_millis(300), writer.write(&piece)).await {
            written += write.unwrap();
        }
        assert!(written > 300_000, "{written}");
        writer.reset_behind(StreamCode::Overloaded);
        let mut read = Vec::new();
        let error = soon(reader.read_to_end(&mut read)).await.unwrap_err();
        assert_eq!((read.len(), error.to_string()), (written, "overloaded".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_ended_by_the_idle_limit_of_a_service_or_a_forward() {
    let (db, app) = nodes().await;
    let server = TcpListener::bind(loopback()).await.unwrap();
    let at_server = place(server.local_addr().unwrap());
    let idle = StreamOptions { idle: Some(Duration::from_secs(1)) };
    db.serve_with("limited", at_server.clone(), anybody(), idle).unwrap();
    db.serve("unlimited", at_server, anybody()).unwrap();
    for (service, options) in [("limited", StreamOptions::default()), ("unlimited", idle)] {
        let (forward, at) = forwarded(&app, service, options).await;
        let (client, served) = tokio::join!(TcpStream::connect(at), server.accept());
        let (mut client, mut served) = (client.unwrap(), served.unwrap().0);
        // A few bytes now and then keep it open for longer than the limit.
        for _ in 0..15 {
            served.write_all(b"x").await.unwrap();
            let mut byte = [0];
            soon(client.read_exact(&mut byte)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for socket in [&mut client, &mut served] {
            let error = soon(socket.read(&mut [0; 8])).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{service}");
        }
        until(|| forward.traffic().open == 0 && app.nodes()[0].1.streams == 0).await;
    }
}
