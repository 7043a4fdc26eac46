//! Node inside the test process, whose mailbox answers when the test decides to.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;
use trunkline::{Cookie, Mailbox, Message, Node};
use trunkline_admin::{AdminServer, Operations};
use trunkline_config::{Config, Layers};

use crate::world::{COOKIE, Dir};

pub(crate) struct Peer {
    runtime: Runtime,
    pub(crate) node: Node,
    mailbox: Mailbox,
    admin: Option<AdminServer>,
    socket: PathBuf,
}

impl Peer {
    /// Starts `NAME@127.0.0.1` with the mailbox `work`.
    pub(crate) fn start(dir: &Dir, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let text = format!("node: {{ name: {name}@127.0.0.1, cookie_file: cookie, data_dir: {name}.data }}");
        let config = Config::parse(&text, dir.path(), "test", &Layers::none()).unwrap();
        let socket = dir.at(&format!("{name}.data/admin.sock"));
        let (node, mailbox, admin) = runtime.block_on(async {
            let node = Node::builder(config.node.name.clone())
                .unwrap()
                .cookie(Cookie::new(COOKIE).unwrap())
                .listen("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())
                .no_registrar()
                .start()
                .await
                .unwrap();
            let mailbox = node.register("work").unwrap();
            let operations = Arc::new(Operations::new(node.clone(), &config, None));
            (node, mailbox, AdminServer::start(operations, &config.node.admin).await.unwrap())
        });
        Self { runtime, node, mailbox, admin, socket }
    }

    pub(crate) fn port(&self) -> u16 {
        self.node.listening()[0].port()
    }

    pub(crate) fn admin(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    /// Waits for the next message or call.
    pub(crate) fn received(&mut self) -> Message {
        self.runtime.block_on(self.mailbox.recv()).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.admin = None;
    }
}
