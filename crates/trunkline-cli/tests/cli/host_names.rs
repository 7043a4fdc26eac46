//! Tests of host names with a dead name server, and with addresses that do not answer, in network namespaces.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::world::{Dir, finish};

/// Script that sets up a name server that answers, one that does not, an address that does not answer, and a server
/// that does. The test binary itself, started once more, is that server.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
mount --bind resolv.conf /etc/resolv.conf
PIDS=
trap 'kill $PIDS 2>/dev/null' EXIT
await() { until grep -q "$2" $1; do kill -0 $PIDS || { cat $1; exit 1; }; done; }
"$TEST" host_names::the_servers_of_the_namespace --exact --ignored --nocapture >servers.out 2>&1 & PIDS="$PIDS $!"
await servers.out 'servers are up'
"$TRUNKLINE" node --config db.yaml --answer whoami='the database' >db.out 2>db.log & PIDS="$PIDS $!"
await db.out 'is up'
"$TRUNKLINE" forward --config app.yaml 127.0.0.1:7001 db@lab shout >forward.out 2>&1 & PIDS="$PIDS $!"
await forward.out 'is forwarded to'
echo "by the service:"
"$TEST" host_names::a_client_of_the_namespace --exact --ignored --nocapture
printf 'nameserver 127.0.0.2\nnameserver 127.0.0.3\n' >resolv.conf
echo "by the second name server:"
"$TRUNKLINE" call --config slow.yaml db@lab whoami '' 2>&1
"#;

#[test]
fn a_dead_name_server_and_a_dead_address_do_not_prevent_a_connection() {
    let dir = Dir::new();
    let node = |name: &str, rest: &str| {
        let text = format!(
            "node:\n  name: {name}@lab\n  cookie_file: cookie\n  data_dir: {name}.data\n  registrar: none\n{rest}"
        );
        dir.file(&format!("{name}.yaml"), &text, 0o600);
    };
    let service = "services: { shout: { connect: 'many.test:7000', allow: ['.*'] } }\n";
    node("db", &format!("  listen: [{{ host: 127.0.0.4, port: 4370 }}]\n{service}"));
    node("app", "routes:\n  - { match: '^db@', host: 127.0.0.4, port: 4370 }\n");
    // The system's resolver takes 5 s, longer than the timeout of any one lookup, so the second lookup must share the
    // first one's query.
    let times = "  timeouts: { dns_ms: 2000, candidate_ms: 4500 }\n";
    node("slow", &format!("{times}routes:\n  - {{ match: '^db@', host: slow.test, port: 4370 }}\n"));
    dir.file("resolv.conf", "nameserver 127.0.0.3\n", 0o644);
    dir.file("script", SCRIPT, 0o600);
    let mut command = Command::new("unshare");
    command
        .args(["-r", "-n", "-m", "sh", "script"])
        .current_dir(dir.path())
        .env("TRUNKLINE", env!("CARGO_BIN_EXE_trunkline"))
        .env("TEST", std::env::current_exe().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(command);
    assert_eq!(
        ran.code,
        Some(0),
        "this test needs the same tools as the test with network namespaces:\n{}\n{}",
        ran.stdout,
        ran.stderr
    );
    let (by_service, by_name) = ran.stdout.split_once("by the second name server:\n").unwrap();
    assert!(by_service.contains("the answer is HELLO"), "{by_service}\n{}", dir.read("db.log"));
    assert_eq!(by_name.trim_end(), "the database");
}

#[test]
#[ignore = "a part of the test with namespaces, which starts it there"]
fn the_servers_of_the_namespace() {
    let _mute = UdpSocket::bind("127.0.0.2:53").unwrap();
    let names = UdpSocket::bind("127.0.0.3:53").unwrap();
    thread::spawn(move || {
        let mut question = [0; 512];
        loop {
            let (len, from) = names.recv_from(&mut question).unwrap();
            let _ = names.send_to(&answer(&question[..len]), from);
        }
    });
    // A listener that accepts no connection and whose queue is full.
    let address: SocketAddr = "127.0.0.5:7000".parse().unwrap();
    let _full = TcpListener::bind(address).unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(connected);
    }
    let shouts = TcpListener::bind("127.0.0.6:7000").unwrap();
    println!("servers are up");
    for socket in shouts.incoming() {
        let mut socket = socket.unwrap();
        let mut all = String::new();
        socket.read_to_string(&mut all).unwrap();
        socket.write_all(all.to_uppercase().as_bytes()).unwrap();
    }
}

#[test]
#[ignore = "a part of the test with namespaces, which starts it there"]
fn a_client_of_the_namespace() {
    let mut socket = TcpStream::connect("127.0.0.1:7001").unwrap();
    socket.write_all(b"hello").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    println!("the answer is {answer}");
}

/// Returns a name server's answer: two IPv4 addresses for `many.test`, one for every other name, and no IPv6 address.
fn answer(question: &[u8]) -> Vec<u8> {
    let name_len = question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let asked = &question[12..12 + name_len + 4];
    let addresses: &[Ipv4Addr] = match asked {
        _ if asked[name_len..name_len + 2] != [0, 1] => &[],
        _ if asked.starts_with(b"\x04many") => &[Ipv4Addr::new(127, 0, 0, 5), Ipv4Addr::new(127, 0, 0, 6)],
        _ => &[Ipv4Addr::new(127, 0, 0, 4)],
    };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend_from_slice(asked);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
