//! Starts a node, serves its operations API on a socket in a temporary directory, and asks it for its status.
//!
//! ```sh
//! cargo run -p trunkline-admin --example ask
//! ```

use std::error::Error;
use std::sync::Arc;

use trunkline::Node;
use trunkline_admin::api::Status;
use trunkline_admin::{AdminClient, AdminServer, Operations};
use trunkline_config::{Config, Layers};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let text = "node: { name: app@127.0.0.1, cookie_env: APP_COOKIE, registrar: none }";
    let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
    let config = Config::parse(text, directory.path(), "app.yaml", &Layers { environment, set: Vec::new() })?;

    let node = Node::builder(config.node.name.clone())?
        .cookie(config.node.cookie.clone())
        .listen("127.0.0.1:0".parse::<std::net::SocketAddr>()?)
        .no_registrar()
        .start()
        .await?;
    let operations = Arc::new(Operations::new(node, &config, None));
    let server = AdminServer::start(operations, &config.node.admin).await?.ok_or("admin: none")?;

    let client = AdminClient::Socket(directory.path().join("app.data/admin.sock"));
    let status: Status = client.get("/v1/status").await?;
    println!("{} serves its operations at {}", status.name, server.address());
    println!("it listens at {} and has {} connections", status.listening.join(", "), status.connections);
    Ok(())
}
