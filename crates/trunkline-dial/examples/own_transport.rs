//! Failover over a transport of one's own: here a plain TCP connection on which the listener says its name.
//!
//! Three static routes match one name. Nobody listens at the first, another node answers at the second, and the
//! third leads there. The crate decides what is tried, when and in which order; this file only dials.
//!
//! `cargo run -p trunkline-dial --example own_transport`

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use trunkline_dial::exec::{self, Found, Ports};
use trunkline_dial::memory::Memory;
use trunkline_dial::plan::{Lookup, Policy};
use trunkline_dial::{AttemptError, Cause, Record, RouteTable};
use trunkline_route::{Attempt, Cookie, Defaults, Destination, Endpoint, NetworkRoute, NodeName, ResolverId};

/// Plain TCP; the first line from the listener is its name.
#[derive(Default)]
struct PlainTcp {
    observed: Mutex<Vec<String>>,
}

impl Ports for PlainTcp {
    type Link = TcpStream;

    async fn resolve(&self, resolver: ResolverId, _: NodeName) -> Result<Vec<Endpoint>, AttemptError> {
        Err(AttemptError::Resolve(format!("there is no {resolver} here").into()))
    }

    async fn lookup(&self, attempt: Attempt) -> Result<Vec<Destination>, AttemptError> {
        let found = tokio::net::lookup_host(attempt.address.to_string()).await;
        Ok(found.map_err(|error| AttemptError::Dns(error.into()))?.map(Destination::from).collect())
    }

    async fn connect(&self, _: Attempt, to: Destination) -> Result<(NodeName, TcpStream), AttemptError> {
        let stream = TcpStream::connect(to.to_string()).await.map_err(|error| AttemptError::Tcp(error.into()))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).await.map_err(|error| AttemptError::Handshake(error.into()))?;
        let name = NodeName::new(line.trim_end()).map_err(|error| AttemptError::Handshake(Cause::new(error)))?;
        Ok((name, reader.into_inner()))
    }

    fn observe(&self, attempt: &Attempt, failure: Option<&AttemptError>) {
        let how = failure.map_or("up".into(), ToString::to_string);
        self.observed.lock().unwrap().push(format!("{}: {how}", attempt.address));
    }

    fn recorded(&self, target: &NodeName, record: &Record) {
        println!("{target}: {record}");
    }
}

/// A listener that calls itself so.
async fn listener(name: &'static str) -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
        }
    });
    Ok(port)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let (other, database) = (listener("web@example.com").await?, listener("db@example.com").await?);

    let routes = RouteTable::new();
    routes.add("^db@", NetworkRoute::direct("127.0.0.1", nobody)?, 30)?;
    routes.add("db@example", NetworkRoute::direct("127.0.0.1", other)?, 20)?;
    routes.add("@example.com$", NetworkRoute::direct("localhost", database)?, 10)?;

    let target: NodeName = "db@example.com".parse()?;
    let lookup = Lookup {
        candidates: routes.matching(&target),
        target: target.clone(),
        discovery: vec![],
        proxies: Vec::new(),
        gateways: Vec::new(),
        defaults: Defaults::new(Cookie::new("not used over plain TCP")?),
        policy: Policy::default(),
        memory: Memory::new(),
        given: false,
    };
    let ports = Arc::new(PlainTcp::default());
    let Found::Link(link) = exec::run(ports.clone(), lookup).await? else {
        return Err("nobody else dials here".into());
    };
    println!("{target}: up at {}", link.peer_addr()?);
    assert_eq!(link.peer_addr()?.port(), database);
    assert!(ports.observed.lock().unwrap().len() >= 3);
    Ok(())
}
