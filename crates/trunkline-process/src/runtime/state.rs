//! State of the processes of a node, behind one lock: their ties, tasks, watchers and offers.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use trunkline_matcher::AccessPattern;
use trunkline_route::NodeName;
use trunkline_term::Term;

use super::error::SpawnError;
use super::{Process, SpawnLimits};
use crate::{Effect, Exit, Pid, Ties};

/// The code of a process, as it runs.
pub(super) type Running = Pin<Box<dyn Future<Output = Exit> + Send>>;
/// The code of a process that an offer begins, with the arguments of who asked for it.
pub(super) type Factory = Arc<dyn Fn(Process, Term) -> Running + Send + Sync>;
/// Process of an application: its mailbox, its arguments, and its code.
pub(super) type Part = (String, Term, Factory);

/// A process that runs.
pub(super) struct Live {
    pub(super) exits: mpsc::Sender<(Pid, Exit)>,
    /// Known a moment after it began.
    pub(super) abort: Option<AbortHandle>,
    pub(super) origin: Origin,
}

/// Origin of a process.
pub(super) enum Origin {
    /// Begun by this node's own program.
    Own,
    /// Begun by a peer, from an offer.
    Spawn { peer: NodeName, offer: String },
    /// Begun as a part of an application, which a peer may have started.
    Application { peer: Option<NodeName>, name: String, mailbox: String },
}

impl Origin {
    pub(super) fn application(&self) -> Option<&str> {
        match self {
            Self::Application { name, .. } => Some(name),
            Self::Own | Self::Spawn { .. } => None,
        }
    }

    pub(super) fn mailbox(&self) -> Option<&str> {
        match self {
            Self::Application { mailbox, .. } => Some(mailbox),
            Self::Own | Self::Spawn { .. } => None,
        }
    }

    pub(super) fn peer(&self) -> Option<&NodeName> {
        match self {
            Self::Spawn { peer, .. } => Some(peer),
            Self::Application { peer, .. } => peer.as_ref(),
            Self::Own => None,
        }
    }
}

/// An offer to peers of certain names to begin something here.
pub(super) struct Offer<T> {
    pub(super) what: T,
    pub(super) allow: Vec<AccessPattern>,
}

impl<T> Offer<T> {
    pub(super) fn allows(&self, peer: &NodeName) -> bool {
        self.allow.iter().any(|pattern| pattern.is_match(peer.as_str()))
    }
}

/// An offer that peers may begin processes of, by one name.
pub(super) struct Spawnable {
    pub(super) offer: Offer<Factory>,
    pub(super) limits: SpawnLimits,
}

/// An application of this node.
pub(super) struct Offered {
    pub(super) offer: Offer<Vec<Part>>,
    /// In the order they began.
    pub(super) running: Vec<Pid>,
    /// More processes are to begin.
    pub(super) starting: bool,
    /// Reason why it stops, once one of its processes did not end well.
    pub(super) failed: Option<Exit>,
}

impl Offered {
    pub(super) fn runs(&self) -> bool {
        self.starting || !self.running.is_empty()
    }
}

pub(super) struct State {
    pub(super) ties: Ties,
    pub(super) live: HashMap<u64, Live>,
    pub(super) watches: HashMap<u64, oneshot::Sender<Exit>>,
    pub(super) factories: BTreeMap<String, Spawnable>,
    pub(super) applications: BTreeMap<String, Offered>,
    pub(super) stopped: bool,
}

impl State {
    /// Returns the state of a node without processes.
    pub(super) fn new(ties: Ties) -> Self {
        Self {
            ties,
            live: HashMap::new(),
            watches: HashMap::new(),
            factories: BTreeMap::new(),
            applications: BTreeMap::new(),
            stopped: false,
        }
    }

    /// Refuses a process of an offer of which as many run as may.
    pub(super) fn room_for(&self, origin: &Origin) -> Result<(), SpawnError> {
        let Origin::Spawn { offer, .. } = origin else { return Ok(()) };
        let Some(max) = self.factories.get(offer).and_then(|spawnable| spawnable.limits.max) else { return Ok(()) };
        let is_of_it = |live: &&Live| matches!(&live.origin, Origin::Spawn { offer: other, .. } if other == offer);
        if self.live.values().filter(is_of_it).count() < max {
            return Ok(());
        }
        Err(SpawnError::Overloaded(format!("{max} processes named {offer:?} run already, as many as may at once")))
    }

    /// Notes that a process ended. Returns what others are to be told, and the tasks that are to be stopped: those of its
    /// application, if it did not end well.
    pub(super) fn ended(&mut self, number: u64, exit: &Exit) -> (Vec<Effect>, Vec<AbortHandle>) {
        let effects = self.ties.end(number, exit);
        let live = self.live.remove(&number);
        let name = live.as_ref().and_then(|live| live.origin.application());
        let Some(offered) = name.and_then(|name| self.applications.get_mut(name)) else { return (effects, Vec::new()) };
        offered.running.retain(|pid| pid.number != number);
        if *exit == Exit::Normal {
            return (effects, Vec::new());
        }
        offered.failed.get_or_insert_with(|| exit.clone());
        let stop = offered.running.clone();
        (effects, self.aborts(&stop))
    }

    /// Returns the tasks of these processes, in the reverse order of their beginning.
    pub(super) fn aborts(&self, pids: &[Pid]) -> Vec<AbortHandle> {
        pids.iter().rev().filter_map(|pid| self.live.get(&pid.number)?.abort.clone()).collect()
    }
}

/// Returns the code of an offer behind a pointer.
pub(super) fn boxed<F, R>(factory: F) -> Factory
where
    F: Fn(Process, Term) -> R + Send + Sync + 'static,
    R: Future<Output: Into<Exit>> + Send + 'static,
{
    Arc::new(move |process, arguments| {
        let running = factory(process, arguments);
        Box::pin(async move { running.await.into() })
    })
}
