//! Two nodes on one host: the first serves as the registrar, the second finds the first by its name.

use trunkline_link::{Native, NativeLimits};
use trunkline_registrar::{Registrar, Registration};
use trunkline_registrar_embedded::Embedded;
use trunkline_route::{Address, Cookie, Endpoint, NodeName};
use trunkline_wire::handshake::Credential;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cookie = Cookie::new("an example's throw-away secret")?;
    // Free at this moment; the first registrar binds it next.
    let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let start = |name: &str| -> Result<Embedded, Box<dyn std::error::Error>> {
        let native = Native::new(name.parse()?, NativeLimits::default());
        let secret = cookie.clone();
        let credentials = Box::new(move |_: &NodeName, _: &str| Credential::Cookie(secret.clone()));
        Ok(Embedded::start(native, listen, cookie.clone(), credentials)?)
    };
    let (first, second) = (start("db@127.0.0.1")?, start("app@127.0.0.1")?);
    println!("db serves: {}, app serves: {}", first.serves(), second.serves());

    let db: NodeName = "db@127.0.0.1".parse()?;
    let endpoints = vec![Endpoint::at(Address::new("127.0.0.1", 4370)?)];
    let lease = first.register(Registration::new(db.clone(), endpoints)).await?;
    println!("app is told: {:?}", second.resolver().resolve(&db).await?);
    drop(lease);
    Ok(())
}
