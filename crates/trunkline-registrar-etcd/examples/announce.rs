//! Announces a node in etcd, finds it, and withdraws it. `etcd` has to run: `cargo run --example announce 127.0.0.1:2379`.

use trunkline_registrar::{Registrar, Registration};
use trunkline_registrar_etcd::{Etcd, EtcdSettings};
use trunkline_route::{Address, Endpoint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: Address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:2379".into()).parse()?;
    let etcd = Etcd::new(EtcdSettings::at(vec![address]));
    let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
    let lease = etcd.register(Registration::new("db@example.com".parse()?, endpoints)).await?;
    for endpoint in etcd.resolver().resolve(&"db@example.com".parse()?).await? {
        println!("db@example.com is at {}", endpoint.address);
    }
    lease.withdraw().await;
    Ok(())
}
