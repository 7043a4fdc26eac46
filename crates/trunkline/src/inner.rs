//! State that the tasks and handles of a node share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinSet};
use trunkline_dial::{SessionEvent, Sessions};
use trunkline_forward::Services;
use trunkline_link::Native;
use trunkline_mesh::Cluster;
use trunkline_process::runtime::Processes;
use trunkline_proxy::Gateway;
use trunkline_registrar::{Lease, RegisterError, Registration};
use trunkline_registrar_embedded::Embedded;
use trunkline_route::{Chain, CloseCode};
use trunkline_stack::{BoxFuture, Down};
use trunkline_tls::{Certificates, Expiring, Reloaded};

use crate::events::Event;
use crate::{Told, given};

#[expect(clippy::disallowed_methods, reason = "certificates are for a time of the calendar")]
fn today() -> SystemTime {
    SystemTime::now()
}

/// Parts of a node. No task that runs holds it, except through [`Handle`], which ends them all.
pub(crate) struct Inner {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) services: Services,
    pub(crate) processes: Arc<Processes>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) native: Arc<Native>,
    pub(crate) certificates: Certificates,
    pub(crate) events: broadcast::Sender<Event>,
}

/// A part of a node that ends everything when its last owner drops it.
pub(crate) struct Handle {
    pub(crate) inner: Arc<Inner>,
    pub(crate) listeners: Mutex<JoinSet<()>>,
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) lease: Mutex<Option<Box<dyn Lease>>>,
    /// Announcement of the node, as it is or would be.
    pub(crate) own: Mutex<Registration>,
    /// True if the node is not announced, whatever it offers.
    pub(crate) is_hidden: bool,
    /// Task that follows the routes of the lease.
    pub(crate) given: Mutex<Option<AbortHandle>>,
    pub(crate) embedded: Option<Arc<Embedded>>,
}

impl Handle {
    pub(crate) fn lease(&self) -> MutexGuard<'_, Option<Box<dyn Lease>>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a lease, and the routes that come with it.
    pub(crate) fn keep(&self, lease: Box<dyn Lease>) {
        let routes = lease.routes().map(|routes| given::follow(&self.inner.sessions, routes));
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = routes;
        *self.lease() = Some(lease);
    }

    /// Gives the lease up: nobody follows its routes any more.
    pub(crate) fn end_lease(&self) -> Option<Box<dyn Lease>> {
        if let Some(routes) = self.given.lock().unwrap_or_else(PoisonError::into_inner).take() {
            routes.abort();
        }
        self.lease().take()
    }

    pub(crate) fn own(&self) -> MutexGuard<'_, Registration> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the announcement of the node. Of a change that is refused, the announcement stays as it was.
    pub(crate) fn announce(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Registration),
    ) -> BoxFuture<'static, Result<Told, RegisterError>> {
        let (lease, mut own) = (self.lease(), self.own());
        let before = own.clone();
        change(&mut own);
        let now = own.clone();
        // Under both locks, so that the last change is the last that the registrar is told.
        let updated =
            lease.as_ref().filter(|_| !self.is_hidden && now != before).map(|lease| lease.update(now.clone()));
        let told = if lease.is_some() && !self.is_hidden { Told::Now } else { Told::Nobody };
        let handle = Arc::downgrade(self);
        Box::pin(async move {
            let Some(updated) = updated else { return Ok(told) };
            match updated.await {
                Ok(()) => Ok(Told::Now),
                Err(error) if error.is_unreachable() => Ok(Told::Later),
                Err(error) => {
                    if let Some(handle) = handle.upgrade() {
                        let mut own = handle.own();
                        // A later change may have come.
                        if *own == now {
                            *own = before;
                        }
                    }
                    Err(error)
                }
            }
        })
    }

    /// Changes the announcement of the node in the background, and logs a refusal.
    pub(crate) fn announce_later(self: &Arc<Self>, change: impl FnOnce(&mut Registration)) {
        let announced = self.announce(change);
        self.inner.sessions.spawn(Box::pin(async move {
            if let Err(error) = announced.await {
                tracing::warn!(error = %Chain(&error), "the announcement of this node was not changed");
            }
        }));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.end_lease());
        self.inner.sessions.abort();
        self.inner.processes.stop_all();
        self.inner.sessions.close();
    }
}

impl Inner {
    /// Tells readers of events. A peer that went down takes its ties with it first, so that who reads the event finds that
    /// done.
    pub(crate) fn happened(self: &Arc<Self>, event: SessionEvent) {
        if let SessionEvent::Down { peer, reason } = &event {
            self.processes.node_down(peer, reason);
        }
        if let Some(cluster) = &self.cluster {
            match &event {
                // A node that came in by a cookie of its own is no member.
                SessionEvent::Up(info) if self.sessions.keys().is_of_node(&info.cookie) => cluster.up(info),
                SessionEvent::Down { peer, reason } => {
                    use Down::{ClosedByPeer, ClosedHere};
                    let (ClosedByPeer { code, .. } | ClosedHere(code)) = reason else {
                        return cluster.down(peer, false);
                    };
                    cluster.down(peer, *code == CloseCode::Disconnected);
                }
                _ => {}
            }
        }
        self.emit(event.into());
    }

    pub(crate) fn emit(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Looks at the certificate files, and takes up what changed and what expires soon.
    pub(crate) fn look_at_certificates(&self, at_once: bool) -> Vec<Reloaded> {
        let done = self.certificates.look(at_once);
        for Reloaded { what, error } in done.iter().cloned() {
            match error {
                None => {
                    tracing::info!(what, "certificates reloaded");
                    self.emit(Event::CertificatesReloaded { what });
                }
                Some(error) => {
                    tracing::warn!(what, error = %Chain(&error), "changed certificates cannot be used; those before are kept");
                    self.emit(Event::CertificatesKept { what, error });
                }
            }
        }
        let today = today();
        for Expiring { what, expires, is_over } in self.certificates.expiring(today) {
            let days = expires.duration_since(today).unwrap_or_default().as_secs() / 86_400;
            match is_over {
                false => tracing::warn!(what, days, "the certificate expires soon; put a newer one into its files"),
                true => tracing::error!(what, "the certificate has expired; put a newer one into its files"),
            }
            self.emit(Event::CertificateExpires { what, expires });
        }
        done
    }
}
