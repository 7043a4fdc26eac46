//! Reasons why processes and applications do not begin, and why two processes are not linked.

use trunkline_dial::CallError;
use trunkline_stack::RegisterError;

use crate::{NoProcess, Refusal, Unwilling};

/// Reason why a process did not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The peer was not reached, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The peer could not do it, in its own words.
    #[error("the peer could not begin a process: {0}")]
    Failed(String),
    /// The connection, or the peer's node, does not allow it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The processes of the offer that run at the peer are as many as may at once; in the peer's words.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The name of its mailbox cannot be had.
    #[error(transparent)]
    Mailbox(#[from] RegisterError),
    /// This node is shutting down.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// The peer offers no processes of that name.
    #[error("the peer offers no processes named {0:?}")]
    Unknown(String),
}

impl SpawnError {
    /// Returns the error for a peer that refused to begin a process of this name.
    pub(super) fn refused(name: &str, Unwilling { refusal, text }: Unwilling) -> Self {
        match refusal {
            Refusal::NotAllowed => Self::NotAllowed(text),
            Refusal::Unknown => Self::Unknown(name.into()),
            Refusal::Overloaded => Self::Overloaded(text),
            _ => Self::Failed(text),
        }
    }
}

/// Reason why two processes are not linked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TieError {
    /// The other's node was not reached, or did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Either of the two pids is that of no process.
    #[error(transparent)]
    NoProcess(#[from] NoProcess),
    /// The other's node refused, in its own words.
    #[error("the peer refused: {0}")]
    Refused(String),
}

impl From<Unwilling> for TieError {
    fn from(Unwilling { refusal, text }: Unwilling) -> Self {
        match refusal {
            Refusal::NoProcess => NoProcess.into(),
            _ => Self::Refused(text),
        }
    }
}

/// Reason why an application was not started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplicationError {
    /// The peer was not reached, or did not answer; it may have started the application.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The peer could not do it, in its own words.
    #[error("the peer could not start it: {0}")]
    Failed(String),
    /// The name is no atom of 1 to 255 bytes.
    #[error(transparent)]
    Name(#[from] RegisterError),
    /// The connection, or the peer's node, does not allow it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The application does not run.
    #[error("the application {0:?} does not run")]
    NotRunning(String),
    /// A process of the application did not begin; those before it were stopped again.
    #[error("the process {mailbox:?} of the application {application:?} did not begin")]
    Process {
        /// Name of the application.
        application: String,
        /// Mailbox of the process.
        mailbox: String,
        /// Reason.
        #[source]
        cause: SpawnError,
    },
    /// The application runs already.
    #[error("the application {0:?} runs already")]
    Running(String),
    /// No application has that name.
    #[error("there is no application named {0:?}")]
    Unknown(String),
}

/// Returns the answer to a peer that may not do what it asks for.
pub(super) fn not_allowed(text: String) -> Unwilling {
    Unwilling { refusal: Refusal::NotAllowed, text }
}

/// Returns the answer to a peer that asks for something that is not offered.
pub(super) fn unknown(what: &str, name: &str) -> Unwilling {
    Unwilling { refusal: Refusal::Unknown, text: format!("there is no {what} named {name:?}") }
}
