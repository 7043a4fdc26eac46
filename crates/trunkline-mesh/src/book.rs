//! The peer book: a file with the members that a node was connected to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use trunkline_route::{Address, NodeName};

use crate::join::hex;
use crate::{Known, Record};

/// Largest book that is read: more than that of 4,096 members with 8 addresses each.
const MAX_BYTES: u64 = 8 << 20;

#[derive(Serialize, Deserialize)]
struct Book {
    cluster: String,
    members: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    endpoints: Vec<String>,
    /// Instance of the member, as hexadecimal digits.
    #[serde(default)]
    incarnation: String,
    /// Time of the last connection, in seconds since 1970.
    heard: u64,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Entry {
    fn new(known: &Known, today: SystemTime) -> Self {
        Self {
            name: known.record.name.to_string(),
            endpoints: known.record.endpoints.iter().map(Address::to_string).collect(),
            incarnation: hex(&known.record.incarnation.to_bytes()),
            heard: seconds(today).saturating_sub(known.lost_for.as_secs()),
        }
    }

    fn known(&self, today: SystemTime) -> Option<Known> {
        let record = Record {
            name: self.name.parse::<NodeName>().ok()?,
            // An instance that cannot be read is an unknown one: the next connection tells.
            incarnation: u128::from_str_radix(&self.incarnation, 16).unwrap_or_default().to_be_bytes().into(),
            endpoints: self.endpoints.iter().filter_map(|text| text.parse().ok()).collect(),
            // Leaves are in no book: they come by themselves.
            is_leaf: false,
        };
        Some(Known { record, lost_for: Duration::from_secs(seconds(today).saturating_sub(self.heard)) })
    }
}

/// Reads the members of a cluster. A file that is missing has none, and so has one of another cluster.
///
/// # Errors
/// The system's, and that of a file that is no book.
pub(crate) fn read(path: &Path, cluster: &str, today: SystemTime) -> io::Result<Vec<Known>> {
    let text = match File::open(path) {
        Ok(file) => io::read_to_string(io::Read::take(file, MAX_BYTES))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let book: Book = serde_json::from_str(&text)?;
    let members = book.members.iter().filter(|_| book.cluster == cluster);
    Ok(members.filter_map(|entry| entry.known(today)).collect())
}

/// Writes the members of a cluster. A crash at any moment leaves the old or the new file.
///
/// # Errors
/// The system's; the old file stays.
pub(crate) fn write(path: &Path, cluster: &str, known: &[Known], today: SystemTime) -> io::Result<()> {
    let members = known.iter().map(|known| Entry::new(known, today)).collect();
    let text = serde_json::to_string_pretty(&Book { cluster: cluster.into(), members })?;
    replace(path, &text)
}

/// Replaces a file that only its owner may read. A crash at any moment leaves the old or the new file.
///
/// # Errors
/// The system's; the old file stays.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let new = path.with_extension("new");
    let mut file = private().open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // A crash after this leaves the new file.
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_is_read_as_it_was_written_and_a_broken_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.json");
        let today = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(read(&path, "lab", today).unwrap(), []);
        let endpoints = vec!["10.0.0.1:9932".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let record = Record { name: "a@h".parse().unwrap(), incarnation: [0xab; 16].into(), endpoints, is_leaf: false };
        let known = vec![Known { record, lost_for: Duration::from_secs(60) }];
        write(&path, "lab", &known, today).unwrap();
        assert_eq!(read(&path, "lab", today).unwrap(), known);
        let later = read(&path, "lab", today + Duration::from_secs(40)).unwrap();
        assert_eq!(later[0].lost_for, Duration::from_secs(100));
        assert_eq!(read(&path, "other", today).unwrap(), []);
        std::fs::write(&path, "{ \"cluster\": \"lab\", \"mem").unwrap();
        assert!(read(&path, "lab", today).is_err());
        // It is written again as a whole.
        write(&path, "lab", &known, today).unwrap();
        assert_eq!(read(&path, "lab", today).unwrap(), known);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
