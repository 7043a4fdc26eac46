//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::{
    Address, AtomMapping, Cookie, Flag, Host, LocalPlace, LogLevel, MAX_NAME_LEN, NodeName, SocketPlace, Version,
};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("values", values, values_seeds)];

/// The most bytes of an error, the value that it repeats not counted.
const MAX_ERROR: usize = 500;

/// Names, addresses and other short values: any text is one of them or refused, and what is one is read back from what it
/// is printed as.
pub fn values(bytes: &[u8]) {
    let _ = Cookie::new(bytes).map(|cookie| assert_eq!(cookie.expose(), bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(name) = stable::<NodeName>(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= MAX_NAME_LEN && text.contains(name.host()));
    }
    stable::<Host>(text);
    stable::<Address>(text);
    stable::<Version>(text);
    stable::<Flag>(text);
    stable::<LogLevel>(text);
    stable::<SocketPlace>(text);
    stable::<LocalPlace>(text);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    if let Ok(mapping) = AtomMapping::new(pairs.clone()) {
        for (local, peer) in pairs {
            assert_eq!(mapping.to_peer(local).map(|name| &**name), Some(peer));
        }
    }
}

/// Reads a value, prints it, and reads it again.
fn stable<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T>
where
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert_eq!(printed.parse::<T>().ok().as_ref(), Some(&value), "{text:?} is printed as {printed:?}");
            Some(value)
        }
        Err(error) => {
            assert!(error.to_string().len() <= MAX_ERROR + 10 * text.len(), "{error}");
            None
        }
    }
}

/// One of each kind.
pub fn values_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "db@example.com",
        "10.0.1.50:4370",
        "[2001:db8::1]:4370",
        "TLK/1",
        "important_delivery",
        "debug",
        "unix:run/db.sock",
        "localhost:5432",
        "local peer\nstore warehouse",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
