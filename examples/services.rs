//! Streams of bytes: a service behind an address, one that the program takes itself, and a local socket that leads to them.
//!
//! ```yaml
//! services:                                        # at the node that has it
//!   postgres: { connect: 127.0.0.1:5432, allow: ["app@.*"] }
//! ---
//! routes: [{ match: "^db@", host: 10.0.1.50, port: 4370 }]                                       # at the other one
//! forwards: [{ listen: 127.0.0.1:5433, name: db@backend, service: postgres }]
//! ```
//!
//! `trunkline forward 127.0.0.1:5433 db@backend postgres` does the same for as long as it runs.
//! Run: `cargo run -p trunkline-tests --example services`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use trunkline::{AccessPattern, Cookie, LocalPlace, NetworkRoute, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let db = node("db@lab")?.listen(anywhere).start().await?;
    let app = node("app@lab")?.start().await?;
    app.add_route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)?;
    let apps = || AccessPattern::new("app@.*").map(|pattern| vec![pattern]);

    // Any server; this one says one thing.
    let server = TcpListener::bind(anywhere).await?;
    db.serve("greeter", server.local_addr()?.to_string().parse()?, apps()?)?;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = server.accept().await {
            let _ = socket.write_all(b"hello from a server\n").await;
        }
    });
    let forward = app.forward(LocalPlace::Tcp(anywhere), "db@lab", "greeter").await?;
    let mut greeting = String::new();
    TcpStream::connect(forward.place().to_string()).await?.read_to_string(&mut greeting).await?;
    print!("{greeting}");

    // A program may take streams itself, and open them itself.
    let mut streams = db.accept("shout", apps()?)?;
    tokio::spawn(async move {
        while let Some(incoming) = streams.next().await {
            let mut stream = incoming.accept();
            let mut all = String::new();
            if stream.read_to_string(&mut all).await.is_ok() {
                let _ = stream.write_all(all.to_uppercase().as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    let mut stream = app.open("db@lab", "shout", Duration::from_secs(5)).await?;
    stream.write_all(b"hello from a program\n").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    print!("{answer}");
    for service in db.services() {
        println!("{}: {} streams", service.name, service.traffic.all);
    }
    println!("{}", app.open("db@lab", "nothing", Duration::from_secs(5)).await.unwrap_err());
    Ok(())
}
