//! The join tokens of a member that runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError, Weak};
use std::time::Duration;

use trunkline_route::NodeName;

use super::{Cluster, today};
use crate::Role;
use crate::book::replace;
use crate::join::{JoinRefusal, JoinToken, MAX_TOKENS, RANDOM, TokenStatus, Tokens};
use crate::message::{Message, Welcome};

/// Name of the file with the tokens, beside the peer book.
const FILE: &str = "join-tokens.json";
/// Other members whose addresses a machine that joins is told.
const TOLD: usize = 3;

impl Welcome {
    /// Returns the body of a call to the mailbox [`MESH_MAILBOX`](super::MESH_MAILBOX) of the issuer of a token, by which a
    /// node of this name asks to join.
    pub fn request(name: &NodeName) -> Vec<u8> {
        Message::Join(name.clone()).encode()
    }

    /// Reads the answer to [`Welcome::request`].
    ///
    /// # Errors
    /// [`NotWelcome`].
    pub fn read(answer: &[u8]) -> Result<Self, NotWelcome> {
        match Message::decode(answer) {
            Ok(Message::Welcome(welcome)) => Ok(welcome),
            Ok(Message::Refused(reason)) => Err(NotWelcome::Refused(reason)),
            _ => Err(NotWelcome::Unreadable),
        }
    }
}

/// Error returned when a machine is not let into a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotWelcome {
    /// The issuer refused the token.
    #[error("{0}")]
    Refused(String),
    /// The answer is none of the peer exchange.
    #[error("the answer cannot be read; the issuer may run another version")]
    Unreadable,
}

/// Error returned when a token is not issued or not revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The node has no address that it tells to others.
    #[error("this node has no listener, so no machine can join by it; set `clustering.hubServer.cluster.network.port`")]
    NoAddress,
    /// The node is a leaf.
    #[error("this node is a leaf, which lets nobody in; make the token at a member that is none")]
    Leaf,
    /// The node keeps as many tokens as it may.
    #[error("{MAX_TOKENS} tokens are kept, which is the maximum; one is dropped 7 days after it expired")]
    TooMany,
    /// No token has this id.
    #[error("no token has the id {0}; `trunkline cluster token --list` lists them")]
    Unknown(String),
    /// The token was used, so the machine has the cookie of the cluster.
    #[error("the token was used by {0}, which has the cookie of the cluster; replace the cookie to shut it out")]
    Used(String),
    /// The file of the tokens cannot be written; nothing changed.
    #[error("the file of the tokens cannot be written; nothing changed")]
    File(#[source] io::Error),
}

impl Cluster {
    /// Issues a token, by which one machine may join the cluster until it expires; at most 30 days. Writes a file, if the
    /// membership has one.
    ///
    /// # Errors
    /// [`TokenError`]; nothing was issued.
    pub fn issue_token(&self, valid: Duration) -> Result<JoinToken, TokenError> {
        let mut random = [0; RANDOM];
        getrandom::getrandom(&mut random).expect("the operating system has randomness once it has booted");
        let (cluster, name, addresses) = {
            let mesh = self.lock();
            (mesh.cluster().to_owned(), mesh.name().clone(), mesh.own_addresses().to_vec())
        };
        if self.role() == Role::Leaf {
            return Err(TokenError::Leaf);
        }
        if addresses.is_empty() {
            return Err(TokenError::NoAddress);
        }
        self.change_tokens(|tokens| {
            tokens.issue((&cluster, &name, &addresses), valid, random, today()).ok_or(TokenError::TooMany)
        })
    }

    /// Returns the tokens that this node issued and that it remembers.
    pub fn tokens(&self) -> Vec<TokenStatus> {
        self.lock_tokens().status(today())
    }

    /// Revokes a token, by its id. Writes a file, if the membership has one.
    ///
    /// # Errors
    /// [`TokenError`]; nothing changed.
    pub fn revoke_token(&self, id: &str) -> Result<(), TokenError> {
        self.change_tokens(|tokens| match tokens.revoke(id) {
            None => Err(TokenError::Unknown(id.to_owned())),
            Some(Some(name)) => Err(TokenError::Used(name)),
            Some(None) => Ok(()),
        })
    }

    /// Answers a guest, whose token is used when it is welcome. Writes a file.
    pub(super) fn answer_guest(&self, guest: &NodeName, name: &NodeName) -> Message {
        let issuer = self.lock().name().clone();
        let is_taken = *name == issuer || self.lock().is_known(name);
        let redeemed = self.change_tokens(|tokens| {
            let refused = |refusal: JoinRefusal| Refusal::Join(refusal);
            // A name that is taken uses up no token, and a token that is refused tells nobody which names there are.
            tokens.redeem(guest, &issuer, name, today()).map_err(refused)?;
            if is_taken { Err(refused(JoinRefusal::NameTaken(name.clone()))) } else { Ok(()) }
        });
        match redeemed {
            Ok(()) => {
                self.welcome().map_or_else(|| Message::Refused("the issuer is stopping".into()), Message::Welcome)
            }
            Err(Refusal::Join(refusal)) => Message::Refused(refusal.to_string()),
            Err(Refusal::Token(error)) => {
                tracing::warn!(%error, "a machine with a token cannot join");
                Message::Refused("the issuer cannot take tokens now; its log tells why".into())
            }
        }
    }

    fn welcome(&self) -> Option<Welcome> {
        let sessions = self.sessions.get().and_then(Weak::upgrade)?;
        let mesh = self.lock();
        let others = mesh.neighbours().into_iter().filter_map(|name| mesh.addresses(&name).into_iter().next());
        let routes = mesh.own_addresses().iter().cloned().chain(others.take(TOLD)).collect();
        Some(Welcome { cluster: mesh.cluster().to_owned(), cookie: sessions.keys().node().current().clone(), routes })
    }

    /// Changes the tokens, first in the file. An error leaves them as they were.
    fn change_tokens<T, E: From<TokenError>>(&self, change: impl FnOnce(&mut Tokens) -> Result<T, E>) -> Result<T, E> {
        let mut tokens = self.lock_tokens();
        let mut after = tokens.clone();
        after.drop_old(today());
        let done = change(&mut after)?;
        if let Some(path) = self.token_file() {
            let text = serde_json::to_string(&after).map_err(|error| TokenError::File(error.into()))?;
            replace(&path, &text).map_err(TokenError::File)?;
        }
        *tokens = after;
        drop(tokens);
        self.admit_guests();
        Ok(done)
    }

    /// Admits the guests of the tokens, once the node runs.
    pub(super) fn admit_guests(&self) {
        if let Some(sessions) = self.sessions.get().and_then(Weak::upgrade) {
            // Locked until the end, so that the last change is the one that counts.
            let tokens = self.lock_tokens();
            sessions.keys().set_guests(tokens.guests(self.lock().name()));
        }
    }

    fn token_file(&self) -> Option<PathBuf> {
        Some(self.book.as_ref()?.with_file_name(FILE))
    }

    fn lock_tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the tokens of an earlier instance beside its peer book. A file that cannot be read costs the tokens, and a warning.
pub(super) fn read_tokens(book: Option<&Path>) -> Tokens {
    let Some(path) = book.map(|book| book.with_file_name(FILE)) else { return Tokens::default() };
    let read = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice::<Tokens>(&text).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Tokens::default(),
        Err(error) => Err(error),
    };
    let mut tokens = read.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the file of the join tokens cannot be read; none is valid");
        Tokens::default()
    });
    tokens.drop_old(today());
    tokens
}

/// Reason why a guest is not let in.
enum Refusal {
    Join(JoinRefusal),
    Token(TokenError),
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}
