//! Sections `spawn:` and `applications:`: programs that peers may start on this node.

use std::collections::BTreeMap;

use trunkline_matcher::AccessPattern;
use trunkline_route::{IdError, ResolverId};

use crate::fields::{Fields, Reader, declared};
use crate::node::patterns;
use crate::tree::{Node, Value};

/// Program that is started for peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Program and its arguments; not empty.
    pub command: Vec<String>,
    /// Environment variables added to those that every program receives.
    pub env: Vec<EnvEntry>,
}

/// Environment variable of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvEntry {
    /// Copy of the node's own variable of this name, if it is set (`NAME`).
    Pass(String),
    /// Variable with this name and value (`NAME=VALUE`).
    Set(String, String),
}

/// Program that peers may start on this node as a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnConfig {
    /// Program to start.
    pub program: ProgramConfig,
    /// Patterns of the peers that may start it, each matching the whole name.
    pub allow: Vec<AccessPattern>,
    /// Maximum number of its processes at a time, for all peers together (`max`), 1 to 65,536. Default: 16.
    pub max: usize,
}

/// Default of `max`.
const DEFAULT_MAX: usize = 16;
/// Variables that the node sets for every program.
const OWN_VARIABLES: [&str; 3] = ["TRUNKLINE_PID", "TRUNKLINE_PEER", "TRUNKLINE_OFFER"];

/// Set of programs that are started and stopped together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationConfig {
    /// Programs in the order they are started, each with the name it is registered under; not empty.
    pub processes: Vec<(String, ProgramConfig)>,
    /// Patterns of the peers that may start it, each matching the whole name.
    pub allow: Vec<AccessPattern>,
}

type Sections = (BTreeMap<String, SpawnConfig>, BTreeMap<String, ApplicationConfig>);

/// Parses an id: a text that needs no quotes, in YAML or in a shell.
pub(crate) fn id(text: &str) -> Result<String, IdError> {
    ResolverId::new(text).map(|id| id.to_string())
}

pub(crate) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Sections {
    let (spawn, _) = declared(reader, fields, "spawn", "programs", id, program);
    let (applications, _) = declared(reader, fields, "applications", "applications", id, application);
    (spawn, applications)
}

fn program(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<SpawnConfig> {
    let fields = Fields::open(reader, node, path, &["command", "env", "allow", "max"])?;
    let (program, allow) = (runs(reader, &fields), allow(reader, &fields));
    let max = fields.int(reader, "max", 1, 65_536).and_then(|max| usize::try_from(max).ok());
    Some(SpawnConfig { program: program?, allow: allow?, max: max.unwrap_or(DEFAULT_MAX) })
}

fn application(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ApplicationConfig> {
    let fields = Fields::open(reader, node, path, &["processes", "allow"])?;
    let allow = allow(reader, &fields);
    fields.needs(reader, "processes", "the application has no `processes`; add a list of them");
    let items = fields.list(reader, "processes")?;
    let mut processes: Vec<(String, ProgramConfig)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}.processes[{i}]");
        let Some(fields) = Fields::open(reader, item, &path, &["mailbox", "command", "env"]) else { continue };
        let program = runs(reader, &fields);
        fields.needs(
            reader,
            "mailbox",
            "the process has no `mailbox`; set it to the name that the process is reached by",
        );
        let Some((mailbox, at)) = fields.text(reader, "mailbox") else { continue };
        let problem = match mailbox.len() {
            0 | 256.. => Some("the name of a process must have 1 to 255 bytes".to_owned()),
            _ if mailbox.starts_with('$') => Some("names that begin with $ are reserved; choose another one".into()),
            _ if processes.iter().any(|(other, _)| other == mailbox) => {
                Some(format!("the process {mailbox:?} occurs twice; rename one of them"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            reader.problem(&at, fields.path("mailbox"), problem);
        } else if let Some(program) = program {
            processes.push((mailbox.to_owned(), program));
        }
    }
    if items.is_empty() {
        reader.problem(
            &fields.at("processes"),
            fields.path("processes"),
            "the list is empty; add at least one process",
        );
    }
    Some(ApplicationConfig { processes, allow: allow? })
}

fn runs(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ProgramConfig> {
    let (command, env) = (command(reader, fields), env(reader, fields));
    Some(ProgramConfig { command: command?, env })
}

fn env(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<EnvEntry> {
    let items = if fields.has("env") { fields.list(reader, "env").unwrap_or_default() } else { &[] };
    let mut entries: Vec<(String, EnvEntry)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{}[{i}]", fields.path("env"));
        let Value::Text(text) = &item.value else {
            let message = format!("expected NAME or NAME=VALUE, found {}; put it in quotes", item.kind());
            reader.problem(&item.at, path, message);
            continue;
        };
        let (name, entry) = match text.split_once('=') {
            Some((name, value)) => (name, EnvEntry::Set(name.into(), value.into())),
            None => (text.as_str(), EnvEntry::Pass(text.clone())),
        };
        let problem = if name.is_empty() || text.contains('\0') {
            Some("the variable has no name or contains a zero byte; write NAME or NAME=VALUE".to_owned())
        } else if OWN_VARIABLES.contains(&name) {
            Some(format!("{name} is set by the node; choose another name"))
        } else if entries.iter().any(|(other, _)| other == name) {
            Some(format!("the variable {name} occurs twice; remove one of them"))
        } else {
            None
        };
        match problem {
            Some(problem) => reader.problem(&item.at, path, problem),
            None => entries.push((name.to_owned(), entry)),
        }
    }
    entries.into_iter().map(|(_, entry)| entry).collect()
}

fn command(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<String>> {
    fields.needs(reader, "command", "the process has no `command`; set it to a list of the program and its arguments");
    let items = fields.list(reader, "command")?;
    let mut words = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match &item.value {
            Value::Text(text) => words.push(text.clone()),
            _ => {
                let path = format!("{}[{i}]", fields.path("command"));
                reader.problem(&item.at, path, format!("expected text, found {}; put it in quotes", item.kind()));
            }
        }
    }
    if words.first().is_none_or(String::is_empty) {
        reader.problem(
            &fields.at("command"),
            fields.path("command"),
            "the program is empty; write its name or path first",
        );
        return None;
    }
    Some(words)
}

pub(crate) fn allow(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<AccessPattern>> {
    fields.needs(
        reader,
        "allow",
        "`allow` is missing; list patterns of whole peer names, or write [] to allow no peer",
    );
    patterns(reader, fields, "allow")
}
