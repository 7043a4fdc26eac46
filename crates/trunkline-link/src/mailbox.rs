//! Where arriving messages wait for the program.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use trunkline_route::{AtomMapping, NodeName, PeerFlags};
use trunkline_term::{Term, TermError};
use trunkline_wire::mux::{How, Status, cost};

use crate::account::Accounts;
use crate::byte_stream::{Acceptor, Reception};
use crate::link::Shared;
use crate::term;
use crate::turns::Turns;

/// Messages that a mailbox gives of one peer before it looks whether others wait: enough that turns cost nothing, and few
/// enough that a peer that floods a service delays each of the others by little.
const TURN: u32 = 64;

pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No critical section of this crate can be left half-way by a panic that callers could notice.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) node: NodeName,
    pub(crate) name: Arc<str>,
    /// What names are called there.
    pub(crate) mapping: Option<Arc<AtomMapping>>,
    /// What its connection agreed on.
    pub(crate) flags: PeerFlags,
}

/// A message or a call, as it comes out of a [`Mailbox`].
pub struct Message {
    origin: Arc<Origin>,
    body: Bytes,
    call: Option<Replier>,
    how: How,
}

impl Message {
    pub(crate) fn new(origin: Arc<Origin>, body: Bytes, how: How) -> Self {
        Self { origin, body, call: None, how }
    }

    pub(crate) fn call(origin: Arc<Origin>, body: Bytes, replier: Replier, how: How) -> Self {
        Self { origin, body, call: Some(replier), how }
    }

    /// The node it came from, as the link proved it.
    pub fn node(&self) -> &NodeName {
        &self.origin.node
    }

    /// The name the sender gave itself there; may be empty.
    pub fn sender(&self) -> &str {
        &self.origin.name
    }

    /// What both ends of the connection it came over agreed on.
    pub fn flags(&self) -> PeerFlags {
        self.origin.flags
    }

    /// What was sent.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the sender waits for an answer.
    pub fn is_call(&self) -> bool {
        self.call.is_some()
    }

    /// Whether it was sent ahead of normal messages.
    pub fn is_high_priority(&self) -> bool {
        self.how.high
    }

    /// The term that was sent, with the names this node calls things by; `None` when it was sent as bytes. At most 64
    /// levels deep and of 262,144 terms.
    ///
    /// # Errors
    /// [`TermError`] when the body is marked as a term and is none.
    pub fn term(&self) -> Option<Result<Term, TermError>> {
        self.how.term.then(|| term::decode(&self.body, self.origin.mapping.as_deref()))
    }

    /// How long the caller waits, counted from its call; `None` for a message that is no call.
    pub fn deadline(&self) -> Option<Duration> {
        self.call.as_ref().map(|call| Duration::from_millis(call.deadline_ms.into()))
    }

    /// Answers a call; does nothing for a message that is none. Never waits: without credit the answer is kept
    /// and leaves when credit arrives.
    pub fn reply(mut self, body: impl Into<Bytes>) {
        if let Some(call) = &mut self.call {
            call.answer(Status::Ok, body.into(), How::default());
        }
    }

    /// As [`Message::reply`], with a term.
    ///
    /// # Errors
    /// [`TermError`] when it cannot be written; the caller sees that as `CallError::Failed`.
    pub fn reply_term(self, term: &Term) -> Result<(), TermError> {
        self.call.map_or(Ok(()), |call| call.reply_term(term))
    }

    /// Answers a call with a refusal the caller sees as `CallError::Failed`.
    pub fn refuse(mut self, text: &str) {
        if let Some(call) = &mut self.call {
            call.answer(Status::Failed, Bytes::copy_from_slice(text.as_bytes()), How::default());
        }
    }

    /// The body, and the means to answer if it was a call.
    pub fn into_parts(self) -> (Bytes, Option<Replier>) {
        (self.body, self.call)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("node", &self.origin.node)
            .field("sender", &self.origin.name)
            .field("len", &self.body.len())
            .field("call", &self.call.is_some())
            .finish()
    }
}

/// Answers one call. Dropped without an answer, it tells the caller so.
pub struct Replier {
    link: Arc<Shared>,
    id: u32,
    deadline_ms: u32,
    done: bool,
}

impl Replier {
    pub(crate) fn new(link: Arc<Shared>, id: u32, deadline_ms: u32) -> Self {
        Self { link, id, deadline_ms, done: false }
    }

    /// Answers.
    pub fn reply(mut self, body: impl Into<Bytes>) {
        self.answer(Status::Ok, body.into(), How::default());
    }

    /// Answers with a term.
    ///
    /// # Errors
    /// [`TermError`] when it cannot be written; the caller sees that as `CallError::Failed`.
    pub fn reply_term(mut self, term: &Term) -> Result<(), TermError> {
        match self.link.encode(term) {
            Ok(body) => self.answer(Status::Ok, body.into(), How::TERM),
            Err(error) => {
                self.answer(Status::Failed, format!("its answer is no term: {error}").into(), How::default());
                return Err(error);
            }
        }
        Ok(())
    }

    pub(crate) fn answer(&mut self, status: Status, body: Bytes, how: How) {
        if !std::mem::replace(&mut self.done, true) {
            self.link.reply(self.id, status, body, how);
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.answer(Status::Dropped, Bytes::new(), How::default());
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Messages of one link for one mailbox, filled by one read, and who gets the credit back.
pub(crate) struct Batch {
    pub(crate) messages: VecDeque<Message>,
    pub(crate) source: Arc<Shared>,
    pub(crate) mailbox_id: u16,
    pub(crate) taken: u64,
}

impl Batch {
    #[inline]
    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.taken += cost(message.body.len());
        if self.messages.is_empty() {
            self.settle();
        }
        Some(message)
    }

    fn settle(&mut self) {
        if self.taken > 0 {
            self.source.took(self.mailbox_id, std::mem::take(&mut self.taken));
        }
    }
}

impl Drop for Batch {
    /// What nobody will read any more gives its credit back as well.
    fn drop(&mut self) {
        self.taken += self.messages.iter().map(|m| cost(m.body.len())).sum::<u64>();
        self.settle();
    }
}

pub(crate) struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
}

#[derive(Default)]
struct QueueState {
    /// Batches of each peer. By its name, not by its link: what an older link of a peer brought comes first.
    batches: Turns<NodeName, Batch>,
    closed: bool,
}

impl Queue {
    /// Gives the batch back when nobody reads here any more.
    pub(crate) fn push(&self, batch: Batch) -> Result<(), Batch> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(batch);
        }
        let first = state.batches.is_empty();
        let source = batch.source.clone();
        state.batches.push(&source.info.peer, batch);
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes nothing more; what is there can still be read.
    fn close(&self) {
        lock(&self.state).closed = true;
        self.arrived.notify_one();
    }
}

/// The mailboxes of a node, by name.
#[derive(Default)]
pub struct Directory {
    queues: RwLock<HashMap<Arc<str>, Arc<Queue>>>,
    /// No mailbox is made any more; written under the lock of the queues.
    closed: AtomicBool,
    pub(crate) accounts: Accounts,
    pub(crate) reception: Reception,
}

/// A mailbox of that name exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Not 1 to 255 bytes.
    #[error("a service name has 1 to 255 bytes, this one has {len}")]
    BadName {
        /// How many bytes it has.
        len: usize,
    },
    /// The directory was closed: the node has shut down.
    #[error("this node has shut down; nothing can be registered any more")]
    Closed,
    /// The name is taken.
    #[error("a service named {name:?} is already registered; drop its mailbox first or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
}

impl Directory {
    /// Makes a mailbox. Dropping it frees the name.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken or not 1 to 255 bytes, or after [`Directory::close`].
    pub fn register(self: &Arc<Self>, name: &str) -> Result<Mailbox, RegisterError> {
        if name.is_empty() || name.len() > 255 {
            return Err(RegisterError::BadName { len: name.len() });
        }
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Relaxed) {
            return Err(RegisterError::Closed);
        }
        if queues.contains_key(name) {
            return Err(RegisterError::Taken { name: name.into() });
        }
        let (name, queue): (Arc<str>, _) =
            (name.into(), Arc::new(Queue { state: Mutex::default(), arrived: Notify::new() }));
        queues.insert(name.clone(), queue.clone());
        Ok(Mailbox { name, alias: None, queue, directory: Arc::downgrade(self), ready: None, left: 0 })
    }

    /// The registered names, sorted.
    pub fn names(&self) -> Vec<Arc<str>> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = queues.keys().cloned().collect();
        names.sort();
        names
    }

    /// What becomes of the streams that peers want: until this is set, and with `None`, they are refused.
    pub fn accept_streams(&self, acceptor: Option<Arc<Acceptor>>) {
        self.reception.set(acceptor);
    }

    /// Ends every mailbox: each gives what it holds, then `None`. No mailbox is made and no stream accepted any more.
    pub fn close(&self) {
        self.reception.set(None);
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Relaxed);
        let queues = std::mem::take(&mut *queues);
        for queue in queues.values() {
            queue.close();
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// The receiving end of a service. Bounded by credit: what is not read stops its senders. The messages of one peer keep
/// their order; peers take turns, so that one that sends much does not hold the others up.
pub struct Mailbox {
    name: Arc<str>,
    alias: Option<Arc<str>>,
    queue: Arc<Queue>,
    directory: Weak<Directory>,
    /// The batch under way, and how many messages of it are left in this turn.
    ready: Option<Batch>,
    left: u32,
}

impl Mailbox {
    /// The name it is registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it another name besides its own, until it is dropped. It has at most one.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing changed.
    pub fn also(&mut self, name: &str) -> Result<(), RegisterError> {
        let taken = || RegisterError::Taken { name: name.into() };
        if name.is_empty() || name.len() > 255 {
            return Err(RegisterError::BadName { len: name.len() });
        }
        let directory = self.directory.upgrade().ok_or_else(taken)?;
        let mut queues = directory.queues.write().unwrap_or_else(PoisonError::into_inner);
        if directory.closed.load(Ordering::Relaxed) {
            return Err(RegisterError::Closed);
        }
        if self.alias.is_some() || queues.contains_key(name) {
            return Err(taken());
        }
        let name: Arc<str> = name.into();
        queues.insert(name.clone(), self.queue.clone());
        self.alias = Some(name);
        Ok(())
    }

    /// The next message; `None` once the node was shut down. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.at_hand() {
                return Some(message);
            }
            match self.next() {
                Next::Message(message) => return Some(message),
                Next::Closed => return None,
                Next::Nothing => self.queue.arrived.notified().await,
            }
        }
    }

    /// The next message if one is there.
    pub fn try_recv(&mut self) -> Option<Message> {
        if let Some(message) = self.at_hand() {
            return Some(message);
        }
        match self.next() {
            Next::Message(message) => Some(message),
            Next::Closed | Next::Nothing => None,
        }
    }

    /// The next of the batch under way, without a look at the queue, as long as its turn lasts.
    #[inline]
    fn at_hand(&mut self) -> Option<Message> {
        self.left = self.left.checked_sub(1)?;
        self.ready.as_mut()?.pop()
    }

    fn next(&mut self) -> Next {
        loop {
            let under_way = self.ready.take().filter(|batch| !batch.messages.is_empty());
            let mut state = lock(&self.queue.state);
            self.ready = match under_way {
                Some(batch) if state.batches.is_empty() => Some(batch),
                Some(batch) => {
                    let peer = batch.source.info.peer.clone();
                    state.batches.put_back(&peer, batch);
                    state.batches.pop()
                }
                None => state.batches.pop(),
            };
            self.left = TURN;
            if self.ready.is_none() {
                return if state.closed { Next::Closed } else { Next::Nothing };
            }
            drop(state);
            if let Some(message) = self.at_hand() {
                return Next::Message(message);
            }
        }
    }
}

enum Next {
    Message(Message),
    Nothing,
    Closed,
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.upgrade() {
            let mut queues = directory.queues.write().unwrap_or_else(PoisonError::into_inner);
            for name in [Some(&self.name), self.alias.as_ref()].into_iter().flatten() {
                if queues.get(name).is_some_and(|queue| Arc::ptr_eq(queue, &self.queue)) {
                    queues.remove(name);
                }
            }
        }
        self.queue.close();
        // Outside the lock: what nobody will read any more answers its calls and gives its credit back.
        let unread = std::mem::take(&mut lock(&self.queue.state).batches);
        drop(unread);
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("name", &self.name).finish_non_exhaustive()
    }
}
