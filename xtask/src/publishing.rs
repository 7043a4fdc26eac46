//! `publishing`: what crates.io and docs.rs show of each crate.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::layers::rust_files;
use crate::metadata::{Metadata, Package};
use crate::words::documentation;
use crate::{Failure, Outcome, Project, changelog};

pub(crate) const HELP: &str = "\
Usage: cargo xtask publishing

Checks, without building anything, what crates.io and docs.rs show of each crate that is published:
  - the manifest has a description, a licence, 1 to 5 keywords, 1 to 5 categories, the repository, and a link to the
    documentation: https://docs.rs/NAME for a library
  - the manifest of a library has a table [package.metadata.docs.rs] with `all-features = true` or a list of features
  - README.md stands beside the manifest and begins with the crate's name; its links lead to the web or into the package;
    that of a library has a Rust example, and tests/src/readmes.rs runs it as a documentation test
  - every licence file of the root stands beside the manifest, with the same content
  - no documentation comment refers to a file that is not in the package
  - CHANGELOG.md begins with `## [Unreleased]`, and its other sections have a version and a date
The crates are those of `cargo metadata` that do not say `publish = false`.
";

/// File that runs the examples of the READMEs.
const README_TESTS: &str = "tests/src/readmes.rs";

/// The most keywords, and the most categories, that crates.io takes.
const MAX_WORDS: usize = 5;
/// The longest keyword that crates.io takes, in bytes.
const MAX_KEYWORD: usize = 20;

/// Module that the documentation hides: the bodies of the fuzz targets.
const HIDDEN: &str = "src/fuzzing.rs";

/// Runs every check of this module.
pub(crate) fn check(project: &Project) -> Outcome {
    let problems = problems(project, &Metadata::members(project)?)?;
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("publishing", &problems)) }
}

/// Returns what is missing before the crates can be published, each with the next step.
pub(crate) fn problems(project: &Project, metadata: &Metadata) -> Outcome<Vec<String>> {
    let licences = licence_files(&project.root)?;
    let tests = fs::read_to_string(project.root.join(README_TESTS)).unwrap_or_default();
    let mut problems = Vec::new();
    for package in metadata.workspace().filter(|package| package.publishable) {
        let directory = directory(package);
        let mut found = manifest_problems(package);
        found.extend(licence_problems(directory, &licences));
        match package.readme.as_ref().map(|readme| fs::read_to_string(directory.join(readme))) {
            Some(Ok(readme)) => {
                found.extend(readme_problems(package, &readme, &tests, |link| directory.join(link).exists()));
            }
            _ => found.push("has no README: write README.md beside the manifest; crates.io shows it".to_owned()),
        }
        found.extend(file_references(directory)?);
        problems.extend(found.into_iter().map(|problem| format!("`{}` {problem}", package.name)));
    }
    let path = project.root.join("CHANGELOG.md");
    match fs::read_to_string(&path) {
        Ok(text) => {
            problems.extend(changelog::problems(&text).iter().map(|problem| format!("CHANGELOG.md: {problem}")))
        }
        Err(error) => problems.push(format!("CHANGELOG.md: {error}")),
    }
    Ok(problems)
}

/// Directory of a package: what cargo packs is below it.
fn directory(package: &Package) -> &Path {
    package.manifest.parent().unwrap_or(&package.manifest)
}

/// Returns what the manifest of a crate lacks.
fn manifest_problems(package: &Package) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lacks = |what: &str, remedy: &str| problems.push(format!("has no {what}: {remedy} in [package]"));
    if package.description.as_deref().is_none_or(str::is_empty) {
        lacks("description", "add `description = \"..\"`");
    }
    if package.licence.is_none() {
        lacks("licence", "add `license.workspace = true`");
    }
    if package.repository.is_none() {
        lacks("repository", "add `repository.workspace = true`");
    }
    let page = format!("https://docs.rs/{}", package.name);
    match package.documentation.as_deref() {
        Some(link) if link == page || !package.has_library && link.starts_with("https://") => {}
        _ => lacks("link to its documentation", &format!("add `documentation = \"{page}\"`")),
    }
    if package.keywords.is_empty() || package.keywords.len() > MAX_WORDS {
        problems.push(format!("has {} keywords: give 1 to {MAX_WORDS} in [package]", package.keywords.len()));
    }
    for keyword in package.keywords.iter().filter(|keyword| !is_keyword(keyword)) {
        problems.push(format!(
            "has the keyword `{keyword}`, which crates.io refuses: at most {MAX_KEYWORD} ASCII letters, digits, `-`, \
             `_` and `+`, beginning with a letter or digit"
        ));
    }
    if package.categories.is_empty() || package.categories.len() > MAX_WORDS {
        problems.push(format!(
            "has {} categories: give 1 to {MAX_WORDS} of https://crates.io/category_slugs in [package], or add \
             `categories.workspace = true`",
            package.categories.len()
        ));
    }
    let settings = &package.docs_rs;
    if package.has_library && settings["all-features"] != Value::Bool(true) && !settings["features"].is_array() {
        problems.push(
            "does not say which features docs.rs documents: add [package.metadata.docs.rs] with `all-features = true`"
                .to_owned(),
        );
    }
    problems
}

fn is_keyword(keyword: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
    keyword.len() <= MAX_KEYWORD
        && keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.chars().all(allowed)
}

/// The licence files in the root of the workspace, each with its content.
pub(crate) fn licence_files(root: &Path) -> Outcome<Vec<(String, Vec<u8>)>> {
    let failed = |error: std::io::Error| format!("{}: {error}", root.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("LICENSE") {
            files.push((name, fs::read(entry.path()).map_err(failed)?));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{} has no file LICENSE-..: add the licence texts", root.display()).into());
    }
    Ok(files)
}

/// Returns the licence files that a directory lacks or has with another content.
pub(crate) fn licence_problems(directory: &Path, licences: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, content) in licences {
        match fs::read(directory.join(name)) {
            Ok(found) if found == *content => {}
            Ok(_) => {
                problems.push(format!("has another text in {name} than the root: copy that file beside the manifest"))
            }
            Err(_) => problems.push(format!("has no {name}: copy that file of the root beside the manifest")),
        }
    }
    problems
}

/// Returns what is wrong with a README, given the text that runs the examples and a check for files of the package.
fn readme_problems(package: &Package, readme: &str, tests: &str, is_packed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    let name = &package.name;
    if readme.lines().next() != Some(format!("# {name}").as_str()) {
        problems.push(format!("has a README that does not begin with `# {name}`"));
    }
    for link in links(readme) {
        let to_the_web = link.starts_with("https://") || link.starts_with('#');
        if !to_the_web && !is_packed(link) {
            problems.push(format!("has a README with the link `{link}`, which is not in the package: link to the web"));
        }
    }
    if package.has_library {
        if !readme.lines().any(|line| line.starts_with("```rust")) {
            problems.push("has a README without an example: add a short one in a block ```rust".to_owned());
        }
        if !tests.contains(&format!("{name}/README.md\")")) {
            problems.push(format!("has a README whose example is not tested: include it in {README_TESTS}"));
        }
    }
    problems
}

/// The targets of the links in a Markdown text.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

/// Returns each reference of a documentation comment below `src` to a file that is not in the package.
fn file_references(directory: &Path) -> Outcome<Vec<String>> {
    let (source, mut files) = (directory.join("src"), Vec::new());
    if source.is_dir() {
        rust_files(&source, &mut files)?;
    }
    let mut found = Vec::new();
    for file in files.into_iter().filter(|file| *file != directory.join(HIDDEN)) {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let shown = file.strip_prefix(directory).unwrap_or(&file).display();
        for (line, path) in paths_in_comments(&text) {
            if !directory.join(path).exists() {
                found.push(format!(
                    "refers to `{path}` in a comment, {shown}:{line}, which is not in the package: write the link to the \
                     repository"
                ));
            }
        }
    }
    Ok(found)
}

/// The paths of files in documentation comments, each with its line: words that end as a file does and have a directory,
/// and names of Markdown files. Parts of web addresses do not count.
fn paths_in_comments(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((_, content)) = documentation(line) else { continue };
        let in_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
        for word in content.split(|c| !in_path(c)) {
            let word = word.trim_end_matches('.');
            if is_path(word) {
                found.push((index + 1, word));
            }
        }
    }
    found
}

fn is_path(word: &str) -> bool {
    let path = PathBuf::from(word);
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("md") => !word.starts_with("//"),
        Some("rs" | "toml" | "txt" | "yaml") => word.contains('/') && !word.starts_with('/'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metadata::fake::workspace;

    /// A crate that passes.
    fn good() -> Package {
        let mut package = workspace(&[("a", &[])]).packages.remove(0);
        package.description = Some("A crate".into());
        package.documentation = Some("https://docs.rs/a".into());
        package.repository = Some("https://example.com/a".into());
        package.keywords = vec!["one".into(), "c++".into()];
        package.categories = vec!["encoding".into()];
        package.docs_rs = json!({ "all-features": true });
        package.has_library = true;
        package
    }

    fn check_manifest(change: impl FnOnce(&mut Package), expected: &[&str]) {
        let mut package = good();
        change(&mut package);
        let problems = manifest_problems(&package);
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} should contain {part:?}");
        }
    }

    #[test]
    fn a_complete_manifest_passes() {
        check_manifest(|_| {}, &[]);
        check_manifest(|package| package.docs_rs = json!({ "features": ["x"] }), &[]);
    }

    #[test]
    fn each_missing_field_is_reported_with_a_remedy() {
        check_manifest(|package| package.description = None, &["has no description: add"]);
        check_manifest(|package| package.description = Some(String::new()), &["has no description"]);
        check_manifest(|package| package.licence = None, &["add `license.workspace = true`"]);
        check_manifest(|package| package.repository = None, &["add `repository.workspace = true`"]);
        check_manifest(|package| package.documentation = None, &["add `documentation = \"https://docs.rs/a\"`"]);
        check_manifest(|package| package.categories.clear(), &["has 0 categories"]);
        check_manifest(|package| package.docs_rs = Value::Null, &["add [package.metadata.docs.rs]"]);
        check_manifest(|package| package.docs_rs = json!({ "all-features": false }), &["[package.metadata.docs.rs]"]);
    }

    #[test]
    fn keywords_are_as_the_registry_takes_them() {
        check_manifest(|package| package.keywords.clear(), &["has 0 keywords"]);
        check_manifest(|package| package.keywords = vec!["k".into(); 6], &["has 6 keywords"]);
        for keyword in ["two words", "-x", "a-keyword-that-is-too-long", "größe", ""] {
            check_manifest(|package| package.keywords = vec![keyword.into()], &["which crates.io refuses"]);
        }
    }

    #[test]
    fn a_program_needs_no_page_on_docs_rs() {
        let program = |package: &mut Package| {
            package.has_library = false;
            package.docs_rs = Value::Null;
            package.documentation = Some("https://example.com/manual".into());
        };
        check_manifest(program, &[]);
        check_manifest(
            |package| {
                program(package);
                package.has_library = true;
            },
            &["has no link to its documentation", "[package.metadata.docs.rs]"],
        );
    }

    fn check_readme(readme: &str, tests: &str, expected: &[&str]) {
        let problems = readme_problems(&good(), readme, tests, |link| link == "LICENSE-MIT");
        assert_eq!(problems.len(), expected.len(), "{readme}: {problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} should contain {part:?}");
        }
    }

    #[test]
    fn a_readme_names_its_crate_has_a_tested_example_and_links_to_what_readers_have() {
        const GOOD: &str = "# a\n[x](https://x.org) [y](#part) [z](LICENSE-MIT)\n\n```rust\nlet x = 1;\n```\n";
        const TESTS: &str = "include_str!(\"../../crates/a/README.md\")";
        check_readme(GOOD, TESTS, &[]);
        check_readme(
            GOOD,
            "include_str!(\"../../crates/aa/READ.md\")",
            &["is not tested: include it in tests/src/readmes"],
        );
        check_readme(&GOOD.replace("# a", "# The crate"), TESTS, &["does not begin with `# a`"]);
        check_readme(&GOOD.replace("LICENSE-MIT", "../b"), TESTS, &["the link `../b`, which is not in the package"]);
        check_readme(&GOOD.replace("```rust", "```text"), TESTS, &["without an example"]);
    }

    #[test]
    fn licences_must_be_there_with_the_text_of_the_root() {
        let root = std::env::temp_dir().join(format!("xtask-publishing-{}", std::process::id()));
        let package = root.join("crates/a");
        fs::create_dir_all(&package).unwrap();
        assert!(licence_files(&root).unwrap_err().to_string().contains("has no file LICENSE-"));
        fs::write(root.join("LICENSE-A"), "a").unwrap();
        fs::write(root.join("LICENSE-B"), "b").unwrap();
        fs::write(package.join("LICENSE-B"), "another").unwrap();
        let licences = licence_files(&root).unwrap();
        let problems = licence_problems(&package, &licences);
        fs::write(package.join("LICENSE-A"), "a").unwrap();
        fs::write(package.join("LICENSE-B"), "b").unwrap();
        let none = licence_problems(&package, &licences);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("has no LICENSE-A"), "{problems:?}");
        assert!(problems[1].starts_with("has another text in LICENSE-B"), "{problems:?}");
        assert_eq!(none, [""; 0]);
    }

    #[test]
    fn paths_are_found_in_documentation_comments_only() {
        let text = "//! See `docs/WIRE.md`, and README.md.\n// docs/OTHER.md\n/// <https://x.org/docs/A.md> `examples/a.rs`\n\
                    /// `lib.rs`, 1/2, and/or, /etc/x.toml\n";
        assert_eq!(paths_in_comments(text), [(1, "docs/WIRE.md"), (1, "README.md"), (3, "examples/a.rs")]);
    }
}
