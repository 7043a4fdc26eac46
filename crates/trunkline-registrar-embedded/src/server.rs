//! Server of a registrar.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use trunkline_link::{CredentialsFn, Hooks, Listener, Native, Offered, random_16};
use trunkline_registrar::{GivenRoute, Mirror, RegisterError, Registration, Rule, Serving, Watch, permits};
use trunkline_route::{Chain, CloseCode, Endpoint, LinkPolicy, NodeName, ServiceName};
use trunkline_stack::{Link, Mailboxes, Message};
use trunkline_tls::ServerTls;
use trunkline_wire::handshake::Mode;

use crate::client::now;
use crate::wire::{self, MAX_NEWS, MAX_NEWS_BYTES, News, Request, Response, SERVICE};

/// Timeout within which the previous holder of a name must prove that it is alive.
const CHALLENGE: Duration = Duration::from_secs(1);

/// Holder of an announced name.
enum Holder {
    /// The node that runs this server.
    Own,
    /// Another node, by its session.
    Session(Link),
}

struct Held {
    holder: Holder,
    /// Serial number that distinguishes successive announcements of one name.
    serial: u64,
}

/// Permissions of the nodes of a registrar, and the routes that it hands out to them.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// Rules about who may announce which names, gateways and services; anything if there are none. The node that serves may
    /// announce anything itself.
    pub rules: Vec<Rule>,
    /// Static routes that each node gets while it is registered or joined; at most [`MAX_ROUTES`](crate::MAX_ROUTES) are
    /// handed out.
    pub routes: Vec<GivenRoute>,
}

/// Announcements of one registrar.
pub(crate) struct Table {
    /// Holder of each announcement of the mirror. Both are changed under this lock.
    holders: Mutex<HashMap<NodeName, Held>>,
    mirror: Arc<Mirror>,
    /// Time at which this node began to serve.
    began: OnceLock<Instant>,
    serial: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) grants: Grants,
}

impl Table {
    pub(crate) fn new(grants: Grants) -> Self {
        let (holders, serial, queries) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { holders, mirror: Arc::new(Mirror::new()), began: OnceLock::new(), serial, queries, grants }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Held>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this node serves from now on.
    pub(crate) fn begin(&self) {
        self.began.get_or_init(now);
    }

    /// Returns the time for which this node serves.
    pub(crate) fn age(&self) -> Duration {
        self.began.get().map_or(Duration::ZERO, |began| now().saturating_duration_since(*began))
    }

    pub(crate) fn watch(&self) -> Watch {
        self.mirror.watch()
    }

    pub(crate) fn resolve(&self, name: &NodeName) -> Vec<Endpoint> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.mirror.get(name).map(|found| found.endpoints.clone()).unwrap_or_default()
    }

    /// Returns the gateways that lead to a name, sorted, limited to what an answer can hold.
    pub(crate) fn gateways(&self, name: &NodeName) -> Vec<NodeName> {
        let mut found = self.mirror.leading_to(name);
        if found.len() > wire::MAX_GATEWAYS {
            // The excess is cut at a random place, so that names that sort first do not hide the others forever.
            let [high, low, ..] = random_16();
            let at = usize::from(u16::from_be_bytes([high, low])) % found.len();
            found.rotate_left(at);
            found.truncate(wire::MAX_GATEWAYS);
        }
        found
    }

    pub(crate) fn serving(&self, service: &ServiceName) -> Vec<Serving> {
        self.mirror.offering(service)
    }

    pub(crate) fn names(&self) -> Vec<NodeName> {
        self.mirror.all().iter().map(|announced| announced.name.clone()).collect()
    }

    /// Accepts an announcement unless a live holder has the name. Returns the serial with which to withdraw it.
    async fn announce(&self, announced: Registration, link: Option<&Link>) -> Result<u64, RegisterError> {
        let name = &announced.name;
        let taken = || RegisterError::Taken {
            name: name.clone(),
            endpoints: self.mirror.get(name).map(|held| held.endpoints.clone()).unwrap_or_default(),
        };
        loop {
            let held = {
                let mut holders = self.lock();
                // Incarnations are public, so only the session that announced the name may replace it without a
                // challenge.
                let rival = holders.get(name).and_then(|held| match (&held.holder, link) {
                    (Holder::Own, None) => None,
                    (Holder::Own, Some(_)) => Some(Err(taken())),
                    (Holder::Session(old), link) => {
                        let same = link.is_some_and(|link| old.same(link)) || old.down().is_some();
                        (!same).then(|| Ok((old.clone(), held.serial)))
                    }
                });
                match rival {
                    None => {
                        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                        let holder = link.map_or(Holder::Own, |link| Holder::Session(link.clone()));
                        holders.insert(name.clone(), Held { holder, serial });
                        self.mirror.set(announced);
                        return Ok(serial);
                    }
                    Some(rival) => rival?,
                }
            };
            let (holder, serial) = held;
            if holder.probe(CHALLENGE).await {
                return Err(taken());
            }
            holder.close(CloseCode::Superseded);
            self.withdraw(name, serial);
        }
    }

    pub(crate) async fn announce_own(&self, own: Registration) -> Result<u64, RegisterError> {
        self.announce(own, None).await
    }

    /// Withdraws an announcement, unless a newer one has replaced it.
    pub(crate) fn withdraw(&self, name: &NodeName, serial: u64) {
        let mut holders = self.lock();
        if holders.get(name).is_some_and(|held| held.serial == serial) {
            holders.remove(name);
            self.mirror.remove(name);
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
    let (begin, watches) = oneshot::channel();
    let answer = async {
        let mut begin = Some(begin);
        while let Some(message) = mailbox.recv().await {
            let response = respond(&message, &peer, &table, &link, &mut announced).await;
            let is_watched = matches!(response, Response::Watching { .. });
            message.reply(wire::encode(&response));
            if let Some(begin) = begin.take_if(|_| is_watched) {
                let _ = begin.send(());
            }
        }
    };
    let tell = async {
        match watches.await {
            // A session that cannot be told ends, so that the other side knows.
            Ok(()) => tell(table.watch(), &link).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = driver => {}
        () = answer => {}
        () = tell => {}
    }
    if let Some(serial) = announced {
        table.withdraw(&peer, serial);
    }
}

/// Tells a session the nodes and each change. A session that is slow gets the latest announcement of a node only.
async fn tell(mut watch: Watch, link: &Link) {
    loop {
        let mut news = Vec::new();
        let mut change = Some(watch.next().await);
        while let Some(next) = change.take() {
            news.extend(News::new(&next));
            if news.len() < MAX_NEWS && news.iter().map(News::len).sum::<usize>() < MAX_NEWS_BYTES {
                change = watch.take();
            }
        }
        if link.send(SERVICE, "", &wire::encode(&news)).await.is_err() {
            return;
        }
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
        Request::Serving(service) => match ServiceName::new(&service) {
            Ok(service) => Response::Serving(wire::wire_serving(&service, table.serving(&service))),
            Err(error) => Response::Refused(Chain(&error).to_string()),
        },
        Request::Routes => Response::Routes(
            table.grants.routes.iter().map(|given| (given.pattern.clone(), (&given.endpoint).into())).collect(),
        ),
        Request::Register(node) => {
            let registration = match node.registration(peer.clone()) {
                Ok(registration) => registration,
                Err(error) => return Response::Refused(Chain(&error).to_string()),
            };
            if let Err(error) = permits(&table.grants.rules, &registration, link.info().cookie.label()) {
                return Response::Refused(error.to_string());
            }
            match table.announce(registration, Some(link)).await {
                Ok(serial) => {
                    *announced = Some(serial);
                    Response::Registered
                }
                Err(RegisterError::Taken { endpoints, .. }) => {
                    Response::Taken(endpoints.iter().map(Into::into).collect())
                }
                Err(error) => Response::Refused(Chain(&error).to_string()),
            }
        }
        Request::Watch => Response::Watching { age_ms: table.age().as_millis().try_into().unwrap_or(u64::MAX) },
    }
}
