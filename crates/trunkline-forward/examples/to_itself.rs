//! Forwards a local port to a byte-stream service of the node itself. With stacks in its settings, the node would reach the
//! services of others in the same way.

use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_dial::{Sessions, SessionsConfig};
use trunkline_forward::{Services, StreamHost, StreamOptions};
use trunkline_matcher::AccessPattern;
use trunkline_route::{Cookie, LocalPlace};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = SessionsConfig::new("a@h".parse()?, [7; 16], Cookie::new("a cookie of some length")?);
    let node = Sessions::new(config, |_| {});
    let services = Arc::new(Services::new(Arc::downgrade(&node) as Weak<dyn StreamHost>, Duration::from_secs(30)));
    let of_the_node = services.clone();
    node.mailboxes().accept_streams(Some(Arc::new(move |incoming| of_the_node.dispatch(incoming))));

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
    node.leave();
    Ok(())
}
