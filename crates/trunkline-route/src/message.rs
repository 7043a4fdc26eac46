//! Properties and outcomes of a message between nodes.

/// Properties of a message that its receiver sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct How {
    /// The message goes ahead of others.
    pub high: bool,
    /// The body is a term in Erlang's external format.
    pub term: bool,
    /// The sender is told the outcome.
    pub important: bool,
}

impl How {
    /// A message ahead of others.
    pub const HIGH: Self = Self { high: true, term: false, important: false };
    /// A message whose body is a term.
    pub const TERM: Self = Self { high: false, term: true, important: false };
    /// A message whose sender is told the outcome.
    pub const IMPORTANT: Self = Self { high: false, term: false, important: true };
}

/// Outcome of an important message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The message is in the mailbox.
    Taken,
    /// No such mailbox existed: the message was not delivered, and will not be.
    NoMailbox,
}
