//! Environment variables read by commands. An empty variable counts as unset; one that is not UTF-8 is an error in
//! every command.

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use trunkline_config::{RESERVED_VARIABLES, harper_key};

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

/// Turns a flag with a name that HarperDB gives to a key of clustering, in capitals or not, into `--set=NAME=VALUE`:
/// `--CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES VALUE`.
pub(crate) fn harper_keys(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.peekable();
    let mut replaced = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            // What follows are values of the command.
            replaced.push(argument);
            replaced.extend(arguments);
            break;
        }
        let named = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let (name, value) = named.map_or(("", None), |text| match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        });
        if harper_key(name).is_none() {
            replaced.push(argument);
            continue;
        }
        let is_value = |next: &OsString| !next.to_string_lossy().starts_with("--");
        let value = value.map(OsString::from).or_else(|| arguments.next_if(is_value));
        let mut set = OsString::from(format!("--set={name}"));
        if let Some(value) = value {
            set.push("=");
            set.push(value);
        }
        replaced.push(set);
    }
    replaced
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_harperdb_become_settings_and_nothing_else_does() {
        let replaced = |arguments: &[&str]| {
            let replaced = harper_keys(arguments.iter().map(OsString::from));
            replaced.iter().map(|argument| argument.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let name = "CLUSTERING_HUBSERVER_CLUSTER_NETWORK_ROUTES";
        let flag = &*format!("--{name}");
        assert_eq!(replaced(&["node", flag, "[a]", "--json"]), format!("node --set={name}=[a] --json"));
        let low = name.to_lowercase();
        assert_eq!(replaced(&[&format!("--{low}=[a=b]")]), format!("--set={low}=[a=b]"));
        assert_eq!(replaced(&[flag, "--json"]), format!("--set={name} --json"), "the value is missing");
        for other in [&["send", "--", flag, "x"][..], &["--clusterings", "x"], &["clustering_enabled", "1"]] {
            assert_eq!(replaced(other), other.join(" "));
        }
    }
}
