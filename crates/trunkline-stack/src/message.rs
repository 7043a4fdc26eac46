//! Messages and calls as a program receives them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline_route::{AtomMapping, How, NodeName, PeerFlags};
use trunkline_term::{Term, TermError};

use crate::reply::Reply;
use crate::{LinkState, term};

/// Sender of a message, shared by the messages of one name of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Node, as the link proved it.
    pub node: NodeName,
    /// Name that the sender gave itself; may be empty.
    pub name: Arc<str>,
    /// Atom mapping of the link.
    pub mapping: Option<Arc<AtomMapping>>,
    /// Flags that both ends of the link agreed on.
    pub flags: PeerFlags,
}

/// Way of the answer to a call, from the mailbox back to the caller.
pub trait ReplyTo: Send + Sync + 'static {
    /// Returns the state of the link that the call came over.
    fn state(&self) -> &LinkState;

    /// Takes the answer to the call of this number: `Err` with the text of a refusal, or with `None` when the program
    /// dropped the call unanswered. Called once for each call, and must not wait.
    fn reply(&self, id: u32, answer: Result<Reply, Option<String>>);

    /// Tells the caller that there is no mailbox of that name.
    fn no_mailbox(&self, id: u32);
}

/// A message or a call, as it comes out of a [`Mailbox`](crate::Mailbox).
pub struct Message {
    origin: Arc<Sender>,
    body: Bytes,
    call: Replier,
    how: How,
}

impl Message {
    /// Returns a message, or a call when there is a replier.
    #[inline]
    pub fn new(sender: Arc<Sender>, body: Bytes, how: How, call: Option<Replier>) -> Self {
        Self { origin: sender, body, call: call.unwrap_or(Replier::NONE), how }
    }

    /// Returns the node that sent it, as the link proved it.
    pub fn node(&self) -> &NodeName {
        &self.origin.node
    }

    /// Returns the name that the sender gave itself; may be empty.
    pub fn sender(&self) -> &str {
        &self.origin.name
    }

    /// Returns the flags that both ends of the connection agreed on.
    pub fn flags(&self) -> PeerFlags {
        self.origin.flags
    }

    /// Returns the bytes that were sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns true if the sender waits for an answer.
    pub fn is_call(&self) -> bool {
        self.call.to.is_some()
    }

    /// Returns true if it was sent ahead of normal messages.
    pub fn is_high_priority(&self) -> bool {
        self.how.high
    }

    /// Returns the term that was sent, with the atom mapping of the link undone; `None` when it was sent as bytes. At most 64
    /// levels deep and of 262,144 terms.
    ///
    /// # Errors
    /// [`TermError`] when the body is marked as a term and is none.
    pub fn term(&self) -> Option<Result<Term, TermError>> {
        self.how.term.then(|| term::decode(&self.body, self.origin.mapping.as_deref()))
    }

    /// Returns how long the caller waits, counted from its call; `None` for a message that is no call.
    pub fn timeout(&self) -> Option<Duration> {
        self.is_call().then(|| Duration::from_millis(self.call.timeout_ms.into()))
    }

    /// Answers a call; does nothing for a message that is none. Never waits: without credit the answer is kept
    /// and leaves when credit arrives.
    pub fn reply(mut self, body: impl Into<Bytes>) {
        self.call.answer(Ok(Reply { body: body.into(), is_term: false }));
    }

    /// Answers a call with a term; see [`Message::reply`].
    ///
    /// # Errors
    /// [`TermError`] when it cannot be written; the caller sees that as `CallError::Failed`.
    pub fn reply_term(self, term: &Term) -> Result<(), TermError> {
        self.call.reply_term(term)
    }

    /// Answers a call with a refusal the caller sees as `CallError::Failed`.
    pub fn refuse(mut self, text: &str) {
        self.call.answer(Err(Some(text.to_owned())));
    }

    /// Returns the body, and the means to answer if it was a call.
    pub fn into_parts(self) -> (Bytes, Option<Replier>) {
        let call = self.is_call().then_some(self.call);
        (self.body, call)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("node", &self.origin.node)
            .field("sender", &self.origin.name)
            .field("len", &self.body.len())
            .field("call", &self.is_call())
            .finish()
    }
}

/// Means to answer one call. Dropped without an answer, it tells the caller so.
pub struct Replier {
    /// `None` once it is answered, and in a message that is no call: an `Option` around the whole would make each message
    /// larger.
    to: Option<Arc<dyn ReplyTo>>,
    id: u32,
    timeout_ms: u32,
}

impl Replier {
    const NONE: Self = Self { to: None, id: 0, timeout_ms: 0 };

    /// Returns the means to answer the call of this number, whose caller waits so many milliseconds.
    pub fn new(to: Arc<dyn ReplyTo>, id: u32, timeout_ms: u32) -> Self {
        Self { to: Some(to), id, timeout_ms }
    }

    /// Answers.
    pub fn reply(mut self, body: impl Into<Bytes>) {
        self.answer(Ok(Reply { body: body.into(), is_term: false }));
    }

    /// Answers with a term.
    ///
    /// # Errors
    /// [`TermError`] when it cannot be written; the caller sees that as `CallError::Failed`.
    pub fn reply_term(mut self, term: &Term) -> Result<(), TermError> {
        let Some(to) = &self.to else { return Ok(()) };
        match to.state().encode(term) {
            Ok(body) => self.answer(Ok(Reply { body: body.into(), is_term: true })),
            Err(error) => {
                self.answer(Err(Some(format!("its answer is no term: {error}"))));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells the caller that there is no mailbox of that name.
    pub fn no_mailbox(mut self) {
        if let Some(to) = self.to.take() {
            to.no_mailbox(self.id);
        }
    }

    fn answer(&mut self, answer: Result<Reply, Option<String>>) {
        if let Some(to) = self.to.take() {
            to.reply(self.id, answer);
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.answer(Err(None));
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("id", &self.id).finish_non_exhaustive()
    }
}
