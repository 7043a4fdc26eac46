//! Offers of a node to its peers: programs, applications and byte-stream services.

use std::ffi::OsString;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use trunkline::{AccessPattern, Application, Exit, LogLimit, Node, Process, SpawnLimits, StreamOptions, Term};
use trunkline_config::{Config, EnvEntry, ProgramConfig};

use crate::start::RunError;

/// Variables of the node that every program receives if they are set. By convention, none of them holds a secret.
const PASSED: [&str; 9] = ["HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LOGNAME", "TMPDIR", "TZ", "USER"];
/// Search path of a program if the node has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Maximum number of bytes logged of one line of a program's output; the rest is left out.
const MAX_LINE: usize = 1024;
/// Maximum number of lines logged per peer and offer in one [`PERIOD`], which is 10 a second on average.
const LINES: u32 = 100;
/// Period in which [`LINES`] are allowed.
const PERIOD: Duration = Duration::from_secs(10);
/// Time for which a program's output is read after its end. What is in the pipes can be read at once, but a descendant
/// that left the process group may keep them open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Line limits per peer and offer.
type Limit = LogLimit<(String, String)>;

#[expect(clippy::disallowed_methods, reason = "the limit of log lines is counted by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Registers the programs, applications and services of a configuration with the node.
pub(crate) fn offer(node: &Node, config: &Config) -> Result<(), RunError> {
    let allow = |patterns: &[AccessPattern]| patterns.to_vec();
    let limit = Arc::new(Limit::new(LINES, PERIOD));
    for (name, spawn) in &config.spawn {
        let limits = SpawnLimits { max: Some(spawn.max) };
        let factory = program(name, &spawn.program, &limit);
        let enabled = node.enable_spawn_with(name, allow(&spawn.allow), limits, factory);
        enabled.map_err(|source| RunError::Spawn { name: name.clone(), source })?;
    }
    for (name, application) in &config.applications {
        let mut set = Application::new();
        for (mailbox, process) in &application.processes {
            set = set.process(mailbox, Term::from(""), program(&format!("{name}.{mailbox}"), process, &limit));
        }
        let enabled = node.enable_application(name, allow(&application.allow), set);
        enabled.map_err(|source| RunError::Application { name: name.clone(), source })?;
    }
    for (name, service) in &config.services {
        let options = StreamOptions { idle: service.idle };
        let served = node.serve_with(name, service.connect.clone(), allow(&service.allow), options);
        served.map_err(|source| RunError::Service { name: name.clone(), source })?;
    }
    Ok(())
}

fn program(
    offer: &str,
    program: &ProgramConfig,
    limit: &Arc<Limit>,
) -> impl Fn(Process, Term) -> BoxedRun + Send + Sync + 'static {
    let (offer, program, limit) = (offer.to_owned(), program.clone(), limit.clone());
    move |process, input| {
        // An application that the node starts by itself has no peer.
        let peer = process.peer().map_or_else(|| "-".to_owned(), ToString::to_string);
        let log = Log { peer, offer: offer.clone(), pid: process.pid().to_string(), limit: limit.clone() };
        Box::pin(run(process, program.clone(), input, log))
    }
}

type BoxedRun = std::pin::Pin<Box<dyn Future<Output = Exit> + Send>>;

/// Logger for one program, with its peer and offer as fields.
struct Log {
    peer: String,
    offer: String,
    pid: String,
    limit: Arc<Limit>,
}

impl Log {
    fn line(&self, write: impl FnOnce(&Self, u64)) {
        if let Some(suppressed) = self.limit.allow(now(), &(self.peer.clone(), self.offer.clone())) {
            write(self, suppressed);
        }
    }

    fn event(&self, what: &str) {
        self.line(|Self { peer, offer, pid, .. }, suppressed| {
            tracing::info!(peer, offer, pid, suppressed, "program: {what}");
        });
    }

    /// Logs the program's output line by line until it ends.
    async fn output(&self, stream: &str, from: impl AsyncRead + Unpin) {
        let mut from = BufReader::new(from);
        while let Some(text) = line(&mut from).await {
            self.line(|Self { peer, offer, pid, .. }, suppressed| {
                tracing::info!(peer, offer, pid, stream, suppressed, "program output: {text}");
            });
        }
    }
}

/// Reads the next line for the log: at most [`MAX_LINE`] bytes of it, without control characters.
async fn line(from: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let (mut line, mut left_out, mut began) = (Vec::new(), 0_u64, false);
    loop {
        let bytes = from.fill_buf().await.ok()?;
        if bytes.is_empty() && !began {
            return None;
        }
        began = true;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (now, used) = end.map_or((bytes, bytes.len()), |end| (&bytes[..end], end + 1));
        let room = now.len().min(MAX_LINE - line.len());
        line.extend_from_slice(&now[..room]);
        left_out += (now.len() - room) as u64;
        let is_over = end.is_some() || bytes.is_empty();
        from.consume(used);
        if is_over {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if left_out > 0 {
        text.push_str(&format!(" [{left_out} more bytes]"));
    }
    Some(text)
}

/// Process group of a program and those of its descendants that stay in it. Dropping it kills them all.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // The group may be empty, so an error is ignored.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Returns the environment of a program: what every program receives and what its offer adds, but nothing else of the
/// node's.
fn environment(program: &ProgramConfig, process: &Process, log: &Log) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = Vec::new();
    let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    all.push(("PATH".into(), own("PATH").unwrap_or_else(|| DEFAULT_PATH.into())));
    all.extend(PASSED.iter().filter_map(|name| Some(((*name).into(), own(name)?))));
    for entry in &program.env {
        match entry {
            EnvEntry::Pass(name) => all.extend(std::env::var_os(name).map(|value| (name.into(), value))),
            EnvEntry::Set(name, value) => all.push((name.into(), value.into())),
        }
    }
    all.push(("TRUNKLINE_PID".into(), process.pid().to_string().into()));
    all.push(("TRUNKLINE_OFFER".into(), log.offer.clone().into()));
    all.extend(process.peer().map(|peer| ("TRUNKLINE_PEER".into(), peer.to_string().into())));
    all
}

/// Runs a program until it ends. Its process group is killed when it has ended, when the process is stopped and when
/// the node stops. Its output goes to the log.
async fn run(mut process: Process, program: ProgramConfig, input: Term, log: Log) -> Exit {
    let Some(input) = input.as_text().map(str::to_owned) else {
        return Exit::Failed("the input of a program must be text".into());
    };
    let (command, arguments) = program.command.split_first().expect("the configuration has no empty command");
    // Peers are told how a process ends. They know the name of the offer; the command is only logged.
    let offer = log.offer.clone();
    let child = tokio::process::Command::new(command)
        .args(arguments)
        .env_clear()
        .envs(environment(&program, &process, &log))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            log.event(&format!("{command} cannot be started: {error}"));
            return Exit::Failed(format!(
                "the program {offer:?} cannot be started; see the log of its node for the cause"
            ));
        }
    };
    // If the process is stopped, the group is dropped before the child is waited for; until then no other group can
    // have its id. If the program ended by itself, the group is dropped immediately, before the system reuses the id.
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    log.event(&format!("{command} began"));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program does not have to read its input, so an error is ignored.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let print = async {
        let out = async {
            if let Some(stdout) = stdout {
                log.output("stdout", stdout).await;
            }
        };
        let err = async {
            if let Some(stderr) = stderr {
                log.output("stderr", stderr).await;
            }
        };
        tokio::join!(out, err);
    };
    let told = async {
        // Messages to the process are discarded, as a program cannot receive them. Exits of linked processes are
        // discarded too: every peer allowed to talk to this node could link itself to the program.
        while process.recv().await.is_some() {}
    };
    tokio::pin!(feed, print, told);
    let (mut fed, mut printed) = (false, false);
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status,
            () = &mut feed, if !fed => fed = true,
            () = &mut print, if !printed => printed = true,
            () = &mut told => {
                log.event(&format!("{command} was stopped"));
                return Exit::Killed;
            }
        }
    };
    drop(group);
    if !printed {
        let _ = tokio::time::timeout(LAST_OUTPUT, print).await;
    }
    let exit = match status {
        Ok(status) if status.success() => Exit::Normal,
        Ok(status) => Exit::Failed(format!("the program {offer:?} ended with {status}")),
        Err(error) => Exit::Failed(format!("how the program {offer:?} ended is unknown: {}", error.kind())),
    };
    log.event(&format!("{command} ended: {exit}"));
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_have_no_control_characters() {
        let long = "x".repeat(100_000);
        let text = format!("plain\n\n\x1b[31mred\r\n{long}\nbytes \u{fffd} without an end");
        let mut from = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(text) = line(&mut from).await {
            lines.push(text);
        }
        let cut = format!("{} [{} more bytes]", &long[..MAX_LINE], 100_000 - MAX_LINE);
        assert_eq!(lines, ["plain", "", " [31mred ", &cut, "bytes \u{fffd} without an end"]);
    }
}
