//! Log on standard error. Lines go through a bounded queue to a thread that writes them, so a full disk, a closed pipe
//! or a pipe that is not read only costs log lines.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Maximum number of bytes waiting to be written, enough for several thousand lines.
const QUEUE: usize = 1024 * 1024;
/// Timeout for writing the last lines when the process ends: long enough for a slow disk, short enough for a user who
/// stops a node whose log is not read.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Pause before writing again to a standard error that is in non-blocking mode and full.
const RETRY: Duration = Duration::from_millis(10);

thread_local! {
    /// Line logged by the writing thread itself, which must not wait for space in its own queue.
    static OWN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Log whose lines are written by a thread of its own. Writing to it never blocks and never fails; lines that do not
/// fit into the queue or cannot be written are counted. Each call of `write` is one line, in which line breaks are
/// escaped.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Lines in order, each with its line end.
    lines: Vec<u8>,
    /// Number of lines dropped after those because the queue was full.
    lost: u64,
    /// True while the thread is writing what it took from the queue.
    writing: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// The system's error if no thread can be started.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let log = Self(shared.clone());
        thread::Builder::new().name("log".into()).spawn(move || write_all(&shared, Sink { sink, inside: false }))?;
        Ok(log)
    }

    /// Returns the counter of lost lines.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        self.0.lost.clone()
    }

    fn push(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut queue = self.0.lock();
        if queue.lost > 0 || queue.lines.len() + line.len() >= QUEUE {
            queue.lost += 1;
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            append(&mut queue.lines, line);
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, at most [`LAST_LINES`].
    pub(crate) fn flush(&self) {
        let waits = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.lock(), LAST_LINES, waits));
    }
}

/// Appends a line with line breaks inside it escaped.
fn append(lines: &mut Vec<u8>, line: &[u8]) {
    for byte in line {
        match byte {
            b'\n' => lines.extend(b"\\n"),
            b'\r' => lines.extend(b"\\r"),
            byte => lines.push(*byte),
        }
    }
    lines.push(b'\n');
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        OWN.with_borrow_mut(|own| match own {
            Some(own) => append(own, line.strip_suffix(b"\n").unwrap_or(line)),
            None => self.push(line),
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Guard that flushes the log when dropped.
pub(crate) struct Flush(pub(crate) Log);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush();
    }
}

struct Sink<W> {
    sink: W,
    /// True if the last line was written in part, so that a line end must precede the next one.
    inside: bool,
}

impl<W: Write> Sink<W> {
    /// Writes lines. On failure, returns the number of lost lines with the error.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let ended = if self.inside { [b"\n", lines].concat() } else { Vec::new() };
        let mut rest = if self.inside { &ended[..] } else { lines };
        while !rest.is_empty() {
            let error = match self.sink.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    self.inside = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(RETRY);
                    continue;
                }
                Err(error) => error,
            };
            let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
            // The line end added before the first line does not count as a line.
            return Err((lost - u64::from(rest.len() == ended.len()), error));
        }
        Ok(())
    }
}

fn write_all<W: Write>(shared: &Shared, mut sink: Sink<W>) {
    let (mut lines, mut unsaid, mut why) = (Vec::new(), 0, String::new());
    loop {
        let lost = {
            let mut queue = shared.lock();
            queue.writing = false;
            shared.changed.notify_all();
            let idle = |queue: &mut Queue| queue.lines.is_empty() && queue.lost == 0;
            queue = shared.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
            queue.writing = true;
            lines.clear();
            std::mem::swap(&mut lines, &mut queue.lines);
            std::mem::take(&mut queue.lost)
        };
        let mut written = sink.write(&lines);
        if lost > 0 {
            unsaid += lost;
            why = "it was read too slowly".into();
        }
        if written.is_ok() && unsaid > 0 {
            let said = own_line(|| {
                tracing::error!(lines = unsaid, why, "log lines were lost because standard error could not be written");
            });
            written = sink.write(&said).map_err(|(_, error)| (0, error));
            unsaid = if written.is_ok() { 0 } else { unsaid };
        }
        if let Err((lost, error)) = written {
            shared.lost.fetch_add(lost, Ordering::Relaxed);
            unsaid += lost;
            why = error.to_string();
        }
    }
}

/// Returns the lines that the writing thread logs in `log`.
fn own_line(log: impl FnOnce()) -> Vec<u8> {
    OWN.set(Some(Vec::new()));
    log();
    OWN.take().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sink that accepts a number of bytes and then fails.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1.min(bytes.len());
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend(&bytes[..room]);
            self.1 -= room;
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lost_lines_are_counted_and_the_next_line_begins_on_a_new_line() {
        let mut sink = Sink { sink: Full(Vec::new(), 6), inside: false };
        assert_eq!(sink.write(b"one\ntwo\nthree\n").unwrap_err().0, 2);
        assert_eq!(sink.write(b"four\n").unwrap_err().0, 1);
        sink.sink.1 = 100;
        sink.write(b"five\n").unwrap();
        sink.write(b"six\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&sink.sink.0), "one\ntw\nfive\nsix\n");
    }

    #[test]
    fn line_breaks_inside_a_line_are_escaped() {
        let mut lines = Vec::new();
        append(&mut lines, b"a\nb\r\nc");
        assert_eq!(lines, b"a\\nb\\r\\nc\n");
    }
}
