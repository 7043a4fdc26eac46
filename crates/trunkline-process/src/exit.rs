//! Why a process is gone.

use std::fmt::Display;

/// Why a process is gone, as those who are tied to it are told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exit {
    /// It was done.
    #[error("it ended")]
    Normal,
    /// It gave up, in its own words.
    #[error("it failed: {0}")]
    Failed(String),
    /// It panicked.
    #[error("it panicked")]
    Panicked,
    /// It was stopped from outside, or its node was.
    #[error("it was stopped")]
    Killed,
    /// There was none, or not any more.
    #[error("there is no such process")]
    NoProcess,
    /// The connection to its node is down.
    #[error("the connection to its node is down: {0}")]
    NodeDown(String),
    /// Its node does not have it watched from there; the process may well live.
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
