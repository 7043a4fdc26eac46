//! The names of nodes of which only an address is known.

use std::sync::Arc;

use tokio::task::JoinSet;
use trunkline_route::{Address, Attempt, Destination, NetworkRoute, NodeName};
use trunkline_stack::AttemptError;

use super::Sessions;
use super::ports::{lookup, of_this_node, opened};

/// Nodes that were found at the addresses of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Each address that answered, with the name that the node there has proven to hold the cookie by.
    pub found: Vec<(NodeName, Address)>,
    /// Each destination that did not answer, and why.
    pub failed: Vec<(Destination, AttemptError)>,
}

impl Sessions {
    /// Asks every address of a host, at most 16, for the name of the node there. Each node has to prove the cookie of this one.
    /// Nothing is connected. The whole takes as long as a candidate may take at most.
    ///
    /// # Errors
    /// [`AttemptError`] when the host cannot be looked up.
    pub async fn learn(self: &Arc<Self>, address: &Address) -> Result<Learnt, AttemptError> {
        let timeout = self.policy.candidate;
        let mut learnt = Learnt::default();
        let attempt = self.attempt_at(address.clone())?;
        let destinations = match address.socket() {
            Some(socket) => vec![socket.into()],
            None => {
                let found = tokio::time::timeout(timeout, lookup(self, attempt.clone())).await;
                found.unwrap_or(Err(AttemptError::DnsTimeout(timeout)))?
            }
        };
        let mut asking = JoinSet::new();
        for to in destinations.into_iter().take(self.policy.max_answers) {
            let (node, attempt) = (self.clone(), attempt.clone());
            asking.spawn(async move {
                let asked = tokio::time::timeout(timeout, node.learn_at(&attempt, &to)).await;
                (to, asked.unwrap_or(Err(AttemptError::CandidateTimeout(timeout))))
            });
        }
        while let Some(joined) = asking.join_next().await {
            let Ok((to, answer)) = joined else { continue };
            match answer {
                Ok(name) => learnt.found.push((name, at(&to, address))),
                Err(error) => learnt.failed.push((to, error)),
            }
        }
        learnt.found.sort();
        Ok(learnt)
    }

    async fn learn_at(&self, attempt: &Attempt, to: &Destination) -> Result<NodeName, AttemptError> {
        let (stack, over) = opened(self, attempt, to).await?;
        match stack.learn(over, attempt).await.map_err(|error| of_this_node(self, to, error)) {
            Err(AttemptError::Myself) => Ok(self.name.clone()),
            answer => answer,
        }
    }

    /// Returns an attempt at an address, for the name of this node: nobody else is known to be there.
    fn attempt_at(&self, address: Address) -> Result<Attempt, AttemptError> {
        let route = NetworkRoute::direct(address.host.as_str(), address.port.get());
        let attempt = route.ok().and_then(|route| route.build().attempt(&self.name, None, &self.defaults));
        attempt.ok_or_else(|| AttemptError::Dns(format!("{address} cannot be dialled").into()))
    }
}

/// Returns a destination of an address as an address of its own.
fn at(to: &Destination, address: &Address) -> Address {
    to.socket().and_then(|socket| socket.to_string().parse().ok()).unwrap_or_else(|| address.clone())
}
