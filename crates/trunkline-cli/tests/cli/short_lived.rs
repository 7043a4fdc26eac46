use std::net::TcpListener;

use crate::peer::Peer;
use crate::world::{Dir, Running, finish, free_port};

/// Writes `client.yaml`, with a route to the peer and a registrar address at which nothing listens.
fn client(dir: &Dir, peer: &Peer) -> u16 {
    let port = free_port();
    let text = format!(
        "node:\n  name: client@127.0.0.1\n  cookie_file: cookie\n  registrar_listen: {{ port: {port} }}\nroutes:\n  \
         - {{ match: '^peer@', host: 127.0.0.1, port: {} }}\n",
        peer.port()
    );
    dir.file("client.yaml", &text, 0o600);
    port
}

#[test]
fn a_command_with_config_is_a_hidden_node_and_never_serves_as_the_registrar() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "peer");
    let registrar = client(&dir, &peer);
    let call = dir.command(&["call", "--config", "client.yaml", "peer@127.0.0.1", "work", "hello"]).spawn().unwrap();
    let call = Running::spawned(call);
    let received = peer.received();
    let nodes = dir.json(&["nodes", "--admin", peer.admin()]);
    let name = nodes[0]["name"].as_str().unwrap();
    let random = name.strip_prefix("cli-").and_then(|rest| rest.strip_suffix("@127.0.0.1")).expect(name);
    assert!(random.len() == 16 && random.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
    TcpListener::bind(("127.0.0.1", registrar)).expect("the port of the registrar must be free");
    assert!(!dir.at("client.data").exists(), "a short-lived node keeps no files");
    received.reply("done");
    assert_eq!(call.end().exits(0).stdout, "done");
}

#[test]
fn a_sent_message_arrives_although_the_sending_command_ends() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "peer");
    client(&dir, &peer);
    let big = "x".repeat(100_000);
    for payload in ["small", &big] {
        dir.ok(&["send", "--config", "client.yaml", "peer@127.0.0.1", "work", payload]);
        assert_eq!(peer.received().body(), payload);
    }
    let kept = dir.ok(&["send", "--config", "client.yaml", "--important", "peer@127.0.0.1", "work", &big]).stdout;
    assert!(kept.contains("100000 bytes are in the mailbox work at"), "{kept}");
    assert_eq!(peer.received().body(), &big);
    let refused = |service: &str| {
        let ran = dir.run(&["send", "--config", "client.yaml", "--important", "peer@127.0.0.1", service, "x"]);
        ran.exits(1).stderr
    };
    assert!(refused("none").contains("peer@127.0.0.1 has no mailbox \"none\""));
    let config = dir.read("client.yaml").replace("host:", "flags: { important_delivery: false }, host:");
    dir.file("client.yaml", &config, 0o600);
    assert!(refused("work").contains("important_delivery is not agreed on"));
}

#[test]
fn routes_explain_and_ping_work_with_a_configuration_file() {
    let dir = Dir::new();
    let peer = Peer::start(&dir, "peer");
    client(&dir, &peer);
    let address = format!("127.0.0.1:{}", peer.port());
    for args in [
        &["routes", "list", "--config", "client.yaml"][..],
        &["explain", "--config", "client.yaml", "peer@127.0.0.1"],
        &["ping", "--config", "client.yaml", "peer@127.0.0.1"],
    ] {
        let text = dir.ok(args).stdout;
        assert!(text.contains(&address), "{text}");
    }
    let mut from_file = dir.command(&["routes", "list", "--config", "client.yaml"]);
    from_file.env("TRUNKLINE_ADMIN", "gone.sock");
    finish(from_file).exits(0);
    let both = dir.run(&["routes", "list", "--config", "client.yaml", "--admin", "gone.sock"]).exits(2);
    assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
    let explained = dir.json(&["explain", "--config", "client.yaml", "--set", "node.fallback=never", "peer@127.0.0.1"]);
    assert_eq!((&explained["static_only"], explained["steps"].as_array().unwrap().len()), (&true.into(), 1));
}

#[test]
fn two_concurrent_short_lived_nodes_have_different_names() {
    let dir = Dir::new();
    let mut peer = Peer::start(&dir, "peer");
    client(&dir, &peer);
    let args = ["call", "--config", "client.yaml", "peer@127.0.0.1", "work", "x"];
    let calls = [(); 2].map(|()| Running::spawned(dir.command(&args).spawn().unwrap()));
    let received = [peer.received(), peer.received()];
    assert_ne!(received[0].node(), received[1].node());
    for message in received {
        message.reply("ok");
    }
    for call in calls {
        assert_eq!(call.end().exits(0).stdout, "ok");
    }
}

#[test]
fn a_short_lived_node_stops_gracefully() {
    let dir = Dir::new();
    let peer = dir.node(&dir.config("peer", ""), &["--answer", "work"]);
    let text = dir.read("peer.yaml").replace("name: peer@", "name: client@");
    let text = format!("{text}routes:\n  - {{ match: '^peer@', host: 127.0.0.1, port: {} }}\n", peer.port());
    dir.file("client.yaml", &text, 0o600);
    dir.ok(&["ping", "--config", "client.yaml", "peer@127.0.0.1"]);
    dir.ok(&["call", "--config", "client.yaml", "peer@127.0.0.1", "work", "x"]);
    dir.run(&["call", "--config", "client.yaml", "peer@127.0.0.1", "gone", "x"]).exits(1);
    crate::world::eventually("the end of all three nodes", || {
        (peer.stderr().matches(" down peer=cli-").count() == 3).then_some(())
    });
    let log = peer.stop().stderr;
    assert!(!log.contains("connection_lost"), "{log}");
}
