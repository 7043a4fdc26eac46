//! `packages`: the programs that tests run beside the project's own.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Outcome, Project, run};

pub(crate) const HELP: &str = "\
Usage: cargo xtask packages

Looks for the programs that builds and tests run: PostgreSQL with psql, curl, etcd, ip, protoc and unshare. When one is missing, the Debian packages
that have them are installed if this is root and there is apt-get; otherwise the command to do so is printed, and this fails.
";

/// A program, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("psql", "postgresql"),
    ("curl", "curl"),
    ("etcd", "etcd-server"),
    ("protoc", "protobuf-compiler"),
    // Not a program: protoc reads it.
    ("descriptor.proto", "libprotobuf-dev"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
];

/// Directories of programs: the path, what belongs to it for root, and where Debian has a server's own.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    places.extend(["/usr/sbin", "/sbin", "/usr/include/google/protobuf"].map(PathBuf::from));
    let servers = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(servers.map(|version| version.path().join("bin")));
    places
}

/// The packages to install so that every program is there.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

fn missing_here() -> Vec<&'static str> {
    let places = places();
    missing(|program| places.iter().any(|place| place.join(program).is_file()))
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn apt_get(arguments: &[&str]) -> Outcome {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    run(&mut command)
}

/// Sees to it that the tests find what they run.
pub(crate) fn check(_: &Project) -> Outcome {
    let packages = missing_here();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let by_hand = format!(
        "tests need Debian's {list}; to install them: sudo apt-get update && sudo apt-get install -y \
         --no-install-recommends {list}"
    );
    if !is_root() {
        return Err(by_hand.into());
    }
    let installed = apt_get(&["update"])
        .and_then(|()| apt_get(&[&["install", "--no-install-recommends"], packages.as_slice()].concat()));
    installed.map_err(|failure| format!("{by_hand}\n{failure}"))?;
    if missing_here().is_empty() { Ok(()) } else { Err(by_hand.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_that_is_missing_is_named_once() {
        assert!(missing(|_| true).is_empty());
        assert_eq!(
            missing(|program| program != "psql" && program != "initdb" && program != "ip"),
            ["postgresql", "iproute2"]
        );
    }
}
