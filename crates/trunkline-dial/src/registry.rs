//! The live links of a node: at most one dial and one link per name, whoever dialled.
//!
//! The decisions are those of [`sessions::Peer`](crate::sessions::Peer), one per name; this module keeps the peers in a map
//! that locks a part of the names at a time, runs the tasks of the flights and carries out the effects. No lock is held across
//! an `await`, nor while a link is dropped or discarded.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::one::RefMut;
use foldhash::fast::RandomState;
use tokio::sync::{Notify, watch};
use trunkline_route::NodeName;

use crate::pair::{Claims, FlightId, Incarnation, LinkId, LinkRef};
use crate::sessions::waits::Waits;
use crate::sessions::{Aim, Caller, Connect, Effect, Flown, Handle, Outcome, Peer, Up, Verdict};
use crate::{NoRoute, Reason};

mod flight;

use flight::{Landing, fly};

/// Names with a link or a memory of one. Beyond it the idle ones are forgotten, the longest unused first.
const MAX_ENTRIES: usize = 65_536;
/// The part of them forgotten at once, so that the search for them is rare.
const PRUNED: usize = MAX_ENTRIES / 16;

/// The operations on a link that the registry and its users need.
pub trait SessionLink: Handle + Send + Sync + 'static {
    /// Ends a link that gave way: drained if it is alive, closed if it is dead at the peer.
    fn retire(&self, alive: bool);
    /// Closes a link that nobody is to use.
    fn discard(&self);
}

struct Entry<L> {
    peer: Peer<L>,
    task: Option<Task<L>>,
    changed: Arc<Notify>,
    /// The last time it was asked for, in calls of the registry.
    used: u64,
}

/// The task of the flight under way.
struct Task<L> {
    flight: FlightId,
    result: watch::Receiver<Option<Outcome<L>>>,
    signals: Arc<Signals>,
}

/// Signals to the task of a flight.
#[derive(Default)]
struct Signals {
    begin: Notify,
    cancel: Notify,
    overtaken: Notify,
}

impl<L: Handle> Entry<L> {
    fn new() -> Self {
        Self { peer: Peer::default(), task: None, changed: Arc::default(), used: 0 }
    }

    /// Carries the effects out; returns those that must not be under the lock.
    fn carry_out(&mut self) -> Vec<Effect<L>> {
        let mut later = Vec::new();
        for effect in self.peer.take_effects() {
            let signals = |flight| self.task.as_ref().filter(|task| task.flight == flight).map(|task| &task.signals);
            match effect {
                Effect::Begin(flight) => signals(flight).into_iter().for_each(|signals| signals.begin.notify_one()),
                Effect::Cancel(flight) => signals(flight).into_iter().for_each(|signals| signals.cancel.notify_one()),
                Effect::Overtaken(flight) => {
                    signals(flight).into_iter().for_each(|signals| signals.overtaken.notify_one());
                }
                Effect::Changed => self.changed.notify_waiters(),
                effect @ (Effect::Discard(_) | Effect::Release(_)) => later.push(effect),
            }
        }
        later
    }
}

fn carry_out_later<L: SessionLink>(effects: Vec<Effect<L>>) {
    for effect in effects {
        if let Effect::Discard(link) = effect {
            link.discard();
        }
    }
}

/// The live links and the dials under way, by name.
pub struct Registry<L> {
    own: NodeName,
    by_name: DashMap<NodeName, Entry<L>, RandomState>,
    calls: AtomicU64,
    /// Held by the search for idle entries, of which one runs at a time.
    pruning: Mutex<()>,
    waits: Mutex<Waits>,
    next_flight: AtomicU64,
}

/// An attempt that may send FINISH. Dropped, it takes the FINISH back.
pub struct Ticket<L: SessionLink> {
    registry: Arc<Registry<L>>,
    name: NodeName,
    flight: FlightId,
    link: LinkId,
    claims: Claims,
}

impl<L: SessionLink> Ticket<L> {
    /// Returns the claims to send to the peer.
    pub fn claims(&self) -> Claims {
        self.claims
    }
}

impl<L: SessionLink> Drop for Ticket<L> {
    fn drop(&mut self) {
        self.registry.with(&self.name, |entry| entry.peer.finish_ended(self.flight, self.link));
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
        self.registry.waits().remove(&self.waiter, self.edge);
    }
}

/// A caller that waits for a flight; dropped, it does not any more.
struct Joined<'r, L: SessionLink> {
    registry: &'r Registry<L>,
    name: &'r NodeName,
    flight: FlightId,
}

impl<L: SessionLink> Drop for Joined<'_, L> {
    fn drop(&mut self) {
        self.registry.with(self.name, |entry| entry.peer.caller_dropped(self.flight));
    }
}

impl<L> Registry<L> {
    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: SessionLink> Registry<L> {
    /// Creates the registry of the node with this name.
    pub fn new(own: NodeName) -> Arc<Self> {
        Arc::new(Self {
            own,
            by_name: DashMap::default(),
            calls: AtomicU64::new(0),
            pruning: Mutex::new(()),
            waits: Mutex::default(),
            next_flight: AtomicU64::new(1),
        })
    }

    /// Changes the entry of a name, if there is one, and carries the effects out. An entry that holds nothing any more is
    /// forgotten. Links are not dropped within `change`: what drops with the last handle of one may come back here.
    fn with<T>(&self, name: &NodeName, change: impl FnOnce(&mut Entry<L>) -> T) -> Option<T> {
        let mut entry = self.by_name.get_mut(name)?;
        let changed = change(&mut entry);
        let later = entry.carry_out();
        let is_blank = entry.peer.is_blank();
        drop(entry);
        if is_blank {
            drop(self.by_name.remove_if(name, |_, entry| entry.peer.is_blank()));
        }
        carry_out_later(later);
        Some(changed)
    }

    /// Makes room for an entry of this name. Returns false if there is none.
    fn make_room(&self, name: &NodeName) -> bool {
        if self.by_name.contains_key(name) || self.by_name.len() < MAX_ENTRIES {
            return true;
        }
        let _pruning = self.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        self.by_name.len() < MAX_ENTRIES || self.prune()
    }

    /// Forgets the idle entries longest unused. Returns false if none is idle.
    fn prune(&self) -> bool {
        let idle = self.by_name.iter().filter(|entry| entry.peer.is_idle());
        let mut idle: Vec<_> = idle.map(|entry| (entry.used, entry.key().clone())).collect();
        idle.sort_unstable_by_key(|(used, _)| *used);
        idle.truncate(PRUNED);
        let mut room = false;
        for (_, name) in &idle {
            room |= self.by_name.remove_if(name, |_, entry| entry.peer.is_idle()).is_some();
        }
        room
    }

    /// The entry of a name, made if there is none.
    fn entry(&self, name: &NodeName) -> RefMut<'_, NodeName, Entry<L>> {
        let used = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let mut entry = match self.by_name.get_mut(name) {
            Some(entry) => entry,
            None => self.by_name.entry(name.clone()).or_insert_with(Entry::new),
        };
        entry.used = used;
        entry
    }

    /// Returns the live link to a name.
    pub fn get(&self, name: &NodeName) -> Option<L> {
        self.inspect(name, L::clone)
    }

    /// Returns what `read` finds in the live link to a name. It is called under a lock and must not call the registry.
    pub fn inspect<T>(&self, name: &NodeName, read: impl FnOnce(&L) -> T) -> Option<T> {
        self.by_name.get(name)?.peer.link().map(read)
    }

    /// Returns every live link, sorted by name.
    pub fn links(&self) -> Vec<(NodeName, L)> {
        let live = self.by_name.iter().filter_map(|entry| Some((entry.key().clone(), entry.peer.link()?.clone())));
        let mut links: Vec<_> = live.collect();
        links.sort_by(|a, b| a.0.cmp(&b.0));
        links
    }

    /// Returns every link that gave way to another and still delivers.
    pub fn elders(&self) -> Vec<L> {
        self.by_name.iter().flat_map(|entry| entry.peer.elders().to_vec()).collect()
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
        let mut caller = Caller::new(aim.clone());
        let mut waiting = None;
        loop {
            let (flight, mut result, landing, left) = {
                // Dials are bounded by their callers.
                self.make_room(name);
                if let (Some(waiter), None) = (&aim.awaited_by, &waiting) {
                    if let Some(link) = self.inspect(name, |link| satisfies(link).then(|| link.clone())).flatten() {
                        return Ok(link);
                    }
                    let mut waits = self.waits();
                    if waits.would_close(waiter, name) {
                        return Err(NoRoute { target: name.clone(), reason: Reason::Loop, attempts: Vec::new() });
                    }
                    let edge = waits.add(waiter, name);
                    waiting = Some(Waiting { registry: self.clone(), waiter: waiter.clone(), edge });
                }
                let mut entry = self.entry(name);
                let new = self.next_flight.fetch_add(1, Ordering::Relaxed);
                match entry.peer.connect(&mut caller, new, &satisfies) {
                    Connect::Use(link) => return Ok(link),
                    Connect::Join(flight) => (flight, entry.task.as_ref().map(|task| task.result.clone()), None, None),
                    Connect::Start(flight) => {
                        let (sender, result) = watch::channel(None);
                        let signals = Arc::new(Signals::default());
                        let landing = Landing::new(self.clone(), name.clone(), flight, sender, signals.clone());
                        let left = entry.task.replace(Task { flight, result: result.clone(), signals });
                        // Tells the task to begin; nothing is left over that must not be under the lock.
                        entry.carry_out();
                        (flight, Some(result), Some(landing), left)
                    }
                }
            };
            let joined = Joined { registry: self, name, flight };
            drop(left);
            // Not under the lock: a runtime that shuts down drops the task at once, and that takes the lock.
            if let Some(landing) = landing {
                tokio::spawn(fly(landing, dial.clone()));
            }
            let ended = match &mut result {
                Some(result) => result.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone()),
                None => None,
            };
            drop(joined);
            if let Some(answer) = caller.ended(name, ended, &satisfies) {
                return answer;
            }
        }
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
        let claims = self.with(name, |entry| entry.peer.may_finish(flight, link, peer, replace))??;
        Some(Ticket { registry: self.clone(), name: name.clone(), flight, link, claims })
    }

    /// ACCEPT arrived: `None` to discard the link, else what it replaces and waits for. Then call [`Registry::install`].
    pub fn accepted(&self, name: &NodeName, flight: FlightId, link: LinkRef) -> Option<Up<L>> {
        self.with(name, |entry| entry.peer.accepted(flight, link))?
    }

    /// Puts the link that was just accepted in its place; discards it when it has gone out of date meanwhile.
    pub fn install(&self, name: &NodeName, link: L) -> bool {
        let Some(installed) = self.with(name, |entry| entry.peer.install(link.clone())) else {
            link.discard();
            return false;
        };
        installed
    }

    /// A proven remote node that dialled this one wants a link. `challenged` is the outcome of [`Verdict::Challenge`].
    pub fn offer(
        &self,
        name: &NodeName,
        link: LinkId,
        caller: Incarnation,
        claims: Option<Claims>,
        challenged: Option<(LinkId, bool)>,
    ) -> Verdict<L> {
        if !self.make_room(name) {
            return Verdict::Full;
        }
        let mut entry = self.entry(name);
        let verdict = entry.peer.offer(link, caller, claims, *name > self.own, challenged);
        let later = entry.carry_out();
        drop(entry);
        carry_out_later(later);
        verdict
    }

    /// Waits until an accepted link is up or down.
    pub async fn settled(&self, name: &NodeName, link: LinkId) {
        loop {
            let Some(changed) = self.changed(name) else { return };
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.with(name, |entry| entry.peer.awaits_first_frame(link)) != Some(true) {
                return;
            }
            notified.await;
        }
    }

    fn changed(&self, name: &NodeName) -> Option<Arc<Notify>> {
        self.with(name, |entry| entry.changed.clone())
    }

    /// ACCEPT is out; the link stands until its first frame, or until it ends.
    pub fn stand(&self, name: &NodeName, link: L) {
        if self.with(name, |entry| entry.peer.stand(link.clone())).is_none() {
            link.discard();
        }
    }

    /// The first frame of a standing link came. `None`: it is out of date, close it. Else what it replaces and waits for;
    /// the caller retires the replaced link once `switch` (called under the lock) has made the new one current.
    pub fn confirmed(
        &self,
        name: &NodeName,
        link: LinkId,
        switch: impl FnOnce(&L, Option<(&L, bool)>),
    ) -> Option<Up<L>> {
        let confirmed = self.with(name, |entry| {
            let (new, up) = entry.peer.confirmed(link)?;
            switch(&new, up.replaced.as_ref().map(|(old, retire)| (old, retire.alive)));
            Some((new, up))
        });
        confirmed?.map(|(_, up)| up)
    }

    /// A link went down. Says whether it was the live one.
    pub fn down(&self, name: &NodeName, link: LinkId) -> bool {
        self.with(name, |entry| entry.peer.down(link)) == Some(true)
    }

    /// A link that gave way is drained, without a new link that waits for it. Report its end with
    /// [`Registry::elder_down`].
    pub fn drains(&self, name: &NodeName, link: L) {
        self.entry(name).peer.drains(link);
    }

    /// A link went down. Says whether it had given way and still delivered.
    pub fn elder_down(&self, name: &NodeName, link: LinkId) -> bool {
        self.with(name, |entry| entry.peer.elder_down(link)) == Some(true)
    }
}

#[cfg(test)]
mod tests;
