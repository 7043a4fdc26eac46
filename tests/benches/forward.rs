//! Bytes through a forwarder, directly and by way of a gateway, beside a bare TCP connection and `socat` (when it is there),
//! in the same run. `cargo xtask bench forward` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trunkline::{AccessPattern, Cookie, LocalPlace, NetworkRoute, Node, ProxyRoute, Transit, TransitRule};

const BULK: usize = 512 << 20;
const ROUND_TRIPS: usize = 5_000;
const CONNECTIONS: usize = 500;
/// Each way takes its turn so often; the best counts.
const ROUNDS: usize = 3;

/// Answers what begins with `e` byte by byte, and everything else at its end by one byte.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                socket.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 256 * 1024];
                let mut echoes = None;
                while let Ok(n @ 1..) = socket.read(&mut buffer) {
                    if *echoes.get_or_insert(buffer[0] == b'e') && socket.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
                let _ = socket.write_all(b".");
            });
        }
    });
    address
}

fn bulk(to: SocketAddr) -> f64 {
    let mut socket = TcpStream::connect(to).unwrap();
    let piece = vec![b'x'; 256 * 1024];
    let began = Instant::now();
    for _ in 0..BULK / piece.len() {
        socket.write_all(&piece).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    BULK as f64 / (1 << 20) as f64 / began.elapsed().as_secs_f64()
}

fn round_trip(to: SocketAddr) -> Duration {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut times: Vec<_> = (0..ROUND_TRIPS)
        .map(|_| {
            let began = Instant::now();
            socket.write_all(b"e").unwrap();
            socket.read_exact(&mut [0]).unwrap();
            began.elapsed()
        })
        .collect();
    times.sort();
    times[ROUND_TRIPS / 2]
}

fn connections(to: SocketAddr) -> f64 {
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.write_all(b"x").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        socket.read_exact(&mut [0]).unwrap();
    }
    CONNECTIONS as f64 / began.elapsed().as_secs_f64()
}

/// A process that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn socat(to: SocketAddr) -> Option<(Ended, SocketAddr)> {
    let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay");
    let mut command = Command::new("socat");
    command.args(["-b", "65536", &listen, &format!("TCP:{to},nodelay")]).stdin(Stdio::null());
    let child = Ended(command.spawn().ok()?);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    (0..100).find(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
    })?;
    Some((child, address))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = server();
    let cookie = Cookie::new("a benchmark's throw-away secret").unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let all = || AccessPattern::new(".*").unwrap();
    let to = |node: &Node| NetworkRoute::direct("127.0.0.1", node.listening()[0].port()).unwrap().build();
    let node = |name: &str| Node::builder(name).unwrap().cookie(cookie.clone()).no_registrar();
    let (_nodes, _forwards, ways) = runtime.block_on(async {
        let db = node("db@lab").listen(any).start().await.unwrap();
        db.serve("server", server.to_string().parse().unwrap(), vec![all()]).unwrap();
        let transit = Transit { rules: vec![TransitRule::new(all(), all())], gateways: Vec::new() };
        let gateway = node("gateway@lab").listen(any).transit(transit).route("^db@", to(&db), 1);
        let gateway = gateway.start().await.unwrap();
        let direct = node("direct@lab").route("^db@", to(&db), 1).start().await.unwrap();
        let behind = node("behind@lab").route("^gateway@", to(&gateway), 1);
        let behind = behind.proxy_route("^db@", ProxyRoute::via("gateway@lab".parse().unwrap()), 1);
        let behind = behind.start().await.unwrap();
        let (mut forwards, mut ways) = (Vec::new(), vec![("bare TCP", server)]);
        for (what, node) in [("forward, direct", &direct), ("forward, one gateway", &behind)] {
            let forward = node.forward(LocalPlace::Tcp(any), "db@lab", "server").await.unwrap();
            let LocalPlace::Tcp(at) = *forward.place() else { unreachable!("it is an address") };
            ways.push((what, at));
            forwards.push(forward);
        }
        ([db, gateway, direct, behind], forwards, ways)
    });
    let relay = socat(server);
    let mut ways = ways;
    match &relay {
        Some((_, address)) => ways.insert(1, ("socat", *address)),
        None => println!("socat is not there; install it to compare with it"),
    }
    let mut best = vec![(0.0f64, Duration::MAX, 0.0f64); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, at), best) in ways.iter().zip(&mut best) {
            *best = (best.0.max(bulk(*at)), best.1.min(round_trip(*at)), best.2.max(connections(*at)));
        }
    }
    println!("| way | MiB/s | of bare TCP | round trip, median | added | connections/s |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for ((what, _), (rate, trip, per_second)) in ways.iter().zip(&best) {
        let added = trip.saturating_sub(best[0].1).as_secs_f64() * 1e6;
        let (share, trip) = (rate / best[0].0, trip.as_secs_f64() * 1e6);
        println!("| {what} | {rate:.0} | {share:.2} | {trip:.1} µs | {added:.1} µs | {per_second:.0} |");
    }
    drop(relay);
}
