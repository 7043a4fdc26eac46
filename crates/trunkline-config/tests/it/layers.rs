use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use trunkline_config::{AdminConfig, Config, ConfigError, Layers};
use trunkline_route::Fallback;

use super::{Dir, SECRET, refused};

fn layered(dir: &Dir, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let text =
        "node: { name: app@127.0.0.1, cookie_file: cookie, fallback: on_miss }\nroutes: [{ match: f, port: 1 }]\n";
    over(dir, text, environment, set)
}

fn over(dir: &Dir, text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(k, v)| (k.into(), v.into())).collect();
    let set = set.iter().map(|s| s.to_string()).collect();
    Config::parse(text, dir.path(), "app.yaml", &Layers { environment, set })
}

#[test]
fn the_environment_overrides_the_file_and_the_command_line_overrides_both() {
    let dir = Dir::new();
    let environment = [("TRUNKLINE_NODE_FALLBACK", "never"), ("TRUNKLINE_NODE_NAME", "env@h")];
    let node = layered(&dir, &environment, &["node.name=cli@h"]).unwrap().node;
    assert_eq!(node.fallback, Fallback::Never);
    assert_eq!(node.name.as_str(), "cli@h");
}

#[test]
fn values_are_yaml_or_json() {
    let dir = Dir::new();
    let environment = [
        ("TRUNKLINE_NODE_REGISTRAR_LISTEN", r#"{"host":"10.0.0.1","port":5}"#),
        ("TRUNKLINE_NODE_TIMEOUTS_DNS_MS", "9"),
        ("TRUNKLINE_ROUTES", r#"[{"match":"a","port":1},{"match":"b","port":2}]"#),
    ];
    let config = layered(&dir, &environment, &["node.hidden=true", "node.listen=[]"]).unwrap();
    assert_eq!(config.node.registrar_listen.to_string(), "10.0.0.1:5");
    assert_eq!(config.node.timeouts.dns.as_millis(), 9);
    assert_eq!(config.routes.len(), 2);
    assert!(config.node.hidden && config.node.listen.is_empty());
}

#[test]
fn a_single_key_overrides_its_section_from_the_same_layer() {
    let dir = Dir::new();
    let environment =
        [("TRUNKLINE_NODE_REGISTRAR_LISTEN_PORT", "7"), ("TRUNKLINE_NODE_REGISTRAR_LISTEN", "{host: 10.0.0.1}")];
    assert_eq!(layered(&dir, &environment, &[]).unwrap().node.registrar_listen.to_string(), "10.0.0.1:7");
}

#[test]
fn null_and_an_empty_value_on_the_command_line_restore_the_default() {
    let dir = Dir::new();
    assert_eq!(layered(&dir, &[], &["node.fallback="]).unwrap().node.fallback, Fallback::OnFailure);
    let node = layered(&dir, &[("TRUNKLINE_NODE_FALLBACK", "null")], &[]).unwrap().node;
    assert_eq!(node.fallback, Fallback::OnFailure);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let dir = Dir::new();
    let text = "node: { name: app@127.0.0.1, cookie_file: cookie, fallback: on_miss }\nroutes: [{ match: f, port: 1 }]\n\
                peers: [{ match: 'a@.*', cookie_file: cookie }]\nproxied: { allow: [] }\ntransit: { rules: [{ from: 'a@.*', \
                to: 'b@h' }] }\n";
    let plain = over(&dir, text, &[], &[]).unwrap();
    for empty in ["", "  \n"] {
        for section in ["PEERS", "PROXIED", "TRANSIT", "ROUTES", "NODE", "NODE_FALLBACK", "NO_SUCH_KEY"] {
            let name = format!("TRUNKLINE_{section}");
            let layers = Layers { environment: vec![(name.into(), empty.into())], set: Vec::new() };
            assert_eq!(Config::parse(text, dir.path(), "app.yaml", &layers).unwrap(), plain, "{section}");
            assert_eq!(layers.over("peers"), None);
        }
    }
    let layers = Layers { environment: vec![("TRUNKLINE_PEERS".into(), "[]".into())], set: Vec::new() };
    assert_eq!(layers.over("peers").as_deref(), Some("the environment variable TRUNKLINE_PEERS"));
    let named = over(&dir, "node: { name: a@h, cookie_env: APP_COOKIE }", &[("APP_COOKIE", "")], &[]);
    refused(named, &["node.cookie_env", "`APP_COOKIE` is not set or empty"]);
}

#[test]
fn the_error_about_a_variable_that_is_not_text_names_it() {
    let dir = Dir::new();
    let not_text = || OsString::from_vec(b"canary-\xff-canary".to_vec());
    let with = |name: &str, text: &str| {
        let layers = Layers { environment: vec![(name.into(), not_text())], set: Vec::new() };
        Config::parse(text, dir.path(), "app.yaml", &layers)
    };
    let text = "node: { name: a@h, cookie_file: cookie }\n";
    for name in ["TRUNKLINE_PEERS", "TRUNKLINE_NODE_TLS"] {
        refused(with(name, text), &[&format!("environment variable {name}: the value is not UTF-8")]);
    }
    let text = "node: { name: a@h, cookie_env: APP_COOKIE }\n";
    refused(with("APP_COOKIE", text), &["node.cookie_env", "`APP_COOKIE` is not UTF-8"]);
    assert!(with("UNRELATED", "node: { name: a@h, cookie_file: cookie }\n").is_ok());
}

/// Returns the variables that Kubernetes sets in every container of a namespace for a service of this name with a port
/// 80 called `http`.
fn service_variables(service: &str) -> Vec<(String, String)> {
    let own = service.to_ascii_uppercase().replace('-', "_");
    let of = |rest: &str, value: &str| (format!("{own}_{rest}"), value.to_owned());
    vec![
        of("SERVICE_HOST", "10.96.0.11"),
        of("SERVICE_PORT", "80"),
        of("SERVICE_PORT_HTTP", "80"),
        of("PORT", "tcp://10.96.0.11:80"),
        of("PORT_80_TCP", "tcp://10.96.0.11:80"),
        of("PORT_80_TCP_PROTO", "tcp"),
        of("PORT_80_TCP_PORT", "80"),
        of("PORT_80_TCP_ADDR", "10.96.0.11"),
        of("PORT_53_UDP", "udp://10.96.0.11:53"),
    ]
}

#[test]
fn the_variables_of_a_kubernetes_service_change_nothing() {
    let dir = Dir::new();
    let plain = layered(&dir, &[], &[]).unwrap();
    let services = ["trunkline", "trunkline-x", "trunkline-node", "trunkline-admin", "trunkline-node-registrar-listen"];
    for service in services {
        let variables = service_variables(service);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(layered(&dir, &variables, &[]).unwrap(), plain, "{service}");
    }
    for (name, value) in
        [("TRUNKLINE_NODE_PORT", "80"), ("TRUNKLINE_PORT_80_QUIC", "x"), ("TRUNKLINE_PORTS", "tcp://a:1")]
    {
        refused(layered(&dir, &[(name, value)], &[]), &[name, "not a variable of trunkline"]);
    }
}

#[test]
fn a_whole_configuration_may_come_from_the_environment() {
    let environment = [("TRUNKLINE_NODE_NAME", "a@h"), ("TRUNKLINE_NODE_COOKIE_FILE", "cookie")];
    assert_eq!(over(&Dir::new(), "", &environment, &[]).unwrap().node.name.as_str(), "a@h");
}

#[test]
fn a_key_from_a_higher_layer_removes_the_keys_below_that_exclude_it() {
    let dir = Dir::new();
    let environment = [("TRUNKLINE_NODE_COOKIE_ENV", "APP_COOKIE"), ("APP_COOKIE", "from-the-environment")];
    let node = layered(&dir, &environment, &[]).unwrap().node;
    assert_eq!(node.cookie.current().expose(), b"from-the-environment");
    let text = "node: { name: a@h, cookie_file: cookie, admin: none }\n";
    let node = over(&dir, text, &[], &["node.admin.socket=x.sock"]).unwrap().node;
    assert_eq!(node.admin, AdminConfig::Socket(dir.path().join("x.sock")));
    refused(
        layered(&dir, &[("TRUNKLINE_NODE_COOKIE_ENV", "A"), ("TRUNKLINE_NODE_COOKIE_FILE", "cookie")], &[]),
        &["environment variable TRUNKLINE_NODE_COOKIE_ENV: node.cookie_env", "both"],
    );
}

#[test]
fn the_error_about_an_unknown_variable_names_the_most_similar_one() {
    let dir = Dir::new();
    let outcome = layered(&dir, &[("TRUNKLINE_NODE_NAM", SECRET)], &[]);
    refused(outcome, &["environment variable TRUNKLINE_NODE_NAM", "`TRUNKLINE_NODE_NAME`"]);
    let reserved = [
        ("TRUNKLINE_CONFIG", "x"),
        ("TRUNKLINE_LOG", "x"),
        ("TRUNKLINE_ADMIN_TOKEN", "x"),
        // Variables that the node sets for a program, which may run the command line in turn.
        ("TRUNKLINE_PID", "x"),
        ("TRUNKLINE_PEER", "x"),
        ("TRUNKLINE_OFFER", "x"),
        ("HOME", "/"),
    ];
    assert!(layered(&dir, &reserved, &[]).is_ok());
}

#[test]
fn a_variable_named_by_the_configuration_is_not_unknown() {
    let text = "node: { name: a@h, cookie_env: TRUNKLINE_COOKIE }";
    assert!(over(&Dir::new(), text, &[("TRUNKLINE_COOKIE", SECRET)], &[]).is_ok());
}

#[test]
fn the_error_about_a_malformed_value_names_the_variable_or_flag_and_the_place() {
    let dir = Dir::new();
    let outcome = layered(&dir, &[("TRUNKLINE_ROUTES", "[{match: a, port: 1}, {match: b")], &[]);
    refused(outcome, &["environment variable TRUNKLINE_ROUTES:1:", "not well-formed YAML"]);
    refused(layered(&dir, &[], &["node.name=@x"]), &["--set node.name", "put the value in quotes"]);
    refused(layered(&dir, &[], &["node.nmae=x"]), &["--set node.nmae: unknown key", "`node.name`"]);
    refused(layered(&dir, &[], &["node.name"]), &["--set node.name: no value; write `--set node.name=VALUE`"]);
}

#[test]
fn the_error_about_a_flag_with_harperdbs_name_names_the_flag_as_it_was_written() {
    let dir = Dir::new();
    let routes = "clustering_hubServer_cluster_network_routes";
    refused(layered(&dir, &[], &[routes]), &[&format!("--{routes}: no value; write `--{routes} VALUE`")]);
    let empty = format!("{routes}= ");
    refused(layered(&dir, &[], &[&empty]), &[&format!("--{routes}: no value; write `--{routes} VALUE`")]);
    let wrong = format!("{routes}=[{{ host: a, prt: 1 }}]");
    refused(layered(&dir, &[], &[&wrong]), &[&format!("--{routes}:1:"), "prt"]);
    let layers = Layers { environment: Vec::new(), set: vec![format!("{routes}=[a]")] };
    let over = layers.over("clustering.hubServer.cluster.network.routes");
    assert_eq!(over, Some(format!("--{routes} …")));
}

#[test]
fn the_error_about_a_wrong_value_from_a_layer_names_its_source() {
    let dir = Dir::new();
    let outcome = layered(&dir, &[("TRUNKLINE_ROUTES", "[{match: a, port: 0}]")], &["node.fallback=x"]);
    refused(
        outcome,
        &["environment variable TRUNKLINE_ROUTES:1:19: routes[0].port", "--set node.fallback: node.fallback"],
    );
}

#[test]
fn debug_output_of_layers_shows_names_but_no_values() {
    let layers = Layers { environment: vec![("A".into(), SECRET.into())], set: vec![format!("node.name={SECRET}")] };
    assert_eq!(format!("{layers:?}"), r#"Layers { environment: ["A"], set: ["node.name"] }"#);
}
