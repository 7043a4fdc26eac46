//! What goes wrong in a history, and how often it did.

use std::collections::BTreeMap;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node that sent its ACCEPT loses the connection before it arrives.
    AcceptLost,
    /// A link breaks and both ends learn of it at once.
    CutKnown,
    /// Two nodes dial each other at the same time.
    DialsCross,
    /// A caller goes away before it has its answer.
    CallerDropped,
    /// A program ends a connection on purpose.
    Disconnected,
    /// A connection breaks before a FINISH arrives.
    FinishLost,
    /// The first frame of a new link is lost with its connection.
    FirstFrameLost,
    /// A link breaks; the end that dialled learns of it only after the dead-after time.
    HalfDeadDialler,
    /// A link breaks; the end that was dialled learns of it only after the dead-after time.
    HalfDeadListener,
    /// A node stays away for long.
    LongAbsence,
    /// Two nodes hear nothing of each other for longer than the dead-after time.
    PartitionLong,
    /// Two nodes hear nothing of each other for a while; nothing is lost.
    PartitionShort,
    /// One path to a host closes for a while; connections by it break at once.
    PathCloses,
    /// One path to a host goes, comes back and goes, faster than a hold time.
    PathFlaps,
    /// One path to a host swallows everything for a while; who talks by it learns late.
    PathSilent,
    /// A dial meets a closed port.
    PortClosed,
    /// A link is to be replaced by one that satisfies other demands.
    Replace,
    /// A resolver has no answer.
    ResolverFails,
    /// A node restarts and its peers learn of it at once.
    RestartKnown,
    /// A node restarts and its peers learn of it only after the dead-after time.
    RestartSilent,
    /// A dial meets an address from which nothing comes back.
    SilentAddress,
    /// A host has two addresses of different speed.
    TwoPaths,
    /// Two live nodes have one name.
    TwinName,
    /// A dial offers a cookie the listener does not hold.
    WrongCookie,
    /// A dial leads to another node.
    WrongName,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 25] = [
        Self::AcceptLost,
        Self::CutKnown,
        Self::DialsCross,
        Self::CallerDropped,
        Self::Disconnected,
        Self::FinishLost,
        Self::FirstFrameLost,
        Self::HalfDeadDialler,
        Self::HalfDeadListener,
        Self::LongAbsence,
        Self::PartitionLong,
        Self::PartitionShort,
        Self::PathCloses,
        Self::PathFlaps,
        Self::PathSilent,
        Self::PortClosed,
        Self::Replace,
        Self::ResolverFails,
        Self::RestartKnown,
        Self::RestartSilent,
        Self::SilentAddress,
        Self::TwoPaths,
        Self::TwinName,
        Self::WrongCookie,
        Self::WrongName,
    ];
}

/// How often what happened: faults, rows of the table of §"One link per pair", outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Decisions by row of the reference table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Anything else worth a number.
    pub other: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// One more fault.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Faults that befell the world. That a host has two paths, or a twin, is how the world is.
    pub fn befell(&self) -> u64 {
        let is_state = |fault: &Fault| matches!(fault, Fault::TwoPaths | Fault::TwinName);
        self.faults.iter().filter(|(fault, _)| !is_state(fault)).map(|(_, n)| n).sum()
    }

    /// One more of something.
    pub fn note(&mut self, what: &'static str) {
        *self.other.entry(what).or_default() += 1;
    }

    /// Adds another history's numbers.
    pub fn add(&mut self, more: &Self) {
        for (fault, n) in &more.faults {
            *self.faults.entry(*fault).or_default() += n;
        }
        for (to, from) in [(&mut self.rows, &more.rows), (&mut self.other, &more.other)] {
            for (what, n) in from {
                *to.entry(what).or_default() += n;
            }
        }
    }
}
