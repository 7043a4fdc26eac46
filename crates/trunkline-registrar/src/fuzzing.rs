//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use crate::file;

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("names_file", names_file, names_file_seeds)];

/// The least characters of a word that is looked for in an error: none of ours has so many.
const LONG_WORD: usize = 16;

/// Files of names: any text is one or refused, and a refusal, which neighbours may see, shows no word of the text.
pub fn names_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Err(error) = file::parse(text) else { return };
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() >= LONG_WORD);
    for word in words {
        assert!(!error.contains(word), "{error}");
    }
}

/// The file of the documentation, and one in another style.
pub fn names_file_seeds() -> Vec<Vec<u8>> {
    let block = "db@example.com:\n  - { host: 10.0.0.5, port: 4370 }\n  - { host: 10.0.0.6, port: 4370, tls: true, handshake: \
                 TLK/1 }\n  - { proxy: gate@dmz.example.com } # a gateway\n";
    let flow = "{ a@h: [{ host: 'h', port: 0x1 }], \"b@h\": &x [], c@h: *x }";
    vec![block.into(), flow.into()]
}
