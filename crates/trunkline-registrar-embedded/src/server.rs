//! Server of a registrar.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use trunkline_link::{CredentialsFn, Hooks, Listener, Native, Offered, random_16};
use trunkline_matcher::AccessPattern;
use trunkline_registrar::{RegisterError, Registration};
use trunkline_route::{Chain, CloseCode, Endpoint, LinkPolicy, NodeName};
use trunkline_stack::{Link, Mailboxes, Message};
use trunkline_tls::ServerTls;
use trunkline_wire::handshake::Mode;

use crate::wire::{self, Request, Response, SERVICE};

/// Timeout within which the previous holder of a name must prove that it is alive.
const CHALLENGE: Duration = Duration::from_secs(1);

/// Holder of an announced name.
enum Holder {
    /// The node that runs this server.
    Own,
    /// Another node, by its session.
    Session(Link),
}

struct Announcement {
    endpoints: Vec<Endpoint>,
    /// Patterns, shared so that matching them does not block the table.
    leads_to: Arc<[AccessPattern]>,
    holder: Holder,
    /// Serial number that distinguishes successive announcements of one name.
    serial: u64,
}

/// Announcements of one registrar.
#[derive(Default)]
pub(crate) struct Table {
    names: Mutex<HashMap<NodeName, Announcement>>,
    serial: AtomicU64,
    pub(crate) queries: AtomicU64,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Announcement>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn resolve(&self, name: &NodeName) -> Vec<Endpoint> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.lock().get(name).map(|found| found.endpoints.clone()).unwrap_or_default()
    }

    /// Returns the gateways that lead to a name, sorted, limited to what an answer can hold.
    pub(crate) fn gateways(&self, name: &NodeName) -> Vec<NodeName> {
        let gateways: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, held)| !held.leads_to.is_empty())
            .map(|(gateway, held)| (gateway.clone(), held.leads_to.clone()))
            .collect();
        let leads = |patterns: &[AccessPattern]| patterns.iter().any(|pattern| pattern.is_match(name.as_str()));
        let leading = gateways.into_iter().filter(|(_, patterns)| leads(patterns));
        let mut found: Vec<_> = leading.map(|(gateway, _)| gateway).collect();
        found.sort();
        if found.len() > wire::MAX_GATEWAYS {
            // The excess is cut at a random place, so that names that sort first do not hide the others forever.
            let [high, low, ..] = random_16();
            let at = usize::from(u16::from_be_bytes([high, low])) % found.len();
            found.rotate_left(at);
            found.truncate(wire::MAX_GATEWAYS);
        }
        found
    }

    pub(crate) fn names(&self) -> Vec<NodeName> {
        let mut names: Vec<_> = self.lock().keys().cloned().collect();
        names.sort();
        names
    }

    /// Accepts an announcement unless a live holder has the name. Returns the serial with which to withdraw it.
    async fn announce(
        &self,
        name: &NodeName,
        (endpoints, leads_to): (Vec<Endpoint>, Vec<AccessPattern>),
        link: Option<&Link>,
    ) -> Result<u64, RegisterError> {
        loop {
            let held = {
                let mut names = self.lock();
                // Incarnations are public, so only the session that announced the name may replace it without a
                // challenge.
                let rival = names.get(name).and_then(|held| match (&held.holder, link) {
                    (Holder::Own, None) => None,
                    (Holder::Own, Some(_)) => Some(Err(RegisterError::Taken(name.clone()))),
                    (Holder::Session(old), link) => {
                        let same = link.is_some_and(|link| old.same(link)) || old.down().is_some();
                        (!same).then(|| Ok((old.clone(), held.serial)))
                    }
                });
                match rival {
                    None => {
                        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                        let holder = link.map_or(Holder::Own, |link| Holder::Session(link.clone()));
                        names.insert(
                            name.clone(),
                            Announcement { endpoints, leads_to: leads_to.into(), holder, serial },
                        );
                        return Ok(serial);
                    }
                    Some(rival) => rival?,
                }
            };
            let (holder, serial) = held;
            if holder.probe(CHALLENGE).await {
                return Err(RegisterError::Taken(name.clone()));
            }
            holder.close(CloseCode::Superseded);
            self.withdraw(name, serial);
        }
    }

    pub(crate) async fn announce_own(&self, own: Registration) -> Result<u64, RegisterError> {
        self.announce(&own.name, (own.endpoints, own.leads_to), None).await
    }

    /// Withdraws an announcement, unless a newer one has replaced it.
    pub(crate) fn withdraw(&self, name: &NodeName, serial: u64) {
        let mut names = self.lock();
        if names.get(name).is_some_and(|held| held.serial == serial) {
            names.remove(name);
        }
    }
}

/// Binds the registrar's port.
pub(crate) fn bind(address: SocketAddr, credentials: Arc<CredentialsFn>) -> io::Result<Listener> {
    let tls = ServerTls::ephemeral().map_err(io::Error::other)?;
    let credentials = move |from: &NodeName, label: &str| credentials(from, label);
    Listener::bind(address, Mode::Registrar, tls, Box::new(credentials))
}

/// Serves sessions until dropped.
pub(crate) async fn serve(listener: Listener, native: Arc<Native>, table: Arc<Table>) {
    let sessions = Arc::new(Mutex::new(JoinSet::new()));
    let accept = move |offered: Offered| {
        let (table, sessions) = (table.clone(), sessions.clone());
        async move {
            let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            while sessions.try_join_next().is_some() {}
            sessions.spawn(session(offered, table));
        }
    };
    listener.serve(native, accept).await;
}

async fn session(offered: Offered, table: Arc<Table>) {
    let Ok(standing) = offered.accept(0, LinkPolicy::default()).await else { return };
    let peer = standing.info().peer.clone();
    let mailboxes = Arc::new(Mailboxes::default());
    let Ok(mut mailbox) = mailboxes.register(SERVICE) else { return };
    let (link, driver) = standing.start(mailboxes, Hooks::default());
    let mut announced = None;
    let answer = async {
        while let Some(message) = mailbox.recv().await {
            let response = respond(&message, &peer, &table, &link, &mut announced).await;
            message.reply(wire::encode(&response));
        }
    };
    tokio::select! {
        () = driver => {}
        () = answer => {}
    }
    if let Some(serial) = announced {
        table.withdraw(&peer, serial);
    }
}

async fn respond(
    message: &Message,
    peer: &NodeName,
    table: &Table,
    link: &Link,
    announced: &mut Option<u64>,
) -> Response {
    let request = match wire::decode(message.body()) {
        Ok(request) => request,
        Err(error) => return Response::Refused(Chain(&error).to_string()),
    };
    match request {
        Request::Resolve(name) => match NodeName::new(&name) {
            Ok(name) => Response::Endpoints(table.resolve(&name).iter().map(Into::into).collect()),
            Err(error) => Response::Refused(Chain(&error).to_string()),
        },
        Request::Gateways(name) => match NodeName::new(&name) {
            Ok(name) => Response::Gateways(table.gateways(&name).iter().map(ToString::to_string).collect()),
            Err(error) => Response::Refused(Chain(&error).to_string()),
        },
        Request::Register(endpoints, leads_to) => {
            match wire::endpoints(&endpoints).and_then(|endpoints| Ok((endpoints, wire::patterns(&leads_to)?))) {
                Err(error) => Response::Refused(Chain(&error).to_string()),
                Ok(announced_now) => match table.announce(peer, announced_now, Some(link)).await {
                    Ok(serial) => {
                        *announced = Some(serial);
                        Response::Registered
                    }
                    Err(_) => Response::Taken,
                },
            }
        }
    }
}
