//! What is printed: text for people, JSON for programs, colours on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use trunkline_admin::api::Failure;
use trunkline_admin::{ClientError, OpError};

/// A command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failed {
    failure: Failure,
    usage: bool,
    /// The reader of standard output went away and wants no words.
    quiet: bool,
}

impl Failed {
    /// It was tried and did not work: exit code 1.
    pub(crate) fn because(error: impl ToString) -> Self {
        Self { failure: Failure::new(error), usage: false, quiet: false }
    }

    /// Says which configuration file it is about.
    pub(crate) fn within(mut self, file: &std::path::Path) -> Self {
        self.failure.error = format!("{}: {}", file.display(), self.failure.error);
        self
    }

    /// It could not be tried, since the command or the configuration is wrong: exit code 2.
    pub(crate) fn usage(error: impl ToString) -> Self {
        Self { failure: Failure::new(error), usage: true, quiet: false }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        match error {
            // 404 is for what could be there and is not: the command was understood and had nothing to act on.
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

/// Returns true if colours are wanted there: on a terminal that has them, unless `NO_COLOR` is set and not empty.
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

/// Exit code when the reader of standard output went away: that of other programs, which SIGPIPE ends.
const READER_GONE: u8 = 128 + 13;

/// Turns a result that cannot be written into a failure: it is not done. A reader that went away is told nothing, since it wants
/// nothing more; `head` is one.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed {
        quiet: error.kind() == io::ErrorKind::BrokenPipe,
        ..Failed::because(format!("standard output cannot be written: {error}; what was asked is done"))
    })
}

/// Where results go.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    colour: bool,
    /// The one JSON document was printed.
    document: AtomicBool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let colour = !json && is_coloured(&io::stdout());
        Self { json, colour, document: AtomicBool::new(false) }
    }

    /// Prints a result: the value as JSON, or the text made of it.
    pub(crate) fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failed> {
        if self.json {
            return self.document(&serde_json::to_string_pretty(value).map_err(Failed::because)?);
        }
        self.line(&text(value))
    }

    /// Prints the one JSON document there is.
    pub(crate) fn document(&self, json: &str) -> Result<(), Failed> {
        self.document.store(true, Ordering::Relaxed);
        self.line(json)
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failed> {
        written(write_line(text))
    }

    /// Whether a person reads what is printed.
    pub(crate) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failed> {
        let mut out = io::stdout();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.into() }
    }

    /// Prints why a command failed and gives its exit code: as JSON unless a document was printed already, else as text to
    /// standard error.
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

    /// Waits for something; on a terminal, says so once it takes a while.
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

/// Text that may come from a peer, without what a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Text that may come from a peer or the system, none of which begins a line of its own.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Rows in aligned columns under their heads; columns without any value are left out.
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
    fn what_a_terminal_would_act_on_is_replaced() {
        assert_eq!(printable("a\u{1b}[31mb\rc\n\td\u{9b}é"), "a\u{fffd}[31mb\u{fffd}c\n\td\u{fffd}é");
    }

    #[test]
    fn a_cell_stays_on_its_line() {
        assert_eq!(table(&["A", "B"], &[vec!["x\ny\u{1b}".into(), "1".into()]]), "A     B\nx y   1");
    }

    #[test]
    fn tables_are_aligned_and_leave_empty_columns_out() {
        let rows = vec![vec!["a".into(), String::new(), "1".into()], vec!["longer".into(), String::new(), "22".into()]];
        assert_eq!(table(&["NAME", "NOTE", "N"], &rows), "NAME    N\na       1\nlonger  22");
    }
}
