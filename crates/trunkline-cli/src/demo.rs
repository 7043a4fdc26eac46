//! Command `trunkline demo`: failover, discovery, gateways and a cluster, with real processes, free ports and temporary
//! keys.

mod members;

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use trunkline_admin::AdminClient;
use trunkline_admin::api::{
    Body, CallReply, Explanation, MessageRequest, Peer, PingRequest, Pong, Status, TraceRequest, Traced,
};

use members::{MEMBERS, Members};

use crate::args::DemoArgs;
use crate::commands::{explain_text, way_text};
use crate::output::{Failed, Output, write_line, written};
use crate::serve::{Ready, ToldToEnd};

/// Timeout for the start of a process.
const START: Duration = Duration::from_secs(10);
const SHOP: &str = "shop@127.0.0.1";
const DB: &str = "db@127.0.0.1";
const VAULT: &str = "vault@127.0.0.1";
const GATES: [&str; 2] = ["gate1@127.0.0.1", "gate2@127.0.0.1"];

/// Process of the cluster. It ends when its standard input closes, which happens at the latest when this process ends.
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
        let stdout = child.stdout.take().ok_or_else(|| Failed::because("the output of a node cannot be read"))?;
        let line = tokio::time::timeout(START, BufReader::new(stdout).lines().next_line()).await;
        let shown = config.display();
        let line = line.map_err(|_| Failed::because(format!("the node of {shown} did not start within {START:?}")))?;
        let line = line
            .ok()
            .flatten()
            .ok_or_else(|| Failed::because(format!("the node of {shown} ended before it was ready")))?;
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

    /// Sends SIGTERM and waits until the process has ended.
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
        .map_err(|e| Failed::because(e).about(format_args!("{} cannot be written", path.display())))
}

/// All processes and files of the demo; dropped in this order, processes first and the directory last.
struct Cluster {
    db: Process,
    primary: Option<Process>,
    standby: Process,
    gates: Vec<Process>,
    vault: Process,
    app: Process,
    /// Members of the cluster of the last steps.
    members: Option<Members>,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Result<Self, Failed> {
        let directory = tempfile::Builder::new().prefix("trunkline-demo-").tempdir().map_err(Failed::because)?;
        let at = |name: &str| directory.path().join(name);
        write(&at("cookie"), &random_hex())?;
        // This port is free now; the registrar binds it next.
        let registrar =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(Failed::because)?;
        let silent = |name: &str, data: &str, rest: &str| {
            let data = at(data);
            format!("node:\n  name: {name}\n  cookie_file: cookie\n  data_dir: {}\n{rest}", data.display())
        };
        let node = |name: &str, data: &str, rest: &str| {
            silent(name, data, &format!("  listen: [{{ host: 127.0.0.1, port: 0 }}]\n{rest}"))
        };
        let asking = format!("  registrar_listen: {{ host: 127.0.0.1, port: {} }}\n", registrar.port());
        let alone = "  registrar: none\n";
        write(&at("db.yaml"), &node(DB, "db.data", &asking))?;
        write(&at("primary.yaml"), &node(SHOP, "primary.data", alone))?;
        write(&at("standby.yaml"), &node(SHOP, "standby.data", alone))?;
        let db = Process::start(&at("db.yaml"), "whoami=the db, found through the registrar").await?;
        let status: Status = db.client().get("/v1/status").await?;
        let ours = "another program took the port that was chosen for the registrar; run the demo again";
        expect(status.serves_registrar, ours)?;
        let primary = Process::start(&at("primary.yaml"), "whoami=the primary").await?;
        let standby = Process::start(&at("standby.yaml"), "whoami=the standby").await?;
        let (mut gates, mut to_gates) = (Vec::new(), String::new());
        for (gate, short) in GATES.into_iter().zip(["gate1", "gate2"]) {
            let rules = "transit: { rules: [{ from: \"app@.*\", to: \"vault@.*\" }] }\n";
            let file = at(&format!("{short}.yaml"));
            write(&file, &node(gate, &format!("{short}.data"), &format!("{alone}{rules}")))?;
            let process = Process::start(&file, &format!("whoami={short}")).await?;
            let port = process.port();
            to_gates += &format!("  - {{ match: \"^{short}@\", host: 127.0.0.1, port: {port}, reconnect: keep }}\n");
            gates.push(process);
        }
        // This node has no listener, so no other node can dial it. It dials the gateways instead.
        let nowhere = format!("{alone}  listen: []\nroutes:\n{to_gates}");
        write(&at("vault.yaml"), &silent(VAULT, "vault.data", &nowhere))?;
        let vault = Process::start(&at("vault.yaml"), "whoami=the vault").await?;
        for gate in GATES {
            ping(&vault.client(), gate).await?;
        }
        let routes = format!(
            "{asking}routes:\n  - {{ match: \"^shop@\", weight: 200, host: 127.0.0.1, port: {} }}\n  - {{ match: \"^(shop|cart)@\", weight: 100, host: 127.0.0.1, port: {} }}\n{to_gates}proxy_routes:\n  - {{ match: \"^vault@\", weight: 200, proxy: {} }}\n  - {{ match: \"vault\", weight: 100, proxy: {} }}\n",
            primary.port(),
            standby.port(),
            GATES[0],
            GATES[1]
        );
        write(&at("app.yaml"), &node("app@127.0.0.1", "app.data", &routes))?;
        let app = Process::start(&at("app.yaml"), "whoami=the app").await?;
        Ok(Self { db, primary: Some(primary), standby, gates, vault, app, members: None, directory })
    }

    fn summary(&self) -> serde_json::Value {
        let roles = [("app", Some(&self.app)), ("db", Some(&self.db)), ("primary", self.primary.as_ref())];
        let processes = roles.into_iter().chain([("standby", Some(&self.standby)), ("vault", Some(&self.vault))]);
        let processes = processes.chain(self.gates.iter().map(|gate| ("gateway", Some(gate))));
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
        let Self { db, primary, standby, gates, vault, app, members, directory } = self;
        app.stop().await;
        if let Some(members) = members {
            members.stop().await;
        }
        for process in primary.into_iter().chain([standby, db, vault]).chain(gates) {
            process.stop().await;
        }
        drop(directory);
    }
}

fn random_hex() -> String {
    trunkline::random_16().iter().chain(&trunkline::random_16()).map(|b| format!("{b:02x}")).collect()
}

async fn ping(client: &AdminClient, name: &str) -> Result<Pong, Failed> {
    Ok(client.post("/v1/ping", &PingRequest { name: name.into(), timeout_ms: 5_000, now: false }).await?)
}

/// Calls repeatedly until a call is answered: a call in progress when a link breaks fails, and the next one uses
/// another route. Returns the answer and the time it took.
async fn whoami_again(client: &AdminClient, name: &str) -> Result<(String, f64), Failed> {
    let killed = now();
    loop {
        match whoami(client, name).await {
            Ok((answer, _)) => return Ok((answer, ms(killed))),
            Err(error) if ms(killed) > 10_000.0 => return Err(error),
            Err(_) => {}
        }
    }
}

async fn whoami(client: &AdminClient, name: &str) -> Result<(String, f64), Failed> {
    let request = MessageRequest {
        name: name.into(),
        mailbox: "whoami".into(),
        body: Body::Text(String::new()),
        timeout_ms: 10_000,
        important: false,
    };
    let reply: CallReply = client.post("/v1/call", &request).await?;
    match reply.body {
        Body::Text(text) => Ok((text, reply.took_ms)),
        Body::Base64(_) => Err(Failed::because("the answer is not text")),
    }
}

pub(crate) async fn run(args: DemoArgs, output: &Output) -> Result<(), Failed> {
    let began = now();
    let mut told_to_end = ToldToEnd::listen()?;
    let told = told_to_end.wait();
    tokio::pin!(told);
    let interrupted = || Failed::because("interrupted; all processes are stopped and all files removed");
    let mut cluster = tokio::select! {
        cluster = Cluster::start() => cluster?,
        () = &mut told => return Err(interrupted()),
    };
    let mut result = tokio::select! {
        result = show(&mut cluster, began, output) => result,
        () = &mut told => Err(interrupted()),
    };
    if result.is_ok() && args.keep {
        result = instructions(&cluster, output).await;
        if result.is_ok() {
            told.await;
        }
    }
    cluster.stop().await;
    result?;
    say(output, format!("All processes are stopped and all files removed. The demo took {:.1} s.", ms(began) / 1e3))
        .await?;
    Ok(())
}

/// Prints a text on another thread, so that the demo can be interrupted even if its output is not read.
async fn say(output: &Output, text: impl Into<String>) -> Result<(), Failed> {
    if output.json {
        return Ok(());
    }
    let text = text.into();
    let done = tokio::task::spawn_blocking(move || write_line(&text)).await;
    written(done.map_err(Failed::because)?)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

async fn show(cluster: &mut Cluster, began: Instant, output: &Output) -> Result<(), Failed> {
    let client = cluster.app.client();
    let step = |n: u8, text: &str| say(output, format!("\n{} {text}", output.bold(&format!("{n}."))));
    say(output, format!("Seven nodes are up after {:.0} ms, each in its own process:", ms(began))).await?;
    let primary_pid = cluster.primary.as_ref().map_or(0, Process::pid);
    let processes = cluster.summary();
    let primary_port = cluster.primary.as_ref().map_or("", Process::port).to_owned();
    let nodes = [
        ("app@127.0.0.1", cluster.app.pid(), String::new()),
        (DB, cluster.db.pid(), "only known to the registrar, which it serves itself".into()),
        (SHOP, primary_pid, format!("the primary, port {primary_port}")),
        (SHOP, cluster.standby.pid(), format!("the standby, port {}", cluster.standby.port())),
        (VAULT, cluster.vault.pid(), "has no listener; it dialled two gateways".into()),
        (GATES[0], cluster.gates[0].pid(), "a gateway".into()),
        (GATES[1], cluster.gates[1].pid(), "another".into()),
    ];
    let nodes = nodes.map(|(name, pid, what)| format!("{name:<15}  pid {pid}   {what}").trim_end().to_owned());
    say(output, indented(&nodes.join("\n"))).await?;

    step(1, &format!("Routes of app to {SHOP}: two static routes by weight, then the registrar:")).await?;
    let explained: Explanation = client.get(&format!("/v1/explain?name={SHOP}")).await?;
    say(output, indented(&explain_text(&explained))).await?;

    step(2, "The route with the higher weight is used first: app calls whoami at shop.").await?;
    let (answer, took) = whoami(&client, SHOP).await?;
    expect(answer == "the primary", "the primary did not answer")?;
    say(output, format!("    {answer:?} answered after {took:.1} ms, connecting included")).await?;

    step(3, &format!("No static route matches {DB}: app asks the registrar.")).await?;
    let pong = ping(&client, DB).await?;
    let (answer, _) = whoami(&client, DB).await?;
    expect(answer.starts_with("the db"), "the db did not answer")?;
    say(
        output,
        &format!("    connected in {:.1} ms, round trip {:.3} ms: {answer:?}", pong.connect_ms, pong.round_trip_ms),
    )
    .await?;

    step(4, &format!("The primary is killed with SIGKILL (pid {primary_pid}); app calls again at once.")).await?;
    if let Some(mut primary) = cluster.primary.take() {
        primary.child.kill().await.map_err(Failed::because)?;
    }
    let (answer, failover) = whoami_again(&client, SHOP).await?;
    expect(answer == "the standby", "the standby did not answer")?;
    say(output, format!("    {answer:?} answered {failover:.1} ms after the kill")).await?;

    step(5, "Failures that app remembers now, and its live connections:").await?;
    let explained: Explanation = client.get(&format!("/v1/explain?name={SHOP}")).await?;
    let peers: Vec<Peer> = client.get("/v1/nodes").await?;
    let peers: String = peers.iter().map(|p| format!("{:<16} {}  link {}\n", p.name, p.address, p.link)).collect();
    say(output, indented(&format!("{}\n\n{peers}", explain_text(&explained)))).await?;

    step(
        6,
        &format!("No node can dial {VAULT}. The proxy routes of app lead through a gateway, encrypted end to end:"),
    )
    .await?;
    let (answered, took_through) = whoami(&client, VAULT).await?;
    expect(answered == "the vault", "the vault did not answer")?;
    let before = way(&client).await?;
    say(
        output,
        format!("    {answered:?} answered after {took_through:.1} ms, connecting included, over this path:\n"),
    )
    .await?;
    say(output, indented(&ways_text(&before))).await?;
    expect(passes(&before, GATES[0]), "the path did not lead through the first gateway")?;

    step(7, &format!("That gateway is killed with SIGKILL (pid {}); app calls again at once.", cluster.gates[0].pid()))
        .await?;
    cluster.gates.remove(0).child.kill().await.map_err(Failed::because)?;
    let (answered, gateway_failover) = whoami_again(&client, VAULT).await?;
    expect(answered == "the vault", "the vault did not answer")?;
    let after = way(&client).await?;
    say(output, format!("    {answered:?} answered {gateway_failover:.1} ms after the kill, over this path:\n"))
        .await?;
    say(output, indented(&ways_text(&after))).await?;
    expect(passes(&after, GATES[1]), "the path did not lead through the second gateway")?;

    step(
        8,
        "Five more nodes start at once. Four of them have one route, to the fifth one, n1; nobody knows the others.",
    )
    .await?;
    let (mut members, formed) = Members::form(cluster.directory.path()).await?;
    say(output, format!("    each is connected to each other one after {formed:.0} ms, their start included")).await?;

    let seed = members.pid(0);
    step(9, &format!("n1 is killed with SIGKILL (pid {seed}), and then n2, which comes back without n1:")).await?;
    members.kill(0).await?;
    let took = members.call(1, 4).await?;
    say(output, format!("    without n1: {} answered {} after {took:.1} ms", MEMBERS[4], MEMBERS[1])).await?;
    members.kill(1).await?;
    let healed = members.restart(1).await?;
    let took_again = members.call(4, 1).await?;
    say(output, format!("    n2 is connected to n3, n4 and n5 {healed:.0} ms after it was started again")).await?;
    say(output, format!("    {} answered {} after {took_again:.1} ms\n", MEMBERS[1], MEMBERS[4])).await?;
    cluster.members = Some(members);
    if output.json {
        let summary = serde_json::json!({
            "first_answer_ms": took, "registrar_connect_ms": pong.connect_ms, "failover_ms": failover,
            "through_gateway_ms": took_through, "gateway_failover_ms": gateway_failover, "cluster_formed_ms": formed, "cluster_healed_ms": healed,
            "total_ms": ms(began),
            "before": "the primary", "after": answer, "nodes": processes,
        });
        output.print(&summary, |_| String::new())?;
    }
    Ok(())
}

async fn way(client: &AdminClient) -> Result<Traced, Failed> {
    Ok(client.post("/v1/trace", &TraceRequest { name: VAULT.into(), timeout_ms: 10_000 }).await?)
}

fn ways_text(traced: &Traced) -> String {
    traced.ways.iter().map(way_text).collect::<Vec<_>>().join("\n")
}

fn passes(traced: &Traced, gateway: &str) -> bool {
    traced.reached && traced.ways.iter().all(|way| way.hops.first().is_some_and(|hop| hop.name == gateway))
}

fn expect(held: bool, otherwise: &str) -> Result<(), Failed> {
    if held { Ok(()) } else { Err(Failed::because(format!("the demo failed: {otherwise}"))) }
}

async fn instructions(cluster: &Cluster, output: &Output) -> Result<(), Failed> {
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
    {program} trace {VAULT}
    {program} routes add '^nowhere@' --host 127.0.0.1 --port 9
    {program} ping nowhere@127.0.0.1
    {program} routes list --config {}
",
            config.display()
        ),
    )
    .await
}
