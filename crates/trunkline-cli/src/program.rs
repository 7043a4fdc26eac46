//! What a node has for its peers: programs as processes, and services.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use trunkline::{AccessPattern, Application, Exit, Node, Process, StreamOptions, Term};
use trunkline_config::Config;

use crate::output::Failed;

/// Offers what the configuration says to peers.
pub(crate) fn offer(node: &Node, config: &Config) -> Result<(), Failed> {
    let allow = |patterns: &[AccessPattern]| patterns.to_vec();
    for (name, spawn) in &config.spawn {
        let enabled = node.enable_spawn(name, allow(&spawn.allow), program(spawn.command.clone()));
        enabled.map_err(|error| Failed::usage(format!("spawn.{name}: {error}")))?;
    }
    for (name, application) in &config.applications {
        let mut set = Application::new();
        for (service, command) in &application.processes {
            set = set.process(service, Term::from(""), program(command.clone()));
        }
        let enabled = node.enable_application(name, allow(&application.allow), set);
        enabled.map_err(|error| Failed::usage(format!("applications.{name}: {error}")))?;
    }
    for (name, service) in &config.services {
        let options = StreamOptions { idle: service.idle };
        let served = node.serve_with(name, service.connect.clone(), allow(&service.allow), options);
        served.map_err(|error| Failed::usage(format!("services.{name}: {error}")))?;
    }
    Ok(())
}

fn program(command: Vec<String>) -> impl Fn(Process, Term) -> BoxedRun + Send + Sync + 'static {
    move |process, input| Box::pin(run(process, command.clone(), input))
}

type BoxedRun = std::pin::Pin<Box<dyn Future<Output = Exit> + Send>>;

/// Runs until the program ends. It is killed when the process is stopped or the node leaves. What it prints goes to standard error.
async fn run(mut process: Process, command: Vec<String>, input: Term) -> Exit {
    let Some(input) = input.as_text().map(str::to_owned) else {
        return Exit::Failed("a program is given a text".into());
    };
    let (program, arguments) = command.split_first().expect("the configuration has no empty command");
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .env("TRUNKLINE_PID", process.pid().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::from(std::io::stderr()))
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(pid = %process.pid(), program, %error, "cannot be run");
            return Exit::Failed(format!("{program} cannot be run: {error}"));
        }
    };
    tracing::info!(pid = %process.pid(), program, "began");
    let stdin = child.stdin.take();
    let ended = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // Whether it reads is its own business.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        tokio::select! {
            biased;
            status = child.wait() => status,
            () = async { feed.await; std::future::pending().await } => unreachable!("it waits for ever"),
        }
    };
    let told = async {
        // Nothing that is said means anything to a program: whoever may talk to this node could link itself to it.
        while process.recv().await.is_some() {}
    };
    let status = tokio::select! {
        status = ended => status,
        () = told => {
            tracing::info!(pid = %process.pid(), program, "stopped");
            return Exit::Killed;
        }
    };
    let exit = match status {
        Ok(status) if status.success() => Exit::Normal,
        Ok(status) => Exit::Failed(format!("{program}: {status}")),
        Err(error) => Exit::Failed(format!("{program}: {error}")),
    };
    tracing::info!(pid = %process.pid(), program, %exit, "ended");
    exit
}
