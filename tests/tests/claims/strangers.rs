use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use trunkline::NativeLimits;
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
const APP: &str = "app@127.0.0.1";
/// Longest time for an honest connect while strangers hold the listener. It is a limit for the test, not a measured
/// figure.
const PROMPT: Duration = Duration::from_secs(2);

async fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

/// Opens 512 connections that say nothing and one that sends a byte a second, and then makes twenty honest connects,
/// each while more strangers come.
async fn honest_connects_succeed_among_strangers(source: impl Fn(u16) -> Ipv4Addr) {
    // Strangers are closed to make room, not because of a timeout.
    let limits = NativeLimits { answer: 3 * PATIENCE, ..NativeLimits::default() };
    let db = start(listener(DB).limits(limits)).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let mut trickling = from(source(512), address(&db)).await;
    let trickle = tokio::spawn(async move {
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].into_iter().chain(std::iter::repeat(0)) {
            if trickling.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut strangers = JoinSet::new();
    for n in 0..512 {
        let mut stranger = from(source(n), address(&db)).await;
        strangers.spawn(async move { stranger.read(&mut [0; 16]).await });
    }
    for n in 0..20 {
        for more in 0..8 {
            let (source, address) = (source(8 * n + more), address(&db));
            strangers.spawn(async move { from(source, address).await.read(&mut [0; 16]).await });
        }
        let connected = tokio::time::timeout(PROMPT, app.connect(DB)).await;
        let connection = connected.unwrap_or_else(|_| panic!("connect {n} was not prompt")).unwrap();
        connection.disconnect();
        soon(connection.closed()).await;
    }
    // A stranger was closed to make room, so the listener was full.
    soon(strangers.join_next()).await;
    trickle.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_connects_succeed_among_512_strangers_from_many_prefixes() {
    honest_connects_succeed_among_strangers(|n| Ipv4Addr::new(127, 201, (n % 256) as u8, 1 + (n / 256) as u8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_connects_succeed_among_512_strangers_from_one_prefix() {
    honest_connects_succeed_among_strangers(|n| Ipv4Addr::new(127, 202, 0, 1 + (n % 250) as u8)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_connects_succeed_among_512_strangers_from_their_own_prefix() {
    honest_connects_succeed_among_strangers(|n| Ipv4Addr::new(127, 0, 0, 2 + (n % 250) as u8)).await;
}

/// Returns the first bytes of an honest caller.
async fn client_hello() -> Vec<u8> {
    let ear = TcpListener::bind(loopback()).await.unwrap();
    let app = start(dialer("caller@127.0.0.1").route("@", route_at(ear.local_addr().unwrap()), 1)).await;
    let dialling = tokio::spawn(async move { app.connect(DB).await.is_ok() });
    let (mut socket, _) = soon(ear.accept()).await.unwrap();
    let mut header = [0; 5];
    soon(socket.read_exact(&mut header)).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    soon(socket.read_exact(&mut body)).await.unwrap();
    dialling.abort();
    [header.as_slice(), &body].concat()
}

/// Xorshift generator: the same inputs in every run.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn some(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Returns noise, noise in TLS records, a truncated hello, a hello with a changed byte, or a hello followed by
    /// noise.
    fn input(&mut self, hello: &[u8]) -> Vec<u8> {
        let len = self.below(20_000);
        match self.below(6) {
            0 => self.some(len),
            1 => {
                let kind = 20 + self.below(5) as u8;
                let claimed = (self.below(18_000) as u16).to_be_bytes();
                [&[kind, 3, 3][..], &claimed, &self.some(len)].concat()
            }
            2 => hello[..self.below(hello.len())].to_vec(),
            3 => {
                let mut changed = hello.to_vec();
                let at = self.below(changed.len());
                changed[at] ^= 1 << self.below(8);
                changed
            }
            4 => [hello, &self.some(len)].concat(),
            _ => [hello, &[23, 3, 3, 0, 19][..], &self.some(19)].concat(),
        }
    }
}

/// Sends 200 inputs and waits until each connection is over or has sent all its answers.
async fn feed(target: SocketAddr, seed: u64) {
    let hello = client_hello().await;
    let mut bytes = Bytes(seed);
    for _ in 0..10 {
        let mut strangers = JoinSet::new();
        for _ in 0..20 {
            let input = bytes.input(&hello);
            let source = Ipv4Addr::new(127, 203, bytes.next() as u8, 1 + bytes.below(250) as u8);
            strangers.spawn(async move {
                let mut socket = from(source, target).await;
                let _ = socket.write_all(&input).await;
                let _ = socket.shutdown().await;
                let mut answer = Vec::new();
                let _ = soon(socket.read_to_end(&mut answer)).await;
            });
        }
        for ended in soon(strangers.join_all()).await {
            let () = ended;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_answers_honest_callers_after_any_bytes_to_its_port() {
    let db = start(listener(DB)).await;
    answers(&db, "who");
    feed(address(&db), 0x5eed_0001).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    assert_eq!(soon(app.call(DB, "who", b"", PROMPT)).await.unwrap(), DB);
    let port = address(&db).port();
    until(|| sockets_with(port) == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_answers_honest_nodes_after_any_bytes_to_its_port() {
    let registrar = own_address();
    let name_of = |node: &str| format!("{node}@{}", registrar.ip());
    let builder = |node: &str| listener(&name_of(node)).embedded_registrar(registrar);
    let db = start(builder("db")).await;
    feed(registrar, 0x5eed_0002).await;
    let app = start(builder("app")).await;
    soon(app.connect(db.name().clone())).await.unwrap();
    assert_eq!(db.status().registrar_queries, 1);
}
