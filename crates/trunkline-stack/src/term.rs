//! Terms as bodies of messages, with the names of the connection in them.

use trunkline_route::AtomMapping;
use trunkline_term::{Atom, Limits, Term, TermError};

const LIMITS: Limits = Limits::new();

pub(crate) fn encode(term: &Term) -> Result<Vec<u8>, TermError> {
    term.encode(&LIMITS)
}

/// Calls atoms what the mapping says; `ambiguous` hears of those that will come back as others.
pub(crate) fn encode_mapped(
    term: &Term,
    mapping: &AtomMapping,
    ambiguous: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, TermError> {
    let term = term.clone().replace_atoms(&mut |atom| {
        if mapping.is_ambiguous(atom.as_str()) {
            ambiguous(atom.as_str());
        }
        mapping.to_peer(atom.as_str()).and_then(|wire| Atom::new(wire).ok())
    });
    encode(&term)
}

pub(crate) fn decode(body: &[u8], mapping: Option<&AtomMapping>) -> Result<Term, TermError> {
    let term = Term::decode(body, &LIMITS)?;
    let Some(mapping) = mapping else { return Ok(term) };
    Ok(term.replace_atoms(&mut |atom| mapping.from_peer(atom.as_str()).and_then(|local| Atom::new(local).ok())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> impl Strategy<Value = Term> {
        let leaf = prop_oneof![
            "[a-h]".prop_map(|text| Term::atom(text).unwrap()),
            any::<i64>().prop_map(Term::from),
            "[a-h]{0,3}".prop_map(|text| Term::from(text.as_str())),
        ];
        leaf.prop_recursive(5, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Term::list),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Term::tuple),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Term::map),
            ]
        })
    }

    proptest! {
        #[test]
        fn p38_what_was_replaced_is_restored_unless_it_was_said_to_be_ambiguous(
            term in terms(),
            pairs in prop::collection::vec(("[a-d]", "[c-h]"), 0..5),
        ) {
            let Ok(mapping) = AtomMapping::new(pairs) else { return Ok(()) };
            let mut ambiguous = 0;
            let bytes = encode_mapped(&term, &mapping, &mut |_| ambiguous += 1).unwrap();
            let wire = decode(&bytes, None).unwrap();
            let mut all_replaced = true;
            let _ = wire.replace_atoms(&mut |atom| {
                all_replaced &= mapping.to_peer(atom.as_str()).is_none() || mapping.from_peer(atom.as_str()).is_some();
                None
            });
            prop_assert!(all_replaced);
            let restored = decode(&bytes, Some(&mapping)).unwrap();
            // Two keys of a map may have become one; that too was said.
            prop_assert_eq!(restored == term, ambiguous == 0);
        }
    }
}
