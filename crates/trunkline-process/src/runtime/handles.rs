//! Handles of processes: as the code of a process holds itself, and as another one watches it.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use trunkline_route::NodeName;
use trunkline_stack::{Mailbox, Message};

use super::{ProcessHost, Processes, TieError};
use crate::{Exit, NoProcess, Pid};

/// Input of a process.
#[derive(Debug)]
pub enum Signal {
    /// A message or a call.
    Message(Message),
    /// A process it was linked to ended.
    Exit {
        /// The process that ended.
        from: Pid,
        /// Reason.
        exit: Exit,
    },
}

/// A process, as its own code holds it.
pub struct Process {
    pub(super) pid: Pid,
    pub(super) mailbox: Mailbox,
    pub(super) exits: mpsc::Receiver<(Pid, Exit)>,
    /// A process does not keep its node alive.
    pub(super) processes: Weak<Processes>,
    pub(super) peer: Option<NodeName>,
}

impl Process {
    /// Returns its name in the network.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Returns the peer that asked for it by [`Processes::spawn_on`] or [`Processes::start_application_on`]; `None` for a
    /// process that its own node began.
    pub fn peer(&self) -> Option<&NodeName> {
        self.peer.as_ref()
    }

    /// Returns the node it runs on; `None` when that is being dropped. A process that keeps it keeps the node from being
    /// dropped.
    pub fn host(&self) -> Option<Arc<dyn ProcessHost>> {
        self.processes.upgrade()?.host()
    }

    /// Waits for the next signal: messages first. `None` once the node shuts down. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Signal> {
        tokio::select! {
            biased;
            message = self.mailbox.recv() => message.map(Signal::Message),
            Some((from, exit)) = self.exits.recv() => Some(Signal::Exit { from, exit }),
        }
    }

    /// Ties it to another process, of this node or another: when one of the two ends the other is told by
    /// [`Signal::Exit`], once. Connects if need be.
    ///
    /// # Errors
    /// [`TieError`]; they are not linked.
    pub async fn link(&self, other: &Pid) -> Result<(), TieError> {
        self.processes.upgrade().ok_or(NoProcess)?.link(self.pid.number, other).await
    }

    /// Unties it from another process; does nothing when they are not linked.
    pub fn unlink(&self, other: &Pid) {
        if let Some(processes) = self.processes.upgrade() {
            processes.unlink(self.pid.number, other);
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.pid)
    }
}

/// Waits for a process to be gone. Dropped, it does not any more.
pub struct Monitor {
    pub(super) pid: Pid,
    pub(super) watch: u64,
    pub(super) exit: oneshot::Receiver<Exit>,
    pub(super) processes: Weak<Processes>,
}

impl Monitor {
    /// Returns the process that is watched.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Waits until it is gone: it ended, there was none, or the connection to its node went down.
    pub async fn down(mut self) -> Exit {
        (&mut self.exit).await.unwrap_or(Exit::Killed)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(processes) = self.processes.upgrade() {
            processes.unwatch(self.watch);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Monitor({})", self.pid)
    }
}
