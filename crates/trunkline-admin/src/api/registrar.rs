//! The registrars of a node.

use serde::{Deserialize, Serialize};
use trunkline::Endpoint;
use trunkline::registrar::{Change, DEFAULT_OFFER_WEIGHT, Offer, Registration};

/// Registrars of a node. Answer to `GET /v1/registrars`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registrars {
    /// Registrars that are asked where no route leads to a name, in order; the last one is the node's own.
    pub discovery: Vec<RegistrarState>,
    /// Registrars that only routes name.
    pub others: Vec<RegistrarState>,
    /// True if the node is announced now; absent without a registrar or if the node is hidden.
    pub registered: Option<bool>,
    /// True if this node serves as the registrar of its host.
    pub serves_registrar: bool,
    /// Number of lookups that its registrar answered.
    pub registrar_queries: u64,
}

/// State of one registrar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrarState {
    /// Id of the registrar.
    pub id: String,
    /// Reason why its answers may be out of date; absent while they are not, as far as it is known.
    pub stale: Option<String>,
}

/// Query of the operations about one registrar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrarQuery {
    /// Id of the registrar; the node's own if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrar: Option<String>,
}

/// Query for the ways to a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveQuery {
    /// Name of the node.
    pub name: String,
    /// Id of the registrar; all that are asked without a route if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrar: Option<String>,
}

/// Address of a node, as a registrar knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedEndpoint {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// True if the listener proves a certificate; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Version of the handshake; absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<String>,
}

impl From<&Endpoint> for AnnouncedEndpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            host: endpoint.address.host.to_string(),
            port: endpoint.address.port.get(),
            tls: endpoint.tls,
            handshake: endpoint.version.as_ref().map(ToString::to_string),
        }
    }
}

/// Node that is announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Name of the node.
    pub name: String,
    /// Addresses at which it listens, in the order to try.
    pub endpoints: Vec<AnnouncedEndpoint>,
    /// Patterns of the names to which it leads as a gateway.
    pub leads_to: Vec<String>,
    /// Services that it serves with others; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<AnnouncedService>,
}

/// Service that a node serves with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedService {
    /// Name of the service.
    pub service: String,
    /// Weight; 0 if the node is drained.
    pub weight: u16,
    /// Tags of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

impl From<&Offer> for AnnouncedService {
    fn from(offer: &Offer) -> Self {
        Self { service: offer.service.to_string(), weight: offer.weight, tags: offer.tags.clone() }
    }
}

/// Request body of `POST /v1/announce`, by which the node serves a service with others, or does so no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    /// Name of the service.
    pub service: String,
    /// Weight; 0 drains the node. `None` withdraws the service. Left out, it is 100.
    #[serde(default = "default_weight")]
    pub weight: Option<u16>,
    /// Tags of the node; those that it has if they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

fn default_weight() -> Option<u16> {
    Some(DEFAULT_OFFER_WEIGHT)
}

/// Query for the nodes that serve a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesQuery {
    /// Name of the service, with or without `@`, and maybe `#` and a tag; all that are known if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Nodes that serve a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNodes {
    /// Service, as `@service` or `@service#tag`.
    pub service: String,
    /// Nodes by weight and open uses, with drained ones at the end.
    pub nodes: Vec<ServiceNode>,
    /// Registrars that did not answer which nodes serve it, and the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<RegistrarState>,
}

/// Node that serves a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNode {
    /// Name of the node.
    pub node: String,
    /// Weight; 0 if the node is drained.
    pub weight: u16,
    /// Tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Number of calls and streams of the asked node that are open there.
    pub open: usize,
    /// True if the asked node is connected to it.
    pub connected: bool,
}

impl From<&Registration> for Announced {
    fn from(node: &Registration) -> Self {
        Self {
            name: node.name.to_string(),
            endpoints: node.endpoints.iter().map(Into::into).collect(),
            leads_to: node.leads_to.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            serves: node.offers.iter().map(Into::into).collect(),
        }
    }
}

/// Answer of one registrar about a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Id of the registrar.
    pub registrar: String,
    /// Addresses of the node, in the order to try; empty if the name is not known there.
    pub endpoints: Vec<AnnouncedEndpoint>,
    /// Gateways that lead to the name.
    pub gateways: Vec<String>,
    /// Reason why there is no answer.
    pub error: Option<String>,
    /// Reason why the answer may be out of date; absent while it is not, as far as it is known.
    pub stale: Option<String>,
}

/// Change of what a registrar knows. `GET /v1/registrars/watch` answers with a line of JSON for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RegistrarChange {
    /// The node is announced, and was not before.
    Joined(Announced),
    /// The announcement of the node is another one now.
    Changed(Announced),
    /// The node is not announced any more.
    Left {
        /// Name of the node.
        name: String,
    },
    /// All nodes that are announced at this moment were told.
    Current,
    /// The registrar cannot be reached. What was told stays as it is.
    Lost,
    /// The registrar answers again. What changed meanwhile follows, and then `current`.
    Back,
}

impl RegistrarChange {
    /// Returns a change as it is told; `None` for one that is new to this crate.
    pub(crate) fn new(change: &Change) -> Option<Self> {
        Some(match change {
            Change::Joined(node) => Self::Joined(Announced::from(&**node)),
            Change::Changed(node) => Self::Changed(Announced::from(&**node)),
            Change::Left(name) => Self::Left { name: name.to_string() },
            Change::Current => Self::Current,
            Change::Lost => Self::Lost,
            Change::Back => Self::Back,
            _ => return None,
        })
    }
}
