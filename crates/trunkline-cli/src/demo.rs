//! `trunkline demo`: the main job on a small cluster of real processes, with free ports and throw-away keys.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use trunkline_admin::AdminClient;
use trunkline_admin::api::{Body, CallReply, Explanation, MessageRequest, Peer, PingRequest, Pong, Status};

use crate::args::DemoArgs;
use crate::commands::explain_text;
use crate::output::{Failed, Output};
use crate::serve::Ready;

/// How long a process may take to come up.
const START: Duration = Duration::from_secs(10);
const SHOP: &str = "shop@127.0.0.1";
const DB: &str = "db@127.0.0.1";

/// A process of the cluster. It ends with its standard input, that is, with this process at the latest.
struct Process {
    child: Child,
    ready: Ready,
}

impl Process {
    async fn start(config: &Path, answer: &str) -> Result<Self, Failed> {
        let program = std::env::current_exe().map_err(Failed::because)?;
        let mut child = Command::new(program)
            .args(["--json", "--log-level", "error", "node", "--until-eof", "--grace", "1s", "--config"])
            .arg(config)
            .args(["--answer", answer])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Failed::because)?;
        let stdout = child.stdout.take().ok_or_else(|| Failed::because("a node's output cannot be read"))?;
        let line = tokio::time::timeout(START, BufReader::new(stdout).lines().next_line()).await;
        let shown = config.display();
        let line =
            line.map_err(|_| Failed::because(format!("the node of {shown} did not come up within {START:?}")))?;
        let line = line.ok().flatten().ok_or_else(|| Failed::because(format!("the node of {shown} did not start")))?;
        let ready = serde_json::from_str(&line).map_err(|e| Failed::because(format!("{shown}: {e}: {line}")))?;
        Ok(Self { child, ready })
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    fn port(&self) -> &str {
        self.ready.listening.first().and_then(|a| a.rsplit_once(':')).map_or("", |(_, port)| port)
    }

    fn client(&self) -> AdminClient {
        AdminClient::Socket(PathBuf::from(self.ready.admin.clone().unwrap_or_default()))
    }

    /// SIGTERM, and a wait for the orderly end.
    async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(3), self.child.wait()).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the demo shows how long things take")]
fn now() -> Instant {
    Instant::now()
}

fn ms(since: Instant) -> f64 {
    (now() - since).as_secs_f64() * 1e3
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failed::because(format!("{} cannot be written: {e}", path.display())))
}

/// Everything the demo made: processes first, then the directory.
struct Cluster {
    db: Process,
    primary: Option<Process>,
    standby: Process,
    app: Process,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Result<Self, Failed> {
        let directory = tempfile::Builder::new().prefix("trunkline-demo-").tempdir().map_err(Failed::because)?;
        let at = |name: &str| directory.path().join(name);
        write(&at("cookie"), &random_hex())?;
        // Free at this moment; the registrar binds it next.
        let registrar =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(Failed::because)?;
        let node = |name: &str, data: &str, rest: &str| {
            let data = at(data);
            format!(
                "node:\n  name: {name}\n  cookie_file: cookie\n  data_dir: {}\n  listen: [{{ host: 127.0.0.1, port: 0 }}]\n{rest}",
                data.display()
            )
        };
        let asking = format!("  registrar_listen: {{ host: 127.0.0.1, port: {} }}\n", registrar.port());
        let alone = "  registrar: none\n";
        write(&at("db.yaml"), &node(DB, "db.data", &asking))?;
        write(&at("primary.yaml"), &node(SHOP, "primary.data", alone))?;
        write(&at("standby.yaml"), &node(SHOP, "standby.data", alone))?;
        let db = Process::start(&at("db.yaml"), "whoami=the db, found through the registrar").await?;
        let status: Status = db.client().get("/v1/status").await?;
        let ours = "another program took the port chosen for the registrar; run the demo again";
        expect(status.serves_registrar, ours)?;
        let primary = Process::start(&at("primary.yaml"), "whoami=the primary").await?;
        let standby = Process::start(&at("standby.yaml"), "whoami=the standby").await?;
        let routes = format!(
            "{asking}routes:\n  - {{ match: \"^shop@\", weight: 200, host: 127.0.0.1, port: {} }}\n  - {{ match: \"^(shop|cart)@\", weight: 100, host: 127.0.0.1, port: {} }}\n",
            primary.port(),
            standby.port()
        );
        write(&at("app.yaml"), &node("app@127.0.0.1", "app.data", &routes))?;
        let app = Process::start(&at("app.yaml"), "whoami=the app").await?;
        Ok(Self { db, primary: Some(primary), standby, app, directory })
    }

    fn summary(&self) -> serde_json::Value {
        let roles = [("app", Some(&self.app)), ("db", Some(&self.db)), ("primary", self.primary.as_ref())];
        let processes = roles.into_iter().chain([("standby", Some(&self.standby))]);
        let shown = processes.filter_map(|(role, process)| {
            let process = process?;
            let Ready { name, listening, admin } = &process.ready;
            Some(serde_json::json!({
                "role": role, "pid": process.pid(), "name": name, "listening": listening, "admin": admin,
            }))
        });
        shown.collect()
    }

    async fn stop(self) {
        let Self { db, primary, standby, app, directory } = self;
        app.stop().await;
        for process in primary.into_iter().chain([standby, db]) {
            process.stop().await;
        }
        drop(directory);
    }
}

fn random_hex() -> String {
    trunkline::random_16().iter().chain(&trunkline::random_16()).map(|b| format!("{b:02x}")).collect()
}

async fn whoami(client: &AdminClient, name: &str) -> Result<(String, f64), Failed> {
    let request = MessageRequest {
        name: name.into(),
        service: "whoami".into(),
        body: Body::Text(String::new()),
        timeout_ms: 10_000,
        important: false,
    };
    let reply: CallReply = client.post("/v1/call", &request).await?;
    match reply.body {
        Body::Text(text) => Ok((text, reply.took_ms)),
        Body::Base64(_) => Err(Failed::because("an answer is no text")),
    }
}

pub(crate) async fn run(args: DemoArgs, output: &Output) -> Result<(), Failed> {
    let began = now();
    let listen = |kind| signal(kind).map_err(|e| Failed::because(format!("signals cannot be received: {e}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(told);
    let interrupted = || Failed::because("interrupted; everything is stopped and removed");
    let mut cluster = tokio::select! {
        cluster = Cluster::start() => cluster?,
        () = &mut told => return Err(interrupted()),
    };
    let result = tokio::select! {
        result = show(&mut cluster, began, output) => result,
        () = &mut told => Err(interrupted()),
    };
    if result.is_ok() && args.keep {
        instructions(&cluster, output)?;
        told.await;
    }
    cluster.stop().await;
    result?;
    say(output, &format!("Everything is stopped and removed. The whole took {:.1} s.", ms(began) / 1e3));
    Ok(())
}

fn say(output: &Output, text: &str) {
    if !output.json {
        output.line(text);
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

async fn show(cluster: &mut Cluster, began: Instant, output: &Output) -> Result<(), Failed> {
    let client = cluster.app.client();
    let step = |n: u8, text: &str| say(output, &format!("\n{} {text}", output.bold(&format!("{n}."))));
    say(output, &format!("Four nodes are up after {:.0} ms, each a process of its own:", ms(began)));
    let primary_pid = cluster.primary.as_ref().map_or(0, Process::pid);
    let processes = cluster.summary();
    let primary_port = cluster.primary.as_ref().map_or("", Process::port).to_owned();
    say(
        output,
        &indented(&format!(
            "app@127.0.0.1   pid {}\n{DB}    pid {}   known to the registrar only, which it serves itself\n{SHOP}  pid {primary_pid}   the primary, port {primary_port}\n{SHOP}  pid {}   the standby, port {}",
            cluster.app.pid(),
            cluster.db.pid(),
            cluster.standby.pid(),
            cluster.standby.port()
        )),
    );

    step(1, &format!("What would app try for {SHOP}? Two static routes by weight, then the registrar:"));
    let explained: Explanation = client.get(&format!("/v1/explain?name={SHOP}")).await?;
    say(output, &indented(&explain_text(&explained)));

    step(2, "The greater weight wins: app calls whoami at shop.");
    let (answer, took) = whoami(&client, SHOP).await?;
    expect(answer == "the primary", "the primary should have answered")?;
    say(output, &format!("    {answer:?} answered after {took:.1} ms, connecting included"));

    step(3, &format!("No static route matches {DB}: app asks the registrar."));
    let pong: Pong = client.post("/v1/ping", &PingRequest { name: DB.into(), timeout_ms: 5_000, now: false }).await?;
    let (answer, _) = whoami(&client, DB).await?;
    expect(answer.starts_with("the db"), "the db should have answered")?;
    say(
        output,
        &format!("    connected in {:.1} ms, round trip {:.3} ms: {answer:?}", pong.connect_ms, pong.round_trip_ms),
    );

    step(4, &format!("The primary dies of SIGKILL (pid {primary_pid}); app calls again at once."));
    if let Some(mut primary) = cluster.primary.take() {
        primary.child.kill().await.map_err(Failed::because)?;
    }
    let killed = now();
    let (answer, failover) = loop {
        // The call under way when the link breaks is reported as such; the next one takes the other route.
        match whoami(&client, SHOP).await {
            Ok((answer, _)) => break (answer, ms(killed)),
            Err(error) if ms(killed) > 10_000.0 => return Err(error),
            Err(_) => {}
        }
    };
    expect(answer == "the standby", "the standby should have answered")?;
    say(output, &format!("    {answer:?} answered {failover:.1} ms after the kill"));

    step(5, "What app remembers now, and its live connections:");
    let explained: Explanation = client.get(&format!("/v1/explain?name={SHOP}")).await?;
    let peers: Vec<Peer> = client.get("/v1/nodes").await?;
    let peers: String = peers.iter().map(|p| format!("{:<16} {}  link {}\n", p.name, p.address, p.link)).collect();
    say(output, &indented(&format!("{}\n\n{peers}", explain_text(&explained))));
    if output.json {
        let summary = serde_json::json!({
            "first_answer_ms": took, "registrar_connect_ms": pong.connect_ms, "failover_ms": failover, "total_ms": ms(began),
            "before": "the primary", "after": answer, "nodes": processes,
        });
        output.print(&summary, |_| String::new());
    }
    Ok(())
}

fn expect(held: bool, otherwise: &str) -> Result<(), Failed> {
    if held { Ok(()) } else { Err(Failed::because(format!("the demo went wrong: {otherwise}"))) }
}

fn instructions(cluster: &Cluster, output: &Output) -> Result<(), Failed> {
    let program = std::env::current_exe().map_err(Failed::because)?;
    let (program, admin) = (program.display(), cluster.app.ready.admin.clone().unwrap_or_default());
    let config = cluster.directory.path().join("app.yaml");
    say(
        output,
        &format!(
            "The cluster stays up until Ctrl-C. Try, in another terminal:\n
    export TRUNKLINE_ADMIN={admin}
    {program} status
    {program} nodes
    {program} explain {SHOP}
    {program} call {SHOP} whoami ''
    {program} routes add '^nowhere@' --host 127.0.0.1 --port 9
    {program} ping nowhere@127.0.0.1
    {program} routes list --config {}
",
            config.display()
        ),
    );
    Ok(())
}
