//! The listening side: what becomes of callers that have proven who they are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_route::{CloseCode, Disagreement, LinkId, NodeName, PeerFlags};
use trunkline_stack::{Caller, FirstFrameHook, Hooks, Link, log_peer};

use super::{Sessions, hold_for};
use crate::connection::{Connection, Session};
use crate::pair::OnOffer;
use crate::sessions::{Handle, Up};
use crate::{Registry, SessionLink, Verdict};

/// Longest time that an accepted link stands without its first frame.
const PROVISIONAL: Duration = Duration::from_secs(5);

impl Sessions {
    /// Decides about a caller that has proven who it is, and lets its link come up if it may. The way it came allows these
    /// flags. Dropping the future leaves no trace of a link that is not up yet.
    ///
    /// # Errors
    /// [`SentAway`] with the reason that the caller was given.
    pub async fn accept(self: &Arc<Self>, caller: Box<dyn Caller>, allowed: PeerFlags) -> Result<Connection, SentAway> {
        let node = self;
        let refuse = async |caller: Box<dyn Caller>, code: CloseCode, text: String| {
            caller.refuse(code, text.clone()).await;
            Err(SentAway { code, text })
        };
        let peer = caller.peer().clone();
        let from = &peer.name;
        let claims = caller.claims();
        if node.is_leaving() {
            return refuse(caller, CloseCode::GoingAway, String::new()).await;
        }
        let mut policy = node.routing().link_policy(from);
        policy.flags.offered = policy.flags.offered.and(allowed);
        let narrowed = policy.flags.required.without(allowed);
        if !narrowed.is_empty() {
            log_peer!(node, from, WARN, "refused: the way it came does not allow what is required", peer = %from, required = %narrowed);
            let text = format!("it requires {narrowed}, which the way here does not allow");
            return refuse(caller, CloseCode::Flags, text).await;
        }
        if let Err(disagreement) = caller.agree(policy.flags) {
            log_peer!(node, from, WARN, "refused", peer = %from, %disagreement);
            // In the caller's words: what it lacks is what this end requires.
            let text = match disagreement {
                Disagreement::PeerLacks(flags) => format!("it requires {flags}"),
                Disagreement::PeerRequires(flags) => format!("it does not offer {flags}"),
                other => other.to_string(),
            };
            return refuse(caller, CloseCode::Flags, text).await;
        }
        let mut challenged = None;
        let epoch = loop {
            let refused = match node.registry.offer(from, peer.link, peer.incarnation, claims, challenged) {
                Verdict::Accept(epoch) => break epoch,
                Verdict::Await(unheard) => {
                    let settled = node.registry.settled(from, unheard);
                    match tokio::time::timeout(PROVISIONAL, settled).await {
                        Ok(()) => continue,
                        Err(_) => CloseCode::LostTie,
                    }
                }
                Verdict::Challenge(live) => {
                    challenged = Some((live.id(), live.keeps_name().await));
                    continue;
                }
                Verdict::Refuse(OnOffer::Duplicate) => CloseCode::Duplicate,
                Verdict::Refuse(OnOffer::NameInUse) => {
                    log_peer!(node, from, WARN, "refused: another live node has this name", peer = %from);
                    CloseCode::NameInUse
                }
                Verdict::Refuse(_) => CloseCode::LostTie,
                Verdict::Full => CloseCode::TooManyLinks,
            };
            return refuse(caller, refused, String::new()).await;
        };
        // Until the link stands, whatever ends this takes the offer back.
        let offer = Offer { registry: &node.registry, from, link: peer.link };
        if node.is_leaving() {
            return refuse(caller, CloseCode::GoingAway, String::new()).await;
        }
        let Ok(established) = caller.accept(epoch, policy).await else {
            return Err(SentAway { code: CloseCode::Unspecified, text: "the caller went away".into() });
        };
        let accepted = Arc::new(Accepted::default());
        let hooks = Hooks {
            on_first_frame: Some(on_first_frame(node, from.clone(), accepted.clone())),
            on_down: Some(node.on_down(established.info().clone())),
            hold: None,
        };
        let is_guest = node.keys.of_guest(from).is_some_and(|cookie| cookie == established.info().cookie);
        let mailboxes = if is_guest { &node.guest_mailboxes } else { &node.mailboxes };
        let (link, driver) = established.start(mailboxes.clone(), hooks);
        let _ = accepted.link.set(link.clone());
        let session = Session::new(link.clone());
        node.registry.stand(from, session.clone());
        std::mem::forget(offer);
        node.spawn(driver);
        tokio::select! {
            () = accepted.confirmed.notified() => Ok(session.connection()),
            down = link.closed() => Err(SentAway { code: CloseCode::Unspecified, text: down.to_string() }),
            () = tokio::time::sleep(PROVISIONAL) => {
                link.close(CloseCode::Timeout);
                Err(SentAway { code: CloseCode::Timeout, text: "it did not use the link".into() })
            }
        }
    }
}

/// Error returned when a caller that has proven who it is gets no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the caller was sent away: {code}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
pub struct SentAway {
    /// Reason, as the caller was told.
    pub code: CloseCode,
    /// Explanation; may be empty.
    pub text: String,
}

/// An accepted offer whose link does not stand yet. Dropped, it is taken back.
struct Offer<'n> {
    registry: &'n Registry<Session>,
    from: &'n NodeName,
    link: LinkId,
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        self.registry.down(self.from, self.link);
    }
}

/// An accepted link on its way from provisional to up.
#[derive(Default)]
struct Accepted {
    link: OnceLock<Link>,
    confirmed: Notify,
}

fn on_first_frame(node: &Arc<Sessions>, from: NodeName, accepted: Arc<Accepted>) -> FirstFrameHook {
    // The link's task must not keep the node alive.
    let node = Arc::downgrade(node);
    Box::new(move || {
        let (link, node) = (accepted.link.get()?, node.upgrade()?);
        let switched = node.registry.confirmed(&from, link.info().id, |live, old| {
            live.take_place(old.and_then(|(old, alive)| alive.then_some(old)));
        });
        accepted.confirmed.notify_one();
        let Some(Up { replaced: old, elders }) = switched else {
            link.close(CloseCode::Superseded);
            return None;
        };
        node.up(link.info(), old.as_ref());
        if let Some((old, retire)) = old {
            old.retire(retire.alive);
        }
        hold_for(elders)
    })
}
