//! Messages whose sender learns whether they are in the mailbox.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline_route::{Flag, NodeName, Outcome, later};
use trunkline_stack::Sent;

use super::{Sessions, now};
use crate::{ConnectError, Connection, SendError};

/// Pause of a sender whose connection is down before it tries for another one.
const PAUSE: Duration = Duration::from_millis(100);

/// Reason why an important message is not known to be in the mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportantError {
    /// The timeout passed before it could be sent; it is not there.
    #[error("nothing was sent within {0:?}; the peer was not reached, or reads nothing")]
    Late(Duration),
    /// The peer has no such mailbox; it is not there.
    #[error("the node has no mailbox of that name")]
    NoMailbox,
    /// The message was not sent; it is not there.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// The message was sent, and whether it arrived is not known.
    #[error("the message may or may not have arrived: {0}")]
    Unknown(WhyUnknown),
}

/// Reason why nothing is known of the fate of an important message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyUnknown {
    /// The timeout passed before the outcome came.
    #[error("no word of it within {0:?}")]
    Late(Duration),
    /// The peer's node began a new life, or takes no message like it over the next connection.
    #[error("the peer restarted, or changed what it takes, before it said so")]
    NewLife,
    /// The connection went down, and no other one can say.
    #[error("the connection went down before the peer said so, and: {0}")]
    NoConnection(ConnectError),
    /// The connection went down, and the ends of the next one did not agree on important delivery.
    #[error("the connection went down before the peer said so, and the next one has no important delivery")]
    NotAgreed,
}

impl Sessions {
    /// Connects if need be and sends a message whose outcome is told: `Ok` means that it is in the mailbox,
    /// exactly once. Connections that break are dialled again and the message repeated, until the timeout
    /// and the peer's node lives. At most 1,024 are under way to one peer; others wait. Among those of a pair of names
    /// the order is kept in which they were first sent. Dropping the future leaves the outcome unknown.
    ///
    /// # Errors
    /// [`ImportantError`] says whether it may be there. [`SendError::Unsupported`] when the two ends did not agree
    /// on the flag `important_delivery`.
    pub async fn send_important(
        self: &Arc<Self>,
        name: &NodeName,
        mailbox: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(), ImportantError> {
        let until = tokio::time::Instant::from_std(later(now(), timeout));
        let queued = tokio::time::timeout_at(until, self.queue_important(name, mailbox, body)).await;
        let (mut sent, connection) = queued.map_err(|_| ImportantError::Late(timeout))??;
        let outcome = async {
            tokio::select! {
                biased;
                outcome = sent.outcome() => match outcome {
                    Some(Outcome::Taken) => Ok(()),
                    Some(Outcome::NoMailbox) => Err(ImportantError::NoMailbox),
                    None => Err(ImportantError::Unknown(WhyUnknown::NewLife)),
                },
                why = self.stay_connected(name, connection) => Err(ImportantError::Unknown(why)),
            }
        };
        let late = |_| Err(ImportantError::Unknown(WhyUnknown::Late(timeout)));
        tokio::time::timeout_at(until, outcome).await.unwrap_or_else(late)
    }

    async fn queue_important(
        self: &Arc<Self>,
        name: &NodeName,
        mailbox: &str,
        body: Bytes,
    ) -> Result<(Sent, Connection), SendError> {
        loop {
            let connection = self.in_use(name, None).await?;
            match connection.send_important(mailbox, "", body.clone()).await {
                // It went down under our hands and took nothing.
                Err(SendError::Down(_) | SendError::Draining) => {}
                result => return Ok((result?, connection)),
            }
        }
    }

    /// Dials again whenever the connection is down, until there is no sense in it any more.
    async fn stay_connected(self: &Arc<Self>, name: &NodeName, mut connection: Connection) -> WhyUnknown {
        loop {
            connection.closed().await;
            connection = loop {
                match self.in_use(name, None).await {
                    Ok(next) if next.info().flags.has(Flag::ImportantDelivery) => break next,
                    Ok(_) => return WhyUnknown::NotAgreed,
                    Err(ConnectError::NoRoute(_)) => tokio::time::sleep(PAUSE).await,
                    Err(error) => return WhyUnknown::NoConnection(error),
                }
            };
        }
    }
}
