#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trunkline_mesh::fuzzing::mesh_messages(bytes));
