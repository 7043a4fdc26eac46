//! Cost of an honest connect while strangers hold every place before authentication, and of an honest call between two
//! members of a cluster while a third one floods both, each beside its cost without them in the same run. `cargo xtask
//! bench flood` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use trunkline::{Address, Connection, Cookie, MESH_MAILBOX, NetworkRoute, Node};

/// Number of silent connections that are held all the time.
const SILENT: u32 = 512;
/// Number of honest connects in one sample.
const CONNECTS: usize = 200;
/// Number of samples of each state, alternating.
const ROUNDS: usize = 3;
/// Number of honest calls in one sample.
const CALLS: usize = 20_000;
/// Time that a call has.
const CALL: Duration = Duration::from_secs(10);

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

/// Flood of a bad member of a cluster at the mailbox of the exchange, as fast as it can send.
#[derive(Clone, Copy)]
enum Flood {
    /// Messages with 200 names each, all of them new and invented.
    Names,
    /// Calls for the view of the other one.
    Questions,
}

impl Flood {
    fn text(self) -> &'static str {
        match self {
            Self::Names => "a member tells of 200 invented names in each message",
            Self::Questions => "a member asks 64 questions at a time",
        }
    }

    async fn run(self, at: Connection) {
        match self {
            Self::Names => {
                for batch in 0.. {
                    if at.send(MESH_MAILBOX, "", &invented(batch)).await.is_err() {
                        return;
                    }
                }
            }
            Self::Questions => {
                let mut asking = JoinSet::new();
                for _ in 0..64 {
                    let at = at.clone();
                    // Version 1, variant 4.
                    let ask = async move { while at.call(MESH_MAILBOX, "", &[1, 4], CALL).await.is_ok() {} };
                    asking.spawn(ask);
                }
                asking.join_all().await;
            }
        }
    }
}

/// Returns a message of the peer exchange with 200 members that nobody has seen, as `docs/WIRE.md` describes it.
fn invented(batch: u32) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let mut message = vec![1, 1, 200, 1];
    for n in 0..200 {
        message.extend(text(&format!("x{batch}-{n}@lab")));
        message.extend([9; 16]);
        // One endpoint: 127.0.0.1, port 1; and the member is no leaf.
        message.push(1);
        message.extend(text("127.0.0.1"));
        message.extend([1, 0]);
    }
    message
}

/// Returns the times of calls, sorted.
async fn calls(from: &Node) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        from.call("b@lab", "echo", b"x", CALL).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    times
}

/// Starts a member of a cluster that echoes calls.
async fn member(name: &str, cookie: &Cookie, route: Option<SocketAddr>) -> Node {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let route = route.map(|to| Address::new(to.ip().to_string(), to.port()).unwrap());
    let node = Node::builder(name).unwrap().cookie(cookie.clone()).no_registrar().listen(any).cluster("lab", route);
    let node = node.start().await.unwrap();
    let mut echo = node.register("echo").unwrap();
    tokio::spawn(async move {
        while let Some(message) = echo.recv().await {
            message.reply("x");
        }
    });
    node
}

async fn connected(node: &Node, others: usize) {
    while node.cluster().unwrap().status().peers.iter().filter(|peer| peer.is_up).count() < others {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Measures calls between two members, without and with a third one that floods both. The bad one has a thread of its own.
async fn bad_member(bad: tokio::runtime::Handle) {
    let cookie = Cookie::new("a benchmark's throw-away secret").unwrap();
    println!(
        "\n| bad member | quiet, median, 99 % | flooded, median, 99 % | ratio of medians, of 99 % |\n| --- | --- | --- | --- |"
    );
    for flood in [Flood::Names, Flood::Questions] {
        let a = member("a@lab", &cookie, None).await;
        let b = member("b@lab", &cookie, Some(a.listening()[0])).await;
        let (to, of) = (a.listening()[0], cookie.clone());
        let c = bad.spawn(async move { member("c@lab", &of, Some(to)).await }).await.unwrap();
        for node in [&a, &b, &c] {
            connected(node, 2).await;
        }
        let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            quiet.push(calls(&a).await);
            let mut flooding = JoinSet::new();
            for name in ["a@lab", "b@lab"] {
                flooding.spawn_on(flood.run(c.connection(name).unwrap()), &bad);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            flooded.push(calls(&a).await);
            flooding.shutdown().await;
        }
        let of = |all: &mut Vec<Vec<Duration>>, share: f64| {
            let mut times: Vec<Duration> = all.iter().map(|times| times[(CALLS as f64 * share) as usize]).collect();
            times.sort();
            times[ROUNDS / 2]
        };
        let [quiet, flooded] = [&mut quiet, &mut flooded].map(|all| (of(all, 0.5), of(all, 0.99)));
        let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
        println!(
            "| {} | {:.1?}, {:.1?} | {:.1?}, {:.1?} | {:.2}, {:.2} |",
            flood.text(),
            quiet.0,
            quiet.1,
            flooded.0,
            flooded.1,
            ratio(flooded.0, quiet.0),
            ratio(flooded.1, quiet.1)
        );
    }
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
        // On the worker, as the nodes are: no other thread is woken for a call.
        tokio::spawn(bad_member(strangers.handle().clone())).await.unwrap();
    });
}
