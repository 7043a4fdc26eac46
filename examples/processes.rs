//! Processes across nodes: one is begun at a peer that offers it, watched, and an application is started there.
//!
//! ```yaml
//! # The peer. A node of the binary runs programs; a node in a program of yours runs whatever it likes, as below.
//! spawn:
//!   backup: { command: [/usr/local/bin/backup], allow: ["app@.*"] }
//! applications:
//!   shop: { allow: ["app@.*"], processes: [{ mailbox: store, command: [/opt/store] }] }
//! # The caller: what is off in a route is off for that connection alone.
//! routes:
//!   - { match: "^db@", host: 127.0.0.1, port: 4370, flags: { remote_spawn: true, remote_application_start: false } }
//! ```
//!
//! From the command line: `trunkline spawn db@lab backup --until-end`, `trunkline start-application db@lab shop`.
//!
//! Run: `cargo run -p trunkline-tests --example processes`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{AccessPattern, Application, Cookie, Flag, NetworkRoute, Node, Process, Signal, Term};

/// Answers calls until it is told to end.
async fn worker(mut process: Process, arguments: Term) -> Result<(), String> {
    while let Some(Signal::Message(message)) = process.recv().await {
        match &message.body()[..] {
            b"end" => return Err(format!("told to, with {arguments:?} left to do")),
            _ => message.reply(format!("{} works", process.pid())),
        }
    }
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let db = node("db@lab")?.listen(anywhere).start().await?;
    let apps = || Ok::<_, Box<dyn Error>>(vec![AccessPattern::new("app@.*")?]);
    db.enable_spawn("worker", apps()?, worker)?;
    db.enable_application("shop", apps()?, Application::new().process("store", Term::from(1), worker))?;

    let app = node("app@lab")?.start().await?;
    let to_db = NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?;
    app.add_route("^db@", to_db.flag(Flag::RemoteApplicationStart, false), 100)?;

    let timeout = Duration::from_secs(10);
    let monitor = app.spawn_monitor("db@lab", "worker", &Term::from(7), timeout).await?;
    let pid = monitor.pid().clone();
    println!("{}", String::from_utf8_lossy(&app.call_to(&pid, b"", timeout).await?));
    app.send_to(&pid, b"end").await?;
    println!("{}", monitor.down().await);

    println!("{}", app.start_application_on("db@lab", "shop", timeout).await.unwrap_err());
    db.start_application("shop")?;
    println!("{}", String::from_utf8_lossy(&app.call("db@lab", "store", b"", timeout).await?));
    Ok(())
}
