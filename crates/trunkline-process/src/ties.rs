//! Links and watches between processes.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_route::NodeName;

use crate::{Exit, Pid};

/// Action that follows from a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell a process of this node that one it is linked to ended.
    Exit {
        /// The process to tell.
        to: u64,
        /// The one that ended.
        from: Pid,
        /// Reason of the end.
        exit: Exit,
    },
    /// Tell who watches from this node.
    Down {
        /// By which watch.
        watch: u64,
        /// Reason of the end.
        exit: Exit,
    },
    /// Tell the node of a linked process.
    ExitThere {
        /// The process to tell.
        to: Pid,
        /// Process of this node that ended.
        from: u64,
        /// Reason of the end.
        exit: Exit,
    },
    /// Tell a node that watches.
    DownThere {
        /// The node.
        node: NodeName,
        /// By which watch of its.
        watch: u64,
        /// Reason of the end.
        exit: Exit,
    },
}

/// Error returned when no such process exists on this node, or it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such process")]
pub struct NoProcess;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Watcher {
    Here(u64),
    There(NodeName, u64),
}

/// Links and watchers that a process has before peers can add no more.
pub const MAX_TIES: usize = 65_536;
/// Links and watchers of one peer that a process has before this peer can add no more: a quarter of [`MAX_TIES`], so that
/// no peer keeps the others from a process.
pub const PEER_TIES: usize = MAX_TIES / 4;

/// Error returned when a peer may add no link or watcher to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TooManyTies {
    /// The peer has its share.
    #[error("the process has {PEER_TIES} links and watchers of this node already; unlink or demonitor some first")]
    OfPeer,
    /// The process has as many as it takes.
    #[error("the process has {MAX_TIES} links and watchers already")]
    OfProcess,
}

#[derive(Debug, Default)]
struct Tied {
    links: BTreeSet<Pid>,
    watchers: BTreeSet<Watcher>,
    /// Number of links and watchers of each node.
    shares: BTreeMap<NodeName, usize>,
}

impl Tied {
    fn link(&mut self, other: Pid) {
        let node = other.node.clone();
        if self.links.insert(other) {
            *self.shares.entry(node).or_default() += 1;
        }
    }

    fn unlink(&mut self, other: &Pid) -> bool {
        let was = self.links.remove(other);
        if was {
            self.gives_back(&other.node);
        }
        was
    }

    fn watched_there(&mut self, node: NodeName, watch: u64) {
        if self.watchers.insert(Watcher::There(node.clone(), watch)) {
            *self.shares.entry(node).or_default() += 1;
        }
    }

    fn unwatched_there(&mut self, node: &NodeName, watch: u64) {
        if self.watchers.remove(&Watcher::There(node.clone(), watch)) {
            self.gives_back(node);
        }
    }

    /// Counts one link or watcher of a node less.
    fn gives_back(&mut self, node: &NodeName) {
        if let Some(share) = self.shares.get_mut(node) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(node);
            }
        }
    }
}

/// The processes of one life of a node, and what they are tied to.
#[derive(Debug)]
pub struct Ties {
    node: NodeName,
    creation: u32,
    last: u64,
    last_watch: u64,
    live: BTreeMap<u64, Tied>,
    /// Watches of this node, with what each watches.
    watches: BTreeMap<u64, Pid>,
}

impl Ties {
    /// The book of a node's life.
    pub fn new(node: NodeName, creation: u32) -> Self {
        Self { node, creation, last: 0, last_watch: 0, live: BTreeMap::new(), watches: BTreeMap::new() }
    }

    /// A process begins.
    pub fn begin(&mut self) -> Pid {
        self.last += 1;
        self.live.insert(self.last, Tied::default());
        self.pid(self.last)
    }

    fn pid(&self, number: u64) -> Pid {
        Pid { node: self.node.clone(), number, creation: self.creation }
    }

    /// This life of the node.
    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// Returns true if a pid belongs to this instance of this node.
    pub fn is_own(&self, pid: &Pid) -> bool {
        pid.node == self.node && pid.creation == self.creation
    }

    /// The processes that live, in the order they began.
    pub fn live(&self) -> Vec<Pid> {
        self.live.keys().map(|number| self.pid(*number)).collect()
    }

    /// Returns the process that a peer names by a number and an instance of this node.
    ///
    /// # Errors
    /// [`NoProcess`].
    pub fn own(&self, number: u64, creation: u32) -> Result<u64, NoProcess> {
        (creation == self.creation && self.live.contains_key(&number)).then_some(number).ok_or(NoProcess)
    }

    /// Returns the number of links and watchers of a process.
    pub fn count(&self, number: u64) -> usize {
        self.live.get(&number).map_or(0, |tied| tied.links.len() + tied.watchers.len())
    }

    /// Returns whether a process has room for one more link or watcher of a peer.
    ///
    /// # Errors
    /// [`TooManyTies`].
    pub fn room(&self, number: u64, peer: &NodeName) -> Result<(), TooManyTies> {
        let share = self.live.get(&number).and_then(|tied| tied.shares.get(peer));
        if share.is_some_and(|share| *share >= PEER_TIES) {
            return Err(TooManyTies::OfPeer);
        }
        if self.count(number) >= MAX_TIES { Err(TooManyTies::OfProcess) } else { Ok(()) }
    }

    /// A process ended.
    pub fn end(&mut self, number: u64, exit: &Exit) -> Vec<Effect> {
        let Some(tied) = self.live.remove(&number) else { return Vec::new() };
        let (from, mut effects) = (self.pid(number), Vec::new());
        for other in tied.links {
            let exit = exit.clone();
            if !self.is_own(&other) {
                effects.push(Effect::ExitThere { to: other, from: number, exit });
            } else if self.live.get_mut(&other.number).is_some_and(|tied| tied.unlink(&from)) {
                effects.push(Effect::Exit { to: other.number, from: from.clone(), exit });
            }
        }
        for watcher in tied.watchers {
            let exit = exit.clone();
            match watcher {
                Watcher::Here(watch) if self.watches.remove(&watch).is_some() => {
                    effects.push(Effect::Down { watch, exit });
                }
                Watcher::Here(_) => {}
                Watcher::There(node, watch) => effects.push(Effect::DownThere { node, watch, exit }),
            }
        }
        effects
    }

    /// A process of this node is linked to another. One of another node is to be asked as well; if that fails, take it
    /// back by [`Ties::unlink`].
    ///
    /// # Errors
    /// [`NoProcess`]: one of the two is none; nothing changed.
    pub fn link(&mut self, number: u64, other: &Pid) -> Result<(), NoProcess> {
        let pid = self.pid(number);
        if pid == *other {
            return Ok(());
        }
        if !self.live.contains_key(&number) || (other.node == self.node && !self.is_own(other)) {
            return Err(NoProcess);
        }
        if self.is_own(other) {
            self.live.get_mut(&other.number).ok_or(NoProcess)?.link(pid);
        }
        self.live.get_mut(&number).ok_or(NoProcess)?.link(other.clone());
        Ok(())
    }

    /// The link is no more. Says whether there was one.
    pub fn unlink(&mut self, number: u64, other: &Pid) -> bool {
        let pid = self.pid(number);
        if self.is_own(other)
            && let Some(tied) = self.live.get_mut(&other.number)
        {
            tied.unlink(&pid);
        }
        self.live.get_mut(&number).is_some_and(|tied| tied.unlink(other))
    }

    /// A process of a peer, linked to one of ours, ended.
    pub fn exit_there(&mut self, from: Pid, number: u64, exit: Exit) -> Option<Effect> {
        let linked = self.live.get_mut(&number).is_some_and(|tied| tied.unlink(&from));
        linked.then_some(Effect::Exit { to: number, from, exit })
    }

    /// This node watches a process: gives the watch. One of another node is to be asked as well. One of this node that
    /// is none is down at once.
    pub fn watch(&mut self, target: &Pid) -> (u64, Option<Effect>) {
        self.last_watch += 1;
        let watch = self.last_watch;
        if target.node == self.node {
            let live = if target.creation == self.creation { self.live.get_mut(&target.number) } else { None };
            let Some(tied) = live else {
                return (watch, Some(Effect::Down { watch, exit: Exit::NoProcess }));
            };
            tied.watchers.insert(Watcher::Here(watch));
        }
        self.watches.insert(watch, target.clone());
        (watch, None)
    }

    /// Returns a new watch of a process that the node of this name is asked to begin watched. [`Ties::retarget`] says which
    /// it is; the node may be this one.
    pub fn watch_unborn(&mut self, node: NodeName) -> u64 {
        self.last_watch += 1;
        self.watches.insert(self.last_watch, Pid { node, number: 0, creation: 0 });
        self.last_watch
    }

    /// Sets the target of a watch, once it is known: a process of the same peer, which began watched.
    pub fn retarget(&mut self, watch: u64, target: Pid) {
        if let Some(known) = self.watches.get_mut(&watch) {
            *known = target;
        }
    }

    /// Ends a watch of this node, and returns what it watched.
    pub fn unwatch(&mut self, watch: u64) -> Option<Pid> {
        let target = self.watches.remove(&watch)?;
        if self.is_own(&target)
            && let Some(tied) = self.live.get_mut(&target.number)
        {
            tied.watchers.remove(&Watcher::Here(watch));
            // One that this node was asked by itself to begin watched.
            tied.unwatched_there(&target.node, watch);
        }
        Some(target)
    }

    /// A peer watches a process of this node.
    ///
    /// # Errors
    /// [`NoProcess`].
    pub fn watched_by(&mut self, node: NodeName, watch: u64, number: u64) -> Result<(), NoProcess> {
        self.live.get_mut(&number).ok_or(NoProcess)?.watched_there(node, watch);
        Ok(())
    }

    /// Ends the watch of a peer on a process of this node.
    pub fn unwatched_by(&mut self, node: &NodeName, watch: u64, number: u64) {
        if let Some(tied) = self.live.get_mut(&number) {
            tied.unwatched_there(node, watch);
        }
    }

    /// A peer says that what this node watches there is gone.
    pub fn down_there(&mut self, node: &NodeName, watch: u64, exit: Exit) -> Option<Effect> {
        self.watches.get(&watch).filter(|target| target.node == *node)?;
        self.watches.remove(&watch);
        Some(Effect::Down { watch, exit })
    }

    /// The connection to a peer is down: whatever is tied to it is told, and it watches nothing any more.
    pub fn node_down(&mut self, node: &NodeName, reason: &str) -> Vec<Effect> {
        let (mut effects, exit) = (Vec::new(), Exit::NodeDown(reason.into()));
        for (number, tied) in &mut self.live {
            tied.watchers.retain(|watcher| !matches!(watcher, Watcher::There(other, _) if other == node));
            let (gone, stay) = std::mem::take(&mut tied.links).into_iter().partition(|other| other.node == *node);
            tied.links = stay;
            tied.shares.remove(node);
            let gone: BTreeSet<Pid> = gone;
            effects.extend(gone.into_iter().map(|from| Effect::Exit { to: *number, from, exit: exit.clone() }));
        }
        self.watches.retain(|watch, target| {
            if target.node != *node {
                return true;
            }
            effects.push(Effect::Down { watch: *watch, exit: exit.clone() });
            false
        });
        effects
    }
}

#[cfg(test)]
mod tests;
