//! Mailboxes: where arriving messages wait for the program.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use dashmap::{DashMap, Entry};
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use trunkline_route::NodeName;

use crate::local_account::LocalAccount;
use crate::lock;
use crate::message::Message;
use crate::packed::{Packed, Parcel};
use crate::stream::Acceptor;
use crate::turns::Turns;

/// Messages that a mailbox gives of one peer before it looks whether others wait: enough that turns cost nothing, and few
/// enough that a peer that floods a mailbox delays each of the others by little.
const TURN: u32 = 64;

/// Receiver of credit for messages that a program has read. A stack gives one with each [`Batch`].
pub trait CreditSink: Send + Sync + 'static {
    /// Returns the node whose messages these are; mailboxes serve nodes in turns.
    fn peer(&self) -> &NodeName;

    /// Notes that messages of a mailbox were read, or will never be: their number, and the bytes of their bodies.
    /// `mailbox` is the number that the stack gave in the batch. Must not wait; may be called after the link is down.
    fn taken(&self, mailbox: u16, messages: u64, bytes: u64);
}

/// Messages of one link for one mailbox, in order, and who is told that they were read.
pub struct Batch {
    messages: VecDeque<Message>,
    source: Arc<dyn CreditSink>,
    mailbox: u16,
    /// Messages and bytes that were read and not told yet.
    taken: (u64, u64),
}

impl Batch {
    /// Returns an empty batch with room for `capacity` messages. `mailbox` goes back to the sink.
    pub fn new(source: Arc<dyn CreditSink>, mailbox: u16, capacity: usize) -> Self {
        Self { messages: VecDeque::with_capacity(capacity), source, mailbox, taken: (0, 0) }
    }

    /// Adds a message behind the others.
    #[inline]
    pub fn push(&mut self, message: Message) {
        self.messages.push_back(message);
    }

    /// Returns the number of the mailbox that [`Batch::new`] was given.
    #[inline]
    pub fn mailbox(&self) -> u16 {
        self.mailbox
    }

    /// Returns the number of messages that wait.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns true if no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Takes every message for which `keep`, given its place in the batch, returns false: they count as read.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for (at, message) in std::mem::take(&mut self.messages).into_iter().enumerate() {
            if keep(at) {
                self.messages.push_back(message);
            } else {
                self.count(&message);
            }
        }
    }

    /// Ends a batch that nobody takes: calls are told so, and the messages count as read. Returns how many there were.
    pub fn refuse(mut self) -> usize {
        let messages = std::mem::take(&mut self.messages);
        let number = messages.len();
        for message in messages {
            self.count(&message);
            if let (_, Some(call)) = message.into_parts() {
                call.no_mailbox();
            }
        }
        number
    }

    #[inline]
    fn count(&mut self, message: &Message) {
        self.taken.0 += 1;
        self.taken.1 += message.body().len() as u64;
    }

    #[inline]
    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.count(&message);
        if self.messages.is_empty() {
            self.settle();
        }
        Some(message)
    }

    fn settle(&mut self) {
        let (messages, bytes) = std::mem::take(&mut self.taken);
        if messages > 0 {
            self.source.taken(self.mailbox, messages, bytes);
        }
    }
}

impl Drop for Batch {
    /// Gives the credit of what nobody will read any more back as well.
    fn drop(&mut self) {
        for message in std::mem::take(&mut self.messages) {
            self.count(&message);
        }
        self.settle();
    }
}

/// Messages that wait in a queue: of one link, or of the node itself.
enum Waiting {
    Batch(Batch),
    Own(Box<Packed>),
}

impl Waiting {
    fn peer(&self) -> &NodeName {
        match self {
            Self::Batch(batch) => batch.source.peer(),
            Self::Own(own) => own.account().peer(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.is_empty(),
            Self::Own(own) => own.is_empty(),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Message> {
        match self {
            Self::Batch(batch) => batch.pop(),
            Self::Own(own) => own.pop(),
        }
    }
}

/// The queue behind a mailbox, as a stack delivers to it.
pub struct Queue {
    state: Mutex<QueueState>,
    arrived: Notify,
    /// Account of what the node itself sends here.
    pub(crate) local: OnceLock<Arc<LocalAccount>>,
}

#[derive(Default)]
struct QueueState {
    /// Messages of each peer. By its name, not by its link: what an older link of a peer brought comes first.
    batches: Turns<NodeName, Waiting>,
    /// Room for messages of the node itself, from those that were read last.
    spare: Option<Box<Packed>>,
    closed: bool,
}

impl Queue {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), arrived: Notify::new(), local: OnceLock::new() })
    }

    /// Adds a message of the node itself, which has credit in this account. Returns the parcel when the mailbox was dropped.
    pub(crate) fn push_own<'a>(&self, account: &Arc<LocalAccount>, parcel: Parcel<'a>) -> Result<(), Parcel<'a>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(parcel);
        }
        let first = state.batches.is_empty();
        if let Some(Waiting::Own(own)) = state.batches.last_mut(account.peer()) {
            own.push(parcel);
        } else {
            let mut own = state.spare.take().unwrap_or_else(|| Box::new(Packed::new(account.clone())));
            own.push(parcel);
            state.batches.push(account.peer(), Waiting::Own(own));
        }
        drop(state);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Adds a batch behind the others of its node.
    ///
    /// # Errors
    /// The batch, when the mailbox was dropped.
    pub fn push(&self, batch: Batch) -> Result<(), Batch> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(batch);
        }
        let first = state.batches.is_empty();
        let source = batch.source.clone();
        state.batches.push(source.peer(), Waiting::Batch(batch));
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

/// The mailboxes of a node by name, and what becomes of the streams that peers want.
#[derive(Default)]
pub struct Mailboxes {
    queues: DashMap<Arc<str>, Arc<Queue>, RandomState>,
    /// No mailbox is made any more.
    closed: AtomicBool,
    acceptor: RwLock<Option<Arc<Acceptor>>>,
}

/// Reason why a name cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name does not have 1 to 255 bytes.
    #[error("a mailbox name has 1 to 255 bytes, this one has {len}")]
    BadName {
        /// Bytes of the name.
        len: usize,
    },
    /// The node has shut down.
    #[error("this node has shut down; nothing can be registered any more")]
    Closed,
    /// Another mailbox has the name.
    #[error("a mailbox named {name:?} is already registered; drop it first or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
}

impl Mailboxes {
    /// Registers a mailbox. Dropping it frees the name.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken or not 1 to 255 bytes, or after [`Mailboxes::close`].
    pub fn register(self: &Arc<Self>, name: &str) -> Result<Mailbox, RegisterError> {
        let queue = Queue::new();
        let name = self.insert(name, &queue)?;
        Ok(Mailbox { name, alias: None, queue, mailboxes: Arc::downgrade(self), ready: None, left: 0 })
    }

    fn insert(&self, name: &str, queue: &Arc<Queue>) -> Result<Arc<str>, RegisterError> {
        if name.is_empty() || name.len() > 255 {
            return Err(RegisterError::BadName { len: name.len() });
        }
        let key: Arc<str> = name.into();
        match self.queues.entry(key.clone()) {
            // Under the lock of the entry: `close` sets the mark first and then visits every entry.
            _ if self.closed.load(Ordering::SeqCst) => Err(RegisterError::Closed),
            Entry::Occupied(_) => Err(RegisterError::Taken { name: name.into() }),
            Entry::Vacant(free) => {
                free.insert(queue.clone());
                Ok(key)
            }
        }
    }

    /// Returns the registered names, sorted.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.queues.iter().map(|entry| entry.key().clone()).collect();
        names.sort();
        names
    }

    /// Sets what becomes of the streams that peers want. Until this is set, and with `None`, they are refused.
    pub fn accept_streams(&self, acceptor: Option<Arc<Acceptor>>) {
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    /// Returns what becomes of the streams that peers want.
    pub fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every mailbox: each gives what it holds, then `None`. No mailbox is made and no stream accepted any more.
    pub fn close(&self) {
        self.accept_streams(None);
        self.closed.store(true, Ordering::SeqCst);
        self.queues.retain(|_, queue| {
            queue.close();
            false
        });
    }

    /// Returns the queue of a mailbox for a moment in which the mailbox keeps its name: neither wait nor come back here with it.
    #[inline]
    pub(crate) fn hold(&self, name: &str) -> Option<impl Deref<Target = Arc<Queue>>> {
        self.queues.get(name)
    }

    /// Returns the queue of a mailbox, for a stack to deliver to.
    pub fn find(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.get(name).map(|queue| queue.clone())
    }
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Receiving end of messages to a name. Bounded by credit: what is not read stops its senders. The messages of one peer keep
/// their order; peers take turns, so that one that sends much does not hold the others up.
pub struct Mailbox {
    name: Arc<str>,
    alias: Option<Arc<str>>,
    queue: Arc<Queue>,
    mailboxes: Weak<Mailboxes>,
    /// The batch under way, and how many messages of it are left in this turn.
    ready: Option<Waiting>,
    left: u32,
}

impl Mailbox {
    /// Returns the name it is registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds another name besides its own, until it is dropped; at most one.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing changed.
    pub fn also(&mut self, name: &str) -> Result<(), RegisterError> {
        let mailboxes = self.mailboxes.upgrade().ok_or(RegisterError::Closed)?;
        if self.alias.is_some() {
            return Err(RegisterError::Taken { name: name.into() });
        }
        self.alias = Some(mailboxes.insert(name, &self.queue)?);
        Ok(())
    }

    /// Waits for the next message; `None` once the node was shut down. Dropping the future loses nothing.
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

    /// Returns the next message if one is there.
    pub fn try_recv(&mut self) -> Option<Message> {
        if let Some(message) = self.at_hand() {
            return Some(message);
        }
        match self.next() {
            Next::Message(message) => Some(message),
            Next::Closed | Next::Nothing => None,
        }
    }

    /// Leaves the messages of a node where they are, until [`Mailbox::resume`]: the others get their turns, and that node gets no
    /// credit, so that it stops when it has used up what it has.
    pub fn hold(&mut self, peer: &NodeName) {
        let mut state = lock(&self.queue.state);
        state.batches.hold(peer);
        let is_theirs = |waiting: &mut Waiting| waiting.peer() == peer && !waiting.is_empty();
        if let Some(under_way) = self.ready.take_if(is_theirs) {
            state.batches.put_back(peer, under_way);
        }
    }

    /// Ends [`Mailbox::hold`]: the messages of the node are received again, from the one that comes next.
    pub fn resume(&mut self, peer: &NodeName) {
        lock(&self.queue.state).batches.resume(peer);
    }

    /// Returns the next message of the batch under way, without a look at the queue, as long as its turn lasts.
    #[inline]
    fn at_hand(&mut self) -> Option<Message> {
        self.left = self.left.checked_sub(1)?;
        self.ready.as_mut()?.pop()
    }

    fn next(&mut self) -> Next {
        loop {
            let under_way = self.ready.take();
            let (under_way, spare) = match under_way {
                Some(Waiting::Own(mut own)) if own.is_empty() => {
                    own.reset();
                    (None, Some(own))
                }
                under_way => (under_way.filter(|waiting| !waiting.is_empty()), None),
            };
            let mut state = lock(&self.queue.state);
            state.spare = spare.or(state.spare.take());
            self.ready = match under_way {
                Some(waiting) if state.batches.is_empty() => Some(waiting),
                Some(waiting) => {
                    let peer = waiting.peer().clone();
                    state.batches.put_back(&peer, waiting);
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
        if let Some(mailboxes) = self.mailboxes.upgrade() {
            for name in [Some(&self.name), self.alias.as_ref()].into_iter().flatten() {
                mailboxes.queues.remove_if(name, |_, queue| Arc::ptr_eq(queue, &self.queue));
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
