//! Important delivery between this node and one life of a peer, over whichever link there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use trunkline_route::{Flag, Incarnation, NodeName};
use trunkline_stack::{LinkInfo, SendError, Sent};
use trunkline_wire::important::{Incoming, Outcome, Outgoing};

use crate::link::{Shared, clock_us, lock};

/// Peers that are remembered; a node has no more links.
const MOST: usize = 65_536;

/// A message until its outcome is known.
struct Parcel {
    to: Box<str>,
    from: Box<str>,
    body: Bytes,
    done: oneshot::Sender<Outcome>,
}

/// What is known of one life of a peer.
pub(crate) struct Account {
    incarnation: Incarnation,
    pub(crate) incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing<Parcel>>,
    /// Something is to go again; looked at whenever credit comes.
    unsent: AtomicBool,
    /// A message that had to wait may go now.
    changed: Notify,
    /// The link that is to take what goes again.
    present: Mutex<Weak<Shared>>,
}

impl Account {
    fn new(incarnation: Incarnation) -> Self {
        Self {
            incarnation,
            incoming: Mutex::default(),
            // Above every number that was used for this life of the peer and forgotten: nobody sends 256 in a microsecond.
            outgoing: Mutex::new(Outgoing::starting_at(clock_us() << 8)),
            unsent: AtomicBool::new(false),
            changed: Notify::new(),
            present: Mutex::default(),
        }
    }

    /// The report this link begins with.
    pub(crate) fn reported(&self, shared: &Arc<Shared>, outcomes: &[(u64, Outcome)]) {
        let mut outgoing = lock(&self.outgoing);
        let settled = outgoing.reported(shared.info().epoch, outcomes);
        self.unsent.store(outgoing.has_unsent(), Ordering::Relaxed);
        release(&mut outgoing, shared);
        *lock(&self.present) = Arc::downgrade(shared);
        drop(outgoing);
        for (parcel, outcome) in settled {
            let _ = parcel.done.send(outcome);
        }
        self.send_again(shared);
        self.changed.notify_waiters();
    }

    /// Outcomes arrived.
    pub(crate) fn settled(&self, shared: &Shared, outcomes: &[(u64, Outcome)]) {
        let mut outgoing = lock(&self.outgoing);
        let settled: Vec<_> = outcomes.iter().map(|(seq, outcome)| (outgoing.settled(*seq), *outcome)).collect();
        // An elder link still brings outcomes; the floor goes over the present one.
        if outgoing.is_present(shared.info().epoch) {
            release(&mut outgoing, shared);
        }
        drop(outgoing);
        for (parcel, outcome) in settled {
            parcel.map(|parcel| parcel.done.send(outcome));
        }
        self.changed.notify_waiters();
    }

    /// What was in flight on another link goes again, as far as credit goes.
    pub(crate) fn send_again(&self, shared: &Shared) {
        if !self.unsent.load(Ordering::Relaxed) {
            return;
        }
        let mut outgoing = lock(&self.outgoing);
        if outgoing.is_present(shared.info().epoch) {
            release(&mut outgoing, shared);
        }
        while let Some((seq, parcel)) = outgoing.next_unsent(shared.info().epoch) {
            match shared.try_important(seq, &parcel.to, &parcel.from, &parcel.body) {
                Ok(()) => outgoing.resent(seq),
                Err(SendError::Full | SendError::Draining | SendError::Down(_)) => return,
                // This link cannot take it at all: whether an older one did is not known.
                Err(_) => drop(outgoing.settled(seq)),
            }
        }
        self.unsent.store(outgoing.has_unsent(), Ordering::Relaxed);
        drop(outgoing);
        self.changed.notify_waiters();
    }

    /// Queues a message if it may go now; [`SendError::Full`] also when others go first.
    fn try_send(self: &Arc<Self>, shared: &Shared, to: &str, from: &str, body: &Bytes) -> Result<Sent, SendError> {
        self.send_again(shared);
        let mut outgoing = lock(&self.outgoing);
        let Some(seq) = outgoing.may_send(shared.info().epoch) else {
            return Err(shared.refusal().unwrap_or(SendError::Full));
        };
        release(&mut outgoing, shared);
        shared.try_important(seq, to, from, body)?;
        let (done, outcome) = oneshot::channel();
        outgoing.sent(Parcel { to: to.into(), from: from.into(), body: body.clone(), done });
        Ok(Sent::new(outcome, Some(Box::new(Waiting { account: Arc::downgrade(self), seq }))))
    }

    /// As [`Account::try_send`], waiting for its turn.
    pub(crate) async fn send(
        self: &Arc<Self>,
        shared: &Shared,
        to: &str,
        from: &str,
        body: &Bytes,
    ) -> Result<Sent, SendError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let credit = shared.state.credit();
            tokio::pin!(credit);
            credit.as_mut().enable();
            match self.try_send(shared, to, from, body) {
                Err(SendError::Full) => {}
                result => return result,
            }
            tokio::select! {
                () = changed => {}
                () = credit => {}
            }
        }
    }
}

/// Tells the present link the floor, if it does not know. Under the lock of what is outgoing: whoever sends because of it
/// comes behind it.
fn release(outgoing: &mut Outgoing<Parcel>, shared: &Shared) {
    if let Some(floor) = outgoing.to_release() {
        shared.with_out(|out| out.outbox.release(floor));
    }
}

/// Somebody waits for the outcome of a message.
struct Waiting {
    account: Weak<Account>,
    seq: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(account) = self.account.upgrade() {
            lock(&account.outgoing).abandoned(self.seq);
            // Others may have waited behind it.
            let present = lock(&account.present).upgrade();
            if let Some(shared) = present {
                account.send_again(&shared);
            }
            account.changed.notify_waiters();
        }
    }
}

/// The accounts of a node, by peer.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<HashMap<NodeName, Arc<Account>>>);

impl Accounts {
    /// The account with this life of the peer, if both ends agreed on the flag and there is room for one.
    pub(crate) fn of(&self, info: &LinkInfo) -> Option<Arc<Account>> {
        if !info.flags.has(Flag::ImportantDelivery) {
            return None;
        }
        let mut accounts = lock(&self.0);
        if accounts.len() >= MOST && !accounts.contains_key(&info.peer) {
            // Without a link, and nothing kept: nothing is lost with it.
            accounts.retain(|_, account| {
                Arc::strong_count(account) > 1
                    || !lock(&account.outgoing).is_idle()
                    || !lock(&account.incoming).outcomes().is_empty()
            });
        }
        let room = accounts.len() < MOST;
        match accounts.entry(info.peer.clone()) {
            Entry::Occupied(mut known) => {
                if known.get().incarnation != info.incarnation {
                    let former = known.insert(Arc::new(Account::new(info.incarnation)));
                    lock(&former.outgoing).forsake();
                }
                Some(known.get().clone())
            }
            Entry::Vacant(free) => room.then(|| free.insert(Arc::new(Account::new(info.incarnation))).clone()),
        }
    }
}
