//! Interfaces of discovery: resolvers that a node asks for addresses, and registrars to which it announces its own.
//!
//! A [`Resolver`] answers where a name can be dialled, in the order to try. A [`Registrar`] also takes
//! announcements: [`Registrar::register`] gives a [`Lease`], and dropping the lease takes the announcement back.
//! Both are object-safe: a node holds them behind ids and routes name those ids.
//!
//! The feature `file` adds `NamesFile`, a resolver over a YAML file of names; the feature `conformance` adds
//! `conformance::check`, the checks that a registrar of your own should pass.
//!
//! Implement [`Resolver`] to plug in a source of addresses of your own:
//!
//! ```
//! use trunkline_registrar::{BoxFuture, ResolveError, Resolver};
//! use trunkline_route::{Address, Cause, Endpoint, NodeName};
//!
//! #[derive(Debug)]
//! struct ByConvention;
//!
//! impl Resolver for ByConvention {
//!     fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
//!         let address = Address::new(name.host(), 4370).map_err(|e| ResolveError::Failed(Cause::new(e)));
//!         Box::pin(async move { Ok(vec![Endpoint::at(address?)]) })
//!     }
//! }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "conformance")]
pub mod conformance;
mod feed;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod mirror;
mod offer;
mod pause;
mod rules;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use trunkline_matcher::AccessPattern;
use trunkline_route::{Cause, Endpoint, NodeName, ServiceName};

pub use feed::Feed;
#[cfg(feature = "file")]
pub use file::{NamesFile, NamesFileError, NamesProblem};
pub use mirror::{Change, Mirror, Watch};
pub use offer::{
    DEFAULT_OFFER_WEIGHT, MAX_OFFERS, MAX_OFFERS_BYTES, MAX_TAGS, Offer, OfferError, Serving, check_offers,
};
pub use pause::Pause;
pub use rules::{Forbidden, Rule, permits};

/// Boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Source of addresses for names.
///
/// ```
/// use std::collections::HashMap;
/// use trunkline_registrar::{BoxFuture, ResolveError, Resolver};
/// use trunkline_route::{Endpoint, NodeName};
///
/// /// Resolver over a table that does not change.
/// #[derive(Debug)]
/// struct Table(HashMap<NodeName, Vec<Endpoint>>);
///
/// impl Resolver for Table {
///     fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
///         Box::pin(async move { Ok(self.0.get(name).cloned().unwrap_or_default()) })
///     }
/// }
/// ```
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Returns the endpoints of a name, in the order to try. An unknown name is an empty list, not an error.
    ///
    /// Dropping the future must cancel the lookup. The caller sets a timeout (2 s by default) and uses at most 16
    /// answers.
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>>;

    /// Returns the gateways that announced they lead to a name, in the order to try. Called after every endpoint
    /// failed, with the same limits. The default implementation returns none.
    fn gateways<'a>(&'a self, _: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Returns the nodes that serve a service, in any order, those that are drained (weight 0) included. The default
    /// implementation takes them from [`Resolver::nodes`]; a source that cannot list its nodes knows none.
    ///
    /// # Errors
    /// As [`Resolver::nodes`].
    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(async move {
            match self.nodes().await {
                Ok(nodes) => Ok(nodes.iter().filter_map(|node| node.serving(service)).collect()),
                Err(ResolveError::NoList) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
    }

    /// Returns the announcements of all nodes, by name, as far as this source can list them. Dropping the future must cancel
    /// the request; the caller sets a timeout.
    ///
    /// # Errors
    /// The default implementation returns [`ResolveError::NoList`].
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async { Err(ResolveError::NoList) })
    }

    /// Returns a reader that is told all nodes and then each change; `None`, the default, from a source that does not tell.
    /// Call it on a Tokio runtime, or it may panic: a task may be started, which ends after the last reader.
    fn watch(&self) -> Option<Watch> {
        None
    }

    /// Returns why the answers may be out of date: the source cannot be asked at the moment, and answers what it knew. `None`,
    /// the default, while they are not, as far as it is known.
    fn stale(&self) -> Option<Cause> {
        None
    }
}

/// Resolver that also accepts announcements.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_registrar::{BoxFuture, Fixed, Lease, RegisterError, Registrar, Registration, Resolver};
/// use trunkline_route::{Address, Endpoint, NodeName};
///
/// /// Registrar of one process.
/// #[derive(Debug, Default)]
/// struct InProcess(Arc<Fixed>);
///
/// #[derive(Debug)]
/// struct Entry(Arc<Fixed>, NodeName);
///
/// impl Lease for Entry {
///     fn is_held(&self) -> bool {
///         true
///     }
/// }
///
/// impl Drop for Entry {
///     fn drop(&mut self) {
///         self.0.set(self.1.clone(), Vec::new());
///     }
/// }
///
/// impl Registrar for InProcess {
///     fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
///         self.0.set(registration.name.clone(), registration.endpoints);
///         let lease: Box<dyn Lease> = Box::new(Entry(self.0.clone(), registration.name));
///         Box::pin(async move { Ok(lease) })
///     }
///
///     fn resolver(&self) -> Arc<dyn Resolver> {
///         self.0.clone()
///     }
/// }
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let registrar = InProcess::default();
/// let db: NodeName = "db@example.com".parse()?;
/// let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
/// let lease = registrar.register(Registration::new(db.clone(), endpoints.clone())).await?;
/// assert_eq!(registrar.resolver().resolve(&db).await?, endpoints);
/// drop(lease);
/// assert_eq!(registrar.resolver().resolve(&db).await?, []);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Registrar: fmt::Debug + Send + Sync {
    /// Announces a node until the lease is dropped. The registrar keeps the announcement up by itself, also across its
    /// own restarts.
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>>;

    /// Takes part without an announcement, as a hidden node does, until the lease is dropped: for what the registrar hands
    /// out. The default implementation asks nobody, and the lease hands out nothing.
    fn join(&self) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
        Box::pin(async { Ok(Box::new(Joined) as Box<dyn Lease>) })
    }

    /// Returns the resolver of this registrar.
    fn resolver(&self) -> Arc<dyn Resolver>;
}

/// Lease of a node that is not announced and gets nothing.
#[derive(Debug)]
struct Joined;

impl Lease for Joined {
    fn is_held(&self) -> bool {
        true
    }
}

/// Static route that a registrar hands out to its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRoute {
    /// Pattern of the names, as in a static route: found anywhere in a name unless it is anchored.
    pub pattern: String,
    /// Address, and maybe whether its listener has a certificate, and the version of the handshake.
    pub endpoint: Endpoint,
}

/// Announcement of a node.
///
/// ```
/// use trunkline_registrar::Registration;
/// use trunkline_route::{Address, Endpoint};
///
/// let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
/// let registration = Registration::new("db@example.com".parse()?, endpoints);
/// assert!(registration.leads_to.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Name of the node.
    pub name: NodeName,
    /// Endpoints at which it listens, in the order callers should try.
    pub endpoints: Vec<Endpoint>,
    /// Patterns of the names, each matching the whole name, to which it leads as a gateway; usually empty.
    pub leads_to: Vec<AccessPattern>,
    /// Services that it serves with others, at most one entry for each; usually empty.
    pub offers: Vec<Offer>,
}

impl Registration {
    /// Creates an announcement of these endpoints.
    pub fn new(name: NodeName, endpoints: Vec<Endpoint>) -> Self {
        Self { name, endpoints, leads_to: Vec::new(), offers: Vec::new() }
    }

    /// Adds the services that the node serves with others.
    #[must_use]
    pub fn offering(mut self, offers: Vec<Offer>) -> Self {
        self.offers = offers;
        self
    }

    /// Returns how the node serves a service; `None` if it does not.
    pub fn serving(&self, service: &ServiceName) -> Option<Serving> {
        let offer = self.offers.iter().find(|offer| offer.service == *service)?;
        Some(Serving { node: self.name.clone(), weight: offer.weight, tags: offer.tags.clone() })
    }

    /// Adds the names to which the node leads as a gateway.
    #[must_use]
    pub fn leading_to(mut self, names: Vec<AccessPattern>) -> Self {
        self.leads_to = names;
        self
    }
}

/// Active announcement; dropping it withdraws it.
pub trait Lease: fmt::Debug + Send + Sync {
    /// Returns true if the registrar holds the announcement now. This changes while the registrar is unreachable.
    fn is_held(&self) -> bool;

    /// Returns the static routes that the registrar hands out while the lease is held, and each change of them; `None`, the
    /// default, if it hands out none. They are empty while the lease is not held.
    fn routes(&self) -> Option<watch::Receiver<Vec<GivenRoute>>> {
        None
    }

    /// Replaces the announcement by another one of the same node, and waits until the registrar knows. Updates are made in the
    /// order of the calls, also if a future is dropped.
    ///
    /// # Errors
    /// [`RegisterError::Unreachable`]: the new announcement is made once the registrar is back. Any other error: the
    /// announcement of before stays. The default implementation refuses.
    fn update(&self, _: Registration) -> BoxFuture<'static, Result<(), RegisterError>> {
        Box::pin(async { Err(RegisterError::Refused("an announcement cannot be changed there".into())) })
    }

    /// Withdraws the announcement, and waits until the registrar knows, for a second at most. The default implementation drops
    /// the lease, which is enough where that does the same without waiting.
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(async {})
    }
}

/// Error returned when a resolver has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The registrar was reached and could not answer, or its answer was invalid.
    #[error(transparent)]
    Failed(Cause),
    /// The registrar could not be reached.
    #[error("the registrar cannot be reached")]
    Unreachable(#[source] Cause),
    /// The registrar has another cookie.
    #[error("the registrar at {0} has another cookie; give both the same, or set registrar: none")]
    WrongCookie(String),
    /// The source answers for names that it is asked for, and cannot list them.
    #[error("it does not list its nodes; ask it for a name")]
    NoList,
}

/// Error returned when an announcement was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The registrar refused for another reason.
    #[error("the registrar refused: {0}")]
    Refused(String),
    /// Another live node has the name.
    #[error(
        "the name {name} is registered by another live node{}; choose another name or stop that node",
        at(endpoints)
    )]
    Taken {
        /// Name that was to be registered.
        name: NodeName,
        /// Endpoints of the node that has it.
        endpoints: Vec<Endpoint>,
    },
    /// The registrar could not be reached.
    #[error("the registrar cannot be reached")]
    Unreachable(#[source] Cause),
    /// The registrar has another cookie.
    #[error("the registrar at {0} has another cookie; give both the same, or set registrar: none")]
    WrongCookie(String),
}

/// Returns the addresses of endpoints as the end of a phrase.
fn at(endpoints: &[Endpoint]) -> String {
    let addresses: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    if addresses.is_empty() { String::new() } else { format!(", which listens at {}", addresses.join(", ")) }
}

impl RegisterError {
    /// Returns true if no registrar answered.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// Resolver over a table in memory, for tests and for programs that know their peers.
///
/// ```
/// use trunkline_registrar::{Fixed, Resolver};
/// use trunkline_route::{Address, Endpoint, NodeName};
///
/// let fixed = Fixed::new();
/// let db: NodeName = "db@example.com".parse()?;
/// let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
/// fixed.set(db.clone(), endpoints.clone());
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// assert_eq!(fixed.resolve(&db).await?, endpoints);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Fixed {
    table: RwLock<HashMap<NodeName, Vec<Endpoint>>>,
    gateways: RwLock<HashMap<NodeName, Vec<NodeName>>>,
}

impl Fixed {
    /// Creates an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the endpoints of a name; an empty list removes it.
    pub fn set(&self, name: NodeName, endpoints: Vec<Endpoint>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if endpoints.is_empty() {
            table.remove(&name);
        } else {
            table.insert(name, endpoints);
        }
    }
}

impl Fixed {
    /// Sets the gateways to a name.
    pub fn set_gateways(&self, name: NodeName, gateways: Vec<NodeName>) {
        self.gateways.write().unwrap_or_else(PoisonError::into_inner).insert(name, gateways);
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.table.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Fixed").field("names", &names).finish()
    }
}

impl Resolver for Fixed {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        let found = self.table.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        Box::pin(async move { Ok(found.unwrap_or_default()) })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        let found = self.gateways.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        Box::pin(async move { Ok(found.unwrap_or_default()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_route::Address;

    #[tokio::test]
    async fn the_fixed_resolver_answers_what_was_set() {
        let (fixed, name) = (Fixed::new(), NodeName::new("a@h").unwrap());
        assert_eq!(fixed.resolve(&name).await, Ok(vec![]));
        let endpoint = Endpoint::at(Address::new("10.0.0.1", 1).unwrap());
        fixed.set(name.clone(), vec![endpoint.clone()]);
        assert_eq!(fixed.resolve(&name).await, Ok(vec![endpoint]));
        assert_eq!(fixed.gateways(&name).await, Ok(vec![]));
        let gateway = NodeName::new("gate@h").unwrap();
        fixed.set_gateways(name.clone(), vec![gateway.clone()]);
        assert_eq!(fixed.gateways(&name).await, Ok(vec![gateway]));
        fixed.set(name.clone(), vec![]);
        assert_eq!(fixed.resolve(&name).await, Ok(vec![]));
    }
}
