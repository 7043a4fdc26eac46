//! Twenty thousand histories of nodes that dial each other over a network that breaks, checked against the invariants
//! of one link per pair. See `trunkline_tests::sim`.

use std::fmt::Write;
use std::ops::Range;

use trunkline_tests::sim::{Config, Counts, Fault, hops, model, run};

// The shipped rules contain no mistake without debug assertions.
#[cfg(debug_assertions)]
mod mistakes;

const HISTORIES: u64 = 20_000;
/// Number of lines of the trace that a failure shows.
const TAIL: usize = 60;

fn saved_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed per line")).collect()
}

/// Runs one history. The text of a failure has all information needed to reproduce it.
fn check(seed: u64) -> Result<Counts, String> {
    let outcome = run(seed, Config::default(), false);
    let Some(violation) = outcome.violation else { return Ok(outcome.counts) };
    let trace = run(seed, Config::default(), true).trace;
    let mut text = String::new();
    for line in &trace[trace.len().saturating_sub(TAIL)..] {
        let _ = writeln!(text, "{line}");
    }
    let _ = write!(
        text,
        "seed {seed}: {violation}\n\
         the whole trace: TRUNKLINE_SIM_SEED={seed} cargo test -p trunkline-tests --test sim replay -- --nocapture\n\
         then keep it: echo {seed} >> tests/tests/sim/seeds.txt"
    );
    Err(text)
}

fn check_all(seeds: Range<u64>, step: usize) -> Counts {
    let mut counts = Counts::default();
    for seed in seeds.step_by(step) {
        match check(seed) {
            Ok(more) => counts.add(&more),
            Err(failure) => panic!("{failure}"),
        }
    }
    counts
}

#[test]
fn p15_no_interleaving_breaks_one_link_per_pair() {
    for seed in saved_seeds() {
        check(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let histories = std::env::var("TRUNKLINE_SIM_HISTORIES").map_or(HISTORIES, |n| n.parse().expect("a number"));
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|first| scope.spawn(move || check_all(first..histories, 2)));
        for half in halves {
            match half.join() {
                Ok(more) => counts.add(&more),
                Err(failure) => std::panic::resume_unwind(failure),
            }
        }
    });
    println!("{counts:#?}");
    let none = |count: Option<&u64>| count.is_none_or(|n| *n == 0);
    let silent: Vec<_> = Fault::ALL.iter().filter(|fault| none(counts.faults.get(fault))).collect();
    assert!(silent.is_empty(), "faults that never happened: {silent:?}");
    let unused: Vec<_> = model::rows().filter(|row| none(counts.rows.get(row))).collect();
    assert!(unused.is_empty(), "rows that never decided: {unused:?}");
}

#[test]
fn replay() {
    let Ok(seed) = std::env::var("TRUNKLINE_SIM_SEED") else { return };
    let seed = seed.parse().expect("TRUNKLINE_SIM_SEED is a number");
    let outcome = run(seed, Config::default(), true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{:#?}", outcome.counts);
    assert_eq!(outcome.violation, None, "seed {seed}");
}

#[test]
fn a_seed_gives_the_same_history_every_time() {
    for seed in 0..20 {
        let [one, other] = [0; 2].map(|_| run(seed, Config::default(), true));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// Number of worlds with gateways in one run.
const TOPOLOGIES: u64 = 20_000;

#[test]
fn p17_p18_in_any_topology_every_request_ends_within_its_budget_and_leaves_no_circuit() {
    let mut seen = hops::Seen::new();
    for seed in 0..TOPOLOGIES {
        match hops::run(seed, start(), None) {
            Ok(more) => more.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times),
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    for what in [
        "it was the neighbour itself",
        "through one gateway",
        "through two gateways",
        "through more gateways",
        "relay denied",
        "loop",
        "hop limit",
        "overloaded",
        "unreachable",
        "out of time",
        "given up",
        "refused",
        "a black hole",
        "a node died",
        "broken",
    ] {
        assert!(seen.get(what).is_some_and(|times| *times >= 100), "{what} came too rarely: {seen:?}");
    }
}

#[test]
fn each_mistake_of_a_gateway_is_detected() {
    for mistake in hops::Mistake::ALL {
        let found = (0..TOPOLOGIES).find(|seed| hops::run(*seed, start(), Some(mistake)).is_err());
        assert!(found.is_some(), "{mistake:?} was not seen");
    }
}

#[expect(clippy::disallowed_methods, reason = "some moment to count from")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}
