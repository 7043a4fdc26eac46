//! What is printed: text for people, JSON for programs, colours on a terminal only.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use trunkline_admin::api::Failure;
use trunkline_admin::{ClientError, OpError};

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    failure: Failure,
    usage: bool,
}

impl Failed {
    /// It was tried and did not work: exit code 1.
    pub(crate) fn because(error: impl ToString) -> Self {
        Self { failure: Failure::new(error), usage: false }
    }

    /// It could not be tried, since the command or the configuration is wrong: exit code 2.
    pub(crate) fn usage(error: impl ToString) -> Self {
        Self { failure: Failure::new(error), usage: true }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Failed { status, failure } => Self { failure, usage: matches!(status, 400 | 401 | 409) },
            error => Self::because(error),
        }
    }
}

impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        let usage = matches!(error.kind, trunkline_admin::Kind::Bad | trunkline_admin::Kind::Conflict);
        Self { failure: error.failure, usage }
    }
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    colour: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = !json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, colour }
    }

    /// Prints a result: the value as JSON, or the text made of it.
    pub(crate) fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        let text = if self.json {
            serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\": {:?}}}", e.to_string()))
        } else {
            text(value)
        };
        self.line(&text);
    }

    /// Prints a line; a reader that went away is no failure of ours.
    pub(crate) fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.into() }
    }

    /// Prints why a command failed and gives its exit code.
    pub(crate) fn fail(&self, failed: Failed) -> ExitCode {
        let Failed { failure, usage } = failed;
        if self.json {
            self.print(&failure, |_| String::new());
        } else {
            let mut text = format!("trunkline: {}", failure.error);
            for (n, a) in failure.attempts.iter().enumerate() {
                let at = if a.address.is_empty() { String::new() } else { format!(" at {}", a.address) };
                text += &format!("\n  {}. {}{at}: {} ({:.1} ms)", n + 1, a.origin, a.error, a.took_ms);
            }
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        ExitCode::from(if usage { 2 } else { 1 })
    }

    /// Waits for something; on a terminal, says so once it takes a while.
    pub(crate) async fn waiting<T>(&self, what: &str, wait: impl Future<Output = T>) -> T {
        tokio::pin!(wait);
        if !std::io::stderr().is_terminal() {
            return wait.await;
        }
        tokio::select! {
            done = &mut wait => return done,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        let mut err = std::io::stderr();
        let _ = write!(err, "{what} …");
        let _ = err.flush();
        let done = wait.await;
        let _ = write!(err, "\r{}\r", " ".repeat(what.chars().count() + 2));
        done
    }
}

/// Rows in aligned columns under their heads; columns without any value are left out.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let used: Vec<usize> =
        (0..heads.len()).filter(|&c| rows.is_empty() || rows.iter().any(|row| !row[c].is_empty())).collect();
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).chain([heads[c].len()]).max().unwrap_or(0);
    let line = |cells: &dyn Fn(usize) -> String| {
        let cells: Vec<_> = used.iter().map(|&c| format!("{:<1$}", cells(c), width(c))).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&|c| heads[c].to_owned())];
    lines.extend(rows.iter().map(|row| line(&|c| row[c].clone())));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_leave_empty_columns_out() {
        let rows = vec![vec!["a".into(), String::new(), "1".into()], vec!["longer".into(), String::new(), "22".into()]];
        assert_eq!(table(&["NAME", "NOTE", "N"], &rows), "NAME    N\na       1\nlonger  22");
    }
}
