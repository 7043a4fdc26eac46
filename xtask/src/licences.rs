//! `licences` and `duplicates`: what the lock file brings along.

use std::collections::{BTreeMap, BTreeSet};

use crate::metadata::{Metadata, PLATFORM};
use crate::{Failure, Outcome, Project, stdout_of};

pub(crate) const LICENCES_HELP: &str = "\
Usage: cargo xtask licences

Checks that every package the lock file brings to Linux, tests and build scripts included, may be used under licences of
the list in xtask/src/licences.rs. An SPDX expression is evaluated: of `A OR B` one must be allowed, of `A AND B` both.
";

pub(crate) const DUPLICATES_HELP: &str = "\
Usage: cargo xtask duplicates

Checks that no crate is compiled in two incompatible versions, dev-dependencies aside. Exceptions stand in xtask/src/licences.rs with
their reason; an exception that is no longer needed is an error.
";

/// Licences, and exceptions to one, under which a dependency may be used.
const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that are compiled in several versions for now.
const DUPLICATES: &[Duplicate] = &[
    Duplicate {
        name: "base64",
        versions: &["0.22", "0.23"],
        reason: "tonic 0.14 is on 0.22; pem 4 (of rcgen) is on 0.23",
    },
    Duplicate {
        name: "cpufeatures",
        versions: &["0.2", "0.3"],
        reason: "sha2 and curve25519-dalek 4 are on 0.2; chacha20 (of rand, of hickory-resolver) is on 0.3",
    },
    Duplicate {
        name: "foldhash",
        versions: &["0.1", "0.2"],
        reason: "hashbrown 0.15 (of petgraph, of prost-build) is on 0.1; build time only",
    },
    Duplicate {
        name: "getrandom",
        versions: &["0.2", "0.4"],
        reason: "ring and rand_core 0.6 (of spake2) are on 0.2; tempfile is on 0.4",
    },
    Duplicate {
        name: "hashbrown",
        versions: &["0.14", "0.15", "0.17"],
        reason: "dashmap 6 is on 0.14; petgraph (of prost-build, at build time) is on 0.15; toml_edit, which only xtask uses, is on 0.17",
    },
    Duplicate {
        name: "prettyplease",
        versions: &["0.2", "0.3"],
        reason: "tonic-build is on 0.2, prost-build on 0.3; build time only",
    },
    Duplicate {
        name: "rand_core",
        versions: &["0.10", "0.6"],
        reason: "spake2 and curve25519-dalek 4 are on 0.6; rand (of hickory-resolver) is on 0.10",
    },
    Duplicate {
        name: "syn",
        versions: &["2", "3"],
        reason: "derive macros are half way to 3 (zeroize, curve25519-dalek and asn1-rs still on 2); build time only",
    },
];

/// A row of [`DUPLICATES`].
struct Duplicate {
    name: &'static str,
    /// The parts of the versions that tell compatible ones apart, sorted as text.
    versions: &'static [&'static str],
    reason: &'static str,
}

/// Reports every package under a licence that is not allowed.
pub(crate) fn check_licences(project: &Project) -> Outcome {
    let problems = licence_problems(&Metadata::locked(project)?);
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("licences", &problems)) }
}

/// Reports every crate in several versions, and every exception without use.
pub(crate) fn check_duplicates(project: &Project) -> Outcome {
    let mut tree = project.cargo("tree");
    tree.args(["--locked", "--workspace", "--all-features", "--target", PLATFORM]);
    tree.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let problems = duplicate_problems(&stdout_of(&mut tree)?, DUPLICATES);
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("duplicates", &problems)) }
}

fn licence_problems(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    for package in metadata.packages.iter().filter(|package| metadata.resolved.contains(&package.id)) {
        let who = format!("{} {}", package.name, package.version);
        match package.licence.as_deref().map(|licence| (licence, allowed(licence))) {
            None => problems.push(format!("{who} states no licence expression")),
            Some((_, Ok(true))) => {}
            Some((licence, Ok(false))) => problems
                .push(format!("{who} is under `{licence}`, which the list in xtask/src/licences.rs does not cover")),
            Some((licence, Err(error))) => problems.push(format!("{who}: cannot read `{licence}`: {error}")),
        }
    }
    problems
}

/// May something under this SPDX expression be used?
fn allowed(expression: &str) -> Result<bool, String> {
    // Before SPDX expressions, manifests wrote `MIT/Apache-2.0` for a choice.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0 };
    let verdict = parser.either()?;
    match parser.peek() {
        None => Ok(verdict),
        Some(word) => Err(format!("`{word}` does not belong there")),
    }
}

/// Evaluates while parsing; `AND` binds closer than `OR`.
struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// Steps over the word if it comes next.
    fn take(&mut self, word: &str) -> bool {
        let taken = self.peek() == Some(word);
        self.at += usize::from(taken);
        taken
    }

    /// The next licence or exception name.
    fn name(&mut self) -> Result<&'a str, String> {
        match self.peek() {
            None => Err("it ends too early".to_owned()),
            Some(word @ ("(" | ")" | "AND" | "OR" | "WITH")) => Err(format!("`{word}` where a name should be")),
            Some(name) => {
                self.at += 1;
                Ok(name)
            }
        }
    }

    fn either(&mut self) -> Result<bool, String> {
        let mut verdict = self.both()?;
        while self.take("OR") {
            // Not `||`: the right side must be read in any case.
            verdict |= self.both()?;
        }
        Ok(verdict)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Ok(verdict)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let verdict = self.either()?;
            return if self.take(")") { Ok(verdict) } else { Err("a `)` is missing".to_owned()) };
        }
        let licence = self.name()?;
        if self.take("WITH") {
            let exception = self.name()?;
            return Ok(ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()));
        }
        Ok(ALLOWED.contains(&licence))
    }
}

/// Crates in more than one version among the lines `name vVERSION ..` of `cargo tree`. Not read from `cargo metadata`,
/// which also lists optional packages that no feature turns on.
fn duplicate_problems(tree: &str, exceptions: &[Duplicate]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next().and_then(|word| word.strip_prefix('v'))) {
            versions.entry(name).or_default().insert(compatible(version));
        }
    }
    let mut problems = Vec::new();
    for (name, found) in versions.iter().filter(|(_, found)| found.len() > 1) {
        let found: Vec<&str> = found.iter().copied().collect();
        let exception = exceptions.iter().find(|exception| exception.name == *name);
        match exception {
            Some(exception) if exception.versions == found => {}
            Some(exception) => problems.push(format!(
                "`{name}` is compiled in versions {found:?}, but the exception is for {:?} ({})",
                exception.versions, exception.reason
            )),
            None => problems.push(format!(
                "`{name}` is compiled in versions {found:?}: `cargo tree --workspace --all-features -e no-dev -i {name}@VERSION` says for whom; \
                 agree on one, or add it with the reason to DUPLICATES in xtask/src/licences.rs"
            )),
        }
    }
    for exception in exceptions {
        if versions.get(exception.name).is_none_or(|found| found.len() < 2) {
            problems.push(format!(
                "the exception for `{}` is no longer needed: remove it from DUPLICATES in xtask/src/licences.rs",
                exception.name
            ));
        }
    }
    problems
}

/// The part of a version that must be equal for two of them to be compatible.
fn compatible(version: &str) -> &str {
    let core = version.split(['-', '+']).next().unwrap_or(version);
    let mut end = 0;
    for part in core.split('.') {
        end += part.len();
        if part != "0" {
            break;
        }
        end += 1;
    }
    &core[..end.min(core.len())]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spdx_expressions_are_evaluated() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("GPL-3.0-only OR MIT", true),
            ("MIT AND GPL-3.0-only", false),
            ("MIT/Apache-2.0", true),
            ("GPL-2.0/GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND Unicode-DFS-2016", false),
            // AND binds closer than OR.
            ("MIT OR GPL-3.0-only AND GPL-2.0-only", true),
            ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", false),
            ("GPL-2.0-only AND GPL-3.0-only OR MIT", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", false),
            ("MIT WITH LLVM-exception", false),
            ("((MIT))", true),
            (
                "ISC AND (Apache-2.0 OR ISC) AND Apache-2.0 AND MIT AND BSD-3-Clause AND (Apache-2.0 OR ISC OR MIT-0)",
                true,
            ),
        ] {
            assert_eq!(allowed(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn broken_expressions_are_errors_and_never_allowed() {
        for expression in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "()", "MIT OR OR MIT"]
        {
            assert!(allowed(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn versions_are_compatible_up_to_their_first_number_that_is_not_zero() {
        for (version, expected) in
            [("1.2.3", "1"), ("0.2.17", "0.2"), ("0.0.7", "0.0.7"), ("12.0.0-rc.1", "12"), ("0.10.1+meta", "0.10")]
        {
            assert_eq!(compatible(version), expected);
        }
    }

    const TREE: &str = "\
app v0.1.0 (/w/app)
a v1.0.0
syn v2.0.1 (proc-macro)
syn v3.1.0
a v1.0.0 (*)

other v0.1.0 (/w/other)
syn v3.1.0 (*)
";

    const SYN: Duplicate = Duplicate { name: "syn", versions: &["2", "3"], reason: "because" };

    #[test]
    fn two_versions_are_reported_unless_excepted() {
        let problems = duplicate_problems(TREE, &[]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("`syn` is compiled in versions [\"2\", \"3\"]"), "{problems:?}");
        assert!(duplicate_problems(TREE, &[SYN]).is_empty());
    }

    #[test]
    fn an_exception_for_other_versions_does_not_cover() {
        let exception = Duplicate { versions: &["1", "2"], ..SYN };
        assert!(duplicate_problems(TREE, &[exception])[0].contains("the exception is for"));
    }

    #[test]
    fn an_exception_that_is_not_needed_is_reported() {
        let tree = TREE.replace("v2.0.1", "v3.1.0");
        assert!(duplicate_problems(&tree, &[]).is_empty());
        assert!(duplicate_problems(&tree, &[SYN])[0].contains("no longer needed"));
    }

    #[test]
    fn a_package_under_another_licence_or_none_is_reported_when_it_is_resolved() {
        let package = |name: &str, licence: Option<&str>| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": licence, "manifest_path": "m",
                    "publish": null, "features": {}, "dependencies": [] })
        };
        let all = json!({
            "packages": [package("a", Some("MIT")), package("b", Some("GPL-3.0-only")), package("c", None),
                         package("windows-only", Some("GPL-3.0-only"))],
            "workspace_members": ["a"],
            "target_directory": "t",
            "resolve": { "nodes": [{ "id": "a" }, { "id": "b" }, { "id": "c" }] },
        });
        let problems = licence_problems(&Metadata::parse(&all.to_string()).unwrap());
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("b 1.0.0 is under") && problems[1].starts_with("c 1.0.0 states no"));
    }
}
