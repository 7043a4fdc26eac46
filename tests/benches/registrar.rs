//! Time of a look-up by each kind of registrar beside the bare question to the same server, memory of ten thousand
//! announcements, time until a hundred watchers know a change, and time until the nodes of a host find each other again after
//! the one that served was killed. `cargo xtask bench registrar` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use trunkline::registrar::{Change, Mirror, Registrar, Registration, Resolver, Watch};
use trunkline::{Endpoint, Node, NodeName, Offer};
use trunkline_link::{Native, NativeLimits};
use trunkline_registrar_dns::{Dns, DnsSettings};
use trunkline_registrar_embedded::Embedded;
use trunkline_tests::etcd::Member;
use trunkline_tests::name_server::{NameServer, Rr};
use trunkline_tests::support::*;
use trunkline_wire::handshake::Credential;

/// Number of announcements.
const NODES: u32 = 10_000;
/// Number of watchers.
const WATCHERS: usize = 100;
/// Number of changes that the watchers are told, and of times that the serving node is killed.
const TIMES: u32 = 20;
/// Number of warm look-ups in one sample, and of samples.
const WARM: u32 = 1_000;
const SAMPLES: usize = 100;
/// Number of questions to a server.
const COLD: u32 = 2_000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn registration(nth: u32) -> Registration {
    let at = SocketAddr::from(([10, 0, (nth >> 8) as u8, nth as u8], 4370));
    Registration::new(name(&format!("node-{nth}@example.com")), vec![endpoint(at)])
}

/// Returns the median time of a look-up of a name that is known already.
async fn warm(resolver: &dyn Resolver, of: &NodeName) -> Duration {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        for _ in 0..WARM {
            let found: Vec<Endpoint> = resolver.resolve(black_box(of)).await.unwrap();
            assert!(!black_box(found).is_empty());
        }
        samples.push(began.elapsed() / WARM);
    }
    median(samples)
}

/// Returns the median times of two things that take turns.
async fn beside(times: u32, mut one: impl AsyncFnMut(u32), mut other: impl AsyncFnMut(u32)) -> (Duration, Duration) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for nth in 0..times {
        let began = Instant::now();
        one(nth).await;
        ones.push(began.elapsed());
        let began = Instant::now();
        other(nth).await;
        others.push(began.elapsed());
    }
    (median(ones), median(others))
}

fn row(kind: &str, warm: Duration, cold: Duration, bare: Duration, what: &str) {
    let ratio = cold.as_secs_f64() / bare.as_secs_f64();
    println!(
        "| {kind} | {:.2} µs | {:.0} µs | {:.0} µs ({what}) | {ratio:.2} |",
        micros(warm),
        micros(cold),
        micros(bare)
    );
}

fn embedded(address: SocketAddr, node: &str) -> Embedded {
    let native = Native::new(name(node), NativeLimits::default());
    let credentials = Box::new(|_: &NodeName, _: &str| Credential::Cookie(cookie("all")));
    Embedded::start(native, address, cookie("all"), credentials).unwrap()
}

async fn resolve_times() {
    println!("\n| kind | warm | cold | bare question | cold ÷ bare |\n| --- | --- | --- | --- | --- |");
    let db = registration(1);

    let address = own_address();
    let serving = embedded(address, &format!("serving@{}", address.ip()));
    let named = |node: &str| Registration::new(name(&format!("{node}@{}", address.ip())), db.endpoints.clone());
    let _lease = serving.register(named("serving")).await.unwrap();
    let reader = embedded(address, &format!("reader@{}", address.ip()));
    let resolver = reader.resolver();
    let known = named("serving").name;
    resolver.resolve(&known).await.unwrap();
    let mut watch = resolver.watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    let fast = warm(&*resolver, &known).await;
    let unknown = named("unknown").name;
    // A round trip of the same kind: a call to another node over a link.
    let (peer, app) = (start(listener("peer@lab")).await, start(dialer("app@lab")).await);
    app.add_route("^peer@", route_to(&peer), 1).unwrap();
    answers(&peer, "echo");
    let (cold, bare) = beside(
        COLD,
        async |_| assert_eq!(resolver.resolve(&unknown).await, Ok(vec![])),
        async |_| drop(app.call("peer@lab", "echo", "", PATIENCE).await.unwrap()),
    )
    .await;
    row("embedded", fast, cold, bare, "call over a link");

    let etcd = Member::alone().await;
    let _lease = etcd.registrar().register(db.clone()).await.unwrap();
    let registrar = etcd.registrar();
    let resolver = registrar.resolver();
    resolver.nodes().await.unwrap();
    let fast = warm(&*resolver, &db.name).await;
    let key = format!("/trunkline/nodes/{}", db.name);
    let (cold, bare) = beside(
        COLD / 10,
        async |_| assert!(!etcd.registrar().resolver().resolve(&db.name).await.unwrap().is_empty()),
        async |_| assert_eq!(etcd.client().await.get(key.as_str(), None).await.unwrap().kvs().len(), 1),
    )
    .await;
    row("etcd", fast, cold, bare, "connection and `Range`");

    let server = NameServer::start(60).await;
    let record = || vec![Rr::Ip(IpAddr::from([10, 0, 0, 1]))];
    server.set("db.lab", record());
    (0..COLD).for_each(|nth| server.set(&format!("h{nth}.lab"), record()));
    let dns = Dns::new(DnsSettings { servers: vec![server.address()], srv: None, ..DnsSettings::default() }).unwrap();
    let fast = warm(&dns, &name("db@db.lab")).await;
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    socket.connect(server.address()).await.unwrap();
    let (cold, bare) = beside(
        COLD,
        async |nth| assert_eq!(dns.resolve(&name(&format!("db@h{nth}.lab"))).await.unwrap().len(), 1),
        async |nth| {
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let host = format!("h{nth}");
            query.push(host.len() as u8);
            query.extend(host.as_bytes());
            query.extend(b"\x03lab\0\0\x01\0\x01");
            socket.send(&query).await.unwrap();
            socket.recv(&mut [0; 512]).await.unwrap();
        },
    )
    .await;
    row("dns", fast, cold, bare, "UDP, A");
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn many_nodes() {
    let before = resident();
    let mirror = Mirror::new();
    for nth in 0..NODES {
        let offer = Offer::new("postgres".parse().unwrap());
        mirror.set(registration(nth).offering(vec![offer]));
    }
    let each = (resident() - before) / NODES as usize;
    println!("{NODES} announcements, each with an address and a service: {each} bytes each in a mirror");
    assert_eq!(black_box(&mirror).len(), NODES as usize);

    let etcd = Member::alone().await;
    let mut client = etcd.client().await;
    for nth in 0..NODES {
        let value = r#"{"endpoints":[{"host":"10.0.0.5","port":4370}],"holder":"9f86d081884c7d65"}"#;
        client.put(format!("/trunkline/nodes/node-{nth}@example.com"), value, None).await.unwrap();
    }
    let began = Instant::now();
    let nodes = etcd.registrar().resolver().nodes().await.unwrap();
    assert_eq!(nodes.len(), NODES as usize);
    println!("a client of etcd has read all of them after {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
}

/// Waits until all watchers were told of the change, and returns the time since its beginning.
async fn told(watches: &mut [Watch], began: Instant) -> Duration {
    for watch in watches {
        while !matches!(soon(watch.next()).await, Change::Changed(_) | Change::Joined(_)) {}
    }
    began.elapsed()
}

async fn watchers() {
    println!("\n| kind | {WATCHERS} watchers know a change after: median | last |\n| --- | --- | --- |");
    let address = own_address();
    let at = |node: &str| format!("{node}@{}", address.ip());
    let serving = embedded(address, &at("serving"));
    let readers: Vec<_> = (0..WATCHERS).map(|nth| embedded(address, &at(&format!("reader-{nth}")))).collect();
    let own = |weight| {
        let offer = Offer { weight, ..Offer::new("postgres".parse().unwrap()) };
        Registration::new(name(&at("serving")), registration(0).endpoints).offering(vec![offer])
    };
    let lease = serving.register(own(1)).await.unwrap();
    let mut watches: Vec<_> = readers.iter().map(|reader| reader.resolver().watch().unwrap()).collect();
    change("embedded", &mut watches, async |weight| lease.update(own(weight)).await.unwrap()).await;

    let etcd = Member::alone().await;
    let lease = etcd.registrar().register(own(1)).await.unwrap();
    let readers: Vec<_> = (0..WATCHERS).map(|_| etcd.registrar().resolver()).collect();
    let mut watches: Vec<_> = readers.iter().map(|reader| reader.watch().unwrap()).collect();
    change("etcd", &mut watches, async |weight| lease.update(own(weight)).await.unwrap()).await;
}

async fn change(kind: &str, watches: &mut [Watch], update: impl AsyncFn(u16)) {
    for watch in watches.iter_mut() {
        while soon(watch.next()).await != Change::Current {}
    }
    let mut times = Vec::new();
    for weight in 0..TIMES {
        let began = Instant::now();
        update(u16::try_from(weight).unwrap() + 2).await;
        times.push(told(watches, began).await);
    }
    let last = times.iter().max().copied().unwrap_or_default();
    println!("| {kind} | {:.1} ms | {:.1} ms |", micros(median(times)) / 1e3, micros(last) / 1e3);
}

async fn takeover() {
    let address = own_address();
    let at_home = |node: &str| {
        dialer(&format!("{node}@{}", address.ip())).listen(SocketAddr::new(address.ip(), 0)).embedded_registrar(address)
    };
    let mut nodes: Vec<Node> = Vec::new();
    for nth in 0..WATCHERS {
        nodes.push(start(at_home(&format!("n{nth}"))).await);
    }
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let serves = nodes.iter().position(|node| node.status().serves_registrar).unwrap();
        let killed = nodes.swap_remove(serves);
        let dead = killed.name().name().to_owned();
        let began = Instant::now();
        crash(killed).await;
        soon(async {
            while !nodes.iter().all(|node| node.status().registered == Some(true)) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        times.push(began.elapsed());
        nodes.push(start(at_home(&dead)).await);
    }
    let last = times.iter().max().copied().unwrap_or_default();
    println!(
        "\nthe node that serves {WATCHERS} nodes in one process is dropped {TIMES} times: all are announced again after \
         {:.0} ms (median), {:.0} ms (last)",
        micros(median(times)) / 1e3,
        micros(last) / 1e3
    );
}

#[tokio::main]
async fn main() {
    // First, while no memory is left over from other things.
    many_nodes().await;
    resolve_times().await;
    watchers().await;
    takeover().await;
}
