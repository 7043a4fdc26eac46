use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest node name in bytes, host part and `@` included; the same bound as Erlang's atoms have.
pub const MAX_NAME_LEN: usize = 255;

/// The name of a node: `name@host`, both parts non-empty, at most 255 bytes, compared byte for byte.
///
/// A name shows all of its characters: white space, control characters and characters that are invisible or change the
/// direction of the text are refused ([`NodeName::can_contain`]), since two different names could look the same.
///
/// Cloning is cheap (a shared string). The host part is where the node's registrar is asked by default; it is
/// an IP address (IPv6 with or without brackets) or a host name, and is not checked further here.
///
/// ```
/// use trunkline_route::NodeName;
///
/// let name: NodeName = "prod-db@example.com".parse()?;
/// assert_eq!((name.name(), name.host()), ("prod-db", "example.com"));
/// assert!("prod-db".parse::<NodeName>().is_err());
/// # Ok::<(), trunkline_route::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong and names the text.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        let shown = || text.chars().take(80).collect::<String>();
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_LEN {
            return Err(NameError::TooLong { len: text.len(), starts: shown() });
        }
        if let Some(c) = text.chars().find(|c| !Self::can_contain(*c)) {
            return Err(NameError::Character { name: shown(), character: c });
        }
        match text.split_once('@') {
            Some((name, host)) if !name.is_empty() && !host.is_empty() && !host.contains('@') => Ok(Self(text.into())),
            _ => Err(NameError::Form { name: shown() }),
        }
    }

    /// Takes `name@host` as it is and completes a bare `name` with this host.
    ///
    /// # Errors
    /// As [`NodeName::new`].
    pub fn with_default_host(text: &str, host: &str) -> Result<Self, NameError> {
        if text.contains('@') || text.is_empty() { Self::new(text) } else { Self::new(format!("{text}@{host}")) }
    }

    /// Returns true if a node name may contain the character: any that is not white space, not a control character, and
    /// not invisible by Unicode's property `Default_Ignorable_Code_Point`, which includes the characters that change the
    /// direction of text (`Bidi_Control`).
    pub fn can_contain(c: char) -> bool {
        match c.is_ascii() {
            true => c.is_ascii_graphic(),
            false => !c.is_whitespace() && !c.is_control() && !is_invisible(c),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    pub fn name(&self) -> &str {
        self.0.split_once('@').map_or("", |(name, _)| name)
    }

    /// The part after the `@`, without the brackets of an IPv6 literal.
    pub fn host(&self) -> &str {
        let host = self.0.split_once('@').map_or("", |(_, host)| host);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }
}

/// Returns a text from elsewhere as it may be logged or shown on a line: control characters and invisible ones, which
/// include those that change the direction of text, become U+FFFD.
///
/// ```
/// use trunkline_route::printable;
///
/// assert_eq!(printable("no such\nservice"), "no such\u{fffd}service");
/// assert_eq!(printable("\u{202e}lla si llew"), "\u{fffd}lla si llew");
/// ```
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Returns true for the code points of `Default_Ignorable_Code_Point` in Unicode 17: zero-width spaces and joiners, bidi
/// controls, variation selectors, fillers and tags. The ranges include the code points that the standard keeps free for
/// more of them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for NodeName {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<&Self> for NodeName {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl From<std::convert::Infallible> for NameError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Argument that stands for a node's name: a name, or a text that is checked.
///
/// ```
/// use trunkline_route::{IntoName, NameError, NodeName};
///
/// fn host(name: impl IntoName) -> Result<String, NameError> {
///     Ok(name.into_name()?.host().to_owned())
/// }
///
/// assert_eq!(host("db@lab")?, "lab");
/// assert_eq!(host(&NodeName::new("db@lab")?)?, "lab");
/// assert!(host("no name").is_err());
/// # Ok::<(), NameError>(())
/// ```
pub trait IntoName {
    /// Returns the name.
    ///
    /// # Errors
    /// [`NameError`] when a text is no name.
    fn into_name(self) -> Result<NodeName, NameError>;
}

impl<T: TryInto<NodeName, Error: Into<NameError>>> IntoName for T {
    fn into_name(self) -> Result<NodeName, NameError> {
        self.try_into().map_err(Into::into)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for NodeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for NodeName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Error returned when a text is not a node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// White space, a control character or an invisible one.
    #[error(
        "the node name {name:?} contains {character:?} (U+{:04X}); white space, control characters and invisible \
         characters are not allowed", u32::from(*.character)
    )]
    Character {
        /// The text, cut to 80 characters.
        name: String,
        /// The offending character.
        character: char,
    },
    /// The text is empty.
    #[error("the node name is empty; write it as name@host, for example app@127.0.0.1")]
    Empty,
    /// Not `name@host`.
    #[error("{name:?} is no node name; write it as name@host with exactly one '@', for example app@127.0.0.1")]
    Form {
        /// The text, cut to 80 characters.
        name: String,
    },
    /// Begins with `@`, and is no service.
    #[error("{name:?} is no service; write @SERVICE, or @SERVICE#TAG for the nodes with a tag, without spaces")]
    Service {
        /// The text, cut to 80 characters.
        name: String,
    },
    /// More than [`MAX_NAME_LEN`] bytes.
    #[error("the node name that starts {starts:?} has {len} bytes; at most 255 are allowed")]
    TooLong {
        /// Number of bytes.
        len: usize,
        /// The first 80 characters.
        starts: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_parts() {
        let name = NodeName::new("prod-db@example.com").unwrap();
        assert_eq!((name.name(), name.host()), ("prod-db", "example.com"));
        assert_eq!(NodeName::new("a@[::1]").unwrap().host(), "::1");
        assert_eq!(NodeName::new("a@::1").unwrap().host(), "::1");
    }

    #[test]
    fn half_names_are_refused() {
        for bad in ["prod", "@host", "name@", "a@b@c", "a b@c", "a@b\n"] {
            assert!(NodeName::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(NodeName::new(""), Err(NameError::Empty));
    }

    #[test]
    fn names_that_only_look_like_another_are_refused() {
        for c in
            ["\u{202e}", "\u{2066}", "\u{200b}", "\u{200d}", "\u{feff}", "\u{ad}", "\u{fe0f}", "\u{e0041}", "\u{3164}"]
        {
            for name in [format!("d{c}b@host"), format!("db@ho{c}st"), format!("{c}db@host")] {
                let error = NodeName::new(&name).unwrap_err();
                assert_eq!(error, NameError::Character { name, character: c.chars().next().unwrap() });
                assert!(error.to_string().contains("(U+"), "the character is shown as its number: {error}");
            }
        }
        for name in ["d\u{f6}b@h", "\u{65e5}\u{672c}@h", "\u{5d0}@h", "\u{1f980}@h", "a\u{301}@h"] {
            assert!(NodeName::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_longest_name_has_255_bytes() {
        let host = "h".repeat(MAX_NAME_LEN - 2);
        assert!(NodeName::new(format!("a@{host}")).is_ok());
        assert!(matches!(NodeName::new(format!("ab@{host}")), Err(NameError::TooLong { len: 256, .. })));
    }

    #[test]
    fn a_bare_name_gets_this_host() {
        assert_eq!(NodeName::with_default_host("Node1", "10.0.0.1").unwrap().as_str(), "Node1@10.0.0.1");
        assert_eq!(NodeName::with_default_host("a@b", "c").unwrap().as_str(), "a@b");
    }
}
