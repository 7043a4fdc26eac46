//! A queue that serves its sources in turns. No I/O, no clock.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// A queue of items from several sources. The items of one source keep their order; the sources take turns, so that one
/// with many items delays each of the others by one turn only.
#[derive(Debug)]
pub(crate) struct Turns<K, T> {
    /// The source of `items`, as long as no other one waits: the usual case, which costs no look into a map.
    only: Option<K>,
    items: VecDeque<T>,
    /// The items of each source, when there are several.
    waiting: HashMap<K, VecDeque<T>>,
    /// The sources that have items in `waiting`, in the order of their turns.
    order: VecDeque<K>,
    /// The items of sources that get no turn.
    held: HashMap<K, VecDeque<T>>,
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self {
            only: None,
            items: VecDeque::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            held: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, T> Turns<K, T> {
    /// Gives a source no more turns, until [`Turns::resume`].
    pub(crate) fn hold(&mut self, source: &K) {
        if self.held.contains_key(source) {
            return;
        }
        let items = if self.only.as_ref() == Some(source) {
            self.only = None;
            std::mem::take(&mut self.items)
        } else {
            self.order.retain(|other| other != source);
            self.waiting.remove(source).unwrap_or_default()
        };
        self.held.insert(source.clone(), items);
    }

    /// Gives a source turns again.
    pub(crate) fn resume(&mut self, source: &K) {
        let items = self.held.remove(source).filter(|items| !items.is_empty());
        if let Some(items) = items {
            *self.lane(source) = items;
        }
    }

    /// Returns true if no item of a source that gets turns waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.only.is_none() && self.order.is_empty()
    }

    /// Adds an item behind the others of its source.
    pub(crate) fn push(&mut self, source: &K, item: T) {
        self.lane(source).push_back(item);
    }

    /// Puts an item back that is not used up: before the others of its source, whose turn is over.
    pub(crate) fn put_back(&mut self, source: &K, item: T) {
        self.lane(source).push_front(item);
    }

    /// Returns the item of a source that was added last, if one waits.
    pub(crate) fn last_mut(&mut self, source: &K) -> Option<&mut T> {
        if self.only.as_ref() == Some(source) {
            return self.items.back_mut();
        }
        if let Some(held) = self.held.get_mut(source) {
            return held.back_mut();
        }
        self.waiting.get_mut(source)?.back_mut()
    }

    /// Takes the next item of the source whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.only.is_some() {
            let item = self.items.pop_front();
            if self.items.is_empty() {
                self.only = None;
            }
            return item;
        }
        let source = self.order.pop_front()?;
        let Entry::Occupied(mut lane) = self.waiting.entry(source) else { return None };
        let item = lane.get_mut().pop_front();
        if lane.get().is_empty() {
            lane.remove();
        } else {
            self.order.push_back(lane.key().clone());
        }
        item
    }

    /// The items of a source that has some from now on.
    fn lane(&mut self, source: &K) -> &mut VecDeque<T> {
        if !self.held.is_empty() && self.held.contains_key(source) {
            return self.held.get_mut(source).expect("it was just seen");
        }
        if self.is_empty() {
            self.only = Some(source.clone());
        }
        if self.only.as_ref() == Some(source) {
            return &mut self.items;
        }
        if let Some(only) = self.only.take() {
            self.order.push_back(only.clone());
            self.waiting.insert(only, std::mem::take(&mut self.items));
        }
        // The entry of a source that waits already is not to cost a clone of its key.
        if !self.waiting.contains_key(source) {
            self.order.push_back(source.clone());
            self.waiting.insert(source.clone(), VecDeque::new());
        }
        self.waiting.get_mut(source).expect("it was just made sure of")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_source_with_many_items_delays_the_others_by_one_turn_each() {
        let mut queue = Turns::default();
        for n in 0..1000 {
            queue.push(&'a', ('a', n));
        }
        queue.push(&'b', ('b', 0));
        queue.push(&'c', ('c', 0));
        queue.push(&'b', ('b', 1));
        let order: Vec<_> = (0..6).map_while(|_| queue.pop()).collect();
        assert_eq!(order, [('a', 0), ('b', 0), ('c', 0), ('a', 1), ('b', 1), ('a', 2)]);
        // What is put back comes first of its source, after a turn of each other one.
        queue.push(&'c', ('c', 1));
        let unfinished = queue.pop().unwrap();
        queue.put_back(&'a', unfinished);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(('c', 1)), Some(('a', 3)), Some(('a', 4))));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_every_source_keeps_its_order(
            pushes in prop::collection::vec((0u8..5, any::<bool>(), prop::option::weighted(0.2, 0u8..5)), 0..200)
        ) {
            let (mut queue, mut sent, mut taken) = (Turns::default(), [0; 5], [0; 5]);
            let mut held = std::collections::BTreeSet::new();
            let take = |queue: &mut Turns<u8, (u8, u32)>, taken: &mut [u32; 5]| match queue.pop() {
                Some((source, n)) => {
                    let expected = &mut taken[usize::from(source)];
                    let is_next = n == *expected;
                    *expected += 1;
                    is_next
                }
                None => true,
            };
            for (source, also_takes, turned) in pushes {
                // A source that has turns is held, and one that is held has turns again.
                if let Some(other) = turned {
                    if held.remove(&other) {
                        queue.resume(&other);
                    } else {
                        queue.hold(&other);
                        held.insert(other);
                    }
                }
                let count = &mut sent[usize::from(source)];
                queue.push(&source, (source, *count));
                *count += 1;
                let before = taken;
                prop_assert!(!also_takes || take(&mut queue, &mut taken));
                prop_assert!(held.iter().all(|held| taken[usize::from(*held)] == before[usize::from(*held)]));
            }
            held.iter().for_each(|held| queue.resume(held));
            while !queue.is_empty() {
                prop_assert!(take(&mut queue, &mut taken));
            }
            prop_assert_eq!(taken, sent);
            prop_assert!(queue.waiting.is_empty() && queue.held.is_empty());
        }
    }
}
