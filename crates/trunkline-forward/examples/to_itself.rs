//! Forwards a local port to a byte-stream service, with a node that reaches itself only.
//!
//! A program with links of its own implements [`StreamHost`] in the same way, and returns a link to the peer.

use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use trunkline_dial::ConnectError;
use trunkline_forward::{Services, StreamHost, StreamOptions};
use trunkline_matcher::AccessPattern;
use trunkline_route::{Cookie, LocalPlace, NodeName};
use trunkline_stack::{BoxFuture, HostNames, Link, LinkInfo, LocalLimits, LocalLink, Mailboxes, PeerLog};

struct Alone {
    link: Arc<LocalLink>,
    leaving: watch::Sender<bool>,
    names: HostNames,
    log: PeerLog,
}

impl StreamHost for Alone {
    fn link(self: Arc<Self>, peer: NodeName, _: Duration) -> BoxFuture<'static, Result<Link, ConnectError>> {
        println!("a link to {peer} is asked for");
        Box::pin(async move { Ok(self.link.link()) })
    }

    fn shutting_down(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn host_names(&self) -> &HostNames {
        &self.names
    }

    fn peer_log(&self) -> &PeerLog {
        &self.log
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mailboxes = Arc::new(Mailboxes::default());
    let info = LinkInfo::local("a@h".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
    let node = Arc::new(Alone {
        link: LocalLink::start(info, mailboxes.clone(), LocalLimits::default()),
        leaving: watch::Sender::new(false),
        names: HostNames::of_the_system(),
        log: PeerLog::default(),
    });
    let services = Arc::new(Services::new(Arc::downgrade(&node) as Weak<dyn StreamHost>));
    let of_the_node = services.clone();
    mailboxes.accept_streams(Some(Arc::new(move |incoming| of_the_node.dispatch(incoming))));

    // The service: this program answers each stream with what it reads, in capitals.
    let mut streams = services.accept("shout", vec![AccessPattern::new("a@h")?])?;
    tokio::spawn(async move {
        while let Some(incoming) = streams.next().await {
            let mut stream = incoming.accept();
            let mut text = String::new();
            if stream.read_to_string(&mut text).await.is_ok() {
                let _ = stream.write_all(text.to_uppercase().as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });

    // The forward: a free local port that leads to it. Connections without traffic end after a minute.
    let options = StreamOptions { idle: Some(Duration::from_secs(60)) };
    let forward = services.forward_with("127.0.0.1:0".parse()?, "a@h", "shout", options).await?;
    let LocalPlace::Tcp(address) = forward.place() else { return Err("it listens at a TCP port".into()) };

    let mut client = TcpStream::connect(address).await?;
    client.write_all(b"hello").await?;
    client.shutdown().await?;
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    println!("{} of {} says {answer}", forward.service(), forward.peer());
    assert_eq!(answer, "HELLO");

    // Shutting down closes the port; open connections go on.
    node.leaving.send_replace(true);
    Ok(())
}
