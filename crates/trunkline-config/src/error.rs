use std::fmt;
use std::path::PathBuf;

use trunkline_matcher::{quoted, spelled_again};

use crate::tree::{At, Layer};

/// Why a configuration was refused: one or several problems, in the order they were found.
///
/// `Display` prints one paragraph per problem. No message contains a secret: values of secret variables and
/// contents of secret files are never kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// From at least one problem.
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty());
        Self { problems }
    }

    pub(crate) fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Self {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file; name an existing one with --config".to_owned(),
            std::io::ErrorKind::InvalidData => "the file is not UTF-8 text; save it as UTF-8".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        Self::new(vec![Problem { origin: path.display().to_string(), place: None, key: String::new(), message }])
    }

    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: String,
    place: Option<(u64, u64)>,
    key: String,
    message: String,
}

impl Problem {
    pub(crate) fn at(at: &At, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: at.origin.label.to_string(), place: place(at), key: key.into(), message: message.into() }
    }

    pub(crate) fn of(
        origin: impl Into<String>,
        place: Option<(u64, u64)>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { origin: origin.into(), place, key: key.into(), message: message.into() }
    }

    /// Where it comes from: the file, `environment variable NAME` or `--set PATH`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The line, from 1, when known.
    pub fn line(&self) -> Option<u64> {
        self.place.map(|(line, _)| line)
    }

    /// The column in characters, from 1, when known.
    pub fn column(&self) -> Option<u64> {
        self.place.map(|(_, column)| column)
    }

    /// The key, for example `routes[2].match`; empty when the whole text is meant.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong and what to do about it. Several lines when a pattern is shown with its caret.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The place worth showing: a value given on one line of the environment or the command line has none.
fn place(at: &At) -> Option<(u64, u64)> {
    let whole = at.line <= 1 && at.column <= 1;
    (at.line > 0 && !(whole && at.origin.layer != Layer::File)).then_some((at.line, at.column))
}

/// How another place is named inside a message.
pub(crate) fn elsewhere(at: &At) -> String {
    match place(at) {
        Some((line, column)) => format!("{}:{line}:{column}", at.origin.label),
        None => at.origin.label.to_string(),
    }
}

/// ` (did you mean `x`?)` when one of the known words is near, else the list of them.
pub(crate) fn nearest(word: &str, known: &[&str]) -> String {
    let part = |k: &str| word.len() >= 3 && k.starts_with(word);
    let distance = |k: &str| if part(k) { 1 } else { strsim::damerau_levenshtein(word, k) };
    let best = known.iter().map(|k| (distance(k), *k)).min();
    match best {
        Some((distance, k)) if distance <= (word.chars().count().max(4) / 2).max(2) => format!("did you mean `{k}`?"),
        Some(_) if known.len() <= 16 => format!("known: {}", known.join(", ")),
        Some((_, k)) => format!("the nearest known one is `{k}`"),
        None => "nothing is known here".to_owned(),
    }
}

/// Why a route entry is no route.
///
/// Each problem names the field it is about; `Display` prints them on lines of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError {
    problems: Vec<FieldProblem>,
}

impl RouteError {
    pub(crate) fn new(problems: Vec<FieldProblem>) -> Self {
        debug_assert!(!problems.is_empty());
        Self { problems }
    }

    /// The problems, at least one.
    pub fn problems(&self) -> &[FieldProblem] {
        &self.problems
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}: {}", problem.field, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for RouteError {}

/// What is wrong with one field of a route entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field, for example `match` or `override.port`.
    pub field: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl FieldProblem {
    pub(crate) fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into() }
    }
}

/// Why a text could not be edited. The text given stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The text is not well-formed; nothing can be found in it.
    #[error("{message}")]
    Malformed {
        /// Where and why, without any of the content.
        message: String,
    },
    /// A route with the same pattern is already there.
    #[error(
        "a route with the pattern {} stands in line {line}; remove it first, or write the second one another way: {}",
        quoted(.pattern), quoted(&spelled_again(.pattern))
    )]
    Taken {
        /// The pattern.
        pattern: String,
        /// The line of the route that has it, from 1.
        line: u64,
    },
    /// No route has this pattern.
    #[error("no route has the pattern `{pattern}`{hint}")]
    Unknown {
        /// The pattern asked for.
        pattern: String,
        /// The nearest pattern there is, as the end of a sentence; empty when there is none.
        hint: String,
    },
    /// The way the text is laid out cannot be edited safely.
    #[error("{what}; edit the file by hand, or write `routes:` as a list with one `- {{ match: … }}` per line")]
    Unsupported {
        /// What stands in the way.
        what: String,
    },
}

/// Why a file could not be saved. The old content is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot save {}", path.display())]
pub struct SaveError {
    /// The file meant.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}
