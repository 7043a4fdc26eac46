//! Routes that ask a resolver.

use std::sync::Arc;
use std::time::Duration;

use trunkline::registrar::{BoxFuture, ResolveError, Resolver};
use trunkline::{
    AttemptError, Endpoint, EndpointOverride, Host, NetworkRoute, NodeName, Origin, Policy, StartError, TlsMode,
    Version,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

fn by(resolver: &str) -> trunkline_route::NetworkRouteBuilder<trunkline_route::Resolved> {
    NetworkRoute::resolved_by(resolver_id(resolver))
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_a_route_with_a_resolver_asks_that_one_and_not_the_registrar() {
    let (db, web) = (start(listener(DB)).await, start(listener("web@127.0.0.1")).await);
    let registrar = Discovery::new();
    let (one, two) = (Discovery::of(DB, &[address(&db)]), Discovery::of("web@127.0.0.1", &[address(&web)]));
    let app = asking("app@127.0.0.1", &registrar)
        .resolver(resolver_id("one"), one.clone())
        .resolver(resolver_id("two"), two.clone())
        .route("^db@", by("one"), 1)
        .route("^web@", by("two"), 1);
    let app = start(app).await;
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().address, address(&db));
    assert_eq!(soon(app.connect("web@127.0.0.1")).await.unwrap().info().address, address(&web));
    assert_eq!((one.asked(), two.asked()), (vec![name(DB)], vec![name("web@127.0.0.1")]));
    assert_eq!(registrar.asked(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_the_embedded_registrar_of_another_place_is_a_resolver_by_its_id() {
    let there = own_address();
    let name = format!("db@{}", there.ip());
    let db = start(dialer(&name).listen(loopback()).embedded_registrar(there)).await;
    let at = endpoint(there).address;
    let app = dialer("app@127.0.0.1").registrar_at(resolver_id("there"), at, None).route("^db@", by("there"), 1);
    let app = start(app).await;
    let connection = soon(app.connect(name.as_str())).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    assert_eq!(db.status().registrar_queries, 1);
    // A registrar can be used without a route: as discovery for every name. It is then asked only, and receives no
    // registration.
    let asks =
        dialer("asks@127.0.0.1").listen(loopback()).registrar_at(resolver_id("there"), endpoint(there).address, None);
    let asks = start(asks.discovery(resolver_id("there"))).await;
    soon(asks.connect(name.as_str())).await.unwrap();
    assert_eq!((db.status().registrar_queries, asks.status().registered), (2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_the_routes_own_fields_override_the_answer_and_the_rest_is_the_answers() {
    let host = own_host();
    let ours = authority();
    let db = dialer(DB).listen(trunkline::Listen::at(std::net::SocketAddr::from((host, 0))));
    let db = start(db).await;
    let good = address(&db);
    let elsewhere = std::net::SocketAddr::from((own_host(), good.port()));
    let wrong_port = std::net::SocketAddr::from((host, 1));
    let discovery = Discovery::new();
    let app = |over: EndpointOverride| {
        let route = by("r").tls_profile(profile_id("ours")).overriding(over);
        dialer("app@127.0.0.1")
            .resolver(resolver_id("r"), discovery.clone())
            .tls_profile(profile_id("ours"), trusting(&ours))
            .route("^db@", route, 1)
    };
    let none = EndpointOverride::default;
    let over_host = EndpointOverride { host: Some(Host::new(host.to_string()).unwrap()), ..none() };
    let over_port = EndpointOverride { port: std::num::NonZeroU16::new(good.port()), ..none() };
    for (answer, over) in [(good, none()), (elsewhere, over_host), (wrong_port, over_port)] {
        discovery.set(DB, &[answer]);
        let node = start(app(over)).await;
        assert_eq!(soon(node.connect(DB)).await.unwrap().info().address, good);
        soon(node.shut_down(PATIENCE)).await;
    }

    // TLS is required by the route: an answer that disables it does not help the self-signed listener.
    let forced = EndpointOverride { tls: Some(true), ..none() };
    let lax = Endpoint { tls: Some(false), ..endpoint(good) };
    discovery.set_endpoints(DB, vec![lax]);
    let error = no_route(soon(start(app(forced.clone())).await.connect(DB)).await);
    assert_eq!(error.attempts[0].error.stage(), "tls", "{error}");
    let certified = start(certified(&ours, DB)).await;
    discovery.set_endpoints(DB, vec![Endpoint { tls: Some(false), ..endpoint(address(&certified)) }]);
    let node = start(app(forced)).await;
    assert_eq!(soon(node.connect(DB)).await.unwrap().info().tls, TlsMode::Verify(Some(profile_id("ours"))));

    // The version of the answer applies unless the route has one.
    let strange = Endpoint { version: Some(Version::native(9)), ..endpoint(good) };
    discovery.set_endpoints(DB, vec![strange]);
    let error = no_route(soon(start(app(none())).await.connect(DB)).await);
    assert!(error.attempts[0].error.to_string().contains("TLK/9"), "{error}");
    let own = EndpointOverride { version: Some(Version::native(1)), ..none() };
    soon(start(app(own)).await.connect(DB)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_many_answers_are_tried_in_order_each_under_the_routes_demands() {
    let (ours, secret) = (authority(), || cookie("this route"));
    let other_cookie = start(certified(&ours, DB)).await;
    let other_authority = start(certified(&authority(), DB).cookie(secret())).await;
    let db = start(certified(&ours, DB).cookie(secret())).await;
    let (heavier_route, spare) = (Door::to(address(&db)).await, Door::to(address(&db)).await);
    let tried = [nobody(), address(&other_cookie), address(&other_authority), heavier_route.address, spare.address];
    let discovery = Discovery::of(DB, &tried);
    let demanding = by("r").tls(true).tls_profile(profile_id("ours")).cookie(secret());
    let app = dialer("app@127.0.0.1")
        .resolver(resolver_id("r"), discovery)
        .tls_profile(profile_id("ours"), trusting(&ours))
        .route("^db@", demanding, 2)
        .route("db", route_to(&db).cookie(secret()), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    let failed = up(&mut events, DB).await;
    assert_eq!(addresses(&failed), tried[..3].iter().map(ToString::to_string).collect::<Vec<_>>());
    let stages: Vec<_> = failed.iter().map(|record| record.error.stage()).collect();
    assert_eq!(stages, ["tcp", "handshake", "tls"]);
    assert_eq!(failed[1].error, AttemptError::WrongCookie);
    let origin = Origin::StaticResolved { pattern: "^db@".into(), resolver: resolver_id("r") };
    assert!(failed.iter().all(|record| record.origin == origin));
    let info = connection.info();
    assert_eq!(
        (info.address.socket(), info.tls),
        (Some(heavier_route.address), TlsMode::Verify(Some(profile_id("ours"))))
    );
    assert_eq!((info.cookie, spare.accepted()), (secret(), 0));
}

/// Resolver that fails, or never answers.
#[derive(Debug)]
struct Sick(bool);

impl Resolver for Sick {
    fn resolve<'a>(&'a self, _: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        let hangs = self.0;
        Box::pin(async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            Err(ResolveError::Failed("it is out of order".into()))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_resolver_that_fails_hangs_or_knows_nothing_is_a_failed_attempt_and_the_next_route_follows() {
    let db = start(listener(DB)).await;
    let policy = Policy { resolve: Duration::from_millis(100), ..Policy::default() };
    let app = dialer("app@127.0.0.1")
        .policy(policy)
        .resolver(resolver_id("fails"), Arc::new(Sick(false)))
        .resolver(resolver_id("hangs"), Arc::new(Sick(true)))
        .resolver(resolver_id("knows-nothing"), Discovery::new())
        .route("^db@", by("fails"), 40)
        .route("db@", by("hangs"), 30)
        .route("db", by("knows-nothing"), 20)
        .route("d", route_to(&db), 10);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    let failed = up(&mut events, DB).await;
    assert_eq!(failed.len(), 3);
    assert!(failed[0].to_string().contains("it is out of order"), "{}", failed[0]);
    assert_eq!(failed[1].error, AttemptError::ResolveTimeout(policy.resolve));
    assert_eq!(failed[2].error, AttemptError::ResolveEmpty);
    assert!(failed.iter().all(|record| record.error.stage() == "resolve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resolver_of_discovery_is_asked_in_the_order_added_and_before_the_registrar() {
    let db = start(dialer(DB).listen("127.0.0.1:0")).await;
    let [first, second] = [Discovery::new(), Discovery::new()];
    let registrar = Discovery::of(DB, &[address(&db)]);
    let app = asking("app@127.0.0.1", &registrar)
        .resolver(resolver_id("first"), first.clone())
        .resolver(resolver_id("second"), second.clone())
        .discovery(resolver_id("first"))
        .discovery(resolver_id("second"));
    let app = start(app).await;
    soon(app.connect(DB)).await.unwrap();
    assert_eq!((first.asked().len(), second.asked().len(), registrar.asked().len()), (1, 1, 1));
    let origins: Vec<_> = app.explain(DB).unwrap().steps.iter().map(|step| step.origin.to_string()).collect();
    let at = |id: &str| origins.iter().position(|origin| origin.contains(id));
    assert!(at("first") < at("second") && at("second") < at("counted") && at("first").is_some(), "{origins:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_two_registrars_or_an_unusable_argument_does_not_start() {
    let two = asking("app@127.0.0.1", &Discovery::new()).embedded_registrar(own_address());
    assert!(matches!(two.start().await, Err(StartError::RegistrarConflict)));
    let taken_back = asking("app@127.0.0.1", &Discovery::new()).no_registrar();
    assert!(matches!(taken_back.start().await, Err(StartError::RegistrarConflict)));
    let error = dialer("app@127.0.0.1").listen("localhost").start().await.unwrap_err();
    assert!(error.to_string().contains("cannot listen at \"localhost\"; write an IP address and a port"), "{error}");
    let error = dialer("app@127.0.0.1").cookie("short").start().await.unwrap_err();
    assert!(matches!(error, StartError::Cookie(_)), "{error}");
}
