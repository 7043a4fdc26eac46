//! Tests of programs that a node runs for its peers.

use crate::world::*;

/// Starts a node that offers programs, and writes the file of a node that dials it.
fn pair(dir: &Dir) -> Running {
    let offers = "spawn:\n  sort: { command: [sort], allow: ['app@.*'] }\n  \
                  fail: { command: [sh, -c, 'exit 3'], allow: ['app@.*'] }\n  \
                  wait: { command: [sleep, '1000'], allow: ['app@.*'] }\n  \
                  none: { command: [/no/such/program], allow: ['app@.*'] }\n  \
                  other: { command: [sort], allow: ['other@.*'] }\n\
                  applications:\n  shop:\n    allow: ['app@.*']\n    processes:\n      \
                  - { mailbox: store, command: [sleep, '1000'] }\n      - { mailbox: till, command: [sleep, '1000'] }\n";
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
fn a_peer_starts_offered_programs_and_learns_how_they_ended() {
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
    // The output of the program is logged with its peer, offer and stream.
    for text in ["a", "b"] {
        let labels = format!("output: {text} peer=\"app@127.0.0.1\" offer=\"sort\" pid=\"db@127.0.0.1#");
        eventually("the output in the log", || db.stderr().contains(&labels).then_some(()));
    }
    db.logs("peer=app@127.0.0.1 offer=\"sort\" pid=db@127.0.0.1#");
    let failed = spawn(&["fail", "--until-end"]).exits(1);
    assert!(failed.stderr.contains("exit status: 3"), "{}", failed.stderr);
    // The peer only knows the name of the offer; the command and the cause are logged.
    let failed = spawn(&["none", "--until-end"]).exits(1).stderr;
    assert!(failed.contains("the program \"none\" cannot be started") && !failed.contains("/no/such"), "{failed}");
    db.logs("/no/such/program cannot be started");
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

/// Starts a node like [`pair`] with these offers to `app` and these environment variables, and also starts `app`.
fn offering(dir: &Dir, offers: &str, variables: &[(&str, &str)]) -> (Running, Running) {
    let text = format!("node:\n  name: db@127.0.0.1\n  cookie_file: cookie\n  registrar: none\n{offers}");
    dir.file("db.yaml", &text, 0o600);
    let mut command = dir.command(&["--json", "node", "--config", "db.yaml"]);
    command.envs(variables.iter().copied());
    let db = Running::start(command);
    let routes = format!("  listen: []\nroutes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n", db.port());
    let app = dir.node(&dir.config("app", &routes), &[]);
    (db, app)
}

fn spawn(dir: &Dir, app: &Running, args: &[&str]) -> Ran {
    let mut all = vec!["spawn", "--admin", app.admin(), "db@127.0.0.1"];
    all.extend(args);
    dir.run(&all)
}

#[test]
fn a_program_receives_the_offered_variables_and_no_others_of_the_node() {
    let dir = Dir::new();
    let offers = "spawn:\n  show: { command: [/usr/bin/env], env: [REGION, 'MODE=a=b', ABSENT], allow: ['app@.*'] }\n\
                  applications:\n  shop:\n    allow: ['app@.*']\n    processes:\n      \
                  - { mailbox: till, command: [/usr/bin/env], env: ['PART=till'] }\n";
    let variables =
        [("DB_PASSWORD", "canary-password"), ("REGION", "north"), ("SECRET_TOKEN", "canary-token"), ("TZ", "UTC")];
    let (db, app) = offering(&dir, offers, &variables);
    spawn(&dir, &app, &["show", "--until-end"]).exits(0);
    dir.ok(&["start-application", "--admin", app.admin(), "db@127.0.0.1", "shop"]);
    for variable in [
        "REGION=north",
        "MODE=a=b",
        "TZ=UTC",
        "PATH=/",
        "TRUNKLINE_PEER=app@127.0.0.1",
        "TRUNKLINE_OFFER=show",
        "TRUNKLINE_PID=db@127.0.0.1#",
        "PART=till",
        "TRUNKLINE_OFFER=shop.till",
    ] {
        db.logs(&format!("output: {variable}"));
    }
    for variable in ["ABSENT", "PASSWORD", "TOKEN"] {
        assert!(!db.stderr().contains(variable), "{}", db.stderr());
    }
}

#[test]
fn the_number_of_running_programs_of_an_offer_is_limited() {
    let dir = Dir::new();
    let offers = "spawn:\n  wait: { command: [sleep, '1000'], max: 2, allow: ['app@.*'] }\n  \
                  other: { command: [sleep, '1000'], allow: ['app@.*'] }\n  \
                  short: { command: ['true'], max: 1, allow: ['app@.*'] }\n";
    let (db, app) = offering(&dir, offers, &[]);
    for _ in 0..2 {
        spawn(&dir, &app, &["wait"]).exits(0);
    }
    let refused = spawn(&dir, &app, &["wait"]).exits(1).stderr;
    assert!(refused.contains("overloaded: 2 processes named \"wait\" run already"), "{refused}");
    spawn(&dir, &app, &["other"]).exits(0);
    // A program that has ended makes room for another one.
    for _ in 0..3 {
        spawn(&dir, &app, &["short", "--until-end"]).exits(0);
    }
    // Stopped gracefully, since a node that is killed cannot end its programs.
    db.stop().exits(0);
}

/// Waits for a line `child PID` in the log, and returns the pid.
fn child(db: &Running, offer: &str) -> u32 {
    eventually("the pid of a child in the log", || {
        let log = db.stderr();
        let line = log.lines().find(|line| line.contains("output: child ") && line.contains(offer))?;
        line.split("output: child ").nth(1)?.split(' ').next()?.parse().ok()
    })
}

fn ends(pid: u32) {
    // A process that is dead but not yet reaped has an empty command line.
    eventually("the end of a child", || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.is_empty().then_some(())
    });
}

#[test]
fn descendants_of_a_program_are_killed_when_it_ends() {
    let dir = Dir::new();
    let leaves = "'sleep 1001 & echo child $!; exec 1>&- 2>&-'";
    let waits = "'sleep 1002 & echo child $!; wait'";
    let offers = format!(
        "spawn:\n  leaves: {{ command: [sh, -c, {leaves}], allow: ['app@.*'] }}\n  \
         waits: {{ command: [sh, -c, {waits}], allow: ['app@.*'] }}\n"
    );
    let (db, app) = offering(&dir, &offers, &[]);
    spawn(&dir, &app, &["leaves", "--until-end"]).exits(0);
    ends(child(&db, "leaves"));
    spawn(&dir, &app, &["waits"]).exits(0);
    let waited_for = child(&db, "waits");
    assert!(std::path::Path::new(&format!("/proc/{waited_for}")).exists());
    db.stop().exits(0);
    ends(waited_for);
}

#[test]
fn an_endless_output_of_a_program_does_not_flood_the_log() {
    let dir = Dir::new();
    let floods = "'yes | head -n 100000; yes | tr -d \"\\n\" | head -c 1000000 >&2; printf \"\\033[31mred\"'";
    let offers = format!("spawn:\n  floods: {{ command: [sh, -c, {floods}], allow: ['app@.*'] }}\n");
    let (db, app) = offering(&dir, &offers, &[]);
    spawn(&dir, &app, &["floods", "--until-end"]).exits(0);
    let log = db.stop().exits(0).stderr;
    let lines = log.lines().filter(|line| line.contains("program output")).count();
    // A hundred lines in ten seconds; the command takes less than a minute.
    assert!((90..700).contains(&lines), "{lines} lines");
    assert!(log.len() < 300_000 && !log.contains("\u{1b}[31mred"), "{} bytes", log.len());
}

#[test]
fn an_application_is_started_by_a_peer_and_stopped_on_its_node() {
    let dir = Dir::new();
    let db = pair(&dir);
    let app = dir.node("app.yaml", &[]);
    let start = ["start-application", "--admin", app.admin(), "db@127.0.0.1", "shop"];
    assert!(dir.ok(&start).stdout.contains("shop is running at db@127.0.0.1"));
    let status = dir.json(&["status", "--admin", db.admin(), "--json"]);
    assert_eq!(status["applications"][0]["processes"].as_array().unwrap().len(), 2);
    assert_eq!(status["mailboxes"], serde_json::json!(["store", "till"]));
    assert!(dir.run(&start).exits(1).stderr.contains("runs already"));
    dir.ok(&["stop-application", "--admin", db.admin(), "shop"]);
    eventually("the application stops", || {
        let status = dir.json(&["status", "--admin", db.admin(), "--json"]);
        (status["processes"] == serde_json::json!([])).then_some(())
    });
    assert!(dir.run(&["stop-application", "--admin", db.admin(), "shop"]).exits(2).stderr.contains("does not run"));
    // The node itself can start it as well.
    assert!(
        dir.ok(&["start-application", "--admin", db.admin(), "db@127.0.0.1", "shop"])
            .stdout
            .contains("shop is running")
    );
    assert!(
        dir.run(&["start-application", "--admin", db.admin(), "db@127.0.0.1", "none"]).exits(1).stderr.contains("none")
    );
}

#[test]
fn an_invalid_offer_is_refused_before_anything_starts() {
    let dir = Dir::new();
    for (sections, parts) in [
        ("spawn: { x: { command: [], allow: [] } }", &["spawn.x.command", "the program is empty"][..]),
        ("spawn: { x: { command: [a] } }", &["spawn.x.allow", "[] to allow no peer"]),
        ("spawn: { x: { allow: [] } }", &["spawn.x.command", "has no `command`"]),
        ("spawn: { x: { command: [a], allow: ['('] } }", &["spawn.x.allow[0]"]),
        ("spawn: { x: { command: [a, 1], allow: [] } }", &["spawn.x.command[1]", "in quotes"]),
        ("spawn: { x: { command: [a], allow: [], alow: [] } }", &["spawn.x.alow", "unknown key"]),
        ("spawn: { x: { command: [a], allow: [], max: 0 } }", &["spawn.x.max", "from 1 to 65536"]),
        ("spawn: { x: { command: [a], allow: [], env: ['=1'] } }", &["spawn.x.env[0]", "write NAME or NAME=VALUE"]),
        ("spawn: { x: { command: [a], allow: [], env: [A, 'A=1'] } }", &["spawn.x.env[1]", "A occurs twice"]),
        ("spawn: { x: { command: [a], allow: [], env: [TRUNKLINE_PID] } }", &["spawn.x.env[0]", "set by the node"]),
        ("spawn: { x: { command: [a], allow: [], env: [1] } }", &["spawn.x.env[0]", "in quotes"]),
        ("applications: { x: { allow: [] } }", &["applications.x.processes"]),
        ("applications: { x: { allow: [], processes: [] } }", &["applications.x.processes", "at least one process"]),
        (
            "applications: { x: { allow: [], processes: [{ mailbox: a, command: [a] }, { mailbox: a, command: [b] }] } }",
            &["applications.x.processes[1].mailbox", "occurs twice"],
        ),
        ("applications: { x: { allow: [], processes: [{ mailbox: $a, command: [a] }] } }", &["begin with $"]),
    ] {
        dir.file("bad.yaml", &format!("node:\n  name: a@h\n  cookie_file: cookie\n{sections}\n"), 0o600);
        dir.run(&["check", "bad.yaml"]).refused(parts);
        dir.run(&["node", "--config", "bad.yaml"]).refused(parts);
    }
}
