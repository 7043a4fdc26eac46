//! A primary and a standby: the connection goes back once the primary has answered for a while, moves when a route is
//! drained, and is dialled again when it is lost.
//!
//! ```yaml
//! routes:
//!   - { match: "^db@", weight: 200, host: 10.0.1.50, port: 4370, reconnect: keep, failback_ms: 30000 }
//!   - { match: "^(db)@", host: 10.0.2.50, port: 4370 }
//! ```
//!
//! `trunkline routes drain '^db@'` does what the end of this example does.
//! Run: `cargo run -p trunkline-tests --example standby`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{Cookie, Event, NetworkRoute, Node, Reconnect};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of the two")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    // One node with two listeners stands for a primary and a standby.
    let db = node("db@lab")?.listen(anywhere).listen(anywhere).start().await?;
    let [primary, standby] = [0, 1].map(|nth| db.listening()[nth].port());

    let app = node("app@lab")?.start().await?;
    let preferred = NetworkRoute::direct("127.0.0.1", primary)?;
    app.add_route("^(db)@", NetworkRoute::direct("127.0.0.1", standby)?, 100)?;
    let connection = app.connect("db@lab").await?;
    println!("over the standby: {}", connection.info().address);

    // A better route appears, as a recovered one would. It is probed for the hold time before it is gone back to.
    let mut events = app.events();
    let hold = Duration::from_millis(100);
    app.add_route("^db@", preferred.reconnect(Reconnect::Keep).failback(hold), 200)?;
    connection.disconnect();
    connection.closed().await;
    let connection = app.connect_with("db@lab", NetworkRoute::direct("127.0.0.1", standby)?).await?;
    while !matches!(events.next().await, Some(Event::FailedBack { .. })) {}
    println!("back on the primary: {}", connection.info().address);

    let drained = app.drain_route("^db@").await?;
    println!("drained, {} moved: {}", drained.moved.len(), connection.info().address);
    assert!(connection.info().address.socket().is_some_and(|address| address.port() == standby));
    Ok(())
}
