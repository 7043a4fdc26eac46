//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use trunkline_route::{NodeName, PeerFlags};
use trunkline_stack::StreamCode;

use crate::{MAX_PATH, ProxyOpen, Refusal, Report};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("proxy_open", proxy_open, proxy_open_seeds), ("reports", reports, reports_seeds)];

fn name(text: &str) -> NodeName {
    text.parse().expect("it is a name")
}

/// Requests for a node further on: any bytes are one or refused, and one is read back from what it is written as.
pub fn proxy_open(bytes: &[u8]) {
    let Ok(open) = ProxyOpen::decode(bytes) else { return };
    assert!(open.path.len() <= MAX_PATH);
    let again = open.encode();
    assert_eq!(ProxyOpen::decode(&again).as_ref(), Ok(&open));
    // Flags that are not known here are dropped; the rest has one spelling.
    assert_eq!((again[0], &again[5..]), (bytes[0], &bytes[5..]));
}

/// One without a path, and one with the longest.
pub fn proxy_open_seeds() -> Vec<Vec<u8>> {
    let plain = ProxyOpen::new(name("db@internal"), 3);
    let path = (0..MAX_PATH).map(|n| name(&format!("g{n}@h"))).collect();
    let full = ProxyOpen { to: name("db@internal"), max_hop: 255, flags: PeerFlags::from_bits(1), path };
    vec![plain.encode(), full.encode()]
}

/// Reports of hops: any bytes are reports up to the first that is malformed, and each is read back from what it is written
/// as.
pub fn reports(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(report) = read(&mut rest) {
        if let Report::Stopped(refusal) = &report {
            assert!(refusal.cause.is_empty(), "words of another node are kept");
        }
        assert_eq!(read(&mut &report.encode()[..]), Some(report));
    }
}

/// The next report, without a runtime: a slice is always ready.
fn read(from: &mut &[u8]) -> Option<Report> {
    match pin!(Report::read(from)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read.ok().flatten(),
        Poll::Pending => panic!("a slice is never waited for"),
    }
}

/// One of each report, and all of them.
pub fn reports_seeds() -> Vec<Vec<u8>> {
    let round_trip = Duration::from_micros(1500);
    let reports = [
        Report::Onwards { hop: name("gate@dmz"), next: name("core@h"), round_trip },
        Report::Stopped(Refusal::new(&name("core@h"), StreamCode::Unreachable, "").next(&name("db@internal"))),
        Report::Reached(name("db@internal")),
    ];
    let mut seeds: Vec<Vec<u8>> = reports.iter().map(Report::encode).collect();
    seeds.push(seeds.concat());
    seeds
}
