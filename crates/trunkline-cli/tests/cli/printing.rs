use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::real::readme;
use crate::world::{Dir, Running, finish, free_port};

/// Starts a node `app` with two routes to `db`, the first of which leads to a closed port, and `db` itself.
fn pair(dir: &Dir) -> (Running, Running) {
    let db = dir.node(&dir.config("db", ""), &["--answer", "echo", "--answer", "whoami=the db"]);
    let rest = format!(
        "  fallback: never\nroutes:\n  - {{ match: '^(db|nobody)@', weight: 300, host: 127.0.0.1, port: {} }}\n  \
         - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n  \
         - {{ match: '^nobody@', host: 127.0.0.1, port: {} }}\n",
        free_port(),
        db.port(),
        free_port()
    );
    let app = dir.node(&dir.config("app", &rest), &[]);
    (app, db)
}

#[test]
fn an_unreachable_name_prints_every_attempt_on_its_own_line_and_exits_1() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    for at in [["--admin", app.admin()], ["--config", "app.yaml"]] {
        for command in [&["ping"][..], &["send"], &["call"]] {
            let mut args = command.to_vec();
            args.extend(at);
            args.push("nobody@127.0.0.1");
            if command != ["ping"] {
                args.extend(["work", "x"]);
            }
            let ran = dir.run(&args).exits(1);
            let lines: Vec<_> = ran.stderr.lines().collect();
            assert_eq!(ran.stdout, "");
            assert_eq!(lines.len(), 3, "{}", ran.stderr);
            assert!(lines[0].starts_with("trunkline: no route to nobody@127.0.0.1: every candidate failed"));
            assert!(lines[1].starts_with("  1. ") && lines[1].contains("at 127.0.0.1:"), "{}", lines[1]);
            assert!(lines[2].starts_with("  2. ") && lines[2].ends_with(" ms)"), "{}", lines[2]);

            args.insert(0, "--json");
            let failure = dir.run(&args).exits(1).json();
            assert_eq!(failure["attempts"].as_array().unwrap().len(), 2, "{failure}");
            assert_eq!(failure["attempts"][0]["stage"], "tcp");
        }
    }
    let ran = dir.run(&["ping", "--admin", app.admin(), "unknown@127.0.0.1"]).exits(1);
    assert!(ran.stderr.contains("no static route matches"), "{}", ran.stderr);
}

#[test]
fn an_unknown_mailbox_and_a_missing_node_exit_1_with_the_next_step() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    let ran = dir.run(&["call", "--admin", app.admin(), "db@127.0.0.1", "gone", ""]).exits(1);
    assert!(ran.stderr.contains("db@127.0.0.1 has no mailbox \"gone\"; `trunkline status`"), "{}", ran.stderr);
    for command in ["status", "nodes", "reload"] {
        let ran = dir.run(&[command, "--admin", "gone.sock"]).exits(1);
        assert!(ran.stderr.contains("cannot connect to a node at gone.sock"), "{}", ran.stderr);
        assert!(ran.stderr.contains("trunkline node --config"), "{}", ran.stderr);
        let failure = dir.run(&["--json", command, "--admin", "gone.sock"]).exits(1).json();
        assert!(failure["error"].as_str().unwrap().contains("gone.sock"));
    }
    let ran = dir.run(&["disconnect", "--admin", app.admin(), "nobody@127.0.0.1"]).exits(1);
    assert!(ran.stderr.contains("no connection to nobody@127.0.0.1"), "{}", ran.stderr);
}

#[test]
fn a_request_that_no_mailbox_can_accept_is_wrong_usage() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    dir.run(&["call", "--admin", app.admin(), "db@127.0.0.1", "", ""]).refused(&["1 to 255 bytes"]);
    let long = "s".repeat(256);
    dir.run(&["send", "--admin", app.admin(), "db@127.0.0.1", &long, ""]).refused(&["1 to 255 bytes"]);
    // The node's own name is one like any other, without a socket.
    let own = dir.run(&["ping", "--admin", app.admin(), "app@127.0.0.1"]).exits(0);
    assert!(own.stdout.contains("app@127.0.0.1 answers from memory"), "{}", own.stdout);
}

#[test]
fn every_command_can_print_json_and_its_text_has_no_escape_sequences() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    let admin = app.admin();
    let commands: [&[&str]; 11] = [
        &["check", "app.yaml"],
        &["ping", "--admin", admin, "db@127.0.0.1"],
        &["call", "--admin", admin, "db@127.0.0.1", "whoami", ""],
        &["send", "--admin", admin, "db@127.0.0.1", "echo", "x"],
        &["explain", "--admin", admin, "db@127.0.0.1"],
        &["routes", "list", "--admin", admin],
        &["nodes", "--admin", admin],
        &["status", "--admin", admin],
        &["reload", "--admin", admin],
        &["routes", "list", "--config", "app.yaml"],
        &["disconnect", "--admin", admin, "db@127.0.0.1"],
    ];
    for command in commands {
        if command[0] == "disconnect" {
            dir.ok(&["ping", "--admin", admin, "db@127.0.0.1"]);
        }
        let value = dir.json(command);
        assert!(value.is_object() || value.is_array(), "{command:?}: {value}");
        dir.ok(&["ping", "--admin", admin, "db@127.0.0.1"]);
        let ran = dir.ok(command);
        assert!(!ran.stdout.is_empty() && !ran.stdout.contains('\u{1b}'), "{command:?}: {}", ran.stdout);
        assert_eq!(ran.stderr, "", "{command:?}");
    }
    let help = dir.ok(&["--help"]).stdout;
    assert!(help.contains("Exit codes") && !help.contains('\u{1b}'), "{help}");
    for args in [&["--help"][..], &["node", "--help"], &["routes", "add", "--help"], &["spawn", "-h"]] {
        let help = dir.ok(args).stdout;
        assert!(help.lines().all(|line| line.chars().count() <= 100), "a line of more than 100 characters:\n{help}");
    }
    assert!(dir.ok(&["completions", "bash"]).stdout.contains("trunkline"));
}

#[test]
fn tables_are_aligned() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    for (command, head) in [(&["routes", "list"][..], "WEIGHT"), (&["explain", "db@127.0.0.1"], "ADDRESS")] {
        let args: Vec<_> = command.iter().chain(&["--admin", app.admin()]).copied().collect();
        let text = dir.ok(&args).stdout;
        let lines: Vec<_> = text.lines().take_while(|line| !line.starts_with("No resolver")).collect();
        let column = lines[0].find(head).unwrap();
        assert!(lines.len() >= 3, "{text}");
        for line in &lines[1..] {
            assert!(line[..column].ends_with("  ") && !line[column..].starts_with(' '), "{text}");
        }
    }
}

#[test]
fn bytes_of_standard_input_are_sent_and_printed_unchanged() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    let payload: Vec<u8> = (0..=255).chain([b' ', b'\n']).collect();
    let call = |json: &[&str]| {
        let args: Vec<_> =
            json.iter().chain(&["call", "--admin", app.admin(), "db@127.0.0.1", "echo", "-"]).copied().collect();
        let mut command = dir.command(&args);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&payload).unwrap();
        Running::spawned(child).end().exits(0)
    };
    assert_eq!(call(&[]).bytes, payload);
    let reply: Value = call(&["--json"]).json();
    assert!(reply["body"]["base64"].as_str().unwrap().starts_with("AAECAwQ"), "{reply}");
    assert_eq!(dir.ok(&["call", "--admin", app.admin(), "db@127.0.0.1", "echo", "  a\n"]).stdout, "  a\n");
}

#[test]
fn every_command_fails_after_a_timeout_if_the_node_does_not_answer() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    let admin = app.admin();
    app.signal(rustix::process::Signal::STOP);
    let commands: [&[&str]; 13] = [
        &["call", "db@127.0.0.1", "whoami", "", "--timeout", "1s"],
        &["send", "db@127.0.0.1", "whoami", "", "--timeout", "1s"],
        &["send", "db@127.0.0.1", "whoami", "", "--timeout", "1s", "--important"],
        &["ping", "db@127.0.0.1", "--timeout", "1s"],
        &["trace", "db@127.0.0.1", "--timeout", "1s"],
        &["spawn", "db@127.0.0.1", "backup", "--until-end", "--timeout", "1s"],
        &["start-application", "db@127.0.0.1", "shop", "--timeout", "1s"],
        &["reload"],
        &["status"],
        &["routes", "add", "^x@", "--port", "1"],
        &["routes", "drain", "^db@"],
        &["disconnect", "db@127.0.0.1"],
        &["forward", "127.0.0.1:0", "db@127.0.0.1", "shout"],
    ];
    let start = |command: &&[&str]| {
        let args: Vec<_> = command.iter().chain(&["--admin", admin]).copied().collect();
        Running::spawned(dir.command(&args).spawn().unwrap())
    };
    // All commands run at the same time; each must end within ten seconds.
    let running: Vec<_> = commands.iter().map(start).collect();
    for (running, command) in running.into_iter().zip(commands) {
        let ended = running.end().exits(1);
        let within = if command.contains(&"1s") { "did not respond for 2s" } else { "did not respond for 10s" };
        assert!(ended.stderr.contains(within), "{command:?}: {}", ended.stderr);
    }
    app.signal(rustix::process::Signal::CONT);
}

#[test]
fn a_command_waits_for_a_slow_peer_as_long_as_its_node_responds() {
    let dir = Dir::new();
    let peer = crate::peer::Peer::start(&dir, "slow");
    let routes = format!("routes:\n  - {{ match: '^slow@', host: 127.0.0.1, port: {} }}\n", peer.port());
    let app = dir.node(&dir.config("app", &routes), &[]);
    let ran = dir.run(&["call", "--admin", app.admin(), "slow@127.0.0.1", "work", "", "--timeout", "3s"]).exits(1);
    assert!(ran.stderr.contains("did not answer within 3s"), "{}", ran.stderr);
}

#[test]
fn a_failure_also_prints_exactly_one_json_document() {
    let dir = Dir::new();
    let (app, db) = pair(&dir);
    drop(db);
    let told = dir.run(&["--json", "trace", "--admin", app.admin(), "nobody@127.0.0.1"]).exits(1);
    assert_eq!(told.json()["reached"], false);
    assert!(told.stderr.contains("no path to nobody@127.0.0.1"), "{}", told.stderr);

    let spawn = "spawn:\n  fails: { command: ['/bin/false'], allow: ['.*'] }\n";
    let db = dir.node(&dir.config("db", spawn), &[]);
    let routes = format!("routes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n", db.port());
    let again = dir.node(&dir.config("again", &routes), &[]);
    let told = dir.run(&["--json", "spawn", "--until-end", "--admin", again.admin(), "db@127.0.0.1", "fails"]).exits(1);
    assert_eq!(told.json()["ended_well"], false);
    assert!(told.stderr.contains("fails at db@127.0.0.1"), "{}", told.stderr);
}

#[test]
fn a_command_whose_result_cannot_be_written_fails() {
    let dir = Dir::new();
    let (app, _db) = pair(&dir);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let admin = app.admin();
    let commands: [&[&str]; 8] = [
        &["status", "--admin", admin],
        &["--json", "status", "--admin", admin],
        &["call", "--admin", admin, "db@127.0.0.1", "whoami", ""],
        &["routes", "add", "^x@", "--port", "1", "--admin", admin],
        &["check", "app.yaml"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ];
    for command in commands {
        let mut full_disk = dir.command(command);
        full_disk.stdout(full());
        let ran = finish(full_disk).exits(1);
        assert!(
            ran.stderr.contains("cannot be written to standard output: No space left"),
            "{command:?}: {}",
            ran.stderr
        );
        // The reader closes standard output early.
        let mut closed = dir.command(command);
        closed.stdout(std::io::pipe().unwrap().1);
        if command[0] == "routes" {
            dir.ok(&["routes", "remove", "^x@", "--admin", admin]);
        }
        assert_eq!(finish(closed).exits(141).stderr, "", "{command:?}");
    }
}

#[test]
fn the_environment_overrides_the_file_and_the_command_line_overrides_both() {
    let dir = Dir::new();
    let file = dir.config("app", "  fallback: on_miss\n");
    let fallback = |env: Option<&str>, set: &[&str]| {
        let args: Vec<_> = ["--json", "check", &file].iter().chain(set).copied().collect();
        let mut command = dir.command(&args);
        command.envs(env.map(|value| ("TRUNKLINE_NODE_FALLBACK", value)));
        finish(command).exits(0).json()["fallback"].as_str().unwrap().to_owned()
    };
    assert_eq!(fallback(None, &[]), "on_miss");
    assert_eq!(fallback(Some("never"), &[]), "never");
    assert_eq!(fallback(Some("never"), &["--set", "node.fallback=on_failure"]), "on_failure");
    assert_eq!(fallback(None, &["--set", "node.fallback=never"]), "never");
    let mut command = dir.command(&["check", &file]);
    command.env("TRUNKLINE_NODE_FALBACK", "never");
    finish(command).refused(&["TRUNKLINE_NODE_FALBACK", "TRUNKLINE_NODE_FALLBACK"]);
}

#[test]
fn check_prints_the_number_of_entries_of_every_section() {
    let dir = Dir::new();
    let file = dir.config(
        "app",
        "  listen: [{ port: 0 }, { port: 0 }]\nregistrars: { other: { kind: embedded, host: h } }\ntls_profiles: { p: {} }\n\
         peers: [{ match: 'a@h', cookie_file: cookie }]\nspawn: { s: { command: [x], allow: [] } }\n\
         applications: { a: { allow: [], processes: [{ mailbox: s, command: [x] }] } }\n\
         proxy_routes: [{ match: a, proxy: g@h, target: { tls: true } }, { match: b, proxy: g@h, target: { tls: true } }]\n\
         transit: { rules: [{ from: 'a@h', to: 'b@h' }], gateways: ['g@h'] }\nproxied: { allow: [] }\n\
         services: { s: { connect: 'h:1', allow: [] } }\nforwards: [{ listen: '127.0.0.1:0', name: a@b, service: s }]\n",
    );
    let told = dir.ok(&["check", &file]).stdout;
    assert_eq!(
        told.trim_end(),
        "app.yaml: valid; node app@127.0.0.1, 2 listeners, 0 routes, 2 proxy routes, 1 peer entry, 1 transit rule, 1 transit \
         gateway, 1 service, 1 forward, 1 program, 1 application, 1 registrar, 1 TLS profile, access through gateways \
         restricted"
    );
    let value = dir.json(&["check", &file]);
    for (key, count) in [("routes", 0), ("proxy_routes", 2), ("peers", 1), ("transit_rules", 1), ("services", 1)] {
        assert_eq!(value[key], count, "{key}: {value}");
    }
    assert_eq!(value["callers_through_gateways"], "restricted");
    let plain = dir.config("plain", "");
    let told = dir.ok(&["check", &plain]).stdout;
    assert_eq!(told.trim_end(), "plain.yaml: valid; node plain@127.0.0.1, 1 listener, 0 routes");
}

#[test]
fn the_primary_and_standby_routes_of_the_readme_are_tried_in_that_order() {
    let dir = Dir::new();
    let (_, text) = readme().into_iter().find(|(name, _)| name == "shop.yaml").unwrap();
    dir.file("shop.yaml", &text, 0o600);
    assert!(dir.ok(&["check", "shop.yaml"]).stdout.contains("2 routes"));
    let told = dir.json(&["explain", "--config", "shop.yaml", "shop@10.0.1.50", "--set", "node.registrar=none"]);
    let steps = told["steps"].as_array().unwrap();
    let tried: Vec<_> = steps.iter().filter_map(|step| step["pattern"].as_str()).collect();
    assert_eq!(tried, ["^shop@", "^(?:shop)@"], "{told}");
    let dir_of = |twice: String| dir.file("twice.yaml", &twice, 0o600);
    dir_of(text.replace("^(?:shop)@", "^shop@"));
    dir.run(&["check", "twice.yaml"]).refused(&["routes[1].match", "`^(?:shop)@`"]);
}
