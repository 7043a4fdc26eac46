//! One route that checks the peer's certificate, and one that takes any: in one node, at once.
//!
//! ```yaml
//! tls_profiles: { lab: { roots: ca.pem } }
//! routes:
//!   - { match: "^db@", host: 127.0.0.1, port: 4370, tls: true, tls_profile: lab }
//!   - { match: "^test@", host: 127.0.0.1, port: 4371, tls: true, insecure_skip_verify: true }
//! ```
//!
//! Without checks the cookie still proves who answers; see `docs/SECURITY.md`.
//! Run: `cargo run -p trunkline-tests --example skip_verify`

use std::error::Error;
use std::net::SocketAddr;
use std::time::SystemTime;

use trunkline::{Cookie, Identity, LabAuthority, Listen, NetworkRoute, Node, TlsProfile, TlsProfileId};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let cookie = Cookie::new("a shared secret of all")?;
    let node = |name: &'static str| Ok::<_, Box<dyn Error>>(Node::builder(name)?.cookie(cookie.clone()).no_registrar());
    let anywhere: SocketAddr = "127.0.0.1:0".parse()?;
    #[expect(clippy::disallowed_methods, reason = "certificates are good for a time of the calendar")]
    let today = SystemTime::now();
    let (ours, foreign) = (LabAuthority::new(today, 30)?, LabAuthority::new(today, 30)?);
    let certified = |authority: &LabAuthority, name: &str| {
        let issued = authority.issue(&name.parse()?, &["127.0.0.1".parse()?], today, 30)?;
        let identity = Identity::from_pem(issued.certificate.as_bytes(), issued.key.as_bytes())?;
        Ok::<_, Box<dyn Error>>(Listen::at(anywhere).tls(identity))
    };
    let db = node("db@lab")?.listen(certified(&ours, "db@lab")?).start().await?;
    let test = node("test@lab")?.listen(certified(&foreign, "test@lab")?).start().await?;

    let lab = TlsProfileId::new("lab")?;
    let trusting = TlsProfile::default().roots_pem(ours.certificate().as_bytes())?;
    let app = node("app@lab")?.tls_profile(lab.clone(), trusting).start().await?;
    let to = |node: &Node| NetworkRoute::direct("127.0.0.1", node.listening()[0].port());
    app.add_route("^db@", to(&db)?.tls(true).tls_profile(lab.clone()), 100)?;
    app.add_route("^test@", to(&test)?.tls(true).insecure_skip_verify(true), 100)?;
    println!("strict: {:?}", app.connect("db@lab").await?.info().tls);
    println!("lax: {:?}", app.connect("test@lab").await?.info().tls);

    app.remove_route("^test@")?;
    app.connection("test@lab").ok_or("it is connected")?.disconnect();
    app.add_route("^test@", to(&test)?.tls(true).tls_profile(lab), 100)?;
    println!("{}", app.connect("test@lab").await.map(drop).unwrap_err());
    Ok(())
}
