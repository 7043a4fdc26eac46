//! Application of a changed configuration to a running node.

use trunkline::{
    AddError, Chain, CircuitLimits, Offer, Proxied, Reloaded, RouteEdit, ServiceName, ServiceNodes, Serving,
    TableRoute, Transit, TransitRule,
};
use trunkline_config::{AnnounceConfig, Config, ProxiedConfig, ServiceNodeConfig, TransitConfig};
use trunkline_matcher::quoted;

use super::{FromFile, Kind, OpError, Operations};
use crate::api::Changed;

impl Operations {
    /// Reads the configuration file again and applies it like [`Operations::apply`].
    ///
    /// # Errors
    /// [`OpError`] if the file is invalid or cannot be applied; nothing changed.
    pub fn reload(&self) -> Result<Changed, OpError> {
        let Some(source) = &self.source else {
            return Err(OpError::new(
                Kind::Bad,
                "this node was not started from a file, so there is nothing to reload",
            ));
        };
        let mut from_file = self.lock();
        let config = Config::load(&source.path, &source.layers).map_err(|e| OpError::new(Kind::Bad, e))?;
        self.replace(&mut from_file, &config, &source.path.display().to_string())
    }

    /// Applies a changed configuration. Routes and proxy routes that came from the previous configuration are replaced
    /// atomically, beginning with the first that differs; those added at run time stay. The routes of the cluster, and the rules of `transit:` and
    /// `proxied:`, `node.announce` and `service_nodes` apply from now on, and certificate files are read again. Other keys need a restart; the message names
    /// those that differ. Reads files.
    ///
    /// # Errors
    /// [`OpError`] if the configuration has a pattern that was also added at run time, or names a registrar or TLS
    /// profile that the node does not have; nothing changed.
    pub fn apply(&self, config: &Config) -> Result<Changed, OpError> {
        self.replace(&mut self.lock(), config, "the configuration")
    }

    /// Applies a configuration, called `shown` in messages.
    fn replace(&self, from_file: &mut FromFile, config: &Config, shown: &str) -> Result<Changed, OpError> {
        let wrong = |what: &str, pattern: &str, error: AddError| {
            let quoted = quoted(pattern);
            let error = match error {
                AddError::Taken(_) => format!(
                    "{shown}: the {what} {quoted} was also added at run time; remove that one \
                     (`trunkline {}s remove`) or the one in the file, then reload",
                    what.replace(' ', "-")
                ),
                AddError::UnknownResolver { id, .. } => {
                    format!("{shown}: {what} {quoted}: the registrar {id} is new; restart the node to use it")
                }
                AddError::UnknownTlsProfile { id, .. } => {
                    format!("{shown}: {what} {quoted}: the TLS profile {id} is new; restart the node to use it")
                }
                error => format!("{shown}: {what} {quoted}: {}", Chain(&error)),
            };
            OpError::new(Kind::Conflict, error)
        };
        let routes = config.routes.iter().map(|route| (route.pattern.as_str(), route.weight, &route.route));
        let proxies = config.proxy_routes.iter().map(|route| (route.pattern.as_str(), route.weight, &route.route));
        // Changes both tables or neither.
        self.node.edit_routes(|table| {
            replace(table, &from_file.routes, routes.collect()).map_err(|(pattern, e)| wrong("route", pattern, e))?;
            self.node.edit_proxy_routes(|table| {
                let replaced = replace(table, &from_file.proxy_routes, proxies.collect());
                replaced.map_err(|(pattern, e)| wrong("proxy route", pattern, e))
            })
        })?;
        // The routes of a cluster that the node is not in stay as they are.
        let own_cluster = self.own_cluster(config);
        let cluster_routes = std::mem::take(&mut from_file.cluster_routes);
        let announced = std::mem::take(&mut from_file.announced);
        *from_file = FromFile::of(config);
        if own_cluster.is_none() {
            from_file.cluster_routes = cluster_routes;
        }
        let (transit, limits) = transit(&config.transit);
        self.node.set_transit(transit, limits);
        self.node.set_proxied(proxied(&config.proxied));
        let mut kept = Vec::new();
        let offered = self.announce(&announced, config, &mut kept);
        self.node.set_service_nodes(service_nodes(config));
        self.node.forget_failures();
        let certificates = self.node.reload_certificates();
        let (routes, proxies) = (config.routes.len(), config.proxy_routes.len());
        let proxies = if proxies > 0 { format!(" and {proxies} proxy routes") } else { String::new() };
        let mut message = format!("reloaded {routes} routes{proxies} from {shown}");
        if config.transit != self.started.transit {
            let rules = config.transit.rules.len();
            message += &format!("; {rules} transit rules");
        }
        if let Some((cluster, new)) = own_cluster {
            cluster.set_routes(new.routes.clone());
            let routes = if new.routes.len() == 1 { "route" } else { "routes" };
            message += &format!("; {} {routes} of the cluster", new.routes.len());
        }
        if offered > 0 {
            message += &format!("; {offered} changes of `node.announce`");
        }
        if config.proxied != self.started.proxied {
            message += "; new `proxied` settings";
        }
        let waiting = differing(&self.started, config);
        if !waiting.is_empty() {
            message += &format!("; also changed, but needing a restart: {}", waiting.join(", "));
        }
        for Reloaded { what, error } in &certificates {
            match error {
                None => message += &format!("; new certificates of {what}"),
                Some(error) => kept.push(format!("{what} keeps its certificates: {}", Chain(error))),
            }
        }
        Ok(Changed { message, warnings: config.warnings().to_vec(), kept })
    }
}

impl Operations {
    /// Announces the services of the file, and withdraws those that were announced from it and are not there any more.
    /// Returns the number of changes; `refused` gets what cannot be announced.
    fn announce(&self, before: &[Offer], config: &Config, refused: &mut Vec<String>) -> usize {
        let offers = offers(config);
        let is_gone = |known: &Offer| {
            before.iter().any(|old| old.service == known.service)
                && !offers.iter().any(|new| new.service == known.service)
        };
        let mut now = self.node.offers();
        let all = now.len();
        now.retain(|known| !is_gone(known));
        let gone = all - now.len();
        let changed: Vec<_> = offers.iter().filter(|offer| !before.contains(offer)).cloned().collect();
        let count = gone + changed.len();
        now.extend(changed);
        if count > 0
            && let Err(error) = self.node.set_offers(now)
        {
            refused.push(format!("node.announce: {error}"));
            return 0;
        }
        count
    }
}

/// Replaces the routes that came from the file. Routes before the first difference keep their position among routes of
/// equal weight.
fn replace<'c, R: TableRoute + Clone + PartialEq>(
    table: &mut RouteEdit<'_, R>,
    from_file: &[String],
    routes: Vec<(&'c str, i64, &R)>,
) -> Result<(), (&'c str, AddError)> {
    let same = |(known, (pattern, weight, route)): &(&String, &(&str, i64, &R))| {
        *known == pattern && table.get(known).is_some_and(|stands| stands == (*weight, *route))
    };
    let stay = from_file.iter().zip(&routes).take_while(same).count();
    for pattern in &from_file[stay..] {
        let _ = table.remove(pattern);
    }
    for (pattern, weight, route) in &routes[stay..] {
        table.add(pattern, (*route).clone(), *weight).map_err(|error| (*pattern, error))?;
    }
    Ok(())
}

/// Converts the transit settings of a configuration.
pub(crate) fn transit(config: &TransitConfig) -> (Transit, CircuitLimits) {
    let TransitConfig { gateways, rules, circuits, per_peer, per_address, opens_per_second, burst, idle } =
        config.clone();
    let rules = rules.into_iter().map(|rule| TransitRule::new(rule.from, rule.to).only(rule.flags)).collect();
    let total = circuits;
    (Transit { rules, gateways }, CircuitLimits { total, per_peer, per_address, opens_per_second, burst, idle })
}

/// Converts the `proxied` settings of a configuration.
pub(crate) fn proxied(config: &ProxiedConfig) -> Proxied {
    let ProxiedConfig { allow, gateways, flags } = config.clone();
    Proxied { allow, gateways, flags }
}

/// Returns the services that the node serves with others.
pub(crate) fn offers(config: &Config) -> Vec<Offer> {
    let offer = |(service, announced): (&ServiceName, &AnnounceConfig)| Offer {
        service: service.clone(),
        weight: announced.weight,
        tags: announced.tags.clone(),
    };
    config.node.announce.iter().map(offer).collect()
}

/// Returns the nodes of services that are listed by hand.
pub(crate) fn service_nodes(config: &Config) -> ServiceNodes {
    let serving = |listed: &ServiceNodeConfig| Serving {
        node: listed.node.clone(),
        weight: listed.offer.weight,
        tags: listed.offer.tags.clone(),
    };
    let nodes = config.service_nodes.iter();
    nodes.map(|(service, nodes)| (service.clone(), nodes.iter().map(serving).collect())).collect()
}

/// Returns the keys whose values differ from those at the start but are not applied by a reload.
fn differing(old: &Config, new: &Config) -> Vec<&'static str> {
    let (a, b) = (&old.node, &new.node);
    let cluster = |config: &Config| config.clustering.as_ref().map(|cluster| (cluster.name.clone(), cluster.server));
    let keys = [
        ("the name of the cluster, the role in it, and its routes", cluster(old) != cluster(new)),
        ("node.name", a.name != b.name),
        ("node.data_dir", a.data_dir != b.data_dir),
        ("services", old.services != new.services),
        ("forwards", old.forwards != new.forwards),
        ("the node's cookie", a.cookie != b.cookie),
        ("node.listen", a.listen != b.listen),
        ("node.registrar", a.registrar != b.registrar),
        ("node.registrar_listen", a.registrar_listen != b.registrar_listen),
        ("node.registrar_serve", a.registrar_serve != b.registrar_serve),
        ("node.registrar_rules", a.registrar_rules != b.registrar_rules),
        ("node.registrar_routes", a.registrar_routes != b.registrar_routes),
        ("node.fallback", a.fallback != b.fallback),
        ("node.tls", a.tls != b.tls),
        ("node.handshake", a.handshake != b.handshake),
        ("node.flags", a.flags != b.flags),
        ("node.log_level", a.log_level != b.log_level),
        ("node.reconnect", a.reconnect != b.reconnect),
        ("node.race_equal_weights_ms", a.race_equal_weights != b.race_equal_weights),
        ("node.keep_alive_ms", a.keep_alive != b.keep_alive),
        ("node.dead_after_ms", a.dead_after != b.dead_after),
        ("node.hidden", a.hidden != b.hidden),
        ("node.timeouts", a.timeouts != b.timeouts),
        ("node.admin", a.admin != b.admin),
        ("registrars", old.registrars != new.registrars),
        ("tls_profiles", old.tls_profiles != new.tls_profiles),
        ("peers", old.peers != new.peers),
        ("spawn", old.spawn != new.spawn),
        ("applications", old.applications != new.applications),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
