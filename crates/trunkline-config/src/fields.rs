//! Typed reading of the tree: each reader reports what is wrong and gives `None`.

use std::path::PathBuf;

use trunkline_matcher::{Lint, Needed, PatternError};

use crate::error::{Problem, nearest};
use crate::secret::Surroundings;
use crate::tree::{At, Key, Node, Value};

/// What is gathered while a tree is read.
pub(crate) struct Reader<'a> {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    pub(crate) around: Surroundings<'a>,
}

impl Reader<'_> {
    pub(crate) fn problem(&mut self, at: &At, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::at(at, key, message));
    }

    /// A file named in the configuration that must be readable and hold PEM sections of this kind.
    pub(crate) fn pem(&mut self, fields: &Fields<'_>, key: &str, section: &str) -> Option<PathBuf> {
        let (text, at) = fields.text(self, key)?;
        let path = self.around.path(text);
        match crate::secret::check_pem(&path, section) {
            Ok(None) => Some(path),
            Ok(Some(warning)) => {
                self.warnings.push(format!("{}: {warning}", fields.path(key)));
                Some(path)
            }
            Err(message) => {
                self.problem(&at, fields.path(key), message);
                None
            }
        }
    }
}

/// A mapping whose keys are known.
pub(crate) struct Fields<'t> {
    path: String,
    entries: &'t [(Key, Node)],
    /// Where the mapping itself stands, for complaints about keys it lacks.
    pub(crate) at: At,
}

impl<'t> Fields<'t> {
    /// Opens a mapping; reports another type, and keys that are not among `known`.
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

    /// The value of a key that is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|(k, node)| k.text == key && !node.is_null()).map(|(_, node)| node)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Where a key stands, or else where the mapping does.
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

    /// A log level; YAML reads a bare `off` as false.
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

    /// A whole number from `low` to `high`.
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

    /// Text read by `parse`; its error is the message.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, at) = self.text(reader, key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                reader.problem(&at, self.path(key), error.to_string());
                None
            }
        }
    }

    /// A file named in the configuration that must be readable.
    pub(crate) fn file(&self, reader: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
        let (text, at) = self.text(reader, key)?;
        let path = reader.around.path(text);
        match crate::secret::open(&path) {
            Ok(_) => Some(path),
            Err(message) => {
                reader.problem(&at, self.path(key), message);
                None
            }
        }
    }

    /// A problem when the key is missing.
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

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A pattern's error with the caret under the place, indented below the paragraph's first line.
pub(crate) fn pattern_message(error: &PatternError) -> String {
    format!("{error}{}", indented(&error.caret()))
}

/// Returns what is wrong with a pattern that no node name can match, with the caret under the place.
pub(crate) fn no_name_message(needed: &Needed, text: &str) -> String {
    let at_end = needed.character() == '\n' && needed.span().end == text.len();
    let remedy = match at_end {
        true => {
            "a YAML block (`|` or `>`) ends in a line break; write the pattern in quotes, or begin the block with `|-`"
        }
        false => "take it out of the pattern",
    };
    format!("no node name matches: {needed}, and no node name does; {remedy}{}", indented(&needed.caret()))
}

/// What a pattern hardly means, with the place under it.
pub fn lint_message(lint: &Lint) -> String {
    format!("{lint}{}", indented(&lint.caret()))
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("\n    {line}")).collect()
}
