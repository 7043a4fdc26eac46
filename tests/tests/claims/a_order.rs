use std::time::Duration;

use trunkline::{Origin, Reason};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_static_route_that_connects_never_asks_the_registrar() {
    let db = start(listener(DB)).await;
    let discovery = Discovery::of(DB, &[address(&db)]);
    let app = start(asking("app@127.0.0.1", &discovery).route("^db@", route_to(&db), 10)).await;
    soon(app.connect(DB)).await.unwrap();
    assert_eq!(discovery.asked(), []);
    app.remove_route("^db@").unwrap();
    soon(app.connect(DB)).await.unwrap();
    assert_eq!(discovery.asked(), [], "a live connection needs no route");
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_the_embedded_registrar_counts_no_question_either() {
    let registrar = own_address();
    let at_home = |node: &str| format!("{node}@{}", registrar.ip());
    let db = start(dialer(&at_home("db")).listen(loopback()).embedded_registrar(registrar)).await;
    let app = start(dialer(&at_home("app")).embedded_registrar(registrar).route("^db@", route_to(&db), 10)).await;
    assert!(db.status().serves_registrar);
    soon(app.connect(at_home("db").as_str())).await.unwrap();
    assert_eq!((db.status().registrar_queries, app.status().registrar_queries), (0, 0));
    no_route(soon(app.connect(at_home("nobody").as_str())).await);
    assert_eq!(db.status().registrar_queries, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_discovered_addresses_are_tried_in_the_order_returned() {
    let db = start(listener(DB)).await;
    let (first, second) = (nobody(), nobody());
    let spare = Door::to(address(&db)).await;
    let discovery = Discovery::of(DB, &[first, second, address(&db), spare.address]);
    let app = start(asking("app@127.0.0.1", &discovery)).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    let failed = up(&mut events, DB).await;
    assert_eq!(addresses(&failed), [first.to_string(), second.to_string()]);
    assert!(failed.iter().all(|r| r.origin == Origin::Discovered { resolver: resolver_id("counted") }));
    assert_eq!(connection.info().address, address(&db));
    assert_eq!((discovery.asked().len(), spare.accepted()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_when_every_static_route_failed_the_registrar_is_asked() {
    let db = start(listener(DB)).await;
    let discovery = Discovery::of(DB, &[address(&db)]);
    let (heavy, light) = (nobody(), nobody());
    let app = asking("app@127.0.0.1", &discovery).route("^db@", route_at(light), 10).route("db", route_at(heavy), 20);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(addresses(&up(&mut events, DB).await), [heavy.to_string(), light.to_string()]);
    assert_eq!(discovery.asked(), [name(DB)]);
    assert_eq!(connection.info().address, address(&db));
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_no_route_carries_every_attempt_in_order_with_cause_and_duration() {
    let other_cookie = start(listener(DB).cookie(cookie("others"))).await;
    let silent = Door::silent().await;
    let (refused, discovered) = (nobody(), nobody());
    let discovery = Discovery::of(DB, &[discovered]);
    let app = asking("app@127.0.0.1", &discovery)
        .route("^db@", route_at(refused), 30)
        .route("^db", route_to(&other_cookie), 20)
        .route("db", route_at(silent.address), 10)
        .times(short_times());
    let app = start(app).await;
    let error = no_route(soon(app.connect(DB)).await);
    assert_eq!((error.target.as_str(), error.reason), (DB, Reason::AllFailed));
    let wanted = [refused, address(&other_cookie), silent.address, discovered].map(|a| a.to_string());
    assert_eq!(addresses(&error.attempts), wanted);
    let stages: Vec<_> = error.attempts.iter().map(|r| r.error.stage()).collect();
    assert_eq!(stages, ["tcp", "handshake", "tls", "tcp"]);
    assert_eq!(error.attempts[1].error, trunkline::AttemptError::WrongCookie);
    assert!(error.attempts.iter().all(|r| r.took > Duration::ZERO), "{error}");
    assert!(error.attempts[2].took >= short_times().tls, "{error}");
    assert!(error.attempts.windows(2).all(|w| w[0].began + w[0].took <= w[1].began), "{error}");
    let shown = error.to_string();
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?} in {shown}"));
    assert!(wanted.windows(2).all(|w| at(&w[0]) < at(&w[1])), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_an_empty_answer_of_the_registrar_is_an_attempt_too() {
    let discovery = Discovery::new();
    let app = start(asking("app@127.0.0.1", &discovery)).await;
    let error = no_route(soon(app.connect(DB)).await);
    assert_eq!((error.attempts.len(), error.attempts[0].error.stage()), (1, "resolve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_fallback_never_on_any_route_makes_the_static_routes_the_whole_answer() {
    let db = start(listener(DB)).await;
    let discovery = Discovery::of(DB, &[address(&db)]);
    let hosts = [nobody(), nobody(), nobody()];
    for never in 0..3 {
        let mut app = asking("app@127.0.0.1", &discovery);
        for (n, host) in hosts.iter().enumerate() {
            let route = route_at(*host);
            let route = if n == never { route.fallback_never() } else { route };
            app = app.route(["^db", "db@", "d"][n], route, 30 - n as i64);
        }
        let app = start(app).await;
        let error = no_route(soon(app.connect(DB)).await);
        assert_eq!(addresses(&error.attempts), hosts.map(|h| h.to_string()));
        assert_eq!(error.reason, Reason::AllFailed);
        assert!(app.explain(DB).unwrap().static_only);
    }
    assert_eq!(discovery.asked(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_fallback_never_of_a_route_for_other_names_changes_nothing() {
    let db = start(listener(DB)).await;
    let discovery = Discovery::of(DB, &[address(&db)]);
    let other = route_at(nobody()).fallback_never();
    let app = asking("app@127.0.0.1", &discovery).route("^db@", route_at(nobody()), 1).route("^web@", other, 1);
    soon(start(app).await.connect(DB)).await.unwrap();
    assert_eq!(discovery.asked(), [name(DB)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_discovered_address_is_dialled_under_the_cookie_of_the_route() {
    let node_cookie = start(listener(DB)).await;
    let discovery = Discovery::of(DB, &[address(&node_cookie)]);
    let route = route_at(nobody()).cookie(cookie("the route"));
    let app = start(asking("app@127.0.0.1", &discovery).route("^db@", route, 10)).await;
    let error = no_route(soon(app.connect(DB)).await);
    let last = error.attempts.last().unwrap();
    assert_eq!(last.error, trunkline::AttemptError::WrongCookie);
    assert_eq!(last.socket, Some(address(&node_cookie)));

    let route_cookie = start(listener(DB).cookie(cookie("the route"))).await;
    discovery.set(DB, &[address(&route_cookie)]);
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&route_cookie));
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_discovered_address_is_dialled_under_the_certificate_demands_of_the_route() {
    let ours = authority();
    let (self_signed, certified) = (start(listener(DB)).await, start(certified(&ours, DB)).await);
    let discovery = Discovery::of(DB, &[address(&self_signed)]);
    let (id, profile) = (profile_id("ours"), trusting(&ours));
    let route = route_at(nobody()).tls(true).tls_profile(id.clone());
    let app = asking("app@127.0.0.1", &discovery).tls_profile(id, profile).route("^db@", route, 10);
    let app = start(app).await;
    let error = no_route(soon(app.connect(DB)).await);
    assert_eq!(error.attempts.last().unwrap().error.stage(), "tls", "{error}");
    // A resolver that says that the listener has no certificate does not disable the route's check.
    let mut lax = endpoint(address(&self_signed));
    lax.tls = Some(false);
    discovery.set_endpoints(DB, vec![lax, endpoint(address(&certified))]);
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!(connection.info().address, address(&certified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_c6_a_found_address_is_dialled_under_the_flags_mapping_and_log_level_of_the_route() {
    let db = start(listener(DB)).await;
    let mut echo = db.register("echo").unwrap();
    let asked = Discovery::of(DB, &[nobody(), address(&db)]);
    let mapping = || trunkline::AtomMapping::new([("local", "echo")]).unwrap();
    let flag = trunkline::Flag::RemoteSpawn;
    for route in [
        trunkline::NetworkRoute::from(
            route_at(nobody()).flag(flag, false).atom_mapping(mapping()).log_level(trunkline::LogLevel::Error),
        ),
        trunkline::NetworkRoute::resolved_by(resolver_id("own"))
            .flag(flag, false)
            .atom_mapping(mapping())
            .log_level(trunkline::LogLevel::Error)
            .build(),
    ] {
        let app = asking("app@127.0.0.1", &asked).resolver(resolver_id("own"), asked.clone());
        let app = start(app.route("^db@", route, 10)).await;
        let connection = soon(app.connect(DB)).await.unwrap();
        let info = connection.info();
        assert_eq!((info.address.socket(), info.flags.has(flag)), (Some(address(&db)), false));
        assert_eq!(info.log_level, trunkline::LogLevel::Error);
        soon(connection.send("local", "", b"mapped")).await.unwrap();
        assert_eq!(text(&mut echo).await, "mapped");
        let refused = soon(app.spawn_on(DB, "anything", &trunkline::Term::from(0), PATIENCE)).await;
        assert!(refused.is_err_and(|error| error.to_string().contains("remote_spawn")));
        soon(app.shut_down(PATIENCE)).await;
    }
}
