use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeWriter, Read, Write, pipe};
use std::process::Stdio;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

use crate::peer::Peer;
use crate::world::{Dir, Running, eventually, finish};

#[test]
fn json_logs_are_one_object_per_line_and_text_logs_have_no_escapes() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', port: 1 }\n");
    for format in ["json", "text"] {
        let node = dir.node(&file, &["--log-format", format, "--log-level", "debug"]);
        node.signal(Signal::HUP);
        node.logs("reloaded 1 routes");
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
fn commands_log_nothing_by_default_and_the_level_can_come_from_the_environment() {
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
fn one_connection_can_log_more_than_the_others() {
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

/// Starts a node with this standard error, and makes it log and lose lines.
#[track_caller]
fn losing_lines(dir: &Dir, stderr: Stdio) -> Running {
    // Each of these routes causes a warning at every reload.
    let routes: String = (0..500).map(|n| format!("  - {{ match: 'db.*@host{n}.example', port: 1 }}\n")).collect();
    let file = dir.config("app", &format!("routes:\n{routes}"));
    let mut command = dir.command(&["--json", "node", "--config", &file]);
    command.stderr(stderr);
    let node = Running::start(command);
    eventually("a lost line", || {
        // A reload writes some twenty lines, and thousands fit into the queue. Signals that arrive together count as one.
        for _ in 0..10 {
            node.signal(Signal::HUP);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        lost(dir, &node)
    });
    node
}

/// Returns the number of lost lines that the node reports.
#[track_caller]
fn lost(dir: &Dir, node: &Running) -> Option<u64> {
    let lost = dir.json(&["status", "--admin", node.admin()])["lost_log_lines"].as_u64().unwrap();
    (lost > 0).then_some(lost)
}

#[test]
fn a_node_whose_log_cannot_be_written_keeps_running_and_counts_the_lost_lines() {
    let full = || Stdio::from(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(pipe().unwrap().1);
    for stderr in [full(), closed()] {
        let dir = Dir::new();
        let node = losing_lines(&dir, stderr);
        let status = dir.ok(&["status", "--admin", node.admin()]).stdout;
        assert!(status.contains("lost log lines"), "{status}");
        node.stop();
    }
    // The same applies to a command that acts as a node itself and logs errors.
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', host: 127.0.0.1, port: 1 }\n");
    for stderr in [full(), closed()] {
        let mut command = dir.command(&["--log-level", "trace", "ping", "--config", &file, "db@127.0.0.1"]);
        command.stderr(stderr);
        finish(command).exits(1);
    }
}

#[test]
fn a_node_whose_log_is_not_read_keeps_running_and_later_logs_how_many_lines_were_lost() {
    let dir = Dir::new();
    let (mut reader, writer) = pipe().unwrap();
    let node = losing_lines(&dir, writer.into());
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).map(|_| log).unwrap()
    });
    // Once the node has stopped, the pipe is drained and closed.
    node.stop();
    let log = reading.join().unwrap();
    let said = log.lines().find(|line| line.contains("log lines were lost")).expect("no line about it");
    let lines: u64 = said.split_once("lines=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    assert!(lines > 0 && said.contains("too slowly"), "{said}");
    assert!(log.trim_end().ends_with("cut=0"), "the last lines are missing");
}

#[test]
fn a_node_that_cannot_print_its_ready_line_runs_and_stops_when_told() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let (_reader, full) = full_pipe();
    for stdout in
        [Stdio::from(full.try_clone().unwrap()), OpenOptions::new().write(true).open("/dev/full").unwrap().into()]
    {
        let mut command = dir.command(&["node", "--config", &file]);
        command.stdout(stdout);
        let node = Running::spawned(command.spawn().unwrap());
        let status = ["status", "--admin", "app.data/admin.sock"];
        eventually("an answer", || (dir.run(&status).code == Some(0)).then_some(()));
        node.signal(Signal::TERM);
        node.end().exits(0);
    }
}

/// Returns a pipe without free space.
fn full_pipe() -> (impl Read, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn line_breaks_in_fields_do_not_split_a_line_of_the_text_log() {
    let dir = Dir::new();
    let file = dir.config("app", "routes:\n  - { match: '^db@', port: 1 }\n");
    let node = dir.node(&file, &[]);
    // Both problems are reported by one event, which must stay on one line.
    dir.config("app", "routes:\n  - { match: '^db@', port: 0 }\n  - { match: '(', port: 1 }\n");
    node.signal(Signal::HUP);
    node.logs("reload failed");
    let log = node.stop().stderr;
    assert!(log.contains("\\n"), "{log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
}

/// Returns what a node logs to a terminal.
fn logged_to_a_terminal(variables: &[(&str, &str)]) -> String {
    let dir = Dir::new();
    let file = dir.config("app", "");
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let side = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut command = dir.command(&["--json", "node", "--config", &file]);
    command.envs(variables.iter().copied()).stderr(side);
    let node = Running::start(command);
    let mut terminal = File::from(terminal);
    let reading = std::thread::spawn(move || {
        let (mut log, mut bytes) = (Vec::new(), [0; 4096]);
        // Reading fails once the last process that had the other side open has ended.
        while let Ok(read) = terminal.read(&mut bytes) {
            log.extend(&bytes[..read]);
        }
        String::from_utf8(log).unwrap()
    });
    node.stop();
    reading.join().unwrap()
}

#[test]
fn log_lines_are_coloured_only_on_a_terminal_that_supports_it_and_without_no_color() {
    let xterm = ("TERM", "xterm");
    for (variables, coloured) in [
        (&[xterm][..], true),
        (&[xterm, ("NO_COLOR", "")], true),
        (&[xterm, ("NO_COLOR", "1")], false),
        (&[("TERM", "dumb")], false),
        (&[], false),
    ] {
        let log = logged_to_a_terminal(variables);
        assert!(log.contains("leaving"), "{log:?}");
        assert_eq!(log.contains('\u{1b}'), coloured, "{variables:?}: {log:?}");
    }
}
