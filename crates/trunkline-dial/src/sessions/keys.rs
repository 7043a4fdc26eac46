//! The cookies that count for a name.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use trunkline_matcher::AccessPattern;
use trunkline_route::{Cookie, Cookies, NodeName};

/// The cookies that a node takes from others, and shows to them where no route names one.
#[derive(Debug)]
pub struct Keys {
    peers: Vec<(AccessPattern, Cookies)>,
    node: Cookies,
    /// Names that callers may have for a while, each with the cookie that it proves.
    guests: RwLock<BTreeMap<NodeName, Cookie>>,
}

impl Keys {
    /// Creates the keys of a node: cookies of peers by the pattern of their names, and the node's own for everybody else.
    pub fn new(peers: Vec<(AccessPattern, Cookies)>, node: Cookies) -> Self {
        Self { peers, node, guests: RwLock::default() }
    }

    /// Returns the cookies of the first entry for peers that matches the whole name.
    pub fn of_peer(&self, name: &NodeName) -> Option<&Cookies> {
        self.peers.iter().find(|(names, _)| names.is_match(name.as_str())).map(|(_, cookies)| cookies)
    }

    /// Returns the cookies of a name: an entry for peers claims the name in both directions.
    pub fn of(&self, name: &NodeName) -> &Cookies {
        self.of_peer(name).unwrap_or(&self.node)
    }

    /// Replaces the guests: names that callers may have although no list allows them, each with the cookie that it proves. A
    /// guest reaches no mailboxes but those for guests.
    pub fn set_guests(&self, guests: impl IntoIterator<Item = (NodeName, Cookie)>) {
        *self.guests.write().unwrap_or_else(PoisonError::into_inner) = guests.into_iter().collect();
    }

    /// Returns the cookie that a guest proves.
    pub fn of_guest(&self, name: &NodeName) -> Option<Cookie> {
        self.guests.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns the cookies of the node itself.
    pub fn node(&self) -> &Cookies {
        &self.node
    }

    /// Returns true for a cookie of the node, the old one of a rotation included.
    pub fn is_of_node(&self, cookie: &Cookie) -> bool {
        self.node.iter().any(|own| own == cookie)
    }
}
