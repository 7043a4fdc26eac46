//! Tests of the warnings that `trunkline check` prints.

use std::os::unix::fs::{PermissionsExt, chown};

use super::Dir;

/// Counts the warnings about a valid `node:` section with these lines, and these sections, that contain all these
/// parts.
#[track_caller]
fn warned(node: &str, rest: &str, parts: &[&str]) -> usize {
    let dir = Dir::new();
    dir.secret("token", "0123456789abcdef0123456789abcdef\n");
    warned_in(&dir, node, rest, parts)
}

#[track_caller]
fn warned_in(dir: &Dir, node: &str, rest: &str, parts: &[&str]) -> usize {
    let config = dir.node(&format!("{node}{rest}")).unwrap();
    config.warnings().iter().filter(|warning| parts.iter().all(|part| warning.contains(part))).count()
}

#[test]
fn an_interface_at_a_wildcard_address_causes_a_warning() {
    let admin = |host: &str| {
        warned(&format!("  admin: {{ listen: \"{host}:4490\", token_file: token }}\n"), "", &["node.admin.listen"])
    };
    let registrar =
        |host: &str| warned(&format!("  registrar_listen: {{ host: \"{host}\" }}\n"), "", &["node.registrar_listen"]);
    let forward = |host: &str| {
        let rest = format!("forwards: [{{ listen: \"{host}:5432\", name: db@h, service: s }}]\n");
        warned("", &rest, &["forwards[0].listen", "s at db@h"])
    };
    for host in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"] {
        assert_eq!((admin(host), forward(host)), (1, 1), "{host}");
    }
    for host in ["0.0.0.0", "::", "0"] {
        assert_eq!(registrar(host), 1, "{host}");
    }
    for host in ["127.0.0.1", "[::1]", "10.0.0.1"] {
        assert_eq!((admin(host), forward(host)), (0, 0), "{host}");
    }
    assert_eq!(registrar("127.0.0.1"), 0);
    let none = "  registrar: none\n  registrar_listen: { host: 0.0.0.0 }\n";
    assert_eq!(warned(none, "", &["registrar_listen"]), 0, "nothing listens there");
}

#[test]
fn a_service_that_leads_to_the_nodes_own_admin_interface_causes_a_warning() {
    let service = |node: &str, place: &str| {
        let rest = format!("services: {{ s: {{ connect: \"{place}\", allow: [] }} }}\n");
        warned(node, &rest, &["services.s.connect", "operations interface"])
    };
    for place in ["unix:app.data/admin.sock", "unix:./x/../app.data/./admin.sock"] {
        assert_eq!(service("", place), 1, "{place}");
    }
    assert_eq!(service("", "unix:other.data/admin.sock"), 0);
    assert_eq!(service("  admin: none\n", "unix:app.data/admin.sock"), 0);
    let tcp = |listen: &str, place: &str| {
        service(&format!("  admin: {{ listen: \"{listen}\", token_file: token }}\n"), place)
    };
    for (listen, place) in [
        ("127.0.0.1:4490", "127.0.0.1:4490"),
        ("127.0.0.1:4490", "localhost:4490"),
        ("0.0.0.0:4490", "127.0.0.1:4490"),
        ("10.0.0.1:4490", "10.0.0.1:4490"),
    ] {
        assert_eq!(tcp(listen, place), 1, "{listen} {place}");
    }
    for (listen, place) in [("127.0.0.1:4490", "127.0.0.1:4491"), ("0.0.0.0:4490", "db.example.com:4490")] {
        assert_eq!(tcp(listen, place), 0, "{listen} {place}");
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.path().join("app.data")).unwrap();
    std::fs::set_permissions(dir.path().join("app.data"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("app.data", dir.path().join("link")).unwrap();
    let rest = "services: { s: { connect: \"unix:link/admin.sock\", allow: [] } }\n";
    assert_eq!(warned_in(&dir, "", rest, &["services.s.connect"]), 1);
}

#[test]
fn a_shell_that_every_peer_may_start_causes_a_warning() {
    let spawn = |command: &str, allow: &str| {
        let rest = format!("spawn: {{ s: {{ command: [{command}], allow: [{allow}] }} }}\n");
        warned("", &rest, &["spawn.s: ", "every peer"])
    };
    for command in
        ["sh", "/bin/bash, -c, 'exec backup'", "/usr/bin/python3.13", "/usr/bin/env, -i, A=b, perl", "busybox, sh"]
    {
        assert_eq!(spawn(command, "'.*'"), 1, "{command}");
        assert_eq!(spawn(command, "'app@.*'"), 0, "{command}");
        assert_eq!(spawn(command, ""), 0, "{command}");
    }
    assert_eq!((spawn("sh", "'.+@.+'"), spawn("sh", "'app@x', '.*@.*'")), (1, 1));
    for command in ["/usr/local/bin/backup", "env, backup, sh", "shutdown"] {
        assert_eq!(spawn(command, "'.*'"), 0, "{command}");
    }
    let rest = "applications: { shop: { allow: ['.*'], processes: [{ mailbox: store, command: [node] }] } }\n";
    assert_eq!(warned("", rest, &["applications.shop.processes: store", "node"]), 1);
}

#[test]
fn an_unverified_certificate_causes_a_warning() {
    let route = |skip: bool| {
        format!("routes: [{{ match: '^db@', host: h, port: 1, tls: true, insecure_skip_verify: {skip} }}]\n")
    };
    assert_eq!(warned("", &route(true), &["routes[0]", "`^db@`", "any certificate"]), 1);
    assert_eq!(warned("", &route(false), &["any certificate"]), 0);
    let proxy = "proxy_routes: [{ match: '^db@', proxy: g@h, target: { tls: true, insecure_skip_verify: true } }]\n";
    assert_eq!(warned("", proxy, &["proxy_routes[0].target", "any certificate"]), 1);
    let items = "  - { match: N, host: h, port: 1, tls: true, insecure_skip_verify: true }\n";
    let many: String = (0..30).map(|n| items.replace('N', &format!("^db{n}@"))).collect();
    assert_eq!(warned("", &format!("routes:\n{many}"), &["any certificate"]), 20);
    assert_eq!(warned("", &format!("routes:\n{many}"), &["insecure_skip_verify: 10 more"]), 1);
}

#[test]
fn a_transit_rule_without_a_restricted_host_causes_a_warning() {
    let rule = |to: &str| {
        let rest = format!("transit: {{ rules: [{{ from: 'app@.*', to: '{to}' }}] }}\n");
        warned("", &rest, &["transit.rules[0].to", "does not restrict the host"])
    };
    for to in [".*", "db@.*", "db-.*@.+", "backend-.*", "db@[a-z.]+", "(a@h|b@.*)", "db@10[.].*|db@[0-9.]+"] {
        assert_eq!(rule(to), 1, "{to}");
    }
    for to in ["db@10[.]0[.]1[.]50", "db-.*@.*[.]example[.]com", "db@(one|two)", "db-[0-9]+@10[.]0[.].*"] {
        assert_eq!(rule(to), 0, "{to}");
    }
}

#[test]
fn a_data_directory_that_other_users_can_write_to_causes_a_warning() {
    let dir = Dir::new();
    let data = dir.path().join("app.data");
    let told = |parts: &[&str]| warned_in(&dir, "", "", parts);
    assert_eq!(told(&["data_dir"]), 0, "there is none yet");
    std::fs::create_dir(&data).unwrap();
    for (mode, times) in [(0o777, 1), (0o770, 1), (0o1777, 1), (0o755, 0), (0o700, 0)] {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            told(&["node.data_dir", "other users can write", &format!("mode {mode:04o}"), "chmod 700"]),
            times,
            "{mode:o}"
        );
    }
    assert_eq!(told(&["data_dir"]), 0);
    if rustix::process::geteuid().is_root() {
        chown(&data, Some(12_345), None).unwrap();
        assert_eq!(told(&["node.data_dir", "belongs to user 12345"]), 1);
    }
}

#[test]
fn the_warning_about_a_weak_cookie_names_its_cost() {
    let dir = Dir::new();
    dir.secret("weak", "password1\n");
    let told =
        |rest: &str, key: &str| warned_in(&dir, "", rest, &[key, "slow down later ones", "openssl rand -hex 24"]);
    assert_eq!(told("", ""), 0);
    for (rest, key) in [
        ("peers: [{ match: 'a@h', cookie_file: weak }]\n", "peers[0].cookie_file"),
        ("routes: [{ match: a, port: 1, cookie_file: weak }]\n", "routes[0].cookie_file"),
        ("proxy_routes: [{ match: a, proxy: g@h, cookie_file: weak }]\n", "proxy_routes[0].cookie_file"),
        (
            "proxy_routes: [{ match: a, proxy: g@h, target: { cookie_file: weak } }]\n",
            "proxy_routes[0].target.cookie_file",
        ),
    ] {
        assert_eq!(told(rest, key), 1, "{rest}");
    }
}
