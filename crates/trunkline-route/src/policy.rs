use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::{AtomMapping, FlagTerms, PeerFlags, ResolverId, UnknownWord};

/// Amount of log lines about one connection. The order is from silence to everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// No lines.
    Off,
    /// Failures that nothing mends.
    Error,
    /// Events that deserve a look: a lost connection, a refused caller.
    Warn,
    /// Ups and downs.
    #[default]
    Info,
    /// Steps by which a connection comes up and goes away.
    Debug,
    /// Every message, without its body.
    Trace,
}

impl LogLevel {
    const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Returns the name in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for LogLevel {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| UnknownWord::new(text, "a log level", "off, error, warn, info, debug or trace"))
    }
}

/// Treatment of a connection that went down without being told to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reconnect {
    /// The connection stays down until a program connects again; what would only use it fails.
    Never,
    /// The next use dials it.
    #[default]
    OnDemand,
    /// The node dials it again at once, and then with growing pauses, until it is up.
    Keep,
}

impl Reconnect {
    const ALL: [Self; 3] = [Self::Never, Self::OnDemand, Self::Keep];

    /// Returns the name in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnDemand => "on_demand",
            Self::Keep => "keep",
        }
    }
}

impl fmt::Display for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Reconnect {
    type Err = UnknownWord;
    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| UnknownWord::new(text, "a reconnect policy", "never, on_demand or keep"))
    }
}

/// Settings of a connection beyond its address and the proof of the peer. They belong to the name: also a link
/// that comes in has the policy of the best route for its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPolicy {
    /// Flags offered to the peer, and required of it.
    pub flags: FlagTerms,
    /// Amount of log lines about the connection.
    pub log_level: LogLevel,
    /// The pattern of the route it comes from; `None` when no route matches the name.
    pub route: Option<Arc<str>>,
    /// Resolver that gave the address, if one was asked.
    pub resolver: Option<ResolverId>,
    /// Names that are replaced on the connection.
    pub mapping: Option<Arc<AtomMapping>>,
    /// Silence after which the peer is sent a ping; `None` leaves it to the node.
    pub keep_alive: Option<Duration>,
    /// Silence after which the connection is given up; `None` leaves it to the node.
    pub dead_after: Option<Duration>,
}

impl Default for LinkPolicy {
    /// Every flag offered, the level `info`, no route.
    fn default() -> Self {
        Self {
            flags: PeerFlags::ALL.into(),
            log_level: LogLevel::default(),
            route: None,
            resolver: None,
            mapping: None,
            keep_alive: None,
            dead_after: None,
        }
    }
}
