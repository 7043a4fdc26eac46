//! A node that speaks a protocol of its own, and finds its peers by a resolver of its own, with the public API only.
//!
//! `TOY` is a protocol of text lines over TCP, with messages and calls. Everything else (routes, failover, which connection
//! stands for a name, mailboxes, shutdown) is that of every node.
//!
//! A stack for use needs what `TOY` leaves out:
//!
//! - proof of the names and the cookie, and encryption: `TOY` believes each peer, and refuses routes that demand TLS;
//! - limits on a peer that keeps no credit, answers without end or uses ever more names, and on callers by their address;
//! - an orderly end: [`go_away`](trunkline::stack::StackLink::go_away) closes at once, also while calls are under way;
//! - the times of the policy, `keep_alive` and `dead_after`: a silent peer is noticed only by a probe;
//! - flags (priorities, important messages, and those of processes) and streams, which are all refused;
//! - counters, and callers that come through gateways.
//!
//! `cargo run --manifest-path examples/own-stack/Cargo.toml`

mod link;
mod toy;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trunkline::registrar::{BoxFuture, ResolveError};
use trunkline::{Address, Endpoint, NetworkRoute, Node, NodeName, Resolver, ResolverId};

use crate::toy::{Toy, version};

/// A resolver that knows what it was told.
#[derive(Debug, Default)]
struct Table(Mutex<HashMap<NodeName, SocketAddr>>);

impl Resolver for Table {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move {
            let Some(found) = self.0.lock().unwrap().get(name).copied() else { return Ok(Vec::new()) };
            let address = Address::new(found.ip().to_string(), found.port());
            let mut endpoint =
                Endpoint::at(address.map_err(|error| ResolveError::Failed(trunkline::Cause::new(error)))?);
            endpoint.version = Some(version());
            Ok(vec![endpoint])
        })
    }
}

async fn node(name: &str, table: &Arc<Table>) -> Result<Node, Box<dyn std::error::Error>> {
    let toy = Toy::new(name.parse()?);
    let table_id = ResolverId::new("table")?;
    let node = Node::builder(name)?
        .cookie("a cookie that TOY does not use")
        .listener(toy.listen("127.0.0.1:0".parse()?).await?)
        .stack(toy)
        .resolver(table_id.clone(), table.clone())
        .route("@toy$", NetworkRoute::resolved_by(table_id), 100)
        .no_registrar()
        .start()
        .await?;
    table.0.lock().unwrap().insert(node.name().clone(), node.listening()[0]);
    Ok(node)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let table = Arc::new(Table::default());
    let (app, db) = (node("app@toy", &table).await?, node("db@toy", &table).await?);

    let mut queries = db.register("queries")?;
    tokio::spawn(async move {
        while let Some(query) = queries.recv().await {
            let answer = format!("{} rows for {}", query.body().len(), query.node());
            query.reply(answer);
        }
    });
    let answer = app.call("db@toy", "queries", "select 1", Duration::from_secs(5)).await?;
    println!("{}", String::from_utf8_lossy(&answer));
    assert_eq!(answer, "8 rows for app@toy");

    let mut inbox = app.register("in")?;
    db.send("app@toy", "in", "over the same connection").await?;
    let message = inbox.recv().await.ok_or("the node is gone")?;
    println!("{} from {}", String::from_utf8_lossy(message.body()), message.node());
    assert_eq!(db.nodes().len(), 1);
    println!("{}", db.nodes()[0].0.version);

    let missing = app.call("nobody@toy", "queries", "", Duration::from_secs(5)).await.unwrap_err();
    println!("{}", trunkline::Chain(&missing));
    db.shut_down(Duration::from_secs(5)).await;
    app.shut_down(Duration::from_secs(5)).await;
    Ok(())
}
