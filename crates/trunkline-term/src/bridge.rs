//! Values of Rust as terms and back, by serde.

use std::collections::BTreeMap;
use std::fmt;

use num_bigint::BigInt;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer, de, forward_to_deserialize_any, ser};

use crate::{Float, Term, TermError};

/// The atom for what is not there.
const UNDEFINED: &str = "undefined";

/// The value as a term.
///
/// | Rust | term |
/// | --- | --- |
/// | `bool` | the atom `true` or `false` |
/// | numbers | integers of any size, finite floats |
/// | text, `char`, bytes (`serialize_bytes`) | a binary |
/// | `()`, `None` | the atom `undefined`; `Some(value)` is the value |
/// | sequences | a list |
/// | tuples, tuple structs | a tuple |
/// | maps | a map |
/// | structs | a map whose keys are atoms |
/// | unit structs, unit variants | an atom |
/// | other variants | a tuple: the atom, then what it holds (for named fields, one map) |
///
/// # Errors
/// [`TermError`] for a number that is not finite, a name that is no atom, and whatever the type itself refuses.
///
/// # Example
/// ```
/// use trunkline_term::{Term, to_term};
///
/// assert_eq!(to_term(&("index", Some(7)))?, Term::tuple([Term::from("index"), Term::from(7)]));
/// assert_eq!(to_term(&None::<u8>)?, Term::atom("undefined")?);
/// # Ok::<(), trunkline_term::TermError>(())
/// ```
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Term, TermError> {
    value.serialize(Writer)
}

/// The value that [`to_term`] makes this term of. Atoms are also taken as text, `nil` as `undefined`, and binaries as
/// keys of structs. Recurses as deep as the term.
///
/// # Errors
/// [`TermError::Type`] when the term is of another shape, or has a pid, port, reference, bit string or improper list.
///
/// # Example
/// ```
/// use trunkline_term::{Term, from_term};
///
/// let term = Term::tuple([Term::from("index"), Term::from(7)]);
/// let (job, priority): (String, u8) = from_term(&term)?;
/// assert_eq!((job.as_str(), priority), ("index", 7));
/// assert!(from_term::<String>(&term).is_err());
/// # Ok::<(), trunkline_term::TermError>(())
/// ```
pub fn from_term<T: DeserializeOwned>(term: &Term) -> Result<T, TermError> {
    T::deserialize(Reader(term))
}

impl ser::Error for TermError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Type(message.to_string())
    }
}

impl de::Error for TermError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Type(message.to_string())
    }
}

struct Writer;

fn integer(number: impl Into<BigInt> + TryInto<i64> + Copy) -> Term {
    number.try_into().map_or_else(|_| Term::BigInteger(number.into()), Term::Integer)
}

impl Serializer for Writer {
    type Ok = Term;
    type Error = TermError;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Entries;

    fn serialize_bool(self, v: bool) -> Result<Term, TermError> {
        Term::atom(if v { "true" } else { "false" })
    }
    fn serialize_i8(self, v: i8) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_i16(self, v: i16) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_i32(self, v: i32) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_i64(self, v: i64) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_i128(self, v: i128) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_u8(self, v: u8) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_u16(self, v: u16) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_u32(self, v: u32) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_u64(self, v: u64) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_u128(self, v: u128) -> Result<Term, TermError> {
        Ok(integer(v))
    }
    fn serialize_f32(self, v: f32) -> Result<Term, TermError> {
        self.serialize_f64(v.into())
    }
    fn serialize_f64(self, v: f64) -> Result<Term, TermError> {
        Float::new(v).map(Term::Float).ok_or_else(|| TermError::Type(format!("{v} is no finite number")))
    }
    fn serialize_char(self, v: char) -> Result<Term, TermError> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, v: &str) -> Result<Term, TermError> {
        Ok(v.into())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<Term, TermError> {
        Ok(Term::Binary(v.to_vec()))
    }
    fn serialize_none(self) -> Result<Term, TermError> {
        Term::atom(UNDEFINED)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Term, TermError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Term, TermError> {
        Term::atom(UNDEFINED)
    }
    fn serialize_unit_struct(self, name: &'static str) -> Result<Term, TermError> {
        Term::atom(name)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Term, TermError> {
        Term::atom(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Term, TermError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Term, TermError> {
        Ok(Term::Tuple(vec![Term::atom(variant)?, value.serialize(Self)?]))
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Elements, TermError> {
        Ok(Elements { whole: Term::List, terms: Vec::new() })
    }
    fn serialize_tuple(self, _: usize) -> Result<Elements, TermError> {
        Ok(Elements { whole: Term::Tuple, terms: Vec::new() })
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Elements, TermError> {
        self.serialize_tuple(len)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Elements, TermError> {
        Ok(Elements { whole: Term::Tuple, terms: vec![Term::atom(variant)?] })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Entries, TermError> {
        Ok(Entries::default())
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, TermError> {
        Ok(Entries::default())
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Entries, TermError> {
        Ok(Entries { variant: Some(Term::atom(variant)?), ..Entries::default() })
    }
}

/// A list or tuple under way.
struct Elements {
    whole: fn(Vec<Term>) -> Term,
    terms: Vec<Term>,
}

macro_rules! elements {
    ($($of:ident: $put:ident),*) => {$(
        impl ser::$of for Elements {
            type Ok = Term;
            type Error = TermError;
            fn $put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
                self.terms.push(to_term(value)?);
                Ok(())
            }
            fn end(self) -> Result<Term, TermError> {
                Ok((self.whole)(self.terms))
            }
        }
    )*};
}

elements!(SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field);

/// A map under way.
#[derive(Default)]
struct Entries {
    variant: Option<Term>,
    key: Option<Term>,
    entries: BTreeMap<Term, Term>,
}

impl Entries {
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TermError> {
        self.entries.insert(Term::atom(key)?, to_term(value)?);
        Ok(())
    }

    fn whole(self) -> Term {
        let map = Term::Map(self.entries);
        match self.variant {
            Some(variant) => Term::Tuple(vec![variant, map]),
            None => map,
        }
    }
}

impl ser::SerializeMap for Entries {
    type Ok = Term;
    type Error = TermError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), TermError> {
        self.key = Some(to_term(key)?);
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TermError> {
        let key = self.key.take().ok_or_else(|| TermError::Type("a value comes before its key".into()))?;
        self.entries.insert(key, to_term(value)?);
        Ok(())
    }
    fn end(self) -> Result<Term, TermError> {
        Ok(self.whole())
    }
}

impl ser::SerializeStruct for Entries {
    type Ok = Term;
    type Error = TermError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TermError> {
        self.field(key, value)
    }
    fn end(self) -> Result<Term, TermError> {
        Ok(self.whole())
    }
}

impl ser::SerializeStructVariant for Entries {
    type Ok = Term;
    type Error = TermError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TermError> {
        self.field(key, value)
    }
    fn end(self) -> Result<Term, TermError> {
        Ok(self.whole())
    }
}

#[derive(Clone, Copy)]
struct Reader<'t>(&'t Term);

impl<'t> Reader<'t> {
    fn text(self) -> Option<&'t str> {
        match self.0 {
            Term::Atom(atom) => Some(atom.as_str()),
            other => other.as_text(),
        }
    }

    fn is_undefined(self) -> bool {
        matches!(self.0, Term::Atom(atom) if matches!(atom.as_str(), UNDEFINED | "nil"))
    }
}

impl<'t> IntoDeserializer<'t, TermError> for Reader<'t> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

fn each<'t, V: Visitor<'t>>(terms: &'t [Term], visitor: V) -> Result<V::Value, TermError> {
    let mut seq = SeqDeserializer::new(terms.iter().map(Reader));
    let value = visitor.visit_seq(&mut seq)?;
    seq.end()?;
    Ok(value)
}

impl<'t> Deserializer<'t> for Reader<'t> {
    type Error = TermError;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        match self.0 {
            Term::Atom(atom) => match atom.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                _ if self.is_undefined() => visitor.visit_unit(),
                text => visitor.visit_str(text),
            },
            Term::Integer(number) => visitor.visit_i64(*number),
            Term::BigInteger(number) => match (u64::try_from(number), i128::try_from(number), u128::try_from(number)) {
                (Ok(number), ..) => visitor.visit_u64(number),
                (_, Ok(number), _) => visitor.visit_i128(number),
                (.., Ok(number)) => visitor.visit_u128(number),
                _ => Err(TermError::Type(format!("an integer of {} bits is too large", number.bits()))),
            },
            Term::Float(number) => visitor.visit_f64(number.get()),
            Term::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_str(text),
                Err(_) => visitor.visit_bytes(bytes),
            },
            Term::List(terms) | Term::Tuple(terms) => each(terms, visitor),
            Term::Map(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(|(key, value)| (Reader(key), Reader(value)))))
            }
            Term::BitString(..) => Err(no_value("a bit string")),
            Term::ImproperList(..) => Err(no_value("an improper list")),
            Term::Pid(_) => Err(no_value("a pid")),
            Term::Port(_) => Err(no_value("a port")),
            Term::Reference(_) => Err(no_value("a reference")),
        }
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        if self.is_undefined() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        match self.0 {
            Term::Binary(bytes) => visitor.visit_bytes(bytes),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'t>>(self, name: &'static str, visitor: V) -> Result<V::Value, TermError> {
        match self.0 {
            Term::Atom(atom) if atom.as_str() == name => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, TermError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TermError> {
        let (variant, rest) = match self.0 {
            Term::Tuple(terms) => terms.split_first().ok_or_else(|| no_variant(name))?,
            _ => (self.0, &[][..]),
        };
        Reader(variant).text().ok_or_else(|| no_variant(name))?;
        visitor.visit_enum(Variant { name: Reader(variant), rest })
    }

    fn deserialize_ignored_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, TermError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 unit seq tuple tuple_struct map struct
    }
}

fn no_value(what: &str) -> TermError {
    TermError::Type(format!("{what} has no counterpart; take it as a `Term`"))
}

fn no_variant(of: &str) -> TermError {
    TermError::Type(format!("a variant of {of} is an atom, or a tuple that begins with one"))
}

struct Variant<'t> {
    name: Reader<'t>,
    rest: &'t [Term],
}

impl<'t> Variant<'t> {
    fn only(&self) -> Result<Reader<'t>, TermError> {
        match self.rest {
            [only] => Ok(Reader(only)),
            _ => Err(de::Error::invalid_length(self.rest.len(), &"one term behind the variant's name")),
        }
    }
}

impl<'t> EnumAccess<'t> for Variant<'t> {
    type Error = TermError;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<(S::Value, Self), TermError> {
        Ok((seed.deserialize(self.name)?, self))
    }
}

impl<'t> VariantAccess<'t> for Variant<'t> {
    type Error = TermError;
    fn unit_variant(self) -> Result<(), TermError> {
        if self.rest.is_empty() { Ok(()) } else { Err(de::Error::invalid_length(self.rest.len(), &"a lone atom")) }
    }
    fn newtype_variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<S::Value, TermError> {
        seed.deserialize(self.only()?)
    }
    fn tuple_variant<V: Visitor<'t>>(self, _: usize, visitor: V) -> Result<V::Value, TermError> {
        each(self.rest, visitor)
    }
    fn struct_variant<V: Visitor<'t>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, TermError> {
        self.only()?.deserialize_any(visitor)
    }
}
