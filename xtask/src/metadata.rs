//! Output of `cargo metadata`, reduced to the fields the checks look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::{Outcome, Project, stdout_of};

/// The platform whose dependencies are judged: the one releases are built for.
pub(crate) const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The answer of `cargo metadata`.
#[derive(Debug)]
pub(crate) struct Metadata {
    /// Every package named; with `--no-deps` these are the members.
    pub(crate) packages: Vec<Package>,
    /// Ids of the workspace's own packages.
    pub(crate) members: BTreeSet<String>,
    /// Ids of the packages [`PLATFORM`] may need; empty with `--no-deps`.
    pub(crate) resolved: BTreeSet<String>,
    /// Directory of the build output of cargo.
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// The SPDX expression, when the manifest has one.
    pub(crate) licence: Option<String>,
    pub(crate) description: Option<String>,
    /// Address of the documentation.
    pub(crate) documentation: Option<String>,
    pub(crate) repository: Option<String>,
    /// Path of the README, relative to the manifest.
    pub(crate) readme: Option<PathBuf>,
    pub(crate) keywords: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// Settings for docs.rs: the table `[package.metadata.docs.rs]`, or null.
    pub(crate) docs_rs: Value,
    pub(crate) has_library: bool,
    pub(crate) manifest: PathBuf,
    /// False for `publish = false`.
    pub(crate) publishable: bool,
    /// Features, each with what it turns on; implicit features of optional dependencies included.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a manifest states it.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// The package's name, also when it is renamed.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The version requirement; `*` when there is none.
    pub(crate) requirement: String,
}

/// Table of the manifest in which a dependency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Build,
    Dev,
    Normal,
}

impl Metadata {
    /// The workspace members alone. Resolves nothing, so it needs neither a network nor a lock file.
    pub(crate) fn members(project: &Project) -> Outcome<Self> {
        let mut command = project.cargo("metadata");
        command.args(["--format-version", "1", "--no-deps", "--offline"]);
        Ok(Self::parse(&stdout_of(&mut command)?)?)
    }

    /// Every package the lock file brings to [`PLATFORM`], with all features on.
    pub(crate) fn locked(project: &Project) -> Outcome<Self> {
        let mut command = project.cargo("metadata");
        command.args(["--format-version", "1", "--locked", "--all-features", "--filter-platform", PLATFORM]);
        Ok(Self::parse(&stdout_of(&mut command)?)?)
    }

    /// Reads the JSON; a missing field is an error that names it.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| format!("cargo metadata wrote no JSON: {error}"))?;
        let resolved = match &value["resolve"] {
            Value::Null => BTreeSet::new(),
            resolve => array(resolve, "nodes")?.iter().map(|node| text(node, "id")).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            packages: array(&value, "packages")?.iter().map(package).collect::<Result<_, _>>()?,
            members: array(&value, "workspace_members")?.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            resolved,
            target_directory: text(&value, "target_directory")?.into(),
        })
    }

    /// The workspace's own packages, by name.
    pub(crate) fn workspace(&self) -> impl Iterator<Item = &Package> {
        let mut own: Vec<_> = self.packages.iter().filter(|package| self.members.contains(&package.id)).collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        own.into_iter()
    }
}

fn package(value: &Value) -> Result<Package, String> {
    let mut features = BTreeMap::new();
    for (name, parts) in value["features"].as_object().into_iter().flatten() {
        features.insert(name.clone(), texts(parts));
    }
    Ok(Package {
        id: text(value, "id")?,
        name: text(value, "name")?,
        version: text(value, "version")?,
        licence: optional(value, "license"),
        description: optional(value, "description"),
        documentation: optional(value, "documentation"),
        repository: optional(value, "repository"),
        readme: optional(value, "readme").map(PathBuf::from),
        keywords: texts(&value["keywords"]),
        categories: texts(&value["categories"]),
        docs_rs: value["metadata"]["docs"]["rs"].clone(),
        has_library: value["targets"].as_array().into_iter().flatten().any(is_library),
        manifest: text(value, "manifest_path")?.into(),
        publishable: value["publish"].as_array().is_none_or(|registries| !registries.is_empty()),
        features,
        dependencies: array(value, "dependencies")?.iter().map(dependency).collect::<Result<_, _>>()?,
    })
}

fn dependency(value: &Value) -> Result<Dependency, String> {
    Ok(Dependency { name: text(value, "name")?, kind: kind(&value["kind"])?, requirement: text(value, "req")? })
}

fn kind(value: &Value) -> Result<Kind, String> {
    match value.as_str() {
        None | Some("normal") => Ok(Kind::Normal),
        Some("build") => Ok(Kind::Build),
        Some("dev") => Ok(Kind::Dev),
        Some(other) => Err(format!("cargo metadata has a new kind of dependency: {other}")),
    }
}

/// Returns true for a target that other crates can use.
fn is_library(target: &Value) -> bool {
    texts(&target["kind"]).iter().any(|kind| matches!(kind.as_str(), "lib" | "proc-macro" | "rlib"))
}

/// The texts of a list; none if it is absent.
fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn optional(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

fn text(value: &Value, field: &str) -> Result<String, String> {
    value[field].as_str().map(str::to_owned).ok_or_else(|| format!("cargo metadata lacks the text `{field}`"))
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    value[field].as_array().ok_or_else(|| format!("cargo metadata lacks the list `{field}`"))
}

/// Metadata written by hand for the tests of the checks.
#[cfg(test)]
pub(crate) mod fake {
    use serde_json::{Value, json};

    use super::Metadata;

    /// Members, each with its dependencies as `(name, kind)`; a kind of `""` is a normal dependency.
    pub(crate) fn workspace(members: &[(&str, &[(&str, &str)])]) -> Metadata {
        let kind = |kind: &str| if kind.is_empty() { Value::Null } else { kind.into() };
        let packages: Vec<Value> = members
            .iter()
            .map(|(name, dependencies)| {
                let dependencies: Vec<Value> = dependencies
                    .iter()
                    .map(|(name, of)| json!({ "name": name, "kind": kind(of), "req": "^0.1.0" }))
                    .collect();
                json!({
                    "id": name, "name": name, "version": "0.1.0", "license": "MIT OR Apache-2.0",
                    "manifest_path": format!("/w/crates/{name}/Cargo.toml"), "publish": null, "features": {},
                    "dependencies": dependencies,
                })
            })
            .collect();
        let ids: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
        let all = json!({ "packages": packages, "workspace_members": ids, "target_directory": "/w/target" });
        Metadata::parse(&all.to_string()).unwrap()
    }
}
