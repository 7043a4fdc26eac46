use std::net::SocketAddr;
use std::sync::Arc;

use trunkline::registrar::{Change, GivenRoute, RegisterError, Registrar, Resolver, Rule, Watch, conformance};
use trunkline::{
    AccessPattern, Address, Cookies, Grants, Node, NodeBuilder, NodeName, Offer, ResolverId, StartError, Told, Transit,
    TransitRule,
};
use trunkline_link::{Native, NativeLimits, REGISTRAR_WINDOW};
use trunkline_registrar_embedded::Embedded;
use trunkline_stack::{CallError, SendError};
use trunkline_tests::support::*;
use trunkline_wire::handshake::{Credential, Mode};

/// Returns a node that listens on the host in its name, with the embedded registrar there.
fn at_home(node: &str, registrar: SocketAddr) -> NodeBuilder {
    let listen = SocketAddr::new(registrar.ip(), 0);
    dialer(&format!("{node}@{}", registrar.ip())).listen(listen).embedded_registrar(registrar)
}

async fn connects(from: &Node, to: &Node) {
    let connection = soon(from.connect(to.name().clone())).await.unwrap();
    assert_eq!(connection.info().address, address(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_without_a_static_route_the_embedded_registrar_is_asked_and_needs_no_other_process() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let app = start(at_home("app", registrar)).await;
    connects(&app, &db).await;
    assert!(db.status().serves_registrar && !app.status().serves_registrar);
    assert_eq!((db.status().registered, app.status().registered), (Some(true), Some(true)));
    assert_eq!(db.status().registrar_queries, 1);
    until(|| db.connection(app.name()).is_some()).await;
    let back = soon(db.connect(app.name().clone())).await.unwrap();
    assert_eq!(back.info().id, app.connection(db.name()).unwrap().info().id, "one link, whoever asks");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_registrar_on_the_host_in_the_name_is_asked() {
    let here = own_address();
    let there = SocketAddr::new(own_host().into(), here.port());
    let (db, app) = (start(at_home("db", there)).await, start(at_home("app", here)).await);
    connects(&app, &db).await;
    assert_eq!((db.status().registrar_queries, app.status().registrar_queries), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_hidden_node_and_a_client_find_others_but_are_not_found() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let client = dialer(&format!("cli@{}", registrar.ip())).embedded_registrar_client(registrar);
    let (hidden, client) = (start(at_home("hidden", registrar).hidden(true)).await, start(client).await);
    connects(&hidden, &db).await;
    connects(&client, &db).await;
    let app = start(at_home("app", registrar)).await;
    no_route(soon(app.connect(hidden.name().clone())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_registrar_with_another_cookie_is_reported_at_start() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let started = soon(at_home("app", registrar).cookie(cookie("others")).start()).await;
    let error = started.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Registrar(RegisterError::WrongCookie(_))), "{error}");
    assert!(error.to_string().contains(&registrar.to_string()), "{error}");
    assert_eq!(db.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_name_that_a_live_node_holds_is_refused() {
    let registrar = own_address();
    let first = start(at_home("db", registrar)).await;
    let app = start(at_home("app", registrar)).await;
    for holder in [&first, &app] {
        let error = soon(at_home(holder.name().name(), registrar).start()).await.map(drop).unwrap_err();
        let StartError::Registrar(RegisterError::Taken { name, endpoints }) = &error else { panic!("{error}") };
        assert_eq!((name, &endpoints[0].address.to_string()), (holder.name(), &holder.listening()[0].to_string()));
        let shown = trunkline::Chain(&error).to_string();
        assert!(shown.contains(&format!("which listens at {}", holder.listening()[0])), "{shown}");
    }
    assert_eq!(first.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_when_the_node_that_served_dies_the_others_register_anew_and_are_found() {
    let registrar = own_address();
    let server = start(at_home("first", registrar)).await;
    let (db, app) = (start(at_home("db", registrar)).await, start(at_home("app", registrar)).await);
    assert!(server.status().serves_registrar);
    drop(server);
    let served = || [&db, &app].iter().filter(|node| node.status().serves_registrar).count();
    let registered = || [&db, &app].iter().all(|node| node.status().registered == Some(true));
    until(|| served() == 1 && registered()).await;
    connects(&app, &db).await;
}

fn embedded(node: &Node) -> &dyn Resolver {
    &*node.resolvers()[&ResolverId::new("embedded").unwrap()]
}

async fn names(resolver: &dyn Resolver) -> Vec<NodeName> {
    soon(resolver.nodes()).await.unwrap().into_iter().map(|node| node.name).collect()
}

/// Waits for the next change, and returns its kind and the name that it is about.
async fn next(watch: &mut Watch) -> (&'static str, String) {
    match soon(watch.next()).await {
        Change::Joined(node) => ("joined", node.name.name().into()),
        Change::Changed(node) => ("changed", node.name.name().into()),
        Change::Left(name) => ("left", name.name().into()),
        Change::Current => ("current", String::new()),
        Change::Lost => ("lost", String::new()),
        Change::Back => ("back", String::new()),
        other => panic!("{other:?}"),
    }
}

fn is<'a>(kind: &'a str, name: &str) -> (&'a str, String) {
    (kind, name.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_nodes_of_a_host_are_listed_and_each_change_is_told_at_the_node_that_serves_and_at_any_other() {
    let registrar = own_address();
    let app = start(at_home("app", registrar)).await;
    let db = start(at_home("db", registrar)).await;
    let lab = Address::new(registrar.ip().to_string(), registrar.port()).unwrap();
    let id = ResolverId::new("lab").unwrap();
    let far = start(dialer("far@127.0.0.9").no_registrar().registrar_at(id.clone(), lab, None)).await;
    let resolvers = [embedded(&app), embedded(&db), &*far.resolvers()[&id]];
    for resolver in resolvers {
        assert_eq!(names(resolver).await, [app.name().clone(), db.name().clone()]);
        let mut watch = resolver.watch().unwrap();
        let told = [next(&mut watch).await, next(&mut watch).await, next(&mut watch).await];
        assert_eq!(told, [is("joined", "app"), is("joined", "db"), is("current", "")]);
        let other = start(at_home("other", registrar)).await;
        assert_eq!(next(&mut watch).await, is("joined", "other"));
        drop(other);
        assert_eq!(next(&mut watch).await, is("left", "other"));
    }
    // A registrar of another host that was asked for a name is one of the known ones.
    let there = SocketAddr::new(own_host().into(), registrar.port());
    let remote = start(at_home("remote", there)).await;
    connects(&app, &remote).await;
    assert_eq!(names(embedded(&app)).await.len(), 3);
    assert_eq!(names(embedded(&remote)).await, [remote.name().clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_watch_outlives_the_node_that_serves_and_tells_of_no_node_that_comes_back() {
    let registrar = own_address();
    let first = start(at_home("first", registrar)).await;
    let (app, _db) = (start(at_home("app", registrar)).await, start(at_home("db", registrar)).await);
    let mut watch = embedded(&app).watch().unwrap();
    for told in [is("joined", "app"), is("joined", "db"), is("joined", "first"), is("current", "")] {
        assert_eq!(next(&mut watch).await, told);
    }
    // A machine that is busy may be late with the others.
    let next_of = async |watch: &mut Watch| loop {
        let told = next(watch).await;
        if !["app", "db"].contains(&&*told.1) {
            return told;
        }
    };
    drop(first);
    // It leaves before its registrar does, or with it.
    let mut told = vec![next_of(&mut watch).await];
    while told.last() != Some(&is("current", "")) {
        told.push(next_of(&mut watch).await);
    }
    told.sort();
    assert_eq!(told, [is("back", ""), is("current", ""), is("left", "first"), is("lost", "")]);
    let other = start(at_home("other", registrar)).await;
    assert_eq!(next_of(&mut watch).await, is("joined", "other"));
    drop(other);
    assert_eq!(next_of(&mut watch).await, is("left", "other"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_session_with_the_registrar_takes_no_more_than_its_questions_need() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let cookie = cookie("all");
    let session = super::e_refusal::dials("app@elsewhere", db.name(), registrar, Mode::Registrar, cookie).await;
    let ask = async |body: &[u8]| soon(session.call("$registrar", "", body, PATIENCE)).await;
    let resolve = [&[1, 1, db.name().as_str().len() as u8], db.name().as_str().as_bytes()].concat();
    assert!(ask(&resolve).await.is_ok());
    let most = REGISTRAR_WINDOW.max_message;
    assert!(ask(&vec![1; most]).await.is_ok(), "it is answered that this cannot be read");
    let too_large = CallError::NotSent(SendError::TooLarge { len: most + 1, limit: most });
    assert_eq!(ask(&vec![1; most + 1]).await, Err(too_large));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_embedded_registrar_passes_the_checks_of_registrars_whichever_node_serves() {
    let (registrar, secret) = (own_address(), cookie("all"));
    let host = registrar.ip().to_string();
    let make = async |node: NodeName| {
        let native = Native::new(node, NativeLimits::default());
        let of_sessions = secret.clone();
        let credentials = Box::new(move |_: &NodeName, _: &str| Credential::Cookie(of_sessions.clone()));
        let embedded = Embedded::start(native, registrar, secret.clone(), credentials).unwrap();
        Arc::new(embedded) as Arc<dyn Registrar>
    };
    conformance::check(&host, make).await;
}

fn given(pattern: &str, to: SocketAddr) -> GivenRoute {
    GivenRoute { pattern: pattern.into(), endpoint: endpoint(to) }
}

/// Returns the patterns of the static routes of a node, with their weights.
fn routes(node: &Node) -> Vec<(String, i64)> {
    node.routes().iter().map(|entry| (entry.pattern().as_str().to_owned(), entry.weight())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_the_routes_of_the_registrar_come_with_the_lease_of_announced_and_hidden_nodes_and_end_with_it() {
    let registrar = own_address();
    let db = start(listener("db@elsewhere")).await;
    let grants = Grants {
        routes: vec![given("^db@", address(&db)), given("^own@", nobody()), given("(", nobody())],
        ..Grants::default()
    };
    let serving = start(at_home("serving", registrar).registrar_grants(grants)).await;
    let app = |node: &str| at_home(node, registrar).route("^own@", route_to(&db), 5);
    let (app, hidden) = (start(app("app")).await, start(app("hidden").hidden(true)).await);
    assert_eq!(hidden.status().registered, None);
    for node in [&app, &hidden] {
        assert_eq!(routes(node), [("^own@".into(), 5), ("^db@".into(), 0)], "the pattern that is taken is left out");
        let connection = soon(node.connect("db@elsewhere")).await.unwrap();
        assert_eq!(connection.info().address, address(&db));
        let own = node.routes().get("^own@").unwrap().value().clone();
        assert_eq!(own, route_to(&db).into(), "the user's own stays as it is");
    }
    // The node that serves has them as well. Its own announcement is withdrawn with its end, and so are the routes.
    assert_eq!(routes(&serving), [("^db@".into(), 0), ("^own@".into(), 0)]);
    crash(serving).await;
    until(|| [&app, &hidden].iter().all(|node| routes(node) == [("^own@".into(), 5)])).await;
    // With the session ends the lease, also where nobody takes over.
    let grants = || Grants { routes: vec![given("^db@", address(&db))], ..Grants::default() };
    let alone = own_address();
    let serving = start(at_home("serving", alone).registrar_grants(grants())).await;
    let client = dialer(&format!("client@{}", alone.ip())).embedded_registrar_client(alone);
    let client = start(client).await;
    assert_eq!(routes(&client), [("^db@".into(), 0)]);
    crash(serving).await;
    until(|| routes(&client).is_empty()).await;
    // A route of the user that took the place of one that was handed out stays.
    let other = own_address();
    let serving = start(at_home("serving", other).registrar_grants(grants())).await;
    let late = start(at_home("late", other)).await;
    late.remove_route("^db@").unwrap();
    late.add_route("^db@", route_to(&db), 7).unwrap();
    crash(serving).await;
    until(|| late.status().registered == Some(true) && late.status().serves_registrar).await;
    assert_eq!(routes(&late), [("^db@".into(), 7)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_a_registrar_say_who_may_have_which_names_gateways_and_services() {
    let registrar = own_address();
    let pattern = |text: &str| AccessPattern::new(text).unwrap();
    let of_dbs = || cookie("of the databases").labelled("dbs").unwrap();
    let rules = vec![
        Rule { cookie: Some("dbs".into()), services: Some(vec!["pg".into()]), ..Rule::new(pattern("db-.*@.*")) },
        Rule { gateways: vec!["inside-.*@.*".into()], ..Rule::new(pattern("gate@.*")) },
        Rule::new(pattern("app-.*@.*")),
    ];
    let cookies = || Cookies::new(cookie("all")).also(of_dbs());
    let grants = Grants { rules, ..Grants::default() };
    let serving = at_home("serving", registrar).cookie(cookies()).registrar_grants(grants);
    let serving = start(serving).await;
    let refused = async |builder: NodeBuilder, telling: &str| {
        let error = soon(builder.start()).await.map(drop).unwrap_err();
        let StartError::Registrar(RegisterError::Refused(text)) = &error else { panic!("{error}") };
        assert!(text.contains(telling), "{text}");
    };
    let offer = |service: &str| Offer::new(service.parse().unwrap());
    let gate = |to: &str| {
        let rules = vec![TransitRule::new(pattern(".*"), pattern(to))];
        at_home("gate", registrar).transit(Transit { rules, ..Transit::default() })
    };
    let _app = start(at_home("app-1", registrar).offer(offer("any"))).await;
    refused(at_home("other", registrar), "lets this node have the name other@").await;
    refused(at_home("db-1", registrar), "lets this node have the name db-1@").await;
    let db = start(at_home("db-1", registrar).cookie(of_dbs()).offer(offer("pg"))).await;
    // What a node that runs may not announce changes nothing, and what it may goes on.
    let refused_later = soon(db.offer(offer("web"))).await.unwrap_err();
    assert!(refused_later.to_string().contains("serve web"), "{refused_later}");
    assert_eq!((db.offers(), db.status().registered), (vec![offer("pg")], Some(true)));
    let drained = Offer { weight: 0, ..offer("pg") };
    assert_eq!(soon(db.offer(drained.clone())).await, Ok(Told::Now));
    let any = "@pg".parse().unwrap();
    assert_eq!(soon(serving.serving(&any)).await.nodes[0].0.weight, 0);
    refused(at_home("db-2", registrar).cookie(of_dbs()).offer(offer("web")), "serve web").await;
    refused(gate("anything@.*"), "lead to anything@.* as a gateway").await;
    let _gate = start(gate("inside-.*@.*")).await;
    assert_eq!(names(embedded(&serving)).await.len(), 4, "nothing else is announced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_announcement_while_the_registrar_is_lost_is_told_once_it_is_back() {
    let registrar = own_address();
    let serving = start(at_home("serving", registrar)).await;
    let listen = SocketAddr::new(registrar.ip(), 0);
    let db = dialer(&format!("db@{}", registrar.ip())).listen(listen).embedded_registrar_client(registrar);
    let db = start(db).await;
    crash(serving).await;
    until(|| db.status().registered == Some(false)).await;
    let offer = Offer::new("pg".parse().unwrap());
    assert_eq!(soon(db.offer(offer.clone())).await, Ok(Told::Later));
    let serving = start(at_home("serving", registrar)).await;
    until(|| db.status().registered == Some(true)).await;
    let any = "@pg".parse().unwrap();
    assert_eq!(soon(serving.serving(&any)).await.nodes[0].0.node, *db.name());
    // A node without a registrar, and a hidden one, tell nobody.
    let alone = start(dialer("alone@lab")).await;
    let hidden = start(at_home("hidden", registrar).hidden(true)).await;
    for node in [&alone, &hidden] {
        assert_eq!(soon(node.offer(offer.clone())).await, Ok(Told::Nobody));
        assert_eq!(node.offers(), vec![offer.clone()]);
    }
    assert_eq!(names(embedded(&serving)).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_node_that_serves_is_killed_a_hundred_times_and_no_connection_ends_and_every_name_is_found_again() {
    let registrar = own_address();
    let serving = |node: &str| at_home(node, registrar);
    let [mut one, two] = [start(serving("one")).await, start(serving("two")).await];
    let mut other = two;
    // These two never serve.
    let stays = |node: &str| {
        let listen = SocketAddr::new(registrar.ip(), 0);
        dialer(&format!("{node}@{}", registrar.ip())).listen(listen).embedded_registrar_client(registrar)
    };
    let (app, db) = (start(stays("app")).await, start(stays("db")).await);
    let link = soon(app.connect(db.name().clone())).await.unwrap().info().id;
    let mut watch = embedded(&app).watch().unwrap();
    for nth in 0..100 {
        if !one.status().serves_registrar {
            std::mem::swap(&mut one, &mut other);
        }
        assert!(one.status().serves_registrar, "{nth}");
        let killed = one.name().name().to_owned();
        crash(one).await;
        until(|| other.status().serves_registrar).await;
        until(|| [&app, &db, &other].iter().all(|node| node.status().registered == Some(true))).await;
        // Asked at the registrar, and from the copy.
        let found = soon(embedded(&app).resolve(db.name())).await.unwrap();
        assert_eq!(found[0].address.to_string(), address(&db).to_string());
        one = start(serving(&killed)).await;
    }
    // What the watch told is what is there.
    let mut told = std::collections::BTreeSet::new();
    let all =
        || [&app, &db, &one, &other].iter().map(|node| node.name().clone()).collect::<std::collections::BTreeSet<_>>();
    soon(async {
        while told != all() {
            match watch.next().await {
                Change::Joined(node) => drop(told.insert(node.name.clone())),
                Change::Left(name) => drop(told.remove(&name)),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(app.connection(db.name()).unwrap().info().id, link, "the connection is the one of the beginning");
}
