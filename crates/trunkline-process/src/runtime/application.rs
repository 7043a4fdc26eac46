//! Applications: named, ordered sets of processes, started and stopped as one.

use std::future::Future;
use std::time::Duration;

use tokio::task::AbortHandle;
use trunkline_matcher::AccessPattern;
use trunkline_route::{Chain, IntoName, NodeName};
use trunkline_stack::RegisterError;
use trunkline_term::Term;

use super::error::{ApplicationError, SpawnError, not_allowed, unknown};
use super::state::{Offer, Offered, Origin, Part, boxed};
use super::{Process, Processes, named, word};
use crate::{Exit, Pid, Refusal, Request, Unwilling};

/// A set of processes that are started in order, each under the name of a mailbox, and told to stop in the reverse one. When
/// one of them fails, panics or is stopped, the others are stopped as well.
#[derive(Clone, Default)]
pub struct Application {
    processes: Vec<Part>,
}

impl Application {
    /// Returns an application without processes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a process, which begins after those added before it.
    #[must_use]
    pub fn process<F, R>(mut self, mailbox: &str, arguments: Term, factory: F) -> Self
    where
        F: Fn(Process, Term) -> R + Send + Sync + 'static,
        R: Future<Output: Into<Exit>> + Send + 'static,
    {
        self.processes.push((mailbox.into(), arguments, boxed(factory)));
        self
    }
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.processes.iter().map(|(mailbox, ..)| mailbox)).finish()
    }
}

impl Processes {
    /// Makes an application known. Peers whose whole name matches one of these may start it, by
    /// [`Processes::start_application_on`], over connections that agreed on the flag `remote_application_start`.
    ///
    /// # Errors
    /// [`RegisterError`] when the name is taken, or no atom of 1 to 255 bytes.
    pub fn enable_application(
        &self,
        name: &str,
        allow: Vec<AccessPattern>,
        application: Application,
    ) -> Result<(), RegisterError> {
        word(name)?;
        let mut state = self.lock();
        if state.applications.contains_key(name) {
            return Err(RegisterError::Taken { name: name.into() });
        }
        let offer = Offer { what: application.processes, allow };
        state.applications.insert(name.into(), Offered { offer, running: Vec::new(), starting: false, failed: None });
        Ok(())
    }

    /// Returns the applications of this node, and the processes of those that run.
    pub fn applications(&self) -> Vec<(String, Vec<Pid>)> {
        let state = self.lock();
        state.applications.iter().map(|(name, offered)| (name.clone(), offered.running.clone())).collect()
    }

    /// Starts an application: all of its processes, or none.
    ///
    /// # Errors
    /// [`ApplicationError`]; it does not run because of this call.
    pub fn start_application(&self, name: &str) -> Result<(), ApplicationError> {
        self.start_application_by(name, None)
    }

    fn start_application_by(&self, name: &str, peer: Option<&NodeName>) -> Result<(), ApplicationError> {
        let parts = {
            let mut state = self.lock();
            let offered = state.applications.get_mut(name).ok_or_else(|| ApplicationError::Unknown(name.into()))?;
            if offered.runs() {
                return Err(ApplicationError::Running(name.into()));
            }
            (offered.starting, offered.failed) = (true, None);
            offered.offer.what.clone()
        };
        let mut refused = None;
        for (mailbox, arguments, factory) in parts {
            let run = |process| factory(process, arguments);
            let origin =
                Origin::Application { peer: peer.cloned(), name: name.into(), mailbox: mailbox.as_str().into() };
            let begun = self.begin(origin, None, run);
            let failed = self.lock().applications.get(name).and_then(|offered| offered.failed.clone());
            let failed = failed.map(|exit| SpawnError::Failed(exit.to_string()));
            refused = begun.err().or(failed).map(|cause| (mailbox, cause));
            if refused.is_some() {
                break;
            }
        }
        let mut state = self.lock();
        let Some(offered) = state.applications.get_mut(name) else { return Ok(()) };
        offered.starting = false;
        let Some((mailbox, cause)) = refused else { return Ok(()) };
        let stop = offered.running.clone();
        let stop = state.aborts(&stop);
        drop(state);
        stop.iter().for_each(AbortHandle::abort);
        Err(ApplicationError::Process { application: name.into(), mailbox, cause })
    }

    /// Stops an application where each of its processes waits next.
    ///
    /// # Errors
    /// [`ApplicationError::Unknown`], [`ApplicationError::NotRunning`].
    pub fn stop_application(&self, name: &str) -> Result<(), ApplicationError> {
        let state = self.lock();
        let offered = state.applications.get(name).ok_or_else(|| ApplicationError::Unknown(name.into()))?;
        if offered.running.is_empty() {
            return Err(ApplicationError::NotRunning(name.into()));
        }
        let stop = state.aborts(&offered.running);
        drop(state);
        stop.iter().for_each(AbortHandle::abort);
        Ok(())
    }

    /// Connects if need be and starts an application of a peer that offers it by [`Processes::enable_application`].
    ///
    /// # Errors
    /// [`ApplicationError`].
    pub async fn start_application_on(
        &self,
        peer: impl IntoName,
        name: &str,
        timeout: Duration,
    ) -> Result<(), ApplicationError> {
        let peer = named(peer)?;
        let answer = self.ask(&peer, &Request::StartApplication(word(name)?), timeout).await?;
        answer.map(drop).map_err(|Unwilling { refusal, text }| match refusal {
            Refusal::NotAllowed => ApplicationError::NotAllowed(text),
            Refusal::Unknown => ApplicationError::Unknown(name.into()),
            _ => ApplicationError::Failed(text),
        })
    }

    /// Starts an application for a peer, if it may.
    pub(super) fn start_for(&self, peer: &NodeName, name: &str) -> Result<(), Unwilling> {
        let allowed = {
            let state = self.lock();
            state.applications.get(name).map(|offered| offered.offer.allows(peer))
        };
        match allowed {
            None => Err(unknown("application", name)),
            Some(false) => Err(not_allowed(format!("{peer} may not start the application {name:?}"))),
            Some(true) => self
                .start_application_by(name, Some(peer))
                .map_err(|error| Unwilling { refusal: Refusal::Failed, text: Chain(&error).to_string() }),
        }
    }
}
