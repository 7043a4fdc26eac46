//! Terms and their bytes.

use proptest::prelude::*;
use trunkline_term::{Atom, BigInt, Float, Limits, Pid, Port, Reference, Term, TermError};

fn atoms() -> impl Strategy<Value = Atom> {
    "[a-zé_@.]{0,12}".prop_map(|text| Atom::new(text).unwrap())
}

fn terms() -> impl Strategy<Value = Term> {
    let leaf = prop_oneof![
        atoms().prop_map(Term::Atom),
        any::<i64>().prop_map(Term::Integer),
        (any::<i64>(), 1u32..200).prop_map(|(n, bits)| {
            let number = (BigInt::from(n) << 64u32) + (BigInt::from(1) << (64 + bits));
            Term::BigInteger(number)
        }),
        any::<f64>().prop_filter_map("finite", Float::new).prop_map(Term::Float),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Term::Binary),
        (prop::collection::vec(any::<u8>(), 1..5), 1u8..8).prop_map(|(mut bytes, bits)| {
            let last = bytes.len() - 1;
            bytes[last] &= 0xff << (8 - bits);
            Term::BitString(bytes, bits)
        }),
        (atoms(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(node, id, serial, creation)| Term::Pid(Pid {
            node,
            id,
            serial,
            creation
        })),
        (atoms(), any::<u64>(), any::<u32>()).prop_map(|(node, id, creation)| Term::Port(Port { node, id, creation })),
        (atoms(), prop::collection::vec(any::<u32>(), 1..5), any::<u32>())
            .prop_map(|(node, id, creation)| Term::Reference(Reference { node, id, creation })),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let many = || prop::collection::vec(inner.clone(), 0..6);
        let last = inner.clone().prop_filter("no list", |term| !matches!(term, Term::List(_) | Term::ImproperList(..)));
        prop_oneof![
            many().prop_map(Term::List),
            many().prop_map(Term::Tuple),
            prop::collection::vec((inner.clone(), inner.clone()), 0..5).prop_map(Term::map),
            (prop::collection::vec(inner.clone(), 1..4), last)
                .prop_map(|(terms, last)| Term::ImproperList(terms, Box::new(last))),
        ]
    })
}

fn nested(levels: usize) -> Term {
    (1..levels).fold(Term::from(1), |inner, _| Term::tuple([inner]))
}

/// The bytes of a tuple in a tuple and so on, however deep.
fn nested_bytes(levels: usize) -> Vec<u8> {
    let mut bytes = vec![131];
    (1..levels).for_each(|_| bytes.extend([104, 1]));
    bytes.extend([97, 1]);
    bytes
}

proptest! {
    #[test]
    fn p9_decoding_undoes_encoding(term in terms()) {
        let bytes = term.encode(&Limits::default()).unwrap();
        prop_assert_eq!(Term::decode(&bytes, &Limits::default()), Ok(term));
    }

    #[test]
    fn p9_decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300), version: bool) {
        let bytes = if version { [&[131][..], &bytes].concat() } else { bytes };
        let _ = Term::decode(&bytes, &Limits::default());
    }

    #[test]
    fn bytes_that_are_cut_or_changed_are_refused_or_another_term(term in terms(), at: prop::sample::Index, byte: u8) {
        let mut bytes = term.encode(&Limits::default()).unwrap();
        let cut = at.index(bytes.len());
        prop_assert!(Term::decode(&bytes[..cut], &Limits::default()).is_err());
        bytes[cut] = byte;
        let _ = Term::decode(&bytes, &Limits::default());
    }

    #[test]
    fn p38_replacing_atoms_there_and_back_is_the_identity_where_no_target_occurs(term in terms()) {
        // Local names are lower case; the peer's are not, so none of them occurs.
        let there = |atom: &Atom| Some(Atom::new(atom.as_str().to_uppercase()).unwrap());
        let mut known = std::collections::HashMap::new();
        let replaced = term.clone().replace_atoms(&mut |atom| {
            let other = there(atom)?;
            known.insert(other.clone(), atom.clone());
            Some(other)
        });
        let restored = replaced.replace_atoms(&mut |atom| known.get(atom).cloned());
        prop_assert_eq!(restored, term);
    }
}

#[test]
fn the_bytes_are_those_erlang_writes() {
    // term_to_binary({ok, 42, <<"hello">>, [1.5], #{a => -1}}) of OTP 26.
    let bytes = [
        &[131, 104, 5, 119, 2, 111, 107, 97, 42, 109, 0, 0, 0, 5][..],
        b"hello",
        &[108, 0, 0, 0, 1, 70, 63, 248, 0, 0, 0, 0, 0, 0, 106, 116, 0, 0, 0, 1, 119, 1, 97, 98, 255, 255, 255, 255],
    ]
    .concat();
    let term = Term::tuple([
        Term::atom("ok").unwrap(),
        Term::from(42),
        Term::from("hello"),
        Term::list([Term::Float(Float::new(1.5).unwrap())]),
        Term::map([(Term::atom("a").unwrap(), Term::from(-1))]),
    ]);
    assert_eq!(Term::decode(&bytes, &Limits::default()), Ok(term.clone()));
    assert_eq!(term.encode(&Limits::default()), Ok(bytes));
}

#[test]
fn terms_nested_too_deep_are_refused_both_ways_and_never_on_the_stack() {
    let limits = Limits::default();
    assert_eq!(nested(64).encode(&limits).unwrap(), nested_bytes(64));
    assert_eq!(nested(65).encode(&limits), Err(TermError::Depth { limit: 64 }));
    assert!(Term::decode(&nested_bytes(64), &limits).is_ok());
    for levels in [65, 10_000, 4_000_000] {
        assert_eq!(Term::decode(&nested_bytes(levels), &limits), Err(TermError::Depth { limit: 64 }));
    }
}

#[test]
fn too_many_terms_are_refused_both_ways() {
    let limits = Limits::new().terms(100);
    let list = |len: i64| Term::list((0..len).map(Term::from));
    let bytes = list(99).encode(&limits).unwrap();
    // The empty list at the end counts on the wire.
    assert!(Term::decode(&bytes, &limits.terms(101)).is_ok());
    assert_eq!(list(100).encode(&limits), Err(TermError::Terms { limit: 100 }));
    let bytes = list(200).encode(&Limits::default()).unwrap();
    assert_eq!(Term::decode(&bytes, &limits), Err(TermError::Terms { limit: 100 }));
}

#[test]
fn what_lies_or_is_not_taken_is_refused_by_name() {
    let decode = |bytes: &[u8]| Term::decode(bytes, &Limits::default()).unwrap_err();
    // A list of four billion elements in six bytes; a tuple, a map and a binary alike.
    for tag in [108, 105, 116, 109] {
        assert_eq!(decode(&[131, tag, 255, 255, 255, 255]), TermError::Cut);
    }
    assert_eq!(decode(&[131, 80, 0, 0, 0, 1, 0]), TermError::Unsupported { what: "a compressed term" });
    assert_eq!(decode(&[131, 113, 119, 1, 97]), TermError::Unsupported { what: "a function" });
    for tag in [68, 82, 0, 255] {
        assert_eq!(decode(&[131, tag, 0, 0]), TermError::Tag { tag });
    }
    assert_eq!(decode(&[131, 77, 0, 0, 0, 1, 9, 1]), TermError::Cut, "nine bits in a byte");
    assert_eq!(decode(&[130, 106]), TermError::Version);
    assert_eq!(decode(&[131, 106, 106]), TermError::Trailing { bytes: 1 });
    assert!(matches!(decode(&[131, 119, 1, 255]), TermError::Invalid(_)), "an atom that is no UTF-8");
    assert_eq!(Atom::new("x".repeat(256)), Err(TermError::Atom { len: 256 }));
}
