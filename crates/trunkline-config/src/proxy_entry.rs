//! Proxy route as the admin interface and the file editor receive it.

use std::num::NonZeroU8;

use serde::{Deserialize, Serialize};
use trunkline_matcher::RoutePattern;
use trunkline_route::{DEFAULT_WEIGHT, DirectUse, NodeName, ProxyRoute};

use crate::error::{BoxError, FieldProblem, RouteError};
use crate::route::{FlagsEntry, RouteContext, RouteEntry};

/// Proxy route with the keys of the configuration, in one flat structure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyEntry {
    /// Pattern of node names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Weight of the route; higher weights are tried first. Default: 100.
    #[serde(default)]
    pub weight: Option<i64>,
    /// Name of the gateway.
    pub proxy: String,
    /// Name of the target node, if the route is for that node alone (`to`).
    #[serde(default)]
    pub to: Option<String>,
    /// Maximum number of gateways on the way. Default: 8.
    #[serde(default)]
    pub max_hop: Option<u8>,
    /// Use of direct routes to the target: `first` (default), `never` or `only`.
    #[serde(default)]
    pub direct: Option<String>,
    /// File with the cookie for the gateway; never shown. Default: the cookie of the routes to the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_file: Option<String>,
    /// File with the cookie for the target node (`cookie_file` under `target`); never shown. Default: the node's
    /// cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_cookie_file: Option<String>,
    /// True if the target node's certificate is verified (`tls` under `target`). Default: the node's setting.
    #[serde(default)]
    pub target_tls: Option<bool>,
    /// TLS profile for that check (`tls_profile` under `target`).
    #[serde(default)]
    pub target_tls_profile: Option<String>,
    /// Flags offered to the target node and required of it (`flags` under `target`). Default: the node's flags.
    #[serde(default)]
    pub target_flags: Option<FlagsEntry>,
}

impl ProxyEntry {
    /// Validates the entry and returns the pattern, weight and route. Reads the files that are named.
    ///
    /// # Errors
    /// [`RouteError`] names the field and what is wrong with it.
    pub fn to_route(&self, context: &RouteContext<'_>) -> Result<(RoutePattern, i64, ProxyRoute), RouteError> {
        fn bad(field: &str, error: impl Into<BoxError>) -> RouteError {
            RouteError::new(vec![FieldProblem::new(field, error)])
        }
        let gateway = self.proxy.parse::<NodeName>().map_err(|e| bad("proxy", e))?;
        let entry = RouteEntry { port: Some(1), ..RouteEntry::new(&self.pattern) };
        let to_gateway = RouteEntry { cookie_file: self.cookie_file.clone(), ..entry.clone() };
        let target = RouteEntry {
            cookie_file: self.target_cookie_file.clone(),
            tls: self.target_tls,
            tls_profile: self.target_tls_profile.clone(),
            flags: self.target_flags.clone(),
            ..entry
        };
        let (pattern, _, to_gateway) = to_gateway.to_route(context)?;
        let (_, _, target) = target.to_route(context)?;
        let mut route = ProxyRoute::via(gateway).target(target);
        if let Some(cookie) = to_gateway.cookie() {
            route = route.cookie(cookie.clone());
        }
        if let Some(to) = &self.to {
            route = route.to(to.parse::<NodeName>().map_err(|e| bad("to", e))?);
        }
        if let Some(most) = self.max_hop {
            let most = NonZeroU8::new(most).filter(|most| most.get() <= 16);
            route = route.max_hop(most.ok_or_else(|| bad("max_hop", "write a number from 1 to 16"))?);
        }
        if let Some(direct) = &self.direct {
            route = route.direct(direct.parse::<DirectUse>().map_err(|e| bad("direct", e))?);
        }
        Ok((pattern, self.weight.unwrap_or(DEFAULT_WEIGHT), route))
    }
}
