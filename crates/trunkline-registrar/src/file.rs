//! Resolver over a file of names that is edited by hand.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};
use trunkline_route::{Address, Cause, Chain, Endpoint, Host, NodeName, ServiceName};

use crate::{BoxFuture, DEFAULT_OFFER_WEIGHT, Feed, Mirror, Offer, Registration, ResolveError, Resolver, Watch};

/// Largest file accepted: a hundred thousand names of 150 bytes fit.
const MAX_BYTES: u64 = 16 << 20;

pub(crate) type Names = HashMap<NodeName, Ways>;

/// Endpoints and gateways that the file lists for one name, and the services of that node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    endpoints: Vec<Endpoint>,
    gateways: Vec<NodeName>,
    offers: Vec<Offer>,
}

/// Time between two looks at a file that is watched.
const LOOK: Duration = Duration::from_secs(1);

/// Content that was read last, and the problem with the present one.
#[derive(Default)]
struct Last {
    /// Names, with the fingerprint of their text.
    names: Option<(u64, Arc<Names>)>,
    /// Reason why the names are not those of the file as it is now.
    problem: Option<NamesFileError>,
}

/// Resolver that answers from a YAML file of names, each with its endpoints in the order to try:
///
/// ```yaml
/// db@example.com:
///   - { host: 10.0.0.5, port: 4370 }
///   - { host: 10.0.0.6, port: 4370, tls: true, handshake: TLK/1 }
///   - { proxy: gate@dmz.example.com }     # a gateway that leads there
/// "@postgres":                            # nodes that serve a service
///   - { node: db@example.com, weight: 200, tags: [eu] }
///   - { node: standby@example.com }       # weight 100
/// ```
///
/// The file is read for every lookup, so a change is effective from the next lookup on. While the file is unreadable or
/// invalid, lookups are answered as before, a warning is logged once, and [`Resolver::stale`] tells why; without any valid
/// content so far, they fail. While somebody watches, the file is looked at each second.
///
/// ```
/// use trunkline_registrar::{NamesFile, Resolver};
/// use trunkline_route::NodeName;
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("names.yaml");
/// std::fs::write(&path, "db@example.com: [{ host: 10.0.0.5, port: 4370 }]")?;
/// let file = NamesFile::new(path);
/// file.check()?;
///
/// let db: NodeName = "db@example.com".parse()?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let endpoints = file.resolve(&db).await?;
/// assert_eq!(endpoints[0].address.to_string(), "10.0.0.5:4370");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NamesFile {
    path: PathBuf,
    last: Arc<Mutex<Last>>,
    feed: Arc<Feed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: Option<String>,
    port: Option<i64>,
    tls: Option<bool>,
    handshake: Option<String>,
    proxy: Option<String>,
    node: Option<String>,
    weight: Option<i64>,
    tags: Option<Vec<String>>,
}

/// Description of a valid entry, for errors.
const ENTRY: &str = "an entry has `host` and `port`, and maybe `tls` and `handshake`; or it has `proxy` alone";

/// Description of a valid entry of a service, for errors.
const SERVING: &str = "an entry of a service has `node`, and maybe `weight` and `tags`";

/// Error returned when a file of names cannot be used. `Display` shows the path; the problem is the source. No text shows
/// content: the path may lead to another file, such as one with a secret, and the text is logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", path.display())]
pub struct NamesFileError {
    /// Path of the file.
    pub path: PathBuf,
    /// Problem with the file.
    #[source]
    pub problem: NamesProblem,
}

/// Problem with a file of names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamesProblem {
    /// The file cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] Cause),
    /// The content is wrong at a place.
    #[error("line {line}, column {column}: {what}")]
    At {
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// Description of the problem and of a valid entry.
        what: String,
    },
    /// The content is wrong; the place is not known.
    #[error("{what}")]
    Somewhere {
        /// Description of the problem and of a valid entry.
        what: String,
    },
}

impl NamesFile {
    /// Creates a resolver over this file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: Arc::default(), feed: Arc::default() }
    }

    /// Reads the file and reports what is wrong with it.
    ///
    /// # Errors
    /// [`NamesFileError`] names the file and the place.
    pub fn check(&self) -> Result<(), NamesFileError> {
        read(&self.path, &self.last).map(drop)
    }
}

fn lock(last: &Mutex<Last>) -> MutexGuard<'_, Last> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the names of the file. If it cannot be used now, they are those that it had.
fn names(path: &Path, last: &Mutex<Last>) -> Result<Arc<Names>, NamesFileError> {
    let read = read(path, last);
    let mut last = lock(last);
    let error = match read {
        Ok(names) => {
            if last.problem.take().is_some() {
                tracing::info!(path = %path.display(), "the file of names can be used again");
            }
            return Ok(names);
        }
        Err(error) => error,
    };
    let names = last.names.as_ref().map(|(_, names)| names.clone());
    if last.problem.as_ref() != Some(&error) {
        let stays = if names.is_some() { "the names that it had stay" } else { "no name in it is known" };
        tracing::warn!(error = %Chain(&error), "the file of names cannot be used; {stays}");
        last.problem = Some(error.clone());
    }
    names.ok_or(error)
}

/// Reads the file, unless its text is the one that was read last.
fn read(path: &Path, last: &Mutex<Last>) -> Result<Arc<Names>, NamesFileError> {
    let failed = |problem: NamesProblem| NamesFileError { path: path.to_owned(), problem };
    let text = text(path).map_err(|error| failed(NamesProblem::Unreadable(error.into())))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let fingerprint = hasher.finish();
    if let Some((known, names)) = &lock(last).names
        && *known == fingerprint
    {
        return Ok(names.clone());
    }
    let names = Arc::new(parse(&text).map_err(failed)?);
    lock(last).names = Some((fingerprint, names.clone()));
    Ok(names)
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    Ok(text)
}

pub(crate) fn parse(text: &str) -> Result<Names, NamesProblem> {
    let options = serde_saphyr::options! { with_snippet: false };
    let entries: HashMap<String, Spanned<Vec<Spanned<Entry>>>> = if text.trim().is_empty() {
        HashMap::new()
    } else {
        serde_saphyr::from_str_with_options(text, options).map_err(|error| malformed(&error))?
    };
    let mut names = Names::new();
    for (name, entries) in entries {
        if let Some(service) = name.strip_prefix('@') {
            let service = ServiceName::new(service)
                .map_err(|_| wrong(entries.referenced, "what stands before it is no service, @SERVICE"))?;
            for entry in entries.value {
                let (node, offer) = serving(&service, entry.value).map_err(|what| wrong(entry.referenced, what))?;
                let offers = &mut names.entry(node).or_default().offers;
                if offers.iter().any(|known| known.service == service) {
                    return Err(wrong(entry.referenced, "the node stands twice in one service"));
                }
                offers.push(offer);
            }
            continue;
        }
        let name = NodeName::new(&name)
            .map_err(|_| wrong(entries.referenced, "what stands before it is no name of a node, name@host"))?;
        let ways = names.entry(name).or_default();
        for entry in entries.value {
            way(ways, entry.value).map_err(|what| wrong(entry.referenced, what))?;
        }
    }
    // The order of services is that of their names, whatever the order of the map.
    for ways in names.values_mut() {
        ways.offers.sort_by(|a, b| a.service.cmp(&b.service));
    }
    Ok(names)
}

/// Adds an entry of a name to its ways. The error is what is wrong with it.
fn way(ways: &mut Ways, entry: Entry) -> Result<(), &'static str> {
    match entry {
        Entry {
            host: Some(host),
            port: Some(port),
            tls,
            handshake,
            proxy: None,
            node: None,
            weight: None,
            tags: None,
        } => {
            ways.endpoints.push(Endpoint {
                address: Address {
                    host: Host::new(host).map_err(|_| "`host` is no host")?,
                    port: (u16::try_from(port).ok().and_then(NonZeroU16::new))
                        .ok_or("`port` is not from 1 to 65535")?,
                },
                tls,
                version: (handshake.as_deref().map(str::parse).transpose())
                    .map_err(|_| "`handshake` is no version, such as TLK/1")?,
            });
        }
        Entry {
            proxy: Some(proxy),
            host: None,
            port: None,
            tls: None,
            handshake: None,
            node: None,
            weight: None,
            tags: None,
        } => {
            ways.gateways.push(proxy.parse().map_err(|_| "`proxy` is no name of a node, name@host")?);
        }
        _ => return Err(ENTRY),
    }
    Ok(())
}

/// Returns the node of an entry of a service, and how it serves it. The error is what is wrong with it.
fn serving(service: &ServiceName, entry: Entry) -> Result<(NodeName, Offer), &'static str> {
    let Entry { host: None, port: None, tls: None, handshake: None, proxy: None, node: Some(node), weight, tags } =
        entry
    else {
        return Err(SERVING);
    };
    let node = node.parse().map_err(|_| "`node` is no name of a node, name@host")?;
    let weight = weight.map_or(Ok(DEFAULT_OFFER_WEIGHT), u16::try_from);
    let weight = weight.map_err(|_| "`weight` is not from 0 to 65535")?;
    let tags = tags.unwrap_or_default();
    if tags.iter().any(|tag| ServiceName::new(tag).is_err()) {
        return Err("a tag has 1 to 128 characters, without spaces, `@` and `#`");
    }
    Ok((node, Offer { service: service.clone(), weight, tags }))
}

fn wrong(at: Location, what: &str) -> NamesProblem {
    NamesProblem::At { line: at.line(), column: at.column(), what: what.to_owned() }
}

/// Returns the place and kind of an error, without the parser's message, which may quote the file.
fn malformed(error: &serde_saphyr::Error) -> NamesProblem {
    use serde_saphyr::Error;
    let what = match error.without_snippet() {
        Error::SerdeUnknownField { .. } => format!("there is an unknown key; {ENTRY}"),
        Error::DuplicateMappingKey { .. } => "a key stands twice in one mapping; remove one of them".into(),
        Error::SerdeInvalidType { .. } | Error::SerdeInvalidValue { .. } | Error::Unexpected { .. } => {
            format!("it is not a mapping of names to lists of entries; {ENTRY}")
        }
        _ => format!("it is not well-formed YAML of names; {ENTRY}"),
    };
    match error.location() {
        Some(at) => wrong(at, &what),
        None => NamesProblem::Somewhere { what },
    }
}

/// Returns the names of the file, as [`names`] does, without blocking.
async fn names_of(path: PathBuf, last: Arc<Mutex<Last>>) -> Result<Arc<Names>, ResolveError> {
    let read = tokio::task::spawn_blocking(move || names(&path, &last)).await;
    let read = read.map_err(|error| ResolveError::Failed(Cause::new(error)))?;
    read.map_err(|error| ResolveError::Failed(Cause::new(error)))
}

fn announcement(name: &NodeName, ways: &Ways) -> Registration {
    Registration::new(name.clone(), ways.endpoints.clone()).offering(ways.offers.clone())
}

/// Returns the names as announcements. Gateways of single names are in none.
fn announcements(names: &Names) -> Vec<Registration> {
    let mut all: Vec<Registration> = names.iter().map(|(name, ways)| announcement(name, ways)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Looks at the file again and again.
async fn follow(path: PathBuf, last: Arc<Mutex<Last>>, mirror: Arc<Mirror>) {
    let mut told = None;
    loop {
        let names = names_of(path.clone(), last.clone()).await;
        match names {
            Ok(names) if lock(&last).problem.is_none() => {
                let is_told = told.as_ref().is_some_and(|told| Arc::ptr_eq(told, &names)) && !mirror.is_lost();
                if !is_told {
                    mirror.replace(announcements(&names));
                    told = Some(names);
                }
            }
            _ => mirror.lost(),
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl NamesFile {
    async fn all(&self) -> Result<Arc<Names>, ResolveError> {
        names_of(self.path.clone(), self.last.clone()).await
    }

    async fn ways(&self, name: &NodeName) -> Result<Ways, ResolveError> {
        Ok(self.all().await?.get(name).cloned().unwrap_or_default())
    }
}

impl Resolver for NamesFile {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move { Ok(self.ways(name).await?.endpoints) })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { Ok(self.ways(name).await?.gateways) })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async move { Ok(announcements(&*self.all().await?)) })
    }

    fn watch(&self) -> Option<Watch> {
        let (path, last) = (self.path.clone(), self.last.clone());
        Some(self.feed.watch(|mirror| follow(path, last, mirror)))
    }

    fn stale(&self) -> Option<Cause> {
        lock(&self.last).problem.clone().map(Cause::new)
    }
}

impl std::fmt::Debug for NamesFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamesFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_route::Version;

    use crate::{Change, Serving};

    #[tokio::test]
    async fn a_change_of_the_file_is_effective_from_the_next_lookup_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.yaml");
        let (file, name) = (NamesFile::new(&path), NodeName::new("db@example.com").unwrap());
        let error = file.resolve(&name).await.unwrap_err();
        assert!(Chain(&error).to_string().contains("names.yaml: cannot be read"), "{}", Chain(&error));
        assert!(matches!(&error, ResolveError::Failed(cause) if cause.io_kind() == Some(std::io::ErrorKind::NotFound)));
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.resolve(&name).await, Ok(Vec::new()));
        let two = "db@example.com:\n  - { host: 10.0.0.5, port: 1 }\n  - { proxy: gate@dmz }\n  - { host: h, port: 2, tls: true, handshake: TLK/1 }\n";
        std::fs::write(&path, two).unwrap();
        let first = Endpoint::at(Address::new("10.0.0.5", 1).unwrap());
        let second =
            Endpoint { address: Address::new("h", 2).unwrap(), tls: Some(true), version: Some(Version::native(1)) };
        assert_eq!(file.resolve(&name).await, Ok(vec![first, second]));
        assert_eq!(file.gateways(&name).await, Ok(vec![NodeName::new("gate@dmz").unwrap()]));
        assert_eq!(file.resolve(&NodeName::new("web@example.com").unwrap()).await, Ok(Vec::new()));
        for (text, says) in [
            ("db@example.com: [{ host: h, port: 0 }]", "line 1, column 18: `port` is not from 1 to 65535"),
            ("db@example.com: [{ host: h, port: 70000 }]", "line 1, column 18: `port` is not from 1 to 65535"),
            ("db@example.com: [{ host: 'a b', port: 1 }]", "line 1, column 18: `host` is no host"),
            ("\ndb: [{ host: h, port: 1 }]", "line 2, column 5: what stands before it is no name of a node"),
            ("db@h: [{ host: h, prot: 1 }]", "line 1, column 19: there is an unknown key; an entry has `host`"),
            ("db@h: [{ host: h }]", "line 1, column 8: an entry has `host` and `port`"),
            ("db@h: [{ host: h, port: 1, proxy: gate@dmz }]", "it has `proxy` alone"),
            ("db@h: [{ proxy: gate }]", "`proxy` is no name of a node"),
            ("db@h: [{ host: h, port: 1, handshake: x }]", "`handshake` is no version"),
            ("db@h: [{ host: h, port: 1, weight: 1 }]", "an entry has `host` and `port`"),
            ("'@a b': [{ node: db@h }]", "line 1, column 9: what stands before it is no service"),
            ("'@pg': [{ node: db }]", "`node` is no name of a node"),
            ("'@pg': [{ node: db@h, weight: 70000 }]", "`weight` is not from 0 to 65535"),
            ("'@pg': [{ node: db@h, tags: [a b] }]", "a tag has 1 to 128 characters"),
            ("'@pg': [{ node: db@h }, { node: db@h }]", "the node stands twice in one service"),
            ("'@pg': [{ host: h, port: 1 }]", "an entry of a service has `node`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let fresh = NamesFile::new(&path);
            let error = Chain(&fresh.resolve(&name).await.unwrap_err()).to_string();
            assert_eq!(Chain(&fresh.stale().unwrap()).to_string(), error);
            assert!(error.contains(says) && error.contains("names.yaml"), "{error}");
            // The answers stay, and the reason is told.
            assert_eq!(file.gateways(&name).await, Ok(vec![NodeName::new("gate@dmz").unwrap()]));
            assert_eq!(Chain(&file.stale().unwrap()).to_string(), error);
        }
        std::fs::write(&path, "db@example.com: [{ host: 10.0.0.6, port: 1 }]").unwrap();
        let third = Endpoint::at(Address::new("10.0.0.6", 1).unwrap());
        assert_eq!(file.resolve(&name).await, Ok(vec![third]));
        assert!(file.stale().is_none());
    }

    #[tokio::test]
    async fn the_file_lists_the_nodes_of_services() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.yaml");
        let text =
            "'@pg': [{ node: db@lab, weight: 0, tags: [eu] }, { node: web@lab }]\ndb@lab: [{ host: h, port: 1 }]";
        std::fs::write(&path, text).unwrap();
        let file = NamesFile::new(&path);
        let found = file.serving(&ServiceName::new("pg").unwrap()).await.unwrap();
        let serving = |node: &str, weight, tags: &[&str]| Serving {
            node: node.parse().unwrap(),
            weight,
            tags: tags.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(found, [serving("db@lab", 0, &["eu"]), serving("web@lab", 100, &[])]);
        assert_eq!(file.serving(&ServiceName::new("other").unwrap()).await, Ok(vec![]));
        assert_eq!(file.resolve(&"web@lab".parse().unwrap()).await, Ok(vec![]), "that node is found elsewhere");
    }

    async fn next(watch: &mut Watch) -> Change {
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a change is told")
    }

    #[tokio::test(start_paused = true)]
    async fn the_names_are_listed_and_each_edit_is_told_but_a_broken_one_takes_none_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.yaml");
        std::fs::write(&path, "db@lab: [{ host: 10.0.0.5, port: 1 }]").unwrap();
        let file = NamesFile::new(&path);
        let mut watch = file.watch().unwrap();
        let (db, web) = (NodeName::new("db@lab").unwrap(), NodeName::new("web@lab").unwrap());
        let announced = |name: &NodeName, port| {
            let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", port).unwrap())];
            Arc::new(Registration::new(name.clone(), endpoints))
        };
        assert_eq!(
            [next(&mut watch).await, next(&mut watch).await],
            [Change::Joined(announced(&db, 1)), Change::Current]
        );
        std::fs::write(&path, "db@lab: [{ host: 10.0.0.5, port: 2 }]\nweb@lab: [{ host: 10.0.0.5, port: 3 }]").unwrap();
        let told = [next(&mut watch).await, next(&mut watch).await];
        assert_eq!(told, [Change::Changed(announced(&db, 2)), Change::Joined(announced(&web, 3))]);
        std::fs::write(&path, "db@lab: [{ host: 10.0.0.5, port: 4 }").unwrap();
        assert_eq!(next(&mut watch).await, Change::Lost);
        assert_eq!(file.nodes().await.unwrap().len(), 2);
        std::fs::write(&path, "web@lab: [{ host: 10.0.0.5, port: 3 }]").unwrap();
        let told = [next(&mut watch).await, next(&mut watch).await, next(&mut watch).await];
        assert_eq!(told, [Change::Back, Change::Left(db), Change::Current]);
    }

    #[tokio::test]
    async fn no_error_shows_content_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cookie");
        let secret = "5ecret-c00kie";
        for text in [
            format!("{secret}\n"),
            format!("{secret}: {secret}"),
            format!("{secret}: [{{ {secret}: 1 }}]"),
            format!("{secret}: 1\n{secret}: 2"),
            format!("a@h: [{{ host: {secret}, port: {secret} }}]"),
            format!("a@h: [{{ host: h, port: 1, handshake: {secret} }}]"),
            format!("a@h: [{{ host: '{secret} ', port: 1 }}]"),
            format!("a@h: [{{ proxy: {secret} }}]"),
            format!("a@h: [{{ tls: {secret} }}]"),
            format!("{secret}: []"),
            format!("*{secret}"),
            format!("!{secret} x"),
            format!("'{secret}"),
            format!("[{secret}"),
            format!("a@h: &{secret} [*{secret}]"),
            format!("%{secret}"),
            format!("- {secret}\n--- {secret}"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = NamesFile::new(&path).check().unwrap_err();
            let shown = format!("{} {error:?}", Chain(&error));
            assert!(
                shown.contains("cookie") && !shown.contains("5ecret") && !shown.contains("c00kie"),
                "{text}: {shown}"
            );
        }
    }
}
