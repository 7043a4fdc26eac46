//! Cost of a look-up in a table of patterns, and of an edit, beside other matchers. Linux only; prints two tables.
//!
//! `cargo bench -p trunkline-matcher --bench matcher [-- [SET...] [--engine NAME]... [--mix main|other] [--seed N]]`
//!
//! A set is a number of patterns: `100`, `1k`, `100k`; with `c` before it few of them are nasty (`c10k`, `c1M`), and
//! with `free` none has a literal (`free143`). Engines: `trunkline`, `edits`, `loop`, `regexset`, `filtered`, `re2set`,
//! `re2filtered`, `vectorscan`. Every engine answers in a process of its own, so that memory is its own; the answers
//! are compared, and if two engines differ the benchmark fails.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod cell;
mod edits;
mod ours;
mod peers;
mod tables;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ours::Reader;
use peers::{Cpp, PEERS};
use tables::{Answer, Row};
use workload::{Mix, Set, Workload};

const STAGE: &str = "TRUNKLINE_BENCH_STAGE";

/// Default sets; together they take about ten minutes.
const SETS: &[&str] = &["100", "1k", "10k", "c10k", "100k", "c100k", "c1M", "free15", "free143", "free1408"];

fn main() -> ExitCode {
    let options = Options::read();
    match std::env::var(STAGE) {
        Ok(stage) => {
            let (engine, answers) = stage.split_once(' ').expect("engine and path");
            measure(engine, &options, Path::new(answers));
            ExitCode::SUCCESS
        }
        Err(_) => compare(&options),
    }
}

/// Options of the command line, the same for all processes.
struct Options {
    sets: Vec<String>,
    engines: Vec<String>,
    mix: String,
    seed: u64,
}

impl Options {
    fn read() -> Self {
        let mut options = Self { sets: Vec::new(), engines: Vec::new(), mix: "main".to_owned(), seed: 1 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                // Cargo passes this to every benchmark.
                "--bench" => {}
                "--engine" => options.engines.push(value()),
                "--mix" => options.mix = value(),
                "--seed" => options.seed = value().parse().expect("a seed is a number"),
                set if Set::named(set).is_some() => options.sets.push(word),
                unknown => panic!("{unknown} is neither a set nor an option"),
            }
        }
        assert!(Mix::named(&options.mix).is_some(), "the mixes are main and other");
        if options.sets.is_empty() {
            options.sets = SETS.iter().map(|set| (*set).to_owned()).collect();
        }
        options
    }

    fn chosen(&self, engine: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|chosen| chosen == engine)
    }

    fn mix(&self) -> Mix {
        Mix::named(&self.mix).expect("checked when it was read")
    }
}

/// Measures one engine and one set, in a process of its own.
fn measure(engine: &str, options: &Options, answers: &Path) {
    let set = Set::named(&options.sets[0]).expect("checked when it was read");
    let mut workload = Workload::new(set, options.mix(), options.seed);
    match engine {
        "trunkline" => {
            let (table, before) = cell::built(|| ours::build(&workload.patterns));
            let mut reader = Reader::new(&table);
            cell::look_ups(&workload, before, answers, |name, found| reader.ask(name, found));
        }
        "edits" => {
            let further = workload.further(set, options.mix(), FURTHER_PATTERNS);
            edits::measure(&workload, &further);
        }
        peer => peers::measure(peer, &workload, answers),
    }
}

/// Output of a process: `name value` lines.
type Numbers = BTreeMap<String, f64>;

/// Measures every engine for every set, and prints the tables.
fn compare(options: &Options) -> ExitCode {
    let cpp = Cpp::compiled();
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("matcher-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the target directory can be written");
    let (mut rows, mut edits, mut differences) = (Vec::new(), Vec::new(), Vec::new());
    for name in &options.sets {
        let set = Set::named(name).expect("checked when it was read");
        let workload_file = scratch.join("workload");
        peers::write(&Workload::new(set, options.mix(), options.seed), &workload_file);
        let mut cells: Vec<(&str, PathBuf)> = Vec::new();
        let mut ask = |engine: &'static str, label: &'static str, how: Result<&dyn Fn(&Path) -> Command, Answer>| {
            if !options.chosen(engine) {
                return;
            }
            let answers = scratch.join(engine);
            let answer = how.map_or_else(|why| why, |command| repeated(engine, name, &|| command(&answers)));
            if let Answer::Measured(_) = answer {
                cells.push((label, answers));
            }
            rows.push(Row { set: name.clone(), engine, label, answer });
        };
        let own = |engine: &str, answers: &Path| own_process(engine, name, options, answers);
        ask("trunkline", "**trunkline**", Ok(&|answers| own("trunkline", answers)));
        let literal_free = matches!(set, Set::LiteralFree(_));
        for peer in PEERS.iter().filter(|peer| peer.literal_free || !literal_free) {
            let rust: &dyn Fn(&Path) -> Command = &|answers| own(peer.name, answers);
            let other: &dyn Fn(&Path) -> Command = &|answers| cpp.command(peer, &workload_file, answers);
            let how = match cpp.missing_for(peer) {
                _ if set.len() > peer.most => Err(Answer::Skipped),
                Some(packages) => Err(Answer::Missing(packages)),
                None => Ok(if peer.is_rust() { rust } else { other }),
            };
            ask(peer.name, peer.label, how);
        }
        differences.extend(compare_answers(name, &cells));
        if options.chosen("edits") && !literal_free {
            let answer = repeated("edits", name, &|| own("edits", &scratch.join("edits")));
            edits.push((name.clone(), answer));
        }
    }
    let _ = std::fs::remove_dir_all(&scratch);
    tables::print(options.mix.as_str(), options.seed, &rows, &edits);
    let failed = rows.iter().any(|row| row.engine == "trunkline" && row.answer.is_failed())
        || edits.iter().any(|(_, answer)| answer.is_failed());
    for difference in &differences {
        eprintln!("{difference}");
    }
    if differences.is_empty() && !failed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn own_process(engine: &str, set: &str, options: &Options, answers: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([set, "--mix", &options.mix, "--seed", &options.seed.to_string()]);
    command.env(STAGE, format!("{engine} {}", answers.display()));
    command
}

/// Runs a cell, three times if it is short, and returns the run with the median of the cold look-ups.
fn repeated(engine: &str, set: &str, command: &dyn Fn() -> Command) -> Answer {
    let mut runs = Vec::new();
    for _ in 0..3 {
        eprintln!("{set} {engine}");
        let start = Instant::now();
        match run(command()) {
            Some(numbers) => runs.push(numbers),
            None => return Answer::Failed,
        }
        if start.elapsed() > WORTH_REPEATING {
            break;
        }
    }
    runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
    Answer::Measured(runs.swap_remove(runs.len() / 2))
}

fn key(numbers: &Numbers) -> f64 {
    numbers.get("cold_mean").or(numbers.get("insert_mean_us")).copied().unwrap_or_default()
}

/// Runs one process and reads its output. The process may not take more memory than the machine can spare.
fn run(command: Command) -> Option<Numbers> {
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -v "$0" && exec "$@""#]).arg(spare_kib().to_string());
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.expect("nothing is unset"));
    }
    let output = limited.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("sh is there");
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.lines().filter_map(|line| line.split_once(' '));
    let numbers = numbers.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
    output.status.success().then_some(numbers)
}

/// Returns three quarters of the available memory.
fn spare_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("a line for available memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 4 * 3
}

/// Compares each engine with the first one, over the names that both answered.
fn compare_answers(set: &str, cells: &[(&str, PathBuf)]) -> Vec<String> {
    let answers: Vec<_> = cells.iter().map(|(label, path)| (*label, std::fs::read(path).unwrap_or_default())).collect();
    let Some(((first, expected), others)) = answers.split_first() else { return Vec::new() };
    let mut differences = Vec::new();
    for (label, sums) in others {
        let both = sums.len().min(expected.len()) / 8;
        match sums.chunks_exact(8).zip(expected.chunks_exact(8)).position(|(a, b)| a != b) {
            Some(at) => differences.push(format!("{set}: {label} and {first} differ at name {at} of {both}")),
            None => eprintln!("{set}: {label} and {first} agree on {both} names"),
        }
    }
    differences
}

/// Duration below which a process is run three times.
const WORTH_REPEATING: Duration = Duration::from_secs(4);

const FURTHER_PATTERNS: usize = 1_000;
