//! `test`: the one command a change must pass; `standalone` and `bench`.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::metadata::{Metadata, Package};
use crate::{
    Failure, Outcome, Project, cannot_start, circles, disk, layers, licences, packages, publishing, render, run, tidy,
};

pub(crate) const HELP: &str = "\
Usage: cargo xtask test [ARGUMENTS]
       cargo xtask ci [ARGUMENTS]

Without arguments: everything a change must pass, cheapest first, stopping at the first step that fails:
  fmt, layers, circles, tidy, publishing, licences, duplicates, packages, clippy, docs, standalone, own-stack, model, examples, tests (doc
  tests included)
The last line is `N passed, N failed`, summed over all test binaries. Before each step 4 GiB must be free on the disk of the
build output; what only one step uses is removed after it.

With arguments: only `cargo test` over the workspace, with the arguments handed on. `cargo xtask test claims` runs the
tests whose name contains `claims`; `cargo xtask test -p trunkline-dial -- --nocapture` works as with cargo.

`ci` is another name for `test`. With CI set in the environment, Cargo.lock may not change (--locked) and nothing is
compiled incrementally.
";

pub(crate) const STANDALONE_HELP: &str = "\
Usage: cargo xtask standalone

Runs `cargo check` on each crate under crates/ alone, with no features, with the default ones, and with all of them:
in a build of the whole workspace one crate's features hide what another one forgot. Sets of features that are the same
for a crate are checked once.
";

pub(crate) const OWN_STACK_HELP: &str = "\
Usage: cargo xtask own-stack

Builds and runs examples/own-stack: a network stack and a resolver in a package that is no member of the workspace,
so that it has the public API only. The build output is the workspace's. With CI set in the environment, the package's own
Cargo.lock may not change; without, a build brings it up to date.
";

pub(crate) const MODEL_HELP: &str = "\
Usage: cargo xtask model

Tries every interleaving of a writer and a reader of the matcher's index that the memory model allows, with loom.
Builds the crate once more, in the directory `model` of the build output.
";

pub(crate) const BENCH_HELP: &str = "\
Usage: cargo xtask bench [NAME [ARGUMENTS]]

Runs a benchmark with the bench profile and hands the arguments on to it; without a name, all of them:
  link      messages, calls, connects and memory of one link, beside bare TLS and Erlang (when erl is there)
  failover  a working connection behind a primary that refuses, is silent, or is a black hole
  forward   bytes through a forwarder, directly and by a gateway, beside bare TCP, socat, HAProxy and ssh (when they are there)
  registrar look-ups, changes and takeovers of the registrars, beside bare questions; etcd has to be there
  flood     honest connects while strangers hold every place before authentication
  send      sending by name beside sending over a connection, with one route and with 10,000
  cluster   clusters that form, and notice lost nodes, beside nats-server, which has to be there
  matcher   look-ups and edits of a table of patterns, beside other matchers; `matcher 1k c100k` for some data sets
";

pub(crate) const SOAK_HELP: &str = "\
Usage: cargo xtask soak [SECONDS [SEED]]
       cargo xtask soak simulated

Runs a cluster of 16 processes in network namespaces under faults, 300 seconds without an argument: kills, restarts, stops
and partitions, at least one a second, while calls go between all pairs. It fails when the cluster is not whole 3 s after
kills and restarts, or 35 s after stops and partitions, when a call does not end, or when descriptors or memory are left over.
The suite runs it for 30 seconds. A seed repeats the choice of faults.

`simulated` runs the state machines of the members over a simulated network with lost messages: 10,000 clusters of 8, 100 of 50,
3 of 200 and one of 1,000. The table has the time until the cluster is whole, and what the exchange costs.
";

/// The benchmarks: name and package.
const BENCHES: &[(&str, &str)] = &[
    ("link", "trunkline-link"),
    ("flood", "trunkline-tests"),
    ("registrar", "trunkline-tests"),
    ("send", "trunkline-tests"),
    ("failover", "trunkline-tests"),
    ("forward", "trunkline-tests"),
    ("cluster", "trunkline-cli"),
    ("matcher", "trunkline-matcher"),
];

/// One step of `test`.
struct Step {
    name: &'static str,
    /// The command that repeats this step alone.
    reproduce: String,
    action: Action,
}

/// Way in which a step runs.
enum Action {
    Check(fn(&Project) -> Outcome),
    Command(Command),
}

impl Step {
    fn check(name: &'static str, check: fn(&Project) -> Outcome) -> Self {
        Self { name, reproduce: format!("cargo xtask {name}"), action: Action::Check(check) }
    }

    fn command(name: &'static str, command: Command) -> Self {
        Self { name, reproduce: render(&command), action: Action::Command(command) }
    }
}

/// Runs every step, or with arguments only the tests they select.
pub(crate) fn test(project: &Project, arguments: &[String]) -> Outcome {
    if !arguments.is_empty() {
        return run_tests(test_command(project, arguments));
    }
    let (steps, target) = (steps(project), Metadata::members(project)?.target_directory);
    let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
    eprintln!("Runs {}, tests.", names.join(", "));
    eprintln!(
        "On 2 cores this takes about 6 minutes when the dependencies are built, and 10 to 17 minutes when nothing is."
    );
    for step in steps {
        disk::check(&target)?;
        announce(step.name);
        let outcome = match step.action {
            Action::Check(check) => check(project),
            Action::Command(mut command) => run(&mut command),
        };
        outcome.map_err(|failure| at_step(step.name, &step.reproduce, &failure))?;
    }
    disk::check(&target)?;
    announce("tests");
    run_tests(test_command(project, &[]))
}

/// Returns every step before the tests, cheapest first.
fn steps(project: &Project) -> Vec<Step> {
    let mut format = project.cargo("fmt");
    format.args(["--all", "--check"]);
    let mut clippy = project.cargo_build("clippy");
    clippy.args(["--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
    let mut docs = project.cargo_build("doc");
    docs.args(["--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings");
    let mut examples = project.cargo_build("build");
    examples.args(["--workspace", "--examples", "--all-features"]);
    vec![
        Step::command("fmt", format),
        Step::check("layers", layers::check),
        Step::check("circles", circles::check),
        Step::check("tidy", tidy::check),
        Step::check("publishing", publishing::check),
        Step::check("licences", licences::check_licences),
        Step::check("duplicates", licences::check_duplicates),
        Step::check("packages", packages::check),
        Step::command("clippy", clippy),
        Step::command("docs", docs),
        Step::check("standalone", standalone),
        Step::check("own-stack", own_stack),
        Step::check("model", model_once),
        Step::command("examples", examples),
    ]
}

fn announce(step: &str) {
    eprintln!("==> {step}");
}

fn at_step(name: &str, reproduce: &str, failure: &Failure) -> Failure {
    format!("the step `{name}` failed\n{failure}\nto repeat it: {reproduce}").into()
}

/// `cargo test` over the workspace, or over the packages the arguments name.
fn test_command(project: &Project, arguments: &[String]) -> Command {
    let mut command = project.cargo_build("test");
    let own: Vec<&str> = arguments.iter().map(String::as_str).take_while(|word| *word != "--").collect();
    let chooses = |word: &&str| word.starts_with("-p") || word.starts_with("--package") || *word == "--workspace";
    if !own.iter().any(chooses) {
        command.arg("--workspace");
    }
    for flag in ["--all-features", "--no-fail-fast"] {
        if !own.contains(&flag) {
            command.arg(flag);
        }
    }
    command.args(arguments);
    command
}

/// Runs the tests with their output going through, and ends with the sum of their summaries.
fn run_tests(mut command: Command) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        tally
            .follow(BufReader::new(output), &mut io::stdout().lock())
            .map_err(|error| format!("test output: {error}"))?;
    }
    let status = child.wait().map_err(|error| cannot_start(&command, &error))?;
    let good = status.success() && tally.failed == 0;
    if !good {
        let what = Failure::Message(format!("cargo test: {status}"));
        eprintln!("xtask: {}", at_step("tests", &render(&command), &what));
    }
    // Nothing to sum up when nothing ran, as when the tests do not compile.
    if good || tally.summaries > 0 {
        println!("{tally}");
    }
    if good { Ok(()) } else { Err(Failure::Reported) }
}

/// The sum over all test binaries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    summaries: u64,
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Copies the runner's output line by line and counts its summaries.
    fn follow(&mut self, mut output: impl BufRead, copy: &mut impl Write) -> io::Result<()> {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            copy.write_all(&line)?;
            copy.flush()?;
            if let Some((passed, failed)) = summary(&String::from_utf8_lossy(&line)) {
                self.summaries += 1;
                self.passed += passed;
                self.failed += failed;
            }
            line.clear();
        }
        Ok(())
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Passed and failed of a line `test result: ok. 12 passed; 0 failed; ..`, whatever colour the verdict has.
fn summary(line: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = line.trim_start().strip_prefix("test result:")?.split_whitespace().collect();
    let before = |word: &str| {
        let at = words.iter().position(|candidate| candidate.trim_end_matches(';') == word)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    Some((before("passed")?, before("failed")?))
}

/// Runs the model checker over the lock-free part of the matcher, in a target directory of its own: it is another
/// build of everything the crate needs.
pub(crate) fn model(project: &Project) -> Outcome {
    run_model(project).map(drop)
}

/// Runs the model checker as [`model`] does, and removes its build.
fn model_once(project: &Project) -> Outcome {
    disk::free(&run_model(project)?)
}

/// Runs the model checker, and returns the directory of its build.
fn run_model(project: &Project) -> Outcome<PathBuf> {
    let directory = Metadata::members(project)?.target_directory.join("model");
    let mut command = project.cargo_build("test");
    command.args(["--quiet", "-p", "trunkline-matcher", "--lib", "--target-dir"]).arg(&directory).arg("model::");
    command.env("RUSTFLAGS", "--cfg matcher_model");
    run(&mut command)?;
    Ok(directory)
}

/// Checks each crate alone under each set of features that differs.
pub(crate) fn standalone(project: &Project) -> Outcome {
    let metadata = Metadata::members(project)?;
    let crates = project.root.join("crates");
    for package in metadata.workspace().filter(|package| package.manifest.starts_with(&crates)) {
        for flags in feature_sets(package) {
            let mut command = project.cargo_build("check");
            command.args(["--quiet", "-p", &package.name]).args(flags);
            eprintln!("    {}", render(&command));
            run(&mut command)?;
        }
    }
    Ok(())
}

/// Builds and runs the package outside the workspace.
pub(crate) fn own_stack(project: &Project) -> Outcome {
    let target = Metadata::members(project)?.target_directory;
    let manifest = project.root.join("examples").join("own-stack").join("Cargo.toml");
    let mut format = project.cargo("fmt");
    format.arg("--manifest-path").arg(&manifest).arg("--check");
    let mut example = project.cargo_build("run");
    example.arg("--quiet").arg("--manifest-path").arg(&manifest).env("CARGO_TARGET_DIR", &target);
    [format, example].iter_mut().try_for_each(run)
}

/// Flags for the sets of features of a package that are not the same: none, default, all.
fn feature_sets(package: &Package) -> Vec<&'static [&'static str]> {
    let all: BTreeSet<&str> = package.features.keys().map(String::as_str).filter(|name| *name != "default").collect();
    let mut default = BTreeSet::new();
    let mut next = vec!["default"];
    while let Some(name) = next.pop() {
        for part in package.features.get(name).into_iter().flatten() {
            // A part that is no feature (`dep:x`, `x/y`) turns something on all the same.
            if default.insert(part.as_str()) {
                next.push(part);
            }
        }
    }
    let mut sets: Vec<&'static [&'static str]> = vec![&[]];
    if !default.is_empty() {
        sets.insert(0, &["--no-default-features"]);
    }
    if !all.iter().all(|name| default.contains(name)) {
        sets.push(&["--all-features"]);
    }
    sets
}

/// Runs the benchmark named, or all.
pub(crate) fn bench(project: &Project, arguments: &[String]) -> Outcome {
    let (chosen, arguments) = match arguments.split_first() {
        None => (BENCHES.to_vec(), arguments),
        Some((name, rest)) => match BENCHES.iter().find(|(known, _)| known == name) {
            Some(bench) => (vec![*bench], rest),
            None => return Err(Failure::from(format!("there is no benchmark {name:?}\n{BENCH_HELP}"))),
        },
    };
    for (name, package) in chosen {
        let mut command = project.cargo_build("bench");
        command.args(["-p", package, "--bench", name, "--"]).args(arguments);
        run(&mut command)?;
    }
    Ok(())
}

/// Runs a cluster under faults, of processes or of simulated members.
pub(crate) fn soak(project: &Project, arguments: &[String]) -> Outcome {
    let mut command = project.cargo_build("test");
    command.arg("--release");
    if arguments == ["simulated"] {
        command.args(["-p", "trunkline-mesh", "--lib", "--", "--exact", "tests::faults::clusters_of_all_sizes"]);
        return run(command.args(["--ignored", "--nocapture"]));
    }
    let (seconds, seed) = match arguments {
        [] => ("300", None),
        [seconds] => (seconds.as_str(), None),
        [seconds, seed] => (seconds.as_str(), Some(seed)),
        _ => return Err(Failure::from(SOAK_HELP.to_owned())),
    };
    if [Some(seconds), seed.map(String::as_str)].into_iter().flatten().any(|text| text.parse::<u64>().is_err()) {
        return Err(Failure::from(SOAK_HELP.to_owned()));
    }
    command.args(["-p", "trunkline-cli", "--test", "cli", "--", "--exact", "--nocapture"]);
    command.arg("soak::sixteen_members_are_whole_again_after_any_faults");
    command.env("TRUNKLINE_SOAK_SECONDS", seconds);
    if let Some(seed) = seed {
        command.env("TRUNKLINE_SOAK_SEED", seed);
    }
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fake;

    #[test]
    fn summaries_are_read_also_in_colour() {
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n",
                Some((12, 0)),
            ),
            ("test result: FAILED. 7 passed; 2 failed; 0 ignored", Some((7, 2))),
            ("test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 3 passed; 0 failed; 0 ignored", Some((3, 0))),
            ("test one ... ok", None),
            ("running 3 tests", None),
            ("the test result: ok. 3 passed; 0 failed", None),
            ("test result: passed", None),
            ("test result: many passed; 0 failed", None),
        ] {
            assert_eq!(summary(line), expected, "{line}");
        }
    }

    #[test]
    fn output_goes_through_unchanged_while_it_is_summed() {
        let output = b"running 1 test\ntest a ... ok\n\xff\ntest result: ok. 1 passed; 0 failed;\n\
                       test result: FAILED. 2 passed; 3 failed; 0 ignored";
        let mut copy = Vec::new();
        let mut tally = Tally::default();
        tally.follow(&output[..], &mut copy).unwrap();
        assert_eq!(copy, output);
        assert_eq!(tally, Tally { summaries: 2, passed: 3, failed: 3 });
        assert_eq!(tally.to_string(), "3 passed, 3 failed");
    }

    fn check_sets(features: &[(&str, &[&str])], expected: &[&[&str]]) {
        let mut metadata = fake::workspace(&[("a", &[])]);
        for (name, parts) in features {
            let parts = parts.iter().map(|part| (*part).to_owned()).collect();
            metadata.packages[0].features.insert((*name).to_owned(), parts);
        }
        assert_eq!(feature_sets(&metadata.packages[0]), expected, "{features:?}");
    }

    #[test]
    fn only_sets_of_features_that_differ_are_checked() {
        const NONE: &[&str] = &["--no-default-features"];
        const ALL: &[&str] = &["--all-features"];
        check_sets(&[], &[&[]]);
        check_sets(&[("default", &[]), ("serde", &["dep:serde"])], &[&[], ALL]);
        check_sets(&[("default", &["a"]), ("a", &["b"]), ("b", &["x/y"])], &[NONE, &[]]);
        check_sets(&[("default", &["a"]), ("a", &[]), ("b", &[])], &[NONE, &[], ALL]);
    }

    #[test]
    fn a_filter_stays_in_the_workspace_unless_it_names_a_package() {
        let project = Project { root: "/w".into(), cargo: "cargo".into(), ci: false };
        let command = |line: &str| {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            render(&test_command(&project, &arguments))
        };
        assert_eq!(command("claims"), "cargo test --workspace --all-features --no-fail-fast claims");
        assert_eq!(command("-p a -- x"), "cargo test --all-features --no-fail-fast -p a -- x");
        assert_eq!(command("-- -p"), "cargo test --workspace --all-features --no-fail-fast -- -p");
    }
}
