//! Types of the operations API, shared by server and client.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline::{
    Chain, Forward, GateStats, LinkInfo, LinkStats, NoRoute, NodeStatus, Origin, Preview, Record, Role, RouteValue,
    TrafficStats,
};
use trunkline_config::{ProxyEntry, RouteEntry};
use trunkline_matcher::{PatternClass, Stats};

mod cluster;
mod registrar;
mod shown;
mod trace;

pub use cluster::{
    Cluster, ClusterConnection, ClusterNetwork, ClusterOperation, ClusterRoute, ClusterRoutes, FoundRoute, IssuedToken,
    MemberWays, NetworkNode, NetworkRequest, NewToken, RevokeToken, RoutesDeleted, RoutesRequest, RoutesSet,
    SilentNode, TokenRequest,
};
pub use registrar::{
    Announce, Announced, AnnouncedEndpoint, AnnouncedService, RegistrarChange, RegistrarQuery, RegistrarState,
    Registrars, ResolveQuery, Resolved, ServiceNode, ServiceNodes, ServicesQuery,
};
pub use shown::{FailbackTo, ProxyRoute, Route};
pub use trace::{TraceRequest, Traced, Way, WayEnd, WayHop};

/// Answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the node.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// Addresses it listens at, `host:port`.
    pub listening: Vec<String>,
    /// Names of the registered mailboxes.
    pub mailboxes: Vec<String>,
    /// Pids of the live processes.
    pub processes: Vec<String>,
    /// Programs that peers may start on this node.
    pub spawn: Vec<String>,
    /// Applications of this node.
    pub applications: Vec<RunningApplication>,
    /// Byte-stream services that peers may open.
    #[serde(default)]
    pub services: Vec<StreamService>,
    /// Local sockets whose connections are forwarded to services of other nodes.
    #[serde(default)]
    pub forwards: Vec<Forwarding>,
    /// Number of open circuits, which are connections that this node forwards between other nodes.
    #[serde(default)]
    pub circuits: usize,
    /// Number of bytes forwarded through circuits so far.
    #[serde(default)]
    pub carried: u64,
    /// Counters of callers before authentication, over all listeners.
    #[serde(default)]
    pub strangers: Strangers,
    /// Number of live connections.
    pub connections: usize,
    /// Number of static routes.
    pub routes: usize,
    /// True if the registrar currently holds the announcement; absent without a registrar or if the node is hidden.
    pub registered: Option<bool>,
    /// True if this node serves as the registrar of its host.
    pub serves_registrar: bool,
    /// Number of lookups that its registrar answered.
    pub registrar_queries: u64,
    /// Statistics of the patterns of the static routes.
    pub patterns: Patterns,
    /// Number of log lines lost since the node started, because standard error failed or was not read.
    #[serde(default)]
    pub lost_log_lines: u64,
}

/// Counters of callers before authentication. All but `taken` count since the node started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Number of slots in use now.
    pub taken: usize,
    /// Number of connections closed to free their slot for another one.
    pub evicted: u64,
    /// Number of proofs that failed or were not finished, mostly of callers with another cookie.
    pub failed_proofs: u64,
    /// Number of callers refused because too many proofs of a weak cookie had failed before.
    pub throttled: u64,
}

impl From<GateStats> for Strangers {
    fn from(stats: GateStats) -> Self {
        let GateStats { taken, evicted, failed_proofs, throttled } = stats;
        Self { taken, evicted, failed_proofs, throttled }
    }
}

/// Counters of the streams of a service or forward.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNumbers {
    /// Number of open streams.
    pub open: u64,
    /// Number of streams opened so far, including the open ones.
    pub all: u64,
    /// Number of streams that were refused or could not be opened.
    pub refused: u64,
    /// Number of bytes received from peers.
    pub received: u64,
    /// Number of bytes sent to peers.
    pub sent: u64,
    /// Time since the last byte in either direction, in milliseconds; absent before the first.
    pub idle_ms: Option<u64>,
}

impl From<TrafficStats> for StreamNumbers {
    fn from(stats: TrafficStats) -> Self {
        let TrafficStats { open, all, refused, received, sent, idle } = stats;
        Self { open, all, refused, received, sent, idle_ms: idle.map(|idle| idle.as_millis() as u64) }
    }
}

/// Byte-stream service that peers may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamService {
    /// Name of the service.
    pub name: String,
    /// Address or socket that its streams are connected to; absent if a program accepts them.
    pub place: Option<String>,
    /// Time without a byte after which a stream is reset, in milliseconds; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit_ms: Option<u64>,
    /// Counters of its streams.
    #[serde(flatten)]
    pub numbers: StreamNumbers,
}

/// Request body of `POST /v1/proxy-routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddProxyRoute {
    /// Route to add.
    pub route: ProxyEntry,
    /// True to write the route to the node's configuration file as well.
    #[serde(default)]
    pub save: bool,
}

/// Request body of `POST /v1/forwards`, which makes the node forward a local socket to a service of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardRequest {
    /// Local address: `IP:PORT` (port 0 means any free one) or `unix:PATH`.
    pub listen: String,
    /// Name of the node that offers the service.
    pub name: String,
    /// Name of the service.
    pub service: String,
    /// True to end the forward together with the connection of this request. The answer is then one line, followed by
    /// the end of the body when the forward ends. Default: false; the forward lasts until it is removed or the node
    /// stops.
    #[serde(default)]
    pub attached: bool,
    /// Time without a byte in either direction after which a connection is reset, 1,000 to 86,400,000 ms. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// Request body of `POST /v1/forwards/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndForward {
    /// Local address of the forward.
    pub listen: String,
}

/// Local socket of the node's machine whose connections are forwarded to a service of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// Local address of the forward.
    pub listen: String,
    /// Name of the node that offers the service.
    pub name: String,
    /// Name of the service.
    pub service: String,
    /// Time without a byte after which a connection is reset, in milliseconds; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit_ms: Option<u64>,
    /// Counters of its streams.
    #[serde(flatten)]
    pub numbers: StreamNumbers,
}

impl From<&Forward> for Forwarding {
    fn from(forward: &Forward) -> Self {
        Self {
            listen: forward.place().to_string(),
            name: forward.peer().to_string(),
            service: forward.service().to_owned(),
            idle_limit_ms: forward.options().idle.map(|idle| idle.as_millis() as u64),
            numbers: forward.traffic().into(),
        }
    }
}

/// Statistics of the table of static routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patterns {
    /// Number of patterns by the way they are searched; ways without patterns are left out.
    pub classes: BTreeMap<String, usize>,
    /// Size of the largest group of patterns that are filed under the same text.
    pub largest_bucket: usize,
    /// Approximate memory of the patterns and their index, in bytes.
    pub heap_bytes: usize,
    /// True if so many patterns contain no literal text that they slow down every lookup.
    pub many_literal_free: bool,
}

impl From<&Stats> for Patterns {
    fn from(stats: &Stats) -> Self {
        let counts = PatternClass::ALL.into_iter().map(|class| (class.to_string(), stats.count(class)));
        Self {
            classes: counts.filter(|(_, count)| *count > 0).collect(),
            largest_bucket: stats.largest_bucket,
            heap_bytes: stats.heap_bytes,
            many_literal_free: stats.has_many_literal_free,
        }
    }
}

impl From<NodeStatus> for Status {
    fn from(status: NodeStatus) -> Self {
        Self {
            name: status.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            listening: status.listening.iter().map(ToString::to_string).collect(),
            mailboxes: status.mailboxes,
            processes: status.processes.iter().map(ToString::to_string).collect(),
            spawn: status.spawns,
            applications: status
                .applications
                .into_iter()
                .map(|(name, pids)| RunningApplication {
                    name,
                    processes: pids.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            services: Vec::new(),
            forwards: Vec::new(),
            circuits: status.circuits,
            carried: status.carried,
            strangers: Strangers::from(status.strangers),
            connections: status.connections,
            routes: status.routes,
            registered: status.registered,
            serves_registrar: status.serves_registrar,
            registrar_queries: status.registrar_queries,
            patterns: Patterns::default(),
            lost_log_lines: 0,
        }
    }
}

/// Live connection; `GET /v1/nodes` answers with all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Proven name of the peer.
    pub name: String,
    /// Socket address of the peer, or of the gateway next to this node.
    pub address: String,
    /// Name of the gateway next to this node; absent for a direct connection.
    #[serde(default)]
    pub via: Option<String>,
    /// First digits of the link id, which is the same at both ends.
    pub link: String,
    /// Sequence number of this link among all links between the two node instances, starting at 1.
    pub epoch: u64,
    /// Direction in which the connection was dialled: `out` or `in`.
    pub direction: String,
    /// Handshake version.
    pub handshake: String,
    /// Certificate verification: `cookie`, `verify…` or `skip-verify`; `certificate` for a caller whose certificate
    /// `client_ca` verified.
    pub tls: String,
    /// Flags that both ends agreed on.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Log level of the connection.
    #[serde(default)]
    pub log_level: String,
    /// Pattern of the route whose policy applies; absent if no route matches the name.
    #[serde(default)]
    pub route: Option<String>,
    /// Resolver that supplied the dialled address; absent if no resolver was asked.
    #[serde(default)]
    pub resolver: Option<String>,
    /// Software of the peer.
    pub software: String,
    /// Number of messages, calls and answers sent.
    pub messages_out: u64,
    /// Number of messages, calls and answers received.
    pub messages_in: u64,
    /// Number of bytes written.
    pub bytes_out: u64,
    /// Number of bytes read.
    pub bytes_in: u64,
    /// Number of messages dropped because no mailbox has the name they were sent to.
    pub undeliverable: u64,
    /// Better routes to which the connection shall return, best first; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failback: Vec<FailbackTo>,
}

impl From<(LinkInfo, LinkStats)> for Peer {
    fn from((info, stats): (LinkInfo, LinkStats)) -> Self {
        Self {
            name: info.peer.to_string(),
            address: info.address.to_string(),
            via: info.via.as_ref().map(ToString::to_string),
            link: info.short_id(),
            epoch: info.epoch,
            direction: if info.role == Role::Initiator { "out" } else { "in" }.into(),
            handshake: info.version.to_string(),
            tls: info.proof(),
            log_level: info.log_level.to_string(),
            route: info.route.as_deref().map(Into::into),
            resolver: info.resolver.as_ref().map(ToString::to_string),
            flags: info.flags.iter().map(|flag| flag.to_string()).collect(),
            software: info.software,
            messages_out: stats.messages_out,
            messages_in: stats.messages_in,
            bytes_out: stats.bytes_out,
            bytes_in: stats.bytes_in,
            undeliverable: stats.undeliverable,
            failback: Vec::new(),
        }
    }
}

/// Request body of `POST /v1/routes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRoute {
    /// Route to add, with the keys of the configuration file.
    pub route: RouteEntry,
    /// True to write the route to the node's configuration file as well.
    #[serde(default)]
    pub save: bool,
}

/// Request body of `POST /v1/routes/remove`, `POST /v1/routes/drain`, and the same paths of `/v1/proxy-routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRoute {
    /// Exact text of the pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// True to remove the route from the node's configuration file as well.
    #[serde(default)]
    pub save: bool,
}

/// Result of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Description of what was done.
    pub message: String,
    /// Warnings about a pattern that probably does not mean what it says; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Descriptions of what could not be changed and stays as it was; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

impl Changed {
    /// Creates the result of a complete change without warnings.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), warnings: Vec::new(), kept: Vec::new() }
    }
}

/// Step of the answer to `GET /v1/explain?name=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Stage: `static`, `static resolver`, `discovery`, `proxy` or `discovered proxy`; in the last two, the address is
    /// the gateway's name.
    pub stage: String,
    /// Pattern of the route; absent for discovery.
    pub pattern: Option<String>,
    /// Way the table searches for the pattern: `literal`, `glob`, `filed`, `anchored`, `literal-free` or `always`.
    pub class: Option<String>,
    /// Resolver to ask, if any.
    pub resolver: Option<String>,
    /// Weight of the route.
    pub weight: Option<i64>,
    /// Address to dial, `host:port`; absent if a resolver must be asked first.
    pub address: Option<String>,
    /// Certificate verification of the attempt.
    pub tls: Option<String>,
    /// Handshake version.
    pub handshake: Option<String>,
    /// Remembered failure of this address, which lowers its rank.
    pub remembered: Option<String>,
    /// Time for which the failure still counts, in milliseconds.
    pub remembered_ms: Option<u64>,
    /// Values that the attempt would use, each with its source.
    #[serde(default)]
    pub values: Vec<StepValue>,
}

/// Value used by a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepValue {
    /// Name of the value, as in the configuration.
    pub what: String,
    /// Value as readable text; never a secret.
    pub value: String,
    /// Source: `route`, `override`, `answer` (of the resolver, once asked), `name` (its host part) or `node`.
    pub from: String,
}

impl From<&Preview> for Step {
    fn from(preview: &Preview) -> Self {
        let (stage, pattern, resolver) = origin(&preview.origin);
        Self {
            stage: stage.into(),
            pattern,
            class: None,
            resolver,
            weight: preview.weight,
            address: preview.address.clone(),
            tls: preview.attempt.as_ref().map(|attempt| attempt.tls.to_string()),
            handshake: preview.attempt.as_ref().map(|attempt| attempt.version.to_string()),
            remembered: preview.remembered.as_ref().map(|(_, error)| Chain(error).to_string()),
            remembered_ms: preview.remembered.as_ref().map(|(left, _)| left.as_millis() as u64),
            values: preview.values.iter().map(StepValue::from).collect(),
        }
    }
}

impl From<&RouteValue> for StepValue {
    fn from(value: &RouteValue) -> Self {
        Self { what: value.what.into(), value: value.value.clone(), from: value.from.to_string() }
    }
}

fn origin(origin: &Origin) -> (&'static str, Option<String>, Option<String>) {
    match origin {
        Origin::Static { pattern } => ("static", Some(pattern.to_string()), None),
        Origin::StaticResolved { pattern, resolver } => {
            ("static resolver", Some(pattern.to_string()), Some(resolver.to_string()))
        }
        Origin::Discovered { resolver } => ("discovery", None, Some(resolver.to_string())),
        Origin::Proxied { pattern, .. } => ("proxy", Some(pattern.to_string()), None),
        Origin::DiscoveredProxy { resolver, .. } => ("discovered proxy", None, Some(resolver.to_string())),
        Origin::Given => ("given", None, None),
    }
}

/// Answer to `GET /v1/explain?name=…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name that was explained.
    pub name: String,
    /// First digits of the id of the live link that would be used; absent without a link.
    pub live: Option<String>,
    /// Attempts that would be made, in order.
    pub steps: Vec<Step>,
    /// True if no resolver is asked after the static routes fail.
    pub static_only: bool,
    /// Better routes to which the live connection shall return, best first; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failback: Vec<FailbackTo>,
    /// Registrars among those that would be asked whose answers may be out of date; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<RegistrarState>,
    /// Facts that the cluster of the node has of the name, with which its resolver `cluster` answers; left out if there are
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberWays>,
    /// Nodes that serve `@service`, in the order to try, with drained ones at the end; left out for a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceNodes>,
}

impl From<&trunkline::Explanation> for Explanation {
    fn from(explanation: &trunkline::Explanation) -> Self {
        Self {
            name: explanation.target.to_string(),
            live: explanation.live.as_ref().filter(|_| explanation.live_satisfies).map(LinkInfo::short_id),
            steps: explanation.steps.iter().map(Step::from).collect(),
            static_only: explanation.static_only,
            failback: Vec::new(),
            stale: Vec::new(),
            member: None,
            service: None,
        }
    }
}

/// Message body: UTF-8 text as it is, anything else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// UTF-8 text.
    Text(String),
    /// Any bytes, in base64 with padding.
    Base64(String),
}

impl Body {
    /// Encodes bytes as text if that is valid and not much longer than base64.
    pub fn new(bytes: &[u8]) -> Self {
        use base64::Engine;
        // Text in which JSON escapes many characters can be longer than base64.
        let escapes = |byte: &u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
            0..0x20 => 5,
            _ => 0,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.iter().map(escapes).sum::<usize>() <= bytes.len() / 3 => Self::Text(text.into()),
            _ => Self::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)),
        }
    }

    /// Returns the decoded bytes.
    ///
    /// # Errors
    /// [`BodyError`] if the base64 is malformed.
    pub fn bytes(&self) -> Result<Vec<u8>, BodyError> {
        use base64::Engine;
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Base64(text) => base64::engine::general_purpose::STANDARD.decode(text).map_err(BodyError),
        }
    }
}

/// Error returned when the base64 of a [`Body`] is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("body.base64: not base64 with padding")]
pub struct BodyError(#[source] base64::DecodeError);

/// Request body of `POST /v1/ping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Name of the node.
    pub name: String,
    /// Timeout of the answer once connected, in milliseconds. Default 5000.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    /// True to dial while ignoring remembered failures; use after fixing a fault by hand.
    #[serde(default)]
    pub now: bool,
}

fn five_seconds() -> u64 {
    5000
}

/// Answer to a ping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Connection that was used.
    pub peer: Peer,
    /// Time until the connection was up, in milliseconds.
    pub connect_ms: f64,
    /// Round-trip time, in milliseconds.
    pub round_trip_ms: f64,
}

/// Request body of `POST /v1/disconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisconnectRequest {
    /// Name of the peer.
    pub name: String,
}

/// Request body of `POST /v1/send` and `POST /v1/call`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// Name of the node.
    pub name: String,
    /// Name of the mailbox there.
    pub mailbox: String,
    /// Content of the message.
    pub body: Body,
    /// Timeout of the whole operation including connecting, in milliseconds. Default 20000, which exceeds the timeout
    /// of a lookup, so that a failed lookup can report its attempts.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
    /// True to succeed only once the message is in the mailbox, not already when it was sent. For messages only.
    /// Default false.
    #[serde(default)]
    pub important: bool,
}

fn twenty_seconds() -> u64 {
    20_000
}

/// Request body of `POST /v1/spawn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnRequest {
    /// Name of the node.
    pub name: String,
    /// Name under which that node offers the program.
    pub program: String,
    /// Input of the program.
    #[serde(default)]
    pub input: String,
    /// True to wait until the program ended, without a timeout. Default false.
    #[serde(default)]
    pub until_end: bool,
    /// Timeout until the program runs, including connecting, in milliseconds. Default 20000.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
}

impl SpawnRequest {
    /// Creates a request with a timeout in whole milliseconds.
    pub fn of(name: String, program: String, input: String, until_end: bool, timeout: Duration) -> Self {
        Self { name, program, input, until_end, timeout_ms: timeout.as_millis() as u64 }
    }
}

/// Process started at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Pid of the process.
    pub pid: String,
    /// Description of how it ended, if the request waited for that.
    pub exit: Option<String>,
    /// True if it ended without an error.
    pub ended_well: bool,
}

/// Request body of `POST /v1/applications/start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationRequest {
    /// Name of the node, which may be the asked node itself.
    pub name: String,
    /// Name of the application.
    pub application: String,
    /// Timeout including connecting, in milliseconds. Default 20000.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
}

impl ApplicationRequest {
    /// Creates a request with a timeout in whole milliseconds.
    pub fn of(name: String, application: String, timeout: Duration) -> Self {
        Self { name, application, timeout_ms: timeout.as_millis() as u64 }
    }
}

/// Request body of `POST /v1/applications/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopApplication {
    /// Name of an application of the asked node.
    pub application: String,
}

/// Application of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningApplication {
    /// Name of the application.
    pub name: String,
    /// Pids of its processes; empty if it is not running.
    pub processes: Vec<String>,
}

/// Answer to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReply {
    /// Content of the answer.
    pub body: Body,
    /// Name of the node that answered.
    pub node: String,
    /// Duration of the call including connecting, in milliseconds.
    pub took_ms: f64,
}

/// Failed attempt to connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Source of the address.
    pub origin: String,
    /// Dialled address, `host:port`; empty if no address was dialled.
    pub address: String,
    /// Stage that failed.
    pub stage: String,
    /// Cause of the failure.
    pub error: String,
    /// Duration of the attempt, in milliseconds.
    pub took_ms: f64,
}

impl From<&Record> for Attempt {
    fn from(record: &Record) -> Self {
        Self {
            origin: record.origin.to_string(),
            address: record.address.clone(),
            stage: record.error.stage().into(),
            error: Chain(&record.error).to_string(),
            took_ms: record.took.as_secs_f64() * 1e3,
        }
    }
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Explanation of what failed and what to do.
    pub error: String,
    /// Attempts in order, if a name could not be reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

impl Failure {
    /// Creates a failure without attempts from a text or an error. The text of an error includes its sources.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: Chain(&*error.into()).to_string(), attempts: Vec::new() }
    }
}

impl From<&NoRoute> for Failure {
    fn from(no_route: &NoRoute) -> Self {
        Self {
            error: format!("no route to {}: {}", no_route.target, no_route.reason),
            attempts: no_route.attempts.iter().map(Attempt::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_if_possible_and_otherwise_base64_and_decodes_to_the_same_bytes() {
        assert_eq!(Body::new("grüße".as_bytes()), Body::Text("grüße".into()));
        assert_eq!(Body::new(b""), Body::Text(String::new()));
        assert_eq!(Body::new(&[0xff, 0x00]), Body::Base64("/wA=".into()));
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&b""[..], b"plain", &all, &[0xc3], "grüße\n".as_bytes()] {
            let sent = serde_json::to_string(&Body::new(bytes)).unwrap();
            let received: Body = serde_json::from_str(&sent).unwrap();
            assert_eq!(received.bytes().unwrap(), bytes, "{sent}");
        }
        assert_eq!(serde_json::to_string(&Body::new(b"hi")).unwrap(), r#"{"text":"hi"}"#);
        // No content takes much more space than in base64.
        for byte in [0, b'"', b'\n', b'x'] {
            let sent = serde_json::to_string(&Body::new(&[byte; 30_000])).unwrap();
            assert!(sent.len() < 40_100, "{byte}: {}", sent.len());
        }
    }

    #[test]
    fn malformed_base64_is_refused_with_the_name_of_the_field() {
        for bad in ["/wA", "%%%%", "/wA=\n"] {
            let error = Body::Base64(bad.into()).bytes().unwrap_err();
            assert!(error.to_string().starts_with("body.base64: not base64"), "{error}");
        }
    }
}
