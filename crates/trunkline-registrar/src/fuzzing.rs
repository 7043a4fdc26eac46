//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use crate::file;

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("names_file", names_file, names_file_seeds)];

/// Files of names: any text is one or refused.
pub fn names_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let read = file::parse(text);
    assert_eq!(read, file::parse(text), "it depends on something else");
}

/// The file of the documentation, and one in another style.
pub fn names_file_seeds() -> Vec<Vec<u8>> {
    let block = "db@example.com:\n  - { host: 10.0.0.5, port: 4370 }\n  - { host: 10.0.0.6, port: 4370, tls: true, handshake: \
                 TLK/1 }\n  - { proxy: gate@dmz.example.com } # a gateway\n";
    let flow = "{ a@h: [{ host: 'h', port: 0x1 }], \"b@h\": &x [], c@h: *x }";
    vec![block.into(), flow.into()]
}
