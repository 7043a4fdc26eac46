//! Reach any node by its name.
//!
//! A program holds a name (`prod-db@example.com`). A [`Node`] finds the way there (static routes by pattern and
//! weight, then discovery through a registrar), gets there with failover, proves by cookie and certificate who
//! answers, and hands back one [`Connection`] for messages and calls.
//!
//! ```
//! use std::time::Duration;
//! use trunkline::{NetworkRoute, Node};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let db = Node::builder("prod-db@127.0.0.1")?
//!     .cookie("a shared secret of the two")
//!     .listen("127.0.0.1:0")
//!     .no_registrar()
//!     .start()
//!     .await?;
//! let mut queries = db.register("queries")?;
//! tokio::spawn(async move {
//!     while let Some(query) = queries.recv().await {
//!         query.reply("42 rows");
//!     }
//! });
//!
//! let app = Node::builder("app@127.0.0.1")?.cookie("a shared secret of the two").no_registrar().start().await?;
//! let port = db.listening()[0].port();
//! app.add_route("^prod-db@", NetworkRoute::direct("127.0.0.1", port)?, 100)?;
//! let answer = app.call("prod-db@127.0.0.1", "queries", b"select 1", Duration::from_secs(5)).await?;
//! assert_eq!(answer, "42 rows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! This crate is wiring. The parts are usable alone: the pattern table is `trunkline-matcher`, the dial plan and the
//! registry of links `trunkline-dial`, the wire `trunkline-link`.

mod builder;
mod error;
mod events;
mod inner;
mod native;
mod node;
mod processes;
mod services;
mod start;

pub use builder::{Listen, ListenError, NodeBuilder};
pub use error::StartError;
pub use events::{Event, Events};
pub use node::{Node, NodeStatus};
pub use processes::ProcessExt;
pub use trunkline_tls::{
    CertificateError, EXPIRES_SOON, IdentityFiles, ProfileFiles, ProfileSource, Reloaded, ServerFiles, ServerSource,
};

pub use trunkline_forward::{
    Forward, ForwardError, ServiceError, ServiceStatus, StreamError, StreamOptions, Streams, TrafficStats,
};

pub use trunkline_dial::plan::{Policy, Preview};
pub use trunkline_dial::{
    AddError, AttemptError, CallError, Candidate, Cause, Chain, ConnectError, Connection, Drained, Explanation,
    ImportantError, Next, NoRoute, PING_MAILBOX, PendingFailback, Reason, Record, RemoveError, RouteEdit, SendError,
    ShutDownReport, TableRoute, WhyUnknown,
};
pub use trunkline_link::{DialTimes, KeepAlive, NativeLimits, random_16};
pub use trunkline_matcher::{self as matcher, AccessPattern, PatternError, PatternErrorKind, PatternIndex};
pub use trunkline_process::runtime::{
    Application, ApplicationError, Monitor, Process, Signal, SpawnError, SpawnLimits, TieError,
};
pub use trunkline_process::{BadPid, Exit, NoProcess, Pid};
pub use trunkline_proxy::{CircuitLimits, Proxied, Trace, TraceEnd, TracedHop, TracedWay, Transit, TransitRule};
pub use trunkline_registrar::{self as registrar, Registrar, Resolver};
pub use trunkline_route::{
    Address, AtomMapping, Attempt, Cookie, CookieError, Cookies, DEFAULT_WEIGHT, Defaults, Direct, DirectUse,
    Disagreement, Endpoint, EndpointError, EndpointOverride, Fallback, Flag, FlagPolicy, FlagTerms, Host, IdError,
    IntoName, LinkPolicy, LocalPlace, LogLevel, MappingError, NameError, NetworkRoute, NetworkRouteBuilder, NodeName,
    Origin, PeerFlags, PlaceError, ProxyRoute, Reconnect, Resolved, ResolverId, RouteValue, SocketPlace, Source,
    TlsMode, TlsProfileId, UnknownFlag, UnknownWord, ValueFrom, Version, VersionError,
};
pub use trunkline_route::{CloseCode, Incarnation, LinkId, Role};
pub use trunkline_stack::{
    ByteStream, CONNECTION_TARGET, CallError as LinkCallError, Down, EARLY_DATA, First, Incoming, LinkInfo, LinkStats,
    LogLimit, MAX_STREAMS, Mailbox, Message, OpenError, RegisterError, Replier, SendError as LinkSendError, Sent,
    SocketError, SocketFile, StreamCode, StreamKind, bind_unix,
};
pub use trunkline_term as term;
pub use trunkline_term::{Term, TermError};
pub use trunkline_tls::{ClientAuth, Identity, ServerProfile, TlsError, TlsProfile};
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub use trunkline_tls::{Issued, LabAuthority};
pub use trunkline_wire::{
    gate::{GateLimits, GateStats},
    important::Outcome,
    mux::Window,
};
