//! Announcement of one node, kept up.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use trunkline_registrar::{BoxFuture, GivenRoute, Lease, Pause, RegisterError, Registration};
use trunkline_route::{Chain, NodeName};

use crate::follow::{Known, LEASE};
use crate::layout::{self, Keys};
use crate::store::{Kv, Put, Store, Trouble, When};

/// Time between two renewals.
const RENEWED: Duration = Duration::from_secs(3);
/// Time in which the holder of a name has to answer that it is alive.
const CHALLENGE: Duration = Duration::from_secs(1);
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
    /// Lease in etcd; 0 while there is none.
    lease: AtomicI64,
    is_held: AtomicBool,
}

impl Announcer {
    pub(crate) fn new(
        store: Arc<Store>,
        keys: &Keys,
        known: Arc<Known>,
        holder: String,
        registration: Registration,
    ) -> Arc<Self> {
        let (key, challenge) = (keys.node(&registration.name), keys.challenge(&registration.name));
        let value = Mutex::new(layout::encode(&registration, &holder));
        let name = registration.name;
        let (look, lease, is_held) = (Arc::default(), AtomicI64::new(0), AtomicBool::new(false));
        Arc::new(Self { store, known, holder, name, key, challenge, value, look, lease, is_held })
    }

    fn value(&self) -> MutexGuard<'_, Vec<u8>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the node, and keeps the announcement up until the lease is dropped.
    pub(crate) async fn announce(self: Arc<Self>) -> Result<Box<dyn Lease>, RegisterError> {
        let (first, answer) = oneshot::channel();
        let task = tokio::spawn(self.clone().keep(first)).abort_handle();
        let lease: Box<dyn Lease> = Box::new(Kept { task, announcer: Some(self) });
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
        if held.lease == 0 {
            return Ok(true);
        }
        // The watch begins before the question, so that no answer is missed.
        let answered = self.store.changed(&self.key, held.revision);
        let ask = async {
            let when = match self.store.get(&self.challenge).await? {
                Some(other) => When::Unchanged(other.revision),
                None => When::Nothing,
            };
            self.store.put(when, &self.challenge, self.holder.as_bytes(), lease).await?;
            std::future::pending().await
        };
        let answer = async {
            tokio::select! {
                answered = answered => answered,
                failed = ask => failed,
            }
        };
        match tokio::time::timeout(CHALLENGE, answer).await {
            Ok(Ok(())) => Ok(self.store.get(&self.key).await?.is_some_and(|now| now.lease != lease)),
            Ok(Err(trouble)) => Err(trouble),
            Err(_) => Ok(false),
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
        self.known.release(&self.name);
        let lease = self.lease.swap(0, Ordering::Relaxed);
        if lease != 0 {
            // Otherwise it ends by itself.
            let _ = tokio::time::timeout(WITHDRAWN, self.store.revoke(lease)).await;
        }
    }
}

struct Kept {
    task: AbortHandle,
    announcer: Option<Arc<Announcer>>,
}

impl Lease for Kept {
    fn is_held(&self) -> bool {
        self.announcer.as_ref().is_some_and(|announcer| announcer.is_held.load(Ordering::Relaxed))
    }

    fn routes(&self) -> Option<watch::Receiver<Vec<GivenRoute>>> {
        self.announcer.as_ref().map(|announcer| announcer.known.given())
    }

    fn update(&self, registration: Registration) -> bool {
        let Some(announcer) = &self.announcer else { return false };
        *announcer.value() = layout::encode(&registration, &announcer.holder);
        announcer.look.notify_one();
        true
    }

    fn withdraw(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        self.task.abort();
        let announcer = self.announcer.take();
        Box::pin(async move {
            if let Some(announcer) = announcer {
                announcer.end().await;
            }
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(announcer) = self.announcer.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { announcer.end().await });
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("held", &self.is_held()).finish_non_exhaustive()
    }
}
