//! Every parser of external bytes accepts any input. The bodies are those of the fuzz targets in `fuzz/`: each is run
//! here with the inputs that are committed there, with arbitrary bytes, and with damaged seeds.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A target: its name, its body, and its seed inputs.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Returns each crate with targets, by its name in Rust, and its targets.
fn crates() -> Vec<(&'static str, &'static [Target])> {
    vec![
        ("trunkline_admin", trunkline_admin::fuzzing::TARGETS),
        ("trunkline_config", trunkline_config::fuzzing::TARGETS),
        ("trunkline_link", trunkline_link::fuzzing::TARGETS),
        ("trunkline_matcher", trunkline_matcher::fuzzing::TARGETS),
        ("trunkline_mesh", trunkline_mesh::fuzzing::TARGETS),
        ("trunkline_process", trunkline_process::fuzzing::TARGETS),
        ("trunkline_proxy", trunkline_proxy::fuzzing::TARGETS),
        ("trunkline_registrar", trunkline_registrar::fuzzing::TARGETS),
        ("trunkline_registrar_embedded", trunkline_registrar_embedded::fuzzing::TARGETS),
        ("trunkline_route", trunkline_route::fuzzing::TARGETS),
        ("trunkline_term", trunkline_term::fuzzing::TARGETS),
        ("trunkline_tls", trunkline_tls::fuzzing::TARGETS),
        ("trunkline_wire", trunkline_wire::fuzzing::TARGETS),
    ]
}

/// Number of inputs of each kind for each target; `cargo xtask fuzz` runs a hundred thousand times as many.
const CASES: u32 = 200;
/// The longest arbitrary input, in bytes.
const MAX_LEN: usize = 600;
/// Environment variable that makes the test write `fuzz/seeds` again.
const WRITE: &str = "TRUNKLINE_WRITE_SEEDS";

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Runs the body. The message of a failure names the target and the input.
#[track_caller]
fn run(name: &str, body: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        panic!("{name} does not hold for the input \"{}\"", input.escape_ascii());
    }
}

/// Returns the files of a directory by name, or none if the directory does not exist.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect()
}

#[test]
fn h13_every_fuzz_target_has_a_file_a_binary_and_a_row_in_the_readme() {
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let readme = fs::read_to_string(fuzz().join("README.md")).unwrap();
    let mut expected = Vec::new();
    for (of, targets) in crates() {
        for (name, ..) in targets {
            let file = format!("{name}.rs");
            let text =
                format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|bytes: &[u8]| {of}::fuzzing::{name}(bytes));\n");
            assert_eq!(fs::read_to_string(fuzz().join("fuzz_targets").join(&file)).unwrap(), text, "{file}");
            let binary = format!("[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{file}\"\n");
            assert!(manifest.contains(&binary), "fuzz/Cargo.toml lacks {binary}");
            assert!(readme.contains(&format!("| `{name}` |")), "fuzz/README.md has no row for {name}");
            expected.push(file);
        }
    }
    expected.sort();
    assert_eq!(files(&fuzz().join("fuzz_targets")).into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn h13_committed_seeds_are_up_to_date() {
    for (name, _, seeds) in crates().iter().flat_map(|(_, targets)| *targets) {
        let directory = fuzz().join("seeds").join(name);
        let expected: BTreeMap<_, _> =
            seeds().into_iter().enumerate().map(|(n, seed)| (format!("{n:02}"), seed)).collect();
        if std::env::var_os(WRITE).is_some() {
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir_all(&directory).unwrap();
            for (file, seed) in &expected {
                fs::write(directory.join(file), seed).unwrap();
            }
        }
        assert!(!expected.is_empty(), "{name} has no seed");
        assert!(files(&directory) == expected, "fuzz/seeds/{name} is out of date; run this test with {WRITE}=1");
    }
}

#[test]
fn h13_every_parser_takes_its_seeds_and_past_failures() {
    let mut known = Vec::new();
    for (name, body, _) in crates().iter().flat_map(|(_, targets)| *targets) {
        for kind in ["seeds", "regressions"] {
            for input in files(&fuzz().join(kind).join(name)).values() {
                run(name, *body, input);
            }
        }
        known.push((*name).to_owned());
    }
    // A directory without a target has a misspelt name.
    for kind in ["seeds", "regressions"] {
        let Ok(entries) = fs::read_dir(fuzz().join(kind)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(known.contains(&name), "fuzz/{kind}/{name} belongs to no target");
        }
    }
}

/// Runs every target with inputs that are generated from its seeds.
fn every_parser_takes<S: Strategy<Value = Vec<u8>>>(inputs: impl Fn(Vec<Vec<u8>>) -> S) {
    for (name, body, seeds) in crates().iter().flat_map(|(_, targets)| *targets) {
        // A failing input belongs into `fuzz/regressions`, not into a file of seeds of the generator.
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&inputs(seeds()), |input| {
            catch_unwind(AssertUnwindSafe(|| body(&input)))
                .map_err(|_| TestCaseError::fail(format!("\"{}\"", input.escape_ascii())))
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn h13_every_parser_takes_arbitrary_bytes() {
    every_parser_takes(|_| proptest::collection::vec(any::<u8>(), 0..MAX_LEN));
}

#[test]
fn h13_every_parser_takes_damaged_seeds() {
    every_parser_takes(|seeds| {
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..8);
        (prop::sample::select(seeds), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(damage)
    });
}

/// Edits of an input: a place, a byte, and the kind of the edit.
type Edits = Vec<(prop::sample::Index, u8, u8)>;

/// Overwrites, inserts, removes and repeats bytes, and cuts the end off half of the inputs.
fn damage((mut seed, edits, end, cut): (Vec<u8>, Edits, prop::sample::Index, bool)) -> Vec<u8> {
    for (at, byte, kind) in edits {
        let at = at.index(seed.len() + 1);
        match kind {
            0 if at < seed.len() => seed[at] = byte,
            1 => seed.insert(at, byte),
            2 if at < seed.len() => drop(seed.remove(at)),
            _ => {
                let tail = seed[at..].to_vec();
                seed.extend(tail);
                seed.truncate(2 * MAX_LEN);
            }
        }
    }
    if cut {
        seed.truncate(end.index(seed.len() + 1));
    }
    seed
}
