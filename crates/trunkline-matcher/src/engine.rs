//! Automata of single patterns, for patterns that are too large for steps.

use regex_automata::nfa::thompson::backtrack::{self, BoundedBacktracker};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::{Anchored, Input};
use regex_syntax::hir::Hir;

/// A bounded automaton: a search takes at most the length of the name times the size of the automaton.
#[derive(Debug)]
pub(crate) struct Engine(BoundedBacktracker);

impl Engine {
    /// Compiles a pattern, or returns `None` if the automaton would take more than `bytes`.
    pub(crate) fn of(hir: &Hir, bytes: usize) -> Option<Self> {
        let nfa = nfa(&[hir], bytes)?;
        BoundedBacktracker::new_from_nfa(nfa).ok().map(Self)
    }

    pub(crate) fn is_match(&self, name: &str, cache: &mut Cache) -> bool {
        let engine = &self.0;
        let anchored = engine.get_nfa().is_always_start_anchored();
        let input = Input::new(name).earliest(true).anchored(if anchored { Anchored::Yes } else { Anchored::No });
        let cache = cache.0.get_or_insert_with(|| engine.create_cache());
        cache.reset(engine);
        match engine.try_search_slots(cache, &input, &mut []) {
            Ok(found) => found.is_some(),
            // The name is too long for the visited set of the backtracker.
            Err(_) => PikeVM::new_from_nfa(engine.get_nfa().clone())
                .is_ok_and(|slow| slow.is_match(&mut slow.create_cache(), input)),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.get_nfa().memory_usage()
    }
}

/// Scratch memory of searches; one serves every engine.
#[derive(Debug, Default)]
pub(crate) struct Cache(Option<backtrack::Cache>);

/// Compiles one automaton for all these patterns, numbered in their order.
pub(crate) fn nfa(hirs: &[&Hir], bytes: usize) -> Option<NFA> {
    let config = thompson::Config::new().which_captures(WhichCaptures::None).shrink(false).nfa_size_limit(Some(bytes));
    thompson::Compiler::new().configure(config).build_many_from_hir(hirs).ok()
}
