//! `tidy`: what a reviewer should not have to look for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::errors;
use crate::layers::rust_files;
use crate::markdown;
use crate::metadata::Metadata;
use crate::words;
use crate::{Failure, Outcome, Project};

pub(crate) const HELP: &str = "\
Usage: cargo xtask tidy

Checks that
  - every member's manifest inherits its lints, edition, Rust version and all its dependencies from the workspace,
    so that each version is written once
  - the crate table of README.md names every crate under crates/
  - no file in the repository (also not yet committed) holds a leftover `todo` or `unimplemented` macro
  - no source file of a crate is longer than 900 lines
  - every test that docs/SECURITY.md names for a promise exists
  - no documentation comment begins with a pronoun or a question word, outside the directories still to be reworded
  - no error type of a crate is a `String`, and no error text repeats the source of the error, outside the crates still
    to be mended
  - no line of a Markdown file is longer than 120 columns, except table rows, fenced code and single links
";

/// The longest a source file may be, in lines. Longer files hold more than one thing: split them by state or by task.
const MAX_LINES: usize = 900;

/// Macros that mark unfinished code; put together here so that this file does not hold them itself.
const LEFTOVERS: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!(")];

/// Keys that every member's manifest inherits, by section.
const INHERITED: &[(&str, &str)] = &[("lints", "workspace"), ("package", "edition"), ("package", "rust-version")];

/// The document whose table names tests, and the heading of the table.
const PROMISES: (&str, &str) = ("docs/SECURITY.md", "## Promises and their tests");

/// Runs every check of this module.
pub(crate) fn check(project: &Project) -> Outcome {
    let metadata = Metadata::members(project)?;
    let mut problems = Vec::new();
    let mut published = Vec::new();
    for package in metadata.workspace() {
        let shown = package.manifest.strip_prefix(&project.root).unwrap_or(&package.manifest).display().to_string();
        problems
            .extend(manifest_problems(&read(&package.manifest)?).into_iter().map(|text| format!("{shown}: {text}")));
        if shown.starts_with("crates/") {
            published.push(package.name.as_str());
        }
    }
    match fs::read_to_string(project.root.join("README.md")) {
        Ok(readme) => problems.extend(readme_problems(&readme, &published)),
        Err(error) => problems.push(format!("README.md: {error}; it must hold a table of the crates")),
    }
    let promises = read(&project.root.join(PROMISES.0))?;
    let mut missing = promised_tests(&promises);
    if missing.is_empty() {
        problems.push(format!("{}: no test is named under `{}`", PROMISES.0, PROMISES.1));
    }
    for file in repository_files(project)? {
        // A file may be listed and gone, or hold no text.
        let Ok(text) = fs::read_to_string(project.root.join(&file)) else { continue };
        problems.extend(leftovers(&text).into_iter().map(|text| format!("{}:{text}", file.display())));
        problems.extend(markdown::problems(&file, &text).into_iter().map(|text| format!("{}:{text}", file.display())));
        problems.extend(words::problems(&file, &text));
        if file.extension().is_some_and(|extension| extension == "rs") {
            missing.retain(|test| !text.contains(&format!("fn {test}(")));
        }
    }
    problems.extend(missing.iter().map(|test| format!("{}: there is no test `{test}`", PROMISES.0)));
    let mut sources = Vec::new();
    for package in metadata.workspace() {
        let source = package.manifest.with_file_name("src");
        if source.starts_with(project.root.join("crates")) && source.is_dir() {
            rust_files(&source, &mut sources)?;
        }
    }
    for file in sources {
        let (text, shown) = (read(&file)?, file.strip_prefix(&project.root).unwrap_or(&file));
        problems.extend(errors::problems(shown, &text));
        let lines = text.lines().count();
        if lines > MAX_LINES {
            let shown = shown.display();
            problems.push(format!("{shown}: {lines} lines; split it, at most {MAX_LINES} are allowed"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::list("tidy", &problems)) }
}

/// Returns the names in backquotes in the last column of the table of promises.
fn promised_tests(text: &str) -> Vec<String> {
    let table = text.lines().skip_while(|line| *line != PROMISES.1).skip(1).take_while(|line| !line.starts_with("## "));
    let rows = table
        .filter(|line| line.starts_with('|'))
        .filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns the keys that a member's manifest does not inherit.
fn manifest_problems(text: &str) -> Vec<String> {
    let entries = manifest_entries(text);
    let mut problems = Vec::new();
    for (section, key) in INHERITED {
        // `[lints] workspace = true` is the whole section; the others are keys that inherit.
        let inherits = entries.iter().any(|entry| {
            entry.section == *section
                && match *key {
                    "workspace" => entry.key == "workspace" && entry.value == "true",
                    _ => entry.inherits(key),
                }
        });
        if !inherits {
            let wanted =
                if *key == "workspace" { "workspace = true".to_owned() } else { format!("{key}.workspace = true") };
            problems.push(format!("needs `{wanted}` in [{section}]"));
        }
    }
    let mut own_tables: Vec<(&str, bool)> = Vec::new();
    for entry in &entries {
        if let Some(name) = dependency_table(&entry.section) {
            // `[dependencies.name]`, a table of its own.
            let inherits = entry.key == "workspace" && entry.value == "true";
            match own_tables.iter_mut().find(|(table, _)| *table == name) {
                Some((_, seen)) => *seen |= inherits,
                None => own_tables.push((name, inherits)),
            }
        } else if is_dependency_section(&entry.section) {
            let name = entry.key.split('.').next().unwrap_or(&entry.key);
            if !entry.inherits(name) {
                problems.push(format!(
                    "line {}: `{name}` in [{}] needs `workspace = true`; versions and paths stand in the root manifest",
                    entry.line, entry.section
                ));
            }
        }
    }
    for (name, inherits) in own_tables {
        if !inherits {
            problems.push(format!("[{name}] needs `workspace = true`; versions and paths stand in the root manifest"));
        }
    }
    problems
}

/// `key = value` in a section of a manifest.
#[derive(Debug)]
struct Entry {
    section: String,
    key: String,
    value: String,
    line: usize,
}

impl Entry {
    /// Returns true for `name.workspace = true` and `name = { workspace = true, .. }`.
    fn inherits(&self, name: &str) -> bool {
        let dotted = self.key.strip_prefix(name).is_some_and(|rest| rest == ".workspace") && self.value == "true";
        let squeezed: String = self.value.chars().filter(|c| !c.is_whitespace()).collect();
        let inline = self.key == name
            && squeezed
                .strip_prefix('{')
                .is_some_and(|inside| inside.trim_end_matches('}').split(',').any(|part| part == "workspace=true"));
        dotted || inline
    }
}

/// The entries of a manifest. Knows as much TOML as manifests use: tables, keys, and values over several lines.
fn manifest_entries(text: &str) -> Vec<Entry> {
    let mut section = String::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let line = without_comment(line).trim();
        if open > 0 {
            if let Some(entry) = entries.last_mut() {
                entry.value.push_str(line);
                open = unclosed(&entry.value);
            }
        } else if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).trim().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().replace(['"', '\'', ' '], "");
            let value = value.trim().to_owned();
            open = unclosed(&value);
            entries.push(Entry { section: section.clone(), key, value, line: index + 1 });
        }
    }
    entries
}

/// The line up to a `#` outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '#' => return &line[..at],
            None => {}
        }
    }
    line
}

/// Returns the number of brackets and braces outside quotes that a value leaves open.
fn unclosed(value: &str) -> usize {
    let mut quote = None;
    let mut depth = 0_usize;
    for c in value.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '[' | '{' => depth += 1,
                ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
    }
    depth
}

/// `dependencies`, `dev-dependencies`, `target.'cfg(..)'.build-dependencies`, ..
fn is_dependency_section(section: &str) -> bool {
    let last = section.rsplit('.').next().unwrap_or(section);
    matches!(last, "build-dependencies" | "dependencies" | "dev-dependencies")
}

/// The section itself when it is `[dependencies.name]` or one of its kin.
fn dependency_table(section: &str) -> Option<&str> {
    let (table, _) = section.rsplit_once('.')?;
    (is_dependency_section(table) && !is_dependency_section(section)).then_some(section)
}

/// Crates the README's table does not name. A row names a crate when one of its first two cells holds `` `name` ``.
fn readme_problems(readme: &str, crates: &[&str]) -> Vec<String> {
    let names_it = |name: &str| {
        let name = format!("`{name}`");
        readme
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('|'))
            .any(|row| row.trim_start_matches('|').split('|').take(2).any(|cell| cell.contains(&name)))
    };
    crates
        .iter()
        .filter(|name| !names_it(name))
        .map(|name| format!("README.md: its crate table has no row for `{name}`"))
        .collect()
}

/// `line: what` for each leftover.
fn leftovers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for leftover in LEFTOVERS.iter().filter(|leftover| line.contains(**leftover)) {
            found.push(format!("{}: holds `{leftover}..)`; finish it or return an error", index + 1));
        }
    }
    found
}

/// The files of the repository: what git knows or would add. Without git, as in an unpacked archive, every file that
/// is in neither `target` nor a hidden directory.
fn repository_files(project: &Project) -> Outcome<Vec<PathBuf>> {
    let mut git = project.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    if let Ok(output) = git.stderr(Stdio::null()).output()
        && output.status.success()
    {
        let listed = String::from_utf8_lossy(&output.stdout);
        let mut files: Vec<PathBuf> = listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        files.sort();
        files.dedup();
        return Ok(files);
    }
    let mut files = Vec::new();
    walk(&project.root, &project.root, &mut files)?;
    Ok(files)
}

/// Collects files below a directory as paths relative to the root.
fn walk(root: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", directory.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(root, &path, files)?;
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.to_path_buf());
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
[package]
name = \"a\"
edition.workspace = true
rust-version = { workspace = true }

[lints]
workspace = true
";

    fn check_manifest(addition: &str, expected: &[&str]) {
        let problems = manifest_problems(&format!("{GOOD}\n{addition}"));
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} should contain {part:?}");
        }
    }

    #[test]
    fn the_tests_of_the_last_column_are_found_in_the_table_of_promises_only() {
        let text = "`before`\n## Promises and their tests\n\n| promise | test |\n| --- | --- |\n| a `key` | `one`, `two` |\n\n## Next\n| x | `y` |\n";
        assert_eq!(promised_tests(text), ["one", "two"]);
    }

    #[test]
    fn inherited_dependencies_are_fine_in_every_spelling() {
        check_manifest(
            "[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] } # why\n\
             c = {\n  features = [\n    \"y\",\n  ],\n  workspace = true\n}\n[dependencies.d]\nworkspace = true\n\
             [target.'cfg(unix)'.dev-dependencies]\ne.workspace = true\n",
            &[],
        );
    }

    #[test]
    fn a_dependency_with_its_own_version_is_reported() {
        check_manifest("[dependencies]\na = \"1\"\n", &["`a` in [dependencies]"]);
        check_manifest("[build-dependencies]\na = { version = \"1\" }\n", &["`a` in [build-dependencies]"]);
        check_manifest("[dependencies.a]\nversion = \"1\"\nfeatures = []\n", &["[dependencies.a] needs"]);
        check_manifest("[target.'cfg(unix)'.dependencies]\na = \"1\"\n", &["`a` in [target.'cfg(unix)'.dep"]);
        check_manifest("[dependencies]\na.version = \"1\"\n", &["`a` in [dependencies]"]);
    }

    #[test]
    fn lints_edition_and_rust_version_must_be_inherited() {
        let problems = manifest_problems("[package]\nedition = \"2024\"\n");
        let expected = [
            "needs `workspace = true` in [lints]",
            "needs `edition.workspace = true` in [package]",
            "needs `rust-version.workspace = true` in [package]",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn the_readme_table_names_each_crate_exactly() {
        let readme = "| Crate | What |\n| --- | --- |\n| [`one-two`](x) | uses `three` |\nThe crate `four`.\n";
        let crates = ["one-two", "one", "four"];
        let problems = readme_problems(readme, &crates);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("`one`") && problems[1].contains("`four`"), "{problems:?}");
    }

    #[test]
    fn leftovers_are_found_by_line() {
        let text = format!("fn a() {{}}\n    {}\"later\")\n", LEFTOVERS[0]);
        assert_eq!(leftovers(&text).len(), 1);
        assert!(leftovers(&text)[0].starts_with("2:"));
        assert!(leftovers("a todo list, unimplemented so far").is_empty());
    }
}
