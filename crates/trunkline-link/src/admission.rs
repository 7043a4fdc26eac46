//! The admission of callers to a node: one account of places and proofs for all its listeners. The shell around [`Gate`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_stack::LogLimit;
use trunkline_wire::gate::{Caller, Gate, GateLimits, GateStats, Prefix, Proof, QUEUE_TIMEOUT, SlotId, Ticket, Turn};

use crate::link::{lock, now};

/// Kind of fault of a caller that is logged. Each kind has lines of its own: one does not hide another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// No acceptable certificate.
    Certificate,
    /// A certificate without the name claimed.
    CertificateName,
    /// A cookie that was not proven.
    Cookie,
}

/// Period in which at most one line is logged per network about one kind of fault.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Places and proofs of one node, shared by its listeners, its registrar and the links inside streams.
pub(crate) struct Admission {
    state: Mutex<State>,
    /// The gate changed in a way that may give a waiting caller its turn.
    changed: Notify,
    warnings: LogLimit<(Prefix, Fault)>,
}

struct State {
    gate: Gate,
    /// Wakes the connection that loses its place.
    evictions: HashMap<SlotId, Arc<Notify>>,
}

impl Admission {
    pub(crate) fn new(limits: GateLimits) -> Arc<Self> {
        let state = State { gate: Gate::new(limits), evictions: HashMap::new() };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), warnings: LogLimit::new(1, LOG_PERIOD) })
    }

    pub(crate) fn stats(&self) -> GateStats {
        lock(&self.state).gate.stats()
    }

    /// Takes a place for a connection from this address; another connection may lose its place for it.
    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Place {
        let eviction = Arc::new(Notify::new());
        let mut state = lock(&self.state);
        let (slot, evicted) = state.gate.admit(now().into_std(), ip);
        if let Some(evicted) = evicted.and_then(|slot| state.evictions.remove(&slot)) {
            evicted.notify_one();
        }
        state.evictions.insert(slot, eviction.clone());
        drop(state);
        Place { admission: self.clone(), slot, eviction }
    }

    /// Waits for the turn of a caller to prove itself.
    ///
    /// # Errors
    /// The time after which the caller may come back, if it has no turn within [`QUEUE_TIMEOUT`].
    pub(crate) async fn turn(self: &Arc<Self>, caller: Caller, is_weak: bool) -> Result<OpenProof, Duration> {
        let deadline = now() + QUEUE_TIMEOUT;
        let asked = lock(&self.state).gate.ask(now().into_std(), caller, is_weak);
        let ticket = match asked {
            Turn::Now(proof) => return Ok(self.open(proof)),
            Turn::Refused(wait) => return Err(wait),
            Turn::Wait(ticket, _) => ticket,
        };
        let waiting = Waiting { admission: self, ticket };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if now() >= deadline {
                waiting.give_up();
                return Err(QUEUE_TIMEOUT);
            }
            let turn = lock(&self.state).gate.turn(now().into_std(), ticket);
            let at = match turn {
                Turn::Now(proof) => return Ok(self.open(proof)),
                Turn::Refused(wait) => return Err(wait),
                Turn::Wait(_, at) => at,
            };
            let until = at.map_or(deadline, |at| deadline.min(at.into()));
            let _ = tokio::time::timeout_at(until, changed).await;
        }
    }

    /// Begins a proof. The next one in the queue may have been behind it.
    fn open(self: &Arc<Self>, proof: Proof) -> OpenProof {
        self.changed.notify_waiters();
        OpenProof { admission: self.clone(), proof: Some(proof) }
    }

    /// Returns how many earlier lines of this kind about this network were left out, if one may be logged now.
    pub(crate) fn may_log(&self, ip: IpAddr, fault: Fault) -> Option<u64> {
        self.warnings.allow(now().into_std(), &(Prefix::of(ip), fault))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

/// A caller in the queue; it leaves when this is dropped.
struct Waiting<'a> {
    admission: &'a Arc<Admission>,
    ticket: Ticket,
}

impl Waiting<'_> {
    fn give_up(&self) {
        lock(&self.admission.state).gate.leave(self.ticket, true);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.admission.state).gate.leave(self.ticket, false);
        self.admission.changed.notify_waiters();
    }
}

/// A place before authentication, given back when it is dropped.
pub(crate) struct Place {
    admission: Arc<Admission>,
    slot: SlotId,
    eviction: Arc<Notify>,
}

impl Place {
    /// Notes that the handshake moved on.
    pub(crate) fn progressed(&self) {
        lock(&self.admission.state).gate.progressed(now().into_std(), self.slot);
    }

    /// Resolves when another connection has taken the place.
    pub(crate) async fn evicted(&self) {
        self.eviction.notified().await;
    }

    /// Gives the place back; `false` if another connection had taken it.
    pub(crate) fn give_back(self) -> bool {
        self.release()
    }

    fn release(&self) -> bool {
        let mut state = lock(&self.admission.state);
        state.evictions.remove(&self.slot);
        state.gate.release(self.slot)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

/// A proof under way. Dropped, it is counted as failed and logged.
pub(crate) struct OpenProof {
    admission: Arc<Admission>,
    proof: Option<Proof>,
}

impl OpenProof {
    /// The caller proved itself.
    pub(crate) fn proved(mut self) {
        self.hand_back(|gate, proof| gate.proved(now().into_std(), proof));
    }

    /// The caller was not asked for its proof.
    pub(crate) fn void(mut self) {
        self.hand_back(Gate::void);
    }

    fn hand_back(&mut self, how: impl FnOnce(&mut Gate, Proof)) {
        if let Some(proof) = self.proof.take() {
            how(&mut lock(&self.admission.state).gate, proof);
            self.admission.changed.notify_waiters();
        }
    }
}

impl Drop for OpenProof {
    fn drop(&mut self) {
        let Some(proof) = self.proof.take() else { return };
        let caller = lock(&self.admission.state).gate.failed(proof);
        // An honest caller with another cookie closes after HELLO2 without a word; a guess that fails ends here too.
        if let Some(suppressed) = self.admission.may_log(caller.ip, Fault::Cookie) {
            let via = caller.via.as_ref().map(tracing::field::display);
            tracing::warn!(
                from = %caller.ip, via, claimed = %caller.name, suppressed,
                "a caller did not prove the cookie: it holds another one, or its connection broke"
            );
        }
    }
}
