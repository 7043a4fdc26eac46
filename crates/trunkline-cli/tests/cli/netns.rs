//! Tests of nodes in network namespaces, such as a node whose address only the gateway can reach.

use std::process::{Command, Stdio};

use super::world::{Dir, finish};

/// Script that joins three networks by two cables: those of the application, the gateway and the database. The test
/// checks its output.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
unshare -n sleep 300 & GATE=$!
unshare -n sleep 300 & DB=$!
PIDS="$GATE $DB"
trap 'kill $PIDS 2>/dev/null' EXIT
own=$(readlink /proc/self/ns/net)
for pid in $GATE $DB; do
  while [ "$(readlink /proc/$pid/ns/net)" = "$own" ]; do :; done
done
gate() { nsenter -t $GATE -n "$@"; }
db() { nsenter -t $DB -n "$@"; }
ip link add a0 type veth peer name g0 netns $GATE
gate ip link add g1 type veth peer name d0 netns $DB
ip addr add 10.77.1.1/24 dev a0; ip link set a0 up
gate ip addr add 10.77.1.2/24 dev g0; gate ip link set g0 up; gate ip link set lo up
gate ip addr add 10.77.2.2/24 dev g1; gate ip link set g1 up
db ip addr add 10.77.2.3/24 dev d0; db ip link set d0 up; db ip link set lo up
# Not by the functions: what is started must become the node, so that its pid is the one to end.
nsenter -t $DB -n "$TRUNKLINE" node --config db.yaml --answer whoami='the database' >db.out 2>db.log & PIDS="$PIDS $!"
nsenter -t $GATE -n "$TRUNKLINE" node --config gate.yaml >gate.out 2>gate.log & PIDS="$PIDS $!"
for node in db gate; do
  until grep -q 'is up' $node.out; do
    kill -0 $PIDS || { cat $node.log; exit 1; }
  done
done
echo "directly:"
"$TRUNKLINE" call --config direct.yaml db@lab whoami '' 2>&1 && exit 1
echo
echo "through the gateway:"
"$TRUNKLINE" call --config app.yaml db@lab whoami ''
echo
"$TRUNKLINE" trace --config app.yaml db@lab
echo "from the database:"
cat db.log
"#;

/// Runs a script in a network namespace of its own, and returns what it prints.
#[track_caller]
fn in_a_namespace(dir: &Dir, script: &str) -> String {
    dir.file("script", script, 0o600);
    let mut command = Command::new("unshare");
    command
        .args(["-r", "-n", "sh", "script"])
        .current_dir(dir.path())
        .env("TRUNKLINE", env!("CARGO_BIN_EXE_trunkline"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = finish(command);
    assert_eq!(
        ran.code,
        Some(0),
        "this test needs network namespaces (`unshare -rn true`) and Debian's iproute2 (sudo apt-get install -y \
         --no-install-recommends iproute2):\n{}\n{}",
        ran.stdout,
        ran.stderr
    );
    ran.stdout
}

#[test]
fn e_a_node_that_only_the_gateway_can_reach_is_reached_through_the_gateway() {
    let dir = Dir::new();
    let node = |name: &str, rest: &str| {
        let text = format!(
            "node:\n  name: {name}@lab\n  cookie_file: cookie\n  data_dir: {name}.data\n  registrar: none\n{rest}"
        );
        dir.file(&format!("{name}.yaml"), &text, 0o600);
    };
    let direct = "routes:\n  - { match: '^db@', host: 10.77.2.3, port: 4370 }\n";
    let through =
        "  - { match: '^gate@', host: 10.77.1.2, port: 4371 }\nproxy_routes: [{ match: '^db@', proxy: gate@lab }]\n";
    node("db", "  listen: [{ host: 10.77.2.3, port: 4370 }]\n");
    let rules = "transit: { rules: [{ from: 'cli-.*', to: 'db@lab' }] }\n";
    node("gate", &format!("  listen: [{{ host: 10.77.1.2, port: 4371 }}]\n{direct}{rules}"));
    node("direct", direct);
    node("app", &format!("{direct}{through}"));
    let text = in_a_namespace(&dir, SCRIPT);
    let (directly, rest) = text.split_once("through the gateway:\n").unwrap();
    assert!(directly.contains("no route to db@lab") && directly.contains("unreachable"), "{directly}");
    let (through, log) = rest.split_once("from the database:\n").unwrap();
    assert!(through.starts_with("the database\n") && through.contains("gate@lab"), "{through}");
    assert!(log.contains("address=10.77.2.2:") && !log.contains("10.77.1.1"), "it must see only the gateway:\n{log}");
}

/// Script with one network whose address is unreachable without the name of its interface.
const ZONES: &str = r#"
set -eu
ip link set lo up
ip -6 addr add fe80::1/64 dev lo nodad
trap 'kill $PIDS 2>/dev/null' EXIT
"$TRUNKLINE" node --config db.yaml --answer whoami='the database' >db.out 2>db.log & PIDS="$!"
until grep -q 'is up' db.out; do kill -0 $PIDS || { cat db.log; exit 1; }; done
"$TRUNKLINE" node --config app.yaml >app.out 2>app.log & PIDS="$PIDS $!"
until grep -q 'is up' app.out; do kill -0 $PIDS || { cat app.log; exit 1; }; done
cat db.out
TRUNKLINE_ADMIN_TOKEN=$(cat token); export TRUNKLINE_ADMIN_TOKEN
"$TRUNKLINE" call --admin '[fe80::1%lo]:4490' db@lab whoami ''
echo
# The forward leads to the service at the other node, and that to the operations of this one.
"$TRUNKLINE" --json status --admin '[fe80::1%lo]:5433'
"#;

#[test]
fn an_address_with_a_zone_is_accepted_in_every_key() {
    let dir = Dir::new();
    let node = |name: &str, rest: &str| {
        let text = format!("node:\n  name: {name}\n  cookie_file: cookie\n  data_dir: {name}.data\n{rest}");
        dir.file(&format!("{}.yaml", name.split('@').next().unwrap()), &text, 0o600);
    };
    dir.file("token", "0123456789abcdef0123456789abcdef", 0o600);
    let registrar = "  registrar_listen: { host: 'fe80::1%lo', port: 4499 }\n";
    let listen = "  listen: [{ host: 'fe80::1%lo', port: 4370 }]\n";
    node(
        "db@lab",
        &format!("{registrar}{listen}services: {{ ops: {{ connect: '[fe80::1%lo]:4490', allow: ['app@.*'] }} }}\n"),
    );
    let admin = "  admin: { listen: '[fe80::1%lo]:4490', token_file: token }\n";
    let route = "routes: [{ match: '^db@', host: 'fe80::1%lo', port: 4370 }]\n";
    let forward = "forwards: [{ listen: '[fe80::1%lo]:5433', name: db@lab, service: ops }]\n";
    node("app@lab", &format!("{registrar}{admin}{route}{forward}"));
    let text = in_a_namespace(&dir, ZONES);
    let mut lines = text.splitn(3, '\n');
    let (ready, answer) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(ready.contains("listening at [fe80::1%1]:4370"), "{ready}");
    assert_eq!(answer, "the database");
    let status: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&status["name"], &status["registered"]), (&"app@lab".into(), &true.into()), "{status}");
    assert_eq!(status["forwards"][0]["listen"], "[fe80::1%1]:5433", "{status}");
}

/// Script with five networks in a row, each joined to the next one by a cable of its own.
const ROW: &str = r#"
set -eu
ip link set lo up
PIDS=""
trap 'kill $PIDS 2>/dev/null' EXIT
own=$(readlink /proc/self/ns/net)
for n in 0 1 2 3 4; do
  unshare -n sleep 300 & eval "NS$n=$!"; PIDS="$PIDS $!"
  while [ "$(readlink /proc/$!/ns/net)" = "$own" ]; do :; done
  nsenter -t $! -n ip link set lo up
done
for n in 0 1 2 3; do
  eval "left=\$NS$n; right=\$NS$((n + 1))"
  nsenter -t $left -n ip link add right type veth peer name left netns $right
  nsenter -t $left -n ip addr add 10.79.$n.1/24 dev right; nsenter -t $left -n ip link set right up
  nsenter -t $right -n ip addr add 10.79.$n.2/24 dev left; nsenter -t $right -n ip link set left up
done
for n in 0 1 2 3 4; do
  eval "ns=\$NS$n"
  nsenter -t $ns -n "$TRUNKLINE" node --config n$n.yaml --answer whoami="node $n" >n$n.out 2>n$n.log & PIDS="$PIDS $!"
done
for n in 0 1 2 3 4; do
  until [ "$("$TRUNKLINE" cluster status --admin n$n.data/admin.sock 2>/dev/null | grep -c ' open ')" = 4 ]; do
    kill -0 $PIDS || { cat n*.log; exit 1; }
  done
done
for n in 0 1 2 3 4; do
  "$TRUNKLINE" cluster status --admin n$n.data/admin.sock
  for m in 0 1 2 3 4; do
    [ $n = $m ] || { "$TRUNKLINE" call --admin n$n.data/admin.sock n$m@row whoami ''; echo " for $n"; }
  done
done
"$TRUNKLINE" explain --admin n0.data/admin.sock n4@row
"#;

#[test]
fn g4_members_of_which_only_neighbours_have_a_network_in_common_reach_each_other() {
    let dir = Dir::new();
    for n in 0..5_u8 {
        // One end of each cable, and a route to the next node only.
        let left = (n > 0).then(|| format!("{{ host: 10.79.{}.2, port: 9932 }}", n.wrapping_sub(1)));
        let right = (n < 4).then(|| format!("{{ host: 10.79.{n}.1, port: 9932 }}"));
        let listen: Vec<String> = left.into_iter().chain(right).collect();
        let routes = if n < 4 { format!("[10.79.{n}.2]") } else { "[]".into() };
        let text = format!(
            "node:\n  name: n{n}@row\n  cookie_file: cookie\n  data_dir: n{n}.data\n  registrar: none\n  listen: [{}]\n\
             clustering: {{ hubServer: {{ cluster: {{ network: {{ routes: {routes} }} }} }} }}\n",
            listen.join(", ")
        );
        dir.file(&format!("n{n}.yaml"), &text, 0o600);
    }
    let text = in_a_namespace(&dir, ROW);
    for (from, to) in (0..5).flat_map(|from| (0..5).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        assert!(text.contains(&format!("node {to} for {from}\n")), "{from} to {to}:\n{text}");
    }
    let explained = text.split("The cluster knows n4@row: 10.79.3.2:9932, told by ").nth(1).expect("an explanation");
    assert!(explained.contains("When it cannot be dialled, these pass on: n"), "{text}");
    // The ends of the row have no network in common, nor have the second and the fourth node.
    let of = |n: usize| text.split("in the cluster").nth(n + 1).unwrap();
    let line = |n: usize, to: &str| of(n).lines().find(|line| line.starts_with(to)).unwrap().to_owned();
    for (from, to) in [(0, "n4@row"), (1, "n3@row")] {
        assert!(line(from, to).matches("@row").count() >= 2, "no name of the one that relays:\n{text}");
    }
}
