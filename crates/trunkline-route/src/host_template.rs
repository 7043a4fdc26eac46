//! Hosts made from the name of a node.

use std::fmt;
use std::str::FromStr;

use crate::{EndpointError, Host, NodeName};

/// Host in which `{name}` and `{host}` stand for the parts of a node's name, `name@host`.
///
/// ```
/// use trunkline_route::HostTemplate;
///
/// let template: HostTemplate = "_{name}._tcp.{host}".parse()?;
/// assert_eq!(template.of(&"db@shop.example.com".parse()?)?.as_str(), "_db._tcp.shop.example.com");
/// assert!("_trunkline._tcp.{hots}".parse::<HostTemplate>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTemplate(String);

/// Error returned when a text is no [`HostTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostTemplateError {
    /// The text has braces that are no placeholder.
    #[error("{0:?} has braces that are neither {{name}} nor {{host}}")]
    Placeholder(String),
    /// The text is no host, whatever is put in.
    #[error(transparent)]
    Host(#[from] EndpointError),
}

impl HostTemplate {
    /// Returns the host for a node.
    ///
    /// # Errors
    /// [`EndpointError::Host`] if the parts of the node's name make no host, because it is longer than 253 bytes.
    pub fn of(&self, node: &NodeName) -> Result<Host, EndpointError> {
        // The host is put in last: no placeholder in the name counts.
        let parts: Vec<String> = self.0.split("{name}").map(|part| part.replace("{host}", node.host())).collect();
        Host::new(parts.join(node.name()))
    }
}

impl FromStr for HostTemplate {
    type Err = HostTemplateError;

    fn from_str(text: &str) -> Result<Self, HostTemplateError> {
        let filled = text.replace("{name}", "a").replace("{host}", "a");
        if filled.contains(['{', '}']) {
            return Err(HostTemplateError::Placeholder(text.into()));
        }
        Host::new(&filled)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HostTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_host_is_refused() {
        for bad in ["", "{", "{nam}", "a b.{host}", "{host}:1", "a@{host}", &"x".repeat(254)] {
            assert!(bad.parse::<HostTemplate>().is_err(), "{bad}");
        }
        let of = |template: &str, name: &str| template.parse::<HostTemplate>().unwrap().of(&name.parse().unwrap());
        assert!(of("{name}.{host}", &format!("{}@{}", "x".repeat(120), "y".repeat(134))).is_err());
        // A name is put in as it is.
        assert_eq!(of("{name}.{host}", "{host}@h").unwrap().as_str(), "{host}.h");
        assert_eq!(of("x", "db@h").unwrap().as_str(), "x");
    }
}
