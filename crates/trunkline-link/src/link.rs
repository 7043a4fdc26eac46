//! A live link as its users hold it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified, oneshot};
use tokio::time::Instant;
use trunkline_route::{
    AtomMapping, CloseCode, Cookie, Flag, Incarnation, LinkId, LogLevel, NodeName, PeerFlags, ResolverId, Role, TlsMode,
};
use trunkline_term::{Term, TermError};
use trunkline_wire::mux::{Class, How, Outbox, Refused, Status, Window};

use crate::account::{Account, Sent};
use crate::byte_stream::{self, ByteStream, First, OpenError, StreamKind, Streams};
use crate::mailbox::lock;
use crate::term;

#[expect(clippy::disallowed_methods, reason = "the shells take the time from here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time `by` after another one, however long that is.
pub(crate) fn later(from: Instant, by: Duration) -> Instant {
    trunkline_route::later(from.into_std(), by).into()
}

/// Microseconds of a clock that only this process reads, never 0.
pub(crate) fn clock_us() -> u64 {
    us_of(now())
}

/// A time of the clock of [`clock_us`].
fn us_of(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(|| at);
    at.saturating_duration_since(start).as_micros() as u64 + 1
}

/// What is known of a link from its handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The proven name of the other end.
    pub peer: NodeName,
    /// The other end's life.
    pub incarnation: Incarnation,
    /// The same at both ends.
    pub id: LinkId,
    /// The how-many-eth link of this pair it is.
    pub epoch: u64,
    /// Which end this is.
    pub role: Role,
    /// The handshake version, `TLK/n`.
    pub version: u16,
    /// The other end's socket address; of a link through other nodes, that of the first of them.
    pub address: SocketAddr,
    /// That first node, if the link goes through others.
    pub via: Option<NodeName>,
    /// The check of the other end's certificate when this end dialled.
    pub tls: TlsMode,
    /// True if the other end dialled and showed a certificate that an authority of the listener (`client_ca`) issued.
    pub caller_certified: bool,
    /// The cookie both ends proved.
    pub cookie: Cookie,
    /// What both ends agreed on.
    pub flags: PeerFlags,
    /// How much is said about it here.
    pub log_level: LogLevel,
    /// The pattern of the route whose policy it has; `None` when none matches the name.
    pub route: Option<Arc<str>>,
    /// Who gave the address it was dialled at, if somebody was asked for it.
    pub resolver: Option<ResolverId>,
    /// What names are called there.
    pub mapping: Option<Arc<AtomMapping>>,
    /// The other end's software, in its own words.
    pub software: String,
}

impl LinkInfo {
    /// Whether something of this level is said about it.
    #[inline]
    pub fn logs(&self, level: LogLevel) -> bool {
        level <= self.log_level
    }

    /// The route as log lines call it.
    pub fn route_name(&self) -> &str {
        self.route.as_deref().unwrap_or("none")
    }

    /// Returns what proved the other end besides the cookie, for people: `certificate` of a caller that showed one, else how this end
    /// checked the other's.
    pub fn proof(&self) -> String {
        if self.caller_certified { "certificate".into() } else { self.tls.to_string() }
    }

    /// The first eight hexadecimal digits of the id, for people.
    pub fn short_id(&self) -> String {
        self.id[..4].iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for LinkInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkInfo")
            .field("peer", &self.peer)
            .field("id", &self.short_id())
            .field("epoch", &self.epoch)
            .field("role", &self.role)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Why a link went down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Down {
    /// This end closed it.
    #[error("closed here: {0}")]
    ClosedHere(CloseCode),
    /// The peer closed it and said why.
    #[error("closed by the peer: {code}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    ClosedByPeer {
        /// Its reason.
        code: CloseCode,
        /// Its words.
        text: String,
    },
    /// The stream ended without a CLOSE.
    #[error("connection_lost: {0}")]
    ConnectionLost(String),
    /// The peer broke a rule of the protocol.
    #[error("protocol_error: {0}")]
    ProtocolError(&'static str),
    /// Nothing came for the time after which a peer counts as dead.
    #[error("timeout: nothing came from the peer for {0:?}")]
    Silent(Duration),
}

impl Down {
    /// Whether this is a planned end rather than a failure.
    pub fn is_normal(&self) -> bool {
        let planned = |code: &CloseCode| !matches!(code, CloseCode::ProtocolError | CloseCode::Timeout);
        match self {
            Self::ClosedHere(code) | Self::ClosedByPeer { code, .. } => planned(code),
            _ => false,
        }
    }
}

/// Why a message was not taken. It was not sent, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The term cannot be written.
    #[error("the term cannot be sent: {0}")]
    BadTerm(#[from] TermError),
    /// The name is empty or longer than 255 bytes.
    #[error("a service name has 1 to 255 bytes")]
    BadName,
    /// One of the ends is going away; connect again to get another link.
    #[error("the link is draining and takes nothing new; connect again")]
    Draining,
    /// The link is down.
    #[error("the link is down: {0}")]
    Down(Down),
    /// No credit (only from the variants that do not wait).
    #[error("the peer has not read what was sent before; wait and try again")]
    Full,
    /// Over the peer's limit.
    #[error("the message has {len} bytes; the peer takes at most {limit}")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// More than 16,384 different names were used over one link.
    #[error("over 16384 different service names were used on this link")]
    TooManyNames,
    /// The two ends did not agree on what this takes.
    #[error("{0} is not agreed on with this peer; switch the flag on at both ends, in the route and at the node")]
    Unsupported(Flag),
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The service took the call and dropped it unanswered.
    #[error("the service dropped the call without an answer")]
    Dropped,
    /// The service answered with a term that cannot be read.
    #[error("the answer cannot be read: {0}")]
    BadTerm(TermError),
    /// The service answered with bytes where a term was asked for; here they are.
    #[error("the service answered with {} bytes that are not marked as a term; call it without one", .0.len())]
    PlainAnswer(Bytes),
    /// The service refused.
    #[error("the service refused: {0}")]
    Failed(String),
    /// The link went down before the answer; the service may or may not have seen the call.
    #[error("the link went down before the answer: {0}")]
    LinkDown(Down),
    /// No such service there.
    #[error("the node has no service of that name")]
    NoService,
    /// The call was not sent.
    #[error("the call was not sent: {0}")]
    NotSent(#[from] SendError),
    /// The deadline passed; the service may or may not have seen the call.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Numbers of a link since it is up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Messages, calls and answers sent.
    pub messages_out: u64,
    /// Messages, calls and answers received.
    pub messages_in: u64,
    /// Bytes written to the socket.
    pub bytes_out: u64,
    /// Bytes read from the socket.
    pub bytes_in: u64,
    /// Messages that named no registered service and were dropped.
    pub undeliverable: u64,
    /// The last round trip in microseconds; 0 before the first.
    pub round_trip_us: u64,
    /// Streams that are open.
    pub streams: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) undeliverable: AtomicU64,
    pub(crate) round_trip_us: AtomicU64,
    /// When the peer was heard last.
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

/// What answers a call.
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) is_term: bool,
}

#[derive(Default)]
struct Calls {
    next: u32,
    pending: HashMap<u32, oneshot::Sender<Result<Answer, CallError>>>,
}

/// What the handles and the task of a link share.
pub(crate) struct Shared {
    pub(crate) info: LinkInfo,
    pub(crate) own_window: Window,
    /// More waits to be written than one write takes. A hint, so that senders which can wait do.
    behind: AtomicBool,
    pub(crate) out: Mutex<Out>,
    pub(crate) wake: Notify,
    credit: Notify,
    calls: Mutex<Calls>,
    /// Calls of the peer that were not answered yet.
    pub(crate) unanswered: AtomicUsize,
    down: OnceLock<Down>,
    /// New messages are taken: the link is up and neither drains nor closes. Written under the lock of `out`, read without.
    open: AtomicBool,
    state: Notify,
    inbound_done: OnceLock<()>,
    pub(crate) counters: Counters,
    /// Reading waits for a hold, so nothing can be known of the peer.
    pub(crate) held: AtomicBool,
    /// How many [`Link::probe`]s want to know of every read.
    probes: AtomicUsize,
    /// An ambiguous name was warned of.
    warned: AtomicBool,
    pub(crate) streams: Streams,
    /// Why the link goes away, if it does.
    pub(crate) going: OnceLock<CloseCode>,
    /// Where important messages are accounted for, if both ends agreed on them.
    pub(crate) account: Option<Arc<Account>>,
}

impl Shared {
    pub(crate) fn new(info: LinkInfo, peer_window: Window, own_window: Window, account: Option<Arc<Account>>) -> Self {
        let mut outbox = Outbox::new(peer_window, info.flags, info.mapping.clone());
        if let Some(account) = &account {
            outbox.outcomes(true, &lock(&account.incoming).outcomes());
        }
        Self {
            own_window,
            behind: AtomicBool::new(false),
            out: Mutex::new(Out { outbox, scheduled: false, closing: None, messages: 0 }),
            wake: Notify::new(),
            credit: Notify::new(),
            calls: Mutex::default(),
            unanswered: AtomicUsize::new(0),
            down: OnceLock::new(),
            open: AtomicBool::new(true),
            state: Notify::new(),
            inbound_done: OnceLock::new(),
            counters: Counters { heard_us: clock_us().into(), ..Counters::default() },
            held: AtomicBool::new(false),
            probes: AtomicUsize::new(0),
            warned: AtomicBool::new(false),
            streams: Streams::new(info.role),
            going: OnceLock::new(),
            account,
            info,
        }
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
        let behind = out.outbox.is_behind();
        if behind != self.behind.load(Ordering::Relaxed) {
            self.behind.store(behind, Ordering::Relaxed);
        }
    }

    /// Changes what the link's task must look at even when the socket takes nothing, and those who wait for credit.
    fn turn(&self, change: impl FnOnce(&mut Out)) {
        {
            let mut out = lock(&self.out);
            change(&mut out);
            self.open.store(false, Ordering::Release);
        }
        self.wake.notify_one();
        self.credit.notify_waiters();
    }

    pub(crate) fn go_away(&self, code: CloseCode) {
        log_connection!(&self.info, Debug, "going away", %code);
        let _ = self.going.set(code);
        self.turn(|out| out.outbox.go_away(code.to_byte(), ""));
    }

    /// The socket gave `bytes` at this time.
    pub(crate) fn heard(&self, bytes: usize, at: Instant) {
        self.counters.heard_us.store(us_of(at), Ordering::Relaxed);
        // In one order with a probe, which is counted before it looks: one of the two sees the other.
        self.counters.bytes_in.fetch_add(bytes as u64, Ordering::SeqCst);
        if self.probes.load(Ordering::SeqCst) > 0 {
            self.state.notify_waiters();
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

    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        if let Some(down) = self.down.get() {
            return Err(SendError::Down(down.clone()));
        }
        self.with_out(|out| {
            out.open()?.send(to, from, body, how)?;
            out.messages += 1;
            self.note_behind(out);
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(&self.info, Trace, "sent", to, from, bytes = body.len(), high = how.high);
        self.check_names(to, from);
        Ok(())
    }

    /// Queues an important message by its number.
    pub(crate) fn try_important(&self, seq: u64, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        if let Some(down) = self.down.get() {
            return Err(SendError::Down(down.clone()));
        }
        self.with_out(|out| {
            out.open()?.send_important(seq, to, from, body)?;
            out.messages += 1;
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(&self.info, Trace, "sent", to, from, bytes = body.len(), important = seq);
        self.check_names(to, from);
        Ok(())
    }

    fn try_call(
        self: &Arc<Self>,
        to: &str,
        from: &str,
        body: &[u8],
        deadline: Duration,
        how: How,
    ) -> Result<Pending, SendError> {
        if let Some(down) = self.down.get() {
            return Err(SendError::Down(down.clone()));
        }
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut calls = lock(&self.calls);
            loop {
                calls.next = calls.next.wrapping_add(1);
                let id = calls.next;
                if let Entry::Vacant(free) = calls.pending.entry(id) {
                    free.insert(sender);
                    break id;
                }
            }
        };
        let pending = Pending { link: self.clone(), id, answer };
        let deadline_ms = deadline.as_millis().min(u32::MAX.into()) as u32;
        self.with_out(|out| {
            out.open()?.call(id, to, from, deadline_ms, body, how)?;
            out.messages += 1;
            Ok(())
        })
        .map_err(|refused| self.refused(refused, body.len()))?;
        log_connection!(&self.info, Trace, "called", to, from, bytes = body.len(), call = id);
        self.check_names(to, from);
        // The link may have gone down between the first look and the insertion.
        if let Some(down) = self.down.get() {
            self.answered(id, Err(CallError::LinkDown(down.clone())));
        }
        Ok(pending)
    }

    pub(crate) fn encode(&self, term: &Term) -> Result<Vec<u8>, TermError> {
        let Some(mapping) = &self.info.mapping else { return term::encode(term) };
        let mut ambiguous = None;
        let bytes = term::encode_mapped(term, mapping, &mut |atom| ambiguous = Some(atom.to_owned()))?;
        if let Some(atom) = ambiguous {
            self.warn_ambiguous(&atom);
        }
        Ok(bytes)
    }

    /// A name that the peer cannot tell from a replaced one is worth one warning.
    #[inline]
    fn check_names(&self, to: &str, from: &str) {
        let Some(mapping) = &self.info.mapping else { return };
        if let Some(name) = [to, from].into_iter().find(|name| mapping.is_ambiguous(name)) {
            self.warn_ambiguous(name);
        }
    }

    fn warn_ambiguous(&self, name: &str) {
        if self.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let is = self.info.mapping.as_ref().and_then(|mapping| mapping.from_peer(name)).map_or("", |other| other);
        let what =
            "a name goes out as it is, and the peer takes it for another one, which the route calls so; map it too";
        log_connection!(&self.info, Warn, "{what}", name, other = is);
    }

    /// Why nothing new is taken, unless it is for want of credit.
    pub(crate) fn going(&self) -> Option<SendError> {
        let draining = lock(&self.out).open().map_or(true, |outbox| outbox.is_draining());
        self.down().map(SendError::Down).or(draining.then_some(SendError::Draining))
    }

    /// Credit comes, or the link turns.
    pub(crate) fn credit_comes(&self) -> Notified<'_> {
        self.credit.notified()
    }

    /// Repeats an attempt whenever credit arrives, until it is anything but refused for want of credit.
    async fn with_credit<T>(&self, mut attempt: impl FnMut() -> Result<T, SendError>) -> Result<T, SendError> {
        loop {
            match attempt() {
                Err(SendError::Full) => {}
                result => return result,
            }
            let notified = self.credit.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match attempt() {
                Err(SendError::Full) => notified.await,
                result => return result,
            }
        }
    }

    pub(crate) fn reply(&self, id: u32, status: Status, body: Bytes, how: How) {
        log_connection!(&self.info, Trace, "answered", call = id, ?status, bytes = body.len());
        self.with_out(|out| {
            let limit = out.outbox.max_message();
            let (status, body, how) = if body.len() > limit {
                let text = format!("the answer has {} bytes, over the limit of {limit}", body.len());
                (Status::Failed, Bytes::from(text), How::default())
            } else {
                (status, body, how)
            };
            if self.down.get().is_none() && out.closing.is_none() {
                out.outbox.reply(id, status, body, how);
                out.messages += 1;
            }
            self.unanswered.fetch_sub(1, Ordering::AcqRel);
        });
    }

    pub(crate) fn answered(&self, id: u32, answer: Result<Answer, CallError>) {
        let waiting = lock(&self.calls).pending.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    pub(crate) fn calls_pending(&self) -> bool {
        !lock(&self.calls).pending.is_empty()
    }

    pub(crate) fn took(&self, mailbox_id: u16, bytes: u64) {
        let window = self.own_window.mailbox;
        self.with_out(|out| out.outbox.took(mailbox_id, bytes, window));
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
        self.credit.notify_waiters();
    }

    /// A stream may have been what a link that goes away waits for.
    pub(crate) fn stream_ended(&self) {
        if self.going.get().is_some() {
            self.wake.notify_one();
        }
    }

    pub(crate) fn down(&self) -> Option<Down> {
        self.down.get().cloned()
    }

    pub(crate) fn set_down(&self, down: Down) {
        let _ = self.down.set(down.clone());
        self.open.store(false, Ordering::Release);
        self.set_inbound_done();
        let pending = std::mem::take(&mut lock(&self.calls).pending);
        for waiting in pending.into_values() {
            let _ = waiting.send(Err(CallError::LinkDown(down.clone())));
        }
        self.streams.end(&down);
        // Who waits to write looks again, and finds that.
        lock(&self.out).outbox.end_streams();
        self.credit.notify_waiters();
        self.state.notify_waiters();
    }

    /// Everything the peer sent before it went away was delivered, or never will be.
    pub(crate) fn set_inbound_done(&self) {
        let _ = self.inbound_done.set(());
        self.state.notify_waiters();
        self.credit.notify_waiters();
    }

    async fn until<T>(&self, ready: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let notified = self.state.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(value) = ready(self) {
                return value;
            }
            notified.await;
        }
    }
}

/// A call under way; dropping it forgets the call.
struct Pending {
    link: Arc<Shared>,
    id: u32,
    answer: oneshot::Receiver<Result<Answer, CallError>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.link.calls).pending.remove(&self.id);
        if lock(&self.link.out).outbox.is_draining() {
            // The last call of a link that goes away may be what it waits for.
            self.link.wake.notify_one();
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

/// A live link to one peer. Clones share it; it stays up until closed by [`Link::close`], [`Link::go_away`], the
/// peer, or the network.
#[derive(Clone)]
pub struct Link {
    pub(crate) shared: Arc<Shared>,
}

impl Link {
    /// What the handshake established.
    pub fn info(&self) -> &LinkInfo {
        &self.shared.info
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent. [`SendError::Full`] when credit is missing.
    pub fn try_send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        self.shared.try_send(to, from, body, How::default())
    }

    /// Sends a message, waiting for credit when there is none. `Ok` means it is on its way; it arrives, in the
    /// order sent for each pair of names, unless the link goes down. Dropping the future sends nothing.
    ///
    /// # Errors
    /// [`SendError`], never `Full`; nothing was sent.
    pub async fn send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        if self.shared.behind.load(Ordering::Relaxed) {
            // A sender that never runs out of credit would otherwise pile up all of it before a byte is written.
            tokio::task::yield_now().await;
        }
        self.shared.with_credit(|| self.shared.try_send(to, from, body, How::default())).await
    }

    /// As [`Link::send`], ahead of normal messages. Order is kept among high-priority messages.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub async fn send_high_priority(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        self.shared.with_credit(|| self.shared.try_send(to, from, body, How::HIGH)).await
    }

    /// Sends a message whose outcome is told, when it is its turn: at most 1,024 are under way to one life of a peer.
    /// `Ok` means it is on its way; the outcome comes by [`Sent`], also over a later link to the same life of the peer.
    /// Order is kept among the important messages of a pair of names.
    ///
    /// # Errors
    /// [`SendError`], never `Full`; nothing was sent. `Unsupported` when the two ends did not agree on it.
    pub async fn send_important(&self, to: &str, from: &str, body: impl Into<Bytes>) -> Result<Sent, SendError> {
        let Some(account) = &self.shared.account else {
            return Err(SendError::Unsupported(Flag::ImportantDelivery));
        };
        account.send(&self.shared, to, from, &body.into()).await
    }

    /// As [`Link::send`]; the body is a term, in Erlang's external format, with this connection's atom mapping.
    ///
    /// # Errors
    /// As [`Link::send`], and [`SendError::BadTerm`].
    pub async fn send_term(&self, to: &str, from: &str, term: &Term) -> Result<(), SendError> {
        let body = self.shared.encode(term)?;
        self.shared.with_credit(|| self.shared.try_send(to, from, &body, How::TERM)).await
    }

    /// Calls a service and waits for its answer, at most `deadline` in all. Dropping the future forgets the call.
    ///
    /// # Errors
    /// [`CallError`] says whether the service may have seen the call.
    pub async fn call(&self, to: &str, from: &str, body: &[u8], deadline: Duration) -> Result<Bytes, CallError> {
        Ok(self.call_as(to, from, body, deadline, How::default()).await?.body)
    }

    /// As [`Link::call`], with terms both ways.
    ///
    /// # Errors
    /// As [`Link::call`], and [`SendError::BadTerm`], [`CallError::BadTerm`], [`CallError::PlainAnswer`].
    pub async fn call_term(&self, to: &str, from: &str, term: &Term, deadline: Duration) -> Result<Term, CallError> {
        let body = self.shared.encode(term).map_err(SendError::from)?;
        let answer = self.call_as(to, from, &body, deadline, How::TERM).await?;
        if !answer.is_term {
            return Err(CallError::PlainAnswer(answer.body));
        }
        term::decode(&answer.body, self.info().mapping.as_deref()).map_err(CallError::BadTerm)
    }

    async fn call_as(
        &self,
        to: &str,
        from: &str,
        body: &[u8],
        deadline: Duration,
        how: How,
    ) -> Result<Answer, CallError> {
        let whole = async {
            let mut pending = self.shared.with_credit(|| self.shared.try_call(to, from, body, deadline, how)).await?;
            match (&mut pending.answer).await {
                Ok(answer) => answer,
                Err(_) => Err(CallError::LinkDown(self.down().unwrap_or(Down::ClosedHere(CloseCode::Unspecified)))),
            }
        };
        tokio::time::timeout(deadline, whole).await.unwrap_or(Err(CallError::TimedOut(deadline)))
    }

    /// Why the link is down, or `None` while it is up.
    pub fn down(&self) -> Option<Down> {
        self.shared.down()
    }

    /// Whether new messages are taken.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Waits until the link is down.
    pub async fn closed(&self) -> Down {
        self.shared.until(Shared::down).await
    }

    /// Waits until everything the peer sent was delivered: it went away, or the link is down.
    pub async fn inbound_done(&self) {
        self.shared.until(|shared| shared.inbound_done.get().copied()).await;
    }

    /// Returns true if the peer said that it is shutting down. The link then stays until what is under way is finished, which
    /// may take the peer's whole grace.
    pub fn is_left_by_peer(&self) -> bool {
        // Of the ends of the inbound side, only a GOAWAY leaves the link going for this reason.
        self.shared.inbound_done.get().is_some() && self.shared.going.get() == Some(&CloseCode::GoingAway)
    }

    /// Takes nothing new, lets both ends finish what is queued and the calls under way, then closes.
    pub fn go_away(&self, code: CloseCode) {
        self.shared.go_away(code);
    }

    /// Closes at once; what is queued is lost.
    pub fn close(&self, code: CloseCode) {
        self.shared.turn(|out| {
            if out.closing.is_none() {
                out.closing = Some(code);
            }
        });
    }

    /// The numbers so far.
    pub fn stats(&self) -> LinkStats {
        let c = &self.shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStats {
            messages_out: lock(&self.shared.out).messages,
            messages_in: get(&c.messages_in),
            bytes_out: get(&c.bytes_out),
            bytes_in: get(&c.bytes_in),
            undeliverable: get(&c.undeliverable),
            round_trip_us: get(&c.round_trip_us),
            streams: self.shared.streams.count() as u64,
        }
    }

    /// Opens a stream: `data`, at most 1,024 bytes, says what for; of a service, its name.
    ///
    /// # Errors
    /// [`OpenError`]: refused by the peer or on the way, not answered within the `deadline`, or not asked for at all.
    pub async fn open(&self, kind: StreamKind, data: &[u8], deadline: Duration) -> Result<ByteStream, OpenError> {
        self.open_with(kind, data, First::default(), deadline).await
    }

    /// As [`Link::open`]; what is to be written first goes out with the request, and so comes a round trip sooner.
    ///
    /// # Errors
    /// As [`Link::open`]. Only when it was refused, or the link opens nothing, is it sure that nobody has read what was sent.
    pub async fn open_with(
        &self,
        kind: StreamKind,
        data: &[u8],
        first: First<'_>,
        deadline: Duration,
    ) -> Result<ByteStream, OpenError> {
        byte_stream::open(&self.shared, kind, data, first, deadline).await
    }

    /// Returns true if something came from the peer within the last `time`. A link whose peer says nothing may be broken
    /// without either end knowing yet.
    pub fn heard_within(&self, time: Duration) -> bool {
        let heard = self.shared.counters.heard_us.load(Ordering::Relaxed);
        clock_us().saturating_sub(heard) <= time.as_micros().try_into().unwrap_or(u64::MAX)
    }

    /// Whether two handles are of one link.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether the peer lives: asks by a ping ahead of everything, and is `true` as soon as anything comes from it.
    /// Also answers on a link that goes away. A link whose reading waits for a hold (see [`crate::Hooks`]) counts
    /// as alive unless it is down. `false` when it is down or nothing came `within` the time.
    pub async fn probe(&self, within: Duration) -> bool {
        let shared = &*self.shared;
        let _counted = Probing::new(&shared.probes);
        let heard = |shared: &Shared| shared.counters.bytes_in.load(Ordering::SeqCst);
        let before = heard(shared);
        shared.ping();
        let answer = shared.until(|shared| {
            let up = shared.down.get().is_none();
            let alive = up && (shared.held.load(Ordering::Relaxed) || heard(shared) != before);
            (alive || !up).then_some(alive)
        });
        let answer = tokio::time::timeout(within, answer).await;
        // A hold that began meanwhile told nobody.
        answer.unwrap_or_else(|_| shared.held.load(Ordering::Relaxed) && shared.down.get().is_none())
    }

    /// Sends a ping ahead of everything; a peer that is alive is heard from within a round trip.
    pub fn ping(&self) {
        self.shared.ping();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("info", self.info()).field("down", &self.down()).finish()
    }
}
