//! Connections that are dialled again by themselves, or go back to a better route: the tasks around
//! [`crate::keep`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_route::{CloseCode, NodeName, Reconnect, Role, later};
use trunkline_stack::{Chain, Down, LinkInfo, log_connection};

use super::ports::Probe;
use super::{SessionEvent, Sessions, now};
use crate::connection::facts;
use crate::keep::{Better, Failback, Keeper};
use crate::sessions::ConnectRequest;
use crate::{Candidate, ConnectError, exec};

/// A route that a connection over a worse one is to go back to, and why it has not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingFailback {
    /// The pattern of the route.
    pub pattern: Arc<str>,
    /// For how long the route must answer every probe.
    pub hold: Duration,
    /// For how long it has; `None` if it did not answer the last probe, or there was none yet.
    pub answered_for: Option<Duration>,
    /// Reason why the last probe failed, if it did.
    pub failure: Option<String>,
}

/// Re-dials and failbacks of a node.
#[derive(Default)]
pub(super) struct Kept {
    keeper: Mutex<Keeper>,
    /// Some name may have lapsed; while none has, no lock is taken to find that out.
    some_lapsed: AtomicBool,
    /// The table was edited: probes may be due sooner.
    changed: Arc<Notify>,
}

/// Evenly from 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    getrandom::getrandom(&mut bytes).expect("the operating system has randomness once it has booted");
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

/// Returns true if one of the two ends wanted the connection gone, whatever ended it at last.
fn was_meant(reason: &Down, going: Option<CloseCode>) -> bool {
    let code = match reason {
        Down::ClosedHere(code) | Down::ClosedByPeer { code, .. } => Some(*code),
        _ => None,
    };
    [code, going].contains(&Some(CloseCode::Disconnected))
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_lapsed(&self, name: &NodeName) -> bool {
        self.some_lapsed() && self.lock().has_lapsed(name)
    }

    pub(super) fn forgive(&self, name: &NodeName) {
        if self.some_lapsed() {
            let mut keeper = self.lock();
            keeper.forgive(name);
            self.note_lapsed(&keeper);
        }
    }

    /// Returns false only if no name has lapsed.
    fn some_lapsed(&self) -> bool {
        self.some_lapsed.load(Ordering::Acquire)
    }

    /// Called under the lock, so that the flag follows the changes in their order.
    fn note_lapsed(&self, keeper: &Keeper) {
        self.some_lapsed.store(keeper.some_lapsed(), Ordering::Release);
    }

    /// A link is up.
    pub(super) fn up(&self, node: &Arc<Sessions>, info: &LinkInfo) {
        let better: Vec<_> = node.better_routes(info).iter().map(Better::of).collect();
        let begins = self.lock().up(now(), &info.peer, &better);
        if begins {
            node.spawn(go_back(Arc::downgrade(node), info.peer.clone()));
        }
    }

    /// Looks for routes better than this link's, after an edit.
    pub(super) fn watch(&self, node: &Arc<Sessions>, info: &LinkInfo) {
        let better: Vec<_> = node.better_routes(info).iter().map(Better::of).collect();
        let begins = self.lock().watch(&info.peer, &better);
        self.changed.notify_waiters();
        if begins {
            node.spawn(go_back(Arc::downgrade(node), info.peer.clone()));
        }
    }

    /// The connection to a name went down.
    pub(super) fn down(&self, node: &Arc<Sessions>, info: &LinkInfo, reason: &Down, going: Option<CloseCode>) {
        let peer = &info.peer;
        let meant = was_meant(reason, going) || node.is_leaving();
        let was_dialled = info.role == Role::Initiator;
        let reconnect = node.routing().reconnect(peer, was_dialled);
        let mut keeper = self.lock();
        // The news may be late: another link is up, or will tell of itself behind this.
        let begins = node.registry.get(peer).is_none() && keeper.down(peer, reconnect, meant);
        self.note_lapsed(&keeper);
        drop(keeper);
        if begins {
            node.spawn(dial_again(Arc::downgrade(node), peer.clone(), was_dialled));
        }
    }
}

/// Dials a connection that is kept up, until it is up or nobody wants it kept any more.
async fn dial_again(node: Weak<Sessions>, name: NodeName, was_dialled: bool) {
    loop {
        let Some(pause) = node.upgrade().map(|node| node.kept.lock().pause(now(), &name, random())) else { return };
        tokio::time::sleep(pause).await;
        let Some(node) = node.upgrade() else { return };
        if !node.kept.lock().goes_on(&name, node.routing().reconnect(&name, was_dialled) == Reconnect::Keep, || true) {
            return;
        }
        let again = matches!(
            node.session(name.clone(), ConnectRequest::default()).await,
            Ok(_) | Err(ConnectError::NoRoute(_))
        );
        // A link that is up needs no more of this, however late the news of the one before it came.
        let is_down = || node.registry.get(&name).is_none();
        if !node.kept.lock().goes_on(&name, again, is_down) {
            return;
        }
    }
}

/// Probes the better routes of a connection over a standby, and moves it when one of them has held.
async fn go_back(node: Weak<Sessions>, name: NodeName) {
    let Some(changed) = node.upgrade().map(|node| node.kept.changed.clone()) else { return };
    loop {
        let since = now();
        loop {
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let Some(pause) = node.upgrade().map(|node| node.kept.lock().probe_pause(&name, random())) else { return };
            tokio::select! {
                () = tokio::time::sleep_until(later(since, pause).into()) => break,
                () = notified => {}
            }
        }
        let Some(node) = node.upgrade() else { return };
        if !node.probe_better_routes(&name).await
            && !node.kept.lock().goes_on_probing(&name, || node.has_better_route(&name))
        {
            return;
        }
    }
}

impl Sessions {
    /// Returns true if a better route is left to go back to.
    async fn probe_better_routes(self: &Arc<Self>, name: &NodeName) -> bool {
        let Some(live) = self.registry.get(name) else { return false };
        let candidates = self.better_routes(live.link.info());
        self.kept.lock().watch(name, &candidates.iter().map(Better::of).collect::<Vec<_>>());
        for candidate in candidates {
            let better = Better::of(&candidate);
            let demand = ConnectRequest { only: Some(candidate.clone()), ..ConnectRequest::default() };
            let lookup = self.lookup(name, &demand);
            let probed = exec::run(Arc::new(Probe { node: self.clone() }), lookup).await;
            let healthy = probed.is_ok();
            if let Err(no_route) = probed {
                let cause = no_route
                    .attempts
                    .last()
                    .map_or_else(|| no_route.reason.to_string(), |at| Chain(&at.error).to_string());
                self.kept.lock().probe_failed(name, &better, cause);
            }
            if !self.kept.lock().probed(now(), name, &better, healthy) {
                continue;
            }
            // One that went down meanwhile, or is about to, is not brought back by this.
            if self.registry.get(name).is_none_or(|now| !now.link.same(&live.link) || !now.link.is_open()) {
                break;
            }
            match self.session(name.clone(), demand).await {
                Ok(live) => {
                    self.kept.lock().moved(now(), name, &better);
                    log_connection!(live.link.info(), Info, "went back to the better route");
                    self.emit(SessionEvent::FailedBack { peer: name.clone(), pattern: candidate.pattern });
                    break;
                }
                Err(_) => drop(self.kept.lock().probed(now(), name, &better, false)),
            }
        }
        self.has_better_route(name)
    }

    /// The routes that the connection of a link is to go back to, best first.
    pub(super) fn pending_failbacks_of(&self, info: &LinkInfo) -> Vec<PendingFailback> {
        let (better, keeper, now) = (self.better_routes(info), self.kept.lock(), now());
        let pending = |candidate: &Candidate| {
            let known = keeper.failback(&info.peer, &Better::of(candidate));
            PendingFailback {
                pattern: candidate.pattern.clone(),
                hold: known.map_or_else(|| candidate.route.failback().unwrap_or_default(), Failback::hold),
                answered_for: known.and_then(|known| known.answered_for(now)),
                failure: known.and_then(|known| known.failure().map(str::to_owned)),
            }
        };
        better.iter().map(pending).collect()
    }

    /// The routes that a connection over this link is to go back to, best first; each is better than its own.
    fn better_routes(&self, info: &LinkInfo) -> Vec<Candidate> {
        self.routing().better_routes(&info.peer, facts(info))
    }

    fn has_better_route(&self, name: &NodeName) -> bool {
        self.registry.get(name).is_some_and(|live| !self.better_routes(live.link.info()).is_empty())
    }
}
