use std::fmt;
use std::sync::{Arc, Mutex as StdMutex};

use tokio::sync::Mutex;
use trunkline_link::Native;
use trunkline_registrar::{BoxFuture, ResolveError, Resolver};
use trunkline_route::{Address, Cause, Cookie, Endpoint, NodeName};
use trunkline_stack::first_of;

use crate::client::{Session, failed_at, most_telling};
use crate::wrong_cookies::WrongCookies;

/// Resolver that asks the embedded registrar at one address for every name, whatever the name's host.
pub struct RegistrarAt {
    native: Arc<Native>,
    address: Address,
    cookie: Cookie,
    session: Mutex<Option<Arc<Session>>>,
    wrong: StdMutex<WrongCookies>,
}

impl RegistrarAt {
    /// Creates a resolver that proves this cookie at that address. The first lookup opens the session, which is kept.
    pub fn new(native: Arc<Native>, address: Address, cookie: Cookie) -> Self {
        Self { native, address, cookie, session: Mutex::default(), wrong: StdMutex::default() }
    }

    async fn session(&self) -> Result<Arc<Session>, ResolveError> {
        let mut session = self.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| session.is_open()) {
            return Ok(open.clone());
        }
        let unknown = |cause| ResolveError::Unreachable(failed_at(&self.address, cause));
        let (host, port) = (self.address.host.as_str(), self.address.port.get());
        let addresses = self.native.names().addresses(host, port).await.map_err(|e| unknown(Cause::from(e)))?;
        let opened =
            first_of(addresses, |address| Session::open(&self.native, address, &self.cookie, &self.wrong)).await;
        let telling = |troubles| most_telling(troubles).map(ResolveError::from);
        let opened =
            opened.map_err(|troubles| telling(troubles).unwrap_or_else(|| unknown("it has no address".into())))?;
        Ok(session.insert(Arc::new(opened)).clone())
    }
}

impl fmt::Debug for RegistrarAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrarAt").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Resolver for RegistrarAt {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move { self.session().await?.resolve(name).await })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { self.session().await?.gateways(name).await })
    }
}
