//! A link of the in-memory stack, and the future that moves its frames.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use trunkline_route::{CloseCode, Flag, How};
use trunkline_stack::{
    Batch, BoxFuture, ByteStream, CallError, CreditSink, Down, First, Hooks, Incoming, LinkInfo, LinkState, LinkStats,
    Mailboxes, MemoryPipe, Message, OpenError, Replier, Reply, ReplyTo, SendError, Sender, Sent, StackLink, StreamCode,
    StreamEnd, StreamKind, StreamOffer, Transport,
};

use super::{Frame, Network, lock};

/// Bytes that may wait in one mailbox; each message counts 64 bytes more than its body.
const WINDOW: u64 = 8 * 1024 * 1024;
/// Largest message.
const MAX_MESSAGE: usize = WINDOW as usize;
/// Longest wait for the last word of a link that is closed.
const LAST_WORD: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "a link is a shell that takes the time from here")]
fn now() -> Instant {
    Instant::now()
}

fn lost() -> Down {
    Down::ConnectionLost("the transport ended".into())
}

/// One end of a link.
pub(super) struct MemoryLink {
    state: LinkState,
    /// The same facts, shared with the streams.
    info: Arc<LinkInfo>,
    frames: mpsc::UnboundedSender<Frame>,
    closing: OnceLock<CloseCode>,
    has_said_goaway: AtomicBool,
    /// The peer wanted the end of the link before this end did.
    peer_went_first: AtomicBool,
    /// Bytes that wait at the peer, by mailbox.
    waiting: Mutex<HashMap<String, u64>>,
    unanswered: AtomicU64,
    pipes: Mutex<Vec<Weak<MemoryPipe>>>,
    openings: Mutex<HashMap<u64, oneshot::Sender<Result<(), OpenError>>>>,
    next_opening: AtomicU64,
    heard: Mutex<Instant>,
    sent: AtomicU64,
    received: AtomicU64,
    undeliverable: AtomicU64,
}

/// A stream that an end of a link wants.
pub(crate) struct Offer {
    id: u64,
    kind: StreamKind,
    data: Bytes,
    timeout: Duration,
    pipe: Arc<MemoryPipe>,
}

/// An offer, at the end that is to accept it.
struct Offered {
    link: Arc<MemoryLink>,
    id: u64,
    pipe: Arc<MemoryPipe>,
}

impl StreamOffer for Offered {
    fn link_info(&self) -> &LinkInfo {
        &self.link.info
    }

    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.pipe.poll_over(cx)
    }

    fn accept(self: Box<Self>) -> ByteStream {
        self.link.say(Frame::Opened { id: self.id, answer: Ok(()) });
        self.pipe.accepting_end(self.link.info.clone())
    }

    fn refuse(self: Box<Self>, hop: &str, code: StreamCode, text: &str) {
        let refused = OpenError::Refused { hop: hop.to_owned(), code, text: text.to_owned() };
        self.link.say(Frame::Opened { id: self.id, answer: Err(refused) });
        self.pipe.break_off(StreamEnd::Reset(code));
    }
}

/// Credit of the messages of one link in one mailbox.
struct Account {
    link: Arc<MemoryLink>,
    to: String,
}

impl CreditSink for Account {
    fn peer(&self) -> &trunkline_route::NodeName {
        &self.link.info.peer
    }

    fn taken(&self, _: u16, messages: u64, bytes: u64) {
        self.link.say(Frame::Taken { to: self.to.clone(), bytes: bytes + 64 * messages });
    }
}

impl MemoryLink {
    pub(super) fn new(info: LinkInfo, frames: mpsc::UnboundedSender<Frame>) -> Arc<Self> {
        Arc::new(Self {
            info: Arc::new(info.clone()),
            state: LinkState::new(info),
            frames,
            closing: OnceLock::new(),
            has_said_goaway: AtomicBool::new(false),
            peer_went_first: AtomicBool::new(false),
            waiting: Mutex::default(),
            unanswered: AtomicU64::new(0),
            pipes: Mutex::default(),
            openings: Mutex::default(),
            next_opening: AtomicU64::new(0),
            heard: Mutex::new(now()),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            undeliverable: AtomicU64::new(0),
        })
    }

    fn say(&self, frame: Frame) {
        let _ = self.frames.send(frame);
    }

    /// Reserves credit for a message.
    fn reserve(&self, to: &str, from: &str, len: usize) -> Result<(), SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        if !self.state.is_open() {
            return Err(SendError::Draining);
        }
        if to.is_empty() || to.len() > 255 || from.len() > 255 {
            return Err(SendError::BadName);
        }
        if len > MAX_MESSAGE {
            return Err(SendError::TooLarge { len, limit: MAX_MESSAGE });
        }
        let cost = len as u64 + 64;
        let mut waiting = lock(&self.waiting);
        let waits = waiting.entry(to.to_owned()).or_default();
        if *waits > 0 && *waits + cost > WINDOW {
            return Err(SendError::Full);
        }
        *waits += cost;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the end of the link for a reason that one of the ends gave: of an orderly end, the one that wanted it first.
    fn closed_by(&self, code: CloseCode) -> Down {
        if self.peer_went_first.load(Ordering::SeqCst) {
            Down::ClosedByPeer { code, text: String::new() }
        } else {
            Down::ClosedHere(code)
        }
    }

    fn open_streams(&self) -> usize {
        let mut pipes = lock(&self.pipes);
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.len()
    }

    fn keep(&self, pipe: &Arc<MemoryPipe>) {
        lock(&self.pipes).push(Arc::downgrade(pipe));
    }

    /// Closes a link that both ends leave, when nothing is under way on it any more.
    fn close_if_done(&self) {
        let done = self.state.is_inbound_done()
            && self.has_said_goaway.load(Ordering::SeqCst)
            && !self.state.has_calls()
            && self.unanswered.load(Ordering::SeqCst) == 0
            && self.open_streams() == 0;
        if let Some(code) = self.state.going().filter(|_| done) {
            self.close(code);
        }
    }
}

impl ReplyTo for MemoryLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn reply(&self, id: u32, answer: Result<Reply, Option<String>>) {
        let answer = answer.map_err(|text| text.map_or(CallError::Dropped, CallError::Failed));
        self.say(Frame::Answer { id, answer });
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        self.close_if_done();
    }

    fn no_mailbox(&self, id: u32) {
        self.say(Frame::Answer { id, answer: Err(CallError::NoMailbox) });
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        self.close_if_done();
    }
}

impl StackLink for MemoryLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        self.reserve(to, from, body.len())?;
        self.say(Frame::Message { to: to.into(), from: from.into(), body: Bytes::copy_from_slice(body), how });
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
        self.reserve(to, from, body.len())?;
        let timeout_ms = timeout.as_millis().min(u32::MAX.into()) as u32;
        let (to, from, body) = (to.to_owned(), from.to_owned(), Bytes::copy_from_slice(body));
        self.say(Frame::Call { id, to, from, body, how, timeout_ms });
        Ok(())
    }

    fn call_ended(&self) {
        self.close_if_done();
    }

    fn send_important<'a>(self: Arc<Self>, _: &'a str, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(std::future::ready(Err(SendError::Unsupported(Flag::ImportantDelivery))))
    }

    fn open<'a>(
        self: Arc<Self>,
        kind: StreamKind,
        data: &'a [u8],
        first: First<'a>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ByteStream, OpenError>> {
        Box::pin(async move {
            if let Some(down) = self.state.down() {
                return Err(OpenError::Down(down.clone()));
            }
            if !self.state.is_open() {
                return Err(OpenError::Draining);
            }
            let pipe = MemoryPipe::new();
            let mut ours = pipe.opening_end(self.info.clone());
            // There is room: nothing was written yet.
            let _ = ours.write_all(first.bytes).await;
            if first.is_all {
                let _ = ours.shutdown().await;
            }
            self.keep(&pipe);
            let id = self.next_opening.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            lock(&self.openings).insert(id, answer);
            let data = Bytes::copy_from_slice(data);
            self.say(Frame::Open(Offer { id, kind, data, timeout, pipe: pipe.clone() }));
            let answer = tokio::time::timeout(timeout, answered).await;
            lock(&self.openings).remove(&id);
            match answer {
                Ok(Ok(Ok(()))) => Ok(ours),
                Ok(Ok(Err(OpenError::Refused { hop, code, text }))) => {
                    let hop = if hop.is_empty() { self.info.peer.to_string() } else { hop };
                    Err(OpenError::Refused { hop, code, text })
                }
                Ok(Ok(Err(error))) => Err(error),
                Ok(Err(_)) => Err(OpenError::Down(self.state.down().cloned().unwrap_or(lost()))),
                Err(_) => Err(OpenError::TimedOut(timeout)),
            }
        })
    }

    fn go_away(&self, code: CloseCode) {
        self.state.set_going(code);
        if !self.has_said_goaway.swap(true, Ordering::SeqCst) {
            self.say(Frame::GoAway(code));
        }
        self.close_if_done();
    }

    fn close(&self, code: CloseCode) {
        self.state.shut();
        if self.closing.set(code).is_ok() {
            self.say(Frame::Closed(code, String::new()));
            self.state.notify_changed();
        }
    }

    fn ping(&self) {
        self.say(Frame::Ping);
    }

    fn heard_within(&self, time: Duration) -> bool {
        self.state.down().is_none() && lock(&self.heard).elapsed() <= time
    }

    fn probe(&self, within: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let asked = now();
            self.say(Frame::Ping);
            let heard = self.state.until(|| {
                let is_heard = *lock(&self.heard) > asked;
                (is_heard || self.state.down().is_some()).then(|| self.state.down().is_none())
            });
            tokio::time::timeout(within, heard).await.unwrap_or(false)
        })
    }

    fn stats(&self) -> LinkStats {
        LinkStats {
            messages_out: self.sent.load(Ordering::Relaxed),
            messages_in: self.received.load(Ordering::Relaxed),
            undeliverable: self.undeliverable.load(Ordering::Relaxed),
            streams: self.open_streams() as u64,
            ..LinkStats::default()
        }
    }
}

/// The future that moves the frames of a link. Dropped, the link is down.
pub(super) struct Driver {
    network: Arc<Network>,
    link: Arc<MemoryLink>,
    mailboxes: Arc<Mailboxes>,
    hooks: Hooks,
}

impl Driver {
    pub(super) fn new(network: Arc<Network>, link: Arc<MemoryLink>, mailboxes: Arc<Mailboxes>, hooks: Hooks) -> Self {
        Self { network, link, mailboxes, hooks }
    }

    pub(super) async fn run(mut self, over: Transport, mut frames: mpsc::UnboundedReceiver<Frame>) {
        let (mut read, mut write) = tokio::io::split(over);
        let (network, link) = (self.network.clone(), self.link.clone());
        // The last word is behind everything that was said before it, as far as the peer takes that in time.
        let too_late = async {
            let code = link.state.until(|| link.closing.get().copied()).await;
            tokio::time::sleep(LAST_WORD).await;
            link.closed_by(code)
        };
        let down = tokio::select! {
            down = self.read(&mut read) => down,
            code = write_frames(&network, &mut write, &mut frames) => link.closed_by(code),
            down = too_late => down,
        };
        self.tell(&down);
    }

    async fn read(&mut self, read: &mut ReadHalf<Transport>) -> Down {
        if let Some(hold) = self.hooks.hold.take() {
            hold.await;
        }
        loop {
            let mut number = [0; 8];
            if read.read_exact(&mut number).await.is_err() {
                return lost();
            }
            let Ok(frame) = self.network.take(number) else {
                return Down::ClosedHere(CloseCode::ProtocolError);
            };
            *lock(&self.link.heard) = now();
            self.link.state.notify_changed();
            if let Some(hold) = self.hooks.on_first_frame.take().and_then(|first| first()) {
                hold.await;
            }
            if let Some(down) = self.receive(frame) {
                return down;
            }
            self.link.close_if_done();
        }
    }

    fn receive(&self, frame: Frame) -> Option<Down> {
        let link = &self.link;
        match frame {
            Frame::Message { to, from, body, how } => self.deliver(to, from, body, how, None),
            Frame::Call { id, to, from, body, how, timeout_ms } => {
                link.unanswered.fetch_add(1, Ordering::SeqCst);
                self.deliver(to, from, body, how, Some(Replier::new(link.clone(), id, timeout_ms)));
            }
            Frame::Answer { id, answer } => link.state.answered(id, answer),
            Frame::Taken { to, bytes } => {
                if let Some(waits) = lock(&link.waiting).get_mut(&to) {
                    *waits = waits.saturating_sub(bytes);
                }
                link.state.notify_credit();
            }
            Frame::Open(Offer { id, kind, data, timeout, pipe }) => {
                link.keep(&pipe);
                let incoming = Incoming::new(Offered { link: link.clone(), id, pipe }, kind, data, timeout);
                match self.mailboxes.acceptor() {
                    Some(_) if !link.state.is_open() => incoming.refuse(StreamCode::GoingAway, ""),
                    Some(acceptor) => acceptor(incoming),
                    None => incoming.refuse(StreamCode::NoService, "no streams are accepted here"),
                }
            }
            Frame::Opened { id, answer } => {
                let waiting = lock(&link.openings).remove(&id);
                let _ = waiting.map(|waiting| waiting.send(answer));
            }
            Frame::GoAway(code) => {
                if !link.has_said_goaway.load(Ordering::SeqCst) {
                    link.peer_went_first.store(true, Ordering::SeqCst);
                }
                link.state.set_going(code);
                link.state.set_inbound_done();
                link.go_away(code);
            }
            Frame::Ping => link.say(Frame::Pong),
            Frame::Pong => {}
            Frame::Closed(code, _) if link.has_said_goaway.load(Ordering::SeqCst) => return Some(link.closed_by(code)),
            Frame::Closed(code, text) => return Some(Down::ClosedByPeer { code, text }),
            _ => return Some(Down::ClosedHere(CloseCode::ProtocolError)),
        }
        None
    }

    fn deliver(&self, to: String, from: String, body: Bytes, how: How, call: Option<Replier>) {
        let (link, info) = (&self.link, &self.link.info);
        link.received.fetch_add(1, Ordering::Relaxed);
        let sender =
            Sender { node: info.peer.clone(), name: from.into(), mapping: info.mapping.clone(), flags: info.flags };
        let queue = self.mailboxes.find(&to);
        let mut batch = Batch::new(Arc::new(Account { link: link.clone(), to }), 0, 1);
        batch.push(Message::new(Arc::new(sender), body, how, call));
        let refused = match queue {
            Some(queue) => queue.push(batch).err(),
            None => Some(batch),
        };
        if let Some(batch) = refused {
            link.undeliverable.fetch_add(batch.refuse() as u64, Ordering::Relaxed);
        }
    }

    fn tell(&mut self, down: &Down) {
        let Some(on_down) = self.hooks.on_down.take() else { return self.end(down) };
        self.end(down);
        on_down(down, self.link.state.going());
        self.link.state.notify_changed();
    }

    fn end(&self, down: &Down) {
        let link = &self.link;
        if link.state.down().is_some() {
            return;
        }
        link.state.set_down(down);
        lock(&link.openings).clear();
        for pipe in std::mem::take(&mut *lock(&link.pipes)).into_iter().filter_map(|pipe| pipe.upgrade()) {
            pipe.break_off(StreamEnd::Down(down.clone()));
        }
        link.state.notify_changed();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.tell(&lost());
    }
}

/// Writes frames up to the last word, and returns its reason. Never ends when the peer takes no more: what it wrote before is
/// still to be read.
async fn write_frames(
    network: &Network,
    write: &mut WriteHalf<Transport>,
    frames: &mut mpsc::UnboundedReceiver<Frame>,
) -> CloseCode {
    while let Some(frame) = frames.recv().await {
        let last = if let Frame::Closed(code, _) = &frame { Some(*code) } else { None };
        let written = write.write_all(&network.put(frame)).await;
        match last {
            Some(code) => return code,
            None if written.is_err() => break,
            None => {}
        }
    }
    std::future::pending().await
}
