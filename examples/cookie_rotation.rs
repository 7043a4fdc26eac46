//! A cookie that is replaced node by node, without an outage: two are good meanwhile, and a label tells which one a caller
//! holds.
//!
//! ```yaml
//! node:                                            # first everywhere: the new one is good too
//!   cookie_file: cookie
//!   cookie_label: "2026-10"
//!   also_accept: [{ cookie_file: staging, cookie_label: "2026-11" }]
//! ---
//! node:                                            # then everywhere: the new one is shown, the old one still good
//!   cookie_file: staging
//!   cookie_label: "2026-11"
//!   also_accept: [{ cookie_file: cookie, cookie_label: "2026-10" }]
//! ---
//! node: { cookie_file: staging, cookie_label: "2026-11" }   # and at last everywhere: the old one is gone
//! routes: [{ match: "^partner@", port: 4370, cookie_file: cookie, cookie_label: "2026-10" }]   # a route may show its own
//! ```
//!
//! Each step is a restart of one node after the other.
//! Run: `cargo run -p trunkline-tests --example cookie_rotation`

use std::error::Error;
use std::net::SocketAddr;

use trunkline::{Cookie, Cookies, NetworkRoute, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let old = Cookie::new("the secret until today")?.labelled("2026-10")?;
    let new = Cookie::new("the secret from today on")?.labelled("2026-11")?;
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    // What each end shows, and what else it takes, step by step.
    let steps = [
        (&old, Some(&new), &old, None),
        (&old, Some(&new), &old, Some(&new)),
        (&new, Some(&old), &old, Some(&new)),
        (&new, Some(&old), &new, Some(&old)),
        (&new, None, &new, Some(&old)),
    ];
    for (n, (db_shows, db_takes, app_shows, app_takes)) in steps.into_iter().enumerate() {
        let node = |name: &'static str, shows: &Cookie, takes: Option<&Cookie>| {
            let cookies = takes.into_iter().fold(Cookies::new(shows.clone()), |all, other| all.also(other.clone()));
            Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookies).no_registrar())
        };
        let db = node("db@lab", db_shows, db_takes)?.listen(anywhere).start().await?;
        let app = node("app@lab", app_shows, app_takes)?.start().await?;
        app.add_route("^db@", NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?, 100)?;
        app.connect("db@lab").await?;
        println!("step {n}: connected");
    }
    Ok(())
}
