//! A resolver over a file that people write.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use trunkline_route::{Address, Endpoint, NodeName};

use crate::{BoxFuture, ResolveError, Resolver};

/// The largest file: a hundred thousand names of 150 bytes fit.
const MAX_BYTES: u64 = 16 << 20;

pub(crate) type Names = HashMap<NodeName, Ways>;

/// What the file says of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    endpoints: Vec<Endpoint>,
    gateways: Vec<NodeName>,
}

/// What was read last, and the fingerprint of its text.
type Last = Mutex<Option<(u64, Arc<Names>)>>;

/// Answers from a YAML file of names, each with its endpoints in the order to try:
///
/// ```yaml
/// db@example.com:
///   - { host: 10.0.0.5, port: 4370 }
///   - { host: 10.0.0.6, port: 4370, tls: true, handshake: TLK/1 }
///   - { proxy: gate@dmz.example.com }     # a gateway that leads there
/// ```
///
/// The file is read at every question, so a change holds from the next lookup on; while it is unreadable or wrong,
/// questions fail.
pub struct NamesFile {
    path: PathBuf,
    last: Arc<Last>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    host: Option<String>,
    port: Option<u16>,
    tls: Option<bool>,
    handshake: Option<String>,
    proxy: Option<String>,
}

/// Why a file of names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct NamesFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with the place.
    pub problem: String,
}

impl NamesFile {
    /// Answers from this file. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: Arc::default() }
    }

    /// Reads the file and says what is wrong with it.
    ///
    /// # Errors
    /// [`NamesFileError`] names the file and the place.
    pub fn check(&self) -> Result<(), NamesFileError> {
        names(&self.path, &self.last).map(drop)
    }
}

fn names(path: &Path, last: &Last) -> Result<Arc<Names>, NamesFileError> {
    let failed = |problem: String| NamesFileError { path: path.to_owned(), problem };
    let text = read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let fingerprint = hasher.finish();
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, names)) = &*last
        && *known == fingerprint
    {
        return Ok(names.clone());
    }
    let names = Arc::new(parse(&text).map_err(failed)?);
    *last = Some((fingerprint, names.clone()));
    Ok(names)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    Ok(text)
}

pub(crate) fn parse(text: &str) -> Result<Names, String> {
    let entries: HashMap<String, Vec<Entry>> = if text.trim().is_empty() {
        HashMap::new()
    } else {
        serde_saphyr::from_str(text).map_err(|e| e.to_string())?
    };
    let named = |(name, entries): (String, Vec<Entry>)| {
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let mut ways = Ways::default();
        for entry in entries {
            let Entry { host, port, tls, handshake, proxy } = entry;
            match (host, port, proxy) {
                (Some(host), Some(port), None) => ways.endpoints.push(Endpoint {
                    address: Address::new(&host, port).map_err(|e| wrong(&e))?,
                    tls,
                    version: handshake.as_deref().map(str::parse).transpose().map_err(|e| wrong(&e))?,
                }),
                (None, None, Some(proxy)) if tls.is_none() && handshake.is_none() => {
                    ways.gateways.push(proxy.parse().map_err(|e| wrong(&e))?);
                }
                _ => return Err(wrong(&"an entry has `host` and `port`, or `proxy` alone")),
            }
        }
        Ok((NodeName::new(&name).map_err(|e| e.to_string())?, ways))
    };
    entries.into_iter().map(named).collect()
}

impl NamesFile {
    async fn ways(&self, name: &NodeName) -> Result<Ways, ResolveError> {
        let (path, last) = (self.path.clone(), self.last.clone());
        let read = tokio::task::spawn_blocking(move || names(&path, &last)).await;
        let read = read.map_err(|error| ResolveError::Failed(error.to_string()))?;
        let names = read.map_err(|error| ResolveError::Failed(error.to_string()))?;
        Ok(names.get(name).cloned().unwrap_or_default())
    }
}

impl Resolver for NamesFile {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        Box::pin(async move { Ok(self.ways(name).await?.endpoints) })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { Ok(self.ways(name).await?.gateways) })
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

    #[tokio::test]
    async fn a_change_of_the_file_holds_from_the_next_question_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.yaml");
        let (file, name) = (NamesFile::new(&path), NodeName::new("db@example.com").unwrap());
        let error = file.resolve(&name).await.unwrap_err();
        assert!(error.to_string().contains("names.yaml: cannot be read"), "{error}");
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
            ("db@example.com: [{ host: h, port: 0 }]", "db@example.com: a port to dial"),
            ("db@example.com: [{ host: 'a b', port: 1 }]", "is no host"),
            ("db: [{ host: h, port: 1 }]", "name@host"),
            ("db@h: [{ host: h, prot: 1 }]", "prot"),
            ("db@h: [{ host: h }]", "db@h: an entry has `host` and `port`"),
            ("db@h: [{ host: h, port: 1, proxy: gate@dmz }]", "or `proxy` alone"),
            ("db@h: [{ proxy: gate }]", "name@host"),
            ("db@h: [{ host: h, port: 1, handshake: x }]", "db@h: "),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = file.resolve(&name).await.unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("names.yaml"), "{error}");
        }
    }
}
