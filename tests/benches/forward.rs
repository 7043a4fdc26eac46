//! Bytes through a forwarder, directly and through a gateway, beside a bare TCP connection and, if installed, `socat`,
//! HAProxy and `ssh -L` through a jump host, in the same run. `cargo xtask bench forward` runs it; the figures are in
//! `docs/BENCHMARKS.md`. Client and server are in this process; every node and every other program has a process of its
//! own.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use trunkline::{
    AccessPattern, CircuitLimits, Cookie, LocalPlace, NetworkRoute, Node, NodeBuilder, ProxyRoute, Transit, TransitRule,
};

const BULK: usize = 512 << 20;
const ROUND_TRIPS: usize = 5_000;
const CONNECTIONS: usize = 500;
/// Number of turns of each way; the best counts.
const ROUNDS: usize = 3;
/// Number of streams that share a link.
const PARALLEL: usize = 64;
/// Number of nodes on either side of a gateway whose circuits are measured: each node of one side is connected to each
/// of the other.
const CROWD: usize = 32;

/// Starts a server. The first byte of a connection selects what the server does: `e` is echoed byte by byte, after `s`
/// nothing more is read, and anything else is answered at its end by the number of bytes received.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            std::thread::spawn(move || serve(socket));
        }
    });
    address
}

fn serve(mut socket: TcpStream) {
    socket.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let (mut what, mut came) = (None, 0u64);
    while let Ok(n @ 1..) = socket.read(&mut buffer) {
        came += n as u64;
        match what.get_or_insert(buffer[0]) {
            b'e' if socket.write_all(&buffer[..n]).is_err() => return,
            // The sender is told when this connection is no longer needed, and ends it.
            b's' => loop {
                std::thread::park();
            },
            _ => {}
        }
    }
    let _ = socket.write_all(&came.to_be_bytes());
}

fn bulk(to: SocketAddr) -> f64 {
    let mut socket = TcpStream::connect(to).unwrap();
    let piece = vec![b'x'; 256 * 1024];
    let began = Instant::now();
    for _ in 0..BULK / piece.len() {
        socket.write_all(&piece).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    socket.read_exact(&mut [0; 8]).unwrap();
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
        socket.read_exact(&mut [0; 8]).unwrap();
    }
    CONNECTIONS as f64 / began.elapsed().as_secs_f64()
}

/// Runs the given number of senders at once for a while, and returns the rate of each in MiB/s. Before they begin,
/// `stopped` more senders fill all buffers of a stream that nobody reads.
fn side_by_side(to: SocketAddr, senders: usize, stopped: usize, time: Duration) -> Vec<f64> {
    let idle: Vec<_> = (0..stopped)
        .map(|_| {
            let mut socket = TcpStream::connect(to).unwrap();
            socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
            while socket.write_all(&[b's'; 64 * 1024]).is_ok() {}
            socket
        })
        .collect();
    let start = Barrier::new(senders);
    let send = || {
        let mut socket = TcpStream::connect(to).unwrap();
        socket.write_all(b"x").unwrap();
        start.wait();
        let (began, piece) = (Instant::now(), vec![b'x'; 64 * 1024]);
        while began.elapsed() < time {
            socket.write_all(&piece).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        let mut came = [0; 8];
        socket.read_exact(&mut came).unwrap();
        u64::from_be_bytes(came) as f64 / (1 << 20) as f64 / began.elapsed().as_secs_f64()
    };
    let rates = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..senders).map(|_| scope.spawn(send)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    drop(idle);
    rates
}

/// Child process that is killed, with its own children, when this value is dropped.
struct Ended(Child);

impl Ended {
    fn start(command: &mut Command) -> Option<Self> {
        Some(Self(command.stdin(Stdio::null()).process_group(0).spawn().ok()?))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        for pid in tree(self.0.id()) {
            let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
        let _ = self.0.wait();
    }
}

/// Returns the fields of `/proc/PID/stat` after the name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Returns a process and those that it started.
fn tree(root: u32) -> Vec<u32> {
    let all: Vec<u32> =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let parent = |pid: u32| stat(pid)?.get(1)?.parse::<u32>().ok();
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let of = Some(found[at]);
        found.extend(all.iter().copied().filter(|pid| parent(*pid) == of));
        at += 1;
    }
    found
}

/// Returns the CPU seconds that this process and all its descendants have used, including the kernel's time and
/// children that have ended. Idle processes add nothing.
fn cpu() -> f64 {
    let of = |pid: u32| stat(pid)?[11..15].iter().map(|ticks| ticks.parse::<f64>().ok()).sum::<Option<f64>>();
    tree(std::process::id()).into_iter().filter_map(of).sum::<f64>() / 100.0
}

/// Restricts these processes to these cores.
fn pin(roots: &[u32], cores: &str) {
    for pid in roots.iter().flat_map(|root| tree(*root)) {
        let _ =
            Command::new("taskset").args(["-a", "-c", "-p", cores, &pid.to_string()]).stdout(Stdio::null()).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until connections to the address are accepted.
fn listens(address: SocketAddr) -> Option<()> {
    (0..250).find(|_| {
        std::thread::sleep(Duration::from_millis(20));
        TcpStream::connect(address).is_ok()
    })?;
    Some(())
}

/// One way from the client to the server.
struct Way {
    what: String,
    at: SocketAddr,
    programs: Vec<Ended>,
    /// Processes of other programs that it goes through.
    shared: Vec<u32>,
    bulk: f64,
    trip: Duration,
    connections: f64,
    cpu: f64,
}

impl Way {
    fn new(what: &str, at: SocketAddr, programs: Vec<Ended>) -> Self {
        let what = what.to_owned();
        let shared = Vec::new();
        Self { what, at, programs, shared, bulk: 0.0, trip: Duration::MAX, connections: 0.0, cpu: f64::MAX }
    }

    fn pids(&self) -> Vec<u32> {
        self.programs.iter().map(|program| program.0.id()).chain(self.shared.iter().copied()).collect()
    }

    fn measure(&mut self) {
        let before = cpu();
        self.bulk = self.bulk.max(bulk(self.at));
        self.cpu = self.cpu.min((cpu() - before) / (BULK as f64 / (1 << 30) as f64));
        // Client and server run on one core, the programs between them on the other.
        pin(&[std::process::id()], "0");
        pin(&self.pids(), "1");
        self.trip = self.trip.min(round_trip(self.at));
        pin(&[std::process::id()], "0,1");
        self.connections = self.connections.max(connections(self.at));
    }
}

fn socat(to: SocketAddr) -> Option<Way> {
    let port = free_port();
    let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,nodelay");
    let mut command = Command::new("socat");
    let program = Ended::start(command.args(["-b", "65536", &listen, &format!("TCP:{to},nodelay")]))?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    listens(at)?;
    Some(Way::new("`socat`", at, vec![program]))
}

fn haproxy(dir: &Path, to: SocketAddr) -> Option<Way> {
    let (port, file) = (free_port(), dir.join("haproxy.cfg"));
    let text = format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s {to}\n"
    );
    fs::write(&file, text).ok()?;
    let program = Ended::start(Command::new("haproxy").arg("-db").arg("-f").arg(&file))?;
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    listens(at)?;
    Some(Way::new("HAProxy, tcp mode", at, vec![program]))
}

/// Starts `ssh -L` to a host behind another one, which also encrypts from end to end and on every hop. The servers are
/// its own, and run as this user.
fn ssh(dir: &Path, to: SocketAddr, cipher: Option<&str>) -> Option<Way> {
    let dir = dir.join(cipher.unwrap_or("default"));
    fs::create_dir_all(&dir).ok()?;
    let at = |name: &str| dir.join(name).display().to_string();
    for key in ["host", "user"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)])
            .status()
            .ok()
            .filter(|status| status.success())?;
    }
    // Only a server that root starts needs it.
    let _ = fs::create_dir_all("/run/sshd");
    let mut programs = Vec::new();
    let mut server = |name: &str| {
        let (port, file) = (free_port(), at(&format!("{name}.conf")));
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin \
             yes\nPasswordAuthentication no\nPidFile none\n",
            at("host"),
            at("user.pub")
        );
        fs::write(&file, text).ok()?;
        let mut command = Command::new("/usr/sbin/sshd");
        programs.push(Ended::start(command.args(["-D", "-f", &file, "-E", &at(&format!("{name}.log"))]))?);
        listens(SocketAddr::from(([127, 0, 0, 1], port)))?;
        Some(port)
    };
    let (jump, target) = (server("jump")?, server("target")?);
    let ciphers = cipher.map_or(String::new(), |cipher| format!("  Ciphers {cipher}\n"));
    let text = format!(
        "Host *\n  HostName 127.0.0.1\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile \
         /dev/null\n  LogLevel ERROR\n{ciphers}Host jump\n  Port {jump}\nHost target\n  Port {target}\n  ProxyCommand ssh -F {} \
         -W %h:%p jump\n",
        at("user"),
        at("ssh.conf")
    );
    fs::write(at("ssh.conf"), text).ok()?;
    let port = free_port();
    let mut command = Command::new("ssh");
    programs.push(Ended::start(command.args([
        "-F",
        &at("ssh.conf"),
        "-N",
        "-L",
        &format!("127.0.0.1:{port}:{to}"),
        "target",
    ]))?);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    listens(address)?;
    Some(Way::new(&format!("`ssh -L`, jump host, {}", cipher.unwrap_or("default cipher")), address, programs))
}

/// Starts a node in a process of its own, which is this program in another role. Returns the port that it prints.
fn node(role: &str, arguments: &[String]) -> (Ended, u16) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--role").arg(role).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Ended(child), line.trim().parse().unwrap_or_else(|_| panic!("the node {role} says {line:?}")))
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn all() -> AccessPattern {
    AccessPattern::new(".*").unwrap()
}

fn named(name: &str) -> NodeBuilder {
    let cookie = Cookie::new("a benchmark's throw-away secret").unwrap();
    Node::builder(name).unwrap().cookie(cookie).no_registrar()
}

fn at_port(port: &str) -> NetworkRoute {
    NetworkRoute::direct("127.0.0.1", port.parse().unwrap()).unwrap().build()
}

/// Runs a node until it is killed. The arguments are the ports of other nodes.
async fn play(role: &str, arguments: &[String]) -> Vec<Node> {
    let say = |port: u16| println!("{port}");
    match (role, arguments) {
        ("backend", [server]) => {
            let node = named("db@lab").listen(any()).start().await.unwrap();
            node.serve("server", server.parse().unwrap(), vec![all()]).unwrap();
            say(node.listening()[0].port());
            vec![node]
        }
        ("gateway", [backend]) => {
            let transit = Transit { rules: vec![TransitRule::new(all(), all())], gateways: Vec::new() };
            let limits = CircuitLimits {
                total: 65_536,
                per_peer: 65_536,
                opens_per_second: 65_536,
                burst: 65_536,
                ..CircuitLimits::default()
            };
            let mut gateway = named("gateway@lab").listen(any()).transit(transit).circuit_limits(limits);
            // There is one port of one node, or one port for each node of a crowd.
            for (n, port) in backend.split(',').enumerate() {
                let pattern = if backend.contains(',') { format!("^db{n}@") } else { "^db@".into() };
                gateway = gateway.route(pattern, at_port(port), 1);
            }
            let node = gateway.start().await.unwrap();
            say(node.listening()[0].port());
            vec![node]
        }
        ("client", [what, port]) => {
            let client = if what == "direct" {
                named("direct@lab").route("^db@", at_port(port), 1)
            } else {
                let client = named("behind@lab").route("^gateway@", at_port(port), 1);
                client.proxy_route("^db@", ProxyRoute::via("gateway@lab".parse().unwrap()), 1)
            };
            let node = client.start().await.unwrap();
            let forward = node.forward(LocalPlace::Tcp(any()), "db@lab", "server").await.unwrap();
            let LocalPlace::Tcp(at) = *forward.place() else { unreachable!("it is an address") };
            say(at.port());
            std::mem::forget(forward);
            vec![node]
        }
        ("crowd", []) => {
            let mut nodes = Vec::new();
            for n in 0..CROWD {
                nodes.push(named(&format!("db{n}@lab")).listen(any()).start().await.unwrap());
            }
            let ports: Vec<_> = nodes.iter().map(|node| node.listening()[0].port().to_string()).collect();
            println!("{}", ports.join(","));
            nodes
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// Returns the resident memory of a process, in bytes.
fn resident(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

/// Returns the memory of one idle circuit in a gateway, in bytes. The links exist before the measurement.
fn weigh(runtime: &tokio::runtime::Runtime) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--role", "crowd"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut backends = command.spawn().unwrap();
    let mut ports = String::new();
    BufReader::new(backends.stdout.take().unwrap()).read_line(&mut ports).unwrap();
    let backends = Ended(backends);
    let (gateway, port) = node("gateway", &[ports.trim().to_owned()]);
    let weighed = runtime.block_on(async {
        let mut apps = Vec::new();
        for n in 0..CROWD {
            let app = named(&format!("app{n}@lab")).route("^gateway@", at_port(&port.to_string()), 1);
            let app = app.proxy_route("^db", ProxyRoute::via("gateway@lab".parse().unwrap()), 1).start().await.unwrap();
            // Opens the link to the gateway, and the gateway's link to one of the others.
            app.connect("gateway@lab").await.unwrap();
            app.connect(format!("db{n}@lab").as_str()).await.unwrap();
            apps.push(app);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = resident(gateway.0.id());
        for app in &apps {
            for n in 0..CROWD {
                app.connect(format!("db{n}@lab").as_str()).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        (resident(gateway.0.id()) - before) / (CROWD * (CROWD - 1)) as f64
    });
    drop(backends);
    weighed
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--role") {
        let nodes = runtime.block_on(play(&arguments[at + 1], &arguments[at + 2..]));
        loop {
            std::thread::park();
            assert!(!nodes.is_empty());
        }
    }
    let server = server();
    let dir = tempfile::tempdir().unwrap();
    let (backend, to_backend) = node("backend", &[server.to_string()]);
    let (gateway, to_gateway) = node("gateway", &[to_backend.to_string()]);
    let (direct, at_direct) = node("client", &["direct".into(), to_backend.to_string()]);
    let (behind, at_behind) = node("client", &["behind".into(), to_gateway.to_string()]);
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut ways = vec![Way::new("bare TCP", server, Vec::new())];
    type Start<'s> = Box<dyn Fn() -> Option<Way> + 's>;
    let others: [(&str, Start<'_>); 4] = [
        ("socat", Box::new(|| socat(server))),
        ("haproxy", Box::new(|| haproxy(dir.path(), server))),
        ("ssh and sshd", Box::new(|| ssh(dir.path(), server, None))),
        ("ssh and sshd", Box::new(|| ssh(dir.path(), server, Some("aes128-gcm@openssh.com")))),
    ];
    for (what, start) in others {
        match start() {
            Some(way) => ways.push(way),
            None => println!("{what}: not there, or it did not start; install it to compare with it"),
        }
    }
    let forwards = [("`forward`, directly", at_direct, direct), ("`forward`, through one gateway", at_behind, behind)];
    for (what, port, client) in forwards {
        let shared = vec![backend.0.id(), gateway.0.id()];
        ways.push(Way { shared, ..Way::new(what, local(port), vec![client]) });
    }
    for _ in 0..ROUNDS {
        ways.iter_mut().for_each(Way::measure);
    }
    println!("| way | MiB/s | of bare TCP | CPU s per GiB | round trip, median | added | connections/s |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for way in &ways {
        let added = way.trip.saturating_sub(ways[0].trip).as_secs_f64() * 1e6;
        let (share, trip) = (way.bulk / ways[0].bulk, way.trip.as_secs_f64() * 1e6);
        let Way { what, bulk, cpu, connections, .. } = way;
        println!("| {what} | {bulk:.0} | {share:.3} | {cpu:.2} | {trip:.1} µs | {added:.1} µs | {connections:.0} |");
    }
    let through = ways.last().unwrap();
    let rates = side_by_side(through.at, PARALLEL, 0, Duration::from_secs(8));
    let mean = rates.iter().sum::<f64>() / rates.len() as f64;
    let (least, most) = rates.iter().fold((f64::MAX, 0.0f64), |(a, b), rate| (a.min(*rate), b.max(*rate)));
    println!(
        "\n{PARALLEL} streams at once through the gateway: {:.0} MiB/s in all, each {least:.2} to {most:.2}, {:+.1} % and {:+.1} % of the mean",
        mean * rates.len() as f64,
        (least / mean - 1.0) * 100.0,
        (most / mean - 1.0) * 100.0
    );
    let mut best = [0.0f64; 2];
    for _ in 0..ROUNDS {
        for (stopped, best) in best.iter_mut().enumerate() {
            let rates = side_by_side(through.at, 7, stopped, Duration::from_secs(3));
            *best = best.max(rates.iter().sum());
        }
    }
    println!(
        "7 streams beside one that nobody reads: {:.0} MiB/s, without it {:.0} ({:+.1} %)",
        best[1],
        best[0],
        (best[1] / best[0] - 1.0) * 100.0
    );
    println!("an idle circuit in the gateway: {:.1} KiB", weigh(&runtime) / 1024.0);
    drop((ways, gateway, backend));
}
