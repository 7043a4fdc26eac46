//! Measurement of edits, and of readers during edits: only this crate's table has them. Runs in a process of its own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use crate::cell::{self, mean, quantile, report};
use crate::ours::{self, Reader, Table};
use crate::workload::{Pattern, Workload};

/// Runs all measurements of this module. `further` are patterns that are not in the table.
pub(crate) fn measure(workload: &Workload, further: &[Pattern]) {
    report("map_mean", map(workload));
    let table = ours::build(&workload.patterns);
    one_by_one(&table, further);
    beside_a_writer(&table, workload, further);
    for threads in [1, 2] {
        if threads <= cores() {
            report(&format!("per_second_{threads}"), per_second(&table, workload, threads));
        }
    }
    cached(&table, workload, further);
}

/// Measures the mean time of an edit that compiles and inserts one pattern, and of one that removes it.
fn one_by_one(table: &Table, further: &[Pattern]) {
    let mut inserts = Vec::new();
    let mut removes = Vec::new();
    let start = Instant::now();
    for (value, pattern) in (NEW_VALUES..).zip(further) {
        inserts.push(micros(|| ours::insert(table, pattern, value)));
        if start.elapsed() > EDITS_BUDGET {
            break;
        }
    }
    for pattern in &further[..inserts.len()] {
        removes.push(micros(|| ours::remove(table, &pattern.text)));
    }
    report("edits", inserts.len() as f64);
    report("insert_mean_us", mean(&inserts));
    report("insert_p99_us", quantile(&mut inserts, 0.99));
    report("remove_mean_us", mean(&removes));
    report("remove_p99_us", quantile(&mut removes, 0.99));
}

/// Measures look-ups of new names, first alone and then while another core edits without a pause.
fn beside_a_writer(table: &Table, workload: &Workload, further: &[Pattern]) {
    if cores() < 2 {
        return;
    }
    let mut reader = Reader::new(table);
    let mut ask = |name: &str, found: &mut Vec<u32>| reader.ask(name, found);
    let mut thirds = workload.cold.chunks(workload.cold.len().div_ceil(3));
    let mut next = || thirds.next().expect("three of them");
    let mut sums = Vec::new();
    pinned_to(0, || {
        // Compilation and caching at first use are not part of the cost of a writer.
        cell::cold(next(), &mut sums, &mut ask);
        let mut nanos = cell::cold(next(), &mut sums, &mut ask);
        report("idle_p99", quantile(&mut nanos, 0.99));
        let (done, edits, ready) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pinned_to(1, || {
                    ready.wait();
                    let mut patterns = further.iter().cycle();
                    // Some patterns stay for a while, as in a table in use.
                    let mut inside: Vec<&Pattern> = Vec::new();
                    while !done.load(Ordering::Relaxed) {
                        if inside.len() == KEPT_BY_WRITER.min(further.len()) {
                            for pattern in inside.drain(..) {
                                ours::remove(table, &pattern.text);
                                edits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        let pattern = patterns.next().expect("it cycles");
                        ours::insert(table, pattern, NEW_VALUES);
                        inside.push(pattern);
                        edits.fetch_add(1, Ordering::Relaxed);
                    }
                    for pattern in inside {
                        ours::remove(table, &pattern.text);
                    }
                });
            });
            ready.wait();
            let start = Instant::now();
            let mut nanos = cell::cold(next(), &mut sums, &mut ask);
            report("edits_per_second", edits.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64());
            done.store(true, Ordering::Relaxed);
            report("edited_p99", quantile(&mut nanos, 0.99));
        });
    });
}

/// Returns the number of look-ups of hot names in a second by so many threads with a reader each.
fn per_second(table: &Table, workload: &Workload, threads: usize) -> f64 {
    let (done, ready) = (AtomicBool::new(false), Barrier::new(threads + 1));
    let mut total = 0;
    let mut elapsed = Duration::ZERO;
    std::thread::scope(|scope| {
        let (done, ready) = (&done, &ready);
        let readers: Vec<_> = (0..threads)
            .map(|core| {
                scope.spawn(move || {
                    pinned_to(core, || {
                        let mut reader = Reader::new(table);
                        let (mut asked, mut found) = (0_u64, Vec::new());
                        // The one-time work of a thread is not part of the rate.
                        let start = Instant::now();
                        for name in &workload.hot {
                            reader.ask(name, &mut found);
                            if start.elapsed() > WARM_UP {
                                break;
                            }
                        }
                        ready.wait();
                        for place in workload.hot_order.iter().cycle() {
                            found.clear();
                            reader.ask(&workload.hot[*place as usize], &mut found);
                            black_box(&found);
                            asked += 1;
                            if done.load(Ordering::Relaxed) {
                                break;
                            }
                        }
                        asked
                    })
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        done.store(true, Ordering::Relaxed);
        elapsed = start.elapsed();
        total = readers.into_iter().map(|reader| reader.join().expect("it does not panic")).sum();
    });
    total as f64 / elapsed.as_secs_f64()
}

/// Measures hot look-ups with the cache of results: of an unchanged table, and of one that changes now and then.
fn cached(table: &Table, workload: &Workload, further: &[Pattern]) {
    let Some(mut reader) = Reader::cached(table) else { return };
    report("cached_mean", cell::hot(workload, |name, found| reader.ask(name, found)));
    let mut spent = Duration::ZERO;
    let mut asked = 0;
    let mut found = Vec::new();
    for (edit, places) in workload.hot_order.chunks(LOOK_UPS_PER_EDIT).enumerate() {
        // Inserts and removes alternate, and are not in the time.
        let pattern = &further[edit / 2 % further.len()];
        match edit % 2 {
            0 => ours::insert(table, pattern, NEW_VALUES),
            _ => ours::remove(table, &pattern.text),
        }
        let start = Instant::now();
        for place in places {
            found.clear();
            reader.ask(&workload.hot[*place as usize], &mut found);
            black_box(&found);
        }
        spent += start.elapsed();
        asked += places.len();
        if spent > cell::BUDGET {
            break;
        }
    }
    report("churned_mean", spent.as_nanos() as f64 / asked as f64);
}

/// Measures the lower bound: the same names in a hash map of the table's size. A map cannot answer what the table
/// answers.
fn map(workload: &Workload) -> f64 {
    let patterns = workload.patterns.iter().map(|pattern| &pattern.text);
    let names = workload.hot.iter().chain(patterns).cloned();
    let map: HashMap<String, u32, BuildHasherDefault<Fold>> = names.zip(0..).collect();
    cell::hot(workload, |name, found| found.extend(map.get(name)))
}

/// A very cheap hash that still spreads the keys, so that the lower bound is low.
#[derive(Default)]
struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

fn micros(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / 1_000.0
}

/// Returns the cores of this process as it was started, since pinned threads see fewer.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Runs `work` with this thread pinned to one core, if that is allowed.
fn pinned_to<T>(core: usize, work: impl FnOnce() -> T) -> T {
    if cores() > 1 {
        pin(&core.to_string());
    }
    let answer = work();
    if cores() > 1 {
        pin(&format!("0-{}", cores() - 1));
    }
    answer
}

fn pin(cores: &str) {
    let thread = std::fs::read_link("/proc/thread-self").expect("Linux");
    let thread = thread.file_name().expect("it ends in the number of the thread");
    let mut taskset = Command::new("taskset");
    taskset.args(["-p", "-c", cores]).arg(thread).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(taskset.status().is_ok(), "taskset is installed");
}

/// First value of the patterns that are inserted later.
const NEW_VALUES: u32 = 1 << 30;
const WARM_UP: Duration = Duration::from_secs(1);
const EDITS_BUDGET: Duration = Duration::from_secs(2);
const KEPT_BY_WRITER: usize = 64;
const LOOK_UPS_PER_EDIT: usize = 1_000;
