//! The last steps of the demo: five nodes that form a cluster from one route, and heal without the node that it leads to.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use trunkline_admin::AdminClient;
use trunkline_admin::api::Cluster as Seen;

use super::{Failed, Process, expect, ms, now, whoami_again, write};

/// Names of the members; the route of the others leads to the first one.
pub(super) const MEMBERS: [&str; 5] = ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1", "n4@127.0.0.1", "n5@127.0.0.1"];

/// Processes of the cluster, in the order of [`MEMBERS`]; `None` for one that was killed.
pub(super) struct Members {
    processes: Vec<Option<Process>>,
    files: Vec<PathBuf>,
}

impl Members {
    /// Starts all members at once. Returns them, and the milliseconds until each is connected to each other one.
    pub(super) async fn form(directory: &Path) -> Result<(Self, f64), Failed> {
        // These ports are free now; the members bind them next.
        let free = MEMBERS.iter().map(|_| TcpListener::bind("127.0.0.1:0"));
        let free = free.collect::<io::Result<Vec<_>>>().map_err(Failed::because)?;
        let ports = free.iter().map(|free| free.local_addr().map(|at| at.port()));
        let ports = ports.collect::<io::Result<Vec<_>>>().map_err(Failed::because)?;
        drop(free);
        let mut files = Vec::new();
        for (n, (name, port)) in MEMBERS.iter().zip(&ports).enumerate() {
            let routes = if n == 0 { String::new() } else { format!("127.0.0.1:{}", ports[0]) };
            let file = directory.join(format!("n{n}.yaml"));
            let data = directory.join(format!("n{n}.data"));
            let text = format!(
                "node:\n  name: {name}\n  cookie_file: cookie\n  data_dir: {}\n  registrar: none\n  \
                 listen: [{{ host: 127.0.0.1, port: {port} }}]\n\
                 clustering: {{ hubServer: {{ cluster: {{ name: demo, network: {{ routes: [{routes}] }} }} }} }}\n",
                data.display()
            );
            write(&file, &text)?;
            files.push(file);
        }
        let began = now();
        let mut starting = JoinSet::new();
        for (n, file) in files.iter().cloned().enumerate() {
            starting.spawn(async move { (n, Process::start(&file, &format!("whoami={}", MEMBERS[n])).await) });
        }
        let mut processes: Vec<Option<Process>> = files.iter().map(|_| None).collect();
        while let Some(started) = starting.join_next().await {
            let (n, process) = started.map_err(Failed::because)?;
            processes[n] = Some(process?);
        }
        let members = Self { processes, files };
        members.whole().await?;
        Ok((members, ms(began)))
    }

    fn client(&self, member: usize) -> Option<AdminClient> {
        self.processes[member].as_ref().map(Process::client)
    }

    pub(super) fn pid(&self, member: usize) -> u32 {
        self.processes[member].as_ref().map_or(0, Process::pid)
    }

    /// Waits until each member that runs is connected to each other one.
    async fn whole(&self) -> Result<(), Failed> {
        let (began, running) = (now(), self.processes.iter().flatten().count());
        for process in self.processes.iter().flatten() {
            loop {
                let seen: Seen = process.client().get("/v1/cluster").await?;
                if seen.connections.iter().filter(|member| member.status == "open").count() == running - 1 {
                    break;
                }
                expect(ms(began) < 35_000.0, "the cluster was not whole within 35 s")?;
            }
        }
        Ok(())
    }

    pub(super) async fn kill(&mut self, member: usize) -> Result<(), Failed> {
        if let Some(mut process) = self.processes[member].take() {
            process.child.kill().await.map_err(Failed::because)?;
        }
        Ok(())
    }

    /// Starts a member again. Returns the milliseconds until the cluster is whole.
    pub(super) async fn restart(&mut self, member: usize) -> Result<f64, Failed> {
        let began = now();
        let answer = format!("whoami={}", MEMBERS[member]);
        self.processes[member] = Some(Process::start(&self.files[member], &answer).await?);
        self.whole().await?;
        Ok(ms(began))
    }

    /// Calls one member from another one. Returns the milliseconds until the answer.
    pub(super) async fn call(&self, from: usize, to: usize) -> Result<f64, Failed> {
        let client = self.client(from).ok_or_else(|| Failed::because("the member was killed"))?;
        let (answer, took) = whoami_again(&client, MEMBERS[to]).await?;
        expect(answer == MEMBERS[to], "another member answered")?;
        Ok(took)
    }

    pub(super) async fn stop(self) {
        for process in self.processes.into_iter().flatten() {
            process.stop().await;
        }
    }
}
