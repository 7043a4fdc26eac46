//! Command `trunkline node`: runs a node until it is told to stop.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trunkline::{CONNECTION_TARGET, Chain, LogLevel, Mailbox};
use trunkline_admin::{AdminAddress, RunOptions, Running, Source};
use trunkline_config::{Config, Layers};

use crate::args::{LogArgs, LogFormat, NodeArgs, ServeRegistrar};
use crate::log::{Flush, Log};
use crate::output::{self, Failed, Output};
use crate::{descriptors, target};

/// Log level of connections without one of their own; set once, when logging starts.
static CONNECTIONS: OnceLock<LogLevel> = OnceLock::new();

/// Counter of lost log lines; set once, when logging starts.
static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Returns the settings of a node that come from the command line.
pub(crate) fn run_options(source: Option<Source>) -> RunOptions {
    let connection_log_level = CONNECTIONS.get().copied().unwrap_or_default();
    RunOptions { source, connection_log_level, lost_log_lines: LOST.get().cloned().unwrap_or_default() }
}

/// Sends logs and panics to standard error as text or JSON, coloured on a terminal only. The last lines are written
/// when the returned guard is dropped.
///
/// Lines about connections pass the filter at any level, because each connection filters its own: at the level of the
/// command line, unless the node or a route sets another one.
pub(crate) fn start_logging(args: &LogArgs, otherwise: &str) -> Result<Flush, Failed> {
    let level = args.log_level.as_deref().unwrap_or(otherwise);
    let wrong = |what: &dyn std::fmt::Display| {
        let levels = "off, error, warn, info, debug, trace";
        Failed::usage(format!("--log-level {level:?}: {what}; write one of {levels}, or directives TARGET=LEVEL"))
    };
    if let Some(word) = level.split(',').find(|part| !is_directive(part)) {
        return Err(wrong(&format!("{word:?} is not a level")));
    }
    let _ = CONNECTIONS.set(level_of_connections(level));
    let filter: Targets = format!("{level},{CONNECTION_TARGET}=trace").parse().map_err(|error| wrong(&error))?;
    let log = Log::start(std::io::stderr());
    let log = log.map_err(|error| Failed::because(error).about("the thread of the log cannot be started"))?;
    let _ = LOST.set(log.lost());
    let writer = log.clone();
    // What fails inside the log would be printed to standard error, which panics where that cannot be written.
    let lines = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(move || writer.clone());
    let lines = match args.log_format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.with_ansi(output::is_coloured(&std::io::stderr())).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    let panics = log.clone();
    std::panic::set_hook(Box::new(move |panic| log_panic(panic, panics.clone())));
    Ok(Flush(log))
}

/// Logs a panic as one line, even if the filter leaves out errors. The standard library would write to standard error
/// directly, and block on it.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>, mut log: Log) {
    let text = panic.payload_as_str().unwrap_or("no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(place, backtrace, "panic: {text}; this is a bug");
    } else {
        let _ = writeln!(log, "panic at {place}: {text}; this is a bug");
    }
}

/// Returns the level that directives give to lines about connections: that of the most specific one that applies.
fn level_of_connections(directives: &str) -> LogLevel {
    let concerns = |part: &str| {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        let level = level.to_ascii_lowercase().parse::<LogLevel>().ok()?;
        CONNECTION_TARGET.starts_with(target).then_some((target.len(), level))
    };
    let found = directives.split(',').filter_map(concerns).max_by_key(|(specific, _)| *specific);
    found.map_or(LogLevel::Error, |(_, level)| level)
}

/// Returns true for a level or a directive `TARGET=LEVEL`. Any other word would be taken for a target and silence
/// everything else.
fn is_directive(part: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    part.contains('=') || levels.iter().any(|level| part.eq_ignore_ascii_case(level))
}

/// Line that a node prints once it can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) name: String,
    pub(crate) listening: Vec<String>,
    pub(crate) admin: Option<String>,
}

pub(crate) async fn node(args: NodeArgs, output: &Output) -> Result<(), Failed> {
    let layers = Layers::from_process(args.set);
    let config = target::load(&args.config, &layers)?;
    let source = Source { path: args.config.clone(), layers };
    let end = End { grace: args.grace, until_eof: args.until_eof };
    run(&config, Some(source), &args.config.display().to_string(), &args.answer, end, output).await
}

/// Serves as the registrar of a host until it is told to stop.
pub(crate) async fn registrar(args: ServeRegistrar, output: &Output) -> Result<(), Failed> {
    let ServeRegistrar { listen, name, cookie_file, set, grace } = args;
    let name = match name {
        Some(name) => name,
        None if listen.ip().is_unspecified() => {
            return Err(Failed::usage("--listen has no host that could be part of a name; give one with --name"));
        }
        None => format!("registrar@{}", listen.ip()),
    };
    let registrar = json!({ "host": listen.ip(), "port": listen.port() });
    let node = json!({ "name": name, "cookie_file": cookie_file, "registrar_listen": registrar, "hidden": true, "admin": "none" });
    let config =
        Config::parse(&json!({ "node": node }).to_string(), Path::new("."), "registrar serve", &Layers::of(set));
    let config = config.map_err(Failed::usage)?;
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let end = End { grace, until_eof: false };
    run(&config, None, "registrar serve", &[], end, output).await
}

/// Way in which a node is stopped.
struct End {
    grace: Duration,
    until_eof: bool,
}

/// Runs a node until it is told to stop. `about` names the configuration in errors.
async fn run(
    config: &Config,
    source: Option<Source>,
    about: &str,
    answers: &[String],
    end: End,
    output: &Output,
) -> Result<(), Failed> {
    // Only a registrar in a process of its own has no file.
    let is_registrar = source.is_none();
    let mut signals = Signals::listen()?;
    descriptors::warn_if_few(descriptors::raise(), config);
    let running = trunkline_admin::start(config, run_options(source)).await;
    let running = running.map_err(|error| match error.is_of_the_moment() {
        true => Failed::because(error).about(about),
        false => Failed::usage(error).about(about),
    })?;
    let node = running.node();
    if is_registrar && !node.status().serves_registrar {
        let listen = &config.node.registrar_listen;
        return Err(Failed::because(format!(
            "another process serves as the registrar at {listen}; stop it, or choose another --listen"
        )));
    }
    for answer in answers {
        let (name, text) = match answer.split_once('=') {
            Some((name, text)) => (name, Some(text.to_owned())),
            None => (answer.as_str(), None),
        };
        let mailbox = node.register(name).map_err(|e| Failed::usage(e).about("--answer"))?;
        tokio::spawn(answer_all(mailbox, text));
    }
    let ready = Ready {
        name: node.name().to_string(),
        listening: node.listening().iter().map(ToString::to_string).collect(),
        admin: running.admin().map(shown),
    };
    let line = if output.json {
        serde_json::to_string(&ready).map_err(Failed::because)?
    } else {
        let admin = ready.admin.as_deref().unwrap_or("none");
        let listening = if ready.listening.is_empty() { "nowhere".into() } else { ready.listening.join(", ") };
        format!("{} is up; listening at {listening}; admin {admin}", ready.name)
    };
    // The node keeps running even if this line cannot be written.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = output::write_line(&line) {
            tracing::warn!(%error, line, "the ready line could not be written to standard output");
        }
    });
    until_told(&mut signals, &running, end.until_eof).await;
    tracing::info!("leaving");
    tokio::select! {
        report = running.shut_down(end.grace) => tracing::info!(drained = report.drained, cut = report.cut, "left"),
        () = signals.stop() => tracing::warn!("stopped at once because of a second signal"),
    }
    Ok(())
}

/// Formats an address so that it can be used from any directory.
fn shown(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Socket(path) => std::path::absolute(path).as_deref().unwrap_or(path).display().to_string(),
        AdminAddress::Tcp(address) => address.to_string(),
    }
}

/// Signals that control a node. They are received from before the ready line is printed.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failed> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Signals that end a command in the foreground: SIGINT, SIGTERM, and SIGHUP unless it is ignored, as under `nohup`.
pub(crate) struct ToldToEnd {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl ToldToEnd {
    pub(crate) fn listen() -> Result<Self, Failed> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: if hang_up_is_ignored() { None } else { Some(listen(SignalKind::hangup())?) },
        })
    }

    /// Resolves when one of the signals was received.
    pub(crate) async fn wait(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => drop(hang_up.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = hang_up => {}
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failed> {
    signal(kind).map_err(|e| Failed::because(e).about("signals cannot be received"))
}

/// Returns true if the parent process made this one ignore SIGHUP, which is signal 1. Only Linux provides this
/// information.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

async fn until_told(signals: &mut Signals, running: &Running, until_eof: bool) {
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
                match running.reload().await {
                    Ok(changed) => {
                        changed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                        tracing::info!("{}", changed.message);
                    }
                    Err(error) => tracing::error!("reload failed, nothing changed: {}", Chain(&error)),
                }
            }
        }
    }
}

/// Answers every call with a text, or with its own content; messages are logged.
async fn answer_all(mut mailbox: Mailbox, text: Option<String>) {
    while let Some(message) = mailbox.recv().await {
        if !message.is_call() {
            tracing::info!(mailbox = mailbox.name(), from = %message.node(), bytes = message.body().len(), "message");
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
    fn connections_use_the_most_specific_directive_that_applies() {
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
