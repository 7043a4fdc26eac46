//! Two nodes in one process: one listens, the other dials, sends a message and makes a call.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use trunkline_link::{DialTimes, Hooks, Listener, Native, NativeLimits};
use trunkline_route::{Claims, CloseCode, Cookie, Defaults, LinkPolicy, NetworkRoute, NodeName};
use trunkline_stack::Mailboxes;
use trunkline_tls::{ClientTls, ServerTls, TlsProfile};
use trunkline_wire::handshake::{Credential, Mode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("both nodes hold this cookie")?;
    let (app, db): (NodeName, NodeName) = ("app@localhost".parse()?, "db@localhost".parse()?);

    // The listening node: one service, and every caller that proves the cookie is let in.
    let directory = Arc::new(Mailboxes::default());
    let mut shout = directory.register("shout")?;
    let expected = cookie.clone();
    let listener = Listener::bind(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        Mode::Node,
        ServerTls::ephemeral()?,
        Box::new(move |_from: &NodeName, _label: &str| Credential::Cookie(expected.clone())),
    )?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(listener.serve(Native::new(db.clone(), NativeLimits::default()), move |offered| {
        let directory = directory.clone();
        async move {
            if let Ok(standing) = offered.accept(1, LinkPolicy::default()).await {
                let (_link, task) = standing.start(directory, Hooks::default());
                tokio::spawn(task);
            }
        }
    }));
    let service = tokio::spawn(async move {
        while let Some(message) = shout.recv().await {
            let text = String::from_utf8_lossy(message.body()).to_uppercase();
            println!("{} of {} says {text}", message.sender(), message.node());
            message.reply(text);
        }
    });

    // The dialling node.
    let native = Native::new(app, NativeLimits::default());
    let route = NetworkRoute::direct(address.ip().to_string(), address.port())?.build();
    let attempt = route.attempt(&db, None, &Defaults::new(cookie)).ok_or("a direct route has an address")?;
    let tls = ClientTls::new(&TlsProfile::default().no_roots())?;
    let dialed = native.dial(address, &attempt, Mode::Node, &tls, DialTimes::default()).await?;
    println!("{} proved itself", dialed.verified().name);
    let (link, task) = dialed.finish(Claims::default()).await?.start(Arc::new(Mailboxes::default()), Hooks::default());
    let moving = tokio::spawn(task);

    link.send("shout", "main", b"a message").await?;
    let answer = link.call("shout", "main", b"a call", Duration::from_secs(5)).await?;
    println!("the answer is {}", String::from_utf8_lossy(&answer));

    link.go_away(CloseCode::Normal);
    println!("the link ended: {}", link.closed().await);
    moving.await?;
    serving.abort();
    service.abort();
    Ok(())
}
