//! Announcement of one node, kept up.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::EventType;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use trunkline_registrar::{BoxFuture, GivenRoute, Lease, Pause, RegisterError, Registration};
use trunkline_route::{Cause, Chain, NodeName};

use crate::follow::{Following, Known, LEASE};
use crate::layout::{self, Keys};
use crate::store::{Kv, Put, Store, Trouble, When};

/// Time between two renewals.
const RENEWED: Duration = Duration::from_secs(3);
/// Time in which the holder of a name has to answer that it is alive: the question and the answer each wait for the disks of
/// most members.
const CHALLENGE: Duration = Duration::from_secs(2);
/// Time that a withdrawal has.
const WITHDRAWN: Duration = Duration::from_secs(1);

/// Announcement of one node.
pub(crate) struct Announcer {
    store: Arc<Store>,
    known: Arc<Known>,
    holder: String,
    name: NodeName,
    key: String,
    challenge: String,
    /// Value of the key.
    value: Mutex<Vec<u8>>,
    /// Wakes the task that keeps the announcement up.
    look: Arc<Notify>,
    /// Task that hears the questions of others, which goes on as long as the announcement.
    _follower: Arc<Following>,
    /// Lease in etcd; 0 while there is none.
    lease: AtomicI64,
    is_held: AtomicBool,
}

impl Announcer {
    pub(crate) fn new(
        store: Arc<Store>,
        keys: &Keys,
        known: Arc<Known>,
        follower: Arc<Following>,
        registration: Registration,
    ) -> Arc<Self> {
        let holder = format!("{:016x}", fastrand::u64(..));
        let (key, challenge) = (keys.node(&registration.name), keys.challenge(&registration.name));
        let value = Mutex::new(layout::encode(&registration, &holder));
        let name = registration.name;
        let (look, lease, is_held) = (Arc::default(), AtomicI64::new(0), AtomicBool::new(false));
        Arc::new(Self { store, known, holder, name, key, challenge, value, look, _follower: follower, lease, is_held })
    }

    fn value(&self) -> MutexGuard<'_, Vec<u8>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the node, and keeps the announcement up until the lease is dropped.
    pub(crate) async fn announce(self: Arc<Self>) -> Result<Box<dyn Lease>, RegisterError> {
        let (first, answer) = oneshot::channel();
        let task = tokio::spawn(self.clone().keep(first));
        let lease: Box<dyn Lease> = Box::new(Kept(Some((task, self))));
        match answer.await {
            Ok(Ok(())) => Ok(lease),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(RegisterError::Unreachable("the registration was cancelled".into())),
        }
    }

    /// Keeps the announcement up for ever. The first outcome is reported, and an error of it is final.
    async fn keep(self: Arc<Self>, first: oneshot::Sender<Result<(), RegisterError>>) {
        self.known.hold(&self.name, self.look.clone());
        let (mut first, mut pause, mut told) = (Some(first), Pause::default(), None);
        loop {
            let ended = match self.register().await {
                Ok(()) => {
                    self.is_held.store(true, Ordering::Relaxed);
                    if told.take().is_some() {
                        tracing::info!(name = %self.name, "registered again");
                    }
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    pause = Pause::default();
                    self.renew().await
                }
                Err(error) => match first.take() {
                    Some(first) => {
                        self.end().await;
                        let _ = first.send(Err(error));
                        return;
                    }
                    None => error,
                },
            };
            self.is_held.store(false, Ordering::Relaxed);
            if told.as_ref() != Some(&ended) {
                let (name, error) = (&self.name, Chain(&ended));
                tracing::warn!(%name, %error, "not registered at the moment; this node tries again");
                told = Some(ended);
            }
            pause.wait().await;
        }
    }

    /// Writes the key, if its name is free or its holder is gone.
    async fn register(&self) -> Result<(), RegisterError> {
        let known = self.lease.load(Ordering::Relaxed);
        let lease = match known != 0 && self.store.renew(known).await? {
            true => known,
            false => self.store.grant(LEASE.as_secs().cast_signed()).await?,
        };
        self.lease.store(lease, Ordering::Relaxed);
        let (mut when, mut has_asked, value) = (When::Nothing, false, self.value().clone());
        loop {
            let held = match self.store.put(when, &self.key, &value, lease).await? {
                Put::Done => {
                    if has_asked {
                        self.store.delete(&self.challenge).await?;
                    }
                    return Ok(());
                }
                Put::Gone => {
                    when = When::Nothing;
                    continue;
                }
                Put::Held(held) => held,
            };
            if held.lease == lease && held.value == value {
                return Ok(());
            }
            if held.lease == 0 && layout::decode(self.name.clone(), &held.value).is_ok() {
                let key = &self.key;
                let text = format!("the key {key} in etcd was written by hand, without a lease; delete it");
                return Err(RegisterError::Refused(text));
            }
            if self.is_alive(&held, lease).await? {
                let registration = layout::decode(self.name.clone(), &held.value);
                let endpoints = registration.map(|entry| entry.registration.endpoints).unwrap_or_default();
                return Err(RegisterError::Taken { name: self.name.clone(), endpoints });
            }
            (when, has_asked) = (When::Unchanged(held.revision), true);
        }
    }

    /// Returns whether what stands at the key keeps the name from this process.
    async fn is_alive(&self, held: &Kv, lease: i64) -> Result<bool, Trouble> {
        // A value that cannot be read announces nobody.
        let Ok(entry) = layout::decode(self.name.clone(), &held.value) else { return Ok(false) };
        if entry.holder.as_ref() == Some(&self.holder) {
            return Ok(false);
        }
        // The watch begins before the question, so that no answer is missed, and the time after it.
        let mut watch = self.store.watch_key(&self.key, held.revision).await?;
        self.ask(lease).await?;
        let lost = |cause: Cause| Trouble::Unreachable(cause);
        let answered = async {
            loop {
                let news = match watch.message().await {
                    Ok(Some(news)) if !news.canceled() => news,
                    Ok(_) => return Err(lost("etcd ended the watch of the name's key".into())),
                    Err(error) => return Err(lost(Store::watch_failed(&error))),
                };
                if let Some(last) = news.events().last() {
                    return Ok(last.event_type() == EventType::Put);
                }
            }
        };
        tokio::time::timeout(CHALLENGE, answered).await.unwrap_or(Ok(false))
    }

    /// Asks the holder of the name whether it is alive.
    async fn ask(&self, lease: i64) -> Result<(), Trouble> {
        loop {
            let when = match self.store.get(&self.challenge).await? {
                Some(other) => When::Unchanged(other.revision),
                None => When::Nothing,
            };
            // Another process may ask at the same moment.
            if let Put::Done = self.store.put(when, &self.challenge, self.holder.as_bytes(), lease).await? {
                return Ok(());
            }
        }
    }

    /// Renews the lease, and writes the key again when the holder is asked or it is not as it was. Returns why that ended.
    async fn renew(&self) -> RegisterError {
        let mut renewal = tokio::time::interval(RENEWED);
        renewal.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        renewal.reset();
        loop {
            let looked = tokio::select! {
                _ = renewal.tick() => self.renew_once().await,
                () = self.look.notified() => self.look().await,
            };
            if let Err(error) = looked {
                return error;
            }
        }
    }

    async fn renew_once(&self) -> Result<(), RegisterError> {
        match self.store.renew(self.lease.load(Ordering::Relaxed)).await? {
            true => Ok(()),
            false => Err(RegisterError::Refused("the lease in etcd is over".into())),
        }
    }

    /// Looks at the key of this node, and writes it again if it is not as it should be, or if a process asked for the name: so
    /// that knows that the node is alive.
    async fn look(&self) -> Result<(), RegisterError> {
        let lease = self.lease.load(Ordering::Relaxed);
        let Some(now) = self.store.get(&self.key).await? else {
            return Err(RegisterError::Refused("the key in etcd was deleted".into()));
        };
        if now.lease != lease {
            return Err(RegisterError::Refused("the key in etcd was written by another process".into()));
        }
        let value = self.value().clone();
        let is_asked = async {
            self.store.get(&self.challenge).await.map(|asked| asked.is_some_and(|asked| asked.revision > now.revision))
        };
        if now.value != value || is_asked.await? {
            self.store.put(When::Unchanged(now.revision), &self.key, &value, lease).await?;
        }
        Ok(())
    }

    /// Takes the announcement back.
    async fn end(&self) {
        self.known.release(&self.name, &self.look);
        let lease = self.lease.swap(0, Ordering::Relaxed);
        if lease != 0 {
            // Otherwise it ends by itself.
            let _ = tokio::time::timeout(WITHDRAWN, self.store.revoke(lease)).await;
        }
    }
}

/// Announcement and the task that keeps it up, until they are taken.
struct Kept(Option<(JoinHandle<()>, Arc<Announcer>)>);

impl Kept {
    fn announcer(&self) -> Option<&Announcer> {
        self.0.as_ref().map(|(_, announcer)| &**announcer)
    }

    /// Takes the announcement back.
    fn end(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let kept = self.0.take();
        if let Some((task, _)) = &kept {
            task.abort();
        }
        async move {
            if let Some((task, announcer)) = kept {
                // What the task does at this moment is undone as well.
                let _ = task.await;
                announcer.end().await;
            }
        }
    }
}

impl Lease for Kept {
    fn is_held(&self) -> bool {
        self.announcer().is_some_and(|announcer| announcer.is_held.load(Ordering::Relaxed))
    }

    fn routes(&self) -> Option<watch::Receiver<Vec<GivenRoute>>> {
        self.announcer().map(|announcer| announcer.known.given())
    }

    fn update(&self, registration: Registration) -> BoxFuture<'static, Result<(), RegisterError>> {
        let announcer = self.0.as_ref().map(|(_, announcer)| announcer.clone());
        let Some(announcer) = announcer else {
            return Box::pin(async { Err(RegisterError::Unreachable("the lease ended".into())) });
        };
        let value = layout::encode(&registration, &announcer.holder);
        let before = std::mem::replace(&mut *announcer.value(), value.clone());
        Box::pin(async move {
            if !announcer.is_held.load(Ordering::Relaxed) {
                return Err(RegisterError::Unreachable("etcd is lost at the moment".into()));
            }
            let looked = announcer.look().await;
            match &looked {
                // The task that keeps the announcement up goes on trying.
                Err(error) if error.is_unreachable() => announcer.look.notify_one(),
                Err(_) => {
                    let mut now = announcer.value();
                    // A later update may have come.
                    if *now == value {
                        *now = before;
                    }
                }
                Ok(()) => {}
            }
            looked
        })
    }

    fn withdraw(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(self.end())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let is_kept = self.0.is_some();
        let ended = self.end();
        if let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| is_kept) {
            runtime.spawn(ended);
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("held", &self.is_held()).finish_non_exhaustive()
    }
}
