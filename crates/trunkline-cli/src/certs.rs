//! Command `trunkline certs`: creates a certificate authority and node certificates for a lab.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use trunkline::{Host, LabAuthority, NodeName};

use crate::args::CertsArgs;
use crate::output::{Failed, Output, table};

#[derive(Debug, Serialize)]
struct Made {
    authority: Authority,
    nodes: Vec<NodeFiles>,
}

#[derive(Debug, Serialize)]
struct Authority {
    certificate: PathBuf,
    key: PathBuf,
    /// True if the authority was created by this run.
    new: bool,
}

#[derive(Debug, Serialize)]
struct NodeFiles {
    name: String,
    hosts: Vec<String>,
    certificate: PathBuf,
    key: PathBuf,
    days: u16,
}

#[expect(clippy::disallowed_methods, reason = "certificates begin now")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Start of 2026, the year in which this program was written. A clock that shows an earlier time was never set.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// Refuses a clock that was never set, because its certificates would have expired once it is set.
fn set_clock(now: SystemTime) -> Result<(), Failed> {
    if now >= SystemTime::UNIX_EPOCH + EARLIEST {
        return Ok(());
    }
    Err(Failed::usage(
        "this machine's clock shows a time before 2026, so the certificates would have expired once it is set; set the \
         clock first",
    ))
}

pub(crate) fn run(args: &CertsArgs, output: &Output) -> Result<(), Failed> {
    set_clock(now())?;
    let dir = &args.dir;
    let made =
        |error: std::io::Error| Failed::because(error).about(format_args!("{} cannot be created", dir.display()));
    let nodes = nodes(args)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(made)?;
    let (ca, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let found = authority(&ca, &ca_key)?;
    let is_new = found.is_none();
    let wrong = |e: trunkline::TlsError| Failed::usage(e).about(ca.display());
    let authority = found.map_or_else(|| LabAuthority::new(now(), args.days), Ok).map_err(wrong)?;
    // All certificates are issued before the first file is written.
    let mut issued = Vec::new();
    for (name, files) in &nodes {
        issued.push((authority.issue(name, &hosts(name, args)?, now(), args.days).map_err(wrong)?, files));
    }
    if is_new {
        write(&ca_key, &authority.key(), 0o600)?;
        write(&ca, authority.certificate(), 0o644)?;
    }
    for (issued, files) in &issued {
        write(&files.key, &issued.key, 0o600)?;
        write(&files.certificate, &issued.certificate, 0o644)?;
    }
    let made = Made {
        authority: Authority { certificate: ca, key: ca_key, new: is_new },
        nodes: nodes.into_iter().map(|(_, files)| files).collect(),
    };
    output.print(&made, text)
}

fn text(made: &Made) -> String {
    let Made { authority, nodes } = made;
    let row = |files: &NodeFiles| {
        let shown = |path: &Path| path.display().to_string();
        vec![files.name.clone(), files.hosts.join(", "), shown(&files.certificate), shown(&files.key)]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let ca = authority.certificate.display();
    let (made, advice) = if authority.new {
        ("created", format!("; keep {} secret", authority.key.display()))
    } else {
        ("existing, unchanged", String::new())
    };
    let mut text = format!("{ca} ({made}): name it in `roots` and `client_ca`{advice}\n");
    text += &table(&["NODE", "FOR", "CERTIFICATE", "KEY"], &rows);
    if let Some(node) = nodes.first() {
        let (certificate, key) = (node.certificate.display(), node.key.display());
        text += &format!(
            "\non that node: node.listen: [{{ port: 4370, tls: {{ certificate: {certificate}, key: {key} }} }}]\n\
             on its peers: tls_profiles: {{ lab: {{ roots: {ca} }} }}, and `tls: true, tls_profile: lab` in the route"
        );
    }
    text
}

/// Returns the nodes and their files. Fails if a file exists and may not be replaced.
fn nodes(args: &CertsArgs) -> Result<Vec<(NodeName, NodeFiles)>, Failed> {
    let mut stems = BTreeMap::new();
    let mut nodes = Vec::new();
    for text in &args.names {
        let name = NodeName::new(text).map_err(Failed::usage)?;
        let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@') { c } else { '_' };
        let stem: String = name.as_str().chars().map(plain).collect();
        if let Some(other) = stems.insert(stem.clone(), name.clone()) {
            let clash = format!("{other} and {name} would use the same file {stem}.pem; name only one of them");
            return Err(Failed::usage(clash));
        }
        let at = |kind: &str| args.dir.join(format!("{stem}.{kind}"));
        let hosts = hosts(&name, args)?.iter().map(ToString::to_string).collect();
        let files = NodeFiles { name: text.clone(), hosts, certificate: at("pem"), key: at("key"), days: args.days };
        for path in [&files.certificate, &files.key] {
            if !args.replace && path.exists() {
                let error = format!("{} already exists; add --replace, or remove it", path.display());
                return Err(Failed::usage(error));
            }
        }
        nodes.push((name, files));
    }
    Ok(nodes)
}

/// Returns the hosts by which the node is dialled: the host of its name, and those of `--host`.
fn hosts(name: &NodeName, args: &CertsArgs) -> Result<Vec<Host>, Failed> {
    let own = Host::new(name.host()).map_err(Failed::usage)?;
    let mut hosts = vec![own];
    for host in &args.host {
        let host = Host::new(host).map_err(|e| Failed::usage(e).about("--host"))?;
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(hosts)
}

fn authority(certificate: &Path, key: &Path) -> Result<Option<LabAuthority>, Failed> {
    match (certificate.exists(), key.exists()) {
        (false, false) => return Ok(None),
        (true, true) => {}
        (there, _) => {
            let (there, lacks) = if there { (certificate, key) } else { (key, certificate) };
            let error = format!(
                "{} exists but {} does not; restore it, or remove both to create a new authority",
                there.display(),
                lacks.display()
            );
            return Err(Failed::usage(error));
        }
    }
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|e| Failed::usage(e).about(format_args!("{} cannot be read", path.display())))
    };
    let read = LabAuthority::from_pem(&read(certificate)?, &read(key)?);
    read.map(Some).map_err(|e| Failed::usage(e).about(certificate.display()))
}

/// Writes a file completely or not at all.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failed> {
    let written = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok::<_, std::io::Error>(())
    };
    written().map_err(|e| Failed::because(e).about(format_args!("{} cannot be written", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_creates_no_certificates() {
        let year = Duration::from_secs(365 * 86_400);
        for (years, is_set) in [(0, false), (55, false), (57, true)] {
            assert_eq!(set_clock(SystemTime::UNIX_EPOCH + year * years).is_ok(), is_set, "{years} years after 1970");
        }
    }
}
