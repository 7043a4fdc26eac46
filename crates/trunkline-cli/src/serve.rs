//! `trunkline node`: a node that runs until it is told to stop.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trunkline::{CONNECTION_TARGET, LogLevel, Mailbox};
use trunkline_admin::api::ForwardRequest;
use trunkline_admin::{AdminAddress, AdminListener, Operations, Source};
use trunkline_config::Layers;

use crate::args::{LogArgs, LogFormat, NodeArgs};
use crate::boot;
use crate::output::{Failed, Output};
use crate::program;

/// How much is said about connections whose route and node do not say; set once, with the rest of logging.
static CONNECTIONS: OnceLock<LogLevel> = OnceLock::new();

/// How much is said about connections, as far as the command line says.
pub(crate) fn connection_level() -> LogLevel {
    CONNECTIONS.get().copied().unwrap_or_default()
}

/// Sends logs to standard error: text or JSON, coloured on a terminal only.
///
/// Lines about connections are let through whatever their level: each connection has a level of its own, which is
/// that of the command line unless the node or a route says otherwise.
pub(crate) fn start_logging(args: &LogArgs, otherwise: &str) -> Result<(), Failed> {
    let level = args.log_level.as_deref().unwrap_or(otherwise);
    let wrong = |what: &dyn std::fmt::Display| {
        let levels = "off, error, warn, info, debug, trace";
        Failed::usage(format!("--log-level {level:?}: {what}; write one of {levels}, or directives TARGET=LEVEL"))
    };
    if let Some(word) = level.split(',').find(|part| !is_directive(part)) {
        return Err(wrong(&format!("{word:?} is no level")));
    }
    let _ = CONNECTIONS.set(level_of_connections(level));
    let filter = EnvFilter::try_new(format!("{level},{CONNECTION_TARGET}=trace")).map_err(|e| wrong(&e))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

/// What directives come to for lines about connections: the most specific one that concerns them.
fn level_of_connections(directives: &str) -> LogLevel {
    let concerns = |part: &str| {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        let level = level.to_ascii_lowercase().parse::<LogLevel>().ok()?;
        CONNECTION_TARGET.starts_with(target).then_some((target.len(), level))
    };
    let found = directives.split(',').filter_map(concerns).max_by_key(|(specific, _)| *specific);
    found.map_or(LogLevel::Error, |(_, level)| level)
}

/// A bare word that is no level would be taken for a target, and silence everything else.
fn is_directive(part: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    part.contains('=') || levels.iter().any(|level| part.eq_ignore_ascii_case(level))
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
    let mut signals = Signals::listen()?;
    let place = AdminListener::bind(&config.node.admin).await;
    let place = place.map_err(|e| Failed::usage(format!("node.admin: {e}")).within(&args.config))?;
    let node = boot::start(&args.config, &config).await?;
    program::offer(&node, &config).map_err(|error| error.within(&args.config))?;
    for answer in &args.answer {
        let (service, text) = match answer.split_once('=') {
            Some((service, text)) => (service, Some(text.to_owned())),
            None => (answer.as_str(), None),
        };
        let mailbox = node.register(service).map_err(|e| Failed::usage(format!("--answer: {e}")))?;
        tokio::spawn(answer_all(mailbox, text));
    }
    let source = Source { path: args.config.clone(), layers };
    let operations = Arc::new(Operations::new(node.clone(), &config, Some(source)));
    for forward in &config.forwards {
        let (listen, name) = (forward.listen.to_string(), forward.name.to_string());
        let idle_ms = forward.idle.map(|idle| idle.as_millis() as u64);
        let request = ForwardRequest { listen, name, service: forward.service.clone(), idle_ms };
        let forwarded = operations.forward(&request).await;
        forwarded.map_err(|e| Failed::usage(format!("forwards: {}", e.failure.error)).within(&args.config))?;
    }
    let admin = place.map(|place| place.serve(operations.clone()));
    let ready = Ready {
        name: node.name().to_string(),
        listening: node.listening().iter().map(ToString::to_string).collect(),
        admin: admin.as_ref().map(|admin| shown(admin.address())),
    };
    if output.json {
        output.line(&serde_json::to_string(&ready).map_err(Failed::because)?);
    } else {
        let admin = ready.admin.as_deref().unwrap_or("none");
        let listening = if ready.listening.is_empty() { "nowhere".into() } else { ready.listening.join(", ") };
        output.line(&format!("{} is up; listening at {listening}; admin {admin}", ready.name));
    }
    until_told(&mut signals, &operations, args.until_eof).await;
    tracing::info!("leaving");
    let down = node.shut_down(args.grace);
    let leaving = async {
        match admin {
            Some(admin) => admin.while_leaving(down).await,
            None => down.await,
        }
    };
    tokio::select! {
        report = leaving => tracing::info!(drained = report.drained, cut = report.cut, "left"),
        () = signals.stop() => tracing::warn!("left at once, told so a second time"),
    }
    operations.end_forwards();
    Ok(())
}

/// Usable from any directory.
fn shown(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Socket(path) => std::path::absolute(path).as_deref().unwrap_or(path).display().to_string(),
        AdminAddress::Tcp(address) => address.to_string(),
    }
}

/// What a node is told from outside; listened to before anybody learns that it is up.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self, Failed> {
        let listen = |kind| signal(kind).map_err(|e| Failed::because(format!("signals cannot be received: {e}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn until_told(signals: &mut Signals, operations: &Arc<Operations>, until_eof: bool) {
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
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            () = &mut end_of_input => return,
            _ = signals.hang_up.recv() => {
                let operations = operations.clone();
                match tokio::task::spawn_blocking(move || operations.reload()).await {
                    Ok(Ok(changed)) => {
                        changed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                        tracing::info!("reloaded: {}", changed.message);
                    }
                    Ok(Err(error)) => tracing::error!("not reloaded, nothing changed: {}", error.failure.error),
                    Err(_) => tracing::error!("not reloaded: it failed unexpectedly; this is a bug"),
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_most_specific_directive_that_concerns_them() {
        for (directives, level) in [
            ("info", LogLevel::Info),
            ("off", LogLevel::Off),
            ("WARN", LogLevel::Warn),
            ("error,trunkline=info", LogLevel::Info),
            ("info,trunkline_link=trace", LogLevel::Info),
            ("trunkline_link=trace", LogLevel::Error),
            ("trace,trunkline=info,trunkline::connection=debug", LogLevel::Debug),
        ] {
            assert_eq!(level_of_connections(directives), level, "{directives}");
        }
    }
}
