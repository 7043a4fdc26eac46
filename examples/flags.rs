//! Flags: what a connection can do, switched off for one peer and required of another.
//!
//! ```yaml
//! node: { flags: { fragmentation: true } }
//! routes:
//!   - { match: "^guest@", host: 127.0.0.1, port: 4370, flags: { priorities: false } }
//!   - { match: "^store@", host: 127.0.0.1, port: 4371, flags: { require: [fragmentation] } }
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example flags`

use std::error::Error;
use std::net::SocketAddr;

use trunkline::{Cookie, Flag, NetworkRoute, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let guest = node("guest@lab")?.listen(anywhere).start().await?;
    // This one takes no message that is longer than a frame, from nobody.
    let store = node("store@lab")?.listen(anywhere).flag(Flag::Fragmentation, false).start().await?;

    let app = node("app@lab")?.start().await?;
    let to = |node: &Node| NetworkRoute::direct("127.0.0.1", node.listening()[0].port());
    app.add_route("^guest@", to(&guest)?.flag(Flag::Priorities, false), 100)?;
    app.add_route("^store@", to(&store)?.require(Flag::Fragmentation), 100)?;

    let connection = app.connect("guest@lab").await?;
    println!("agreed with guest: {}", connection.info().flags);
    let refused = connection.send_high_priority("work", "", b"me first").await.unwrap_err();
    println!("{refused}");

    let refused = app.connect("store@lab").await.map(drop).unwrap_err();
    println!("{refused}");
    Ok(())
}
