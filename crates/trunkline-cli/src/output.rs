//! Output of commands: text for people, JSON for programs, colours on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use trunkline_admin::api::Failure;
use trunkline_admin::{ClientError, OpError};

/// Any error, or a text.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Failure of a command, with its exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    failure: Failure,
    usage: bool,
    /// True if nothing is printed, because the reader of standard output closed it.
    quiet: bool,
}

impl Failed {
    /// Creates a failure of an operation that was tried: exit code 1. The text of an error includes its sources.
    pub(crate) fn because(error: impl Into<BoxError>) -> Self {
        Self { failure: Failure::new(error), usage: false, quiet: false }
    }

    /// Names the file or argument that the failure is about.
    pub(crate) fn about(mut self, what: impl std::fmt::Display) -> Self {
        self.failure.error = format!("{what}: {}", self.failure.error);
        self
    }

    /// Creates a failure of wrong usage or configuration: exit code 2. The text of an error includes its sources.
    pub(crate) fn usage(error: impl Into<BoxError>) -> Self {
        Self { failure: Failure::new(error), usage: true, quiet: false }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            // Status 404 names something that could exist but does not: the command was valid and had nothing to act
            // on.
            ClientError::Failed { status, failure } => {
                Self { failure, usage: (400..500).contains(&status) && status != 404, quiet: false }
            }
            error => Self::because(error),
        }
    }
}

impl From<OpError> for Failed {
    fn from(error: OpError) -> Self {
        let usage = matches!(error.kind, trunkline_admin::Kind::Bad | trunkline_admin::Kind::Conflict);
        Self { failure: error.failure, usage, quiet: false }
    }
}

/// Returns true if output to `there` is coloured: on a terminal that supports it, unless `NO_COLOR` is set and not
/// empty.
pub(crate) fn is_coloured(there: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    there.is_terminal() && !refused && !dumb
}

/// Writes a line to standard output.
pub(crate) fn write_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}

/// Exit code when the reader of standard output closed it, which is the code of programs that SIGPIPE ends.
const READER_GONE: u8 = 128 + 13;

/// Turns a failure to write a result into a failure of the command. If the reader closed the output, as `head` does, no
/// message is printed.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed {
        quiet: error.kind() == io::ErrorKind::BrokenPipe,
        ..Failed::because(format!(
            "the operation succeeded, but its result cannot be written to standard output: {error}"
        ))
    })
}

/// Destination of results.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    colour: bool,
    /// True once the single JSON document was printed.
    document: AtomicBool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = !json && is_coloured(&io::stdout());
        Self { json, colour, document: AtomicBool::new(false) }
    }

    /// Prints a result: the value as JSON, or the text made from it.
    pub(crate) fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failed> {
        if self.json {
            return self.document(&serde_json::to_string_pretty(value).map_err(Failed::because)?);
        }
        self.line(&text(value))
    }

    /// Prints the single JSON document of a command.
    pub(crate) fn document(&self, json: &str) -> Result<(), Failed> {
        self.document.store(true, Ordering::Relaxed);
        self.line(json)
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failed> {
        written(write_line(text))
    }

    /// Returns true if results go to a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints bytes unchanged.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failed> {
        let mut out = io::stdout();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.into() }
    }

    /// Prints a failure and returns its exit code. Prints JSON unless a document was printed already, and otherwise
    /// text on standard error.
    pub(crate) fn fail(&self, failed: Failed) -> ExitCode {
        let Failed { failure, usage, quiet } = failed;
        if quiet {
            return ExitCode::from(READER_GONE);
        }
        let is_first = self.json && !self.document.load(Ordering::Relaxed);
        if !is_first || self.print(&failure, |_| String::new()).is_err() {
            let mut text = format!("trunkline: {}", printable(&failure.error));
            for (n, a) in failure.attempts.iter().enumerate() {
                let at = if a.address.is_empty() { String::new() } else { format!(" at {}", a.address) };
                let error = printable(&a.error).replace('\n', " ");
                text += &format!("\n  {}. {}{at}: {error} ({:.1} ms)", n + 1, a.origin, a.took_ms);
            }
            let _ = writeln!(io::stderr(), "{text}");
        }
        ExitCode::from(if usage { 2 } else { 1 })
    }

    /// Waits for a future. On a terminal, shows `what` once the wait takes a while.
    pub(crate) async fn waiting<T>(&self, what: &str, wait: impl Future<Output = T>) -> T {
        tokio::pin!(wait);
        if !io::stderr().is_terminal() {
            return wait.await;
        }
        tokio::select! {
            done = &mut wait => return done,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        let mut err = io::stderr();
        let _ = write!(err, "{what} …");
        let _ = err.flush();
        let done = wait.await;
        let _ = write!(err, "\r{}\r", " ".repeat(what.chars().count() + 2));
        done
    }
}

/// Replaces control characters in text that may come from a peer, so that a terminal does not act on them.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Writes a host and a port as an address.
pub(crate) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Turns text that may come from a peer or the system into a single line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Formats rows in aligned columns with headings; leaves out columns without any value.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
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
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[31mb\rc\n\td\u{9b}é"), "a\u{fffd}[31mb\u{fffd}c\n\td\u{fffd}é");
    }

    #[test]
    fn line_breaks_in_a_table_cell_are_replaced() {
        assert_eq!(table(&["A", "B"], &[vec!["x\ny\u{1b}".into(), "1".into()]]), "A     B\nx y   1");
    }

    #[test]
    fn tables_are_aligned_and_omit_empty_columns() {
        let rows = vec![vec!["a".into(), String::new(), "1".into()], vec!["longer".into(), String::new(), "22".into()]];
        assert_eq!(table(&["NAME", "NOTE", "N"], &rows), "NAME    N\na       1\nlonger  22");
    }
}
