#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trunkline_wire::fuzzing::handshake(bytes));
