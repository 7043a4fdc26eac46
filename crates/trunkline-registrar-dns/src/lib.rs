//! Discovery by DNS: a [`Resolver`] that finds nodes by SRV, A and AAAA records.
//!
//! The name of a node is `name@host`. First its SRV records are asked for, at `_trunkline._tcp.HOST` or any other name
//! that a template makes; their targets are tried in the order of RFC 2782, each with all its addresses. Where there
//! are none, the addresses of the host are taken, with a port that a rule on the name gives. Who answers at an address is
//! proven by the handshake: records that lead to another node cost an attempt, and no more.
//!
//! Answers are kept for their time to live, and so are negative ones. DNS announces nobody: there is no registration, and
//! the names cannot be listed.

mod order;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as NetDnsError, NetError};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::{TokioResolver, system_conf};
use trunkline_matcher::AccessPattern;
use trunkline_registrar::{BoxFuture, DEFAULT_OFFER_WEIGHT, ResolveError, Resolver, Serving};
use trunkline_route::{Address, Cause, Endpoint, HostTemplate, NodeName, ServiceName};

/// Time that one server has for an answer, of which there are two tries: for SRV records, and then for addresses, both fit
/// into the 2 s that a node gives a resolver.
const ANSWER: Duration = Duration::from_millis(480);
/// Most names whose ways are kept.
const MAX_KNOWN: usize = 4096;
/// Most targets of SRV records whose addresses are asked for: a node uses no more.
const MAX_TARGETS: usize = 16;

/// Settings of a [`Dns`].
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// Name servers; those of the system (`/etc/resolv.conf`), with its search list, if there are none.
    pub servers: Vec<SocketAddr>,
    /// Name of the SRV records of a node; `None` to ask for addresses only. Default: `_trunkline._tcp.{host}`.
    pub srv: Option<HostTemplate>,
    /// Port of hosts without SRV records. Default: 4370.
    pub port: NonZeroU16,
    /// Other ports by the name of the node; the first pattern that matches the whole name counts.
    pub ports: Vec<(AccessPattern, NonZeroU16)>,
    /// Name of TXT records with the names of the gateways that lead to a node, one in each string. Default: `None`.
    pub gateways: Option<HostTemplate>,
    /// Name of TXT records with the nodes that serve a service, one in each string: its name, and maybe a weight and tags,
    /// with spaces between. `{name}` stands for the service. Default: `None`.
    pub services: Option<HostTemplate>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            srv: "_trunkline._tcp.{host}".parse().ok(),
            port: const { NonZeroU16::new(4370).unwrap() },
            ports: Vec::new(),
            gateways: None,
            services: None,
        }
    }
}

/// Error returned when a [`Dns`] cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DnsError {
    /// The settings of the system name no servers.
    #[error("the name servers of the system are not known; name some")]
    System(#[source] Cause),
    /// The resolver cannot be made of the settings.
    #[error("the DNS resolver cannot be made")]
    Settings(#[source] Cause),
}

/// Resolver over DNS.
///
/// ```
/// use trunkline_registrar::Resolver;
/// use trunkline_registrar_dns::{Dns, DnsSettings};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let settings = DnsSettings { servers: vec!["127.0.0.1:53".parse()?], ..DnsSettings::default() };
/// let dns = Dns::new(settings)?;
/// // An address needs no DNS.
/// let found = dns.resolve(&"db@10.0.0.5".parse()?).await?;
/// assert_eq!(found[0].address.to_string(), "10.0.0.5:4370");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Dns {
    /// Asks two servers at a time, and takes the first answer.
    all: Servers,
    /// Each server alone, if there are several: one of them may answer with an error first.
    each: Vec<Servers>,
    /// Addresses of the servers, for errors.
    servers: String,
    settings: DnsSettings,
    /// Ways to names, until the first of their records is over: the libraries' cache asks for each record on its own.
    known: Mutex<HashMap<NodeName, (Ways, Instant)>>,
}

/// Ways to a node.
#[derive(Clone)]
enum Ways {
    /// Addresses with a port.
    At(Vec<Endpoint>),
    /// SRV records with the addresses of their targets. Their order is drawn for each look-up.
    Srv(Vec<(SRV, Vec<IpAddr>)>),
}

impl Ways {
    fn endpoints(&self) -> Vec<Endpoint> {
        match self {
            Self::At(endpoints) => endpoints.clone(),
            Self::Srv(found) => {
                let ordered =
                    order::ordered(found.iter().map(|(srv, _)| srv.clone()).collect(), &mut fastrand::Rng::new());
                let of = |srv: &SRV| found.iter().find(|(known, _)| known == srv).map(|(_, ips)| (ips, srv.port));
                let ways = ordered.iter().filter_map(of);
                ways.flat_map(|(ips, port)| ips.iter().filter_map(move |ip| endpoint(*ip, port))).collect()
            }
        }
    }
}

/// Answer, and the time until which it may be kept.
struct Kept<T> {
    answer: T,
    until: Instant,
}

#[expect(clippy::disallowed_methods, reason = "looking names up is I/O, which brings the time")]
fn now() -> Instant {
    Instant::now()
}

/// Resolvers that ask the same servers, for addresses of one family each: if both were asked for at once, an error about
/// one family would be hidden by the absence of the other.
struct Servers {
    v4: TokioResolver,
    v6: TokioResolver,
}

impl Servers {
    fn new(config: &ResolverConfig, options: &ResolverOpts) -> Result<Self, DnsError> {
        let made = |strategy: LookupIpStrategy| {
            let builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
            let mut options = options.clone();
            options.ip_strategy = strategy;
            builder.with_options(options).build().map_err(|error| DnsError::Settings(Cause::new(error)))
        };
        Ok(Self { v4: made(LookupIpStrategy::Ipv4Only)?, v6: made(LookupIpStrategy::Ipv6Only)? })
    }

    /// Returns the addresses of a host, of both families.
    async fn addresses(&self, host: &str) -> Result<Kept<Vec<IpAddr>>, NetError> {
        let absolute = if host.ends_with('.') { host.to_owned() } else { format!("{host}.") };
        let found = self.addresses_of(&absolute).await;
        // The names of the search list come after the name as it stands, whose failure they would hide.
        match found {
            Err(error) if error.is_no_records_found() && absolute != host => self.addresses_of(host).await,
            found => found,
        }
    }

    async fn addresses_of(&self, host: &str) -> Result<Kept<Vec<IpAddr>>, NetError> {
        let (v6, v4) = tokio::join!(self.v6.lookup_ip(host), self.v4.lookup_ip(host));
        let answer: Vec<IpAddr> = [&v6, &v4].into_iter().flatten().flat_map(|found| found.iter()).collect();
        let until = |found: &Result<LookupIp, NetError>| match found {
            Ok(found) => found.valid_until(),
            Err(error) => absent_until(error),
        };
        let until = until(&v6).min(until(&v4));
        match (answer.is_empty(), v6, v4) {
            (true, Err(error), Err(other)) => Err(if error.is_no_records_found() { other } else { error }),
            _ => Ok(Kept { answer, until }),
        }
    }
}

impl Dns {
    /// Creates a resolver. Nothing is asked yet.
    ///
    /// # Errors
    /// [`DnsError`].
    pub fn new(settings: DnsSettings) -> Result<Self, DnsError> {
        let (config, mut options) = if settings.servers.is_empty() {
            system_conf::read_system_conf().map_err(|error| DnsError::System(Cause::new(error)))?
        } else {
            let servers = settings.servers.iter().map(|server| name_server(*server)).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        };
        options.timeout = ANSWER;
        options.attempts = 1;
        let servers: Vec<String> = config.name_servers().iter().map(shown).collect();
        let each = match config.name_servers() {
            [] | [_] => Vec::new(),
            servers => {
                let (domain, search, _) = config.clone().into_parts();
                let alone = |server: &NameServerConfig| {
                    let config = ResolverConfig::from_parts(domain.clone(), search.clone(), vec![server.clone()]);
                    Servers::new(&config, &options)
                };
                servers.iter().map(alone).collect::<Result<_, _>>()?
            }
        };
        let (all, known) = (Servers::new(&config, &options)?, Mutex::default());
        Ok(Self { all, each, servers: servers.join(", "), settings, known })
    }

    /// Asks the servers for these records, until one of them answers, be it that there is none, and until when that counts.
    async fn ask<'a, T>(
        &'a self,
        records: &str,
        ask: impl Fn(&'a Servers) -> BoxFuture<'a, Result<T, NetError>>,
    ) -> Result<Result<T, Instant>, ResolveError> {
        let mut answer = ask(&self.all).await;
        for server in &self.each {
            if !answer.as_ref().is_err_and(|error| !error.is_no_records_found()) {
                break;
            }
            answer = ask(server).await;
        }
        let error = match answer {
            Ok(found) => return Ok(Ok(found)),
            Err(error) if error.is_no_records_found() => return Ok(Err(absent_until(&error))),
            Err(error) => error,
        };
        let text = Cause::from(format!("{records}, asked for at {}: {error}", self.servers));
        Err(match error {
            NetError::Dns(_) | NetError::Proto(_) => ResolveError::Failed(text),
            _ => ResolveError::Unreachable(text),
        })
    }

    /// Returns the port of a node on a host without SRV records.
    fn port(&self, name: &NodeName) -> NonZeroU16 {
        let rule = self.settings.ports.iter().find(|(pattern, _)| pattern.is_match(name.as_str()));
        rule.map_or(self.settings.port, |(_, port)| *port)
    }

    /// Returns all addresses of a host; none if it does not exist.
    async fn addresses(&self, host: &str) -> Result<Kept<Vec<IpAddr>>, ResolveError> {
        let host = host.to_owned();
        let found = self.ask(&host, |servers| {
            let host = host.clone();
            Box::pin(async move { servers.addresses(&host).await })
        });
        Ok(found.await?.unwrap_or_else(|until| Kept { answer: Vec::new(), until }))
    }

    /// Returns the ways by SRV records, or until when there are no such records.
    async fn by_srv(&self, records: &str) -> Result<Result<Kept<Ways>, Instant>, ResolveError> {
        let found = self.ask(records, |servers| Box::pin(servers.v4.srv_lookup(records.to_owned()))).await?;
        let found = match found {
            Ok(found) => found,
            Err(until) => return Ok(Err(until)),
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        });
        // The target `.` says that the service is not there.
        let records = records.filter(|srv| !srv.target.is_root()).collect();
        let targets = order::ordered(records, &mut fastrand::Rng::new()).into_iter().take(MAX_TARGETS);
        let lookups = targets.map(|srv| async move { (self.addresses(&srv.target.to_utf8()).await, srv) });
        let (mut answer, mut until, mut failed) = (Vec::new(), found.valid_until(), None);
        // A target that cannot be looked up does not keep the others away.
        for (found, srv) in join_all(lookups).await {
            match found {
                Ok(found) => {
                    until = until.min(found.until);
                    answer.push((srv, found.answer));
                }
                Err(error) => {
                    until = now();
                    failed = Some(error);
                }
            }
        }
        match failed.filter(|_| answer.iter().all(|(_, ips)| ips.is_empty())) {
            Some(error) => Err(error),
            None => Ok(Ok(Kept { answer: Ways::Srv(answer), until })),
        }
    }

    async fn find(&self, name: &NodeName) -> Result<Vec<Endpoint>, ResolveError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((ways, until)) = known().get(name)
            && *until > now()
        {
            return Ok(ways.endpoints());
        }
        let Kept { answer, until } = self.look_up(name).await?;
        let endpoints = answer.endpoints();
        let (mut known, now) = (known(), now());
        if known.len() >= MAX_KNOWN {
            known.retain(|_, (_, until)| *until > now);
        }
        if until > now && known.len() < MAX_KNOWN {
            known.insert(name.clone(), (answer, until));
        } else {
            known.remove(name);
        }
        Ok(endpoints)
    }

    async fn look_up(&self, name: &NodeName) -> Result<Kept<Ways>, ResolveError> {
        let at = |ip: IpAddr| endpoint(ip, self.port(name).get());
        let host = name.host();
        if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
            return Ok(Kept { answer: Ways::At(at(ip).into_iter().collect()), until: now() });
        }
        let mut absent = None;
        if let Some(srv) = &self.settings.srv {
            match self.by_srv(srv.of(name).map_err(failed)?.as_str()).await? {
                Ok(ways) => return Ok(ways),
                Err(until) => absent = Some(until),
            }
        }
        let Kept { answer, until } = self.addresses(host).await?;
        let until = absent.map_or(until, |absent| absent.min(until));
        Ok(Kept { answer: Ways::At(answer.into_iter().filter_map(at).collect()), until })
    }

    async fn find_gateways(&self, name: &NodeName) -> Result<Vec<NodeName>, ResolveError> {
        let Some(gateways) = &self.settings.gateways else { return Ok(Vec::new()) };
        let texts = self.texts(gateways.of(name).map_err(failed)?.as_str()).await?;
        // Texts for others may stand there as well.
        Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    async fn find_serving(&self, service: &ServiceName) -> Result<Vec<Serving>, ResolveError> {
        let Some(services) = &self.settings.services else { return Ok(Vec::new()) };
        // The template has no part for the host.
        let named = NodeName::new(format!("{service}@service")).map_err(failed)?;
        let texts = self.texts(services.of(&named).map_err(failed)?.as_str()).await?;
        Ok(texts.iter().filter_map(|text| serving(text)).collect())
    }

    /// Returns the strings of TXT records.
    async fn texts(&self, records: &str) -> Result<Vec<String>, ResolveError> {
        let found = self.ask(records, |servers| Box::pin(servers.v4.txt_lookup(records.to_owned()))).await?;
        let Ok(found) = found else { return Ok(Vec::new()) };
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(texts) => Some(texts.txt_data.to_vec()),
            _ => None,
        });
        Ok(texts.flatten().filter_map(|text| String::from_utf8(text.into_vec()).ok()).collect())
    }
}

/// Returns until when an answer that there are no records counts.
fn absent_until(error: &NetError) -> Instant {
    let seconds = match error {
        NetError::Dns(NetDnsError::NoRecordsFound(none)) => none.negative_ttl.unwrap_or_default(),
        _ => 0,
    };
    now() + Duration::from_secs(seconds.into())
}

/// Returns the node of a string such as `db1@example.com 200 eu`.
fn serving(text: &str) -> Option<Serving> {
    let mut words = text.split_ascii_whitespace();
    let node = words.next()?.parse().ok()?;
    let weight = words.next().map_or(Some(DEFAULT_OFFER_WEIGHT), |weight| weight.parse().ok())?;
    Some(Serving { node, weight, tags: words.map(str::to_owned).collect() })
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    NameServerConfig::new(server.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ResolveError {
    ResolveError::Failed(Cause::new(error))
}

fn endpoint(ip: IpAddr, port: u16) -> Option<Endpoint> {
    Address::new(ip.to_string(), port).ok().map(Endpoint::at)
}

/// Returns the address of a name server.
fn shown(server: &NameServerConfig) -> String {
    let port = server.connections.first().map_or(53, |connection| connection.port);
    SocketAddr::new(server.ip, port).to_string()
}

impl Resolver for Dns {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(self.find(name))
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(self.find_gateways(name))
    }

    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(self.find_serving(service))
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("settings", &self.settings).finish_non_exhaustive()
    }
}
