use std::net::TcpListener;

use serde_json::Value;

use crate::peer::Peer;
use crate::world::{Dir, eventually, free_port};

fn routes(dir: &Dir) -> Value {
    dir.json(&["routes", "list"])
}

#[test]
fn a_route_that_cannot_be_added_does_not_change_the_list() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', host: 127.0.0.1, port: 1 }\n");
    let node = dir.node(&file, &[]);
    let before = (routes(&dir), dir.read(&file));
    for save in [&[][..], &["--save"]] {
        let refused = |args: &[&str], parts: &[&str]| {
            let args: Vec<_> = ["routes", "add"].iter().chain(args).chain(save).copied().collect();
            dir.run(&args).refused(parts);
            assert_eq!((routes(&dir), dir.read(&file)), before);
        };
        refused(&["^db(", "--port", "9"], &["match: ", "^db("]);
        refused(&["^db@", "--port", "9"], &["`^db@` exists", "remove it first", "`^(?:db)@`"]);
        refused(&["^x@\n", "--port", "9"], &["match: no node name can match", "(U+000A)", "^x@␊"]);
        refused(&["^x @", "--port", "9"], &["match: no node name can match", "(U+0020)"]);
        refused(&["^x@", "--port", "0"], &["port: ", "1 to 65535"]);
        refused(&["^x@", "--resolver", "nobody"], &["resolver: ", "set `node.registrar: embedded`"]);
        refused(&["^x@", "--port", "9", "--tls", "true", "--tls-profile", "gone"], &["tls_profile"]);
        refused(&["^x@", "--port", "9", "--cookie-file", "gone"], &["cookie_file: ", "does not exist"]);
    }
    let ran = dir.run(&["routes", "add", "^x@"]).exits(2);
    assert!(ran.stderr.contains("--port"), "{}", ran.stderr);
    let ran = dir.run(&["routes", "remove", "^gone@", "--save"]).exits(1);
    assert!(ran.stderr.contains("no route has exactly the pattern"), "{}", ran.stderr);
    assert_eq!((routes(&dir), dir.read(&file)), before);
    node.stop();
}

#[test]
fn a_saved_route_is_written_to_the_file_without_losing_comments_and_survives_a_restart() {
    let dir = Dir::new();
    let rest = "# ways to our peers\nroutes:\n  # the old one\n  - { match: '^db@', port: 1 }   # kept\n";
    let file = dir.config("app", rest);
    let original = dir.read(&file);
    let node = dir.node(&file, &[]);
    dir.ok(&["routes", "add", "^cache@", "--host", "127.0.0.1", "--port", "7", "--weight", "-5", "--save"]);
    dir.ok(&["routes", "add", "^passing@", "--port", "8"]);
    let added = dir.read(&file);
    assert!(added.starts_with(&original), "{added}");
    assert!(!added.contains("passing"), "{added}");
    let live = routes(&dir);
    let order: Vec<_> = live.as_array().unwrap().iter().map(|r| r["match"].as_str().unwrap()).collect();
    assert_eq!(order, ["^db@", "^passing@", "^cache@"]);
    node.stop();

    let node = dir.node(&file, &[]);
    let after = routes(&dir);
    assert_eq!((&after[0], &after[1], after.as_array().unwrap().len()), (&live[0], &live[2], 2));
    dir.ok(&["routes", "remove", "^cache@", "--save"]);
    assert_eq!(dir.read(&file), original);
    let said = dir.ok(&["routes", "remove", "^db@"]).stdout;
    assert!(said.contains("it is still in the file"), "{said}");
    assert_eq!(routes(&dir), Value::Array(Vec::new()));
    assert_eq!(dir.ok(&["routes", "list"]).stdout, "no static routes\n");
    dir.ok(&["reload"]);
    assert_eq!(routes(&dir)[0]["match"], "^db@");
    node.stop();
}

#[test]
fn a_change_that_cannot_be_saved_is_not_applied_either() {
    let node = "name: app@127.0.0.1, cookie_file: cookie, data_dir: app.data, registrar: none";
    for layout in [format!("{{ node: {{ {node} }} }}\n"), format!("node: {{ {node} }}\npeers: &a []\nroutes: *a\n")] {
        let dir = Dir::new();
        dir.file("app.yaml", &layout, 0o600);
        let node = dir.node("app.yaml", &[]);
        dir.run(&["routes", "add", "^x@", "--port", "9", "--save"]).refused(&["app.yaml", "edit the file by hand"]);
        assert_eq!(routes(&dir), Value::Array(Vec::new()));
        dir.ok(&["routes", "add", "^x@", "--port", "9"]);
        dir.run(&["routes", "remove", "^x@", "--save"]).refused(&["app.yaml", "no route has the pattern"]);
        assert_eq!(routes(&dir)[0]["match"], "^x@");
        assert_eq!(dir.read("app.yaml"), layout);

        std::fs::remove_file(dir.at("app.yaml")).unwrap();
        let ran = dir.run(&["routes", "add", "^y@", "--port", "9", "--save"]).exits(1);
        assert!(ran.stderr.contains("app.yaml cannot be read"), "{}", ran.stderr);
        assert_eq!(routes(&dir).as_array().unwrap().len(), 1);
        node.stop();
    }
}

#[test]
fn a_proxy_route_that_no_name_can_match_is_not_added() {
    let dir = Dir::new();
    let node = dir.node(&dir.config("app", ""), &[]);
    let add = ["proxy-routes", "add", "^x@\n", "--proxy", "gate@h"];
    dir.run(&add).refused(&["match: no node name can match", "(U+000A)"]);
    assert_eq!(dir.json(&["proxy-routes", "list"]), Value::Array(Vec::new()));
    node.stop();
}

#[test]
fn a_file_that_became_invalid_is_not_overwritten() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', port: 1 }\n");
    let good = dir.read(&file);
    let node = dir.node(&file, &[]);
    let before = routes(&dir);
    let spoilt = [
        ("", "the section is missing"),
        (&good.replace("name:", "nmae:"), "did you mean `name`?"),
        (&format!("{good}peers: [{{ match: a }}]\n"), "a peer needs a cookie"),
    ];
    for (text, problem) in spoilt {
        dir.file(&file, text, 0o600);
        let add = ["routes", "add", "^x@", "--port", "9", "--save"];
        dir.run(&add).refused(&["app.yaml: not saved, nothing changed", problem]);
        if !text.is_empty() {
            let remove = ["routes", "remove", "^db@", "--save"];
            dir.run(&remove).refused(&["app.yaml: not saved, nothing changed", problem]);
        }
        assert_eq!((dir.read(&file), routes(&dir)), (text.to_owned(), before.clone()));
    }
    dir.file(&file, &good, 0o444);
    let ran = dir.run(&["routes", "add", "^x@", "--port", "9", "--save"]).exits(1);
    assert!(ran.stderr.contains("app.yaml") && ran.stderr.contains("read-only"), "{}", ran.stderr);
    assert_eq!((dir.read(&file), routes(&dir)), (good, before));
    node.stop();
}

#[test]
fn routes_are_not_saved_to_a_file_whose_section_a_higher_layer_replaces() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let node = dir.node(&file, &["--set", "routes=[{ match: '^db@', port: 1 }]"]);
    assert_eq!(routes(&dir)[0]["match"], "^db@");
    dir.run(&["routes", "add", "^x@", "--port", "9", "--save"]).refused(&["--set routes", "leave `save` out"]);
    assert_eq!(routes(&dir).as_array().unwrap().len(), 1);
    node.stop();
}

#[test]
fn an_added_route_is_used_at_once_and_a_removed_one_is_not_used_any_more() {
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", ""), &["--answer", "echo"]);
    let app = dir.node(&dir.config("app", "  fallback: never\n"), &[]);
    let admin = app.admin();
    let call = ["call", "--admin", admin, "db@127.0.0.1", "echo", "hi"];
    dir.run(&call).exits(1);
    dir.ok(&["routes", "add", "--admin", admin, "^db@", "--port", &db.port().to_string()]);
    assert_eq!(dir.ok(&call).stdout, "hi");
    dir.ok(&["routes", "remove", "--admin", admin, "^db@"]);
    assert_eq!(dir.ok(&call).stdout, "hi", "a live connection stays up");
    dir.ok(&["disconnect", "--admin", admin, "db@127.0.0.1"]);
    crate::world::eventually("the connection has ended", || {
        dir.json(&["nodes", "--admin", admin]).as_array().unwrap().is_empty().then_some(())
    });
    dir.run(&call).exits(1);
}

#[test]
fn ipv6_addresses_are_dialled_and_shown_in_brackets() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        panic!("this test needs the IPv6 loopback address ::1, which cannot be bound here: {error}");
    }
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", "  listen: [{ host: '::1' }]\n"), &["--answer", "echo"]);
    let listening = db.ready["listening"][0].as_str().unwrap();
    assert!(listening.starts_with("[::1]:"), "{listening}");
    let rest = format!("routes:\n  - {{ match: '^db@', host: '::1', port: {} }}\n", db.port());
    let app = dir.node(&dir.config("app", &rest), &[]);
    let other = dir.node(&dir.config("other", ""), &[]);
    dir.ok(&["routes", "add", "--admin", other.admin(), "^db@", "--host", "::1", "--port", &db.port().to_string()]);
    for node in [&app, &other] {
        let admin = node.admin();
        let shown = |args: &[&str]| {
            let args: Vec<_> = args.iter().chain(&["--admin", admin]).copied().collect();
            let text = dir.ok(&args).stdout;
            assert!(text.contains(listening), "{text}");
        };
        assert_eq!(dir.ok(&["call", "--admin", admin, "db@127.0.0.1", "echo", "v6"]).stdout, "v6");
        shown(&["ping", "db@127.0.0.1"]);
        shown(&["explain", "db@127.0.0.1"]);
        shown(&["routes", "list"]);
        shown(&["nodes"]);
    }
    shown_by_config(&dir, listening);
}

fn shown_by_config(dir: &Dir, listening: &str) {
    let text = dir.ok(&["explain", "--config", "app.yaml", "db@127.0.0.1"]).stdout;
    assert!(text.contains(listening), "{text}");
}

#[test]
fn a_suspicious_pattern_causes_a_warning_and_is_used_unchanged() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^prod-*', port: 1 }\n");
    let said = dir.ok(&["check", &file]).stdout;
    let warning = "warning: app.yaml:7:14: routes[0].match: this is any number of the character before it, also none; \
                   if that is not meant, write `^prod-.*`\n    ^prod-*\n          ^";
    assert!(said.contains(warning), "{said}");
    let told = dir.json(&["check", &file]);
    assert_eq!(told["warnings"].as_array().unwrap().len(), 1);

    let allowing =
        dir.config("allows", "  listen: [{ allow: ['ops-*'] }]\npeers: [{ match: 'a@b.c.d', cookie_file: cookie }]\n");
    let told = dir.ok(&["check", &allowing]).stdout;
    assert!(told.contains("write `ops-.*`") && told.contains(r"write `a@b\.c\.d`"), "{told}");

    let node = dir.node(&file, &[]);
    let added = dir.json(&["routes", "add", "db@eu.example.com", "--port", "9"]);
    let told: Vec<_> = added["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert!(
        told[0].contains("this dot is any character") && told[1].contains(r"write `^db@eu\.example\.com$`"),
        "{told:?}"
    );
    assert!(dir.json(&["routes", "add", "^web@", "--port", "9"]).get("warnings").is_none());
    let said = dir.ok(&["routes", "add", "cache-*", "--port", "9"]).stdout;
    assert!(said.contains("\nwarning: ") && said.contains("    cache-*\n          ^"), "{said}");
    assert_eq!(routes(&dir)[0]["match"], "^prod-*");
    node.stop();
}

#[test]
fn status_and_explain_show_the_class_of_each_pattern() {
    let dir = Dir::new();
    let rest = "routes:\n  - { match: '^cache@', port: 1 }\n  - { match: '[a-z]@127', port: 2 }\n  - { match: '\\d|e@1', port: 3 }\n";
    let node = dir.node(&dir.config("app", rest), &[]);
    let patterns = &dir.json(&["status"])["patterns"];
    assert_eq!(patterns["classes"], serde_json::json!({ "literal": 1, "glob": 1, "literal-free": 1 }));
    assert!(patterns["heap_bytes"].as_u64().unwrap() > 0 && patterns["many_literal_free"] == false);
    assert!(dir.ok(&["status"]).stdout.contains("1 glob, 1 literal, 1 literal-free; "));
    let steps = dir.json(&["explain", "cache@127.0.0.1"])["steps"].clone();
    let classes: Vec<_> = (0..3).map(|n| steps[n]["class"].as_str().unwrap()).collect();
    assert_eq!(classes, ["literal", "glob", "literal-free"]);
    node.stop();
}

#[test]
fn a_route_can_ask_a_file_of_names_and_override_fields_of_the_answers() {
    let dir = Dir::new();
    let peer = Peer::start(&dir, "peer");
    let names =
        |port: u16| dir.file("names.yaml", &format!("peer@127.0.0.1: [{{ host: 192.0.2.1, port: {port} }}]\n"), 0o644);
    names(peer.port());
    let rest = "registrars:\n  lab: { kind: file, path: names.yaml }\n  far: { kind: embedded, host: 192.0.2.1 }\nroutes:\n  \
                - { match: '^peer@', resolver: lab, override: { host: 127.0.0.1 } }\n";
    let file = dir.config("app", rest);
    dir.ok(&["check", &file]);
    dir.ok(&["ping", "--config", &file, "peer@127.0.0.1"]);
    let asked = dir.config("asks", &rest.replace("override: { host: 127.0.0.1 }", "tls: false"));
    dir.ok(&["explain", "--config", &asked, "peer@127.0.0.1"]);

    // A change of the file is effective at once, and an error in it is reported with its place.
    names(1);
    let refused = dir.run(&["ping", "--config", &file, "peer@127.0.0.1"]).exits(1);
    assert!(refused.stderr.contains("route ^peer@ by lab at 127.0.0.1:1"), "{}", refused.stderr);
    dir.file("names.yaml", "peer@127.0.0.1: [{ host: 192.0.2.1, prot: 1 }]\n", 0o644);
    dir.run(&["check", &file]).refused(&[
        "app.yaml: registrars.lab.path cannot be used: ",
        "names.yaml: line 1, ",
        "unknown key",
    ]);
    let refused = dir.run(&["ping", "--config", &file, "peer@127.0.0.1"]).exits(1);
    assert!(refused.stderr.contains("unknown key"), "{}", refused.stderr);
}

#[test]
fn an_invalid_registrar_is_refused_with_a_remedy() {
    let dir = Dir::new();
    for (registrars, says) in [
        ("lab: { path: names.yaml }", &["registrars.lab.kind", "has no `kind`"][..]),
        ("lab: { kind: file }", &["registrars.lab.path", "needs a `path`"]),
        ("lab: { kind: dns, servers: [10.0.0.1, ns.lab] }", &["registrars.lab.servers[1]", "is an IP address, or"]),
        ("lab: { kind: dns, srv: '_x._tcp.{hots}' }", &["registrars.lab.srv", "neither {name} nor {host}"]),
        ("lab: { kind: dns, gateways: 'a b' }", &["registrars.lab.gateways", "\"a b\" is no host"]),
        ("lab: { kind: dns, ports: [{ match: 'db@(' , port: 1 }] }", &["registrars.lab.ports[0].match"]),
        ("lab: { kind: dns, ports: [{ match: 'db@.*' }] }", &["registrars.lab.ports[0].port", "is missing"]),
        ("lab: { kind: dns, services: _x.lab }", &["registrars.lab.services", "has {name} for the service"]),
        ("lab: { kind: dns, port: 0 }", &["registrars.lab.port"]),
        ("lab: { kind: dns, host: h }", &["registrars.lab.host", "of kind dns does not take this key"]),
        ("lab: { kind: mdns }", &["registrars.lab.kind", "known: embedded, file, dns, etcd"]),
        ("lab: { kind: etcd }", &["registrars.lab.endpoints", "needs a `endpoints`"]),
        ("lab: { kind: etcd, endpoints: [] }", &["registrars.lab.endpoints", "names no endpoint"]),
        ("lab: { kind: etcd, endpoints: ['a b'] }", &["registrars.lab.endpoints[0]", "a host, or a host and a port"]),
        ("lab: { kind: etcd, endpoints: [a, ftp://b] }", &["registrars.lab.endpoints[1]"]),
        ("lab: { kind: etcd, endpoints: [http://a, https://b] }", &["registrars.lab.endpoints[1]", "set `tls`"]),
        ("lab: { kind: etcd, endpoints: [http://a], tls: true }", &["registrars.lab.endpoints", "without TLS"]),
        ("lab: { kind: etcd, endpoints: [https://a], tls: false }", &["registrars.lab.tls", "remove this key"]),
        ("lab: { kind: etcd, endpoints: [a], prefix: lab }", &["registrars.lab.prefix", "begins with a slash"]),
        ("lab: { kind: etcd, endpoints: [a], user: u }", &["registrars.lab.user", "no password"]),
        ("lab: { kind: etcd, endpoints: [a], password_file: cookie }", &["registrars.lab.password_file", "no user"]),
        (
            "lab: { kind: etcd, endpoints: [a], user: u, password_file: no }",
            &["registrars.lab.password_file", "no does"],
        ),
        ("lab: { kind: etcd, endpoints: [a], tls_profile: p }", &["registrars.lab.tls_profile", "unknown TLS profile"]),
        (
            "lab: { kind: etcd, endpoints: [a], path: p }",
            &["registrars.lab.path", "of kind etcd does not take this key"],
        ),
        ("lab: { kind: file, path: nowhere.yaml }", &["registrars.lab.path", "nowhere.yaml does not exist"]),
        ("lab: { kind: embedded }", &["registrars.lab.host", "needs a `host`"]),
        ("lab: { kind: embedded, host: h, path: x }", &["registrars.lab.path", "does not take this key"]),
        ("embedded: { kind: embedded, host: h }", &["registrars.embedded", "choose another one"]),
        ("'a b': { kind: embedded, host: h }", &["registrars.a b"]),
    ] {
        let file = dir.config("app", &format!("registrars: {{ {registrars} }}\n"));
        dir.run(&["check", &file]).refused(says);
    }
    let file = dir.config("app", "registrars: { lab: { kind: embedded, host: h } }\n");
    dir.run(&["check", "--set", "node.registrar=lob", &file])
        .refused(&["node.registrar", "known: embedded, none, lab"]);
    dir.ok(&["check", "--set", "node.registrar=lab", &file]);
}

#[test]
fn a_drained_route_moves_its_connections_to_the_next_route() {
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", "  listen: [{ port: 0 }, { port: 0 }]\n"), &["--answer", "who=db"]);
    let ports: Vec<_> =
        db.ready["listening"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
    let port = |nth: usize| ports[nth].rsplit_once(':').unwrap().1.to_owned();
    let routes = format!(
        "routes:\n  - {{ match: '^db@', weight: 200, host: 127.0.0.1, port: {}, reconnect: keep, failback_ms: 60000 }}\n  - {{ \
         match: '@127', host: 127.0.0.1, port: {} }}\n",
        port(0),
        port(1)
    );
    let app = dir.node(&dir.config("app", &routes), &[]);
    let listed = dir.json(&["routes", "list", "--admin", app.admin()]);
    assert_eq!((&listed[0]["reconnect"], &listed[0]["failback_ms"]), (&"keep".into(), &60000.into()));
    dir.ok(&["call", "--admin", app.admin(), "db@127.0.0.1", "who", ""]);
    let at = |app: &crate::world::Running| {
        dir.json(&["nodes", "--admin", app.admin()])[0]["address"].as_str().unwrap().to_owned()
    };
    assert_eq!(at(&app), ports[0]);
    let said = dir.ok(&["routes", "drain", "--admin", app.admin(), "^db@", "--save"]).stdout;
    assert!(said.contains("`^db@` removed and deleted from the file; 1 connections moved"), "{said}");
    assert_eq!(at(&app), ports[1]);
    // Every link that is logged as up is also logged as down, including the one that was replaced.
    for node in [&app, &db] {
        let link = |line: &str| line.split_once("link=\"").map(|(_, rest)| rest[..8].to_owned());
        let said = |what: &str| -> Vec<String> {
            let log = node.stderr();
            log.lines().filter(|line| line.contains(&format!(": {what} peer="))).filter_map(link).collect()
        };
        let down = eventually("the end of the replaced link", || said("down").pop());
        let up = said("up");
        assert_eq!((up.len(), &up[0]), (2, &down));
        node.logs(&format!("replaces=\"{down}\""));
    }
    assert!(!dir.read("app.yaml").contains("^db@"));
    dir.run(&["routes", "drain", "--admin", app.admin(), "^db@"]).exits(1);
    let said = dir.ok(&["routes", "drain", "--admin", app.admin(), "@127"]).stdout;
    assert!(said.contains("0 connections moved; the connection to db@127.0.0.1 was not moved: no route"), "{said}");
    dir.ok(&["ping", "--now", "--admin", app.admin(), "db@127.0.0.1"]);
    let added =
        ["routes", "add", "--admin", app.admin(), "^x@", "--port", "1", "--reconnect", "never", "--failback", "30s"];
    dir.ok(&added);
    dir.run(&["routes", "add", "--admin", app.admin(), "^y@", "--port", "1", "--reconnect", "ever"])
        .refused(&["reconnect", "write never, on_demand or keep"]);
}

#[test]
fn a_pending_failback_is_shown_with_the_reason_why_it_has_not_happened_yet() {
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", ""), &[]);
    let routes = format!(
        "routes:\n  - {{ match: '^db@', weight: 200, host: 127.0.0.1, port: {}, failback_ms: 200 }}\n  - {{ match: '@127', \
         host: 127.0.0.1, port: {} }}\n",
        free_port(),
        db.port()
    );
    let app = dir.node(&dir.config("app", &routes), &[]);
    dir.ok(&["ping", "--admin", app.admin(), "db@127.0.0.1"]);
    let failback = eventually("a probe that failed", || {
        let nodes = dir.json(&["nodes", "--admin", app.admin()]);
        let failback = nodes[0]["failback"][0].clone();
        failback["error"].is_string().then_some(failback)
    });
    assert_eq!((&failback["match"], &failback["hold_ms"]), (&"^db@".into(), &200.into()));
    assert!(failback["error"].as_str().unwrap().contains("refused"), "{failback}");
    for command in [&["nodes"][..], &["explain", "db@127.0.0.1"]] {
        let args: Vec<_> = command.iter().chain(&["--admin", app.admin()]).copied().collect();
        let shown = dir.ok(&args).stdout;
        assert!(shown.contains("^db@ after it answered every probe for 0.2 s; the last probe failed"), "{shown}");
    }
}

#[test]
fn a_silent_peer_is_considered_dead_after_the_time_set_by_the_node_or_route() {
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", "  listen: [{ port: 0 }, { port: 0 }]\n"), &[]);
    let other = dir.node(&dir.config("other", ""), &[]);
    let rest = format!(
        "  keep_alive_ms: 200\n  dead_after_ms: 1000\nroutes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n",
        db.port()
    );
    let app = dir.node(&dir.config("app", &rest), &[]);
    let port = other.port().to_string();
    let add = ["routes", "add", "--admin", app.admin(), "^other@", "--host", "127.0.0.1", "--port", &port];
    dir.ok(&[&add[..], &["--keep-alive", "500ms", "--dead-after", "2s", "--save"]].concat());
    assert!(dir.read("app.yaml").contains("keep_alive_ms: 500, dead_after_ms: 2000"), "{}", dir.read("app.yaml"));
    let listed = dir.json(&["routes", "list", "--admin", app.admin()]);
    let of = |pattern: &str| listed.as_array().unwrap().iter().find(|route| route["match"] == pattern).unwrap();
    assert_eq!((&of("^other@")["keep_alive_ms"], &of("^other@")["dead_after_ms"]), (&500.into(), &2000.into()));
    assert_eq!(of("^db@")["dead_after_ms"], serde_json::Value::Null);
    let explained = dir.ok(&["explain", "--admin", app.admin(), "other@127.0.0.1"]).stdout;
    assert!(explained.contains("dead_after") && explained.contains("2s"), "{explained}");
    for (node, time) in [(db, "1s"), (other, "2s")] {
        let name = node.ready["name"].as_str().unwrap().to_owned();
        dir.ok(&["ping", "--admin", app.admin(), &name]);
        node.signal(rustix::process::Signal::STOP);
        app.logs(&format!("nothing came from the peer for {time}"));
        node.kill();
    }
    dir.run(&[&add[..], &["--keep-alive", "3s", "--dead-after", "3s"]].concat())
        .refused(&["dead_after_ms", "needs earlier pings"]);
}

#[test]
fn a_route_with_an_atom_mapping_replaces_names_and_is_listed_with_it() {
    let dir = Dir::new();
    let db = dir.node(&dir.config("db", "  listen: [{ port: 0 }]\n"), &["--answer", "proc_mgr=db"]);
    let port = db.ready["listening"][0].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let app = dir.node(&dir.config("app", ""), &[]);
    let add = ["routes", "add", "--admin", app.admin(), "^db@", "--host", "127.0.0.1", "--port", &port, "--save"];
    dir.run(&[&add[..], &["--atom", "a=x", "--atom", "b=x"]].concat()).refused(&["atom_mapping", "would both become"]);
    dir.run(&[&add[..], &["--atom", "a=x", "--atom", "a=y"]].concat()).refused(&["--atom a=…", "keep one"]);
    dir.run(&[&add[..], &["--atom", "a"]].concat()).exits(2);
    dir.ok(&[&add[..], &["--atom", "process_manager=proc_mgr"]].concat());
    let said = dir.ok(&["call", "--admin", app.admin(), "db@127.0.0.1", "process_manager", ""]).stdout;
    assert_eq!(said.trim(), "db");
    let listed = dir.json(&["routes", "list", "--admin", app.admin()]);
    assert_eq!(listed[0]["atom_mapping"], serde_json::json!({ "process_manager": "proc_mgr" }));
    assert!(dir.ok(&["routes", "list", "--admin", app.admin()]).stdout.contains("process_manager=proc_mgr"));
    assert!(
        dir.read("app.yaml").contains(r#"atom_mapping: { "process_manager": "proc_mgr" }"#),
        "{}",
        dir.read("app.yaml")
    );
    dir.ok(&["check", "app.yaml"]);
    let steps = dir.ok(&["explain", "--admin", app.admin(), "db@127.0.0.1"]).stdout;
    assert!(steps.contains("process_manager → proc_mgr"), "{steps}");
}

#[test]
fn explain_shows_the_source_of_each_value() {
    let dir = Dir::new();
    let rest = "registrars:\n  far: { kind: embedded, host: 192.0.2.1 }\nroutes:\n  - { match: '^db@', weight: 200, host: 127.0.0.1, \
                port: 9, log_level: trace, cookie_file: cookie }\n  - { match: '@', resolver: far, override: { tls: true } }\n";
    let file = dir.config("app", rest);
    let steps = &dir.json(&["explain", "--config", &file, "db@127.0.0.1"])["steps"];
    let from = |step: usize, what: &str| {
        let values = steps[step]["values"].as_array().unwrap();
        let value = values.iter().find(|value| value["what"] == what).expect(what);
        (value["value"].as_str().unwrap().to_owned(), value["from"].as_str().unwrap().to_owned())
    };
    let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    assert_eq!(from(0, "address"), pair("127.0.0.1:9", "route"));
    assert_eq!(from(0, "log_level"), pair("trace", "route"));
    assert_eq!(from(0, "cookie"), pair("its own", "route"));
    assert_eq!(from(0, "handshake"), pair("TLK/1", "node"));
    assert_eq!(from(1, "address"), pair("where far says", "answer"));
    assert_eq!(from(1, "tls"), pair("verify", "override"));
    assert_eq!(from(1, "cookie"), pair("the node's", "node"));
    let text = dir.ok(&["explain", "--config", &file, "db@127.0.0.1"]).stdout;
    assert!(text.contains("1. address 127.0.0.1:9 (route); cookie its own (route); log_level trace (route)"), "{text}");
    assert!(text.contains("tls verify (override)"), "{text}");
}
