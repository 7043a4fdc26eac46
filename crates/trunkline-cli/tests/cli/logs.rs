use rustix::process::Signal;
use serde_json::Value;

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
