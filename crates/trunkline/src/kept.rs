//! Connections that are dialled again by themselves, or go back to a better route: the tasks around
//! [`trunkline_dial::keep`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use trunkline_dial::keep::{Backoff, Failback};
use trunkline_dial::{Candidate, exec};
use trunkline_link::handshake::CloseCode;
use trunkline_link::{Down, LinkInfo, log_connection, random_16};
use trunkline_route::{NodeName, Reconnect};

use crate::ConnectError;
use crate::events::Event;
use crate::inner::{Demand, Inner, now};
use crate::ports::Probe;

/// Names remembered here; a node has no more links.
const MOST: usize = 65_536;

/// What a node does for its connections unasked.
#[derive(Default)]
pub(crate) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    /// They went down and are to stay so until somebody connects.
    lapsed: HashSet<NodeName>,
    backoffs: HashMap<NodeName, Backoff>,
    /// By name, and by the pattern of the better route and its hold time.
    failbacks: HashMap<NodeName, HashMap<Better, Failback>>,
    /// Names with a task that dials them, and whether they are still down against everybody's will.
    dialling: HashMap<NodeName, bool>,
    /// Names with a task that probes.
    probing: HashSet<NodeName>,
}

type Better = (Arc<str>, Duration);

fn better(candidate: &Candidate) -> Better {
    (candidate.pattern.clone(), candidate.route.failback().unwrap_or_default())
}

/// Evenly from 0 to 1.
fn random() -> f64 {
    let [a, b, c, d, ..] = random_16();
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

/// Whether one of the two ends wanted the connection gone.
fn was_meant(reason: &Down) -> bool {
    let meant = |code: &CloseCode| *code == CloseCode::Disconnected;
    matches!(reason, Down::ClosedHere(code) | Down::ClosedByPeer { code, .. } if meant(code))
}

impl State {
    /// Tells the task that dials this name, if there is one.
    fn is_down(&mut self, peer: &NodeName, down: bool) -> bool {
        self.dialling.get_mut(peer).map(|known| *known = down).is_some()
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_lapsed(&self, name: &NodeName) -> bool {
        self.lock().lapsed.contains(name)
    }

    /// Somebody connects: whatever was, is over.
    pub(crate) fn forgive(&self, name: &NodeName) {
        self.lock().lapsed.remove(name);
    }

    /// A link is up.
    pub(crate) fn up(&self, node: &Arc<Inner>, info: &LinkInfo) {
        let routes = node.better_routes(info);
        let mut state = self.lock();
        state.lapsed.remove(&info.peer);
        state.is_down(&info.peer, false);
        if let Some(backoff) = state.backoffs.get_mut(&info.peer) {
            backoff.up(now());
        }
        if routes.is_empty() || state.failbacks.len() >= MOST {
            return;
        }
        let known = state.failbacks.entry(info.peer.clone()).or_default();
        // Routes that were changed or removed are forgotten.
        known.retain(|known, _| routes.iter().any(|route| better(route) == *known));
        for route in &routes {
            let (pattern, hold) = better(route);
            known.entry((pattern, hold)).or_insert_with(|| Failback::new(hold)).fell_back(now());
        }
        if state.probing.insert(info.peer.clone()) {
            drop(state);
            node.spawn(go_back(Arc::downgrade(node), info.peer.clone()));
        }
    }

    /// The connection to a name went down.
    pub(crate) fn down(&self, node: &Arc<Inner>, peer: &NodeName, reason: &Down) {
        let reconnect = node.reconnect(peer);
        let mut state = self.lock();
        if was_meant(reason) || node.is_shutting_down() {
            state.is_down(peer, false);
            return;
        }
        match reconnect {
            Reconnect::OnDemand => {}
            Reconnect::Never if state.lapsed.len() < MOST => drop(state.lapsed.insert(peer.clone())),
            Reconnect::Keep if state.backoffs.len() < MOST => {
                state.backoffs.entry(peer.clone()).or_default();
                if !state.is_down(peer, true) {
                    state.dialling.insert(peer.clone(), true);
                    drop(state);
                    node.spawn(dial_again(Arc::downgrade(node), peer.clone()));
                }
            }
            Reconnect::Never | Reconnect::Keep => {}
        }
    }

    /// Whether the task that dials this name goes on. One that does not is forgotten in the same step, so that whoever
    /// finds the name down afterwards begins another.
    fn is_to_be_dialled(&self, name: &NodeName, wanted: bool, is_down: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        let goes_on = wanted && state.dialling.get(name) == Some(&true) && is_down();
        if !goes_on {
            state.dialling.remove(name);
        }
        goes_on
    }

    fn pause(&self, name: &NodeName) -> Duration {
        self.lock().backoffs.entry(name.clone()).or_default().next(now(), random())
    }
}

/// Dials a connection that is kept up, until it is up or nobody wants it kept any more.
async fn dial_again(node: Weak<Inner>, name: NodeName) {
    loop {
        let Some(pause) = node.upgrade().map(|node| node.kept.pause(&name)) else { return };
        tokio::time::sleep(pause).await;
        let Some(node) = node.upgrade() else { return };
        if !node.kept.is_to_be_dialled(&name, node.reconnect(&name) == Reconnect::Keep, || true) {
            return;
        }
        let again =
            matches!(node.connect(name.clone(), Demand::default()).await, Ok(_) | Err(ConnectError::NoRoute(_)));
        // A link that is up needs no more of this, however late the news of the one before it came.
        let is_down = || node.registry.get(&name).is_none();
        if !node.kept.is_to_be_dialled(&name, again, is_down) {
            return;
        }
    }
}

/// Probes the better routes of a connection over a standby, and moves it when one of them has held.
async fn go_back(node: Weak<Inner>, name: NodeName) {
    loop {
        let Some(pause) = node.upgrade().map(|node| node.kept.probe_pause(&name)) else { return };
        tokio::time::sleep(pause).await;
        let Some(node) = node.upgrade() else { return };
        if !node.probe_better_routes(&name).await {
            node.kept.lock().probing.remove(&name);
            // What fell back meanwhile found this task and began none.
            if !node.has_better_route(&name) || !node.kept.lock().probing.insert(name.clone()) {
                return;
            }
        }
    }
}

impl Kept {
    /// The shortest pause of the routes that are probed, with a quarter of jitter: nodes that fell back together
    /// shall not come back together.
    fn probe_pause(&self, name: &NodeName) -> Duration {
        let shortest = self.lock().failbacks.get(name).and_then(|known| known.values().map(Failback::pause).min());
        shortest.unwrap_or_default().mul_f64(0.875 + random() / 4.0)
    }

    fn with_failback<T>(
        &self,
        name: &NodeName,
        candidate: &Candidate,
        change: impl FnOnce(&mut Failback) -> T,
    ) -> Option<T> {
        self.lock().failbacks.get_mut(name)?.get_mut(&better(candidate)).map(change)
    }
}

impl Inner {
    /// Whether there is still something to go back to.
    async fn probe_better_routes(self: &Arc<Self>, name: &NodeName) -> bool {
        let Some(live) = self.registry.get(name) else { return false };
        for candidate in self.better_routes(live.link.info()) {
            let demand = Demand { only: Some(candidate.clone()), afresh: true, ..Demand::default() };
            let lookup = self.lookup(name, &demand);
            let healthy = exec::run(Arc::new(Probe { node: self.clone() }), lookup).await.is_ok();
            let is_due = self.kept.with_failback(name, &candidate, |failback| failback.probed(now(), healthy));
            if is_due != Some(true) {
                continue;
            }
            match self.connect(name.clone(), demand).await {
                Ok(live) => {
                    self.kept.with_failback(name, &candidate, |failback| failback.moved(now()));
                    log_connection!(live.link.info(), Info, "went back to the better route");
                    self.emit(Event::FailedBack { peer: name.clone(), pattern: candidate.pattern });
                    break;
                }
                Err(_) => drop(self.kept.with_failback(name, &candidate, |failback| failback.probed(now(), false))),
            }
        }
        self.has_better_route(name)
    }

    fn has_better_route(&self, name: &NodeName) -> bool {
        self.registry.get(name).is_some_and(|live| !self.better_routes(live.link.info()).is_empty())
    }
}
