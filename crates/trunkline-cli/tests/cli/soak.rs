//! A cluster of 16 processes under faults: kills, restarts, stops and partitions of the network.
//!
//! Each process has a network namespace of its own, joined to the others by a bridge. A partition moves the cables of some of
//! them to another bridge, so that their packets are lost without a word. Meanwhile calls go from every node to every other
//! one. `cargo xtask soak` runs it for longer than the suite does.

use std::collections::BTreeSet;
use std::env;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Dir, Running, request};

const NODES: usize = 16;
/// Nodes that are never killed, so that what they hold can be compared; the second one has the route.
const SPARED: usize = 2;
/// Time in which the suite runs it, in seconds.
const IN_THE_SUITE: u64 = 30;
/// Bound of the time until all connections are direct again.
const STRAIGHT: Duration = Duration::from_secs(45);
/// Bound of the time until connections of the last faults are closed.
const CLOSING: Duration = Duration::from_secs(35);
/// Time until a call ends, in milliseconds.
const CALL_MS: u64 = 3_000;

#[expect(clippy::disallowed_methods, reason = "the time until the cluster is whole is the result")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn sixteen_members_are_whole_again_after_any_faults() {
    let mut command = Command::new("unshare");
    command.args(["-r", "-n"]).arg(env::current_exe().unwrap());
    command.args(["soak::a_cluster_in_namespaces", "--exact", "--ignored", "--nocapture"]);
    command.stdin(Stdio::null());
    if env::var_os("TRUNKLINE_SOAK_SECONDS").is_some() {
        assert!(command.status().unwrap().success());
        return;
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish_late(command);
    assert!(
        ran.0,
        "this test needs network namespaces with bridges and Debian's iproute2 (sudo apt-get install -y \
         --no-install-recommends iproute2):\n{}",
        ran.1
    );
    assert!(ran.1.contains("the soak ends"), "{}", ran.1);
}

/// Runs a command that takes longer than the waits of other tests.
fn finish_late(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn ip(arguments: &str) {
    let ran = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(ran.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn address(node: usize) -> String {
    format!("10.78.0.{}", node + 1)
}

fn name(node: usize) -> String {
    format!("n{node:02}@soak")
}

/// Namespaces of the nodes, each held by a process, joined by a bridge.
struct Network(Vec<Child>);

impl Network {
    fn new() -> Self {
        for bridge in ["whole", "part"] {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
        }
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let mut network = Self(Vec::new());
        for node in 0..NODES {
            network.0.push(Command::new("unshare").args(["-n", "sleep", "infinity"]).spawn().unwrap());
            let holder = network.0[node].id();
            while std::fs::read_link(format!("/proc/{holder}/ns/net")).is_ok_and(|namespace| namespace == own) {
                thread::yield_now();
            }
            ip(&format!("link add v{node} type veth peer name e0 netns {holder}"));
            ip(&format!("link set v{node} master whole up"));
            let inside = format!("ip link set lo up; ip addr add {}/24 dev e0; ip link set e0 up", address(node));
            assert!(network.inside(node, "sh").args(["-c", &inside]).status().unwrap().success());
        }
        network
    }

    /// Returns a command that runs a program in the namespace of a node.
    fn inside(&self, node: usize, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.0[node].id().to_string(), "-n", program]);
        command
    }

    /// Moves the cables of nodes to the other bridge: nothing passes between them and the rest.
    fn parts(&self, nodes: &BTreeSet<usize>) {
        nodes.iter().for_each(|node| ip(&format!("link set v{node} master part")));
    }

    fn joins(&self, nodes: &BTreeSet<usize>) {
        nodes.iter().for_each(|node| ip(&format!("link set v{node} master whole")));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Descriptors and resident memory in KiB of a process.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    memory: u64,
}

impl Held {
    fn by(process: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            descriptors: std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(),
            memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    fn is_back_to(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors + 2 && self.memory <= before.memory * 3 / 2 + 8_192
    }

    /// Returns what a process holds as soon as that is as much as before, or at the end of [`CLOSING`]: connections of the last
    /// faults may still be closing.
    fn once_back_to(before: &Self, process: u32) -> Self {
        let began = now();
        loop {
            let held = Self::by(process);
            if held.is_back_to(before) || now() - began > CLOSING {
                return held;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Calls of the load by their ends.
#[derive(Debug, Default)]
struct Calls {
    answered: AtomicU64,
    failed: AtomicU64,
    /// Calls whose caller was killed or stopped meanwhile.
    callers_gone: AtomicU64,
    /// Calls of callers that ran all the time and did not end in time.
    without_an_end: AtomicU64,
}

struct Cluster {
    dir: Dir,
    network: Network,
    nodes: Vec<Mutex<Option<Running>>>,
    /// Number of the last fault of a node itself. An odd one means that it does not run now.
    faults: Vec<AtomicU64>,
    calls: Calls,
    is_over: AtomicBool,
}

impl Cluster {
    fn new() -> Self {
        let nodes = (0..NODES).map(|_| Mutex::default()).collect();
        let faults = (0..NODES).map(|_| AtomicU64::new(1)).collect();
        let (calls, is_over) = (Calls::default(), AtomicBool::new(false));
        Self { dir: Dir::new(), network: Network::new(), nodes, faults, calls, is_over }
    }

    fn begin(&self, node: usize) {
        let file = format!("n{node}.yaml");
        // One node has the route that ties all of them together.
        let routes = if node == 1 {
            format!("[{}]", (0..NODES).map(address).collect::<Vec<_>>().join(", "))
        } else {
            "[]".into()
        };
        let text = format!(
            "node:\n  name: {}\n  cookie_file: cookie\n  data_dir: n{node}.data\n  registrar: none\n  \
             listen: [{{ host: {}, port: 9932 }}]\nclustering: {{ hubServer: {{ cluster: {{ network: {{ routes: {routes} }} }} }} }}\n",
            name(node),
            address(node),
        );
        self.dir.file(&file, &text, 0o600);
        let mut command = self.network.inside(node, env!("CARGO_BIN_EXE_trunkline"));
        command.args(["--json", "node", "--config", &file, "--answer", "echo", "--log-level", "error"]);
        command.env_remove("TRUNKLINE_SOAK_SECONDS").env_remove("TRUNKLINE_SOAK_SEED");
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = Running::start(command);
        *self.node(node) = Some(running);
        self.faults[node].fetch_add(1, Ordering::SeqCst);
    }

    fn node(&self, node: usize) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.nodes[node].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self, node: usize) -> u32 {
        self.node(node).as_ref().unwrap().id()
    }

    fn ask(&self, node: usize, method: &str, path: &str, body: &Value, within: Duration) -> Option<(u16, Value)> {
        let socket = self.dir.at(&format!("n{node}.data/admin.sock"));
        request(socket.to_str()?, method, path, body, within)
    }

    /// Kills a node, or has it leave.
    fn end(&self, node: usize, by: Signal) {
        self.faults[node].fetch_add(1, Ordering::SeqCst);
        let running = self.node(node).take().unwrap();
        running.signal(by);
        let ran = running.end();
        assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
    }

    fn stop(&self, node: usize) {
        self.faults[node].fetch_add(1, Ordering::SeqCst);
        self.node(node).as_ref().unwrap().signal(Signal::STOP);
    }

    fn go_on(&self, node: usize) {
        self.node(node).as_ref().unwrap().signal(Signal::CONT);
        self.faults[node].fetch_add(1, Ordering::SeqCst);
    }

    /// Returns why the cluster is not whole: a pair without a connection, or one with two.
    fn flaw(&self) -> Option<String> {
        for node in 0..NODES {
            let answer = self.ask(node, "GET", "/v1/nodes", &Value::Null, Duration::from_secs(5));
            let Some((200, Value::Array(peers))) = answer else {
                return Some(format!("{} does not answer: {answer:?}", name(node)));
            };
            let peers: Vec<&str> = peers.iter().filter_map(|peer| peer["name"].as_str()).collect();
            let one_each: BTreeSet<&str> = peers.iter().copied().collect();
            if one_each.len() != NODES - 1 || peers.len() != NODES - 1 {
                let missing: Vec<String> = (0..NODES)
                    .map(name)
                    .filter(|other| *other != name(node) && !one_each.contains(other.as_str()))
                    .collect();
                return Some(format!("{} has {} connections, and lacks {missing:?}", name(node), peers.len()));
            }
        }
        None
    }

    /// Returns why the cluster is not straight: a node with a connection through another one, or with a socket too many.
    fn bend(&self) -> Option<String> {
        let sockets = |node: usize| (node, established(self.process(node)));
        let bent = (0..NODES).map(sockets).find(|(_, sockets)| *sockets != NODES - 1);
        bent.map(|(node, sockets)| format!("{} has {sockets} sockets that are connected", name(node)))
    }

    /// Waits until each pair has one connection, and then until each of these is a direct one. Returns how long both took.
    fn heals(&self, limit: Duration) -> (Duration, Duration) {
        let began = now();
        let wait = |limit: Duration, flaw: &dyn Fn() -> Option<String>| {
            while let Some(flaw) = flaw() {
                assert!(now() - began < limit, "not within {limit:?}: {flaw}");
                thread::sleep(Duration::from_millis(20));
            }
            now() - began
        };
        (wait(limit, &|| self.flaw()), wait(STRAIGHT, &|| self.bend()))
    }

    /// Calls from each node to the next one and to the one opposite until each is answered. A connection that has been silent
    /// for almost as long as it may be looks whole, and may still be given up a moment later.
    fn answers(&self, limit: Duration) {
        let began = now();
        for (from, to) in (0..NODES).flat_map(|node| [(node, (node + 1) % NODES), (node, (node + NODES / 2) % NODES)]) {
            let call = json!({ "name": name(to), "mailbox": "echo", "body": { "text": "x" }, "timeout_ms": CALL_MS });
            loop {
                let answer = self.ask(from, "POST", "/v1/call", &call, Duration::from_secs(10));
                if matches!(answer, Some((200, _))) {
                    break;
                }
                assert!(now() - began < limit, "{} to {}: {answer:?}", name(from), name(to));
            }
        }
    }

    /// Calls at random pairs until the soak is over.
    fn load(&self, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while !self.is_over.load(Ordering::Relaxed) {
            let (from, to) = (rng.usize(..NODES), rng.usize(..NODES));
            let fault = self.faults[from].load(Ordering::SeqCst);
            if from == to || fault % 2 == 1 {
                thread::yield_now();
                continue;
            }
            let call = json!({ "name": name(to), "mailbox": "echo", "body": { "text": "x" }, "timeout_ms": CALL_MS });
            let within = Duration::from_millis(CALL_MS + 5_000);
            let ended = match self.ask(from, "POST", "/v1/call", &call, within) {
                _ if self.faults[from].load(Ordering::SeqCst) != fault => &self.calls.callers_gone,
                Some((200, _)) => &self.calls.answered,
                Some((502, _)) => &self.calls.failed,
                _ => &self.calls.without_an_end,
            };
            ended.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends the load when it is dropped.
struct Over<'c>(&'c AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the sockets of a namespace that are connected, both ends in it counted once each.
fn established(process: u32) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap_or_default();
    table.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some("01")).count()
}

/// Time of one round of faults, by the kind of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    /// Nodes are killed or told to leave, and started again at once or a little later.
    Kills,
    /// Nodes are stopped, and go on: too soon for the others to notice, or after they gave them up.
    Stops,
    /// The network falls into two parts, and is joined again.
    Partition,
}

impl Round {
    /// Bound of the time until the cluster is whole again.
    fn limit(self, is_strict: bool) -> Duration {
        match self {
            Self::Kills if is_strict => Duration::from_secs(3),
            _ => Duration::from_secs(35),
        }
    }
}

/// Ends a node at random, none of these, and starts it again at once or a little later.
fn replace_one(cluster: &Cluster, but: &BTreeSet<usize>, rng: &mut fastrand::Rng) {
    let others: Vec<usize> = (SPARED..NODES).filter(|node| !but.contains(node)).collect();
    let node = rng.choice(others).unwrap();
    cluster.end(node, if rng.bool() { Signal::KILL } else { Signal::TERM });
    thread::sleep(Duration::from_millis(rng.u64(0..300)));
    cluster.begin(node);
}

/// Makes the faults of one round. Returns their number. While nodes are stopped or apart, others end and begin.
fn faults(cluster: &Cluster, round: Round, is_short: bool, rng: &mut fastrand::Rng) -> u64 {
    if round == Round::Kills {
        let count = rng.u64(4..10);
        (0..count).for_each(|_| replace_one(cluster, &BTreeSet::new(), rng));
        return count;
    }
    let most = if round == Round::Stops { 4 } else { 8 };
    let most = rng.usize(1..=most);
    let nodes: BTreeSet<usize> = rng.choose_multiple(0..NODES, most).into_iter().collect();
    let still = if round == Round::Stops { nodes.clone() } else { BTreeSet::new() };
    match round {
        Round::Stops => nodes.iter().for_each(|node| cluster.stop(*node)),
        _ => cluster.network.parts(&nodes),
    }
    let mut count = nodes.len() as u64;
    let until = now() + Duration::from_millis(rng.u64(200..if is_short { 3_000 } else { 25_000 }));
    while now() < until {
        replace_one(cluster, &still, rng);
        count += 1;
        thread::sleep((until - now().min(until)).min(Duration::from_millis(rng.u64(100..1_000))));
    }
    match round {
        Round::Stops => nodes.iter().for_each(|node| cluster.go_on(*node)),
        _ => cluster.network.joins(&nodes),
    }
    count
}

#[test]
#[ignore = "a part of the soak, which starts it in a namespace"]
fn a_cluster_in_namespaces() {
    let seconds = env::var("TRUNKLINE_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let (time, is_strict) = (Duration::from_secs(seconds.unwrap_or(IN_THE_SUITE)), seconds.is_some());
    let seed =
        env::var("TRUNKLINE_SOAK_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{NODES} processes for {} s, seed {seed}", time.as_secs());
    let (cluster, mut rng) = (Cluster::new(), fastrand::Rng::with_seed(seed));
    let began = now();
    thread::scope(|scope| {
        let cluster = &cluster;
        (0..NODES).for_each(|node| drop(scope.spawn(move || cluster.begin(node))));
    });
    let (formed, _) = cluster.heals(Duration::from_secs(35));
    println!(
        "whole {:.2} s after the first start, {:.2} s after the last",
        (now() - began).as_secs_f64(),
        formed.as_secs_f64()
    );
    let held: Vec<Held> = (0..SPARED).map(|node| Held::by(cluster.process(node))).collect();
    let (mut count, mut times) = (0, Vec::new());
    let began = now();
    thread::scope(|scope| {
        let cluster = &cluster;
        // The load ends also when something does not hold.
        let over = Over(&cluster.is_over);
        let calls: Vec<_> = (0..4).map(|n| scope.spawn(move || cluster.load(seed ^ n))).collect();
        while now() - began < time {
            let round = match rng.u32(..6) {
                0 => Round::Stops,
                1 => Round::Partition,
                _ => Round::Kills,
            };
            let faults = faults(cluster, round, !is_strict, &mut rng);
            let (took, straight) = cluster.heals(round.limit(is_strict));
            cluster.answers(round.limit(is_strict));
            println!(
                "{:>6.1} s: {round:?}, {faults} faults, whole after {:.2} s, straight after {:.2} s",
                (now() - began).as_secs_f64(),
                took.as_secs_f64(),
                straight.as_secs_f64()
            );
            count += faults;
            times.push((round, took));
        }
        drop(over);
        calls.into_iter().for_each(|load| load.join().unwrap());
    });
    let minutes = (now() - began).as_secs_f64() / 60.0;
    println!("{count} faults, {:.0} in a minute", count as f64 / minutes);
    times.sort();
    for round in [Round::Kills, Round::Stops, Round::Partition] {
        let of: Vec<Duration> = times.iter().filter(|(kind, _)| *kind == round).map(|(_, took)| *took).collect();
        if let (Some(median), Some(longest)) = (of.get(of.len() / 2), of.last()) {
            println!("{round:?}: {} rounds, whole after {median:.2?} (median), {longest:.2?} (longest)", of.len());
        }
    }
    println!("calls: {:?}", cluster.calls);
    assert_eq!(cluster.calls.without_an_end.load(Ordering::Relaxed), 0, "each call ends with an answer or an error");
    let [answered, failed] =
        [&cluster.calls.answered, &cluster.calls.failed].map(|calls| calls.load(Ordering::Relaxed));
    assert!(answered > 2 * failed, "most calls are answered");
    for (node, before) in held.iter().enumerate() {
        let after = Held::once_back_to(before, cluster.process(node));
        println!("{}: {before:?} before, {after:?} after", name(node));
        assert!(after.is_back_to(before), "descriptors or memory are left over");
    }
    for node in 0..NODES {
        cluster.end(node, Signal::TERM);
    }
    println!("the soak ends");
}
