//! Asks the name servers of the system for the ways to a node.
//!
//! `cargo run -p trunkline-registrar-dns --example resolve -- db@localhost`

use trunkline_registrar::Resolver;
use trunkline_registrar_dns::{Dns, DnsSettings};
use trunkline_route::{Chain, NodeName};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An address by default, for which nobody has to be asked.
    let name: NodeName = std::env::args().nth(1).as_deref().unwrap_or("db@127.0.0.1").parse()?;
    let dns = Dns::new(DnsSettings::default())?;
    match dns.resolve(&name).await {
        Ok(found) if found.is_empty() => println!("{name} is not known"),
        Ok(found) => found.iter().for_each(|endpoint| println!("{name} may be at {}", endpoint.address)),
        Err(error) => println!("{}", Chain(&error)),
    }
    Ok(())
}
