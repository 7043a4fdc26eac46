use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as StdMutex};

use tokio::sync::Mutex;
use trunkline_link::Native;
use trunkline_registrar::{BoxFuture, Feed, Registration, ResolveError, Resolver, Serving, Watch};
use trunkline_route::{Address, Cause, Cookie, Endpoint, NodeName, ServiceName};
use trunkline_stack::first_of;

use crate::client::{Session, Trouble, failed_at, most_telling};
use crate::feed::{self, Source, Told, Warm};
use crate::wrong_cookies::WrongCookies;

/// Resolver that asks the embedded registrar at one address for every name, whatever the name's host.
#[derive(Debug)]
pub struct RegistrarAt(Arc<At>);

struct At {
    native: Arc<Native>,
    address: Address,
    cookie: Cookie,
    session: Mutex<Option<Arc<Session>>>,
    wrong: StdMutex<WrongCookies>,
    feed: Arc<Feed>,
    warm: Warm,
}

impl RegistrarAt {
    /// Creates a resolver that proves this cookie at that address. The first lookup opens the session, which is kept.
    pub fn new(native: Arc<Native>, address: Address, cookie: Cookie) -> Self {
        let (session, wrong, feed) = (Mutex::default(), StdMutex::default(), Arc::default());
        Self(Arc::new(At { native, address, cookie, session, wrong, feed, warm: Warm::default() }))
    }
}

impl At {
    /// Opens a session at the first address of the host that answers.
    async fn open<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        open: impl FnMut(SocketAddr) -> F,
    ) -> Result<T, Trouble> {
        let unknown = |cause| Trouble::Unreachable(failed_at(&self.address, cause));
        let (host, port) = (self.address.host.as_str(), self.address.port.get());
        let addresses = self.native.names().addresses(host, port).await.map_err(|e| unknown(Cause::from(e)))?;
        let opened = first_of(addresses, open).await;
        opened.map_err(|troubles| most_telling(troubles).unwrap_or_else(|| unknown("it has no address".into())))
    }

    async fn session(&self) -> Result<Arc<Session>, Trouble> {
        let mut session = self.session.lock().await;
        if let Some(open) = session.as_ref().filter(|session| session.is_open()) {
            return Ok(open.clone());
        }
        let opened = self.open(|address| Session::open(&self.native, address, &self.cookie, &self.wrong));
        Ok(session.insert(Arc::new(opened.await?)).clone())
    }
}

impl Source for At {
    fn told(&self) -> BoxFuture<'_, Result<Told, Trouble>> {
        Box::pin(async move {
            let watch = |address| Session::watch(&self.native, address, &self.cookie, &self.wrong);
            let (session, mailbox, age) = self.open(watch).await?;
            Ok(Told::There { session, mailbox, age })
        })
    }

    fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Resolver for RegistrarAt {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move {
            match self.0.warm.resolve(&self.0, name) {
                Some(found) => Ok(found),
                None => self.0.session().await?.resolve(name).await,
            }
        })
    }

    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(async move {
            match self.0.warm.serving(&self.0, service) {
                Some(found) => Ok(found),
                None => self.0.session().await?.serving(service).await,
            }
        })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { self.0.session().await?.gateways(name).await })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async move { Ok(feed::nodes(self.0.told().await?).await?.into_values().collect()) })
    }

    fn watch(&self) -> Option<Watch> {
        Some(feed::watch(&self.0))
    }
}
