use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trunkline::LocalPlace;

/// Reach any node by its name.
///
/// Commands that ask something talk to a running node over its operations API (--admin), or, with --config, act as
/// a short-lived hidden node of their own. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 141 the reader of
/// the output went away.
#[derive(Debug, Parser)]
#[command(name = "trunkline", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log to standard error: off, error, warn, info, debug, trace, or directives such as
    /// info,trunkline_link=trace. Default: info for a node, error otherwise.
    #[arg(long, global = true, env = "TRUNKLINE_LOG", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people per event.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the main job on a small cluster of real processes on this machine.
    Demo(DemoArgs),
    /// Run a node until it is told to stop (SIGTERM drains and leaves, SIGHUP reads routes and certificates again).
    Node(NodeArgs),
    /// Check a configuration file without starting anything: what is wrong, how much each section holds, and warnings of
    /// what opens a door.
    Check(ConfigArgs),
    /// Say what a connect to NAME would try, in order, asking nobody.
    Explain {
        #[command(flatten)]
        at: At,
        /// The node's name, name@host.
        name: String,
    },
    /// List, add or remove static routes.
    Routes {
        #[command(subcommand)]
        command: RoutesCommand,
    },
    /// List, add or remove proxy routes: ways through gateways, tried when no direct one leads to a name.
    ProxyRoutes {
        #[command(subcommand)]
        command: ProxyRoutesCommand,
    },
    /// Connect to NAME and measure a round trip.
    Ping {
        #[command(flatten)]
        at: At,
        /// The node's name, name@host.
        name: String,
        /// How long to wait for the answer once connected.
        #[arg(long, default_value = "5s", value_parser = duration)]
        wait: Duration,
        /// Dial as if nothing had failed of late.
        #[arg(long)]
        now: bool,
    },
    /// Find the way to NAME and show its hops, each with its round trip, or where the ways through gateways end and why.
    Trace {
        #[command(flatten)]
        at: At,
        /// The node's name, name@host.
        name: String,
        /// How long it may take, connecting included.
        #[arg(long, default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
    /// Send a message to a service of NAME.
    Send {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        message: MessageArgs,
        /// Wait until it is in the service's mailbox, over as many connections as it takes once it was sent, or say why
        /// it is not. A peer that cannot be reached in the first place is told at once.
        #[arg(long)]
        important: bool,
        /// How long it may take until the message is on its way, or in the mailbox, connecting included.
        #[arg(long, default_value = "20s", value_parser = duration)]
        wait: Duration,
    },
    /// Call a service of NAME and print its answer: to a terminal as text, elsewhere byte by byte.
    Call {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        message: MessageArgs,
        /// How long to wait for the answer, connecting included.
        #[arg(long, default_value = "20s", value_parser = duration)]
        wait: Duration,
    },
    /// Listen at LOCAL and lead each connection to a stream service of NAME (`services:` in its configuration), until this
    /// command ends.
    Forward {
        #[command(flatten)]
        at: At,
        /// IP:PORT of this machine, with port 0 for any free one, or unix:PATH.
        local: LocalPlace,
        /// The node's name, name@host.
        name: String,
        /// The service.
        service: String,
        /// Reset a connection over which no byte moved for so long, 1s to 1440m. Default: no limit.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        idle: Option<Duration>,
        /// Leave it to the running node, which goes on until `end-forward`.
        #[arg(long, conflicts_with = "config")]
        background: bool,
    },
    /// End what `forward --background` or `forwards:` of the configuration began at LOCAL.
    EndForward {
        #[command(flatten)]
        at: Admin,
        /// Where it listens, as `status` shows it.
        local: LocalPlace,
    },
    /// Have NAME run a program that it offers (`spawn:` in its configuration), and print the pid.
    Spawn {
        #[command(flatten)]
        at: At,
        /// The node's name, name@host.
        name: String,
        /// What the program is called there.
        program: String,
        /// The program's standard input.
        #[arg(default_value = "")]
        input: String,
        /// Wait until it ended, however long; succeed when it ended well.
        #[arg(long)]
        until_end: bool,
        /// How long it may take until it runs, connecting included.
        #[arg(long, default_value = "20s", value_parser = duration)]
        wait: Duration,
    },
    /// Have NAME start an application that it offers (`applications:` in its configuration). Over a running node its own
    /// name will do as well.
    StartApplication {
        #[command(flatten)]
        at: At,
        /// The node's name, name@host.
        name: String,
        /// The application.
        application: String,
        /// How long it may take, connecting included.
        #[arg(long, default_value = "20s", value_parser = duration)]
        wait: Duration,
    },
    /// Stop an application of a running node.
    StopApplication {
        #[command(flatten)]
        at: Admin,
        /// The application.
        application: String,
    },
    /// List the live connections of a running node.
    Nodes {
        #[command(flatten)]
        at: Admin,
    },
    /// Show what a running node says of itself.
    Status {
        #[command(flatten)]
        at: Admin,
    },
    /// End a running node's connection to NAME, in order.
    Disconnect {
        #[command(flatten)]
        at: Admin,
        /// The peer's name, name@host.
        name: String,
    },
    /// Have a running node read the routes of its file and its certificates again, as SIGHUP does.
    Reload {
        #[command(flatten)]
        at: Admin,
    },
    /// Make an authority and node certificates for a lab.
    Certs(CertsArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyRoutesCommand {
    /// List them in the order they are tried.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add one to a running node.
    Add {
        #[command(flatten)]
        at: Admin,
        #[command(flatten)]
        route: Box<ProxyRouteArgs>,
        /// Also write it to the node's configuration file.
        #[arg(long)]
        save: bool,
    },
    /// Remove one from a running node and move what goes by it to the best other way; where there is none it stays up.
    Drain(RemoveArgs),
    /// Remove one from a running node; live connections stay up.
    Remove(RemoveArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoutesCommand {
    /// List the routes in the order they are tried.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add a route to a running node.
    Add {
        #[command(flatten)]
        at: Admin,
        #[command(flatten)]
        route: Box<RouteArgs>,
        /// Also write it to the node's configuration file.
        #[arg(long)]
        save: bool,
    },
    /// Remove a route from a running node and move the connections over it to the best other way; where there is none
    /// they stay up.
    Drain(RemoveArgs),
    /// Remove a route from a running node; live connections stay up.
    Remove(RemoveArgs),
}

/// Which route to take out of use.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) at: Admin,
    /// The exact text of the pattern.
    pub(crate) pattern: String,
    /// Also take it out of the node's configuration file.
    #[arg(long)]
    pub(crate) save: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyRouteArgs {
    /// A regular expression, searched anywhere in the name.
    pub(crate) pattern: String,
    /// The gateway's name.
    #[arg(long)]
    pub(crate) proxy: String,
    /// Higher weights are tried first.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) weight: Option<i64>,
    /// Only for this name.
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// Through at most so many gateways, 1 to 16.
    #[arg(long)]
    pub(crate) max_hop: Option<u8>,
    /// Whether direct ways are tried too: first, never or only.
    #[arg(long)]
    pub(crate) direct: Option<String>,
    /// What proves this node to the gateway, a file of mode 0600. Default: what the routes to it say.
    #[arg(long)]
    pub(crate) cookie_file: Option<PathBuf>,
    /// What proves it to the final node. Default: the node's cookie.
    #[arg(long)]
    pub(crate) target_cookie_file: Option<PathBuf>,
    /// Whether the final node's certificate is checked.
    #[arg(long)]
    pub(crate) target_tls: Option<bool>,
    /// With which profile.
    #[arg(long)]
    pub(crate) target_tls_profile: Option<String>,
    /// Offer the final node a flag or do not; may be given several times. Default: as the node does.
    #[arg(long, value_name = "FLAG=BOOL", value_parser = flag)]
    pub(crate) target_flag: Vec<(String, bool)>,
    /// Have no connection to a final node that does not offer this flag; may be given several times.
    #[arg(long, value_name = "FLAG")]
    pub(crate) target_require: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// A regular expression searched anywhere in the name; anchor it with ^ and $.
    pub(crate) pattern: String,
    /// Higher is tried earlier.
    #[arg(long, default_value_t = trunkline::DEFAULT_WEIGHT, allow_negative_numbers = true)]
    pub(crate) weight: i64,
    /// Where to dial. Default: the part of the name after the @.
    #[arg(long, conflicts_with = "resolver")]
    pub(crate) host: Option<String>,
    /// The port to dial; needed unless a resolver is asked.
    #[arg(long, required_unless_present = "resolver", conflicts_with = "resolver")]
    pub(crate) port: Option<u16>,
    /// Ask this resolver for the address instead.
    #[arg(long)]
    pub(crate) resolver: Option<String>,
    /// Verify the peer's certificate (true) or let the cookie alone prove it (false). Default: the node's.
    #[arg(long, value_name = "BOOL")]
    pub(crate) tls: Option<bool>,
    /// A TLS profile of the node's configuration.
    #[arg(long)]
    pub(crate) tls_profile: Option<String>,
    /// With TLS, do not verify the peer's certificate.
    #[arg(long)]
    pub(crate) insecure_skip_verify: bool,
    /// The handshake version to demand.
    #[arg(long)]
    pub(crate) handshake: Option<String>,
    /// A file with the cookie that replaces the node's; only its owner may be able to read it.
    #[arg(long)]
    pub(crate) cookie_file: Option<PathBuf>,
    /// What tells the peer which of two valid cookies that is, while one replaces the other.
    #[arg(long, requires = "cookie_file")]
    pub(crate) cookie_label: Option<String>,
    /// Offer a flag over the connection or do not; may be given several times. Default: as the node does.
    #[arg(long, value_name = "FLAG=BOOL", value_parser = flag)]
    pub(crate) flag: Vec<(String, bool)>,
    /// Have no connection to a peer that does not offer this flag; may be given several times.
    #[arg(long, value_name = "FLAG")]
    pub(crate) require: Vec<String>,
    /// Call a name of this node something else on its connections; may be given several times.
    #[arg(long, value_name = "NAME=OTHER", value_parser = pair)]
    pub(crate) atom: Vec<(String, String)>,
    /// What is logged about its connections: off, error, warn, info, debug or trace. Default: as the node does.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) connection_log_level: Option<String>,
    /// What becomes of its connections when they go down: never, on_demand or keep. Default: as the node does.
    #[arg(long, value_name = "POLICY")]
    pub(crate) reconnect: Option<String>,
    /// Take connections over worse routes back when this one has answered every probe for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) failback: Option<Duration>,
    /// Send the peer a ping after so long a silence on its connections. Default: as the node does.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep_alive: Option<Duration>,
    /// Give its connections up after so long a silence. Default: as the node does.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) dead_after: Option<Duration>,
    /// Make the static routes the whole answer for the names this route matches.
    #[arg(long)]
    pub(crate) fallback_never: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// The node's name, name@host.
    pub(crate) name: String,
    /// The service there, 1 to 255 bytes.
    pub(crate) service: String,
    /// The body, or - for standard input, whose bytes are sent as they are.
    pub(crate) payload: String,
}

/// A running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Admin {
    /// The running node to ask: its socket, or host:port with the token in the variable TRUNKLINE_ADMIN_TOKEN.
    /// Default: the variable TRUNKLINE_ADMIN, else the one *.data/admin.sock in this directory.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
}

/// A running node, or a short-lived one.
#[derive(Debug, Clone, Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// Act as a short-lived hidden node with this configuration instead of asking a running one.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub(crate) config: Option<PathBuf>,
    /// Overrides a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as the other commands name it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration file, whichever way it was named.
    pub(crate) fn file(&self) -> &Path {
        // One of them is required.
        self.file.as_deref().or(self.config.as_deref()).unwrap_or(Path::new(""))
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The configuration file.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Overrides a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Serve a service that answers every call with TEXT, or with the call's own payload, to try things out.
    #[arg(long, value_name = "SERVICE[=TEXT]")]
    pub(crate) answer: Vec<String>,
    /// How long connections may take to finish when the node leaves.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Leave when standard input ends, for supervisors that hold a pipe.
    #[arg(long)]
    pub(crate) until_eof: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// The nodes to issue for, name@host. Each certificate is good for the host and for both ends of a connection.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Where the files are: ca.pem and ca.key, made if they are not there, and NAME.pem and NAME.key.
    #[arg(long, default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Another host they are dialled by; may be given several times.
    #[arg(long)]
    pub(crate) host: Vec<String>,
    /// How many days they are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36500))]
    pub(crate) days: u16,
    /// Replace the certificates of these nodes. The authority stays.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave the cluster up until Ctrl-C, and print commands to try.
    #[arg(long)]
    pub(crate) keep: bool,
}

fn flag(text: &str) -> Result<(String, bool), String> {
    let (name, on) = text.split_once('=').unwrap_or((text, "true"));
    let on = on.parse().map_err(|_| format!("{on:?} is neither true nor false; write {name}=true or {name}=false"))?;
    Ok((name.to_owned(), on))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is no pair; write NAME=OTHER"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is no duration; write 500ms, 5s or 2m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| error())?;
    let ms = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    let ms = ms.filter(|ms| (1..=86_400_000).contains(ms)).ok_or_else(error)?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_value_is_called_what_a_completion_script_for_zsh_cannot_carry() {
        fn look_at(command: &clap::Command) {
            let names = command.get_arguments().filter_map(clap::Arg::get_value_names).flatten();
            for name in names {
                // A colon ends the words about a value, and what follows is run.
                assert!(!name.contains(':'), "{}: {name}", command.get_name());
            }
            command.get_subcommands().for_each(look_at);
        }
        look_at(&<Cli as clap::CommandFactory>::command());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "-1s", "1h", "1.5s", "0s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
