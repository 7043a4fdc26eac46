//! The link of a node to itself: delivery without a socket.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use trunkline_route::{CloseCode, How, Outcome};

use crate::local_account::LocalAccount;
use crate::mailbox::Mailboxes;
use crate::memory::{MemoryPipe, MemoryStream};
use crate::message::{Replier, ReplyTo, Sender};
use crate::packed::{Body, CHUNK, Parcel};
use crate::{
    BoxFuture, ByteStream, CallError, Down, First, Incoming, Link, LinkInfo, LinkState, LinkStats, MAX_STREAMS,
    OpenError, Reply, SendError, Sent, StackLink, StreamCode, StreamEnd, StreamIo, StreamKind, StreamOffer, lock,
};

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

/// The link of a node to itself. Messages go straight into the mailbox, under the limits of a link: a mailbox that nobody
/// reads stops its senders. It stays up until [`LocalLink::shut_down`]: [`Link::close`] and [`Link::go_away`] have no
/// effect.
pub struct LocalLink {
    own: Weak<Self>,
    state: Arc<LinkState>,
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
            state: Arc::new(LinkState::new(info)),
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

    /// Delivers a message if its mailbox has credit for it, and returns whether a mailbox took it. A call that no mailbox takes
    /// is answered so.
    fn deliver(
        &self,
        to: &str,
        from: &str,
        body: Body<'_>,
        how: How,
        call: Option<Replier>,
    ) -> Result<bool, SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        if to.is_empty() || to.len() > 255 || from.len() > 255 {
            return Err(SendError::BadName);
        }
        if body.len() > self.limits.max_message {
            return Err(SendError::TooLarge { len: body.len(), limit: self.limits.max_message });
        }
        let Some(queue) = self.mailboxes.hold(to) else { return Ok(self.refuse(call)) };
        let account = queue.local.get_or_init(|| Arc::new(LocalAccount::new(&self.state, &self.nobody)));
        if !account.take(body.len() as u64, self.limits.mailbox) {
            return Err(SendError::Full);
        }
        let named = || Arc::new(Sender { name: from.into(), ..(*self.nobody).clone() });
        let parcel = Parcel { from: (!from.is_empty()).then(named), body, how, call };
        if let Err(refused) = queue.push_own(account, parcel) {
            drop(queue);
            return Ok(self.refuse(refused.call));
        }
        self.messages.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Counts a message that no mailbox takes, and returns false. A call is answered so.
    #[cold]
    fn refuse(&self, call: Option<Replier>) -> bool {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.undeliverable.fetch_add(1, Ordering::Relaxed);
        if let Some(call) = call {
            call.no_mailbox();
        }
        false
    }

    /// Delivers a copy of a body; see [`LocalLink::deliver`]. A large one is copied before the mailbox is locked.
    fn deliver_copy(
        &self,
        to: &str,
        from: &str,
        body: &[u8],
        how: How,
        call: Option<Replier>,
    ) -> Result<bool, SendError> {
        if body.len() > CHUNK {
            return self.deliver(to, from, Body::Shared(&Bytes::copy_from_slice(body)), how, call);
        }
        self.deliver(to, from, Body::Copied(body), how, call)
    }

    fn try_important(&self, to: &str, from: &str, body: &Bytes) -> Result<Outcome, SendError> {
        let taken = self.deliver(to, from, Body::Shared(body), How::IMPORTANT, None)?;
        Ok(if taken { Outcome::Taken } else { Outcome::NoMailbox })
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
        self.deliver_copy(to, from, body, how, None)?;
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
        let timeout_ms = timeout.as_millis().min(u32::MAX.into()) as u32;
        let replier = Replier::new(self.clone(), id, timeout_ms);
        self.deliver_copy(to, from, body, how, Some(replier))?;
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
