//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use serde::de::IgnoredAny;

use crate::{BigInt, Float, Limits, Pid, Port, Reference, Term, from_term};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("terms", terms, terms_seeds)];

/// Limits that a short input can reach.
const SMALL: Limits = Limits::new().depth(8).terms(64);

/// Terms: any bytes are a term within the limits or refused, and a term is read back from what it is written as.
pub fn terms(bytes: &[u8]) {
    for limits in [Limits::new(), SMALL] {
        let Ok(term) = Term::decode(bytes, &limits) else { continue };
        let again =
            term.encode(&limits).unwrap_or_else(|error| panic!("{term:?} was read and cannot be written: {error}"));
        assert_eq!(Term::decode(&again, &limits).as_ref(), Ok(&term));
        let _ = term.clone().replace_atoms(&mut |_| None);
        let _ = from_term::<IgnoredAny>(&term);
        let _ = from_term::<Vec<(String, Option<i64>)>>(&term);
        let _ = from_term::<std::collections::BTreeMap<String, f64>>(&term);
    }
}

/// One of each kind, and one of all of them.
pub fn terms_seeds() -> Vec<Vec<u8>> {
    let atom = |text: &str| Term::atom(text).expect("a short text is an atom");
    let node = || crate::Atom::new("db@example.com").expect("a short text is an atom");
    let kinds = vec![
        atom("ok"),
        Term::from(7),
        Term::from(-1_000_000),
        Term::from(i64::MIN),
        Term::BigInteger(BigInt::from(u128::MAX)),
        Term::Float(Float::new(1.5).expect("it is finite")),
        Term::from("hello"),
        Term::BitString(vec![0xff, 0xe0], 3),
        Term::list([Term::from(1), Term::from(2)]),
        Term::list([]),
        Term::ImproperList(vec![Term::from(1)], Box::new(atom("tail"))),
        Term::tuple([atom("ok"), Term::tuple([])]),
        Term::map([(atom("key"), Term::from("value"))]),
        Term::Pid(Pid { node: node(), id: 1, serial: 2, creation: 3 }),
        Term::Port(Port { node: node(), id: 1, creation: 3 }),
        Term::Reference(Reference { node: node(), id: vec![1, 2, 3], creation: 3 }),
    ];
    let all = Term::list(kinds.clone());
    let bytes = |term: &Term| term.encode(&Limits::new()).expect("it is small");
    let mut seeds: Vec<Vec<u8>> = kinds.iter().chain([&all]).map(bytes).collect();
    // A string, which is written as a list.
    seeds.push(vec![131, 107, 0, 3, b'a', b'b', b'c']);
    seeds
}
