//! Reasons for the end of a process.

use std::fmt::Display;

/// Reason for the end of a process, as the processes linked to it and its watchers are told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exit {
    /// The process was done.
    #[error("it ended")]
    Normal,
    /// The process gave up, in its own words.
    #[error("it failed: {0}")]
    Failed(String),
    /// The process panicked.
    #[error("it panicked")]
    Panicked,
    /// The process was stopped from outside, or its node was.
    #[error("it was stopped")]
    Killed,
    /// No such process exists, or it ended earlier.
    #[error("there is no such process")]
    NoProcess,
    /// The connection to its node is down.
    #[error("the connection to its node is down: {0}")]
    NodeDown(String),
    /// The node of the process does not allow this watch; the process may well live.
    #[error("it may not be watched: {0}")]
    Unwatched(String),
}

impl From<()> for Exit {
    fn from((): ()) -> Self {
        Self::Normal
    }
}

impl<E: Display> From<Result<(), E>> for Exit {
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(|error| Self::Failed(error.to_string()), |()| Self::Normal)
    }
}
