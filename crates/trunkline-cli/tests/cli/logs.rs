use rustix::process::Signal;
use serde_json::Value;

use crate::peer::Peer;
use crate::world::Dir;

#[test]
fn json_logs_are_one_object_per_line_and_text_logs_have_no_escapes() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', port: 1 }\n");
    for format in ["json", "text"] {
        let node = dir.node(&file, &["--log-format", format, "--log-level", "debug"]);
        node.signal(Signal::HUP);
        node.logs("reloaded: 1 routes");
        let log = node.stop().stderr;
        assert!(log.lines().count() >= 3, "{log}");
        for line in log.lines() {
            match serde_json::from_str::<Value>(line) {
                Ok(event) => assert!(format == "json" && event["level"].is_string(), "{line}"),
                Err(_) => assert!(format == "text" && !line.contains('\u{1b}'), "{line}"),
            }
        }
    }
}

#[test]
fn commands_log_nothing_unless_asked_and_the_level_may_come_from_the_environment() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let explain = ["explain", "--config", &file, "db@127.0.0.1"];
    assert_eq!(dir.ok(&explain).stderr, "");
    let node = dir.node(&file, &["--log-level", "off"]);
    assert_eq!(node.stop().stderr, "");
    let mut command = dir.command(&["--json", "node", "--config", &file]);
    command.env("TRUNKLINE_LOG", "error,trunkline=info");
    let node = crate::world::Running::start(command);
    assert!(node.stop().stderr.contains("leaving"));
}

#[test]
fn one_connection_may_say_more_than_the_rest() {
    let dir = Dir::new();
    let (loud, quiet) = (Peer::start(&dir, "loud"), Peer::start(&dir, "quiet"));
    let routes = format!(
        "routes:\n  - {{ match: '^loud@', host: 127.0.0.1, port: {}, log_level: trace }}\n  - {{ match: '^quiet@', host: \
         127.0.0.1, port: {} }}\n",
        loud.port(),
        quiet.port()
    );
    let node = dir.node(&dir.config("app", &routes), &["--log-level", "warn"]);
    for name in ["loud@127.0.0.1", "quiet@127.0.0.1"] {
        dir.ok(&["send", "--admin", node.admin(), name, "work", "the body of it"]);
    }
    let nodes = dir.json(&["nodes", "--admin", node.admin()]);
    assert_eq!((&nodes[0]["log_level"], &nodes[1]["log_level"]), (&"trace".into(), &"warn".into()));
    assert_eq!(nodes[0]["route"], "^loud@");
    let log = node.stop().stderr;
    let traced = log.lines().find(|line| line.contains("sent") && line.contains("TRACE")).expect(&log);
    assert!(traced.contains("peer=loud@127.0.0.1") && traced.contains("route=\"^loud@\""), "{traced}");
    assert!(!log.contains("quiet@") && !log.contains("the body"), "{log}");
    let refused = dir.config("bad", "routes:\n  - { match: a, port: 1, log_level: loud }\n");
    dir.run(&["check", &refused]).refused(&["routes[0].log_level", "write off, error, warn, info, debug or trace"]);
    let off = dir.config("off", "  log_level: off\nroutes:\n  - { match: a@b, port: 1, log_level: off }\n");
    dir.ok(&["check", &off]);
}
