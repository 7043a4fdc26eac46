//! Streams from the command line: a service of one node, reached by a socket at another.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use super::world::{Dir, Running, shouting};

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
fn a_local_socket_leads_to_a_service_of_another_node_as_long_as_it_is_to() {
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
    // In the foreground, until it is told to end.
    let running = Running::start(forward(&["--json"]));
    let told = &running.ready;
    let at = told["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "hello").unwrap(), "HELLO");
    let status = dir.ok(&["status", "--admin", app.admin()]).stdout;
    assert!(status.contains(&format!("{at} to shout at db@127.0.0.1 (0 of 1 streams open, 0 refused")), "{status}");
    let served = dir.json(&["status", "--admin", db.admin(), "--json"]);
    let shout = served["stream_services"].as_array().unwrap().iter().find(|s| s["name"] == "shout").unwrap();
    assert_eq!((&shout["all"], &shout["received"], &shout["sent"]), (&1.into(), &5.into(), &5.into()));
    running.signal(Signal::INT);
    running.end().exits(0);
    assert!(TcpStream::connect(&at).is_err());

    // In the background, until it is ended.
    let said =
        dir.run(&["forward", "127.0.0.1:0", "db@127.0.0.1", "shout", "--background", "--json", "--admin", app.admin()]);
    let at = said.exits(0).json()["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&at, "again").unwrap(), "AGAIN");
    let taken = dir.run(&["forward", &at, "db@127.0.0.1", "shout", "--background", "--admin", app.admin()]).exits(2);
    assert!(taken.stderr.contains("cannot listen at"), "{}", taken.stderr);
    let ended = dir.ok(&["end-forward", &at, "--admin", app.admin()]).stdout;
    assert!(ended.contains("leads to shout at db@127.0.0.1 no more"), "{ended}");
    let missing = dir.run(&["end-forward", &at, "--admin", app.admin()]).exits(1).stderr;
    assert!(missing.contains("nothing is forwarded from") && missing.contains("trunkline status"), "{missing}");

    // From the configuration.
    let mut socket = std::os::unix::net::UnixStream::connect(dir.at("shout.sock")).unwrap();
    socket.write_all(b"by path").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "BY PATH");
    app.stop().exits(0);
    assert!(!dir.at("shout.sock").exists(), "it goes with its node");
}

#[test]
fn what_cannot_be_forwarded_says_why_where_it_is_looked_for() {
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
        assert!(ask(&at, "x").is_err(), "it is reset");
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
