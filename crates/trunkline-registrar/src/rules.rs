//! Rules of a registrar: which names, gateways and services may be announced, and by whom.

use trunkline_matcher::AccessPattern;

use crate::Registration;

/// Permission to announce. Without any rule, whoever is let in may announce anything.
///
/// ```
/// use trunkline_matcher::AccessPattern;
/// use trunkline_registrar::{Registration, Rule, permits};
///
/// let rule = Rule { gateways: vec!["db@internal".into()], ..Rule::new(AccessPattern::new("gate-[0-9]+@.*")?) };
/// let node = |name: &str| Ok::<_, trunkline_route::NameError>(Registration::new(name.parse()?, Vec::new()));
/// assert!(permits(&[rule.clone()], &node("gate-1@dmz")?, "").is_ok());
/// let error = permits(&[rule.clone()], &node("db@dmz")?, "").unwrap_err();
/// assert_eq!(error.to_string(), "no rule of the registrar lets this node have the name db@dmz");
/// let anything = node("gate-1@dmz")?.leading_to(vec![AccessPattern::new(".*")?]);
/// assert!(permits(&[rule], &anything, "").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names that may be announced; the pattern matches the whole name.
    pub names: AccessPattern,
    /// Label of the cookie that the announcing node has to prove; `None` for any cookie that is accepted.
    pub cookie: Option<String>,
    /// Patterns that such a node may announce as the names to which it leads, each as it is written there. Default: none.
    pub gateways: Vec<String>,
    /// Services that such a node may announce. `None`, the default, for any.
    pub services: Option<Vec<String>>,
}

impl Rule {
    /// Returns a rule that lets anybody announce these names, with any services, and no gateway.
    pub fn new(names: AccessPattern) -> Self {
        Self { names, cookie: None, gateways: Vec::new(), services: None }
    }
}

/// Error returned when the rules do not permit an announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Forbidden {
    /// No rule is for the name.
    #[error("no rule of the registrar lets this node have the name {0}")]
    Name(String),
    /// No rule for the name permits the gateway.
    #[error("no rule of the registrar lets {name} lead to {pattern} as a gateway")]
    Gateway {
        /// Name of the node.
        name: String,
        /// Pattern of the names to which it leads.
        pattern: String,
    },
    /// No rule for the name permits the service.
    #[error("no rule of the registrar lets {name} serve {service}")]
    Service {
        /// Name of the node.
        name: String,
        /// Name of the service.
        service: String,
    },
}

/// Checks an announcement by a node that proved the cookie with this label. What one rule does not permit, another one may.
///
/// # Errors
/// [`Forbidden`] names the first thing that no rule permits.
pub fn permits(rules: &[Rule], node: &Registration, cookie: &str) -> Result<(), Forbidden> {
    if rules.is_empty() {
        return Ok(());
    }
    let name = node.name.as_str();
    let is_for = |rule: &&Rule| rule.names.is_match(name) && rule.cookie.as_ref().is_none_or(|label| *label == cookie);
    let rules: Vec<&Rule> = rules.iter().filter(is_for).collect();
    if rules.is_empty() {
        return Err(Forbidden::Name(name.to_owned()));
    }
    for pattern in &node.leads_to {
        if !rules.iter().any(|rule| rule.gateways.iter().any(|permitted| *permitted == pattern.as_str())) {
            return Err(Forbidden::Gateway { name: name.to_owned(), pattern: pattern.as_str().to_owned() });
        }
    }
    for offer in &node.offers {
        let permitted = |rule: &&Rule| match &rule.services {
            None => true,
            Some(services) => services.iter().any(|service| service == offer.service.as_str()),
        };
        if !rules.iter().any(permitted) {
            return Err(Forbidden::Service { name: name.to_owned(), service: offer.service.to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offer;

    fn pattern(text: &str) -> AccessPattern {
        AccessPattern::new(text).unwrap()
    }

    #[test]
    fn each_thing_has_to_be_permitted_by_some_rule_for_the_name_and_the_cookie() {
        let node = || Registration::new("db@lab".parse().unwrap(), Vec::new());
        assert_eq!(permits(&[], &node().leading_to(vec![pattern(".*")]), ""), Ok(()));
        let rules = [
            Rule { cookie: Some("dbs".into()), services: Some(vec!["pg".into()]), ..Rule::new(pattern("db@.*")) },
            Rule { gateways: vec!["x@.*".into()], services: Some(Vec::new()), ..Rule::new(pattern("db@lab")) },
        ];
        let offering = |service: &str| node().offering(vec![Offer::new(service.parse().unwrap())]);
        assert_eq!(permits(&rules, &offering("pg"), "dbs"), Ok(()));
        assert!(matches!(permits(&rules, &offering("pg"), ""), Err(Forbidden::Service { .. })), "of another cookie");
        assert!(matches!(permits(&rules, &offering("other"), "dbs"), Err(Forbidden::Service { .. })));
        assert_eq!(permits(&rules, &node().leading_to(vec![pattern("x@.*")]), ""), Ok(()));
        let other = node().leading_to(vec![pattern("x@.*"), pattern("y@.*")]);
        assert!(matches!(permits(&rules, &other, "dbs"), Err(Forbidden::Gateway { pattern, .. }) if pattern == "y@.*"));
        assert!(matches!(permits(&rules[..1], &node(), "other"), Err(Forbidden::Name(_))));
    }
}
