//! What `examples/` shows is run as it stands there.

#[path = "../../../examples/certificates.rs"]
mod certificates;
#[path = "../../../examples/resolver_route.rs"]
mod resolver_route;

#[test]
fn the_example_of_certificates_runs() {
    certificates::main().unwrap();
}

#[test]
fn the_example_of_a_resolver_runs() {
    resolver_route::main().unwrap();
}
