//! Connections over a transport that the program brings.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trunkline_route::{Address, Attempt, Defaults, Endpoint, NetworkRoute, NodeName, Origin, Source, later};
use trunkline_stack::{AttemptError, Transport};

use super::connect::settled;
use super::ports::NodePorts;
use super::{Sessions, now};
use crate::connection::{Connection, Session};
use crate::exec::Found;
use crate::sessions::Aim;
use crate::{ConnectError, NoRoute, Reason, Record};

impl Sessions {
    /// Connects to a name over a transport that leads to the peer: a Unix socket, a pipe, the stream of another program. The
    /// best route of the name says what the connection must prove and offer; nothing is looked up, and no other way is tried.
    /// A live connection to the name gives way to the new one. A dial of the name that is under way comes first. If the peer
    /// connects by another way meanwhile, that connection is returned.
    ///
    /// # Errors
    /// [`ConnectError`]; [`NoRoute`] has the one attempt.
    pub async fn connect_over(
        self: &Arc<Self>,
        name: NodeName,
        over: Transport,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        if self.is_leaving() {
            return Err(ConnectError::ShuttingDown);
        }
        if name == self.name {
            return Ok(self.own.connection());
        }
        let attempt = self.attempt_over(&name);
        let transport = Arc::new(Mutex::new(Some(over)));
        let used = transport.clone();
        let dial = {
            let (node, name) = (Arc::downgrade(self), name.clone());
            move |flight, _| {
                let (node, name) = (node.clone(), name.clone());
                let (attempt, transport) = (attempt.clone(), transport.clone());
                async move {
                    let Some(node) = node.upgrade() else { return Ok(Found::Adopt) };
                    let began = now();
                    let Some(over) = transport.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                        // It was used, and a link that came by another way takes its place.
                        return Ok(Found::Adopt);
                    };
                    let ports = NodePorts { node, flight, replace: true, leaves: false };
                    match tokio::time::timeout(timeout, ports.dial_over(over, &attempt)).await {
                        Ok(Ok(live)) => Ok(Found::Link(live)),
                        Ok(Err(AttemptError::Adopted)) => Ok(Found::Adopt),
                        failed => {
                            let error = failed.map_or(AttemptError::CandidateTimeout(timeout), |failed| {
                                failed.err().unwrap_or(AttemptError::Panicked)
                            });
                            let record = Record {
                                origin: Origin::Given,
                                address: String::new(),
                                socket: None,
                                began: Duration::ZERO,
                                took: now() - began,
                                error,
                            };
                            Err(NoRoute { target: name, reason: Reason::AllFailed, attempts: vec![record] })
                        }
                    }
                }
            }
        };
        // A dial of its own: no other one uses this transport.
        let aim = Aim { alone: Some(self.dials_over.fetch_add(1, Ordering::Relaxed)), ..Aim::any(timeout) };
        // Once the transport is used, a link that came by another way in the meantime is as good.
        let satisfies = |_: &Session| used.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let connect = self.registry.connect(&name, &aim, satisfies, dial);
        Ok(settled(&name, later(now(), timeout), connect).await?.connection())
    }

    /// Returns the attempt that the best route of a name makes of a transport to it.
    fn attempt_over(&self, name: &NodeName) -> Attempt {
        let defaults = Defaults { cookie: self.keys.of(name).current().clone(), ..self.defaults.clone() };
        let best = self.routes.matching(name).into_iter().next();
        let (pattern, route) = match best {
            Some(best) => (Some(best.pattern), best.route),
            // Without a route the defaults hold; the host is that of the name.
            None => (None, NetworkRoute::to_port(1).expect("it is a port").build()),
        };
        // The host matters to whoever checks a certificate: that of the route, else of the name.
        let attempt = match route.source() {
            Source::Direct { host: Some(_), .. } => route.attempt(name, None, &defaults),
            _ => None,
        };
        let mut attempt = attempt.unwrap_or_else(|| {
            let named = Address::new(name.host(), 1).or_else(|_| Address::new("localhost", 1));
            route.attempt_at(name, &Endpoint::at(named.expect("it is a host name")), &defaults)
        });
        attempt.policy.route = pattern;
        attempt
    }
}
