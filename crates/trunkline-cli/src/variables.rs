//! Environment variables read by commands. An empty variable counts as unset; one that is not UTF-8 is an error in
//! every command.

use std::ffi::OsStr;

use clap::builder::Resettable;
use trunkline_config::RESERVED_VARIABLES;

use crate::output::Failed;

/// Returns the value of a variable; `None` if it is unset or empty.
pub(crate) fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Refuses variables that are not text.
///
/// # Errors
/// The failure names the first such variable.
pub(crate) fn check() -> Result<(), Failed> {
    let is_text = |name: &&str| std::env::var_os(name).is_none_or(|value| value.to_str().is_some());
    match RESERVED_VARIABLES.iter().copied().find(|name| !is_text(name)) {
        Some(name) => Err(Failed::usage(format!(
            "environment variable {name}: the value is not UTF-8 text; set it again, or unset it"
        ))),
        None => Ok(()),
    }
}

/// Makes arguments ignore their environment variable if it is empty, so that the default applies.
pub(crate) fn without_unset(command: clap::Command) -> clap::Command {
    let is_unset = |name: &OsStr| name.to_str().is_none_or(|name| value(name).is_none());
    let command = command.mut_args(|arg| match arg.get_env().is_some_and(is_unset) {
        true => arg.env(Resettable::Reset),
        false => arg,
    });
    command.mut_subcommands(without_unset)
}
