//! Deliberate mistakes in the shipped rules, for tests that show that a wrong rule is seen.
//!
//! `mutated!(Name)` stands where the mistake is made. It is the constant `false` unless the crate is built with both the
//! feature `mutants` and debug assertions, so that no release build contains a mistake, whatever features are on. A mistake
//! is made only on a thread on which [`with`] runs.

#[cfg(all(feature = "mutants", debug_assertions))]
mod enabled {
    use std::cell::Cell;

    /// A deliberate mistake.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Mutant {
        /// Refuses every crossing FINISH.
        BothLose,
        /// Accepts the lesser name's FINISH too while the own one is out.
        BothWin,
        /// Lets a flight begin while the one before it still ends.
        DialsOverlap,
        /// A new link waits for links to other incarnations of the peer too.
        HoldForEveryIncarnation,
        /// A new link waits for the one it replaces, and not for others that still deliver.
        HoldForReplacedOnly,
        /// Sends as many FINISHes as there are attempts.
        ManyFinishes,
        /// Lets another incarnation in without probing the link of the former one.
        NoChallenge,
        /// Gives every link the same epoch.
        OneEpoch,
        /// Takes a link that is to be replaced for dead, and closes it with what is under way on it.
        ReplaceKills,
        /// Goes up on any ACCEPT, whether or not the entry still waits for it.
        UpOnAnyAccept,
        /// Takes an accepted link for live before its first frame.
        UpOnOffer,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Runs `body` with this mistake made on the present thread.
    pub fn with<T>(mutant: Mutant, body: impl FnOnce() -> T) -> T {
        struct Restore(Option<Mutant>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(Some(mutant)));
        body()
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(all(feature = "mutants", debug_assertions))]
pub(crate) use enabled::is;
#[cfg(all(feature = "mutants", debug_assertions))]
pub use enabled::{Mutant, with};

#[cfg(all(feature = "mutants", debug_assertions))]
macro_rules! mutated {
    ($name:ident) => {
        $crate::mutants::is($crate::mutants::Mutant::$name)
    };
}
#[cfg(not(all(feature = "mutants", debug_assertions)))]
macro_rules! mutated {
    ($name:ident) => {
        false
    };
}
pub(crate) use mutated;
