use rustix::process::{Pid, Signal, test_kill_process};

use crate::world::{Dir, Running, eventually, finish};

/// Returns a command whose directory for temporary files must be empty afterwards.
fn command(dir: &Dir, args: &[&str]) -> std::process::Command {
    let temporary = dir.at("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = dir.command(args);
    command.env("TMPDIR", temporary);
    command
}

#[track_caller]
fn nothing_left(dir: &Dir, pids: &[i32]) {
    let left: Vec<_> = std::fs::read_dir(dir.at("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert_eq!(pids.len(), 7);
    for pid in pids {
        eventually("the end of a node of the demo", || {
            test_kill_process(Pid::from_raw(*pid).unwrap()).is_err().then_some(())
        });
    }
}

fn pids(text: &str) -> Vec<i32> {
    let pids = text.split("  pid ").skip(1);
    pids.map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn the_demo_shows_failover_and_leaves_no_files_or_processes_behind() {
    let dir = Dir::new();
    let ran = finish(command(&dir, &["demo"])).exits(0);
    for part in ["Seven nodes are up", "\"the primary\" answered", "found through the registrar", "SIGKILL"] {
        assert!(ran.stdout.contains(part), "{part:?} is missing in:\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("\"the standby\" answered"), "{}", ran.stdout);
    // Checks that the first path leads through one gateway, and the second one through the other after the first was
    // killed.
    let ways: Vec<_> = ran.stdout.split("\"the vault\" answered").skip(1).collect();
    assert!(ways.len() == 2 && ways[0].contains("1    gate1@") && ways[1].contains("1    gate2@"), "{}", ran.stdout);
    for part in ["each is connected to each other one after", "without n1: n5@127.0.0.1 answered n2@127.0.0.1"] {
        assert!(ran.stdout.contains(part), "{part:?} is missing in:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    nothing_left(&dir, &pids(&ran.stdout));
}

#[test]
fn the_demo_prints_a_json_summary_on_request() {
    let dir = Dir::new();
    let ran = finish(command(&dir, &["--json", "demo"])).exits(0);
    let summary = ran.json();
    assert_eq!((&summary["before"], &summary["after"]), (&"the primary".into(), &"the standby".into()));
    for time in ["failover_ms", "through_gateway_ms", "gateway_failover_ms", "cluster_formed_ms", "cluster_healed_ms"] {
        assert!(summary[time].as_f64().unwrap() > 0.0, "{summary}");
    }
    let pids: Vec<_> = summary["nodes"].as_array().unwrap().iter().map(|n| n["pid"].as_i64().unwrap() as i32).collect();
    nothing_left(&dir, &pids);
}

#[test]
fn a_demo_with_keep_runs_until_it_is_interrupted() {
    let dir = Dir::new();
    for signal in [Signal::INT, Signal::TERM] {
        let demo = Running::spawned(command(&dir, &["demo", "--keep"]).spawn().unwrap());
        let text = eventually("the instructions", || Some(demo.stdout()).filter(|t| t.contains("--config")));
        let admin = text.split("TRUNKLINE_ADMIN=").nth(1).unwrap().lines().next().unwrap();
        let config = text.split("routes list --config ").nth(1).unwrap().lines().next().unwrap();
        for args in
            [&["status"][..], &["call", "shop@127.0.0.1", "whoami", ""], &["routes", "list", "--config", config]]
        {
            let mut try_it = dir.command(args);
            try_it.env("TRUNKLINE_ADMIN", admin);
            finish(try_it).exits(0);
        }
        demo.signal(signal);
        let ran = demo.end().exits(0);
        assert!(ran.stdout.contains("All processes are stopped and all files removed"), "{}", ran.stdout);
        nothing_left(&dir, &pids(&text));
    }
}

#[test]
fn an_interrupted_demo_removes_everything_it_created() {
    let dir = Dir::new();
    let demo = Running::spawned(command(&dir, &["demo"]).spawn().unwrap());
    let begun = || std::fs::read_dir(dir.at("tmp")).unwrap().next().map(drop);
    eventually("the demo has begun", begun);
    demo.signal(Signal::INT);
    let ran = demo.end().exits(1);
    assert!(ran.stderr.contains("interrupted"), "{}", ran.stderr);
    assert!(begun().is_none(), "left behind");
}
