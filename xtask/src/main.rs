//! Project automation: `cargo xtask <command>`.
//!
//! Each command lives in its own module; this one holds the table of commands, their help, and the few things all of
//! them share: where the workspace is, how a cargo command is started and how a failure is told. Nothing here needs a
//! cargo tool that does not come with Rust.

mod changelog;
mod circles;
mod corpus;
mod disk;
mod dist;
mod errors;
mod fuzz;
mod layers;
mod licences;
mod markdown;
mod metadata;
mod packages;
mod publishing;
mod release;
mod tarballs;
mod testing;
mod tidy;
mod words;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Reason why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be printed by `main`; says what to do next where that is known.
    Message(String),
    /// Already printed by the command, which needed to print something after it.
    Reported,
}

impl Failure {
    /// One failure that lists every problem found, under a line that says what was checked.
    pub(crate) fn list(what: &str, problems: &[String]) -> Self {
        let mut text = format!("{what}: {} problem(s)", problems.len());
        for problem in problems {
            text.push_str("\n  - ");
            text.push_str(problem);
        }
        Self::Message(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(text) => f.write_str(text),
            Self::Reported => f.write_str("failed, see above"),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Message(text)
    }
}

/// Result of every command.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Directory of the workspace, and the way cargo is called in it.
pub(crate) struct Project {
    /// The directory of the workspace manifest.
    pub(crate) root: PathBuf,
    /// The cargo that runs us, so that a toolchain chosen with `+name` stays chosen.
    cargo: OsString,
    /// `CI` is set to something other than `false`: the lock file may not change, and nothing is compiled
    /// incrementally.
    ci: bool,
}

impl Project {
    /// Asks cargo where the workspace is.
    fn find() -> Outcome<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut locate = Command::new(&cargo);
        locate.args(["locate-project", "--workspace", "--message-format", "plain"]);
        let manifest = stdout_of(&mut locate)?;
        let root = Path::new(manifest.trim())
            .parent()
            .ok_or_else(|| format!("cargo named a manifest without a directory: {manifest}"))?
            .to_path_buf();
        let ci = env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        Ok(Self { root, cargo, ci })
    }

    /// A cargo command in the workspace, with nothing added.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).arg(subcommand);
        command
    }

    /// A cargo command that resolves or compiles; under `CI` it may not touch the lock file.
    pub(crate) fn cargo_build(&self, subcommand: &str) -> Command {
        let mut command = self.cargo(subcommand);
        if self.ci {
            command.arg("--locked").env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// A git command in the workspace.
    pub(crate) fn git(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.root).args(args);
        command
    }
}

/// Runs a command with our own streams; an exit status other than success is a failure that names it.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", render(command)).into()) }
}

/// Runs a command and returns what it wrote to its standard output; its standard error stays ours.
pub(crate) fn stdout_of(command: &mut Command) -> Outcome<String> {
    let output =
        command.stderr(std::process::Stdio::inherit()).output().map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        return Err(format!("`{}` failed ({})", render(command), output.status).into());
    }
    String::from_utf8(output.stdout)
        .map_err(|_| format!("`{}` wrote something that is not UTF-8", render(command)).into())
}

/// The failure of a command that could not be started at all.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    format!("cannot start `{}`: {error}", render(command)).into()
}

/// The command as one would type it in the root of the workspace.
pub(crate) fn render(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.to_string_lossy(), quoted(value)));
        }
    }
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    words.push(program.to_string_lossy().into_owned());
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

/// A word with quotes around it when a shell would split it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// One subcommand.
struct Task {
    name: &'static str,
    /// One line for the overview.
    summary: &'static str,
    /// The whole text of `--help`.
    help: &'static str,
    /// Arguments after the name are handed on as they are; otherwise there may be none.
    takes_arguments: bool,
    run: fn(&Project, &[String]) -> Outcome,
}

const TASKS: &[Task] = &[
    Task {
        name: "test",
        summary: "everything a change must pass, in one command",
        help: testing::HELP,
        takes_arguments: true,
        run: testing::test,
    },
    Task {
        name: "ci",
        summary: "the same as `test`, under the name CI scripts expect",
        help: testing::HELP,
        takes_arguments: true,
        run: testing::test,
    },
    Task {
        name: "layers",
        summary: "check the direction of dependencies and the files that must stay pure",
        help: layers::HELP,
        takes_arguments: false,
        run: |project, _| layers::check(project),
    },
    Task {
        name: "circles",
        summary: "check that no three files of a crate name each other in a circle",
        help: circles::HELP,
        takes_arguments: false,
        run: |project, _| circles::check(project),
    },
    Task {
        name: "tidy",
        summary: "check manifests, the README's crate table, file sizes and leftovers",
        help: tidy::HELP,
        takes_arguments: false,
        run: |project, _| tidy::check(project),
    },
    Task {
        name: "publishing",
        summary: "check what crates.io and docs.rs show of each crate",
        help: publishing::HELP,
        takes_arguments: false,
        run: |project, _| publishing::check(project),
    },
    Task {
        name: "licences",
        summary: "check the licence of every dependency",
        help: licences::LICENCES_HELP,
        takes_arguments: false,
        run: |project, _| licences::check_licences(project),
    },
    Task {
        name: "duplicates",
        summary: "check that no crate is compiled in two versions",
        help: licences::DUPLICATES_HELP,
        takes_arguments: false,
        run: |project, _| licences::check_duplicates(project),
    },
    Task {
        name: "packages",
        summary: "find or install the programs that tests run",
        help: packages::HELP,
        takes_arguments: false,
        run: |project, _| packages::check(project),
    },
    Task {
        name: "own-stack",
        summary: "build and run the stack of examples/own-stack, outside the workspace",
        help: testing::OWN_STACK_HELP,
        takes_arguments: false,
        run: |project, _| testing::own_stack(project),
    },
    Task {
        name: "standalone",
        summary: "compile each crate alone, with no, default and all features",
        help: testing::STANDALONE_HELP,
        takes_arguments: false,
        run: |project, _| testing::standalone(project),
    },
    Task {
        name: "model",
        summary: "run the model checker over the lock-free part of the matcher",
        help: testing::MODEL_HELP,
        takes_arguments: false,
        run: |project, _| testing::model(project),
    },
    Task {
        name: "bench",
        summary: "run the benchmarks with the bench profile",
        help: testing::BENCH_HELP,
        takes_arguments: true,
        run: testing::bench,
    },
    Task {
        name: "soak",
        summary: "run a cluster of processes, or of simulated members, under faults",
        help: testing::SOAK_HELP,
        takes_arguments: true,
        run: testing::soak,
    },
    Task {
        name: "corpus",
        summary: "record or check what Go says about the matcher's test patterns",
        help: corpus::HELP,
        takes_arguments: true,
        run: corpus::corpus,
    },
    Task {
        name: "fuzz",
        summary: "build and run the fuzz targets",
        help: fuzz::HELP,
        takes_arguments: true,
        run: fuzz::fuzz,
    },
    Task {
        name: "dist",
        summary: "build the static binary and a reproducible archive of it",
        help: dist::HELP,
        takes_arguments: false,
        run: |project, _| dist::dist(project),
    },
    Task {
        name: "release",
        summary: "build each crate from its tarball, and with --execute publish all",
        help: release::HELP,
        takes_arguments: true,
        run: release::release,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Finds the command and runs it, or prints help.
fn dispatch(arguments: &[String]) -> Outcome {
    let is_help = |word: &String| word == "--help" || word == "-h";
    let Some((name, rest)) = arguments.split_first() else {
        print!("{}", overview());
        return Err(Failure::Reported);
    };
    if is_help(name) || name == "help" {
        print!("{}", overview());
        return Ok(());
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        return Err(format!("there is no command `{name}`; `cargo xtask --help` lists them").into());
    };
    if rest.first().is_some_and(is_help) {
        println!("{}", task.help.trim_end());
        return Ok(());
    }
    if let (false, Some(extra)) = (task.takes_arguments, rest.first()) {
        return Err(format!("`cargo xtask {name}` takes no arguments, but got `{extra}`").into());
    }
    (task.run)(&Project::find()?, rest)
}

/// The text of `cargo xtask --help`.
fn overview() -> String {
    let mut text = String::from("Usage: cargo xtask <command> [arguments]\n\n");
    for task in TASKS {
        text.push_str(&format!("  {:<12}{}\n", task.name, task.summary));
    }
    text.push_str("\n`cargo xtask <command> --help` says more about one of them.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_command_has_help_and_is_in_the_overview() {
        for task in TASKS {
            assert!(task.help.contains("Usage: cargo xtask"), "{}", task.name);
            assert!(overview().contains(task.summary), "{}", task.name);
            assert!(dispatch(&words(&format!("{} --help", task.name))).is_ok(), "{}", task.name);
        }
    }

    #[test]
    fn an_unknown_command_and_a_stray_argument_are_refused() {
        assert!(dispatch(&words("nonsense")).unwrap_err().to_string().contains("nonsense"));
        assert!(dispatch(&words("layers now")).unwrap_err().to_string().contains("takes no arguments"));
    }

    #[test]
    fn a_rendered_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["doc", "--no-deps", "it's"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(render(&command), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
    }
}
