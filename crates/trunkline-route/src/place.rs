//! Sources and destinations of bytes on this machine and around it.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Address;

/// A text that is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither {what} nor unix:PATH")]
pub struct PlaceError {
    text: String,
    what: &'static str,
}

impl PlaceError {
    fn new(text: &str, what: &'static str) -> Self {
        Self { text: text.chars().take(120).collect(), what }
    }
}

/// The path in `unix:PATH`.
fn path(text: &str) -> Option<PathBuf> {
    text.strip_prefix("unix:").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Address to connect to: `HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SocketPlace {
    /// A host and a port.
    Tcp(Address),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl SocketPlace {
    /// The same, a relative path being relative to this directory.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(dir.join(path)),
            tcp => tcp,
        }
    }
}

impl fmt::Display for SocketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for SocketPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match path(text) {
            Some(path) => Ok(Self::Unix(path)),
            None => text.parse().map(Self::Tcp).map_err(|_| PlaceError::new(text, "HOST:PORT")),
        }
    }
}

/// Address of this machine to listen at: `IP:PORT`, with port 0 for any free one, or `unix:PATH`. The zone of an IPv6 address
/// (`[fe80::1%eth0]:80`) is looked up among this machine's interfaces when the text is read.
///
/// ```
/// use trunkline_route::LocalPlace;
///
/// assert!(matches!("127.0.0.1:0".parse()?, LocalPlace::Tcp(_)));
/// let socket: LocalPlace = "unix:app.sock".parse()?;
/// assert_eq!(socket.within("/run".as_ref()).to_string(), "unix:/run/app.sock");
/// # Ok::<(), trunkline_route::PlaceError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LocalPlace {
    /// An address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl LocalPlace {
    /// The same, a relative path being relative to this directory.
    #[must_use]
    pub fn within(self, dir: &Path) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(dir.join(path)),
            tcp => tcp,
        }
    }
}

impl fmt::Display for LocalPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for LocalPlace {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match path(text) {
            Some(path) => Ok(Self::Unix(path)),
            None => match text.parse() {
                Ok(address) => Ok(Self::Tcp(address)),
                Err(_) => zoned(text).map(Self::Tcp).ok_or_else(|| PlaceError::new(text, "IP:PORT")),
            },
        }
    }
}

/// An IPv6 address whose zone is the name of an interface; `None` when it is another text, or there is no such interface.
fn zoned(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[')?.strip_suffix(']')?;
    let (ip, _) = host.split_once('%')?;
    ip.parse::<Ipv6Addr>().ok()?;
    // Asks the system for the number of an interface, and no name server.
    (host, port.parse().ok()?).to_socket_addrs().ok()?.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_they_are_written() {
        for text in ["127.0.0.1:5432", "db.example.com:1", "unix:/run/db.sock", "[::1]:80"] {
            assert_eq!(text.parse::<SocketPlace>().unwrap().to_string(), text);
        }
        for text in ["127.0.0.1:0", "unix:db.sock", "[::]:80"] {
            assert_eq!(text.parse::<LocalPlace>().unwrap().to_string(), text);
        }
        let within = |text: &str| text.parse::<LocalPlace>().unwrap().within(Path::new("/etc/t")).to_string();
        assert_eq!(
            ["unix:db.sock", "unix:/run/db.sock", "127.0.0.1:1"].map(within),
            ["unix:/etc/t/db.sock", "unix:/run/db.sock", "127.0.0.1:1"]
        );
    }

    #[test]
    fn an_ipv6_address_may_have_a_zone_by_name_or_number() {
        // The loopback interface is the first one of every Linux machine.
        for text in ["[fe80::1%lo]:80", "[fe80::1%1]:80"] {
            assert_eq!(text.parse::<LocalPlace>().unwrap().to_string(), "[fe80::1%1]:80");
            assert_eq!(text.parse::<SocketPlace>().unwrap().to_string(), text);
        }
        for bad in
            ["[fe80::1%no-such-interface]:80", "fe80::1%lo:80", "[db%lo]:80", "[127.0.0.1%lo]:80", "[fe80::1%lo]"]
        {
            assert!(bad.parse::<LocalPlace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_the_forms_there_are() {
        for bad in ["", "5432", "unix:", "host:0", "host:70000", "a b:1"] {
            let error = bad.parse::<SocketPlace>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} is neither HOST:PORT nor unix:PATH"));
        }
        let error = "localhost:80".parse::<LocalPlace>().unwrap_err().to_string();
        assert_eq!(error, "\"localhost:80\" is neither IP:PORT nor unix:PATH");
    }
}
