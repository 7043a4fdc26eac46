use std::time::Duration;

use trunkline_config::{AdminConfig, Config, Layers, ReadError, RegistrarConfig, example};
use trunkline_route::{AtomMapping, Fallback, Flag, NodeName, PeerFlags, Reconnect, Version};

use super::{Dir, SECRET, refused};

#[test]
fn the_example_loads() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    dir.secret("secrets/cookie", SECRET);
    let config = dir.parse(example()).unwrap();
    assert_eq!(config.routes.len(), 3);
    assert_eq!(config.routes[0].weight, 200);
    assert!(config.routes[1].route.fallback_never());
    assert_eq!(config.warnings(), [""; 0]);
}

#[test]
fn the_examples_node_section_shows_the_defaults() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    dir.secret("secrets/cookie", SECRET);
    let (mut shown, defaults) = (dir.parse(example()).unwrap().node, dir.with("").unwrap().node);
    assert!(shown.data_dir.ends_with("app.data"));
    shown.data_dir = defaults.data_dir.clone();
    let socket = AdminConfig::Socket(dir.path().join("./app.data/admin.sock"));
    assert_eq!(shown.admin, socket);
    shown.admin = defaults.admin.clone();
    assert_eq!(shown, defaults);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let dir = Dir::new();
    let node = dir.with("").unwrap().node;
    assert_eq!(node.name, NodeName::new("app@127.0.0.1").unwrap());
    assert_eq!(node.data_dir, dir.path().join("app.data"));
    assert_eq!(node.cookie.current().expose(), SECRET.as_bytes(), "the trailing newline is trimmed");
    assert_eq!((node.listen.len(), node.listen[0].host.as_str(), node.listen[0].port), (1, "127.0.0.1", 0));
    assert_eq!(node.registrar, RegistrarConfig::Embedded);
    assert_eq!(node.registrar_listen.to_string(), "127.0.0.1:4499");
    assert_eq!(node.fallback, Fallback::OnFailure);
    assert_eq!((node.tls, node.hidden, node.handshake), (false, false, Version::native(1)));
    assert_eq!(node.timeouts.total, Duration::from_secs(15));
    assert_eq!(node.admin, AdminConfig::Socket(dir.path().join("app.data/admin.sock")));
}

#[test]
fn everything_the_schema_has_is_read() {
    let dir = Dir::new();
    dir.secret("token", "0123456789abcdef0123456789abcdef\n");
    dir.secret("me.key", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n");
    dir.file("me.pem", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", 0o644);
    let config = dir
        .node(
            r#"
  listen:
    - { host: "::1", port: 4370, advertise: { host: node.example.com }, cookie_file: cookie, allow: ["a@.*"],
        tls: { certificate: me.pem, key: me.key } }
  registrar: embedded
  registrar_listen: { port: 5000 }
  fallback: never
  tls: true
  handshake: TLK/2
  flags: { fragmentation: false }
  race_equal_weights_ms: 250
  keep_alive_ms: 100
  dead_after_ms: 1000
  reconnect: keep
  hidden: true
  timeouts: { dns_ms: 7 }
  admin: { listen: "127.0.0.1:4490", token_file: token }
tls_profiles:
  partner: { roots: me.pem, certificate: me.pem, key: me.key, server_name: partner.example.com }
  empty:
peers:
  - { match: "billing@partner\\..*", cookie_file: cookie }
routes:
  - { match: a, port: 1, tls: true, tls_profile: partner, insecure_skip_verify: true, handshake: TLK/1,
      cookie_file: cookie, weight: -5, fallback: never, flags: { priorities: false, require: [fragmentation] },
      atom_mapping: { process_manager: proc_mgr }, keep_alive_ms: 20000, dead_after_ms: 60000 }
  - { match: b, resolver: embedded, override: { host: h, port: 2, tls: true, handshake: TLK/1 } }
"#,
        )
        .unwrap();
    let node = &config.node;
    assert_eq!(node.listen[0].host.as_str(), "::1");
    assert!(node.listen[0].tls.is_some() && node.listen[0].cookie.is_some() && node.listen[0].advertise.is_some());
    assert!(node.listen[0].allow.as_ref().unwrap()[0].is_match("a@x"));
    assert_eq!(node.registrar_listen.to_string(), "127.0.0.1:5000");
    assert_eq!(node.timeouts.dns, Duration::from_millis(7));
    let AdminConfig::Tcp { token, .. } = &node.admin else { panic!("{:?}", node.admin) };
    assert!(token.matches(b"0123456789abcdef0123456789abcdef") && !token.matches(b"0123456789abcdef"));
    assert_eq!(config.tls_profiles.len(), 2);
    assert!(config.peers[0].pattern.is_match("billing@partner.com"));
    assert_eq!(config.routes[0].weight, -5);
    assert!(config.routes[0].route.insecure_skip_verify() && config.routes[0].route.cookie().is_some());
    assert_eq!((node.race_equal_weights, node.reconnect), (Some(Duration::from_millis(250)), Reconnect::Keep));
    assert_eq!((node.keep_alive, node.dead_after), (Duration::from_millis(100), Duration::from_secs(1)));
    let (secs, first) = (Duration::from_secs, &config.routes[0].route);
    assert_eq!((first.keep_alive(), first.dead_after()), (Some(secs(20)), Some(secs(60))));
    assert_eq!(config.routes[1].route.dead_after(), None);
    assert_eq!(node.flags, PeerFlags::ALL.with(Flag::Fragmentation, false));
    let terms = config.routes[0].route.flags().terms(node.flags);
    let fragmentation = PeerFlags::NONE.with(Flag::Fragmentation, true);
    assert_eq!((terms.offered.has(Flag::Priorities), terms.required), (false, fragmentation));
    assert_eq!(terms.offered, node.flags.with(Flag::Priorities, false).with(Flag::Fragmentation, true));
    let mapping = AtomMapping::new([("process_manager", "proc_mgr")]).unwrap();
    assert_eq!(config.routes[0].route.atom_mapping(), Some(&mapping));
    assert_eq!(config.routes[1].route.tls(), Some(true));
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary") && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn unknown_and_contradictory_flags_are_refused() {
    let dir = Dir::new();
    for (flags, parts) in [
        ("{ prioritys: true }", &["routes[0].flags.prioritys", "did you mean `priorities`?"][..]),
        ("{ priorities: 1 }", &["routes[0].flags.priorities", "expected true or false"]),
        ("{ require: [warp] }", &["routes[0].flags.require", "\"warp\" is not a flag", "priorities, fragmentation"]),
        ("{ require: [7] }", &["routes[0].flags.require", "expected a flag's name"]),
        ("{ require: [priorities], priorities: false }", &["routes[0].flags.require", "remove one of the two"]),
    ] {
        refused(dir.with(&format!("routes: [{{ match: a, port: 1, flags: {flags} }}]\n")), parts);
    }
    refused(dir.node("  flags: { prioritys: true }\n"), &["node.flags.prioritys", "did you mean `priorities`?"]);
}

#[test]
fn names_that_cannot_be_mapped_are_refused() {
    let dir = Dir::new();
    let long = format!("{{ a: {} }}", "x".repeat(256));
    for (mapping, parts) in [
        ("{ a: x, b: x }", &["routes[0].atom_mapping", "\"a\" and \"b\" would both become \"x\""][..]),
        ("{ a: 7 }", &["routes[0].atom_mapping.a", "expected a name", "in quotes"]),
        ("{ a: '' }", &["routes[0].atom_mapping", "1 to 255 bytes"]),
        (&long, &["routes[0].atom_mapping", "has 256"]),
        ("[a]", &["routes[0].atom_mapping", "expected a mapping"]),
    ] {
        refused(dir.with(&format!("routes: [{{ match: a, port: 1, atom_mapping: {mapping} }}]\n")), parts);
    }
}

#[test]
fn cookies_accepted_side_by_side_need_different_labels() {
    let dir = Dir::new();
    dir.secret("old", "the-old-cookie-of-all");
    let config = dir.node("  cookie_label: new\n  also_accept: [{ cookie_file: old }]\n").unwrap();
    let cookies = &config.node.cookie;
    assert_eq!((cookies.current().label(), cookies.labelled("").expose()), ("new", &b"the-old-cookie-of-all"[..]));
    for (node, parts) in [
        (
            "  also_accept: [{ cookie_file: old }]\n",
            &["node.also_accept[0].cookie_label", "two cookies have the label"][..],
        ),
        ("  also_accept: [{ cookie_label: a }]\n", &["node.also_accept[0].cookie_label", "has no cookie"]),
        ("  also_accept: [{}]\n", &["node.also_accept[0].cookie_file", "the entry has no cookie"]),
        ("  also_accept: old\n", &["node.also_accept", "expected a list"]),
    ] {
        refused(dir.node(node), parts);
    }
    let listen = "  listen: [{ also_accept: [{ cookie_file: old }] }]\n";
    refused(dir.node(listen), &["node.listen[0].also_accept", "needs a main cookie"]);
    let route = "routes: [{ match: a, port: 1, cookie_label: x }]\n";
    refused(dir.with(route), &["routes[0].cookie_label", "the label has no cookie"]);
}

#[test]
fn an_empty_list_of_listeners_listens_nowhere() {
    assert!(Dir::new().node("  listen: []\n").unwrap().node.listen.is_empty());
}

#[test]
fn admin_can_be_turned_off() {
    assert_eq!(Dir::new().node("  admin: none\n").unwrap().node.admin, AdminConfig::None);
}

#[test]
fn the_error_about_an_unknown_key_names_the_most_similar_one() {
    let dir = Dir::new();
    refused(dir.node("  fallbak: never\n"), &["app.yaml:4:3: node.fallbak: unknown key", "did you mean `fallback`?"]);
    refused(dir.with("route: []\n"), &["app.yaml:2:1: route: unknown key", "did you mean `routes`?"]);
    refused(dir.with("hubs: []\n"), &["hubs: unknown key"]);
    refused(dir.with("routes: [{ match: a, port: 1, wieght: 5 }]\n"), &["routes[0].wieght", "`weight`"]);
    refused(dir.node("  timeouts: { dns: 5 }\n"), &["node.timeouts.dns", "`dns_ms`"]);
}

#[test]
fn the_value_of_an_unknown_key_is_not_shown() {
    refused(dir_with_cookie_inline(), &["node.cookie: unknown key", "cookie_"]);
}

fn dir_with_cookie_inline() -> Result<Config, trunkline_config::ConfigError> {
    Dir::new().node(&format!("  cookie: {SECRET}\n"))
}

#[test]
fn the_error_about_a_bad_pattern_marks_the_place_with_a_caret() {
    let dir = Dir::new();
    let outcome = dir.with("routes:\n  - { match: '^prod-(db', port: 1 }\n");
    refused(outcome, &["app.yaml:3:14: routes[0].match: ", "\n    ^prod-(db\n", "\n          ^"]);
    refused(dir.with("peers: [{ match: 'a)', cookie_file: cookie }]\n"), &["peers[0].match", "\n    a)\n     ^"]);
    refused(dir.node("  listen: [{ allow: ['a**'] }]\n"), &["node.listen[0].allow[0]", "\n    a**\n"]);
}

#[test]
fn the_error_about_a_duplicate_pattern_names_both_places() {
    let dir = Dir::new();
    let text = "routes:\n  - { match: a, port: 1 }\n  - { match: b, port: 1 }\n  - { match: a, port: 2 }\n";
    refused(dir.with(text), &["app.yaml:5:14: routes[2].match", "`a`", "routes[0].match (app.yaml:3:14)"]);
    let text = "peers: [{ match: a, cookie_file: cookie }, { match: a, cookie_file: cookie }]\n";
    refused(dir.with(text), &["peers[1].match", "first in peers[0].match"]);
}

#[test]
fn a_duplicate_yaml_key_is_refused_by_name() {
    refused(Dir::new().node("  tls: true\n  tls: false\n"), &["app.yaml:5:3: the key `tls` occurs twice"]);
}

#[test]
fn the_error_about_an_unknown_resolver_names_the_known_ones() {
    let outcome = Dir::new().with("routes: [{ match: a, resolver: production }]\n");
    refused(outcome, &["app.yaml:2:32: routes[0].resolver", "unknown resolver `production`; known: embedded"]);
}

#[test]
fn a_route_cannot_use_the_embedded_resolver_without_a_registrar() {
    let outcome = Dir::new().with("routes: [{ match: a, resolver: embedded }]\n");
    assert!(outcome.is_ok());
    let outcome = Dir::new().node("  registrar: none\nroutes: [{ match: a, resolver: embedded }]\n");
    let remedy = "no resolver is configured; set `node.registrar: embedded`";
    refused(outcome, &["routes[0].resolver", "unknown resolver `embedded`", remedy]);
}

#[test]
fn certificate_keys_are_refused_in_a_route_that_verifies_no_certificate() {
    let text = |text: &str| format!("tls_profiles: {{ p: {{}} }}\nroutes: [{{ match: a, {text} }}]\n");
    let route = |route: &str| Dir::new().with(&text(route));
    for tls in ["", "tls: false, "] {
        refused(route(&format!("port: 1, {tls}tls_profile: p")), &["routes[0].tls_profile", "add `tls: true`"]);
        let lax = format!("port: 1, {tls}insecure_skip_verify: true");
        refused(route(&lax), &["routes[0].insecure_skip_verify", "add `tls: true`"]);
    }
    for fine in ["port: 1, tls: true, tls_profile: p", "resolver: embedded, tls_profile: p"] {
        route(fine).unwrap();
    }
    Dir::new().node(&format!("  tls: true\n{}", text("port: 1, tls_profile: p"))).unwrap();
}

#[test]
fn the_error_about_an_unknown_tls_profile_names_the_known_ones() {
    let text = "tls_profiles: { partner: {} }\nroutes: [{ match: a, port: 1, tls_profile: partnr }]\n";
    refused(Dir::new().with(text), &["routes[0].tls_profile", "unknown TLS profile `partnr`; known: partner"]);
}

#[test]
fn port_zero_is_refused_where_it_would_be_dialled() {
    let dir = Dir::new();
    refused(dir.with("routes: [{ match: a, port: 0 }]\n"), &["routes[0].port", "port 0 cannot be dialled"]);
    let text = "routes: [{ match: a, resolver: embedded, override: { port: 0 } }]\n";
    refused(dir.with(text), &["app.yaml:2:60: routes[0].override.port", "port 0"]);
    refused(dir.node("  registrar_listen: { port: 0 }\n"), &["node.registrar_listen.port", "from 1 to 65535"]);
    refused(dir.with("routes: [{ match: a, port: 70000 }]\n"), &["routes[0].port", "70000"]);
}

#[test]
fn a_route_needs_a_port_or_a_resolver_and_not_both() {
    let dir = Dir::new();
    refused(dir.with("routes: [{ match: a }]\n"), &["routes[0].port", "`port` to dial, or a `resolver`"]);
    let text = "routes: [{ match: a, resolver: embedded, port: 1 }]\n";
    refused(dir.with(text), &["routes[0].port", "override: { port: … }"]);
    let text = "routes: [{ match: a, port: 1, override: { tls: true } }]\n";
    refused(dir.with(text), &["routes[0].override", "only a route with a `resolver`"]);
    refused(dir.with("routes: [{ port: 1 }]\n"), &["routes[0].match", "has no `match`"]);
}

#[test]
fn a_cookie_file_must_exist_and_be_private_and_long_enough() {
    let dir = Dir::new();
    dir.file("open", SECRET, 0o640);
    dir.secret("short", "canary\n");
    let cookie = |file: &str| dir.parse(&format!("node: {{ name: a@h, cookie_file: {file} }}"));
    refused(cookie("absent"), &["app.yaml:1:33: node.cookie_file", "absent does not exist"]);
    let error = cookie("absent").unwrap_err();
    let cause = error.problems()[0].cause().downcast_ref::<ReadError>();
    assert!(matches!(cause, Some(ReadError::Missing { path }) if path.ends_with("absent")), "{cause:?}");
    let open = format!("run `chmod 600 {}`", dir.path().join("open").display());
    refused(cookie("open"), &["node.cookie_file", "can be read by other users", &open]);
    refused(cookie("short"), &["node.cookie_file", "has 6 bytes; at least 8 are needed"]);
    refused(cookie("."), &["node.cookie_file", "not a regular file"]);
    std::os::unix::fs::symlink("cookie", dir.path().join("link")).unwrap();
    assert!(cookie("link").is_ok(), "symbolic links are followed");
}

#[test]
fn a_cookie_readable_by_a_group_of_this_user_is_accepted_where_its_mode_cannot_be_changed() {
    let dir = Dir::new();
    let cookie = |owner: u32, group: u32, mode: u32| {
        let path = dir.file("mounted", SECRET, mode);
        std::os::unix::fs::chown(path, Some(owner), Some(group)).unwrap();
        dir.parse("node: { name: a@h, cookie_file: mounted }")
    };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let own = rustix::process::getegid().as_raw();
    assert!(cookie(12_345, own, 0o440).is_ok());
    for (group, mode) in [(54_321, 0o440), (own, 0o444), (own, 0o460)] {
        let shown = format!("(mode {mode:04o})");
        refused(cookie(12_345, group, mode), &["node.cookie_file", &shown, "cannot change that", "defaultMode: 0440"]);
    }
    refused(cookie(0, own, 0o440), &["node.cookie_file", "run `chmod 600 "]);
}

#[test]
fn exactly_one_source_of_the_nodes_cookie_is_needed() {
    let dir = Dir::new();
    refused(dir.node("  cookie_env: X\n"), &["app.yaml:4:15: node.cookie_env", "both cookie_file and cookie_env"]);
    refused(dir.parse("node: { name: a@h }"), &["node.cookie_file", "the node has no cookie"]);
    refused(dir.with("peers: [{ match: a }]\n"), &["peers[0].cookie_file", "a peer needs a cookie"]);
    let outcome = dir.with("routes: [{ match: a, port: 1, cookie_file: cookie, cookie_env: X }]\n");
    refused(outcome, &["routes[0].cookie_env", "both"]);
}

#[test]
fn a_missing_variable_is_named_but_a_secret_written_in_its_place_is_not_shown() {
    let dir = Dir::new();
    refused(dir.parse("node: { name: a@h, cookie_env: APP_COOKIE }"), &["node.cookie_env", "`APP_COOKIE` is not set"]);
    refused(dir.parse(&format!("node: {{ name: a@h, cookie_env: {SECRET} }}")), &["node.cookie_env", "not the secret"]);
}

#[test]
fn names_must_be_well_formed() {
    let dir = Dir::new();
    let named = |name: &str| dir.parse(&format!("node: {{ name: {name}, cookie_file: cookie }}"));
    refused(named("''"), &["app.yaml:1:15: node.name", "the node name is empty"]);
    refused(named(&format!("{}@h", "n".repeat(254))), &["node.name", "256 bytes", "255"]);
    refused(named("no-host"), &["node.name", "name@host"]);
    assert!(named(&format!("{}@h", "n".repeat(253))).is_ok());
    refused(dir.parse("node: { cookie_file: cookie }"), &["node.name", "has no name"]);
}

#[test]
fn an_admin_listener_on_tcp_needs_a_strong_token() {
    let dir = Dir::new();
    dir.secret("weak", "canary\n");
    dir.secret("same", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    let admin = |rest: &str| dir.node(&format!("  admin: {{ listen: \"127.0.0.1:4490\"{rest} }}\n"));
    refused(admin(""), &["node.admin.listen", "has no token", "openssl rand -hex 16", "socket: default"]);
    // Thirty-one hexadecimal digits carry 124 bits, four too few.
    dir.secret("short-hex", "0123456789abcdef0123456789abcde");
    refused(admin(", token_file: short-hex"), &["node.admin.token_file", "too weak", "128 bits"]);
    refused(admin(", token_file: weak"), &["node.admin.token_file", "too weak", "128 bits"]);
    refused(admin(", token_file: same"), &["node.admin.token_file", "too weak"]);
    refused(admin(", token_env: NOPE"), &["node.admin.token_env", "`NOPE` is not set"]);
    refused(dir.node("  admin: { token_file: weak }\n"), &["node.admin.token_file", "only a TCP listener"]);
    refused(dir.node("  admin: tcp\n"), &["app.yaml:4:10: node.admin", "socket: default"]);
}

#[test]
fn a_certificate_and_its_key_come_together_and_are_readable() {
    let dir = Dir::new();
    dir.file("me.pem", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", 0o644);
    dir.file("me.key", "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n", 0o644);
    let profile = |text: &str| dir.with(&format!("tls_profiles: {{ p: {{ {text} }} }}\n"));
    refused(profile("certificate: me.pem"), &["tls_profiles.p.certificate", "has no key", "`key: FILE`"]);
    refused(profile("key: me.key"), &["tls_profiles.p.key", "has no certificate"]);
    refused(profile("roots: absent.pem"), &["app.yaml:2:29: tls_profiles.p.roots", "does not exist"]);
    refused(profile("roots: cookie"), &["tls_profiles.p.roots", "-----BEGIN … CERTIFICATE-----"]);
    refused(dir.node("  listen: [{ tls: { certificate: me.pem } }]\n"), &["node.listen[0].tls.certificate", "key"]);
    let config = profile("certificate: me.pem, key: me.key").unwrap();
    assert!(config.warnings()[0].contains("chmod 600"), "{:?}", config.warnings());
    let listen =
        |text: &str| dir.node(&format!("  listen: [{{ tls: {{ certificate: me.pem, key: me.key{text} }} }}]\n"));
    let tls = listen(", client_ca: me.pem, cert_name: required").unwrap().node.listen[0].tls.clone().unwrap();
    assert!(tls.cert_name_required && !tls.client_optional);
    for without in ["", ", client_ca: me.pem, client_certificate: optional"] {
        refused(
            listen(&format!("{without}, cert_name: required")),
            &["node.listen[0].tls.cert_name", "`client_ca: FILE`"],
        );
    }
    assert!(profile("cert_name: required").unwrap().tls_profiles.values().all(|profile| profile.cert_name_required));
    refused(profile("cert_name: perhaps"), &["tls_profiles.p.cert_name", "perhaps", "`required`"]);
}

#[test]
fn wrong_types_and_values_are_reported_with_their_place() {
    let dir = Dir::new();
    refused(
        dir.with("routes: [{ match: a, port: 1, weight: heavy }]\n"),
        &["app.yaml:2:39: routes[0].weight", "whole number"],
    );
    refused(dir.with("routes: [{ match: a, port: 1, weight: 1.5 }]\n"), &["routes[0].weight", "a fraction"]);
    refused(dir.with("routes: [{ match: 5, port: 1 }]\n"), &["routes[0].match", "put it in quotes"]);
    refused(dir.with("routes: { match: a }\n"), &["routes: expected a list, found a mapping"]);
    refused(dir.with("routes: [a]\n"), &["routes[0]: expected a mapping"]);
    refused(dir.with("tls_profiles: [a]\n"), &["tls_profiles: expected a mapping"]);
    refused(dir.node("  tls: maybe\n"), &["node.tls: expected true or false, found text"]);
    refused(dir.node("  fallback: sometimes\n"), &["node.fallback", "never, on_miss or on_failure"]);
    refused(dir.node("  registrar: etcd\n"), &["node.registrar", "known: embedded, none"]);
    refused(dir.node("  handshake: erlang\n"), &["node.handshake", "TLK/1"]);
    refused(dir.node("  timeouts: { dns_ms: 0 }\n"), &["node.timeouts.dns_ms", "from 1 to 3600000"]);
    refused(dir.with("routes: [{ match: a, port: 1, fallback: on_miss }]\n"), &["routes[0].fallback", "write never"]);
    refused(dir.with("routes: [{ match: a, port: 1, host: 'http://x' }]\n"), &["routes[0].host", "http://x"]);
    refused(dir.with("node2: {}\n"), &["node2"]);
}

#[test]
fn a_file_that_is_not_a_configuration_is_refused_with_a_reason() {
    let dir = Dir::new();
    refused(dir.parse(""), &["app.yaml: the file is empty"]);
    refused(dir.parse("# nothing\n"), &["the file is empty"]);
    refused(dir.parse("- a\n"), &["app.yaml:1:1: expected a mapping", "found a list"]);
    refused(dir.parse("hello\n"), &["expected a mapping", "found text"]);
    refused(dir.parse("routes: [\n"), &["app.yaml:1:9: not well-formed YAML"]);
    refused(dir.parse("routes: []\n"), &["node: the section is missing"]);
    refused(dir.parse("node: {}\n---\nnode: {}\n"), &["more than one YAML document"]);
    refused(Config::load(&dir.path().join("absent.yaml"), &Layers::none()), &["absent.yaml: the file does not exist"]);
}

#[test]
fn independent_problems_are_reported_together() {
    let text =
        "node: { name: '', cookie_file: absent, tls: 5 }\nroutes: [{ match: '(', port: 0, host: 'a b' }]\nx: 1\n";
    let error = Dir::new().parse(text).unwrap_err();
    let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key()).collect();
    let expected =
        ["x", "node.name", "node.cookie_file", "node.tls", "routes[0].match", "routes[0].host", "routes[0].port"];
    assert_eq!(keys, expected);
    assert_eq!(error.to_string().split("\n\n").count(), expected.len());
}

#[test]
fn a_weak_cookie_causes_a_warning() {
    let dir = Dir::new();
    dir.secret("weak", "password1");
    let config = dir.with("routes: [{ match: a, port: 1, cookie_file: weak }]\n").unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert!(config.warnings()[0].starts_with("routes[0].cookie_file: the cookie is weak"), "{:?}", config.warnings());
    assert!(!config.warnings()[0].contains("password1"));
}

#[test]
fn relative_paths_are_resolved_beside_the_loaded_file() {
    let dir = Dir::new();
    let path = dir.file("app.yaml", "node: { name: app@h, cookie_file: cookie }\n", 0o644);
    assert_eq!(Config::load(&path, &Layers::none()).unwrap().node.data_dir, dir.path().join("app.data"));
}

#[test]
fn thirty_thousand_routes_load_and_a_byte_order_mark_is_ignored() {
    let mut text = String::from("\u{feff}# many\nroutes:\n");
    for i in 0..30_000 {
        text.push_str(&format!("  - {{ match: '^n{i}@', weight: {i}, host: h{i}, port: 1, tls: true }}\n"));
    }
    text.push_str("node: { name: a@h, cookie_file: cookie }\n");
    assert_eq!(Dir::new().parse(&text).unwrap().routes.len(), 30_000);
}

#[test]
fn keep_alive_and_dead_after_that_contradict_are_refused() {
    let node = |text: &str| Dir::new().node(&format!("\n  {text}\n"));
    refused(node("keep_alive_ms: 99"), &["node.keep_alive_ms", "from 100 to 3600000"]);
    refused(node("dead_after_ms: 999"), &["node.dead_after_ms", "from 1000 to 3600000"]);
    refused(
        node("keep_alive_ms: 15000"),
        &["node.keep_alive_ms", "considered dead after 15000 ms", "below `dead_after_ms`"],
    );
    refused(node("dead_after_ms: 5000"), &["node.dead_after_ms", "considered dead after 5000 ms", "(it is 5000)"]);
    let route = |text: &str| Dir::new().with(&format!("routes: [{{ match: a, port: 1, {text} }}]\n"));
    refused(route("keep_alive_ms: 1"), &["routes[0].keep_alive_ms", "from 100"]);
    refused(route("dead_after_ms: 10"), &["routes[0].dead_after_ms", "from 1000"]);
    refused(route("keep_alive_ms: 2000, dead_after_ms: 2000"), &["routes[0].dead_after_ms", "below `dead_after_ms`"]);
    assert!(route("dead_after_ms: 2000").is_ok());
}

#[test]
fn services_and_forwards_are_read_and_their_problems_are_reported() {
    let dir = Dir::new();
    let text = "services:\n  postgres: { connect: db.internal:5432, allow: [\"app@.*\"], idle_ms: 60000 }\n  local: { connect: unix:run/s, \
                allow: [] }\nforwards:\n  - { listen: 127.0.0.1:0, name: db@lab, service: postgres }\n  - { listen: \
                unix:pg.sock, name: db@lab, service: postgres, idle_ms: 1000 }\n";
    let config = dir.with(text).unwrap();
    assert_eq!(config.services["postgres"].connect.to_string(), "db.internal:5432");
    assert_eq!(config.services["local"].connect.to_string(), format!("unix:{}", dir.path().join("run/s").display()));
    assert!(config.services["postgres"].allow[0].is_match("app@lab") && config.services["local"].allow.is_empty());
    assert_eq!(config.forwards[0].listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.forwards[1].listen.to_string(), format!("unix:{}", dir.path().join("pg.sock").display()));
    assert_eq!(
        (config.forwards[1].name.to_string(), config.forwards[1].service.as_str()),
        ("db@lab".into(), "postgres")
    );

    let idle = |ms| Some(std::time::Duration::from_millis(ms));
    assert_eq!((config.services["postgres"].idle, config.services["local"].idle), (idle(60_000), None));
    assert_eq!((config.forwards[0].idle, config.forwards[1].idle), (None, idle(1_000)));

    let service = |text: &str| Dir::new().with(&format!("services: {{ s: {{ {text} }} }}\n"));
    refused(service("allow: []"), &["app.yaml:2", "services.s.connect", "HOST:PORT or unix:PATH"]);
    refused(service("connect: 5432, allow: []"), &["services.s.connect", "expected text"]);
    refused(service("connect: \"localhost\", allow: []"), &["services.s.connect", "neither HOST:PORT nor unix:PATH"]);
    refused(service("connect: \"h:1\""), &["services.s", "`allow` is missing"]);
    refused(service("connect: \"h:1\", allow: [\"(\"]"), &["services.s.allow[0]"]);
    refused(service("connect: \"h:1\", allow: [], tls: true"), &["services.s.tls", "unknown key"]);
    refused(Dir::new().with("services: [a]\n"), &["services", "a mapping from names to services"]);
    refused(service("connect: \"h:1\", allow: [], idle_ms: 999"), &["services.s.idle_ms", "from 1000 to 86400000"]);
    let forward = |text: &str| Dir::new().with(&format!("forwards: [{{ {text} }}]\n"));
    refused(forward("name: a@b, service: s"), &["forwards[0].listen", "IP:PORT or unix:PATH"]);
    refused(forward("listen: \"localhost:1\", name: a@b, service: s"), &["forwards[0].listen", "neither IP:PORT"]);
    refused(forward("listen: \"127.0.0.1:1\", service: s"), &["forwards[0].name", "the node it leads to"]);
    refused(forward("listen: \"127.0.0.1:1\", name: a@b"), &["forwards[0].service"]);
    refused(forward("listen: \"127.0.0.1:1\", name: \"a b\", service: s"), &["forwards[0].name"]);
    refused(forward("listen: \"127.0.0.1:1\", name: a@b, service: \"\""), &["forwards[0].service", "1 to 255 bytes"]);
    refused(forward("listen: \"127.0.0.1:1\", name: a@b, service: s, idle_ms: 0"), &["forwards[0].idle_ms"]);
    let twice = "forwards: [{ listen: \"127.0.0.1:1\", name: a@b, service: s }, { listen: \"127.0.0.1:1\", name: c@d, \
                 service: s }]\n";
    refused(Dir::new().with(twice), &["forwards[1].listen", "127.0.0.1:1 is used by two forwards"]);
}

#[test]
fn proxy_routes_and_transit_are_read_and_their_problems_are_reported() {
    let dir = Dir::new();
    dir.secret("gate", "the cookie of the gateway\n");
    dir.secret("inner", "the cookie of the backend\n");
    let text = "tls_profiles: { lab: {} }\nproxy_routes:\n  - match: \"backend-.*@\"\n    proxy: gateway@dmz\n    weight: 7\n    to: \
                backend-db@in\n    max_hop: 3\n    direct: never\n    cookie_file: gate\n    target: { cookie_file: inner, tls: true, \
                tls_profile: lab, flags: { remote_spawn: false } }\n  - { match: x, proxy: g@h }\ntransit:\n  gateways: [\"outer@.*\"]\n  \
                rules: [{ from: \"app@.*\", to: \"db@.*\", flags: { remote_spawn: false } }]\n  circuits: 9\n  \
                opens_per_second: 3\n  per_address: 90\n  idle_ms: 15000\nproxied:\n  allow: [\"app@.*\"]\n  gateways: [\"gate@.*\"]\n  \
                flags: { link: false }\n";
    let config = dir.with(text).unwrap();
    let (full, short) = (&config.proxy_routes[0], &config.proxy_routes[1]);
    assert_eq!((full.weight, full.route.gateway().as_str(), full.route.most_hops().get()), (7, "gateway@dmz", 3));
    assert_eq!(full.route.only_to().map(NodeName::as_str), Some("backend-db@in"));
    assert_eq!(full.route.direct_use(), trunkline_route::DirectUse::Never);
    assert_eq!(full.route.gateway_cookie().unwrap().expose(), b"the cookie of the gateway");
    let target = full.route.target_route();
    assert_eq!((target.cookie().unwrap().expose(), target.tls()), (&b"the cookie of the backend"[..], Some(true)));
    assert_eq!(target.flags().mentioned().collect::<Vec<_>>(), [(Flag::RemoteSpawn, false)]);
    assert_eq!((short.weight, short.route.most_hops().get()), (100, 8));
    assert_eq!((config.transit.circuits, config.transit.per_peer, config.transit.opens_per_second), (9, 64, 3));
    assert_eq!((config.transit.per_address, trunkline_config::TransitConfig::default().per_address), (90, 256));
    let rule = &config.transit.rules[0];
    assert!(rule.from.is_match("app@x") && config.transit.gateways[0].is_match("outer@x"));
    assert_eq!(rule.flags, PeerFlags::ALL.with(Flag::RemoteSpawn, false));
    assert_eq!(config.transit.idle, std::time::Duration::from_secs(15));
    let proxied = &config.proxied;
    assert!(
        proxied.allow.as_ref().unwrap()[0].is_match("app@x")
            && proxied.gateways.as_ref().unwrap()[0].is_match("gate@x")
    );
    assert_eq!(proxied.flags, PeerFlags::ALL.with(Flag::Link, false));
    let plain = Dir::new().with("").unwrap();
    assert_eq!(plain.transit, trunkline_config::TransitConfig::default());
    assert_eq!(plain.proxied, trunkline_config::ProxiedConfig::default());

    let proxy = |text: &str| Dir::new().with(&format!("proxy_routes: [{{ {text} }}]\n"));
    refused(proxy("proxy: g@h"), &["proxy_routes[0].match", "has no `match`"]);
    refused(proxy("match: a"), &["proxy_routes[0].proxy", "the gateway's name"]);
    refused(proxy("match: \"(\", proxy: g@h"), &["proxy_routes[0].match"]);
    refused(proxy("match: \"\", proxy: g@h"), &["proxy_routes[0].match", "every name"]);
    refused(proxy("match: a, proxy: \"no name\""), &["proxy_routes[0].proxy"]);
    refused(proxy("match: a, proxy: g@h, max_hop: 0"), &["proxy_routes[0].max_hop", "from 1 to 16"]);
    refused(proxy("match: a, proxy: g@h, direct: last"), &["proxy_routes[0].direct", "first, never or only"]);
    refused(proxy("match: a, proxy: g@h, host: h"), &["proxy_routes[0].host", "unknown key"]);
    refused(proxy("match: a, proxy: g@h, target: { host: h }"), &["proxy_routes[0].target.host", "unknown key"]);
    let unknown = "match: a, proxy: g@h, target: { tls: true, tls_profile: p }";
    refused(proxy(unknown), &["proxy_routes[0].target.tls_profile", "unknown TLS profile"]);
    let twice = "proxy_routes: [{ match: a, proxy: g@h }, { match: a, proxy: i@h }]\n";
    refused(Dir::new().with(twice), &["proxy_routes[1]"]);
    let transit = |text: &str| Dir::new().with(&format!("transit: {{ {text} }}\n"));
    refused(transit("rules: [{ from: a }]"), &["transit.rules[0].to", "patterns of whole names"]);
    refused(transit("rules: [{ from: \"(\", to: b }]"), &["transit.rules[0].from"]);
    refused(
        transit("rules: [{ from: a, to: b, flags: { spawn: false } }]"),
        &["transit.rules[0].flags.spawn", "unknown key"],
    );
    for ms in [0, 10, 5_000, 14_999] {
        let parts = ["transit.idle_ms", &format!("{ms} ms would end"), "a ping every 5 s", "from 15000"];
        refused(transit(&format!("idle_ms: {ms}")), &parts);
    }
    let dir = Dir::new();
    let slow = dir.node("  keep_alive_ms: 20000\n  dead_after_ms: 60000\ntransit: { idle_ms: 20000 }\n");
    refused(slow, &["transit.idle_ms", "not longer than `node.keep_alive_ms` (20000)"]);
    refused(Dir::new().with("proxied: { allow: yes }\n"), &["proxied.allow", "a list"]);
    refused(Dir::new().with("proxied: { gateways: [\"(\"] }\n"), &["proxied.gateways[0]"]);
    refused(transit("burst: 0"), &["transit.burst", "from 1 to 65536"]);
    refused(transit("enabled: true"), &["transit.enabled", "unknown key"]);
}

#[test]
fn a_gateway_that_could_impersonate_the_node_behind_it_causes_a_warning() {
    let warned = |rest: &str| {
        let dir = Dir::new();
        dir.secret("other", "another cookie that is long enough for anything\n");
        let config = dir.with(&format!("tls_profiles: {{ lab: {{}} }}\n{rest}")).unwrap();
        config
            .warnings()
            .iter()
            .filter(|warning| warning.contains("could impersonate that node"))
            .cloned()
            .collect::<Vec<_>>()
    };
    let route = |more: &str| {
        format!("proxy_routes: [{{ match: a, proxy: gate@dmz{more} }}, {{ match: b, proxy: gate@dmz{more} }}]\n")
    };
    let told = warned(&route(""));
    assert!(told.len() == 1 && told[0].starts_with("proxy_routes[0]: gate@dmz holds the cookie"), "{told:?}");
    for fine in [
        route(", target: { cookie_file: other }"),
        route(", cookie_file: other"),
        route(", target: { tls: true, tls_profile: lab }"),
        format!("{}routes: [{{ match: '^gate@', host: h, port: 1, cookie_file: other }}]\n", route("")),
        format!("{}peers: [{{ match: 'gate@.*', cookie_file: other }}]\n", route("")),
    ] {
        assert_eq!(warned(&fine), Vec::<String>::new(), "{fine}");
    }
    assert_eq!(warned(&route(", cookie_file: other, target: { cookie_file: other }")).len(), 1);
}

#[test]
fn a_pattern_that_no_name_can_match_is_refused_in_every_section() {
    let dir = Dir::new();
    let text = "routes:\n  - match: |\n      ^db@\n    port: 1\n";
    refused(
        dir.with(text),
        &[
            "routes[0].match: no node name can match",
            r"'\n' (U+000A)",
            "begin the block with `|-`",
            "\n    ^db@␊\n        ^",
        ],
    );
    let places = [
        ("proxy_routes: [{ match: PATTERN, proxy: g@h }]\n", "proxy_routes[0].match"),
        ("peers: [{ match: PATTERN, cookie_file: cookie }]\n", "peers[0].match"),
        ("transit: { rules: [{ from: PATTERN, to: b@h }] }\n", "transit.rules[0].from"),
        ("transit: { rules: [{ from: a@h, to: PATTERN }] }\n", "transit.rules[0].to"),
        ("transit: { gateways: [PATTERN] }\n", "transit.gateways[0]"),
        ("proxied: { allow: [PATTERN] }\n", "proxied.allow[0]"),
        ("proxied: { gateways: [PATTERN] }\n", "proxied.gateways[0]"),
        ("spawn: { s: { command: [x], allow: [PATTERN] } }\n", "spawn.s.allow[0]"),
        ("services: { s: { connect: 'h:1', allow: [PATTERN] } }\n", "services.s.allow[0]"),
        (
            "applications: { s: { processes: [{ mailbox: s, command: [x] }], allow: [PATTERN] } }\n",
            "applications.s.allow[0]",
        ),
    ];
    for (pattern, character) in
        [("'app @.*'", "' ' (U+0020)"), (r#""db\u200b@.*""#, r"'\u{200b}' (U+200B)"), (r"'db\s@.*'", "U+0009")]
    {
        for (text, key) in places {
            refused(dir.with(&text.replace("PATTERN", pattern)), &[key, "no node name can match", character]);
        }
        let listen = format!("  listen: [{{ allow: [{pattern}] }}]\n");
        refused(dir.node(&listen), &["node.listen[0].allow[0]", "no node name can match", character]);
    }
    dir.with("routes: [{ match: 'db( |-)x', port: 1 }, { match: '[\\s-]', port: 1 }]\n").unwrap();
}

#[test]
fn a_duplicate_pattern_is_refused_with_another_way_to_write_it() {
    let text =
        "routes:\n  - { match: '^shop@', host: h, port: 1 }\n  - { match: '^shop@', host: i, port: 1, weight: 50 }\n";
    refused(Dir::new().with(text), &["routes[1].match", "first in routes[0].match", "`^(?:shop)@`"]);
    let config = Dir::new().with(&text.replacen("'^shop@'", "'^(?:shop)@'", 1)).unwrap();
    assert!(config.routes.iter().all(|route| route.pattern.is_match("shop@x") && !route.pattern.is_match("a-shop@x")));
}
