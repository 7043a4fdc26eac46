use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use trunkline::{Address, LocalPlace, MAX_VALIDITY};
use trunkline_config::{ClusterRouteError, cluster_route};

/// Reach any node by its name.
///
/// Commands that query or control a node talk to a running one over its admin interface (--admin), or, with --config,
/// act as a short-lived hidden node of their own. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 141 the
/// reader of standard output closed it.
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
    /// Level of the log on standard error: off, error, warn, info, debug, trace, or directives such as
    /// info,trunkline_link=trace. Default: info for a node, error otherwise.
    #[arg(long, global = true, env = "TRUNKLINE_LOG", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Format of log lines.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Demonstrate failover, discovery, gateways and a cluster that heals, with real processes on this machine.
    Demo(DemoArgs),
    /// Run a node until it is told to stop (SIGTERM finishes open work and stops, SIGHUP reloads routes and
    /// certificates).
    #[command(after_help = HARPER)]
    Node(NodeArgs),
    /// Join a cluster with a token of `trunkline cluster token`: write the configuration of a member, and run it.
    Join(JoinArgs),
    /// Check a configuration file without starting anything. Prints what is wrong, the number of entries in each
    /// section, and warnings about risky settings.
    Check(ConfigArgs),
    /// Show what a connect to NAME would try, in order, without contacting anything.
    Explain {
        #[command(flatten)]
        at: At,
        /// Name of the node, name@host, or @SERVICE for any node that serves that.
        name: String,
    },
    /// List, add or remove static routes.
    Routes {
        #[command(subcommand)]
        command: RoutesCommand,
    },
    /// List, add or remove proxy routes, which lead through gateways and are tried if no direct route reaches a name.
    ProxyRoutes {
        #[command(subcommand)]
        command: ProxyRoutesCommand,
    },
    /// Connect to NAME and measure a round trip.
    Ping {
        #[command(flatten)]
        at: At,
        /// Name of the node, name@host, or @SERVICE for any node that serves that.
        name: String,
        /// Timeout of the answer once connected.
        #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
        timeout: Duration,
        /// Ignore remembered failures; use after fixing a fault by hand.
        #[arg(long)]
        now: bool,
    },
    /// Find the path to NAME and show its hops with their round-trip times, or where and why each path through gateways
    /// ends.
    Trace {
        #[command(flatten)]
        at: At,
        /// Name of the node, name@host.
        name: String,
        /// Timeout, including connecting.
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
    /// Send a message to a mailbox of NAME.
    Send {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        message: MessageArgs,
        /// Wait until the message is in the mailbox, reconnecting as often as necessary, or report why it is not. A
        /// peer that cannot be reached in the first place is reported at once.
        #[arg(long)]
        important: bool,
        /// Timeout until the message is sent, or with --important until it is in the mailbox, including connecting.
        #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
        timeout: Duration,
    },
    /// Call a mailbox of NAME and print its answer: readable on a terminal, otherwise the exact bytes.
    Call {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        message: MessageArgs,
        /// Timeout of the answer, including connecting.
        #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
        timeout: Duration,
    },
    /// Listen at LOCAL and forward each connection to a byte-stream service of NAME (`services:` in its configuration)
    /// until this command ends.
    Forward {
        #[command(flatten)]
        at: At,
        /// Local address: IP:PORT, with port 0 for any free one, or unix:PATH.
        local: LocalPlace,
        /// Name of the node, name@host.
        name: String,
        /// Name of the service.
        service: String,
        /// Time without a byte after which a connection is reset, 1s to 1440m. Default: no limit.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        idle: Option<Duration>,
        /// Return at once and let the running node keep the forward until `end-forward`.
        #[arg(long, conflicts_with = "config")]
        background: bool,
    },
    /// End a forward that `forward --background` or `forwards:` of the configuration started at LOCAL.
    EndForward {
        #[command(flatten)]
        at: Admin,
        /// Local address of the forward, as `status` shows it.
        local: LocalPlace,
    },
    /// Start a program that NAME offers (`spawn:` in its configuration), and print its pid.
    Spawn {
        #[command(flatten)]
        at: At,
        /// Name of the node, name@host.
        name: String,
        /// Name under which the node offers the program.
        program: String,
        /// Standard input of the program.
        #[arg(default_value = "")]
        input: String,
        /// Wait without a timeout until the program ended; fail unless it ended successfully.
        #[arg(long)]
        until_end: bool,
        /// Timeout until the program runs, including connecting.
        #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
        timeout: Duration,
    },
    /// Start an application that NAME offers (`applications:` in its configuration). NAME may be the running node
    /// itself.
    StartApplication {
        #[command(flatten)]
        at: At,
        /// Name of the node, name@host.
        name: String,
        /// Name of the application.
        application: String,
        /// Timeout, including connecting.
        #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
        timeout: Duration,
    },
    /// Stop an application of a running node.
    StopApplication {
        #[command(flatten)]
        at: Admin,
        /// Name of the application.
        application: String,
    },
    /// Show the registrars of a running node, and the nodes that they announce.
    Registrar {
        #[command(subcommand)]
        command: RegistrarCommand,
    },
    /// Show or change the cluster that a running node belongs to.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// List the live connections of a running node.
    Nodes {
        #[command(flatten)]
        at: Admin,
    },
    /// Show the status of a running node.
    Status {
        #[command(flatten)]
        at: Admin,
    },
    /// Close a running node's connection to NAME gracefully.
    Disconnect {
        #[command(flatten)]
        at: Admin,
        /// Name of the peer, name@host.
        name: String,
    },
    /// Reload the routes and certificates of a running node from its files, as SIGHUP does.
    Reload {
        #[command(flatten)]
        at: Admin,
    },
    /// Create a certificate authority and node certificates for a lab.
    Certs(CertsArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Shell to generate for.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyRoutesCommand {
    /// List the proxy routes in the order they are tried.
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add a proxy route to a running node.
    Add {
        #[command(flatten)]
        at: Admin,
        #[command(flatten)]
        route: Box<ProxyRouteArgs>,
        /// Write the route to the node's configuration file as well.
        #[arg(long)]
        save: bool,
    },
    /// Remove a proxy route from a running node and move its connections to the best other route. Connections without
    /// another route stay up.
    Drain(RemoveArgs),
    /// Remove a proxy route from a running node; live connections stay up.
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
        /// Write the route to the node's configuration file as well.
        #[arg(long)]
        save: bool,
    },
    /// Remove a route from a running node and move its connections to the best other route. Connections without another
    /// route stay up.
    Drain(RemoveArgs),
    /// Remove a route from a running node; live connections stay up.
    Remove(RemoveArgs),
}

/// Arguments that name the route to remove.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) at: Admin,
    /// Exact text of the pattern.
    pub(crate) pattern: String,
    /// Remove the route from the node's configuration file as well.
    #[arg(long)]
    pub(crate) save: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyRouteArgs {
    /// Regular expression that may match anywhere in the name.
    pub(crate) pattern: String,
    /// Name of the gateway.
    #[arg(long)]
    pub(crate) proxy: String,
    /// Weight; higher weights are tried first.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) weight: Option<i64>,
    /// Name of the only node that the route is for.
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// Maximum number of gateways on the way, 1 to 16.
    #[arg(long)]
    pub(crate) max_hop: Option<u8>,
    /// Use of direct routes to the same name: first, never or only.
    #[arg(long)]
    pub(crate) direct: Option<String>,
    /// File of mode 0600 with the cookie for the gateway. Default: the cookie of the routes to the gateway.
    #[arg(long)]
    pub(crate) cookie_file: Option<PathBuf>,
    /// File with the cookie for the target node. Default: the node's cookie.
    #[arg(long)]
    pub(crate) target_cookie_file: Option<PathBuf>,
    /// Verify the target node's certificate (true) or not (false).
    #[arg(long)]
    pub(crate) target_tls: Option<bool>,
    /// TLS profile for that verification.
    #[arg(long)]
    pub(crate) target_tls_profile: Option<String>,
    /// Offer a flag to the target node (true) or not (false); may be given several times. Default: the node's flags.
    #[arg(long, value_name = "FLAG=BOOL", value_parser = flag)]
    pub(crate) target_flag: Vec<(String, bool)>,
    /// Refuse the connection unless the target node offers this flag; may be given several times.
    #[arg(long, value_name = "FLAG")]
    pub(crate) target_require: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RouteArgs {
    /// Regular expression that may match anywhere in the name; anchor it with ^ and $.
    pub(crate) pattern: String,
    /// Weight; higher weights are tried first.
    #[arg(long, default_value_t = trunkline::DEFAULT_WEIGHT, allow_negative_numbers = true)]
    pub(crate) weight: i64,
    /// Host to dial. Default: the part of the name after the @.
    #[arg(long, conflicts_with = "resolver")]
    pub(crate) host: Option<String>,
    /// Port to dial; required without a resolver.
    #[arg(long, required_unless_present = "resolver", conflicts_with = "resolver")]
    pub(crate) port: Option<u16>,
    /// Resolver that supplies the address instead.
    #[arg(long)]
    pub(crate) resolver: Option<String>,
    /// Verify the peer's certificate (true) or rely on the cookie alone (false). Default: the node's setting.
    #[arg(long, value_name = "BOOL")]
    pub(crate) tls: Option<bool>,
    /// TLS profile of the node's configuration.
    #[arg(long)]
    pub(crate) tls_profile: Option<String>,
    /// Use TLS without verifying the peer's certificate.
    #[arg(long)]
    pub(crate) insecure_skip_verify: bool,
    /// Handshake version to use.
    #[arg(long)]
    pub(crate) handshake: Option<String>,
    /// File with a cookie that replaces the node's; only its owner may have access to it.
    #[arg(long)]
    pub(crate) cookie_file: Option<PathBuf>,
    /// Label that tells the peer which of two valid cookies this is, while one replaces the other.
    #[arg(long, requires = "cookie_file")]
    pub(crate) cookie_label: Option<String>,
    /// Offer a flag over the connection (true) or not (false); may be given several times. Default: the node's flags.
    #[arg(long, value_name = "FLAG=BOOL", value_parser = flag)]
    pub(crate) flag: Vec<(String, bool)>,
    /// Refuse the connection unless the peer offers this flag; may be given several times.
    #[arg(long, value_name = "FLAG")]
    pub(crate) require: Vec<String>,
    /// Replace a name of this node by another one on its connections; may be given several times.
    #[arg(long, value_name = "NAME=OTHER", value_parser = pair)]
    pub(crate) atom: Vec<(String, String)>,
    /// Log level of its connections: off, error, warn, info, debug or trace. Default: the node's level.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) connection_log_level: Option<String>,
    /// Reconnect policy of its connections: never, on_demand or keep. Default: the node's policy.
    #[arg(long, value_name = "POLICY")]
    pub(crate) reconnect: Option<String>,
    /// Time for which this route must answer every probe before connections over worse routes return to it.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) failback: Option<Duration>,
    /// Silence on its connections after which the peer is sent a ping. Default: the node's value.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) keep_alive: Option<Duration>,
    /// Silence after which its connections are considered dead. Default: the node's value.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) dead_after: Option<Duration>,
    /// Use only static routes, without discovery, for the names this route matches.
    #[arg(long)]
    pub(crate) fallback_never: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MessageArgs {
    /// Name of the node, name@host, or @SERVICE for any node that serves that.
    pub(crate) name: String,
    /// Name of the mailbox there, 1 to 255 bytes.
    pub(crate) mailbox: String,
    /// Content of the message, or - to send the exact bytes of standard input.
    pub(crate) payload: String,
}

/// Option that selects a running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Admin {
    /// Running node to ask: its socket, or host:port with the token in the variable TRUNKLINE_ADMIN_TOKEN. Default: the
    /// variable TRUNKLINE_ADMIN, or else the only *.data/admin.sock in this directory.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
}

/// Commands about the cluster of a running node.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// List the members that the node knows: whether they are connected, who told of them, and why a dial failed.
    Status {
        #[command(flatten)]
        at: Admin,
    },
    /// Ask every member whom it is connected to and which routes it has.
    Network {
        #[command(flatten)]
        at: Admin,
        /// Time to wait for answers, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 2000)]
        timeout: u64,
    },
    /// List the routes of the node (`clustering.hubServer.cluster.network.routes`, of a leaf
    /// `clustering.leafServer.network.routes`), and the nodes found there. With --add, --remove or --set, change them at once
    /// and in the configuration file.
    Routes {
        #[command(flatten)]
        at: Admin,
        /// Add a route, `host` or `host:port`; may be repeated. The default port is 9932.
        #[arg(long, value_name = "ADDRESS", value_parser = cluster_address)]
        add: Vec<Address>,
        /// Remove a route; may be repeated. Nobody is disconnected.
        #[arg(long, value_name = "ADDRESS", value_parser = cluster_address, conflicts_with = "add")]
        remove: Vec<Address>,
        /// Replace all routes by this one; may be repeated. Nobody is disconnected.
        #[arg(long, value_name = "ADDRESS", value_parser = cluster_address, conflicts_with_all = ["add", "remove"])]
        set: Vec<Address>,
    },
    /// Make a token by which one machine joins the cluster, with `trunkline join`. Whoever has the token can join: keep it
    /// secret.
    Token {
        #[command(flatten)]
        at: Admin,
        /// Time for which the token is valid, 1 s to 30 days.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = validity)]
        valid: Duration,
        /// List the tokens that this node made, without their secrets.
        #[arg(long, conflicts_with = "valid")]
        list: bool,
        /// Revoke the token of this id.
        #[arg(long, value_name = "ID", conflicts_with_all = ["list", "valid"])]
        revoke: Option<String>,
    },
    /// Forget a member that is gone for good, here and at the members that are connected: nobody dials it any more.
    Forget {
        #[command(flatten)]
        at: Admin,
        /// Name of the member.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistrarCommand {
    /// Show the registrars of the node: which ones are asked, and whether the node is announced.
    Status {
        #[command(flatten)]
        at: Admin,
    },
    /// List the nodes that a registrar announces.
    Nodes {
        #[command(flatten)]
        at: Admin,
        #[command(flatten)]
        of: OfRegistrar,
    },
    /// Serve as the registrar of this host, in a process of its own, until it is told to stop. Otherwise the first node of
    /// a host serves, and another one takes over when it ends.
    Serve(ServeRegistrar),
    /// Ask for the ways to NAME: its addresses, and the gateways that lead to it.
    Resolve {
        #[command(flatten)]
        at: Admin,
        /// Id of the registrar (`embedded`, or one of `registrars:`). Default: all that are asked without a route.
        #[arg(long, value_name = "ID")]
        registrar: Option<String>,
        /// Name of the node, name@host.
        name: String,
    },
    /// List the nodes that serve SERVICE, in the order in which `@SERVICE` tries them, or those of all services.
    Services {
        #[command(flatten)]
        at: Admin,
        /// Name of the service, with or without `@`, and maybe `#` and a tag.
        service: Option<String>,
    },
    /// Serve SERVICE with other nodes from now on, as `@SERVICE` finds them, or change how. With `--weight 0` the node is
    /// drained: no new use comes.
    Announce {
        #[command(flatten)]
        at: Admin,
        /// Weight: nodes with a higher one are used first; from 0 to 65535.
        #[arg(long, default_value_t = 100)]
        weight: u16,
        /// Tag by which some of the nodes can be asked for; may be given several times. Default: the tags of before.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Serve it no more.
        #[arg(long, conflicts_with_all = ["weight", "tags"])]
        withdraw: bool,
        /// Name of the service.
        service: String,
    },
    /// Print the nodes that a registrar announces, and then each change, until Ctrl-C.
    Watch {
        #[command(flatten)]
        at: Admin,
        #[command(flatten)]
        of: OfRegistrar,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ServeRegistrar {
    /// Address to serve at; the nodes of this host have it as `node.registrar_listen`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4499")]
    pub(crate) listen: SocketAddr,
    /// Name of this process, name@host. Default: `registrar` at the host of --listen.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// File with the cookie of the nodes.
    #[arg(long, value_name = "FILE")]
    pub(crate) cookie_file: PathBuf,
    /// Set a key of the configuration, for example 'node.registrar_rules=[{ names: "db@.*" }]' or node.registrar_routes.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Time given to sessions to finish when the process stops.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
}

/// Option that selects a registrar.
#[derive(Debug, Args)]
pub(crate) struct OfRegistrar {
    /// Id of the registrar (`embedded`, or one of `registrars:`). Default: the node's own.
    #[arg(long, value_name = "ID")]
    pub(crate) registrar: Option<String>,
}

/// Options that select a running node or a short-lived one.
#[derive(Debug, Clone, Args)]
pub(crate) struct At {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// Configuration with which to act as a short-lived hidden node instead of asking a running one.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub(crate) config: Option<PathBuf>,
    /// Override a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Configuration file, named as in the other commands.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl ConfigArgs {
    /// Returns the configuration file, however it was given.
    pub(crate) fn file(&self) -> &Path {
        // clap requires one of the two.
        self.file.as_deref().or(self.config.as_deref()).unwrap_or(Path::new(""))
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Configuration file.
    #[arg(long, env = "TRUNKLINE_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Override a value of the configuration, for example node.fallback=never.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Register a mailbox that answers every call with TEXT, or with the call's own content; for trying things out.
    #[arg(long, value_name = "MAILBOX[=TEXT]")]
    pub(crate) answer: Vec<String>,
    /// Time given to connections to finish when the node stops.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Stop when standard input ends, for supervisors that hold a pipe.
    #[arg(long)]
    pub(crate) until_eof: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Token, one word; `-` reads it from standard input.
    pub(crate) token: String,
    /// Name of this node, name@host. The other members dial the host.
    #[arg(long)]
    pub(crate) name: String,
    /// Port at which this node listens, on every IPv4 interface.
    #[arg(long, default_value_t = 9932, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Configuration file to write; the cookie of the cluster goes into a file beside it.
    #[arg(long, value_name = "FILE", default_value = "trunkline.yaml")]
    pub(crate) config: PathBuf,
    /// Only write the files; `trunkline node` runs the member then.
    #[arg(long)]
    pub(crate) only_write: bool,
    /// Time for the answer of the member that made the token.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Register a mailbox that answers every call with TEXT, or with the call's own content; for trying things out.
    #[arg(long, value_name = "MAILBOX[=TEXT]")]
    pub(crate) answer: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    /// Names of the nodes, name@host. Each certificate is valid for the host and for both ends of a connection.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Directory of the files: ca.pem and ca.key, created if missing, and NAME.pem and NAME.key.
    #[arg(long, default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Another host by which the nodes are dialled; may be given several times.
    #[arg(long)]
    pub(crate) host: Vec<String>,
    /// Validity in days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36500))]
    pub(crate) days: u16,
    /// Replace existing certificates of these nodes. The authority is kept.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the cluster running until Ctrl-C, and print commands to try.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Flags that are turned into settings before the arguments are read.
const HARPER: &str = "\
The keys of `clustering` are also flags under HarperDB's names, in capitals or not: --CLUSTERING_ENABLED,
--CLUSTERING_HUBSERVER_CLUSTER_NAME, --CLUSTERING_HUBSERVER_CLUSTER_NETWORK_PORT and
--CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES, and --CLUSTERING_LEAFSERVER_NETWORK_ROUTES, each with a value.";

/// Error returned when the value of an argument is malformed.
#[derive(Debug, PartialEq, thiserror::Error)]
enum ArgError {
    #[error("{text:?} is not a duration up to 24 h; write, for example, 500ms, 5s, 2m or 1h")]
    Duration { text: String },
    #[error("{text:?} is not a duration from 1 s to 30 days; write, for example, 90s, 1h or 7d")]
    Validity { text: String },
    #[error("unknown value {on:?}; write {name}=true or {name}=false")]
    Flag { name: String, on: String },
    #[error("{text:?} has no `=`; write NAME=OTHER")]
    Pair { text: String },
}

fn flag(text: &str) -> Result<(String, bool), ArgError> {
    let (name, on) = text.split_once('=').unwrap_or((text, "true"));
    let value = on.parse().map_err(|_| ArgError::Flag { name: name.to_owned(), on: on.to_owned() })?;
    Ok((name.to_owned(), value))
}

fn pair(text: &str) -> Result<(String, String), ArgError> {
    let pair = text.split_once('=').ok_or_else(|| ArgError::Pair { text: text.to_owned() })?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

fn duration(text: &str) -> Result<Duration, ArgError> {
    let of_day = read_duration(text).filter(|duration| *duration <= Duration::from_secs(DAY));
    of_day.ok_or_else(|| ArgError::Duration { text: text.to_owned() })
}

/// Reads the host and port of a route of a cluster.
fn cluster_address(text: &str) -> Result<Address, ClusterRouteError> {
    cluster_route(text, None)
}

/// Reads the validity of a token.
fn validity(text: &str) -> Result<Duration, ArgError> {
    let valid = read_duration(text).filter(|valid| (Duration::from_secs(1)..=MAX_VALIDITY).contains(valid));
    valid.ok_or_else(|| ArgError::Validity { text: text.to_owned() })
}

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Reads a duration that is not zero.
fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs);
    let duration = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" | "" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(DAY),
        _ => None,
    };
    duration.filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_value_name_contains_a_colon_which_would_break_the_zsh_completion_script() {
        fn look_at(command: &clap::Command) {
            let names = command.get_arguments().filter_map(clap::Arg::get_value_names).flatten();
            for name in names {
                // In the zsh script, a colon ends the description of a value, and the text after it is executed.
                assert!(!name.contains(':'), "{}: {name}", command.get_name());
            }
            command.get_subcommands().for_each(look_at);
        }
        look_at(&<Cli as clap::CommandFactory>::command());
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(validity("30d"), Ok(Duration::from_secs(2_592_000)));
        assert!(duration("25h").is_err() && validity("31d").is_err() && validity("500ms").is_err());
        for bad in ["", "s", "-1s", "1w", "1.5s", "0s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
