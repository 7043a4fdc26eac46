//! What `examples/` shows is run as it stands there.

#[path = "../../../examples/atom_mapping.rs"]
mod atom_mapping;
#[path = "../../../examples/certificates.rs"]
mod certificates;
#[path = "../../../examples/flags.rs"]
mod flags;
#[path = "../../../examples/important.rs"]
mod important;
#[path = "../../../examples/log_level.rs"]
mod log_level;
#[path = "../../../examples/processes.rs"]
mod processes;
#[path = "../../../examples/resolver_route.rs"]
mod resolver_route;
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
    // It takes the subscriber that is there.
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
