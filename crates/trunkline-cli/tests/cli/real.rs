//! Tests of real programs that use services behind a gateway, with the three configuration files of the README.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use super::world::{Dir, Ran, Running, eventually, finish, free_port, shouting};

/// Returns the files that the README tells its reader to write, in their last state.
pub(crate) fn readme() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    for part in text.split("$ cat >").skip(1) {
        let (head, rest) = part.split_once(" <<'YAML'\n").unwrap();
        let (body, _) = rest.split_once("YAML\n").unwrap();
        let name = head.trim_start_matches('>').trim().to_owned();
        match files.iter_mut().find(|(known, _)| *known == name) {
            Some((_, text)) if head.starts_with('>') => text.push_str(body),
            Some((_, text)) => *text = body.to_owned(),
            None => files.push((name, body.to_owned())),
        }
    }
    files
}

/// Database, gateway and application of the README, at other ports, and the port that is forwarded to the service.
struct World {
    dir: Dir,
    db: Running,
    gateway: Running,
    app: Running,
    at: u16,
}

impl World {
    /// Starts the nodes, with the service at this port.
    fn new(service: u16) -> Self {
        let dir = Dir::new();
        let [db, gateway, at, registrar] = std::array::from_fn(|_| free_port().to_string());
        for (name, text) in readme() {
            let here = format!("data_dir: {name}.data, registrar_listen: {{ host: 127.0.0.1, port: {registrar} }}");
            let text = text.replace("cookie_file: cookie", &format!("cookie_file: cookie, {here}"));
            let text = text.replace("4370", &db).replace("4371", &gateway).replace("5433", &at);
            dir.file(&name, &text.replace("5432", &service.to_string()), 0o600);
        }
        let (db, gateway) = (dir.node("db.yaml", &[]), dir.node("gateway.yaml", &[]));
        let app = dir.node("app.yaml", &[]);
        Self { db, gateway, app, at: at.parse().unwrap(), dir }
    }

    fn through(&self) -> serde_json::Value {
        self.dir.json(&["status", "--admin", self.gateway.admin()])
    }
}

/// Returns the path of a program of the PostgreSQL server, at Debian's place or on the search path.
fn program(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<_> = debian.map(|version| version.path().join("bin")).collect();
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = places.into_iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("this test needs PostgreSQL's `{name}`: sudo apt-get install -y --no-install-recommends postgresql")
    })
}

/// The server refuses to run as root; in that case it runs as the user that Debian created for it.
fn as_itself(mut command: Command) -> Command {
    if rustix::process::geteuid().is_root() {
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let own = users.lines().find_map(|line| line.strip_prefix("postgres:")).expect("a user named postgres");
        let ids: Vec<u32> = own.split(':').skip(1).take(2).map(|id| id.parse().unwrap()).collect();
        command.uid(ids[0]).gid(ids[1]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Running database server, with its files.
struct Postgres {
    server: Option<Running>,
    files: PathBuf,
    port: u16,
}

impl Postgres {
    fn start() -> Self {
        let mut made = as_itself(Command::new("mktemp"));
        made.args(["-d", "-t", "trunkline-postgres-XXXXXX"]).current_dir("/");
        let files = PathBuf::from(finish(made).exits(0).stdout.trim());
        let data = files.join("data");
        let mut made = as_itself(Command::new(program("initdb")));
        made.args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&data).current_dir("/");
        finish(made).exits(0);
        let port = free_port();
        let mut command = as_itself(Command::new(program("postgres")));
        command.arg("-D").arg(&data).arg("-k").arg(&files).args(["-p", &port.to_string()]).current_dir("/");
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        let server = Some(Running::spawned(command.spawn().unwrap()));
        let this = Self { server, files, port };
        eventually("PostgreSQL is up", || {
            let log = this.server.as_ref().unwrap().stderr();
            log.contains("ready to accept connections").then_some(())
        });
        this
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::INT);
            drop(server.end());
        }
        let _ = std::fs::remove_dir_all(&self.files);
    }
}

fn psql(port: u16, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program("psql"));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-X", "-A", "-t", "-q"]);
    command.args(arguments).env("PGCONNECT_TIMEOUT", "20");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command)
}

#[test]
fn e_psql_works_through_the_gateway_of_the_readme_and_again_after_the_gateway_was_killed() {
    let postgres = Postgres::start();
    let world = World::new(postgres.port);
    let version = psql(world.at, &["-c", "select version()"]).exits(0).stdout;
    assert!(version.starts_with("PostgreSQL"), "{version}");
    assert_eq!(world.through()["circuits"], 1);
    // Data flows both ways: a table is filled from here, read back, and counted on the server.
    let rows: String = (0..50_000).map(|n| format!("{n}\tthe row of the number {n}\n")).collect();
    world.dir.file("rows.tsv", &rows, 0o600);
    let copy = format!("\\copy t from '{}'", world.dir.at("rows.tsv").display());
    let select = "copy (select * from t order by n) to stdout";
    let counted = "select count(*), sum(n) from t";
    let table = "create table t (n int primary key, text text)";
    let ran = psql(world.at, &["-c", table, "-c", &copy, "-c", select, "-c", counted]).exits(0);
    assert!(ran.stdout == format!("{rows}50000|1249975000\n"), "{}", ran.stderr);
    // E9: a session through the gateway ends with it, and works again through another gateway in its place.
    let World { dir, db: _db, gateway, app, at } = world;
    let port = gateway.port();
    gateway.kill();
    app.logs("down peer=db@127.0.0.1");
    let broken = psql(at, &["-c", counted]);
    assert_eq!(broken.code, Some(2), "{}", broken.stderr);
    let gateway = dir.node("gateway.yaml", &[]);
    assert_eq!(gateway.port(), port);
    dir.ok(&["ping", "--admin", app.admin(), "--now", "db@127.0.0.1"]);
    assert_eq!(psql(at, &["-c", counted]).exits(0).stdout, "50000|1249975000\n");
}

#[test]
fn e_an_http_download_through_the_gateway_is_unchanged() {
    let body: Vec<u8> = (0..48 << 20).map(|n: usize| (n ^ (n >> 9) ^ (n >> 17)) as u8).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = body.clone();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, mut head) = (socket.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", sent.len()).unwrap();
            socket.write_all(&sent).unwrap();
        }
    });
    let world = World::new(port);
    for _ in 0..2 {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "-o", "file", &format!("http://127.0.0.1:{}/file", world.at)]);
        curl.current_dir(world.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let curl = curl.spawn().expect("this test needs curl: sudo apt-get install -y --no-install-recommends curl");
        Running::spawned(curl).end().exits(0);
        assert!(std::fs::read(world.dir.at("file")).unwrap() == body);
    }
    assert!(world.through()["carried"].as_u64().unwrap() > 2 * body.len() as u64);
}

#[test]
fn e_a_thousand_short_connections_through_the_gateway_share_one_link() {
    let world = World::new(shouting());
    let ask = |n: usize| {
        let mut socket = TcpStream::connect(("127.0.0.1", world.at)).unwrap();
        write!(socket, "connection {n}").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("CONNECTION {n}"));
    };
    thread::scope(|scope| {
        for part in 0..8 {
            scope.spawn(move || (0..125).for_each(|n| ask(part * 125 + n)));
        }
    });
    let status = world.dir.json(&["status", "--admin", world.app.admin()]);
    assert_eq!((&status["forwards"][0]["all"], &status["forwards"][0]["refused"]), (&1_000.into(), &0.into()));
    eventually("every stream has ended", || {
        let status = world.dir.json(&["status", "--admin", world.db.admin()]);
        (status["services"][0]["open"] == 0).then_some(())
    });
    assert_eq!(world.through()["circuits"], 1);
    assert_eq!(world.dir.json(&["nodes", "--admin", world.db.admin()]).as_array().unwrap().len(), 2, "gateway and app");
}
