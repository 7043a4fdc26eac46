//! Runs the programs of `examples/` unchanged.

#[path = "../../../examples/atom_mapping.rs"]
mod atom_mapping;
#[path = "../../../examples/certificates.rs"]
mod certificates;
#[path = "../../../examples/cookie_rotation.rs"]
mod cookie_rotation;
#[path = "../../../examples/fallback_never.rs"]
mod fallback_never;
#[path = "../../../examples/flags.rs"]
mod flags;
#[path = "../../../examples/gateway.rs"]
mod gateway;
#[path = "../../../examples/important.rs"]
mod important;
#[path = "../../../examples/log_level.rs"]
mod log_level;
#[path = "../../../examples/processes.rs"]
mod processes;
#[path = "../../../examples/resolver_route.rs"]
mod resolver_route;
#[path = "../../../examples/services.rs"]
mod services;
#[path = "../../../examples/skip_verify.rs"]
mod skip_verify;
#[path = "../../../examples/standby.rs"]
mod standby;

#[test]
fn the_example_of_certificates_runs() {
    certificates::main().unwrap();
}

#[test]
fn the_example_of_a_resolver_runs() {
    resolver_route::main().unwrap();
}

#[test]
fn the_example_of_log_levels_runs() {
    // The example uses the existing subscriber.
    crate::c_log::lines();
    log_level::main().unwrap();
}

#[test]
fn the_example_of_a_standby_runs() {
    standby::main().unwrap();
}

#[test]
fn the_example_of_flags_runs() {
    flags::main().unwrap();
}

#[test]
fn the_example_of_an_atom_mapping_runs() {
    atom_mapping::main().unwrap();
}

#[test]
fn the_example_of_important_delivery_runs() {
    important::main().unwrap();
}

#[test]
fn the_example_of_processes_runs() {
    processes::main().unwrap();
}

#[test]
fn the_example_of_a_route_that_is_the_whole_answer_runs() {
    fallback_never::main().unwrap();
}

#[test]
fn the_example_of_a_lax_and_a_strict_route_runs() {
    skip_verify::main().unwrap();
}

#[test]
fn the_example_of_a_cookie_rotation_runs() {
    cookie_rotation::main().unwrap();
}

#[test]
fn the_example_of_services_runs() {
    services::main().unwrap();
}

#[test]
fn the_example_of_a_gateway_runs() {
    gateway::main().unwrap();
}

/// Returns a directory with every file that the documents name.
fn with_files() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let authority = trunkline_tests::support::authority();
    let issued = trunkline_tests::support::issued(&authority, "db@127.0.0.1", 0);
    let cookie = "a secret that is long enough\n";
    let files = [("ca.pem", authority.certificate()), ("names.yaml", "db@lab: 127.0.0.1:4370\n"), ("cookie", cookie)];
    let pairs = ["db", "app"].map(|name| {
        [(format!("{name}.pem"), issued.certificate.as_str()), (format!("{name}.key"), issued.key.as_str())]
    });
    let more = [("staging", "another secret that is long enough\n"), ("secrets/partner", cookie)];
    std::fs::create_dir(dir.path().join("secrets")).unwrap();
    let named = files.into_iter().chain(more).map(|(name, text)| (name.to_owned(), text));
    for (name, text) in named.chain(pairs.into_iter().flatten()) {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

fn loads(dir: &tempfile::TempDir, what: &str, text: &str) {
    // The node's own part is omitted where it is not the subject.
    let set = ["node.name=app@127.0.0.1", "node.cookie_file=cookie"];
    let is_given = |key: &str| text.contains(key);
    let set = set.iter().filter(|set| !(set.contains("cookie_file") && is_given("node:") && is_given("  cookie_file")));
    let set =
        set.filter(|set| !(set.contains("cookie_file") && is_given("node: { cookie_file"))).map(|s| s.to_string());
    let layers = trunkline_config::Layers { set: set.collect(), ..trunkline_config::Layers::none() };
    let text = if is_given("node:") { text.to_owned() } else { format!("node: {{}}\n{text}") };
    let loaded = trunkline_config::Config::parse(&text, dir.path(), "shown.yaml", &layers);
    assert!(loaded.is_ok(), "{what}: {}\n{text}", loaded.unwrap_err());
}

#[test]
fn the_yaml_of_every_example_and_of_the_table_of_options_loads() {
    let (dir, root) = (with_files(), concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut shown = 0;
    for file in std::fs::read_dir(format!("{root}/examples")).unwrap() {
        let file = file.unwrap().path();
        if file.is_dir() {
            // A package of its own.
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let lines =
            text.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
        let fenced: Vec<_> =
            lines.skip_while(|line| *line != "```yaml").skip(1).take_while(|line| *line != "```").collect();
        for document in fenced.split(|line| *line == "---").filter(|document| !document.is_empty()) {
            loads(&dir, &file.display().to_string(), &document.join("\n"));
            shown += 1;
        }
    }
    let table = std::fs::read_to_string(format!("{root}/docs/ROUTES.md")).unwrap();
    for row in
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what | ") && !line.contains("---"))
    {
        let keys: Vec<_> =
            row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2).filter(|span| span.contains(": ")).collect();
        assert!(!keys.is_empty(), "{row}");
        let has = |key: &str| keys.iter().any(|span| span.starts_with(key));
        let mut route = vec!["match: x".to_owned()];
        route.extend(keys.iter().map(|key| key.to_string()));
        match () {
            () if has("override:") => route.push("resolver: lab".into()),
            () if has("port:") || has("resolver:") => {}
            () => route.push("port: 1".into()),
        }
        let around =
            "registrars: { lab: { kind: file, path: names.yaml } }\ntls_profiles: { partner: { roots: ca.pem } }";
        loads(&dir, row, &format!("{around}\nroutes: [{{ {} }}]", route.join(", ")));
        shown += 1;
    }
    assert!(shown > 25, "{shown}");
}
