//! The two ends of every case.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trunkline_link::{DialTimes, Hooks, Listener, Native, NativeLimits, Standing};
use trunkline_route::{Address, Attempt, Claims, Cookie, LinkPolicy, NodeName, TlsMode, Version};
use trunkline_stack::{Link, Mailboxes};
use trunkline_tls::{ClientTls, ServerTls, TlsProfile};
use trunkline_wire::handshake::{Credential, Mode};

const COOKIE: &str = "the cookie of the measurement";
const LONG: Duration = Duration::from_secs(60);
const LINKS: usize = 10_000;
const CALLS: usize = 30_000;
const CONNECTS: usize = 1000;

pub(crate) fn run(stage: &str) {
    let (end, case) = stage.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match (case.strip_prefix("bare-"), end) {
            (Some(case), "b") => super::bare::listen(case).await,
            (Some(case), _) => super::bare::dial(case, dialed_address()).await,
            (None, "b") => listen(case).await,
            (None, _) => dial(case, dialed_address()).await,
        }
    });
}

fn dialed_address() -> SocketAddr {
    std::env::args().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn tell(name: &str, value: impl Display) {
    println!("{name} {value}");
}

/// CPU time of this process' one thread so far.
pub(crate) fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The end of the case: whoever runs it closes our standard input.
pub(crate) async fn told_to_stop() {
    let mut nothing = [0];
    let _ = tokio::io::AsyncReadExt::read(&mut tokio_stdin(), &mut nothing).await;
}

fn tokio_stdin() -> tokio::net::unix::pipe::Receiver {
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
    tokio::net::unix::pipe::Receiver::from_owned_fd(stdin).unwrap()
}

/// Repeats `once` and tells how long each took in the middle, and all together.
pub(crate) async fn repeat(name: &str, times: usize, mut once: impl AsyncFnMut()) {
    let (cpu_before, start) = (cpu(), Instant::now());
    let mut each = Vec::with_capacity(times);
    for _ in 0..times {
        let before = Instant::now();
        once().await;
        each.push(before.elapsed());
    }
    tell("wall_s", start.elapsed().as_secs_f64());
    tell("cpu_s", (cpu() - cpu_before).as_secs_f64());
    tell(name, times);
    each.sort();
    tell("median_us", each[times / 2].as_nanos() as f64 / 1e3);
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn limits() -> NativeLimits {
    let mut limits = NativeLimits::default();
    // Soon enough for the memory to be looked at after links fell idle.
    limits.keep_alive.idle = Duration::from_secs(1);
    limits
}

async fn listen(case: &str) {
    let native = Native::new(name("b@bench"), limits());
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let cookie = Cookie::new(COOKIE).unwrap();
    let credentials = Box::new(move |_: &NodeName, _: &str| Credential::Cookie(cookie.clone()));
    let tls = ServerTls::ephemeral().unwrap();
    let listener = Listener::bind(any, Mode::Node, tls, credentials).unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (sender, mut standing) = mpsc::unbounded_channel::<Standing>();
    tokio::spawn(listener.serve(native, move |offered| {
        let sender = sender.clone();
        async move {
            if let Ok(standing) = offered.accept(1, LinkPolicy::default()).await {
                let _ = sender.send(standing);
            }
        }
    }));
    let directory = Arc::new(Mailboxes::default());
    let mut mailbox = directory.register("m").unwrap();
    match case {
        "connect" => {
            let before = cpu();
            let drain = async { while standing.recv().await.is_some() {} };
            tokio::select! { () = drain => {}, () = told_to_stop() => {} }
            tell("cpu_s", (cpu() - before).as_secs_f64());
        }
        "memory" => {
            let (mut links, mut before) = (vec![], 0);
            let accept = async {
                loop {
                    tokio::select! {
                        Some(new) = standing.recv() => {
                            links.push(start(new, &directory));
                            if links.len() == 1 {
                                before = rss_kib();
                            }
                        }
                        message = mailbox.recv() => {
                            if let Some(message) = message.filter(|message| message.is_call()) {
                                if message.body().as_ref() == b"idle" {
                                    tell("idle_kib", rss_kib());
                                } else if message.body().as_ref() == b"end" {
                                    tell("burst_kib", rss_kib());
                                }
                                message.reply(&b"ok"[..]);
                            }
                        }
                    }
                }
            };
            tokio::select! { () = accept => {}, () = told_to_stop() => {} }
            tell("before_kib", before);
            tell("links", links.len());
        }
        _ => {
            let _link = start(standing.recv().await.unwrap(), &directory);
            let mut before = cpu();
            let serve = async {
                while let Some(message) = mailbox.recv().await {
                    if message.is_call() {
                        if message.body().as_ref() == b"begin" {
                            before = cpu();
                        } else if message.body().as_ref() == b"end" {
                            tell("cpu_s", (cpu() - before).as_secs_f64());
                        }
                        let body = message.body().clone();
                        message.reply(body);
                    }
                }
            };
            tokio::select! { () = serve => {}, () = told_to_stop() => {} }
        }
    }
}

fn start(standing: Standing, directory: &Arc<Mailboxes>) -> Link {
    let (link, task) = standing.start(directory.clone(), Hooks::default());
    tokio::spawn(task);
    link
}

struct Dialer {
    native: Arc<Native>,
    tls: ClientTls,
    attempt: Attempt,
    address: SocketAddr,
    directory: Arc<Mailboxes>,
}

impl Dialer {
    async fn connect(&self) -> Standing {
        let times = DialTimes::default();
        let dialed = self.native.dial(self.address, &self.attempt, Mode::Node, &self.tls, times).await.unwrap();
        dialed.finish(Claims::default()).await.unwrap()
    }
}

async fn dial(case: &str, address: SocketAddr) {
    let dialer = Dialer {
        native: Native::new(name("a@bench"), limits()),
        tls: ClientTls::new(&TlsProfile::default().no_roots()).unwrap(),
        attempt: Attempt {
            target: name("b@bench"),
            via: None,
            address: Address::new(address.ip().to_string(), address.port()).unwrap(),
            tls: TlsMode::CookieOnly,
            version: Version::native(1),
            cookie: Cookie::new(COOKIE).unwrap(),
            policy: LinkPolicy::default(),
        },
        address,
        directory: Arc::new(Mailboxes::default()),
    };
    match case {
        "connect" => repeat("connects", CONNECTS, async || drop(dialer.connect().await)).await,
        "memory" => memory(&dialer).await,
        "call" => {
            let link = start(dialer.connect().await, &dialer.directory);
            for _ in 0..1000 {
                link.call("m", "", &[7; 32], LONG).await.unwrap();
            }
            repeat("calls", CALLS, async || drop(link.call("m", "", &[7; 32], LONG).await.unwrap())).await;
        }
        "one-way-32" => one_way(&dialer, 32, 20_000_000).await,
        "one-way-1024" => one_way(&dialer, 1024, 4_000_000).await,
        other if other.starts_with("many") => many(&dialer, other, 4_000_000).await,
        other if other.starts_with("important") => important(&dialer, other, 1_000_000).await,
        other if other.starts_with("calls") => calls(&dialer, other, 40_000).await,
        other => panic!("no case {other}"),
    }
}

async fn push(link: &Link, body: &[u8], messages: usize) {
    for _ in 0..messages {
        link.send("m", "sender", body).await.unwrap();
    }
}

async fn one_way(dialer: &Dialer, size: usize, messages: usize) {
    let link = start(dialer.connect().await, &dialer.directory);
    let body = vec![7; size];
    push(&link, &body, messages / 20).await;
    link.call("m", "", b"begin", LONG).await.unwrap();
    let (before, begin) = (cpu(), Instant::now());
    push(&link, &body, messages).await;
    link.call("m", "", b"end", LONG).await.unwrap();
    tell("wall_s", begin.elapsed().as_secs_f64());
    tell("cpu_s", (cpu() - before).as_secs_f64());
    tell("messages", messages);
}

/// The size and the callers in the name of a case, `kind-size-callers`.
fn sizes(case: &str) -> (usize, usize) {
    let mut numbers = case.split('-').skip(1).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Has every caller do its part at the same time, and tells how long all of it took.
async fn together<F>(dialer: &Dialer, callers: usize, messages: usize, part: impl Fn(Link, usize) -> F)
where
    F: Future<Output = Vec<Duration>> + Send + 'static,
{
    let link = start(dialer.connect().await, &dialer.directory);
    link.call("m", "", b"begin", LONG).await.unwrap();
    let begin = Instant::now();
    let mut parts = tokio::task::JoinSet::new();
    for _ in 0..callers {
        parts.spawn(part(link.clone(), messages / callers));
    }
    let mut times: Vec<Duration> = parts.join_all().await.into_iter().flatten().collect();
    link.call("m", "", b"end", LONG).await.unwrap();
    tell("wall_s", begin.elapsed().as_secs_f64());
    tell("messages", messages);
    times.sort();
    tell("median_us", times.get(times.len() / 2).map_or(0.0, |median| median.as_nanos() as f64 / 1e3));
}

async fn many(dialer: &Dialer, case: &str, messages: usize) {
    let (size, callers) = sizes(case);
    together(dialer, callers, messages, move |link, messages| async move {
        push(&link, &vec![7; size], messages).await;
        Vec::new()
    })
    .await;
}

/// Each outcome is waited for; as many are under way as may be.
async fn important(dialer: &Dialer, case: &str, messages: usize) {
    let (size, callers) = sizes(case);
    together(dialer, callers, messages, move |link, messages| async move {
        let body = bytes::Bytes::from(vec![7; size]);
        let mut sent = std::collections::VecDeque::new();
        for _ in 0..messages {
            if sent.len() >= 1000 / callers {
                let mut first: trunkline_stack::Sent = sent.pop_front().unwrap();
                assert_eq!(first.outcome().await, Some(trunkline_wire::important::Outcome::Taken));
            }
            sent.push_back(link.send_important("m", "sender", body.clone()).await.unwrap());
        }
        for mut last in sent {
            last.outcome().await.unwrap();
        }
        Vec::new()
    })
    .await;
}

async fn calls(dialer: &Dialer, case: &str, messages: usize) {
    let (size, callers) = sizes(case);
    together(dialer, callers, messages, move |link, messages| async move {
        let body = vec![7; size];
        let mut times = Vec::with_capacity(messages);
        for _ in 0..messages {
            let before = Instant::now();
            link.call("m", "", &body, LONG).await.unwrap();
            times.push(before.elapsed());
        }
        times
    })
    .await;
}

async fn memory(dialer: &Dialer) {
    let mut links = vec![start(dialer.connect().await, &dialer.directory)];
    links[0].call("m", "", b"warm", LONG).await.unwrap();
    tell("before_kib", rss_kib());
    while links.len() < LINKS {
        // Each link is another node's: ten thousand names on this side.
        let native = Native::new(name(&format!("a{}@bench", links.len())), limits());
        let (tls, attempt, directory) = (dialer.tls.clone(), dialer.attempt.clone(), dialer.directory.clone());
        let other = Dialer { native, tls, attempt, address: dialer.address, directory };
        links.push(start(other.connect().await, &other.directory));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    tell("idle_kib", rss_kib());
    links[0].call("m", "", b"idle", LONG).await.unwrap();
    for link in &links {
        push(link, &[7; 1024], 200).await;
        link.call("m", "", b"burst", LONG).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    tell("burst_kib", rss_kib());
    links[0].call("m", "", b"end", LONG).await.unwrap();
    tell("links", links.len());
}
