//! Checks that any registrar has to pass, for the tests of whoever implements one.

use std::sync::Arc;
use std::time::Duration;

use trunkline_matcher::AccessPattern;
use trunkline_route::{Address, Endpoint, NodeName, ServiceName, Version};

use crate::{Change, Lease, Offer, RegisterError, Registrar, Registration, Resolver, Serving, Watch};

/// Time within which everybody sees what one node announced or withdrew.
const SEEN: Duration = Duration::from_secs(10);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Checks that registrars keep what [`Registrar`] and [`Resolver`] promise: what one node announces, in its order, with its
/// gateways and services, all others find, are told and can list, until it is changed or withdrawn; a name has one holder; a name that nobody
/// announced is unknown, which is no error.
///
/// `make` returns the registrar as the node of that name would use it; all of them belong together. The names are those of
/// `host`. Nothing else may be announced meanwhile.
///
/// ```
/// # use std::sync::Arc;
/// # use trunkline_registrar::{BoxFuture, Lease, Mirror, RegisterError, Registrar, Registration, Resolver, conformance};
/// # use trunkline_route::NodeName;
/// /// Registrar of one process.
/// #[derive(Debug, Clone, Default)]
/// struct InProcess(Arc<Mirror>);
///
/// #[derive(Debug)]
/// struct Entry(Arc<Mirror>, NodeName);
/// # impl Lease for Entry {
/// #     fn is_held(&self) -> bool {
/// #         true
/// #     }
/// # }
/// # impl Drop for Entry {
/// #     fn drop(&mut self) {
/// #         self.0.remove(&self.1);
/// #     }
/// # }
///
/// impl Registrar for InProcess {
///     fn register(&self, node: Registration) -> BoxFuture<'_, Result<Box<dyn Lease>, RegisterError>> {
///         Box::pin(async move {
///             if let Some(held) = self.0.get(&node.name) {
///                 return Err(RegisterError::Taken { name: node.name, endpoints: held.endpoints.clone() });
///             }
///             self.0.set(node.clone());
///             Ok(Box::new(Entry(self.0.clone(), node.name)) as Box<dyn Lease>)
///         })
///     }
///
///     fn resolver(&self) -> Arc<dyn Resolver> {
///         self.0.clone()
///     }
/// }
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let registrar = InProcess::default();
/// conformance::check("lab", async |_| Arc::new(registrar.clone()) as Arc<dyn Registrar>).await;
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// The message names what the registrar does not keep.
pub async fn check(host: &str, make: impl AsyncFn(NodeName) -> Arc<dyn Registrar>) {
    let name = |node: &str| NodeName::new(format!("{node}@{host}")).expect("the host makes a name");
    let (db, web, reader) = (name("db"), name("web"), name("reader"));
    let (of_db, of_web) = (make(db.clone()).await, make(web.clone()).await);
    let reader = make(reader).await;
    let of_reader = reader.resolver();
    let readers = [of_db.resolver(), of_web.resolver(), of_reader.clone()];

    let unknown = of_reader.resolve(&db).await;
    assert_eq!(unknown, Ok(vec![]), "a name that nobody announced is an empty list");
    assert_eq!(of_reader.gateways(&db).await, Ok(vec![]), "nobody leads to it");

    let mut watch = of_reader.watch();
    if let Some(watch) = &mut watch {
        assert_eq!(next(watch).await, Change::Current, "the first change of a registrar without nodes");
    }
    let first = Registration::new(db.clone(), endpoints(&[1, 2, 3]));
    let lease = register(&*of_db, first.clone()).await;
    for resolver in &readers {
        found(&**resolver, &db, &first.endpoints).await;
    }
    told(&mut watch, Change::Joined(Arc::new(first.clone()))).await;
    listed(&*of_reader, &[&first]).await;

    let rival = make(db.clone()).await;
    match rival.register(Registration::new(db.clone(), endpoints(&[9]))).await {
        Err(RegisterError::Taken { name, endpoints }) => {
            assert_eq!(
                (name, endpoints),
                (db.clone(), first.endpoints.clone()),
                "the refusal has the holder's endpoints"
            );
        }
        other => panic!("a name that a live node holds is taken, not {other:?}"),
    }
    found(&*of_reader, &db, &first.endpoints).await;
    drop(rival);

    let pattern = |text: &str| AccessPattern::new(text).expect("it is a pattern");
    let second =
        Registration::new(web.clone(), endpoints(&[4])).leading_to(vec![pattern("inside-.*@.*"), pattern("x")]);
    let of_gateway = register(&*of_web, second.clone()).await;
    told(&mut watch, Change::Joined(Arc::new(second.clone()))).await;
    listed(&*of_reader, &[&first, &second]).await;
    for resolver in &readers {
        leads(&**resolver, &name("inside-1"), std::slice::from_ref(&web)).await;
        leads(&**resolver, &name("outside"), &[]).await;
    }

    // An announcement is replaced by another one of the same node, without a moment in which there is none.
    let service = ServiceName::new("postgres").expect("it is a service");
    let offer = |weight| Offer { weight, tags: vec!["eu".into()], ..Offer::new(service.clone()) };
    for weight in [7, 0] {
        let changed = first.clone().offering(vec![offer(weight)]);
        if let Err(error) = lease.update(changed.clone()).await {
            assert!(matches!(error, RegisterError::Refused(_)), "a registrar that takes no changes says so: {error}");
            break;
        }
        for resolver in &readers {
            serve(&**resolver, &service, changed.serving(&service).as_slice()).await;
        }
        told(&mut watch, Change::Changed(Arc::new(changed.clone()))).await;
        listed(&*of_reader, &[&changed, &second]).await;
        assert!(lease.is_held(), "the lease is held after an update");
    }

    drop(lease);
    for resolver in &readers {
        found(&**resolver, &db, &[]).await;
        serve(&**resolver, &service, &[]).await;
    }
    told(&mut watch, Change::Left(db.clone())).await;
    listed(&*of_reader, &[&second]).await;
    // The name is free again, for another announcement.
    let third = Registration::new(db.clone(), endpoints(&[7]));
    let again = make(db.clone()).await;
    let lease = register(&*again, third.clone()).await;
    found(&*of_reader, &db, &third.endpoints).await;
    told(&mut watch, Change::Joined(Arc::new(third.clone()))).await;
    drop((lease, of_gateway));
    found(&*of_reader, &web, &[]).await;
    found(&*of_reader, &db, &[]).await;
    leads(&*of_reader, &name("inside-1"), &[]).await;
    listed(&*of_reader, &[]).await;
}

/// Returns endpoints with these ports, of all kinds.
fn endpoints(ports: &[u16]) -> Vec<Endpoint> {
    let hosts = ["10.0.0.1", "fd00::1", "db.example.com"];
    let endpoint = |(nth, port): (usize, &u16)| Endpoint {
        address: Address::new(hosts[nth % 3], *port).expect("it is an address"),
        tls: [Some(true), None, Some(false)][nth % 3],
        version: [Some(Version::native(1)), None, None][nth % 3].clone(),
    };
    ports.iter().enumerate().map(endpoint).collect()
}

async fn register(registrar: &dyn Registrar, node: Registration) -> Box<dyn Lease> {
    let name = node.name.clone();
    let lease = tokio::time::timeout(SEEN, registrar.register(node)).await.expect("a registration ends");
    let lease = lease.unwrap_or_else(|error| panic!("{name} cannot be registered: {error}"));
    assert!(lease.is_held(), "the lease of {name} is held");
    lease
}

/// Looks until something is as it should be.
async fn until<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, look: impl AsyncFn() -> T) {
    let mut seen = None;
    let looked = tokio::time::timeout(SEEN, async {
        loop {
            let now = look().await;
            if now == expected {
                return;
            }
            seen = Some(now);
            tokio::time::sleep(LOOK).await;
        }
    });
    if looked.await.is_err() {
        panic!("{what}: {seen:?} in place of {expected:?}, {SEEN:?} later");
    }
}

async fn found(resolver: &dyn Resolver, name: &NodeName, expected: &[Endpoint]) {
    until(&format!("the endpoints of {name}"), Ok(expected.to_vec()), async || resolver.resolve(name).await).await;
}

async fn serve(resolver: &dyn Resolver, service: &ServiceName, expected: &[Serving]) {
    let what = format!("the nodes that serve {service}");
    until(&what, Ok(expected.to_vec()), async || resolver.serving(service).await).await;
}

async fn leads(resolver: &dyn Resolver, name: &NodeName, expected: &[NodeName]) {
    until(&format!("the gateways to {name}"), Ok(expected.to_vec()), async || resolver.gateways(name).await).await;
}

async fn listed(resolver: &dyn Resolver, expected: &[&Registration]) {
    if resolver.nodes().await == Err(crate::ResolveError::NoList) {
        return;
    }
    let expected = Ok(expected.iter().copied().cloned().collect::<Vec<_>>());
    until("the list of all nodes", expected, async || resolver.nodes().await).await;
}

async fn next(watch: &mut Watch) -> Change {
    tokio::time::timeout(SEEN, watch.next()).await.expect("a change is told")
}

async fn told(watch: &mut Option<Watch>, expected: Change) {
    if let Some(watch) = watch {
        assert_eq!(next(watch).await, expected, "the next change that is told");
    }
}
