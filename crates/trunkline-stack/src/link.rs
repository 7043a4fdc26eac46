//! The handle of a live link, and the part of a link that is the same for every stack.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, futures::Notified, oneshot};
use trunkline_route::{CloseCode, How, Outcome};
use trunkline_term::{Term, TermError};

use crate::reply::Reply;
use crate::{
    BoxFuture, ByteStream, CallError, Down, First, LinkInfo, LinkStats, OpenError, SendError, StreamKind, lock, term,
};

/// Values of [`LinkState::give_way`].
const NEVER: u8 = 0;
const EACH: u8 = 1;
const NEXT: u8 = 2;

#[derive(Default)]
struct Calls {
    next: u32,
    pending: HashMap<u32, oneshot::Sender<Result<Reply, CallError>>>,
}

/// The part of a link that is the same for every stack: its facts, its end, calls under way, and senders that wait.
pub struct LinkState {
    info: LinkInfo,
    down: OnceLock<Down>,
    going: OnceLock<CloseCode>,
    /// New messages are refused.
    shut: AtomicBool,
    /// Choice of the senders that give way before they send: none, each, or the next one. A hint; those that cannot wait do not.
    give_way: AtomicU8,
    /// An ambiguous name was warned of.
    warned: AtomicBool,
    inbound_done: OnceLock<()>,
    changed: Notify,
    credit: Notify,
    calls: Mutex<Calls>,
}

impl LinkState {
    /// Returns the state of a link that is up.
    pub fn new(info: LinkInfo) -> Self {
        Self {
            info,
            down: OnceLock::new(),
            going: OnceLock::new(),
            shut: AtomicBool::new(false),
            give_way: AtomicU8::new(NEVER),
            warned: AtomicBool::new(false),
            inbound_done: OnceLock::new(),
            changed: Notify::new(),
            credit: Notify::new(),
            calls: Mutex::default(),
        }
    }

    /// Returns the facts that the handshake established.
    #[inline]
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// Returns why the link is down, or `None` while it is up.
    #[inline]
    pub fn down(&self) -> Option<&Down> {
        self.down.get()
    }

    /// Returns why the link goes away, if it does.
    pub fn going(&self) -> Option<CloseCode> {
        self.going.get().copied()
    }

    /// Returns true if new messages are taken.
    #[inline]
    pub fn is_open(&self) -> bool {
        !self.shut.load(Ordering::Acquire)
    }

    /// Refuses new messages from now on. Senders that wait look again. A stack calls this alone when [`StackLink::close`] was
    /// called and the last frame is not out yet.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::Release);
        self.credit.notify_waiters();
    }

    /// Notes why the link goes away, unless it does already, and refuses new messages.
    ///
    /// When the peer says that it goes away, a stack calls this with the peer's code, and then
    /// [`LinkState::set_inbound_done`] once everything before it is in the mailboxes. [`Link::is_left_by_peer`] depends on
    /// this order.
    pub fn set_going(&self, code: CloseCode) {
        let _ = self.going.set(code);
        self.shut();
    }

    /// Notes that the link is down: calls under way end, and whoever waits for the link is woken. Includes
    /// [`LinkState::shut`] and [`LinkState::set_inbound_done`].
    ///
    /// A stack calls this once, when the driver of the link ends or is dropped, and then
    /// [`Hooks::on_down`](crate::Hooks::on_down).
    pub fn set_down(&self, down: &Down) {
        let _ = self.down.set(down.clone());
        self.shut();
        self.set_inbound_done();
        let pending = std::mem::take(&mut lock(&self.calls).pending);
        for waiting in pending.into_values() {
            let _ = waiting.send(Err(CallError::LinkDown(down.clone())));
        }
    }

    /// Returns true if everything that the peer sent was delivered.
    pub fn is_inbound_done(&self) -> bool {
        self.inbound_done.get().is_some()
    }

    /// Notes that everything the peer sent before it went away was delivered, or never will be; see
    /// [`LinkState::set_going`].
    pub fn set_inbound_done(&self) {
        let _ = self.inbound_done.set(());
        self.changed.notify_waiters();
        self.credit.notify_waiters();
    }

    /// Wakes whoever waits in [`LinkState::until`]. Needed only for conditions of the stack's own:
    /// [`LinkState::set_down`] and [`LinkState::set_inbound_done`] wake by themselves.
    pub fn notify_changed(&self) {
        self.changed.notify_waiters();
    }

    /// Wakes senders that wait for credit.
    pub fn notify_credit(&self) {
        self.credit.notify_waiters();
    }

    /// Returns a future that is ready with the next call of [`LinkState::notify_credit`].
    pub fn credit(&self) -> Notified<'_> {
        self.credit.notified()
    }

    /// Repeats an attempt whenever credit arrives, until it is anything but refused for want of credit.
    ///
    /// # Errors
    /// Those of the attempt, never [`SendError::Full`].
    pub async fn with_credit<T>(&self, mut attempt: impl FnMut() -> Result<T, SendError>) -> Result<T, SendError> {
        loop {
            match attempt() {
                Err(SendError::Full) => {}
                result => return result,
            }
            let credit = self.credit.notified();
            tokio::pin!(credit);
            credit.as_mut().enable();
            match attempt() {
                Err(SendError::Full) => credit.await,
                result => return result,
            }
        }
    }

    /// Says whether more waits to be written than one write takes; senders then give way to the writer first.
    pub fn set_crowded(&self, crowded: bool) {
        let give_way = if crowded { EACH } else { NEVER };
        if give_way != self.give_way.load(Ordering::Relaxed) {
            self.give_way.store(give_way, Ordering::Relaxed);
        }
    }

    /// Has the next sender that can wait give way first.
    pub(crate) fn give_way_once(&self) {
        self.give_way.store(NEXT, Ordering::Relaxed);
    }

    /// Returns true if the next sender that can wait is to give way first, and lets those behind it go on.
    fn gives_way_once(&self) -> bool {
        self.give_way.load(Ordering::Relaxed) == NEXT
            && self.give_way.compare_exchange(NEXT, NEVER, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Ends a call with this answer. An unknown number is ignored: the caller gave up.
    pub fn answered(&self, id: u32, answer: Result<Reply, CallError>) {
        let waiting = lock(&self.calls).pending.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// Returns true if a call of this end waits for its answer.
    pub fn has_calls(&self) -> bool {
        !lock(&self.calls).pending.is_empty()
    }

    fn begin_call(&self) -> (u32, oneshot::Receiver<Result<Reply, CallError>>) {
        let (sender, answer) = oneshot::channel();
        let mut calls = lock(&self.calls);
        loop {
            calls.next = calls.next.wrapping_add(1);
            let id = calls.next;
            if let Entry::Vacant(free) = calls.pending.entry(id) {
                free.insert(sender);
                return (id, answer);
            }
        }
    }

    /// Waits until `ready` returns a value. It is asked again after each call of [`LinkState::notify_changed`],
    /// [`LinkState::set_inbound_done`] and [`LinkState::set_down`].
    pub async fn until<T>(&self, ready: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = ready() {
                return value;
            }
            changed.await;
        }
    }

    /// Writes a term with the atom mapping of the link. The first atom that the peer cannot tell from a replaced one is
    /// worth one warning.
    ///
    /// # Errors
    /// [`TermError`] when the term is over 64 levels deep or of over 262,144 terms.
    pub fn encode(&self, term: &Term) -> Result<Vec<u8>, TermError> {
        let Some(mapping) = &self.info.mapping else { return term::encode(term) };
        let mut ambiguous = None;
        let bytes = term::encode_mapped(term, mapping, &mut |atom| ambiguous = Some(atom.to_owned()))?;
        if let Some(atom) = ambiguous {
            self.warn_ambiguous(&atom);
        }
        Ok(bytes)
    }

    /// Warns once of a name that the peer cannot tell from a replaced one.
    #[inline]
    pub fn check_names(&self, to: &str, from: &str) {
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
}

/// A live link of one stack, as the stack implements it. Programs hold it as a [`Link`].
///
/// A call over a link that is down, or that refuses new messages, fails as [`SendError::Down`] or
/// [`SendError::Draining`]. One that fails for want of credit ([`SendError::Full`]) is repeated by [`Link`] after the
/// next [`LinkState::notify_credit`].
pub trait StackLink: Send + Sync + 'static {
    /// Returns the part of the link that every stack has.
    fn state(&self) -> &LinkState;

    /// Sends a message without waiting.
    ///
    /// The messages and calls of one pair of names keep their order within their priority. `to` and `from` are local names:
    /// the stack replaces them by the mapping of the [`LinkInfo`], and calls [`LinkState::check_names`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent. [`SendError::Unsupported`] when `how` needs a flag that was not agreed on.
    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError>;

    /// Sends a call without waiting, as [`StackLink::try_send`] sends a message; its answer goes to
    /// [`LinkState::answered`] with this number. `timeout` is only told to the peer: [`Link`] ends the call itself.
    ///
    /// # Errors
    /// As [`StackLink::try_send`].
    fn try_call(
        self: Arc<Self>,
        id: u32,
        to: &str,
        from: &str,
        body: &[u8],
        timeout: Duration,
        how: How,
    ) -> Result<(), SendError>;

    /// Notes that a caller waits for its answer no more: a link that goes away may now be done. Called once after each
    /// [`StackLink::try_call`], also after one that failed and for a call that was answered. Default: nothing.
    fn call_ended(&self) {}

    /// Sends a message whose outcome is told, if it may go at once. [`SendError::Full`] has [`Link`] call
    /// [`StackLink::send_important`], which is what a stack without a quicker way returns.
    fn try_send_important(&self, _to: &str, _from: &str, _body: &Bytes) -> Result<Sent, SendError> {
        Err(SendError::Full)
    }

    /// Sends a message whose outcome is told, when it is its turn.
    fn send_important<'a>(
        self: Arc<Self>,
        to: &'a str,
        from: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Sent, SendError>>;

    /// Opens a stream. `data` says what for; `first` goes out with the request. [`Link`] has checked the sizes of both.
    /// The stack ends the request itself after `timeout` ([`OpenError::TimedOut`]). Dropping the future withdraws the
    /// request.
    fn open<'a>(
        self: Arc<Self>,
        kind: StreamKind,
        data: &'a [u8],
        first: First<'a>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ByteStream, OpenError>>;

    /// Takes nothing new, lets both ends finish what is queued and the calls under way, then closes. Returns at once; the
    /// driver ends later, with [`Down::ClosedHere`] at the end that went first. A further call does nothing, but
    /// [`StackLink::close`] still closes.
    fn go_away(&self, code: CloseCode);

    /// Closes at once; what is queued is lost. Returns at once; the driver then ends with [`Down::ClosedHere`] and the code of
    /// the first call, within a time of the stack's choice even if the peer reads nothing. Further calls do nothing.
    fn close(&self, code: CloseCode);

    /// Asks the peer for a sign of life. Must send a frame: the dialling node calls this right after
    /// [`Established::start`](crate::Established::start), and that frame is what
    /// [`Hooks::on_first_frame`](crate::Hooks::on_first_frame) waits for at the other end.
    fn ping(&self);

    /// Returns true if something came from the peer within the last `time`. Decides whether the first bytes of a stream go
    /// out with the request or only after the peer's answer.
    ///
    /// The times of the policy, `keep_alive` and `dead_after`, are the stack's to apply.
    fn heard_within(&self, time: Duration) -> bool;

    /// Returns whether the peer shows within this time that it lives; see [`Link::probe`]. Decides whether another node, or
    /// another instance of the peer, may take its name; the node then allows 1 second.
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, bool>;

    /// Returns the counters so far.
    fn stats(&self) -> LinkStats;
}

/// An important message that was sent. Its outcome comes over this link or a later one. Dropped, nobody waits for the
/// outcome, and the message is not sent again.
pub struct Sent {
    outcome: oneshot::Receiver<Outcome>,
    keeper: Option<(Weak<dyn KeepsSent>, u64)>,
}

/// State that a stack keeps of important messages while somebody waits for their outcomes.
pub trait KeepsSent: Send + Sync {
    /// Notes that nobody waits any more for the outcome of the message of this number, known or not. Must not wait.
    fn abandoned(&self, number: u64);
}

impl Sent {
    /// Returns a message whose outcome comes by this channel. The keeper is told of the number when this is dropped.
    pub fn new(outcome: oneshot::Receiver<Outcome>, keeper: Option<(Weak<dyn KeepsSent>, u64)>) -> Self {
        Self { outcome, keeper }
    }

    /// Waits for the outcome. `None` when it cannot be known any more: the peer restarted, or takes no message like it
    /// over its new link. A link that breaks is waited out, for as long as the caller likes. Dropping the future loses
    /// nothing.
    pub async fn outcome(&mut self) -> Option<Outcome> {
        (&mut self.outcome).await.ok()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some((keeper, number)) = self.keeper.take()
            && let Some(keeper) = keeper.upgrade()
        {
            keeper.abandoned(number);
        }
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").finish_non_exhaustive()
    }
}

/// A call under way; dropping it forgets the call.
struct Pending<'a> {
    link: &'a dyn StackLink,
    id: u32,
    answer: oneshot::Receiver<Result<Reply, CallError>>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        lock(&self.link.state().calls).pending.remove(&self.id);
        self.link.call_ended();
    }
}

/// A live link to one peer, of any stack. Clones share it; it stays up until closed by [`Link::close`],
/// [`Link::go_away`], the peer, or the network.
#[derive(Clone)]
pub struct Link {
    link: Arc<dyn StackLink>,
}

impl Link {
    /// Returns the handle of a link that a stack made.
    pub fn new(link: Arc<dyn StackLink>) -> Self {
        Self { link }
    }

    /// Returns the facts that the handshake established.
    pub fn info(&self) -> &LinkInfo {
        self.link.state().info()
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent. [`SendError::Full`] when credit is missing.
    pub fn try_send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        self.link.try_send(to, from, body, How::default())
    }

    /// Returns true if a sender that can wait is to let others run first: the reader of the mailbox is on the same node and
    /// has enough to read. Each call that returns true is for one sender.
    #[inline]
    pub fn gives_way(&self) -> bool {
        self.link.state().gives_way_once()
    }

    /// Sends a message, waiting for credit when there is none. `Ok` means it is on its way; it arrives, in the
    /// order sent for each pair of names, unless the link goes down. Dropping the future sends nothing.
    ///
    /// # Errors
    /// [`SendError`], never `Full`; nothing was sent.
    pub async fn send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        if self.link.state().give_way.load(Ordering::Relaxed) == EACH || self.gives_way() {
            // A sender that never runs out of credit would otherwise pile up all of it before a byte is written.
            tokio::task::yield_now().await;
        }
        self.link.state().with_credit(|| self.link.try_send(to, from, body, How::default())).await
    }

    /// Sends a message ahead of normal ones; see [`Link::send`]. Order is kept among high-priority messages.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub async fn send_high_priority(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        self.link.state().with_credit(|| self.link.try_send(to, from, body, How::HIGH)).await
    }

    /// Sends a message whose outcome is told, when it is its turn: at most 1,024 are under way to one incarnation of a
    /// peer. `Ok` means it is on its way; the outcome comes by [`Sent`], also over a later link to the same incarnation.
    /// Order is kept among the important messages of a pair of names.
    ///
    /// # Errors
    /// [`SendError`], never `Full`; nothing was sent. `Unsupported` when the two ends did not agree on it.
    pub async fn send_important(&self, to: &str, from: &str, body: impl Into<Bytes>) -> Result<Sent, SendError> {
        let body = body.into();
        match self.link.try_send_important(to, from, &body) {
            Err(SendError::Full) => self.link.clone().send_important(to, from, body).await,
            result => result,
        }
    }

    /// Sends a term; see [`Link::send`]. The body is written in Erlang's external format, with this link's atom mapping.
    ///
    /// # Errors
    /// As [`Link::send`], and [`SendError::BadTerm`].
    pub async fn send_term(&self, to: &str, from: &str, term: &Term) -> Result<(), SendError> {
        let body = self.link.state().encode(term)?;
        self.link.state().with_credit(|| self.link.try_send(to, from, &body, How::TERM)).await
    }

    /// Calls a mailbox and waits for the answer, at most `timeout` in all. Dropping the future forgets the call.
    ///
    /// # Errors
    /// [`CallError`] says whether the peer may have seen the call.
    pub async fn call(&self, to: &str, from: &str, body: &[u8], timeout: Duration) -> Result<Bytes, CallError> {
        Ok(self.call_as(to, from, body, timeout, How::default()).await?.body)
    }

    /// Calls a mailbox with a term and waits for a term; see [`Link::call`].
    ///
    /// # Errors
    /// As [`Link::call`], and [`SendError::BadTerm`], [`CallError::BadTerm`], [`CallError::PlainAnswer`].
    pub async fn call_term(&self, to: &str, from: &str, term: &Term, timeout: Duration) -> Result<Term, CallError> {
        let body = self.link.state().encode(term).map_err(SendError::from)?;
        let answer = self.call_as(to, from, &body, timeout, How::TERM).await?;
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
        timeout: Duration,
        how: How,
    ) -> Result<Reply, CallError> {
        let state = self.link.state();
        let whole = async {
            let mut pending = state.with_credit(|| self.try_call(to, from, body, timeout, how)).await?;
            match (&mut pending.answer).await {
                Ok(answer) => answer,
                Err(_) => {
                    let down = state.down().cloned();
                    Err(CallError::LinkDown(down.unwrap_or(Down::ClosedHere(CloseCode::Unspecified))))
                }
            }
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    fn try_call(
        &self,
        to: &str,
        from: &str,
        body: &[u8],
        timeout: Duration,
        how: How,
    ) -> Result<Pending<'_>, SendError> {
        let state = self.link.state();
        if let Some(down) = state.down() {
            return Err(SendError::Down(down.clone()));
        }
        let (id, answer) = state.begin_call();
        let pending = Pending { link: &*self.link, id, answer };
        self.link.clone().try_call(id, to, from, body, timeout, how)?;
        // The link may have gone down between the first look and the insertion.
        if let Some(down) = state.down() {
            state.answered(id, Err(CallError::LinkDown(down.clone())));
        }
        Ok(pending)
    }

    /// Returns why the link is down, or `None` while it is up.
    pub fn down(&self) -> Option<Down> {
        self.link.state().down().cloned()
    }

    /// Returns true if new messages are taken.
    pub fn is_open(&self) -> bool {
        self.link.state().is_open()
    }

    /// Waits until the link is down.
    pub async fn closed(&self) -> Down {
        let state = self.link.state();
        state.until(|| state.down().cloned()).await
    }

    /// Waits until everything the peer sent was delivered: it went away, or the link is down.
    pub async fn inbound_done(&self) {
        let state = self.link.state();
        state.until(|| state.is_inbound_done().then_some(())).await;
    }

    /// Returns true if the peer said that it is shutting down. The link then stays until what is under way is finished,
    /// which may take the peer's whole grace.
    pub fn is_left_by_peer(&self) -> bool {
        // Of the ends of the inbound side, only a GOAWAY leaves the link going for this reason.
        let state = self.link.state();
        state.is_inbound_done() && state.going() == Some(CloseCode::GoingAway)
    }

    /// Takes nothing new, lets both ends finish what is queued and the calls under way, then closes.
    pub fn go_away(&self, code: CloseCode) {
        self.link.go_away(code);
    }

    /// Closes at once; what is queued is lost.
    pub fn close(&self, code: CloseCode) {
        self.link.close(code);
    }

    /// Returns the counters so far.
    pub fn stats(&self) -> LinkStats {
        self.link.stats()
    }

    /// Opens a stream: `data`, at most 1,024 bytes, says what for; of a service, its name.
    ///
    /// # Errors
    /// [`OpenError`]: refused by the peer or on the way, not answered within the `timeout`, or not asked for at all.
    pub async fn open(&self, kind: StreamKind, data: &[u8], timeout: Duration) -> Result<ByteStream, OpenError> {
        self.open_with(kind, data, First::default(), timeout).await
    }

    /// Opens a stream; see [`Link::open`]. What is to be written first goes out with the request, and so comes a round trip
    /// sooner.
    ///
    /// # Errors
    /// As [`Link::open`]. Only when it was refused, or the link opens nothing, is it sure that nobody has read what was
    /// sent.
    pub async fn open_with(
        &self,
        kind: StreamKind,
        data: &[u8],
        first: First<'_>,
        timeout: Duration,
    ) -> Result<ByteStream, OpenError> {
        first.check(data)?;
        self.link.clone().open(kind, data, first, timeout).await
    }

    /// Opens a stream to a service of the peer, under the name that the atom mapping of this link gives it; see
    /// [`Link::open_with`].
    ///
    /// # Errors
    /// As [`Link::open_with`].
    pub async fn open_service(
        &self,
        service: &str,
        first: First<'_>,
        timeout: Duration,
    ) -> Result<ByteStream, OpenError> {
        let there = self.info().mapping.as_ref().and_then(|mapping| mapping.to_peer(service));
        let name = there.map_or(service, |there| there).as_bytes();
        self.open_with(StreamKind::Service, name, first, timeout).await
    }

    /// Returns true if something came from the peer within the last `time`. A link whose peer says nothing may be broken
    /// without either end knowing yet.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.link.heard_within(time)
    }

    /// Returns true if two handles are of one link.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Returns whether the peer lives: asks ahead of everything, and returns `true` as soon as anything comes from it.
    /// Also answers on a link that goes away. A link that does not read for a reason of this end counts as alive unless
    /// it is down. `false` when it is down or nothing came within the `timeout`.
    pub async fn probe(&self, timeout: Duration) -> bool {
        self.link.probe(timeout).await
    }

    /// Sends a ping ahead of everything; a peer that is alive is heard from within a round trip.
    pub fn ping(&self) {
        self.link.ping();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("info", self.info()).field("down", &self.down()).finish()
    }
}
