//! Important delivery: the sender learns whether its message is in the mailbox, although the peer restarts the link.
//!
//! ```yaml
//! routes:
//!   - { match: "^store@", host: 127.0.0.1, port: 4370, flags: { require: [important_delivery] } }
//!   - { match: "^guest@", host: 127.0.0.1, port: 4371, flags: { important_delivery: false } }
//! ```
//!
//! From the command line: `trunkline send --important store@lab orders "two of them"`.
//!
//! Run: `cargo run -p trunkline-tests --example important`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{Cookie, Flag, NetworkRoute, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let store = node("store@lab")?.listen(anywhere).start().await?;
    let mut orders = store.register("orders")?;
    let guest = node("guest@lab")?.listen(anywhere).start().await?;

    let app = node("app@lab")?.start().await?;
    let to = |node: &Node| NetworkRoute::direct("127.0.0.1", node.listening()[0].port());
    app.add_route("^store@", to(&store)?.require(Flag::ImportantDelivery), 100)?;
    app.add_route("^guest@", to(&guest)?.flag(Flag::ImportantDelivery, false), 100)?;

    let timeout = Duration::from_secs(10);
    app.send_important("store@lab", "orders", "two of them", timeout).await?;
    println!("in the mailbox: {:?}", orders.try_recv().map(|order| order.body().clone()));
    println!("no such mailbox: {}", app.send_important("store@lab", "complaints", "x", timeout).await.unwrap_err());
    println!("not agreed on: {}", app.send_important("guest@lab", "orders", "x", timeout).await.unwrap_err());
    Ok(())
}
