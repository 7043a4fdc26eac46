//! `release`: dry unless told otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::changelog::State;
use crate::metadata::{Metadata, Package};
use crate::{Failure, Outcome, Project, changelog, publishing, render, run, stdout_of, tarballs};

pub(crate) const HELP: &str = "\
Usage: cargo xtask release [--execute]

Rehearses a release and publishes nothing:
  1. checks that the crates to publish share one version and require each other in exactly it, that CHANGELOG.md has a
     section for it, that nothing is uncommitted, and what `cargo xtask publishing` checks
  2. packs every crate, unpacks each tarball and builds it there, with its default features, against the other tarballs
     instead of the workspace; on 2 cores this takes about 5 minutes and 1 GiB, which is freed at the end
  3. prints the order of publishing
What would stop a release but not a rehearsal is printed as a warning: an uncommitted change, a changelog that has only
`Unreleased`.

With --execute: nothing is only a warning, and after the rehearsal each crate is published in that order, dependencies
first. A version once published cannot be replaced. If one crate fails, the rest is listed, to be published by hand when the
cause is gone.

Not checked, since it needs a nightly compiler or an installed tool: changes of the public API against the last published
version (cargo-semver-checks), and types of other crates in public signatures (cargo-check-external-types).
";

/// Checks, then rehearses or publishes.
pub(crate) fn release(project: &Project, arguments: &[String]) -> Outcome {
    let execute = match arguments {
        [] => false,
        [flag] if flag == "--execute" => true,
        _ => return Err(format!("release knows only --execute, not {arguments:?}").into()),
    };
    let metadata = Metadata::members(project)?;
    announce("metadata, READMEs, licences, changelog");
    let mut problems = version_problems(&metadata);
    problems.extend(publishing::problems(project, &metadata)?);
    let mut warnings = Vec::new();

    let later = if execute { &mut problems } else { &mut warnings };
    let changed = stdout_of(&mut project.git(&["status", "--porcelain"]))?;
    let clean = changed.trim().is_empty();
    if !clean {
        later.push(format!("{} file(s) are not committed: `git status` names them", changed.lines().count()));
    }
    if let Some(package) = metadata.workspace().find(|package| package.publishable) {
        let text = fs::read_to_string(project.root.join("CHANGELOG.md")).unwrap_or_default();
        match changelog::state(&text, &package.version) {
            State::HasVersion => {}
            State::OnlyUnreleased => later.push(format!(
                "CHANGELOG.md has `[Unreleased]` but no section for {0}: write `## [{0}] - DATE` before the release",
                package.version
            )),
            State::Neither => problems.push(format!("CHANGELOG.md has no section `[{}]`", package.version)),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::list("release", &problems));
    }
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let order = publishing_order(&metadata)?;
    announce(&format!("{} tarballs", order.len()));
    tarballs::build(project, &metadata, &order, !clean)?;
    println!("Each of {} crates builds from its own tarball, without the workspace.", order.len());
    if execute {
        return publish(project, &order);
    }
    println!("A release would publish, in this order:");
    for package in order {
        println!("  {} {}", package.name, package.version);
    }
    println!("Nothing was published; `cargo xtask release --execute` does.");
    Ok(())
}

fn announce(stage: &str) {
    eprintln!("==> {stage}");
}

/// Publishes each crate; cargo waits until the registry has it before the next one.
fn publish(project: &Project, order: &[&Package]) -> Outcome {
    for (index, package) in order.iter().enumerate() {
        let mut command = project.cargo("publish");
        command.args(["--locked", "-p", &package.name]);
        announce(&render(&command));
        run(&mut command).map_err(|failure| {
            let rest: Vec<&str> = order[index..].iter().map(|package| package.name.as_str()).collect();
            format!("{failure}\nnot published yet, in this order: {}", rest.join(", "))
        })?;
    }
    Ok(())
}

/// Crates to publish that differ in version, or require another version of each other.
fn version_problems(metadata: &Metadata) -> Vec<String> {
    let own: BTreeMap<&str, &Package> = publishable(metadata);
    let versions: BTreeSet<&str> = own.values().map(|package| package.version.as_str()).collect();
    let mut problems = Vec::new();
    if versions.len() > 1 {
        problems.push(format!("the crates to publish have different versions: {versions:?}"));
    }
    for package in own.values() {
        for dependency in &package.dependencies {
            let Some(on) = own.get(dependency.name.as_str()) else { continue };
            if dependency.requirement.trim_start_matches(['^', '=']) != on.version {
                problems.push(format!(
                    "`{}` requires `{}` in version `{}`, which is at {}: correct [workspace.dependencies]",
                    package.name, on.name, dependency.requirement, on.version
                ));
            }
        }
    }
    problems
}

fn publishable(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata.workspace().filter(|package| package.publishable).map(|package| (package.name.as_str(), package)).collect()
}

/// The crates to publish, each after all it depends on; by name where that leaves a choice. Dev-dependencies count:
/// the registry wants them too.
fn publishing_order(metadata: &Metadata) -> Result<Vec<&Package>, String> {
    let mut left = publishable(metadata);
    let mut order = Vec::new();
    while !left.is_empty() {
        let ready = left.values().copied().find(|package| {
            package.dependencies.iter().all(|on| on.name == package.name || !left.contains_key(on.name.as_str()))
        });
        let Some(package) = ready else {
            let names: Vec<&str> = left.keys().copied().collect();
            return Err(format!("these crates depend on each other in a circle: {}", names.join(", ")));
        };
        left.remove(package.name.as_str());
        order.push(package);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fake::workspace;

    fn names(order: Vec<&Package>) -> Vec<&str> {
        order.into_iter().map(|package| package.name.as_str()).collect()
    }

    #[test]
    fn dependencies_are_published_first_and_names_decide_otherwise() {
        let metadata = workspace(&[
            ("app", &[("core", ""), ("net", ""), ("serde", "")]),
            ("net", &[("core", ""), ("zoo", "dev")]),
            ("core", &[]),
            ("zoo", &[("core", "build")]),
            ("also", &[]),
        ]);
        assert_eq!(names(publishing_order(&metadata).unwrap()), ["also", "core", "zoo", "net", "app"]);
    }

    #[test]
    fn a_circle_is_named() {
        let metadata = workspace(&[("a", &[("b", "")]), ("b", &[("a", "dev")]), ("c", &[])]);
        let error = publishing_order(&metadata).unwrap_err();
        assert!(error.ends_with("a, b"), "{error}");
    }

    #[test]
    fn what_is_not_published_is_left_out() {
        let mut metadata = workspace(&[("a", &[]), ("tests", &[("a", "")])]);
        metadata.packages[1].publishable = false;
        assert_eq!(names(publishing_order(&metadata).unwrap()), ["a"]);
    }

    #[test]
    fn versions_must_be_the_same_and_required_exactly() {
        let mut metadata = workspace(&[("a", &[]), ("b", &[("a", ""), ("serde", "")])]);
        assert!(version_problems(&metadata).is_empty());
        metadata.packages[0].version = "0.2.0".to_owned();
        let problems = version_problems(&metadata);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[1].contains("requires `a` in version `^0.1.0`, which is at 0.2.0"), "{problems:?}");
        metadata.packages[0].version = "0.1.0".to_owned();
        metadata.packages[1].dependencies[0].requirement = "*".to_owned();
        assert_eq!(version_problems(&metadata).len(), 1);
    }
}
