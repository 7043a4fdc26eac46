use std::io::{Read, Write};
use std::net::TcpStream;

use crate::world::{Dir, Ran, Running, TOKEN, finish, free_port, no_secret};

fn node(dir: &Dir, level: &str) -> Running {
    dir.node(&config(dir, "127.0.0.1"), &["--answer", "echo", "--log-level", level])
}

/// Writes the configuration of a node whose admin interface listens at this host.
fn config(dir: &Dir, host: &str) -> String {
    dir.file("token", &format!("{TOKEN}\n"), 0o600);
    let rest = format!("  admin: {{ listen: '{host}:{}', token_file: token }}\n", free_port());
    dir.config("app", &rest)
}

/// Sends one request without an HTTP library and returns the answer.
fn http(address: &str, method: &str, path: &str, token: Option<&str>) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let authorization = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    no_secret(&answer);
    answer
}

fn with_token(dir: &Dir, token: &str, args: &[&str]) -> Ran {
    let mut command = dir.command(args);
    command.env("TRUNKLINE_ADMIN_TOKEN", token);
    finish(command)
}

#[test]
fn over_tcp_every_path_needs_the_right_token() {
    let dir = Dir::new();
    let node = node(&dir, "info");
    let address = node.admin();
    assert!(!dir.at("app.data").exists(), "no Unix socket besides");
    let wrong = format!("Bearer {}", "w".repeat(TOKEN.len()));
    let almost = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    for token in [None, Some(""), Some("Bearer "), Some(TOKEN), Some(&*wrong), Some(&*almost), Some(&*basic)] {
        for (method, path) in [("GET", "/v1/status"), ("POST", "/v1/reload"), ("GET", "/v1/nowhere")] {
            let answer = http(address, method, path, token);
            assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
            assert!(answer.contains("the request has no valid token"), "{answer}");
        }
    }
    let right = format!("Bearer {TOKEN}");
    assert!(http(address, "GET", "/v1/status", Some(&right)).starts_with("HTTP/1.1 200 "));

    let ran = with_token(&dir, TOKEN, &["--json", "status", "--admin", address]).exits(0);
    assert_eq!(ran.json()["name"], "app@127.0.0.1");
    with_token(&dir, &format!("{TOKEN}\n"), &["status", "--admin", address]).exits(0);
    with_token(&dir, "wrong", &["status", "--admin", address]).refused(&["the request has no valid token"]);
    let log = node.stop().stderr;
    let refusals: Vec<_> = log.lines().filter(|line| line.contains("the operations API refused a request")).collect();
    assert!(refusals[0].contains("no token") && refusals[0].contains("address=127.0.0.1"), "{log}");
    assert!(refusals.len() < 4, "one line per address in ten seconds: {log}");
}

#[test]
fn silent_connections_do_not_block_clients_with_a_token_and_use_a_bounded_number_of_descriptors() {
    let dir = Dir::new();
    let file = config(&dir, "127.0.0.1");
    let node = Running::start(dir.with_descriptors(320, &["--json", "node", "--config", &file]));
    let address = node.admin();
    let mut silent: Vec<_> = (0..600).map(|_| TcpStream::connect(address).unwrap()).collect();
    with_token(&dir, TOKEN, &["status", "--admin", address]).exits(0);
    assert!(matches!(silent[0].read(&mut [0; 1]), Ok(0) | Err(_)), "the oldest ones are closed");
    assert!(!node.stderr().contains("cannot be accepted"), "{}", node.stderr());
    drop(silent);
    node.stop();
}

#[test]
fn no_command_prints_or_logs_a_secret() {
    let dir = Dir::new();
    let node = node(&dir, "trace");
    let address = node.admin().to_owned();
    dir.file("other-cookie", "other-canary-2c26b46b68ffc68ff99b453c1d30413413422d706483", 0o600);
    let port = node.port().to_string();
    let mut printed = 0;
    let mut run = |code: i32, args: &[&str]| {
        for format in ["text", "json"] {
            let args: Vec<_> = ["--log-level", "trace", "--log-format", format].iter().chain(args).copied().collect();
            let ran = with_token(&dir, TOKEN, &args).exits(code);
            no_secret(&ran.stdout);
            no_secret(&ran.stderr);
            printed += ran.stdout.len() + ran.stderr.len();
        }
    };
    let rest = format!(
        "routes:\n  - {{ match: '^app@', host: 127.0.0.1, port: {port} }}\n  \
         - {{ match: '^other@', host: 127.0.0.1, port: {port}, cookie_file: other-cookie }}\n"
    );
    dir.config("client", &rest);
    for (code, name) in [(0, "app@127.0.0.1"), (1, "other@127.0.0.1")] {
        run(code, &["ping", "--config", "client.yaml", name]);
        run(0, &["explain", "--config", "client.yaml", name]);
        run(code, &["call", "--config", "client.yaml", name, "echo", "x"]);
    }
    for command in ["status", "nodes", "reload"] {
        run(0, &[command, "--admin", &address]);
    }
    let add = ["routes", "add", "--admin", &address, "^x@", "--port", &port, "--cookie-file", "other-cookie"];
    with_token(&dir, TOKEN, &add).exits(0);
    run(2, &add);
    run(0, &["routes", "list", "--admin", &address]);
    run(1, &["ping", "--admin", &address, "x@127.0.0.1"]);
    assert!(printed > 3_000, "trace logs were written: {printed}");
    let log = node.stop().stderr;
    assert!(log.contains("cli-") && log.contains("DEBUG"), "{log}");
}

#[test]
fn a_configuration_error_never_shows_a_secret_put_in_the_wrong_place() {
    let dir = Dir::new();
    let secret = "canary-misplaced-5994471abb01112afcc18159f6cc74b4";
    dir.config("app", "");
    for set in [format!("node.cookie={secret}"), format!("node.cookie_env={secret}"), "node.tls=maybe".into()] {
        no_secret(&dir.run(&["check", "app.yaml", "--set", &set]).exits(2).stderr);
    }
    let mut command = dir.command(&["check", "app.yaml"]);
    command.env("TRUNKLINE_NODE_COOKIE", secret);
    no_secret(&finish(command).refused(&["TRUNKLINE_NODE_COOKIE"]).stderr);
    for cookie in ["canary", &"canary".repeat(1000)] {
        dir.file("cookie", cookie, 0o600);
        no_secret(&dir.run(&["check", "app.yaml"]).refused(&["node.cookie_file"]).stderr);
    }
    dir.file("cookie", "canarycanary", 0o600);
    no_secret(&dir.ok(&["check", "app.yaml"]).stdout);
    dir.file("token", "canary", 0o600);
    dir.config("app", "  admin: { listen: '127.0.0.1:4490', token_file: token }\n");
    no_secret(&dir.run(&["check", "app.yaml"]).refused(&["node.admin.token_file"]).stderr);
}
