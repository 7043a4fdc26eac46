//! What goes over the operations API: the same types at both ends.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline::{
    Forward, GateStats, LinkInfo, LinkStats, NoRoute, NodeStatus, Origin, Preview, Record, Role, RouteValue,
    TrafficStats,
};
use trunkline_config::{ProxyEntry, RouteEntry};
use trunkline_matcher::{PatternClass, Stats};

mod shown;
mod trace;

pub use shown::{FailbackTo, ProxyRoute, Route};
pub use trace::{TraceRequest, Traced, Way, WayEnd, WayHop};

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub name: String,
    /// Version of the software.
    pub version: String,
    /// Where it listens, `host:port`.
    pub listening: Vec<String>,
    /// Registered services.
    pub services: Vec<String>,
    /// Live processes, by pid.
    pub processes: Vec<String>,
    /// What peers may have run here.
    pub spawn: Vec<String>,
    /// Its applications.
    pub applications: Vec<RunningApplication>,
    /// The services that peers may open streams to.
    #[serde(default)]
    pub stream_services: Vec<StreamService>,
    /// The sockets of this machine that lead to services of other nodes.
    #[serde(default)]
    pub forwards: Vec<Forwarding>,
    /// Connections it passes on between others now.
    #[serde(default)]
    pub circuits: usize,
    /// Bytes it has passed on so far.
    #[serde(default)]
    pub carried: u64,
    /// Callers before authentication, of all listeners together.
    #[serde(default)]
    pub strangers: Strangers,
    /// Live connections.
    pub connections: usize,
    /// Static routes.
    pub routes: usize,
    /// Whether the registrar holds the announcement; absent without a registrar or when hidden.
    pub registered: Option<bool>,
    /// Whether this node serves as the registrar of its host.
    pub serves_registrar: bool,
    /// Questions its registrar answered.
    pub registrar_queries: u64,
    /// The patterns of the static routes.
    pub patterns: Patterns,
    /// Log lines that were lost since the node began, because standard error could not be written or nobody read it.
    #[serde(default)]
    pub lost_log_lines: u64,
}

/// Counters of callers before authentication, since the node started but for `taken`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strangers {
    /// Places taken now.
    pub taken: usize,
    /// Connections that lost their place to another one.
    pub evicted: u64,
    /// Proofs that failed or were not finished: mostly callers with another cookie.
    pub failed_proofs: u64,
    /// Callers refused because too many proofs of a weak cookie failed before.
    pub throttled: u64,
}

impl From<GateStats> for Strangers {
    fn from(stats: GateStats) -> Self {
        let GateStats { taken, evicted, failed_proofs, throttled } = stats;
        Self { taken, evicted, failed_proofs, throttled }
    }
}

/// Numbers of the streams of a service or a forwarder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNumbers {
    /// Open now.
    pub open: u64,
    /// Opened so far, the open ones included.
    pub all: u64,
    /// Refused, or not to be had.
    pub refused: u64,
    /// Bytes that came from peers.
    pub received: u64,
    /// Bytes that went to peers.
    pub sent: u64,
    /// For how long no bytes moved, in milliseconds; absent before the first.
    pub idle_ms: Option<u64>,
}

impl From<TrafficStats> for StreamNumbers {
    fn from(stats: TrafficStats) -> Self {
        let TrafficStats { open, all, refused, received, sent, idle } = stats;
        Self { open, all, refused, received, sent, idle_ms: idle.map(|idle| idle.as_millis() as u64) }
    }
}

/// A service that peers may open streams to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamService {
    /// Its name.
    pub name: String,
    /// Where its streams go; absent when a program takes them.
    pub place: Option<String>,
    /// Time without a byte after which a stream is reset, in milliseconds; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit_ms: Option<u64>,
    /// Numbers.
    #[serde(flatten)]
    pub numbers: StreamNumbers,
}

/// `POST /v1/proxy-routes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddProxyRoute {
    /// The route.
    pub route: ProxyEntry,
    /// Also write it to the node's configuration file.
    #[serde(default)]
    pub save: bool,
}

/// `POST /v1/forwards`: a socket of the node's machine that leads to a service of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardRequest {
    /// `IP:PORT` (port 0: any free one) or `unix:PATH`.
    pub listen: String,
    /// Whose service.
    pub name: String,
    /// Which service.
    pub service: String,
    /// Ends the forward with the connection of this request. The answer is then a line, and its end that of the forward.
    /// Default: false; the forward goes on until it is removed or the node leaves.
    #[serde(default)]
    pub attached: bool,
    /// Time without a byte in either direction after which a connection is reset, 1,000 to 86,400,000 ms. Default: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// `POST /v1/forwards/remove`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndForward {
    /// Where it listens.
    pub listen: String,
}

/// A socket of the node's machine that leads to a service of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// Where it listens.
    pub listen: String,
    /// Whose service.
    pub name: String,
    /// Which service.
    pub service: String,
    /// Time without a byte after which a connection is reset, in milliseconds; absent without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit_ms: Option<u64>,
    /// Numbers.
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

/// What is in the table of static routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patterns {
    /// How many patterns are looked for in which way; ways that none is looked for in are left out.
    pub classes: BTreeMap<String, usize>,
    /// The most patterns that share the piece of text they are filed under.
    pub largest_bucket: usize,
    /// Memory of the patterns and of what leads to them, approximately.
    pub heap_bytes: usize,
    /// So many patterns without any text that every lookup pays for them.
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
            services: status.services,
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
            stream_services: Vec::new(),
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

/// One live connection: `GET /v1/nodes` gives all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's proven name.
    pub name: String,
    /// Its socket address; of one behind others, that of the first of them.
    pub address: String,
    /// That first one; absent when it is reached directly.
    #[serde(default)]
    pub via: Option<String>,
    /// The first digits of the link's id, the same at both ends.
    pub link: String,
    /// The how-many-eth link of this pair of lives.
    pub epoch: u64,
    /// Which end dialled: `out` or `in`.
    pub direction: String,
    /// The handshake version.
    pub handshake: String,
    /// Treatment of the certificate: `cookie`, `verify…` or `skip-verify`; `certificate` of a caller that showed one which
    /// `client_ca` verified.
    pub tls: String,
    /// The flags both ends agreed on.
    #[serde(default)]
    pub flags: Vec<String>,
    /// How much is said about it.
    #[serde(default)]
    pub log_level: String,
    /// The pattern of the route whose policy it has; absent when none matches the name.
    #[serde(default)]
    pub route: Option<String>,
    /// Who gave the address it was dialled at; absent when nobody was asked.
    #[serde(default)]
    pub resolver: Option<String>,
    /// The peer's software.
    pub software: String,
    /// Messages, calls and answers sent.
    pub messages_out: u64,
    /// Messages, calls and answers received.
    pub messages_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Messages for unknown services, dropped.
    pub undeliverable: u64,
    /// The routes it is to go back to, best first; left out when there is none.
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
            handshake: format!("TLK/{}", info.version),
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

/// `POST /v1/routes`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRoute {
    /// The route as it stands in the configuration file.
    pub route: RouteEntry,
    /// Also write it to the node's configuration file.
    #[serde(default)]
    pub save: bool,
}

/// `POST /v1/routes/remove`, `POST /v1/routes/drain`, and the same of `/v1/proxy-routes`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRoute {
    /// The exact text of the pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Also take it out of the node's configuration file.
    #[serde(default)]
    pub save: bool,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What was done, in words.
    pub message: String,
    /// What a pattern says that its author hardly meant; left out when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What could not be taken up, and stays as it was; left out when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

impl Changed {
    /// A change without warnings, and whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), warnings: Vec::new(), kept: Vec::new() }
    }
}

/// One line of `GET /v1/explain?name=…`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `static`, `static resolver`, `discovery`, `proxy` or `discovered proxy`; the address of the last two is the gateway.
    pub stage: String,
    /// The pattern of the route; absent for discovery.
    pub pattern: Option<String>,
    /// How the table looks for the pattern: `literal`, `glob`, `filed`, `anchored`, `literal-free` or `always`.
    pub class: Option<String>,
    /// Who is asked, if somebody is.
    pub resolver: Option<String>,
    /// The route's weight.
    pub weight: Option<i64>,
    /// `host:port`; absent when a resolver must be asked first.
    pub address: Option<String>,
    /// How the certificate would be treated.
    pub tls: Option<String>,
    /// The handshake version.
    pub handshake: Option<String>,
    /// What failed there of late.
    pub remembered: Option<String>,
    /// For how many more milliseconds that counts against it.
    pub remembered_ms: Option<u64>,
    /// Each value the attempt would have, and where it comes from.
    #[serde(default)]
    pub values: Vec<StepValue>,
}

/// One value of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepValue {
    /// What it is, as the configuration calls it.
    pub what: String,
    /// The value, for people; never a secret.
    pub value: String,
    /// `route`, `override`, `answer` (of the resolver, once it is asked), `name` (the host in it) or `node`.
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
            remembered: preview.remembered.as_ref().map(|(_, error)| error.to_string()),
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

/// `GET /v1/explain?name=…`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name.
    pub name: String,
    /// The live link that would be used, by the first digits of its id.
    pub live: Option<String>,
    /// What would be tried, in order.
    pub steps: Vec<Step>,
    /// Nobody is asked when the static routes fail.
    pub static_only: bool,
    /// The routes that the live connection is to go back to, best first; left out when there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failback: Vec<FailbackTo>,
}

impl From<&trunkline::Explanation> for Explanation {
    fn from(explanation: &trunkline::Explanation) -> Self {
        Self {
            name: explanation.target.to_string(),
            live: explanation.live.as_ref().filter(|_| explanation.live_satisfies).map(LinkInfo::short_id),
            steps: explanation.steps.iter().map(Step::from).collect(),
            static_only: explanation.static_only,
            failback: Vec::new(),
        }
    }
}

/// A body: UTF-8 text as it is, anything else in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// UTF-8.
    Text(String),
    /// Any bytes, base64 with padding.
    Base64(String),
}

impl Body {
    /// Bytes in the form that suits them.
    pub fn new(bytes: &[u8]) -> Self {
        use base64::Engine;
        // Text that JSON writes with many escapes is longer so than in base64.
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

    /// The bytes.
    ///
    /// # Errors
    /// A sentence when the base64 is malformed.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        use base64::Engine;
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Base64(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|e| format!("body.base64: not base64 with padding: {e}")),
        }
    }
}

/// `POST /v1/ping`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Whom.
    pub name: String,
    /// How long to wait for the answer once connected, in milliseconds. Default 5000.
    #[serde(default = "five_seconds")]
    pub timeout_ms: u64,
    /// Dial as if nothing had failed of late.
    #[serde(default)]
    pub now: bool,
}

fn five_seconds() -> u64 {
    5000
}

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The connection used.
    pub peer: Peer,
    /// Until the connection was there, in milliseconds.
    pub connect_ms: f64,
    /// One round trip, in milliseconds.
    pub round_trip_ms: f64,
}

/// `POST /v1/disconnect`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisconnectRequest {
    /// Whom.
    pub name: String,
}

/// `POST /v1/send` and `POST /v1/call`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageRequest {
    /// Whom.
    pub name: String,
    /// Which service there.
    pub service: String,
    /// What.
    pub body: Body,
    /// How long to wait in all, connecting included, in milliseconds. Default 20000: longer than a lookup takes, so
    /// that a failed one says what it tried.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
    /// Of a message only: succeed when it is in the service's mailbox, not when it is on its way. Default false.
    #[serde(default)]
    pub important: bool,
}

fn twenty_seconds() -> u64 {
    20_000
}

/// `POST /v1/spawn`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnRequest {
    /// At whom.
    pub name: String,
    /// What it is called there.
    pub program: String,
    /// What it is given.
    #[serde(default)]
    pub input: String,
    /// Whether to wait until it ended, however long. Default false.
    #[serde(default)]
    pub until_end: bool,
    /// How long it may take until it runs, connecting included, in milliseconds. Default 20000.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
}

impl SpawnRequest {
    /// A request.
    pub fn of(name: String, program: String, input: String, until_end: bool, wait: Duration) -> Self {
        Self { name, program, input, until_end, timeout_ms: wait.as_millis() as u64 }
    }
}

/// A process that began at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// Its pid.
    pub pid: String,
    /// How it ended, if that was waited for.
    pub exit: Option<String>,
    /// Whether it ended well.
    pub ended_well: bool,
}

/// `POST /v1/applications/start`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationRequest {
    /// At whom; may be the node itself.
    pub name: String,
    /// Which.
    pub application: String,
    /// How long it may take, connecting included, in milliseconds. Default 20000.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
}

impl ApplicationRequest {
    /// A request.
    pub fn of(name: String, application: String, wait: Duration) -> Self {
        Self { name, application, timeout_ms: wait.as_millis() as u64 }
    }
}

/// `POST /v1/applications/stop`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopApplication {
    /// Which one of the node itself.
    pub application: String,
}

/// An application of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningApplication {
    /// Its name.
    pub name: String,
    /// The pids of its processes; none when it does not run.
    pub processes: Vec<String>,
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReply {
    /// What the service answered.
    pub body: Body,
    /// How long it took, connecting included, in milliseconds.
    pub took_ms: f64,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where it came from.
    pub origin: String,
    /// What was dialled, `host:port`; empty when it did not come to that.
    pub address: String,
    /// The stage it reached.
    pub stage: String,
    /// Its cause.
    pub error: String,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

impl From<&Record> for Attempt {
    fn from(record: &Record) -> Self {
        Self {
            origin: record.origin.to_string(),
            address: record.address.clone(),
            stage: record.error.stage().into(),
            error: record.error.to_string(),
            took_ms: record.took.as_secs_f64() * 1e3,
        }
    }
}

/// Every answer that is no success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong and what to do.
    pub error: String,
    /// For a name that could not be reached: every attempt, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

impl Failure {
    /// A failure in words.
    pub fn new(error: impl ToString) -> Self {
        Self { error: error.to_string(), attempts: Vec::new() }
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
    fn a_body_is_text_where_it_can_be_and_base64_elsewhere_and_comes_back_whole() {
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
        // Whatever it is, it takes little more than base64 would.
        for byte in [0, b'"', b'\n', b'x'] {
            let sent = serde_json::to_string(&Body::new(&[byte; 30_000])).unwrap();
            assert!(sent.len() < 40_100, "{byte}: {}", sent.len());
        }
    }

    #[test]
    fn malformed_base64_is_refused_and_the_field_named() {
        for bad in ["/wA", "%%%%", "/wA=\n"] {
            let error = Body::Base64(bad.into()).bytes().unwrap_err();
            assert!(error.starts_with("body.base64: not base64"), "{error}");
        }
    }
}
