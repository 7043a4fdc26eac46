//! The commands about registrars, with real processes.

#[cfg(feature = "etcd")]
use std::process::Stdio;

use serde_json::{Value, json};

use crate::world::{Dir, Running, eventually, free_port};

/// Starts the node `NAME@127.0.0.1` with the embedded registrar at this port.
fn node(dir: &Dir, name: &str, registrar: u16) -> Running {
    let text = format!(
        "node:\n  name: {name}@127.0.0.1\n  cookie_file: cookie\n  data_dir: {name}.data\n  \
         listen: [{{ host: 127.0.0.1, port: 0 }}]\n  registrar_listen: {{ host: 127.0.0.1, port: {registrar} }}\n\
         registrars:\n  names: {{ kind: file, path: names.yaml }}\n\
         routes: [{{ match: '^far@', resolver: names }}]\n"
    );
    dir.file(&format!("{name}.yaml"), &text, 0o600);
    dir.node(&format!("{name}.yaml"), &[])
}

/// Starts etcd at this port, with its data in `etcd` of the directory.
#[cfg(feature = "etcd")]
fn etcd(dir: &Dir, port: u16, peer: u16) -> Running {
    let mut etcd = std::process::Command::new("etcd");
    let client = format!("http://127.0.0.1:{port}");
    etcd.args(["--data-dir", dir.at("etcd").to_str().unwrap(), "--log-level=error"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")]);
    etcd.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::spawned(etcd.spawn().expect("Debian's etcd-server is installed"))
}

#[cfg(feature = "etcd")]
#[test]
fn nodes_that_registered_in_etcd_are_found_there_also_while_it_is_killed() {
    let (dir, port, peer) = (Dir::new(), free_port(), free_port());
    let running = etcd(&dir, port, peer);
    let config = |name: &str| {
        let text = format!(
            "node:\n  name: {name}@127.0.0.1\n  cookie_file: cookie\n  data_dir: {name}.data\n  \
             listen: [{{ host: 127.0.0.1, port: 0 }}]\n  registrar: production\n\
             registrars:\n  production: {{ kind: etcd, endpoints: [127.0.0.1:{port}], prefix: /lab }}\n"
        );
        dir.file(&format!("{name}.yaml"), &text, 0o600);
        format!("{name}.yaml")
    };
    let answering = config("db");
    eventually("etcd answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let db = dir.node(&answering, &["--answer", "whoami=the db"]);
    let app = dir.node(&config("app"), &[]);
    let admin = app.admin();
    let nodes = |times: usize| {
        eventually("the nodes are listed", || {
            let nodes = dir.json(&["registrar", "nodes", "--admin", admin]);
            (nodes.as_array().unwrap().len() == times).then_some(nodes)
        })
    };
    assert_eq!(nodes(2)[1]["endpoints"][0]["port"], db.port());
    // A command that is a node of its own finds it as well, and is not registered.
    let answer = dir.ok(&["call", "--config", "app.yaml", "db@127.0.0.1", "whoami", ""]).stdout;
    assert_eq!(answer.trim(), "the db");
    nodes(2);
    let mut command = dir.command(&["--json", "registrar", "watch", "--admin", admin]);
    let watch = Running::spawned(command.spawn().unwrap());
    told(&watch, &[("joined", "db"), ("current", "")]);

    running.kill();
    told(&watch, &[("lost", "")]);
    let found = dir.ok(&["registrar", "resolve", "--admin", admin, "db@127.0.0.1"]).stdout;
    assert!(found.contains(&db.port().to_string()) && found.contains("may be out of date: "), "{found}");
    let explained = dir.ok(&["explain", "--admin", admin, "db@127.0.0.1"]).stdout;
    assert!(explained.contains("Answers of production may be out of date: "), "{explained}");
    assert_eq!(dir.ok(&["call", "--admin", admin, "db@127.0.0.1", "whoami", ""]).stdout.trim(), "the db");
    let refused = dir.run(&["call", "--config", "app.yaml", "db@127.0.0.1", "whoami", ""]).exits(1).stderr;
    assert!(refused.contains(&format!("etcd at 127.0.0.1:{port}")), "{refused}");
    // A node that cannot be announced does not start: a failure of the moment, not of the configuration.
    config("late");
    let late = dir.run(&["node", "--config", "late.yaml"]).exits(1).stderr;
    assert!(
        late.contains("registrars.production cannot be used now") && late.contains("start the node again"),
        "{late}"
    );
    let drained = dir.ok(&["registrar", "announce", "--admin", admin, "--weight", "0", "pg"]).stdout;
    assert!(drained.contains("the registrar is lost, and is told once it is back"), "{drained}");
    let _running = etcd(&dir, port, peer);
    told(&watch, &[("back", ""), ("current", "")]);
    db.stop();
    told(&watch, &[("left", "db")]);
    nodes(1);
}

/// Waits until the changes that were told end with these, each by its kind and the name of the node. Those of `app` do not
/// count: on a busy machine it may be late to come back to a registrar.
fn told(watch: &Running, last: &[(&str, &str)]) {
    eventually(&format!("{last:?}"), || {
        let lines = watch.stdout();
        let changes: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kind = |change: &Value| change["change"].as_str().unwrap().to_owned();
        let name =
            |change: &Value| change["name"].as_str().unwrap_or_default().trim_end_matches("@127.0.0.1").to_owned();
        let all = changes.iter().map(|change| (kind(change), name(change)));
        let all: Vec<_> = all.filter(|(_, name)| name != "app").collect();
        let last: Vec<_> = last.iter().map(|(kind, name)| ((*kind).to_owned(), (*name).to_owned())).collect();
        all.ends_with(&last).then_some(())
    });
}

#[test]
fn the_nodes_of_a_registrar_are_listed_and_watched_also_after_the_node_that_serves_was_killed() {
    let (dir, port) = (Dir::new(), free_port());
    dir.file("names.yaml", "far@elsewhere: [{ host: 10.0.0.9, port: 7 }, { proxy: gate@dmz }]", 0o600);
    let first = node(&dir, "first", port);
    let app = node(&dir, "app", port);
    let admin = app.admin();
    let status = dir.json(&["registrar", "status", "--admin", admin]);
    let state = |id: &str| json!({ "id": id, "stale": null });
    let expected = json!({ "discovery": [state("embedded")], "others": [state("names")], "registered": true, "serves_registrar": false, "registrar_queries": 0 });
    assert_eq!(status, expected);
    let nodes = dir.ok(&["registrar", "nodes", "--admin", admin]).stdout;
    let line = format!("first@127.0.0.1  127.0.0.1:{} TLK/1", first.port());
    assert!(nodes.lines().any(|shown| shown == line) && nodes.contains("app@127.0.0.1"), "{nodes}");
    // One answer of each registrar that is asked; the exit status tells whether there is a way.
    let found = dir.json(&["registrar", "resolve", "--admin", admin, "first@127.0.0.1"]);
    assert_eq!((&found[0]["registrar"], &found[0]["endpoints"][0]["port"]), (&json!("embedded"), &json!(first.port())));
    let far = dir.json(&["registrar", "resolve", "--admin", admin, "--registrar", "names", "far@elsewhere"]);
    assert_eq!((&far[0]["endpoints"][0]["port"], &far[0]["gateways"]), (&json!(7), &json!(["gate@dmz"])));
    let unknown = dir.run(&["registrar", "resolve", "--admin", admin, "nobody@127.0.0.1"]).exits(1).stderr;
    assert!(unknown.contains("no registrar knows a way to nobody@"), "{unknown}");
    dir.run(&["registrar", "nodes", "--admin", admin, "--registrar", "nmaes"])
        .refused(&["no registrar \"nmaes\"; known: embedded, names"]);
    // A broken edit of the file takes no name away, and is told.
    assert_eq!(dir.json(&["registrar", "nodes", "--admin", admin, "--registrar", "names"])[0]["name"], "far@elsewhere");
    dir.file("names.yaml", "far@elsewhere: [{ host: 10.0.0.9", 0o600);
    let far = dir.ok(&["registrar", "resolve", "--admin", admin, "--registrar", "names", "far@elsewhere"]).stdout;
    assert!(far.contains("10.0.0.9:7") && far.contains("may be out of date: ") && far.contains("names.yaml"), "{far}");
    let status = dir.ok(&["registrar", "status", "--admin", admin]).stdout;
    assert!(
        status.contains("by routes") && status.contains("line 1, column 17: it is not well-formed YAML"),
        "{status}"
    );
    let explained = dir.ok(&["explain", "--admin", admin, "far@elsewhere"]).stdout;
    assert!(explained.contains("Answers of names may be out of date: "), "{explained}");
    assert!(!dir.ok(&["explain", "--admin", admin, "first@127.0.0.1"]).stdout.contains("out of date"));
    app.logs("the names that it had stay");

    let mut command = dir.command(&["--json", "registrar", "watch", "--admin", admin]);
    let watch = Running::spawned(command.spawn().unwrap());
    told(&watch, &[("joined", "first"), ("current", "")]);
    first.kill();
    told(&watch, &[("lost", ""), ("back", ""), ("left", "first"), ("current", "")]);
    let first = node(&dir, "first", port);
    told(&watch, &[("joined", "first")]);
    let taken = dir.run(&["node", "--config", "first.yaml", "--set", "node.data_dir=other.data"]);
    taken.refused(&[
        "the name first@127.0.0.1 is registered by another live node",
        &format!("127.0.0.1:{}", first.port()),
    ]);
    first.stop();
    told(&watch, &[("left", "first")]);
    // The command ends with the node, and at once.
    app.stop();
    let ended = watch.end().exits(1).stdout;
    assert!(ended.contains("the node stopped"), "{ended}");
}

#[test]
fn a_registrar_in_a_process_of_its_own_serves_the_nodes_of_its_host_which_take_over_when_it_is_killed() {
    let (dir, port) = (Dir::new(), free_port());
    dir.file("names.yaml", "", 0o600);
    let listen = format!("127.0.0.1:{port}");
    let serve = ["--json", "registrar", "serve", "--listen", &listen, "--cookie-file", "cookie"];
    let rules = "node.registrar_rules=[{ names: '(app|db)@.*' }]";
    let routes =
        "node.registrar_routes=[{ match: '^far@', host: 127.0.0.1, port: 1 }, { match: '^gone@', host: h, port: 1 }]";
    let registrar = Running::start(dir.command(&[&serve[..], &["--set", rules, "--set", routes]].concat()));
    let [app, db] = ["app", "db"].map(|name| node(&dir, name, port));
    let status = |node: &Running| dir.json(&["registrar", "status", "--admin", node.admin()]);
    for node in [&app, &db] {
        let status = status(node);
        assert_eq!((&status["registered"], &status["serves_registrar"]), (&json!(true), &json!(false)));
    }
    assert_eq!(dir.json(&["registrar", "nodes", "--admin", app.admin()]).as_array().unwrap().len(), 2);
    // Rules say who may be announced, and the routes are handed out: to a short-lived node as well, but not in place of its own.
    let other = dir.read("app.yaml").replace("app", "other");
    dir.file("other.yaml", &other, 0o600);
    let refused = dir.run(&["node", "--config", "other.yaml"]);
    refused.refused(&["no rule of the registrar lets this node have the name other@127.0.0.1"]);
    let patterns = |of: &[&str]| {
        let routes = dir.json(&[&["routes", "list"], of].concat());
        let routes = routes.as_array().unwrap().iter().map(|route| (route["match"].clone(), route["weight"].clone()));
        routes.collect::<Vec<_>>()
    };
    let both = |own: Value| [(json!("^far@"), own), (json!("^gone@"), json!(0))];
    assert_eq!(patterns(&["--admin", app.admin()]), both(json!(100)), "the user's own stays");
    assert_eq!(patterns(&["--config", "app.yaml"]), both(json!(100)));
    let second = dir.run(&serve).exits(1).stdout;
    assert!(second.contains("another process serves as the registrar at") && second.contains("--listen"), "{second}");
    let wildcard = ["registrar", "serve", "--listen", "0.0.0.0:4499", "--cookie-file", "cookie"];
    dir.run(&wildcard).refused(&["give one with --name"]);
    registrar.kill();
    eventually("one node serves, and both are announced", || {
        let both = [&app, &db].map(status);
        let serving = both.iter().filter(|status| status["serves_registrar"] == true).count();
        (serving == 1 && both.iter().all(|status| status["registered"] == true)).then_some(())
    });
    let found = dir.json(&["registrar", "resolve", "--admin", app.admin(), "db@127.0.0.1"]);
    assert_eq!(found[0]["endpoints"][0]["port"], db.port());
}

#[test]
fn a_service_of_several_nodes_is_called_by_its_name_and_its_nodes_are_drained_by_hand_and_by_a_reload() {
    let (dir, port) = (Dir::new(), free_port());
    let config = |name: &str, more: &str| {
        let text = format!(
            "node:\n  name: {name}@127.0.0.1\n  cookie_file: cookie\n  data_dir: {name}.data\n  \
             listen: [{{ host: 127.0.0.1, port: 0 }}]\n  registrar_listen: {{ host: 127.0.0.1, port: {port} }}\n{more}"
        );
        dir.file(&format!("{name}.yaml"), &text, 0o600);
        format!("{name}.yaml")
    };
    let app =
        dir.node(&config("app", "service_nodes: { far: [db2@127.0.0.1, { node: db1@127.0.0.1, weight: 1 }] }\n"), &[]);
    let admin = app.admin();
    let none = dir.run(&["call", "--admin", admin, "@pg", "whoami", ""]).exits(1).stderr;
    assert!(none.contains("no node that serves @pg is known; announce it with `node.announce`"), "{none}");
    let one =
        dir.node(&config("db1", "  announce: { pg: { weight: 200, tags: [eu] } }\n"), &["--answer", "whoami=one"]);
    let _two = dir.node(&config("db2", "  announce: { pg: 100 }\n"), &["--answer", "whoami=two"]);
    let asked = |service: &str| {
        let answer = dir.json(&["call", "--admin", admin, service, "whoami", ""]);
        (answer["node"].as_str().unwrap().to_owned(), answer["body"]["text"].as_str().unwrap().to_owned())
    };
    assert_eq!(asked("@pg"), ("db1@127.0.0.1".into(), "one".into()));
    assert_eq!(asked("@far"), ("db2@127.0.0.1".into(), "two".into()));
    assert_eq!(dir.ok(&["call", "--config", "app.yaml", "@pg#eu", "whoami", ""]).stdout.trim(), "one");
    dir.run(&["call", "--admin", admin, "@pg#us", "whoami", ""]).exits(1);
    let services = dir.json(&["registrar", "services", "--admin", admin]);
    let names: Vec<_> = services.as_array().unwrap().iter().map(|service| service["service"].clone()).collect();
    assert_eq!(names, ["@far", "@pg"]);
    assert_eq!(
        services[1]["nodes"][0],
        json!({ "node": "db1@127.0.0.1", "weight": 200, "tags": ["eu"], "open": 0, "connected": true })
    );
    let nodes = dir.ok(&["registrar", "nodes", "--admin", admin]).stdout;
    assert!(nodes.contains("SERVES") && nodes.contains("pg 200"), "{nodes}");

    // Drained by hand, and back by a reload of a file that says otherwise.
    let drained = dir.ok(&["registrar", "announce", "--admin", one.admin(), "--weight", "0", "pg"]).stdout;
    assert!(drained.contains("this node is drained"), "{drained}");
    eventually("the other node answers", || (asked("@pg").1 == "two").then_some(()));
    let explained = dir.ok(&["explain", "--admin", admin, "@pg"]).stdout;
    let order: Vec<_> = explained.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(order, ["db2@127.0.0.1", "db1@127.0.0.1"], "{explained}");
    assert!(explained.lines().last().unwrap().ends_with("drained") && explained.contains("eu"), "{explained}");
    config("db1", "  announce: { pg: { weight: 300, tags: [eu] }, other: 1 }\n");
    let reloaded = dir.ok(&["reload", "--admin", one.admin()]).stdout;
    assert!(reloaded.contains("2 changes of `node.announce`"), "{reloaded}");
    eventually("it is used again", || (asked("@pg").1 == "one").then_some(()));
    dir.ok(&["registrar", "announce", "--admin", one.admin(), "--withdraw", "pg"]);
    let twice = dir.run(&["registrar", "announce", "--admin", one.admin(), "--withdraw", "pg"]).exits(2).stderr;
    assert!(twice.contains("this node does not announce pg"), "{twice}");
    dir.run(&["registrar", "services", "--admin", admin, "none"]).exits(1);

    // A forward leads to whichever node serves it.
    let listen = format!("127.0.0.1:{}", free_port());
    let forward = dir.ok(&["forward", "--background", "--admin", admin, &listen, "@pg", "bytes"]).stdout;
    assert!(forward.contains("@pg"), "{forward}");
    for (wrong, says) in [("@", "\"@\" is no service"), ("@a b", "is no service"), ("db", "is no node name")] {
        dir.run(&["call", "--admin", admin, wrong, "whoami", ""]).refused(&[says]);
    }
    dir.run(&["send", "--important", "--admin", admin, "@pg", "whoami", ""]).refused(&["for one node"]);
}

#[test]
fn services_that_a_configuration_announces_or_lists_wrongly_are_refused_with_a_remedy() {
    let dir = Dir::new();
    for (more, says) in [
        ("node: { announce: { 'a@b': 1 } }", &["node.announce.a@b", "no name of a service"][..]),
        ("node: { announce: { pg: -1 } }", &["node.announce.pg", "from 0 to 65535"]),
        ("node: { announce: { pg: { wieght: 1 } } }", &["node.announce.pg", "wieght"]),
        ("node: { announce: { pg: { tags: ['a b'] } } }", &["node.announce.pg.tags[0]", "without spaces"]),
        ("node: { announce: [pg] }", &["node.announce", "a mapping from services to weights"]),
        ("node: { registrar_rules: [{ gateways: [] }] }", &["node.registrar_rules[0].names", "has no `names`"]),
        (
            "node: { registrar_rules: [{ names: x, gateways: ['('] }] }",
            &["registrar_rules[0].gateways[0]", "a pattern"],
        ),
        ("node: { registrar_routes: [{ match: '(', host: h, port: 1 }] }", &["registrar_routes[0].match"]),
        ("node: { registrar_routes: [{ match: a, host: h }] }", &["registrar_routes[0].port", "is missing"]),
        ("service_nodes: { pg: db1@lab }", &["service_nodes.pg", "expected a list of nodes"]),
        ("service_nodes: { pg: [db1] }", &["service_nodes.pg[0]", "is no node name"]),
        ("service_nodes: { pg: [{ weight: 1 }] }", &["service_nodes.pg[0].node", "no `node`"]),
        ("service_nodes: { pg: [a@b, a@b] }", &["service_nodes.pg[1]", "listed twice"]),
    ] {
        let own = more.strip_prefix("node: { ").map(|rest| rest.strip_suffix(" }").unwrap());
        let (own, rest) = own.map_or(("", more), |own| (own, ""));
        let comma = if own.is_empty() { "" } else { ", " };
        let text = format!("node: {{ name: a@127.0.0.1, cookie_file: cookie{comma}{own} }}\n{rest}\n");
        dir.file("app.yaml", &text, 0o600);
        dir.run(&["check", "app.yaml"]).refused(says);
    }
}

/// `TRUNKLINE_NODES` sets the number of nodes; 100 take 2 GB of memory.
#[test]
fn the_process_that_serves_is_killed_ten_times_and_the_others_go_on_calling_and_find_each_other_again() {
    let (dir, port) = (Dir::new(), free_port());
    dir.file("names.yaml", "", 0o600);
    let count = std::env::var("TRUNKLINE_NODES").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
    let mut nodes: Vec<Running> = (0..count).map(|nth| node(&dir, &format!("n{nth}"), port)).collect();
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..10 {
        let serves =
            |node: &Running| dir.json(&["registrar", "status", "--admin", node.admin()])["serves_registrar"] == true;
        let serving = nodes.iter().position(serves).unwrap();
        // Two of the others, and their connection.
        let (one, two) = ((serving + 1) % count, (serving + 2) % count);
        let admin = nodes[one].admin().to_owned();
        let ping = || dir.json(&["ping", "--admin", &admin, &format!("n{two}@127.0.0.1")])["peer"]["link"].clone();
        let link = ping();
        nodes.remove(serving).kill();
        #[expect(clippy::disallowed_methods, reason = "the time is printed, and decides nothing")]
        let began = std::time::Instant::now();
        assert_eq!(ping(), link, "the connection goes on");
        eventually("all others are announced", || {
            let listed = dir.json(&["registrar", "nodes", "--admin", &admin]);
            (listed.as_array().unwrap().len() == count - 1).then_some(())
        });
        slowest = slowest.max(began.elapsed());
        assert_eq!(ping(), link);
        nodes.insert(serving, node(&dir, &format!("n{serving}"), port));
    }
    println!("{count} nodes: all others announced again after at most {slowest:?}");
}
