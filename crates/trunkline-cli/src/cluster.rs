//! The commands about the cluster of a running node.

use trunkline_admin::api::{Cluster, ClusterConnection, FoundRoute};

use crate::args::Admin;
use crate::output::{Failed, Output, table};
use crate::target::client;

pub(crate) async fn status(at: Admin, output: &Output) -> Result<(), Failed> {
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
        let head = format!("{} in the cluster {name}: connected to {open} {members}", cluster.node_name);
        if cluster.connections.is_empty() {
            return format!("{head}; `trunkline cluster routes` tells what was found by the routes");
        }
        let row = |member: &ClusterConnection| {
            let next = member.next_dial_ms.map(|ms| format!("next dial in {ms} ms"));
            let other = member.cluster.as_ref().map(|name| format!("belongs to the cluster {name}"));
            let note =
                other.or_else(|| member.last_error.clone()).into_iter().chain(next).collect::<Vec<_>>().join("; ");
            vec![
                member.node_name.clone(),
                member.status.clone(),
                member.addresses.join(", "),
                member.via.clone().unwrap_or_default(),
                member.told_by.clone().unwrap_or_default(),
                note,
            ]
        };
        let rows: Vec<_> = cluster.connections.iter().map(row).collect();
        format!("{head}\n{}", table(&["NAME", "STATUS", "ADDRESSES", "VIA", "TOLD BY", "NOTE"], &rows))
    })
}

pub(crate) async fn routes(at: Admin, output: &Output) -> Result<(), Failed> {
    let cluster: Cluster = client(at)?.get("/v1/cluster").await?;
    output.print(&cluster.routes, |routes| {
        if routes.is_empty() {
            return "no routes".into();
        }
        let row = |found: &FoundRoute| {
            let next = found.next_attempt_ms.map(|ms| format!("next attempt in {ms} ms"));
            let note = found.last_error.clone().into_iter().chain(next).collect::<Vec<_>>().join("; ");
            vec![found.route.host.clone(), found.route.port.to_string(), found.nodes.join(", "), note]
        };
        table(&["HOST", "PORT", "NODES", "NOTE"], &routes.iter().map(row).collect::<Vec<_>>())
    })
}
