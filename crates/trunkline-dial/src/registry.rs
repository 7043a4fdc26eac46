//! The live links of a node: at most one dial and one link per name, whoever dialled.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use trunkline_route::{Cookie, NetworkRoute, NodeName};

use crate::exec::Found;
use crate::pair::{Claims, FlightId, Incarnation, LinkId, LinkRef, MayFinish, OnAccept, OnOffer, Pair, Retire};
use crate::{NoRoute, Reason};

mod flight;

mod waits;

use flight::{Landing, Outcome, fly};
use waits::Waits;

/// Names with a link or a memory of one. Beyond it the idle ones are forgotten, the longest unused first.
const MAX_ENTRIES: usize = 65_536;
/// The part of them forgotten at once, so that the search for them is rare.
const PRUNED: usize = MAX_ENTRIES / 16;
/// Dials of one flight, should adopted links come to nothing again and again; flights of one caller, should their
/// links not be what it demands.
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
    accepting: Option<Accepting>,
    flight: Option<Flight<L>>,
    changed: Arc<Notify>,
    /// When it was last asked for, in calls of the registry.
    used: u64,
}

/// ACCEPT came for a link that is not installed yet.
struct Accepting {
    link: LinkId,
    before: Option<LinkRef>,
    /// Its attempt is gone: nobody is going to install it.
    abandoned: bool,
}

impl<L: Held> Entry<L> {
    fn new() -> Self {
        Self {
            pair: Pair::default(),
            link: None,
            provisional: None,
            accepting: None,
            flight: None,
            changed: Arc::default(),
            used: 0,
        }
    }

    fn is_idle(&self) -> bool {
        self.pair.is_idle() && self.flight.is_none() && self.link.is_none() && self.provisional.is_none()
    }

    /// Takes back an accepted link that was abandoned before it was installed.
    fn settle(&mut self) {
        if let Some(accepting) = self.accepting.take_if(|accepting| accepting.abandoned) {
            self.revert(accepting);
        }
    }

    fn revert(&mut self, accepting: Accepting) {
        let held = self.link.as_ref().map(Held::id);
        self.pair.revert(accepting.link, accepting.before.filter(|before| Some(before.id) == held));
    }

    /// The live link, but not this one.
    fn other_link(&self, than: Option<LinkId>) -> Option<&L> {
        self.link.as_ref().filter(|link| Some(link.id()) != than)
    }
}

/// What a dial may use. A caller shares the outcome of one that may use what it may itself; by another it can only gain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// This route and no other.
    pub route: Option<NetworkRoute>,
    /// No way through other nodes.
    pub directly: bool,
    /// Proven by this cookie, whatever the routes say.
    pub cookie: Option<Cookie>,
    /// So much time.
    pub time: Duration,
    /// The name whose dial waits for this one, which may be tried less for: its failure is none of a caller whose dial nobody
    /// waits for.
    pub awaited_by: Option<NodeName>,
}

impl Aim {
    /// Any route, for so long.
    pub fn within(time: Duration) -> Self {
        Self { route: None, directly: false, cookie: None, time, awaited_by: None }
    }

    /// Whether a failure of this dial is one of a caller with that aim too.
    fn covers(&self, other: &Self) -> bool {
        // One that another dial awaits tries less.
        let tries_as_much = self.awaited_by.is_none() || other.awaited_by.is_some();
        (&self.route, self.directly, &self.cookie) == (&other.route, other.directly, &other.cookie)
            && self.time >= other.time
            && tries_as_much
    }
}

struct Flight<L> {
    id: FlightId,
    aim: Aim,
    result: watch::Receiver<Option<Outcome<L>>>,
    callers: Weak<Caller>,
    /// An inbound link makes the dial needless; its callers get that link.
    overtaken: Arc<Notify>,
}

/// Shared by the callers of a flight; the flight ends when the last one drops it.
type Caller = oneshot::Sender<Infallible>;

struct Entries<L> {
    by_name: HashMap<NodeName, Entry<L>>,
    calls: u64,
    waits: Waits,
}

impl<L: Held> Entries<L> {
    /// Whether there is an entry of this name, or room for it. Makes room if it can.
    fn has_room(&mut self, name: &NodeName) -> bool {
        self.by_name.len() < MAX_ENTRIES || self.by_name.contains_key(name) || self.prune()
    }

    /// The entry of a name, made if there is none.
    fn entry(&mut self, name: &NodeName) -> &mut Entry<L> {
        self.calls += 1;
        let entry = self.by_name.entry(name.clone()).or_insert_with(Entry::new);
        entry.used = self.calls;
        entry.settle();
        entry
    }

    /// Forgets the idle entries longest unused; false when there is none.
    fn prune(&mut self) -> bool {
        let idle = self.by_name.iter().filter(|(_, entry)| entry.is_idle());
        let mut idle: Vec<_> = idle.map(|(name, entry)| (entry.used, name.clone())).collect();
        idle.sort_unstable_by_key(|(used, _)| *used);
        idle.truncate(PRUNED);
        for (_, name) in &idle {
            self.by_name.remove(name);
        }
        !idle.is_empty()
    }
}

/// The live links and the dials under way, by name.
pub struct Registry<L> {
    own: NodeName,
    entries: Mutex<Entries<L>>,
    next_flight: AtomicU64,
}

/// The verdict on a caller, with what must be done outside the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<L> {
    /// ACCEPT with this epoch, then [`Registry::stand`].
    Accept(u64),
    /// Wait until this link is settled ([`Registry::settled`]), then offer again.
    Await(LinkId),
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
        self.registry.tidy(&self.name, |entry| {
            entry.pair.finish_failed(self.flight, self.link);
            if let Some(accepting) = entry.accepting.as_mut().filter(|accepting| accepting.link == self.link) {
                accepting.abandoned = true;
            }
        });
    }
}

/// A dial that waits for another one; dropped, it does not any more.
struct Waiting<L> {
    registry: Arc<Registry<L>>,
    waiter: NodeName,
    edge: u64,
}

impl<L> Drop for Waiting<L> {
    fn drop(&mut self) {
        self.registry.lock().waits.remove(&self.waiter, self.edge);
    }
}

impl<L> Registry<L> {
    fn lock(&self) -> MutexGuard<'_, Entries<L>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Held> Registry<L> {
    /// The registry of the node of this name.
    pub fn new(own: NodeName) -> Arc<Self> {
        let entries = Entries { by_name: HashMap::new(), calls: 0, waits: Waits::default() };
        Arc::new(Self { own, entries: Mutex::new(entries), next_flight: AtomicU64::new(1) })
    }

    /// Changes the entry of a name, if there is one. Links are not dropped within `change`: what drops with the last
    /// handle of one may come back here.
    fn with<T>(&self, name: &NodeName, change: impl FnOnce(&mut Entry<L>) -> T) -> Option<T> {
        self.lock().by_name.get_mut(name).map(change)
    }

    /// As [`Registry::with`]; an entry that holds nothing any more is forgotten.
    fn tidy<T>(&self, name: &NodeName, change: impl FnOnce(&mut Entry<L>) -> T) -> Option<T> {
        let mut entries = self.lock();
        let entry = entries.by_name.get_mut(name)?;
        let changed = change(entry);
        if entry.is_idle() && entry.pair.is_blank() {
            entries.by_name.remove(name);
        }
        Some(changed)
    }

    /// The live link to a name.
    pub fn get(&self, name: &NodeName) -> Option<L> {
        self.lock().by_name.get(name)?.link.clone()
    }

    /// Every live link, sorted by name.
    pub fn links(&self) -> Vec<(NodeName, L)> {
        let entries = self.lock();
        let mut links: Vec<_> =
            entries.by_name.iter().filter_map(|(name, entry)| Some((name.clone(), entry.link.clone()?))).collect();
        drop(entries);
        links.sort_by(|a, b| a.0.cmp(&b.0));
        links
    }

    /// The live link to a name if it satisfies the caller, else the outcome of a dial: the one under way, or a new
    /// one. A caller waits for a dial with another `aim` too, and begins one of its own when that one fails. Dropping
    /// one caller drops only it; dropping the last cancels the dial.
    ///
    /// A link that the dial made is taken as it is: the dial was made under the caller's demands, whichever of the
    /// routes it went by. A link that came by another way must satisfy. `satisfies` is called under the registry's
    /// lock and must not call it.
    ///
    /// `dial` gets its flight and whether its link is to replace one that does not satisfy. It may be called again,
    /// when a link to be adopted came to nothing: the time for the whole is for it to keep.
    ///
    /// # Errors
    /// [`NoRoute`] of the dial; [`Reason::Loop`] when the dial that awaits this one is one that this one would await.
    pub async fn connect<F, D>(
        self: &Arc<Self>,
        name: &NodeName,
        aim: &Aim,
        satisfies: impl Fn(&L) -> bool,
        dial: D,
    ) -> Result<L, NoRoute>
    where
        D: Fn(FlightId, bool) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Flown<L>> + Send + 'static,
    {
        let mut flights = 0;
        let mut waiting = None;
        while flights < MAX_DIALS {
            let (mut result, callers, same, take_off) = {
                let mut entries = self.lock();
                // Dials are bounded by their callers.
                entries.has_room(name);
                if let Some(link) = entries.entry(name).link.as_ref().filter(|link| satisfies(link)) {
                    return Ok(link.clone());
                }
                if let (Some(waiter), None) = (&aim.awaited_by, &waiting) {
                    if entries.waits.would_close(waiter, name) {
                        drop(entries);
                        self.tidy(name, |_| ());
                        return Err(NoRoute { target: name.clone(), reason: Reason::Loop, attempts: Vec::new() });
                    }
                    let edge = entries.waits.add(waiter, name);
                    waiting = Some(Waiting { registry: self.clone(), waiter: waiter.clone(), edge });
                }
                let entry = entries.entry(name);
                let live = entry.flight.as_ref().and_then(|f| Some((f, f.callers.upgrade()?)));
                match live {
                    Some((flight, callers)) => (flight.result.clone(), callers, flight.aim.covers(aim), None),
                    None => {
                        let (result, callers, take_off) = self.take_off(name, aim.clone(), entry);
                        (result, callers, true, Some(take_off))
                    }
                }
            };
            // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
            if let Some(take_off) = take_off {
                tokio::spawn(fly(take_off, dial.clone()));
            }
            let ended = result.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
            drop(callers);
            // A dial with another aim is waited for, however often, and is none of this caller's.
            flights += u32::from(same);
            match ended {
                Some(Outcome::Dialled(link)) if same || satisfies(&link) => return Ok(link),
                Some(Outcome::Adopted(link)) if satisfies(&link) => return Ok(link),
                Some(Outcome::Failed(no_route)) if same => return Err(no_route),
                _ => {}
            }
        }
        Err(NoRoute { target: name.clone(), reason: Reason::AllFailed, attempts: Vec::new() })
    }

    fn take_off(
        self: &Arc<Self>,
        name: &NodeName,
        aim: Aim,
        entry: &mut Entry<L>,
    ) -> (watch::Receiver<Option<Outcome<L>>>, Arc<Caller>, flight::TakeOff<L>) {
        let id = self.next_flight.fetch_add(1, Ordering::Relaxed);
        let (sender, result) = watch::channel(None);
        let (caller, gone) = oneshot::channel();
        let callers = Arc::new(caller);
        let flight =
            Flight { id, aim, result: result.clone(), callers: Arc::downgrade(&callers), overtaken: Arc::default() };
        let take_off = flight::TakeOff {
            landing: Landing::new(self.clone(), name.clone(), id, sender),
            previous: entry.flight.replace(flight).map(|previous| previous.result),
            gone,
            unsatisfying: entry.link.as_ref().map(Held::id),
        };
        (result, callers, take_off)
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
        let may = self.with(name, |entry| {
            entry.settle();
            entry.pair.may_finish(flight, link, peer, replace)
        });
        match may? {
            MayFinish::Finish(claims) => {
                Some(Ticket { registry: self.clone(), name: name.clone(), flight, link, claims })
            }
            MayFinish::Adopt => None,
        }
    }

    /// ACCEPT arrived: `None` to discard the link, else the link that gives way to it, if one does. Then call
    /// [`Registry::install`].
    pub fn accepted(&self, name: &NodeName, flight: FlightId, link: LinkRef) -> Option<Option<(L, Retire)>> {
        self.with(name, |entry| {
            let before = entry.pair.up();
            match entry.pair.accepted(flight, link) {
                OnAccept::Up(retire) => {
                    entry.accepting = Some(Accepting { link: link.id, before, abandoned: false });
                    let old = entry.link.as_ref();
                    Some(retire.and_then(|retire| Some((old.filter(|old| old.id() == retire.id)?.clone(), retire))))
                }
                OnAccept::Discard => None,
            }
        })?
    }

    /// Puts the link that was just accepted in its place; discards it when it has gone out of date meanwhile.
    pub fn install(&self, name: &NodeName, link: L) -> bool {
        let installed = self.with(name, |entry| {
            if entry.pair.up().is_none_or(|up| up.id != link.id()) {
                return None;
            }
            entry.accepting = None;
            entry.changed.notify_waiters();
            Some(entry.link.replace(link.clone()))
        });
        // What was replaced drops here, not under the lock.
        let installed = installed.flatten().is_some();
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
        if !entries.has_room(name) {
            return Verdict::Full;
        }
        let entry = entries.entry(name);
        if let Some(unheard) = entry.pair.awaits_first_frame(claims) {
            return Verdict::Await(unheard);
        }
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
            OnOffer::Challenge(up) => match &entry.link {
                Some(link) if link.id() == up => Verdict::Challenge(link.clone()),
                // Up, but not installed yet: it was just heard from.
                _ => Verdict::Refuse(OnOffer::NameInUse),
            },
            refuse => Verdict::Refuse(refuse),
        }
    }

    /// Waits until an accepted link is up or down.
    pub async fn settled(&self, name: &NodeName, link: LinkId) {
        loop {
            let Some(changed) = self.with(name, |entry| entry.changed.clone()) else { return };
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let waits = self.with(name, |entry| entry.pair.provisional().filter(|p| p.id == link));
            if waits.flatten().is_none() {
                return;
            }
            notified.await;
        }
    }

    /// ACCEPT is out; the link stands until its first frame, or until it ends.
    pub fn stand(&self, name: &NodeName, link: L) {
        let stands = self.with(name, |entry| {
            let stands = entry.pair.provisional().is_some_and(|p| p.id == link.id());
            stands.then(|| entry.provisional.replace(link.clone()))
        });
        if stands.flatten().is_none() {
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
            let Some(new) = entry.provisional.take_if(|held| held.id() == link) else {
                // It does not stand yet, or not any more.
                if entry.pair.provisional().is_some_and(|awaited| awaited.id == link) {
                    entry.pair.down(link);
                }
                return None;
            };
            let retire = entry.pair.confirmed(link)?;
            entry.accepting = None;
            switch(&new, entry.link.as_ref().zip(retire).map(|(old, retire)| (old, retire.alive)));
            entry.changed.notify_waiters();
            Some(entry.link.replace(new).zip(retire))
        })?
    }

    /// A link went down. Says whether it was the live one.
    pub fn down(&self, name: &NodeName, link: LinkId) -> bool {
        let gone = self.tidy(name, |entry| {
            if let Some(accepting) = entry.accepting.take_if(|accepting| accepting.link == link) {
                entry.revert(accepting);
            }
            entry.pair.down(link);
            entry.changed.notify_waiters();
            let is = |held: &mut L| held.id() == link;
            (entry.link.take_if(is), entry.provisional.take_if(is))
        });
        gone.is_some_and(|(live, _)| live.is_some())
    }
}

#[cfg(test)]
mod tests;
