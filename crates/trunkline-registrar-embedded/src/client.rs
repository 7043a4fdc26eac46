//! Client of a registrar: one session and its requests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use trunkline_link::{DialError, DialTimes, Hooks, Native};
use trunkline_registrar::{GivenRoute, RegisterError, Registration, ResolveError, Serving};
use trunkline_route::{
    Address, Attempt, Cause, Claims, Cookie, Endpoint, LinkPolicy, NodeName, RejectCode, ServiceName, TlsMode, Version,
    printable,
};
use trunkline_stack::{CallError, Link, Mailbox, Mailboxes};
use trunkline_tls::{ClientTls, TlsProfile};
use trunkline_wire::handshake::{HandshakeError, Mode};

use crate::wire::{self, MessageError, Request, Response, SERVICE};
use crate::wrong_cookies::WrongCookies;

/// Timeout of one request on an established session.
const QUESTION: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "opening sessions is I/O, which brings the time")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Session with a registrar; dropping it ends the session.
pub(crate) struct Session {
    link: Link,
    driver: AbortHandle,
    address: SocketAddr,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Error returned when a session or request failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The registrar refuses this node, at least for now.
    Refused(String),
    WrongCookie(String),
    Unreachable(Cause),
}

/// Failure at an address or host.
#[derive(Debug, thiserror::Error)]
#[error("{at}")]
struct FailedAt {
    at: String,
    source: Cause,
}

/// Returns the cause of a failure at an address or host.
pub(crate) fn failed_at(at: impl ToString, source: impl Into<Cause>) -> Cause {
    Cause::new(FailedAt { at: at.to_string(), source: source.into() })
}

/// Answer to a request that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("its answer")]
struct UnreadableAnswer(#[source] MessageError);

/// Returns the most informative of several failures: a wrong cookie says more than an address without a registrar.
pub(crate) fn most_telling(mut troubles: Vec<Trouble>) -> Option<Trouble> {
    let wrong_cookie = troubles.iter().position(|trouble| matches!(trouble, Trouble::WrongCookie(_)));
    let at = wrong_cookie.or(troubles.len().checked_sub(1))?;
    Some(troubles.swap_remove(at))
}

impl From<Trouble> for ResolveError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(text) => Self::Failed(text.into()),
            Trouble::WrongCookie(address) => Self::WrongCookie(address),
            Trouble::Unreachable(cause) => Self::Unreachable(cause),
        }
    }
}

impl From<Trouble> for RegisterError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(text) => Self::Refused(text),
            Trouble::WrongCookie(address) => Self::WrongCookie(address),
            Trouble::Unreachable(cause) => Self::Unreachable(cause),
        }
    }
}

impl Session {
    /// Opens a session, unless the cookie was wrong at this address a short time ago.
    pub(crate) async fn open(
        native: &Native,
        address: SocketAddr,
        cookie: &Cookie,
        wrong: &Mutex<WrongCookies>,
    ) -> Result<Self, Trouble> {
        Self::open_with(native, address, cookie, wrong, Arc::new(Mailboxes::default())).await
    }

    /// Opens a session that is told all nodes and each change, as lists of [`News`] in the mailbox. The time is that for
    /// which the registrar serves.
    pub(crate) async fn watch(
        native: &Native,
        address: SocketAddr,
        cookie: &Cookie,
        wrong: &Mutex<WrongCookies>,
    ) -> Result<(Self, Mailbox, Duration), Trouble> {
        let mailboxes = Arc::new(Mailboxes::default());
        let mailbox = mailboxes.register(SERVICE).map_err(|error| Trouble::Unreachable(Cause::new(error)))?;
        let session = Self::open_with(native, address, cookie, wrong, mailboxes).await?;
        match session.ask(&Request::Watch).await? {
            Response::Watching { age_ms } => Ok((session, mailbox, Duration::from_millis(age_ms))),
            Response::Refused(text) => Err(Trouble::Refused(printable(&text))),
            _ => Err(Trouble::Refused("it answered another question".into())),
        }
    }

    async fn open_with(
        native: &Native,
        address: SocketAddr,
        cookie: &Cookie,
        wrong: &Mutex<WrongCookies>,
        mailboxes: Arc<Mailboxes>,
    ) -> Result<Self, Trouble> {
        let wrong = || wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong().refuses(now(), address).is_some() {
            return Err(Trouble::WrongCookie(address.to_string()));
        }
        let unreachable = |cause| Trouble::Unreachable(failed_at(address, cause));
        let tls = ClientTls::new(&TlsProfile::default().no_roots()).map_err(|e| unreachable(Cause::new(e)))?;
        let attempt = Attempt {
            target: native.name().clone(),
            via: None,
            address: Address::new(address.ip().to_string(), address.port()).map_err(|e| unreachable(Cause::new(e)))?,
            tls: TlsMode::CookieOnly,
            version: Version::native(1),
            cookie: cookie.clone(),
            policy: LinkPolicy::default(),
        };
        let dialed = native.dial(address, &attempt, Mode::Registrar, &tls, DialTimes::default()).await;
        let standing = match dialed {
            Ok(dialed) => dialed.finish(Claims::default()).await,
            Err(error) => Err(error),
        };
        let standing = standing.map_err(|error| match error {
            DialError::Handshake(HandshakeError::WrongCookie) => {
                wrong().wrong(now(), address);
                Trouble::WrongCookie(address.to_string())
            }
            DialError::Handshake(HandshakeError::Rejected { code: RejectCode::Throttled, .. }) => {
                Trouble::Refused(format!(
                    "{address} paces the proofs of this weak cookie, since too many failed; try again later, and give \
                     all nodes a cookie of `openssl rand -hex 24`, which is never paced"
                ))
            }
            error => unreachable(Cause::new(error)),
        })?;
        wrong().right(address);
        let (link, driver) = standing.start(mailboxes, Hooks::default());
        Ok(Self { link, driver: tokio::spawn(driver).abort_handle(), address })
    }

    /// Returns the cause of a failure of this session.
    pub(crate) fn failed(&self, cause: Cause) -> Cause {
        failed_at(self.address, cause)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    pub(crate) async fn closed(&self) {
        self.link.closed().await;
    }

    async fn ask(&self, request: &Request) -> Result<Response, Trouble> {
        let unreachable = |cause| Trouble::Unreachable(self.failed(cause));
        let answer = self.link.call(SERVICE, "", &wire::encode(request), QUESTION).await;
        let answer = answer.map_err(|e: CallError| unreachable(Cause::new(e)))?;
        wire::decode(&answer).map_err(|e| unreachable(Cause::new(UnreadableAnswer(e))))
    }

    pub(crate) async fn register(&self, own: &Registration) -> Result<(), RegisterError> {
        match self.ask(&Request::Register(own.into())).await? {
            Response::Registered => Ok(()),
            Response::Taken(endpoints) => Err(RegisterError::Taken {
                name: own.name.clone(),
                endpoints: wire::endpoints(&endpoints).unwrap_or_default(),
            }),
            Response::Refused(text) => Err(RegisterError::Refused(printable(&text))),
            _ => Err(RegisterError::Refused("it answered another question".into())),
        }
    }

    pub(crate) async fn routes(&self) -> Result<Vec<GivenRoute>, ResolveError> {
        match self.ask(&Request::Routes).await? {
            Response::Routes(found) => wire::routes(&found).map_err(|e| ResolveError::Failed(Cause::new(e))),
            Response::Refused(text) => Err(ResolveError::Failed(printable(&text).into())),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }

    pub(crate) async fn serving(&self, service: &ServiceName) -> Result<Vec<Serving>, ResolveError> {
        match self.ask(&Request::Serving(service.to_string())).await? {
            Response::Serving(found) => wire::serving(&found).map_err(|e| ResolveError::Failed(Cause::new(e))),
            Response::Refused(text) => Err(ResolveError::Failed(printable(&text).into())),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }

    pub(crate) async fn gateways(&self, name: &NodeName) -> Result<Vec<NodeName>, ResolveError> {
        match self.ask(&Request::Gateways(name.to_string())).await? {
            Response::Gateways(found) => wire::gateways(&found).map_err(|e| ResolveError::Failed(Cause::new(e))),
            Response::Refused(text) => Err(ResolveError::Failed(printable(&text).into())),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }

    pub(crate) async fn resolve(&self, name: &NodeName) -> Result<Vec<Endpoint>, ResolveError> {
        match self.ask(&Request::Resolve(name.to_string())).await? {
            Response::Endpoints(found) => wire::endpoints(&found).map_err(|e| ResolveError::Failed(Cause::new(e))),
            Response::Refused(text) => Err(ResolveError::Failed(printable(&text).into())),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }
}
