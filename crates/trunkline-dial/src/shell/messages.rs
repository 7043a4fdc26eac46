//! Messages and calls to names: the connection is made when it is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline_route::{NodeName, later};

use super::{Sessions, now};
use crate::sessions::ConnectRequest;
use crate::{CallError, Connection, SendError};

/// Name that no mailbox can have. Every node that lives answers a call to it that there is no such mailbox: a ping.
pub const PING_MAILBOX: &str = "$ping";

impl Sessions {
    /// Connects if need be and sends a message; see [`Connection::send`].
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub async fn send(self: &Arc<Self>, name: &NodeName, mailbox: &str, body: &[u8]) -> Result<(), SendError> {
        let connection = match self.satisfying(name) {
            Some(connection) => connection,
            None => self.in_use(name, None).await?,
        };
        match connection.send(mailbox, "", body).await {
            // The connection ended and took nothing: once more, over a new one.
            Err(SendError::Down(_) | SendError::Draining) => {
                self.in_use(name, None).await?.send(mailbox, "", body).await
            }
            result => result,
        }
    }

    /// Connects if need be, calls a mailbox and waits for its answer, at most `timeout` in all.
    ///
    /// # Errors
    /// [`CallError`] says whether the peer may have seen the call.
    pub async fn call(
        self: &Arc<Self>,
        name: &NodeName,
        mailbox: &str,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let until = later(now(), timeout);
        let left = || until.saturating_duration_since(now());
        let whole = async {
            let connection = self.in_use(name, None).await?;
            match connection.call(mailbox, "", body, left()).await {
                Err(CallError::NotSent(SendError::Down(_) | SendError::Draining)) => {
                    let connection = self.in_use(name, None).await?;
                    connection.call(mailbox, "", body, left()).await
                }
                result => result,
            }
        };
        tokio::time::timeout(timeout, whole).await.unwrap_or(Err(CallError::TimedOut(timeout)))
    }

    /// Connects if need be and measures one round trip to the peer's node.
    ///
    /// # Errors
    /// [`CallError`]; an answer of any kind is a success.
    pub async fn ping(
        self: &Arc<Self>,
        name: NodeName,
        timeout: Duration,
    ) -> Result<(Connection, Duration), CallError> {
        let connection = self.connect(name, ConnectRequest::default()).await?;
        let began = now();
        match connection.call(PING_MAILBOX, "", &[], timeout).await {
            Ok(_) | Err(CallError::NoMailbox) => Ok((connection, now() - began)),
            Err(error) => Err(error),
        }
    }
}
