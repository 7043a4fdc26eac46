//! Members of etcd, as processes.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, DeleteOptions, PutOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use trunkline_registrar_etcd::{Etcd, EtcdSettings};

use crate::support::{endpoint, own_address, soon};

/// Member of etcd, with its own directory; it is killed when dropped.
#[derive(Debug)]
pub struct Member {
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
    address: SocketAddr,
}

impl Member {
    /// Starts etcd with one member, and waits until it answers.
    pub async fn alone() -> Self {
        Self::alone_with(&[]).await
    }

    /// Starts etcd with one member and these arguments beside the necessary ones.
    pub async fn alone_with(arguments: &[String]) -> Self {
        let mut member = Self::several(1, arguments).remove(0);
        member.start().await;
        member
    }

    /// Starts etcd with three members, and waits until all answer.
    pub async fn three() -> Vec<Self> {
        let mut members = Self::several(3, &[]);
        // None answers before most are there.
        members.iter_mut().for_each(Self::spawn);
        for member in &members {
            member.answers().await;
        }
        members
    }

    fn several(count: usize, more: &[String]) -> Vec<Self> {
        let places: Vec<_> = (0..count).map(|_| (own_address(), own_address())).collect();
        let peers: Vec<_> = places.iter().enumerate().map(|(nth, (_, peer))| format!("m{nth}=http://{peer}")).collect();
        let member = |(nth, (client, peer)): (usize, &(SocketAddr, SocketAddr))| {
            let directory = tempfile::tempdir().expect("there is a directory for temporary files");
            let scheme = if more.iter().any(|argument| argument.starts_with("--cert-file")) { "https" } else { "http" };
            let mut arguments = vec![
                format!("--name=m{nth}"),
                format!("--data-dir={}", directory.path().join("data").display()),
                format!("--listen-client-urls={scheme}://{client}"),
                format!("--advertise-client-urls={scheme}://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", peers.join(",")),
                "--log-level=error".to_owned(),
            ];
            arguments.extend(more.iter().cloned());
            Self { directory, arguments, process: None, address: *client }
        };
        places.iter().enumerate().map(member).collect()
    }

    fn spawn(&mut self) {
        let mut etcd = Command::new("etcd");
        etcd.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(etcd.spawn().expect("Debian's etcd-server is installed"));
    }

    /// Starts the member again after [`Member::kill`], and waits until it answers.
    pub async fn start(&mut self) {
        self.spawn();
        self.answers().await;
    }

    /// Waits until the member accepts connections and, without TLS, answers.
    async fn answers(&self) {
        let is_secure = self.arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        soon(async {
            loop {
                let answers = match is_secure {
                    true => tokio::net::TcpStream::connect(self.address).await.is_ok(),
                    false => match Client::connect([self.address.to_string()], None).await {
                        Ok(mut client) => {
                            let status = tokio::time::timeout(Duration::from_secs(1), client.get("health", None)).await;
                            status.is_ok_and(|answer| match answer {
                                Ok(_) => true,
                                Err(etcd_client::Error::GRpcStatus(status)) => status.message().contains("user name"),
                                Err(_) => false,
                            })
                        }
                        Err(_) => false,
                    },
                };
                if answers {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a registrar that asks this member.
    pub fn registrar(&self) -> Etcd {
        etcd_at(&[self.address])
    }

    /// Returns a client of its own.
    pub async fn client(&self) -> Client {
        self.client_with(None).await
    }

    /// Returns a client with these options.
    pub async fn client_with(&self, options: Option<ConnectOptions>) -> Client {
        soon(Client::connect([self.address.to_string()], options)).await.expect("etcd answers")
    }

    /// Writes a key as somebody with `etcdctl` would.
    pub async fn put(&self, key: &str, value: &str) {
        let put = async { self.client().await.put(key, value, Some(PutOptions::new())).await };
        soon(put).await.expect("etcd takes the value");
    }

    /// Deletes all keys with this prefix.
    pub async fn delete(&self, prefix: &str) {
        let delete = async { self.client().await.delete(prefix, Some(DeleteOptions::new().with_prefix())).await };
        soon(delete).await.expect("etcd deletes the keys");
    }

    /// Returns the keys with this prefix.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
        let answer = soon(async { self.client().await.get(prefix, Some(options)).await }).await.expect("etcd answers");
        answer.kvs().iter().map(|kv| String::from_utf8_lossy(kv.key()).into_owned()).collect()
    }

    /// Makes etcd forget all changes until now.
    pub async fn compact(&self) {
        let mut client = self.client().await;
        let compact = async {
            let now = client.get("any", None).await?.header().map_or(0, etcd_client::ResponseHeader::revision);
            client.compact(now, None).await
        };
        match soon(compact).await {
            // Nothing changed since the last time.
            Err(etcd_client::Error::GRpcStatus(status)) if status.message().contains("has been compacted") => {}
            compacted => drop(compacted.expect("etcd compacts")),
        }
    }

    /// Kills the member, as SIGKILL does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Removes what a killed member has stored.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("the member has stored something");
    }

    /// Stops the process, which keeps its connections and says nothing.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped process go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it is ours");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a registrar that asks etcd at these addresses.
pub fn etcd_at(addresses: &[SocketAddr]) -> Etcd {
    Etcd::new(EtcdSettings::at(addresses.iter().map(|address| endpoint(*address).address).collect()))
}
