//! Two nodes of one name behind routes of different weight; the better one goes, the other takes over.

use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{Cookie, NetworkRoute, Node};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cookie = Cookie::new("an example's throw-away secret")?;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let mut shops = Vec::new();
    for answer in ["the primary", "the standby"] {
        let shop = Node::builder("shop@127.0.0.1")?.cookie(cookie.clone()).no_registrar().listen(any).start().await?;
        let mut whoami = shop.register("whoami")?;
        tokio::spawn(async move {
            while let Some(call) = whoami.recv().await {
                call.reply(answer);
            }
        });
        shops.push(shop);
    }
    let app = Node::builder("app@127.0.0.1")?.cookie(cookie).no_registrar().start().await?;
    for (shop, (pattern, weight)) in shops.iter().zip([("^shop@", 200), ("^(shop|cart)@", 100)]) {
        app.add_route(pattern, NetworkRoute::direct("127.0.0.1", shop.listening()[0].port())?, weight)?;
    }

    let call = || app.call("shop@127.0.0.1", "whoami", b"", Duration::from_secs(5));
    println!("{:?} answers", call().await?);
    let connection = app.connect("shop@127.0.0.1").await?;
    shops.remove(0).shut_down(Duration::from_secs(1)).await;
    println!("it left: {}", connection.closed().await);
    println!("{:?} answers", call().await?);
    Ok(())
}
