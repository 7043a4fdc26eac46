//! Clusters of real processes.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Dir, Running, eventually, free_port, request};

/// Sends an operation as `curl --unix-socket` does. Returns the status and the answer.
fn operation(node: &Running, body: &Value) -> (u16, Value) {
    request(node.admin(), "POST", "/", body, Duration::from_secs(30)).expect("an answer")
}

fn done(node: &Running, body: Value) -> Value {
    let (status, answer) = operation(node, &body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

#[track_caller]
fn refused(node: &Running, body: Value, status: u16, parts: &[&str]) {
    let (found, answer) = operation(node, &body);
    assert_eq!(found, status, "{body}: {answer}");
    let error = answer["error"].as_str().unwrap();
    parts.iter().for_each(|part| assert!(error.contains(part), "{body}: {error}"));
}

fn member(dir: &Dir, name: &str, port: u16, routes: &[u16]) -> String {
    let routes: Vec<String> = routes.iter().map(|port| format!("{{ host: 127.0.0.1, port: {port} }}")).collect();
    let routes = routes.join(", ");
    dir.config(
        name,
        &format!(
            "  listen: [{{ port: {port} }}]\n\
             clustering: {{ hubServer: {{ cluster: {{ name: lab, network: {{ routes: [{routes}] }} }} }} }}\n"
        ),
    )
}

/// Waits until a node is connected to exactly these members.
fn connected(dir: &Dir, node: &Running, members: &[&str]) {
    eventually("the members are connected", || {
        let status = dir.json(&["cluster", "status", "--admin", node.admin()]);
        let open = status["connections"].as_array()?.iter().filter(|member| member["status"] == "open");
        let open: Vec<&str> = open.filter_map(|member| member["node_name"].as_str()).collect();
        (open == members.iter().map(|name| format!("{name}@127.0.0.1")).collect::<Vec<_>>()).then_some(())
    });
}

#[test]
fn g3_g5_one_node_has_all_the_routes_and_the_others_go_on_without_it() {
    let dir = Dir::new();
    let ports = [free_port(), free_port(), free_port()];
    let files = [
        member(&dir, "n1", ports[0], &[ports[1], ports[2], ports[0]]),
        member(&dir, "n2", ports[1], &[]),
        member(&dir, "n3", ports[2], &[]),
    ];
    let [one, two, three] = files.each_ref().map(|file| dir.node(file, &[]));
    connected(&dir, &one, &["n2", "n3"]);
    connected(&dir, &two, &["n1", "n3"]);
    connected(&dir, &three, &["n1", "n2"]);

    eventually("the node is found at its own route", || {
        let routes = dir.json(&["cluster", "routes", "--admin", one.admin()]);
        let own = routes.as_array()?.iter().find(|route| route["port"] == ports[0])?;
        (own["nodes"][0] == "n1@127.0.0.1").then_some(())
    });
    let text = dir.ok(&["cluster", "status", "--admin", two.admin()]).stdout;
    assert!(text.starts_with("n2@127.0.0.1 in the cluster lab: connected to 2 members\n"), "{text}");

    one.kill();
    connected(&dir, &two, &["n3"]);
    dir.ok(&["ping", "--admin", two.admin(), "n3@127.0.0.1"]);
    // The second fault: the node that comes back has no routes, and the one that had them is gone.
    two.kill();
    connected(&dir, &three, &[]);
    eventually("the next dial is told", || {
        let status = dir.ok(&["cluster", "status", "--admin", three.admin()]).stdout;
        status.contains("next dial in").then_some(())
    });
    let two = dir.node(&files[1], &[]);
    connected(&dir, &two, &["n3"]);
    two.stop();
    three.stop();
}

#[test]
fn g8_routes_on_the_command_line_and_a_reload_of_those_in_the_file() {
    let dir = Dir::new();
    let (a, b, c) = (free_port(), free_port(), free_port());
    let first = dir.node(&member(&dir, "a", a, &[]), &[]);
    let second = dir.node(&member(&dir, "c", c, &[]), &[]);
    let route = format!(r#"[{{"host": "127.0.0.1", "port": {a}}}]"#);
    let file = member(&dir, "b", b, &[]);
    let given = dir.node(&file, &["--CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES", &route]);
    connected(&dir, &given, &["a"]);
    given.stop();

    let node = dir.node(&file, &[]);
    connected(&dir, &node, &["a"]);
    member(&dir, "b", b, &[c]);
    let message = dir.ok(&["reload", "--admin", node.admin()]).stdout;
    assert!(message.contains("1 route of the cluster"), "{message}");
    connected(&dir, &node, &["a", "c"]);
    connected(&dir, &first, &["b", "c"]);
    for node in [first, second, node] {
        node.stop();
    }
}

#[test]
fn a_leaf_takes_another_hub_when_its_own_is_killed_and_its_routes_are_a_list_of_their_own() {
    let dir = Dir::new();
    let (a, b) = (free_port(), free_port());
    let [first, second] =
        [("a", a, vec![]), ("b", b, vec![a])].map(|(name, port, to)| dir.node(&member(&dir, name, port, &to), &[]));
    connected(&dir, &second, &["a"]);
    let file = dir.config(
        "leaf",
        &format!(
            "clustering:\n  hubServer: {{ cluster: {{ name: lab }} }}\n  leafServer:\n    network:\n      routes:\n        - {{ host: 127.0.0.1, port: {a} }} # first\n"
        ),
    );
    let leaf = dir.node(&file, &["--answer", "echo"]);
    connected(&dir, &leaf, &["a"]);
    let text = dir.ok(&["cluster", "status", "--admin", leaf.admin()]).stdout;
    assert!(text.starts_with("leaf@127.0.0.1, leaf in the cluster lab: connected to 1 member\n"), "{text}");
    eventually("the other member hears who leads to the leaf", || {
        let status = dir.json(&["cluster", "status", "--admin", second.admin()]);
        let leaf = status["connections"].as_array()?.iter().find(|member| member["role"] == "leaf")?;
        (leaf["status"] == "closed" && leaf["told_by"] == "a@127.0.0.1" && leaf["next_dial_ms"].is_null()).then_some(())
    });
    dir.ok(&["ping", "--admin", leaf.admin(), "b@127.0.0.1"]);
    assert!(dir.ok(&["call", "--admin", second.admin(), "leaf@127.0.0.1", "echo", "x"]).stdout.contains('x'));

    // The routes of a leaf are a list of their own, in the operations and in the file.
    let route = |port: u16| json!({ "host": "127.0.0.1", "port": port });
    let set = |server: &str| json!({ "operation": "cluster_set_routes", "server": server, "routes": [route(b)] });
    refused(&leaf, set("hub"), 400, &["'server' must be leaf at this node"]);
    refused(&first, set("leaf"), 400, &["'server' must be hub at this node"]);
    assert_eq!(done(&leaf, set("leaf"))["set"], json!([route(b)]));
    let routes = done(&leaf, json!({ "operation": "cluster_get_routes" }));
    assert_eq!(routes, json!({ "hub": [], "leaf": [route(a), route(b)] }));
    assert!(dir.read(&file).ends_with(&format!("port: {a} }} # first\n        - {{ host: 127.0.0.1, port: {b} }}\n")));
    let key = "clustering_leafServer_network_routes";
    let replaced = json!({ "operation": "set_configuration", key: [route(a), route(b)] });
    assert_eq!(done(&leaf, replaced)["message"], "Configuration successfully set");
    // The connection to the other member, through the hub, was made for the calls.
    connected(&dir, &leaf, &["a", "b"]);

    first.kill();
    connected(&dir, &leaf, &["b"]);
    dir.ok(&["ping", "--admin", leaf.admin(), "b@127.0.0.1"]);
    leaf.stop();
    second.stop();
}

#[test]
fn a_node_without_a_cluster_says_so() {
    let dir = Dir::new();
    let node = dir.node(&dir.config("app", ""), &[]);
    let text = dir.ok(&["cluster", "status"]).stdout;
    assert!(text.contains("belongs to no cluster: its configuration has no `clustering:`"), "{text}");
    assert_eq!(dir.json(&["cluster", "status"])["is_enabled"], false);
    assert_eq!(dir.ok(&["cluster", "routes"]).stdout.trim(), "no routes");
    node.stop();
}

/// Writes a member whose section for the routes has comments.
fn commented(dir: &Dir, name: &str, port: u16) -> String {
    let rest =
        format!("  listen: [{{ port: {port} }}]\nclustering:   # ours\n  hubServer:\n    cluster:\n      name: lab\n");
    dir.config(name, &rest)
}

#[test]
fn g7_g10_routes_set_by_an_operation_apply_at_once_and_after_a_restart_and_keep_the_comments_of_the_file() {
    let dir = Dir::new();
    let (a, b, c) = (free_port(), free_port(), free_port());
    let [first, second] = [("a", a), ("b", b)].map(|(name, port)| dir.node(&member(&dir, name, port, &[]), &[]));
    let file = commented(&dir, "c", c);
    let before = dir.read(&file);
    let node = dir.node(&file, &[]);
    let route = |port: u16| json!({ "host": "127.0.0.1", "port": port });
    let text = |port: u16| json!({ "host": "127.0.0.1", "port": port.to_string() });

    // The shape of HarperDB's documents; the port as text is cast, and a repeat is skipped.
    let set = json!({ "operation": "cluster_set_routes", "server": "hub", "routes": [text(a), route(a), route(c)] });
    let expected = json!({
        "message": "cluster routes successfully set", "set": [route(a), route(c)], "skipped": [route(a)],
        "warnings": [format!("127.0.0.1:{c} is this node itself")],
    });
    assert_eq!(done(&node, set), expected);
    connected(&dir, &node, &["a"]);
    let routes = |node: &Running| done(node, json!({ "operation": "cluster_get_routes" }));
    assert_eq!(routes(&node), json!({ "hub": [route(a), route(c)], "leaf": [] }));
    let lines = format!(
        "      network:\n        routes:\n          - {{ host: 127.0.0.1, port: {a} }}\n          - {{ host: 127.0.0.1, port: {c} }}\n"
    );
    assert_eq!(dir.read(&file), format!("{before}{lines}"));

    // The routes of the file apply after a crash, and those of HarperDB's `set_configuration` replace them.
    node.kill();
    let node = dir.node(&file, &[]);
    connected(&dir, &node, &["a"]);
    assert_eq!(routes(&node)["hub"], json!([route(a), route(c)]));
    let replace =
        json!({ "operation": "set_configuration", "clustering_hubServer_cluster_network_routes": [route(b)] });
    assert_eq!(done(&node, replace)["message"], "Configuration successfully set");
    connected(&dir, &node, &["a", "b"]);
    connected(&dir, &first, &["b", "c"]);

    let delete = json!({ "operation": "cluster_delete_routes", "routes": [text(b), route(a)] });
    let expected = json!({
        "message": "cluster routes successfully deleted", "deleted": [route(b)], "skipped": [route(a)],
    });
    assert_eq!(done(&node, delete), expected);
    assert_eq!(routes(&node), json!({ "hub": [], "leaf": [] }));
    assert!(dir.read(&file).contains("        routes: []\n"), "{}", dir.read(&file));
    // Nobody is disconnected by a route that goes.
    connected(&dir, &node, &["a", "b"]);
    let log = node.stop().stderr;
    assert!(!log.contains("lost") && !log.contains("disconnect"), "{log}");
    for node in [first, second] {
        node.stop();
    }
}

#[test]
fn g7_an_operation_with_an_item_that_cannot_be_used_names_it_and_changes_nothing() {
    let dir = Dir::new();
    let file = commented(&dir, "app", free_port());
    let node = dir.node(&file, &[]);
    let before = dir.read(&file);
    let set = |routes: Value| json!({ "operation": "cluster_set_routes", "routes": routes });
    let good = json!({ "host": "10.0.0.1", "port": 9932 });
    for (routes, parts) in [
        (
            json!([good, { "port": 1 }, { "host": "h", "port": "abc" }]),
            &["'routes[1].host' is required", "'routes[2].port' must be a port number from 1 to 65535"][..],
        ),
        (json!([{ "host": "h", "port": 70000 }]), &["'routes[0].port' must be a port number from 1 to 65535"]),
        (json!([{ "host": "a b", "port": 1 }]), &["'routes[0].host': \"a b\" is no host"]),
        (json!([{ "host": "h:1", "port": 2 }]), &["'routes[0].host': the host names port 1, and `port` is 2"]),
        (json!([{ "host": 7, "port": 2 }]), &["'routes[0].host' must be a string"]),
        (json!([{ "host": "h", "prot": 2 }]), &["'routes[0].prot' is not allowed"]),
        (json!([7, "h:0"]), &["'routes[0]' must be an object", "'routes[1]': must be a port number"]),
        (json!([]), &["'routes' must contain at least 1 item"]),
        (json!({}), &["'routes' must be an array"]),
        (json!(null), &["'routes' is required"]),
    ] {
        refused(&node, set(routes), 400, parts);
    }
    refused(
        &node,
        json!({ "operation": "cluster_set_routes", "server": "x", "routes": [good] }),
        400,
        &["'server' must be hub"],
    );
    refused(&node, json!({ "operation": "set_configuration", "node_name": 1 }), 400, &["'node_name' is not allowed"]);
    let key = "clustering_hubServer_cluster_network_routes";
    refused(&node, json!({ "operation": "set_configuration", key: null }), 400, &[&format!("'{key}' is required")]);
    refused(&node, json!({ "operation": "cluster_network", "timeout": "soon" }), 400, &["'timeout' must be a number"]);
    refused(
        &node,
        json!({ "operation": "cluster_stat" }),
        400,
        &["unknown variant `cluster_stat`", "`cluster_status`"],
    );
    assert_eq!(dir.read(&file), before);
    assert_eq!(done(&node, json!({ "operation": "cluster_get_routes" })), json!({ "hub": [], "leaf": [] }));

    // An address that is none is a name, which is accepted with a warning.
    let odd = done(&node, set(json!([{ "host": "3.735.184.8", "port": 9932 }, good])));
    let warning = odd["warnings"][0].as_str().unwrap();
    assert!(warning.contains("3.735.184.8 is not an IPv4 address"), "{warning}");
    node.stop();

    // Neither a file that others broke nor a layer above it is written over.
    let node = dir.node(&file, &[]);
    dir.file(&file, &dir.read(&file).replace("name: lab", "name: [lab"), 0o600);
    let broken = dir.read(&file);
    refused(
        &node,
        set(json!([{ "host": "h" }])),
        409,
        &["app.yaml:11:14: not well-formed YAML", "not saved, nothing changed"],
    );
    assert_eq!(dir.read(&file), broken);
    // Nor one that makes the node no member of this cluster any more, at the next start.
    for (old, new) in [("clustering:   # ours\n", "clustering:\n  enabled: false\n"), ("name: lab", "name: other")] {
        let changed = before.replace(old, new);
        dir.file(&file, &changed, 0o600);
        refused(&node, set(json!([{ "host": "h" }])), 409, &["app.yaml", "a member of the cluster lab any more"]);
        assert_eq!(dir.read(&file), changed);
        assert_eq!(done(&node, json!({ "operation": "cluster_get_routes" }))["hub"].as_array().unwrap().len(), 2);
    }
    dir.file(&file, &before, 0o600);
    node.stop();
    let node = dir.node(&file, &["--CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES", "[]"]);
    refused(&node, set(json!([good])), 409, &["--CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES …"]);
    node.stop();
    let mut command = dir.command(&["--json", "node", "--config", &file]);
    command.env("CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES", "[]");
    let node = Running::start(command);
    let delete = json!({ "operation": "cluster_delete_routes", "routes": [good] });
    refused(&node, delete, 409, &["the environment variable CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES"]);
    assert_eq!(dir.read(&file), before);
    node.stop();
    let alone = dir.node(&dir.config("alone", ""), &[]);
    refused(&alone, set(json!([good])), 409, &["belongs to no cluster", "clustering:"]);
    alone.stop();
}

#[test]
fn g10_a_file_that_is_edited_by_hand_applies_at_once_and_a_broken_edit_leaves_the_routes() {
    let dir = Dir::new();
    let (a, b, c) = (free_port(), free_port(), free_port());
    let [first, second] = [("a", a), ("b", b)].map(|(name, port)| dir.node(&member(&dir, name, port, &[]), &[]));
    // As Kubernetes mounts a file: a link to a file below a link that is swapped.
    let of = |routes: &[u16]| dir.read(&member(&dir, "c", c, routes));
    let release = |name: &str, text: &str| {
        std::fs::create_dir(dir.at(name)).unwrap();
        dir.file(&format!("{name}/app.yaml"), text, 0o600);
        std::os::unix::fs::symlink(name, dir.at("next")).unwrap();
        std::fs::rename(dir.at("next"), dir.at("current")).unwrap();
    };
    release("one", &of(&[]).replace("cookie_file: cookie", "cookie_file: ../cookie"));
    std::os::unix::fs::symlink("current/app.yaml", dir.at("linked.yaml")).unwrap();
    dir.file("cookie", &dir.read("cookie"), 0o600);
    let text = |routes: &[u16]| {
        of(routes).replace("cookie_file: cookie", &format!("cookie_file: {}", dir.at("cookie").display()))
    };
    dir.file("one/app.yaml", &text(&[]), 0o600);
    let node = dir.node("linked.yaml", &["--log-level", "info"]);
    connected(&dir, &node, &[]);
    release("two", &text(&[a]));
    connected(&dir, &node, &["a"]);

    release("three", &text(&[b]).replace("name: lab", "name: [lab"));
    node.logs("the routes of the cluster stay");
    let log = node.stderr();
    let line = log.lines().find(|line| line.contains("the routes of the cluster stay")).unwrap();
    assert!(line.contains("linked.yaml:7:45: not well-formed YAML"), "{line}");
    assert_eq!(dir.json(&["cluster", "routes", "--admin", node.admin()])[0]["port"], a);
    release("four", &text(&[b]));
    connected(&dir, &node, &["a", "b"]);
    // A reload while the file names another cluster takes up no routes, and leaves none out when the name is back.
    release("five", &text(&[]).replace("name: lab", "name: other"));
    let message = dir.ok(&["reload", "--admin", node.admin()]).stdout;
    assert!(
        message.contains("needing a restart: the name of the cluster, the role in it, and its routes"),
        "{message}"
    );
    release("six", &text(&[]));
    eventually("the routes are taken up", || {
        (dir.ok(&["cluster", "routes", "--admin", node.admin()]).stdout.trim() == "no routes").then_some(())
    });
    // A file that it names may be missing for a moment: it is read again, although it does not change again.
    let of_another = dir.at("late").display().to_string();
    release("seven", &text(&[a]).replace(&dir.at("cookie").display().to_string(), &of_another));
    node.logs(&of_another);
    dir.file("late", &dir.read("cookie"), 0o600);
    eventually("the routes are taken up", || {
        (dir.json(&["cluster", "routes", "--admin", node.admin()])[0]["port"] == a).then_some(())
    });
    for node in [first, second, node] {
        node.stop();
    }
}

#[test]
fn every_member_tells_its_view_and_one_that_is_gone_for_good_is_forgotten_by_all() {
    let dir = Dir::new();
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let files = [
        member(&dir, "n1", ports[0], &[ports[1], ports[2], ports[3]]),
        member(&dir, "n2", ports[1], &[]),
        member(&dir, "n3", ports[2], &[]),
        member(&dir, "n4", ports[3], &[]),
    ];
    let [one, two, three, four] = files.each_ref().map(|file| dir.node(file, &[]));
    connected(&dir, &one, &["n2", "n3", "n4"]);
    connected(&dir, &four, &["n1", "n2", "n3"]);
    connected(&dir, &three, &["n1", "n2", "n4"]);
    connected(&dir, &two, &["n1", "n3", "n4"]);
    let network = done(&one, json!({ "operation": "cluster_network" }));
    let names: Vec<_> =
        network["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1", "n4@127.0.0.1"]);
    assert_eq!(network["silent"], json!([]));
    assert_eq!(network["nodes"][1]["connected_nodes"], json!(["n1@127.0.0.1", "n3@127.0.0.1", "n4@127.0.0.1"]));
    assert_eq!(network["nodes"][0]["routes"].as_array().unwrap().len(), 3);
    let less = json!({ "operation": "cluster_network", "connected_nodes": true, "routes": true, "timeout": 5000 });
    assert_eq!(done(&one, less)["nodes"][1].as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "response_time"]);
    let status = done(&one, json!({ "operation": "cluster_status" }));
    let peer = &status["connections"][0];
    assert_eq!((&peer["ports"], &peer["via"]), (&json!({ "clustering": ports[1] }), &Value::Null));
    assert!(peer["uptime"].as_str().unwrap().ends_with('s') && peer["last_heard_ms"].is_u64(), "{peer}");

    dir.run(&["cluster", "forget", "--admin", one.admin(), "n4@127.0.0.1"]).refused(&["n4@127.0.0.1 is connected"]);
    let unknown = dir.run(&["cluster", "forget", "--admin", one.admin(), "n9@127.0.0.1"]).exits(1).stderr;
    assert!(unknown.contains("n9@127.0.0.1 is not known in the cluster"), "{unknown}");
    // A member that does not answer is told within the time that was asked for.
    four.signal(Signal::STOP);
    let text = dir.ok(&["cluster", "network", "--admin", one.admin(), "--timeout", "300"]).stdout;
    assert!(text.lines().any(|line| line.contains("n4@127.0.0.1") && line.contains("silent")), "{text}");
    four.kill();
    connected(&dir, &one, &["n2", "n3"]);
    connected(&dir, &three, &["n1", "n2"]);
    // The routes to it are gone before it is forgotten, or it would be found again.
    let route = format!("127.0.0.1:{}", ports[3]);
    // All routes are replaced at once; one that cannot be used changes nothing.
    let set = |routes: &[&str]| {
        let flags = routes.iter().flat_map(|route| ["--set", route]);
        let arguments: Vec<&str> = ["cluster", "routes", "--admin", one.admin()].into_iter().chain(flags).collect();
        dir.run(&arguments)
    };
    for bad in ["a b", "10.0.0.1,10.0.0.2", "*"] {
        let refused = set(&[&route, bad]).exits(2).stderr;
        assert!(refused.contains(&format!("'{bad}' for '--set <ADDRESS>': {bad:?} is no host")), "{refused}");
    }
    let short = dir.run(&["cluster", "token", "--admin", one.admin(), "--valid", "500ms"]).exits(2).stderr;
    assert!(short.contains("from 1 s to 30 days"), "{short}");
    assert!(set(&[&route, "127.0.0.1:1", "127.0.0.1:1"]).stdout.contains("Configuration successfully set"));
    let routes = dir.json(&["cluster", "routes", "--admin", one.admin()]);
    assert_eq!((&routes[1]["port"], routes.as_array().unwrap().len()), (&json!(1), 2));
    let text = dir.read("n1.yaml");
    assert_eq!(text.matches("port: 1 }").count(), 1, "a route that is given twice is one:\n{text}");
    set(&[&route]).exits(0);
    let removed = dir.ok(&["cluster", "routes", "--admin", one.admin(), "--remove", &route]).stdout;
    assert_eq!(removed.trim(), format!("{route}: removed"));
    eventually("a dial failed", || {
        let status = dir.json(&["cluster", "status", "--admin", one.admin()]);
        let lost = status["connections"].as_array()?.iter().find(|member| member["node_name"] == "n4@127.0.0.1")?;
        (lost["last_error"].is_string() && lost["last_error_ms"].is_u64() && lost["last_heard_ms"].is_u64())
            .then_some(())
    });
    let told = dir.ok(&["cluster", "forget", "--admin", one.admin(), "n4@127.0.0.1"]).stdout;
    assert!(told.contains("n4@127.0.0.1 is forgotten"), "{told}");
    for node in [&one, &two, &three] {
        eventually("the member is forgotten", || {
            let status = dir.json(&["cluster", "status", "--admin", node.admin()]);
            (status["connections"].as_array()?.len() == 2).then_some(())
        });
    }
    // It is a member again when it connects.
    let four = dir.node(&member(&dir, "n4", ports[3], &[ports[2]]), &[]);
    connected(&dir, &four, &["n1", "n2", "n3"]);
    connected(&dir, &one, &["n2", "n3", "n4"]);
    for node in [one, two, three, four] {
        node.stop();
    }
}

/// Starts a member by a token, in place of `trunkline node`.
fn joins(dir: &Dir, token: &str, name: &str, port: u16) -> Running {
    let (name, port, file) = (format!("{name}@127.0.0.1"), port.to_string(), format!("{name}.yaml"));
    Running::start(dir.command(&["--json", "join", token, "--name", &name, "--port", &port, "--config", &file]))
}

#[test]
fn a_machine_joins_by_one_token_once_and_a_token_that_cannot_be_used_leaves_nothing_behind() {
    let dir = Dir::new();
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let file = member(&dir, "n1", ports[0], &[]);
    let one = dir.node(&file, &[]);
    let token = |node: &Running, more: &[&str]| {
        let text = dir.ok(&[&["cluster", "token", "--admin", node.admin()], more].concat()).stdout;
        text.trim().to_owned()
    };
    let first = token(&one, &[]);
    let two = joins(&dir, &first, "n2", ports[1]);
    connected(&dir, &one, &["n2"]);
    connected(&dir, &two, &["n1"]);
    assert_eq!(dir.read("n2.cookie"), crate::world::COOKIE);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.at("n2.cookie")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = dir.read("n2.yaml");
    assert!(text.contains(&format!("- {{ host: 127.0.0.1, port: {} }}", ports[0])), "{text}");
    // What was written is a configuration like any other.
    two.kill();
    let two = dir.node("n2.yaml", &[]);
    connected(&dir, &one, &["n2"]);

    let files = || {
        let names =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let (before, free) = (files(), free_port().to_string());
    let refused = |token: &str, name: &str, file: &str, code: i32, parts: &[&str]| {
        let ran = dir.run(&["join", token, "--name", name, "--port", &free, "--config", file]).exits(code);
        parts.iter().for_each(|part| assert!(ran.stderr.contains(part), "{part:?} is missing in:\n{}", ran.stderr));
        assert_eq!(files(), before, "{}", ran.stderr);
    };
    let name = "n3@127.0.0.1";
    refused(&first, name, "n3.yaml", 1, &["n1@127.0.0.1 refused the token", "was used by n2@127.0.0.1"]);
    let revoked = token(&one, &[]);
    let list = dir.json(&["cluster", "token", "--admin", one.admin(), "--list"]);
    assert!(!list.to_string().contains(&revoked));
    let id = list[1]["id"].as_str().unwrap().to_owned();
    let told = dir.ok(&["cluster", "token", "--admin", one.admin(), "--revoke", &id]).stdout;
    assert_eq!(told.trim(), format!("the token {id} is revoked"));
    refused(&revoked, name, "n3.yaml", 1, &["the token was revoked"]);
    let expired = token(&one, &["--valid", "1s"]);
    eventually("the token expires", || {
        let list = dir.json(&["cluster", "token", "--admin", one.admin(), "--list"]);
        list[2]["refusal"].as_str()?.contains("expired").then_some(())
    });
    refused(&expired, name, "n3.yaml", 1, &["the token has expired", "trunkline cluster token"]);
    dir.run(&["cluster", "token", "--admin", one.admin(), "--valid", "31d"]).exits(2);
    refused("trunkline-join-1-abc", name, "n3.yaml", 2, &["this is no join token"]);
    refused(&first, "n3", "n3.yaml", 2, &["--name"]);

    // What fails before the issuer takes the token does not use it up, and it is kept across a restart of the issuer.
    let last = token(&one, &[]);
    refused(&last, name, "n2.yaml", 2, &["n2.yaml exists"]);
    refused(&last, name, "nowhere/n3.yaml", 2, &["nowhere/n3.yaml cannot be written"]);
    let taken = std::net::TcpListener::bind(("0.0.0.0", ports[2])).unwrap();
    let busy = dir.run(&["join", &last, "--name", name, "--port", &ports[2].to_string(), "--config", "n3.yaml"]);
    busy.refused(&["cannot be listened at", "--port"]);
    assert_eq!(files(), before);
    drop(taken);
    refused(&last, "n2@127.0.0.1", "n3.yaml", 1, &["a member of the cluster has the name n2@127.0.0.1"]);
    one.kill();
    refused(&last, name, "n3.yaml", 1, &["n1@127.0.0.1 takes no token", "TCP"]);
    let one = dir.node(&file, &[]);
    let three = joins(&dir, &last, "n3", ports[2]);
    connected(&dir, &three, &["n1", "n2"]);
    connected(&dir, &one, &["n2", "n3"]);

    // Nobody else's token, and none of a node outside a cluster.
    let stranger = member(&dir, "x1", ports[3], &[]);
    let stranger = dir.node(&stranger, &[]);
    let foreign = token(&stranger, &[]);
    stranger.stop();
    let before = files();
    let ran = dir.run(&["join", &foreign, "--name", "n4@127.0.0.1", "--port", &free, "--config", "n4.yaml"]).exits(1);
    assert!(ran.stderr.contains("x1@127.0.0.1 takes no token at any address of it"), "{}", ran.stderr);
    assert_eq!(files(), before);
    for node in [one, two, three] {
        node.stop();
    }
}

/// Returns what a node says of another one.
fn seen(dir: &Dir, node: &Running, name: &str) -> Option<Value> {
    let status = dir.json(&["cluster", "status", "--admin", node.admin()]);
    status["connections"].as_array()?.iter().find(|member| member["node_name"] == name).cloned()
}

#[test]
fn a_chain_that_starts_at_once_is_a_mesh_and_one_node_by_two_names_is_one_member() {
    let dir = Dir::new();
    let ports: Vec<u16> = (0..5).map(|_| free_port()).collect();
    let names = ["n0", "n1", "n2", "n3", "n4"];
    let nodes: Vec<Running> = (0..5)
        .map(|n| {
            // The next one does not listen yet, and the last one has the first one by two names.
            let routes = ports.get(n + 1).map_or(vec![], |next| vec![*next]);
            let file = member(&dir, names[n], ports[n], &routes);
            if n == 4 {
                let [a, b] = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", ports[0]));
                dir.file(&file, &dir.read(&file).replace("routes: []", &format!("routes: ['{a}', '{b}']")), 0o600);
            }
            dir.node(&file, &[])
        })
        .collect();
    for (n, node) in nodes.iter().enumerate() {
        let others: Vec<&str> = names.iter().copied().filter(|name| *name != names[n]).collect();
        connected(&dir, node, &others);
    }
    eventually("both names lead to the node", || {
        let routes = dir.json(&["cluster", "routes", "--admin", nodes[4].admin()]);
        let leads = |route: &Value| route["nodes"] == json!(["n0@127.0.0.1"]);
        (routes.as_array()?.len() == 2 && routes.as_array()?.iter().all(leads)).then_some(())
    });
    let links = dir.json(&["nodes", "--admin", nodes[4].admin()]);
    let to_first = links.as_array().unwrap().iter().filter(|link| link["name"] == "n0@127.0.0.1").count();
    assert_eq!(to_first, 1, "{links}");
    nodes.into_iter().for_each(|node| drop(node.stop()));
}

#[test]
fn a_node_that_knows_only_a_dead_seed_finds_the_cluster_by_its_book() {
    let dir = Dir::new();
    let [seed, a, b] = [free_port(), free_port(), free_port()];
    let first = dir.node(&member(&dir, "seed", seed, &[]), &[]);
    let file = member(&dir, "a", a, &[seed]);
    let node = dir.node(&file, &[]);
    let other = dir.node(&member(&dir, "b", b, &[seed]), &[]);
    connected(&dir, &node, &["b", "seed"]);
    eventually("the book has the other member", || {
        let book = std::fs::read_to_string(dir.at("a.data/cluster.json")).ok()?;
        book.contains("b@127.0.0.1").then_some(())
    });
    node.kill();
    first.kill();
    connected(&dir, &other, &[]);
    // The other one dials it too; with a port of its own it has to find that one itself.
    let moved = free_port();
    dir.file(&file, &dir.read(&file).replace(&format!("port: {a} }}]"), &format!("port: {moved} }}]")), 0o600);
    let node = dir.node(&file, &[]);
    connected(&dir, &node, &["b"]);
    connected(&dir, &other, &["a"]);
    assert_eq!(seen(&dir, &other, "a@127.0.0.1").unwrap()["ports"]["clustering"], moved);
    node.stop();
    other.stop();
}

#[test]
fn a_node_of_another_cluster_and_one_with_a_name_that_is_in_use_are_told_with_the_reason() {
    let dir = Dir::new();
    let [a, b, c] = [free_port(), free_port(), free_port()];
    let first = dir.node(&member(&dir, "a", a, &[]), &[]);
    let file = member(&dir, "b", b, &[a]);
    dir.file(&file, &dir.read(&file).replace("name: lab", "name: other"), 0o600);
    let stranger = dir.node(&file, &[]);
    for (node, name, cluster) in [(&first, "b@127.0.0.1", "other"), (&stranger, "a@127.0.0.1", "lab")] {
        eventually("the other cluster is told", || {
            let seen = seen(&dir, node, name)?;
            (seen["status"] == "other_cluster" && seen["cluster"] == cluster).then_some(())
        });
        let text = dir.ok(&["cluster", "status", "--admin", node.admin()]).stdout;
        assert!(text.contains(&format!("belongs to the cluster {cluster}")), "{text}");
    }
    // A second node with the name of the first.
    let twin = member(&dir, "a", c, &[a]);
    let text = dir.read(&twin).replace("data_dir: a.data", "data_dir: twin.data");
    dir.file("twin.yaml", &text, 0o600);
    member(&dir, "a", a, &[]);
    let member = dir.node(&member(&dir, "c", free_port(), &[a, c]), &[]);
    connected(&dir, &member, &["a"]);
    let twin = dir.node("twin.yaml", &[]);
    eventually("the name that is in use is told", || {
        let routes = dir.json(&["cluster", "routes", "--admin", twin.admin()]);
        let error = routes[0]["last_error"].as_str()?;
        (error.contains("the node here has the same name as the caller") && routes[0]["next_attempt_ms"].is_u64())
            .then_some(())
    });
    connected(&dir, &member, &["a"]);
    assert_eq!(seen(&dir, &member, "a@127.0.0.1").unwrap()["ports"]["clustering"], a);
    for node in [first, stranger, member, twin] {
        node.stop();
    }
}

#[test]
fn a_member_that_is_stopped_is_noticed_by_default_and_is_connected_again_when_it_goes_on() {
    let dir = Dir::new();
    let [a, b] = [free_port(), free_port()];
    let first = dir.node(&member(&dir, "a", a, &[]), &[]);
    let second = dir.node(&member(&dir, "b", b, &[a]), &[]);
    connected(&dir, &first, &["b"]);
    second.signal(Signal::STOP);
    connected(&dir, &first, &[]);
    second.signal(Signal::CONT);
    connected(&dir, &first, &["b"]);
    first.stop();
    second.stop();
}
