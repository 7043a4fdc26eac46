//! Builds a node from a configuration.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use trunkline::registrar::{GivenRoute, NamesFile, NamesFileError, Registrar, Resolver, Rule};
use trunkline::{
    Address, Cause, CertificateError, DialTimes, EndpointError, Flag, GateLimits, Grants, IdentityFiles, KeepAlive,
    Listen, LogLevel, MAX_STREAMS, NameError, Node, NodeBuilder, NodeName, Policy, ProfileFiles, ProfileSource,
    RegisterError, ResolverId, ServerFiles, ServerSource, ServiceError, StartError,
};
use trunkline_config::{
    CertificateFiles, ClusterServer, Config, DnsConfig, EtcdConfig, ListenConfig, ListenTls, NodeConfig,
    RegistrarConfig, RegistrarRouteConfig, RegistrarRuleConfig, ResolverConfig, TlsProfileConfig,
};

use crate::ops::{OpError, offers, proxied, service_nodes, transit};
use crate::server::AdminError;

/// File in the data directory with the members of the cluster that the node was connected to.
const CLUSTER_BOOK: &str = "cluster.json";

/// Error returned when a node cannot be started from a configuration. Names the key at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The operations API cannot listen.
    #[error("node.admin cannot be used")]
    Admin(#[source] AdminError),
    /// A listener has no address to announce.
    #[error("node.listen.advertise cannot be used; a listener on port 0 needs advertise.port")]
    Advertise(#[source] EndpointError),
    /// An entry of `applications` cannot be offered.
    #[error("applications.{name} cannot be offered")]
    Application {
        /// Name of the application.
        name: String,
        /// Reason.
        source: RegisterError,
    },
    /// An entry of `forwards` cannot be forwarded.
    #[error("forwards[{index}] cannot be used")]
    Forward {
        /// Index of the entry, from 0.
        index: usize,
        /// Reason.
        source: OpError,
    },
    /// A registrar is of a kind that this build lacks.
    #[error(
        "registrars.{id} cannot be used: the kind {kind} needs a build with the feature `{kind}`; released binaries have it"
    )]
    Kind {
        /// Id of the registrar.
        id: String,
        /// Kind, which is the name of the feature as well.
        kind: &'static str,
    },
    /// A registrar cannot be used.
    #[error("registrars.{id} cannot be used")]
    Registrar {
        /// Id of the registrar.
        id: String,
        /// Reason.
        source: Cause,
    },
    /// The registrar of the node does not answer.
    #[error("registrars.{id} cannot be used now; start the node again once it answers, or set node.registrar: none")]
    Unreachable {
        /// Id of the registrar.
        id: String,
        /// Reason.
        source: trunkline::registrar::RegisterError,
    },
    /// A node of this name cannot be built.
    #[error("node.name cannot be used")]
    Name(#[source] NameError),
    /// A host name has no address.
    #[error("{key} cannot be used: the host {host} has no address")]
    NoAddress {
        /// Key that holds the host name.
        key: &'static str,
        /// Host name.
        host: String,
    },
    /// A host name cannot be resolved.
    #[error("{key} cannot be used: the host {host} cannot be resolved")]
    Resolve {
        /// Key that holds the host name.
        key: &'static str,
        /// Host name.
        host: String,
        /// Error of the system's resolver.
        source: io::Error,
    },
    /// An entry of `services` cannot be offered.
    #[error("services.{name} cannot be offered")]
    Service {
        /// Name of the service.
        name: String,
        /// Reason.
        source: ServiceError,
    },
    /// An entry of `spawn` cannot be offered.
    #[error("spawn.{name} cannot be offered")]
    Spawn {
        /// Name of the program.
        name: String,
        /// Reason.
        source: RegisterError,
    },
    /// The node did not start.
    #[error("{}", not_started(.0))]
    Start(#[source] StartError),
}

impl RunError {
    /// Returns the error of a node that did not start, about a registrar of `registrars` if the node has one of these.
    pub(crate) fn start(error: StartError, config: &Config) -> Self {
        match (error, &config.node.registrar) {
            (StartError::Registrar(error), RegistrarConfig::Asked(id)) if error.is_unreachable() => {
                Self::Unreachable { id: id.to_string(), source: error }
            }
            (StartError::Registrar(error), RegistrarConfig::Asked(id)) => {
                Self::Registrar { id: id.to_string(), source: Cause::new(error) }
            }
            (error, _) => Self::Start(error),
        }
    }

    /// Returns true if the node may start later with the same configuration.
    pub fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Returns what did not start, with the key at fault, and what to do.
fn not_started(error: &StartError) -> &'static str {
    match error {
        StartError::Listen { .. } => "node.listen cannot be used",
        StartError::RegistrarListen { .. } => {
            "node.registrar_listen cannot be used; choose another address, or set node.registrar: none"
        }
        StartError::Registrar(error) if error.is_unreachable() => {
            "node.registrar cannot be used; another program may be using that port: stop it, choose another \
             node.registrar_listen, or set node.registrar: none"
        }
        StartError::Registrar(_) => "node.registrar cannot be used",
        StartError::Offer(_) => "node.announce cannot be used",
        StartError::Route { .. } => "routes cannot be used",
        _ => "the node cannot start",
    }
}

/// Returns the builder of the node that a configuration describes. `connections` is the log level of connections
/// without one of their own.
pub(crate) async fn builder(config: &Config, connections: LogLevel) -> Result<NodeBuilder, RunError> {
    let node = &config.node;
    let (builder, mut registrars) = common(config, node.name.clone(), connections)?;
    let mut builder = builder.hidden(node.hidden);
    for config in &node.listen {
        for listen in listen(config).await? {
            builder = builder.listen(listen);
        }
    }
    if let Some(cluster) = &config.clustering {
        let (name, routes) = (cluster.name.clone(), cluster.routes.clone());
        builder = match cluster.server {
            ClusterServer::Hub => builder.cluster(name, routes),
            ClusterServer::Leaf => builder.cluster_leaf(name, routes),
        };
        builder = builder.cluster_book(node.data_dir.join(CLUSTER_BOOK));
    }
    Ok(match &node.registrar {
        RegistrarConfig::Embedded if !node.registrar_serve => builder.embedded_registrar_client(registrar(node).await?),
        RegistrarConfig::Embedded => builder.embedded_registrar(registrar(node).await?).registrar_grants(grants(node)),
        RegistrarConfig::Asked(id) => match registrars.remove(id) {
            Some(registrar) => builder.registrar(id.clone(), registrar),
            None => builder.discovery(id.clone()),
        },
        _ => builder.no_registrar(),
    })
}

/// Returns the builder of a hidden node without listeners that has a random name on the host of the configured node,
/// and its routes and cookies.
pub(crate) async fn client_builder(config: &Config, connections: LogLevel) -> Result<NodeBuilder, RunError> {
    let node = &config.node;
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let name = NodeName::new(format!("cli-{random:016x}@{}", node.name.host())).map_err(RunError::Name)?;
    let (builder, mut registrars) = common(config, name, connections)?;
    let builder = builder.hidden(true);
    Ok(match &node.registrar {
        RegistrarConfig::Embedded => builder.embedded_registrar_client(registrar(node).await?),
        RegistrarConfig::Asked(id) => match registrars.remove(id) {
            Some(registrar) => builder.registrar(id.clone(), registrar),
            None => builder.discovery(id.clone()),
        },
        _ => builder.no_registrar(),
    })
}

/// Registrars of a configuration with which a node can be registered.
type Registrars = BTreeMap<ResolverId, Arc<dyn Registrar>>;

fn common(config: &Config, name: NodeName, connections: LogLevel) -> Result<(NodeBuilder, Registrars), RunError> {
    let (node, times) = (&config.node, &config.node.timeouts);
    let policy = Policy {
        fallback: node.fallback,
        resolve: times.resolve,
        dns: times.dns,
        candidate: times.candidate,
        total: times.total,
        equal_weights: node.race_equal_weights,
        ..Policy::default()
    };
    let mut builder = Node::builder(name)
        .map_err(RunError::Name)?
        .cookie(node.cookie.clone())
        .policy(policy)
        .times(DialTimes { tcp: times.tcp, tls: times.tls, handshake: times.handshake })
        .tls(node.tls)
        .handshake(node.handshake.clone())
        .log_level(node.log_level.unwrap_or(connections))
        .reconnect(node.reconnect)
        .keep_alive(KeepAlive { idle: node.keep_alive, dead: node.dead_after, ..KeepAlive::default() });
    for flag in Flag::ALL {
        builder = builder.flag(*flag, node.flags.has(*flag));
    }
    let mut registrars = Registrars::new();
    for (id, registrar) in &config.registrars {
        builder = match registrar {
            ResolverConfig::Embedded { address, cookie } => {
                builder.registrar_at(id.clone(), address.clone(), cookie.clone())
            }
            ResolverConfig::File(path) => builder.resolver(id.clone(), Arc::new(NamesFile::new(path))),
            ResolverConfig::Dns(config) => builder.resolver(id.clone(), dns(id, config)?),
            ResolverConfig::Etcd(etcd_config) => {
                let etcd = etcd(id, etcd_config, config)?;
                registrars.insert(id.clone(), etcd.clone());
                builder.resolver(id.clone(), etcd.resolver())
            }
        };
    }
    for (id, profile) in &config.tls_profiles {
        builder = builder.tls_profile(id.clone(), profile_files(profile));
    }
    for offer in offers(config) {
        builder = builder.offer(offer);
    }
    builder = builder.service_nodes(service_nodes(config));
    for peer in &config.peers {
        builder = builder.peer(peer.pattern.clone(), peer.cookie.clone());
    }
    for route in &config.routes {
        builder = builder.route(route.pattern.as_str(), route.route.clone(), route.weight);
    }
    for route in &config.proxy_routes {
        builder = builder.proxy_route(route.pattern.as_str(), route.route.clone(), route.weight);
    }
    let (transit, limits) = transit(&config.transit);
    Ok((builder.transit(transit).circuit_limits(limits).proxied(proxied(&config.proxied)), registrars))
}

/// Returns what the node permits and hands out while it serves as the registrar.
fn grants(node: &NodeConfig) -> Grants {
    let rule = |rule: &RegistrarRuleConfig| Rule {
        names: rule.names.clone(),
        cookie: rule.cookie.clone(),
        gateways: rule.gateways.clone(),
        services: rule.services.clone(),
    };
    let route = |route: &RegistrarRouteConfig| GivenRoute {
        pattern: route.pattern.as_str().to_owned(),
        endpoint: route.endpoint.clone(),
    };
    Grants {
        rules: node.registrar_rules.iter().map(rule).collect(),
        routes: node.registrar_routes.iter().map(route).collect(),
    }
}

/// Error about a file that a configuration names. Names the key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Certificates cannot be used.
    #[error("{key} cannot be used")]
    Certificates {
        /// Key of the listener or TLS profile.
        key: String,
        /// Reason.
        source: CertificateError,
    },
    /// A file of names cannot be used.
    #[error("{key} cannot be used")]
    Names {
        /// Key of the file.
        key: String,
        /// Reason.
        source: NamesFileError,
    },
}

/// Checks that the files named by a configuration can be used now. Loading a configuration only checks that the files
/// are readable. Returns warnings about the files.
///
/// # Errors
/// An error for each file that cannot be used.
pub fn check_files(config: &Config) -> Result<Vec<String>, Vec<FileError>> {
    let listeners = config.node.listen.iter().enumerate().filter_map(|(i, listen)| {
        let source: ServerSource = server_files(listen.tls.as_ref()?).into();
        Some((format!("node.listen[{i}].tls"), source.check()))
    });
    let profiles = config.tls_profiles.iter().map(|(id, profile)| {
        let source: ProfileSource = profile_files(profile).into();
        (format!("tls_profiles.{id}"), source.check())
    });
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    for (key, checked) in listeners.chain(profiles) {
        match checked {
            Ok(found) => warnings.extend(found.into_iter().map(|warning| format!("{key}: {warning}"))),
            Err(source) => errors.push(FileError::Certificates { key, source }),
        }
    }
    for (id, registrar) in &config.registrars {
        if let ResolverConfig::File(names) = registrar
            && let Err(source) = NamesFile::new(names).check()
        {
            errors.push(FileError::Names { key: format!("registrars.{id}.path"), source });
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(errors) }
}

#[cfg(feature = "dns")]
fn dns(id: &ResolverId, config: &DnsConfig) -> Result<Arc<dyn Resolver>, RunError> {
    use trunkline_registrar_dns::{Dns, DnsSettings};

    let DnsConfig { servers, srv, port, ports, gateways, services } = config.clone();
    let made = Dns::new(DnsSettings { servers, srv, port, ports, gateways, services });
    match made {
        Ok(dns) => Ok(Arc::new(dns)),
        Err(error) => Err(RunError::Registrar { id: id.to_string(), source: Cause::new(error) }),
    }
}

#[cfg(not(feature = "dns"))]
fn dns(id: &ResolverId, _: &DnsConfig) -> Result<Arc<dyn Resolver>, RunError> {
    Err(RunError::Kind { id: id.to_string(), kind: "dns" })
}

#[cfg(feature = "etcd")]
fn etcd(_: &ResolverId, etcd: &EtcdConfig, config: &Config) -> Result<Arc<dyn Registrar>, RunError> {
    use trunkline_registrar_etcd::{Etcd, EtcdSettings, EtcdTls, EtcdUser};

    let EtcdConfig { endpoints, prefix, user, tls, tls_profile } = etcd.clone();
    let user = user.map(|(name, password)| EtcdUser { name, password });
    let profile = tls_profile.and_then(|id| config.tls_profiles.get(&id).cloned()).unwrap_or_default();
    let identity = profile.certificate.map(|files| (files.certificate, files.key));
    let tls = tls.then_some(EtcdTls { roots: profile.roots, identity, server_name: profile.server_name });
    Ok(Arc::new(Etcd::new(EtcdSettings { endpoints, prefix, user, tls })))
}

#[cfg(not(feature = "etcd"))]
fn etcd(id: &ResolverId, _: &EtcdConfig, _: &Config) -> Result<Arc<dyn Registrar>, RunError> {
    Err(RunError::Kind { id: id.to_string(), kind: "etcd" })
}

/// Descriptors that every node needs: listeners, the log, the runtime, connections to the operations API.
const BASE_DESCRIPTORS: u64 = 320;

/// Returns the number of file descriptors that the node of a configuration needs if all slots for callers before
/// authentication and for connections of its forwards and services are in use. Each link to a peer needs one more.
pub fn file_descriptors(config: &Config) -> u64 {
    let streams = config.forwards.len() + usize::from(!config.services.is_empty());
    BASE_DESCRIPTORS + (GateLimits::default().slots + streams * MAX_STREAMS) as u64
}

fn identity_files(files: &CertificateFiles) -> IdentityFiles {
    IdentityFiles { certificate: files.certificate.clone(), key: files.key.clone() }
}

fn profile_files(config: &TlsProfileConfig) -> ProfileFiles {
    ProfileFiles {
        roots: config.roots.clone(),
        identity: config.certificate.as_ref().map(identity_files),
        server_name: config.server_name.as_ref().map(ToString::to_string),
        cert_name_required: config.cert_name_required,
    }
}

fn server_files(config: &ListenTls) -> ServerFiles {
    ServerFiles {
        identity: identity_files(&config.identity),
        client_roots: config.client_ca.clone(),
        client_certificate_optional: config.client_optional,
        cert_name_required: config.cert_name_required,
    }
}

/// Returns the listeners of an entry: one for each address of its host that this machine has. With port 0, only the
/// first address is used.
async fn listen(config: &ListenConfig) -> Result<Vec<Listen>, RunError> {
    let mut addresses = resolve("node.listen", config.host.as_str(), config.port).await?;
    if config.port == 0 {
        addresses.truncate(1);
    }
    if addresses.len() > 1 {
        // `localhost` may resolve to `::1` although IPv6 is off. The port does not matter for this test.
        let is_here =
            |address: &SocketAddr| !matches!(std::net::TcpListener::bind((address.ip(), 0)), Err(e) if is_missing(&e));
        let here: Vec<_> = addresses.iter().copied().filter(is_here).collect();
        addresses = if here.is_empty() { addresses } else { here };
    }
    addresses.into_iter().map(|address| listen_at(config, address)).collect()
}

/// Returns true if the error means that this machine does not have the address.
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::Unsupported)
}

fn listen_at(config: &ListenConfig, address: SocketAddr) -> Result<Listen, RunError> {
    let mut listen = Listen::at(address);
    if let Some(advertise) = &config.advertise {
        // `Listen` announces the free port that was chosen only if no address is set, so port 0 must be replaced here.
        let port = advertise.port.map_or(config.port, u16::from);
        let host = advertise.host.as_ref().map_or_else(|| config.host.to_string(), ToString::to_string);
        let advertised = Address::new(host, port).map_err(RunError::Advertise)?;
        listen = listen.advertise(advertised);
    }
    if let Some(tls) = &config.tls {
        listen = listen.tls(server_files(tls));
    }
    if let Some(cookie) = &config.cookie {
        listen = listen.cookie(cookie.clone());
    }
    if let Some(allow) = &config.allow {
        listen = listen.allow(allow.clone());
    }
    Ok(listen)
}

async fn registrar(node: &NodeConfig) -> Result<SocketAddr, RunError> {
    let listen = &node.registrar_listen;
    // Every node of a host resolves the same first address, for serving as well as for asking.
    Ok(resolve("node.registrar_listen", listen.host.as_str(), listen.port.get()).await?[0])
}

/// Returns the addresses of a host, at least one.
async fn resolve(key: &'static str, host: &str, port: u16) -> Result<Vec<SocketAddr>, RunError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|source| RunError::Resolve { key, host: host.to_owned(), source })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(RunError::NoAddress { key, host: host.to_owned() });
    }
    Ok(addresses)
}
