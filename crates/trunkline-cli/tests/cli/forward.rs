//! Tests of `trunkline forward`: a service of one node, reached through a socket at another.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use rustix::process::Signal;

use super::world::{Dir, Running, eventually, shouting};

fn ask(at: &str, question: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(at)?;
    socket.write_all(question.as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn db(dir: &Dir) -> Running {
    let services = format!(
        "services:\n  shout: {{ connect: '127.0.0.1:{}', allow: ['app@.*'] }}\n  gone: {{ connect: '127.0.0.1:1', \
         allow: ['.*'] }}\n",
        shouting()
    );
    dir.node(&dir.config("db", &services), &[])
}

#[test]
fn a_local_socket_is_forwarded_to_a_service_of_another_node_until_the_forward_ends() {
    let dir = Dir::new();
    let db = db(&dir);
    let rest = format!(
        "routes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\nforwards:\n  - {{ listen: 'unix:shout.sock', name: \
         db@127.0.0.1, service: shout }}\n",
        db.port()
    );
    let app = dir.node(&dir.config("app", &rest), &[]);
    let forward = |args: &[&str]| {
        let mut all = vec!["forward", "127.0.0.1:0", "db@127.0.0.1", "shout", "--admin", app.admin()];
        all.extend(args);
        dir.command(&all)
    };
    // In the foreground, the forward lasts until the command is told to end.
    let running = Running::start(forward(&["--json"]));
    let told = &running.ready;
    let at = told["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "hello").unwrap(), "HELLO");
    let status = dir.ok(&["status", "--admin", app.admin()]).stdout;
    assert!(status.contains(&format!("{at} to shout at db@127.0.0.1 (0 of 1 streams open, 0 refused")), "{status}");
    let served = dir.json(&["status", "--admin", db.admin(), "--json"]);
    let shout = served["services"].as_array().unwrap().iter().find(|s| s["name"] == "shout").unwrap();
    assert_eq!((&shout["all"], &shout["received"], &shout["sent"]), (&1.into(), &5.into(), &5.into()));
    running.signal(Signal::INT);
    running.end().exits(0);
    assert!(TcpStream::connect(&at).is_err());

    // In the background, it lasts until it is ended by `end-forward`.
    let said =
        dir.run(&["forward", "127.0.0.1:0", "db@127.0.0.1", "shout", "--background", "--json", "--admin", app.admin()]);
    let at = said.exits(0).json()["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "again").unwrap(), "AGAIN");
    let taken = dir.run(&["forward", &at, "db@127.0.0.1", "shout", "--background", "--admin", app.admin()]).exits(2);
    assert!(taken.stderr.contains("cannot listen at"), "{}", taken.stderr);
    let ended = dir.ok(&["end-forward", &at, "--admin", app.admin()]).stdout;
    assert!(ended.contains("is no longer forwarded to shout at db@127.0.0.1"), "{ended}");
    let missing = dir.run(&["end-forward", &at, "--admin", app.admin()]).exits(1).stderr;
    assert!(missing.contains("no forward listens at") && missing.contains("trunkline status"), "{missing}");

    // A forward of the configuration starts with its node.
    let mut socket = UnixStream::connect(dir.at("shout.sock")).unwrap();
    socket.write_all(b"by path").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "BY PATH");
    app.stop().exits(0);
    assert!(!dir.at("shout.sock").exists(), "it is removed when its node stops");
}

#[test]
fn a_forward_that_fails_resets_its_connection_and_logs_the_cause() {
    let dir = Dir::new();
    let db = db(&dir);
    let rest = format!("routes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n", db.port());
    let file = dir.config("app", &rest);
    let app = dir.node(&file, &[]);
    for (service, says) in [("gone", "unreachable"), ("absent", "no such service")] {
        let said = dir.run(&[
            "forward",
            "127.0.0.1:0",
            "db@127.0.0.1",
            service,
            "--background",
            "--json",
            "--admin",
            app.admin(),
        ]);
        let at = said.exits(0).json()["listen"].as_str().unwrap().to_owned();
        assert!(ask(&at, "x").is_err(), "the connection is reset");
        app.logs(says);
    }
    let wrong = dir.run(&["forward", "localhost", "db@127.0.0.1", "shout"]).exits(2).stderr;
    assert!(wrong.contains("neither IP:PORT nor unix:PATH"), "{wrong}");
    dir.run(&["forward", "127.0.0.1:0", "no name", "shout", "--admin", app.admin()]).refused(&["no name"]);
    // A short-lived node has a name of its own, which the service does not allow.
    let short =
        Running::start(dir.command(&["forward", "127.0.0.1:0", "db@127.0.0.1", "shout", "--json", "--config", &file]));
    let told = &short.ready;
    assert!(ask(told["listen"].as_str().unwrap(), "x").is_err());
    db.logs("the service does not allow this node");
    short.signal(Signal::TERM);
    short.end().exits(0);
}

/// Starts two nodes and a forward in the foreground, from one node to a service of the other.
fn foreground(dir: &Dir) -> (Running, Running, Running, String) {
    let db = db(dir);
    let rest = format!("routes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\n", db.port());
    let app = dir.node(&dir.config("app", &rest), &[]);
    let (running, at) = foreground_at(dir, &app, "");
    (db, app, running, at)
}

fn foreground_at(dir: &Dir, app: &Running, before: &str) -> (Running, String) {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &format!("{before} exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_trunkline"), "--json", "forward"]);
    command.args(["127.0.0.1:0", "db@127.0.0.1", "shout", "--admin", app.admin()]).current_dir(dir.path()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = Running::start(command);
    let at = running.ready["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "hello").unwrap(), "HELLO");
    (running, at)
}

#[test]
fn a_foreground_forward_ends_with_its_command_however_the_command_ends() {
    let dir = Dir::new();
    let (_db, app, running, at) = foreground(&dir);
    running.signal(Signal::HUP);
    running.end().exits(0);
    assert!(TcpStream::connect(&at).is_err());

    let (running, at) = foreground_at(&dir, &app, "");
    running.kill();
    eventually("the end of the forward", || TcpStream::connect(&at).is_err().then_some(()));
    let status = dir.json(&["status", "--admin", app.admin()]);
    assert_eq!(status["forwards"], serde_json::json!([]), "{status}");

    // SIGHUP is ignored, as under `nohup`.
    let (running, at) = foreground_at(&dir, &app, "trap '' HUP;");
    running.signal(Signal::HUP);
    assert_eq!(ask(&at, "still there").unwrap(), "STILL THERE");
    running.signal(Signal::TERM);
    running.end().exits(0);
}

#[test]
fn a_foreground_forward_fails_when_the_node_ends_it_or_stops() {
    let dir = Dir::new();
    let (_db, app, running, at) = foreground(&dir);
    dir.ok(&["end-forward", &at, "--admin", app.admin()]);
    let ended = running.end().exits(1);
    assert!(ended.stderr.contains(": the node ended it or stopped"), "{}", ended.stderr);
    assert_eq!(ended.json()["service"], "shout", "a single JSON document");
    app.stop();

    for signal in [Signal::KILL, Signal::TERM] {
        let app = dir.node("app.yaml", &[]);
        let (running, _) = foreground_at(&dir, &app, "");
        app.signal(signal);
        let ended = running.end().exits(1);
        assert!(ended.stderr.contains("the node ended it or stopped"), "{}", ended.stderr);
        drop(app);
    }
}

#[test]
fn a_stale_socket_of_a_killed_node_is_replaced_but_a_socket_in_use_is_not() {
    let dir = Dir::new();
    let file = dir.config("app", "forwards:\n  - { listen: 'unix:shout.sock', name: db@127.0.0.1, service: shout }\n");
    dir.node(&file, &[]).kill();
    assert!(dir.at("shout.sock").exists() && UnixStream::connect(dir.at("shout.sock")).is_err());
    let node = dir.node(&file, &[]);
    UnixStream::connect(dir.at("shout.sock")).unwrap();
    // A second node that is refused must not remove the socket either.
    let again = ["forward", "unix:shout.sock", "db@127.0.0.1", "shout", "--config", &file];
    dir.run(&again).refused(&["cannot listen at", "shout.sock", "a running process answers there"]);
    UnixStream::connect(dir.at("shout.sock")).unwrap();
    node.stop();

    let other = UnixListener::bind(dir.at("shout.sock")).unwrap();
    let node = ["node", "--config", &file];
    dir.run(&node).refused(&["forwards[0] cannot be used: cannot listen at", "a running process answers there"]);
    drop(other);
    std::fs::remove_file(dir.at("shout.sock")).unwrap();
    dir.file("shout.sock", "precious", 0o600);
    dir.run(&node).refused(&["a file that is no socket stands there"]);
    assert_eq!(dir.read("shout.sock"), "precious");
}

#[test]
fn accept_loops_without_descriptors_log_once_a_second_and_recover() {
    let dir = Dir::new();
    let db = db(&dir);
    let rest = format!(
        "routes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {} }}\nforwards:\n  - {{ listen: 'unix:shout.sock', name: \
         db@127.0.0.1, service: shout }}\n",
        db.port()
    );
    let file = dir.config("app", &rest);
    let app = Running::start(dir.with_descriptors(40, &["--json", "node", "--config", &file]));
    // With an established link, no forward has to dial for lack of a descriptor and then release its own.
    dir.ok(&["ping", "--admin", app.admin(), "db@127.0.0.1"]);
    let open: Vec<_> = (0..60).map(|_| UnixStream::connect(dir.at("shout.sock")).unwrap()).collect();
    app.logs("place=unix:");
    let admin = UnixStream::connect(app.admin()).unwrap();
    for place in ["place=unix:", "place=the operations API"] {
        let lines = || app.stderr().lines().filter(|line| line.contains(place)).map(str::to_owned).collect::<Vec<_>>();
        let second = eventually("a second line", || lines().get(1).cloned());
        // Several attempts in between were not logged.
        assert!(second.contains("cannot be accepted") && !second.contains("suppressed=0"), "{second}");
    }
    drop((open, admin));
    eventually("an answer", || (dir.run(&["status", "--admin", app.admin()]).code == Some(0)).then_some(()));
    let mut socket = UnixStream::connect(dir.at("shout.sock")).unwrap();
    socket.write_all(b"again").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "AGAIN");
    app.stop();
}
