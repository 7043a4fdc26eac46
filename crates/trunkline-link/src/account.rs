//! Important delivery between this node and one life of a peer, over whichever link there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use foldhash::fast::RandomState;
use tokio::sync::{Notify, oneshot};
use trunkline_route::{Flag, Incarnation, NodeName};
use trunkline_stack::{KeepsSent, LinkInfo, LinkState, SendError, Sent};
use trunkline_wire::important::{Incoming, Outcome, Outgoing};

use crate::shell::{clock_us, lock};

/// Peers that are remembered; a node has no more links.
const MOST: usize = 65_536;

/// A message until its outcome is known.
struct Parcel {
    to: Box<str>,
    from: Box<str>,
    body: Bytes,
    done: oneshot::Sender<Outcome>,
}

/// Link over which important messages go, as an account uses it.
pub(crate) trait ImportantLink: Send + Sync {
    /// Returns the state of the link.
    fn state(&self) -> &LinkState;

    /// Sends a message with this number, if there is credit.
    fn try_important(&self, seq: u64, to: &str, from: &str, body: &[u8]) -> Result<(), SendError>;

    /// Returns the reason why the link takes nothing new, if it does not.
    fn refusal(&self) -> Option<SendError>;

    /// Tells the peer that every number below this one is settled.
    fn release(&self, floor: u64);
}

fn epoch(link: &dyn ImportantLink) -> u64 {
    link.state().info().epoch
}

/// State of important delivery with one incarnation of a peer.
pub(crate) struct Account {
    incarnation: Incarnation,
    pub(crate) incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing<Parcel>>,
    /// Messages wait to be sent again; checked whenever credit comes.
    unsent: AtomicBool,
    /// A message that had to wait may go now.
    changed: Notify,
    /// The link that is to take what goes again.
    present: Mutex<Option<Weak<dyn ImportantLink>>>,
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
    pub(crate) fn reported(&self, link: &Arc<dyn ImportantLink>, outcomes: &[(u64, Outcome)]) {
        let mut outgoing = lock(&self.outgoing);
        let settled = outgoing.reported(epoch(&**link), outcomes);
        self.unsent.store(outgoing.has_unsent(), Ordering::Relaxed);
        release(&mut outgoing, &**link);
        *lock(&self.present) = Some(Arc::downgrade(link));
        drop(outgoing);
        for (parcel, outcome) in settled {
            let _ = parcel.done.send(outcome);
        }
        self.send_again(&**link);
        self.changed.notify_waiters();
    }

    /// Outcomes arrived.
    pub(crate) fn settled(&self, link: &dyn ImportantLink, outcomes: &[(u64, Outcome)]) {
        let mut outgoing = lock(&self.outgoing);
        let settled: Vec<_> = outcomes.iter().map(|(seq, outcome)| (outgoing.settled(*seq), *outcome)).collect();
        // An elder link still brings outcomes; the floor goes over the present one.
        if outgoing.is_present(epoch(link)) {
            release(&mut outgoing, link);
        }
        drop(outgoing);
        for (parcel, outcome) in settled {
            parcel.map(|parcel| parcel.done.send(outcome));
        }
        self.changed.notify_waiters();
    }

    /// Sends the messages again that were in flight on another link, as far as credit goes.
    pub(crate) fn send_again(&self, link: &dyn ImportantLink) {
        if !self.unsent.load(Ordering::Relaxed) {
            return;
        }
        let mut outgoing = lock(&self.outgoing);
        if outgoing.is_present(epoch(link)) {
            release(&mut outgoing, link);
        }
        while let Some((seq, parcel)) = outgoing.next_unsent(epoch(link)) {
            match link.try_important(seq, &parcel.to, &parcel.from, &parcel.body) {
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
    pub(crate) fn try_send(
        self: &Arc<Self>,
        link: &dyn ImportantLink,
        to: &str,
        from: &str,
        body: &Bytes,
    ) -> Result<Sent, SendError> {
        self.send_again(link);
        let mut outgoing = lock(&self.outgoing);
        let Some(seq) = outgoing.may_send(epoch(link)) else {
            return Err(link.refusal().unwrap_or(SendError::Full));
        };
        release(&mut outgoing, link);
        link.try_important(seq, to, from, body)?;
        let (done, outcome) = oneshot::channel();
        outgoing.sent(Parcel { to: to.into(), from: from.into(), body: body.clone(), done });
        Ok(Sent::new(outcome, Some((Arc::downgrade(self) as Weak<dyn KeepsSent>, seq))))
    }

    /// Queues a message, waiting for its turn; see [`Account::try_send`].
    pub(crate) async fn send(
        self: &Arc<Self>,
        link: &dyn ImportantLink,
        to: &str,
        from: &str,
        body: &Bytes,
    ) -> Result<Sent, SendError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let credit = link.state().credit();
            tokio::pin!(credit);
            credit.as_mut().enable();
            match self.try_send(link, to, from, body) {
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
fn release(outgoing: &mut Outgoing<Parcel>, link: &dyn ImportantLink) {
    if let Some(floor) = outgoing.to_release() {
        link.release(floor);
    }
}

impl KeepsSent for Account {
    fn abandoned(&self, number: u64) {
        lock(&self.outgoing).abandoned(number);
        // Others may have waited behind it.
        let present = lock(&self.present).as_ref().and_then(Weak::upgrade);
        if let Some(link) = present {
            self.send_again(&*link);
        }
        self.changed.notify_waiters();
    }
}

/// The accounts of a node, by peer.
#[derive(Default)]
pub(crate) struct Accounts(DashMap<NodeName, Arc<Account>, RandomState>);

impl Accounts {
    /// The account with this life of the peer, if both ends agreed on the flag and there is room for one.
    pub(crate) fn of(&self, info: &LinkInfo) -> Option<Arc<Account>> {
        if !info.flags.has(Flag::ImportantDelivery) {
            return None;
        }
        if self.0.len() >= MOST && !self.0.contains_key(&info.peer) {
            // Without a link, and nothing kept: nothing is lost with it.
            self.0.retain(|_, account| {
                Arc::strong_count(account) > 1
                    || !lock(&account.outgoing).is_idle()
                    || !lock(&account.incoming).outcomes().is_empty()
            });
        }
        let room = self.0.len() < MOST;
        match self.0.entry(info.peer.clone()) {
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
