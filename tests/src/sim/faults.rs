//! Faults of a history, and how often each occurred.

use std::collections::BTreeMap;

/// Kind of a fault.
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
    /// A link breaks; the dialling end learns of it only after the dead-after time.
    HalfDeadDialler,
    /// A link breaks; the listening end learns of it only after the dead-after time.
    HalfDeadListener,
    /// A node is down for a long time.
    LongAbsence,
    /// Two nodes receive nothing from each other for longer than the dead-after time.
    PartitionLong,
    /// Two nodes receive nothing from each other for a while; nothing is lost.
    PartitionShort,
    /// One path to a host closes for a while; connections over it break at once.
    PathCloses,
    /// One path to a host goes down, comes back and goes down, faster than a hold time.
    PathFlaps,
    /// One path to a host swallows everything for a while; the ends of its connections learn of it late.
    PathSilent,
    /// A dial reaches a closed port.
    PortClosed,
    /// A link is to be replaced by one that satisfies other demands.
    Replace,
    /// A resolver has no answer.
    ResolverFails,
    /// A node restarts and its peers learn of it at once.
    RestartKnown,
    /// A node restarts and its peers learn of it only after the dead-after time.
    RestartSilent,
    /// A dial reaches an address from which nothing comes back.
    SilentAddress,
    /// A host has two addresses of different speed.
    TwoPaths,
    /// Two live nodes have one name.
    TwinName,
    /// A dial offers a cookie that the listener does not hold.
    WrongCookie,
    /// A dial reaches a different node.
    WrongName,
}

impl Fault {
    /// All kinds.
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

/// Counts of faults, of rows of the table in §"One link per pair", and of outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Decisions by row of the reference table.
    pub rows: BTreeMap<&'static str, u64>,
    /// Any other events worth counting.
    pub other: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Counts a fault.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Returns the number of faults that happened during the history. Two paths to a host, or a twin, are properties of
    /// the world and do not count.
    pub fn befell(&self) -> u64 {
        let is_state = |fault: &Fault| matches!(fault, Fault::TwoPaths | Fault::TwinName);
        self.faults.iter().filter(|(fault, _)| !is_state(fault)).map(|(_, n)| n).sum()
    }

    /// Counts an event.
    pub fn note(&mut self, what: &'static str) {
        *self.other.entry(what).or_default() += 1;
    }

    /// Adds the counts of another history.
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
