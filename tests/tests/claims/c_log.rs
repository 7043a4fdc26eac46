//! Log lines about one connection.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use trunkline::{AtomMapping, CONNECTION_TARGET, CallError, LogLevel, Term};
use trunkline_tests::support::*;

/// Log lines in the format of an operator's subscriber.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    text: Arc<Mutex<Vec<u8>>>,
    slow: Arc<Mutex<Option<Slow>>>,
}

/// Words of a line that blocks its writer until the other end is dropped.
type Slow = ([&'static str; 2], mpsc::Receiver<()>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        let line = String::from_utf8_lossy(bytes);
        let slow = self.slow.lock().unwrap().take_if(|(words, _)| words.iter().all(|word| line.contains(word)));
        if let Some((_, until)) = slow {
            // `recv` alone would block the runtime's sockets and timers in the meantime.
            let _ = tokio::task::block_in_place(|| until.recv());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    /// Blocks the thread that logs the next line with these words, until the returned value is dropped.
    pub(crate) fn stop_at(&self, words: [&'static str; 2]) -> mpsc::Sender<()> {
        let (go_on, until) = mpsc::channel();
        *self.slow.lock().unwrap() = Some((words, until));
        go_on
    }

    /// Returns the lines at WARN that have this text among their fields.
    pub(crate) fn warnings(&self, text: &str) -> Vec<Value> {
        let all = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        let lines = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["level"] == "WARN" && line["fields"].to_string().contains(text)).collect()
    }

    /// Returns the fields of the lines with this message whose field has this value.
    pub(crate) fn with(&self, message: &str, field: &str, value: &str) -> Vec<Value> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let fields = lines.map(|mut line| line["fields"].take());
        fields.filter(|fields| fields["message"] == message && fields[field] == value).collect()
    }

    /// Returns the lines about connections to this peer.
    pub(crate) fn about(&self, peer: &str) -> Vec<Value> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == CONNECTION_TARGET && line["fields"]["peer"] == peer).collect()
    }
}

/// Returns the lines without their fields, as `LEVEL message`.
fn said(lines: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines.iter().map(|line| format!("{} {}", text(&line["level"]), text(&line["fields"]["message"]))).collect()
}

fn has(said: &[String], line: &str) -> bool {
    said.iter().any(|other| other == line)
}

/// Returns the log lines of this process. There is one subscriber for all threads. With one for each thread, a call
/// site that another thread reaches first would be cached as disabled.
pub(crate) fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let filter: Targets = format!("info,{CONNECTION_TARGET}=trace").parse().expect("directives");
        let layer = tracing_subscriber::fmt::layer().json().with_writer(lines.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("nothing else in this process sets one");
        // Call sites that were reached before have found no subscriber.
        tracing::callsite::rebuild_interest_cache();
        lines
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn c13_one_connection_traces_while_the_others_stay_quiet() {
    let lines = lines();

    // The ends that are dialled log nothing, except the one whose own route enables it.
    let peer = |text: &str| listener(text).log_level(LogLevel::Off);
    let (loud, quiet, mute) = (
        start(peer("loud@h").route("^logged@", route_at(nobody()).log_level(LogLevel::Debug), 1)).await,
        start(peer("quiet@h")).await,
        start(peer("mute@h")).await,
    );
    let app = dialer("logged@127.0.0.1")
        .route("^loud@", route_to(&loud).log_level(LogLevel::Trace), 1)
        .route("^quiet@", route_to(&quiet), 1)
        .route("^mute@", route_to(&mute).log_level(LogLevel::Off), 1);
    let app = start(app).await;
    let mut links = Vec::new();
    for node in [&loud, &quiet, &mute] {
        answers(node, "work");
        let connection = soon(app.connect(node.name())).await.unwrap();
        soon(connection.send("work", "me", b"the body of a message")).await.unwrap();
        soon(connection.call("work", "me", b"the body of a call", Duration::from_secs(5))).await.unwrap();
        links.push(connection.info().short_id());
        connection.disconnect();
        soon(connection.closed()).await;
    }

    for peer in ["loud@h", "quiet@h"] {
        until(|| has(&said(&lines.about(peer)), "INFO down")).await;
    }
    let about = lines.about("loud@h");
    let trace = said(&about);
    for line in ["INFO up", "TRACE sent", "TRACE called", "TRACE got an answer", "DEBUG going away", "INFO down"] {
        assert!(has(&trace, line), "{line:?} is missing in {trace:?}");
    }
    assert!(about.iter().all(|line| line["fields"]["link"] == *links[0] && line["fields"]["route"] == "^loud@"));
    assert_eq!(said(&lines.about("quiet@h")), ["INFO up", "INFO down"]);
    assert!(lines.about("mute@h").is_empty());

    // The log level belongs to the name, so the listening end logs at the level of its own route.
    until(|| has(&said(&lines.about("logged@127.0.0.1")), "INFO down")).await;
    let about = lines.about("logged@127.0.0.1");
    assert!(about.iter().all(|line| line["fields"]["route"] == "^logged@" && line["fields"]["link"] == *links[0]));
    let debug = said(&about);
    assert!(has(&debug, "INFO up") && has(&debug, "DEBUG the peer goes away"), "{debug:?}");
    assert!(!debug.iter().any(|line| line.starts_with("TRACE")), "{debug:?}");

    let all = String::from_utf8(lines.text.lock().unwrap().clone()).unwrap();
    assert!(!all.contains("the body of"), "what is sent is nobody's business");
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_two_names_that_the_peer_cannot_tell_apart_cause_one_warning() {
    let lines = lines();
    let db = start(listener("warned@127.0.0.1").log_level(LogLevel::Off)).await;
    let mapping = AtomMapping::new([("process_manager", "proc_mgr")]).unwrap();
    let app = start(dialer("app@127.0.0.1").route("^warned@", route_to(&db).atom_mapping(mapping), 1)).await;
    let connection = soon(app.connect("warned@127.0.0.1")).await.unwrap();
    let warnings =
        || lines.about("warned@127.0.0.1").into_iter().filter(|line| line["level"] == "WARN").collect::<Vec<_>>();

    soon(connection.send_term("process_manager", "", &Term::atom("process_manager").unwrap())).await.unwrap();
    assert_eq!(warnings(), [] as [Value; 0], "what is mapped is clear");
    for _ in 0..2 {
        soon(connection.send_term("in", "", &Term::list([Term::atom("proc_mgr").unwrap()]))).await.unwrap();
        soon(connection.send("proc_mgr", "proc_mgr", b"")).await.unwrap();
    }
    let lives = soon(connection.call("nobody", "process_manager", b"", Duration::from_secs(20))).await;
    assert_eq!(lives, Err(CallError::NoMailbox), "both names went out as one");
    let warned = warnings();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!(
        (&warned[0]["fields"]["name"], &warned[0]["fields"]["other"]),
        (&"proc_mgr".into(), &"process_manager".into())
    );
}
