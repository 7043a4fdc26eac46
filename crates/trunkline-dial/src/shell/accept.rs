//! The listening side: what becomes of callers that have proven who they are.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_route::{CloseCode, Disagreement, NodeName, PeerFlags};
use trunkline_stack::{Caller, FirstFrameHook, Hooks, Link, log_peer};

use super::{Sessions, hold_for};
use crate::connection::Session;
use crate::pair::OnOffer;
use crate::sessions::{Handle, Up};
use crate::{SessionLink, Verdict};

/// Longest time that an accepted link stands without its first frame.
const PROVISIONAL: Duration = Duration::from_secs(5);

impl Sessions {
    /// Decides about a caller that has proven who it is, and lets its link come up if it may. The way it came allows these
    /// flags. The future ends when the link is up, or the caller was sent away.
    pub async fn accept(self: &Arc<Self>, caller: Box<dyn Caller>, allowed: PeerFlags) {
        let node = self;
        let peer = caller.peer().clone();
        let from = &peer.name;
        let claims = caller.claims();
        if node.is_leaving() {
            return caller.refuse(CloseCode::GoingAway, String::new()).await;
        }
        let mut policy = node.routing().link_policy(from);
        policy.flags.offered = policy.flags.offered.and(allowed);
        let narrowed = policy.flags.required.without(allowed);
        if !narrowed.is_empty() {
            log_peer!(node, from, WARN, "refused: the way it came does not allow what is required", peer = %from, required = %narrowed);
            let text = format!("it requires {narrowed}, which the way here does not allow");
            return caller.refuse(CloseCode::Flags, text).await;
        }
        if let Err(disagreement) = caller.agree(policy.flags) {
            log_peer!(node, from, WARN, "refused", peer = %from, %disagreement);
            // In the caller's words: what it lacks is what this end requires.
            let text = match disagreement {
                Disagreement::PeerLacks(flags) => format!("it requires {flags}"),
                Disagreement::PeerRequires(flags) => format!("it does not offer {flags}"),
                other => other.to_string(),
            };
            return caller.refuse(CloseCode::Flags, text).await;
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
            return caller.refuse(refused, String::new()).await;
        };
        let established = match caller.accept(epoch, policy).await {
            Ok(established) => established,
            Err(_) => {
                node.registry.down(from, peer.link);
                return;
            }
        };
        let accepted = Arc::new(Accepted::default());
        let hooks = Hooks {
            on_first_frame: Some(on_first_frame(node, from.clone(), accepted.clone())),
            on_down: Some(node.on_down(established.info().clone())),
            hold: None,
        };
        let (link, driver) = established.start(node.mailboxes.clone(), hooks);
        let _ = accepted.link.set(link.clone());
        node.registry.stand(from, Session::new(link.clone()));
        node.spawn(driver);
        tokio::select! {
            () = accepted.confirmed.notified() => {}
            _ = link.closed() => {}
            () = tokio::time::sleep(PROVISIONAL) => link.close(CloseCode::Timeout),
        }
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
