//! Requests and notices of nodes about processes, over the mailbox `$process`.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use trunkline_dial::{CallError, ConnectError};
use trunkline_route::{Chain, Flag, NodeName, PeerFlags};
use trunkline_stack::{BoxFuture, Message, RegisterError, log_peer};
use trunkline_term::Term;

use super::Processes;
use super::error::{SpawnError, not_allowed, unknown};
use super::host::ProcessHost;
use super::state::Origin;
use crate::{Notice, Pid, Refusal, Request, Unwilling, answer, answered};

/// Mailbox of requests and notices about processes.
const SERVICE: &str = "$process";

fn not_agreed(flag: Flag) -> Unwilling {
    not_allowed(format!(
        "{flag} is not agreed on with this peer; switch the flag on at both ends, and in the rules of gateways between them"
    ))
}

/// Returns the first flag that a request needs and the two ends have not agreed on.
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

impl Processes {
    /// Connects if need be and asks a peer.
    pub(super) async fn ask(
        &self,
        peer: &NodeName,
        request: &Request,
        timeout: Duration,
    ) -> Result<Result<Option<(u64, u32)>, Unwilling>, CallError> {
        let host = self.host().ok_or(ConnectError::ShuttingDown)?;
        let whole = async {
            let connection = host.connect(peer.clone()).await?;
            if let Some(flag) = lacking(request, connection.info().flags) {
                return Ok(Err(not_agreed(flag)));
            }
            let term = connection.call_term(SERVICE, "", &Term::from(request), timeout).await?;
            answered(&term).map_err(|error| CallError::Failed(error.to_string()))
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    /// Tells a peer something, if there is a connection; without one the peer knows already that everything here is gone.
    pub(super) fn tell(&self, peer: &NodeName, notice: &Notice) {
        let Some(host) = self.host() else { return };
        let Some(connection) = host.connection(peer) else { return };
        let term = Term::from(notice);
        let mut telling = Box::pin(async move {
            // If it cannot be sent any more, the peer learns from the end of the connection.
            let _ = connection.send_term(SERVICE, "", &term).await;
        });
        // At once, if there is credit: later messages must not arrive before it.
        if telling.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            host.spawn(telling);
        }
    }

    /// Sets the node that the processes run on, and returns the task that answers the requests of its peers and takes their
    /// notices, until the node ends. It is for [`ProcessHost::spawn`].
    ///
    /// # Errors
    /// [`RegisterError::Taken`] at the second call for the same mailboxes.
    pub fn serve(&self, host: Weak<dyn ProcessHost>) -> Result<BoxFuture<'static, ()>, RegisterError> {
        let mut mailbox = self.mailboxes.register(SERVICE)?;
        let _ = self.host.set(host);
        let own = self.own.clone();
        Ok(Box::pin(async move {
            while let Some(message) = mailbox.recv().await {
                let Some(processes) = own.upgrade() else { return };
                processes.take(message);
            }
        }))
    }

    /// Handles one message of a peer.
    fn take(&self, message: Message) {
        let Some(host) = self.host() else { return };
        let Some(Ok(term)) = message.term() else { return message.refuse("it is no term") };
        if let Ok(notice) = Notice::try_from(&term) {
            self.heed(message.node(), notice);
        } else if let Ok(request) = Request::try_from(&term) {
            let done = self.do_for(&host, &message, request);
            // If this cannot be sent, the peer does not wait any more.
            let _ = message.reply_term(&answer(&done));
        } else {
            message.refuse("it says nothing about processes that is known here");
        }
    }

    /// Carries out a request of a peer.
    fn do_for(
        &self,
        host: &Arc<dyn ProcessHost>,
        message: &Message,
        request: Request,
    ) -> Result<Option<Pid>, Unwilling> {
        let peer = message.node();
        if let Some(flag) = lacking(&request, message.flags()) {
            return Err(not_agreed(flag));
        }
        // The requests of the peer's last connection have ended with it.
        if host.connection(peer).is_none() {
            return Err(Unwilling { refusal: Refusal::Failed, text: "the connection is down".into() });
        }
        match request {
            Request::Spawn(name, arguments, watch) => {
                let name = name.as_str();
                let factory = {
                    let state = self.lock();
                    let offer = &state.factories.get(name).ok_or_else(|| unknown("factory", name))?.offer;
                    if !offer.allows(peer) {
                        return Err(not_allowed(format!("{peer} may not begin processes named {name:?}")));
                    }
                    offer.what.clone()
                };
                let run = |process| factory(process, arguments);
                let watcher = watch.map(|watch| (peer.clone(), watch));
                let origin = Origin::Spawn { peer: peer.clone(), offer: name.into() };
                let begun = self.begin(origin, watcher, run);
                if let Ok(pid) = &begun {
                    log_peer!(host, peer, INFO, "a peer had a process begun", %peer, offer = name, %pid);
                }
                begun.map(Some).map_err(|error| match error {
                    SpawnError::Overloaded(text) => Unwilling { refusal: Refusal::Overloaded, text },
                    error => Unwilling { refusal: Refusal::Failed, text: Chain(&error).to_string() },
                })
            }
            Request::StartApplication(name) => {
                let name = name.as_str();
                self.start_for(peer, name)?;
                log_peer!(host, peer, INFO, "a peer had an application started", %peer, application = name);
                Ok(None)
            }
            Request::Link((number, creation), (own, life)) => {
                let mut state = self.lock();
                let own = state.ties.own(own, life)?;
                state.ties.room(own, peer)?;
                state.ties.link(own, &Pid { node: peer.clone(), number, creation })?;
                Ok(None)
            }
            Request::Monitor(watch, (own, life)) => {
                let mut state = self.lock();
                let own = state.ties.own(own, life)?;
                state.ties.room(own, peer)?;
                state.ties.watched_by(peer.clone(), watch, own)?;
                Ok(None)
            }
        }
    }

    /// Takes a notice of a peer.
    fn heed(&self, peer: &NodeName, notice: Notice) {
        let mut state = self.lock();
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
        self.carry_out(effect);
    }
}
