//! Costs of a link between two processes over loopback. Linux only; prints one table.
//!
//! `cargo bench -p trunkline-link --bench link [-- case...]`
//!
//! As root everything runs in a network namespace of its own with plain `reno`: a congestion control that paces,
//! as `bbr` does, measures its own timer on loopback.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod bare;
mod ends;
mod erlang;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

const STAGE: &str = "TRUNKLINE_BENCH_STAGE";

fn main() {
    match std::env::var(STAGE).ok().as_deref() {
        Some("here") => {
            let _ = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            control("reno");
            table();
        }
        Some(end) => ends::run(end),
        None if isolated() => {}
        None => table(),
    }
}

/// Sets the congestion control, in the namespace of its own only.
fn control(name: &str) {
    if std::env::var(STAGE).is_ok_and(|stage| stage == "here") {
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name);
    }
}

/// Runs this program again in a network namespace of its own, if that is allowed.
fn isolated() -> bool {
    let works = Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    works && {
        let mut again = Command::new("unshare");
        again.arg("-n").arg(std::env::current_exe().unwrap()).args(std::env::args().skip(1));
        again.env(STAGE, "here").status().unwrap().success()
    }
}

/// Output of one end of a case: `name value` lines.
type Numbers = BTreeMap<String, f64>;

fn end(which: &str, case: &str, core: &str, address: Option<&str>) -> Child {
    Command::new("taskset")
        .args(["-c", core])
        .arg(std::env::current_exe().unwrap())
        .arg(address.unwrap_or_default())
        .env(STAGE, format!("{which} {case}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("taskset is installed")
}

fn numbers(text: &str) -> Numbers {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// Runs both ends of a case: the listener's on `cores[1]`, the dialer's on `cores[0]`.
fn case(name: &str, cores: [&str; 2]) -> (Numbers, Numbers) {
    let mut listening = end("b", name, cores[1], None);
    let mut out = BufReader::new(listening.stdout.take().unwrap());
    let mut address = String::new();
    out.read_line(&mut address).unwrap();
    let dialing = end("a", name, cores[0], Some(address.trim())).wait_with_output().unwrap();
    drop(listening.stdin.take());
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let _ = listening.wait();
    (numbers(&String::from_utf8_lossy(&dialing.stdout)), numbers(&text))
}

fn row(what: &str, value: String, compared: String, goal: &str) {
    println!("{what:<44} {value:>22} {compared:>30}   {goal}");
}

fn least(runs: impl IntoIterator<Item = Numbers>) -> Numbers {
    runs.into_iter().min_by(|x, y| x["wall_s"].total_cmp(&y["wall_s"])).unwrap()
}

/// Messages, important messages and calls beside Erlang's, in turn, each the best of three.
fn beside_erlang(erlang: Option<&erlang::Erlang>, bytes: usize, size: &str, callers: usize) {
    let rate = |n: &Numbers| n["messages"] / n["wall_s"];
    let who = if callers == 1 { "1 caller".into() } else { format!("{callers} callers") };
    let own = |kind: &str, cores| least((0..3).map(|_| case(&format!("{kind}-{bytes}-{callers}"), cores).0));
    let their = |kind: &str, each, core| {
        erlang.map(|erlang| least((0..3).map(|_| erlang.case(kind, bytes, callers, each, core))))
    };
    let against = |own: &Numbers, their: &Option<Numbers>| match their {
        Some(their) => format!("erl {:.2} M: {:.2} x", rate(their) / 1e6, rate(own) / rate(their)),
        None => "no erl".into(),
    };
    let goal = |goal: &str| if bytes == 32 { goal.to_owned() } else { String::new() };
    let (pair, one) = (["0", "1"], ["1", "1"]);
    // It writes small pieces, which a control that paces gathers: with it, and with the cores it likes, it is fastest.
    control("bbr");
    let their_messages = their("one_way", 2_000_000 / callers, None);
    control("reno");
    for (kind, what, limit) in [("many", "one way", ">= 10 x"), ("important", "important", ">= 1 x")] {
        let own = own(kind, pair);
        let value = format!("{:.2} M/s", rate(&own) / 1e6);
        row(&format!("{what}, {size}, {who}"), value, against(&own, &their_messages), &goal(limit));
    }
    let (own, their) = (own("calls", one), their("call", 20_000 / callers, Some("1")));
    let against = their.map_or("no erl".into(), |their| {
        format!("erl {:.1} us: {:.2} x its rate", their["median_us"], rate(&own) / rate(&their))
    });
    row(&format!("call, {size}, {who}, one core"), format!("{:.1} us", own["median_us"]), against, "");
}

fn table() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    println!("two processes, each a current-thread runtime on a core; TLS 1.3 AES-128-GCM; {}", control.trim());
    row("measure", "value".into(), "compared".into(), "goal");
    let erlang = erlang::Erlang::find();
    if erlang.is_none() {
        println!("Erlang is not installed, so nothing is compared with it: apt-get install erlang-base");
    }
    for (name, bytes, size, goal) in [("one-way-32", 32, "32 B", 10.0), ("one-way-1024", 1024, "1 KiB", 2.0)] {
        for (suffix, callers) in [("", 1), ("-16", 16)] {
            if chosen(&format!("erlang-{bytes}{suffix}")) {
                beside_erlang(erlang.as_ref(), bytes, size, callers);
            }
        }
        if chosen(name) {
            // The best of three: whatever else runs here takes from both ends.
            let runs = (0..3).map(|_| case(name, ["0", "1"]));
            let (a, b) = runs.min_by(|x, y| x.0["wall_s"].total_cmp(&y.0["wall_s"])).unwrap();
            let per = |n: &Numbers| a["messages"] / n["cpu_s"] / 1e6;
            row(
                &format!("one way, {size}, messages/s"),
                format!("{:.2} M", a["messages"] / a["wall_s"] / 1e6),
                format!("per CPU-s: {:.2} M out, {:.2} M in", per(&a), per(&b)),
                &format!(">= {goal} M"),
            );
        }
    }
    if chosen("call") {
        let (link, bare) = (case("call", ["1", "1"]), case("bare-call", ["1", "1"]));
        row(
            "call, 32 B, one core, median",
            format!("{:.1} us", link.0["median_us"]),
            format!("bare {:.1} us: {:.2} x", bare.0["median_us"], link.0["median_us"] / bare.0["median_us"]),
            "<= 1.3 x",
        );
    }
    if chosen("connect") {
        let (link, bare) = (case("connect", ["1", "1"]), case("bare-connect", ["1", "1"]));
        let cpu = |(a, b): &(Numbers, Numbers)| (a["cpu_s"] + b["cpu_s"]) / a["connects"] * 1e6;
        row(
            "connect, one core, median",
            format!("{:.0} us ({:.0}/s)", link.0["median_us"], link.0["connects"] / link.0["wall_s"]),
            format!("bare {:.0} us: {:.2} x", bare.0["median_us"], link.0["median_us"] / bare.0["median_us"]),
            "<= 2.3 x",
        );
        row(
            "connect, CPU of both ends",
            format!("{:.0} us", cpu(&link)),
            format!("bare {:.0} us: {:.2} x", cpu(&bare), cpu(&link) / cpu(&bare)),
            "<= 2.3 x",
        );
    }
    if chosen("memory") {
        let (a, b) = case("memory", ["0", "1"]);
        for (which, n) in [("dialer", &a), ("listener", &b)] {
            let per = |key: &str| (n[key] - n["before_kib"]) / n["links"];
            row(
                &format!("memory of an idle link, {which}"),
                format!("{:.1} KiB", per("idle_kib")),
                format!("after a burst {:.1} KiB", per("burst_kib")),
                "<= 16 KiB",
            );
        }
    }
}
