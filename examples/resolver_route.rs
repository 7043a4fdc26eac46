//! A route that asks a resolver of its own and puts its own fields over each answer.
//!
//! ```yaml
//! registrars: { lab: { kind: file, path: names.yaml } }
//! routes: [{ match: "^staging-", resolver: lab, cookie_file: staging, override: { host: 127.0.0.1 } }]
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example resolver_route`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use trunkline::registrar::NamesFile;
use trunkline::{Cookie, EndpointOverride, Host, NetworkRoute, Node, ResolverId};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let staging = Cookie::new("the cookie of staging")?;
    let listen: SocketAddr = "127.0.0.1:0".parse()?;
    let db = Node::builder("staging-db@lab")?.cookie(staging.clone()).no_registrar().listen(listen).start().await?;

    // The file knows the port, and two hosts of which neither is right from here.
    let dir = tempfile::tempdir()?;
    let port = db.listening()[0].port();
    let names = format!("staging-db@lab: [{{ host: 192.0.2.1, port: 1 }}, {{ host: 192.0.2.1, port: {port} }}]\n");
    std::fs::write(dir.path().join("names.yaml"), names)?;

    let lab = ResolverId::new("lab")?;
    let here = EndpointOverride { host: Some(Host::new("127.0.0.1")?), ..EndpointOverride::default() };
    let route = NetworkRoute::resolved_by(lab.clone()).overriding(here).cookie(staging);
    let app = Node::builder("app@127.0.0.1")?.cookie(Cookie::new("the cookie of the rest")?).no_registrar();
    let app = app.resolver(lab, Arc::new(NamesFile::new(dir.path().join("names.yaml"))));
    let app = app.route("^staging-", route, 100).start().await?;
    let connection = app.connect("staging-db@lab").await?;
    println!("{} is at {}", connection.peer(), connection.info().address);
    Ok(())
}
