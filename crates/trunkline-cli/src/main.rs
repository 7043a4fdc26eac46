//! Command-line program `trunkline`: runs nodes, reaches others by name, and manages routes.

mod args;
mod certs;
mod cluster;
mod commands;
mod demo;
mod descriptors;
mod forward;
mod log;
mod output;
mod registrar;
mod serve;
mod target;
mod variables;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use trunkline_admin::api::{ApplicationRequest, SpawnRequest};

use args::{Cli, Command, RegistrarCommand};
use output::Failed;

fn main() -> ExitCode {
    let parsed =
        variables::without_unset(Cli::command()).try_get_matches_from(variables::harper_keys(std::env::args_os()));
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let output = output::Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(Failed::because(error).about("the async runtime cannot be started")),
    };
    let result = runtime.block_on(run(cli, &output));
    // Remaining tasks are not needed any more; they end with the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => output.fail(failed),
    }
}

/// Prints help, version or a usage error. An error is printed as JSON if `--json` was given.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        return output::Output::new(true).fail(Failed::usage(text.trim_end()));
    }
    // Help and version are results, so failing to print them is an error. A usage error keeps its exit code even if it
    // cannot be printed.
    match error.print() {
        Err(failed) if !error.use_stderr() => match output::written(Err(failed)) {
            Err(failed) => output::Output::new(false).fail(failed),
            Ok(()) => ExitCode::SUCCESS,
        },
        _ => ExitCode::from(if error.use_stderr() { 2 } else { 0 }),
    }
}

async fn run(cli: Cli, output: &output::Output) -> Result<(), Failed> {
    // For `forward`, only the log tells why a connection could not be forwarded, so warnings are shown.
    let level = match cli.command {
        Command::Node(_) | Command::Join(_) => "info",
        Command::Registrar { command: RegistrarCommand::Serve(_) } => "info",
        Command::Forward { .. } => "warn",
        _ => "error",
    };
    variables::check()?;
    let _last_lines = serve::start_logging(&cli.log, level)?;
    match cli.command {
        Command::Node(args) => serve::node(args, output).await,
        Command::Join(args) => cluster::join(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Check(args) => commands::check(&args, output),
        Command::Certs(args) => certs::run(&args, output),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "trunkline", &mut script);
            output.bytes(&script)
        }
        Command::Explain { at, name } => commands::explain(at, &name, output).await,
        Command::Routes { command } => commands::routes(command, output).await,
        Command::ProxyRoutes { command } => commands::proxy_routes(command, output).await,
        Command::Trace { at, name, timeout } => commands::trace(at, &name, timeout, output).await,
        Command::Ping { at, name, timeout, now } => commands::ping(at, &name, timeout, now, output).await,
        Command::Send { at, message, important, timeout } => {
            commands::send(at, message, timeout, important, output).await
        }
        Command::Call { at, message, timeout } => commands::call(at, message, timeout, output).await,
        Command::Spawn { at, name, program, input, until_end, timeout } => {
            commands::spawn(at, SpawnRequest::of(name, program, input, until_end, timeout), output).await
        }
        Command::StartApplication { at, name, application, timeout } => {
            commands::start_application(at, ApplicationRequest::of(name, application, timeout), output).await
        }
        Command::Forward { at, local, name, service, idle, background } => {
            forward::forward(at, forward::request(local, name, service, idle), background, output).await
        }
        Command::EndForward { at, local } => forward::end(at, local, output).await,
        Command::StopApplication { at, application } => commands::stop_application(at, &application, output).await,
        Command::Cluster { command } => cluster::run(command, output).await,
        Command::Registrar { command } => registrar::run(command, output).await,
        Command::Nodes { at } => commands::nodes(at, output).await,
        Command::Status { at } => commands::status(at, output).await,
        Command::Disconnect { at, name } => commands::disconnect(at, &name, output).await,
        Command::Reload { at } => commands::reload(at, output).await,
    }
}
