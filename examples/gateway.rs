//! A node behind a gateway: reached by name, through a node that sees only ciphertext.
//!
//! ```yaml
//! node: { listen: [{ port: 4371 }] }                                     # the gateway
//! routes: [{ match: "^db@", host: 10.0.0.7, port: 4370 }]
//! transit: { rules: [{ from: "app@.*", to: "db@internal" }] }
//! ---
//! routes: [{ match: "^gateway@", host: gateway.example.com, port: 4371 }] # who goes through it
//! proxy_routes:
//!   - { match: "^db@", proxy: gateway@dmz, max_hop: 1, direct: first, target: { cookie_file: secrets/partner } }
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example gateway`

use std::error::Error;
use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use trunkline::{AccessPattern, Cookie, NetworkRoute, Node, ProxyRoute, Transit, TransitRule};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let to = |node: &Node| NetworkRoute::direct("127.0.0.1", node.listening()[0].port());
    let node = |name: &'static str, cookie: &Cookie| {
        Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar())
    };
    // The gateway is known by one cookie; the application and the database share another, which it does not hold.
    let (outer, inner) = (Cookie::new("a secret of the gateway's")?, Cookie::new("a secret of app and db")?);
    let app_alone = AccessPattern::new("app@.*")?;
    let db = node("db@internal", &outer)?.listen(anywhere).peer(app_alone, inner.clone()).start().await?;
    let mut queries = db.register("queries")?;
    tokio::spawn(async move {
        while let Some(query) = queries.recv().await {
            query.reply("42 rows");
        }
    });
    let rules = vec![TransitRule::new(AccessPattern::new("app@.*")?, AccessPattern::new("db@internal")?)];
    let gateway = node("gateway@dmz", &outer)?.listen(anywhere).transit(Transit { rules, gateways: Vec::new() });
    let gateway = gateway.route("^db@", to(&db)?, 100).start().await?;

    let app = node("app@lab", &outer)?.route("^gateway@", to(&gateway)?, 100).start().await?;
    let target = NetworkRoute::to_port(1)?.cookie(inner).build();
    let through = ProxyRoute::via("gateway@dmz".parse()?).max_hop(NonZeroU8::MIN).target(target);
    app.add_proxy_route("internal$", through, 100)?;
    let answer = app.call("db@internal", "queries", b"select 1", Duration::from_secs(5)).await?;
    let connection = app.connect("db@internal").await?;
    println!("{} through {:?}", String::from_utf8_lossy(&answer), connection.info().via);
    println!("the gateway passed {} bytes on and read none", gateway.status().carried);
    println!("{}", app.connect("other@internal").await.map(drop).unwrap_err());
    Ok(())
}
