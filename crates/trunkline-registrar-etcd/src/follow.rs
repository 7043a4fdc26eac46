//! Mirror of the announcements in etcd.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::EventType;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use trunkline_registrar::{GivenRoute, Mirror, Pause};
use trunkline_route::{Cause, Chain, NodeName};

use crate::layout::{self, Key, Keys};
use crate::store::{Kv, Position, Store, Trouble};

/// Time without news after which a watch that was taken up again has told all that changed meanwhile.
const QUIET: Duration = Duration::from_millis(500);

/// Time after an outage in which nodes whose leases ended meanwhile have to come back; until then they are found as before. They
/// try again within 5 s.
const RETURNED: Duration = Duration::from_secs(6);

/// Time for which a lease lasts without a renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Knowledge about etcd beside the mirror, and the tasks that wait for more.
#[derive(Default)]
pub(crate) struct Known {
    /// Values that cannot be read, by the name in their key.
    broken: Mutex<HashMap<NodeName, Cause>>,
    /// Names that went away during an outage or right after it, and may come back.
    leaving: Mutex<BTreeSet<NodeName>>,
    /// True for a time after an outage.
    is_returning: AtomicBool,
    /// Reason for which etcd cannot be followed at the moment.
    lost: Mutex<Option<Cause>>,
    /// Static routes that are handed out, by id.
    routes: Mutex<BTreeMap<String, GivenRoute>>,
    /// The same, as leases tell them: none once etcd has been lost for as long as a lease lasts.
    given: watch::Sender<Vec<GivenRoute>>,
    /// Names that this process holds or wants, and the tasks that look after each.
    held: Mutex<HashMap<NodeName, Vec<Arc<Notify>>>>,
}

#[expect(clippy::disallowed_methods, reason = "following etcd is I/O, which brings the time")]
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// Returns what is wrong with the value of a name.
    pub(crate) fn broken(&self, name: &NodeName) -> Option<Cause> {
        lock(&self.broken).get(name).cloned()
    }

    pub(crate) fn lost(&self) -> Option<Cause> {
        lock(&self.lost).clone()
    }

    /// Returns the static routes that are handed out, and their changes.
    pub(crate) fn given(&self) -> watch::Receiver<Vec<GivenRoute>> {
        self.given.subscribe()
    }

    /// Tells the static routes that are handed out.
    fn give(&self) {
        let now: Vec<GivenRoute> = lock(&self.routes).values().cloned().collect();
        self.given.send_if_modified(|given| {
            let is_new = *given != now;
            *given = now;
            is_new
        });
    }

    /// Wakes `notify` when the key of a name may not be as it was, or its holder is asked whether it is alive.
    pub(crate) fn hold(&self, name: &NodeName, notify: Arc<Notify>) {
        lock(&self.held).entry(name.clone()).or_default().push(notify);
    }

    pub(crate) fn release(&self, name: &NodeName, notify: &Arc<Notify>) {
        let mut held = lock(&self.held);
        if let Some(tasks) = held.get_mut(name) {
            tasks.retain(|known| !Arc::ptr_eq(known, notify));
            if tasks.is_empty() {
                held.remove(name);
            }
        }
    }

    fn wake(&self, name: &NodeName) {
        lock(&self.held).get(name).into_iter().flatten().for_each(|notify| notify.notify_one());
    }

    fn wake_all(&self) {
        lock(&self.held).values().flatten().for_each(|notify| notify.notify_one());
    }
}

/// Task that follows etcd, which ends when nobody holds this any more.
#[derive(Debug)]
pub(crate) struct Following(JoinHandle<()>);

impl Following {
    pub(crate) fn start(follower: Follower) -> Arc<Self> {
        Arc::new(Self(tokio::spawn(follower.follow())))
    }

    /// Returns true if the task ended, as it does with its runtime.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Point up to which the keys were followed.
#[derive(Clone)]
struct Followed {
    position: Position,
    /// A key as it is at that point, by which another history of the store is recognised.
    sample: Option<Kv>,
}

/// End of following.
struct End(Arc<Mirror>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.lost();
    }
}

/// Reader of the keys under the prefix.
pub(crate) struct Follower {
    pub(crate) store: Arc<Store>,
    pub(crate) keys: Keys,
    pub(crate) mirror: Arc<Mirror>,
    pub(crate) known: Arc<Known>,
}

impl Follower {
    /// Keeps the mirror as etcd is, for ever.
    pub(crate) async fn follow(self) {
        // Should the task end, with its runtime or otherwise, nobody keeps the mirror.
        let _end = End(self.mirror.clone());
        let (mut pause, mut at, mut lost_at) = (Pause::default(), None, None);
        loop {
            let trouble = match self.listed_and_watched(&mut at, &mut pause, &mut lost_at).await {
                Ok(Some(ended)) => ended,
                Ok(None) => continue,
                // The next look reads everything anew.
                Err(Trouble::Compacted) => {
                    at = None;
                    continue;
                }
                Err(trouble) => Cause::new(trouble),
            };
            if lock(&self.known.lost).replace(trouble.clone()).is_none() {
                match self.mirror.is_known() {
                    true => {
                        tracing::warn!(error = %Chain(&trouble), "etcd is lost; nodes are found as it knew them last")
                    }
                    false => tracing::warn!(error = %Chain(&trouble), "etcd cannot be used; this node tries again"),
                }
            }
            self.mirror.lost();
            self.known.is_returning.store(self.mirror.is_known(), Ordering::Relaxed);
            if let Some(after) = now().checked_duration_since(*lost_at.get_or_insert_with(now))
                && after >= LEASE
            {
                self.known.given.send_if_modified(|given| !std::mem::take(given).is_empty());
            }
            pause.wait().await;
        }
    }

    /// Lists the keys unless their state at `at` is known, and takes up what changes, until the watch ends. Returns why, or
    /// nothing if it is to be opened at another member.
    async fn listed_and_watched(
        &self,
        at: &mut Option<Followed>,
        pause: &mut Pause,
        lost_at: &mut Option<Instant>,
    ) -> Result<Option<Cause>, Trouble> {
        let now = self.store.position(self.keys.nodes()).await?;
        // Another store, or one that was reset or restored, has another history.
        let is_resumed = match &at {
            Some(known) => self.goes_on(known, now).await?,
            None => false,
        };
        let mut followed = match at.clone().filter(|_| is_resumed) {
            Some(known) => known,
            None => self.list().await?,
        };
        let mut given_up = self.store.given_up();
        let mut watch = self.store.watch(self.keys.root(), followed.position.revision + 1).await?;
        *at = Some(followed.clone());
        (*pause, *lost_at) = (Pause::default(), None);
        let has_returned = tokio::time::sleep(RETURNED);
        tokio::pin!(has_returned);
        let mut is_behind = is_resumed && followed.position.revision < now.revision;
        if !is_behind {
            self.answers();
        }
        loop {
            let news = tokio::select! {
                news = watch.message() => news,
                // The member did not answer somebody else, and so does not tell anything here either.
                _ = given_up.changed() => return Ok(None),
                () = &mut has_returned, if self.known.is_returning.load(Ordering::Relaxed) => {
                    self.known.is_returning.store(false, Ordering::Relaxed);
                    std::mem::take(&mut *lock(&self.known.leaving)).iter().for_each(|name| self.mirror.remove(name));
                    continue;
                }
                () = tokio::time::sleep(QUIET), if is_behind => {
                    is_behind = false;
                    self.answers();
                    continue;
                }
            };
            let news = match news {
                Ok(Some(news)) => news,
                Ok(None) => return Ok(Some("the watch ended".into())),
                Err(error) => return Ok(Some(Store::watch_failed(&error))),
            };
            if news.canceled() {
                return match news.compact_revision() {
                    0 => Ok(Some(format!("etcd cancelled the watch: {}", news.cancel_reason()).into())),
                    _ => Err(Trouble::Compacted),
                };
            }
            for event in news.events() {
                let Some(kv) = event.kv() else { continue };
                let is_put = event.event_type() == EventType::Put;
                self.changed(kv.key(), is_put.then(|| kv.value()));
                if is_put {
                    followed.sample = Some(Kv::from(kv));
                } else if followed.sample.as_ref().is_some_and(|sample| sample.key == kv.key()) {
                    followed.sample = None;
                }
            }
            // Beside changes, the header has the number of the store, which may be further than what was told.
            let told = match news.events().last().and_then(|event| event.kv()) {
                Some(kv) => Some(kv.mod_revision()),
                None => news.header().map(|header| header.revision()),
            };
            if let Some(revision) = told {
                followed.position.revision = revision;
                *at = Some(followed.clone());
                if is_behind && revision >= now.revision {
                    is_behind = false;
                    self.answers();
                }
            }
        }
    }

    /// Notes that etcd answers, and that the mirror is as it is.
    fn answers(&self) {
        if lock(&self.known.lost).take().is_some() {
            tracing::info!("etcd is back");
        }
        self.mirror.back();
        self.known.give();
        self.known.wake_all();
    }

    /// Returns whether the store, which is at `now`, has the history that was followed.
    async fn goes_on(&self, known: &Followed, now: Position) -> Result<bool, Trouble> {
        let Followed { position, sample } = known;
        if position.cluster != now.cluster || position.term != now.term || position.revision > now.revision {
            return Ok(false);
        }
        match sample {
            Some(sample) => self.store.was(sample, position.revision).await,
            None => Ok(false),
        }
    }

    async fn list(&self) -> Result<Followed, Trouble> {
        let (all, position) = self.store.list(self.keys.nodes()).await?;
        let sample = all.last().cloned();
        let mut nodes = Vec::new();
        let mut broken = HashMap::new();
        let mut gone: BTreeMap<_, _> = match self.known.is_returning.load(Ordering::Relaxed) {
            true => self.mirror.all().into_iter().map(|node| (node.name.clone(), node)).collect(),
            false => BTreeMap::new(),
        };
        for kv in all {
            let Some(Key::Node(name)) = self.keys.read(&kv.key) else { continue };
            gone.remove(&name);
            match layout::decode(name.clone(), &kv.value) {
                Ok(entry) => nodes.push(entry.registration),
                Err(error) => {
                    broken.insert(name.clone(), self.unreadable(&name, error));
                }
            }
        }
        *lock(&self.known.broken) = broken;
        // The watch begins where the nodes were listed, and tells the changes of routes since then again.
        let (routes, _) = self.store.list(self.keys.routes()).await?;
        let known = routes.iter().filter_map(|kv| match self.keys.read(&kv.key)? {
            Key::Route(id) => self.route(&id, &kv.value).map(|route| (id, route)),
            _ => None,
        });
        *lock(&self.known.routes) = known.collect();
        // Before the nodes are known, for which a lease waits.
        self.known.give();
        *lock(&self.known.leaving) = gone.keys().cloned().collect();
        nodes.extend(gone.into_values().map(Arc::unwrap_or_clone));
        self.mirror.replace(nodes);
        Ok(Followed { position, sample })
    }

    /// Takes up the change of one key, whose value is now this; `None` if it was deleted.
    fn changed(&self, key: &[u8], value: Option<&[u8]>) {
        let name = match self.keys.read(key) {
            Some(Key::Node(name)) => name,
            Some(Key::Challenge(name)) => return self.known.wake(&name),
            Some(Key::Route(id)) => return self.route_changed(id, value),
            None => return,
        };
        match value.map(|value| layout::decode(name.clone(), value)).transpose() {
            Ok(entry) => {
                lock(&self.known.broken).remove(&name);
                match entry {
                    Some(entry) => {
                        lock(&self.known.leaving).remove(&name);
                        self.mirror.set(entry.registration);
                    }
                    None if self.known.is_returning.load(Ordering::Relaxed) => {
                        lock(&self.known.leaving).insert(name.clone());
                    }
                    None => self.mirror.remove(&name),
                }
            }
            Err(error) => {
                let cause = self.unreadable(&name, error);
                lock(&self.known.broken).insert(name.clone(), cause);
                self.mirror.remove(&name);
            }
        }
        self.known.wake(&name);
    }

    /// Returns a static route, or warns about one that cannot be read.
    fn route(&self, id: &str, value: &[u8]) -> Option<GivenRoute> {
        let error = match layout::decode_route(value) {
            Ok(route) => return Some(route),
            Err(error) => error,
        };
        let key = format!("{}{id}", self.keys.routes());
        tracing::warn!(key, %error, "a route in etcd cannot be read, and is left out");
        None
    }

    fn route_changed(&self, id: String, value: Option<&[u8]>) {
        match value.and_then(|value| self.route(&id, value)) {
            Some(route) => drop(lock(&self.known.routes).insert(id, route)),
            None => drop(lock(&self.known.routes).remove(&id)),
        }
        self.known.give();
    }

    /// Warns about a value that cannot be read, and returns the cause.
    fn unreadable(&self, name: &NodeName, error: layout::ValueError) -> Cause {
        let cause = Cause::new(Unreadable { key: self.keys.node(name), source: error });
        tracing::warn!(error = %Chain(&cause), "a value in etcd cannot be read; the node is not found");
        cause
    }
}

/// Value that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the value of {key} in etcd")]
pub(crate) struct Unreadable {
    pub(crate) key: String,
    pub(crate) source: layout::ValueError,
}
