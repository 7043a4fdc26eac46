//! The start of a node: from the settings of a builder to tasks that run.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinSet;
use trunkline_dial::sessions::Keys;
use trunkline_dial::{Gateways, RouteTable, Sessions, SessionsConfig};
use trunkline_forward::Services;
use trunkline_mesh::{Cluster, MESH_MAILBOX, Role, Settings};
use trunkline_process::runtime::Processes;
use trunkline_proxy::{Gateway, Members};
use trunkline_registrar::{Registrar, Registration, check_offers};
use trunkline_registrar_embedded::{Embedded, RegistrarAt};
use trunkline_route::{
    Address, Chain, Cookie, Defaults, Endpoint, IntoName, NameError, NodeName, PeerFlags, ResolverId,
};
use trunkline_stack::{BoxFuture, Listening, LocalLimits};

use crate::builder::{Listen, Membership, NodeBuilder, RegistrarChoice};
use crate::events::CAPACITY;
use crate::inner::{Handle, Inner};
use crate::native::{NativeParts, registrar_credentials};
use crate::{Node, StartError, random_16, services};

/// The id of the embedded registrar in routes.
const EMBEDDED: &str = "embedded";
/// The id of the members of the cluster in routes.
const CLUSTER: &str = "cluster";
/// Time that a hidden node waits at its start for the routes that its registrar hands out.
const JOINED: Duration = Duration::from_millis(500);

/// The address of the embedded registrar when the builder names none.
const REGISTRAR: ([u8; 4], u16) = ([127, 0, 0, 1], 4499);

impl Node {
    /// Begins a node of this name, `name@host`.
    ///
    /// # Errors
    /// [`NameError`] when the text is no node name.
    pub fn builder(name: impl IntoName) -> Result<NodeBuilder, NameError> {
        Ok(NodeBuilder::new(name.into_name()?))
    }
}

impl NodeBuilder {
    /// Binds, registers and starts.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the node runs.
    pub async fn start(self) -> Result<Node, StartError> {
        start_boxed(self).await
    }
}

/// The members of the cluster of a node, as its gateway sees them.
struct Relays(Arc<Cluster>);

impl Members for Relays {
    fn is_member(&self, name: &NodeName) -> bool {
        self.0.role() != Role::Leaf && self.0.is_neighbour(name)
    }

    fn leads_to(&self, name: &NodeName) -> bool {
        self.0.role() != Role::Leaf && self.0.is_led_to(name)
    }

    fn gateways(&self, name: &NodeName) -> Vec<NodeName> {
        self.0.gateways_to(name)
    }
}

/// The registrars of a node that starts.
struct Registrars {
    embedded: Option<Arc<Embedded>>,
    /// The one that the node registers with.
    own: Option<Arc<dyn Registrar>>,
}

/// Boxed: a future that is not is compiled again in every crate that awaits it.
fn start_boxed(builder: NodeBuilder) -> BoxFuture<'static, Result<Node, StartError>> {
    Box::pin(start(builder))
}

async fn start(mut builder: NodeBuilder) -> Result<Node, StartError> {
    if let Some(error) = builder.refused {
        return Err(error);
    }
    check_offers(&builder.offers)?;
    let cookies = builder.cookie.take().ok_or(StartError::NoCookie)?;
    let cookie = cookies.current().clone();
    let keys = Arc::new(Keys::new(std::mem::take(&mut builder.peers), cookies));
    let proxied = Arc::new(RwLock::new(std::mem::take(&mut builder.proxied)));
    let parts = NativeParts::new(&builder, &keys, &proxied)?;
    let mut config = SessionsConfig::new(builder.name.clone(), parts.native.incarnation(), cookie.clone());
    let registrars = registrars(&mut builder, &mut config, &parts, &keys, &cookie)?;
    config.routes = routes(&mut builder, &config, &parts)?;
    config.stacks.push(parts.stack.clone());
    config.stacks.append(&mut builder.stacks);
    let window = builder.limits.window;
    config.local = LocalLimits { mailbox: window.mailbox, max_message: window.max_message };
    config.keys = keys;
    config.policy = builder.policy;
    config.defaults = Defaults {
        cookie,
        tls: builder.tls,
        version: builder.version.clone(),
        flags: builder.flags,
        log_level: builder.log_level,
        reconnect: builder.reconnect,
    };
    let mut listeners = parts.listeners;
    listeners.append(&mut builder.listeners);
    let listening: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.address()).collect();
    config.own_addresses = listening.clone();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (nth, listener) in listeners.iter().enumerate() {
        let announced = announced(builder.listen.get(nth), &**listener, &builder.name);
        // Several listeners may be announced as one address.
        endpoints.extend(announced.filter(|endpoint| !endpoints.contains(endpoint)));
    }
    let cluster = cluster(&mut builder, &mut config, &endpoints)?;

    let leads_to = builder.transit.rules.iter().map(|rule| rule.to.clone()).collect();
    let own = Registration::new(builder.name.clone(), endpoints).leading_to(leads_to).offering(builder.offers);
    let incarnation = config.incarnation;
    // A dead link is noticed, and then there is time to find another way.
    let open_timeout = builder.limits.keep_alive.dead.saturating_add(config.policy.total);
    let answering = builder.answering.unwrap_or(parts.answering);
    let inner = Arc::new_cyclic(|own: &Weak<Inner>| {
        let node = own.clone();
        let sessions = Sessions::new(config, move |event| {
            if let Some(node) = node.upgrade() {
                node.happened(event);
            }
        });
        let gateway = Gateway::new(sessions.clone(), builder.transit, proxied, builder.circuits, answering);
        let as_gateways: Arc<dyn Gateways> = gateway.clone();
        sessions.set_gateways(Arc::downgrade(&as_gateways));
        Inner {
            services: Services::new(Arc::downgrade(&sessions) as _, open_timeout),
            processes: Processes::new(builder.name.clone(), incarnation, sessions.mailboxes().clone()),
            sessions,
            gateway,
            cluster,
            native: parts.native,
            certificates: parts.certificates,
            events: broadcast::Sender::new(CAPACITY),
        }
    });
    services::receive(&inner);
    if let Some(cluster) = inner.cluster.clone() {
        inner.gateway.set_members(Box::new(Relays(cluster)));
    }
    // Before anybody can connect: the first message of a member finds its mailbox.
    if let Some(cluster) = inner.cluster.clone() {
        let sessions = &inner.sessions;
        let mailbox = sessions.mailboxes().register(MESH_MAILBOX).expect("nobody else has a mailbox of that name");
        sessions.spawn(cluster.run(Arc::downgrade(sessions), mailbox));
    }
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let sessions = Arc::downgrade(&inner.sessions);
        tasks.spawn(listener.serve(Arc::new(move |caller| {
            let sessions = sessions.upgrade();
            Box::pin(async move {
                if let Some(sessions) = sessions {
                    // The reason of a refusal is in the log of the sessions.
                    let _ = sessions.accept(caller, PeerFlags::ALL).await;
                }
            })
        })));
    }
    if !inner.certificates.is_empty() {
        tasks.spawn(follow_certificates(Arc::downgrade(&inner), builder.certificate_check));
    }
    let handle = Handle {
        inner,
        listeners: Mutex::new(tasks),
        listening,
        lease: Mutex::default(),
        own: Mutex::new(own.clone()),
        given: Mutex::default(),
        is_hidden: builder.hidden || own.endpoints.is_empty(),
        embedded: registrars.embedded,
    };
    let node = Node { handle: Arc::new(handle) };
    let serving = node.inner().processes.serve(Arc::downgrade(&node.handle) as _);
    node.inner().sessions.spawn(serving.expect("nobody else has a mailbox of that name"));
    match registrars.own {
        Some(registrar) if !node.handle.is_hidden => node.handle.keep(registrar.register(own).await?),
        Some(registrar) => join(&node, registrar).await,
        None => {}
    }
    Ok(node)
}

/// Lets a hidden node take part at its registrar. One that does not answer soon is not waited for: its routes come later.
async fn join(node: &Node, registrar: Arc<dyn Registrar>) {
    let handle = Arc::downgrade(&node.handle);
    let joined = tokio::spawn(async move {
        match (registrar.join().await, handle.upgrade()) {
            (Ok(lease), Some(handle)) => handle.keep(lease),
            (Err(error), _) => tracing::debug!(error = %Chain(&error), "the registrar hands out nothing"),
            _ => {}
        }
    });
    let _ = tokio::time::timeout(JOINED, joined).await;
}

/// Starts the registrar of the node, and puts all resolvers into the settings.
fn registrars(
    builder: &mut NodeBuilder,
    config: &mut SessionsConfig,
    parts: &NativeParts,
    keys: &Arc<Keys>,
    cookie: &Cookie,
) -> Result<Registrars, StartError> {
    let native = &parts.native;
    let choice = builder.registrar.take().unwrap_or_else(|| match builder.discovery.is_empty() {
        true => RegistrarChoice::Embedded { listen: REGISTRAR.into(), serve: true },
        false => RegistrarChoice::None,
    });
    let embedded = match &choice {
        RegistrarChoice::Embedded { listen, serve: true } => {
            let (credentials, grants) = (registrar_credentials(keys.clone()), std::mem::take(&mut builder.grants));
            let started = Embedded::start_with(native.clone(), *listen, cookie.clone(), credentials, grants);
            Some(started.map_err(|cause| StartError::RegistrarListen { address: *listen, cause })?)
        }
        RegistrarChoice::Embedded { listen, serve: false } => {
            Some(Embedded::client(native.clone(), *listen, cookie.clone()))
        }
        _ => None,
    };
    let embedded = embedded.map(Arc::new);
    let registrar: Option<(ResolverId, Arc<dyn Registrar>)> = match choice {
        RegistrarChoice::Embedded { .. } => ResolverId::new(EMBEDDED).ok().zip(embedded.clone().map(|e| e as _)),
        RegistrarChoice::Own(id, registrar) => Some((id, registrar)),
        RegistrarChoice::None => None,
    };
    config.resolvers = std::mem::take(&mut builder.resolvers);
    for (id, address, own) in builder.registrars.drain(..) {
        let cookie = own.unwrap_or_else(|| cookie.clone());
        config.resolvers.insert(id, Arc::new(RegistrarAt::new(native.clone(), address, cookie)));
    }
    config.discovery = std::mem::take(&mut builder.discovery);
    config.service_nodes = std::mem::take(&mut builder.service_nodes);
    if let Some(id) = config.discovery.iter().find(|id| !config.resolvers.contains_key(id)) {
        return Err(StartError::UnknownResolver(id.clone()));
    }
    if let Some((id, registrar)) = &registrar {
        config.resolvers.insert(id.clone(), registrar.resolver());
        config.discovery.push(id.clone());
    }
    Ok(Registrars { embedded, own: registrar.map(|(_, registrar)| registrar) })
}

/// Makes the node a member of its cluster, if it has one, and the members a part of discovery that is asked first.
fn cluster(
    builder: &mut NodeBuilder,
    config: &mut SessionsConfig,
    endpoints: &[Endpoint],
) -> Result<Option<Arc<Cluster>>, StartError> {
    let Some(Membership { name, routes, is_leaf }) = builder.cluster.take() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h, ..] = random_16();
    let settings = Settings {
        cluster: name,
        name: builder.name.clone(),
        incarnation: config.incarnation,
        endpoints: endpoints.iter().map(|endpoint| endpoint.address.clone()).collect(),
        is_hidden: builder.hidden,
        is_leaf,
        seed: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
    };
    // A leaf has its routes.
    let book = builder.cluster_book.take().filter(|_| !is_leaf);
    let cluster = Cluster::new(settings, routes, book)?;
    let id = ResolverId::new(CLUSTER).expect("the id is well-formed");
    config.resolvers.insert(id.clone(), cluster.clone());
    config.discovery.insert(0, id);
    Ok(Some(cluster))
}

fn routes(builder: &mut NodeBuilder, config: &SessionsConfig, parts: &NativeParts) -> Result<RouteTable, StartError> {
    let routes = RouteTable::new();
    routes.set_known(config.resolvers.keys().cloned(), parts.profiles.ids().cloned());
    let refused = |(pattern, cause)| StartError::Route { pattern, cause };
    routes.edit(|table| table.add_all(builder.routes.drain(..))).map_err(refused)?;
    routes.edit_proxies(|table| table.add_all(builder.proxy_routes.drain(..))).map_err(refused)?;
    Ok(routes)
}

/// Returns how a listener is announced: by the address that its settings say, else by its own, or by the host of the node's
/// name when it listens everywhere.
fn announced(listen: Option<&Listen>, listener: &dyn Listening, name: &NodeName) -> Option<Endpoint> {
    let bound = listener.address()?;
    let address = match listen.and_then(|listen| listen.advertise.clone()) {
        Some(address) => address,
        None if bound.ip().is_unspecified() => Address::new(name.host(), bound.port()).ok()?,
        None => bound.to_string().parse().ok()?,
    };
    // Whether a certificate is checked is the caller's business: its route says so.
    Some(Endpoint { address, tls: None, version: Some(listener.version()) })
}

/// Takes up certificates whose files change, for as long as the node lives.
async fn follow_certificates(node: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(node) = node.upgrade() else { return };
        // It reads files; a panic in it is a bug that must not end the following.
        let _ = tokio::task::spawn_blocking(move || node.look_at_certificates(false)).await;
    }
}
