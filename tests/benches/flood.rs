//! Cost of an honest connect while strangers hold every place before authentication, beside its cost on an idle node in
//! the same run. `cargo xtask bench flood` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use trunkline::{Cookie, NetworkRoute, Node};

/// Number of silent connections that are held all the time.
const SILENT: u32 = 512;
/// Number of honest connects in one sample.
const CONNECTS: usize = 200;
/// Number of samples of each state, alternating.
const ROUNDS: usize = 3;

#[derive(Clone, Copy)]
enum Sources {
    Spread,
    OnePrefix,
}

impl Sources {
    fn ip(self, n: u32) -> IpAddr {
        match self {
            Self::Spread => Ipv4Addr::new(127, (1 + n % 200) as u8, (n / 200) as u8, 7).into(),
            Self::OnePrefix => Ipv4Addr::new(127, 9, 9, (1 + n % 250) as u8).into(),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Spread => "512 silent from 512 networks, one trickling",
            Self::OnePrefix => "512 silent from one network, one trickling",
        }
    }
}

async fn open(target: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(target).await
}

/// Holds a silent connection, and opens it again whenever the listener ends it.
async fn silent(target: SocketAddr, from: IpAddr) {
    loop {
        if let Ok(stream) = open(target, from).await {
            // The listener never speaks first, so a readable socket means that it closed.
            let _ = stream.readable().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn trickle(target: SocketAddr, from: IpAddr) {
    loop {
        if let Ok(mut stream) = open(target, from).await {
            while stream.write_all(&[0x16]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Returns the median time of a connect, and the number of connects that failed.
async fn sample(target: SocketAddr, cookie: &Cookie) -> (Duration, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let app = Node::builder("app@127.0.0.1").unwrap().cookie(cookie.clone()).no_registrar().start().await.unwrap();
    app.add_route("^db@", NetworkRoute::direct("127.0.0.1", target.port()).unwrap(), 1).unwrap();
    for _ in 0..CONNECTS {
        let began = Instant::now();
        match app.connect("db@127.0.0.1").await {
            Ok(connection) => {
                times.push(began.elapsed());
                connection.disconnect();
                connection.closed().await;
            }
            Err(_) => failed += 1,
        }
    }
    times.sort();
    (times.get(times.len() / 2).copied().unwrap_or_default(), failed)
}

fn main() {
    let strangers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let honest = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    honest.block_on(async {
        let cookie = Cookie::new("a benchmark's throw-away secret").unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let db = Node::builder("db@127.0.0.1").unwrap().cookie(cookie.clone()).no_registrar().listen(any);
        let db = db.start().await.unwrap();
        let target = db.listening()[0];
        println!("| strangers | idle, median | flooded, median | ratio | failed |\n| --- | --- | --- | --- | --- |");
        for sources in [Sources::Spread, Sources::OnePrefix] {
            let (mut idle, mut flooded, mut failures) = (Vec::new(), Vec::new(), 0);
            for _ in 0..ROUNDS {
                idle.push(sample(target, &cookie).await.0);
                let mut flood = JoinSet::new();
                for n in 0..SILENT {
                    flood.spawn_on(silent(target, sources.ip(n)), strangers.handle());
                }
                flood.spawn_on(trickle(target, sources.ip(SILENT)), strangers.handle());
                tokio::time::sleep(Duration::from_millis(500)).await;
                let (median, failed) = sample(target, &cookie).await;
                flooded.push(median);
                failures += failed;
                flood.shutdown().await;
            }
            idle.sort();
            flooded.sort();
            let (idle, flooded) = (idle[ROUNDS / 2], flooded[ROUNDS / 2]);
            let ratio = flooded.as_secs_f64() / idle.as_secs_f64();
            println!(
                "| {} | {idle:.2?} | {flooded:.2?} | {ratio:.2} | {failures} of {} |",
                sources.text(),
                CONNECTS * ROUNDS
            );
        }
    });
}
