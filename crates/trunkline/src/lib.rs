#![doc = include_str!("../README.md")]

mod answer;
mod builder;
mod error;
mod events;
mod given;
mod inner;
mod native;
mod node;
mod processes;
mod services;
mod start;

pub use answer::Answer;
pub use builder::{Listen, NodeBuilder};
pub use error::{AnnounceError, ListenError, StartError};
pub use events::{Event, Events};
pub use node::{Node, NodeStatus, Serves, Told};
pub use processes::ProcessExt;
pub use trunkline_tls::{
    CertificateError, EXPIRES_SOON, IdentityFiles, ProfileFiles, ProfileSource, Reloaded, ServerFiles, ServerSource,
};

pub use trunkline_forward::{
    Forward, ForwardError, ServiceError, ServiceStatus, StreamError, StreamOptions, Streams, TrafficStats,
};

pub use bytes::Bytes;
pub use trunkline_dial::plan::{Policy, Preview};
pub use trunkline_dial::{
    AddError, AttemptError, CallError, Candidate, Cause, Chain, ConnectError, Connection, Drained, Explanation,
    ImportantError, Next, NoRoute, NoneServes, PING_MAILBOX, PendingFailback, Reason, Record, RemoveError, RouteEdit,
    SendError, SentAway, ServiceNodes, ShutDownReport, TableRoute, WhyUnknown,
};
pub use trunkline_link::{DialTimes, KeepAlive, NativeLimits, random_16};
pub use trunkline_matcher::{self as matcher, AccessPattern, PatternError, PatternErrorKind, PatternIndex};
pub use trunkline_mesh::{
    Cluster, ClusterNameError, ClusterNetwork, ClusterRouteStatus, ClusterStatus, ForgetError, JoinRefusal, JoinToken,
    JoinTokenError, MAX_VALIDITY, MESH_MAILBOX, MemberStatus, NetworkMember, NotWelcome, Role as ClusterRole,
    TokenError, TokenStatus, View as ClusterView, Welcome as ClusterWelcome,
};
pub use trunkline_process::runtime::{
    Application, ApplicationError, Monitor, Process, Signal, SpawnError, SpawnLimits, TieError,
};
pub use trunkline_process::{BadPid, Exit, NoProcess, Pid};
pub use trunkline_proxy::{
    AnswerError, CircuitLimits, Proxied, Trace, TraceEnd, TracedHop, TracedWay, Transit, TransitRule,
};
pub use trunkline_registrar::{self as registrar, Offer, OfferError, Registrar, Resolver, Serving};
pub use trunkline_registrar_embedded::Grants;
pub use trunkline_route::{
    Address, AnyOf, AtomMapping, Attempt, Claims, CloseCode, Cookie, CookieError, Cookies, DEFAULT_WEIGHT, Defaults,
    Destination, Direct, DirectUse, Disagreement, Endpoint, EndpointError, EndpointOverride, Fallback, Flag,
    FlagPolicy, FlagTerms, Host, How, IdError, Incarnation, IntoName, IntoTarget, LinkId, LinkPolicy, LocalPlace,
    LogLevel, MappingError, NameError, NetworkRoute, NetworkRouteBuilder, NodeName, Origin, PeerFlags, PlaceError,
    ProxyRoute, Reconnect, Resolved, ResolverId, Role, RouteValue, ServiceName, ServiceNameError, SocketPlace, Source,
    Target, TlsMode, TlsProfileId, UnknownFlag, UnknownWord, ValueFrom, Version, VersionError,
};
pub use trunkline_stack::{
    self as stack, ByteStream, CONNECTION_TARGET, Down, EARLY_DATA, First, Incoming, LinkInfo, LinkStats, LogLimit,
    MAX_STREAMS, Mailbox, Message, OpenError, RegisterError, Replier, Sent, SocketError, SocketFile, StreamCode,
    StreamKind, bind_unix,
};
pub use trunkline_term::{self as term, Term, TermError};
pub use trunkline_tls::{ClientAuth, Identity, ServerProfile, TlsError, TlsProfile};
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub use trunkline_tls::{Issued, LabAuthority};
pub use trunkline_wire::{
    gate::{GateLimits, GateStats},
    important::Outcome,
    mux::Window,
};
