//! Cost of a primary that does not work: the time to a working connection behind it, the first time and the next,
//! beside the time of a connect without it, in the same run. `cargo xtask bench failover` runs it; the figures are in
//! `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trunkline::{Cookie, DialTimes, NetworkRoute, Node, Policy};
use trunkline_tests::support::{BlackHole, Door, nobody};

/// Number of fresh nodes for each case; the median counts.
const ROUNDS: usize = 5;

fn cookie() -> Cookie {
    Cookie::new("a benchmark's throw-away secret").unwrap()
}

fn route(to: SocketAddr) -> NetworkRoute {
    NetworkRoute::direct(to.ip().to_string(), to.port()).unwrap().build()
}

/// Starts a node that reaches `db` by `primary`, if there is one, and otherwise by `standby`.
async fn app(primary: Option<SocketAddr>, standby: SocketAddr, race: Option<Duration>) -> Node {
    let policy = Policy { equal_weights: race, ..Policy::default() };
    let app = Node::builder("app@127.0.0.1").unwrap().cookie(cookie()).no_registrar().policy(policy);
    let app = app.route("^db@", route(standby), 100).start().await.unwrap();
    if let Some(primary) = primary {
        // The primary comes before the standby even where both have the same weight: the route added first comes first.
        app.remove_route("^db@").unwrap();
        app.add_route("db@", route(primary), if race.is_some() { 100 } else { 200 }).unwrap();
        app.add_route("^db@", route(standby), 100).unwrap();
    }
    app
}

/// Returns the time of a connect, and of the next one.
async fn twice(app: &Node) -> (Duration, Duration) {
    let mut times = [Duration::ZERO; 2];
    for time in &mut times {
        let began = Instant::now();
        let connection = app.connect("db@127.0.0.1").await.unwrap();
        *time = began.elapsed();
        connection.disconnect();
        connection.closed().await;
    }
    (times[0], times[1])
}

async fn median(primary: Option<SocketAddr>, standby: SocketAddr, race: Option<Duration>) -> (Duration, Duration) {
    let (mut first, mut next) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let node = app(primary, standby, race).await;
        let (one, other) = twice(&node).await;
        first.push(one);
        next.push(other);
        node.shut_down(Duration::from_secs(1)).await;
    }
    first.sort();
    next.sort();
    (first[ROUNDS / 2], next[ROUNDS / 2])
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[tokio::main]
async fn main() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let db = Node::builder("db@127.0.0.1").unwrap().cookie(cookie()).no_registrar().listen(any).start().await.unwrap();
    let standby = db.listening()[0];
    let (silent, hole) = (Door::silent().await, BlackHole::new().await);
    let (times, race) = (DialTimes::default(), Duration::from_millis(250));
    println!("| primary | its deadline | first connect | beyond | next connect | racing, first | beyond the 250 ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let (first, next) = median(None, standby, None).await;
    println!("| none | - | {} | - | {} | - | - |", ms(first), ms(next));
    for (what, address, deadline) in [
        ("refuses", nobody(), Duration::ZERO),
        ("accepts and says nothing", silent.address, times.tls),
        ("black hole", hole.address, times.tcp),
    ] {
        let (first, next) = median(Some(address), standby, None).await;
        let (raced, _) = median(Some(address), standby, Some(race)).await;
        let waits = if deadline.is_zero() { Duration::ZERO } else { race };
        println!(
            "| {what} | {deadline:?} | {} | {} | {} | {} | {} |",
            ms(first),
            ms(first.saturating_sub(deadline)),
            ms(next),
            ms(raced),
            ms(raced.saturating_sub(waits)),
        );
    }
}
