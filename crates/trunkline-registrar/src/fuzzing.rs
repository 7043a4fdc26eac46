//! Bodies of this crate's fuzz targets. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use crate::file;

/// Fuzz target: its name, its body, which panics when a property is violated, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All fuzz targets of this crate.
pub const TARGETS: &[Target] = &[("names_file", names_file, names_file_seeds)];

/// Minimum length of a word that is searched for in an error; the error texts themselves have no word that long.
const LONG_WORD: usize = 16;

/// Parses any text as a file of names; an error, which neighbours may see, must not show a word of the text.
pub fn names_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Err(error) = file::parse(text) else { return };
    let error = error.to_string();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= LONG_WORD);
    for word in words {
        assert!(!error.contains(word), "{error}");
    }
}

/// Returns the file of the documentation, and one in another style.
pub fn names_file_seeds() -> Vec<Vec<u8>> {
    let block = "db@example.com:\n  - { host: 10.0.0.5, port: 4370 }\n  - { host: 10.0.0.6, port: 4370, tls: true, handshake: \
                 TLK/1 }\n  - { proxy: gate@dmz.example.com } # a gateway\n";
    let flow = "{ a@h: [{ host: 'h', port: 0x1 }], \"b@h\": &x [], c@h: *x }";
    vec![block.into(), flow.into()]
}
