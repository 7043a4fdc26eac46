//! Tests of a service behind a gateway, with three configuration files.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::world::{Dir, Running, shouting};

const BACKEND: &str = "backend-db@127.0.0.1";

/// Starts a backend that serves a stream and answers calls, and a gateway that reaches it. Also returns the routes for
/// the file of a client.
fn behind(dir: &Dir, transit: &str) -> (Running, Running, String) {
    let port = shouting();
    let services = format!("services: {{ shout: {{ connect: '127.0.0.1:{port}', allow: ['app@.*'] }} }}\n");
    let backend = dir.node(&dir.config("backend-db", &services), &["--answer", "whoami=the backend"]);
    let rest = format!("routes: [{{ match: '^backend-', host: 127.0.0.1, port: {} }}]\n{transit}", backend.port());
    let gateway = dir.node(&dir.config("gateway", &rest), &[]);
    let client = format!(
        "routes: [{{ match: '^gateway@', host: 127.0.0.1, port: {} }}]\nproxy_routes:\n  - {{ match: '^backend-.*@', proxy: \
         gateway@127.0.0.1, max_hop: 2 }}\n",
        gateway.port()
    );
    (backend, gateway, client)
}

#[test]
fn e_a_service_behind_a_gateway_is_reached_from_three_files() {
    let dir = Dir::new();
    let transit = "transit: { rules: [{ from: 'app@.*', to: 'backend-.*' }] }\n";
    let (backend, gateway, client) = behind(&dir, transit);
    let forwards = format!("forwards: [{{ listen: 'unix:shout.sock', name: '{BACKEND}', service: shout }}]\n");
    let app = dir.node(&dir.config("app", &(client + &forwards)), &[]);
    let answer = dir.ok(&["call", "--admin", app.admin(), BACKEND, "whoami", ""]).stdout;
    assert_eq!(answer, "the backend");
    let mut socket = std::os::unix::net::UnixStream::connect(dir.at("shout.sock")).unwrap();
    socket.write_all(b"through the gateway").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "THROUGH THE GATEWAY");

    let nodes = dir.json(&["nodes", "--admin", app.admin(), "--json"]);
    let through = nodes.as_array().unwrap().iter().find(|node| node["name"] == BACKEND).unwrap();
    assert_eq!(through["via"], "gateway@127.0.0.1");
    let shown = dir.ok(&["nodes", "--admin", app.admin()]).stdout;
    assert!(shown.contains("(gateway@127.0.0.1)"), "{shown}");
    app.logs("via=\"gateway@127.0.0.1\"");
    let status = dir.json(&["status", "--admin", gateway.admin(), "--json"]);
    assert_eq!(status["circuits"], 1);
    assert!(status["carried"].as_u64().unwrap() > 1000, "{status}");
    gateway.logs("passing a connection on");
    let traced = dir.ok(&["trace", "--admin", app.admin(), BACKEND]).stdout;
    let hops: Vec<_> = traced.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops[1..3], ["gateway@127.0.0.1", BACKEND], "{traced}");
    assert!(traced.contains("through 1 gateway"), "{traced}");
    let traced = dir.json(&["trace", "--admin", app.admin(), BACKEND, "--json"]);
    assert!(traced["ways"][0]["hops"][1]["round_trip_ms"].as_f64().unwrap() > 0.0, "{traced}");
    let explained = dir.ok(&["explain", "--admin", app.admin(), BACKEND]).stdout;
    assert!(explained.contains("proxy") && explained.contains("gateway@127.0.0.1"), "{explained}");
    let listed = dir.ok(&["proxy-routes", "list", "--admin", app.admin()]).stdout;
    assert!(listed.contains("^backend-.*@") && listed.contains("gateway@127.0.0.1"), "{listed}");
    // When the gateway stops, connections through it end, and both ends report it.
    let gateway_at = format!("127.0.0.1:{}", gateway.port());
    gateway.kill();
    app.logs(&format!("down peer={BACKEND}"));
    let failed = dir.run(&["call", "--admin", app.admin(), BACKEND, "whoami", ""]).exits(1).stderr;
    assert!(failed.contains("proxy route ^backend-.*@ through gateway@127.0.0.1"), "{failed}");
    let traced = dir.run(&["trace", "--admin", app.admin(), BACKEND]).exits(1);
    let cause = (traced.stdout.matches("TCP: ").count(), traced.stdout.contains(&gateway_at));
    assert_eq!(cause, (1, true), "the cause is shown once, with its address: {}", traced.stdout);
    let traced = dir.run(&["trace", "--admin", app.admin(), "gateway@127.0.0.1"]).exits(1);
    assert!(traced.stdout.contains(&format!("route ^gateway@ at {gateway_at}: TCP: ")), "{}", traced.stdout);
    assert!(traced.stderr.contains("no path to gateway@127.0.0.1: every candidate failed"), "{}", traced.stderr);
    let traced = dir.run(&["trace", "--admin", app.admin(), "nowhere@127.0.0.2"]).exits(1);
    assert!(traced.stderr.contains("no static route matches"), "{}", traced.stderr);
    drop(backend);
}

#[test]
fn e7_proxy_routes_are_added_and_removed_and_a_denial_names_the_gateway_and_the_rule() {
    let dir = Dir::new();
    let (_backend, gateway, _) = behind(&dir, "");
    let rest = format!("routes: [{{ match: '^gateway@', host: 127.0.0.1, port: {} }}]\n", gateway.port());
    let app = dir.node(&dir.config("app", &rest), &[]);
    let call = |code| dir.run(&["call", "--admin", app.admin(), BACKEND, "whoami", ""]).exits(code);
    let add = |args: &[&str]| {
        let mut all = vec!["proxy-routes", "add", "--admin", app.admin()];
        all.extend(args);
        dir.run(&all)
    };
    let none = dir.ok(&["proxy-routes", "list", "--admin", app.admin()]).stdout;
    assert!(none.contains("no proxy routes"), "{none}");
    let added = add(&["^backend-", "--proxy", "gateway@127.0.0.1", "--max-hop", "2", "--weight", "7"]).exits(0).stdout;
    assert!(added.contains("through gateway@127.0.0.1 added with weight 7"), "{added}");
    let denied = call(1).stderr;
    let says = "gateway@127.0.0.1 refused: relay denied; the log of gateway@127.0.0.1 has the cause";
    assert!(denied.contains(says) && !denied.contains("transit"), "{denied}");
    gateway.logs("needs rules under `transit:`");
    let traced = dir.run(&["trace", "--admin", app.admin(), BACKEND]).exits(1);
    assert!(traced.stdout.contains("the path ends at gateway@127.0.0.1: relay denied"), "{}", traced.stdout);
    assert!(traced.stderr.contains("no path to backend-db@127.0.0.1"), "{}", traced.stderr);
    dir.run(&["trace", "--admin", app.admin(), "no name"]).refused(&["white space"]);
    add(&["^backend-", "--proxy", "gateway@127.0.0.1"]).refused(&["exists; remove it first"]);
    add(&["(", "--proxy", "gateway@127.0.0.1"]).refused(&["match"]);
    add(&["x", "--proxy", "no name"]).refused(&["proxy: "]);
    add(&["x", "--proxy", "g@h", "--direct", "sometimes"]).refused(&["write first, never or only"]);
    add(&["x", "--proxy", "g@h", "--max-hop", "17"]).refused(&["a number from 1 to 16"]);
    let removed = dir.ok(&["proxy-routes", "remove", "--admin", app.admin(), "^backend-"]).stdout;
    assert!(removed.contains("proxy route `^backend-` removed"), "{removed}");
    add(&[
        "^own-",
        "--proxy",
        "g@h",
        "--cookie-file",
        "cookie",
        "--target-cookie-file",
        "cookie",
        "--target-tls",
        "true",
    ])
    .exits(0);
    let listed = dir.json(&["proxy-routes", "list", "--admin", app.admin()]);
    assert_eq!((&listed[0]["own_cookie"], &listed[0]["own_target_cookie"]), (&true.into(), &true.into()), "{listed}");
    let listed = dir.ok(&["proxy-routes", "list", "--admin", app.admin()]).stdout;
    assert!(
        listed.contains("TLS") && listed.contains("true") && listed.contains("to the gateway, to the node"),
        "{listed}"
    );
    dir.ok(&["proxy-routes", "remove", "--admin", app.admin(), "^own-"]);
    let gone = call(1).stderr;
    assert!(!gone.contains("relay denied"), "{gone}");
    assert!(TcpStream::connect(("127.0.0.1", app.port())).is_ok());
}

#[test]
fn proxy_routes_and_transit_rules_are_saved_and_reloaded() {
    let dir = Dir::new();
    let (_backend, gateway, client) = behind(&dir, "");
    let file = dir.config("app", client.split("proxy_routes:").next().unwrap());
    let app = dir.node(&file, &[]);
    let call = |code| dir.run(&["call", "--admin", app.admin(), BACKEND, "whoami", ""]).exits(code);
    let original = dir.read(&file);
    let add = ["proxy-routes", "add", "--admin", app.admin(), "^backend-", "--proxy", "gateway@127.0.0.1"];
    let add: Vec<_> = add.into_iter().chain(["--target-flag", "link=false", "--save"]).collect();
    assert!(dir.ok(&add).stdout.contains("and saved"));
    assert_eq!(
        dir.read(&file),
        format!(
            "{original}proxy_routes:\n  - {{ match: \"^backend-\", proxy: \"gateway@127.0.0.1\", target: {{ flags: {{ link: false }} }} }}\n"
        )
    );
    assert!(call(1).stderr.contains("relay denied"));
    // The gateway receives a transit rule, without a restart.
    let gateway_file = "gateway.yaml";
    let closed = dir.read(gateway_file);
    let rules = |flags: &str| {
        format!("{closed}transit: {{ rules: [{{ from: 'app@.*', to: 'backend-.*', flags: {{ {flags} }} }}] }}\n")
    };
    dir.file(gateway_file, &rules("monitor: false"), 0o600);
    dir.ok(&["reload", "--admin", gateway.admin()]);
    dir.ok(&["ping", "--admin", app.admin(), "--now", BACKEND]);
    assert_eq!(call(0).stdout, "the backend");
    let nodes = dir.json(&["nodes", "--admin", app.admin(), "--json"]);
    let backend = nodes.as_array().unwrap().iter().find(|node| node["name"] == BACKEND).unwrap();
    let flags = backend["flags"].to_string();
    assert!(!flags.contains("monitor") && !flags.contains("link") && flags.contains("remote_spawn"), "{backend}");
    assert!(dir.ok(&["proxy-routes", "list", "--admin", app.admin()]).stdout.contains("-link"));
    // The rule is removed again: the existing circuit stays, and new ones are refused.
    dir.file(gateway_file, &closed, 0o600);
    dir.ok(&["reload", "--admin", gateway.admin()]);
    assert_eq!(call(0).stdout, "the backend");
    dir.ok(&["disconnect", "--admin", app.admin(), BACKEND]);
    crate::world::eventually("the connection has ended", || {
        let nodes = dir.json(&["nodes", "--admin", app.admin(), "--json"]);
        nodes.as_array().unwrap().iter().all(|node| node["name"] != BACKEND).then_some(())
    });
    assert!(call(1).stderr.contains("relay denied"));
    // A reload uses the content of the file.
    let elsewhere = dir
        .read(&file)
        .replace("gateway@127.0.0.1\", target: { flags: { link: false } } }", "other@127.0.0.1\", max_hop: 2 }");
    dir.file(&file, &elsewhere, 0o600);
    let reloaded = dir.ok(&["reload", "--admin", app.admin()]).stdout;
    assert!(reloaded.contains("1 routes and 1 proxy routes"), "{reloaded}");
    let listed = dir.ok(&["proxy-routes", "list", "--admin", app.admin()]).stdout;
    assert!(listed.contains("other@127.0.0.1") && !listed.contains("gateway@"), "{listed}");
    let drain = ["proxy-routes", "drain", "--admin", app.admin(), "^backend-"];
    assert!(dir.ok(&drain).stdout.contains("removed; it is still in the file"), "no connection used it");
    dir.run(&drain).exits(1);
    dir.ok(&["reload", "--admin", app.admin()]);
    let removed = dir.ok(&["proxy-routes", "remove", "--admin", app.admin(), "^backend-", "--save"]).stdout;
    assert!(removed.contains("and deleted from the file"), "{removed}");
    assert_eq!(dir.read(&file), format!("{original}proxy_routes: []\n"));
}

#[test]
fn the_restrictions_of_proxied_are_reloaded() {
    let dir = Dir::new();
    let transit = "transit: { rules: [{ from: 'app@.*', to: 'backend-.*' }] }\n";
    let (backend, _gateway, client) = behind(&dir, transit);
    let app = dir.node(&dir.config("app", &client), &[]);
    let ping = |code| dir.run(&["ping", "--admin", app.admin(), "--now", BACKEND]).exits(code);
    ping(0);
    dir.ok(&["disconnect", "--admin", app.admin(), BACKEND]);
    let open = dir.read("backend-db.yaml");
    for (proxied, code) in [("{ allow: [] }", 1), ("{ gateways: ['other@.*'] }", 1), ("{ allow: ['app@.*'] }", 0)] {
        dir.file("backend-db.yaml", &format!("{open}proxied: {proxied}\n"), 0o600);
        dir.ok(&["reload", "--admin", backend.admin()]);
        ping(code);
    }
}
