//! The commands about the registrars of a running node.

use trunkline_admin::ClientError;
use trunkline_admin::api::{
    Announce, Announced, AnnouncedEndpoint, AnnouncedService, RegistrarChange, RegistrarState, Registrars, Resolved,
    ServiceNodes,
};

use crate::args::{Admin, OfRegistrar, RegistrarCommand};
use crate::commands::{changed, checked, encoded, service_text};
use crate::output::{Failed, Output, address, one_line, table};
use crate::serve::{self, ToldToEnd};
use crate::target::client;

pub(crate) async fn run(command: RegistrarCommand, output: &Output) -> Result<(), Failed> {
    match command {
        RegistrarCommand::Status { at } => status(at, output).await,
        RegistrarCommand::Nodes { at, of } => nodes(at, &of, output).await,
        RegistrarCommand::Resolve { at, registrar, name } => resolve(at, registrar.as_deref(), &name, output).await,
        RegistrarCommand::Services { at, service } => services(at, service.as_deref(), output).await,
        RegistrarCommand::Announce { at, service, weight, tags, withdraw } => {
            let weight = if withdraw { None } else { Some(weight) };
            let tags = Some(tags).filter(|tags| !tags.is_empty());
            let request = Announce { service, weight, tags };
            changed(client(at)?.post("/v1/announce", &request).await?, output)
        }
        RegistrarCommand::Watch { at, of } => watch(at, &of, output).await,
        RegistrarCommand::Serve(args) => serve::registrar(args, output).await,
    }
}

async fn status(at: Admin, output: &Output) -> Result<(), Failed> {
    let registrars: Registrars = client(at)?.get("/v1/registrars").await?;
    output.print(&registrars, |registrars| {
        let own = match (registrars.registered, registrars.serves_registrar) {
            (None, true) => "not announced; served here",
            (None, false) => "not announced",
            (Some(true), true) => "announced; served here",
            (Some(true), false) => "announced",
            (Some(false), _) => "not announced at the moment; the node tries again by itself",
        };
        let row = |registrar: &RegistrarState, asked: &str, node: &str| {
            let RegistrarState { id, stale } = registrar;
            let note = stale.as_ref().map(|reason| format!("may be out of date: {reason}")).unwrap_or_default();
            vec![id.clone(), asked.to_owned(), node.to_owned(), note]
        };
        let asked = registrars.discovery.iter().enumerate().map(|(nth, registrar)| {
            let is_own = nth + 1 == registrars.discovery.len();
            row(registrar, "where no route leads to a name", if is_own { own } else { "" })
        });
        let others = registrars.others.iter().map(|registrar| row(registrar, "by routes", ""));
        let rows: Vec<_> = asked.chain(others).collect();
        if rows.is_empty() {
            return "the node has no registrar".into();
        }
        let lookups = format!("lookups answered here: {}", registrars.registrar_queries);
        let lookups = if registrars.serves_registrar { lookups } else { String::new() };
        format!("{}\n{lookups}", table(&["REGISTRAR", "ASKED", "THIS NODE", "NOTE"], &rows)).trim_end().to_owned()
    })
}

/// Returns a path with the id of a registrar as its query.
fn path(path: &str, of: &OfRegistrar) -> String {
    match &of.registrar {
        Some(id) => format!("{path}?registrar={}", encoded(id)),
        None => path.to_owned(),
    }
}

fn written(endpoint: &AnnouncedEndpoint) -> String {
    let AnnouncedEndpoint { host, port, tls, handshake } = endpoint;
    let tls = tls.map(|tls| if tls { " with a certificate" } else { " without a certificate" }).unwrap_or_default();
    let handshake = handshake.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{}{handshake}{tls}", address(host, *port))
}

fn listed(endpoints: &[AnnouncedEndpoint]) -> String {
    endpoints.iter().map(written).collect::<Vec<_>>().join(", ")
}

async fn nodes(at: Admin, of: &OfRegistrar, output: &Output) -> Result<(), Failed> {
    let nodes: Vec<Announced> = client(at)?.get(&path("/v1/registrars/nodes", of)).await?;
    output.print(&nodes, |nodes| {
        if nodes.is_empty() {
            return "no node is announced".into();
        }
        let row =
            |node: &Announced| vec![node.name.clone(), listed(&node.endpoints), served(node), node.leads_to.join(", ")];
        table(&["NAME", "ADDRESSES", "SERVES", "LEADS TO"], &nodes.iter().map(row).collect::<Vec<_>>())
    })
}

/// Lists the services of a node with their weights.
fn served(node: &Announced) -> String {
    let one = |served: &AnnouncedService| format!("{} {}", served.service, served.weight);
    node.serves.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn services(at: Admin, service: Option<&str>, output: &Output) -> Result<(), Failed> {
    let query = service.map(|service| format!("?service={}", encoded(service))).unwrap_or_default();
    let services: Vec<ServiceNodes> = client(at)?.get(&format!("/v1/registrars/services{query}")).await?;
    output.print(&services, |services| {
        if services.is_empty() {
            return "no service is announced or listed".into();
        }
        services.iter().map(service_text).collect::<Vec<_>>().join("\n\n")
    })?;
    match service {
        Some(service) if services.iter().all(|service| service.nodes.is_empty()) => {
            Err(Failed::because(format!("no node that serves {service} is known")))
        }
        _ => Ok(()),
    }
}

async fn resolve(at: Admin, registrar: Option<&str>, name: &str, output: &Output) -> Result<(), Failed> {
    checked(name)?;
    let registrar = registrar.map(|id| format!("&registrar={}", encoded(id))).unwrap_or_default();
    let path = format!("/v1/registrars/resolve?name={}{registrar}", encoded(name));
    let answers: Vec<Resolved> = client(at)?.get(&path).await?;
    output.print(&answers, |answers| {
        let row = |answer: &Resolved| {
            let is_unknown = answer.endpoints.is_empty() && answer.gateways.is_empty();
            let stale = answer.stale.as_ref().map(|reason| format!("may be out of date: {reason}"));
            let unknown = is_unknown.then(|| "the name is not known there".to_owned());
            let error = answer.error.clone().or(stale).or(unknown);
            let gateways = answer.gateways.join(", ");
            vec![answer.registrar.clone(), listed(&answer.endpoints), gateways, error.unwrap_or_default()]
        };
        table(&["REGISTRAR", "ADDRESSES", "GATEWAYS", "NOTE"], &answers.iter().map(row).collect::<Vec<_>>())
    })?;
    let is_found = |answer: &Resolved| !answer.endpoints.is_empty() || !answer.gateways.is_empty();
    if answers.iter().any(is_found) {
        Ok(())
    } else if answers.iter().any(|answer| answer.error.is_some()) {
        Err(Failed::because(format!("no way to {name} was found, and a registrar had no answer")))
    } else {
        Err(Failed::because(format!("no registrar knows a way to {name}")))
    }
}

async fn watch(at: Admin, of: &OfRegistrar, output: &Output) -> Result<(), Failed> {
    let client = client(at)?;
    let mut changes = client.follow::<RegistrarChange>(&path("/v1/registrars/watch", of)).await?;
    let mut told_to_end = ToldToEnd::listen()?;
    loop {
        let change = tokio::select! {
            () = told_to_end.wait() => return Ok(()),
            change = changes.next() => change,
        };
        // A node that is killed does not end its answer.
        let change = if let Err(ClientError::Lost { .. }) = &change { None } else { change? };
        let Some(change) = change else {
            return Err(Failed::because("the node stopped; run this command again once it is running"));
        };
        output.line(&match output.json {
            true => serde_json::to_string(&change).map_err(Failed::because)?,
            false => one_line(&told(&change)),
        })?;
    }
}

/// Describes a change in one line.
fn told(change: &RegistrarChange) -> String {
    let node = |what: &str, node: &Announced| {
        let gateway =
            if node.leads_to.is_empty() { String::new() } else { format!("  leads to {}", node.leads_to.join(", ")) };
        let serves = if node.serves.is_empty() { String::new() } else { format!("  serves {}", served(node)) };
        format!("{what}  {}  {}{serves}{gateway}", node.name, listed(&node.endpoints))
    };
    match change {
        RegistrarChange::Joined(joined) => node("joined ", joined),
        RegistrarChange::Changed(changed) => node("changed", changed),
        RegistrarChange::Left { name } => format!("left     {name}"),
        RegistrarChange::Current => "current  these are all nodes that are announced now".into(),
        RegistrarChange::Lost => "lost     the registrar cannot be asked at the moment; what was told stays".into(),
        RegistrarChange::Back => "back     the registrar answers again".into(),
        other => format!("{other:?}"),
    }
}
