//! A peer that calls things by other names: replaced in what it is sent, restored in what it sends.
//!
//! ```yaml
//! routes:
//!   - { match: "^legacy@", host: 127.0.0.1, port: 4370, atom_mapping: { process_manager: proc_mgr } }
//! ```
//!
//! Run: `cargo run -p trunkline-tests --example atom_mapping`

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{AtomMapping, Cookie, NetworkRoute, Node, Term};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    let legacy = node("legacy@lab")?.listen(anywhere).start().await?;
    let mut mailbox = legacy.register("proc_mgr")?;
    let serving = tokio::spawn(async move {
        let message = mailbox.recv().await?;
        let term = message.term()?.ok()?;
        println!("legacy got {term:?}");
        message.reply_term(&Term::tuple([Term::atom("from").ok()?, Term::atom("proc_mgr").ok()?])).ok()
    });

    let app = node("app@lab")?.start().await?;
    let mapping = AtomMapping::new([("process_manager", "proc_mgr")])?;
    let route = NetworkRoute::direct("127.0.0.1", legacy.listening()[0].port())?.atom_mapping(mapping);
    app.add_route("^legacy@", route, 100)?;

    let request = Term::list([Term::atom("restart")?, Term::atom("process_manager")?]);
    let connection = app.connect("legacy@lab").await?;
    let answer = connection.call_term("process_manager", "", &request, Duration::from_secs(5)).await?;
    println!("app got {answer:?}");
    assert_eq!(answer, Term::tuple([Term::atom("from")?, Term::atom("process_manager")?]));
    serving.await?.ok_or("the mailbox got no term")?;
    Ok(())
}
