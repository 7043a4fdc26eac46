//! Discovery by DNS.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use trunkline::registrar::{ResolveError, Resolver};
use trunkline::{Chain, Node};
use trunkline_admin::RunOptions;
use trunkline_config::{Config, Layers};
use trunkline_registrar_dns::{Dns, DnsSettings};
use trunkline_tests::name_server::{Manner, NameServer, Rr};
use trunkline_tests::support::*;

fn settings(server: &NameServer) -> DnsSettings {
    DnsSettings { servers: vec![server.address()], ..DnsSettings::default() }
}

fn dns_of(server: &NameServer) -> Arc<Dns> {
    Arc::new(Dns::new(settings(server)).unwrap())
}

fn ip(text: &str) -> Rr {
    Rr::Ip(text.parse().unwrap())
}

fn srv(priority: u16, address: SocketAddr, target: &str) -> Rr {
    Rr::Srv(priority, 1, address.port(), target.into())
}

async fn found(dns: &Dns, node: &str) -> Result<Vec<String>, ResolveError> {
    let found = soon(dns.resolve(&name(node))).await?;
    Ok(found.iter().map(|endpoint| endpoint.address.to_string()).collect())
}

/// Returns a node that finds others by DNS.
async fn asking_dns(text: &str, dns: Arc<Dns>) -> Node {
    start(dialer(text).resolver(resolver_id("dns"), dns).discovery(resolver_id("dns"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_dns_the_targets_of_srv_records_are_tried_by_priority_and_all_addresses_of_each() {
    let server = NameServer::start(60).await;
    let (db, other) = (start(listener("db@shop.lab")).await, start(listener("other@shop.lab")).await);
    // The first target has nobody, the second another node, and the third the one that is wanted, at its second address.
    let records =
        vec![srv(20, address(&other), "b.lab."), srv(30, address(&db), "c.lab."), srv(10, nobody(), "a.lab.")];
    server.set("_trunkline._tcp.shop.lab", records);
    server.set("a.lab", vec![ip("127.0.0.1"), ip("::1")]);
    server.set("b.lab", vec![ip("127.0.0.1")]);
    server.set("c.lab", vec![ip("127.0.0.77"), ip("127.0.0.1")]);
    let app = asking_dns("app@lab", dns_of(&server)).await;
    let error = no_route(soon(app.connect("web@shop.lab")).await);
    let tried = addresses(&error.attempts);
    let at = |address: SocketAddr, host: &str| SocketAddr::new(host.parse::<IpAddr>().unwrap(), address.port());
    let expected =
        [at(nobody(), "::1"), at(nobody(), "127.0.0.1"), address(&other), at(address(&db), "127.0.0.77"), address(&db)];
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    assert_eq!(sorted(tried.clone()), sorted(expected.iter().map(ToString::to_string).collect()), "{error}");
    let ports: Vec<u16> = tried.iter().map(|tried| tried.parse::<SocketAddr>().unwrap().port()).collect();
    let [nobody, other, db_port] = [nobody(), address(&other), address(&db)].map(|address| address.port());
    assert_eq!(ports, [nobody, nobody, other, db_port, db_port], "{error}");
    let connection = soon(app.connect("db@shop.lab")).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
}

#[tokio::test]
async fn f_dns_without_srv_records_the_addresses_of_the_host_are_taken_with_the_port_of_a_rule() {
    let server = NameServer::start(60).await;
    server.set("shop.lab", vec![ip("10.0.0.5"), ip("10.0.0.6"), ip("fd00::5")]);
    let port = |number: u16| number.try_into().unwrap();
    let ports = vec![(trunkline_matcher::AccessPattern::new("db@.*").unwrap(), port(5000))];
    let dns = Dns::new(DnsSettings { ports, port: port(7), ..settings(&server) }).unwrap();
    let sorted = |mut found: Vec<String>| {
        found.sort();
        found
    };
    assert_eq!(sorted(found(&dns, "db@shop.lab").await.unwrap()), ["10.0.0.5:5000", "10.0.0.6:5000", "[fd00::5]:5000"]);
    assert_eq!(sorted(found(&dns, "web@shop.lab").await.unwrap()), ["10.0.0.5:7", "10.0.0.6:7", "[fd00::5]:7"]);
    // An address is none that DNS is asked for.
    assert_eq!(found(&dns, "web@10.1.2.3").await.unwrap(), ["10.1.2.3:7"]);
    assert_eq!(server.asked("10.1.2.3"), 0);
    // The target `.` says that there is no such service, and the host is not taken.
    server.set("_trunkline._tcp.none.lab", vec![Rr::Srv(0, 0, 0, ".".into())]);
    server.set("none.lab", vec![ip("10.0.0.9")]);
    assert_eq!(found(&dns, "db@none.lab").await.unwrap(), [""; 0]);
    assert_eq!(server.asked(""), 0, "the root of DNS is no host");
    // Gateways are in TXT records; other texts are passed over.
    let gateways = "_gateways.{host}".parse().ok();
    let dns = Dns::new(DnsSettings { gateways, srv: None, ..settings(&server) }).unwrap();
    server.set(
        "_gateways.none.lab",
        vec![Rr::Txt(vec!["v=1".into(), "gate@dmz".into()]), Rr::Txt(vec!["two@dmz".into()])],
    );
    let gateways = soon(dns.gateways(&name("db@none.lab"))).await.unwrap();
    assert_eq!(gateways, [name("gate@dmz"), name("two@dmz")]);
    assert_eq!(soon(dns.gateways(&name("db@shop.lab"))).await, Ok(vec![]));
    assert_eq!(found(&dns, "db@none.lab").await.unwrap(), ["10.0.0.9:4370"]);
    assert_eq!(soon(dns.nodes()).await, Err(ResolveError::NoList));
}

#[tokio::test]
async fn f_dns_answers_and_negative_ones_are_kept_for_their_time_and_no_longer() {
    let server = NameServer::start(60).await;
    let dns = dns_of(&server);
    for _ in 0..2 {
        assert_eq!(found(&dns, "db@late.lab").await.unwrap(), [""; 0]);
    }
    assert_eq!(server.asked("_trunkline._tcp.late.lab"), 1, "the absence is kept");
    let server = NameServer::start(1).await;
    let dns = dns_of(&server);
    assert_eq!(found(&dns, "db@late.lab").await.unwrap(), [""; 0]);
    server.set("_trunkline._tcp.late.lab", vec![Rr::Srv(0, 0, 7, "a.lab.".into())]);
    server.set("a.lab", vec![ip("10.0.0.5")]);
    let until_found = async |expected: &str| {
        while found(&dns, "db@late.lab").await.unwrap() != [expected] {
            tokio::task::yield_now().await;
        }
    };
    soon(until_found("10.0.0.5:7")).await;
    server.set("a.lab", vec![ip("10.0.0.6")]);
    soon(until_found("10.0.0.6:7")).await;
    let asked = server.asked("a.lab");
    assert!(asked <= 8, "{asked} times");
}

#[tokio::test]
async fn f_dns_an_answer_that_is_cut_off_is_asked_for_over_tcp() {
    let server = NameServer::start(60).await;
    server.behave(Manner::Truncated);
    let many: Vec<Rr> = (1..60).map(|n| ip(&format!("10.0.0.{n}"))).collect();
    server.set("many.lab", many);
    assert_eq!(found(&dns_of(&server), "db@many.lab").await.unwrap().len(), 59);
}

#[tokio::test]
async fn f_dns_a_server_that_hangs_fails_or_answers_nonsense_is_an_error_and_another_server_is_asked() {
    let server = NameServer::start(60).await;
    server.set("shop.lab", vec![ip("10.0.0.5")]);
    for manner in [Manner::Silent, Manner::Garbage, Manner::Failing] {
        server.behave(manner);
        // No answer is kept that was none.
        let error = soon(found(&dns_of(&server), "db@shop.lab")).await.unwrap_err();
        let is_failure = matches!(error, ResolveError::Failed(_));
        assert_eq!(is_failure, manner != Manner::Silent, "{manner:?}: {}", Chain(&error));
        // A second server is asked as well.
        let other = NameServer::start(60).await;
        other.set("shop.lab", vec![ip("10.0.0.6")]);
        let both = DnsSettings { servers: vec![server.address(), other.address()], ..DnsSettings::default() };
        let both = Dns::new(both).unwrap();
        assert_eq!(found(&both, "db@shop.lab").await.unwrap(), ["10.0.0.6:4370"], "{manner:?}");
    }
}

#[tokio::test]
async fn f_dns_what_failed_to_be_looked_up_is_not_taken_for_unknown_and_keeps_nothing_else_away() {
    let (server, other) = (NameServer::start(60).await, NameServer::start(60).await);
    // The host has no addresses of one family, and those of the other one cannot be told.
    for family in [4, 6] {
        let host = format!("v{family}.lab");
        server.set(&host, vec![if family == 4 { ip("10.0.0.5") } else { ip("fd00::5") }]);
        other.set(&host, vec![ip("10.0.0.6")]);
        server.fail(&host, family);
        let error = found(&dns_of(&server), &format!("db@{host}")).await.unwrap_err();
        let text = Chain(&error).to_string();
        assert!(text.contains(&host) && text.contains(&server.address().to_string()), "{text}");
        let both = DnsSettings { servers: vec![server.address(), other.address()], ..DnsSettings::default() };
        let both = Dns::new(both).unwrap();
        assert_eq!(found(&both, &format!("db@{host}")).await.unwrap(), ["10.0.0.6:4370"]);
    }
    let records = vec![Rr::Srv(1, 1, 1, "v4.lab.".into()), Rr::Srv(2, 1, 2, "good.lab.".into())];
    server.set("_trunkline._tcp.half.lab", records);
    server.set("good.lab", vec![ip("10.0.0.7")]);
    assert_eq!(found(&dns_of(&server), "db@half.lab").await.unwrap(), ["10.0.0.7:2"]);
    // Addresses of one family are taken although the other one failed.
    server.set("two.lab", vec![ip("10.0.0.8"), ip("fd00::8")]);
    server.fail("two.lab", 6);
    assert_eq!(found(&dns_of(&server), "db@two.lab").await.unwrap(), ["10.0.0.8:4370"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f_dns_a_registrar_of_the_configuration_finds_nodes_and_tells_of_those_it_does_not() {
    let server = NameServer::start(60).await;
    let db = start(listener("db@shop.lab").cookie(cookie("dns"))).await;
    server.set("_trunkline._tcp.shop.lab", vec![srv(0, address(&db), "a.lab.")]);
    server.set("a.lab", vec![ip("127.0.0.1")]);
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "node: {{ name: app@lab, cookie_env: APP, registrar: k8s, data_dir: {} }}\n\
         registrars: {{ k8s: {{ kind: dns, servers: ['{}'] }} }}\n",
        dir.path().display(),
        server.address()
    );
    let secret = String::from_utf8(cookie("dns").expose().to_vec()).unwrap();
    let layers = Layers { environment: vec![("APP".into(), secret.into())], set: Vec::new() };
    let config = Config::parse(&text, Path::new("."), "app.yaml", &layers).unwrap();
    let running = trunkline_admin::start(&config, RunOptions::default()).await.unwrap();
    let node = running.node();
    assert_eq!(soon(node.connect("db@shop.lab")).await.unwrap().info().address, address(&db));
    let error = no_route(soon(node.connect("db@nowhere.lab")).await);
    assert!(error.to_string().contains("k8s"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f_dns_the_configuration_of_the_kubernetes_example_finds_the_pods_of_a_headless_service() {
    let manifest = include_str!("../../../examples/kubernetes/trunkline.yaml");
    let (_, config) = manifest.split_once("  node.yaml: |\n").unwrap();
    let config: Vec<&str> = config.lines().map_while(|line| line.strip_prefix("    ")).collect();
    // The name servers of the pod, and ports and directories of this machine.
    let server = NameServer::start(60).await;
    let dir = tempfile::tempdir().unwrap();
    let (host, port) = (own_host(), own_address().port());
    let pod = |number: u8| format!("node-{number}@node-{number}.trunkline.default.svc.cluster.local");
    let mut nodes = Vec::new();
    for number in 0..2 {
        let ip = IpAddr::from([127, 99, host.octets()[2], number + 1]);
        server.set(&format!("node-{number}.trunkline.default.svc.cluster.local"), vec![Rr::Ip(ip)]);
        let registrar = format!(
            "registrars={{kubernetes: {{kind: dns, srv: none, port: {port}, servers: ['{}']}}}}",
            server.address()
        );
        let set = vec![
            registrar,
            format!("node.listen=[{{host: {ip}, port: {port}}}]"),
            format!("node.data_dir={}/{number}", dir.path().display()),
        ];
        let environment =
            vec![("COOKIE".into(), "a secret of all pods".into()), ("TRUNKLINE_NODE_NAME".into(), pod(number).into())];
        let config =
            Config::parse(&config.join("\n"), Path::new("."), "node.yaml", &Layers { environment, set }).unwrap();
        assert_eq!(config.node.registrar.to_string(), "kubernetes");
        nodes.push(trunkline_admin::start(&config, RunOptions::default()).await.unwrap());
    }
    let connection = soon(nodes[0].node().connect(pod(1).as_str())).await.unwrap();
    assert_eq!(connection.info().address, SocketAddr::from(([127, 99, host.octets()[2], 2], port)));
    // As it stands, the file has no error.
    let environment = vec![("COOKIE".into(), "a secret of all pods".into())];
    let layers = Layers { environment, set: Vec::new() };
    Config::parse(&config.join("\n"), Path::new("."), "node.yaml", &layers).unwrap();
}
