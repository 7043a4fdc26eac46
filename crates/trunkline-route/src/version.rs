use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A handshake version, written `NAME/NUMBER`: the native link's first is `TLK/1`.
///
/// ```
/// use trunkline_route::Version;
///
/// let version: Version = "TLK/1".parse()?;
/// assert_eq!(version, Version::native(1));
/// # Ok::<(), trunkline_route::VersionError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    protocol: Arc<str>,
    number: u16,
}

impl Version {
    /// A version from its parts.
    ///
    /// # Errors
    /// [`VersionError`] unless the protocol is 1 to 16 upper-case ASCII letters or digits.
    pub fn new(protocol: &str, number: u16) -> Result<Self, VersionError> {
        let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        if protocol.is_empty() || protocol.len() > 16 || !protocol.chars().all(legal) {
            return Err(VersionError { text: format!("{protocol}/{number}") });
        }
        Ok(Self { protocol: protocol.into(), number })
    }

    /// The version `number` of the native link.
    pub fn native(number: u16) -> Self {
        Self { protocol: "TLK".into(), number }
    }

    /// The protocol: `TLK` for the native link.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.number)
    }
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError { text: text.chars().take(40).collect() };
        let (protocol, number) = text.split_once('/').ok_or_else(error)?;
        Self::new(protocol, number.parse().map_err(|_| error())?).map_err(|_| error())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no handshake version; write it as NAME/NUMBER, for example TLK/1")]
pub struct VersionError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_as_it_prints() {
        let version: Version = "TLK/1".parse().unwrap();
        assert_eq!(version, Version::native(1));
        assert_eq!(version.to_string(), "TLK/1");
        for bad in ["TLK", "tlk/1", "TLK/x", "/1", "TLK/70000"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
