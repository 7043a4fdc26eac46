//! The side that asks: one session, its questions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use trunkline_link::handshake::{HandshakeError, Mode};
use trunkline_link::{CallError, Claims, ClientTls, DialError, DialTimes, Directory, Hooks, Link, Native, TlsProfile};
use trunkline_registrar::{RegisterError, Registration, ResolveError};
use trunkline_route::{Address, Attempt, Cookie, Endpoint, LinkPolicy, NodeName, TlsMode, Version};

use crate::wire::{self, Request, Response, SERVICE};

/// How long one question may take on a session that stands.
const QUESTION: Duration = Duration::from_secs(2);

/// A session with a registrar; it ends when dropped.
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

/// Why a session did not come about.
#[derive(Debug)]
pub(crate) enum Trouble {
    WrongCookie(String),
    Unreachable(String),
}

impl From<Trouble> for ResolveError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::WrongCookie(address) => Self::WrongCookie(address),
            Trouble::Unreachable(text) => Self::Unreachable(text),
        }
    }
}

impl From<Trouble> for RegisterError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::WrongCookie(address) => Self::WrongCookie(address),
            Trouble::Unreachable(text) => Self::Unreachable(text),
        }
    }
}

impl Session {
    pub(crate) async fn open(native: &Native, address: SocketAddr, cookie: &Cookie) -> Result<Self, Trouble> {
        let unreachable = |e: &dyn std::fmt::Display| Trouble::Unreachable(format!("{address}: {e}"));
        let tls = ClientTls::new(&TlsProfile::default().no_roots()).map_err(|e| unreachable(&e))?;
        let attempt = Attempt {
            target: native.name().clone(),
            via: None,
            address: Address::new(address.ip().to_string(), address.port()).map_err(|e| unreachable(&e))?,
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
            DialError::Handshake(HandshakeError::WrongCookie) => Trouble::WrongCookie(address.to_string()),
            error => unreachable(&error),
        })?;
        let (link, driver) = standing.start(Arc::new(Directory::default()), Hooks::default());
        Ok(Self { link, driver: tokio::spawn(driver).abort_handle(), address })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    pub(crate) async fn closed(&self) {
        self.link.closed().await;
    }

    async fn ask(&self, request: &Request) -> Result<Response, Trouble> {
        let unreachable = |e: String| Trouble::Unreachable(format!("{}: {e}", self.address));
        let answer = self.link.call(SERVICE, "", &wire::encode(request), QUESTION).await;
        let answer = answer.map_err(|e: CallError| unreachable(e.to_string()))?;
        wire::decode(&answer).map_err(|e| unreachable(format!("its answer: {e}")))
    }

    pub(crate) async fn register(&self, own: &Registration) -> Result<(), RegisterError> {
        let endpoints = own.endpoints.iter().map(Into::into).collect();
        let leads_to = own.leads_to.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        match self.ask(&Request::Register(endpoints, leads_to)).await? {
            Response::Registered => Ok(()),
            Response::Taken => Err(RegisterError::Taken(own.name.clone())),
            Response::Refused(text) => Err(RegisterError::Refused(text)),
            _ => Err(RegisterError::Refused("it answered another question".into())),
        }
    }

    pub(crate) async fn gateways(&self, name: &NodeName) -> Result<Vec<NodeName>, ResolveError> {
        match self.ask(&Request::Gateways(name.to_string())).await? {
            Response::Gateways(found) => wire::gateways(&found).map_err(ResolveError::Failed),
            Response::Refused(text) => Err(ResolveError::Failed(text)),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }

    pub(crate) async fn resolve(&self, name: &NodeName) -> Result<Vec<Endpoint>, ResolveError> {
        match self.ask(&Request::Resolve(name.to_string())).await? {
            Response::Endpoints(found) => wire::endpoints(&found).map_err(ResolveError::Failed),
            Response::Refused(text) => Err(ResolveError::Failed(text)),
            _ => Err(ResolveError::Failed("it answered another question".into())),
        }
    }
}
