//! The vocabulary of trunkline: values only.
//!
//! A [`NodeName`] is what a program holds; a [`NetworkRoute`] says how names like it are reached; an
//! [`Attempt`] is one concrete try, made by [`NetworkRoute::attempt`], the only place where the route's own
//! fields, a resolver's answer and the node's defaults are merged. Nothing here opens a socket, reads a clock
//! or knows of an async runtime.
//!
//! Things with behaviour are *named*, not held ([`ResolverId`], [`TlsProfileId`]): routes are therefore
//! comparable, printable and loadable from a file. A [`Cookie`] is a value and is held; it has a redacted
//! `Debug`, no `Display`, no `Serialize`, and is zeroed when the last holder goes.
//!
//! Errors of all crates keep the error below in a [`Cause`] where they are cloned and compared, and [`Chain`] prints an
//! error with its sources.
//!
//! ```
//! use trunkline_route::{Cookie, Defaults, NetworkRoute, NodeName};
//!
//! let name: NodeName = "prod-db@example.com".parse()?;
//! let route = NetworkRoute::direct("10.0.1.50", 4370)?.tls(true).build();
//! let defaults = Defaults::new(Cookie::new("a shared secret")?);
//! let attempt = route.attempt(&name, None, &defaults).expect("a direct route has an address");
//! assert_eq!(attempt.address.to_string(), "10.0.1.50:4370");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod cause;
mod cookie;
mod endpoint;
mod flags;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod host_template;
mod id;
mod link;
mod mapping;
mod message;
mod name;
mod place;
mod policy;
mod proxy;
mod route;
mod service;
mod time;
mod values;
mod version;
mod word;

pub use cause::{Cause, Chain};
pub use cookie::{Cookie, CookieError, Cookies, MIN_COOKIE_LEN, STRONG_COOKIE_BITS};
pub use endpoint::{Address, Destination, Endpoint, EndpointError, EndpointOverride, Host, MAX_HOST_LEN, interleave};
pub use flags::{Disagreement, Flag, FlagPolicy, FlagTerms, PeerFlags, UnknownFlag};
pub use host_template::{HostTemplate, HostTemplateError};
pub use id::{IdError, ResolverId, TlsProfileId};
pub use link::{Claims, CloseCode, Incarnation, LinkId, RejectCode, Role};
pub use mapping::{AtomMapping, MappingError};
pub use message::{How, Outcome};
pub use name::{IntoName, MAX_NAME_LEN, NameError, NodeName, printable};
pub use place::{LocalPlace, PlaceError, SocketPlace};
pub use policy::{LinkPolicy, LogLevel, Reconnect};
pub use proxy::{DEFAULT_MAX_HOP, DirectUse, ProxyRoute};
pub use route::{
    Attempt, DEFAULT_WEIGHT, Defaults, Direct, Fallback, NetworkRoute, NetworkRouteBuilder, Origin, Resolved, Source,
    TlsMode,
};
pub use service::{AnyOf, IntoTarget, MAX_SERVICE_LEN, ServiceName, ServiceNameError, Target};
pub use time::later;
pub use values::{RouteValue, ValueFrom};
pub use version::{Version, VersionError};
pub use word::UnknownWord;
