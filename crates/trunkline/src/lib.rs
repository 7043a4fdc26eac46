//! Reach any node by its name.
//!
//! A program holds a name (`prod-db@example.com`). A [`Node`] finds the path (static routes by pattern and weight, then
//! discovery through a registrar, then gateways), connects with failover, proves by cookie and certificate that the right
//! node answers, and hands back one [`Connection`] for messages, calls and byte streams.
//!
//! # Messages
//!
//! A program registers mailboxes at its node ([`Node::register`]), and sends messages to and calls the mailboxes of other
//! nodes ([`Node::send`], [`Node::call`]).
//!
//! ```
//! use std::time::Duration;
//! use trunkline::{NetworkRoute, Node};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let db = Node::builder("db@127.0.0.1")?
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
//! app.add_route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)?;
//! let answer = app.call("db@127.0.0.1", "queries", b"select 1", Duration::from_secs(5)).await?;
//! assert_eq!(answer, "42 rows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Byte streams
//!
//! A node offers services ([`Node::accept`]), and other nodes open streams to them ([`Node::open`]). [`Node::serve`] and
//! [`Node::forward`] lead streams from one socket to another instead.
//!
//! ```
//! use std::time::Duration;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use trunkline::{AccessPattern, NetworkRoute, Node};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let db = Node::builder("db@127.0.0.1")?
//!     .cookie("a shared secret of the two")
//!     .listen("127.0.0.1:0")
//!     .no_registrar()
//!     .start()
//!     .await?;
//! let mut uploads = db.accept("uploads", vec![AccessPattern::new("app@.*")?])?;
//! tokio::spawn(async move {
//!     while let Some(incoming) = uploads.next().await {
//!         let (mut stream, mut file) = (incoming.accept(), Vec::new());
//!         if stream.read_to_end(&mut file).await.is_ok() {
//!             let _ = stream.write_all(format!("{} bytes", file.len()).as_bytes()).await;
//!             let _ = stream.shutdown().await;
//!         }
//!     }
//! });
//!
//! let app = Node::builder("app@127.0.0.1")?.cookie("a shared secret of the two").no_registrar().start().await?;
//! app.add_route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)?;
//! let mut stream = app.open("db@127.0.0.1", "uploads", Duration::from_secs(5)).await?;
//! stream.write_all(&[0; 100_000]).await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "100000 bytes");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Gateways
//!
//! A [`ProxyRoute`] leads through a node that forwards connections by its transit rules ([`Transit`]). The connection is
//! encrypted end to end. A gateway that holds the cookie of both ends could still take the place of one: give them
//! [a cookie of their own](https://github.com/trunkline/trunkline/blob/main/examples/gateway.rs), or certificates.
//!
//! ```
//! use std::time::Duration;
//! use trunkline::{AccessPattern, NetworkRoute, Node, ProxyRoute, Transit, TransitRule};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let node = |name: &'static str| Node::builder(name).map(|node| node.cookie("a shared secret of all").no_registrar());
//! let db = node("db@internal")?.listen("127.0.0.1:0").start().await?;
//! let mut queries = db.register("queries")?;
//! tokio::spawn(async move {
//!     while let Some(query) = queries.recv().await {
//!         query.reply("42 rows");
//!     }
//! });
//!
//! let rule = TransitRule::new(AccessPattern::new("app@.*")?, AccessPattern::new("db@internal")?);
//! let gateway = node("gateway@dmz")?
//!     .listen("127.0.0.1:0")
//!     .route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)
//!     .transit(Transit { rules: vec![rule], ..Transit::default() })
//!     .start()
//!     .await?;
//!
//! let app = node("app@lab")?.start().await?;
//! app.add_route("^gateway@", NetworkRoute::direct("127.0.0.1", gateway.listening()[0].port())?, 100)?;
//! app.add_proxy_route("@internal$", ProxyRoute::via("gateway@dmz".parse()?), 100)?;
//! let answer = app.call("db@internal", "queries", b"select 1", Duration::from_secs(5)).await?;
//! assert_eq!(answer, "42 rows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Processes
//!
//! A node offers processes ([`Node::enable_spawn`]). Other nodes start them, talk to them by [`Pid`], link to them and watch
//! them ([`Node::spawn_monitor`]).
//!
//! ```
//! use std::time::Duration;
//! use trunkline::{AccessPattern, Exit, NetworkRoute, Node, Process, Signal, Term};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let db = Node::builder("db@127.0.0.1")?
//!     .cookie("a shared secret of the two")
//!     .listen("127.0.0.1:0")
//!     .no_registrar()
//!     .start()
//!     .await?;
//! db.enable_spawn("worker", vec![AccessPattern::new("app@.*")?], |mut process: Process, _: Term| async move {
//!     if let Some(Signal::Message(task)) = process.recv().await {
//!         task.reply("done");
//!     }
//! })?;
//!
//! let app = Node::builder("app@127.0.0.1")?.cookie("a shared secret of the two").no_registrar().start().await?;
//! app.add_route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)?;
//! let timeout = Duration::from_secs(5);
//! let worker = app.spawn_monitor("db@127.0.0.1", "worker", &Term::from(7), timeout).await?;
//! assert_eq!(app.call_to(worker.pid(), b"a task", timeout).await?, "done");
//! assert_eq!(worker.down().await, Exit::Normal);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parts
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

pub use builder::{Listen, NodeBuilder};
pub use error::{ListenError, StartError};
pub use events::{Event, Events};
pub use node::{Node, NodeStatus};
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
    Address, AtomMapping, Attempt, Claims, CloseCode, Cookie, CookieError, Cookies, DEFAULT_WEIGHT, Defaults, Direct,
    DirectUse, Disagreement, Endpoint, EndpointError, EndpointOverride, Fallback, Flag, FlagPolicy, FlagTerms, Host,
    How, IdError, Incarnation, IntoName, LinkId, LinkPolicy, LocalPlace, LogLevel, MappingError, NameError,
    NetworkRoute, NetworkRouteBuilder, NodeName, Origin, PeerFlags, PlaceError, ProxyRoute, Reconnect, Resolved,
    ResolverId, Role, RouteValue, SocketPlace, Source, TlsMode, TlsProfileId, UnknownFlag, UnknownWord, ValueFrom,
    Version, VersionError,
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
