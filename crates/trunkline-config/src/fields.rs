//! Typed access to the tree: each reader reports a problem and returns `None` if a value is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use trunkline_matcher::{Lint, Needed, PatternError, quoted, spelled_again};
use trunkline_route::{Chain, IdError};

use crate::error::{BoxError, Problem, elsewhere, nearest};
use crate::secret::Surroundings;
use crate::tree::{At, Key, Node, Value};

/// State of reading a tree: inputs, and the problems and warnings found so far.
pub(crate) struct Reader<'a> {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    pub(crate) around: Surroundings<'a>,
}

impl Reader<'_> {
    pub(crate) fn problem(&mut self, at: &At, key: impl Into<String>, cause: impl Into<BoxError>) {
        self.problems.push(Problem::at(at, key, cause));
    }

    /// Reads the path of a PEM file that must be readable and contain a section of this kind.
    pub(crate) fn pem(&mut self, fields: &Fields<'_>, key: &str, section: &str) -> Option<PathBuf> {
        let (text, at) = fields.text(self, key)?;
        let path = self.around.path(text);
        match crate::secret::check_pem(&path, section) {
            Ok(None) => Some(path),
            Ok(Some(warning)) => {
                self.warnings.push(format!("{}: {}", fields.path(key), Chain(&warning)));
                Some(path)
            }
            Err(error) => {
                self.problem(&at, fields.path(key), error);
                None
            }
        }
    }
}

/// Mapping whose keys are known.
pub(crate) struct Fields<'t> {
    path: String,
    entries: &'t [(Key, Node)],
    /// Place of the mapping itself, for problems about missing keys.
    pub(crate) at: At,
}

impl<'t> Fields<'t> {
    /// Opens a mapping; reports a value of another type, and keys that are not in `known`.
    pub(crate) fn open(reader: &mut Reader<'_>, node: &'t Node, path: &str, known: &[&str]) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a mapping of {}, found {}", known.join(", "), node.kind());
            reader.problem(&node.at, path, message);
            return None;
        };
        for (key, _) in entries {
            if !known.contains(&key.text.as_str()) {
                let path = join(path, &key.text.chars().take(60).collect::<String>());
                reader.problem(&key.at, path, format!("unknown key; {}", nearest(&key.text, known)));
            }
        }
        Some(Self { path: path.to_owned(), entries, at: node.at.clone() })
    }

    /// Returns the value of a key that is present and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|(k, node)| k.text == key && !node.is_null()).map(|(_, node)| node)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns the place of a key, or that of the mapping if the key is missing.
    pub(crate) fn at(&self, key: &str) -> At {
        self.entries.iter().find(|(k, _)| k.text == key).map_or_else(|| self.at.clone(), |(_, node)| node.at.clone())
    }

    pub(crate) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(crate) fn text(&self, reader: &mut Reader<'_>, key: &str) -> Option<(&'t str, At)> {
        let node = self.get(key)?;
        match &node.value {
            Value::Text(text) => Some((text, node.at.clone())),
            Value::List(_) | Value::Map(_) => self.wrong(reader, key, "text"),
            _ => self.wrong(reader, key, "text; put it in quotes"),
        }
    }

    pub(crate) fn string(&self, reader: &mut Reader<'_>, key: &str) -> Option<String> {
        self.text(reader, key).map(|(text, _)| text.to_owned())
    }

    /// Reads a log level. YAML parses an unquoted `off` as false, which is accepted as `off`.
    pub(crate) fn level(&self, reader: &mut Reader<'_>, key: &str) -> Option<String> {
        match &self.get(key)?.value {
            Value::Bool(false) => Some("off".to_owned()),
            _ => self.string(reader, key),
        }
    }

    pub(crate) fn bool(&self, reader: &mut Reader<'_>, key: &str) -> Option<bool> {
        match &self.get(key)?.value {
            Value::Bool(on) => Some(*on),
            _ => self.wrong(reader, key, "true or false"),
        }
    }

    /// Reads a whole number from `low` to `high`.
    pub(crate) fn int(&self, reader: &mut Reader<'_>, key: &str, low: i64, high: i64) -> Option<i64> {
        let node = self.get(key)?;
        let Value::Int(number) = &node.value else { return self.wrong(reader, key, "a whole number") };
        match i64::try_from(*number) {
            Ok(number) if (low..=high).contains(&number) => Some(number),
            _ => {
                reader.problem(&node.at, self.path(key), format!("{number} is not a number from {low} to {high}"));
                None
            }
        }
    }

    /// Reads text with `parse`; its error becomes the problem.
    pub(crate) fn parsed<T, E: Into<BoxError>>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, at) = self.text(reader, key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                reader.problem(&at, self.path(key), error);
                None
            }
        }
    }

    /// Reads the path of a file that must be readable.
    pub(crate) fn file(&self, reader: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
        let (text, at) = self.text(reader, key)?;
        let path = reader.around.path(text);
        match crate::secret::open(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                reader.problem(&at, self.path(key), error);
                None
            }
        }
    }

    /// Reports a problem if the key is missing.
    pub(crate) fn needs(&self, reader: &mut Reader<'_>, key: &str, remedy: &str) {
        if !self.has(key) {
            reader.problem(&self.at, self.path(key), remedy);
        }
    }

    pub(crate) fn list(&self, reader: &mut Reader<'_>, key: &str) -> Option<&'t [Node]> {
        match &self.get(key)?.value {
            Value::List(items) => Some(items),
            _ => self.wrong(reader, key, "a list"),
        }
    }

    /// Opens the mapping under a key.
    /// Reads a list of texts; `expected` is the problem with an item that `read` does not take. `None` without the key.
    pub(crate) fn texts<T>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.has(key) {
            return None;
        }
        let mut found = Vec::new();
        for (nth, item) in self.list(reader, key)?.iter().enumerate() {
            let text = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
            match read(text) {
                Some(read) => found.push(read),
                None => reader.problem(&item.at, format!("{}[{nth}]", self.path(key)), expected.to_owned()),
            }
        }
        Some(found)
    }

    pub(crate) fn fields(&self, reader: &mut Reader<'_>, key: &str, known: &[&str]) -> Option<Fields<'t>> {
        Fields::open(reader, self.get(key)?, &self.path(key), known)
    }

    pub(crate) fn wrong<T>(&self, reader: &mut Reader<'_>, key: &str, expected: &str) -> Option<T> {
        let node = self.get(key)?;
        let (expected, remedy) = expected.split_once("; ").unwrap_or((expected, ""));
        let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
        reader.problem(&node.at, self.path(key), format!("expected {expected}, found {}{remedy}", node.kind()));
        None
    }
}

/// Reads a section of named entries. Also returns the ids of broken entries, so that a reference to one is not reported
/// as well.
pub(crate) fn declared<I: Ord + Clone, T>(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    section: &str,
    what: &str,
    id: impl Fn(&str) -> Result<I, IdError>,
    read: impl Fn(&mut Reader<'_>, &Node, &str) -> Option<T>,
) -> (BTreeMap<I, T>, Vec<I>) {
    let mut things = BTreeMap::new();
    let mut declared = Vec::new();
    match fields.get(section).map(|node| &node.value) {
        None => {}
        Some(Value::Map(entries)) => {
            for (key, node) in entries {
                let path = format!("{section}.{}", key.text.chars().take(64).collect::<String>());
                match id(&key.text) {
                    Ok(id) => {
                        declared.push(id.clone());
                        if let Some(thing) = read(reader, node, &path) {
                            things.insert(id, thing);
                        }
                    }
                    Err(error) => reader.problem(&key.at, path, error),
                }
            }
        }
        Some(_) => {
            fields.wrong::<()>(reader, section, &format!("a mapping from names to {what}"));
        }
    }
    (things, declared)
}

/// Reports a pattern that occurs a second time in a list, naming both places.
pub(crate) fn twice(
    reader: &mut Reader<'_>,
    seen: &mut BTreeMap<String, (String, At)>,
    pattern: &str,
    at: &At,
    path: &str,
) {
    if let Some((first, place)) = seen.get(pattern) {
        let message = format!(
            "the pattern {} occurs twice, first in {first}.match ({}); remove one of them, or, for a second route to the \
             same names, write one of them differently: {}",
            quoted(pattern),
            elsewhere(place),
            quoted(&spelled_again(pattern))
        );
        reader.problem(at, format!("{path}.match"), message);
    } else {
        seen.insert(pattern.to_owned(), (path.to_owned(), at.clone()));
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Formats a pattern's error with a caret under the place, indented below the first line.
pub(crate) fn pattern_message(error: &PatternError) -> String {
    format!("{error}{}", indented(&error.caret()))
}

/// Formats the reason why a pattern matches no node name, with a caret under the place.
pub(crate) fn no_name_message(needed: &Needed, text: &str) -> String {
    let at_end = needed.character() == '\n' && needed.span().end == text.len();
    let remedy = match at_end {
        true => {
            "a YAML block (`|` or `>`) ends with a line break; write the pattern in quotes, or begin the block with `|-`"
        }
        false => "remove it from the pattern",
    };
    format!("no node name can match: {needed}, which no node name does; {remedy}{}", indented(&needed.caret()))
}

/// Formats a warning about a pattern that probably does not mean what it says, with a caret under the place.
pub fn lint_message(lint: &Lint) -> String {
    format!("{lint}{}", indented(&lint.caret()))
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("\n    {line}")).collect()
}
