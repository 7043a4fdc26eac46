#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trunkline_registrar::fuzzing::names_file(bytes));
