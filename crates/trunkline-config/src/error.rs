use std::fmt;
use std::path::PathBuf;

use trunkline_matcher::{quoted, spelled_again};
use trunkline_route::{Cause, Chain};

use crate::tree::{At, Layer};

/// Any error, or a text.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error returned when a configuration is refused; holds all problems found, in the order they were found.
///
/// `Display` prints one paragraph per problem. No message contains a secret: values of secret variables and
/// contents of secret files are never kept.
///
/// ```
/// use trunkline_config::{Config, Layers};
///
/// let text = "node: { name: app, cookie_file: cookie }\nrouts: []";
/// let error = Config::parse(text, "/nowhere".as_ref(), "app.yaml", &Layers::none()).unwrap_err();
/// let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key()).collect();
/// assert!(keys.contains(&"node.name") && keys.contains(&"node.cookie_file") && keys.contains(&"routs"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Creates the error from at least one problem.
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty());
        Self { problems }
    }

    pub(crate) fn unreadable(path: &std::path::Path, error: std::io::Error) -> Self {
        let cause = match error.kind() {
            std::io::ErrorKind::NotFound => "the file does not exist; name an existing one with --config".into(),
            std::io::ErrorKind::InvalidData => "the file is not UTF-8 text; save it as UTF-8".into(),
            _ => Cause::new(UnreadableError(error)),
        };
        Self::new(vec![Problem { origin: path.display().to_string(), place: None, key: String::new(), cause }])
    }

    /// Returns the problems; there is at least one.
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

/// Error returned when the file of a configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the file cannot be read")]
struct UnreadableError(#[source] std::io::Error);

/// Problem found in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    origin: String,
    place: Option<(u64, u64)>,
    key: String,
    cause: Cause,
}

impl Problem {
    pub(crate) fn at(at: &At, key: impl Into<String>, cause: impl Into<BoxError>) -> Self {
        Self::of(&*at.origin.label, place(at), key, cause)
    }

    pub(crate) fn of(
        origin: impl Into<String>,
        place: Option<(u64, u64)>,
        key: impl Into<String>,
        cause: impl Into<BoxError>,
    ) -> Self {
        Self { origin: origin.into(), place, key: key.into(), cause: cause.into().into() }
    }

    /// Returns the source of the problem: the file, `environment variable NAME` or `--set PATH`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the line, from 1, if known.
    pub fn line(&self) -> Option<u64> {
        self.place.map(|(line, _)| line)
    }

    /// Returns the column in characters, from 1, if known.
    pub fn column(&self) -> Option<u64> {
        self.place.map(|(_, column)| column)
    }

    /// Returns the key, for example `routes[2].match`; empty if the problem is about the whole text.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns what is wrong and what to do about it. The message has several lines when it marks a place in a pattern.
    pub fn message(&self) -> String {
        Chain(&self.cause).to_string()
    }

    /// Returns the error that the problem is about, for example the [`io::Error`](std::io::Error) of a file among its
    /// sources; see [`Cause::io_kind`].
    pub fn cause(&self) -> &Cause {
        &self.cause
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
        write!(f, ": {}", Chain(&self.cause))
    }
}

/// Returns the line and column to show. A one-line value from the environment or the command line has none.
fn place(at: &At) -> Option<(u64, u64)> {
    let whole = at.line <= 1 && at.column <= 1;
    (at.line > 0 && !(whole && at.origin.layer != Layer::File)).then_some((at.line, at.column))
}

/// Returns the text that refers to a place inside the message about another place.
pub(crate) fn elsewhere(at: &At) -> String {
    match place(at) {
        Some((line, column)) => format!("{}:{line}:{column}", at.origin.label),
        None => at.origin.label.to_string(),
    }
}

/// Returns a hint for an unknown word: the most similar known word, or the list of known words.
pub(crate) fn nearest(word: &str, known: &[&str]) -> String {
    let part = |k: &str| word.len() >= 3 && k.starts_with(word);
    let distance = |k: &str| if part(k) { 1 } else { strsim::damerau_levenshtein(word, k) };
    let best = known.iter().map(|k| (distance(k), *k)).min();
    match best {
        Some((distance, k)) if distance <= (word.chars().count().max(4) / 2).max(2) => format!("did you mean `{k}`?"),
        Some(_) if known.len() <= 16 => format!("known: {}", known.join(", ")),
        Some((_, k)) => format!("the most similar known name is `{k}`"),
        None => "no name is known here".to_owned(),
    }
}

/// Error returned when a route entry is not a valid route.
///
/// Each problem names its field; `Display` prints one problem per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteError {
    problems: Vec<FieldProblem>,
}

impl RouteError {
    pub(crate) fn new(problems: Vec<FieldProblem>) -> Self {
        debug_assert!(!problems.is_empty());
        Self { problems }
    }

    /// Returns the problems; there is at least one.
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
            write!(f, "{}: {}", problem.field, problem.message())?;
        }
        Ok(())
    }
}

impl std::error::Error for RouteError {}

/// Problem with one field of a route entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Name of the field, for example `match` or `override.port`.
    pub field: String,
    /// Error that the problem is about.
    pub cause: Cause,
}

impl FieldProblem {
    pub(crate) fn new(field: &str, cause: impl Into<BoxError>) -> Self {
        Self { field: field.to_owned(), cause: cause.into().into() }
    }

    /// Returns what is wrong and what to do about it.
    pub fn message(&self) -> String {
        Chain(&self.cause).to_string()
    }
}

/// Error returned when a file that a configuration names cannot be used. No text shows any of its content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This user may not read the file.
    #[error("{} cannot be read by this user; give the file to the user that runs the node", path.display())]
    Denied {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file does not exist.
    #[error("{} does not exist; create it or correct the path", path.display())]
    Missing {
        /// Path of the file.
        path: PathBuf,
    },
    /// The PEM file has no section of the kind that is needed.
    #[error("{} has no `-----BEGIN … {section}-----` section; it must be a PEM file", path.display())]
    NoSection {
        /// Path of the file.
        path: PathBuf,
        /// Kind of section, for example `CERTIFICATE`.
        section: String,
    },
    /// The path leads to a directory, device or socket.
    #[error("{} is not a regular file; name a regular file", path.display())]
    NotAFile {
        /// Path.
        path: PathBuf,
    },
    /// Other users can read the file, which holds a secret.
    #[error("{} can be read by other users (mode {mode:04o}); {remedy}", path.display())]
    OpenToOthers {
        /// Path of the file.
        path: PathBuf,
        /// Access rights of the file.
        mode: u32,
        /// Advice for this user.
        remedy: String,
    },
    /// The owner and access rights of the file cannot be determined.
    #[error("{} cannot be examined", path.display())]
    Unexamined {
        /// Path of the file.
        path: PathBuf,
        /// Error reported by the operating system.
        source: std::io::Error,
    },
    /// The file cannot be read for another reason.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error reported by the operating system.
        source: std::io::Error,
    },
}

/// Error returned when a text cannot be edited. The text itself is left unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The text is not well-formed YAML.
    #[error("{message}")]
    Malformed {
        /// Position and reason, without any of the content.
        message: String,
    },
    /// A route with the same pattern exists.
    #[error(
        "the pattern {} is already used by the route in line {line}; remove that route first, or write the new pattern differently: {}",
        quoted(.pattern), quoted(&spelled_again(.pattern))
    )]
    Taken {
        /// Pattern that is already used.
        pattern: String,
        /// Line of the existing route, from 1.
        line: u64,
    },
    /// No route has this pattern.
    #[error("no route has the pattern `{pattern}`{hint}")]
    Unknown {
        /// Pattern that was to be removed.
        pattern: String,
        /// The most similar existing pattern, as the end of a sentence; empty if there are no patterns.
        hint: String,
    },
    /// The layout of the text cannot be edited safely.
    #[error("{what}; edit the file by hand, or write the list with one item per line, as `- {{ … }}`")]
    Unsupported {
        /// Description of the unsupported layout.
        what: String,
    },
}

/// Error returned when a file cannot be saved. The old content is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot save {}", path.display())]
pub struct SaveError {
    /// Path of the file.
    pub path: PathBuf,
    /// Error reported by the operating system.
    #[source]
    pub source: std::io::Error,
}
