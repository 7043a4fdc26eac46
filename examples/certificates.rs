//! A route whose two ends verify each other's certificates, and a certificate that is replaced while the node runs.
//!
//! ```yaml
//! node:
//!   listen: [{ port: 4370, tls: { certificate: db.pem, key: db.key, client_ca: ca.pem } }]       # db
//! ---
//! tls_profiles: { lab: { roots: ca.pem, certificate: app.pem, key: app.key } }                    # app
//! routes: [{ match: "^db@", host: 127.0.0.1, port: 4370, tls: true, tls_profile: lab }]
//! ```
//!
//! `trunkline certs db@127.0.0.1 app@127.0.0.1` makes the files. Run: `cargo run -p trunkline-tests --example certificates`

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use trunkline::{
    Cookie, Host, IdentityFiles, LabAuthority, Listen, NetworkRoute, Node, NodeName, ProfileFiles, ServerFiles,
    TlsProfileId,
};

#[expect(clippy::disallowed_methods, reason = "certificates begin now")]
fn issue(authority: &LabAuthority, dir: &Path, node: &str) -> Result<IdentityFiles, Box<dyn Error>> {
    let issued = authority.issue(&NodeName::new(node)?, &[Host::new("127.0.0.1")?], SystemTime::now(), 30)?;
    let files = IdentityFiles { certificate: dir.join(format!("{node}.pem")), key: dir.join(format!("{node}.key")) };
    std::fs::write(&files.certificate, &issued.certificate)?;
    std::fs::write(&files.key, issued.key.as_bytes())?;
    Ok(files)
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    #[expect(clippy::disallowed_methods, reason = "certificates begin now")]
    let authority = LabAuthority::new(SystemTime::now(), 30)?;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.certificate())?;
    let cookie = Cookie::new("a shared secret of the two")?;

    // The listener shows its certificate and demands one of the same authority.
    let identity = issue(&authority, dir.path(), "db@127.0.0.1")?;
    let tls = ServerFiles {
        identity,
        client_roots: Some(ca.clone()),
        client_certificate_optional: false,
        cert_name_required: false,
    };
    let listen = Listen::at("127.0.0.1:0".parse::<SocketAddr>()?).tls(tls);
    let db = Node::builder("db@127.0.0.1")?.cookie(cookie.clone()).no_registrar().listen(listen).start().await?;

    // The route verifies it, and shows its own.
    let identity = issue(&authority, dir.path(), "app@127.0.0.1")?;
    let (lab, files) = (
        TlsProfileId::new("lab")?,
        ProfileFiles { roots: Some(ca), identity: Some(identity), ..ProfileFiles::default() },
    );
    let route = NetworkRoute::direct("127.0.0.1", db.listening()[0].port())?.tls(true).tls_profile(lab.clone());
    let app = Node::builder("app@127.0.0.1")?.cookie(cookie).no_registrar().tls_profile(lab, files);
    let app = app.route("^db@", route, 100).start().await?;
    let connection = app.connect("db@127.0.0.1").await?;
    println!("connected, proven by {}", connection.info().tls);

    // A new certificate is taken up when its files change, or at once when asked; the connection stays up.
    issue(&authority, dir.path(), "db@127.0.0.1")?;
    for reloaded in db.reload_certificates() {
        println!("new certificates of {}: {:?}", reloaded.what, reloaded.error);
    }
    assert!(connection.is_up());
    Ok(())
}
