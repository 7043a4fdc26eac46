use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::process::Stdio;

use rustix::process::Signal;

use crate::peer::Peer;
use crate::world::{Dir, Running, TOKEN, eventually, free_port};

#[test]
fn a_node_prints_a_ready_line_and_only_its_user_can_operate_it() {
    let dir = Dir::new();
    let node = dir.node(&dir.config("app", ""), &[]);
    assert_eq!(node.ready["name"], "app@127.0.0.1");
    assert!(node.port() > 0);
    assert_eq!(node.admin(), dir.at("app.data/admin.sock").to_str().unwrap());
    let mode = |path: &str| std::fs::metadata(dir.at(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("app.data"), mode("app.data/admin.sock")), (0o700, 0o600));
    let left: Vec<_> = std::fs::read_dir(dir.at("app.data")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["admin.sock"]);
    node.stop();

    let mut text = Running::spawned(dir.command(&["node", "--config", "app.yaml"]).spawn().unwrap());
    let line = eventually("the ready line", || Some(text.stdout()).filter(|text| text.contains('\n')));
    assert!(line.starts_with("app@127.0.0.1 is up; listening at 127.0.0.1:"), "{line}");
    assert!(line.trim_end().ends_with("app.data/admin.sock"), "{line}");
    text.close_stdin();
    text.stop();
}

#[test]
fn a_node_raises_its_limit_on_open_files_and_warns_if_that_is_too_low() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let node = |limits: &str| Running::start(dir.limited(limits, &["--json", "node", "--config", &file]));
    let few = node("ulimit -Sn 64 && ulimit -Hn 700");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", few.id())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().collect::<Vec<_>>()[3..5], ["700", "700"]);
    few.logs("limit=700 needed=832");
    few.logs("LimitNOFILE=");
    few.stop();
    let enough = node("ulimit -n 900");
    assert!(!enough.stderr().contains("limit on open files"), "{}", enough.stderr());
    enough.stop();
}

#[test]
fn a_second_node_with_the_same_data_directory_is_refused_and_the_first_keeps_running() {
    let dir = Dir::new();
    let first = dir.node(&dir.config("app", ""), &[]);
    let text = dir.read("app.yaml").replace("name: app@", "name: other@");
    dir.file("other.yaml", &text, 0o600);
    let parts = ["other.yaml: node.admin", "a running process answers there", "another node.data_dir"];
    dir.run(&["node", "--config", "other.yaml"]).refused(&parts);
    assert_eq!(dir.json(&["status"])["name"], "app@127.0.0.1");
    first.stop();
}

#[test]
fn the_socket_of_a_killed_node_is_replaced() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    dir.node(&file, &[]).kill();
    assert!(std::fs::metadata(dir.at("app.data/admin.sock")).unwrap().file_type().is_socket());
    let ran = dir.run(&["status"]).exits(1);
    assert!(ran.stderr.contains("cannot connect to a node at ./app.data/admin.sock"), "{}", ran.stderr);
    let again = dir.node(&file, &[]);
    dir.ok(&["status"]);
    again.stop();
    assert!(!dir.at("app.data/admin.sock").exists());
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced() {
    let dir = Dir::new();
    let file = dir.config("app", "  admin: { socket: precious }\n");
    dir.file("precious", "do not lose me", 0o600);
    dir.run(&["node", "--config", &file]).refused(&["app.yaml: node.admin", "no socket", "remove that file"]);
    assert_eq!(dir.read("precious"), "do not lose me");
}

#[test]
fn sigterm_lets_a_call_in_progress_finish_and_its_answer_arrive() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "slow");
    let route = format!("routes:\n  - {{ match: '^slow@', host: 127.0.0.1, port: {} }}\n", peer.port());
    let node = dir.node(&dir.config("app", &route), &[]);
    let call = dir.command(&["call", "--admin", node.admin(), "slow@127.0.0.1", "work", "hello"]).spawn().unwrap();
    let call = Running::spawned(call);
    let received = peer.received();
    node.signal(Signal::TERM);
    node.logs("leaving");
    eventually("the socket is gone", || (!dir.at("app.data/admin.sock").exists()).then_some(()));
    received.reply("a late answer");
    assert_eq!(call.end().exits(0).stdout, "a late answer");
    let ran = node.end().exits(0);
    assert!(ran.stderr.contains("drained=1 cut=0"), "{}", ran.stderr);
}

#[test]
fn a_second_signal_ends_the_drain() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "slow");
    let route = format!("routes:\n  - {{ match: '^slow@', host: 127.0.0.1, port: {} }}\n", peer.port());
    let node = dir.node(&dir.config("app", &route), &["--grace", "2m"]);
    let call = dir.command(&["call", "--admin", node.admin(), "slow@127.0.0.1", "work", "hello"]).spawn().unwrap();
    let call = Running::spawned(call);
    let _held = peer.received();
    node.signal(Signal::TERM);
    node.logs("leaving");
    node.signal(Signal::INT);
    let ran = node.end().exits(0);
    assert!(ran.stderr.contains("stopped at once"), "{}", ran.stderr);
    let stderr = call.end().exits(1).stderr;
    assert!(stderr.contains("gave no answer"), "{stderr}");
}

#[test]
fn a_node_that_cannot_drain_within_its_grace_period_cuts_connections_and_logs_that() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "slow");
    let route = format!("routes:\n  - {{ match: '^slow@', host: 127.0.0.1, port: {} }}\n", peer.port());
    let node = dir.node(&dir.config("app", &route), &["--grace", "100ms"]);
    let call = dir.command(&["call", "--admin", node.admin(), "slow@127.0.0.1", "work", "hello"]).spawn().unwrap();
    let call = Running::spawned(call);
    let _held = peer.received();
    node.signal(Signal::TERM);
    let ran = node.end().exits(0);
    assert!(ran.stderr.contains("drained=0 cut=1"), "{}", ran.stderr);
    call.end().exits(1);
}

#[test]
fn sighup_applies_the_routes_of_the_file_and_a_bad_file_changes_nothing() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^one@', port: 1 }\n");
    let node = dir.node(&file, &[]);
    let patterns = || {
        let routes = dir.json(&["routes", "list"]);
        routes.as_array().unwrap().iter().map(|r| r["match"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    dir.ok(&["routes", "add", "^live@", "--port", "9"]);
    dir.config("app", "routes:\n  - { match: '^two@', port: 2 }\n");
    node.signal(Signal::HUP);
    node.logs("reloaded 1 routes from app.yaml");
    assert_eq!(patterns(), ["^live@", "^two@"]);

    dir.config("app", "routes:\n  - { match: '^three(', port: 3 }\n");
    node.signal(Signal::HUP);
    node.logs("reload failed, nothing changed: app.yaml:7:");
    assert_eq!(patterns(), ["^live@", "^two@"]);
    node.stop();
}

#[test]
fn reload_names_other_changes_and_refuses_a_pattern_that_was_added_at_run_time() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^one@', port: 1 }\n");
    let node = dir.node(&file, &[]);
    dir.config("app", "  fallback: never\nroutes:\n  - { match: '^two@', port: 2 }\n");
    let message = dir.json(&["reload"])["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "reloaded 1 routes from app.yaml; also changed, but needing a restart: node.fallback");

    dir.ok(&["routes", "add", "^three@", "--port", "9"]);
    dir.config("app", "routes:\n  - { match: '^one@', port: 1 }\n  - { match: '^three@', port: 3 }\n");
    let before = dir.json(&["routes", "list"]);
    let parts = ["app.yaml", "`^three@`", "also added at run time", "routes remove"];
    dir.run(&["reload"]).refused(&parts);
    assert_eq!(dir.json(&["routes", "list"]), before);
    let profile =
        "tls_profiles: { p: { server_name: h } }\nroutes:\n  - { match: '^p@', port: 1, tls: true, tls_profile: p }\n";
    dir.config("app", profile);
    dir.run(&["reload"]).refused(&["`^p@`", "TLS profile p is new; restart the node"]);
    assert_eq!(dir.json(&["routes", "list"]), before);
    dir.config("app", "routes:\n  - { match: '^one@', port: 1 }\n  - { match: '^three@', port: 3 }\n");
    dir.ok(&["routes", "remove", "^three@"]);
    dir.ok(&["reload"]);
    dir.config("app", "routes:\n  - { match: '^one-*', port: 1 }\n  - { match: '^three@', port: 3 }\n");
    assert!(dir.ok(&["reload"]).stdout.contains("write `^one-.*`"), "a reload shows warnings about patterns as well");
    node.signal(Signal::HUP);
    node.logs("write `^one-.*`");
    let ports = dir.json(&["routes", "list"]);
    assert_eq!((&ports[0]["port"], &ports[1]["port"]), (&1.into(), &3.into()));
    node.stop();
}

#[test]
fn a_reload_keeps_the_position_of_the_routes_before_the_first_difference() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^a@', port: 1 }\n  - { match: '^b@', port: 2 }\n");
    let node = dir.node(&file, &[]);
    dir.ok(&["routes", "add", "^live@", "--port", "9"]);
    let before = dir.json(&["routes", "list"]);
    dir.ok(&["reload"]);
    assert_eq!(dir.json(&["routes", "list"]), before);
    dir.config("app", "routes:\n  - { match: '^a@', port: 1 }\n  - { match: '^b@', port: 3 }\n");
    dir.ok(&["reload"]);
    let routes = dir.json(&["routes", "list"]);
    let order: Vec<_> = routes.as_array().unwrap().iter().map(|r| (r["match"].as_str(), r["port"].as_u64())).collect();
    assert_eq!(order, [(Some("^a@"), Some(1)), (Some("^live@"), Some(9)), (Some("^b@"), Some(3))]);
    node.stop();
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_with_the_limit() {
    let dir = Dir::new();
    let long = "d".repeat(120);
    let text = format!("node: {{ name: app@h, cookie_file: cookie, registrar: none, data_dir: {long} }}\n");
    dir.file("app.yaml", &text, 0o600);
    let parts = ["and that of a socket at most 107", "node.data_dir or node.admin.socket"];
    dir.run(&["node", "--config", "app.yaml"]).refused(&parts);
    assert!(!dir.at(&long).exists());
}

#[test]
fn until_eof_ends_the_node_with_its_standard_input() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let mut command = dir.command(&["--json", "node", "--config", &file, "--until-eof"]);
    command.stdin(Stdio::piped());
    let mut node = Running::start(command);
    dir.ok(&["status"]);
    node.close_stdin();
    node.end().exits(0);
    assert!(!dir.at("app.data/admin.sock").exists());
}

#[test]
fn a_signal_right_after_the_ready_line_is_not_missed() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    for signal in [Signal::TERM, Signal::INT] {
        let node = dir.node(&file, &[]);
        node.signal(signal);
        assert!(node.end().exits(0).stderr.contains("left"));
    }
}

/// Starts a node in a mount namespace in which `localhost` has two addresses.
fn with_two_addresses(dir: &Dir, file: &str) -> Running {
    dir.file("hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644);
    let mut command = std::process::Command::new("unshare");
    let script = "mount --bind hosts /etc/hosts && exec \"$0\" \"$@\"";
    command.args(["-r", "-m", "sh", "-c", script, env!("CARGO_BIN_EXE_trunkline"), "--json", "node", "--config", file]);
    command.current_dir(dir.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

#[test]
fn a_listener_for_localhost_listens_at_all_its_addresses() {
    let dir = Dir::new();
    let (port, admin) = (free_port(), free_port());
    dir.file("token", TOKEN, 0o600);
    let rest = format!(
        "  listen: [{{ host: localhost, port: {port} }}]\n  admin: {{ listen: 'localhost:{admin}', token_file: token }}\n"
    );
    let node = with_two_addresses(&dir, &dir.config("app", &rest));
    let mut listening: Vec<_> =
        node.ready["listening"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
    listening.sort();
    assert_eq!(listening, [format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
    for port in [port, admin] {
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, port)).unwrap();
        }
    }
    node.stop();
}

#[test]
fn both_wildcard_addresses_can_be_used_with_the_same_port() {
    let dir = Dir::new();
    let port = free_port();
    let rest = format!("  listen: [{{ host: 0.0.0.0, port: {port} }}, {{ host: '::', port: {port} }}]\n");
    let node = dir.node(&dir.config("app", &rest), &[]);
    for host in ["127.0.0.1", "::1"] {
        TcpStream::connect((host, port)).unwrap();
    }
    node.stop();
}
