use num_bigint::BigInt;

use crate::scan::{self, Limits};
use crate::{Atom, Float, Pid, Port, Reference, Term, TermError};

impl Term {
    /// The bytes of the term in Erlang's external format.
    ///
    /// # Errors
    /// [`TermError`] when it goes over a limit.
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>, TermError> {
        let mut left = limits.get_terms();
        self.measure(limits.get_depth(), limits, &mut left)?;
        let mut bytes = Vec::new();
        external(self).encode(&mut bytes).map_err(|error| TermError::Invalid(error.to_string()))?;
        Ok(bytes)
    }

    /// Reads one term, all of the bytes.
    ///
    /// # Errors
    /// [`TermError`] when the bytes are none, or one over a limit; nothing was built of it.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, TermError> {
        scan::check(bytes, limits)?;
        let term = eetf::Term::decode(bytes).map_err(|error| TermError::Invalid(error.to_string()))?;
        own(term)
    }

    fn measure(&self, depth: usize, limits: &Limits, left: &mut usize) -> Result<(), TermError> {
        let depth = depth.checked_sub(1).ok_or(TermError::Depth { limit: limits.get_depth() })?;
        *left = left.checked_sub(1).ok_or(TermError::Terms { limit: limits.get_terms() })?;
        let mut each = |term: &Self| term.measure(depth, limits, left);
        match self {
            Self::List(terms) | Self::Tuple(terms) => terms.iter().try_for_each(each),
            Self::ImproperList(terms, last) => {
                terms.iter().try_for_each(&mut each)?;
                each(last)
            }
            Self::Map(entries) => entries.iter().try_for_each(|(key, value)| {
                each(key)?;
                each(value)
            }),
            _ => Ok(()),
        }
    }
}

fn atom(atom: &Atom) -> eetf::Atom {
    eetf::Atom::from(atom.as_str())
}

fn external(term: &Term) -> eetf::Term {
    let all = |terms: &[Term]| terms.iter().map(external).collect::<Vec<_>>();
    match term {
        Term::Atom(name) => atom(name).into(),
        Term::Integer(number) => match i32::try_from(*number) {
            Ok(number) => eetf::FixInteger::from(number).into(),
            Err(_) => eetf::BigInteger::from(*number).into(),
        },
        Term::BigInteger(number) => eetf::BigInteger { value: number.clone() }.into(),
        Term::Float(number) => eetf::Float { value: number.get() }.into(),
        Term::Binary(bytes) => eetf::Binary::from(bytes.clone()).into(),
        // The crate keeps the bits of the last byte at its low end.
        Term::BitString(bytes, bits) => {
            let (mut bytes, bits) = (bytes.clone(), (*bits).clamp(1, 7));
            if let Some(last) = bytes.last_mut() {
                *last >>= 8 - bits;
            }
            eetf::BitBinary::from((bytes, bits)).into()
        }
        Term::List(terms) => eetf::List::from(all(terms)).into(),
        Term::ImproperList(terms, last) => eetf::ImproperList::from((all(terms), external(last))).into(),
        Term::Tuple(terms) => eetf::Tuple::from(all(terms)).into(),
        Term::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| (external(key), external(value)));
            eetf::Map { map: entries.collect() }.into()
        }
        Term::Pid(pid) => {
            eetf::Pid { node: atom(&pid.node), id: pid.id, serial: pid.serial, creation: pid.creation }.into()
        }
        Term::Port(port) => eetf::Port { node: atom(&port.node), id: port.id, creation: port.creation }.into(),
        Term::Reference(reference) => {
            eetf::Reference { node: atom(&reference.node), id: reference.id.clone(), creation: reference.creation }
                .into()
        }
    }
}

fn own(term: eetf::Term) -> Result<Term, TermError> {
    let all = |terms: Vec<eetf::Term>| terms.into_iter().map(own).collect::<Result<Vec<_>, _>>();
    let atom = |atom: eetf::Atom| Atom::new(atom.name);
    Ok(match term {
        eetf::Term::Atom(name) => Term::Atom(atom(name)?),
        eetf::Term::FixInteger(number) => Term::Integer(number.value.into()),
        eetf::Term::BigInteger(number) => integer(number.value),
        eetf::Term::Float(number) => {
            Term::Float(Float::new(number.value).ok_or_else(|| TermError::Invalid("a float is not finite".into()))?)
        }
        eetf::Term::Binary(binary) => Term::Binary(binary.bytes),
        eetf::Term::BitBinary(bits) => match bits.tail_bits_size {
            8 => Term::Binary(bits.bytes),
            size => {
                let mut bytes = bits.bytes;
                if let Some(last) = bytes.last_mut() {
                    *last <<= 8 - size;
                }
                Term::BitString(bytes, size)
            }
        },
        eetf::Term::ByteList(bytes) => {
            Term::List(bytes.bytes.into_iter().map(|byte| Term::Integer(byte.into())).collect())
        }
        eetf::Term::List(list) => Term::List(all(list.elements)?),
        eetf::Term::ImproperList(list) => {
            let (mut elements, last) = (all(list.elements)?, own(*list.last)?);
            match last {
                // A list that ends in a list is one list, however it was written.
                Term::List(more) => {
                    elements.extend(more);
                    Term::List(elements)
                }
                Term::ImproperList(more, last) => {
                    elements.extend(more);
                    Term::ImproperList(elements, last)
                }
                // Without elements it is what it ends in.
                last if elements.is_empty() => last,
                last => Term::ImproperList(elements, Box::new(last)),
            }
        }
        eetf::Term::Tuple(tuple) => Term::Tuple(all(tuple.elements)?),
        eetf::Term::Map(map) => {
            let entries = map.map.into_iter().map(|(key, value)| Ok((own(key)?, own(value)?)));
            Term::Map(entries.collect::<Result<_, TermError>>()?)
        }
        eetf::Term::Pid(pid) => {
            Term::Pid(Pid { node: atom(pid.node)?, id: pid.id, serial: pid.serial, creation: pid.creation })
        }
        eetf::Term::Port(port) => Term::Port(Port { node: atom(port.node)?, id: port.id, creation: port.creation }),
        eetf::Term::Reference(reference) => {
            Term::Reference(Reference { node: atom(reference.node)?, id: reference.id, creation: reference.creation })
        }
        eetf::Term::ExternalFun(_) | eetf::Term::InternalFun(_) => {
            return Err(TermError::Unsupported { what: "a function" });
        }
    })
}

/// One of 64 bits has one form only, however many bytes it came in.
fn integer(number: BigInt) -> Term {
    i64::try_from(&number).map_or(Term::BigInteger(number), Term::Integer)
}
