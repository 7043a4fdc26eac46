//! One connection that says everything while the others say what is usual.
//!
//! ```yaml
//! routes:
//!   - { match: "^suspect@", host: 127.0.0.1, port: 4370, log_level: trace }
//!   - { match: "@", port: 4370 }
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example log_level`

use std::error::Error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trunkline::{CONNECTION_TARGET, Cookie, LogLevel, NetworkRoute, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // Lines about connections are let through as a whole: each connection has a level of its own.
    let filter: Targets = format!("info,{CONNECTION_TARGET}=trace").parse()?;
    let lines = tracing_subscriber::fmt::layer().with_test_writer();
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();

    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let suspect = node("suspect@lab")?.listen("127.0.0.1:0").log_level(LogLevel::Off).start().await?;
    let other = node("other@lab")?.listen("127.0.0.1:0").log_level(LogLevel::Off).start().await?;
    let port = |node: &Node| node.listening()[0].port();

    let app = node("app@lab")?.start().await?;
    app.add_route("^suspect@", NetworkRoute::direct("127.0.0.1", port(&suspect))?.log_level(LogLevel::Trace), 100)?;
    app.add_route("^other@", NetworkRoute::direct("127.0.0.1", port(&other))?, 100)?;
    for name in ["suspect@lab", "other@lab"] {
        app.connect(name).await?.send("work", "", b"never shown").await?;
    }
    Ok(())
}
