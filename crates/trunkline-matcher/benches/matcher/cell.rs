//! Measurement of one engine, in a process of its own: prints `name value` lines.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::workload::Workload;

/// Function that looks a name up in an engine, and appends the values that it finds.
pub(crate) trait Ask: FnMut(&str, &mut Vec<u32>) {}

impl<F: FnMut(&str, &mut Vec<u32>)> Ask for F {}

/// Longest time for the look-ups of a slow engine, for cold names and for hot ones. `peers.cc` is told the same.
pub(crate) const BUDGET: Duration = Duration::from_secs(5);

/// Number of passes over the hot names. The first one is a warm-up, and the best of the others counts, since other load
/// on the machine can only make a pass slower. `peers.cc` has the same number.
const PASSES: usize = 6;

pub(crate) fn report(name: &str, value: f64) {
    println!("{name} {value}");
}

/// Builds an engine and reports seconds and memory.
pub(crate) fn built<T>(build: impl FnOnce() -> T) -> (T, f64) {
    let before = resident_mb();
    let start = Instant::now();
    let engine = build();
    report("build_s", start.elapsed().as_secs_f64());
    report("built_mb", resident_mb() - before);
    (engine, before)
}

/// Measures cold and hot look-ups, and writes a checksum of each answer to `answers`.
pub(crate) fn look_ups(workload: &Workload, before_mb: f64, answers: &Path, mut ask: impl Ask) {
    let mut sums = Vec::with_capacity(workload.cold.len());
    let mut matches = 0;
    let mut nanos = cold(&workload.cold, &mut sums, |name, found| {
        ask(name, found);
        matches += found.len();
    });
    report("cold_names", nanos.len() as f64);
    report("matches_mean", matches as f64 / nanos.len() as f64);
    report("cold_mean", mean(&nanos));
    report("cold_p50", quantile(&mut nanos, 0.5));
    report("cold_p99", quantile(&mut nanos, 0.99));
    report("hot_mean", hot(workload, &mut ask));
    report("asked_mb", resident_mb() - before_mb);
    let bytes: Vec<u8> = sums.iter().flat_map(|sum: &u64| sum.to_le_bytes()).collect();
    std::fs::write(answers, bytes).expect("the answers can be written");
}

/// Returns the nanoseconds of each look-up, without the time of reading the clock.
pub(crate) fn cold(names: &[String], sums: &mut Vec<u64>, mut ask: impl Ask) -> Vec<f64> {
    let clock = clock_nanos();
    let mut found = Vec::new();
    let mut nanos = Vec::with_capacity(names.len());
    let start = Instant::now();
    let mut last = start;
    for name in names {
        found.clear();
        ask(name, &mut found);
        sums.push(checksum(&found));
        let now = Instant::now();
        nanos.push(((now - last).as_nanos() as f64 - clock).max(0.0));
        last = now;
        if now - start > BUDGET {
            break;
        }
    }
    nanos
}

/// Returns the mean nanoseconds of a look-up of a hot name.
pub(crate) fn hot(workload: &Workload, mut ask: impl Ask) -> f64 {
    let mut found = Vec::new();
    let mut best = f64::INFINITY;
    let start = Instant::now();
    // The clock is read about once in a millisecond.
    let mut chunk = 1;
    for pass in 0..PASSES {
        let (mut asked, began) = (0, Instant::now());
        while asked < workload.hot_order.len() && start.elapsed() < BUDGET {
            let end = (asked + chunk).min(workload.hot_order.len());
            for place in &workload.hot_order[asked..end] {
                found.clear();
                ask(&workload.hot[*place as usize], &mut found);
                black_box(&found);
            }
            asked = end;
            if began.elapsed().as_secs_f64() / (asked as f64) * (chunk as f64) < 0.000_5 {
                chunk *= 2;
            }
        }
        let complete = asked == workload.hot_order.len();
        if asked > 0 && (pass > 0 || !complete) && (complete || best.is_infinite()) {
            best = best.min(began.elapsed().as_nanos() as f64 / asked as f64);
        }
    }
    best
}

/// Computes a checksum that depends on the values and on their order. `peers.cc` computes the same.
fn checksum(values: &[u32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, value| {
        let sum = (sum ^ (u64::from(*value) + 1)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^ (sum >> 29)
    })
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    let place = ((values.len() - 1) as f64 * part) as usize;
    *values.select_nth_unstable_by(place, f64::total_cmp).1
}

/// Returns the shortest time that reading the clock takes.
fn clock_nanos() -> f64 {
    let read = || {
        let start = Instant::now();
        for _ in 0..1_000 {
            black_box(Instant::now());
        }
        start.elapsed().as_nanos() as f64 / 1_000.0
    };
    (0..20).map(|_| read()).fold(f64::INFINITY, f64::min)
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for resident memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
