use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::{AtomMapping, FlagTerms, PeerFlags, ResolverId};

/// How much is said about one connection. The order is from silence to everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong for good.
    Error,
    /// What deserves a look: a lost connection, a refused caller.
    Warn,
    /// Ups and downs.
    #[default]
    Info,
    /// How it came up and goes away.
    Debug,
    /// Every message, without its body.
    Trace,
}

impl LogLevel {
    const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written in a configuration.
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
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is no log level; write off, error, warn, info, debug or trace")
        })
    }
}

/// What becomes of a connection that went down without being told to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reconnect {
    /// It stays down until somebody connects again; what would only use it fails.
    Never,
    /// Whoever needs it next dials it.
    #[default]
    OnDemand,
    /// It is dialled again at once, and again with growing pauses, until it is up.
    Keep,
}

impl Reconnect {
    const ALL: [Self; 3] = [Self::Never, Self::OnDemand, Self::Keep];

    /// As it is written in a configuration.
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
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|policy| policy.as_str() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is no way to reconnect; write never, on_demand or keep")
        })
    }
}

/// What holds for a connection beyond where it leads and how the peer is proven. It belongs to the name: also a link
/// that comes in has the policy of the best route for its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPolicy {
    /// What is offered to the peer, and demanded of it.
    pub flags: FlagTerms,
    /// How much is said about the connection.
    pub log_level: LogLevel,
    /// The pattern of the route it comes from; `None` when no route matches the name.
    pub route: Option<Arc<str>>,
    /// Who gave the address, if somebody was asked for it.
    pub resolver: Option<ResolverId>,
    /// What names are called there.
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
