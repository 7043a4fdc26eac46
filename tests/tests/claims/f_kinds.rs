//! The claims about discovery, with registrars of each kind.

use std::net::SocketAddr;
use std::sync::Arc;

use trunkline::registrar::{NamesFile, Registrar, Registration, Resolver};
use trunkline::{
    AccessPattern, AnyOf, EndpointOverride, NetworkRoute, Node, NodeName, Offer, Serves, TlsMode, Transit, TransitRule,
};
use trunkline_link::{Native, NativeLimits};
use trunkline_registrar_dns::{Dns, DnsSettings};
use trunkline_registrar_embedded::Embedded;
use trunkline_tests::etcd::Member;
use trunkline_tests::name_server::{NameServer, Rr};
use trunkline_tests::support::*;
use trunkline_wire::handshake::Credential;

/// Registrar of one kind that announces some nodes, and whatever keeps it alive.
struct Kind {
    resolver: Arc<dyn Resolver>,
    _kept: Box<dyn std::any::Any + Send>,
}

/// Address with a route, as tests see it.
fn ip_of(registration: &Registration, nth: usize) -> SocketAddr {
    registration.endpoints[nth].address.socket().expect("it is an IP address")
}

async fn registered(
    nodes: &[Registration],
    make: impl Fn(&NodeName) -> Arc<dyn Registrar>,
) -> (Vec<Box<dyn trunkline::registrar::Lease>>, Vec<Arc<dyn Registrar>>) {
    let (mut leases, mut registrars) = (Vec::new(), Vec::new());
    for node in nodes {
        let registrar = make(&node.name);
        leases.push(soon(registrar.register(node.clone())).await.unwrap());
        registrars.push(registrar);
    }
    (leases, registrars)
}

async fn embedded(nodes: &[Registration]) -> Kind {
    let address = own_address();
    let make = |node: &NodeName| -> Arc<dyn Registrar> {
        let native = Native::new(node.clone(), NativeLimits::default());
        let credentials = Box::new(|_: &NodeName, _: &str| Credential::Cookie(cookie("all")));
        Arc::new(Embedded::start(native, address, cookie("all"), credentials).unwrap())
    };
    let kept = registered(nodes, make).await;
    let reader = make(&name("reader@lab"));
    Kind { resolver: reader.resolver(), _kept: Box::new((kept, reader)) }
}

async fn etcd(nodes: &[Registration]) -> Kind {
    let member = Member::alone().await;
    let kept = registered(nodes, |_| Arc::new(member.registrar())).await;
    Kind { resolver: member.registrar().resolver(), _kept: Box::new((kept, member)) }
}

async fn file(nodes: &[Registration]) -> Kind {
    let directory = tempfile::tempdir().unwrap();
    let mut text = String::new();
    let gateways = nodes.iter().filter(|node| !node.leads_to.is_empty());
    let gateways: Vec<String> = gateways.map(|node| format!("{{ proxy: {} }}", node.name)).collect();
    for node in nodes {
        let at = |endpoint: &trunkline::Endpoint| {
            let tls = endpoint.tls.map(|tls| format!(", tls: {tls}")).unwrap_or_default();
            format!("{{ host: {}, port: {}{tls} }}", endpoint.address.host, endpoint.address.port)
        };
        let mut ways: Vec<String> = node.endpoints.iter().map(at).collect();
        // A file names the gateways of single names.
        if node.name.name() == "inside" {
            ways.extend(gateways.clone());
        }
        text += &format!("{}: [{}]\n", node.name, ways.join(", "));
    }
    // The nodes of a service stand under one key.
    let serving: Vec<String> = nodes
        .iter()
        .flat_map(|node| {
            node.offers.iter().map(move |offer| format!("{{ node: {}, weight: {} }}", node.name, offer.weight))
        })
        .collect();
    text += &format!("'@pg': [{}]\n", serving.join(", "));
    let path = directory.path().join("names.yaml");
    std::fs::write(&path, text).unwrap();
    Kind { resolver: Arc::new(NamesFile::new(path)), _kept: Box::new(directory) }
}

async fn dns(nodes: &[Registration]) -> Kind {
    let server = NameServer::start(60).await;
    for node in nodes {
        let records = node.endpoints.iter().enumerate().map(|(nth, _)| {
            let at = ip_of(node, nth);
            let target = format!("t{nth}.{}.lab", node.name.name());
            server.set(&target, vec![Rr::Ip(at.ip())]);
            Rr::Srv(u16::try_from(nth).unwrap(), 1, at.port(), format!("{target}."))
        });
        let records = records.collect();
        server.set(&format!("_{}._tcp.{}", node.name.name(), node.name.host()), records);
    }
    let names = |nodes: Vec<String>| vec![Rr::Txt(nodes)];
    let gateways = nodes.iter().filter(|node| !node.leads_to.is_empty()).map(|node| node.name.to_string());
    server.set("_gateways.inside.lab", names(gateways.collect()));
    let serving =
        nodes.iter().flat_map(|node| node.offers.iter().map(move |offer| format!("{} {}", node.name, offer.weight)));
    server.set("_pg.services.lab", names(serving.collect()));
    let settings = DnsSettings {
        servers: vec![server.address()],
        srv: "_{name}._tcp.{host}".parse().ok(),
        gateways: "_gateways.{name}.lab".parse().ok(),
        services: "_{name}.services.lab".parse().ok(),
        ..DnsSettings::default()
    };
    Kind { resolver: Arc::new(Dns::new(settings).unwrap()), _kept: Box::new(server) }
}

/// Nodes at one registrar: `db` with three addresses of which the last is right, `near` and `far` that lead to `inside`.
struct World {
    db: Node,
    inside: Node,
    near: Node,
    far: Node,
    registrations: Vec<Registration>,
    ours: trunkline::LabAuthority,
}

fn at(node: &str, addresses: &[SocketAddr]) -> Registration {
    Registration::new(name(node), addresses.iter().map(|address| endpoint(*address)).collect())
}

async fn world() -> World {
    let ours = authority();
    let db = start(certified(&ours, "db@lab")).await;
    let inside = start(listener("inside@lab")).await;
    let gate = async |text: &str| {
        let rules =
            vec![TransitRule::new(AccessPattern::new(".*").unwrap(), AccessPattern::new("inside@lab").unwrap())];
        let transit = Transit { rules, ..Transit::default() };
        start(listener(text).transit(transit).route("^inside@", route_to(&inside), 1)).await
    };
    let (near, far) = (gate("near@lab").await, gate("far@lab").await);
    let leads = || vec![AccessPattern::new("inside@.*").unwrap()];
    let pg = |weight| vec![Offer { weight, ..Offer::new("pg".parse().unwrap()) }];
    let registrations = vec![
        at("db@lab", &[nobody(), nobody(), address(&db)]).offering(pg(100)),
        at("far@lab", &[address(&far)]).leading_to(leads()).offering(pg(200)),
        at("near@lab", &[address(&near)]).leading_to(leads()).offering(pg(0)),
        at("inside@lab", &[nobody()]),
    ];
    World { db, inside, near, far, registrations, ours }
}

/// The claims that do not depend on the kind.
async fn holds(world: &World, kind: Kind) {
    let id = || resolver_id("kind");
    let app = || dialer("app@lab").resolver(id(), kind.resolver.clone()).discovery(id());
    let tried = |records: &[trunkline::Record]| addresses(records);
    let wrong: Vec<String> = (0..2).map(|nth| ip_of(&world.registrations[0], nth).to_string()).collect();

    // A2: no route, so the registrar's addresses are tried in its order.
    let node = start(app()).await;
    let mut events = node.events();
    let connection = soon(node.connect("db@lab")).await.unwrap();
    assert_eq!(connection.info().address, address(&world.db));
    assert_eq!(tried(&up(&mut events, "db@lab").await), wrong);
    soon(node.shut_down(PATIENCE)).await;

    // A3: after the routes that failed.
    let dead = nobody();
    let node = start(app().route("^db@", route_at(dead), 1)).await;
    let mut events = node.events();
    assert_eq!(soon(node.connect("db@lab")).await.unwrap().info().address, address(&world.db));
    let records = up(&mut events, "db@lab").await;
    assert_eq!(tried(&records), [&[dead.to_string()], wrong.as_slice()].concat());
    assert!(records[0].origin.to_string().starts_with("route "), "{}", records[0].origin);
    soon(node.shut_down(PATIENCE)).await;

    // A4: when every direct attempt failed, the gateways that the registrar knows; A6: one with a connection first.
    let node = start(app()).await;
    let connection = soon(node.connect("inside@lab")).await.unwrap();
    assert_eq!(connection.info().via.as_ref(), Some(world.far.name()));
    assert_eq!(connection.info().peer, *world.inside.name());
    soon(node.shut_down(PATIENCE)).await;
    let node = start(app()).await;
    soon(node.connect(world.near.name())).await.unwrap();
    assert_eq!(soon(node.connect("inside@lab")).await.unwrap().info().via.as_ref(), Some(world.near.name()));
    soon(node.shut_down(PATIENCE)).await;

    // C4: a route with a resolver asks that one, and not the registrar; C6: all its addresses under the route's demands;
    // C5: the route forces TLS, and its own port counts.
    let elsewhere = Discovery::new();
    let asking = |over: EndpointOverride| {
        let route = NetworkRoute::resolved_by(id()).tls_profile(profile_id("ours")).overriding(over);
        asking("app@lab", &elsewhere)
            .resolver(id(), kind.resolver.clone())
            .tls_profile(profile_id("ours"), trusting(&world.ours))
            .route("^(db|inside)@", route, 1)
    };
    let forced = EndpointOverride { tls: Some(true), ..EndpointOverride::default() };
    let node = start(asking(forced)).await;
    let mut events = node.events();
    let connection = soon(node.connect("db@lab")).await.unwrap();
    assert_eq!(connection.info().tls, TlsMode::Verify(Some(profile_id("ours"))));
    assert_eq!(tried(&up(&mut events, "db@lab").await), wrong);
    assert_eq!(elsewhere.asked(), [], "the node's registrar was not asked");
    soon(node.shut_down(PATIENCE)).await;
    let port = EndpointOverride { port: std::num::NonZeroU16::new(7), ..EndpointOverride::default() };
    let node = start(asking(port)).await;
    let error = no_route(soon(node.connect("inside@lab")).await);
    assert!(tried(&error.attempts)[0].ends_with(":7"), "{error}");
    soon(node.shut_down(PATIENCE)).await;

    // The nodes of a service: by weight, and without those that are drained.
    let node = start(app()).await;
    let Serves { nodes, unanswered } = soon(node.serving(&"@pg".parse::<AnyOf>().unwrap())).await;
    let nodes: Vec<_> = nodes.iter().map(|(serving, _)| (serving.node.to_string(), serving.weight)).collect();
    assert_eq!(nodes, [("far@lab".into(), 200), ("db@lab".into(), 100), ("near@lab".into(), 0)]);
    assert_eq!(unanswered, []);
    assert_eq!(soon(node.connect("@pg")).await.unwrap().info().peer, *world.far.name());
    soon(node.shut_down(PATIENCE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_a4_a6_c4_c5_c6_hold_with_the_embedded_registrar() {
    let world = world().await;
    let kind = embedded(&world.registrations).await;
    holds(&world, kind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_a4_a6_c4_c5_c6_hold_with_etcd() {
    let world = world().await;
    let kind = etcd(&world.registrations).await;
    holds(&world, kind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_a4_a6_c4_c5_c6_hold_with_dns() {
    let world = world().await;
    let kind = dns(&world.registrations).await;
    holds(&world, kind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_a4_a6_c4_c5_c6_hold_with_a_file_of_names() {
    let world = world().await;
    let kind = file(&world.registrations).await;
    holds(&world, kind).await;
}
