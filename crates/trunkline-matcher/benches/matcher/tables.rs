//! Results as Markdown, with the goals beside them.

use crate::Numbers;

/// Results of one engine for one set.
pub(crate) struct Row {
    pub(crate) set: String,
    pub(crate) engine: &'static str,
    pub(crate) label: &'static str,
    pub(crate) answer: Answer,
}

/// Outcome of a measurement.
pub(crate) enum Answer {
    Measured(Numbers),
    /// Not measured: these packages are not installed.
    Missing(String),
    /// The process ended with an error, or ran out of memory.
    Failed,
    /// Not measured: the set has too many patterns for the engine.
    Skipped,
}

impl Answer {
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self, Self::Failed)
    }

    fn get(&self, name: &str) -> Option<f64> {
        match self {
            Self::Measured(numbers) => numbers.get(name).copied(),
            _ => None,
        }
    }
}

/// Bound on a figure of trunkline: on the figure itself, or on its ratio to that of another engine.
struct Goal {
    set: &'static str,
    figure: &'static str,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    /// At most so many times the other engine's figure.
    Times(f64, &'static str),
    /// The other engine takes at least so many times as long.
    Faster(f64, &'static str),
}

const GOALS: &[Goal] = &[
    Goal { set: "100", figure: "cold_mean", bound: Bound::Times(1.3, "vectorscan") },
    Goal { set: "100", figure: "cold_mean", bound: Bound::Faster(8.0, "loop") },
    Goal { set: "1k", figure: "cold_mean", bound: Bound::Times(1.0, "vectorscan") },
    Goal { set: "1k", figure: "cold_mean", bound: Bound::Faster(200.0, "loop") },
    Goal { set: "1k", figure: "cold_mean", bound: Bound::Faster(6.0, "filtered") },
    Goal { set: "10k", figure: "cold_mean", bound: Bound::Times(0.6, "vectorscan") },
    Goal { set: "10k", figure: "hot_mean", bound: Bound::Times(0.6, "vectorscan") },
    Goal { set: "10k", figure: "cold_mean", bound: Bound::Faster(15.0, "re2filtered") },
    Goal { set: "c100k", figure: "cold_mean", bound: Bound::AtMost(2_500.0) },
    Goal { set: "c100k", figure: "cold_mean", bound: Bound::Faster(80.0, "filtered") },
    Goal { set: "c100k", figure: "hot_mean", bound: Bound::AtMost(1_000.0) },
    Goal { set: "c100k", figure: "build_s", bound: Bound::AtMost(2.0) },
    Goal { set: "c100k", figure: "built_mb", bound: Bound::AtMost(60.0) },
    Goal { set: "c1M", figure: "cold_mean", bound: Bound::AtMost(5_000.0) },
    Goal { set: "c1M", figure: "build_s", bound: Bound::AtMost(15.0) },
    Goal { set: "c1M", figure: "built_mb", bound: Bound::AtMost(600.0) },
];

/// Goals for edits and cached look-ups, at any size.
const INSERT_US: f64 = 15.0;
const REMOVE_US: f64 = 1.0;
const CACHED_FLOORS: f64 = 2.0;
const CACHED_AT_MOST: f64 = 150.0;

pub(crate) fn print(mix: &str, seed: u64, rows: &[Row], edits: &[(String, Answer)]) {
    let mut matches: Vec<(&str, f64)> = Vec::new();
    for row in rows {
        if let Some(mean) = row.answer.get("matches_mean")
            && matches.last().is_none_or(|(set, _)| *set != row.set)
        {
            matches.push((&row.set, mean));
        }
    }
    let matches: Vec<String> = matches.iter().map(|(set, mean)| format!("{set}: {mean:.2}")).collect();
    println!("Mix `{mix}`, seed {seed}. Patterns that a cold name matches, on average: {}.\n", matches.join(", "));
    look_ups(rows);
    if !edits.is_empty() {
        println!();
        readers(edits);
    }
}

fn look_ups(rows: &[Row]) {
    println!(
        "| patterns | engine | build | memory, then asked | cold mean | p50 | p99 | hot | cold ÷ trunkline | hot ÷ trunkline | goal |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let Row { set, label, engine, answer } = row;
        if let Answer::Missing(packages) = answer {
            println!("| {set} | {label} | install {packages} | | | | | | | | |");
            continue;
        }
        if answer.is_failed() {
            println!("| {set} | {label} | failed | | | | | | | | |");
            continue;
        }
        if let Answer::Skipped = answer {
            println!("| {set} | {label} | - | - | - | - | - | - | - | - | |");
            continue;
        }
        let ours = find(rows, set, "trunkline");
        let time = |name: &str| answer.get(name).map_or_else(dash, nanos);
        let memory =
            [answer.get("built_mb"), answer.get("asked_mb")].map(|mb| mb.map_or_else(dash, |mb| format!("{mb:.0}")));
        let ratio = |name: &str| match (answer.get(name), ours.and_then(|ours| ours.get(name))) {
            (Some(theirs), Some(ours)) if *engine != "trunkline" => significant(theirs / ours),
            _ => String::new(),
        };
        let goals = if *engine == "trunkline" { goals(rows, set) } else { String::new() };
        println!(
            "| {set} | {label} | {} | {} → {} MB | {} | {} | {} | {} | {} | {} | {goals} |",
            answer.get("build_s").map_or_else(dash, seconds),
            memory[0],
            memory[1],
            time("cold_mean"),
            time("cold_p50"),
            time("cold_p99"),
            time("hot_mean"),
            ratio("cold_mean"),
            ratio("hot_mean"),
        );
    }
}

fn find<'a>(rows: &'a [Row], set: &str, engine: &str) -> Option<&'a Answer> {
    rows.iter().find(|row| row.set == set && row.engine == engine).map(|row| &row.answer)
}

/// Formats the goals of a set, each with whether it is met, or with the measured value.
fn goals(rows: &[Row], set: &str) -> String {
    let figure = |engine: &str, name: &str| find(rows, set, engine).and_then(|answer| answer.get(name));
    let mut texts = Vec::new();
    for goal in GOALS.iter().filter(|goal| goal.set == set) {
        let Some(ours) = figure("trunkline", goal.figure) else { continue };
        let what = match goal.figure {
            "cold_mean" => "cold",
            "hot_mean" => "hot",
            "build_s" => "build",
            _ => "memory",
        };
        let (text, value) = match goal.bound {
            Bound::AtMost(most) => {
                let show: fn(f64) -> String = match what {
                    "build" => seconds,
                    "memory" => |mb| format!("{mb:.0} MB"),
                    _ => nanos,
                };
                (format!("{what} ≤ {}", show(most)), (ours <= most, show(ours)))
            }
            Bound::Times(most, engine) => {
                let Some(theirs) = figure(engine, goal.figure) else { continue };
                (format!("{what} ≤ {most} × {}", label(engine)), (ours <= most * theirs, significant(ours / theirs)))
            }
            Bound::Faster(least, engine) => {
                let Some(theirs) = figure(engine, goal.figure) else { continue };
                (
                    format!("{what} ≥ {least} × faster than {}", label(engine)),
                    (theirs >= least * ours, significant(theirs / ours)),
                )
            }
        };
        texts.push(verdict(&text, value.0, &value.1));
    }
    texts.join("; ")
}

fn label(engine: &str) -> &str {
    match engine {
        "filtered" => "regex-filtered",
        "loop" => "the loop",
        "re2filtered" => "FilteredRE2",
        "vectorscan" => "Vectorscan",
        other => other,
    }
}

fn verdict(goal: &str, met: bool, value: &str) -> String {
    format!("{goal}: {}{value}", if met { "" } else { "**missed**, " })
}

fn readers(edits: &[(String, Answer)]) {
    println!(
        "| patterns | insert | remove | cold p99 idle | beside a writer | edits/s meanwhile | look-ups/s, 1 thread | 2 threads | hot, cached | cached, an edit every 1,000 | hash map | goal |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (set, answer) in edits {
        if answer.is_failed() {
            println!("| {set} | failed | | | | | | | | | | |");
            continue;
        }
        let time = |name: &str| answer.get(name).map_or_else(dash, nanos);
        let micros = |name: &str| answer.get(name).map_or_else(dash, |us| nanos(us * 1_000.0));
        let edit = |mean: &str, p99: &str| format!("{} (p99 {})", micros(mean), micros(p99));
        let count = |name: &str| answer.get(name).map_or_else(dash, thousands);
        println!(
            "| {set} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            edit("insert_mean_us", "insert_p99_us"),
            edit("remove_mean_us", "remove_p99_us"),
            time("idle_p99"),
            time("edited_p99"),
            count("edits_per_second"),
            count("per_second_1"),
            count("per_second_2"),
            time("cached_mean"),
            time("churned_mean"),
            time("map_mean"),
            edit_goals(set, answer),
        );
    }
    let one_core = edits.iter().any(|(_, answer)| !answer.is_failed() && answer.get("idle_p99").is_none());
    if one_core {
        println!("\nThere is one core: no readers beside a writer, and no second thread.");
    }
}

fn edit_goals(set: &str, answer: &Answer) -> String {
    let mut texts = Vec::new();
    for (name, what, most) in [("insert_mean_us", "insert", INSERT_US), ("remove_mean_us", "remove", REMOVE_US)] {
        if let Some(us) = answer.get(name) {
            texts.push(verdict(&format!("{what} ≤ {most} µs"), us <= most, &nanos(us * 1_000.0)));
        }
    }
    match (answer.get("cached_mean"), answer.get("map_mean")) {
        (Some(cached), Some(map)) if !set.ends_with("00k") && !set.ends_with('M') => {
            let text = format!("cached ≤ {CACHED_FLOORS} × hash map");
            texts.push(verdict(&text, cached <= CACHED_FLOORS * map, &significant(cached / map)));
        }
        (Some(cached), _) => {
            texts.push(verdict(&format!("cached ≤ {CACHED_AT_MOST} ns"), cached <= CACHED_AT_MOST, &nanos(cached)));
        }
        _ => {}
    }
    texts.join("; ")
}

fn dash() -> String {
    "-".to_owned()
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{} ms", significant(value * 1_000.0)) } else { format!("{} s", significant(value)) }
}

fn nanos(value: f64) -> String {
    match value {
        ns if ns < 1_000.0 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{} µs", significant(ns / 1e3)),
        ns => format!("{} ms", significant(ns / 1e6)),
    }
}

fn thousands(value: f64) -> String {
    match value {
        few if few < 1_000.0 => format!("{few:.0}"),
        some if some < 1e6 => format!("{} k", significant(some / 1e3)),
        many => format!("{} M", significant(many / 1e6)),
    }
}

/// Formats a number with three significant digits, or with all digits before the point.
fn significant(value: f64) -> String {
    let digits = match value {
        large if large >= 100.0 => 0,
        some if some >= 10.0 => 1,
        few if few >= 1.0 => 2,
        part if part >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}
