//! Tarballs of the crates to publish: packed as for crates.io, and each built from its own files.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::metadata::{Metadata, Package};
use crate::{Failure, Outcome, Project, cannot_start, disk, publishing, render, run};

/// The largest tarball that crates.io takes, in bytes.
const MAX_TARBALL: u64 = 10 << 20;

/// Packs every crate of `order`, unpacks each tarball, and builds it there against the other tarballs instead of the
/// workspace. Uses a directory of its own below the build output, and removes it in any case.
pub(crate) fn build(project: &Project, metadata: &Metadata, order: &[&Package], allow_dirty: bool) -> Outcome {
    let target = metadata.target_directory.join("tarballs");
    disk::check(&target)?;
    let outcome = pack_and_build(project, metadata, order, allow_dirty, &target);
    let freed = disk::free(&target);
    outcome.and(freed)
}

fn pack_and_build(
    project: &Project,
    metadata: &Metadata,
    order: &[&Package],
    allow_dirty: bool,
    target: &Path,
) -> Outcome {
    // After this, what is built comes from the lock file and the tarballs, never from a crate published before.
    let mut fetch = project.cargo("fetch");
    fetch.args(["--quiet", "--locked"]);
    run(&mut fetch)?;
    let mut command = project.cargo("package");
    command.args(["--locked", "--offline", "--workspace"]);
    for package in metadata.workspace().filter(|package| !package.publishable) {
        command.args(["--exclude", &package.name]);
    }
    if allow_dirty {
        command.arg("--allow-dirty");
    }
    command.arg("--target-dir").arg(target);
    command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    run_package(command)?;
    let licences = publishing::licence_files(&project.root)?;
    let mut problems = Vec::new();
    for package in order {
        let name = format!("{}-{}", package.name, package.version);
        let packed = target.join("package");
        let size = size(&packed.join(format!("{name}.crate")))?;
        let mut found = publishing::licence_problems(&packed.join(&name), &licences);
        if !packed.join(&name).join("README.md").is_file() {
            found.push("has no README.md: add it beside the manifest".to_owned());
        }
        if size > MAX_TARBALL {
            found.push(format!("has {size} bytes, more than {MAX_TARBALL}: leave files out by `exclude` in [package]"));
        }
        problems.extend(found.into_iter().map(|problem| format!("the tarball of `{}` {problem}", package.name)));
        eprintln!("    {name}.crate: {} KiB", size.div_ceil(1024));
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("tarballs", &problems)) }
}

/// Size of a tarball.
fn size(path: &Path) -> Outcome<u64> {
    Ok(fs::metadata(path).map_err(|error| format!("{}: {error}; cargo did not pack it", path.display()))?.len())
}

/// Runs `cargo package` with its output going through; a failure names the crate at which it stopped.
fn run_package(mut command: Command) -> Outcome {
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let mut stage = Stage::default();
    if let Some(output) = child.stderr.take() {
        stage
            .follow(BufReader::new(output), &mut io::stderr().lock())
            .map_err(|error| format!("output of cargo package: {error}"))?;
    }
    let status = child.wait().map_err(|error| cannot_start(&command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}\nto repeat it: {}", stage.failure(), render(&command)).into())
    }
}

/// Progress of `cargo package`, as its output tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stage {
    /// The word with which cargo says what it does, and the crate.
    at: Option<(String, String)>,
}

impl Stage {
    /// Copies the output line by line and keeps the last stage.
    fn follow(&mut self, mut output: impl BufRead, copy: &mut impl Write) -> io::Result<()> {
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            copy.write_all(&line)?;
            let text = String::from_utf8_lossy(&line);
            let mut words = text.split_whitespace();
            if let (Some(stage @ ("Packaging" | "Verifying")), Some(name)) = (words.next(), words.next()) {
                self.at = Some((stage.to_owned(), name.to_owned()));
            }
            line.clear();
        }
        Ok(())
    }

    /// Text for a run that failed at this stage.
    fn failure(&self) -> String {
        match &self.at {
            Some((stage, name)) if stage == "Verifying" => format!(
                "`{name}` does not build from its own tarball, see above: every file that it needs must be in its directory, \
                 and every crate that it needs in its manifest; `cargo package --list -p {name}` lists what is packed"
            ),
            Some((_, name)) => format!("`{name}` cannot be packed, see above: correct its manifest"),
            None => "no crate can be packed, see above".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: &str) {
        let (mut stage, mut copy) = (Stage::default(), Vec::new());
        stage.follow(output.as_bytes(), &mut copy).unwrap();
        assert_eq!(copy, output.as_bytes());
        assert!(stage.failure().starts_with(expected), "{output}: {}", stage.failure());
    }

    #[test]
    fn a_failure_names_the_crate_and_what_to_correct() {
        check("error: the lock file needs to be updated\n", "no crate can be packed");
        check("   Packaging a v0.1.0 (/w/a)\nerror: b\n", "`a` cannot be packed");
        let output = "   Packaging a v0.1.0 (/w/a)\n    Packaged 9 files\n   Packaging b v0.1.0 (/w/b)\n   \
                      Verifying a v0.1.0 (/w/a)\n   Compiling c v1.0.0\nerror: no such file";
        check(output, "`a` does not build from its own tarball");
    }
}
