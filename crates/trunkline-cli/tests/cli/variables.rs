//! Tests of environment variables that must not stop a command.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::world::{Dir, Ran, Running, finish};

/// Variables that Kubernetes sets in every container of a namespace with the services `trunkline` and
/// `trunkline-admin`.
const SERVICE: [(&str, &str); 6] = [
    ("TRUNKLINE_PORT", "tcp://10.96.0.11:80"),
    ("TRUNKLINE_PORT_80_TCP_ADDR", "10.96.0.11"),
    ("TRUNKLINE_SERVICE_HOST", "10.96.0.11"),
    ("TRUNKLINE_SERVICE_PORT_HTTP", "80"),
    ("TRUNKLINE_ADMIN_PORT", "tcp://10.96.0.12:4490"),
    ("TRUNKLINE_ADMIN_SERVICE_HOST", "10.96.0.12"),
];

const EMPTY: [(&str, &str); 6] = [
    ("TRUNKLINE_CONFIG", ""),
    ("TRUNKLINE_LOG", ""),
    ("TRUNKLINE_ADMIN", ""),
    ("TRUNKLINE_ADMIN_TOKEN", ""),
    ("TRUNKLINE_PEERS", ""),
    ("TRUNKLINE_NODE_NAME", ""),
];

fn with(dir: &Dir, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = dir.command(args);
    command.envs(variables.iter().copied());
    finish(command)
}

#[test]
fn no_command_fails_because_of_empty_variables_or_those_of_a_kubernetes_service() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    for variables in [&SERVICE[..], &EMPTY] {
        let mut command = dir.command(&["--json", "node", "--config", &file]);
        command.envs(variables.iter().copied());
        let node = Running::start(command);
        for args in [
            &["check", &file][..],
            &["explain", "--config", &file, "app@127.0.0.1"],
            &["routes", "list", "--config", &file],
            &["status", "--admin", node.admin()],
            &["status"],
        ] {
            with(&dir, variables, args).exits(0);
        }
    }
    let ran = with(&dir, &EMPTY, &["node"]).exits(2);
    assert!(ran.stderr.contains("--config"), "{}", ran.stderr);
}

#[test]
fn a_variable_that_is_not_text_is_refused_by_name() {
    let dir = Dir::new();
    let file = dir.config("app", "");
    for name in ["TRUNKLINE_LOG", "TRUNKLINE_CONFIG", "TRUNKLINE_ADMIN", "TRUNKLINE_ADMIN_TOKEN", "TRUNKLINE_ROUTES"] {
        for args in [&["check", &file][..], &["ping", "--config", &file, "db@h"]] {
            let mut command = dir.command(args);
            command.env(name, OsStr::from_bytes(b"\xff"));
            finish(command).refused(&[&format!("environment variable {name}"), "not UTF-8"]);
        }
    }
}
