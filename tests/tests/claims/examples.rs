//! What `examples/` shows is run as it stands there.

#[path = "../../../examples/certificates.rs"]
mod certificates;

#[test]
fn the_example_of_certificates_runs() {
    certificates::main().unwrap();
}
