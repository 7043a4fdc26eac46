//! Terms and their bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use trunkline_term::{Atom, BigInt, Float, Limits, Pid, Port, Reference, Term, TermError, from_term, to_term};

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

#[test]
fn the_two_zeros_are_one_key() {
    let zero = |number| Term::Float(Float::new(number).unwrap());
    let both = Term::map([(zero(0.0), Term::from(1)), (zero(-0.0), Term::from(2))]);
    let Term::Map(entries) = &both else { unreachable!() };
    assert_eq!(entries.len(), 1);
    let limits = Limits::default();
    assert_eq!(Term::decode(&both.encode(&limits).unwrap(), &limits).unwrap(), both);
    assert_eq!(std::collections::HashSet::from([zero(0.0), zero(-0.0)]).len(), 1);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Job {
    Idle,
    Run(u64),
    Copy(String, Option<i32>),
    Index { tables: Vec<String>, deep: bool },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Marker;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Request {
    name: String,
    sign: char,
    at: (i64, f64),
    large: u128,
    small: i128,
    none: Option<u8>,
    unit: (),
    marker: Marker,
    jobs: Vec<Job>,
    by_number: BTreeMap<u16, String>,
    bytes: Vec<u8>,
}

fn job() -> impl Strategy<Value = Job> {
    prop_oneof![
        Just(Job::Idle),
        any::<u64>().prop_map(Job::Run),
        any::<(String, Option<i32>)>().prop_map(|(path, mode)| Job::Copy(path, mode)),
        any::<(Vec<String>, bool)>().prop_map(|(tables, deep)| Job::Index { tables, deep }),
    ]
}

proptest! {
    #[test]
    fn what_serde_knows_becomes_a_term_and_comes_back(
        (name, sign, at, large, small, none) in
            any::<(String, char, (i64, i32), u128, i128, Option<u8>)>(),
        jobs in prop::collection::vec(job(), 0..4),
        by_number in any::<BTreeMap<u16, String>>(),
        bytes in any::<Vec<u8>>(),
    ) {
        let at = (at.0, f64::from(at.1) / 7.0);
        let request = Request { name, sign, at, large, small, none, unit: (), marker: Marker, jobs, by_number, bytes };
        let term = to_term(&request).unwrap();
        let over_the_wire = Term::decode(&term.encode(&Limits::default()).unwrap(), &Limits::default()).unwrap();
        prop_assert_eq!(from_term::<Request>(&over_the_wire).unwrap(), request);
    }
}

#[test]
fn a_list_that_ends_in_a_list_is_one_list() {
    let read = |bytes: &[u8]| Term::decode(bytes, &Limits::new()).unwrap();
    let both = Term::list([Term::from(1), Term::from(2)]);
    // [1 | [2]] with the tail as a list and as a string, and [1 | [2 | 3]].
    assert_eq!(read(&[131, 108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 1, 97, 2, 106]), both);
    assert_eq!(read(&[131, 108, 0, 0, 0, 1, 97, 1, 107, 0, 1, 2]), both);
    let improper = Term::ImproperList(vec![Term::from(1), Term::from(2)], Box::new(Term::from(3)));
    assert_eq!(read(&[131, 108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 1, 97, 2, 97, 3]), improper);
}

#[test]
fn what_is_in_a_string_counts_as_a_level() {
    let two = Limits::new().depth(2);
    let one = Limits::new().depth(1);
    let (string, empty) = ([131, 107, 0, 2, b'a', b'b'], [131, 107, 0, 0]);
    assert_eq!(Term::decode(&string, &two).unwrap(), Term::list([Term::from(97), Term::from(98)]));
    assert_eq!(Term::decode(&string, &one), Err(TermError::Depth { limit: 1 }));
    assert_eq!(Term::decode(&empty, &one).unwrap(), Term::list([]));
}

#[test]
fn terms_look_as_erlang_writes_them() {
    let atom = |text: &str| Term::atom(text).unwrap();
    assert_eq!(
        to_term(&(true, None::<u8>, "text", -1)).unwrap(),
        Term::tuple([atom("true"), atom("undefined"), "text".into(), Term::from(-1)])
    );
    assert_eq!(to_term(&Job::Idle).unwrap(), atom("Idle"));
    assert_eq!(to_term(&Job::Run(1)).unwrap(), Term::tuple([atom("Run"), Term::from(1)]));
    let index = Job::Index { tables: vec![], deep: false };
    let fields = Term::map([(atom("tables"), Term::list([])), (atom("deep"), atom("false"))]);
    assert_eq!(to_term(&index).unwrap(), Term::tuple([atom("Index"), fields]));
    assert_eq!(to_term(&vec![1.5f32]).unwrap(), Term::list([Term::Float(Float::new(1.5).unwrap())]));
}

#[test]
fn what_others_write_is_read_where_it_is_clear_and_refused_where_not() {
    let atom = |text: &str| Term::atom(text).unwrap();
    // Atoms as text, also those that mean something elsewhere; `nil`; texts as keys; records.
    assert_eq!(from_term::<Vec<String>>(&Term::list([atom("true"), atom("nil")])).unwrap(), ["true", "nil"]);
    assert_eq!(from_term::<Option<u8>>(&atom("nil")).unwrap(), None);
    let by_text = Term::map([("tables".into(), Term::list([])), ("deep".into(), atom("true"))]);
    let index = Job::Index { tables: vec![], deep: true };
    assert_eq!(from_term::<Job>(&Term::tuple(["Index".into(), by_text])).unwrap(), index);
    assert_eq!(
        from_term::<serde_json::Value>(&Term::map([("a".into(), Term::tuple([atom("b"), atom("undefined")]))]))
            .unwrap(),
        serde_json::json!({ "a": ["b", null] })
    );

    for (term, says) in [
        (Term::from(300), "expected u8"),
        (Term::tuple([Term::from(1)]), "expected u8"),
        (Term::BitString(vec![1], 3), "a bit string has no counterpart"),
    ] {
        let refused = from_term::<u8>(&term).unwrap_err();
        assert!(matches!(&refused, TermError::Type(text) if text.contains(says)), "{refused}");
    }
    for job in [
        atom("Run"),
        atom("None"),
        Term::tuple([]),
        Term::tuple([atom("Run"), 1.into(), 2.into()]),
        Term::from(1),
        Term::tuple([atom("Copy"), "a".into()]),
        Term::tuple([atom("Copy"), "a".into(), atom("undefined"), atom("more")]),
        Term::tuple([atom("Idle"), 1.into()]),
    ] {
        assert!(matches!(from_term::<Job>(&job), Err(TermError::Type(_))), "{job:?}");
    }
    let three = Term::tuple([1.into(), 2.into(), 3.into()]);
    assert!(matches!(from_term::<(u8, u8)>(&three), Err(TermError::Type(_))));
    assert!(matches!(to_term(&f64::NAN), Err(TermError::Type(text)) if text.contains("no finite number")));
    let long = std::collections::HashMap::from([("x".repeat(256), 1)]);
    assert!(to_term(&long).is_ok(), "a text is a binary, however long");
}
