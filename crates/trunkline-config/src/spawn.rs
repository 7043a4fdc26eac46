//! The sections `spawn:` and `applications:`: what peers may have run here.

use std::collections::BTreeMap;

use trunkline_matcher::AccessPattern;
use trunkline_route::{IdError, ResolverId};

use crate::config::declared;
use crate::fields::{Fields, Reader};
use crate::node::patterns;
use crate::tree::{Node, Value};

/// A program that peers may have run here as a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnConfig {
    /// The program and its arguments; not empty.
    pub command: Vec<String>,
    /// The names of those peers, each matched whole.
    pub allow: Vec<AccessPattern>,
}

/// A set of programs that are started and stopped as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationConfig {
    /// Each program with its arguments, under the name of a service, in the order they are started; not empty.
    pub processes: Vec<(String, Vec<String>)>,
    /// The names of the peers that may start it, each matched whole.
    pub allow: Vec<AccessPattern>,
}

type Sections = (BTreeMap<String, SpawnConfig>, BTreeMap<String, ApplicationConfig>);

/// The rules of an id: what can be written without quotes, in a shell too.
pub(crate) fn id(text: &str) -> Result<String, IdError> {
    ResolverId::new(text).map(|id| id.to_string())
}

pub(crate) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Sections {
    let (spawn, _) = declared(reader, fields, "spawn", "programs", id, program);
    let (applications, _) = declared(reader, fields, "applications", "applications", id, application);
    (spawn, applications)
}

fn program(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<SpawnConfig> {
    let fields = Fields::open(reader, node, path, &["command", "allow"])?;
    let (command, allow) = (command(reader, &fields), allow(reader, &fields));
    Some(SpawnConfig { command: command?, allow: allow? })
}

fn application(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<ApplicationConfig> {
    let fields = Fields::open(reader, node, path, &["processes", "allow"])?;
    let allow = allow(reader, &fields);
    fields.needs(reader, "processes", "an application needs a list of `processes`");
    let items = fields.list(reader, "processes")?;
    let mut processes: Vec<(String, Vec<String>)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}.processes[{i}]");
        let Some(fields) = Fields::open(reader, item, &path, &["service", "command"]) else { continue };
        let command = command(reader, &fields);
        fields.needs(reader, "service", "a process needs a `service`: its name");
        let Some((service, at)) = fields.text(reader, "service") else { continue };
        let problem = match service.len() {
            0 | 256.. => Some("a service name has 1 to 255 bytes".to_owned()),
            _ if service.starts_with('$') => Some("names that begin with $ are taken; choose another one".into()),
            _ if processes.iter().any(|(other, _)| other == service) => {
                Some(format!("the service {service:?} stands twice; choose another name for one of them"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            reader.problem(&at, fields.path("service"), problem);
        } else if let Some(command) = command {
            processes.push((service.to_owned(), command));
        }
    }
    if items.is_empty() {
        reader.problem(&fields.at("processes"), fields.path("processes"), "an application needs a process at least");
    }
    Some(ApplicationConfig { processes, allow: allow? })
}

fn command(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<String>> {
    fields.needs(reader, "command", "a process needs a `command`: the program and its arguments, as a list");
    let items = fields.list(reader, "command")?;
    let mut words = Vec::new();
    for (i, item) in items.iter().enumerate() {
        match &item.value {
            Value::Text(text) => words.push(text.clone()),
            _ => {
                let path = format!("{}[{i}]", fields.path("command"));
                reader.problem(&item.at, path, format!("expected a text, found {}; put it in quotes", item.kind()));
            }
        }
    }
    if words.first().is_none_or(String::is_empty) {
        reader.problem(&fields.at("command"), fields.path("command"), "a command begins with a program");
        return None;
    }
    Some(words)
}

pub(crate) fn allow(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Vec<AccessPattern>> {
    fields.needs(
        reader,
        "allow",
        "it needs `allow`: the patterns of the peers' names, each matched whole; [] for nobody",
    );
    patterns(reader, fields, "allow")
}
