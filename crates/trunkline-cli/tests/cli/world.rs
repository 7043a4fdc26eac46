//! Directories, processes and waiting for the tests. All output is searched for the secrets in use.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Strong cookie that is easily found where it must not appear.
pub(crate) const COOKIE: &str = "canary-cookie-0f3b0c44298fc1c149afbf4c8996fb92427ae41e46";
pub(crate) const TOKEN: &str = "canary-token-7d1a54127b222502f5b79b5fb0803061152a44f9";

/// Timeout of every wait; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "deadlines of waits")]
fn now() -> Instant {
    Instant::now()
}

/// Polls until `look` returns a value, for events that cannot be awaited.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns a port that is free now, different at every call, and outside the system's range of ephemeral ports.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(101);
    loop {
        let next = first.wrapping_add(u32::from(TAKEN.fetch_add(1, Ordering::Relaxed)));
        let port = 12_000 + (next % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[track_caller]
pub(crate) fn no_secret(text: &str) {
    assert!(!text.contains("canary"), "a secret was printed:\n{text}");
}

/// Directory with a `cookie` in which commands run.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.file("cookie", COOKIE, 0o600);
        dir
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.at(name), text).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// Writes `NAME.yaml` for the node `NAME@127.0.0.1` without a registrar, with these further lines.
    pub(crate) fn config(&self, name: &str, rest: &str) -> String {
        let file = format!("{name}.yaml");
        let text = format!(
            "node:\n  name: {name}@127.0.0.1\n  cookie_file: cookie\n  data_dir: {name}.data\n  registrar: none\n{rest}"
        );
        self.file(&file, &text, 0o600);
        file
    }

    /// Returns a command that runs the program in this directory with an empty environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
        command.args(args).current_dir(self.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Returns a command that runs the program with this limit on file descriptors.
    pub(crate) fn with_descriptors(&self, most: usize, args: &[&str]) -> Command {
        self.limited(&format!("ulimit -n {most}"), args)
    }

    /// Returns a command that runs the program after a shell has set these limits.
    pub(crate) fn limited(&self, limits: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{limits} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_trunkline")]);
        command.args(args).current_dir(self.path()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args))
    }

    /// Runs a command and asserts that it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Ran {
        self.run(args).exits(0)
    }

    /// Runs a command with `--json`, asserts that it succeeds, and returns its JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args: Vec<_> = ["--json"].iter().chain(args).copied().collect();
        self.ok(&args).json()
    }

    /// Starts a node with a configuration file and waits for its ready line.
    #[track_caller]
    pub(crate) fn node(&self, file: &str, args: &[&str]) -> Running {
        let all: Vec<_> = ["--json", "node", "--config", file].iter().chain(args).copied().collect();
        Running::start(self.command(&all))
    }
}

/// Sends a request to the admin socket of a node without an HTTP library. Returns the status and the answer; `None` if there
/// is none within that time.
pub(crate) fn request(socket: &str, method: &str, path: &str, body: &Value, within: Duration) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

/// Result of a command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}:\n{}\n{}", self.stdout, self.stderr))
    }

    /// Asserts wrong usage: exit code 2, no standard output, and one paragraph of error text with all these parts.
    #[track_caller]
    pub(crate) fn refused(self, parts: &[&str]) -> Self {
        let ran = self.exits(2);
        assert_eq!(ran.stdout, "");
        assert!(ran.stderr.starts_with("trunkline: "), "{}", ran.stderr);
        assert!(!ran.stderr.trim_end().contains("\n\n"), "more than one paragraph:\n{}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{part:?} is missing in:\n{}", ran.stderr);
        }
        ran
    }
}

#[track_caller]
pub(crate) fn finish(mut command: Command) -> Ran {
    Running::spawned(command.spawn().unwrap()).end()
}

/// Running process; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Output,
    err: Output,
    /// Ready line of a node.
    pub(crate) ready: Value,
}

/// Output of a process so far, and the thread that reads it. Empty if the test reads that output itself.
#[derive(Default)]
struct Output {
    text: Arc<Mutex<Vec<u8>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Output {
    fn of(from: impl Read + Send + 'static) -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let into = text.clone();
        let thread = thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                into.lock().unwrap_or_else(PoisonError::into_inner).append(&mut line);
            }
        });
        Self { text, thread: Some(thread) }
    }

    fn bytes(&self) -> Vec<u8> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Running {
    pub(crate) fn spawned(mut child: Child) -> Self {
        let out = child.stdout.take().map(Output::of).unwrap_or_default();
        let err = child.stderr.take().map(Output::of).unwrap_or_default();
        let stdin = child.stdin.take();
        Self { child, stdin, out, err, ready: Value::Null }
    }

    /// Starts a node and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let mut node = Self::spawned(command.spawn().unwrap());
        let line = eventually("the ready line", || {
            let text = node.out.text();
            if text.is_empty() {
                assert!(node.child.try_wait().unwrap().is_none(), "it did not start:\n{}", node.err.text());
            }
            text.lines().next().filter(|_| text.contains('\n')).map(str::to_owned)
        });
        node.ready =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {}\n{}", node.out.text(), node.err.text()));
        node
    }

    /// Returns the port at which the node listens.
    pub(crate) fn port(&self) -> u16 {
        let address = self.ready["listening"][0].as_str().unwrap();
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Returns the admin address of the node.
    pub(crate) fn admin(&self) -> &str {
        self.ready["admin"].as_str().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        self.out.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.err.text()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until the process prints this to standard error.
    #[track_caller]
    pub(crate) fn logs(&self, part: &str) {
        eventually(&format!("{part:?} in the log"), || self.stderr().contains(part).then_some(()));
    }

    /// Waits until the process ends.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ran {
        let status = eventually("the end of the process", || self.child.try_wait().unwrap());
        for output in [&mut self.out, &mut self.err] {
            if let Some(thread) = output.thread.take() {
                thread.join().unwrap();
            }
        }
        let (bytes, stdout, stderr) = (self.out.bytes(), self.stdout(), self.stderr());
        Ran { code: status.code(), bytes, stdout, stderr }
    }

    /// Sends SIGTERM and asserts a successful end.
    #[track_caller]
    pub(crate) fn stop(self) -> Ran {
        self.signal(Signal::TERM);
        self.end().exits(0)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            no_secret(&self.stdout());
            no_secret(&self.stderr());
        }
    }
}

/// Starts a server that answers each connection with what it received, in capitals.
pub(crate) fn shouting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            thread::spawn(move || {
                let mut all = String::new();
                socket.read_to_string(&mut all).unwrap();
                socket.write_all(all.to_uppercase().as_bytes()).unwrap();
            });
        }
    });
    port
}
