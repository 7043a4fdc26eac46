//! The link that stands for a name, and the connection that programs hold.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;
use trunkline_route::{CloseCode, Incarnation, LinkId, NodeName, TlsMode};
use trunkline_stack::{ByteStream, CallError, Down, First, Link, LinkInfo, LinkStats, OpenError, SendError, Sent};
use trunkline_term::Term;

use crate::SessionLink;
use crate::sessions::{Handle, LinkFacts};

/// The place a connection's link has, also while one link takes over from another.
pub(crate) struct Slot {
    current: ArcSwap<Link>,
    changed: Notify,
}

impl Slot {
    fn new(link: Link) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(link), changed: Notify::new() })
    }

    pub(crate) fn switch(&self, link: Link) {
        self.current.store(Arc::new(link));
        self.changed.notify_waiters();
    }
}

/// State that a link takes over from the one it replaces.
struct Place {
    slot: Arc<Slot>,
    tls: TlsMode,
}

/// Time that the old link of a name has to show that it lives, when another life claims the name.
const CHALLENGE: Duration = Duration::from_secs(1);
/// Parts of that time, each with a ping of its own. A pause of this process costs at most one part.
const CHALLENGES: u32 = 4;

/// A link and the place it has, as the registry keeps it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) link: Link,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The place of the link itself, or of the link whose place it takes; settled when it comes up.
    place: OnceLock<Place>,
    /// The generation of the routes under which the link satisfied a caller without demands of its own; 0 before that.
    satisfied: AtomicU64,
}

impl Session {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, shared: Arc::default() }
    }

    /// The link is up and takes the place of `old`, if that one still works.
    pub(crate) fn take_place(&self, old: Option<&Self>) {
        if let Some(old) = old {
            let (slot, own) = (old.slot(), &self.link.info().tls);
            slot.switch(self.link.clone());
            // Only the two ends know the id of the link that is replaced: who names it is who was verified on it. Another
            // life of the name is somebody else.
            let is_same = old.link.info().incarnation == self.link.info().incarnation;
            let tls = if is_same && matches!(own, TlsMode::CookieOnly) { old.place().tls.clone() } else { own.clone() };
            let _ = self.shared.place.set(Place { slot, tls });
        }
    }

    pub(crate) fn slot(&self) -> Arc<Slot> {
        self.place().slot.clone()
    }

    /// Returns the connection that this link has a place in.
    pub(crate) fn connection(&self) -> Connection {
        Connection { slot: self.slot() }
    }

    /// The properties of the link that routes make demands on.
    pub(crate) fn facts(&self) -> LinkFacts<'_> {
        LinkFacts { tls: &self.place().tls, ..facts(self.link.info()) }
    }

    /// Returns true if the link is open, and satisfied a caller without demands of its own under this generation of the
    /// routes. Takes no lock and looks nothing up.
    pub(crate) fn satisfied_in(&self, generation: u64) -> bool {
        self.shared.satisfied.load(Ordering::Acquire) == generation && self.link.is_open()
    }

    /// Notes that the link satisfied a caller without demands of its own under this generation of the routes.
    pub(crate) fn set_satisfied_in(&self, generation: u64) {
        self.shared.satisfied.store(generation, Ordering::Release);
    }

    fn place(&self) -> &Place {
        self.shared
            .place
            .get_or_init(|| Place { slot: Slot::new(self.link.clone()), tls: self.link.info().tls.clone() })
    }

    /// Returns true if the peer of this link keeps its name when another life claims it: it answers, and did not say that it is
    /// shutting down.
    pub(crate) async fn keeps_name(&self) -> bool {
        if self.link.is_left_by_peer() {
            return false;
        }
        for _ in 0..CHALLENGES {
            if self.link.probe(CHALLENGE / CHALLENGES).await {
                return true;
            }
        }
        false
    }
}

/// The properties of a link that routes make demands on, for one that replaced none.
pub(crate) fn facts(info: &LinkInfo) -> LinkFacts<'_> {
    LinkFacts {
        id: info.id,
        role: info.role,
        cookie: &info.cookie,
        is_relayed: info.via.is_some(),
        protocol: info.version.protocol(),
        route: info.route.as_deref(),
        resolver: info.resolver.as_ref(),
        tls: &info.tls,
    }
}

impl Handle for Session {
    fn id(&self) -> LinkId {
        self.link.info().id
    }

    fn incarnation(&self) -> Incarnation {
        self.link.info().incarnation
    }
}

impl SessionLink for Session {
    fn retire(&self, alive: bool) {
        if alive {
            self.link.go_away(CloseCode::Superseded);
        } else if !self.link.is_left_by_peer() {
            // A node that shuts down finishes what it has, also when another life has its name already.
            self.link.close(CloseCode::Superseded);
        }
    }

    fn discard(&self) {
        self.link.close(CloseCode::Superseded);
    }
}

/// The one connection to a peer, whoever dialled. Clones share it.
///
/// It outlives a change of its link to a better route: what is sent keeps its order across it. It does not outlive
/// the link going down; [`Sessions::connect`](crate::Sessions::connect) makes a new one.
#[derive(Clone)]
pub struct Connection {
    slot: Arc<Slot>,
}

impl Connection {
    /// Returns the present link. Another one may take its place; what is sent on a link that gave way fails as draining.
    pub fn link(&self) -> Arc<Link> {
        self.slot.current.load_full()
    }

    /// The peer's proven name.
    pub fn peer(&self) -> NodeName {
        self.link().info().peer.clone()
    }

    /// Returns the facts that the handshake of the present link established.
    pub fn info(&self) -> LinkInfo {
        self.link().info().clone()
    }

    /// Numbers of the present link.
    pub fn stats(&self) -> LinkStats {
        self.link().stats()
    }

    /// Returns true if messages are taken.
    pub fn is_up(&self) -> bool {
        self.link().is_open()
    }

    /// Returns the reason why the connection is down, or `None` while it is up.
    pub fn down(&self) -> Option<Down> {
        self.link().down()
    }

    /// Waits until the connection is down.
    pub async fn closed(&self) -> Down {
        loop {
            let link = self.link();
            let down = link.closed().await;
            if link.same(&self.link()) {
                return down;
            }
        }
    }

    /// Sends a message to a mailbox of the peer. `from` names the sender there; it may be empty. Waits for credit
    /// when the mailbox has not been read up to what was sent before. `Ok` means it is on its way: it arrives, in order for
    /// each pair of names, unless the connection goes down.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        loop {
            let link = self.slot.current.load();
            if link.gives_way() {
                drop(link);
                tokio::task::yield_now().await;
                continue;
            }
            match link.try_send(to, from, body) {
                Ok(()) => return Ok(()),
                Err(SendError::Full | SendError::Draining) => {}
                Err(error) => return Err(error),
            }
            let link = Arc::clone(&link);
            match link.send(to, from, body).await {
                Err(SendError::Draining) => self.settle(&link).await?,
                result => return result,
            }
        }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// [`SendError`], `Full` and `Draining` included; nothing was sent.
    pub fn try_send(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        self.slot.current.load().try_send(to, from, body)
    }

    /// Sends a message ahead of normal ones; see [`Connection::send`].
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub async fn send_high_priority(&self, to: &str, from: &str, body: &[u8]) -> Result<(), SendError> {
        loop {
            let link = self.link();
            match link.send_high_priority(to, from, body).await {
                Err(SendError::Draining) => self.settle(&link).await?,
                result => return result,
            }
        }
    }

    /// Sends a message whose outcome is told; see [`Sessions::send_important`](crate::Sessions::send_important), which
    /// also dials again. `Ok` means it is on its way.
    ///
    /// # Errors
    /// As [`Connection::send`], and `Unsupported`.
    pub async fn send_important(&self, to: &str, from: &str, body: impl Into<Bytes>) -> Result<Sent, SendError> {
        let body = body.into();
        loop {
            let link = self.link();
            match link.send_important(to, from, body.clone()).await {
                Err(SendError::Draining) => self.settle(&link).await?,
                result => return result,
            }
        }
    }

    /// Calls a mailbox of the peer and waits for its answer, at most `timeout` in all.
    ///
    /// # Errors
    /// [`CallError`] says whether the peer may have seen the call.
    pub async fn call(&self, to: &str, from: &str, body: &[u8], timeout: Duration) -> Result<Bytes, CallError> {
        self.calling(timeout, |link| async move { link.call(to, from, body, timeout).await }).await
    }

    /// Sends a term, whose atoms this connection's mapping replaces; see [`Connection::send`].
    ///
    /// # Errors
    /// As [`Connection::send`], and `BadTerm` when the term is over 64 levels deep or of over 262,144 terms.
    pub async fn send_term(&self, to: &str, from: &str, term: &Term) -> Result<(), SendError> {
        loop {
            let link = self.link();
            match link.send_term(to, from, term).await {
                Err(SendError::Draining) => self.settle(&link).await?,
                result => return result,
            }
        }
    }

    /// Calls a mailbox with a term and waits for a term; see [`Connection::call`].
    ///
    /// # Errors
    /// As [`Connection::call`], and `BadTerm` and `PlainAnswer` when the answer is no term that can be read.
    pub async fn call_term(&self, to: &str, from: &str, term: &Term, timeout: Duration) -> Result<Term, CallError> {
        self.calling(timeout, |link| async move { link.call_term(to, from, term, timeout).await }).await
    }

    async fn calling<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        timeout: Duration,
        call: impl Fn(Arc<Link>) -> F,
    ) -> Result<T, CallError> {
        let whole = async {
            loop {
                let link = self.link();
                match call(link.clone()).await {
                    Err(CallError::NotSent(SendError::Draining)) => self.settle(&link).await?,
                    result => return result,
                }
            }
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    /// A link that drains either has a successor in a moment or is about to go down.
    async fn settle(&self, draining: &Link) -> Result<(), SendError> {
        loop {
            let changed = self.slot.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !draining.same(&self.link()) {
                return Ok(());
            }
            tokio::select! {
                () = changed => {}
                down = draining.closed() => {
                    return if draining.same(&self.link()) { Err(SendError::Down(down)) } else { Ok(()) };
                }
            }
        }
    }

    /// Opens a stream to a service of the peer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self, service: &str, timeout: Duration) -> Result<ByteStream, OpenError> {
        self.open_with(service, First::default(), timeout).await
    }

    /// Opens a stream as [`Connection::open`] does, with bytes that go out with the request for it.
    ///
    /// # Errors
    /// [`OpenError`]. When the connection broke or the time was over, the service may have seen the first bytes.
    pub async fn open_with(&self, service: &str, first: First<'_>, timeout: Duration) -> Result<ByteStream, OpenError> {
        self.link().open_service(service, first, timeout).await
    }

    /// Lets both ends finish what is queued and the calls under way, then closes.
    pub fn disconnect(&self) {
        self.link().go_away(CloseCode::Disconnected);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("link", &self.link()).finish()
    }
}
