//! Commands that query a node and print the answer.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use trunkline::{Chain, NodeName};
use trunkline_admin::api::{
    AddProxyRoute, AddRoute, ApplicationRequest, Attempt, Body, CallReply, Changed, DisconnectRequest, Explanation,
    FailbackTo, Forwarding, MemberWays, MessageRequest, Patterns, Peer, PingRequest, Pong, ProxyRoute, RegistrarState,
    RemoveRoute, Route, RunningApplication, ServiceNodes, SpawnRequest, Spawned, Status, Step, StopApplication,
    Strangers, StreamNumbers, StreamService, TraceRequest, Traced, Way, WayEnd,
};
use trunkline_admin::check_files;
use trunkline_config::{Config, FlagsEntry, Layers, ProxiedConfig, ProxyEntry, RouteEntry};

use crate::args::{
    Admin, At, ConfigArgs, MessageArgs, ProxyRouteArgs, ProxyRoutesCommand, RemoveArgs, RouteArgs, RoutesCommand,
};
use crate::output::{Failed, Output, one_line, printable, table};
use crate::target::{Target, ask, client, leave};

pub(crate) fn check(args: &ConfigArgs, output: &Output) -> Result<(), Failed> {
    let config = Config::load(args.file(), &Layers::from_process(args.set.clone())).map_err(Failed::usage)?;
    let found = check_files(&config).map_err(|errors| {
        let file = args.file().display();
        let problems: Vec<String> = errors.iter().map(|error| format!("{file}: {}", Chain(error))).collect();
        Failed::usage(problems.join("\n\n"))
    })?;
    let warnings = [config.warnings(), &found].concat();
    let counts = sections(&config);
    let mut value = json!({
        "node": config.node.name.as_str(),
        "fallback": config.node.fallback.to_string(),
        "registrar": config.node.registrar.to_string(),
        "callers_through_gateways": if restricts_proxied(&config) { "restricted" } else { "any" },
        "warnings": warnings,
    });
    for Section { key, count, .. } in &counts {
        value[*key] = json!(count);
    }
    output.print(&value, |_| {
        let mut text = format!("{}: valid; node {}", args.file().display(), config.node.name);
        // The number of routes is shown even if it is 0: without a route, only discovery can find a node.
        for Section { one, many, count, .. } in counts.iter().filter(|s| s.count > 0 || s.key == "routes") {
            text += &format!(", {count} {}", if *count == 1 { one } else { many });
        }
        if restricts_proxied(&config) {
            text += ", access through gateways restricted";
        }
        for warning in &warnings {
            text += &format!("\nwarning: {warning}");
        }
        text
    })
}

/// Returns true if `proxied:` restricts anything. Losing that section would admit every caller.
fn restricts_proxied(config: &Config) -> bool {
    config.proxied != ProxiedConfig::default()
}

/// Number of entries in a section of the configuration, with the words for them.
struct Section {
    key: &'static str,
    one: &'static str,
    many: &'static str,
    count: usize,
}

/// Returns the number of entries of each section, so that a lost section is noticed.
fn sections(config: &Config) -> Vec<Section> {
    let section = |key, one, many, count| Section { key, one, many, count };
    let cluster_routes = config.clustering.as_ref().map_or(0, |cluster| cluster.routes.len());
    vec![
        section("listeners", "listener", "listeners", config.node.listen.len()),
        section("routes", "route", "routes", config.routes.len()),
        section("proxy_routes", "proxy route", "proxy routes", config.proxy_routes.len()),
        section("peers", "peer entry", "peer entries", config.peers.len()),
        section("transit_rules", "transit rule", "transit rules", config.transit.rules.len()),
        section("transit_gateways", "transit gateway", "transit gateways", config.transit.gateways.len()),
        section("services", "service", "services", config.services.len()),
        section("forwards", "forward", "forwards", config.forwards.len()),
        section("spawn", "program", "programs", config.spawn.len()),
        section("applications", "application", "applications", config.applications.len()),
        section("cluster_routes", "cluster route", "cluster routes", cluster_routes),
        section("registrars", "registrar", "registrars", config.registrars.len()),
        section("tls_profiles", "TLS profile", "TLS profiles", config.tls_profiles.len()),
    ]
}

/// Checks a node name. A malformed one is wrong usage, whichever node is asked.
pub(crate) fn checked(name: &str) -> Result<(), Failed> {
    NodeName::new(name).map(drop).map_err(Failed::usage)
}

/// Checks a node name, or `@service` for any node that serves that.
pub(crate) fn checked_target(name: &str) -> Result<(), Failed> {
    name.parse::<trunkline::Target>().map(drop).map_err(Failed::usage)
}

pub(crate) async fn explain(at: At, name: &str, output: &Output) -> Result<(), Failed> {
    checked_target(name)?;
    let explanation: Explanation = match Target::find(at).await? {
        Target::Running(client) => client.get(&format!("/v1/explain?name={}", encoded(name))).await?,
        Target::ShortLived(running) => running.operations().explain(name).await?,
    };
    output.print(&explanation, explain_text)?;
    match &explanation.service {
        Some(service) if service.nodes.is_empty() => Err(Failed::because(format!("nothing serves {name}"))),
        _ => Ok(()),
    }
}

/// Describes the route to which a connection shall return, and why it has not returned yet.
fn failback_text(failback: &FailbackTo) -> String {
    let FailbackTo { pattern, hold_ms, answered_ms, error } = failback;
    let why = match (answered_ms, error) {
        (_, Some(error)) => format!("the last probe failed: {}", one_line(error)),
        (Some(answered), None) => format!("so far {:.1} s", *answered as f64 / 1e3),
        (None, None) => "not probed yet".into(),
    };
    format!("{} after it answered every probe for {:.1} s; {why}", one_line(pattern), *hold_ms as f64 / 1e3)
}

/// Returns a text percent-encoded, as a query has it.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub(crate) fn explain_text(explanation: &Explanation) -> String {
    if let Some(service) = &explanation.service {
        return service_text(service);
    }
    let mut text = String::new();
    if let Some(link) = &explanation.live {
        text += &format!("{} is connected (link {link}); that connection is used.\n", explanation.name);
        for failback in &explanation.failback {
            text += &format!("It returns to {}.\n", failback_text(failback));
        }
        text += "Otherwise:\n";
    }
    if explanation.steps.is_empty() {
        return text + &format!("no static route matches {} and no resolver may be asked", explanation.name);
    }
    let rows: Vec<Vec<String>> = explanation
        .steps
        .iter()
        .enumerate()
        .map(|(n, step)| {
            let remembered = step
                .remembered
                .as_ref()
                .map(|why| format!("{why} (counts for another {} ms)", step.remembered_ms.unwrap_or(0)));
            vec![
                format!("{}.", n + 1),
                step.stage.clone(),
                step.pattern
                    .clone()
                    .or_else(|| step.resolver.clone().map(|id| format!("ask {id}")))
                    .unwrap_or_default(),
                step.class.clone().unwrap_or_default(),
                step.weight.map(|w| w.to_string()).unwrap_or_default(),
                step.address.clone().unwrap_or_else(|| "(its answer)".into()),
                step.tls.clone().unwrap_or_default(),
                remembered.unwrap_or_default(),
            ]
        })
        .collect();
    text += &table(&["", "STAGE", "BY", "CLASS", "WEIGHT", "ADDRESS", "TLS", "REMEMBERED FAILURE"], &rows);
    if explanation.static_only {
        text += "\nNo resolver is asked after these.";
    }
    for RegistrarState { id, stale } in &explanation.stale {
        text += &format!("\nAnswers of {id} may be out of date: {}", one_line(stale.as_deref().unwrap_or_default()));
    }
    if let Some(MemberWays { addresses, told_by, gateways }) = &explanation.member {
        let told = told_by.as_ref().map(|name| format!(", told by {name}")).unwrap_or_default();
        let addresses = if addresses.is_empty() { "no address".into() } else { addresses.join(", ") };
        text += &format!("\nThe cluster knows {}: {addresses}{told}.", explanation.name);
        if !gateways.is_empty() {
            text += &format!(" When it cannot be dialled, these pass on: {}.", gateways.join(", "));
        }
    }
    text + &values_text(&explanation.steps)
}

/// Lists the nodes of a service in the order to try.
pub(crate) fn service_text(service: &ServiceNodes) -> String {
    let mut text = String::new();
    if service.nodes.is_empty() {
        text += &format!("no node that serves {} is known", service.service);
    } else {
        let rows = service.nodes.iter().map(|serving| {
            let note = match (serving.weight, serving.connected) {
                (0, _) => "drained",
                (_, true) => "connected",
                (_, false) => "",
            };
            let (weight, open) = (serving.weight.to_string(), serving.open.to_string());
            vec![serving.node.clone(), weight, open, serving.tags.join(", "), note.to_owned()]
        });
        text += &table(&[&service.service, "WEIGHT", "OPEN", "TAGS", "NOTE"], &rows.collect::<Vec<_>>());
    }
    for RegistrarState { id, stale } in &service.unanswered {
        text += &format!("\nThe registrar {id} did not answer: {}", one_line(stale.as_deref().unwrap_or_default()));
    }
    text
}

/// Lists the values of each step with their sources.
fn values_text(steps: &[Step]) -> String {
    let listed = |step: &Step, of_node: bool| {
        let own = step.values.iter().filter(|value| (value.from == "node") == of_node);
        let shown = own.map(|v| match of_node {
            true => format!("{} {}", v.what, v.value),
            false => format!("{} {} ({})", v.what, v.value, v.from),
        });
        shown.collect::<Vec<_>>().join("; ")
    };
    let mut text = String::from("\n\nSource of each value:");
    // For a resolver that is only asked for gateways, no values are known yet.
    for (n, step) in steps.iter().enumerate().filter(|(_, step)| !step.values.is_empty()) {
        text += &format!("\n  {}. {}", n + 1, listed(step, false));
        let node = listed(step, true);
        if !node.is_empty() {
            text += &format!("\n     the node's: {node}");
        }
    }
    text
}

pub(crate) async fn routes(command: RoutesCommand, output: &Output) -> Result<(), Failed> {
    match command {
        RoutesCommand::List { at } => {
            let routes: Vec<Route> = match Target::find(at).await? {
                Target::Running(client) => client.get("/v1/routes").await?,
                Target::ShortLived(running) => running.operations().routes(),
            };
            output.print(&routes, |routes| routes_text(routes))
        }
        RoutesCommand::Add { at, route, save } => {
            let request = AddRoute { route: entry(*route)?, save };
            changed(client(at)?.post("/v1/routes", &request).await?, output)
        }
        RoutesCommand::Drain(args) => remove(args, "/v1/routes/drain", output).await,
        RoutesCommand::Remove(args) => remove(args, "/v1/routes/remove", output).await,
    }
}

async fn remove(args: RemoveArgs, path: &str, output: &Output) -> Result<(), Failed> {
    let RemoveArgs { at, pattern, save } = args;
    changed(client(at)?.post(path, &RemoveRoute { pattern, save }).await?, output)
}

pub(crate) async fn proxy_routes(command: ProxyRoutesCommand, output: &Output) -> Result<(), Failed> {
    match command {
        ProxyRoutesCommand::List { at } => {
            let routes: Vec<ProxyRoute> = match Target::find(at).await? {
                Target::Running(client) => client.get("/v1/proxy-routes").await?,
                Target::ShortLived(running) => running.operations().proxy_routes(),
            };
            output.print(&routes, |routes| proxies_text(routes))
        }
        ProxyRoutesCommand::Add { at, route, save } => {
            let request = AddProxyRoute { route: proxy_entry(*route)?, save };
            changed(client(at)?.post("/v1/proxy-routes", &request).await?, output)
        }
        ProxyRoutesCommand::Drain(args) => remove(args, "/v1/proxy-routes/drain", output).await,
        ProxyRoutesCommand::Remove(args) => remove(args, "/v1/proxy-routes/remove", output).await,
    }
}

fn proxies_text(routes: &[ProxyRoute]) -> String {
    if routes.is_empty() {
        return "no proxy routes; add one with `trunkline proxy-routes add`".into();
    }
    let row = |route: &ProxyRoute| {
        let cookies = [(route.own_cookie, "to the gateway"), (route.own_target_cookie, "to the node")];
        let cookies: Vec<_> = cookies.into_iter().filter(|(own, _)| *own).map(|(_, to)| to).collect();
        vec![
            route.weight.to_string(),
            printable(&route.pattern),
            route.proxy.clone(),
            route.to.clone().unwrap_or_else(|| "any".into()),
            route.max_hop.to_string(),
            route.direct.clone(),
            tls_text(route.target_tls, route.target_insecure_skip_verify),
            route.target_tls_profile.clone().unwrap_or_default(),
            cookies.join(", "),
            route.target_flags.as_ref().map(flags_text).unwrap_or_default(),
            route.target_atom_mapping.as_ref().map(atoms_text).unwrap_or_default(),
            route.target_log_level.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    let heads = [
        "WEIGHT",
        "PATTERN",
        "GATEWAY",
        "FOR",
        "HOPS",
        "DIRECT",
        "TLS",
        "PROFILE",
        "OWN COOKIES",
        "FLAGS",
        "ATOMS",
        "LOG",
    ];
    table(&heads, &rows)
}

fn tls_text(tls: Option<bool>, skip_verify: bool) -> String {
    match (tls, skip_verify) {
        (Some(true), true) => "skip-verify".into(),
        (Some(on), _) => on.to_string(),
        (None, _) => String::new(),
    }
}

/// Makes a path absolute, because the node resolves relative paths against the directory of its own configuration file.
fn absolute(path: Option<PathBuf>) -> Result<Option<String>, Failed> {
    let path = path.map(std::path::absolute).transpose().map_err(Failed::usage)?;
    Ok(path.map(|path| path.to_string_lossy().into_owned()))
}

fn flags(set: Vec<(String, bool)>, require: Vec<String>) -> Option<FlagsEntry> {
    let flags = FlagsEntry { require, set: set.into_iter().collect() };
    (flags != FlagsEntry::default()).then_some(flags)
}

fn proxy_entry(args: ProxyRouteArgs) -> Result<ProxyEntry, Failed> {
    Ok(ProxyEntry {
        pattern: args.pattern,
        weight: args.weight,
        proxy: args.proxy,
        to: args.to,
        max_hop: args.max_hop,
        direct: args.direct,
        cookie_file: absolute(args.cookie_file)?,
        target_cookie_file: absolute(args.target_cookie_file)?,
        target_tls: args.target_tls,
        target_tls_profile: args.target_tls_profile,
        target_flags: flags(args.target_flag, args.target_require),
    })
}

fn entry(args: RouteArgs) -> Result<RouteEntry, Failed> {
    let cookie_file = absolute(args.cookie_file)?;
    let mut atoms = BTreeMap::new();
    for (local, peer) in args.atom {
        if atoms.insert(local.clone(), peer).is_some() {
            return Err(Failed::usage(format!("--atom {local}=… is given twice; keep one of the two")));
        }
    }
    Ok(RouteEntry {
        atom_mapping: (!atoms.is_empty()).then_some(atoms),
        flags: flags(args.flag, args.require),
        weight: Some(args.weight),
        host: args.host,
        port: args.port,
        resolver: args.resolver,
        tls: args.tls,
        tls_profile: args.tls_profile,
        insecure_skip_verify: args.insecure_skip_verify.then_some(true),
        handshake: args.handshake,
        cookie_file,
        cookie_label: args.cookie_label,
        log_level: args.connection_log_level,
        reconnect: args.reconnect,
        failback_ms: args.failback.map(|hold| hold.as_millis() as u64),
        keep_alive_ms: args.keep_alive.map(|silence| silence.as_millis() as u64),
        dead_after_ms: args.dead_after.map(|silence| silence.as_millis() as u64),
        fallback: args.fallback_never.then(|| "never".to_owned()),
        ..RouteEntry::new(args.pattern)
    })
}

pub(crate) fn changed(changed: Changed, output: &Output) -> Result<(), Failed> {
    output.print(&changed, |changed| {
        let warnings: String = changed.warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
        format!("{}{warnings}", changed.message)
    })?;
    match changed.kept.is_empty() {
        true => Ok(()),
        false => Err(Failed::because(changed.kept.join("\n"))),
    }
}

fn routes_text(routes: &[Route]) -> String {
    if routes.is_empty() {
        return "no static routes".into();
    }
    let row = |route: &Route| {
        let host = route.host.clone().unwrap_or_else(|| "(host in the name)".into());
        let to = match (&route.resolver, route.port) {
            (Some(resolver), _) => format!("ask {resolver}"),
            (None, Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host,
        };
        let tls = tls_text(route.tls, route.insecure_skip_verify);
        vec![
            route.pattern.clone(),
            route.weight.to_string(),
            to,
            tls,
            route.tls_profile.clone().unwrap_or_default(),
            if route.own_cookie { "its own".into() } else { String::new() },
            route.flags.as_ref().map(flags_text).unwrap_or_default(),
            route.atom_mapping.as_ref().map(atoms_text).unwrap_or_default(),
            route.log_level.clone().unwrap_or_default(),
            route.reconnect.clone().unwrap_or_default(),
            route.failback_ms.map(|ms| format!("{ms} ms")).unwrap_or_default(),
            route.fallback.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = routes.iter().map(row).collect();
    table(
        &[
            "MATCH",
            "WEIGHT",
            "TO",
            "TLS",
            "PROFILE",
            "COOKIE",
            "FLAGS",
            "ATOMS",
            "LOG",
            "RECONNECT",
            "FAILBACK",
            "FALLBACK",
        ],
        &rows,
    )
}

fn atoms_text(names: &BTreeMap<String, String>) -> String {
    let names: Vec<_> = names.iter().map(|(local, peer)| format!("{local}={peer}")).collect();
    names.join(" ")
}

/// Formats flags: `-priorities` is off, `+priorities` on, `!priorities` required.
fn flags_text(flags: &FlagsEntry) -> String {
    let set = flags.set.iter().map(|(flag, on)| format!("{}{flag}", if *on { '+' } else { '-' }));
    set.chain(flags.require.iter().map(|flag| format!("!{flag}"))).collect::<Vec<_>>().join(" ")
}

pub(crate) async fn ping(at: At, name: &str, timeout: Duration, now: bool, output: &Output) -> Result<(), Failed> {
    checked_target(name)?;
    let request = PingRequest { name: name.into(), timeout_ms: timeout.as_millis() as u64, now };
    let ping = ask::<Pong>(at, "/v1/ping", &request, timeout, async |node| node.ping(&request).await);
    let pong = output.waiting(&format!("connecting to {name}"), ping).await?;
    output.print(&pong, |pong| {
        let peer = &pong.peer;
        let from = match &peer.via {
            Some(gateway) => format!("through {gateway} at {}", peer.address),
            None => format!("from {}", peer.address),
        };
        format!(
            "{} answers {} (link {}, {}, {}): connected in {:.1} ms, round trip {:.3} ms",
            peer.name, from, peer.link, peer.handshake, peer.tls, pong.connect_ms, pong.round_trip_ms
        )
    })
}

pub(crate) async fn trace(at: At, name: &str, timeout: Duration, output: &Output) -> Result<(), Failed> {
    checked(name)?;
    let request = TraceRequest { name: name.into(), timeout_ms: timeout.as_millis() as u64 };
    let trace = ask::<Traced>(at, "/v1/trace", &request, timeout, async |node| node.trace(&request).await);
    let traced = output.waiting(&format!("tracing the path to {name}"), trace).await?;
    output.print(&traced, |traced| {
        let ways = traced.ways.iter().map(way_text);
        let failed = traced.failed.iter().map(|Attempt { origin, address, error, .. }| {
            let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
            format!("{origin}{at}: {}", one_line(error))
        });
        ways.chain(failed).collect::<Vec<_>>().join("\n")
    })?;
    let reason = traced.reason.map_or_else(String::new, |reason| format!(": {reason}"));
    if traced.reached { Ok(()) } else { Err(Failed::because(format!("no path to {name}{reason}"))) }
}

pub(crate) fn way_text(way: &Way) -> String {
    let rows: Vec<_> = (1..)
        .zip(&way.hops)
        .map(|(n, hop)| vec![n.to_string(), hop.name.clone(), format!("{:.3} ms", hop.round_trip_ms)])
        .collect();
    let hops = if rows.is_empty() { String::new() } else { table(&["HOP", "NODE", "ROUND TRIP"], &rows) };
    let end = match &way.stopped {
        Some(WayEnd { hop, reason, text }) => {
            let text = if text.is_empty() { String::new() } else { format!(" ({})", one_line(text)) };
            format!("the path ends at {}: {reason}{text}", one_line(hop))
        }
        None => {
            let all: f64 = way.hops.iter().map(|hop| hop.round_trip_ms).sum();
            match way.hops.len() {
                0 | 1 => format!("{all:.3} ms, directly"),
                2 => format!("{all:.3} ms in total, through 1 gateway"),
                hops => format!("{all:.3} ms in total, through {} gateways", hops - 1),
            }
        }
    };
    if hops.is_empty() { end } else { format!("{}\n{end}", hops.trim_end()) }
}

fn message(args: MessageArgs, timeout: Duration, important: bool) -> Result<MessageRequest, Failed> {
    checked_target(&args.name)?;
    let payload = if args.payload == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().read_to_end(&mut bytes);
        read.map_err(|e| Failed::because(e).about("standard input cannot be read"))?;
        bytes
    } else {
        args.payload.into_bytes()
    };
    let (body, timeout_ms) = (Body::new(&payload), timeout.as_millis() as u64);
    Ok(MessageRequest { name: args.name, mailbox: args.mailbox, body, timeout_ms, important })
}

pub(crate) async fn send(
    at: At,
    args: MessageArgs,
    timeout: Duration,
    important: bool,
    output: &Output,
) -> Result<(), Failed> {
    let request = message(args, timeout, important)?;
    let sent = async {
        Ok::<Changed, Failed>(match Target::find(at).await? {
            Target::Running(client) => client.post_with_timeout("/v1/send", &request, timeout).await?,
            Target::ShortLived(running) => {
                let sent = running.operations().send(&request).await?;
                // Stopping gracefully writes what is still queued; exiting at once would lose it.
                if !leave(running).await {
                    return Err(Failed::because(format!(
                        "{} did not confirm the message in time; it may not have arrived",
                        request.name
                    )));
                }
                sent
            }
        })
    };
    changed(output.waiting(&format!("connecting to {}", request.name), sent).await?, output)
}

pub(crate) async fn call(at: At, args: MessageArgs, timeout: Duration, output: &Output) -> Result<(), Failed> {
    let request = message(args, timeout, false)?;
    let call = ask::<CallReply>(at, "/v1/call", &request, timeout, async |node| node.call(&request).await);
    let reply = output.waiting(&format!("calling {} at {}", request.mailbox, request.name), call).await?;
    if output.json || output.is_terminal() {
        return output.print(&reply, |reply| match &reply.body {
            Body::Text(text) => printable(text),
            Body::Base64(text) => format!("(base64) {text}"),
        });
    }
    output.bytes(&reply.body.bytes().map_err(Failed::because)?)
}

pub(crate) async fn spawn(at: At, request: SpawnRequest, output: &Output) -> Result<(), Failed> {
    checked(&request.name)?;
    let timeout = Duration::from_millis(request.timeout_ms);
    let spawn = ask::<Spawned>(at, "/v1/spawn", &request, timeout, async |node| node.spawn(&request).await);
    let spawned = output.waiting(&format!("running {} at {}", request.program, request.name), spawn).await?;
    output.print(&spawned, |spawned| match &spawned.exit {
        Some(exit) => format!("{}: {exit}", spawned.pid),
        None => spawned.pid.clone(),
    })?;
    match spawned.exit.filter(|_| !spawned.ended_well) {
        Some(exit) => Err(Failed::because(format!("{} at {}: {exit}", request.program, request.name))),
        None => Ok(()),
    }
}

pub(crate) async fn start_application(at: At, request: ApplicationRequest, output: &Output) -> Result<(), Failed> {
    checked(&request.name)?;
    let (timeout, path) = (Duration::from_millis(request.timeout_ms), "/v1/applications/start");
    let start = ask::<Changed>(at, path, &request, timeout, async |node| node.start_application(&request).await);
    changed(output.waiting(&format!("starting {} at {}", request.application, request.name), start).await?, output)
}

pub(crate) async fn stop_application(at: Admin, application: &str, output: &Output) -> Result<(), Failed> {
    let request = StopApplication { application: application.into() };
    changed(client(at)?.post("/v1/applications/stop", &request).await?, output)
}

pub(crate) async fn nodes(at: Admin, output: &Output) -> Result<(), Failed> {
    let peers: Vec<Peer> = client(at)?.get("/v1/nodes").await?;
    output.print(&peers, |peers| {
        if peers.is_empty() {
            return "no live connections".into();
        }
        let row = |peer: &Peer| {
            let count = |n: u64| n.to_string();
            vec![
                peer.name.clone(),
                peer.direction.clone(),
                match &peer.via {
                    Some(gateway) => format!("{} ({gateway})", peer.address),
                    None => peer.address.clone(),
                },
                peer.link.clone(),
                peer.tls.clone(),
                count(peer.messages_out),
                count(peer.messages_in),
                count(peer.bytes_out),
                count(peer.bytes_in),
                peer.failback.first().map(failback_text).unwrap_or_default(),
            ]
        };
        let rows: Vec<_> = peers.iter().map(row).collect();
        table(
            &["NAME", "DIR", "ADDRESS", "LINK", "TLS", "SENT", "RECEIVED", "BYTES OUT", "BYTES IN", "GOES BACK TO"],
            &rows,
        )
    })
}

fn patterns_text(patterns: &Patterns) -> String {
    let classes: Vec<String> = patterns.classes.iter().map(|(class, count)| format!("{count} {class}")).collect();
    let many =
        if patterns.many_literal_free { "; many literal-free patterns, which slow down every lookup" } else { "" };
    match classes.is_empty() {
        true => "none".into(),
        false => format!("{}; {} KiB{many}", classes.join(", "), patterns.heap_bytes.div_ceil(1024)),
    }
}

fn running(application: &RunningApplication) -> String {
    let state = if application.processes.is_empty() { " (stopped)" } else { "" };
    format!("{}{state}", application.name)
}

pub(crate) async fn status(at: Admin, output: &Output) -> Result<(), Failed> {
    let status: Status = client(at)?.get("/v1/status").await?;
    output.print(&status, |status| {
        let registered = match status.registered {
            Some(true) => "yes",
            Some(false) => "currently not",
            None => "no, hidden or without a registrar",
        };
        let list = |items: &[String]| if items.is_empty() { "none".into() } else { items.join(", ") };
        let lost = if status.lost_log_lines > 0 { status.lost_log_lines.to_string() } else { String::new() };
        let rows: Vec<Vec<String>> = [
            ("version", status.version.clone()),
            ("listening", list(&status.listening)),
            ("mailboxes", list(&status.mailboxes)),
            ("processes", list(&status.processes)),
            ("offered programs", list(&status.spawn)),
            ("applications", list(&status.applications.iter().map(running).collect::<Vec<_>>())),
            ("services", list(&status.services.iter().map(stream_service).collect::<Vec<_>>())),
            ("forwards", list(&status.forwards.iter().map(forwarding).collect::<Vec<_>>())),
            ("transit", format!("{} circuits, {} bytes forwarded so far", status.circuits, status.carried)),
            ("strangers", strangers(&status.strangers)),
            ("connections", status.connections.to_string()),
            ("routes", status.routes.to_string()),
            ("registered", registered.into()),
            ("registrar", if status.serves_registrar { "served here".into() } else { String::from("not served here") }),
            ("registrar lookups", status.registrar_queries.to_string()),
            ("patterns", patterns_text(&status.patterns)),
            ("lost log lines", lost),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| vec![key.to_owned(), value])
        .collect();
        table(&["NODE", &status.name], &rows)
    })
}

fn stream_service(service: &StreamService) -> String {
    let place = service.place.as_deref().unwrap_or("this program");
    format!("{} to {place} ({})", service.name, numbers(&service.numbers))
}

fn forwarding(forward: &Forwarding) -> String {
    format!("{} to {} at {} ({})", forward.listen, forward.service, forward.name, numbers(&forward.numbers))
}

fn numbers(numbers: &StreamNumbers) -> String {
    let StreamNumbers { open, all, refused, received, sent, idle_ms } = numbers;
    let idle = idle_ms.map(|ms| format!(", idle for {:.1} s", ms as f64 / 1e3)).unwrap_or_default();
    format!("{open} of {all} streams open, {refused} refused, {received} bytes received, {sent} sent{idle}")
}

pub(crate) async fn disconnect(at: Admin, name: &str, output: &Output) -> Result<(), Failed> {
    checked(name)?;
    changed(client(at)?.post("/v1/disconnect", &DisconnectRequest { name: name.into() }).await?, output)
}

pub(crate) async fn reload(at: Admin, output: &Output) -> Result<(), Failed> {
    changed(client(at)?.post("/v1/reload", &json!({})).await?, output)
}

/// Formats the counters of callers before authentication.
fn strangers(counted: &Strangers) -> String {
    let Strangers { taken, evicted, failed_proofs, throttled } = counted;
    format!("{taken} waiting, {failed_proofs} failed to prove the cookie, {throttled} throttled, {evicted} evicted")
}
