//! The link of a node to itself: delivery without a socket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_route::{CloseCode, How, NodeName, Outcome};

use crate::mailbox::{CreditSink, Mailboxes, Message, Queue, Replier, Reply, ReplyTo, Sender};
use crate::memory::{MemoryPipe, MemoryStream};
use crate::{
    BoxFuture, ByteStream, CallError, Down, First, Incoming, Link, LinkInfo, LinkState, LinkStats, MAX_STREAMS,
    OpenError, SendError, Sent, StackLink, StreamCode, StreamEnd, StreamIo, StreamKind, StreamOffer, lock,
};

/// Credit that a message takes besides its body, as over a native link.
const OVERHEAD: u64 = 64;

/// Limits of what a node sends itself. The defaults are those of a native link: 8 MiB each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLimits {
    /// Bytes that may wait in one mailbox; each message counts 64 bytes more than its body.
    pub mailbox: u64,
    /// Largest message in bytes.
    pub max_message: usize,
}

impl Default for LocalLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { mailbox: 8 * MIB as u64, max_message: 8 * MIB }
    }
}

/// Credit of the node's own messages in one mailbox.
pub(crate) struct LocalAccount {
    name: NodeName,
    waiting: AtomicU64,
    /// A sender found no credit and waits.
    starved: AtomicBool,
    link: Weak<LocalLink>,
}

impl LocalAccount {
    /// Reserves credit, if there is some. A message larger than the window may go alone.
    fn reserve(&self, cost: u64, window: u64) -> bool {
        let fits = |waiting: u64| (waiting == 0 || waiting + cost <= window).then_some(waiting + cost);
        self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }
}

impl CreditSink for LocalAccount {
    fn peer(&self) -> &NodeName {
        &self.name
    }

    fn taken(&self, _: u16, messages: u64, bytes: u64) {
        self.waiting.fetch_sub(bytes + OVERHEAD * messages, Ordering::SeqCst);
        // In one order with a sender, which sets the mark before it looks again: one of the two sees the other.
        if self.starved.swap(false, Ordering::SeqCst)
            && let Some(link) = self.link.upgrade()
        {
            link.state.notify_credit();
        }
    }
}

/// The link of a node to itself. Messages go straight into the mailbox, under the limits of a link: a mailbox that nobody
/// reads stops its senders. It stays up until [`LocalLink::shut_down`]: [`Link::close`] and [`Link::go_away`] have no
/// effect.
pub struct LocalLink {
    own: Weak<Self>,
    state: LinkState,
    /// The same facts, shared with the streams.
    info: Arc<LinkInfo>,
    mailboxes: Arc<Mailboxes>,
    limits: LocalLimits,
    nobody: Arc<Sender>,
    messages: AtomicU64,
    undeliverable: AtomicU64,
    streams: Mutex<Streams>,
}

/// The streams that are open, by number.
#[derive(Default)]
struct Streams {
    next: u64,
    open: HashMap<u64, Weak<MemoryPipe>>,
}

impl LocalLink {
    /// Returns the link of a node to itself; [`LinkInfo::local`] makes the facts.
    pub fn start(info: LinkInfo, mailboxes: Arc<Mailboxes>, limits: LocalLimits) -> Arc<Self> {
        let nobody = Sender { node: info.peer.clone(), name: "".into(), mapping: None, flags: info.flags };
        Arc::new_cyclic(|own| Self {
            own: own.clone(),
            info: Arc::new(info.clone()),
            state: LinkState::new(info),
            mailboxes,
            limits,
            nobody: Arc::new(nobody),
            messages: AtomicU64::new(0),
            undeliverable: AtomicU64::new(0),
            streams: Mutex::default(),
        })
    }

    /// Returns a handle of the link.
    pub fn link(self: &Arc<Self>) -> Link {
        Link::new(self.clone())
    }

    /// Ends the link: calls and streams end as [`Down::ClosedHere`], and nothing new is taken.
    pub fn shut_down(&self) {
        let down = Down::ClosedHere(CloseCode::GoingAway);
        self.state.set_down(&down);
        let open = std::mem::take(&mut lock(&self.streams).open);
        for pair in open.into_values().filter_map(|pair| pair.upgrade()) {
            pair.break_off(StreamEnd::Down(down.clone()));
        }
    }

    fn sender(&self, from: &str) -> Arc<Sender> {
        if from.is_empty() {
            return self.nobody.clone();
        }
        Arc::new(Sender { name: from.into(), ..(*self.nobody).clone() })
    }

    /// Returns the mailbox of a name, with credit for this message reserved; `None` when there is no such mailbox.
    fn reserve(&self, to: &str, from: &str, len: usize) -> Result<Option<Reserved>, SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        if to.is_empty() || to.len() > 255 || from.len() > 255 {
            return Err(SendError::BadName);
        }
        if len > self.limits.max_message {
            return Err(SendError::TooLarge { len, limit: self.limits.max_message });
        }
        let Some(queue) = self.mailboxes.find(to) else { return Ok(None) };
        let account = queue.local.get_or_init(|| {
            Arc::new(LocalAccount {
                name: self.info.peer.clone(),
                waiting: AtomicU64::new(0),
                starved: AtomicBool::new(false),
                link: self.own.clone(),
            })
        });
        let (cost, window) = (len as u64 + OVERHEAD, self.limits.mailbox);
        if !account.reserve(cost, window) {
            account.starved.store(true, Ordering::SeqCst);
            if !account.reserve(cost, window) {
                return Err(SendError::Full);
            }
        }
        let account = account.clone();
        Ok(Some(Reserved { queue, account }))
    }

    /// Delivers a message and returns whether a mailbox took it. A call that no mailbox takes is answered so.
    fn deliver(&self, to: Option<Reserved>, message: Message) -> bool {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let refused = match to {
            Some(Reserved { queue, account }) => queue.push_one(&account, message).err(),
            None => Some(message),
        };
        let Some(message) = refused else { return true };
        self.undeliverable.fetch_add(1, Ordering::Relaxed);
        if let (_, Some(call)) = message.into_parts() {
            call.no_mailbox();
        }
        false
    }

    fn try_important(&self, to: &str, from: &str, body: &Bytes) -> Result<Outcome, SendError> {
        let reserved = self.reserve(to, from, body.len())?;
        let message = Message::new(self.sender(from), body.clone(), How::IMPORTANT, None);
        Ok(if self.deliver(reserved, message) { Outcome::Taken } else { Outcome::NoMailbox })
    }

    fn try_open(
        &self,
        kind: StreamKind,
        data: &[u8],
        first: First<'_>,
        timeout: Duration,
    ) -> Result<(ByteStream, oneshot::Receiver<Result<(), OpenError>>), OpenError> {
        let pair = MemoryPipe::new();
        let slot = {
            let mut streams = lock(&self.streams);
            // Under the lock: what is open when the link ends is ended with it.
            if let Some(down) = self.state.down() {
                return Err(OpenError::Down(down.clone()));
            }
            if streams.open.len() >= MAX_STREAMS {
                return Err(OpenError::TooMany);
            }
            streams.next += 1;
            let number = streams.next;
            streams.open.insert(number, Arc::downgrade(&pair));
            Arc::new(Slot { link: self.own.clone(), number })
        };
        let [ours, theirs] = pair.local(&self.info, &slot);
        // There is room: nothing was written yet, and the window is larger than what may come first.
        let _ = ours.poll_write(&mut Context::from_waker(Waker::noop()), first.bytes);
        if first.is_all {
            let _ = ours.finish();
        }
        let (answer, answered) = oneshot::channel();
        let offer = Offer { pair, end: theirs, answer };
        let incoming = Incoming::new(offer, kind, Bytes::copy_from_slice(data), timeout);
        if let Some(acceptor) = self.mailboxes.acceptor() {
            acceptor(incoming);
        }
        Ok((ByteStream::new(ours), answered))
    }
}

/// A mailbox with credit for one message.
struct Reserved {
    queue: Arc<Queue>,
    account: Arc<LocalAccount>,
}

/// The place of a stream among those that are open; freed when both ends are dropped.
struct Slot {
    link: Weak<LocalLink>,
    number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            lock(&link.streams).open.remove(&self.number);
        }
    }
}

/// A stream that the node wants of itself.
struct Offer {
    pair: Arc<MemoryPipe>,
    end: MemoryStream<Arc<Slot>>,
    answer: oneshot::Sender<Result<(), OpenError>>,
}

impl StreamOffer for Offer {
    fn link_info(&self) -> &LinkInfo {
        self.end.link_info()
    }

    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.pair.poll_over(cx)
    }

    fn accept(self: Box<Self>) -> ByteStream {
        let _ = self.answer.send(Ok(()));
        ByteStream::new(self.end)
    }

    fn refuse(self: Box<Self>, hop: &str, code: StreamCode, text: &str) {
        let hop = if hop.is_empty() { self.link_info().peer.to_string() } else { hop.to_owned() };
        if !self.pair.is_over() {
            self.pair.break_off(StreamEnd::Reset(code));
        }
        let _ = self.answer.send(Err(OpenError::Refused { hop, code, text: text.to_owned() }));
    }
}

impl ReplyTo for LocalLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn reply(&self, id: u32, answer: Result<Reply, Option<String>>) {
        let limit = self.limits.max_message;
        let answer = match answer {
            Ok(Reply { body, .. }) if body.len() > limit => {
                Err(CallError::Failed(format!("the answer has {} bytes, over the limit of {limit}", body.len())))
            }
            Ok(reply) => Ok(reply),
            Err(Some(text)) => Err(CallError::Failed(text)),
            Err(None) => Err(CallError::Dropped),
        };
        self.state.answered(id, answer);
    }

    fn no_mailbox(&self, id: u32) {
        self.state.answered(id, Err(CallError::NoMailbox));
    }
}

impl StackLink for LocalLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        let reserved = self.reserve(to, from, body.len())?;
        self.deliver(reserved, Message::new(self.sender(from), Bytes::copy_from_slice(body), how, None));
        Ok(())
    }

    fn try_call(
        self: Arc<Self>,
        id: u32,
        to: &str,
        from: &str,
        body: &[u8],
        timeout: Duration,
        how: How,
    ) -> Result<(), SendError> {
        let reserved = self.reserve(to, from, body.len())?;
        let timeout_ms = timeout.as_millis().min(u32::MAX.into()) as u32;
        let replier = Replier::new(self.clone(), id, timeout_ms);
        self.deliver(reserved, Message::new(self.sender(from), Bytes::copy_from_slice(body), how, Some(replier)));
        Ok(())
    }

    fn send_important<'a>(
        self: Arc<Self>,
        to: &'a str,
        from: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            let outcome = self.state.with_credit(|| self.try_important(to, from, &body)).await?;
            let (done, told) = oneshot::channel();
            let _ = done.send(outcome);
            Ok(Sent::new(told, None))
        })
    }

    fn open<'a>(
        self: Arc<Self>,
        kind: StreamKind,
        data: &'a [u8],
        first: First<'a>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ByteStream, OpenError>> {
        Box::pin(async move {
            let (stream, answered) = self.try_open(kind, data, first, timeout)?;
            let down = self.state.until(|| self.state.down().cloned());
            tokio::select! {
                biased;
                answer = answered => match answer {
                    Ok(answer) => answer.map(|()| stream),
                    Err(_) => Err(OpenError::Down(Down::ClosedHere(CloseCode::GoingAway))),
                },
                down = down => Err(OpenError::Down(down)),
                () = tokio::time::sleep(timeout) => Err(OpenError::TimedOut(timeout)),
            }
        })
    }

    fn go_away(&self, _: CloseCode) {}

    fn close(&self, _: CloseCode) {}

    fn ping(&self) {}

    fn heard_within(&self, _: Duration) -> bool {
        self.state.down().is_none()
    }

    fn probe(&self, _: Duration) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.state.down().is_none()))
    }

    fn stats(&self) -> LinkStats {
        let messages = self.messages.load(Ordering::Relaxed);
        LinkStats {
            messages_out: messages,
            messages_in: messages,
            undeliverable: self.undeliverable.load(Ordering::Relaxed),
            streams: lock(&self.streams).open.len() as u64,
            ..LinkStats::default()
        }
    }
}

#[cfg(test)]
mod tests;
