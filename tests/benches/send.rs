//! Cost of sending by name, `Node::send`, beside `Connection::send` in the same run: messages of 32 bytes, with few and
//! with many routes, by one task and by two tasks to different nodes; then to the node itself beside over loopback.
//! `cargo xtask bench send` runs it; the figures are in `docs/BENCHMARKS.md`.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use trunkline::{AddError, Connection, Cookie, NetworkRoute, Node, NodeName};

/// Bytes of a message.
const SMALL: usize = 32;
/// Bytes of a larger one, of which a sample has an eighth as many.
const LARGE: usize = 4096;
/// Number of messages of one task in one sample.
const MESSAGES: u32 = 200_000;
/// Number of samples of each kind, alternating.
const ROUNDS: usize = 7;

#[derive(Clone, Copy)]
enum By {
    Connection,
    Name,
}

/// Starts a node with a service that reads and discards all messages.
async fn receiver(name: &str, cookie: &Cookie) -> Node {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let node = Node::builder(name).unwrap().cookie(cookie.clone()).no_registrar().listen(any).start().await.unwrap();
    take_everything(&node);
    node
}

fn take_everything(node: &Node) {
    let mut sink = node.register("sink").unwrap();
    tokio::spawn(async move { while sink.recv().await.is_some() {} });
}

async fn sender(cookie: &Cookie, to: &[Node], routes: usize) -> Node {
    let node = Node::builder("app@lab").unwrap().cookie(cookie.clone()).no_registrar().start().await.unwrap();
    let add = node.edit_routes::<_, AddError>(|table| {
        for other in 0..routes - to.len() {
            table.add(&format!("^other{other}@"), NetworkRoute::direct("127.0.0.1", 1).unwrap(), 1)?;
        }
        Ok(())
    });
    add.unwrap();
    for node_to in to {
        let port = node_to.listening()[0].port();
        let pattern = format!("^{}$", node_to.name());
        node.add_route(&pattern, NetworkRoute::direct("127.0.0.1", port).unwrap(), 100).unwrap();
    }
    node
}

/// CPU time of all threads of this process so far.
fn cpu() -> Duration {
    let of_thread = |thread: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        Ok(text.split(' ').next().unwrap().parse::<u64>().unwrap())
    };
    // A thread that ends between the two reads is not counted; the runtimes keep theirs.
    let threads = fs::read_dir("/proc/self/task").unwrap();
    Duration::from_nanos(threads.map(of_thread).filter_map(io::Result::ok).sum())
}

/// Returns the time and the CPU time of one message when each of these targets gets messages from a task of its own.
fn sample(runtime: &Runtime, node: &Node, to: &[(NodeName, Connection)], by: By, len: usize) -> (Duration, Duration) {
    let messages = if len == SMALL { MESSAGES } else { MESSAGES / 8 };
    runtime.block_on(async {
        let (began, cpu_before) = (Instant::now(), cpu());
        let mut tasks = JoinSet::new();
        for (name, connection) in to {
            let (node, name, connection, body) = (node.clone(), name.clone(), connection.clone(), vec![7; len]);
            tasks.spawn(async move {
                for _ in 0..messages {
                    match by {
                        By::Connection => connection.send("sink", "", &body).await.unwrap(),
                        By::Name => node.send(name.clone(), "sink", &body).await.unwrap(),
                    }
                }
            });
        }
        tasks.join_all().await;
        let messages = messages * to.len() as u32;
        (began.elapsed() / messages, (cpu() - cpu_before) / messages)
    })
}

/// Medians of the times and of the CPU times.
fn medians(samples: Vec<(Duration, Duration)>) -> [Duration; 2] {
    let (times, cpu_times): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    [times, cpu_times].map(|mut samples| {
        samples.sort();
        samples[samples.len() / 2]
    })
}

fn main() {
    let cookie = Cookie::new("a benchmark's throw-away secret").unwrap();
    let receivers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let senders = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let nodes = receivers.block_on(async { [receiver("db1@lab", &cookie).await, receiver("db2@lab", &cookie).await] });
    println!("| routes | tasks | Connection::send | Node::send | ratio |\n| --- | --- | --- | --- | --- |");
    for routes in [2, 10_000] {
        let node = senders.block_on(sender(&cookie, &nodes, routes));
        let connect = |to: &Node| {
            let connection = senders.block_on(node.connect(to.name().clone())).unwrap();
            (to.name().clone(), connection)
        };
        let targets: Vec<_> = nodes.iter().map(connect).collect();
        for tasks in [1, 2] {
            let (mut by_connection, mut by_name) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                by_connection.push(sample(&senders, &node, &targets[..tasks], By::Connection, SMALL));
                by_name.push(sample(&senders, &node, &targets[..tasks], By::Name, SMALL));
            }
            let ([connection, _], [name, _]) = (medians(by_connection), medians(by_name));
            let ratio = name.as_secs_f64() / connection.as_secs_f64();
            let [connection, name] = [connection, name].map(|time| time.as_nanos());
            println!("| {routes} | {tasks} | {connection} ns | {name} ns | {ratio:.2} |");
        }
        senders.block_on(async { take_everything(&node) });
        let own = vec![connect(&node)];
        for len in [SMALL, LARGE] {
            let (mut loopback, mut local) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                loopback.push(sample(&senders, &node, &targets[..1], By::Name, len));
                local.push(sample(&senders, &node, &own, By::Name, len));
            }
            let (loopback, local) = (medians(loopback), medians(local));
            for (what, loopback, local) in [("time", loopback[0], local[0]), ("CPU time", loopback[1], local[1])] {
                let ratio = local.as_secs_f64() / loopback.as_secs_f64();
                let [local, loopback] = [local, loopback].map(|time| time.as_nanos());
                println!(
                    "To the node itself, {len} B, {what}: {local} ns; over loopback: {loopback} ns; ratio {ratio:.2}"
                );
            }
        }
    }
}
