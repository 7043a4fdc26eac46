//! `trunkline node`: a node that runs until it is told to stop.

use std::io::IsTerminal;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trunkline::Mailbox;
use trunkline_admin::{AdminServer, Operations, Source};
use trunkline_config::Layers;

use crate::args::{LogArgs, LogFormat, NodeArgs};
use crate::boot;
use crate::output::{Failed, Output};

/// Sends logs to standard error: text or JSON, coloured on a terminal only.
pub(crate) fn start_logging(args: &LogArgs, quiet: bool) -> Result<(), Failed> {
    let level = args.log_level.as_deref().unwrap_or(if quiet { "error" } else { "info" });
    let filter = EnvFilter::try_new(level)
        .map_err(|e| Failed::usage(format!("--log-level {level:?}: {e}; write a level such as info")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// The line a node prints once it can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) name: String,
    pub(crate) listening: Vec<String>,
    pub(crate) admin: Option<String>,
}

pub(crate) async fn node(args: NodeArgs, output: &Output) -> Result<(), Failed> {
    let layers = Layers::from_process(args.set);
    let config = boot::load(&args.config, &layers)?;
    let node = boot::builder(&config).await?.start().await.map_err(Failed::usage)?;
    for answer in &args.answer {
        let (service, text) = match answer.split_once('=') {
            Some((service, text)) => (service, Some(text.to_owned())),
            None => (answer.as_str(), None),
        };
        let mailbox = node.register(service).map_err(|e| Failed::usage(format!("--answer: {e}")))?;
        tokio::spawn(answer_all(mailbox, text));
    }
    let source = Source { path: args.config, layers };
    let operations = Arc::new(Operations::new(node.clone(), &config, Some(source)));
    let admin = AdminServer::start(operations.clone(), &config.node.admin).await.map_err(Failed::usage)?;
    let ready = Ready {
        name: node.name().to_string(),
        listening: node.listening().iter().map(ToString::to_string).collect(),
        admin: admin.as_ref().map(|admin| admin.address().to_string()),
    };
    if output.json {
        output.line(&serde_json::to_string(&ready).map_err(Failed::because)?);
    } else {
        let admin = ready.admin.as_deref().unwrap_or("none");
        let listening = if ready.listening.is_empty() { "nowhere".into() } else { ready.listening.join(", ") };
        output.line(&format!("{} is up; listening at {listening}; admin {admin}", ready.name));
    }
    until_told(&operations, args.until_eof).await?;
    tracing::info!("leaving");
    drop(admin);
    drop(operations);
    let report = node.shut_down(args.grace).await;
    tracing::info!(drained = report.drained, cut = report.cut, "left");
    Ok(())
}

async fn until_told(operations: &Operations, until_eof: bool) -> Result<(), Failed> {
    let listen = |kind| signal(kind).map_err(|e| Failed::because(format!("signals cannot be received: {e}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let end_of_input = async {
        let (mut input, mut buffer) = (tokio::io::stdin(), [0; 256]);
        while until_eof && matches!(input.read(&mut buffer).await, Ok(n) if n > 0) {}
        if !until_eof {
            std::future::pending::<()>().await;
        }
    };
    tokio::pin!(end_of_input);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = &mut end_of_input => return Ok(()),
            _ = hang_up.recv() => match operations.reload() {
                Ok(changed) => tracing::info!("reloaded: {}", changed.message),
                Err(error) => tracing::error!("not reloaded, nothing changed: {}", error.failure.error),
            },
        }
    }
}

/// Answers every call with a text, or with its own payload; messages are logged.
async fn answer_all(mut mailbox: Mailbox, text: Option<String>) {
    while let Some(message) = mailbox.recv().await {
        if !message.is_call() {
            tracing::info!(service = mailbox.name(), from = %message.node(), bytes = message.body().len(), "message");
            continue;
        }
        let answer = text.clone().map_or_else(|| message.body().clone(), Into::into);
        message.reply(answer);
    }
}
