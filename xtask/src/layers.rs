//! `layers`: the direction of dependencies, and the files that must stay pure.
//!
//! The tables here *are* the architecture. A new crate gets a row in [`LEVELS`]; a change to a row is a change of the
//! design and belongs into its own review.

use std::fs;
use std::path::{Path, PathBuf};

use crate::metadata::{Kind, Metadata};
use crate::{Failure, Outcome, Project};

pub(crate) const HELP: &str = "\
Usage: cargo xtask layers

Checks the tables in xtask/src/layers.rs:
  - a crate names only crates of strictly lower levels; for tests it may also name crates of its own level
  - nothing depends on `trunkline-tests` or `xtask`, which may name anything
  - some crates must not name some third-party crates (the bans, each with its reason)
  - some source files must not mention tokio (the pure files, each with its reason)
Only dependencies stated in a manifest count, whatever features turn them on.
";

/// Every workspace crate with its level.
const LEVELS: &[(&str, u8)] = &[
    ("trunkline-matcher", 0),
    ("trunkline-route", 0),
    ("trunkline-term", 0),
    ("trunkline-registrar", 1),
    ("trunkline-tls", 1),
    ("trunkline-wire", 1),
    ("trunkline-config", 2),
    ("trunkline-registrar-dns", 2),
    ("trunkline-registrar-etcd", 2),
    ("trunkline-stack", 2),
    ("trunkline-link", 3),
    ("trunkline-dial", 4),
    ("trunkline-registrar-embedded", 4),
    ("trunkline-forward", 5),
    ("trunkline-mesh", 5),
    ("trunkline-process", 5),
    ("trunkline-proxy", 5),
    ("trunkline", 6),
    ("trunkline-admin", 7),
    ("trunkline-cli", 8),
];

/// Crates outside the levels: they may name any crate, and no crate may name them.
const EXEMPT: &[&str] = &["trunkline-tests", "xtask"];

/// Dependencies a crate must not have, not even for its tests.
const BANS: &[Ban] = &[
    Ban {
        of: "trunkline-matcher",
        on: &["tokio"],
        reason: "matching is pure; it must be usable without an async runtime",
    },
    Ban {
        of: "trunkline-wire",
        on: &["tokio", "rustls"],
        reason: "the protocol is a set of state machines without I/O; a driver moves the bytes",
    },
    Ban {
        of: "trunkline-stack",
        on: &["rustls", "trunkline-wire", "trunkline-tls"],
        reason: "the seam names no protocol; a stack implements it",
    },
    Ban {
        of: "trunkline-route",
        on: &["tokio"],
        reason: "the vocabulary holds values only: no runtime, no clock, no sockets",
    },
    Ban {
        of: "trunkline-forward",
        on: &["rustls", "trunkline-link", "trunkline-tls", "trunkline-wire"],
        reason: "services and forwards use any link that a node gives them; they name no stack",
    },
    Ban {
        of: "trunkline-mesh",
        on: &["rustls", "trunkline-link", "trunkline-tls", "trunkline-wire"],
        reason: "a cluster is formed over any connections that a node gives it; it names no stack",
    },
    Ban {
        of: "trunkline-process",
        on: &["rustls", "trunkline-link", "trunkline-tls", "trunkline-wire"],
        reason: "processes use any connection that a node gives them; they name no stack",
    },
    Ban {
        of: "trunkline-dial",
        on: &["rustls", "tokio-rustls", "trunkline-link", "trunkline-tls", "trunkline-wire"],
        reason: "dialling names no stack and no TLS; what it drives comes in by `Stack` and through its ports",
    },
    Ban {
        of: "trunkline-proxy",
        on: &["rustls", "trunkline-link", "trunkline-tls", "trunkline-wire"],
        reason: "a gateway relays any pair of streams, whatever the stack",
    },
];

/// Modules that must not mention tokio.
const PURE: &[Pure] = &[
    Pure {
        source: "crates/trunkline-dial/src",
        modules: &["memory", "pair", "plan", "sessions", "table"],
        reason: "decisions about dialling take the time as an argument and replay as scripts; only exec awaits",
    },
    Pure {
        source: "crates/trunkline-mesh/src",
        modules: &["mesh", "message", "retry"],
        reason: "the membership takes the time as an argument and replays as scripts; only the feature `runtime` has tasks",
    },
    Pure {
        source: "crates/trunkline-process/src",
        modules: &["exit", "pid", "ties", "wire"],
        reason: "the book of processes is usable without an async runtime; only the feature `runtime` has tasks",
    },
];

/// A row of [`BANS`].
struct Ban {
    of: &'static str,
    on: &'static [&'static str],
    reason: &'static str,
}

/// A row of [`PURE`].
struct Pure {
    /// The directory of the modules.
    source: &'static str,
    /// Each is `<name>.rs`, a directory `<name>`, or both. One that is neither is an error: a renamed module must not
    /// lose its guard unnoticed.
    modules: &'static [&'static str],
    reason: &'static str,
}

/// Runs every check of this module.
pub(crate) fn check(project: &Project) -> Outcome {
    let mut problems = dependency_problems(&Metadata::members(project)?);
    problems.extend(purity_problems(&project.root, PURE)?);
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("layers", &problems)) }
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(row, _)| *row == name).map(|(_, level)| *level)
}

/// Every dependency that points the wrong way, and every crate without a level.
fn dependency_problems(metadata: &Metadata) -> Vec<String> {
    let own: Vec<&str> = metadata.workspace().map(|package| package.name.as_str()).collect();
    let mut problems = Vec::new();
    for package in metadata.workspace() {
        let name = package.name.as_str();
        let exempt = EXEMPT.contains(&name);
        let of = level(name);
        if of.is_none() && !exempt {
            problems.push(format!("`{name}` has no level: add it to the table in xtask/src/layers.rs with its level"));
        }
        for dependency in &package.dependencies {
            let on = dependency.name.as_str();
            if let Some(ban) = BANS.iter().find(|ban| ban.of == name && ban.on.contains(&on)) {
                problems.push(format!("`{name}` must not depend on `{on}`: {}", ban.reason));
            }
            if !own.contains(&on) {
                continue;
            }
            if EXEMPT.contains(&on) {
                problems.push(format!("`{name}` depends on `{on}`, which nothing may depend on"));
                continue;
            }
            let (Some(of), Some(to)) = (of, level(on)) else { continue };
            let allowed = if dependency.kind == Kind::Dev { to <= of } else { to < of };
            if !allowed {
                let kind = match dependency.kind {
                    Kind::Build => "build dependency",
                    Kind::Dev => "dev-dependency",
                    Kind::Normal => "dependency",
                };
                problems.push(format!(
                    "`{name}` (level {of}) has the {kind} `{on}` (level {to}): a crate names only crates of strictly \
                     lower levels (for its tests, of its own level too)"
                ));
            }
        }
    }
    problems
}

/// Every line of a pure module that mentions tokio outside a comment.
fn purity_problems(root: &Path, table: &[Pure]) -> Outcome<Vec<String>> {
    let mut problems = Vec::new();
    for row in table {
        for module in row.modules {
            let base = root.join(row.source).join(module);
            let mut files = Vec::new();
            if base.with_extension("rs").is_file() {
                files.push(base.with_extension("rs"));
            }
            if base.is_dir() {
                rust_files(&base, &mut files)?;
            }
            if files.is_empty() {
                problems.push(format!(
                    "the pure module {}/{module} does not exist: if it moved, follow it in PURE in xtask/src/layers.rs",
                    row.source
                ));
            }
            for file in files {
                let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
                problems.extend(
                    tokio_lines(&text)
                        .into_iter()
                        .map(|line| format!("{shown}:{line}: names tokio in a pure file: {}", row.reason)),
                );
            }
        }
    }
    Ok(problems)
}

/// The numbers of the lines that use tokio. Comments may name it: the docs of a pure module say what drives it.
fn tokio_lines(text: &str) -> Vec<usize> {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let uses = |code: &str| {
        code.contains("tokio::") || code.trim_start().starts_with("use tokio") || code.contains("extern crate tokio")
    };
    text.lines().enumerate().filter(|(_, line)| uses(&code(line))).map(|(index, _)| index + 1).collect()
}

/// Every `.rs` file below a directory, in a stable order.
pub(crate) fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) -> Outcome {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| format!("{}: {error}", directory.display()))?.path());
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fake::workspace;

    fn check(name: &str, dependencies: &[(&str, &str)], expected: &[&str]) {
        let mut members: Vec<(&str, &[(&str, &str)])> =
            LEVELS.iter().map(|(row, _)| *row).chain(EXEMPT.iter().copied()).map(|row| (row, &[][..])).collect();
        members.retain(|(row, _)| *row != name);
        members.push((name, dependencies));
        let problems = dependency_problems(&workspace(&members));
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} should contain {part:?}");
        }
    }

    #[test]
    fn a_lower_level_and_third_party_crates_are_fine() {
        check("trunkline-dial", &[("trunkline-registrar", ""), ("tokio", ""), ("trunkline-route", "dev")], &[]);
        check("trunkline-tests", &[("trunkline-cli", ""), ("trunkline-route", "build")], &[]);
    }

    #[test]
    fn a_dependency_on_a_higher_level_is_reported() {
        let expected = ["`trunkline-route` (level 0) has the dependency `trunkline-dial` (level 4)"];
        check("trunkline-route", &[("trunkline-dial", "")], &expected);
        check("trunkline-route", &[("trunkline-dial", "dev")], &["has the dev-dependency"]);
    }

    #[test]
    fn the_same_level_is_for_tests_only() {
        check("trunkline-proxy", &[("trunkline-process", "")], &["(level 5) has the dependency"]);
        check("trunkline-proxy", &[("trunkline-process", "build")], &["(level 5) has the build dependency"]);
        check("trunkline-proxy", &[("trunkline-process", "dev")], &[]);
    }

    #[test]
    fn nothing_depends_on_the_exempt_crates() {
        check("trunkline-cli", &[("trunkline-tests", "dev")], &["nothing may depend on"]);
        check("trunkline-tests", &[("xtask", "")], &["nothing may depend on"]);
    }

    #[test]
    fn bans_hold_for_every_kind_of_dependency() {
        check("trunkline-matcher", &[("tokio", "")], &["must not depend on `tokio`"]);
        check("trunkline-route", &[("tokio", "dev")], &["must not depend on `tokio`"]);
        let both = ["must not depend on `trunkline-link`", "must not depend on `rustls`"];
        check("trunkline-dial", &[("trunkline-link", ""), ("rustls", "dev")], &both);
    }

    #[test]
    fn a_crate_without_a_level_is_told_where_to_get_one() {
        check("trunkline-new", &[], &["add it to the table in xtask/src/layers.rs with its level"]);
    }

    #[test]
    fn tokio_counts_in_code_and_not_in_comments() {
        let text = "//! tokio::io drives this\nuse tokio::time;\nlet a = 1; // tokio::spawn\n    tokio::spawn(f);\n\
                    use tokio as t;\n";
        assert_eq!(tokio_lines(text), [2, 4, 5]);
    }

    #[test]
    fn pure_modules_are_read_as_files_and_as_directories() {
        let root = std::env::temp_dir().join(format!("xtask-layers-{}", std::process::id()));
        let source = root.join("src");
        fs::create_dir_all(source.join("mux/deep")).unwrap();
        fs::write(source.join("mux.rs"), "fn pure() {}\n").unwrap();
        fs::write(source.join("mux/deep/inner.rs"), "\ntokio::spawn(f)\n").unwrap();
        fs::write(source.join("other.rs"), "tokio::spawn(f)\n").unwrap();
        let table = [Pure { source: "src", modules: &["mux", "gone"], reason: "because" }];
        let problems = purity_problems(&root, &table).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("src/mux/deep/inner.rs:2:"), "{problems:?}");
        assert!(problems[1].contains("src/gone does not exist"), "{problems:?}");
    }
}
