//! Programs that a node runs for its peers.

use crate::world::*;

/// A node that offers programs, and the file of one that dials it.
fn pair(dir: &Dir) -> Running {
    let offers = "spawn:\n  sort: { command: [sort], allow: ['app@.*'] }\n  \
                  fail: { command: [sh, -c, 'exit 3'], allow: ['app@.*'] }\n  \
                  wait: { command: [sleep, '1000'], allow: ['app@.*'] }\n  \
                  none: { command: [/no/such/program], allow: ['app@.*'] }\n  \
                  other: { command: [sort], allow: ['other@.*'] }\n\
                  applications:\n  shop:\n    allow: ['app@.*']\n    processes:\n      \
                  - { service: store, command: [sleep, '1000'] }\n      - { service: till, command: [sleep, '1000'] }\n";
    let text = format!("node:\n  name: db@127.0.0.1\n  cookie_file: cookie\n  registrar: none\n{offers}");
    dir.file("db.yaml", &text, 0o600);
    let db = dir.node("db.yaml", &[]);
    let text = format!(
        "node:\n  name: app@127.0.0.1\n  cookie_file: cookie\n  registrar: none\n  listen: []\nroutes:\n  \
         - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n  \
         - {{ match: '^strict@', host: 127.0.0.1, port: {} }}\n",
        db.port(),
        db.port()
    );
    dir.file("app.yaml", &text, 0o600);
    db
}

#[test]
fn a_peer_runs_programs_that_are_offered_and_learns_how_they_ended() {
    let dir = Dir::new();
    let db = pair(&dir);
    let app = dir.node("app.yaml", &[]);
    let spawn = |args: &[&str]| {
        let mut all = vec!["spawn", "--admin", app.admin(), "db@127.0.0.1"];
        all.extend(args);
        dir.run(&all)
    };
    let sorted = spawn(&["sort", "--until-end", "b\na\n"]).exits(0);
    assert!(sorted.stdout.starts_with("db@127.0.0.1#") && sorted.stdout.contains("it ended"), "{}", sorted.stdout);
    db.logs("a\nb\n");
    db.logs("peer=app@127.0.0.1 offer=\"sort\" pid=db@127.0.0.1#");
    let failed = spawn(&["fail", "--until-end"]).exits(1);
    assert!(failed.stderr.contains("exit status: 3"), "{}", failed.stderr);
    assert!(spawn(&["none", "--until-end"]).exits(1).stderr.contains("/no/such/program cannot be run"));
    assert!(spawn(&["other"]).exits(1).stderr.contains("not allowed: app@127.0.0.1 may not begin"));
    assert!(spawn(&["unknown"]).exits(1).stderr.contains("offers no processes named \"unknown\""));

    let pid = spawn(&["wait"]).exits(0).stdout.trim().to_owned();
    let status = dir.json(&["status", "--admin", db.admin(), "--json"]);
    assert_eq!(status["processes"][0], pid);
    assert_eq!(status["spawn"].as_array().unwrap().len(), 5);
    let shown = dir.ok(&["status", "--admin", db.admin()]).stdout;
    assert!(shown.contains(&pid) && shown.contains("shop (stopped)"), "{shown}");
    db.stop().exits(0);
    let ended = dir.run(&["spawn", "--admin", app.admin(), "db@127.0.0.1", "sort"]).exits(1);
    assert!(ended.stderr.contains("no route"), "{}", ended.stderr);
}

#[test]
fn an_application_is_started_by_a_peer_and_stopped_at_its_node() {
    let dir = Dir::new();
    let db = pair(&dir);
    let app = dir.node("app.yaml", &[]);
    let start = ["start-application", "--admin", app.admin(), "db@127.0.0.1", "shop"];
    assert!(dir.ok(&start).stdout.contains("shop runs at db@127.0.0.1"));
    let status = dir.json(&["status", "--admin", db.admin(), "--json"]);
    assert_eq!(status["applications"][0]["processes"].as_array().unwrap().len(), 2);
    assert_eq!(status["services"], serde_json::json!(["store", "till"]));
    assert!(dir.run(&start).exits(1).stderr.contains("runs already"));
    dir.ok(&["stop-application", "--admin", db.admin(), "shop"]);
    eventually("the application stops", || {
        let status = dir.json(&["status", "--admin", db.admin(), "--json"]);
        (status["processes"] == serde_json::json!([])).then_some(())
    });
    assert!(dir.run(&["stop-application", "--admin", db.admin(), "shop"]).exits(2).stderr.contains("does not run"));
    // At its own node, too.
    assert!(dir.ok(&["start-application", "--admin", db.admin(), "db@127.0.0.1", "shop"]).stdout.contains("shop runs"));
    assert!(
        dir.run(&["start-application", "--admin", db.admin(), "db@127.0.0.1", "none"]).exits(1).stderr.contains("none")
    );
}

#[test]
fn what_cannot_be_offered_is_refused_before_anything_starts() {
    let dir = Dir::new();
    for (sections, parts) in [
        ("spawn: { x: { command: [], allow: [] } }", &["spawn.x.command", "begins with a program"][..]),
        ("spawn: { x: { command: [a] } }", &["spawn.x.allow", "[] for nobody"]),
        ("spawn: { x: { allow: [] } }", &["spawn.x.command", "needs a `command`"]),
        ("spawn: { x: { command: [a], allow: ['('] } }", &["spawn.x.allow[0]"]),
        ("spawn: { x: { command: [a, 1], allow: [] } }", &["spawn.x.command[1]", "in quotes"]),
        ("spawn: { x: { command: [a], allow: [], alow: [] } }", &["spawn.x.alow", "unknown key"]),
        ("applications: { x: { allow: [] } }", &["applications.x.processes"]),
        ("applications: { x: { allow: [], processes: [] } }", &["applications.x.processes", "a process at least"]),
        (
            "applications: { x: { allow: [], processes: [{ service: a, command: [a] }, { service: a, command: [b] }] } }",
            &["applications.x.processes[1].service", "stands twice"],
        ),
        ("applications: { x: { allow: [], processes: [{ service: $a, command: [a] }] } }", &["begin with $"]),
    ] {
        dir.file("bad.yaml", &format!("node:\n  name: a@h\n  cookie_file: cookie\n{sections}\n"), 0o600);
        dir.run(&["check", "bad.yaml"]).refused(parts);
        dir.run(&["node", "--config", "bad.yaml"]).refused(parts);
    }
}
