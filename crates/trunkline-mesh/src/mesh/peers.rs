//! The nodes that a node knows, and the order in which they wait.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Instant;

use trunkline_route::NodeName;

use super::peer::{Kind, Peer};

/// Nodes by name. Reads go to the map; each change of a node goes through a method that notes it, so that [`Peers::waiting`]
/// looks at the nodes that changed, not at all of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    all: BTreeMap<NodeName, Peer>,
    waiting: Waiting,
    /// Facts of each node as `waiting` has them.
    facts: BTreeMap<NodeName, Facts>,
    /// Nodes that changed since.
    changed: BTreeSet<NodeName>,
}

/// Sums over all nodes, and those that wait, in the order of their times.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    dials: [BTreeSet<(Instant, NodeName)>; 3],
    greetings: BTreeSet<(Instant, NodeName)>,
    under_way: [usize; 3],
    kept: usize,
    unproven: [usize; 2],
    /// Neighbours that are members, and no leaves.
    neighbours: BTreeSet<NodeName>,
    /// Fingerprints of the records of all nodes but leaves.
    fingerprints: BTreeSet<(u32, NodeName)>,
    /// Fingerprints of the records that neighbours are told.
    told: BTreeSet<(u32, NodeName)>,
}

/// Part of one node in [`Waiting`].
#[derive(Debug, Clone, Copy)]
struct Facts {
    kind: Kind,
    is_dialled: bool,
    next_dial: Option<Instant>,
    next_greeting: Option<Instant>,
    is_kept: bool,
    /// The node was only heard of, and whether as a leaf.
    unproven: Option<bool>,
    /// The node is connected as a member, and no leaf.
    is_neighbour: bool,
    /// Fingerprint of its record, unless it is a leaf.
    fingerprint: Option<u32>,
    /// Fingerprint of its record, if neighbours are told of it.
    told: Option<u32>,
}

impl Facts {
    fn new(peer: &Peer) -> Self {
        let is_leaf = peer.is_leaf();
        let is_told = !peer.is_hidden && (!is_leaf || peer.is_direct());
        Self {
            kind: peer.kind(),
            is_dialled: peer.is_dialled,
            next_dial: peer.next_dial(),
            next_greeting: peer.next_greeting(),
            is_kept: peer.is_kept(),
            unproven: (peer.stated.is_none() && peer.told.is_some()).then_some(is_leaf),
            is_neighbour: peer.is_member && !is_leaf,
            fingerprint: peer.record().filter(|_| !is_leaf).map(|record| record.fingerprint),
            told: peer.stated.as_ref().filter(|_| is_told).map(|record| record.fingerprint),
        }
    }
}

impl Waiting {
    /// Returns the nodes of a kind that are to be dialled, the earliest first.
    pub(super) fn dials(&self, kind: Kind) -> impl Iterator<Item = (Instant, &NodeName)> {
        self.dials[kind as usize].iter().map(|(due, name)| (*due, name))
    }

    /// Returns the node that is to be greeted next.
    pub(super) fn greeting(&self) -> Option<(Instant, &NodeName)> {
        self.greetings.first().map(|(due, name)| (*due, name))
    }

    /// Returns how many dials to nodes of a kind are under way.
    pub(super) fn under_way(&self, kind: Kind) -> usize {
        self.under_way[kind as usize]
    }

    /// Returns how many dials are under way.
    pub(super) fn all_under_way(&self) -> usize {
        self.under_way.iter().sum()
    }

    /// Returns how many nodes are known for something else than a connection that is up now.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Returns how many leaves, or other nodes, were only heard of.
    pub(super) fn unproven(&self, is_leaf: bool) -> usize {
        self.unproven[usize::from(is_leaf)]
    }

    /// Returns the neighbours that are members, and no leaves.
    pub(super) fn neighbours(&self) -> impl ExactSizeIterator<Item = &NodeName> {
        self.neighbours.iter()
    }

    /// Returns the fingerprints of the records of all nodes but leaves, in their order.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = u32> {
        self.fingerprints.iter().map(|(fingerprint, _)| *fingerprint)
    }

    /// Returns the nodes that a neighbour is to be told of which knows the records with these fingerprints.
    pub(super) fn missing(&self, known: &[u32]) -> Vec<NodeName> {
        let mut known = known.to_vec();
        known.sort_unstable();
        let mut known = known.into_iter().peekable();
        let is_missing = |(fingerprint, _): &&(u32, NodeName)| {
            while known.next_if(|known| known < fingerprint).is_some() {}
            known.peek() != Some(fingerprint)
        };
        self.told.iter().filter(is_missing).map(|(_, name)| name.clone()).collect()
    }

    fn add(&mut self, name: &NodeName, facts: Facts) {
        self.neighbours.extend(facts.is_neighbour.then(|| name.clone()));
        self.fingerprints.extend(facts.fingerprint.map(|fingerprint| (fingerprint, name.clone())));
        self.told.extend(facts.told.map(|fingerprint| (fingerprint, name.clone())));
        self.dials[facts.kind as usize].extend(facts.next_dial.map(|due| (due, name.clone())));
        self.greetings.extend(facts.next_greeting.map(|due| (due, name.clone())));
        self.under_way[facts.kind as usize] += usize::from(facts.is_dialled);
        self.kept += usize::from(facts.is_kept);
        if let Some(is_leaf) = facts.unproven {
            self.unproven[usize::from(is_leaf)] += 1;
        }
    }

    fn take(&mut self, name: &NodeName, facts: Facts) {
        if facts.is_neighbour {
            self.neighbours.remove(name);
        }
        facts.fingerprint.map(|fingerprint| self.fingerprints.remove(&(fingerprint, name.clone())));
        facts.told.map(|fingerprint| self.told.remove(&(fingerprint, name.clone())));
        facts.next_dial.map(|due| self.dials[facts.kind as usize].remove(&(due, name.clone())));
        facts.next_greeting.map(|due| self.greetings.remove(&(due, name.clone())));
        self.under_way[facts.kind as usize] -= usize::from(facts.is_dialled);
        self.kept -= usize::from(facts.is_kept);
        if let Some(is_leaf) = facts.unproven {
            self.unproven[usize::from(is_leaf)] -= 1;
        }
    }
}

impl Deref for Peers {
    type Target = BTreeMap<NodeName, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Peers {
    pub(super) fn get_mut(&mut self, name: &NodeName) -> Option<&mut Peer> {
        let peer = self.all.get_mut(name)?;
        self.changed.insert(name.clone());
        Some(peer)
    }

    /// Returns a node, which is added if it is not known.
    pub(super) fn entry(&mut self, name: &NodeName) -> &mut Peer {
        self.changed.insert(name.clone());
        self.all.entry(name.clone()).or_default()
    }

    pub(super) fn remove(&mut self, name: &NodeName) -> Option<Peer> {
        self.changed.insert(name.clone());
        self.all.remove(name)
    }

    /// Keeps the nodes that this holds for.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Peer) -> bool) {
        let changed = &mut self.changed;
        self.all.retain(|name, peer| {
            let stays = is_kept(peer);
            if !stays {
                changed.insert(name.clone());
            }
            stays
        });
    }

    /// Returns the nodes that this holds for.
    pub(super) fn select_mut(
        &mut self,
        is_meant: impl Fn(&Peer) -> bool,
    ) -> impl Iterator<Item = (&NodeName, &mut Peer)> {
        let changed = &mut self.changed;
        self.all.iter_mut().filter(move |(_, peer)| is_meant(peer)).inspect(|(name, _)| {
            changed.insert((*name).clone());
        })
    }

    /// Returns the sums and orders as they are now.
    pub(super) fn waiting(&mut self) -> &Waiting {
        while let Some(name) = self.changed.pop_first() {
            if let Some(old) = self.facts.remove(&name) {
                self.waiting.take(&name, old);
            }
            if let Some(peer) = self.all.get(&name) {
                let facts = Facts::new(peer);
                self.waiting.add(&name, facts);
                self.facts.insert(name, facts);
            }
        }
        &self.waiting
    }

    /// Asserts that the sums and orders are those of a look at all nodes.
    #[cfg(test)]
    pub(super) fn check(&mut self) {
        let mut all = Waiting::default();
        self.all.iter().for_each(|(name, peer)| all.add(name, Facts::new(peer)));
        assert_eq!(*self.waiting(), all);
    }
}
