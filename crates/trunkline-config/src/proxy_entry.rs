//! A proxy route as it is added to a running node, and to its file.

use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};
use trunkline_matcher::RoutePattern;
use trunkline_route::{DEFAULT_WEIGHT, ProxyRoute};

use crate::route::{FlagsEntry, RouteContext, RouteEntry};

/// A proxy route in the words of a configuration, flat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyEntry {
    /// The pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Its weight. Default 100.
    #[serde(default)]
    pub weight: Option<i64>,
    /// The gateway.
    pub proxy: String,
    /// Only for this name.
    #[serde(default)]
    pub to: Option<String>,
    /// Through at most so many gateways. Default 8.
    #[serde(default)]
    pub max_hop: Option<u8>,
    /// `first` (default), `never` or `only`.
    #[serde(default)]
    pub direct: Option<String>,
    /// What proves this node to the gateway; never shown. Default: what the routes to it say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_file: Option<String>,
    /// What proves it to the final node (`cookie_file` under `target`); never shown. Default: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_cookie_file: Option<String>,
    /// Whether the final node's certificate is checked (`tls` under `target`). Default: the node's.
    #[serde(default)]
    pub target_tls: Option<bool>,
    /// With what (`tls_profile` under `target`).
    #[serde(default)]
    pub target_tls_profile: Option<String>,
    /// What is offered to the final node, and required of it (`flags` under `target`). Default: the node's.
    #[serde(default)]
    pub target_flags: Option<FlagsEntry>,
}

impl ProxyEntry {
    /// Checks everything and gives what the table takes. Reads the files that are named.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn to_route(&self, context: &RouteContext<'_>) -> Result<(RoutePattern, i64, ProxyRoute), String> {
        let bad = |field: &str, error: &dyn std::fmt::Display| format!("{field}: {error}");
        let gateway = self.proxy.parse().map_err(|e| bad("proxy", &e))?;
        let entry = RouteEntry { port: Some(1), ..RouteEntry::new(&self.pattern) };
        let to_gateway = RouteEntry { cookie_file: self.cookie_file.clone(), ..entry.clone() };
        let target = RouteEntry {
            cookie_file: self.target_cookie_file.clone(),
            tls: self.target_tls,
            tls_profile: self.target_tls_profile.clone(),
            flags: self.target_flags.clone(),
            ..entry
        };
        let (pattern, _, to_gateway) = to_gateway.to_route(context).map_err(|e| e.to_string())?;
        let (_, _, target) = target.to_route(context).map_err(|e| e.to_string())?;
        let mut route = ProxyRoute::via(gateway).target(target);
        if let Some(cookie) = to_gateway.cookie() {
            route = route.cookie(cookie.clone());
        }
        if let Some(to) = &self.to {
            route = route.to(to.parse().map_err(|e| bad("to", &e))?);
        }
        if let Some(most) = self.max_hop {
            let most = NonZeroU8::new(most).filter(|most| most.get() <= 16);
            route = route.max_hop(most.ok_or_else(|| bad("max_hop", &"it is a number from 1 to 16"))?);
        }
        if let Some(direct) = &self.direct {
            route = route.direct(direct.parse().map_err(|e| bad("direct", &e))?);
        }
        Ok((pattern, self.weight.unwrap_or(DEFAULT_WEIGHT), route))
    }
}
