//! A route that is the whole answer for its names, in a version of the handshake that it names itself.
//!
//! ```yaml
//! routes:
//!   - { match: "^db@", host: 127.0.0.1, port: 4370, weight: 200, handshake: TLK/1, fallback: never }
//!   - { match: "@", port: 4370 }
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example fallback_never`

use std::error::Error;
use std::net::SocketAddr;

use trunkline::{ConnectError, Cookie, NetworkRoute, Node, Version};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let db = node("db@lab")?.listen(anywhere).start().await?;
    let app = node("app@lab")?.start().await?;

    let port = db.listening()[0].port();
    app.add_route("^db@", NetworkRoute::direct("127.0.0.1", port)?.version(Version::native(1)).fallback_never(), 200)?;
    println!("version: {:?}", app.connect("db@lab").await?.info().version);

    // Nobody is asked where else it might be when it does not answer there.
    db.shut_down(std::time::Duration::from_secs(1)).await;
    if let Some(connection) = app.connection("db@lab") {
        connection.disconnect();
    }
    match app.connect("db@lab").await {
        Err(ConnectError::NoRoute(no_route)) => println!("{no_route}"),
        other => return Err(format!("it should have failed: {other:?}").into()),
    }

    // A version that this build does not speak is an attempt that fails, and the next route follows.
    app.remove_route("^db@")?;
    let db = node("db@lab")?.listen(anywhere).start().await?;
    let port = db.listening()[0].port();
    app.add_route("^db@", NetworkRoute::direct("127.0.0.1", port)?.version(Version::native(9)), 200)?;
    app.add_route("@", NetworkRoute::direct("127.0.0.1", port)?, 100)?;
    println!("over: {:?}", app.connect("db@lab").await?.info().route);
    Ok(())
}
