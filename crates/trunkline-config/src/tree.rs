//! YAML text as a tree in which each part knows where it came from.
//!
//! One tree holds the file, the environment and the command line. The layers are merged before any value is
//! interpreted, and later problems still name the line they are about. The editor uses the byte offsets stored here.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Layer that a part of the tree belongs to; a later variant overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    File,
    Environment,
    CommandLine,
}

/// Source of a text, as shown in messages.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) layer: Layer,
    /// Name of the file, `environment variable NAME` or `--set PATH`.
    pub(crate) label: Arc<str>,
}

impl Origin {
    pub(crate) fn file(name: &str) -> Self {
        Self { layer: Layer::File, label: name.into() }
    }
}

/// Position in a text: line and column from 1, and the byte range of the token.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) origin: Origin,
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// True if only an alias is at this place and its content is elsewhere.
    pub(crate) alias: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: At,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

impl Node {
    pub(crate) fn null(at: At) -> Self {
        Self { value: Value::Null, at }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Returns the value under a key, if this node is a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key),
            _ => None,
        }
    }

    /// Returns the type of the value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a fraction",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Returns true if the content is equal, regardless of positions.
    pub(crate) fn same(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k.text == l.text && a.same(b))
            }
            _ => false,
        }
    }
}

/// Error returned when a text is not YAML; contains none of its content.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Malformed {
    pub(crate) message: String,
    pub(crate) line: Option<(u64, u64)>,
}

/// Maximum number of nodes in a text, enough for a hundred thousand routes of seven keys each.
const MAX_NODES: usize = 2_000_000;

/// Parses one YAML document. An empty one is [`Value::Null`].
pub(crate) fn parse(text: &str, origin: &Origin) -> Result<Node, Malformed> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(spanned) => Ok(node(spanned, origin)),
        Err(error) => {
            let error = error.without_snippet();
            let line = error.location().map(|l| (l.line(), l.column())).filter(|(line, _)| *line > 0);
            Err(Malformed { message: message(error), line })
        }
    }
}

fn message(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{key}` occurs twice in one mapping; remove one of them")
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "the file has more than one YAML document; remove everything from the second `---` on".to_owned()
        }
        other => {
            let text = other.to_string();
            let mut cut = text.find(" at line ").unwrap_or(text.len());
            // Messages of the parser itself contain no input; all others quote the text they are about, so they are
            // cut.
            if !matches!(other, serde_saphyr::Error::ExternalMessage { .. }) {
                cut = cut.min(text.find(['`', '"', '\'']).unwrap_or(cut));
            }
            format!("not well-formed YAML: {}", text[..cut].trim_end_matches([':', ' ', '\n']))
        }
    }
}

enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn at(referenced: serde_saphyr::Location, defined: serde_saphyr::Location, origin: &Origin) -> At {
    let offset = referenced.span().byte_offset().unwrap_or(0) as usize;
    let len = referenced.span().byte_len().unwrap_or(0) as usize;
    At {
        origin: origin.clone(),
        line: referenced.line(),
        column: referenced.column(),
        start: offset,
        end: offset + len,
        alias: referenced != defined,
    }
}

fn node(spanned: Spanned<Raw>, origin: &Origin) -> Node {
    let value = match spanned.value {
        Raw::Null => Value::Null,
        Raw::Bool(b) => Value::Bool(b),
        Raw::Int(i) => Value::Int(i),
        Raw::Float(f) => Value::Float(f),
        Raw::Text(t) => Value::Text(t),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, origin)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = at(key.referenced, key.defined, origin);
                    (Key { text: key.value, at }, node(value, origin))
                })
                .collect(),
        ),
    };
    Node { value, at: at(spanned.referenced, spanned.defined, origin) }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(i128::try_from(value).map_or(Raw::Float(value as f64), Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
