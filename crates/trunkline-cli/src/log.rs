//! The log: lines go to standard error through a bounded queue and a thread of its own, so that a full disk, a closed pipe
//! or a pipe that nobody reads costs lines and nothing else.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of lines that may wait to be written: some thousand lines, more than a burst has.
const QUEUE: usize = 1024 * 1024;
/// Longest wait for the last lines when the process ends: enough for a slow disk, and short for who stops a node whose log
/// nobody reads.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Pause before another try on a standard error that is in non-blocking mode and full.
const RETRY: Duration = Duration::from_millis(10);

thread_local! {
    /// A line of the writing thread itself, which must not wait for a place in its own queue.
    static OWN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// A log whose lines are written by a thread of its own. Writing into it never blocks and never fails; lines without a place
/// in the queue, and lines that cannot be written, are counted. Each call of `write` is one line: line breaks inside it
/// are escaped.
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
    /// Lines in order, each with its end.
    lines: Vec<u8>,
    /// Lines that came after those and found no place.
    lost: u64,
    /// The thread writes what it took.
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
    /// The system's, when there can be no further thread.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let log = Self(shared.clone());
        thread::Builder::new().name("log".into()).spawn(move || write_all(&shared, Sink { sink, inside: false }))?;
        Ok(log)
    }

    /// The count of lines that were lost so far.
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

    /// Waits until everything is written, at most a second.
    pub(crate) fn flush(&self) {
        let waits = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.0.lock(), LAST_LINES, waits));
    }
}

/// Appends a line without line breaks inside.
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

/// Flushes the log when dropped.
pub(crate) struct Flush(pub(crate) Log);

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush();
    }
}

struct Sink<W> {
    sink: W,
    /// A line was written in part; the next one needs an end before it.
    inside: bool,
}

impl<W: Write> Sink<W> {
    /// Writes lines. On failure, also says how many are lost.
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
            // The end of the line before is no line.
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
            why = "it took them too slowly".into();
        }
        if written.is_ok() && unsaid > 0 {
            let said = own_line(|| {
                tracing::error!(lines = unsaid, why, "log lines were lost: standard error could not take them");
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

/// Returns what the writing thread logs by this.
fn own_line(log: impl FnOnce()) -> Vec<u8> {
    OWN.set(Some(Vec::new()));
    log();
    OWN.take().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that takes so many bytes and then fails.
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
    fn lines_that_do_not_fit_are_counted_and_the_next_one_begins_on_a_line_of_its_own() {
        let mut sink = Sink { sink: Full(Vec::new(), 6), inside: false };
        assert_eq!(sink.write(b"one\ntwo\nthree\n").unwrap_err().0, 2);
        assert_eq!(sink.write(b"four\n").unwrap_err().0, 1);
        sink.sink.1 = 100;
        sink.write(b"five\n").unwrap();
        sink.write(b"six\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&sink.sink.0), "one\ntw\nfive\nsix\n");
    }

    #[test]
    fn a_line_with_line_breaks_is_one_line() {
        let mut lines = Vec::new();
        append(&mut lines, b"a\nb\r\nc");
        assert_eq!(lines, b"a\\nb\\r\\nc\n");
    }
}
