//! Clusters of real processes.

use crate::world::{Dir, Running, eventually, free_port};

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
fn a_node_without_a_cluster_says_so() {
    let dir = Dir::new();
    let node = dir.node(&dir.config("app", ""), &[]);
    let text = dir.ok(&["cluster", "status"]).stdout;
    assert!(text.contains("belongs to no cluster: its configuration has no `clustering:`"), "{text}");
    assert_eq!(dir.json(&["cluster", "status"])["is_enabled"], false);
    assert_eq!(dir.ok(&["cluster", "routes"]).stdout.trim(), "no routes");
    node.stop();
}
