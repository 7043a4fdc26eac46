//! A live link: what its handles and its task share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use trunkline_route::{CloseCode, Flag, How, NodeName};
use trunkline_stack::{
    BoxFuture, ByteStream, CreditSink, Down, First, LinkInfo, LinkState, LinkStats, OpenError, Reply, ReplyTo,
    SendError, Sent, StackLink, StreamKind, log_connection,
};
use trunkline_wire::mux::{Class, Outbox, Refused, Status, Window, cost};

use crate::account::{Account, ImportantLink};
use crate::byte_stream::{self, Streams};
use crate::shell::{clock_us, lock, us_of};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) undeliverable: AtomicU64,
    pub(crate) round_trip_us: AtomicU64,
    /// Time at which the peer was heard last.
    heard_us: AtomicU64,
}

/// The outgoing side, behind the one lock senders take.
pub(crate) struct Out {
    pub(crate) outbox: Outbox,
    /// The link's task knows that there is work.
    pub(crate) scheduled: bool,
    /// The last word, when this end wants to close.
    pub(crate) closing: Option<CloseCode>,
    pub(crate) messages: u64,
}

impl Out {
    fn open(&mut self) -> Result<&mut Outbox, Refused> {
        if self.closing.is_some() { Err(Refused::Draining) } else { Ok(&mut self.outbox) }
    }
}

/// State that the handles and the task of a link share.
pub(crate) struct Shared {
    pub(crate) state: LinkState,
    pub(crate) own_window: Window,
    pub(crate) out: Mutex<Out>,
    pub(crate) wake: Notify,
    /// Calls of the peer that were not answered yet.
    pub(crate) unanswered: AtomicUsize,
    pub(crate) counters: Counters,
    /// Reading waits for a hold, so nothing can be known of the peer.
    pub(crate) held: AtomicBool,
    /// Number of probes that want to know of every read.
    probes: AtomicUsize,
    pub(crate) streams: Streams,
    /// Account of important messages, if both ends agreed on them.
    pub(crate) account: Option<Arc<Account>>,
}

impl Shared {
    pub(crate) fn new(
        info: LinkInfo,
        peer_window: Window,
        own_window: Window,
        account: Option<Arc<Account>>,
        streams: Streams,
    ) -> Self {
        let mut outbox = Outbox::new(peer_window, info.flags, info.mapping.clone());
        if let Some(account) = &account {
            outbox.outcomes(true, &lock(&account.incoming).outcomes());
        }
        Self {
            own_window,
            out: Mutex::new(Out { outbox, scheduled: false, closing: None, messages: 0 }),
            wake: Notify::new(),
            unanswered: AtomicUsize::new(0),
            counters: Counters { heard_us: clock_us().into(), ..Counters::default() },
            held: AtomicBool::new(false),
            probes: AtomicUsize::new(0),
            streams,
            account,
            state: LinkState::new(info),
        }
    }

    #[inline]
    pub(crate) fn info(&self) -> &LinkInfo {
        self.state.info()
    }

    /// Changes the outgoing side and wakes the link's task if it does not know of work yet.
    pub(crate) fn with_out<T>(&self, change: impl FnOnce(&mut Out) -> T) -> T {
        let mut out = lock(&self.out);
        let result = change(&mut out);
        let wake = !out.scheduled && out.outbox.has_ready();
        out.scheduled |= wake;
        drop(out);
        if wake {
            self.wake.notify_one();
        }
        result
    }

    pub(crate) fn note_behind(&self, out: &Out) {
        self.state.set_crowded(out.outbox.is_behind());
    }

    /// Changes what the link's task must look at even when the socket takes nothing.
    fn turn(&self, change: impl FnOnce(&mut Out)) {
        change(&mut lock(&self.out));
        self.wake.notify_one();
        self.state.notify_credit();
    }

    pub(crate) fn go_away(&self, code: CloseCode) {
        log_connection!(self.info(), Debug, "going away", %code);
        self.state.set_going(code);
        self.turn(|out| out.outbox.go_away(code.to_byte(), ""));
    }

    /// Notes that the socket gave `bytes` at this time.
    pub(crate) fn heard(&self, bytes: usize, at: Instant) {
        self.counters.heard_us.store(us_of(at), Ordering::Relaxed);
        // In one order with a probe, which is counted before it looks: one of the two sees the other.
        self.counters.bytes_in.fetch_add(bytes as u64, Ordering::SeqCst);
        if self.probes.load(Ordering::SeqCst) > 0 {
            self.state.notify_changed();
        }
    }

    pub(crate) fn ping(&self) {
        let mut payload = [0; 16];
        payload[8..].copy_from_slice(&clock_us().to_be_bytes());
        self.with_out(|out| out.outbox.ping(trunkline_wire::frame::PING, &payload));
    }

    fn refused(&self, refused: Refused, len: usize) -> SendError {
        match refused {
            Refused::BadName => SendError::BadName,
            Refused::Draining => self.down().map_or(SendError::Draining, SendError::Down),
            Refused::Full => SendError::Full,
            Refused::TooLarge { limit } => SendError::TooLarge { len, limit },
            Refused::TooManyNames => SendError::TooManyNames,
            Refused::Unsupported(flag) => SendError::Unsupported(flag),
        }
    }

    /// Queues the answer to a call of the peer.
    fn answer(&self, id: u32, status: Status, body: Bytes, how: How) {
        log_connection!(self.info(), Trace, "answered", call = id, ?status, bytes = body.len());
        self.with_out(|out| {
            let limit = out.outbox.max_message();
            let (status, body, how) = if body.len() > limit {
                let text = format!("the answer has {} bytes, over the limit of {limit}", body.len());
                (Status::Failed, Bytes::from(text), How::default())
            } else {
                (status, body, how)
            };
            if self.state.down().is_none() && out.closing.is_none() {
                out.outbox.reply(id, status, body, how);
                out.messages += 1;
            }
            self.unanswered.fetch_sub(1, Ordering::AcqRel);
        });
    }

    pub(crate) fn credit(&self, class: Class, bytes: u32) {
        self.with_out(|out| out.outbox.credit(class, bytes));
        self.credited();
    }

    pub(crate) fn credit_mailbox(&self, id: u32, bytes: u32) {
        self.with_out(|out| out.outbox.credit_mailbox(id, bytes));
        self.credited();
    }

    fn credited(&self) {
        if let Some(account) = &self.account {
            account.send_again(self);
        }
        self.state.notify_credit();
    }

    /// Notes that a stream ended, which may be what a link that goes away waits for.
    pub(crate) fn stream_ended(&self) {
        if self.state.going().is_some() {
            self.wake.notify_one();
        }
    }

    pub(crate) fn down(&self) -> Option<Down> {
        self.state.down().cloned()
    }

    pub(crate) fn set_down(&self, down: &Down) {
        self.state.set_down(down);
        self.streams.end(down);
        // A writer that waits looks again, and finds that.
        lock(&self.out).outbox.end_streams();
    }
}

impl CreditSink for Shared {
    fn peer(&self) -> &NodeName {
        &self.info().peer
    }

    fn taken(&self, mailbox: u16, messages: u64, bytes: u64) {
        let window = self.own_window.mailbox;
        self.with_out(|out| out.outbox.took(mailbox, bytes + messages * cost(0), window));
    }
}

impl ImportantLink for Shared {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn try_important(&self, seq: u64, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        self.with_out(|out| {
            out.open()?.send_important(seq, to, from, body)?;
            out.messages += 1;
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(self.info(), Trace, "sent", to, from, bytes = body.len(), important = seq);
        self.state.check_names(to, from);
        Ok(())
    }

    fn refusal(&self) -> Option<SendError> {
        self.down().map(SendError::Down).or((!self.state.is_open()).then_some(SendError::Draining))
    }

    fn release(&self, floor: u64) {
        self.with_out(|out| out.outbox.release(floor));
    }
}

impl ReplyTo for Shared {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn reply(&self, id: u32, answer: Result<Reply, Option<String>>) {
        let (status, body, is_term) = match answer {
            Ok(Reply { body, is_term }) => (Status::Ok, body, is_term),
            Err(Some(text)) => (Status::Failed, text.into(), false),
            Err(None) => (Status::Dropped, Bytes::new(), false),
        };
        self.answer(id, status, body, if is_term { How::TERM } else { How::default() });
    }

    fn no_mailbox(&self, id: u32) {
        self.answer(id, Status::NoMailbox, Bytes::new(), How::default());
    }
}

impl StackLink for Shared {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        self.with_out(|out| {
            out.open()?.send(to, from, body, how)?;
            out.messages += 1;
            self.note_behind(out);
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(self.info(), Trace, "sent", to, from, bytes = body.len(), high = how.high);
        self.state.check_names(to, from);
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
        self.with_out(|out| {
            out.open()?.call(id, to, from, timeout_ms, body, how)?;
            out.messages += 1;
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(self.info(), Trace, "called", to, from, bytes = body.len(), call = id);
        self.state.check_names(to, from);
        Ok(())
    }

    fn call_ended(&self) {
        if lock(&self.out).outbox.is_draining() {
            // The last call of a link that goes away may be what it waits for.
            self.wake.notify_one();
        }
    }

    fn try_send_important(&self, to: &str, from: &str, body: &Bytes) -> Result<Sent, SendError> {
        let Some(account) = &self.account else {
            return Err(SendError::Unsupported(Flag::ImportantDelivery));
        };
        account.try_send(self, to, from, body)
    }

    fn send_important<'a>(
        self: Arc<Self>,
        to: &'a str,
        from: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            let Some(account) = &self.account else {
                return Err(SendError::Unsupported(Flag::ImportantDelivery));
            };
            account.send(&*self, to, from, &body).await
        })
    }

    fn open<'a>(
        self: Arc<Self>,
        kind: StreamKind,
        data: &'a [u8],
        first: First<'a>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ByteStream, OpenError>> {
        Box::pin(async move { byte_stream::open(&self, kind, data, first, timeout).await })
    }

    fn go_away(&self, code: CloseCode) {
        Self::go_away(self, code);
    }

    fn close(&self, code: CloseCode) {
        self.state.shut();
        self.turn(|out| {
            if out.closing.is_none() {
                out.closing = Some(code);
            }
        });
    }

    fn ping(&self) {
        Self::ping(self);
    }

    fn heard_within(&self, time: Duration) -> bool {
        let heard = self.counters.heard_us.load(Ordering::Relaxed);
        clock_us().saturating_sub(heard) <= time.as_micros().try_into().unwrap_or(u64::MAX)
    }

    fn probe(&self, timeout: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let _counted = Probing::new(&self.probes);
            let heard = || self.counters.bytes_in.load(Ordering::SeqCst);
            let before = heard();
            self.ping();
            let answer = self.state.until(|| {
                let up = self.state.down().is_none();
                let alive = up && (self.held.load(Ordering::Relaxed) || heard() != before);
                (alive || !up).then_some(alive)
            });
            let answer = tokio::time::timeout(timeout, answer).await;
            // A hold that began meanwhile told nobody.
            answer.unwrap_or_else(|_| self.held.load(Ordering::Relaxed) && self.state.down().is_none())
        })
    }

    fn stats(&self) -> LinkStats {
        let c = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStats {
            messages_out: lock(&self.out).messages,
            messages_in: get(&c.messages_in),
            bytes_out: get(&c.bytes_out),
            bytes_in: get(&c.bytes_in),
            undeliverable: get(&c.undeliverable),
            round_trip_us: get(&c.round_trip_us),
            silent_us: clock_us().saturating_sub(get(&c.heard_us)),
            streams: self.streams.count() as u64,
        }
    }
}

/// A probe under way.
struct Probing<'a>(&'a AtomicUsize);

impl<'a> Probing<'a> {
    fn new(probes: &'a AtomicUsize) -> Self {
        probes.fetch_add(1, Ordering::SeqCst);
        Self(probes)
    }
}

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
