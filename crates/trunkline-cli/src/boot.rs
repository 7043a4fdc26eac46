//! Builds a node from a configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use trunkline::registrar::NamesFile;
use trunkline::{
    Address, DialTimes, Flag, IdentityFiles, KeepAlive, Listen, Node, NodeBuilder, NodeName, Policy, ProfileFiles,
    ProfileSource, ServerFiles, ServerSource, StartError,
};
use trunkline_config::{
    CertificateFiles, Config, Layers, ListenConfig, ListenTls, NodeConfig, RegistrarConfig, ResolverConfig,
    TlsProfileConfig,
};

use crate::output::Failed;
use crate::serve;

/// Reads a configuration and logs its warnings.
pub(crate) fn load(path: &Path, layers: &Layers) -> Result<Config, Failed> {
    let config = Config::load(path, layers).map_err(Failed::usage)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// Starts the node that a configuration describes.
pub(crate) async fn start(path: &Path, config: &Config) -> Result<Node, Failed> {
    let builder = builder(config).await.map_err(|error| error.within(path))?;
    builder.start().await.map_err(|error| not_started(path, &error))
}

/// Returns the failure of a start, naming the configuration file and the key at fault.
fn not_started(path: &Path, error: &StartError) -> Failed {
    let key = match error {
        StartError::Listen { .. } => "node.listen: ",
        StartError::RegistrarListen { .. } => "node.registrar_listen: ",
        StartError::Registrar(_) => "node.registrar: ",
        StartError::Route { .. } => "routes: ",
        _ => "",
    };
    let remedy = match error {
        StartError::RegistrarListen { .. } => "; choose another address, or set node.registrar: none",
        StartError::Registrar(error) if error.is_unreachable() => {
            "; another program may be using that port: stop it, choose another node.registrar_listen, or set \
             node.registrar: none"
        }
        _ => "",
    };
    Failed::usage(format!("{key}{error}{remedy}")).within(path)
}

async fn builder(config: &Config) -> Result<NodeBuilder, Failed> {
    let node = &config.node;
    let mut builder = common(config, node.name.clone())?.hidden(node.hidden);
    for config in &node.listen {
        for listen in listen(config).await? {
            builder = builder.listen(listen);
        }
    }
    Ok(match &node.registrar {
        RegistrarConfig::Embedded => builder.embedded_registrar(registrar(node).await?),
        RegistrarConfig::Asked(id) => builder.discovery(id.clone()),
        _ => builder.no_registrar(),
    })
}

/// Starts a short-lived hidden node with the configuration's routes and cookies, under a name of its own.
pub(crate) async fn short_lived(path: &Path, config: &Config) -> Result<Node, Failed> {
    let node = &config.node;
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let name = NodeName::new(format!("cli-{random:016x}@{}", node.name.host())).map_err(Failed::usage)?;
    let builder = common(config, name).map_err(|error| error.within(path))?.hidden(true);
    let builder = match &node.registrar {
        RegistrarConfig::Embedded => builder.embedded_registrar_client(registrar(node).await?),
        RegistrarConfig::Asked(id) => builder.discovery(id.clone()),
        _ => builder.no_registrar(),
    };
    builder.start().await.map_err(|error| not_started(path, &error))
}

fn common(config: &Config, name: NodeName) -> Result<NodeBuilder, Failed> {
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
        .map_err(Failed::usage)?
        .cookie(node.cookie.clone())
        .policy(policy)
        .times(DialTimes { tcp: times.tcp, tls: times.tls, handshake: times.handshake })
        .tls(node.tls)
        .handshake(node.handshake.clone())
        .log_level(node.log_level.unwrap_or_else(serve::connection_level))
        .reconnect(node.reconnect)
        .keep_alive(KeepAlive { idle: node.keep_alive, dead: node.dead_after, ..KeepAlive::default() });
    for flag in Flag::ALL {
        builder = builder.flag(*flag, node.flags.has(*flag));
    }
    for (id, registrar) in &config.registrars {
        builder = match registrar {
            ResolverConfig::Embedded { address, cookie } => {
                builder.registrar_at(id.clone(), address.clone(), cookie.clone())
            }
            ResolverConfig::File(path) => builder.resolver(id.clone(), Arc::new(NamesFile::new(path))),
        };
    }
    for (id, profile) in &config.tls_profiles {
        builder = builder.tls_profile(id.clone(), profile_files(profile));
    }
    for peer in &config.peers {
        builder = builder.peer(peer.pattern.clone(), peer.cookie.clone());
    }
    for route in &config.routes {
        builder = builder.route(route.pattern.as_str(), route.route.clone(), route.weight);
    }
    for route in &config.proxy_routes {
        builder = builder.proxy_route(route.pattern.as_str(), route.route.clone(), route.weight);
    }
    let (transit, limits) = trunkline_admin::transit(&config.transit);
    Ok(builder.transit(transit).circuit_limits(limits).proxied(trunkline_admin::proxied(&config.proxied)))
}

/// Checks that the files named by the configuration can be used now, and returns warnings about them. Loading a
/// configuration only checks that the files are readable.
pub(crate) fn check_files(path: &Path, config: &Config) -> Result<Vec<String>, Failed> {
    let listeners = config.node.listen.iter().enumerate().filter_map(|(i, listen)| {
        let source: ServerSource = server_files(listen.tls.as_ref()?).into();
        Some((format!("node.listen[{i}].tls"), source.check()))
    });
    let profiles = config.tls_profiles.iter().map(|(id, profile)| {
        let source: ProfileSource = profile_files(profile).into();
        (format!("tls_profiles.{id}"), source.check())
    });
    let (mut warnings, mut certificates) = (Vec::new(), Vec::new());
    for (key, checked) in listeners.chain(profiles) {
        match checked {
            Ok(found) => warnings.extend(found.into_iter().map(|warning| format!("{key}: {warning}"))),
            Err(error) => certificates.push((key, error.to_string())),
        }
    }
    let names = config.registrars.iter().filter_map(|(id, registrar)| match registrar {
        ResolverConfig::File(names) => {
            Some((format!("registrars.{id}.path"), NamesFile::new(names).check().err()?.to_string()))
        }
        ResolverConfig::Embedded { .. } => None,
    });
    let problems: Vec<String> = certificates
        .into_iter()
        .chain(names)
        .map(|(key, problem)| format!("{}: {key}: {problem}", path.display()))
        .collect();
    if problems.is_empty() { Ok(warnings) } else { Err(Failed::usage(problems.join("\n\n"))) }
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
async fn listen(config: &ListenConfig) -> Result<Vec<Listen>, Failed> {
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

fn listen_at(config: &ListenConfig, address: SocketAddr) -> Result<Listen, Failed> {
    let mut listen = Listen::at(address);
    if let Some(advertise) = &config.advertise {
        // `Listen` announces the free port that was chosen only if no address is set, so port 0 must be replaced here.
        let port = advertise.port.map_or(config.port, u16::from);
        let host = advertise.host.as_ref().map_or_else(|| config.host.to_string(), ToString::to_string);
        let advertised = Address::new(host, port).map_err(|e| {
            Failed::usage(format!("node.listen.advertise: {e}; a listener on port 0 needs advertise.port"))
        })?;
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

async fn registrar(node: &NodeConfig) -> Result<SocketAddr, Failed> {
    let listen = &node.registrar_listen;
    // Every node of a host resolves the same first address, for serving as well as for asking.
    Ok(resolve("node.registrar_listen", listen.host.as_str(), listen.port.get()).await?[0])
}

/// Returns the addresses of a host, at least one.
async fn resolve(key: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failed> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|e| Failed::usage(format!("{key}: the host {host} cannot be resolved: {e}")))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(Failed::usage(format!("{key}: the host {host} has no address")));
    }
    Ok(addresses)
}
