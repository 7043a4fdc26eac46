//! Starts a node from a YAML text, reloads it with one more route, and shuts it down.
//!
//! ```sh
//! cargo run -p trunkline-admin --example reload
//! ```

use std::error::Error;
use std::time::Duration;

use trunkline_admin::{RunOptions, Source, start};
use trunkline_config::{Config, Layers};

const TEXT: &str = "
node:
  name: app@127.0.0.1
  cookie_env: APP_COOKIE
  listen: [{ host: 127.0.0.1, port: 0 }]
  registrar: none
routes:
  - { match: '^prod-db@', host: 10.0.1.50, port: 4370 }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("app.yaml");
    std::fs::write(&path, TEXT)?;
    let environment = vec![("APP_COOKIE".into(), "f3b0c44298fc1c149afbf4c8996fb924".into())];
    let layers = Layers { environment, set: Vec::new() };

    let config = Config::load(&path, &layers)?;
    let source = Some(Source { path: path.clone(), layers });
    let running = start(&config, RunOptions { source, ..RunOptions::default() }).await?;
    let listening: Vec<String> = running.node().listening().iter().map(ToString::to_string).collect();
    println!("{} listens at {}", running.node().name(), listening.join(", "));
    println!("it has {} route", running.operations().routes().len());

    std::fs::write(&path, format!("{TEXT}  - {{ match: '^shop@', host: 10.0.1.60, port: 4370 }}\n"))?;
    running.reload().await?;
    for route in running.operations().routes() {
        println!("route {} with weight {}", route.pattern, route.weight);
    }

    let report = running.shut_down(Duration::from_secs(5)).await;
    println!("stopped; {} connections were cut", report.cut);
    Ok(())
}
