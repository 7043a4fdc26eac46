//! Tests of the behaviour of trunkline-config.

mod clustering;
mod edits;
mod layers;
mod load;
mod save;
mod warnings;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use trunkline_config::{Config, ConfigError, Layers};

/// Strong cookie that is easily found in a message that must not contain it.
const SECRET: &str = "canary0f3b0c44298fc1c149afbf4c8996fb92427ae41e46";

/// Temporary directory that contains `cookie`, a strong cookie with mode 0600.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.secret("cookie", &format!("{SECRET}\n"));
        dir
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, text, 0o600)
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, self.path(), "app.yaml", &Layers::none())
    }

    /// Parses a valid `node:` section followed by `rest`.
    fn with(&self, rest: &str) -> Result<Config, ConfigError> {
        self.parse(&format!("node: {{ name: app@127.0.0.1, cookie_file: cookie }}\n{rest}"))
    }

    /// Parses a `node:` section with these further lines, each indented by two.
    fn node(&self, lines: &str) -> Result<Config, ConfigError> {
        self.parse(&format!("node:\n  name: app@127.0.0.1\n  cookie_file: cookie\n{lines}"))
    }
}

/// Asserts that the message contains all these parts and no secret.
#[track_caller]
fn refused(outcome: Result<Config, ConfigError>, parts: &[&str]) {
    let message = outcome.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in:\n{message}");
    }
    assert!(!message.contains("canary"), "{message}");
}
