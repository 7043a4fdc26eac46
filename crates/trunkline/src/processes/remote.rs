//! What nodes ask and tell each other about processes, over the service `$process`.

use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use trunkline_process::{Notice, Pid, Refusal, Request, Unwilling, answer, answered};
use trunkline_route::{Flag, NodeName, PeerFlags};
use trunkline_stack::{CallError as LinkCallError, Mailbox, Message, RegisterError};
use trunkline_term::Term;

use super::{Origin, SpawnError, TieError};
use crate::inner::{Handle, Inner, now};
use crate::{CallError, Node};

/// Where nodes talk about processes.
const SERVICE: &str = "$process";

pub(super) fn not_allowed(text: String) -> Unwilling {
    Unwilling { refusal: Refusal::NotAllowed, text }
}

pub(super) fn unknown(what: &str, name: &str) -> Unwilling {
    Unwilling { refusal: Refusal::Unknown, text: format!("there is no {what} named {name:?}") }
}

fn not_agreed(flag: Flag) -> Unwilling {
    not_allowed(format!(
        "{flag} is not agreed on with this peer; switch the flag on at both ends, and in the rules of gateways between them"
    ))
}

pub(super) fn spawn_error(name: &str, Unwilling { refusal, text }: Unwilling) -> SpawnError {
    match refusal {
        Refusal::NotAllowed => SpawnError::NotAllowed(text),
        Refusal::Unknown => SpawnError::Unknown(name.into()),
        Refusal::Overloaded => SpawnError::Overloaded(text),
        _ => SpawnError::Failed(text),
    }
}

pub(super) fn tie_error(Unwilling { refusal, text }: Unwilling) -> TieError {
    match refusal {
        Refusal::NoProcess => trunkline_process::NoProcess.into(),
        _ => TieError::Refused(text),
    }
}

/// The first of what a request takes the two ends to have agreed on that they have not.
fn lacking(request: &Request, agreed: PeerFlags) -> Option<Flag> {
    let takes: &[Flag] = match request {
        Request::Spawn(_, _, None) => &[Flag::RemoteSpawn],
        Request::Spawn(_, _, Some(_)) => &[Flag::RemoteSpawn, Flag::Monitor],
        Request::StartApplication(_) => &[Flag::RemoteApplicationStart],
        Request::Link(..) => &[Flag::Link],
        Request::Monitor(..) => &[Flag::Monitor],
    };
    takes.iter().copied().find(|flag| !agreed.has(*flag))
}

impl Node {
    /// Connects if need be and asks a peer.
    pub(super) async fn ask(
        &self,
        peer: &NodeName,
        request: &Request,
        deadline: Duration,
    ) -> Result<Result<Option<(u64, u32)>, Unwilling>, CallError> {
        let whole = async {
            let connection = self.in_use(peer).await?;
            if let Some(flag) = lacking(request, connection.info().flags) {
                return Ok(Err(not_agreed(flag)));
            }
            let term = connection.call_term(SERVICE, "", &Term::from(request), deadline).await?;
            answered(&term).map_err(|error| LinkCallError::Failed(error.to_string()).into())
        };
        tokio::time::timeout(deadline, whole).await.unwrap_or(Err(LinkCallError::TimedOut(deadline).into()))
    }

    /// Returns `Some` if a line about what this peer had begun may be written, with the number of suppressed ones.
    fn may_log(&self, peer: &NodeName) -> Option<u64> {
        self.inner().processes.lock().lines.allow(now(), peer)
    }

    /// What a peer asks for.
    fn do_for(&self, message: &Message, request: Request) -> Result<Option<Pid>, Unwilling> {
        let (peer, node) = (message.node(), self.inner());
        if let Some(flag) = lacking(&request, message.flags()) {
            return Err(not_agreed(flag));
        }
        // What the peer's last connection asked for has ended with it.
        if node.sessions.connection(peer).is_none() {
            return Err(Unwilling { refusal: Refusal::Failed, text: "the connection is down".into() });
        }
        match request {
            Request::Spawn(name, arguments, watch) => {
                let name = name.as_str();
                let factory = {
                    let state = node.processes.lock();
                    let offer = &state.factories.get(name).ok_or_else(|| unknown("factory", name))?.offer;
                    if !offer.allows(peer) {
                        return Err(not_allowed(format!("{peer} may not begin processes named {name:?}")));
                    }
                    offer.what.clone()
                };
                let run = |process| factory(process, arguments);
                let watcher = watch.map(|watch| (peer.clone(), watch));
                let origin = Origin::Spawn { peer: peer.clone(), offer: name.into() };
                let begun = node.processes.begin(Arc::downgrade(&self.handle), node, origin, watcher, run);
                if let (Ok(pid), Some(suppressed)) = (&begun, self.may_log(peer)) {
                    tracing::info!(%peer, offer = name, %pid, suppressed, "a peer had a process begun");
                }
                begun.map(Some).map_err(|error| match error {
                    SpawnError::Overloaded(text) => Unwilling { refusal: Refusal::Overloaded, text },
                    error => Unwilling { refusal: Refusal::Failed, text: error.to_string() },
                })
            }
            Request::StartApplication(name) => {
                self.start_for(peer, name.as_str())?;
                if let Some(suppressed) = self.may_log(peer) {
                    tracing::info!(%peer, application = name.as_str(), suppressed, "a peer had an application started");
                }
                Ok(None)
            }
            Request::Link((number, creation), (own, life)) => {
                let mut state = node.processes.lock();
                let own = state.ties.own(own, life)?;
                state.ties.room(own, peer)?;
                state.ties.link(own, &Pid { node: peer.clone(), number, creation })?;
                Ok(None)
            }
            Request::Monitor(watch, (own, life)) => {
                let mut state = node.processes.lock();
                let own = state.ties.own(own, life)?;
                state.ties.room(own, peer)?;
                state.ties.watched_by(peer.clone(), watch, own)?;
                Ok(None)
            }
        }
    }
}

/// Tells a peer something, if there is a connection; else it knows already that everything here is gone.
pub(super) fn tell(node: &Arc<Inner>, peer: &NodeName, notice: &Notice) {
    let Some(connection) = node.sessions.connection(peer) else { return };
    let term = Term::from(notice);
    let mut telling = Box::pin(async move {
        // What cannot be sent any more, the peer learns from the connection's end.
        let _ = connection.send_term(SERVICE, "", &term).await;
    });
    // At once, if there is credit: what is said afterwards must not come before it.
    if telling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        node.sessions.spawn(telling);
    }
}

/// Does what a peer says.
fn heed(node: &Arc<Inner>, peer: &NodeName, notice: Notice) {
    let mut state = node.processes.lock();
    let theirs = |(number, creation)| Pid { node: peer.clone(), number, creation };
    let effect = match notice {
        Notice::Unlink(other, (own, life)) => {
            if let Ok(own) = state.ties.own(own, life) {
                state.ties.unlink(own, &theirs(other));
            }
            None
        }
        Notice::Demonitor(watch, (own, life)) => {
            if let Ok(own) = state.ties.own(own, life) {
                state.ties.unwatched_by(peer, watch, own);
            }
            None
        }
        Notice::Exit(other, (own, life), exit) => {
            state.ties.own(own, life).ok().and_then(|own| state.ties.exit_there(theirs(other), own, exit))
        }
        Notice::Down(watch, exit) => state.ties.down_there(peer, watch, exit),
    };
    drop(state);
    node.processes.carry_out(node, Vec::from_iter(effect));
}

/// Answers what peers ask and takes what they tell, until the node ends.
pub(crate) fn serve(
    handle: Weak<Handle>,
    node: &Arc<Inner>,
) -> Result<impl Future<Output = ()> + Send + 'static, RegisterError> {
    let mut mailbox: Mailbox = node.sessions.mailboxes().register(SERVICE)?;
    Ok(async move {
        while let Some(message) = mailbox.recv().await {
            let Some(node) = handle.upgrade().map(|handle| Node { handle }) else { return };
            let term = match message.term() {
                Some(Ok(term)) => term,
                Some(Err(_)) | None => {
                    message.refuse("it is no term");
                    continue;
                }
            };
            if let Ok(notice) = Notice::try_from(&term) {
                heed(node.inner(), message.node(), notice);
            } else if let Ok(request) = Request::try_from(&term) {
                let done = node.do_for(&message, request);
                // The peer does not wait any more, if this cannot be said.
                let _ = message.reply_term(&answer(&done));
            } else {
                message.refuse("it says nothing about processes that is known here");
            }
        }
    })
}
