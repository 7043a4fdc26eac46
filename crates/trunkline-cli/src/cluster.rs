//! The commands about the cluster of a running node.

use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use trunkline::{Address, ClusterRole, JoinToken, NodeName};
use trunkline_admin::api::{
    Cluster, ClusterConnection, ClusterNetwork, ClusterOperation, ClusterRoute, FoundRoute, IssuedToken, NetworkNode,
    NetworkRequest, NewToken, RevokeToken, RoutesDeleted, RoutesRequest, RoutesSet, TokenRequest,
};
use trunkline_admin::{JoinError, JoinOptions};
use trunkline_config::ClusterServer;

use crate::args::{Admin, ClusterCommand, JoinArgs, NodeArgs};
use crate::commands;
use crate::output::{Failed, Output, address, table};
use crate::serve;
use crate::target::client;

/// Bytes of standard input that are read for a token.
const MAX_TOKEN: u64 = 8192;
/// Time given to connections to finish when a node that joined stops, as the default of `trunkline node`.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) async fn run(command: ClusterCommand, output: &Output) -> Result<(), Failed> {
    match command {
        ClusterCommand::Status { at } => status(at, output).await,
        ClusterCommand::Network { at, timeout } => network(at, timeout, output).await,
        ClusterCommand::Routes { at, set, .. } if !set.is_empty() => replace_routes(at, &set, output).await,
        ClusterCommand::Routes { at, add, .. } if !add.is_empty() => add_routes(at, &add, output).await,
        ClusterCommand::Routes { at, remove, .. } if remove.is_empty() => routes(at, output).await,
        ClusterCommand::Routes { at, remove, .. } => remove_routes(at, &remove, output).await,
        ClusterCommand::Token { at, list: true, .. } => tokens(at, output).await,
        ClusterCommand::Token { at, revoke: Some(id), .. } => {
            commands::changed(client(at)?.post("/v1/cluster/tokens/revoke", &RevokeToken { id }).await?, output)
        }
        ClusterCommand::Token { at, valid, .. } => {
            let request = TokenRequest { valid_s: valid.as_secs() };
            let token: NewToken = client(at)?.post("/v1/cluster/tokens", &request).await?;
            output.print(&token, |token| token.token.clone())
        }
        ClusterCommand::Forget { at, name } => {
            let operation = ClusterOperation::ClusterForget { node_name: name };
            commands::changed(client(at)?.post("/", &operation).await?, output)
        }
    }
}

/// Role of a member of which there is nothing to say.
const FULL: &str = ClusterRole::Full.as_str();
/// Role of a member with one connection.
const LEAF: &str = ClusterRole::Leaf.as_str();
/// Characters of an error that a table shows.
const NOTE: usize = 200;

async fn status(at: Admin, output: &Output) -> Result<(), Failed> {
    let cluster: Cluster = client(at)?.get("/v1/cluster").await?;
    output.print(&cluster, |cluster| {
        let Some(name) = &cluster.cluster else {
            return format!(
                "{} belongs to no cluster: its configuration has no `clustering:`, or switches it off",
                cluster.node_name
            );
        };
        let open = cluster.connections.iter().filter(|member| member.status == "open").count();
        let members = if open == 1 { "member" } else { "members" };
        let role = cluster.role.as_deref().filter(|role| *role != FULL);
        let role = role.map_or_else(String::new, |role| format!(", {role}"));
        let head = format!("{}{role} in the cluster {name}: connected to {open} {members}", cluster.node_name);
        if cluster.connections.is_empty() {
            return format!("{head}; `trunkline cluster routes` tells what was found by the routes");
        }
        let row = |member: &ClusterConnection| {
            let next = member.next_dial_ms.map(|ms| format!("next dial in {ms} ms"));
            let other = member.cluster.as_ref().map(|name| format!("belongs to the cluster {name}"));
            let failed = member.last_error.clone().filter(|_| member.status == "closed");
            let failed =
                failed.map(|error| format!("{} ago: {}", shown(member.last_error_ms.unwrap_or_default()), cut(&error)));
            let role = match (&*member.role, &member.told_by) {
                (FULL, _) => None,
                (LEAF, Some(by)) if member.status == "closed" => Some(format!("leaf of {by}")),
                (role, _) => Some(role.to_owned()),
            };
            let note = role.into_iter().chain(other.or(failed)).chain(next).collect::<Vec<_>>().join("; ");
            vec![
                member.node_name.clone(),
                member.status.clone(),
                member.uptime.clone().unwrap_or_default(),
                member.last_heard_ms.map(shown).unwrap_or_default(),
                member.latency_ms.map(|ms| format!("{ms:.3} ms")).unwrap_or_default(),
                member.addresses.join(", "),
                member.via.clone().unwrap_or_default(),
                member.told_by.clone().unwrap_or_default(),
                note,
            ]
        };
        let rows: Vec<_> = cluster.connections.iter().map(row).collect();
        format!(
            "{head}\n{}",
            table(&["NAME", "STATUS", "UPTIME", "HEARD", "ROUND TRIP", "ADDRESSES", "VIA", "TOLD BY", "NOTE"], &rows)
        )
    })
}

async fn routes(at: Admin, output: &Output) -> Result<(), Failed> {
    let cluster: Cluster = client(at)?.get("/v1/cluster").await?;
    output.print(&cluster.routes, |routes| {
        if routes.is_empty() {
            return "no routes".into();
        }
        let row = |found: &FoundRoute| {
            let next = found.next_attempt_ms.map(|ms| format!("next attempt in {ms} ms"));
            let note = found.last_error.as_deref().map(cut).into_iter().chain(next).collect::<Vec<_>>().join("; ");
            vec![found.route.host.clone(), found.route.port.to_string(), found.nodes.join(", "), note]
        };
        table(&["HOST", "PORT", "NODES", "NOTE"], &routes.iter().map(row).collect::<Vec<_>>())
    })
}

/// Returns the begin of an error, as long as a line of a table can be read. `--json` shows all of it.
fn cut(error: &str) -> String {
    if error.chars().count() <= NOTE {
        return error.into();
    }
    error.chars().take(NOTE).chain(['…']).collect()
}

/// Writes a time in milliseconds in the unit that suits it.
fn shown(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000.. => format!("{} h", ms / 3_600_000),
    }
}

async fn network(at: Admin, timeout: u64, output: &Output) -> Result<(), Failed> {
    let request = NetworkRequest { timeout: Some(timeout.into()), ..NetworkRequest::default() };
    let operation = ClusterOperation::ClusterNetwork(request);
    let wait = Duration::from_millis(timeout);
    let network: ClusterNetwork = client(at)?.post_with_timeout("/", &operation, wait).await?;
    output.print(&network, |network| {
        if network.nodes.is_empty() {
            return "the node belongs to no cluster".into();
        }
        let row = |node: &NetworkNode| {
            let routes = node.routes.iter().flatten().map(written).collect::<Vec<_>>().join(", ");
            let connected = node.connected_nodes.clone().unwrap_or_default().join(", ");
            vec![node.name.clone(), format!("{} ms", node.response_time), connected, routes]
        };
        let silent = network
            .silent
            .iter()
            .map(|node| vec![node.name.clone(), "silent".into(), String::new(), node.error.clone()]);
        let rows: Vec<_> = network.nodes.iter().map(row).chain(silent).collect();
        table(&["NAME", "ANSWER", "CONNECTED TO", "ROUTES, OR ERROR"], &rows)
    })
}

fn written(route: &ClusterRoute) -> String {
    address(&route.host, route.port)
}

fn items(routes: &[Address]) -> Value {
    routes.iter().map(ToString::to_string).collect()
}

fn request(routes: &[Address]) -> RoutesRequest {
    RoutesRequest { server: None, routes: Some(items(routes)) }
}

/// Writes a line for each route, with what was done with it.
fn lines<'r>(parts: impl IntoIterator<Item = (&'r str, &'r [ClusterRoute])>) -> String {
    let line = |(what, routes): (&str, &[ClusterRoute])| {
        routes.iter().map(|route| format!("{}: {what}", written(route))).collect::<Vec<_>>()
    };
    parts.into_iter().flat_map(line).collect::<Vec<_>>().join("\n")
}

async fn add_routes(at: Admin, routes: &[Address], output: &Output) -> Result<(), Failed> {
    let operation = ClusterOperation::ClusterSetRoutes(request(routes));
    let set: RoutesSet = client(at)?.post("/", &operation).await?;
    output.print(&set, |set| {
        let warnings: String = set.warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
        lines([("added", &*set.set), ("was there already", &*set.skipped)]) + &warnings
    })
}

async fn remove_routes(at: Admin, routes: &[Address], output: &Output) -> Result<(), Failed> {
    let operation = ClusterOperation::ClusterDeleteRoutes(request(routes));
    let deleted: RoutesDeleted = client(at)?.post("/", &operation).await?;
    output.print(&deleted, |deleted| lines([("removed", &*deleted.deleted), ("was not there", &*deleted.skipped)]))
}

async fn replace_routes(at: Admin, routes: &[Address], output: &Output) -> Result<(), Failed> {
    let client = client(at)?;
    let cluster: Cluster = client.get("/v1/cluster").await?;
    let server = if cluster.role.as_deref() == Some(LEAF) { ClusterServer::Leaf } else { ClusterServer::Hub };
    let keys = [(server.operation_key(), items(routes))].into_iter().collect();
    commands::changed(client.post("/", &ClusterOperation::SetConfiguration(keys)).await?, output)
}

async fn tokens(at: Admin, output: &Output) -> Result<(), Failed> {
    let tokens: Vec<IssuedToken> = client(at)?.get("/v1/cluster/tokens").await?;
    let today = today();
    output.print(&tokens, |tokens| {
        if tokens.is_empty() {
            return "no tokens".into();
        }
        let row = |token: &IssuedToken| {
            let left = shown(token.expires.saturating_sub(today) * 1000);
            vec![token.id.clone(), token.refusal.clone().unwrap_or_else(|| format!("valid for {left}"))]
        };
        table(&["ID", "STATE"], &tokens.iter().map(row).collect::<Vec<_>>())
    })
}

#[expect(clippy::disallowed_methods, reason = "the validity of tokens is told as the time that is left")]
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(crate) async fn join(args: JoinArgs, output: &Output) -> Result<(), Failed> {
    let text = match args.token.as_str() {
        "-" => io::read_to_string(io::stdin().take(MAX_TOKEN)).map_err(Failed::usage)?,
        token => token.to_owned(),
    };
    let token: JoinToken = text.parse().map_err(Failed::usage)?;
    let name = NodeName::new(&args.name).map_err(|error| Failed::usage(error).about("--name"))?;
    let options = JoinOptions { name, port: args.port, config: args.config.clone(), timeout: args.timeout };
    let joined = trunkline_admin::join(&token, &options).await.map_err(|error| match error {
        JoinError::Exists(_) | JoinError::File(..) | JoinError::Port(..) => Failed::usage(error),
        error => Failed::because(error),
    })?;
    tracing::info!(cluster = joined.cluster, config = %joined.config.display(), "joined");
    if args.only_write {
        let written =
            serde_json::json!({ "cluster": joined.cluster, "config": joined.config, "cookie": joined.cookie });
        return output.print(&written, |_| {
            let (config, cookie) = (joined.config.display(), joined.cookie.display());
            format!(
                "{} is let into the cluster {}; {config} and {cookie} are written; run: trunkline node --config {config}",
                args.name, joined.cluster
            )
        });
    }
    let node = NodeArgs { config: args.config, set: Vec::new(), answer: args.answer, grace: GRACE, until_eof: false };
    serve::node(node, output).await
}
