//! `fuzz`: builds and runs the fuzz targets of `fuzz/` with the compiler that is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml_edit::DocumentMut;

use crate::{Failure, Outcome, Project, cannot_start, render, run, stdout_of};

pub(crate) const HELP: &str = "\
Usage: cargo xtask fuzz [TARGET] [--seconds N]
       cargo xtask fuzz --list

Builds the fuzz targets of fuzz/ and runs TARGET, or one after another all of them, for N seconds each (60 if not given).
A run begins with fuzz/seeds/TARGET, fuzz/regressions/TARGET and what earlier runs found, and ends at the first input that
fails. Prints how many inputs were run; `cargo xtask fuzz --list` prints the names of the targets, and fuzz/README.md says
what each of them checks.

Any compiler of this project will do, nightly is not needed: the instrumentation is asked for by stable flags. A C++ compiler
is needed, since libFuzzer is written in C++. cargo-fuzz runs the same targets (`cargo +nightly fuzz run TARGET`).

Everything is built and kept in target/fuzz: corpus/TARGET, artifacts/TARGET (inputs that failed), logs/TARGET.log. To try an
input again: target/fuzz/HOST/release/TARGET INPUT. An input that failed belongs into fuzz/regressions/TARGET: the test suite
runs it from then on.
";

/// Time that a target runs unless told otherwise, in seconds.
const SECONDS: u64 = 60;

/// The longest input, in bytes: longer ones find no more in these parsers, and are slower.
const MAX_INPUT: usize = 4096;

/// The longest time for one input, in seconds; a slower one fails. Every parser takes a few milliseconds at most.
const MAX_SECONDS_PER_INPUT: u64 = 10;

/// The most memory of a run, in MiB; an input that needs more fails.
const MAX_MEBIBYTES: u64 = 1024;

/// The instrumentation that libFuzzer needs: counters of edges, their places, and compared values.
const INSTRUMENTATION: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// The line of libFuzzer's statistics with the number of inputs that were run.
const EXECUTED: &str = "stat::number_of_executed_units:";

/// The request that the arguments state.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    list: bool,
    target: Option<String>,
    seconds: u64,
}

/// Builds and runs one target, or all of them.
pub(crate) fn fuzz(project: &Project, arguments: &[String]) -> Outcome {
    let request = request(arguments)?;
    let manifest = fs::read_to_string(project.root.join("fuzz/Cargo.toml"))
        .map_err(|error| format!("fuzz/Cargo.toml: {error}"))?;
    let known = targets(&manifest)?;
    if request.list {
        println!("{}", known.join("\n"));
        return Ok(());
    }
    let chosen = match request.target {
        Some(target) if !known.contains(&target) => {
            return Err(format!("there is no fuzz target `{target}`; `cargo xtask fuzz --list` lists them").into());
        }
        Some(target) => vec![target],
        None => known,
    };
    let host = host(project)?;
    run(&mut build(project, &host, &chosen))?;
    let place = project.root.join("target/fuzz");
    let mut all = 0;
    for target in &chosen {
        let executed = run_target(project, &place, &host, target, request.seconds)?;
        println!("{target}: {executed} inputs");
        all += executed;
    }
    println!("{} targets, {all} inputs, none failed", chosen.len());
    Ok(())
}

fn request(arguments: &[String]) -> Outcome<Request> {
    let mut request = Request { list: false, target: None, seconds: SECONDS };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => request.list = true,
            "--seconds" => {
                let number = words.next().and_then(|word| word.parse().ok()).filter(|seconds| *seconds > 0);
                request.seconds = number.ok_or_else(|| "`--seconds` needs a number of at least 1".to_owned())?;
            }
            word if !word.starts_with('-') && request.target.is_none() => request.target = Some(word.to_owned()),
            word => return Err(format!("`{word}` is not understood\n\n{HELP}").into()),
        }
    }
    Ok(request)
}

/// The names of the targets: every `[[bin]]` of the manifest.
fn targets(manifest: &str) -> Outcome<Vec<String>> {
    let document: DocumentMut = manifest.parse().map_err(|error| format!("fuzz/Cargo.toml: {error}"))?;
    let bins = document.get("bin").and_then(|bins| bins.as_array_of_tables());
    let bins = bins.ok_or_else(|| "fuzz/Cargo.toml has no [[bin]]".to_owned())?;
    Ok(bins.iter().filter_map(|bin| bin.get("name")?.as_str().map(str::to_owned)).collect())
}

/// The machine that rustc compiles for. It is named to cargo, which then instruments the targets and not the programs that
/// the build itself runs.
fn host(project: &Project) -> Outcome<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = stdout_of(Command::new(rustc).current_dir(&project.root).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::from("`rustc -vV` names no host".to_owned()))
}

fn build(project: &Project, host: &str, targets: &[String]) -> Command {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    for flag in INSTRUMENTATION {
        flags = format!("{flags} {flag}");
    }
    let mut command = project.cargo_build("build");
    command
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz", "--release", "--target", host])
        .env("RUSTFLAGS", flags.trim());
    for target in targets {
        command.args(["--bin", target]);
    }
    command
}

/// Runs a target and returns how many inputs it ran. What libFuzzer prints goes to a file.
fn run_target(project: &Project, place: &Path, host: &str, target: &str, seconds: u64) -> Outcome<u64> {
    let (corpus, artifacts) = (place.join("corpus").join(target), place.join("artifacts").join(target));
    let log = place.join("logs").join(format!("{target}.log"));
    for directory in [corpus.as_path(), &artifacts, &place.join("logs")] {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut command = Command::new(place.join(host).join("release").join(target));
    // New inputs go to the first directory.
    command.arg(&corpus).args(inputs(&project.root, target));
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT}"),
        format!("-timeout={MAX_SECONDS_PER_INPUT}"),
        format!("-rss_limit_mb={MAX_MEBIBYTES}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".into(),
        "-verbosity=0".into(),
    ]);
    let status = command
        .current_dir(&project.root)
        .stdout(Stdio::null())
        .stderr(file)
        .status()
        .map_err(|error| cannot_start(&command, &error))?;
    let said = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        return Err(format!(
            "`{}` failed ({status}); what it said is in {}, the input in {}. Mend the fault, and put the input into \
             fuzz/regressions/{target}",
            render(&command),
            log.display(),
            artifacts.display()
        )
        .into());
    }
    executed(&said).ok_or_else(|| format!("{} has no statistics", log.display()).into())
}

/// The directories of committed inputs that are there.
fn inputs(root: &Path, target: &str) -> Vec<PathBuf> {
    let kinds = ["seeds", "regressions"];
    kinds.map(|kind| root.join("fuzz").join(kind).join(target)).into_iter().filter(|path| path.is_dir()).collect()
}

/// The number of inputs, from what libFuzzer said.
fn executed(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix(EXECUTED)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_target_and_seconds_in_any_order() {
        let asked = |words: &str| request(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let one = Request { list: false, target: Some("frames".into()), seconds: 5 };
        assert_eq!(asked("frames --seconds 5").unwrap(), one);
        assert_eq!(asked("--seconds 5 frames").unwrap(), one);
        assert_eq!(asked("").unwrap(), Request { list: false, target: None, seconds: SECONDS });
        assert!(asked("--list").unwrap().list);
        for wrong in ["--seconds", "--seconds 0", "--seconds x", "a b", "--sceonds 5"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn targets_are_the_binaries_of_the_manifest() {
        let manifest = "[package]\nname = \"x\"\n\n[[bin]]\nname = \"frames\"\n\n[[bin]]\nname = \"terms\"\n";
        assert_eq!(targets(manifest).unwrap(), ["frames", "terms"]);
        assert!(targets("[package]\nname = \"x\"\n").unwrap_err().to_string().contains("[[bin]]"));
    }

    #[test]
    fn the_number_of_inputs_is_read_from_the_statistics() {
        assert_eq!(executed("Done\nstat::number_of_executed_units: 1234\nstat::x: 5\n"), Some(1234));
        assert_eq!(executed("nothing"), None);
    }
}
