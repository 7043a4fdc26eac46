//! A process that begins a worker again when it failed, and a peer that begins one by name.
//!
//! The node reaches itself only, so that the example needs no other one. `cargo run --example supervisor --features runtime`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use trunkline_dial::{Sessions, SessionsConfig};
use trunkline_matcher::AccessPattern;
use trunkline_process::runtime::{Process, Processes, Signal, SpawnLimits};
use trunkline_process::{Exit, Pid};
use trunkline_route::Cookie;
use trunkline_term::Term;

/// Ends with the first message, as that says.
async fn worker(mut process: Process) -> Result<(), String> {
    while let Some(signal) = process.recv().await {
        if let Signal::Message(message) = signal {
            let text = String::from_utf8_lossy(message.body()).into_owned();
            return if text == "done" { Ok(()) } else { Err(text) };
        }
    }
    Ok(())
}

/// Links itself to a worker, and begins another one until one ends well.
async fn supervise(mut process: Process, processes: Arc<Processes>, begun: tokio::sync::mpsc::Sender<Pid>) {
    loop {
        let Ok(pid) = processes.spawn(worker) else { return };
        if process.link(&pid).await.is_err() || begun.send(pid).await.is_err() {
            return;
        }
        while let Some(signal) = process.recv().await {
            match signal {
                Signal::Exit { exit: Exit::Normal, .. } => return,
                Signal::Exit { from, exit } => {
                    println!("{from} failed: {exit}; another one begins");
                    break;
                }
                Signal::Message(_) => {}
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = SessionsConfig::new("app@lab".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
    let node = Sessions::new(config, |_| {});
    let processes = Processes::new(node.name().clone(), [7; 16].into(), node.mailboxes().clone());
    node.spawn(processes.serve(Arc::downgrade(&node) as _)?);

    let (begun, mut workers) = tokio::sync::mpsc::channel(1);
    let supervisor = processes.spawn(|process| supervise(process, processes.clone(), begun))?;
    let end = processes.monitor(&supervisor).await;
    for text in ["out of disk", "out of memory", "done"] {
        let pid = workers.recv().await.ok_or("the supervisor begins a worker")?;
        node.send(&pid.node, &pid.mailbox(), text.as_bytes()).await?;
    }
    println!("the supervisor ended: {}", end.down().await);

    // What peers may begin here, by name: at most one at a time.
    let (allow, limits) = (vec![AccessPattern::new(".*@lab")?], SpawnLimits { max: Some(1) });
    processes.enable_spawn_with("worker", allow, limits, |process, _| worker(process))?;
    let within = Duration::from_secs(5);
    let monitor = processes.spawn_monitor("app@lab", "worker", &Term::from(0), within).await?;
    let refused = processes.spawn_on("app@lab", "worker", &Term::from(0), within).await;
    println!("a second one: {}", refused.unwrap_err());
    processes.stop(monitor.pid())?;
    println!("the first one ended: {}", monitor.down().await);
    processes.stop_all();
    Ok(())
}
