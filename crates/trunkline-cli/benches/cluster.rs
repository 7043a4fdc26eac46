//! Clusters of processes, beside clusters of Debian's `nats-server`, which HarperDB uses, in the same run: the time until each
//! node is connected to each other one, the time until a killed or a stopped node is noticed, and the memory of an idle node.
//! `cargo xtask bench cluster` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Samples of each time; the median is shown.
const SAMPLES: usize = 5;
/// Longest time until a cluster is whole: nodes that do not find each other within it do not at all.
const WHOLE: Duration = Duration::from_secs(10);
/// Longest time for which a stopped node is waited for.
const STALLED: Duration = Duration::from_secs(40);

/// Program that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Trunkline,
    Nats,
}

/// Shape of the routes.
#[derive(Clone, Copy)]
enum Shape {
    /// Each node has a route to the first one.
    Star,
    /// Each node has a route to the next one.
    Chain,
}

struct Node {
    process: Child,
    /// Admin socket of trunkline, or port of the monitor of NATS.
    place: Place,
}

enum Place {
    Socket(PathBuf),
    Port(u16),
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns ports that are free now, outside the range from which connections take theirs.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let next = || 12_000 + (std::process::id() as u16 ^ NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next).filter(is_free).take(count).collect()
}

/// Cluster of one engine. Ports and files are chosen before anything starts.
struct Cluster {
    engine: Engine,
    directory: tempfile::TempDir,
    ports: Vec<u16>,
    monitors: Vec<u16>,
    nodes: Vec<Option<Node>>,
}

impl Cluster {
    fn new(engine: Engine, size: usize, routes: impl Fn(usize) -> Option<usize>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ports = free_ports(2 * size);
        let (ports, monitors) = (ports[..size].to_vec(), ports[size..].to_vec());
        write(&directory.path().join("cookie"), "f3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c");
        for node in 0..size {
            let to = routes(node).map(|to| ports[to]);
            let text = match engine {
                Engine::Trunkline => format!(
                    "node:\n  name: n{node}@127.0.0.1\n  cookie_file: cookie\n  data_dir: n{node}\n  registrar: none\n  \
                     listen: [{{ host: 127.0.0.1, port: {} }}]\n\
                     clustering: {{ hubServer: {{ cluster: {{ network: {{ routes: [{}] }} }} }} }}\n",
                    ports[node],
                    to.map(|port| format!("127.0.0.1:{port}")).unwrap_or_default()
                ),
                Engine::Nats => format!(
                    "server_name: n{node}\nlisten: 127.0.0.1:-1\nhttp: 127.0.0.1:{}\n\
                     cluster {{ name: lab, listen: 127.0.0.1:{}, routes: [{}] }}\n",
                    monitors[node],
                    ports[node],
                    to.map(|port| format!("nats://127.0.0.1:{port}")).unwrap_or_default()
                ),
            };
            write(&directory.path().join(format!("n{node}.conf")), &text);
        }
        Self { engine, directory, ports, monitors, nodes: (0..size).map(|_| None).collect() }
    }

    fn start(&mut self, node: usize) {
        let file = self.directory.path().join(format!("n{node}.conf"));
        let mut command = match self.engine {
            Engine::Trunkline => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
                command.args(["--log-level", "error", "node", "--config"]).arg(file);
                command
            }
            Engine::Nats => {
                let mut command = Command::new("nats-server");
                command.arg("-c").arg(file);
                command
            }
        };
        let process =
            command.env_remove("TRUNKLINE_CONFIG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let place = match self.engine {
            Engine::Trunkline => Place::Socket(self.directory.path().join(format!("n{node}/admin.sock"))),
            Engine::Nats => Place::Port(self.monitors[node]),
        };
        self.nodes[node] = Some(Node { process: process.spawn().expect("the program starts"), place });
    }

    /// Returns how many others a node is connected to.
    fn neighbours(&self, node: usize) -> Option<usize> {
        match &self.nodes[node].as_ref()?.place {
            Place::Socket(socket) => {
                let cluster = get(UnixStream::connect(socket).ok()?, "/v1/cluster")?;
                Some(cluster["connections"].as_array()?.iter().filter(|member| member["status"] == "open").count())
            }
            Place::Port(port) => {
                let routes = get(TcpStream::connect(("127.0.0.1", *port)).ok()?, "/routez")?;
                let names = routes["routes"].as_array()?.iter().filter_map(|route| route["remote_id"].as_str());
                Some(names.collect::<std::collections::BTreeSet<_>>().len())
            }
        }
    }

    /// Waits until these nodes are connected to so many others each. Returns false when that takes longer.
    fn wait(&self, nodes: &[usize], neighbours: usize, limit: Duration) -> bool {
        let began = Instant::now();
        for node in nodes {
            while self.neighbours(*node) != Some(neighbours) {
                if began.elapsed() > limit {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        true
    }

    /// Waits until each node is connected to each other one. Returns the time since then, or the limit.
    fn whole(&self, since: Instant) -> Duration {
        let size = self.ports.len();
        let is_whole = self.wait(&(0..size).collect::<Vec<_>>(), size - 1, WHOLE);
        assert!(is_whole || self.engine == Engine::Nats, "a cluster of trunkline was not whole within {WHOLE:?}");
        if is_whole { since.elapsed() } else { WHOLE }
    }

    /// Starts all nodes at once, but the first `ready` ones before, and returns the time until each is connected to each
    /// other one.
    fn form(&mut self, ready: usize) -> Duration {
        (0..ready).for_each(|node| self.start(node));
        assert!(self.wait(&(0..ready).collect::<Vec<_>>(), 0, WHOLE), "the first node does not start");
        let began = Instant::now();
        (ready..self.ports.len()).for_each(|node| self.start(node));
        self.whole(began)
    }

    fn signal(&self, node: usize, signal: Signal) {
        let process = self.nodes[node].as_ref().expect("it runs").process.id();
        kill_process(Pid::from_raw(process as i32).expect("a process"), signal).expect("it is our own");
    }

    /// Returns the memory of a node in KiB: what is resident, and what of that is no page of a file, which the processes of a
    /// program share.
    fn memory(&self, node: usize) -> [u64; 2] {
        let process = self.nodes[node].as_ref().expect("it runs").process.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        ["VmRSS:", "RssAnon:"].map(|key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("it has memory");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        })
    }
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).expect("a new file");
    file.write_all(text.as_bytes()).expect("room on the disk");
}

fn get(mut stream: impl Read + Write, path: &str) -> Option<Value> {
    // The older version, since an answer to the newer one may come in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn routes(shape: Shape, size: usize) -> impl Fn(usize) -> Option<usize> {
    move |node| match shape {
        Shape::Star => (node > 0).then_some(0),
        Shape::Chain => Some(node + 1).filter(|next| *next < size),
    }
}

/// Returns samples of both engines, taken in turns and sorted.
fn both(sample: impl Fn(Engine) -> Duration) -> [Vec<Duration>; 2] {
    let (mut trunkline, mut nats) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        trunkline.push(sample(Engine::Trunkline));
        nats.push(sample(Engine::Nats));
    }
    trunkline.sort();
    nats.sort();
    [trunkline, nats]
}

fn row(what: &str, samples: [Vec<Duration>; 2]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let shown = samples.each_ref().map(|times| {
        let never = times.iter().filter(|time| **time >= WHOLE).count();
        let never =
            if never > 0 { format!(" ({never} of {} not within {WHOLE:?})", times.len()) } else { String::new() };
        format!("{:.1} ms{never}", ms(times[times.len() / 2]))
    });
    let ratio = ms(samples[1][SAMPLES / 2]) / ms(samples[0][SAMPLES / 2]);
    println!("| {what} | {} | {} | {ratio:.2} |", shown[0], shown[1]);
}

/// Returns the time until four survivors notice a fault of the fifth node, of which the others must not be the seed.
fn noticed(engine: Engine, signal: Signal) -> Option<Duration> {
    let mut cluster = Cluster::new(engine, 5, routes(Shape::Star, 5));
    cluster.form(1);
    cluster.signal(4, signal);
    let began = Instant::now();
    let is_noticed = cluster.wait(&[0, 1, 2, 3], 3, STALLED);
    is_noticed.then(|| began.elapsed())
}

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    if Command::new("nats-server").arg("-v").stdout(Stdio::null()).status().is_err() {
        eprintln!(
            "this benchmark needs Debian's nats-server: sudo apt-get install -y --no-install-recommends nats-server"
        );
        std::process::exit(1);
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    println!("{}, medians of {SAMPLES}\n", cpu.trim_start_matches([':', ' ', '\t']));
    println!("| time until | trunkline | nats-server | nats ÷ trunkline |\n| --- | --- | --- | --- |");
    for (shape, ready, what) in [
        (Shape::Star, 1, "star, of which the first node runs already"),
        (Shape::Star, 0, "star, all started at once"),
        (Shape::Chain, 0, "chain, all started at once"),
    ] {
        for size in [3, 5, 10] {
            let form = |engine| Cluster::new(engine, size, routes(shape, size)).form(ready);
            row(&format!("{size} nodes are whole: {what}"), both(form));
        }
    }
    let join = |engine| {
        let mut cluster = Cluster::new(engine, 5, |node| [None, Some(0), Some(0), Some(0), Some(3)][node]);
        (0..4).for_each(|node| cluster.start(node));
        cluster.wait(&[0, 1, 2, 3], 3, WHOLE);
        let began = Instant::now();
        cluster.start(4);
        cluster.whole(began)
    };
    row("a fifth node that knows one ordinary member is connected to all", both(join));
    row("a killed node is noticed by all", both(|engine| noticed(engine, Signal::KILL).unwrap_or(STALLED)));
    let stalled = [Engine::Trunkline, Engine::Nats].map(|engine| noticed(engine, Signal::STOP));
    let shown = stalled.map(|time| {
        time.map_or_else(|| format!("not within {STALLED:?}"), |time| format!("{:.1} s", time.as_secs_f64()))
    });
    println!("| a stopped node is noticed by all (one sample) | {} | {} | |", shown[0], shown[1]);
    let memory = [Engine::Trunkline, Engine::Nats].map(|engine| {
        let mut cluster = Cluster::new(engine, 10, routes(Shape::Star, 10));
        cluster.form(1);
        let memory: Vec<[u64; 2]> = (0..10).map(|node| cluster.memory(node)).collect();
        [0, 1].map(|kind| {
            let mut of: Vec<u64> = memory.iter().map(|of| of[kind]).collect();
            of.sort_unstable();
            of[5] as f64 / 1024.0
        })
    });
    for (kind, what) in ["resident memory", "of that, no pages of files"].into_iter().enumerate() {
        let [own, nats] = memory.map(|of| of[kind]);
        println!("\n{what}, one of 10 idle nodes: {own:.1} MiB, nats-server {nats:.1} MiB ({:.2})", own / nats);
    }
}
