//! The live links of a node: at most one dial and one link per name, whoever dialled.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use trunkline_route::{NetworkRoute, NodeName};

use crate::exec::Found;
use crate::pair::{Claims, FlightId, Incarnation, LinkId, LinkRef, MayFinish, OnAccept, OnOffer, Pair, Retire};
use crate::{NoRoute, Reason};

/// Names with a link or a memory of one; idle ones are forgotten first.
const MAX_ENTRIES: usize = 65_536;
/// How long callers wait for a link that the peer's own dial is about to bring.
const ADOPT: Duration = Duration::from_secs(5);
/// Dials of one flight, should adopted links come to nothing again and again.
const MAX_DIALS: u32 = 3;

/// What the registry needs of a link. It is a handle: clones share the link.
pub trait Held: Clone + Send + Sync + 'static {
    /// Which link it is.
    fn id(&self) -> LinkId;
    /// Ends a link that gave way: drained if it is alive, closed if it is dead at the peer.
    fn retire(&self, alive: bool);
    /// Closes a link that nobody is to use.
    fn discard(&self);
}

/// What a dial's future gives: how it found the peer, or why not.
pub type Flown<L> = Result<Found<L>, NoRoute>;

struct Entry<L> {
    pair: Pair,
    link: Option<L>,
    provisional: Option<L>,
    flight: Option<Flight<L>>,
    changed: Arc<Notify>,
}

impl<L> Default for Entry<L> {
    fn default() -> Self {
        Self { pair: Pair::default(), link: None, provisional: None, flight: None, changed: Arc::default() }
    }
}

struct Flight<L> {
    id: FlightId,
    /// The route given with the call that started it, if one was.
    given: Option<NetworkRoute>,
    result: watch::Receiver<Option<Result<L, NoRoute>>>,
    callers: Weak<Callers>,
    /// An inbound link makes the dial needless; its callers get that link.
    overtaken: Arc<Notify>,
}

/// Shared by the callers of a flight; the last one to go ends it.
struct Callers(AbortHandle);

impl Drop for Callers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The live links and the dials under way, by name.
pub struct Registry<L> {
    own: NodeName,
    entries: Mutex<HashMap<NodeName, Entry<L>>>,
    next_flight: std::sync::atomic::AtomicU64,
}

/// The verdict on a caller, with what must be done outside the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<L> {
    /// ACCEPT with this epoch, then [`Registry::stand`].
    Accept(u64),
    /// Probe this link, then offer again with the outcome.
    Challenge(L),
    /// CLOSE with the matching code.
    Refuse(OnOffer),
    /// The registry is full.
    Full,
}

/// An attempt that may send FINISH. Dropped, it takes the FINISH back.
pub struct Ticket<L: Held> {
    registry: Arc<Registry<L>>,
    name: NodeName,
    flight: FlightId,
    link: LinkId,
    claims: Claims,
}

impl<L: Held> Ticket<L> {
    /// What to tell the peer.
    pub fn claims(&self) -> Claims {
        self.claims
    }
}

impl<L: Held> Drop for Ticket<L> {
    fn drop(&mut self) {
        self.registry.with(&self.name, |entry| entry.pair.finish_failed(self.flight, self.link));
    }
}

impl<L: Held> Registry<L> {
    /// The registry of the node of this name.
    pub fn new(own: NodeName) -> Arc<Self> {
        Arc::new(Self { own, entries: Mutex::default(), next_flight: 1.into() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Entry<L>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &NodeName, change: impl FnOnce(&mut Entry<L>) -> T) -> T {
        change(self.lock().entry(name.clone()).or_default())
    }

    /// The live link to a name.
    pub fn get(&self, name: &NodeName) -> Option<L> {
        self.lock().get(name)?.link.clone()
    }

    /// Every live link, sorted by name.
    pub fn links(&self) -> Vec<(NodeName, L)> {
        let entries = self.lock();
        let mut links: Vec<_> =
            entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.link.clone()?))).collect();
        links.sort_by(|a, b| a.0.cmp(&b.0));
        links
    }

    /// The live link to a name if it satisfies the caller, else the outcome of a dial: the one under way, or a new
    /// one. `given` tells dials with different routes apart. Dropping one caller drops only it; dropping the last
    /// cancels the dial.
    ///
    /// # Errors
    /// [`NoRoute`] of the dial.
    pub async fn connect<F, D>(
        self: &Arc<Self>,
        name: &NodeName,
        given: Option<&NetworkRoute>,
        satisfies: impl Fn(&L) -> bool,
        dial: D,
    ) -> Result<L, NoRoute>
    where
        D: Fn(FlightId, bool) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Flown<L>> + Send + 'static,
    {
        for _ in 0..MAX_DIALS {
            let (mut result, callers, same) = {
                let mut entries = self.lock();
                let entry = entries.entry(name.clone()).or_default();
                if let Some(link) = entry.link.as_ref().filter(|link| satisfies(link)) {
                    return Ok(link.clone());
                }
                let live = entry.flight.as_ref().and_then(|f| Some((f, f.callers.upgrade()?)));
                match live {
                    Some((flight, callers)) => (flight.result.clone(), callers, flight.given.as_ref() == given),
                    None => {
                        let (result, callers) = self.take_off(name, given.cloned(), entry, dial.clone());
                        (result, callers, true)
                    }
                }
            };
            let ended = result.wait_for(Option::is_some).await.map(|ended| ended.clone());
            drop(callers);
            match ended {
                Ok(Some(Ok(link))) if satisfies(&link) => return Ok(link),
                Ok(Some(Err(no_route))) if same => return Err(no_route),
                // Of another route, or overtaken by a link that does not satisfy: once more.
                _ => {}
            }
        }
        Err(NoRoute { target: name.clone(), reason: Reason::AllFailed, attempts: Vec::new() })
    }

    fn take_off<F, D>(
        self: &Arc<Self>,
        name: &NodeName,
        given: Option<NetworkRoute>,
        entry: &mut Entry<L>,
        dial: D,
    ) -> (watch::Receiver<Option<Result<L, NoRoute>>>, Arc<Callers>)
    where
        D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
        F: Future<Output = Flown<L>> + Send + 'static,
    {
        let id = self.next_flight.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (sender, result) = watch::channel(None);
        let overtaken = Arc::new(Notify::new());
        let unsatisfying = entry.link.as_ref().map(Held::id);
        entry.pair.dial_begins(id);
        let landing = Landing { registry: self.clone(), name: name.clone(), flight: id };
        let task = tokio::spawn(fly(landing, overtaken.clone(), unsatisfying, dial, sender));
        let callers = Arc::new(Callers(task.abort_handle()));
        entry.flight = Some(Flight { id, given, result: result.clone(), callers: Arc::downgrade(&callers), overtaken });
        (result, callers)
    }

    /// A proven peer: may this attempt of the flight go for the link?
    pub fn may_finish(
        self: &Arc<Self>,
        name: &NodeName,
        flight: FlightId,
        link: LinkId,
        peer: Incarnation,
        replace: bool,
    ) -> Option<Ticket<L>> {
        match self.with(name, |entry| entry.pair.may_finish(flight, link, peer, replace)) {
            MayFinish::Finish(claims) => {
                Some(Ticket { registry: self.clone(), name: name.clone(), flight, link, claims })
            }
            MayFinish::Adopt => None,
        }
    }

    /// ACCEPT arrived: `None` to discard the link, else the link that gives way to it, if one does. Then call
    /// [`Registry::install`].
    pub fn accepted(&self, name: &NodeName, flight: FlightId, link: LinkRef) -> Option<Option<(L, Retire)>> {
        self.with(name, |entry| match entry.pair.accepted(flight, link) {
            OnAccept::Up(retire) => Some(retire.and_then(|retire| Some((entry.link.clone()?, retire)))),
            OnAccept::Discard => None,
        })
    }

    /// Puts the link that was just accepted in its place; discards it when it has gone out of date meanwhile.
    pub fn install(&self, name: &NodeName, link: L) -> bool {
        let installed = self.with(name, |entry| {
            let current = entry.pair.up().is_some_and(|up| up.id == link.id());
            if current {
                entry.link = Some(link.clone());
                entry.changed.notify_waiters();
            }
            current
        });
        if !installed {
            link.discard();
        }
        installed
    }

    /// A proven caller wants a link.
    pub fn offer(
        &self,
        name: &NodeName,
        link: LinkId,
        caller: Incarnation,
        claims: Claims,
        challenged: Option<(LinkId, bool)>,
    ) -> Verdict<L> {
        let mut entries = self.lock();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(name) {
            entries.retain(|_, entry| !entry.pair.is_idle() || entry.flight.is_some());
            if entries.len() >= MAX_ENTRIES {
                return Verdict::Full;
            }
        }
        let entry = entries.entry(name.clone()).or_default();
        match entry.pair.offer(link, caller, claims, *name > self.own, challenged) {
            OnOffer::Accept { epoch, cancel, dropped } => {
                let dropped = dropped.and_then(|_| entry.provisional.take());
                if let Some(flight) = entry.flight.as_ref().filter(|flight| Some(flight.id) == cancel) {
                    flight.overtaken.notify_one();
                }
                drop(entries);
                if let Some(dropped) = dropped {
                    dropped.discard();
                }
                Verdict::Accept(epoch)
            }
            OnOffer::Challenge(_) => match &entry.link {
                Some(link) => Verdict::Challenge(link.clone()),
                // Up, but not installed yet: it was just heard from.
                None => Verdict::Refuse(OnOffer::NameInUse),
            },
            refuse => Verdict::Refuse(refuse),
        }
    }

    /// ACCEPT is out; the link stands until its first frame, or until it ends.
    pub fn stand(&self, name: &NodeName, link: L) {
        let stands = self.with(name, |entry| {
            let stands = entry.pair.provisional().is_some_and(|p| p.id == link.id());
            if stands {
                entry.provisional = Some(link.clone());
            }
            stands
        });
        if !stands {
            link.discard();
        }
    }

    /// The first frame of a standing link came. `None`: it is out of date, close it. Else the link that gives way,
    /// which the caller retires once `switch` (called under the lock) has made the new one current.
    pub fn confirmed(
        &self,
        name: &NodeName,
        link: LinkId,
        switch: impl FnOnce(&L, Option<(&L, bool)>),
    ) -> Option<Option<(L, Retire)>> {
        self.with(name, |entry| {
            let retire = entry.pair.confirmed(link)?;
            let new = entry.provisional.take()?;
            let old = entry.link.take();
            switch(&new, old.as_ref().zip(retire).map(|(old, retire)| (old, retire.alive)));
            entry.link = Some(new);
            entry.changed.notify_waiters();
            Some(old.zip(retire))
        })
    }

    /// A link went down. Says whether it was the live one.
    pub fn down(&self, name: &NodeName, link: LinkId) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else { return false };
        entry.pair.down(link);
        let was_live = entry.link.as_ref().is_some_and(|held| held.id() == link);
        if was_live {
            entry.link = None;
        }
        if entry.provisional.as_ref().is_some_and(|held| held.id() == link) {
            entry.provisional = None;
        }
        entry.changed.notify_waiters();
        was_live
    }
}

/// Tidies up after a flight, however it ends.
struct Landing<L: Held> {
    registry: Arc<Registry<L>>,
    name: NodeName,
    flight: FlightId,
}

impl<L: Held> Drop for Landing<L> {
    fn drop(&mut self) {
        self.registry.with(&self.name, |entry| {
            entry.pair.dial_ends(self.flight);
            if entry.flight.as_ref().is_some_and(|flight| flight.id == self.flight) {
                entry.flight = None;
            }
        });
    }
}

async fn fly<L, F, D>(
    landing: Landing<L>,
    overtaken: Arc<Notify>,
    unsatisfying: Option<LinkId>,
    dial: D,
    result: watch::Sender<Option<Result<L, NoRoute>>>,
) where
    L: Held,
    F: Future<Output = Flown<L>> + Send + 'static,
    D: Fn(FlightId, bool) -> F + Send + Sync + 'static,
{
    let (registry, name, flight) = (&landing.registry, &landing.name, landing.flight);
    let mut outcome = None;
    for _ in 0..MAX_DIALS {
        registry.with(name, |entry| entry.pair.dial_begins(flight));
        let flown = tokio::select! {
            biased;
            () = overtaken.notified() => Ok(Found::Adopt),
            flown = dial(flight, unsatisfying.is_some()) => flown,
        };
        match flown {
            Ok(Found::Link(link)) => outcome = Some(Ok(link)),
            Err(no_route) => outcome = Some(Err(no_route)),
            Ok(Found::Adopt) => {
                registry.with(name, |entry| entry.pair.dial_ends(flight));
                outcome = adopt(registry, name, unsatisfying).await.map(Ok);
            }
        }
        if outcome.is_some() {
            break;
        }
    }
    let target = name.clone();
    drop(landing);
    let none = || Err(NoRoute { target, reason: Reason::OutOfTime, attempts: Vec::new() });
    let _ = result.send(Some(outcome.unwrap_or_else(none)));
}

/// Waits for the link that another dial of the two brings; `None` when it does not come.
async fn adopt<L: Held>(registry: &Registry<L>, name: &NodeName, unsatisfying: Option<LinkId>) -> Option<L> {
    let wait = async {
        let mut expected = false;
        loop {
            let changed = registry.with(name, |entry| entry.changed.clone());
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let (link, provisional) = registry.with(name, |entry| {
                (entry.link.clone().filter(|l| Some(l.id()) != unsatisfying), entry.pair.provisional().is_some())
            });
            if link.is_some() || (expected && !provisional) {
                return link;
            }
            expected |= provisional;
            notified.await;
        }
    };
    tokio::time::timeout(ADOPT, wait).await.ok().flatten()
}
