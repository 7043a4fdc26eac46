//! Groups of patterns that require no text, each group searched at once.

use std::sync::atomic::{AtomicU64, Ordering};

use regex_automata::MatchKind;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::util::start;
use regex_syntax::hir::Hir;

use crate::anchor::Anchored;
use crate::engine;
use crate::pattern::TablePattern;

/// Patterns that are searched together.
pub(crate) enum Group {
    Anchored(Anchored),
    Automaton(Box<Automaton>),
}

impl Group {
    pub(crate) fn of(kind: Kind, members: &[(u32, &TablePattern)], cache_bytes: usize) -> Option<Self> {
        match kind {
            Kind::Alone => None,
            Kind::Anchored(anchor) => {
                let windows: Option<Vec<_>> =
                    members.iter().map(|&(at, pattern)| Some((at, pattern.compiled().window()?))).collect();
                Some(Self::Anchored(Anchored::of(anchor, &windows?)))
            }
            Kind::Automaton => Automaton::of(members, cache_bytes).map(Box::new).map(Self::Automaton),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Anchored(group) => Kind::Anchored(group.anchor()),
            Self::Automaton(_) => Kind::Automaton,
        }
    }

    pub(crate) fn members(&self) -> &[u32] {
        match self {
            Self::Anchored(group) => group.members(),
            Self::Automaton(group) => &group.members,
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Anchored(group) => group.heap_bytes(),
            Self::Automaton(group) => group.heap_bytes(),
        }
    }
}

/// Kind of group to which a pattern without text belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Alone,
    Anchored(u8),
    Automaton,
}

impl Kind {
    pub(crate) fn of(pattern: &TablePattern) -> Self {
        let compiled = pattern.compiled();
        match compiled.window() {
            Some(window) => Self::Anchored(window.anchor()),
            None if compiled.can_join() => Self::Automaton,
            None => Self::Alone,
        }
    }

    /// Returns the number of patterns that make a first group. Fewer are tested one by one.
    pub(crate) fn fewest(self) -> usize {
        match self {
            Self::Alone => usize::MAX,
            Self::Anchored(_) => 1,
            Self::Automaton => 4,
        }
    }

    pub(crate) fn most(self) -> usize {
        match self {
            Self::Alone => 0,
            Self::Anchored(_) => Anchored::MEMBERS,
            Self::Automaton => Automaton::MEMBERS,
        }
    }
}

/// One lazy automaton for several patterns. The states that it builds from names are in a [`Memory`], one for each
/// reader.
pub(crate) struct Automaton {
    id: u64,
    dfa: DFA,
    members: Box<[u32]>,
}

/// States of one group's automaton that one reader's searches have built.
#[derive(Debug)]
pub(crate) struct Memory {
    group: u64,
    cache: Cache,
    /// Bit set of the members that were found.
    found: Box<[u64]>,
}

impl Automaton {
    /// Most members of one automaton. More would make too many states; fewer, too many automata.
    const MEMBERS: usize = 64;

    /// Compiles the members, or returns `None` if their automaton would be too large.
    fn of(members: &[(u32, &TablePattern)], cache_bytes: usize) -> Option<Self> {
        static ID: AtomicU64 = AtomicU64::new(0);
        let hirs: Option<Vec<Hir>> = members.iter().map(|(_, pattern)| pattern.compiled().hir()).collect();
        let hirs = hirs?;
        let nfa = engine::nfa(&hirs.iter().collect::<Vec<_>>(), Self::NFA_BYTES)?;
        let config = DFA::config()
            .match_kind(MatchKind::All)
            .cache_capacity(cache_bytes)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(Self::CLEARS))
            .minimum_bytes_per_state(Some(Self::BYTES_PER_STATE));
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        let members = members.iter().map(|&(slot, _)| slot).collect();
        Some(Self { id: ID.fetch_add(1, Ordering::Relaxed), dfa, members })
    }

    const NFA_BYTES: usize = 4 << 20;
    /// Number of times the cache may be cleared, with few bytes read for each state, before the search gives up.
    const CLEARS: usize = 3;
    const BYTES_PER_STATE: usize = 10;

    fn heap_bytes(&self) -> usize {
        self.dfa.memory_usage() + self.dfa.get_nfa().memory_usage() + 4 * self.members.len()
    }

    pub(crate) fn memory(&self) -> Memory {
        let found = vec![0; self.members.len().div_ceil(64)].into();
        Memory { group: self.id, cache: self.dfa.create_cache(), found }
    }

    pub(crate) fn owns(&self, memory: &Memory) -> bool {
        memory.group == self.id
    }

    /// Calls `each` with the members found in `name`. Returns false, and calls it for none, if the automaton gave up.
    pub(crate) fn search(&self, name: &[u8], memory: &mut Memory, mut each: impl FnMut(u32)) -> bool {
        let Memory { cache, found, .. } = memory;
        cache.search_start(0);
        let all = self.scan(name, cache, found).is_some();
        cache.search_finish(name.len());
        for (index, word) in found.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 && all {
                each(self.members[index * 64 + bits.trailing_zeros() as usize]);
                bits &= bits - 1;
            }
        }
        all
    }

    fn scan(&self, name: &[u8], cache: &mut Cache, found: &mut [u64]) -> Option<()> {
        let dfa = &self.dfa;
        let mut state = dfa.start_state(cache, &start::Config::new()).ok()?;
        for &byte in name {
            state = dfa.next_state(cache, state, byte).ok()?;
            if state.is_tagged() {
                if state.is_match() {
                    self.note(state, cache, found);
                } else if state.is_dead() {
                    return Some(());
                } else if state.is_quit() {
                    return None;
                }
            }
        }
        state = dfa.next_eoi_state(cache, state).ok()?;
        if state.is_match() {
            self.note(state, cache, found);
        }
        Some(())
    }

    #[inline]
    fn note(&self, state: LazyStateID, cache: &Cache, found: &mut [u64]) {
        for index in 0..self.dfa.match_len(cache, state) {
            let member = self.dfa.match_pattern(cache, state, index).as_usize();
            found[member / 64] |= 1 << (member % 64);
        }
    }
}
