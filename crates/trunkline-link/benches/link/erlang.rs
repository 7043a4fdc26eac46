//! The same work by two Erlang nodes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Numbers;

/// Compiled once, into a directory that goes with this.
pub(crate) struct Erlang {
    directory: PathBuf,
    port_mapper: Child,
}

/// The port mapper of these nodes alone.
const PORT_MAPPER: (&str, &str) = ("ERL_EPMD_PORT", "24369");

impl Erlang {
    /// `None` when Erlang is not installed.
    pub(crate) fn find() -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("trunkline-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("trunkline_bench.erl"), include_str!("trunkline_bench.erl")).unwrap();
        let compiled =
            Command::new("erlc").arg("-o").arg(&directory).arg(directory.join("trunkline_bench.erl")).status();
        if !compiled.is_ok_and(|status| status.success()) {
            return None;
        }
        let port_mapper = Command::new("epmd").env(PORT_MAPPER.0, PORT_MAPPER.1).spawn().ok()?;
        Some(Self { directory, port_mapper })
    }

    /// On one core, or wherever the scheduler puts it: then it is fastest. So it is with 32 MiB of messages that may wait
    /// for the socket, instead of its own default of 1.
    fn node(&self, name: &str, core: Option<&str>) -> Command {
        let mut command = Command::new(if core.is_some() { "taskset" } else { "erl" });
        if let Some(core) = core {
            command.args(["-c", core, "erl", "+S", "1"]);
        }
        command.args(["-noinput", "+zdbbl", "32768", "-name", name]);
        command.args(["-setcookie", "bench", "-pa"]).arg(&self.directory).env(PORT_MAPPER.0, PORT_MAPPER.1);
        // A node that is killed at the end of a case leaves no dump behind.
        command.env("ERL_CRASH_DUMP_SECONDS", "0");
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Runs both nodes, on one core if it is given.
    pub(crate) fn case(&self, case: &str, size: usize, callers: usize, each: usize, core: Option<&str>) -> Numbers {
        let mut receiver = self.node("b@127.0.0.1", core).args(["-s", "trunkline_bench", "serve"]).spawn().unwrap();
        BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let (size, callers, each) = (size.to_string(), callers.to_string(), each.to_string());
        let work = ["-s", "trunkline_bench", "dial", case, "b@127.0.0.1", &size, &callers, &each];
        let sent = self.node("a@127.0.0.1", core).args(work).output().unwrap();
        let _ = receiver.wait();
        crate::numbers(&String::from_utf8_lossy(&sent.stdout))
    }
}

impl Drop for Erlang {
    fn drop(&mut self) {
        let _ = self.port_mapper.kill();
        let _ = self.port_mapper.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
