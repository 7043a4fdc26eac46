use std::net::TcpListener;

use crate::world::{Dir, free_port};

/// Asserts that every command refuses this configuration before anything starts.
#[track_caller]
fn refused(rest: &str, parts: &[&str]) {
    let dir = Dir::new();
    dir.file("open-cookie", "a cookie readable by everybody", 0o644);
    let file = dir.config("app", rest);
    refused_file(&dir, &file, parts);
}

#[track_caller]
fn refused_file(dir: &Dir, file: &str, parts: &[&str]) {
    let parts: Vec<_> = [file].iter().chain(parts).copied().collect();
    for args in [
        &["node", "--config", file][..],
        &["check", file],
        &["check", "--config", file],
        &["ping", "--config", file, "db@h"],
    ] {
        dir.run(args).refused(&parts);
    }
    let failure = dir.run(&["--json", "check", file]).exits(2).json();
    assert!(failure["error"].as_str().unwrap().contains(parts[1]), "{failure}");
    assert!(!dir.at("app.data").exists(), "something was started");
}

#[test]
fn an_unknown_key_is_refused_with_the_most_similar_known_one() {
    refused("  fallbak: never\n", &["app.yaml:6:3", "node.fallbak", "did you mean `fallback`?"]);
}

#[test]
fn a_bad_pattern_is_shown_with_a_caret_under_the_place() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^prod-(db@', port: 4370 }\n");
    refused_file(&dir, &file, &["app.yaml:7:", "routes[0].match", "^prod-(db@"]);
    let stderr = dir.run(&["check", &file]).stderr;
    let lines: Vec<_> = stderr.lines().collect();
    let caret = lines.iter().position(|line| line.trim() == "^").expect("a line with the caret alone");
    let (shown, at) = (lines[caret - 1], lines[caret].find('^').unwrap());
    assert_eq!(&shown[at..=at], "(", "{stderr}");
}

#[test]
fn a_duplicate_pattern_is_refused_with_both_places() {
    let routes = "routes:\n  - { match: '^db@', port: 1 }\n  - { match: '^db@', port: 2 }\n";
    refused(routes, &["app.yaml:8:", "routes[1].match", "routes[0]", "remove one of them"]);
}

#[test]
fn an_unknown_resolver_is_refused_with_a_list_of_the_known_ones() {
    refused("routes:\n  - { match: '^db@', resolver: embeded }\n", &["app.yaml:7:", "routes[0].resolver", "embedded"]);
}

#[test]
fn port_0_in_a_route_is_refused() {
    refused("routes:\n  - { match: '^db@', port: 0 }\n", &["routes[0].port", "1 to 65535"]);
}

#[test]
fn a_cookie_file_that_others_can_read_is_refused_with_the_command_to_run() {
    refused(
        "routes:\n  - { match: '^db@', port: 1, cookie_file: open-cookie }\n",
        &["routes[0].cookie_file", "chmod 600"],
    );
    let dir = Dir::new();
    dir.file("cookie", "a cookie readable by everybody", 0o644);
    let file = dir.config("app", "");
    refused_file(&dir, &file, &["node.cookie_file", "chmod 600"]);
}

#[test]
fn an_empty_name_and_one_of_256_bytes_are_refused_and_one_of_255_is_not() {
    let dir = Dir::new();
    let with = |name: &str| {
        let text = format!("node:\n  name: \"{name}\"\n  cookie_file: cookie\n  data_dir: app.data\n");
        dir.file("app.yaml", &text, 0o600);
    };
    with("");
    refused_file(&dir, "app.yaml", &["node.name", "name@host"]);
    with(&format!("{}@h", "a".repeat(254)));
    refused_file(&dir, "app.yaml", &["node.name", "256 bytes", "255"]);
    with(&format!("{}@h", "a".repeat(253)));
    dir.ok(&["check", "app.yaml"]);
}

#[test]
fn a_tcp_admin_listener_without_a_token_is_refused() {
    refused("  admin: { listen: '127.0.0.1:4490' }\n", &["node.admin.listen", "token_file", "openssl rand"]);
}

#[test]
fn a_missing_file_is_refused() {
    refused_file(&Dir::new(), "gone.yaml", &["the file does not exist", "--config"]);
}

#[test]
fn a_port_in_use_is_refused_and_the_other_listeners_are_closed() {
    let dir = Dir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let free = free_port();
    let rest = format!("  listen: [{{ port: {free} }}, {{ port: {port} }}]\n");
    let file = dir.config("app", &rest);
    let parts = ["app.yaml: node.listen", &format!("127.0.0.1:{port}"), "choose another port"];
    dir.run(&["node", "--config", &file]).refused(&parts);
    assert!(!dir.at("app.data").exists());
    TcpListener::bind(("127.0.0.1", free)).expect("the other listener is closed");
}

#[test]
fn a_registrar_with_another_cookie_is_refused_with_both_remedies() {
    let dir = Dir::new();
    dir.file("other", "another-canary-cookie-9f86d081884c7d659a2feaa0c55ad015", 0o600);
    let port = free_port();
    let node = |name: &str, cookie: &str| {
        let text = format!(
            "node:\n  name: {name}@127.0.0.1\n  cookie_file: {cookie}\n  registrar_listen: {{ port: {port} }}\n"
        );
        dir.file(&format!("{name}.yaml"), &text, 0o600);
    };
    node("first", "cookie");
    node("second", "other");
    let first = dir.node("first.yaml", &[]);
    let parts = ["second.yaml: node.registrar", "another cookie", "give both the same", "registrar: none"];
    dir.run(&["node", "--config", "second.yaml"]).refused(&parts);
    assert!(!dir.at("second.data/admin.sock").exists());
    dir.ok(&["status", "--admin", first.admin()]);
}

#[test]
fn a_client_of_a_tcp_admin_address_needs_a_token_in_its_environment() {
    let dir = Dir::new();
    dir.run(&["status", "--admin", "127.0.0.1:1"]).refused(&["TRUNKLINE_ADMIN_TOKEN"]);
    let mut blank = dir.command(&["status", "--admin", "[::1]:1"]);
    blank.env("TRUNKLINE_ADMIN_TOKEN", " ");
    crate::world::finish(blank).refused(&["TRUNKLINE_ADMIN_TOKEN"]);
}

#[test]
fn malformed_names_durations_and_levels_are_refused_before_any_node_is_asked() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    for command in ["ping", "explain"] {
        dir.run(&[command, "--config", &file, "no-name"]).refused(&["no-name", "name@host"]);
    }
    dir.run(&["disconnect", "--admin", "gone.sock", ""]).refused(&["name@host"]);
    dir.run(&["--log-level", "inof", "check", &file]).refused(&["\"inof\" is not a level", "trace"]);
    let ran = dir.run(&["ping", "--timeout", "1w", "db@h"]).exits(2);
    assert!(ran.stderr.contains("500ms"), "{}", ran.stderr);
    let failure = dir.run(&["--json", "ping"]).exits(2).json();
    assert!(failure["error"].as_str().unwrap().contains("NAME"), "{failure}");
}

#[test]
fn a_command_without_a_named_or_unique_node_asks_for_one() {
    let dir = Dir::new();
    dir.run(&["status"]).refused(&["no node was selected", "--admin", "--config"]);
    for name in ["a", "b"] {
        std::fs::create_dir(dir.at(&format!("{name}.data"))).unwrap();
        dir.file(&format!("{name}.data/admin.sock"), "", 0o600);
    }
    dir.run(&["status"]).refused(&["several nodes", "./a.data/admin.sock", "./b.data/admin.sock"]);
}

#[test]
fn a_mailbox_name_of_a_wrong_length_is_refused_before_connecting() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    for mailbox in ["", &"s".repeat(256)] {
        for command in ["send", "call"] {
            let said = format!("the name of a mailbox must have 1 to 255 bytes; this one has {}", mailbox.len());
            dir.run(&[command, "--config", &file, "db@127.0.0.1", mailbox, "x"]).refused(&[&said]);
        }
    }
}

#[test]
fn the_error_about_the_registrar_names_another_program_on_its_port_as_a_possible_cause() {
    let dir = Dir::new();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    std::thread::spawn(move || stranger.incoming().for_each(drop));
    dir.file("cookie", "a cookie of thirty-two characters", 0o600);
    let text = format!("node:\n  name: app@127.0.0.1\n  cookie_file: cookie\n  registrar_listen: {{ port: {port} }}\n");
    dir.file("app.yaml", &text, 0o600);
    dir.run(&["node", "--config", "app.yaml"])
        .refused(&["another program may be using that port", "node.registrar_listen"]);
    assert!(!dir.at("app.data").exists());
}
