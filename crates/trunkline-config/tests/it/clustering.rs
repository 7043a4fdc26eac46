//! The section `clustering:`, with the key names of HarperDB.

use trunkline_config::{ClusterServer, ClusteringConfig, Config, ConfigError, Layers, cluster_route};

use super::{Dir, refused};

const ROUTES: &str = "clustering.hubServer.cluster.network.routes";

fn routes(config: Config) -> Vec<String> {
    config.clustering.unwrap().routes.iter().map(ToString::to_string).collect()
}

fn with_routes(routes: &str) -> Result<Config, ConfigError> {
    Dir::new().with(&format!("clustering: {{ hubServer: {{ cluster: {{ network: {{ routes: {routes} }} }} }} }}"))
}

#[test]
fn g6_routes_are_read_from_the_file_in_every_form_that_harperdb_takes() {
    // As HarperDB's documents write it.
    let text = "clustering:\n  hubServer:\n    cluster:\n      network:\n        routes:\n          \
                - host: 3.62.184.22\n            port: 9932\n          - host: 3.735.184.8\n            port: 9932\n";
    let config = Dir::new().with(text).unwrap();
    assert_eq!(config.warnings().iter().filter(|warning| warning.contains("3.735.184.8 is not an IPv4")).count(), 1);
    assert_eq!(config.clustering.as_ref().unwrap().name, "trunkline");
    assert_eq!(routes(config), ["3.62.184.22:9932", "3.735.184.8:9932"]);
    let all = "[{ host: a, port: '7' }, { hostname: b }, 'c:8', d, '::1', '[::1]:9', 'wss://e:9933', { host: 'http://f/x', port: 7 }, d]";
    let expected = ["a:7", "b:9932", "c:8", "d:9932", "[::1]:9932", "[::1]:9", "e:9933", "f:7"];
    assert_eq!(routes(with_routes(all).unwrap()), expected);
    assert_eq!(cluster_route("https://user@h:1/x?y#z", Some(1)).unwrap().to_string(), "h:1");
}

#[test]
fn each_route_that_cannot_be_used_is_named_with_its_field() {
    let at = |n: usize, field: &str| format!("{ROUTES}[{n}]{field}");
    refused(with_routes("[{ host: a, port: abc }]"), &[&at(0, ".port"), "must be a port number from 1 to 65535"]);
    refused(with_routes("[a, { host: a, port: 70000 }]"), &[&at(1, ".port"), "must be a port number"]);
    refused(
        with_routes("[{ port: 1 }, { host: 'a b' }]"),
        &[&at(0, ".host"), "has no `host`", &at(1, ".host"), "is no host"],
    );
    refused(with_routes("[{ host: 'a:1', port: 2 }]"), &[&at(0, ".host"), "names port 1, and `port` is 2"]);
    refused(with_routes("['a:0']"), &[&at(0, ""), "must be a port number"]);
    refused(with_routes("[{ host: a, hostname: b }]"), &[&at(0, ".hostname"), "keep one of them"]);
    refused(with_routes("[{ host: a, weight: 1 }]"), &[&at(0, ".weight"), "unknown key"]);
}

#[test]
fn g9_the_command_line_counts_more_than_the_environment_and_that_more_than_the_file() {
    let dir = Dir::new();
    let text = "node: { name: app@127.0.0.1, cookie_file: cookie }\n\
                clustering: { hubServer: { cluster: { network: { routes: [file] } } } }\n";
    let over = |environment: &[(&str, &str)], set: &[&str]| {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let layers = Layers { environment, set: set.iter().map(|set| set.to_string()).collect() };
        let over = layers.over(ROUTES);
        (routes(Config::parse(text, dir.path(), "app.yaml", &layers).unwrap()), over)
    };
    assert_eq!(over(&[], &[]), (vec!["file:9932".to_owned()], None));
    let variable = ("CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES", r#"[{"host": "variable", "port": 9932}]"#);
    let (found, by) = over(&[variable], &[]);
    assert_eq!(found, ["variable:9932"]);
    assert!(by.unwrap().contains("environment variable"));
    let lower = ("clustering_hubServer_cluster_network_routes", variable.1);
    assert_eq!(over(&[lower], &[]).0, ["variable:9932"]);
    let misspelt =
        Layers { environment: vec![("CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTS".into(), "[]".into())], set: vec![] };
    refused(
        Config::parse(text, dir.path(), "app.yaml", &misspelt),
        &["CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTS", "not a variable"],
    );
    let set = format!("{ROUTES}=[set]");
    assert_eq!(over(&[variable], &[&set]).0, ["set:9932"]);
}

#[test]
fn g11_the_port_of_the_cluster_is_a_listener_of_the_node() {
    let port = "clustering: { hubServer: { cluster: { network: { port: 9932 } } } }\n";
    let listen: Vec<_> =
        Dir::new().with(port).unwrap().node.listen.iter().map(|l| format!("{}:{}", l.host, l.port)).collect();
    assert_eq!(listen, ["0.0.0.0:9932"]);
    assert!(Dir::new().node(&format!("  listen: [{{ port: 9932 }}]\n{port}")).is_ok());
    let parts = ["clustering.hubServer.cluster.network.port", "node.listen has no listener on port 9932"];
    refused(Dir::new().node(&format!("  listen: [{{ port: 1 }}]\n{port}")), &parts);
}

#[test]
fn a_cluster_has_a_name_and_can_be_switched_off() {
    let named = |rest: &str| Dir::new().with(&format!("clustering: {rest}"));
    let lab = ClusteringConfig { name: "lab".into(), server: ClusterServer::Hub, routes: Vec::new() };
    assert_eq!(named("{ hubServer: { cluster: { name: lab } } }").unwrap().clustering, Some(lab));
    assert_eq!(named("{ enabled: false, hubServer: { cluster: { name: lab } } }").unwrap().clustering, None);
    // One that is switched off opens no listener.
    let off = named("{ enabled: false, hubServer: { cluster: { network: { port: 9932 } } } }").unwrap();
    assert_eq!(off.node.listen.iter().map(|listen| listen.port).collect::<Vec<_>>(), [0]);
    refused(named("{ hubServer: { cluster: { name: '' } } }"), &["1 to 64 bytes"]);
    refused(Dir::new().with("registrars: { cluster: { kind: embedded, host: h } }"), &["reserved"]);
}

#[test]
fn a_node_with_the_routes_of_a_leaf_is_one() {
    let with = |rest: &str| Dir::new().with(&format!("clustering: {rest}"));
    let clustering = |rest: &str| with(rest).unwrap().clustering.unwrap();
    let leaf = clustering("{ hubServer: { cluster: { name: lab } }, leafServer: { network: { routes: [a, b] } } }");
    assert_eq!((leaf.name.as_str(), leaf.server, leaf.routes.len()), ("lab", ClusterServer::Leaf, 2));
    let empty =
        clustering("{ hubServer: { cluster: { network: { routes: [] } } }, leafServer: { network: { routes: [] } } }");
    assert_eq!((empty.server, empty.routes.len()), (ClusterServer::Leaf, 0));
    // HarperDB writes the keys of what is not used with `null`.
    let hub = clustering(
        "{ hubServer: { cluster: { network: { routes: [a] } } }, leafServer: { network: { routes: null } } }",
    );
    assert_eq!((hub.server, hub.routes.len()), (ClusterServer::Hub, 1));
    let both =
        with("{ hubServer: { cluster: { network: { routes: [a] } } }, leafServer: { network: { routes: [b] } } }");
    refused(both, &["clustering.leafServer.network.routes", "is either a hub or a leaf"]);
    refused(with("{ leafServer: { network: { port: 1 } } }"), &["clustering.leafServer.network", "port"]);

    let dir = Dir::new();
    dir.file("cookie", "a shared secret", 0o600);
    let variable = ("CLUSTERING_LEAFSERVER_NETWORK_ROUTES".into(), r#"[{"host": "h", "port": 1}]"#.into());
    let layers = Layers { environment: vec![variable], set: vec![] };
    let text = "node: { name: n@h, cookie_file: cookie, registrar: none }\n";
    let found = Config::parse(text, dir.path(), "app.yaml", &layers).unwrap().clustering.unwrap();
    assert_eq!((found.server, found.routes[0].to_string().as_str()), (ClusterServer::Leaf, "h:1"));
}
