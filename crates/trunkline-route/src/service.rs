//! Services that several nodes serve, and the form `@service` that stands for any of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{NameError, NodeName};

/// Longest name of a service, in bytes.
pub const MAX_SERVICE_LEN: usize = 128;

/// Name of a service that any number of nodes serve, such as `postgres`: 1 to 128 bytes of the characters of node names,
/// without `@` and `#`.
///
/// ```
/// use trunkline_route::ServiceName;
///
/// let service: ServiceName = "postgres".parse()?;
/// assert_eq!(service.as_str(), "postgres");
/// assert!("a@b".parse::<ServiceName>().is_err());
/// # Ok::<(), trunkline_route::ServiceNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

/// Error returned when a text is no name of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a service; one has 1 to 128 bytes, without spaces, control and invisible characters, `@` and `#`"
)]
pub struct ServiceNameError(String);

impl ServiceName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`ServiceNameError`] shows the text, cut to 80 characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ServiceNameError> {
        let text = text.as_ref();
        let is_allowed = |c: char| NodeName::can_contain(c) && c != '@' && c != '#';
        match !text.is_empty() && text.len() <= MAX_SERVICE_LEN && text.chars().all(is_allowed) {
            true => Ok(Self(text.into())),
            false => Err(ServiceNameError(text.chars().take(80).collect())),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, ServiceNameError> {
        Self::new(text)
    }
}

/// Service that any of its nodes may answer: `@postgres`, or `@postgres#eu` for those with the tag `eu` alone.
///
/// ```
/// use trunkline_route::AnyOf;
///
/// let any: AnyOf = "@postgres#eu".parse()?;
/// assert_eq!((any.service.as_str(), any.tag.as_deref()), ("postgres", Some("eu")));
/// assert_eq!(any.to_string(), "@postgres#eu");
/// # Ok::<(), trunkline_route::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyOf {
    /// Service.
    pub service: ServiceName,
    /// Tag that a node must have; `None` for any node.
    pub tag: Option<Arc<str>>,
}

impl From<ServiceName> for AnyOf {
    fn from(service: ServiceName) -> Self {
        Self { service, tag: None }
    }
}

impl fmt::Display for AnyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.service)?;
        self.tag.iter().try_for_each(|tag| write!(f, "#{tag}"))
    }
}

impl FromStr for AnyOf {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Service { name: text.chars().take(80).collect() };
        let rest = text.strip_prefix('@').ok_or_else(wrong)?;
        let (service, tag) = rest.split_once('#').map_or((rest, None), |(service, tag)| (service, Some(tag)));
        let service = ServiceName::new(service).map_err(|_| wrong())?;
        // A tag has the form of a service.
        let tag = tag.map(ServiceName::new).transpose().map_err(|_| wrong())?;
        Ok(Self { service, tag: tag.map(|tag| tag.0) })
    }
}

/// Node, or any node that serves a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One node.
    Node(NodeName),
    /// Any node that serves the service.
    Any(AnyOf),
}

impl Target {
    /// Returns the name, if the target is one node.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(name) => Some(name),
            Self::Any(_) => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.pad(name.as_str()),
            Self::Any(any) => f.pad(&any.to_string()),
        }
    }
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.starts_with('@') { Ok(Self::Any(text.parse()?)) } else { Ok(Self::Node(text.parse()?)) }
    }
}

impl TryFrom<&str> for Target {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for Target {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl TryFrom<&String> for Target {
    type Error = NameError;

    fn try_from(text: &String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeName> for Target {
    fn from(name: NodeName) -> Self {
        Self::Node(name)
    }
}

impl From<&NodeName> for Target {
    fn from(name: &NodeName) -> Self {
        Self::Node(name.clone())
    }
}

impl From<AnyOf> for Target {
    fn from(any: AnyOf) -> Self {
        Self::Any(any)
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// Argument that stands for a node or for any node that serves a service: a name, a target, or a text that is checked.
///
/// ```
/// use trunkline_route::{IntoTarget, NameError, NodeName, Target};
///
/// fn is_service(target: impl IntoTarget) -> Result<bool, NameError> {
///     Ok(matches!(target.into_target()?, Target::Any(_)))
/// }
///
/// assert!(is_service("@postgres")?);
/// assert!(!is_service("db@lab")? && !is_service(&NodeName::new("db@lab")?)?);
/// assert!(is_service("@").is_err());
/// # Ok::<(), NameError>(())
/// ```
pub trait IntoTarget {
    /// Returns the target.
    ///
    /// # Errors
    /// [`NameError`] when a text is neither a name nor a service.
    fn into_target(self) -> Result<Target, NameError>;
}

impl<T: TryInto<Target, Error: Into<NameError>>> IntoTarget for T {
    fn into_target(self) -> Result<Target, NameError> {
        self.try_into().map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_node_or_a_service_and_is_shown_as_it_was_written() {
        for text in ["db@lab", "@postgres", "@postgres#eu"] {
            assert_eq!(Target::try_from(text).unwrap().to_string(), text);
        }
        let long = format!("@{}", "x".repeat(MAX_SERVICE_LEN + 1));
        for text in ["", "db", "@", "@a@b", "@a#", "@a#b#c", "@#eu", "@a b", "@a\u{200b}", &long] {
            assert!(Target::try_from(text).is_err(), "{text}");
        }
        let error = Target::try_from("@a b").unwrap_err().to_string();
        assert!(error.contains("\"@a b\" is no service"), "{error}");
    }
}
