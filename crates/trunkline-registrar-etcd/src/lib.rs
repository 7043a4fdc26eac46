//! Discovery by etcd: a [`Registrar`] whose announcements are keys with leases, and whose answers come from a mirror.
//!
//! A node announces itself with a key under the prefix, whose value is JSON and which ends with a lease of 10 s that the
//! node renews. Each process keeps a copy of all announcements, which one watch of the prefix keeps up to date: a name is
//! resolved without a question to etcd. While etcd is lost, answers are those that it gave last, [`Resolver::stale`] tells
//! so, and connections stay; afterwards the watch goes on where it ended, or all is read anew where etcd does not have
//! the changes any more, and announcements that were lost are made again.
//!
//! The keys, which `etcdctl` reads and writes as well:
//!
//! | Key | Value |
//! |---|---|
//! | `PREFIX/nodes/NAME` | `{"endpoints": [{"host": "10.0.0.5", "port": 4370}]}`; an endpoint may have `tls` (true or false) and `handshake` (`TLK/1`); beside `endpoints` there may be `leads_to`, patterns of the names to which the node leads as a gateway, `offers`, the services that it serves with others (`{"service": "postgres", "weight": 100, "tags": ["eu"]}`), and `holder`, which tells the process |
//! | `PREFIX/routes/ID` | `{"match": "^db@", "host": "10.0.0.5", "port": 4370}`, maybe with `tls` and `handshake`: a static route that every node gets, with the weight 0 |
//! | `PREFIX/challenges/NAME` | a process that asks the holder of the name whether it is alive; the holder writes its key again |
//!
//! A key without a lease, written by hand, stays until it is deleted by hand, and its name cannot be registered.

mod announce;
mod follow;
mod layout;
mod settings;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use trunkline_registrar::{
    BoxFuture, GivenRoute, Lease, Mirror, RegisterError, Registrar, Registration, ResolveError, Resolver, Serving,
    Watch,
};
use trunkline_route::{Cause, Endpoint, NodeName, ServiceName};

use announce::Announcer;
use follow::{Follower, Following, Known, Unreadable};
use layout::Keys;
pub use settings::{DEFAULT_PREFIX, EtcdSettings, EtcdTls, EtcdUser};
use store::Store;

/// Registrar in etcd.
///
/// ```no_run
/// use trunkline_registrar::{Registrar, Registration};
/// use trunkline_registrar_etcd::{Etcd, EtcdSettings};
/// use trunkline_route::{Address, Endpoint};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let etcd = Etcd::new(EtcdSettings::at(vec![Address::new("127.0.0.1", 2379)?]));
/// let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
/// let lease = etcd.register(Registration::new("db@example.com".parse()?, endpoints.clone())).await?;
/// assert_eq!(etcd.resolver().resolve(&"db@example.com".parse()?).await?, endpoints);
/// lease.withdraw().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Etcd(Arc<Core>);

struct Core {
    store: Arc<Store>,
    keys: Keys,
    mirror: Arc<Mirror>,
    known: Arc<Known>,
    /// Task that keeps the mirror, once somebody asked.
    follower: Mutex<Option<Arc<Following>>>,
    shown: String,
}

impl Etcd {
    /// Creates a registrar. Nothing is asked yet: the first question opens a connection, and starts the task that keeps the
    /// mirror.
    pub fn new(settings: EtcdSettings) -> Self {
        let keys = Keys::new(&settings.prefix);
        let endpoints: Vec<String> = settings.endpoints.iter().map(ToString::to_string).collect();
        Self(Arc::new(Core {
            shown: endpoints.join(", "),
            store: Arc::new(Store::new(settings)),
            keys,
            mirror: Arc::new(Mirror::unknown()),
            known: Arc::default(),
            follower: Mutex::default(),
        }))
    }
}

impl Core {
    /// Keeps the mirror from now on.
    fn follow(&self) -> Arc<Following> {
        let mut follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        match follower.as_ref().filter(|following| !following.has_ended()) {
            Some(following) => following.clone(),
            None => {
                let (store, keys, mirror) = (self.store.clone(), self.keys.clone(), self.mirror.clone());
                let follow = Follower { store, keys, mirror, known: self.known.clone() };
                follower.insert(Following::start(follow)).clone()
            }
        }
    }

    /// Returns why etcd cannot be followed at the moment.
    fn lost(&self) -> Option<Cause> {
        self.mirror.is_lost().then(|| self.known.lost().unwrap_or_else(|| "etcd cannot be reached".into()))
    }

    /// Waits until the mirror has all nodes. Fails when etcd cannot be asked for them.
    async fn listed(&self) -> Result<(), ResolveError> {
        self.follow();
        let mut watch = self.mirror.watch();
        loop {
            if self.mirror.is_known() {
                return Ok(());
            }
            if let Some(cause) = self.lost() {
                return Err(ResolveError::Unreachable(cause));
            }
            watch.next().await;
        }
    }

    async fn resolve(&self, name: &NodeName) -> Result<Vec<Endpoint>, ResolveError> {
        if !self.mirror.is_known() {
            self.follow();
            // A program that asks once does not wait for the list of all nodes.
            let Some(kv) = self.store.get_from_one(&self.keys.node(name)).await? else { return Ok(Vec::new()) };
            let entry = layout::decode(name.clone(), &kv.value);
            let unreadable = |source| Cause::new(Unreadable { key: self.keys.node(name), source });
            return Ok(entry.map_err(|error| ResolveError::Failed(unreadable(error)))?.registration.endpoints);
        }
        match self.mirror.get(name) {
            Some(found) => Ok(found.endpoints.clone()),
            None => self.known.broken(name).map_or(Ok(Vec::new()), |cause| Err(ResolveError::Failed(cause))),
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.shown).field("root", &self.keys.root()).finish_non_exhaustive()
    }
}

impl Registrar for Etcd {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(async move {
            let Core { store, keys, known, .. } = &*self.0;
            // The watch tells when the holder is asked whether it is alive.
            let following = self.0.follow();
            let announcer = Announcer::new(store.clone(), keys, known.clone(), following, registration);
            let lease = announcer.announce().await?;
            // The routes that come with the lease are read with the nodes.
            let _ = self.0.listed().await;
            Ok(lease)
        })
    }

    fn join(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(async {
            // The routes are known once the nodes are; until then there are none.
            let _ = self.0.listed().await;
            Ok(Box::new(Joined(self.0.clone())) as Box<dyn Lease>)
        })
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        self.0.clone()
    }
}

/// Lease of a hidden node, which gets the static routes and announces nothing.
#[derive(Debug)]
struct Joined(Arc<Core>);

impl Lease for Joined {
    fn is_held(&self) -> bool {
        self.0.mirror.is_known() && !self.0.mirror.is_lost()
    }

    fn routes(&self) -> Option<watch::Receiver<Vec<GivenRoute>>> {
        Some(self.0.known.given())
    }
}

impl Resolver for Core {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(self.resolve(name))
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move {
            self.listed().await?;
            Ok(self.mirror.leading_to(name))
        })
    }

    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(async move {
            self.listed().await?;
            Ok(self.mirror.offering(service))
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async move {
            self.listed().await?;
            self.mirror.nodes().await
        })
    }

    fn watch(&self) -> Option<Watch> {
        self.follow();
        Some(self.mirror.watch())
    }

    fn stale(&self) -> Option<Cause> {
        self.lost()
    }
}
