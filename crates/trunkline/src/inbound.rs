//! The listening side: what callers must prove, and what becomes of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use trunkline_dial::pair::OnOffer;
use trunkline_dial::sessions::{Handle, Keys, Up};
use trunkline_dial::{SessionLink, Verdict};
use trunkline_link::{CredentialsFn, FirstFrameHook, Hooks, Offered};
use trunkline_route::{Claims, CloseCode, Cookies, Disagreement, NodeName, PeerFlags};
use trunkline_stack::{Link, log_peer};
use trunkline_wire::handshake::Credential;

use crate::builder::Listen;
use crate::connection::Session;
use crate::inner::{Inner, hold_for};

/// How long an accepted link may stand without its first frame.
const PROVISIONAL: Duration = Duration::from_secs(5);

/// A name claimed by a `peers` entry proves a cookie of that entry and no other; then one of its own that the door has,
/// then of the node's. Nobody else is called what this node is.
pub(crate) fn credentials(
    name: &NodeName,
    allows: impl Fn(&NodeName) -> bool + Send + Sync + 'static,
    own: Option<Cookies>,
    keys: Arc<Keys>,
) -> Box<CredentialsFn> {
    let name = name.clone();
    Box::new(move |from: &NodeName, label: &str| {
        if *from == name || !allows(from) {
            return Credential::NotAllowed;
        }
        let cookies = keys.of_peer(from).or(own.as_ref()).unwrap_or(keys.node());
        Credential::Cookie(cookies.labelled(label).clone())
    })
}

/// Those of a listener.
pub(crate) fn listener_credentials(name: &NodeName, listen: &Listen, keys: Arc<Keys>) -> Box<CredentialsFn> {
    let allow = listen.allow.clone();
    let allows = move |from: &NodeName| {
        allow.as_ref().is_none_or(|allow| allow.iter().any(|names| names.is_match(from.as_str())))
    };
    credentials(name, allows, listen.cookie.clone(), keys)
}

/// As [`credentials`], for sessions with the registrar: a name that an entry claims announces itself by that cookie.
pub(crate) fn registrar_credentials(keys: Arc<Keys>) -> Box<CredentialsFn> {
    Box::new(move |from: &NodeName, label: &str| Credential::Cookie(keys.of(from).labelled(label).clone()))
}

/// Decides about a caller that proved itself, and lets its link stand if it may. The way it came allows these flags.
pub(crate) async fn decide(node: Arc<Inner>, offered: Offered, allowed: PeerFlags) {
    let offer = offered.offer();
    let (from, link_id) = (offer.from.clone(), offer.link_id);
    let claims = Claims {
        known_epoch: offer.params.known_epoch,
        last_link: offer.params.last_link,
        have_link: offer.params.have_link,
        replaces: offer.params.replaces,
    };
    if node.is_shutting_down() {
        return offered.close(CloseCode::GoingAway).await;
    }
    let mut policy = node.routing().link_policy(&from);
    policy.flags.offered = policy.flags.offered.and(allowed);
    let narrowed = policy.flags.required.without(allowed);
    if !narrowed.is_empty() {
        log_peer!(node, &from, WARN, "refused: the way it came does not allow what is required", peer = %from, required = %narrowed);
        let text = format!("it requires {narrowed}, which the way here does not allow");
        return offered.close_with(CloseCode::Flags, &text).await;
    }
    if let Err(disagreement) = offered.agree(policy.flags) {
        log_peer!(node, &from, WARN, "refused", peer = %from, %disagreement);
        // In the caller's words: what it lacks is what this end requires.
        let text = match disagreement {
            Disagreement::PeerLacks(flags) => format!("it requires {flags}"),
            Disagreement::PeerRequires(flags) => format!("it does not offer {flags}"),
            other => other.to_string(),
        };
        return offered.close_with(CloseCode::Flags, &text).await;
    }
    let mut challenged = None;
    let epoch = loop {
        match node.registry.offer(&from, link_id, offer.incarnation, claims, challenged) {
            Verdict::Accept(epoch) => break epoch,
            Verdict::Await(unheard) => {
                let settled = node.registry.settled(&from, unheard);
                if tokio::time::timeout(PROVISIONAL, settled).await.is_err() {
                    return offered.close(CloseCode::LostTie).await;
                }
            }
            Verdict::Challenge(live) => challenged = Some((live.id(), live.keeps_name().await)),
            Verdict::Refuse(OnOffer::Duplicate) => return offered.close(CloseCode::Duplicate).await,
            Verdict::Refuse(OnOffer::NameInUse) => {
                log_peer!(node, &from, WARN, "refused: another live node has this name", peer = %from);
                return offered.close(CloseCode::NameInUse).await;
            }
            Verdict::Refuse(_) => return offered.close(CloseCode::LostTie).await,
            Verdict::Full => return offered.close(CloseCode::TooManyLinks).await,
        }
    };
    let standing = match offered.accept(epoch, policy).await {
        Ok(standing) => standing,
        Err(_) => {
            node.registry.down(&from, link_id);
            return;
        }
    };
    let accepted = Arc::new(Accepted::default());
    let hooks = Hooks {
        on_first_frame: Some(on_first_frame(&node, from.clone(), accepted.clone())),
        on_down: Some(node.on_down(standing.info().clone())),
        hold: None,
    };
    let (link, driver) = standing.start(node.mailboxes.clone(), hooks);
    let _ = accepted.link.set(link.clone());
    node.registry.stand(&from, Session::new(link.clone()));
    node.spawn(driver);
    tokio::select! {
        () = accepted.confirmed.notified() => {}
        _ = link.closed() => {}
        () = tokio::time::sleep(PROVISIONAL) => link.close(CloseCode::Timeout),
    }
}

/// An accepted link on its way from provisional to up.
#[derive(Default)]
struct Accepted {
    link: OnceLock<Link>,
    confirmed: Notify,
}

fn on_first_frame(node: &Arc<Inner>, from: NodeName, accepted: Arc<Accepted>) -> FirstFrameHook {
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
