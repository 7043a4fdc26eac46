//! The other matchers: those in Rust here, those in C++ behind `peers.cc`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use regex::{Regex, RegexSet, RegexSetBuilder};

use crate::cell::{self, BUDGET};
use crate::workload::{Pattern, Workload};

/// A matcher to compare with.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    /// Most patterns. With more, the engine was not built within a minute or within memory, or is too slow to be worth
    /// the time.
    pub(crate) most: usize,
    /// True if the engine is also measured for tables without literals.
    pub(crate) literal_free: bool,
    /// Libraries that the engine needs, if it is not in Rust.
    needs: &'static [Library],
}

impl Peer {
    pub(crate) fn is_rust(&self) -> bool {
        self.needs.is_empty()
    }
}

pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "loop", label: "loop of `regex::Regex`", most: 100_000, literal_free: true, needs: &[] },
    Peer { name: "regexset", label: "`regex::RegexSet`", most: 10_000, literal_free: false, needs: &[] },
    Peer { name: "filtered", label: "`regex-filtered` 0.2.1", most: 100_000, literal_free: false, needs: &[] },
    Peer { name: "re2set", label: "RE2::Set", most: 10_000, literal_free: true, needs: &[RE2] },
    Peer {
        name: "re2filtered",
        label: "FilteredRE2, atoms by Vectorscan",
        most: 100_000,
        literal_free: false,
        needs: &[RE2, VECTORSCAN],
    },
    Peer { name: "vectorscan", label: "Vectorscan", most: 10_000, literal_free: true, needs: &[VECTORSCAN] },
];

/// Measures one of the peers in Rust, as a process of its own.
pub(crate) fn measure(name: &str, workload: &Workload, answers: &Path) {
    // The values are in the order of answers, so that an engine that reports places in ascending order need not sort.
    let ranked = ranked(&workload.patterns);
    let texts = || ranked.iter().map(|value| &*workload.patterns[*value as usize].text);
    match name {
        "loop" => {
            let build = || texts().map(|text| Regex::new(text).expect("own pattern")).collect::<Vec<_>>();
            let (patterns, before) = cell::built(build);
            cell::look_ups(workload, before, answers, |name, found| {
                let matching = patterns.iter().zip(&ranked).filter(|(pattern, _)| pattern.is_match(name));
                found.extend(matching.map(|(_, value)| value));
            });
        }
        "regexset" => {
            let build =
                || -> RegexSet { RegexSetBuilder::new(texts()).size_limit(usize::MAX).build().expect("own patterns") };
            let (set, before) = cell::built(build);
            cell::look_ups(workload, before, answers, |name, found| {
                found.extend(set.matches(name).into_iter().map(|place| ranked[place]));
            });
        }
        "filtered" => {
            let build = || {
                let filled = regex_filtered::Builder::new().push_all(texts()).expect("own patterns");
                filled.build().expect("own patterns")
            };
            let (set, before) = cell::built(build);
            cell::look_ups(workload, before, answers, |name, found| {
                found.extend(set.matching(name).map(|(place, _)| ranked[place]));
            });
        }
        unknown => panic!("no engine {unknown}"),
    }
}

/// Returns the values by descending weight, and equal weights by insertion.
fn ranked(patterns: &[Pattern]) -> Vec<u32> {
    let mut values: Vec<u32> = (0..).take(patterns.len()).collect();
    values.sort_by_key(|value| std::cmp::Reverse(patterns[*value as usize].weight));
    values
}

/// A C++ library: the names of its header, its linker flag and its Debian package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Library {
    header: &'static str,
    link: &'static str,
    define: &'static str,
    package: &'static str,
}

const RE2: Library = Library { header: "re2/re2.h", link: "-lre2", define: "-DHAVE_RE2", package: "libre2-dev" };
const VECTORSCAN: Library =
    Library { header: "hs/hs.h", link: "-lhs", define: "-DHAVE_VECTORSCAN", package: "libvectorscan-dev" };

/// The program `peers.cc`, compiled with the libraries that are installed.
pub(crate) struct Cpp {
    program: PathBuf,
    missing: Vec<&'static str>,
}

impl Cpp {
    /// Compiles the program into the target directory.
    pub(crate) fn compiled() -> Self {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matcher-peers");
        if !Command::new("g++").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Self { program, missing: vec!["g++", RE2.package, VECTORSCAN.package] };
        }
        let (here, missing): (Vec<_>, Vec<_>) = [RE2, VECTORSCAN].into_iter().partition(Library::is_installed);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/matcher/peers.cc");
        let mut compiler = Command::new("g++");
        compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-o"]).arg(&program).arg(source);
        for library in &here {
            compiler.args([library.define, library.link]);
        }
        let status = compiler.arg("-pthread").status().expect("g++ can be started");
        assert!(status.success(), "peers.cc does not compile");
        Self { program, missing: missing.iter().map(|library| library.package).collect() }
    }

    /// Returns the missing Debian packages that this peer needs.
    pub(crate) fn missing_for(&self, peer: &Peer) -> Option<String> {
        let wanted = |package: &&str| *package == "g++" || peer.needs.iter().any(|library| library.package == *package);
        let missing: Vec<&str> = self.missing.iter().copied().filter(wanted).collect();
        (!peer.is_rust() && !missing.is_empty()).then(|| missing.join(", "))
    }

    /// Returns the command that measures one of the peers in C++.
    pub(crate) fn command(&self, peer: &Peer, workload: &Path, answers: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args([peer.name, &BUDGET.as_secs().to_string()]).args([workload, answers]);
        command
    }
}

impl Library {
    fn is_installed(&self) -> bool {
        let mut compiler = Command::new("g++");
        compiler.args(["-E", "-x", "c++", "-include", self.header, "/dev/null"]);
        compiler.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// Writes the workload in the format of `peers.cc`: counts, then a line for each item.
pub(crate) fn write(workload: &Workload, path: &Path) {
    let Workload { patterns, cold, hot, hot_order, .. } = workload;
    let mut text = format!("{} {} {} {}\n", patterns.len(), cold.len(), hot.len(), hot_order.len());
    for value in ranked(patterns) {
        let _ = writeln!(text, "{value} {}", patterns[value as usize].text);
    }
    for name in cold.iter().chain(hot) {
        text.push_str(name);
        text.push('\n');
    }
    for place in hot_order {
        let _ = writeln!(text, "{place}");
    }
    std::fs::write(path, text).expect("the workload can be written");
}
