//! `circles`: files of a crate that need each other.
//!
//! An arrow leads from a file to another one of the same crate that defines an item which the first one names. The modules
//! are read with a parser of Rust, and names are followed through re-exports to the definition:
//!
//! - A private `use` is an arrow to the file that defines the item. The same holds for every path in code (types,
//!   expressions, patterns, arguments of macros), also if its first segment is an imported or a re-exported name.
//! - A `mod` declaration and a `pub use` of any visibility are no arrows: they say where an item is found, and need nothing
//!   of it. The import of a module is an arrow only through the items that are named by it.
//! - Code behind `#[cfg(test)]` does not count.
//! - Method calls are not seen, since their types are not known; the type itself is named in nearly all such files.
//!
//! Two files may name each other, as a parent and its child do. Three or more of which each leads to each other cannot be
//! understood or moved one by one: that is a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use crate::metadata::Metadata;
use crate::{Failure, Outcome, Project};

mod modules;

use modules::Arrow;

pub(crate) const HELP: &str = "\
Usage: cargo xtask circles

Checks that no three files of a crate under crates/ name items of each other in a circle, directly or through others. Each
circle is printed with one name per step. A `mod` declaration, a re-export and code behind #[cfg(test)] do not count.
";

/// Most files that may name each other.
const MOST: usize = 2;

/// Crates whose circles are reported, but accepted for now.
const PENDING: &[&str] = &["trunkline", "trunkline-dial", "trunkline-link", "trunkline-process", "trunkline-stack"];

/// Reports every circle of files.
pub(crate) fn check(project: &Project) -> Outcome {
    let mut problems = Vec::new();
    for package in Metadata::members(project)?.workspace() {
        let source = package.manifest.with_file_name("src");
        if !source.starts_with(project.root.join("crates")) {
            continue;
        }
        let found = circles(&source)?;
        match (PENDING.contains(&package.name.as_str()), found.is_empty()) {
            (false, _) => problems.extend(found.into_iter().map(|circle| format!("{}: {circle}", package.name))),
            (true, true) => problems.push(format!("{}: no circle is left; remove it from PENDING", package.name)),
            (true, false) => println!("circles: {} has {} to break (PENDING)", package.name, found.len()),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("circles", &problems)) }
}

/// Returns the circles of the files below this directory of sources.
fn circles(source: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for root in modules::roots(source)? {
        found.extend(circles_of(&modules::arrows(source, &root)?));
    }
    Ok(found)
}

/// Arrows by the file that they lead from. Each has one of the names that make it.
type Graph<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>;

/// Returns a shortest circle through each arrow that lies within more than [`MOST`] files that lead to each other.
fn circles_of(arrows: &[Arrow]) -> Vec<String> {
    let mut graph = Graph::new();
    for arrow in arrows {
        graph.entry(&arrow.from).or_default().entry(&arrow.to).or_insert(&arrow.name);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|from| (*from, ways(&graph, from).into_keys().collect())).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|reached| reached.contains(to));
    let mut circles = BTreeSet::new();
    for (from, to) in graph.iter().flat_map(|(from, to)| to.keys().map(move |to| (*from, *to))) {
        let together = reached.keys().filter(|other| leads(from, other) && leads(other, from)).count();
        if together > MOST && leads(to, from) {
            circles.insert(circle(&graph, from, to));
        }
    }
    circles.iter().map(|circle| shown(&graph, circle)).collect()
}

/// Returns the files that this one leads to, each with the file before it on a shortest way.
fn ways<'a>(graph: &Graph<'a>, from: &str) -> BTreeMap<&'a str, &'a str> {
    let mut before = BTreeMap::new();
    let mut next: VecDeque<&str> = graph.get_key_value(from).map(|(from, _)| *from).into_iter().collect();
    while let Some(file) = next.pop_front() {
        for to in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if !before.contains_key(to) {
                before.insert(*to, graph.get_key_value(file).map_or(*to, |(file, _)| *file));
                next.push_back(to);
            }
        }
    }
    before
}

/// Returns a shortest circle through this arrow, from its least file on.
fn circle<'a>(graph: &Graph<'a>, from: &'a str, to: &'a str) -> Vec<&'a str> {
    let before = ways(graph, to);
    let mut files = vec![from];
    while let Some(file) = files.last().filter(|file| **file != to).and_then(|file| before.get(file)) {
        files.push(file);
    }
    files.reverse();
    let least = files.iter().enumerate().min_by_key(|(_, file)| **file).map_or(0, |(at, _)| at);
    files.rotate_left(least);
    files
}

fn shown(graph: &Graph<'_>, circle: &[&str]) -> String {
    let after = circle.iter().skip(1).chain(circle.first());
    let names: Vec<&str> =
        circle.iter().zip(after.clone()).filter_map(|(from, to)| graph.get(from)?.get(to).copied()).collect();
    let files: Vec<&str> = circle.iter().chain(circle.first()).copied().collect();
    format!("{} ({})", files.join(" -> "), names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes these files below a directory of their own, and returns the circles among them.
    fn check(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let source = std::env::temp_dir().join(format!("xtask-circles-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = circles(&source);
        fs::remove_dir_all(&source).unwrap();
        found.unwrap()
    }

    /// Three files of which each imports an item of the next one by this path.
    fn ring(name: &str, root: &str, c: &str) -> Vec<String> {
        let a = "use crate::b::B;\npub struct A(B);\n";
        let b = "pub struct B;\nfn c(_: crate::c::C) {}\n";
        check(name, &[("lib.rs", root), ("a.rs", a), ("b.rs", b), ("c.rs", c)])
    }

    const MODS: &str = "mod a;\nmod b;\nmod c;\n";

    #[test]
    fn three_files_in_a_ring_are_reported_once_with_the_names() {
        let found = ring("ring", MODS, "pub struct C;\nuse super::a::A;\nimpl C { fn a() -> Option<A> { None } }\n");
        assert_eq!(found, ["a.rs -> b.rs -> c.rs -> a.rs (B, C, A)"]);
    }

    #[test]
    fn a_path_in_a_body_a_pattern_or_a_macro_is_an_arrow() {
        for (n, c) in [
            "pub struct C;\nfn f() { let _ = crate::a::A::default(); }\n",
            "pub struct C;\nfn f(x: X) { if let crate::a::A { .. } = x {} }\n",
            "pub struct C;\nfn f() { assert!(matches!(x(), Some(super::a::A))); }\n",
            "pub struct C;\nmacro_rules! m { () => { $crate::a::A }; }\n",
            "pub struct C;\nfn f() { use crate::a; a::A::new(); }\n",
            "pub struct C;\nmod inner { fn f() -> super::super::a::A { todo() } }\n",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(ring(&format!("path-{n}"), MODS, c).len(), 1, "{c}");
        }
    }

    #[test]
    fn a_name_is_followed_through_re_exports_and_globs_to_its_file() {
        let facade = format!("{MODS}pub use a::A as First;\npub(crate) mod all {{ pub use super::a::*; }}\n");
        assert_eq!(ring("renamed", &facade, "pub struct C;\nuse crate::First;\n").len(), 1);
        assert_eq!(ring("glob", &facade, "pub struct C;\nuse crate::all::*;\nfn f(_: A) {}\n").len(), 1);
        assert_eq!(ring("module", &facade, "pub struct C;\nuse crate::all;\nfn f(_: all::A) {}\n").len(), 1);
        assert_eq!(ring("unused", &facade, "pub struct C;\nuse crate::all;\n"), [] as [&str; 0]);
    }

    #[test]
    fn a_name_that_a_file_re_exports_and_uses_is_an_arrow() {
        let used = "pub struct C;\npub(crate) use crate::a::A;\nfn f(_: A) {}\n";
        assert_eq!(ring("used", MODS, used).len(), 1);
        assert_eq!(ring("passed-on", MODS, "pub struct C;\npub(crate) use crate::a::A;\n"), [] as [&str; 0]);
    }

    #[test]
    fn tests_are_no_arrows() {
        for (n, c) in [
            "pub struct C;\n#[cfg(test)]\nuse crate::a::A;\n",
            "pub struct C;\n#[cfg(test)]\nmod tests { use crate::a::A; }\n",
            "pub struct C;\n#[cfg(all(test, unix))]\nfn f(_: crate::a::A) {}\n",
            "pub struct C;\nimpl C { #[cfg(test)] fn f(_: crate::a::A) {} }\n",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(ring(&format!("test-{n}"), MODS, c), [] as [&str; 0], "{c}");
        }
        let some_tests = "pub struct C;\n#[cfg(any(test, feature = \"f\"))]\nuse crate::a::A;\n";
        assert_eq!(ring("any", MODS, some_tests).len(), 1);
    }

    #[test]
    fn a_parent_and_its_child_may_name_each_other_and_a_third_file_may_not_join_them() {
        let pair = [
            ("lib.rs", "mod a;\n"),
            ("a.rs", "mod b;\npub use b::B;\npub struct A;\nfn f(_: B) {}\n"),
            ("a/b.rs", "use super::A;\npub struct B(A);\n"),
        ];
        assert_eq!(check("pair", &pair), [] as [&str; 0]);
        let mut three = pair.to_vec();
        three[0] = ("lib.rs", "mod a;\nmod c;\n");
        three[2] = ("a/b.rs", "use super::A;\npub struct B(A, crate::c::C);\n");
        three.push(("c/mod.rs", "pub struct C(super::a::B);\n"));
        assert_eq!(check("three", &three), ["a.rs -> a/b.rs -> a.rs (B, A)", "a/b.rs -> c/mod.rs -> a/b.rs (C, B)"]);
    }

    #[test]
    fn names_of_other_crates_and_local_names_are_no_arrows() {
        let c = "pub struct C;\nuse std::fmt;\nfn f(a: u8) -> u8 { fmt(); a.b::<u8>(); Self::x(); a }\n";
        assert_eq!(ring("local", MODS, c), [] as [&str; 0]);
    }

    #[test]
    fn each_binary_has_modules_of_its_own() {
        let files = [
            ("lib.rs", "pub mod a;\npub struct L;\n"),
            ("a.rs", "pub struct A(crate::L);\n"),
            ("main.rs", "mod c;\nstruct M;\n"),
            ("c.rs", "use the_library::L;\nfn f(_: crate::M) {}\n"),
            ("bin/other.rs", "fn main() {}\n"),
        ];
        assert_eq!(check("binaries", &files), [] as [&str; 0]);
    }
}
